// Package state keeps what must survive the process: which objects the gateway
// has acknowledged, how far the changes of each domain controller were followed,
// what was rejected and which deletions are held, the last runs, and the
// connector's state. It is the only importer of bbolt.
//
// It guarantees that a write is on disk when its method returns, whole or not at
// all; that two processes cannot share a file; that a damaged file is noticed and
// set aside; and that a file it does not understand is refused rather than changed.
// It holds no secrets. It does not make up for a file that is lost or set aside:
// everything is then sent anew, and what has gone since is not known to have been.
package state

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/fault"
)

const (
	fileName = "adconnector.db"
	version  = 2
	keptRuns = 200
)

var (
	bucketMeta       = []byte("meta")
	bucketRuns       = []byte("runs")       // sequence number → Run
	bucketIndex      = []byte("index")      // GUID → identity.Object
	bucketOpen       = []byte("open")       // number of a batch that was announced and is not confirmed
	bucketDue        = []byte("due")        // time and GUID of an object that is to be read again then
	bucketRejections = []byte("rejections") // GUID → Rejection
	bucketHeld       = []byte("held")       // GUID of an object whose deletion is held → since when
	bucketWatermarks = []byte("watermarks") // invocation ID → Watermark

	buckets = [][]byte{bucketMeta, bucketRuns, bucketIndex, bucketOpen, bucketDue, bucketRejections, bucketHeld, bucketWatermarks}

	keyVersion   = []byte("version")
	keyConnector = []byte("connector")
	keyFullPass  = []byte("full pass")
	keyTarget    = []byte("target")
	keyLimit     = []byte("rate limit")
	keyLastRead  = []byte("last read") // invocation ID of the domain controller
	keySuccess   = []byte("last success")
)

var (
	// ErrLocked means that another process has the file open.
	ErrLocked = errors.New("another instance holds the state directory")
	// ErrUnusable means that the directory or the file is not one that can be used,
	// and will not be by waiting.
	ErrUnusable = errors.New("unusable state directory")
	// ErrDamaged means that the file holds what nobody has written. Open sets it aside.
	ErrDamaged = errors.New("damaged state file")

	currentVersion = binary.BigEndian.AppendUint32(nil, version)
)

// Store is the open state file. It serves many goroutines.
type Store struct {
	// DamagedFile is about a damaged file that Open or Close has moved out of the way; nil: none.
	DamagedFile *DamagedFile

	options Options
	db      *bbolt.DB // nil: read-only, and there is no file
	path    string
	lock    *os.File // nil: read-only
	writing sync.Mutex
	damaged atomic.Pointer[error] // what was found under way

	mu   sync.RWMutex
	open map[batchNumber]struct{} // what bucketOpen holds
}

// Open opens the state file in dir, and makes both where they are missing. A
// damaged file is set aside: everything is then sent anew, and nothing counts as
// deleted that only the damaged file knew.
func Open(dir string) (*Store, error) { return Options{}.Open(dir) }

// Open is [Open] with these options.
func (o Options) Open(dir string) (*Store, error) {
	path := filepath.Join(dir, fileName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explainDir(path, err)
	}
	lock, err := hold(path, o.lockWait())
	if err != nil {
		return nil, err
	}
	s, err := o.openSound(path)
	if err != nil {
		_ = lock.Close() // the error at hand says more
		return nil, err
	}
	s.lock = lock
	s.sign()
	return s, nil
}

// openSound opens the file, or a new one in place of one that is damaged.
func (o Options) openSound(path string) (*Store, error) {
	s, err := o.open(path)
	if !errors.Is(err, ErrDamaged) {
		return s, err
	}
	aside, err := setAside(path, err)
	if err != nil {
		return nil, err
	}
	if s, err = o.open(path); err != nil {
		return nil, err
	}
	s.DamagedFile = aside
	return s, nil
}

// DamagedFile is a damaged file that was moved out of the way.
type DamagedFile struct {
	Path   string // where it is now
	Damage error
}

// Err returns what happened, with what may be done about the file.
func (s *DamagedFile) Err() error {
	return fault.Operation{}.Failed(fault.Transient, s.Damage, "remove "+s.Path+" when it is no longer needed")
}

// setAside moves a damaged file out of the way.
func setAside(path string, damage error) (*DamagedFile, error) {
	aside := path + time.Now().UTC().Format(".damaged-20060102T150405Z")
	if err := os.Rename(path, aside); err != nil {
		return nil, explainDir(path, err)
	}
	return &DamagedFile{aside, damage}, nil
}

