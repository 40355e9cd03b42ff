package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/test/faulttest"
)

func TestCompareGenerations(t *testing.T) {
	t.Parallel()
	const a, b = 1, 2
	at := func(lineage byte, number uint64) generation { return generation{lineageID{lineage}, number} }
	for name, c := range map[string]struct {
		inState, inFile generation
		empty           bool
		want            fileAge
	}{
		"new":                {generation{}, generation{}, true, ageCurrent},
		"upgrade from 1.0.0": {generation{}, generation{}, false, ageCurrent},
		"upgrade from 1.0.0, crash after 1st file": {generation{}, at(a, 1), false, ageCurrent},
		"1.0.0, put back after a delivery":         {generation{}, at(a, 2), false, ageCopy},
		"equal":                                    {at(a, 6), at(a, 6), false, ageCurrent},
		"crash between the writes":                 {at(a, 6), at(a, 7), false, ageCurrent},
		"put back after one delivery":              {at(a, 6), at(a, 8), false, ageCopy},
		"put back after many":                      {at(a, 6), at(a, 1000), false, ageCopy},
		"generation file missing":                  {at(a, 6), generation{}, false, ageUnknown},
		"generation file put back, one step":       {at(a, 6), at(a, 5), false, ageCopy},
		"generation file put back":                 {at(a, 6), at(a, 2), false, ageCopy},
		"of another directory, equal number":       {at(a, 6), at(b, 6), false, ageCopy},
		"of another directory, one behind":         {at(a, 6), at(b, 7), false, ageCopy},
		"state file lost":                          {generation{}, at(a, 8), true, ageNew},
		"no objects":                               {at(a, 2), at(a, 8), true, ageNew},
		"no objects, equal":                        {at(a, 8), at(a, 8), true, ageCurrent},
		"no objects, generation file missing":      {at(a, 8), generation{}, true, ageUnknown},
	} {
		if got := compareGenerations(c.inState, c.inFile, c.empty); got != c.want {
			t.Errorf("%s: age %d, want %d", name, got, c.want)
		}
	}
}

func TestDecodeGeneration(t *testing.T) {
	t.Parallel()
	want := generation{number: 41}.next()
	want.lineage = lineageID{0xab, 7: 0xcd}
	text := string(want.encode())
	if text != "42 ab000000000000cd\n" {
		t.Errorf("encoded as %q", text)
	}
	if got, err := decodeGeneration([]byte(text)); err != nil || got != want {
		t.Errorf("decoded as %+v, error %v", got, err)
	}
	for _, bad := range []string{
		"", "\n", "42\n", strings.TrimSuffix(text, "\n"), text + "\n", text + "x", " " + text, "+" + text, "0" + text, "x" + text,
		"-1 ab000000000000cd\n", "0 ab000000000000cd\n", "42 ab0000000000cd\n", "42 AB000000000000CD\n", "42 ab000000000000xx\n",
		"99999999999999999999 ab000000000000cd\n", strings.Repeat("1", maxGenerationSize), "\x00",
	} {
		if got, err := decodeGeneration([]byte(bad)); !errors.Is(err, errBadGeneration) || got != (generation{}) {
			t.Errorf("%q: %+v, error %v", bad, got, err)
		}
	}
}

// stateFiles are the state file and the generation file in a directory, which another process
// replaces.
type stateFiles struct {
	t   testing.TB
	dir string
}

func (f stateFiles) statePath() string      { return filepath.Join(f.dir, fileName) }
func (f stateFiles) generationPath() string { return generationPath(f.statePath()) }
func (f stateFiles) state() []byte          { return result(os.ReadFile(f.statePath()))(f.t) }
func (f stateFiles) generation() []byte     { return result(os.ReadFile(f.generationPath()))(f.t) }

func (f stateFiles) putState(content []byte) {
	must(f.t, os.WriteFile(f.statePath(), content, 0o600))
}

func (f stateFiles) putGeneration(content []byte) {
	must(f.t, os.WriteFile(f.generationPath(), content, 0o600))
}

// run sends objects and closes the file.
func (f stateFiles) run(batch []identity.Object) {
	f.t.Helper()
	s := openStore(f.t, f.dir)
	must(f.t, send(s, batch))
	must(f.t, s.Close())
}

