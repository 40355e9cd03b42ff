package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/fault"
)

// DamagedFile is a damaged state file that was set aside.
type DamagedFile struct {
	Path   string // new path of the file
	Damage error
}

// Err returns the damage, with a remedy.
func (d *DamagedFile) Err() error {
	return fault.Operation{}.Failed(fault.Transient, d.Damage, "remove "+d.Path+" when it is no longer needed")
}

// setAside renames a damaged file.
func setAside(path string, damage error) (*DamagedFile, error) {
	newPath := unusedPath(path + time.Now().UTC().Format(".damaged-20060102T150405Z"))
	if err := os.Rename(path, newPath); err != nil {
		return nil, dirError(path, err)
	}
	return &DamagedFile{newPath, damage}, nil
}

// Verify reads the whole file and returns an error if it is damaged. It returns nil without reading
// if no run has used the file since it was opened for writing, because Open has read it.
//
// A full sync calls it: a process can have had the file open for months, and a damaged record would
// look like an object that is missing in the directory. It excludes writers.
func (s *Store) Verify() error {
	if s.verified.Load() {
		return nil
	}
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.verify(time.Time{})
}

// IsVerified reports whether the whole file was read without damage when it was opened, and no run has
// used it since.
func (s *Store) IsVerified() bool { return s.verified.Load() }

// errVerifyLimit is the cause of an error of verify after its deadline.
var errVerifyLimit = errors.New("too large to be read in time")

// limitedReader returns errVerifyLimit after a deadline; the zero time: none.
type limitedReader struct {
	io.ReaderAt
	deadline time.Time
}

// ReadAt reads from the file.
func (r limitedReader) ReadAt(page []byte, offset int64) (int, error) {
	if !r.deadline.IsZero() && time.Now().After(r.deadline) {
		return 0, errVerifyLimit
	}
	return r.ReaderAt.ReadAt(page, offset)
}

// verify reads the whole file and returns an error if it is damaged. After the deadline, which can be
// the zero time, it returns errVerifyLimit.
func (s *Store) verify(deadline time.Time) error {
	return s.view("verify", func(tx *bbolt.Tx) error {
		file, err := openFile(s.path, os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		walk, err := verifyPages(limitedReader{file, deadline}, s.db.Info().PageSize, info.Size())
		if err != nil {
			return err
		}
		return compareChecksums(tx, walk)
	})
}

// errUnreadable replaces the text of the Go runtime for an access beyond a page or the file.
var errUnreadable = damage("invalid page content")

// catchDamage returns an error if call panics or reads beyond the end of the mapped file.
// bbolt does both with a damaged file.
func catchDamage(call func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch panicked := recover().(type) {
		case nil:
		case runtime.Error:
			err = errUnreadable
		default: // bbolt describes what it has found
			err = fmt.Errorf("%w: %v", ErrDamaged, panicked)
		}
	}()
	return call()
}

// access calls a function that uses the file. Once the file is found damaged, access
// returns that error without calling it.
func (s *Store) access(call func() error) error {
	if damage := s.damage.Load(); damage != nil {
		return *damage
	}
	err := catchDamage(call)
	if errors.Is(err, ErrDamaged) {
		s.damage.CompareAndSwap(nil, &err)
	}
	return err
}
