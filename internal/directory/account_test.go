package directory

import (
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/test/fakeldap"
)

// TestAccountName checks the name of the bound account by what the account can read of itself.
func TestAccountName(t *testing.T) {
	t.Parallel()
	const readerSID = "\x01\x05\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\xe9\x03\x00\x00"
	for name, c := range map[string]struct {
		bindDN string
		entry  [][]string
		want   string
		token  string // SID in the rootDSE
	}{
		"principal name":                 {"CN=reader,DC=corp", [][]string{{"msDS-PrincipalName", `CORP\reader`, ""}, {"sAMAccountName", "reader"}}, `CORP\reader`, ""},
		"account name":                   {"CN=reader,DC=corp", [][]string{{"sAMAccountName", "reader"}}, "reader@corp.example.com", ""},
		"unreadable":                     {"CN=reader,DC=corp", nil, "CN=reader,DC=corp", ""},
		"bound by name":                  {`CORP\reader`, [][]string{{"sAMAccountName", "other"}}, `CORP\reader`, ""},
		"bound by canonical name":        {"corp.example.com/reader", [][]string{{"sAMAccountName", "other"}}, "corp.example.com/reader", ""},
		"bound by canonical name, token": {"corp.example.com/reader", [][]string{{"sAMAccountName", "other"}}, "other@corp.example.com", readerSID},
		"bound by UPN":                   {"reader@corp.example.com", [][]string{{"sAMAccountName", "other"}}, "reader@corp.example.com", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			controller := fakeldap.DC1
			if c.token != "" {
				controller.RootDSE = append(controller.RootDSE, []string{ad.AttributeTokenGroups, c.token})
			}
			server := fakeldap.Serve(t, nil, controller.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				if c.entry == nil {
					return p.Send(fakeldap.Done(r.ID, ldap.LDAPResultNoSuchObject))
				}
				return p.Send(fakeldap.NewEntry(r.Base, c.entry...).Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
			}))
			o := options(server)
			o.BindDN = c.bindDN
			session := connect(t, o)
			session.RootDSE.DefaultNamingContext = "DC=corp, dc=example,DC=com"
			if got := session.AccountName(t.Context()); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
