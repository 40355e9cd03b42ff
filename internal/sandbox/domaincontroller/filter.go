package domaincontroller

import (
	"bytes"
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// ternary is a value of the three-valued logic of filters (RFC 4511 4.5.1.7). AND is the
// minimum, OR the maximum, and NOT the negative.
type ternary int8

const (
	isFalse   ternary = -1
	undefined ternary = 0
	isTrue    ternary = 1
)

func ternaryOf(b bool) ternary {
	if b {
		return isTrue
	}
	return isFalse
}

// filter evaluates a compiled filter. It is valid only while the directory is locked for
// reading, because it can refer to objects.
type filter func(o *object) ternary

// Matching rules of Active Directory (MS-ADTS 3.1.1.3.4.4).
const (
	ruleBitAnd = "1.2.840.113556.1.4.803"
	ruleBitOr  = "1.2.840.113556.1.4.804"
	ruleChain  = "1.2.840.113556.1.4.1941"
)

var (
	errInvalidFilter = errors.New("invalid filter")
	// Filters cannot contain constructed attributes (MS-ADTS 3.1.1.3.1.3.1).
	errConstructedAttribute = errors.New("constructed attribute")
)

// maxFilterDepth limits the recursion, as Active Directory does.
const maxFilterDepth = 64

// compileFilter compiles an encoded filter.
func (d *Server) compileFilter(coded element, depth int) (filter, error) {
	if depth > maxFilterDepth {
		return nil, errInvalidFilter
	}
	switch coded.tag {
	case tagContext | ldap.FilterAnd:
		return d.compileSet(coded, depth, isTrue, func(a, b ternary) ternary { return min(a, b) })
	case tagContext | ldap.FilterOr:
		return d.compileSet(coded, depth, isFalse, func(a, b ternary) ternary { return max(a, b) })
	case tagContext | ldap.FilterNot:
		if len(coded.children) != 1 {
			return nil, errInvalidFilter
		}
		inner, err := d.compileFilter(coded.children[0], depth+1)
		if err != nil {
			return nil, err
		}
		return func(o *object) ternary { return -inner(o) }, nil
	case tagPrimitive | ldap.FilterPresent:
		attribute, err := searchableAttribute(coded.text())
		exists := d.matchAny(attribute, func(string) bool { return true })
		if attribute != nil && attribute.Name == "objectClass" { // matches every entry, as on domain controllers
			return exists, err
		}
		return d.withoutHidden(attribute, exists), err
	case tagContext | ldap.FilterSubstrings:
		return d.compileSubstrings(coded)
	case tagContext | ldap.FilterExtensibleMatch:
		return d.compileExtensible(coded)
	case tagContext | ldap.FilterEqualityMatch, tagContext | ldap.FilterApproxMatch, tagContext | ldap.FilterGreaterOrEqual, tagContext | ldap.FilterLessOrEqual:
		return d.compileComparison(coded)
	}
	return nil, errInvalidFilter
}

func (d *Server) compileComparison(coded element) (filter, error) {
	if len(coded.children) != 2 {
		return nil, errInvalidFilter
	}
	attribute, err := searchableAttribute(coded.children[0].text())
	if err != nil {
		return nil, err
	}
	value := coded.children[1].text()
	switch coded.tag {
	case tagContext | ldap.FilterGreaterOrEqual:
		return d.withoutHidden(attribute, d.compileOrder(attribute, value, func(order int) bool { return order >= 0 })), nil
	case tagContext | ldap.FilterLessOrEqual:
		return d.withoutHidden(attribute, d.compileOrder(attribute, value, func(order int) bool { return order <= 0 })), nil
	default: // Active Directory evaluates approxMatch as equality
		return d.withoutHidden(attribute, d.compileEquality(attribute, value)), nil
	}
}

func (d *Server) compileSet(coded element, depth int, empty ternary, join func(a, b ternary) ternary) (filter, error) {
	parts := make([]filter, len(coded.children))
	for i, child := range coded.children {
		var err error
		if parts[i], err = d.compileFilter(child, depth+1); err != nil {
			return nil, err
		}
	}
	return func(o *object) ternary {
		outcome := empty
		for _, part := range parts {
			if outcome = join(outcome, part(o)); outcome == -empty {
				break
			}
		}
		return outcome
	}, nil
}

// searchableAttribute returns an attribute, or nil if the schema does not contain it.
func searchableAttribute(name string) (*attributeType, error) {
	attribute := attributeByName(name)
	if attribute != nil && attribute.Constructed {
		return nil, errConstructedAttribute
	}
	return attribute, nil
}

func undefinedFilter(*object) ternary { return undefined }

// matchAny returns a filter that is true if one of the values matches, and false for an
// object without values.
func (d *Server) matchAny(attribute *attributeType, matches func(value string) bool) filter {
	if attribute == nil {
		return undefinedFilter
	}
	return func(o *object) ternary {
		for value := range d.values(o, attribute.Name, time.Time{}) {
			if matches(value) {
				return isTrue
			}
		}
		return isFalse
	}
}

// compileEquality avoids a comparison of texts where that is slow or wrong.
func (d *Server) compileEquality(attribute *attributeType, value string) filter {
	if attribute == nil {
		return undefinedFilter
	}
	switch attribute.Name {
	case "objectClass":
		return d.matchAny(attribute, func(name string) bool { return strings.EqualFold(name, value) })
	case "member", "memberOf":
		return d.compileLink(attribute.Name, value, false)
	case "objectGUID":
		return func(o *object) ternary { return ternaryOf(string(o.guid[:]) == value) }
	}
	if attribute.Syntax == syntaxText {
		return d.matchAny(attribute, func(stored string) bool { return strings.EqualFold(stored, value) })
	}
	return d.compileOrder(attribute, value, func(order int) bool { return order == 0 })
}

// compileOrder compares by the syntax of the attribute. The filter is undefined for a value
// that is invalid in the syntax.
func (d *Server) compileOrder(attribute *attributeType, value string, holds func(order int) bool) filter {
	if attribute == nil {
		return undefinedFilter
	}
	compare := d.comparer(attribute, value)
	if compare == nil {
		return undefinedFilter
	}
	if attribute.Name == "uSNChanged" { // fast path for delta syncs, which evaluate it for every object
		want, _ := strconv.ParseInt(value, 10, 64)
		return func(o *object) ternary { return ternaryOf(holds(cmp.Compare(int64(o.usnChanged), want))) }
	}
	return d.matchAny(attribute, func(stored string) bool { return holds(compare(stored)) })
}

// comparer returns a function that compares a stored value with the given one. It returns
// nil if the given value is invalid in the syntax of the attribute.
func (d *Server) comparer(attribute *attributeType, value string) func(stored string) int {
	switch attribute.Syntax {
	case syntaxInteger:
		want, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil
		}
		return func(stored string) int {
			n, _ := strconv.ParseInt(stored, 10, 64) // stored values are integers
			return cmp.Compare(n, want)
		}
	case syntaxTime:
		want, ok := ad.ParseGeneralizedTime([]byte(value))
		if !ok {
			return nil
		}
		return func(stored string) int {
			t, _ := ad.ParseGeneralizedTime([]byte(stored))
			return t.Compare(want)
		}
	case syntaxBoolean:
		if value != "TRUE" && value != "FALSE" {
			return nil
		}
		return func(stored string) int { return strings.Compare(stored, value) }
	case syntaxSID:
		if sid, ok := parseSID(value); ok { // Active Directory accepts text too
			value = sid
		}
		return func(stored string) int { return strings.Compare(stored, value) }
	case syntaxOctets:
		return func(stored string) int { return strings.Compare(stored, value) }
	case syntaxClass, syntaxDN:
		if category, ok := categoryOf(value); ok && attribute.Syntax == syntaxClass {
			value = d.categoryDN(category)
		} else if value, ok = canonicalDN(value); !ok {
			return nil
		}
	}
	want := strings.ToLower(value)
	return func(stored string) int { return strings.Compare(strings.ToLower(stored), want) }
}

