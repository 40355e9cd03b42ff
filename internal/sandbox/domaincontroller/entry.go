package domaincontroller

import (
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// maxValRange is the maximum number of values of one attribute in an entry.
const maxValRange = 1500

// selection is the attributes that a search requests.
type selection struct {
	all    bool
	names  []string // as requested
	named  []*attributeType
	ranges map[*attributeType]valueRange
}

// valueRange is a ;range= option (MS-ADTS 3.1.1.3.1.3.3). to is -1 for all remaining values.
type valueRange struct{ from, to int }

func selectAttributes(names []string) selection {
	s := selection{all: len(names) == 0, names: names, ranges: map[*attributeType]valueRange{}}
	for _, name := range names {
		name, option, _ := strings.Cut(name, ";")
		if name == "*" {
			s.all = true
			continue
		}
		attribute := attributeByName(name)
		if attribute == nil {
			continue // not an error; "1.1" requests no attribute
		}
		if !slices.Contains(s.named, attribute) {
			s.named = append(s.named, attribute)
		}
		if r, ok := parseRange(option); ok {
			s.ranges[attribute] = r
		}
	}
	return s
}

func parseRange(option string) (valueRange, bool) {
	from, to, ok := strings.Cut(strings.TrimPrefix(strings.ToLower(option), "range="), "-")
	low, err := strconv.Atoi(from)
	if !ok || err != nil || low < 0 {
		return valueRange{}, false
	}
	if to == "*" {
		return valueRange{low, -1}, true
	}
	high, err := strconv.Atoi(to)
	return valueRange{low, high}, err == nil && high >= low
}

func (d *Server) encodeEntry(e *encoder, id int64, o *object, s search) {
	end := e.message(id, tagSearchEntry)
	e.octets(tagOctets, s.dnForm.format(o))
	list := e.begin(tagSequence)
	if o == d.deleted && !s.readsDeleted { // the container is visible without attributes
		s.selection = selection{}
	}
	for _, attribute := range s.selection.named {
		if !s.selection.all || attribute.Constructed {
			d.encodeAttribute(e, o, attribute, s)
		}
	}
	if s.selection.all {
		all := loadSchema().Attributes
		for i := range all {
			if !all[i].Constructed {
				d.encodeAttribute(e, o, &all[i], s)
			}
		}
	}
	e.end(list)
	end()
}

// encodeAttribute writes an attribute if it has values and is not hidden. A link attribute with more than
// maxValRange values is written as a range, after an empty attribute without the option.
func (d *Server) encodeAttribute(e *encoder, o *object, a *attributeType, s search) {
	if d.isHidden(o, a) || a.Name == ad.AttributeDescriptor && !s.descriptors {
		return
	}
	links := o.links(a.Name)
	requested, ranged := s.selection.ranges[a]
	if !ranged && len(links) > maxValRange {
		encodeValues(e, a.Name, slices.Values[[]string](nil), true)
		requested = valueRange{0, -1}
	}
	if len(links) > maxValRange || ranged && len(links) > 0 {
		encodeRange(e, links, a.Name, requested, s)
		return
	}
	start := len(e.out)
	if !encodeValues(e, a.Name, d.searchedValues(o, a, s), s.typesOnly) {
		e.out = e.out[:start]
	}
}

// encodeValues writes an attribute and reports whether it has a value.
func encodeValues(e *encoder, name string, values iter.Seq[string], typesOnly bool) (found bool) {
	attribute := e.begin(tagSequence)
	e.octets(tagOctets, name)
	set := e.begin(tagSet)
	for value := range values {
		found = true
		if typesOnly {
			break
		}
		e.octets(tagOctets, value)
	}
	e.end(set)
	e.end(attribute)
	return found
}

// encodeRange writes the requested range of link values, at most maxValRange of them.
func encodeRange(e *encoder, links []*object, name string, requested valueRange, s search) {
	if requested.from >= len(links) {
		return
	}
	to := requested.from + maxValRange
	if requested.to >= 0 {
		to = min(to, requested.to+1)
	}
	last := strconv.Itoa(to - 1)
	if to >= len(links) {
		to, last = len(links), "*"
	}
	option := fmt.Sprintf("%s;range=%d-%s", name, requested.from, last)
	encodeValues(e, option, s.dnForm.formatAll(links[requested.from:to]), s.typesOnly)
}

// searchedValues returns the values of an attribute, with DNs in the form that the search
// requests.
func (d *Server) searchedValues(o *object, a *attributeType, s search) iter.Seq[string] {
	switch {
	case s.dnForm == dnPlain || a.Syntax != syntaxDN:
		return d.values(o, a.Name, s.now)
	case a.Name == "member" || a.Name == "memberOf":
		return s.dnForm.formatAll(o.links(a.Name))
	}
	return func(yield func(string) bool) {
		for value := range d.values(o, a.Name, s.now) {
			if target := d.lookup(value); target != nil {
				value = s.dnForm.format(target)
			}
			if !yield(value) {
				return
			}
		}
	}
}

// links returns the objects that a link attribute refers to.
func (o *object) links(name string) []*object {
	switch name {
	case "member":
		return o.members
	case "memberOf":
		return o.memberOf
	}
	return nil
}

// dnForm is the form of DNs in an answer. LDAP_SERVER_EXTENDED_DN_OID (MS-ADTS
// 3.1.1.3.4.1.5) adds the GUID and the SID of the object.
type dnForm byte

const (
	dnPlain dnForm = iota
	dnHex          // identifiers in hexadecimal
	dnText         // identifiers as text
	dnInvalid
)

// parseDNForm parses the value of the control. An empty value means hexadecimal.
func parseDNForm(value []byte) dnForm {
	if len(value) == 0 {
		return dnHex
	}
	sequence, err := decode(value)
	if err != nil || len(sequence.children) != 1 {
		return dnInvalid
	}
	switch sequence.children[0].number() {
	case 0:
		return dnHex
	case 1:
		return dnText
	}
	return dnInvalid
}

func (form dnForm) format(o *object) string {
	if form == dnPlain {
		return o.dn()
	}
	b := make([]byte, 0, 256)
	b = append(b, "<GUID="...)
	if form == dnText {
		b = o.guid.AppendText(b)
	} else {
		b = hex.AppendEncode(b, o.guid[:])
	}
	if o.sid != "" {
		b = append(b, ">;<SID="...)
		if form == dnText {
			b = ad.SID(o.sid).AppendText(b)
		} else {
			b = hex.AppendEncode(b, []byte(o.sid))
		}
	}
	return string(o.appendDN(append(b, ">;"...)))
}

func (form dnForm) formatAll(objects []*object) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, o := range objects {
			if !yield(form.format(o)) {
				return
			}
		}
	}
}

// encodeReference writes a continuation reference to the configuration naming context, if
// the search covers the whole domain.
func (d *Server) encodeReference(e *encoder, id int64, s search) {
	if base, _ := d.findBase(s); base != d.root || s.scope != ldap.ScopeWholeSubtree || s.domainScope {
		return
	}
	end := e.message(id, tagSearchReference)
	e.octets(tagOctets, "ldap://"+domainName+"/CN=Configuration,"+d.root.dn())
	end()
}
