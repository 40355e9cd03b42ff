package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/status"
)

// admin is an admin endpoint of a state file.
type admin struct {
	t     *testing.T
	store *state.Store
	last  time.Time // start of the last run
	runs  int
	more  func(*status.Report) // what the daemon adds to the report
}

func newAdmin(t *testing.T) *admin {
	t.Helper()
	store, err := state.Options{NoSync: true}.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &admin{t: t, store: store, more: func(*status.Report) {}}
}

func (a *admin) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// serve returns the URL.
func (a *admin) serve() string {
	healthy := func() error { return nil }
	server := httptest.NewServer(status.Endpoint{
		Report: func() (status.Report, error) {
			report, err := status.Read(a.store, "", time.Now())
			report.Version = "1.0.0"
			report.Instance = status.Instance{ConnectionUUID: "7d3f5a0c-9a51-4c0e-8d3c-2b6f0a9f1e11", ProfileUUID: "0c7c2a4e-55a1-4d8e-9a37-6f1d2c3b4a55", StateDir: "/var/lib/adconnector"}
			report.NextFullSync = time.Now().Add(5 * time.Hour)
			a.more(&report)
			return report, err
		}, Health: healthy, Readiness: healthy, Metrics: http.NotFoundHandler(),
	}.Handler("127.0.0.1", zerolog.Nop()))
	a.t.Cleanup(server.Close)
	return server.URL
}

// record records a run 10 minutes after the one before.
func (a *admin) record(run state.Run) {
	a.t.Helper()
	a.runs++
	a.last = a.last.Add(10 * time.Minute)
	run.ID, run.Start = fmt.Sprintf("f81d4fae-7dec-11d0-a765-%012d", a.runs), a.last
	if run.Mode == "" {
		run.Mode = "delta"
	}
	if run.Result == "" {
		run.Result = "processed"
	}
	if run.Result != "failed" {
		run.Controller = "dc1.corp.example.com"
	}
	if run.DurationMS == 0 {
		run.DurationMS = 1234
	}
	if run.Stages == nil {
		run.Stages = []state.Stage{{Name: "connect", DurationMS: 81}, {Name: "memberships", DurationMS: 240}, {Name: "read", DurationMS: 702}, {Name: "settle", DurationMS: 45}, {Name: "drain", DurationMS: 160}, {Name: "record", DurationMS: 6}}
	}
	run.Requests = 5
	connector := state.Connector{State: "SCHEDULED", RunID: run.ID, At: a.last.Add(run.Duration()), NextRun: time.Now().Add(10*time.Minute + 30*time.Second), Error: run.Error, Remedy: run.Remedy}
	a.must(a.store.RecordRun(run, connector))
}

// history records a full sync of 250,000 objects, and many delta syncs. others is the number of runs
// that follow.
func (a *admin) history(deltas, others int) {
	a.last = time.Now().Add(-time.Duration(deltas+others+1) * 10 * time.Minute).Add(-4 * time.Minute)
	a.record(state.Run{Mode: "full", Users: 243_000, Groups: 7_000, Changed: 250_000, Uploaded: 250_000, DurationMS: 812_000})
	for n := range deltas {
		changed := n * n % 777
		if n%3 == 0 {
			changed = 0
		}
		a.record(state.Run{Users: changed + 42, Changed: changed, Uploaded: changed - changed/5, Deleted: changed / 10})
	}
}

// objects indexes 30 users, of which the gateway rejects the first one if reason is not empty.
func (a *admin) objects(reason string) []ad.GUID {
	journal, err := a.store.OpenJournal(state.View{}, time.Now())
	a.must(err)
	var objects []identity.Object
	var guids []ad.GUID
	for n := range 30 {
		objects = append(objects, identity.Object{
			GUID: ad.GUID{1: 0xa7, 9: byte(n), 15: byte(n)}, Kind: identity.User, Name: "user",
			SID: ad.SID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 0x4f, 0x67, 0x3a, 0x6b, 0x2f, 0x2a, 0x9c, 0x1d, 0x3b, 0x8f, 0x55, 0x4e, byte(n), 4, 0, 0}),
		})
		guids = append(guids, objects[n].GUID)
	}
	a.must(journal.MarkInFlight([]state.Batch{{Objects: objects}}))
	result := state.BatchResult{Complete: true, Acknowledged: objects}
	if reason != "" {
		result = state.BatchResult{Complete: true, Acknowledged: objects[1:], Rejected: []state.RejectedObject{{Object: objects[0], Reason: reason}}}
	}
	a.must(journal.Commit([]state.BatchResult{result}))
	return guids
}

