package syncrun

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// sink receives the assets to send.
type sink struct {
	add   func(identity.Asset) error
	flush func() error          // waits until everything added is recorded
	drop  func([]ad.GUID) error // removes objects from the index without a delivery; nil in a dry run
}

// query defines how the objects of one kind are searched and mapped.
type query struct {
	kind        identity.Kind
	filter      string
	mapper      *identity.Mapper
	wholeDomain bool           // search the whole domain instead of the profile's base
	accounts    *accountReader // not nil: add the entries to the graph

	warnOnce *sync.Once // logs the first skipped entry of a run
}

// reading is the input of a run.
type reading struct {
	source   Source
	session  *session
	snapshot Snapshot
	plan     Plan
}

// reader reads the directory in one run. Its fields do not change, except for the memberships after the
// users were read.
type reader struct {
	runInfo
	reading
	filters       SearchOptions
	store         *state.Store
	guard         Guard
	maxReread     int
	maxUnreadable int
	queries       []query         // below the profile's base; the first one finds the most objects
	posture       *postureQueries // nil: identities only
	budget        *objectBudget
	settled       map[ad.GUID]struct{} // as in comparer
	descriptors   *descriptorReading   // nil: not read
	logons        logonSources
}

// newReader returns the reader of a run. It uses the memberships if the source includes the
// security posture.
func (r *Runner) newReader(info runInfo, input reading, m memberships, logons logonSources) *reader {
	root := input.session.RootDSE
	reader := &reader{runInfo: info, reading: input, filters: r.Search, store: r.Store, guard: r.Guard, maxReread: r.maxReread, maxUnreadable: r.maxUnreadable, logons: logons}
	reader.budget = &objectBudget{limit: r.maxObjects.limit(input.plan, input.snapshot.IndexSize)}
	if input.source.Posture {
		reader.posture = newPostureQueries(r.Search, root, m)
		reader.queries = reader.posture.queries
		reader.descriptors = newDescriptorReading(root)
	} else {
		reader.queries = identityQueries(r.Search, root)
	}
	for _, q := range reader.queries {
		q.mapper.LatestLogon = input.snapshot.latestLogon()
	}
	return reader
}

// identityQueries returns the queries of a reader without security posture.
func identityQueries(search SearchOptions, root directory.RootDSE) (queries []query) {
	for _, kind := range []identity.Kind{identity.User, identity.Group} {
		mapper := identity.NewMapper(kind)
		mapper.DomainController = root.IsDomainController()
		queries = append(queries, query{kind: kind, filter: search.Filter(kind, root), mapper: mapper, warnOnce: new(sync.Once)})
	}
	return queries
}

// readObjects reads the objects of the plan and adds those that changed. On an error it also
// returns the result of the searches before the error.
func (r *reader) readObjects(ctx context.Context, to sink) (readResult, error) {
	if r.plan.Mode == full && r.snapshot.LastFull.Scope == r.snapshot.View.Scope {
		r.options.Progress.setExpected(r.snapshot.IndexSize)
	}
	var controllers *identity.Collector
	if r.posture != nil {
		var err error
		if controllers, err = r.beginPosture(ctx); err != nil {
			return readResult{}, err
		}
	}
	result, err := r.readScope(ctx, to)
	if err != nil {
		return result, err
	}
	if r.plan.Mode == delta {
		if err := r.reread(ctx, &result, to); err != nil {
			return result, err
		}
	}
	if r.posture == nil {
		return result, nil
	}
	posture, err := r.readPosture(ctx, controllers, to)
	result.add(posture)
	result.add(r.descriptors.unreadableResult(r.posture.memberships.unreadableGroups))
	return result, err
}

