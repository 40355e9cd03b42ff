package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"adconnector/internal/ad"
)

// Record is a stored part of the graph: an object, or a group and its members. A nil Value
// means that the record is to be deleted.
type Record struct {
	Node  uint32
	Value []byte
}

// ErrInvalidRecord is returned for records that ChangedRecords did not return.
var ErrInvalidRecord = errors.New("invalid membership record")

// The format of the records. An object is its GUID, the RID of its primary group, its SID, its kind
// and its name. An object without a SID ends before it. Version 1.0.0 stored no kind and no name. A
// group is its flags, its role and the nodes of its members.
const (
	objectPrimary = len(ad.GUID{})
	objectSID     = objectPrimary + 4
	groupHeader   = 2
	flagSecurity  = 1

	flagUnreadable = 2 // version 1.0.0 ignores this one and the next
	flagKnownEmpty = 4
)

// RestoreObject adds a stored object. All objects must be restored before the groups.
func (g *Graph) RestoreObject(number uint32, value []byte) error {
	const maxNumber = 1 << 28 // limits the memory that a damaged record can take
	if len(value) < objectSID || number > maxNumber {
		return fmt.Errorf("object %d: %w", number, ErrInvalidRecord)
	}
	for uint32(len(g.guids)) <= number {
		g.freeNodes = append(g.freeNodes, Node(len(g.guids)))
		g.addNode()
	}
	n := Node(number)
	if g.guids[n] != (ad.GUID{}) {
		return fmt.Errorf("object %d: %w", number, ErrInvalidRecord)
	}
	guid := ad.GUID(value)
	index, duplicate := g.tableIndex(guid)
	if duplicate || guid == (ad.GUID{}) {
		return fmt.Errorf("object %d: %w", number, ErrInvalidRecord)
	}
	g.guids[n] = guid
	g.guidTable[index] = number + 1
	if len(g.guids)*4 > len(g.guidTable)*3 {
		g.rehash(2 * len(g.guidTable))
	}
	g.primaryRID[n] = ad.RID(binary.LittleEndian.Uint32(value[objectPrimary:]))
	g.restorePrincipal(n, value[objectSID:])
	return nil
}

// restorePrincipal restores the SID, the kind and the name of an object.
func (g *Graph) restorePrincipal(n Node, value []byte) {
	if len(value) < sidHeader {
		return
	}
	size := min(sidHeader+4*int(value[1]), len(value))
	sid, ok := ad.ParseSID(value[:size])
	if !ok {
		return
	}
	g.setSID(n, sid)
	if rest := value[size:]; len(rest) > 0 {
		g.kinds[n] = min(Kind(rest[0]), lastStoredKind)
		g.SetName(n, rest[1:])
	}
}

// RestoreGroup adds a stored group.
func (g *Graph) RestoreGroup(number uint32, value []byte) error {
	g.FinishRestore()
	if len(value) < groupHeader || len(value)%4 != groupHeader || !g.exists(number) || int(value[1]) > len(roles) {
		return fmt.Errorf("group %d: %w", number, ErrInvalidRecord)
	}
	n := Node(number)
	g.groups = append(g.groups, group{
		node: n, alive: true, security: value[0]&flagSecurity != 0, unreadable: value[0]&flagUnreadable != 0, knownEmpty: value[0]&flagKnownEmpty != 0, role: Role(value[1]), memberStart: uint32(len(g.members)),
	})
	g.groupIndex[n] = uint32(len(g.groups))
	gr := &g.groups[len(g.groups)-1]
	for rest := value[groupHeader:]; len(rest) > 0; rest = rest[4:] {
		member := binary.LittleEndian.Uint32(rest)
		if !g.exists(member) {
			return fmt.Errorf("group %d: %w", number, ErrInvalidRecord)
		}
		g.members = append(g.members, Node(member))
	}
	gr.memberEnd = uint32(len(g.members))
	gr.storedHash = g.recordHash(gr)
	return nil
}

