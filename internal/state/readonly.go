package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// OpenReadOnly opens the state file in dir to look at it: it makes, mends and
// changes nothing. Where there is no file, it reads as that of a connector that
// has never run. Writing to it fails.
func OpenReadOnly(dir string) (*Store, error) { return Options{}.OpenReadOnly(dir) }

// OpenReadOnly is [OpenReadOnly] with these options.
func (o Options) OpenReadOnly(dir string) (*Store, error) {
	s := &Store{options: o, path: filepath.Join(dir, fileName), open: map[batchNumber]struct{}{}}
	switch info, err := os.Stat(s.path); {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0:
		return s, nil
	case err != nil:
		return nil, explainRead(s.path, err)
	}
	look := o.bolt()
	look.ReadOnly = true
	err := guard(func() (err error) {
		s.db, err = bbolt.Open(s.path, 0, look)
		return err
	})
	if err != nil {
		return nil, explainRead(s.path, err)
	}
	if err := guard(func() error { return s.db.View(s.takeOver) }); err != nil {
		_ = guard(s.db.Close) // the error at hand says more
		if !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		return nil, explainRead(s.path, err)
	}
	return s, nil
}

// explainRead returns the error of opening a file for reading.
func explainRead(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return explainAccess(path, err, "readable")
	}
	return explainOpen(path, err)
}

// IsReadOnly reports whether the file was opened to look at it.
func (s *Store) IsReadOnly() bool { return s.db == nil || s.db.IsReadOnly() }

// Path is where the state file is, or would be.
func (s *Store) Path() string { return s.path }

// FileSize returns the size of the file in bytes; 0 while there is none.
func (s *Store) FileSize() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}
