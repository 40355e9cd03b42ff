package status

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// undecidedReport returns the report of a state file in which the deletions of two users are
// undecided for different reasons: of one since noon, and of the other for an hour.
func undecidedReport(t *testing.T) Report {
	t.Helper()
	store, err := state.Options{NoSync: true}.Open(t.TempDir())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	defer store.Close()
	var users []identity.Object
	for n := range 2 {
		users = append(users, identity.Object{GUID: ad.GUID{15: byte(n)}, Kind: identity.User, SID: ad.SID{1, 1, 0, 0, 0, 0, 0, 5, byte(n), 4, 0, 0}})
	}
	journal, err := store.OpenJournal(state.View{}, noon)
	must(err)
	must(journal.MarkInFlight([]state.Batch{{Objects: users}}))
	must(journal.Commit([]state.BatchResult{{Complete: true, Acknowledged: users}}))
	old := state.Undecided{GUID: users[1].GUID, Reason: "sync scope changed", Remedy: "run adconnector sync --full"}
	must(store.SetUndecidedDeletions([]state.Undecided{old}, noon.Add(-time.Hour)))
	must(store.SetUndecidedDeletions([]state.Undecided{old, {GUID: users[0].GUID, Reason: "not shown", Remedy: "wait"}}, noon))
	must(store.RecordRun(state.Run{Mode: "full", Result: "held", Start: noon, Undecided: 2}, state.Connector{State: "PROCESSED", At: noon}))
	report, err := Read(store, "", noon)
	must(err)
	return report
}

// TestUndecidedJSON checks the fields of the document.
func TestUndecidedJSON(t *testing.T) {
	t.Parallel()
	encoded, err := json.Marshal(undecidedReport(t))
	if err != nil {
		t.Fatal(err)
	}
	type object struct{ Kind, SID, GUID, Reason, Since string }
	type reason struct {
		Reason, Remedy, Since string
		Objects               int
	}
	type document struct {
		Undecided          int
		UndecidedDeletions []object `json:"undecided_deletions"`
		UndecidedReasons   []reason `json:"undecided_reasons"`
		Runs               []struct{ Undecided int }
	}
	var got document
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	want := document{
		2,
		[]object{
			{"user", "S-1-5-1024", ad.GUID{}.String(), "not shown", "2026-11-22T12:00:00Z"},
			{"user", "S-1-5-1025", ad.GUID{15: 1}.String(), "sync scope changed", "2026-11-22T11:00:00Z"},
		},
		[]reason{
			{"not shown", "wait", "2026-11-22T12:00:00Z", 1},
			{"sync scope changed", "run adconnector sync --full", "2026-11-22T11:00:00Z", 1},
		},
		[]struct{ Undecided int }{{2}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestUndecidedText checks the section about undecided deletions, and the table of runs.
func TestUndecidedText(t *testing.T) {
	t.Parallel()
	const want = `
objects         2 in the index, 0 deletions held, 2 deletions undecided, 0 rejected

2 deletions are undecided: nothing proves that the objects were deleted. They are not sent as
deleted, and each run examines them again.

not shown: 1 object, since 2026-11-22 13:00:00 CET
remedy: wait

sync scope changed: 1 object, since 2026-11-22 12:00:00 CET
remedy: run adconnector sync --full

KIND  SID         GUID                                  UNDECIDED SINCE          REASON
user  S-1-5-1024  00000000-0000-0000-0000-000000000000  2026-11-22 13:00:00 CET  not shown
user  S-1-5-1025  00000000-0000-0000-0000-000000000001  2026-11-22 12:00:00 CET  sync scope changed

LAST RUNS                MODE  RESULT  READ  CHANGED  UPLOADED  DELETED  HELD  UNDECIDED  REJECTED  UNREADABLE  REQUESTS  TIME
2026-11-22 13:00:00 CET  full  held    0     0        0         0        0     2          0         0           0         0s
`
	if got := text(t, undecidedReport(t)); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s", got)
	}
	r := Report{Undecided: textObjects + 5, UndecidedDeletions: make([]Undecided, textObjects+5)}
	if got := text(t, r); !strings.Contains(got, "\n… and 5 more (--output json lists the first 1,000)\n") {
		t.Errorf("got\n%s", got)
	}
}

// TestUndecidedPage checks the section, and that a page without undecided deletions has none.
func TestUndecidedPage(t *testing.T) {
	t.Parallel()
	page := renderPage(t, undecidedReport(t))
	expectAll(t, page, `class="now warn"`, ">Some deletions are undecided.</h1>", "<dt>Deletions undecided</dt><dd>2</dd>", `<h2 id="undecided">2 deletions are undecided</h2>`,
		"1 object is missing, but nothing proves the deletion: not shown, since ", "<strong>Remedy:</strong> wait</p>",
		"1 object is missing, but nothing proves the deletion: sync scope changed, since ", "<strong>Remedy:</strong> run adconnector sync --full</p>",
		`<code>S-1-5-1025</code></td><td data-title="GUID"><code>00000000-0000-0000-0000-000000000001</code></td>`)
	if strings.Contains(page, "The first ") {
		t.Error("the page lists all objects, but names a limit")
	}
	if page := renderPage(t, Report{Runs: runs(1)}); strings.Contains(page, `id="undecided"`) {
		t.Error("section without undecided deletions")
	}
	page = renderPage(t, Report{Undecided: 200, UndecidedDeletions: make([]Undecided, 200)})
	if !strings.Contains(page, "The first 100;") || strings.Count(page, `data-title="GUID"><code></code></td>`) != pageObjects {
		t.Error("number of listed deletions missing or wrong")
	}
}

// TestUndecidedMetric checks that the metric has a series for each reason, and none without
// undecided deletions.
func TestUndecidedMetric(t *testing.T) {
	t.Parallel()
	report := undecidedReport(t)
	m := NewMetrics(Build{}, func() (Report, error) { return report, nil })
	code, got := scrape(t, m)
	for _, want := range []string{
		`adconnector_undecided_deletions{reason="not shown"} 1`, `adconnector_undecided_deletions{reason="sync scope changed"} 1`,
	} {
		if code != 200 || !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("status %d, %s missing in\n%s", code, want, got)
		}
	}
	m = NewMetrics(Build{}, func() (Report, error) { return Report{}, nil })
	if code, got := scrape(t, m); code != 200 || strings.Contains(got, "undecided_deletions") {
		t.Errorf("status %d without undecided deletions:\n%s", code, got)
	}
}
