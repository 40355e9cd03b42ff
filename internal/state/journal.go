package state

import (
	"encoding/binary"
	"maps"
	"math"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// Journal writes down what one run sends. Every batch is announced before it is
// sent and settled after its answer. In between, and forever when the process
// dies or the answer never comes, nobody knows what the gateway holds of its
// objects: the index then says "any value", so that they are sent again whatever
// their value is by then, and known when they are deleted.
type Journal struct {
	store    *Store
	run      uint64
	readFrom controller
	at       time.Time
}

// OpenJournal starts the deliveries of a run, that reads from a domain controller since now.
func (s *Store) OpenJournal(readFrom ad.InvocationID, now time.Time) (*Journal, error) {
	d := &Journal{store: s, readFrom: controllerOf(readFrom), at: now.UTC()}
	var past []batchNumber
	err := s.update("begin run", func(c change) (err error) {
		if d.run, err = c.Bucket(bucketOpen).NextSequence(); err != nil {
			return err
		}
		past, err = s.dropPast(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, number := range past {
		delete(s.open, number)
	}
	return d, nil
}

// dropPast forgets the open batches all of whose objects were sent again since.
func (s *Store) dropPast(c change) (past []batchNumber, err error) {
	s.mu.RLock()
	unused := maps.Clone(s.open)
	s.mu.RUnlock()
	if len(unused) == 0 {
		return nil, nil
	}
	err = c.Bucket(bucketIndex).ForEach(func(_, record []byte) error {
		if len(record) > sidAt {
			delete(unused, batchOf(record))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for number := range unused {
		if err := c.delete(bucketOpen, binary.BigEndian.AppendUint64(nil, uint64(number))); err != nil {
			return nil, err
		}
		past = append(past, number)
	}
	return past, nil
}

// Batch is what is sent in one call, unless the gateway wants it in parts.
type Batch struct {
	Number  int // from 0, in the order of their objects
	Objects []identity.Object
}

func (d *Journal) number(batch int) batchNumber {
	return batchNumber(d.run<<32 | uint64(uint32(batch)))
}

// MarkInFlight records what is about to be sent.
func (d *Journal) MarkInFlight(batches []Batch) error {
	s := d.store
	s.mu.Lock()
	for _, batch := range batches { // before anybody can read its records
		s.open[d.number(batch.Number)] = struct{}{}
	}
	s.mu.Unlock()
	return s.update("announce batches", func(c change) error {
		for _, batch := range batches {
			number := d.number(batch.Number)
			if err := c.put(bucketOpen, binary.BigEndian.AppendUint64(nil, uint64(number)), nil); err != nil {
				return err
			}
			for _, object := range batch.Objects {
				if err := putObject(c, object, number, d.readFrom); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// BatchResult is what became of the objects of a batch that was announced. Of those that
// it does not name nobody knows: the batch is not complete.
type BatchResult struct {
	Batch        int
	Complete     bool
	Acknowledged []identity.Object // some of them as deleted
	Rejected     []RejectedObject
}

// Rejected is an object that the gateway does not take, and its words.
type RejectedObject struct {
	Object identity.Object
	Reason string
}

// Commit records the answers to batches.
func (d *Journal) Commit(receipts []BatchResult) error {
	s := d.store
	err := s.update("record acknowledged objects", func(c change) error {
		for _, receipt := range receipts {
			if err := d.write(c, receipt); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, receipt := range receipts {
		if receipt.Complete {
			delete(s.open, d.number(receipt.Batch))
		}
	}
	return nil
}

func (d *Journal) write(c change, receipt BatchResult) error {
	for _, object := range receipt.Acknowledged {
		err := forgive(c, object.GUID)
		switch {
		case err != nil:
		case object.Deleted:
			err = drop(c, object.GUID)
		case !receipt.Complete: // its record would stay that of an open batch
			err = putObject(c, object, 0, d.readFrom)
		}
		if err != nil {
			return err
		}
	}
	for _, rejected := range receipt.Rejected {
		if err := d.reject(c, rejected); err != nil {
			return err
		}
	}
	if receipt.Complete {
		return c.delete(bucketOpen, binary.BigEndian.AppendUint64(nil, uint64(d.number(receipt.Batch))))
	}
	return nil
}

// drop takes an object out of the index.
func drop(c change, guid ad.GUID) error {
	if err := dropDue(c, guid); err != nil {
		return err
	}
	return c.delete(bucketIndex, guid[:])
}

// forgive forgets what stood against an object: it is delivered.
func forgive(c change, guid ad.GUID) error {
	if err := c.delete(bucketRejections, guid[:]); err != nil {
		return err
	}
	return c.delete(bucketHeld, guid[:])
}

// Rejection is an object that the gateway did not take, and how often.
type Rejection struct {
	GUID     ad.GUID       `json:"-"`
	SID      string        `json:"sid"`
	Kind     identity.Kind `json:"kind"`
	Value    []byte        `json:"value"` // fingerprint of what was rejected
	Reason   string        `json:"reason"`
	Attempts int           `json:"attempts"`
	At       time.Time     `json:"at"`
}

// reject notes a rejection. What the gateway took of the object before is not its
// value now, but it may be there: the object stays in the index, without a fingerprint.
func (d *Journal) reject(c change, r RejectedObject) error {
	object := r.Object
	object.Fingerprint = identity.Fingerprint{}
	if err := putObject(c, object, 0, d.readFrom); err != nil {
		return err
	}
	var before Rejection
	if err := get(c.Bucket(bucketRejections), object.GUID[:], &before); err != nil {
		return err
	}
	return c.putJSON(bucketRejections, object.GUID[:], Rejection{
		SID: object.SID.String(), Kind: object.Kind, Value: r.Object.Fingerprint[:],
		Reason: r.Reason, Attempts: before.Attempts + 1, At: d.at,
	})
}

// Rejections returns the objects that the gateway does not take.
func (s *Store) Rejections() ([]Rejection, error) {
	list, _, err := s.FirstRejections(math.MaxInt)
	return list, err
}

// FirstRejections returns at most so many of the objects that the gateway does not
// take, and how many there are.
func (s *Store) FirstRejections(most int) (first []Rejection, total int, err error) {
	err = s.view("read rejections", func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketRejections)
		return bucket.ForEach(func(key, _ []byte) error {
			if total++; total > most {
				return nil
			}
			r := Rejection{GUID: ad.GUID(key)}
			err := get(bucket, key, &r)
			first = append(first, r)
			return err
		})
	})
	return first, total, err
}
