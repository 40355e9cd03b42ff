package cli

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestSandbox tests that the connector runs with the env file of a sandbox.
func TestSandbox(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sandbox.env")
	c := start(t, nil, "sandbox", "--users", "30", "--groups", "5", "--gateway", "127.0.0.1:0", "--ldap", "127.0.0.1:0", "--ldaps", "127.0.0.1:0", "--env-out", file)
	text := c.AwaitStdout(t, "directory  ldaps://")
	if n := strings.Count(text, "directory  "); n != 2 {
		t.Errorf("%d directories: %s", n, text)
	}
	o := invoke(t, nil, "sync", "--env-file", file, "--output", "json") // the connection comes from the gateway
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
	requireOnlyHost(t, url[1], "localhost", "evil.example.com")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	requireDirectorySettings(t, file)
	c.Signal(t, syscall.SIGTERM)
	requireExit(t, c, exitDone)
}

// requireDirectorySettings requires that the commented settings of the env file of a sandbox are those
// of its directory, and that a wrong one has the effect of a wrong one of an operator.
func requireDirectorySettings(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	settings := regexp.MustCompile(`(?m)^#((?:ldap|profile)\.)`).ReplaceAllString(string(content), "$1")
	for name, test := range map[string]struct {
		old, new string
		code     int
		found    string
	}{
		"as they are":    {"", "", exitDone, "complete; connection and profile come from the settings (ldap.host)"},
		"wrong password": {"ldap.password=", "ldap.password=x", exitRefused, "fail  bind "},
		"wrong base":     {"profile.baseContext=", "profile.baseContext=OU=Wrong,", exitRefused, "fail  base context "},
	} {
		changed := filepath.Join(t.TempDir(), "changed.env")
		if err := os.WriteFile(changed, []byte(strings.Replace(settings, test.old, test.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if o := invoke(t, nil, "check", "--env-file", changed); o.Code != test.code || !strings.Contains(o.Stdout, test.found) {
			t.Errorf("%s: exit code %d: %s", name, o.Code, o.Stdout)
		}
	}
}

// TestReplaceFile tests that a new file is private, whatever was there, and that links are not
// followed.
func TestReplaceFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	existing, target, link := filepath.Join(dir, "existing"), filepath.Join(dir, "target"), filepath.Join(dir, "link")
	for _, file := range []string{existing, target} {
		if err := os.WriteFile(file, []byte("old"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 256)) // fails when the temporary file is renamed
	for name, want := range map[string]error{existing: nil, filepath.Join(dir, "new"): nil, link: errNotRegular, dir: errNotRegular, os.DevNull: errNotRegular, long: syscall.ENAMETOOLONG} {
		err := replaceFile(name, "new")
		if _, is := errors.AsType[*os.LinkError](err); is || !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if info, err := os.Stat(name); want == nil && (err != nil || info.Mode().Perm() != 0o600) {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if content, err := os.ReadFile(target); err != nil || string(content) != "old" {
		t.Errorf("%q, %v", content, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".adconnector-*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestBadFlags tests that bad flags of sandbox and demo have one error with a remedy.
func TestBadFlags(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	file := emptyFile(t)
	address := listener.Addr().String()
	sandbox := func(args ...string) []string {
		return append([]string{"sandbox", "--ldap", "127.0.0.1:0", "--ldaps", "127.0.0.1:0", "--gateway", "127.0.0.1:0"}, args...)
	}
	for name, test := range map[string]struct {
		args  []string
		names []string // flags, arguments and paths in the error or its remedy
	}{
		"sandbox, gateway port in use":      {sandbox("--gateway", address), []string{"--gateway", address}},
		"sandbox, LDAP port in use":         {sandbox("--ldap", address), []string{"--ldap", address}},
		"sandbox, LDAPS port in use":        {sandbox("--ldaps", address), []string{"--ldaps", address}},
		"sandbox, address not local":        {sandbox("--ldap", "[::2]:0"), []string{"--ldap", "127.0.0.1:0"}},
		"sandbox, env file below a file":    {sandbox("--env-out", file+"/below"), []string{"--env-out", file + "/below", syscall.ENOTDIR.Error()}},
		"sandbox, env file in no directory": {sandbox("--env-out", file+"-nowhere/below"), []string{"--env-out", file + "-nowhere/below", syscall.ENOENT.Error()}},
		"sandbox, no controllers":           {sandbox("--controllers", "0"), []string{"--controllers 0", "1 to 5"}},
		"sandbox, too many controllers":     {sandbox("--controllers", "6"), []string{"--controllers 6", "1 to 5"}},
		"sandbox, IPv6 for two controllers": {sandbox("--controllers", "2", "--ldap", "[::1]:0"), []string{"--ldap [::1]:0", "127.0.0.1:0"}},
		"sandbox, last address":             {sandbox("--controllers", "2", "--ldap", "127.0.0.255:0"), []string{"--ldap 127.0.0.255:0"}},
		"sandbox, addresses differ":         {sandbox("--controllers", "2", "--ldap", "127.0.0.3:0"), []string{"--ldap", "--ldaps"}},
		"demo, too many controllers":        {[]string{"demo", "--controllers", "6"}, []string{"--controllers 6"}},
		"demo, gateway port in use":         {[]string{"demo", "--gateway", address}, []string{"--gateway", address}},
		"demo, LDAPS port in use":           {[]string{"demo", "--ldaps", address}, []string{"--ldaps", address}},
		"demo, admin port in use":           {[]string{"demo", "--admin", address}, []string{"--admin", address}},
		"demo, too few users":               {[]string{"demo", "--users", "49"}, []string{"--users 50"}},
		"demo, no groups":                   {[]string{"demo", "--groups", "0"}, []string{"--groups 1"}},
		"demo, no directory":                {[]string{"demo", "--ldaps", ""}, []string{"--ldap", "--ldaps"}},
		"demo, env file":                    {[]string{"demo", "--env-file", file}, []string{"--env-file"}},
		"demo, argument":                    {[]string{"demo", "now"}, []string{"now"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := invoke(t, nil, test.args...)
			l := singleError(t, o)
			if o.Code != exitUsage || l.Text("message") != MsgBadUsage || l.Text("remedy") == "" || len(o.Log) != 1 || o.Stdout != "" {
				t.Errorf("exit code %d, stdout %q, log %v", o.Code, o.Stdout, o.Log)
			}
			requireMentions(t, l, test.names...)
		})
	}
}
