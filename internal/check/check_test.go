package check

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/input"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/schedule"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
	"adconnector/test/ports"
	"adconnector/test/testenv"
)

// The names of the checks.
const (
	configuration        = "configuration"
	stateDirectory       = "state directory"
	proxy                = "proxy"
	gatewayLogin         = "gateway login"
	connectionAndProfile = "connection and profile"
	scheduleCheck        = "schedule"
	connect              = "directory"
	tlsCheck             = "TLS"
	bind                 = "bind"
	domainController     = "domain controller"
	account              = "bind account"
	filters              = "filters"
	baseContext          = "base context"
	readUsers            = "read users"
	readGroups           = "read groups"
	unreadableObjects    = "unreadable objects"
	readPermissions      = "read permissions"
	readDeleted          = "see deletions"
	pageSize             = "page size"
	lastLogon            = "last logon"
	counts               = "counts"
	timeSkew             = "time skew"
)

const (
	domain = "DC=corp,DC=example,DC=com"
	bindDN = "CN=svc-qualys,OU=Service," + domain
)

// environment is a directory, a gateway, and options with which every check is ok.
type environment struct {
	*testenv.Environment
	options      Options
	client       gateway.Options
	directoryNow func() time.Time
}

// newEnvironment starts an environment. change runs before the gateway client is created; it can
// be nil.
func newEnvironment(t *testing.T, change func(*environment)) *environment {
	t.Helper()
	e := &environment{directoryNow: time.Now}
	e.Environment = testenv.New(t, testenv.Options{Directory: domaincontroller.Options{
		Users: 30, Groups: 5, BindDN: bindDN, ReadsDeleted: true, Now: func() time.Time { return e.directoryNow() },
	}})
	e.client = e.Gateway.ClientOptions(zerolog.Nop())
	e.options = Options{
		Source:   &syncrun.Source{Directory: e.Directory.Options(directory.LDAPS), Base: domain, Scope: directory.Subtree},
		StateDir: e.Environment.StateDir, Schedule: mustParse(t, "*/10 * * * *"),
		stateOptions: state.Options{LockWait: time.Millisecond, NoSync: true},
	}
	e.options.Search.PageSize = 1000
	if change != nil {
		change(e)
	}
	e.options.GatewayAddress = e.client.URL.Host
	e.options.Gateway = gateway.New(e.client)
	return e
}

// console moves the connection and the profile to the gateway.
func (e *environment) console(change func(*gatewayserver.Connection, *gateway.Profile)) {
	e.options.Source = nil
	e.Console("LDAPS", domain)
	if change != nil {
		connection, profile := *e.Gateway.Options.Connection, *e.Gateway.Options.Profile
		change(&connection, &profile)
		e.Gateway.SetConnection(&connection)
		e.Gateway.SetProfile(&profile)
	}
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	must(t, err)
	return u
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// runChecks runs the checks and verifies what is always true of them.
func (e *environment) runChecks(ctx context.Context, t *testing.T) Report {
	t.Helper()
	var reported []Check
	report := Run(ctx, e.options, func(c Check) { reported = append(reported, c) })
	if !slices.EqualFunc(reported, report.Checks, func(a, b Check) bool { return a.Name == b.Name && a.Found == b.Found }) || len(reported) != len(checks) {
		t.Errorf("%d checks reported, %d in the report, want %d", len(reported), len(report.Checks), len(checks))
	}
	for n, c := range report.Checks {
		if c.Name != checks[n].name {
			t.Errorf("check %d is %q, want %q", n, c.Name, checks[n].name)
		}
		if c.Found == "" || c.Result == OK && c.Remedy != "" || c.Result == Fail && (c.Remedy == "" || c.err == nil) {
			t.Errorf("%+v", c)
		}
		if c.Remedy != "" && strings.Contains(c.Found, c.Remedy) {
			t.Errorf("remedy in the finding: %+v", c)
		}
		if skipped := strings.HasPrefix(c.Found, "skipped: "); c.Result == Warn && (c.Remedy == "") != skipped {
			t.Errorf("%+v", c)
		}
		for _, secret := range []string{e.Password, e.Gateway.Options.Password, "wrong-"} {
			if strings.Contains(c.Found+c.Remedy, secret) {
				t.Errorf("secret in %+v", c)
			}
		}
	}
	// A second refused bind could lock the account. The gateway must not change.
	if n := e.Directory.Counters().FailedBinds; n > 1 {
		t.Errorf("%d refused binds", n)
	}
	if states := e.Gateway.States(); len(states) != 0 {
		t.Errorf("states %v", states)
	}
	for _, r := range e.Gateway.Requests() {
		if r.Method != http.MethodGet && r.Path != testenv.LoginPath {
			t.Errorf("request %+v", r)
		}
	}
	return report
}

func (r Report) find(name string) Check {
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
	return r.Checks[i]
}

// requireContains fails the test unless a field contains all values.
func requireContains(t *testing.T, field string, values ...string) {
	t.Helper()
	for _, value := range values {
		if !strings.Contains(field, value) {
			t.Errorf("%q missing in %q", value, field)
		}
	}
}

const skippedCheck Result = "skipped" // in the tables below

// checkCase is an environment and the expected results of the checks.
type checkCase struct {
	change func(*testing.T, *environment)
	want   map[string]Result // of the checks that are not ok
	check  string            // name of the check that the fields below describe
	found  []string          // values in Found
	remedy []string          // settings and commands in Remedy
	op     string            // operation of the error
	cause  error             // nil: not tested
	class  fault.Class       // of the first failure
}

// testChecks runs the checks in the environment of each case.
func testChecks(t *testing.T, cases map[string]checkCase) {
	t.Parallel()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnvironment(t, func(e *environment) {
				if c.change != nil {
					c.change(t, e)
				}
			})
			report := e.runChecks(t.Context(), t)
			for _, got := range report.Checks {
				result := got.Result
				if strings.HasPrefix(got.Found, "skipped: ") {
					result = skippedCheck
				}
				if want := c.want[got.Name]; result != want && (want != "" || result != OK) {
					t.Errorf("%s is %s, want %q: %+v", got.Name, result, want, got)
				}
			}
			if c.check != "" {
				got := report.find(c.check)
				requireContains(t, got.Found, c.found...)
				requireContains(t, got.Remedy, c.remedy...)
				failed, ok := errors.AsType[*fault.Error](got.err)
				if c.op != "" && (!ok || failed.Op != c.op) || c.cause != nil && !errors.Is(got.err, c.cause) {
					t.Errorf("error %v, want operation %q, cause %v", got.err, c.op, c.cause)
				}
			}
			err := report.Err()
			if report.OK != (err == nil) || c.class != "" && fault.ClassOf(err) != c.class {
				t.Errorf("ok %t, class %s of %v, want %s", report.OK, fault.ClassOf(err), err, c.class)
			}
			if _, err := os.Stat(e.options.StateDir); err == nil && !strings.HasPrefix(name, "state") {
				t.Error("state directory created")
			}
		})
	}
}

