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
	password   = "Pa55w0rd"
	adSource   = "Microsoft Active Directory"
)

// userAsset is the example of the transformation specification.
const userAsset = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-21-1849019280-284467811-1465672680-1103","vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Alice Kovács","userAssetClass":{"id":"S-1-5-21-1849019280-284467811-1465672680-1103","name":"Alice Kovács","email":"alice@corp.example.com","firstName":"Alice","lastName":"Kovács","displayName":"Alice Kovács","phone":"+1 555 0100","jobTitle":"Engineer","activationDate":"2026-11-22T07:23:06.000Z","passwordLastChangedAt":"2026-11-22T07:33:13.845Z","failedPasswordAttemptCount":0,"currentAddress":{"city":"Pune","country":"India","state":"MH"},"status":"ACTIVE"}}}}`

const groupAsset = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-32-544","vendorAssetId":"1a2b3c4d-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Admins","groupAssetClass":{"id":"S-1-5-32-544","name":"Admins","displayName":"Admins","description":"All of them","type":"SECURITY","visibility":"PRIVATE"}}}}`

// site is a gateway server with its inventory, and a token for the gateway server.
type site struct {
	gateway *gatewayserver.Server
	handler http.Handler
	token   string
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{gateway: gatewayserver.New(gatewayserver.Options{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile, Username: "alice", Password: password,
	})}
	s.handler = Handler(s.gateway)
	w := s.call("POST", "/auth", "username=alice&password="+password+"&token=true", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
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

// send sends assets to the gateway server in one batch.
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
		http.Header{"Authorization": {"Bearer " + s.token}, "Content-Type": {"application/json"}, "Idempotency-Key": {id}})
	if w.Code != http.StatusAccepted {
		t.Fatalf("assets: %d %s", w.Code, w.Body)
	}
}

// get requests a page with the Accept header of a browser, or with another one.
func (s *site) get(path string, accept ...string) *httptest.ResponseRecorder {
	if accept == nil {
		accept = []string{browser}
	}
	return s.call("GET", path, "", http.Header{"Accept": accept})
}

// person returns a user asset.
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

// filledSite returns a site with users from two sources.
func filledSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.send(t, adSource, person(1, "Zoë", "zoe@corp.example.com", "ACTIVE"), person(2, "anna", "", "LOCKED"), person(3, "Boris", "boris@corp.example.com", "ACTIVE"), groupAsset)
	s.send(t, "O'Brien's", person(4, "Anna", "anna@other.example.com", "DISABLED"))
	return s
}

