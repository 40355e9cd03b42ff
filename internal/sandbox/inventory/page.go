package inventory

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
)

//go:embed pages.html style.css icon.svg
var files embed.FS

// templates are parsed at the first page, because most processes show none.
var templates = sync.OnceValue(func() *template.Template {
	functions := template.FuncMap{"moment": timeCell, "status": statusCell, "number": number[int]}
	return template.Must(template.New("").Funcs(functions).ParseFS(files, "pages.html"))
})

// frame is what all pages have in common.
type frame struct {
	Title   string
	Nav     []navLink
	JSONURL string // of the same page
}

type navLink struct {
	Label, URL string
	Count      int
	Current    bool
	Alarm      bool // there are violations
}

func (i *inventory) frame(title string, r *http.Request) frame {
	f := frame{Title: title, JSONURL: link(r, "format", "json")}
	for _, k := range kinds {
		f.Nav = append(f.Nav, navLink{Label: capitalize(k.plural()), URL: k.path(), Count: i.gateway.Count(k.name)})
	}
	f.Nav = append(f.Nav,
		navLink{Label: "States", URL: "/inventory/states", Count: len(i.gateway.States())},
		navLink{Label: "Requests", URL: "/inventory/requests", Count: len(i.gateway.Requests()), Alarm: len(i.gateway.Violations()) > 0})
	for n := range f.Nav {
		f.Nav[n].Current = strings.HasPrefix(r.URL.Path, f.Nav[n].URL)
	}
	return f
}

// render writes a page, or 500 without a part of the page.
func (i *inventory) render(w http.ResponseWriter, status int, name string, page any) {
	var out bytes.Buffer
	if err := templates().ExecuteTemplate(&out, name, page); err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"message": err.Error()})
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w) // the connection is closed
}

// link returns the URL of a request with other parameters: names and values in turn. An
// empty value removes the parameter.
func link(r *http.Request, changes ...string) string {
	parameters := r.URL.Query()
	for n := 0; n < len(changes); n += 2 {
		if parameters.Set(changes[n], changes[n+1]); changes[n+1] == "" {
			parameters.Del(changes[n])
		}
	}
	return (&url.URL{Path: r.URL.Path, RawQuery: parameters.Encode()}).String()
}

type errorPage struct {
	frame
	Message string
}

// The number of rows of a page.
const (
	defaultRows = 50
	maxRows     = 1000
)

// pager is the position of a page in its listing, with the links to other pages.
type pager struct {
	Total, From, To              int
	Page, Pages                  int
	First, Previous, Next, Final string // URLs; empty: this is that page

	offset, limit int // of the rows on this page
}

// newPager returns the page that contains an offset.
func newPager(r *http.Request, total, offset, limit int) pager {
	if limit <= 0 {
		limit = defaultRows
	}
	limit = min(limit, maxRows)
	final := max(0, total-1) / limit * limit
	offset = min(offset, final) / limit * limit
	p := pager{
		Total: total, From: min(offset+1, total), To: min(offset+limit, total),
		Page: offset/limit + 1, Pages: final/limit + 1, offset: offset, limit: limit,
	}
	to := func(offset int) string { return link(r, "offset", strconv.Itoa(offset)) }
	if offset > 0 {
		p.First, p.Previous = link(r, "offset", ""), to(offset-limit)
	}
	if offset < final {
		p.Next, p.Final = to(offset+limit), to(final)
	}
	return p
}

// cell is a value in a table or on the page of an object.
type cell struct {
	Title string // of the column
	Text  string // empty: no value
	Time  string // exact, of a time
	Tone  string // of a chip
	Note  string // beside the text, such as the kind of a principal or the age of a time
	URL   string // of the page of the object
	SID   string // of a principal
	Code  bool   // an identifier
	Gone  bool   // the object is deleted
	Count bool   // a number
	Steps []cell // groups between, instead of a text
}

