package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
	"adconnector/internal/schedule"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/test/fakeldap"
)

const (
	customer   = "00000000-0000-0000-0000-000000000001"
	connection = "00000000-0000-0000-0000-000000000002"
	profile    = "00000000-0000-0000-0000-000000000003"

	domain   = "DC=corp,DC=example,DC=com"
	bindDN   = "CN=svc-qualys,OU=Service," + domain
	password = "Pa55w0rd!"
	gatewayP = "s3cret!"
)

// site is a directory, a gateway, and options for which every line is good.
type site struct {
	Options
	ldap        *sandbox.Directory
	plain, tls  int // ports
	gateway     *sandbox.Gateway
	login       gateway.Login
	url         *url.URL
	viaProxy    *gateway.Proxy
	answering   func(w http.ResponseWriter, r *http.Request) bool // true: it has
	directoryAt func() time.Time
}

func newSite(t *testing.T, change func(*site)) *site {
	t.Helper()
	s := &site{login: gateway.Login{Username: "u", Password: secret.New(gatewayP)}, directoryAt: time.Now}
	s.ldap = sandbox.NewDirectory(sandbox.DirectoryOptions{
		Users: 30, Groups: 5, BindDN: bindDN, Password: password, ReadsDeleted: true, Now: func() time.Time { return s.directoryAt() },
	})
	var serving sync.WaitGroup
	plain, secure := listen(t), listen(t)
	s.plain, s.tls = portIn(plain), portIn(secure)
	serving.Go(func() { _ = s.ldap.Serve(t.Context(), plain, secure) })
	t.Cleanup(func() {
		s.ldap.Close()
		serving.Wait()
	})
	s.gateway = sandbox.NewGateway(sandbox.GatewayOptions{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile, Username: "u", Password: gatewayP,
		Intercept: func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			return s.answering != nil && s.answering(w, r)
		},
	})
	server := httptest.NewServer(s.gateway)
	t.Cleanup(server.Close)
	s.url = parse(t, server.URL)
	ticks, err := schedule.Parse("*/10 * * * *")
	if err != nil {
		t.Fatal(err)
	}
	s.Options = Options{
		Source: &syncrun.Source{
			Directory: directory.Options{
				Protocol: directory.LDAPS, Hosts: []string{"127.0.0.1"}, Port: s.tls, BindDN: bindDN, Password: secret.New(password),
			},
			Base: domain, Scope: directory.Subtree,
		},
		StateDir: filepath.Join(t.TempDir(), "state"), Next: ticks.Next,
	}
	s.Search.PageSize = 1000
	s.Source.Directory.Certificates = append(s.Source.Directory.Certificates, s.ldap.Certificate())
	if change != nil {
		change(s)
	}
	s.GatewayAddress = s.url.Host
	s.Options.Gateway = gateway.New(gateway.Options{
		URL: s.url, CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile, Login: s.login, Proxy: s.viaProxy, Connections: 1,
	})
	return s
}

