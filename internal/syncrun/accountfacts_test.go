package syncrun

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/state"
)

const (
	factLogonAge    = 90 * 24 * time.Hour
	factPasswordAge = 365 * 24 * time.Hour
)

// expectFacts expects the facts of an account at the gateway, in the order of their names. The last one
// is "unreadable" if others may hold.
func (e *env) expectFacts(dn string, want ...string) {
	e.t.Helper()
	posture, _ := e.asset(e.GUID(dn))["posture"].(map[string]any)
	got := []string{}
	list, _ := posture["facts"].([]any)
	for _, item := range list {
		got = append(got, item.(map[string]any)["fact"].(string))
	}
	if strings.Contains(e.postureOf(dn, "unreadable"), "facts") {
		got = append(got, "unreadable")
	}
	if !slices.Equal(got, want) {
		e.t.Errorf("facts of %s: %v, want %v", dn, got, want)
	}
}

// protect makes users members of Protected Users.
func (m *membershipDomain) protect(users ...string) {
	m.t.Helper()
	m.set("CN=Protected Users,CN=Users,"+m.Base(), "member", users...)
}

// promote makes user0 to user2 members of Domain Admins and Protected Users.
func (m *membershipDomain) promote() {
	m.t.Helper()
	m.set(m.admins, "member", "CN=Administrator,CN=Users,"+m.Base(), m.user(0), m.user(1), m.user(2))
	m.protect(m.user(0), m.user(1), m.user(2))
}

// Each fact is found by the delta sync after it was provoked, and gone after it was taken back, also if
// the group of others was changed.
func TestFactsInDeltaSync(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, provoke, takeBack func(m *membershipDomain)
		want, after               string // of user0
	}{
		"service principal name": {
			before:   (*membershipDomain).promote,
			provoke:  func(m *membershipDomain) { m.set(m.user(0), "servicePrincipalName", "http/web") },
			takeBack: func(m *membershipDomain) { m.set(m.user(0), "servicePrincipalName") },
			want:     "KERBEROASTABLE_AND_PRIVILEGED",
		},
		"no preauthentication": {
			before:   (*membershipDomain).promote,
			provoke:  func(m *membershipDomain) { m.set(m.user(0), "userAccountControl", "4260352") },
			takeBack: func(m *membershipDomain) { m.set(m.user(0), "userAccountControl", "66048") },
			want:     "ASREP_ROASTABLE_AND_PRIVILEGED",
		},
		"disabled": {
			before: func(m *membershipDomain) {
				m.promote()
				m.set(m.user(0), "servicePrincipalName", "http/web")
				m.set(m.user(0), "userAccountControl", "66050")
			},
			provoke:  func(m *membershipDomain) { m.set(m.user(0), "userAccountControl", "66048") },
			takeBack: func(m *membershipDomain) { m.must(m.Disable(m.user(0))) },
			want:     "KERBEROASTABLE_AND_PRIVILEGED",
		},
		"nested in a privileged group": {
			before:   func(m *membershipDomain) { m.set(m.user(0), "servicePrincipalName", "http/web") },
			provoke:  (*membershipDomain).nestInAdmins,
			takeBack: func(m *membershipDomain) { m.set(m.admins, "member", "CN=Administrator,CN=Users,"+m.Base()) },
			want:     "KERBEROASTABLE_AND_PRIVILEGED PRIVILEGED_NOT_IN_PROTECTED_USERS",
		},
		"removed from Protected Users": {
			before:   (*membershipDomain).promote,
			provoke:  func(m *membershipDomain) { m.protect() },
			takeBack: func(m *membershipDomain) { m.protect(m.inner) },
			want:     "PRIVILEGED_NOT_IN_PROTECTED_USERS",
		},
		"nested in Protected Users": {
			before:   func(m *membershipDomain) { m.promote(); m.protect() },
			provoke:  func(m *membershipDomain) { m.protect(m.inner) },
			takeBack: func(m *membershipDomain) { m.set(m.inner, "groupType", "2") },
			after:    "PRIVILEGED_NOT_IN_PROTECTED_USERS",
		},
		"adminCount stays": {
			before:   func(m *membershipDomain) { m.nestInAdmins(); m.protect(m.inner); m.set(m.user(0), "adminCount", "1") },
			provoke:  func(m *membershipDomain) { m.set(m.admins, "member", "CN=Administrator,CN=Users,"+m.Base()) },
			takeBack: func(m *membershipDomain) { m.set(m.outer, "groupType", "2"); m.nestInAdmins() },
			want:     "ADMIN_COUNT_WITHOUT_ROLE",
		},
		"delegation": {
			provoke:  func(m *membershipDomain) { m.set(m.user(0), "msDS-AllowedToDelegateTo", "cifs/file", "ldap/DC1:389") },
			takeBack: func(m *membershipDomain) { m.set(m.user(0), "msDS-AllowedToDelegateTo", "cifs/file") },
			want:     "DELEGATION_TO_DOMAIN_CONTROLLER",
		},
		"old password": {
			before: (*membershipDomain).promote,
			provoke: func(m *membershipDomain) {
				m.set(m.user(0), "pwdLastSet", fileTime(m.clock.Now().Add(-factPasswordAge)))
			},
			takeBack: func(m *membershipDomain) { m.set(m.user(0), "pwdLastSet", "0") },
			want:     "PRIVILEGED_WITH_OLD_PASSWORD",
		},
		"logon of an inactive account": {
			before: func(m *membershipDomain) {
				m.promote()
				m.logOn(m.Directory, 0, "lastLogon", m.clock.Now().Add(-factLogonAge))
				m.logOn(m.Directory, 0, "lastLogonTimestamp", m.clock.Now().Add(-factLogonAge))
			},
			provoke:  func(m *membershipDomain) { m.set(m.user(0), "title", "x") },
			takeBack: func(m *membershipDomain) { m.logOn(m.Directory, 0, "lastLogonTimestamp", m.clock.Now()) },
			want:     "PRIVILEGED_AND_INACTIVE",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMembershipDomain(t)
			if c.before != nil {
				c.before(m)
			}
			m.exceedOverlap()
			if run, err := m.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != full {
				t.Fatalf("run %+v, error %v", run, err)
			}
			for _, step := range []struct {
				change func(m *membershipDomain)
				want   string
			}{{c.provoke, c.want}, {c.takeBack, c.after}} {
				step.change(m)
				if run, err := m.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != delta || run.Uploaded == 0 {
					t.Errorf("run %+v, error %v", run, err)
				}
				m.expectFacts(m.user(0), strings.Fields(step.want)...)
				m.expectConverged()
				m.exceedOverlap()
			}
		})
	}
}

