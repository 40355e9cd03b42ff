package state

import (
	"slices"
	"testing"
	"time"

	"adconnector/internal/ad"
)

// TestChangeTarget checks that ChangeTarget deletes the state of the previous target only.
func TestChangeTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, s.ChangeTarget("one"))
	all := objects(0, 4, 1)
	all[0].RecheckAt = time.Unix(100, 0)
	must(t, send(s, all))
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:2]}, {1, all[2:]}}))
	must(t, j.Commit([]BatchResult{{Batch: 1, Complete: true, Rejected: []RejectedObject{{Object: all[2]}, {Object: all[3]}}}}))
	must(t, s.SetHeldDeletions(guidsOf(all), time.Unix(1, 0)))
	must(t, s.SetUndecidedDeletions(undecided("lag", 0, 4), time.Unix(1, 0)))
	must(t, s.Advance(Progress{View: View{InvocationID: ad.InvocationID{1}, Scope: "a"}, FullSync: true, USN: 9, Unseen: guidsOf(all)}))
	must(t, s.RecordRun(Run{ID: "r"}, Connector{State: "SCHEDULED"}))
	must(t, s.ChangeTarget("two"))
	for range 2 {
		for _, o := range all {
			expectAbsent(t, s, o)
		}
		lists := [][]ad.GUID{heldGUIDs(t, s), result(s.DueForRecheck(time.Unix(1000, 0)))(t), result(s.InFlightObjects())(t)}
		missing, rejections := result(s.Missing(nil))(t), rejectionsOf(t, s)
		if n := len(slices.Concat(lists...)) + len(missing) + len(rejections) + result(s.IndexSize())(t); n != 0 {
			t.Errorf("remaining: %v, %v, %v", lists, missing, rejections)
		}
		if undecided := undecidedTexts(t, s); len(undecided) != 0 {
			t.Errorf("undecided %v", undecided)
		}
		controller, sync := result(s.Controller(ad.InvocationID{1}))(t), result(s.LastFullSync())(t)
		if controller != (Controller{}) || sync != (FullSync{}) || result(s.Target())(t) != "two" {
			t.Errorf("controller %+v, full sync %+v", controller, sync)
		}
		if unseen := result(s.Unseen(ad.InvocationID{1}))(t); len(unseen) != 0 {
			t.Errorf("unseen %v", unseen)
		}
		if result(s.Connector())(t).State != "SCHEDULED" || len(result(s.Runs())(t)) != 1 {
			t.Error("connector state or runs deleted")
		}
		s = reopen(t, s, dir)
	}
	must(t, send(s, all[:2])) // with the same batch number as before
	expect(t, s, all[0])
	expectAbsent(t, s, all[2])
}

// TestRateLimitEnd checks that a limit applies to its target, and not before it was noted.
func TestRateLimitEnd(t *testing.T) {
	t.Parallel()
	noted := time.Unix(1_800_000_000, 0)
	limit := RateLimit{Target: "one", NotedAt: noted, Until: noted.Add(time.Hour)}
	for _, c := range []struct {
		name, target string
		now, want    time.Time
	}{
		{"applies", "one", noted.Add(time.Minute), limit.Until},
		{"just noted", "one", noted, limit.Until},
		{"another target", "two", noted.Add(time.Minute), time.Time{}},
		{"noted in the future", "one", noted.Add(-time.Second), time.Time{}},
		{"ended", "one", limit.Until, time.Time{}},
	} {
		if got := limit.End(c.target, c.now); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if got := (RateLimit{}).End("", noted); !got.IsZero() {
		t.Errorf("no limit: %s", got)
	}
}

// TestRateLimitOfVersion1 checks that a limit without target and time is ignored, and deleted
// with the next one, so that version 1.0.0 does not restore it after a rollback.
func TestRateLimitOfVersion1(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, s.update("", func(c change) error {
		return c.putJSON(bucketMeta, keyLimitV1, time.Now().Add(24*time.Hour))
	}))
	if limit := result(s.RateLimit())(t); limit != (RateLimit{}) {
		t.Errorf("limit %+v", limit)
	}
	want := RateLimit{Target: "one", NotedAt: testStart, Until: testStart.Add(time.Hour)}
	must(t, s.SetRateLimit(want))
	s = reopen(t, s, dir)
	old := result(readMeta[time.Time](s, "", keyLimitV1))(t)
	if got := result(s.RateLimit())(t); got != want || !old.IsZero() {
		t.Errorf("limit %+v, old limit %s", got, old)
	}
}

// TestConcurrencyLimit checks that a limit is kept in the file, and applies to its target, and not
// before it was noted.
func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	if got := result(s.ConcurrencyLimit())(t); got != (ConcurrencyLimit{}) || got.CallsTo("", time.Now()) != 0 {
		t.Errorf("new file: %+v", got)
	}
	noted := time.Unix(1_800_000_000, 0).UTC()
	must(t, s.SetConcurrencyLimit(ConcurrencyLimit{Target: "one", NotedAt: noted, Calls: 2}))
	limit := result(reopen(t, s, dir).ConcurrencyLimit())(t)
	for _, c := range []struct {
		name, target string
		now          time.Time
		want         int
	}{
		{"applies", "one", noted.Add(time.Hour), 2},
		{"just noted", "one", noted, 2},
		{"another target", "two", noted.Add(time.Hour), 0},
		{"noted in the future", "one", noted.Add(-time.Second), 0},
	} {
		if got := limit.CallsTo(c.target, c.now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
