package state

import (
	"errors"
	"testing"
	"time"

	"adconnector/internal/ad"
)

func TestAdvance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	one, two := ad.InvocationID{1}, ad.InvocationID{2}
	first := FullSync{Scope: "a", At: time.Unix(10, 0).UTC()}
	mark := func(usn ad.USN) *Watermark {
		return &Watermark{USN: usn, Scope: "a", At: time.Unix(int64(usn), 0).UTC()}
	}
	check := func(wantOne, wantTwo Watermark, wantFull FullSync) {
		t.Helper()
		gotOne, err := s.Watermark(one)
		gotTwo, err2 := s.Watermark(two)
		gotFull, err3 := s.LastFullSync()
		if err := errors.Join(err, err2, err3); err != nil || gotOne != wantOne || gotTwo != wantTwo || gotFull != wantFull {
			t.Errorf("%+v, %+v, %+v, error %v", gotOne, gotTwo, gotFull, err)
		}
	}
	must(t, s.Advance(Progress{FullSync: &first, InvocationID: one, Watermark: mark(10)}))
	check(*mark(10), Watermark{}, first)
	must(t, s.Advance(Progress{InvocationID: one, Watermark: mark(20)})) // delta sync
	check(*mark(20), Watermark{}, first)
	must(t, s.Advance(Progress{InvocationID: two, Watermark: mark(5)})) // after a failover
	s = reopen(t, s, dir)
	check(*mark(20), *mark(5), first)
	second := FullSync{Scope: "b", At: time.Unix(30, 0).UTC()}
	must(t, s.Advance(Progress{FullSync: &second})) // no delta syncs possible
	check(*mark(20), *mark(5), second)
}
