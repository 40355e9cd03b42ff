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
	realm  = "CORP.EXAMPLE.COM"
	baseDN = "DC=corp,DC=example,DC=com"

	// serviceDN is the account that the connector binds with: a domain user
	// without any right of its own.
	serviceDN      = "CN=svc-qualys,OU=Service," + baseDN
	serviceAccount = "svc-qualys"
	adminDN        = "CN=Administrator,CN=Users," + baseDN

	tlsURL = "ldaps://127.0.0.1"
)

// TestMain only cleans up: what a test needs is made by the first test that asks
// for it, so that those of the oracle run without a server.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := cleanUp(code != 0); err != nil {
		fmt.Fprintln(os.Stderr, "samba:", err)
		code = 1
	}
	os.Exit(code)
}

// workDir holds everything that this run of the tests makes on disk. Its path is
// short because Unix sockets lie in it.
var workDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "samba") })

var (
	startedMu sync.Mutex
	started   *controller // what cleanUp has to stop
)

func cleanUp(failed bool) error {
	startedMu.Lock()
	defer startedMu.Unlock()
	dir, err := workDir()
	if err != nil {
		return err
	}
	var errs []error
	if started != nil {
		errs = append(errs, started.stop())
		if failed {
			errs = append(errs, started.keepLog())
		}
	}
	return errors.Join(append(errs, program.Remove(), os.RemoveAll(dir))...)
}

// A controller is one Samba domain controller on the loopback interface. Its
// methods are not for concurrent use.
type controller struct {
	dir      string
	users    int // in the fill, without those that provisioning made
	groups   int
	admin    credentials
	service  credentials
	process  *exec.Cmd
	stdin    io.Closer
	finished chan struct{} // closed once process has ended
	log      *os.File

	changes  int // commands that may have changed the directory
	readings map[search]lastReading
}

// credentials are a DN and its password, which command lines get as a file.
type credentials struct {
	dn       string
	password string
	file     string
}

var provisioned = sync.OnceValues(provision)

// domain returns the running controller, which the first call provisions, fills
// and starts.
func domain(t *testing.T) *controller {
	t.Helper()
	d, err := provisioned()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func provision() (*controller, error) {
	if err := installed(); err != nil {
		return nil, err
	}
	if err := portsFree(); err != nil {
		return nil, err
	}
	dir, err := workDir()
	if err != nil {
		return nil, err
	}
	d := &controller{dir: filepath.Join(dir, "dc")}
	if d.admin, err = newCredentials(dir, adminDN, "administrator.password"); err != nil {
		return nil, err
	}
	if d.service, err = newCredentials(dir, serviceDN, "service.password"); err != nil {
		return nil, err
	}
	if d.log, err = os.Create(filepath.Join(dir, "samba.log")); err != nil {
		return nil, err
	}

	begin := time.Now()
	if _, err := command("", "samba-tool", "domain", "provision",
		"--realm="+realm, "--domain=CORP", "--server-role=dc", "--dns-backend=NONE",
		"--adminpass="+d.admin.password, "--targetdir="+d.dir,
		"--host-name=dc1", "--host-ip=127.0.0.1",
		"--option=interfaces=lo", "--option=bind interfaces only=yes"); err != nil {
		return nil, fmt.Errorf("provision the domain: %w", err)
	}
	if err := d.configure(allowPlainBinds); err != nil {
		return nil, err
	}
	provisionTook := time.Since(begin)

	begin = time.Now()
	if err := d.fill(); err != nil {
		return nil, fmt.Errorf("fill the directory: %w", err)
	}
	fillTook := time.Since(begin)

	begin = time.Now()
	startedMu.Lock()
	started = d
	startedMu.Unlock()
	if err := d.start(); err != nil {
		return nil, err
	}
	if err := d.logOn(); err != nil {
		return nil, err
	}
	fmt.Printf("samba: provisioned in %.1f s, filled with %d users and %d groups in %.1f s, started in %.1f s\n",
		provisionTook.Seconds(), d.users, d.groups, fillTook.Seconds(), time.Since(begin).Seconds())
	return d, nil
}

func newCredentials(dir, dn, name string) (credentials, error) {
	// The prefix satisfies the domain's rules of complexity whatever follows.
	c := credentials{dn: dn, password: "Pw-1" + rand.Text(), file: filepath.Join(dir, name)}
	keepSecret(c.password)
	// ldapsearch -y takes a trailing newline for a part of the password.
	return c, os.WriteFile(c.file, []byte(c.password), 0o600)
}

// What the tests need on the machine: Debian's packages, and a file of each that
// shows it is there.
var (
	packages = []string{"samba", "samba-ad-dc", "samba-ad-provision", "ldb-tools", "python3-samba", "krb5-config", "winbind", "ldap-utils"}
	evidence = []string{"samba", "samba-tool", "ldbadd", "ldbmodify", "ldapsearch", "ldapmodify", "/usr/share/samba/setup/provision.ldif"}
)

// installed makes sure that Samba is there. A machine where it cannot be had
// fails the tests: an absent server proves nothing.
func installed() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests run a domain controller on ports 389 and 636: run them as root")
	}
	return debian.Install(evidence, packages...)
}

