package syncrun

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// sink takes the assets that are to be sent.
type sink struct {
	add    func(identity.Asset) error
	settle func() error // waits until everything that was added is recorded
}

// query is how the objects of one kind are found and mapped.
type query struct {
	kind     identity.Kind
	filter   string
	mapper   *identity.Mapper
	anywhere bool // in the whole domain, whatever the profile's base

	firstSkipped *sync.Once // logs the first entry of a run that is skipped
}

// reader reads the directory for one run. Its fields do not change.
type reader struct {
	task
	source   Source
	session  *session
	snapshot Snapshot
	plan     Plan
	store    *state.Store
	guard    Guard
	queries  []query     // below the profile's base; the first one finds the most
	posture  *postureSet // nil: identities only
}

// newReader makes the reader of a run. With posture, known are the memberships.
func (r *Runner) newReader(t task, source Source, session *session, s Snapshot, p Plan, known memberships) *reader {
	root := session.RootDSE
	reader := &reader{task: t, source: source, session: session, snapshot: s, plan: p, store: r.Store, guard: r.Guard}
	if source.Posture {
		reader.posture = newPostureSet(r.Search, root, known)
		reader.queries = reader.posture.queries
		return reader
	}
	for _, kind := range []identity.Kind{identity.User, identity.Group} {
		reader.queries = append(reader.queries, query{kind: kind, filter: r.Search.Filter(kind, root), mapper: identity.NewMapper(kind), firstSkipped: new(sync.Once)})
	}
	return reader
}

// readObjects reads what the plan asks for and adds what changed. What was found before an
// error is returned with it.
func (r *reader) readObjects(ctx context.Context, to sink) (findings, error) {
	r.expect()
	found, err := r.readAll(ctx, to)
	if err != nil {
		return found, err
	}
	if r.plan.Mode == delta {
		guids, err := r.dueAgain()
		if err != nil {
			return found, err
		}
		more, err := r.readThese(ctx, found.unseen(guids), to)
		found.add(more)
		if err != nil {
			return found, err
		}
	}
	if r.posture == nil {
		return found, nil
	}
	more, err := r.readPosture(ctx, to)
	found.add(more)
	return found, err
}

// expect lets the progress know how many objects a full sync will read.
func (r *reader) expect() {
	if r.plan.Mode == full && r.plan.ProvesAbsence {
		r.mode.Progress.expect(r.snapshot.IndexSize)
	}
}

// readAll reads all objects, in a delta those that changed: the first query's concurrently
// with the others'.
func (r *reader) readAll(ctx context.Context, to sink) (findings, error) {
	condition := ""
	if r.plan.Mode == delta {
		condition = changedSince(r.plan.Since)
	}
	some := func(queries []query, found *findings) func(context.Context, *session) error {
		return func(ctx context.Context, s *session) error {
			for _, q := range queries {
				t, err := r.read(ctx, s, q, condition, to)
				found.count(q.kind, t)
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	var first, others findings
	err := r.session.concurrently(ctx, some(r.queries[:1], &first), some(r.queries[1:], &others))
	first.add(others)
	return first, err
}

func changedSince(usn ad.USN) string {
	return "(uSNChanged>=" + strconv.FormatInt(int64(usn), 10) + ")"
}

// dueAgain returns the objects that a delta reads although they have not changed: their
// status changes with the clock, the gateway may accept them now, its answer to an earlier
// run is missing, another domain controller's value was sent, or memberships affect them.
func (r *reader) dueAgain() ([]ad.GUID, error) {
	guids, err := r.store.DueForRecheck(r.start)
	if err != nil {
		return nil, err
	}
	for guid, rejection := range r.snapshot.Rejected {
		if r.start.Sub(rejection.At) >= retryAfter(rejection.Attempts) {
			guids = append(guids, guid)
		}
	}
	guids = slices.Concat(guids, r.snapshot.Unanswered, r.snapshot.FromOthers)
	if r.posture != nil {
		guids = append(guids, r.posture.memberships.affected...)
	}
	return guids, nil
}

// guidsAtOnce bounds the filter that names objects.
const guidsAtOnce = 100

// readThese reads objects by their GUIDs.
func (r *reader) readThese(ctx context.Context, guids []ad.GUID, to sink) (found findings, err error) {
	for some := range slices.Chunk(guids, guidsAtOnce) {
		for _, q := range r.queries {
			t, err := r.read(ctx, r.session, q, directory.FilterByGUID(some), to)
			found.count(q.kind, t)
			if err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// read reads the objects of a query that meet a condition, and adds those that changed.
func (r *reader) read(ctx context.Context, s *session, q query, condition string, to sink) (tally, error) {
	search := directory.Search{Base: r.source.Base, Scope: r.source.Scope, Filter: q.filter, Attributes: q.mapper.Attributes, ExtendedDN: q.mapper.ExtendedDN}
	if condition != "" {
		search.Filter = "(&" + q.filter + condition + ")"
	}
	if q.anywhere {
		search.Base, search.Scope = domainBase(s.RootDSE, r.source), directory.Subtree
	}
	r.log.Debug().Stringer("kind", q.kind).Str("dc", s.Address).Str("base_dn", search.Base).Stringer("scope", search.Scope).Str("filter", search.Filter).Msg(MsgSearchStarted)
	began := time.Now()
	c := r.newComparer()
	var json []byte
	pages, err := s.search(ctx, search, func(entry *ad.Entry) (time.Duration, error) {
		asset, err := q.mapper.Map(json, entry, r.start)
		if err != nil {
			c.skip(r.log, q, entry, err)
			return 0, nil
		}
		json = asset.JSON
		return c.process(asset, to)
	}, to.settle, c.restart)
	switch {
	case err != nil && !q.anywhere:
		return c.tally, baseContextError(err)
	case err != nil:
		return c.tally, err
	}
	r.log.Info().Stringer("kind", q.kind).Str("dc", s.Address).Str("base_dn", search.Base).Int("page", pages).Int("objects", c.tally.read).
		Int("skipped", c.tally.skipped).Int("unparsed", c.tally.unparsed).Int64("duration_ms", time.Since(began).Milliseconds()).Msg(MsgDirectoryRead)
	return c.tally, nil
}

func (r *reader) newComparer() *comparer {
	return &comparer{task: r.task, snapshot: r.snapshot, plan: r.plan, store: r.store}
}

// domainBase is the base of the domain, on a server that is no domain controller the
// profile's.
func domainBase(root directory.RootDSE, source Source) string {
	if root.DefaultNamingContext != "" {
		return root.DefaultNamingContext
	}
	return source.Base
}

// filterOn narrows a kind's own filter by the operator's. A server that is no domain
// controller need not have the attributes of the kind's own filter: there the operator's
// stands alone.
func filterOn(root directory.RootDSE, kind identity.Kind, operators string) string {
	own := identity.Filter[kind]
	switch {
	case operators == "":
		return own
	case root.IsDomainController():
		return "(&" + own + operators + ")"
	default:
		return operators
	}
}

// Filter is what a run finds the objects of one kind by, on such a server.
func (s Search) Filter(kind identity.Kind, root directory.RootDSE) string {
	switch kind {
	case identity.User:
		return filterOn(root, kind, s.UserFilter)
	case identity.Group:
		return filterOn(root, kind, s.GroupFilter)
	default:
		return filterOn(root, kind, "")
	}
}
