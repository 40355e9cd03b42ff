package syncrun

import (
	"slices"
	"strings"
	"testing"

	"adconnector/internal/directory"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// TestRecordedContact checks that a run records which server it read, which ones it did not reach,
// and its stages, also if it fails.
func TestRecordedContact(t *testing.T) {
	t.Parallel()
	const stages = "connect read settle drain record"
	for name, c := range map[string]struct {
		hosts      []string
		password   string
		failed     bool
		controller bool
		unreached  []string // hosts
		stages     string
	}{
		"first server":         {[]string{"127.0.0.1"}, fakeldap.Password, false, true, nil, stages},
		"second server":        {[]string{"127.0.0.2", "127.0.0.1"}, fakeldap.Password, false, true, []string{"127.0.0.2"}, stages},
		"no server":            {[]string{"127.0.0.2", "127.0.0.3"}, fakeldap.Password, true, false, []string{"127.0.0.2", "127.0.0.3"}, "connect"},
		"only server":          {[]string{"127.0.0.2"}, fakeldap.Password, true, false, []string{"127.0.0.2"}, "connect"},
		"refused bind":         {[]string{"127.0.0.1"}, "wrong", true, false, nil, "connect"},
		"refused after a lost": {[]string{"127.0.0.2", "127.0.0.1"}, "wrong", true, false, []string{"127.0.0.2"}, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newLDAPEnv(t)
			e.ldap.Users = fakeldap.Users(2)
			e.options.Source = &Source{Base: fakeldap.Base, Scope: directory.Subtree, Directory: directory.Options{
				Hosts: c.hosts, Port: e.ldap.Port, BindDN: fakeldap.BindDN, Password: secret.New(c.password),
			}}
			e.start()
			_, err := e.runner.Run(t.Context(), RunOptions{})
			recorded, readErr := e.store.Runs()
			e.must(readErr)
			run := recorded[0]
			if (err != nil) != c.failed || (run.Controller == "dc1.corp.example.com") != c.controller {
				t.Errorf("error %v, run %+v", err, run)
			}
			var unreached []string
			for _, server := range run.Unreached {
				host, _, _ := strings.Cut(server.Server, ":")
				unreached = append(unreached, host)
				if !strings.Contains(server.Error, "connect "+host) || server.Remedy == "" {
					t.Errorf("server %+v", server)
				}
			}
			if !slices.Equal(unreached, c.unreached) {
				t.Errorf("unreached %q, want %q", unreached, c.unreached)
			}
			var names []string
			for _, stage := range run.Stages {
				names = append(names, stage.Name)
			}
			if got := strings.Join(names, " "); got != c.stages {
				t.Errorf("stages %q, want %q", got, c.stages)
			}
			if logged := len(e.log.With(MsgControllersUnreached)); (logged == 1) != (!c.failed && c.unreached != nil) {
				t.Errorf("%d log lines", logged)
			}
		})
	}
}

// TestRecordedRights checks that a run records which attributes its unreadable objects lack, and the
// remedy of the log.
func TestRecordedRights(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	e.moveToInner(2)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.hideAll("OU=Inner," + e.base)
	run := e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 2, lockedAwayUser)
	if got := strings.Join(run.MissingRights, ", "); got != lockedAwayUser || run.RightsRemedy != e.log.With(MsgObjectsUnreadable)[0].Text("remedy") {
		t.Errorf("run %+v", run)
	}
	unreadable, err := e.store.Unreadable()
	e.must(err)
	if unreadable.Objects != 2 || unreadable.Remedy != run.RightsRemedy || !slices.Equal(unreadable.Attributes, run.MissingRights) || !unreadable.At.Equal(run.Start) {
		t.Errorf("recorded %+v", unreadable)
	}
}
