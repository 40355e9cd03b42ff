package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// reader is the domain controller that runs read from, and began when they do.
var (
	reader = ad.InvocationID{7}
	began  = time.Unix(1_000_000, 0).UTC()
)

var (
	// unsynced opens the state file of a test that is not about power cuts.
	unsynced = Options{NoSync: true}
	// tryOnce does not wait for a lock.
	tryOnce = Options{NoSync: true, LockWait: time.Nanosecond}
)

// openStore opens the state file in dir, without syncing it, until the test ends.
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

func objects(from, to int, mark byte) []identity.Object {
	all := make([]identity.Object, 0, to-from)
	for n := from; n < to; n++ {
		o := identity.Object{GUID: guidOf(n), Kind: 1, SID: ad.SID{1, 1, 0, 0, 0, 0, 0, 5, byte(n), byte(n >> 8), 0, 0}, Name: fmt.Sprint("user", n)}
		o.Fingerprint[0], o.Fingerprint[15] = mark, byte(n)
		all = append(all, o)
	}
	return all
}

// send announces and settles one batch, as a run of its own.
func send(s *Store, batch []identity.Object) error {
	d, err := s.OpenJournal(reader, began)
	if err != nil {
		return err
	}
	if err := d.MarkInFlight([]Batch{{0, batch}}); err != nil {
		return err
	}
	return d.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: batch}})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// result is for calls whose error ends the test.
func result[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return value
	}
}

func expect(t testing.TB, s *Store, o identity.Object) {
	t.Helper()
	got, there, err := s.Lookup(o.GUID)
	if want := (IndexRecord{o.Fingerprint, RoundRecheck(o.RecheckAt)}); err != nil || !there || got != want {
		t.Fatalf("%s: known %+v, there %v, error %v; want %+v", o.Name, got, there, err, want)
	}
}

// expectAnyValue: the object is known, and what the gateway holds of it is not.
func expectAnyValue(t testing.TB, s *Store, o identity.Object) {
	t.Helper()
	o.Fingerprint = identity.Fingerprint{}
	expect(t, s, o)
}

func expectAbsent(t testing.TB, s *Store, o identity.Object) {
	t.Helper()
	if known, there, err := s.Lookup(o.GUID); err != nil || there || known != (IndexRecord{}) {
		t.Fatalf("%s: known %+v, there %v, error %v", o.Name, known, there, err)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "state") // is made
	s := openStore(t, dir)
	all := objects(0, 2000, 7)
	if err := send(s, all); err != nil {
		t.Fatal(err)
	}
	connector := Connector{State: "SCHEDULED", RunID: "r", At: time.Unix(1, 0).UTC(), NextRun: time.Unix(2, 0).UTC(), Error: "why"}
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

func TestEmpty(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	if got, err := s.Connector(); err != nil || got != (Connector{}) {
		t.Errorf("connector %+v, error %v", got, err)
	}
	if runs, err := s.Runs(); err != nil || len(runs) != 0 {
		t.Errorf("runs %v, error %v", runs, err)
	}
	untried, err := s.NeverAcknowledged()
	size, err2 := s.IndexSize()
	if err := errors.Join(err, err2); err != nil || !untried || size != 0 {
		t.Errorf("untried %v, size %d, error %v", untried, size, err)
	}
	if target, err := s.Target(); err != nil || target != "" {
		t.Errorf("target %q, error %v", target, err)
	}
	if mark, err := s.Watermark(ad.InvocationID{1}); err != nil || mark != (Watermark{}) {
		t.Errorf("watermark %+v, error %v", mark, err)
	}
	if pass, err := s.LastFullSync(); err != nil || pass != (FullSync{}) {
		t.Errorf("full pass %+v, error %v", pass, err)
	}
}

func TestRunsAreTheLast200(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	for n := range keptRuns + 50 {
		if n == 100 {
			s.Close()
			s = openStore(t, dir)
		}
		must(t, s.RecordRun(Run{ID: fmt.Sprint(n), Users: n, Duration: time.Second}, Connector{State: "SCHEDULED", RunID: fmt.Sprint(n)}))
	}
	runs, err := s.Runs()
	if err != nil || len(runs) != keptRuns {
		t.Fatalf("%d runs, error %v", len(runs), err)
	}
	for i, run := range runs {
		if want := keptRuns + 49 - i; run.Users != want || run.ID != fmt.Sprint(want) || run.Duration != time.Second {
			t.Fatalf("run %d is %+v, want %d", i, run, want)
		}
	}
}

// TestEndRun checks that a run and the state after it are recorded in one transaction: when
// one of the two cannot be written, neither is.
func TestEndRun(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	start := time.Unix(1, 0).UTC()
	run := Run{ID: "first", Start: start, Result: "failed", Error: "bind dc1: wrong password", Remedy: "correct ldap.password", Class: string(fault.Refused)}
	to := Connector{State: "SCHEDULED", RunID: "first", At: start, Error: run.Error, Remedy: run.Remedy}
	must(t, s.RecordRun(run, to))
	expect := func(step string) {
		t.Helper()
		if runs := result(s.Runs())(t); !slices.Equal(runs, []Run{run}) {
			t.Errorf("%s: runs %+v, want %+v", step, runs, run)
		}
		if state := result(s.Connector())(t); state != to {
			t.Errorf("%s: state %+v, want %+v", step, state, to)
		}
		if at := result(s.LastSuccess())(t); !at.IsZero() {
			t.Errorf("%s: last success %s", step, at)
		}
	}
	expect("recorded")
	never := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) // a year that JSON does not have
	next := Connector{State: "SCHEDULED", RunID: "second", At: start}
	for step, err := range map[string]error{
		"run":   s.RecordRun(Run{ID: "second", Start: never}, next),
		"state": s.RecordRun(Run{ID: "second", Start: start}, Connector{State: "SCHEDULED", At: never}),
	} {
		faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "record run", Object: "state file " + s.Path()}, nil, remedyDisk)
		expect(step + " not written")
	}
	run, to = Run{ID: "second", Result: "processed", Start: start}, next
	must(t, s.RecordRun(run, to))
	if runs := result(s.Runs())(t); len(runs) != 2 || runs[0] != run {
		t.Errorf("runs %+v", runs)
	}
	if at := result(s.LastSuccess())(t); !at.Equal(start) {
		t.Errorf("last success %s", at)
	}
}

