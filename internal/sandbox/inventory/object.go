package inventory

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/sandbox/gatewayserver"
)

// object builds the page of an object from the fields of its asset. The tables of fields.go name the
// fields. Those that they do not name are shown as other fields, so that none is lost.
type object struct {
	*record
	inventory  *inventory
	identity   gatewayserver.Identity
	request    *http.Request
	principals map[string]principal // by SID
	unreadable map[string]bool      // fields, in the asset's list of unreadable values
	index      []map[string]*row    // the inventory by externalAssetId
	records    []*record            // all that the page shows, for the fields that are left
	pager      *pager               // of the table that has pages
}

// newObject returns the object of an identity.
func newObject(i *inventory, r *http.Request, identity gatewayserver.Identity) *object {
	o := &object{inventory: i, request: r, identity: identity, principals: map[string]principal{}, unreadable: map[string]bool{}}
	for _, k := range kinds {
		o.index = append(o.index, i.listing(k).byID)
	}
	o.record = o.newRecord("", identity.Fields())
	o.take("id") // which is the SID in the header of the asset
	for _, path := range []string{"principals", "posture.principals"} {
		for _, item := range o.items(path) {
			p := principal{name: text(item.take("name")), kind: text(item.take("kind"))}
			o.principals[text(item.take("sid"))] = p
		}
	}
	for _, path := range []string{"unreadable", "posture.unreadable"} {
		for _, name := range decode[[]string](o.take(path)) {
			o.unreadable[strings.TrimSuffix(path, "unreadable")+name] = true
		}
	}
	return o
}

// record is a JSON object whose fields are taken one by one.
type record struct {
	path   string                     // of the record in the asset, with a dot at its end
	fields map[string]json.RawMessage // by path, also those of nested objects
	taken  map[string]bool
}

func (o *object) newRecord(path string, fields map[string]json.RawMessage) *record {
	r := &record{path, map[string]json.RawMessage{}, map[string]bool{}}
	r.add("", fields)
	o.records = append(o.records, r)
	return r
}

func (r *record) add(path string, fields map[string]json.RawMessage) {
	for key, raw := range fields {
		r.fields[path+key] = raw
		if nested := nestedIn(raw); nested != nil {
			r.add(path+key+".", nested)
		}
	}
}

// nestedIn returns the fields of a JSON object, or nil.
func nestedIn(raw json.RawMessage) map[string]json.RawMessage {
	if len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	return decode[map[string]json.RawMessage](raw)
}

// take returns a field, or nil, and marks it as shown.
func (r *record) take(path string) json.RawMessage {
	r.taken[path] = true
	return r.fields[path]
}

// has reports whether one of the fields exists.
func (r *record) has(paths ...string) bool {
	return slices.ContainsFunc(paths, func(path string) bool { return r.fields[path] != nil })
}

// rest returns the paths of the fields that were not taken, sorted.
func (r *record) rest() []string {
	var rest []string
	for _, path := range slices.Sorted(maps.Keys(r.fields)) {
		if !r.isTaken(path) && len(nestedIn(r.fields[path])) == 0 {
			rest = append(rest, path)
		}
	}
	return rest
}

// isTaken reports whether a field or an object that contains it was taken.
func (r *record) isTaken(path string) bool {
	for end, c := range path {
		if c == '.' && r.taken[path[:end]] {
			return true
		}
	}
	return r.taken[path]
}

// items takes a list of objects.
func (o *object) items(path string) []*record {
	return o.itemsOf(o.record, path)
}

func (o *object) itemsOf(r *record, path string) []*record {
	var items []*record
	for _, fields := range decode[[]map[string]json.RawMessage](r.take(path)) {
		items = append(items, o.newRecord(r.path+path+".", fields))
	}
	return items
}

// decode returns a JSON value of a type, or its zero value.
func decode[T any](raw json.RawMessage) T {
	var value, zero T
	if len(raw) == 0 || json.Unmarshal(raw, &value) != nil {
		return zero
	}
	return value
}

func text(raw json.RawMessage) string { return gatewayserver.Text(raw) }

// principal is the name and kind of a principal. They can be empty.
type principal struct{ name, kind string }

