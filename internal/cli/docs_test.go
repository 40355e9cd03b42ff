package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// operatorTexts returns what operators copy commands from, by name: README.md, the pages under docs,
// sample.env, the files under deploy, and the help of each command.
func operatorTexts(t *testing.T) map[string]string {
	t.Helper()
	const root = "../.."
	texts := map[string]string{}
	read := func(path string) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(content)
	}
	read(filepath.Join(root, "README.md"))
	read(filepath.Join(root, "sample.env"))
	for _, dir := range []string{"docs", "deploy"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && filepath.Ext(path) != ".png" {
				read(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range commands() {
		texts["help of "+c.CommandPath()] = c.Long + "\n" + c.Example
	}
	return texts
}

// makefileImage returns the name of the image that make image builds.
func makefileImage(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^VERSION \?= (\S+)$`).FindStringSubmatch(string(content))
	name := regexp.MustCompile(`(?m)^IMAGE +\?= (\w+):\$\(VERSION\)$`).FindStringSubmatch(string(content))
	if version == nil || name == nil {
		t.Fatal("Makefile: no VERSION or no IMAGE")
	}
	return name[1] + ":" + version[1]
}

// TestDocumentedContainers tests that each command that starts a container names the image that
// make image builds and the volume of the state, and that no place names another image. A rollback
// names the previous one by a variable.
func TestDocumentedContainers(t *testing.T) {
	t.Parallel()
	image := makefileImage(t)
	start := regexp.MustCompile(`(?m)^[#\s]*((?:docker|podman) run\s.*)$`)
	tagged := regexp.MustCompile(`\badconnector:\d[\w.-]*\w`)
	found := 0
	for name, text := range operatorTexts(t) {
		for _, tag := range tagged.FindAllString(text, -1) {
			if tag != image {
				t.Errorf("%s: image %s, but make image builds %s", name, tag, image)
			}
		}
		for _, command := range start.FindAllString(regexp.MustCompile(`\\\n#?`).ReplaceAllString(text, " "), -1) {
			found++
			command = strings.ReplaceAll(command, "adconnector:$PREVIOUS", image)
			if !containsAll(command+" ", " "+image+" ", ":/var/lib/adconnector ", " --env-file ") {
				t.Errorf("%s: no image %s, volume, or env file: %s", name, image, command)
			}
		}
	}
	if found < 4 { // two in README.md, one in sample.env, one in the help
		t.Errorf("%d commands found", found)
	}
}

// TestDocumentedUnits tests that the units that texts name exist, and that no command addresses
// all processes with the name of the program.
func TestDocumentedUnits(t *testing.T) {
	t.Parallel()
	unit := regexp.MustCompile("systemctl [^\\n`]*?\\b(adconnector[\\w-]*)(@?)")
	found := 0
	for name, text := range operatorTexts(t) {
		for _, match := range unit.FindAllStringSubmatch(text, -1) {
			found++
			files, err := filepath.Glob(filepath.Join("../../deploy/systemd", match[1]+"@.*"))
			if err != nil || len(files) == 0 || match[2] != "@" {
				t.Errorf("%s: no such unit: %s", name, match[0])
			}
		}
		for _, ambiguous := range []string{"pidof", "pkill", "killall"} {
			if strings.Contains(text, ambiguous) {
				t.Errorf("%s: %s addresses all instances", name, ambiguous)
			}
		}
	}
	if found < 4 {
		t.Errorf("%d units found", found)
	}
}

// TestDocumentedUnitCommands tests that each command that reads the env file of a unit outside of a
// container sets the state directory: adconnector-bare@.service sets it in its environment, and a
// command with another one does not find the daemon.
func TestDocumentedUnitCommands(t *testing.T) {
	t.Parallel()
	command := regexp.MustCompile(`(?m)^[#\s]*(.*\badconnector (?:run|sync|check|status|healthcheck)\b.*--env-file /etc/adconnector/NAME\.env.*)$`)
	found := 0
	for name, text := range operatorTexts(t) {
		for _, match := range command.FindAllStringSubmatch(regexp.MustCompile(`\\\n#?`).ReplaceAllString(text, " "), -1) {
			found++
			if !regexp.MustCompile(`SERVICE_STATE_DIR=/var/lib/adconnector/NAME +adconnector `).MatchString(match[1]) {
				t.Errorf("%s: no state directory: %s", name, match[1])
			}
		}
	}
	if found < 2 { // the help of healthcheck, and the unit
		t.Errorf("%d commands found", found)
	}
}
