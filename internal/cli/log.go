package cli

import (
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// newLogger makes the one logger that everything is given, at the level of v. An
// unknown format, which the configuration has reported, means the default. Colours are
// for terminals.
func newLogger(stderr io.Writer, format string, colour bool, v *verbosity) zerolog.Logger {
	if format == "console" || format == "" && isTerminal(stderr) {
		stderr = zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.TimeOnly, NoColor: !colour || !isTerminal(stderr)}
	}
	// Several goroutines log.
	return zerolog.New(zerolog.SyncWriter(stamped{stderr})).Level(zerolog.TraceLevel).Hook(v)
}

// stamped writes lines with the time as their first key, in UTC with milliseconds: RFC 3339,
// wherever the process runs. zerolog begins a line with the level and would append the time.
type stamped struct{ out io.Writer }

// Write takes one line.
func (s stamped) Write(line []byte) (int, error) {
	stamp := time.Now().UTC().AppendFormat([]byte(`{"time":"`), "2006-01-02T15:04:05.000Z")
	whole := slices.Concat(stamp, []byte(`",`), line[1:])
	if _, err := s.out.Write(whole); err != nil {
		return 0, err
	}
	return len(line), nil
}

// verbosity is the level of all loggers. It can change while they are in use, which a
// level of their own could not.
type verbosity struct {
	level   atomic.Int32
	signals chan os.Signal
}

// newVerbosity is at info. From here on the signals that change the level end the
// process no more.
func newVerbosity() *verbosity {
	v := &verbosity{signals: make(chan os.Signal, 8)}
	v.set("info")
	signal.Notify(v.signals, syscall.SIGUSR1, syscall.SIGUSR2)
	return v
}

// set takes the name of a level; an unknown one, which the configuration has
// reported, changes nothing.
func (v *verbosity) set(name string) {
	level, err := zerolog.ParseLevel(name)
	if err == nil && level >= zerolog.TraceLevel && level <= zerolog.ErrorLevel {
		v.level.Store(int32(level))
	}
}

// Run drops lines below the level.
func (v *verbosity) Run(e *zerolog.Event, level zerolog.Level, _ string) {
	if level < zerolog.Level(v.level.Load()) {
		e.Discard()
	}
}

// follow changes the level by signals until stop: SIGUSR1 one step towards trace,
// SIGUSR2 one step towards error. What is logged of it is logged at any level.
func (v *verbosity) follow(log zerolog.Logger) (stop func()) {
	log = log.With().Str("component", "log").Logger()
	done := make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		for {
			select {
			case s := <-v.signals:
				v.step(s, log)
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		following.Wait()
	}
}

func (v *verbosity) step(s os.Signal, log zerolog.Logger) {
	from := zerolog.Level(v.level.Load())
	to := max(from-1, zerolog.TraceLevel)
	if s == syscall.SIGUSR2 {
		to = min(from+1, zerolog.ErrorLevel)
	}
	v.level.Store(int32(min(from, to, zerolog.InfoLevel))) // so that it is seen
	log.Info().Stringer("from", from).Stringer("to", to).Msg(MsgLevelChanged)
	v.level.Store(int32(to))
}

// end leaves the signals to others.
func (v *verbosity) end() { signal.Stop(v.signals) }

func isTerminal(w io.Writer) bool {
	if _, ok := w.(*screen); ok {
		return true
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && file.Name() != os.DevNull
}
