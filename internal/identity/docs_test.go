package identity

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedMap compares the tables in docs/mapping.md with the map.
func TestDocumentedMap(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../docs/mapping.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	for kind, heading := range map[Kind]string{User: "## Users\n", Group: "## Groups\n"} {
		_, section, _ := strings.Cut(page, heading)
		_, table, found := strings.Cut(section, "| attribute | target in the asset | form |\n| --- | --- | --- |\n")
		if !found {
			t.Fatalf("%s: no table", kind)
		}
		table, _, _ = strings.Cut(table, "\n\n")
		var got, want []string
		for line := range strings.Lines(table) {
			cells := strings.Split(line, " | ")
			for target := range strings.SplitSeq(cells[1], ", ") {
				got = append(got, strings.TrimPrefix(cells[0], "| ")+" → "+target)
			}
		}
		for _, row := range transformation[kind] {
			target := row.target
			if target != "assetDetail.name" {
				target = strings.TrimPrefix(target, "assetDetail.")
			}
			want = append(want, row.source+" → "+target)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: docs/mapping.md has\n%s\nthe map is\n%s", kind, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, value := range []string{statusActive, statusDeleted, statusDisabled, statusExpired, statusLocked, statusPasswordExpired, groupSecurity, groupDistribution, "PUBLIC", "PRIVATE"} {
		if !strings.Contains(page, "`"+value+"`") {
			t.Errorf("%s is missing", value)
		}
	}
}
