package state

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// names are all files that a Store creates with fixed names.
func names(dir string) map[string]string {
	path := filepath.Join(dir, fileName)
	return map[string]string{
		"state file": path, "lock file": lockPath(path), "holder file": holderPath(path),
		"new holder file": newHolderPath(path), "compacted file": compactPath(path),
		"generation file": generationPath(path), "new generation file": newGenerationPath(path),
	}
}

// TestForeignFilesAreRefused checks that Open and CheckDir refuse a file that leads elsewhere,
// and that Open does not change the file that it leads to.
func TestForeignFilesAreRefused(t *testing.T) {
	t.Parallel()
	const content = "belongs to somebody else"
	kinds := map[string]struct {
		create func(victim, path string) error
		cause  error
		remedy string
	}{
		"symbolic link":  {os.Symlink, errSymbolicLink, "service.state-dir"},
		"dangling link":  {func(victim, path string) error { return os.Symlink(victim+".missing", path) }, errSymbolicLink, "service.state-dir"},
		"hard link":      {os.Link, errHardLink, "cp -p "},
		"named pipe":     {func(_, path string) error { return syscall.Mkfifo(path, 0o600) }, errNotRegular, "service.state-dir"},
		"directory":      {func(_, path string) error { return os.Mkdir(path, 0o700) }, errNotRegular, "service.state-dir"},
		"directory link": {func(victim, path string) error { return os.Symlink(filepath.Dir(victim), path) }, errSymbolicLink, "service.state-dir"},
	}
	for kind, c := range kinds {
		for name := range names("") {
			t.Run(kind+" as "+name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				path, victim := names(dir)[name], filepath.Join(t.TempDir(), "victim")
				must(t, os.WriteFile(victim, []byte(content), 0o644))
				must(t, c.create(victim, path))
				checkErr := CheckDir(dir)
				_, openErr := tryOnce.Open(dir)
				errs := []error{checkErr, openErr}
				if name == "state file" {
					_, readErr := tryOnce.OpenReadOnly(dir)
					errs = append(errs, readErr)
				}
				for _, err := range errs {
					faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + filepath.Join(dir, fileName)}, c.cause, path, c.remedy)
					if !errors.Is(err, ErrUnusable) {
						t.Errorf("error %v", err)
					}
				}
				if after := result(os.ReadFile(victim))(t); string(after) != content {
					t.Errorf("the other file contains %q", after)
				}
				if entries := result(os.ReadDir(filepath.Dir(victim)))(t); len(entries) != 1 {
					t.Errorf("created %v next to the other file", entries)
				}
				if info := result(os.Lstat(victim))(t); info.Mode() != 0o644 {
					t.Errorf("mode %s of the other file", info.Mode())
				}
			})
		}
	}
}

// TestRemedyOfHardLink checks that the commands of the remedy keep the content of the state.
func TestRemedyOfHardLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	s := openStore(t, dir)
	must(t, s.SetConnector(Connector{State: "SCHEDULED"}))
	must(t, s.Close())
	must(t, os.Link(path, filepath.Join(t.TempDir(), "link")))
	_, commands, _ := strings.Cut(fault.Remedy(CheckDir(dir)), "(")
	commands, _, _ = strings.Cut(commands, ")")
	if output, err := exec.Command("sh", "-c", commands).CombinedOutput(); err != nil || commands == "" {
		t.Fatalf("%q: %v %s", commands, err, output)
	}
	if connector := result(openStore(t, dir).Connector())(t); connector.State != "SCHEDULED" {
		t.Errorf("connector %+v", connector)
	}
}

// TestOpenFileWithoutPreviousCheck checks that opening itself refuses links: one can appear
// after checkFiles.
func TestOpenFileWithoutPreviousCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim, link, path := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, fileName)
	must(t, os.WriteFile(victim, []byte("content"), 0o600))
	must(t, os.Symlink(victim, link))
	for name, open := range map[string]func() (*os.File, error){
		"read":   func() (*os.File, error) { return openFile(link, os.O_RDONLY, 0) },
		"write":  func() (*os.File, error) { return openFile(link, os.O_RDWR|os.O_CREATE, 0o600) },
		"create": func() (*os.File, error) { return createFile(link, os.O_WRONLY, 0o600) },
	} {
		if _, err := open(); !errors.Is(err, errSymbolicLink) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	must(t, os.Symlink(victim, lockPath(path)))
	if _, err := acquireLock(path, 0); !errors.Is(err, errSymbolicLink) {
		t.Errorf("lock: error %v", err)
	}
	must(t, os.Symlink(victim, path))
	if _, err := unsynced.open(path); !errors.Is(err, errSymbolicLink) {
		t.Errorf("state file: error %v", err)
	}
	must(t, os.Symlink(victim, compactPath(path)))
	if err := compactInto(compactPath(path), nil, unsynced); !errors.Is(err, errSymbolicLink) {
		t.Errorf("compacted file: error %v", err)
	}
	must(t, os.Symlink(victim, holderPath(path)))
	if content, err := readSmallFile(holderPath(path), maxHolderSize); !errors.Is(err, errSymbolicLink) {
		t.Errorf("holder file: %q, error %v", content, err)
	}
	must(t, os.Symlink(victim, newHolderPath(path)))
	(&Store{path: path}).writeHolder() // replaces the links
	if info := result(os.Lstat(holderPath(path)))(t); info.Mode() != 0o600 {
		t.Errorf("mode %s of the holder file", info.Mode())
	}
	if content := result(os.ReadFile(victim))(t); string(content) != "content" {
		t.Errorf("the other file contains %q", content)
	}
}

