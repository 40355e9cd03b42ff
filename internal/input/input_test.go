package input

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       []error
	}{
		{"none", `CN=Zoë O'Neil\, jr,OU=A "b" c #1,DC=corp`, nil},
		{"strong password", `p$a"s's%w#o\rd&{x}`, nil},
		{"percent sign before a word", "100%sure 5%20", []error{PercentEncoded}},
		{"percent sign before digits", "50%12", nil},
		{"double quotes", `"hush"`, []error{InQuotes}},
		{"single quotes", `'hush'`, []error{InQuotes}},
		{"typographic quotes", "“hush”", []error{InQuotes}},
		{"German quotes", "„hush“", []error{InQuotes}},
		{"quote at the beginning", `"hush`, []error{BeginsWithQuote}},
		{"quote at the end", "hush’", []error{EndsWithQuote}},
		{"one quote only", `"`, []error{BeginsWithQuote}},
		{"space at the end", "hush ", []error{EndsWithSpace}},
		{"space at the beginning", " hush", []error{BeginsWithSpace}},
		{"tabs", "\thush\t", []error{BeginsWithTab, EndsWithTab}},
		{"carriage return", "hush\r", []error{EndsWithReturn}},
		{"CRLF", "hush\r\n", []error{EndsWithReturn, EndsWithFeed}},
		{"line feeds", "\nhush\n\n", []error{BeginsWithFeed, EndsWithFeed}},
		{"quotes before a carriage return", "'hush'\r", []error{EndsWithReturn, InQuotes}},
		{"byte order mark", "\ufeffhush", []error{BeginsWithMark}},
		{"no-break space", "hush\u00a0", []error{EndsInvisibly}},
		{"zero-width space", "hu\u200bsh", []error{HasInvisible}},
		{"no-break space inside", "hu\u00a0sh", []error{HasInvisible}},
		{"line break inside", "hush\nhush", []error{HasControl}},
		{"full-width", "ｈush", []error{HasFullWidth}},
		{"ideographic space", "hush\u3000", []error{EndsInvisibly}},
		{"replacement character", "h\ufffdsh", []error{HasReplacement}},
		{"Latin-1", "h\xfcsh", []error{NotUTF8}},
		{"comment", "hush # of the service", []error{HasComment}},
		{"comment after a tab", "hush\t# of the service", []error{HasControl, HasComment}},
		{"percent-encoded", "h%40sh", []error{PercentEncoded}},
		{"shell variable", "${LDAP_PASSWORD}", []error{Variable}},
		{"plain shell variable", "$LDAP_PASSWORD", []error{Variable}},
		{"password like a variable", "$ecret", nil},
		{"command", "$(cat file)", []error{Variable}},
		{"template", "{{ .Values.password }}", []error{Variable}},
		{"Windows variable", "%PASSWORD%", []error{Variable}},
		{"blanks only", " \n", []error{OnlyBlank}},
		{"invisible only", "\u200b", []error{OnlyBlank}},
		{"empty", "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Mistakes(test.text)
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
			if (Join(got) == nil) != (len(test.want) == 0) || (Remedy(got) == "") != (len(test.want) == 0) {
				t.Errorf("%v: remedy %q", Join(got), Remedy(got))
			}
		})
	}
}

// FuzzMistakes tests that every mistake is one of the constant ones, so that no text about a value
// contains a part of it.
func FuzzMistakes(f *testing.F) {
	f.Add("hush \r\n")
	f.Add("\"h%40ush\"")
	f.Fuzz(func(t *testing.T, text string) {
		for _, mistake := range Mistakes(text) {
			known, is := mistake.(*Mistake) //nolint:errorlint // mistakes are not wrapped
			if !is || known.Remedy() == "" {
				t.Errorf("%T without a remedy", mistake)
			}
		}
	})
}

func TestChoose(t *testing.T) {
	t.Parallel()
	choices := []Choice[int]{{1, []string{"ONE_LEVEL", "ONE"}}, {2, []string{"SUBTREE"}}}
	for text, want := range map[string]int{
		"ONE_LEVEL": 1, "one level": 1, "One-Level": 1, "One\u00a0Level": 1, "one–level": 1, " onelevel\r\n": 1, "one": 1, "SubTree": 2, "sub_tree": 2,
	} {
		if got, err := Choose(choices, text); got != want || err != nil {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "tree", "ONE LEVELS", `"SUBTREE"`} {
		_, err := Choose(choices, text)
		refused, is := errors.AsType[*ValueError](err)
		if !is || refused.Text != text || refused.Allowed != "ONE_LEVEL, SUBTREE" {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Choose(choices, " "); !errors.Is(err, ErrMissing) || err.Error() != ErrMissing.Error() {
		t.Errorf("no value: %v", err)
	}
	if _, err := Choose(choices, `"SUBTREE"`); !errors.Is(err, InQuotes) {
		t.Errorf("quotes not reported: %v", err)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\nb":                   `"a\nb"`,
		"ldap://me:hush@dc1":     "the value",
		strings.Repeat("x", 100): `"` + strings.Repeat("x", 80) + `"`,
	} {
		if got := Quote(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestIsUTF16(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": false, "ab": false, "a\x00": false, "KEY=value\n": false, "\xef\xbb\xbfKEY=value": false, "\x30\x82\x00\x01\x00\x02\x03\x04": false,
		"\xff\xfe": true, "\xfe\xff\x00K": true, "K\x00E\x00Y\x00=\x00": true, "\x00K\x00E\x00Y\x00=": true, "K\x00E\x00Y\x00=\x00a\x00\xe4\x01": true,
	} {
		if got := IsUTF16([]byte(text)); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}
