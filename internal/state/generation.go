package state

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"

	"adconnector/internal/fault"
)

// generation identifies how far deliveries have advanced. It is stored in the state file
// and in a second file, the generation file, which a copy of the state file does not
// include. So an old copy that replaces the state file is detected.
//
// Each run advances the generation twice before it sends its first batch. Each advance
// writes the generation file first, then commits the state file. Two consequences:
//   - A crash between the two writes leaves the state file one behind. Nothing was sent
//     since the state file had that generation.
//   - A copy from before a delivery is at least two behind, even if the process was killed
//     during that delivery.
//
// A copy of the state file that is made while a run sends batches has the generation of
// that run. It counts as current until a later run sends something.
type generation struct {
	// lineage is a random ID. It differs if generations were counted from the beginning
	// again, such as after the state directory was lost.
	lineage lineageID
	number  uint64 // 0: none
}

type lineageID [8]byte

// next returns the following generation. The first one begins a lineage.
func (g generation) next() generation {
	if g.number == 0 {
		_, _ = rand.Read(g.lineage[:]) // never fails
	}
	g.number++
	return g
}

// encode returns the text form, which both files contain.
func (g generation) encode() []byte {
	return fmt.Appendf(nil, "%d %x\n", g.number, g.lineage)
}

// errBadGeneration is the cause of an error of a text that encode has not written.
var errBadGeneration = errors.New("invalid generation")

// decodeGeneration decodes a text that encode has written.
func decodeGeneration(text []byte) (g generation, err error) {
	number, lineage, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
	g.number, err = strconv.ParseUint(number, 10, 64)
	if err == nil && len(lineage) == hex.EncodedLen(len(g.lineage)) {
		_, err = hex.Decode(g.lineage[:], []byte(lineage))
	}
	if err != nil || g.number == 0 || string(g.encode()) != string(text) {
		return generation{}, errBadGeneration
	}
	return g, nil
}

// fileAge is the age of a state file relative to the generation file.
type fileAge int

// The ages.
const (
	// ageCurrent means that nothing was sent since the state file was written.
	ageCurrent fileAge = iota
	// ageUnknown means that no generation file exists. The state file counts as current.
	ageUnknown
	// ageNew means that the state file contains no objects.
	ageNew
	// ageCopy means that objects may have been sent since the state file was written.
	ageCopy
)

// compareGenerations returns the age of a state file. inState and inFile are the generations
// of the state file and the generation file.
//
// A state file that is ahead is a copy, too: no crash causes this, because the generation
// file is written first. At least one of the files was replaced.
func compareGenerations(inState, inFile generation, empty bool) fileAge {
	switch {
	case inState == inFile:
		return ageCurrent
	case inFile.number == 0:
		return ageUnknown
	case empty:
		return ageNew
	case inState.number > 0 && inState.lineage != inFile.lineage:
		return ageCopy
	case inState.number == inFile.number, inState.number+1 == inFile.number:
		return ageCurrent
	default:
		return ageCopy
	}
}

// generationPath returns the path of the generation file. The name does not begin with that
// of the state file, so that a pattern for the state file's copies does not match it.
func generationPath(path string) string {
	return filepath.Join(filepath.Dir(path), "adconnector.generation")
}

// newGenerationPath returns the path under which the generation file is written.
func newGenerationPath(path string) string { return generationPath(path) + ".new" }

// maxGenerationSize is larger than any generation file.
const maxGenerationSize = 64

// errRestored is the cause of [Store.Restored].
var errRestored = errors.New("restored from a copy")

// The remedies of [Store.Restored] and [Store.BadGeneration].
const (
	remedyRestored      = "expect an upload of all objects; at the gateway, review objects that were created and deleted after the copy was made"
	remedyBadGeneration = "if the state file was restored from a copy, run adconnector sync --resend"
)

// readGenerations returns the generations of the state file and the generation file, and
// the age of the state file. An invalid generation file counts as missing.
func (s *Store) readGenerations() (inState, inFile generation, age fileAge, err error) {
	empty := false
	err = s.view("read generation", func(tx *bbolt.Tx) (err error) {
		inState, err = storedGeneration(tx)
		if err != nil {
			return err
		}
		index, err := newIndexView(tx)
		if err != nil {
			return err
		}
		hasAny, err := index.any(func([]byte) bool { return true })
		empty = !hasAny
		return err
	})
	if err != nil {
		return inState, inFile, age, err
	}
	path := generationPath(s.path)
	text, err := readSmallFile(path, maxGenerationSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return inState, inFile, age, classify(fault.Operation{Op: "read", Object: "generation file " + path}, path, err, "readable")
	default:
		if inFile, err = decodeGeneration(text); err != nil {
			s.BadGeneration = fault.Operation{Op: "read", Object: path}.Failed(fault.Transient, err, remedyBadGeneration)
		}
	}
	age = compareGenerations(inState, inFile, empty)
	if age == ageCopy {
		cause := fmt.Errorf("%w: generation %d, expected %d", errRestored, inState.number, inFile.number)
		s.Restored = fault.Operation{Op: "open", Object: "state file " + s.path}.Failed(fault.Transient, cause, remedyRestored)
	}
	return inState, inFile, age, nil
}

