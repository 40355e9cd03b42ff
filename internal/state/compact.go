package state

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

const compactTo = ".compact"

// compact writes a file that is mostly free anew: it would not shrink by itself.
// Where there is no room for that, the large one stays.
func (s *Store) compact() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return s.explain("compact", err)
	}
	free := int64(s.db.Stats().FreePageN) * int64(s.db.Info().PageSize)
	if info.Size() < cmp.Or(s.options.compactAbove, defaultCompactAbove) || free < info.Size()/2 {
		return nil
	}
	small := s.path + compactTo
	_ = os.Remove(small) // of an attempt that was cut off
	err = guard(func() error { return compactInto(small, s.db, s.options) })
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
	if err := errors.Join(os.Rename(small, s.path), s.options.syncDir(filepath.Dir(s.path))); err != nil {
		return explainDir(s.path, err)
	}
	s.db, err = bbolt.Open(s.path, 0o600, s.options.bolt())
	if err != nil {
		return explainOpen(s.path, err)
	}
	return nil
}

func compactInto(path string, from *bbolt.DB, o Options) error {
	to, err := bbolt.Open(path, 0o600, o.bolt())
	if err != nil {
		return err
	}
	const bytesAtOnce = 1 << 20
	return errors.Join(bbolt.Compact(to, from, bytesAtOnce), to.Close())
}