// console moves connection and profile to the gateway.
func (s *site) console(change func(*sandbox.Connection, *gateway.Profile)) {
	c := sandbox.Connection{ConnectionUUID: connection, Name: "c", Authentication: sandbox.Authentication{
		Type: "LDAPS", Host: "127.0.0.1", Port: s.tls, BindDN: bindDN, Password: password, Certificate: string(s.ldap.CertificatePEM()),
	}}
	p := gateway.Profile{ProfileUUID: profile, Name: "p", BaseContext: domain, SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"}
	if change != nil {
		change(&c, &p)
	}
	s.Source = nil
	s.gateway.SetConnection(&c)
	s.gateway.SetProfile(&p)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func portIn(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

func closedPort(t *testing.T) int {
	t.Helper()
	listener := listen(t)
	defer listener.Close()
	return portIn(listener)
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// examine runs the checks and holds them against what each run of them promises.
func (s *site) examine(t *testing.T, ctx context.Context) Report {
	t.Helper()
	var told []Check
	report := Run(ctx, s.Options, func(c Check) { told = append(told, c) })
	if !slices.EqualFunc(told, report.Checks, func(a, b Check) bool { return a.Name == b.Name && a.Found == b.Found }) || len(told) != len(lines) {
		t.Errorf("%d lines were told, %d are in the report, of %d", len(told), len(report.Checks), len(lines))
	}
	for n, c := range report.Checks {
		if c.Name != lines[n].name {
			t.Errorf("line %d is %q, want %q", n, c.Name, lines[n].name)
		}
		if c.Found == "" || c.Result == OK && c.Remedy != "" || c.Result == Fail && (c.Remedy == "" || c.err == nil) {
			t.Errorf("%+v", c)
		}
		if isSkipped := strings.HasPrefix(c.Found, "skipped: "); c.Result == Warn && (c.Remedy == "") != isSkipped {
			t.Errorf("%+v", c)
		}
		for _, hidden := range []string{password, gatewayP, "wrong-"} {
			if strings.Contains(c.Found+c.Remedy, hidden) {
				t.Errorf("a secret in %+v", c)
			}
		}
	}
	// Nothing was changed, and no account locked out.
	if n := s.ldap.Searches().RefusedBinds; n > 1 {
		t.Errorf("%d refused binds", n)
	}
	if len(s.gateway.States()) != 0 || len(s.gateway.Violations()) != 0 {
		t.Errorf("states %v, violations %v", s.gateway.States(), s.gateway.Violations())
	}
	for _, r := range s.gateway.Requests() {
		if r.Method != http.MethodGet && r.Path != "/auth" {
			t.Errorf("request %+v", r)
		}
	}
	return report
}

func (r Report) of(name string) Check {
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
	return r.Checks[i]
}

const skippedLine Result = "skipped" // in the table below

func TestLines(t *testing.T) {
	admins := "CN=Domain Admins,CN=Users," + domain
	later := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	cases := map[string]struct {
		change func(*testing.T, *site)
		want   map[string]Result // of the lines that are not ok
		line   string            // of these words
		words  []string
		class  fault.Class // of the failure
	}{
		"all is well": {},
		"all is well, from the console": {change: func(_ *testing.T, s *site) { s.console(nil) },
			line: documents, words: []string{"from the gateway: LDAPS to 127.0.0.1, SUBTREE of " + domain + ", identities only"}},
		"StartTLS": {change: func(_ *testing.T, s *site) {
			s.Source.Directory.Protocol, s.Source.Directory.Port = directory.StartTLS, s.plain
		},
			line: tlsLine, words: []string{"TLS 1.3 at 127.0.0.1:", "which is the given one, is good until 20"}},

		"bad configuration": {
			change: func(_ *testing.T, s *site) {
				s.Fault = errors.Join(errors.New("thread-pool.size: too much"), errors.New("ldap.port: none"))
			},
			want: allBut(configuration), line: configuration, words: []string{"thread-pool.size: too much\nldap.port: none", "adconnector help keys"},
		},
		"a key that is not one": {
			change: func(_ *testing.T, s *site) { s.Advice = []string{"ldap.hots is unknown, ldap.host is meant"} },
			want:   map[string]Result{configuration: Warn}, line: configuration, words: []string{"ldap.hots"},
		},

		"state directory is a file": {
			change: func(t *testing.T, s *site) { must(t, os.WriteFile(s.StateDir, nil, 0o600)) },
			want:   map[string]Result{stateDirectory: Fail}, line: stateDirectory, words: []string{"not a directory", "set service.state-dir to"},
		},
		"state file in use": {
			change: func(t *testing.T, s *site) {
				store, err := state.Open(s.StateDir)
				must(t, err)
				t.Cleanup(func() { store.Close() })
			},
			line: stateDirectory, words: []string{fmt.Sprintf("process %d on ", os.Getpid()), "a daemon runs, which is fine"},
		},
		"state file of a run": {
			change: func(t *testing.T, s *site) {
				store, err := state.Open(s.StateDir)
				must(t, err)
				must(t, store.Close())
			},
			line: stateDirectory, words: []string{"knows 0 objects"},
		},
		"state file damaged": {
			change: func(t *testing.T, s *site) {
				must(t, os.MkdirAll(s.StateDir, 0o700))
				must(t, os.WriteFile(filepath.Join(s.StateDir, "adconnector.db"), []byte(strings.Repeat("nonsense", 4096)), 0o600))
			},
			want: map[string]Result{stateDirectory: Warn}, line: stateDirectory, words: []string{"sends everything anew"},
		},

		"proxy": {
			change: func(t *testing.T, s *site) {
				target := s.url
				server := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
				t.Cleanup(server.Close)
				s.ProxyAddress = parse(t, server.URL).Host
				s.viaProxy = &gateway.Proxy{Scheme: "http", Host: "127.0.0.1", Port: portIn(server.Listener)}
			},
			line: proxy, words: []string{"takes connections"},
		},
		"proxy that asks for credentials": {
			change: func(t *testing.T, s *site) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) }))
				t.Cleanup(server.Close)
				s.ProxyAddress = parse(t, server.URL).Host
				s.viaProxy = &gateway.Proxy{Scheme: "http", Host: "127.0.0.1", Port: portIn(server.Listener)}
			},
			want: map[string]Result{gatewayLogin: Fail}, line: gatewayLogin, words: []string{"407", "set proxy.username and proxy.password"}, class: fault.Refused,
		},
		"no proxy": {
			change: func(t *testing.T, s *site) { s.ProxyAddress = fmt.Sprintf("127.0.0.1:%d", closedPort(t)) },
			want:   map[string]Result{proxy: Fail, gatewayLogin: skippedLine}, line: proxy,
			words: []string{"connection refused", "open TCP port ", " to 127.0.0.1 from this machine, and check proxy.host and proxy.port"}, class: fault.Transient,
		},
		"wrong gateway password": {
			change: func(_ *testing.T, s *site) { s.login.Password = secret.New("wrong-" + gatewayP) },
			want:   map[string]Result{gatewayLogin: Fail}, line: gatewayLogin, words: []string{"wrong credentials (401)", "correct qualys.user.username and qualys.user.password"}, class: fault.Refused,
		},
		"wrong gateway password, from the console": {
			change: func(_ *testing.T, s *site) {
				s.console(nil)
				s.login.Password = secret.New("wrong-" + gatewayP)
			},
			want: skippedFrom(map[string]Result{gatewayLogin: Fail, documents: skippedLine}, reach, counts), line: documents, words: []string{"to which there is no login"}, class: fault.Refused,
		},
		"no gateway": {
			change: func(t *testing.T, s *site) { s.url = parse(t, fmt.Sprintf("http://127.0.0.1:%d", closedPort(t))) },
			want:   map[string]Result{gatewayLogin: Fail}, line: gatewayLogin, class: fault.Transient,
			words: []string{"connection refused", "open TCP port ", "to 127.0.0.1 from this machine, or set proxy.enabled, proxy.host and proxy.port, and check connector.api.url"},
		},
		"rate limited": {
			change: func(_ *testing.T, s *site) {
				s.console(nil)
				s.answering = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != http.MethodGet {
						return false
					}
					w.Header().Set("X-RateLimit-ToWait-Sec", "3600")
					w.WriteHeader(http.StatusTooManyRequests)
					return true
				}
			},
			want: skippedFrom(map[string]Result{documents: Fail}, reach, counts), line: documents, words: []string{"rate limited until "}, class: fault.Transient,
		},

		"no connection in the console": {
			change: func(_ *testing.T, s *site) {
				s.console(nil)
				s.gateway.SetConnection(nil)
			},
			want: skippedFrom(map[string]Result{documents: Fail}, reach, counts), line: documents, words: []string{"does not know it (404)", "check qualys.connectionUuid"}, class: fault.Refused,
		},
		"no profile in the console": {
			change: func(_ *testing.T, s *site) {
				s.console(nil)
				s.gateway.SetProfile(nil)
			},
			want: map[string]Result{documents: Fail, baseContext: skippedLine, readUsers: skippedLine, readGroups: skippedLine, counts: skippedLine},
			line: documents, words: []string{"check qualys.profileUuid"}, class: fault.Refused,
		},
		"neither": {
			change: func(_ *testing.T, s *site) {
				s.console(nil)
				s.gateway.SetConnection(nil)
				s.gateway.SetProfile(nil)
			},
			want: skippedFrom(map[string]Result{documents: Fail}, reach, counts), line: documents,
			words: []string{"read connection ", "; read profile ", "check qualys.connectionUuid and qualys.customerUuid; check qualys.profileUuid"}, class: fault.Refused,
		},
		"unknown scope in the console": {
			change: func(_ *testing.T, s *site) {
				s.console(func(_ *sandbox.Connection, p *gateway.Profile) { p.SearchScope = "FOREST" })
			},
			want: map[string]Result{documents: Fail, baseContext: skippedLine, readUsers: skippedLine, readGroups: skippedLine, counts: skippedLine},
			line: documents, words: []string{`search scope "FOREST" is unknown`, "use SUBTREE, ONE_LEVEL or BASE"}, class: fault.Refused,
		},
		"posture": {
			change: func(_ *testing.T, s *site) {
				s.console(func(_ *sandbox.Connection, p *gateway.Profile) { p.Assets = "Identity with security posture" })
			},
			line: documents, words: []string{"identities with security posture"},
		},

		"no cron expression": {
			change: func(_ *testing.T, s *site) { s.Next = nil },
			want:   map[string]Result{scheduled: Warn}, line: scheduled, words: []string{"only sync runs", "set service.cron-expression"},
		},
		"more often than the gateway likes": {
			change: func(_ *testing.T, s *site) { s.answering = limits("20", "3600") },
			want:   map[string]Result{scheduled: Warn}, line: scheduled, words: []string{"20 calls in 1h0m0s", "each run needs 5 at least", "run less often"},
		},
		"not more often than the gateway likes": {
			change: func(_ *testing.T, s *site) { s.answering = limits("300", "3600") },
			line:   scheduled, words: []string{"the gateway allows 300 calls in 1h0m0s"},
		},

		"no directory": {
			change: func(t *testing.T, s *site) { s.Source.Directory.Port = closedPort(t) },
			want:   skippedFrom(map[string]Result{reach: Fail}, tlsLine, counts), line: reach, class: fault.Transient,
			words: []string{"connection refused", "open TCP port ", " to 127.0.0.1 from this machine, and check ldap.host and ldap.port"},
		},
		"no directory, from the console": {
			change: func(t *testing.T, s *site) {
				s.console(func(c *sandbox.Connection, _ *gateway.Profile) { c.Authentication.Port = closedPort(t) })
			},
			want: skippedFrom(map[string]Result{reach: Fail}, tlsLine, counts), line: reach, words: []string{"the connection's host and port in the console"}, class: fault.Transient,
		},
		"one of two servers": {
			change: func(_ *testing.T, s *site) { s.Source.Directory.Hosts = []string{"127.0.0.2", "127.0.0.1"} },
			want:   map[string]Result{reach: Warn}, line: reach,
			words: []string{"127.0.0.1:", " can be reached, but not: connect to 127.0.0.2:", " to 127.0.0.2 from this machine"},
		},
		"unknown host": {
			change: func(_ *testing.T, s *site) { s.Source.Directory.Hosts = []string{"dc1.invalid"} },
			want:   skippedFrom(map[string]Result{reach: Fail}, tlsLine, counts), line: reach, words: []string{"dc1.invalid", "correct ldap.host, or this machine's DNS"}, class: fault.Transient,
		},

		"plain LDAP": {
			change: func(_ *testing.T, s *site) {
				s.Source.Directory.Protocol, s.Source.Directory.Port = directory.LDAP, s.plain
			},
			want: map[string]Result{tlsLine: Warn}, line: tlsLine, words: []string{"in the clear", "use LDAPS (port 636) or STARTTLS: set ldap.protocol", "as ldap.certificate"},
		},
		"plain LDAP, from the console": {
			change: func(_ *testing.T, s *site) {
				s.console(func(c *sandbox.Connection, _ *gateway.Profile) {
					c.Authentication.Type, c.Authentication.Port = "LDAP", s.plain
				})
			},
			want: map[string]Result{tlsLine: Warn}, line: tlsLine, words: []string{"set the connection's type in the console"},
		},
		"certificate of nobody known": {
			change: func(_ *testing.T, s *site) { s.Source.Directory.Certificates = nil },
			want:   skippedFrom(map[string]Result{tlsLine: Fail}, bind, counts), line: tlsLine, words: []string{"common name dc1.corp.example.com", "give it or its issuer's as ldap.certificate"}, class: fault.Refused,
		},
		"LDAPS at the port of LDAP": {
			change: func(_ *testing.T, s *site) { s.Source.Directory.Port = s.plain },
			want:   skippedFrom(map[string]Result{tlsLine: Fail}, bind, counts), line: tlsLine, words: []string{"LDAPS is usually port 636"},
		},
		"certificate about to expire": {
			change: func(_ *testing.T, s *site) {
				s.now = func() time.Time { return s.ldap.Certificate().NotAfter.Add(-10*24*time.Hour - time.Minute) }
				s.directoryAt = s.now
			},
			want: map[string]Result{tlsLine: Warn}, line: tlsLine, words: []string{"expires in 10 days", "renew the domain controller's certificate", "give the new one, or better its issuer's, as ldap.certificate"},
		},
		"certificate that has expired and is given": {
			change: func(_ *testing.T, s *site) { s.now = later(400 * 24 * time.Hour) },
			want:   map[string]Result{tlsLine: Warn, timeSkew: Warn}, line: tlsLine, words: []string{"which is the given one, has expired on "},
		},

		"wrong password": {
			change: func(_ *testing.T, s *site) { s.Source.Directory.Password = secret.New("wrong-" + password) },
			want:   skippedFrom(map[string]Result{bind: Fail}, account, counts), line: bind, words: []string{"LDAP result 49", "wrong password", "correct ldap.password and ldap.bindDn"}, class: fault.Refused,
		},
		"disabled account": {
			change: func(t *testing.T, s *site) { must(t, s.ldap.Disable(bindDN)) },
			want:   skippedFrom(map[string]Result{bind: Fail}, account, counts), line: bind, words: []string{"the account is disabled", "enable it"}, class: fault.Refused,
		},

		"administrator by way of a group": {
			change: func(t *testing.T, s *site) {
				group := "CN=Operators,CN=Users," + domain
				must(t, s.ldap.Add(sandbox.Object{DN: group, Attributes: map[string][]string{"objectClass": {"group"}, "member": {bindDN}}}))
				must(t, s.ldap.Modify(admins, "member", group))
			},
			want: map[string]Result{account: Warn}, line: account, words: []string{"svc-qualys@corp.example.com is a member of ", "Domain Admins", "Administrators", "use a plain domain user instead"},
		},
		"administrator by primary group": {
			change: func(t *testing.T, s *site) { must(t, s.ldap.Modify(bindDN, "primaryGroupID", "512")) },
			want:   map[string]Result{account: Warn}, line: account, words: []string{"is a member of Domain Admins, Administrators"},
		},
		"password about to expire": {
			change: func(t *testing.T, s *site) {
				must(t, s.ldap.Modify(bindDN, "userAccountControl", "512")) // the domain's age of passwords is 42 days
				s.now = later(37 * 24 * time.Hour)
			},
			want: map[string]Result{account: Warn, timeSkew: Warn}, line: account, words: []string{"the password of svc-qualys@corp.example.com expires in ", "set a new one, there and in ldap.password, or have it never expire"},
		},
		"password that will expire": {
			change: func(t *testing.T, s *site) { must(t, s.ldap.Modify(bindDN, "userAccountControl", "512")) },
			line:   account, words: []string{"no administrator; its password is good until "},
		},
		"bound as DOMAIN\\name": {
			change: func(_ *testing.T, s *site) { s.Source.Directory.BindDN = `CORP\svc-qualys` },
			line:   account, words: []string{"svc-qualys@corp.example.com, no administrator"},
		},
		"bound as name@domain": {
			change: func(t *testing.T, s *site) {
				s.Source.Directory.BindDN = "svc-qualys@corp.example.com"
				must(t, s.ldap.Modify(bindDN, "primaryGroupID", "512"))
			},
			want: map[string]Result{account: Warn}, line: account, words: []string{"is a member of Domain Admins"},
		},

		"base context that is not there": {
			change: func(_ *testing.T, s *site) { s.Source.Base = "OU=Nowhere," + domain },
			want:   map[string]Result{baseContext: Fail, readUsers: skippedLine, readGroups: skippedLine, counts: skippedLine},
			line:   baseContext, words: []string{"OU=Nowhere", "what exists of it is " + domain, "correct profile.baseContext"}, class: fault.Refused,
		},
		"base context beside a refused gateway": {
			change: func(_ *testing.T, s *site) {
				s.Source.Base = "OU=Nowhere," + domain
				s.login.Password = secret.New("wrong-" + gatewayP)
			},
			want: map[string]Result{gatewayLogin: Fail, baseContext: Fail, readUsers: skippedLine, readGroups: skippedLine, counts: skippedLine},
			line: baseContext, words: []string{"OU=Nowhere"}, class: fault.Refused,
		},
		"base context of another domain": {
			change: func(_ *testing.T, s *site) { s.Source.Base = "DC=elsewhere,DC=example,DC=com" },
			want:   map[string]Result{baseContext: Fail, readUsers: skippedLine, readGroups: skippedLine, counts: skippedLine},
			line:   baseContext, words: []string{"another server's domain", "connect to a domain controller of that domain"}, class: fault.Refused,
		},
		"nothing to read": {
			change: func(t *testing.T, s *site) {
				s.Source.Base = "OU=Empty," + domain
				must(t, s.ldap.Add(sandbox.Object{DN: s.Source.Base, Attributes: map[string][]string{"objectClass": {"organizationalUnit"}}}))
			},
			want: map[string]Result{readUsers: Warn, readGroups: Warn, counts: Warn}, line: readUsers,
			words: []string{"no users are to be seen below OU=Empty", `dsacls "OU=Empty,` + domain + `" /I:T /G "svc-qualys@corp.example.com:LCRP"`},
		},
		"filter that leaves nothing": {
			change: func(_ *testing.T, s *site) { s.Search.GroupFilter = "(description=nothing of the kind)" },
			want:   map[string]Result{readGroups: Warn}, line: readGroups, words: []string{"no groups are to be seen", "check profile.baseContext, profile.searchScope and ldap.group-filter"},
		},

		"tombstones out of sight": {
			change: func(t *testing.T, s *site) {
				must(t, s.ldap.Add(sandbox.Object{DN: "CN=Plain,CN=Users," + domain, Attributes: map[string][]string{"objectClass": {"user"}, "sAMAccountName": {"plain"}}}))
				must(t, s.ldap.SetPassword("CN=Plain,CN=Users,"+domain, password))
				s.Source.Directory.BindDN = "CN=Plain,CN=Users," + domain
			},
			want: map[string]Result{seeDeleted: Warn}, line: seeDeleted, words: []string{
				"deletions show at full passes only",
				`dsacls "CN=Deleted Objects,` + domain + `" /takeOwnership`, `dsacls "CN=Deleted Objects,` + domain + `" /g "plain@corp.example.com:LCRP"`,
			},
		},
		"pages too large": {
			change: func(_ *testing.T, s *site) { s.Search.PageSize = 5000 },
			want:   map[string]Result{pageSize: Warn}, line: pageSize, words: []string{"ldap.page-size is 5000", "1000 at most", "set ldap.page-size to 1000"},
		},
		"counting takes too long": {
			change: func(_ *testing.T, s *site) { s.countFor = time.Nanosecond },
			want:   map[string]Result{readUsers: Warn, readGroups: Warn, counts: Warn}, line: counts, words: []string{"more than 0 users and more than 0 groups: counting ended after 1ns"},
		},

		"this machine's clock": {
			change: func(_ *testing.T, s *site) {
				s.directoryAt, s.answering = later(5*time.Minute), dated(5*time.Minute)
			},
			want: map[string]Result{timeSkew: Warn}, line: timeSkew, words: []string{"the directory's clock is ", " ahead, the gateway's clock is ", "set this machine's clock"},
		},
		"the directory's clock": {
			change: func(_ *testing.T, s *site) { s.directoryAt = later(-3 * time.Minute) },
			want:   map[string]Result{timeSkew: Warn}, line: timeSkew, words: []string{"the directory's clock is 3m", " behind, the gateway's clock agrees", "set the directory's clock"},
		},
		"the gateway's clock": {
			change: func(_ *testing.T, s *site) { s.answering = dated(2 * time.Minute) },
			want:   map[string]Result{timeSkew: Warn}, line: timeSkew, words: []string{"the gateway's clock is ", "set the gateway's clock"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(s *site) {
				if c.change != nil {
					c.change(t, s)
				}
			})
			report := s.examine(t, t.Context())
			for _, got := range report.Checks {
				result := got.Result
				if strings.HasPrefix(got.Found, "skipped: ") {
					result = skippedLine
				}
				if want := c.want[got.Name]; result != want && (want != "" || result != OK) {
					t.Errorf("%s is %s, want %q: %+v", got.Name, result, want, got)
				}
			}
			if c.line != "" {
				got := report.of(c.line)
				for _, word := range c.words {
					if !strings.Contains(got.Found+"\n"+got.Remedy, word) {
						t.Errorf("%q is not in %+v", word, got)
					}
				}
			}
			err := report.Err()
			if report.OK != (err == nil) || c.class != "" && fault.Of(err) != c.class {
				t.Errorf("ok %t, class %s of %v, want %s", report.OK, fault.Of(err), err, c.class)
			}
			if _, err := os.Stat(s.StateDir); err == nil && !strings.HasPrefix(name, "state") {
				t.Error("a state directory was made")
			}
		})
	}
}

