package state

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/test/faulttest"
)

// The files in testdata were written by the programs that introduced their formats. They
// must not change. With -golden, TestGoldenFile writes the file of a new format.
var writeGolden = flag.Bool("golden", false, "write testdata/version-N.db.gz of the current format if it does not exist")

func goldenPath(format int) string { return fmt.Sprintf("testdata/version-%d.db.gz", format) }

// unpack returns a state directory with the golden file of a format.
func unpack(t *testing.T, format int) (dir string) {
	t.Helper()
	packed := result(gzip.NewReader(bytes.NewReader(result(os.ReadFile(goldenPath(format)))(t))))(t)
	content := result(io.ReadAll(packed))(t)
	dir = t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, fileName), content, 0o600))
	return dir
}

// pack writes the state file in dir to a golden file.
func pack(t *testing.T, path, dir string) {
	t.Helper()
	var packed bytes.Buffer
	w := result(gzip.NewWriterLevel(&packed, gzip.BestCompression))(t)
	result(w.Write(result(os.ReadFile(filepath.Join(dir, fileName)))(t)))(t)
	must(t, w.Close())
	must(t, os.WriteFile(path, packed.Bytes(), 0o644))
}

var (
	goldenTime       = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	goldenConnector  = Connector{State: "SCHEDULED", RunID: "run 2", At: goldenTime, NextRun: goldenTime.Add(10 * time.Minute)}
	goldenView       = View{InvocationID: ad.InvocationID{0: 0xd0, 15: 0x0d}, Scope: "a scope"}
	goldenFullSync   = FullSync{Scope: "a scope", At: goldenTime.Add(-time.Hour)}
	goldenController = Controller{Watermark: Watermark{USN: 271828, Scope: "a scope", At: goldenTime, Run: 1}, LastFull: goldenFullSync}
	goldenRuns       = []Run{
		{ID: "run 2", Mode: "delta", Result: "held", Start: goldenTime, DurationMS: 1000, Users: 3, Changed: 2, Uploaded: 1, Held: 2, Rejected: 1, Requests: 4, Retries: 1},
		{ID: "run 1", Mode: "full", Result: "failed", Start: goldenTime.Add(-time.Hour), DurationMS: 60_000, Error: "what went wrong", Class: "transient"},
	}
)

// goldenLimit is not in the files of format 1 and 2, which have an older kind of limit.
var goldenLimit = RateLimit{Target: "a gateway", NotedAt: goldenTime, Until: goldenTime.Add(time.Minute)}

// goldenObjects returns seven objects. The first five are acknowledged, and number 2 has a
// recheck time. Number 5 is rejected, and number 6 is in flight.
func goldenObjects() []identity.Object {
	all := objects(0, 7, 7)
	all[2].RecheckAt = goldenTime.Add(24 * time.Hour)
	return all
}

// writeGoldenState writes the state of two runs.
func writeGoldenState(t *testing.T, dir string) {
	t.Helper()
	s := openStore(t, dir)
	all := goldenObjects()
	must(t, s.ChangeTarget("a gateway"))
	j := result(s.OpenJournal(goldenView, goldenTime))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:6]}, {1, all[6:]}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all[:5], Rejected: []RejectedObject{{all[5], "the gateway's words"}}}}))
	must(t, s.SetHeldDeletions([]ad.GUID{all[0].GUID, all[1].GUID}, goldenTime))
	for i := len(goldenRuns) - 1; i >= 0; i-- {
		must(t, s.RecordRun(goldenRuns[i], Connector{}))
	}
	must(t, s.Advance(Progress{View: goldenView, Run: j.Run(), At: goldenFullSync.At, FullSync: true}))
	must(t, s.Advance(Progress{View: goldenView, Run: j.Run(), At: goldenTime, USN: 271828}))
	must(t, s.SetRateLimit(goldenLimit))
	must(t, s.SetConnector(goldenConnector))
	must(t, s.Close())
}

// expectGoldenState checks that the file contains everything that writeGoldenState wrote.
func expectGoldenState(t *testing.T, s *Store) {
	t.Helper()
	all := goldenObjects()
	for _, o := range all[:5] {
		expect(t, s, o)
	}
	for _, o := range all[5:] {
		expect(t, s, identity.Object{GUID: o.GUID, Name: o.Name, RecheckAt: o.RecheckAt})
	}
	if stored := result(s.Objects([]ad.GUID{all[2].GUID}))(t); len(stored) != 1 || !reflect.DeepEqual(stored[0], all[2]) {
		t.Errorf("object %+v, want %+v", stored, all[2])
	}
	rejections := rejectionsOf(t, s)
	if len(rejections) != 1 || rejections[0].GUID != all[5].GUID || rejections[0].Reason != "the gateway's words" ||
		rejections[0].Attempts != 1 || !rejections[0].At.Equal(goldenTime) || !bytes.Equal(rejections[0].Value, all[5].Fingerprint[:]) {
		t.Errorf("rejections %+v", rejections)
	}
	held, total, err := s.HeldDeletions(10)
	if err != nil || total != 2 || held[1].Name != all[1].Name || !held[1].Since.Equal(goldenTime) {
		t.Errorf("held %+v of %d, error %v", held, total, err)
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"size", result(s.IndexSize())(t), 7},
		{"due for recheck", result(s.DueForRecheck(goldenTime.Add(25 * time.Hour)))(t), []ad.GUID{all[2].GUID}},
		{"in flight", result(s.InFlightObjects())(t), []ad.GUID{all[6].GUID}},
		{"runs", result(s.Runs())(t), goldenRuns},
		{"last success", result(s.LastSuccess())(t), goldenTime},
		{"full sync", result(s.LastFullSync())(t), goldenFullSync},
		{"target", result(s.Target())(t), "a gateway"},
		{"connector", result(s.Connector())(t), goldenConnector},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, c.got, c.want)
		}
	}
}

