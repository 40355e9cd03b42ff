package cli

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestStartWorker tests that stop ends the context of the work, and waits for the work.
func TestStartWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := false
		stop := startWorker(t.Context(), func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(time.Second) // fake time
			ended = true
		})
		stop()
		if !ended {
			t.Error("the work has not ended")
		}
	})
}
