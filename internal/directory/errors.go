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

// Causes of errors.
var (
	errBind            = errors.New("bind refused") // the server answered the bind and refused it
	errNoAccount       = errors.New("no account or no password is given")
	errNoHost          = errors.New("no directory host is given")
	errUnknownValue    = errors.New("unknown value")
	errMalformed       = errors.New("malformed LDAP message")
	errSilent          = errors.New("no answer")
	errOtherController = errors.New("another domain controller answers")
	errOtherProtocol   = errors.New("the port has another protocol")
	errWrongName       = errors.New("not valid for")
	errSearchDropped   = errors.New("the server dropped the paged search")
	errNoPaging        = errors.New("the answer has no paging control, so nothing proves that it is complete")
	errUnreadable      = errors.New("the account may not read it")
	errNoCertificate   = errors.New("no certificate in it")
	errNoProgress      = errors.New("the server announces more values and sends none")
)

// bindRefused reports whether another server would refuse the bind too.
func bindRefused(err error) bool { return errors.Is(err, errBind) || errors.Is(err, errNoAccount) }

// answerError is a server's answer other than success.
type answerError struct {
	code    uint16 // LDAP result code
	reason  string
	kind    error  // what errors.Is finds, or nil
	matched string // the part of a missing object's DN that exists
}

// Error returns the code, its name in the LDAP specification and the reason. Servers may
// send codes without a name, and no reason.
func (e *answerError) Error() string {
	text := fmt.Sprintf("LDAP result %d", e.code)
	if name := ldap.LDAPResultCodeMap[e.code]; name != "" {
		text += " (" + strings.ToLower(name) + ")"
	}
	if e.reason != "" {
		text += ": " + e.reason
	}
	if e.matched != "" {
		text += "; the part of it that exists is " + e.matched
	}
	return text
}

func (e *answerError) Unwrap() error { return e.kind }

// The settings that remedies name.
const (
	bindSettings     = "ldap.bindDn and ldap.password, or the connection in the console"
	passwordSettings = "set a new password, in the directory and in ldap.password or the connection in the console"
	hostSettings     = "ldap.host and ldap.port, or the connection in the console"
	portSettings     = "correct ldap.protocol and ldap.port, or the connection in the console (LDAPS usually has port 636, STARTTLS port 389)"
	filterSettings   = "correct ldap.user-filter or ldap.group-filter"
	tooLargeRemedy   = "check the size of the objects in the search base"
	serverRemedy     = "check the server's log"
)

// explanation is why a server refused, and what to do.
type explanation struct{ reason, remedy string }

// bindReasons explain the "data" code in Active Directory's answer to a refused
// bind: Windows error codes in hexadecimal (MS-ERREF 2.2).
var bindReasons = map[string]explanation{
	"525": {"no such account", "correct ldap.bindDn, or the bind DN of the connection in the console"},
	"52e": {"wrong password, or no such account", "correct " + bindSettings},
	"530": {"the account may not log on at this hour", "change the account's logon hours"},
	"531": {"the account may not log on from this machine", "change the account's logon workstations"},
	"532": {"the account's password has expired", passwordSettings},
	"533": {"the account is disabled", "enable the account"},
	"568": {"the account is a member of too many groups", "remove the account from some groups"},
	"701": {"the account has expired", "extend the account's expiry date"},
	"773": {"the account must change its password first", passwordSettings},
	"775": {"the account is locked", "unlock the account, and find what uses an old password"},
}

var bindData = regexp.MustCompile(`\bdata ([0-9a-fA-F]+)`)

// explainBind returns the error of a bind that the server refused. A lost connection is
// explained already.
func explainBind(o fault.Operation, err error) error {
	var answer *ldap.Error
	if !errors.As(err, &answer) {
		return err
	}
	refused := func(e explanation) error {
		return o.Failed(fault.Refused, &answerError{code: answer.ResultCode, reason: e.reason, kind: errBind}, e.remedy)
	}
	switch answer.ResultCode {
	case ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired:
		return refused(explanation{"the server accepts passwords only over an encrypted connection",
			"use LDAPS or STARTTLS: set ldap.protocol, or the connection in the console"})
	case ldap.LDAPResultInvalidCredentials:
		if m := bindData.FindStringSubmatch(answer.Error()); m != nil {
			if known, is := bindReasons[strings.ToLower(m[1])]; is {
				return refused(known)
			}
			return refused(explanation{"code " + m[1], "check " + bindSettings})
		}
		return refused(bindReasons["52e"])
	case ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultNoSuchObject:
		return refused(explanation{"the bind DN is not a DN", "correct ldap.bindDn, or the bind DN of the connection in the console"})
	case ldap.LDAPResultBusy, ldap.LDAPResultUnavailable:
		return o.Failed(fault.Transient, &answerError{code: answer.ResultCode, reason: "the server accepts no binds now"}, "check the server's load and its log")
	default:
		return refused(explanation{printable(answer.Err.Error()), "check " + bindSettings + ", and the server's log"})
	}
}