// The clock of the domain controller decides when a fact begins that depends on the clock alone.
func TestFactsByTheClock(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"equal": 0, "directory 3 h behind": 3 * time.Hour, "directory 3 h ahead": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMembershipDomain(t)
			m.setHostClock(ahead)
			m.promote()
			due := m.clock.Now().Add(15 * time.Minute)
			m.logOn(m.Directory, 0, "lastLogon", due.Add(-factLogonAge))
			m.logOn(m.Directory, 1, "lastLogonTimestamp", due.Add(-factLogonAge))
			m.set(m.user(2), "pwdLastSet", fileTime(due.Add(-factPasswordAge)))
			m.logOn(m.Directory, 3, "lastLogon", due.Add(-factLogonAge)) // not privileged
			m.exceedOverlap()
			m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
			m.clock.Advance(15*time.Minute - time.Second)
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			for n := range 4 {
				m.expectFacts(m.user(n))
			}
			m.clock.Advance(2 * time.Second)
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3})
			m.expectFacts(m.user(0), "PRIVILEGED_AND_INACTIVE")
			m.expectFacts(m.user(1), "PRIVILEGED_AND_INACTIVE")
			m.expectFacts(m.user(2), "PRIVILEGED_WITH_OLD_PASSWORD")
			m.expectFacts(m.user(3))
			m.expectConverged()
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			if due := m.due(m.clock.Now()); len(due) > 0 {
				t.Errorf("still due: %v", due)
			}
		})
	}
}

