//go:build ad

package samba

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
	"adconnector/test/oracle"
	"adconnector/test/testenv"
)

// The connector reads deltaOU in these tests.
const (
	deltaOU   = "OU=Delta," + baseDN
	deepOU    = "OU=Deep," + deltaOU
	outsideOU = "OU=Outside Delta," + baseDN
)

// deletedDN is the container of tombstones.
const deletedDN = "CN=Deleted Objects," + baseDN

// The entries of the container's descriptor that give the service account read access.
const (
	noReadDeleted        = ""
	readDeleted          = "(A;CI;LCRP;;;ACCOUNT)" // dsacls /I:T /g ACCOUNT:LCRP
	readDeletedContainer = "(A;;LCRP;;;ACCOUNT)"   // dsacls /g ACCOUNT:LCRP
)

// grantReadDeleted lets the service account read tombstones until the test ends.
func (d *controller) grantReadDeleted(t *testing.T) {
	t.Helper()
	d.setReadDeleted(t, readDeleted)
	t.Cleanup(func() { d.setReadDeleted(t, noReadDeleted) })
}

// setReadDeleted sets the descriptor of the Deleted Objects container, as dsacls does.
func (d *controller) setReadDeleted(t *testing.T, entry string) {
	t.Helper()
	descriptor := "O:SYG:SYD:PAI(A;;RPWPCCDCLCRCWOWDSDSW;;;SY)(A;;LCRP;;;BA)" + strings.ReplaceAll(entry, "ACCOUNT", d.sid(t, serviceDN))
	var l ldif
	l.replace(deletedDN, "nTSecurityDescriptor", descriptor)
	if err := d.ldb("ldbmodify", l.String(), "--show-deleted"); err != nil {
		t.Fatal(err)
	}
}

