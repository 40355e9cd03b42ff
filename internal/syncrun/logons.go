package syncrun

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// Each domain controller counts lastLogon, badPasswordTime and badPwdCount for itself. With
// LastLogonAllControllers, a full sync asks the others for the accounts that logged on since they
// were asked last, or failed to, before it reads the objects. It merges what they return with the
// entries that it reads.
//
// A domain controller that does not answer makes no run fail. What it returned before counts: a
// time only ever gets later. When it is asked next, it is asked for what it has not returned.

const (
	// maxSweepTime limits how long the other domain controllers are asked.
	maxSweepTime = 15 * time.Minute
	// logonOverlap is how much earlier than the time up to which a domain controller was asked the
	// next question begins. It covers what is recorded late, and clocks that are corrected.
	logonOverlap = time.Hour
	// maxPendingLogons limits the objects that are asked for by their GUIDs. For more, a domain
	// controller is asked for all objects.
	maxPendingLogons = maxReread
	// anyLogon is the start of a question for all logons: an account without one has 0.
	anyLogon ad.FileTime = 1
)

// logonSweep is what the other domain controllers have returned in one run.
type logonSweep struct {
	table  *logonTable // nil: none were asked
	record *state.LogonSweep
}

// sweepLogons asks the other domain controllers for logons, if a full sync is to do so. It returns an
// error only if the run cannot go on.
func (r *Runner) sweepLogons(ctx context.Context, info runInfo, input reading) (sweep logonSweep, err error) {
	s, snapshot := input.session, input.snapshot
	if r.LastLogon != LastLogonAllControllers || input.plan.Mode != full {
		return sweep, nil
	}
	info.options.Progress.enter("logons")
	defer info.stopwatch.endStage("logons")
	before, err := r.Store.LogonSweep()
	if err != nil {
		return sweep, err
	}
	if err := s.reconnectIfIdle(ctx); err != nil {
		return sweep, err
	}
	others, isPDC, err := OtherControllers(ctx, s.Session)
	if err != nil {
		return r.keepSweep(ctx, info, s, newLogonDoubt(before, snapshot).record(before), err)
	}
	started := time.Now()
	sweep.table = newLogonTable(r.maxObjects.limit(Plan{TrackSeen: true}, snapshot.IndexSize))
	q := r.newLogonQuestions(input, before, others, sweep.table)
	if slices.ContainsFunc(q.previous, func(c state.LogonController) bool { return c.Counted }) {
		if q.failed, err = r.Store.AccountsWithFailedLogons(); err != nil {
			return sweep, err
		}
	}
	sweep.record = &state.LogonSweep{At: info.start, PDCEmulator: pdcEmulator(s.Session, others, isPDC), Controllers: q.askAll(ctx)}
	if err := ctx.Err(); err != nil {
		return sweep, fault.Operation{Op: "ask domain controllers"}.Failed(fault.Canceled, err, "")
	}
	r.logSweep(info, sweep, time.Since(started))
	return sweep, nil
}

// pdcEmulator returns the invocation ID of the PDC emulator, or zero if it is not known. isPDC is
// whether it is the session's controller.
func pdcEmulator(s *directory.Session, others []directory.DomainController, isPDC bool) ad.InvocationID {
	if isPDC {
		return s.Controller.InvocationID
	}
	for _, c := range others {
		if c.PDCEmulator {
			return c.InvocationID
		}
	}
	return ad.InvocationID{}
}

// keepSweep returns the sweep before, if the domain controllers are not known: none of them was asked.
// A session that was lost is replaced.
func (r *Runner) keepSweep(ctx context.Context, info runInfo, s *session, before state.LogonSweep, cause error) (logonSweep, error) {
	if ctx.Err() != nil {
		return logonSweep{}, cause
	}
	if r.logonsLogged[""] != cause.Error() {
		info.log.Warn().EmbedObject(fault.Fields(cause)).Msg(MsgLogonControllers)
	}
	r.logonsLogged = map[string]string{"": cause.Error()}
	before.At, before.Error, before.Remedy = info.start, cause.Error(), fault.Remedy(cause)
	for i := range before.Controllers {
		c := &before.Controllers[i]
		c.Result, c.Error, c.Remedy = state.LogonsNotAsked, before.Error, before.Remedy
	}
	if fault.ClassOf(cause) != fault.Refused {
		if err := s.reconnect(ctx); err != nil && !errors.Is(err, directory.ErrDifferentController) {
			return logonSweep{}, err
		}
	}
	return logonSweep{record: &before}, nil
}

