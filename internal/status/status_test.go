package status

import (
	"encoding/json"
	"errors"
	"testing"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// TestErrorAndRemedy checks that a report has an error and its remedy in two fields, of the
// connector and of the run. Quoted words in the error that read like a remedy stay there.
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
	type shown struct{ Error, Remedy string }
	var got struct {
		shown
		Runs []shown
	}
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	want := shown{failure.Error(), "check qualys.customerUuid"}
	if got.shown != want || len(got.Runs) != 1 || got.Runs[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
