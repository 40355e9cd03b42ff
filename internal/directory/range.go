package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// ErrChanged says that an object was changed while its values were read range by
// range: what was read is of no use, and reading it again may be.
var ErrChanged = errors.New("changed while it was read")

// Values reads all values of an attribute of one object, however many there are,
// and gives each to the callback, DNs as extended ones. A domain controller gives
// some 1500 at once (MS-ADTS 3.1.1.3.1.3.3). That all of them are of one state is
// seen by the object's sequence number, and by the last value of each range, with
// which the next one begins: whoever is deleted leaves a group without a change of
// the group, and those behind him move up. found is false where there is no such object.
// After an error the session is as after one of Search; after ErrChanged it is good.
func (s *Session) Values(ctx context.Context, base string, of ad.GUID, attribute string, each func(value []byte) error) (found bool, err error) {
	operation := s.operation("read", attribute+" of "+of.String())
	state := ""
	var last []byte // value of the range before
	for read := 0; ; {
		from := max(read-1, 0)
		q := Search{
			Base: base, Scope: Subtree, Filter: FilterByGUID([]ad.GUID{of}), ExtendedDN: true,
			Attributes: []string{fmt.Sprintf("%s;range=%d-*", attribute, from), "uSNChanged"},
		}
		there, changed, more, count := false, false, false, 0
		_, err := s.Search(ctx, q, func(entry *ad.Entry) error {
			there = true
			now, values := string(entry.First(1)), entry.Values[0]
			if read == 0 {
				state = now
			} else {
				if changed = now != state || len(values) == 0 || !bytes.Equal(values[0], last); changed {
					return nil
				}
				values = values[1:]
			}
			more, count = len(entry.Partial) > 0, len(values)
			for _, value := range values {
				if err := each(value); err != nil {
					return err
				}
			}
			if count > 0 {
				last = append(last[:0], values[count-1]...)
			}
			return nil
		})
		switch {
		case err != nil:
			return false, err
		case !there && read == 0:
			return false, nil
		case !there || changed:
			return true, operation.Failed(fault.Incomplete, fmt.Errorf("from value %d: %w", from, ErrChanged), "")
		case !more:
			return true, nil
		case count == 0:
			return true, operation.Failed(fault.Incomplete, fmt.Errorf("from value %d: %w", from, errNoProgress), serverRemedy)
		}
		read += count
	}
}
