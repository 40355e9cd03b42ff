package syncrun

import (
	"context"
	"maps"
	"slices"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// findDeleted collects the evidence for deletions. It processes objects that turn out to
// exist like all others, and adds them to the result that it returns.
func (r *reader) findDeleted(ctx context.Context, result readResult, tombstones *tombstoneSearch, to sink) (readResult, Evidence, error) {
	e := Evidence{FullSync: r.plan.Mode == full, Doubt: r.plan.Doubt, RolledBack: r.snapshot.View.Rollbacks > 0, IndexSize: r.snapshot.IndexSize, Release: r.options.AllowDeletes}
	var objects []identity.Object
	var deleted []ad.GUID // that have a tombstone
	var err error
	if e.FullSync {
		if result, err = r.identifyByExtendedDN(ctx, result); err != nil {
			return result, e, err
		}
		result, objects, err = r.findMissing(ctx, result, to)
	} else {
		result, objects, deleted, err = r.findChanged(ctx, result, tombstones, to)
	}
	if err != nil {
		return result, e, err
	}
	e.NothingFound = e.FullSync && result.countRead(r.kinds()...) == 0
	if e.FullSync && result.countWithoutGUID() > 0 && e.Doubt == "" { // each such entry may be a missing object
		e.Doubt = UndecidedUnreadableGUID
	}
	objects, e.DisabledPosture = r.splitDisabledPosture(objects)
	if e.Candidates, err = r.candidates(objects); err != nil {
		return result, e, err
	}
	if err = e.addTombstones(ctx, deleted, tombstones); err != nil {
		return result, e, err
	}
	if err = r.addOutside(ctx, e); err != nil {
		return result, e, err
	}
	if result, err = r.dropArrived(ctx, result, &e, to); err != nil {
		return result, e, err
	}
	if e.Release && len(r.snapshot.Undecided) > 0 {
		if e.Controllers, err = r.controllers(ctx); err != nil {
			return result, e, err
		}
	}
	if err := r.addOwners(&e, result, to); err != nil {
		return result, e, err
	}
	if result, err = r.addUnreadable(ctx, result, e); err != nil {
		return result, e, err
	}
	err = r.addUnreadableContainers(ctx, &e, tombstones)
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
// miss an object that changes during the search, so each missing object is read again, unless
// there are so many that the guard holds them anyway.
func (r *reader) findMissing(ctx context.Context, result readResult, to sink) (readResult, []identity.Object, error) {
	if !r.plan.TrackSeen {
		return result, nil, nil
	}
	missing, err := r.store.Missing(result.seenGUIDs()...)
	if err != nil || len(missing) == 0 {
		return result, nil, err
	}
	reread := guidsOf(missing)
	if !r.allowsReread(len(reread)) {
		if reread, err = r.provable(missing); err != nil {
			return result, nil, err
		}
	}
	if r.allowsReread(len(reread)) {
		found, err := r.readByGUID(ctx, reread, to)
		result.add(found)
		if err != nil {
			return result, nil, err
		}
		missing, err = r.store.Missing(result.seenGUIDs()...)
		if err != nil {
			return result, nil, err
		}
	}
	return result, missing, nil
}

// allowsReread reports whether so many missing objects are searched once more by their GUIDs:
// as many as such searches find quickly, as many as the guard can allow, or any number with a
// release.
func (r *reader) allowsReread(objects int) bool {
	return objects <= max(r.guard.MaxDeletes, r.maxReread) || r.options.AllowDeletes
}

// provable returns the missing objects whose absence proves that they are deleted.
func (r *reader) provable(missing []identity.Object) (guids []ad.GUID, err error) {
	candidates, err := r.candidates(missing)
	for _, c := range candidates {
		if c.doubt(Evidence{FullSync: true, Doubt: r.plan.Doubt}) == "" {
			guids = append(guids, c.GUID)
		}
	}
	return guids, err
}

// findChanged returns the indexed objects that are or may be deleted in a delta sync:
// those with a new tombstone, those whose deletion was rejected, held or undecided, those that the server
// has never shown, and those that runs under another view delivered but this one did not find.
// It returns the tombstones, too.
func (r *reader) findChanged(ctx context.Context, result readResult, tombstones *tombstoneSearch, to sink) (readResult, []identity.Object, []ad.GUID, error) {
	waiting := slices.Concat(r.snapshot.Held, slices.Collect(maps.Keys(r.snapshot.Undecided)), r.snapshot.Unseen)
	waiting = result.notSeen(waiting)
	// An object may reappear without a change, for example if it is readable again.
	if r.allowsReread(len(waiting)) {
		reread, err := r.readByGUID(ctx, waiting, to)
		result.add(reread)
		if err != nil {
			return result, nil, nil, err
		}
	}
	deleted, err := tombstones.deletedGUIDs(ctx)
	if err != nil {
		return result, nil, nil, err
	}
	// The watermark is past the tombstones of deletions that the gateway rejected.
	rejected, err := tombstones.find(ctx, result.notSeen(r.dueRejections()))
	if err != nil {
		return result, nil, nil, err
	}
	deleted = slices.Concat(deleted, rejected)
	if r.posture != nil {
		ended, err := r.endedRoles()
		if err != nil {
			return result, nil, nil, err
		}
		deleted = append(withRoles(deleted), ended...)
	}
	objects, err := r.store.Objects(result.notSeen(slices.Concat(waiting, r.snapshot.OtherViews, deleted)))
	return result, objects, deleted, err
}

// endedRoles returns the indexed roles among the objects to read again. Only roles whose groups have
// lost them are among these; see memberships.endedRoles.
func (r *reader) endedRoles() (roles []ad.GUID, err error) {
	objects, err := r.store.Objects(r.posture.memberships.affected)
	for _, object := range objects {
		if object.Kind == identity.Role {
			roles = append(roles, object.GUID)
		}
	}
	return roles, err
}

// withRoles adds the roles of groups: some of the objects may be groups that were roles.
func withRoles(guids []ad.GUID) []ad.GUID {
	all := slices.Clone(guids)
	for _, guid := range guids {
		all = append(all, identity.RoleGUID(guid))
	}
	return all
}

// splitDisabledPosture separates the objects that were sent only for security posture if it is
// disabled. The operator disabled it, so no proof is required and the guard does not apply.
func (r *reader) splitDisabledPosture(deleted []identity.Object) (others, posture []identity.Object) {
	if r.source.Posture {
		return deleted, nil
	}
	for _, object := range deleted {
		if object.Kind.IsPosture() {
			posture = append(posture, object)
		} else {
			others = append(others, object)
		}
	}
	if len(posture) > 0 {
		r.log.Info().Int("objects", len(posture)).Msg(MsgPostureDisabled)
	}
	return others, posture
}

// candidates returns the objects with their records in the state file.
func (r *reader) candidates(objects []identity.Object) ([]Candidate, error) {
	sightings, err := r.store.Sightings(r.snapshot.View, guidsOf(objects))
	if err != nil {
		return nil, err
	}
	candidates := make([]Candidate, len(objects))
	for i, object := range objects {
		_, held := slices.BinarySearchFunc(r.snapshot.Held, object.GUID, compareGUIDs)
		undecided := r.snapshot.Undecided[object.GUID]
		c := Candidate{Object: object, Sighting: sightings[i], HeldBefore: held, Undecided: undecided.Reason}
		c.addShownBy(undecided.ShownBy, r.snapshot.View)
		candidates[i] = c
	}
	return candidates, nil
}

// addShownBy adds the domain controllers that had shown the object when its deletion became
// undecided.
func (c *Candidate) addShownBy(before state.ControllerSet, view state.View) {
	for _, id := range before.IDs() {
		switch {
		case id == view.InvocationID && view.Rollbacks == 0:
			c.Here = true
		case id == view.InvocationID:
			c.BeforeRollback = c.BeforeRollback || !c.Here
		case !slices.Contains(c.Elsewhere, id):
			c.Elsewhere = append(c.Elsewhere, id)
		}
	}
	ids := slices.Clone(c.Elsewhere)
	if c.Here || c.BeforeRollback {
		ids = append(ids, view.InvocationID)
	}
	c.ShownBy = state.NewControllerSet(ids...)
}

// addTombstones marks the candidates that have a tombstone: one of those already found, or of
// those that it searches for the candidates without other proof.
func (e Evidence) addTombstones(ctx context.Context, deleted []ad.GUID, tombstones *tombstoneSearch) error {
	e.markTombstones(deleted)
	var unproven []ad.GUID
	for _, c := range e.Candidates {
		if (!c.HeldBefore || e.Doubt != "") && !c.Tombstone && (!e.FullSync || c.doubt(e) != "") {
			unproven = append(unproven, c.GUID)
		}
	}
	return e.searchTombstones(ctx, unproven, tombstones)
}

// searchTombstones searches the tombstones of these candidates, and marks those that have one.
func (e Evidence) searchTombstones(ctx context.Context, guids []ad.GUID, tombstones *tombstoneSearch) error {
	found, err := tombstones.find(ctx, guids)
	e.markTombstones(withRoles(found))
	return err
}

// markTombstones marks the candidates among the deleted objects.
func (e Evidence) markTombstones(deleted []ad.GUID) {
	found := make(map[ad.GUID]struct{}, len(deleted))
	for _, guid := range deleted {
		found[guid] = struct{}{}
	}
	for i := range e.Candidates {
		if _, isDeleted := found[e.Candidates[i].GUID]; isDeleted {
			e.Candidates[i].Tombstone = true
		}
	}
}

// addOutside marks the candidates that the server has not shown, but has outside of the scope.
func (r *reader) addOutside(ctx context.Context, e Evidence) error {
	byGUID := map[ad.GUID]*Candidate{}
	var guids []ad.GUID
	for i := range e.Candidates {
		if c := &e.Candidates[i]; !c.Here && !c.Tombstone {
			byGUID[c.GUID] = c
			guids = append(guids, c.GUID)
		}
	}
	if !r.allowsReread(len(guids)) {
		return nil
	}
	search := directory.Search{Base: domainBase(r.session.RootDSE, r.source), Scope: directory.Subtree, Attributes: []string{"objectGUID"}}
	for chunk := range slices.Chunk(guids, guidsPerFilter) {
		search.Filter = directory.FilterByGUID(chunk)
		err := r.session.searchOnce(ctx, search, func(entry *ad.Entry) error {
			guid, _ := ad.ParseGUID(entry.First(0))
			if c := byGUID[guid]; c != nil {
				c.Outside = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dropArrived reads the candidates outside of the scope once more in the scope, and drops those
// that it finds: they have arrived by replication or moved into the scope in the meantime.
func (r *reader) dropArrived(ctx context.Context, result readResult, e *Evidence, to sink) (readResult, error) {
	var outside []ad.GUID
	for _, c := range e.Candidates {
		if c.Outside {
			outside = append(outside, c.GUID)
		}
	}
	if len(outside) == 0 {
		return result, nil
	}
	arrived, err := r.readByGUID(ctx, outside, to)
	seen := arrived.seenGUIDs()
	e.Candidates = slices.DeleteFunc(e.Candidates, func(c Candidate) bool { return seen.contain(c.GUID) })
	result.add(arrived)
	return result, err
}

// controllers returns the invocation IDs of the domain's controllers; nil if not all are
// readable.
func (r *reader) controllers(ctx context.Context) (ids []ad.InvocationID, err error) {
	list, err := r.session.DomainControllers(ctx)
	if fault.ClassOf(err) == fault.Refused {
		r.log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgControllersUnreadable)
		return nil, nil
	}
	for _, controller := range list {
		if controller.InvocationID == (ad.InvocationID{}) { // it may be any of those that have shown an object
			r.log.Warn().Str("remedy", undecidedRemedies[UndecidedInvocationID]).Msg(MsgControllersUnreadable)
			return nil, err
		}
		ids = append(ids, controller.InvocationID)
	}
	return ids, err
}

// notShown returns the objects that the server has not shown as of this run, sorted. Those that it had
// not shown before are among the candidates, as long as they are in the index.
func notShown(e Evidence) (guids []ad.GUID) {
	for _, c := range e.Candidates {
		if !c.Here {
			guids = append(guids, c.GUID)
		}
	}
	slices.SortFunc(guids, compareGUIDs)
	return guids
}
