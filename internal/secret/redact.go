package secret

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

const (
	// minRedacted is the size from which a value is redacted. The replacement of shorter ones would
	// show them: it would stand in the place of common words.
	minRedacted = 4
	// minBeginning is the size from which the beginning of a value identifies it at the end of a
	// truncated text.
	minBeginning = 8
)

// Redact replaces the secrets in a text of a server to which they were sent. It finds them as they
// are and in the encodings in which they were sent: form, path, JSON and base64. It also finds the
// beginning of a secret before an ellipsis, where the text was truncated.
func Redact(text string, secrets ...Text) string {
	var encodings []string
	for _, s := range secrets {
		if value := s.Reveal(); len(value) >= minRedacted {
			encodings = append(encodings, encodingsOf(value)...)
		}
	}
	// The longest first, so that no encoding is replaced in part.
	slices.SortFunc(encodings, func(a, b string) int { return len(b) - len(a) })
	for _, encoding := range encodings {
		text = strings.ReplaceAll(text, encoding, redacted)
	}
	truncated, found := strings.CutSuffix(text, "…")
	if !found {
		return text
	}
	for _, encoding := range encodings {
		for n := min(len(encoding), len(truncated)); n >= minBeginning; n-- {
			if strings.HasSuffix(truncated, encoding[:n]) {
				return truncated[:len(truncated)-n] + redacted
			}
		}
	}
	return text
}

// encodingsOf returns a value in the encodings in which requests contain it, and with the white space
// that a text in one line has.
func encodingsOf(value string) []string {
	quoted, _ := json.Marshal(value) // a string has JSON
	list := []string{value, strings.Join(strings.Fields(value), " "), url.QueryEscape(value), url.PathEscape(value), string(quoted[1 : len(quoted)-1]), base64.StdEncoding.EncodeToString([]byte(value))}
	list = slices.DeleteFunc(list, func(encoding string) bool { return len(encoding) < minRedacted })
	slices.Sort(list)
	return slices.Compact(list)
}
