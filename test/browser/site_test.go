package browser

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"adconnector/internal/cli"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
)

// A site is a gateway whose inventory came from a directory by real runs of the
// connector, over real sockets.
type site struct {
	url       string
	directory *sandbox.Directory
	users     int // in the inventory, deleted ones included
	groups    int
}

const (
	customer   = "0b1c4a3e-9a55-4c0e-8f3a-1d2b3c4d5e6f"
	connection = "5f0d7b9a-41f5-4f8e-9d06-7a8b9c0d1e2f"
	profile    = "c3f2a1b0-0a9b-4c8d-8e7f-6a5b4c3d2e1f"
)

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

// shared is the site that all tests look at; none of them changes it.
var shared = sync.OnceValues(func() (*site, error) {
	s, err := newSite(230, 60)
	if err != nil {
		return nil, err
	}
	return s, s.fill()
})

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

func newSite(users, groups int) (*site, error) {
	const password = "Pw-1-of-the-sandbox"
	s := &site{directory: sandbox.NewDirectory(sandbox.DirectoryOptions{
		Users: users, Groups: groups, Seed: 1, Password: password, ReadsDeleted: true,
	})}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.directory.Serve(context.Background(), nil, secure) })
	undoLater(func() {
		s.directory.Close()
		serving.Wait()
	})
	g := sandbox.NewGateway(sandbox.GatewayOptions{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile, Username: "sandbox", Password: password,
		Connection: &sandbox.Connection{ConnectionUUID: connection, Name: "Sandbox", Authentication: sandbox.Authentication{
			Type: "LDAPS", Host: "127.0.0.1", Port: secure.Addr().(*net.TCPAddr).Port, BindDN: s.directory.BindDN(), Password: password,
			Certificate: string(s.directory.CertificatePEM()),
		}},
		Profile: &gateway.Profile{ProfileUUID: profile, Name: "Sandbox", BaseContext: s.directory.Base(), SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"},
	})
	server := httptest.NewServer(g)
	undoLater(server.Close)
	s.url = server.URL
	return s, nil
}

// fill runs the connector twice: over everything, and over some changes.
func (s *site) fill() error {
	for _, person := range hostile {
		attributes := map[string][]string{"objectClass": {"user"}}
		for name, value := range map[string]string{"displayName": person.display, "mail": person.mail, "title": person.name} {
			if value != "" {
				attributes[name] = []string{value}
			}
		}
		if err := s.directory.Add(sandbox.Object{DN: "CN=" + escaped(person.name) + ",CN=Users," + s.directory.Base(), Attributes: attributes}); err != nil {
			return err
		}
	}
	leaver := "CN=Leaver,CN=Users," + s.directory.Base()
	if err := s.directory.Add(sandbox.Object{DN: leaver, Attributes: map[string][]string{"objectClass": {"user"}}}); err != nil {
		return err
	}
	state, err := os.MkdirTemp("", "browser")
	if err != nil {
		return err
	}
	undoLater(func() { _ = os.RemoveAll(state) })
	if err := s.run(state); err != nil {
		return err
	}
	if err := s.directory.Delete(leaver); err != nil {
		return err
	}
	if err := s.run(state); err != nil {
		return err
	}
	for _, o := range s.directory.Objects() {
		switch o.First("sAMAccountType") {
		case "805306368":
			s.users++
		case "268435456", "268435457", "536870912", "536870913":
			s.groups++
		}
	}
	s.users++ // the one that left
	return nil
}

// escaped is a name as a distinguished name has it.
func escaped(name string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `<`, `\<`, `>`, `\>`, `;`, `\;`, `,`, `\,`, `+`, `\+`).Replace(name)
}

// run is one synchronisation by the program itself.
func (s *site) run(state string) error {
	environ := map[string]string{
		"connector.api.url": s.url, "qualys.customerUuid": customer, "qualys.connectionUuid": connection, "qualys.profileUuid": profile,
		"authentication.type": "BASIC", "qualys.user.username": "sandbox", "qualys.user.password": "Pw-1-of-the-sandbox",
		"service.cron-expression": "*/10 * * * *", "service.state-dir": filepath.Join(state, "state"),
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(environ)) {
		pairs = append(pairs, key+"="+environ[key])
	}
	var stdout, stderr bytes.Buffer
	if code := cli.Main([]string{"sync"}, pairs, &stdout, &stderr); code != 0 {
		return fmt.Errorf("sync ended with %d: %s%s", code, stderr.String(), stdout.String())
	}
	return nil
}

// visited is the shared site in a browser.
func visited(t *testing.T, s screen) (*tab, *site) {
	t.Helper()
	b := open(t, s)
	filled, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return b, filled
}
