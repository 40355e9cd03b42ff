package status

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/state"
)

// fetch returns a page of a report, which must have the status.
func fetch(t *testing.T, r Report, path string, status int) string {
	t.Helper()
	e := endpoint()
	e.Report = func() (Report, error) { return r, nil }
	w := get(e.Handler("", zerolog.Nop()), "GET", "localhost", path)
	if w.Code != status || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %s", w.Code, w.Header())
	}
	return w.Body.String()
}

// renderPage returns the main page of a report.
func renderPage(t *testing.T, r Report) string {
	t.Helper()
	return fetch(t, r, "/", http.StatusOK)
}

func runs(n int) (list []state.Run) {
	for i := range n {
		list = append(list, state.Run{ID: fmt.Sprint("run", i), Mode: "delta", Result: "processed", Start: noon.Add(-time.Duration(i) * time.Minute), Changed: i, Uploaded: i})
	}
	return list
}

// expectAll fails the test unless the page contains all texts.
func expectAll(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("%q missing in the page", text)
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	r := Report{
		State: "SCHEDULED", Since: time.Now().Add(-time.Minute), NextRun: time.Now().Add(5*time.Minute + time.Second), NextFullSync: noon, Controller: "dc1.corp.test",
		Objects: 1234567, Runs: runs(200),
	}
	page := renderPage(t, r)
	expectAll(t, page, "<h1 id=\"now\">No problems.</h1>", "<dd>in 5 minutes ", "1,234,567", `class="chip scheduled"`, "The last 100 runs", "The last 28 runs", "<dd>dc1.corp.test</dd>",
		"<dd>first run after <time", `<a href="/runs/run0"><time`, `href="/runs/run99" aria-label="Run of `)
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

// TestProblems tests that the page has each problem with its remedy, the most severe first and as
// the headline.
func TestProblems(t *testing.T) {
	t.Parallel()
	failed := append([]state.Run{{Result: "failed", Error: "bind: <refused>", Remedy: "correct it"}}, runs(1)...)
	repeated := append([]state.Run{failed[0], failed[0]}, runs(1)...)
	refused := append([]state.Run{{Result: "failed", Class: "refused", Error: "no access", Remedy: "grant access"}}, runs(1)...)
	interruptedRuns := append([]state.Run{{Result: "failed", Class: "canceled", Error: "upload: context canceled"}}, runs(1)...)
	unreached := []state.UnreachedServer{{Server: "dc1:636", Error: "connect dc1:636: refused", Remedy: "check the firewall"}}
	read := runs(1)
	read[0].Controller = "dc2"
	heldDeletions, rejected := Report{Runs: runs(1), Held: 2, Rejected: 1}, Report{Runs: runs(1), Rejected: 1, WaitsFor: rateLimit, WaitsUntil: noon}
	paused := Report{Runs: refused, BindsPausedUntil: noon, RefusedBinds: 2, BindRemedy: "change the password"}
	undecided := Report{Runs: runs(1), Undecided: 1234, UndecidedReasons: []UndecidedReason{{"lag", "wait for it", 1230, noon}, {"scope", "sync it", 4, noon}}}
	unreadable := Report{Runs: runs(1), Unreadable: state.Unreadable{Objects: 7077, Attributes: []string{"member", "objectSid"}, Remedy: "run dsacls"}}
	descriptors, both := unreadable, unreadable
	descriptors.Unreadable.Attributes, both.Unreadable.Attributes = []string{"nTSecurityDescriptor"}, []string{"member", "nTSecurityDescriptor"}
	for name, c := range map[string]struct {
		report             Report
		severity, headline string
		others             []string // titles
		texts              []string
	}{
		"nothing run":     {Report{}, "good", "No run has ended yet.", nil, nil},
		"no problems":     {Report{Runs: runs(1)}, "good", "No problems.", nil, nil},
		"failed":          {Report{Runs: failed, Held: 2}, "bad", "The last run failed.", []string{"Held deletions require a decision."}, []string{"bind: &lt;refused&gt;", "correct it"}},
		"failed twice":    {Report{Runs: repeated}, "bad", "The last 2 runs failed.", nil, []string{"The first of them started at "}},
		"refused, paused": {paused, "bad", "The last run was refused.", []string{"Binds are paused."}, []string{"no access", "grant access", "after 2 refused binds in a row", "change the password"}},
		"interrupted":     {Report{Runs: interruptedRuns, Error: "upload: context canceled"}, "warn", "The last run was interrupted.", nil, []string{remedyInterrupted}},
		"held, rejected":  {heldDeletions, "warn", "Held deletions require a decision.", []string{"The gateway rejects some objects."}, []string{state.HeldRemedy, `href="#held"`, "2 deletions are not sent"}},
		"undecided":       {undecided, "warn", "Some deletions are undecided.", []string{"Some deletions are undecided."}, []string{"1,230 objects are missing, but nothing proves the deletion: lag", "wait for it", "sync it", `href="#undecided"`}},
		"rejected, waiting": {rejected, "warn", "The gateway rejects some objects.", []string{"Waiting for the gateway&#39;s rate limit."},
			[]string{state.RejectedRemedy, remedyWait, `href="#rejected"`, "1 object is rejected."}},
		"unreadable":  {unreadable, "warn", "The account cannot read some objects.", nil, []string{"7,077 objects are not sent", "member, objectSid", "run dsacls", "<dd>7,077</dd>"}},
		"descriptors": {descriptors, "warn", "The account cannot read some objects.", nil, []string{"7,077 objects are sent without controlledBy. Unreadable attributes: nTSecurityDescriptor.", "run dsacls"}},
		"unreadable, descriptors": {both, "warn", "The account cannot read some objects.", nil,
			[]string{"7,077 objects are not completely readable. Those that lack only nTSecurityDescriptor are sent without controlledBy. The others are not sent"}},
		"unreached":    {Report{Runs: read, Unreached: unreached}, "warn", "A directory server was not reached.", nil, []string{"connect dc1:636: refused", "check the firewall"}},
		"waiting":      {Report{Runs: runs(1), WaitsFor: rateLimit, WaitsUntil: noon}, "warn", "Waiting for the gateway&#39;s rate limit.", nil, []string{remedyWait}},
		"fewer calls":  {Report{Runs: runs(1), WorkersAllowed: 1}, "good", "No problems.", []string{"The gateway limits concurrent calls."}, []string{remedyWorkers, "It accepts 1 call at a time"}},
		"none reached": {Report{Runs: failed, Unreached: unreached}, "bad", "The last run failed.", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			page := renderPage(t, c.report)
			expectAll(t, page, `class="now `+c.severity+`"`, `<h1 id="now">`+c.headline+"</h1>")
			expectAll(t, page, c.texts...)
			var others []string
			for _, heading := range regexp.MustCompile(`<li class="\w+"><h2>(.*?)</h2>`).FindAllStringSubmatch(page, -1) {
				others = append(others, heading[1])
			}
			if strings.Join(others, "\n") != strings.Join(c.others, "\n") {
				t.Errorf("other problems %q, want %q", others, c.others)
			}
		})
	}
}

