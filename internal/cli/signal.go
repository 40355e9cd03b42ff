package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// onSignal returns a context that ends with the first SIGTERM or SIGINT. A second signal
// calls abort. Until stop is called, a write to a pipe without a reader returns EPIPE and does
// not end the process: a daemon continues without its log.
func onSignal(parent context.Context, abort func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	brokenPipe := make(chan os.Signal, 1) // never received: the write returns the error
	signal.Notify(brokenPipe, syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	stopHandler := startWorker(context.WithoutCancel(ctx), func(working context.Context) {
		for _, handle := range []func(){cancel, abort} {
			select {
			case <-signals:
				handle()
			case <-working.Done():
				return
			}
		}
	})
	return ctx, func() {
		signal.Stop(signals)
		signal.Stop(brokenPipe)
		stopHandler()
		cancel()
	}
}
