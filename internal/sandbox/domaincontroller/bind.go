package domaincontroller

import (
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// bindError is the Windows error code of a refused bind, in hexadecimal.
type bindError string

const (
	bindAccepted           bindError = ""
	bindInvalidCredentials bindError = "52e" // unknown account, or wrong password
	bindPasswordExpired    bindError = "532"
	bindDisabled           bindError = "533"
	bindAccountExpired     bindError = "701"
	bindPasswordMustChange bindError = "773"
	bindLocked             bindError = "775"
)

func (c *connection) bind(r request) result {
	c.account, c.cursors = nil, nil // even if the bind fails (RFC 4511 4.2.1)
	if len(r.operation.children) < 3 {
		return errorResult(ldap.LDAPResultProtocolError, "000020D6: LdapErr: DSID-0C090A80, comment: Error decoding ldap message, data 0, v4f7c")
	}
	if r.part(2).tag != tagPrimitive {
		return errorResult(ldap.LDAPResultAuthMethodNotSupported, "00002027: LdapErr: DSID-0C0905E2, comment: Invalid Authentication method, data 0, v4f7c")
	}
	name, password := r.part(1).text(), r.part(2).text()
	if password == "" {
		return result{} // anonymous, with any name (RFC 4513 5.1.2)
	}
	account, code := c.server.authenticate(name, password)
	c.server.updateCounters(func(n *Counters) {
		if code == bindAccepted {
			n.Binds++
		} else {
			n.FailedBinds++
		}
	})
	if code != bindAccepted {
		return errorResult(ldap.LDAPResultInvalidCredentials,
			"80090308: LdapErr: DSID-0C090569, comment: AcceptSecurityContext error, data "+string(code)+", v4f7c")
	}
	c.account = account
	return result{}
}

// authenticate checks a password. It is a logon, successful or not.
func (d *Server) authenticate(name, password string) (*object, bindError) {
	defer d.sendUpdates()
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.options.Now()
	account := d.findAccount(name)
	if account == nil {
		return nil, bindInvalidCredentials
	}
	if d.isLocked(account, now) {
		return nil, bindLocked
	}
	if current, ok := d.passwords[account]; !ok || current != password {
		d.recordFailure(account, now)
		return nil, bindInvalidCredentials
	}
	control, _ := ad.ParseAccountControl([]byte(account.attributes.first("userAccountControl")))
	expires := account.attributes.integer("accountExpires")
	passwordExpired := d.passwordExpiresAt(account, control) < fileTime(now)
	switch {
	case control&ad.AccountDisabled != 0:
		return nil, bindDisabled
	case expires != 0 && expires <= fileTime(now):
		return nil, bindAccountExpired
	case passwordExpired && account.attributes.integer("pwdLastSet") == 0:
		return nil, bindPasswordMustChange
	case passwordExpired:
		return nil, bindPasswordExpired
	}
	d.recordLogon(account, now)
	return account, bindAccepted
}

// findAccount returns the account with a bind name, or nil. A bind name is a DN,
// user@domain or DOMAIN\user (MS-ADTS 5.1.1.1.1).
func (d *Server) findAccount(name string) *object {
	if domain, account, ok := strings.Cut(name, `\`); ok && !strings.Contains(domain, "=") {
		if isDomain(domain) {
			return d.findBySAMAccountName(account)
		}
		return nil
	}
	if strings.Contains(name, "=") {
		if o := d.lookup(name); o != nil && !o.deleted && o.is("user") {
			return o
		}
		return nil
	}
	user, domain, ok := strings.Cut(name, "@")
	if !ok {
		return nil
	}
	for _, o := range d.objects {
		if !o.deleted && strings.EqualFold(o.attributes.first("userPrincipalName"), name) {
			return o
		}
	}
	if isDomain(domain) { // every account also has this implicit name
		return d.findBySAMAccountName(user)
	}
	return nil
}

func isDomain(name string) bool {
	return strings.EqualFold(name, domainName) || strings.EqualFold(name, netBIOSName)
}

// findBySAMAccountName returns the account or group with a sAMAccountName, or nil.
func (d *Server) findBySAMAccountName(name string) *object {
	for _, o := range d.objects {
		if !o.deleted && o.class.SAMAccountType != "" && strings.EqualFold(o.attributes.first("sAMAccountName"), name) {
			return o
		}
	}
	return nil
}
