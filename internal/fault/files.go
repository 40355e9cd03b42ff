package fault

import (
	"errors"
	"syscall"
)

// RemedyOpenFiles is the remedy for an error of which [TooManyFiles] is true.
const RemedyOpenFiles = "raise the limit of open files: ulimit -n, LimitNOFILE= of a unit, --ulimit nofile= of a container"

// TooManyFiles reports whether the cause is the limit of open files, which connections need too. It
// says nothing about the file or the server.
func TooManyFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
