package input

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"unicode"
)

// Faults of a host.
var (
	ErrNotHost    = errors.New("is not a host")
	ErrNotName    = errors.New("has a label that no host name can have")
	ErrNotAddress = errors.New("is not an IP address")
	ErrHostScheme = errors.New("has a scheme")
	ErrHostPort   = errors.New("has a port")
	ErrSemicolon  = errors.New("has a semicolon")
)

// isLabelRune reports whether a label of a host name can have a character: letters and digits of any
// script, hyphens, and underscores. A regular expression with \pL takes 50 KB of memory.
func isLabelRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r) || r == '-' || r == '_'
}

// IsLabel reports whether a text consists of characters that a label of a host name can have.
func IsLabel(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !isLabelRune(r) })
}

// hasHostForm reports whether a text consists of characters of labels and dots.
func hasHostForm(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r != '.' && !isLabelRune(r) })
}

var numericEnd = regexp.MustCompile(`\.[0-9]+\.?$`)

// checkName returns an error if a name can never be resolved: it has a label that is empty, too
// long, or begins or ends with a hyphen (RFC 1123 2.1), or it ends like an IPv4 address. The length
// of a label in other characters than ASCII depends on its encoding.
func checkName(name string) error {
	if numericEnd.MatchString(name) {
		return ErrNotAddress
	}
	const maxLabel, maxName = 63, 253
	name = strings.TrimSuffix(name, ".")
	for label := range strings.SplitSeq(name, ".") {
		isASCII := !strings.ContainsFunc(label, func(r rune) bool { return r > unicode.MaxASCII })
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || isASCII && len(label) > maxLabel {
			return ErrNotName
		}
	}
	if len(name) > maxName {
		return ErrNotHost
	}
	return nil
}

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
	case hasHostForm(host):
		if err := checkName(host); err != nil {
			return refused(err, allowed)
		}
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
