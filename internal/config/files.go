package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

const (
	// maxFileSize limits a file that a setting or a flag names: a device such as /dev/zero has no end.
	maxFileSize = 1 << 20
	// pipeTimeout limits the time until the content of a pipe is complete.
	pipeTimeout = 10 * time.Second
)

var (
	errFileTooLarge = fmt.Errorf("is larger than %d bytes", maxFileSize)
	errPipeNotEnded = errors.New("is a pipe whose content is not complete")
)

// readFile reads a file that a setting or a flag names. It can be a pipe, such as that of a shell's
// process substitution, from which one read gets everything. A pipe without a writer is empty.
func readFile(path string, timeout time.Duration) ([]byte, error) {
	// O_NONBLOCK: opening a named pipe must not wait for its other end. Regular files ignore it.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(timeout)) // regular files, which do not block, have none
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%w after %s", errPipeNotEnded, timeout)
	case err != nil:
		return nil, err
	case len(content) > maxFileSize:
		return nil, errFileTooLarge
	}
	return content, nil
}

// isRegular reports whether a path leads to a regular file, which can be read again.
func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
