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
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/inventory"
	"adconnector/test/testenv"
)

// site is an environment whose gateway shows its inventory. The inventory comes from the
// directory by runs of the connector.
type site struct {
	*testenv.Environment
	url    string
	users  int // in the inventory, deleted ones included
	groups int
}

// hostile are people whose fields are not what a page would like them to be.
var hostile = []struct{ name, display, mail string }{
	{`<script>document.title = "broken"</script>`, `"><img src=x onerror=alert(1)>`, `"&lt;b&gt;"@example.com`},
	{`{{.Secret}} <style>body { display: none }</style>`, `</title></style></textarea><!--`, `javascript:alert(1)@example.com`},
	{"مريم الفارسي", "مريم \u202eالفارسي (Finance)", "maryam@corp.example.com"},
	{"\u202egnp.exe", "override", "override@corp.example.com"},
	{strings.Repeat("Wolfeschlegelsteinhausen", 2) + "bergerdorff", strings.Repeat("x", 250), strings.Repeat("long", 40) + "@example.com"},
	{"🦊 Fox 👩🏽‍🚀", "🦊", "fox@corp.example.com"},
	{"nobody", "", ""},
}

var (
	workMu sync.Mutex
	work   []func() // to be undone, the last first
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, undo := range slices.Backward(work) {
		undo()
	}
	os.Exit(code)
}

func undoLater(undo func()) {
	workMu.Lock()
	defer workMu.Unlock()
	work = append(work, undo)
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

// fill runs the connector twice: over everything, and over some changes.
func (s *site) fill(t *testing.T) {
	t.Helper()
	for _, person := range hostile {
		attributes := map[string][]string{"objectClass": {"user"}}
		for name, value := range map[string]string{"displayName": person.display, "mail": person.mail, "title": person.name} {
			if value != "" {
				attributes[name] = []string{value}
			}
		}
		s.Must(s.Add(domaincontroller.Object{DN: "CN=" + escaped(person.name) + ",CN=Users," + s.Base(), Attributes: attributes}))
	}
	leaver := "CN=Leaver,CN=Users," + s.Base()
	s.Must(s.Add(domaincontroller.Object{DN: leaver, Attributes: map[string][]string{"objectClass": {"user"}}}))
	s.run(t)
	s.Must(s.Delete(leaver))
	s.run(t)
	for _, o := range s.Objects() {
		switch o.First("sAMAccountType") {
		case "805306368":
			s.users++
		case "268435456", "268435457", "536870912", "536870913":
			s.groups++
		}
	}
	s.users++ // the one that left
}

// escaped is a name as a distinguished name has it.
func escaped(name string) string {
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
		t.Fatalf("sync ended with %d: %s%s", code, stderr.String(), stdout.String())
	}
}

// visited opens a tab and fills a site for it.
func visited(t *testing.T, s screen) (*tab, *site) {
	t.Helper()
	requireBrowser(t)
	filled := newSite(t, 230, 60)
	filled.fill(t)
	return open(t, s), filled // the tab closes before the site does
}
