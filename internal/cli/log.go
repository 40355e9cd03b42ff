package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// newLogger returns the logger of the program. Its level is that of hook. An unknown format
// means the default: the configuration reports it as an error. Only terminals get colors.
func newLogger(stderr io.Writer, format string, color bool, hook *levelHook) zerolog.Logger {
	if format == "console" || format == "" && isTerminal(stderr) {
		stderr = zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.TimeOnly, NoColor: !color || !isTerminal(stderr)}
	}
	return zerolog.New(zerolog.SyncWriter(timestampWriter{stderr})).Level(zerolog.TraceLevel).Hook(hook)
}

// timestampWriter inserts the time as the first key of each line: RFC 3339, UTC, with
// milliseconds. zerolog itself appends the time as the last key.
type timestampWriter struct{ out io.Writer }

// Write writes one line.
func (w timestampWriter) Write(line []byte) (int, error) {
	prefix := time.Now().UTC().AppendFormat([]byte(`{"time":"`), "2006-01-02T15:04:05.000Z")
	if _, err := w.out.Write(slices.Concat(prefix, []byte(`",`), line[1:])); err != nil {
		return 0, err
	}
	return len(line), nil
}

// levelHook is the level of all loggers. Unlike a level of the loggers themselves, it can
// change while they are in use.
type levelHook struct {
	level   atomic.Int32
	signals chan os.Signal
}

// newLevelHook returns a hook with the level info. From then on SIGUSR1 and SIGUSR2 no longer
// end the process.
func newLevelHook() *levelHook {
	h := &levelHook{signals: make(chan os.Signal, 8)}
	h.set("info")
	signal.Notify(h.signals, syscall.SIGUSR1, syscall.SIGUSR2)
	return h
}

// set sets the level by its name. An unknown name changes nothing: the configuration
// reports it as an error.
func (h *levelHook) set(name string) {
	level, err := zerolog.ParseLevel(name)
	if err == nil && level >= zerolog.TraceLevel && level <= zerolog.ErrorLevel {
		h.level.Store(int32(level))
	}
}

// Run implements zerolog.Hook: it discards lines below the level.
func (h *levelHook) Run(e *zerolog.Event, level zerolog.Level, _ string) {
	if level < zerolog.Level(h.level.Load()) {
		e.Discard()
	}
}

// followSignals changes the level until stop is called: SIGUSR1 one step toward trace, SIGUSR2
// one step toward error. The log line about a change is written at any level.
func (h *levelHook) followSignals(log zerolog.Logger) (stop func()) {
	log = log.With().Str("component", "log").Logger()
	return startWorker(context.Background(), func(ctx context.Context) {
		for {
			select {
			case received := <-h.signals:
				h.step(received, log)
			case <-ctx.Done():
				return
			}
		}
	})
}

func (h *levelHook) step(received os.Signal, log zerolog.Logger) {
	from := zerolog.Level(h.level.Load())
	to := max(from-1, zerolog.TraceLevel)
	if received == syscall.SIGUSR2 {
		to = min(from+1, zerolog.ErrorLevel)
	}
	h.level.Store(int32(min(from, to, zerolog.InfoLevel))) // so that the line below is not discarded
	log.Info().Stringer("from", from).Stringer("to", to).Msg(MsgLevelChanged)
	h.level.Store(int32(to))
}

// close stops receiving the signals.
func (h *levelHook) close() { signal.Stop(h.signals) }
