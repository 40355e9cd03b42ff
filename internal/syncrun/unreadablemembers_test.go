package syncrun

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// withoutUnreadable returns assets without their lists of unreadable values, and without facts, which are
// left out if they depend on such values.
func (e *env) withoutUnreadable(assets map[string]string) map[string]string {
	e.t.Helper()
	stripped := map[string]string{}
	for guid, text := range assets {
		var asset any
		e.must(json.Unmarshal([]byte(text), &asset))
		var strip func(any)
		strip = func(v any) {
			if object, ok := v.(map[string]any); ok {
				delete(object, "unreadable")
				delete(object, "facts")
				for _, inner := range object {
					strip(inner)
				}
			}
		}
		strip(asset)
		encoded, err := json.Marshal(asset)
		e.must(err)
		stripped[guid] = string(encoded)
	}
	return stripped
}

// expectAdministratorsView compares the gateway with what an account that may read everything sends
// at first, except for the marks. It makes unreadable attributes readable for that time.
func (m *membershipDomain) expectAdministratorsView(unreadable ...string) {
	m.t.Helper()
	for _, dn := range unreadable {
		m.hide(dn)
	}
	want := m.withoutUnreadable(m.firstSync())
	for _, dn := range unreadable {
		m.hide(dn, "member")
	}
	for _, diff := range differences(m.withoutUnreadable(m.gateway.Held()), want, false) {
		m.t.Error(diff)
	}
}

// newUnreadableMembersDomain returns a domain with user0 and user1 in inner, inner and user2 in outer, and
// outer in Domain Admins, which is in Administrators. user3 is a direct member of Domain Admins.
func newUnreadableMembersDomain(t *testing.T) *membershipDomain {
	t.Helper()
	return newNestedDomain(t, domaincontroller.Options{ReadsDeleted: true})
}

func newNestedDomain(t *testing.T, o domaincontroller.Options) *membershipDomain {
	t.Helper()
	m := &membershipDomain{env: newPostureEnv(t, o, 6)}
	m.inner = m.addGroup("inner", m.user(0), m.user(1))
	m.outer = m.addGroup("outer", m.inner, m.user(2))
	m.admins, m.administrators = "CN=Domain Admins,CN=Users,"+m.Base(), "CN=Administrators,CN=Builtin,"+m.Base()
	m.set(m.admins, "member", m.user(3), m.outer)
	m.exceedOverlap()
	return m
}

// TestUnreadableMembers checks that groups whose members the account may not read keep them, in a first
// sync and in later ones, and that everything that depends on them is marked.
func TestUnreadableMembers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		unreadable func(m *membershipDomain) []string
		marks      func(m *membershipDomain) map[string]string // by DN
	}{
		"the group of a role": {
			func(m *membershipDomain) []string { return []string{m.admins} },
			func(m *membershipDomain) map[string]string {
				return map[string]string{
					m.outer: "memberOf privilegedGroups privilegedPaths", m.inner: "privilegedGroups privilegedPaths",
					m.user(0): "facts privilegedGroups privilegedPaths", m.user(2): "facts privilegedGroups privilegedPaths", m.user(3): "facts groups privilegedGroups privilegedPaths", m.user(4): "",
				}
			},
		},
		"a nested group": {
			func(m *membershipDomain) []string { return []string{m.inner} },
			func(m *membershipDomain) map[string]string {
				return map[string]string{
					m.inner: "empty inCycle members membersWithoutSid nestingDepth", m.outer: "inCycle nestingDepth",
					m.user(0): "facts groups privilegedGroups privilegedPaths", m.user(2): "", m.user(3): "",
				}
			},
		},
		"both": {
			func(m *membershipDomain) []string { return []string{m.admins, m.inner} },
			func(m *membershipDomain) map[string]string {
				return map[string]string{m.outer: "inCycle memberOf nestingDepth privilegedGroups privilegedPaths", m.user(0): "facts groups privilegedGroups privilegedPaths", m.user(4): ""}
			},
		},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, first sync %t", name, first), func(t *testing.T) {
				t.Parallel()
				m := newUnreadableMembersDomain(t)
				unreadable := c.unreadable(m)
				if !first {
					m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
				}
				for _, dn := range unreadable {
					m.hide(dn, "member")
				}
				run := m.expectPartial(RunOptions{Full: true}, full, len(unreadable))
				if first && run.Uploaded != 8+postureObjects || !first && run.Uploaded >= 8+postureObjects {
					t.Errorf("%d uploaded", run.Uploaded)
				}
				for dn, marks := range c.marks(m) {
					m.expectPosture(dn, "unreadable", strings.Fields(marks)...)
				}
				m.expectAdministratorsView(unreadable...)
				if run := m.expectPartial(RunOptions{Full: true}, full, len(unreadable)); run.Uploaded > 0 {
					t.Errorf("%d uploaded again", run.Uploaded)
				}
				for _, dn := range unreadable {
					m.hide(dn)
				}
				if run, err := m.runner.Run(t.Context(), RunOptions{Full: true}); err != nil || run.Result != Processed {
					t.Errorf("run: %s, error %v", brief(run), err)
				}
				m.expectConverged()
				if strings.Contains(fmt.Sprint(m.gateway.Held()), "unreadable") {
					t.Error("an asset lists unreadable values")
				}
			})
		}
	}
}

