package syncrun

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// No search finds an object in a container whose contents the account may not list, not even a base
// search for its identifier. So the object is absent like a deleted one. The container itself is in the
// list of its parent, but cannot be read. While there is such a container, absence proves no deletion,
// until an operator has accepted that the container is unreadable.
//
// A container that can be read although its contents cannot be listed looks like an empty one. Its
// security descriptor distinguishes them, if the account can read that.
//
// A container that is in no list itself is not detected.

const (
	// defaultMaxUnreadable limits the unreadable objects that the search for unreadable containers reads,
	// and the containers whose security descriptors do not allow to list their contents. If there are
	// more, absence proves no deletion.
	defaultMaxUnreadable = 10_000
	// maxListings limits the containers for which a run tests whether it sees an object in them.
	// The others count as unreadable.
	maxListings = 1_000
	// containersInRemedy is the maximum number of containers that a remedy names.
	containersInRemedy = 3
)

var errTooManyUnreadable = errors.New("too many unreadable objects")

// UnreadableContainers is the result of the search for containers whose contents the account cannot
// list.
type UnreadableContainers struct {
	Searched bool
	// Incomplete is whether there may be others: the search stopped.
	Incomplete bool
	Found      []string                   // DNs
	Before     state.UnreadableContainers // recorded by earlier runs
	Remedy     string                     // for the containers that no operator has accepted
}

// notAccepted returns the containers that no operator has accepted.
func (u UnreadableContainers) notAccepted() []string {
	return slices.DeleteFunc(slices.Clone(u.Found), func(dn string) bool { return slices.Contains(u.Before.Accepted, hashContainer(dn)) })
}

// record returns the containers to record; nil: the recorded ones stay. release is whether an
// operator has released deletions that were undecided because of them. A release accepts the containers
// that an earlier run has seen, because the operator could not know of others. A container that is no
// longer unreadable is no longer accepted.
func (u UnreadableContainers) record(release bool) *state.UnreadableContainers {
	if !u.Searched {
		return nil
	}
	found := make([]string, len(u.Found))
	for i, dn := range u.Found {
		found[i] = hashContainer(dn)
	}
	accepted, seen := slices.Clone(u.Before.Accepted), found
	if release {
		accepted = append(accepted, u.Before.Seen...)
	}
	if u.Incomplete {
		seen = append(seen, u.Before.Seen...)
	} else {
		accepted = slices.DeleteFunc(accepted, func(hash string) bool { return !slices.Contains(found, hash) })
	}
	return &state.UnreadableContainers{Seen: sortedSet(seen), Accepted: sortedSet(accepted)}
}

func sortedSet(values []string) []string {
	slices.Sort(values)
	return slices.Compact(values)
}

// hashContainer returns the recorded form of a container's DN.
func hashContainer(dn string) string {
	sum := sha256.Sum256([]byte(directory.NormalizeDN(dn)))
	return hex.EncodeToString(sum[:16])
}

// mayContain reports whether an object of a kind may be in one of the containers, none of which an
// operator has accepted. base is the canonical DN of the profile's base.
func (r *reader) mayContain(containers []string, kind identity.Kind, base string) bool {
	if kind == identity.Role || kind == identity.Domain {
		return len(containers) > 0
	}
	return r.source.Scope == directory.Subtree && slices.ContainsFunc(containers, func(dn string) bool {
		in, ok := directory.InScope(dn, base, directory.Subtree)
		return in || !ok
	})
}

// addUnreadableContainers searches for unreadable containers, and marks the candidates that may be in one of
// them. It considers only candidates whose absence would otherwise prove that they are deleted.
func (r *reader) addUnreadableContainers(ctx context.Context, e *Evidence, tombstones *tombstoneSearch) error {
	absent := e.absent()
	if !e.FullSync || len(absent) == 0 || !r.session.RootDSE.IsDomainController() {
		return r.keepContainersRemedy(e)
	}
	if r.allowsReread(len(absent)) { // a tombstone is proof, and the search for it is faster
		guids := make([]ad.GUID, len(absent))
		for n, i := range absent {
			guids[n] = e.Candidates[i].GUID
		}
		if err := e.searchTombstones(ctx, guids, tombstones); err != nil {
			return err
		}
		if absent = e.absent(); len(absent) == 0 {
			return r.keepContainersRemedy(e)
		}
	}
	if err := r.findUnreadableContainers(ctx, &e.Containers); err != nil {
		return err
	}
	base, err := r.canonicalBase(ctx)
	if err != nil {
		return err
	}
	containers := e.Containers.notAccepted()
	mayContain := map[identity.Kind]bool{} // it depends on the kind only
	for _, i := range absent {
		c := &e.Candidates[i]
		inUnreadable, known := mayContain[c.Kind]
		if !known {
			inUnreadable = e.Containers.Incomplete || r.mayContain(containers, c.Kind, base)
			mayContain[c.Kind] = inUnreadable
		}
		c.InUnreadable = inUnreadable
	}
	if len(containers) > 0 || e.Containers.Incomplete {
		e.Containers.Remedy = containersRemedy(containers, e.Containers.Incomplete, r.source.Base, r.session.AccountName(ctx))
	}
	r.session.lastUsed = time.Now()
	return nil
}

