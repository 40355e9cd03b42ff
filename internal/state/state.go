// Package state keeps what must survive the process: which objects the gateway
// has acknowledged, the last runs, and the connector's state. It is the only
// importer of bbolt.
//
// It guarantees that a write is on disk when its method returns, whole or not at
// all; that two processes cannot share a file; and that a file it does not
// understand is refused rather than changed. It holds no secrets.
package state

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

const (
	fileName    = "adconnector.db"
	version     = 1
	keptRuns    = 200
	lockTimeout = 2 * time.Second // a process that ends may hold the lock a moment longer
)

var (
	bucketMeta  = []byte("meta")
	bucketIndex = []byte("index") // GUID → record
	bucketRuns  = []byte("runs")  // sequence number → Run

	keyVersion   = []byte("version")
	keyConnector = []byte("connector")
)

var (
	// ErrLocked means that another process has the file open.
	ErrLocked = errors.New("another instance holds the state directory")
	// ErrUnusable means that the directory or the file is not one that can be used,
	// and will not be by waiting.
	ErrUnusable = errors.New("unusable state directory")
)

// Store is the open state file. It serves many goroutines.
type Store struct {
	db   *bbolt.DB
	path string
}

// Open opens the state file in dir, and makes both where they are missing.
func Open(dir string) (*Store, error) {
	path := filepath.Join(dir, fileName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explainOpen(dir, err)
	}
	db, err := open(path)
	if err != nil {
		return nil, explainOpen(dir, err)
	}
	s := &Store{db: db, path: path}
	if err := s.prepare(); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

// open opens the database. A damaged one makes bbolt panic, or read beyond the
// end of the file it has mapped.
func open(path string) (db *bbolt.DB, err error) {
	before, err := os.Stat(path)
	isNew := err != nil || before.Size() == 0
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if damage := recover(); damage != nil {
			db, err = nil, fmt.Errorf("%w: %v", bolterrors.ErrInvalid, damage)
		}
		if isNew && isFull(err) {
			_ = os.Remove(path) // what was begun would pass for a damaged file
		}
	}()
	return bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// prepare makes the buckets of a new file and checks the version of an old one.
func (s *Store) prepare() error {
	return s.update("prepare", func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketIndex, bucketRuns} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		switch stored := meta.Get(keyVersion); {
		case stored == nil:
			return meta.Put(keyVersion, binary.BigEndian.AppendUint32(nil, version))
		case len(stored) != 4 || binary.BigEndian.Uint32(stored) != version:
			return fmt.Errorf("%w: %s is of format %x, this program knows %d: use the program that wrote it, or move the file away and let the next run send everything", ErrUnusable, s.path, stored, version)
		}
		return nil
	})
}

func (s *Store) update(what string, change func(*bbolt.Tx) error) error {
	err := s.db.Update(change)
	switch {
	case err == nil || errors.Is(err, ErrUnusable):
		return err
	case isFull(err):
		return fault.Errorf(fault.Transient, "state file %s: %s: %w: free or add space; nothing was lost, the next run repeats it", s.path, what, err)
	default:
		return fault.Errorf(fault.Transient, "state file %s: %s: %w", s.path, what, err)
	}
}

func explainOpen(dir string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%w %s: stop the other one, or give this one its own service.state-dir", ErrLocked, dir)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w: make it writable for user %d, or set service.state-dir", ErrUnusable, err, os.Getuid())
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w: set service.state-dir to a directory", ErrUnusable, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %s: %w: move the file away and let the next run send everything", ErrUnusable, filepath.Join(dir, fileName), err)
	case isFull(err):
		return fault.Errorf(fault.Transient, "open state file in %s: %w: free or add space", dir, err)
	default:
		return fault.Errorf(fault.Transient, "open state file in %s: %w", dir, err)
	}
}

// Connector is the connector's state, and how it came to be.
type Connector struct {
	State   string    `json:"state"`
	RunID   string    `json:"run_id,omitempty"`
	At      time.Time `json:"at"`
	NextRun time.Time `json:"next_run,omitzero"`
	Error   string    `json:"error,omitempty"`
}

// Connector returns the last recorded state; the zero value when there is none.
func (s *Store) Connector() (Connector, error) {
	var c Connector
	err := s.db.View(func(tx *bbolt.Tx) error {
		stored := tx.Bucket(bucketMeta).Get(keyConnector)
		if stored == nil {
			return nil
		}
		return json.Unmarshal(stored, &c)
	})
	if err != nil {
		return c, fmt.Errorf("state file %s: connector state: %w", s.path, err)
	}
	return c, nil
}

