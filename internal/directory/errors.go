package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
)

// Causes of errors.
var (
	errNoAccount          = errors.New("bind DN or password missing")
	errNoHost             = errors.New("directory host missing")
	errMalformed          = errors.New("malformed LDAP message")
	errNoResponse         = errors.New("no response")
	errProtocolMismatch   = errors.New("the port uses a different protocol")
	errNameMismatch       = errors.New("not valid for")
	errSearchDropped      = errors.New("paged search dropped by the server")
	errNoPagingControl    = errors.New("result without a paging control, may be incomplete")
	errGlobalCatalog      = errors.New("port of the global catalog, which has only some of the attributes")
	errAvoided            = errors.New("last run on this domain controller failed")
	errUnsynchronized     = errors.New("initial replication of the domain controller not complete")
	errNoDomainController = errors.New("not a domain controller")
	errNoReadAccess       = errors.New("not readable by the account")
	errForeignTarget      = errors.New("host is outside of the domain, and its certificate does not name the domain")
	errNoNewEntries       = errors.New("no new entries")
	errNoProgress         = errors.New("the server announced more values but sent none")
	errNoNewValues        = errors.New("no new values")
	errTooManyEntries     = errors.New("too many entries")
	errTooManyValues      = errors.New("too many values")
	errLongDN             = errors.New("DN too long")
)

// ErrBindRefused means that the server refused a bind. Another bind with the same account counts
// toward its lockout. ErrInvalidCredentials is the result of a wrong password, and of an account
// that is locked, disabled or expired.
var (
	ErrBindRefused        = errors.New("bind refused")
	ErrInvalidCredentials = fmt.Errorf("%w: invalid credentials", ErrBindRefused)
)

// ErrDifferentController means that an address leads to another domain controller than before.
var ErrDifferentController = errors.New("connected to a different domain controller")

// bindRefused reports whether another server would refuse the bind too.
func bindRefused(err error) bool {
	return errors.Is(err, ErrBindRefused) || errors.Is(err, errNoAccount)
}

// resultError is an LDAP result other than success.
type resultError struct {
	code    uint16 // LDAP result code
	reason  string
	kind    error  // for errors.Is; may be nil
	matched string // matchedDN: the closest existing ancestor of a missing object
}

// Error returns the code, its name in RFC 4511 and the reason. The name and the reason may
// be missing.
func (e *resultError) Error() string {
	text := fmt.Sprintf("LDAP result %d", e.code)
	if name := ldap.LDAPResultCodeMap[e.code]; name != "" {
		text += " (" + strings.ToLower(name) + ")"
	}
	if e.reason != "" {
		text += ": " + e.reason
	}
	if e.matched != "" {
		text += " (closest existing object: " + e.matched + ")"
	}
	return text
}

func (e *resultError) Unwrap() error { return e.kind }

// The settings that remedies name.
const (
	bindSettings     = "ldap.bindDn and ldap.password, or the connection in the console"
	passwordSettings = "set a new password in the directory, and in ldap.password or the connection in the console"
	hostSettings     = "ldap.host and ldap.port, or the connection in the console"
	portSettings     = "correct ldap.protocol and ldap.port, or the connection in the console (LDAPS usually uses port 636, STARTTLS port 389)"
	filterSettings   = "correct ldap.user-filter or ldap.group-filter"
	tooLargeRemedy   = "check the size of the objects below the search base"
	tooManyRemedy    = "check the server, or narrow profile.baseContext, or the profile in the console"
	serverRemedy     = "check the server's log"
)

// refusal is the reason of a refused bind and its remedy.
type refusal struct{ reason, remedy string }

// bindReasons maps the "data" code in Active Directory's response to a refused bind: Windows
// error codes in hexadecimal (MS-ERREF 2.2).
var bindReasons = map[string]refusal{
	"525": {"no such account", "correct ldap.bindDn, or the bind DN of the connection in the console"},
	"52e": {"wrong password, or no such account", "correct " + bindSettings},
	"52f": {"an account restriction forbids the logon, such as membership in Protected Users or an authentication policy",
		"remove the account from Protected Users, and exempt it from authentication policies"},
	"530": {"logon not permitted at this time", "change the account's logon hours"},
	"531": {"logon not permitted from this machine", "change the account's logon workstations"},
	"532": {"the account's password has expired", passwordSettings},
	"533": {"the account is disabled", "enable the account"},
	"568": {"the account is a member of too many groups", "remove the account from some groups"},
	"569": {"the account is denied the right to log on to the domain controller over the network",
		"change the user rights assignment for network logons in the group policies of the domain controllers"},
	"701": {"the account has expired", "extend the account's expiry date"},
	"773": {"the account must change its password", passwordSettings},
	"775": {"the account is locked", "unlock the account, and stop clients that use an old password"},
	"78f": {"selective authentication of the trust forbids the logon", "use an account of the domain of this domain controller"},
}

