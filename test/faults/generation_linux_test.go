package faults

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"

	"adconnector/internal/syncrun"
	"adconnector/test/program"
	"adconnector/test/testenv"
)

const generationFile = "adconnector.generation"

// onRenamed calls do each time a file is renamed to a name in dir. stop ends that.
func onRenamed(t *testing.T, dir, name string, do func()) (stop func()) {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	must(t, err)
	events := os.NewFile(uintptr(fd), "inotify")
	_, err = syscall.InotifyAddWatch(fd, dir, syscall.IN_MOVED_TO)
	must(t, err)
	var watching sync.WaitGroup
	watching.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, err := events.Read(buffer)
			if err != nil {
				return
			}
			for rest := buffer[:n]; len(rest) > 0; {
				event := (*syscall.InotifyEvent)(unsafe.Pointer(&rest[0]))
				end := syscall.SizeofInotifyEvent + int(event.Len)
				if string(bytes.TrimRight(rest[syscall.SizeofInotifyEvent:end], "\x00")) == name {
					do()
				}
				rest = rest[end:]
			}
		}
	})
	return func() {
		_ = events.Close()
		watching.Wait()
	}
}

// isBetweenWrites reports whether the generation file was written and the state file was not.
func isBetweenWrites(t *testing.T, dir string) bool {
	t.Helper()
	inFile, err := os.ReadFile(filepath.Join(dir, generationFile))
	must(t, err)
	db, err := bbolt.Open(filepath.Join(dir, stateFile), 0, &bbolt.Options{ReadOnly: true})
	must(t, err)
	defer db.Close()
	between := false
	must(t, db.View(func(tx *bbolt.Tx) error {
		between = !bytes.Equal(tx.Bucket([]byte("meta")).Get([]byte("generation")), inFile)
		return nil
	}))
	return between
}

// TestKillBetweenWrites kills the connector with SIGKILL right after it has written the
// generation file for the first or second time in a run, before it commits the state file. It
// passes if the next run exits with 0, sends only what has changed, and the gateway then
// matches the directory.
func TestKillBetweenWrites(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 100, groups: 10})
	dir := e.settings["service.state-dir"]
	objects := run(t, e.settings, "sync").Summary().Number("uploaded")
	kills, between := scaled(8, 100), 0
	// On a busy machine, most kills arrive after the second write.
	for n := 0; n < kills || between == 0 && n < 200; n++ {
		e.modify(3)
		started := make(chan *program.Process, 1)
		writes := 0
		stop := onRenamed(t, dir, generationFile, func() {
			if writes++; writes == 1+n%2 {
				p := <-started
				p.Kill()
			}
		})
		p := start(t, command{settings: e.settings, args: []string{"sync"}})
		started <- p
		if o := p.Wait(t); o.Code > 0 {
			t.Errorf("exit code %d:\n%s", o.Code, o.Stderr)
		}
		stop()
		if isBetweenWrites(t, dir) {
			between++
		}
		if n%3 == 0 && n+1 < kills {
			continue // kill the next run, too
		}
		o := run(t, e.settings, "sync")
		o.MustExit(t, 0)
		if uploaded := o.Summary().Number("uploaded"); uploaded > objects/2 || strings.Contains(o.Stderr, syncrun.ReasonRestored) {
			t.Errorf("kill %d: %v of %v objects sent again:\n%s", n+1, uploaded, objects, o.Stderr)
		}
		e.mustMatchDirectory(t, fmt.Sprintf("kill %d", n+1))
	}
	if between == 0 {
		t.Error("no kill between the two writes")
	}
	logResult(t, "%d between the two writes, of at least %d kills; nothing sent again", between, kills)
}

// TestKillThenRestoreCopy kills the connector with SIGKILL in its first delivery after a copy
// of the state file was made, and puts the copy back. It passes if the next run sends
// everything, so that a value that has changed and changed back is not missed.
func TestKillThenRestoreCopy(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 30, groups: 3})
	path := filepath.Join(e.settings["service.state-dir"], stateFile)
	objects := run(t, e.settings, "sync").Summary().Number("uploaded")
	copied, err := os.ReadFile(path)
	must(t, err)
	dn := e.people[0]
	title := e.Object(dn).Attributes["title"]
	must(t, e.Modify(dn, "title", "changed"))
	p := make(chan *program.Process, 1)
	e.onNthCall(1, (*testenv.Exchange).HasAssets, func(x *testenv.Exchange) { x.Answer(x.Deliver()); (<-p).Kill() })
	process := start(t, command{settings: e.settings, args: []string{"sync"}})
	p <- process
	if o := process.Wait(t); o.Code != -1 {
		t.Fatalf("exit code %d:\n%s", o.Code, o.Stderr)
	}
	e.Gateway.SetFront(nil)
	must(t, e.Modify(dn, "title", title...))
	must(t, os.WriteFile(path, copied, 0o600))
	o := run(t, e.settings, "sync")
	o.MustExit(t, 0)
	if s := o.Summary(); s.Text("mode") != "full" || s.Number("uploaded") != objects {
		t.Errorf("%v, want %v objects", s, objects)
	}
	e.mustMatchDirectory(t, "the run with the copy")
}
