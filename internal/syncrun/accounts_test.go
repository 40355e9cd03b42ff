package syncrun

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// newWholeDomain returns the domain of newUnreadableMembersDomain, of which a full sync reads users once.
func newWholeDomain(t *testing.T) *membershipDomain {
	t.Helper()
	m := newUnreadableMembersDomain(t)
	m.readWholeDomain()
	return m
}

// readWholeDomain makes the domain the profile's base. Groups and users stay in OU=Staff.
func (m *membershipDomain) readWholeDomain() {
	m.t.Helper()
	m.base = m.Base()
	m.setConsole()
}

func (m *membershipDomain) staff(n int) string {
	return fmt.Sprintf("CN=user%d,OU=Staff,%s", n, m.Base())
}

// process performs one run that must succeed, and returns it.
func (m *membershipDomain) process(options RunOptions) state.Run {
	m.t.Helper()
	run, err := m.runner.Run(m.t.Context(), options)
	if err != nil || run.Result != Processed {
		m.t.Fatalf("run: %s, error %v", brief(run), err)
	}
	return run
}

// TestUsersAreReadOnce checks how many entries a full sync reads for a user, by reading domains that
// differ in their number of users.
func TestUsersAreReadOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		filter string
		reads  int
	}{
		"whole domain": {"", 1},
		"user filter":  {"(objectClass=*)", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, again := map[int]int{}, map[int]int{}
			for _, more := range []int{0, 50} {
				m := newUnreadableMembersDomain(t)
				for n := range more {
					m.AddUser(m.user(100 + n))
				}
				m.readWholeDomain()
				m.options.Search.UserFilter = test.filter
				m.start()
				for _, entries := range []map[int]int{first, again} {
					before := m.Counters().Entries
					m.process(RunOptions{Full: true})
					entries[more] = m.Counters().Entries - before
				}
			}
			if got := first[50] - first[0]; got != 50*test.reads {
				t.Errorf("first sync, 50 more users: %d more entries, want %d", got, 50*test.reads)
			}
			// Few more show which attributes are readable.
			if got := again[50] - again[0]; got < 50*test.reads || got > 50*test.reads+10 {
				t.Errorf("unchanged sync, 50 more users: %d more entries, want %d", got, 50*test.reads)
			}
		})
	}
}

// acceptFirst returns a front that refuses assets after the first request with some.
func acceptFirst() testenv.Front {
	var requests atomic.Int32
	return testenv.OnAssets(func(x *testenv.Exchange) bool {
		return requests.Add(1) > 1 && x.Status(http.StatusForbidden, "")
	})
}

// TestFullSyncThatFailsAfterUsers checks that users that were sent under memberships that were not
// recorded are corrected by the next run.
func TestFullSyncThatFailsAfterUsers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		first, undone bool
	}{
		{name: "first sync", first: true},
		{name: "later sync"},
		{name: "change undone", undone: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newWholeDomain(t)
			m.options.Upload.BatchSize, m.options.Upload.Workers = 1, 1
			m.start()
			if !test.first {
				m.process(RunOptions{})
				m.process(RunOptions{})
				m.set("CN=Account Operators,CN=Builtin,"+m.Base(), "member", m.inner)
			}
			m.exceedOverlap()
			m.gateway.SetFront(acceptFirst())
			if run, _ := m.failedRun(RunOptions{Full: true}); run.Uploaded != 1 {
				t.Fatalf("run: %s, want one uploaded object", brief(run))
			}
			m.gateway.SetFront(nil)
			if _, all, err := m.store.StaleObjects(); err != nil || !all {
				t.Fatalf("all stale: %v, error %v", all, err)
			}
			if test.undone {
				m.set("CN=Account Operators,CN=Builtin,"+m.Base(), "member")
				m.exceedOverlap()
			}
			m.restart()
			if run := m.process(RunOptions{}); run.Mode != full {
				t.Errorf("mode %s", run.Mode)
			}
			m.expectConverged()
			if run := m.process(RunOptions{}); run.Mode != delta || run.Uploaded != 0 {
				t.Errorf("run: %s", brief(run))
			}
		})
	}
}

// TestDryRunOfWholeDomainRecordsNothing checks that a dry run does not mark objects as stale.
func TestDryRunOfWholeDomainRecordsNothing(t *testing.T) {
	t.Parallel()
	m := newWholeDomain(t)
	m.process(RunOptions{})
	m.process(RunOptions{Full: true, DryRun: true})
	if _, all, err := m.store.StaleObjects(); err != nil || all {
		t.Errorf("all stale: %v, error %v", all, err)
	}
	if run := m.process(RunOptions{}); run.Mode != delta || run.Uploaded != 0 {
		t.Errorf("run: %s", brief(run))
	}
}

