package testlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
)

// Keys contains all keys that a log line may have.
var Keys = strings.Fields(`time level message component connection
	run_id mode phase result reason error remedy class repeated failing_since
	dc dns_host_name domain_controller controllers answered base_dn scope filter invocation_id usn since page
	kind sid guid dn_hash objects skipped unparsed unreadable attributes values
	whole memberships affected
	batch attempt workers call status sent_bytes answer_bytes wait_ms until duration_ms
	users groups service_accounts roles domains reread changed uploaded deleted held undecided rejected requests retries dry_run
	from to next_run missed last cron state_dir address grace version before target
	peer issuer expires
	key nearest place messages signal request`)

var levels = []string{"trace", "debug", "info", "warn", "error"}

// MaxWords is the maximum number of words in a message.
const MaxWords = 8

// Form checks that the log lines of one process have the documented format. The zero
// value is ready to use.
type Form struct {
	mu         sync.Mutex
	connection string // in the previous lines
}

// Check decodes a line and returns all violations of the format.
func (f *Form) Check(text []byte) (Line, error) {
	line, err := Parse(text)
	if err != nil {
		return nil, err
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	keys, err := keysOf(text)
	if err != nil {
		fault("keys: %w", err)
	}
	if len(keys) < 2 || keys[0] != "time" || keys[1] != "level" {
		fault("first keys are not time and level")
	}
	for n, key := range keys {
		if slices.Contains(keys[:n], key) {
			fault("duplicate key %s", key)
		}
	}
	if _, err := time.Parse(time.RFC3339, line.Text("time")); err != nil || !strings.HasSuffix(line.Text("time"), "Z") {
		fault("time is not RFC 3339 in UTC")
	}
	if line.Text("component") == "" {
		fault("no component")
	}
	if err := f.checkConnection(line); err != nil {
		fault("connection: %w", err)
	}
	if err := CheckContent(line); err != nil {
		fault("%w", err)
	}
	if len(faults) > 0 {
		return line, fmt.Errorf("log line %s: %w", bytes.TrimSpace(text), errors.Join(faults...))
	}
	return line, nil
}

// checkConnection checks that all lines have the same connection. Only the command logs
// without a connection, before the configuration is read.
func (f *Form) checkConnection(line Line) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	connection := line.Text("connection")
	switch {
	case connection == "" && f.connection != "":
		return errors.New("missing after lines that contain it")
	case connection == "" && line.Text("component") != "cli" && line.Text("component") != "shutdown":
		return errors.New("missing in a component that starts after the configuration is read")
	case connection == "":
		return nil
	case f.connection != "" && connection != f.connection:
		return fmt.Errorf("differs from %s in previous lines", f.connection)
	}
	f.connection = connection
	return uuid.Validate(connection)
}

// CheckContent returns all format violations in the level, message, keys and values of a
// line. It ignores time, component and connection, which the command adds.
func CheckContent(line Line) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !slices.Contains(levels, line.Text("level")) {
		fault("level %q", line.Text("level"))
	}
	known, err := Messages()
	if err != nil {
		fault("%w", err)
	}
	if message := line.Text("message"); !slices.Contains(known, message) {
		fault("message %q is not a constant", message)
	} else if err := CheckMessage(message); err != nil {
		fault("%w", err)
	}
	for key, value := range line {
		if !slices.Contains(Keys, key) {
			fault("unknown key %s", key)
		}
		switch v := value.(type) {
		case nil:
			fault("%s is null", key)
		case string:
			if v == "" {
				fault("%s is empty", key)
			}
		case []any, map[string]any:
			fault("%s is a list or an object", key)
		}
	}
	if before, found := FindSecret(fmt.Sprint(line)); found {
		fault("secret after %q", before)
	}
	return errors.Join(faults...)
}

// CheckMessage returns an error unless a message has 1 to MaxWords words and begins in
// lower case. Later words may be abbreviations or identifiers.
func CheckMessage(message string) error {
	words := strings.Fields(message)
	switch {
	case len(words) == 0:
		return errors.New("empty message")
	case len(words) > MaxWords:
		return fmt.Errorf("message %q has %d words", message, len(words))
	case unicode.IsUpper([]rune(words[0])[0]):
		return fmt.Errorf("message %q begins in upper case", message)
	}
	return nil
}

// keysOf returns the keys of a JSON object in their order.
func keysOf(object []byte) ([]string, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	var keys []string
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return keys, err
		}
		keys = append(keys, fmt.Sprint(key))
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return keys, err
		}
	}
	return keys, nil
}

// Messages returns the message constants of all packages: the constants Msg* in the files
// internal/*/messages.go. It parses the source, because importing the packages would
// create import cycles with their tests.
var Messages = sync.OnceValues(func() ([]string, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(root, "internal", "*", "messages.go"))
	if err != nil {
		return nil, err
	}
	var messages []string
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			constant, is := node.(*ast.ValueSpec)
			if !is || !strings.HasPrefix(constant.Names[0].Name, "Msg") {
				return true
			}
			if text, is := constant.Values[0].(*ast.BasicLit); is {
				if message, err := strconv.Unquote(text.Value); err == nil {
					messages = append(messages, message)
				}
			}
			return true
		})
	}
	if len(messages) == 0 {
		return nil, fmt.Errorf("no message constants in %s", root)
	}
	return messages, nil
})

// moduleRoot returns the root directory of the module: the working directory or one of its
// parents.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(content, []byte("module adconnector\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find module adconnector: no go.mod in the working directory or its parents")
		}
	}
}

// Checked returns a writer that appends the lines of one process to the log. It fails the
// test for each line that does not have the documented format.
func (l *Log) Checked(t testing.TB) io.Writer { return &checked{t: t, log: l} }

type checked struct {
	t    testing.TB
	log  *Log
	form Form
}

// Write checks and appends one line.
func (c *checked) Write(text []byte) (int, error) {
	line, err := c.form.Check(text)
	if err != nil {
		c.t.Error(err)
	}
	if line != nil {
		c.log.Append(line)
	}
	return len(text), nil
}
