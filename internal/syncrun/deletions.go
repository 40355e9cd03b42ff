package syncrun

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// Guard limits how many new deletions a run may send. Above a limit, all deletions of the run
// are held until an operator releases them or the objects reappear. A release does not cover
// new deletions above a limit. The likely causes of many deletions are an operator error, or
// an account that can read only a part of the directory.
type Guard struct {
	MaxDeletes        int
	MaxDeletesPercent int // of the index; up to fewDeletions never exceed it, unless it is 0
}

// fewDeletions is the number of deletions that never exceed MaxDeletesPercent. Otherwise, a single
// deletion would exceed it in a small directory.
const fewDeletions = 5

// Candidate is an indexed object that the run did not find in scope.
type Candidate struct {
	identity.Object
	state.Sighting
	Tombstone    bool                  // the server has its tombstone
	Outside      bool                  // the server has never shown it in scope, but has it outside of the scope
	Unreadable   bool                  // the server has it in scope, but the account cannot read it
	Located      bool                  // the server has it outside of the scope, or the filter does not match it
	InUnreadable bool                  // it may be in a container whose contents the account cannot list
	HeldBefore   bool                  // its deletion was proven, and is held
	Undecided    state.UndecidedReason // of an earlier run; "": none
	ShownBy      state.ControllerSet   // including the server that is read
}

// Evidence is the input of DecideDeletions, collected after everything else was read.
type Evidence struct {
	Candidates      []Candidate
	DisabledPosture []identity.Object // sent for security posture, which is now disabled: exempt from the guard

	FullSync     bool                  // the run has read all objects
	Doubt        state.UndecidedReason // why absence proves nothing; "": no doubt
	RolledBack   bool                  // the server was put back to an earlier state, some time ago
	IndexSize    int
	NothingFound bool // by a full sync
	Release      bool // requested: release held and undecided deletions
	// Controllers are the domain controllers of the domain, including the server, if deletions
	// are to be released; nil: unknown.
	Controllers []ad.InvocationID
	Containers  UnreadableContainers

	// Owners is how many objects that exist have a key, for those of the candidates and the
	// objects of DisabledPosture and ChangedSIDs.
	Owners      map[identity.Key]int
	ChangedSIDs []identity.Object // that exist, with the former SID
}

// Decision lists the deletions to send, to hold, and those that the run cannot decide.
type Decision struct {
	Send   []identity.Object // with those under former SIDs
	Drop   []Dropped
	Held   []identity.Object
	Reason string // why some are held; "" if none is
	// KeepHeld are the deletions to record as held: those in Held, and those released by this
	// run. Released deletions stay held until the gateway acknowledges them.
	KeepHeld  []ad.GUID
	Undecided []undecidedGroup
	// KeepUndecided are the deletions to record as undecided: those in Undecided, and those
	// released by this run. Released deletions stay undecided until the gateway acknowledges
	// them.
	KeepUndecided []state.Undecided
	// Containers are the unreadable containers to record; nil: the recorded ones stay.
	Containers *state.UnreadableContainers
}