// FinishRestore must be called after the last restored record, before changes.
func (g *Graph) FinishRestore() {
	if g.restored == len(g.guids) {
		return
	}
	g.restored = len(g.guids)
	g.freeNodes = slices.DeleteFunc(g.freeNodes, func(n Node) bool { return g.guids[n] != (ad.GUID{}) })
	clear(g.changed)
}

// exists reports whether a node is in use.
func (g *Graph) exists(number uint32) bool {
	return number < uint32(len(g.guids)) && g.guids[number] != (ad.GUID{})
}

// recordHash returns a hash of a group's record. It is never 0.
func (g *Graph) recordHash(gr *group) uint64 {
	h := mix(uint64(gr.role)<<8|uint64(gr.flags()), 6)
	for _, member := range g.members[gr.memberStart:gr.memberEnd] {
		h += mix(uint64(member), 7)
	}
	return h | 1
}

// ChangedRecords returns the records that differ from the restored ones. It must be called
// after Compute. Values stay valid.
func (g *Graph) ChangedRecords() (objects, groups iter.Seq[Record]) {
	return g.changedObjects, g.changedGroups
}

func (g *Graph) changedObjects(yield func(Record) bool) {
	var values valueBuffer
	for n := range g.guids {
		_, changed := g.changed[Node(n)]
		stored := n < g.restored
		record := Record{Node: uint32(n)}
		switch {
		case g.guids[n] == (ad.GUID{}):
			continue
		case g.isUnreferenced(Node(n)):
			if !stored {
				continue
			}
		case !stored || changed:
			record.Value = values.add(g.objectSize(Node(n)), func(dst []byte) []byte { return g.appendObject(dst, Node(n)) })
		default:
			continue
		}
		if !yield(record) {
			return
		}
	}
}

func (g *Graph) changedGroups(yield func(Record) bool) {
	var values valueBuffer
	for i := range g.groups {
		gr := &g.groups[i]
		record := Record{Node: uint32(gr.node)}
		switch {
		case !gr.alive && gr.storedHash != 0:
		case gr.alive && g.recordHash(gr) != gr.storedHash:
			record.Value = values.add(gr.size(), func(dst []byte) []byte { return g.appendGroup(dst, gr) })
		default:
			continue
		}
		if !yield(record) {
			return
		}
	}
}

// valueBuffer is the memory of values. Many of them share a block.
type valueBuffer struct{ block []byte }

const valueBlock = 32 << 10

// add returns the value of at most size bytes that f appends.
func (b *valueBuffer) add(size int, f func(dst []byte) []byte) []byte {
	if cap(b.block)-len(b.block) < size {
		b.block = make([]byte, 0, max(size, valueBlock))
	}
	start := len(b.block)
	b.block = f(b.block)
	return slices.Clip(b.block[start:])
}

// isUnreferenced reports whether an object is no account, no group and no member.
func (g *Graph) isUnreferenced(n Node) bool { return !g.isPrincipal(n) && len(g.GroupsOf(n)) == 0 }

// objectSize returns the maximum size of an object's record.
func (g *Graph) objectSize(n Node) int { return objectSID + maxSIDSize + 1 + len(g.storedName(n)) }

func (g *Graph) appendObject(dst []byte, n Node) []byte {
	guid := g.guids[n]
	dst = append(dst, guid[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(g.primaryRID[n]))
	if g.HasSID(n) {
		dst = append(append(g.AppendBinarySID(dst, n), byte(g.kinds[n])), g.storedName(n)...)
	}
	return dst
}

// size returns the size of a group's record.
func (gr *group) size() int { return groupHeader + 4*int(gr.memberEnd-gr.memberStart) }

func (g *Graph) appendGroup(dst []byte, gr *group) []byte {
	dst = append(dst, gr.flags(), byte(gr.role))
	for _, member := range g.members[gr.memberStart:gr.memberEnd] {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(member))
	}
	return dst
}

// flags returns the flags of a group's record.
func (gr *group) flags() byte {
	return byte(bit(gr.security)*flagSecurity | bit(gr.unreadable)*flagUnreadable | bit(gr.knownEmpty)*flagKnownEmpty)
}
