package syncrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// foreignSID is the SID of a member from another forest.
const foreignSID = "S-1-5-21-9-9-9-1000"

func foreignDN(base string) string {
	return "CN=" + foreignSID + ",CN=ForeignSecurityPrincipals," + base
}

func addForeign(d *testenv.Directory) {
	d.Must(d.Add(domaincontroller.Object{DN: foreignDN(d.Base()), Attributes: map[string][]string{"objectClass": {"foreignSecurityPrincipal"}}}))
}

// newPostureEnv returns an environment whose profile includes security posture.
func newPostureEnv(t *testing.T, o domaincontroller.Options, users int) *env {
	t.Helper()
	e := newDomainEnv(t, o, users)
	e.setPosture(true)
	return e
}

const postureObjects = 15 // sent by a first sync: roles and the domain

func (e *env) users(n int) []string {
	dns := make([]string, n)
	for i := range dns {
		dns[i] = e.user(i)
	}
	return dns
}

func TestPostureOfUnchangedDirectory(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5 + postureObjects})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.expectConverged()
	if strings.Contains(fmt.Sprint(e.gateway.Held()), "unreadable") {
		t.Error("an asset lists unreadable parts")
	}
}

// membershipDomain is an environment with six users, a group inner with user0 and user1, and a
// group outer with inner.
type membershipDomain struct {
	*env
	inner, outer, admins, administrators string
}

func newMembershipDomain(t *testing.T) *membershipDomain {
	t.Helper()
	m := &membershipDomain{env: newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 6)}
	m.inner = m.addGroup("inner", m.user(0), m.user(1))
	m.outer = m.addGroup("outer", m.inner)
	m.admins, m.administrators = "CN=Domain Admins,CN=Users,"+m.Base(), "CN=Administrators,CN=Builtin,"+m.Base()
	return m
}

func (m *membershipDomain) set(dn, attribute string, values ...string) {
	m.t.Helper()
	m.must(m.Modify(dn, attribute, values...))
}

// nestInAdmins makes outer a member of Domain Admins, which is outside the profile's base.
func (m *membershipDomain) nestInAdmins() {
	m.t.Helper()
	m.set(m.admins, "member", "CN=Administrator,CN=Users,"+m.Base(), m.outer)
}

// The delta sync that finds a changed group sends the affected objects and no others.
func TestChangedMembershipInDeltaSync(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		before, change    func(m *membershipDomain)
		uploaded, deleted int
		expect            func(m *membershipDomain)
	}{
		"nested in a privileged group": {
			change:   (*membershipDomain).nestInAdmins,
			uploaded: 7, // both roles, both groups, both users, the domain
			expect: func(m *membershipDomain) {
				m.expectPosture(m.user(0), "privilegedGroups", "map", "nested:", m.SID(m.administrators), m.SID(m.admins))
				role := fmt.Sprint(m.asset(identity.RoleGUID(m.GUID(m.admins)))["members"])
				if !strings.Contains(role, m.SID(m.user(1))) || strings.Contains(role, m.SID(m.user(2))) {
					m.t.Errorf("members of the role: %s", role)
				}
			},
		},
		"one member replaced by another": {
			before:   (*membershipDomain).nestInAdmins,
			change:   func(m *membershipDomain) { m.set(m.inner, "member", m.user(1), m.user(2)) },
			uploaded: 5, // both roles, inner, both users
			expect: func(m *membershipDomain) {
				m.expectPosture(m.user(0), "groups", m.SID("CN=Domain Users,CN=Users,"+m.Base()))
				m.expectPosture(m.user(0), "privilegedGroups")
				m.expectPosture(m.user(2), "privilegedGroups", "map", "nested:", m.SID(m.administrators), m.SID(m.admins))
			},
		},
		"security group becomes a distribution group": {
			before:   (*membershipDomain).nestInAdmins,
			change:   func(m *membershipDomain) { m.set(m.outer, "groupType", "2") },
			uploaded: 7, // both roles, both groups, both users, the domain
			expect:   func(m *membershipDomain) { m.expectPosture(m.user(0), "privilegedGroups") },
		},
		"primary group": {
			change: func(m *membershipDomain) {
				sid := m.SID(m.admins)
				m.set(m.user(5), "primaryGroupID", sid[strings.LastIndex(sid, "-")+1:])
			},
			uploaded: 4, // both roles, the user, the domain
			expect: func(m *membershipDomain) {
				m.expectPosture(m.user(5), "privilegedGroups", "map", "direct:", m.SID(m.admins), "nested:", m.SID(m.administrators))
			},
		},
		"cycle": {
			change:   func(m *membershipDomain) { m.set(m.inner, "member", m.outer) },
			uploaded: 4, // both groups, both users
			expect: func(m *membershipDomain) {
				m.expectPosture(m.inner, "inCycle", "true")
				m.expectPosture(m.outer, "inCycle", "true")
			},
		},
		"group deleted": {
			before:   func(m *membershipDomain) { m.nestInAdmins(); m.set(m.inner, "member", m.outer) },
			change:   func(m *membershipDomain) { m.must(m.Delete(m.outer)) },
			uploaded: 3, deleted: 1, // both roles, inner
			expect: func(m *membershipDomain) { m.expectPosture(m.inner, "empty", "true") },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMembershipDomain(t)
			if c.before != nil {
				c.before(m)
			}
			m.exceedOverlap()
			m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			c.change(m)
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: c.uploaded, Deleted: c.deleted})
			c.expect(m)
			m.expectConverged()
			if lines := m.log.With(MsgMembershipsRead); lines[len(lines)-1]["whole"] != false {
				t.Errorf("%v", lines[len(lines)-1])
			}
		})
	}
}

