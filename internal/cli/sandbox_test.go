package cli

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestSandbox: the connector runs with the env file of a sandbox.
func TestSandbox(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sandbox.env")
	c := start(t, nil, "sandbox", "--users", "30", "--groups", "5", "--gateway", "127.0.0.1:0", "--ldap", "127.0.0.1:0", "--ldaps", "127.0.0.1:0", "--env-out", file)
	text := c.AwaitStdout(t, "directory  ldaps://")
	if n := strings.Count(text, "directory  "); n != 2 {
		t.Errorf("%d directories: %s", n, text)
	}
	o := invoke(t, nil, "sync", "--env-file", file, "--output", "json") // the gateway has the connection
	if o.Code != exitDone || decode[document](t, o).Uploaded < 35 {
		t.Errorf("%+v", o)
	}
	url := regexp.MustCompile(`(?m)^inventory  (\S+)$`).FindStringSubmatch(text)
	if url == nil {
		t.Fatalf("no inventory: %s", text)
	}
	var users struct{ Total int }
	response, err := http.Get(url[1])
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&users); err != nil || users.Total < 30 {
		t.Errorf("%d users, error %v", users.Total, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	c.Signal(t, syscall.SIGTERM)
	ended(t, c, exitDone)
}

// TestBadInput: one clear line each.
func TestBadInput(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	file := blankFile(t)
	const occupied = ": the port is taken, perhaps by another sandbox: stop that one or choose another port"
	address := taken.Addr().String()
	sandbox := func(args ...string) []string {
		return append([]string{"sandbox", "--ldap", "127.0.0.1:0", "--ldaps", "127.0.0.1:0", "--gateway", "127.0.0.1:0"}, args...)
	}
	for name, test := range map[string]struct {
		args  []string
		words string
	}{
		"sandbox, gateway's port":      {sandbox("--gateway", address), "--gateway " + address + occupied},
		"sandbox, LDAP's port":         {sandbox("--ldap", address), "--ldap " + address + occupied},
		"sandbox, LDAPS's port":        {sandbox("--ldaps", address), "--ldaps " + address + occupied},
		"sandbox, no address of ours":  {sandbox("--ldap", "[::2]:0"), "loopback only"},
		"sandbox, env file below none": {sandbox("--env-out", file+"/below"), "--env-out: open " + file + "/below: not a directory: choose a file that can be written"},
		"sandbox, env file in nowhere": {sandbox("--env-out", file+"-nowhere/below"), "no such file or directory: choose a file that can be written"},
		"demo, gateway's port":         {[]string{"demo", "--gateway", address}, "--gateway " + address + occupied},
		"demo, LDAPS's port":           {[]string{"demo", "--ldaps", address}, "--ldaps " + address + occupied},
		"demo, the pages' port":        {[]string{"demo", "--admin", address}, "--admin " + address + occupied},
		"demo, too few users":          {[]string{"demo", "--users", "49"}, "--users 50"},
		"demo, no groups":              {[]string{"demo", "--groups", "0"}, "--groups 1"},
		"demo, no directory":           {[]string{"demo", "--ldaps", ""}, "give --ldap or --ldaps"},
		"demo, an env file":            {[]string{"demo", "--env-file", file}, "leave --env-file out"},
		"demo, an argument":            {[]string{"demo", "now"}, "now"},
	} {
		t.Run(name, func(t *testing.T) {
			o := invoke(t, nil, test.args...)
			if errs := o.Errors(); o.Code != exitUsage || len(o.With(MsgBadUsage)) != 1 || len(o.Log) != 1 || len(errs) != 1 || !strings.Contains(errs[0], test.words) || o.Stdout != "" {
				t.Errorf("exit code %d, stdout %q, log %v; want one line with %q", o.Code, o.Stdout, o.Log, test.words)
			}
		})
	}
}
