package state

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/test/faulttest"
)

// The files under testdata were written by the programs of their time, and stay as
// they are. A new format gets one of its own: -keep writes it where it is missing.
var keep = flag.Bool("keep", false, "write testdata/version-N.db.gz of the format of today, unless it is there")

func keptFile(format int) string { return fmt.Sprintf("testdata/version-%d.db.gz", format) }

// unpack makes a state directory of a kept file.
func unpack(t *testing.T, format int) (dir string) {
	t.Helper()
	packed := result(gzip.NewReader(bytes.NewReader(result(os.ReadFile(keptFile(format)))(t))))(t)
	content := result(io.ReadAll(packed))(t)
	dir = t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, fileName), content, 0o600))
	return dir
}

func pack(t *testing.T, path, dir string) {
	t.Helper()
	var packed bytes.Buffer
	w := result(gzip.NewWriterLevel(&packed, gzip.BestCompression))(t)
	result(w.Write(result(os.ReadFile(filepath.Join(dir, fileName)))(t)))(t)
	must(t, w.Close())
	must(t, os.WriteFile(path, packed.Bytes(), 0o644))
}

var (
	keptTime       = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	keptConnector  = Connector{State: "SCHEDULED", RunID: "run 2", At: keptTime, NextRun: keptTime.Add(10 * time.Minute)}
	keptController = ad.InvocationID{0: 0xd0, 15: 0x0d}
	keptWatermark  = Watermark{USN: 271828, Scope: "a scope", At: keptTime}
	keptFullPass   = FullSync{Scope: "a scope", At: keptTime.Add(-time.Hour)}
	keptRunsList   = []Run{
		{ID: "run 2", Mode: "delta", Result: "held", Start: keptTime, Duration: time.Second, Users: 3, Changed: 2, Uploaded: 1, Held: 2, Rejected: 1, Requests: 4, Retries: 1},
		{ID: "run 1", Mode: "full", Result: "failed", Start: keptTime.Add(-time.Hour), Duration: time.Minute, Error: "what went wrong", Class: "transient"},
	}
)

// keptObjects: the first five were delivered, number 2 is due again, number 5 was
// rejected, number 6 was sent and never answered.
func keptObjects() []identity.Object {
	all := objects(0, 7, 7)
	all[2].RecheckAt = keptTime.Add(24 * time.Hour)
	return all
}

// writeKept is what a connector does in two runs.
func writeKept(t *testing.T, dir string) {
	t.Helper()
	s := openStore(t, dir)
	all := keptObjects()
	must(t, s.ChangeTarget("a gateway"))
	d := result(s.OpenJournal(keptController, keptTime))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[:6]}, {1, all[6:]}}))
	must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all[:5], Rejected: []RejectedObject{{all[5], "the gateway's words"}}}}))
	must(t, s.SetHeldDeletions([]ad.GUID{all[0].GUID, all[1].GUID}, keptTime))
	for i := len(keptRunsList) - 1; i >= 0; i-- {
		must(t, s.RecordRun(keptRunsList[i], Connector{}))
	}
	must(t, s.Advance(Progress{FullSync: &keptFullPass, InvocationID: keptController, Watermark: &keptWatermark}))
	must(t, s.SetRateLimit(keptTime.Add(time.Minute)))
	must(t, s.SetConnector(keptConnector))
	must(t, s.Close())
}

