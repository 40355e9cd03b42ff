package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/status"
)

// adminPage serves the admin endpoint for a state file with 220 runs, some of them failed, held
// deletions, undecided deletions with two reasons, and a rejection with hostile text. It returns
// the URL.
func adminPage(t *testing.T) string {
	t.Helper()
	store, err := state.Options{}.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	object := func(n int) identity.Object {
		return identity.Object{GUID: ad.GUID{15: byte(n)}, Kind: identity.User, SID: ad.SID([]byte{1, 1, 0, 0, 0, 0, 0, 5, byte(n), 4, 0, 0}), Name: "user"}
	}
	journal, err := store.OpenJournal(state.View{}, time.Now())
	check(err)
	var objects []identity.Object
	var held []ad.GUID
	for n := range 30 {
		objects = append(objects, object(n))
		held = append(held, object(n).GUID)
	}
	check(journal.MarkInFlight([]state.Batch{{Objects: objects}}))
	check(journal.Commit([]state.BatchResult{{Complete: true, Acknowledged: objects[1:], Rejected: []state.RejectedObject{
		{Object: objects[0], Reason: `422: <img src=x onerror=alert(1)> is no job title ` + strings.Repeat("W", 200)},
	}}}))
	check(store.SetHeldDeletions(held[1:20], time.Now().Add(-time.Hour)))
	var undecided []state.Undecided
	for _, guid := range held[20:] {
		undecided = append(undecided, state.Undecided{GUID: guid, Reason: "not shown by this domain controller", Remedy: "wait for the replication. " + strings.Repeat("Remedy ", 30)})
	}
	undecided[0].Reason, undecided[0].Remedy = "<img src=x onerror=alert(2)>", "run adconnector sync --full"
	check(store.SetUndecidedDeletions(undecided, time.Now().Add(-time.Hour)))
	connector := state.Connector{State: "SCHEDULED", At: time.Now(), NextRun: time.Now().Add(10*time.Minute + 30*time.Second)}
	for n := range 220 {
		run := state.Run{ID: fmt.Sprint(n), Mode: "delta", Result: "processed", Start: time.Now().Add(time.Duration(n-220) * 10 * time.Minute), Users: n, Changed: n * n % 777, Duration: time.Second}
		run.Uploaded = run.Changed
		switch {
		case n%50 == 10:
			run.Mode, run.Changed, run.Uploaded = "full", 250_000, 250_000
		case n%60 == 30:
			run.Result, run.Error, run.Remedy, run.Changed, run.Uploaded = "failed", "bind as CN=svc to dc1:636: "+strings.Repeat("long", 60), "correct ldap.password", 0, 0
		}
		check(store.RecordRun(run, connector))
	}
	healthy := func() error { return nil }
	server := httptest.NewServer(status.Endpoint{
		Report: func() (status.Report, error) { return status.Read(store, "", time.Now()) }, Health: healthy, Readiness: healthy,
		Metrics: http.NotFoundHandler(),
	}.Handler("127.0.0.1", zerolog.Nop()))
	t.Cleanup(server.Close)
	return server.URL
}

// TestAdminPage checks the content, the width and the contrast of the page on every screen.
func TestAdminPage(t *testing.T) {
	address := adminPage(t)
	for _, screen := range []screen{desktop, desktopDark, phone, phoneDark} {
		t.Run(screen.name, func(t *testing.T) {
			b := open(t, screen)
			b.visit(address + "/")
			b.expect("verdict", b.text("#now"), "Held deletions require a decision.")
			b.expect("state", b.text(".now .chip"), "SCHEDULED")
			b.expect("title", evaluate[string](b, "document.title"), "SCHEDULED · adconnector")
			if got := b.text("dl > div:nth-child(2) dd"); !strings.HasPrefix(got, "in 10 minutes") && !strings.HasPrefix(got, "in 11 minutes") {
				t.Errorf("next run %q", got)
			}
			for selector, want := range map[string]int{
				"svg g": 200, "svg rect.failed": 3, "section[aria-labelledby=held] tbody tr": 19, "section[aria-labelledby=rejected] tbody tr": 1, "img": 0,
				"section[aria-labelledby=undecided] tbody tr": 12,
			} {
				if got := evaluate[int](b, fmt.Sprintf("document.querySelectorAll(%q).length", selector)); got != want {
					t.Errorf("%d elements %s, want %d", got, selector, want)
				}
			}
			if bars := evaluate[int](b, `[...document.querySelectorAll("svg rect")].filter(e => e.getBoundingClientRect().height > 1).length`); bars < 200 {
				t.Errorf("%d visible bars, want at least 200", bars)
			}
			if reason := b.text("section[aria-labelledby=rejected] .reason"); !strings.HasPrefix(reason, "422: <img src=x onerror=alert(1)> is no job title") {
				t.Errorf("reason of the rejection %q", reason)
			}
			if overflow := evaluate[int](b, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); overflow > 0 {
				t.Errorf("page is %d pixels wider than the screen", overflow)
			}
			b.checkContrast()
			b.saveScreenshot("admin-" + screen.name)
		})
	}
}

// TestAdminPageKeyboard checks the focus order, the focus outlines, and that all scrollable
// regions can be focused.
func TestAdminPageKeyboard(t *testing.T) {
	b := open(t, phone)
	b.visit(adminPage(t) + "/")
	var focused []string
	for range 8 {
		b.press(kb.Tab)
		focused = append(focused, evaluate[string](b, `document.activeElement.innerText.split("\n")[0].slice(0, 12) + (getComputedStyle(document.activeElement).outlineStyle === "none" ? " no outline" : "")`))
	}
	if want := []string{"status", "metrics", "health", "ready"}; strings.Join(focused[:4], " ") != strings.Join(want, " ") {
		t.Errorf("focus order %q, want %q first", focused, want)
	}
	for _, element := range focused {
		if strings.HasSuffix(element, "no outline") {
			t.Errorf("focused without outline: %q", element)
		}
	}
	if regions := evaluate[int](b, `document.querySelectorAll("[tabindex='0']").length`); regions != 6 {
		t.Errorf("%d scrollable regions in the focus order, want 6", regions)
	}
}
