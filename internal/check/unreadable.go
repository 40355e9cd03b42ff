package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/syncrun"
)

// On a domain controller, an attribute that every object has is unreadable if it is missing.

// commonAttributes returns the attributes of a kind's map that every object of a domain has. A
// run requires RequiredAttributes only. It sends a user without the others, but the values are
// then missing.
func (p *preflight) commonAttributes(kind identity.Kind) []string {
	if kind == identity.User {
		return append(identity.RequiredAttributes(kind, p.profile.Posture), "accountExpires", "pwdLastSet")
	}
	return identity.RequiredAttributes(kind, p.profile.Posture)
}

// addMissing counts the attributes that an entry of the search for attributes lacks. A run does not
// send an object without those in required.
func (c *objectCount) addMissing(required []string, entry *ad.Entry, attributes []string) {
	complete, readable := true, true
	for slot, name := range attributes {
		if len(entry.Values[slot]) > 0 {
			continue
		}
		c.missing[name]++
		complete = false
		readable = readable && !slices.Contains(required, name)
	}
	if !readable {
		c.incomplete++
	}
	if !complete {
		c.containers.add(string(entry.DN))
	}
}

// minObjects is how many objects there must be for an attribute that none of them shows to be
// reported. In a smaller directory, many attributes have no value.
const minObjects = 20

// checkAttributes reports which attributes of the objects of a kind are unreadable.
func (p *preflight) checkAttributes(ctx context.Context, kind identity.Kind, c *objectCount) Check {
	if c.incomplete == c.objects {
		if err := p.checkRequired(ctx, kind); err != nil {
			return failed(err, p.grant(p.profile.Base))
		}
	}
	notShown, err := p.findNotShown(ctx, kind, c)
	if err != nil {
		return failed(asTransient(ctx, err), "try again")
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(c.missing)) {
		found = append(found, fmt.Sprintf("%s of %s", name, c.part(c.missing[name], kind)))
	}
	if len(found) > 0 {
		found = []string{"not readable: " + strings.Join(found, ", ")}
	}
	if c.incomplete > 0 {
		found = append(found, fmt.Sprintf("a run neither sends nor deletes %s", c.part(c.incomplete, kind)))
	}
	if c.withoutID > 0 {
		found = append(found, fmt.Sprintf("%s have no readable objectSid or objectGUID%s", c.part(c.withoutID, kind), p.withoutIDEffect()))
	}
	if len(notShown) > 0 {
		found = append(found, fmt.Sprintf("none of %s shows %s: no values, or not readable", c.describe(kind), strings.Join(notShown, ", ")))
	}
	if len(found) == 0 {
		return ok("the attributes of %s are readable", quantity(c.objects, "object", "objects"))
	}
	remedy := p.grantBelow(c.containers)
	if len(notShown) > 0 {
		remedy = p.grantRemedy(p.grant(p.profile.Base))
	}
	if c.withoutID > 0 {
		remedy += "; or exclude them by ldap." + kind.String() + "-filter"
	}
	return warn(strings.Join(found, "; "), remedy)
}

// withoutIDEffect describes what entries without a readable identifier cause.
func (p *preflight) withoutIDEffect() string {
	if p.session.RootDSE.ExtendedDN {
		return ": their extended DNs identify them"
	}
	return ", and the server offers no extended DNs: deletions by absence will be undecided"
}

// part describes how many of the objects are concerned.
func (c *objectCount) part(n int, kind identity.Kind) string {
	if c.cut {
		return fmt.Sprintf("at least %d of %s", n, c.describe(kind))
	}
	return fmt.Sprintf("%d of %s", n, c.describe(kind))
}

// checkRequired returns the error for which a run is refused: no object of the kind shows an
// attribute that every one has.
func (p *preflight) checkRequired(ctx context.Context, kind identity.Kind) error {
	unreadable, err := syncrun.FindUnreadable(ctx, p.session, *p.profile, p.Search, kind)
	if err != nil || len(unreadable) == 0 {
		return asTransient(ctx, err)
	}
	return p.refused(fmt.Errorf("%w: %s of all %ss", errNotShown, strings.Join(unreadable, ", "), kind))
}