// listingJSON is a listing in JSON.
type listingJSON struct {
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

func TestQuery(t *testing.T) {
	t.Parallel()
	s := filledSite(t)
	for _, test := range []struct {
		name, query string
		want        string // names in order
		message     string // of the 400 response
	}{
		{name: "no parameters", query: "", want: "Zoë anna Boris Anna"},
		{name: "sort by name", query: "sort=name", want: "anna Anna Boris Zoë"},
		{name: "sort by name, descending", query: "sort=-name", want: "Zoë Boris anna Anna"},
		{name: "sort by GUID, descending", query: "sort=-vendorAssetId", want: "Anna Boris anna Zoë"},
		{name: "empty values last", query: "sort=email", want: "Anna Boris Zoë anna"},
		{name: "empty values last, descending", query: "sort=-email", want: "Zoë Boris Anna anna"},
		{name: "word", query: "q=ANNA", want: "anna Anna"},
		{name: "word beyond ASCII", query: "q=ZOË", want: "Zoë"},
		{name: "two words", query: "q=anna+other", want: "Anna"},
		{name: "words of the display name", query: "q=display+of+b", want: "Boris"},
		{name: "SID", query: "q=S-1-5-21-1-2-3-1002", want: "anna"},
		{name: "part of the GUID", query: "q=00000003-0000", want: "Boris"},
		{name: "no match", query: "q=nobody", want: ""},
		{name: "status", query: "status=ACTIVE", want: "Zoë Boris"},
		{name: "empty parameters", query: "status=&source=&q=", want: "Zoë anna Boris Anna"},
		{name: "source", query: "source=O'Brien's", want: "Anna"},
		{name: "source and status", query: "source=O'Brien's&status=ACTIVE", want: ""},
		{name: "typed source", query: "q=inventory.source: ('Microsoft Active Directory')", want: "Zoë anna Boris"},
		{name: "typed source and word", query: `q=inventory.source:"Microsoft Active Directory" boris`, want: "Boris"},
		{name: "word and typed source", query: `q=anna inventory.source: ("O'Brien's")`, want: "Anna"},
		{name: "typed source in one word", query: "q=inventory.source:Okta", want: ""},
		{name: "typed source and the same source", query: `q=inventory.source:"O'Brien's"&source=O'Brien's`, want: "Anna"},
		{name: "limit and offset", query: "sort=name&limit=2&offset=1", want: "Anna Boris"},
		{name: "limit 0", query: "sort=name&limit=0", want: ""},
		{name: "offset after the end", query: "offset=100&limit=9223372036854775807", want: ""},

		{name: "other term", query: "q=inventory.sauce: x", message: "term inventory.sauce: is not supported: use inventory.source: ('Microsoft Active Directory')"},
		{name: "typed source unclosed", query: "q=inventory.source: ('Micro", message: "term inventory.source: is not supported: use inventory.source: ('Microsoft Active Directory')"},
		{name: "two sources", query: "q=inventory.source:Okta&source=Entra", message: "inventory.source Okta and source Entra exclude each other"},
		{name: "unknown status", query: "status=x", message: "status x is unknown: use ACTIVE, DISABLED, EXPIRED, LOCKED, PASSWORD_EXPIRED, DELETED"},
		{name: "unknown sort", query: "sort=phone", message: "sort phone is unknown: use vendorAssetId, name, privileged, email, jobTitle, status, lastSuccessfulLoginAt, passwordLastChangedAt, receivedAt, with a minus before it for descending order"},
		{name: "unknown parameter", query: "stat=ACTIVE", message: "parameter stat is unknown: use q, source, sort, offset, limit, format, privileged, status"},
		{name: "parameter twice", query: "status=ACTIVE&status=LOCKED", message: "parameter status is given more than once"},
		{name: "negative limit", query: "limit=-1", message: "limit must be a number from 0"},
		{name: "offset not a number", query: "offset=x", message: "offset must be a number from 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			parameters, err := url.ParseQuery(test.query)
			if err != nil {
				t.Fatal(err)
			}
			path := "/inventory/users?" + parameters.Encode()
			w := s.get(path, "application/json")
			var response listingJSON
			if err := json.Unmarshal(w.Body.Bytes(), &response); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, item := range response.Items {
				names = append(names, item.Asset.AssetDetail.Name)
			}
			if got := strings.Join(names, " "); got != test.want || response.Message != test.message {
				t.Errorf("names %q, message %q", got, response.Message)
			}
			status := http.StatusOK
			if test.message != "" {
				status = http.StatusBadRequest
			}
			page := s.get(path)
			if w.Code != status || page.Code != status || strings.Contains(page.Body.String(), `role="alert"`) != (test.message != "") {
				t.Errorf("status %d, of the page %d: %s", w.Code, page.Code, page.Body)
			}
		})
	}
}

// TestListingIsCurrent requests a listing again after the gateway server has received
// assets.
func TestListingIsCurrent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i, status := range []string{"ACTIVE", "DELETED"} {
		s.send(t, adSource, person(1, "one", "one@corp.example.com", status), person(2+i, "more", "", "ACTIVE"))
		var response listingJSON
		w := s.get("/inventory/users?q=one@corp&status="+status, "application/json")
		if err := json.Unmarshal(w.Body.Bytes(), &response); err != nil || response.Total != 1 || response.Items[0].Times != i+1 || response.Items[0].Source != adSource {
			t.Errorf("status %s: %s", status, w.Body)
		}
		if page := s.get("/inventory/users").Body.String(); !strings.Contains(page, fmt.Sprintf(`<span class="total">%d</span>`, 2+i)) {
			t.Errorf("status %s: page does not count %d users", status, 2+i)
		}
	}
}

