package membership

import (
	"encoding/binary"
	"errors"
	"fmt"

	"adconnector/internal/ad"
)

// Record is a part of the graph as it is kept: of an object, or of a group and its
// members. A nil value says that there is none any more.
type Record struct {
	Node  uint32
	Value []byte
}

// ErrRecord is returned for records that this room has not written.
var ErrRecord = errors.New("unreadable record of memberships")

// The records: an object is GUID, primary group, SID; a group is flags, role, and
// the numbers of its members.
const (
	objectPrimary = len(ad.GUID{})
	objectSID     = objectPrimary + 4
	groupHead     = 2
	flagSecurity  = 1
)

// RestoreObject takes a kept object up. Objects come before groups.
func (g *Graph) RestoreObject(number uint32, value []byte) error {
	const most = 1 << 28 // of objects: a damaged number must not take all memory
	if len(value) < objectSID || number > most {
		return fmt.Errorf("object %d: %w", number, ErrRecord)
	}
	for uint32(len(g.guids)) <= number {
		g.free = append(g.free, Node(len(g.guids)))
		g.grow()
	}
	n := Node(number)
	if g.guids[n] != (ad.GUID{}) {
		return fmt.Errorf("object %d: %w", number, ErrRecord)
	}
	guid := ad.GUID(value)
	at, twice := g.slot(guid)
	if twice || guid == (ad.GUID{}) {
		return fmt.Errorf("object %d: %w", number, ErrRecord)
	}
	g.guids[n] = guid
	g.table[at] = number + 1
	if len(g.guids)*4 > len(g.table)*3 {
		g.rehash(2 * len(g.table))
	}
	g.primary[n] = ad.RID(binary.LittleEndian.Uint32(value[objectPrimary:]))
	if of, ok := ad.ParseSID(value[objectSID:]); ok {
		g.setSID(n, of)
	}
	return nil
}

// RestoreGroup takes a kept group up.
func (g *Graph) RestoreGroup(number uint32, value []byte) error {
	g.Restored()
	if len(value) < groupHead || len(value)%4 != groupHead || !g.has(number) || int(value[1]) > len(roles) {
		return fmt.Errorf("group %d: %w", number, ErrRecord)
	}
	n := Node(number)
	g.groups = append(g.groups, group{
		node: n, there: true, security: value[0]&flagSecurity != 0, role: Role(value[1]), from: uint32(len(g.members)),
	})
	g.group[n] = uint32(len(g.groups))
	at := &g.groups[len(g.groups)-1]
	for rest := value[groupHead:]; len(rest) > 0; rest = rest[4:] {
		member := binary.LittleEndian.Uint32(rest)
		if !g.has(member) {
			return fmt.Errorf("group %d: %w", number, ErrRecord)
		}
		g.members = append(g.members, Node(member))
	}
	at.to = uint32(len(g.members))
	at.stored = g.mark(at)
	return nil
}

// Restored says that all has been taken up.
func (g *Graph) Restored() {
	if g.loaded == len(g.guids) {
		return
	}
	g.loaded = len(g.guids)
	free := g.free[:0]
	for _, n := range g.free {
		if g.guids[n] == (ad.GUID{}) {
			free = append(free, n)
		}
	}
	g.free = free
	clear(g.dirty)
}

func (g *Graph) has(number uint32) bool {
	return number < uint32(len(g.guids)) && g.guids[number] != (ad.GUID{})
}

// mark tells two contents of a group's record apart. It is never 0.
func (g *Graph) mark(at *group) uint64 {
	h := mix(uint64(at.role)<<1|flag(at.security), 6)
	for _, member := range g.members[at.from:at.to] {
		h += mix(uint64(member), 7)
	}
	return h | 1
}

// Changes lists the records that differ from those that the graph was restored
// from; after Compute.
func (g *Graph) Changes() (objects, groups []Record) {
	for n := range g.guids {
		_, dirty := g.dirty[Node(n)]
		kept := n < g.loaded && g.guids[n] != (ad.GUID{})
		switch {
		case g.guids[n] == (ad.GUID{}):
		case g.isUnused(Node(n)):
			if kept {
				objects = append(objects, Record{Node: uint32(n)})
			}
		case !kept || dirty:
			objects = append(objects, Record{uint32(n), g.encodeObject(Node(n))})
		}
	}
	for i := range g.groups {
		at := &g.groups[i]
		switch {
		case !at.there && at.stored != 0:
			groups = append(groups, Record{Node: uint32(at.node)})
		case at.there && g.mark(at) != at.stored:
			groups = append(groups, Record{uint32(at.node), g.encodeGroup(at)})
		}
	}
	return objects, groups
}

// isUnused reports whether nothing is known of an object any more but that it was.
func (g *Graph) isUnused(n Node) bool { return !g.isPrincipal(n) && len(g.GroupsOf(n)) == 0 }

func (g *Graph) encodeObject(n Node) []byte {
	guid, of := g.guids[n], g.sids[n]
	value := make([]byte, 0, objectSID+32)
	value = append(value, guid[:]...)
	value = binary.LittleEndian.AppendUint32(value, uint32(g.primary[n]))
	if of.authority != 0 {
		value = append(value, g.authorities[of.authority].bytes...)
		value = binary.LittleEndian.AppendUint32(value, uint32(of.rid))
	}
	return value
}

func (g *Graph) encodeGroup(at *group) []byte {
	value := make([]byte, 0, groupHead+4*int(at.to-at.from))
	value = append(value, byte(flag(at.security)*flagSecurity), byte(at.role))
	for _, member := range g.members[at.from:at.to] {
		value = binary.LittleEndian.AppendUint32(value, uint32(member))
	}
	return value
}
