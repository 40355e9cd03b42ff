package check

import (
	"fmt"
	"testing"

	"adconnector/internal/directory"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

// addPeers adds further controllers of the domain, at 127.0.0.2 and so on.
func (e *environment) addPeers(n int) (peers []*testenv.Directory) {
	for i := range n {
		peers = append(peers, e.NewPeer(fmt.Sprintf("127.0.0.%d", i+2), domaincontroller.Options{Name: fmt.Sprintf("dc%d", i+2), BindDN: bindDN}))
	}
	return peers
}

// overLDAP connects without TLS, so that each controller can be reached.
func (e *environment) overLDAP(mode syncrun.LastLogon) {
	e.options.Source.Directory, e.options.LastLogon = e.Directory.Options(directory.LDAP), mode
}

// listDown lists controllers that refuse connections.
func (e *environment) listDown(t *testing.T, n int) {
	for i := range n {
		must(t, e.AddPeer(domaincontroller.New(domaincontroller.Options{Name: fmt.Sprintf("down%d", i), Host: "127.0.0.9"})))
	}
}

func TestLastLogon(t *testing.T) {
	plain := map[string]Result{tlsCheck: Warn}
	plainAndMissing := map[string]Result{tlsCheck: Warn, lastLogon: Warn}
	testChecks(t, map[string]checkCase{
		"one controller": {check: lastLogon, found: []string{"no other domain controller"}},
		"replicated, all can be asked": {
			change: func(_ *testing.T, e *environment) { e.addPeers(2); e.overLDAP(syncrun.LastLogonReplicated) },
			want:   plain, check: lastLogon, found: []string{"has 3 domain controllers", "set sync.last-logon to ALL_CONTROLLERS", "up to 14 days"},
		},
		"all controllers": {
			change: func(_ *testing.T, e *environment) { e.addPeers(2); e.overLDAP(syncrun.LastLogonAllControllers) },
			want:   plain, check: lastLogon, found: []string{"has 3 domain controllers; the other 2 can be asked"},
		},
		"replicated, one down": {
			change: func(t *testing.T, e *environment) {
				e.listDown(t, 1)
				e.overLDAP(syncrun.LastLogonReplicated)
			},
			want: plain, check: lastLogon, found: []string{"has 2 domain controllers; the other domain controller cannot be asked: 127.0.0.9 (unreachable", "up to 14 days"},
		},
		"all controllers, many down": {
			change: func(t *testing.T, e *environment) {
				e.addPeers(1)
				e.listDown(t, maxNamed+2)
				e.overLDAP(syncrun.LastLogonAllControllers)
			},
			want: plainAndMissing, check: lastLogon, found: []string{"; 7 of the other 8 cannot be asked: ", ", and 2 more"}, remedy: []string{"firewalls"},
		},
		"refused bind": {
			change: func(t *testing.T, e *environment) {
				for _, peer := range e.addPeers(3) {
					must(t, peer.SetPassword(bindDN, "other"))
				}
				e.overLDAP(syncrun.LastLogonAllControllers)
			},
			want: plainAndMissing, check: lastLogon, found: []string{"; the other 3 cannot be asked: ", "(refused: ", "(not_asked: "}, remedy: []string{"ldap.password"},
		},
		"pinned certificate": {
			change: func(_ *testing.T, e *environment) {
				e.addPeers(1)
				e.options.LastLogon = syncrun.LastLogonAllControllers
			},
			want: map[string]Result{lastLogon: Warn}, check: lastLogon, found: []string{"(certificate: ", "ldap.certificate is the certificate of one server"}, remedy: []string{"issuer"},
		},
		"server name": {
			change: func(_ *testing.T, e *environment) {
				e.addPeers(1)
				o := &e.options.Source.Directory
				o.ServerName = "dc1.corp.example.com"
				e.options.LastLogon = syncrun.LastLogonAllControllers
			},
			want: map[string]Result{lastLogon: Warn}, check: lastLogon, found: []string{"(certificate: ", "ldap.server-name names the only certificate"}, remedy: []string{"ldap.certificate"},
		},
		"controllers unreadable": {
			change: func(t *testing.T, e *environment) {
				e.hideControllers(t)
				e.overLDAP(syncrun.LastLogonAllControllers)
			},
			want: plainAndMissing, check: lastLogon, remedy: []string{"grant the account read access"},
		},
		"controllers unreadable, replicated": {
			change: func(t *testing.T, e *environment) {
				e.hideControllers(t)
				e.overLDAP(syncrun.LastLogonReplicated)
			},
			want: plain, check: lastLogon, found: []string{"unknown"},
		},
	})
}

// hideControllers hides the domain controllers from the account.
func (e *environment) hideControllers(t *testing.T) {
	t.Helper()
	for _, o := range e.Objects("invocationId") {
		if o.First("invocationId") != "" {
			must(t, e.Hide(o.DN, "objectClass"))
		}
	}
}
