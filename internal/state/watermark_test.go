package state

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

func TestAdvance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	one, two := ad.InvocationID{1}, ad.InvocationID{2}
	pass := FullSync{Scope: "a", At: time.Unix(10, 0).UTC()}
	mark := func(usn ad.USN) *Watermark {
		return &Watermark{USN: usn, Scope: "a", At: time.Unix(int64(usn), 0).UTC()}
	}
	check := func(wantOne, wantTwo Watermark, wantPass FullSync) {
		t.Helper()
		gotOne, err := s.Watermark(one)
		gotTwo, err2 := s.Watermark(two)
		gotPass, err3 := s.LastFullSync()
		if err := errors.Join(err, err2, err3); err != nil || gotOne != wantOne || gotTwo != wantTwo || gotPass != wantPass {
			t.Errorf("%+v, %+v, %+v, error %v", gotOne, gotTwo, gotPass, err)
		}
	}
	must(t, s.Advance(Progress{FullSync: &pass, InvocationID: one, Watermark: mark(10)}))
	check(*mark(10), Watermark{}, pass)
	must(t, s.Advance(Progress{InvocationID: one, Watermark: mark(20)})) // a delta
	check(*mark(20), Watermark{}, pass)
	must(t, s.Advance(Progress{InvocationID: two, Watermark: mark(5)})) // after a failover
	s = reopen(t, s, dir)
	check(*mark(20), *mark(5), pass)
	later := FullSync{Scope: "b", At: time.Unix(30, 0).UTC()}
	must(t, s.Advance(Progress{FullSync: &later})) // where changes cannot be followed
	check(*mark(20), *mark(5), later)
}

// TestHold: those that stay held keep the time since when.
func TestHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	since := func(n int) (text string) {
		guid := guidOf(n)
		must(t, s.db.View(func(tx *bbolt.Tx) error {
			text = string(tx.Bucket(bucketHeld).Get(guid[:]))
			return nil
		}))
		return text
	}
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(1), guidOf(2)}, time.Unix(0, 0)))
	s = reopen(t, s, dir)
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(3), guidOf(2)}, time.Unix(60, 0)))
	if held := result(s.HeldDeletions())(t); !slices.Equal(held, []ad.GUID{guidOf(2), guidOf(3)}) {
		t.Errorf("held %v", held)
	}
	if since(1) != "" || since(2) != "1970-01-01T00:00:00Z" || since(3) != "1970-01-01T00:01:00Z" {
		t.Errorf("since %q, %q, %q", since(1), since(2), since(3))
	}
	must(t, s.SetHeldDeletions(nil, time.Unix(90, 0)))
	if held := result(s.HeldDeletions())(t); len(held) != 0 {
		t.Errorf("held %v", held)
	}
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(2)}, time.Unix(120, 0)))
	if since(2) != "1970-01-01T00:02:00Z" { // it was back in between
		t.Errorf("since %q", since(2))
	}
}

// TestRetarget forgets what is of the former target, and nothing else.
func TestRetarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, s.ChangeTarget("one"))
	all := objects(0, 4, 1)
	all[0].RecheckAt = time.Unix(100, 0)
	must(t, send(s, all))
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[:2]}, {1, all[2:]}}))
	must(t, d.Commit([]BatchResult{{Batch: 1, Complete: true, Rejected: []RejectedObject{{Object: all[2]}, {Object: all[3]}}}}))
	must(t, s.SetHeldDeletions(guidsOf(all), time.Unix(1, 0)))
	must(t, s.Advance(Progress{FullSync: &FullSync{Scope: "a"}, InvocationID: ad.InvocationID{1}, Watermark: &Watermark{USN: 9}}))
	must(t, s.RecordRun(Run{ID: "r"}, Connector{State: "SCHEDULED"}))
	must(t, s.ChangeTarget("two"))
	for range 2 {
		for _, o := range all {
			expectAbsent(t, s, o)
		}
		lists := [][]ad.GUID{result(s.HeldDeletions())(t), result(s.DueForRecheck(time.Unix(1000, 0)))(t), result(s.InFlightObjects())(t)}
		missing, rejections := result(s.Missing(nil))(t), result(s.Rejections())(t)
		if n := len(slices.Concat(lists...)) + len(missing) + len(rejections) + result(s.IndexSize())(t); n != 0 {
			t.Errorf("left: %v, %v, %v", lists, missing, rejections)
		}
		mark, pass := result(s.Watermark(ad.InvocationID{1}))(t), result(s.LastFullSync())(t)
		if mark != (Watermark{}) || pass != (FullSync{}) || result(s.Target())(t) != "two" {
			t.Errorf("watermark %+v, full pass %+v", mark, pass)
		}
		if result(s.Connector())(t).State != "SCHEDULED" || len(result(s.Runs())(t)) != 1 {
			t.Error("the connector's own history is lost")
		}
		s = reopen(t, s, dir)
	}
	must(t, send(s, all[:2])) // whose batch has a number as one before
	expect(t, s, all[0])
	expectAbsent(t, s, all[2])
}