// parseSID parses a SID of the NT authority: S-1-5-….
func parseSID(text string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.ToUpper(text), "S-1-5-")
	if !ok {
		return "", false
	}
	var subs []uint32
	for part := range strings.SplitSeq(rest, "-") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil || len(subs) == 15 {
			return "", false
		}
		subs = append(subs, uint32(n))
	}
	return newSID(subs...), true
}

// compileLink compares links by their objects. With chain, it follows links of links.
func (d *Server) compileLink(name string, value string, chain bool) filter {
	target := d.lookup(value)
	if target == nil {
		return func(*object) ternary { return isFalse }
	}
	var reaches func(o *object, seen map[*object]bool) bool
	reaches = func(o *object, seen map[*object]bool) bool {
		for _, linked := range o.links(name) {
			if linked == target {
				return true
			}
			if chain && !seen[linked] {
				seen[linked] = true
				if reaches(linked, seen) {
					return true
				}
			}
		}
		return false
	}
	return func(o *object) ternary {
		if len(o.links(name)) == 0 {
			return isFalse
		}
		return ternaryOf(reaches(o, map[*object]bool{}))
	}
}

func (d *Server) compileSubstrings(coded element) (filter, error) {
	if len(coded.children) != 2 || len(coded.children[1].children) == 0 {
		return nil, errInvalidFilter
	}
	attribute, err := searchableAttribute(coded.children[0].text())
	if err != nil {
		return nil, err
	}
	parts := coded.children[1].children
	fold := bytes.ToLower
	switch {
	case attribute == nil, attribute.Syntax != syntaxText && attribute.Syntax != syntaxOctets && attribute.Syntax != syntaxSID:
		return undefinedFilter, nil // integers, times and DNs have no substrings
	case attribute.Syntax != syntaxText:
		fold = func(b []byte) []byte { return b }
	}
	wanted := make([][]byte, len(parts))
	for i, part := range parts {
		if part.tag&^0x1f != tagPrimitive || part.tag&0x1f > ldap.FilterSubstringsFinal {
			return nil, errInvalidFilter
		}
		wanted[i] = fold(part.content)
	}
	return d.withoutHidden(attribute, d.matchAny(attribute, func(value string) bool {
		rest := fold([]byte(value))
		for i, part := range parts {
			var ok bool
			switch part.tag & 0x1f {
			case ldap.FilterSubstringsInitial:
				rest, ok = bytes.CutPrefix(rest, wanted[i])
			case ldap.FilterSubstringsFinal:
				rest, ok = bytes.CutSuffix(rest, wanted[i])
			default:
				_, rest, ok = bytes.Cut(rest, wanted[i])
			}
			if !ok {
				return false
			}
		}
		return true
	})), nil
}

