package cli

import (
	"context"
	"io"
	stdlog "log"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
)

// newLogger returns the logger of the program. Its level is that of hook. An unknown format
// means the default: the configuration reports it as an error. Only terminals get colors.
func newLogger(stderr io.Writer, format string, color bool, hook *levelHook) zerolog.Logger {
	if format == "console" || format == "" && isTerminal(stderr) {
		stderr = zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.TimeOnly, NoColor: !color || !isTerminal(stderr)}
	}
	return zerolog.New(zerolog.SyncWriter(timestampWriter{stderr})).Level(zerolog.TraceLevel).Hook(hook)
}

// redirectLibraries sends what libraries write to the standard logger to the log. net/http writes parts of responses there, which can hold secrets, so
// the log gets a constant message instead of the text.
func redirectLibraries(log zerolog.Logger) {
	writer := &libraryWriter{log: log.With().Str("component", "library").Logger()}
	stdlog.SetOutput(writer)
	stdlog.SetFlags(0)
}

// init drops zerolog's own errors: a log line that cannot be written has no other place.
func init() { zerolog.ErrorHandler = func(error) {} }

// libraryWriter logs the number of messages of libraries, at most once in libraryInterval.
type libraryWriter struct {
	log     zerolog.Logger
	mu      sync.Mutex
	last    time.Time
	dropped int // messages since the last line
}

const libraryInterval = time.Minute

// Write counts one message.
func (w *libraryWriter) Write(message []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped++
	if now := time.Now(); w.last.IsZero() || now.Sub(w.last) >= libraryInterval {
		w.log.Warn().Int("messages", w.dropped).Msg(MsgLibraryMessage)
		w.last, w.dropped = now, 0
	}
	return len(message), nil
}

// timestampWriter inserts the time as the first key of each line: RFC 3339, UTC, with
// milliseconds. zerolog itself appends the time as the last key. It escapes characters that a
// terminal does not print, such as U+202E, which reverses the text after it: zerolog escapes
// ASCII control characters only, and texts of servers are in the log.
type timestampWriter struct{ out io.Writer }

// Write writes one line.
func (w timestampWriter) Write(line []byte) (int, error) {
	prefix := time.Now().UTC().AppendFormat([]byte(`{"time":"`), "2006-01-02T15:04:05.000Z")
	if _, err := w.out.Write(slices.Concat(prefix, []byte(`",`), fault.EscapeJSON(line[1:]))); err != nil {
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
