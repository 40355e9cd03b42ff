package config

import (
	"bufio"
	"bytes"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/joho/godotenv"
)

// envLine is a setting of an env file.
type envLine struct {
	number     int
	key, value string
}

// badLine is a line that Docker would refuse. It never holds what the line says.
type badLine struct {
	number int
	what   string
}

// parseEnvFile reads content as docker run --env-file does (docker/cli,
// pkg/kvfile), except that it goes on after a bad line to find them all.
func parseEnvFile(content []byte, environ []string) (lines []envLine, bad []badLine) {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	number := 0
	for raw := range bytes.SplitSeq(content, []byte("\n")) {
		number++
		line, what := parseEnvLine(raw, environ)
		if what != "" {
			bad = append(bad, badLine{number, what})
		} else if line.key != "" {
			line.number = number
			lines = append(lines, line)
		}
	}
	return lines, bad
}

// parseEnvLine returns no key for a line that sets nothing, and what is wrong
// with a line that is bad.
func parseEnvLine(raw []byte, environ []string) (line envLine, wrong string) {
	if len(raw) >= bufio.MaxScanTokenSize {
		return envLine{}, "the line is too long; allowed: less than 64 KiB"
	}
	if !utf8.Valid(raw) {
		return envLine{}, "the line is not valid UTF-8"
	}
	text := strings.TrimLeftFunc(strings.TrimSuffix(string(raw), "\r"), unicode.IsSpace)
	if text == "" || text[0] == '#' {
		return envLine{}, ""
	}
	key, value, hasValue := strings.Cut(text, "=")
	if key == "" {
		return envLine{}, "there is no key before the =; allowed: KEY=VALUE"
	}
	if strings.ContainsAny(key, " \t") {
		return envLine{}, "there is white space in the key; allowed: KEY=VALUE"
	}
	if !hasValue {
		i := slices.IndexFunc(environ, func(pair string) bool { return strings.HasPrefix(pair, key+"=") })
		if i < 0 {
			return envLine{}, ""
		}
		return envLine{key: key, value: environ[i][len(key)+1:]}, ""
	}
	value, ok := throughGodotenv(value)
	if !ok {
		return envLine{}, "the line cannot be read; allowed: KEY=VALUE"
	}
	return envLine{key: key, value: value}, ""
}

// throughGodotenv has godotenv read a value verbatim. Left to itself it refuses
// - in a key, expands $, cuts at " #", takes quotes off and quotes the file,
// secrets included, in its errors; Docker does none of this. So it gets a key it
// likes and the value in an encoding in which nothing is special to it.
func throughGodotenv(value string) (string, bool) {
	read, err := godotenv.Unmarshal("VALUE=" + url.QueryEscape(value))
	if err != nil {
		return "", false
	}
	plain, err := url.QueryUnescape(read["VALUE"])
	return plain, err == nil
}
