package identity

import (
	"slices"
	"strings"
)

// node is a JSON object or, with a value, one of its members. The rows of the
// map become one tree, which is walked for each entry.
type node struct {
	key      string // with quotes and colon: `"name":`
	children []*node
	value    value
	slots    []int
	activity bool
}

// add hangs a row of the map into the tree and notes the attributes it reads.
func (m *Mapper) add(r row) {
	at := &m.root
	if r.target != "" { // else the value stands for itself
		for name := range strings.SplitSeq(r.target, ".") {
			at = at.child(name)
		}
	}
	at.value, at.activity = r.value, slices.Contains(activity, r.source)
	for attribute := range strings.SplitSeq(r.source, ", ") {
		if attribute != "" && attribute[0] != '(' { // that is no attribute of the entry
			at.slots = append(at.slots, m.slot(attribute))
		}
	}
}

// slot returns the attribute's place in the search's list, which it joins when it is new.
func (m *Mapper) slot(attribute string) int {
	if i := slices.Index(m.Attributes, attribute); i >= 0 {
		return i
	}
	m.Attributes = append(m.Attributes, attribute)
	return len(m.Attributes) - 1
}

func (n *node) child(name string) *node {
	key := `"` + name + `":`
	for _, c := range n.children {
		if c.key == key {
			return c
		}
	}
	c := &node{key: key}
	n.children = append(n.children, c)
	return c
}

// append writes the node's value, and reports whether there was one to write: an
// object none of whose members is there is not there either.
func (n *node) append(dst []byte, src *source) ([]byte, bool) {
	start := len(dst)
	if n.value != nil {
		dst = n.value(dst, src, n.slots)
		return dst, len(dst) > start
	}
	dst = append(dst, '{')
	any := false
	for _, child := range n.children {
		before := len(dst)
		if any {
			dst = append(dst, ',')
		}
		var ok bool
		dst, ok = child.append(append(dst, child.key...), src)
		if !ok {
			dst = dst[:before]
		} else if child.activity {
			src.activity = append(src.activity, span{before, len(dst)})
		}
		any = any || ok
	}
	if !any {
		return dst[:start], false
	}
	return append(dst, '}'), true
}