// absent returns the indexes of the candidates whose absence from all searches would prove that they
// are deleted.
func (e Evidence) absent() (indexes []int) {
	for i, c := range e.Candidates {
		if !c.Unreadable && !c.Located && !c.Tombstone && !c.HeldBefore && c.dropReason(e) == "" && c.doubt(e) == "" {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

// keepContainersRemedy adds the recorded remedy to the evidence of a run that does not search for unreadable
// containers.
func (r *reader) keepContainersRemedy(e *Evidence) error {
	if !slices.ContainsFunc(e.Candidates, func(c Candidate) bool { return c.Undecided == UndecidedContainers }) {
		return nil
	}
	counts, err := r.store.UndecidedCounts()
	for _, count := range counts {
		if count.Reason == UndecidedContainers {
			e.Containers.Remedy = count.Remedy
		}
	}
	return err
}

// findUnreadableContainers searches the scope of the profile, and with security posture the domain,
// for containers whose contents cannot be listed: those that can be listed but not read, and those whose
// security descriptor does not allow it.
func (r *reader) findUnreadableContainers(ctx context.Context, u *UnreadableContainers) (err error) {
	u.Searched = true
	if u.Before, err = r.store.UnreadableContainers(); err != nil {
		return err
	}
	search := directory.Search{Filter: directory.FilterUnreadable, Attributes: []string{"1.1"}}
	search.Base, search.Scope = r.scopeOf(r.posture != nil)
	if search.Scope != directory.Subtree { // objects in lower containers are out of the scope
		return nil
	}
	var containers []string // that may be unreadable
	n := 0
	err = r.session.searchOnce(ctx, search, func(entry *ad.Entry) error {
		if n++; n > r.maxUnreadable {
			return errTooManyUnreadable
		}
		if dn := string(entry.DN); r.session.RootDSE.IsAccountContainer(dn) {
			containers = append(containers, dn)
		}
		return nil
	})
	if err == nil {
		var unlisted []string
		unlisted, u.Incomplete, err = r.session.UnlistedContainers(ctx, search.Base, search.Scope, r.maxUnreadable)
		containers = append(containers, unlisted...)
	}
	if errors.Is(err, errTooManyUnreadable) || fault.ClassOf(err) == fault.Incomplete && ctx.Err() == nil {
		u.Incomplete = true
		err = r.session.reconnect(ctx)
	}
	if err != nil {
		return baseContextError(err)
	}
	tested := containers[:min(len(containers), maxListings)]
	u.Found, err = r.session.EmptyContainers(ctx, tested)
	r.session.lastUsed = time.Now()
	u.Found = append(u.Found, containers[len(tested):]...)
	return err
}

// containersRemedy returns the remedy for deletions that are undecided because of unreadable containers.
func containersRemedy(containers []string, incomplete bool, base, account string) string {
	named := containers[:min(len(containers), containersInRemedy)]
	if len(named) == 0 { // the search stopped before it found any
		named = []string{base}
	}
	commands := make([]string, len(named))
	for i, dn := range named {
		commands[i] = directory.GrantCommand(dn, account, directory.ReadObject)
	}
	switch more := len(containers) - len(named); {
	case incomplete:
		commands = append(commands, "and perhaps more containers")
	case more > 0:
		commands = append(commands, fmt.Sprintf("and %d more", more))
	}
	return remedyContainers + ": " + strings.Join(commands, "; ") + remedyAccept
}

const (
	remedyContainers = "grant the account List Contents and Read Property on these containers"
	remedyAccept     = "; if they are unreadable on purpose, and the objects were deleted, run adconnector sync --allow-deletes"
)
