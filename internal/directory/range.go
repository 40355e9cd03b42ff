package directory

import (
	"context"
	"errors"
	"fmt"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// ErrChanged says that an object was changed while its values were read range by
// range: what was read is of no use, and reading it again may be.
var ErrChanged = errors.New("it was changed while it was read")

// Values reads all values of an attribute of one object, however many there are,
// and gives each to the callback, DNs as extended ones. A domain controller gives
// some 1500 at once (MS-ADTS 3.1.1.3.1.3.3); the object's sequence number proves
// that all of them are of one state. found is false where there is no such object.
// After an error the session is as after one of Search; after ErrChanged it is good.
func (s *Session) Values(ctx context.Context, base string, of ad.GUID, attribute string, each func(value []byte) error) (found bool, err error) {
	what := fmt.Sprintf("read %s of %s on %s", attribute, of, s.Address)
	state := ""
	for from := 0; ; {
		q := Search{
			Base: base, Scope: Subtree, Filter: FilterByGUID([]ad.GUID{of}), ExtendedDN: true,
			Attributes: []string{fmt.Sprintf("%s;range=%d-*", attribute, from), "uSNChanged"},
		}
		there, changed, more, count := false, false, false, 0
		_, err := s.Search(ctx, q, func(entry *ad.Entry) error {
			there = true
			if now := string(entry.First(1)); from == 0 {
				state = now
			} else if changed = now != state; changed {
				return nil
			}
			more, count = len(entry.Partial) > 0, len(entry.Values[0])
			for _, value := range entry.Values[0] {
				if err := each(value); err != nil {
					return err
				}
			}
			return nil
		})
		switch {
		case err != nil:
			return false, err
		case !there && from == 0:
			return false, nil
		case !there || changed:
			return true, fault.Errorf(fault.Incomplete, "%s from value %d: %w", what, from, ErrChanged)
		case !more:
			return true, nil
		case count == 0:
			return true, fault.Errorf(fault.Incomplete, "%s from value %d: the server says that there are more and gives none", what, from)
		}
		from += count
	}
}
