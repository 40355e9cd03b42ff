package request

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// Server receives the requests for a daemon.
type Server struct {
	Target, Profile string // what the daemon is configured for
	// CopyState writes a copy of the state file; nil: requests for a copy are refused.
	CopyState func(io.Writer) error
	Log       zerolog.Logger

	root   *os.Root
	marker *os.File

	mu      sync.Mutex
	ignored map[string]bool // names of files that are logged as ignored
}

// The time to wait for the lock of the marker, which commands lock for a moment, and the time
// between two attempts.
const (
	markerWait  = 2 * time.Second
	markerRetry = 20 * time.Millisecond
)

// Listen makes this process accept requests. It creates the state directory if it does not exist.
func Listen(stateDir string) (*Server, error) {
	path := dirPath(stateDir)
	failed := func(err error) error {
		return fault.Operation{Op: "accept run requests in", Object: path}.Failed(fault.Invalid, err,
			"remove "+path+", which the daemon creates again; until then, stop the daemon before adconnector sync")
	}
	if err := makeDir(stateDir, path); err != nil {
		return nil, failed(err)
	}
	root, err := openDir(path)
	if err != nil {
		return nil, failed(err)
	}
	marker, err := lockMarker(root)
	if err != nil {
		_ = root.Close() // err is more relevant
		return nil, failed(err)
	}
	s := &Server{Log: zerolog.Nop(), root: root, marker: marker, ignored: map[string]bool{}}
	s.endInterrupted()
	return s, nil
}

// makeDir creates the directory of requests, or makes an existing one private: a volume can be set
// to give its files to a group at each start.
func makeDir(stateDir, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := state.MakeDir(path); err != nil {
			return err
		}
	}
	// Others may be able to replace the directory by a link until its mode is changed: the mode is that
	// of what was opened.
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return &fs.PathError{Op: "open", Path: path, Err: errNotDirectory}
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	parent, err := os.Stat(stateDir)
	switch {
	case err != nil:
		return err
	case os.Geteuid() == 0 && ownerOf(info) != 0 && ownerOf(info) != ownerOf(parent): // for root, the change below always succeeds
		return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w: user %d", errForeignOwner, ownerOf(info))}
	case info.Mode().Perm() == 0o700:
		return nil
	}
	return dir.Chmod(0o700)
}