// tones are the colors of the values that are shown as chips.
var tones = map[string]string{
	"ACTIVE": "good", "DISABLED": "off", "EXPIRED": "warn", "LOCKED": "bad", "PASSWORD_EXPIRED": "warn", statusDeleted: "gone",
	"SECURITY": "info", "DISTRIBUTION": "plain", "PUBLIC": "info", "PRIVATE": "plain",
	valuePrivileged: "bad", valueNotPrivileged: "plain", "SERVICE": "info", "ENABLED": "good",
	"PASSWORD_NOT_REQUIRED": "bad", "REVERSIBLE_ENCRYPTION": "bad", "NO_PREAUTHENTICATION": "bad", "DES_ONLY": "bad",
	"TRUSTED_FOR_DELEGATION": "warn", "TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION": "warn", "PASSWORD_NEVER_EXPIRES": "warn",
	"NOT_DELEGATED": "good", "SMART_CARD_REQUIRED": "good",
	"REGISTERED": "plain", "SCHEDULED": "info", "PROCESSING": "warn", "PROCESSED": "good",
}

func chip(title, value string) cell {
	return cell{Title: title, Text: label(value), Tone: cmp.Or(tones[value], "plain")}
}

func numberCell(title, value string) cell {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return cell{Title: title, Text: value}
	}
	return cell{Title: title, Text: number(n), Count: true}
}

func timeCell(t time.Time) cell {
	return cell{Text: t.UTC().Format(time.DateTime), Time: timestamp(t)}
}

// newCell returns the cell of a value of a column.
func newCell(c column, value string) cell {
	switch t, err := time.Parse(time.RFC3339, value); {
	case !isVisible(value):
		return cell{Title: c.title}
	case c.values != nil:
		return chip(c.title, value)
	case c.number:
		return numberCell(c.title, value)
	case err == nil:
		return cell{Title: c.title, Text: t.UTC().Format("2006-01-02 15:04"), Time: value}
	}
	return cell{Title: c.title, Text: value}
}

// Parts returns the parts of the text between which a line can be broken.
func (c cell) Parts() []string {
	if c.Code {
		return breakable(c.Text, maxIdentifier)
	}
	return breakable(c.Text, maxWord)
}

// Class returns the class for the style sheet.
func (c cell) Class() string {
	switch {
	case c.Text == "" && c.Steps == nil:
		return "blank"
	case c.Time != "":
		return "moment"
	case c.Count:
		return "number"
	case c.Tone != "":
		return "state"
	case hasLongWord(c.Text, maxWord):
		return "long"
	}
	return ""
}

// isVisible reports whether a text has a character that is visible.
func isVisible(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsGraphic(r) && !unicode.IsSpace(r) && r != '\u2800' && r != '\u3164' // blanks that Unicode does not call spaces
	})
}

type listingPage struct {
	frame
	pager
	Kind, Plural, URL string
	Text, Sort        string
	Error             string
	Held              int // objects of the kind in all
	Selects           []selectBox
	Columns           []header
	Rows              []listingRow
}

type selectBox struct {
	Name, Title string
	Options     []option
}

type option struct {
	Value, Label string
	Selected     bool
}

type header struct {
	Title, URL string
	Number     bool
	Sorted     string // the value of aria-sort; empty: not by this column
}

type listingRow struct {
	URL     string
	Deleted bool
	Chips   []cell // beside the name
	Cells   []cell
}

func (i *inventory) listingPage(w http.ResponseWriter, r *http.Request, k *kind, q query, invalid error) {
	parameters := r.URL.Query()
	page := listingPage{
		frame: i.frame(capitalize(k.plural()), r), Kind: k.name, Plural: k.plural(), URL: k.path(),
		Text: parameters.Get("q"), Sort: parameters.Get("sort"), Held: i.gateway.Count(k.name), Selects: i.selectBoxes(k, q),
	}
	status := http.StatusOK
	var rows []*row
	q.sort, q.byName = cmp.Or(q.sort, k.order, k.columns[0].key), true
	if invalid != nil {
		status, page.Error = http.StatusBadRequest, capitalize(invalid.Error())
	} else {
		rows = i.find(k, q)
	}
	page.pager = newPager(r, len(rows), q.offset, q.limit)
	page.JSONURL = link(r, "format", "json", "limit", strconv.Itoa(page.limit), "sort", q.sort)
	for _, row := range slicePart(rows, page.offset, page.limit) {
		line := listingRow{URL: row.url, Deleted: row.isDeleted()}
		for _, c := range k.columns {
			switch value := newCell(c, row.cells[c.key]); {
			case !c.beside:
				line.Cells = append(line.Cells, value)
			case value.Text != "":
				line.Chips = append(line.Chips, value)
			}
		}
		page.Rows = append(page.Rows, line)
	}
	for _, c := range k.columns {
		if c.beside {
			continue
		}
		h := header{Title: c.title, Number: c.number, URL: link(r, "sort", c.key, "offset", "")}
		switch q.sort {
		case c.key:
			h.Sorted, h.URL = "ascending", link(r, "sort", "-"+c.key, "offset", "")
		case "-" + c.key:
			h.Sorted = "descending"
		}
		page.Columns = append(page.Columns, h)
	}
	i.render(w, status, "listing", page)
}

