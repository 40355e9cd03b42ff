package identity

import (
	"slices"
	"strconv"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// mention is a principal that an asset mentions by its SID, and that it also names.
type mention struct {
	sid     ad.SID
	node    membership.Node
	inGraph bool
	// name and kind are those of a principal that is not in the graph.
	name []byte
	kind membership.Kind
}

// Limits of the names, so that a list of SIDs of any legitimate size still fits in an asset.
const (
	maxMentions   = 50_000                  // further principals are not named
	maxNamedUsers = 10_000                  // in a longer list of role members, users are not named
	maxNamedBytes = MaxAssetBytes - 512<<10 // of the asset; no names beyond
)

// mention records a principal. name and kind are used if the graph does not have it.
func (src *source) mention(id ad.SID, name []byte, kind membership.Kind) {
	if len(src.mentions) == maxMentions {
		return
	}
	m := mention{sid: id, name: name, kind: kind}
	m.node, m.inGraph = src.findSID(id)
	src.mentions = append(src.mentions, m)
}

// findSID returns an object of the graph by its SID.
func (src *source) findSID(id ad.SID) (membership.Node, bool) {
	if src.graph == nil {
		return 0, false
	}
	src.pending = src.pending || src.graph.IsPending(id)
	return src.graph.FindSID(id)
}

// mentionNode records an object of the graph. It ignores an object without a SID.
func (src *source) mentionNode(n membership.Node) {
	if !src.graph.HasSID(n) || len(src.mentions) == maxMentions {
		return
	}
	start := len(src.mentionedSIDs)
	src.mentionedSIDs = src.graph.AppendBinarySID(src.mentionedSIDs, n)
	src.mentions = append(src.mentions, mention{sid: src.mentionedSIDs[start:], node: n, inGraph: true})
}

// releaseMentions drops the references to the entry's values, and memory that few assets require.
func (src *source) releaseMentions() {
	if cap(src.mentions) > maxReused {
		src.mentions, src.mentionedSIDs = nil, nil
	}
	clear(src.mentions[:cap(src.mentions)])
}

// principals appends the mentioned principals by SID, name and kind, sorted by SID, as far as they are
// known. Its row must be the last one.
func principals(dst []byte, src *source, _ []int) []byte {
	slices.SortStableFunc(src.mentions, func(a, b mention) int { return a.sid.Compare(b.sid) })
	l := list{dst: dst}
	var buffer [128]byte
	for i, m := range src.mentions {
		if i > 0 && m.sid.Compare(src.mentions[i-1].sid) == 0 {
			continue
		}
		name, kind := m.name, m.kind
		if m.inGraph {
			name, kind = src.graph.AppendName(buffer[:0], m.node), src.graph.Kind(m.node)
		} else if kind == membership.KindUnknown {
			if wellKnown := m.sid.WellKnownName(); wellKnown != "" {
				name = append(buffer[:0], wellKnown...)
			}
			kind = src.graph.KindOfSID(m.sid)
		}
		if len(name) == 0 && kind == membership.KindUnknown {
			continue
		}
		if len(l.dst) > maxNamedBytes || !l.next() {
			break
		}
		l.dst = appendQuoted(append(l.dst, `{"sid":`...), m.sid)
		l.dst = appendName(l.dst, name)
		if kind != membership.KindUnknown {
			l.dst = appendEnum(append(l.dst, `,"kind":`...), kind.String())
		}
		l.dst = append(l.dst, '}')
	}
	return l.end()
}

// appendName appends a name as a member of an item, if it is known.
func appendName(dst, name []byte) []byte {
	if len(name) == 0 {
		return dst
	}
	return appendString(append(dst, `,"name":`...), name)
}

// maxPath is the number of groups that a path shows. Without a limit, the paths of groups that nest
// very deep would be large.
const maxPath = 20

// privilegedPaths appends the groups of the nested privileged roles of an object, each with the
// shortest path to it.
func privilegedPaths(dst []byte, src *source, _ []int) []byte {
	groups, primary := src.groups()
	p := src.graph.Privileges(groups, primary)
	l := list{dst: dst}
	for _, role := range src.graph.NestedRoles(p) {
		if !l.next() {
			break
		}
		var buffer [maxPath]membership.Node
		path, omitted := src.graph.Path(buffer[:0], role, maxPath, groups, primary)
		l.dst = appendNamedNode(l.dst, src.graph, src.graph.RoleGroup(role))
		steps := list{dst: append(l.dst, `,"path":`...)}
		for _, n := range path {
			if steps.next() {
				steps.dst = append(appendNamedNode(steps.dst, src.graph, n), '}')
			}
		}
		l.dst = steps.end()
		if omitted > 0 {
			l.dst = strconv.AppendInt(append(l.dst, `,"pathOmits":`...), int64(omitted), 10)
		}
		l.dst = append(l.dst, '}')
	}
	return l.end()
}

// appendNamedNode appends the beginning of an item: the SID and the name of an object.
func appendNamedNode(dst []byte, g *membership.Graph, n membership.Node) []byte {
	var buffer [128]byte
	dst = append(g.AppendSID(append(dst, `{"sid":"`...), n), '"')
	return appendName(dst, g.AppendName(buffer[:0], n))
}
