package status

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
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

// layout is the data of the parts that all pages have.
type layout struct {
	Version string
	Now     time.Time
}

// Clock formats a time in local time.
func (l layout) Clock(t time.Time) string { return formatTime(t, time.Local) }

// Ago formats a time relative to now.
func (l layout) Ago(t time.Time) string { return relativeTime(t.Sub(l.Now)) }

// page is the data of the main page.
type page struct {
	layout
	Report
	Charts   []chart
	Severity string // a class of the style sheet: good, warn or bad
	Headline string // the most severe problem
	Problems []problem
}

func newPage(report Report, now time.Time) page {
	l := layout{report.Version, now}
	p := page{layout: l, Report: report, Problems: report.problems(l.Clock, now), Charts: []chart{newChart(report.Runs, wide, time.Local), newChart(report.Runs, narrow, time.Local)}}
	p.Severity, p.Headline = report.verdict(p.Problems)
	return p
}

// Version resolves the ambiguity of the embedded structs.
func (p page) Version() string { return p.layout.Version }

// ShownRuns returns the runs on the page.
func (p page) ShownRuns() []state.Run { return p.Runs[:min(len(p.Runs), pageRuns)] }

// runError is an error of some of the runs on the page.
type runError struct {
	Error, Remedy string
	Runs          int
	Latest        state.Run
}

// Errors returns the errors of the runs on the page, the latest first, each of them once. The error
// of the last run is among the problems.
func (p page) Errors() (list []runError) {
	index := map[[2]string]int{}
	for _, run := range p.ShownRuns() {
		key := [2]string{run.Error, run.Remedy}
		if run.Error == "" || key == [2]string{p.Runs[0].Error, p.Runs[0].Remedy} {
			continue
		}
		i, found := index[key]
		if !found {
			i = len(list)
			index[key] = i
			list = append(list, runError{run.Error, run.Remedy, 0, run})
		}
		list[i].Runs++
	}
	return list
}

// ShownHeld returns the held deletions on the page.
func (p page) ShownHeld() []Held { return p.HeldDeletions[:min(len(p.HeldDeletions), pageObjects)] }

// ShownUndecided returns the undecided deletions on the page.
func (p page) ShownUndecided() []Undecided {
	return p.UndecidedDeletions[:min(len(p.UndecidedDeletions), pageObjects)]
}

// ShownRejected returns the rejections on the page.
func (p page) ShownRejected() []Rejection { return p.Rejections[:min(len(p.Rejections), pageObjects)] }

// ShownControllers returns the domain controllers on the page.
func (p page) ShownControllers() []LogonController {
	return p.Logons.Controllers[:min(len(p.Logons.Controllers), pageObjects)]
}

// StateKiB returns the size of the state file.
func (p page) StateKiB() int { return int(p.StateBytes >> 10) }

var pageTemplate = template.Must(template.New("").Funcs(template.FuncMap{
	"number":   FormatNumber,
	"quantity": Quantity,
	"outcome":  outcome,
	"path":     runPath,
	"duration": formatDuration,
	"ms":       func(ms int64) string { return formatDuration(time.Duration(ms) * time.Millisecond) },
	"lower":    strings.ToLower,
	"rfc":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"read":     state.Run.Read,
	"cell":     func(name string, n int) count { return count{name, n} },
}).Parse(pageHTML))

// formatDuration formats a duration rounded to two units at most, like 1.5 s or 3 min 20 s.
func formatDuration(d time.Duration) string {
	switch {
	case d.Round(time.Millisecond) < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d.Round(time.Second/10) < time.Minute:
		return fmt.Sprintf("%.1f s", d.Round(time.Second/10).Seconds())
	case d.Round(time.Second) < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%s h %d min", FormatNumber(int(d.Hours())), int(d.Minutes())%60)
}

// writePage writes a page.
func writePage(w http.ResponseWriter, status int, name string, data any) {
	var content bytes.Buffer // so that an error does not truncate the page
	if err := pageTemplate.ExecuteTemplate(&content, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = content.WriteTo(w) // an error means that the client disconnected
}

func (e Endpoint) showPage(w http.ResponseWriter, _ *http.Request) {
	report, err := e.Report()
	if err != nil {
		unavailable(w, err)
		return
	}
	writePage(w, http.StatusOK, "page", newPage(report, time.Now()))
}

// staticFile returns a handler for an embedded file.
func staticFile(kind string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content) // an error means that the client disconnected
	}
}
