// Package faulttest checks typed errors in tests.
package faulttest

import (
	"errors"
	"strings"
	"testing"

	"adconnector/internal/fault"
)

// AnyRemedy is a name that every remedy contains.
const AnyRemedy = ""

// Check fails the test unless err is a *fault.Error with the class, operation and object
// of want. Unless cause is nil, err must wrap it. The remedy must contain all names, such as
// setting keys. Without names, the remedy must be empty. Check also fails if the text of
// err contains the remedy, or if its chain contains the same operation twice.
func Check(t testing.TB, err error, want fault.Error, cause error, names ...string) {
	t.Helper()
	failed, is := err.(*fault.Error) //nolint:errorlint // err itself must be an Error
	if !is {
		t.Fatalf("error %v (%T), want a *fault.Error", err, err)
	}
	if failed.Class != want.Class || failed.Op != want.Op || failed.Object != want.Object {
		t.Errorf("%s: %q %q, want %s: %q %q; error %v", failed.Class, failed.Op, failed.Object, want.Class, want.Op, want.Object, err)
	}
	if cause != nil && !errors.Is(failed.Err, cause) {
		t.Errorf("cause %v, want %v", failed.Err, cause)
	}
	remedy := fault.Remedy(err)
	if (remedy == "") != (len(names) == 0) {
		t.Errorf("remedy %q, want %q; error %v", remedy, names, err)
	}
	for _, name := range names {
		if !strings.Contains(remedy, name) {
			t.Errorf("remedy %q does not contain %q; error %v", remedy, name, err)
		}
	}
	if remedy != "" && strings.Contains(err.Error(), remedy) {
		t.Errorf("error text %q contains the remedy", err)
	}
	outer := fault.Operation{Op: failed.Op, Object: failed.Object}
	for inner := failed.Err; inner != nil; inner = errors.Unwrap(inner) {
		e, is := inner.(*fault.Error) //nolint:errorlint // the loop unwraps
		if is && outer == (fault.Operation{Op: e.Op, Object: e.Object}) {
			t.Errorf("duplicate operation in %v", err)
		}
	}
}
