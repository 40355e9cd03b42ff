package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// ErrObjectChanged is returned when an object changed between two ranges of its values.
// The values read so far are inconsistent. Reading them again may succeed.
var ErrObjectChanged = errors.New("object changed during range retrieval")

// ReadValues reads all values of an attribute of one object and passes those of each range to
// the callback; DNs are extended DNs. A domain controller returns about 1500 values a range
// (MS-ADTS 3.1.1.3.1.3.3).
//
// Two checks detect a change between ranges. uSNChanged must stay the same, and each range
// starts with the last value of the previous one. The second check is needed because the
// deletion of a member does not change the group, but shifts the members after it.
//
// found is false if the object does not exist. After an error the session is unusable, as
// after Search; after ErrObjectChanged it is still usable.
func (s *Session) ReadValues(ctx context.Context, base string, guid ad.GUID, attribute string, each func(values [][]byte) error) (found bool, err error) {
	operation := s.operation("read", attribute+" of "+guid.String())
	r := rangeReader{each: each, sample: newSample()}
	rangesWithoutNew := 0
	for {
		offset := max(r.read-1, 0)
		search := Search{
			Base: base, Scope: Subtree, Filter: FilterByGUID([]ad.GUID{guid}), ExtendedDN: true,
			Attributes: []string{fmt.Sprintf("%s;range=%d-*", attribute, offset), "uSNChanged"},
		}
		r.exists, r.changed, r.more, r.count, r.hasNew = false, false, false, 0, false
		_, err := s.Search(ctx, search, r.readRange)
		switch {
		case err != nil:
			return false, err
		case !r.exists && r.read == 0:
			return false, nil
		case !r.exists || r.changed:
			return true, operation.Failed(fault.Incomplete, fmt.Errorf("from value %d: %w", offset, ErrObjectChanged), "")
		case !r.more:
			return true, nil
		case r.count == 0:
			return true, operation.Failed(fault.Incomplete, fmt.Errorf("from value %d: %w", offset, errNoProgress), serverRemedy)
		}
		if r.read += r.count; r.read > s.options.maxValues {
			return true, operation.Failed(fault.Incomplete, fmt.Errorf("%w: more than %d", errTooManyValues, s.options.maxValues), tooLargeRemedy)
		}
		if rangesWithoutNew++; r.hasNew {
			rangesWithoutNew = 0
		}
		if rangesWithoutNew == maxRangesWithoutNew {
			return true, operation.Failed(fault.Incomplete, fmt.Errorf("%w in %d consecutive ranges", errNoNewValues, rangesWithoutNew), serverRemedy)
		}
	}
}

const (
	// defaultMaxValues limits the values of one attribute: a server could invent values
	// without end. It is 20 times the largest groups of Microsoft's scalability documents.
	// The sample of the values takes 20 MB then; what the callback keeps is up to it.
	defaultMaxValues = 10_000_000
	// maxRangesWithoutNew is the number of consecutive ranges without a new value after
	// which reading fails. The values of an attribute are distinct, but a large sample has
	// only one of sampleRate, and a range may have a single value.
	maxRangesWithoutNew = 1000
)

// rangeReader reads the ranges of one attribute and detects changes between them.
type rangeReader struct {
	each func(values [][]byte) error
	read int    // values of the previous ranges
	usn  string // of the first range
	last []byte // value of the previous range

	sample sample // of the values

	// State of the current range.
	exists, changed, more bool
	hasNew                bool
	count                 int // new values
}

func (r *rangeReader) readRange(entry *ad.Entry) error {
	r.exists = true
	usn, values := string(entry.First(1)), entry.Values[0]
	if r.read == 0 {
		r.usn = usn
	} else {
		if r.changed = usn != r.usn || len(values) == 0 || !bytes.Equal(values[0], r.last); r.changed {
			return nil
		}
		values = values[1:]
	}
	r.more, r.count = len(entry.Partial) > 0, len(values)
	for _, value := range values {
		r.hasNew = r.sample.add(value) || r.hasNew
	}
	if err := r.each(values); err != nil {
		return err
	}
	if r.count > 0 {
		r.last = append(r.last[:0], values[r.count-1]...)
	}
	return nil
}
