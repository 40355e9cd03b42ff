package testlog

import (
	"strings"
	"testing"
)

const connection = "11111111-2222-3333-4444-555555555555"

func TestForm(t *testing.T) {
	AddSecret(`s3cret "x"`)
	const validLine = `{"time":"2026-11-22T10:00:00.000Z","level":"info","component":"run","connection":"` + connection + `","run_id":"r","message":"run finished"}`
	for _, test := range []struct {
		name     string
		old, new string // one change to a valid line
		valid    bool
	}{
		{"valid", "", "", true},
		{"level first", `"time":"2026-11-22T10:00:00.000Z","level":"info"`, `"level":"info","time":"2026-11-22T10:00:00.000Z"`, false},
		{"level not second", `"level":"info","component":"run"`, `"component":"run","level":"info"`, false},
		{"local time", "10:00:00.000Z", "10:00:00.000+01:00", false},
		{"no time", `"time":"2026-11-22T10:00:00.000Z",`, "", false},
		{"unknown level", `"info"`, `"notice"`, false},
		{"no component", `"component":"run",`, "", false},
		{"no connection", `"connection":"` + connection + `",`, "", false},
		{"connection is not a UUID", connection, "c", false},
		{"empty value", `"r"`, `""`, false},
		{"null", `"r"`, `null`, false},
		{"list", `"r"`, `[1]`, false},
		{"unknown key", "run_id", "runId", false},
		{"key twice", `"run_id":"r"`, `"run_id":"r","run_id":"r"`, false},
		{"unknown message", "run finished", "run is finished", false},
		{"no message", `,"message":"run finished"`, "", false},
		{"secret", `"r"`, `"s3cret \"x\""`, false},
		{"not JSON", "{", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := strings.Replace(validLine, test.old, test.new, 1)
			if test.old != "" && text == validLine {
				t.Fatal("test changes nothing")
			}
			if _, err := new(Form).Check([]byte(text)); (err == nil) != test.valid {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestConnection checks the connection in lines before and after the configuration is read.
func TestConnection(t *testing.T) {
	line := func(component, connection string) string {
		return `{"time":"2026-11-22T10:00:00.000Z","level":"info","component":"` + component + `",` + connection + `"message":"started"}`
	}
	const one, other = `"connection":"` + connection + `",`, `"connection":"00000000-2222-3333-4444-555555555555",`
	for _, test := range []struct {
		name  string
		lines []string // all but the last are valid
		valid bool     // the last line
	}{
		{"before configuration", []string{line("cli", "")}, true},
		{"before and after configuration", []string{line("cli", ""), line("cli", one), line("run", one)}, true},
		{"missing after configuration", []string{line("cli", one), line("cli", "")}, false},
		{"missing in a run", []string{line("run", "")}, false},
		{"different connections", []string{line("run", one), line("run", other)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var form Form
			for n, text := range test.lines {
				last := n == len(test.lines)-1
				if _, err := form.Check([]byte(text)); (err == nil) != (test.valid || !last) {
					t.Errorf("line %d: %v", n, err)
				}
			}
		})
	}
}

// TestMessages checks the message constants of all packages.
func TestMessages(t *testing.T) {
	messages, err := Messages()
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) < 30 {
		t.Errorf("found only %d message constants", len(messages))
	}
	for _, message := range messages {
		if err := CheckMessage(message); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "Started", "one two three four five six seven eight nine"} {
		if CheckMessage(bad) == nil {
			t.Errorf("no error for message %q", bad)
		}
	}
}
