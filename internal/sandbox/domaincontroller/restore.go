package domaincontroller

import (
	"maps"
	"slices"

	"adconnector/internal/ad"
)

// Restoration describes a restore of the domain controller.
type Restoration struct {
	// Snapshot is the content to restore. nil: the present one, so that nothing is lost.
	Snapshot *Snapshot
	// USNRollback is the decrease of the highest update sequence number without a snapshot.
	// Objects with a higher number keep their content and get the new highest number.
	USNRollback ad.USN
	// SameInvocation keeps the invocation ID, or that of the snapshot. A snapshot of a virtual machine does that, and
	// a supported restore never.
	SameInvocation bool
}

// Snapshot is a copy of the content of a domain controller.
type Snapshot struct {
	objects     []*object
	contents    []object // of objects, in the same order
	groupsBySID map[string]*object
	passwords   map[*object]string
	highest     ad.USN
	nextRID     uint32

	invocationID ad.GUID
}

// Snapshot returns a copy of the content.
func (d *Server) Snapshot() *Snapshot {
	d.endMemberships()
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := &Snapshot{
		objects: slices.Clone(d.objects), contents: make([]object, len(d.objects)),
		groupsBySID: maps.Clone(d.groupsBySID), passwords: maps.Clone(d.passwords), highest: d.highest, nextRID: d.nextRID,
		invocationID: d.invocationID,
	}
	for i, o := range d.objects {
		s.contents[i] = o.clone()
	}
	return s
}

// clone returns a copy of an object. It refers to the same other objects.
func (o *object) clone() object {
	c := *o
	c.children, c.members, c.memberOf = maps.Clone(o.children), slices.Clone(o.members), slices.Clone(o.memberOf)
	c.memberEnds = maps.Clone(o.memberEnds)
	return c
}

// Restore simulates a restore from a backup, or from a snapshot of the virtual machine.
func (d *Server) Restore(r Restoration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Snapshot != nil {
		d.putBack(r.Snapshot)
	}
	if !r.SameInvocation {
		d.invocationID = newGUID(d.ownRandom)
		d.settings.set("invocationId", string(d.invocationID[:]))
	}
	d.highest = max(1, d.highest-r.USNRollback)
	for _, o := range d.objects {
		o.usnChanged = min(o.usnChanged, d.highest)
		o.usnCreated = min(o.usnCreated, d.highest)
	}
	d.recordChange(d.settings)
}

// putBack replaces the content by that of a snapshot, which remains usable. Later RIDs and
// USNs are assigned again.
func (d *Server) putBack(s *Snapshot) {
	d.objects = slices.Clone(s.objects)
	d.groupsBySID, d.passwords = maps.Clone(s.groupsBySID), maps.Clone(s.passwords)
	d.highest, d.nextRID, d.invocationID = s.highest, s.nextRID, s.invocationID
	clear(d.byGUID)
	for i, o := range d.objects {
		*o = s.contents[i].clone()
		d.byGUID[o.guid] = o
	}
}
