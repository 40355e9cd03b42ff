package request

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// listen returns a server for a state directory, as a daemon has it.
func listen(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Target, s.Profile = "target", "profile"
	return s
}

// submit submits a request, as a command does.
func submit(t *testing.T, dir string, o Options) *Pending {
	t.Helper()
	p, err := Submit(dir, Request{Target: "target", Profile: "profile", Options: o})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// kill releases what the end of a process releases.
func (p *Pending) kill() { p.file.Close() }

func ignoreProgress(*Progress) {}

// outcome is the result of Await.
type outcome struct {
	response Response
	err      error
}

// await waits for the response in another goroutine.
func (p *Pending) await(ctx context.Context, observe func(*Progress)) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		response, err := p.Await(ctx, observe)
		done <- outcome{response, err}
	}()
	return done
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dirPath(dir))
	if err != nil || len(entries) != 1 || entries[0].Name() != markerName {
		t.Errorf("files %v, error %v", entries, err)
	}
}

// TestRequestGetsResponse tests that the daemon gets the options, and the command the progress and
// the record of the run. Nothing is left.
func TestRequestGetsResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := listen(t, dir)
		defer s.Close()
		waiting, stop := s.Watch(t.Context())
		defer stop()
		want := Options{Full: true, AllowDeletes: true, Resend: true}
		p := submit(t, dir, want)
		var seen []Progress
		done := p.await(t.Context(), func(now *Progress) {
			if now != nil {
				seen = append(seen, *now)
			}
		})
		<-waiting
		job, ok := s.Next()
		if !ok || job.Options != want || job.ID != p.ID {
			t.Fatalf("job %+v", job)
		}
		if again, ok := s.Next(); ok {
			t.Errorf("taken twice: %+v", again)
		}
		progress := Progress{Expected: 4, Read: 3, Changed: 2, Acknowledged: 1}
		job.Show(progress)
		time.Sleep(2 * awaitInterval)
		run := state.Run{ID: "run", Result: "failed", Error: "cause", Remedy: "remedy", Class: string(fault.Refused)}
		job.Respond(Response{Run: &run})
		got := <-done
		if got.err != nil || got.response.Run == nil || !reflect.DeepEqual(*got.response.Run, run) || fault.ClassOf(got.response.Err()) != fault.Refused ||
			fault.Remedy(got.response.Err()) != "remedy" || got.response.Err().Error() != "cause" {
			t.Errorf("outcome %+v", got)
		}
		if len(seen) == 0 || seen[len(seen)-1] != progress {
			t.Errorf("progress %+v", seen)
		}
		p.Close()
		requireEmpty(t, dir)
	})
}

// TestOldestFirst tests that requests are taken in the order of their times.
func TestOldestFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := listen(t, dir)
		defer s.Close()
		var want, got []string
		for range 5 {
			p := submit(t, dir, Options{})
			defer p.Close()
			want = append(want, p.ID)
			time.Sleep(time.Millisecond)
		}
		for job, ok := s.Next(); ok; job, ok = s.Next() {
			got = append(got, job.ID)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("order %v, want %v", got, want)
		}
	})
}

// TestInterrupt tests that an interrupt withdraws a request, but not a run that was started.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		started bool
		want    error
	}{"waiting": {false, ErrWithdrawn}, "started": {true, ErrContinues}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := listen(t, dir)
			defer s.Close()
			p := submit(t, dir, Options{})
			job, ok := (*Job)(nil), false
			if c.started {
				if job, ok = s.Next(); !ok {
					t.Fatal("no request")
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := p.Await(ctx, ignoreProgress)
			if !errors.Is(err, c.want) || fault.ClassOf(err) != fault.Canceled {
				t.Errorf("error %v, want %v", err, c.want)
			}
			p.Close()
			if _, ok := s.Next(); ok {
				t.Error("request not withdrawn")
			}
			if c.started { // the daemon responds to a command that has ended
				job.Respond(Response{})
				s.sweep(time.Now().Add(2 * minOrphanAge))
			}
			requireEmpty(t, dir)
		})
	}
}