// SetConnector records the connector's state.
func (s *Store) SetConnector(c Connector) error {
	encoded, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode connector state: %w", err)
	}
	return s.update("record connector state", func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyConnector, encoded)
	})
}

// Run is the account of one run.
type Run struct {
	ID       string        `json:"run_id"`
	Mode     string        `json:"mode"`   // full
	Result   string        `json:"result"` // processed, partial, failed
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration_ns"`
	Error    string        `json:"error,omitempty"`

	Users    int `json:"users"`    // read and mapped
	Groups   int `json:"groups"`   // read and mapped
	Changed  int `json:"changed"`  // differ from what was acknowledged
	Uploaded int `json:"uploaded"` // acknowledged in this run
	Deleted  int `json:"deleted"`
	Held     int `json:"held"`
	Rejected int `json:"rejected"`
	Requests int `json:"requests"` // to the gateway
	Retries  int `json:"retries"`  // of those
}

// AddRun records a run and drops the oldest above 200.
func (s *Store) AddRun(run Run) error {
	encoded, err := json.Marshal(run)
	if err != nil {
		return fmt.Errorf("encode run: %w", err)
	}
	return s.update("record run", func(tx *bbolt.Tx) error {
		runs := tx.Bucket(bucketRuns)
		number, err := runs.NextSequence()
		if err != nil {
			return err
		}
		if number > keptRuns {
			if err := runs.Delete(binary.BigEndian.AppendUint64(nil, number-keptRuns)); err != nil {
				return err
			}
		}
		return runs.Put(binary.BigEndian.AppendUint64(nil, number), encoded)
	})
}

// Runs returns the recorded runs, the latest first.
func (s *Store) Runs() ([]Run, error) {
	var list []Run
	err := s.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketRuns).Cursor()
		for key, value := cursor.Last(); key != nil; key, value = cursor.Prev() {
			var run Run
			if err := json.Unmarshal(value, &run); err != nil {
				return err
			}
			list = append(list, run)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("state file %s: runs: %w", s.path, err)
	}
	return list, nil
}

// Fingerprint identifies the last value of an object that the gateway acknowledged.
type Fingerprint [16]byte

// Object is what the index keeps of an acknowledged object: enough to tell a
// change, and to say who it was when it is gone.
type Object struct {
	GUID        ad.GUID
	Kind        byte
	Fingerprint Fingerprint
	SID         ad.SID
	Name        string
}

// encode writes kind, fingerprint, length of the SID, SID, name.
func (o Object) encode() []byte {
	b := make([]byte, 0, 1+len(o.Fingerprint)+1+len(o.SID)+len(o.Name))
	b = append(b, o.Kind)
	b = append(b, o.Fingerprint[:]...)
	b = append(b, byte(len(o.SID)))
	b = append(b, o.SID...)
	return append(b, o.Name...)
}

// fingerprintOf reads the one part of a record that every pass needs.
func fingerprintOf(record []byte) (Fingerprint, bool) {
	if len(record) < 1+len(Fingerprint{}) {
		return Fingerprint{}, false
	}
	return Fingerprint(record[1:]), true
}

// Acknowledge records objects that the gateway has taken. Of those that it has
// rejected it forgets the fingerprint: what was taken of them before is not their
// value now, but it is still there.
func (s *Store) Acknowledge(delivered []Object, rejected []ad.GUID) error {
	return s.update("record acknowledged objects", func(tx *bbolt.Tx) error {
		index := tx.Bucket(bucketIndex)
		for _, object := range delivered {
			if err := index.Put(object.GUID[:], object.encode()); err != nil {
				return err
			}
		}
		for _, guid := range rejected {
			record := slices.Clone(index.Get(guid[:]))
			if _, ok := fingerprintOf(record); !ok {
				continue
			}
			clear(record[1 : 1+len(Fingerprint{})])
			if err := index.Put(guid[:], record); err != nil {
				return err
			}
		}
		return nil
	})
}

// Fingerprint returns the acknowledged fingerprint of an object, if there is one.
//
// Each call is a transaction of its own: one that was held over a wait for the
// directory or the gateway would keep a growing file from being mapped anew, and
// so hold up the acknowledgements that the wait may be for.
func (s *Store) Fingerprint(guid ad.GUID) (fingerprint Fingerprint, there bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		fingerprint, there = fingerprintOf(tx.Bucket(bucketIndex).Get(guid[:]))
		return nil
	})
	if err != nil {
		return Fingerprint{}, false, fmt.Errorf("state file %s: read index: %w", s.path, err)
	}
	return fingerprint, there, nil
}
