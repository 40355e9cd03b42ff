package inventory

import (
	"cmp"
	"encoding/json"
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
	order   string // default sort of a page; "": by name
}

// column is a field of the class, or receivedAt. The first column is the name.
type column struct {
	key, title string
	values     []string // that the field can have, for a select box
	beside     bool     // shown beside the name, not as a column
	number     bool
}

// Keys besides the fields of the class, and one of the fields.
const (
	source        = "source"
	receivedAt    = "receivedAt"
	vendorAssetID = "vendorAssetId"
	lastSignIn    = "lastSuccessfulLoginAt"

	keyPrivileged = "privileged" // derived from the security posture
	keyMembers    = "members"    // the number of them
)

// Values of keyPrivileged. Accounts and groups without a privileged role have none.
const (
	valuePrivileged    = "PRIVILEGED"
	valueNotPrivileged = "NOT_PRIVILEGED"
)

// roleSuffix distinguishes the externalAssetId of a role from that of its group.
const roleSuffix = ":role"

var privilegedColumn = column{key: keyPrivileged, title: "Privileged", values: []string{valuePrivileged}, beside: true}

const statusDeleted = "DELETED"

var kinds = []*kind{
	{name: gatewayserver.KindUser, columns: []column{
		{key: "name", title: "Name"},
		privilegedColumn,
		{key: "email", title: "E-mail"},
		{key: "jobTitle", title: "Job title"},
		{key: "status", title: "Status", values: []string{"ACTIVE", "DISABLED", "EXPIRED", "LOCKED", "PASSWORD_EXPIRED", statusDeleted}},
		{key: lastSignIn, title: "Last sign-in"},
		{key: "passwordLastChangedAt", title: "Password set"},
		{key: receivedAt, title: "Received"},
	}},
	{name: gatewayserver.KindGroup, columns: []column{
		{key: "name", title: "Name"},
		privilegedColumn,
		{key: "description", title: "Description"},
		{key: keyMembers, title: "Members", number: true},
		{key: "type", title: "Type", values: []string{"SECURITY", "DISTRIBUTION"}},
		{key: "visibility", title: "Visibility", values: []string{"PUBLIC", "PRIVATE"}},
		{key: "status", title: "Status", values: []string{statusDeleted}},
		{key: receivedAt, title: "Received"},
	}},
	{name: gatewayserver.KindRole, order: "-" + keyPrivileged, columns: []column{
		{key: "name", title: "Name"},
		{key: keyPrivileged, title: "Privileged", values: []string{valuePrivileged, valueNotPrivileged}},
		{key: keyMembers, title: "Members", number: true},
		{key: "description", title: "Description"},
		{key: "status", title: "Status", values: []string{statusDeleted}},
		{key: receivedAt, title: "Received"},
	}},
	{name: gatewayserver.KindDomain, columns: []column{
		{key: "name", title: "Name"},
		{key: "functionalLevel", title: "Functional level"},
		{key: "recycleBin", title: "Recycle Bin", values: []string{"ENABLED", "DISABLED"}},
		{key: "krbtgtPasswordLastChangedAt", title: "krbtgt password set"},
		{key: "status", title: "Status", values: []string{statusDeleted}},
		{key: receivedAt, title: "Received"},
	}},
}

func (k *kind) plural() string { return k.name + "s" }
func (k *kind) path() string   { return "/inventory/" + k.plural() }

func kindOf(name string) *kind {
	return kinds[slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })]
}

// searched are the fields that free text is searched in, besides the SID and the GUID.
var searched = []string{"name", "displayName", "email", "role"}

// listing is the identities of one kind, parsed, by vendorAssetId.
type listing struct {
	generation uint64 // of the gateway server
	rows       []*row
	byID       map[string]*row // by externalAssetId
}

// row is an identity with the values of its columns.
type row struct {
	identity gatewayserver.Identity
	url      string            // of its page
	cells    map[string]string // by key
	text     string            // that free text is searched in, lower case
}

func (r *row) name() string       { return r.cells["name"] }
func (r *row) isDeleted() bool    { return r.cells["status"] == statusDeleted }
func (r *row) isPrivileged() bool { return r.cells[keyPrivileged] == valuePrivileged }

// Kinds of principals in the contract.
const (
	kindUser           = "USER"
	kindServiceAccount = "SERVICE_ACCOUNT"
	kindGroup          = "GROUP"
	kindDomain         = "DOMAIN"
)

