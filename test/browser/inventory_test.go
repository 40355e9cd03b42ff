package browser

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const (
	names  = "tbody th[scope=row] a"
	search = "#q"
)

func (b *tab) expect(name, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s at %s: %q, want %q", name, b.address(), got, want)
	}
}

func ascending(texts []string) bool {
	return slices.IsSortedFunc(texts, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
}

func TestInventoryListing(t *testing.T) {
	b, s := openSite(t, desktop)
	b.visit(s.url + "/")
	b.expect("target of the root", b.address(), "/inventory/users")
	b.expect("heading", b.text("h1"), fmt.Sprintf("Users %d", s.users))

	t.Log("paging")
	first := b.texts(names)
	if len(first) != 50 || !ascending(first) {
		t.Errorf("%d rows, sorted %v: %q", len(first), ascending(first), first)
	}
	seen := slices.Clone(first)
	last := (s.users + 49) / 50
	for page := 2; page <= last; page++ {
		b.click("a[rel=next]")
		b.expect("page", b.text(".here"), fmt.Sprintf("Page %d of %d", page, last))
		seen = append(seen, b.texts(names)...)
	}
	if len(seen) != s.users || !ascending(seen) {
		t.Errorf("%d rows on all pages, sorted %t", len(seen), ascending(seen))
	}
	b.click("a[rel=prev]")
	b.click(".pager li:first-child a")
	b.expect("first row after going back", b.texts(names)[0], first[0])

	t.Log("sort")
	b.click("thead th:first-child a")
	b.expect("order", b.text("thead [aria-sort=descending]"), "Name ▼")
	if descending := b.texts(names); descending[0] != seen[len(seen)-1] {
		t.Errorf("first in descending order %q, last in ascending order %q", descending[0], seen[len(seen)-1])
	}
	b.click("thead th:nth-child(5) a")
	b.expect("order", b.text("thead [aria-sort=ascending]"), "Last sign-in ▲")
	if times := b.texts("tbody td:nth-child(5)"); !ascending(times) || times[0] == "–" {
		t.Errorf("last sign-ins in ascending order: %q", times)
	}
	b.click("thead th:nth-child(5) a")
	b.expect("order", b.text("thead [aria-sort=descending]"), "Last sign-in ▼")
	times := b.texts("tbody td:nth-child(5)")
	if slices.Reverse(times); !ascending(times) || times[0] == "–" {
		t.Errorf("last sign-ins in descending order, reversed: %q", times)
	}

	t.Log("search")
	b.visit(s.url + "/inventory/users")
	for _, c := range []struct{ query, found string }{
		{"FOX@corp", "🦊 Fox 👩🏽‍🚀"},
		{"مريم الفارسي maryam@", "مريم الفارسي"},
		{"nobody", "nobody"},
	} {
		b.search(search, c.query)
		if got := b.texts(names); len(got) != 1 || got[0] != c.found {
			t.Errorf("%s: found %q, want %q", c.query, got, c.found)
		}
		b.expect("heading", b.text("h1"), fmt.Sprintf("Users 1 of %d", s.users))
		b.expect("text in the search box", evaluate[string](b, `document.querySelector("#q").value`), c.query)
	}
	b.search(search, "no such person")
	b.expect("text without results", b.text(".nothing h2"), "No user matches")
	b.click(".nothing a")
	b.expect("heading", b.text("h1"), fmt.Sprintf("Users %d", s.users))

	t.Log("filters")
	b.search(search, "inventory.source: ('Microsoft Active Directory')")
	b.expect("text in the search box", evaluate[string](b, `document.querySelector("#q").value`), "inventory.source: ('Microsoft Active Directory')")
	b.expect("heading", b.text("h1"), fmt.Sprintf("Users %d", s.users))
	b.choose("select[name=status]", "DISABLED")
	b.click(".search button")
	disabled := b.texts("tbody td[data-title=Status]")
	if len(disabled) == 0 || slices.ContainsFunc(disabled, func(status string) bool { return status != "Disabled" }) {
		t.Errorf("statuses of disabled users: %q", disabled)
	}
	b.expect("heading", b.text("h1"), fmt.Sprintf("Users %d of %d", len(disabled), s.users))
	b.search(search, "@") // the select boxes keep their values
	b.expect("selected status", evaluate[string](b, `document.querySelector("select[name=status]").value`), "DISABLED")
	b.click(".search a")
	b.expect("heading after Clear", b.text("h1"), fmt.Sprintf("Users %d", s.users))
	b.visit(s.url + "/inventory/users?q=" + url.QueryEscape("inventory.source: ('Okta')"))
	b.expect("text without results", b.text(".nothing h2"), "No user matches")

	t.Log("groups")
	b.click(".bar li:nth-child(2) a")
	b.expect("heading", b.text("h1"), fmt.Sprintf("Groups %d", s.groups))
	b.choose("select[name=type]", "DISTRIBUTION")
	b.click(".search button")
	if types := b.texts("tbody td[data-title=Type]"); len(types) == 0 || slices.ContainsFunc(types, func(kind string) bool { return kind != "Distribution" }) {
		t.Errorf("types of distribution groups: %q", types)
	}
}

// TestInventoryInvalidQuery checks invalid queries and unknown objects. The browser writes a
// console message for an HTTP error, which the test ignores.
func TestInventoryInvalidQuery(t *testing.T) {
	b, s := openSite(t, desktop)
	for query, message := range map[string]string{
		"inventory.sauce: ('x')":    "Term inventory.sauce: is not supported: use inventory.source: ('Microsoft Active Directory')",
		"inventory.source: ('Micro": "Term inventory.source: is not supported: use inventory.source: ('Microsoft Active Directory')",
	} {
		b.visit(s.url + "/inventory/users?q=" + url.QueryEscape(query))
		b.expect("message", b.text("[role=alert]"), message)
		b.expect("text in the search box", evaluate[string](b, `document.querySelector("#q").value`), query)
		if b.lastStatus() != 400 {
			t.Errorf("status %d", b.lastStatus())
		}
	}
	b.visit(s.url + "/inventory/users/00000000-0000-4000-8000-000000000000")
	b.expect("heading", b.text("h1"), "Not Found")
	b.expect("message", b.text(".nothing p"), "No user with vendorAssetId 00000000-0000-4000-8000-000000000000 was received")
	b.click(".nothing a")
	b.expect("heading", b.text("h1"), fmt.Sprintf("Users %d", s.users))
	b.ignoreConsole("Failed to load resource")
}

// createdText is a time with its age, which is "now" within the first second.
var createdText = regexp.MustCompile(`^20.* (ago|now)$`)

func TestInventoryObject(t *testing.T) {
	b, s := openSite(t, desktop)
	b.visit(s.url + "/inventory/users")
	b.search(search, "fox@corp")
	b.click(names)
	b.expect("heading", b.text("h1"), "🦊 Fox 👩🏽‍🚀")
	guid := b.address()[strings.LastIndex(b.address(), "/")+1:]
	facts := map[string]string{}
	terms, values := b.texts("dt"), b.texts("dd")
	for i, name := range terms {
		facts[name] = values[i]
	}
	for name, want := range map[string]string{"Display name": "🦊", "E-mail": "fox@corp.example.com", "Failed password attempts": "0", "Status": "Password expired", "GUID": guid} {
		b.expect(name, facts[name], want)
	}
	if !strings.HasPrefix(facts["SID"], "S-1-5-21-") || !createdText.MatchString(facts["Created"]) {
		t.Errorf("facts %q", facts)
	}
	b.do("show the JSON", chromedp.Click(chromedp.CSS("summary")))
	if asset := b.text("pre"); !strings.Contains(asset, `"vendorAssetId": "`+guid+`"`) || !strings.Contains(asset, `"email": "fox@corp.example.com"`) {
		t.Errorf("its JSON: %s", asset)
	}
	if received := b.text(".received"); !strings.HasPrefix(received, "Received once, on 20") || !strings.HasSuffix(received, "from Microsoft Active Directory") {
		t.Errorf("when it came: %s", received)
	}
	b.click("footer a")
	if body := b.text("body"); !strings.HasPrefix(body, `{"asset":{`) {
		t.Errorf("as JSON: %s", body)
	}

	b.visit(s.url + "/inventory/users?q=leaver")
	b.expect("status of the deleted user", b.text("tbody .chip"), "Deleted")
	b.click(names)
	b.expect("status of the deleted user", b.text(".head .chip"), "Deleted")
	if received := b.text(".received"); !strings.HasPrefix(received, "Received 2 times") {
		t.Errorf("when it came: %s", received)
	}
	b.click(".trail a")
	b.expect("heading", b.text("h1"), fmt.Sprintf("Users %d", s.users))
}

// TestInventoryHostileTexts looks at people whose names would be markup, with scripts on.
func TestInventoryHostileTexts(t *testing.T) {
	s := desktop
	s.scripts = true
	b, site := openSite(t, s)
	b.visit(site.url + "/inventory/users?limit=1000")
	listed := b.texts(names)
	for _, person := range hostileUsers {
		if !slices.Contains(listed, person.name) {
			t.Errorf("%q is not listed under its name", person.name)
			continue
		}
		b.visit(site.url + "/inventory/users?q=" + url.QueryEscape(person.name))
		b.click(names)
		b.expect("heading", b.text("h1"), person.name)
		b.expect("title", evaluate[string](b, "document.title"), person.name+" · Inventory")
		if n := evaluate[int](b, `document.querySelectorAll("script, img, main style, iframe, [onerror]").length`); n != 0 {
			t.Errorf("%q was rendered as markup", person.name)
		}
	}
	if len(b.texts("footer")) != 1 {
		t.Error("page has no footer")
	}
}

// TestInventoryTextDirection checks that names with right-to-left text or directional overrides do
// not affect the text around them.
func TestInventoryTextDirection(t *testing.T) {
	b, s := openSite(t, desktop)
	b.visit(s.url + "/inventory/users?limit=1000")
	loose := evaluate[[]string](b, `[...document.querySelectorAll("tbody tr")].filter(row => /[\u0590-\u08ff\u202e]/.test(row.innerText)).flatMap(row => {
		const cells = [...row.children].map(cell => cell.getBoundingClientRect().left);
		const wrong = cells.some((left, i) => i > 0 && left <= cells[i - 1]) || !row.querySelector("th bdi") || [...row.querySelectorAll("bdi")].some(e => getComputedStyle(e).unicodeBidi !== "isolate");
		return wrong ? [row.innerText] : [];
	})`)
	total := evaluate[int](b, `[...document.querySelectorAll("tbody th")].filter(cell => /[\u0590-\u08ff\u202e]/.test(cell.innerText)).length`)
	if len(loose) > 0 || total < 10 {
		t.Errorf("%d names with directional text, not isolated: %q", total, loose)
	}
}

func TestInventoryKeyboard(t *testing.T) {
	b, s := openSite(t, desktop)
	focus := func() string {
		return evaluate[string](b, `document.activeElement.id || document.activeElement.innerText.trim()`)
	}
	b.visit(s.url + "/inventory/users")
	b.press(kb.Tab)
	b.expect("first focused element", focus(), "Skip to the content")
	if top := evaluate[float64](b, `document.activeElement.getBoundingClientRect().top`); top < 0 {
		t.Errorf("focused skip link is not visible: top %v", top)
	}
	b.press(kb.Enter, kb.Tab)
	b.expect("focus after the skip link", focus(), "q")
	if width := evaluate[string](b, `getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth`); width != "solid2px" {
		t.Errorf("focus outline %s, want solid2px", width)
	}

	b.visit(s.url + "/inventory/users")
	var order []string
	for range 40 {
		b.press(kb.Tab)
		order = append(order, focus())
		if evaluate[bool](b, `document.activeElement.matches("tbody th a")`) {
			break
		}
	}
	for _, element := range []string{"q", "Search", "Name ▲", "Received"} {
		if !slices.Contains(order, element) {
			t.Errorf("%s missing in the focus order %q", element, order)
		}
	}
	first := b.texts(names)[0]
	b.expect("end of the focus order", order[len(order)-1], first)
	b.doAndLoad("press Enter", chromedp.KeyEvent(kb.Enter))
	b.expect("heading", b.text("h1"), first)

	b.visit(s.url + "/inventory/users")
	b.do("focus the search", chromedp.Focus(chromedp.CSS(search)))
	b.press("f", "o", "x", "@")
	b.doAndLoad("press Enter", chromedp.KeyEvent(kb.Enter))
	b.expect("heading", b.text("h1"), fmt.Sprintf("Users 1 of %d", s.users))
	for _, label := range []string{`document.querySelector("label[for=q]")?.innerText`, `document.querySelector("caption")?.innerText`, `document.documentElement.lang`} {
		if evaluate[string](b, label) == "" {
			t.Errorf("%s is empty", label)
		}
	}
}

// pagesOf returns the address of a page of each kind.
func pagesOf(b *tab, s *site) map[string]string {
	b.visit(s.url + "/inventory/users?q=fox")
	fox := evaluate[string](b, `document.querySelector("tbody th a").href`)
	b.visit(s.url + "/inventory/users?q=Wolfeschlegel")
	long := evaluate[string](b, `document.querySelector("tbody th a").href`)
	b.visit(s.url + "/inventory/groups?q=printers")
	group := evaluate[string](b, `document.querySelector("tbody th a").href`)
	return map[string]string{
		"users":     s.url + "/inventory/users",
		"all-users": s.url + "/inventory/users?limit=1000",
		"filtered":  s.url + "/inventory/users?source=Microsoft+Active+Directory&status=LOCKED&q=@",
		"nothing":   s.url + "/inventory/users?q=no+such+person",
		"groups":    s.url + "/inventory/groups",
		"identity":  fox,
		"long-name": long,
		"group":     group,
		"states":    s.url + "/inventory/states",
		"requests":  s.url + "/inventory/requests",
	}
}

func TestInventoryPhone(t *testing.T) {
	b, s := openSite(t, phone)
	for name, address := range pagesOf(b, s) {
		b.visit(address)
		b.checkWidth()
		if name != "all-users" {
			b.saveScreenshot(name + "-" + b.screen.name)
		}
	}
	b.visit(s.url + "/inventory/users")
	if small := evaluate[float64](b, `Math.min(...[...document.querySelectorAll("tbody th a, input, button")].map(e => parseFloat(getComputedStyle(e).fontSize)))`); small < 15 {
		t.Errorf("font size %v px, want at least 15", small)
	}
	if loose := evaluate[int](b, `[...document.querySelectorAll("tbody td")].filter(e => e.checkVisibility() && Math.abs(e.getBoundingClientRect().left - e.parentElement.firstElementChild.getBoundingClientRect().left) > 1).length`); loose > 0 {
		t.Errorf("%d values are not aligned with the name of their card", loose)
	}
	b.click("thead th:nth-child(2) a") // sorting works in the card layout, too
	if b.address() != "/inventory/users?sort=email" {
		t.Errorf("address after a click on the second column: %s", b.address())
	}
}

func TestInventoryContrast(t *testing.T) {
	for _, s := range []screen{desktop, desktopDark, phoneDark} {
		t.Run(s.name, func(t *testing.T) {
			b, site := openSite(t, s)
			lowest, chips := math.Inf(1), map[string]bool{}
			for name, address := range pagesOf(b, site) {
				b.visit(address)
				for element, ratio := range b.checkContrast() {
					lowest = min(lowest, ratio)
					if strings.Contains(element, ".chip") {
						chips[element] = true
					}
				}
				if name != "all-users" && !s.phone {
					b.checkWidth()
					b.saveScreenshot(name + "-" + s.name)
				}
			}
			for _, chip := range []string{"span.chip.good", "span.chip.warn", "span.chip.bad", "span.chip.off", "span.chip.info", "span.chip.gone", "span.chip.plain"} {
				if !chips[chip] {
					t.Errorf("no element %s", chip)
				}
			}
			dark := evaluate[string](b, `getComputedStyle(document.body).backgroundColor`) == "rgb(15, 20, 26)"
			if dark != s.dark {
				t.Errorf("dark mode %t, want %t", dark, s.dark)
			}
			t.Logf("lowest contrast %.2f", lowest)
		})
	}
}

// TestInventoryPrint checks that the printed page has the full table, and no navigation.
func TestInventoryPrint(t *testing.T) {
	b, s := openSite(t, screen{name: "print", width: 794, height: 1123, print: true})
	for name, address := range pagesOf(b, s) {
		b.visit(address)
		b.checkWidth()
		if seen := evaluate[[]string](b, `[...document.querySelectorAll(".bar nav, .search, .pager ul, .skip")].filter(e => e.checkVisibility()).map(e => e.className)`); len(seen) > 0 {
			t.Errorf("%s is printed with %q", name, seen)
		}
		if b.text("h1") == "" {
			t.Errorf("%s is printed without its heading", name)
		}
		if name != "all-users" {
			b.saveScreenshot(name + "-" + b.screen.name)
		}
	}
}

func TestInventoryStatesAndRequests(t *testing.T) {
	b, s := openSite(t, desktop)
	b.visit(s.url + "/inventory/states")
	states := b.texts("tbody .chip")
	slices.Reverse(states)
	if want := []string{"Registered", "Scheduled", "Processing", "Processed"}; !slices.Equal(states, slices.Concat(want, want)) {
		t.Errorf("states %q", states)
	}
	if last := b.text("tbody tr:first-child td.wide"); !strings.HasPrefix(last, "delta: ") || !strings.Contains(last, " 1 deleted, 0 rejected") {
		t.Errorf("last run: %s", last)
	}
	b.visit(s.url + "/inventory/requests")
	b.expect("contract violations", b.text("section h2 .total"), "0")
	if calls := b.texts("tbody th.call"); !slices.Contains(calls, "POST /rest/2.0/am/connector/asset/data/sync") || !slices.Contains(calls, "POST /auth") {
		t.Errorf("calls %q", calls)
	}
}

func TestInventoryEmpty(t *testing.T) {
	s := newSite(t, 0, 0)
	b := open(t, desktop) // closes before the site
	for _, path := range []string{"users", "groups", "states", "requests"} {
		b.visit(s.url + "/inventory/" + path)
		b.expect("message", b.text(".nothing h2"), "Nothing received yet")
		b.expect("instruction", b.text(".nothing pre"), "adconnector sync --env-file sandbox.env")
		b.checkContrast()
	}
	b.visit(s.url + "/inventory/users")
	b.saveScreenshot("empty-" + b.screen.name)
}
