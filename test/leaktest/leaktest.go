// Package leaktest detects goroutines that outlive the tests of a package.
package leaktest

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// attempts is how often goroutines are looked for. goleak.Find waits one or two seconds for their
// end; the attempts give a slow machine more time.
const attempts = 50

// Main runs the tests of a package, and ends the process with exit code 1 if one of them fails, or
// if goroutines are left that none of the options ignores. TestMain calls it.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	for attempt := 1; code == 0; attempt++ {
		err := goleak.Find(options...)
		if err == nil {
			break
		}
		if attempt == attempts {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
