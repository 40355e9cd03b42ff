package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/gateway"
)

// complete is a configuration without faults; every secret in these tests
// contains hush.
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

var inDirectory = []string{"ldap.host=dc1", "ldap.bindDn=CN=svc,DC=corp", "ldap.password=hush", "profile.baseContext=DC=corp"}

var inProxy = []string{"proxy.enabled=true", "proxy.host=proxy.example.com", "proxy.port=3128"}

// with replaces or adds settings; "key=" takes one away.
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

func mustLoad(t *testing.T, environ []string, files ...string) *Config {
	t.Helper()
	c, err := load(environ, files...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, complete)
	if got := c.Gateway.URL.String(); got != "https://gateway.example.com" {
		t.Errorf("URL %s", got)
	}
	if got := c.Gateway.CustomerUUID; got != "35664649-0001-4002-8003-0e54079e1ee9" {
		t.Errorf("customer %s", got)
	}
	if c.Gateway.Source != "Microsoft Active Directory" || c.Gateway.Paths != (gateway.Paths{}) || c.Gateway.Proxy != nil || c.Gateway.CA != nil {
		t.Errorf("gateway %+v", c.Gateway)
	}
	if l := c.Gateway.Login; l.Username != "quays_rb" || l.Password.Reveal() != "hush" || l.ClientID != "" || !l.ClientSecret.IsZero() {
		t.Errorf("login %+v", l)
	}
	if c.Directory != nil {
		t.Errorf("directory %+v", c.Directory)
	}
	if want := (Search{PageSize: 1000}); !reflect.DeepEqual(c.Search, want) {
		t.Errorf("search %+v", c.Search)
	}
	if want := (Service{c.Service.Schedule, "/var/lib/adconnector", true, 30 * time.Second, "127.0.0.1:8080"}); c.Service != want || c.Service.Schedule.String() != "*/10 * * * *" {
		t.Errorf("service %+v", c.Service)
	}
	if want := (Sync{24 * time.Hour, 500, 10}); c.Sync != want {
		t.Errorf("sync %+v", c.Sync)
	}
	if want := (Upload{10, 500, 1048576}); c.Upload != want {
		t.Errorf("upload %+v", c.Upload)
	}
	if want := (Log{Level: "info"}); c.Log != want {
		t.Errorf("log %+v", c.Log)
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, with(complete, inDirectory...))
	want := Directory{Protocol: directory.LDAP, Hosts: []string{"dc1"}, BindDN: "CN=svc,DC=corp", Password: c.Directory.Password,
		BaseContext: "DC=corp", Scope: directory.Subtree}
	if !reflect.DeepEqual(*c.Directory, want) || c.Directory.Password.Reveal() != "hush" {
		t.Errorf("got %+v", *c.Directory)
	}

	c = mustLoad(t, with(with(complete, inDirectory...), "ldap.host= dc1.corp.example.com, 10.0.0.5,[fd00::1] ,fd00::2", "ldap.protocol=start tls",
		"ldap.port= 10389", "profile.searchScope=One-Level", "profile.assets=Identities with Security-posture", "ldap.server-name=dc.example.com",
		"ldap.user-filter=(&(department=Sales)(!(title=a\\28b)))", "ldap.page-size=10"))
	d := c.Directory
	if !slices.Equal(d.Hosts, []string{"dc1.corp.example.com", "10.0.0.5", "fd00::1", "fd00::2"}) || d.Protocol != directory.StartTLS || d.Port != 10389 ||
		d.Scope != directory.OneLevel || !d.Posture {
		t.Errorf("got %+v", *d)
	}
	if s := c.Search; s.ServerName != "dc.example.com" || s.UserFilter == "" || s.PageSize != 10 {
		t.Errorf("got %+v", s)
	}
}

func TestSync(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, with(complete, "SYNC_FULL_INTERVAL=720h", "sync.max-deletes=0", "SYNC_MAX_DELETES_PERCENT=0"))
	if want := (Sync{720 * time.Hour, 0, 0}); c.Sync != want { // 0 is not the default
		t.Errorf("got %+v", c.Sync)
	}
}

