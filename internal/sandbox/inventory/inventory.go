// Package inventory shows what a gateway server received, below /inventory/: users,
// groups, roles, domains, one object by its vendorAssetId, states and requests.
//
// A client gets HTML if its Accept header names text/html and not application/json. The
// pages use no script and load nothing from other hosts. Any other client gets JSON, and
// so does a request with ?format=json. The query parameters are the same for both:
//
//	q        words that must all occur in the name, display name, e-mail, role, SID or
//	         GUID, without regard to case. The term
//	         inventory.source: ('Microsoft Active Directory') filters by the source.
//	source   the source that the request named
//	status, type, visibility, privileged
//	         the value of that column
//	sort     a column by its field, or vendorAssetId, which is the default of JSON; with
//	         a minus before it in descending order. Empty values come last.
//	limit, offset
//	         a part of the listing. By default a page has 50 rows, at most 1,000, and
//	         JSON has all. The newest state or request is first on a page and last in JSON.
//
// The response to an invalid parameter is 400 with a message that names the allowed values.
// The page of a group or role with many members has offset and limit for them, too.
//
// JSON has the number of matches in total, and with each asset its source, when it was
// last received (receivedAt), and how often (times).
//
// The inventory has no login, so it must listen on loopback only.
package inventory

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
)

// inventory serves the pages of one gateway server.
type inventory struct {
	gateway *gatewayserver.Server
	now     func() time.Time

	mu       sync.Mutex // guards listings
	listings map[*kind]listing
}

// Handler returns a handler that serves the inventory of a gateway server and passes
// every other request to the gateway server itself.
func Handler(server *gatewayserver.Server) http.Handler {
	pages := newInventory(server).routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isInventory(r) {
			server.ServeHTTP(w, r)
			return
		}
		header := w.Header()
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		header.Set("Vary", "Accept")
		pages.ServeHTTP(w, r)
	})
}

// isInventory reports whether a request is for the inventory. Browsers request the root
// and the icon without a link to them.
func isInventory(r *http.Request) bool {
	switch path := r.URL.Path; path {
	case "/", "/favicon.ico":
		return r.Method == http.MethodGet || r.Method == http.MethodHead
	default:
		return path == "/inventory" || strings.HasPrefix(path, "/inventory/")
	}
}

func newInventory(server *gatewayserver.Server) *inventory {
	return &inventory{gateway: server, now: time.Now, listings: map[*kind]listing{}}
}

func (i *inventory) routes() http.Handler {
	mux := http.NewServeMux()
	for _, k := range kinds {
		mux.HandleFunc("GET "+k.path(), func(w http.ResponseWriter, r *http.Request) { i.serveListing(w, r, k) })
		mux.HandleFunc("GET "+k.path()+"/{vendorAssetId}", func(w http.ResponseWriter, r *http.Request) { i.serveIdentity(w, r, k) })
	}
	mux.HandleFunc("GET /inventory/states", i.serveStates)
	mux.HandleFunc("GET /inventory/requests", i.serveRequests)
	mux.HandleFunc("GET /inventory/style.css", serveFile("style.css"))
	mux.HandleFunc("GET /inventory/icon.svg", serveFile("icon.svg"))
	mux.HandleFunc("GET /favicon.ico", serveFile("icon.svg"))
	start := http.RedirectHandler(kinds[0].path(), http.StatusFound)
	for _, path := range []string{"/{$}", "/inventory", "/inventory/{$}"} {
		mux.Handle("GET "+path, start)
	}
	mux.HandleFunc("GET /inventory/", func(w http.ResponseWriter, r *http.Request) {
		i.serveError(w, r, http.StatusNotFound, "page "+r.URL.Path+" does not exist")
	})
	return mux
}

func serveFile(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, name) }
}

func acceptsHTML(r *http.Request) bool {
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	return r.URL.Query().Get("format") != "json" && strings.Contains(accept, "text/html") && !strings.Contains(accept, "application/json")
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the connection is closed
}

