// Package state stores everything that must survive a restart: the index of acknowledged
// objects, the watermark of each domain controller, rejections, held deletions, the last
// runs, and the connector's state. It is the only importer of bbolt.
//
// It guarantees that a write is on disk, completely or not at all, when its method
// returns. Only one process can write a file. A damaged file is detected and set aside. A
// file of an unknown format is refused and not changed. The file contains no secrets.
// After a file is lost or set aside, the next run sends all objects again. Deletions that
// happened in the meantime are not detected.
//
// Damage is looked for when it can matter:
//   - Open reads the whole file: every page, and every record for the checksum of its bucket. So a
//     delta sync of its own process, and the first run of a daemon, use a file that was just read.
//   - [Store.Verify] does the same before each further full sync of a process, and before that of a
//     dry run, because a full sync concludes from what is missing.
//   - Between these, the structure of a page is checked only as far as bbolt notices damage while it
//     uses the page. A delta sync of a daemon relies on the last check.
//   - OpenReadOnly does not look for damage.
//
// A file that was put back from a copy is detected by a generation, which a second file
// contains: see type generation. What the gateway received after the copy was made is
// unknown:
//   - All fingerprints are unknown until the objects are sent again, and a full sync is due
//     until one is complete. No watermark is used before. Afterwards, those of other domain
//     controllers are valid again, because that full sync counts as a delivery under another
//     view.
//   - The index, the views, and the progress with each domain controller stay: what was
//     delivered and shown before the copy is still true, so a missing object can be deleted.
//   - Rejections and batches in flight stay. Their values were unknown before.
//   - Held and undecided deletions stay. None is sent without the proof that a run requires.
//   - Recheck times and memberships stay. The full sync replaces them.
//
// Objects that were first sent after the copy was made and that no longer exist stay at the
// gateway. A copy that replaces both files is not detected: see [Store.ForgetFingerprints].
package state

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/fault"
)

const (
	fileName = "adconnector.db"
	version  = 3 // of the file format
	// journalVersion is the format of a file whose journal is not empty. A program that does not know
	// the journal must refuse it: it would take the index without the journal for what was sent, and
	// batches in flight of which it finds no record for complete.
	journalVersion = 4
	maxRuns        = 200
)

var (
	bucketMeta        = []byte("meta")
	bucketRuns        = []byte("runs")        // sequence number → Run
	bucketIndex       = []byte("index")       // GUID → record of an identity.Object
	bucketInFlight    = []byte("open")        // batchID of a batch in flight
	bucketRecheck     = []byte("due")         // recheck time and GUID of an object
	bucketRejections  = []byte("rejections")  // GUID → Rejection
	bucketHeld        = []byte("held")        // GUID of a held deletion → time
	bucketViews       = []byte("views")       // first run → View
	bucketDeleted     = []byte("deleted")     // GUID of an object reported as deleted → run, time
	bucketControllers = []byte("controllers") // invocation ID → Controller
	bucketUnseen      = []byte("unseen")      // invocation ID → GUIDs of objects that the domain controller has not shown

	buckets = [][]byte{
		bucketMeta, bucketRuns, bucketIndex, bucketInFlight, bucketRecheck, bucketRejections, bucketHeld,
		bucketViews, bucketDeleted, bucketControllers, bucketUnseen,
	}

	// Files that earlier programs wrote may lack these buckets.
	optionalBuckets = [][]byte{bucketGraphObjects, bucketGraphGroups, bucketStale, bucketUndecided, bucketMovedIn, bucketJournal}

	// Keys of bucketMeta.
	keyVersion   = []byte("version")
	keyConnector = []byte("connector")
	keyFullSync  = []byte("full pass")
	keyTarget    = []byte("target")
	keyLimit     = []byte("gateway limit")
	keyWorkers   = []byte("gateway concurrency limit") // ConcurrencyLimit
	// keyLimitV1 is the key of version 1.0.0, which cannot start if the value is not a time.
	keyLimitV1      = []byte("rate limit")
	keyLastServer   = []byte("last server")   // Server
	keyFailedServer = []byte("failed server") // Server
	keySuccess      = []byte("last success")
	keyGeneration   = []byte("generation")
	keyKnownFrom    = []byte("known from run") // first run whose fingerprints are known
	keyResend       = []byte("resend")         // ResendCause
	keyLeadingClock = []byte("leading clock")  // time
	keyReadable     = []byte("readable")       // ReadableAttributes
	keyLogonSweep   = []byte("logon sweep")    // LogonSweep
	keyContainers   = []byte("containers")     // Containers
	keyUnreadable   = []byte("unreadable")     // Unreadable
	keyExpiries     = []byte("expiries")       // []Expiry

	currentVersion  = binary.BigEndian.AppendUint32(nil, version)
	unmergedVersion = binary.BigEndian.AppendUint32(nil, journalVersion)
)

