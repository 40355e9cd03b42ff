package config

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/input"
	"adconnector/internal/syncrun"
	"adconnector/internal/upload"
	"adconnector/test/faulttest"
)

// complete is a configuration without faults. All secrets in these tests contain hush.
var complete = []string{
	"connector.api.url=https://gateway.example.com/",
	"qualys.customerUuid=35664649-0001-4002-8003-0E54079E1EE9",
	"qualys.connectionUuid=6ec6ac85-0001-4002-8003-558f378caa2b",
	"qualys.profileUuid=a4ab0242-0001-4002-8003-f62c67a56093",
	"qualys.user.username=quays_rb",
	"qualys.user.password=hush",
	"service.cron-expression=*/10 * * * *",
}

var oauth = []string{"authentication.type=oauth", "oauth.client.id=b49fe503", "oauth.client.secret=hush"}

var directorySettings = []string{"ldap.host=dc1", "ldap.bindDn=CN=svc,DC=corp", "ldap.password=hush", "profile.baseContext=DC=corp"}

var proxySettings = []string{"proxy.enabled=true", "proxy.host=proxy.example.com", "proxy.port=3128"}

// with replaces or adds settings; "key=" removes one.
func with(base []string, changes ...string) []string {
	all := slices.Clone(base)
	for _, change := range changes {
		key, _, _ := strings.Cut(change, "=")
		all = slices.DeleteFunc(all, func(pair string) bool { return strings.HasPrefix(pair, key+"=") })
		all = append(all, change)
	}
	return all
}

func load(environ []string, files ...string) (*Config, error) {
	return Load(Source{Scheduled: true, Environ: environ, EnvFiles: files})
}

