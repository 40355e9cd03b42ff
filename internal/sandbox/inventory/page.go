package inventory

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
)

// The pages need no script and fetch nothing but these two.
var (
	//go:embed pages.html
	markup string
	//go:embed style.css
	styles []byte
	//go:embed icon.svg
	drawing []byte

	styleSheet = newFile("style", ".css", "text/css; charset=utf-8", styles)
	icon       = newFile("icon", ".svg", "image/svg+xml", drawing)

	templates = template.Must(template.New("").Funcs(template.FuncMap{"grouped": grouped}).Parse(markup))
)

// file is a file of the pages. Its path tells its content, so a browser may keep it.
type file struct {
	path, mediaType string
	content         []byte
}

func newFile(name, suffix, mediaType string, content []byte) file {
	sum := sha256.Sum256(content)
	return file{"/inventory/" + name + "-" + hex.EncodeToString(sum[:6]) + suffix, mediaType, content}
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.mediaType)
	w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	w.Header().Del("Vary")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

// frame is what all pages have around them.
type frame struct {
	Title       string
	Style, Icon string
	Nav         []navigation
}

type navigation struct {
	Label, URL string
	Count      int
	Current    bool
	Alarming   bool
}

func (g *inventory) frame(title, current string) frame {
	f := frame{Title: title, Style: styleSheet.path, Icon: icon.path}
	for _, k := range kinds {
		f.Nav = append(f.Nav, navigation{Label: capital(k.many), URL: "/inventory/" + k.path, Count: g.gateway.Count(k.name)})
	}
	f.Nav = append(f.Nav,
		navigation{Label: "States", URL: "/inventory/states", Count: len(g.gateway.States())},
		navigation{Label: "Requests", URL: "/inventory/requests", Count: len(g.gateway.Requests()), Alarming: len(g.gateway.Violations()) > 0})
	for i := range f.Nav {
		f.Nav[i].Current = f.Nav[i].URL == "/inventory/"+current
	}
	return f
}

// render writes a page, whole or not at all.
func render(w http.ResponseWriter, status int, name string, view any) {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, view); err != nil {
		writeMessage(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w) // the client has gone
}

// showFault answers a request that cannot be met, in plain words.
func (g *inventory) showFault(w http.ResponseWriter, r *http.Request, status int, fault error) {
	if !wantsPage(r) {
		writeMessage(w, status, fault.Error())
		return
	}
	title := "This cannot be shown"
	if status == http.StatusNotFound {
		title = "Not found"
	}
	render(w, status, "fault", struct {
		frame
		Fault string
	}{g.frame(title, ""), capital(fault.Error())})
}

// How many rows a page has, unless ?limit= says otherwise, and at most.
const (
	pageRows = 50
	mostRows = 1000
)

// pages is where in a listing a page is, and the way to the others.
type pages struct {
	Total, From, To     int
	Page, Last          int
	FirstURL, BackURL   string // empty: there is none
	ForwardURL, LastURL string
}

// turn clamps the cut to a page that exists. address writes the link to another one.
func (c *cut) turn(total int, address func(cut) string) pages {
	if c.limit <= 0 {
		c.limit = pageRows
	}
	c.limit = min(c.limit, mostRows)
	end := max(0, total-1) / c.limit * c.limit
	c.offset = min(c.offset, end) / c.limit * c.limit // pages do not overlap
	p := pages{Total: total, From: min(c.offset+1, total), To: min(c.offset+c.limit, total), Page: c.offset/c.limit + 1, Last: end/c.limit + 1}
	link := func(offset int) string { return address(cut{offset, c.limit}) }
	if c.offset > 0 {
		p.FirstURL, p.BackURL = link(0), link(c.offset-c.limit)
	}
	if c.offset+c.limit < total {
		p.ForwardURL, p.LastURL = link(c.offset+c.limit), link(end)
	}
	return p
}

func (c cut) parameters(query url.Values) url.Values {
	if c.offset > 0 {
		query.Set("offset", strconv.Itoa(c.offset))
	}
	if c.limit > 0 && c.limit != pageRows {
		query.Set("limit", strconv.Itoa(c.limit))
	}
	return query
}