const markup = "<img src=x onerror=alert(1)>"

// scenarios are the states of the page.
var scenarios = []struct {
	name     string
	headline string
	problems int
	arrange  func(*admin)
}{
	{"fine", "No problems.", 0, func(a *admin) {
		a.objects("")
		a.history(198, 0)
	}},
	{"first", "No run has ended yet.", 0, func(*admin) {}},
	{"failing", "The last 12 runs failed.", 2, func(a *admin) {
		a.objects("")
		a.history(60, 12)
		for range 12 {
			a.record(state.Run{
				Result: "failed", Class: "refused", DurationMS: 213, Stages: []state.Stage{{Name: "connect", DurationMS: 212}},
				Error:  "bind as CN=svc-adconnector,OU=Service Accounts,DC=corp,DC=example,DC=com to dc1.corp.example.com:636: invalid credentials (data 532, password expired)",
				Remedy: "set a new password for the account, and set ldap.password, or the password of the connection in the console",
			})
		}
		a.more = func(r *status.Report) {
			r.BindsPausedUntil, r.RefusedBinds, r.BindRemedy = time.Now().Add(41*time.Minute), 3, "another password or connection ends the pause at the next run, and so does a restart"
		}
	}},
	{"held", "Held deletions require a decision.", 4, func(a *admin) {
		guids := a.objects("422: " + markup + " is no job title " + strings.Repeat("W", 200))
		a.history(30, 3)
		a.record(state.Run{Result: "failed", Class: "transient", Error: "connect dc1.corp.example.com:636 (LDAPS): " + strings.Repeat("long", 60), Remedy: "check the network"})
		a.record(state.Run{Result: "failed", Class: "canceled", Error: "upload: context canceled"})
		a.must(a.store.SetHeldDeletions(guids[1:20], time.Now().Add(-time.Hour)))
		a.record(state.Run{
			Result: "held", Users: 42, Changed: 12, Uploaded: 11, Held: 19, Rejected: 1, Unreadable: 1141, MissingRights: []string{"member", "objectSid", "userAccountControl"},
			RightsRemedy: `grant the account Read Property on these attributes, and remove what denies it: dsacls "OU=Staff,DC=corp,DC=example,DC=com" /I:T /G "CORP\svc-adconnector:LCRP"`,
			Unreached:    []state.UnreachedServer{{Server: "dc2.corp.example.com:636 (LDAPS)", Error: "connect dc2.corp.example.com:636 (LDAPS): connection refused", Remedy: "check ldap.host and ldap.port, or the connection in the console, and that firewalls allow the connection"}},
		})
	}},
	{"undecided", "Some deletions are undecided.", 2, func(a *admin) {
		guids := a.objects("")
		a.history(90, 1)
		undecided := []state.Undecided{{GUID: guids[0], Reason: state.UndecidedReason(markup), Remedy: "run adconnector sync --full"}}
		for _, guid := range guids[1:10] {
			undecided = append(undecided, state.Undecided{GUID: guid, Reason: "not shown by this domain controller", Remedy: "wait for the replication. " + strings.Repeat("Remedy ", 30)})
		}
		a.must(a.store.SetUndecidedDeletions(undecided, time.Now().Add(-time.Hour)))
		a.record(state.Run{Result: "held", Undecided: 10})
	}},
	{"waiting", "Waiting for the gateway's rate limit.", 2, func(a *admin) {
		a.objects("")
		a.history(5, 0)
		a.must(a.store.SetRateLimit(state.RateLimit{NotedAt: time.Now().Add(-time.Minute), Until: time.Now().Add(50 * time.Minute)}))
		a.must(a.store.SetConcurrencyLimit(state.ConcurrencyLimit{NotedAt: time.Now().Add(-time.Minute), Calls: 3}))
	}},
}

// The other widths: a small phone, a tablet, and the width up to which tables are cards.
var (
	phone390   = screen{name: "phone-390", width: 390, height: 844, phone: true}
	tablet     = screen{name: "tablet", width: 820, height: 1180, phone: true, dark: true}
	justTables = screen{name: "tables", width: 1160, height: 800}
)

