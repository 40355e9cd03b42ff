//go:build ad

package samba

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/oracle"
	"adconnector/test/testenv"
)

// TestLogonsOfAllControllers logs users on at the second controller only, while nothing is
// replicated from it. A connector that reads the first one shows these logons if it asks all
// controllers, and keeps them if the second one stops.
func TestLogonsOfAllControllers(t *testing.T) {
	p := sharedPair(t)
	p.addDeltaOU(t, 3)
	password, err := newCredentials(p.dir, deltaDN(0), "logon.password")
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := newCredentials(p.dir, deltaDN(0), "wrong.password")
	if err != nil {
		t.Fatal(err)
	}
	p.first.setAttribute(t, baseDN, "lockoutThreshold", "5") // else no failures are counted
	t.Cleanup(func() { p.first.setAttribute(t, baseDN, "lockoutThreshold", "0") })
	for n := range 3 {
		p.first.setPassword(t, deltaDN(n), password.password)
	}
	p.replicate(t, p.first, p.second)
	resume := p.pause(t, p.first)
	for n := range 2 {
		if p.second.bind(deltaDN(n), wrong.file) == nil {
			t.Fatal("wrong password accepted")
		}
	}
	if err := p.second.bind(deltaDN(0), password.file); err != nil { // sets lastLogon only after a failure
		t.Fatal(err)
	}
	at := func(n int, attribute string) string {
		t.Helper()
		time, ok := ad.ParseFileTime([]byte(p.second.value(t, "delta"+strconv.Itoa(n), attribute)))
		if !ok || time.IsNone() {
			t.Fatalf("%s: no %s", deltaDN(n), attribute)
		}
		return time.Time().Format("2006-01-02T15:04:05.000Z")
	}
	logon, failure := at(0, "lastLogon"), at(1, "badPasswordTime")

	c := newPairConnector(t, p)
	expect := func(n int, target, want string) {
		t.Helper()
		users := c.g.Users()
		i := slices.IndexFunc(users, func(u gatewayserver.Identity) bool { return flatten(t, u.Asset).Text(oracle.Name) == deltaName(n) })
		if i < 0 {
			t.Fatalf("%s is not at the gateway", deltaName(n))
		}
		if got := flatten(t, users[i].Asset)[oracle.UserClass+target]; strings.Trim(got, `"`) != want {
			t.Errorf("%s: %s is %q, want %q", deltaName(n), target, got, want)
		}
	}
	sync := func(args ...string) {
		t.Helper()
		runWith(t, c.prefix, c.settings, append([]string{"sync"}, args...)...).MustExit(t, 0)
	}
	sync()
	expect(0, "lastSuccessfulLoginAt", "")
	c.settings = c.settings.With(testenv.Settings{"sync.last-logon": "ALL_CONTROLLERS"})
	sync()
	expectAll := func() {
		t.Helper()
		expect(0, "lastSuccessfulLoginAt", logon)
		expect(1, "lastFailedPasswordAttemptAt", failure)
		expect(1, "failedPasswordAttemptCount", "0") // of the PDC emulator, which is the first one
		expect(2, "lastSuccessfulLoginAt", "")
	}
	expectAll()
	resume()
	p.stop(t, p.second)
	sync("--resend")
	expectAll()
}
