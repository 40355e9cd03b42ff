package fault

import (
	"strings"
	"unicode"
)

// OneLine returns text from outside in a form that is fit for errors, logs, pages and
// terminals: one line of at most limit characters. Spaces replace unprintable characters, such
// as control characters and U+202E, which reverses the text after it. A longer text ends in
// "…". OneLine reads no more of the text than it needs; limit 0 means no limit.
func OneLine(text string, limit int) string {
	var line strings.Builder
	count, space := 0, false
	for _, r := range text {
		switch {
		case r == ' ' || !unicode.IsPrint(r):
			space = true
			continue
		case limit > 0 && count >= limit:
			return line.String() + "…"
		}
		if space && count > 0 {
			line.WriteByte(' ')
			if count++; count == limit {
				return line.String() + "…"
			}
		}
		space = false
		line.WriteRune(r)
		count++
	}
	return line.String()
}