var errNotShown = errors.New("a run is refused, because attributes are not readable")

// findNotShown returns the optional attributes of users that no user shows. It asks for each of
// them with a size limit of one entry, until countTimeout.
func (p *preflight) findNotShown(ctx context.Context, kind identity.Kind, c *objectCount) (names []string, err error) {
	if kind != identity.User || c.objects <= minObjects {
		return nil, nil
	}
	searchCtx, cancel := context.WithTimeout(ctx, p.countTimeout)
	defer cancel()
	for _, name := range identity.OptionalAttributes(kind) {
		if slices.Contains(p.commonAttributes(kind), name) { // counted
			continue
		}
		found, err := p.session.Exists(searchCtx, directory.Search{
			Base: p.profile.Base, Scope: p.profile.Scope, Filter: "(&" + p.Search.Filter(kind, p.session.RootDSE) + "(" + name + "=*))",
		})
		switch {
		case err != nil && searchCtx.Err() != nil && ctx.Err() == nil: // the rest stays unknown
			p.reconnect(ctx)
			return names, p.sessionLost()
		case err != nil:
			return names, err
		case !found:
			names = append(names, name)
		}
	}
	return names, nil
}

// defaultMaxUnreadable is after how many objects the search for unreadable objects stops, and how many
// containers are tested whose security descriptors do not allow to list their contents.
const defaultMaxUnreadable = 10_000

var errEnough = errors.New("enough objects found")

// unreadableObjects finds objects of which the account can list the DN only. The other searches of a
// run do not find them.
func (p *preflight) unreadableObjects(ctx context.Context) Check {
	switch {
	case p.session == nil:
		return skipped("not bound")
	case !p.baseFound:
		return skipped("no base context")
	case !p.session.RootDSE.IsDomainController():
		return ok("not checked: the server is not a domain controller")
	}
	f, err := p.searchUnreadable(ctx)
	switch none := f.objects+f.unlisted == 0; {
	case err != nil:
		return failed(asTransient(ctx, err), "try again")
	case none && f.stopped:
		return warn(fmt.Sprintf("search for unreadable objects stopped after %s", p.countTimeout), "run the check at a quieter time")
	case none && f.more:
		return warn(fmt.Sprintf("the account has no List Contents on more than %s; the first %d were tested: each has visible objects", quantity(p.maxUnreadable, "container", "containers"), p.maxUnreadable), p.grantRemedy(p.grant(p.profile.Base)))
	case none:
		return ok("no objects that can be listed but not read")
	}
	return warn(f.describe(), p.grantBelow(f.below))
}

// unreadable is what the search for unreadable objects has found.
type unreadable struct {
	objects  int // that can be listed but not read
	unlisted int // readable containers whose contents cannot be listed; an empty one counts, too
	below    containers
	stopped  bool // by a limit or the time: there may be more
	more     bool // not all containers were tested
}

// searchUnreadable searches until countTimeout.
func (p *preflight) searchUnreadable(ctx context.Context) (f unreadable, err error) {
	searchCtx, cancel := context.WithTimeout(ctx, p.countTimeout)
	defer cancel()
	query := directory.Search{Base: p.profile.Base, Scope: p.profile.Scope, Filter: directory.FilterUnreadable, Attributes: []string{"1.1"}}
	_, err = p.session.Search(searchCtx, query, func(entry *ad.Entry) error {
		if dn := string(entry.DN); !p.session.RootDSE.IsSystem(dn) {
			f.below.add(dn)
			f.objects++
		}
		if f.objects > p.maxUnreadable {
			return errEnough
		}
		return nil
	})
	if err == nil && p.profile.Scope == directory.Subtree {
		err = p.addUnlisted(searchCtx, &f)
	}
	if err == nil {
		return f, nil
	}
	f.stopped = errors.Is(err, errEnough) || searchCtx.Err() != nil && ctx.Err() == nil
	p.reconnect(ctx) // a session cannot be used after an error
	if f.stopped {
		return f, p.sessionLost()
	}
	return f, err
}