// file is a directory with such a state file.
func file(t *testing.T, content []byte) string {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, fileName), content, 0o600))
	return dir
}

// database is the content of a state file with 1000 objects.
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
		"a later format": {func(t *testing.T) string {
			return file(t, database(t, func(c change) error {
				return c.put(bucketMeta, keyVersion, []byte{0, 0, 0, 3})
			}))
		}, "use the version that wrote it, or move the file away"},
		"an odd format": {func(t *testing.T) string {
			return file(t, database(t, func(c change) error { return c.put(bucketMeta, keyVersion, []byte{1}) }))
		}, "use the version that wrote it, or move the file away"},
		"a file for a directory": {func(t *testing.T) string { return filepath.Join(file(t, nil), fileName) }, "service.state-dir"},
		"below a file":           {func(t *testing.T) string { return filepath.Join(file(t, nil), fileName, "state") }, "service.state-dir"},
		"a directory for the file": {func(t *testing.T) string {
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

// TestDamaged: what cannot be read is kept beside, and a new file begun.
func TestDamaged(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T) []byte{
		"text":                       func(*testing.T) []byte { return []byte("not a database") },
		"much text":                  func(*testing.T) []byte { return bytes.Repeat([]byte("not a database\n"), 5000) },
		"cut short":                  func(t *testing.T) []byte { return database(t, nil)[:8192] },
		"cut within its second head": func(t *testing.T) []byte { return database(t, nil)[:4143] },
		"its end is missing": func(t *testing.T) []byte {
			content := database(t, nil)
			return content[:len(content)/2]
		},
		"an empty bucket is missing": func(t *testing.T) []byte {
			return database(t, func(c change) error { return c.DeleteBucket(bucketHeld) })
		},
		"its sums are missing": func(t *testing.T) []byte {
			return database(t, func(c change) error { return c.DeleteBucket(bucketSums) })
		},
		"overwritten behind its head": func(t *testing.T) []byte {
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
			aside := s.DamagedFile.Path
			if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, damaged) || !strings.HasPrefix(aside, filepath.Join(dir, fileName)+".damaged-") {
				t.Errorf("set aside %v, error %v", s.DamagedFile, err)
			}
			if size, err := s.IndexSize(); err != nil || size != 0 {
				t.Errorf("size %d, error %v", size, err)
			}
			must(t, send(s, objects(0, 3, 1)))
			must(t, s.Close())
			if s = openStore(t, dir); s.DamagedFile != nil {
				t.Errorf("set aside again: %v", s.DamagedFile)
			}
			expect(t, s, objects(0, 3, 1)[2])
		})
	}
}

// TestReadersDoNotHoldUpTheWriter: a read transaction that stays open keeps a
// growing file from being mapped anew, and the writer waits for it forever.
func TestReadersDoNotHoldUpTheWriter(t *testing.T) {
	t.Parallel()
	const count, each = 12_000, 1000
	s := openStore(t, t.TempDir())
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if _, _, err := s.Lookup(guidOf(n % count)); err != nil {
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
		// A reader that waits for the writer, as a pass does for room to upload.
		expect(t, s, batch[0])
	}
	stop.Store(true)
	readers.Wait()
	if open := s.db.Stats().OpenTxN; open != 0 {
		t.Errorf("%d read transactions are left open", open)
	}
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
		if _, there, err := s.Lookup(guidOf(n % count)); !there || err != nil {
			b.Fatal(there, err)
		}
	}
}