// A later logon on the controller changes no update sequence number. It is found when the account would
// be inactive, and the account is read again when that logon is old.
func TestLogonBeforeInactivityIsDue(t *testing.T) {
	t.Parallel()
	m := newMembershipDomain(t)
	m.promote()
	due := m.clock.Now().Add(15 * time.Minute)
	m.logOn(m.Directory, 0, "lastLogon", due.Add(-factLogonAge))
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.logOn(m.Directory, 0, "lastLogon", due.Add(time.Hour-factLogonAge))
	m.clock.Advance(30 * time.Minute)
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	m.expectFacts(m.user(0))
	if got := m.due(due.Add(time.Hour)); !slices.Equal(got, []ad.GUID{m.GUID(m.user(0))}) {
		t.Errorf("due: %v", got)
	}
	m.clock.Advance(time.Hour)
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	m.expectFacts(m.user(0), "PRIVILEGED_AND_INACTIVE")
	m.expectConverged()
}

// A run reads a limited number of accounts whose facts begin at the same time, and the next one the
// others.
func TestManyFactsDue(t *testing.T) {
	t.Parallel()
	m := newMembershipDomain(t)
	m.promote()
	due := m.clock.Now().Add(15 * time.Minute)
	for n := range 3 {
		m.logOn(m.Directory, n, "lastLogon", due.Add(-factLogonAge))
	}
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.runner.maxReread = 2
	m.clock.Advance(time.Hour)
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	m.expectConverged()
	if lines := m.log.With(MsgRechecksPostponed); len(lines) != 1 || lines[0].Number("objects") != 1 {
		t.Errorf("log %v", lines)
	}
}

// With the logons of all controllers, an account that has logged on at another one is not inactive.
func TestFactsWithLogonsOfAllControllers(t *testing.T) {
	t.Parallel()
	for _, mode := range []LastLogon{LastLogonReplicated, LastLogonAllControllers} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			e := newLogonDomain(t, 2, 1)
			e.setPosture(true)
			e.options.LastLogon = mode
			e.start()
			for _, group := range []string{"Domain Admins", "Protected Users"} {
				e.must(e.Modify("CN="+group+",CN=Users,"+e.Base(), "member", e.user(0), e.user(1)))
			}
			old := e.clock.Now().Add(-factLogonAge)
			for n := range 2 {
				e.logOn(e.Directory, n, "lastLogon", old)
			}
			e.logOn(e.peers[0], 0, "lastLogon", old.Add(time.Hour))
			e.exceedOverlap()
			if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != full {
				t.Fatalf("run %+v, error %v", run, err)
			}
			e.expectFacts(e.user(1), "PRIVILEGED_AND_INACTIVE")
			if mode == LastLogonReplicated {
				e.expectFacts(e.user(0), "PRIVILEGED_AND_INACTIVE")
				return
			}
			e.expectFacts(e.user(0))
			e.clock.Advance(time.Hour + time.Second)
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
			e.expectFacts(e.user(0), "PRIVILEGED_AND_INACTIVE")
		})
	}
}

// Without the host names of all domain controllers, a service on another host may be on one of them.
// Accounts that did not change have the facts of renamed controllers after the next full sync.
func TestDelegationToControllers(t *testing.T) {
	t.Parallel()
	m := newMembershipDomain(t)
	controller := "CN=DC1,OU=Domain Controllers," + m.Base()
	m.set(m.user(0), "msDS-AllowedToDelegateTo", "ldap/other.corp.example.com/x")
	m.set(m.user(1), "msDS-AllowedToDelegateTo", "ldap/dc1")
	m.hide(controller, "dNSHostName")
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.expectFacts(m.user(0), "unreadable")
	m.expectFacts(m.user(1), "DELEGATION_TO_DOMAIN_CONTROLLER")
	m.expectFacts(m.user(2))
	m.hide(controller)
	m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 2}) // and the domain
	m.expectFacts(m.user(0))
	m.exceedOverlap()

	m.set(controller, "dNSHostName", "other.corp.example.com")
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1}) // the domain
	m.expectFacts(m.user(0))
	m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	m.expectFacts(m.user(0), "DELEGATION_TO_DOMAIN_CONTROLLER")
	m.expectConverged()
}
