package state

import (
	"io"

	"go.etcd.io/bbolt"
)

// WriteCopy writes the content of the file at this moment to a file, which another process can open
// for reading while this one continues. It lacks the generation, which a copy must not have.
func (s *Store) WriteCopy(to io.Writer) error {
	return s.view("copy", func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(to)
		return err
	})
}

// CopyName is the name that OpenReadOnly expects of a copy in its directory.
const CopyName = fileName
