package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"adconnector/test/testlog"
)

// operations returns the page that operators search for a message.
func operations(t *testing.T) string {
	t.Helper()
	// Prose is wrapped, so a message can have a line break.
	return strings.Join(strings.Fields(read(t, "docs/operations.md")), " ")
}

// TestOperationsMessages checks that the page has each message of the log.
func TestOperationsMessages(t *testing.T) {
	page := operations(t)
	messages, err := testlog.Messages()
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range messages {
		if !strings.Contains(page, "`"+message+"`") {
			t.Errorf("docs/operations.md: message `%s` missing", message)
		}
	}
}

// TestOperationsKeys checks that the page has each key of the log.
func TestOperationsKeys(t *testing.T) {
	page := operations(t)
	for _, key := range testlog.Keys {
		if !strings.Contains(page, "`"+key+"`") {
			t.Errorf("docs/operations.md: log key `%s` missing", key)
		}
	}
}

var (
	problemTitle = regexp.MustCompile(`"([A-Z][^"]*\.)"`)
	// ellipsis stands for the part of a title that differs.
	ellipsis = " … "
)

// TestOperationsProblems checks that the page has the title of each problem of the status page.
func TestOperationsProblems(t *testing.T) {
	page := operations(t)
	var titles []string
	for _, path := range []string{"problems.go", "status.go"} {
		source := read(t, filepath.Join("internal/status", path))
		for _, line := range strings.Split(source, "\n") {
			if match := problemTitle.FindStringSubmatch(line); match != nil && isTitle(line) {
				titles = append(titles, match[1])
			}
		}
	}
	if len(titles) < 10 {
		t.Fatalf("%d titles found: %q", len(titles), titles)
	}
	for _, title := range titles {
		title = strings.ReplaceAll(title, "%s", "N")
		if !strings.Contains(page, "*"+title) && !slices.ContainsFunc(abbreviations(page), func(pattern *regexp.Regexp) bool { return pattern.MatchString(title) }) {
			t.Errorf("docs/operations.md: entry *%s* of the status page missing", title)
		}
	}
}

// isTitle reports whether a line of source has the title of a problem, not a detail.
func isTitle(line string) bool {
	for _, start := range []string{"problem{severity", "p.Title =", "problem{Severity", "state.DirectoryCertificate", "state.GatewayCertificate", "interrupted = ", "killed      = "} {
		if strings.Contains(line, start) {
			return true
		}
	}
	return false
}

// abbreviations returns patterns for the entries of the page that have an ellipsis.
func abbreviations(page string) (patterns []*regexp.Regexp) {
	for _, match := range regexp.MustCompile(`\*([A-Z][^*]*`+ellipsis+`[^*]*)\*`).FindAllStringSubmatch(page, -1) {
		patterns = append(patterns, regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(match[1]), ellipsis, " .* ")+"$"))
	}
	return patterns
}

var (
	alertName = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)
	runbook   = regexp.MustCompile(`(?m)^ *runbook: (.+)$`)
)

// TestAlertsNameTheirSection checks that each alert has a section on the page, and names it.
func TestAlertsNameTheirSection(t *testing.T) {
	const path = "deploy/prometheus/alerts.yaml"
	rules, sections := read(t, path), anchors(read(t, "docs/operations.md"))
	alerts, books := alertName.FindAllStringSubmatch(rules, -1), runbook.FindAllStringSubmatch(rules, -1)
	if len(alerts) == 0 || len(alerts) != len(books) {
		t.Fatalf("%d alerts, %d of them with the annotation runbook", len(alerts), len(books))
	}
	for n, alert := range alerts {
		file, section, _ := strings.Cut(books[n][1], "#")
		if want := strings.ToLower(alert[1]); section != want || !slices.Contains(sections, want) {
			t.Errorf("%s: alert %s names section %q; sections: %q", path, alert[1], section, sections)
		}
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Error(err)
		}
	}
}