// newStateFiles returns the files after a run, and a copy of the state file from then.
func newStateFiles(t testing.TB, batch []identity.Object) (f stateFiles, copied []byte) {
	t.Helper()
	f = stateFiles{t, t.TempDir()}
	f.run(batch)
	return f, f.state()
}

// expectRestored checks whether the file counts as restored from a copy.
func expectRestored(t testing.TB, s *Store, want bool) {
	t.Helper()
	if !want {
		if s.Restored != nil {
			t.Errorf("counts as a copy: %v", s.Restored)
		}
		return
	}
	faulttest.Check(t, s.Restored, fault.Error{Class: fault.Transient, Op: "open", Object: "state file " + s.Path()}, errRestored, remedyRestored)
	if cause := result(s.PendingResend())(t); cause != ResendRestored {
		t.Errorf("pending resend %q", cause)
	}
}

// TestRestoredCopy checks that a copy of the state file that is put back after a delivery is
// detected once, that its objects stay in the index, and that their values stay unknown until
// they are sent again.
func TestRestoredCopy(t *testing.T) {
	t.Parallel()
	first := objects(0, 10, 1)
	f, copied := newStateFiles(t, first)
	f.run(objects(0, 10, 2))
	f.putState(copied)

	s := openStore(t, f.dir)
	expectRestored(t, s, true)
	if n := result(s.IndexSize())(t); n != 10 {
		t.Errorf("%d objects", n)
	}
	if never := result(s.NeverAcknowledged())(t); never {
		t.Error("the gateway counts as one that has never acknowledged an object")
	}
	for _, o := range first {
		expectUnknownValue(t, s, o)
	}

	// A run that fails after some batches, one of them with incomplete results.
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, first[:2]}, {1, first[2:5]}}))
	must(t, j.Commit([]BatchResult{
		{Batch: 0, Complete: true, Acknowledged: first[:2]},
		{Batch: 1, Acknowledged: first[2:3], Rejected: []RejectedObject{{first[3], "reason"}}},
	}))
	must(t, s.Close())
	s = openStore(t, f.dir)
	expectRestored(t, s, false)
	if cause := result(s.PendingResend())(t); cause != ResendRestored {
		t.Errorf("pending resend %q after a failed run", cause)
	}
	for _, o := range first[:3] {
		expect(t, s, o)
	}
	for _, o := range first[3:] {
		expectUnknownValue(t, s, o)
	}

	// The complete full sync ends it. What it could not send stays unknown.
	must(t, send(s, first[5:]))
	must(t, s.Advance(Progress{View: testView, At: testStart}))
	if cause := result(s.PendingResend())(t); cause != ResendRestored {
		t.Errorf("pending resend %q after a delta sync", cause)
	}
	must(t, s.Advance(Progress{View: testView, FullSync: true, At: testStart}))
	if cause := result(s.PendingResend())(t); cause != "" {
		t.Errorf("pending resend %q after a full sync", cause)
	}
	must(t, s.Close())
	s = openStore(t, f.dir)
	expect(t, s, first[9])
	expectUnknownValue(t, s, first[3])
}

