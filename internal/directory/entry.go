package directory

import (
	"bytes"
	"fmt"
	"slices"

	"adconnector/internal/ad"
)

// decoder reads SearchResultEntry messages (RFC 4511 4.5.2) in place: an Entry's
// values are parts of the message, and nothing is allocated once its slots have grown.
type decoder struct {
	attributes [][]byte
	entry      ad.Entry
	values     [][]byte // of all slots, in the order in which they came
	guess      []int    // the slot of the n-th attribute of the entry before: servers keep their order
	extended   bool     // DNs come with identifiers
}

// noSlot marks an attribute that nobody asked for.
const noSlot = -1

// maxValues bounds what one entry may hold: 24 bytes are kept for each value.
const maxValues = 1 << 18

func newDecoder(attributes []string) *decoder {
	d := &decoder{entry: ad.Entry{Values: make([][][]byte, len(attributes))}}
	for _, name := range attributes {
		plain, _ := cutRange([]byte(name)) // a range that is asked for comes under another name
		d.attributes = append(d.attributes, plain)
	}
	return d
}

// decode reads one message, which wire has framed and recognised.
func (d *decoder) decode(message []byte) (*ad.Entry, error) {
	body, _, ok := element(message, tagSequence)
	_, rest, ok2 := element(body, tagInteger)
	operation, _, ok3 := element(rest, tagSearchEntry)
	dn, rest, ok4 := element(operation, tagOctetString)
	list, _, ok5 := element(rest, tagSequence)
	if !ok || !ok2 || !ok3 || !ok4 || !ok5 {
		return nil, fmt.Errorf("search result entry: %w", errMalformed)
	}
	if d.entry.DN = dn; d.extended {
		d.entry.DN = ad.PlainDN(dn)
	}
	clear(d.entry.Values)
	d.entry.Partial = d.entry.Partial[:0]
	d.values = d.values[:0]
	for n := 0; len(list) > 0; n++ {
		var attribute []byte
		if attribute, list, ok = element(list, tagSequence); !ok {
			return nil, fmt.Errorf("attribute of an entry: %w", errMalformed)
		}
		if err := d.attribute(n, attribute); err != nil {
			return nil, fmt.Errorf("attribute of an entry: %w", err)
		}
	}
	return &d.entry, nil
}

func (d *decoder) attribute(n int, attribute []byte) error {
	name, rest, ok := element(attribute, tagOctetString)
	set, _, ok2 := element(rest, tagSet)
	if !ok || !ok2 {
		return errMalformed
	}
	name, partial := cutRange(name)
	slot := d.slot(n, name)
	if slot == noSlot {
		return nil
	}
	if partial {
		d.entry.Partial = append(d.entry.Partial, slot)
	}
	from := len(d.values)
	for len(set) > 0 {
		var value []byte
		if value, set, ok = element(set, tagOctetString); !ok {
			return errMalformed
		}
		if len(d.values) == maxValues {
			return fmt.Errorf("more than %d values: %w", maxValues, errTooLarge)
		}
		d.values = append(d.values, value)
	}
	values := slices.Clip(d.values[from:])
	if earlier := d.entry.Values[slot]; len(earlier) > 0 { // named twice, which no server should
		values = append(earlier, values...)
	}
	d.entry.Values[slot] = values
	return nil
}

var rangeOption = []byte(";range=")

// cutRange takes the range off a name like member;range=0-1499, and reports whether
// values are left: the last range ends in *.
func cutRange(name []byte) (plain []byte, partial bool) {
	at := bytes.IndexByte(name, ';')
	if at < 0 || len(name)-at < len(rangeOption) || !bytes.EqualFold(name[at:at+len(rangeOption)], rangeOption) {
		return name, false
	}
	return name[:at], name[len(name)-1] != '*'
}

// slot finds the place of the n-th attribute of an entry.
func (d *decoder) slot(n int, name []byte) int {
	if n < len(d.guess) && d.guess[n] != noSlot && d.named(d.guess[n], name) {
		return d.guess[n]
	}
	found := noSlot
	for slot := range d.attributes {
		if d.named(slot, name) {
			found = slot
			break
		}
	}
	if n == len(d.guess) && n < 4*len(d.attributes) {
		d.guess = append(d.guess, found)
	} else if n < len(d.guess) {
		d.guess[n] = found
	}
	return found
}

// named reports whether a slot's attribute has this name. Lengths are compared
// because only ASCII letters have a case here.
func (d *decoder) named(slot int, name []byte) bool {
	attribute := d.attributes[slot]
	return len(attribute) == len(name) && bytes.EqualFold(attribute, name)
}
