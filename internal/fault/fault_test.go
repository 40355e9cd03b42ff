package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClassOf(t *testing.T) {
	refused := Operation{"bind", "dc1"}.Failed(Refused, errors.New("wrong password"), "correct it")
	for _, test := range []struct {
		name string
		err  error
		want Class
	}{
		{"error", refused, Refused},
		{"wrapped", fmt.Errorf("run: %w", refused), Refused},
		{"outermost class", &Error{Class: Incomplete, Err: refused}, Incomplete},
		{"canceled context", fmt.Errorf("search: %w", context.Canceled), Canceled},
		{"deadline", context.DeadlineExceeded, Transient},
		{"not an Error", errors.New("x"), Transient},
		{"nil", nil, Done},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ClassOf(test.err); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestText(t *testing.T) {
	cause := errors.New("cause")
	for want, err := range map[string]*Error{
		"search DC=x: cause":  {Op: "search", Object: "DC=x", Err: cause, Remedy: "not in the text"},
		"login: cause":        {Op: "login", Err: cause},
		"ldap.port: cause":    {Object: "ldap.port", Err: cause},
		"cause":               {Err: cause},
		"send a: read: cause": {Op: "send", Object: "a", Err: &Error{Op: "read", Err: cause}},
	} {
		if err.Error() != want || !errors.Is(err, cause) {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

func TestRemedy(t *testing.T) {
	inner := &Error{Err: errors.New("x"), Remedy: "inner"}
	other := &Error{Err: errors.New("y"), Remedy: "other"}
	for _, test := range []struct {
		name string
		err  error
		want string
	}{
		{"without remedy", errors.New("x"), ""},
		{"nil", nil, ""},
		{"own remedy", inner, "inner"},
		{"remedy of the cause", &Error{Err: fmt.Errorf("wrapped: %w", inner)}, "inner"},
		{"outermost remedy", &Error{Err: inner, Remedy: "outer"}, "outer"},
		{"joined", errors.Join(inner, other, inner), "inner; other"},
		{"several causes", fmt.Errorf("%w %w", errors.New("x"), other), "other"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Remedy(test.err); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// TestShorten tests that names of any size do not make the text and the remedy of an error larger than
// what a log and a state file can keep.
func TestShorten(t *testing.T) {
	long := strings.Repeat("é", maxTextSize/2+1)
	for name, err := range map[string]*Error{
		"object": {Op: "bind", Object: long, Err: errors.New("x"), Remedy: "y"},
		"cause":  {Op: "bind", Err: errors.New(long), Remedy: long},
		"only":   {Err: errors.New(long)},
	} {
		for _, text := range []string{err.Error(), Remedy(err)} {
			if len(text) > maxTextSize || !utf8.ValidString(text) || len(text) > 1 && !strings.HasSuffix(text, "é…") {
				t.Errorf("%s: %d bytes, %q", name, len(text), text[max(0, len(text)-20):])
			}
		}
	}
	fits := strings.Repeat("x", maxTextSize)
	if err := (&Error{Err: errors.New(fits), Remedy: fits}); err.Error() != fits || Remedy(err) != fits {
		t.Error("text of the maximum size is shortened")
	}
}

func TestRemedies(t *testing.T) {
	low, high := &Error{Object: "a.low", Err: errors.New("1"), Remedy: "allowed: 2"}, &Error{Object: "b.high", Err: errors.New("9"), Remedy: "allowed: 8"}
	for want, err := range map[string]error{
		"allowed: 2":                            low,
		"a.low: allowed: 2\nb.high: allowed: 8": errors.Join(low, errors.New("x"), high),
		"":                                      errors.Join(errors.New("x"), errors.New("y")),
	} {
		if got := Remedies(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAll(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	several := Operation{"open", "file"}.Failed(Invalid, fmt.Errorf("%w: %w", a, b), "remedy")
	for name, test := range map[string]struct {
		err  error
		want []error
	}{
		"single error":                     {a, []error{a}},
		"joined":                           {errors.Join(a, errors.Join(b, c)), []error{a, b, c}},
		"error with several causes":        {several, []error{several}},
		"joined error with several causes": {errors.Join(several, c), []error{several, c}},
	} {
		if got := All(test.err); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