// TestModes checks the modes of everything that Open creates, with the umask 0.
func TestModes(t *testing.T) { // not parallel: the umask is the process'
	defer syscall.Umask(syscall.Umask(0))
	dir := filepath.Join(t.TempDir(), "a", "state")
	openStore(t, dir)
	for _, created := range []string{dir, filepath.Dir(dir)} {
		if info := result(os.Stat(created))(t); info.Mode() != fs.ModeDir|0o700 {
			t.Errorf("mode %s of %s", info.Mode(), created)
		}
	}
	entries := result(os.ReadDir(dir))(t)
	for _, entry := range entries {
		if info := result(entry.Info())(t); info.Mode() != 0o600 {
			t.Errorf("mode %s of %s", info.Mode(), entry.Name())
		}
	}
	if len(entries) != 3 {
		t.Errorf("created %v", entries)
	}
	if err := SharedAccess(dir); err != nil {
		t.Error(err)
	}
}

// TestSharedDirectory checks that a directory that others can write is used, and reported.
func TestSharedDirectory(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]fs.FileMode{
		"group":              0o770,
		"group with setgid":  0o770 | fs.ModeSetgid,
		"others":             0o707,
		"everybody, sticky":  0o777 | fs.ModeSticky,
		"fsGroup of a pod":   0o775 | fs.ModeSetgid,
		"everybody, no bits": 0o777,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must(t, os.Chmod(dir, mode))
			must(t, CheckDir(dir))
			must(t, openStore(t, dir).SetConnector(Connector{State: "SCHEDULED"}))
			faulttest.Check(t, SharedAccess(dir), fault.Error{Class: fault.Invalid, Op: "check", Object: dir}, errShared, dir, "fsGroup")
		})
	}
	for _, mode := range []fs.FileMode{0o700, 0o750, 0o755} {
		dir := t.TempDir()
		must(t, os.Chmod(dir, mode))
		openStore(t, dir)
		if err := SharedAccess(dir); err != nil {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
}

// TestSharedFile checks that a state file that others can write or own is used, and reported.
func TestSharedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	must(t, openStore(t, dir).Close())
	must(t, os.Chmod(path, 0o660))
	must(t, openStore(t, dir).Close())
	faulttest.Check(t, SharedAccess(dir), fault.Error{Class: fault.Invalid, Op: "check", Object: path}, errShared, path)
	must(t, os.Chmod(path, 0o600))
	if err := os.Chown(path, 65532, -1); err != nil {
		t.Skipf("requires root: %v", err)
	}
	must(t, openStore(t, dir).Close())
	faulttest.Check(t, SharedAccess(dir), fault.Error{Class: fault.Invalid, Op: "check", Object: path}, errShared, path, "owner")
}

// TestDirectoryBehindLink checks that the path of the directory may be a symbolic link, as
// with DynamicUser= of systemd.
func TestDirectoryBehindLink(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "adconnector")
	must(t, os.Symlink(t.TempDir(), link))
	must(t, CheckDir(link))
	openStore(t, link)
}

// TestSetAsideKeepsExistingFiles checks that a damaged file does not replace one that was set
// aside in the same second, nor the target of a link.
func TestSetAsideKeepsExistingFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, seen := filepath.Join(dir, fileName), map[string]bool{}
	for n := range 4 {
		must(t, os.WriteFile(path, []byte{byte(n)}, 0o600))
		damaged := result(setAside(path, ErrDamaged))(t)
		if seen[damaged.Path] || !strings.HasPrefix(damaged.Path, path+".damaged-") {
			t.Errorf("set aside as %s again", damaged.Path)
		}
		seen[damaged.Path] = true
	}
	victim := filepath.Join(dir, "victim")
	must(t, os.Symlink(victim, filepath.Join(dir, "name"))) // dangling
	if unused := unusedPath(filepath.Join(dir, "name")); unused != filepath.Join(dir, "name-2") {
		t.Errorf("unused path %s", unused)
	}
}

// TestLongHolderFile checks that an error text contains only the beginning of the holder file.
func TestLongHolderFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openStore(t, dir)
	must(t, os.WriteFile(names(dir)["holder file"], []byte(strings.Repeat("x", 1<<20)), 0o600))
	_, err := tryOnce.Open(dir)
	if locked, is := errors.AsType[*lockedError](err); !is || len(locked.holder) != maxHolderSize {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}
