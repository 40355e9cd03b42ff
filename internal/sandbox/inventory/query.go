package inventory

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sourceTerm is the platform's own name for where an asset comes from, as in
// inventory.source: ('Microsoft Active Directory').
const sourceTerm = "inventory.source"

// inquiry is what the parameters of a listing ask for.
type inquiry struct {
	cut
	text    string           // as it was typed, without what became a filter
	words   []string         // folded; all of them must occur
	sources []string         // none: any
	chosen  map[int][]string // by column with choices; none: any
	sort    string           // a column's key or vendorAssetId, with a minus before it downwards; "": not said
}

// cut is a part of a listing. A limit below zero is none.
type cut struct{ offset, limit int }

// readInquiry reads the parameters. Its error is one line for a person; the inquiry
// is then what could be understood, to be shown again.
func readInquiry(k *kind, query url.Values) (inquiry, error) {
	s := inquiry{text: query.Get("q"), chosen: map[int][]string{}}
	known := []string{"q", "source", "sort", "offset", "limit", "format"}
	var faults []error
	for i, c := range k.columns {
		if c.choices == nil {
			continue
		}
		known = append(known, c.key)
		for _, value := range query[c.key] {
			faults = append(faults, s.choose(i, c, value))
		}
	}
	for _, source := range query["source"] {
		s.sources = with(s.sources, source)
	}
	s.sort = query.Get("sort")
	key := strings.TrimPrefix(s.sort, "-")
	if _, ok := k.column(key); !ok && key != vendorAssetID && s.sort != "" {
		faults = append(faults, fmt.Errorf("sort cannot be %s: use %s, %s, with a minus before it for the other way round", s.sort, vendorAssetID, keysOf(k.columns)))
		s.sort = ""
	}
	var err error
	s.cut, err = readCut(query)
	faults = append(faults, err)
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(known, name) {
			faults = append(faults, fmt.Errorf("%s is no parameter of %s: use %s", name, k.many, strings.Join(known, ", ")))
		}
	}
	faults = append(faults, s.readText(k, s.text))
	for _, fault := range faults {
		if fault != nil { // one line is enough to go on with
			return s, fault
		}
	}
	return s, nil
}

func keysOf(columns []column) string {
	keys := make([]string, len(columns))
	for i, c := range columns {
		keys[i] = c.key
	}
	return strings.Join(keys, ", ")
}

// with adds a value that is not among the values yet.
func with(values []string, value string) []string {
	if value == "" || slices.Contains(values, value) {
		return values
	}
	return append(values, value)
}

func (s *inquiry) choose(i int, c column, value string) error {
	if value == "" { // a form sends what was left alone
		return nil
	}
	chosen, ok := c.choose(value)
	if !ok {
		values := make([]string, len(c.choices))
		for i, each := range c.choices {
			values[i] = each.value
		}
		return fmt.Errorf("%s cannot be %s: use %s", c.key, value, strings.Join(values, ", "))
	}
	s.chosen[i] = with(s.chosen[i], chosen.value)
	return nil
}

// readText takes a query apart: words that must all occur, and terms, which become
// filters. Terms are joined by and, or by nothing.
func (s *inquiry) readText(k *kind, text string) error {
	tokens, err := tokensOf(text)
	if err != nil {
		return err
	}
	terms := slices.ContainsFunc(tokens, func(t token) bool { return t.field != "" })
	var rest []string
	for _, t := range tokens {
		word := strings.ToLower(t.raw)
		switch {
		case t.field != "":
			if err := s.filter(k, t); err != nil {
				return err
			}
		case terms && word == "and":
		case terms && (word == "or" || word == "not"):
			return fmt.Errorf("%s is not understood between terms: they are joined by and", t.raw)
		default:
			rest = append(rest, t.raw)
			s.words = append(s.words, strings.ToLower(t.values[0]))
		}
	}
	s.text = strings.Join(rest, " ")
	return nil
}