// checkAdminPage checks what holds for all pages: the width, the contrast, and that nothing was
// rendered as markup.
func checkAdminPage(b *tab) {
	b.t.Helper()
	b.checkWidth()
	b.checkContrast()
	if n := evaluate[int](b, `document.querySelectorAll("img, script, style").length`); n != 0 {
		b.t.Errorf("%d elements that the page does not have", n)
	}
}

// chartCheck returns the faults of the visible chart: it has both axes with readable labels, which do not
// overlap and are within the screen, and visible runs.
const chartCheck = `(() => {
  const faults = [];
  const charts = [...document.querySelectorAll("figure > svg")].filter(e => e.checkVisibility());
  if (charts.length !== 1) return [charts.length + " visible charts"];
  const boxes = selector => [...charts[0].querySelectorAll(selector)].map(e => e.getBoundingClientRect());
  for (const [axis, minimum] of [[".label.value", 2], [".label.time", 1]]) {
    const labels = boxes(axis);
    if (labels.length < minimum) faults.push(axis + ": " + labels.length + " labels");
    for (const [i, a] of labels.entries()) {
      const chart = charts[0].getBoundingClientRect();
      if (a.left < chart.left || a.right > chart.right || a.top < chart.top || a.bottom > chart.bottom) faults.push(axis + ": label outside of the chart");
      if (a.height < 10) faults.push(axis + ": label only " + a.height + " pixels high");
      if (labels.slice(i + 1).some(b => a.left < b.right && b.left < a.right && a.top < b.bottom - 3 && b.top < a.bottom - 3)) faults.push(axis + ": labels overlap");
    }
  }
  if (boxes(".area").some(a => a.width < 3)) faults.push("runs narrower than 3 pixels");
  return faults;
})()`

// TestAdminPage checks the states of the page on all screens.
func TestAdminPage(t *testing.T) {
	for _, scenario := range scenarios {
		t.Run(scenario.name, func(t *testing.T) {
			requireBrowser(t)
			a := newAdmin(t)
			scenario.arrange(a)
			address := a.serve()
			for _, screen := range []screen{desktop, desktopDark, justTables, tablet, phone390, phoneDark} {
				t.Run(screen.name, func(t *testing.T) {
					b := open(t, screen)
					b.visit(address + "/")
					b.expect("headline", b.text("#now"), scenario.headline)
					if got := len(b.texts(".problems li")); got != scenario.problems {
						t.Errorf("%d problems, want %d", got, scenario.problems)
					}
					if remedies := b.texts(".problems .remedy"); len(remedies) != scenario.problems || slices.ContainsFunc(remedies, func(text string) bool { return len(text) < len("Remedy: none") }) {
						t.Errorf("remedies %q", remedies)
					}
					checkAdminPage(b)
					if a.runs > 0 {
						if faults := evaluate[[]string](b, chartCheck); len(faults) > 0 {
							t.Errorf("chart: %q", faults)
						}
					}
					b.saveScreenshot("admin-" + scenario.name + "-" + screen.name)
				})
			}
		})
	}
}

// TestAdminLists checks the lists of the page with all kinds of problems, and that an error is shown
// once.
func TestAdminLists(t *testing.T) {
	a := newAdmin(t)
	for _, scenario := range scenarios {
		if scenario.name == "held" {
			scenario.arrange(a)
		}
	}
	a.record(state.Run{Result: "failed", Error: "read DC=corp: reset", Remedy: "check it"})
	a.record(state.Run{Result: "failed", Error: "read DC=corp: reset", Remedy: "check it"})
	b := open(t, desktop)
	b.visit(a.serve() + "/")
	b.expect("title", evaluate[string](b, "document.title"), "SCHEDULED · adconnector")
	if got := b.text("dl > div:nth-child(2) dd"); !strings.HasPrefix(got, "in 10 minutes") && !strings.HasPrefix(got, "in 11 minutes") {
		t.Errorf("next run %q", got)
	}
	for selector, want := range map[string]int{
		"svg.wide .run": 36, "svg.narrow .run": 28, "svg.wide .mark.failed": 3, "svg.wide .mark.interrupted": 1, "svg.wide .mark.held": 1, "section[aria-labelledby=held] tbody tr": 19,
		"section[aria-labelledby=rejected] tbody tr": 1, "h3 + table tbody tr": 2,
	} {
		if got := evaluate[int](b, fmt.Sprintf("document.querySelectorAll(%q).length", selector)); got != want {
			t.Errorf("%d elements %s, want %d", got, selector, want)
		}
	}
	if n := evaluate[int](b, `[...document.querySelectorAll("svg.wide .run")].filter(e => e.querySelector(".mark.failed") && e.querySelector(".changed, .sent")).length`); n != 0 {
		t.Errorf("%d failed runs without changes are drawn as amounts", n)
	}
	if reason := b.text("section[aria-labelledby=rejected] .reason"); !strings.HasPrefix(reason, "422: "+markup+" is no job title") {
		t.Errorf("reason of the rejection %q", reason)
	}
}

