package browser

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"adconnector/test/debian"
	"adconnector/test/testlog"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is how long one step on a page may take.
const patience = testlog.IdleLimit

// A screen is what a page is looked at with.
type screen struct {
	name          string
	width, height int64
	dark, phone   bool
	paper         bool
	scripts       bool // the pages need none
}

var (
	desktop     = screen{name: "desktop-light", width: 1280, height: 800}
	desktopDark = screen{name: "desktop-dark", width: 1280, height: 800, dark: true}
	phone       = screen{name: "phone", width: 375, height: 760, phone: true}
	phoneDark   = screen{name: "phone-dark", width: 375, height: 760, phone: true, dark: true}
)

// A tab is one page in a browser, and everything that it said and asked for.
type tab struct {
	t      *testing.T
	ctx    context.Context
	screen screen

	mu       sync.Mutex
	requests []string
	said     []string // on the console
	status   int64    // of the last document
}

// executable finds Chromium. It skips the test where there is none, and fails it
// where that will not do.
var executable = sync.OnceValues(func() (string, error) {
	if named := os.Getenv("ADC_BROWSER"); named != "" {
		return exec.LookPath(named)
	}
	path, err := lookForBrowser()
	if err == nil || !required() || os.Geteuid() != 0 {
		return path, err
	}
	if err := debian.Install([]string{"chromium"}, "chromium"); err != nil {
		return "", err
	}
	return lookForBrowser()
})

func lookForBrowser() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium here; install it with: apt-get install chromium")
}

func required() bool {
	return os.Getenv("CI") == "true" || os.Getenv("ADC_REQUIRE_BROWSER") == "1" || os.Getenv("ADC_BROWSER") != ""
}

// started is the one browser of all tests. It ends with them.
var started = sync.OnceValues(func() (context.Context, error) {
	path, err := executable()
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "browser")
	if err != nil {
		return nil, err
	}
	undoLater(func() { _ = os.RemoveAll(directory) })
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(directory),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), // whatever it is asked for, it stays here
		chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Flag("lang", "en-US"),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium does not start as root with it
	}
	allocated, stopBrowser := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(allocated, chromedp.WithErrorf(func(string, ...any) {})) // what a newer browser sends and the library does not know
	undoLater(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "browser: the browser does not end:", err)
		}
		stop()
		stopBrowser()
	})
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return ctx, nil
})

// requireBrowser skips the test where there is no browser and none is required.
func requireBrowser(t *testing.T) {
	t.Helper()
	if _, absent := executable(); absent != nil && !required() {
		t.Skip("skipped: " + absent.Error())
	}
}

// open opens a tab with cookies and a cache of its own. When the test ends, it fails
// if the tab has asked anything of another host than this one, or if the browser has
// complained on the console.
func open(t *testing.T, s screen) *tab {
	t.Helper()
	requireBrowser(t)
	browser, err := started()
	if err != nil {
		t.Fatal(err)
	}
	b := &tab{t: t, screen: s}
	var stop context.CancelFunc
	b.ctx, stop = chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.hear))
	t.Cleanup(func() {
		stop()
		b.inspect()
	})
	if err := chromedp.Do(b.ctx); err != nil { // the tab lives as long as the context of this call
		t.Fatalf("open a tab: %v", err)
	}
	theme, medium := "light", "screen"
	if s.paper {
		medium = "print"
	}
	if s.dark {
		theme = "dark"
	}
	b.do("set the screen", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Media:    medium,
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
		})
		if err == nil {
			_, err = cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
				Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.phone,
			})
		}
		if err == nil {
			_, err = cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !s.scripts})
		}
		return err
	}))
	return b
}

func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, event.Request.URL)
	case *network.EventResponseReceived:
		if event.Type == network.ResourceTypeDocument {
			b.status = event.Response.Status
		}
	case *runtime.EventConsoleAPICalled:
		b.said = append(b.said, fmt.Sprint(event.Type))
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, fmt.Sprintf("%s in line %d", event.ExceptionDetails.Text, event.ExceptionDetails.LineNumber))
	case *log.EventEntryAdded:
		b.said = append(b.said, fmt.Sprintf("%s: %s %s", event.Entry.Level, event.Entry.Text, event.Entry.URL))
	}
}

func (b *tab) inspect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, request := range b.requests {
		address, err := url.Parse(request)
		if err != nil || address.Hostname() != "127.0.0.1" && address.Scheme != "about" {
			b.t.Errorf("the page asks for %s", request)
		}
	}
	for _, line := range b.said {
		b.t.Errorf("on the console: %s", line)
	}
	if len(b.requests) == 0 {
		b.t.Error("the tab has asked for nothing: nothing was looked at")
	}
}

