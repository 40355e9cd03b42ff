//go:build ad

package samba

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

const (
	gatewayUser     = "qualys_ad1"
	gatewayPassword = "Gw-$ecret #1 \"quoted\""

	msgRunFinished = "run finished"
)

// secrets must not occur in the output of the connector.
var (
	secretsMu sync.Mutex
	secrets   = []string{gatewayPassword}
)

func keepSecret(s string) {
	secretsMu.Lock()
	defer secretsMu.Unlock()
	secrets = append(secrets, s)
}

// mustHideSecrets fails the test when a text contains a secret. It does not show the text.
func mustHideSecrets(t *testing.T, texts ...string) {
	t.Helper()
	secretsMu.Lock()
	defer secretsMu.Unlock()
	for _, secret := range secrets {
		if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, secret) }) {
			t.Errorf("the output contains a secret")
		}
	}
}

// newGateway starts a gateway. Its connection and profile may be nil.
func newGateway(t *testing.T, connection *gatewayserver.Connection, profile *gateway.Profile) *testenv.Gateway {
	t.Helper()
	return testenv.NewGateway(t, testenv.GatewayOptions{Options: gatewayserver.Options{
		Username: gatewayUser, Password: gatewayPassword, Connection: connection, Profile: profile,
	}})
}

// uploads returns the number of calls that carried assets, and of the assets in them.
func uploads(g *testenv.Gateway) (calls, assets int) {
	for _, r := range g.Requests() {
		if r.Path == testenv.AssetsPath {
			calls++
			assets += r.Assets
		}
	}
	return calls, assets
}

// states returns the names of the connector's states in the order they were sent.
func states(g *testenv.Gateway) []string {
	var names []string
	for _, s := range g.States() {
		names = append(names, s.State)
	}
	return names
}

// console returns the connection and the profile as an operator would enter them there.
func (d *controller) console(kind, base, scope string) (*gatewayserver.Connection, *gateway.Profile) {
	return &gatewayserver.Connection{
			ConnectionUUID: testenv.ConnectionUUID, Name: "Domain controller",
			Authentication: gatewayserver.Authentication{Type: kind, Host: "127.0.0.1", BindDN: d.service.dn, Password: d.service.password},
		}, &gateway.Profile{
			ProfileUUID: testenv.ProfileUUID, Name: "Everything", BaseContext: base, SearchScope: scope, Assets: "IDENTITIES_ONLY",
		}
}

// newSettings returns settings with a state directory of their own. Connection and profile
// come from the gateway.
func newSettings(t *testing.T, g *testenv.Gateway) testenv.Settings {
	t.Helper()
	return g.Settings().With(testenv.Settings{
		"authentication.type": "BASIC", "service.cron-expression": "0 0 3 * * *",
		"service.state-dir": t.TempDir(), "service.admin.address": "off",
	})
}

// ldap adds the directory's connection and the profile to settings.
func (d *controller) ldap(s testenv.Settings, protocol string) testenv.Settings {
	return s.With(testenv.Settings{
		"ldap.protocol":       protocol,
		"ldap.host":           "127.0.0.1",
		"ldap.bindDn":         d.service.dn,
		"ldap.password":       d.service.password,
		"profile.baseContext": baseDN,
		"profile.searchScope": "SUBTREE",
		"profile.assets":      "IDENTITIES_ONLY",
	})
}

// start starts the connector with an env file. Its output is searched for secrets.
func start(t *testing.T, s testenv.Settings, args ...string) *program.Process {
	t.Helper()
	var p *program.Process
	t.Cleanup(func() { // runs after the process has ended
		if p != nil {
			mustHideSecrets(t, p.Stdout(), p.Stderr(), fmt.Sprint(p.Log.Lines()))
		}
	})
	p = program.Start(t, program.Command{Args: append(args, "--env-file", program.EnvFile(t, s))})
	return p
}

// run starts the connector and waits until it has ended.
func run(t *testing.T, s testenv.Settings, args ...string) program.Outcome {
	t.Helper()
	o := start(t, s, args...).Wait(t)
	for _, line := range o.Log {
		if line.Text("message") == program.NotJSON {
			t.Errorf("a line on standard error is not JSON: %s", line.Text("text"))
		}
	}
	return o
}

// mustExplain fails the test unless one error of the log has a remedy and names all of these
// settings, objects and values in either, in whatever case.
func mustExplain(t *testing.T, o program.Outcome, words ...string) {
	t.Helper()
	for _, line := range o.Log {
		if level := line.Text("level"); level != "error" && level != "fatal" {
			continue
		}
		if line.Text("remedy") == "" {
			continue
		}
		text := strings.ToLower(line.Text("error") + " " + line.Text("remedy"))
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, strings.ToLower(w)) }) {
			return
		}
	}
	t.Errorf("no error names %q; standard error:\n%s", words, o.Stderr)
}

// summary returns the one line that ends the run.
func summary(t *testing.T, o program.Outcome) testlog.Line {
	t.Helper()
	found := o.Summary()
	if found == nil {
		t.Fatalf("no line says that the run finished; standard error:\n%s", o.Stderr)
	}
	if strings.Count(o.Stderr, `"message":"`+msgRunFinished+`"`) > 1 {
		t.Error("more than one line says that the run finished")
	}
	return found
}

// mustCount fails the test unless a field of the summary has the value.
func mustCount(t *testing.T, summary testlog.Line, field string, want int) {
	t.Helper()
	if got, ok := summary[field].(float64); !ok || int(got) != want {
		t.Errorf("summary: %s is %v, want %d", field, summary[field], want)
	}
}
