package ad

// Entry is one entry of a search result. The values of an attribute stand in the
// slot that the attribute has in the search's list of attributes, so reading one
// costs an index and no name is compared twice.
//
// An Entry and all its bytes are valid only during the callback that receives it.
type Entry struct {
	DN     []byte
	Values [][][]byte // slot, value
	// Partial lists the slots of which only some values came: the server gives the
	// rest to a request for the next range (MS-ADTS 3.1.1.3.1.3.3).
	Partial []int
}

// First returns the first value in a slot, or nil where the attribute is absent.
func (e *Entry) First(slot int) []byte {
	if len(e.Values[slot]) == 0 {
		return nil
	}
	return e.Values[slot][0]
}
