package access

import (
	"bytes"
	"slices"

	"adconnector/internal/ad"
)

// Evaluate returns, for each right that exists for the class of the object, the principals that
// hold it, without the well-known administrators of these domains.
//
// Each list is complete by itself: who has full control is also in the list of each right that
// this includes. The entries are weighed in the stored order, for each principal and elementary
// right: the first entry that has the right decides. An entry applies to a right if it has no
// object type, or that of the right, of the property, of the property set that has the property,
// or of the class of child objects. The rest follows MS-ADTS 5.1.3.3 and MS-DTYP 2.5.3.2:
//
//   - Inherit-only entries do not apply to the object. The inherited object type does not matter:
//     it decides which child objects inherit the entry, and an access check ignores it. The
//     directory adds the flag to what an object of another class inherits. Without the flag, as in
//     entries of old setups of Exchange, an entry "for users" applies to the domain itself.
//   - A conditional entry is assumed to apply if it allows, and not to apply if it denies.
//   - An entry that denies Everyone or Authenticated Users denies also those that are in them.
//     Other groups that a principal is in are not considered, except that one of the two rights of
//     [ReplicationRights] may come from an entry for Everyone or Authenticated Users.
//   - The owner may write the list, unless there is an entry for OWNER RIGHTS (S-1-3-4). Entries
//     for OWNER RIGHTS apply to the owner.
//   - Without a list, Everyone has all rights.
//
// [FullControl] needs all rights over the whole object, from one or more entries. Denied deletions
// do not matter, because the option "Protect object from accidental deletion" denies them to
// Everyone, and who may write the list can remove that. Denied properties do not matter, either.
func Evaluate(d *ad.Descriptor, class Class, domains Domains) (h Holders) {
	var buffer [maxList]principal
	e := evaluation{principals: buffer[:0]}
	if d.Owner != nil {
		e.get(d.Owner).granted = owns
	}
	if d.HasDACL {
		e.weigh(d, class)
	} else {
		e.get(ad.Everyone).granted |= ^owns
	}
	e.list(&h, class, domains)
	return h
}

// principal has what is known of a principal.
type principal struct {
	sid              ad.SID
	decided, granted grants
	rights           rightSet
}

// evaluation is the state of an evaluation.
type evaluation struct {
	principals []principal
	index      map[string]int // of the principals, from maxList on
	// What Everyone and Authenticated Users are granted and denied.
	everyoneGranted, authenticatedGranted, everyoneDenied, authenticatedDenied grants
}

// maxList is the number of principals up to which a comparison with each is faster than a map.
const maxList = 32

// get returns the principal with a SID. The pointer is valid until the next call.
func (e *evaluation) get(sid ad.SID) *principal {
	if e.index == nil {
		for i := range e.principals {
			if bytes.Equal(e.principals[i].sid, sid) {
				return &e.principals[i]
			}
		}
		if len(e.principals) == maxList {
			e.index = make(map[string]int, 4*maxList)
			for i := range e.principals {
				e.index[string(e.principals[i].sid)] = i
			}
		}
	}
	if e.index != nil {
		if i, found := e.index[string(sid)]; found {
			return &e.principals[i]
		}
		e.index[string(sid)] = len(e.principals)
	}
	e.principals = append(e.principals, principal{sid: sid})
	return &e.principals[len(e.principals)-1]
}

// weigh weighs the entries in the stored order.
func (e *evaluation) weigh(d *ad.Descriptor, class Class) {
	if d.Owner != nil && !hasOwnerRights(d.DACL) {
		const implicit = grants(maskReadControl | maskWriteDACL)
		owner := e.get(d.Owner)
		owner.decided |= implicit
		owner.granted |= implicit
	}
	for i := range d.DACL {
		entry := &d.DACL[i]
		allows, weighed := entry.Weighed()
		if !weighed {
			continue
		}
		set := entryGrants(entry, allows, class)
		trustee := entry.Trustee
		if bytes.Equal(trustee, ownerRights) {
			trustee = d.Owner
		}
		if set == 0 || trustee == nil {
			continue
		}
		if allows {
			e.allow(trustee, set)
		} else {
			e.deny(trustee, set)
		}
	}
}

