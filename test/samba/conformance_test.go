//go:build ad

package samba

import (
	"crypto/tls"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/test/conformance"
	"adconnector/test/testlog"
)

// TestConformance runs the conformance table of the embedded directory against Samba. This
// proves that the embedded directory behaves like a real domain controller.
func TestConformance(t *testing.T) {
	d := sharedController(t)
	// Other tests verify the server's certificate.
	admin, err := ldap.DialURL(d.url, ldap.DialWithTLSConfig(&tls.Config{InsecureSkipVerify: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.Bind(d.admin.dn, d.admin.password); err != nil {
		t.Fatal(err)
	}
	testlog.AddSecret(conformance.UserPassword)
	c := conformance.Controller{
		URL: "ldap://" + d.host, Base: baseDN, Account: d.service.dn, Password: d.service.password, Samba: true,
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
		if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, "OU=Table,"+baseDN); err != nil {
			t.Error(err)
		}
	})
	t.Run("without read access to Deleted Objects", func(t *testing.T) { conformance.Run(t, c) })
	d.grantReadDeleted(t)
	c.ReadsDeleted = true
	t.Run("with read access to Deleted Objects", func(t *testing.T) { conformance.Run(t, c) })
}
