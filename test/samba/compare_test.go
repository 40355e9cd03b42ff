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

// A reading is what the directory showed at one moment: the identities by SID.
type reading struct {
	users  map[string]oracle.Flat
	groups map[string]oracle.Flat
}

// A search is what a reading is taken of.
type search struct {
	base   string // the whole domain when empty
	scope  string // sub, one, base; sub when empty
	filter string // narrows the users, nothing when empty
}

// lastReading is a reading and the number of changes before it.
type lastReading struct {
	reading
	changes int
}

var readAttributes = []string{
	"objectClass", "objectSid", "objectGUID", "name", "mail", "givenName", "sn", "displayName", "mobile", "title", "whenCreated",
	"lastLogon", "pwdLastSet", "accountExpires", "badPwdCount", "badPasswordTime", "l", "co", "c", "streetAddress", "st",
	"userAccountControl", "msDS-User-Account-Control-Computed", "description", "groupType",
}

// lastRead returns the last reading of a search if nothing was changed since. A new one of
// the whole domain takes seconds.
func (d *controller) lastRead(s search) (r reading, ok bool) {
	last, ok := d.readings[s]
	return last.reading, ok && last.changes == d.changes
}

// read asks the server with ldapsearch, as the account that the connector has.
func (d *controller) read(t *testing.T, s search) reading {
	t.Helper()
	r := reading{users: map[string]oracle.Flat{}, groups: map[string]oracle.Flat{}}
	now := time.Now()
	take := func(records []record, kind string, into map[string]oracle.Flat) {
		for _, rec := range records {
			if rec.values.Kind() == kind {
				into[oracle.SID(rec.values.First("objectSid"))] = rec.values.Asset(now)
			}
		}
	}
	all := d.search(t, s.base, s.scope, "(objectClass=*)", readAttributes...)
	narrowed := all
	if s.filter != "" {
		narrowed = d.search(t, s.base, s.scope, s.filter, readAttributes...)
	}
	take(narrowed, oracle.User, r.users)
	take(all, oracle.Group, r.groups)
	if d.readings == nil {
		d.readings = map[search]lastReading{}
	}
	d.readings[s] = lastReading{r, d.changes}
	return r
}

// search runs ldapsearch in pages, over the connection that every server allows.
func (d *controller) search(t *testing.T, base, scope, filter string, attributes ...string) []record {
	t.Helper()
	if base == "" {
		base = baseDN
	}
	if scope == "" {
		scope = "sub"
	}
	out, err := command("", "ldapsearch", append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-E", "pr=1000/noprompt",
		"-H", tlsURL, "-D", d.service.dn, "-y", d.service.file, "-b", base, "-s", scope, filter}, attributes...)...)
	if err != nil {
		t.Fatal(err)
	}
	records, err := parseLDIF(out)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func flatten(t *testing.T, asset []byte) oracle.Flat {
	t.Helper()
	leaves, err := oracle.Flatten(asset)
	if err != nil {
		t.Fatal(err)
	}
	return leaves
}

// compare reports each difference between what a gateway holds and what the
// directory showed before and after the run.
func compare(t *testing.T, g *testenv.Gateway, before, after reading) {
	t.Helper()
	found := append(
		differences(t, "user", g.Users(), before.users, after.users),
		differences(t, "group", g.Groups(), before.groups, after.groups)...)
	const most = 40
	for _, d := range found[:min(most, len(found))] {
		t.Error(d)
	}
	if len(found) > most {
		t.Errorf("and %d more differences", len(found)-most)
	}
}