// Store is the open state file. It is safe for concurrent use.
type Store struct {
	// DamagedFile is the damaged file that Open or Close set aside; nil: none.
	DamagedFile *DamagedFile
	// Restored is an error if the file was found to be restored from a copy when it was
	// opened. All objects must then be sent again: see [Store.PendingResend].
	Restored error
	// BadGeneration is an error if the generation file has an invalid content. It then counts
	// as missing.
	BadGeneration error

	options  Options
	db       *bbolt.DB // nil: read-only and no file exists
	path     string
	lockFile *os.File    // nil: read-only
	opened   fs.FileInfo // the file of db; nil: read-only
	writeMu  sync.Mutex
	mergeMu  sync.Mutex // held during all transactions of a merge
	lookups  lookups
	damage   atomic.Pointer[error] // found after opening
	// knownFrom is the first run whose fingerprints are known.
	knownFrom atomic.Uint64
	verified  atomic.Bool // no run has used the file since open has verified it

	mu       sync.RWMutex
	inFlight map[batchID]struct{} // the content of bucketInFlight
	// unmerged is changed while writeMu is held, too.
	unmerged unmerged
}

// Options configure how a state file is opened. Only tests use other values than the zero
// value.
type Options struct {
	// LockWait is the maximum time to wait for a lock. 0 means two seconds: a terminating
	// process may hold the lock for a moment.
	LockWait time.Duration
	// ReadLimit is the maximum time that OpenReadOnly verifies the file. 0 means one second: a process
	// that opens the file for writing waits longer.
	ReadLimit time.Duration
	// NoSync disables syncs to the disk. Committed data then survives the end of the
	// process, but not a power failure.
	NoSync bool

	// compactAbove is the minimum size in bytes of a file that is compacted. 0 means 32 MiB.
	compactAbove int64
	// generationWritten is called between the two writes of an advance; nil: no call.
	generationWritten func() error
	// mergeAbove is the maximum size of the journal in bytes. 0 means maxJournalBytes.
	mergeAbove int64
	// mergeRecords is the maximum number of records in a transaction of a merge. 0 means
	// maxMergeRecords.
	mergeRecords int
	// merging is called before each transaction of a merge; nil: no call.
	merging func() error
	// synced is called after the sync of a file or directory, except for those of bbolt; nil: no
	// call.
	synced func(path string)
}

const (
	defaultLockWait     = 2 * time.Second
	defaultReadLimit    = time.Second
	defaultCompactAbove = 32 << 20
)

func (o Options) lockWait() time.Duration { return cmp.Or(o.LockWait, defaultLockWait) }

func (o Options) bolt() *bbolt.Options {
	return &bbolt.Options{Timeout: o.lockWait(), NoSync: o.NoSync, NoGrowSync: o.NoSync, OpenFile: openFile}
}

// sync syncs a file or a directory unless NoSync is set.
func (o Options) sync(file *os.File) error {
	if o.NoSync {
		return nil
	}
	err := file.Sync()
	if hook := o.synced; hook != nil && err == nil {
		hook(file.Name())
	}
	return err
}

// syncDir syncs a directory unless NoSync is set. Otherwise, a new or renamed file may be
// missing after a power failure, even if its content was synced.
func (o Options) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(o.sync(d), d.Close())
}

// Open opens the state file in dir. It creates the directory and the file if they do not
// exist. A damaged file is set aside and replaced with a new one. The next run then sends
// all objects again, and objects that only the damaged file contained do not count as
// deleted.
func (o Options) Open(dir string) (*Store, error) {
	path := filepath.Join(dir, fileName)
	if err := MakeDir(dir); err != nil {
		return nil, dirError(path, err)
	}
	if err := checkFiles(path); err != nil {
		return nil, dirError(path, err)
	}
	lockFile, err := acquireLock(path, o.lockWait())
	if err != nil {
		return nil, err
	}
	s, err := o.openOrReplace(path)
	if err != nil {
		_ = lockFile.Close() // err is more relevant
		return nil, err
	}
	if s.opened, err = os.Lstat(path); err != nil {
		return nil, errors.Join(dirError(path, err), s.db.Close(), lockFile.Close())
	}
	s.lockFile = lockFile
	s.writeHolder()
	return s, nil
}

