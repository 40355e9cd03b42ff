package domaincontroller

import (
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// The tags of the operations (RFC 4511 appendix B).
const (
	tagApplication      = 0x60 // constructed
	tagBindRequest      = 0x60
	tagBindResponse     = 0x61
	tagSearchRequest    = 0x63
	tagSearchEntry      = 0x64
	tagSearchDone       = 0x65
	tagModifyRequest    = 0x66
	tagAddRequest       = 0x68
	tagDelRequest       = 0x4a
	tagModifyDNRequest  = 0x6c
	tagAbandonRequest   = 0x50
	tagSearchReference  = 0x73
	tagExtendedRequest  = 0x77
	tagExtendedResponse = 0x78
)

const oidStartTLS = "1.3.6.1.4.1.1466.20037"

// next is what happens to a connection after an answer.
type next byte

const (
	goOn   next = iota
	stop        // the connection ends
	secure      // TLS begins
)

// answer writes the answer to one request into the encoder.
func (c *client) answer(r ldapRequest) next {
	switch r.operation.tag {
	case tagBindRequest:
		c.encoder.result(r.id, tagBindResponse, c.bind(r), false, nil)
	case tagSearchRequest:
		c.search(r)
	case tagExtendedRequest:
		if r.part(0).text() != oidStartTLS {
			c.encoder.result(r.id, tagExtendedResponse, refusal(ldap.LDAPResultProtocolError,
				"0000203D: LdapErr: DSID-0C0911B2, comment: Unknown extended request OID, data 0, v4f7c"), false, nil)
			return goOn
		}
		if c.encrypted {
			c.encoder.result(r.id, tagExtendedResponse, refusal(ldap.LDAPResultOperationsError,
				"00000000: LdapErr: DSID-0C0911CA, comment: TLS or SSL already in effect, data 0, v4f7c"), false, nil)
			return goOn
		}
		c.encoder.result(r.id, tagExtendedResponse, result{}, false, nil)
		return secure
	case tagAbandonRequest:
		// What it names has been answered: requests are taken in turn.
	case tagModifyRequest, tagAddRequest, tagDelRequest, tagModifyDNRequest:
		refused := refusal(ldap.LDAPResultInsufficientAccessRights, "00000005: SecErr: DSID-03152E29, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0\n")
		if c.account == nil {
			refused = notBound
		}
		c.encoder.result(r.id, tagApplication|r.operation.tag&0x1f+1, refused, false, nil)
	default: // unbind, and what this server does not know
		return stop
	}
	return goOn
}

var notBound = refusal(ldap.LDAPResultOperationsError, "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this "+
	"operation a successful bind must be completed on the connection., data 0, v4f7c")

// A bindError is the Windows error for which a bind is refused, in hexadecimal.
type bindError string

const (
	bindAccepted       bindError = ""
	bindWrong          bindError = "52e" // no such account, or not its password
	bindPasswordOver   bindError = "532"
	bindDisabled       bindError = "533"
	bindAccountExpired bindError = "701"
	bindMustChange     bindError = "773"
	bindLocked         bindError = "775"
)

func (c *client) bind(r ldapRequest) result {
	c.account, c.held = nil, nil // whatever comes of it (RFC 4511 4.2.1)
	if len(r.operation.children) < 3 {
		return refusal(ldap.LDAPResultProtocolError, "000020D6: LdapErr: DSID-0C090A80, comment: Error decoding ldap message, data 0, v4f7c")
	}
	if r.part(2).tag != 0x80 {
		return refusal(ldap.LDAPResultAuthMethodNotSupported, "00002027: LdapErr: DSID-0C0905E2, comment: Invalid Authentication method, data 0, v4f7c")
	}
	name, password := r.part(1).text(), r.part(2).text()
	if password == "" {
		return result{} // anonymous, whatever the name (RFC 4513 5.1.2)
	}
	account, why := c.directory.authenticate(name, password)
	c.directory.count(func(n *Counters) {
		if why == bindAccepted {
			n.Binds++
		} else {
			n.RefusedBinds++
		}
	})
	if why != bindAccepted {
		return refusal(ldap.LDAPResultInvalidCredentials,
			"80090308: LdapErr: DSID-0C090569, comment: AcceptSecurityContext error, data "+string(why)+", v4f7c")
	}
	c.account = account
	return result{}
}

// authenticate checks a password as a logon does: it counts, and locks.
func (d *Server) authenticate(name, password string) (*object, bindError) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.options.Now()
	account := d.accountOf(name)
	if account == nil {
		return nil, bindWrong
	}
	set := func(id attributeID, value string) { account.attributes = account.attributes.with(id, value) }
	if d.isLocked(account, now) {
		return nil, bindLocked
	}
	if known, ok := d.passwords[account]; !ok || known != password {
		wrong := account.attributes.integer(attributeBadPwdCount) + 1
		set(attributeBadPwdCount, strconv.FormatInt(wrong, 10))
		set(attributeBadPasswordTime, fileTimeOf(now))
		if threshold := d.root.attributes.integer(attributeLockoutThreshold); threshold > 0 && wrong >= threshold {
			set(attributeLockoutTime, fileTimeOf(now))
			d.raise(account)
		}
		return nil, bindWrong
	}
	control, _ := ad.ParseAccountControl([]byte(account.attributes.first(attributeUserAccountControl)))
	expires := account.attributes.integer(attributeAccountExpires)
	computed, _ := d.computedControl(account, now)
	flags, _ := ad.ParseAccountControl([]byte(computed))
	switch {
	case control&ad.AccountDisabled != 0:
		return nil, bindDisabled
	case expires != 0 && expires <= fileTime(now):
		return nil, bindAccountExpired
	case flags&ad.AccountPasswordExpired != 0 && account.attributes.integer(attributePwdLastSet) == 0:
		return nil, bindMustChange
	case flags&ad.AccountPasswordExpired != 0:
		return nil, bindPasswordOver
	}
	set(attributeBadPwdCount, "0")
	set(attributeLastLogon, fileTimeOf(now))
	set(attributeLogonCount, strconv.FormatInt(account.attributes.integer(attributeLogonCount)+1, 10))
	return account, bindAccepted
}

// accountOf finds the account that a simple bind names: by its distinguished name,
// as user@domain, or as DOMAIN\user (MS-ADTS 5.1.1.1.1).
func (d *Server) accountOf(name string) *object {
	if domain, account, ok := strings.Cut(name, `\`); ok && !strings.Contains(domain, "=") {
		if !strings.EqualFold(domain, flatName) && !strings.EqualFold(domain, domainName) {
			return nil
		}
		return d.accountNamed(account)
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
		if !o.deleted && strings.EqualFold(o.attributes.first(attributeUserPrincipalName), name) {
			return o
		}
	}
	if strings.EqualFold(domain, domainName) || strings.EqualFold(domain, flatName) {
		return d.accountNamed(user) // every account has this name, set or not
	}
	return nil
}

// accountNamed finds an account or a group by its sAMAccountName.
func (d *Server) accountNamed(name string) *object {
	for _, o := range d.objects {
		if !o.deleted && o.class.samAccount != "" && strings.EqualFold(o.attributes.first(attributeSAMAccountName), name) {
			return o
		}
	}
	return nil
}