// clockAhead returns a clock that is ahead by d.
func clockAhead(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

func TestAllChecksOK(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"all ok": {check: configuration, found: []string{"from the settings (ldap.host)"}},
		"one user and one group": {change: func(_ *testing.T, e *environment) {
			e.options.Search.UserFilter, e.options.Search.GroupFilter = "(sAMAccountName=Administrator)", "(sAMAccountName=Domain Users)"
		},
			check: counts, found: []string{"1 user and 1 group"}},
		"all ok, from the console": {change: func(_ *testing.T, e *environment) { e.console(nil) },
			check: connectionAndProfile, found: []string{"gateway", "LDAPS to 127.0.0.1", "SUBTREE of " + domain}},
		"StartTLS": {change: func(_ *testing.T, e *environment) {
			e.options.Source.Directory.Protocol, e.options.Source.Directory.Port = directory.StartTLS, e.Port
		},
			check: tlsCheck, found: []string{"TLS 1.3 at 127.0.0.1:", "valid until 20"}},
	})
}

func TestConfiguration(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"bad configuration": {
			change: func(_ *testing.T, e *environment) {
				e.options.Fault = errors.Join(
					fault.Operation{Object: "thread-pool.size (environment)"}.Failed(fault.Invalid, errors.New(`"x; allowed: y" is not allowed`), "allowed: a number from 1 to 64"),
					fault.Operation{Object: "ldap.port (a.env line 1)"}.Failed(fault.Invalid, errors.New("requires ldap.host"), "allowed: both or neither"))
			},
			want: skippedAfter(configuration), check: configuration, class: fault.Invalid,
			found:  []string{`thread-pool.size (environment): "x; allowed: y" is not allowed` + "\n" + `ldap.port (a.env line 1): requires ldap.host`},
			remedy: []string{"thread-pool.size (environment): allowed: a number from 1 to 64\nldap.port (a.env line 1): allowed: both or neither\n", "adconnector keys"},
		},
		"unknown key": {
			change: func(_ *testing.T, e *environment) {
				e.options.Advice = []string{"ldap.hots is unknown, ldap.host is meant"}
			},
			want: map[string]Result{configuration: Warn}, check: configuration, found: []string{"ldap.hots"}, remedy: []string{"adconnector keys"},
		},
		"mistakes and an unknown key": {
			change: func(_ *testing.T, e *environment) {
				e.options.Advice = []string{"ldap.hots is unknown, ldap.host is meant"}
				e.options.Mistakes = []input.Finding{{Name: "ldap.password (environment)", Mistakes: []error{input.EndsWithSpace, input.InQuotes}}}
			},
			want: map[string]Result{configuration: Warn}, check: configuration,
			found:  []string{"no effect:\nldap.hots", "mistakes:\nldap.password (environment): ends with a space, is in quotation marks"},
			remedy: []string{"adconnector keys", "\nldap.password (environment): remove the space"},
		},
		"mistake beside a fault": {
			change: func(_ *testing.T, e *environment) {
				e.options.Fault = fault.Operation{Object: "ldap.port"}.Failed(fault.Invalid, errors.New("x"), "allowed: y")
				e.options.Mistakes = []input.Finding{{Name: "ldap.password (environment)", Mistakes: []error{input.EndsWithSpace}}}
			},
			want: skippedAfter(configuration), check: configuration, class: fault.Invalid,
			found: []string{"ldap.port: x\nldap.password (environment): ends with a space"}, remedy: []string{"allowed: y\n", "ldap.password (environment): remove the space"},
		},
	})
}

func TestStateDirectory(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"state directory is a file": {
			change: func(t *testing.T, e *environment) { must(t, os.WriteFile(e.options.StateDir, nil, 0o600)) },
			want:   map[string]Result{stateDirectory: Fail}, check: stateDirectory, op: "open", cause: syscall.ENOTDIR, remedy: []string{"service.state-dir"}, class: fault.Invalid,
		},
		"state file in use": {
			change: func(t *testing.T, e *environment) {
				store, err := e.options.stateOptions.Open(e.options.StateDir)
				must(t, err)
				t.Cleanup(func() { store.Close() })
			},
			check: stateDirectory, found: []string{fmt.Sprintf("process %d on ", os.Getpid())},
		},
		"state file of a run": {
			change: func(t *testing.T, e *environment) {
				store, err := e.options.stateOptions.Open(e.options.StateDir)
				must(t, err)
				must(t, store.Close())
			},
			check: stateDirectory, found: []string{"adconnector.db has 0 objects"},
		},
		"state file too large to be verified": {
			change: func(t *testing.T, e *environment) {
				store, err := e.options.stateOptions.Open(e.options.StateDir)
				must(t, err)
				must(t, store.Close())
				e.options.stateOptions.ReadLimit = -1
			},
			check: stateDirectory, found: []string{"0 objects; too large"},
		},
		"state file with a damaged record": {
			change: func(t *testing.T, e *environment) {
				store, err := e.options.stateOptions.Open(e.options.StateDir)
				must(t, err)
				must(t, store.Close())
				content, err := os.ReadFile(store.Path())
				must(t, err)
				content = bytes.ReplaceAll(content, []byte("version"), []byte("versioo")) // a key, with a valid page structure
				must(t, os.WriteFile(store.Path(), content, 0o600))
			},
			want: map[string]Result{stateDirectory: Warn}, check: stateDirectory, found: []string{"verify state file ", "damaged: "}, remedy: []string{"set the file aside"},
		},
		"state disk full": {
			change: func(t *testing.T, e *environment) {
				must(t, os.MkdirAll(e.options.StateDir, 0o700))
				if err := syscall.Mount("tmpfs", e.options.StateDir, "tmpfs", 0, "size=4k,mode=700"); err != nil {
					t.Skipf("needs root to mount a small file system: %v", err)
				}
				t.Cleanup(func() { must(t, syscall.Unmount(e.options.StateDir, syscall.MNT_DETACH)) })
			},
			want: map[string]Result{stateDirectory: Fail}, check: stateDirectory, op: "write to", cause: syscall.ENOSPC, found: []string{"state directory /"}, remedy: []string{"free or add space"}, class: fault.Transient,
		},
		"state directory shared": {
			change: func(t *testing.T, e *environment) {
				must(t, os.MkdirAll(e.options.StateDir, 0o700))
				must(t, os.Chmod(e.options.StateDir, 0o770|os.ModeSetgid))
			},
			want: map[string]Result{stateDirectory: Warn}, check: stateDirectory, found: []string{"0770"}, remedy: []string{"fsGroup"},
		},
		"state directory has a link": {
			change: func(t *testing.T, e *environment) {
				must(t, os.MkdirAll(e.options.StateDir, 0o700))
				must(t, os.Symlink("nowhere", filepath.Join(e.options.StateDir, "adconnector.db.lock")))
			},
			want: map[string]Result{stateDirectory: Fail}, check: stateDirectory, op: "open", remedy: []string{"adconnector.db.lock", "service.state-dir"}, class: fault.Invalid,
		},
		"state file damaged": {
			change: func(t *testing.T, e *environment) {
				must(t, os.MkdirAll(e.options.StateDir, 0o700))
				must(t, os.WriteFile(filepath.Join(e.options.StateDir, "adconnector.db"), []byte(strings.Repeat("nonsense", 4096)), 0o600))
			},
			want: map[string]Result{stateDirectory: Warn}, check: stateDirectory, found: []string{"adconnector.db"}, remedy: []string{"set the file aside"},
		},
	})
}

