package faults

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/test/debian"
	"adconnector/test/ports"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// forwarder is a real proxy that runs.
type forwarder struct {
	name         string
	port, secure int // the second one speaks TLS; 0: there is none
	cmd          *exec.Cmd
	output       bytes.Buffer
	ended        chan struct{} // closed once the proxy has ended
	issuer       []byte        // of the certificate, PEM
}

// proxyAccount may use the proxies that ask.
var proxyAccount = struct{ user, password string }{"me", "Px-" + rand.Text()}

// requirePrograms installs missing programs. The short form of a test installs nothing and
// is skipped.
func requirePrograms(t *testing.T, programs ...string) {
	t.Helper()
	if missing := debian.Missing(programs...); len(missing) > 0 && testing.Short() {
		t.Skip("not installed: " + strings.Join(missing, ", "))
	}
	must(t, debian.Install(programs, programs...)) // the packages have the programs' names
}

// startProxy runs a proxy until the test ends. awaitListening waits for it.
func startProxy(t *testing.T, f *forwarder, dir, program string, args ...string) *forwarder {
	t.Helper()
	f.cmd = exec.Command(program, args...)
	f.cmd.Dir = dir
	f.cmd.Stdout, f.cmd.Stderr = &f.output, &f.output
	must(t, f.cmd.Start())
	f.ended = make(chan struct{})
	go func() {
		_ = f.cmd.Wait()
		close(f.ended)
	}()
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill()
		<-f.ended
	})
	return f
}

// awaitListening returns once the proxy accepts connections. The port is reserved: before,
// it refuses them.
func (f *forwarder) awaitListening(t *testing.T) {
	t.Helper()
	for idle := time.After(testlog.IdleLimit); ; {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.port))
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-idle:
			t.Fatalf("%s does not listen: %v", f.name, err)
		case <-f.ended:
			t.Fatalf("%s has ended:\n%s", f.name, f.output.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func tinyproxy(t *testing.T, settings string) *forwarder {
	t.Helper()
	f := &forwarder{name: "tinyproxy", port: ports.Reserved(t)}
	dir := t.TempDir()
	file := filepath.Join(dir, "tinyproxy.conf")
	text := fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 60\nLogLevel Critical\nAllow 127.0.0.1\n%s\n", f.port, settings)
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return startProxy(t, f, dir, "tinyproxy", "-d", "-c", file)
}

// squid also offers a port with TLS. It gives up being root, so that what it reads
// must be readable for all.
func squid(t *testing.T, settings string) *forwarder {
	t.Helper()
	dir, err := os.MkdirTemp("", "squid")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	f := &forwarder{name: "squid", port: ports.Reserved(t), secure: ports.Reserved(t)}
	f.issuer = pairInto(t, dir)
	helper := filepath.Join(dir, "account")
	check := fmt.Sprintf("#!/bin/sh\nwhile read -r user password; do\n[ \"$user $password\" = '%s %s' ] && echo OK || echo ERR\ndone\n", proxyAccount.user, proxyAccount.password)
	must(t, os.WriteFile(helper, []byte(check), 0o755))
	file := filepath.Join(dir, "squid.conf")
	settings = strings.ReplaceAll(settings, "HELPER", helper)
	text := fmt.Sprintf(`http_port 127.0.0.1:%d
https_port 127.0.0.1:%d tls-cert=%s/cert.pem tls-key=%s/key.pem
%s
http_access allow localhost
http_access deny all
cache deny all
access_log none
cache_log %s/cache.log
cache_store_log none
pid_filename %s/squid.pid
coredump_dir %s
shutdown_lifetime 1 seconds
pinger_enable off
visible_hostname squid.test
max_filedescriptors 1024
`, f.port, f.secure, dir, dir, settings, dir, dir, dir)
	must(t, os.WriteFile(file, []byte(text), 0o644))
	return startProxy(t, f, dir, "squid", "-N", "-f", file)
}

// pairInto writes a certificate for 127.0.0.1 and its key, and returns the issuer's.
func pairInto(t *testing.T, dir string) []byte {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	pair := server.TLS.Certificates[0]
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), certificate, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o644))
	return certificate
}

