// Package state keeps what must survive the process: which objects the gateway
// has acknowledged, how far the changes of each domain controller were followed,
// what was rejected and which deletions are held, the last runs, and the
// connector's state. It is the only importer of bbolt.
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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"adconnector/internal/fault"
)

const (
	fileName    = "adconnector.db"
	version     = 2
	keptRuns    = 200
	lockTimeout = 2 * time.Second // a process that ends may hold the lock a moment longer
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
	// SetAside tells of a damaged file that Open or Close has moved out of the way;
	// "": none was.
	SetAside string

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
func Open(dir string) (*Store, error) {
	path := filepath.Join(dir, fileName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explainDir(err)
	}
	lock, err := hold(path)
	if err != nil {
		return nil, err
	}
	s, err := openSound(path)
	if err != nil {
		_ = lock.Close() // the error at hand says more
		return nil, err
	}
	s.lock = lock
	s.sign()
	return s, nil
}

// openSound opens the file, or a new one in place of one that is damaged.
func openSound(path string) (*Store, error) {
	s, err := open(path)
	if !errors.Is(err, ErrDamaged) {
		return s, err
	}
	aside, err := setAside(path, err)
	if err != nil {
		return nil, err
	}
	if s, err = open(path); err != nil {
		return nil, err
	}
	s.SetAside = aside
	return s, nil
}

// setAside moves a damaged file out of the way, and tells of it.
func setAside(path string, damage error) (told string, err error) {
	aside := path + time.Now().UTC().Format(".damaged-20060102T150405Z")
	if err := os.Rename(path, aside); err != nil {
		return "", explainDir(err)
	}
	return fmt.Sprintf("%s: %v", aside, damage), nil
}

// open opens one file and checks it through.
func open(path string) (*Store, error) {
	before, err := os.Stat(path)
	isNew := err != nil || before.Size() == 0
	s := &Store{path: path, open: map[batchNumber]struct{}{}}
	err = guard(func() (err error) {
		s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
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
		err = s.explain("record its name", syncDir(filepath.Dir(path)))
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

const (
	compactAbove = 32 << 20 // bytes; a smaller file is not worth it
	compactTo    = ".compact"
)

// compact writes a file that is mostly free anew: it would not shrink by itself.
// Where there is no room for that, the large one stays.
func (s *Store) compact() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	free := int64(s.db.Stats().FreePageN) * int64(s.db.Info().PageSize)
	if info.Size() < compactAbove || free < info.Size()/2 {
		return nil
	}
	small := s.path + compactTo
	_ = os.Remove(small) // of an attempt that was cut off
	err = guard(func() error { return compactInto(small, s.db) })
	if err != nil {
		_ = os.Remove(small)
		if isFull(err) {
			return nil
		}
		return s.explain("compact", err)
	}
	if err := s.db.Close(); err != nil {
		return s.explain("compact", err)
	}
	if err := errors.Join(os.Rename(small, s.path), syncDir(filepath.Dir(s.path))); err != nil {
		return explainDir(err)
	}
	s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return explainOpen(s.path, err)
	}
	return nil
}

func compactInto(path string, from *bbolt.DB) error {
	to, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	const bytesAtOnce = 1 << 20
	return errors.Join(bbolt.Compact(to, from, bytesAtOnce), to.Close())
}

// isFull reports whether there is no room: on the disk, in a quota, or under a limit
// on the size of files. Of some errors bbolt keeps no more than the text.
func isFull(err error) bool {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) || err != nil && strings.HasSuffix(err.Error(), full.Error()) {
			return true
		}
	}
	return false
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
		return s.db.Close()
	case s.lock != nil:
		s.SetAside, err = setAside(s.path, *damage)
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
		return fmt.Errorf("%w: %s is of format %s, this program knows %d: use the program that wrote it, or move the file away and let the next run send everything", ErrUnusable, s.path, formatName(stored), version)
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
		return fmt.Errorf("state file %s: %s: it was opened to look at it only", s.path, what)
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

func (s *Store) explain(what string, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrUnusable):
		return err
	case isFull(err):
		return fault.Errorf(fault.Transient, "state file %s: %s: %w: free or add space; nothing was lost, the next run repeats it", s.path, what, err)
	case errors.Is(err, ErrDamaged):
		return fault.Errorf(fault.Transient, "state file %s: %s: %w: the file is set aside, and the next run sends everything anew", s.path, what, err)
	default:
		return fault.Errorf(fault.Transient, "state file %s: %s: %w", s.path, what, err)
	}
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		holder, err := os.ReadFile(holderOf(path))
		if err != nil { // who only looks leaves no name
			holder = []byte("another process, perhaps a sync --dry-run or a status that reads it and is soon done")
		}
		return fmt.Errorf("%w %s (%s): stop the other one, or give this one its own service.state-dir", ErrLocked, filepath.Dir(path), holder)
	case errors.Is(err, ErrDamaged):
		return err
	case !isOfPlace(err): // bbolt's own words on what is in the file
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		return explainDir(err)
	}
}