func TestGatewayLogin(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"proxy": {
			change: func(t *testing.T, e *environment) {
				target := e.client.URL
				server := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
				t.Cleanup(server.Close)
				e.options.ProxyAddress = parse(t, server.URL).Host
				e.client.Proxy = &gateway.Proxy{Scheme: "http", Host: "127.0.0.1", Port: testenv.PortOf(server.Listener)}
			},
			check: proxy, found: []string{"127.0.0.1:"},
		},
		"proxy requires credentials": {
			change: func(t *testing.T, e *environment) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) }))
				t.Cleanup(server.Close)
				e.options.ProxyAddress = parse(t, server.URL).Host
				e.client.Proxy = &gateway.Proxy{Scheme: "http", Host: "127.0.0.1", Port: testenv.PortOf(server.Listener)}
			},
			want: map[string]Result{gatewayLogin: Fail}, check: gatewayLogin, found: []string{"407"}, remedy: []string{"proxy.username and proxy.password"}, class: fault.Refused,
		},
		"no proxy": {
			change: func(t *testing.T, e *environment) {
				e.options.ProxyAddress = fmt.Sprintf("127.0.0.1:%d", ports.Refusing(t))
			},
			want: map[string]Result{proxy: Fail, gatewayLogin: skippedCheck}, check: proxy,
			op: "connect to", cause: syscall.ECONNREFUSED, remedy: []string{"open TCP port ", " to 127.0.0.1 ", "proxy.host and proxy.port"}, class: fault.Transient,
		},
		"wrong gateway password": {
			change: func(_ *testing.T, e *environment) { e.client.Login.Password = secret.New("wrong-password") },
			want:   map[string]Result{gatewayLogin: Fail}, check: gatewayLogin, found: []string{"401"}, remedy: []string{"qualys.user.username and qualys.user.password"}, class: fault.Refused,
		},
		"wrong gateway password, from the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(nil)
				e.client.Login.Password = secret.New("wrong-password")
			},
			want: skippedFrom(map[string]Result{gatewayLogin: Fail, connectionAndProfile: skippedCheck}, connect, counts), check: connectionAndProfile, class: fault.Refused,
		},
		"rate limited": {
			change: func(_ *testing.T, e *environment) {
				e.console(nil)
				e.Gateway.SetFront(func(x *testenv.Exchange) bool {
					if x.R.Method != http.MethodGet {
						return false
					}
					x.W.Header().Set("X-RateLimit-ToWait-Sec", "3600")
					return x.Status(http.StatusTooManyRequests, "")
				})
			},
			want: skippedFrom(map[string]Result{connectionAndProfile: Fail}, connect, counts), check: connectionAndProfile, op: "read connection", class: fault.Transient,
		},
	})
}

func TestDocuments(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"no connection in the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(nil)
				e.Gateway.SetConnection(nil)
			},
			want: skippedFrom(map[string]Result{connectionAndProfile: Fail}, connect, counts), check: connectionAndProfile, op: "read connection", found: []string{"404"}, remedy: []string{"qualys.connectionUuid"}, class: fault.Refused,
		},
		"no profile in the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(nil)
				e.Gateway.SetProfile(nil)
			},
			want:  map[string]Result{connectionAndProfile: Fail, baseContext: skippedCheck, readUsers: skippedCheck, readGroups: skippedCheck, unreadableObjects: skippedCheck, readPermissions: skippedCheck, counts: skippedCheck},
			check: connectionAndProfile, op: "read profile", remedy: []string{"qualys.profileUuid"}, class: fault.Refused,
		},
		"neither connection nor profile in the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(nil)
				e.Gateway.SetConnection(nil)
				e.Gateway.SetProfile(nil)
			},
			want: skippedFrom(map[string]Result{connectionAndProfile: Fail}, connect, counts), check: connectionAndProfile,
			op: "read connection", found: []string{"read connection ", "; read profile "}, remedy: []string{"qualys.connectionUuid", "qualys.customerUuid", "; ", "qualys.profileUuid"}, class: fault.Refused,
		},
		"unknown scope in the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(func(_ *gatewayserver.Connection, p *gateway.Profile) { p.SearchScope = "FOREST" })
			},
			want:  map[string]Result{connectionAndProfile: Fail, baseContext: skippedCheck, readUsers: skippedCheck, readGroups: skippedCheck, unreadableObjects: skippedCheck, readPermissions: skippedCheck, counts: skippedCheck},
			check: connectionAndProfile, found: []string{`search scope "FOREST"`}, remedy: []string{"SUBTREE, ONE_LEVEL or BASE"}, class: fault.Refused,
		},
		"host with a scheme in the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(func(c *gatewayserver.Connection, _ *gateway.Profile) {
					c.Authentication.Host = "ldap://" + c.Authentication.Host
				})
			},
			want:  skippedFrom(map[string]Result{connectionAndProfile: Fail}, connect, counts),
			check: connectionAndProfile, found: []string{"connection in the console: host "}, remedy: []string{"without a scheme"}, class: fault.Refused,
		},
		"mistakes in the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(func(_ *gatewayserver.Connection, p *gateway.Profile) { p.BaseContext += " " })
			},
			want:  map[string]Result{connectionAndProfile: Warn},
			check: connectionAndProfile, found: []string{"base context of the profile in the console: ends with a space"}, remedy: []string{"base context", "remove the space"},
		},
		"posture": {
			change: func(_ *testing.T, e *environment) {
				e.console(func(_ *gatewayserver.Connection, p *gateway.Profile) { p.Assets = "Identity with security posture" })
			},
			check: connectionAndProfile, found: []string{"security posture"},
		},
	})
}