// TestAdminRun follows the link of a run in the chart and checks its page.
func TestAdminRun(t *testing.T) {
	a := newAdmin(t)
	for _, scenario := range scenarios {
		if scenario.name == "failing" {
			scenario.arrange(a)
		}
	}
	a.record(state.Run{
		Result: "held", Users: 1141, Changed: 12, Uploaded: 11, Held: 19, Unreadable: 3, MissingRights: []string{"member"}, RightsRemedy: `dsacls "OU=Staff,DC=corp" /G svc:RP`,
		Unreached: []state.UnreachedServer{{Server: "dc2", Error: "connect dc2: refused", Remedy: "check dc2"}},
	})
	address := a.serve()
	for _, screen := range []screen{desktop, desktopDark, tablet, phone390, phoneDark} {
		t.Run(screen.name, func(t *testing.T) {
			b := open(t, screen)
			b.visit(address + "/runs/f81d4fae-7dec-11d0-a765-" + fmt.Sprintf("%012d", a.runs))
			checkAdminPage(b)
			b.saveScreenshot("run-held-" + screen.name)
			b.click("a[rel=prev]")
			b.expect("stage", b.text("tr.ended th"), "connect")
			if heading := b.text("h1"); !strings.HasPrefix(heading, "Delta sync of 20") || !strings.HasSuffix(heading, "failed") {
				t.Errorf("heading %q", heading)
			}
			checkAdminPage(b)
			b.saveScreenshot("run-failed-" + screen.name)
		})
	}
	b := open(t, desktop)
	b.visit(address + "/runs/unknown")
	b.expect("heading", b.text("h1"), "This run is not recorded.")
	checkAdminPage(b)
	b.ignoreConsole("Failed to load resource")
}

// TestAdminPageKeyboard checks the focus order: the chart can be skipped, and each of its runs has an
// outline and its description.
func TestAdminPageKeyboard(t *testing.T) {
	a := newAdmin(t)
	a.objects("")
	a.history(5, 0)
	address := a.serve()
	for _, screen := range []screen{desktop, phone390} {
		t.Run(screen.name, func(t *testing.T) {
			b := open(t, screen)
			b.visit(address + "/")
			const focus = `(() => {
			  const e = document.activeElement;
			  const area = e.querySelector?.(".area");
			  const marked = getComputedStyle(e).outlineStyle !== "none" || area && getComputedStyle(area).stroke !== "none";
			  const tips = [...document.querySelectorAll(".tip")].filter(tip => tip.checkVisibility()).map(tip => tip.textContent);
			  return [e.getAttribute("aria-label") ?? e.innerText, String(marked), tips.join("|")];
			})()`
			var names []string
			for range 9 {
				b.press(kb.Tab)
				got := evaluate[[]string](b, focus)
				names = append(names, got[0])
				if got[1] != "true" {
					t.Errorf("focused without outline: %q", got[0])
				}
				if run, is := strings.CutPrefix(got[0], "Run of "); is != (got[2] != "") || is && run != got[2] {
					t.Errorf("%q focused, but %q described", got[0], got[2])
				}
			}
			if names[0] != "adconnector" || names[1] != "Skip the chart" || !strings.HasPrefix(names[2], "Run of 20") || !strings.HasPrefix(names[7], "Run of 20") || strings.HasPrefix(names[8], "Run of") {
				t.Errorf("focus order %q", names)
			}
			b.doAndLoad("open the run", chromedp.KeyEvent(kb.Enter))
			if heading := b.text("h1"); !strings.HasPrefix(heading, "Delta sync of") {
				t.Errorf("the link of the latest run leads to %q", heading)
			}
		})
	}
}