func portsFree() error {
	for _, port := range []string{"389", "636", "3268", "3269"} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			return fmt.Errorf("the domain controller needs port %s of 127.0.0.1, stop what holds it: %w", port, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// What the server answers to a simple bind without TLS.
const (
	allowPlainBinds  = "no"
	refusePlainBinds = "yes"
)

func (d *controller) conf() string        { return filepath.Join(d.dir, "etc", "smb.conf") }
func (d *controller) certificate() string { return filepath.Join(d.dir, "private", "tls", "cert.pem") }
func (d *controller) database() []string {
	return []string{"-H", filepath.Join(d.dir, "private", "sam.ldb"), "--configfile=" + d.conf()}
}

// configure rewrites smb.conf for a server that only speaks LDAP and touches
// nothing outside its own directory. It takes effect at the next start.
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

// start runs Samba and returns once the service account can bind.
func (d *controller) start() error {
	cmd := exec.Command("samba", "-s", d.conf(), "--interactive", "-M", "single")
	cmd.Stdout, cmd.Stderr = d.log, d.log
	cmd.Env = append(os.Environ(), withoutSync)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// An interactive Samba ends when its standard input does: however these
	// tests die, no server is left behind.
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

	// The first start makes an RSA key.
	for idle := time.After(testlog.IdleLimit); ; {
		if err = d.bind(d.service.dn, d.service.file); err == nil {
			return nil
		}
		select {
		case <-finished:
			return fmt.Errorf("samba ended: %s", d.logTail())
		case <-idle:
			return fmt.Errorf("the domain controller does not become ready: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends Samba and everything it started. It may be called more than once.
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
	return nil
}

// restart starts the server anew under another rule for binds without TLS.
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
	const most = 4000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}

func (d *controller) keepLog() error {
	text, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err
	}
	kept, err := os.CreateTemp("", "samba-samba-*.log")
	if err != nil {
		return err
	}
	_, err = kept.Write(text)
	fmt.Fprintln(os.Stderr, "samba: the domain controller's log is in", kept.Name())
	return errors.Join(err, kept.Close())
}

// bind tries one simple bind, over TLS, which every configuration allows.
func (d *controller) bind(dn, passwordFile string) error {
	_, err := command("", "ldapsearch", "-x", "-LLL", "-H", tlsURL, "-D", dn, "-y", passwordFile,
		"-b", "", "-s", "base", "dnsHostName")
	return err
}

// change runs one of the machine's tools on the directory, which it may change.
func (d *controller) change(stdin, name string, args ...string) (string, error) {
	d.changes++
	return command(stdin, name, args...)
}

// withoutSync keeps Samba's databases from being synced to the disk with each change: no
// test is about a power cut.
const withoutSync = "TDB_NO_FSYNC=1"

// command runs one of the machine's tools and returns what it printed. Its error
// carries what the tool complained of.
func command(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The server's certificate is made by itself; what these tools prove is not
	// its identity.
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "LDAPTLS_REQCERT=never", withoutSync)
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
