package identity

import (
	"slices"
	"strings"
)

// node is a JSON object or, with a value, one of its members. All rows of the map form one
// tree.
type node struct {
	key      string // with quotes and colon: `"name":`
	children []*node
	value    value
	slots    []int
	activity bool
}

// add adds a row of the map to the tree, and its source attributes to Attributes.
func (m *Mapper) add(r row) {
	n := &m.root
	if r.target != "" { // else the root is a value
		for name := range strings.SplitSeq(r.target, ".") {
			n = n.child(name)
		}
	}
	n.value, n.activity = r.value, r.isActivity()
	for attribute := range strings.SplitSeq(r.source, ", ") {
		if attribute != "" && attribute[0] != '(' { // not an attribute of the entry
			n.slots = append(n.slots, m.slot(attribute))
		}
	}
}

// isActivity reports whether all sources of a row are activity.
func (r row) isActivity() bool {
	for attribute := range strings.SplitSeq(r.source, ", ") {
		if !slices.Contains(activity, attribute) {
			return false
		}
	}
	return true
}

// slot returns the index of an attribute in Attributes, and adds it if it is missing.
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

// append appends the node's JSON. It appends nothing and returns false if there is no value,
// or if all members of an object are absent.
func (n *node) append(dst []byte, src *source) ([]byte, bool) {
	start := len(dst)
	if n.value != nil {
		dst = n.value(dst, src, n.slots)
		return dst, len(dst) > start
	}
	dst = append(dst, '{')
	empty := true
	for _, child := range n.children {
		before := len(dst)
		if !empty {
			dst = append(dst, ',')
		}
		var ok bool
		dst, ok = child.append(append(dst, child.key...), src)
		if !ok {
			dst = dst[:before]
		} else if child.activity {
			src.activity = append(src.activity, span{before, len(dst)})
		}
		empty = empty && !ok
	}
	if empty {
		return dst[:start], false
	}
	return append(dst, '}'), true
}