// TestDaemonEnds tests what a command returns if the daemon ends, and that the next daemon takes
// only requests that the previous one has not taken.
func TestDaemonEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		started, restarted bool
		want               error // nil: the request waits
	}{
		"waiting":            {false, false, ErrNotServed},
		"waiting, restarted": {false, true, nil},
		"started":            {true, false, errLost},
		"started, restarted": {true, true, errLost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				s := listen(t, dir)
				p := submit(t, dir, Options{})
				if c.started {
					if _, ok := s.Next(); !ok {
						t.Fatal("no request")
					}
				}
				s.Close()
				if c.restarted {
					s = listen(t, dir)
					defer s.Close()
				}
				done := p.await(t.Context(), ignoreProgress)
				if c.want == nil {
					job, ok := s.Next()
					if !ok {
						t.Fatal("request not taken by the next daemon")
					}
					job.Respond(Response{Run: &state.Run{ID: "run"}})
				}
				if got := <-done; !errors.Is(got.err, c.want) || c.want == nil && got.response.Run == nil {
					t.Errorf("outcome %+v, want %v", got, c.want)
				}
				p.Close()
				requireEmpty(t, dir)
			})
		})
	}
}

// TestCommandEnds tests that the request of a command that has ended is not executed, and that its
// files are removed after a minute.
func TestCommandEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := listen(t, dir)
	defer s.Close()
	taken := submit(t, dir, Options{})
	job, ok := s.Next()
	if !ok {
		t.Fatal("no request")
	}
	job.Show(Progress{Read: 1})
	taken.kill()
	submit(t, dir, Options{AllowDeletes: true}).kill()
	alive := submit(t, dir, Options{})
	if next, ok := s.Next(); !ok || next.ID != alive.ID {
		t.Errorf("took %+v, want %s", next, alive.ID)
	}
	if s.sweep(time.Now()); len(s.names()) != 4 {
		t.Errorf("files %v", s.names())
	}
	s.sweep(time.Now().Add(2 * minOrphanAge))
	if names := s.names(); len(names) != 1 || names[0] != alive.ID+suffixRunning {
		t.Errorf("files %v", names)
	}
	alive.Close()
}

// TestRefused tests that the daemon responds to requests that it does not execute.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Request)
		want   error
	}{
		"another target":  {func(r *Request) { r.Target = "other" }, errOther},
		"another profile": {func(r *Request) { r.Profile = "other" }, errOther},
		"another format":  {func(r *Request) { r.Format = 2 }, errFormat},
		"another ID":      {func(r *Request) { r.ID = "01234567-0123-0123-0123-0123456789ab" }, errContent},
		"too old":         {func(r *Request) { r.Created = r.Created.Add(-maxAge - time.Hour) }, errTooOld},
		"in the future":   {func(r *Request) { r.Created = r.Created.Add(maxAge + time.Hour) }, errTooOld},
		"too large":       {func(r *Request) { r.Version = strings.Repeat("v", maxRequestSize) }, errTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := listen(t, dir)
			defer s.Close()
			p := submit(t, dir, Options{})
			defer p.Close()
			r := p.Request
			c.change(&r)
			content, err := json.Marshal(r)
			if err == nil {
				_, err = p.file.WriteAt(content, 0)
			}
			if err == nil {
				err = p.file.Truncate(int64(len(content)))
			}
			if err != nil {
				t.Fatal(err)
			}
			if job, ok := s.Next(); ok {
				t.Errorf("taken: %+v", job)
			}
			response, err := p.Await(t.Context(), ignoreProgress)
			if err != nil || response.Run != nil || response.Class != fault.Invalid || !strings.Contains(response.Error, c.want.Error()) || fault.ClassOf(response.Err()) != fault.Invalid {
				t.Errorf("response %+v, error %v", response, err)
			}
		})
	}
}

