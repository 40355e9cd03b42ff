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

// What the page shows of the lists; /status has more.
const (
	pageRuns    = 50
	pageObjects = 100
)

// page is what the template is given.
type page struct {
	Report
	Now   time.Time
	Chart chart
}

// Tone says how things stand, in a word that the style sheet knows too.
func (p page) Tone() string {
	switch {
	case len(p.Runs) > 0 && outcome(p.Runs[0]) == "failed":
		return "bad"
	case p.interrupted(), p.Held > 0, p.Rejected > 0, p.WaitsFor != "":
		return "warn"
	default:
		return "good"
	}
}

// Failed reports whether there is an error to show. An interrupted run has none.
func (p page) Failed() bool { return p.Error != "" && !p.interrupted() }

// Verdict is the same in a sentence.
func (p page) Verdict() string {
	switch {
	case len(p.Runs) == 0:
		return "No run has ended yet."
	case outcome(p.Runs[0]) == "failed":
		return "The last run failed."
	case p.interrupted():
		return interrupted
	case p.Held > 0:
		return "Deletions wait for your decision."
	case p.Rejected > 0:
		return "The gateway rejects some objects."
	case p.WaitsFor != "":
		return "Waiting for the gateway's " + p.WaitsFor + "."
	default:
		return "All is well."
	}
}

// ShownRuns and the others are the beginnings of the lists.
func (p page) ShownRuns() []state.Run     { return p.Runs[:min(len(p.Runs), pageRuns)] }
func (p page) ShownHeld() []Held          { return p.HeldDeletions[:min(len(p.HeldDeletions), pageObjects)] }
func (p page) ShownRejected() []Rejection { return p.Rejections[:min(len(p.Rejections), pageObjects)] }

// StateKiB is the size of the state file.
func (p page) StateKiB() int { return int(p.StateBytes >> 10) }

// Clock writes a time for people, and Ago how far off it is.
func (p page) Clock(at time.Time) string { return clock(at, time.Local) }
func (p page) Ago(at time.Time) string   { return distance(at.Sub(p.Now)) }

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"number":  number,
	"outcome": outcome,
	"took":    func(d time.Duration) string { return d.Round(time.Millisecond).String() },
	"lower":   strings.ToLower,
	"rfc":     func(at time.Time) string { return at.UTC().Format(time.RFC3339) },
}).Parse(pageHTML))

// number writes a count with thin gaps between its thousands.
func number(n int) string {
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
	var whole bytes.Buffer // a page that breaks off would pass for one that is whole
	if err := pageTemplate.Execute(&whole, page{report, time.Now(), chartOf(report.Runs)}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = whole.WriteTo(w) // the client has gone
}

// asset is a file that the page needs.
func asset(kind string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content) // the client has gone
	}
}
