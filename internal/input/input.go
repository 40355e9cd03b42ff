// Package input reads values that people enter in a setting or in the console. It parses
// choices and hosts, and finds probable mistakes, such as quotation marks around a value.
//
// No error contains a part of a value that can be a secret.
package input

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// HidesValue reports whether a refused value could contain credentials, as user:password@host does.
func HidesValue(text string) bool { return strings.Contains(text, "@") }

// Quote returns a refused value for an error, unless it could contain credentials.
func Quote(text string) string {
	if HidesValue(text) {
		return "the value"
	}
	return fmt.Sprintf("%.80q", text)
}

// ValueError is the error of a value that is not allowed.
type ValueError struct {
	Text    string
	Err     error  // what is wrong with the value, as a predicate
	Allowed string // the allowed values
}

// Error returns the quoted value, its fault, and its probable mistakes.
func (e *ValueError) Error() string {
	text := Quote(e.Text) + " " + e.Err.Error()
	if errors.Is(e.Err, ErrMissing) {
		return e.Err.Error()
	}
	if mistakes := Mistakes(e.Text); len(mistakes) > 0 {
		text += " (" + Join(mistakes).Error() + ")"
	}
	return text
}

// Unwrap returns the fault of the value and its probable mistakes.
func (e *ValueError) Unwrap() []error { return append([]error{e.Err}, Mistakes(e.Text)...) }

// Choice is an allowed value of an enumeration.
type Choice[T any] struct {
	Value T
	Names []string // the documented name first
}

// Faults of a choice.
var (
	ErrNotAllowed = errors.New("is not allowed")
	ErrMissing    = errors.New("is missing")
)

// Choose returns the value of the choice with a name. It ignores case, white space, hyphens,
// dashes and underscores, in which labels ("Identities Only") and documented names differ.
func Choose[T any](choices []Choice[T], text string) (T, error) {
	names := make([]string, len(choices))
	for n, choice := range choices {
		names[n] = choice.Names[0]
		for _, name := range choice.Names {
			if normalize(name) == normalize(text) {
				return choice.Value, nil
			}
		}
	}
	err := ErrNotAllowed
	if strings.TrimSpace(text) == "" {
		err = ErrMissing
	}
	return *new(T), &ValueError{Text: text, Err: err, Allowed: strings.Join(names, ", ")}
}

func normalize(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.In(r, unicode.Pd, unicode.Pc, unicode.Cf) {
			return -1
		}
		return unicode.ToUpper(r)
	}, name)
}
