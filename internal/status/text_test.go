package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adconnector/internal/state"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func text(t *testing.T, r Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b, noon, time.FixedZone("CET", 3600)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	t.Parallel()
	r := Report{
		From: FromDaemon, Instance: Instance{StateDir: "/state"},
		State: "SCHEDULED", Since: noon.Add(-5 * time.Second), NextRun: noon.Add(4 * time.Minute), Error: "bind: refused\x1b[2J", Remedy: "correct\nldap.password",
		WaitsFor: rateLimit, WaitsUntil: noon.Add(50 * time.Minute), WorkersAllowed: 2, WorkersNotedAt: noon.Add(-time.Minute), BindsPausedUntil: noon.Add(29 * time.Minute), RefusedBinds: 2, LastSuccess: noon.Add(-time.Hour), LastFullSync: noon.Add(-5 * time.Hour),
		Objects: 1234, Held: 25, Rejected: 1,
		Controller: "dc2.corp.test", Unreached: []state.UnreachedServer{{Server: "dc1:636", Error: "connect dc1:636: connection\nrefused", Remedy: "check ldap.host"}},
		Unreadable: state.Unreadable{Objects: 4567, Attributes: []string{"member", "objectSid"}, Remedy: "dsacls OU=Staff", At: noon},
		Rejections: []Rejection{{"user", "S-1-5-21-1", "g", "too\nlong", 3, noon}},
		Runs:       []state.Run{{Mode: "delta", Result: "failed", Start: noon, DurationMS: 1500, Users: 2, Groups: 1, Unreadable: 4}},
	}
	for range 25 {
		r.HeldDeletions = append(r.HeldDeletions, Held{"group", "S-1-5-21-2", "h", noon})
	}
	const want = `state           SCHEDULED since 2026-11-22 12:59:55 CET (5 seconds ago)
next run        2026-11-22 13:04:00 CET (in 4 minutes)
waiting for     the gateway's rate limit, until 2026-11-22 13:50:00 CET (in 50 minutes)
workers         2, the gateway's concurrency limit, since 2026-11-22 12:59:00 CET (60 seconds ago)
binds paused    until 2026-11-22 13:29:00 CET (in 29 minutes), after 2 refused binds in a row
last error      bind: refused [2J
remedy          correct ldap.password
directory       dc2.corp.test
not reached     connect dc1:636: connection refused
remedy          check ldap.host
last success    2026-11-22 12:00:00 CET (60 minutes ago)
last full sync  2026-11-22 08:00:00 CET (5 hours ago)
objects         1,234 in the index, 25 deletions held, 1 rejected

25 deletions are held.`
	got := text(t, r)
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s", got)
	}
	for _, want := range []string{
		"\n1 object is rejected by the gateway. Each is sent again when it changes,\nafter 1, 2, 4, … hours, and in full syncs.",
		"\n4,567 objects are unreadable since 2026-11-22 13:00:00 CET: member, objectSid. Their values at the gateway stay, and the next full\nsync reads them.\nremedy: dsacls OU=Staff\n",
		"\n… and 5 more (--output json lists the first 1,000)\n",
		"\nuser  S-1-5-21-1  g     3         2026-11-22 13:00:00 CET  too long\n",
		"\n2026-11-22 13:00:00 CET  delta  failed  3     0        0         0        0     0          0         4           0         1.5s\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q missing in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "group  S-1-5-21-2"); n != textObjects {
		t.Errorf("%d held deletions listed", n)
	}
}

// TestTextOfUnreadableObjects tests what is said about objects that are sent without their security
// descriptors.
func TestTextOfUnreadableObjects(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		attributes []string
		want       string
	}{
		"others":     {[]string{"member"}, "member. Their values at the gateway stay, and the next full\nsync reads them.\n"},
		"descriptor": {[]string{"nTSecurityDescriptor"}, "nTSecurityDescriptor. They are sent without controlledBy, and the next\nfull sync reads it.\n"},
		"both": {[]string{"member", "nTSecurityDescriptor"},
			"member, nTSecurityDescriptor. They are sent without controlledBy, or their values\nat the gateway stay. The next full sync reads them.\n"},
	} {
		if got := text(t, Report{Unreadable: state.Unreadable{Objects: 2, Attributes: c.attributes, At: noon}}); !strings.Contains(got, c.want) {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}

// TestTextFromFile tests that a time in the past is not shown as the next run.
func TestTextFromFile(t *testing.T) {
	t.Parallel()
	r := Report{From: FromFile, Daemon: "no response\x1b[2J", DaemonRemedy: "check whether\none runs", Instance: Instance{StateDir: "/state"}, State: "SCHEDULED", Since: noon, NextRun: noon.Add(-time.Hour)}
	if got := text(t, r); strings.Contains(got, "next run") || !strings.Contains(got, "\ndaemon          no response [2J; status from the state file in /state\nremedy          check whether one runs\n") {
		t.Errorf("got\n%s", got)
	}
	r.NextRun = noon.Add(time.Hour)
	if got := text(t, r); !strings.Contains(got, "next run        2026-11-22 14:00:00 CET (in 60 minutes), if a daemon runs\n") {
		t.Errorf("got\n%s", got)
	}
}

// TestTextLastRun tests that the end of the last run is shown while the next one is active, and that a
// killed run does not look like an active one.
func TestTextLastRun(t *testing.T) {
	t.Parallel()
	failed := []state.Run{{Mode: "full", Result: "failed", Start: noon, Error: "read connection: no response", Remedy: "check the network"}}
	for name, c := range map[string]struct {
		report Report
		want   string
	}{
		"active after a failed run": {Report{From: FromDaemon, State: "PROCESSING", Runs: failed}, "\nlast error      read connection: no response\nremedy          check the network\n"},
		"active after a run":        {Report{From: FromDaemon, State: "PROCESSING", Runs: []state.Run{{Mode: "full", Result: "processed"}}}, ""},
		"killed":                    {Report{From: FromFile, State: "PROCESSING", Runs: failed}, "\nlast run        The last run was killed before its end. The next run continues.\n"},
		"ended":                     {Report{From: FromFile, State: "PROCESSED"}, ""},
	} {
		got := text(t, c.report)
		if c.want == "" && strings.Contains(got, "\nlast ") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}

func TestRelativeTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "now"}, {-999 * time.Millisecond, "now"}, {time.Second, "in 1 second"}, {-90 * time.Second, "90 seconds ago"},
		{2 * time.Minute, "in 2 minutes"}, {119 * time.Minute, "in 119 minutes"}, {-2 * time.Hour, "2 hours ago"},
		{47 * time.Hour, "in 47 hours"}, {-48 * time.Hour, "2 days ago"}, {1000 * time.Hour, "in 42 days"},
	} {
		if got := relativeTime(c.d); got != c.want {
			t.Errorf("%s: %q", fmt.Sprint(c.d), got)
		}
	}
}
