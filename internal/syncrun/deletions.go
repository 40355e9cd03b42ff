package syncrun

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// Guard limits how many new deletions a run may send. Above a limit, all deletions of the run
// are held until an operator releases them or the objects reappear. A release does not cover
// new deletions above a limit. The likely causes of many deletions are an operator error, or
// an account that can read only a part of the directory.
type Guard struct {
	MaxDeletes        int
	MaxDeletesPercent int // of the index
}

// Evidence is the input of DecideDeletions, collected after everything else was read.
type Evidence struct {
	Deleted         []identity.Object // proven, including those held before; in a delta sync also held ones that it did not see
	DisabledPosture []identity.Object // sent for security posture, which is now disabled: exempt from the guard
	Undecided       []identity.Object // held before, and this run has no proof either way

	Held         []ad.GUID // before this run, sorted
	IndexSize    int
	NothingFound bool // by a full sync
	Release      bool // requested: release held deletions
}

// Decision lists the deletions to send and those to hold.
type Decision struct {
	Send   []identity.Object
	Held   []identity.Object
	Reason string // why some are held; "" if none is
	// KeepHeld are the deletions to record as held: those in Held, and those released by this
	// run. Released deletions stay held until the gateway acknowledges them.
	KeepHeld []ad.GUID
}

// DecideDeletions decides which deletions to send and which to hold.
func DecideDeletions(e Evidence, g Guard) Decision {
	heldBefore, added := splitHeld(e.Deleted, e.Held)
	d := Decision{Send: e.Deleted, Reason: g.limitExceeded(e, len(added))}
	switch {
	case e.Release && d.Reason != "": // the added ones were not held when the operator decided
		d.Send, d.Held = heldBefore, added
	case e.Release:
	case len(heldBefore) > 0 || d.Reason != "":
		d.Send, d.Held = nil, e.Deleted
		d.Reason = cmp.Or(d.Reason, fmt.Sprintf("%d of them were held before", len(heldBefore)))
	}
	if len(e.Undecided) > 0 {
		d.Held = slices.Concat(d.Held, e.Undecided)
		d.Reason = cmp.Or(d.Reason, fmt.Sprintf("%d of them were held before, and this run cannot prove that they are deleted", len(e.Undecided)))
	}
	d.Send = slices.Concat(e.DisabledPosture, d.Send)
	d.KeepHeld = guidsOf(slices.Concat(d.Held, heldBefore))
	return d
}

// splitHeld returns the objects whose deletion was held before, and the others.
func splitHeld(objects []identity.Object, held []ad.GUID) (heldBefore, added []identity.Object) {
	for _, object := range objects {
		if _, found := slices.BinarySearchFunc(held, object.GUID, compareGUIDs); found {
			heldBefore = append(heldBefore, object)
		} else {
			added = append(added, object)
		}
	}
	return heldBefore, added
}

// limitExceeded returns which limit a number of deletions exceeds; "" if none.
func (g Guard) limitExceeded(e Evidence, deletions int) string {
	switch {
	case deletions == 0:
		return ""
	case e.NothingFound:
		return "no objects found in the directory"
	case deletions > g.MaxDeletes:
		return fmt.Sprintf("%d deletions exceed sync.max-deletes (%d)", deletions, g.MaxDeletes)
	case deletions*100 > g.MaxDeletesPercent*e.IndexSize:
		return fmt.Sprintf("%d deletions exceed sync.max-deletes-percent (%d) of the %d indexed objects", deletions, g.MaxDeletesPercent, e.IndexSize)
	}
	return ""
}

// allowsRecheck reports whether so many missing objects are searched once more by their GUIDs:
// those that one search finds, as many as the guard can allow, or any number with a release.
func (g Guard) allowsRecheck(deletions int, release bool) bool {
	return deletions <= max(g.MaxDeletes, guidsPerFilter) || release
}

