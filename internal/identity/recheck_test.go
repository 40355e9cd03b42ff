package identity

import (
	"testing"
	"time"

	"adconnector/internal/ad"
)

func TestNextRecheck(t *testing.T) {
	t.Parallel()
	const none, expired, locked = ad.AccountControl(0), ad.AccountPasswordExpired, ad.AccountLocked
	never, ago := time.Time{}, func(d time.Duration) time.Time { return now.Add(-d) }
	next := now.Add(recheckDelay)
	for _, test := range []struct {
		name              string
		flags             ad.AccountControl
		expires, lockedAt time.Time
		want              time.Time
	}{
		{"nothing due", none, never, never, never},
		{"expires later", none, now.Add(time.Hour), never, now.Add(time.Hour)},
		{"expires later, flag set early", expired, now.Add(time.Second), never, now.Add(time.Second)},
		{"due now, flag missing", none, now, never, next},
		{"due now, flag set", expired, now, never, never},
		{"overdue, flag missing", none, ago(30 * time.Second), never, next},
		{"overdue, flag missing, other flag set", locked, ago(30 * time.Second), ago(time.Hour), next},
		{"overdue, flag set", expired, ago(30 * time.Second), never, never},
		{"almost an hour overdue", none, ago(maxFlagDelay - 1), never, next},
		{"an hour overdue", none, ago(maxFlagDelay), never, never},
		{"overdue for years", none, ago(1e5 * time.Hour), never, never},

		{"lock ended", none, never, ago(time.Hour), never},
		{"locked at an unknown time", locked, never, never, next},
		{"locked in the future", locked, never, now.Add(time.Hour), next},
		{"just locked", locked, never, ago(time.Second), next},
		{"locked for an hour", locked, never, ago(time.Hour), next},
		{"locked for nine hours", locked, never, ago(9 * time.Hour), now.Add(time.Hour)},
		{"locked for 81 hours", locked, never, ago(81 * time.Hour), now.Add(10 * time.Hour)},

		{"locked, expires before the next read", locked, now.Add(time.Minute), ago(9 * time.Hour), now.Add(time.Minute)},
		{"locked, expires after the next read", locked, now.Add(2 * time.Hour), ago(9 * time.Hour), now.Add(time.Hour)},
		{"locked, overdue", locked, ago(time.Minute), ago(9 * time.Hour), next},
		{"locked and expired", locked | expired, ago(time.Minute), ago(9 * time.Hour), now.Add(time.Hour)},
	} {
		if got := nextRecheck(test.flags, test.expires, test.lockedAt, now); !got.Equal(test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
