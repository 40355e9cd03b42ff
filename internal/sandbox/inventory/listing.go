package inventory

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
)

// kind is one class of assets with the columns of its listing.
type kind struct {
	name    string // Identity.Kind
	columns []column
}

// column is a field of the class, or receivedAt. The first column is the name.
type column struct {
	key, title string
	values     []string // that the field can have, for a select box
}

// Keys besides the fields of the class, and one of the fields.
const (
	source        = "source"
	receivedAt    = "receivedAt"
	vendorAssetID = "vendorAssetId"
	lastSignIn    = "lastSuccessfulLoginAt"
)

const statusDeleted = "DELETED"

var kinds = []*kind{
	{gatewayserver.KindUser, []column{
		{key: "name", title: "Name"},
		{key: "email", title: "E-mail"},
		{key: "jobTitle", title: "Job title"},
		{key: "status", title: "Status", values: []string{"ACTIVE", "DISABLED", "EXPIRED", "LOCKED", "PASSWORD_EXPIRED", statusDeleted}},
		{key: lastSignIn, title: "Last sign-in"},
		{key: "passwordLastChangedAt", title: "Password set"},
		{key: receivedAt, title: "Received"},
	}},
	{gatewayserver.KindGroup, []column{
		{key: "name", title: "Name"},
		{key: "description", title: "Description"},
		{key: "type", title: "Type", values: []string{"SECURITY", "DISTRIBUTION"}},
		{key: "visibility", title: "Visibility", values: []string{"PUBLIC", "PRIVATE"}},
		{key: "status", title: "Status", values: []string{statusDeleted}},
		{key: receivedAt, title: "Received"},
	}},
	{gatewayserver.KindRole, []column{
		{key: "name", title: "Name"},
		{key: "role", title: "Role"},
		{key: "description", title: "Description"},
		{key: "status", title: "Status", values: []string{statusDeleted}},
		{key: receivedAt, title: "Received"},
	}},
	{gatewayserver.KindDomain, []column{
		{key: "name", title: "Name"},
		{key: "recycleBin", title: "Recycle Bin"},
		{key: "krbtgtPasswordLastChangedAt", title: "krbtgt password set"},
		{key: "status", title: "Status", values: []string{statusDeleted}},
		{key: receivedAt, title: "Received"},
	}},
}

func (k *kind) plural() string { return k.name + "s" }
func (k *kind) path() string   { return "/inventory/" + k.plural() }

// searched are the fields that free text is searched in, besides the SID and the GUID.
var searched = []string{"name", "displayName", "email", "role"}

// listing is the identities of one kind, parsed, by vendorAssetId.
type listing struct {
	generation uint64 // of the gateway server
	rows       []*row
}

// row is an identity with the values of its columns.
type row struct {
	identity gatewayserver.Identity
	cells    map[string]string // by key
	text     string            // that free text is searched in, lower case
}

// rows returns the identities of a kind by vendorAssetId. Assets are parsed only after
// the gateway server has received new ones.
func (i *inventory) rows(k *kind) []*row {
	i.mu.Lock()
	defer i.mu.Unlock()
	generation := i.gateway.Generation()
	if l, ok := i.listings[k]; ok && l.generation == generation {
		return l.rows
	}
	identities := i.gateway.Identities(k.name)
	rows := make([]*row, len(identities))
	for n, identity := range identities {
		rows[n] = newRow(k, identity)
	}
	i.listings[k] = listing{generation, rows}
	return rows
}

func newRow(k *kind, identity gatewayserver.Identity) *row {
	fields := identity.Fields()
	r := &row{identity: identity, cells: map[string]string{
		source: identity.Source, receivedAt: timestamp(identity.ReceivedAt), vendorAssetID: identity.VendorAssetID,
	}}
	for _, c := range k.columns {
		if value := gatewayserver.Text(fields[c.key]); value != "" {
			r.cells[c.key] = value
		}
	}
	texts := []string{identity.ExternalAssetID, identity.VendorAssetID}
	for _, key := range searched {
		texts = append(texts, gatewayserver.Text(fields[key]))
	}
	r.text = strings.ToLower(strings.Join(texts, "\n"))
	return r
}

// find returns the rows that match a query, in its order. Equal rows stay in the order
// of their vendorAssetId.
func (i *inventory) find(k *kind, q query) []*row {
	type keyedRow struct {
		key string
		row *row
	}
	key, descending := strings.CutPrefix(q.sort, "-")
	var found []keyedRow
	for _, r := range i.rows(k) {
		if q.matches(r) {
			found = append(found, keyedRow{strings.ToLower(r.cells[key]), r})
		}
	}
	slices.SortStableFunc(found, func(a, b keyedRow) int {
		order := cmp.Compare(a.key, b.key)
		if descending || a.key == "" || b.key == "" {
			return -order
		}
		return order
	})
	rows := make([]*row, len(found))
	for n, f := range found {
		rows[n] = f.row
	}
	return rows
}