func address(path string, query url.Values) string {
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// parameters are those of a search's address.
func (s inquiry) parameters(k *kind) url.Values {
	query := url.Values{}
	if s.text != "" {
		query.Set("q", s.text)
	}
	if len(s.sources) > 0 {
		query["source"] = s.sources
	}
	for i, values := range s.chosen {
		if len(values) > 0 {
			query[k.columns[i].key] = values
		}
	}
	if s.sort != k.columns[0].key {
		query.Set("sort", s.sort)
	}
	return s.cut.parameters(query)
}

// with returns the search with other values chosen in a column, from the first page.
func (s inquiry) with(column int, values []string) inquiry {
	s.offset = 0
	if column == missedSource {
		s.sources = values
		return s
	}
	s.chosen = maps.Clone(s.chosen)
	s.chosen[column] = values
	return s
}

// identitiesView is a page of users, of groups, or of what comes after them.
type identitiesView struct {
	frame
	pages
	One, Many, LooksAt, URL, Text, JSONURL string
	Fault                                  string
	Held                                   int
	Hidden                                 []parameterView // of the search form: what a new text leaves as it was
	Filters                                []filterView
	Choices                                []choicesView
	Columns                                []columnView
	Rows                                   []rowView
	SortedBy                               string
}

type parameterView struct{ Name, Value string }

type filterView struct{ Term, RemoveURL string }

type choicesView struct {
	Title   string
	Options []optionView
}

type optionView struct {
	choice choice
	Count  int
	Chosen bool
	URL    string
}

func (o optionView) Label() string { return o.choice.label }
func (o optionView) Tone() string  { return o.choice.tone }

type columnView struct {
	Title, URL string
	Sorted     string // as aria-sort has it; empty: not
}

type rowView struct {
	URL   string
	Gone  bool
	Cells []valueView
}

// valueView is a value of a row or a page, in the form that it has.
type valueView struct {
	Title string // of its column
	Text  string // empty: there is none
	Exact string // of a time
	Tone  string // of a chip
}

// longWord is how long a word may be that is not broken.
const longWord = 44

// Class is what the style sheet goes by.
func (v valueView) Class() string {
	switch {
	case v.Text == "":
		return "blank"
	case v.Exact != "":
		return "moment"
	case v.Tone != "":
		return "state"
	case slices.ContainsFunc(strings.Fields(v.Text), func(word string) bool { return utf8.RuneCountInString(word) > longWord }):
		return "long"
	default:
		return ""
	}
}

// view shows a value.
func (f form) view(title, value string, c column) valueView {
	v := valueView{Title: title, Text: value}
	switch f {
	case asMoment, asDay:
		if t, err := time.Parse(time.RFC3339, value); err == nil {
			v.Text, v.Exact = t.Format("2006-01-02 15:04"), value
			if f == asDay {
				v.Text = t.Format(time.DateOnly)
			}
		}
	case asChip:
		if value != "" {
			chip := c.chip(value)
			v.Text, v.Tone = chip.label, chip.tone
		}
	default:
		if !visible(value) {
			v.Text = ""
		}
	}
	return v
}

// visible tells whether there is anything to see in a text.
func visible(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsGraphic(r) && !unicode.IsSpace(r) && r != '\u2800' && r != '\u3164'
	})
}

func (g *inventory) identitiesPage(w http.ResponseWriter, r *http.Request, k *kind, s inquiry, fault error) {
	path := "/inventory/" + k.path
	if s.sort == "" {
		s.sort = k.columns[0].key
	}
	v := identitiesView{frame: g.frame(capital(k.many), k.path), One: k.one, Many: k.many, LooksAt: k.looksAt, URL: path, Text: s.text}
	status := http.StatusOK
	f := found{counts: make([]tally, len(k.columns))}
	if fault != nil {
		status, v.Fault = http.StatusBadRequest, fault.Error()
		v.Text = r.URL.Query().Get("q") // to be mended
	} else {
		f = g.find(k, s)
	}
	v.Held = f.held
	v.pages = s.turn(len(f.rows), func(c cut) string {
		other := s
		other.cut = c
		return address(path, other.parameters(k))
	})
	for _, row := range part(s.cut, f.rows) {
		v.Rows = append(v.Rows, k.rowView(path, row))
	}
	filters(&v, k, s, f)
	k.headers(&v, path, s)

	whole := s.parameters(k)
	whole.Set("format", "json")
	whole.Set("limit", strconv.Itoa(s.limit))
	v.JSONURL = address(path, whole)
	render(w, status, "identities", v)
}

