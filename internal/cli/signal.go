package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// onSignal returns a context that ends with the first SIGTERM or SIGINT. The
// second ends the process, until stop has been called.
func onSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for _, act := range []func(){cancel, func() { os.Exit(exitInterrupted) }} {
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
		close(done)
		watch.Wait()
		cancel()
	}
}