// do takes steps, and ends the test when one cannot be taken.
func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// leave does what leads to another page, and waits until that has been read.
func (b *tab) leave(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// visit goes to an address.
func (b *tab) visit(address string) {
	b.t.Helper()
	b.do("visit "+address, chromedp.Navigate(address))
}

// follow clicks a link or a button and waits for the page behind it.
func (b *tab) follow(selector string) {
	b.t.Helper()
	b.leave("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// search puts a text into a field in place of what is there, and presses Enter.
func (b *tab) search(selector, text string) {
	b.t.Helper()
	b.do("clear "+selector, chromedp.Clear(chromedp.CSS(selector)))
	b.leave("type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text+kb.Enter))
}

// choose selects a value of a select box.
func (b *tab) choose(selector, value string) {
	b.t.Helper()
	b.do("select "+value+" in "+selector, chromedp.SetValue(chromedp.CSS(selector), value))
}

// press presses keys, one after the other.
func (b *tab) press(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		b.do("press a key", chromedp.KeyEvent(key))
	}
}

// ask evaluates an expression in the page, whose own scripts may well be off.
func ask[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return value
}

// text is what a person reads at a place; empty if there is no such place.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return ask[string](b, fmt.Sprintf(`(document.querySelector(%q)?.innerText ?? "").trim()`, selector))
}

// texts is what a person reads at all places of a kind.
func (b *tab) texts(selector string) []string {
	b.t.Helper()
	return ask[[]string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.innerText.trim())`, selector))
}

// address is where the tab is, without the host.
func (b *tab) address() string {
	b.t.Helper()
	return ask[string](b, `location.pathname + location.search`)
}

func (b *tab) lastStatus() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// forgive drops what the browser has said on the console so far about something
// that the test has asked for itself, such as an address that does not exist.
func (b *tab) forgive(about string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = slices.DeleteFunc(b.said, func(line string) bool { return strings.Contains(line, about) })
}

// fits fails the test if the page is wider than the screen, or a table than its frame.
func (b *tab) fits() {
	b.t.Helper()
	width := ask[[]int64](b, `[document.documentElement.scrollWidth, document.documentElement.clientWidth]`)
	if width[0] > width[1] {
		wide := ask[[]string](b, `[...document.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + .5).map(e => e.tagName + "." + e.className).slice(0, 5)`)
		b.t.Errorf("%s on %s: %d wide where %d are to be had: %v", b.address(), b.screen.name, width[0], width[1], wide)
	}
	if cut := ask[int](b, `[...document.querySelectorAll("table")].filter(e => e.offsetWidth > e.parentElement.clientWidth).length`); cut > 0 {
		b.t.Errorf("%s on %s: %d tables are wider than their frame", b.address(), b.screen.name, cut)
	}
}

// contrasts measures every text that can be seen against what is behind it (WCAG 2,
// relative luminance). Grounds are plain colours here; what is half transparent is
// laid over what is below.
const contrasts = `(() => {
  const parse = text => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    if (!/^rgba?\(/.test(text)) throw new Error("a colour in another form: " + text);
    return [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") throw new Error("a picture behind text");
      if (style.opacity !== "1" && e.innerText) throw new Error("opacity over text");
      layers.push(parse(style.backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const luminance = colour => colour.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const measured = {};
  const measure = (element, style) => {
    const below = ground(element), light = luminance(below), dark = luminance(over(parse(style.color), below));
    const ratio = (Math.max(light, dark) + .05) / (Math.min(light, dark) + .05);
    const name = element.tagName.toLowerCase() + (element.classList.length ? "." + [...element.classList].join(".") : "");
    measured[name] = Math.min(measured[name] ?? 99, ratio);
  };
  for (const element of document.body.querySelectorAll("*")) {
    if (!element.checkVisibility({visibilityProperty: true})) continue;
    if (element.placeholder) measure(element, getComputedStyle(element, "::placeholder"));
    if (element.value || [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())) measure(element, getComputedStyle(element));
  }
  return measured;
})()`

// legible fails the test if a text has less contrast than 4.5 : 1, and returns the
// contrast of each kind of element.
func (b *tab) legible() map[string]float64 {
	b.t.Helper()
	measured := ask[map[string]float64](b, contrasts)
	for element, ratio := range measured {
		if ratio < 4.5 {
			b.t.Errorf("%s on %s: %s has a contrast of %.2f", b.address(), b.screen.name, element, ratio)
		}
	}
	if len(measured) < 5 {
		b.t.Errorf("%s: contrasts of %v only", b.address(), measured)
	}
	return measured
}

// capture is a picture of what can be seen, as PNG.
func (b *tab) capture() []byte {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("take a picture: %v", err)
	}
	return picture
}

// picture writes what can be seen to the directory of pictures, if there is one.
func (b *tab) picture(name string) {
	b.t.Helper()
	directory := os.Getenv("ADC_SCREENSHOTS")
	if directory == "" {
		return
	}
	err := os.MkdirAll(directory, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(directory, name+".png"), b.capture(), 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
