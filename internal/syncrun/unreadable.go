package syncrun

import (
	"context"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// In a filter, an attribute that the account cannot read does not exist (MS-ADTS 3.1.1.3.1.3.1).
// So an object whose attributes became unreadable, for example because an organizational unit
// does not inherit the rights of the account any more, is absent from all searches but exists. A
// base search for its identifier finds it: the filter of that search compares no such attribute.
//
// An object that the account cannot even list is not found by any search: see UnreadableContainers.

// addUnreadable marks the candidates that exist: in the scope but unreadable, or elsewhere. It returns
// the result with the unreadable ones counted.
func (r *reader) addUnreadable(ctx context.Context, result readResult, e Evidence) (readResult, error) {
	indexes := candidatesToLocate(e, r.guard)
	if len(indexes) == 0 || !r.session.RootDSE.IsDomainController() {
		return result, nil
	}
	if err := r.session.reconnectIfIdle(ctx); err != nil {
		return result, err
	}
	defer func() { r.session.lastUsed = time.Now() }()
	base, err := r.canonicalBase(ctx)
	if err != nil {
		return result, err
	}
	counted := map[identity.Kind]int{} // entries without GUID are counted already
	for kind, c := range result.counters {
		counted[kind] = c.withoutGUID
	}
	for _, i := range indexes {
		c := &e.Candidates[i]
		attributes := locatedAttributes(c.Kind, r.posture != nil)
		located, found, err := r.session.Locate(ctx, c.searchBase(), attributes...)
		if err != nil {
			return result, err
		}
		missing := missingAttributes(located, attributes)
		c.Unreadable = found && len(missing) > 0 && r.inScope(located, c.Kind, base)
		if !c.Unreadable {
			c.Located = found
			continue
		}
		if counted[c.Kind] > 0 && slices.Contains(missing, "objectGUID") {
			counted[c.Kind]--
		} else {
			result.add(unreadableObject(c.Kind, missing))
		}
		r.log.Debug().Stringer("kind", c.Kind).Stringer("sid", c.SID).Stringer("guid", c.GUID).Str("dn_hash", hashDN([]byte(located.DN))).
			Str("base_dn", directory.ParentDN(located.DN)).Msg(MsgObjectUnreadable)
	}
	return result, nil
}

// candidatesToLocate returns the indexes of the candidates whose existence is checked: those that
// would be sent without a tombstone, and the others if the guard would let as many pass. A delta
// sync does not check again those that an earlier run has checked.
func candidatesToLocate(e Evidence, g Guard) (indexes []int) {
	sent := map[ad.GUID]bool{}
	for _, object := range DecideDeletions(e, g).Send {
		sent[object.GUID] = true
	}
	var others []int
	for i, c := range e.Candidates {
		switch {
		case c.Tombstone:
		case sent[c.GUID]:
			indexes = append(indexes, i)
		case e.FullSync || !c.HeldBefore && c.Undecided == "":
			others = append(others, i)
		}
	}
	if len(indexes)+len(others) <= max(g.MaxDeletes, fewDeletions) {
		indexes = append(indexes, others...)
		slices.Sort(indexes)
	}
	return indexes
}

// searchBase returns the search base that names the candidate's object. The GUID of a role is
// derived from that of its group, so the SID names the group.
func (c *Candidate) searchBase() string {
	if c.Kind == identity.Role {
		return directory.BaseOfSID(c.SID)
	}
	return directory.BaseOfGUID(c.GUID)
}

// locatedAttributes returns the attributes that decide whether an object of a kind is found by
// the searches of a run and mapped. Every object of the kind has them.
func locatedAttributes(kind identity.Kind, withPosture bool) []string {
	attributes := append([]string{"objectClass"}, identity.RequiredAttributes(kind, withPosture)...)
	if kind == identity.Role {
		attributes = append(attributes, "sAMAccountName", "groupType")
	}
	return attributes
}

// missingAttributes returns the attributes that are not readable.
func missingAttributes(l directory.Location, attributes []string) []string {
	return slices.DeleteFunc(slices.Clone(attributes), func(name string) bool { return len(l.Attributes.First(name)) > 0 })
}

func unreadableObject(kind identity.Kind, missing []string) readResult {
	result := readResult{counters: map[identity.Kind]counters{kind: {unreadable: 1}}, missing: map[string]int{}}
	for _, name := range missing {
		result.missing[name] = 1
	}
	return result
}

// canonicalBase returns the DN of the profile's base as the server writes it.
func (r *reader) canonicalBase(ctx context.Context) (string, error) {
	located, found, err := r.session.Locate(ctx, r.source.Base, "1.1")
	switch {
	case err != nil:
		return "", baseContextError(err)
	case !found:
		return r.source.Base, nil
	}
	return located.DN, nil
}

// inScope reports whether the searches for a kind of objects can find an object by its place. An
// invalid DN proves nothing, so such an object counts as in scope.
func (r *reader) inScope(l directory.Location, kind identity.Kind, base string) bool {
	scope := r.source.Scope
	if kind == identity.Role || kind == identity.Domain {
		base, scope = r.scopeOf(true)
	}
	in, ok := directory.InScope(l.DN, base, scope)
	return in || !ok
}
