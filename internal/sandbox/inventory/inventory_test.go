package inventory

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
)

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

const (
	customer   = "0b1c4a3e-9a55-4c0e-8f3a-1d2b3c4d5e6f"
	connection = "5f0d7b9a-41f5-4f8e-9d06-7a8b9c0d1e2f"
	profile    = "c3f2a1b0-0a9b-4c8d-8e7f-6a5b4c3d2e1f"
	adSource   = "Microsoft Active Directory"
)

// userAsset is the example of the transformation map.
const userAsset = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-21-1849019280-284467811-1465672680-1103","vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Alice Kovács","userAssetClass":{"id":"S-1-5-21-1849019280-284467811-1465672680-1103","name":"Alice Kovács","email":"alice@corp.example.com","firstName":"Alice","lastName":"Kovács","displayName":"Alice Kovács","phone":"+1 555 0100","jobTitle":"Engineer","activationDate":"2026-11-22T07:23:06.000Z","passwordLastChangedAt":"2026-11-22T07:33:13.845Z","failedPasswordAttemptCount":0,"currentAddress":{"city":"Pune","country":"India","state":"MH"},"status":"ACTIVE"}}}}`

const groupAsset = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-32-544","vendorAssetId":"1a2b3c4d-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Admins","groupAssetClass":{"id":"S-1-5-32-544","name":"Admins","displayName":"Admins","description":"All of them","type":"SECURITY","visibility":"PRIVATE"}}}}`

// site is a gateway with its inventory. Its token is good for the gateway's calls.
type site struct {
	gateway *gatewayserver.Server
	handler http.Handler
	token   string
}