// expectKept fails where anything that writeKept wrote is not there.
func expectKept(t *testing.T, s *Store) {
	t.Helper()
	all := keptObjects()
	for _, o := range all[:5] {
		expect(t, s, o)
	}
	for _, o := range all[5:] {
		expect(t, s, identity.Object{GUID: o.GUID, Name: o.Name, RecheckAt: o.RecheckAt})
	}
	if stored := result(s.Objects([]ad.GUID{all[2].GUID}))(t); len(stored) != 1 || !reflect.DeepEqual(stored[0], all[2]) {
		t.Errorf("object %+v, want %+v", stored, all[2])
	}
	if strange := result(s.ReadFromOtherControllers(keptController))(t); len(strange) != 0 {
		t.Errorf("read from another controller: %v", strange)
	}
	if strange := result(s.ReadFromOtherControllers(reader))(t); !slices.Equal(strange, guidsOf(all)) {
		t.Errorf("not read from this controller: %v", strange)
	}
	rejections := result(s.Rejections())(t)
	if len(rejections) != 1 || rejections[0].GUID != all[5].GUID || rejections[0].Reason != "the gateway's words" ||
		rejections[0].Attempts != 1 || !rejections[0].At.Equal(keptTime) || !bytes.Equal(rejections[0].Value, all[5].Fingerprint[:]) {
		t.Errorf("rejections %+v", rejections)
	}
	held, total, err := s.FirstHeldDeletions(10)
	if err != nil || total != 2 || held[1].Name != all[1].Name || !held[1].Since.Equal(keptTime) {
		t.Errorf("held %+v of %d, error %v", held, total, err)
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"size", result(s.IndexSize())(t), 7},
		{"due", result(s.DueForRecheck(keptTime.Add(25 * time.Hour)))(t), []ad.GUID{all[2].GUID}},
		{"unsettled", result(s.InFlightObjects())(t), []ad.GUID{all[6].GUID}},
		{"runs", result(s.Runs())(t), keptRunsList},
		{"last success", result(s.LastSuccess())(t), keptTime},
		{"watermark", result(s.Watermark(keptController))(t), keptWatermark},
		{"full pass", result(s.LastFullSync())(t), keptFullPass},
		{"last controller", result(s.LastController())(t), keptController},
		{"rate limit", result(s.RateLimit())(t), keptTime.Add(time.Minute)},
		{"target", result(s.Target())(t), "a gateway"},
		{"connector", result(s.Connector())(t), keptConnector},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.what, c.got, c.want)
		}
	}
}

// TestKeep also holds that the two sides of this file agree with each other.
func TestKeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeKept(t, dir)
	if *keep {
		if _, err := os.Stat(keptFile(version)); err == nil {
			t.Fatalf("%s is there: what a program of its time wrote is not written anew", keptFile(version))
		}
		pack(t, keptFile(version), dir)
	}
	expectKept(t, openStore(t, dir))
}

// TestOlderFile: a file of every format that ever was opens with everything in it,
// to look at it and to go on with it.
func TestOlderFile(t *testing.T) {
	t.Parallel()
	for format := 1; format <= version; format++ {
		t.Run(fmt.Sprint("version ", format), func(t *testing.T) {
			dir := unpack(t, format)
			looking := result(unsynced.OpenReadOnly(dir))(t)
			expectKept(t, looking)
			must(t, looking.Close())

			s := openStore(t, dir)
			if s.DamagedFile != nil {
				t.Fatalf("set aside: %v", s.DamagedFile)
			}
			expectKept(t, s)
			more := objects(7, 9, 1)
			must(t, send(s, more))
			must(t, s.Close())
			s = openStore(t, dir)
			if s.DamagedFile != nil {
				t.Fatalf("set aside once it was taken over: %v", s.DamagedFile)
			}
			expect(t, s, more[1])
			expect(t, s, keptObjects()[2])
		})
	}
}

// TestNewerFile: what a later program wrote is refused by the number of its format,
// and not touched.
func TestNewerFile(t *testing.T) {
	t.Parallel()
	const later = 99
	if *keep {
		dir := t.TempDir()
		writeKept(t, dir)
		s := openStore(t, dir)
		must(t, s.update("", func(c change) error {
			return c.put(bucketMeta, keyVersion, binary.BigEndian.AppendUint32(nil, later))
		}))
		must(t, s.Close())
		pack(t, keptFile(later), dir)
	}
	dir := unpack(t, later)
	path := filepath.Join(dir, fileName)
	before := result(os.ReadFile(path))(t)
	for name, open := range map[string]func(string) (*Store, error){"to write": unsynced.Open, "to look": unsynced.OpenReadOnly} {
		_, err := open(dir)
		if err == nil {
			t.Fatalf("%s: opened", name)
		}
		faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, "use the version", "move the file away")
	}
	if !bytes.Equal(before, result(os.ReadFile(path))(t)) {
		t.Error("the file was changed")
	}
}
