package state

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// compactPath returns the path of the file into which compact copies.
func compactPath(path string) string { return path + ".compact" }

// compact rewrites a large file of which at least half is free, because bbolt never shrinks
// a file. If the disk has no space for the copy, the file stays as it is.
func (s *Store) compact() error {
	info, err := os.Lstat(s.path)
	if err != nil {
		return s.operationError("compact", err)
	}
	stats := s.db.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
	if info.Size() < cmp.Or(s.options.compactAbove, defaultCompactAbove) || free < info.Size()/2 {
		return nil
	}
	compacted := compactPath(s.path)
	_ = os.Remove(compacted) // of an interrupted attempt
	err = catchDamage(func() error { return compactInto(compacted, s.db, s.options) })
	if err != nil {
		_ = os.Remove(compacted)
		if isNoSpace(err) {
			return nil
		}
		return s.operationError("compact", err)
	}
	if err := s.db.Close(); err != nil {
		return s.operationError("compact", err)
	}
	if err := errors.Join(os.Rename(compacted, s.path), s.options.syncDir(filepath.Dir(s.path))); err != nil {
		return dirError(s.path, err)
	}
	s.db, err = bbolt.Open(s.path, 0o600, s.options.bolt())
	if err != nil {
		return openError(s.path, err)
	}
	return nil
}

func compactInto(path string, source *bbolt.DB, o Options) error {
	options := o.bolt()
	options.OpenFile = createFile
	target, err := bbolt.Open(path, 0o600, options)
	if err != nil {
		return err
	}
	const bytesPerTransaction = 1 << 20
	return errors.Join(bbolt.Compact(target, source, bytesPerTransaction), target.Close())
}