// filters fills in what the listing is narrowed by, and could be.
func filters(v *identitiesView, k *kind, s inquiry, f found) {
	kept := s
	kept.text, kept.offset = "", 0
	for _, name := range slices.Sorted(maps.Keys(kept.parameters(k))) {
		for _, value := range kept.parameters(k)[name] {
			v.Hidden = append(v.Hidden, parameterView{name, value})
		}
	}
	narrow := func(title, field string, column int, chosen []string, options []choice, counts tally) {
		for _, value := range chosen {
			without := s.with(column, slices.DeleteFunc(slices.Clone(chosen), func(each string) bool { return each == value }))
			v.Filters = append(v.Filters, filterView{term(field, value), address(v.URL, without.parameters(k))})
		}
		group := choicesView{Title: title}
		for _, each := range options {
			values, is := []string{each.value}, slices.Contains(chosen, each.value)
			if is {
				values = nil
			}
			if n := counts.of(each.value); n > 0 || is {
				group.Options = append(group.Options, optionView{each, n, is, address(v.URL, s.with(column, values).parameters(k))})
			}
		}
		if len(group.Options) > 0 {
			v.Choices = append(v.Choices, group)
		}
	}
	var sources []choice
	for _, each := range f.sources {
		sources = append(sources, choice{each.value, each.value, "plain"})
	}
	slices.SortFunc(sources, func(a, b choice) int { return strings.Compare(a.value, b.value) })
	narrow("Source", sourceTerm, missedSource, s.sources, sources, f.sources)
	for i, c := range k.columns {
		if c.choices != nil {
			narrow(c.title, c.key, i, s.chosen[i], c.choices, f.counts[i])
		}
	}
}

// headers fills in the columns, each with the link that sorts by it, and back.
func (k *kind) headers(v *identitiesView, path string, s inquiry) {
	key, downwards := strings.CutPrefix(s.sort, "-")
	for _, c := range k.columns {
		header := columnView{Title: c.title}
		other := s
		other.offset, other.sort = 0, c.key
		switch {
		case c.key != key && (c.form == asMoment || c.form == asDay): // of times, the last are looked for first
			other.sort = "-" + c.key
		case c.key == key && downwards:
			header.Sorted = "descending"
		case c.key == key:
			header.Sorted, other.sort = "ascending", "-"+c.key
		}
		if header.Sorted != "" {
			v.SortedBy = strings.ToLower(c.title) + ", " + header.Sorted
		}
		header.URL = address(path, other.parameters(k))
		v.Columns = append(v.Columns, header)
	}
}

func (k *kind) rowView(path string, r *row) rowView {
	v := rowView{URL: path + "/" + r.VendorAssetID}
	for i, c := range k.columns {
		value := r.cell(c, i)
		v.Gone = v.Gone || c.choices != nil && value == deleted.value
		v.Cells = append(v.Cells, c.form.view(c.title, value, c))
	}
	return v
}

// identityView is the page of one identity.
type identityView struct {
	frame
	Name, Many, URL, JSONURL string
	Chips                    []valueView
	Sections                 []sectionView
	Source, ReceivedAt       string
	Exact                    string
	Times                    int
	Asset                    string
}

type sectionView struct {
	Title string
	Facts []valueView
}

func (g *inventory) identityPage(w http.ResponseWriter, k *kind, identity *gatewayserver.Identity, d document) {
	values := flatten(k, identity)
	path := "/inventory/" + k.path
	name := values["name"]
	if !visible(name) {
		name = "(no name)"
	}
	var asset bytes.Buffer
	if err := json.Indent(&asset, d.Asset, "", "  "); err != nil {
		asset.Write(d.Asset)
	}
	v := identityView{
		frame: g.frame(name, k.path), Name: name, Many: k.many, URL: path, JSONURL: path + "/" + identity.VendorAssetID + "?format=json",
		Source: identity.Source, ReceivedAt: d.ReceivedAt.Format("2006-01-02 15:04:05"), Exact: moment(d.ReceivedAt), Times: identity.Times,
		Asset: asset.String(),
	}
	for _, c := range k.columns {
		if c.form == asChip && values[c.key] != "" {
			v.Chips = append(v.Chips, c.form.view(c.title, values[c.key], c))
		}
	}
	shown := []string{"id", "name"}
	for _, section := range k.sections {
		s := sectionView{Title: section.title}
		for _, f := range section.facts {
			var c column
			if i, ok := k.column(f.key); ok {
				c = k.columns[i]
			}
			s.Facts = append(s.Facts, f.form.view(f.title, values[f.key], c))
			shown = append(shown, f.key)
		}
		v.Sections = append(v.Sections, s)
	}
	// What the table does not know is not hidden for that.
	var more sectionView
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(shown, key) {
			more.Facts = append(more.Facts, valueView{Title: key, Text: values[key]})
		}
	}
	if more.Facts != nil {
		more.Title = "More"
		v.Sections = append(v.Sections, more)
	}
	v.Sections = append(v.Sections, sectionView{"Identifiers", []valueView{
		{Title: "SID", Text: identity.ExternalAssetID}, {Title: "GUID", Text: identity.VendorAssetID},
	}})
	render(w, http.StatusOK, "identity", v)
}

