package domaincontroller

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"strings"
	"sync"

	"adconnector/internal/ad"
)

// syntax is the syntax of an attribute (MS-ADTS 3.1.1.3.1.1).
type syntax string

const (
	syntaxText    syntax = ""        // case-insensitive
	syntaxInteger syntax = "integer" // 32 or 64 bits
	syntaxBoolean syntax = "boolean" // TRUE or FALSE
	syntaxTime    syntax = "time"    // generalized time (X.680)
	syntaxOctets  syntax = "octets"
	syntaxSID     syntax = "sid"
	syntaxDN      syntax = "dn"
	syntaxClass   syntax = "class" // objectClass and objectCategory: filters can use the name of a class
)

// attributeType is an attribute of the schema.
type attributeType struct {
	Name        string
	Syntax      syntax
	Many        bool // multivalued
	System      bool // only the server sets it
	Local       bool // not replicated: a change assigns no update sequence number
	Constructed bool // computed, returned only if requested by name, and not searchable
}

// class is an object class.
type class struct {
	Name           string   // the last of Ancestors
	Ancestors      []string // values of objectClass: from top to the class itself
	Category       string   // common name of objectCategory in the schema
	RDNAttribute   string   // OU, DC, or the default CN
	SAMAccountType string   // empty: not a security principal
}

const (
	samUser        = "805306368"
	samMachine     = "805306369"
	samGroup       = "268435456"
	samNonSecurity = "268435457"
	samAlias       = "536870912"
	samNonSecAlias = "536870913"
)

// wellKnownObject is a group or user of every domain.
type wellKnownObject struct {
	Name        string
	RID         uint32
	Kind        string // groupType, or userAccountControl
	Description string

	guid ad.GUID // zero: a new one
}

// schema is the attributes that objects can have, the classes, and the well-known objects.
type schema struct {
	Attributes                               []attributeType
	Classes                                  []*class
	BuiltinGroups, DomainGroups, DomainUsers []wellKnownObject

	attributesByName map[string]*attributeType // lower case
	classesByName    map[string]*class         // lower case
}

//go:embed schema.json
var schemaJSON []byte

var loadSchema = sync.OnceValue(func() *schema {
	s := parseEmbedded[schema](schemaJSON)
	s.attributesByName, s.classesByName = map[string]*attributeType{}, map[string]*class{}
	for i, a := range s.Attributes {
		s.attributesByName[strings.ToLower(a.Name)] = &s.Attributes[i]
	}
	for _, c := range s.Classes {
		c.Name = c.Ancestors[len(c.Ancestors)-1]
		c.RDNAttribute = cmp.Or(c.RDNAttribute, "CN")
		s.classesByName[strings.ToLower(c.Name)] = c
	}
	return &s
})

// parseEmbedded parses an embedded JSON file.
func parseEmbedded[T any](file []byte) (parsed T) {
	if err := json.Unmarshal(file, &parsed); err != nil {
		panic(err) // it is embedded
	}
	return parsed
}

// attributeByName returns an attribute, or nil. The name is matched without regard to case.
func attributeByName(name string) *attributeType {
	return loadSchema().attributesByName[strings.ToLower(name)]
}

// classByName returns a class, or nil. The name is matched without regard to case.
func classByName(name string) *class { return loadSchema().classesByName[strings.ToLower(name)] }

// categoryOf returns the objectCategory that a filter with the name of a class matches:
// (objectCategory=user) is (objectCategory=person).
func categoryOf(name string) (string, bool) {
	switch strings.ToLower(name) {
	case "person", "organizationalperson":
		return "Person", true
	}
	c := classByName(name)
	if c == nil {
		return "", false
	}
	return c.Category, true
}
