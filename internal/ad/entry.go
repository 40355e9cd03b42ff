package ad

// Entry is an entry of a search result. Values has one slot for each requested attribute, in
// the order of the request, so that reading a value needs no comparison of names.
//
// An Entry and its values are valid only during the callback that receives it.
type Entry struct {
	DN []byte
	// ExtendedDN is the DN as the server sent it if the request was for extended DNs: an
	// extended DN, or a plain one from a server without them. Otherwise, it is nil.
	ExtendedDN []byte

	Values [][][]byte // slot, value
	// Partial lists the slots with incomplete values. The server returns further values by
	// range retrieval (MS-ADTS 3.1.1.3.1.3.3).
	Partial []int
}

// First returns the first value in a slot, or nil.
func (e *Entry) First(slot int) []byte {
	if len(e.Values[slot]) == 0 {
		return nil
	}
	return e.Values[slot][0]
}
