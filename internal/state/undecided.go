package state

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// bucketUndecided contains the undecided deletions: GUID → undecidedRecord.
var bucketUndecided = []byte("undecided")

// keyRemedies is the key of bucketMeta for the remedies of the reasons: reason → remedy.
// They are not in the records, because up to all objects of the index can be undecided.
var keyRemedies = []byte("undecided remedies")

// UndecidedReason is why a run cannot decide whether an object was deleted. The set of
// reasons is that of the programs that wrote the file.
type UndecidedReason string

// Undecided is an object whose deletion a run could not decide. All objects with the same
// reason have the same remedy.
type Undecided struct {
	GUID   ad.GUID
	Reason UndecidedReason
	Remedy string
	// ShownBy are the domain controllers that have shown the object. They are recorded here,
	// because the views of runs are not kept.
	ShownBy ControllerSet
}

// UndecidedDeletion is an object of the index whose deletion is undecided.
type UndecidedDeletion struct {
	identity.Object
	Reason  UndecidedReason
	Remedy  string
	ShownBy ControllerSet
	Since   time.Time
}

// UndecidedCount is the number of undecided deletions with a reason.
type UndecidedCount struct {
	Reason  UndecidedReason
	Remedy  string
	Objects int
	Since   time.Time // the earliest of these deletions
}

// undecidedRecord is the stored form of an undecided deletion.
type undecidedRecord struct {
	Reason  UndecidedReason `json:"reason"`
	ShownBy ControllerSet   `json:"shown_by,omitempty"`
	Since   time.Time       `json:"since"`
}

// forEachUndecided calls f for each undecided deletion, in the order of the GUIDs.
func forEachUndecided(tx *bbolt.Tx, f func(key []byte, record undecidedRecord) error) error {
	decoded := map[string]undecidedRecord{} // the deletions of a run have few different values
	return forEach(tx, bucketUndecided, func(key, value []byte) error {
		if _, found := decoded[string(value)]; !found {
			var record undecidedRecord
			if err := decodeJSON(value, &record); err != nil {
				return err
			}
			decoded[string(value)] = record
		}
		return f(key, decoded[string(value)])
	})
}

// UndecidedDeletions returns up to limit undecided deletions, in the order of their GUIDs,
// and their total number. A negative limit means no limit.
func (s *Store) UndecidedDeletions(limit int) (deletions []UndecidedDeletion, total int, err error) {
	err = s.view("read undecided deletions", func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketUndecided); b == nil || isEmpty(b) {
			return nil
		}
		index, err := newIndexView(tx)
		if err != nil {
			return err
		}
		var remedies map[UndecidedReason]string
		if err := getJSON(tx.Bucket(bucketMeta), keyRemedies, &remedies); err != nil {
			return err
		}
		return forEachUndecided(tx, func(key []byte, record undecidedRecord) error {
			if total++; limit >= 0 && total > limit {
				return nil
			}
			object, _ := decodeRecord(key, index.get(key))
			object.GUID = ad.GUID(key)
			deletions = append(deletions, UndecidedDeletion{object, record.Reason, remedies[record.Reason], record.ShownBy, record.Since})
			return nil
		})
	})
	return deletions, total, err
}

// UndecidedMark is what a later run needs to know about an undecided deletion.
type UndecidedMark struct {
	Reason  UndecidedReason
	ShownBy ControllerSet
}

// UndecidedMarks returns all undecided deletions. Unlike UndecidedDeletions, it copies no
// records.
func (s *Store) UndecidedMarks() (marks map[ad.GUID]UndecidedMark, err error) {
	marks = map[ad.GUID]UndecidedMark{}
	err = s.view("read undecided deletions", func(tx *bbolt.Tx) error {
		return forEachUndecided(tx, func(key []byte, record undecidedRecord) error {
			marks[ad.GUID(key)] = UndecidedMark{record.Reason, record.ShownBy}
			return nil
		})
	})
	return marks, err
}

// UndecidedCounts returns the number of undecided deletions for each reason, in the order of
// the reasons. It does not return reasons without deletions.
func (s *Store) UndecidedCounts() (counts []UndecidedCount, err error) {
	err = s.view("count undecided deletions", func(tx *bbolt.Tx) error {
		var remedies map[UndecidedReason]string
		if err := getJSON(tx.Bucket(bucketMeta), keyRemedies, &remedies); err != nil {
			return err
		}
		byReason := map[UndecidedReason]UndecidedCount{}
		err := forEachUndecided(tx, func(_ []byte, record undecidedRecord) error {
			count, found := byReason[record.Reason]
			if !found {
				count = UndecidedCount{Reason: record.Reason, Remedy: remedies[record.Reason], Since: record.Since}
			}
			count.Objects++
			if record.Since.Before(count.Since) {
				count.Since = record.Since
			}
			byReason[record.Reason] = count
			return nil
		})
		counts = slices.SortedFunc(maps.Values(byReason), func(a, b UndecidedCount) int { return cmp.Compare(a.Reason, b.Reason) })
		return err
	})
	return counts, err
}