// openOrReplace opens the file. It replaces a damaged file with a new one.
func (o Options) openOrReplace(path string) (*Store, error) {
	s, err := o.open(path)
	if !errors.Is(err, ErrDamaged) {
		return s, err
	}
	damaged, err := setAside(path, err)
	if err != nil {
		return nil, err
	}
	if s, err = o.open(path); err != nil {
		return nil, err
	}
	s.DamagedFile = damaged
	return s, nil
}

// open opens and verifies the file.
func (o Options) open(path string) (*Store, error) {
	before, err := os.Lstat(path)
	isNew := err != nil || before.Size() == 0
	s := &Store{options: o, path: path, inFlight: map[batchID]struct{}{}}
	err = catchDamage(func() (err error) {
		s.db, err = bbolt.Open(path, 0o600, o.bolt())
		return err
	})
	if err != nil {
		if isNew && isNoSpace(err) {
			_ = os.Remove(path) // an incomplete file would count as damaged
		}
		return nil, openError(path, err)
	}
	if err = s.verify(time.Time{}); err == nil {
		err = s.initialize()
	}
	if err == nil {
		if err = s.merge(); isNoSpace(err) { // the journal stays
			err = nil
		}
	}
	if err == nil {
		err = s.compact()
	}
	if err == nil && isNew {
		err = s.operationError("sync directory", o.syncDir(filepath.Dir(path)))
	}
	if err == nil {
		err = s.checkGeneration()
	}
	if err != nil {
		_ = catchDamage(s.db.Close) // err is more relevant
		return nil, err
	}
	s.verified.Store(true)
	return s, nil
}

// OpenReadOnly opens the state file in dir for reading. It creates, repairs and changes
// nothing. If the file does not exist, the Store is empty. All writes fail. It verifies the file
// as far as [Options.ReadLimit] allows: see [Store.IsVerified].
func (o Options) OpenReadOnly(dir string) (*Store, error) {
	s := &Store{options: o, path: filepath.Join(dir, fileName), inFlight: map[batchID]struct{}{}}
	info, err := os.Lstat(s.path)
	if err == nil {
		err = checkFile(s.path, info)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0:
		return s, nil
	case err != nil:
		return nil, readError(s.path, err)
	}
	options := o.bolt()
	options.ReadOnly = true
	err = catchDamage(func() (err error) {
		s.db, err = bbolt.Open(s.path, 0, options)
		return err
	})
	if err != nil {
		return nil, readError(s.path, err)
	}
	// bbolt can read a damaged page in an endless loop, so the pages are verified first.
	err = s.verify(time.Now().Add(cmp.Or(o.ReadLimit, defaultReadLimit)))
	s.verified.Store(err == nil)
	if err == nil || errors.Is(err, errVerifyLimit) {
		if err = catchDamage(func() error { return s.db.View(s.load) }); errors.Is(err, ErrDamaged) {
			err = readError(s.path, err)
		}
	}
	if err == nil {
		err = s.compareReadOnly()
	}
	if err != nil {
		_ = catchDamage(s.db.Close) // err is more relevant
		return nil, err
	}
	return s, nil
}

// readError returns the error of opening a file for reading.
func readError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return accessError(path, err, "readable")
	}
	return openError(path, err)
}

// IsReadOnly reports whether the file was opened for reading only.
func (s *Store) IsReadOnly() bool { return s.db == nil || s.db.IsReadOnly() }

// Path returns the path of the state file, which may not exist.
func (s *Store) Path() string { return s.path }

