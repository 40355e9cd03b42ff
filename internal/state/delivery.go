package state

import (
	"encoding/binary"
	"maps"
	"math"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// Delivery writes down what one run sends. Every batch is announced before it is
// sent and settled after its answer. In between, and forever when the process
// dies or the answer never comes, nobody knows what the gateway holds of its
// objects: the index then says "any value", so that they are sent again whatever
// their value is by then, and known when they are deleted.
type Delivery struct {
	store *Store
	run   uint64
}

// Begin starts the deliveries of a run.
func (s *Store) Begin() (*Delivery, error) {
	d := &Delivery{store: s}
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

// Batch is a batch of this run with the objects that were put into it.
type Batch struct {
	Number  int
	Objects []Object
}

func (d *Delivery) number(batch int) batchNumber {
	return batchNumber(d.run<<32 | uint64(uint32(batch)))
}

// Announce records what is about to be sent.
func (d *Delivery) Announce(batches []Batch) error {
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
				if err := putObject(c, object, number); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Settlement is what became of the objects of a batch that was announced.
type Settlement struct {
	Batch     int
	Complete  bool      // the others of the batch are neither delivered nor rejected, and may be either
	Delivered []Object  // needed where the batch is not complete
	Deleted   []ad.GUID // delivered as deleted
	Rejected  []Rejection
}

// Rejection is an object that the gateway does not take.
type Rejection struct {
	Object   Object    `json:"-"`
	GUID     ad.GUID   `json:"-"`
	SID      string    `json:"sid"`
	Kind     byte      `json:"kind"`
	Value    []byte    `json:"value"` // fingerprint of what was rejected
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	At       time.Time `json:"at"`
}

// Settle records the answers to batches.
func (d *Delivery) Settle(settlements []Settlement) error {
	s := d.store
	err := s.update("record acknowledged objects", func(c change) error {
		for _, settlement := range settlements {
			if err := settlement.write(c, d.number(settlement.Batch)); err != nil {
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
	for _, settlement := range settlements {
		if settlement.Complete {
			delete(s.open, d.number(settlement.Batch))
		}
	}
	return nil
}

func (settlement Settlement) write(c change, number batchNumber) error {
	for _, object := range settlement.Delivered {
		if !settlement.Complete { // its record would stay that of an open batch
			if err := putObject(c, object, 0); err != nil {
				return err
			}
		}
		if err := forgive(c, object.GUID); err != nil {
			return err
		}
	}
	for _, guid := range settlement.Deleted {
		if err := forgive(c, guid); err != nil {
			return err
		}
		if err := dropDue(c, guid); err != nil {
			return err
		}
		if err := c.delete(bucketIndex, guid[:]); err != nil {
			return err
		}
	}
	for _, rejection := range settlement.Rejected {
		if err := rejection.write(c); err != nil {
			return err
		}
	}
	if settlement.Complete {
		return c.delete(bucketOpen, binary.BigEndian.AppendUint64(nil, uint64(number)))
	}
	return nil
}

// forgive forgets what stood against an object: it is delivered.
func forgive(c change, guid ad.GUID) error {
	if err := c.delete(bucketRejections, guid[:]); err != nil {
		return err
	}
	return c.delete(bucketHeld, guid[:])
}

// write notes the rejection. What the gateway took of the object before is not
// its value now, but it may be there: the object stays in the index, without a
// fingerprint.
func (r Rejection) write(c change) error {
	object := r.Object
	r.Value = append([]byte(nil), object.Fingerprint[:]...)
	object.Fingerprint = Fingerprint{}
	if err := putObject(c, object, 0); err != nil {
		return err
	}
	var before Rejection
	if err := get(c.Bucket(bucketRejections), object.GUID[:], &before); err != nil {
		return err
	}
	r.Attempts = before.Attempts + 1
	r.SID, r.Kind = object.SID.String(), object.Kind
	return c.putJSON(bucketRejections, object.GUID[:], r)
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