// logonDoubt are the objects of which logons may be missing that were returned before.
type logonDoubt struct {
	all   bool      // any object
	guids []ad.GUID // these
}

func newLogonDoubt(before state.LogonSweep, snapshot Snapshot) logonDoubt {
	d := logonDoubt{guids: slices.Concat(before.Pending, snapshot.MovedIn)}
	// What was returned before counts only for the objects that are in the index since.
	d.all = snapshot.LastFull.Scope != snapshot.View.Scope || len(d.guids) > maxPendingLogons
	return d
}

// askedUntil returns until when the logons of a domain controller are known that does not answer. If
// any are in doubt, the next question is for all logons: the record of the doubt ends with the run.
func (d logonDoubt) askedUntil(previous state.LogonController) time.Time {
	if d.all || len(d.guids) > 0 {
		return time.Time{}
	}
	return previous.AskedUntil
}

// record returns a sweep with no answer.
func (d logonDoubt) record(before state.LogonSweep) state.LogonSweep {
	before.Controllers = slices.Clone(before.Controllers)
	for i, c := range before.Controllers {
		before.Controllers[i].AskedUntil = d.askedUntil(c)
	}
	return before
}

// sources returns the sources of logons of a run.
func (s logonSweep) sources(mode LastLogon, snapshot Snapshot) logonSources {
	pdc := snapshot.PDCEmulator
	if s.record != nil {
		pdc = s.record.PDCEmulator
	}
	return logonSources{mode, s.table, pdc != ad.InvocationID{} && pdc == snapshot.View.InvocationID}
}

// finish returns the record of the sweep for a complete run; nil: there was none. missing are the
// indexed objects that the run did not find, and that other domain controllers perhaps did not show
// either.
func (s logonSweep) finish(missing []ad.GUID) *state.LogonSweep {
	if s.table == nil {
		return s.record
	}
	pending, more := s.table.unsettled(maxPendingLogons)
	pending = append(pending, missing...)
	slices.SortFunc(pending, compareGUIDs)
	s.record.Pending = slices.Compact(pending)
	if more || len(s.record.Pending) > maxPendingLogons {
		s.record.Pending = nil
		for i := range s.record.Controllers {
			s.record.Controllers[i].AskedUntil = time.Time{}
		}
	}
	return s.record
}

// logonQuestions are the questions of one sweep.
type logonQuestions struct {
	controllers []directory.DomainController
	previous    []state.LogonController // of the same controllers, or the zero value
	session     *directory.Session
	options     directory.PeerOptions
	limit       time.Duration // for all of them

	start  time.Time   // of the run
	now    time.Time   // the earlier one of start and the directory's clock
	latest ad.FileTime // later times are in the future
	doubt  logonDoubt
	failed []ad.GUID // with failed attempts, as was sent
	scope  string
	search directory.Search
	table  *logonTable
	pause  *BindPause
	paused error // why no controller is asked; nil: they are
}

func (r *Runner) newLogonQuestions(input reading, before state.LogonSweep, others []directory.DomainController, table *logonTable) *logonQuestions {
	source, s, snapshot := input.source, input.session, input.snapshot
	q := &logonQuestions{
		session: s.Session, limit: r.maxSweepTime, scope: snapshot.View.Scope, table: table,
		options: directory.PeerOptions{ConnectTimeout: r.peerTimeouts.connect, ResponseTimeout: r.peerTimeouts.response, OnRequest: source.Directory.OnRequest},
		start:   snapshot.Now, now: snapshot.clock(), latest: snapshot.latestLogon(), doubt: newLogonDoubt(before, snapshot),
		search: directory.Search{Base: source.Base, Scope: source.Scope, Filter: logonFilter(r.Search, source, s.RootDSE)},
		pause:  &r.peerPause,
	}
	_, q.paused = r.peerPause.check(hashAccount(source.Directory), snapshot.Now)
	q.controllers, q.previous = orderControllers(others, before.Controllers)
	return q
}

// clock returns the earlier one of both clocks.
func (s Snapshot) clock() time.Time {
	if s.DirectoryNow.Before(s.Now) {
		return s.DirectoryNow
	}
	return s.Now
}

// latestLogon returns the time after which a logon is in the future, whichever clock is right.
func (s Snapshot) latestLogon() ad.FileTime {
	latest := s.Now
	if s.DirectoryNow.After(latest) {
		latest = s.DirectoryNow
	}
	return ad.NewFileTime(latest.Add(logonOverlap))
}

// logonFilter returns the filter of all accounts with logons that a run reads.
func logonFilter(search SearchOptions, source Source, root directory.RootDSE) string {
	if !source.Posture {
		return search.Filter(identity.User, root)
	}
	return "(|" + search.Filter(identity.User, root) + search.Filter(identity.ServiceAccount, root) + ")"
}