// principalKind returns the kind of an object as a principal.
func (r *row) principalKind() string {
	switch r.identity.Kind {
	case gatewayserver.KindUser:
		if r.cells["accountType"] != "" {
			return kindServiceAccount
		}
		return kindUser
	case gatewayserver.KindDomain:
		return kindDomain
	}
	return kindGroup // or the role of a group
}

// listing returns the identities of a kind by vendorAssetId. Assets are parsed only after the gateway
// server has received new ones.
func (i *inventory) listing(k *kind) listing {
	i.mu.Lock()
	defer i.mu.Unlock()
	generation := i.gateway.Generation()
	if l, ok := i.listings[k]; ok && l.generation == generation {
		return l
	}
	identities := i.gateway.Identities(k.name)
	l := listing{generation, make([]*row, len(identities)), make(map[string]*row, len(identities))}
	for n, identity := range identities {
		l.rows[n] = newRow(k, identity)
		l.byID[identity.ExternalAssetID] = l.rows[n]
	}
	if k.name == gatewayserver.KindGroup {
		i.markPrivilegedRoles(l)
	}
	i.listings[k] = l
	return l
}

// markPrivilegedRoles marks the groups whose own role is privileged.
func (i *inventory) markPrivilegedRoles(groups listing) {
	for _, role := range i.gateway.Identities(gatewayserver.KindRole) {
		group := groups.byID[strings.TrimSuffix(role.ExternalAssetID, roleSuffix)]
		if group != nil && string(role.Fields()["privileged"]) == "true" {
			group.cells[keyPrivileged] = valuePrivileged
		}
	}
}

func newRow(k *kind, identity gatewayserver.Identity) *row {
	fields := identity.Fields()
	r := &row{identity: identity, url: k.path() + "/" + identity.VendorAssetID, cells: map[string]string{
		source: identity.Source, receivedAt: timestamp(identity.ReceivedAt), vendorAssetID: identity.VendorAssetID,
	}}
	for _, c := range k.columns {
		if value := gatewayserver.Text(fields[c.key]); value != "" {
			r.cells[c.key] = value
		}
	}
	addPosture(r.cells, identity.Kind, fields)
	texts := []string{identity.ExternalAssetID, identity.VendorAssetID}
	for _, key := range searched {
		texts = append(texts, gatewayserver.Text(fields[key]))
	}
	r.text = strings.ToLower(strings.Join(texts, "\n"))
	return r
}

// addPosture sets the cells that are derived from the security posture.
func addPosture(cells map[string]string, kind string, fields map[string]json.RawMessage) {
	switch kind {
	case gatewayserver.KindRole:
		switch cells[keyPrivileged] {
		case "true":
			cells[keyPrivileged] = valuePrivileged
		case "false":
			cells[keyPrivileged] = valueNotPrivileged
		}
		if cells["status"] != statusDeleted {
			cells[keyMembers] = countMembers(fields["members"], fields["membersWithoutSid"])
		}
	case gatewayserver.KindDomain:
		if level, err := strconv.ParseInt(cells["functionalLevel"], 10, 64); err == nil {
			cells["functionalLevel"] = functionalLevel(level)
		}
	default:
		posture := decode[map[string]json.RawMessage](fields["posture"])
		if posture["privilegedGroups"] != nil {
			cells[keyPrivileged] = valuePrivileged
		}
		if kind == gatewayserver.KindGroup && posture != nil {
			cells[keyMembers] = countMembers(posture["members"], posture["membersWithoutSid"])
		}
		if accountType := gatewayserver.Text(fields["accountType"]); accountType != "" {
			cells["accountType"] = accountType
		}
	}
}

func countMembers(members, withoutSID json.RawMessage) string {
	return strconv.Itoa(len(decode[[]string](members)) + decode[int](withoutSID))
}

// find returns the rows that match a query, in its order. Equal rows stay in the order
// of their vendorAssetId.
func (i *inventory) find(k *kind, q query) []*row {
	type keyedRow struct {
		key string
		row *row
	}
	key, descending := strings.CutPrefix(q.sort, "-")
	isNumber := slices.ContainsFunc(k.columns, func(c column) bool { return c.key == key && c.number })
	var found []keyedRow
	for _, r := range i.listing(k).rows {
		if !q.matches(r) {
			continue
		}
		value := strings.ToLower(r.cells[key])
		if isNumber && value != "" {
			value = fmt.Sprintf("%020s", value)
		}
		found = append(found, keyedRow{value, r})
	}
	if q.byName {
		slices.SortStableFunc(found, func(a, b keyedRow) int {
			return cmp.Compare(strings.ToLower(a.row.name()), strings.ToLower(b.row.name()))
		})
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
	for _, r := range i.listing(k).rows {
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
	byName        bool              // order of equal rows
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