// TestUserThatMentionsAccounts checks that a user whose asset names another account is sent once and
// with the name, whichever of both is read first, and also if the other one was renamed.
func TestUserThatMentionsAccounts(t *testing.T) {
	t.Parallel()
	m := newWholeDomain(t)
	computer := "CN=PC-0042,OU=Outside," + m.Base()
	m.must(m.Add(domaincontroller.Object{DN: computer, Attributes: map[string][]string{"objectClass": {"computer"}}}))
	sid := func(dn string) string { return m.Object(dn).First("objectSid") }
	m.set(m.staff(0), "sIDHistory", sid(m.staff(5)), sid(computer))
	m.set(m.staff(4), "sIDHistory", sid(m.staff(1)), "\x01\x05\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00\x09\x00\x00\x00\x09\x00\x00\x00\x09\x00\x00\x00\xe8\x03\x00\x00")
	m.exceedOverlap()
	first := m.process(RunOptions{})
	if first.Uploaded != len(m.gateway.Held()) {
		t.Errorf("%d uploaded, %d at the gateway", first.Uploaded, len(m.gateway.Held()))
	}
	m.expectConverged()
	m.must(m.Rename(m.staff(5), "renamed"))
	m.must(m.Rename(computer, "PC-1"))
	m.process(RunOptions{Full: true})
	m.expectConverged()
	if principals := m.postureOf(m.staff(0), "principals"); !strings.Contains(principals, "PC-1") || !strings.Contains(principals, "renamed") {
		t.Errorf("principals %s", principals)
	}
}

// TestUnreadableInWholeDomain checks that a user whose primary group is unreadable keeps its roles, and
// that a group that can only be listed keeps its members, if a full sync reads users once.
func TestUnreadableInWholeDomain(t *testing.T) {
	t.Parallel()
	m := newWholeDomain(t)
	helpers := "CN=helpers,OU=Outside," + m.Base()
	m.must(m.Add(domaincontroller.Object{DN: helpers, Attributes: map[string][]string{"objectClass": {"group"}, "member": {m.staff(5)}}}))
	m.set(m.administrators, "member", m.admins, helpers)
	m.set(m.staff(4), "primaryGroupID", "512")
	m.exceedOverlap()
	m.process(RunOptions{})
	m.expectConverged()
	m.hide(m.staff(4), "primaryGroupID")
	m.hideAll(helpers)
	for _, options := range []RunOptions{{Full: true}, {}, {Full: true}} {
		if run, err := m.runner.Run(t.Context(), options); err != nil || (run.Result == Partial) != options.Full || run.Deleted+run.Held+run.Undecided > 0 {
			t.Fatalf("run: %s, error %v", brief(run), err)
		}
		if members := m.membersOfRole(m.admins); !strings.Contains(members, m.SID(m.staff(4))) {
			t.Errorf("role %s", members)
		}
		if members := m.membersOfRole(m.administrators); !strings.Contains(members, m.SID(m.staff(5))) || !strings.Contains(members, `"unreadable"`) {
			t.Errorf("role %s", members)
		}
		if got := m.postureOf(m.staff(5), "privilegedGroups"); !strings.Contains(got, m.SID(m.administrators)) {
			t.Errorf("privileges %s", got)
		}
	}
	m.hide(m.staff(4))
	m.hide(helpers)
	m.process(RunOptions{Full: true})
	m.expectConverged()
}

// TestUserDeletedInWholeDomain checks that an account that is not found any more is removed from the
// roles, and that its deletion is sent.
func TestUserDeletedInWholeDomain(t *testing.T) {
	t.Parallel()
	m := newWholeDomain(t)
	m.set(m.staff(4), "primaryGroupID", "512")
	m.exceedOverlap()
	m.process(RunOptions{})
	sid, guid := m.SID(m.staff(4)), m.GUID(m.staff(4))
	m.must(m.Delete(m.staff(4)))
	if run := m.process(RunOptions{Full: true}); run.Deleted != 1 {
		t.Errorf("run: %s", brief(run))
	}
	if members := m.membersOfRole(m.admins); strings.Contains(members, sid) {
		t.Errorf("role %s", members)
	}
	m.expectStatuses("DELETED", guid)
	m.expectConverged()
	if m.gateway.Held()[identity.RoleGUID(m.GUID(m.admins)).String()] == "" {
		t.Error("no role")
	}
}