// storedGeneration returns the generation of the state file, or the zero value.
func storedGeneration(tx *bbolt.Tx) (generation, error) {
	text := tx.Bucket(bucketMeta).Get(keyGeneration)
	if text == nil { // nothing sent yet, or a file of version 1.0.0
		return generation{}, nil
	}
	g, err := decodeGeneration(text)
	if err != nil {
		return g, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return g, nil
}

// checkGeneration compares the generations, and makes them equal unless a later advance does.
func (s *Store) checkGeneration() error {
	inState, inFile, age, err := s.readGenerations()
	if err != nil {
		return err
	}
	switch age {
	case ageUnknown: // else older copies would not be detected before the next delivery
		return s.writeGeneration(inState)
	case ageNew:
		return s.update("record generation", func(c change) error {
			return c.put(bucketMeta, keyGeneration, inFile.encode())
		})
	case ageCopy:
		return s.forget("record restored copy", ResendRestored, func(c change) error {
			// Two more than both: until the commit, the state file still counts as a copy.
			next := generation{inFile.lineage, max(inState.number, inFile.number) + 2}
			return s.putGeneration(c, next)
		})
	default: // the next advance corrects a generation that is one behind
		return nil
	}
}

// advanceGeneration advances the generation by one.
func (s *Store) advanceGeneration(c change) error {
	inState, err := storedGeneration(c.Tx)
	if err != nil {
		return err
	}
	return s.putGeneration(c, inState.next())
}

// putGeneration writes a generation to the generation file, then to the state file.
func (s *Store) putGeneration(c change, g generation) error {
	if err := s.writeGeneration(g); err != nil {
		return err
	}
	if hook := s.options.generationWritten; hook != nil {
		if err := hook(); err != nil {
			return err
		}
	}
	return c.put(bucketMeta, keyGeneration, g.encode())
}

// writeGeneration writes the generation file.
func (s *Store) writeGeneration(g generation) error {
	path := generationPath(s.path)
	err := replaceFile(path, newGenerationPath(s.path), g.encode(), s.options.sync)
	if err == nil {
		err = s.options.syncDir(filepath.Dir(path))
	}
	if err != nil {
		return writeError("write", "generation file "+path, path, err)
	}
	return nil
}

// ResendCause is the reason to send every object again.
type ResendCause string

// The causes.
const (
	ResendRestored  ResendCause = "restored"  // the state file was restored from a copy
	ResendRequested ResendCause = "requested" // by the operator
)

// PendingResend returns why every object must be sent again, or "". No watermark is valid
// until a complete full sync ends it.
func (s *Store) PendingResend() (cause ResendCause, err error) {
	err = s.view("read pending resend", func(tx *bbolt.Tx) error {
		cause = ResendCause(tx.Bucket(bucketMeta).Get(keyResend))
		return nil
	})
	if s.Restored != nil && s.IsReadOnly() { // not recorded
		cause = cmp.Or(cause, ResendRestored)
	}
	return cause, err
}

// ForgetFingerprints makes the gateway's values of all objects of the index unknown. Lookup
// returns the zero fingerprint for an object until a later run has sent it. The objects stay
// in the index.
func (s *Store) ForgetFingerprints() error {
	return s.forget("forget fingerprints", ResendRequested, func(change) error { return nil })
}

// forget makes all values unknown in one transaction with write. It does not change the
// records: every record contains the run that has sent it, so that a single number suffices.
func (s *Store) forget(op string, cause ResendCause, write func(change) error) error {
	var knownFrom uint64
	err := s.update(op, func(c change) error {
		knownFrom = nextRun(c.Tx)
		if err := write(c); err != nil {
			return err
		}
		if err := c.put(bucketMeta, keyKnownFrom, binary.BigEndian.AppendUint64(nil, knownFrom)); err != nil {
			return err
		}
		return c.put(bucketMeta, keyResend, []byte(cause))
	})
	if err == nil {
		s.knownFrom.Store(knownFrom)
	}
	return err
}

// nextRun returns the number that the next journal will have.
func nextRun(tx *bbolt.Tx) uint64 { return tx.Bucket(bucketInFlight).Sequence() + 1 }

// loadKnownFrom returns the first run whose fingerprints are known.
func loadKnownFrom(tx *bbolt.Tx) uint64 {
	if stored := tx.Bucket(bucketMeta).Get(keyKnownFrom); len(stored) == 8 {
		return binary.BigEndian.Uint64(stored)
	}
	return 0
}

// compareReadOnly compares the generations and changes neither file. The values of a copy
// are unknown as if that were recorded.
func (s *Store) compareReadOnly() error {
	_, _, age, err := s.readGenerations()
	if err != nil || age != ageCopy {
		return err
	}
	return s.view("read generation", func(tx *bbolt.Tx) error {
		s.knownFrom.Store(nextRun(tx))
		return nil
	})
}
