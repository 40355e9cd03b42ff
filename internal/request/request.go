// Package request passes requests for a run from a command to the daemon of the same state
// directory, and passes the outcome back.
//
// A request is a file in the directory "requests" of the state directory, which only the user of
// the daemon and root can use. The name of the file shows how far the request is:
//
//	ID.request   written by the command, which can withdraw it by removing the file
//	ID.running   renamed by the daemon, which can then no longer be prevented from the run
//	ID.done      renamed by the daemon after it has written the response, ID.answer
//
// A request can also be for a copy of the state file, which the daemon writes to ID.copy. A dry run
// reads it, because it cannot read the file itself.
//
// Both processes can end at any moment. Each shows that it is alive by a lock, which the end of a
// process releases: the command locks its request, and the daemon locks the file "daemon". Process
// IDs prove nothing, because the processes can be in different containers.
package request

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

const (
	dirName    = "requests" // in the state directory
	markerName = "daemon"   // locked as long as a daemon accepts requests
	format     = 1          // of a request
)

// The suffixes of the files of a request.
const (
	suffixNew      = ".new"
	suffixRequest  = ".request"
	suffixRunning  = ".running"
	suffixDone     = ".done"
	suffixResponse = ".answer" // the name in every version
	suffixProgress = ".progress"
	suffixCopy     = ".copy" // a directory
)

// suffixes lists all of them.
var suffixes = []string{suffixNew, suffixRequest, suffixRunning, suffixDone, suffixResponse, suffixProgress, suffixCopy}

// lockedSuffixes are the suffixes of the file that the command locks, in the order of the renames.
var lockedSuffixes = []string{suffixRequest, suffixRunning, suffixDone}

// The maximum sizes of files in bytes, and the maximum number of files that are considered.
const (
	maxRequestSize  = 4 << 10
	maxResponseSize = 256 << 10
	maxFiles        = 1000
)

const (
	// maxAge is the age from which a request is refused.
	maxAge = 24 * time.Hour
	// minOrphanAge is the age from which the files of a command that has ended are removed. A
	// younger file may not be locked yet.
	minOrphanAge = time.Minute
	// pollInterval is the time between two looks of the daemon for requests.
	pollInterval = time.Second
	// awaitInterval is the time between two looks of a command for the response.
	awaitInterval = 100 * time.Millisecond
)

// idPattern matches the ID of a request: a UUID.
var idPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Options are the options of the run that is requested.
type Options struct {
	Full         bool `json:"full,omitempty"`
	AllowDeletes bool `json:"allow_deletes,omitempty"`
	Resend       bool `json:"resend,omitempty"`
}

// Request is a request for one run, or for a copy of the state file.
type Request struct {
	ID      string    `json:"id"`
	Format  int       `json:"format"`
	Created time.Time `json:"created"`
	PID     int       `json:"pid"` // of the command, for people only
	Version string    `json:"version"`
	// Target and Profile are what the command is configured for. The daemon refuses a request for
	// another target or profile.
	Target  string `json:"target"`
	Profile string `json:"profile"`
	Options
	Progress bool `json:"progress,omitempty"` // the command shows the progress
	Copy     bool `json:"copy,omitempty"`     // copy the state file instead of a run
}

// Response is the outcome of a request.
type Response struct {
	// Run is the record of the run, with its error; nil: no run was started, or a copy was made.
	Run *state.Run `json:"run,omitempty"`
	// Error, Remedy and Class are why no run was started, or why no copy was made.
	Error  string      `json:"error,omitempty"`
	Remedy string      `json:"remedy,omitempty"`
	Class  fault.Class `json:"class,omitempty"`
}

// Err returns the error of the run, or why there was none. It is nil without an error.
func (r Response) Err() error {
	text, remedy, class := r.Error, r.Remedy, r.Class
	if r.Run != nil {
		text, remedy, class = r.Run.Error, r.Run.Remedy, fault.Class(r.Run.Class)
	}
	if text == "" {
		return nil
	}
	return fault.Operation{}.Failed(class, errors.New(text), remedy)
}

// refusal returns the response to a request for which no run is started.
func refusal(err error) Response {
	return Response{Error: err.Error(), Remedy: fault.Remedy(err), Class: fault.ClassOf(err)}
}

// Progress is the progress of a requested run, as in syncrun.Progress.
type Progress struct {
	Phase        string `json:"phase"`
	Expected     int64  `json:"expected"`
	Read         int64  `json:"read"`
	Changed      int64  `json:"changed"`
	Acknowledged int64  `json:"acknowledged"`
}

// The reasons to refuse a request.
var (
	errFormat  = errors.New("unknown format")
	errOther   = errors.New("the command is configured for another gateway, connection or profile than the daemon")
	errTooOld  = errors.New("too old, or its clock is wrong")
	errContent = errors.New("invalid content")
)

// check returns why a request with the ID of its file cannot be executed by a daemon for target and
// profile, or nil.
func (r Request) check(id, target, profile string, now time.Time) error {
	refuse := func(cause error, remedy string) error {
		return fault.Operation{Op: "accept", Object: "run request"}.Failed(fault.Invalid, cause, remedy)
	}
	switch age := now.Sub(r.Created); {
	case r.Format != format:
		return refuse(fmt.Errorf("%w %d of version %.40q", errFormat, r.Format, r.Version), "use the version of the daemon")
	case r.ID != id:
		return refuse(errContent, "")
	case r.Target != target || r.Profile != profile:
		return refuse(errOther, "use the settings of the daemon, or set another service.state-dir for this connector")
	case age > maxAge || age < -maxAge:
		return refuse(errTooOld, "run the command again")
	}
	return nil
}

// dirPath returns the path of the directory of requests.
func dirPath(stateDir string) string { return filepath.Join(stateDir, dirName) }