// TestForeignFiles tests that files that no command has written are neither executed nor followed,
// and are logged once.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := listen(t, dir)
	defer s.Close()
	other := submit(t, dir, Options{})
	if _, ok := s.Next(); !ok {
		t.Fatal("no request")
	}
	defer other.Close()
	var log bytes.Buffer
	s.Log = zerolog.New(&log)
	path := func(n string) string {
		return filepath.Join(dirPath(dir), strings.ReplaceAll("nnnnnnnn-nnnn-nnnn-nnnn-nnnnnnnnnnnn", "n", n)+suffixRequest)
	}
	for _, err := range []error{
		os.Symlink(filepath.Join(dirPath(dir), other.ID+suffixRunning), path("1")),
		os.Link(filepath.Join(dirPath(dir), markerName), path("2")),
		syscall.Mkfifo(path("3"), 0o600),
		os.WriteFile(path("4"), []byte("{}"), 0o600),
		os.Chmod(path("4"), 0o644),
		os.Mkdir(path("5"), 0o700),
		os.WriteFile(filepath.Join(dirPath(dir), "note.request"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if s.sweep(time.Now()) {
			t.Error("a request waits")
		}
		if job, ok := s.Next(); ok {
			t.Errorf("taken: %+v", job)
		}
	}
	if lines := strings.Count(log.String(), MsgIgnored); lines != 5 || lines != strings.Count(log.String(), "\n") {
		t.Errorf("log %s", log.String())
	}
}

// TestListenKeepsModes tests that a planted link gives no other file the mode of the marker.
func TestListenKeepsModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Chmod(victim, 0o644), os.Mkdir(dirPath(dir), 0o700), os.Link(victim, filepath.Join(dirPath(dir), markerName))); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir); !errors.Is(err, errNotRegular) {
		t.Errorf("error %v", err)
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestListen tests that the directory is private, and that a foreign one is refused.
func TestListen(t *testing.T) {
	t.Parallel()
	elsewhere := t.TempDir()
	for name, c := range map[string]struct {
		prepare func(path string) error
		want    error
	}{
		"new":            {func(string) error { return nil }, nil},
		"group-writable": {func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o2770)) }, nil},
		"symbolic link":  {func(path string) error { return os.Symlink(elsewhere, path) }, errNotDirectory},
		"file":           {func(path string) error { return os.WriteFile(path, nil, 0o600) }, errNotDirectory},
		"foreign marker": {func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Symlink(filepath.Join(elsewhere, "x"), filepath.Join(path, markerName)))
		}, errors.New("path escapes")},
		"marker is a named pipe": {func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), syscall.Mkfifo(filepath.Join(path, markerName), 0o600))
		}, errNotRegular},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			if err := errors.Join(os.Mkdir(dir, 0o700), c.prepare(dirPath(dir))); err != nil {
				t.Fatal(err)
			}
			s, err := Listen(dir)
			if c.want != nil {
				if fault.Remedy(err) == "" || !strings.Contains(err.Error(), c.want.Error()) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if info, err := os.Lstat(dirPath(dir)); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, error %v", info.Mode(), err)
			}
			submit(t, dir, Options{}).Close()
		})
	}
}

// TestNotServed tests that no request is written without a daemon, with one that has ended, or in
// a directory that others can use.
func TestNotServed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check := func(name string, served bool) {
		t.Helper()
		p, err := Submit(dir, Request{})
		if errors.Is(err, ErrNotServed) == served || IsServed(dir) != served {
			t.Errorf("%s: error %v", name, err)
		}
		if err == nil {
			p.Close()
		}
	}
	check("no directory", false)
	s := listen(t, dir)
	check("daemon", true)
	if err := os.Chmod(dirPath(dir), 0o770); err != nil {
		t.Fatal(err)
	}
	check("shared directory", false)
	if err := os.Chmod(dirPath(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Close()
	check("daemon ended", false)
}

// TestCopy tests that a request for a copy of the state file is executed also during a run, that an
// error gets a response, and that the copy is removed with the request or after its command has ended.
func TestCopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := listen(t, dir)
		defer s.Close()
		content, writeErr := "content", error(nil)
		s.CopyState = func(to io.Writer) error {
			_, err := io.WriteString(to, content)
			return errors.Join(err, writeErr)
		}
		_, stop := s.Watch(t.Context()) // nothing receives: a run is active
		defer stop()
		run := submit(t, dir, Options{})
		defer run.Close()
		request := func() (*Pending, Response) {
			t.Helper()
			p, err := Submit(dir, Request{Target: "target", Profile: "profile", Copy: true})
			if err != nil {
				t.Fatal(err)
			}
			response, err := p.Await(t.Context(), ignoreProgress)
			if err != nil {
				t.Fatal(err)
			}
			return p, response
		}
		p, response := request()
		got, err := os.ReadFile(filepath.Join(p.CopyDir(), state.CopyName))
		if err != nil || string(got) != content || response.Err() != nil {
			t.Errorf("copy %q, response %+v, error %v", got, response, err)
		}
		p.Close()
		killed, _ := request()
		killed.kill()
		time.Sleep(2*minOrphanAge + pollInterval)
		for _, p := range []*Pending{p, killed} {
			if _, err := os.Stat(p.CopyDir()); err == nil {
				t.Error("copy not removed")
			}
		}
		writeErr = fault.Operation{Op: "copy"}.Failed(fault.Transient, syscall.ENOSPC, "free space")
		failed, response := request()
		defer failed.Close()
		if fault.ClassOf(response.Err()) != fault.Transient || fault.Remedy(response.Err()) != "free space" {
			t.Errorf("response %+v", response)
		}
		if _, err := os.Stat(failed.CopyDir()); err == nil {
			t.Error("incomplete copy not removed")
		}
		if job, ok := s.Next(); !ok || job.ID != run.ID {
			t.Errorf("job %+v, want that of %s", job, run.ID)
		}
	})
}

