package syncrun

import (
	"context"
	"maps"
	"slices"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// The key of an asset at the gateway is the SID, and that of an object in the directory and in
// the index is the GUID. Both relations change: after a domain controller was put back to a
// snapshot, new objects get the SIDs of lost ones, and an object that was moved to another domain
// and back has another SID.
//
// There is no index by SID. A run with deletions or changed SIDs scans the index once after the
// reading. The scan follows a flush, so that the index contains all that the run has read.
//
// An object whose SID changed is not sent while it is read. Once the gateway has acknowledged the
// deletion under the former SID, the object is read again and sent. If the run ends in between, a
// later one repeats the rest. If the gateway rejects the deletion, the object waits: the index
// has only one SID of each object, so that the former one would be forgotten.
//
// Objects that share a SID replace each other's values at the gateway. So an object whose SID
// belonged to another one, too, is sent again if the other one was sent last, and only then the
// other one is dropped.

// liveKey is the key of an object that was read. Only keys that the index may lack are kept.
type liveKey struct {
	identity.Key
	maybeIndexed bool // the index may contain the object with this key
}

// Dropped is an object that leaves the index without a delivery.
type Dropped struct {
	identity.Object
	Reason string
}

// The reasons to drop an object: the field reason of [MsgDeletionsDropped].
const (
	DroppedShared  = "another object has the SID"
	DroppedBuiltin = "group of every domain"
	DroppedFormer  = "already deleted under its former SID"
)

// dropReason returns why an object that does not exist must not be reported as deleted; "": it
// may be. Its asset is not at the gateway, or belongs to an object that exists.
func (e Evidence) dropReason(o identity.Object) string {
	switch {
	case o.FormerSID:
		return DroppedFormer
	case e.Owners[o.Key()] > 0:
		return DroppedShared
	}
	return ""
}

// dropReason returns why the candidate must not be reported as deleted. A group that every domain
// has is never deleted: only its domain is not read any more, and other domains have the same SID.
func (c Candidate) dropReason(e Evidence) string {
	if reason := e.dropReason(c.Object); reason != "" || !c.IsBuiltin() {
		return reason
	}
	return DroppedBuiltin
}

// splitDropped returns the objects of the disabled posture that may be reported as deleted, and
// drops the others.
func (d *Decision) splitDropped(e Evidence) (others []identity.Object) {
	for _, o := range e.DisabledPosture {
		if reason := e.dropReason(o); reason != "" {
			d.Drop = append(d.Drop, Dropped{o, reason})
		} else {
			others = append(others, o)
		}
	}
	return others
}

// formerAssets returns the deletions under the former SIDs of objects whose SID changed.
func (e Evidence) formerAssets() (deletions []identity.Object) {
	for _, o := range e.ChangedSIDs {
		if e.dropReason(o) == "" && !o.IsBuiltin() {
			o.FormerSID = true
			deletions = append(deletions, o)
		}
	}
	return deletions
}

// withholdShared removes the deletions to send whose SID belongs to a candidate that exists, or
// perhaps exists: it is unreadable, or its deletion is held or undecided. They stay in the index.
// They have counted for the guard, because it decides which candidates are looked for.
func (d *Decision) withholdShared(e Evidence) {
	kept := map[identity.Key]bool{}
	for _, c := range e.Candidates {
		if c.Unreadable {
			kept[c.Key()] = true
		}
	}
	for _, o := range slices.Concat(d.Held, objectsOf(d.Undecided)) {
		kept[o.Key()] = true
	}
	d.Send = slices.DeleteFunc(d.Send, func(o identity.Object) bool { return kept[o.Key()] })
}

// addOwners adds who has the keys of the candidates and the former keys of the objects whose SID
// changed.
func (r *reader) addOwners(e *Evidence, result readResult, to sink) error {
	var objects []identity.Object
	for _, c := range e.Candidates {
		objects = append(objects, c.Object)
	}
	objects = append(objects, e.DisabledPosture...)
	if len(objects)+len(result.changedSIDs) == 0 {
		return nil
	}
	if err := to.flush(); err != nil {
		return err
	}
	changed := slices.Clone(result.changedSIDs)
	slices.SortFunc(changed, compareGUIDs)
	var err error
	if e.ChangedSIDs, err = r.store.Objects(slices.Compact(changed)); err != nil {
		return err
	}
	objects = append(objects, e.ChangedSIDs...)
	e.Owners = make(map[identity.Key]int, len(objects))
	for _, o := range objects {
		e.Owners[o.Key()] = 0
	}
	except := guidsOf(objects)
	slices.SortFunc(except, compareGUIDs)
	if err := r.store.CountOwners(e.Owners, except); err != nil {
		return err
	}
	for _, key := range result.keys {
		if n, wanted := e.Owners[key.Key]; wanted && (n == 0 || !key.maybeIndexed) {
			e.Owners[key.Key] = n + 1
		}
	}
	logShared(r.log, e.Owners)
	return nil
}

// logShared logs how many objects share their SID with others that exist, too. Each of them
// replaces the asset of the others.
func logShared(log zerolog.Logger, owners map[identity.Key]int) {
	shared := 0
	for _, n := range owners {
		if n > 1 {
			shared += n
		}
	}
	if shared > 0 {
		log.Warn().Int("objects", shared).
			Str("remedy", `as a domain administrator run ntdsutil "security account management" "check duplicate sid", and delete the duplicates`).Msg(MsgSIDsShared)
	}
}

// settle sends the deletions and the objects whose SID changed or belonged to others. The order
// ensures that a later run repeats what this one does not complete.
func (r *reader) settle(ctx context.Context, e Evidence, d Decision, to sink) (sent readResult, err error) {
	sent, stale, err := r.resendOwners(ctx, e, to)
	if err != nil {
		return sent, err
	}
	if err := r.applyDeletions(d, to); err != nil {
		return sent, err
	}
	changed, err := r.sendChanged(ctx, e.ChangedSIDs, d.Send, to)
	sent.add(changed)
	if err != nil {
		return sent, err
	}
	drop := slices.DeleteFunc(slices.Clone(d.Drop), func(o Dropped) bool { return stale[o.Key()] != nil })
	return sent, r.dropObjects(drop, to)
}

// dropObjects removes objects from the index without a delivery.
func (r *reader) dropObjects(dropped []Dropped, to sink) error {
	counts := map[string]int{}
	guids := make([]ad.GUID, len(dropped))
	for i, d := range dropped {
		guids[i] = d.GUID
		counts[d.Reason]++
	}
	for _, reason := range []string{DroppedShared, DroppedBuiltin, DroppedFormer} {
		if n := counts[reason]; n > 0 {
			r.log.Info().Int("objects", n).Str("reason", reason).Msg(MsgDeletionsDropped)
		}
	}
	if len(dropped) == 0 || r.options.DryRun {
		return nil
	}
	return to.drop(guids)
}

// staleOwners returns the objects that exist and whose asset has the value of another one that
// does not, or has another SID now.
func staleOwners(owners map[identity.Key][]state.Owner, gone map[ad.GUID]struct{}) (stale map[identity.Key][]ad.GUID) {
	stale = map[identity.Key][]ad.GUID{}
	for key, list := range owners {
		last := uint64(0) // run numbers begin with 1
		for _, owner := range list {
			if _, isGone := gone[owner.GUID]; isGone {
				last = max(last, owner.Sent)
			}
		}
		for _, owner := range list {
			if _, isGone := gone[owner.GUID]; !isGone && owner.Sent <= last {
				stale[key] = append(stale[key], owner.GUID)
			}
		}
	}
	return stale
}

// resendOwners sends the objects again whose asset has the value of another one with the same SID.
// It returns the keys of those that could not be sent.
func (r *reader) resendOwners(ctx context.Context, e Evidence, to sink) (result readResult, stale map[identity.Key][]ad.GUID, err error) {
	keys := map[identity.Key]struct{}{}
	for key, n := range e.Owners {
		if n > 0 {
			keys[key] = struct{}{}
		}
	}
	if len(keys) == 0 {
		return result, nil, nil
	}
	gone := map[ad.GUID]struct{}{}
	for _, c := range e.Candidates {
		gone[c.GUID] = struct{}{}
	}
	for _, o := range slices.Concat(e.DisabledPosture, e.ChangedSIDs) {
		gone[o.GUID] = struct{}{}
	}
	owners, err := r.store.Owners(keys)
	if stale = staleOwners(owners, gone); err != nil || len(stale) == 0 {
		return result, nil, err
	}
	guids := map[ad.GUID]struct{}{}
	for _, guid := range slices.Concat(slices.Collect(maps.Values(stale))...) {
		guids[guid] = struct{}{}
	}
	if result, err = r.sendAgain(ctx, guids, to); err != nil || r.options.DryRun {
		return result, nil, err
	}
	if err = to.flush(); err != nil {
		return result, nil, err
	}
	owners, err = r.store.Owners(keys)
	return result, staleOwners(owners, gone), err
}

// sendChanged sends the objects whose SID changed, except those whose deletion under the former
// SID is among the given ones and was not acknowledged.
func (r *reader) sendChanged(ctx context.Context, changed, deletions []identity.Object, to sink) (readResult, error) {
	if len(changed) == 0 {
		return readResult{}, nil
	}
	if err := to.flush(); err != nil {
		return readResult{}, err
	}
	settled, err := r.settledSIDs(changed, deletions)
	if err != nil || len(settled) == 0 {
		return readResult{}, err
	}
	return r.sendAgain(ctx, settled, to)
}

// sendAgain reads objects once more and sends them.
func (r *reader) sendAgain(ctx context.Context, settled map[ad.GUID]struct{}, to sink) (readResult, error) {
	again := *r
	again.settled = settled
	guids := slices.SortedFunc(maps.Keys(settled), compareGUIDs)
	result, err := again.readByGUID(ctx, guids, to)
	if err == nil && r.posture != nil {
		var posture readResult
		posture, err = again.readPostureAgain(ctx, to)
		result.add(posture)
	}
	sent := readResult{counters: map[identity.Kind]counters{}} // all else was counted before
	for kind, n := range result.counters {
		sent.counters[kind] = counters{changed: n.changed}
	}
	return sent, err
}

// settledSIDs returns the objects whose SID changed and that have no live asset under the former one
// any more.
func (r *reader) settledSIDs(changed, deletions []identity.Object) (map[ad.GUID]struct{}, error) {
	settled := map[ad.GUID]struct{}{}
	for _, o := range changed {
		settled[o.GUID] = struct{}{}
	}
	if r.options.DryRun {
		return settled, nil
	}
	var guids []ad.GUID
	for _, o := range deletions {
		if o.FormerSID {
			guids = append(guids, o.GUID)
		}
	}
	indexed, err := r.store.Objects(guids)
	for _, o := range indexed {
		if !o.FormerSID { // rejected
			delete(settled, o.GUID)
		}
	}
	return settled, err
}