func (s *inquiry) filter(k *kind, t token) error {
	if t.field == sourceTerm {
		for _, value := range t.values {
			s.sources = with(s.sources, value)
		}
		return nil
	}
	terms := []string{sourceTerm}
	for i, c := range k.columns {
		if c.choices == nil {
			continue
		}
		if terms = append(terms, c.key); c.key != t.field {
			continue
		}
		for _, value := range t.values {
			if err := s.choose(i, c, value); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%s is no query term of %s: use %s, or put it in quotes to search for the text", t.field, k.many, strings.Join(terms, ", "))
}

// token is a word, or a field with values.
type token struct {
	raw    string // of a word, with its quotes
	field  string // empty: a word
	values []string
}

var (
	fieldPattern = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_.]*):\s*`)
	quotePattern = regexp.MustCompile(`^(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")`)
	barePattern  = regexp.MustCompile(`^[^\s()]+`)
	valuePattern = regexp.MustCompile(`^[^\s(),]+`)
	wordPattern  = regexp.MustCompile(`^\S+`)
	escape       = regexp.MustCompile(`\\(.)`)
)

// tokensOf reads
//
//	alice "two words" status: LOCKED inventory.source: ('one source', 'another')
func tokensOf(text string) (tokens []token, err error) {
	for {
		if text = strings.TrimSpace(text); text == "" {
			return tokens, nil
		}
		var t token
		rest := text
		if field := fieldPattern.FindStringSubmatch(text); field != nil {
			t.field = field[1]
			t.values, rest, err = valuesOf(t.field, text[len(field[0]):])
		} else {
			var value string
			value, rest, err = valueOf(text, wordPattern)
			t.values = []string{value}
		}
		if err != nil {
			return nil, err
		}
		t.raw = text[:len(text)-len(rest)]
		if t.field != "" || t.values[0] != "" {
			tokens = append(tokens, t)
		}
		text = rest
	}
}

// valuesOf reads one value, or several in parentheses.
func valuesOf(field, text string) (values []string, rest string, err error) {
	list, inParentheses := strings.CutPrefix(text, "(")
	if !inParentheses {
		value, rest, err := valueOf(text, barePattern)
		if err == nil && value == "" {
			err = fmt.Errorf("%s has no value: write %s: ('…')", field, field)
		}
		return []string{value}, rest, err
	}
	for {
		value, rest, err := valueOf(strings.TrimSpace(list), valuePattern)
		if err != nil {
			return nil, "", err
		}
		if value == "" {
			return nil, "", fmt.Errorf("%s lacks a value in its parentheses: write %s: ('…')", field, field)
		}
		values = append(values, value)
		list = strings.TrimSpace(rest)
		switch {
		case strings.HasPrefix(list, ")"):
			return values, list[1:], nil
		case strings.HasPrefix(list, ","):
			list = list[1:]
		default:
			return nil, "", fmt.Errorf("the parenthesis after %s is not closed: write %s: ('…')", field, field)
		}
	}
}

// valueOf reads a quoted value, or a bare one.
func valueOf(text string, bare *regexp.Regexp) (value, rest string, err error) {
	if quoted := quotePattern.FindStringSubmatch(text); quoted != nil {
		return escape.ReplaceAllString(quoted[1]+quoted[2], "$1"), text[len(quoted[0]):], nil
	}
	if strings.HasPrefix(text, "'") || strings.HasPrefix(text, `"`) {
		return "", "", errors.New("a quote is not closed: " + text)
	}
	value = bare.FindString(text)
	return value, text[len(value):], nil
}

// term writes a filter as it can be typed.
func term(field string, value string) string {
	return field + ": ('" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "')"
}

// missedSource stands for the sources where a column's number is expected.
const missedSource = -1

// missedBy tells by how many of its filters an inquiry misses a row, and the last of
// those. Text that is missed counts as two: no other choice would find the row.
func (s *inquiry) missedBy(r *row) (misses, last int) {
	for _, word := range s.words {
		if !strings.Contains(r.text, word) {
			return 2, 0
		}
	}
	if s.sources != nil && !slices.Contains(s.sources, r.Source) {
		misses, last = misses+1, missedSource
	}
	for i, values := range s.chosen {
		if !slices.Contains(values, r.cells[i]) {
			misses, last = misses+1, i
		}
	}
	return misses, last
}

// readCut reads ?limit= and ?offset=; without them, all is meant.
func readCut(query url.Values) (cut, error) {
	bound := func(name string, absent int) (int, error) {
		given := query.Get(name)
		if given == "" {
			return absent, nil
		}
		n, err := strconv.Atoi(given)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%s must be a number from 0", name)
		}
		return n, nil
	}
	offset, err := bound("offset", 0)
	if err != nil {
		return cut{limit: -1}, err
	}
	limit, err := bound("limit", -1)
	if err != nil {
		return cut{limit: -1}, err
	}
	return cut{offset, limit}, nil
}

// bounds are the cut's offset and limit in so many items.
func (c cut) bounds(total int) (offset, limit int) {
	offset = min(c.offset, total)
	if c.limit < 0 {
		return offset, total - offset
	}
	return offset, min(c.limit, total-offset)
}

// part is what the cut leaves of a listing.
func part[T any](c cut, items []T) []T {
	offset, limit := c.bounds(len(items))
	return items[offset : offset+limit]
}
