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

// envLine is a setting of an env file.
type envLine struct {
	number     int
	key, value string
}

// badLine is a line that Docker would refuse. It never holds what the line says.
type badLine struct {
	number int
	err    error
}

// keyAndValue is what a line may be.
const keyAndValue = "KEY=VALUE"

// parseEnvFile reads content as docker run --env-file does (docker/cli,
// pkg/kvfile), except that it goes on after a bad line to find them all.
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

// parseEnvLine returns no key for a line that sets nothing.
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
		return envLine{}, invalid(fmt.Errorf("%w: there is no key", errLine), keyAndValue)
	}
	if strings.ContainsAny(key, " \t") {
		return envLine{}, invalid(fmt.Errorf("%w: there is white space in the key", errLine), keyAndValue)
	}
	if !hasValue {
		i := slices.IndexFunc(environ, func(pair string) bool { return strings.HasPrefix(pair, key+"=") })
		if i < 0 {
			return envLine{}, nil
		}
		return envLine{key: key, value: environ[i][len(key)+1:]}, nil
	}
	value, ok := throughGodotenv(value)
	if !ok {
		return envLine{}, invalid(errLine, keyAndValue)
	}
	return envLine{key: key, value: value}, nil
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