func newSite(t testing.TB, trust bool) *site {
	t.Helper()
	s := &site{gateway: gatewayserver.New(gatewayserver.Options{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile, Username: "alice", Password: "secret", Trust: trust,
	})}
	s.handler = Handler(s.gateway)
	w := s.call("POST", "/auth", "username=alice&password=secret&token=true", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
	if s.token = w.Body.String(); w.Code != http.StatusCreated {
		t.Fatalf("login: %d %s", w.Code, w.Body)
	}
	return s
}

func (s *site) call(method, path, body string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	header.Set("User-Agent", "adconnector/test")
	r.Header = header
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// send sends assets to the gateway as one batch.
func (s *site) send(t testing.TB, source string, items ...string) {
	t.Helper()
	id := uuid.NewString()
	meta, err := json.Marshal(gateway.MetaData{
		RequestID: id, AssetCount: len(items), Source: source, ConnectorUUID: connection, CustomerUUID: customer, ProfileUUID: profile,
	})
	if err != nil {
		t.Fatal(err)
	}
	w := s.call("POST", "/rest/2.0/am/connector/asset/data/sync", fmt.Sprintf(`{"connectorMetaData":%s,"assetData":[%s]}`, meta, strings.Join(items, ",")),
		http.Header{"Authorization": {"Bearer " + s.token}, "Content-Type": {mediaJSON}, "Idempotency-Key": {id}})
	if w.Code != http.StatusAccepted {
		t.Fatalf("assets: %d %s", w.Code, w.Body)
	}
}

// look asks for a page as a browser does, or with another Accept.
func (s *site) look(path string, accept ...string) *httptest.ResponseRecorder {
	if accept == nil {
		accept = []string{browser}
	}
	return s.call("GET", path, "", http.Header{"Accept": accept})
}

// person is userAsset with another identity.
func person(n int, name, email, status string) string {
	detail := map[string]any{"id": fmt.Sprintf("S-1-5-21-1-2-3-%d", 1000+n), "name": name, "displayName": "Display of " + name, "status": status}
	if email != "" {
		detail["email"] = email
	}
	asset, _ := json.Marshal(map[string]any{"asset": map[string]any{
		"assetHeader": map[string]any{"externalAssetId": detail["id"], "vendorAssetId": fmt.Sprintf("%08x-0000-4000-8000-000000000000", n)},
		"assetDetail": map[string]any{"name": name, "userAssetClass": detail},
	}})
	return string(asset)
}

// populated is a gateway that took some users from each of two sources.
func populated(t *testing.T) *site {
	t.Helper()
	s := newSite(t, false)
	s.send(t, adSource, person(1, "Zoë", "zoe@corp.example.com", "ACTIVE"), person(2, "anna", "", "LOCKED"), person(3, "Boris", "boris@corp.example.com", "ACTIVE"), groupAsset)
	s.send(t, "O'Brien's", person(4, "Anna", "anna@other.example.com", "DISABLED"))
	return s
}

// listing is what a program gets.
type listed struct {
	Message string
	Total   int
	Items   []struct {
		Asset struct {
			AssetDetail struct{ Name string }
		}
		Source string
		Times  int
	}
}

func TestInquiry(t *testing.T) {
	t.Parallel()
	g := populated(t)
	for _, test := range []struct{ query, want string }{
		{"", "Zoë anna Boris Anna"},
		{"sort=name", "anna Anna Boris Zoë"},
		{"sort=-name", "Zoë Boris anna Anna"},
		{"sort=-vendorAssetId", "Anna Boris anna Zoë"},
		{"sort=email", "Anna Boris Zoë anna"}, // what is empty comes last
		{"sort=-email", "Zoë Boris Anna anna"},
		{"q=ANNA", "anna Anna"},
		{"q=ZOË", "Zoë"},
		{"q=anna+other", "Anna"},
		{"q=display+of+b", "Boris"},
		{"q=S-1-5-21-1-2-3-1002", "anna"},
		{"q=00000003-0000", "Boris"},
		{`q="of anna"`, "anna Anna"},
		{`q="anna of"`, ""},
		{"q=nobody", ""},
		{"status=ACTIVE", "Zoë Boris"},
		{"status=ACTIVE&status=LOCKED&status=", "Zoë anna Boris"},
		{"q=status:active", "Zoë Boris"},
		{"q=status: ('ACTIVE', disabled)", "Zoë Boris Anna"},
		{"q=status:LOCKED AND anna", "anna"},
		{"q=and", ""},
		{"q=inventory.source: ('Microsoft Active Directory')", "Zoë anna Boris"},
		{`q=inventory.source:"Microsoft Active Directory" boris`, "Boris"},
		{`q=inventory.source: ('O\'Brien\'s')`, "Anna"},
		{`q=inventory.source: ("O'Brien's", 'Microsoft Active Directory') and status: ACTIVE`, "Zoë Boris"},
		{"source=O'Brien's", "Anna"},
		{"source=O'Brien's&status=ACTIVE", ""},
		{"sort=name&limit=2&offset=1", "Anna Boris"},
		{"sort=name&limit=0", ""},
		{`q="inventory.source:"`, ""},

		{"q=inventory.sauce: x", "! inventory.sauce is no query term of users: use inventory.source, status, or put it in quotes to search for the text"},
		{"q=visibility:PUBLIC", "! visibility is no query term of users: use inventory.source, status, or put it in quotes to search for the text"},
		{"q=status:", "! status has no value: write status: ('…')"},
		{"q=status:()", "! status lacks a value in its parentheses: write status: ('…')"},
		{"q=status:(ACTIVE", "! the parenthesis after status is not closed: write status: ('…')"},
		{"q=status:('ACTIVE", "! a quote is not closed: 'ACTIVE"},
		{"q='t Hooft", "! a quote is not closed: 't Hooft"},
		{"q=status:ACTIVE or anna", "! or is not understood between terms: they are joined by and"},
		{"q=not status:ACTIVE", "! not is not understood between terms: they are joined by and"},
		{"q=status:x", "! status cannot be x: use ACTIVE, DISABLED, EXPIRED, LOCKED, PASSWORD_EXPIRED, DELETED"},
		{"status=x", "! status cannot be x: use ACTIVE, DISABLED, EXPIRED, LOCKED, PASSWORD_EXPIRED, DELETED"},
		{"sort=phone", "! sort cannot be phone: use vendorAssetId, name, email, jobTitle, status, lastSuccessfulLoginAt, passwordLastChangedAt, receivedAt, with a minus before it for the other way round"},
		{"stat=ACTIVE", "! stat is no parameter of users: use q, source, sort, offset, limit, format, status"},
		{"limit=-1", "! limit must be a number from 0"},
		{"offset=x", "! offset must be a number from 0"},
	} {
		query, err := url.ParseQuery(strings.ReplaceAll(test.query, ";", "%3B"))
		if err != nil {
			t.Fatal(err)
		}
		w := g.look("/inventory/users?"+query.Encode(), "application/json")
		var answer listed
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, item := range answer.Items {
			names = append(names, item.Asset.AssetDetail.Name)
		}
		got := strings.Join(names, " ")
		if w.Code != http.StatusOK {
			got = "! " + answer.Message
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.query, got, test.want)
		}
		page := g.look("/inventory/users?" + query.Encode())
		if page.Code != w.Code || w.Code == http.StatusBadRequest && !strings.Contains(page.Body.String(), `role="alert"`) {
			t.Errorf("%s: %d, its page %d", test.query, w.Code, page.Code)
		}
	}
}

// TestInventoryFollows: a listing that was shown before does not hold back what came
// since, and what was trusted is listed as what was checked is.
func TestInventoryFollows(t *testing.T) {
	t.Parallel()
	for _, trust := range []bool{false, true} {
		g := newSite(t, trust)
		for i, want := range []string{"ACTIVE", "DELETED"} {
			g.send(t, adSource, person(1, "one", "one@corp.example.com", want), person(2+i, "more", "", "ACTIVE"))
			var answer listed
			w := g.look("/inventory/users?q=one@corp&status="+want, "application/json")
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Total != 1 || answer.Items[0].Times != i+1 || answer.Items[0].Source != "Microsoft Active Directory" {
				t.Errorf("trust %v: %s", trust, w.Body)
			}
			if page := g.look("/inventory/users").Body.String(); !strings.Contains(page, fmt.Sprintf(`<span class="total">%d</span>`, 2+i)) {
				t.Errorf("trust %v: the page does not count %d", trust, 2+i)
			}
		}
	}
}

func TestWhoWantsPages(t *testing.T) {
	t.Parallel()
	g := populated(t)
	const path = "/inventory/users/00000001-0000-4000-8000-000000000000"
	for accept, page := range map[string]bool{
		browser: true, "text/html": true, "text/html;q=0.5": true, "TEXT/HTML": true, "application/json;q=0.3, text/html;q=0.4": true,
		"": false, "*/*": false, "application/json": false, "text/html, application/json": false, "text/html;q=0.5, application/json": false,
		"text/html;q=0": false, "text/html;;": false, "application/xml": false,
	} {
		for _, path := range []string{"/inventory/users", "/inventory/groups", "/inventory/states", "/inventory/requests", path, "/inventory/nowhere"} {
			w := g.look(path, accept)
			if got := strings.HasPrefix(w.Header().Get("Content-Type"), "text/html"); got != page {
				t.Errorf("%s with Accept %q: a page %v, want %v", path, accept, got, page)
			}
		}
	}
	if w := g.look(path + "?format=json"); w.Header().Get("Content-Type") != mediaJSON {
		t.Errorf("?format=json: %s", w.Header().Get("Content-Type"))
	}
}

func TestPagesAreGuarded(t *testing.T) {
	t.Parallel()
	g := populated(t)
	for path, status := range map[string]int{
		"/": 302, "/inventory": 302, "/inventory/": 302,
		"/inventory/users": 200, "/inventory/groups": 200, "/inventory/states": 200, "/inventory/requests": 200,
		"/inventory/users/00000001-0000-4000-8000-000000000000":  200,
		"/inventory/users/00000009-0000-4000-8000-000000000000":  404,
		"/inventory/groups/00000001-0000-4000-8000-000000000000": 404, // it is a user
		"/inventory/nowhere": 404, "/inventory/users?q=x:y": 400, "/inventory/states?limit=x": 400,
		styleSheet.path: 200, icon.path: 200, "/favicon.ico": 200,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			w := g.call(method, path, "", http.Header{"Accept": {browser}})
			if w.Code != status {
				t.Errorf("%s %s: %d, want %d", method, path, w.Code, status)
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
				"X-Content-Type-Options":  "nosniff",
				"Referrer-Policy":         "no-referrer",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %s %q", path, name, got)
				}
			}
			if status == 302 && w.Header().Get("Location") != "/inventory/users" {
				t.Errorf("%s leads to %s", path, w.Header().Get("Location"))
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, path := range []string{"/inventory", "/inventory/users", "/inventory/users/x", "/inventory/nowhere", styleSheet.path} {
			if w := g.call(method, path, "", http.Header{}); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if requests, breaches := len(g.gateway.Requests()), g.gateway.Violations(); requests != 3 || len(breaches) != 0 {
		t.Errorf("looking counts as %d requests, breaches %q", requests, breaches)
	}
}

// TestOneIdentity: a field that the table does not know is shown all the same, and
// programs get the asset as it came.
func TestOneIdentity(t *testing.T) {
	t.Parallel()
	g := newSite(t, false)
	g.send(t, adSource, userAsset, groupAsset)
	w := g.look("/inventory/users/2323A9B0-6c59-4bd2-9e86-eec4d73a8b8d", "application/json")
	var d document
	var item struct{ Asset json.RawMessage }
	if err := json.Unmarshal([]byte(userAsset), &item); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || string(d.Asset) != string(item.Asset) || d.Times != 1 || d.ReceivedAt.IsZero() || d.Source != "Microsoft Active Directory" {
		t.Errorf("%s", w.Body)
	}
	page := g.look("/inventory/users/2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d").Body.String()
	for _, want := range []string{
		"<h1 class=\"name\"><bdi>Alice Kovács</bdi></h1>", "<dt>City</dt><dd><bdi>Pune</bdi></dd>", "<dt>Street</dt><dd><span class=\"none\">–</span></dd>",
		`<time datetime="2026-11-22T07:33:13.845Z" title="2026-11-22T07:33:13.845Z">2026-11-22 07:33</time>`, `<span class="chip good">Active</span>`, "<b>once</b>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %s", want)
		}
	}
	if strings.Contains(page, "<h2>More</h2>") {
		t.Error("there is more than the table knows")
	}
	values := flatten(kinds[0], &gatewayserver.Identity{Asset: json.RawMessage(`{"asset":{"assetDetail":{"userAssetClass":{"posture":{"risk":{"score":7}},"tags":["a"]}}}}`)})
	if values["posture.risk.score"] != "7" || values["tags"] != `["a"]` {
		t.Errorf("flattened: %q", values)
	}
}

// TestHostileTexts: what a directory or a request holds is text on a page, never
// markup, and what cannot be seen is told as such.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	g := newSite(t, false)
	const evil = `"><script>alert(1)</script>'</title>`
	g.send(t, `"><b>source</b>`, person(1, evil, evil, "ACTIVE"), person(2, "\u200b \u3164", "x@example.com", "ACTIVE"))
	g.look("/inventory/users")
	g.call("GET", "/%3Cscript%3Ealert(2)%3C/script%3E", "", http.Header{})
	state, err := json.Marshal(map[string]any{"customerUuid": customer, "profileUuid": profile, "state": "SCHEDULED", "runId": uuid.NewString(),
		"at": "2026-11-22T10:00:00.000Z", "nextRunAt": nil, "error": evil, "summary": nil})
	if err != nil {
		t.Fatal(err)
	}
	if w := g.call("PUT", "/rest/2.0/am/connector/connection/"+connection+"/state", string(state),
		http.Header{"Authorization": {"Bearer " + g.token}, "Content-Type": {mediaJSON}}); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	for _, path := range []string{
		"/inventory/users", "/inventory/users/00000001-0000-4000-8000-000000000000", "/inventory/users/" + url.PathEscape(evil), "/inventory/" + url.PathEscape(evil),
		"/inventory/users?q=" + url.QueryEscape(evil), "/inventory/users?q=" + url.QueryEscape("x:"+evil), "/inventory/users?source=" + url.QueryEscape(evil),
		"/inventory/users?" + url.QueryEscape(evil) + "=1", "/inventory/users?sort=" + url.QueryEscape(evil), "/inventory/states", "/inventory/requests",
	} {
		body := g.look(path).Body.String()
		if strings.Contains(body, "<script") || strings.Contains(body, "<b>source") || strings.Count(body, "</title>") != 1 || !strings.HasSuffix(body, "</html>\n\n") && !strings.HasSuffix(body, "</html>\n") {
			t.Errorf("%s: markup from outside, or cut short: %s", path, body)
		}
	}
	if body := g.look("/inventory/users").Body.String(); !strings.Contains(body, ">(no name)</a>") {
		t.Error("a name that cannot be seen has no link that can")
	}
}

