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
)

// tally is what one reading of all objects of a kind has counted.
type tally struct {
	objects  int
	nameless int       // of them: without a readable objectSid or objectGUID, so that a run skips them
	sample   []ad.GUID // the first ones
	cut      bool      // the time was up before the end
	err      error     // nothing could be read
}

// sampleSize is how many objects are read whole, to see whether that may be done.
const sampleSize = 20

// telling is an attribute that every object of a kind has, so that its lack shows a
// lack of rights, and what cannot be told without it.
var telling = map[identity.Kind]struct{ attribute, without string }{
	identity.User:  {"userAccountControl", "whether they are disabled"},
	identity.Group: {"groupType", "what type they are of"},
}

func (i *inspection) readUsers(ctx context.Context) Check  { return i.reads(ctx, identity.User) }
func (i *inspection) readGroups(ctx context.Context) Check { return i.reads(ctx, identity.Group) }

// reads counts the objects of a kind, and reads some of them as a run would.
func (i *inspection) reads(ctx context.Context, kind identity.Kind) Check {
	switch {
	case i.session == nil:
		return skipped("there is no bind")
	case !i.baseSeen:
		return skipped("there is no base context to read")
	}
	t := i.count(ctx, kind)
	i.tallies[kind] = t
	plural := kind.String() + "s"
	switch {
	case t.err != nil:
		return failed(t.err, i.grant(i.part.Base))
	case t.objects == 0:
		return warn(fmt.Sprintf("no %s are to be seen below %s", plural, i.part.Base),
			fmt.Sprintf("check %s and %s; if there are some, grant the account the right to read them: %s",
				i.setting("profile.baseContext, profile.searchScope", "the profile's base context and scope"), "ldap."+kind.String()+"-filter", i.grant(i.part.Base)))
	case t.nameless == t.objects:
		return failed(i.refused(fmt.Errorf("%d %s are visible, but %w", t.objects, plural, errNameless)), "")
	}
	mapped, told, err := i.sample(ctx, kind, t.sample)
	tell := telling[kind]
	switch {
	case err != nil:
		return failed(deadline(ctx, err), i.grant(i.part.Base))
	case mapped == 0:
		return failed(i.refused(fmt.Errorf("%w: the first %d %s", errUnmapped, len(t.sample), plural)), "")
	case told == 0 && i.session.RootDSE.IsDomainController():
		return warn(fmt.Sprintf("%s may be read, but not their %s: it cannot be told %s", plural, tell.attribute, tell.without),
			"grant the account the right to read all properties: "+i.grant(i.part.Base))
	case t.nameless > 0:
		return warn(fmt.Sprintf("%s may be read, but %d of %d have no objectSid or objectGUID that can be read: they will be skipped", plural, t.nameless, t.objects),
			"grant the account the right to read them, or leave them out by ldap."+kind.String()+"-filter")
	}
	return ok("%d that were tried are read whole", mapped)
}

var (
	errNameless = errors.New("the objectSid or objectGUID of none")
	errUnmapped = errors.New("not one object can be read completely")
	errLost     = errors.New("the connection was lost, and the server accepts no other")
)

// refused returns the error of a right that the account lacks.
func (i *inspection) refused(cause error) error {
	return fault.Operation{Op: "read", Object: i.part.Base}.Failed(fault.Refused, cause, "grant the account the right to read them: "+i.grant(i.part.Base))
}

// grant returns the command that lets the account read everything below a name.
func (i *inspection) grant(dn string) string {
	return fmt.Sprintf(`dsacls "%s" /I:T /G "%s:LCRP"`, dn, i.self.name)
}

