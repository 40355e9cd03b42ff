//go:build ad

package adtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
)

const (
	customerUUID   = "0b5ff0e2-5c45-4d6e-9a8e-0f1f2c6f7a01"
	connectionUUID = "0b5ff0e2-5c45-4d6e-9a8e-0f1f2c6f7a02"
	profileUUID    = "0b5ff0e2-5c45-4d6e-9a8e-0f1f2c6f7a03"

	gatewayUser     = "qualys_ad1"
	gatewayPassword = "Gw-$ecret #1 \"quoted\""
)

// syncWithin bounds one run of the connector over the whole directory.
const syncWithin = 2 * time.Minute

// connector is the path of the program as it is shipped, built once.
var connector = sync.OnceValues(func() (string, error) {
	dir, err := workDir()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "adconnector")
	if _, err := command("", "go", "build", "-buildvcs=false", "-o", out, "adconnector/cmd/adconnector"); err != nil {
		return "", fmt.Errorf("build the connector: %w", err)
	}
	return out, nil
})

// What no output of the connector may contain.
var (
	secretsMu sync.Mutex
	secrets   = []string{gatewayPassword}
)

func keepSecret(s string) {
	secretsMu.Lock()
	defer secretsMu.Unlock()
	secrets = append(secrets, s)
}

// A gatewayServer is a sandbox gateway that listens on loopback.
type gatewayServer struct {
	*sandbox.Gateway
	url string
}

// newGateway starts a gateway. When the test ends it must have seen nothing that
// breaks its contract.
func newGateway(t *testing.T, connection *sandbox.Connection, profile *gateway.Profile) *gatewayServer {
	t.Helper()
	g := sandbox.NewGateway(sandbox.GatewayOptions{
		CustomerUUID: customerUUID, ConnectionUUID: connectionUUID, ProfileUUID: profileUUID,
		Username: gatewayUser, Password: gatewayPassword,
		Connection: connection, Profile: profile,
	})
	server := httptest.NewServer(g)
	t.Cleanup(func() {
		server.Close()
		for _, violation := range g.Violations() {
			t.Errorf("the gateway's contract was broken: %s", violation)
		}
	})
	return &gatewayServer{Gateway: g, url: server.URL}
}

// uploads counts the requests that carried assets, and the assets in them.
func (g *gatewayServer) uploads() (requests, assets int) {
	for _, r := range g.Requests() {
		if strings.HasSuffix(r.Path, "/asset/data/sync") {
			requests++
			assets += r.Assets
		}
	}
	return requests, assets
}

// states are the names of the connector's states in the order they were sent.
func (g *gatewayServer) states() []string {
	var names []string
	for _, s := range g.States() {
		names = append(names, s.State)
	}
	return names
}

// console is the connection and profile as an operator would enter them there.
func (d *controller) console(kind, base, scope string) (*sandbox.Connection, *gateway.Profile) {
	return &sandbox.Connection{
			ConnectionUUID: connectionUUID, Name: "Domain controller",
			Authentication: sandbox.Authentication{Type: kind, Host: "127.0.0.1", BindDN: d.service.dn, Password: d.service.password},
		}, &gateway.Profile{
			ProfileUUID: profileUUID, Name: "Everything", BaseContext: base, SearchScope: scope, Assets: "IDENTITIES_ONLY",
		}
}

// A setting is one line of an env file.
type settings map[string]string

// env is a configuration that takes the connection and profile from the gateway,
// with a state directory of its own.
func (g *gatewayServer) env(t *testing.T) settings {
	t.Helper()
	return settings{
		"connector.api.url":       g.url,
		"qualys.customerUuid":     customerUUID,
		"qualys.connectionUuid":   connectionUUID,
		"qualys.profileUuid":      profileUUID,
		"authentication.type":     "BASIC",
		"qualys.user.username":    gatewayUser,
		"qualys.user.password":    gatewayPassword,
		"service.cron-expression": "0 0 3 * * *",
		"service.state-dir":       t.TempDir(),
		"service.admin.address":   "127.0.0.1:" + strconv.Itoa(closedPort(t)),
	}
}