// FileSize returns the size of the file in bytes, or 0 if it does not exist.
func (s *Store) FileSize() int64 {
	info, err := os.Lstat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close closes the file. If the file was found damaged, Close sets it aside instead: bbolt
// may still hold its internal locks, and closing it would block forever.
func (s *Store) Close() (err error) {
	if s.db == nil {
		return nil
	}
	if s.lockFile != nil {
		if s.CheckRemoved() == nil { // else it can be that of another process
			_ = os.Remove(holderPath(s.path)) // the file is informative only
		}
		defer s.lockFile.Close() // the lock must be released last
	}
	damage := s.damage.Load()
	switch {
	case damage == nil:
		return s.operationError("close", errors.Join(s.lookups.startWriting(), s.db.Close()))
	case s.lockFile != nil:
		s.DamagedFile, err = setAside(s.path, *damage)
	}
	return err
}

// initialize creates the buckets of a new file. It loads an existing file, and upgrades it
// if its format is older.
func (s *Store) initialize() error {
	return s.update("initialize", func(c change) error {
		for _, name := range optionalBuckets {
			if _, err := c.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if meta := c.Bucket(bucketMeta); meta != nil {
			if err := s.load(c.Tx); err != nil {
				return err
			}
			return upgrade(c)
		}
		for _, name := range append(buckets, bucketChecksums) {
			if _, err := c.CreateBucket(name); err != nil {
				return err
			}
		}
		s.unmerged = newUnmerged()
		return c.put(bucketMeta, keyVersion, currentVersion)
	})
}

// load checks the format version and reads the batches in flight.
func (s *Store) load(tx *bbolt.Tx) error {
	stored := tx.Bucket(bucketMeta).Get(keyVersion)
	if !isSupported(stored) {
		return fault.Operation{Op: "open", Object: "state file " + s.path}.Failed(fault.Invalid,
			fmt.Errorf("%w: file format %s, this version supports %d", ErrUnusable, versionText(stored), version),
			"use the version that wrote it, or move the file away so that the next run sends everything")
	}
	s.knownFrom.Store(loadKnownFrom(tx))
	if err := s.unmerged.load(tx); err != nil {
		return err
	}
	return tx.Bucket(bucketInFlight).ForEach(func(key, _ []byte) error {
		s.inFlight[batchID(binary.BigEndian.Uint64(key))] = struct{}{}
		return nil
	})
}

// view runs a read transaction.
func (s *Store) view(op string, read func(*bbolt.Tx) error) error {
	if s.db == nil {
		return nil // no file exists
	}
	return s.operationError(op, s.access(func() error { return s.db.View(read) }))
}

// update runs a write transaction.
func (s *Store) update(op string, write func(change) error) error {
	if s.IsReadOnly() {
		return s.operationError(op, errReadOnly)
	}
	// A panic in bbolt may leave its write lock held. With writeMu, later writers return the
	// damage instead of waiting for that lock.
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	defer s.lookups.stopWriting()
	index := &indexWriter{store: s}
	err := s.access(func() error {
		if err := s.lookups.startWriting(); err != nil {
			return err
		}
		return s.db.Update(func(tx *bbolt.Tx) error {
			c := change{tx, map[string]uint64{}, index}
			if err := write(c); err != nil {
				return err
			}
			if err := c.writeChunk(); err != nil {
				return err
			}
			return c.writeChecksums()
		})
	})
	if err == nil {
		index.apply()
	}
	return s.operationError(op, err)
}

// readMeta returns the value of a key of bucketMeta, or the zero value if the key does not
// exist.
func readMeta[T any](s *Store, op string, key []byte) (value T, err error) {
	err = s.view(op, func(tx *bbolt.Tx) error { return getJSON(tx.Bucket(bucketMeta), key, &value) })
	return value, err
}

// get returns the value of a key, or nil if it does not exist. A file of an older format that is
// open for reading lacks buckets.
func get(tx *bbolt.Tx, bucket, key []byte) []byte {
	if b := tx.Bucket(bucket); b != nil {
		return b.Get(key)
	}
	return nil
}

// forEach calls f for each record of a bucket, which may not exist.
func forEach(tx *bbolt.Tx, bucket []byte, f func(key, value []byte) error) error {
	if b := tx.Bucket(bucket); b != nil {
		return b.ForEach(f)
	}
	return nil
}

// isEmpty reports whether a bucket has no records.
func isEmpty(bucket *bbolt.Bucket) bool {
	first, _ := bucket.Cursor().First()
	return first == nil
}

// getJSON decodes the value of a key. It does nothing if the key does not exist.
func getJSON(bucket *bbolt.Bucket, key []byte, target any) error {
	if stored := bucket.Get(key); stored != nil {
		return decodeJSON(stored, target)
	}
	return nil
}

// decodeJSON decodes a value that putJSON wrote.
func decodeJSON(stored []byte, target any) error {
	if err := json.Unmarshal(stored, target); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func (c change) putJSON(bucket, key []byte, value any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.put(bucket, key, encoded)
}