func limits(calls, window string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("X-RateLimit-Limit", calls)
		w.Header().Set("X-RateLimit-Window-Sec", window)
		return false
	}
}

// dated is a gateway whose clock is ahead.
func dated(ahead time.Duration) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		return false
	}
}

// allBut is a failure after which everything is skipped.
func allBut(failed string) map[string]Result {
	return skippedFrom(map[string]Result{failed: Fail}, lines[1].name, timeSkew)
}

// skippedFrom adds the lines from one to another to those that are skipped.
func skippedFrom(want map[string]Result, from, to string) map[string]Result {
	within := false
	for _, line := range lines {
		within = within || line.name == from
		if _, known := want[line.name]; within && !known {
			want[line.name] = skippedLine
		}
		within = within && line.name != to
	}
	return want
}

// TestRights has a server that shows what an account with few rights sees.
func TestRights(t *testing.T) {
	nameless := func(e fakeldap.Entry) fakeldap.Entry {
		delete(e.Attributes, "objectSid")
		return e
	}
	without := func(attribute string, entries []fakeldap.Entry) []fakeldap.Entry {
		for _, e := range entries {
			delete(e.Attributes, attribute)
		}
		return entries
	}
	cases := map[string]struct {
		change func(*fakeldap.Server)
		line   string
		result Result
		words  []string
	}{
		"all can be read": {func(*fakeldap.Server) {}, readUsers, OK, []string{"that were tried are read whole"}},
		"counts":          {func(*fakeldap.Server) {}, counts, OK, []string{"25 users and 3 groups"}},
		"some without a SID": {func(s *fakeldap.Server) { s.Users[3], s.Users[24] = nameless(s.Users[3]), nameless(s.Users[24]) },
			readUsers, Warn, []string{"2 of 25 have no objectSid or objectGUID that can be read", "ldap.user-filter"}},
		"all without a SID": {func(s *fakeldap.Server) { s.Users = without("objectSid", s.Users) },
			readUsers, Fail, []string{"25 users are to be seen, but the objectSid or objectGUID of none", `dsacls "` + domain + `" /I:T /G`}},
		"no status": {func(s *fakeldap.Server) { s.Users = without("userAccountControl", s.Users) },
			readUsers, Warn, []string{"not their userAccountControl", "whether they are disabled"}},
		"no type": {func(s *fakeldap.Server) { s.Groups = without("groupType", s.Groups) },
			readGroups, Warn, []string{"not their groupType"}},
		"connection lost": {func(s *fakeldap.Server) { s.Sent = func(n int) bool { return n < 5 } },
			readUsers, Fail, []string{"the connection was lost", "check the server's log"}},
		"no domain controller": {func(s *fakeldap.Server) { s.Plain = true },
			seeDeleted, Warn, []string{"no domain controller: deletions show at full passes only"}},
		"limits nobody tells": {func(s *fakeldap.Server) { s.Plain = true },
			pageSize, OK, []string{"1000; the server does not say what it allows"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := fakeldap.Start(t)
			server.Users, server.Groups = fakeldap.Users(25), fakeldap.Groups(3)
			c.change(server)
			s := newSite(t, func(s *site) {
				s.Source.Directory = directory.Options{Hosts: []string{"127.0.0.1"}, Port: server.Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password)}
				s.Source.Base = fakeldap.Base
			})
			got := s.examine(t, t.Context()).of(c.line)
			if got.Result != c.result {
				t.Errorf("%+v", got)
			}
			for _, word := range c.words {
				if !strings.Contains(got.Found+"\n"+got.Remedy, word) {
					t.Errorf("%q is not in %+v", word, got)
				}
			}
		})
	}
}

