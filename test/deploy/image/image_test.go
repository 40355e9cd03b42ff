package image

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestFiles checks that the image contains the files of the Dockerfile only, and the owner of
// the volume.
func TestFiles(t *testing.T) {
	image := builtImage(t)
	type entry struct {
		mode fs.FileMode
		uid  uint32
	}
	found := map[string]entry{}
	var size int64
	err := filepath.WalkDir(image.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !d.IsDir() {
			size += info.Size()
		}
		found[strings.TrimPrefix(path, image.root)] = entry{info.Mode(), info.Sys().(*syscall.Stat_t).Uid}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "/etc", "/etc/ssl", "/etc/ssl/certs", "/usr", "/usr/bin", "/var", "/var/lib"} {
		if e := found[dir]; !e.mode.IsDir() || e.uid != 0 {
			t.Errorf("%s: %v, want a directory of root", dir, e)
		}
		delete(found, dir)
	}
	for path, want := range map[string]entry{
		"/usr/bin/adconnector":               {0o755, 0},
		"/etc/ssl/certs/ca-certificates.crt": {0o644, 0},
		"/etc/passwd":                        {0o644, 0},
		"/etc/group":                         {0o644, 0},
		"/var/lib/adconnector":               {fs.ModeDir | 0o700, 65532},
		"/tmp":                               {fs.ModeDir | fs.ModeSticky | 0o777, 0},
	} {
		if got := found[path]; got != want {
			t.Errorf("%s: %v of user %d, want %v of user %d", path, got.mode, got.uid, want.mode, want.uid)
		}
		delete(found, path)
	}
	if len(found) > 0 {
		t.Errorf("unexpected files: %v", slices.Sorted(maps.Keys(found)))
	}
	t.Logf("%.1f MB", float64(size)/1e6)
	if limit := int64(20e6); size > limit {
		t.Errorf("image has %d bytes, want at most %d", size, limit)
	}
	roots, err := os.ReadFile(filepath.Join(image.root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil || strings.Count(string(roots), "BEGIN CERTIFICATE") < 100 {
		t.Errorf("CA certificates: %d bytes, error %v", len(roots), err)
	}
}

// TestConfig checks the image configuration: command, health check, stop signal and labels.
func TestConfig(t *testing.T) {
	var description struct {
		Docker struct {
			Config struct {
				User        string
				Entrypoint  []string
				Cmd         []string
				Env         []string
				StopSignal  string
				Volumes     map[string]struct{}
				Labels      map[string]string
				Healthcheck struct{ Test []string }
			} `json:"config"`
			Architecture string `json:"architecture"`
		}
	}
	if err := json.Unmarshal([]byte(builtImage(t).config), &description); err != nil {
		t.Fatal(err)
	}
	c := description.Docker.Config
	labels := maps.Clone(c.Labels)
	maps.DeleteFunc(labels, func(key, _ string) bool { return strings.HasPrefix(key, "io.buildah.") })
	for name, values := range map[string][2]any{
		"user":         {c.User, "65532:65532"},
		"entrypoint":   {c.Entrypoint, []string{"/usr/bin/adconnector"}},
		"command":      {c.Cmd, []string(nil)},
		"stop signal":  {c.StopSignal, "SIGTERM"},
		"volumes":      {c.Volumes, map[string]struct{}{"/var/lib/adconnector": {}}},
		"health":       {c.Healthcheck.Test, []string{"CMD", "/usr/bin/adconnector", "healthcheck"}},
		"architecture": {description.Docker.Architecture, runtime.GOARCH},
		"labels": {labels, map[string]string{
			"org.opencontainers.image.title":       "adconnector",
			"org.opencontainers.image.description": "Brings users and groups from Active Directory to the Qualys gateway",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     stampedVersion,
			"org.opencontainers.image.revision":    stampedCommit,
		}},
	} {
		if got, want := fmt.Sprint(values[0]), fmt.Sprint(values[1]); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestBinary checks that the program is static, and identical to the program that make builds
// in another directory with another cache.
func TestBinary(t *testing.T) {
	image := builtImage(t)
	path := filepath.Join(image.root, "usr/bin/adconnector")
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("not static: %v", p.Type)
		}
	}
	rebuilt := filepath.Join(t.TempDir(), "adconnector")
	if _, err := command(nil, "make", "build", "BINARY="+rebuilt, "VERSION="+stampedVersion, "COMMIT="+stampedCommit); err != nil {
		t.Fatal(err)
	}
	if first, second := digest(t, path), digest(t, rebuilt); first != second {
		t.Errorf("digests differ: %s in the image, %s by make", first, second)
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(content))
}
