package state

import (
	"encoding/binary"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// bucketMovedIn contains the objects that moved into the scope: GUID → the run that sent the
// object last, and the number of full syncs that are still to send it again.
var bucketMovedIn = []byte("moved in")

// resendsAfterMove is how many full syncs send an object again that moved into the scope. One is
// not enough: with equal intervals, another connection that had the object in its scope may do
// the full sync in which it reports the object as deleted after the first one of this
// connection, but before the second one.
const resendsAfterMove = 2

func encodeMovedIn(run uint64, remaining byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, run), remaining)
}

// decodeMovedIn returns ErrDamaged if encodeMovedIn has not written the value.
func decodeMovedIn(value []byte) (run uint64, remaining byte, err error) {
	if len(value) != 9 {
		return 0, 0, ErrDamaged
	}
	return binary.BigEndian.Uint64(value), value[8], nil
}

// MovedIn returns the objects that moved into the scope and that a full sync sends again even
// if they are unchanged, sorted. All of them are in the index.
func (s *Store) MovedIn() (guids []ad.GUID, err error) {
	err = s.view("read moved objects", func(tx *bbolt.Tx) error {
		return forEach(tx, bucketMovedIn, func(key, _ []byte) error {
			guids = append(guids, ad.GUID(key))
			return nil
		})
	})
	return guids, err
}

// putMovedIn records that a run sends an object for the first time that moved into the scope. It
// precedes the sending: if the run fails, later ones do not know any more that the object was
// new.
func putMovedIn(c change, guid ad.GUID, run uint64) error {
	return c.put(bucketMovedIn, guid[:], encodeMovedIn(run, resendsAfterMove))
}

// countResends counts the objects that a complete full sync has sent again. An object whose
// value is not acknowledged does not count.
func (s *Store) countResends(c change, run uint64) error {
	var writes []recordWrite
	err := c.Bucket(bucketMovedIn).ForEach(func(key, value []byte) error {
		sentBy, remaining, err := decodeMovedIn(value)
		record := c.record(ad.GUID(key))
		switch {
		case err != nil || sentBy == run: // it was new in this run
			return err
		case !isRecord(record) || batchOf(record).run() != run || s.acknowledgedFingerprint(record) == identity.Fingerprint{}:
			return nil
		case remaining <= 1:
			value = nil
		default:
			value = encodeMovedIn(run, remaining-1)
		}
		writes = append(writes, recordWrite{bucketMovedIn, append([]byte{}, key...), value})
		return nil
	})
	if err != nil {
		return err
	}
	return c.writeAll(writes)
}