func requireLoad(t *testing.T, environ []string, files ...string) *Config {
	t.Helper()
	c, err := load(environ, files...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := requireLoad(t, complete)
	if got := c.Gateway.URL.String(); got != "https://gateway.example.com" {
		t.Errorf("URL %s", got)
	}
	if got := c.Gateway.CustomerUUID; got != "35664649-0001-4002-8003-0e54079e1ee9" {
		t.Errorf("customer %s", got)
	}
	if g := c.Gateway; g.Source != "Microsoft Active Directory" || g.Paths != (gateway.Paths{}) || g.Proxy != nil || g.RootCAs != nil ||
		g.Connections != 10 || g.Grace != 22500*time.Millisecond {
		t.Errorf("gateway %+v", g)
	}
	if l := c.Gateway.Login; l.Username != "quays_rb" || l.Password.Reveal() != "hush" || l.ClientID != "" || !l.ClientSecret.IsZero() {
		t.Errorf("login %+v", l)
	}
	want := syncrun.Options{
		Target:       "https://gateway.example.com 35664649-0001-4002-8003-0e54079e1ee9 6ec6ac85-0001-4002-8003-558f378caa2b",
		Profile:      "a4ab0242-0001-4002-8003-f62c67a56093",
		Search:       syncrun.SearchOptions{PageSize: 1000},
		Upload:       upload.Options{Workers: 10, BatchSize: 500, BatchBytes: 1048576},
		Guard:        syncrun.Guard{MaxDeletes: 500, MaxDeletesPercent: 10},
		LastLogon:    syncrun.LastLogonReplicated,
		FullInterval: 24 * time.Hour,
		EndTimeout:   5 * time.Second,
	}
	if !reflect.DeepEqual(c.Run, want) {
		t.Errorf("run %+v", c.Run)
	}
	if want := (Service{c.Service.Schedule, "/var/lib/adconnector", true, 30 * time.Second, "127.0.0.1:8080", nil}); !reflect.DeepEqual(c.Service, want) || c.Service.Schedule.Expression != "*/10 * * * *" {
		t.Errorf("service %+v", c.Service)
	}
	if want := (Log{Level: "info"}); c.Log != want {
		t.Errorf("log %+v", c.Log)
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	source := requireLoad(t, with(complete, directorySettings...)).Run.Source
	want := &syncrun.Source{
		Directory: directory.Options{Protocol: directory.LDAP, Hosts: []string{"dc1"}, BindDN: "CN=svc,DC=corp", Password: source.Directory.Password},
		Base:      "DC=corp", Scope: directory.Subtree,
	}
	if !reflect.DeepEqual(source, want) || source.Directory.Password.Reveal() != "hush" {
		t.Errorf("got %+v", *source)
	}

	c := requireLoad(t, with(with(complete, directorySettings...), "ldap.host= dc1.corp.example.com, 10.0.0.5,[fd00::1] ,fd00::2", "ldap.protocol=start tls",
		"ldap.port= 10389", "profile.searchScope=One-Level", "profile.assets=Identities with Security-posture", "ldap.server-name=dc.example.com",
		"ldap.user-filter=(&(department=Sales)(!(title=a\\28b)))", "ldap.group-filter=(cn=g)", "ldap.page-size=10"))
	source = c.Run.Source
	if d := source.Directory; !slices.Equal(d.Hosts, []string{"dc1.corp.example.com", "10.0.0.5", "fd00::1", "fd00::2"}) || d.Protocol != directory.StartTLS || d.Port != 10389 ||
		source.Scope != directory.OneLevel || !source.Posture {
		t.Errorf("got %+v", *source)
	}
	search := syncrun.SearchOptions{ServerName: "dc.example.com", UserFilter: `(&(department=Sales)(!(title=a\28b)))`, GroupFilter: "(cn=g)", PageSize: 10}
	if !reflect.DeepEqual(c.Run.Search, search) {
		t.Errorf("got %+v", c.Run.Search)
	}
}

func TestSync(t *testing.T) {
	t.Parallel()
	run := requireLoad(t, with(complete, "SYNC_FULL_INTERVAL=720h", "sync.max-deletes=0", "SYNC_MAX_DELETES_PERCENT=0")).Run
	if run.FullInterval != 720*time.Hour || run.Guard != (syncrun.Guard{}) { // 0 is not the default
		t.Errorf("got %+v", run)
	}
}

// TestGrace tests that the requests in flight and the end of a run are within the grace.
func TestGrace(t *testing.T) {
	t.Parallel()
	for grace, want := range map[string][2]time.Duration{
		"1s":  {750 * time.Millisecond, time.Second / 6},
		"12s": {9 * time.Second, 2 * time.Second},
		"1h":  {45 * time.Minute, 5 * time.Second},
	} {
		c := requireLoad(t, with(complete, "service.shutdown-grace="+grace))
		if got := [2]time.Duration{c.Gateway.Grace, c.Run.EndTimeout}; got != want {
			t.Errorf("%s: got %v, want %v", grace, got, want)
		}
	}
}

// TestAdminAddress includes an empty value, which has a meaning for this key only.
func TestAdminAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ setting, want string }{
		{"service.admin.address=", ""},
		{"SERVICE_ADMIN_ADDRESS=", ""},
		{"service.admin.address=Off", ""},
		{"service.admin.address=:9090", ":9090"},
		{"service.admin.address=[::1]:0", "[::1]:0"},
	} {
		if got := requireLoad(t, with(complete, c.setting)).Service.AdminAddress; got != c.want {
			t.Errorf("%s: %q", c.setting, got)
		}
	}
	_, err := load(with(complete, "service.admin.address=", "SERVICE_ADMIN_ADDRESS=:9090"))
	checkFaults(t, err, wantFault{"service.admin.address (environment) and SERVICE_ADMIN_ADDRESS (environment)", errDuplicate, "one of them"})
	for _, wrong := range []string{"8080", "localhost", "127.0.0.1:65536", "127.0.0.1:http", "127.0.0.1.5:8080", "http://localhost:8080"} {
		_, err := load(with(complete, "service.admin.address="+wrong))
		checkFaults(t, err, wantFault{"service.admin.address (environment)", errNotAllowed, "host:port like 127.0.0.1:8080, or empty"})
	}
}

