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
	"adconnector/internal/secret"
)

// quote shows a refused value, unless it might be one with credentials in it.
func quote(text string) string {
	if strings.Contains(text, "@") {
		return "the value"
	}
	return fmt.Sprintf("%.80q", text)
}

func verbatim(text string) (string, error) { return text, nil }

func secretText(text string) (secret.Text, error) { return secret.New(text), nil }

func between(low, high int) parser[int] {
	return func(text string) (int, error) {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < low || n > high {
			return 0, fmt.Errorf("%s is not allowed; allowed: a number from %d to %d", quote(text), low, high)
		}
		return n, nil
	}
}

func durationBetween(low, high time.Duration) parser[time.Duration] {
	return func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil || d < low || d > high {
			return 0, fmt.Errorf("%s is not allowed; allowed: a duration like 30s or 5m, from %v to %v", quote(text), low, high)
		}
		return d, nil
	}
}

// listenAddress is where to listen; "off" is nowhere.
func listenAddress(text string) (string, error) {
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "off") {
		return "", nil
	}
	_, port, err := net.SplitHostPort(text)
	if _, badPort := strconv.ParseUint(port, 10, 16); err != nil || badPort != nil {
		return "", fmt.Errorf("%s is not allowed; allowed: host:port like 127.0.0.1:8080, or empty for none", quote(text))
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
	return false, fmt.Errorf("%s is not allowed; allowed: true or false", quote(text))
}

// oneOf matches without regard to case, spaces, - and _, as the console's
// labels ("Identities Only") and the gateway's own values differ in these.
func oneOf[T any](choices ...T) parser[T] {
	return func(text string) (T, error) {
		names := make([]string, len(choices))
		for n, choice := range choices {
			names[n] = fmt.Sprint(choice)
			if folded(names[n]) == folded(text) {
				return choice, nil
			}
		}
		var none T
		return none, fmt.Errorf("%s is not allowed; allowed: %s", quote(text), strings.Join(names, ", "))
	}
}

func folded(text string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(text))
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func uuid(text string) (string, error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	if !uuidForm.MatchString(lower) {
		return "", fmt.Errorf("%s is not a UUID; allowed: the form 00000000-0000-0000-0000-000000000000", quote(text))
	}
	return lower, nil
}

// gatewayURL is a base that paths are appended to.
func gatewayURL(text string) (*url.URL, error) {
	if strings.ContainsAny(text, "?#") {
		return nil, errors.New("it has a query or a fragment; allowed: scheme, host, port and path")
	}
	return httpsURL(strings.TrimRight(strings.TrimSpace(text), "/"))
}

// httpsURL never quotes the URL: credentials may be anywhere in it.
func httpsURL(text string) (*url.URL, error) {
	const allowed = "allowed: https://HOST/..., or http:// on loopback"
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("it is not a URL with a host; " + allowed)
	}
	if port := u.Port(); port != "" {
		if _, err := between(1, 65535)(port); err != nil {
			return nil, fmt.Errorf("port %w", err)
		}
	}
	switch {
	case u.User != nil:
		return nil, errors.New("it has a user name or password in it, which have keys of their own; " + allowed)
	case u.Fragment != "":
		return nil, errors.New("it has a fragment; " + allowed)
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	case u.Scheme == "http":
		return nil, errors.New("http would send credentials in the clear; " + allowed)
	}
	return nil, errors.New("it is neither https nor http; " + allowed)
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && address.Unmap().IsLoopback()
}

func urlPath(text string) (string, error) {
	if !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || strings.ContainsAny(text, "?#\\ \t") {
		return "", fmt.Errorf("%s is not a path; allowed: /like/this, without a host, query or fragment", quote(text))
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

// hostOf parses the host of <prefix>.host; an IPv6 address loses its brackets.
func hostOf(prefix string) parser[string] {
	return func(text string) (string, error) {
		host := strings.TrimSpace(text)
		bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if _, err := netip.ParseAddr(bare); err == nil {
			return bare, nil
		}
		const allowed = "allowed: a host name or an IP address"
		switch {
		case hostForm.MatchString(host):
			return host, nil
		case host == "":
			return "", errors.New("there is an empty host; " + allowed)
		case strings.Contains(host, "://"):
			return "", fmt.Errorf("%s has a scheme; %s alone", quote(host), allowed)
		case strings.Contains(host, ":"):
			return "", fmt.Errorf("%s has a port: put the port into %s.port; %s alone", quote(host), prefix, allowed)
		}
		return "", fmt.Errorf("%s is not a host; %s", quote(host), allowed)
	}
}

// distinguishedName is a cheap check; the directory has the last word.
func distinguishedName(text string) (string, error) {
	if !strings.Contains(text, "=") {
		return "", fmt.Errorf("%s is not a DN; allowed: one like DC=corp,DC=example,DC=com", quote(text))
	}
	return text, nil
}

func filter(text string) (string, error) {
	if err := directory.CheckFilter(text); err != nil {
		return "", fmt.Errorf("%s is not an LDAP filter: %w; allowed: one in parentheses, like (department=Sales)", quote(text), err)
	}
	return text, nil
}

func certificateFile(path string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the file %s cannot be read: %w; allowed: the path of a readable file", quote(path), withoutPath(err))
	}
	certificates, err := directory.ParseCertificates(content)
	if err != nil {
		return nil, fmt.Errorf("the file %s is not a certificate: %w; allowed: X.509 in DER or PEM", quote(path), err)
	}
	return certificates, nil
}
