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

// TestFiles: the image holds nothing but what the Dockerfile says, and its volume
// belongs to the user.
func TestFiles(t *testing.T) {
	b := imageOf(t)
	type entry struct {
		mode fs.FileMode
		uid  uint32
	}
	found := map[string]entry{}
	var size int64
	err := filepath.WalkDir(b.root, func(path string, d fs.DirEntry, err error) error {
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
		found[strings.TrimPrefix(path, b.root)] = entry{info.Mode(), info.Sys().(*syscall.Stat_t).Uid}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, emptied := range []string{"", "/etc", "/etc/ssl", "/etc/ssl/certs", "/usr", "/usr/bin", "/var", "/var/lib"} {
		if e := found[emptied]; !e.mode.IsDir() || e.uid != 0 {
			t.Errorf("%s: %v", emptied, e)
		}
		delete(found, emptied)
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
		t.Errorf("also there: %v", slices.Sorted(maps.Keys(found)))
	}
	t.Logf("%.1f MB", float64(size)/1e6)
	if const20MB := int64(20e6); size > const20MB {
		t.Errorf("%d bytes are no small image", size)
	}
	roots, err := os.ReadFile(filepath.Join(b.root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil || strings.Count(string(roots), "BEGIN CERTIFICATE") < 100 {
		t.Errorf("%d bytes of roots, error %v", len(roots), err)
	}
}

// TestConfig: how an engine starts, watches, stops and labels it.
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
	if err := json.Unmarshal([]byte(imageOf(t).config), &description); err != nil {
		t.Fatal(err)
	}
	c := description.Docker.Config
	labels := maps.Clone(c.Labels)
	maps.DeleteFunc(labels, func(key, _ string) bool { return strings.HasPrefix(key, "io.buildah.") })
	for what, pair := range map[string][2]any{
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
		if got, want := fmt.Sprint(pair[0]), fmt.Sprint(pair[1]); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
}

// TestBinary: the program needs nothing of a system, and comes out byte for byte
// the same when it is built at another place, by make, with another cache.
func TestBinary(t *testing.T) {
	b := imageOf(t)
	path := filepath.Join(b.root, "usr/bin/adconnector")
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is not static: %v", p.Type)
		}
	}
	again := filepath.Join(t.TempDir(), "adconnector")
	if _, err := command(nil, "make", "build", "BINARY="+again, "VERSION="+stampedVersion, "COMMIT="+stampedCommit); err != nil {
		t.Fatal(err)
	}
	if first, second := digest(t, path), digest(t, again); first != second {
		t.Errorf("two builds differ: %s in the image, %s by make", first, second)
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
