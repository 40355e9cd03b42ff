// Package secret keeps passwords, tokens and client secrets out of everything
// that prints. Whatever formats, logs or encodes a Text gets "[redacted]"; only
// Reveal, which is easy to search for, gives the value. It does not keep the value out
// of a dump of the memory, and knows nothing of what Reveal has given away.
package secret

import (
	"encoding/json"
	"errors"
	"fmt"
)

const redacted = "[redacted]"

// Text is a secret string.
type Text struct {
	// A pointer, because fmt ignores Format when it complains about a wrong verb
	// for a struct around this one, and then prints fields as they are.
	value *string
}

// New makes a secret of value.
func New(value string) Text { return Text{&value} }

// Reveal returns the secret itself, for the one place that sends it.
func (t Text) Reveal() string {
	if t.value == nil {
		return ""
	}
	return *t.value
}

// IsZero reports whether there is no secret.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Format redacts under every verb and flag.
func (t Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText redacts in JSON and in every other text encoding.
func (t Text) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalJSON takes the secret from an answer. Its error does not quote the input.
func (t *Text) UnmarshalJSON(data []byte) error {
	var value string
	if json.Unmarshal(data, &value) != nil {
		return errors.New("a secret must be a JSON string")
	}
	*t = New(value)
	return nil
}
