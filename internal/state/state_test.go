package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/test/faulttest"
)

// Domain controller and start time of all runs.
var (
	testView  = View{InvocationID: ad.InvocationID{7}, Scope: "a scope"}
	testStart = time.Unix(1_000_000, 0).UTC()
)

var (
	// unsynced is for tests that do not need syncs to the disk.
	unsynced = Options{NoSync: true}
	// tryOnce does not wait for locks.
	tryOnce = Options{NoSync: true, LockWait: time.Nanosecond}
)

// openStore opens the state file in dir, without syncs. It is closed when the test ends.
func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s := result(unsynced.Open(dir))(t)
	t.Cleanup(func() { s.Close() })
	return s
}

func guidOf(n int) (guid ad.GUID) {
	binary.BigEndian.PutUint32(guid[12:], uint32(n))
	return guid
}

// objects returns the objects from up to, but excluding, to. mark is part of their fingerprints.
func objects(from, to int, mark byte) []identity.Object {
	all := make([]identity.Object, 0, to-from)
	for n := from; n < to; n++ {
		o := identity.Object{GUID: guidOf(n), Kind: 1, SID: ad.SID{1, 1, 0, 0, 0, 0, 0, 5, byte(n), byte(n >> 8), 0, 0}, Name: fmt.Sprint("user", n)}
		o.Fingerprint[0], o.Fingerprint[15] = mark, byte(n)
		all = append(all, o)
	}
	return all
}

// send records one batch as acknowledged, in a run of its own.
func send(s *Store, batch []identity.Object) error {
	j, err := s.OpenJournal(testView, testStart)
	if err != nil {
		return err
	}
	if err := j.MarkInFlight([]Batch{{0, batch}}); err != nil {
		return err
	}
	return j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: batch}})
}

// must fails the test if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// result returns the value of a call and fails the test if the call returned an error.
func result[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return value
	}
}

// rejectionsOf returns all rejections.
func rejectionsOf(t testing.TB, s *Store) []Rejection {
	t.Helper()
	list, total, err := s.Rejections(-1)
	if must(t, err); total != len(list) {
		t.Errorf("total %d of %d rejections", total, len(list))
	}
	return list
}

// expect checks the stored state of an object.
func expect(t testing.TB, s *Store, o identity.Object) {
	t.Helper()
	got, found, err := s.Lookup(o.GUID, nil)
	if want := (IndexRecord{Fingerprint: o.Fingerprint, RecheckAt: RoundRecheck(o.RecheckAt)}); err != nil || !found || got != want {
		t.Fatalf("%s: record %+v, found %v, error %v; want %+v", o.Name, got, found, err, want)
	}
}

// expectUnknownValue checks that the index contains the object without an acknowledged value.
func expectUnknownValue(t testing.TB, s *Store, o identity.Object) {
	t.Helper()
	o.Fingerprint = identity.Fingerprint{}
	expect(t, s, o)
}

