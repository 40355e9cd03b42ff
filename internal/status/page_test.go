package status

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/state"
)

// renderPage returns the page of a report.
func renderPage(t *testing.T, r Report) string {
	t.Helper()
	e := endpoint()
	e.Report = func() (Report, error) { return r, nil }
	w := get(e.Handler("", zerolog.Nop()), "GET", "localhost", "/")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %s", w.Code, w.Header())
	}
	return w.Body.String()
}

func runs(n int) (list []state.Run) {
	for i := range n {
		list = append(list, state.Run{Mode: "delta", Result: "processed", Start: noon.Add(-time.Duration(i) * time.Minute), Changed: i, Uploaded: i})
	}
	return list
}

func TestPage(t *testing.T) {
	t.Parallel()
	r := Report{State: "SCHEDULED", Since: time.Now().Add(-time.Minute), NextRun: time.Now().Add(5*time.Minute + time.Second), Objects: 1234567, Runs: runs(200)}
	page := renderPage(t, r)
	for _, want := range []string{"<h2 id=\"now\">No problems.</h2>", "<dd>in 5 minutes ", "1\u202f234\u202f567", `class="chip scheduled"`, "The last 200 runs"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q missing in the page", want)
		}
	}
	if n := strings.Count(page, `class="chip processed"`); n != pageRuns {
		t.Errorf("%d runs in the table", n)
	}
	for _, forbidden := range []string{"<script", "http://", "https://", " style=", "onclick"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("%q in the page", forbidden)
		}
	}
	if w := get(endpoint().Handler("", zerolog.Nop()), "GET", "localhost", "/style.css"); w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/css") {
		t.Errorf("style: %d", w.Code)
	}
	if w := get(endpoint().Handler("", zerolog.Nop()), "GET", "localhost", "/index.php"); w.Code != 404 {
		t.Errorf("unknown page: %d", w.Code)
	}
}

// TestHeadline tests that the headline is the most severe problem.
func TestHeadline(t *testing.T) {
	t.Parallel()
	failed := append([]state.Run{{Result: "failed", Error: "bind: <refused>"}}, runs(1)...)
	interrupted := append([]state.Run{{Result: "failed", Class: "canceled", Error: "upload: context canceled"}}, runs(1)...)
	unreadable := append([]state.Run{{Result: "partial", Unreadable: 7077}}, runs(1)...)
	for _, c := range []struct {
		report             Report
		severity, headline string
	}{
		{Report{}, "good", "No run has ended yet."},
		{Report{Runs: unreadable, WaitsFor: rateLimit}, "warn", "The account cannot read some objects."},
		{Report{Runs: unreadable, Rejected: 1}, "warn", "The gateway rejects some objects."},
		{Report{Runs: runs(1)}, "good", "No problems."},
		{Report{Runs: runs(1), WaitsFor: rateLimit}, "warn", "Waiting for the gateway&#39;s rate limit."},
		{Report{Runs: runs(1), WaitsFor: rateLimit, Rejected: 1}, "warn", "The gateway rejects some objects."},
		{Report{Runs: runs(1), Rejected: 1, Undecided: 3}, "warn", "Some deletions are undecided."},
		{Report{Runs: runs(1), Rejected: 1, Undecided: 3, Held: 2}, "warn", "Held deletions require a decision."},
		{Report{Runs: interrupted, Held: 2, Error: "upload: context canceled"}, "warn", "The last run was interrupted."},
		{Report{Runs: failed, Held: 2, Error: "bind: <refused>"}, "bad", "The last run failed."},
	} {
		if page := renderPage(t, c.report); !strings.Contains(page, `class="now `+c.severity+`"`) || !strings.Contains(page, ">"+c.headline+"</h2>") {
			t.Errorf("%+v: no %q", c.report, c.headline)
		} else if shown := strings.Contains(page, "<td class=\"n\">7\u202f077</td>"); len(c.report.Runs) > 0 && shown != (c.report.Runs[0].Unreadable > 0) {
			t.Errorf("%+v: unreadable objects shown: %t", c.report, shown)
		}
	}
}

