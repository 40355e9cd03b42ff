package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// duplicateSignal is the time in which a repeated signal counts once.
const duplicateSignal = time.Second

// onSignal returns a context that ends with the first SIGTERM or SIGINT. A second signal
// calls abort, but not the same signal again within duplicateSignal: timeout(1) sends its
// signal to the process and to its group, in which the process is.
//
// Until stop is called, a write to a pipe without a reader returns EPIPE and does not end the
// process: a daemon continues without its log.
func onSignal(parent context.Context, abort func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	brokenPipe := make(chan os.Signal, 1) // never received: the write returns the error
	signal.Notify(brokenPipe, syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	stopHandler := startWorker(context.WithoutCancel(ctx), func(working context.Context) {
		handleSignals(signals, working.Done(), cancel, abort)
	})
	return ctx, func() {
		signal.Stop(signals)
		signal.Stop(brokenPipe)
		stopHandler()
		cancel()
	}
}

// handleSignals calls stop at the first signal and abort at the second one, until done is
// closed.
func handleSignals(signals <-chan os.Signal, done <-chan struct{}, stop, abort func()) {
	var first os.Signal
	var received time.Time
	for {
		select {
		case signal := <-signals:
			switch {
			case first == nil:
				first, received = signal, time.Now()
				stop()
			case signal != first || time.Since(received) >= duplicateSignal:
				abort()
				return
			}
		case <-done:
			return
		}
	}
}