// DecideDeletions decides which deletions to send, which to hold, and which are undecided.
func DecideDeletions(e Evidence, g Guard) Decision {
	var d Decision
	var heldBefore, kept, released, added []identity.Object
	undecided := map[state.UndecidedReason][]identity.Object{}
	accept := false
	for _, c := range e.Candidates {
		if c.Unreadable { // it exists
			continue
		}
		if reason := c.dropReason(e); reason != "" {
			d.Drop = append(d.Drop, Dropped{c.Object, reason})
			continue
		}
		reason := c.doubt(e)
		record := state.Undecided{GUID: c.GUID, Reason: reason, Remedy: e.remedy(reason), ShownBy: c.ShownBy}
		switch {
		case c.HeldBefore && e.Doubt != "" && !c.Tombstone: // it may be alive again
			kept = append(kept, c.Object)
		case c.HeldBefore:
			heldBefore = append(heldBefore, c.Object)
		case c.Tombstone || e.FullSync && reason == "":
			added = append(added, c.Object)
		case e.releases(c, reason):
			released, accept = append(released, c.Object), accept || reason == UndecidedContainers
			d.KeepUndecided = append(d.KeepUndecided, record)
		case reason != "":
			undecided[reason] = append(undecided[reason], c.Object)
			d.KeepUndecided = append(d.KeepUndecided, record)
		}
	}
	d.Reason = g.limitExceeded(e, len(added))
	switch {
	case e.Release && d.Reason != "": // the added ones were not held when the operator decided
		d.Send, d.Held = slices.Concat(heldBefore, released), slices.Concat(kept, added)
	case e.Release:
		d.Send, d.Held = slices.Concat(heldBefore, released, added), kept
	case len(heldBefore)+len(kept) > 0 || d.Reason != "":
		d.Held = slices.Concat(heldBefore, kept, added)
	default:
		d.Send = added
	}
	if before := len(heldBefore) + len(kept); len(d.Held) > 0 && d.Reason == "" {
		d.Reason = deletionsText(before, "was", "were") + " held before"
		if e.Release {
			d.Reason = string(e.Doubt)
		}
	}
	d.KeepHeld = guidsOf(slices.Concat(d.Held, heldBefore))
	d.Undecided, d.Containers = e.groupUndecided(undecided), e.Containers.record(accept)
	d.Send = slices.Concat(d.splitDropped(e), e.formerAssets(), d.Send)
	d.withholdShared(e)
	return d
}

// doubt returns why the absence of a candidate does not prove its deletion; "" if it does, or
// if the next full sync decides without further evidence.
func (c Candidate) doubt(e Evidence) state.UndecidedReason {
	switch {
	case e.Doubt != "":
		return e.Doubt
	case c.Outside:
		return UndecidedOutside
	case !c.Here && (c.BeforeRollback || e.RolledBack && c.Undecided == UndecidedRollback): // the views of earlier runs may be gone
		return UndecidedRollback
	case !c.Here:
		return UndecidedNotShown
	case !c.HereInScope:
		return UndecidedScope
	case !e.FullSync:
		return c.Undecided
	case c.InUnreadable:
		return UndecidedContainers
	}
	return ""
}

// releases reports whether an operator's release proves a deletion: the operator has seen that
// it is undecided, and no other domain controller that has shown the object is left in the
// domain. What a domain controller has lost by a rollback was perhaps replicated to any other
// one, so none may be left.
func (e Evidence) releases(c Candidate, reason state.UndecidedReason) bool {
	if !e.Release || c.Undecided == "" {
		return false
	}
	switch reason {
	case UndecidedNotShown:
		if c.Unknown || len(c.Elsewhere) == 0 { // any of the others may have shown it
			return len(e.Controllers) == 1
		}
		return len(e.Controllers) > 0 && !slices.ContainsFunc(c.Elsewhere, func(id ad.InvocationID) bool { return slices.Contains(e.Controllers, id) })
	case UndecidedRollback:
		return len(e.Controllers) == 1
	case UndecidedOutside: // the operator can see where the object is
		return c.Undecided == UndecidedOutside
	case UndecidedContainers:
		return c.Undecided == UndecidedContainers
	}
	return false
}

// remedy returns what resolves an undecided deletion.
func (e Evidence) remedy(reason state.UndecidedReason) string {
	if reason == UndecidedContainers {
		return cmp.Or(e.Containers.Remedy, undecidedRemedies[reason])
	}
	return undecidedRemedies[reason]
}