// openMarker opens the marker, or creates it.
func openMarker(root *os.Root) (*os.File, error) {
	const flags = os.O_RDWR | syscall.O_NOFOLLOW | syscall.O_NONBLOCK // as in openPrivate
	file, err := root.OpenFile(markerName, flags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	file, err = root.OpenFile(markerName, flags|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := adopt(root, file); err != nil {
		_ = file.Close() // err is more relevant
		return nil, err
	}
	return file, nil
}

// lockMarker locks the marker. If it is locked, another daemon uses the state directory.
func lockMarker(root *os.Root) (*os.File, error) {
	file, err := openMarker(root)
	if err != nil {
		return nil, err
	}
	if err = checkOwner(root, file); err == nil { // before the change, which a planted link must not get
		err = file.Chmod(0o600) // see makeDir
	}
	for deadline := time.Now().Add(markerWait); err == nil; time.Sleep(markerRetry) {
		if err = lock(file); err == nil {
			return file, nil
		}
		if time.Now().Before(deadline) {
			err = nil
		}
	}
	_ = file.Close() // err is more relevant
	return nil, err
}

// Close ends the acceptance of requests. Commands with requests notice it.
func (s *Server) Close() {
	_ = s.marker.Close()
	_ = s.root.Close()
}

// endInterrupted ends the requests whose run an earlier daemon has not finished.
func (s *Server) endInterrupted() {
	for _, name := range s.names() {
		if id, is := strings.CutSuffix(name, suffixRunning); is {
			_ = s.root.Rename(name, id+suffixDone) // without a response
		}
	}
}

// Watch sends a value whenever a request for a run waits, until ctx ends or stop is called. It
// executes requests for a copy itself, also during a run.
func (s *Server) Watch(ctx context.Context) (waiting <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	found, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(pollInterval)
		defer ticker.Stop()
		var receiver chan<- struct{} // nil: no request waits
		for {
			select {
			case <-ctx.Done():
				return
			case receiver <- struct{}{}:
				receiver = nil // the receiver executes all
				continue
			case <-ticker.C:
			}
			if receiver = nil; s.sweep(time.Now()) {
				s.copyRequested()
				if first, _ := s.oldest(false); first.ID != "" {
					receiver = found
				}
			}
		}
	}()
	return found, func() {
		cancel()
		<-ended
	}
}

// copyRequested executes the requests for a copy.
func (s *Server) copyRequested() {
	for {
		job, ok := s.next(true)
		if !ok {
			return
		}
		response := Response{}
		if err := s.writeCopy(job.ID); err != nil {
			response = refusal(err)
		}
		job.Respond(response)
	}
}

// writeCopy copies the state file for a request.
func (s *Server) writeCopy(id string) (err error) {
	if s.CopyState == nil {
		return fault.Operation{Op: "copy", Object: "state file"}.Failed(fault.Invalid, errFormat, "")
	}
	defer func() {
		if err != nil {
			_ = s.root.RemoveAll(id + suffixCopy)
		}
	}()
	dir, err := makePrivateDir(s.root, id+suffixCopy)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	file, err := dir.OpenFile(state.CopyName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(adopt(dir, file), s.CopyState(file), file.Close())
}

// names returns the names of the files of requests.
func (s *Server) names() []string {
	dir, err := s.root.Open(".")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxFiles) // what cannot be read is read later
	return slices.DeleteFunc(names, func(name string) bool {
		id, suffix, _ := strings.Cut(name, ".")
		return !idPattern.MatchString(id) || !slices.Contains(suffixes, "."+suffix)
	})
}

// sweep removes the files of commands that have ended, and reports whether a request waits.
func (s *Server) sweep(now time.Time) (waiting bool) {
	names := s.names()
	alive := map[string]bool{}
	for _, name := range names {
		id, suffix, _ := strings.Cut(name, ".")
		if slices.Contains(lockedSuffixes, "."+suffix) && s.isLocked(name) {
			alive[id] = true
			waiting = waiting || "."+suffix == suffixRequest
		}
	}
	for _, name := range names {
		id, _, _ := strings.Cut(name, ".")
		if alive[id] {
			continue
		}
		if info, err := s.root.Lstat(name); err == nil && now.Sub(info.ModTime()).Abs() > minOrphanAge {
			_ = s.root.RemoveAll(name) // or the next time
		}
	}
	return waiting
}

// isLocked reports whether a command has locked a file. It logs a file that was not written by one.
func (s *Server) isLocked(name string) bool {
	file, err := openPrivate(s.root, name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && s.isNewIgnored(name) {
			s.Log.Warn().EmbedObject(fault.Fields(err)).Str("remedy", "find out who created the file and remove it").Msg(MsgIgnored)
		}
		return false
	}
	defer file.Close()
	return isLocked(file)
}

// isNewIgnored reports whether the name of an ignored file is to be logged.
func (s *Server) isNewIgnored(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ignored[name] || len(s.ignored) >= maxFiles {
		return false
	}
	s.ignored[name] = true
	return true
}

// Job is a request that the daemon has taken.
type Job struct {
	Request
	server *Server
}

// Next takes the oldest request for a run. ok is false if none waits. It responds to requests that it
// refuses.
func (s *Server) Next() (job *Job, ok bool) { return s.next(false) }

// next takes the oldest request for a run or for a copy.
func (s *Server) next(copies bool) (job *Job, ok bool) {
	for {
		next, err := s.oldest(copies)
		if next.ID == "" {
			return nil, false
		}
		if s.root.Rename(next.ID+suffixRequest, next.ID+suffixRunning) != nil { // withdrawn
			return nil, false // so that a file that cannot be renamed does not end in a loop
		}
		job = &Job{next, s}
		log := s.Log.With().Str("request", next.ID).Logger()
		if err == nil {
			log.Info().Msg(receivedMessage(copies))
			return job, true
		}
		log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgRefused)
		job.Respond(refusal(err))
	}
}

func receivedMessage(copies bool) string {
	if copies {
		return MsgCopyReceived
	}
	return MsgReceived
}

// oldest returns the oldest request for a run or a copy of a command that is alive, and why it
// cannot be executed. The ID is empty if there is none. A request with an invalid content counts as
// one for a run.
func (s *Server) oldest(copies bool) (first Request, refused error) {
	type candidate struct {
		Request
		err error
	}
	var all []candidate
	for _, name := range s.names() {
		id, is := strings.CutSuffix(name, suffixRequest)
		if !is || !s.isLocked(name) {
			continue
		}
		var r Request
		err := readFile(s.root, name, maxRequestSize, &r)
		if r.Copy != copies {
			continue
		}
		if err != nil {
			err = fault.Operation{Op: "read", Object: "run request"}.Failed(fault.Invalid, err, "use the version of the daemon")
		} else {
			err = r.check(id, s.Target, s.Profile, time.Now())
		}
		r.ID = id
		all = append(all, candidate{r, err})
	}
	if len(all) == 0 {
		return Request{}, nil
	}
	oldest := slices.MinFunc(all, func(a, b candidate) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return oldest.Request, oldest.err
}

// Show passes the progress of the run to the command.
func (j *Job) Show(p Progress) {
	_ = replaceFile(j.server.root, j.ID, suffixProgress, p) // the run does not depend on it
}

// Respond passes the outcome to the command.
func (j *Job) Respond(r Response) {
	root := j.server.root
	err := replaceFile(root, j.ID, suffixResponse, r)
	err = errors.Join(err, root.Rename(j.ID+suffixRunning, j.ID+suffixDone))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the command has ended and removed its files
		j.server.Log.Warn().Str("request", j.ID).EmbedObject(fault.Fields(err)).Msg(MsgOutcomeNotWritten)
	}
}
