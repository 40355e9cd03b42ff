package input

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
)

// Faults of a host.
var (
	ErrNotHost    = errors.New("is not a host")
	ErrHostScheme = errors.New("has a scheme")
	ErrHostPort   = errors.New("has a port")
	ErrSemicolon  = errors.New("has a semicolon")
)

var hostForm = regexp.MustCompile(`^[\pL\pN._-]+$`)

// ParseHost parses a host name or an IP address, and removes the brackets of an IPv6 address and
// white space around it. Its error is a ValueError.
func ParseHost(text string) (string, error) {
	host := strings.TrimSpace(text)
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil {
		return bare, nil
	}
	const allowed = "a host name or an IP address"
	refused := func(cause error, allowed string) (string, error) {
		return "", &ValueError{Text: host, Err: cause, Allowed: allowed}
	}
	switch {
	case hostForm.MatchString(host):
		return host, nil
	case strings.Contains(host, "://"):
		return refused(ErrHostScheme, allowed+" without a scheme")
	case strings.Contains(host, ";"):
		return refused(ErrSemicolon, allowed+", several separated by commas")
	case strings.Contains(host, ":"):
		return refused(ErrHostPort, allowed+" without a port")
	}
	return refused(ErrNotHost, allowed)
}
