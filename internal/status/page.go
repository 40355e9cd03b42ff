package status

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"adconnector/internal/state"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS []byte

//go:embed icon.svg
var iconSVG []byte

// The lengths of the lists on the page. /status has more.
const (
	pageRuns    = 50
	pageObjects = 100
)

// page is the data of the template.
type page struct {
	Report
	Now      time.Time
	Chart    chart
	Severity string // a class of the style sheet: good, warn or bad
	Headline string // the most severe problem
}

// HasError reports whether the page shows an error. An interrupted run has none.
func (p page) HasError() bool { return p.Error != "" && !p.interrupted() }

// assess returns the severity and the headline of the most severe problem.
func (r *Report) assess() (severity, headline string) {
	switch {
	case len(r.Runs) == 0:
		return "good", "No run has ended yet."
	case outcome(r.Runs[0]) == "failed":
		return "bad", "The last run failed."
	case r.interrupted():
		return "warn", interrupted
	case r.Held > 0:
		return "warn", "Held deletions require a decision."
	case r.Undecided > 0:
		return "warn", "Some deletions are undecided."
	case r.Rejected > 0:
		return "warn", "The gateway rejects some objects."
	case r.Runs[0].Unreadable > 0:
		return "warn", "The account cannot read some objects."
	case r.LogonsMissing():
		return "warn", "Logons of some domain controllers are missing."
	case r.WaitsFor != "":
		return "warn", "Waiting for the gateway's " + r.WaitsFor + "."
	}
	return "good", "No problems."
}

// ShownRuns returns the runs on the page.
func (p page) ShownRuns() []state.Run { return p.Runs[:min(len(p.Runs), pageRuns)] }

// ShownHeld returns the held deletions on the page.
func (p page) ShownHeld() []Held { return p.HeldDeletions[:min(len(p.HeldDeletions), pageObjects)] }

// ShownUndecided returns the undecided deletions on the page.
func (p page) ShownUndecided() []Undecided {
	return p.UndecidedDeletions[:min(len(p.UndecidedDeletions), pageObjects)]
}

// ShownRejected returns the rejections on the page.
func (p page) ShownRejected() []Rejection { return p.Rejections[:min(len(p.Rejections), pageObjects)] }

// RefusedBindsText describes the refused binds before a pause.
func (p page) RefusedBindsText() string { return p.refusedBinds() }

// ShownControllers returns the domain controllers on the page.
func (p page) ShownControllers() []LogonController {
	return p.Logons.Controllers[:min(len(p.Logons.Controllers), pageObjects)]
}

// StateKiB returns the size of the state file.
func (p page) StateKiB() int { return int(p.StateBytes >> 10) }

// Clock formats a time in local time.
func (p page) Clock(t time.Time) string { return formatTime(t, time.Local) }

// Ago formats a time relative to now.
func (p page) Ago(t time.Time) string { return relativeTime(t.Sub(p.Now)) }

// pageTemplate is parsed for the first request, because most processes never show the page.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"number":   groupDigits,
		"outcome":  outcome,
		"duration": func(d time.Duration) string { return d.Round(time.Millisecond).String() },
		"lower":    strings.ToLower,
		"rfc":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).Parse(pageHTML))
})

// groupDigits formats a number with thin spaces between groups of three digits.
func groupDigits(n int) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}

func (e Endpoint) showPage(w http.ResponseWriter, _ *http.Request) {
	report, err := e.Report()
	if err != nil {
		unavailable(w, err)
		return
	}
	severity, headline := report.assess()
	var content bytes.Buffer // so that an error does not truncate the page
	if err := pageTemplate().Execute(&content, page{report, time.Now(), newChart(report.Runs), severity, headline}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = content.WriteTo(w) // an error means that the client disconnected
}

// staticFile returns a handler for an embedded file.
func staticFile(kind string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content) // an error means that the client disconnected
	}
}
