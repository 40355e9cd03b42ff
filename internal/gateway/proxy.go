package gateway

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"adconnector/internal/fault"
)

// The reasons for which a proxy fails a connection.
var (
	errProxyCredentials = errors.New("proxy requires credentials")
	errProxyScheme      = errors.New("proxy does not offer Basic authentication")
	errProxyRefuses     = errors.New("proxy refused the connection to the gateway")
	errProxyPage        = errors.New("proxy sent a page or redirect instead of a tunnel")
	errProxyFailed      = errors.New("proxy failed to connect to the gateway")
	errNetworkLogin     = errors.New("network requires a login")
)

const (
	proxyCredentialsRemedy = "set or correct proxy.username and proxy.password"
	networkLoginRemedy     = "log this machine in to the network, or exempt it from the login page"
)

// tunnelError is a proxy's response to CONNECT other than success.
type tunnelError struct {
	proxy, target string // addresses
	status        int
	header        http.Header
}

// Error returns the status.
func (e *tunnelError) Error() string { return "CONNECT: " + statusText(e.status, "") }

// explain returns the error of the connection. setting is the one with the target's name.
func (e *tunnelError) explain(setting string) error {
	connect := fault.Operation{Op: "connect through proxy", Object: e.proxy}
	failed := func(class fault.Class, reason error, remedy string) error {
		return connect.Failed(class, &responseError{Status: e.status, Reason: reason, Message: proxyMessage(e.header)}, remedy)
	}
	switch {
	case e.status == http.StatusProxyAuthRequired, e.status == http.StatusUnauthorized: // tinyproxy sends 401 for wrong credentials
		return proxyLoginError(connect, e.target, e.status, e.header)
	case e.status == http.StatusNetworkAuthenticationRequired:
		return failed(fault.Refused, errNetworkLogin, networkLoginRemedy)
	case e.status < 400:
		return failed(fault.Refused, errProxyPage, "allow "+e.target+" ("+setting+") on the proxy without a login or notice page")
	case e.status < 500 && e.status != http.StatusRequestTimeout && e.status != http.StatusTooManyRequests:
		return failed(fault.Refused, errProxyRefuses, "allow CONNECT to "+e.target+" ("+setting+") in the proxy's access rules")
	default:
		return failed(fault.Transient, errProxyFailed,
			"check the host and port in "+setting+", and on the proxy that it resolves and reaches "+e.target)
	}
}

// proxyLoginError returns the error of a proxy that requires credentials, by the authentication
// schemes that it offers. target is the host that could be exempt.
func proxyLoginError(o fault.Operation, target string, status int, header http.Header) error {
	schemes := challenges(header.Values("Proxy-Authenticate"))
	if len(schemes) == 0 || slices.ContainsFunc(schemes, func(scheme string) bool { return strings.EqualFold(scheme, "Basic") }) {
		return o.Failed(fault.Refused, &responseError{Status: status, Reason: errProxyCredentials}, proxyCredentialsRemedy)
	}
	return o.Failed(fault.Refused, &responseError{Status: status, Reason: errProxyScheme, Message: "only " + strings.Join(schemes, ", ")},
		"offer Basic on the proxy for this machine, or let it reach "+target+" without authentication, "+
			"or set proxy.host and proxy.port to a local relay that logs in with such a scheme, for example cntlm")
}

// schemePattern matches an authentication scheme. Known ones are shorter than its limit.
var schemePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,19}$`)

// maxSchemes is the maximum number of authentication schemes of a proxy in an error.
const maxSchemes = 6

// challenges returns the authentication schemes of challenges (RFC 9110 11.6.1), of which a
// header field may contain several.
func challenges(fields []string) []string {
	var schemes []string
	for _, field := range fields {
		for _, part := range splitUnquoted(field) {
			scheme, rest, _ := strings.Cut(strings.TrimSpace(part), " ")
			isParameter := strings.HasPrefix(strings.TrimSpace(rest), "=")
			if !isParameter && schemePattern.MatchString(scheme) && !slices.Contains(schemes, scheme) && len(schemes) < maxSchemes {
				schemes = append(schemes, scheme)
			}
		}
	}
	return schemes
}

// splitUnquoted splits a header field at the commas outside of quoted strings.
func splitUnquoted(field string) []string {
	quoted, escaped := false, false
	return strings.FieldsFunc(field, func(r rune) bool {
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}

var (
	squidError       = regexp.MustCompile(`^ERR_[A-Z_]{1,40}`)
	proxyStatusError = regexp.MustCompile(`;\s*error=([a-z_]{1,40})`) // RFC 9209 2.1.1
)

// proxyMessage returns the proxy's reason for a failure, if it sends a known header; "" otherwise.
func proxyMessage(header http.Header) string {
	if match := proxyStatusError.FindStringSubmatch(header.Get("Proxy-Status")); match != nil {
		return match[1]
	}
	return squidError.FindString(header.Get("X-Squid-Error"))
}
