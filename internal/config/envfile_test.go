package config

import (
	"bufio"
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEnvFile(t *testing.T) {
	t.Parallel()
	environ := []string{"FROM_ENV=of the process", "quoted.key='kept'", "EMPTY="}
	for _, c := range []struct {
		name, content string
		want          []envLine
		bad           []int
	}{
		{"plain", "a=b\n", []envLine{{1, "a", "b"}}, nil},
		{"no trailing newline", "a=b", []envLine{{1, "a", "b"}}, nil},
		{"empty file", "", nil, nil},
		{"dots and hyphens in the key", "service.cron-expression=*/10 * * * *", []envLine{{1, "service.cron-expression", "*/10 * * * *"}}, nil},
		{"any character in the key", "ä:$x\"=1", []envLine{{1, `ä:$x"`, "1"}}, nil},
		{"export is part of the key", "export a=b", nil, []int{1}},
		{"dollar", "a=pa$$word$HOME${HOME}$(id)", []envLine{{1, "a", "pa$$word$HOME${HOME}$(id)"}}, nil},
		{"hash", "a=b #c#d # e", []envLine{{1, "a", "b #c#d # e"}}, nil},
		{"hash first in the value", "a=#b", []envLine{{1, "a", "#b"}}, nil},
		{"double quotes", `a="b c"`, []envLine{{1, "a", `"b c"`}}, nil},
		{"single quotes", `a='b'`, []envLine{{1, "a", `'b'`}}, nil},
		{"one quote", `a="b`, []envLine{{1, "a", `"b`}}, nil},
		{"backslashes", `a=\n\"\\`, []envLine{{1, "a", `\n\"\\`}}, nil},
		{"spaces around the value", "a=  b  \t", []envLine{{1, "a", "  b  \t"}}, nil},
		{"spaces before the key", " \t\u00a0a=b", []envLine{{1, "a", "b"}}, nil},
		{"equals signs in the value", "a==b=c=", []envLine{{1, "a", "=b=c="}}, nil},
		{"percent and plus", "a=100%+%41 b", []envLine{{1, "a", "100%+%41 b"}}, nil},
		{"unicode", "a=pässwörd 🔑\u2028", []envLine{{1, "a", "pässwörd 🔑\u2028"}}, nil},
		{"control characters", "a=\x00\x01\v\f\u0085", []envLine{{1, "a", "\x00\x01\v\f\u0085"}}, nil},
		{"empty value", "a=", []envLine{{1, "a", ""}}, nil},
		{"comments and empty lines", "# a=b\n\n  \t\n  # c\n#\nd=e", []envLine{{6, "d", "e"}}, nil},
		{"byte order mark", "\xef\xbb\xbfa=b", []envLine{{1, "a", "b"}}, nil},
		{"byte order mark before a comment", "\xef\xbb\xbf# a=b\nc=d", []envLine{{2, "c", "d"}}, nil},
		{"byte order mark on another line is part of the key", "a=b\n\xef\xbb\xbfc=d", []envLine{{1, "a", "b"}, {2, "\ufeffc", "d"}}, nil},
		{"CRLF", "a=b\r\n\r\nc=d\r\n", []envLine{{1, "a", "b"}, {3, "c", "d"}}, nil},
		{"CR within a line is kept", "a=b\rc=d\r\r\n", []envLine{{1, "a", "b\rc=d\r"}}, nil},
		{"the same key twice", "a=b\na=c", []envLine{{1, "a", "b"}, {2, "a", "c"}}, nil},
		{"key only, in the environment", "FROM_ENV\nquoted.key", []envLine{{1, "FROM_ENV", "of the process"}, {2, "quoted.key", "'kept'"}}, nil},
		{"key only, empty in the environment", "EMPTY", []envLine{{1, "EMPTY", ""}}, nil},
		{"key only, absent", "FROM", nil, nil},
		{"no key", "a=b\n=c\nd=e", []envLine{{1, "a", "b"}, {3, "d", "e"}}, []int{2}},
		{"white space in the key", "a b=c\nd\t=e\nf =g", nil, []int{1, 2, 3}},
		{"words without a key", "first line", nil, []int{1}},
		{"invalid UTF-8", "a=b\nc=\xff\n# \xff\n", []envLine{{1, "a", "b"}}, []int{2, 3}},
		{"longest line", "a=" + strings.Repeat("x", 65533), []envLine{{1, "a", strings.Repeat("x", 65533)}}, nil},
		{"line too long", "a=" + strings.Repeat("x", 65534) + "\nb=c", []envLine{{2, "b", "c"}}, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, bad, _ := parseEnvFile([]byte(c.content), environ)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %.300v, want %.300v", got, c.want)
			}
			var numbers []int
			for _, b := range bad {
				numbers = append(numbers, b.number)
			}
			if !slices.Equal(numbers, c.bad) {
				t.Errorf("bad lines %v, want %v", numbers, c.bad)
			}
		})
	}
}

// FuzzEnvFile compares the parser with the rule in Docker's documentation, and with the scanner
// that Docker uses.
func FuzzEnvFile(f *testing.F) {
	for _, content := range []string{
		"a=b\n", "\xef\xbb\xbfa=b\r\n", "a=$x \"y\" # z", "# c\n =d\nb c=d\n\xff", "HOME\nhome", "a=%41+\\n", "export a='b",
	} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) >= bufio.MaxScanTokenSize {
			return // the scanner fails on long lines, which the table includes
		}
		got, bad, _ := parseEnvFile(content, []string{"HOME=/root"})
		refused := map[int]bool{}
		for _, b := range bad {
			refused[b.number] = true
		}
		next := 0
		scanner := bufio.NewScanner(bytes.NewReader(content))
		for number := 1; scanner.Scan(); number++ {
			text := scanner.Text()
			valid := utf8.ValidString(text)
			if number == 1 {
				text = strings.TrimPrefix(text, "\ufeff")
			}
			for text != "" {
				first, size := utf8.DecodeRuneInString(text)
				if !unicode.IsSpace(first) {
					break
				}
				text = text[size:]
			}
			end := strings.IndexByte(text, '=')
			key := text
			if end >= 0 {
				key = text[:end]
			}
			skipped := strings.HasPrefix(text, "#") || text == "" || text != "HOME" && end < 0 && !strings.ContainsAny(text, " \t")
			wrong := !valid || !(text == "" || text[0] == '#') && (end == 0 || strings.ContainsAny(key, " \t"))
			switch {
			case wrong != refused[number]:
				t.Fatalf("line %d %q: refused %v, want %v", number, text, refused[number], wrong)
			case wrong || skipped:
				continue
			case next == len(got):
				t.Fatalf("line %d %q missing", number, text)
			}
			want := envLine{number, key, "/root"}
			if end >= 0 {
				want.value = text[end+1:]
			}
			if got[next] != want {
				t.Fatalf("got %#v, want %#v", got[next], want)
			}
			next++
		}
		if next != len(got) {
			t.Fatalf("unexpected settings: %#v", got[next:])
		}
	})
}
