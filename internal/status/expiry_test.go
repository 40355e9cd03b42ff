package status

import (
	"strings"
	"testing"
	"time"

	"adconnector/internal/state"
)

// TestExpiries tests that the text and the page show what expires within 30 days with its remedy, as a
// problem from 14 days before, and nothing else.
func TestExpiries(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	r := Report{Runs: runs(1), Expiries: []Expiry{
		{state.DirectoryCertificate, "dc1:636", "Corp \x1b[2JCA", noon.Add(-day), "renew one"},
		{state.BindPassword, "", "", noon.Add(13 * day), "set a password"},
		{state.GatewayCertificate, "gateway", "Proxy CA", noon.Add(20 * day), "renew two"},
		{state.DirectoryCertificate, "dc2:636", "CA", noon.Add(31 * day), "not yet"},
	}}
	got := text(t, r)
	for _, want := range []string{
		"expires soon    directory certificate of dc1:636, issued by Corp [2JCA, expired 24 hours ago, on 2026-11-21",
		"\nremedy          renew one\n", "bind password, expires in 13 days, on ", "gateway certificate of gateway, issued by Proxy CA, expires in 20 days, on ", "renew two",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "dc2") {
		t.Error(got)
	}
	problems := r.problems(func(t time.Time) string { return t.String() }, noon)
	var severities []string
	for _, p := range problems {
		severities = append(severities, p.Severity+" "+p.Remedy)
	}
	if want := "warn renew one, warn set a password, note renew two"; strings.Join(severities, ", ") != want {
		t.Errorf("%q, want %q", severities, want)
	}
	if severity, headline := r.verdict(problems); severity != severityWarn || headline != "The certificate of a directory server has expired." {
		t.Errorf("%s %s", severity, headline)
	}
}