func TestDirectAndNestedMemberships(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 1)
	inner := e.addGroup("inner", e.user(0))
	outer := e.addGroup("outer", inner)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3 + postureObjects})
	e.expectPosture(e.user(0), "groups", e.SID("CN=Domain Users,CN=Users,"+e.Base()), e.SID(inner))
	e.expectPosture(outer, "nestingDepth", "1")
}

// The memberships of a lagging controller do not stay at the gateway, although nothing changes
// on the other one.
func TestMembershipsOfLaggingController(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	first, lagging := e.Port, e.newReplica(domaincontroller.Options{ReadsDeleted: true})
	for n := range 3 {
		e.AddUser(e.user(n))
		lagging.AddUser(e.user(n))
	}
	team := e.addGroup("team")
	lagging.AddGroup(team)
	e.must(e.Modify(team, "member", e.user(0)))
	e.exceedOverlap()
	run := func(mode string) {
		t.Helper()
		if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != mode {
			t.Fatalf("run %+v, error %v", run, err)
		}
	}
	run(full)
	e.connectTo(lagging.Port)
	run(full)
	e.expectPosture(team, "members")
	e.connectTo(first)
	run(delta)
	e.expectPosture(team, "members", e.SID(e.user(0)))
	e.expectConverged()
}

// The search for memberships may miss an account that changes during the search.
func TestAccountChangedDuringMembershipSearch(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 3)
	e.must(e.Modify(e.user(0), "primaryGroupID", "512"))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3 + postureObjects})
	e.must(e.Modify(e.user(0), "primaryGroupID"))
	var searches atomic.Int32
	e.options.Search.PageSize = 1000
	e.options.Search.Observe = func(request string, _ fault.Class, _ time.Duration) {
		if request == "search" && searches.Add(1) == 2 { // groups and accounts were read
			if err := e.Modify(e.user(0), "primaryGroupID", "512"); err != nil {
				t.Error(err)
			}
		}
	}
	e.start()
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.expectConverged()
}

// Objects affected by a changed group are read again until a run succeeds, although the group
// does not change again.
func TestAffectedObjectsAreReadAgainAfterFailedRun(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 3)
	e.options.Upload.BatchSize = 1
	e.start()
	team := e.addGroup("team")
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4 + postureObjects})
	e.must(e.Modify(team, "member", e.user(0)))
	e.must(e.Modify(e.user(2), "title", "x")) // sent first, and refused
	e.refusedRun(RunOptions{})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3})
	e.expectPosture(e.user(0), "groups", e.SID(team), e.SID("CN=Domain Users,CN=Users,"+e.Base()))
	e.expectConverged()
	if affected, all, err := e.store.StaleObjects(); err != nil || len(affected) > 0 || all {
		t.Errorf("still affected: %v, all %v, error %v", affected, all, err)
	}
}

// A user who is deleted and restored loses all groups, but the groups do not change.
func TestRestoredUserLosesGroups(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]int{"group with another member": 1, "group without another member": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
			team := e.addGroup("team", e.users(1+others)...)
			e.exceedOverlap()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4 + postureObjects})
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			e.must(e.Undelete(e.deleteUsers(1)[0]))
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
			if others > 0 {
				e.expectPosture(team, "members", e.SID(e.user(1)))
			} else {
				e.expectPosture(team, "members")
				e.expectPosture(team, "empty", "true")
			}
			e.expectConverged()
		})
	}
}

