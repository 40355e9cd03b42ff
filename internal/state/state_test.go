package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

func open1(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func guidOf(n int) (guid ad.GUID) {
	binary.BigEndian.PutUint32(guid[12:], uint32(n))
	return guid
}

func objects(from, to int, mark byte) []Object {
	all := make([]Object, 0, to-from)
	for n := from; n < to; n++ {
		o := Object{GUID: guidOf(n), Kind: 1, SID: ad.SID{1, 1, 0, 0, 0, 0, 0, 5, byte(n), byte(n >> 8), 0, 0}, Name: fmt.Sprint("user", n)}
		o.Fingerprint[0], o.Fingerprint[15] = mark, byte(n)
		all = append(all, o)
	}
	return all
}

func expect(t testing.TB, s *Store, o Object) {
	t.Helper()
	got, there, err := s.Fingerprint(o.GUID)
	if err != nil || !there || got != o.Fingerprint {
		t.Fatalf("%s: fingerprint %x, there %v, error %v; want %x", o.Name, got, there, err, o.Fingerprint)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "state") // is made
	s := open1(t, dir)
	all := objects(0, 10_000, 7)
	if err := s.Acknowledge(all, nil); err != nil {
		t.Fatal(err)
	}
	connector := Connector{State: "SCHEDULED", RunID: "r", At: time.Unix(1, 0).UTC(), NextRun: time.Unix(2, 0).UTC(), Error: "why"}
	if err := s.SetConnector(connector); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open1(t, dir)
	for _, o := range all {
		expect(t, s, o)
	}
	if _, there, err := s.Fingerprint(guidOf(10_000)); there || err != nil {
		t.Errorf("an object nobody acknowledged: there %v, error %v", there, err)
	}
	if got, err := s.Connector(); err != nil || got != connector {
		t.Errorf("connector %+v, error %v", got, err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestEmpty(t *testing.T) {
	s := open1(t, t.TempDir())
	if got, err := s.Connector(); err != nil || got != (Connector{}) {
		t.Errorf("connector %+v, error %v", got, err)
	}
	if runs, err := s.Runs(); err != nil || len(runs) != 0 {
		t.Errorf("runs %v, error %v", runs, err)
	}
}

// TestRejected: what was acknowledged of a rejected object before is not its value
// any more, but the gateway still has it.
func TestRejected(t *testing.T) {
	s := open1(t, t.TempDir())
	all := objects(0, 3, 7)
	if err := s.Acknowledge(all, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Acknowledge(nil, []ad.GUID{all[1].GUID, guidOf(99)}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, all[0])
	all[1].Fingerprint = Fingerprint{}
	expect(t, s, all[1])
	if _, there, _ := s.Fingerprint(guidOf(99)); there {
		t.Error("a rejected object that was never acknowledged is in the index")
	}
	_ = s.db.View(func(tx *bbolt.Tx) error {
		if record := tx.Bucket(bucketIndex).Get(all[1].GUID[:]); !bytes.HasSuffix(record, []byte("user1")) {
			t.Errorf("record %q has lost its name", record)
		}
		return nil
	})
	again := objects(1, 2, 8)
	if err := s.Acknowledge(again, nil); err != nil {
		t.Fatal(err)
	}
	expect(t, s, again[0])
}

func TestRunsAreTheLast200(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open1(t, dir)
	for n := range keptRuns + 50 {
		if n == 100 {
			s.Close()
			s = open1(t, dir)
		}
		if err := s.AddRun(Run{ID: fmt.Sprint(n), Users: n, Duration: time.Second}); err != nil {
			t.Fatal(err)
		}
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

func TestLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open1(t, dir)
	start := time.Now()
	_, err := Open(dir)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "service.state-dir") {
		t.Errorf("error %v", err)
	}
	if waited := time.Since(start); waited > 2*lockTimeout {
		t.Errorf("waited %s", waited)
	}
	if err := s.SetConnector(Connector{State: "SCHEDULED"}); err != nil {
		t.Errorf("the holder: %v", err)
	}
}

// TestLockedByAnotherProcess also shows that the lock ends with its holder.
func TestLockedByAnotherProcess(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_HOLD"); dir != "" {
		if _, err := Open(dir); err != nil {
			t.Fatal(err)
		}
		fmt.Println("held")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0) // without closing
	}
	t.Parallel()
	dir := t.TempDir()
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockedByAnotherProcess$")
	holder.Env = append(os.Environ(), "STATE_TEST_HOLD="+dir)
	stdin, _ := holder.StdinPipe()
	stdout, _ := holder.StdoutPipe()
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	stdin.Close()
	if err := holder.Wait(); err != nil {
		t.Error(err)
	}
	open1(t, dir)
}

func TestUnusable(t *testing.T) {
	t.Parallel()
	file := func(t *testing.T, content []byte) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	database := func(t *testing.T, change func(*bbolt.Tx) error) []byte {
		dir := t.TempDir()
		s := open1(t, dir)
		if err := s.Acknowledge(objects(0, 5000, 1), nil); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			if err := s.db.Update(change); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		content, err := os.ReadFile(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	cases := map[string]struct {
		dir   func(t *testing.T) string
		words []string
	}{
		"a later format": {func(t *testing.T) string {
			return file(t, database(t, func(tx *bbolt.Tx) error {
				return tx.Bucket(bucketMeta).Put(keyVersion, []byte{0, 0, 0, 2})
			}))
		}, []string{fileName + " is of format 00000002, this program knows 1", "use the program that wrote it", "move the file away"}},
		"an odd format": {func(t *testing.T) string {
			return file(t, database(t, func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyVersion, []byte{1}) }))
		}, []string{"is of format 01"}},
		"text": {func(t *testing.T) string { return file(t, []byte("not a database")) }, []string{fileName, "move the file away"}},
		"much text": {func(t *testing.T) string { return file(t, bytes.Repeat([]byte("not a database\n"), 5000)) },
			[]string{fileName, "move the file away"}},
		"cut short": {func(t *testing.T) string { return file(t, database(t, nil)[:8192]) },
			[]string{fileName, "move the file away"}},
		"overwritten behind its head": {func(t *testing.T) string {
			content := database(t, nil)
			for i := 8192; i < len(content); i++ {
				content[i] = byte(i * 7)
			}
			return file(t, content)
		}, []string{fileName, "move the file away"}},
		"a file for a directory": {func(t *testing.T) string { return filepath.Join(file(t, nil), fileName) },
			[]string{"set service.state-dir to a directory"}},
		"below a file": {func(t *testing.T) string { return filepath.Join(file(t, nil), fileName, "state") },
			[]string{"set service.state-dir to a directory"}},
		"a directory for the file": {func(t *testing.T) string {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, fileName), 0o700); err != nil {
				t.Fatal(err)
			}
			return dir
		}, []string{"service.state-dir"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := c.dir(t)
			before, _ := os.ReadFile(filepath.Join(dir, fileName))
			s, err := Open(dir)
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, ErrUnusable) {
				t.Fatalf("error %v", err)
			}
			for _, words := range c.words {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("error %q does not say %q", err, words)
				}
			}
			if after, _ := os.ReadFile(filepath.Join(dir, fileName)); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}

// TestReadersDoNotHoldUpTheWriter: a read transaction that stays open keeps a
// growing file from being mapped anew, and the writer waits for it for ever.
func TestReadersDoNotHoldUpTheWriter(t *testing.T) {
	t.Parallel()
	s := open1(t, t.TempDir())
	done := make(chan error, 1)
	go func() {
		var stop atomic.Bool
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for n := 0; !stop.Load(); n++ {
					_, _, err := s.Fingerprint(guidOf(n % 60_000))
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		var failed error
		for from := 0; from < 60_000 && failed == nil; from += 5000 {
			batch := objects(from, from+5000, 1)
			failed = s.Acknowledge(batch, nil)
			// A reader that waits for the writer, as a pass does for room to upload.
			if _, there, err := s.Fingerprint(batch[0].GUID); err != nil || !there {
				t.Errorf("there %v, error %v", there, err)
			}
		}
		stop.Store(true)
		readers.Wait()
		done <- failed
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("reading and writing hold each other up")
	}
	if open := s.db.Stats().OpenTxN; open != 0 {
		t.Errorf("%d read transactions are left open", open)
	}
}

func BenchmarkFingerprint(b *testing.B) {
	const count = 100_000
	s := open1(b, b.TempDir())
	for from := 0; from < count; from += 10_000 {
		if err := s.Acknowledge(objects(from, from+10_000, 1), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, there, err := s.Fingerprint(guidOf(n % count)); !there || err != nil {
			b.Fatal(there, err)
		}
	}
}
