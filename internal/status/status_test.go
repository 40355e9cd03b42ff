package status

import (
	"encoding/json"
	"errors"
	"testing"

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
	report, err := Read(store, noon)
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