// findDeleted collects the evidence for deletions. It processes objects that turn out to
// exist like all others, and adds them to the result that it returns.
func (r *reader) findDeleted(ctx context.Context, result readResult, tombstones *tombstoneSearch, to sink) (readResult, Evidence, error) {
	e := Evidence{Held: r.snapshot.Held, IndexSize: r.snapshot.IndexSize, Release: r.options.AllowDeletes}
	var err error
	if r.plan.Mode == full {
		result, e.Deleted, err = r.findMissing(ctx, result, to)
	} else {
		result, e.Deleted, err = r.findTombstones(ctx, result, tombstones, to)
	}
	if err != nil {
		return result, e, err
	}
	if e.Deleted, e.DisabledPosture, err = r.splitDisabledPosture(e.Deleted); err != nil {
		return result, e, err
	}
	decided := guidsOf(slices.Concat(e.Deleted, e.DisabledPosture))
	slices.SortFunc(decided, compareGUIDs)
	undecided := slices.DeleteFunc(slices.Clone(r.snapshot.Held), func(guid ad.GUID) bool {
		_, found := slices.BinarySearchFunc(decided, guid, compareGUIDs)
		return found
	})
	e.Undecided, err = r.store.Objects(result.notSeen(undecided))
	e.NothingFound = r.plan.Mode == full && result.countRead(r.kinds()...) == 0
	return result, e, err
}

// kinds returns the kinds of objects that are read below the profile's base.
func (r *reader) kinds() []identity.Kind {
	kinds := make([]identity.Kind, len(r.queries))
	for i, q := range r.queries {
		kinds[i] = q.kind
	}
	return kinds
}

// findMissing returns the indexed objects that a full sync did not find. A paged search may
// miss an object that changes during the search, so each missing object is read again.
func (r *reader) findMissing(ctx context.Context, result readResult, to sink) (readResult, []identity.Object, error) {
	if !r.plan.AbsenceProvesDeletion {
		return result, nil, nil
	}
	missing, err := r.store.Missing(result.seenGUIDs())
	if err != nil || len(missing) == 0 {
		return result, nil, err
	}
	if r.guard.allowsRecheck(len(missing), r.options.AllowDeletes) {
		reread, err := r.readByGUID(ctx, guidsOf(missing), to)
		result.add(reread)
		if err != nil {
			return result, nil, err
		}
		if missing, err = r.store.Missing(result.seenGUIDs()); err != nil {
			return result, nil, err
		}
	}
	if result.withoutGUID > 0 && len(missing) > 0 { // each such entry may be a missing object
		r.log.Warn().Int("objects", result.withoutGUID).Int("missing", len(missing)).
			Str("remedy", "grant the account Read Property on objectGUID of these entries").Msg(MsgDeletionsUnproven)
		return result, nil, nil
	}
	return result, missing, nil
}

// findTombstones returns the indexed objects that have a tombstone, and the held ones that
// were not seen again. If more are held than a run may delete, they are not rechecked before
// the next full sync.
func (r *reader) findTombstones(ctx context.Context, result readResult, tombstones *tombstoneSearch, to sink) (readResult, []identity.Object, error) {
	held := result.notSeen(r.snapshot.Held)
	// An object may reappear without a change, for example if it is readable again.
	if r.guard.allowsRecheck(len(held), r.options.AllowDeletes) {
		reread, err := r.readByGUID(ctx, held, to)
		result.add(reread)
		if err != nil {
			return result, nil, err
		}
	}
	guids, err := tombstones.deletedGUIDs(ctx)
	if err != nil {
		return result, nil, err
	}
	deleted := slices.Concat(held, guids)
	if r.posture != nil {
		for _, guid := range guids { // some may be groups that were roles
			deleted = append(deleted, identity.RoleGUID(guid))
		}
	}
	objects, err := r.store.Objects(result.notSeen(deleted))
	return result, objects, err
}

// splitDisabledPosture separates the objects that were sent only for security posture, in a
// full sync without it. The operator disabled it, so no proof is required and the guard does not apply.
func (r *reader) splitDisabledPosture(deleted []identity.Object) (others, posture []identity.Object, err error) {
	if r.source.Posture || r.plan.Mode != full {
		return deleted, nil, nil
	}
	for _, object := range deleted {
		if object.Kind.IsPosture() {
			posture = append(posture, object)
		} else {
			others = append(others, object)
		}
	}
	if !r.plan.AbsenceProvesDeletion { // deleted is empty then
		posture, err = r.store.ObjectsOfKinds(identity.Role, identity.ServiceAccount, identity.Domain)
	}
	if len(posture) > 0 {
		r.log.Info().Int("objects", len(posture)).Msg(MsgPostureDisabled)
	}
	return others, posture, err
}

