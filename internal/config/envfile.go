package config

import (
	"bufio"
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/joho/godotenv"
)

// envLine is a setting in an env file.
type envLine struct {
	number     int
	key, value string
}

// badLine is a line that Docker refuses. It does not contain the text, which can be a secret.
type badLine struct {
	number int
	err    error
}

// keyAndValue is the allowed form of a line.
const keyAndValue = "KEY=VALUE"

// parseEnvFile parses an env file like docker run --env-file (docker/cli, pkg/kvfile), but it
// continues after a bad line.
func parseEnvFile(content []byte, environ []string) (lines []envLine, bad []badLine) {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	number := 0
	for raw := range bytes.SplitSeq(content, []byte("\n")) {
		number++
		line, err := parseEnvLine(raw, environ)
		if err != nil {
			bad = append(bad, badLine{number, err})
		} else if line.key != "" {
			line.number = number
			lines = append(lines, line)
		}
	}
	return lines, bad
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
		return envLine{}, invalid(fmt.Errorf("%w: missing key", errLine), keyAndValue)
	}
	if strings.ContainsAny(key, " \t") {
		return envLine{}, invalid(fmt.Errorf("%w: white space in the key", errLine), keyAndValue)
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