// dialCause returns the cause of a failed dial without what the operation has already: the
// address, unless a name stands for several, and the system call.
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

// explainDial returns the error of a connection to address that could not be opened.
func explainDial(ctx context.Context, o fault.Operation, address string, err error) error {
	var dns *net.DNSError
	err = dialCause(err, address)
	switch {
	case ctx.Err() != nil:
		return o.Failed(fault.Canceled, ctx.Err(), "")
	case errors.As(err, &dns):
		return o.Failed(fault.Transient, err, "check ldap.host, or the connection in the console, and this machine's DNS")
	default:
		return o.Failed(fault.Transient, err, "check "+hostSettings+", and that firewalls let this machine through")
	}
}

// entryRemedy returns the remedy for an entry that cannot be decoded.
func entryRemedy(err error) string {
	if errors.Is(err, errTooLarge) {
		return tooLargeRemedy
	}
	return serverRemedy
}

// isAnswer reports whether err is what the server answered, rather than the lack
// of an answer.
func isAnswer(err error) bool {
	var answer *ldap.Error
	return errors.As(err, &answer) && answer.ResultCode < ldap.ErrorNetwork
}

// explainLoss returns the error of an answer that did not come. The wire has the reason
// why a connection ended; where it has none, go-ldap could not read the answer. go-ldap's
// error is not wrapped: it would pass for the server's answer.
func (s *Session) explainLoss(o fault.Operation, err error) error {
	cause := s.wire.failure()
	if cause == nil {
		cause = fmt.Errorf("%w: %v", errMalformed, err)
	}
	switch {
	case errors.Is(cause, errTooLarge):
		return o.Failed(fault.Incomplete, cause, tooLargeRemedy)
	case errors.Is(cause, errMalformed):
		return o.Failed(fault.Incomplete, cause, "check that "+hostSettings+", are those of a directory server, and that ldap.protocol is the protocol of the port")
	case errors.Is(cause, errTooSlow):
		return o.Failed(fault.Transient, fmt.Errorf("%w: not complete after %s", cause, maxWaits*s.wire.timeout),
			"check the server's load and the network in between, or lower ldap.page-size")
	case errors.Is(cause, os.ErrDeadlineExceeded):
		return o.Failed(fault.Transient, fmt.Errorf("%w for %s", errSilent, s.wire.timeout), "check the server's load and the network in between")
	default:
		return o.Failed(fault.Transient, fmt.Errorf("connection lost: %w", cause),
			"check the server's log and the network in between, and that ldap.protocol, or the connection's type in the console, is the protocol of the port")
	}
}

// printable returns a short line of what a server says: Active Directory ends it with a
// zero byte.
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

// ErrNoObject marks an object that does not exist, that the account may not see, or whose
// name is not a DN. The remedy depends on where the name comes from, so the error has none.
var ErrNoObject = errors.New("no such object")

// explainSearch returns the error of a search or a read that the server answered without
// success.
func explainSearch(o fault.Operation, err error) error {
	var answer *ldap.Error
	if !errors.As(err, &answer) {
		return err
	}
	failed := func(class fault.Class, reason, remedy string) error {
		return o.Failed(class, &answerError{code: answer.ResultCode, reason: reason}, remedy)
	}
	missing := func(reason string) error {
		return o.Failed(fault.Refused, &answerError{code: answer.ResultCode, reason: reason, kind: ErrNoObject, matched: printable(answer.MatchedDN)}, "")
	}
	text := printable(answer.Err.Error())
	switch answer.ResultCode {
	case ldap.LDAPResultNoSuchObject:
		return missing("it does not exist, or the account may not see it")
	case ldap.LDAPResultInvalidDNSyntax:
		return missing("it is not a DN")
	case ldap.LDAPResultReferral:
		return failed(fault.Refused, "it belongs to another server's domain", "connect to a domain controller of that domain")
	case ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultAuthorizationDenied:
		return failed(fault.Refused, text, "grant the account read access")
	case ldap.LDAPResultFilterError, ldap.ErrorFilterCompile:
		return failed(fault.Refused, text, filterSettings)
	case ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultSizeLimitExceeded, ldap.LDAPResultAdminLimitExceeded:
		return failed(fault.Incomplete, "the server sent only a part: "+text, "lower ldap.page-size or raise the server's limit")
	case ldap.LDAPResultUnavailableCriticalExtension:
		return failed(fault.Refused, "the server does not offer paged results, which prove that everything was read", "use a server that does (RFC 2696)")
	default:
		return failed(fault.Transient, text, serverRemedy)
	}
}