// TestNotRestored checks the cases in which the state file is not a copy, or in which this
// cannot be determined. They must not cause a resend.
func TestNotRestored(t *testing.T) {
	t.Parallel()
	batch := objects(0, 10, 1)
	cases := map[string]struct {
		change func(f stateFiles, copied []byte)
		bad    bool // the generation file is invalid
	}{
		"nothing":     {change: func(stateFiles, []byte) {}},
		"copy of now": {change: func(f stateFiles, copied []byte) { f.putState(copied) }},
		"missing":     {change: func(f stateFiles, _ []byte) { must(f.t, os.Remove(f.generationPath())) }},
		"missing, copied": {change: func(f stateFiles, copied []byte) {
			f.run(batch)
			f.putState(copied)
			must(f.t, os.Remove(f.generationPath()))
		}},
		"idle runs": {change: func(f stateFiles, copied []byte) {
			s := openStore(f.t, f.dir)
			for range 3 {
				result(s.OpenJournal(testView, testStart))(f.t)
			}
			must(f.t, s.Close())
			f.putState(copied)
		}},
		"both put back": {change: func(f stateFiles, copied []byte) {
			generation := f.generation()
			f.run(batch)
			f.putState(copied)
			f.putGeneration(generation)
		}},
		"empty":     {change: func(f stateFiles, _ []byte) { f.putGeneration(nil) }, bad: true},
		"text":      {change: func(f stateFiles, _ []byte) { f.putGeneration([]byte("not a generation\n")) }, bad: true},
		"huge":      {change: func(f stateFiles, _ []byte) { f.putGeneration(bytes.Repeat([]byte("1"), 1<<20)) }, bad: true},
		"truncated": {change: func(f stateFiles, _ []byte) { f.putGeneration(f.generation()[:5]) }, bad: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, copied := newStateFiles(t, batch)
			c.change(f, copied)
			s := openStore(t, f.dir)
			expectRestored(t, s, false)
			if c.bad {
				faulttest.Check(t, s.BadGeneration, fault.Error{Class: fault.Transient, Op: "read", Object: f.generationPath()}, errBadGeneration, "sync --resend")
			} else if s.BadGeneration != nil {
				t.Error(s.BadGeneration)
			}
			for _, o := range batch {
				expect(t, s, o)
			}
			if cause := result(s.PendingResend())(t); cause != "" {
				t.Errorf("pending resend %q", cause)
			}
			must(t, s.Close())
			copied = f.state()
			f.run(objects(0, 10, 2))
			f.putState(copied)
			if s = openStore(t, f.dir); s.BadGeneration != nil {
				t.Error(s.BadGeneration)
			}
			expectRestored(t, s, true) // copies are detected again
		})
	}
}

// TestMissingGenerationFileIsWritten checks that a missing or invalid generation file is
// written when the state file is opened, so that older copies are detected before the next
// delivery.
func TestMissingGenerationFileIsWritten(t *testing.T) {
	t.Parallel()
	f, copied := newStateFiles(t, objects(0, 10, 1))
	f.run(objects(0, 10, 2))
	must(t, os.Remove(f.generationPath()))
	must(t, openStore(t, f.dir).Close())
	f.putState(copied)
	expectRestored(t, openStore(t, f.dir), true)
}

// TestGenerationOfUpgrade checks that a file of an earlier format is upgraded without a resend,
// and that its copy, put back after a delivery, is detected.
func TestGenerationOfUpgrade(t *testing.T) {
	t.Parallel()
	for format := 1; format <= 2; format++ {
		t.Run(fmt.Sprint("version ", format), func(t *testing.T) {
			t.Parallel()
			f := stateFiles{t, unpack(t, format)}
			copied := f.state()
			for range 2 { // the second one also opens an upgraded file that has sent nothing
				s := openStore(t, f.dir)
				expectRestored(t, s, false)
				expectGoldenState(t, s)
				must(t, s.Close())
			}
			if _, err := os.Stat(f.generationPath()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("generation file before a delivery: %v", err)
			}
			f.run(objects(7, 8, 1))
			s := openStore(t, f.dir)
			expectRestored(t, s, false)
			expect(t, s, goldenObjects()[0])
			must(t, s.Close())
			f.putState(copied)
			s = openStore(t, f.dir)
			expectRestored(t, s, true)
			expectUnknownValue(t, s, goldenObjects()[0])
		})
	}
}

// errCrash stops an advance between its two writes.
var errCrash = errors.New("crash")

// crash ends a process between the two writes of its n-th advance.
func (f stateFiles) crash(n int) {
	f.t.Helper()
	options := unsynced
	options.generationWritten = func() error {
		if n--; n == 0 {
			return errCrash
		}
		return nil
	}
	s := result(options.Open(f.dir))(f.t)
	before := result(s.InFlightObjects())(f.t)
	if err := send(s, objects(0, 1, 99)); !errors.Is(err, errCrash) {
		f.t.Fatalf("error %v", err)
	}
	if after := result(s.InFlightObjects())(f.t); !slices.Equal(after, before) {
		f.t.Fatalf("marked in flight: %v, before %v", after, before)
	}
	must(f.t, s.Close())
}