func TestPaging(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cut   cut
		total int
		want  pages
	}{
		{cut{0, -1}, 0, pages{Total: 0, From: 0, To: 0, Page: 1, Last: 1}},
		{cut{0, -1}, 50, pages{Total: 50, From: 1, To: 50, Page: 1, Last: 1}},
		{cut{0, -1}, 51, pages{Total: 51, From: 1, To: 50, Page: 1, Last: 2, ForwardURL: "50 50", LastURL: "50 50"}},
		{cut{50, -1}, 120, pages{Total: 120, From: 51, To: 100, Page: 2, Last: 3, FirstURL: "0 50", BackURL: "0 50", ForwardURL: "100 50", LastURL: "100 50"}},
		{cut{7, 3}, 9, pages{Total: 9, From: 7, To: 9, Page: 3, Last: 3, FirstURL: "0 3", BackURL: "3 3"}},
		{cut{1 << 40, 5000}, 1001, pages{Total: 1001, From: 1001, To: 1001, Page: 2, Last: 2, FirstURL: "0 1000", BackURL: "0 1000"}},
	} {
		c := test.cut
		got := c.turn(test.total, func(c cut) string { return fmt.Sprint(c.offset, " ", c.limit) })
		if got != test.want {
			t.Errorf("%+v of %d: %+v, want %+v", test.cut, test.total, got, test.want)
		}
		if n := len(part(c, make([]int, test.total))); n != got.To-max(got.From-1, 0) {
			t.Errorf("%+v of %d: %d rows", test.cut, test.total, n)
		}
	}
}

