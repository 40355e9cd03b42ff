package syncrun

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// stringConstants returns the values of the string constants in a file whose names have a prefix.
func stringConstants(t *testing.T, path, prefix string) (values []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, is := node.(*ast.ValueSpec)
		if !is || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		if literal, is := spec.Values[0].(*ast.BasicLit); is && literal.Kind == token.STRING {
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	return values
}

// TestDocumentedReasons compares the tables in docs/controllers.md with the constants that the log,
// status and metrics contain.
func TestDocumentedReasons(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../docs/controllers.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	firstCell := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
	for _, test := range []struct{ name, header, path, prefix string }{
		{"full sync", "| reason | cause |", "messages.go", "Reason"},
		{"undecided deletions", "| reason | meaning |", "messages.go", "Undecided"},
		{"logons", "| result | the domain controller |", "../state/logons.go", "Logons"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := stringConstants(t, test.path, test.prefix)
			_, table, found := strings.Cut(page, test.header)
			if len(want) == 0 || !found {
				t.Fatalf("%d constants, table found: %v", len(want), found)
			}
			table, _, _ = strings.Cut(table, "\n\n")
			var got []string
			for _, match := range firstCell.FindAllStringSubmatch(table, -1) {
				got = append(got, match[1])
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("table has\n%q\nconstants are\n%q", got, want)
			}
		})
	}
	for _, reason := range stringConstants(t, "keys.go", "Dropped") {
		if !strings.Contains(page, "`"+reason+"`") {
			t.Errorf("%q is missing", reason)
		}
	}
}