func TestSchedule(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"no cron expression": {
			change: func(_ *testing.T, e *environment) { e.options.Schedule = nil },
			want:   map[string]Result{scheduleCheck: Warn}, check: scheduleCheck, remedy: []string{"service.cron-expression"},
		},
		"above the rate limit": {
			change: func(_ *testing.T, e *environment) { e.Gateway.SetFront(rateLimit("20", "3600")) },
			want:   map[string]Result{scheduleCheck: Warn}, check: scheduleCheck, found: []string{"20 requests in 1h0m0s", "at least 5"}, remedy: []string{"service.cron-expression"},
		},
		"below the rate limit": {
			change: func(_ *testing.T, e *environment) { e.Gateway.SetFront(rateLimit("300", "3600")) },
			check:  scheduleCheck, found: []string{"300 requests in 1h0m0s"},
		},
		"next runs": {
			change: func(t *testing.T, e *environment) {
				e.options.Schedule = mustParse(t, "CRON_TZ=Europe/Berlin 0 6 * * MON")
				e.options.now = func() time.Time { return time.Date(2026, 11, 27, 13, 0, 0, 0, time.UTC) }
				e.directoryNow = e.options.now
			},
			check: scheduleCheck,
			found: []string{"next runs: Mon 2026-11-30 06:00:00 CET (in 3 days), Mon 2026-12-07 06:00:00 CET (in 10 days), Mon 2026-12-14"},
		},
		"every second of some minutes": {
			change: func(t *testing.T, e *environment) { e.options.Schedule = mustParse(t, "* 0/10 * * * *") },
			want:   map[string]Result{scheduleCheck: Warn}, check: scheduleCheck, found: []string{"next runs: ", "every second"}, remedy: []string{"0 0/10 * * * *"},
		},
		"weekday of Quartz, and above the rate limit": {
			change: func(t *testing.T, e *environment) {
				e.options.Schedule = mustParse(t, "0 * * ? * 2-6")
				e.options.now = func() time.Time { return time.Date(2026, 11, 27, 13, 0, 0, 0, time.UTC) }
				e.directoryNow = e.options.now
				e.Gateway.SetFront(rateLimit("20", "3600"))
			},
			want: map[string]Result{scheduleCheck: Warn}, check: scheduleCheck,
			found: []string{"TUE-SAT", "MON-FRI in Quartz", "20 requests"}, remedy: []string{"0 * * ? * MON-FRI", "fewer runs"},
		},
	})
}

func mustParse(t *testing.T, expr string) *schedule.Schedule {
	t.Helper()
	s, err := schedule.Parse(expr)
	must(t, err)
	return s
}

func TestReach(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"no directory": {
			change: func(t *testing.T, e *environment) { e.options.Source.Directory.Port = ports.Refusing(t) },
			want:   skippedFrom(map[string]Result{connect: Fail}, tlsCheck, counts), check: connect, class: fault.Transient,
			op: "connect", cause: syscall.ECONNREFUSED, remedy: []string{"open TCP port ", " to 127.0.0.1 ", "ldap.host and ldap.port"},
		},
		"no directory, from the console": {
			change: func(t *testing.T, e *environment) {
				e.console(func(c *gatewayserver.Connection, _ *gateway.Profile) { c.Authentication.Port = ports.Refusing(t) })
			},
			want: skippedFrom(map[string]Result{connect: Fail}, tlsCheck, counts), check: connect, remedy: []string{"host and port in the console"}, class: fault.Transient,
		},
		"one of two servers": {
			change: func(_ *testing.T, e *environment) {
				e.options.Source.Directory.Hosts = []string{"127.0.0.2", "127.0.0.1"}
			},
			want: map[string]Result{connect: Warn}, check: connect,
			found: []string{"127.0.0.1:", "127.0.0.2:"}, remedy: []string{"open TCP port ", " to 127.0.0.2 "},
		},
		"unknown host": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Directory.Hosts = []string{"dc1.invalid"} },
			want:   skippedFrom(map[string]Result{connect: Fail}, tlsCheck, counts), check: connect, op: "connect", found: []string{"dc1.invalid"}, remedy: []string{"ldap.host", "DNS"}, class: fault.Transient,
		},
	})
}

func TestTLS(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"plain LDAP": {
			change: func(_ *testing.T, e *environment) {
				e.options.Source.Directory.Protocol, e.options.Source.Directory.Port = directory.LDAP, e.Port
			},
			want: map[string]Result{tlsCheck: Warn}, check: tlsCheck, remedy: []string{"LDAPS (port 636) or STARTTLS", "ldap.protocol", "ldap.certificate"},
		},
		"plain LDAP, from the console": {
			change: func(_ *testing.T, e *environment) {
				e.console(func(c *gatewayserver.Connection, _ *gateway.Profile) {
					c.Authentication.Type, c.Authentication.Port = "LDAP", e.Port
				})
			},
			want: map[string]Result{tlsCheck: Warn}, check: tlsCheck, remedy: []string{"connection's type in the console"},
		},
		"unknown certificate issuer": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Directory.Certificates = nil },
			want:   skippedFrom(map[string]Result{tlsCheck: Fail}, bind, counts), check: tlsCheck, found: []string{"dc1.corp.example.com"}, remedy: []string{"ldap.certificate"}, class: fault.Refused,
		},
		"LDAPS to the LDAP port": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Directory.Port = e.Port },
			want:   skippedFrom(map[string]Result{tlsCheck: Fail}, bind, counts), check: tlsCheck, op: "connect", remedy: []string{"LDAPS", "636", "ldap.port"},
		},
		"certificate about to expire": {
			change: func(_ *testing.T, e *environment) {
				e.options.now = func() time.Time { return e.Directory.Certificate().NotAfter.Add(-10*24*time.Hour - time.Minute) }
				e.directoryNow = e.options.now
			},
			want: map[string]Result{tlsCheck: Warn}, check: tlsCheck, found: []string{"10 days"}, remedy: []string{"renew", "ldap.certificate"},
		},
		"expired certificate, configured": {
			change: func(_ *testing.T, e *environment) { e.options.now = clockAhead(400 * 24 * time.Hour) },
			want:   map[string]Result{tlsCheck: Warn, timeSkew: Warn}, check: tlsCheck, found: []string{"expired on 20"}, remedy: []string{"renew", "ldap.certificate"},
		},
	})
}