// TestErrorsOnce tests that the page shows an error that repeats once, with the number of runs, and
// that of the last run among the problems only.
func TestErrorsOnce(t *testing.T) {
	t.Parallel()
	list := runs(10)
	for i := 1; i < 10; i++ {
		list[i].Result, list[i].Error, list[i].Remedy = "failed", "connect dc1: connection refused", "check ldap.host"
	}
	list[5].Error = "connect dc1: no route"
	page := renderPage(t, Report{Runs: list})
	if strings.Count(page, "connection refused") != 1 || strings.Count(page, "no route") != 1 {
		t.Error("an error is not shown once")
	}
	expectAll(t, page, `<a href="/runs/run1">`, `<td class="n" data-title="Runs">8</td>`, `<td class="n" data-title="Runs">1</td>`)
	page = renderPage(t, Report{Runs: list[1:]})
	if strings.Count(page, "connection refused") != 1 || strings.Count(page, "no route") != 1 || strings.Contains(page, `data-title="Runs">8<`) {
		t.Error("the error of the last run is not shown once")
	}
}

// TestRunPage tests the page of one run.
func TestRunPage(t *testing.T) {
	t.Parallel()
	list := runs(4)
	list[1] = state.Run{
		ID: "a/b", Mode: "full", Result: "failed", Start: noon, DurationMS: 200_000, Error: "read <base>: reset", Remedy: "check the network", Class: "transient",
		Controller: "dc2.corp.test", Unreached: []state.UnreachedServer{{Server: "dc1", Error: "connect dc1: refused", Remedy: "start dc1"}},
		Stages: []state.Stage{{Name: "connect", DurationMS: 50}, {Name: "read", DurationMS: 100_000}}, Users: 12345, Unreadable: 3, MissingRights: []string{"member"}, RightsRemedy: "run dsacls",
	}
	page := fetch(t, Report{Runs: list}, "/runs/a%2Fb", http.StatusOK)
	expectAll(t, page, `<span class="chip failed">failed</span>`, "read &lt;base&gt;: reset", "check the network", "dc2.corp.test", "connect dc1: refused", "start dc1", "run dsacls", "3 min 20 s",
		`<th scope="row">read</th><td class="n" data-title="Time">1 min 40 s</td>`, "<strong>The run ended here.</strong>", "<dd>12,345</dd>",
		`<a href="/runs/run2" rel="prev">`, `<a href="/runs/run0" rel="next">`, "<code>a/b</code>")
	if strings.Count(page, "The run ended here.") != 1 || strings.Contains(page, "http-equiv") {
		t.Error("the end of the run is marked several times, or the page reloads")
	}
	page = fetch(t, Report{Runs: list}, "/runs/run0", http.StatusOK)
	expectAll(t, page, `class="now good"`, "without its stages", `rel="prev"`)
	if strings.Contains(page, `rel="next"`) || strings.Contains(page, "ended here") {
		t.Error("next run of the latest one")
	}
	expectAll(t, fetch(t, Report{Runs: list}, "/runs/unknown", http.StatusNotFound), "This run is not recorded.")
	held := state.Run{ID: "held", Mode: "delta", Result: "held", Held: 2, Undecided: 3, Rejected: 1}
	expectAll(t, fetch(t, Report{Runs: []state.Run{held}}, "/runs/held", http.StatusOK), state.HeldRemedy, "3 deletions.", state.RejectedRemedy, `class="now warn"`)
}

