package state

import (
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// controller is the beginning of a domain controller's invocation ID: enough to tell
// a handful of them apart.
type controller [4]byte

func controllerOf(id ad.InvocationID) controller { return controller(id[:4]) }

// batchNumber tells the batches of all runs apart: the run's number above the
// batch's within it. 0 is none.
type batchNumber uint64

// A record is kind, fingerprint, batch, due, whose value it is, length of the SID, SID,
// name. The fingerprint is that of the last value that the gateway acknowledged; where
// it is zero, or the batch open, the gateway may hold any value, or nothing.
const (
	fingerprintAt = 1
	batchAt       = fingerprintAt + len(identity.Fingerprint{})
	dueAt         = batchAt + 8
	controllerAt  = dueAt + 8
	sidAt         = controllerAt + len(controller{}) // its length; then itself
)

func encode(o identity.Object, batch batchNumber, readFrom controller) []byte {
	b := make([]byte, 0, sidAt+1+len(o.SID)+len(o.Name))
	b = append(b, byte(o.Kind))
	b = append(b, o.Fingerprint[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(batch))
	b = append(b, dueKey(o.RecheckAt)...)
	b = append(b, readFrom[:]...)
	b = append(b, byte(len(o.SID)))
	b = append(b, o.SID...)
	return append(b, o.Name...)
}

// decode copies: a record is valid only within its transaction.
func decode(guid, record []byte) (o identity.Object, ok bool) {
	if len(guid) != len(o.GUID) || len(record) <= sidAt || len(record) < sidAt+1+int(record[sidAt]) {
		return o, false
	}
	sidEnd := sidAt + 1 + int(record[sidAt])
	return identity.Object{
		GUID: ad.GUID(guid), Kind: identity.Kind(record[0]), Fingerprint: identity.Fingerprint(record[fingerprintAt:]),
		RecheckAt: dueOf(record), SID: ad.SID(slices.Clone(record[sidAt+1 : sidEnd])), Name: string(record[sidEnd:]),
	}, true
}

func batchOf(record []byte) batchNumber {
	return batchNumber(binary.BigEndian.Uint64(record[batchAt:]))
}

func dueOf(record []byte) time.Time {
	seconds := binary.BigEndian.Uint64(record[dueAt:])
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// RoundRecheck is the precision in which times are kept. It rounds up: what is read
// again at that second has changed by then.
func RoundRecheck(due time.Time) time.Time {
	if due.IsZero() {
		return due
	}
	return time.Unix(due.Add(time.Second-1).Unix(), 0).UTC()
}

// dueKey sorts by time.
func dueKey(due time.Time) []byte {
	if due.IsZero() {
		return make([]byte, 8)
	}
	return binary.BigEndian.AppendUint64(nil, uint64(RoundRecheck(due).Unix()))
}

// IndexRecord is what is known of an object that was sent.
type IndexRecord struct {
	Fingerprint identity.Fingerprint // acknowledged; zero while none is
	RecheckAt   time.Time
}

// Lookup returns what is known of an object, if it was ever sent.
//
// Each call is a transaction of its own: one that was held over a wait for the
// directory or the gateway would keep a growing file from being mapped anew, and
// so hold up the acknowledgements that the wait may be for.
func (s *Store) Lookup(guid ad.GUID) (known IndexRecord, there bool, err error) {
	err = s.view("read index", func(tx *bbolt.Tx) error {
		record := tx.Bucket(bucketIndex).Get(guid[:])
		if len(record) <= sidAt {
			return nil
		}
		there = true
		known.RecheckAt = dueOf(record)
		if !s.isOpen(batchOf(record)) {
			known.Fingerprint = identity.Fingerprint(record[fingerprintAt:])
		}
		return nil
	})
	return known, there, err
}

func (s *Store) isOpen(batch batchNumber) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, open := s.open[batch]
	return open
}

// InFlightObjects returns the objects of batches whose answer never came.
func (s *Store) InFlightObjects() (guids []ad.GUID, err error) {
	s.mu.RLock()
	open := len(s.open)
	s.mu.RUnlock()
	if open == 0 {
		return nil, nil
	}
	err = s.view("read unsettled objects", func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketIndex).ForEach(func(key, record []byte) error {
			if len(record) > sidAt && s.isOpen(batchOf(record)) {
				guids = append(guids, ad.GUID(key))
			}
			return nil
		})
	})
	return guids, err
}

// NeverAcknowledged reports whether nothing in the index was ever acknowledged.
func (s *Store) NeverAcknowledged() (untried bool, err error) {
	err = s.view("read index", func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketIndex).Cursor()
		for _, record := cursor.First(); record != nil; _, record = cursor.Next() {
			if len(record) > sidAt && identity.Fingerprint(record[fingerprintAt:]) != (identity.Fingerprint{}) && !s.isOpen(batchOf(record)) {
				return nil
			}
		}
		untried = true
		return nil
	})
	return untried, err
}

