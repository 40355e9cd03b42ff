package syncrun

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// Guard bounds what a run may report as deleted. Beyond it, every deletion is
// held until an operator releases it or the objects are back: most likely
// somebody has made a mistake, or sees only a part of the directory.
type Guard struct {
	MaxDeletes        int
	MaxDeletesPercent int // of the index
}

// settleDeletions adds the objects that have gone, unless the guard holds them.
// What is held leaves in two ways only: it is seen again, or an operator releases it.
func (p *pass) settleDeletions(ctx context.Context, add addFunc) error {
	gone, err := p.goneSince(ctx, add)
	if err != nil {
		return err
	}
	gone, withdrawn, err := p.withdraw(gone)
	if err != nil {
		return err
	}
	var waiting, others []identity.Object
	for _, object := range gone {
		if _, was := slices.BinarySearchFunc(p.wasHeld, object.GUID, byBytes); was {
			waiting = append(waiting, object)
		} else {
			others = append(others, object)
		}
	}
	send, held := gone, []identity.Object(nil)
	reason := p.guard(len(others))
	switch {
	case p.mode.AllowDeletes && reason != "": // that was not known when somebody decided
		send, held = waiting, others
	case p.mode.AllowDeletes:
	case len(waiting) > 0 || reason != "":
		send, held = nil, gone
		if reason == "" {
			reason = fmt.Sprintf("%d of them were held before", len(waiting))
		}
	}
	unproven, err := p.unproven(slices.Concat(gone, withdrawn))
	if err != nil {
		return err
	}
	if len(unproven) > 0 {
		held = slices.Concat(held, unproven)
		reason = cmp.Or(reason, fmt.Sprintf("%d of them were held before, and this pass cannot tell whether they have gone", len(unproven)))
	}
	if len(held) > 0 {
		p.held = held
		p.log.Warn().Int("held", len(held)).Str("reason", reason).
			Str("remedy", "check what is missing in the directory; to release the deletions, stop the daemon and run sync --allow-deletes").
			Msg(MsgDeletionsHeld)
		p.list(held)
	}
	// What is released stays held until the gateway has taken it.
	stay := slices.Concat(held, waiting)
	if !p.mode.DryRun && len(p.wasHeld)+len(stay) > 0 {
		if err := p.Store.Hold(guidsOf(stay), p.now); err != nil {
			return err
		}
	}
	var json []byte
	for _, object := range slices.Concat(withdrawn, send) {
		asset := object.AsDeleted(json)
		json = asset.JSON
		if err := add(asset); err != nil {
			return err
		}
	}
	return nil
}

// unproven lists what was held before, was not seen again, and is not settled by this
// pass: one that proves nothing releases nothing, and forgets nothing either.
func (p *pass) unproven(settled []identity.Object) ([]identity.Object, error) {
	known := guidsOf(settled)
	slices.SortFunc(known, byBytes)
	rest := slices.DeleteFunc(slices.Clone(p.wasHeld), func(guid ad.GUID) bool {
		_, is := slices.BinarySearchFunc(known, guid, byBytes)
		return is
	})
	return p.Store.Objects(p.unseen(rest))
}

// listed bounds how many held deletions, or rejected objects, the log names in a run.
const listed = 20

// list names what is held: in a dry run all of it, in the log the first ones.
func (p *pass) list(held []identity.Object) {
	for i, object := range held {
		if p.mode.Show != nil {
			p.mode.Show(object.AsDeleted(nil), true)
		} else if i < listed {
			p.log.Warn().Stringer("kind", object.Kind).Stringer("sid", object.SID).Stringer("guid", object.GUID).Msg(MsgDeletionHeld)
		}
	}
}

func guidsOf(objects []identity.Object) []ad.GUID {
	guids := make([]ad.GUID, len(objects))
	for i, object := range objects {
		guids[i] = object.GUID
	}
	return guids
}

// guard says why deletions are held; "" when they are not.
func (p *pass) guard(deletions int) string {
	switch {
	case deletions == 0:
		return ""
	case p.kind == full && p.showsNothing():
		return "the directory shows nothing at all"
	case deletions > p.Guard.MaxDeletes:
		return fmt.Sprintf("%d deletions are more than sync.max-deletes (%d)", deletions, p.Guard.MaxDeletes)
	case deletions*100 > p.Guard.MaxDeletesPercent*p.size:
		return fmt.Sprintf("%d deletions are more than sync.max-deletes-percent (%d) of the %d objects known", deletions, p.Guard.MaxDeletesPercent, p.size)
	}
	return ""
}

// showsNothing reports whether nothing was found below the profile's base.
func (p *pass) showsNothing() bool {
	found := 0
	for _, r := range p.readings() {
		found += r.tally.mapped
	}
	return found == 0
}