// expectPartial performs one run, which must warn once of groups with unreadable members.
func (m *membershipDomain) expectPartial(options RunOptions, mode string, groups int) state.Run {
	m.t.Helper()
	before := len(m.log.With(MsgObjectsUnreadable))
	run, err := m.runner.Run(m.t.Context(), options)
	if err != nil || run.Mode != mode || run.Result != Partial || run.Unreadable != groups || run.Deleted+run.Held+run.Undecided > 0 {
		m.t.Fatalf("run: %s, %d unreadable, error %v", brief(run), run.Unreadable, err)
	}
	lines := m.log.With(MsgObjectsUnreadable)[before:]
	if len(lines) != 1 || lines[0].Text("attributes") != "member" || !strings.Contains(lines[0].Text("remedy"), `dsacls "`+m.Base()+`"`) {
		m.t.Errorf("log %v", lines)
	}
	return run
}

// TestUnreadableMembersChange checks that delta syncs and full syncs find changes of members that are
// unreadable by memberOf, and that a former member without any memberOf stays.
func TestUnreadableMembersChange(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{delta, full} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			m := newUnreadableMembersDomain(t)
			m.addGroup("other", m.user(1))
			m.exceedOverlap()
			m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 9 + postureObjects})
			m.hide(m.inner, "member")
			m.expectPartial(RunOptions{Full: true}, full, 1)
			sync := func() {
				t.Helper()
				m.expectPartial(RunOptions{Full: mode == full}, mode, 1)
			}
			m.set(m.inner, "member", m.user(0), m.user(1), m.user(4))
			sync()
			m.expectAdministratorsView(m.inner)
			m.exceedOverlap()
			m.set(m.inner, "member", m.user(0), m.user(4)) // user1 shows that it is in another group
			sync()
			m.expectAdministratorsView(m.inner)
			m.exceedOverlap()
			m.set(m.inner, "member", m.user(0)) // user4 shows no group
			sync()
			m.expectPosture(m.inner, "members", m.SID(m.user(0)), m.SID(m.user(4)))
			m.expectPosture(m.user(4), "unreadable", "facts", "groups", "privilegedGroups", "privilegedPaths")
			m.exceedOverlap()
			m.must(m.Delete(m.user(4)))
			m.runner.Run(t.Context(), RunOptions{Full: mode == full})
			m.expectPosture(m.inner, "members", m.SID(m.user(0)))
			m.exceedOverlap()
			m.set(m.inner, "member")
			m.run(RunOptions{Full: mode == full}, state.Run{Mode: mode, Result: Processed, Uploaded: 6}) // also the domain
			m.expectPosture(m.inner, "empty", "true")
			m.expectPosture(m.inner, "unreadable")
		})
	}
}

// TestUnreadableMembersOfEmptyGroup checks that a group that was empty is found when it gets its first
// member, which is unreadable, and that unchanged empty groups are not asked for again.
func TestUnreadableMembersOfEmptyGroup(t *testing.T) {
	t.Parallel()
	for _, options := range []RunOptions{{}, {Full: true}} {
		m := newUnreadableMembersDomain(t)
		empty := m.addGroup("empty")
		m.exceedOverlap()
		m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 9 + postureObjects})
		m.hide(empty, "member")
		m.exceedOverlap()
		m.run(options, state.Run{Mode: map[bool]string{true: full, false: delta}[options.Full], Result: Processed})
		m.set(empty, "member", m.user(5))
		m.expectPartial(options, map[bool]string{true: full, false: delta}[options.Full], 1)
		m.expectPosture(empty, "members", m.SID(m.user(5)))
		m.expectAdministratorsView(empty)
	}
}