// selectBoxes returns the filters of the search form.
func (i *inventory) selectBoxes(k *kind, q query) []selectBox {
	box := func(name, title string, values []string, toLabel func(string) string) selectBox {
		s := selectBox{Name: name, Title: title}
		for _, value := range values {
			s.Options = append(s.Options, option{value, toLabel(value), q.filters[name] == value})
		}
		return s
	}
	boxes := []selectBox{box(source, "Source", i.sources(k), strings.Clone)}
	for _, c := range k.columns {
		if c.values != nil {
			boxes = append(boxes, box(c.key, c.title, c.values, label))
		}
	}
	return boxes
}

func indent(asset json.RawMessage) string {
	var indented bytes.Buffer
	_ = json.Indent(&indented, asset, "", "  ") // it was parsed before
	return indented.String()
}

type statesPage struct {
	frame
	pager
	Rows []stateRow
}

type stateRow struct {
	gateway.ConnectorState
	At, Chip, Next cell
	Lasted         string
}

func (i *inventory) statesPage(w http.ResponseWriter, r *http.Request, states []gateway.ConnectorState, offset, limit int) {
	slices.Reverse(states)
	page := statesPage{frame: i.frame("Connector states", r), pager: newPager(r, len(states), offset, limit)}
	for n, state := range slicePart(states, page.offset, page.limit) {
		at := time.Time(state.At)
		row := stateRow{ConnectorState: state, At: timeCell(at), Chip: chip("State", state.State), Lasted: "current"}
		if next := page.offset + n - 1; next >= 0 {
			row.Lasted = lasted(time.Time(states[next].At).Sub(at))
		}
		if state.NextRunAt != nil {
			row.Next = timeCell(time.Time(*state.NextRunAt))
		}
		page.Rows = append(page.Rows, row)
	}
	i.render(w, http.StatusOK, "states", page)
}

type requestsPage struct {
	frame
	pager
	Violations []string
	Counts     []countRow
	Rows       []gatewayserver.Request
}

type countRow struct {
	Call          string
	Status, Count int
}

func (i *inventory) requestsPage(w http.ResponseWriter, r *http.Request, requests []gatewayserver.Request, offset, limit int) {
	slices.Reverse(requests)
	page := requestsPage{frame: i.frame("Requests", r), pager: newPager(r, len(requests), offset, limit), Violations: i.gateway.Violations()}
	slices.Reverse(page.Violations)
	counts := i.gateway.Counts()
	for _, call := range slices.Sorted(maps.Keys(counts)) {
		end := strings.LastIndexByte(call, ' ')
		status, _ := strconv.Atoi(call[end+1:]) // the key ends with the status
		page.Counts = append(page.Counts, countRow{call[:end], status, counts[call]})
	}
	page.Rows = slicePart(requests, page.offset, page.limit)
	i.render(w, http.StatusOK, "requests", page)
}

func statusCell(status int) cell {
	c := cell{Text: fmt.Sprintf("%d %s", status, http.StatusText(status)), Tone: "good"}
	switch {
	case status == 0:
		c.Text, c.Tone = "No response", "bad"
	case status >= 500 || status == http.StatusBadRequest:
		c.Tone = "bad"
	case status >= 300:
		c.Tone = "warn"
	}
	return c
}