// row returns the row of an externalAssetId in the inventory, or nil.
func (o *object) row(externalAssetID string) *row {
	for _, rows := range o.index {
		if r := rows[externalAssetID]; r != nil {
			return r
		}
	}
	return nil
}

// find returns the principal of a SID, with the row of its object in the inventory, or nil.
func (o *object) find(sid string) (principal, *row) {
	p := o.principals[sid]
	r := o.row(sid)
	if r != nil {
		p.name = cmp.Or(p.name, r.name())
		p.kind = cmp.Or(p.kind, r.principalKind())
	}
	return p, r
}

// reference returns the cell of a principal: its name, or its SID without one, with a link to its page.
func (o *object) reference(sid string) cell {
	p, r := o.find(sid)
	c := cell{Text: p.name, Note: label(p.kind), SID: sid}
	if !isVisible(c.Text) {
		c.Text, c.Code = sid, true
	}
	if r != nil {
		c.URL, c.Gone = r.url, r.isDeleted()
	}
	return c
}

// byPrivilege returns SIDs in the order of their display: privileged first, groups first, by name.
func (o *object) byPrivilege(sids []string) []string {
	type keyed struct {
		sid, name         string
		privileged, group bool
	}
	list := make([]keyed, len(sids))
	for n, sid := range sids {
		p, r := o.find(sid)
		list[n] = keyed{sid, strings.ToLower(cmp.Or(p.name, sid)), r != nil && r.isPrivileged(), p.kind == kindGroup}
	}
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	slices.SortFunc(list, func(a, b keyed) int {
		return cmp.Or(first(a.privileged, b.privileged), first(a.group, b.group), cmp.Compare(a.name, b.name), cmp.Compare(a.sid, b.sid))
	})
	sorted := make([]string, len(list))
	for n, k := range list {
		sorted[n] = k.sid
	}
	return sorted
}

// cells are the values of an entry, or of a column in a table.
type cells struct {
	Title string // of the column
	Items []cell
	More  int // values that are left out; the JSON of the asset has all
}

// Class returns the class for the style sheet.
func (c cells) Class() string {
	switch {
	case len(c.Items) == 0:
		return "blank"
	case len(c.Items) == 1:
		return c.Items[0].Class()
	}
	return ""
}

// one returns a single value.
func one(c cell) cells { return cells{Items: []cell{c}} }

// maxItems is the number of values that an entry shows.
const maxItems = 50

// many returns the first values of a list.
func many[T any](list []T, toCell func(T) cell) cells {
	var c cells
	for _, item := range list[:min(len(list), maxItems)] {
		c.Items = append(c.Items, toCell(item))
	}
	c.More = len(list) - len(c.Items)
	return c
}

// entry is a titled value.
type entry struct {
	Title string
	cells
}

// table is a list of objects.
type table struct {
	Title, Note string
	Columns     []string
	Rows        [][]cells
	Pager       *pager // nil: the table has no other pages
	More        int    // rows that are left out
}

// section is a part of the page. Its ID is for links.
type section struct {
	ID, Title, Note string
	Entries         []entry
	Tables          []table
	Lists           []list
}

// list is the entries of an object within the object.
type list struct {
	Title   string
	Entries []entry
}

func (s section) isEmpty() bool {
	return len(s.Entries) == 0 && len(s.Tables) == 0 && len(s.Lists) == 0 && s.Note == ""
}

// notReadable is the cell of a value that the connector's account may not read.
func notReadable() cell { return cell{Text: "Not readable", Tone: "warn"} }

// uncertain is the cell beside a value that depends on one that is unreadable.
func uncertain() cell { return cell{Text: "May be incomplete", Tone: "warn"} }

// field is a field of an asset.
type field struct {
	path, title string
	show        func(*object, json.RawMessage) cells
	absent      string // text without the field, if the object that contains it has others
}

// entries returns the entries of the fields that exist, that may not be read, or whose absence has a
// meaning.
func (o *object) entries(r *record, fields []field) []entry {
	var entries []entry
	for _, f := range fields {
		raw := r.take(f.path)
		e := entry{Title: f.title}
		missing := o.isUnreadable(r.path + f.path)
		switch {
		case raw != nil:
			if e.cells = f.show(o, raw); missing {
				e.Items = append(e.Items, uncertain())
			}
		case missing:
			e.cells = one(notReadable())
		case f.absent != "" && (r != o.record || r.has(parentOf(f.path))):
			e.cells = one(cell{Text: f.absent, Tone: "none"})
		default:
			continue
		}
		entries = append(entries, e)
	}
	return entries
}

