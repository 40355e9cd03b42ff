package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row is a row of README's table of rooms: a package, what it is, what it imports.
var row = regexp.MustCompile("(?m)^\\| `internal/([\\w/]+)` \\| [^|]+ \\| ([^|]*)\\|$")

// keepers says which rooms alone may import what comes from outside.
var keepers = map[string]string{
	"github.com/go-ldap/ldap/v3":                     "directory sandbox/domaincontroller", // as a server
	"github.com/go-asn1-ber/asn1-ber":                "directory sandbox/domaincontroller",
	"go.etcd.io/bbolt":                               "state",
	"net/http":                                       "gateway cli sandbox/gatewayserver sandbox/inventory status",
	"golang.org/x/oauth2":                            "gateway",
	"github.com/cenkalti/backoff/v5":                 "gateway",
	"github.com/prometheus/client_golang/prometheus": "status",
	"github.com/spf13/cobra":                         "cli",
	"github.com/schollz/progressbar/v3":              "cli",
	"github.com/google/jsonschema-go/jsonschema":     "sandbox/gatewayserver",
	"github.com/robfig/cron/v3":                      "schedule",
	"github.com/joho/godotenv":                       "config",
	"os/signal":                                      "cli",
	"github.com/rs/zerolog/log":                      "", // the logger is handed over
}

// TestImportsPointDown holds README's table of rooms against the code: every room that
// the program consists of has a row, which names what it imports and nothing else, and
// all of that stands further down.
func TestImportsPointDown(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	place, named := map[string]int{}, map[string][]string{}
	for i, found := range row.FindAllStringSubmatch(string(readme), -1) {
		place[found[1]], named[found[1]] = i+1, strings.FieldsFunc(found[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "-deps", "./cmd/adconnector")
	list.Dir = "../.."
	output, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, output)
	}
	const rooms = "adconnector/internal/"
	for line := range strings.Lines(string(output)) {
		importer, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		room, ours := strings.CutPrefix(importer, rooms)
		if !ours {
			continue
		}
		if place[room] == 0 {
			t.Errorf("%s has no row in the table", room)
		}
		var below []string
		for imported := range strings.FieldsSeq(imports) {
			if other, ours := strings.CutPrefix(imported, rooms); ours {
				below = append(below, other)
				if place[other] <= place[room] {
					t.Errorf("%s imports %s, which is above it", room, other)
				}
			}
			if keeper, kept := keepers[imported]; kept && !slices.Contains(strings.Fields(keeper), room) {
				t.Errorf("%s may not import %s, which is kept by %q", room, imported, keeper)
			}
		}
		if slices.Sort(below); !slices.Equal(below, named[room]) {
			t.Errorf("%s imports %v, the table says %v", room, below, named[room])
		}
		delete(named, room)
	}
	for room := range named {
		t.Errorf("there is a row for %s, which the program does not consist of", room)
	}
}

// TestArchitectureNamesWhatIsThere: each file and each test that README's section on the
// architecture names.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Architecture\n")
	section, _, _ = strings.Cut(section, "\n## ")
	files := regexp.MustCompile("`(\\w+/\\w+\\.\\w+)`").FindAllStringSubmatch(section, -1)
	tests := regexp.MustCompile(`\bTest\w+`).FindAllString(section, -1)
	if len(files) < 10 || len(tests) < 10 {
		t.Fatalf("%d files and %d tests are named", len(files), len(tests))
	}
	for _, file := range files {
		if _, err := os.Stat("../" + file[1]); err == nil {
			continue
		}
		if _, err := os.Stat("../../test/" + file[1]); err != nil {
			t.Error(err)
		}
	}
	var sources strings.Builder
	paths, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"../sandbox/*/*_test.go", "../../test/*/*_test.go"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, more...)
	}
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sources.Write(source)
	}
	for _, test := range tests {
		if !strings.Contains(sources.String(), "func "+test+"(t *testing.T)") {
			t.Errorf("there is no %s", test)
		}
	}
}
