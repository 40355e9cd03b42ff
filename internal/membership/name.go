package membership

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf8"

	"adconnector/internal/ad"
)

// Kind is the kind of an object.
type Kind byte

// The kinds. Graph stores those of accounts, and derives the others. The numbers of the stored ones
// must not change.
const (
	KindUnknown Kind = iota
	KindUser
	KindComputer
	KindServiceAccount // a managed service account
	KindGroup
	KindWellKnown // the same in every domain, such as Authenticated Users
	KindForeign   // from another domain
	KindDomain    // a trusted domain, which a graph does not contain

	lastStoredKind = KindServiceAccount
)

func (k Kind) String() string {
	switch k {
	case KindUser:
		return "USER"
	case KindComputer:
		return "COMPUTER"
	case KindServiceAccount:
		return "SERVICE_ACCOUNT"
	case KindGroup:
		return "GROUP"
	case KindWellKnown:
		return "WELL_KNOWN"
	case KindForeign:
		return "FOREIGN"
	case KindDomain:
		return "DOMAIN"
	default:
		return ""
	}
}

// serviceAccountClasses are derived from user or computer.
var serviceAccountClasses = []string{"msDS-ManagedServiceAccount", "msDS-GroupManagedServiceAccount", "msDS-DelegatedManagedServiceAccount"}

// AccountKind returns the kind of an account by its object classes.
func AccountKind(objectClasses [][]byte) Kind {
	kind := KindUnknown
	for _, class := range objectClasses {
		switch {
		case equalFold(class, "user"):
			kind = max(kind, KindUser)
		case equalFold(class, "computer"):
			kind = max(kind, KindComputer)
		case slices.ContainsFunc(serviceAccountClasses, func(name string) bool { return equalFold(class, name) }):
			return KindServiceAccount
		}
	}
	return kind
}

func equalFold(value []byte, name string) bool {
	return len(value) == len(name) && bytes.EqualFold(value, []byte(name))
}

// maxName is the size in bytes above which names are cut off. Names in Active Directory have at most
// 255 characters (MS-ADA3, rangeUpper of name).
const maxName = 4 * 255

// nameHeader is the size of the length before a name.
const nameHeader = 2

// SetName sets the name of an object with a SID. An empty name changes nothing.
func (g *Graph) SetName(n Node, name []byte) {
	if len(name) > maxName {
		end := maxName
		for end > maxName-utf8.UTFMax && !utf8.RuneStart(name[end]) {
			end--
		}
		name = name[:end]
	}
	if len(name) == 0 || !g.HasSID(n) || bytes.Equal(g.storedName(n), name) {
		return
	}
	g.nameOffsets[n] = uint32(len(g.names))
	g.names = append(binary.LittleEndian.AppendUint16(g.names, uint16(len(name))), name...)
	g.markChanged(n)
}

// SetKind sets the kind of an account.
func (g *Graph) SetKind(n Node, kind Kind) {
	if g.kinds[n] != kind {
		g.kinds[n] = kind
		g.markChanged(n)
	}
}

// storedName returns the name of SetName, or nil. It shares memory with the graph.
func (g *Graph) storedName(n Node) []byte {
	offset := g.nameOffsets[n]
	if offset == 0 {
		return nil
	}
	size := binary.LittleEndian.Uint16(g.names[offset:])
	return g.names[offset+nameHeader:][:size]
}

// Kind returns the kind of an object.
func (g *Graph) Kind(n Node) Kind {
	switch {
	case g.aliveGroup(n) != nil:
		return KindGroup
	case g.kinds[n] != KindUnknown:
		return g.kinds[n]
	case !g.HasSID(n):
		return KindUnknown
	}
	var buffer [maxSIDSize]byte
	return g.KindOfSID(g.AppendBinarySID(buffer[:0], n))
}

// KindOfSID returns what a SID alone shows of its principal, which need not be in the graph:
// KindWellKnown, KindForeign or KindUnknown. g may be nil.
func (g *Graph) KindOfSID(sid ad.SID) Kind {
	if sid.WellKnownName() != "" {
		return KindWellKnown
	}
	domain, _, ok := sid.Split()
	if ok && g != nil && g.domainAuthority != 0 && isDomain(domain) && string(domain) != g.authorities[g.domainAuthority].bytes {
		return KindForeign
	}
	return KindUnknown
}

// wellKnownName returns the name of a well-known principal, or "".
func (g *Graph) wellKnownName(n Node) string {
	var buffer [maxSIDSize]byte
	return ad.SID(g.AppendBinarySID(buffer[:0], n)).WellKnownName()
}

const maxSIDSize = 68

// AppendBinarySID appends the SID of an object that has one.
func (g *Graph) AppendBinarySID(dst []byte, n Node) []byte {
	sid := g.sids[n]
	return binary.LittleEndian.AppendUint32(append(dst, g.authorities[sid.authority].bytes...), uint32(sid.rid))
}

// AppendName appends the name of an object. It appends nothing if the name is unknown, or is only the
// SID, as that of a principal from another domain often is.
func (g *Graph) AppendName(dst []byte, n Node) []byte {
	if name := g.wellKnownName(n); name != "" {
		return append(dst, name...)
	}
	name := g.storedName(n)
	if len(name) > 0 && name[0] == 'S' && g.HasSID(n) {
		var buffer [3 * maxSIDSize]byte
		if bytes.Equal(name, g.AppendSID(buffer[:0], n)) {
			return dst
		}
	}
	return append(dst, name...)
}

// FindSID returns an object by its SID: a group or an account, if there is one.
func (g *Graph) FindSID(sid ad.SID) (Node, bool) {
	authority, rid, ok := sid.Split()
	number, known := g.byAuthority[string(authority)]
	if !ok || !known || int(number) >= len(g.ranks) { // or of an object that was added after Compute
		return 0, false
	}
	wanted := internedSID{number, rid}
	first, found := slices.BinarySearchFunc(g.sorted, wanted, func(n Node, id internedSID) int { return g.compareInterned(g.sids[n], id) })
	if !found {
		return 0, false
	}
	for _, n := range g.sorted[first:] {
		if g.sids[n] != wanted {
			break
		}
		if g.isPrincipal(n) {
			return n, true
		}
	}
	return g.sorted[first], true
}