// TestAdminHosts tests the names under which the admin endpoint answers.
func TestAdminHosts(t *testing.T) {
	t.Parallel()
	got := requireLoad(t, with(complete, "service.admin.allowed-hosts=connector, ad.identity.svc.,under_score")).Service.AdminHosts
	if want := []string{"connector", "ad.identity.svc", "under_score"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for wrong, cause := range map[string]error{
		"connector:8080": input.ErrHostPort, "http://connector": input.ErrHostScheme, "*": input.ErrNotHost, "a,,b": input.ErrNotHost, "a;b": input.ErrSemicolon,
	} {
		_, err := load(with(complete, "service.admin.allowed-hosts="+wrong))
		checkFaults(t, err, wantFault{"service.admin.allowed-hosts (environment)", cause, "separated by commas"})
	}
}

// TestNoSchedule tests that only the daemon requires a cron expression.
func TestNoSchedule(t *testing.T) {
	t.Parallel()
	c, err := Load(Source{Environ: with(complete, "service.cron-expression=")})
	if err != nil || c.Service.Schedule != nil {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		environ []string
		want    string
	}{
		{"user name set", complete, "BASIC"},
		{"both set", with(complete, oauth[1:]...), "BASIC"},
		{"both set, OAUTH chosen", with(complete, oauth...), "OAUTH"},
		{"client ID set", with(complete, append(oauth[1:], "qualys.user.username=")...), "OAUTH"},
		{"unused credentials are not validated", with(complete, "authentication.type=Basic", "oauth.client.id=<OAUTH_CLIENT_ID>", "oauth.token.url=<OAUTH_TOKEN_URL>"), "BASIC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := requireLoad(t, c.environ).Gateway.Login
			if isBasic := got.Username != "" && got.ClientID == ""; isBasic != (c.want == "BASIC") {
				t.Errorf("got %+v", got)
			}
		})
	}
	if paths := requireLoad(t, with(complete, "gateway.path.assets=/assets")).Gateway.Paths; paths != (gateway.Paths{Assets: "/assets"}) {
		t.Errorf("paths %+v", paths)
	}
	l := requireLoad(t, with(complete, append(oauth, "oauth.token.url=http://[::1]:8080/token?p=1", "QUALYS_OAUTHCLIENTLEVEL=subscription")...)).Gateway.Login
	if l.ClientID != "b49fe503" || l.ClientSecret.Reveal() != "hush" || l.TokenURL.String() != "http://[::1]:8080/token?p=1" || !l.Subscription || l.Username != "" {
		t.Errorf("got %+v", l)
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	p := requireLoad(t, with(complete, proxySettings...)).Gateway.Proxy
	if want := (gateway.Proxy{Scheme: "http", Host: "proxy.example.com", Port: 3128}); *p != want {
		t.Errorf("got %+v", *p)
	}
	p = requireLoad(t, with(complete, append(proxySettings, "SERVICE_HTTP_PROXY_SCHEME=HTTPS", "proxy.username=u", "PROXY_PASSWORD=hush")...)).Gateway.Proxy
	if p.Scheme != "https" || p.Username != "u" || p.Password.Reveal() != "hush" {
		t.Errorf("got %+v", *p)
	}
	if p := requireLoad(t, with(complete, "proxy.enabled=false", "proxy.host=<PROXY_HOST>", "proxy.port=<PROXY_PORT>")).Gateway.Proxy; p != nil {
		t.Errorf("disabled proxy: %+v", *p)
	}
	if p := requireLoad(t, with(complete, "proxy.port=<PROXY_PORT>", "oauth.token.url=<OAUTH_TOKEN_URL>", "oauth.client.id=<OAUTH_CLIENT_ID>")).Gateway.Proxy; p != nil {
		t.Errorf("proxy of a sample: %+v", *p)
	}
}

func TestAcceptedURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://gateway.example.com":         "https://gateway.example.com",
		"https://gateway.example.com:8443/a/": "https://gateway.example.com:8443/a",
		"http://localhost:18080":              "http://localhost:18080",
		"http://127.8.9.1":                    "http://127.8.9.1",
		"http://[::1]:18080//":                "http://[::1]:18080",
	} {
		if got := requireLoad(t, with(complete, "connector.api.url="+url)).Gateway.URL.String(); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}

// wantFault is an expected fault: its object, its cause, and a part of its remedy.
type wantFault struct {
	object string
	cause  error
	remedy string
}

