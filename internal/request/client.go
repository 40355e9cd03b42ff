package request

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/uuid"

	"adconnector/internal/fault"
)

// The outcomes of a request without a response.
var (
	// ErrNotServed means that no daemon accepts requests, or that it has ended before it started
	// the run. No run was started, and none will be.
	ErrNotServed = errors.New("no daemon accepts requests")
	// ErrWithdrawn means that the request was withdrawn before the run was started.
	ErrWithdrawn = errors.New("interrupted, request withdrawn")
	// ErrContinues means that the run was started and continues, but its outcome is not awaited.
	ErrContinues = errors.New("interrupted, the run continues in the daemon")

	errLost = errors.New("the daemon ended during the run, or could not write its outcome")
)

const remedyLost = "see adconnector status for the outcome; if the run is not listed, run the command again"

// IsServed reports whether a daemon accepts requests for a state directory.
func IsServed(stateDir string) bool {
	root, err := openDir(dirPath(stateDir))
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }()
	return isServed(root)
}

// Pending is a request of this process.
type Pending struct {
	Request
	root *os.Root
	file *os.File // its lock shows that this process is alive
}

// Submit writes a request, for which it sets the ID, the format, the time, and the process. It
// returns ErrNotServed if no daemon accepts requests.
func Submit(stateDir string, r Request) (*Pending, error) {
	root, err := openDir(dirPath(stateDir))
	if err != nil {
		return nil, ErrNotServed
	}
	if !isServed(root) {
		_ = root.Close()
		return nil, ErrNotServed
	}
	r.ID, r.Format, r.Created, r.PID = uuid.NewString(), format, time.Now().UTC(), os.Getpid()
	file, err := createPrivate(root, r.ID+suffixNew, true, r)
	if err == nil {
		if err = root.Rename(r.ID+suffixNew, r.ID+suffixRequest); err != nil {
			_ = file.Close() // err is more relevant
			_ = root.Remove(r.ID + suffixNew)
		}
	}
	if err != nil {
		_ = root.Close()
		return nil, writeError(stateDir, err)
	}
	return &Pending{Request: r, root: root, file: file}, nil
}

// writeError returns the error of a request that cannot be written.
func writeError(stateDir string, err error) error {
	write := fault.Operation{Op: "write", Object: "run request in " + dirPath(stateDir)}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return write.Failed(fault.Transient, err, "free or add space")
	}
	return write.Failed(fault.Invalid, err, "run the command as the user of the daemon, with the state directory writable")
}

// CopyDir returns the path of the directory with the copy of the state file.
func (p *Pending) CopyDir() string { return filepath.Join(p.root.Name(), p.ID+suffixCopy) }

// Close removes the files of the request. A run that was started continues.
func (p *Pending) Close() {
	for _, suffix := range suffixes {
		_ = p.root.RemoveAll(p.ID + suffix) // the daemon removes what is left
	}
	_ = p.file.Close()
	_ = p.root.Close()
}

// Await waits for the response. It calls observe with the progress of the run, once it is started,
// and with nil before. If ctx ends, it withdraws the request and returns ErrWithdrawn or, if the
// run was started, ErrContinues.
func (p *Pending) Await(ctx context.Context, observe func(*Progress)) (Response, error) {
	await := fault.Operation{Op: "await", Object: "requested run"}
	ticker := time.NewTicker(awaitInterval)
	defer ticker.Stop()
	for {
		// The daemon writes the response before it renames the request and unlocks its file.
		served, stage := isServed(p.root), p.stage()
		var response Response
		if readFile(p.root, p.ID+suffixResponse, maxResponseSize, &response) == nil {
			return response, nil
		}
		switch {
		case stage == suffixDone || stage == "" || stage == suffixRunning && !served:
			return response, await.Failed(fault.Transient, errLost, remedyLost)
		case !served && p.withdraw():
			return response, ErrNotServed
		}
		observe(p.progress(stage))
		select {
		case <-ctx.Done():
			if p.withdraw() {
				return response, await.Failed(fault.Canceled, ErrWithdrawn, "")
			}
			return response, await.Failed(fault.Canceled, ErrContinues, "see adconnector status for its outcome")
		case <-ticker.C:
		}
	}
}

// stage returns the suffix of the request, or "" if it was removed.
func (p *Pending) stage() string {
	for _, suffix := range lockedSuffixes { // in the order in which the daemon renames
		if _, err := p.root.Lstat(p.ID + suffix); !errors.Is(err, fs.ErrNotExist) {
			return suffix
		}
	}
	return ""
}

// withdraw reports whether the request was removed before the daemon has taken it.
func (p *Pending) withdraw() bool { return p.root.Remove(p.ID+suffixRequest) == nil }

func (p *Pending) progress(stage string) *Progress {
	if stage != suffixRunning {
		return nil
	}
	var now Progress
	_ = readFile(p.root, p.ID+suffixProgress, maxRequestSize, &now) // without it, nothing was read yet
	return &now
}
