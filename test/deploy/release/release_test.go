package release

import (
	"bufio"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const repository = "../../.."

// output runs a program in the repository and returns its stdout.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = repository
	var stderr strings.Builder
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, output, stderr.String())
	}
	return string(output)
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{repository}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestRelease checks the files, the checksums, the version and the bill of materials for both
// platforms, and that a second build is identical.
func TestRelease(t *testing.T) {
	dist, rebuilt := t.TempDir(), filepath.Join(t.TempDir(), "dist")
	for _, dir := range []string{dist, rebuilt} {
		output(t, "make", "release", "DIST="+dir, "VERSION=9.8.7", "COMMIT=0123456789ab")
	}
	sums := checksums(t, dist)
	want := []string{"CHANGELOG.md", "LICENSE", "THIRD-PARTY-LICENSES", "adconnector_9.8.7_linux_amd64", "adconnector_9.8.7_linux_amd64.cdx.json",
		"adconnector_9.8.7_linux_arm64", "adconnector_9.8.7_linux_arm64.cdx.json", "sample.env"}
	if got := slices.Sorted(maps.Keys(sums)); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	for name, sum := range sums {
		content, err := os.ReadFile(filepath.Join(dist, name))
		if err != nil || fmt.Sprintf("%x", sha256.Sum256(content)) != sum {
			t.Errorf("%s: wrong checksum, error %v", name, err)
		}
	}
	if second := checksums(t, rebuilt); !maps.Equal(sums, second) {
		t.Errorf("second build differs: %v, %v", sums, second)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		path := filepath.Join(dist, "adconnector_9.8.7_linux_"+arch)
		program, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		program.Close()
		if program.Machine != machine {
			t.Errorf("%s: machine %v, want %v", path, program.Machine, machine)
		}
		checkBillOfMaterials(t, path, sums)
	}
	version, err := exec.Command(filepath.Join(dist, "adconnector_9.8.7_linux_"+runtime.GOARCH), "version").Output()
	if err != nil || !strings.HasPrefix(string(version), "adconnector 9.8.7, commit 0123456789ab, go") {
		t.Errorf("version %q, error %v", version, err)
	}
}

// checksums returns the content of SHA256SUMS by file name.
func checksums(t *testing.T, dist string) map[string]string {
	t.Helper()
	file, err := os.Open(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sums := map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		sum, name, _ := strings.Cut(lines.Text(), "  ")
		sums[name] = sum
	}
	return sums
}

// checkBillOfMaterials compares the bill of materials with the modules in the binary.
func checkBillOfMaterials(t *testing.T, path string, sums map[string]string) {
	t.Helper()
	content, err := os.ReadFile(path + ".cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	type component struct {
		Name, Version, PURL string
		Hashes              []struct{ Alg, Content string }
	}
	var bom struct {
		BOMFormat, SpecVersion string
		Metadata               struct{ Component component }
		Components             []component
		Dependencies           []struct{ DependsOn []string }
	}
	if err := json.Unmarshal(content, &bom); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	notices := string(must(os.ReadFile(filepath.Join(filepath.Dir(path), "THIRD-PARTY-LICENSES")))(t))
	want := []string{"pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, module := range info.Deps {
		want = append(want, "pkg:golang/"+module.Path+"@"+module.Version)
		if !strings.Contains(notices, "\n==== "+module.Path+" "+module.Version+"\n") {
			t.Errorf("license of %s missing", module.Path)
		}
	}
	var got []string
	for _, c := range bom.Components {
		got = append(got, c.PURL)
	}
	if !slices.Equal(got, want) || len(got) < 10 || !slices.Equal(bom.Dependencies[0].DependsOn, want) {
		t.Errorf("%s lists %q, want %q", path, got, want)
	}
	program := bom.Metadata.Component
	if bom.BOMFormat != "CycloneDX" || program.Version != "9.8.7" || program.Hashes[0].Content != sums[filepath.Base(path)] {
		t.Errorf("%s: component %+v", path, program)
	}
}

// must returns a function that ends the test on an error, else returns the value.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// TestVersion checks that all files name the version of the Makefile.
func TestVersion(t *testing.T) {
	version := firstMatch(t, read(t, "Makefile"), `(?m)^VERSION \?= (\S+)$`)
	for path, pattern := range map[string]string{
		"CHANGELOG.md":                          `(?m)^## \[(\d\S*)\]`,
		"deploy/helm/adconnector/Chart.yaml":    `(?m)^appVersion: (\S+)$`,
		"deploy/compose.yaml":                   `:-adconnector:([^}]+)}`,
		"deploy/systemd/adconnector@.service":   `IMAGE=adconnector:(\S+)`,
		"deploy/systemd/adconnector@.container": `Image=localhost/adconnector:(\S+)`,
		"README.md":                             `adconnector:(\d[\w.]*\w)`,
	} {
		if found := firstMatch(t, read(t, path), pattern); found != version {
			t.Errorf("%s: version %s, want %s", path, found, version)
		}
	}
}

func firstMatch(t *testing.T, text, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no match of %s", pattern)
	}
	return match[1]
}

// licenses are identified by phrases in their texts. The first match counts.
var licenses = []struct {
	name    string
	phrases []string
}{
	{"Apache-2.0", []string{"Apache License", "Version 2.0, January 2004"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "Neither the name"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms"}},
	{"MIT", []string{"Permission is hereby granted, free of charge"}},
}

// licenseOf returns the SPDX identifier of the license in a directory.
func licenseOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no license file, error %v", dir, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(content)), " ")
	for _, l := range licenses {
		if !slices.ContainsFunc(l.phrases, func(phrase string) bool { return !strings.Contains(text, phrase) }) {
			return l.name
		}
	}
	t.Fatalf("%s: unknown license", files[0])
	return ""
}

// TestDependencies checks that docs/architecture.md names each direct dependency with its license, and no
// other.
func TestDependencies(t *testing.T) {
	output(t, "go", "mod", "download")
	want := map[string]string{}
	decoder := json.NewDecoder(strings.NewReader(output(t, "go", "list", "-m", "-json", "all")))
	for decoder.More() {
		var module struct {
			Path, Dir      string
			Main, Indirect bool
		}
		if err := decoder.Decode(&module); err != nil {
			t.Fatal(err)
		}
		if !module.Main && !module.Indirect {
			want[module.Path] = licenseOf(t, module.Dir)
		}
	}
	_, table, _ := strings.Cut(read(t, "docs/architecture.md"), "| dependency | license | purpose |\n")
	got := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\S+)` \\| (\\S+) \\| \\S.* \\|$").FindAllStringSubmatch(table, -1) {
		got[row[1]] = row[2]
	}
	if !maps.Equal(got, want) {
		t.Errorf("docs/architecture.md:\n%v\ngo.mod:\n%v", got, want)
	}
	// The licenses of the dependencies are compatible with this one.
	if own := licenseOf(t, repository); own != "Apache-2.0" {
		t.Errorf("license of the repository is %s", own)
	}
}
