package syncrun

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testlog"
)

// expiryOf returns the recorded expiry of a subject, or nil.
func (e *env) expiryOf(subject string) *state.Expiry {
	e.t.Helper()
	recorded, err := e.store.Expiries()
	e.must(err)
	at := slices.IndexFunc(recorded, func(x state.Expiry) bool { return x.Subject == subject })
	if at < 0 {
		return nil
	}
	return &recorded[at]
}

// TestExpiries tests that a certificate and a password that expire soon are logged once a day, at the
// level of their urgency, until they are renewed, by any number of processes.
func TestExpiries(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 2)
	e.auth = e.Authentication("LDAPS")
	e.setConsole()
	e.run(RunOptions{DryRun: true}, state.Run{Mode: full, Result: Processed})
	if e.expiryOf(state.DirectoryCertificate) != nil {
		t.Error("recorded in a dry run")
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	certificate := e.expiryOf(state.DirectoryCertificate)
	if certificate == nil || !certificate.At.Equal(e.Certificate().NotAfter) || certificate.Issuer == "" || certificate.Remedy != CertificateRemedy(true) {
		t.Fatalf("certificate %+v", certificate)
	}
	if password := e.expiryOf(state.BindPassword); password == nil || !password.At.IsZero() || password.Name != hashDN([]byte(e.BindDN())) { // it never expires
		t.Errorf("password %+v", password)
	}

	e.must(e.Modify(e.BindDN(), "userAccountControl", "512")) // now it does, after 42 days
	set := e.clock.Now()
	e.must(e.Modify(e.BindDN(), "pwdLastSet", fileTime(set)))
	runAt := func(at time.Time, wantLevel string) {
		t.Helper()
		e.clock.Advance(at.Sub(e.clock.Now()))
		e.restart()
		before := len(e.log.With(MsgPasswordExpires))
		_, err := e.runner.Run(t.Context(), RunOptions{})
		e.must(err)
		var got []testlog.Line
		if got = e.log.With(MsgPasswordExpires)[before:]; wantLevel == "" && len(got) == 0 {
			return
		}
		if len(got) != 1 || got[0].Text("level") != wantLevel || got[0].Text("peer") != "directory" || got[0].Text("remedy") == "" || got[0].Text("expires") == "" {
			t.Errorf("after %s: %v, want level %q", e.clock.Now().Sub(set), got, wantLevel)
		}
	}
	const day = 24 * time.Hour
	runAt(set.Add(11*day), "")
	runAt(set.Add(12*day+time.Minute), "info") // 30 days before
	runAt(set.Add(12*day+time.Hour), "")
	runAt(set.Add(13*day+time.Hour), "info")
	runAt(set.Add(29*day), "warn")
	runAt(set.Add(29*day+time.Hour), "")
	e.must(e.Modify(e.BindDN(), "pwdLastSet", fileTime(e.clock.Now())))
	runAt(set.Add(30*day), "")
	if password := e.expiryOf(state.BindPassword); password == nil || !password.At.Equal(set.Add(29*day+time.Hour+42*day)) {
		t.Errorf("password %+v", password)
	}
	if lines := e.log.With(MsgCertificateExpires); len(lines) != 0 {
		t.Errorf("%v", lines)
	}
	e.must(e.Modify(e.BindDN(), "userAccountControl", "66048"))
	e.clock.Advance(e.Certificate().NotAfter.Sub(e.clock.Now()) - 10*day)
	_, err := e.runner.Run(t.Context(), RunOptions{})
	e.must(err)
	if lines := e.log.With(MsgCertificateExpires); len(lines) != 1 || lines[0].Text("level") != "warn" || lines[0].Text("address") == "" || lines[0].Text("issuer") == "" {
		t.Errorf("%v", lines)
	}
}

// TestPasswordExpiryIsReadOnceADay tests that runs do not read the account while its password does
// not expire soon.
func TestPasswordExpiryIsReadOnceADay(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 2)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	noted := e.expiryOf(state.BindPassword).NotedAt
	for _, step := range []struct {
		after time.Duration
		read  bool
	}{{time.Hour, false}, {22 * time.Hour, false}, {2 * time.Hour, true}, {time.Hour, false}} {
		e.clock.Advance(step.after)
		_, err := e.runner.Run(t.Context(), RunOptions{})
		e.must(err)
		now := e.expiryOf(state.BindPassword).NotedAt
		if now.After(noted) != step.read {
			t.Errorf("%s later: noted at %s, before %s", step.after, now, noted)
		}
		noted = now
	}
}

// TestUnreadablePasswordExpiry tests that a run tries again what failed in the last one, and that an account
// that may not read itself is recorded: the search is not repeated for a day.
func TestUnreadablePasswordExpiry(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 2)
	e.busyOnce(ldap.LDAPResultBusy, e.BindDN(), directory.AttributePasswordExpiry).Store(true)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	if password := e.expiryOf(state.BindPassword); password != nil {
		t.Errorf("busy: %+v", password)
	}
	e.busyOnce(ldap.LDAPResultInsufficientAccessRights, e.BindDN(), directory.AttributePasswordExpiry).Store(true)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	if password := e.expiryOf(state.BindPassword); password == nil || !password.At.IsZero() || !password.NotedAt.Equal(e.clock.Now()) {
		t.Errorf("refused: %+v", password)
	}
}

// TestLogExpiry tests that an expiry is logged once a day, also after the clock was set back.
func TestLogExpiry(t *testing.T) {
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		logged, expires time.Duration // from now
		want            bool
	}{
		"never logged":     {-1000 * day, day, true},
		"logged today":     {-time.Hour, day, false},
		"logged yesterday": {-day, day, true},
		"clock set back":   {2 * day, day, true},
		"set back a bit":   {time.Hour, day, false},
		"not urgent":       {-2 * day, 1000 * day, false},
	} {
		var log testlog.Log
		e := state.Expiry{Subject: state.BindPassword, At: now.Add(c.expires), LoggedAt: now.Add(c.logged)}
		got := logExpiry(runInfo{start: now, log: zerolog.New(&log)}, &e)
		if lines := log.With(MsgPasswordExpires); got != c.want || (len(lines) == 1) != c.want || e.LoggedAt.Equal(now) != c.want {
			t.Errorf("%s: logged %t, at %s, %v", name, got, e.LoggedAt, lines)
		}
	}
}

// TestCertificatesOfAddress tests that the certificate that expires first counts.
func TestCertificatesOfAddress(t *testing.T) {
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	var c certificates
	for _, days := range []int{30, 10, 20} {
		c.add("dc1:636", &x509.Certificate{NotAfter: now.AddDate(0, 0, days)}, days == 10)
	}
	c.add("dc2:636", &x509.Certificate{NotAfter: now.AddDate(0, 0, 40)}, false)
	list := c.expiries(now)
	slices.SortFunc(list, func(a, b state.Expiry) int { return a.At.Compare(b.At) })
	if len(list) != 2 || list[0].Name != "dc1:636" || !list[0].At.Equal(now.AddDate(0, 0, 10)) || list[0].Remedy != CertificateRemedy(true) || list[1].Remedy != CertificateRemedy(false) {
		t.Errorf("%+v", list)
	}
}