// readScope reads all objects in scope, or in a delta sync those that changed. It runs the
// first query concurrently with the others.
func (r *reader) readScope(ctx context.Context, to sink) (readResult, error) {
	condition := ""
	if r.plan.Mode == delta {
		condition = changedSince(r.plan.SinceUSN)
	}
	if r.posture != nil && r.posture.memberships.accounts != nil {
		return r.readUsersFirst(ctx, to)
	}
	readQueries := func(queries []query, result *readResult) func(context.Context, *session) error {
		return func(ctx context.Context, s *session) error {
			for _, q := range queries {
				search, err := r.read(ctx, s, q, condition, to)
				result.addSearch(q.kind, search)
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	var first, others readResult
	err := r.session.runConcurrently(ctx, readQueries(r.queries[:1], &first), readQueries(r.queries[1:], &others))
	first.add(others)
	return first, err
}

// readUsersFirst reads all objects in scope. It completes the memberships after the users, and then
// reads the pending users and the other objects, which show the memberships of users.
func (r *reader) readUsersFirst(ctx context.Context, to sink) (result readResult, err error) {
	users := r.queries[0]
	users.accounts = r.posture.memberships.accounts
	search, err := r.read(ctx, r.session, users, "", to)
	result.addSearch(users.kind, search)
	if err != nil {
		return result, err
	}
	if err := r.posture.complete(ctx); err != nil {
		return result, err
	}
	for chunk := range slices.Chunk(search.pending, guidsPerFilter) {
		search, err := r.read(ctx, r.session, r.queries[0], directory.FilterByGUID(chunk), to)
		result.addSearch(users.kind, search)
		if err != nil {
			return result, err
		}
	}
	for _, q := range r.queries[1:] {
		search, err := r.read(ctx, r.session, q, "", to)
		result.addSearch(q.kind, search)
		if err != nil {
			return result, err
		}
	}
	return result, nil
}

func changedSince(usn ad.USN) string {
	return "(uSNChanged>=" + strconv.FormatInt(int64(usn), 10) + ")"
}

// reread reads the objects that a delta sync reads although they did not change:
//   - Their status changes with the time.
//   - The gateway rejected them, and a retry is due.
//   - A batch of an earlier run has no recorded response.
//   - A later run delivered or deleted them under another view.
//   - Changed memberships affect them.
//   - They are privileged and may inherit another security descriptor.
func (r *reader) reread(ctx context.Context, result *readResult, to sink) error {
	due, err := r.dueObjects()
	if err != nil {
		return err
	}
	guids := slices.Concat(due, r.snapshot.Unacknowledged, r.snapshot.OtherViews, r.dueRejections())
	if r.posture != nil {
		guids = append(guids, r.posture.memberships.affected...)
	}
	inheriting, err := r.inheritingObjects(ctx)
	if err != nil {
		return err
	}
	guids = append(guids, inheriting...)
	reread, err := r.readByGUID(ctx, result.notSeen(guids), to)
	result.add(reread)
	if err != nil {
		return err
	}
	missing, err := r.missingRechecks(append(result.notSeen(due), result.unreadableOf(due)...))
	result.add(readResult{recheckTimes: missing})
	return err
}

// dueRejections returns the rejected objects whose retry is due.
func (r *reader) dueRejections() (due []ad.GUID) {
	for guid, rejection := range r.snapshot.Rejected {
		if r.start.Sub(rejection.At) >= retryDelay(rejection.Attempts) {
			due = append(due, guid)
		}
	}
	return due
}

// dueObjects returns the objects whose recheck time has come, the earliest first, up to a limit.
// The others stay due. Objects that are read get a later recheck time, so that the next runs read
// the others.
func (r *reader) dueObjects() ([]ad.GUID, error) {
	due, err := r.store.DueForRecheck(r.snapshot.DirectoryNow)
	if postponed := len(due) - r.maxReread; postponed > 0 {
		r.log.Info().Int("objects", postponed).Msg(MsgRechecksPostponed)
		due = due[:r.maxReread]
	}
	return due, err
}

// missingRechecks ends the rechecks of due objects that the server does not show, or that are
// unreadable, an hour after their time: moved objects, for example, stay in the index until a full
// sync. If such an object appears again, it has changed, or a full sync reads it.
func (r *reader) missingRechecks(guids []ad.GUID) (map[ad.GUID]time.Time, error) {
	times := map[ad.GUID]time.Time{}
	for _, guid := range guids {
		indexed, found, err := r.store.Lookup(guid, nil)
		if err != nil {
			return nil, err
		}
		if found && r.snapshot.DirectoryNow.Sub(indexed.RecheckAt) >= maxRecheckDelay {
			times[guid] = time.Time{}
		}
	}
	return times, nil
}

// guidsPerFilter limits the number of GUIDs in one search filter.
const guidsPerFilter = 100

// readByGUID reads objects by their GUIDs.
func (r *reader) readByGUID(ctx context.Context, guids []ad.GUID, to sink) (result readResult, err error) {
	for chunk := range slices.Chunk(guids, guidsPerFilter) {
		for _, q := range r.queries {
			search, err := r.read(ctx, r.session, q, directory.FilterByGUID(chunk), to)
			result.addSearch(q.kind, search)
			if err != nil {
				return result, err
			}
		}
	}
	return result, nil
}

// maxReusedBuffer is the size up to which the buffer of an asset is used for the next one. The
// memory of a larger one is released.
const maxReusedBuffer = 1 << 20

// search returns the search for the objects of a query that match a condition. Only the groups of
// roles, of which there are few, are read with their security descriptors at once.
func (r *reader) search(q query, condition string) directory.Search {
	search := directory.Search{Filter: q.filter, Attributes: q.mapper.Attributes, ExtendedDN: q.mapper.ExtendedDN}
	if condition != "" {
		search.Filter = "(&" + q.filter + condition + ")"
	}
	search.Base, search.Scope = r.scopeOf(q.wholeDomain)
	search.Descriptors = r.descriptors.requested() && q.kind == identity.Role
	return search
}

// read reads the objects of a query that match a condition, and adds those that changed.
func (r *reader) read(ctx context.Context, s *session, q query, condition string, to sink) (searchResult, error) {
	search := r.search(q, condition)
	var slots accountSlots
	search.Attributes, slots = q.accounts.attributes(q.mapper.Attributes)
	overlap := overlapTest{slot: -1}
	if r.plan.Mode == delta && condition == changedSince(r.plan.SinceUSN) {
		overlap = overlapTest{len(search.Attributes), r.snapshot.Controller.Watermark.USN}
		search.Attributes = append(slices.Clip(search.Attributes), "uSNChanged")
	}
	r.log.Debug().Stringer("kind", q.kind).Str("dc", s.Address).Str("base_dn", search.Base).Stringer("scope", search.Scope).Str("filter", search.Filter).Msg(MsgSearchStarted)
	start := time.Now()
	c := r.newComparer(q.kind)
	c.overlapped = map[ad.GUID]struct{}{}
	if condition == "" && q.kind == identity.User { // the largest list gets the room
		c.expectIndexed()
	}
	q.mapper.ResetCounts()
	restart := func() error {
		q.mapper.ResetCounts()
		return c.reset()
	}
	e := &entryReader{reader: r, query: q, comparer: c, to: to, slots: slots, overlap: overlap}
	e.useDescriptors(e.descriptors != nil && q.kind == identity.Role)
	pages, err := s.search(ctx, search, e.each, to.flush, restart)
	if err == nil && len(c.postponed) > 0 {
		err = e.readPostponed(ctx, s, search)
	}
	if err == nil {
		err = c.storeLogons()
	}
	if q.mapper.DomainController {
		c.result.missing = q.mapper.Missing()
	}
	if condition == "" {
		c.result.readable = q.mapper.Readable()
	}
	switch {
	case err != nil && !q.wholeDomain:
		return c.result, baseContextError(err)
	case err != nil:
		return c.result, err
	}
	r.log.WithLevel(levelOf(condition == "" || c.result.hasNews())).Stringer("kind", q.kind).Str("dc", s.Address).Str("base_dn", search.Base).Int("page", pages).
		Int("objects", c.result.read).Int("reread", c.result.reread).Int("skipped", c.result.skipped).Int("unreadable", c.result.unreadable).Int("unparsed", c.result.unparsed).Int64("duration_ms", time.Since(start).Milliseconds()).Msg(MsgDirectoryRead)
	if condition == "" && !q.wholeDomain && c.result.read == 0 {
		r.warnNoObjects(q.kind, search.Base)
	}
	return c.result, nil
}

// levelOf returns the level of a log line about a step of a run: debug for a step without news, as in
// a run without changes.
func levelOf(hasNews bool) zerolog.Level {
	if hasNews {
		return zerolog.InfoLevel
	}
	return zerolog.DebugLevel
}

// entryReader maps the entries of one search and compares them with the index.
type entryReader struct {
	*reader
	query    query
	comparer *comparer
	to       sink
	slots    accountSlots
	json     []byte // reused
	// withDescriptors is whether the entries have their security descriptors.
	withDescriptors bool
	overlap         overlapTest
}

// overlapTest finds the entries that a search for changes returns only because of the overlap.
type overlapTest struct {
	slot      int // of uSNChanged in the entries; -1: the search is not for changes
	watermark ad.USN
}

// matches reports whether an entry has not changed since the watermark. An entry without a readable
// uSNChanged may have.
func (t overlapTest) matches(entry *ad.Entry) bool {
	if t.slot < 0 {
		return false
	}
	usn, err := strconv.ParseInt(string(entry.First(t.slot)), 10, 64)
	return err == nil && ad.USN(usn) <= t.watermark
}

// each handles an entry of the search. It returns how long the sink blocked.
func (e *entryReader) each(entry *ad.Entry) (waited time.Duration, err error) {
	q, c := e.query, e.comparer
	c.isOverlap = !c.counted && e.overlap.matches(entry)
	if err := q.accounts.add(entry, e.slots); err != nil {
		return 0, err
	}
	switch {
	case e.descriptors == nil:
	case e.withDescriptors:
		e.descriptors.addParents(entry.DN)
	case q.mapper.IsPrivileged(entry):
		return 0, c.postpone(q, entry)
	}
	indexed, err := c.lookup(q, entry)
	if err != nil {
		return 0, err
	}
	asset, err := q.mapper.Map(e.json, entry, e.snapshot.DirectoryNow, c.logons.known(entry, q.mapper, indexed))
	if err != nil {
		return 0, c.skipEntry(e.log, q, entry, err)
	}
	e.noteDescriptor(q, entry)
	if e.json = asset.JSON; cap(e.json) > maxReusedBuffer {
		e.json = nil
	}
	return c.processAsset(asset, indexed, e.to)
}

// warnNoObjects logs that a full sync has found no user, or no group although there is a filter for
// groups. A base with users only is common.
func (r *reader) warnNoObjects(kind identity.Kind, base string) {
	setting := map[identity.Kind]string{identity.User: "ldap.user-filter", identity.Group: "ldap.group-filter"}[kind]
	filter := r.filters.configuredFilter(kind)
	if setting == "" || kind == identity.Group && filter == "" {
		return
	}
	remedy := "check profile.baseContext and profile.searchScope, or the profile in the console"
	if filter != "" {
		remedy += ", and " + setting
	}
	r.log.Warn().Stringer("kind", kind).Str("base_dn", base).Str("remedy", remedy+"; adconnector check examines them").Msg(MsgNoObjects)
}

// scopeOf returns the base and the scope of searches, either of the profile or of the whole domain.
func (r *reader) scopeOf(wholeDomain bool) (base string, scope directory.Scope) {
	if wholeDomain {
		return domainBase(r.session.RootDSE, r.source), directory.Subtree
	}
	return r.source.Base, r.source.Scope
}

func (r *reader) newComparer(kind identity.Kind) *comparer {
	return &comparer{runInfo: r.runInfo, kind: kind, snapshot: r.snapshot, plan: r.plan, store: r.store, budget: r.budget, settled: r.settled, logons: r.logons}
}

// domainBase returns the base DN of the domain, or the source's base on a server that is not
// a domain controller.
func domainBase(root directory.RootDSE, source Source) string {
	if root.DefaultNamingContext != "" {
		return root.DefaultNamingContext
	}
	return source.Base
}

// Filter returns the search filter for the objects of one kind on a server. A configured
// filter narrows the default filter of the kind. On a server that is not a domain controller
// it replaces the default filter, because the attributes of that one may not exist there.
func (s SearchOptions) Filter(kind identity.Kind, root directory.RootDSE) string {
	switch configured := s.configuredFilter(kind); {
	case configured == "":
		return identity.Filter[kind]
	case root.IsDomainController():
		return "(&" + identity.Filter[kind] + configured + ")"
	default:
		return configured
	}
}

// configuredFilter returns the configured filter for the objects of one kind; "": none.
func (s SearchOptions) configuredFilter(kind identity.Kind) string {
	switch kind {
	case identity.User:
		return s.UserFilter
	case identity.Group:
		return s.GroupFilter
	}
	return ""
}
