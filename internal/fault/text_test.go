package fault

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestOneLine(t *testing.T) {
	for _, test := range []struct {
		name, text string
		limit      int
		want       string
	}{
		{"printable", "Zoë 😀 a-b", 0, "Zoë 😀 a-b"},
		{"control characters", "a\x00\x1b[31mb\x7f", 0, "a [31mb"},
		{"reversed", "a\u202egnp.exe\u2066b", 0, "a gnp.exe b"},
		{"invisible", "a\u200b\ufeff\U000e0041b", 0, "a b"},
		{"lines", "  a\r\n\tb \u2028c\u00a0d ", 0, "a b c d"},
		{"invalid UTF-8", "a\xff\xe2\x80b", 0, "a���b"},
		{"at the limit", "abc", 3, "abc"},
		{"above the limit", "abcd", 3, "abc…"},
		{"space at the limit", "abc d", 3, "abc…"},
		{"space before the limit", "ab cd", 3, "ab …"},
		{"trailing space at the limit", "abc \n", 3, "abc"},
		{"empty", " \x00", 3, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := OneLine(test.text, test.limit); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func FuzzOneLine(f *testing.F) {
	f.Add("a\u202e\nb", uint8(2))
	f.Fuzz(func(t *testing.T, text string, limit uint8) {
		line := OneLine(text, int(limit))
		if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("unprintable at %d of %q", i, line)
		}
		if n := utf8.RuneCountInString(line); limit > 0 && n > int(limit)+1 {
			t.Errorf("%d characters, limit %d", n, limit)
		}
		if again := OneLine(line, 0); limit == 0 && again != line {
			t.Errorf("%q becomes %q", line, again)
		}
	})
}

// TestEscapeJSON tests that a JSON text has no character that a terminal executes, and keeps its value.
func TestEscapeJSON(t *testing.T) {
	const text = "a\u202eb\x1b[2J\x7f\u009b1m\u200b\U000e0041 ü日本"
	document, err := json.MarshalIndent(map[string]string{"text": text}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	escaped := EscapeJSON(document)
	if i := strings.IndexFunc(string(escaped), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%q is not printable in %q", escaped[i:], escaped)
	}
	var decoded map[string]string
	if err := json.Unmarshal(escaped, &decoded); err != nil || decoded["text"] != text {
		t.Errorf("%q, %v", decoded, err)
	}
	if !strings.Contains(string(escaped), "ü日本") {
		t.Errorf("%q", escaped)
	}
}
