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

// goldens are the prefixes of the golden files of each kind.
var goldens = map[Kind][]string{
	User: {"user-", "posture-user-"}, Group: {"group-", "posture-group-"}, Role: {"posture-role"},
	ServiceAccount: {"posture-service-account"}, Domain: {"posture-domain"},
}

// TestGoldensCoverMap checks that every target of the map is in a golden file. The gateway's
// tests validate these files against the contract.
func TestGoldensCoverMap(t *testing.T) {
	t.Parallel()
	if *update {
		t.Skip("other tests write the golden files")
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for kind, prefixes := range goldens {
		covered := map[string]bool{}
		var addPaths func(path string, value any)
		addPaths = func(path string, value any) {
			covered[path] = true
			if object, ok := value.(map[string]any); ok {
				for name, member := range object {
					addPaths(path+"."+name, member)
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
			addPaths("", document["asset"])
		}
		for _, row := range slices.Concat(transformation[kind], posture[kind]) {
			if !covered["."+row.target] {
				t.Errorf("%s: no golden file has %s: add its source to a case of TestGolden or TestPostureGolden, and run with -update", kind, row.target)
			}
		}
	}
}

// TestVersions checks that the version was increased if the sources or targets of the rows have
// changed. Otherwise objects that were sent with the previous rows are not read again. It does not
// detect a changed value function, which requires a new version too.
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
		{"Version", Version, digest(transformation), "2 7c51855e42a77d2c"},
		{"PostureVersion", PostureVersion, digest(posture, lastRows), "4 5ee6691826eac7f1"},
	} {
		if got := fmt.Sprint(test.version, " ", test.rows); got != test.want {
			t.Errorf("the rows or %s changed: %q, want %q; if you increased %s by one since the last release, expect the new value in this test", test.name, got, test.want, test.name)
		}
	}
}