// TestCrashBetweenWrites checks that a crash after the write of the generation file and before
// the commit of the state file causes no resend, also if it happens again, and that copies
// from before it are detected after the next delivery.
func TestCrashBetweenWrites(t *testing.T) {
	t.Parallel()
	batch := objects(0, 10, 1)
	for name, create := range map[string]func(t *testing.T) (stateFiles, []identity.Object){
		"current": func(t *testing.T) (stateFiles, []identity.Object) { f, _ := newStateFiles(t, batch); return f, batch },
		"upgrade": func(t *testing.T) (stateFiles, []identity.Object) {
			return stateFiles{t, unpack(t, 2)}, goldenObjects()[:5]
		},
	} {
		for _, advances := range [][]int{{1}, {2}, {1, 1}, {2, 2}, {1, 2}, {2, 1, 2}} {
			t.Run(fmt.Sprint(name, " ", advances), func(t *testing.T) {
				t.Parallel()
				f, known := create(t)
				before := f.state()
				for _, n := range advances {
					f.crash(n)
					s := openStore(t, f.dir)
					expectRestored(t, s, false)
					for _, o := range known {
						expect(t, s, o)
					}
					must(t, s.Close())
				}
				after := f.state()
				f.run(objects(20, 21, 1))
				for _, copied := range [][]byte{before, after} {
					f.putState(copied)
					s := openStore(t, f.dir)
					expectRestored(t, s, true)
					must(t, s.Close())
				}
			})
		}
	}
}

// TestCrashAfterDetection checks that a copy is detected again if the process ends before it
// has recorded the detection.
func TestCrashAfterDetection(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]func(f stateFiles, generation []byte){
		"old state file":      func(stateFiles, []byte) {},
		"old generation file": func(f stateFiles, generation []byte) { f.run(objects(0, 10, 3)); f.putGeneration(generation) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, copied := newStateFiles(t, objects(0, 10, 1))
			generation := f.generation()
			f.run(objects(0, 10, 2))
			if later(f, generation); bytes.Equal(generation, f.generation()) {
				copied = f.state()
			}
			f.putState(copied)
			options := unsynced
			options.generationWritten = func() error { return errCrash }
			if _, err := options.Open(f.dir); !errors.Is(err, errCrash) {
				t.Fatalf("error %v", err)
			}
			expectRestored(t, openStore(t, f.dir), true)
		})
	}
}

// TestRestoredReadOnly checks that a reader detects a copy and changes nothing.
func TestRestoredReadOnly(t *testing.T) {
	t.Parallel()
	batch := objects(0, 10, 1)
	f, copied := newStateFiles(t, batch)
	must(t, os.Remove(f.generationPath()))
	before := contents(t, f.dir)
	s := openReadOnly(t, f.dir)
	expectRestored(t, s, false)
	expect(t, s, batch[0])
	must(t, s.Close())
	if after := contents(t, f.dir); !maps.Equal(after, before) {
		t.Error("the directory was changed")
	}
	f.run(objects(0, 10, 2))
	f.putState(copied)
	before = contents(t, f.dir)
	for range 2 {
		s = openReadOnly(t, f.dir)
		expectRestored(t, s, true)
		expectUnknownValue(t, s, batch[0])
		must(t, s.Close())
	}
	if after := contents(t, f.dir); !maps.Equal(after, before) {
		t.Error("the directory was changed")
	}
	expectRestored(t, openStore(t, f.dir), true)
}

// TestRestoredAfterDamage checks that a new file that replaces a damaged or lost one is not a
// copy, and that an older copy is detected afterwards.
func TestRestoredAfterDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(f stateFiles){
		"damaged": func(f stateFiles) { f.putState(bytes.Repeat([]byte("x"), 70_000)) },
		"removed": func(f stateFiles) { must(f.t, os.Remove(f.statePath())) },
		"emptied": func(f stateFiles) { f.putState(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, copied := newStateFiles(t, objects(0, 10, 1))
			f.run(objects(0, 10, 2))
			damage(f)
			for range 2 {
				s := openStore(t, f.dir)
				expectRestored(t, s, false)
				must(t, s.Close())
			}
			f.run(objects(0, 5, 3))
			s := openStore(t, f.dir)
			expectRestored(t, s, false)
			expect(t, s, objects(0, 5, 3)[0])
			must(t, s.Close())
			f.putState(copied)
			expectRestored(t, openStore(t, f.dir), true)
		})
	}
}