// SetUndecidedDeletions replaces the undecided deletions. Deletions that were undecided
// before keep their time, even with another reason. It writes nothing if nothing has
// changed, because every run calls it.
func (s *Store) SetUndecidedDeletions(deletions []Undecided, now time.Time) error {
	deletions = slices.Clone(deletions)
	slices.SortStableFunc(deletions, func(a, b Undecided) int { return bytes.Compare(a.GUID[:], b.GUID[:]) })
	deletions = slices.CompactFunc(deletions, func(a, b Undecided) bool { return a.GUID == b.GUID })
	now = now.UTC().Truncate(time.Second)
	const op = "record undecided deletions"
	changed := true
	err := s.view(op, func(tx *bbolt.Tx) error {
		writes, err := undecidedWrites(tx, deletions, now)
		changed = len(writes) > 0
		return err
	})
	if err != nil || !changed {
		return err
	}
	return s.update(op, func(c change) error {
		writes, err := undecidedWrites(c.Tx, deletions, now) // a batch may have been committed since
		if err != nil {
			return err
		}
		return c.writeAll(writes)
	})
}

// recordWrite is a change of a record. A nil value deletes it.
type recordWrite struct{ bucket, key, value []byte }

// writeAll writes records. Those that an iteration finds are written after it, because a change of a
// bucket invalidates its cursors.
func (c change) writeAll(writes []recordWrite) error {
	for _, w := range writes {
		if err := c.write(w.bucket, w.key, w.value); err != nil {
			return err
		}
	}
	return nil
}

// undecidedWrites returns the writes that replace the undecided deletions by others, which
// must be sorted.
func undecidedWrites(tx *bbolt.Tx, deletions []Undecided, now time.Time) ([]recordWrite, error) {
	diff := undecidedDiff{rest: deletions, now: now, encoded: map[undecidedRecord][]byte{}}
	if err := forEachUndecided(tx, diff.compare); err != nil {
		return nil, err
	}
	for len(diff.rest) > 0 {
		if err := diff.putNext(now); err != nil {
			return nil, err
		}
	}
	remedies, err := encodeRemedies(deletions)
	if !bytes.Equal(remedies, tx.Bucket(bucketMeta).Get(keyRemedies)) {
		diff.writes = append(diff.writes, recordWrite{bucketMeta, keyRemedies, remedies})
	}
	return diff.writes, err
}

// undecidedDiff compares the stored undecided deletions with others.
type undecidedDiff struct {
	rest    []Undecided // the others that were not compared yet, sorted
	now     time.Time
	encoded map[undecidedRecord][]byte // the deletions of a run have few different values
	writes  []recordWrite
}

// compare compares a stored deletion. It must be called in the order of the GUIDs.
func (u *undecidedDiff) compare(key []byte, record undecidedRecord) error {
	for len(u.rest) > 0 && bytes.Compare(u.rest[0].GUID[:], key) < 0 {
		if err := u.putNext(u.now); err != nil {
			return err
		}
	}
	switch {
	case len(u.rest) == 0 || !bytes.Equal(u.rest[0].GUID[:], key):
		u.writes = append(u.writes, recordWrite{bucketUndecided, bytes.Clone(key), nil})
	case u.rest[0].Reason != record.Reason || u.rest[0].ShownBy != record.ShownBy:
		return u.putNext(record.Since)
	default:
		u.rest = u.rest[1:]
	}
	return nil
}

// putNext adds the write of the next deletion.
func (u *undecidedDiff) putNext(since time.Time) (err error) {
	next := &u.rest[0]
	record := undecidedRecord{next.Reason, next.ShownBy, since}
	value := u.encoded[record]
	if value == nil {
		if value, err = json.Marshal(record); err != nil {
			return err
		}
		u.encoded[record] = value
	}
	u.writes = append(u.writes, recordWrite{bucketUndecided, next.GUID[:], value})
	u.rest = u.rest[1:]
	return nil
}

// encodeRemedies returns the stored form of the remedies of all reasons; nil if there are none.
func encodeRemedies(deletions []Undecided) ([]byte, error) {
	if len(deletions) == 0 {
		return nil, nil
	}
	remedies := map[UndecidedReason]string{}
	for _, d := range deletions {
		remedies[d.Reason] = d.Remedy
	}
	return json.Marshal(remedies)
}
