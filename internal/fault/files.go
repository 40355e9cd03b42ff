package fault

import (
	"errors"
	"syscall"
)

// RemedyOpenFiles is the remedy for an error for which [TooManyFiles] returns true.
const RemedyOpenFiles = "raise the limit of open files: ulimit -n, LimitNOFILE= of a unit, --ulimit nofile= of a container"

// TooManyFiles reports whether the cause is the limit of open files, to which connections count, too.
// Neither the file nor the server is the cause.
func TooManyFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