// sources returns the different sources of a kind, sorted.
func (i *inventory) sources(k *kind) []string {
	var all []string
	for _, r := range i.rows(k) {
		if !slices.Contains(all, r.identity.Source) {
			all = append(all, r.identity.Source)
		}
	}
	slices.Sort(all)
	return all
}

// timestamp returns a time in the form of the contract.
func timestamp(t time.Time) string {
	text, _ := gateway.Timestamp(t).MarshalText() // never fails
	return string(text)
}

// query is the parameters of a listing.
type query struct {
	words         []string          // lower case; all must occur
	filters       map[string]string // wanted values by key
	sort          string            // a key, with a minus before it in descending order; "": the default
	offset, limit int               // a negative limit is none
}

// sourceTerm matches the platform's filter by source:
// inventory.source: ('Microsoft Active Directory').
var sourceTerm = regexp.MustCompile(`inventory\.source:\s*\(?\s*(?:'([^']*)'|"([^"]*)"|([^\s()'"]+))\s*\)?`)

// parseQuery parses the parameters of a listing. Its error is for the user.
func parseQuery(k *kind, parameters url.Values) (query, error) {
	q := query{filters: map[string]string{}, sort: parameters.Get("sort"), limit: -1}
	allowed := []string{"q", source, "sort", "offset", "limit", "format"}
	keys := []string{vendorAssetID}
	for _, c := range k.columns {
		keys = append(keys, c.key)
		if c.values != nil {
			allowed = append(allowed, c.key)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if !slices.Contains(allowed, name) {
			return q, fmt.Errorf("parameter %s is unknown: use %s", name, strings.Join(allowed, ", "))
		}
		if len(parameters[name]) > 1 {
			return q, fmt.Errorf("parameter %s is given more than once", name)
		}
	}
	if q.sort != "" && !slices.Contains(keys, strings.TrimPrefix(q.sort, "-")) {
		return q, fmt.Errorf("sort %s is unknown: use %s, with a minus before it for descending order", q.sort, strings.Join(keys, ", "))
	}
	if value := parameters.Get(source); value != "" {
		q.filters[source] = value
	}
	for _, c := range k.columns {
		value := parameters.Get(c.key)
		if value == "" { // a form also sends the fields that are not filled in
			continue
		}
		if !slices.Contains(c.values, value) {
			return q, fmt.Errorf("%s %s is unknown: use %s", c.key, value, strings.Join(c.values, ", "))
		}
		q.filters[c.key] = value
	}
	if err := q.parseText(parameters.Get("q")); err != nil {
		return q, err
	}
	var err error
	q.offset, q.limit, err = parseRange(parameters)
	return q, err
}

func (q *query) parseText(text string) error {
	if term := sourceTerm.FindStringSubmatch(text); term != nil {
		value := term[1] + term[2] + term[3]
		if other, ok := q.filters[source]; ok && other != value {
			return fmt.Errorf("inventory.source %s and source %s exclude each other", value, other)
		}
		q.filters[source] = value
		text = strings.Replace(text, term[0], " ", 1)
	}
	q.words = strings.Fields(strings.ToLower(text))
	for _, word := range q.words {
		if strings.HasPrefix(word, "inventory.") {
			return fmt.Errorf("term %s is not supported: use inventory.source: ('Microsoft Active Directory')", word)
		}
	}
	return nil
}

func (q *query) matches(r *row) bool {
	for _, word := range q.words {
		if !strings.Contains(r.text, word) {
			return false
		}
	}
	for key, value := range q.filters {
		if r.cells[key] != value {
			return false
		}
	}
	return true
}

// parseRange parses offset and limit. Without a limit it returns a negative one.
func parseRange(parameters url.Values) (offset, limit int, err error) {
	limit = -1
	for name, value := range map[string]*int{"offset": &offset, "limit": &limit} {
		text := parameters.Get(name)
		if text == "" {
			continue
		}
		if *value, err = strconv.Atoi(text); err != nil || *value < 0 {
			return 0, 0, fmt.Errorf("%s must be a number from 0", name)
		}
	}
	return offset, limit, nil
}

// slicePart returns the items from an offset on, at most limit of them.
func slicePart[T any](items []T, offset, limit int) []T {
	items = items[min(offset, len(items)):]
	if limit < 0 {
		return items
	}
	return items[:min(limit, len(items))]
}
