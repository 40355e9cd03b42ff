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
	j := result(s.OpenJournal(testSource, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:2]}, {1, all[2:]}}))
	must(t, j.Commit([]BatchResult{{Batch: 1, Complete: true, Rejected: []RejectedObject{{Object: all[2]}, {Object: all[3]}}}}))
	must(t, s.SetHeldDeletions(guidsOf(all), time.Unix(1, 0)))
	must(t, s.Advance(Progress{FullSync: &FullSync{Scope: "a"}, InvocationID: ad.InvocationID{1}, Watermark: &Watermark{USN: 9}}))
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
		mark, sync := result(s.Watermark(ad.InvocationID{1}))(t), result(s.LastFullSync())(t)
		if mark != (Watermark{}) || sync != (FullSync{}) || result(s.Target())(t) != "two" {
			t.Errorf("watermark %+v, full sync %+v", mark, sync)
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