// uncheckedBinds maps such codes of binds for which the server could not check the password. They
// do not count toward the account's lockout, and another server may accept the bind.
var uncheckedBinds = map[string]refusal{
	"51f": {"no domain controller is available to check the password", "connect the read-only domain controller to a writable one, or name another one in " + hostSettings},
	"6fc": brokenTrust,
	"6fd": brokenTrust,
}

var brokenTrust = refusal{"the trust with the domain of the account does not work", "repair the trust, or use an account of the domain of this domain controller"}

var bindData = regexp.MustCompile(`\bdata ([0-9a-fA-F]{1,8})\b`)

// bindError converts an unsuccessful result of a bind to a *fault.Error. It returns other
// errors unchanged. A result about the server, not about the account, is transient: the next
// server is tried, and the next run binds again.
func bindError(o fault.Operation, err error) error {
	var result *ldap.Error
	if !errors.As(err, &result) {
		return err
	}
	kind := ErrBindRefused
	if result.ResultCode == ldap.LDAPResultInvalidCredentials {
		kind = ErrInvalidCredentials
	}
	refused := func(r refusal) error {
		return o.Failed(fault.Refused, &resultError{code: result.ResultCode, reason: r.reason, kind: kind}, r.remedy)
	}
	switch result.ResultCode {
	case ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired:
		return refused(refusal{"the server requires an encrypted connection for binds",
			"use LDAPS or STARTTLS: set ldap.protocol, or the connection in the console"})
	case ldap.LDAPResultInvalidCredentials:
		code := "52e"
		if m := bindData.FindStringSubmatch(result.Error()); m != nil {
			code = strings.ToLower(m[1])
		}
		if r, unchecked := uncheckedBinds[code]; unchecked {
			return o.Failed(fault.Transient, &resultError{code: result.ResultCode, reason: r.reason}, r.remedy)
		}
		if r, known := bindReasons[code]; known {
			return refused(r)
		}
		return refused(refusal{"code " + code, "check " + bindSettings})
	case ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultNoSuchObject:
		return refused(refusal{"invalid bind DN", "correct ldap.bindDn, or the bind DN of the connection in the console"})
	case ldap.LDAPResultBusy, ldap.LDAPResultUnavailable:
		return o.Failed(fault.Transient, &resultError{code: result.ResultCode, reason: "the server currently accepts no binds"}, "check the server's load and its log")
	case ldap.LDAPResultOperationsError, ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultAdminLimitExceeded, ldap.LDAPResultOther:
		return o.Failed(fault.Transient, &resultError{code: result.ResultCode, reason: printable(result.Err.Error())}, "check the server's load and its log")
	default:
		return refused(refusal{printable(result.Err.Error()), "check " + bindSettings + ", and the server's log"})
	}
}

// dialCause returns the cause of a failed dial, without the system call and the address. An
// address other than the dialed one stays: a name may resolve to several.
func dialCause(err error, address string) error {
	op, is := errors.AsType[*net.OpError](err)
	if !is {
		return err
	}
	cause := op.Err
	if call, is := errors.AsType[*os.SyscallError](cause); is {
		cause = call.Err
	}
	if op.Addr != nil && op.Addr.String() != address {
		return fmt.Errorf("%s: %w", op.Addr, cause)
	}
	return cause
}

// dialError converts the error of a dial to a *fault.Error.
func dialError(ctx context.Context, o fault.Operation, address string, err error) error {
	var dns *net.DNSError
	err = dialCause(err, address)
	switch {
	case ctx.Err() != nil:
		return o.Failed(fault.Canceled, ctx.Err(), "")
	case fault.TooManyFiles(err):
		return o.Failed(fault.Transient, err, fault.RemedyOpenFiles)
	case errors.As(err, &dns):
		return o.Failed(fault.Transient, err, "check ldap.host, or the connection in the console, and this machine's DNS")
	default:
		return o.Failed(fault.Transient, err, "check "+hostSettings+", and that firewalls allow the connection")
	}
}