// open opens one file and checks it through.
func (o Options) open(path string) (*Store, error) {
	before, err := os.Stat(path)
	isNew := err != nil || before.Size() == 0
	s := &Store{options: o, path: path, open: map[batchNumber]struct{}{}}
	err = guard(func() (err error) {
		s.db, err = bbolt.Open(path, 0o600, o.bolt())
		return err
	})
	if err != nil {
		if isNew && isFull(err) {
			_ = os.Remove(path) // what was begun would pass for a damaged file
		}
		return nil, explainOpen(path, err)
	}
	if err = s.check(); err == nil {
		err = s.compact()
	}
	if err == nil {
		err = s.prepare()
	}
	if err == nil && isNew {
		err = s.explain("record its name", o.syncDir(filepath.Dir(path)))
	}
	if err != nil {
		_ = guard(s.db.Close) // the error at hand says more
		return nil, err
	}
	return s, nil
}

// guard turns what bbolt does with a damaged file, which is to panic or to read
// beyond the end of the mapped file, into an error.
func guard(work func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if damage := recover(); damage != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, damage)
		}
	}()
	return work()
}

// check reads the whole file, and holds what it finds against what was written.
func (s *Store) check() error {
	return s.view("check", func(tx *bbolt.Tx) error {
		file, err := os.Open(s.path)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		sums, err := verify(file, s.db.Info().PageSize, info.Size())
		if err != nil {
			return err
		}
		return checkSums(tx, sums)
	})
}

// syncDir brings the names in a directory to the disk: without it, a file that was
// made or moved there may be gone after a power cut, whatever was synced into it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close closes the file, or sets it aside when it was found to be damaged: then
// bbolt may have been left with its locks held, and would never close it.
func (s *Store) Close() (err error) {
	if s.db == nil {
		return nil
	}
	if s.lock != nil {
		_ = os.Remove(holderOf(s.path)) // it only explains the lock
		defer s.lock.Close()            // the last thing, when all is done
	}
	damage := s.damaged.Load()
	switch {
	case damage == nil:
		return s.explain("close", s.db.Close())
	case s.lock != nil:
		s.DamagedFile, err = setAside(s.path, *damage)
	}
	return err
}

// holderOf is the file that says who holds the lock.
func holderOf(path string) string { return path + ".holder" }

// sign writes down who holds the lock, for the message to those who want it too.
func (s *Store) sign() {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	text := fmt.Sprintf("process %d on %s since %s", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	_ = os.WriteFile(holderOf(s.path), []byte(text), 0o600) // without it the message only says less
}

// prepare makes the buckets of a new file and takes an old one over.
func (s *Store) prepare() error {
	return s.update("prepare", func(c change) error {
		for _, name := range graphBuckets {
			if _, err := c.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if meta := c.Bucket(bucketMeta); meta != nil {
			if err := s.takeOver(c.Tx); err != nil {
				return err
			}
			return upgrade(c)
		}
		for _, name := range append(buckets, bucketSums) {
			if _, err := c.CreateBucket(name); err != nil {
				return err
			}
		}
		return c.put(bucketMeta, keyVersion, currentVersion)
	})
}

// takeOver checks the version and reads what is kept in memory too.
func (s *Store) takeOver(tx *bbolt.Tx) error {
	stored := tx.Bucket(bucketMeta).Get(keyVersion)
	if !readable(stored) {
		return fault.Operation{Op: "open", Object: "state file " + s.path}.Failed(fault.Invalid,
			fmt.Errorf("%w: the file has format %s, this version knows format %d", ErrUnusable, formatName(stored), version),
			"use the version that wrote it, or move the file away so that the next run sends everything")
	}
	return tx.Bucket(bucketOpen).ForEach(func(key, _ []byte) error {
		s.open[batchNumber(binary.BigEndian.Uint64(key))] = struct{}{}
		return nil
	})
}

func (s *Store) view(what string, look func(*bbolt.Tx) error) error {
	if s.db == nil {
		return nil // there is no file yet
	}
	return s.explain(what, s.sound(func() error { return s.db.View(look) }))
}

func (s *Store) update(what string, apply func(change) error) error {
	if s.IsReadOnly() {
		return s.explain(what, errReadOnly)
	}
	// Ours before bbolt's lock, which damage may leave held forever.
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.explain(what, s.sound(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			c := change{tx, map[string]uint64{}}
			if err := apply(c); err != nil {
				return err
			}
			return c.settle()
		})
	}))
}

// sound works with the file until it is found to be damaged.
func (s *Store) sound(work func() error) error {
	if damage := s.damaged.Load(); damage != nil {
		return *damage
	}
	err := guard(work)
	if errors.Is(err, ErrDamaged) {
		s.damaged.CompareAndSwap(nil, &err)
	}
	return err
}

// get reads a JSON value, if there is one.
func get(bucket *bbolt.Bucket, key []byte, into any) error {
	if stored := bucket.Get(key); stored != nil {
		return decodeJSON(stored, into)
	}
	return nil
}

// decodeJSON reads what putJSON has written.
func decodeJSON(stored []byte, into any) error {
	if err := json.Unmarshal(stored, into); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// putJSON writes a value that get reads.
func (c change) putJSON(bucket, key []byte, value any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.put(bucket, key, encoded)
}