// TestAdminAddress: alone among the keys, this one means something when it is empty.
func TestAdminAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, want string }{
		{"service.admin.address=", ""},
		{"SERVICE_ADMIN_ADDRESS=", ""},
		{"service.admin.address=Off", ""},
		{"service.admin.address=:9090", ":9090"},
		{"service.admin.address=[::1]:0", "[::1]:0"},
	} {
		if got := mustLoad(t, with(complete, c.given)).Service.AdminAddress; got != c.want {
			t.Errorf("%s: %q", c.given, got)
		}
	}
	_, err := load(with(complete, "service.admin.address=", "SERVICE_ADMIN_ADDRESS=:9090"))
	if err == nil || !strings.Contains(err.Error(), "given twice with different values") {
		t.Errorf("got %v", err)
	}
	for _, wrong := range []string{"8080", "localhost", "127.0.0.1:65536", "127.0.0.1:http"} {
		_, err := load(with(complete, "service.admin.address="+wrong))
		if err == nil || !strings.Contains(err.Error(), "allowed: host:port like 127.0.0.1:8080, or empty for none") {
			t.Errorf("%s: got %v", wrong, err)
		}
	}
}

// TestNoSchedule: only the daemon needs one.
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
		{"user name given", complete, "BASIC"},
		{"both given", with(complete, oauth[1:]...), "BASIC"},
		{"both given, OAUTH chosen", with(complete, oauth...), "OAUTH"},
		{"client ID given", with(complete, append(oauth[1:], "qualys.user.username=")...), "OAUTH"},
		{"what is not used may be anything", with(complete, "authentication.type=Basic", "oauth.client.id=<OAUTH_CLIENT_ID>", "oauth.token.url=<OAUTH_TOKEN_URL>"), "BASIC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := mustLoad(t, c.environ).Gateway.Login
			if isBasic := got.Username != "" && got.ClientID == ""; isBasic != (c.want == "BASIC") {
				t.Errorf("got %+v", got)
			}
		})
	}
	l := mustLoad(t, with(complete, append(oauth, "oauth.token.url=http://[::1]:8080/token?p=1", "QUALYS_OAUTHCLIENTLEVEL=subscription")...)).Gateway.Login
	if l.ClientID != "b49fe503" || l.ClientSecret.Reveal() != "hush" || l.TokenURL.String() != "http://[::1]:8080/token?p=1" || !l.Subscription || l.Username != "" {
		t.Errorf("got %+v", l)
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, with(complete, inProxy...)).Gateway.Proxy
	if want := (gateway.Proxy{Scheme: "http", Host: "proxy.example.com", Port: 3128}); *p != want {
		t.Errorf("got %+v", *p)
	}
	p = mustLoad(t, with(complete, append(inProxy, "SERVICE_HTTP_PROXY_SCHEME=HTTPS", "proxy.username=u", "PROXY_PASSWORD=hush")...)).Gateway.Proxy
	if p.Scheme != "https" || p.Username != "u" || p.Password.Reveal() != "hush" {
		t.Errorf("got %+v", *p)
	}
	if p := mustLoad(t, with(complete, "proxy.enabled=false", "proxy.host=<PROXY_HOST>", "proxy.port=<PROXY_PORT>")).Gateway.Proxy; p != nil {
		t.Errorf("a proxy that is off: %+v", *p)
	}
}