// searches performs one run and returns how many searches it takes.
func (m *membershipDomain) searches(options RunOptions) int {
	m.t.Helper()
	before := m.Counters().Searches
	if _, err := m.runner.Run(m.t.Context(), options); err != nil {
		m.t.Fatal(err)
	}
	return m.Counters().Searches - before
}

// TestCostOfEmptyGroups checks how many searches the check for unreadable members takes.
func TestCostOfEmptyGroups(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	const empty = 70 // below the minimum, so that the duration does not matter
	for n := range empty {
		m.addGroup(fmt.Sprintf("empty%d", n))
	}
	m.exceedOverlap()
	m.searches(RunOptions{})
	m.options.FullInterval = 1 // every run is a full sync
	m.start()
	m.clock.Advance(time.Minute)
	unchanged := m.searches(RunOptions{})
	// The groups of roles without members are a chunk of their own.
	if searches := m.searches(RunOptions{Full: true}); searches <= unchanged+1 || searches > unchanged+3 {
		t.Errorf("%d searches if all groups are checked, %d otherwise", searches, unchanged)
	}
}

// TestEmptyGroupsWithinOverlap checks that a delta sync does not check an empty group again that it
// reads again only because of the overlap, but does once the group has changed.
func TestEmptyGroupsWithinOverlap(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	m.searches(RunOptions{})
	m.searches(RunOptions{})
	idle := m.searches(RunOptions{})
	if next := m.searches(RunOptions{}); next != idle { // the empty groups of roles are read again each time
		t.Errorf("%d searches in the third delta sync, %d in the second", next, idle)
	}
	empty := m.addGroup("empty")
	checked := m.searches(RunOptions{})
	if again := m.searches(RunOptions{}); again >= checked || again > idle+1 {
		t.Errorf("%d searches, with a new empty group %d, without one %d", again, checked, idle)
	}
	m.hide(empty, "member")
	m.set(empty, "member", m.user(5))
	m.expectPartial(RunOptions{}, delta, 1)
	m.expectPosture(empty, "members", m.SID(m.user(5)))
	m.set(empty, "member")
	m.searches(RunOptions{})
	m.expectPosture(empty, "empty", "true")
}

// TestUnreadableMembersAmongEmptyGroups checks that the groups with unreadable members are found among many empty
// ones, wherever they are.
func TestUnreadableMembersAmongEmptyGroups(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	var unreadable []string
	for n := range 60 {
		dn := m.addGroup(fmt.Sprintf("group%d", n))
		if n == 0 || n == 13 || n == 14 || n == 59 {
			m.set(dn, "member", m.user(n%5))
			m.hide(dn, "member")
			unreadable = append(unreadable, dn)
		}
	}
	m.exceedOverlap()
	m.expectPartial(RunOptions{}, full, len(unreadable))
	m.expectAdministratorsView(unreadable...)
}

