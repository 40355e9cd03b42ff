// Package inventory shows what a gateway server received, below /inventory/: users,
// groups, roles, domains, one object by its vendorAssetId, states and requests.
//
// A client that prefers HTML gets pages, which use no script and load nothing from other
// hosts. Any other client gets JSON, and so does a request with ?format=json. The query
// parameters are the same for both:
//
//	q        words, all of which must occur in name, display name, e-mail, SID or
//	         GUID, without regard to case; "in quotes", they stand together. Terms
//	         narrow the listing, as the parameters below do:
//	         inventory.source: ('Microsoft Active Directory') status: LOCKED
//	source   the source that the request named
//	status   one of the statuses of users, or DELETED of groups
//	type, visibility
//	         of groups
//	sort     a column by its field, or vendorAssetId, which is the default of JSON;
//	         with a minus before it in descending order. Empty values come last.
//	limit, offset
//	         a part of the listing. Without a limit a page has 50 rows, at most
//	         1,000, and JSON has all. States and requests take only these two.
//
// A parameter that is given more than once means any of its values. An invalid one is
// answered with 400 and a message that names the allowed values. JSON has the number of
// matches in total, and with each asset its source, when it was last received
// (receivedAt), and how often (times).
//
// The inventory has no login, so it must listen on loopback only.
package inventory

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
)

// kind is one class of assets: what its listing has for columns, what can be chosen
// from, and how one of it is laid out. A class that the contract gains is one entry
// more in the table.
type kind struct {
	name     string // Identity.Kind
	class    string // of assetDetail
	path     string // below /inventory/
	one      string
	many     string
	columns  []column // the first one is the name, and leads to the page of the identity
	sections []section
	looksAt  string   // what a search looks at, for people
	searched []string // fields of the class that a search looks at, besides the identifiers
}

// column is a field of the class, or receivedAt, which is the inventory's own.
type column struct {
	key, title string
	form       form
	choices    []choice // of a field with few values, by which the listing can be narrowed
}

type form int

const (
	asText   form = iota
	asMoment      // to the minute
	asDay
	asChip
)

// choice is one of the values that a field may have, and how it is shown.
type choice struct{ value, label, tone string }

type section struct {
	title string
	facts []fact
}

// fact is a field of the class; a point leads into an object.
type fact struct {
	key, title string
	form       form
}

// What can be sorted by besides the fields of the class.
const (
	receivedAt    = "receivedAt"
	vendorAssetID = "vendorAssetId"
)

var deleted = choice{"DELETED", "Deleted", "gone"}