// TestInterrupted: what was not come to is said to be skipped.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newSite(t, func(s *site) {
		s.answering = func(http.ResponseWriter, *http.Request) bool {
			cancel()
			return false
		}
	})
	report := s.examine(t, ctx)
	if c := report.of(timeSkew); c.Found != "skipped: interrupted" {
		t.Errorf("%+v", c)
	}
	if s.ldap.Searches().Binds != 0 {
		t.Error("it went on")
	}
}

// TestNoVerdictUnderWay: a line that is interrupted has found nothing, and one that
// takes too long says for how long it has waited.
func TestNoVerdictUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := func(_ *inspection, ctx context.Context) Check {
			<-ctx.Done()
			return failed(deadline(fmt.Errorf("log in: %w", ctx.Err())), "try again")
		}
		i := &inspection{}
		if c := i.one(t.Context(), waits); c.Result != Fail || c.Found != "log in: no answer within 1m0s" || fault.Of(c.err) != fault.Transient {
			t.Errorf("%+v", c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if c := i.one(ctx, waits); c.Result != Warn || c.Found != "skipped: interrupted" || c.Remedy != "" {
			t.Errorf("%+v", c)
		}
	})
}

func TestRemedies(t *testing.T) {
	for text, want := range map[string][2]string{
		"bind as CN=x to a:389: refused (LDAP result 49): the account is locked: unlock it, and look for whoever uses an old password": {
			"bind as CN=x to a:389: refused (LDAP result 49): the account is locked", "unlock it, and look for whoever uses an old password"},
		"connect to a:636 (LDAPS): the server's certificate (for b) is not trusted: it is not for a; set ldap.server-name to a name that it carries": {
			"connect to a:636 (LDAPS): the server's certificate (for b) is not trusted: it is not for a", "set ldap.server-name to a name that it carries"},
		"connect to a:636 (LDAPS): the port speaks another protocol: LDAPS is usually port 636": {
			"connect to a:636 (LDAPS): the port speaks another protocol", "LDAPS is usually port 636"},
		"no directory server could be used: connect to a:1 (LDAP): x: check host and port; connect to b:1 (LDAP): y: check host and port": {
			"no directory server could be used: connect to a:1 (LDAP): x", "check host and port; connect to b:1 (LDAP): y: check host and port"},
		"the setup: settled": {"the setup: settled", ""},
		"unusable state directory: remove /var/lib/x: not a directory: set service.state-dir to a directory": {
			"unusable state directory: remove /var/lib/x: not a directory", "set service.state-dir to a directory"},
	} {
		if found, remedy := split(errors.New(text)); found != want[0] || remedy != want[1] {
			t.Errorf("%s: %q and %q", text, found, remedy)
		}
	}
}

func TestMaxPageSize(t *testing.T) {
	policy := func(values ...string) (all [][]byte) {
		for _, v := range values {
			all = append(all, []byte(v))
		}
		return all
	}
	if n, says := maxPageSize(policy("MaxReceiveBuffer=10485760", "maxpagesize=5000")); n != 5000 || !says {
		t.Errorf("%d, %t", n, says)
	}
	if _, says := maxPageSize(policy("MaxPageSize=many", "MaxPageSizes=3")); says {
		t.Error("it says so")
	}
}
