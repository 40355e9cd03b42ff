package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/syncrun"
)

// objectCount is the result of one search for all objects of a kind.
type objectCount struct {
	objects    int
	withoutID  int            // without a readable objectSid or objectGUID: a run skips them
	incomplete int            // without an attribute that every object has: a run does not send them
	missing    map[string]int // objects without each attribute that every object has
	containers containers     // of objects that lack any of them
	sample     []ad.GUID      // the first ones
	cut        bool           // the timeout ended the search
	err        error          // the search failed
}

// sampleSize is the number of objects whose attributes are read to check the rights.
const sampleSize = 20

func (p *preflight) readUsers(ctx context.Context) Check  { return p.checkObjects(ctx, identity.User) }
func (p *preflight) readGroups(ctx context.Context) Check { return p.checkObjects(ctx, identity.Group) }

// filters checks that the schema has the attributes of the configured filters, and that delta syncs
// find the objects that begin or cease to match them.
func (p *preflight) filters(ctx context.Context) Check {
	untracked := p.Search.UntrackedFilters()
	switch {
	case p.session == nil:
		return skipped("not bound")
	case p.Search.UserFilter == "" && p.Search.GroupFilter == "":
		return ok("none: all users and groups")
	}
	unknown, err := p.unknownAttributes(ctx)
	switch {
	case err != nil:
		return failed(asTransient(ctx, err), "")
	case len(unknown) > 0:
		return warn(strings.Join(unknown, "; ")+": the schema has no such attribute, so no object matches the comparison", "correct the names of the attributes")
	case len(untracked) == 0 || !p.session.RootDSE.IsDomainController(): // without delta syncs, each run finds all objects
		return ok("changes are found by each run")
	}
	var found []string
	for _, filter := range untracked {
		found = append(found, filter.String())
	}
	return warn(strings.Join(found, "; ")+": delta syncs do not find it", syncrun.UntrackedRemedy)
}

// unknownAttributes returns the attributes of each filter that the schema of the domain does not
// have.
func (p *preflight) unknownAttributes(ctx context.Context) (found []string, err error) {
	if !p.session.RootDSE.IsDomainController() {
		return nil, nil
	}
	for _, filter := range []struct{ setting, text string }{{"ldap.user-filter", p.Search.UserFilter}, {"ldap.group-filter", p.Search.GroupFilter}} {
		var names []string
		assertions, _ := directory.FilterAssertions(filter.text)
		for _, a := range assertions {
			if a.Attribute != "" && !slices.Contains(names, a.Attribute) {
				names = append(names, a.Attribute)
			}
		}
		unknown, err := p.session.UnknownAttributes(ctx, names)
		if err != nil {
			return nil, err
		}
		if len(unknown) > 0 {
			found = append(found, filter.setting+" names "+strings.Join(unknown, ", "))
		}
	}
	return found, nil
}

// checkObjects counts the objects of a kind, and reads some of them like a run.
func (p *preflight) checkObjects(ctx context.Context, kind identity.Kind) Check {
	switch {
	case p.session == nil:
		return skipped("not bound")
	case !p.baseFound:
		return skipped("no base context")
	}
	c := p.count(ctx, kind)
	p.objectCounts[kind] = c
	plural := kind.String() + "s"
	switch {
	case c.err != nil:
		return failed(c.err, p.grant(p.profile.Base))
	case c.objects == 0 && p.session.RootDSE.IsDomainController():
		if err := p.checkRequired(ctx, kind); err != nil {
			return failed(err, p.grant(p.profile.Base))
		}
		fallthrough
	case c.objects == 0:
		return warn(fmt.Sprintf("no visible %s below %s", plural, p.profile.Base),
			fmt.Sprintf("check %s and %s; if they are correct, grant the account the right to read: %s",
				p.setting("profile.baseContext, profile.searchScope", "the profile's base context and scope"), "ldap."+kind.String()+"-filter", p.grant(p.profile.Base)))
	case c.withoutID == c.objects:
		return failed(p.refused(fmt.Errorf("%s visible, but %w", quantity(c.objects, kind.String()+" is", plural+" are"), errWithoutID)), "")
	}
	mapped, err := p.sample(ctx, kind, c.sample)
	switch {
	case err != nil:
		return failed(asTransient(ctx, err), p.grant(p.profile.Base))
	case mapped == 0:
		return failed(p.refused(fmt.Errorf("%w: the first %s", errUnreadable, quantity(len(c.sample), kind.String(), plural))), "")
	case p.session.RootDSE.IsDomainController():
		return p.checkAttributes(ctx, kind, c)
	case c.withoutID > 0:
		return warn(fmt.Sprintf("%s are readable, but %d of %d have no readable objectSid or objectGUID and will be skipped", plural, c.withoutID, c.objects),
			"grant the account the right to read them, or exclude them by ldap."+kind.String()+"-filter")
	}
	return ok("all attributes of %s are readable", quantity(mapped, "object", "objects"))
}

