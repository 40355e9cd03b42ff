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

// Guard bounds what a run may report as deleted. Above it, all deletions of the run are held
// until an operator releases them or the objects are back: most likely somebody made a
// mistake, or the account sees only a part of the directory.
type Guard struct {
	MaxDeletes        int
	MaxDeletesPercent int // of the index
}

// Evidence is what a run knows about deletions once it has read everything else.
type Evidence struct {
	Deleted   []identity.Object // proven, those that were held before included
	Withdrawn []identity.Object // no longer asked for: exempt from the guard
	Undecided []identity.Object // held before, and this run has no proof either way

	Held         []ad.GUID // before this run, sorted
	IndexSize    int
	NothingFound bool // by a full sync
	Release      bool // of held deletions, requested
}

// Decision is what becomes of deletions.
type Decision struct {
	Send   []identity.Object
	Held   []identity.Object
	Reason string // why some are held; "" where none is
	// KeepHeld are recorded as held: Held, and those that were held and are sent now. They
	// stay held until the gateway acknowledges them.
	KeepHeld []ad.GUID
}

// DecideDeletions decides which deletions to send and which to hold.
func DecideDeletions(e Evidence, g Guard) Decision {
	heldBefore, others := split(e.Deleted, e.Held)
	d := Decision{Send: e.Deleted, Reason: g.exceeded(e, len(others))}
	switch {
	case e.Release && d.Reason != "": // what was not held when the operator decided waits
		d.Send, d.Held = heldBefore, others
	case e.Release:
	case len(heldBefore) > 0 || d.Reason != "":
		d.Send, d.Held = nil, e.Deleted
		d.Reason = cmp.Or(d.Reason, fmt.Sprintf("%d of them were held before", len(heldBefore)))
	}
	if len(e.Undecided) > 0 {
		d.Held = slices.Concat(d.Held, e.Undecided)
		d.Reason = cmp.Or(d.Reason, fmt.Sprintf("%d of them were held before, and this run cannot prove that they are deleted", len(e.Undecided)))
	}
	d.Send = slices.Concat(e.Withdrawn, d.Send)
	d.KeepHeld = guidsOf(slices.Concat(d.Held, heldBefore))
	return d
}

// split returns the objects that were held before, and the others.
func split(objects []identity.Object, held []ad.GUID) (heldBefore, others []identity.Object) {
	for _, object := range objects {
		if _, was := slices.BinarySearchFunc(held, object.GUID, byBytes); was {
			heldBefore = append(heldBefore, object)
		} else {
			others = append(others, object)
		}
	}
	return heldBefore, others
}

// exceeded returns why so many deletions are too many; "" where they are not.
func (g Guard) exceeded(e Evidence, deletions int) string {
	switch {
	case deletions == 0:
		return ""
	case e.NothingFound:
		return "the directory shows nothing at all"
	case deletions > g.MaxDeletes:
		return fmt.Sprintf("%d deletions exceed sync.max-deletes (%d)", deletions, g.MaxDeletes)
	case deletions*100 > g.MaxDeletesPercent*e.IndexSize:
		return fmt.Sprintf("%d deletions exceed sync.max-deletes-percent (%d) of the %d objects known", deletions, g.MaxDeletesPercent, e.IndexSize)
	}
	return ""
}

// worthChecking reports whether so many deletions may pass the guard, so that each is worth
// another look.
func (g Guard) worthChecking(deletions int, release bool) bool {
	return deletions <= max(g.MaxDeletes, guidsAtOnce) || release
}

// findDeleted gathers the evidence about deletions. Objects that it finds to exist are
// processed like all others, and are in the findings that it returns.
func (r *reader) findDeleted(ctx context.Context, found findings, tombstones *tombstones, to sink) (findings, Evidence, error) {
	e := Evidence{Held: r.snapshot.Held, IndexSize: r.snapshot.IndexSize, Release: r.mode.AllowDeletes}
	var err error
	if r.plan.Mode == full {
		found, e.Deleted, err = r.findMissing(ctx, found, to)
	} else {
		found, e.Deleted, err = r.findTombstoned(ctx, found, tombstones, to)
	}
	if err != nil {
		return found, e, err
	}
	if e.Deleted, e.Withdrawn, err = r.withdraw(e.Deleted); err != nil {
		return found, e, err
	}
	settled := guidsOf(slices.Concat(e.Deleted, e.Withdrawn))
	slices.SortFunc(settled, byBytes)
	rest := slices.DeleteFunc(slices.Clone(r.snapshot.Held), func(guid ad.GUID) bool {
		_, is := slices.BinarySearchFunc(settled, guid, byBytes)
		return is
	})
	e.Undecided, err = r.store.Objects(found.unseen(rest))
	e.NothingFound = r.plan.Mode == full && found.read(r.kinds()...) == 0
	return found, e, err
}

// kinds are those that are read below the profile's base.
func (r *reader) kinds() []identity.Kind {
	kinds := make([]identity.Kind, len(r.queries))
	for i, q := range r.queries {
		kinds[i] = q.kind
	}
	return kinds
}

// findMissing returns the objects of the index that a full sync did not show. Reading page
// by page may miss an object that changes at that moment, so each one is asked for again.
func (r *reader) findMissing(ctx context.Context, found findings, to sink) (findings, []identity.Object, error) {
	if !r.plan.ProvesAbsence {
		return found, nil, nil
	}
	missing, err := r.store.Missing(found.allSeen())
	if err != nil || len(missing) == 0 {
		return found, nil, err
	}
	if r.guard.worthChecking(len(missing), r.mode.AllowDeletes) {
		more, err := r.readThese(ctx, guidsOf(missing), to)
		found.add(more)
		if err != nil {
			return found, nil, err
		}
		if missing, err = r.store.Missing(found.allSeen()); err != nil {
			return found, nil, err
		}
	}
	if found.nameless > 0 && len(missing) > 0 { // each of them may be one that is missing
		r.log.Warn().Int("objects", found.nameless).Int("missing", len(missing)).
			Str("remedy", "grant the account Read Property on objectGUID of these entries").Msg(MsgDeletionsUnproven)
		return found, nil, nil
	}
	return found, missing, nil
}