func TestBind(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"wrong password": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Directory.Password = secret.New("wrong-password") },
			want:   skippedFrom(map[string]Result{bind: Fail}, domainController, counts), check: bind, op: "bind", found: []string{"49", bindDN}, remedy: []string{"ldap.bindDn", "ldap.password"}, class: fault.Refused,
		},
		"disabled account": {
			change: func(t *testing.T, e *environment) { must(t, e.Directory.Disable(bindDN)) },
			want:   skippedFrom(map[string]Result{bind: Fail}, domainController, counts), check: bind, op: "bind", found: []string{"49", bindDN}, remedy: []string{"enable"}, class: fault.Refused,
		},
	})
}

func TestGlobalCatalog(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"port of the global catalog": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Directory.Port = 3269 },
			want:   skippedFrom(map[string]Result{connect: Fail}, tlsCheck, counts), check: connect, op: "connect", found: []string{"127.0.0.1:3269", "global catalog"}, remedy: []string{"ldap.port", "389", "636"}, class: fault.Refused,
		},
	})
}

func TestFilters(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"computed attribute": {
			change: func(_ *testing.T, e *environment) {
				e.options.Search.UserFilter = "(!(memberOf:1.2.840.113556.1.4.1941:=CN=Domain Guests,CN=Users," + domain + "))"
			},
			want: map[string]Result{filters: Warn}, check: filters, found: []string{"ldap.user-filter", "memberOf"}, remedy: []string{"sync.full-interval"},
		},
		"both": {
			change: func(_ *testing.T, e *environment) {
				e.options.Search.UserFilter, e.options.Search.GroupFilter = "(!(LASTLOGON=1))", "(!(memberof=CN=a))"
			},
			want: map[string]Result{filters: Warn}, check: filters, found: []string{"ldap.user-filter", "LASTLOGON", "ldap.group-filter", "memberof"}, remedy: []string{"sync.full-interval"},
		},
		"filter with an unknown attribute": {
			change: func(_ *testing.T, e *environment) {
				e.options.Search = syncrun.SearchOptions{UserFilter: "(&(Department=Sales)(!(departmnt=Sales))(2.5.4.4=a))", GroupFilter: "(|(nickname=a)(cn=b))"}
			},
			want:  map[string]Result{filters: Warn, readUsers: Warn, readGroups: Warn, counts: Warn},
			check: filters, found: []string{"ldap.user-filter names departmnt; ldap.group-filter names nickname: "}, remedy: []string{"correct the names"},
		},
		"stored attribute": {
			change: func(_ *testing.T, e *environment) { e.options.Search.UserFilter = "(!(title=memberOf))" },
			check:  filters, found: []string{"each run"},
		},
	})
}

// TestDomainController checks the line of the controller that the session uses.
func TestDomainController(t *testing.T) {
	t.Parallel()
	const lds, readOnly = "1.2.840.113556.1.4.1851", "1.2.840.113556.1.4.1920"
	const id = "0123456789abcdef"
	for _, test := range []struct {
		name         string
		capabilities string
		invocationID string
		hosts        []string
		result       Result
		found        []string
		remedy       []string
	}{
		{"one", "", id, []string{"127.0.0.1"}, OK, []string{"dc1.corp.example.com at 127.0.0.1:"}, nil},
		{"one of several", "", id, []string{"127.0.0.1", "127.0.0.1"}, OK, []string{"dc1.corp.example.com at 127.0.0.1:", "one of 2 servers"}, nil},
		{"read-only", readOnly, id, []string{"127.0.0.1"}, Warn, []string{"read-only"}, []string{"writable"}},
		{"LDS", lds, id, []string{"127.0.0.1"}, Warn, []string{"AD LDS"}, []string{"domain controller"}},
		{"invocation ID not readable", "", "", []string{"127.0.0.1"}, Warn, []string{"invocation ID"}, []string{fakeldap.DC1.ServiceName}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dc := fakeldap.DC1
			dc.InvocationID = test.invocationID
			dc.RootDSE = [][]string{{"supportedCapabilities", test.capabilities}}
			server := fakeldap.Serve(t, nil, dc.Script(nil))
			e := newEnvironment(t, func(e *environment) {
				e.options.Source.Directory = directory.Options{Hosts: test.hosts, Port: server.Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password)}
			})
			got := e.runChecks(t.Context(), t).find(domainController)
			if got.Result != test.result {
				t.Errorf("%+v", got)
			}
			requireContains(t, got.Found, test.found...)
			requireContains(t, got.Remedy, test.remedy...)
		})
	}
}

// TestReadOnlyController checks that a read-only domain controller that lacks source attributes
// is a failure, because a run refuses it.
func TestReadOnlyController(t *testing.T) {
	t.Parallel()
	dc := fakeldap.DC1
	dc.InvocationID = "0123456789abcdef"
	dc.RootDSE = [][]string{{"supportedCapabilities", "1.2.840.113556.1.4.1920"}, {"configurationNamingContext", "CN=Configuration," + domain}}
	server := fakeldap.Serve(t, nil, dc.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if !strings.Contains(r.Filter, "attributeSchema") {
			return p.Send(fakeldap.Done(r.ID, 0))
		}
		return fakeldap.Pages([]fakeldap.RawEntry{fakeldap.NewEntry("CN=Mobile,"+r.Base, []string{"lDAPDisplayName", "mobile"})})(p, r)
	}))
	e := newEnvironment(t, func(e *environment) {
		e.options.Source.Directory = directory.Options{Hosts: []string{"127.0.0.1"}, Port: server.Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password)}
	})
	got := e.runChecks(t.Context(), t).find(domainController)
	if got.Result != Fail || fault.ClassOf(got.err) != fault.Refused {
		t.Errorf("%+v", got)
	}
	requireContains(t, got.Found, "mobile")
	requireContains(t, got.Remedy, "writable")
}