var kinds = []*kind{
	{
		name: gatewayserver.KindUser, class: "userAssetClass", path: "users", one: "user", many: "users",
		columns: []column{
			{key: "name", title: "Name"},
			{key: "email", title: "E-mail"},
			{key: "jobTitle", title: "Job title"},
			{key: "status", title: "Status", form: asChip, choices: []choice{
				{"ACTIVE", "Active", "good"}, {"DISABLED", "Disabled", "off"}, {"EXPIRED", "Expired", "warn"},
				{"LOCKED", "Locked", "bad"}, {"PASSWORD_EXPIRED", "Password expired", "warn"}, deleted,
			}},
			{key: "lastSuccessfulLoginAt", title: "Last sign-in", form: asDay},
			{key: "passwordLastChangedAt", title: "Password set", form: asDay},
			{key: receivedAt, title: "Received", form: asMoment},
		},
		sections: []section{
			{"Person", []fact{
				{"displayName", "Display name", asText}, {"firstName", "First name", asText}, {"lastName", "Last name", asText},
				{"jobTitle", "Job title", asText}, {"email", "E-mail", asText}, {"phone", "Phone", asText},
			}},
			{"Account", []fact{
				{"status", "Status", asChip}, {"activationDate", "Created", asMoment}, {"accountExpirationAt", "Expires", asMoment},
			}},
			{"Sign-in", []fact{
				{"lastSuccessfulLoginAt", "Last sign-in", asMoment}, {"passwordLastChangedAt", "Password set", asMoment},
				{"failedPasswordAttemptCount", "Failed attempts", asText}, {"lastFailedPasswordAttemptAt", "Last failed", asMoment},
			}},
			{"Address", []fact{
				{"currentAddress.streetAddress", "Street", asText}, {"currentAddress.city", "City", asText},
				{"currentAddress.state", "State", asText}, {"currentAddress.country", "Country", asText},
			}},
		},
		looksAt: "Name, e-mail, SID or GUID", searched: []string{"name", "displayName", "email"},
	},
	{
		name: gatewayserver.KindGroup, class: "groupAssetClass", path: "groups", one: "group", many: "groups",
		columns: []column{
			{key: "name", title: "Name"},
			{key: "description", title: "Description"},
			{key: "type", title: "Type", form: asChip, choices: []choice{{"SECURITY", "Security", "info"}, {"DISTRIBUTION", "Distribution", "plain"}}},
			{key: "visibility", title: "Visibility", form: asChip, choices: []choice{{"PUBLIC", "Public", "info"}, {"PRIVATE", "Private", "plain"}}},
			{key: "status", title: "Status", form: asChip, choices: []choice{deleted}},
			{key: receivedAt, title: "Received", form: asMoment},
		},
		sections: []section{
			{"Group", []fact{
				{"displayName", "Display name", asText}, {"description", "Description", asText},
				{"type", "Type", asChip}, {"visibility", "Visibility", asChip}, {"status", "Status", asChip},
			}},
		},
		looksAt: "Name, SID or GUID", searched: []string{"name", "displayName"},
	},
	{
		name: gatewayserver.KindRole, class: "roleAssetClass", path: "roles", one: "role", many: "roles",
		columns: []column{
			{key: "name", title: "Name"},
			{key: "role", title: "Role"},
			{key: "description", title: "Description"},
			{key: "status", title: "Status", form: asChip, choices: []choice{deleted}},
			{key: receivedAt, title: "Received", form: asMoment},
		},
		sections: []section{
			{"Role", []fact{
				{"role", "Role", asText}, {"description", "Description", asText}, {"group", "Group", asText}, {"status", "Status", asChip},
			}},
		},
		looksAt: "Name, SID or GUID", searched: []string{"name", "role"},
	},
	{
		name: gatewayserver.KindDomain, class: "domainAssetClass", path: "domains", one: "domain", many: "domains",
		columns: []column{
			{key: "name", title: "Name"},
			{key: "recycleBin", title: "Recycle Bin"},
			{key: "krbtgtPasswordLastChangedAt", title: "krbtgt password set", form: asDay},
			{key: "status", title: "Status", form: asChip, choices: []choice{deleted}},
			{key: receivedAt, title: "Received", form: asMoment},
		},
		sections: []section{
			{"Domain", []fact{
				{"createdAt", "Created", asMoment}, {"functionalLevel", "Functional level", asText}, {"forestFunctionalLevel", "Of the forest", asText},
				{"machineAccountQuota", "Machine account quota", asText}, {"recycleBin", "Recycle Bin", asText},
				{"krbtgtPasswordLastChangedAt", "krbtgt password set", asMoment}, {"status", "Status", asChip},
			}},
			{"Passwords", []fact{
				{"passwordPolicy.minimumLength", "Minimum length", asText}, {"passwordPolicy.historyLength", "History", asText},
				{"passwordPolicy.maximumAgeSeconds", "Maximum age in seconds", asText},
			}},
			{"Lockout", []fact{
				{"lockoutPolicy.threshold", "Threshold", asText}, {"lockoutPolicy.durationSeconds", "Duration in seconds", asText},
			}},
		},
		looksAt: "Name, SID or GUID", searched: []string{"name"},
	},
}

func (k *kind) column(key string) (int, bool) {
	i := slices.IndexFunc(k.columns, func(c column) bool { return c.key == key })
	return i, i >= 0
}

// choose finds the value that somebody means who writes it in another case or with
// spaces.
func (c column) choose(text string) (choice, bool) {
	text = strings.ReplaceAll(text, " ", "_")
	i := slices.IndexFunc(c.choices, func(each choice) bool { return strings.EqualFold(each.value, text) })
	if i < 0 {
		return choice{}, false
	}
	return c.choices[i], true
}

// chip shows a value of the column; one that the table does not know as it came.
func (c column) chip(value string) choice {
	for _, each := range c.choices {
		if each.value == value {
			return each
		}
	}
	return choice{value, value, "plain"}
}

