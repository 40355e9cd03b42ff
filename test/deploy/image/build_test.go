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
	// stampedVersion and stampedCommit are the build arguments of the image.
	stampedVersion = "9.8.7"
	stampedCommit  = "0123456789ab"
)

// buildTimeout bounds one build, which compiles everything with an empty cache.
const buildTimeout = 9 * time.Minute

// repository returns the path of the repository.
var repository = sync.OnceValues(func() (string, error) { return filepath.Abs("../../..") })

// workDir returns a directory for all files of this test process.
var workDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "imagetest")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // users other than root need access
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := workDir(); err == nil {
		_, _ = command(nil, "buildah", "rm", "--all") // also unmounts the image
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "image:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// command runs a program with container storage in workDir and returns its stdout.
func command(environ []string, name string, args ...string) (string, error) {
	dir, err := workDir()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
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

// installTools installs missing tools.
func installTools() error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New("the tests use namespaces and chroot: run them on Linux as root")
	}
	return debian.Install([]string{"buildah", "busybox", "make"}, "buildah", "busybox-static", "make", "ca-certificates")
}

// image is a built and mounted image.
type image struct {
	root   string // directory of its files
	config string // output of buildah inspect
}

// buildOnce builds the image as `make image` does, but with the local Go instead of that of the
// build image.
var buildOnce = sync.OnceValues(func() (image, error) {
	if err := installTools(); err != nil {
		return image{}, err
	}
	dir, err := workDir()
	if err != nil {
		return image{}, err
	}
	storage := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "storage"), filepath.Join(dir, "run"))
	if err := os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(storage), 0o600); err != nil {
		return image{}, err
	}
	if err := baseImage(dir); err != nil {
		return image{}, fmt.Errorf("build image: %w", err)
	}
	flags, err := localGoFlags()
	if err != nil {
		return image{}, err
	}
	if _, err := command([]string{"ENGINE=buildah", "BUILDAH_FLAGS=--isolation chroot " + flags},
		"deploy/image.sh", "adconnector:test", stampedVersion, stampedCommit, "BUILD_IMAGE=localhost/build:test"); err != nil {
		return image{}, err
	}
	container, err := command(nil, "buildah", "from", "localhost/adconnector:test")
	if err != nil {
		return image{}, err
	}
	var i image
	if i.root, err = command(nil, "buildah", "mount", container); err != nil {
		return image{}, err
	}
	i.config, err = command(nil, "buildah", "inspect", "--type", "image", "localhost/adconnector:test")
	return i, err
})

// baseImage builds an image with the requirements of the Dockerfile for its build image, except
// Go: a shell, its tools and CA certificates.
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
	// GOPROXY=off makes a build fail if it needs the network.
	const instructions = "FROM scratch\nCOPY . /\nENV PATH=/usr/local/go/bin:/bin GOMODCACHE=/go/pkg/mod GOCACHE=/tmp/cache GOPROXY=off GOFLAGS=-mod=readonly GOTOOLCHAIN=local\n"
	containerfile := filepath.Join(dir, "Containerfile")
	if err := os.WriteFile(containerfile, []byte(instructions), 0o600); err != nil {
		return err
	}
	_, err = command(nil, "buildah", "bud", "--isolation", "chroot", "-t", "localhost/build:test", "-f", containerfile, base)
	return err
}

// localGoFlags returns flags that mount the local Go and its module cache into a build.
func localGoFlags() (flags string, err error) {
	if _, err := command(nil, "go", "mod", "download"); err != nil {
		return "", err
	}
	output, err := command(nil, "go", "env", "GOROOT", "GOMODCACHE")
	if err != nil {
		return "", err
	}
	paths := strings.Fields(output)
	return fmt.Sprintf("--volume %s:/usr/local/go:ro --volume %s:/go/pkg/mod:ro", paths[0], paths[1]), nil
}

// builtImage returns the image. The first call builds it.
func builtImage(t *testing.T) image {
	t.Helper()
	i, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return i
}
