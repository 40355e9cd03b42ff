package domaincontroller

import (
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"adconnector/internal/ad"
)

// maxValRange is how many values of one attribute an answer has at most.
const maxValRange = 1500

// selection is what a search asks for of each entry.
type selection struct {
	all    bool
	names  []string // as asked for
	named  []attributeID
	ranges map[attributeID]valueRange
}

// valueRange is what ;range= asks for; to is -1 for all the rest (MS-ADTS 3.1.1.3.1.3.3).
type valueRange struct{ from, to int }

func selectAttributes(names []string) selection {
	s := selection{all: len(names) == 0, names: names}
	for _, name := range names {
		name, option, _ := strings.Cut(name, ";")
		if name == "*" {
			s.all = true
			continue
		}
		attribute := attributesByName[strings.ToLower(name)]
		if attribute == nil {
			continue // no attribute is no error, "1.1" none of them
		}
		if !slices.Contains(s.named, attribute.id) {
			s.named = append(s.named, attribute.id)
		}
		if r, ok := parseRange(option); ok {
			if s.ranges == nil {
				s.ranges = map[attributeID]valueRange{}
			}
			s.ranges[attribute.id] = r
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
	e.octets(tagOctets, s.extended.of(o))
	list := e.begin(tagSequence)
	if o == d.deleted && !s.readsDeleted { // it can be seen, but not read
		s.selection = selection{}
	}
	for _, attribute := range s.selection.named {
		if !s.selection.all || schema[attribute].constructed {
			d.encodeAttribute(e, o, attribute, s)
		}
	}
	if s.selection.all {
		for attribute := range attributeCount {
			if !schema[attribute].constructed {
				d.encodeAttribute(e, o, attribute, s)
			}
		}
	}
	e.end(list)
	end()
}

// encodeAttribute writes an attribute that has values. Of more than 1500 only a
// range is given, beside an empty attribute under the plain name.
func (d *Server) encodeAttribute(e *encoder, o *object, id attributeID, s search) {
	asked, ranged := s.selection.ranges[id]
	count := len(o.links(id))
	if count > maxValRange || ranged && count > 0 {
		encodeRange(e, o, id, asked, ranged, count, s)
		return
	}
	before := len(e.out)
	attribute := e.begin(tagSequence)
	e.octets(tagOctets, schema[id].name)
	set := e.begin(tagSet)
	there := false
	for value := range d.valuesFor(o, id, s) {
		there = true
		if s.typesOnly {
			break
		}
		e.octets(tagOctets, value)
	}
	e.end(set)
	e.end(attribute)
	if !there {
		e.out = e.out[:before]
	}
}

// valuesFor are the values as the search wants them. Whoever is at the end of a
// link is known without looking for the name.
func (d *Server) valuesFor(o *object, id attributeID, s search) iter.Seq[string] {
	if s.extended == dnPlain || schema[id].syntax != syntaxDN {
		return d.values(o, id, s.now)
	}
	return func(yield func(string) bool) {
		switch id {
		case attributeMember, attributeMemberOf:
			for _, linked := range o.links(id) {
				if !yield(s.extended.of(linked)) {
					return
				}
			}
		default:
			for value := range d.values(o, id, s.now) {
				if named := d.lookup(value); named != nil {
					value = s.extended.of(named)
				}
				if !yield(value) {
					return
				}
			}
		}
	}
}

// links are the objects at the other ends.
func (o *object) links(id attributeID) []*object {
	switch id {
	case attributeMember:
		return o.members
	case attributeMemberOf:
		return o.memberOf
	}
	return nil
}

// dnForm is how DNs are written: LDAP_SERVER_EXTENDED_DN_OID (MS-ADTS
// 3.1.1.3.4.1.5) adds the identifiers of what they name.
type dnForm byte

const (
	dnPlain   dnForm = iota
	dnHex            // identifiers in hexadecimal
	dnText           // as text
	dnInvalid        // the control cannot be read
)

// parseDNForm reads the control's value: none means hexadecimal.
func parseDNForm(value []byte) dnForm {
	if len(value) == 0 {
		return dnHex
	}
	sequence, _, err := parseElement(value, 0)
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

func (form dnForm) of(o *object) string {
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

func encodeRange(e *encoder, o *object, id attributeID, asked valueRange, ranged bool, count int, s search) {
	if !ranged {
		asked.to = -1
		attribute := e.begin(tagSequence)
		e.octets(tagOctets, schema[id].name)
		e.end(e.begin(tagSet))
		e.end(attribute)
	}
	if asked.from >= count {
		return
	}
	to := asked.from + maxValRange
	if asked.to >= 0 {
		to = min(to, asked.to+1)
	}
	option := strconv.Itoa(to - 1)
	if to >= count {
		to, option = count, "*"
	}
	links := o.links(id)
	attribute := e.begin(tagSequence)
	e.octets(tagOctets, fmt.Sprintf("%s;range=%d-%s", schema[id].name, asked.from, option))
	set := e.begin(tagSet)
	for _, linked := range links[asked.from:to] {
		if !s.typesOnly {
			e.octets(tagOctets, s.extended.of(linked))
		}
	}
	e.end(set)
	e.end(attribute)
}

// encodeReference leads on to the naming context below the domain.
func (d *Server) encodeReference(e *encoder, id int64) {
	end := e.message(id, tagSearchReference)
	e.octets(tagOctets, "ldap://"+domainName+"/CN=Configuration,"+d.root.dn())
	end()
}
