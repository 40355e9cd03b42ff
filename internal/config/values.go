package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// quote returns a refused value for an error, unless it could contain credentials.
func quote(text string) string {
	if strings.Contains(text, "@") {
		return "the value"
	}
	return fmt.Sprintf("%.80q", text)
}

// The causes of faults. Some follow the refused value.
var (
	errMissing      = errors.New("missing")
	errNoLogin      = errors.New("no credentials")
	errPlaceholder  = errors.New("placeholder <...> not replaced")
	errQuotes       = errors.New("the quotes are part of the value")
	errDuplicate    = errors.New("the same key with different values")
	errRequiresHost = errors.New("requires ldap.host, without which connection and profile come from the gateway")
	errUnreadable   = errors.New("cannot be read")
	errNotAllowed   = errors.New("is not allowed")
	errNotUUID      = errors.New("is not a UUID")
	errNotURL       = errors.New("not a URL with a host")
	errCredentials  = errors.New("contains a user name or password, which have separate keys")
	errQuery        = errors.New("has a query or a fragment")
	errNotEncrypted = errors.New("http would send credentials in plain text")
	errScheme       = errors.New("scheme is neither https nor http")
	errNotPath      = errors.New("is not a path")
	errNotHost      = errors.New("is not a host")
	errHostScheme   = errors.New("has a scheme")
	errHostPort     = errors.New("has a port")
	errNotDN        = errors.New("is not a DN")
	errNotFilter    = errors.New("is not an LDAP filter")
	errNotCert      = errors.New("is not a certificate")
	errLine         = errors.New("line is not KEY=VALUE")
	errLineTooLong  = errors.New("line too long")
	errNotUTF8      = errors.New("line is not valid UTF-8")
)

// invalid returns the error for a value that is not allowed. The loader adds the key.
func invalid(cause error, allowed string) error {
	return fault.Operation{}.Failed(fault.Invalid, cause, "allowed: "+allowed)
}

// invalidText returns the error for a value that is not allowed, and quotes the value.
func invalidText(text string, cause error, allowed string) error {
	return invalid(fmt.Errorf("%s %w", quote(text), cause), allowed)
}

func notAllowed(text, allowed string) error { return invalidText(text, errNotAllowed, allowed) }

// readableFile is the allowed value of a path.
const readableFile = "the path of a readable file"

func verbatim(text string) (string, error) { return text, nil }

func parseSecret(text string) (secret.Text, error) { return secret.New(text), nil }

func between(low, high int) parser[int] {
	return func(text string) (int, error) {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < low || n > high {
			return 0, notAllowed(text, fmt.Sprintf("a number from %d to %d", low, high))
		}
		return n, nil
	}
}

func durationBetween(low, high time.Duration) parser[time.Duration] {
	return func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil || d < low || d > high {
			return 0, notAllowed(text, fmt.Sprintf("a duration like 30s or 5m, from %v to %v", low, high))
		}
		return d, nil
	}
}

// listenAddress parses an address to listen on; "off" means none.
func listenAddress(text string) (string, error) {
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "off") {
		return "", nil
	}
	_, port, err := net.SplitHostPort(text)
	if _, badPort := strconv.ParseUint(port, 10, 16); err != nil || badPort != nil {
		return "", notAllowed(text, "host:port like 127.0.0.1:8080, or empty for none")
	}
	return text, nil
}

func boolean(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off":
		return false, nil
	}
	return false, notAllowed(text, "true or false")
}

// oneOf parses a choice. It ignores case, spaces, - and _, in which the console's labels
// ("Identities Only") and the gateway's values differ.
func oneOf[T any](choices ...T) parser[T] {
	return func(text string) (T, error) {
		names := make([]string, len(choices))
		for n, choice := range choices {
			names[n] = fmt.Sprint(choice)
			if normalizeChoice(names[n]) == normalizeChoice(text) {
				return choice, nil
			}
		}
		return *new(T), notAllowed(text, strings.Join(names, ", "))
	}
}

func normalizeChoice(text string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(text))
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func uuid(text string) (string, error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	if !uuidForm.MatchString(lower) {
		return "", invalidText(text, errNotUUID, "the form 00000000-0000-0000-0000-000000000000")
	}
	return lower, nil
}

// gatewayURL parses a base URL without a query.
func gatewayURL(text string) (*url.URL, error) {
	if strings.ContainsAny(text, "?#") {
		return nil, invalid(errQuery, "scheme, host, port and path")
	}
	return httpsURL(strings.TrimRight(strings.TrimSpace(text), "/"))
}

// httpsURL parses a URL. Its errors do not quote it, because it could contain credentials.
func httpsURL(text string) (*url.URL, error) {
	const allowed = "https://HOST/..., or http:// on loopback"
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Hostname() == "" {
		return nil, invalid(errNotURL, allowed)
	}
	if port := u.Port(); port != "" {
		if _, err := between(1, 65535)(port); err != nil {
			return nil, fmt.Errorf("port %w", err)
		}
	}
	switch {
	case u.User != nil:
		return nil, invalid(errCredentials, allowed)
	case u.Fragment != "":
		return nil, invalid(errQuery, allowed)
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	case u.Scheme == "http":
		return nil, invalid(errNotEncrypted, allowed)
	}
	return nil, invalid(errScheme, allowed)
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && address.Unmap().IsLoopback()
}

func urlPath(text string) (string, error) {
	if !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || strings.ContainsAny(text, "?#\\ \t") {
		return "", invalidText(text, errNotPath, "/like/this, without a host, query or fragment")
	}
	return text, nil
}

func hosts(text string) ([]string, error) {
	parse := hostOf("ldap")
	var all []string
	for item := range strings.SplitSeq(text, ",") {
		host, err := parse(item)
		if err != nil {
			return nil, err
		}
		all = append(all, host)
	}
	return all, nil
}

var hostForm = regexp.MustCompile(`^[\pL\pN._-]+$`)

// hostOf parses the host of <prefix>.host, and removes the brackets of an IPv6 address.
func hostOf(prefix string) parser[string] {
	return func(text string) (string, error) {
		host := strings.TrimSpace(text)
		bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if _, err := netip.ParseAddr(bare); err == nil {
			return bare, nil
		}
		const allowed = "a host name or an IP address"
		switch {
		case hostForm.MatchString(host):
			return host, nil
		case strings.Contains(host, "://"):
			return "", invalidText(host, errHostScheme, allowed+" without a scheme")
		case strings.Contains(host, ":"):
			return "", invalidText(host, errHostPort, allowed+" without a port; set "+prefix+".port")
		}
		return "", invalidText(host, errNotHost, allowed)
	}
}

// distinguishedName checks for the form of a DN. The directory validates it.
func distinguishedName(text string) (string, error) {
	if !strings.Contains(text, "=") {
		return "", invalidText(text, errNotDN, "a DN like DC=corp,DC=example,DC=com")
	}
	return text, nil
}

func filter(text string) (string, error) {
	if err := directory.CheckFilter(text); err != nil {
		return "", invalid(fmt.Errorf("%s %w: %w", quote(text), errNotFilter, err), "a filter in parentheses, like (department=Sales)")
	}
	return text, nil
}

func certificateFile(path string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, invalid(fmt.Errorf("the file %s %w: %w", quote(path), errUnreadable, unwrapPathError(err)), readableFile)
	}
	certificates, err := directory.ParseCertificates(content)
	if err != nil {
		return nil, invalid(fmt.Errorf("the file %s %w: %w", quote(path), errNotCert, err), "X.509 in DER or PEM")
	}
	return certificates, nil
}
