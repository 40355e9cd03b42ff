//go:build ad

package samba

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/test/debian"
	"adconnector/test/program"
	"adconnector/test/testlog"
)

const (
	// sharedHost is the address of the controller of sharedController.
	sharedHost = "127.0.0.1"

	realm  = "CORP.EXAMPLE.COM"
	baseDN = "DC=corp,DC=example,DC=com"

	// serviceDN is the account of the connector: a domain user without additional rights.
	serviceDN      = "CN=svc-qualys,OU=Service," + baseDN
	serviceAccount = "svc-qualys"
	adminDN        = "CN=Administrator,CN=Users," + baseDN
)

// TestMain only cleans up. The first test that needs the domain controller starts it, so that
// tests of the test code run without one.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := cleanUp(code != 0); err != nil {
		fmt.Fprintln(os.Stderr, "samba:", err)
		code = 1
	}
	os.Exit(code)
}

// workDir contains all files of this test process. Its path is short, because it contains Unix
// sockets.
var workDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "samba") })

var (
	startedMu sync.Mutex
	started   []*controller // stopped by cleanUp
)

// cleanUpLater lets cleanUp stop a controller, whether or not it starts.
func cleanUpLater(d *controller) {
	startedMu.Lock()
	defer startedMu.Unlock()
	started = append(started, d)
}

func cleanUp(failed bool) error {
	startedMu.Lock()
	defer startedMu.Unlock()
	dir, err := workDir()
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range started {
		errs = append(errs, d.stop())
		if failed {
			errs = append(errs, d.saveLog())
		}
	}
	return errors.Join(append(errs, program.Remove(), os.RemoveAll(dir))...)
}

// controller is a Samba domain controller on loopback. Its methods are not safe for concurrent
// use.
type controller struct {
	dir      string
	name     string   // host name without the domain
	host     string   // IP address
	url      string   // for the LDAP tools
	model    string   // Samba's process model
	prefix   []string // command line prefix of the server; nil: none
	ports    []string // TCP ports on which the server listens
	users    int      // in the fixture, without those of the provisioning
	groups   int
	admin    credentials
	service  credentials
	process  *exec.Cmd
	stdin    io.Closer
	finished chan struct{} // closed after the process has ended
	log      *os.File

	changes   int         // tools that ran and may have changed the directory
	peer      *controller // another controller of the domain, which may change the directory too; nil: none
	snapshots map[searchScope]cachedSnapshot
}

// credentials are a DN and its password, which is also in a file for command lines.
type credentials struct {
	dn       string
	password string
	file     string
}

var provisionOnce = sync.OnceValues(provision)

