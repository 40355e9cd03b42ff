package domaincontroller

import "github.com/go-ldap/ldap/v3"

// Tags of the operations (RFC 4511 appendix B).
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

// action is what happens to a connection after an answer.
type action byte

const (
	keepOpen action = iota
	closeConnection
	startTLS
)

var notBoundResult = errorResult(ldap.LDAPResultOperationsError, "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this "+
	"operation a successful bind must be completed on the connection., data 0, v4f7c")

// answer writes the answer to a request to the encoder.
func (c *connection) answer(r request) action {
	switch r.operation.tag {
	case tagBindRequest:
		c.encoder.result(r.id, tagBindResponse, c.bind(r), false, nil)
	case tagSearchRequest:
		c.search(r)
	case tagExtendedRequest:
		outcome := c.extended(r)
		c.encoder.result(r.id, tagExtendedResponse, outcome, false, nil)
		if outcome.code == ldap.LDAPResultSuccess {
			return startTLS
		}
	case tagAbandonRequest:
		// The abandoned request is answered already, because requests are sequential.
	case tagModifyRequest, tagAddRequest, tagDelRequest, tagModifyDNRequest:
		outcome := errorResult(ldap.LDAPResultInsufficientAccessRights, "00000005: SecErr: DSID-03152E29, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0\n")
		if c.account == nil {
			outcome = notBoundResult
		}
		c.encoder.result(r.id, tagApplication|r.operation.tag&0x1f+1, outcome, false, nil)
	default: // unbind, and unsupported operations
		return closeConnection
	}
	return keepOpen
}

// extended returns the result of an extended request. StartTLS is the only one supported.
func (c *connection) extended(r request) result {
	switch {
	case r.part(0).text() != oidStartTLS:
		return errorResult(ldap.LDAPResultProtocolError,
			"0000203D: LdapErr: DSID-0C0911B2, comment: Unknown extended request OID, data 0, v4f7c")
	case c.encrypted:
		return errorResult(ldap.LDAPResultOperationsError,
			"00000000: LdapErr: DSID-0C0911CA, comment: TLS or SSL already in effect, data 0, v4f7c")
	}
	return result{}
}
