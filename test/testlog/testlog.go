// Package testlog records the connector's JSON log for tests.
package testlog

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Line is one line of a log.
type Line map[string]any

// Text returns the value of a string field, or "".
func (l Line) Text(key string) string {
	text, _ := l[key].(string)
	return text
}

// Number returns the value of a numeric field, or 0.
func (l Line) Number(key string) int {
	n, _ := l[key].(float64)
	return int(n)
}

// Message returns a function that matches lines with this message.
func Message(message string) func(Line) bool {
	return func(l Line) bool { return l.Text("message") == message }
}

// Field returns a function that matches lines whose string field has this value.
func Field(key, value string) func(Line) bool {
	return func(l Line) bool { return l.Text(key) == value }
}

// Parse decodes a line.
func Parse(text []byte) (Line, error) {
	line := Line{}
	if err := json.Unmarshal(text, &line); err != nil {
		return nil, fmt.Errorf("parse log line %q: %w", text, err)
	}
	return line, nil
}

// Log is an io.Writer that stores the lines written to it. The zero value is ready to
// use. Its methods are safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	lines   []Line
	changed chan struct{} // closed when a line is added; nil: no call of Await waits
}

// Write parses and appends one line. zerolog calls it once a line.
func (l *Log) Write(p []byte) (int, error) {
	line, err := Parse(p)
	if err != nil {
		return 0, err
	}
	l.Append(line)
	return len(p), nil
}

// Append adds a line.
func (l *Log) Append(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Lines returns the stored lines.
func (l *Log) Lines() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Line(nil), l.lines...)
}

// Find returns the stored lines that match.
func (l *Log) Find(match func(Line) bool) []Line {
	var found []Line
	for _, line := range l.Lines() {
		if match(line) {
			found = append(found, line)
		}
	}
	return found
}

// With returns the stored lines with this message.
func (l *Log) With(message string) []Line { return l.Find(Message(message)) }

// IdleLimit is the longest time that Await waits for a new line.
const IdleLimit = 3 * time.Minute

// Await returns the first line at or after index from that matches, and the next index.
// It returns false if ended is closed first, or after IdleLimit without a new line.
func (l *Log) Await(from int, match func(Line) bool, ended <-chan struct{}) (line Line, next int, ok bool) {
	for {
		l.mu.Lock()
		for ; from < len(l.lines); from++ {
			if match(l.lines[from]) {
				defer l.mu.Unlock()
				return l.lines[from], from + 1, true
			}
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		idle := time.NewTimer(IdleLimit)
		select {
		case <-changed:
			idle.Stop()
			continue
		case <-ended:
			idle.Stop()
		case <-idle.C:
		}
		// The line may have been added just before ended was closed.
		l.mu.Lock()
		defer l.mu.Unlock()
		for ; from < len(l.lines); from++ {
			if match(l.lines[from]) {
				return l.lines[from], from + 1, true
			}
		}
		return nil, from, false
	}
}

// MustAwait calls Await with index 0 and fails the test if no line matches.
func (l *Log) MustAwait(t testing.TB, match func(Line) bool) Line {
	t.Helper()
	line, _, ok := l.Await(0, match, t.Context().Done())
	if !ok {
		t.Fatalf("no matching log line in: %v", l.Lines())
	}
	return line
}
