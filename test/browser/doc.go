// Package browser looks at the pages of the connector in headless Chromium, as a
// person would: with a keyboard, on a phone, in the dark, without scripts. It is a
// module of its own, so that the library that drives the browser is none of what
// the connector is built from.
//
// harness_test.go is the browser, and what may be said about any page; the other
// files are a subject each.
//
// Without Chromium the tests are skipped, and say so. Where CI or
// ADC_REQUIRE_BROWSER is set, it is installed when missing and root, and its
// absence fails them. ADC_BROWSER names another executable. ADC_SCREENSHOTS names a
// directory that pictures of the pages are written to.
package browser
