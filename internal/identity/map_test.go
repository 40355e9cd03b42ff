package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goldens are the assets under testdata of each kind, by the beginnings of their names.
var goldens = map[Kind][]string{
	User: {"user-", "posture-user-"}, Group: {"group-", "posture-group-"}, Role: {"posture-role"},
	ServiceAccount: {"posture-service-account"}, Domain: {"posture-domain"},
}

// TestEveryRowIsShown: each target of the map is in a golden, which the tests of the
// gateway hold against the contract.
func TestEveryRowIsShown(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for kind, prefixes := range goldens {
		shown := map[string]bool{}
		var note func(path string, value any)
		note = func(path string, value any) {
			shown[path] = true
			if object, is := value.(map[string]any); is {
				for name, member := range object {
					note(path+"."+name, member)
				}
			}
		}
		for _, file := range files {
			if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(filepath.Base(file), prefix) }) {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var document map[string]any
			if err := json.Unmarshal(text, &document); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			note("", document["asset"])
		}
		for _, row := range slices.Concat(transformation[kind], posture[kind]) {
			if !shown["."+row.target] {
				t.Errorf("%s: no golden shows %s: add its source to a case of TestGolden, or of TestPostureGolden, and run with -update", kind, row.target)
			}
		}
	}
}

// TestVersions: a version goes up with its rows, or what was sent under the rows before
// is not read again.
func TestVersions(t *testing.T) {
	t.Parallel()
	digest := func(tables ...map[Kind][]row) string {
		hash := sha256.New()
		for _, table := range tables {
			for kind := User; kind <= Domain; kind++ {
				for _, row := range table[kind] {
					fmt.Fprintln(hash, kind, row.source, row.target)
				}
			}
		}
		return hex.EncodeToString(hash.Sum(nil)[:8])
	}
	for _, test := range []struct {
		name    string
		version int
		rows    string
		want    string
	}{
		{"Version", Version, digest(transformation), "1 f32fa76ccef20e93"},
		{"PostureVersion", PostureVersion, digest(posture), "2 78de3a97096df86b"},
	} {
		if got := fmt.Sprint(test.version, " ", test.rows); got != test.want {
			t.Errorf("the rows have changed since %s %s: raise it, and expect %q here", test.name, test.want, got)
		}
	}
}