// TestRestoredInNewDirectory checks that a copy from before the loss of the directory is
// detected, even if its number is that of the new generation file.
func TestRestoredInNewDirectory(t *testing.T) {
	t.Parallel()
	f, copied := newStateFiles(t, objects(0, 10, 1))
	generation := f.generation()
	must(t, os.RemoveAll(f.dir))
	f.run(objects(0, 10, 2))
	if number, _, _ := strings.Cut(string(f.generation()), " "); !strings.HasPrefix(string(generation), number+" ") {
		t.Fatalf("generations %s, %s", generation, f.generation())
	}
	f.putState(copied)
	expectRestored(t, openStore(t, f.dir), true)
}

// TestForgetFingerprints checks that all values are unknown until they are sent again, after a
// restart and a compaction, too.
func TestForgetFingerprints(t *testing.T) {
	t.Parallel()
	batch := objects(0, 10, 1)
	f, _ := newStateFiles(t, batch)
	options := unsynced
	options.compactAbove = 1
	reopen := func(s *Store) *Store {
		must(t, s.Close())
		s = result(options.Open(f.dir))(t)
		t.Cleanup(func() { s.Close() })
		expectRestored(t, s, false)
		return s
	}
	s := openStore(t, f.dir)
	must(t, send(s, objects(1000, 20_000, 1)))
	j := result(s.OpenJournal(testView, testStart))(t)
	deletions := objects(1000, 20_000, 1)
	for i := range deletions {
		deletions[i].Deleted = true
	}
	must(t, j.MarkInFlight([]Batch{{0, deletions}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: deletions}}))
	must(t, s.ForgetFingerprints())
	for _, o := range batch {
		expectUnknownValue(t, s, o)
	}
	size := s.FileSize()
	if s = reopen(s); s.FileSize() >= size {
		t.Fatalf("not compacted: %d bytes, before %d", s.FileSize(), size)
	}
	for _, o := range batch {
		expectUnknownValue(t, s, o)
	}
	must(t, send(s, batch[:5]))
	s = reopen(s)
	expect(t, s, batch[4])
	expectUnknownValue(t, s, batch[5])
	if cause := result(s.PendingResend())(t); cause != ResendRequested {
		t.Errorf("pending resend %q", cause)
	}
	must(t, s.ChangeTarget("another")) // run numbers begin again
	for range 2 {
		if cause := result(s.PendingResend())(t); cause != "" {
			t.Errorf("pending resend %q", cause)
		}
		must(t, send(s, batch))
		expect(t, s, batch[0])
		s = reopen(s)
	}
}

// TestGenerationFileNotWritten checks that nothing is marked in flight, and so nothing is sent,
// if the generation file cannot be written.
func TestGenerationFileNotWritten(t *testing.T) {
	t.Parallel()
	batch := objects(0, 10, 1)
	f, _ := newStateFiles(t, batch)
	s := openStore(t, f.dir)
	obstacle := filepath.Join(newGenerationPath(f.statePath()), "file")
	must(t, os.MkdirAll(obstacle, 0o700))
	err := send(s, objects(0, 10, 2))
	faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "write", Object: "generation file " + f.generationPath()}, ErrUnusable, "service.state-dir")
	for _, o := range batch {
		expect(t, s, o)
	}
	must(t, os.RemoveAll(filepath.Dir(obstacle)))
	must(t, send(s, objects(0, 10, 2)))
	must(t, s.Close())
	s = openStore(t, f.dir)
	expectRestored(t, s, false)
	expect(t, s, objects(0, 10, 2)[0])
}

// TestGenerationPermission checks the remedies of a generation file or a directory without the
// permissions.
func TestGenerationPermission(t *testing.T) {
	t.Parallel()
	f, _ := newStateFiles(t, nil)
	path := f.generationPath()
	for want, err := range map[string]error{
		path + " readable":               accessError(path, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}, "readable"),
		filepath.Dir(path) + " writable": dirError(path, &fs.PathError{Op: "open", Path: path + ".new", Err: fs.ErrPermission}),
	} {
		faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, want, "service.state-dir")
	}
}