// expectGoldenController checks the progress with domain controllers, which older formats store
// in another form.
func expectGoldenController(t *testing.T, s *Store) {
	t.Helper()
	all := guidsOf(goldenObjects())
	if got := result(s.Controller(goldenView.InvocationID))(t); got != goldenController {
		t.Errorf("controller %+v, want %+v", got, goldenController)
	}
	if others := result(s.DeliveredSince(0, goldenView))(t); len(others) != 0 {
		t.Errorf("delivered under another view: %v", others)
	}
	for _, sighting := range result(s.Sightings(goldenView, all))(t) {
		if !sighting.HereInScope || len(sighting.Elsewhere) != 0 {
			t.Errorf("sighting %+v", sighting)
		}
	}
}

// expectNoController checks that a file without the buckets of the current format can be read: it
// knows no domain controllers.
func expectNoController(t *testing.T, s *Store) {
	t.Helper()
	guids := guidsOf(goldenObjects())
	if got := result(s.Controller(goldenView.InvocationID))(t); got != (Controller{}) {
		t.Errorf("controller %+v", got)
	}
	lists := [][]ad.GUID{result(s.Unseen(goldenView.InvocationID))(t), result(s.DeliveredSince(0, testView))(t), result(s.MovedIn())(t)}
	if n := len(slices.Concat(lists...)); n != 0 {
		t.Errorf("objects %v", lists)
	}
	for _, sighting := range result(s.Sightings(goldenView, guids))(t) {
		if !reflect.DeepEqual(sighting, Sighting{}) {
			t.Errorf("sighting %+v", sighting)
		}
	}
}

// TestGoldenFile checks writeGoldenState and expectGoldenState against each other.
func TestGoldenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeGoldenState(t, dir)
	if *writeGolden {
		if _, err := os.Stat(goldenPath(version)); err == nil {
			t.Fatalf("%s exists and must not change", goldenPath(version))
		}
		pack(t, goldenPath(version), dir)
	}
	s := openStore(t, dir)
	expectGoldenState(t, s)
	expectGoldenController(t, s)
	if got := result(s.RateLimit())(t); got != goldenLimit {
		t.Errorf("rate limit %+v", got)
	}
}

// TestGoldenJournal checks that a file that was written with an unmerged journal is read.
func TestGoldenJournal(t *testing.T) {
	t.Parallel()
	const path = "testdata/journal.db.gz"
	written := openStore(t, t.TempDir())
	writeJournal(t, written)
	if *writeGolden {
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("%s exists and must not change", path)
		}
		pack(t, path, filepath.Dir(written.Path()))
	}
	packed := result(gzip.NewReader(bytes.NewReader(result(os.ReadFile(path))(t))))(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, fileName), result(io.ReadAll(packed))(t), 0o600))
	readOnly := result(unsynced.OpenReadOnly(dir))(t)
	if journalSize(t, readOnly) == 0 {
		t.Error("no journal")
	}
	expectObserved(t, "read-only", observe(t, readOnly), observe(t, written))
	must(t, readOnly.Close())
	s := openStore(t, dir)
	expectObserved(t, "opened", observe(t, s), observe(t, written))
	if n := journalSize(t, s); n != 0 || s.DamagedFile != nil {
		t.Errorf("%d chunks, damaged %v", n, s.DamagedFile)
	}
}

// TestSupportedFormats checks that files of all formats can be read and upgraded.
func TestSupportedFormats(t *testing.T) {
	t.Parallel()
	for format := 1; format <= version; format++ {
		t.Run(fmt.Sprint("version ", format), func(t *testing.T) {
			dir := unpack(t, format)
			readOnly := result(unsynced.OpenReadOnly(dir))(t)
			expectGoldenState(t, readOnly)
			if format < version {
				expectNoController(t, readOnly)
			}
			if _, total, err := readOnly.UndecidedDeletions(-1); total != 0 || err != nil || len(result(readOnly.UndecidedCounts())(t)) != 0 {
				t.Errorf("%d undecided, error %v", total, err)
			}
			must(t, readOnly.Close())

			s := openStore(t, dir)
			if s.DamagedFile != nil {
				t.Fatalf("set aside: %v", s.DamagedFile)
			}
			expectGoldenState(t, s)
			expectGoldenController(t, s)
			more := objects(7, 9, 1)
			must(t, send(s, more))
			must(t, s.SetUndecidedDeletions(undecided("lag", 1, 2), time.Unix(1, 0)))
			must(t, s.Close())
			s = openStore(t, dir)
			if s.DamagedFile != nil {
				t.Fatalf("set aside after the upgrade: %v", s.DamagedFile)
			}
			expect(t, s, more[1])
			if got := undecidedTexts(t, s); !slices.Equal(got, []string{"1 lag 1"}) {
				t.Errorf("undecided %v", got)
			}
			expect(t, s, goldenObjects()[2])
		})
	}
}

