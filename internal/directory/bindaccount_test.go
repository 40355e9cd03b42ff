package directory

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/test/fakeldap"
)

// TestBindDN checks which account is found for a bind. The domain has an account alice, an account
// bob whose user principal name has the account name of alice as its first part, and a group.
func TestBindDN(t *testing.T) {
	t.Parallel()
	const (
		aliceDN, bobDN = "CN=Alice,DC=corp", "CN=Bob,DC=corp"
		bobUPN         = "alice@partner.example"
	)
	sid := func(domain byte, rid ad.RID) string {
		return string(ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, domain, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}, rid))
	}
	alice, bob, group := sid(1, 1001), sid(1, 1002), sid(1, 1003)
	manyGroups := func(account string) (token []string) {
		for rid := ad.RID(2000); rid < 2000+2*sidsPerFilter; rid++ {
			token = append(token, sid(1, rid))
		}
		return append(token, account)
	}
	const everyone = "\x01\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"
	for name, c := range map[string]struct {
		bindDN string
		token  []string // none: the server does not return it
		want   string
		err    error
	}{
		"DN":                                   {aliceDN, []string{bob}, aliceDN, nil},
		"account name":                         {`CORP\alice`, []string{alice, group, everyone}, aliceDN, nil},
		"account of another domain":            {`OTHER\alice`, []string{sid(9, 1001), group, everyone}, "", ErrForeignAccount},
		"user principal name":                  {bobUPN, []string{bob, group}, bobDN, nil},
		"canonical name":                       {"corp.example.com/Bob", []string{bob}, bobDN, nil},
		"account after many groups":            {`CORP\bob`, manyGroups(bob), bobDN, nil},
		"no token, account name":               {`CORP\alice`, nil, aliceDN, nil},
		"no token, user principal name":        {bobUPN, nil, bobDN, nil},
		"no token, implicit name":              {"alice@corp.example.com", nil, aliceDN, nil},
		"no token, canonical name":             {"corp.example.com/Bob", nil, "", ErrNoAccount},
		"no token, no such account":            {`CORP\nobody`, nil, "", ErrNoAccount},
		"token of well-known SIDs only":        {`CORP\alice`, []string{everyone}, aliceDN, nil},
		"token, but the account is unreadable": {`CORP\carol`, []string{sid(1, 1009), group}, "", ErrForeignAccount},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			controller := fakeldap.DC1
			if c.token != nil {
				controller.RootDSE = append(controller.RootDSE, append([]string{ad.AttributeTokenGroups}, c.token...))
			}
			server := fakeldap.Serve(t, nil, controller.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				matches := func(attribute, value string) bool {
					return strings.Contains(r.Filter, "("+attribute+"="+ldap.EscapeFilter(value)+")")
				}
				// Bob is first, and Alice last.
				if matches("objectSid", bob) || matches("userPrincipalName", bobUPN) {
					p.Send(fakeldap.NewEntry(bobDN, []string{attributeUPN, strings.ToUpper(bobUPN)}).Message(r.ID))
				}
				if matches("objectSid", alice) || matches("sAMAccountName", "alice") {
					p.Send(fakeldap.NewEntry(aliceDN).Message(r.ID))
				}
				return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
			}))
			o := options(server)
			o.BindDN = c.bindDN
			session := connect(t, o)
			if got, err := session.BindDN(t.Context()); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q, error %v; want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}
