package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"adconnector/internal/syncrun"
)

func TestMeasureProgress(t *testing.T) {
	for name, test := range map[string]struct {
		phase                            string
		expected, read, changed, settled int64
		elapsed                          time.Duration
		done                             int64
		text                             string
	}{
		"connecting":                 {"connect", 100, 0, 0, 0, time.Hour, 0, "connecting"},
		"waiting for another run":    {phaseWaiting, 0, 0, 0, 0, time.Second, 0, "waiting for the current run of the daemon"},
		"just started":               {"read", 0, 10, 10, 0, time.Millisecond, 0, "10 read, 0 of 10 sent"},
		"nothing sent yet":           {"read", 100, 10, 10, 0, time.Second, 0, "10 read, 0 of 10 sent"},
		"no changes":                 {"read", 100, 40, 0, 0, time.Second, 40, "40 read, no changes yet, 40/s, 2s left"},
		"unchanged objects are done": {"read", 100, 40, 10, 0, time.Second, 30, "40 read, 0 of 10 sent, 30/s, 3s left"},
		"sent objects are done":      {"read", 100, 40, 40, 20, 2 * time.Second, 20, "40 read, 20 of 40 sent, 10/s, 8s left"},
		"unknown total":              {"drain", 0, 40, 40, 20, 2 * time.Second, 20, "40 read, 20 of 40 sent, 10/s"},
		"more than expected":         {"read", 30, 40, 0, 0, 2 * time.Second, 40, "40 read, no changes yet, 20/s"},
		"deletions are not read":     {"drain", 50, 50, 0, 5, time.Second, 50, "50 read, 5 of 5 sent, 50/s"},
		"only deletions":             {"drain", 50, 0, 0, 5, time.Second, 0, "0 read, 5 of 5 sent"},
		"one hour":                   {"read", 36_000, 20_000, 20_000, 10_000, 3600 * time.Second, 10_000, "20,000 read, 10,000 of 20,000 sent, 3/s, 2h36m0s left"},
	} {
		t.Run(name, func(t *testing.T) {
			var p syncrun.Progress
			p.SetPhase(test.phase)
			p.Expected.Store(test.expected)
			p.Read.Store(test.read)
			p.Changed.Store(test.changed)
			p.Acknowledged.Store(test.settled)
			s := measureProgress(&p)
			if got := s.text(test.elapsed); got != test.text || s.done != test.done {
				t.Errorf("%q with %d done, want %q with %d", got, s.done, test.text, test.done)
			}
		})
	}
}

// TestScreen tests that lines appear above the bar, which is drawn again below them.
func TestScreen(t *testing.T) {
	for name, expected := range map[string]int64{"bar": 1000, "spinner": 0} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s := &screen{out: &out}
			line := func(text string) {
				t.Helper()
				if _, err := s.Write([]byte(text + "\n")); err != nil {
					t.Fatal(err)
				}
			}
			line("before")
			s.show(progressSnapshot{expected: expected, read: 300, done: 250}, time.Second)
			line("between")
			s.show(progressSnapshot{expected: expected, read: 2000, done: 2000}, time.Second) // more than expected
			s.show(progressSnapshot{expected: expected, read: 2001, done: 2001}, time.Second)
			s.remove()
			line("after")
			if got := renderTerminal(out.String()); got != "before\nbetween\nafter\n" {
				t.Errorf("terminal %q", got)
			}
			text := out.String()
			if bar := strings.Index(text[strings.Index(text, "between"):], "300 read"); bar < 0 || !strings.Contains(text, "2,001 read") {
				t.Errorf("bar not drawn again: %q", text)
			}
		})
	}
}

// renderTerminal returns what a terminal shows. A carriage return moves to the start of the
// line, which the next text overwrites; ESC [2K clears the line.
func renderTerminal(output string) string {
	var screen strings.Builder
	var line []rune
	column := 0
	for rest := []rune(output); len(rest) > 0; {
		switch {
		case strings.HasPrefix(string(rest[:min(4, len(rest))]), "\x1b[2K"):
			line, rest = nil, rest[4:]
		case strings.HasPrefix(string(rest[:min(4, len(rest))]), "\x1b[0K"):
			line, rest = line[:min(column, len(line))], rest[4:]
		case rest[0] == '\r':
			column, rest = 0, rest[1:]
		case rest[0] == '\n':
			screen.WriteString(string(line) + "\n")
			line, column, rest = nil, 0, rest[1:]
		default:
			for len(line) <= column {
				line = append(line, ' ')
			}
			line[column] = rest[0]
			column, rest = column+1, rest[1:]
		}
	}
	return screen.String() + strings.TrimRight(string(line), " ")
}
