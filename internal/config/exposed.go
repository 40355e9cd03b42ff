package config

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"adconnector/internal/input"
)

// exposure returns the mistake of a file with secrets by its mode and its owner, or nil. A group
// can be how a process gets access to a file of another user, as in a pod with an fsGroup, so its
// right counts only if the process owns the file.
func exposure(path string, mode fs.FileMode, owner, user uint32) *input.Mistake {
	const (
		groupReads  = 0o040
		othersRead  = 0o004
		onlyOwner   = "chmod 600 "
		onlyOwnerOf = "let only the user of this process read it: mode 0600, or 0440 with a group of its own: "
	)
	who := ""
	switch {
	case !mode.IsRegular(): // a pipe of a shell, for example
		return nil
	case mode&othersRead != 0:
		who = "every user"
	case mode&groupReads != 0 && owner == user:
		who = "its group"
	default:
		return nil
	}
	remedy := onlyOwner + path
	if owner != user && user != 0 {
		remedy = onlyOwnerOf + path
	}
	return input.NewMistake(fmt.Sprintf("has secrets and mode %04o, so that %s can read it", mode.Perm(), who), remedy)
}

// exposureOf returns the mistake of a file, or nil. A file that cannot be examined has none: it is
// reported when it is read.
func exposureOf(path string) *input.Mistake {
	info, _ := os.Stat(path)
	if info == nil {
		return nil
	}
	system, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return exposure(path, info.Mode(), system.Uid, uint32(os.Geteuid())) //nolint:gosec // a user ID has 32 bits
}

// reportExposed reports the env files with secrets, and the files of the secrets in use, that other
// users can read. The name of a finding is "env file" and its path, or the setting of a secret's file.
func (l *loader) reportExposed(envFiles []string, report func(input.Finding)) {
	reported := map[string]bool{}
	add := func(place, path string) {
		if reported[path] {
			return
		}
		reported[path] = true
		if mistake := exposureOf(path); mistake != nil {
			report(input.Finding{Name: place, Mistakes: []error{mistake}})
		}
	}
	for _, path := range envFiles {
		if slices.Contains(l.withSecrets, path) {
			add("env file "+path, path)
		}
	}
	for _, k := range keys {
		if s := l.find(k.Name); k.Secret && s.from.file {
			add(s.place, s.from.text)
		}
	}
}
