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

// stepTimeout is the limit for one step on a page.
const stepTimeout = testlog.IdleLimit

// screen is the emulated device.
type screen struct {
	name          string
	width, height int64
	dark, phone   bool
	print         bool // media type print
	scripts       bool // enable scripts, which the pages do not need
}

var (
	desktop     = screen{name: "desktop-light", width: 1280, height: 800}
	desktopDark = screen{name: "desktop-dark", width: 1280, height: 800, dark: true}
	phone       = screen{name: "phone", width: 375, height: 760, phone: true}
	phoneDark   = screen{name: "phone-dark", width: 375, height: 760, phone: true, dark: true}
)

// tab is a browser tab. It records requests and console messages.
type tab struct {
	t      *testing.T
	ctx    context.Context
	screen screen

	mu       sync.Mutex
	requests []string
	console  []string
	status   int64 // HTTP status of the last document
}

// executable returns the path of Chromium. It installs it if it is required.
var executable = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("ADC_BROWSER"); path != "" {
		return exec.LookPath(path)
	}
	path, err := findBrowser()
	if err == nil || !required() || os.Geteuid() != 0 {
		return path, err
	}
	if err := debian.Install([]string{"chromium"}, "chromium"); err != nil {
		return "", err
	}
	return findBrowser()
})

func findBrowser() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium in PATH: install it with apt-get install chromium")
}

// required reports whether a missing browser fails the tests.
func required() bool {
	return os.Getenv("CI") == "true" || os.Getenv("ADC_REQUIRE_BROWSER") == "1" || os.Getenv("ADC_BROWSER") != ""
}

// startBrowser starts the browser that all tests share, until they end.
var startBrowser = sync.OnceValues(func() (context.Context, error) {
	path, err := executable()
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "browser")
	if err != nil {
		return nil, err
	}
	atExit(func() { _ = os.RemoveAll(directory) })
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(directory),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), // blocks all other hosts
		chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Flag("lang", "en-US"),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium does not start as root with its sandbox
	}
	allocated, stopBrowser := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(allocated, chromedp.WithErrorf(func(string, ...any) {})) // ignores events of newer browsers that the library does not support
	atExit(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "browser: stop Chromium:", err)
		}
		stop()
		stopBrowser()
	})
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return ctx, nil
})

// requireBrowser skips the test if there is no browser and none is required.
func requireBrowser(t *testing.T) {
	t.Helper()
	if _, err := executable(); err != nil && !required() {
		t.Skip(err.Error())
	}
}

// open opens a tab with new cookies and a new cache. At its end, the test fails if the tab sent
// requests to another host or has console messages.
func open(t *testing.T, s screen) *tab {
	t.Helper()
	requireBrowser(t)
	browser, err := startBrowser()
	if err != nil {
		t.Fatal(err)
	}
	b := &tab{t: t, screen: s}
	var stop context.CancelFunc
	b.ctx, stop = chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.record))
	t.Cleanup(func() {
		stop()
		b.checkRecorded()
	})
	if err := chromedp.Do(b.ctx); err != nil { // the context of the first call is that of the tab
		t.Fatalf("open a tab: %v", err)
	}
	theme, medium := "light", "screen"
	if s.print {
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

// record records an event of the browser.
func (b *tab) record(event any) {
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
		b.console = append(b.console, fmt.Sprint(event.Type))
	case *runtime.EventExceptionThrown:
		b.console = append(b.console, fmt.Sprintf("%s in line %d", event.ExceptionDetails.Text, event.ExceptionDetails.LineNumber))
	case *log.EventEntryAdded:
		b.console = append(b.console, fmt.Sprintf("%s: %s %s", event.Entry.Level, event.Entry.Text, event.Entry.URL))
	}
}

// checkRecorded fails the test for requests to other hosts and for console messages.
func (b *tab) checkRecorded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, request := range b.requests {
		address, err := url.Parse(request)
		if err != nil || address.Hostname() != "127.0.0.1" && address.Scheme != "about" {
			b.t.Errorf("request to another host: %s", request)
		}
	}
	for _, line := range b.console {
		b.t.Errorf("console: %s", line)
	}
	if len(b.requests) == 0 {
		b.t.Error("no requests: no page was tested")
	}
}

// do executes steps and ends the test on an error. name names them in the message.
func (b *tab) do(name string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
}

// doAndLoad executes steps that load another page, and waits until it is loaded.
func (b *tab) doAndLoad(name string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
}