// TestInterrupted tests that an interrupted run is not shown as failed.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	r := Report{Error: "cut off", Runs: []state.Run{{Result: "failed", Class: "canceled", Error: "cut off"}}}
	if page := renderPage(t, r); !strings.Contains(page, `<span class="chip interrupted">interrupted</span>`) || strings.Contains(page, "Last error") ||
		strings.Contains(page, `class="chip failed"`) || strings.Contains(page, `<rect class="failed"`) {
		t.Error(page)
	}
	if text := text(t, r); !strings.Contains(text, "\nlast run        The last run was interrupted.\n") || strings.Contains(text, "cut off") || !strings.Contains(text, "  interrupted  ") {
		t.Error(text)
	}
}

// TestPageEscapes tests that texts from the gateway and from the state file are escaped.
func TestPageEscapes(t *testing.T) {
	t.Parallel()
	const hostile = `<script>alert(1)</script>"'&`
	page := renderPage(t, Report{
		Error: hostile, Remedy: hostile, Rejected: 1, Rejections: []Rejection{{"user", "S-1", "g", hostile, 1, noon}},
		Held: 200, HeldDeletions: make([]Held, 200), Undecided: 1, UndecidedReasons: []UndecidedReason{{Reason: hostile, Remedy: hostile}},
		UndecidedDeletions: []Undecided{{Reason: hostile}}, Runs: []state.Run{{Result: "failed", Error: hostile, Remedy: hostile}},
	})
	if strings.Contains(page, "<script") || strings.Count(page, "&lt;script&gt;alert(1)&lt;/script&gt;") != 8 {
		t.Error(page)
	}
	if !strings.Contains(page, "The first 100;") || !strings.Contains(page, "sync --allow-deletes") {
		t.Error("number of listed deletions or remedy missing")
	}
}

func TestPageWithoutReport(t *testing.T) {
	t.Parallel()
	e := endpoint()
	e.Report = func() (Report, error) { return Report{}, errors.New("no disk") }
	if w := get(e.Handler("", zerolog.Nop()), "GET", "localhost", "/"); w.Code != 503 {
		t.Errorf("%d", w.Code)
	}
}

func TestChart(t *testing.T) {
	t.Parallel()
	list := runs(300)
	list[0].Changed, list[0].Uploaded = 99_999, 0
	list[1].Result = "failed"
	c := newChart(list)
	if len(c.Bars) != chartRuns {
		t.Fatalf("%d bars", len(c.Bars))
	}
	latest, previous := c.Bars[chartRuns-1], c.Bars[chartRuns-2]
	if latest.Changed != chartHeight || latest.Uploaded != 0 || !previous.Failed || latest.X+latest.Width > chartWidth {
		t.Errorf("latest %+v, previous %+v", latest, previous)
	}
	if len(c.Grid) != 5 || c.Grid[4] != (gridLine{chartHeight, "100\u202f000"}) || c.Grid[0].Y != chartHeight/5 {
		t.Errorf("grid %+v", c.Grid)
	}
	if c := newChart(runs(1)); c.Bars[0].Width > chartWidth/20 || c.Bars[0].Uploaded != 0 {
		t.Errorf("one run: %+v", c.Bars)
	}
	if c := newChart(nil); len(c.Bars) != 0 {
		t.Errorf("no runs: %+v", c.Bars)
	}
}

// TestChartIsXML tests that the chart is valid XML, so that it can be saved as an SVG file.
func TestChartIsXML(t *testing.T) {
	t.Parallel()
	page := renderPage(t, Report{Runs: runs(20)})
	_, rest, _ := strings.Cut(page, "<svg")
	svg, _, _ := strings.Cut(rest, "</svg>")
	decoder := xml.NewDecoder(strings.NewReader("<svg" + svg + "</svg>"))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestGroupDigits(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1 000", 1234567: "1 234 567"} {
		if got := strings.ReplaceAll(groupDigits(n), "\u202f", " "); got != want {
			t.Error(fmt.Sprint(n), got)
		}
	}
}
