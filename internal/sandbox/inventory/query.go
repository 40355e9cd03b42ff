package inventory

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

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
