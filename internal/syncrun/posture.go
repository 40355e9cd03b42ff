package syncrun

import (
	"context"
	"errors"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
	"adconnector/internal/state"
)

// posture is what a pass needs besides when security posture is asked for.
//
// It begins with the graph of memberships, of the whole domain: a group outside the
// profile's base makes its members what they are all the same. A full pass reads all
// of it, a delta what has changed. Of whomever the graph then says something else
// than the one before, that object is read again, so that a change of a group
// reaches all that it affects in the run that sees it.
type posture struct {
	readings      []reading // users, groups, service accounts
	roles, domain reading

	graph    *membership.Graph
	before   []uint64 // digests of the graph as it was kept
	kept     state.GraphSource
	known    bool      // there was a graph
	anew     bool      // there was one that cannot be read
	partial  bool      // it does not know all memberships
	affected []ad.GUID // by changes of memberships: to be read again
	readAll  bool      // everything is, since they are too many
}

// defaultAffectedAtMost is up to how many objects are read again one by one because of
// what has changed around them. Beyond, reading everything is faster.
const defaultAffectedAtMost = 10_000

func newPosture(users, groups search) posture {
	of := func(kind identity.Kind, like search) reading {
		like.kind, like.mapper = kind, identity.NewPostureMapper(kind)
		return reading{like, &tally{}}
	}
	return posture{
		readings: []reading{of(identity.User, users), of(identity.Group, groups), of(identity.ServiceAccount, search{})},
		roles:    of(identity.Role, search{anywhere: true}),
		domain:   of(identity.Domain, search{anywhere: true}),
	}
}

// recall takes the kept graph up.
func (p *pass) recall() error {
	p.posture = newPosture(p.searches[0], p.searches[1])
	x := &p.posture
	x.graph = membership.New()
	var err error
	x.kept, x.known, err = p.Store.Graph(x.graph.RestoreObject, x.graph.RestoreGroup)
	if errors.Is(err, membership.ErrRecord) {
		p.log.Warn().Err(err).Msg(MsgMembershipsUnreadable)
		x.graph, x.known, x.anew, err = membership.New(), false, true, nil
	}
	if err != nil {
		return err
	}
	x.graph.Restored()
	x.graph.Compute()
	x.before = x.graph.Digests()
	x.affected, x.readAll, err = p.Store.Again()
	return err
}

// learn brings the graph up to date and finds out whom that affects.
func (p *pass) learn(ctx context.Context) error {
	start := time.Now()
	x := &p.posture
	source := state.GraphSource{Base: p.domainBase(), InvocationID: p.invocation}
	whole := p.kind == full || x.kept != source // another controller may know other groups
	if err := p.readGraph(ctx, whole); err != nil {
		return err
	}
	x.graph.Compute()
	if !whole {
		affected, err := p.Store.Indexed(x.graph.Affected(x.before))
		if err != nil {
			return err
		}
		if len(affected)+len(x.affected) > p.affectedAtMost {
			p.turnFull(len(affected))
			// A full pass knows of those, too, who were deleted unseen.
			whole = true
			if err := p.readGraph(ctx, whole); err != nil {
				return err
			}
			x.graph.Compute()
		}
	}
	if err := p.findAffected(source); err != nil {
		return err
	}
	for _, r := range append(slices.Clip(x.readings), x.roles, x.domain) {
		if x.partial {
			r.mapper.UsePart(x.graph)
		} else {
			r.mapper.Use(x.graph)
		}
	}
	groups, memberships := x.graph.Len()
	p.log.Info().Str("base_dn", source.Base).Bool("whole", whole).Int("groups", groups).Int("memberships", memberships).
		Int("affected", len(x.affected)).Int64("duration_ms", time.Since(start).Milliseconds()).Msg(MsgMembershipsRead)
	return nil
}

// findAffected compares the graph with the one that was kept, and keeps the new one
// together with what follows from it.
func (p *pass) findAffected(source state.GraphSource) error {
	x := &p.posture
	change := state.GraphChange{Source: source, Anew: x.anew}
	switch affected, err := p.Store.Indexed(x.graph.Affected(x.before)); {
	case err != nil:
		return err
	case !x.known:
		change.AgainAll = true // nobody knows what was sent under which graph
	case len(affected)+len(x.affected) > p.affectedAtMost:
		change.AgainAll = true
		if p.kind == delta {
			p.turnFull(len(affected))
		}
	default:
		change.Again = affected
		x.affected = append(x.affected, affected...)
	}
	if p.mode.DryRun {
		return nil
	}
	change.Objects, change.Groups = x.graph.Changes()
	return p.Store.ChangeGraph(change)
}

// turnFull makes a full pass of a delta that would read too much one by one.
func (p *pass) turnFull(affected int) {
	p.kind = full
	p.log.Info().Str("mode", full).Str("reason", ReasonAffected).Int("objects", affected).Msg(MsgSyncPlanned)
}

// readRoles reads the groups that are roles, in every run: whom they have may have
// changed without them, and they are few.
func (p *pass) readRoles(ctx context.Context, add addFunc) error {
	var groups []ad.GUID
	for _, h := range p.posture.graph.Holders() {
		groups = append(groups, p.posture.graph.GUID(h.Group))
	}
	if len(groups) == 0 {
		return nil
	}
	return p.read(ctx, p.line, p.posture.roles, directory.FilterByGUID(groups), add)
}
