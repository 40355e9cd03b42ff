package fault

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
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

// EscapeJSON replaces each character of a JSON text that is not printable by its escape, also those that
// encoding/json leaves as they are: a terminal executes U+009B, and reverses the text after U+202E. Line
// ends and the values stay.
func EscapeJSON(line []byte) []byte {
	isUnprintable := func(r rune) bool { return r != '\n' && r != utf8.RuneError && !unicode.IsPrint(r) }
	if bytes.IndexFunc(line, isUnprintable) < 0 {
		return line
	}
	var escaped []byte
	for _, r := range string(line) {
		if !isUnprintable(r) {
			escaped = utf8.AppendRune(escaped, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
	}
	return escaped
}
