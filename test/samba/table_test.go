//go:build ad

package samba

import (
	"crypto/tls"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/test/conformance"
)

// TestTable holds Samba against the table that the embedded directory is held
// against, so that what other tests believe of a domain controller is what one does.
func TestTable(t *testing.T) {
	d := domain(t)
	// Who it is, the tests of the connector prove.
	admin, err := ldap.DialURL(tlsURL, ldap.DialWithTLSConfig(&tls.Config{InsecureSkipVerify: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.Bind(d.admin.dn, d.admin.password); err != nil {
		t.Fatal(err)
	}
	keepSecret(conformance.UserPassword)
	c := conformance.Controller{
		URL: "ldap://127.0.0.1", Base: baseDN, Account: d.service.dn, Password: d.service.password, Samba: true,
		Add: func(dn string, attributes map[string][]string) error {
			add := ldap.NewAddRequest(dn, nil)
			for name, values := range attributes {
				add.Attribute(name, values)
			}
			return admin.Add(add)
		},
		Delete: func(dn string) error { return admin.Del(ldap.NewDelRequest(dn, nil)) },
		SetPassword: func(dn, password string) error {
			modify := ldap.NewModifyRequest(dn, nil)
			modify.Replace("unicodePwd", []string{unicodePwd(password)})
			return admin.Modify(modify)
		},
	}
	conformance.Fill(t, c)
	t.Cleanup(func() {
		if _, err := d.change("", "ldapdelete", "-x", "-r", "-H", tlsURL, "-D", d.admin.dn, "-y", d.admin.file, "OU=Table,"+baseDN); err != nil {
			t.Error(err)
		}
	})
	t.Run("without the right to see deletions", func(t *testing.T) { conformance.Run(t, c) })
	d.grant(t, serviceAccount)
	t.Cleanup(func() { d.grant(t, "") })
	c.SeesDeleted = true
	t.Run("with it", func(t *testing.T) { conformance.Run(t, c) })
}
