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

// deltaOU is what the connector reads in these tests; the rest of the domain is
// outside of it.
const (
	deltaOU  = "OU=Delta," + baseDN
	deepOU   = "OU=Deep," + deltaOU
	besideDN = "OU=Beside Delta," + baseDN
)

// deletedDN is the container of tombstones.
const deletedDN = "CN=Deleted Objects," + baseDN

// grant lets an account see tombstones, as dsacls /g ACCOUNT:LCRP does. Without an
// account it takes that back.
func (d *controller) grant(t *testing.T, account string) {
	t.Helper()
	const own = "O:SYG:SYD:PAI(A;;RPWPCCDCLCRCWOWDSDSW;;;SY)(A;;LCRP;;;BA)"
	more := ""
	if account != "" {
		records := d.search(t, "", "", "(sAMAccountName="+account+")", "objectSid")
		raw := records[0].values.First("objectSid")
		more = "(A;;LCRP;;;" + oracle.SID(raw) + ")"
	}
	var l ldif
	l.replace(deletedDN, "nTSecurityDescriptor", own+more)
	if err := d.ldb("ldbmodify", l.String(), "--show-deleted"); err != nil {
		t.Fatal(err)
	}
}

// TestCanReadDeleted checks an account with the right to read tombstones and one without.
func TestCanReadDeleted(t *testing.T) {
	d := domain(t)
	d.remove(t, d.addUser(t, "Long Gone", besideOU, "longgone"))
	sees := func(c credentials, want bool) {
		t.Helper()
		session, err := directory.Connect(t.Context(), directory.Options{
			Protocol: directory.LDAP, Hosts: []string{"127.0.0.1"}, BindDN: c.dn, Password: secret.New(c.password),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if got, err := session.CanReadDeleted(t.Context()); err != nil || got != want {
			t.Errorf("%s: %t, error %v; want %t", c.dn, got, err, want)
		}
	}
	sees(d.service, false)
	sees(d.admin, true)
	d.grant(t, serviceAccount)
	t.Cleanup(func() { d.grant(t, "") })
	sees(d.service, true)
	d.grant(t, "")
	sees(d.service, false)
}

// undelete brings a tombstone back to where it was.
func (d *controller) undelete(t *testing.T, guid, name, dn string) {
	t.Helper()
	var l ldif
	l.line("dn", "CN="+name+`\0ADEL:`+guid+","+deletedDN)
	l.line("changetype", "modify")
	l.WriteString("delete: isDeleted\n-\n")
	l.line("replace", "distinguishedName")
	l.line("distinguishedName", dn)
	l.WriteString("-\n\n")
	if _, err := d.change(l.String(), "ldapmodify", "-x", "-H", tlsURL, "-D", d.admin.dn, "-y", d.admin.file,
		"-e", "!1.2.840.113556.1.4.417"); err != nil {
		t.Fatal(err)
	}
}

// deltas is a connector that reads one unit, run by run.
type deltas struct {
	d    *controller
	g    *testenv.Gateway
	env  testenv.Settings
	base string
}

func newDeltas(t *testing.T, d *controller, base string) *deltas {
	t.Helper()
	connection, profile := d.console("LDAP", base, "SUBTREE")
	g := newGateway(t, connection, profile)
	return &deltas{d, g, newSettings(t, g).With(testenv.Settings{"sync.max-deletes-percent": "100"}), base}
}

// furnish makes deltaOU, with some users.
func (d *controller) furnish(t *testing.T, users int) {
	t.Helper()
	var l ldif
	for _, dn := range []string{deltaOU, deepOU, besideDN} {
		l.line("dn", dn)
		l.line("changetype", "add")
		l.line("objectClass", "organizationalUnit")
		l.WriteByte('\n')
	}
	d.modify(t, l.String())
	t.Cleanup(func() {
		for _, dn := range []string{deltaOU, besideDN} {
			if _, err := d.change("", "ldapdelete", "-x", "-r", "-H", tlsURL, "-D", d.admin.dn, "-y", d.admin.file, dn); err != nil {
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

// want is what a run is to come to.
type want struct {
	mode              string
	uploaded, deleted int
}

// sync does a run, and compares what is at the gateway with the directory, field
// by field, and what was sent with what is wanted. What has gone is there as
// deleted, or as it was until the deletions are settled.
func (x *deltas) sync(t *testing.T, what string, w want, args ...string) {
	t.Helper()
	_, before := uploads(x.g)
	was, known := x.d.lastRead(search{base: x.base})
	o := run(t, x.env, append([]string{"sync"}, args...)...)
	o.MustExit(t, 0)
	is := x.d.read(t, search{base: x.base})
	if !known {
		was = is
	}
	found := append(
		differences(t, "user", present(x.g.Users(), is.users), was.users, is.users),
		differences(t, "group", present(x.g.Groups(), is.groups), was.groups, is.groups)...)
	for _, difference := range found {
		t.Errorf("%s: %s", what, difference)
	}
	summary := summary(t, o)
	if summary["mode"] != w.mode {
		t.Errorf("%s: mode is %v, want %s", what, summary["mode"], w.mode)
	}
	mustCount(t, summary, "uploaded", w.uploaded)
	mustCount(t, summary, "deleted", w.deleted)
	if _, after := uploads(x.g); after-before != w.uploaded+w.deleted {
		t.Errorf("%s: %d assets were sent, want %d", what, after-before, w.uploaded+w.deleted)
	}
	if t.Failed() {
		t.Fatalf("%s; standard error:\n%s", what, o.Stderr)
	}
}

// present leaves out of what a gateway holds the identities that the directory
// does not show: what has gone, or is somewhere else.
func present(held []gatewayserver.Identity, shown map[string]oracle.Flat) []gatewayserver.Identity {
	return slices.DeleteFunc(held, func(i gatewayserver.Identity) bool { return shown[i.ExternalAssetID] == nil })
}

// mustBeDeleted wants the gateway to show a user as deleted, or not.
func (x *deltas) mustBeDeleted(t *testing.T, name string, deleted bool) {
	t.Helper()
	for _, user := range x.g.Users() {
		if strings.Contains(string(user.Asset), strconv.Quote(name)) {
			if got := strings.Contains(string(user.Asset), `"status":"DELETED"`); got != deleted {
				t.Errorf("%s: deleted %t, want %t", name, got, deleted)
			}
			return
		}
	}
	t.Errorf("%s is not at the gateway", name)
}

func TestDelta(t *testing.T) {
	d := domain(t)
	for _, sees := range []bool{false, true} {
		t.Run(fmt.Sprintf("deletions seen %t", sees), func(t *testing.T) {
			if sees {
				d.grant(t, serviceAccount)
				t.Cleanup(func() { d.grant(t, "") })
			}
			d.furnish(t, 12)
			x := newDeltas(t, d, deltaOU)
			x.sync(t, "first", want{mode: "full", uploaded: 12})
			x.sync(t, "nothing", want{mode: "delta"})

			d.addUser(t, "New", deltaOU, "deltanew", "mail", "new@corp.example.com")
			x.sync(t, "created", want{mode: "delta", uploaded: 1})

			if !sees { // which makes no difference to these
				t.Run("attributes", func(t *testing.T) { x.attributes(t) })
				t.Run("statuses", func(t *testing.T) { x.statuses(t) })
			}
			t.Run("names and places", func(t *testing.T) { x.places(t) })
			t.Run("groups", func(t *testing.T) { x.groups(t) })
			t.Run("deletions", func(t *testing.T) { x.deletions(t, sees) })
		})
	}
}

// attributes changes and clears each mapped attribute that can be written.
func (x *deltas) attributes(t *testing.T) {
	values := [][2]string{ // c before co, which hides it
		{"mail", "x@corp.example.com"}, {"givenName", "Given"}, {"sn", "Sür"}, {"displayName", "Display 👩‍🚀"}, {"mobile", "+1 555 0100"},
		{"title", "Chief"}, {"l", "Köln"}, {"c", "DE"}, {"co", "Deutschland"}, {"streetAddress", "a\r\nb"}, {"st", "NW"},
	}
	var set, clear ldif
	for _, v := range values {
		set.replace(deltaDN(0), v[0], v[1])
		clear.replace(deltaDN(0), v[0])
	}
	x.d.modify(t, set.String())
	x.sync(t, "all at once", want{mode: "delta", uploaded: 1})
	x.d.modify(t, clear.String())
	x.sync(t, "all cleared", want{mode: "delta", uploaded: 1})
	for _, v := range values {
		x.d.set(t, deltaDN(1), v[0], v[1])
		x.sync(t, v[0], want{mode: "delta", uploaded: 1})
	}
	x.d.set(t, deltaDN(1), "telephoneNumber", "+1 555 0199")
	x.sync(t, "one that is not sent", want{mode: "delta"})
}

func (x *deltas) places(t *testing.T) {
	renamed := x.d.move(t, deltaDN(2), `CN=Renamed\, Twice`, deltaOU)
	x.sync(t, "renamed", want{mode: "delta", uploaded: 1})
	x.d.move(t, renamed, `CN=Renamed\, Twice`, deepOU)
	x.sync(t, "moved inside", want{mode: "delta"})
	outside := x.d.move(t, deltaDN(3), "CN=Moved Out", besideDN)
	x.sync(t, "moved outside", want{mode: "delta"})
	x.mustBeDeleted(t, deltaName(3), false)
	x.sync(t, "moved outside, settled", want{mode: "full", deleted: 1}, "--full")
	x.mustBeDeleted(t, deltaName(3), true)
	x.d.move(t, outside, "CN=Moved In", deltaOU)
	x.sync(t, "moved inside again", want{mode: "delta", uploaded: 1})
	x.mustBeDeleted(t, "Moved In", false)
}

func (x *deltas) statuses(t *testing.T) {
	x.d.set(t, deltaDN(4), "userAccountControl", strconv.Itoa(uacPlainDisabled))
	x.sync(t, "disabled", want{mode: "delta", uploaded: 1})
	x.d.set(t, deltaDN(4), "userAccountControl", strconv.Itoa(uacPlain))
	x.sync(t, "enabled", want{mode: "delta", uploaded: 1})
	x.d.setPassword(t, deltaDN(4), "An0ther-"+strconv.Itoa(time.Now().Nanosecond()))
	x.sync(t, "password changed", want{mode: "delta", uploaded: 1})
	var expires time.Time
	for wait := 2 * time.Second; ; wait *= 2 { // until the run is faster than the clock
		expires = time.Now().Add(wait)
		x.d.set(t, deltaDN(5), "accountExpires", fileTime(expires))
		x.sync(t, "about to expire", want{mode: "delta", uploaded: 1})
		if time.Now().Before(expires) {
			break
		}
	}
	x.d.set(t, deltaDN(6), "accountExpires", fileTime(time.Now().Add(-time.Hour)))
	x.sync(t, "expired", want{mode: "delta", uploaded: 1})
	<-time.After(time.Until(expires.Add(time.Second)))
	x.sync(t, "expired by the clock", want{mode: "delta", uploaded: 1})
}

func (x *deltas) groups(t *testing.T) {
	dn := "CN=Delta Group," + deltaOU
	var l ldif
	l.line("dn", dn)
	l.line("changetype", "add")
	l.line("objectClass", "group")
	l.line("sAMAccountName", "deltagroup")
	l.line("groupType", strconv.Itoa(groupSecurity|groupGlobal))
	l.WriteByte('\n')
	x.d.modify(t, l.String())
	x.sync(t, "group created", want{mode: "delta", uploaded: 1})
	x.d.set(t, dn, "description", "Gruppe")
	x.sync(t, "group described", want{mode: "delta", uploaded: 1})
	x.d.set(t, dn, "groupType", strconv.Itoa(groupSecurity|groupUniversal))
	x.sync(t, "group of the same visibility", want{mode: "delta"})
	x.d.set(t, dn, "groupType", strconv.Itoa(groupSecurity|groupDomainLocal))
	x.sync(t, "group made local", want{mode: "delta", uploaded: 1})
	x.d.set(t, dn, "displayName", "Display")
	x.sync(t, "group with a display name", want{mode: "delta", uploaded: 1})
	x.d.set(t, dn, "member", deltaDN(7))
	x.sync(t, "member added", want{mode: "delta"})
	x.d.move(t, dn, "CN=Renamed Group", deltaOU)
	x.sync(t, "group renamed", want{mode: "delta", uploaded: 1})
}

// deletions shows when a deletion is seen: at once where the account may see
// tombstones, else at the full pass.
func (x *deltas) deletions(t *testing.T, sees bool) {
	raw := x.d.search(t, deltaDN(8), "base", "(objectClass=*)", "objectGUID")[0].values.First("objectGUID")
	x.d.remove(t, deltaDN(8))
	x.d.remove(t, "CN=Renamed Group,"+deltaOU)
	if sees {
		x.sync(t, "deleted", want{mode: "delta", deleted: 2})
		x.sync(t, "deleted, said once", want{mode: "delta"})
	} else {
		x.sync(t, "deleted", want{mode: "delta"})
		x.mustBeDeleted(t, deltaName(8), false)
		x.sync(t, "deleted", want{mode: "full", deleted: 2}, "--full")
	}
	x.mustBeDeleted(t, deltaName(8), true)
	x.d.undelete(t, oracle.GUID(raw), deltaName(8), deltaDN(8))
	x.sync(t, "undeleted", want{mode: "delta", uploaded: 1})
	x.mustBeDeleted(t, deltaName(8), false)
}

// TestDeltaPages has more changes than a page holds.
func TestDeltaPages(t *testing.T) {
	const users = 1050
	d := domain(t)
	x := newDeltas(t, d, bulkOU)
	x.sync(t, "first", want{mode: "full", uploaded: bulkUsers + bulkGroups})
	var l ldif
	for n := range users {
		l.replace(fmt.Sprintf("CN=Bulk %05d,%s", 3*n, bulkOU), "title", "Changed")
	}
	d.modify(t, l.String())
	x.sync(t, "changed", want{mode: "delta", uploaded: users})
	x.sync(t, "nothing", want{mode: "delta"})
}