// flatten returns the fields of an identity's class, those of objects in it by
// their path.
func flatten(k *kind, identity *gatewayserver.Identity) map[string]string {
	values := map[string]string{}
	var walk func(path string, raw json.RawMessage)
	walk = func(path string, raw json.RawMessage) {
		var fields map[string]json.RawMessage
		if json.Unmarshal(raw, &fields) != nil {
			values[path] = textValue(raw)
			return
		}
		if path != "" {
			path += "."
		}
		for key, field := range fields {
			walk(path+key, field)
		}
	}
	if class := rawClass(k, identity.Asset); class != nil {
		walk("", class)
	}
	return values
}

// statesView is what the connector has reported.
type statesView struct {
	frame
	pages
	JSONURL string
	Steps   []stepView
	Rows    []stateView
}

// stepView is one of the states a connector goes through, and when it last did.
type stepView struct {
	Label, At, Exact string
	Current          bool
}

type stateView struct {
	At, Exact, Label, Tone, Lasted string
	RunID, Next, NextExact, Error  string
	Summary                        *gateway.Summary
}

var stateChips = []choice{
	{"REGISTERED", "Registered", "plain"}, {"SCHEDULED", "Scheduled", "info"}, {"PROCESSING", "Processing", "warn"}, {"PROCESSED", "Processed", "good"},
}

func (g *inventory) statesPage(w http.ResponseWriter, states []gateway.ConnectorState, c cut) {
	const path = "/inventory/states"
	v := statesView{frame: g.frame("States", "states"), JSONURL: path + "?format=json"}
	v.pages = c.turn(len(states), func(c cut) string { return address(path, c.parameters(url.Values{})) })
	steps := column{choices: stateChips}
	for _, each := range stateChips {
		step := stepView{Label: each.label}
		for i, state := range slices.Backward(states) {
			if state.State == each.value {
				at := time.Time(state.At).UTC()
				step.At, step.Exact, step.Current = at.Format("2006-01-02 15:04:05"), moment(at), i == len(states)-1
				break
			}
		}
		v.Steps = append(v.Steps, step)
	}
	newest := slices.Clone(states)
	slices.Reverse(newest)
	for i, state := range part(c, newest) {
		chip, at := steps.chip(state.State), time.Time(state.At).UTC()
		row := stateView{At: at.Format("2006-01-02 15:04:05"), Exact: moment(at), Label: chip.label, Tone: chip.tone, Lasted: "so far", RunID: state.RunID, Summary: state.Summary}
		if later := c.offset + i - 1; later >= 0 {
			row.Lasted = span(time.Time(newest[later].At).Sub(at))
		}
		if state.NextRunAt != nil {
			next := time.Time(*state.NextRunAt).UTC()
			row.Next, row.NextExact = next.Format("2006-01-02 15:04:05"), moment(next)
		}
		if state.Error != nil {
			row.Error = *state.Error
		}
		v.Rows = append(v.Rows, row)
	}
	render(w, http.StatusOK, "states", v)
}

// span is a duration as one reads it.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
}

// requestsView is what the gateway was asked.
type requestsView struct {
	frame
	pages
	JSONURL    string
	Counts     []countView
	Violations []string
	Rows       []requestView
}

type countView struct {
	Method, Path string
	Status       valueView
	Count        int
}

type requestView struct {
	gatewayserver.Request
	Chip        valueView
	Time, Exact string
}

func (g *inventory) requestsPage(w http.ResponseWriter, requests []gatewayserver.Request, c cut) {
	const path = "/inventory/requests"
	v := requestsView{frame: g.frame("Requests", "requests"), JSONURL: path + "?format=json", Violations: g.gateway.Violations()}
	v.pages = c.turn(len(requests), func(c cut) string { return address(path, c.parameters(url.Values{})) })
	slices.Reverse(v.Violations)
	counts := g.gateway.Counts()
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		method, rest, _ := strings.Cut(key, " ")
		end := strings.LastIndexByte(rest, ' ')
		status, _ := strconv.Atoi(rest[end+1:]) // it was put there as a number
		v.Counts = append(v.Counts, countView{method, rest[:end], statusView(status), counts[key]})
	}
	slices.Reverse(requests)
	for _, each := range part(c, requests) {
		v.Rows = append(v.Rows, requestView{each, statusView(each.Status), each.At.UTC().Format("2006-01-02 15:04:05"), moment(each.At)})
	}
	render(w, http.StatusOK, "requests", v)
}

func statusView(status int) valueView {
	v := valueView{Title: "Status", Text: strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status))), Tone: "good"}
	switch {
	case status == 0:
		v.Text, v.Tone = "No answer", "bad"
	case status >= 500 || status == http.StatusBadRequest:
		v.Tone = "bad"
	case status >= 300:
		v.Tone = "warn"
	}
	return v
}

// grouped writes a number in groups of three digits.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// capital begins a line as sentences and headings do, if it is plain text.
func capital(text string) string {
	if text != "" && text[0] >= 'a' && text[0] <= 'z' {
		return strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}
