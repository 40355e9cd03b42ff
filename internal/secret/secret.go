// Package secret keeps passwords, tokens and client secrets out of logs and other
// output. Formatting, logging or encoding a Text yields "[redacted]". Only Reveal
// returns the value. The package does not protect against memory dumps.
package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
)

const redacted = "[redacted]"

// Text is a secret string.
type Text struct {
	// A pointer, because fmt prints the fields of an enclosing struct without calling
	// Format if the verb does not match.
	value *atomic.Pointer[string]
}

// New returns value as a secret.
func New(value string) Text { return NewVariable(value).Text() }

// Variable is a secret whose value can change. It is safe for concurrent use.
type Variable struct{ text Text }

// NewVariable returns a variable with a value.
func NewVariable(value string) *Variable {
	v := &Variable{Text{new(atomic.Pointer[string])}}
	v.Set(value)
	return v
}

// Text returns the secret. It has the present value whenever it is revealed.
func (v *Variable) Text() Text { return v.text }

// Set changes the value.
func (v *Variable) Set(value string) { v.text.value.Store(&value) }

// Reveal returns the value. Only code that sends it should call Reveal.
func (t Text) Reveal() string {
	if t.value == nil {
		return ""
	}
	return *t.value.Load()
}

// IsZero reports whether the secret is empty.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Format writes "[redacted]" for every verb and flag.
func (t Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText returns "[redacted]", for JSON and all other text encodings.
func (t Text) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalJSON reads the value from a JSON string. Its error does not quote the input.
func (t *Text) UnmarshalJSON(data []byte) error {
	var value string
	if json.Unmarshal(data, &value) != nil {
		return errors.New("secret is not a JSON string")
	}
	*t = New(value)
	return nil
}