// TestSortKeepsAll: no order loses or repeats a row.
func TestSortKeepsAll(t *testing.T) {
	t.Parallel()
	g := newInventory(populated(t).gateway)
	for _, k := range kinds {
		for _, c := range k.columns {
			for _, sort := range []string{c.key, "-" + c.key} {
				rows := slices.Clone(g.listed(k, sort))
				slices.SortFunc(rows, func(a, b *row) int { return strings.Compare(a.VendorAssetID, b.VendorAssetID) })
				if !slices.Equal(rows, g.listed(k, vendorAssetID)) {
					t.Errorf("%s by %s: %d rows", k.many, sort, len(rows))
				}
			}
		}
	}
}

// BenchmarkInventoryPage shows pages of 100,000 users: the first one after a change,
// by each column anew, and those that follow.
func BenchmarkInventoryPage(b *testing.B) {
	const users, batch = 100_000, 1000
	g := newSite(b, true)
	for range users / batch {
		items := make([]string, batch)
		for i := range items {
			id := uuid.NewString()
			items[i] = strings.NewReplacer("2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d", id, "Alice Kovács", "Alice "+id[:6]+" Kovács", "alice@", "alice."+id[:6]+"@").Replace(userAsset)
		}
		g.send(b, adSource, items...)
	}
	page := func(b *testing.B, query string) {
		if w := g.look("/inventory/users?" + query); w.Code != http.StatusOK || w.Body.Len() < 10_000 {
			b.Fatal(w.Code, w.Body)
		}
	}
	for _, test := range []struct {
		name, query string
		changed     bool
	}{
		{"changed/name", "", true},
		{"changed/email", "sort=email", true},
		{"changed/received", "sort=-receivedAt", true},
		{"unchanged/first", "", false},
		{"unchanged/last", "offset=99950", false},
		{"unchanged/search", "q=alice+kovács+1a", false},
		{"unchanged/filter", "source=Microsoft+Active+Directory&status=ACTIVE", false},
	} {
		b.Run(test.name, func(b *testing.B) {
			for b.Loop() {
				if test.changed {
					g.send(b, adSource, userAsset)
				}
				page(b, test.query)
			}
		})
	}
}