// row is what a listing needs of an identity, so that no page reads all the JSON.
type row struct {
	*gatewayserver.Identity
	cells []string // by column; nil: nobody has read the asset yet
	text  string   // what a search looks at, folded
}

// read fills the row from the asset's class. Where that cannot be read, the
// identifiers are all there is to show.
func (r *row) read(k *kind, class map[string]json.RawMessage) {
	r.cells = make([]string, len(k.columns))
	for i, c := range k.columns {
		r.cells[i] = c.chip(textValue(class[c.key])).value // the table's own: all rows share it
	}
	texts := []string{r.ExternalAssetID, r.VendorAssetID}
	for _, key := range k.searched {
		texts = append(texts, textValue(class[key]))
	}
	r.text = strings.ToLower(strings.Join(texts, "\n"))
}

// cell is what the row has in a column.
func (r *row) cell(c column, i int) string {
	if c.key == receivedAt {
		return moment(r.ReceivedAt)
	}
	return r.cells[i]
}

// moment is a time in the one form that the contract knows.
func moment(t time.Time) string {
	text, _ := gateway.Timestamp(t).MarshalText() // always nil
	return string(text)
}

// textValue is a JSON value as text: a string's content, of others the JSON.
func textValue(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '"' {
		return string(raw)
	}
	var text string
	_ = json.Unmarshal(raw, &text) // it has been read before
	return text
}

// listing is the identities of one kind at one moment. The orders that pages asked
// for stay, so that turning pages sorts nothing.
type listing struct {
	kind       *kind
	generation uint64
	rows       []*row
	orders     map[string][]*row
}

// inventory makes the listings. Its mutex is not the gateway's: reading and sorting
// hold up other pages, never the connector.
type inventory struct {
	gateway *gatewayserver.Server
	routes  *http.ServeMux

	mu       sync.Mutex
	listings map[*kind]*listing
}

// listed returns the identities of a kind, sorted by a column's key, downwards with
// a minus before it, or by vendorAssetId.
func (g *inventory) listed(k *kind, sort string) []*row {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.listings[k]
	if generation := g.gateway.Generation(); l == nil || l.generation != generation {
		identities := g.gateway.Identities(k.name)
		l = &listing{kind: k, generation: generation, rows: make([]*row, len(identities)), orders: map[string][]*row{}}
		for i := range identities {
			l.rows[i] = newRow(k, &identities[i])
		}
		g.listings[k] = l
	}
	rows, ok := l.orders[sort]
	if !ok {
		rows = l.sorted(sort)
		l.orders[sort] = rows
	}
	return rows
}

// newRow returns the row of an identity. A class that cannot be read has no fields.
func newRow(k *kind, identity *gatewayserver.Identity) *row {
	r := &row{Identity: identity}
	r.read(k, classOf(k, identity.Asset))
	return r
}

// classOf returns the fields of an asset's class.
func classOf(k *kind, asset json.RawMessage) (class map[string]json.RawMessage) {
	_ = json.Unmarshal(rawClass(k, asset), &class)
	return class
}

func rawClass(k *kind, asset json.RawMessage) json.RawMessage {
	var item struct {
		Asset struct {
			AssetDetail map[string]json.RawMessage `json:"assetDetail"`
		} `json:"asset"`
	}
	_ = json.Unmarshal(asset, &item)
	return item.Asset.AssetDetail[k.class]
}

// sorted returns the rows in an order: without regard to case, what is empty last
// whichever way, and what is alike as it first came.
func (l *listing) sorted(sort string) []*row {
	key, downwards := strings.CutPrefix(sort, "-")
	i, byColumn := l.kind.column(key)
	list := make([]keyed, len(l.rows))
	var at time.Time
	var received string // at that time, which those of one request share
	for n, r := range l.rows {
		key := r.VendorAssetID
		switch {
		case byColumn && l.kind.columns[i].key == receivedAt:
			if r.ReceivedAt != at {
				at, received = r.ReceivedAt, moment(r.ReceivedAt)
			}
			key = received
		case byColumn:
			key = strings.ToLower(r.cells[i])
		}
		list[n] = keyed{begin(key), key, n, r}
	}
	slices.SortFunc(list, func(a, b keyed) int {
		order := cmp.Compare(a.begin, b.begin)
		if order == 0 {
			order = cmp.Compare(a.key, b.key)
		}
		switch {
		case order == 0:
			return cmp.Compare(a.nth, b.nth)
		case downwards, a.key == "", b.key == "":
			return -order
		}
		return order
	})
	rows := make([]*row, len(list))
	for n, each := range list {
		rows[n] = each.row
	}
	return rows
}

