package directory

import (
	"bytes"
	"fmt"
	"slices"

	"adconnector/internal/ad"
)

// decoder decodes SearchResultEntry messages (RFC 4511 4.5.2) in place. An Entry's values
// are subslices of the message. Once its slices have grown, it does not allocate.
type decoder struct {
	attributes [][]byte
	entry      ad.Entry
	values     [][]byte // of all slots, in message order
	slotHints  []int    // slot of the n-th attribute of the previous entry: servers keep the order
	extendedDN bool     // the entry's DN is an extended DN
}

// noSlot is the slot of an attribute that was not requested.
const noSlot = -1

// maxDN limits the DN of an entry, in bytes. Those of Active Directory have at most 255 characters for
// each container. Callers keep DNs and those of all containers above, which can be as many as a DN has
// characters.
const maxDN = 8 << 10

// maxValues limits the values of one entry. Each value takes 24 bytes.
const maxValues = 1 << 18

func newDecoder(attributes []string) *decoder {
	d := &decoder{entry: ad.Entry{Values: make([][][]byte, len(attributes))}}
	for _, name := range attributes {
		plain, _ := trimRangeOption([]byte(name)) // the server returns a different range option
		d.attributes = append(d.attributes, plain)
	}
	return d
}

// decode decodes one complete message. The entry is valid until the next call.
func (d *decoder) decode(message []byte) (*ad.Entry, error) {
	body, _, ok := cutElement(message, tagSequence)
	_, rest, ok2 := cutElement(body, tagInteger)
	operation, _, ok3 := cutElement(rest, tagSearchEntry)
	dn, rest, ok4 := cutElement(operation, tagOctetString)
	list, _, ok5 := cutElement(rest, tagSequence)
	if !ok || !ok2 || !ok3 || !ok4 || !ok5 {
		return nil, fmt.Errorf("search result entry: %w", errMalformed)
	}
	d.entry.DN, d.entry.ExtendedDN = dn, nil
	if d.extendedDN {
		d.entry.DN, d.entry.ExtendedDN = ad.PlainDN(dn), dn
	}
	if len(d.entry.DN) > maxDN {
		return nil, fmt.Errorf("entry: %w: %d bytes", errLongDN, len(d.entry.DN))
	}
	clear(d.entry.Values)
	d.entry.Partial = d.entry.Partial[:0]
	d.values = d.values[:0]
	for n := 0; len(list) > 0; n++ {
		var attribute []byte
		if attribute, list, ok = cutElement(list, tagSequence); !ok {
			return nil, fmt.Errorf("attribute of an entry: %w", errMalformed)
		}
		if err := d.attribute(n, attribute); err != nil {
			return nil, fmt.Errorf("attribute of an entry: %w", err)
		}
	}
	return &d.entry, nil
}

// release drops the references to the last message, so that its memory can be reused.
func (d *decoder) release() {
	d.entry.DN, d.entry.ExtendedDN, d.values = nil, nil, nil
	clear(d.entry.Values)
}

func (d *decoder) attribute(n int, attribute []byte) error {
	name, rest, ok := cutElement(attribute, tagOctetString)
	set, _, ok2 := cutElement(rest, tagSet)
	if !ok || !ok2 {
		return errMalformed
	}
	name, partial := trimRangeOption(name)
	slot := d.slot(n, name)
	if slot == noSlot {
		return nil
	}
	if partial && !slices.Contains(d.entry.Partial, slot) {
		d.entry.Partial = append(d.entry.Partial, slot)
	}
	first := len(d.values)
	for len(set) > 0 {
		var value []byte
		if value, set, ok = cutElement(set, tagOctetString); !ok {
			return errMalformed
		}
		if len(d.values) == maxValues {
			return fmt.Errorf("more than %d values: %w", maxValues, errTooLarge)
		}
		d.values = append(d.values, value)
	}
	values := slices.Clip(d.values[first:])
	if earlier := d.entry.Values[slot]; len(earlier) > 0 { // the attribute occurs twice, which RFC 4511 forbids
		values = append(earlier, values...)
	}
	d.entry.Values[slot] = values
	return nil
}

var rangeOption = []byte(";range=")

// trimRangeOption removes the range option of a name like member;range=0-1499. partial is
// true if more values follow: the last range ends in *.
func trimRangeOption(name []byte) (plain []byte, partial bool) {
	i := bytes.IndexByte(name, ';')
	if i < 0 || len(name)-i < len(rangeOption) || !bytes.EqualFold(name[i:i+len(rangeOption)], rangeOption) {
		return name, false
	}
	return name[:i], name[len(name)-1] != '*'
}

// slot returns the slot of an entry's n-th attribute, or noSlot.
func (d *decoder) slot(n int, name []byte) int {
	if n < len(d.slotHints) && d.slotHints[n] != noSlot && d.hasName(d.slotHints[n], name) {
		return d.slotHints[n]
	}
	found := noSlot
	for slot := range d.attributes {
		if d.hasName(slot, name) {
			found = slot
			break
		}
	}
	if n == len(d.slotHints) && n < 4*len(d.attributes) {
		d.slotHints = append(d.slotHints, found)
	} else if n < len(d.slotHints) {
		d.slotHints[n] = found
	}
	return found
}

// hasName reports whether a slot's attribute has this name. Equal lengths exclude matches
// that bytes.EqualFold finds outside of ASCII.
func (d *decoder) hasName(slot int, name []byte) bool {
	attribute := d.attributes[slot]
	return len(attribute) == len(name) && bytes.EqualFold(attribute, name)
}
