package status

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/state"
)

// logonReport returns the report of a state file after a full sync that asked other domain
// controllers for logons.
func logonReport(t *testing.T, sweep *state.LogonSweep) Report {
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
	must(store.Advance(state.Progress{At: noon, FullSync: true, Logons: sweep}))
	must(store.RecordRun(state.Run{Mode: "full", Result: "processed", Start: noon}, state.Connector{State: "PROCESSED", At: noon}))
	report, err := Read(store, "", noon.Add(time.Hour))
	must(err)
	return report
}

// someMissing is a sweep in which one of three domain controllers did not answer.
func someMissing() *state.LogonSweep {
	return &state.LogonSweep{At: noon, Controllers: []state.LogonController{
		{Host: "dc2.corp.test", PDCEmulator: true, Result: state.LogonsAnswered, At: noon, AskedUntil: noon},
		{Host: "dc3.corp.test", ReadOnly: true, Result: state.LogonsCertificate, Error: "unknown issuer", Remedy: "set it", At: noon, AskedUntil: noon.Add(-24 * time.Hour)},
		{Host: "a.corp.test", Result: state.LogonsAnswered, At: noon, AskedUntil: noon},
	}}
}

func TestLogonsJSON(t *testing.T) {
	t.Parallel()
	type controller struct {
		Host, Result, Error, Remedy string
		ReadOnly                    bool   `json:"read_only"`
		PDCEmulator                 bool   `json:"pdc_emulator"`
		AskedUntil                  string `json:"asked_until"`
	}
	type document struct {
		Logons *struct {
			At            string
			Answered      int
			Error, Remedy string
			Controllers   []controller
		}
	}
	decode := func(sweep *state.LogonSweep) (d document) {
		encoded, err := json.Marshal(logonReport(t, sweep))
		if err == nil {
			err = json.Unmarshal(encoded, &d)
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	got := decode(someMissing()).Logons
	want := []controller{
		{Host: "dc3.corp.test", Result: "certificate", Error: "unknown issuer", Remedy: "set it", ReadOnly: true, AskedUntil: "2026-11-21T12:00:00Z"},
		{Host: "a.corp.test", Result: "answered", AskedUntil: "2026-11-22T12:00:00Z"},
		{Host: "dc2.corp.test", Result: "answered", PDCEmulator: true, AskedUntil: "2026-11-22T12:00:00Z"},
	}
	if got == nil || got.Answered != 2 || got.At != "2026-11-22T12:00:00Z" || !reflect.DeepEqual(got.Controllers, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got := decode(nil); got.Logons != nil {
		t.Errorf("got %+v without a sweep", got.Logons)
	}
}

func TestLogonsText(t *testing.T) {
	t.Parallel()
	got := text(t, logonReport(t, someMissing()))
	for _, want := range []string{
		"\nlast logons     2 of 3 other domain controllers answered, 2026-11-22 13:00:00 CET",
		"\nThe logons of 1 of 3 other domain controllers are missing. The next full sync asks for them again.\n" +
			"DOMAIN CONTROLLER  RESULT       KNOWN UNTIL              ERROR           REMEDY\n" +
			"dc3.corp.test      certificate  2026-11-21 13:00:00 CET  unknown issuer  set it\n\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q missing in\n%s", want, got)
		}
	}
	one := someMissing()
	one.Controllers = slices.DeleteFunc(one.Controllers, func(c state.LogonController) bool { return c.Result == state.LogonsAnswered })
	if got := text(t, logonReport(t, one)); !strings.Contains(got, "\nThe logons of the other domain controller are missing. ") {
		t.Error(got)
	}
	got = text(t, logonReport(t, &state.LogonSweep{At: noon, Error: "not readable", Remedy: "grant it"}))
	if !strings.Contains(got, "\nThe logons of the other domain controllers are missing: not readable\nremedy: grant it\n") {
		t.Error(got)
	}
	if got := text(t, logonReport(t, nil)); strings.Contains(got, "logons") {
		t.Error(got)
	}
}

func TestLogonsPage(t *testing.T) {
	t.Parallel()
	got := renderPage(t, logonReport(t, someMissing()))
	for _, want := range []string{"Logons of some domain controllers are missing.", "dc3.corp.test (read-only)", "dc2.corp.test (PDC emulator)", "unknown issuer", "set it", "2 of 3 answered"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q missing", want)
		}
	}
	got = renderPage(t, logonReport(t, &state.LogonSweep{At: noon, Error: "not readable", Remedy: "grant it"}))
	if !strings.Contains(got, "not readable") || !strings.Contains(got, "grant it") || !strings.Contains(got, "Logons of some") {
		t.Error("error missing")
	}
	if got := renderPage(t, logonReport(t, nil)); strings.Contains(got, `id="logons"`) {
		t.Error("section without a sweep")
	}
	many := someMissing()
	for n := range pageObjects {
		many.Controllers = append(many.Controllers, state.LogonController{Host: fmt.Sprintf("dc%d", n), Result: state.LogonsAnswered})
	}
	if got := renderPage(t, logonReport(t, many)); !strings.Contains(got, "The first 100;") || strings.Contains(got, ">dc99<") {
		t.Error("the list is not limited")
	}
}

func TestLogonMetric(t *testing.T) {
	t.Parallel()
	scrapeOf := func(sweep *state.LogonSweep) string {
		code, text := scrape(t, NewMetrics(Build{}, func() (Report, error) { return logonReport(t, sweep), nil }))
		if code != 200 {
			t.Errorf("status %d", code)
		}
		return text
	}
	got := scrapeOf(someMissing())
	for _, result := range state.LogonResults {
		want := map[state.LogonResult]int{state.LogonsAnswered: 2, state.LogonsCertificate: 1}[result]
		if line := fmt.Sprintf("adconnector_logon_controllers{result=%q} %d\n", result, want); !strings.Contains(got, line) {
			t.Errorf("%q missing", line)
		}
	}
	if strings.Contains(scrapeOf(nil), "logon_controllers") {
		t.Error("metric without a sweep")
	}
}