// orderControllers returns the controllers with what is recorded of them, those whose last attempt is
// the oldest first. So each one's turn comes, even if the time never suffices for all of them.
func orderControllers(list []directory.DomainController, recorded []state.LogonController) ([]directory.DomainController, []state.LogonController) {
	list = slices.Clone(list)
	byController := map[string]state.LogonController{}
	previous := func(c directory.DomainController) state.LogonController {
		return byController[logonKey(c.InvocationID, c.Host)]
	}
	for _, c := range recorded {
		byController[logonKey(c.InvocationID, c.Host)] = c
	}
	slices.SortStableFunc(list, func(a, b directory.DomainController) int {
		return cmp.Or(previous(a).At.Compare(previous(b).At), cmp.Compare(a.Host, b.Host))
	})
	records := make([]state.LogonController, len(list))
	for i, c := range list {
		records[i] = previous(c)
	}
	return list, records
}

// logonKey identifies a domain controller: by its invocation ID, or by its name if that is unknown.
func logonKey(id ad.InvocationID, host string) string {
	if id == (ad.InvocationID{}) {
		return strings.ToLower(host)
	}
	return id.String()
}

// askAll asks the domain controllers, and returns what is to be recorded of them.
func (q *logonQuestions) askAll(ctx context.Context) []state.LogonController {
	ctx, cancel := context.WithTimeout(ctx, q.limit)
	defer cancel()
	records := make([]state.LogonController, len(q.controllers))
	for i, c := range q.controllers {
		records[i] = state.LogonController{
			Host: c.Name(), InvocationID: c.InvocationID, ReadOnly: c.ReadOnly, PDCEmulator: c.PDCEmulator,
			AskedUntil: q.doubt.askedUntil(q.previous[i]), Counted: q.previous[i].Counted, Scope: q.previous[i].Scope, At: q.previous[i].At,
		}
	}
	asked := &controllerQuestions{session: q.session, options: q.options, refused: q.paused}
	errs := asked.askAll(ctx, q.controllers, func(ctx context.Context, i int, s *directory.Session) error {
		if err := q.ask(ctx, s, q.controllers[i], q.previous[i]); err != nil {
			return err
		}
		records[i].AskedUntil, records[i].Counted, records[i].Scope = askedUntil(s, q.now), q.controllers[i].PDCEmulator, q.scope
		return nil
	})
	switch {
	case q.paused != nil:
	case asked.refused != nil:
		q.pause.refuse(asked.refused, q.start)
	case slices.Contains(errs, nil):
		q.pause.accept()
	}
	for i, err := range errs {
		records[i].Result = LogonResultOf(err)
		if records[i].Result != state.LogonsNotAsked {
			records[i].At = q.start
		}
		if err != nil {
			records[i].Error, records[i].Remedy = err.Error(), fault.Remedy(err)
		}
	}
	return records
}

// askedUntil returns until when the logons of a domain controller are known that has answered: its
// clock at the beginning of the session. Zero: nothing can be said about that. If its clock is ahead,
// it is not relied on.
func askedUntil(s *directory.Session, now time.Time) time.Time {
	clock := s.RootDSE.CurrentTime
	switch {
	case clock.IsZero() || s.Controller.InvocationID == ad.InvocationID{}:
		return time.Time{}
	case clock.After(now):
		return now
	default:
		return clock
	}
}

// logonsSince returns from when on a domain controller is asked for logons. clock is its present
// clock.
func logonsSince(previous state.LogonController, scope string, clock time.Time) ad.FileTime {
	if previous.AskedUntil.IsZero() || previous.Scope != scope || clock.Before(previous.AskedUntil) {
		return anyLogon
	}
	return ad.NewFileTime(previous.AskedUntil.Add(-logonOverlap))
}

// ask reads the logons of one domain controller.
func (q *logonQuestions) ask(ctx context.Context, s *directory.Session, c directory.DomainController, previous state.LogonController) error {
	since := anyLogon
	if !q.doubt.all {
		since = logonsSince(previous, q.scope, s.RootDSE.CurrentTime)
	}
	question := logonQuestion{since: since, counts: c.PDCEmulator}
	if since == anyLogon {
		question.failed = c.PDCEmulator
		err := q.read(ctx, s, question)
		if err == nil && c.PDCEmulator {
			q.table.setCounts(countsAll)
		}
		return err
	}
	question.failed = c.PDCEmulator && !previous.Counted
	if err := q.read(ctx, s, question); err != nil {
		return err
	}
	for chunk := range slices.Chunk(q.doubt.guids, guidsPerFilter) {
		all := logonQuestion{since: anyLogon, counts: c.PDCEmulator, failed: c.PDCEmulator, condition: directory.FilterByGUID(chunk)}
		if err := q.read(ctx, s, all); err != nil {
			return err
		}
	}
	switch {
	case !c.PDCEmulator:
		return nil
	case question.failed:
		q.table.setCounts(countsAll)
		return nil
	}
	return q.askForResets(ctx, s)
}