// applyDeletions records the held deletions and adds the others to the sink.
func (r *reader) applyDeletions(d Decision, to sink) error {
	if len(d.Held) > 0 {
		logHeld(r.log, d)
		r.listHeld(d.Held)
	}
	if !r.options.DryRun && len(r.snapshot.Held)+len(d.KeepHeld) > 0 {
		if err := r.store.SetHeldDeletions(d.KeepHeld, r.start); err != nil {
			return err
		}
	}
	var json []byte
	for _, object := range d.Send {
		asset := object.DeletedAsset(json)
		json = asset.JSON
		if err := to.add(asset); err != nil {
			return err
		}
	}
	return nil
}

// maxLoggedObjects limits how many held deletions, and how many rejected objects, a run logs.
const maxLoggedObjects = 20

func logHeld(log zerolog.Logger, d Decision) {
	log.Warn().Int("held", len(d.Held)).Str("reason", d.Reason).
		Str("remedy", "review the deletions in the directory (adconnector status, sync --dry-run); to release them, stop the daemon and run adconnector sync --allow-deletes").
		Msg(MsgDeletionsHeld)
}

// listHeld shows all held deletions in a dry run, and logs the first ones otherwise.
func (r *reader) listHeld(held []identity.Object) {
	if r.options.Show != nil {
		for _, object := range held {
			r.options.Show(object.DeletedAsset(nil), true)
		}
		return
	}
	for _, object := range held[:min(len(held), maxLoggedObjects)] {
		r.log.Warn().Stringer("kind", object.Kind).Stringer("sid", object.SID).Stringer("guid", object.GUID).Msg(MsgDeletionHeld)
	}
}

func guidsOf(objects []identity.Object) []ad.GUID {
	guids := make([]ad.GUID, len(objects))
	for i, object := range objects {
		guids[i] = object.GUID
	}
	return guids
}

// tombstoneSearch finds the objects deleted since the watermark. It is not safe for
// concurrent use.
type tombstoneSearch struct {
	runInfo
	session  *session
	sinceUSN ad.USN
	budget   *objectBudget
	warned   *bool // the runner's warnedUnreadable

	searched bool
	guids    []ad.GUID
}

func (r *Runner) newTombstoneSearch(info runInfo, s *session, p Plan, indexSize int) *tombstoneSearch {
	return &tombstoneSearch{runInfo: info, session: s, sinceUSN: p.SinceUSN, budget: &objectBudget{limit: r.maxObjects.limit(p, indexSize)}, warned: &r.warnedUnreadable}
}

// deletedGUIDs returns the deleted objects, as far as the account can read them. It searches
// on the first call only, which must follow the reading of what it applies to. Otherwise an
// object restored in between would count as deleted. The next run finds later deletions.
func (t *tombstoneSearch) deletedGUIDs(ctx context.Context) ([]ad.GUID, error) {
	if t.searched {
		return t.guids, nil
	}
	guids, err := t.search(ctx)
	t.guids, t.searched = guids, err == nil
	return guids, err
}

func (t *tombstoneSearch) search(ctx context.Context) (guids []ad.GUID, err error) {
	s := t.session
	if err := s.reconnectIfIdle(ctx); err != nil {
		return nil, err
	}
	readable, err := s.CanReadDeleted(ctx)
	if err != nil {
		return nil, err
	}
	container := s.RootDSE.DeletedObjects()
	if !readable {
		if !*t.warned {
			*t.warned = true
			t.log.Warn().Str("remedy", fmt.Sprintf(`as a domain administrator run dsacls "%[1]s" /takeOwnership, then dsacls "%[1]s" /g ACCOUNT:LCRP`, container)).
				Msg(MsgDeletedUnreadable)
		}
		return nil, nil
	}
	search := directory.Search{
		Base: container, Scope: directory.OneLevel, ShowDeleted: true, Attributes: []string{"objectGUID"},
		Filter: "(&(isDeleted=TRUE)" + changedSince(t.sinceUSN) + ")",
	}
	_, err = s.Search(ctx, search, func(entry *ad.Entry) error {
		if guid, ok := ad.ParseGUID(entry.First(0)); ok {
			guids = append(guids, guid)
		}
		return t.budget.take()
	})
	s.lastUsed = time.Now()
	return guids, err
}
