package browser

import (
	"bytes"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"adconnector/internal/cli"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/inventory"
	"adconnector/test/testenv"
)

// site is an environment with the inventory pages of its gateway. Runs of the connector fill
// the inventory.
type site struct {
	*testenv.Environment
	url    string
	users  int // in the inventory, including deleted ones
	groups int
}

// hostileUsers have markup, scripts, bidirectional text and long words in their attributes.
var hostileUsers = []struct{ name, display, mail string }{
	{`<script>document.title = "broken"</script>`, `"><img src=x onerror=alert(1)>`, `"&lt;b&gt;"@example.com`},
	{`{{.Secret}} <style>body { display: none }</style>`, `</title></style></textarea><!--`, `javascript:alert(1)@example.com`},
	{"مريم الفارسي", "مريم \u202eالفارسي (Finance)", "maryam@corp.example.com"},
	{"\u202egnp.exe", "override", "override@corp.example.com"},
	{strings.Repeat("Wolfeschlegelsteinhausen", 2) + "bergerdorff", strings.Repeat("x", 250), strings.Repeat("long", 40) + "@example.com"},
	{"🦊 Fox 👩🏽‍🚀", "🦊", "fox@corp.example.com"},
	{"nobody", "", ""},
}

var (
	cleanupsMu sync.Mutex
	cleanups   []func() // run in reverse order
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, cleanup := range slices.Backward(cleanups) {
		cleanup()
	}
	os.Exit(code)
}

// atExit registers a function that runs after all tests.
func atExit(cleanup func()) {
	cleanupsMu.Lock()
	defer cleanupsMu.Unlock()
	cleanups = append(cleanups, cleanup)
}

func newSite(t *testing.T, users, groups int) *site {
	t.Helper()
	s := &site{Environment: testenv.New(t, testenv.Options{
		Directory: domaincontroller.Options{Users: users, Groups: groups, Seed: 1, ReadsDeleted: true},
	})}
	s.Console("LDAPS", s.Base())
	pages := httptest.NewServer(inventory.Handler(s.Gateway.Sandbox()))
	t.Cleanup(pages.Close)
	s.url = pages.URL
	return s
}

// populate adds users and runs the connector twice, with a deletion in between.
func (s *site) populate(t *testing.T) {
	t.Helper()
	for _, person := range hostileUsers {
		attributes := map[string][]string{"objectClass": {"user"}}
		for name, value := range map[string]string{"displayName": person.display, "mail": person.mail, "title": person.name} {
			if value != "" {
				attributes[name] = []string{value}
			}
		}
		s.Must(s.Add(domaincontroller.Object{DN: "CN=" + escapeDN(person.name) + ",CN=Users," + s.Base(), Attributes: attributes}))
	}
	deleted := "CN=Leaver,CN=Users," + s.Base()
	s.Must(s.Add(domaincontroller.Object{DN: deleted, Attributes: map[string][]string{"objectClass": {"user"}}}))
	s.run(t)
	s.Must(s.Delete(deleted))
	s.run(t)
	for _, o := range s.Objects() {
		switch o.First("sAMAccountType") {
		case "805306368":
			s.users++
		case "268435456", "268435457", "536870912", "536870913":
			s.groups++
		}
	}
	s.users++ // the deleted user
}

// escapeDN escapes an attribute value for a DN (RFC 4514).
func escapeDN(name string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `<`, `\<`, `>`, `\>`, `;`, `\;`, `,`, `\,`, `+`, `\+`).Replace(name)
}

// run runs the connector once.
func (s *site) run(t *testing.T) {
	t.Helper()
	settings := s.Gateway.Settings().With(testenv.Settings{
		"authentication.type": "BASIC", "service.cron-expression": "*/10 * * * *", "service.state-dir": s.StateDir,
	})
	var stdout, stderr bytes.Buffer
	if code := cli.Main([]string{"sync"}, settings.Environ(), &stdout, &stderr); code != 0 {
		t.Fatalf("sync: exit code %d: %s%s", code, stderr.String(), stdout.String())
	}
}

// openPosture returns a site with security posture and a tab.
func openPosture(t *testing.T, s screen) (*tab, *site) {
	t.Helper()
	requireBrowser(t)
	site := newSite(t, 230, 60)
	site.Gateway.SetProfile(&gateway.Profile{ProfileUUID: testenv.ProfileUUID, BaseContext: site.Base(), SearchScope: "SUBTREE", Assets: "IDENTITIES_WITH_SECURITY_POSTURE"})
	site.populate(t)
	return open(t, s), site // the tab closes before the site
}

// openSite returns a populated site and a tab.
func openSite(t *testing.T, s screen) (*tab, *site) {
	t.Helper()
	requireBrowser(t)
	site := newSite(t, 230, 60)
	site.populate(t)
	return open(t, s), site // the tab closes before the site
}