// TestOneDaemon tests that a second daemon does not accept requests.
func TestOneDaemon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := listen(t, dir)
		defer s.Close()
		if _, err := Listen(dir); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Errorf("error %v", err)
		}
	})
}

// TestCommandOfRoot tests that the user of the daemon owns the request of a command that root runs, and
// that a request of a third user is ignored.
func TestCommandOfRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run commands for another user")
	}
	dir := t.TempDir()
	s := listen(t, dir)
	defer s.Close()
	const user = 12345
	for _, path := range []string{dirPath(dir), filepath.Join(dirPath(dir), markerName)} {
		if err := os.Chown(path, user, -1); err != nil {
			t.Fatal(err)
		}
	}
	p := submit(t, dir, Options{})
	defer p.Close()
	info, err := os.Lstat(filepath.Join(dirPath(dir), p.ID+suffixRequest))
	if err != nil || ownerOf(info) != user {
		t.Errorf("owner of %v, error %v", info, err)
	}
	foreign := submit(t, dir, Options{})
	defer foreign.Close()
	if err := foreign.file.Chown(user+1, -1); err != nil {
		t.Fatal(err)
	}
	if job, ok := s.Next(); !ok || job.ID != p.ID {
		t.Errorf("job %+v", job)
	}
	if job, ok := s.Next(); ok {
		t.Errorf("job of a third user: %+v", job)
	}
}

// TestDaemonOfRoot tests that the owner of the state directory can use everything that a daemon of
// root creates there, and that root accepts a directory of requests of this owner only.
func TestDaemonOfRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can create files for another user")
	}
	const user = 12345
	dir := t.TempDir()
	chown := func(path string, uid int) {
		t.Helper()
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	chown(dir, user)
	synctest.Test(t, func(t *testing.T) {
		s := listen(t, dir)
		s.CopyState = func(to io.Writer) error { _, err := io.WriteString(to, "content"); return err }
		_, stop := s.Watch(t.Context())
		defer s.Close()
		defer stop()
		p, err := Submit(dir, Request{Target: "target", Profile: "profile", Copy: true})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if response, err := p.Await(t.Context(), ignoreProgress); err != nil || response.Err() != nil {
			t.Fatalf("response %+v, error %v", response, err)
		}
		files := 0
		err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
			info, err := os.Lstat(path)
			if err != nil {
				return err
			}
			files++
			if ownerOf(info) != user {
				t.Errorf("%s has owner %d", path, ownerOf(info))
			}
			return nil
		})
		if err != nil || files != 7 { // two directories and that of the copy, the marker, the request, the response, the copy
			t.Errorf("%d files, error %v", files, err)
		}
	})
	chown(dirPath(dir), user+1)
	if _, err := Listen(dir); !errors.Is(err, errForeignOwner) {
		t.Errorf("directory of a third user: error %v", err)
	}
}
