package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/identity"
)

// collectorConfig is the configuration of the collector process.
type collectorConfig struct{ URL, BindDN, Password, Base string }

// counts are the numbers of entries that a workload has read.
type counts struct {
	Users  int `json:"users"`
	Groups int `json:"groups"`
}

// collect runs in the collector process. It reads a directory as most Go programs do: the
// library collects all pages in memory, and each entry becomes a map and then JSON. It prints
// its counts.
func collect(configFile string) error {
	var c collectorConfig
	if err := readJSON(configFile, &c); err != nil {
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
	var read counts
	if read.Users, err = c.read(conn, identity.User); err != nil {
		return err
	}
	if read.Groups, err = c.read(conn, identity.Group); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(read)
}

func (c collectorConfig) read(conn *ldap.Conn, kind identity.Kind) (int, error) {
	attributes := identity.NewMapper(kind).Attributes
	request := ldap.NewSearchRequest(c.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
		identity.Filter[kind], attributes, nil)
	result, err := conn.SearchWithPaging(request, pageSize)
	if err != nil {
		return 0, fmt.Errorf("search %ss: %w", kind, err)
	}
	count := 0
	for _, entry := range result.Entries {
		values := map[string]string{"dn": entry.DN}
		for _, attribute := range entry.Attributes {
			values[attribute.Name] = strings.Join(attribute.Values, ";")
		}
		if _, err := json.Marshal(values); err != nil {
			return 0, fmt.Errorf("encode %s: %w", entry.DN, err)
		}
		count++
	}
	return count, nil
}
