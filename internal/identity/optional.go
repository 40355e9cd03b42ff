package identity

// OptionalAttributes returns the attributes of a kind's map that objects can lack, except for
// those that are not replicated, or that the server computes.
func OptionalAttributes(kind Kind) (names []string) {
	m := NewMapper(kind)
	for _, slot := range m.counts.optional {
		names = append(names, m.Attributes[slot])
	}
	return names
}
