package state

import (
	"sync"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// lookups is a read transaction that all lookups share while no write transaction runs. A
// transaction for each object would take more time than the lookup itself. During a write
// transaction, each lookup has its own one: bbolt cannot remap a growing file while a read
// transaction is open, and cannot use the pages again that were freed since it was opened. So a
// shared one would block a commit for which the caller of the lookups may be waiting.
type lookups struct {
	mu      sync.Mutex
	writing bool
	tx      *bbolt.Tx // nil: none
	lookup
}

// lookup finds records in one transaction.
type lookup struct {
	index   *bbolt.Cursor
	journal *bbolt.Bucket
}

func newLookup(tx *bbolt.Tx) lookup {
	return lookup{tx.Bucket(bucketIndex).Cursor(), tx.Bucket(bucketJournal)}
}

// record returns the record of an object; nil: none. sequence is the number of the chunk of the
// journal that contained it before the transaction began; 0: none. If it no longer does, a merge
// has moved the record to bucketIndex.
func (l lookup) record(guid ad.GUID, sequence uint32) []byte {
	if sequence != 0 {
		if record, found := findEntry(l.journal.Get(chunkKey(uint64(sequence))), guid); found {
			return record
		}
	}
	return seek(l.index, guid[:])
}

// viewRecord calls read with the record of an object; nil: none.
func (s *Store) viewRecord(op string, guid ad.GUID, read func(record []byte)) error {
	// This must precede the transaction: it then contains all entries that are found here, unless
	// they are merged.
	s.mu.RLock()
	sequence, noIndex := s.unmerged.find(guid), s.unmerged.noIndex
	s.mu.RUnlock()
	if sequence == 0 && noIndex {
		read(nil)
		return nil
	}
	l := &s.lookups
	l.mu.Lock()
	if l.writing || s.db == nil {
		l.mu.Unlock()
		return s.view(op, func(tx *bbolt.Tx) error {
			read(newLookup(tx).record(guid, sequence))
			return nil
		})
	}
	defer l.mu.Unlock()
	return s.operationError(op, s.access(func() (err error) {
		if l.tx == nil {
			if l.tx, err = s.db.Begin(false); err != nil {
				return err
			}
			l.lookup = newLookup(l.tx)
		}
		read(l.record(guid, sequence))
		return nil
	}))
}

// startWriting ends the shared transaction, and prevents another one until stopWriting.
func (l *lookups) startWriting() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing = true
	if l.tx == nil {
		return nil
	}
	tx := l.tx
	l.tx, l.lookup = nil, lookup{}
	return tx.Rollback()
}

func (l *lookups) stopWriting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing = false
}
