package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/status"
)

// adminPage serves the admin endpoint over a state file in which a lot has happened:
// 220 runs, some of them failed, deletions held and an object rejected in hostile words.
func adminPage(t *testing.T) string {
	t.Helper()
	store, err := state.Open(t.TempDir())
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
		return identity.Object{GUID: ad.GUID{15: byte(n)}, Kind: identity.User, SID: ad.SID([]byte{1, 1, 0, 0, 0, 0, 0, 5, byte(n), 4, 0, 0}), Name: "someone"}
	}
	delivery, err := store.OpenJournal(ad.InvocationID{}, time.Now())
	check(err)
	var objects []identity.Object
	var held []ad.GUID
	for n := range 30 {
		objects = append(objects, object(n))
		held = append(held, object(n).GUID)
	}
	check(delivery.MarkInFlight([]state.Batch{{Objects: objects}}))
	check(delivery.Commit([]state.BatchResult{{Complete: true, Acknowledged: objects[1:], Rejected: []state.RejectedObject{
		{Object: objects[0], Reason: `422: <img src=x onerror=alert(1)> is no job title ` + strings.Repeat("W", 200)},
	}}}))
	check(store.SetHeldDeletions(held[1:], time.Now().Add(-time.Hour)))
	now := state.Connector{State: "SCHEDULED", At: time.Now(), NextRun: time.Now().Add(10*time.Minute + 30*time.Second)}
	for n := range 220 {
		run := state.Run{ID: fmt.Sprint(n), Mode: "delta", Result: "processed", Start: time.Now().Add(time.Duration(n-220) * 10 * time.Minute), Users: n, Changed: n * n % 777, Duration: time.Second}
		run.Uploaded = run.Changed
		switch {
		case n%50 == 10:
			run.Mode, run.Changed, run.Uploaded = "full", 250_000, 250_000
		case n%60 == 30:
			run.Result, run.Error, run.Remedy, run.Changed, run.Uploaded = "failed", "bind as CN=svc to dc1:636: "+strings.Repeat("long", 60), "correct ldap.password", 0, 0
		}
		check(store.RecordRun(run, now))
	}
	fine := func() error { return nil }
	server := httptest.NewServer(status.Endpoint{
		Report: func() (status.Report, error) { return status.Read(store, time.Now()) }, Stuck: fine, Unready: fine,
		Metrics: http.NotFoundHandler(),
	}.Handler("127.0.0.1"))
	t.Cleanup(server.Close)
	return server.URL
}

// TestAdminPage: on every screen it says how things stand, fits, and can be read.
func TestAdminPage(t *testing.T) {
	address := adminPage(t)
	for _, screen := range []screen{desktop, desktopDark, phone, phoneDark} {
		t.Run(screen.name, func(t *testing.T) {
			b := open(t, screen)
			b.visit(address + "/")
			b.expect("verdict", b.text("#now"), "Deletions wait for your decision.")
			b.expect("state", b.text(".now .chip"), "SCHEDULED")
			b.expect("title", ask[string](b, "document.title"), "SCHEDULED · adconnector")
			if got := b.text("dl > div:nth-child(2) dd"); !strings.HasPrefix(got, "in 10 minutes") && !strings.HasPrefix(got, "in 11 minutes") {
				t.Errorf("next run %q", got)
			}
			for what, want := range map[string]int{"svg g": 200, "svg rect.failed": 3, "section[aria-labelledby=held] tbody tr": 29, "section[aria-labelledby=rejected] tbody tr": 1, "img": 0} {
				if got := ask[int](b, fmt.Sprintf("document.querySelectorAll(%q).length", what)); got != want {
					t.Errorf("%d of %s, want %d", got, what, want)
				}
			}
			if bars := ask[int](b, `[...document.querySelectorAll("svg rect")].filter(e => e.getBoundingClientRect().height > 1).length`); bars < 200 {
				t.Errorf("%d bars can be seen", bars)
			}
			if words := b.text(".words"); !strings.HasPrefix(words, "422: <img src=x onerror=alert(1)> is no job title") {
				t.Errorf("the gateway's words are %q", words)
			}
			if over := ask[int](b, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
				t.Errorf("the page is %d wider than the screen", over)
			}
			b.legible()
			b.picture("admin-" + screen.name)
		})
	}
}

// TestAdminPageByKeyboard: its links come first, and what scrolls can be reached.
func TestAdminPageByKeyboard(t *testing.T) {
	b := open(t, phone)
	b.visit(adminPage(t) + "/")
	var reached []string
	for range 8 {
		b.press(kb.Tab)
		reached = append(reached, ask[string](b, `document.activeElement.innerText.split("\n")[0].slice(0, 12) + (getComputedStyle(document.activeElement).outlineStyle === "none" ? " unseen" : "")`))
	}
	if want := []string{"status", "metrics", "health", "ready"}; strings.Join(reached[:4], " ") != strings.Join(want, " ") {
		t.Errorf("reached %q", reached)
	}
	for _, each := range reached {
		if strings.HasSuffix(each, "unseen") {
			t.Errorf("no outline: %q", reached)
		}
	}
	if regions := ask[int](b, `document.querySelectorAll("[tabindex='0']").length`); regions != 4 {
		t.Errorf("%d regions can be scrolled by the keyboard", regions)
	}
}