// findTombstoned returns the objects of the index that have a tombstone, and those that are
// held and were not seen again. More of the latter than a run may delete wait for the next
// full sync.
func (r *reader) findTombstoned(ctx context.Context, found findings, tombstones *tombstones, to sink) (findings, []identity.Object, error) {
	held := found.unseen(r.snapshot.Held)
	// An object that is back need not have changed: it may only be readable again.
	if r.guard.worthChecking(len(held), r.mode.AllowDeletes) {
		more, err := r.readThese(ctx, held, to)
		found.add(more)
		if err != nil {
			return found, nil, err
		}
	}
	guids, err := tombstones.find(ctx)
	if err != nil {
		return found, nil, err
	}
	deleted := slices.Concat(held, guids)
	if r.posture != nil {
		for _, guid := range guids { // of groups, some of which were roles
			deleted = append(deleted, identity.RoleGUID(guid))
		}
	}
	objects, err := r.store.Objects(found.unseen(deleted))
	return found, objects, err
}

// withdraw splits off the objects that exist for the sake of security posture alone, in a
// full sync without it. The operator decided that; it needs no proof and no guard.
func (r *reader) withdraw(deleted []identity.Object) (rest, withdrawn []identity.Object, err error) {
	if r.source.Posture || r.plan.Mode != full {
		return deleted, nil, nil
	}
	for _, object := range deleted {
		if object.Kind.IsPosture() {
			withdrawn = append(withdrawn, object)
		} else {
			rest = append(rest, object)
		}
	}
	if !r.plan.ProvesAbsence { // deleted is empty then, but the kinds are known
		withdrawn, err = r.store.ObjectsOfKinds(identity.Role, identity.ServiceAccount, identity.Domain)
	}
	if len(withdrawn) > 0 {
		r.log.Info().Int("objects", len(withdrawn)).Msg(MsgPostureDisabled)
	}
	return rest, withdrawn, err
}

// applyDeletions records what is held, and adds what is sent.
func (r *reader) applyDeletions(d Decision, to sink) error {
	if len(d.Held) > 0 {
		logHeld(r.log, d)
		r.nameHeld(d.Held)
	}
	if !r.mode.DryRun && len(r.snapshot.Held)+len(d.KeepHeld) > 0 {
		if err := r.store.SetHeldDeletions(d.KeepHeld, r.start); err != nil {
			return err
		}
	}
	var json []byte
	for _, object := range d.Send {
		asset := object.AsDeleted(json)
		json = asset.JSON
		if err := to.add(asset); err != nil {
			return err
		}
	}
	return nil
}

// listed bounds how many held deletions, or rejected objects, a run names in the log.
const listed = 20

func logHeld(log zerolog.Logger, d Decision) {
	log.Warn().Int("held", len(d.Held)).Str("reason", d.Reason).
		Str("remedy", "check what was deleted in the directory (adconnector status, sync --dry-run); to release, stop the daemon and run adconnector sync --allow-deletes").
		Msg(MsgDeletionsHeld)
}

// nameHeld names held deletions: a dry run shows all of them, the log has the first ones.
func (r *reader) nameHeld(held []identity.Object) {
	if r.mode.Show != nil {
		for _, object := range held {
			r.mode.Show(object.AsDeleted(nil), true)
		}
		return
	}
	for _, object := range held[:min(len(held), listed)] {
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

// tombstones finds what was deleted since the watermark. It serves one goroutine.
type tombstones struct {
	task
	session *session
	since   ad.USN
	warned  *bool // of the runner: see warnedBlind

	searched bool
	guids    []ad.GUID
}

func (r *Runner) tombstones(t task, s *session, p Plan) *tombstones {
	return &tombstones{task: t, session: s, since: p.Since, warned: &r.warnedBlind}
}

// find returns what was deleted, where the account may see it. It searches once, when it is
// called first, and that is after the reading: an object that is restored between a search
// and the reading would be taken for deleted. What is deleted later is found by the next run.
func (t *tombstones) find(ctx context.Context) ([]ad.GUID, error) {
	if t.searched {
		return t.guids, nil
	}
	guids, err := t.search(ctx)
	t.guids, t.searched = guids, err == nil
	return guids, err
}

func (t *tombstones) search(ctx context.Context) (guids []ad.GUID, err error) {
	s := t.session
	if err := s.renew(ctx); err != nil {
		return nil, err
	}
	sees, err := s.SeesDeleted(ctx)
	if err != nil {
		return nil, err
	}
	container := s.RootDSE.DeletedObjects()
	if !sees {
		if !*t.warned {
			*t.warned = true
			t.log.Warn().Str("remedy", fmt.Sprintf(`as a domain administrator run dsacls "%[1]s" /takeOwnership, then dsacls "%[1]s" /g ACCOUNT:LCRP`, container)).
				Msg(MsgDeletedUnreadable)
		}
		return nil, nil
	}
	search := directory.Search{
		Base: container, Scope: directory.OneLevel, Deleted: true, Attributes: []string{"objectGUID"},
		Filter: "(&(isDeleted=TRUE)" + changedSince(t.since) + ")",
	}
	_, err = s.Search(ctx, search, func(entry *ad.Entry) error {
		if guid, ok := ad.ParseGUID(entry.First(0)); ok {
			guids = append(guids, guid)
		}
		return nil
	})
	s.used = time.Now()
	return guids, err
}