// keyed is a row while it is sorted. Most keys differ in how they begin, which is
// told without leaving the list.
type keyed struct {
	begin uint64
	key   string
	nth   int
	row   *row
}

// begin are the first bytes of a text, in an order like that of texts.
func begin(text string) uint64 {
	var bytes [8]byte
	copy(bytes[:], text)
	return binary.BigEndian.Uint64(bytes[:])
}

// found is what a search found, and how many there are of what.
type found struct {
	rows    []*row
	held    int     // of the kind in all
	counts  []tally // by column with choices: what one would find who chose otherwise there
	sources tally   // the same of the sources
}

// tally counts values of which there are few.
type tally []struct {
	value string
	count int
}

func (t *tally) add(value string) {
	for i := range *t {
		if (*t)[i].value == value {
			(*t)[i].count++
			return
		}
	}
	*t = append(*t, struct {
		value string
		count int
	}{value, 1})
}

func (t tally) of(value string) int {
	for _, each := range t {
		if each.value == value {
			return each.count
		}
	}
	return 0
}

// find goes through all identities of the kind once.
func (g *inventory) find(k *kind, s inquiry) found {
	all := g.listed(k, s.sort)
	f := found{rows: make([]*row, 0, len(all)), held: len(all), counts: make([]tally, len(k.columns))}
	for _, r := range all {
		misses, missed := s.missedBy(r)
		if misses > 1 {
			continue
		}
		for i, c := range k.columns {
			if c.choices != nil && (misses == 0 || missed == i) {
				f.counts[i].add(r.cells[i])
			}
		}
		if misses == 0 || missed == missedSource {
			f.sources.add(r.Source)
		}
		if misses == 0 {
			f.rows = append(f.rows, r)
		}
	}
	return f
}

// Handler serves the inventory of a gateway, and passes every other request to the
// gateway itself.
func Handler(gateway *gatewayserver.Server) http.Handler {
	g := newInventory(gateway)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isInventory(r) {
			g.ServeHTTP(w, r)
			return
		}
		gateway.ServeHTTP(w, r)
	})
}

// newInventory routes what people and programs may look at. All of it is for
// reading: GET and HEAD.
func newInventory(gateway *gatewayserver.Server) *inventory {
	mux := http.NewServeMux()
	g := &inventory{gateway: gateway, routes: mux, listings: map[*kind]*listing{}}
	for _, k := range kinds {
		mux.HandleFunc("GET /inventory/"+k.path, func(w http.ResponseWriter, r *http.Request) { g.showIdentities(w, r, k) })
		mux.HandleFunc("GET /inventory/"+k.path+"/{vendorAssetId}", func(w http.ResponseWriter, r *http.Request) { g.showIdentity(w, r, k) })
	}
	mux.HandleFunc("GET /inventory/states", g.showStates)
	mux.HandleFunc("GET /inventory/requests", g.showRequests)
	mux.HandleFunc("GET "+styleSheet.path, styleSheet.serve)
	mux.HandleFunc("GET "+icon.path, icon.serve)
	mux.HandleFunc("GET /favicon.ico", icon.serve)
	first := http.RedirectHandler("/inventory/"+kinds[0].path, http.StatusFound)
	mux.Handle("GET /{$}", first)
	mux.Handle("GET /inventory", first)
	mux.Handle("GET /inventory/{$}", first)
	mux.HandleFunc("GET /inventory/", func(w http.ResponseWriter, r *http.Request) {
		g.showFault(w, r, http.StatusNotFound, errors.New("there is no page "+r.URL.Path))
	})
	return g
}

// isInventory tells the calls of the inventory from those of the contract. A browser
// asks for the icon and the root without being told.
func isInventory(r *http.Request) bool {
	switch path := r.URL.Path; path {
	case "/", "/favicon.ico":
		return r.Method == http.MethodGet || r.Method == http.MethodHead
	case "/inventory":
		return true
	default:
		return strings.HasPrefix(path, "/inventory/")
	}
}