// TestInterrupted tests that an interrupted run is not shown as failed.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	r := Report{Error: "cut off", Runs: []state.Run{{ID: "r", Result: "failed", Class: "canceled", Error: "cut off", Stages: []state.Stage{{Name: "read"}}}}}
	if page := renderPage(t, r); !strings.Contains(page, `<span class="chip interrupted">interrupted</span>`) || !strings.Contains(page, `class="mark interrupted"`) ||
		strings.Contains(page, "failed.") || strings.Contains(page, `class="chip failed"`) || strings.Contains(page, `<path class="mark failed" d="M3`) {
		t.Error(page)
	}
	expectAll(t, fetch(t, r, "/runs/r", http.StatusOK), "The run was interrupted.", `class="now warn"`)
	if text := text(t, r); !strings.Contains(text, "\nlast run        The last run was interrupted.\n") || strings.Contains(text, "cut off") || !strings.Contains(text, "  interrupted  ") {
		t.Error(text)
	}
}

// TestPageEscapes tests that texts from the gateway, from the directory and from the state file are
// escaped.
func TestPageEscapes(t *testing.T) {
	t.Parallel()
	const hostile = `<script>alert(1)</script>"'&`
	run := state.Run{
		ID: hostile, Mode: hostile, Result: "failed", Error: hostile, Remedy: hostile, Controller: hostile, Unreached: []state.UnreachedServer{{Server: hostile, Error: hostile, Remedy: hostile}},
		Unreadable: 1, MissingRights: []string{hostile}, RightsRemedy: hostile, Stages: []state.Stage{{Name: hostile}},
	}
	r := Report{
		Error: hostile, Remedy: hostile, Rejected: 1, Rejections: []Rejection{{"user", "S-1", "g", hostile, 1, noon}}, Controller: hostile, Unreached: run.Unreached,
		Held: 200, HeldDeletions: make([]Held, 200), Undecided: 1, UndecidedReasons: []UndecidedReason{{Reason: hostile, Remedy: hostile}},
		Unreadable:         state.Unreadable{Objects: 1, Attributes: []string{hostile}, Remedy: hostile},
		UndecidedDeletions: []Undecided{{Reason: hostile}}, Runs: []state.Run{run, {}},
	}
	page := renderPage(t, r)
	onRunPage := fetch(t, r, runPath(run), http.StatusOK)
	for name, content := range map[string]string{"page": page, "run page": onRunPage} {
		if strings.Contains(content, "<script") || strings.Count(content, "&lt;script&gt;alert(1)&lt;/script&gt;") < 8 {
			t.Errorf("%s: %s", name, content)
		}
	}
	expectAll(t, page, "The first 100;", "sync --allow-deletes")
}

