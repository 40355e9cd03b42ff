//go:build ad

package samba

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/oracle"
	"adconnector/test/testenv"
)

// snapshot is the content of the directory at one time: the expected assets by SID.
type snapshot struct {
	users  map[string]oracle.FlatAsset
	groups map[string]oracle.FlatAsset
}

// searchScope is the part of the directory that a snapshot contains.
type searchScope struct {
	base   string // "": the whole domain
	scope  string // sub, one or base; "": sub
	filter string // of the users; "": all
}

// cachedSnapshot is a snapshot and the number of changes before it.
type cachedSnapshot struct {
	snapshot
	changes int
}

var readAttributes = []string{
	"objectClass", "objectSid", "objectGUID", "name", "mail", "givenName", "sn", "displayName", "mobile", "title", "whenCreated",
	"lastLogon", "lastLogonTimestamp", "pwdLastSet", "accountExpires", "badPwdCount", "badPasswordTime", "l", "co", "c", "streetAddress", "st",
	"userAccountControl", "msDS-User-Account-Control-Computed", "description", "groupType",
}

// cached returns the last snapshot of a scope if the directory has not changed since. A new
// snapshot of the whole domain takes seconds. A controller that replicates has no cache.
func (d *controller) cached(s searchScope) (r snapshot, ok bool) {
	last, ok := d.snapshots[s]
	return last.snapshot, ok && d.peer == nil && last.changes == d.changes
}

// snapshot reads the directory with ldapsearch and the connector's account.
func (d *controller) snapshot(t *testing.T, s searchScope) snapshot {
	t.Helper()
	r := snapshot{users: map[string]oracle.FlatAsset{}, groups: map[string]oracle.FlatAsset{}}
	now := time.Now()
	convert := func(records []record, kind string, assets map[string]oracle.FlatAsset) {
		for _, rec := range records {
			if rec.values.Kind() == kind && rec.values.Readable() {
				assets[oracle.SID(rec.values.First("objectSid"))] = rec.values.Asset(now)
			}
		}
	}
	all := d.ldapsearch(t, s.base, s.scope, "(objectClass=*)", readAttributes...)
	filtered := all
	if s.filter != "" {
		filtered = d.ldapsearch(t, s.base, s.scope, s.filter, readAttributes...)
	}
	convert(filtered, oracle.User, r.users)
	convert(all, oracle.Group, r.groups)
	if d.snapshots == nil {
		d.snapshots = map[searchScope]cachedSnapshot{}
	}
	d.snapshots[s] = cachedSnapshot{r, d.changes}
	return r
}

// ldapsearch returns the entries of a paged search with the service account and d.url, which
// every configuration of the server allows.
func (d *controller) ldapsearch(t *testing.T, base, scope, filter string, attributes ...string) []record {
	t.Helper()
	if base == "" {
		base = baseDN
	}
	if scope == "" {
		scope = "sub"
	}
	out, err := runTool("", "ldapsearch", append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-E", "pr=1000/noprompt",
		"-H", d.url, "-D", d.service.dn, "-y", d.service.file, "-b", base, "-s", scope, filter}, attributes...)...)
	if err != nil {
		t.Fatal(err)
	}
	records, err := parseLDIF(out)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func flatten(t *testing.T, asset []byte) oracle.FlatAsset {
	t.Helper()
	leaves, err := oracle.Flatten(asset)
	if err != nil {
		t.Fatal(err)
	}
	return leaves
}

// compare reports each difference between the gateway and the directory before and after a
// run.
func compare(t *testing.T, g *testenv.Gateway, before, after snapshot) {
	t.Helper()
	found := append(
		differences(t, "user", g.Users(), before.users, after.users),
		differences(t, "group", g.Groups(), before.groups, after.groups)...)
	const limit = 40
	for _, d := range found[:min(limit, len(found))] {
		t.Error(d)
	}
	if len(found) > limit {
		t.Errorf("and %d more differences", len(found)-limit)
	}
}

