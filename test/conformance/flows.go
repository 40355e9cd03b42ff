package conformance

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

// paging tests paged searches and invalid cookies.
func paging(t *testing.T, c Controller, names *strings.Replacer) {
	const filter, other = "(objectClass=*)", "(cn=*)"
	page := func(t *testing.T, conn *ldap.Conn, filter string, size uint32, cookie []byte) ([]string, []byte, error) {
		control := ldap.NewControlPaging(size)
		control.SetCookie(cookie)
		found, err := conn.Search(ldap.NewSearchRequest(c.unit(), one, 0, 0, 0, false, filter, []string{"cn"}, []ldap.Control{control}))
		if err != nil {
			return nil, nil, err
		}
		var got []string
		for _, entry := range found.Entries {
			got = append(got, nameOf(entry))
		}
		answered, ok := ldap.FindControl(found.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		switch {
		case ok:
			return got, answered.Cookie, nil
		case size > 0 || !c.Samba: // Samba sends none when a client cancels
			t.Error("answer without a paging control")
		}
		return got, nil, nil
	}
	// first reads the first page on a new connection.
	first := func(t *testing.T) (*ldap.Conn, []byte) {
		t.Helper()
		conn := c.bound(t)
		got, cookie, err := page(t, conn, filter, 2, nil)
		must(t, err)
		if len(got) != 2 || len(cookie) == 0 {
			t.Fatalf("first page %q, cookie %x", got, cookie)
		}
		return conn, cookie
	}
	// refused checks the answer to an invalid cookie. Samba answers with another code.
	refused := func(t *testing.T, err error, samba uint16) {
		t.Helper()
		want := answer{code: 12, text: `^00002040: SvcErr: DSID-[0-9A-F]{8}, problem 5010 \(UNAVAIL_EXTENSION\), data 0`}
		if c.Samba {
			want = answer{code: samba}
		}
		check(t, want, names, func() (*ldap.SearchResult, error) { return nil, err })
	}
	const sambaUnwilling, sambaUnavailable = ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultUnavailableCriticalExtension

	for _, size := range []uint32{1, 2, 4, uint32(len(below)), 1000, 100_000} {
		t.Run("size "+strconv.Itoa(int(size)), func(t *testing.T) {
			conn := c.bound(t)
			var all []string
			var cookie []byte
			for pages := 1; ; pages++ {
				got, next, err := page(t, conn, filter, size, cookie)
				must(t, err)
				all = append(all, got...)
				if len(next) == 0 {
					if maximum := (len(below) + int(size) - 1) / int(size); pages > maximum+1 {
						t.Errorf("%d pages", pages)
					}
					break
				}
				if len(got) > int(size) || pages > len(below) {
					t.Fatalf("page %d has %q", pages, got)
				}
				cookie = next
			}
			slices.Sort(all)
			if want := slices.Sorted(slices.Values(below)); !slices.Equal(all, want) {
				t.Errorf("got %q, want %q", all, want)
			}
		})
	}
	t.Run("size 0 cancels", func(t *testing.T) {
		conn, cookie := first(t)
		got, next, err := page(t, conn, filter, 0, cookie)
		must(t, err)
		if len(got) != 0 || len(next) != 0 {
			t.Errorf("got %q, cookie %x", got, next)
		}
		if _, _, err = page(t, conn, filter, 2, cookie); !c.Samba { // Samba accepts the cookie again
			refused(t, err, 0)
		}
	})
	t.Run("cookie of another connection", func(t *testing.T) {
		_, cookie := first(t)
		_, _, err := page(t, c.bound(t), filter, 2, cookie)
		refused(t, err, sambaUnwilling)
	})
	t.Run("unknown cookie", func(t *testing.T) {
		conn, _ := first(t)
		_, _, err := page(t, conn, filter, 2, []byte("unknown"))
		refused(t, err, sambaUnwilling)
	})
	t.Run("cookie of another search", func(t *testing.T) {
		conn, cookie := first(t)
		_, _, err := page(t, conn, other, 2, cookie)
		refused(t, err, sambaUnavailable)
	})
	t.Run("bind between pages", func(t *testing.T) {
		conn, cookie := first(t)
		must(t, conn.Bind(c.Account, c.Password))
		_, _, err := page(t, conn, filter, 2, cookie)
		refused(t, err, sambaUnwilling)
	})
	t.Run("concurrent searches", func(t *testing.T) {
		conn, cookie := first(t)
		_, second, err := page(t, conn, other, 2, nil)
		must(t, err)
		if _, _, err = page(t, conn, filter, 2, cookie); err != nil {
			t.Error(err)
		}
		if _, _, err = page(t, conn, other, 2, second); err != nil {
			t.Error(err)
		}
	})
}

// rootDSE tests rootDSE before and after a bind.
func rootDSE(t *testing.T, c Controller, conn *ldap.Conn) {
	read := func(conn *ldap.Conn, base string, attributes ...string) *ldap.Entry {
		t.Helper()
		found, err := conn.Search(ldap.NewSearchRequest(base, ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", attributes, nil))
		must(t, err)
		if len(found.Entries) != 1 {
			t.Fatalf("%q: %d entries", base, len(found.Entries))
		}
		return found.Entries[0]
	}
	wanted := []string{"dsServiceName", "highestCommittedUSN", "defaultNamingContext", "dnsHostName", "supportedControl", "supportedLDAPVersion", "supportedCapabilities",
		"rootDomainNamingContext", "configurationNamingContext", "schemaNamingContext", "subschemaSubentry", "namingContexts", "serverName", "ldapServiceName",
		"currentTime", "isSynchronized", "isGlobalCatalogReady", "domainFunctionality", "forestFunctionality", "domainControllerFunctionality"}
	for name, conn := range map[string]*ldap.Conn{"bound": conn, "before a bind": c.dial(t)} {
		root := read(conn, "", wanted...)
		for _, attribute := range wanted {
			if root.GetAttributeValue(attribute) == "" {
				t.Errorf("%s: %s is missing", name, attribute)
			}
		}
		for attribute, want := range map[string]string{
			"defaultNamingContext": c.Base, "rootDomainNamingContext": c.Base, "configurationNamingContext": "CN=Configuration," + c.Base,
			"schemaNamingContext": "CN=Schema,CN=Configuration," + c.Base, "dnsHostName": "dc1.corp.example.com", "isSynchronized": "TRUE",
			"dsServiceName":   "CN=NTDS Settings,CN=DC1,CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration," + c.Base,
			"ldapServiceName": "corp.example.com:dc1$@CORP.EXAMPLE.COM",
		} {
			if got := root.GetAttributeValue(attribute); got != want {
				t.Errorf("%s: %s is %q, want %q", name, attribute, got, want)
			}
		}
		for attribute, value := range map[string]string{
			"supportedControl": ldap.ControlTypePaging, "supportedLDAPVersion": "3", "supportedCapabilities": "1.2.840.113556.1.4.800", // Active Directory
		} {
			if !slices.Contains(root.GetAttributeValues(attribute), value) {
				t.Errorf("%s: no %s in %s", name, value, attribute)
			}
		}
		for _, control := range []string{oidShowDeleted, oidShowRecycled, oidDomainScope} {
			if !slices.Contains(root.GetAttributeValues("supportedControl"), control) {
				t.Errorf("%s: no %s in supportedControl", name, control)
			}
		}
		if one := read(conn, "", "DNSHOSTNAME"); len(one.Attributes) != 1 {
			t.Errorf("%s: requested one attribute, got %v", name, one.Attributes)
		}
	}
	settings := read(conn, read(conn, "", "dsServiceName").GetAttributeValue("dsServiceName"), "invocationId", "objectClass", "options")
	if id := settings.GetRawAttributeValue("invocationId"); len(id) != 16 || !slices.Contains(settings.GetAttributeValues("objectClass"), "nTDSDSA") {
		t.Errorf("NTDS Settings: %v", settings.Attributes)
	}
	// The controllers of the domain.
	found, err := conn.Search(ldap.NewSearchRequest("CN=Sites,CN=Configuration,"+c.Base, ldap.ScopeWholeSubtree, 0, 0, 0, false,
		"(&(objectClass=nTDSDSA)(msDS-HasMasterNCs="+c.Base+")(hasMasterNCs="+c.Base+"))", []string{"invocationId", "msDS-HasMasterNCs"}, []ldap.Control{domainScope}))
	must(t, err)
	if len(found.Entries) != 1 || found.Entries[0].GetAttributeValue("invocationId") != settings.GetAttributeValue("invocationId") {
		t.Fatalf("controllers: %v", found.Entries)
	}
	if contexts := found.Entries[0].GetEqualFoldAttributeValues("msDS-HasMasterNCs"); !slices.Contains(contexts, "CN=Configuration,"+c.Base) {
		t.Errorf("msDS-HasMasterNCs: %q", contexts)
	}
	_, server, _ := strings.Cut(found.Entries[0].DN, ",")
	if host := read(conn, server, "dNSHostName").GetAttributeValue("dNSHostName"); !strings.EqualFold(host, "dc1.corp.example.com") {
		t.Errorf("host of %s: %q", server, host)
	}
}

// changes tests that LDAP clients cannot change the directory, and that changes of an
// administrator assign update sequence numbers.
func changes(t *testing.T, c Controller, conn *ldap.Conn) {
	code := func(operation string, err error, want uint16) {
		t.Helper()
		if !ldap.IsErrorWithCode(err, want) {
			t.Errorf("%s: got %v, want code %d", operation, err, want)
		}
	}
	ann := "CN=Ann," + c.unit()
	for state, try := range map[string]struct {
		conn *ldap.Conn
		code uint16
	}{"bound": {conn, ldap.LDAPResultInsufficientAccessRights}, "before a bind": {c.dial(t), ldap.LDAPResultOperationsError}} {
		code("delete, "+state, try.conn.Del(ldap.NewDelRequest(ann, nil)), try.code)
		modify := ldap.NewModifyRequest(ann, nil)
		modify.Replace("title", []string{"x"})
		code("modify, "+state, try.conn.Modify(modify), try.code)
		code("rename, "+state, try.conn.ModifyDN(ldap.NewModifyDNRequest(ann, "CN=x", true, "")), try.code)
		add := ldap.NewAddRequest("CN=New,"+c.unit(), nil)
		add.Attribute("objectClass", []string{"user"})
		code("add, "+state, try.conn.Add(add), try.code)
	}
	_, err := conn.Extended(ldap.NewExtendedRequest("1.2.3.4", nil))
	code("unknown extended operation", err, ldap.LDAPResultProtocolError)

	highest := func() int64 {
		t.Helper()
		found, err := conn.Search(ldap.NewSearchRequest("", base, 0, 0, 0, false, "(objectClass=*)", []string{"highestCommittedUSN"}, nil))
		must(t, err)
		n, err := strconv.ParseInt(found.Entries[0].GetAttributeValue("highestCommittedUSN"), 10, 64)
		must(t, err)
		return n
	}
	before := highest()
	late := "CN=Late," + c.unit()
	must(t, c.Add(late, map[string][]string{"objectClass": {"user"}, "sAMAccountName": {"tablelate"}, "userAccountControl": {plain}}))
	after := highest()
	find := func(filter string) []string {
		t.Helper()
		found, err := conn.Search(ldap.NewSearchRequest(c.unit(), one, 0, 0, 0, false, filter, []string{"cn"}, nil))
		must(t, err)
		var got []string
		for _, entry := range found.Entries {
			got = append(got, nameOf(entry))
		}
		return got
	}
	if got := find("(uSNChanged>=" + strconv.FormatInt(before+1, 10) + ")"); after <= before || !slices.Equal(got, []string{"Late"}) {
		t.Errorf("from %d to %d: %q", before, after, got)
	}
	must(t, c.Delete(late))
	if got := find("(uSNChanged>=" + strconv.FormatInt(before+1, 10) + ")"); highest() <= after || len(got) != 0 {
		t.Errorf("after the deletion, at %d: %q", highest(), got)
	}
}
