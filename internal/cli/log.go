package cli

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
)

// newLogger makes the one logger that everything is given. An unknown level or
// format, which the configuration has reported, means the default.
func newLogger(stderr io.Writer, format, level string) zerolog.Logger {
	if format == "console" || format == "" && isTerminal(stderr) {
		stderr = zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.TimeOnly, NoColor: !isTerminal(stderr)}
	}
	parsed, err := zerolog.ParseLevel(level)
	if err != nil || parsed < zerolog.TraceLevel || parsed > zerolog.ErrorLevel {
		parsed = zerolog.InfoLevel
	}
	// Several goroutines log.
	return zerolog.New(zerolog.SyncWriter(stderr)).Level(parsed).Hook(utc{})
}

// utc stamps each line: RFC 3339, UTC, with milliseconds, wherever the process runs.
type utc struct{}

func (utc) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && file.Name() != os.DevNull
}
