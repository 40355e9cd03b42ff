package syncrun

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

func TestUntrackedFilters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		user, group string
		want        string // settings and attributes
	}{
		"none":                      {},
		"stored attributes":         {user: "(&(department=Sales)(!(userAccountControl:1.2.840.113556.1.4.803:=2)))", group: "(member=CN=a)"},
		"memberOf":                  {user: "(memberOf=CN=a)", want: "ldap.user-filter memberOf"},
		"nested":                    {user: "(&(a=b)(|(c=d)(!(MemberOf=CN=a))))", want: "ldap.user-filter MemberOf"},
		"option":                    {user: "(memberOf;range=0-1=CN=a)", want: "ldap.user-filter memberOf"},
		"memberOf in chain":         {user: "(memberOf:1.2.840.113556.1.4.1941:=CN=a)", want: "ldap.user-filter memberOf"},
		"stored attribute in chain": {user: "(manager:1.2.840.113556.1.4.1941:=CN=a)", want: "ldap.user-filter manager"},
		"group filter":              {group: "(member:1.2.840.113556.1.4.1941:=CN=a)", want: "ldap.group-filter member"},
		"several":                   {user: "(|(directReports=*)(memberOf=a)(DIRECTREPORTS=b)(lastLogon>=1))", group: "(managedObjects=*)", want: "ldap.user-filter directReports, memberOf, lastLogon; ldap.group-filter managedObjects"},
		"value":                     {user: "(description=memberOf)"},
		"invalid":                   {user: "memberOf="},
	} {
		var got []string
		for _, filter := range (SearchOptions{UserFilter: c.user, GroupFilter: c.group}).UntrackedFilters() {
			got = append(got, filter.Setting+" "+strings.Join(filter.Attributes, ", "))
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestUntrackedFilterIsLoggedOnce checks what the warning says: a delta sync does not find who
// joined or left, and the next full sync does.
func TestUntrackedFilterIsLoggedOnce(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 4)
	team := e.addGroup("team", e.user(0))
	e.options.Search.UserFilter = "(memberOf=" + team + ")"
	e.start()
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	e.must(e.Modify(team, "member", e.user(1)))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.clock.Advance(24 * time.Hour)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1, Deleted: 1})
	lines := e.log.With(MsgFilterUntracked)
	if len(lines) != 1 || lines[0].Text("level") != "warn" || lines[0].Text("key") != "ldap.user-filter" ||
		!strings.Contains(lines[0].Text("reason"), "memberOf") || !strings.Contains(lines[0].Text("remedy"), "sync.full-interval") {
		t.Errorf("log %v", lines)
	}
	if strings.Contains(lines[0].Text("reason"), "CN=") {
		t.Errorf("value of the filter in the log: %v", lines[0])
	}
}

// TestUntrackedFilterWithoutDeltaSyncs checks that there is no warning if each run finds
// everything, and none for a filter on stored attributes.
func TestUntrackedFilterWithoutDeltaSyncs(t *testing.T) {
	t.Parallel()
	plain := newLDAPEnv(t)
	plain.ldap.PlainLDAP = true
	plain.options.Search.UserFilter = "(memberOf=CN=a)"
	plain.start()
	plain.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	stored := newDomainEnv(t, domaincontroller.Options{}, 1)
	stored.options.Search.UserFilter = "(!(title=Engineer))"
	stored.start()
	stored.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	if lines := slices.Concat(plain.log.With(MsgFilterUntracked), stored.log.With(MsgFilterUntracked)); len(lines) > 0 {
		t.Errorf("log %v", lines)
	}
}

// TestNoObjects checks that a full sync without a user is noticed, and which settings it names.
func TestNoObjects(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		user, group string
		want        []string // kinds
	}{
		"users and no groups":        {},
		"misspelled attribute":       {user: "(departmnt=Sales)", want: []string{"user ldap.user-filter"}},
		"no group matches":           {group: "(cn=nobody)", want: []string{"group ldap.group-filter"}},
		"no user and no group match": {user: "(cn=nobody)", group: "(cn=nobody)", want: []string{"group ldap.group-filter", "user ldap.user-filter"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 2)
			e.options.Search.UserFilter, e.options.Search.GroupFilter = c.user, c.group
			e.start()
			for _, options := range []RunOptions{{}, {}} { // a delta sync does not repeat it
				if _, err := e.runner.Run(t.Context(), options); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for _, line := range e.log.With(MsgNoObjects) {
				setting := "ldap." + line.Text("kind") + "-filter"
				got = append(got, line.Text("kind")+" "+setting)
				if line.Text("level") != "warn" || line.Text("base_dn") == "" || !strings.Contains(line.Text("remedy"), setting) || !strings.Contains(line.Text("remedy"), "profile.searchScope") {
					t.Errorf("%v", line)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q\n%v", got, c.want, e.log)
			}
		})
	}
}
