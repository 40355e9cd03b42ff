package syncrun

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// What an account may not read looks as if it did not exist: in entries, and in filters. Two
// searches before a run, with a size limit of one entry each, distinguish the two for all
// objects of a kind. For single objects, see identity.ErrUnreadable. Only domain controllers are
// checked: on other servers, attributes can be missing for other reasons.

var (
	errNoneReadable = errors.New("not readable by the account: no object shows them")
	errLostRight    = errors.New("no object shows them any more, the account has probably lost the right to read them")
)

// rightsCheck finds out which attributes the account may read.
type rightsCheck struct {
	source  Source
	search  SearchOptions
	session *session
	// readable are the kinds of which one object has all required attributes readable.
	readable map[identity.Kind]bool
}

func (r *Runner) newRightsCheck(source Source, session *session) *rightsCheck {
	return &rightsCheck{source: source, search: r.Search, session: session, readable: map[identity.Kind]bool{}}
}

// checkRequired returns an error of class fault.Refused if no user, or no group, shows an
// attribute that every one has, although there are some.
func (c *rightsCheck) checkRequired(ctx context.Context) error {
	if !c.session.RootDSE.IsDomainController() {
		return nil
	}
	var unreadable []string
	for _, kind := range []identity.Kind{identity.User, identity.Group} {
		missing, err := c.findUnreadable(ctx, kind)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			unreadable = append(unreadable, ofKind(missing, kind))
		}
	}
	if len(unreadable) == 0 {
		return nil
	}
	return c.refuse(ctx, unreadable, errNoneReadable, "")
}

// findUnreadable returns the attributes that every object of a kind has and none in scope shows. A
// kind without objects has none. A single object in scope does not count as all of its kind, because
// one unreadable object must not stop a run: then no object of the domain may show them. Most runs
// need only the first search.
func (c *rightsCheck) findUnreadable(ctx context.Context, kind identity.Kind) ([]string, error) {
	required := identity.RequiredAttributes(kind, c.source.Posture)
	filter, all := c.search.Filter(kind, c.session.RootDSE), identity.ClassFilter[kind]
	found, err := c.exists(ctx, filter, required...)
	c.readable[kind] = found
	if err == nil && !found && filter != all {
		// The filter can exclude all objects, also because it names unreadable attributes.
		found, err = c.exists(ctx, all, required...)
	}
	if err != nil || found {
		return nil, err
	}
	objects, err := c.count(ctx, all, minUnreadable)
	if err == nil && objects > 0 && objects < minUnreadable {
		found, err = c.existsBelow(ctx, domainBase(c.session.RootDSE, c.source), directory.Subtree, all, required...)
	}
	if err != nil || objects == 0 || found {
		return nil, err
	}
	var missing []string
	for _, attribute := range required {
		found, err := c.exists(ctx, all, attribute)
		if err != nil {
			return nil, err
		}
		if !found {
			missing = append(missing, attribute)
		}
	}
	if len(missing) == 0 { // each object lacks one of them
		return required, nil
	}
	return missing, nil
}

// minUnreadable is how many objects of a kind in scope must lack an attribute for a refusal, if other
// objects of the domain show it.
const minUnreadable = 2

// minReadable is how many objects must have shown an optional attribute in the last full sync
// for its absence from all objects to mean that the account has lost a right.
const minReadable = 20

