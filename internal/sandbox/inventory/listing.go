package inventory

import (
	"cmp"
	"slices"
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

// Keys besides the fields of the class.
const (
	source        = "source"
	receivedAt    = "receivedAt"
	vendorAssetID = "vendorAssetId"
)

const statusDeleted = "DELETED"

var kinds = []*kind{
	{gatewayserver.KindUser, []column{
		{key: "name", title: "Name"},
		{key: "email", title: "E-mail"},
		{key: "jobTitle", title: "Job title"},
		{key: "status", title: "Status", values: []string{"ACTIVE", "DISABLED", "EXPIRED", "LOCKED", "PASSWORD_EXPIRED", statusDeleted}},
		{key: "lastSuccessfulLoginAt", title: "Last sign-in"},
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