func TestAcceptedURLs(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"https://gateway.example.com":         "https://gateway.example.com",
		"https://gateway.example.com:8443/a/": "https://gateway.example.com:8443/a",
		"http://localhost:18080":              "http://localhost:18080",
		"http://127.8.9.1":                    "http://127.8.9.1",
		"http://[::1]:18080//":                "http://[::1]:18080",
	} {
		if got := mustLoad(t, with(complete, "connector.api.url="+given)).Gateway.URL.String(); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	empty := write(t, "empty", "\n")
	directory := with(complete, inDirectory...)
	for _, c := range []struct {
		name    string
		environ []string
		want    []string // the beginnings of all lines
	}{
		{"nothing given", nil, []string{
			"connector.api.url: missing, required; allowed: base URL", "qualys.customerUuid: missing, required; allowed: a UUID", "qualys.connectionUuid: missing", "qualys.profileUuid: missing",
			"authentication.type: there is no login; allowed: qualys.user.username with qualys.user.password (BASIC), or oauth.client.id with oauth.client.secret (OAUTH)",
			"service.cron-expression: missing"}},
		{"white space is no URL", with(complete, "connector.api.url=  "), []string{"connector.api.url (environment): it is not a URL"}},
		{"URL with a placeholder", with(complete, "connector.api.url=https://<qualys_gateway_url>qualys.com"), []string{"connector.api.url (environment): the placeholder <...> must be replaced; allowed: base URL"}},
		{"URL without a scheme", with(complete, "connector.api.url=gateway.example.com"), []string{"connector.api.url (environment): it is not a URL with a host; allowed: https://HOST"}},
		{"URL without a host", with(complete, "connector.api.url=https:///"), []string{"connector.api.url (environment): it is not a URL with a host"}},
		{"URL of another scheme", with(complete, "connector.api.url=ftp://gateway.example.com"), []string{"connector.api.url (environment): it is neither https nor http"}},
		{"http elsewhere", with(complete, "connector.api.url=http://gateway.example.com"), []string{"connector.api.url (environment): http would send credentials in the clear"}},
		{"http to a name that looks like loopback", with(complete, "connector.api.url=http://127.0.0.1.example.com"), []string{"connector.api.url (environment): http would"}},
		{"URL with credentials", with(complete, "connector.api.url=https://me:hush@gateway.example.com"), []string{"connector.api.url (environment): it has a user name or password"}},
		{"unreadable URL with credentials", with(complete, "connector.api.url=https://me:hush@gateway example.com"), []string{"connector.api.url (environment): it is not a URL"}},
		{"URL with a query", with(complete, "connector.api.url=https://gateway.example.com?token=hush"), []string{"connector.api.url (environment): it has a query or a fragment"}},
		{"URL with an impossible port", with(complete, "connector.api.url=https://gateway.example.com:70000"), []string{`connector.api.url (environment): port "70000" is not allowed; allowed: a number from 1 to 65535`}},
		{"URL in quotes", with(complete, `connector.api.url="https://gateway.example.com"`), []string{"connector.api.url (environment): it is not a URL with a host; allowed: https://HOST/..., or http:// on loopback (the quotes are part of the value here: leave them out)"}},
		{"sample's UUID", with(complete, "QUALYS_PROFILEUUID=", "qualys.profileUuid=a4ab0242-xxxx-xxxx-xxxx-f62c67a56093"), []string{`qualys.profileUuid (environment): "a4ab0242-xxxx-xxxx-xxxx-f62c67a56093" is not a UUID; allowed: the form 0000`}},
		{"UUID with a placeholder", with(complete, "qualys.profileUuid=<PROFILE_UUID>"), []string{"qualys.profileUuid (environment): the placeholder"}},
		{"password with a placeholder", with(complete, "qualys.user.password=<QUALYS_PASSWORD>"), []string{"qualys.user.password (environment): the placeholder"}},
		{"unknown login", with(complete, "authentication.type=hush@KERBEROS"), []string{"authentication.type (environment): the value is not allowed; allowed: BASIC, OAUTH"}},
		{"BASIC without credentials", with(complete, "authentication.type=BASIC", "qualys.user.username=", "qualys.user.password="), []string{
			"qualys.user.username: missing, needed because authentication.type is BASIC; allowed: user name at the gateway", "qualys.user.password: missing, needed because authentication.type is BASIC"}},
		{"user name without password", with(complete, "qualys.user.password="), []string{"qualys.user.password: missing, needed because a user name is given"}},
		{"OAUTH without credentials", with(complete, "authentication.type=OAUTH"), []string{"oauth.client.id: missing, needed because authentication.type is OAUTH", "oauth.client.secret: missing"}},
		{"client ID without secret", with(complete, "qualys.user.username=", "qualys.clientId=x"), []string{"oauth.client.secret: missing, needed because a client ID is given; allowed: client secret"}},
		{"token URL and level", with(complete, append(oauth, "oauth.token.url=http://login.example.com", "qualys.OAuthClientLevel=admin")...), []string{
			"oauth.token.url (environment): http would", `qualys.OAuthClientLevel (environment): "admin" is not allowed; allowed: USER, SUBSCRIPTION`}},
		{"cron", with(complete, "SERVICE_CRON_EXPRESSION=", `service.cron-expression="* * * *"`), []string{`service.cron-expression (environment): "\"* * * *\"" is no cron expression: it has 4 fields; allowed: 5 fields (minute`}},
		{"proxy without host and port", with(complete, "proxy.enabled=yes"), []string{"proxy.host: missing, needed because proxy.enabled is true; allowed: a host", "proxy.port: missing"}},
		{"proxy with a URL for a host", with(complete, append(inProxy, "proxy.host=http://proxy", "proxy.port=0", "service.http.proxy.scheme=socks5")...), []string{
			`service.http.proxy.scheme (environment): "socks5"`, `proxy.host (environment): "http://proxy" has a scheme`, `proxy.port (environment): "0" is not allowed; allowed: a number from 1 to 65535`}},
		{"proxy with a port in the host", with(with(complete, inProxy...), "proxy.host=proxy:8080"), []string{`proxy.host (environment): "proxy:8080" has a port: put the port into proxy.port`}},
		{"proxy with credentials in the host", with(with(complete, inProxy...), "proxy.host=me:hush@proxy"), []string{"proxy.host (environment): the value has a port"}},
		{"proxy user without password", with(complete, append(inProxy, "proxy.username=u")...), []string{"proxy.password: missing, needed because proxy.username is given"}},
		{"proxy password without user", with(complete, append(inProxy, "proxy.password=hush")...), []string{"proxy.username: missing, needed because proxy.password is given"}},
		{"proxy neither on nor off", with(complete, "proxy.enabled=maybe"), []string{`proxy.enabled (environment): "maybe" is not allowed; allowed: true or false`}},
		{"no workers", with(complete, "thread-pool.size=0"), []string{`thread-pool.size (environment): "0" is not allowed; allowed: a number from 1 to 64`}},
		{"too many workers", with(complete, "SERVICE_CHILD_THREAD_POOL=65"), []string{`SERVICE_CHILD_THREAD_POOL (environment): "65" is not allowed`}},
		{"batches", with(complete, "upload.batch-size=5001", "upload.batch-bytes=1023"), []string{
			`upload.batch-size (environment): "5001" is not allowed; allowed: a number from 1 to 5000`, `upload.batch-bytes (environment): "1023" is not allowed; allowed: a number from 1024 to 8388608`}},
		{"service", with(complete, "service.run-on-start=si", "service.shutdown-grace=-5s"), []string{
			`service.run-on-start (environment): "si"`, `service.shutdown-grace (environment): "-5s" is not allowed; allowed: a duration like 30s or 5m, from 1s to 1h0m0s`}},
		{"log", with(complete, "log.level=loud", "log.format=xml"), []string{`log.level (environment): "loud" is not allowed; allowed: trace, debug, info, warn, error`, `log.format (environment): "xml"`}},
		{"paths", with(complete, "gateway.path.state=state", "gateway.path.assets=//host/x", "gateway.path.profile=/x?y"), []string{
			`gateway.path.profile (environment): "/x?y" is not a path`, `gateway.path.assets (environment): "//host/x" is not a path`, `gateway.path.state (environment): "state" is not a path`}},
		{"directory without a host", with(complete, "ldap.port=389", "LDAP_BINDDN=CN=svc", "ldap.password.file="+nowhere, "profile.assets=x"), []string{
			"ldap.port (environment): needs ldap.host", "LDAP_BINDDN (environment): needs ldap.host", "ldap.password.file (environment): needs ldap.host", "profile.assets (environment): needs ldap.host"}},
		{"host alone", with(complete, "ldap.host=dc1"), []string{
			"ldap.bindDn: missing, needed because ldap.host is given; allowed: the account", "ldap.password: missing", "profile.baseContext: missing"}},
		{"host with a port", with(directory, "ldap.host=dc1,dc2:389"), []string{`ldap.host (environment): "dc2:389" has a port: put the port into ldap.port`}},
		{"IPv6 host with a port", with(directory, "ldap.host=[::1]:389"), []string{`ldap.host (environment): "[::1]:389" has a port`}},
		{"host with a scheme", with(directory, "ldap.host=ldaps://dc1"), []string{`ldap.host (environment): "ldaps://dc1" has a scheme`}},
		{"empty host", with(directory, "ldap.host=dc1,,dc2"), []string{"ldap.host (environment): there is an empty host"}},
		{"hosts separated by spaces", with(directory, "ldap.host=dc1 dc2"), []string{`ldap.host (environment): "dc1 dc2" is not a host`}},
		{"host with a placeholder", with(directory, "ldap.host=<DC>"), []string{"ldap.host (environment): the placeholder"}},
		{"directory's values", with(directory, "ldap.protocol=LDAPI", "ldap.port=65536", "profile.baseContext=corp.example.com", "profile.searchScope=tree", "profile.assets=all"), []string{
			`ldap.protocol (environment): "LDAPI" is not allowed; allowed: LDAP, LDAPS, STARTTLS`, `ldap.port (environment): "65536"`, `profile.baseContext (environment): "corp.example.com" is not a DN`,
			`profile.searchScope (environment): "tree" is not allowed; allowed: SUBTREE, ONE_LEVEL, BASE`, `profile.assets (environment): "all"`}},
		{"filters", with(complete, "ldap.user-filter=a=b", "LDAP_GROUP_FILTER=(a=b"), []string{
			`ldap.user-filter (environment): "a=b" is not an LDAP filter: filter does not start with an '('; allowed: one in parentheses, like (department=Sales)`, `LDAP_GROUP_FILTER (environment): "(a=b" is not`}},
		{"full passes", with(complete, "sync.full-interval=0s"), []string{`sync.full-interval (environment): "0s" is not allowed; allowed: a duration like 30s or 5m, from 1s to 720h0m0s`}},
		{"full passes too seldom", with(complete, "SYNC_FULL_INTERVAL=721h"), []string{`SYNC_FULL_INTERVAL (environment): "721h" is not allowed`}},
		{"deletions", with(complete, "sync.max-deletes=-1", "sync.max-deletes-percent=101"), []string{
			`sync.max-deletes (environment): "-1" is not allowed; allowed: a number from 0 to 1000000000`, `sync.max-deletes-percent (environment): "101" is not allowed; allowed: a number from 0 to 100`}},
		{"page size", with(complete, "ldap.page-size=1e3"), []string{`ldap.page-size (environment): "1e3" is not allowed; allowed: a number from 1 to 10000`}},
		{"certificates that cannot be read", with(complete, "ldap.certificate="+nowhere, "GATEWAY_CA_FILE="+os.TempDir()), []string{
			"GATEWAY_CA_FILE (environment): the file \"" + os.TempDir() + "\" cannot be read: is a directory", "ldap.certificate (environment): the file \"" + nowhere + "\" cannot be read: no such file"}},
		{"empty certificate", with(complete, "ldap.certificate="+empty), []string{"ldap.certificate (environment): the file \"" + empty + "\" is not a certificate"}},
		{"secret's file that cannot be read", with(complete, "qualys.user.password=", "QUALYS_USER_PASSWORD_FILE="+nowhere+"/hush"), []string{
			"QUALYS_USER_PASSWORD_FILE (environment): the file it names cannot be read: no such file or directory"}},
		{"secret's file that is empty", with(complete, "qualys.user.password=", "qualys.user.password.file="+empty), []string{
			"qualys.user.password: missing (the file that qualys.user.password.file (environment) names is empty), needed because"}},
		{"one key in two spellings", with(complete, "thread-pool.size=10", "SERVICE_CHILD_THREAD_POOL=11"), []string{
			"thread-pool.size (environment) and SERVICE_CHILD_THREAD_POOL (environment): the same key, given twice with different values"}},
		{"a secret and its file", with(complete, "QUALYS_USER_PASSWORD_FILE="+write(t, "s", "hush too\n")), []string{
			"qualys.user.password (environment) and QUALYS_USER_PASSWORD_FILE (environment): the same key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(c.environ)
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("a secret shows in:\n%v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("got\n%v\nwant\n%s", err, strings.Join(c.want, "\n"))
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, c.want[i]) {
					t.Errorf("got\n%s\nwant\n%s", line, c.want[i])
				}
			}
		})
	}
}