// TestSearchGroups checks that of the groups of the account only the administrative ones are kept: a
// server could return others without end.
func TestSearchGroups(t *testing.T) {
	t.Parallel()
	authority := ad.SID("\x01\x00\x00\x00\x00\x00\x00\x05")
	domainSID := authority.Child(21).Child(1).Child(2).Child(3)
	group := func(sid ad.SID) fakeldap.RawEntry {
		return fakeldap.NewEntry("CN="+sid.String()+","+domain, []string{"objectSid", string(sid)})
	}
	server := fakeldap.Serve(t, nil, fakeldap.DC1.Script(fakeldap.Pages([]fakeldap.RawEntry{
		group(domainSID.Child(1106)), group(domainSID.Child(512)), group(authority.Child(32).Child(545)),
	})))
	session, err := directory.Connect(t.Context(), directory.Options{Hosts: []string{server.Host}, Port: server.Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password)})
	must(t, err)
	defer session.Close()
	p := &preflight{session: session, bound: bindAccount{dn: fakeldap.BindDN, sid: domainSID.Child(1105)}}
	sids, err := p.searchGroups(t.Context())
	if err != nil || len(sids) != 1 || sids[0].String() != "S-1-5-21-1-2-3-512" {
		t.Errorf("groups %v, error %v", sids, err)
	}
}

func TestBindAccount(t *testing.T) {
	admins := "CN=Domain Admins,CN=Users," + domain
	testChecks(t, map[string]checkCase{
		"administrator by nested group": {
			change: func(t *testing.T, e *environment) {
				group := "CN=Operators,CN=Users," + domain
				must(t, e.Directory.Add(domaincontroller.Object{DN: group, Attributes: map[string][]string{"objectClass": {"group"}, "member": {bindDN}}}))
				must(t, e.Directory.Modify(admins, "member", group))
			},
			want: map[string]Result{account: Warn}, check: account, found: []string{"svc-qualys@corp.example.com", "Domain Admins", "Administrators"}, remedy: []string{"plain domain user"},
		},
		"administrator by primary group": {
			change: func(t *testing.T, e *environment) { must(t, e.Directory.Modify(bindDN, "primaryGroupID", "512")) },
			want:   map[string]Result{account: Warn}, check: account, found: []string{"Domain Admins, Administrators"},
		},
		"password about to expire": {
			change: func(t *testing.T, e *environment) {
				must(t, e.Directory.Modify(bindDN, "userAccountControl", "512")) // the domain's maximum password age is 42 days
				e.options.now = clockAhead(37 * 24 * time.Hour)
			},
			want: map[string]Result{account: Warn, timeSkew: Warn}, check: account, found: []string{"svc-qualys@corp.example.com", "expires in "}, remedy: []string{"ldap.password"},
		},
		"password expires within 30 days": {
			change: func(t *testing.T, e *environment) {
				must(t, e.Directory.Modify(bindDN, "userAccountControl", "512"))
				e.options.now = clockAhead(20 * 24 * time.Hour)
			},
			want: map[string]Result{timeSkew: Warn}, check: account, found: []string{"expires in 2", "not an administrator"},
		},
		"password expires later": {
			change: func(t *testing.T, e *environment) { must(t, e.Directory.Modify(bindDN, "userAccountControl", "512")) },
			check:  account, found: []string{"expires on 20"},
		},
		"bound as DOMAIN\\name": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Directory.BindDN = `CORP\svc-qualys` },
			check:  account, found: []string{"svc-qualys@corp.example.com"},
		},
		"bound as name@domain": {
			change: func(t *testing.T, e *environment) {
				e.options.Source.Directory.BindDN = "svc-qualys@corp.example.com"
				must(t, e.Directory.Modify(bindDN, "primaryGroupID", "512"))
			},
			want: map[string]Result{account: Warn}, check: account, found: []string{"Domain Admins"},
		},
	})
}

func TestBaseContext(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"base context does not exist": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Base = "OU=Nowhere," + domain },
			want:   map[string]Result{baseContext: Fail, readUsers: skippedCheck, readGroups: skippedCheck, unreadableObjects: skippedCheck, counts: skippedCheck},
			check:  baseContext, op: "read", cause: directory.ErrNoSuchObject, found: []string{"OU=Nowhere", domain}, remedy: []string{"profile.baseContext"}, class: fault.Refused,
		},
		"base context, gateway refuses the login": {
			change: func(_ *testing.T, e *environment) {
				e.options.Source.Base = "OU=Nowhere," + domain
				e.client.Login.Password = secret.New("wrong-password")
			},
			want:  map[string]Result{gatewayLogin: Fail, baseContext: Fail, readUsers: skippedCheck, readGroups: skippedCheck, unreadableObjects: skippedCheck, counts: skippedCheck},
			check: baseContext, cause: directory.ErrNoSuchObject, found: []string{"OU=Nowhere"}, class: fault.Refused,
		},
		"base context of another domain": {
			change: func(_ *testing.T, e *environment) { e.options.Source.Base = "DC=elsewhere,DC=example,DC=com" },
			want:   map[string]Result{baseContext: Fail, readUsers: skippedCheck, readGroups: skippedCheck, unreadableObjects: skippedCheck, counts: skippedCheck},
			check:  baseContext, cause: directory.ErrOtherDomain, remedy: []string{"profile.baseContext", domain, "domain controller of its domain"}, class: fault.Refused,
		},
		"nothing to read": {
			change: func(t *testing.T, e *environment) {
				e.options.Source.Base = "OU=Empty," + domain
				must(t, e.Directory.Add(domaincontroller.Object{DN: e.options.Source.Base, Attributes: map[string][]string{"objectClass": {"organizationalUnit"}}}))
			},
			want: map[string]Result{readUsers: Warn, readGroups: Warn, counts: Warn}, check: readUsers,
			found: []string{"OU=Empty"}, remedy: []string{`dsacls "OU=Empty,` + domain + `" /I:T /G "svc-qualys@corp.example.com:LCRP"`},
		},
		"filter without matches": {
			change: func(_ *testing.T, e *environment) { e.options.Search.GroupFilter = "(description=nothing of the kind)" },
			want:   map[string]Result{readGroups: Warn}, check: readGroups, remedy: []string{"profile.baseContext, profile.searchScope and ldap.group-filter"},
		},
	})
}