// TestNewerFormat checks that a file of a newer format is refused and not changed.
func TestNewerFormat(t *testing.T) {
	t.Parallel()
	const newer = 99
	if *writeGolden {
		dir := t.TempDir()
		writeGoldenState(t, dir)
		s := openStore(t, dir)
		must(t, s.update("", func(c change) error {
			return c.put(bucketMeta, keyVersion, binary.BigEndian.AppendUint32(nil, newer))
		}))
		must(t, s.Close())
		pack(t, goldenPath(newer), dir)
	}
	dir := unpack(t, newer)
	path := filepath.Join(dir, fileName)
	before := result(os.ReadFile(path))(t)
	for name, open := range map[string]func(string) (*Store, error){"Open": unsynced.Open, "OpenReadOnly": unsynced.OpenReadOnly} {
		_, err := open(dir)
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, "use the version", "move the file away")
	}
	if !bytes.Equal(before, result(os.ReadFile(path))(t)) {
		t.Error("the file was changed")
	}
}

// TestUpgradeWithOtherController checks that the records of another domain controller than the
// last one make the next sync a full one, and that the last one counts as not having shown them.
func TestUpgradeWithOtherController(t *testing.T) {
	t.Parallel()
	dir := unpack(t, 2)
	other := goldenObjects()[3].GUID
	db := result(bbolt.Open(filepath.Join(dir, fileName), 0o600, nil))(t)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		c := change{tx, map[string]uint64{}, nil}
		record := slices.Clone(c.Bucket(bucketIndex).Get(other[:]))
		record[firstRunOffset] ^= 1
		if err := c.put(bucketIndex, other[:], record); err != nil {
			return err
		}
		return c.writeChecksums()
	}))
	must(t, db.Close())
	s := openStore(t, dir)
	got := result(s.Controller(goldenView.InvocationID))(t)
	if got.Watermark.USN != 0 || got.LastFull != goldenFullSync {
		t.Errorf("controller %+v", got)
	}
	if unseen := result(s.Unseen(goldenView.InvocationID))(t); !slices.Equal(unseen, []ad.GUID{other}) {
		t.Errorf("unseen %v", unseen)
	}
	must(t, s.Close())
	if damaged := openStore(t, dir).DamagedFile; damaged != nil {
		t.Errorf("set aside after the upgrade: %v", damaged)
	}
}

// TestUpgradeWithOtherScope checks that a watermark of another scope than that of the last full sync is
// not used: the next sync is a full one. The last domain controller has shown all objects, whichever run
// delivered them.
func TestUpgradeWithOtherScope(t *testing.T) {
	t.Parallel()
	dir := unpack(t, 2)
	id := goldenView.InvocationID
	db := result(bbolt.Open(filepath.Join(dir, fileName), 0o600, nil))(t)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		c := change{tx, map[string]uint64{}, nil}
		watermark := map[string]any{"usn": 271828, "scope": "other", "at": goldenTime}
		return errors.Join(c.Bucket(bucketInFlight).SetSequence(7), c.putJSON(bucketWatermarksV2, id[:], watermark), c.writeChecksums())
	}))
	must(t, db.Close())
	s := openStore(t, dir)
	if got := result(s.Controller(id))(t); got.Watermark.USN != 0 || got.LastFull != goldenFullSync {
		t.Errorf("controller %+v", got)
	}
	guids := []ad.GUID{goldenObjects()[0].GUID}
	if got := result(s.Sightings(goldenView, guids))(t); !got[0].Here || !got[0].HereInScope {
		t.Errorf("sighting %+v", got)
	}
	must(t, s.RecordRollback(id))
	view := goldenView
	view.Rollbacks = 1
	if got := result(s.Sightings(view, guids))(t); got[0].Here || !got[0].BeforeRollback {
		t.Errorf("sighting after a rollback %+v", got)
	}
}

// TestUpgradeDetectsDamage checks that the records of an older format are verified before they
// are converted.
func TestUpgradeDetectsDamage(t *testing.T) {
	t.Parallel()
	dir := unpack(t, 2)
	guid := goldenObjects()[3].GUID
	db := result(bbolt.Open(filepath.Join(dir, fileName), 0o600, nil))(t)
	must(t, db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketIndex).Delete(guid[:]) }))
	must(t, db.Close())
	if s := openStore(t, dir); s.DamagedFile == nil {
		t.Error("not detected")
	}
}