// TestRestoredUserAmongUnreadable checks that a restored user loses the groups whose other members no
// search finds: they do not show that memberOf is unreadable.
func TestRestoredUserAmongUnreadable(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	team := e.addGroup("team", e.users(2)...)
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4 + postureObjects})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.hideAll(e.user(1))
	e.must(e.Undelete(e.deleteUsers(1)[0]))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
	e.expectPosture(team, "members", e.SID(e.user(1)))
}

// TestRecordMemberOf checks that a list of groups of which the server returned only a part is not
// recorded: the group of a changed object that is missing from it would seem contradicted.
func TestRecordMemberOf(t *testing.T) {
	t.Parallel()
	for _, partial := range []bool{false, true} {
		r := &graphReader{memberOf: map[ad.GUID][]ad.GUID{}}
		entry := &ad.Entry{Values: [][][]byte{nil, {[]byte("<GUID=00000000-0000-0000-0000-000000000001>;CN=a")}}}
		if partial {
			entry.Partial = []int{1}
		}
		if r.recordMemberOf(ad.GUID{1}, entry, 1); len(r.memberOf) == 0 != partial {
			t.Errorf("partial %t: %v", partial, r.memberOf)
		}
	}
}

// TestReadLargeGroup checks that the memory for a group whose members come in several ranges is given
// back, and that a group that was deleted in the meantime leaves the graph.
func TestReadLargeGroup(t *testing.T) {
	t.Parallel()
	const many = 1501
	e := newPostureEnv(t, domaincontroller.Options{}, many)
	team := e.addGroup("team", e.users(many)...)
	opened, err := directory.Connect(t.Context(), e.Directory.Options(directory.LDAP))
	e.must(err)
	defer opened.Close()
	s := &session{Session: opened, lastUsed: time.Now(), idleLimit: 1 << 40}
	graph := membership.New()
	r := e.runner.newMembershipSync(e.runner.newRunInfo(RunOptions{}), Source{Base: e.base}, s, storedMemberships{graph: graph}, Snapshot{}).newGraphReader(graph, nil)
	guid := e.GUID(team)
	e.must(r.readGroups(t.Context(), s, directory.FilterByGUID([]ad.GUID{guid})))
	node, _ := graph.Find(guid)
	if members := len(graph.Members(node)); members != many || r.otherSize != 0 {
		t.Errorf("%d members, %d bytes besides the graph", members, r.otherSize)
	}
	info := groupInfo{guid: guid, sid: e.sid(team), security: true}
	e.must(e.Delete(team))
	if e.must(r.readLargeGroup(t.Context(), s, info)); graph.HasGroup(guid) {
		t.Error("the deleted group is in the graph")
	}
}

// If memberOf is unreadable, a changed user does not cause its groups to be read again.
func TestUnreadableMemberOf(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.replaceInRequests("memberOf", "memberXX")
	for n := range 150 {
		e.addGroup("group"+strconv.Itoa(n), e.users(5)...)
	}
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 155 + postureObjects})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.must(e.Modify(e.user(0), "title", "x"))
	entries := e.Counters().Entries
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if read := e.Counters().Entries - entries; read > 100 {
		t.Errorf("%d entries read", read)
	}
	e.expectConverged()
}

// Without extended DNs, members have no identifiers.
func TestServerWithoutExtendedDNs(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 3)
	e.replaceInRequests("1.2.840.113556.1.4.529", "1.2.840.113556.1.4.999")
	team := e.addGroup("team", e.user(0))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4 + postureObjects})
	for _, dn := range []string{team, e.user(0)} {
		for _, key := range []string{"members", "empty", "nestingDepth", "inCycle", "memberOf", "groups"} {
			e.expectPosture(dn, key)
		}
	}
	e.expectPosture(e.user(0), "primaryGroup", e.SID("CN=Domain Users,CN=Users,"+e.Base()))
	if lines := e.log.With(MsgMembersUnidentified); len(lines) != 1 || lines[0].Text("remedy") == "" {
		t.Errorf("log %v", lines)
	}
}

func TestTooManyAffectedObjectsCauseFullSync(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 8)
	team := e.addGroup("team", e.users(8)...)
	e.maxAffected = 8
	e.start()
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 9 + postureObjects})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.must(e.Modify("CN=Backup Operators,CN=Builtin,"+e.Base(), "member", team))
	e.refusedRun(RunOptions{})
	if reason := e.fullSyncReason(); reason != ReasonAffected {
		t.Errorf("reason %s", reason)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 11}) // users, team, role, domain
	e.expectConverged()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}