// expectAbsent checks that the index does not contain the object.
func expectAbsent(t testing.TB, s *Store, o identity.Object) {
	t.Helper()
	if got, found, err := s.Lookup(o.GUID, nil); err != nil || found || got != (IndexRecord{}) {
		t.Fatalf("%s: record %+v, found %v, error %v", o.Name, got, found, err)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "state") // does not exist
	s := openStore(t, dir)
	all := objects(0, 2000, 7)
	if err := send(s, all); err != nil {
		t.Fatal(err)
	}
	connector := Connector{State: "SCHEDULED", RunID: "r", At: time.Unix(1, 0).UTC(), NextRun: time.Unix(2, 0).UTC(), Error: "cause"}
	if err := s.SetConnector(connector); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	for _, o := range all {
		expect(t, s, o)
	}
	expectAbsent(t, s, objects(2000, 2001, 7)[0])
	if got, err := s.Connector(); err != nil || got != connector {
		t.Errorf("connector %+v, error %v", got, err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestNewFile(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	if got, err := s.Connector(); err != nil || got != (Connector{}) {
		t.Errorf("connector %+v, error %v", got, err)
	}
	if runs, err := s.Runs(); err != nil || len(runs) != 0 {
		t.Errorf("runs %v, error %v", runs, err)
	}
	never, err := s.NeverAcknowledged()
	size, err2 := s.IndexSize()
	if err := errors.Join(err, err2); err != nil || !never || size != 0 {
		t.Errorf("never acknowledged %v, size %d, error %v", never, size, err)
	}
	if target, err := s.Target(); err != nil || target != "" {
		t.Errorf("target %q, error %v", target, err)
	}
	if controller, err := s.Controller(ad.InvocationID{1}); err != nil || controller != (Controller{}) {
		t.Errorf("controller %+v, error %v", controller, err)
	}
	if sync, err := s.LastFullSync(); err != nil || sync != (FullSync{}) {
		t.Errorf("full sync %+v, error %v", sync, err)
	}
}

func TestRunsKeepsLast200(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	for n := range maxRuns + 50 {
		if n == 100 {
			s.Close()
			s = openStore(t, dir)
		}
		must(t, s.RecordRun(Run{ID: fmt.Sprint(n), Users: n, DurationMS: 1000}, Connector{State: "SCHEDULED", RunID: fmt.Sprint(n)}))
	}
	runs, err := s.Runs()
	if err != nil || len(runs) != maxRuns {
		t.Fatalf("%d runs, error %v", len(runs), err)
	}
	for i, run := range runs {
		if want := maxRuns + 49 - i; run.Users != want || run.ID != fmt.Sprint(want) || run.Duration() != time.Second {
			t.Fatalf("run %d is %+v, want %d", i, run, want)
		}
	}
}

// TestRecordRun checks that a run and the state after it are recorded in one transaction: if
// one of them cannot be encoded, neither is written.
func TestRecordRun(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	start := time.Unix(1, 0).UTC()
	run := Run{ID: "first", Start: start, Result: "failed", Error: "bind dc1: wrong password", Remedy: "correct ldap.password", Class: string(fault.Refused)}
	connector := Connector{State: "SCHEDULED", RunID: "first", At: start, Error: run.Error, Remedy: run.Remedy}
	must(t, s.RecordRun(run, connector))
	expect := func(step string) {
		t.Helper()
		if runs := result(s.Runs())(t); !reflect.DeepEqual(runs, []Run{run}) {
			t.Errorf("%s: runs %+v, want %+v", step, runs, run)
		}
		if state := result(s.Connector())(t); state != connector {
			t.Errorf("%s: state %+v, want %+v", step, state, connector)
		}
		if at := result(s.LastSuccess())(t); !at.IsZero() {
			t.Errorf("%s: last success %s", step, at)
		}
	}
	expect("recorded")
	invalid := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) // cannot be encoded as JSON
	next := Connector{State: "SCHEDULED", RunID: "second", At: start}
	for step, err := range map[string]error{
		"run":   s.RecordRun(Run{ID: "second", Start: invalid}, next),
		"state": s.RecordRun(Run{ID: "second", Start: start}, Connector{State: "SCHEDULED", At: invalid}),
	} {
		faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "record run", Object: "state file " + s.Path()}, nil, remedyDisk)
		expect(step + " not written")
	}
	run, connector = Run{ID: "second", Result: "processed", Start: start}, next
	must(t, s.RecordRun(run, connector))
	if runs := result(s.Runs())(t); len(runs) != 2 || !reflect.DeepEqual(runs[0], run) {
		t.Errorf("runs %+v", runs)
	}
	if at := result(s.LastSuccess())(t); !at.Equal(start) {
		t.Errorf("last success %s", at)
	}
}

// file returns a directory with a state file of this content.
func file(t *testing.T, content []byte) string {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, fileName), content, 0o600))
	return dir
}

// database returns the content of a state file with 1,000 objects, after apply has changed it.
func database(t *testing.T, apply func(change) error) []byte {
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, send(s, objects(0, 1000, 1)))
	if apply != nil {
		must(t, s.update("damage", apply))
	}
	must(t, s.Close())
	return result(os.ReadFile(filepath.Join(dir, fileName)))(t)
}

