package config

import (
	"bufio"
	"bytes"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/joho/godotenv"

	"adconnector/internal/input"
)

// envLine is a setting in an env file.
type envLine struct {
	number     int
	key, value string
}

// badLine is a line that Docker refuses, or that is probably a mistake. The error does not contain
// the text, which can be a secret.
type badLine struct {
	number int
	meant  string // the key that the line probably sets; can be any text or ""
	err    error
}

// keyAndValue is the allowed form of a line.
const keyAndValue = "KEY=VALUE"

// lineError returns the error for a line that is not KEY=VALUE.
func lineError(cause error) error { return invalid(fmt.Errorf("%w: %w", errLine, cause), keyAndValue) }

// parseEnvFile parses an env file like docker run --env-file (docker/cli, pkg/kvfile), but it
// continues after a bad line. odd are lines that Docker accepts, but that set no key or another
// one than the one that they resemble, like KEY:VALUE or "KEY"="VALUE".
func parseEnvFile(content []byte, environ []string) (lines []envLine, bad, odd []badLine) {
	content = bytes.TrimPrefix(content, []byte(byteOrderMark))
	number := 0
	for raw := range bytes.SplitSeq(content, []byte("\n")) {
		number++
		line, err := parseEnvLine(raw, environ)
		if err != nil {
			bad = append(bad, badLine{number, meantKey(string(raw)), err})
			continue
		}
		isFromEnvironment := line.key == string(bytes.TrimSpace(raw))
		if m := oddLine.FindStringSubmatch(string(raw)); m != nil && line.key != m[2] && !isFromEnvironment {
			odd = append(odd, badLine{number, m[2], oddError(m[1] + m[3])})
		}
		if line.key != "" {
			line.number = number
			lines = append(lines, line)
		}
	}
	return lines, bad, odd
}

const byteOrderMark = "\xef\xbb\xbf"

var (
	colonLine   = regexp.MustCompile(`^\s*["']?[A-Za-z0-9._-]+["']?\s*([:：＝])`)
	oddLine     = regexp.MustCompile(`^([\s"'“”‘’\p{Cf}]*)([A-Za-z0-9._-]+)(["'“”‘’\p{Cf}\p{Zs}]*[:：＝=])`)
	exportLine  = regexp.MustCompile(`^(?i:export|set|setx|env|declare|local)\s`)
	exportedKey = regexp.MustCompile(`^\s*(?i:(?:export|set|setx|env|-)\s+)?["']?([A-Za-z0-9._-]+)`)
)

// meantKey returns the key that a line probably sets, or "".
func meantKey(line string) string {
	if m := exportedKey.FindStringSubmatch(line); m != nil {
		return m[1]
	}
	return ""
}

// oddError returns the fault of a line with characters around its key that belong neither to the
// key nor to the form of a line.
func oddError(around string) error {
	switch {
	case strings.ContainsAny(around, ":："):
		return lineError(errColon)
	case strings.Contains(around, "＝"):
		return lineError(errFullWidth)
	case strings.ContainsAny(around, "\"'“”‘’"):
		return lineError(errQuotedKey)
	}
	return lineError(errInvisible)
}

// describeKey returns the fault of a line whose key, the text before =, contains white space.
func describeKey(key string) error {
	colon := colonLine.FindStringSubmatch(key)
	switch {
	case exportLine.MatchString(key):
		return lineError(errExport)
	case colon != nil:
		return oddError(colon[1])
	case !strings.ContainsAny(strings.TrimSpace(key), " \t"):
		return lineError(errSpace)
	}
	return lineError(errKeySpace)
}

// checkEncoding returns an error if a file as a whole is not what Docker reads as lines: UTF-16,
// another file than a text file, or lines that end with a carriage return only.
func (l *loader) checkEncoding(content []byte) error {
	if input.IsUTF16(content) {
		return invalid(errUTF16, "UTF-8, in PowerShell: Set-Content -Encoding utf8")
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return invalid(errBinary, "a text file with lines KEY=VALUE")
	}
	for line := range bytes.SplitSeq(content, []byte("\n")) {
		_, rest, found := bytes.Cut(line, []byte("\r"))
		key, _, isSetting := bytes.Cut(bytes.TrimLeft(rest, "\r"), []byte("="))
		if _, isKey := l.spellings[string(key)]; found && isSetting && isKey {
			return invalid(errLineEnds, "LF or CRLF")
		}
	}
	return nil
}

// lineNumbers returns a description of ascending line numbers, such as "lines 1 to 3, 7".
func lineNumbers(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		last := i
		for last+1 < len(numbers) && numbers[last+1] == numbers[last]+1 {
			last++
		}
		part := strconv.Itoa(numbers[i])
		if last > i {
			part += " to " + strconv.Itoa(numbers[last])
		}
		parts = append(parts, part)
		i = last + 1
	}
	if len(numbers) == 1 {
		return "line " + parts[0]
	}
	const shown = 8
	if len(parts) > shown {
		parts = append(parts[:shown], "and more")
	}
	return "lines " + strings.Join(parts, ", ")
}

// parseEnvLine parses a line. The key is empty if the line sets nothing.
func parseEnvLine(raw []byte, environ []string) (envLine, error) {
	if len(raw) >= bufio.MaxScanTokenSize {
		return envLine{}, invalid(errLineTooLong, "less than 64 KiB")
	}
	if !utf8.Valid(raw) {
		return envLine{}, invalid(errNotUTF8, "UTF-8")
	}
	text := strings.TrimLeftFunc(strings.TrimSuffix(string(raw), "\r"), unicode.IsSpace)
	if text == "" || text[0] == '#' {
		return envLine{}, nil
	}
	key, value, hasValue := strings.Cut(text, "=")
	if key == "" {
		return envLine{}, lineError(errNoKey)
	}
	if strings.ContainsAny(key, " \t") {
		return envLine{}, describeKey(key)
	}
	if !hasValue {
		i := slices.IndexFunc(environ, func(pair string) bool { return strings.HasPrefix(pair, key+"=") })
		if i < 0 {
			return envLine{}, nil
		}
		return envLine{key: key, value: environ[i][len(key)+1:]}, nil
	}
	value, ok := readWithGodotenv(value)
	if !ok {
		return envLine{}, invalid(errLine, keyAndValue)
	}
	return envLine{key: key, value: value}, nil
}

// readWithGodotenv parses a value verbatim. Unlike Docker, godotenv refuses - in a key,
// expands $, cuts at " #", removes quotes, and quotes the file, with secrets, in its errors.
// So the value is encoded without special characters.
func readWithGodotenv(value string) (string, bool) {
	values, err := godotenv.Unmarshal("VALUE=" + url.QueryEscape(value))
	if err != nil {
		return "", false
	}
	decoded, err := url.QueryUnescape(values["VALUE"])
	return decoded, err == nil
}