func TestVisibleObjects(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"tombstones not readable": {
			change: func(t *testing.T, e *environment) {
				must(t, e.Directory.Add(domaincontroller.Object{DN: "CN=Plain,CN=Users," + domain, Attributes: map[string][]string{"objectClass": {"user"}, "sAMAccountName": {"plain"}}}))
				must(t, e.Directory.SetPassword("CN=Plain,CN=Users,"+domain, e.Password))
				e.options.Source.Directory.BindDN = "CN=Plain,CN=Users," + domain
			},
			want: map[string]Result{readDeleted: Warn}, check: readDeleted, remedy: []string{
				`dsacls "CN=Deleted Objects,` + domain + `" /takeOwnership`, `dsacls "CN=Deleted Objects,` + domain + `" /I:T /G "plain@corp.example.com:LCRP"`,
			},
		},
		"page size above the limit": {
			change: func(_ *testing.T, e *environment) { e.options.Search.PageSize = 5000 },
			want:   map[string]Result{pageSize: Warn}, check: pageSize, found: []string{"5000", "1000"}, remedy: []string{"set ldap.page-size to 1000"},
		},
		"counting exceeds the timeout": {
			change: func(_ *testing.T, e *environment) { e.options.countTimeout = time.Nanosecond },
			want:   map[string]Result{readUsers: Warn, readGroups: Warn, unreadableObjects: Warn, counts: Warn}, check: counts, found: []string{"more than 0 users and more than 0 groups", "1ns"},
		},
	})
}

func TestTimeSkew(t *testing.T) {
	testChecks(t, map[string]checkCase{
		"clock of this host": {
			change: func(_ *testing.T, e *environment) {
				e.directoryNow = clockAhead(5 * time.Minute)
				e.Gateway.SetFront(gatewayClockAhead(5 * time.Minute))
			},
			want: map[string]Result{timeSkew: Warn}, check: timeSkew, found: []string{"the directory's clock is ", "the gateway's clock is ", " ahead"}, remedy: []string{"the clock of this host"},
		},
		"the directory's clock": {
			change: func(_ *testing.T, e *environment) { e.directoryNow = clockAhead(-3 * time.Minute) },
			want:   map[string]Result{timeSkew: Warn}, check: timeSkew, found: []string{"the directory's clock is 3m", " behind, the gateway's clock agrees"}, remedy: []string{"set the directory's clock"},
		},
		"the gateway's clock": {
			change: func(_ *testing.T, e *environment) { e.Gateway.SetFront(gatewayClockAhead(2 * time.Minute)) },
			want:   map[string]Result{timeSkew: Warn}, check: timeSkew, found: []string{"the gateway's clock is "}, remedy: []string{"set the gateway's clock"},
		},
	})
}

// rateLimit lets the gateway send a rate limit.
func rateLimit(calls, window string) testenv.Front {
	return func(x *testenv.Exchange) bool {
		x.W.Header().Set("X-RateLimit-Limit", calls)
		x.W.Header().Set("X-RateLimit-Window-Sec", window)
		return false
	}
}

// gatewayClockAhead lets the gateway send a clock that is ahead.
func gatewayClockAhead(ahead time.Duration) testenv.Front {
	return func(x *testenv.Exchange) bool {
		x.W.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		return false
	}
}

// skippedAfter returns a failure of the first check, after which all others are skipped.
func skippedAfter(failed string) map[string]Result {
	return skippedFrom(map[string]Result{failed: Fail}, checks[1].name, timeSkew)
}

// skippedFrom adds the checks from one to another as skipped.
func skippedFrom(want map[string]Result, from, to string) map[string]Result {
	within := false
	for _, check := range checks {
		within = within || check.name == from
		if _, known := want[check.name]; within && !known {
			want[check.name] = skippedCheck
		}
		within = within && check.name != to
	}
	return want
}

// TestRights uses a server that returns what an account with few rights can read.
func TestRights(t *testing.T) {
	t.Parallel()
	withoutID := func(e fakeldap.Entry) fakeldap.Entry {
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
		check  string
		result Result
		found  []string
		remedy []string
		cause  error
	}{
		"all can be read": {func(*fakeldap.Server) {}, readUsers, OK, []string{"25"}, nil, nil},
		"counts":          {func(*fakeldap.Server) {}, counts, OK, []string{"25 users and 3 groups"}, nil, nil},
		"some without a SID": {func(s *fakeldap.Server) { s.Users[3], s.Users[24] = withoutID(s.Users[3]), withoutID(s.Users[24]) },
			readUsers, Warn, []string{"2 of 25", "objectSid or objectGUID"}, []string{"ldap.user-filter"}, nil},
		"all without a SID": {func(s *fakeldap.Server) { s.Users = without("objectSid", s.Users) },
			readUsers, Fail, []string{"25 users"}, []string{`dsacls "` + domain + `" /I:T /G`}, errWithoutID},
		"no userAccountControl": {func(s *fakeldap.Server) { s.Users = without("userAccountControl", s.Users) },
			readUsers, Fail, []string{"userAccountControl of all users"}, []string{`dsacls "` + domain + `" /I:T /G`}, errNotShown},
		"no groupType": {func(s *fakeldap.Server) { s.Groups = without("groupType", s.Groups) },
			readGroups, Fail, []string{"groupType of all groups"}, []string{`dsacls "` + domain + `" /I:T /G`}, errNotShown},
		"no readable extended DN": {func(s *fakeldap.Server) { s.Users[3] = withoutID(s.Users[3]) },
			readUsers, Warn, []string{"not readable: objectSid of 1 of 25 users", "no extended DNs", "undecided"}, nil, nil},
		"some values missing": {func(s *fakeldap.Server) { without("pwdLastSet", s.Users[:7]) },
			readUsers, Warn, []string{"not readable: pwdLastSet of 7 of 25 users"}, []string{`dsacls "` + domain + `" /I:T /G`}, nil},
		"no user shows a value": {func(s *fakeldap.Server) { without("mail", without("title", s.Users)) },
			readUsers, Warn, []string{"none of 25 users shows mail, title"}, []string{`dsacls "` + domain + `" /I:T /G`}, nil},
		"no user of a few shows a value": {func(s *fakeldap.Server) { s.Users = without("mail", s.Users[:minObjects]) },
			readUsers, OK, []string{"20"}, nil, nil},
		"connection lost": {func(s *fakeldap.Server) { s.BeforeEntry = func(n int) bool { return n < 5 } },
			readUsers, Fail, nil, []string{"the server's log"}, nil},
		"not a domain controller": {func(s *fakeldap.Server) { s.PlainLDAP = true },
			readDeleted, Warn, nil, []string{"domain controller"}, nil},
		"unknown page limit": {func(s *fakeldap.Server) { s.PlainLDAP = true },
			pageSize, OK, []string{"1000"}, nil, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := fakeldap.Start(t)
			server.Users, server.Groups = fakeldap.Users(25), fakeldap.Groups(3)
			for _, user := range server.Users {
				for _, name := range identity.OptionalAttributes(identity.User) {
					user.Attributes[name] = cmp.Or(user.Attributes[name], "1")
				}
			}
			c.change(server)
			e := newEnvironment(t, func(e *environment) {
				e.options.Source.Directory = directory.Options{Hosts: []string{"127.0.0.1"}, Port: server.Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password)}
				e.options.Source.Base = fakeldap.Base
			})
			got := e.runChecks(t.Context(), t).find(c.check)
			if got.Result != c.result || c.cause != nil && !errors.Is(got.err, c.cause) {
				t.Errorf("%+v", got)
			}
			requireContains(t, got.Found, c.found...)
			requireContains(t, got.Remedy, c.remedy...)
		})
	}
}