func TestUnusable(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		dir    func(t *testing.T) string
		remedy string
	}{
		"newer format": {func(t *testing.T) string {
			return file(t, database(t, func(c change) error {
				return c.put(bucketMeta, keyVersion, []byte{0, 0, 0, journalVersion + 1})
			}))
		}, "use the version that wrote it, or move the file away"},
		"format of one byte": {func(t *testing.T) string {
			return file(t, database(t, func(c change) error { return c.put(bucketMeta, keyVersion, []byte{1}) }))
		}, "use the version that wrote it, or move the file away"},
		"file instead of a directory": {func(t *testing.T) string { return filepath.Join(file(t, nil), fileName) }, "service.state-dir"},
		"directory below a file":      {func(t *testing.T) string { return filepath.Join(file(t, nil), fileName, "state") }, "service.state-dir"},
		"directory instead of a file": {func(t *testing.T) string {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, fileName), 0o700))
			return dir
		}, "service.state-dir"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := c.dir(t)
			before, _ := os.ReadFile(filepath.Join(dir, fileName))
			s, err := unsynced.Open(dir)
			if err == nil {
				s.Close()
			}
			faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + filepath.Join(dir, fileName)}, ErrUnusable, c.remedy)
			if after, _ := os.ReadFile(filepath.Join(dir, fileName)); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}

// TestDamagedFile checks that Open sets a damaged file aside and creates a new one.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T) []byte{
		"text":                              func(*testing.T) []byte { return []byte("not a database") },
		"long text":                         func(*testing.T) []byte { return bytes.Repeat([]byte("not a database\n"), 5000) },
		"truncated":                         func(t *testing.T) []byte { return database(t, nil)[:8192] },
		"truncated in the second meta page": func(t *testing.T) []byte { return database(t, nil)[:4143] },
		"truncated to one half": func(t *testing.T) []byte {
			content := database(t, nil)
			return content[:len(content)/2]
		},
		"empty bucket missing": func(t *testing.T) []byte {
			return database(t, func(c change) error { return c.DeleteBucket(bucketHeld) })
		},
		"checksums missing": func(t *testing.T) []byte {
			return database(t, func(c change) error { return c.DeleteBucket(bucketChecksums) })
		},
		"overwritten after the meta pages": func(t *testing.T) []byte {
			content := database(t, nil)
			for i := 8192; i < len(content); i++ {
				content[i] = byte(i * 7)
			}
			return content
		},
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			damaged := content(t)
			dir := file(t, damaged)
			s := openStore(t, dir)
			path := s.DamagedFile.Path
			if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, damaged) || !strings.HasPrefix(path, filepath.Join(dir, fileName)+".damaged-") {
				t.Errorf("damaged file %v, error %v", s.DamagedFile, err)
			}
			if size, err := s.IndexSize(); err != nil || size != 0 {
				t.Errorf("size %d, error %v", size, err)
			}
			must(t, send(s, objects(0, 3, 1)))
			must(t, s.Close())
			if s = openStore(t, dir); s.DamagedFile != nil {
				t.Errorf("new file set aside: %v", s.DamagedFile)
			}
			expect(t, s, objects(0, 3, 1)[2])
		})
	}
}

// TestReadersDoNotBlockWriter checks that no read transaction is open during a write. It would
// prevent bbolt from remapping a growing file, and block the writer forever.
func TestReadersDoNotBlockWriter(t *testing.T) {
	t.Parallel()
	const count, each = 12_000, 1000
	s := openStore(t, t.TempDir())
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if _, _, err := s.Lookup(guidOf(n%count), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer readers.Wait()
	defer stop.Store(true)
	for from := 0; from < count; from += each {
		batch := objects(from, from+each, 1)
		must(t, send(s, batch))
		// Read between two writes, as a sync does while it uploads.
		expect(t, s, batch[0])
	}
	stop.Store(true)
	readers.Wait()
	expect(t, s, objects(0, 1, 1)[0]) // opens one
	must(t, s.update("write", func(change) error {
		if open := s.db.Stats().OpenTxN; open != 0 {
			t.Errorf("%d open read transactions", open)
		}
		return nil
	}))
}

func BenchmarkLookup(b *testing.B) {
	const count = 100_000
	s := openStore(b, b.TempDir())
	for from := 0; from < count; from += 10_000 {
		if err := send(s, objects(from, from+10_000, 1)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, found, err := s.Lookup(guidOf(n%count), nil); !found || err != nil {
			b.Fatal(found, err)
		}
	}
}