// checkFaults fails the test unless err joins these faults.
func checkFaults(t *testing.T, err error, faults ...wantFault) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	if strings.Contains(err.Error()+fault.Remedy(err), "hush") {
		t.Errorf("secret in error %v, remedy %s", err, fault.Remedy(err))
	}
	if fault.ClassOf(err) != fault.Invalid {
		t.Errorf("class %s", fault.ClassOf(err))
	}
	all := fault.All(err)
	if len(all) != len(faults) {
		t.Fatalf("got\n%v\nwant\n%v", err, faults)
	}
	for i, w := range faults {
		faulttest.Check(t, all[i], fault.Error{Class: fault.Invalid, Object: w.object}, w.cause, "allowed: ", w.remedy)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	empty := writeFile(t, "empty", "\n")
	source := with(complete, directorySettings...)
	const (
		url     = "connector.api.url (environment)"
		urlForm = "https://HOST/..., or http:// on loopback"
		host    = "ldap.host (environment)"
		aHost   = "a host name or an IP address"
		file    = "the path of a readable file"
	)
	for _, c := range []struct {
		name    string
		environ []string
		want    []wantFault
	}{
		{"no settings", nil, []wantFault{
			{"connector.api.url", errMissing, "base URL"}, {"qualys.customerUuid", errMissing, "a UUID"}, {"qualys.connectionUuid", errMissing, "a UUID"}, {"qualys.profileUuid", errMissing, "a UUID"},
			{"authentication.type", errNoLogin, "qualys.user.username with qualys.user.password (BASIC), or oauth.client.id with oauth.client.secret (OAUTH)"},
			{"service.cron-expression", errMissing, "5 fields"}}},
		{"white space is no URL", with(complete, "connector.api.url=  "), []wantFault{{url, errNotURL, urlForm}}},
		{"URL with a placeholder", with(complete, "connector.api.url=https://<qualys_gateway_url>qualys.com"), []wantFault{{url, errPlaceholder, "base URL"}}},
		{"URL without a scheme", with(complete, "connector.api.url=gateway.example.com"), []wantFault{{url, errNotURL, urlForm}}},
		{"URL without a host", with(complete, "connector.api.url=https:///"), []wantFault{{url, errNotURL, urlForm}}},
		{"URL with another scheme", with(complete, "connector.api.url=ftp://gateway.example.com"), []wantFault{{url, errScheme, urlForm}}},
		{"http, not loopback", with(complete, "connector.api.url=http://gateway.example.com"), []wantFault{{url, errNotEncrypted, urlForm}}},
		{"http to a name similar to loopback", with(complete, "connector.api.url=http://127.0.0.1.example.com"), []wantFault{{url, errNotEncrypted, urlForm}}},
		{"URL with credentials", with(complete, "connector.api.url=https://me:hush@gateway.example.com"), []wantFault{{url, errCredentials, urlForm}}},
		{"invalid URL with credentials", with(complete, "connector.api.url=https://me:hush@gateway example.com"), []wantFault{{url, errNotURL, urlForm}}},
		{"URL with a query", with(complete, "connector.api.url=https://gateway.example.com?token=hush"), []wantFault{{url, errQuery, "scheme, host, port and path"}}},
		{"URL with an invalid port", with(complete, "connector.api.url=https://gateway.example.com:70000"), []wantFault{{url, errNotAllowed, "a number from 1 to 65535"}}},
		{"URL in quotes", with(complete, `connector.api.url="https://gateway.example.com"`), []wantFault{{url, input.InQuotes, urlForm + ", without quotes"}}},
		{"UUID of the sample", with(complete, "QUALYS_PROFILEUUID=", "qualys.profileUuid=a4ab0242-xxxx-xxxx-xxxx-f62c67a56093"), []wantFault{{"qualys.profileUuid (environment)", errNotUUID, "00000000-0000-"}}},
		{"UUID with a placeholder", with(complete, "qualys.profileUuid=<PROFILE_UUID>"), []wantFault{{"qualys.profileUuid (environment)", errPlaceholder, "a UUID"}}},
		{"password with a placeholder", with(complete, "qualys.user.password=<QUALYS_PASSWORD>"), []wantFault{{"qualys.user.password (environment)", errPlaceholder, "password"}}},
		{"unknown authentication type", with(complete, "authentication.type=hush@KERBEROS"), []wantFault{{"authentication.type (environment)", errNotAllowed, "BASIC, OAUTH"}}},
		{"BASIC without credentials", with(complete, "authentication.type=BASIC", "qualys.user.username=", "qualys.user.password="), []wantFault{
			{"qualys.user.username", errMissing, "user name at the gateway"}, {"qualys.user.password", errMissing, "password at the gateway"}}},
		{"user name without password", with(complete, "qualys.user.password="), []wantFault{{"qualys.user.password", errMissing, "password at the gateway"}}},
		{"OAUTH without credentials", with(complete, "authentication.type=OAUTH"), []wantFault{{"oauth.client.id", errMissing, "client ID"}, {"oauth.client.secret", errMissing, "client secret"}}},
		{"client ID without secret", with(complete, "qualys.user.username=", "qualys.clientId=x"), []wantFault{{"oauth.client.secret", errMissing, "client secret"}}},
		{"token URL and level", with(complete, append(oauth, "oauth.token.url=http://login.example.com", "qualys.OAuthClientLevel=admin")...), []wantFault{
			{"oauth.token.url (environment)", errNotEncrypted, urlForm}, {"qualys.OAuthClientLevel (environment)", errNotAllowed, "USER, SUBSCRIPTION"}}},
		{"token URL and level, with BASIC", with(complete, "oauth.token.url=http://login.example.com", "qualys.OAuthClientLevel=admin"), []wantFault{
			{"oauth.token.url (environment)", errNotEncrypted, urlForm}, {"qualys.OAuthClientLevel (environment)", errNotAllowed, "USER, SUBSCRIPTION"}}},
		{"cron", with(complete, "SERVICE_CRON_EXPRESSION=", `service.cron-expression="* * * *"`), []wantFault{{"service.cron-expression (environment)", input.InQuotes, "5 fields (minute"}}},
		{"proxy without host and port", with(complete, "proxy.enabled=yes"), []wantFault{{"proxy.host", errMissing, "a host"}, {"proxy.port", errMissing, "1 to 65535"}}},
		{"proxy with a URL for a host", with(complete, append(proxySettings, "proxy.host=http://proxy", "proxy.port=0", "service.http.proxy.scheme=socks5")...), []wantFault{
			{"service.http.proxy.scheme (environment)", errNotAllowed, "http, https"}, {"proxy.host (environment)", input.ErrHostScheme, aHost + " without a scheme"},
			{"proxy.port (environment)", errNotAllowed, "a number from 1 to 65535"}}},
		{"proxy that is not enabled", with(complete, "proxy.host=http://proxy", "proxy.port=0", "service.http.proxy.scheme=socks5"), []wantFault{
			{"service.http.proxy.scheme (environment)", errNotAllowed, "http, https"}, {"proxy.host (environment)", input.ErrHostScheme, aHost + " without a scheme"},
			{"proxy.port (environment)", errNotAllowed, "a number from 1 to 65535"}}},
		{"proxy with a port in the host", with(with(complete, proxySettings...), "proxy.host=proxy:8080"), []wantFault{{"proxy.host (environment)", input.ErrHostPort, "proxy.port"}}},
		{"proxy with credentials in the host", with(with(complete, proxySettings...), "proxy.host=me:hush@proxy"), []wantFault{{"proxy.host (environment)", input.ErrHostPort, "proxy.port"}}},
		{"proxy user without password", with(complete, append(proxySettings, "proxy.username=u")...), []wantFault{{"proxy.password", errMissing, "password at the proxy"}}},
		{"proxy password without user", with(complete, append(proxySettings, "proxy.password=hush")...), []wantFault{{"proxy.username", errMissing, "user name at the proxy"}}},
		{"proxy neither on nor off", with(complete, "proxy.enabled=maybe"), []wantFault{{"proxy.enabled (environment)", errNotAllowed, "true or false"}}},
		{"no workers", with(complete, "thread-pool.size=0"), []wantFault{{"thread-pool.size (environment)", errNotAllowed, "a number from 1 to 64"}}},
		{"too many workers", with(complete, "SERVICE_CHILD_THREAD_POOL=65"), []wantFault{{"SERVICE_CHILD_THREAD_POOL (environment)", errNotAllowed, "a number from 1 to 64"}}},
		{"batches", with(complete, "upload.batch-size=5001", "upload.batch-bytes=1023"), []wantFault{
			{"upload.batch-size (environment)", errNotAllowed, "a number from 1 to 5000"}, {"upload.batch-bytes (environment)", errNotAllowed, "a number from 1024 to 8388608"}}},
		{"service", with(complete, "service.run-on-start=si", "service.shutdown-grace=-5s"), []wantFault{
			{"service.run-on-start (environment)", errNotAllowed, "true or false"}, {"service.shutdown-grace (environment)", errNotAllowed, "from 1s to 1h"}}},
		{"log", with(complete, "log.level=loud", "log.format=xml"), []wantFault{
			{"log.level (environment)", errNotAllowed, "trace, debug, info, warn, error"}, {"log.format (environment)", errNotAllowed, "json, console"}}},
		{"token URL with a fragment", with(complete, append(oauth, "oauth.token.url=https://login.example.com/token#x")...), []wantFault{
			{"oauth.token.url (environment)", errQuery, urlForm}}},
		{"paths", with(complete, "gateway.path.state=state", "gateway.path.assets=//host/x", "gateway.path.profile=/x?y"), []wantFault{
			{"gateway.path.profile (environment)", errNotPath, "/like/this"}, {"gateway.path.assets (environment)", errNotPath, "/like/this"}, {"gateway.path.state (environment)", errNotPath, "/like/this"}}},
		{"directory without a host", with(complete, "ldap.port=389", "LDAP_BINDDN=CN=svc", "ldap.password.file="+nowhere, "profile.assets=x"), []wantFault{
			{"ldap.port (environment)", errRequiresHost, "both"}, {"LDAP_BINDDN (environment)", errRequiresHost, "both"},
			{"ldap.password.file (environment)", errRequiresHost, "both"}, {"profile.assets (environment)", errRequiresHost, "both"}}},
		{"only ldap.host", with(complete, "ldap.host=dc1"), []wantFault{
			{"ldap.bindDn", errMissing, "the account"}, {"ldap.password", errMissing, "password of the account"}, {"profile.baseContext", errMissing, "DN"}}},
		{"host with a port", with(source, "ldap.host=dc1,dc2:389"), []wantFault{{host, input.ErrHostPort, "ldap.port"}}},
		{"IPv6 host with a port", with(source, "ldap.host=[::1]:389"), []wantFault{{host, input.ErrHostPort, "ldap.port"}}},
		{"host with a scheme", with(source, "ldap.host=ldaps://dc1"), []wantFault{{host, input.ErrHostScheme, aHost}}},
		{"empty host", with(source, "ldap.host=dc1,,dc2"), []wantFault{{host, input.ErrNotHost, aHost}}},
		{"hosts separated by spaces", with(source, "ldap.host=dc1 dc2"), []wantFault{{host, input.ErrNotHost, aHost}}},
		{"host with a placeholder", with(source, "ldap.host=<DC>"), []wantFault{{host, errPlaceholder, "domain controller"}}},
		{"values of the directory", with(source, "ldap.protocol=LDAPI", "ldap.port=65536", "profile.baseContext=corp.example.com", "profile.searchScope=tree", "profile.assets=all"), []wantFault{
			{"ldap.protocol (environment)", errNotAllowed, "LDAP, LDAPS, STARTTLS"}, {"ldap.port (environment)", errNotAllowed, "a number from 1 to 65535"},
			{"profile.baseContext (environment)", directory.ErrNotDN, "DC=corp"}, {"profile.searchScope (environment)", errNotAllowed, "SUBTREE, ONE_LEVEL, BASE"},
			{"profile.assets (environment)", errNotAllowed, "IDENTITIES_ONLY, IDENTITIES_WITH_SECURITY_POSTURE"}}},
		{"filters", with(complete, "ldap.user-filter=a=b", "LDAP_GROUP_FILTER=(a=b"), []wantFault{
			{"ldap.user-filter (environment)", errNotFilter, "in parentheses"}, {"LDAP_GROUP_FILTER (environment)", errNotFilter, "in parentheses"}}},
		{"DN in a filter", with(complete, `ldap.user-filter=(memberOf=CN=Smith\, Bob,DC=corp)`, "LDAP_GROUP_FILTER=(memberOf=CN=Bob (EXT),DC=corp)"), []wantFault{
			{"ldap.user-filter (environment)", directory.FilterBackslash, `\5c`}, {"LDAP_GROUP_FILTER (environment)", directory.FilterParenthesis, `\28`}}},
		{"full syncs", with(complete, "sync.full-interval=0s"), []wantFault{{"sync.full-interval (environment)", errNotAllowed, "from 1s to 720h"}}},
		{"full syncs too rare", with(complete, "SYNC_FULL_INTERVAL=721h"), []wantFault{{"SYNC_FULL_INTERVAL (environment)", errNotAllowed, "from 1s to 720h"}}},
		{"deletions", with(complete, "sync.max-deletes=-1", "sync.max-deletes-percent=101"), []wantFault{
			{"sync.max-deletes (environment)", errNotAllowed, "a number from 0 to 1000000000"}, {"sync.max-deletes-percent (environment)", errNotAllowed, "a number from 0 to 100"}}},
		{"page size", with(complete, "ldap.page-size=1e3"), []wantFault{{"ldap.page-size (environment)", errNotAllowed, "a number from 1 to 10000"}}},
		{"unreadable certificates", with(complete, "ldap.certificate="+nowhere, "GATEWAY_CA_FILE="+os.TempDir()), []wantFault{
			{"GATEWAY_CA_FILE (environment)", syscall.EISDIR, file}, {"ldap.certificate (environment)", fs.ErrNotExist, file}}},
		{"empty certificate", with(complete, "ldap.certificate="+empty), []wantFault{{"ldap.certificate (environment)", errCertificateFile, "Base-64"}}},
		{"unreadable file of a secret", with(complete, "qualys.user.password=", "QUALYS_USER_PASSWORD_FILE="+nowhere+"/hush"), []wantFault{
			{"QUALYS_USER_PASSWORD_FILE (environment)", fs.ErrNotExist, file}}},
		{"empty file of a secret", with(complete, "qualys.user.password=", "qualys.user.password.file="+empty), []wantFault{{"qualys.user.password", errMissing, "password at the gateway"}}},
		{"one key in two spellings", with(complete, "thread-pool.size=10", "SERVICE_CHILD_THREAD_POOL=11"), []wantFault{
			{"thread-pool.size (environment) and SERVICE_CHILD_THREAD_POOL (environment)", errDuplicate, "one of them"}}},
		{"secret and its file", with(complete, "QUALYS_USER_PASSWORD_FILE="+writeFile(t, "s", "hush too\n")), []wantFault{
			{"qualys.user.password (environment) and QUALYS_USER_PASSWORD_FILE (environment)", errDuplicate, "one of them"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(c.environ)
			checkFaults(t, err, c.want...)
		})
	}
}

func TestFaultsOfFiles(t *testing.T) {
	t.Parallel()
	a := writeFile(t, "a.env", "thread-pool.size=1\n=hush\nservice.child-thread-pool=2\nlog.level=hush@loud\n")
	b := writeFile(t, "b.env", "\xffhush\nhush hush=1\nthread-pool.size=2\nTHREAD_POOL_SIZE=2\nlog.format=\nlog.format=xml\nlog.format=json\n"+strings.Repeat("hush", 1<<14)+"=x\n")
	nowhere := filepath.Join(t.TempDir(), "nowhere.env")
	_, err := load(with(complete, "upload.batch-size=0"), a, b, nowhere)
	checkFaults(t, err,
		wantFault{a + " line 2", errLine, "KEY=VALUE"},
		wantFault{b + " line 1", errNotUTF8, "UTF-8"},
		wantFault{b + " line 2", errLine, "KEY=VALUE"},
		wantFault{b + " line 8", errLineTooLong, "less than 64 KiB"},
		wantFault{"env file " + nowhere, fs.ErrNotExist, "the path of a readable file"},
		wantFault{"log.format (" + b + " line 6) and log.format (" + b + " line 7)", errDuplicate, "one of them"},
		wantFault{"thread-pool.size (" + a + " line 1) and service.child-thread-pool (" + a + " line 3)", errDuplicate, "one of them"},
		wantFault{"upload.batch-size (environment)", errNotAllowed, "a number from 1 to 5000"},
		wantFault{"log.level (" + a + " line 4)", errNotAllowed, "trace, debug, info, warn, error"},
		wantFault{"log.format (" + b + " line 6)", errNotAllowed, "json, console"},
	)
}

func TestLayers(t *testing.T) {
	t.Parallel()
	one := writeFile(t, "one.env", "thread-pool.size=1\nservice.child-thread-pool=1\nlog.level=warn\nupload.batch-size=1\nqualys.user.password.file=/nowhere\n")
	two := writeFile(t, "two.env", "SERVICE_CHILD_THREAD_POOL=2\nlog.level=\nHOME\nupload.batch-size=2\nldap.page-size\n")
	environ := with(complete, "THREAD_POOL_SIZE=3", "upload.batch-size=", "ldap.page-size=5")
	c, err := Load(Source{EnvFiles: []string{one, two}, Environ: environ, Flags: map[string]string{"log.format": "console"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []struct {
		name      string
		got, want any
	}{
		{"the environment overrides files, in any spelling", c.Run.Upload.Workers, 3},
		{"a later file overrides, an empty value does not", c.Run.Upload.BatchSize, 2},
		{"an empty value in a later file does not override", c.Log.Level, "warn"},
		{"a key without a value comes from the environment", c.Run.Search.PageSize, 5},
		{"flags", c.Log.Format, "console"},
		{"the file of an overridden secret is not opened", c.Gateway.Login.Password.Reveal(), "hush"},
	} {
		if check.got != check.want {
			t.Errorf("%s: got %v, want %v", check.name, check.got, check.want)
		}
	}
	c, err = Load(Source{Environ: with(complete, "LOG_LEVEL=warn", "log.level=warn"), Flags: map[string]string{"log.level": "DEBUG", "log.format": ""}})
	if err != nil || c.Log.Level != "debug" {
		t.Errorf("flags do not win: %+v, %v", c, err)
	}
	_, err = Load(Source{Environ: complete, Flags: map[string]string{"log.level": "loud"}})
	checkFaults(t, err, wantFault{"log.level (command line)", errNotAllowed, "trace, debug, info, warn, error"})
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, content, want string }{
		{"no newline", "hush", "hush"},
		{"one newline", "hush\n", "hush"},
		{"CRLF", "hush\r\n", "hush"},
		{"only one newline goes", "hush\n\n", "hush\n"},
		{"all else stays", ` "hush" $# `, ` "hush" $# `},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, "secret", c.content)
			for _, spelling := range []string{"oauth.client.secret.file", "OAUTH_CLIENT_SECRET_FILE", "qualys.clientSecret.file", "QUALYS_CLIENTSECRET_FILE"} {
				l := requireLoad(t, with(complete, "authentication.type=OAUTH", "qualys.clientId=x", "oauth.token.url=https://login.example.com/token", spelling+"="+path)).Gateway.Login
				if got := l.ClientSecret.Reveal(); got != c.want {
					t.Errorf("%s: got %q, want %q", spelling, got, c.want)
				}
			}
		})
	}
	same := writeFile(t, "same", "hush\n")
	requireLoad(t, with(complete, "qualys.user.password.file="+same, "QUALYS_USER_PASSWORD_FILE="+same))
}

