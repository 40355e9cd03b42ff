package state

import (
	"reflect"
	"testing"
	"time"

	"adconnector/internal/ad"
)

// TestLogonSweep checks that a full sync replaces the sweep, that a delta sync keeps it, and that it
// does not apply to another target.
func TestLogonSweep(t *testing.T) {
	t.Parallel()
	store, err := Options{NoSync: true}.Open(t.TempDir())
	must(t, err)
	defer store.Close()
	at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	sweep := LogonSweep{At: at, Error: "e", Remedy: "r", Pending: []ad.GUID{{1}, {2}}, Controllers: []LogonController{
		{Host: "dc2", InvocationID: ad.InvocationID{3}, ReadOnly: true, PDCEmulator: true, At: at, Result: LogonsSlow, Error: "e", Remedy: "r", AskedUntil: at, Scope: "s"},
	}}
	expect := func(step string, want LogonSweep) {
		t.Helper()
		if got, err := store.LogonSweep(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", step, got, err, want)
		}
	}
	expect("new file", LogonSweep{})
	must(t, store.Advance(Progress{At: at, FullSync: true, Logons: &sweep}))
	expect("full sync", sweep)
	must(t, store.Advance(Progress{At: at}))
	expect("delta sync", sweep)
	must(t, store.ChangeTarget("other"))
	expect("another target", LogonSweep{})
	must(t, store.Advance(Progress{At: at, FullSync: true, Logons: &sweep}))
	must(t, store.Advance(Progress{At: at, FullSync: true}))
	expect("full sync without a sweep", LogonSweep{})
}
