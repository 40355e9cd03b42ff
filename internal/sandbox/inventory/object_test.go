package inventory

import (
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
)

// schema is the part of a JSON schema that samples are made from.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       any                `json:"type"`
	Const      any                `json:"const"`
	Enum       []any              `json:"enum"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
}

// contractSchemas returns the schemas of the contract by name.
func contractSchemas(t *testing.T) map[string]*schema {
	t.Helper()
	var document struct {
		Components struct{ Schemas map[string]*schema }
	}
	if err := json.Unmarshal(gateway.OpenAPI, &document); err != nil {
		t.Fatal(err)
	}
	return document.Components.Schemas
}

// sampler makes values that are valid by the schemas of the contract and differ from each other.
type sampler struct {
	t       *testing.T
	schemas map[string]*schema
	n       int
}

// sample returns a value with every field of a schema. Names of principals and unreadable values are left
// out, because they are not shown where they are.
func (s *sampler) sample(of *schema, path string) any {
	s.n++
	name := strings.TrimPrefix(of.Ref, "#/components/schemas/")
	switch name {
	case "":
	case "Text":
		return fmt.Sprintf("text%d", s.n)
	case "SID":
		return fmt.Sprintf("S-1-5-21-7-7-7-%d", s.n)
	case "RoleID":
		return fmt.Sprintf("S-1-5-21-7-7-7-%d:role", s.n)
	case "Time":
		return fmt.Sprintf("2020-01-01T00:%02d:%02d.000Z", s.n/60%60, s.n%60)
	default:
		return s.sample(s.schemas[name], path)
	}
	switch {
	case of.Const != nil:
		return of.Const
	case of.Enum != nil:
		return of.Enum[0]
	case of.Type == "object":
		object := map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(of.Properties)) {
			if key != "principals" && key != "unreadable" {
				object[key] = s.sample(of.Properties[key], path+"."+key)
			}
		}
		return object
	case of.Type == "array":
		return []any{s.sample(of.Items, path)}
	case of.Type == "boolean":
		return true
	case of.Type == "integer":
		return 1_000_000 + s.n
	case of.Type == "string":
		return fmt.Sprintf("STRING%d", s.n)
	}
	s.t.Fatalf("%s: schema without a sample", path)
	return nil
}

// walk calls visit with the schema of every field, the objects in lists included, and a function that
// replaces its value in the object. Without a value, it removes the field.
func (s *sampler) walk(of *schema, object map[string]any, path string, visit func(path string, of *schema, set func(any))) {
	of = s.resolve(of)
	for _, key := range slices.Sorted(maps.Keys(of.Properties)) {
		value, ok := object[key]
		if !ok {
			continue
		}
		field := s.resolve(of.Properties[key])
		visit(path+key, field, func(other any) {
			if object[key] = other; other == nil {
				delete(object, key)
			}
		})
		object[key] = value
		switch value := value.(type) {
		case map[string]any:
			s.walk(field, value, path+key+".", visit)
		case []any:
			if item, ok := value[0].(map[string]any); ok {
				s.walk(field.Items, item, path+key+".", visit)
			}
		}
	}
}

func (s *sampler) resolve(of *schema) *schema {
	for of.Ref != "" {
		of = s.schemas[strings.TrimPrefix(of.Ref, "#/components/schemas/")]
	}
	return of
}

var testNow = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// pageOf returns the page of an object with the fields of a class, without the JSON of the asset.
func pageOf(t *testing.T, i *inventory, kind string, class map[string]any) string {
	t.Helper()
	class["id"] = "S-1-5-21-1-2-3-1000"
	asset, err := json.Marshal(map[string]any{"asset": map[string]any{"assetDetail": map[string]any{kind + "AssetClass": class}}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	identity := gatewayserver.Identity{ExternalAssetID: "S-1-5-21-1-2-3-1000", VendorAssetID: "00000001-0000-4000-8000-000000000000", Kind: kind, Asset: asset, ReceivedAt: testNow}
	i.identityPage(w, httptest.NewRequest(http.MethodGet, "/inventory/"+kind+"s/00000001-0000-4000-8000-000000000000", nil), kindOf(kind), identity, asset)
	page, _, ok := strings.Cut(w.Body.String(), `<details class="asset">`)
	if !ok {
		t.Fatalf("page without JSON: %s", w.Body)
	}
	return page
}

func newTestInventory() *inventory {
	i := newInventory(gatewayserver.New(gatewayserver.Options{CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile}))
	i.now = func() time.Time { return testNow }
	return i
}

const otherFields = `id="other"`

// rawValue is the form of a value of an enumeration with several words.
var rawValue = regexp.MustCompile(`>[A-Z0-9]+_[A-Z0-9_]+<`)

// TestContract checks that the pages show every field of the contract: each has a place of its own, the
// page changes with each value, and values of enumerations are shown as words.
func TestContract(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			i := newTestInventory()
			s := &sampler{t: t, schemas: contractSchemas(t)}
			class := s.schemas[capitalize(kind.name)+"AssetClass"]
			object := s.sample(class, kind.name).(map[string]any)
			if object["foreignMembers"] != nil {
				object["foreignMembers"] = object["members"] // which are members, too
			}
			complete := pageOf(t, i, kind.name, object)
			if _, other, ok := strings.Cut(complete, otherFields); ok {
				t.Errorf("fields without a place: %s", other)
			}
			fields := 0
			s.walk(class, object, "", func(path string, of *schema, set func(any)) {
				if path == "id" {
					return
				}
				fields++
				if set(nil); pageOf(t, i, kind.name, object) == complete {
					t.Errorf("page does not show %s", path)
				}
				if of.Type == "boolean" && of.Const == nil {
					if set(false); pageOf(t, i, kind.name, object) == complete {
						t.Errorf("page does not show false of %s", path)
					}
				}
				s.checkEnum(i, kind.name, path, of, object, set)
			})
			if fields < 5 {
				t.Errorf("%d fields tested", fields)
			}
			object["futureField"] = map[string]any{"someValue": "from a newer contract"}
			if page := pageOf(t, i, kind.name, object); !strings.Contains(page, "<dt>Future field › some value</dt><dd><bdi>from a newer contract</bdi></dd>") {
				t.Errorf("page does not show a field that it does not know: %s", page)
			}
		})
	}
}

// checkEnum checks that the page shows each value of an enumeration, or of a list of such values,
// differently and as words.
func (s *sampler) checkEnum(i *inventory, kind, path string, of *schema, object map[string]any, set func(any)) {
	s.t.Helper()
	values, isList := of.Enum, false
	if of.Type == "array" && s.resolve(of.Items).Enum != nil {
		values, isList = s.resolve(of.Items).Enum, true
	}
	seen := map[string]any{}
	for _, value := range values {
		set(value)
		if isList {
			set([]any{value})
		}
		page := pageOf(s.t, i, kind, object)
		if before, ok := seen[page]; ok {
			s.t.Errorf("%s: page shows %v like %v", path, value, before)
		}
		seen[page] = value
		if raw := rawValue.FindString(strings.ReplaceAll(page, ">AZUREADSSOACC", "")); raw != "" {
			s.t.Errorf("%s: page shows %v as %s", path, value, raw)
		}
	}
}

// TestUnreadable checks that a field that may not be read is called so, in its place and by its title.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	i := newTestInventory()
	posture := func(fields map[string]any) map[string]any { return map[string]any{"posture": fields} }
	const missing, incomplete = `<span class="chip warn">Not readable</span>`, "ay be incomplete"
	for _, test := range []struct {
		name, kind, title string
		class             map[string]any
		want              string
		absent            string // text that must not be there
	}{
		{name: "facts", kind: "user", title: factsTitle, class: posture(map[string]any{"unreadable": []string{"facts"}}), want: missing},
		{name: "some facts", kind: "user", title: factsTitle, class: posture(map[string]any{"facts": []any{map[string]any{"fact": "X", "attributes": []string{"y"}}}, "unreadable": []string{"facts"}}), want: incomplete},
		{name: "groups", kind: "user", title: groupsTitle, class: posture(map[string]any{"unreadable": []string{"groups"}}), want: missing},
		{name: "privileges of a group", kind: "group", title: privilegesTitle, class: posture(map[string]any{"unreadable": []string{"privilegedGroups", "privilegedPaths"}}), want: missing},
		{name: "control", kind: "group", title: controlledByTitle, class: posture(map[string]any{"unreadable": []string{"controlledBy"}}), want: missing},
		{name: "nesting depth", kind: "group", title: "Nesting depth", class: posture(map[string]any{"nestingDepth": 1, "unreadable": []string{"nestingDepth"}}), want: incomplete},
		{name: "members of a group", kind: "group", title: membersTitle, class: posture(map[string]any{"unreadable": []string{"members"}}), want: missing},
		{name: "members of a role", kind: "role", title: membersTitle, class: map[string]any{"unreadable": []string{"members"}}, want: missing, absent: "Nobody"},
		{name: "some members of a role", kind: "role", title: membersTitle, class: map[string]any{"members": []string{"S-1-5-11"}, "unreadable": []string{"members"}}, want: incomplete},
		{name: "part of a policy", kind: "domain", title: "Maximum age", class: map[string]any{"passwordPolicy": map[string]any{"complexity": true}, "unreadable": []string{"passwordPolicy.maximumAgeSeconds"}},
			want: missing, absent: "never expire"},
		{name: "trusts", kind: "domain", title: trustsTitle, class: map[string]any{"unreadable": []string{"trusts"}}, want: missing},
		{name: "attributes of a trust", kind: "domain", title: "Attributes", class: map[string]any{"trusts": []any{map[string]any{"partner": "p"}}, "unreadable": []string{"trusts.attributes"}}, want: missing},
		{name: "control of AdminSDHolder", kind: "domain", title: "AdminSDHolder", class: map[string]any{"unreadable": []string{"adminSdHolder.controlledBy"}}, want: missing},
		{name: "containers", kind: "domain", title: "Containers", class: map[string]any{"unreadable": []string{"containers"}}, want: incomplete},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			page := pageOf(t, i, test.kind, test.class)
			_, after, named := strings.Cut(page, test.title+"<")
			if banner := strings.Contains(page, `id="unreadable"`); !named || !banner || !strings.Contains(after, test.want) || test.absent != "" && strings.Contains(page, test.absent) {
				t.Errorf("title %t, section %t: %s", named, banner, page)
			}
		})
	}
}

// TestEveryUnreadableField checks that no field whose name is in the list of unreadable values is shown as
// empty or left out.
func TestEveryUnreadableField(t *testing.T) {
	t.Parallel()
	i := newTestInventory()
	for _, kind := range kinds {
		for _, f := range allFields(kind.name) {
			name, isPosture := strings.CutPrefix(f.path, "posture.")
			class := map[string]any{"unreadable": []string{name}}
			switch {
			case isPosture:
				class = map[string]any{"posture": class}
			case kind.name == gatewayserver.KindUser || kind.name == gatewayserver.KindGroup:
				continue // only security posture has the list
			}
			page := pageOf(t, i, kind.name, class)
			if !strings.Contains(page, `<span class="chip warn">Not readable</span>`) && !strings.Contains(page, `<span class="chip warn">May be incomplete</span>`) {
				t.Errorf("page of a %s does not show that %s may not be read: %s", kind.name, name, page)
			}
			if banner := "<dt>Values</dt><dd><bdi>" + html.EscapeString(f.title) + "</bdi></dd>"; !strings.Contains(page, banner) {
				t.Errorf("page of a %s does not name %s: %s", kind.name, name, page)
			}
		}
	}
}

// TestFormat checks the texts of numbers, durations, ages and names of fields.
func TestFormat(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, got, want string }{
		{"number", number(999), "999"}, {"thousands", number(1141), "1,141"}, {"millions", number(int64(1234567)), "1,234,567"}, {"negative", number(-123456), "-123,456"},
		{"42 days", interval(3628800), "42 days"}, {"one day", interval(86400), "1 day"}, {"two units", interval(86400 + 7200 + 5), "1 day 2 hours"}, {"units apart", interval(86400 + 5), "1 day"},
		{"half an hour", interval(1800), "30 minutes"}, {"none", interval(0), "0 seconds"}, {"years", interval(9223372036), "106,751 days 23 hours"},
		{"past", age(testNow.Add(-49*time.Hour), testNow), "2 days ago"}, {"future", age(testNow.Add(90*time.Minute), testNow), "in 1 hour"}, {"now", age(testNow, testNow), "now"},
		{"short", lasted(1234567 * time.Microsecond), "1.235s"}, {"long", lasted(time.Hour + time.Minute), "1 hour 1 minute"},
		{"level 2016", functionalLevel(7), "Windows Server 2016"}, {"level 2000", functionalLevel(0), "Windows 2000"}, {"level 2025", functionalLevel(10), "Windows Server 2025"}, {"future level", functionalLevel(42), "Unknown level 42"},
		{"label", label("PASSWORD_EXPIRED"), "Password expired"}, {"label of an abbreviation", label("AES256"), "AES-256"}, {"title", titleOf("a.futureField"), "A › future field"},
		{"capital beyond ASCII", capitalize("émile"), "Émile"}, {"nothing", capitalize(""), ""},
		{"short word", strings.Join(breakable("a@b", 3), "|"), "a@b"}, {"address", strings.Join(breakable("to wolfeschlegelstein.a@example.com", 20), "|"), "to wolfeschlegelstein.|a@|example.|com"},
		{"end", strings.Join(breakable(strings.Repeat("x", 30)+"@", 20), "|"), strings.Repeat("x", 30) + "@"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %q, want %q", test.name, test.got, test.want)
		}
	}
}

// posturedSite returns a site with a domain of accounts, groups and a role. Anna is a member of the role
// through two groups, Bob directly, Carl by his primary group, and a computer that the inventory does not have.
func posturedSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	const authority = "S-1-5-21-1-2-3-"
	item := func(kind, id string, n int, class map[string]any) string {
		class["id"] = id
		asset, err := json.Marshal(map[string]any{"asset": map[string]any{
			"assetHeader": map[string]any{"externalAssetId": id, "vendorAssetId": fmt.Sprintf("%08x-0000-4000-8000-000000000000", n)},
			"assetDetail": map[string]any{"name": class["name"], kind + "AssetClass": class},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return string(asset)
	}
	type m = map[string]any
	nested := m{"nested": []string{authority + "512"}}
	s.send(t, adSource,
		item("user", authority+"1", 1, m{"name": "Anna", "status": "ACTIVE", "posture": m{"groups": []string{authority + "21"}, "privilegedGroups": nested,
			"privilegedPaths": []m{{"sid": authority + "512", "name": "Admins", "path": []m{{"sid": authority + "21", "name": "Inner"}, {"sid": authority + "20"}}}}}}),
		item("user", authority+"2", 2, m{"name": "Bob", "status": "DISABLED", "posture": m{"groups": []string{authority + "512"}, "privilegedGroups": m{"direct": []string{authority + "512"}}}}),
		item("user", authority+"3", 3, m{"name": "Carl", "status": "ACTIVE", "lastSuccessfulLoginAt": "2026-11-20T09:30:00.000Z", "posture": m{"primaryGroup": authority + "20", "privilegedGroups": nested}}),
		item("user", authority+"4", 4, m{"name": "Dora", "status": "ACTIVE", "posture": m{"groups": []string{authority + "22"}}}),
		item("group", authority+"512", 512, m{"name": "Admins", "type": "SECURITY", "posture": m{"members": []string{authority + "2", authority + "20"}}}),
		item("group", authority+"20", 20, m{"name": "Outer", "type": "SECURITY", "posture": m{"members": []string{authority + "21", authority + "30"}, "privilegedGroups": m{"direct": []string{authority + "512"}}}}),
		item("group", authority+"21", 21, m{"name": "Inner", "type": "SECURITY", "posture": m{"members": []string{authority + "1"}, "privilegedGroups": nested}}),
		item("group", authority+"22", 22, m{"name": "Plain", "type": "SECURITY", "posture": m{"members": []string{authority + "4", authority + "1"}}}),
		item("role", authority+"512:role", 600, m{"name": "Admins", "role": "DOMAIN_ADMINS", "privileged": true, "group": authority + "512",
			"members": []string{authority + "1", authority + "2", authority + "3", authority + "30"}, "nestedGroups": []string{authority + "20", authority + "21"},
			"principals": []m{{"sid": authority + "30", "name": "PC-0042", "kind": "COMPUTER"}}}),
		item("role", authority+"525:role", 601, m{"name": "AAA Protected", "role": "PROTECTED_USERS", "privileged": false, "group": authority + "525"}),
	)
	return s
}

// tags are the parts of a page that are not text.
var tags = regexp.MustCompile(`(?s)<style.*?</style>|<[^>]*>`)

// rowsOf returns the texts of the rows of a section.
func rowsOf(page, id string) []string {
	_, part, _ := strings.Cut(page, `<h2 id="`+id+`">`)
	part, _, _ = strings.Cut(part, "</section>")
	_, part, _ = strings.Cut(part, "<tbody")
	var rows []string
	for row := range strings.SplitSeq(part, `<tr role="row">`) {
		if strings.Contains(row, "</tr>") {
			row, _, _ = strings.Cut(row, "</tr>")
			rows = append(rows, strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(row, " "))), " "))
		}
	}
	return rows
}

// TestRole checks the page of a role: its members with links, and how they have it.
func TestRole(t *testing.T) {
	t.Parallel()
	s := posturedSite(t)
	page := s.get("/inventory/roles/00000258-0000-4000-8000-000000000000").Body.String()
	want := []string{"Anna User Active – Inner Outer", "Bob User Disabled – Direct", "Carl User Active 2026-11-20 09:30 Outer", "PC-0042 Computer – – Outer"}
	got := rowsOf(page, "members")
	if !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
	if got, want := rowsOf(page, "nested-groups"), []string{"Inner Outer", "Outer Direct"}; !slices.Equal(got, want) {
		t.Errorf("nested groups %q, want %q", got, want)
	}
	for _, link := range []string{
		`<a href="/inventory/users/00000001-0000-4000-8000-000000000000"><bdi title="S-1-5-21-1-2-3-1">Anna</bdi></a>`, `<a href="/inventory/groups/00000014-0000-4000-8000-000000000000"><bdi title="S-1-5-21-1-2-3-20">Outer</bdi></a>`,
		`<h2 id="members">Members (4)</h2>`, `<dt>Group</dt><dd><a href="/inventory/groups/00000200-0000-4000-8000-000000000000">`,
	} {
		if !strings.Contains(page, link) {
			t.Errorf("page does not contain %s", link)
		}
	}
	page = s.get("/inventory/roles/00000259-0000-4000-8000-000000000000").Body.String()
	for _, text := range []string{"Nobody has this role.", "Not privileged"} {
		if !strings.Contains(page, text) {
			t.Errorf("page of a role without members does not contain %s", text)
		}
	}
}

// TestPrivilegedFirst checks that pages list privileged objects first, and that listings mark and filter them.
func TestPrivilegedFirst(t *testing.T) {
	t.Parallel()
	s := posturedSite(t)
	page := s.get("/inventory/groups/00000016-0000-4000-8000-000000000000").Body.String()
	if got, want := rowsOf(page, "members"), []string{"Anna User Active Privileged", "Dora User Active –"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
	page = s.get("/inventory/users/00000001-0000-4000-8000-000000000000").Body.String()
	if got, want := rowsOf(page, "privileges"), []string{"Admins Nested Inner Outer"}; !slices.Equal(got, want) || !strings.Contains(page, `<span class="chip bad">Privileged</span>`) {
		t.Errorf("privileges %q, want %q: %s", got, want, page)
	}
	page = s.get("/inventory/groups/00000200-0000-4000-8000-000000000000").Body.String()
	if !strings.Contains(page, `<dt>Role</dt><dd><a href="/inventory/roles/00000258-0000-4000-8000-000000000000">`) || !strings.Contains(page, `<span class="chip bad">Privileged</span>`) {
		t.Errorf("page of the group of a role: %s", page)
	}
	if page := s.get("/inventory/roles").Body.String(); strings.Index(page, ">Admins<") > strings.Index(page, ">AAA Protected<") {
		t.Error("a privileged role is not the first")
	}
	var response listingJSON
	w := s.get("/inventory/users?privileged=PRIVILEGED", "application/json")
	if err := json.Unmarshal(w.Body.Bytes(), &response); err != nil || response.Total != 3 {
		t.Errorf("privileged users: %s", w.Body)
	}
	if page := s.get("/inventory/groups?sort=-members").Body.String(); !strings.Contains(page, `class="number"><bdi>2</bdi></td>`) {
		t.Errorf("groups without their numbers of members: %s", page)
	}
}

// TestManyMembers checks the pages of a group with 10,000 members with long and hostile names.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	const members = 10_000
	s := newSite(t)
	const evil = `<script>alert(1)</script>`
	var sids []string
	var principals []map[string]string
	for n := range members {
		sid := fmt.Sprintf("S-1-5-21-1-2-3-%d", 10_000+n)
		sids = append(sids, sid)
		principals = append(principals, map[string]string{"sid": sid, "name": fmt.Sprintf("%05d \u202e%s%s", n, evil, strings.Repeat("x", 64)), "kind": "COMPUTER"})
	}
	asset, err := json.Marshal(map[string]any{"asset": map[string]any{
		"assetHeader": map[string]any{"externalAssetId": "S-1-5-21-1-2-3-1", "vendorAssetId": "00000001-0000-4000-8000-000000000000"},
		"assetDetail": map[string]any{"name": "All", "groupAssetClass": map[string]any{"id": "S-1-5-21-1-2-3-1", "name": "All", "posture": map[string]any{"members": sids, "principals": principals}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.send(t, adSource, string(asset))
	seen := map[string]bool{}
	const limit = 1000
	offsets := []int{0, members / 2, members - limit}
	for _, offset := range offsets {
		w := s.get(fmt.Sprintf("/inventory/groups/00000001-0000-4000-8000-000000000000?limit=%d&offset=%d", limit, offset))
		body := w.Body.String()
		if strings.Contains(body, "<script") || !strings.Contains(body, "of 10,000</p>") || !strings.Contains(body, "Members (10,000)") || strings.Contains(body, "<pre") {
			t.Fatalf("offset %d: injected markup, no number of members, or all of the JSON: %.2000s", offset, body)
		}
		for _, row := range rowsOf(body, "members") {
			seen[row] = true
		}
	}
	if want := limit * len(offsets); len(seen) != want {
		t.Errorf("%d different members on pages, want %d", len(seen), want)
	}
	if w := s.get("/inventory/groups/00000001-0000-4000-8000-000000000000?offset=x&limit=-5"); w.Code != 200 {
		t.Errorf("invalid range: status %d", w.Code)
	}
}
