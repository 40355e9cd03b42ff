//go:build ad

package samba

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/syncrun"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

const (
	gatewayUser     = "qualys_ad1"
	gatewayPassword = "Gw-$ecret #1 \"quoted\" x"
)

// mustHideSecrets fails the test if a text contains a secret. The message does not repeat it.
func mustHideSecrets(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if before, found := testlog.FindSecret(text); found {
			t.Errorf("output contains a secret, after %q", before)
		}
	}
}

// newGateway starts a gateway. The connection and the profile may be nil.
func newGateway(t *testing.T, connection *gatewayserver.Connection, profile *gateway.Profile) *testenv.Gateway {
	t.Helper()
	testlog.AddCredentials(gatewayUser, gatewayPassword)
	return testenv.NewGateway(t, testenv.GatewayOptions{Options: gatewayserver.Options{
		Username: gatewayUser, Password: gatewayPassword, Connection: connection, Profile: profile,
	}})
}

// uploads returns the number of calls with assets, and the number of assets in them.
func uploads(g *testenv.Gateway) (calls, assets int) {
	for _, r := range g.Requests() {
		if r.Path == testenv.AssetsPath {
			calls++
			assets += r.Assets
		}
	}
	return calls, assets
}

// states returns the connector states that the gateway received, in order.
func states(g *testenv.Gateway) []string {
	var names []string
	for _, s := range g.States() {
		names = append(names, s.State)
	}
	return names
}

// console returns the connection and the profile that the console provides for the domain.
func (d *controller) console(protocol, base, scope string) (*gatewayserver.Connection, *gateway.Profile) {
	return &gatewayserver.Connection{
			ConnectionUUID: testenv.ConnectionUUID, Name: "Domain controller",
			Authentication: gatewayserver.Authentication{Type: protocol, Host: d.host, BindDN: d.service.dn, Password: d.service.password},
		}, &gateway.Profile{
			ProfileUUID: testenv.ProfileUUID, Name: "Everything", BaseContext: base, SearchScope: scope, Assets: "IDENTITIES_ONLY",
		}
}

// newSettings returns settings with a new state directory. The gateway provides the connection
// and the profile.
func newSettings(t *testing.T, g *testenv.Gateway) testenv.Settings {
	t.Helper()
	return g.Settings().With(testenv.Settings{
		"authentication.type": "BASIC", "service.cron-expression": "0 0 3 * * *",
		"service.state-dir": t.TempDir(), "service.admin.address": "off",
	})
}

// withConnection returns the settings with the connection and the profile added.
func (d *controller) withConnection(s testenv.Settings, protocol string) testenv.Settings {
	return s.With(testenv.Settings{
		"ldap.protocol":       protocol,
		"ldap.host":           d.host,
		"ldap.bindDn":         d.service.dn,
		"ldap.password":       d.service.password,
		"profile.baseContext": baseDN,
		"profile.searchScope": "SUBTREE",
		"profile.assets":      "IDENTITIES_ONLY",
	})
}

// start starts the connector with an env file of the settings. When the test ends, its output
// is searched for secrets.
func start(t *testing.T, s testenv.Settings, args ...string) *program.Process {
	t.Helper()
	return startWith(t, nil, s, args...)
}

// startWith starts the connector with a command line prefix.
func startWith(t *testing.T, prefix []string, s testenv.Settings, args ...string) *program.Process {
	t.Helper()
	var p *program.Process
	t.Cleanup(func() { // runs after the process has ended
		if p != nil {
			mustHideSecrets(t, p.Stdout(), p.Stderr(), fmt.Sprint(p.Log.Lines()))
		}
	})
	p = program.Start(t, program.Command{Args: append(args, "--env-file", program.EnvFile(t, s)), Wrapper: prefix})
	return p
}

// run runs the connector to its end.
func run(t *testing.T, s testenv.Settings, args ...string) program.Outcome {
	t.Helper()
	return runWith(t, nil, s, args...)
}

// runWith runs the connector with a command line prefix to its end.
func runWith(t *testing.T, prefix []string, s testenv.Settings, args ...string) program.Outcome {
	t.Helper()
	o := startWith(t, prefix, s, args...).Wait(t)
	for _, line := range o.Log {
		if line.Text("message") == program.NotJSON {
			t.Errorf("log line is not JSON: %s", line.Text("text"))
		}
	}
	return o
}

// mustReport fails the test unless an error in the log has a remedy, and its error and remedy
// together contain all names: settings, objects and values. Case is ignored.
func mustReport(t *testing.T, o program.Outcome, names ...string) {
	t.Helper()
	for _, line := range o.Log {
		if level := line.Text("level"); level != "error" && level != "fatal" {
			continue
		}
		if line.Text("remedy") == "" {
			continue
		}
		text := strings.ToLower(line.Text("error") + " " + line.Text("remedy"))
		if !slices.ContainsFunc(names, func(name string) bool { return !strings.Contains(text, strings.ToLower(name)) }) {
			return
		}
	}
	t.Errorf("no error contains %q; stderr:\n%s", names, o.Stderr)
}

// summary returns the log line of the end of the only run.
func summary(t *testing.T, o program.Outcome) testlog.Line {
	t.Helper()
	lines := o.With(syncrun.MsgRunFinished)
	if len(lines) != 1 {
		t.Fatalf("%d runs finished, want 1; stderr:\n%s", len(lines), o.Stderr)
	}
	return lines[0]
}

// mustCount fails the test unless a field of the summary has the value.
func mustCount(t *testing.T, summary testlog.Line, field string, want int) {
	t.Helper()
	if got, ok := summary[field].(float64); !ok || int(got) != want {
		t.Errorf("summary: %s is %v, want %d", field, summary[field], want)
	}
}