// TestNoGateway uses fake time, because the client retries a login after seconds.
func TestNoGateway(t *testing.T) {
	e := newEnvironment(t, nil)
	e.client.URL = parse(t, fmt.Sprintf("http://127.0.0.1:%d", ports.Refusing(t)))
	synctest.Test(t, func(t *testing.T) {
		e.options.Gateway, e.options.GatewayAddress = gateway.New(e.client), e.client.URL.Host
		p := &preflight{Options: e.options}
		got := p.runCheck(t.Context(), (*preflight).login)
		if got.Result != Fail || fault.ClassOf(got.err) != fault.Transient || !errors.Is(got.err, syscall.ECONNREFUSED) {
			t.Errorf("%+v, class %s", got, fault.ClassOf(got.err))
		}
		requireContains(t, got.Remedy, "open TCP port ", " to 127.0.0.1 ", "proxy.enabled, proxy.host and proxy.port", "connector.api.url")
	})
}

// TestInterrupted tests that an interrupt skips the remaining checks.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := newEnvironment(t, func(e *environment) {
		e.Gateway.SetFront(func(*testenv.Exchange) bool {
			cancel()
			return false
		})
	})
	report := e.runChecks(ctx, t)
	if c := report.find(timeSkew); c.Found != "skipped: interrupted" {
		t.Errorf("%+v", c)
	}
	if e.Directory.Counters().Binds != 0 {
		t.Error("bind after the interrupt")
	}
}

// TestTimeout tests that an interrupted check is skipped, and that the error of a slow check has
// the timeout instead of the context's error.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		login := fault.Operation{Op: "log in to", Object: "gateway"}
		wait := func(_ *preflight, ctx context.Context) Check {
			<-ctx.Done()
			return failed(asTransient(ctx, login.Failed(fault.Canceled, ctx.Err(), "check connector.api.url")), "")
		}
		p := &preflight{}
		c := p.runCheck(t.Context(), wait)
		faulttest.Check(t, c.err, fault.Error{Class: fault.Transient, Op: login.Op, Object: login.Object}, context.DeadlineExceeded, "connector.api.url")
		if timeout := new(timeoutError); c.Result != Fail || !errors.As(c.err, timeout) || strings.Contains(c.Found, context.DeadlineExceeded.Error()) || !strings.Contains(c.Found, checkTimeout.String()) {
			t.Errorf("%+v", c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if c := p.runCheck(ctx, wait); c.Result != Warn || c.Found != skipped("interrupted").Found || c.Remedy != "" {
			t.Errorf("%+v", c)
		}
	})
}

// TestFailed tests that finding and remedy come from the error, whatever text it quotes.
func TestFailed(t *testing.T) {
	const quoted = `403, "no access: check the account; set another one": connect to a domain`
	operation := fault.Operation{Op: "read connection", Object: "a: use b"}
	for name, c := range map[string]struct {
		err           error
		defaultRemedy string
		remedy        string
	}{
		"own remedy":          {operation.Failed(fault.Refused, errors.New(quoted), "check qualys.connectionUuid"), "otherwise", "check qualys.connectionUuid"},
		"remedy of the cause": {operation.Failed(fault.Refused, operation.Failed(fault.Refused, errors.New(quoted), "of the cause"), ""), "otherwise", "of the cause"},
		"no remedy":           {operation.Failed(fault.Refused, errors.New(quoted), ""), "otherwise", "otherwise"},
		"other error type":    {errors.New(quoted), "otherwise", "otherwise"},
		"remedy with a colon": {operation.Failed(fault.Refused, errors.New(quoted), `grant it: dsacls "DC=x": check`), "otherwise", `grant it: dsacls "DC=x": check`},
	} {
		t.Run(name, func(t *testing.T) {
			want := Check{Result: Fail, Found: c.err.Error(), Remedy: c.remedy, err: c.err}
			if got := failed(c.err, c.defaultRemedy); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got := failedWithRemedy(c.err, "better"); got.Found != want.Found || got.Remedy != "better" {
				t.Errorf("got %+v", got)
			}
			encoded, err := json.Marshal(failed(c.err, c.defaultRemedy))
			must(t, err)
			var decoded struct{ Found, Remedy string }
			must(t, json.Unmarshal(encoded, &decoded))
			if decoded.Found != want.Found || decoded.Remedy != want.Remedy {
				t.Errorf("encoded %s", encoded)
			}
		})
	}
}

func TestMaxPageSize(t *testing.T) {
	policy := func(values ...string) (all [][]byte) {
		for _, v := range values {
			all = append(all, []byte(v))
		}
		return all
	}
	if n, ok := maxPageSize(policy("MaxReceiveBuffer=10485760", "maxpagesize=5000")); n != 5000 || !ok {
		t.Errorf("%d, %t", n, ok)
	}
	if _, ok := maxPageSize(policy("MaxPageSize=many", "MaxPageSizes=3")); ok {
		t.Error("value found")
	}
}