// undecidedRemedies say what resolves an undecided deletion.
var undecidedRemedies = map[state.UndecidedReason]string{
	UndecidedContainers:     remedyContainers + ": adconnector check names them" + remedyAccept,
	UndecidedUnreadableGUID: "grant the account Read Property on objectGUID of all users and groups",
	UndecidedInvocationID:   "grant the account Read Property on invocationId of the domain controller's NTDS Settings object",
	UndecidedNotShown: "wait for the replication of the domain controllers, and grant the account read access to Deleted Objects; " +
		"if the objects were deleted before the replication, run adconnector sync --full once on the domain controller that has shown them; " +
		"if the domain controller that has shown the objects was removed from the domain, and its NTDS Settings object is deleted, " +
		"run adconnector sync --allow-deletes",
	UndecidedOutside: "wait for the replication of the domain controllers; if the objects were moved out of the scope on purpose, run adconnector sync --allow-deletes",
	UndecidedRollback: "the domain controller was put back to a snapshot: demote and promote it, or set ldap.host to another one; " +
		"if there is no other one, run adconnector sync --allow-deletes",
	UndecidedScope: "wait for the next full sync (sync.full-interval), or run adconnector sync --full",
}

// objectsOf returns the objects of all groups.
func objectsOf(groups []undecidedGroup) (objects []identity.Object) {
	for _, group := range groups {
		objects = append(objects, group.Objects...)
	}
	return objects
}

// groupUndecided returns the objects by reason, in the order of the reasons.
func (e Evidence) groupUndecided(byReason map[state.UndecidedReason][]identity.Object) (groups []undecidedGroup) {
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		groups = append(groups, undecidedGroup{Reason: reason, Remedy: e.remedy(reason), Objects: byReason[reason]})
	}
	return groups
}

// limitExceeded returns which limit a number of deletions exceeds; "" if none.
func (g Guard) limitExceeded(e Evidence, deletions int) string {
	switch {
	case deletions == 0:
		return ""
	case e.NothingFound:
		return "no objects found in the directory"
	case deletions > g.MaxDeletes:
		return fmt.Sprintf("%s sync.max-deletes (%d)", deletionsText(deletions, "exceeds", "exceed"), g.MaxDeletes)
	case deletions <= fewDeletions && g.MaxDeletesPercent > 0:
		return ""
	case deletions*100 > g.MaxDeletesPercent*e.IndexSize:
		return fmt.Sprintf("%s sync.max-deletes-percent (%d) of the %d indexed objects", deletionsText(deletions, "exceeds", "exceed"), g.MaxDeletesPercent, e.IndexSize)
	}
	return ""
}

// deletionsText returns a number of deletions with the form of the verb.
func deletionsText(n int, singular, plural string) string {
	if n == 1 {
		return "1 deletion " + singular
	}
	return fmt.Sprintf("%d deletions %s", n, plural)
}

// applyDeletions records the held and the undecided deletions and adds the others to the sink.
func (r *reader) applyDeletions(d Decision, to sink) error {
	if len(d.Held) > 0 {
		logHeld(r.log, d)
		r.listHeld(d.Held)
	}
	logUndecided(r.log, r.options.ShowUndecided, d.Undecided)
	if !r.options.DryRun {
		if err := r.recordDeletions(d); err != nil {
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

func (r *reader) recordDeletions(d Decision) error {
	if len(r.snapshot.Held)+len(d.KeepHeld) > 0 {
		if err := r.store.SetHeldDeletions(d.KeepHeld, r.start); err != nil {
			return err
		}
	}
	if d.Containers != nil {
		if err := r.store.SetUnreadableContainers(*d.Containers); err != nil {
			return err
		}
	}
	return r.store.SetUndecidedDeletions(d.KeepUndecided, r.start)
}

// maxLoggedObjects limits how many held deletions, and how many rejected objects, a run logs.
const maxLoggedObjects = 20

func logHeld(log zerolog.Logger, d Decision) {
	log.Warn().Int("held", len(d.Held)).Str("reason", d.Reason).
		Str("remedy", state.HeldRemedy).Msg(MsgDeletionsHeld)
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