// hasOwnerRights reports whether a list has an entry for OWNER RIGHTS.
func hasOwnerRights(list []ad.AccessEntry) bool {
	for i := range list {
		if _, weighed := list[i].Weighed(); weighed && bytes.Equal(list[i].Trustee, ownerRights) {
			return true
		}
	}
	return false
}

// entryGrants returns the elementary rights that an entry allows or denies.
func entryGrants(entry *ad.AccessEntry, allows bool, class Class) grants {
	mask, object := specific(entry.Mask), entry.ObjectType
	if !allows {
		return grantsOf(mask&^(maskDelete|maskDeleteTree|maskDeleteChild), object)
	}
	// The root of the tree of object types is the class of the object (MS-ADTS 5.1.3.3.3). For
	// child objects, the object type is their class. An entry that denies must have the exact
	// class, which is not known.
	if object != (ad.GUID{}) && slices.Contains(ownClasses[class], object) {
		return grantsOf(mask, object) | grantsOf(mask&^(maskCreateChild|maskDeleteChild), ad.GUID{})
	}
	return grantsOf(mask, object)
}

func (e *evaluation) deny(sid ad.SID, set grants) {
	p := e.get(sid)
	set &^= p.decided
	p.decided |= set
	switch {
	case bytes.Equal(sid, ad.Everyone):
		e.everyoneDenied |= set
	case bytes.Equal(sid, ad.AuthenticatedUsers):
		e.authenticatedDenied |= set
	}
}

func (e *evaluation) allow(sid ad.SID, set grants) {
	p := e.get(sid)
	set &^= p.decided
	p.decided |= set
	set &^= e.everyoneDenied
	if isAuthenticated(sid) {
		set &^= e.authenticatedDenied
	}
	p.granted |= set
	switch {
	case bytes.Equal(sid, ad.Everyone):
		e.everyoneGranted |= set
	case bytes.Equal(sid, ad.AuthenticatedUsers):
		e.authenticatedGranted |= set
	}
}

// isAuthenticated reports whether a principal is in Authenticated Users.
func isAuthenticated(sid ad.SID) bool {
	return !bytes.Equal(sid, ad.Everyone) && !bytes.Equal(sid, ad.AnonymousLogon)
}

// world returns what a principal is granted by Everyone and Authenticated Users. An entry of its
// own about the same is more specific.
func (e *evaluation) world(p *principal) grants {
	set := e.everyoneGranted
	if isAuthenticated(p.sid) {
		set |= e.authenticatedGranted
	}
	return set &^ p.decided
}

// list fills the lists of the holders. They share one array.
func (e *evaluation) list(h *Holders, class Class, domains Domains) {
	holders, total := e.principals[:0], 0
	var counts [numRights]int
	for _, p := range e.principals {
		p.rights = p.granted.rights(e.world(&p)) & rightsOf[class]
		if p.rights != 0 {
			p.rights &^= leftOut(p.sid, domains)
		}
		if p.rights == 0 {
			continue
		}
		holders = append(holders, p)
		for right := range numRights {
			if p.rights.has(right) {
				counts[right]++
				total++
			}
		}
	}
	if total == 0 {
		return
	}
	slices.SortFunc(holders, func(a, b principal) int { return a.sid.Compare(b.sid) })
	free := make([]ad.SID, total)
	for right := range numRights {
		if counts[right] == 0 {
			continue
		}
		list := free[:0:counts[right]]
		free = free[counts[right]:]
		for i := range holders {
			if holders[i].rights.has(right) {
				list = append(list, holders[i].sid)
			}
		}
		h[right] = list
	}
}
