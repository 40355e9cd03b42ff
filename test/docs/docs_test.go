package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

var (
	sourceFile = regexp.MustCompile("`((?:test/|sandbox/)?\\w+/\\w+\\.\\w+)`")
	testName   = regexp.MustCompile(`\bTest[A-Z]\w+`)
)

// TestArchitecture checks that the files and tests exist that docs/architecture.md names.
func TestArchitecture(t *testing.T) {
	page := read(t, "docs/architecture.md")
	files, tests := sourceFile.FindAllStringSubmatch(page, -1), testName.FindAllString(page, -1)
	if len(files) < 10 || len(tests) < 10 {
		t.Fatalf("%d files and %d tests on the page", len(files), len(tests))
	}
	for _, file := range files {
		path := file[1]
		if !strings.HasPrefix(path, "test/") {
			path = "internal/" + path
		}
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	sources := testSources(t)
	for _, test := range tests {
		if !strings.Contains(sources, "func "+test+"(t *testing.T)") {
			t.Errorf("%s does not exist", test)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(content), "\r\n", "\n")
}

// testSources returns the text of all test files of this module.
func testSources(t *testing.T) string {
	t.Helper()
	var sources strings.Builder
	for _, dir := range []string{"internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			sources.Write(source)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sources.String()
}