// isUnreadable reports whether a field or an object that contains it is in the list of unreadable values.
func (o *object) isUnreadable(path string) bool {
	for ; path != ""; path = parentOf(path) {
		if o.unreadable[path] {
			return true
		}
	}
	return false
}

// parentOf returns the path of the object that contains a field, or "".
func parentOf(path string) string { return path[:max(0, strings.LastIndexByte(path, '.'))] }

// rows returns the table of a list of objects, with a column for each field that one of them has.
func (o *object) rows(path string, fields []field) (table, []*record) {
	items := o.items(path)
	t := table{More: max(0, len(items)-maxItems)}
	t.Rows = make([][]cells, min(len(items), maxItems))
	for _, f := range fields {
		missing := o.isUnreadable(path + "." + f.path)
		if !missing && !slices.ContainsFunc(items, func(item *record) bool { return item.has(f.path) }) {
			continue
		}
		t.Columns = append(t.Columns, f.title)
		for n, item := range items {
			var c cells
			raw := item.take(f.path)
			switch {
			case n >= len(t.Rows):
				continue
			case raw != nil:
				c = f.show(o, raw)
			case missing:
				c = one(notReadable())
			case f.absent != "":
				c = one(cell{Text: f.absent, Tone: "none"})
			}
			c.Title = f.title
			t.Rows[n] = append(t.Rows[n], c)
		}
	}
	return t, items
}

// members returns the table of principals, with pages. rest returns the columns after the name and the kind.
func (o *object) members(title string, sids []string, columns []string, rest func(sid string, r *row) []cells) table {
	sids = o.byPrivilege(sids)
	offset, limit, _ := parseRange(o.request.URL.Query()) // an invalid range is the first page
	p := newPager(o.request, len(sids), offset, limit)
	t := o.principalTable(title, slicePart(sids, p.offset, p.limit), columns, rest)
	if p.Pages > 1 {
		t.Pager, o.pager = &p, &p
	}
	return t
}

func (o *object) principalTable(title string, sids, columns []string, rest func(sid string, r *row) []cells) table {
	t := table{Title: title, Columns: append([]string{"Name", "Kind"}, columns...)}
	for _, sid := range sids {
		c := o.reference(sid)
		kind := cell{Text: c.Note}
		c.Note = ""
		columns := []cells{one(c), one(kind)}
		if rest != nil {
			_, r := o.find(sid)
			columns = append(columns, rest(sid, r)...)
		}
		for n := range columns {
			columns[n].Title = t.Columns[n]
		}
		t.Rows = append(t.Rows, columns)
	}
	return t
}

// others returns the section of the fields that no other section shows, such as those of a newer contract.
func (o *object) others() section {
	s := section{ID: "other", Title: "Other fields"}
	for _, r := range o.records {
		for _, path := range r.rest() {
			s.Entries = append(s.Entries, entry{titleOf(r.path + path), showAny(o, r.fields[path])})
		}
	}
	return s
}

// unreadableSection names the values that the connector's account may not read.
func (o *object) unreadableSection() section {
	s := section{ID: "unreadable", Title: "Not readable"}
	if len(o.unreadable) == 0 {
		return s
	}
	s.Note = "The connector's account may not read these values, or what they depend on. They are absent, incomplete or out of date."
	paths := slices.Sorted(maps.Keys(o.unreadable))
	s.Entries = []entry{{"Values", many(paths, func(path string) cell { return cell{Text: titleOfField(o.identity.Kind, path)} })}}
	return s
}

// titleOfField returns the title of a field of a kind, with that of the object that contains it.
func titleOfField(kind, path string) string {
	for _, f := range allFields(kind) {
		if f.path == path {
			return f.title
		}
	}
	return titleOf(strings.TrimPrefix(path, "posture."))
}

// Shows of values.

func showText(_ *object, raw json.RawMessage) cells {
	return one(cell{Text: text(raw)})
}

func showCode(_ *object, raw json.RawMessage) cells {
	return one(cell{Text: text(raw), Code: true})
}