func TestContentNegotiation(t *testing.T) {
	t.Parallel()
	s := filledSite(t)
	const path = "/inventory/users/00000001-0000-4000-8000-000000000000"
	for accept, page := range map[string]bool{
		browser: true, "text/html": true, "TEXT/HTML": true,
		"": false, "*/*": false, "application/json": false, "text/html, application/json": false, "application/xml": false,
	} {
		for _, path := range []string{"/inventory/users", "/inventory/groups", "/inventory/states", "/inventory/requests", path, "/inventory/nowhere"} {
			w := s.get(path, accept)
			if got := strings.HasPrefix(w.Header().Get("Content-Type"), "text/html"); got != page {
				t.Errorf("%s with Accept %q: HTML %v, want %v", path, accept, got, page)
			}
		}
	}
	if w := s.get(path + "?format=json"); w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("?format=json: %s", w.Header().Get("Content-Type"))
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := filledSite(t)
	for path, status := range map[string]int{
		"/": 302, "/inventory": 302, "/inventory/": 302,
		"/inventory/users": 200, "/inventory/groups": 200, "/inventory/states": 200, "/inventory/requests": 200,
		"/inventory/users/00000001-0000-4000-8000-000000000000":  200,
		"/inventory/users/00000009-0000-4000-8000-000000000000":  404,
		"/inventory/groups/00000001-0000-4000-8000-000000000000": 404, // it is a user
		"/inventory/nowhere": 404, "/inventory/users?status=x": 400, "/inventory/states?limit=x": 400,
		"/inventory/style.css": 200, "/inventory/icon.svg": 200, "/favicon.ico": 200,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			w := s.call(method, path, "", http.Header{"Accept": {browser}})
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
				t.Errorf("%s redirects to %s", path, w.Header().Get("Location"))
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, path := range []string{"/inventory", "/inventory/users", "/inventory/users/x", "/inventory/nowhere", "/inventory/style.css"} {
			if w := s.call(method, path, "", http.Header{}); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if requests, violations := len(s.gateway.Requests()), s.gateway.Violations(); requests != 3 || len(violations) != 0 {
		t.Errorf("%d gateway requests, want 3; violations %q", requests, violations)
	}
}

// TestObject: JSON contains the asset unchanged, and the page all of its fields.
func TestObject(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.send(t, adSource, userAsset, groupAsset)
	w := s.get("/inventory/users/2323A9B0-6c59-4bd2-9e86-eec4d73a8b8d", "application/json")
	var d document
	var item struct{ Asset json.RawMessage }
	if err := json.Unmarshal([]byte(userAsset), &item); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || string(d.Asset) != string(item.Asset) || d.Times != 1 || d.ReceivedAt.IsZero() || d.Source != "Microsoft Active Directory" {
		t.Errorf("%s", w.Body)
	}
	page := s.get("/inventory/users/2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d").Body.String()
	for _, want := range []string{
		"<h1 class=\"name\"><bdi>Alice Kovács</bdi></h1>", "<dt>City</dt><dd><bdi>Pune</bdi></dd>",
		`<time datetime="2026-11-22T07:33:13.845Z" title="2026-11-22T07:33:13.845Z">2026-11-22 07:33</time>`, `<span class="chip good">Active</span>`, "<b>once</b>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("page does not contain %s", want)
		}
	}
}

// TestLastSignIn: the listing of users and the page of a user show the last sign-in, and the
// listing can be sorted by it.
func TestLastSignIn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	signedIn := func(asset, at string) string {
		return strings.Replace(asset, `"status"`, `"lastSuccessfulLoginAt":"`+at+`","status"`, 1)
	}
	s.send(t, adSource, person(1, "Zoë", "", "ACTIVE"), signedIn(person(2, "Anna", "", "ACTIVE"), "2026-11-20T09:30:00.000Z"),
		signedIn(person(3, "Boris", "", "ACTIVE"), "2026-11-22T07:33:13.845Z"))
	const want = `<time datetime="2026-11-22T07:33:13.845Z" title="2026-11-22T07:33:13.845Z">2026-11-22 07:33</time>`
	listing := s.get("/inventory/users?sort=-lastSuccessfulLoginAt").Body.String()
	boris, anna, zoe := strings.Index(listing, ">Boris<"), strings.Index(listing, ">Anna<"), strings.Index(listing, ">Zoë<")
	if !strings.Contains(listing, want) || !strings.Contains(listing, "Last sign-in") || boris < 0 || anna < boris || zoe < anna {
		t.Errorf("listing %s", listing)
	}
	for n, text := range map[int]string{1: "", 3: "<dt>Last sign-in</dt><dd>" + want} {
		page := s.get(fmt.Sprintf("/inventory/users/%08x-0000-4000-8000-000000000000", n)).Body.String()
		if strings.Contains(page, "Last sign-in") != (text != "") || !strings.Contains(page, text) {
			t.Errorf("page %s", page)
		}
	}
}

