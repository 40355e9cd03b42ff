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

// proxyServer is a running proxy.
type proxyServer struct {
	name          string
	port, tlsPort int // tlsPort 0: none
	cmd           *exec.Cmd
	output        bytes.Buffer
	ended         chan struct{} // closed after the proxy has ended
	certificate   []byte        // PEM, self-signed
}

// proxyAccount is the account of the proxies that require one.
var proxyAccount = struct{ user, password string }{"me", "Px-" + rand.Text()}

// requirePrograms installs missing programs. The short form skips the test instead.
func requirePrograms(t *testing.T, programs ...string) {
	t.Helper()
	if missing := debian.Missing(programs...); len(missing) > 0 && testing.Short() {
		t.Skip("not installed: " + strings.Join(missing, ", "))
	}
	must(t, debian.Install(programs, programs...)) // the packages have the names of the programs
}

// startProxy runs a proxy until the test ends. Call awaitListening before the first use.
func startProxy(t *testing.T, p *proxyServer, dir, program string, args ...string) *proxyServer {
	t.Helper()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	must(t, p.cmd.Start())
	p.ended = make(chan struct{})
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// awaitListening waits until the proxy accepts connections. The port is reserved: it refuses
// connections until the proxy listens.
func (p *proxyServer) awaitListening(t *testing.T) {
	t.Helper()
	for idle := time.After(testlog.IdleLimit); ; {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-idle:
			t.Fatalf("%s does not listen: %v", p.name, err)
		case <-p.ended:
			t.Fatalf("%s ended:\n%s", p.name, p.output.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// startTinyproxy starts tinyproxy with additional lines of configuration.
func startTinyproxy(t *testing.T, settings string) *proxyServer {
	t.Helper()
	p := &proxyServer{name: "tinyproxy", port: ports.Reserved(t)}
	dir := t.TempDir()
	file := filepath.Join(dir, "tinyproxy.conf")
	text := fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 60\nLogLevel Critical\nAllow 127.0.0.1\n%s\n", p.port, settings)
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return startProxy(t, p, dir, "tinyproxy", "-d", "-c", file)
}

// startSquid starts squid, also on a TLS port, with additional lines of configuration. squid
// drops root privileges, so all files that it reads must be world-readable.
func startSquid(t *testing.T, settings string) *proxyServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "squid")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	p := &proxyServer{name: "squid", port: ports.Reserved(t), tlsPort: ports.Reserved(t)}
	p.certificate = writeKeyPair(t, dir)
	helper := filepath.Join(dir, "authenticate")
	script := fmt.Sprintf("#!/bin/sh\nwhile read -r user password; do\n[ \"$user $password\" = '%s %s' ] && echo OK || echo ERR\ndone\n", proxyAccount.user, proxyAccount.password)
	must(t, os.WriteFile(helper, []byte(script), 0o755))
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
`, p.port, p.tlsPort, dir, dir, settings, dir, dir, dir)
	must(t, os.WriteFile(file, []byte(text), 0o644))
	return startProxy(t, p, dir, "squid", "-N", "-f", file)
}

// writeKeyPair writes a self-signed certificate for 127.0.0.1 and its key. It returns the
// certificate.
func writeKeyPair(t *testing.T, dir string) []byte {
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
// correct, wrong and no credentials, with a forbidden port, with an unreachable gateway or
// proxy, over TLS to the proxy, and with a proxy that is killed during a run. It passes if
// each run exits with the code of the table and names the cause, successful runs deliver
// everything, and no output contains the password.
func TestProxies(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "squid", "tinyproxy")
	began := time.Now()
	testlog.AddCredentials(proxyAccount.user, proxyAccount.password)
	const squidWithLogin = "auth_param basic program HELPER\nacl authenticated proxy_auth REQUIRED\nhttp_access deny !authenticated"
	const squidWithoutConnect = "acl other port 1\nhttp_access deny CONNECT !other"
	tinyproxyWithLogin := fmt.Sprintf("BasicAuth %s %s", proxyAccount.user, proxyAccount.password)
	type program struct{ withLogin, open, withoutConnect *proxyServer }
	squid := program{startSquid(t, squidWithLogin), startSquid(t, ""), startSquid(t, squidWithoutConnect)}
	tinyproxy := program{startTinyproxy(t, tinyproxyWithLogin), startTinyproxy(t, ""), startTinyproxy(t, "ConnectPort 1")}
	killed := startSquid(t, "")
	for _, p := range []*proxyServer{squid.withLogin, squid.open, squid.withoutConnect, tinyproxy.withLogin, tinyproxy.open, tinyproxy.withoutConnect, killed} {
		p.awaitListening(t)
	}
	plain, secure := newEnvironment(t, environmentOptions{users: 50, groups: 5}), newEnvironment(t, environmentOptions{users: 50, groups: 5, tls: true})
	correct, wrong, none := proxyAccount.password, "wrong", ""
	type proxyCase struct {
		name        string
		environment *environment
		port        int
		scheme      string
		password    string
		code        int
		names       []string // in the error or its remedy
		settings    testenv.Settings
	}
	refusing := ports.Refusing(t)
	gatewayDown := testenv.Settings{"connector.api.url": fmt.Sprintf("https://127.0.0.1:%d", ports.Refusing(t))}
	var cases []proxyCase
	for _, p := range []program{squid, tinyproxy} {
		add := func(name string, e *environment, s *proxyServer, password string, code int, names ...string) {
			cases = append(cases, proxyCase{name: s.name + ": " + name, environment: e, port: s.port, password: password, code: code, names: names})
		}
		add("http, correct credentials", plain, p.withLogin, correct, 0)
		add("https, correct credentials", secure, p.withLogin, correct, 0)
		add("http, open", plain, p.open, none, 0)
		add("https, open", secure, p.open, none, 0)
		add("http, no credentials", plain, p.withLogin, none, 3, "407", "proxy.username")
		add("https, no credentials", secure, p.withLogin, none, 3, "407", "proxy.username")
		add("https, wrong credentials", secure, p.withLogin, wrong, 3, map[string]string{"squid": "407", "tinyproxy": "401"}[p.withLogin.name], "proxy.username")
		add("CONNECT refused", secure, p.withoutConnect, none, 3, "403", "connector.api.url")
		add("gateway down", secure, p.open, none, 1, fmt.Sprintf("127.0.0.1:%d", p.open.port), "50")
		cases[len(cases)-1].settings = gatewayDown
	}
	cases = append(cases,
		proxyCase{name: "proxy down", environment: secure, port: refusing, code: 1, names: []string{"proxy.host", "proxy.port"}},
		proxyCase{name: "squid over TLS, correct credentials", environment: secure, port: squid.withLogin.tlsPort, scheme: "https", password: correct},
		proxyCase{name: "squid over TLS, no credentials", environment: secure, port: squid.withLogin.tlsPort, scheme: "https", code: 3, names: []string{"407"}},
		proxyCase{name: "squid over TLS, CONNECT refused", environment: secure, port: squid.withoutConnect.tlsPort, scheme: "https", code: 3, names: []string{"403"}},
		proxyCase{name: "squid over TLS, port without TLS", environment: secure, port: squid.open.port, scheme: "https", code: 3, names: []string{"service.http.proxy.scheme"}},
	)
	caFile := joinCertificates(t, secure.settings["gateway.ca-file"], squid.withLogin.certificate, squid.withoutConnect.certificate)
	count := 1
	for _, c := range cases {
		if c.code == 1 && testing.Short() {
			continue
		}
		count++
		t.Run(c.name, func(t *testing.T) {
			if c.code == 1 {
				t.Parallel() // these wait between tries
			}
			proxy := testenv.Settings{
				"proxy.enabled": "true", "proxy.host": "127.0.0.1", "proxy.port": strconv.Itoa(c.port), "service.http.proxy.scheme": c.scheme,
				"service.state-dir": c.environment.newStateDir(),
			}
			if c.password != "" {
				proxy["proxy.username"], proxy["proxy.password"] = proxyAccount.user, c.password
			}
			if c.environment == secure {
				proxy["gateway.ca-file"] = caFile
			}
			o := run(t, c.environment.settings.With(proxy).With(c.settings), "sync")
			o.MustExit(t, c.code)
			if c.code != 0 {
				mustReport(t, o, c.names...)
			} else {
				c.environment.mustMatchDirectory(t, c.name)
			}
		})
	}
	t.Run("squid: killed during a run", func(t *testing.T) {
		e := newEnvironment(t, environmentOptions{users: 200, groups: 5, tls: true})
		e.settings["upload.batch-size"] = "10"
		e.Gateway.SetFront(func(x *testenv.Exchange) bool {
			if x.HasAssets() && x.Number == 5 {
				_ = killed.cmd.Process.Kill()
			}
			return false
		})
		proxied := e.settings.With(testenv.Settings{"proxy.enabled": "true", "proxy.host": "127.0.0.1", "proxy.port": strconv.Itoa(killed.port)})
		p := start(t, command{settings: proxied, args: []string{"sync"}})
		p.AwaitMessage(t, gateway.MsgRetrying)
		p.Kill() // its retries take minutes
		e.Gateway.SetFront(nil)
		run(t, e.settings, "sync").MustExit(t, 0) // without a proxy, with the same state file
		e.mustMatchDirectory(t, "after the kill of the proxy")
	})
	t.Cleanup(func() {
		logResult(t, "%d cases with squid and tinyproxy; %s", count, time.Since(began).Round(time.Millisecond))
	})
}

// joinCertificates writes the certificates of a file and others to a new file, and returns
// its path.
func joinCertificates(t *testing.T, file string, others ...[]byte) string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	for _, certificate := range others {
		text = append(text, certificate...)
	}
	joined := filepath.Join(t.TempDir(), "joined.pem")
	must(t, os.WriteFile(joined, text, 0o600))
	return joined
}
