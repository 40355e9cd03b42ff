package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxREADMEWords keeps the README a page: everything else is under docs.
const maxREADMEWords = 1000

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	inline    = regexp.MustCompile("`[^`\n]*`")
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// pages returns the paths of all Markdown files of the repository, relative to its root.
func pages(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root:
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			relative, err := filepath.Rel(root, path)
			paths = append(paths, relative)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// anchors returns the anchors that a Markdown renderer derives from the headings of a page. It
// reports no suffixes (-1, -2) for equal headings: a link to one of them is a mistake.
func anchors(page string) []string {
	var found []string
	for _, match := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(page, ""), -1) {
		text := link.ReplaceAllString(match[1], "]")
		slug := strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), ""), " ", "-")
		found = append(found, slug)
	}
	return found
}

// TestLinks checks that the target of each relative link exists, and so does the heading that it
// names. Links to other hosts are not requested.
func TestLinks(t *testing.T) {
	checked := 0
	for _, path := range pages(t) {
		text := inline.ReplaceAllString(codeBlock.ReplaceAllString(read(t, path), ""), "")
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			checked++
			if target = filepath.Join(filepath.Dir(path), target); strings.HasPrefix(match[1], "#") {
				target = path
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: link %s: %v", path, match[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: link %s: no such heading in %s", path, match[1], target)
			}
		}
	}
	if checked < 50 {
		t.Errorf("%d links checked", checked)
	}
}

// TestPagesAreLinked checks that the README links to each page under docs.
func TestPagesAreLinked(t *testing.T) {
	readme := read(t, "README.md")
	for _, path := range pages(t) {
		if filepath.Dir(path) == "docs" && !strings.Contains(readme, "]("+filepath.ToSlash(path)+")") {
			t.Errorf("README.md has no link to %s", path)
		}
	}
}

func TestREADMEIsAPage(t *testing.T) {
	if words := len(strings.Fields(read(t, "README.md"))); words > maxREADMEWords {
		t.Errorf("%d words, at most %d", words, maxREADMEWords)
	}
}