// TestEmptyChecks checks how many further groups a run checks.
func TestEmptyChecks(t *testing.T) {
	t.Parallel()
	limits := defaultEmptyChecks
	for name, c := range map[string]struct {
		checked         int
		checks, reading time.Duration
		want            int
	}{
		"the first":                    {0, 0, 0, limits.min},
		"few, on a slow server":        {limits.min - 1, time.Hour, time.Second, 1},
		"a tenth of the time":          {limits.min, time.Second, 10 * time.Second, 0},
		"less than a tenth":            {limits.min, time.Second, 11 * time.Second, limits.max - limits.min},
		"too many, on any server":      {limits.max, 0, time.Hour, 0},
		"the last one that is allowed": {limits.max - 1, 0, time.Hour, 1},
	} {
		if got := limits.remaining(c.checked, c.checks, c.reading); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// TestConfirmedButReadable checks that a confirmation that the members of all groups were removed
// does not remove those that memberOf shows.
func TestConfirmedButReadable(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.hide(m.Base(), "member")
	if _, err := m.failedRun(RunOptions{}); err == nil {
		t.Error("not refused")
	}
	before := m.withoutUnreadable(m.gateway.Held())
	m.expectPartial(RunOptions{Full: true, AllowDeletes: true}, full, 6)
	if !maps.Equal(m.withoutUnreadable(m.gateway.Held()), before) {
		t.Error("memberships were removed")
	}
	m.expectPartial(RunOptions{}, delta, 5)
}

// TestUncheckedGroups checks that groups keep their members, marked as unreadable, if the run may not check
// whether they have any, and that the next run that may do so finds out.
func TestUncheckedGroups(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	before := m.withoutUnreadable(m.gateway.Held())
	m.hide(m.outer, "member")
	m.set(m.inner, "member")
	m.exceedOverlap()
	m.runner.emptyChecks = emptyChecks{}
	for _, options := range []RunOptions{{Full: true}, {Full: true}, {}} {
		if run, err := m.runner.Run(t.Context(), options); err != nil || run.Result != Partial || run.Unreadable != 2 {
			t.Errorf("%s, %d unreadable, error %v", brief(run), run.Unreadable, err)
		}
		for _, diff := range differences(m.withoutUnreadable(m.gateway.Held()), before, false) {
			t.Error(diff)
		}
	}
	m.runner.emptyChecks = defaultEmptyChecks
	if run, err := m.runner.Run(t.Context(), RunOptions{Full: true}); err != nil || run.Result != Partial || run.Unreadable != 1 {
		t.Errorf("%s, %d unreadable, error %v", brief(run), run.Unreadable, err)
	}
	m.expectAdministratorsView(m.outer)
}

// TestUncheckedGroupWithoutMembers checks that a group without known members whose members were unreadable
// stays marked if it is not checked: it is unknown whether it is empty.
func TestUncheckedGroupWithoutMembers(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	team := m.addGroup("team")
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 9 + postureObjects})
	m.hideAll(team) // its members can be any
	if run, err := m.runner.Run(t.Context(), RunOptions{Full: true}); err != nil || run.Result != Partial || run.Unreadable != 1 {
		t.Errorf("%s, %d unreadable, error %v", brief(run), run.Unreadable, err)
	}
	m.hide(team, "member")
	m.runner.emptyChecks = emptyChecks{}
	m.expectPartial(RunOptions{Full: true}, full, 1)
	m.expectPosture(team, "unreadable", "empty", "inCycle", "members", "membersWithoutSid", "nestingDepth")
	m.runner.emptyChecks = defaultEmptyChecks
	m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	m.expectPosture(team, "empty", "true")
	m.expectPosture(team, "unreadable")
}

// TestContradictedEmptyGroup checks that a delta sync checks a group again that was known to be empty and
// has not changed, if memberOf of a changed object has it: memberOf was unreadable before.
func TestContradictedEmptyGroup(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	team := m.addGroup("team", m.user(4))
	m.hide(team, "member")
	m.hide(m.user(4), "memberOf")
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 9 + postureObjects})
	m.expectPosture(team, "empty", "true")
	m.hide(m.user(4))
	m.set(m.user(4), "title", "Chief")
	m.expectPartial(RunOptions{}, delta, 1)
	m.expectPosture(team, "members", m.SID(m.user(4)))
	m.expectAdministratorsView(team)
}

// TestGraphOfAnotherDomain checks that no accounts and groups of another domain stay in the graph, even if
// they are more than may be searched one by one.
func TestGraphOfAnotherDomain(t *testing.T) {
	t.Parallel()
	for _, options := range []RunOptions{{}, {Full: true}} {
		m := newUnreadableMembersDomain(t)
		m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
		sid := func(rid ad.RID) ad.SID {
			return ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}, rid)
		}
		group, account := ad.GUID{1}, ad.GUID{2}
		other := membership.New()
		other.AddMember(other.SetGroup(group, sid(1000), true, 0), account, sid(1001))
		other.SetAccount(account, sid(1001), 513)
		other.Compute()
		change := state.GraphChange{Source: state.GraphSource{Base: "DC=other,DC=example,DC=com"}, Replace: true}
		change.Objects, change.Groups = other.ChangedRecords()
		m.must(m.store.UpdateGraph(change))
		m.runner.maxLocated = 0
		if run, err := m.runner.Run(t.Context(), options); err != nil || run.Result != Processed {
			t.Errorf("run: %s, error %v", brief(run), err)
		}
		stored, err := loadMemberships(m.store, Source{Posture: true}, m.runner.Log)
		m.must(err)
		if stored.source.Base != m.Base() || stored.graph.HasGroup(group) || stored.graph.PrimaryRID(account) != 0 {
			t.Errorf("options %+v: graph of %s, group of the other domain %t, primary group of its account %d", options, stored.source.Base,
				stored.graph.HasGroup(group), stored.graph.PrimaryRID(account))
		}
		m.expectConverged()
	}
}

