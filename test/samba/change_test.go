//go:build ad

package samba

import (
	"strconv"
	"testing"

	"adconnector/test/testlog"
)

// sambaTool runs samba-tool on the database. The server may be running.
func (d *controller) sambaTool(args ...string) (string, error) {
	return d.runChange("", "samba-tool", append(args, d.database()...)...)
}

// ldapmodify sends LDIF change records to the server as administrator.
func (d *controller) ldapmodify(t *testing.T, changes string) {
	t.Helper()
	if _, err := d.runChange(changes, "ldapmodify", "-x", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file); err != nil {
		t.Fatal(err)
	}
}

// addUser adds an enabled user and returns its DN. pairs are attribute names and values.
func (d *controller) addUser(t *testing.T, name, parent, account string, pairs ...string) string {
	t.Helper()
	dn := "CN=" + name + "," + parent
	var l ldif
	l.line("dn", dn)
	l.line("changetype", "add")
	for i := 0; i < len(pairs); i += 2 {
		l.line(pairs[i], pairs[i+1])
	}
	l.line("objectClass", "user")
	l.line("sAMAccountName", account)
	l.line("userAccountControl", strconv.Itoa(uacPlain))
	l.WriteByte('\n')
	d.ldapmodify(t, l.String())
	return dn
}

// setAttribute replaces an attribute of an object, or removes it if there are no values.
func (d *controller) setAttribute(t *testing.T, dn, attribute string, values ...string) {
	t.Helper()
	var l ldif
	l.replace(dn, attribute, values...)
	d.ldapmodify(t, l.String())
}

// setPassword sets a user's password, which must satisfy the domain's password policy.
func (d *controller) setPassword(t *testing.T, dn, password string) {
	t.Helper()
	testlog.AddSecret(password)
	d.setAttribute(t, dn, "unicodePwd", unicodePwd(password))
}

// move changes the RDN, the parent or both of an object, and returns its new DN.
func (d *controller) move(t *testing.T, dn, rdn, parent string) string {
	t.Helper()
	var l ldif
	l.line("dn", dn)
	l.line("changetype", "modrdn")
	l.line("newrdn", rdn)
	l.line("deleteoldrdn", "1")
	l.line("newsuperior", parent)
	l.WriteByte('\n')
	d.ldapmodify(t, l.String())
	return rdn + "," + parent
}

// delete deletes an object. The directory keeps a tombstone.
func (d *controller) delete(t *testing.T, dn string) {
	t.Helper()
	var l ldif
	l.line("dn", dn)
	l.line("changetype", "delete")
	l.WriteByte('\n')
	d.ldapmodify(t, l.String())
}

// exists reports whether the service account can read an object.
func (d *controller) exists(t *testing.T, account string) bool {
	t.Helper()
	return len(d.ldapsearch(t, "", "", "(sAMAccountName="+account+")", "name")) > 0
}

// value returns an attribute of an account, read as administrator.
func (d *controller) value(t *testing.T, account, attribute string) string {
	t.Helper()
	out, err := runTool("", "ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file,
		"-b", baseDN, "(sAMAccountName="+account+")", attribute)
	if err != nil {
		t.Fatal(err)
	}
	records, err := parseLDIF(out)
	if err != nil || len(records) != 1 {
		t.Fatalf("%s: %d records, %v", account, len(records), err)
	}
	return records[0].values.First(attribute)
}
