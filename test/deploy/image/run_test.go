package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/cli/pkg/kvfile"

	"adconnector/test/testenv"
)

// newSandbox starts the sandbox of the image. It returns its network and the settings of its env
// file, parsed as Docker does.
func newSandbox(t *testing.T) (*network, testenv.Settings) {
	t.Helper()
	network, volume := newNetwork(t), newVolume(t)
	sandbox := container{network: network, volume: volume,
		args: []string{"sandbox", "--users", "200", "--groups", "20", "--env-out", "/var/lib/adconnector/sandbox.env"}}.start()
	sandbox.await(&sandbox.stdout, "directory  ldaps://")
	lines, err := kvfile.Parse(filepath.Join(volume, "sandbox.env"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	settings := testenv.Settings{}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		settings[key] = value
	}
	return network, settings.With(testenv.Settings{"service.state-dir": ""}) // use the default of the image
}

// TestConnector executes a run and then the daemon as process 1 on one volume, with the health
// check and a stop by SIGTERM.
func TestConnector(t *testing.T) {
	network, settings := newSandbox(t)
	env, volume := settings.Environ(), newVolume(t)

	code, stdout, stderr := container{network: network, volume: volume, env: env, args: []string{"sync", "--output", "json"}}.run()
	var result struct{ Users, Groups, Uploaded int }
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || code != 0 || result.Users < 200 || result.Groups < 20 || result.Uploaded != result.Users+result.Groups {
		t.Fatalf("exit code %d, %+v, %v\n%s", code, result, err, stderr)
	}

	// The image has no time zone files, so the binary needs its own.
	daemon := container{network: network, volume: volume, env: settings.With(testenv.Settings{"service.cron-expression": "CRON_TZ=Europe/Berlin 0 4 * * *"}).Environ()}.start()
	daemon.await(&daemon.stderr, `"message":"run finished"`)
	daemon.await(&daemon.stderr, `"to":"SCHEDULED"`)
	log, _ := daemon.stderr.read()
	if !strings.Contains(log, `CRON_TZ=Europe/Berlin`) || strings.Contains(log, `"level":"error"`) {
		t.Errorf("log %s", log)
	}
	healthcheck := container{network: network, volume: volume, env: env, args: []string{"healthcheck"}}
	if code, stdout, stderr := healthcheck.run(); code != 0 || stdout != "healthy\n" {
		t.Errorf("healthcheck: exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, _ = container{network: network, volume: volume, env: env, args: []string{"status", "--output", "json"}}.run()
	if code != 0 || !strings.Contains(stdout, `"from": "daemon"`) {
		t.Errorf("status: exit code %d: %s", code, stdout)
	}

	// A second container on the same volume is refused.
	code, _, stderr = container{network: network, volume: volume, env: env}.run()
	checkError(t, code, stderr, 4, "/var/lib/adconnector", "service.state-dir")

	if err := daemon.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := daemon.wait(); code != 0 {
		log, _ := daemon.stderr.read()
		t.Errorf("SIGTERM: exit code %d: %s", code, log)
	}
	if code, stdout, _ := healthcheck.run(); code != 1 || !strings.HasPrefix(stdout, "not healthy: ") || !strings.Contains(stdout, "service.admin.address") {
		t.Errorf("healthcheck without a daemon: exit code %d: %s", code, stdout)
	}
}

// TestHealthcheckWithoutHosts checks the health check of a daemon that listens on all addresses.
// The image has no hosts file, so that nothing resolves localhost.
func TestHealthcheckWithoutHosts(t *testing.T) {
	network, settings := newSandbox(t)
	for _, address := range []string{":8081", "localhost:8082"} {
		t.Run(address, func(t *testing.T) {
			volume := newVolume(t)
			env := settings.With(testenv.Settings{"service.admin.address": address, "service.cron-expression": "0 0 1 1 *"}).Environ()
			daemon := container{network: network, volume: volume, env: env}.start()
			daemon.await(&daemon.stderr, `"message":"run finished"`)
			if code, stdout, stderr := (container{network: network, volume: volume, env: env, args: []string{"healthcheck"}}).run(); code != 0 || stdout != "healthy\n" {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
		})
	}
}

// TestSignals checks what each signal does to a daemon that is process 1. The Go runtime treats
// signals differently there, because the kernel does not end process 1 by a signal.
func TestSignals(t *testing.T) {
	network, settings := newSandbox(t)
	env := settings.With(testenv.Settings{"service.admin.address": "off", "service.cron-expression": "0 0 1 1 *"}).Environ()
	start := func(t *testing.T) *process {
		t.Helper()
		daemon := container{network: network, volume: newVolume(t), env: env}.start()
		daemon.await(&daemon.stderr, `"message":"run finished"`)
		return daemon
	}
	send := func(t *testing.T, daemon *process, signal syscall.Signal) {
		t.Helper()
		if err := daemon.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	for signal, want := range map[syscall.Signal]struct {
		code int
		log  string
	}{
		syscall.SIGTERM: {0, `"message":"stopped"`},
		syscall.SIGINT:  {0, `"message":"stopped"`},
		syscall.SIGQUIT: {2, `"message":"signal received, stack dump follows"`},
		syscall.SIGABRT: {2, `"message":"signal received, stack dump follows"`},
		syscall.SIGSEGV: {2, "SIGSEGV"}, // a crash, without a line of the log
	} {
		t.Run(signal.String(), func(t *testing.T) {
			daemon := start(t)
			send(t, daemon, signal)
			code := daemon.wait()
			if log, _ := daemon.stderr.read(); code != want.code || !strings.Contains(log, want.log) {
				t.Errorf("exit code %d: %s", code, log)
			}
		})
	}
	t.Run("ignored", func(t *testing.T) {
		daemon := start(t)
		for signal := syscall.Signal(1); signal <= 64; signal++ {
			switch signal {
			case syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGSTOP, // end or stop the process
				syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSTKFLT, syscall.SIGSYS, // crashes
				syscall.SIGUSR1, syscall.SIGUSR2, // change the level of the log
				32, 33: // of the C library
				continue
			}
			send(t, daemon, signal)
		}
		daemon.await(&daemon.stderr, `"message":"hangup ignored, settings are not reloaded"`)
		send(t, daemon, syscall.SIGTERM)
		if code := daemon.wait(); code != 0 {
			log, _ := daemon.stderr.read()
			t.Errorf("exit code %d: %s", code, log)
		}
	})
}

// TestBadVolumes checks that an unusable volume or secret causes exit code 2 and one error.
func TestBadVolumes(t *testing.T) {
	network := newNetwork(t)
	env := []string{
		"connector.api.url=http://127.0.0.1:1", "service.cron-expression=*/10 * * * *",
		"qualys.customerUuid=00000000-0000-0000-0000-000000000001", "qualys.connectionUuid=00000000-0000-0000-0000-000000000002", "qualys.profileUuid=00000000-0000-0000-0000-000000000003",
		"qualys.user.username=u",
	}
	password := "qualys.user.password=invented"
	for name, c := range map[string]struct {
		prepare func(t *testing.T, c *container)
		setting string
		names   []string // in the error
	}{
		"volume of root": {func(t *testing.T, c *container) { chown(t, c.volume, 0, 0o755) }, password,
			[]string{"/var/lib/adconnector/adconnector.db", syscall.EACCES.Error(), "65532", "service.state-dir"}},
		"unknown user, volume of another user": {func(_ *testing.T, c *container) { c.user = 12345 }, password,
			[]string{syscall.EACCES.Error(), "12345", "service.state-dir"}},
		"read-only volume": {func(_ *testing.T, c *container) { c.readOnlyVolume = true }, password,
			[]string{syscall.EROFS.Error(), "service.state-dir"}},
		"no volume": {func(_ *testing.T, c *container) { c.volume = "" }, password,
			[]string{syscall.EROFS.Error(), "service.state-dir"}},
		"missing secret file": {func(*testing.T, *container) {}, "qualys.user.password.file=/run/secrets/password",
			[]string{"qualys.user.password.file", syscall.ENOENT.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			run := container{network: network, volume: newVolume(t), env: append(env[:len(env):len(env)], c.setting)}
			c.prepare(t, &run)
			code, _, stderr := run.run()
			checkError(t, code, stderr, 2, c.names...)
			if strings.Contains(stderr, "invented") {
				t.Errorf("log contains the secret: %s", stderr)
			}
		})
	}

	t.Run("unknown user, own volume", func(t *testing.T) {
		volume := newVolume(t)
		chown(t, volume, 12345, 0o700)
		daemon := container{network: network, volume: volume, env: append(env[:len(env):len(env)], password), user: 12345}.start()
		daemon.await(&daemon.stderr, `"message":"started"`)
	})
}

// checkError fails the test unless the log has exactly one error, with a remedy and all names:
// settings, paths and causes.
func checkError(t *testing.T, code int, stderr string, wantCode int, names ...string) {
	t.Helper()
	var errors []string
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, `"level":"error"`) {
			errors = append(errors, line)
		}
	}
	if code != wantCode || len(errors) != 1 {
		t.Fatalf("exit code %d and %d errors, want %d and 1: %s", code, len(errors), wantCode, stderr)
	}
	for _, name := range append(names, `"remedy":"`) {
		if !strings.Contains(errors[0], name) {
			t.Errorf("%q missing in %s", name, errors[0])
		}
	}
}
