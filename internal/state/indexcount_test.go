package state

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// expectIndexCount checks that the stored count is valid and right.
func expectIndexCount(t *testing.T, s *Store, want int, when string) {
	t.Helper()
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		counted := 0
		must(t, tx.Bucket(bucketIndex).ForEach(func([]byte, []byte) error { counted++; return nil }))
		if stored, ok := storedIndexCount(tx); !ok || int(stored) != counted || counted != want {
			t.Errorf("%s: stored count %d, valid %t, counted %d, want %d", when, stored, ok, counted, want)
		}
		return nil
	}))
	if size := result(s.IndexSize())(t); size != want {
		t.Errorf("%s: size %d, want %d", when, size, want)
	}
}

func TestIndexCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	expectIndexCount(t, s, 0, "new file")
	must(t, s.update("fill", func(c change) error { return putAll(c, 0, 300) }))
	expectIndexCount(t, s, 300, "first objects")
	must(t, s.update("replace and delete", func(c change) error {
		for n := range 10 {
			guid := guidOf(n)
			if err := c.delete(bucketIndex, guid[:]); err != nil {
				return err
			}
		}
		return putAll(c, 5, 305) // 5 to 9 again, 300 to 304 new
	}))
	expectIndexCount(t, s, 300, "replaced, deleted and new objects")
	if err := s.update("fail", func(c change) error {
		must(t, putAll(c, 1000, 1010))
		return os.ErrInvalid
	}); err == nil {
		t.Fatal("no error")
	}
	expectIndexCount(t, s, 300, "a transaction that failed")
	must(t, s.update("empty", func(c change) error {
		must(t, putAll(c, 1000, 1010))
		must(t, c.empty(bucketIndex))
		return putAll(c, 0, 7)
	}))
	expectIndexCount(t, s, 7, "emptied")
	must(t, s.verify(time.Time{}))
	must(t, s.Close())
	s = openStore(t, dir)
	expectIndexCount(t, s, 7, "opened again")
}

// putAll writes the objects from to to-1, as a merge does.
func putAll(c change, from, to int) error {
	for _, o := range objects(from, to, 1) {
		if err := c.put(bucketIndex, o.GUID[:], appendRecord(nil, o, 0, 0)); err != nil {
			return err
		}
	}
	return nil
}

// TestIndexCountOfOlderProgram checks that a count is not used if a program that does not know it has
// changed the index.
func TestIndexCountOfOlderProgram(t *testing.T) {
	t.Parallel()
	for name, older := range map[string]func(c change) error{
		"without a count": func(c change) error { return c.Bucket(bucketChecksums).Delete([]byte(keyIndexCount)) },
		"with an old count": func(c change) error {
			guid := guidOf(3)
			record := c.Bucket(bucketIndex).Get(guid[:])
			sum := storedChecksum(c.Bucket(bucketChecksums), bucketIndex) - recordChecksum(guid[:], record)
			must(t, c.Bucket(bucketChecksums).Put(bucketIndex, binary.BigEndian.AppendUint64(nil, sum)))
			return c.Bucket(bucketIndex).Delete(guid[:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			must(t, s.update("fill", func(c change) error { return putAll(c, 0, 50) }))
			want := 50
			if name == "with an old count" {
				want--
			}
			must(t, s.db.Update(func(tx *bbolt.Tx) error { return older(change{Tx: tx}) }))
			must(t, s.Close())
			readOnly := result(unsynced.OpenReadOnly(dir))(t)
			if size := result(readOnly.IndexSize())(t); size != want {
				t.Errorf("read-only: size %d, want %d", size, want)
			}
			must(t, readOnly.Close())
			s = openStore(t, dir)
			if s.DamagedFile != nil {
				t.Fatal(s.DamagedFile.Damage)
			}
			expectIndexCount(t, s, want, "opened")
		})
	}
}

// TestWrongIndexCount checks that a count that belongs to the index and is wrong is damage.
func TestWrongIndexCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, s.update("fill", func(c change) error { return putAll(c, 0, 50) }))
	must(t, s.db.Update(func(tx *bbolt.Tx) error { return putIndexCount(change{Tx: tx}, 51) }))
	must(t, s.Close())
	if s = openStore(t, dir); s.DamagedFile == nil {
		t.Error("not set aside")
	}
}

func TestRecordSum(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for records := range 30 {
		var sum recordSum
		want := uint64(0)
		for range records {
			key, value := make([]byte, random.IntN(40)), make([]byte, random.IntN(300))
			for _, data := range [][]byte{key, value} {
				for i := range data {
					data[i] = byte(random.Uint32())
				}
			}
			sum.add(key, value)
			want += recordChecksum(key, value)
		}
		sum.flush()
		if sum.sum != want || sum.records != uint64(records) {
			t.Errorf("%d records: sum %x of %d, want %x", records, sum.sum, sum.records, want)
		}
	}
}