// differences has one line for each field that is not as it should be. Where the
// two readings agree there is one right value; what moved meanwhile may be either.
func differences(t *testing.T, kind string, held []gatewayserver.Identity, before, after map[string]oracle.Flat) (found []string) {
	t.Helper()
	report := func(sid, format string, args ...any) {
		found = append(found, kind+" "+sid+": "+fmt.Sprintf(format, args...))
	}
	got := map[string]oracle.Flat{}
	for _, identity := range held {
		sid, asset := identity.ExternalAssetID, flatten(t, identity.Asset)
		if got[sid] != nil {
			report(sid, "held twice")
		}
		if vendor := asset.Text(oracle.VendorID); identity.VendorAssetID != vendor {
			report(sid, "filed under vendorAssetId %q, not %q", identity.VendorAssetID, vendor)
		}
		got[sid] = asset
	}
	all := union(before, after, got)
	for _, sid := range slices.Sorted(maps.Keys(all)) {
		was, is, have := before[sid], after[sid], got[sid]
		switch {
		case have == nil:
			if was != nil && is != nil {
				report(sid, "%s: missing at the gateway", all[sid][oracle.Name])
			}
			continue
		case was == nil && is == nil:
			report(sid, "%s: at the gateway, but not in the directory", all[sid][oracle.Name])
			continue
		case was == nil:
			was = is
		case is == nil:
			is = was
		}
		for _, path := range slices.Sorted(maps.Keys(union(was, is, have))) {
			if have[path] != was[path] && have[path] != is[path] {
				report(sid, "%s: gateway has %s, directory has %s", path, orAbsent(have[path]), orAbsent(is[path]))
			}
		}
	}
	return found
}

func union[M ~map[string]V, V any](parts ...M) M {
	all := M{}
	for _, part := range parts {
		maps.Copy(all, part)
	}
	return all
}

func orAbsent(value string) string {
	if value == "" {
		return "nothing"
	}
	return value
}

func TestDifferences(t *testing.T) {
	identity := func(sid, detail string) gatewayserver.Identity {
		return gatewayserver.Identity{ExternalAssetID: sid, VendorAssetID: "g" + sid, Asset: json.RawMessage(
			`{"asset":{"assetHeader":{"externalAssetId":"` + sid + `","vendorAssetId":"g` + sid + `"},"assetDetail":` + detail + `}}`)}
	}
	of := func(identities ...gatewayserver.Identity) map[string]oracle.Flat {
		m := map[string]oracle.Flat{}
		for _, i := range identities {
			m[i.ExternalAssetID] = flatten(t, i.Asset)
		}
		return m
	}
	same := identity("1", `{"name":"a","n":0}`)
	moving := []gatewayserver.Identity{identity("2", `{"n":1}`), identity("2", `{"n":2}`), identity("2", `{"n":3}`)}
	cases := []struct {
		name          string
		held          []gatewayserver.Identity
		before, after map[string]oracle.Flat
		want          int
	}{
		{"equal", []gatewayserver.Identity{same}, of(same), of(same), 0},
		{"missing", nil, of(same), of(same), 1},
		{"extra", []gatewayserver.Identity{same}, nil, nil, 1},
		{"twice", []gatewayserver.Identity{same, same}, of(same), of(same), 1},
		{"number and string", []gatewayserver.Identity{identity("1", `{"name":"a","n":"0"}`)}, of(same), of(same), 1},
		{"null and an empty object", []gatewayserver.Identity{identity("1", `{"name":"a","n":0,"x":null,"y":{}}`)}, of(same), of(same), 2},
		{"field missing", []gatewayserver.Identity{identity("1", `{"name":"a"}`)}, of(same), of(same), 1},
		{"moved, the older value", moving[:1], of(moving[0]), of(moving[1]), 0},
		{"moved, the newer value", moving[1:2], of(moving[0]), of(moving[1]), 0},
		{"moved, another value", moving[2:], of(moving[0]), of(moving[1]), 1},
		{"came meanwhile", moving[:1], nil, of(moving[0]), 0},
		{"went meanwhile", nil, of(moving[0]), nil, 0},
	}
	for _, c := range cases {
		if got := differences(t, "user", c.held, c.before, c.after); len(got) != c.want {
			t.Errorf("%s: got %q, want %d", c.name, got, c.want)
		}
	}
}
