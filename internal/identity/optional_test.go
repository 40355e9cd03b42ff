package identity

import (
	"slices"
	"testing"
)

// TestOptionalAttributes checks that required attributes and those that are not replicated are
// left out.
func TestOptionalAttributes(t *testing.T) {
	t.Parallel()
	names := OptionalAttributes(User)
	for _, name := range []string{"mail", "pwdLastSet", "accountExpires", "mobile"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing in %v", name, names)
		}
	}
	for _, name := range append(RequiredAttributes(User, false), "lastLogon", "msDS-User-Account-Control-Computed") {
		if slices.Contains(names, name) {
			t.Errorf("%s is in %v", name, names)
		}
	}
}
