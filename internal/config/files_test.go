package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// namedPipe creates a named pipe.
func namedPipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// substitution returns the path of a pipe with a content, as a shell's process substitution does.
func substitution(t *testing.T, content string) string {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	_, err = writer.WriteString(content)
	if err = errors.Join(err, writer.Close()); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/dev/fd/%d", reader.Fd())
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		path    func(t *testing.T) string
		timeout time.Duration
		want    string
		cause   error
	}{
		{"regular file", func(t *testing.T) string { return writeFile(t, "file", "hush\n") }, 0, "hush\n", nil},
		{"largest file", func(t *testing.T) string { return writeFile(t, "file", strings.Repeat("x", maxFileSize)) }, 0, strings.Repeat("x", maxFileSize), nil},
		{"larger file", func(t *testing.T) string { return writeFile(t, "file", strings.Repeat("x", maxFileSize+1)) }, 0, "", errFileTooLarge},
		{"device without an end", func(*testing.T) string { return "/dev/zero" }, 0, "", errFileTooLarge},
		{"empty device", func(*testing.T) string { return os.DevNull }, 0, "", nil},
		{"process substitution", func(t *testing.T) string { return substitution(t, "hush\n") }, time.Hour, "hush\n", nil},
		{"pipe without a writer", func(t *testing.T) string { return namedPipe(t) }, time.Hour, "", nil},
		{"pipe that stays open", func(t *testing.T) string {
			path := namedPipe(t)
			writer, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { writer.Close() })
			return path
		}, time.Millisecond, "", errPipeNotEnded},
		{"missing", func(t *testing.T) string { return filepath.Join(t.TempDir(), "file") }, 0, "", os.ErrNotExist},
		{"directory", func(t *testing.T) string { return t.TempDir() }, 0, "", syscall.EISDIR},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			content, err := readFile(test.path(t), test.timeout)
			if string(content) != test.want || !errors.Is(err, test.cause) {
				t.Errorf("%.80q, %v, want %.80q, %v", content, err, test.want, test.cause)
			}
		})
	}
}

// TestSecretsFromPipes checks that a pipe is read once, also where several settings need its value,
// and not again before each run.
func TestSecretsFromPipes(t *testing.T) {
	t.Parallel()
	c := requireLoad(t, with(complete, "qualys.user.password=", "QUALYS_USER_PASSWORD_FILE="+substitution(t, "hush\n")))
	if password := c.Gateway.Login.Password.Reveal(); password != "hush" {
		t.Errorf("password %q", password)
	}
	if len(c.Secrets) != 0 {
		t.Errorf("%d files to read again", len(c.Secrets))
	}
}