// differences returns one line for each wrong field, except for those with ignored paths. A
// field that changed between the two snapshots may have either value.
func differences(t *testing.T, kind string, held []gatewayserver.Identity, before, after map[string]oracle.FlatAsset, ignored ...string) (found []string) {
	t.Helper()
	report := func(sid, format string, args ...any) {
		found = append(found, kind+" "+sid+": "+fmt.Sprintf(format, args...))
	}
	got := map[string]oracle.FlatAsset{}
	for _, identity := range held {
		sid, asset := identity.ExternalAssetID, flatten(t, identity.Asset)
		if got[sid] != nil {
			report(sid, "more than one asset")
		}
		if vendor := asset.Text(oracle.VendorID); identity.VendorAssetID != vendor {
			report(sid, "stored under vendorAssetId %q, want %q", identity.VendorAssetID, vendor)
		}
		got[sid] = asset
	}
	all := union(before, after, got)
	for _, sid := range slices.Sorted(maps.Keys(all)) {
		old, current, have := before[sid], after[sid], got[sid]
		switch {
		case have == nil:
			if old != nil && current != nil {
				report(sid, "%s: missing at the gateway", all[sid][oracle.Name])
			}
			continue
		case old == nil && current == nil:
			report(sid, "%s: not in the directory", all[sid][oracle.Name])
			continue
		case old == nil:
			old = current
		case current == nil:
			current = old
		}
		for _, path := range slices.Sorted(maps.Keys(union(old, current, have))) {
			if have[path] != old[path] && have[path] != current[path] && !slices.Contains(ignored, path) {
				report(sid, "%s: gateway has %s, directory has %s", path, valueOrAbsent(have[path]), valueOrAbsent(current[path]))
			}
		}
	}
	return found
}

func union[M ~map[string]V, V any](sets ...M) M {
	all := M{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

func valueOrAbsent(value string) string {
	if value == "" {
		return "no value"
	}
	return value
}

func TestDifferences(t *testing.T) {
	identity := func(sid, detail string) gatewayserver.Identity {
		return gatewayserver.Identity{ExternalAssetID: sid, VendorAssetID: "g" + sid, Asset: json.RawMessage(
			`{"asset":{"assetHeader":{"externalAssetId":"` + sid + `","vendorAssetId":"g` + sid + `"},"assetDetail":` + detail + `}}`)}
	}
	bySID := func(identities ...gatewayserver.Identity) map[string]oracle.FlatAsset {
		m := map[string]oracle.FlatAsset{}
		for _, i := range identities {
			m[i.ExternalAssetID] = flatten(t, i.Asset)
		}
		return m
	}
	same := identity("1", `{"name":"a","n":0}`)
	changing := []gatewayserver.Identity{identity("2", `{"n":1}`), identity("2", `{"n":2}`), identity("2", `{"n":3}`)}
	cases := []struct {
		name          string
		held          []gatewayserver.Identity
		before, after map[string]oracle.FlatAsset
		want          int
	}{
		{"equal", []gatewayserver.Identity{same}, bySID(same), bySID(same), 0},
		{"missing", nil, bySID(same), bySID(same), 1},
		{"extra", []gatewayserver.Identity{same}, nil, nil, 1},
		{"two assets", []gatewayserver.Identity{same, same}, bySID(same), bySID(same), 1},
		{"number and string", []gatewayserver.Identity{identity("1", `{"name":"a","n":"0"}`)}, bySID(same), bySID(same), 1},
		{"null and empty object", []gatewayserver.Identity{identity("1", `{"name":"a","n":0,"x":null,"y":{}}`)}, bySID(same), bySID(same), 2},
		{"field missing", []gatewayserver.Identity{identity("1", `{"name":"a"}`)}, bySID(same), bySID(same), 1},
		{"changed, old value", changing[:1], bySID(changing[0]), bySID(changing[1]), 0},
		{"changed, new value", changing[1:2], bySID(changing[0]), bySID(changing[1]), 0},
		{"changed, other value", changing[2:], bySID(changing[0]), bySID(changing[1]), 1},
		{"added during the run", changing[:1], nil, bySID(changing[0]), 0},
		{"deleted during the run", nil, bySID(changing[0]), nil, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := differences(t, "user", c.held, c.before, c.after); len(got) != c.want {
				t.Errorf("differences %q, want %d", got, c.want)
			}
		})
	}
}
