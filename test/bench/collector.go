package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/identity"
)

// collection says what the collector's process reads, and as whom.
type collection struct{ URL, BindDN, Password, Base string }

// counts is how many entries a contender has seen.
type counts struct {
	Users  int `json:"users"`
	Groups int `json:"groups"`
}

// collect is the collector's process. It reads a directory as most Go programs do:
// the library gathers all pages, and each entry becomes a map and then JSON. It
// prints its counts.
func collect(file string) error {
	var c collection
	if err := readJSON(file, &c); err != nil {
		return err
	}
	conn, err := ldap.DialURL(c.URL)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Bind(c.BindDN, c.Password); err != nil {
		return err
	}
	var seen counts
	if seen.Users, err = c.read(conn, identity.User); err != nil {
		return err
	}
	if seen.Groups, err = c.read(conn, identity.Group); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func (c collection) read(conn *ldap.Conn, kind identity.Kind) (int, error) {
	attributes := identity.NewMapper(kind).Attributes
	request := ldap.NewSearchRequest(c.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
		identity.Filter[kind], attributes, nil)
	result, err := conn.SearchWithPaging(request, pageSize)
	if err != nil {
		return 0, fmt.Errorf("search %ss: %w", kind, err)
	}
	seen := 0
	for _, entry := range result.Entries {
		values := map[string]string{"dn": entry.DN}
		for _, attribute := range entry.Attributes {
			values[attribute.Name] = strings.Join(attribute.Values, ";")
		}
		if _, err := json.Marshal(values); err != nil {
			return 0, fmt.Errorf("encode %s: %w", entry.DN, err)
		}
		seen++
	}
	return seen, nil
}