// addUnlisted adds the containers that can be read, but in which the account sees no object and may list
// none.
func (p *preflight) addUnlisted(ctx context.Context, f *unreadable) error {
	dns, more, err := p.session.UnlistedContainers(ctx, p.profile.Base, p.profile.Scope, p.maxUnreadable)
	if err != nil {
		return err
	}
	empty, err := p.session.EmptyContainers(ctx, dns)
	for _, dn := range empty {
		f.below.addContainer(dn)
	}
	f.unlisted, f.more = len(empty), more
	return err
}

// describe describes how many objects can be listed but not read, and how many readable containers
// cannot be listed.
func (f unreadable) describe() string {
	const notFound = "a run does not find the users and groups in"
	var found []string
	atLeast := ""
	if f.stopped {
		atLeast = "at least "
	}
	switch {
	case f.objects == 1:
		found = append(found, atLeast+"1 object can be listed but not read: a run does not find it, and the users and groups below it")
	case f.objects > 1:
		found = append(found, fmt.Sprintf("%s%s can be listed but not read: a run does not find the users and groups among and below them", atLeast, quantity(f.objects, "object", "objects")))
	}
	if f.more {
		atLeast = "at least "
	}
	switch {
	case f.unlisted == 0 && f.more:
		found = append(found, "not all containers without List Contents were tested")
	case f.unlisted == 1:
		found = append(found, "the contents of "+atLeast+"1 container cannot be listed: "+notFound+" it")
	case f.unlisted > 1:
		found = append(found, fmt.Sprintf("the contents of %s%s cannot be listed: %s them", atLeast, quantity(f.unlisted, "container", "containers"), notFound))
	}
	return strings.Join(found, "; ")
}

// sessionLost returns an error if there is no session after a reconnect.
func (p *preflight) sessionLost() error {
	if p.session != nil {
		return nil
	}
	return fault.Operation{Op: "reconnect"}.Failed(fault.Transient, errConnectionLost, "check the server's connection limit and the network")
}

// containers are the containers of objects.
type containers struct {
	dns  []string // without duplicates
	more bool     // there are others
}

const (
	maxContainers   = 100 // collected
	namedContainers = 3   // in a remedy
)

// add adds the container of an object. That of an organizational unit is the unit: if it does not
// inherit, a right on an object above does not reach it.
func (c *containers) add(dn string) {
	container := directory.ParentDN(dn)
	if directory.IsUnit(dn) {
		container = dn
	}
	c.addContainer(container)
}

func (c *containers) addContainer(container string) {
	switch {
	case slices.Contains(c.dns, container):
	case len(c.dns) == maxContainers:
		c.more = true
	default:
		c.dns = append(c.dns, container)
	}
}

// highest returns the containers that are not below another one.
func (c *containers) highest() (highest []string) {
	isBelow := func(dn, other string) bool {
		below, _ := directory.InScope(dn, other, directory.Subtree)
		return below
	}
	for _, dn := range c.dns {
		if slices.ContainsFunc(highest, func(other string) bool { return isBelow(dn, other) }) {
			continue
		}
		highest = slices.DeleteFunc(highest, func(other string) bool { return isBelow(other, dn) })
		highest = append(highest, dn)
	}
	return highest
}

// grantBelow returns the remedy for unreadable objects: commands that name their containers.
func (p *preflight) grantBelow(c containers) string {
	var commands []string
	highest := c.highest()
	for _, dn := range highest[:min(len(highest), namedContainers)] {
		commands = append(commands, p.grant(dn))
	}
	if n := len(highest) - len(commands); n > 0 && !c.more {
		commands = append(commands, "and "+quantity(n, "more container", "more containers"))
	} else if n > 0 {
		commands = append(commands, "and at least "+quantity(n, "more container", "more containers"))
	}
	return p.grantRemedy(strings.Join(commands, "; "))
}

// grantRemedy returns the remedy for missing rights, with commands that grant them.
func (p *preflight) grantRemedy(commands string) string {
	return "grant the account the right to read, and remove what denies it: " + commands
}