// withdraw takes those out of gone that are reported as deleted for another reason:
// security posture is no longer asked for, and they are nothing but posture. That is
// the operator's word, which is proof enough, and none of the guard's business.
func (p *pass) withdraw(gone []identity.Object) (rest, withdrawn []identity.Object, err error) {
	if p.source.Posture || p.kind != full {
		return gone, nil, nil
	}
	for _, object := range gone {
		if object.Kind.IsPosture() {
			withdrawn = append(withdrawn, object)
		} else {
			rest = append(rest, object)
		}
	}
	if !p.comparable { // gone is not known, but the kinds are
		withdrawn, err = p.Store.OfKinds(identity.Role, identity.ServiceAccount, identity.Domain)
	}
	if len(withdrawn) > 0 {
		p.log.Info().Int("objects", len(withdrawn)).Msg(MsgPostureDisabled)
	}
	return rest, withdrawn, err
}

// goneSince lists the known objects that are proven to be gone: by their absence from
// a complete full pass of the scope under which the index was completed before,
// or by a tombstone. Those that are held and were not seen again are among them;
// more of them than a run may delete wait for the next full pass.
func (p *pass) goneSince(ctx context.Context, add addFunc) ([]identity.Object, error) {
	if p.kind == full {
		return p.missing(ctx, add)
	}
	held := p.unseen(slices.Clone(p.wasHeld))
	// An object that is back need not have changed: it may only be readable again.
	if p.mayRelease(len(held)) {
		if err := p.readThese(ctx, held, add); err != nil {
			return nil, err
		}
	}
	tombstones, err := p.tombstones(ctx)
	if err != nil {
		return nil, err
	}
	gone := slices.Concat(held, tombstones)
	if p.source.Posture {
		for _, guid := range tombstones { // of groups, some of which were roles
			gone = append(gone, identity.RoleGUID(guid))
		}
	}
	return p.Store.Objects(p.unseen(gone))
}

// mayRelease reports whether so many deletions may pass the guard: else they stay
// held whatever else is known of them.
func (p *pass) mayRelease(deletions int) bool {
	return deletions <= max(p.Guard.MaxDeletes, guidsAtOnce) || p.mode.AllowDeletes
}

// missing lists what a full pass did not show. A reading page by page may pass by
// an object that is changed at that moment, so each is asked for once more.
func (p *pass) missing(ctx context.Context, add addFunc) ([]identity.Object, error) {
	if !p.comparable {
		return nil, nil
	}
	missing, err := p.Store.Missing(p.seen())
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	if p.mayRelease(len(missing)) {
		if err := p.readThese(ctx, guidsOf(missing), add); err != nil {
			return nil, err
		}
		if missing, err = p.Store.Missing(p.seen()); err != nil {
			return nil, err
		}
	}
	n := 0
	for _, r := range p.tallies() {
		n += r.tally.nameless
	}
	if n > 0 && len(missing) > 0 {
		p.log.Warn().Int("objects", n).Int("missing", len(missing)).Str("remedy", "grant the account Read Property on these entries").
			Msg(MsgDeletionsUnproven)
		return nil, nil
	}
	return missing, nil
}

// tombstones lists what was deleted since the watermark, where the account may see
// it. It looks once a pass: what is deleted after that is the next one's.
func (p *pass) tombstones(ctx context.Context) ([]ad.GUID, error) {
	if p.looked {
		return slices.Clone(p.gone), nil
	}
	guids, err := p.findTombstones(ctx)
	p.gone, p.looked = guids, err == nil
	return slices.Clone(guids), err
}

func (p *pass) findTombstones(ctx context.Context) (guids []ad.GUID, err error) {
	if err := p.line.renew(ctx, p.patience); err != nil {
		return nil, err
	}
	sees, err := p.line.SeesDeleted(ctx)
	if err != nil {
		return nil, err
	}
	container := p.session.RootDSE.DeletedObjects()
	if !sees {
		if !p.blindWarned {
			p.blindWarned = true
			p.log.Warn().Str("remedy", fmt.Sprintf(`as a domain administrator run dsacls "%[1]s" /takeOwnership, then dsacls "%[1]s" /g ACCOUNT:LCRP`, container)).
				Msg(MsgDeletedUnreadable)
		}
		return nil, nil
	}
	query := directory.Search{
		Base: container, Scope: directory.OneLevel, Deleted: true, Attributes: []string{"objectGUID"},
		Filter: fmt.Sprintf("(&(isDeleted=TRUE)(uSNChanged>=%d))", p.since),
	}
	_, err = p.line.Search(ctx, query, func(entry *ad.Entry) error {
		if guid, ok := ad.ParseGUID(entry.First(0)); ok {
			guids = append(guids, guid)
		}
		return nil
	})
	return guids, err
}
