package state

import (
	"slices"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// TestMovedIn checks that an object that moved into the scope is due until two full syncs
// have sent it again and its value was acknowledged.
func TestMovedIn(t *testing.T) {
	t.Parallel()
	type outcome int
	const (
		acknowledged outcome = iota
		incomplete           // acknowledged in a batch without a complete response
		rejected
		unanswered
		notSent
		deletion
	)
	type run struct {
		outcome outcome
		full    bool // else a delta sync
	}
	fullSync, deltaSync := run{acknowledged, true}, run{acknowledged, false}
	for name, test := range map[string]struct {
		runs []run // after the one that sends the object for the first time
		want bool
	}{
		"new":                     {nil, true},
		"one full sync":           {[]run{fullSync}, true},
		"two full syncs":          {[]run{fullSync, fullSync}, false},
		"delta syncs":             {[]run{deltaSync, deltaSync, deltaSync}, true},
		"delta syncs in between":  {[]run{deltaSync, fullSync, deltaSync, fullSync}, false},
		"incomplete batches":      {[]run{{incomplete, true}, {incomplete, true}}, false},
		"rejected":                {[]run{{rejected, true}, {rejected, true}, fullSync}, true},
		"rejected, then accepted": {[]run{{rejected, true}, fullSync, fullSync}, false},
		"unanswered":              {[]run{{unanswered, true}, {unanswered, true}, fullSync}, true},
		"not found":               {[]run{fullSync, {notSent, true}, {notSent, true}}, true},
		"deleted":                 {[]run{{deletion, false}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openStore(t, dir)
			for n, run := range append([]run{fullSync}, test.runs...) {
				j := result(s.OpenJournal(viewA, testStart))(t)
				object, other := objects(0, 1, byte(n+1))[0], objects(1, 2, byte(n+1))[0]
				object.MovedIn = n == 0
				batch := BatchResult{Complete: true, Acknowledged: []identity.Object{other}}
				sent := []identity.Object{other, object}
				switch run.outcome {
				case acknowledged:
					batch.Acknowledged = sent
				case incomplete:
					batch.Acknowledged, batch.Complete = sent, false
				case rejected:
					batch.Rejected = []RejectedObject{{Object: object, Reason: "no"}}
				case unanswered:
					batch = BatchResult{}
				case notSent:
					sent = sent[:1]
				case deletion:
					batch.Acknowledged = []identity.Object{other, deleted(object)}
				}
				must(t, j.MarkInFlight([]Batch{{0, sent}}))
				must(t, j.Commit([]BatchResult{batch}))
				must(t, s.Advance(Progress{View: viewA, Run: j.Run(), At: testStart, USN: 100, FullSync: run.full}))
				s = reopen(t, s, dir)
			}
			var want []ad.GUID
			if test.want {
				want = []ad.GUID{guidOf(0)}
			}
			if got := result(s.MovedIn())(t); !slices.Equal(got, want) {
				t.Errorf("moved in: %v, want %v", got, want)
			}
		})
	}
}

// TestMovedInBeforeFailure checks that an object stays due that was never acknowledged in the run
// in which it was new, and that a deletion of the target's records includes it.
func TestMovedInBeforeFailure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	sent, tooLarge := objects(0, 1, 1)[0], objects(1, 2, 1)[0]
	sent.MovedIn, tooLarge.MovedIn = true, true
	j := result(s.OpenJournal(viewA, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, []identity.Object{sent}}}))
	must(t, j.Commit([]BatchResult{{Batch: 1, Rejected: []RejectedObject{{Object: tooLarge, Reason: "too large"}}}}))
	s = reopen(t, s, dir)
	if got, want := result(s.MovedIn())(t), []ad.GUID{guidOf(0), guidOf(1)}; !slices.Equal(got, want) {
		t.Errorf("moved in: %v, want %v", got, want)
	}
	must(t, s.ChangeTarget("other"))
	if got := result(s.MovedIn())(t); len(got) != 0 {
		t.Errorf("moved in after a change of the target: %v", got)
	}
}