// visit loads an address.
func (b *tab) visit(address string) {
	b.t.Helper()
	b.do("visit "+address, chromedp.Navigate(address))
}

// click clicks a link or a button and waits until the next page is loaded.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.doAndLoad("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// search replaces the text of a field, presses Enter, and waits until the next page is loaded.
func (b *tab) search(selector, text string) {
	b.t.Helper()
	b.do("clear "+selector, chromedp.Clear(chromedp.CSS(selector)))
	b.doAndLoad("type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text+kb.Enter))
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

// evaluate evaluates a JavaScript expression in the page, even if scripts are disabled.
func evaluate[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return value
}

// text returns the visible text of the first element, "" without one.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return evaluate[string](b, fmt.Sprintf(`(document.querySelector(%q)?.innerText ?? "").trim()`, selector))
}

// texts returns the visible texts of all elements.
func (b *tab) texts(selector string) []string {
	b.t.Helper()
	return evaluate[[]string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.innerText.trim())`, selector))
}

// address returns the path and the query of the page.
func (b *tab) address() string {
	b.t.Helper()
	return evaluate[string](b, `location.pathname + location.search`)
}

// lastStatus returns the HTTP status of the last document.
func (b *tab) lastStatus() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// ignoreConsole drops the recorded console messages that contain a text. Use it for messages
// that a test provokes, such as that of an address that does not exist.
func (b *tab) ignoreConsole(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.console = slices.DeleteFunc(b.console, func(line string) bool { return strings.Contains(line, text) })
}

// checkWidth fails the test if the page is wider than the screen, or a table wider than its
// container.
func (b *tab) checkWidth() {
	b.t.Helper()
	width := evaluate[[]int64](b, `[document.documentElement.scrollWidth, document.documentElement.clientWidth]`)
	if width[0] > width[1] {
		wide := evaluate[[]string](b, `[...document.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + .5).map(e => e.tagName + "." + e.className).slice(0, 5)`)
		b.t.Errorf("%s on %s: %d pixels wide, want at most %d: %v", b.address(), b.screen.name, width[0], width[1], wide)
	}
	if wide := evaluate[int](b, `[...document.querySelectorAll("table")].filter(e => e.offsetWidth > e.parentElement.clientWidth).length`); wide > 0 {
		b.t.Errorf("%s on %s: %d tables are wider than their containers", b.address(), b.screen.name, wide)
	}
}

// contrasts measures the contrast ratio of every visible text (WCAG 2, relative luminance).
// Backgrounds must be plain colors. Transparent ones are blended with those below.
const contrasts = `(() => {
  const parse = text => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    if (!/^rgba?\(/.test(text)) throw new Error("unsupported color: " + text);
    return [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const background = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") throw new Error("image behind text");
      if (style.opacity !== "1" && e.innerText) throw new Error("opacity of text");
      layers.push(parse(style.backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const luminance = color => color.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const measured = {};
  const measure = (element, style) => {
    const below = background(element), light = luminance(below), dark = luminance(over(parse(style.color), below));
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

// checkContrast fails the test if a text has a contrast ratio below 4.5. It returns the ratios
// by element and class.
func (b *tab) checkContrast() map[string]float64 {
	b.t.Helper()
	measured := evaluate[map[string]float64](b, contrasts)
	for element, ratio := range measured {
		if ratio < 4.5 {
			b.t.Errorf("%s on %s: %s has a contrast ratio of %.2f", b.address(), b.screen.name, element, ratio)
		}
	}
	if len(measured) < 5 {
		b.t.Errorf("%s: only %d elements with text: %v", b.address(), len(measured), measured)
	}
	return measured
}

// screenshot returns the visible part of the page as PNG.
func (b *tab) screenshot() []byte {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	image, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("take screenshot: %v", err)
	}
	return image
}

// saveScreenshot writes a screenshot of the whole page to the directory ADC_SCREENSHOTS, if it is set.
func (b *tab) saveScreenshot(name string) {
	b.t.Helper()
	directory := os.Getenv("ADC_SCREENSHOTS")
	if directory == "" {
		return
	}
	err := os.MkdirAll(directory, 0o755)
	if err == nil {
		ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
		defer cancel()
		var image []byte
		if image, err = chromedp.Run(ctx, chromedp.FullScreenshot(100)); err == nil {
			err = os.WriteFile(filepath.Join(directory, name+".png"), image, 0o644)
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