// with returns a copy with some settings replaced.
func (s settings) with(more settings) settings {
	all := maps.Clone(s)
	maps.Copy(all, more)
	return all
}

// ldap adds the directory's connection and the profile to a configuration.
func (d *controller) ldap(s settings, protocol string) settings {
	return s.with(settings{
		"ldap.protocol":       protocol,
		"ldap.host":           "127.0.0.1",
		"ldap.bindDn":         d.service.dn,
		"ldap.password":       d.service.password,
		"profile.baseContext": baseDN,
		"profile.searchScope": "SUBTREE",
		"profile.assets":      "IDENTITIES_ONLY",
	})
}

// closedPort is a port of 127.0.0.1 on which nothing listens.
func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A process is a connector that runs.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	finished       chan struct{} // closed once the process has ended
}

// An outcome is what a connector left behind.
type outcome struct {
	code   int
	stdout string
	stderr string
	lines  []map[string]any // of the log
}

// start runs the connector with nothing but an env file for its configuration.
func start(t *testing.T, s settings, args ...string) *process {
	t.Helper()
	path, err := connector()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&text, "%s=%s\n", key, s[key])
	}
	file := filepath.Join(t.TempDir(), "connector.env")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{finished: make(chan struct{})}
	p.cmd = exec.Command(path, append(args, "--env-file", file)...)
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.finished)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.finished
	})
	return p
}

// wait returns how the connector ended, and fails the test when it has not within
// the time or has shown a secret.
func (p *process) wait(t *testing.T, within time.Duration) outcome {
	t.Helper()
	select {
	case <-p.finished:
	case <-time.After(within):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks
		select {
		case <-p.finished:
		case <-time.After(5 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.finished
		}
		t.Fatalf("the connector did not end within %v:\n%s", within, p.stderr.String())
	}
	o := outcome{code: p.cmd.ProcessState.ExitCode(), stdout: p.stdout.String(), stderr: p.stderr.String()}
	secretsMu.Lock()
	defer secretsMu.Unlock()
	for _, secret := range secrets {
		if strings.Contains(o.stdout+o.stderr, secret) {
			t.Errorf("the output contains a secret") // and is not shown
			o.stderr = strings.ReplaceAll(o.stderr, secret, "[secret]")
		}
	}
	for line := range strings.Lines(o.stderr) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("a line on standard error is not JSON: %s", line)
			continue
		}
		o.lines = append(o.lines, fields)
	}
	return o
}

// run is start and wait, for a command that ends by itself.
func run(t *testing.T, s settings, args ...string) outcome {
	t.Helper()
	return start(t, s, args...).wait(t, syncWithin)
}

// mustExit ends the test unless the connector ended with the code.
func (o outcome) mustExit(t *testing.T, code int) {
	t.Helper()
	if o.code != code {
		t.Fatalf("exit code %d, want %d; standard error:\n%s", o.code, code, o.stderr)
	}
}

// mustExplain fails the test unless one line of the log at level error contains
// all the words, in whatever case.
func (o outcome) mustExplain(t *testing.T, words ...string) {
	t.Helper()
	for _, line := range o.lines {
		if line["level"] != "error" && line["level"] != "fatal" {
			continue
		}
		text := strings.ToLower(fmt.Sprint(line["error"], " ", line["message"]))
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, strings.ToLower(w)) }) {
			return
		}
	}
	t.Errorf("no error names %q; standard error:\n%s", words, o.stderr)
}

// summary returns the line that ends a run.
func (o outcome) summary(t *testing.T) map[string]any {
	t.Helper()
	var found map[string]any
	for _, line := range o.lines {
		if line["message"] == "run finished" {
			if found != nil {
				t.Error("more than one line says that the run finished")
			}
			found = line
		}
	}
	if found == nil {
		t.Fatalf("no line says that the run finished; standard error:\n%s", o.stderr)
	}
	return found
}

// mustCount fails the test unless a field of the summary has the value.
func mustCount(t *testing.T, summary map[string]any, field string, want int) {
	t.Helper()
	if got, ok := summary[field].(float64); !ok || int(got) != want {
		t.Errorf("summary: %s is %v, want %d", field, summary[field], want)
	}
}

var errNotYet = errors.New("not yet")