// A domain controller returns at most 1,500 members at once. Most of these are outside the
// profile's base.
func TestGroupReadInRanges(t *testing.T) {
	t.Parallel()
	const outside, inside, removed = 1500, 60, 20
	e := newPostureEnv(t, domaincontroller.Options{}, inside)
	addForeign(e.Directory)
	e.must(e.Add(domaincontroller.Object{DN: e.dn("contact"), Attributes: map[string][]string{"objectClass": {"contact"}}}))
	members := []string{foreignDN(e.Base()), e.dn("contact")}
	for n := range outside {
		e.AddUser(e.outside(n))
		members = append(members, e.outside(n))
	}
	members = append(members, e.users(inside)...)
	team := e.addGroup("team", members...)
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: inside + 1 + postureObjects})
	posture := e.asset(e.GUID(team))["posture"].(map[string]any)
	if got := posture["members"].([]any); len(got) != outside+inside+1 || !slices.Contains(got, any(foreignSID)) || posture["membersWithoutSid"] != 1.0 {
		t.Errorf("%d members, %v without a SID", len(got), posture["membersWithoutSid"])
	}
	e.must(e.Modify(team, "member", members[:len(members)-removed]...))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: removed + 1})
	e.expectConverged()
}

// A part of the members must not count as all members.
func TestGroupChangedDuringEachRead(t *testing.T) {
	t.Parallel()
	const many = 1600
	e := newPostureEnv(t, domaincontroller.Options{}, many)
	team := e.addGroup("team", e.users(many)...)
	var changes atomic.Int32
	e.options.Search.Observe = func(request string, _ fault.Class, _ time.Duration) {
		if request == "search" {
			if err := e.Modify(team, "description", strconv.Itoa(int(changes.Add(1)))); err != nil {
				t.Error(err)
			}
		}
	}
	e.start()
	if _, err := e.failedRun(RunOptions{}); !errors.Is(err, directory.ErrObjectChanged) || fault.ClassOf(err) != fault.Incomplete || e.assetRequests() != 0 {
		t.Errorf("error %v, %d requests", err, e.assetRequests())
	}
}

// A huge group is sent as a whole. A delta sync after the removal of its members reads only
// the group.
func TestCampaignHugeGroup(t *testing.T) {
	t.Parallel()
	many := 100_000
	if testing.Short() {
		many = 4000
	}
	e := newDomainEnv(t, domaincontroller.Options{Users: many, Groups: 1}, 0) // the group contains all users
	e.base = "OU=Groups," + e.Base()
	e.setPosture(true)
	count := func() int {
		t.Helper()
		groups := e.gateway.Groups()
		if len(groups) != 1 {
			t.Fatalf("%d groups", len(groups))
		}
		var item struct {
			Asset struct {
				AssetDetail struct {
					GroupAssetClass struct{ Posture struct{ Members []string } }
				}
			}
		}
		e.must(json.Unmarshal(groups[0].Asset, &item))
		return len(item.Asset.AssetDetail.GroupAssetClass.Posture.Members)
	}
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1 + postureObjects})
	if got := count(); got != many {
		t.Errorf("%d members", got)
	}
	e.must(e.Modify("CN=All employees,"+e.base, "member", e.BindDN()))
	entries := e.Counters().Entries
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if got, read := count(), e.Counters().Entries-entries; got != 1 || read > 1000 {
		t.Errorf("%d members, %d entries read", got, read)
	}
}

func TestServiceAccountPosture(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	readers := "\x01\x00\x04\x80" + strings.Repeat("\x00", 12) + "\x14\x00\x00\x00" +
		"\x02\x00\x20\x00\x01\x00\x00\x00" + "\x00\x00\x18\x00\xff\x01\x0f\x00" + "\x01\x02\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x20\x02\x00\x00"
	e.must(e.Add(domaincontroller.Object{DN: e.dn("gmsa"), Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"},
		"msDS-GroupMSAMembership": {readers}, "msDS-ManagedPasswordInterval": {"30"}}}))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1 + postureObjects})
	if account := e.asset(e.GUID(e.dn("gmsa"))); account["accountType"] != "SERVICE" {
		t.Errorf("%v", account)
	}
	e.expectPosture(e.dn("gmsa"), "passwordReaders", "S-1-5-32-544")
	e.must(e.Delete(e.dn("gmsa")))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.expectConverged()
}

