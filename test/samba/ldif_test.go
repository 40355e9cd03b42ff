//go:build ad

package samba

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"adconnector/test/oracle"
)

// record is an entry of an LDIF file. Attribute names are in lower case, without options.
type record struct {
	dn     string
	values oracle.Entry
}

// parseLDIF parses the output of ldapsearch (RFC 2849). It ignores comments and search
// references.
func parseLDIF(text string) ([]record, error) {
	text = strings.ReplaceAll(text, "\n ", "") // unfold lines
	var records []record
	for block := range strings.SplitSeq(text, "\n\n") {
		r := record{values: oracle.Entry{}}
		for line := range strings.SplitSeq(block, "\n") {
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("no colon in %q", line)
			}
			if encoded, ok := strings.CutPrefix(value, ":"); ok {
				decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				value = string(decoded)
			} else {
				value = strings.TrimPrefix(value, " ")
			}
			name, _, _ = strings.Cut(strings.ToLower(name), ";")
			if name == "dn" {
				r.dn = value
				continue
			}
			r.values[name] = append(r.values[name], value)
		}
		if r.dn != "" {
			records = append(records, r)
		}
	}
	return records, nil
}

// ldif writes entries and change records. It encodes values where LDIF requires it.
type ldif struct{ strings.Builder }

// add writes an entry. pairs are attribute names and values.
func (l *ldif) add(dn string, pairs ...string) {
	l.line("dn", dn)
	for i := 0; i < len(pairs); i += 2 {
		l.line(pairs[i], pairs[i+1])
	}
	l.WriteByte('\n')
}

// create writes a change record that adds an entry.
func (l *ldif) create(dn string, pairs ...string) {
	l.add(dn, append([]string{"changetype", "add"}, pairs...)...)
}

// replace writes a change record that replaces an attribute, or removes it if there are no
// values.
func (l *ldif) replace(dn, attribute string, values ...string) {
	l.line("dn", dn)
	l.line("changetype", "modify")
	l.line("replace", attribute)
	for _, v := range values {
		l.line(attribute, v)
	}
	l.WriteString("-\n\n")
}

func (l *ldif) line(name, value string) {
	for _, b := range []byte(value) {
		if b < ' ' || b > '~' {
			l.lineBase64(name, value)
			return
		}
	}
	if value == "" || strings.ContainsAny(value[:1], " :<") || strings.HasSuffix(value, " ") {
		l.lineBase64(name, value)
		return
	}
	fmt.Fprintf(l, "%s: %s\n", name, value)
}

func (l *ldif) lineBase64(name, value string) {
	fmt.Fprintf(l, "%s:: %s\n", name, base64.StdEncoding.EncodeToString([]byte(value)))
}

func TestLDIF(t *testing.T) {
	var l ldif
	want := map[string]string{
		"plain": "a: b #c", "spaces": "  both  ", "lines": "one\r\ntwo\n", "unicode": "é👩‍🚀", "colon": ":x", "empty": "",
	}
	var pairs []string
	for name, value := range want {
		pairs = append(pairs, name, value)
	}
	l.add(`CN=Zoë\, "Z",DC=example`, pairs...)
	text := "# extended LDIF\n\n" + l.String() + "ref: ldap://elsewhere/DC=x\n\n" +
		"dn: CN=folded,DC=exa\n mple\nmember;range=0-1499: x\nMember: y\n\n"
	records, err := parseLDIF(text)
	if err != nil || len(records) != 2 {
		t.Fatalf("%d records, error %v, want 2", len(records), err)
	}
	if records[0].dn != `CN=Zoë\, "Z",DC=example` || records[1].dn != "CN=folded,DC=example" {
		t.Errorf("DNs %q, %q", records[0].dn, records[1].dn)
	}
	for name, value := range want {
		if got := records[0].values.First(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if got := records[1].values["member"]; len(got) != 2 {
		t.Errorf("member: %q, want 2 values", got)
	}
}