func (g *inventory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	header.Set("Vary", "Accept")
	g.routes.ServeHTTP(w, r)
}

// wantsPage tells a browser from a program: it asks for HTML, and not for JSON
// before that. ?format=json is for the person who wants to see it in the browser.
func wantsPage(r *http.Request) bool {
	if r.URL.Query().Get("format") == "json" {
		return false
	}
	weight := map[string]float64{}
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		mediaType, attributes, err := mime.ParseMediaType(accepted)
		if err != nil {
			continue
		}
		q, err := strconv.ParseFloat(attributes["q"], 64)
		if err != nil {
			q = 1
		}
		weight[mediaType] = q
	}
	return weight["text/html"] > weight[mediaJSON]
}

const mediaJSON = "application/json"

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}

func writeMessage(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"message": text})
}

// page is one page of a listing.
type page[T any] struct {
	Source string `json:"source,omitempty"` // as the last request called it
	Total  int    `json:"total"`
	Items  []T    `json:"items"`
}

// document is an asset as it came, and what the inventory knows about it.
type document struct {
	Asset      json.RawMessage `json:"asset"`
	Source     string          `json:"source"`
	ReceivedAt time.Time       `json:"receivedAt"`
	Times      int             `json:"times"`
}

func newDocument(identity *gatewayserver.Identity) (document, error) {
	d := document{Source: identity.Source, ReceivedAt: identity.ReceivedAt.UTC(), Times: identity.Times}
	return d, json.Unmarshal(identity.Asset, &d)
}

// showIdentities lists a kind; see the package comment for the parameters.
func (g *inventory) showIdentities(w http.ResponseWriter, r *http.Request, k *kind) {
	s, err := readInquiry(k, r.URL.Query())
	if wantsPage(r) {
		g.identitiesPage(w, r, k, s, err)
		return
	}
	if err != nil {
		writeMessage(w, http.StatusBadRequest, err.Error())
		return
	}
	f := g.find(k, s)
	rows := part(s.cut, f.rows)
	items := make([]document, len(rows))
	for i, row := range rows {
		if items[i], err = newDocument(row.Identity); err != nil {
			writeMessage(w, http.StatusInternalServerError, err.Error())
			return
		}
	}
	writeJSON(w, http.StatusOK, page[document]{g.gateway.LastSource(), len(f.rows), items})
}

func (g *inventory) showIdentity(w http.ResponseWriter, r *http.Request, k *kind) {
	id := r.PathValue("vendorAssetId")
	identity, ok := g.gateway.Identity(id)
	if !ok || identity.Kind != k.name {
		g.showFault(w, r, http.StatusNotFound, fmt.Errorf("no %s with the vendorAssetId %s has been received", k.one, id))
		return
	}
	d, err := newDocument(&identity)
	switch {
	case err != nil:
		g.showFault(w, r, http.StatusInternalServerError, err)
	case wantsPage(r):
		g.identityPage(w, k, &identity, d)
	default:
		writeJSON(w, http.StatusOK, d)
	}
}

func (g *inventory) showStates(w http.ResponseWriter, r *http.Request) {
	states := g.gateway.States()
	c, err := readCut(r.URL.Query())
	switch {
	case err != nil:
		g.showFault(w, r, http.StatusBadRequest, err)
	case wantsPage(r):
		g.statesPage(w, states, c)
	default:
		writeJSON(w, http.StatusOK, page[gateway.ConnectorState]{Total: len(states), Items: part(c, states)})
	}
}

func (g *inventory) showRequests(w http.ResponseWriter, r *http.Request) {
	requests := g.gateway.Requests()
	c, err := readCut(r.URL.Query())
	switch {
	case err != nil:
		g.showFault(w, r, http.StatusBadRequest, err)
	case wantsPage(r):
		g.requestsPage(w, requests, c)
	default:
		writeJSON(w, http.StatusOK, struct {
			page[gatewayserver.Request]
			Counts     map[string]int `json:"counts"`
			Violations []string       `json:"violations"`
		}{page[gatewayserver.Request]{Total: len(requests), Items: part(c, requests)}, g.gateway.Counts(), g.gateway.Violations()})
	}
}