// checkOptional returns an error of class fault.Refused if no object shows an optional attribute
// any more that more than minReadable objects showed in the last full sync. A full sync would
// remove all their values from the gateway. An operator can confirm that they were removed from
// the directory.
func (r *Runner) checkOptional(ctx context.Context, info runInfo, c *rightsCheck, s Snapshot, p Plan) error {
	confirmed := info.options.Full && info.options.AllowDeletes
	if p.Mode != full || confirmed || !c.session.RootDSE.IsDomainController() {
		return nil
	}
	last, err := r.Store.ReadableAttributes()
	if err != nil || last.Scope != s.View.Scope {
		return err
	}
	var lost []string
	for _, kind := range []identity.Kind{identity.User, identity.Group, identity.ServiceAccount} {
		attributes, err := c.findLost(ctx, kind, last.Objects[kind.String()])
		if err != nil {
			return err
		}
		if len(attributes) > 0 {
			lost = append(lost, ofKind(attributes, kind))
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return c.refuse(ctx, lost, errLostRight,
		"; if the values were removed from the directory, run adconnector sync --full --allow-deletes once")
}

// findLost returns the optional attributes of a kind that more than minReadable objects had and
// none shows any more, sorted. It includes adminCount if fewer had it and no object of the domain shows
// it. A kind without objects has none: their deletions are the guard's
// business.
func (c *rightsCheck) findLost(ctx context.Context, kind identity.Kind, objects map[string]int) (lost []string, err error) {
	filter := c.search.Filter(kind, c.session.RootDSE)
	for _, attribute := range slices.Sorted(maps.Keys(objects)) {
		few := objects[attribute] <= minReadable
		if few && attribute != attributeAdminCount {
			continue
		}
		if !c.readable[kind] {
			found, err := c.exists(ctx, filter, identity.RequiredAttributes(kind, c.source.Posture)...)
			if err != nil || !found {
				return nil, err
			}
			c.readable[kind] = true
		}
		found, err := c.exists(ctx, filter, attribute)
		if err == nil && !found && few {
			found, err = c.mayBeRemoved(ctx, attribute)
		}
		if err != nil {
			return nil, err
		}
		if !found {
			lost = append(lost, attribute)
		}
	}
	return lost, nil
}

// attributeAdminCount is an attribute that few objects have, but that some have in every domain: krbtgt
// and the groups of administrators are protected (MS-ADTS 3.1.1.6.1).
const attributeAdminCount = "adminCount"

// mayBeRemoved reports whether objects in scope may have lost an attribute that some objects of every
// domain have: another object shows it, or the account does not see krbtgt, which has it.
func (c *rightsCheck) mayBeRemoved(ctx context.Context, attribute string) (bool, error) {
	existsInDomain := func(filter string) (bool, error) {
		found, err := c.session.exists(ctx, directory.Search{Base: domainBase(c.session.RootDSE, c.source), Scope: directory.Subtree, Filter: filter})
		return found, baseContextError(err)
	}
	if found, err := existsInDomain("(" + attribute + "=*)"); found || err != nil {
		return found, err
	}
	visible, err := existsInDomain("(sAMAccountName=krbtgt)")
	return !visible, err
}

// exists reports whether an object in the scope matches a filter and shows all of the attributes.
func (c *rightsCheck) exists(ctx context.Context, filter string, attributes ...string) (bool, error) {
	return c.existsBelow(ctx, c.source.Base, c.source.Scope, filter, attributes...)
}

// existsBelow is exists with another base and scope.
func (c *rightsCheck) existsBelow(ctx context.Context, base string, scope directory.Scope, filter string, attributes ...string) (bool, error) {
	var condition strings.Builder
	for _, attribute := range attributes {
		condition.WriteString("(" + attribute + "=*)")
	}
	found, err := c.session.exists(ctx, directory.Search{Base: base, Scope: scope, Filter: "(&" + filter + condition.String() + ")"})
	return found, baseContextError(err)
}

// count returns how many objects in the scope match a filter, up to a limit.
func (c *rightsCheck) count(ctx context.Context, filter string, limit int) (int, error) {
	if err := c.session.reconnectIfIdle(ctx); err != nil {
		return 0, err
	}
	n, err := c.session.Count(ctx, directory.Search{Base: c.source.Base, Scope: c.source.Scope, Filter: filter}, limit)
	c.session.lastUsed = time.Now()
	return n, baseContextError(err)
}

// refuse returns the error of a run that needs a right.
func (c *rightsCheck) refuse(ctx context.Context, attributes []string, cause error, alternative string) error {
	object := strings.Join(attributes, "; ") + " below " + c.source.Base
	return fault.Operation{Op: "read", Object: object}.Failed(fault.Refused, cause, c.session.grantRemedy(ctx, c.source.Base)+alternative)
}

// ofKind returns the names of attributes with the kind of their objects.
func ofKind(attributes []string, kind identity.Kind) string {
	return strings.Join(attributes, ", ") + " of " + kind.String() + "s"
}

// grantRemedy returns the remedy for attributes that the account may not read. Below the base,
// the command grants the account the right to list and read all objects.
func (s *session) grantRemedy(ctx context.Context, base string) string {
	return "grant the account Read Property on these attributes, and remove what denies it: " + directory.GrantCommand(base, s.AccountName(ctx), directory.ReadObject)
}

// exists is directory.Session.Exists with a session that was not idle.
func (s *session) exists(ctx context.Context, q directory.Search) (bool, error) {
	if err := s.reconnectIfIdle(ctx); err != nil {
		return false, err
	}
	found, err := s.Exists(ctx, q)
	s.lastUsed = time.Now()
	return found, err
}

// warnUnreadable logs once per run how many objects are unreadable, and which attributes are
// missing. Those that lack only their security descriptor are sent, so they have a message of their
// own. It returns the remedy.
func (r *reader) warnUnreadable(ctx context.Context, result readResult) (remedy string) {
	var remedies []string
	warn := func(unreadable int, attributes []string, base, remedy, message string) {
		remedies = append(remedies, remedy)
		r.log.Warn().Int("unreadable", unreadable).Str("attributes", strings.Join(attributes, ", ")).Str("base_dn", base).Str("remedy", remedy).Msg(message)
	}
	base := r.source.Base
	domain, _ := r.scopeOf(true)
	if result.missing[attributeMember] > 0 { // groups are read in the whole domain
		base = domain
	}
	attributes := slices.DeleteFunc(slices.Sorted(maps.Keys(result.missing)), func(name string) bool { return name == ad.AttributeDescriptor })
	if unreadable := result.countUnreadable() - result.withoutDescriptor; unreadable > 0 {
		warn(unreadable, attributes, base, r.session.grantRemedy(ctx, base), MsgObjectsUnreadable)
	}
	if unreadable := result.missing[ad.AttributeDescriptor]; unreadable > 0 {
		warn(unreadable, []string{ad.AttributeDescriptor}, domain, r.descriptors.remedy(r.session.AccountName(ctx)), MsgDescriptorsUnreadable)
	}
	return strings.Join(remedies, "; ")
}

// readableAttributes returns the counts of optional attributes to record after a full sync of a
// domain controller; nil: the recorded ones stay.
func readableAttributes(s Snapshot, session *session, result readResult) *state.ReadableAttributes {
	if len(result.readable) == 0 || !session.RootDSE.IsDomainController() {
		return nil
	}
	readable := &state.ReadableAttributes{Scope: s.View.Scope, Objects: map[string]map[string]int{}}
	for kind, attributes := range result.readable {
		readable.Objects[kind.String()] = attributes
	}
	return readable
}