// TestCanReadDeleted checks CanReadDeleted with and without read access to tombstones.
func TestCanReadDeleted(t *testing.T) {
	d := sharedController(t)
	d.delete(t, d.addUser(t, "Deleted User", otherOU, "deleteduser"))
	mustSee := func(c credentials, want bool) {
		t.Helper()
		session, err := directory.Connect(t.Context(), directory.Options{
			Protocol: directory.LDAP, Hosts: []string{d.host}, BindDN: c.dn, Password: secret.New(c.password),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if got, err := session.CanReadDeleted(t.Context()); err != nil || got != want {
			t.Errorf("%s: %t, error %v; want %t", c.dn, got, err, want)
		}
	}
	mustSee(d.service, false)
	mustSee(d.admin, true)
	d.grantReadDeleted(t)
	mustSee(d.service, true)
	d.setReadDeleted(t, noReadDeleted)
	mustSee(d.service, false)
}

// controlShowDeleted makes tombstones visible (MS-ADTS 3.1.1.3.4.1.14).
const controlShowDeleted = "1.2.840.113556.1.4.417"

// undelete restores a deleted object with its DN (MS-ADTS 3.1.1.5.3.7).
func (d *controller) undelete(t *testing.T, guid, name, dn string) {
	t.Helper()
	var l ldif
	l.line("dn", "CN="+name+`\0ADEL:`+guid+","+deletedDN)
	l.line("changetype", "modify")
	l.WriteString("delete: isDeleted\n-\n")
	l.line("replace", "distinguishedName")
	l.line("distinguishedName", dn)
	l.WriteString("-\n\n")
	if _, err := d.runChange(l.String(), "ldapmodify", "-x", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file,
		"-e", "!"+controlShowDeleted); err != nil {
		t.Fatal(err)
	}
}

// deltaConnector is a connector that reads one organizational unit, with a gateway and a state
// directory of its own.
type deltaConnector struct {
	d        *controller
	g        *testenv.Gateway
	settings testenv.Settings
	base     string
	prefix   []string // command line prefix of the connector
}

func newDeltaConnector(t *testing.T, d *controller, base string) *deltaConnector {
	t.Helper()
	connection, profile := d.console("LDAP", base, "SUBTREE")
	g := newGateway(t, connection, profile)
	return &deltaConnector{d: d, g: g, settings: newSettings(t, g).With(testenv.Settings{"sync.max-deletes-percent": "100"}), base: base}
}

// addDeltaOU adds deltaOU with some users, and outsideOU, until the test ends.
func (d *controller) addDeltaOU(t *testing.T, users int) {
	t.Helper()
	var l ldif
	for _, dn := range []string{deltaOU, deepOU, outsideOU} {
		l.line("dn", dn)
		l.line("changetype", "add")
		l.line("objectClass", "organizationalUnit")
		l.WriteByte('\n')
	}
	d.ldapmodify(t, l.String())
	t.Cleanup(func() {
		for _, dn := range []string{deltaOU, outsideOU} {
			if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, dn); err != nil {
				t.Error(err)
			}
		}
	})
	for n := range users {
		d.addUser(t, deltaName(n), deltaOU, "delta"+strconv.Itoa(n), "title", "Engineer", "l", "Pune")
	}
}

func deltaName(n int) string { return "Delta " + strconv.Itoa(n) }

func deltaDN(n int) string { return "CN=" + deltaName(n) + "," + deltaOU }

// syncCounts are the expected results of a run. A run with undecided deletions exits with 5.
type syncCounts struct {
	mode                         string
	uploaded, deleted, undecided int
}

// sync runs one sync. It compares the gateway with the directory, field by field, and the
// numbers of objects with want. It ignores assets of deleted objects. step names the run in
// failure messages.
func (c *deltaConnector) sync(t *testing.T, step string, want syncCounts, args ...string) {
	t.Helper()
	_, sentBefore := uploads(c.g)
	before, cached := c.d.cached(searchScope{base: c.base})
	o := runWith(t, c.prefix, c.settings, append([]string{"sync"}, args...)...)
	if want.undecided > 0 {
		o.MustExit(t, 5)
	} else {
		o.MustExit(t, 0)
	}
	after := c.d.snapshot(t, searchScope{base: c.base})
	if !cached {
		before = after
	}
	ignored := c.ignored(want.mode)
	found := append(
		differences(t, "user", inDirectory(c.g.Users(), after.users), before.users, after.users, ignored...),
		differences(t, "group", inDirectory(c.g.Groups(), after.groups), before.groups, after.groups)...)
	for _, difference := range found {
		t.Errorf("%s: %s", step, difference)
	}
	summary := summary(t, o)
	if summary["mode"] != want.mode {
		t.Errorf("%s: mode is %v, want %s", step, summary["mode"], want.mode)
	}
	mustCount(t, summary, "uploaded", want.uploaded)
	mustCount(t, summary, "deleted", want.deleted)
	mustCount(t, summary, "undecided", want.undecided)
	if _, sent := uploads(c.g); sent-sentBefore != want.uploaded+want.deleted {
		t.Errorf("%s: %d assets sent, want %d", step, sent-sentBefore, want.uploaded+want.deleted)
	}
	if t.Failed() {
		t.Fatalf("%s; stderr:\n%s", step, o.Stderr)
	}
}

// inDirectory returns the assets whose objects are in the snapshot.
func inDirectory(assets []gatewayserver.Identity, snapshot map[string]oracle.FlatAsset) []gatewayserver.Identity {
	return slices.DeleteFunc(assets, func(i gatewayserver.Identity) bool { return snapshot[i.ExternalAssetID] == nil })
}

// mustBeDeleted fails the test unless the user has the status DELETED, or another status if
// deleted is false.
func (c *deltaConnector) mustBeDeleted(t *testing.T, name string, deleted bool) {
	t.Helper()
	for _, user := range c.g.Users() {
		if strings.Contains(string(user.Asset), strconv.Quote(name)) {
			if got := strings.Contains(string(user.Asset), `"status":"DELETED"`); got != deleted {
				t.Errorf("%s: deleted is %t, want %t", name, got, deleted)
			}
			return
		}
	}
	t.Errorf("%s is not at the gateway", name)
}

func TestDelta(t *testing.T) {
	d := sharedController(t)
	for _, readsDeleted := range []bool{false, true} {
		t.Run(fmt.Sprintf("read access to Deleted Objects %t", readsDeleted), func(t *testing.T) {
			if readsDeleted {
				d.grantReadDeleted(t)
			}
			d.addDeltaOU(t, 12)
			c := newDeltaConnector(t, d, deltaOU)
			c.sync(t, "first", syncCounts{mode: "full", uploaded: 12})
			c.sync(t, "no changes", syncCounts{mode: "delta"})

			d.addUser(t, "New", deltaOU, "deltanew", "mail", "new@corp.example.com")
			c.sync(t, "created", syncCounts{mode: "delta", uploaded: 1})

			if !readsDeleted { // has no effect on these
				t.Run("attributes", func(t *testing.T) { c.testAttributes(t) })
				t.Run("statuses", func(t *testing.T) { c.testStatuses(t) })
			}
			t.Run("names and parents", func(t *testing.T) { c.testParents(t) })
			t.Run("groups", func(t *testing.T) { c.testGroups(t) })
			t.Run("deletions", func(t *testing.T) { c.testDeletions(t, readsDeleted) })
		})
	}
}

// testAttributes changes and removes each mapped attribute that can be written.
func (c *deltaConnector) testAttributes(t *testing.T) {
	values := [][2]string{ // c before co, because co replaces c in the asset
		{"mail", "x@corp.example.com"}, {"givenName", "Given"}, {"sn", "Sür"}, {"displayName", "Display 👩‍🚀"}, {"mobile", "+1 555 0100"},
		{"title", "Chief"}, {"l", "Köln"}, {"c", "DE"}, {"co", "Deutschland"}, {"streetAddress", "a\r\nb"}, {"st", "NW"},
	}
	var set, remove ldif
	for _, v := range values {
		set.replace(deltaDN(0), v[0], v[1])
		remove.replace(deltaDN(0), v[0])
	}
	c.d.ldapmodify(t, set.String())
	c.sync(t, "all attributes changed", syncCounts{mode: "delta", uploaded: 1})
	c.d.ldapmodify(t, remove.String())
	c.sync(t, "all attributes removed", syncCounts{mode: "delta", uploaded: 1})
	for _, v := range values {
		c.d.setAttribute(t, deltaDN(1), v[0], v[1])
		c.sync(t, v[0], syncCounts{mode: "delta", uploaded: 1})
	}
	c.d.setAttribute(t, deltaDN(1), "telephoneNumber", "+1 555 0199")
	c.sync(t, "attribute that is not mapped", syncCounts{mode: "delta"})
}

func (c *deltaConnector) testParents(t *testing.T) {
	renamed := c.d.move(t, deltaDN(2), `CN=Renamed\, Twice`, deltaOU)
	c.sync(t, "renamed", syncCounts{mode: "delta", uploaded: 1})
	c.d.move(t, renamed, `CN=Renamed\, Twice`, deepOU)
	c.sync(t, "moved within the scope", syncCounts{mode: "delta"})
	outside := c.d.move(t, deltaDN(3), "CN=Moved Out", outsideOU)
	c.sync(t, "moved out of the scope", syncCounts{mode: "delta"})
	c.mustBeDeleted(t, deltaName(3), false)
	c.sync(t, "moved out of the scope, full sync", syncCounts{mode: "full", deleted: 1}, "--full")
	c.mustBeDeleted(t, deltaName(3), true)
	c.d.move(t, outside, "CN=Moved In", deltaOU)
	c.sync(t, "moved into the scope", syncCounts{mode: "delta", uploaded: 1})
	for range 2 { // another connection may report the object as deleted in the meantime
		c.sync(t, "moved into the scope, full sync", syncCounts{mode: "full", uploaded: 1}, "--full")
	}
	c.mustBeDeleted(t, "Moved In", false)
}

func (c *deltaConnector) testStatuses(t *testing.T) {
	c.d.setAttribute(t, deltaDN(4), "userAccountControl", strconv.Itoa(uacPlainDisabled))
	c.sync(t, "disabled", syncCounts{mode: "delta", uploaded: 1})
	c.d.setAttribute(t, deltaDN(4), "userAccountControl", strconv.Itoa(uacPlain))
	c.sync(t, "enabled", syncCounts{mode: "delta", uploaded: 1})
	c.d.setPassword(t, deltaDN(4), "An0ther-"+strconv.Itoa(time.Now().Nanosecond()))
	c.sync(t, "password changed", syncCounts{mode: "delta", uploaded: 1})
	c.d.setAttribute(t, deltaDN(6), "accountExpires", fileTime(time.Now().Add(-time.Hour)))
	c.sync(t, "expired", syncCounts{mode: "delta", uploaded: 1})
	var expires time.Time
	for wait := 2 * time.Second; ; wait *= 2 { // until the run ends before the account expires
		expires = time.Now().Add(wait)
		c.d.setAttribute(t, deltaDN(5), "accountExpires", fileTime(expires))
		c.sync(t, "about to expire", syncCounts{mode: "delta", uploaded: 1})
		if time.Now().Before(expires) {
			break
		}
	}
	<-time.After(time.Until(expires.Add(time.Second)))
	c.sync(t, "expired since the last run", syncCounts{mode: "delta", uploaded: 1})
}

func (c *deltaConnector) testGroups(t *testing.T) {
	dn := "CN=Delta Group," + deltaOU
	var l ldif
	l.line("dn", dn)
	l.line("changetype", "add")
	l.line("objectClass", "group")
	l.line("sAMAccountName", "deltagroup")
	l.line("groupType", strconv.Itoa(groupSecurity|groupGlobal))
	l.WriteByte('\n')
	c.d.ldapmodify(t, l.String())
	c.sync(t, "group created", syncCounts{mode: "delta", uploaded: 1})
	c.d.setAttribute(t, dn, "description", "Gruppe")
	c.sync(t, "group description changed", syncCounts{mode: "delta", uploaded: 1})
	c.d.setAttribute(t, dn, "groupType", strconv.Itoa(groupSecurity|groupUniversal))
	c.sync(t, "group type with the same visibility", syncCounts{mode: "delta"})
	c.d.setAttribute(t, dn, "groupType", strconv.Itoa(groupSecurity|groupDomainLocal))
	c.sync(t, "group type with another visibility", syncCounts{mode: "delta", uploaded: 1})
	c.d.setAttribute(t, dn, "displayName", "Display")
	c.sync(t, "group display name set", syncCounts{mode: "delta", uploaded: 1})
	c.d.setAttribute(t, dn, "member", deltaDN(7))
	c.sync(t, "member added", syncCounts{mode: "delta"})
	c.d.move(t, dn, "CN=Renamed Group", deltaOU)
	c.sync(t, "group renamed", syncCounts{mode: "delta", uploaded: 1})
}

// testDeletions deletes objects. The next delta sync finds the deletions with read access to
// tombstones, else the next full sync.
func (c *deltaConnector) testDeletions(t *testing.T, readsDeleted bool) {
	raw := c.d.ldapsearch(t, deltaDN(8), "base", "(objectClass=*)", "objectGUID")[0].values.First("objectGUID")
	c.d.delete(t, deltaDN(8))
	c.d.delete(t, "CN=Renamed Group,"+deltaOU)
	if readsDeleted {
		c.sync(t, "deleted", syncCounts{mode: "delta", deleted: 2})
		c.sync(t, "no changes after the deletions", syncCounts{mode: "delta"})
	} else {
		c.sync(t, "deleted", syncCounts{mode: "delta"})
		c.mustBeDeleted(t, deltaName(8), false)
		c.sync(t, "deleted", syncCounts{mode: "full", deleted: 2}, "--full")
	}
	c.mustBeDeleted(t, deltaName(8), true)
	c.d.undelete(t, oracle.GUID(raw), deltaName(8), deltaDN(8))
	c.sync(t, "undeleted", syncCounts{mode: "delta", uploaded: 1})
	c.mustBeDeleted(t, deltaName(8), false)
}

// TestDeltaPages makes more changes than fit in a page.
func TestDeltaPages(t *testing.T) {
	const users = 1050
	d := sharedController(t)
	c := newDeltaConnector(t, d, bulkOU)
	c.sync(t, "first", syncCounts{mode: "full", uploaded: bulkUsers + bulkGroups})
	var l ldif
	for n := range users {
		l.replace(fmt.Sprintf("CN=Bulk %05d,%s", 3*n, bulkOU), "title", "Changed")
	}
	d.ldapmodify(t, l.String())
	c.sync(t, "changed", syncCounts{mode: "delta", uploaded: users})
	c.sync(t, "no changes", syncCounts{mode: "delta"})
}
