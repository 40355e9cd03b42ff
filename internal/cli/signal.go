package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// onSignal returns a context that ends with the first SIGTERM or SIGINT. The
// second ends the process, after last, until stop has been called. Until then, too,
// who writes to a pipe that nobody reads gets an error, and does not die of it: the
// log is not what a daemon is for.
func onSignal(parent context.Context, last func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	broken := make(chan os.Signal, 1) // nobody takes it: the write says so
	signal.Notify(broken, syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for _, act := range []func(){cancel, func() { last(); os.Exit(exitInterrupted) }} {
			select {
			case <-signals:
				act()
			case <-done:
				return
			}
		}
	})
	return ctx, func() {
		signal.Stop(signals)
		signal.Stop(broken)
		close(done)
		watch.Wait()
		cancel()
	}
}
