// Package browser tests the connector's pages in headless Chromium: with a keyboard, on a phone,
// in dark mode and without scripts. It is a separate module, because the connector must not
// depend on the library that controls the browser.
//
// Run the tests with `make test-browser`. They are skipped without Chromium. With CI=true or
// ADC_REQUIRE_BROWSER=1, they install it with apt-get as root, and fail without it.
// ADC_BROWSER is the path of another executable. ADC_SCREENSHOTS is a directory for screenshots
// of the pages.
package browser
