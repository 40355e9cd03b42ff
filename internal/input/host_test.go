package input

import (
	"errors"
	"strings"
	"testing"
)

func TestParseHost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"dc1": "dc1", " dc1.corp.example.com\n": "dc1.corp.example.com", "10.0.0.5": "10.0.0.5", "[::1]": "::1", "fd00::2": "fd00::2",
		"dc_1": "dc_1", "corp.example.com.": "corp.example.com.", "münchen": "münchen",
		"007": "007", "3com.example.com": "3com.example.com", "dc1.corp.x9": "dc1.corp.x9", strings.Repeat("a", 63) + ".com": strings.Repeat("a", 63) + ".com",
		strings.Repeat("ü", 40): strings.Repeat("ü", 40), "2001:db8::1": "2001:db8::1",
	} {
		if got, err := ParseHost(text); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]error{
		"": ErrNotHost, "dc1 dc2": ErrNotHost, "dc1/": ErrNotHost, "corp\\dc1": ErrNotHost, "ldap://dc1": ErrHostScheme, "ldaps://dc1:636": ErrHostScheme,
		"10.0.0.300": ErrNotAddress, "10.0.5": ErrNotAddress, "10.0.0.5.6": ErrNotAddress, "010.0.0.5": ErrNotAddress, "10.0.0.300.": ErrNotAddress,
		"dc1..example.com": ErrNotName, ".example.com": ErrNotName, "-": ErrNotName, "dc1-.example.com": ErrNotName, ".": ErrNotName,
		strings.Repeat("a", 64) + ".com": ErrNotName, strings.Repeat("a.", 130) + "com": ErrNotHost,
		"dc1:636": ErrHostPort, "[::1]:389": ErrHostPort, "dc1;dc2": ErrSemicolon, "\"dc1\"": InQuotes, "dc1 # primary": HasComment,
	} {
		_, err := ParseHost(text)
		if refused, is := errors.AsType[*ValueError](err); !is || !errors.Is(err, want) || refused.Allowed == "" {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}
