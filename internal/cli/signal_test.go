package cli

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestHandleSignals tests that the first signal stops, and that a second one aborts unless it
// is a duplicate.
func TestHandleSignals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		second       os.Signal
		after        time.Duration
		stop, aborts int
	}{
		{"one signal", nil, 0, 1, 0},
		{"duplicate", syscall.SIGTERM, 0, 1, 0},
		{"duplicate within a second", syscall.SIGTERM, duplicateSignal - 1, 1, 0},
		{"same signal later", syscall.SIGTERM, duplicateSignal, 1, 1},
		{"other signal at once", syscall.SIGINT, 0, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				signals, done := make(chan os.Signal, 2), make(chan struct{})
				stops, aborts := 0, 0
				go handleSignals(signals, done, func() { stops++ }, func() { aborts++ })
				signals <- syscall.SIGTERM
				synctest.Wait()
				time.Sleep(test.after)
				if test.second != nil {
					signals <- test.second
				}
				synctest.Wait()
				close(done)
				synctest.Wait()
				if stops != test.stop || aborts != test.aborts {
					t.Errorf("%d stops, %d aborts", stops, aborts)
				}
			})
		})
	}
}
