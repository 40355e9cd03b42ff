package state

import (
	"crypto/rand"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// A file that is mostly free is small after the next opening, and holds the same.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	s, err := unsynced.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	const objects, kept = 150_000, 100
	batch := Batch{Number: 0}
	for n := range objects {
		o := identity.Object{Kind: 1, Fingerprint: identity.Fingerprint{1}, Name: strings.Repeat("n", 200), SID: make(ad.SID, 28)}
		rand.Read(o.GUID[:])
		binary.BigEndian.PutUint32(o.GUID[:], uint32(n))
		o.Deleted = n >= kept
		batch.Objects = append(batch.Objects, o)
	}
	d, err := s.Begin(reader, began)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Announce([]Batch{batch}); err != nil {
		t.Fatal(err)
	}
	if err := d.Settle([]Receipt{{Complete: true, Delivered: batch.Objects}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	large, err := os.Stat(path)
	if err != nil || large.Size() < compactAbove {
		t.Fatalf("the file has %d bytes, which is too few for the test; %v", large.Size(), err)
	}
	if err := os.WriteFile(path+compactTo, []byte("cut off"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = unsynced.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	small, err := os.Stat(path)
	if err != nil || small.Size() > large.Size()/10 {
		t.Errorf("%d bytes, before %d; %v", small.Size(), large.Size(), err)
	}
	if size, err := s.Size(); err != nil || size != kept {
		t.Errorf("%d objects, want %d; %v", size, kept, err)
	}
	again, err := s.Begin(reader, began)
	if err != nil || again.run <= d.run {
		t.Errorf("the run's number went from %d to %d; %v", d.run, again.run, err)
	}
	if _, err := os.Stat(path + compactTo); err == nil {
		t.Error("the copy was left behind")
	}
}