func (d *Server) compileExtensible(coded element) (filter, error) {
	var rule, name, value string
	for _, child := range coded.children {
		switch child.tag & 0x1f {
		case ldap.MatchingRuleAssertionMatchingRule:
			rule = child.text()
		case ldap.MatchingRuleAssertionType:
			name = child.text()
		case ldap.MatchingRuleAssertionMatchValue:
			value = child.text()
		}
	}
	attribute, err := searchableAttribute(name)
	if attribute == nil {
		return undefinedFilter, err
	}
	return d.withoutHidden(attribute, d.compileRule(attribute, rule, value)), nil
}

// compileRule returns a filter by a matching rule; "": equality.
func (d *Server) compileRule(attribute *attributeType, rule, value string) filter {
	switch rule {
	case "":
		return d.compileEquality(attribute, value)
	case ruleChain:
		if attribute.Name == "member" || attribute.Name == "memberOf" {
			return d.compileLink(attribute.Name, value, true)
		}
	case ruleBitAnd, ruleBitOr:
		// Stored flags are signed. Clients often send unsigned ones.
		mask, err := strconv.ParseInt(value, 10, 64)
		if err == nil && attribute.Syntax == syntaxInteger {
			return d.matchAny(attribute, func(stored string) bool {
				n, _ := strconv.ParseInt(stored, 10, 64)
				if rule == ruleBitOr {
					return n&mask != 0
				}
				return n&mask == mask
			})
		}
	}
	return undefinedFilter
}
