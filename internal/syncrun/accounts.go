package syncrun

import (
	"context"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// accountReader adds the users to the graph while a full sync reads and sends them. The posture of a
// user depends on its own entry and on the groups, which were read before, but not on other users. The
// few users that mention an account that may not have been read yet are pending: they are read again
// after the last user, as are the groups, whose members are users. See identity.Asset.
//
// The graph is recorded after the users were sent. So all objects are recorded as stale before.
type accountReader struct {
	sync   *membershipSync
	reader *graphReader
	start  time.Time
}

// readsUsersOnce reports whether the search for users finds all users of the domain.
func (s *membershipSync) readsUsersOnce() bool {
	inDomain, ok := directory.InScope(s.source.Base, s.base, directory.Subtree)
	covers, ok2 := directory.InScope(s.base, s.source.Base, directory.Subtree)
	return ok && ok2 && inDomain && covers && s.source.Scope == directory.Subtree && s.userFilter == identity.Filter[identity.User]
}

// attributes returns the attributes of a search for users, with those that the graph requires, and
// their positions. Without an accountReader, it changes nothing.
func (a *accountReader) attributes(mapped []string) ([]string, accountSlots) {
	if a == nil {
		return mapped, accountSlots{}
	}
	all := slices.Clip(mapped)
	slot := func(name string) int {
		if i := slices.Index(all, name); i >= 0 {
			return i
		}
		all = append(all, name)
		return len(all) - 1
	}
	slots := accountSlots{slot("objectGUID"), slot("objectSid"), slot("primaryGroupID"), slot("objectClass")}
	return all, slots
}

// add adds a user. One without a primary group, now and before, is no account: as in a search for
// accounts. Without an accountReader, it does nothing.
func (a *accountReader) add(entry *ad.Entry, slots accountSlots) error {
	if a == nil {
		return nil
	}
	r := a.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(entry.First(slots.primaryGroup)) == 0 {
		if guid, ok := ad.ParseGUID(entry.First(slots.guid)); !ok || !r.checksRights || r.graph.PrimaryRID(guid) == 0 {
			return nil
		}
	}
	r.addAccount(entry, slots)
	return r.checkSize()
}

// finish removes the accounts that were not found, and records the memberships.
func (a *accountReader) finish(ctx context.Context, m memberships) (memberships, error) {
	m.accounts = nil
	if err := a.sync.endWhole(ctx, &m, a.reader); err != nil {
		return m, err
	}
	return m, a.sync.record(m, state.GraphChange{AllStale: true}, a.start, true)
}
