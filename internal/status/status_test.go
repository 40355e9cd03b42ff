package status

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// TestErrorAndRemedy tests that the connector and the run have an error and its remedy in
// separate fields. The error quotes a text that resembles a remedy.
func TestErrorAndRemedy(t *testing.T) {
	t.Parallel()
	store, err := state.Options{NoSync: true}.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	failure := fault.Operation{Op: "send assets", Object: "gateway"}.Failed(fault.Refused,
		errors.New(`403, "no access; check the account: ask your administrator"`), "check qualys.customerUuid")
	run := state.Run{ID: "r", Result: "failed", Start: noon, Class: string(fault.Refused), Error: failure.Error(), Remedy: fault.Remedy(failure)}
	if err := store.RecordRun(run, state.Connector{State: "SCHEDULED", RunID: "r", At: noon, Error: run.Error, Remedy: run.Remedy}); err != nil {
		t.Fatal(err)
	}
	report, err := Read(store, "", noon)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	type errorFields struct{ Error, Remedy string }
	var got struct {
		errorFields
		Runs []errorFields
	}
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	want := errorFields{failure.Error(), "check qualys.customerUuid"}
	if got.errorFields != want || len(got.Runs) != 1 || got.Runs[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestRateLimit checks that a report has the rate limit of its target only.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	store, err := state.Options{NoSync: true}.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	limit := state.RateLimit{Target: "one", NotedAt: noon.Add(-time.Minute), Until: noon.Add(time.Hour)}
	if err := store.SetRateLimit(limit); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]time.Time{"one": limit.Until.UTC(), "two": {}} {
		report, err := Read(store, target, noon)
		if err != nil || !report.WaitsUntil.Equal(want) || report.WaitsFor == "" != want.IsZero() {
			t.Errorf("%s: waits for %q until %s, error %v", target, report.WaitsFor, report.WaitsUntil, err)
		}
	}
}

// TestConcurrencyLimit checks that a report has the concurrency limit of its target only.
func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	store, err := state.Options{NoSync: true}.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.SetConcurrencyLimit(state.ConcurrencyLimit{Target: "one", NotedAt: noon.Add(-time.Minute), Calls: 2}); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]int{"one": 2, "two": 0} {
		report, err := Read(store, target, noon)
		if err != nil || report.WorkersAllowed != want || report.WorkersNotedAt.IsZero() != (want == 0) {
			t.Errorf("%s: %d workers since %s, error %v", target, report.WorkersAllowed, report.WorkersNotedAt, err)
		}
		page := renderPage(t, report)
		if strings.Contains(page, "It accepts 2 calls at a time") != (want > 0) {
			t.Errorf("%s: page\n%s", target, page)
		}
	}
}