// IndexSize returns how many objects the index holds.
func (s *Store) IndexSize() (size int, err error) {
	err = s.view("count index", func(tx *bbolt.Tx) error {
		size = tx.Bucket(bucketIndex).Stats().KeyN
		return nil
	})
	return size, err
}

// Objects returns those of the given objects that the index holds.
func (s *Store) Objects(guids []ad.GUID) (found []identity.Object, err error) {
	err = s.view("read index", func(tx *bbolt.Tx) error {
		index := tx.Bucket(bucketIndex)
		for _, guid := range guids {
			if object, ok := decode(guid[:], index.Get(guid[:])); ok {
				found = append(found, object)
			}
		}
		return nil
	})
	return found, err
}

// Indexed returns which of the given objects the index holds.
func (s *Store) Indexed(guids []ad.GUID) (indexed []ad.GUID, err error) {
	err = s.view("read index", func(tx *bbolt.Tx) error {
		index := tx.Bucket(bucketIndex)
		for _, guid := range guids {
			if len(index.Get(guid[:])) > sidAt {
				indexed = append(indexed, guid)
			}
		}
		return nil
	})
	return indexed, err
}

// ObjectsOfKinds returns the objects of the index that are of these kinds.
func (s *Store) ObjectsOfKinds(kinds ...identity.Kind) (found []identity.Object, err error) {
	err = s.view("read index", func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketIndex).ForEach(func(key, record []byte) error {
			if object, ok := decode(key, record); ok && slices.Contains(kinds, object.Kind) {
				found = append(found, object)
			}
			return nil
		})
	})
	return found, err
}

// ReadFromOtherControllers returns the objects whose last value came from another domain
// controller than this one.
func (s *Store) ReadFromOtherControllers(than ad.InvocationID) (guids []ad.GUID, err error) {
	err = s.view("read index", func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketIndex).ForEach(func(key, record []byte) error {
			if len(record) > sidAt && controller(record[controllerAt:]) != controllerOf(than) {
				guids = append(guids, ad.GUID(key))
			}
			return nil
		})
	})
	return guids, err
}

// Missing returns the objects of the index that are not among seen, which must be sorted.
func (s *Store) Missing(seen []ad.GUID) (missing []identity.Object, err error) {
	err = s.view("compare index", func(tx *bbolt.Tx) error {
		rest := seen
		return tx.Bucket(bucketIndex).ForEach(func(key, record []byte) error {
			for len(rest) > 0 && string(rest[0][:]) < string(key) {
				rest = rest[1:]
			}
			if len(rest) > 0 && string(rest[0][:]) == string(key) {
				return nil
			}
			if object, ok := decode(key, record); ok {
				missing = append(missing, object)
			}
			return nil
		})
	})
	return missing, err
}

// DueForRecheck returns the objects whose status has changed by the clock until now.
func (s *Store) DueForRecheck(now time.Time) (guids []ad.GUID, err error) {
	err = s.view("read due objects", func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketDue).Cursor()
		for key, _ := cursor.First(); key != nil && int64(binary.BigEndian.Uint64(key)) <= now.Unix(); key, _ = cursor.Next() {
			guids = append(guids, ad.GUID(key[8:]))
		}
		return nil
	})
	return guids, err
}

// putObject writes a record and keeps the index of due times in step with it.
func putObject(c change, o identity.Object, batch batchNumber, readFrom controller) error {
	if err := putDue(c, o.GUID, o.RecheckAt); err != nil {
		return err
	}
	return c.put(bucketIndex, o.GUID[:], encode(o, batch, readFrom))
}

// putDue makes an object due at a time, and at no other.
func putDue(c change, guid ad.GUID, due time.Time) error {
	if err := dropDue(c, guid); err != nil || due.IsZero() {
		return err
	}
	return c.put(bucketDue, append(dueKey(due), guid[:]...), nil)
}

func dropDue(c change, guid ad.GUID) error {
	record := c.Bucket(bucketIndex).Get(guid[:])
	if len(record) <= sidAt || dueOf(record).IsZero() {
		return nil
	}
	return c.delete(bucketDue, append(slices.Clone(record[dueAt:controllerAt]), guid[:]...))
}

// SetRecheckTimes changes when objects of the index are due, and nothing else of them.
func (s *Store) SetRecheckTimes(due map[ad.GUID]time.Time) error {
	return s.update("reschedule objects", func(c change) error {
		for guid, when := range due {
			record := slices.Clone(c.Bucket(bucketIndex).Get(guid[:]))
			if len(record) <= sidAt {
				continue
			}
			if err := putDue(c, guid, when); err != nil {
				return err
			}
			copy(record[dueAt:], dueKey(when))
			if err := c.put(bucketIndex, guid[:], record); err != nil {
				return err
			}
		}
		return nil
	})
}