// entryRemedy returns the remedy for an entry that was not decoded.
func entryRemedy(err error) string {
	if errors.Is(err, errTooLarge) {
		return tooLargeRemedy
	}
	return serverRemedy
}

// isResult reports whether err is an LDAP result from the server, not a client-side error.
func isResult(err error) bool {
	var result *ldap.Error
	return errors.As(err, &result) && result.ResultCode < ldap.ErrorNetwork
}

// connectionError converts the error of a missing response to a *fault.Error. If the
// transport has no error, go-ldap failed to decode the response. go-ldap's error is not
// wrapped: isResult would match it.
func (s *Session) connectionError(o fault.Operation, err error) error {
	cause := s.transport.readError()
	if cause == nil {
		cause = fmt.Errorf("%w: %s", errMalformed, printable(err.Error()))
	}
	if explained := handshake.ExplainAlert(cause, false); explained != nil {
		return refusedHandshake(o, explained)
	}
	switch {
	case errors.Is(cause, errTooLarge):
		return o.Failed(fault.Incomplete, cause, tooLargeRemedy)
	case errors.Is(cause, errMalformed):
		return o.Failed(fault.Incomplete, cause, "check that "+hostSettings+", belong to a directory server, and that ldap.protocol is the protocol of the port")
	case errors.Is(cause, errNoNewEntries):
		return o.Failed(fault.Incomplete, cause, serverRemedy)
	case errors.Is(cause, errTooSlow):
		return o.Failed(fault.Transient, fmt.Errorf("%w: not complete after %s", cause, maxWaits*s.transport.timeout),
			"check the server's load and the network, or lower ldap.page-size")
	case errors.Is(cause, os.ErrDeadlineExceeded):
		return o.Failed(fault.Transient, fmt.Errorf("%w for %s", errNoResponse, s.transport.timeout), "check the server's load and the network")
	default:
		return o.Failed(fault.Transient, fmt.Errorf("connection lost: %w", cause),
			"check the server's log and the network, and that ldap.protocol, or the connection type in the console, is the protocol of the port")
	}
}

// maxText is the maximum number of characters of a server's text in an error.
const maxText = 300

// printable returns a server's text for an error. Active Directory ends its texts with a zero
// byte.
func printable(text string) string { return fault.OneLine(text, maxText) }

// ErrNoSuchObject means that the object does not exist, that the account may not read it, or
// that its DN is invalid. The remedy depends on the origin of the DN, so the error has none.
var ErrNoSuchObject = errors.New("no such object")

// ErrOtherDomain means that the server has no replica of the domain in a DN. That domain need not
// exist.
var ErrOtherDomain = errors.New("not in the domain of the server")

// searchError converts an unsuccessful result of a search or a read to a *fault.Error. It
// returns other errors unchanged.
func searchError(o fault.Operation, err error) error {
	var result *ldap.Error
	if !errors.As(err, &result) {
		return err
	}
	failed := func(class fault.Class, reason, remedy string) error {
		return o.Failed(class, &resultError{code: result.ResultCode, reason: reason}, remedy)
	}
	missing := func(reason string) error {
		return o.Failed(fault.Refused, &resultError{code: result.ResultCode, reason: reason, kind: ErrNoSuchObject, matched: printable(result.MatchedDN)}, "")
	}
	text := printable(result.Err.Error())
	switch result.ResultCode {
	case ldap.LDAPResultNoSuchObject:
		return missing("not found, or not readable by the account")
	case ldap.LDAPResultInvalidDNSyntax:
		return missing("invalid DN")
	case ldap.LDAPResultReferral:
		other := &resultError{code: result.ResultCode, reason: "not in the domain of this server", kind: ErrOtherDomain}
		return o.Failed(fault.Refused, other, "correct the DN, or connect to a domain controller of its domain")
	case ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultAuthorizationDenied:
		return failed(fault.Refused, text, "grant the account read access")
	case ldap.LDAPResultFilterError, ldap.ErrorFilterCompile:
		return failed(fault.Refused, text, filterSettings)
	case ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultSizeLimitExceeded, ldap.LDAPResultAdminLimitExceeded:
		return failed(fault.Incomplete, "partial result: "+text, "lower ldap.page-size or raise the server's limit")
	case ldap.LDAPResultUnavailableCriticalExtension:
		return failed(fault.Refused, "the server does not support paged results", "use a server that supports them (RFC 2696)")
	default:
		return failed(fault.Transient, text, serverRemedy)
	}
}