// TestCampaignGenerations plays random histories of runs, crashes, copies and restored copies.
// It checks that a known fingerprint is always that of the gateway's value, and that only a
// restored copy counts as one.
func TestCampaignGenerations(t *testing.T) {
	t.Parallel()
	histories := uint64(1000)
	if testing.Short() {
		histories = 60
	}
	dir, detected := t.TempDir(), 0
	for seed := range histories {
		h := &generationHistory{
			stateFiles: stateFiles{t, filepath.Join(dir, fmt.Sprint(seed))},
			random:     rand.New(rand.NewPCG(seed, 5)), gateway: map[int]byte{},
		}
		h.reopen(false)
		for range 25 {
			h.step()
			h.check(seed)
		}
		must(t, h.store.Close())
		detected += h.detected
	}
	t.Logf("%d copies detected", detected)
	if detected < int(histories)/2 {
		t.Error("too few copies detected for a meaningful test")
	}
}

type generationHistory struct {
	stateFiles
	random   *rand.Rand
	store    *Store
	gateway  map[int]byte // mark of the value of each object at the gateway
	copies   [][]byte
	detected int
	events   []string
}

// reopen opens the state file again. mayBeCopy is whether it was put back.
func (h *generationHistory) reopen(mayBeCopy bool) {
	h.t.Helper()
	if h.store != nil {
		must(h.t, h.store.Close())
	}
	h.store = result(unsynced.Open(h.dir))(h.t)
	if h.store.Restored != nil {
		h.detected++
		if !mayBeCopy {
			h.t.Fatalf("counts as a copy: %v\n%s", h.store.Restored, strings.Join(h.events, "\n"))
		}
	}
}

func (h *generationHistory) step() {
	event, mayBeCopy := "", false
	stop := func() { must(h.t, h.store.Close()); h.store = nil }
	switch n := h.random.IntN(20); {
	case n < 7:
		event = h.run()
	case n < 9:
		event = "crash"
		stop()
		h.crash(1 + h.random.IntN(2))
	case n < 13:
		event = "copy"
		stop()
		h.copies = append(h.copies, h.state())
	case n < 16 && len(h.copies) > 0:
		i := h.random.IntN(len(h.copies))
		event, mayBeCopy = fmt.Sprint("put back copy ", i), true
		stop()
		h.putState(h.copies[i])
	case n == 16:
		event = "generation file lost"
		stop()
		_ = os.Remove(h.generationPath())
	case n == 17:
		event = "generation file damaged"
		stop()
		h.putGeneration([]byte("damaged"))
	case n == 18:
		event = "state file lost"
		stop()
		must(h.t, os.Remove(h.statePath()))
	case n == 19:
		event = "resend requested"
		must(h.t, h.store.ForgetFingerprints())
	}
	h.events = append(h.events, event)
	h.reopen(mayBeCopy)
}

// run sends objects. The process may end before results are recorded.
func (h *generationHistory) run() string {
	mark, committed := byte(1+h.random.IntN(3)), h.random.IntN(4) > 0
	j := result(h.store.OpenJournal(testView, testStart))(h.t)
	batches := h.random.IntN(3)
	for number := range batches {
		n := h.random.IntN(4)
		batch := Batch{number, objects(n, n+2, mark)}
		must(h.t, j.MarkInFlight([]Batch{batch}))
		h.gateway[n], h.gateway[n+1] = mark, mark
		if committed {
			must(h.t, j.Commit([]BatchResult{{Batch: number, Complete: true, Acknowledged: batch.Objects}}))
		}
	}
	return fmt.Sprintf("run with %d batches, committed: %t", batches, committed)
}

// check checks that a known value is the gateway's.
func (h *generationHistory) check(seed uint64) {
	h.t.Helper()
	for n := range 5 {
		record, _, err := h.store.Lookup(guidOf(n), nil)
		must(h.t, err)
		if known := record.Fingerprint[0]; known != 0 && known != h.gateway[n] {
			h.t.Fatalf("history %d: value %d of object %d recorded, the gateway has %d\n%s", seed, known, n, h.gateway[n], strings.Join(h.events, "\n"))
		}
	}
}

// TestGenerationFileInNames checks that the generation file and its temporary file are among
// the names that Open checks.
func TestGenerationFileInNames(t *testing.T) {
	t.Parallel()
	f, _ := newStateFiles(t, objects(0, 1, 1))
	all := slices.Collect(maps.Values(names(f.dir)))
	for _, entry := range result(os.ReadDir(f.dir))(t) {
		if !slices.Contains(all, filepath.Join(f.dir, entry.Name())) {
			t.Errorf("%s is not checked", entry.Name())
		}
	}
}