// TestHostileTexts: texts from a directory or a request never become markup. An
// invisible name has a visible link. Pages contain no secrets.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const evil = `"><script>alert(1)</script>'</title>`
	s.send(t, `"><b>source</b>`, person(1, evil, evil, "ACTIVE"), person(2, "\u200b \u3164", "x@example.com", "ACTIVE"))
	s.get("/inventory/users")
	s.call("GET", "/%3Cscript%3Ealert(2)%3C/script%3E", "", http.Header{})
	state, err := json.Marshal(map[string]any{"customerUuid": customer, "profileUuid": profile, "state": "SCHEDULED", "runId": uuid.NewString(),
		"at": "2026-11-22T10:00:00.000Z", "nextRunAt": nil, "error": evil, "summary": nil})
	if err != nil {
		t.Fatal(err)
	}
	if w := s.call("PUT", "/rest/2.0/am/connector/connection/"+connection+"/state", string(state),
		http.Header{"Authorization": {"Bearer " + s.token}, "Content-Type": {"application/json"}}); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	for _, path := range []string{
		"/inventory/users", "/inventory/users/00000001-0000-4000-8000-000000000000", "/inventory/users/" + url.PathEscape(evil), "/inventory/" + url.PathEscape(evil),
		"/inventory/users?q=" + url.QueryEscape(evil), "/inventory/users?q=" + url.QueryEscape("inventory."+evil), "/inventory/users?source=" + url.QueryEscape(evil),
		"/inventory/users?" + url.QueryEscape(evil) + "=1", "/inventory/users?sort=" + url.QueryEscape(evil), "/inventory/states", "/inventory/requests",
	} {
		body := s.get(path).Body.String()
		if strings.Contains(body, "<script") || strings.Contains(body, "<b>source") || strings.Count(body, "</title>") != 1 || !strings.HasSuffix(body, "</html>\n\n") && !strings.HasSuffix(body, "</html>\n") {
			t.Errorf("%s: injected markup, or incomplete page: %s", path, body)
		}
	}
	for _, path := range []string{"/inventory/users", "/inventory/states", "/inventory/requests"} {
		if body := s.get(path).Body.String() + s.get(path, "application/json").Body.String(); strings.Contains(body, s.token) || strings.Contains(body, password) {
			t.Errorf("%s contains a token or a password", path)
		}
	}
	if body := s.get("/inventory/users").Body.String(); !strings.Contains(body, ">(no name)</a>") {
		t.Error("no visible link for an invisible name")
	}
}

func TestPager(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                 string
		total, offset, limit int
		want                 pager
	}{
		{"empty", 0, 0, -1, pager{Page: 1, Pages: 1, limit: 50}},
		{"one page", 50, 0, -1, pager{Total: 50, From: 1, To: 50, Page: 1, Pages: 1, limit: 50}},
		{"first of two", 51, 0, -1, pager{Total: 51, From: 1, To: 50, Page: 1, Pages: 2, Next: "/x?offset=50", Final: "/x?offset=50", limit: 50}},
		{"middle", 120, 50, -1, pager{Total: 120, From: 51, To: 100, Page: 2, Pages: 3, First: "/x", Previous: "/x?offset=0",
			Next: "/x?offset=100", Final: "/x?offset=100", offset: 50, limit: 50}},
		{"offset within a page", 9, 7, 3, pager{Total: 9, From: 7, To: 9, Page: 3, Pages: 3, First: "/x", Previous: "/x?offset=3", offset: 6, limit: 3}},
		{"offset after the end", 1001, 1 << 40, 5000, pager{Total: 1001, From: 1001, To: 1001, Page: 2, Pages: 2, First: "/x", Previous: "/x?offset=0", offset: 1000, limit: 1000}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := newPager(httptest.NewRequest(http.MethodGet, "/x", nil), test.total, test.offset, test.limit); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestSortIsComplete: no order loses or repeats a row.
func TestSortIsComplete(t *testing.T) {
	t.Parallel()
	i := newInventory(filledSite(t).gateway)
	for _, k := range kinds {
		for _, c := range k.columns {
			for _, sort := range []string{c.key, "-" + c.key} {
				rows := i.find(k, query{sort: sort})
				slices.SortFunc(rows, func(a, b *row) int { return strings.Compare(a.cells[vendorAssetID], b.cells[vendorAssetID]) })
				if !slices.Equal(rows, i.find(k, query{sort: vendorAssetID})) {
					t.Errorf("%s by %s: %d rows", k.plural(), sort, len(rows))
				}
			}
		}
	}
}

// BenchmarkInventoryPage requests pages of 20,000 users, with and without a change before
// each request.
func BenchmarkInventoryPage(b *testing.B) {
	const users, batch = 20_000, 1000
	s := newSite(b)
	for n := range users / batch {
		items := make([]string, batch)
		for i := range items {
			id := uuid.NewString()
			items[i] = strings.NewReplacer("2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d", id, "-1103", fmt.Sprintf("-%d-%d", n, i), "Alice Kovács", "Alice "+id[:6]+" Kovács", "alice@", "alice."+id[:6]+"@").Replace(userAsset)
		}
		s.send(b, adSource, items...)
	}
	page := func(b *testing.B, query string) {
		if w := s.get("/inventory/users?" + query); w.Code != http.StatusOK || w.Body.Len() < 10_000 {
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
		{"unchanged/last", "offset=19950", false},
		{"unchanged/search", "q=alice+kovács+1a", false},
		{"unchanged/filter", "source=Microsoft+Active+Directory&status=ACTIVE", false},
	} {
		b.Run(test.name, func(b *testing.B) {
			for b.Loop() {
				if test.changed {
					s.send(b, adSource, userAsset)
				}
				page(b, test.query)
			}
		})
	}
}
