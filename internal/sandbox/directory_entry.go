package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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

func (d *Directory) encodeEntry(e *encoder, id int64, o *object, s search) {
	end := e.message(id, tagSearchEntry)
	e.octets(tagOctets, o.dn())
	list := e.begin(tagSequence)
	if o == d.deleted && !s.seesDeleted { // it can be seen, but not read
		s.selection = selection{}
	}
	for _, attribute := range s.selection.named {
		if !s.selection.all || schema[attribute].constructed {
			d.encodeAttribute(e, o, attribute, s)
		}
	}
	if s.selection.all {
		for attribute := range attributes {
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
func (d *Directory) encodeAttribute(e *encoder, o *object, id attributeID, s search) {
	asked, ranged := s.selection.ranges[id]
	count := 0
	switch id {
	case attributeMember:
		count = len(o.members)
	case attributeMemberOf:
		count = len(o.memberOf)
	}
	if count > maxValRange || ranged && count > 0 {
		d.encodeRange(e, o, id, asked, ranged, count, s)
		return
	}
	before := len(e.out)
	attribute := e.begin(tagSequence)
	e.octets(tagOctets, schema[id].name)
	set := e.begin(tagSet)
	there := false
	for value := range d.values(o, id, s.now) {
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

func (d *Directory) encodeRange(e *encoder, o *object, id attributeID, asked valueRange, ranged bool, count int, s search) {
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
	links := o.members
	if id == attributeMemberOf {
		links = o.memberOf
	}
	attribute := e.begin(tagSequence)
	e.octets(tagOctets, fmt.Sprintf("%s;range=%d-%s", schema[id].name, asked.from, option))
	set := e.begin(tagSet)
	for _, linked := range links[asked.from:to] {
		if !s.typesOnly {
			e.octets(tagOctets, linked.dn())
		}
	}
	e.end(set)
	e.end(attribute)
}

// encodeReference leads on to the naming context below the domain.
func (d *Directory) encodeReference(e *encoder, id int64) {
	end := e.message(id, tagSearchReference)
	e.octets(tagOctets, "ldap://"+d.options.Domain+"/CN=Configuration,"+d.root.dn())
	end()
}
