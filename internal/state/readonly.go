package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// OpenReadOnly opens the state file in dir for reading. It creates, repairs and changes
// nothing. If the file does not exist, the Store is empty. All writes fail.
func OpenReadOnly(dir string) (*Store, error) { return Options{}.OpenReadOnly(dir) }

// OpenReadOnly is like the function [OpenReadOnly], with options.
func (o Options) OpenReadOnly(dir string) (*Store, error) {
	s := &Store{options: o, path: filepath.Join(dir, fileName), inFlight: map[batchID]struct{}{}}
	switch info, err := os.Stat(s.path); {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0:
		return s, nil
	case err != nil:
		return nil, readError(s.path, err)
	}
	options := o.bolt()
	options.ReadOnly = true
	err := catchDamage(func() (err error) {
		s.db, err = bbolt.Open(s.path, 0, options)
		return err
	})
	if err != nil {
		return nil, readError(s.path, err)
	}
	if err := catchDamage(func() error { return s.db.View(s.load) }); err != nil {
		_ = catchDamage(s.db.Close) // err is more relevant
		if !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		return nil, readError(s.path, err)
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
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}
