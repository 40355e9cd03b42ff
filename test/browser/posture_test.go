package browser

import (
	"slices"
	"strings"
	"testing"

	"adconnector/internal/sandbox/domaincontroller"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// find opens the page of the first object of a listing that a query finds.
func (b *tab) find(s *site, path string) {
	b.t.Helper()
	b.visit(s.url + "/inventory/" + path)
	b.click(names)
}

// posturePages are listings whose first object has much to show, by the name of its page.
var posturePages = map[string]string{
	"posture-user":    "users?sort=-lastSuccessfulLoginAt&privileged=PRIVILEGED",
	"posture-group":   "groups?q=Server+administrators",
	"posture-members": "groups?q=All+employees",
	"posture-role":    "roles?q=Domain+Admins",
	"posture-domain":  "domains",
	"posture-service": "users?q=gmsa-sql",
}

// badLayouts returns labels that are broken within a word, and texts that are wider than their box.
const badLayouts = `[...document.querySelectorAll("dt, thead th, .chip, .detail td, .detail th, dd")].filter(e => e.checkVisibility()).flatMap(e => {
	if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline") return ["too wide: " + e.innerText];
	if (!e.matches("dt, thead th")) return [];
	const range = document.createRange();
	return [...e.childNodes].filter(n => n.nodeType === 3).flatMap(n => [...n.data.matchAll(/\S+/g)].filter(word => {
		range.setStart(n, word.index);
		range.setEnd(n, word.index + word[0].length);
		return new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1;
	}).map(word => "broken: " + word[0]));
})`

// TestPostureLayout checks the pages of objects with security posture on all screens: no label is broken
// within a word, nothing is wider than its place, contrasts suffice, and no field is left to other fields.
func TestPostureLayout(t *testing.T) {
	phone390 := screen{name: "phone-390", width: 390, height: 760, phone: true}
	phone390Dark := screen{name: "phone-390-dark", width: 390, height: 760, phone: true, dark: true}
	paper := screen{name: "print", width: 794, height: 1123, print: true}
	for _, s := range []screen{desktop, desktopDark, phone390, phone390Dark, paper} {
		t.Run(s.name, func(t *testing.T) {
			b, site := openPosture(t, s)
			for name, path := range posturePages {
				b.find(site, path)
				b.checkWidth()
				b.checkContrast()
				if bad := evaluate[[]string](b, badLayouts); len(bad) > 0 {
					t.Errorf("%s: %q", name, bad)
				}
				if other := b.text("#other"); other != "" {
					t.Errorf("%s has fields without a place", name)
				}
				b.saveScreenshot(name + "-" + s.name)
			}
			for _, path := range []string{"users?privileged=PRIVILEGED", "groups", "roles", "domains"} {
				b.visit(site.url + "/inventory/" + path)
				b.checkWidth()
				b.checkContrast()
				b.saveScreenshot("posture-list-" + path[:strings.IndexAny(path+"?", "?")] + "-" + s.name)
			}
		})
	}
}

// TestListingsFit tests that no column of a listing is cut off on a page of 1,000 pixels or more.
func TestListingsFit(t *testing.T) {
	for _, width := range []int64{1200, 1000} {
		b, site := openPosture(t, screen{name: "listing", width: width, height: 800})
		for _, path := range []string{"users", "groups", "roles", "domains"} {
			b.visit(site.url + "/inventory/" + path)
			if cut := evaluate[bool](b, `[...document.querySelectorAll(".table")].some(e => e.scrollWidth > e.clientWidth)`); cut {
				t.Errorf("%d pixels, %s: a column is cut off", width, path)
			}
		}
	}
}

// TestPostureLinks follows the links from a role to a member, and from there to the group through which it
// has the role, with the keyboard only.
func TestPostureLinks(t *testing.T) {
	b, s := openPosture(t, desktop)
	b.find(s, "roles?q=Domain+Admins")
	b.expect("heading", b.text("h1"), "Domain Admins")
	b.expect("members", b.text("#members"), "Members (5)")
	member := `[aria-labelledby=members] tbody tr:has(.path li:nth-child(2)) `
	name, through := b.text(member+"th a"), b.text(member+".path li:last-child a")
	b.expect("group between", through, "Server administrators")
	follow := func(selector string) {
		t.Helper()
		b.do("focus "+selector, chromedp.Focus(chromedp.CSS(selector)))
		if outline := evaluate[string](b, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
			t.Errorf("no focus outline of %s", selector)
		}
		b.doAndLoad("press Enter", chromedp.KeyEvent(kb.Enter))
	}
	follow(member + "th a")
	b.expect("heading", b.text("h1"), name)
	if chips := b.texts(".head .chip"); !slices.Contains(chips, "Privileged") {
		t.Errorf("chips of a member of the role: %q", chips)
	}
	follow(`[aria-labelledby=privileges] .path li:last-child a`)
	if heading := b.text("h1"); heading != "Server administrators" && heading != "Domain Admins" {
		t.Errorf("heading %q", heading)
	}
	b.find(s, "domains")
	if body := b.text("main"); !strings.Contains(body, "42 days") || !strings.Contains(body, "Windows Server 2016") || strings.Contains(body, "Seconds") {
		t.Errorf("page of the domain: %s", body)
	}
	b.visit(s.url + "/inventory/users?privileged=PRIVILEGED")
	if rows, chips := b.texts(names), b.texts("tbody th .chip"); len(rows) < 5 || len(rows) != len(chips) {
		t.Errorf("%d privileged users, %d marks", len(rows), len(chips))
	}
}

// TestPosturePages checks that the members of a large group are on pages.
func TestPosturePages(t *testing.T) {
	b, s := openPosture(t, desktop)
	b.find(s, posturePages["posture-members"])
	first := b.texts("[aria-labelledby=members] tbody th")
	b.click("[aria-labelledby=members] a[rel=next]")
	second := b.texts("[aria-labelledby=members] tbody th")
	if len(first) != 50 || len(second) == 0 || slices.Equal(first, second) {
		t.Errorf("%d and %d members on two pages", len(first), len(second))
	}
}

// TestPostureHostileTexts looks at a privileged group whose members have names that would be markup, have
// right-to-left text, or are very long words.
func TestPostureHostileTexts(t *testing.T) {
	for _, s := range []screen{{name: "scripts", width: 1280, height: 800, scripts: true}, {name: "phone-390-scripts", width: 390, height: 760, phone: true, scripts: true}} {
		t.Run(s.name, func(t *testing.T) {
			b, site := openPosture(t, s)
			const group = "<b>Group</b> \u202esrebmem Wolfeschlegelsteinhausenbergerdorff"
			members := make([]string, 0, len(hostileUsers))
			for _, person := range hostileUsers {
				members = append(members, "CN="+escapeDN(person.name)+",CN=Users,"+site.Base())
			}
			dn := "CN=" + escapeDN(group) + ",CN=Users," + site.Base()
			site.Must(site.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{"objectClass": {"group"}, "groupType": {"-2147483646"}, "member": members}}))
			site.Must(site.Modify("CN=Account Operators,CN=Builtin,"+site.Base(), "member", dn))
			site.run(t)
			for _, path := range []string{"groups?q=Wolfeschlegel", "roles?q=Account+Operators", "users?q=Wolfeschlegel"} {
				b.find(site, path)
				b.checkWidth()
				if bad := evaluate[[]string](b, badLayouts); len(bad) > 0 {
					t.Errorf("%s: %q", path, bad)
				}
				if n := evaluate[int](b, `document.querySelectorAll("script, img, b:not(.received b), main style, iframe, [onerror]").length`); n != 0 {
					t.Errorf("%s: a name was rendered as markup", path)
				}
				if loose := evaluate[int](b, `[...document.querySelectorAll("main bdi, main code")].filter(e => !getComputedStyle(e).unicodeBidi.startsWith("isolate")).length`); loose > 0 {
					t.Errorf("%s: %d texts affect the direction of their surroundings", path, loose)
				}
			}
			b.find(site, "groups?q=Wolfeschlegel")
			listed := b.texts("[aria-labelledby=members] tbody th")
			for _, person := range hostileUsers {
				if !slices.Contains(listed, person.name) {
					t.Errorf("%q is not among the members %q", person.name, listed)
				}
			}
			b.saveScreenshot("posture-hostile-" + s.name)
		})
	}
}