func TestFaultsOfFiles(t *testing.T) {
	t.Parallel()
	a := write(t, "a.env", "thread-pool.size=1\n=hush\nservice.child-thread-pool=2\nlog.level=hush@loud\n")
	b := write(t, "b.env", "\xffhush\nhush hush=1\nthread-pool.size=2\nTHREAD_POOL_SIZE=2\nlog.format=\nlog.format=xml\nlog.format=json\n")
	nowhere := filepath.Join(t.TempDir(), "nowhere.env")
	_, err := load(with(complete, "upload.batch-size=0"), a, b, nowhere)
	want := strings.Join([]string{
		a + " line 2: there is no key before the =; allowed: KEY=VALUE",
		b + " line 1: the line is not valid UTF-8",
		b + " line 2: there is white space in the key; allowed: KEY=VALUE",
		"env file " + nowhere + ": no such file or directory",
		"log.format (" + b + " line 6) and log.format (" + b + " line 7): the same key, given twice with different values; allowed: one of them",
		"thread-pool.size (" + a + " line 1) and service.child-thread-pool (" + a + " line 3): the same key, given twice with different values; allowed: one of them",
		`upload.batch-size (environment): "0" is not allowed; allowed: a number from 1 to 5000`,
		"log.level (" + a + " line 4): the value is not allowed; allowed: trace, debug, info, warn, error",
		"log.format (" + b + ` line 6): "xml" is not allowed; allowed: json, console`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestLayers(t *testing.T) {
	t.Parallel()
	one := write(t, "one.env", "thread-pool.size=1\nservice.child-thread-pool=1\nlog.level=warn\nupload.batch-size=1\nqualys.user.password.file=/nowhere\n")
	two := write(t, "two.env", "SERVICE_CHILD_THREAD_POOL=2\nlog.level=\nHOME\nupload.batch-size=2\nldap.page-size\n")
	environ := with(complete, "THREAD_POOL_SIZE=3", "upload.batch-size=", "ldap.page-size=5")
	c, err := Load(Source{EnvFiles: []string{one, two}, Environ: environ, Flags: map[string]string{"log.format": "console"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []struct {
		name      string
		got, want any
	}{
		{"the environment wins over files, whatever the spelling", c.Upload.Workers, 3},
		{"a later file wins, and an empty value does not override", c.Upload.BatchSize, 2},
		{"an empty value in a later file does not override", c.Log.Level, "warn"},
		{"a key alone comes from the environment", c.Search.PageSize, 5},
		{"flags are heard", c.Log.Format, "console"},
		{"an overridden secret's file is not opened", c.Gateway.Login.Password.Reveal(), "hush"},
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
	if err == nil || !strings.HasPrefix(err.Error(), `log.level (command line): "loud" is not allowed`) {
		t.Errorf("got %v", err)
	}
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
			path := write(t, "secret", c.content)
			for _, spelling := range []string{"oauth.client.secret.file", "OAUTH_CLIENT_SECRET_FILE", "qualys.clientSecret.file", "QUALYS_CLIENTSECRET_FILE"} {
				l := mustLoad(t, with(complete, "authentication.type=OAUTH", "qualys.clientId=x", spelling+"="+path)).Gateway.Login
				if got := l.ClientSecret.Reveal(); got != c.want {
					t.Errorf("%s: got %q, want %q", spelling, got, c.want)
				}
			}
		})
	}
	same := write(t, "same", "hush\n")
	mustLoad(t, with(complete, "qualys.user.password.file="+same, "QUALYS_USER_PASSWORD_FILE="+same))
}

func TestConfigDoesNotPrintSecrets(t *testing.T) {
	t.Parallel()
	for _, environ := range [][]string{
		with(with(with(complete, inDirectory...), inProxy...), "proxy.username=u", "proxy.password=hush"),
		with(complete, oauth...),
	} {
		c := mustLoad(t, environ)
		encoded, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range []any{c, *c, c.Gateway.Login, c.Gateway.Proxy, c.Directory, string(encoded)} {
			for _, verb := range []string{"%v", "%+v", "%#v"} {
				text := fmt.Sprintf(verb, value)
				if strings.Contains(text, "hush") {
					t.Errorf("%s shows a secret: %s", verb, text)
				}
			}
		}
	}
}