// TestConfigDoesNotPrintSecrets prints and encodes all structs with secrets. fmt does not follow
// pointers below the first level, so their targets are printed separately.
func TestConfigDoesNotPrintSecrets(t *testing.T) {
	t.Parallel()
	for _, environ := range [][]string{
		with(with(with(complete, directorySettings...), proxySettings...), "proxy.username=u", "proxy.password=hush"),
		with(with(complete, oauth...), append(directorySettings, proxySettings...)...),
	} {
		c := requireLoad(t, environ)
		source := *c.Run.Source
		secrets := 0
		for _, value := range []any{c, *c, c.Gateway, c.Gateway.Login, c.Gateway.Proxy, *c.Gateway.Proxy, c.Run, source, source.Directory} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				text := fmt.Sprintf(verb, value)
				if strings.Contains(text, "hush") || strings.Contains(text, fmt.Sprintf("%x", "hush")) {
					t.Errorf("%s shows a secret: %s", verb, text)
				}
				secrets += strings.Count(text, "[redacted]")
			}
		}
		for _, value := range []any{c.Gateway.Login, c.Gateway.Proxy, source.Directory.Password} {
			encoded, err := json.Marshal(value)
			if err != nil || strings.Contains(string(encoded), "hush") {
				t.Errorf("encoded %s, error %v", encoded, err)
			}
			secrets += strings.Count(string(encoded), "[redacted]")
		}
		if secrets == 0 {
			t.Error("nothing was redacted")
		}
	}
}
