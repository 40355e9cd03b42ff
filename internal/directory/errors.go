package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"unicode"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
)

// errBind marks a bind that the server answered and did not take.
var errBind = errors.New("refused")

var errMalformed = errors.New("malformed LDAP message")

// bindReasons explain the "data" code in Active Directory's answer to a refused
// bind: Windows error codes in hexadecimal (MS-ERREF 2.2).
var bindReasons = map[string]string{
	"525": "no such account: correct the bind DN (ldap.bindDn, or the connection in the console)",
	"52e": "wrong password, or no such account: correct ldap.password and ldap.bindDn, or the connection in the console",
	"530": "the account may not log on at this hour: change its logon hours",
	"531": "the account may not log on from this machine: change its logon workstations",
	"532": "the account's password has expired: set a new one, there and in ldap.password or the connection in the console",
	"533": "the account is disabled: enable it",
	"568": "the account is in too many groups: remove it from some",
	"701": "the account has expired: extend it",
	"773": "the account must change its password first: set a new one, there and in ldap.password or the connection in the console",
	"775": "the account is locked: unlock it, and look for whoever uses an old password",
}

var bindData = regexp.MustCompile(`\bdata ([0-9a-fA-F]+)`)

// explainBind says why a bind was not taken. A lost connection stays as it is.
func explainBind(what string, err error) error {
	var answer *ldap.Error
	if !errors.As(err, &answer) {
		return err
	}
	refused := func(reason string) error {
		return fault.Errorf(fault.Refused, "%s: %w (LDAP result %d): %s", what, errBind, answer.ResultCode, reason)
	}
	switch answer.ResultCode {
	case ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired:
		return refused("the server takes passwords only over an encrypted connection: use LDAPS or STARTTLS (ldap.protocol, or the connection in the console)")
	case ldap.LDAPResultInvalidCredentials:
		if m := bindData.FindStringSubmatch(answer.Error()); m != nil {
			if reason, known := bindReasons[strings.ToLower(m[1])]; known {
				return refused(reason)
			}
			return refused("the server refused the account with code " + m[1] + ": check ldap.bindDn and ldap.password, or the connection in the console")
		}
		return refused(bindReasons["52e"])
	case ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultNoSuchObject:
		return refused("the bind DN is not one: correct ldap.bindDn, or the connection in the console")
	case ldap.LDAPResultBusy, ldap.LDAPResultUnavailable:
		return fault.Errorf(fault.Transient, "%s: %s (LDAP result %d): check the server's load and its log", what, ldap.LDAPResultCodeMap[answer.ResultCode], answer.ResultCode)
	default:
		return refused(printable(answer.Err.Error()) + ": check ldap.bindDn and ldap.password, or the connection in the console, and the server's log")
	}
}

func explainDial(ctx context.Context, what string, err error) error {
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return fault.Errorf(fault.Canceled, "%s: %w", what, ctx.Err())
	case errors.As(err, &dns):
		return fault.Errorf(fault.Transient, "%s: %w: check ldap.host, or the connection in the console, and this machine's DNS", what, err)
	default:
		return fault.Errorf(fault.Transient, "%s: %w: check ldap.host and ldap.port, or the connection in the console, and that firewalls let this machine through", what, err)
	}
}

// isAnswer reports whether err is what the server answered, rather than the lack
// of an answer.
func isAnswer(err error) bool {
	var answer *ldap.Error
	return errors.As(err, &answer) && answer.ResultCode < ldap.ErrorNetwork
}

// explainLoss says why an answer did not come. The wire knows better than go-ldap
// why a connection ended; where the wire has no complaint, go-ldap could not read
// what came. Its own error is not wrapped: it would pass for the server's answer.
func (s *Session) explainLoss(what string, err error) error {
	cause := s.wire.failure()
	if cause == nil {
		cause = fmt.Errorf("%w: %v", errMalformed, err)
	}
	switch {
	case errors.Is(cause, errTooLarge):
		return fault.Errorf(fault.Incomplete, "%s: the server sent more than is taken: %w: check what the directory holds there", what, cause)
	case errors.Is(cause, errMalformed):
		return fault.Errorf(fault.Incomplete, "%s: the server sent what is not LDAP: %w: check that ldap.host and ldap.port are a directory's, and ldap.protocol the port's, or the same of the connection in the console", what, cause)
	case errors.Is(cause, errTooSlow):
		return fault.Errorf(fault.Transient, "%s: %w: it was waited for %s: check the server's load and the network in between, or lower ldap.page-size", what, cause, maxWaits*s.wire.timeout)
	case errors.Is(cause, os.ErrDeadlineExceeded):
		return fault.Errorf(fault.Transient, "%s: the server was silent for %s: check its load and the network in between", what, s.wire.timeout)
	default:
		return fault.Errorf(fault.Transient, "%s: the connection was lost: %w: check the server's log and the network in between, and that ldap.protocol, or the connection's type in the console, is the port's", what, cause)
	}
}

// printable makes a short line of what a server says: Active Directory ends it
// with a zero byte.
func printable(text string) string {
	const enough = 300
	text = strings.ToValidUTF8(text[:min(len(text), enough)], "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text))
}

// explainSearch says why a search was not answered with success.
func explainSearch(what string, err error) error {
	var answer *ldap.Error
	if !errors.As(err, &answer) {
		return err
	}
	text := fmt.Sprintf("%s: %s (LDAP result %d: %s)", what, ldap.LDAPResultCodeMap[answer.ResultCode], answer.ResultCode, printable(answer.Err.Error()))
	switch answer.ResultCode {
	case ldap.LDAPResultNoSuchObject:
		exists := ""
		if answer.MatchedDN != "" {
			exists = "; what exists of it is " + printable(answer.MatchedDN)
		}
		return fault.Errorf(fault.Refused, "%s: the base context does not exist or the account may not see it%s: correct profile.baseContext, or the profile in the console", what, exists)
	case ldap.LDAPResultInvalidDNSyntax:
		return fault.Errorf(fault.Refused, "%s: the base context is not a DN: correct profile.baseContext, or the profile in the console", what)
	case ldap.LDAPResultReferral:
		return fault.Errorf(fault.Refused, "%s: the base context belongs to another server's domain: connect to a domain controller of that domain, or correct profile.baseContext", what)
	case ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultAuthorizationDenied:
		return fault.Errorf(fault.Refused, "%s: grant the account the right to read there", text)
	case ldap.LDAPResultFilterError, ldap.ErrorFilterCompile:
		return fault.Errorf(fault.Refused, "%s: correct ldap.user-filter or ldap.group-filter", text)
	case ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultSizeLimitExceeded, ldap.LDAPResultAdminLimitExceeded:
		return fault.Errorf(fault.Incomplete, "%s: the server sent only a part: lower ldap.page-size or raise the server's limit", text)
	case ldap.LDAPResultUnavailableCriticalExtension:
		return fault.Errorf(fault.Refused, "%s: the server does not offer paged results, without which nothing proves that all was read: use a server that does (RFC 2696)", text)
	default:
		return fault.Errorf(fault.Transient, "%s: check the server's log", text)
	}
}
