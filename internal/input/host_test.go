package input

import (
	"errors"
	"testing"
)

func TestParseHost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"dc1": "dc1", " dc1.corp.example.com\n": "dc1.corp.example.com", "10.0.0.5": "10.0.0.5", "[::1]": "::1", "fd00::2": "fd00::2",
		"dc_1": "dc_1", "corp.example.com.": "corp.example.com.", "münchen": "münchen",
	} {
		if got, err := ParseHost(text); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]error{
		"": ErrNotHost, "dc1 dc2": ErrNotHost, "dc1/": ErrNotHost, "corp\\dc1": ErrNotHost, "ldap://dc1": ErrHostScheme, "ldaps://dc1:636": ErrHostScheme,
		"dc1:636": ErrHostPort, "[::1]:389": ErrHostPort, "dc1;dc2": ErrSemicolon, "\"dc1\"": InQuotes, "dc1 # primary": HasComment,
	} {
		_, err := ParseHost(text)
		if refused, is := errors.AsType[*ValueError](err); !is || !errors.Is(err, want) || refused.Allowed == "" {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}