// count reads two small attributes of every object of a kind, for as long as it may.
func (i *inspection) count(ctx context.Context, kind identity.Kind) *tally {
	t := &tally{}
	limited, cancel := context.WithTimeout(ctx, i.countFor)
	defer cancel()
	query := directory.Search{
		Base: i.part.Base, Scope: i.part.Scope, Filter: i.Search.Filter(kind, i.session.RootDSE), Attributes: []string{"objectGUID", "objectSid"},
	}
	_, err := i.session.Search(limited, query, func(entry *ad.Entry) error {
		t.objects++
		guid, hasGUID := ad.ParseGUID(entry.First(0))
		if _, hasSID := ad.ParseSID(entry.First(1)); !hasSID || !hasGUID {
			t.nameless++
		} else if len(t.sample) < sampleSize {
			t.sample = append(t.sample, guid)
		}
		return nil
	})
	if err == nil {
		return t
	}
	t.cut = limited.Err() != nil && ctx.Err() == nil
	if !t.cut {
		t.err = deadline(ctx, err)
	}
	address := i.session.Address
	i.reconnect(ctx) // a session cannot be used after an error
	if t.cut && i.session == nil {
		t.err = fault.Operation{Op: "reconnect to", Object: address}.Failed(fault.Transient, errLost, "check its limit of connections, and the network in between")
	}
	return t
}

func (i *inspection) reconnect(ctx context.Context) {
	before := i.session
	i.session, _ = before.Reconnect(ctx) // without one, what comes next is skipped
	before.Close()
}

// sample reads some objects with all attributes that a run asks for. It returns how
// many make an asset, and how many have the attribute that tells.
func (i *inspection) sample(ctx context.Context, kind identity.Kind, guids []ad.GUID) (mapped, told int, err error) {
	mapper := identity.NewMapper(kind)
	slot := slices.IndexFunc(mapper.Attributes, func(name string) bool { return strings.EqualFold(name, telling[kind].attribute) })
	filter := "(&" + i.Search.Filter(kind, i.session.RootDSE) + directory.FilterByGUID(guids) + ")"
	query := directory.Search{Base: i.part.Base, Scope: i.part.Scope, Filter: filter, Attributes: mapper.Attributes}
	_, err = i.session.Search(ctx, query, func(entry *ad.Entry) error {
		if _, err := mapper.Map(nil, entry, i.now()); err == nil {
			mapped++
		}
		if entry.First(slot) != nil {
			told++
		}
		return nil
	})
	return mapped, told, err
}

func (i *inspection) seeDeleted(ctx context.Context) Check {
	switch {
	case i.session == nil:
		return skipped("there is no bind")
	case !i.session.RootDSE.IsDomainController():
		return warn("the server is no domain controller: deletions show at full passes only", "connect to a domain controller, if there is one")
	}
	sees, err := i.session.CanReadDeleted(ctx)
	container := i.session.RootDSE.DeletedObjects()
	switch {
	case err != nil:
		return failed(deadline(ctx, err), "try again")
	case !sees:
		return warn(container+" may not be read: deletions show at full passes only", fmt.Sprintf(
			`run as a domain administrator: dsacls "%s" /takeOwnership, then dsacls "%s" /g "%s:LCRP"`, container, container, i.self.name))
	}
	return ok("%s may be read: deletions show at the next run", container)
}

func (i *inspection) counts(context.Context) Check {
	users, groups := i.tallies[identity.User], i.tallies[identity.Group]
	if users == nil || groups == nil || users.err != nil || groups.err != nil {
		return skipped("users and groups cannot be read")
	}
	found := fmt.Sprintf("%s and %s", users.words("users"), groups.words("groups"))
	if users.cut || groups.cut {
		found += fmt.Sprintf(": counting ended after %s", i.countFor)
	}
	if users.objects+groups.objects == 0 {
		return warn(found, "check "+i.setting("profile.baseContext and profile.searchScope", "the profile's base context and scope"))
	}
	return ok("%s", found)
}

func (t *tally) words(plural string) string {
	if t.cut {
		return fmt.Sprintf("more than %d %s", t.objects, plural)
	}
	return fmt.Sprintf("%d %s", t.objects, plural)
}
