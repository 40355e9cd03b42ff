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

// newSandbox starts the sandbox out of the image, and returns its network and the settings
// of its env file, as docker reads them.
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
	return network, settings.With(testenv.Settings{"service.state-dir": ""}) // the image has its own
}

// TestConnector: one run, then the daemon as process 1, looked after by the
// healthcheck and stopped by SIGTERM, on one volume.
func TestConnector(t *testing.T) {
	network, settings := newSandbox(t)
	env, volume := settings.Environ(), newVolume(t)

	code, stdout, stderr := container{network: network, volume: volume, env: env, args: []string{"sync", "--output", "json"}}.run()
	var account struct{ Users, Groups, Uploaded int }
	if err := json.Unmarshal([]byte(stdout), &account); err != nil || code != 0 || account.Users < 200 || account.Groups < 20 || account.Uploaded != account.Users+account.Groups {
		t.Fatalf("exit code %d, %+v, %v\n%s", code, account, err, stderr)
	}

	// Nothing but the binary knows where Berlin is.
	daemon := container{network: network, volume: volume, env: settings.With(testenv.Settings{"service.cron-expression": "CRON_TZ=Europe/Berlin 0 4 * * *"}).Environ()}.start()
	daemon.await(&daemon.stderr, `"message":"run finished"`)
	daemon.await(&daemon.stderr, `"to":"SCHEDULED"`)
	log, _ := daemon.stderr.read()
	if !strings.Contains(log, `CRON_TZ=Europe/Berlin`) || strings.Contains(log, `"level":"error"`) {
		t.Errorf("log %s", log)
	}
	healthcheck := container{network: network, volume: volume, env: env, args: []string{"healthcheck"}}
	if code, stdout, stderr := healthcheck.run(); code != 0 || stdout != "healthy\n" {
		t.Errorf("healthcheck %d: %s%s", code, stdout, stderr)
	}
	code, stdout, _ = container{network: network, volume: volume, env: env, args: []string{"status", "--output", "json"}}.run()
	if code != 0 || !strings.Contains(stdout, `"from": "daemon"`) {
		t.Errorf("status %d: %s", code, stdout)
	}

	// Two containers on one volume.
	code, _, stderr = container{network: network, volume: volume, env: env}.run()
	expectOneLine(t, code, stderr, 4, "/var/lib/adconnector", "service.state-dir")

	if err := daemon.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := daemon.wait(); code != 0 {
		log, _ := daemon.stderr.read()
		t.Errorf("SIGTERM: exit code %d: %s", code, log)
	}
	if code, stdout, _ := healthcheck.run(); code != 1 || !strings.HasPrefix(stdout, "not healthy: ") || !strings.Contains(stdout, "service.admin.address") {
		t.Errorf("healthcheck of none %d: %s", code, stdout)
	}
}

// TestBadPlaces: what is wrong with the volume or a secret is told in one line.
func TestBadPlaces(t *testing.T) {
	network := newNetwork(t)
	env := []string{
		"connector.api.url=http://127.0.0.1:1", "service.cron-expression=*/10 * * * *",
		"qualys.customerUuid=00000000-0000-0000-0000-000000000001", "qualys.connectionUuid=00000000-0000-0000-0000-000000000002", "qualys.profileUuid=00000000-0000-0000-0000-000000000003",
		"qualys.user.username=u",
	}
	password := "qualys.user.password=invented"
	for name, c := range map[string]struct {
		volume func(t *testing.T, c *container)
		env    string
		words  []string
	}{
		"a volume of root": {func(t *testing.T, c *container) { own(t, c.volume, 0, 0o755) }, password,
			[]string{"/var/lib/adconnector/adconnector.db", syscall.EACCES.Error(), "65532", "service.state-dir"}},
		"a user of no name on another's volume": {func(_ *testing.T, c *container) { c.user = 12345 }, password,
			[]string{syscall.EACCES.Error(), "12345", "service.state-dir"}},
		"a volume that is mounted read-only": {func(_ *testing.T, c *container) { c.lockedUp = true }, password,
			[]string{syscall.EROFS.Error(), "service.state-dir"}},
		"no volume": {func(_ *testing.T, c *container) { c.volume = "" }, password,
			[]string{syscall.EROFS.Error(), "service.state-dir"}},
		"a secret's file that is not there": {func(*testing.T, *container) {}, "qualys.user.password.file=/run/secrets/password",
			[]string{"qualys.user.password.file", syscall.ENOENT.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			place := container{network: network, volume: newVolume(t), env: append(env[:len(env):len(env)], c.env)}
			c.volume(t, &place)
			code, _, stderr := place.run()
			expectOneLine(t, code, stderr, 2, c.words...)
			if strings.Contains(stderr, "invented") {
				t.Errorf("the secret is in the log: %s", stderr)
			}
		})
	}

	t.Run("a user of no name on its own volume", func(t *testing.T) {
		volume := newVolume(t)
		own(t, volume, 12345, 0o700)
		daemon := container{network: network, volume: volume, env: append(env[:len(env):len(env)], password), user: 12345}.start()
		daemon.await(&daemon.stderr, `"message":"started"`)
	})
}

// expectOneLine fails the test unless the log has one error, whose line has a remedy and all of
// these settings, paths and causes.
func expectOneLine(t *testing.T, code int, stderr string, wantCode int, words ...string) {
	t.Helper()
	var errors []string
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, `"level":"error"`) {
			errors = append(errors, line)
		}
	}
	if code != wantCode || len(errors) != 1 {
		t.Fatalf("exit code %d, want %d, and one line of error: %s", code, wantCode, stderr)
	}
	for _, w := range append(words, `"remedy":"`) {
		if !strings.Contains(errors[0], w) {
			t.Errorf("%s does not say %q", errors[0], w)
		}
	}
}