func showTexts(_ *object, raw json.RawMessage) cells {
	return many(decode[[]string](raw), func(s string) cell { return cell{Text: s} })
}

func showCodes(_ *object, raw json.RawMessage) cells {
	return many(decode[[]string](raw), func(s string) cell { return cell{Text: s, Code: true} })
}

// showAny returns any value as text, a list by its items.
func showAny(o *object, raw json.RawMessage) cells {
	if list := decode[[]json.RawMessage](raw); list != nil {
		return many(list, func(item json.RawMessage) cell { return cell{Text: text(item)} })
	}
	return showMoment(o, raw)
}

// showMoment returns a time with its age, and any other value as text.
func showMoment(o *object, raw json.RawMessage) cells {
	t, err := time.Parse(time.RFC3339, text(raw))
	if err != nil {
		return showText(o, raw)
	}
	return one(momentCell(t, o.inventory.now()))
}

func momentCell(t, now time.Time) cell {
	return cell{Text: t.UTC().Format("2006-01-02 15:04"), Time: timestamp(t), Note: age(t, now)}
}

// showNumber returns a function that shows an integer by a text.
func showNumber(toText func(int64) string) func(*object, json.RawMessage) cells {
	return func(o *object, raw json.RawMessage) cells {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return showText(o, raw)
		}
		return one(cell{Text: toText(n)})
	}
}

// showFlag returns a function that shows a boolean by two cells.
func showFlag(yes, no cell) func(*object, json.RawMessage) cells {
	return func(o *object, raw json.RawMessage) cells {
		switch string(raw) {
		case "true":
			return one(yes)
		case "false":
			return one(no)
		}
		return showText(o, raw)
	}
}

var (
	showYesNo = showFlag(cell{Text: "Yes"}, cell{Text: "No"})
	showRisk  = showFlag(cell{Text: "Yes", Tone: "bad"}, cell{Text: "No"}) // if it is true
)

func showChip(_ *object, raw json.RawMessage) cells { return one(chip("", text(raw))) }

func showLabel(_ *object, raw json.RawMessage) cells { return one(cell{Text: label(text(raw))}) }

func showChips(_ *object, raw json.RawMessage) cells {
	return many(decode[[]string](raw), func(s string) cell { return chip("", s) })
}

func showLabels(_ *object, raw json.RawMessage) cells {
	return many(decode[[]string](raw), func(s string) cell { return cell{Text: label(s)} })
}

func showReference(o *object, raw json.RawMessage) cells { return one(o.reference(text(raw))) }

func showReferences(o *object, raw json.RawMessage) cells {
	return many(o.byPrivilege(decode[[]string](raw)), o.reference)
}

type identityPage struct {
	frame
	gatewayserver.Identity
	Name, Plural, URL string
	Chips             []cell
	Sections          []section
	JSON              string // empty: too large for the page
}

// maxJSON is the size of the largest asset whose JSON is a part of its page.
const maxJSON = 64 << 10

func (i *inventory) identityPage(w http.ResponseWriter, r *http.Request, k *kind, identity gatewayserver.Identity, asset json.RawMessage) {
	o := newObject(i, r, identity)
	name := text(o.take("name"))
	if !isVisible(name) {
		name = "(no name)"
	}
	page := identityPage{frame: i.frame(name, r), Identity: identity, Name: name, Plural: k.plural(), URL: k.path(), Chips: o.chips()}
	for _, s := range slices.Concat([]section{o.unreadableSection()}, sectionsOf(o), []section{o.others()}) {
		if !s.isEmpty() {
			page.Sections = append(page.Sections, s)
		}
	}
	if len(asset) <= maxJSON {
		page.JSON = indent(asset)
	}
	i.render(w, http.StatusOK, "identity", page)
}

// chips returns what is shown beside the name.
func (o *object) chips() []cell {
	var chips []cell
	add := func(path string) {
		if raw := o.fields[path]; raw != nil {
			chips = append(chips, chip("", text(raw)))
		}
	}
	add("status")
	add("accountType")
	if r := o.row(o.identity.ExternalAssetID); r != nil && r.cells[keyPrivileged] != "" {
		chips = append(chips, chip("", r.cells[keyPrivileged]))
	}
	return chips
}
