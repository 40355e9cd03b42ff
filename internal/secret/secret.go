// Package secret keeps passwords, tokens and client secrets out of logs and other
// output. Formatting, logging or encoding a Text yields "[redacted]". Only Reveal
// returns the value. The package does not protect against memory dumps.
package secret

import (
	"encoding/json"
	"errors"
	"fmt"
)

const redacted = "[redacted]"

// Text is a secret string.
type Text struct {
	// A pointer, because fmt prints the fields of an enclosing struct without calling
	// Format if the verb does not match.
	value *string
}

// New returns value as a secret.
func New(value string) Text { return Text{&value} }

// Reveal returns the value. Only code that sends it should call Reveal.
func (t Text) Reveal() string {
	if t.value == nil {
		return ""
	}
	return *t.value
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
