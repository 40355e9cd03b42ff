package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// duplicateSignal is the time in which a repeated signal counts once.
const duplicateSignal = time.Second

// onSignal returns a context that ends with the first SIGTERM, SIGINT, or SIGHUP. A second
// signal calls abort, but not the same signal again within duplicateSignal: timeout(1) sends
// its signal to the process and to its group, in which the process is. A SIGHUP counts only if
// ignoreHangup returns false, and if the process did not inherit that it is ignored, as from
// nohup(1).
//
// Until stop is called, a write to a pipe without a reader returns EPIPE and does not end the
// process: a daemon continues without its log.
func onSignal(parent context.Context, ignoreHangup func() bool, abort func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	brokenPipe := make(chan os.Signal, 1) // never received: the write returns the error
	signal.Notify(brokenPipe, syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	if signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT); !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	handler := signalHandler{ignoreHangup: ignoreHangup, stop: cancel, abort: abort}
	stopHandler := startWorker(context.WithoutCancel(ctx), func(working context.Context) {
		handler.handle(signals, working.Done())
	})
	return ctx, func() {
		signal.Stop(signals)
		signal.Stop(brokenPipe)
		stopHandler()
		cancel()
	}
}

// signalHandler has the reactions to signals that end the program.
type signalHandler struct {
	ignoreHangup func() bool
	stop, abort  func()
}

// handle calls stop at the first signal and abort at the second one, until done is closed.
func (h signalHandler) handle(signals <-chan os.Signal, done <-chan struct{}) {
	var first os.Signal
	var received time.Time
	for {
		select {
		case signal := <-signals:
			switch {
			case signal == syscall.SIGHUP && h.ignoreHangup():
			case first == nil:
				first, received = signal, time.Now()
				h.stop()
			case signal != first || time.Since(received) >= duplicateSignal:
				h.abort()
				return
			}
		case <-done:
			return
		}
	}
}

// ignoreHangup reports whether SIGHUP is ignored, and then records it for the log. A daemon
// ignores it, because it requests others to reload.
func (p *program) ignoreHangup() bool {
	if !p.isDaemon.Load() {
		return false
	}
	select {
	case p.hangups <- struct{}{}:
	default: // the line about an earlier one is not written yet
	}
	return true
}

// dumpStacks logs a signal for which the Go runtime writes the stacks of all goroutines, and
// passes it on to the runtime, which ends the process with exit code 2. It does not wait for a
// log that blocks, because the stacks are for the diagnosis of processes that hang.
func dumpStacks(received syscall.Signal, log zerolog.Logger) {
	signal.Reset(received) // from here on, a second signal goes to the runtime at once
	logged := make(chan struct{})
	go func() {
		log.Error().Stringer("signal", received).Str("remedy", "use SIGTERM to stop without a stack dump").Msg(MsgStackDump)
		close(logged)
	}()
	select {
	case <-logged:
	case <-time.After(time.Second):
	}
	_ = syscall.Kill(os.Getpid(), received) // always permitted
}

// followSignals logs ignored hangups and requests for a stack dump until stop is called. It
// also changes the level of the log by signals.
func (p *program) followSignals(log zerolog.Logger) (stop func()) {
	dumps := make(chan os.Signal, 1)
	signal.Notify(dumps, syscall.SIGQUIT, syscall.SIGABRT)
	stopLevel := p.levelHook.followSignals(log)
	log = log.With().Str("component", "cli").Logger()
	stopWorker := startWorker(context.Background(), func(ctx context.Context) {
		for {
			select {
			case <-p.hangups:
				log.Warn().Str("remedy", "restart the daemon to apply changed settings").Msg(MsgHangupIgnored)
			case received := <-dumps:
				dumpStacks(received.(syscall.Signal), log)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		signal.Stop(dumps)
		stopWorker()
		stopLevel()
	}
}