// TestRoleGroupsAreCheckedFirst checks that the groups of roles are checked before others that have lost
// their visible members, if a run may not check all.
func TestRoleGroupsAreCheckedFirst(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.set(m.inner, "member")
	m.exceedOverlap()
	m.runner.emptyChecks = emptyChecks{min: 1, max: 1}
	m.expectPartial(RunOptions{Full: true}, full, 1)
	m.expectPosture(m.inner, "unreadable", "empty", "inCycle", "members", "membersWithoutSid", "nestingDepth")
}

// TestMayHaveMembers checks which groups without visible members are checked, of those that were known to
// be empty.
func TestMayHaveMembers(t *testing.T) {
	t.Parallel()
	info := groupInfo{guid: ad.GUID{1}, sid: ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}, 1000)}
	for name, c := range map[string]struct {
		usnChanged   string
		contradicted bool
		want         bool
	}{
		"unchanged":                 {"99", false, false},
		"changed":                   {"100", false, true},
		"found empty in this state": {"101", false, false},
		"unreadable uSNChanged":     {"", false, true},
		"contradicted":              {"99", true, true},
	} {
		r := &graphReader{graph: membership.New(), checksEmpty: true, emptySince: 100, emptyGroups: &emptyGroups{usns: map[ad.GUID]ad.USN{info.guid: 101}},
			contradicted: map[ad.GUID]bool{info.guid: c.contradicted}}
		r.graph.SetKnownEmpty(r.setGroup(info))
		if got := r.mayHaveMembers(info, []byte(c.usnChanged)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestEmptyGroupsBegin checks which empty groups of an earlier run are still known to be empty.
func TestEmptyGroupsBegin(t *testing.T) {
	t.Parallel()
	a, b := ad.InvocationID{1}, ad.InvocationID{2}
	for name, c := range map[string]struct {
		id    ad.InvocationID
		since ad.USN
		want  map[ad.GUID]ad.USN
	}{
		"overlap":            {a, 10, map[ad.GUID]ad.USN{{2}: 10}},
		"all are checked":    {a, 0, map[ad.GUID]ad.USN{}},
		"another controller": {b, 10, map[ad.GUID]ad.USN{}},
	} {
		e := emptyGroups{invocationID: a, usns: map[ad.GUID]ad.USN{{1}: 9, {2}: 10}}
		if e.begin(c.id, c.since); e.invocationID != c.id || !maps.Equal(e.usns, c.want) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestMaxLocated checks that members, accounts and groups that no search finds, and that exceed the
// limit of single searches, count as existing.
func TestMaxLocated(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 1, defaultMaxLocated} {
		m := newUnreadableMembersDomain(t)
		m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
		before := m.withoutUnreadable(m.gateway.Held())
		m.runner.maxLocated = limit
		m.hideAll(m.outer)
		m.hideAll(m.inner)
		for range 2 {
			if run, err := m.runner.Run(t.Context(), RunOptions{Full: true}); err != nil || run.Result != Partial {
				t.Errorf("limit %d: %s, error %v", limit, brief(run), err)
			}
			for _, diff := range differences(m.withoutUnreadable(m.gateway.Held()), before, false) {
				t.Errorf("limit %d: %s", limit, diff)
			}
		}
	}
}

// TestDocumentedGraphSize checks what the limit of the first read is documented to be enough for.
func TestDocumentedGraphSize(t *testing.T) {
	t.Parallel()
	const scale = 100 // the graphs have a hundredth of the documented size
	for name, c := range map[string]struct{ objects, groups, memberships, nameSize int }{
		"many groups": {13_000, 650, 130_000, 28},
		"one group":   {26_000, 1, 26_000, 24},
	} {
		g := membership.New()
		guid := func(n int) (guid ad.GUID) {
			binary.LittleEndian.PutUint64(guid[:], uint64(n+1))
			return guid
		}
		sid := func(n int) ad.SID {
			return ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}, ad.RID(n+1000))
		}
		objectName := []byte(strings.Repeat("x", c.nameSize))
		for n := range c.groups {
			group := g.SetGroup(guid(n), sid(n), true, 0)
			g.SetName(group, objectName)
			for i := range c.memberships / c.groups {
				member := (n + i) % c.objects
				g.SetName(g.AddMember(group, guid(member), sid(member)), objectName)
			}
		}
		for n := c.groups; n < c.objects; n++ {
			g.SetName(g.SetAccount(guid(n), sid(n), 513), objectName)
		}
		if size := scale * g.Size(); size > defaultMaxGraphSize.first || size < defaultMaxGraphSize.first*9/10 {
			t.Errorf("%s: %d bytes, limit %d", name, size, defaultMaxGraphSize.first)
		}
	}
}