// isOfPlace reports whether the operating system says it: the file is not at fault.
func isOfPlace(err error) bool {
	var path *fs.PathError
	var call *os.SyscallError
	var number syscall.Errno
	return errors.As(err, &path) || errors.As(err, &call) || errors.As(err, &number)
}

// explainDir tells what is wrong with the place of the file.
func explainDir(err error) error { return explainPlace(err, "writable") }

// explainPlace is explainDir for who needs it to be writable, or readable.
func explainPlace(err error, needed string) error {
	switch {
	case isFull(err):
		return fault.Errorf(fault.Transient, "open state file: %w: free or add space", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w: make it %s for user %d, or set service.state-dir", ErrUnusable, err, needed, os.Getuid())
	default:
		return fmt.Errorf("%w: %w: set service.state-dir to a directory that can be made and written", ErrUnusable, err)
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
	err := s.view("read connector state", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketMeta), keyConnector, &c)
	})
	return c, err
}

// SetConnector records the connector's state.
func (s *Store) SetConnector(now Connector) error {
	return s.update("record connector state", func(c change) error {
		return c.putJSON(bucketMeta, keyConnector, now)
	})
}

// get reads a JSON value, if there is one.
func get(bucket *bbolt.Bucket, key []byte, into any) error {
	if stored := bucket.Get(key); stored != nil {
		return json.Unmarshal(stored, into)
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

// RateLimit returns until when the gateway wants to be left alone; zero when it has
// not said so.
func (s *Store) RateLimit() (until time.Time, err error) {
	err = s.view("read rate limit", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketMeta), keyLimit, &until)
	})
	return until, err
}

// SetRateLimit records until when the gateway wants to be left alone, so that a
// restart does not ask it sooner.
func (s *Store) SetRateLimit(until time.Time) error {
	return s.update("record rate limit", func(c change) error {
		return c.putJSON(bucketMeta, keyLimit, until)
	})
}

// Target returns whose deliveries the file records; "" while it records none.
func (s *Store) Target() (target string, err error) {
	err = s.view("read target", func(tx *bbolt.Tx) error {
		target = string(tx.Bucket(bucketMeta).Get(keyTarget))
		return nil
	})
	return target, err
}

// Retarget makes the file one of deliveries to target, and forgets what was
// delivered to another: that is not there.
func (s *Store) Retarget(target string) error {
	err := s.update("change target", func(c change) error {
		for _, name := range append(graphBuckets, bucketIndex, bucketOpen, bucketDue, bucketRejections, bucketHeld, bucketWatermarks) {
			if err := c.empty(name); err != nil {
				return err
			}
		}
		for _, key := range [][]byte{keyFullPass, keyGraph} {
			if err := c.delete(bucketMeta, key); err != nil {
				return err
			}
		}
		return c.put(bucketMeta, keyTarget, []byte(target))
	})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.open)
	}
	return err
}

// Run is the account of one run.
type Run struct {
	ID       string        `json:"run_id"`
	Mode     string        `json:"mode"`   // full, delta
	Result   string        `json:"result"` // processed, partial, held, failed
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration_ns"`
	Error    string        `json:"error,omitempty"`
	Class    string        `json:"class,omitempty"` // of the error

	Users    int `json:"users"`    // read and mapped
	Groups   int `json:"groups"`   // read and mapped
	Changed  int `json:"changed"`  // differ from what was acknowledged
	Uploaded int `json:"uploaded"` // acknowledged in this run
	Deleted  int `json:"deleted"`  // of those, as deleted
	Held     int `json:"held"`     // deletions that the guard holds
	Rejected int `json:"rejected"`
	Skipped  int `json:"skipped"`  // entries that are no objects to us: no SID or no GUID
	Requests int `json:"requests"` // to the gateway
	Retries  int `json:"retries"`  // of those
}

// AddRun records a run and drops the oldest above 200.
func (s *Store) AddRun(run Run) error {
	return s.update("record run", func(c change) error {
		number, err := c.Bucket(bucketRuns).NextSequence()
		if err != nil {
			return err
		}
		if number > keptRuns {
			if err := c.delete(bucketRuns, binary.BigEndian.AppendUint64(nil, number-keptRuns)); err != nil {
				return err
			}
		}
		if run.Error == "" {
			if err := c.putJSON(bucketMeta, keySuccess, run.Start); err != nil {
				return err
			}
		}
		return c.putJSON(bucketRuns, binary.BigEndian.AppendUint64(nil, number), run)
	})
}

// LastSuccess returns the start of the last run that did not fail; zero when there
// was none.
func (s *Store) LastSuccess() (at time.Time, err error) {
	err = s.view("read last success", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketMeta), keySuccess, &at)
	})
	return at, err
}

// Runs returns the recorded runs, the latest first.
func (s *Store) Runs() ([]Run, error) {
	var list []Run
	err := s.view("read runs", func(tx *bbolt.Tx) error {
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
	return list, err
}