// serveError responds to a request that cannot be served.
func (i *inventory) serveError(w http.ResponseWriter, r *http.Request, status int, message string) {
	if !acceptsHTML(r) {
		writeJSON(w, status, map[string]string{"message": message})
		return
	}
	i.render(w, status, "error", errorPage{i.frame(http.StatusText(status), r), capitalize(message)})
}

// part is a part of a listing in JSON.
type part[T any] struct {
	Source string `json:"source,omitempty"` // that the last request named
	Total  int    `json:"total"`
	Items  []T    `json:"items"`
}

// document is an asset in JSON, with what the inventory adds.
type document struct {
	Asset      json.RawMessage `json:"asset"`
	Source     string          `json:"source"`
	ReceivedAt time.Time       `json:"receivedAt"`
	Times      int             `json:"times"`
}

func newDocument(identity gatewayserver.Identity) (document, error) {
	d := document{Source: identity.Source, ReceivedAt: identity.ReceivedAt.UTC(), Times: identity.Times}
	return d, json.Unmarshal(identity.Asset, &d)
}

func (i *inventory) serveListing(w http.ResponseWriter, r *http.Request, k *kind) {
	q, err := parseQuery(k, r.URL.Query())
	if acceptsHTML(r) {
		i.listingPage(w, r, k, q, err)
		return
	}
	if err != nil {
		i.serveError(w, r, http.StatusBadRequest, err.Error())
		return
	}
	q.sort = cmp.Or(q.sort, vendorAssetID)
	rows := i.find(k, q)
	response := part[document]{Source: i.gateway.LastSource(), Total: len(rows), Items: []document{}}
	for _, row := range slicePart(rows, q.offset, q.limit) {
		d, err := newDocument(row.identity)
		if err != nil {
			i.serveError(w, r, http.StatusInternalServerError, err.Error())
			return
		}
		response.Items = append(response.Items, d)
	}
	writeJSON(w, http.StatusOK, response)
}

func (i *inventory) serveIdentity(w http.ResponseWriter, r *http.Request, k *kind) {
	id := r.PathValue("vendorAssetId")
	identity, ok := i.gateway.Identity(id)
	if !ok || identity.Kind != k.name {
		i.serveError(w, r, http.StatusNotFound, fmt.Sprintf("no %s with vendorAssetId %s was received", k.name, id))
		return
	}
	d, err := newDocument(identity)
	switch {
	case err != nil:
		i.serveError(w, r, http.StatusInternalServerError, err.Error())
	case acceptsHTML(r):
		i.identityPage(w, r, k, identity, d.Asset)
	default:
		writeJSON(w, http.StatusOK, d)
	}
}

func (i *inventory) serveStates(w http.ResponseWriter, r *http.Request) {
	offset, limit, err := parseRange(r.URL.Query())
	states := i.gateway.States()
	switch {
	case err != nil:
		i.serveError(w, r, http.StatusBadRequest, err.Error())
	case acceptsHTML(r):
		i.statesPage(w, r, states, offset, limit)
	default:
		writeJSON(w, http.StatusOK, part[gateway.ConnectorState]{Total: len(states), Items: slicePart(states, offset, limit)})
	}
}

func (i *inventory) serveRequests(w http.ResponseWriter, r *http.Request) {
	offset, limit, err := parseRange(r.URL.Query())
	requests := i.gateway.Requests()
	switch {
	case err != nil:
		i.serveError(w, r, http.StatusBadRequest, err.Error())
	case acceptsHTML(r):
		i.requestsPage(w, r, requests, offset, limit)
	default:
		writeJSON(w, http.StatusOK, struct {
			part[gatewayserver.Request]
			Counts     map[string]int `json:"counts"`
			Violations []string       `json:"violations"`
		}{part[gatewayserver.Request]{Total: len(requests), Items: slicePart(requests, offset, limit)}, i.gateway.Counts(), i.gateway.Violations()})
	}
}
