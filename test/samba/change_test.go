//go:build ad

package samba

import (
	"strconv"
	"testing"
)

// Changes to the directory while the server runs, made as its administrator.

// tool runs samba-tool on the database; it may run beside the server.
func (d *controller) tool(args ...string) (string, error) {
	return d.change("", "samba-tool", append(args, d.database()...)...)
}

// modify sends changes to the server with ldapmodify. They may be of any kind that
// LDIF has.
func (d *controller) modify(t *testing.T, changes string) {
	t.Helper()
	if _, err := d.change(changes, "ldapmodify", "-x", "-H", tlsURL, "-D", d.admin.dn, "-y", d.admin.file); err != nil {
		t.Fatal(err)
	}
}

// addUser makes an enabled user and returns its DN.
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
	d.modify(t, l.String())
	return dn
}

// set replaces one attribute of an object, or clears it when there is no value.
func (d *controller) set(t *testing.T, dn, attribute string, values ...string) {
	t.Helper()
	var l ldif
	l.replace(dn, attribute, values...)
	d.modify(t, l.String())
}

// setPassword gives a user a password that satisfies the domain's rules.
func (d *controller) setPassword(t *testing.T, dn, password string) {
	t.Helper()
	keepSecret(password)
	d.set(t, dn, "unicodePwd", unicodePwd(password))
}

// move gives an object another name, another parent, or both, and returns its new
// DN.
func (d *controller) move(t *testing.T, dn, rdn, parent string) string {
	t.Helper()
	var l ldif
	l.line("dn", dn)
	l.line("changetype", "modrdn")
	l.line("newrdn", rdn)
	l.line("deleteoldrdn", "1")
	l.line("newsuperior", parent)
	l.WriteByte('\n')
	d.modify(t, l.String())
	return rdn + "," + parent
}

// remove deletes an object; the directory keeps a tombstone.
func (d *controller) remove(t *testing.T, dn string) {
	t.Helper()
	var l ldif
	l.line("dn", dn)
	l.line("changetype", "delete")
	l.WriteByte('\n')
	d.modify(t, l.String())
}

// exists reports whether the directory shows an object to the service account.
func (d *controller) exists(t *testing.T, account string) bool {
	t.Helper()
	return len(d.search(t, "", "", "(sAMAccountName="+account+")", "name")) > 0
}

// value returns one attribute of an account, as the administrator sees it.
func (d *controller) value(t *testing.T, account, attribute string) string {
	t.Helper()
	out, err := command("", "ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", tlsURL, "-D", d.admin.dn, "-y", d.admin.file,
		"-b", baseDN, "(sAMAccountName="+account+")", attribute)
	if err != nil {
		t.Fatal(err)
	}
	records, err := parseLDIF(out)
	if err != nil || len(records) != 1 {
		t.Fatalf("%s: %d records, %v", account, len(records), err)
	}
	v := records[0].values.First(attribute)
	return v
}