func TestPageWithoutReport(t *testing.T) {
	t.Parallel()
	e := endpoint()
	e.Report = func() (Report, error) { return Report{}, errors.New("no disk") }
	for _, path := range []string{"/", "/runs/x"} {
		if w := get(e.Handler("", zerolog.Nop()), "GET", "localhost", path); w.Code != 503 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestChart(t *testing.T) {
	t.Parallel()
	list := runs(300)
	list[0].Changed, list[0].Uploaded, list[0].Deleted = 100_000, 0, 0
	list[1].Result, list[1].Changed, list[1].Uploaded = "failed", 9, 8
	list[2].Changed, list[2].Uploaded, list[2].Deleted = 0, 0, 100
	for _, s := range []size{wide, narrow} {
		c := newChart(list, s, time.UTC)
		if len(c.Bars) != s.runs {
			t.Fatalf("%s: %d bars", s.Name, len(c.Bars))
		}
		latest, failed, deleted := c.Bars[s.runs-1], c.Bars[s.runs-2], c.Bars[s.runs-3]
		if latest.Changed != plotHeight || latest.Sent != 0 || latest.Mark != "" || latest.X+latest.Width > s.Width {
			t.Errorf("%s: latest %+v", s.Name, latest)
		}
		if failed.Mark != "failed" || failed.Changed >= plotHeight/2 || failed.Sent >= failed.Changed || deleted.Changed != 0 || deleted.Sent == 0 {
			t.Errorf("%s: failed %+v, deleted %+v", s.Name, failed, deleted)
		}
		if latest.Title != "2026-11-22 12:00 delta, processed: 100,000 changed, 0 sent" || latest.Link != "/runs/run0" {
			t.Errorf("%s: title %q, link %q", s.Name, latest.Title, latest.Link)
		}
		if len(c.Values) != 6 || c.Values[5] != (tick{0, "100,000", ""}) || c.Values[0] != (tick{plotHeight, "0", ""}) || c.Values[1].Label != "10" {
			t.Errorf("%s: value axis %+v", s.Name, c.Values)
		}
		times := c.Times
		if len(times) < 3 || times[0].Date != "Nov 22" || times[1].Date != "" || times[len(times)-1].Label != "12:00" || times[len(times)-1].At != latest.Center {
			t.Errorf("%s: time axis %+v", s.Name, times)
		}
		for i := 1; i < len(times); i++ {
			if times[i].At-times[i-1].At < labelWidth-1 {
				t.Errorf("%s: labels overlap: %+v", s.Name, times)
			}
		}
		if c := newChart(runs(1), s, time.UTC); c.Bars[0].Width > s.Width/10 || c.Bars[0].Sent != 0 || len(c.Times) != 1 {
			t.Errorf("%s, one run: %+v", s.Name, c)
		}
		if c := newChart(nil, s, time.UTC); len(c.Bars)+len(c.Times) != 0 {
			t.Errorf("%s, no runs: %+v", s.Name, c)
		}
	}
	nights := runs(100)
	for i := range nights {
		nights[i].Start = noon.Add(-time.Duration(i) * 12 * time.Hour)
	}
	for _, t1 := range newChart(nights, narrow, time.UTC).Times {
		if t1.Date == "" {
			t.Errorf("label of another day without its date: %+v", t1)
		}
	}
}

// TestChartIsXML tests that the charts are valid XML, so that they can be saved as SVG files.
func TestChartIsXML(t *testing.T) {
	t.Parallel()
	list := runs(20)
	list[3].Result, list[4].Result, list[5].ID = "failed", "held", ""
	rest := renderPage(t, Report{Runs: list})
	charts := 0
	for {
		_, after, found := strings.Cut(rest, "<svg")
		if !found {
			break
		}
		svg, remaining, _ := strings.Cut(after, "</svg>")
		rest = remaining
		charts++
		decoder := xml.NewDecoder(strings.NewReader("<svg" + svg + "</svg>"))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if charts != 4 { // with the symbols of the legend
		t.Errorf("%d charts", charts)
	}
}

func TestFormatDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", 1500 * time.Millisecond: "1.5 s", 200 * time.Second: "3 min 20 s", 26*time.Hour + 5*time.Minute: "26 h 5 min",
		999600 * time.Microsecond: "1.0 s", 59960 * time.Millisecond: "1 min 0 s", 368930 * time.Millisecond: "6 min 9 s", 2*time.Hour - time.Millisecond: "2 h 0 min",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
