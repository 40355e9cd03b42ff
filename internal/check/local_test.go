package check

import (
	"testing"
	"time"
)

// TestDistance tests that times are rounded like those of the status: to seconds, minutes, hours, or
// days, never to zero days.
func TestDistance(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Second: "1 second", 90 * time.Second: "90 seconds", 119 * time.Minute: "119 minutes", 5 * time.Hour: "5 hours",
		47 * time.Hour: "47 hours", 48 * time.Hour: "2 days", 13*24*time.Hour + 23*time.Hour: "14 days", 14*24*time.Hour + time.Hour: "14 days",
	} {
		if got := distance(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
