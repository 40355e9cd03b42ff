package domaincontroller

import (
	"errors"
	"slices"
	"time"
)

// Expire makes the membership of a group's member end at a time, like a time-bound membership of
// Windows Server 2016. This change assigns an update sequence number, and the end of the
// membership assigns none. A later change of the members makes all memberships unlimited.
func (d *Server) Expire(group, member string, at time.Time) error {
	return d.change("expire a member of", group, func(o *object) error {
		target := d.lookup(member)
		if !slices.Contains(o.members, target) {
			return errors.New("not a member")
		}
		if o.memberEnds == nil {
			o.memberEnds = map[*object]time.Time{}
		}
		o.memberEnds[target] = at
		if !slices.Contains(d.timeBound, o) {
			d.timeBound = append(d.timeBound, o)
		}
		return nil
	})
}

// endMemberships removes both ends of the links whose time has come.
func (d *Server) endMemberships() {
	d.mu.RLock()
	found := len(d.timeBound) > 0
	d.mu.RUnlock()
	if !found {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.options.Now()
	for _, group := range d.timeBound {
		for member, end := range group.memberEnds {
			if end.After(now) {
				continue
			}
			delete(group.memberEnds, member)
			group.members, member.memberOf = removeObject(group.members, member), removeObject(member.memberOf, group)
		}
	}
}
