package syncrun

import (
	"context"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
)

// tombstoneSearch finds deleted objects by their tombstones, as far as the account can read
// them. It is not safe for concurrent use.
type tombstoneSearch struct {
	runInfo
	session  *session
	sinceUSN ad.USN
	budget   *objectBudget
	state    *tombstoneState
	// maxLookup is up to how many tombstones are searched by their GUIDs. For more, reading all
	// is faster.
	maxLookup int

	searched bool
	guids    []ad.GUID
}

// tombstoneState is what earlier runs have found about the account's rights to tombstones.
type tombstoneState struct {
	warned             bool // a warning was logged
	searchedWithoutUSN bool // tombstones without a readable uSNChanged were searched after the last full sync
	foundWithoutUSN    bool // there were some
}

func (r *Runner) newTombstoneSearch(info runInfo, s *session, p Plan, indexSize int) *tombstoneSearch {
	if p.Mode == full {
		r.tombstones.searchedWithoutUSN = false
	}
	return &tombstoneSearch{runInfo: info, session: s, sinceUSN: p.SinceUSN, budget: &objectBudget{limit: r.maxObjects.limit(p, indexSize)}, state: &r.tombstones, maxLookup: r.maxReread}
}

// deletedGUIDs returns the objects deleted since the watermark. It searches on the first call
// only, which must follow the reading of what it applies to. Otherwise an object restored in
// between would count as deleted. The next run finds later deletions.
func (t *tombstoneSearch) deletedGUIDs(ctx context.Context) ([]ad.GUID, error) {
	if t.searched {
		return t.guids, nil
	}
	readable, err := t.readable(ctx)
	if err == nil && readable {
		t.guids, err = t.searchChanged(ctx)
	}
	t.searched = err == nil
	return t.guids, err
}

// searchChanged returns the tombstones since the watermark, and those whose uSNChanged the
// account cannot read: it may be below or above the watermark. A tombstone that a domain
// controller received by replication may lack the rights that one has where the object was
// deleted. Such tombstones are searched after each full sync, and in every delta sync once one
// was found: the search reads all tombstones.
func (t *tombstoneSearch) searchChanged(ctx context.Context) ([]ad.GUID, error) {
	guids, err := t.search(ctx, changedSince(t.sinceUSN))
	if err != nil || t.state.searchedWithoutUSN && !t.state.foundWithoutUSN {
		return guids, err
	}
	withoutUSN, err := t.search(ctx, "(!(uSNChanged=*))")
	if err != nil {
		return guids, err
	}
	t.state.searchedWithoutUSN, t.state.foundWithoutUSN = true, len(withoutUSN) > 0
	if len(withoutUSN) > 0 {
		t.warnOnce(MsgTombstonesWithoutUSN, "as a domain administrator run "+directory.GrantCommand(t.container(), directory.UnknownAccount, directory.ReadObject))
	}
	return append(guids, withoutUSN...), nil
}

// container returns the DN of the container of tombstones.
func (t *tombstoneSearch) container() string { return t.session.RootDSE.DeletedObjects() }

// warnOnce logs a warning with a remedy, once per process.
func (t *tombstoneSearch) warnOnce(message, remedy string) {
	if !t.state.warned {
		t.state.warned = true
		t.log.Warn().Str("remedy", remedy).Msg(message)
	}
}

// find returns the given objects that have a tombstone, whenever they were deleted. It must
// follow the reading of the objects.
func (t *tombstoneSearch) find(ctx context.Context, guids []ad.GUID) (found []ad.GUID, err error) {
	if len(guids) == 0 || !t.session.RootDSE.IsDomainController() {
		return nil, nil
	}
	if readable, err := t.readable(ctx); err != nil || !readable {
		return nil, err
	}
	if len(guids) > t.maxLookup {
		return t.search(ctx, "")
	}
	for chunk := range slices.Chunk(guids, guidsPerFilter) {
		some, err := t.search(ctx, directory.FilterByGUID(chunk))
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// readable reports whether the account can read tombstones.
func (t *tombstoneSearch) readable(ctx context.Context) (bool, error) {
	if err := t.session.reconnectIfIdle(ctx); err != nil {
		return false, err
	}
	readable, err := t.session.CanReadDeleted(ctx)
	if err == nil && !readable {
		t.warnOnce(MsgDeletedUnreadable, "as a domain administrator run "+directory.TakeOwnershipCommand(t.container())+", then "+
			directory.GrantCommand(t.container(), directory.UnknownAccount, directory.ReadObject))
	}
	return readable, err
}

// search returns the objects with a tombstone that matches a condition; "": all.
func (t *tombstoneSearch) search(ctx context.Context, condition string) (guids []ad.GUID, err error) {
	search := directory.Search{
		Base: t.session.RootDSE.DeletedObjects(), Scope: directory.OneLevel, ShowDeleted: true, Attributes: []string{"objectGUID"},
		Filter: "(&(isDeleted=TRUE)" + condition + ")",
	}
	_, err = t.session.Search(ctx, search, func(entry *ad.Entry) error {
		if guid, ok := ad.ParseGUID(entry.First(0)); ok {
			guids = append(guids, guid)
		}
		return t.budget.take()
	})
	t.session.lastUsed = time.Now()
	return guids, err
}
