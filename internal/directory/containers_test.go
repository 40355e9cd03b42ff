package directory

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestContainers checks which DNs are those of system objects and of containers of accounts.
func TestContainers(t *testing.T) {
	t.Parallel()
	root := RootDSE{DefaultNamingContext: "DC=corp,DC=example,DC=com"}
	for dn, want := range map[string]struct{ system, container bool }{
		"OU=People,DC=corp,DC=example,DC=com":                   {false, true},
		"ou=Lower,OU=People,DC=corp,DC=example,DC=com":          {false, true},
		"CN=Users,DC=corp,DC=example,DC=com":                    {false, true},
		"cn=users,dc=CORP,dc=example,dc=com":                    {false, true},
		"CN=Computers,DC=corp,DC=example,DC=com":                {false, true},
		"CN=Managed Service Accounts,DC=corp,DC=example,DC=com": {false, true},
		"CN=Users,OU=People,DC=corp,DC=example,DC=com":          {false, false},
		"CN=alice,CN=Users,DC=corp,DC=example,DC=com":           {false, false},
		"CN=alice,OU=People,DC=corp,DC=example,DC=com":          {false, false},
		"CN=System,DC=corp,DC=example,DC=com":                   {true, false},
		"CN=Policies,CN=System,DC=corp,DC=example,DC=com":       {true, false},
		"OU=Unit,CN=System,DC=corp,DC=example,DC=com":           {true, false},
		"CN=LostAndFound,DC=corp,DC=example,DC=com":             {true, false},
		"DC=corp,DC=example,DC=com":                             {false, false},
		"OU=":                                                   {false, false},
		"":                                                      {false, false},
	} {
		if system, container := root.IsSystem(dn), root.IsAccountContainer(dn); system != want.system || container != want.container {
			t.Errorf("%s: system %t, container %t, want %+v", dn, system, container, want)
		}
	}
}

// TestNormalizeDN checks that equal DNs have the same form, and different ones do not.
func TestNormalizeDN(t *testing.T) {
	t.Parallel()
	const dn = `OU=Sales\2C Pune,DC=corp,DC=example,DC=com`
	for _, equal := range []string{dn, `ou=sales\, pune,dc=corp,dc=example,dc=com`, `OU=SALES\, Pune , DC=corp, DC=example, DC=com`} {
		if in, ok := InScope(equal, dn, Base); !in || !ok || NormalizeDN(equal) != NormalizeDN(dn) {
			t.Errorf("%s: %s, want %s", equal, NormalizeDN(equal), NormalizeDN(dn))
		}
	}
	for _, other := range []string{`OU=Sales,OU=Pune,DC=corp,DC=example,DC=com`, `CN=Sales\2C Pune,DC=corp,DC=example,DC=com`, "OU"} {
		if NormalizeDN(other) == NormalizeDN(dn) {
			t.Errorf("%s is equal", other)
		}
	}
	for _, equal := range []string{"OU=Köln,DC=a", "ou=KÖLN,dc=A", `OU=K\c3\96ln,DC=a`} {
		if got := NormalizeDN(equal); got != `ou=k\c3\b6ln,dc=a` {
			t.Errorf("%s: %s", equal, got)
		}
	}
	if got := NormalizeDN("No DN"); got != "no dn" {
		t.Errorf("%q", got)
	}
}

// TestUnlistedContainers checks which containers do not allow the account to list their contents, that
// a limit stops no search, and that a container without visible objects counts as empty.
func TestUnlistedContainers(t *testing.T) {
	t.Parallel()
	const (
		header    = "\x01\x00\x04\x80" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x14\x00\x00\x00"
		everyone  = "\x01\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"
		denies    = header + "\x04\x00\x08\x00\x00\x00\x00\x00"
		allows    = header + "\x04\x00\x1c\x00\x01\x00\x00\x00" + "\x00\x00\x14\x00\x04\x00\x00\x00" + everyone
		closed    = "OU=Closed,DC=corp"
		populated = "OU=Populated,DC=corp"
		refused   = "OU=Refused,DC=corp"
	)
	for name, c := range map[string]struct {
		limit       int
		code        int // of the search for descriptors
		want, empty []string
		more        bool
	}{
		"all":                {3, ldap.LDAPResultSuccess, []string{closed, populated, refused}, []string{closed, refused}, false},
		"more":               {2, ldap.LDAPResultSuccess, []string{closed, populated}, []string{closed}, true},
		"control is refused": {3, ldap.LDAPResultUnavailableCriticalExtension, nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			controller := fakeldap.DC1
			controller.RootDSE = append(controller.RootDSE, []string{ad.AttributeTokenGroups, everyone}, []string{"supportedControl", controlSDFlags})
			session := connect(t, options(fakeldap.Serve(t, nil, controller.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				switch {
				case r.Base == populated:
					p.Send(fakeldap.NewEntry("CN=alice," + populated).Message(r.ID))
				case r.Base == refused:
					return p.Send(fakeldap.Done(r.ID, ldap.LDAPResultInsufficientAccessRights))
				case strings.Contains(r.Filter, "organizationalUnit") && c.code != ldap.LDAPResultSuccess:
					return p.Send(fakeldap.Done(r.ID, c.code))
				case strings.Contains(r.Filter, "organizationalUnit"):
					for _, unit := range [][2]string{{"OU=Open,DC=corp", allows}, {closed, denies}, {"OU=Unreadable,DC=corp", ""}, {"CN=x,DC=corp", denies}, {populated, denies}, {refused, denies}} {
						p.Send(fakeldap.NewEntry(unit[0], []string{ad.AttributeDescriptor, unit[1]}).Message(r.ID))
					}
				}
				return p.Send(fakeldap.Done(r.ID, ldap.LDAPResultSuccess, fakeldap.Paging("")))
			}))))
			got, more, err := session.UnlistedContainers(t.Context(), "DC=corp", Subtree, c.limit)
			if !slices.Equal(got, c.want) || more != c.more || err != nil {
				t.Errorf("%q, more %t, error %v; want %q, %t", got, more, err, c.want, c.more)
			}
			if empty, err := session.EmptyContainers(t.Context(), got); !slices.Equal(empty, c.empty) || err != nil {
				t.Errorf("empty: %q, error %v; want %q", empty, err, c.empty)
			}
			session.Close()
			if _, err := session.EmptyContainers(t.Context(), []string{closed}); fault.ClassOf(err) == fault.Done || fault.ClassOf(err) == fault.Refused {
				t.Errorf("without a connection: %v", err)
			}
		})
	}
}
