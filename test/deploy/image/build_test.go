package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/test/debian"
)

const (
	// stampedVersion and stampedCommit are what the image is said to be.
	stampedVersion = "9.8.7"
	stampedCommit  = "0123456789ab"
)

// buildWithin bounds one build. It compiles everything, with nothing kept from before.
const buildWithin = 9 * time.Minute

// repository is the root of the source.
var repository = sync.OnceValues(func() (string, error) { return filepath.Abs("../../..") })

// workDir holds everything that this run of the tests makes on disk.
var workDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "imagetest")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // others than root go through it
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := workDir(); err == nil {
		_, _ = command(nil, "buildah", "rm", "--all") // unmounts
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "image:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// command runs a program on storage of its own and returns its stdout.
func command(environ []string, name string, args ...string) (string, error) {
	dir, err := workDir()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"))
	cmd.Env = append(cmd.Env, environ...)
	if cmd.Dir, err = repository(); err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// installed makes sure of the tools.
func installed() error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New("these tests build and run an image without an engine: run them on Linux as root")
	}
	return debian.Install([]string{"buildah", "busybox", "make"}, "buildah", "busybox-static", "make", "ca-certificates")
}

// A built image, mounted.
type built struct {
	root   string // of its files
	config string // buildah's description
}

// theImage builds the image as `make image` does, with this machine's Go in the
// place of the build image's.
var theImage = sync.OnceValues(func() (built, error) {
	if err := installed(); err != nil {
		return built{}, err
	}
	dir, err := workDir()
	if err != nil {
		return built{}, err
	}
	storage := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "storage"), filepath.Join(dir, "run"))
	if err := os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(storage), 0o600); err != nil {
		return built{}, err
	}
	if err := baseImage(dir); err != nil {
		return built{}, fmt.Errorf("build image: %w", err)
	}
	flags, err := goOfThisMachine()
	if err != nil {
		return built{}, err
	}
	if _, err := command([]string{"ENGINE=buildah", "BUILDAH_FLAGS=--isolation chroot " + flags},
		"deploy/image.sh", "adconnector:test", stampedVersion, stampedCommit, "BUILD_IMAGE=localhost/build:test"); err != nil {
		return built{}, err
	}
	container, err := command(nil, "buildah", "from", "localhost/adconnector:test")
	if err != nil {
		return built{}, err
	}
	var b built
	if b.root, err = command(nil, "buildah", "mount", container); err != nil {
		return built{}, err
	}
	b.config, err = command(nil, "buildah", "inspect", "--type", "image", "localhost/adconnector:test")
	return b, err
})

// baseImage makes an image with what the Dockerfile asks of its build image but Go:
// a shell and its tools, and roots to trust.
func baseImage(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	base := filepath.Join(dir, "base")
	for _, d := range []string{"bin", "tmp", "etc/ssl/certs", "go/pkg/mod", "usr/local/go"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		from, to string
		mode     os.FileMode
	}{
		{busybox, "bin/busybox", 0o755},
		{"/etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-certificates.crt", 0o644},
	} {
		content, err := os.ReadFile(file.from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(base, file.to), content, file.mode); err != nil {
			return err
		}
	}
	for _, tool := range []string{"sh", "mkdir", "cp", "echo", "chown", "chmod"} {
		if err := os.Symlink("busybox", filepath.Join(base, "bin", tool)); err != nil {
			return err
		}
	}
	// No build that asks the network passes.
	const recipe = "FROM scratch\nCOPY . /\nENV PATH=/usr/local/go/bin:/bin GOMODCACHE=/go/pkg/mod GOCACHE=/tmp/cache GOPROXY=off GOFLAGS=-mod=readonly GOTOOLCHAIN=local\n"
	containerfile := filepath.Join(dir, "Containerfile")
	if err := os.WriteFile(containerfile, []byte(recipe), 0o600); err != nil {
		return err
	}
	_, err = command(nil, "buildah", "bud", "--isolation", "chroot", "-t", "localhost/build:test", "-f", containerfile, base)
	return err
}

// goOfThisMachine returns the flags that give a build this machine's Go and the
// modules that it has downloaded.
func goOfThisMachine() (flags string, err error) {
	if _, err := command(nil, "go", "mod", "download"); err != nil {
		return "", err
	}
	where, err := command(nil, "go", "env", "GOROOT", "GOMODCACHE")
	if err != nil {
		return "", err
	}
	paths := strings.Fields(where)
	return fmt.Sprintf("--volume %s:/usr/local/go:ro --volume %s:/go/pkg/mod:ro", paths[0], paths[1]), nil
}

func imageOf(t *testing.T) built {
	t.Helper()
	b, err := theImage()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