func TestDomainPosture(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 1)
	policy := "CN=Strict,CN=Password Settings Container,CN=System," + e.Base()
	e.must(e.Add(domaincontroller.Object{DN: policy, Attributes: map[string][]string{"objectClass": {"msDS-PasswordSettings"},
		"msDS-PasswordSettingsPrecedence": {"1"}, "msDS-PSOAppliesTo": {e.user(0)}, "msDS-MaximumPasswordAge": {"-864000000000"}}}))
	e.must(e.Add(domaincontroller.Object{DN: "CN=partner.example,CN=System," + e.Base(), Attributes: map[string][]string{"objectClass": {"trustedDomain"},
		"trustPartner": {"partner.example"}, "trustDirection": {"3"}, "trustType": {"2"}, "trustAttributes": {"8"}}}))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1 + postureObjects})
	if got := e.postureOf(e.user(0), "passwordPolicy"); got != policy {
		t.Errorf("policy %q", got)
	}
	domain := string(e.gateway.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset)
	for _, want := range []string{
		`"appliesTo":["` + e.SID(e.user(0)) + `"]`, `{"sid":"` + e.SID(e.user(0)) + `","name":"user0","kind":"USER"}`, `"names":{"dns":"corp.example.com","netbios":"CORP"},"distinguishedName":"` + e.Base() + `"`,
		`"partner":"partner.example","direction":"BIDIRECTIONAL","type":"UPLEVEL","attributes":["FOREST_TRANSITIVE"],"sidFiltering":"FOREST"`,
	} {
		if !strings.Contains(domain, want) {
			t.Errorf("%s has no %s", domain, want)
		}
	}
	e.must(e.Modify(e.Base(), "ms-DS-MachineAccountQuota", "0"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

func TestUnreadablePartOfDomainIsListed(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 0)
	e.replaceInRequests("krbtgt", "krbtgX")
	e.runWithoutDescriptors(RunOptions{}, state.Run{Mode: full, Uploaded: postureObjects}, 1, ":LCRPRC")
	if domain := string(e.gateway.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset); !strings.Contains(domain, `"unreadable":["krbtgt.controlledBy","krbtgtPasswordLastChangedAt"]`) {
		t.Errorf("%s", domain)
	}
}

func TestDryRunWithPostureRecordsNothing(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 2)
	if run := e.run(RunOptions{DryRun: true}, state.Run{Mode: full, Result: Processed}); run.Changed != 2+postureObjects {
		t.Errorf("run %+v", run)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2 + postureObjects})
	e.expectConverged()
}

func TestDeletedRoleOutsideBase(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: postureObjects})
	e.must(e.Delete("CN=DnsAdmins,CN=Users," + e.Base()))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.expectConverged()
}

// newDisabledPostureEnv returns an environment in which security posture was enabled and then
// disabled. The guard would hold the deletions of the posture objects.
func newDisabledPostureEnv(t *testing.T) (e *env, identities map[string]string) {
	t.Helper()
	e = newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 4)
	e.options.Guard = Guard{MaxDeletes: 1, MaxDeletesPercent: 1}
	e.start()
	e.addGroup("team", e.user(0))
	e.must(e.Add(domaincontroller.Object{DN: e.dn("gmsa"), Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}}))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	identities = e.gateway.Held()
	e.setPosture(true)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6 + postureObjects})
	e.setPosture(false)
	return e, identities
}

func TestDisabledPostureIsDeleted(t *testing.T) {
	t.Parallel()
	e, identities := newDisabledPostureEnv(t)
	e.run(RunOptions{DryRun: true}, state.Run{Mode: full, Result: Processed})
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5, Deleted: 1 + postureObjects})
	for guid, asset := range e.gateway.Held() {
		if identities[guid] != asset && !testenv.IsDeleted(asset) {
			t.Errorf("%s, want %s", asset, identities[guid])
		}
	}
	if lines := e.log.With(MsgPostureDisabled); len(lines) != 2 || lines[1].Number("objects") != 1+postureObjects {
		t.Errorf("log %v", lines)
	}
	// The names and memberships of the whole domain are not kept.
	if _, found, err := e.store.ReadGraph(nil, nil); found || err != nil {
		t.Errorf("graph found %t, %v", found, err)
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
}

func TestEnabledPostureIsSentAgain(t *testing.T) {
	t.Parallel()
	e, _ := newDisabledPostureEnv(t)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5, Deleted: 1 + postureObjects})
	e.setPosture(true)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6 + postureObjects})
	e.expectConverged()
}

func TestUnreadableStoredMemberships(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 2)
	e.addGroup("team", e.user(0))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3 + postureObjects})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.must(e.store.UpdateGraph(state.GraphChange{Groups: slices.Values([]membership.Record{{Node: 0, Value: []byte("?")}})}))
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	if lines := e.log.With(MsgMembershipsUnreadable); len(lines) != 1 {
		t.Errorf("log %v", lines)
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}