var (
	errWithoutID      = errors.New("none has a readable objectSid and objectGUID")
	errUnreadable     = errors.New("no object is completely readable")
	errConnectionLost = errors.New("connection lost, and the server refuses new connections")
)

// refused returns the error for a missing right of the account.
func (p *preflight) refused(cause error) error {
	return fault.Operation{Op: "read", Object: p.profile.Base}.Failed(fault.Refused, cause, "grant the account the right to read: "+p.grant(p.profile.Base))
}

// grant returns the command that grants the account the right to read everything below a DN.
func (p *preflight) grant(dn string) string {
	return directory.GrantCommand(dn, p.bound.name, directory.ReadObject)
}

// count counts the objects of a kind until countTimeout. It reads the attributes that every object
// has. They are small.
func (p *preflight) count(ctx context.Context, kind identity.Kind) *objectCount {
	c := &objectCount{missing: map[string]int{}}
	searchCtx, cancel := context.WithTimeout(ctx, p.countTimeout)
	defer cancel()
	attributes, required := p.commonAttributes(kind), identity.RequiredAttributes(kind, p.profile.Posture)
	guidSlot, sidSlot := slices.Index(attributes, "objectGUID"), slices.Index(attributes, "objectSid")
	query := directory.Search{
		Base: p.profile.Base, Scope: p.profile.Scope, Filter: p.Search.Filter(kind, p.session.RootDSE), Attributes: attributes,
	}
	_, err := p.session.Search(searchCtx, query, func(entry *ad.Entry) error {
		c.objects++
		guid, hasGUID := ad.ParseGUID(entry.First(guidSlot))
		if _, hasSID := ad.ParseSID(entry.First(sidSlot)); !hasSID || !hasGUID {
			c.withoutID++
		} else if len(c.sample) < sampleSize {
			c.sample = append(c.sample, guid)
		}
		c.addMissing(required, entry, attributes)
		return nil
	})
	if err == nil {
		return c
	}
	c.cut = searchCtx.Err() != nil && ctx.Err() == nil
	if !c.cut {
		c.err = asTransient(ctx, err)
	}
	address := p.session.Address
	p.reconnect(ctx) // a session cannot be used after an error
	if c.cut && p.session == nil {
		c.err = fault.Operation{Op: "reconnect to", Object: address}.Failed(fault.Transient, errConnectionLost, "check the server's connection limit and the network")
	}
	return c
}

func (p *preflight) reconnect(ctx context.Context) {
	old := p.session
	p.session, _ = old.Reconnect(ctx) // nil after an error: later checks are skipped
	old.Close()
}

// sample reads objects with the attributes that a run requests. It returns how many result in an
// asset.
func (p *preflight) sample(ctx context.Context, kind identity.Kind, guids []ad.GUID) (mapped int, err error) {
	mapper := identity.NewMapper(kind)
	filter := "(&" + p.Search.Filter(kind, p.session.RootDSE) + directory.FilterByGUID(guids) + ")"
	query := directory.Search{Base: p.profile.Base, Scope: p.profile.Scope, Filter: filter, Attributes: mapper.Attributes}
	_, err = p.session.Search(ctx, query, func(entry *ad.Entry) error {
		if _, err := mapper.Map(nil, entry, p.now(), identity.Logons{}); err == nil {
			mapped++
		}
		return nil
	})
	return mapped, err
}

func (p *preflight) readDeleted(ctx context.Context) Check {
	switch {
	case p.session == nil:
		return skipped("not bound")
	case !p.session.RootDSE.IsDomainController():
		return warn("the server is not a domain controller: only full syncs find deletions", "connect to a domain controller if there is one")
	}
	readable, err := p.session.CanReadDeleted(ctx)
	container := p.session.RootDSE.DeletedObjects()
	switch {
	case err != nil:
		return failed(asTransient(ctx, err), "try again")
	case !readable:
		return warn(container+" is not readable: only full syncs find deletions", "optional, so that delta syncs find deletions too: as a domain administrator, run "+
			directory.TakeOwnershipCommand(container)+", then "+p.grant(container))
	}
	return ok("%s is readable: each run finds deletions", container)
}

func (p *preflight) counts(context.Context) Check {
	users, groups := p.objectCounts[identity.User], p.objectCounts[identity.Group]
	if users == nil || groups == nil || users.err != nil || groups.err != nil {
		return skipped("users and groups are not readable")
	}
	found := fmt.Sprintf("%s and %s", users.describe(identity.User), groups.describe(identity.Group))
	if users.cut || groups.cut {
		found += fmt.Sprintf(": counting stopped after %s", p.countTimeout)
	}
	if users.objects+groups.objects == 0 {
		return warn(found, "check "+p.setting("profile.baseContext and profile.searchScope", "the profile's base context and scope"))
	}
	return ok("%s", found)
}

func (c *objectCount) describe(kind identity.Kind) string {
	text := quantity(c.objects, kind.String(), kind.String()+"s")
	if c.cut {
		return "more than " + text
	}
	return text
}