// askForResets asks the PDC emulator which accounts have no failed attempts any more. A new attempt
// has a time, and the reset of the number has none.
func (q *logonQuestions) askForResets(ctx context.Context, s *directory.Session) error {
	for chunk := range slices.Chunk(q.failed, guidsPerFilter) {
		if err := q.read(ctx, s, logonQuestion{counts: true, condition: directory.FilterByGUID(chunk) + "(!(badPwdCount>=1))"}); err != nil {
			return err
		}
	}
	q.table.setCounts(countsChanged)
	return nil
}

// The attributes of a question.
var logonAttributes = []string{"objectGUID", "lastLogon", "badPasswordTime", "badPwdCount"}

const (
	slotLogonGUID = iota
	slotLastLogon
	slotBadPassword
	slotBadCount
)

// logonQuestion is one search for accounts.
type logonQuestion struct {
	since     ad.FileTime // with a logon, or a failed one, since this time; 0: with or without
	failed    bool        // also those that have failed attempts
	counts    bool        // read the numbers of failed attempts
	condition string      // a filter; "": none
}

// filter returns the filter for accounts that match a filter.
func (o logonQuestion) filter(accounts string) string {
	logons := ""
	if o.since != 0 {
		from := strconv.FormatInt(int64(o.since), 10)
		logons = "(lastLogon>=" + from + ")(badPasswordTime>=" + from + ")"
		if o.failed {
			logons += "(badPwdCount>=1)"
		}
		logons = "(|" + logons + ")"
	}
	return "(&" + accounts + o.condition + logons + ")"
}

// read adds the accounts to the table that a search finds.
func (q *logonQuestions) read(ctx context.Context, s *directory.Session, o logonQuestion) error {
	search := q.search
	search.Attributes = logonAttributes[:slotBadCount]
	if o.counts {
		search.Attributes = logonAttributes
	}
	search.Filter = o.filter(search.Filter)
	_, err := s.Search(ctx, search, func(entry *ad.Entry) error {
		guid, ok := ad.ParseGUID(entry.First(slotLogonGUID))
		if !ok {
			return nil
		}
		found := identity.Logons{Last: q.time(entry.First(slotLastLogon)), LastFailed: q.time(entry.First(slotBadPassword))}
		if o.counts {
			attempts, err := strconv.ParseUint(string(entry.First(slotBadCount)), 10, 32)
			found.Failed, found.HasFailed = uint32(attempts), err == nil || len(entry.First(slotBadCount)) == 0
		}
		return q.table.add(guid, found)
	})
	if errors.Is(err, directory.ErrNoSuchObject) {
		return fault.Operation{Op: "search", Object: search.Base + " on " + s.Address}.Failed(fault.Incomplete, err, "wait until the base context is replicated to it, and check its replication")
	}
	return err
}

// time returns the time of a logon, or 0. A time in the future is not a logon.
func (q *logonQuestions) time(value []byte) ad.FileTime {
	t, ok := ad.ParseFileTime(value)
	if !ok || t.IsNone() || t > q.latest {
		return 0
	}
	return t
}

// logSweep logs the domain controllers whose result has changed and is not that they answered, and a
// summary.
func (r *Runner) logSweep(info runInfo, sweep logonSweep, took time.Duration) {
	answered, lines := 0, 0
	logged := map[string]string{}
	for _, c := range sweep.record.Controllers {
		logged[c.Host] = string(c.Result)
		switch {
		case c.Result == state.LogonsAnswered:
			answered++
		case r.logonsLogged[c.Host] != string(c.Result) && lines < maxLoggedObjects:
			lines++
			info.log.Warn().Str("dc", c.Host).Str("result", string(c.Result)).Str("error", c.Error).Str("remedy", c.Remedy).Msg(MsgLogonsMissing)
		}
	}
	r.logonsLogged = logged
	info.log.Info().Int("controllers", len(sweep.record.Controllers)).Int("answered", answered).Int("objects", sweep.table.len()).
		Int64("duration_ms", took.Milliseconds()).Msg(MsgLogonsRead)
}
