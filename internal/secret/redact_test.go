package secret_test

import (
	"testing"

	"adconnector/internal/secret"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	const token, password = "eyJhbGciOi.eyJzdWIi.c2ln", `p&"w <3é`
	for _, test := range []struct{ name, text, want string }{
		{"inside", "a " + token + " z", "a [redacted] z"},
		{"twice", token + token, "[redacted][redacted]"},
		{"in a path", "https://a/" + token + "/b", "https://a/[redacted]/b"},
		{"truncated", "a " + token[:20] + "…", "a [redacted]"},
		{"beginning without an ellipsis", "a " + token[:20], "a " + token[:20]},
		{"beginning of 8 characters", "a " + token[:8] + "…", "a [redacted]"},
		{"beginning of 3 characters", "eyJ…", "eyJ…"},
		{"none", "no token", "no token"},
		{"empty", "", ""},
		{"password", "x" + password + "y", "x[redacted]y"},
		{"form", "password=p%26%22w+%3C3%C3%A9&token=true", "password=[redacted]&token=true"},
		{"path", "/p&%22w%20%3C3%C3%A9/", "/[redacted]/"},
		{"JSON", `{"password":"p\u0026\"w \u003c3é"}`, `{"password":"[redacted]"}`},
		{"base64", "Basic cCYidyA8M8Op", "Basic [redacted]"},
		{"in one line", "a two words b", "a [redacted] b"},
		{"both", token + password, "[redacted][redacted]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := secret.Redact(test.text, secret.New(token), secret.Text{}, secret.New(password), secret.New("two \t words"), secret.New("to")); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