// sharedController returns the running controller. The first call provisions, fills and starts
// it.
func sharedController(t *testing.T) *controller {
	t.Helper()
	d, err := provisionOnce()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func provision() (*controller, error) {
	if err := installSamba(); err != nil {
		return nil, err
	}
	dir, err := workDir()
	if err != nil {
		return nil, err
	}
	d := &controller{
		dir: filepath.Join(dir, "dc"), name: "dc1", host: sharedHost, url: "ldaps://" + sharedHost, model: "single",
		ports: []string{"389", "636", "3268", "3269"},
	}
	if err := d.checkPorts(); err != nil {
		return nil, err
	}
	if d.admin, err = newCredentials(dir, adminDN, "administrator.password"); err != nil {
		return nil, err
	}
	if d.service, err = newCredentials(dir, serviceDN, "service.password"); err != nil {
		return nil, err
	}
	if d.log, err = os.Create(filepath.Join(dir, "samba.log")); err != nil {
		return nil, err
	}

	began := time.Now()
	if _, err := runTool("", "samba-tool", "domain", "provision",
		"--realm="+realm, "--domain=CORP", "--server-role=dc", "--dns-backend=NONE",
		"--adminpass="+d.admin.password, "--targetdir="+d.dir,
		"--host-name="+d.name, "--host-ip="+d.host,
		"--option=interfaces=lo", "--option=bind interfaces only=yes"); err != nil {
		return nil, fmt.Errorf("provision the domain: %w", err)
	}
	if err := d.configure(allowPlainBinds); err != nil {
		return nil, err
	}
	provisionTook := time.Since(began)

	began = time.Now()
	if err := d.loadFixture(); err != nil {
		return nil, fmt.Errorf("load fixture: %w", err)
	}
	fixtureTook := time.Since(began)

	began = time.Now()
	cleanUpLater(d)
	if err := d.start(); err != nil {
		return nil, err
	}
	if err := d.logOn(); err != nil {
		return nil, err
	}
	fmt.Printf("samba: provisioned in %.1f s, loaded %d users and %d groups in %.1f s, started in %.1f s\n",
		provisionTook.Seconds(), d.users, d.groups, fixtureTook.Seconds(), time.Since(began).Seconds())
	return d, nil
}

func newCredentials(dir, dn, name string) (credentials, error) {
	// The prefix satisfies the complexity rules of the domain.
	c := credentials{dn: dn, password: "Pw-1" + rand.Text(), file: filepath.Join(dir, name)}
	testlog.AddSecret(c.password)
	// No trailing newline: ldapsearch -y would use it as part of the password.
	return c, os.WriteFile(c.file, []byte(c.password), 0o600)
}

// The required Debian packages, and programs and files that show that they are installed.
var (
	packages      = []string{"samba", "samba-ad-dc", "samba-ad-provision", "ldb-tools", "python3-samba", "krb5-config", "winbind", "ldap-utils", "mount", "util-linux"}
	requiredFiles = []string{
		"samba", "samba-tool", "samba_spnupdate", "ldbadd", "ldbmodify", "ldbsearch", "ldapsearch", "ldapmodify", "mount", "unshare",
		"/usr/share/samba/setup/provision.ldif",
	}
)

// installSamba installs Samba if it is missing. An error fails the tests, because a skipped
// test proves nothing.
func installSamba() error {
	if os.Geteuid() != 0 {
		return errors.New("the domain controller needs ports 389 and 636: run the tests as root")
	}
	return debian.Install(requiredFiles, packages...)
}

// checkPorts returns an error if a port of the controller is in use.
func (d *controller) checkPorts() error {
	for _, port := range d.ports {
		l, err := net.Listen("tcp", net.JoinHostPort(d.host, port))
		if err != nil {
			return fmt.Errorf("listen on port %s of %s: %w: stop the process that uses it", port, d.host, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Values of the setting for simple binds without TLS.
const (
	allowPlainBinds  = "no"
	refusePlainBinds = "yes"
)

func (d *controller) conf() string        { return filepath.Join(d.dir, "etc", "smb.conf") }
func (d *controller) certificate() string { return filepath.Join(d.dir, "private", "tls", "cert.pem") }
func (d *controller) database() []string {
	return []string{"-H", filepath.Join(d.dir, "private", "sam.ldb"), "--configfile=" + d.conf()}
}

// configure rewrites smb.conf for a server that only serves LDAP and only uses files in its own
// directory. It takes effect at the next start.
func (d *controller) configure(strongAuth string) error {
	text, err := os.ReadFile(d.conf())
	if err != nil {
		return err
	}
	settings := [][2]string{
		{"server services", "ldap"},
		{"ldap server require strong auth", strongAuth},
		{"log file", filepath.Join(d.dir, "log.%m")},
		{"pid directory", filepath.Join(d.dir, "run")},
		{"ncalrpc dir", filepath.Join(d.dir, "ncalrpc")},
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(text)) {
		key, _, _ := strings.Cut(line, "=")
		if slices.ContainsFunc(settings, func(s [2]string) bool { return s[0] == strings.TrimSpace(key) }) {
			continue
		}
		out.WriteString(line)
		if strings.TrimSpace(line) == "[global]" {
			for _, s := range settings {
				fmt.Fprintf(&out, "\t%s = %s\n", s[0], s[1])
			}
		}
	}
	return os.WriteFile(d.conf(), out.Bytes(), 0o644)
}

// start starts Samba and waits until it is ready.
func (d *controller) start() error {
	words := slices.Concat(d.prefix, []string{"samba", "-s", d.conf(), "--interactive", "-M", d.model})
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	cmd.Env = append(os.Environ(), withoutSync)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// An interactive Samba exits at the end of its standard input, so none is left behind when
	// the test process is killed.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start samba: %w", err)
	}
	finished := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(finished)
	}()
	d.process, d.stdin, d.finished = cmd, stdin, finished

	// The first start generates an RSA key, which takes seconds.
	for idle := time.After(testlog.IdleLimit); ; {
		if err = d.ready(); err == nil {
			return nil
		}
		select {
		case <-finished:
			return fmt.Errorf("samba exited: %s", d.logTail())
		case <-idle:
			return fmt.Errorf("domain controller not ready: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ready returns an error until the controller answers on all ports, and the service account and the
// administrator can bind. Their first logons set lastLogonTimestamp, which a later run would send as
// a change.
func (d *controller) ready() error {
	for _, port := range d.ports {
		c, err := net.Dial("tcp", net.JoinHostPort(d.host, port))
		if err != nil {
			return err
		}
		c.Close()
	}
	if err := d.bind(d.service.dn, d.service.file); err != nil {
		return err
	}
	return d.bind(d.admin.dn, d.admin.file)
}

// stop stops Samba and its child processes. It may be called more than once.
func (d *controller) stop() error {
	if d.process == nil {
		return nil
	}
	group := -d.process.Process.Pid
	_ = d.stdin.Close()
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-d.finished:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-d.finished
	d.process = nil
	// The last child process may still hold the ports.
	for idle := time.After(testlog.IdleLimit); ; {
		err := d.checkPorts()
		if err == nil {
			return nil
		}
		select {
		case <-idle:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// restart restarts the server with another setting for simple binds without TLS.
func (d *controller) restart(strongAuth string) error {
	if err := d.stop(); err != nil {
		return err
	}
	if err := d.configure(strongAuth); err != nil {
		return err
	}
	return d.start()
}

func (d *controller) logTail() string {
	text, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	const limit = 4000
	if len(text) > limit {
		text = text[len(text)-limit:]
	}
	return string(text)
}

func (d *controller) saveLog() error {
	text, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err
	}
	saved, err := os.CreateTemp("", "samba-samba-*.log")
	if err != nil {
		return err
	}
	_, err = saved.Write(text)
	fmt.Fprintln(os.Stderr, "samba: log of the domain controller:", saved.Name())
	return errors.Join(err, saved.Close())
}

// bind tries one simple bind with d.url, which every configuration of the server allows.
func (d *controller) bind(dn, passwordFile string) error {
	_, err := runTool("", "ldapsearch", "-x", "-LLL", "-H", d.url, "-D", dn, "-y", passwordFile,
		"-b", "", "-s", "base", "dnsHostName")
	return err
}

// runChange runs a tool that may change the directory.
func (d *controller) runChange(stdin, name string, args ...string) (string, error) {
	d.changes++
	return runTool(stdin, name, args...)
}

// withoutSync disables fsync for Samba's databases. No test is about power failures.
const withoutSync = "TDB_NO_FSYNC=1"

// runTool runs a program and returns its stdout. An error contains its stderr.
func runTool(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The server's certificate is self-signed. The tools do not verify it.
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "LDAPTLS_REQCERT=never", withoutSync)
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
