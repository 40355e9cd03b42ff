package systemd

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/test/debian"
)

const units = "../../../deploy/systemd"

// instance copies a template, so that it can be looked at as the unit of a
// connector, its program being one that is there.
func instance(t *testing.T, template string) (path string) {
	t.Helper()
	if err := debian.Install([]string{"systemd-analyze"}, "systemd"); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	content := strings.ReplaceAll(read(t, template), "/usr/local/bin/adconnector ", self+" ")
	if err := os.WriteFile(filepath.Join(dir, template), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, strings.Replace(template, "@", "@corp", 1))
	if err := os.Symlink(template, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(units, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// tooNew are the keys that systemd knows since 254; before, it says so and goes on.
var tooNew = regexp.MustCompile(`Unknown key( name)? '(RestartSteps|RestartMaxDelaySec)' in section`)

// TestVerify: systemd has nothing to say against the units.
func TestVerify(t *testing.T) {
	for _, template := range []string{"adconnector@.service", "adconnector-bare@.service"} {
		t.Run(template, func(t *testing.T) {
			path := instance(t, template)
			cmd := exec.Command("systemd-analyze", "verify", "--man=no", path)
			cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			err := cmd.Run()
			var complaints []string
			for line := range strings.Lines(said.String()) {
				if !tooNew.MatchString(line) {
					complaints = append(complaints, line)
				}
			}
			if err != nil || len(complaints) > 0 {
				t.Errorf("%v: %q", err, complaints)
			}
		})
	}
}

// TestExposure: the bare program is locked in as far as systemd can. (The figure of
// the container's unit is that of the engine's client, and says nothing.)
func TestExposure(t *testing.T) {
	const most = 1.5 // of 10
	output, err := exec.Command("systemd-analyze", "security", "--offline=true", fmt.Sprintf("--threshold=%d", int(most*10)), instance(t, "adconnector-bare@.service")).CombinedOutput()
	verdict := regexp.MustCompile(`Overall exposure level.*`).Find(output)
	if err != nil || verdict == nil {
		t.Errorf("%v: %s", err, output)
	}
	t.Logf("%s", verdict)
}

// settings are the keys of a unit, by section and key, in the order given.
func settings(t *testing.T, name string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	section := ""
	text := strings.ReplaceAll(read(t, name), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, isSetting := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case isSetting:
			found[section+"."+key] = append(found[section+"."+key], strings.Join(strings.Fields(value), " "))
		default:
			t.Errorf("%s: %q", name, line)
		}
	}
	return found
}

// TestSame: whichever way a connector is run, it restarts and stops in the same way.
func TestSame(t *testing.T) {
	reference := settings(t, "adconnector@.service")
	for _, other := range []string{"adconnector@.container", "adconnector-bare@.service"} {
		its := settings(t, other)
		for _, key := range []string{"Unit.Wants", "Unit.StartLimitIntervalSec", "Service.Restart", "Service.RestartPreventExitStatus",
			"Service.RestartSec", "Service.RestartSteps", "Service.RestartMaxDelaySec", "Install.WantedBy"} {
			if !slices.Equal(its[key], reference[key]) || len(its[key]) == 0 {
				t.Errorf("%s: %s=%q, in the container's unit %q", other, key, its[key], reference[key])
			}
		}
	}
}

// TestStop: nobody is killed before service.shutdown-grace is over.
func TestStop(t *testing.T) {
	grace := regexp.MustCompile(`service\.shutdown-grace=(\S+)`).FindStringSubmatch(string(must(os.ReadFile("../../../sample.env"))(t)))
	if grace == nil {
		t.Fatal("the sample has no grace")
	}
	least := must(time.ParseDuration(grace[1]))(t)
	for _, way := range []struct{ name, pattern string }{
		{"adconnector@.service", `stop --time (\d+)`},
		{"adconnector@.service", `(?s) run .*--stop-timeout (\d+) .*\$\{IMAGE\}`}, // when the engine itself stops
		{"adconnector@.container", `--stop-timeout=(\d+)`},
		{"adconnector-bare@.service", `TimeoutStopSec=(\d+)`},
	} {
		name := way.name
		engine := regexp.MustCompile(way.pattern).FindStringSubmatch(read(t, name))
		if engine == nil {
			t.Fatalf("%s does not say how long a stop may take: nothing like %s", name, way.pattern)
		}
		inner := must(time.ParseDuration(engine[1] + "s"))(t)
		outer := must(time.ParseDuration(settings(t, name)["Service.TimeoutStopSec"][0] + "s"))(t)
		if inner <= least || outer < inner {
			t.Errorf("%s: killed after %v, by systemd after %v; service.shutdown-grace is %v", name, inner, outer, least)
		}
	}
}

// known are the keys of a [Container] section that podman's quadlet reads
// (podman-systemd.unit(5) of podman 4.5) and ours uses.
var known = []string{"Image", "ContainerName", "EnvironmentFile", "Volume", "ReadOnly", "Tmpfs", "DropCapability", "NoNewPrivileges", "PodmanArgs"}

// TestQuadlet: the quadlet runs the container that the service runs.
func TestQuadlet(t *testing.T) {
	quadlet := settings(t, "adconnector@.container")
	service := settings(t, "adconnector@.service")["Service.ExecStart"][0]
	for key := range quadlet {
		section, name, _ := strings.Cut(key, ".")
		if section == "Container" && !slices.Contains(known, name) {
			t.Errorf("quadlet does not know %s", name)
		}
	}
	for key, option := range map[string]string{
		"ContainerName": "--name %s", "EnvironmentFile": "--env-file %s", "Volume": "--volume %s", "Tmpfs": "--tmpfs %s",
	} {
		value := quadlet["Container."+key]
		if len(value) != 1 || !strings.Contains(service, fmt.Sprintf(option, value[0])) {
			t.Errorf("%s=%q, the service runs %s", key, value, service)
		}
	}
	for key, pair := range map[string][2]string{
		"ReadOnly": {"true", "--read-only"}, "DropCapability": {"all", "--cap-drop ALL"}, "NoNewPrivileges": {"true", "--security-opt no-new-privileges"},
	} {
		if value := quadlet["Container."+key]; !slices.Equal(value, []string{pair[0]}) || !strings.Contains(service, pair[1]) {
			t.Errorf("%s=%q, the service runs %s", key, value, service)
		}
	}
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
