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

// instance copies a template unit and returns the path of an instance. Its program is the test
// binary, because systemd-analyze requires an existing file.
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

// newKeys matches the warning of systemd before 254 about newer keys, which it ignores.
var newKeys = regexp.MustCompile(`Unknown key( name)? '(RestartSteps|RestartMaxDelaySec)' in section`)

// TestVerify checks that systemd-analyze verify has no warnings about the units.
func TestVerify(t *testing.T) {
	for _, template := range []string{"adconnector@.service", "adconnector-bare@.service"} {
		t.Run(template, func(t *testing.T) {
			path := instance(t, template)
			cmd := exec.Command("systemd-analyze", "verify", "--man=no", path)
			cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
			var output bytes.Buffer
			cmd.Stdout, cmd.Stderr = &output, &output
			err := cmd.Run()
			var warnings []string
			for line := range strings.Lines(output.String()) {
				if !newKeys.MatchString(line) {
					warnings = append(warnings, line)
				}
			}
			if err != nil || len(warnings) > 0 {
				t.Errorf("%v: %q", err, warnings)
			}
		})
	}
}

// TestExposure limits the exposure level of the unit without a container. The level of the
// container's unit only applies to the engine's client.
func TestExposure(t *testing.T) {
	const limit = 1.5 // on a scale to 10
	output, err := exec.Command("systemd-analyze", "security", "--offline=true", fmt.Sprintf("--threshold=%d", int(limit*10)), instance(t, "adconnector-bare@.service")).CombinedOutput()
	level := regexp.MustCompile(`Overall exposure level.*`).Find(output)
	if err != nil || level == nil {
		t.Errorf("%v: %s", err, output)
	}
	t.Logf("%s", level)
}

// settings returns the values of a unit's settings by "Section.Key".
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
			t.Errorf("%s: invalid line %q", name, line)
		}
	}
	return found
}

// TestRestartSettings checks that all units have the same settings for restarts, and restart
// after every exit code, with a delay that grows to five minutes.
func TestRestartSettings(t *testing.T) {
	reference := settings(t, "adconnector@.service")
	for key, want := range map[string]string{
		"Unit.StartLimitIntervalSec": "0", "Service.Restart": "always", "Service.RestartSec": "5s", "Service.RestartMaxDelaySec": "5min",
	} {
		if !slices.Equal(reference[key], []string{want}) {
			t.Errorf("%s=%q, want %s", key, reference[key], want)
		}
	}
	for _, unit := range []string{"adconnector@.service", "adconnector@.container", "adconnector-bare@.service"} {
		// 2 is the code of a bad configuration, and of a crash of the Go runtime.
		if values := settings(t, unit)["Service.RestartPreventExitStatus"]; len(values) > 0 {
			t.Errorf("%s: RestartPreventExitStatus=%q", unit, values)
		}
		if slices.ContainsFunc(settings(t, unit)["Service.SuccessExitStatus"], func(v string) bool { return slices.Contains(strings.Fields(v), "2") }) {
			t.Errorf("%s: exit code 2 counts as success", unit)
		}
	}
	for _, other := range []string{"adconnector@.container", "adconnector-bare@.service"} {
		got := settings(t, other)
		for _, key := range []string{"Unit.Wants", "Unit.StartLimitIntervalSec", "Service.Restart",
			"Service.RestartSec", "Service.RestartSteps", "Service.RestartMaxDelaySec", "Install.WantedBy"} {
			if !slices.Equal(got[key], reference[key]) || len(got[key]) == 0 {
				t.Errorf("%s: %s=%q, want %q", other, key, got[key], reference[key])
			}
		}
	}
}

// TestStopTimeouts checks that no unit kills the connector before service.shutdown-grace ends.
func TestStopTimeouts(t *testing.T) {
	grace := regexp.MustCompile(`service\.shutdown-grace=(\S+)`).FindStringSubmatch(string(must(os.ReadFile("../../../sample.env"))(t)))
	if grace == nil {
		t.Fatal("sample.env has no service.shutdown-grace")
	}
	shutdownGrace := must(time.ParseDuration(grace[1]))(t)
	for _, timeout := range []struct{ name, pattern string }{
		{"adconnector@.service", `stop --time (\d+)`},
		{"adconnector@.service", `(?s) run .*--stop-timeout (\d+) .*\$\{IMAGE\}`}, // when the engine itself stops
		{"adconnector@.container", `--stop-timeout=(\d+)`},
		{"adconnector-bare@.service", `TimeoutStopSec=(\d+)`},
	} {
		name := timeout.name
		match := regexp.MustCompile(timeout.pattern).FindStringSubmatch(read(t, name))
		if match == nil {
			t.Fatalf("%s has no stop timeout: no match of %s", name, timeout.pattern)
		}
		inner := must(time.ParseDuration(match[1] + "s"))(t)
		outer := must(time.ParseDuration(settings(t, name)["Service.TimeoutStopSec"][0] + "s"))(t)
		if inner <= shutdownGrace || outer < inner {
			t.Errorf("%s: stop timeout %v, of systemd %v; service.shutdown-grace is %v", name, inner, outer, shutdownGrace)
		}
	}
}

// quadletKeys are the keys of the [Container] section that podman 4.5 supports
// (podman-systemd.unit(5)) and the unit uses.
var quadletKeys = []string{"Image", "ContainerName", "EnvironmentFile", "Volume", "ReadOnly", "Tmpfs", "DropCapability", "NoNewPrivileges", "PodmanArgs"}

// TestQuadlet checks that the quadlet runs the container with the options of the service.
func TestQuadlet(t *testing.T) {
	quadlet := settings(t, "adconnector@.container")
	service := settings(t, "adconnector@.service")["Service.ExecStart"][0]
	for key := range quadlet {
		section, name, _ := strings.Cut(key, ".")
		if section == "Container" && !slices.Contains(quadletKeys, name) {
			t.Errorf("unknown quadlet key %s", name)
		}
	}
	for key, option := range map[string]string{
		"ContainerName": "--name %s", "EnvironmentFile": "--env-file %s", "Volume": "--volume %s", "Tmpfs": "--tmpfs %s",
	} {
		value := quadlet["Container."+key]
		if len(value) != 1 || !strings.Contains(service, fmt.Sprintf(option, value[0])) {
			t.Errorf("%s=%q, command of the service %s", key, value, service)
		}
	}
	for key, pair := range map[string][2]string{
		"ReadOnly": {"true", "--read-only"}, "DropCapability": {"all", "--cap-drop ALL"}, "NoNewPrivileges": {"true", "--security-opt no-new-privileges"},
	} {
		if value := quadlet["Container."+key]; !slices.Equal(value, []string{pair[0]}) || !strings.Contains(service, pair[1]) {
			t.Errorf("%s=%q, command of the service %s", key, value, service)
		}
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