// TestProxies runs the connector through squid and tinyproxy: over HTTP and HTTPS, with
// right, wrong and no credentials, to a port that they do not allow, to a gateway that
// is down, with the proxy itself down or reached over TLS, and with a proxy that dies
// in mid-run. It passes when each ends with the code of the table and an error that
// tells it from the others, when what gets through arrives whole, and when the
// password stands nowhere.
func TestProxies(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "squid", "tinyproxy")
	began := time.Now()
	testlog.AddCredentials(proxyAccount.user, proxyAccount.password)
	const askSquid = "auth_param basic program HELPER\nacl known proxy_auth REQUIRED\nhttp_access deny !known"
	const closeSquid = "acl elsewhere port 1\nhttp_access deny CONNECT !elsewhere"
	askTiny := fmt.Sprintf("BasicAuth %s %s", proxyAccount.user, proxyAccount.password)
	type kind struct{ asking, open, closed *forwarder }
	kinds := []kind{
		{squid(t, askSquid), squid(t, ""), squid(t, closeSquid)},
		{tinyproxy(t, askTiny), tinyproxy(t, ""), tinyproxy(t, "ConnectPort 1")},
	}
	dying := squid(t, "")
	for _, f := range []*forwarder{kinds[0].asking, kinds[0].open, kinds[0].closed, kinds[1].asking, kinds[1].open, kinds[1].closed, dying} {
		f.awaitListening(t)
	}
	plain, secure := newEnvironment(t, plan{users: 50, groups: 5}), newEnvironment(t, plan{users: 50, groups: 5, tls: true})
	right, wrong, none := proxyAccount.password, "wrong", ""
	type proxied struct {
		name        string
		environment *environment
		port        int
		scheme      string
		password    string
		code        int
		names       []string
		more        testenv.Settings
	}
	dead := ports.Refusing(t)
	down := testenv.Settings{"connector.api.url": fmt.Sprintf("https://127.0.0.1:%d", ports.Refusing(t))}
	var all []proxied
	for _, k := range kinds {
		add := func(name string, s *environment, f *forwarder, password string, code int, names ...string) {
			all = append(all, proxied{name: f.name + ": " + name, environment: s, port: f.port, password: password, code: code, names: names})
		}
		add("http, right credentials", plain, k.asking, right, 0)
		add("https, right credentials", secure, k.asking, right, 0)
		add("http, open", plain, k.open, none, 0)
		add("https, open", secure, k.open, none, 0)
		add("http, no credentials", plain, k.asking, none, 3, "407", "proxy.username")
		add("https, no credentials", secure, k.asking, none, 3, "407", "proxy.username")
		add("https, wrong credentials", secure, k.asking, wrong, 3, map[string]string{"squid": "407", "tinyproxy": "401"}[k.asking.name], "proxy.username")
		add("CONNECT refused", secure, k.closed, none, 3, "403", "connector.api.url")
		add("gateway down", secure, k.open, none, 1, fmt.Sprintf("127.0.0.1:%d", k.open.port), "50")
		all[len(all)-1].more = down
	}
	all = append(all,
		proxied{name: "proxy down", environment: secure, port: dead, code: 1, names: []string{"proxy.host", "proxy.port"}},
		proxied{name: "squid over TLS, right credentials", environment: secure, port: kinds[0].asking.secure, scheme: "https", password: right},
		proxied{name: "squid over TLS, no credentials", environment: secure, port: kinds[0].asking.secure, scheme: "https", code: 3, names: []string{"407"}},
		proxied{name: "squid over TLS, CONNECT refused", environment: secure, port: kinds[0].closed.secure, scheme: "https", code: 3, names: []string{"403"}},
		proxied{name: "TLS to a port without", environment: secure, port: kinds[0].open.port, scheme: "https", code: 3, names: []string{"service.http.proxy.scheme"}},
	)
	trust := trusting(t, secure.settings["gateway.ca-file"], kinds[0].asking.issuer, kinds[0].closed.issuer)
	ways := 1
	for _, p := range all {
		if p.code == 1 && testing.Short() {
			continue
		}
		ways++
		t.Run(p.name, func(t *testing.T) {
			if p.code == 1 {
				t.Parallel() // they wait between tries
			}
			more := testenv.Settings{
				"proxy.enabled": "true", "proxy.host": "127.0.0.1", "proxy.port": strconv.Itoa(p.port), "service.http.proxy.scheme": p.scheme,
				"service.state-dir": p.environment.newStateDir(),
			}
			if p.password != "" {
				more["proxy.username"], more["proxy.password"] = proxyAccount.user, p.password
			}
			if p.environment == secure {
				more["gateway.ca-file"] = trust
			}
			o := run(t, p.environment.settings.With(more).With(p.more), "sync")
			o.MustExit(t, p.code)
			if p.code != 0 {
				mustReport(t, o, p.names...)
			} else {
				p.environment.mustBeEqual(t, p.name)
			}
		})
	}
	t.Run("dies in mid-run", func(t *testing.T) {
		s := newEnvironment(t, plan{users: 200, groups: 5, tls: true})
		s.settings["upload.batch-size"] = "10"
		s.Gateway.SetFront(func(x *testenv.Exchange) bool {
			if x.HasAssets() && x.Number == 5 {
				_ = dying.cmd.Process.Kill()
			}
			return false
		})
		through := s.settings.With(testenv.Settings{"proxy.enabled": "true", "proxy.host": "127.0.0.1", "proxy.port": strconv.Itoa(dying.port)})
		p := start(t, command{settings: through, args: []string{"sync"}})
		p.AwaitMessage(t, gateway.MsgRetrying)
		p.Kill() // its tries last for minutes
		s.Gateway.SetFront(nil)
		run(t, s.settings, "sync").MustExit(t, 0) // without it, as the state file remembers
		s.mustBeEqual(t, "after the proxy has died")
	})
	t.Cleanup(func() {
		figures(t, "%d ways through squid and tinyproxy; %s", ways, time.Since(began).Round(time.Millisecond))
	})
}

// trusting joins certificates in one file.
func trusting(t *testing.T, file string, more ...[]byte) string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	for _, issuer := range more {
		text = append(text, issuer...)
	}
	joined := filepath.Join(t.TempDir(), "trusted.pem")
	must(t, os.WriteFile(joined, text, 0o600))
	return joined
}
