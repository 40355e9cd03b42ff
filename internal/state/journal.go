package state

import (
	"encoding/binary"
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// Journal records the batches of one run. A batch is marked in flight before it is sent,
// and its result is committed after the gateway's response. While a batch is in flight, the
// gateway's value of its objects is unknown. It stays unknown if the process ends or no
// answer arrives. Lookup then returns the zero fingerprint, so that a later run sends the
// object again or detects its deletion.
//
// Records of objects are appended to bucketJournal, and merged into the index later: see
// unmerged.go. The number of a batch in flight is in bucketInFlight until its result is complete.
type Journal struct {
	store *Store
	run   uint64
	now   time.Time
	// advanced is set after the run has advanced the generation.
	advanced atomic.Bool
}

// OpenJournal starts the journal of a run, and records the run's view: everything that is
// delivered in the run is known to come from it, even if the run fails.
func (s *Store) OpenJournal(view View, now time.Time) (*Journal, error) {
	s.verified.Store(false)
	if err := s.merge(); err != nil { // of a run that failed
		return nil, err
	}
	j := &Journal{store: s, now: now.UTC()}
	var obsolete map[batchID]struct{}
	err := s.update("open journal", func(c change) (err error) {
		if j.run, err = c.Bucket(bucketInFlight).NextSequence(); err != nil {
			return err
		}
		if err := putView(c, j.run, view); err != nil {
			return err
		}
		obsolete, err = s.deleteObsoleteBatches(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range obsolete {
		delete(s.inFlight, id)
	}
	return j, nil
}

// deleteObsoleteBatches deletes the batches in flight whose objects have all been sent again.
func (s *Store) deleteObsoleteBatches(c change) (obsolete map[batchID]struct{}, err error) {
	s.mu.RLock()
	obsolete = maps.Clone(s.inFlight)
	s.mu.RUnlock()
	if len(obsolete) == 0 {
		return nil, nil
	}
	index, err := newIndexView(c.Tx)
	if err != nil {
		return nil, err
	}
	err = index.forEach(func(_, record []byte) error {
		if isRecord(record) {
			delete(obsolete, batchOf(record))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for id := range obsolete {
		if err := c.delete(bucketInFlight, id.key()); err != nil {
			return nil, err
		}
	}
	return obsolete, nil
}

// batchID identifies a batch among all runs: the run in the upper 32 bits, the number of
// the batch in the lower.
type batchID uint64

// noBatch is the number of no batch.
const noBatch = -1

func (id batchID) run() uint64 { return uint64(id >> 32) }

func (id batchID) key() []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// Batch contains the objects of one call. The gateway may require that they are sent in
// several calls.
type Batch struct {
	Number  int // from 0, in the order of the objects
	Objects []identity.Object
}

// Run returns the number of the run. It increases with each run.
func (j *Journal) Run() uint64 { return j.run }

func (j *Journal) batchID(number int) batchID {
	return batchID(j.run<<32 | uint64(uint32(number)))
}

// MarkInFlight records batches that are about to be sent. The first call of a run advances
// the generation twice.
func (j *Journal) MarkInFlight(batches []Batch) error {
	s := j.store
	if err := s.mergeIfLarge(); err != nil {
		return err
	}
	first := !j.advanced.Load()
	if first {
		if err := s.update("advance generation", s.advanceGeneration); err != nil {
			return err
		}
	}
	s.mu.Lock()
	for _, batch := range batches { // before the records become visible to readers
		s.inFlight[j.batchID(batch.Number)] = struct{}{}
	}
	s.mu.Unlock()
	err := s.update("mark batches in flight", func(c change) error {
		if first {
			if err := s.advanceGeneration(c); err != nil {
				return err
			}
		}
		return j.markInFlight(c, batches)
	})
	if err == nil {
		j.advanced.Store(true)
	}
	return err
}

func (j *Journal) markInFlight(c change, batches []Batch) error {
	for _, batch := range batches {
		id := j.batchID(batch.Number)
		if err := c.put(bucketInFlight, id.key(), nil); err != nil {
			return err
		}
		for _, object := range batch.Objects {
			if err := putObject(c, object, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// BatchResult is the result of a batch in flight. If it is not complete, the result of the
// other objects of the batch is unknown.
type BatchResult struct {
	Batch        int
	Complete     bool
	Acknowledged []identity.Object // including deletions
	Rejected     []RejectedObject
}

// RejectedObject is an object that the gateway rejected, with its reason, or one that is too large
// to be sent.
type RejectedObject struct {
	Object identity.Object
	Reason string
}

// Commit records the results of batches in one transaction.
func (j *Journal) Commit(results []BatchResult) error {
	s := j.store
	err := s.update("commit batch results", func(c change) error {
		for _, result := range results {
			if err := j.commit(c, result); err != nil {
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
	for _, result := range results {
		if result.Complete {
			delete(s.inFlight, j.batchID(result.Batch))
		}
	}
	return nil
}

func (j *Journal) commit(c change, result BatchResult) error {
	rejections := rejectionBuckets(c)
	for _, object := range result.Acknowledged {
		err := clearRejection(c, object.GUID, rejections)
		switch {
		case err != nil:
		case object.Deleted && object.FormerSID: // the object exists
			object.Deleted = false
			err = putObject(c, object, j.batchID(noBatch))
		case object.Deleted:
			if err = deleteObject(c, object.GUID); err == nil {
				err = putDeletion(c, object.GUID, j.run, j.now)
			}
		case !result.Complete: // the batch stays in flight, so the record must not refer to it
			err = putObject(c, object, j.batchID(noBatch))
		}
		if err != nil {
			return err
		}
	}
	for _, rejected := range result.Rejected {
		if err := j.reject(c, rejected); err != nil {
			return err
		}
	}
	if result.Complete {
		return c.delete(bucketInFlight, j.batchID(result.Batch).key())
	}
	return nil
}

// Drop removes objects from the index without a delivery, because their assets at the gateway
// belong to others. Like reported deletions, they are remembered, so that another domain
// controller that has such an object is read again.
func (j *Journal) Drop(guids []ad.GUID) error {
	return j.store.update("drop objects", func(c change) error {
		rejections := rejectionBuckets(c)
		for _, guid := range guids {
			if err := errors.Join(clearRejection(c, guid, rejections), deleteObject(c, guid), putDeletion(c, guid, j.run, j.now)); err != nil {
				return err
			}
		}
		return nil
	})
}

// rejectionBuckets returns the buckets from which clearRejection deletes. It omits empty ones: they
// usually are, and there are many objects.
func rejectionBuckets(c change) (filled [][]byte) {
	for _, name := range [][]byte{bucketRejections, bucketHeld, bucketUndecided} {
		if !isEmpty(c.Bucket(name)) {
			filled = append(filled, name)
		}
	}
	return filled
}

// clearRejection deletes the rejection and the held or undecided deletion of an acknowledged
// object.
func clearRejection(c change, guid ad.GUID, buckets [][]byte) error {
	for _, name := range buckets {
		if err := c.delete(name, guid[:]); err != nil {
			return err
		}
	}
	return nil
}

// InFlightObjects returns the objects of batches in flight.
func (s *Store) InFlightObjects() (guids []ad.GUID, err error) {
	s.mu.RLock()
	batches := len(s.inFlight)
	s.mu.RUnlock()
	if batches == 0 {
		return nil, nil
	}
	return s.indexedGUIDs(func(record []byte) bool { return s.isInFlight(batchOf(record)) })
}

func (s *Store) isInFlight(id batchID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, inFlight := s.inFlight[id]
	return inFlight
}

// NeverAcknowledged reports whether the index contains no value that was acknowledged,
// including values of runs before knownFrom.
func (s *Store) NeverAcknowledged() (never bool, err error) {
	err = s.viewIndex("read index", func(index indexView) error {
		acknowledged, err := index.any(func(record []byte) bool {
			return isRecord(record) && !s.isInFlight(batchOf(record)) && identity.Fingerprint(record[fingerprintOffset:]) != (identity.Fingerprint{})
		})
		never = !acknowledged
		return err
	})
	return never, err
}
