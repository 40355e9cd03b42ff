//go:build ad

package samba

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/test/testlog"
)

// pairName is a name with the addresses of both controllers of the pair.
const pairName = "ldap.corp.example.com"

// pair is a domain with two domain controllers that replicate with each other. It is not the
// domain of sharedController.
type pair struct {
	dir           string
	prefix        []string // command line prefix of programs that need the names of the controllers
	first, second *controller
}

var pairOnce = sync.OnceValues(provisionPair)

// sharedPair returns the running pair, with equal contents. The first call provisions it.
func sharedPair(t *testing.T) *pair {
	t.Helper()
	p, err := pairOnce()
	if err != nil {
		t.Fatal(err)
	}
	p.replicate(t, p.first, p.second)
	p.replicate(t, p.second, p.first)
	return p
}

func provisionPair() (*pair, error) {
	if err := installSamba(); err != nil {
		return nil, err
	}
	p, err := newPair()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := p.provisionFirst(); err != nil {
		return nil, err
	}
	provisionTook := time.Since(began)
	began = time.Now()
	if err := p.joinSecond(); err != nil {
		return nil, err
	}
	// This makes the connections between the controllers.
	for _, d := range []*controller{p.first, p.second} {
		if _, err := p.adminTool("drs", "kcc", d.hostName()); err != nil {
			return nil, err
		}
	}
	const configuration = "CN=Configuration," + baseDN
	for _, context := range []string{"CN=Schema," + configuration, configuration, baseDN} {
		if err := p.pull(p.second, p.first, context); err != nil {
			return nil, err
		}
		if err := p.pull(p.first, p.second, context); err != nil {
			return nil, err
		}
	}
	fmt.Printf("samba: provisioned a pair of controllers in %.1f s, joined in %.1f s\n", provisionTook.Seconds(), time.Since(began).Seconds())
	return p, nil
}

// newPair returns a pair without databases.
func newPair() (*pair, error) {
	work, err := workDir()
	if err != nil {
		return nil, err
	}
	p := &pair{dir: filepath.Join(work, "pair")}
	// The controllers find each other by name. Their mount namespace has a private hosts file
	// and uses no DNS server.
	p.prefix = []string{
		"unshare", "--mount", "sh", "-c",
		`for f in hosts resolv.conf nsswitch.conf; do mount --bind "$0/$f" "/etc/$f" || exit 1; done; KRB5_CONFIG="$0/krb5.conf" exec "$@"`, p.dir,
	}
	p.first, p.second = p.newController("dc1", "127.0.0.11"), p.newController("dc2", "127.0.0.12")
	p.first.peer, p.second.peer = p.second, p.first
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"hosts":         "127.0.0.1 localhost\n",
		"resolv.conf":   "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", // refuses connections
		"nsswitch.conf": "hosts: files dns\npasswd: files\ngroup: files\n",
		"krb5.conf":     p.krb5Conf(),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	admin, err := newCredentials(p.dir, adminDN, "administrator.password")
	if err != nil {
		return nil, err
	}
	service, err := newCredentials(p.dir, serviceDN, "service.password")
	if err != nil {
		return nil, err
	}
	for _, d := range []*controller{p.first, p.second} {
		d.admin, d.service = admin, service
		if err := errors.Join(d.checkPorts(), p.writeConf(d), p.addHost(d.host, d.hostName()), p.addHost(d.host, pairName)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pair) newController(name, host string) *controller {
	return &controller{
		dir: filepath.Join(p.dir, name), name: name, host: host, url: "ldap://" + host, model: "prefork", prefix: p.prefix,
		ports: []string{"88", "135", "389", "464", "3268"},
	}
}

// hostName returns the DNS host name of a controller of the pair.
func (d *controller) hostName() string {
	return d.name + "." + strings.ToLower(realm)
}

// addHost adds a name to the hosts file. It writes to the mounted file, so that running
// programs see it.
func (p *pair) addHost(address, name string) error {
	file, err := os.OpenFile(filepath.Join(p.dir, "hosts"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s %s\n", address, name)
	return errors.Join(err, file.Close())
}

// writeConf writes the smb.conf of a controller. It sets each path, because the controllers
// would share the default ones.
func (p *pair) writeConf(d *controller) error {
	conf := `[global]
netbios name = ` + strings.ToUpper(d.name) + `
realm = ` + realm + `
workgroup = CORP
server role = active directory domain controller
server services = rpc, ldap, cldap, kdc, drepl, kcc
interfaces = ` + d.host + `/8
bind interfaces only = yes
disable netbios = yes
tls enabled = no
ldap server require strong auth = no
prefork children = 1
private dir = DIR/private
lock directory = DIR/lock
state directory = DIR/state
cache directory = DIR/cache
binddns dir = DIR/dns
pid directory = DIR/run
ncalrpc dir = DIR/run/ncalrpc
winbindd socket directory = DIR/run/winbindd
ntp signd socket directory = DIR/run/ntp_signd
log file = DIR/log.samba
dreplsrv:notify_interval = 1
kccsrv:periodic_startup_interval = 3600
kccsrv:periodic_interval = 3600
[sysvol]
path = DIR/state/sysvol
[netlogon]
path = DIR/state/sysvol/` + strings.ToLower(realm) + `/scripts
`
	for _, sub := range []string{"etc", "run"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o755); err != nil {
			return err
		}
	}
	var err error
	if d.log, err = os.Create(filepath.Join(p.dir, d.name+".log")); err != nil {
		return err
	}
	return os.WriteFile(d.conf(), []byte(strings.ReplaceAll(conf, "DIR", d.dir)), 0o644)
}

// krb5Conf returns a krb5.conf with the key distribution centers of both controllers. The
// second one stores the realm in lower case when it joins.
func (p *pair) krb5Conf() string {
	domain := strings.ToLower(realm)
	centers := fmt.Sprintf("{\n kdc = %s\n kdc = %s\n}\n", p.first.host, p.second.host)
	return "[libdefaults]\ndefault_realm = " + realm + "\ndns_lookup_realm = false\ndns_lookup_kdc = false\nrdns = false\n" +
		"[realms]\n" + realm + " = " + centers + domain + " = " + centers +
		"[domain_realm]\n." + domain + " = " + realm + "\n" + domain + " = " + realm + "\n"
}

// run runs a program that needs the names of the controllers.
func (p *pair) run(words ...string) (string, error) {
	all := append(append([]string(nil), p.prefix...), words...)
	out, err := runTool("", all[0], all[1:]...)
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(out))
	}
	return out, nil
}

// adminTool runs samba-tool as the administrator of the domain.
func (p *pair) adminTool(args ...string) (string, error) {
	return p.run(append(append([]string{"env", "PASSWD_FILE=" + p.first.admin.file, "samba-tool"}, args...),
		"--username=Administrator", "--configfile="+p.first.conf())...)
}

// provisionFirst makes the domain on the first controller, with the service account, and
// starts it.
func (p *pair) provisionFirst() error {
	d := p.first
	if _, err := p.run("samba-tool", "domain", "provision", "--configfile="+d.conf(),
		"--realm="+realm, "--domain=CORP", "--server-role=dc", "--dns-backend=NONE",
		"--adminpass="+d.admin.password, "--host-name="+d.name, "--host-ip="+d.host); err != nil {
		return err
	}
	f := &fixture{}
	f.ou("OU=Service," + baseDN)
	f.add(serviceDN, "objectClass", "user", "sAMAccountName", serviceAccount,
		"userAccountControl", strconv.Itoa(uacNormal|uacNeverExpires), "unicodePwd", unicodePwd(d.service.password))
	if err := d.ldb("ldbadd", f.String()); err != nil {
		return err
	}
	return p.startNew(d)
}

// joinSecond makes the second controller and starts it.
func (p *pair) joinSecond() error {
	if _, err := p.run("env", "PASSWD_FILE="+p.second.admin.file, "samba-tool", "domain", "join", realm, "DC",
		"--server="+p.first.hostName(), "--realm="+realm, "--dns-backend=NONE",
		"--username=Administrator", "--configfile="+p.second.conf()); err != nil {
		return err
	}
	return p.startNew(p.second)
}

var dsServiceGUID = regexp.MustCompile(`dsServiceName: <GUID=([-0-9a-f]+)>`)

// startNew starts a controller for the first time.
func (p *pair) startNew(d *controller) error {
	// Samba's service dnsupdate would do this. A controller gets a ticket for these names only.
	if _, err := p.run("samba_spnupdate", "-s", d.conf()); err != nil {
		return err
	}
	out, err := p.run(append([]string{"ldbsearch", "-s", "base", "-b", "", "--extended-dn", "dsServiceName"}, d.database()...)...)
	if err != nil {
		return err
	}
	guid := dsServiceGUID.FindStringSubmatch(out)
	if guid == nil {
		return fmt.Errorf("dsServiceName of %s has no GUID: %s", d.hostName(), out)
	}
	// The other controller replicates from this name.
	if err := p.addHost(d.host, guid[1]+"._msdcs."+strings.ToLower(realm)); err != nil {
		return err
	}
	cleanUpLater(d)
	return d.start()
}

// pull replicates a naming context from one controller to another. It returns when all changes
// are applied. A controller that has just started may refuse at first, so pull tries again.
func (p *pair) pull(to, from *controller, context string) error {
	for idle := time.After(testlog.IdleLimit); ; {
		_, err := p.adminTool("drs", "replicate", to.hostName(), from.hostName(), context)
		if err == nil {
			return nil
		}
		select {
		case <-idle:
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// replicate replicates all changes of one controller to the other. They also replicate by
// themselves, at any time.
func (p *pair) replicate(t *testing.T, from, to *controller) {
	t.Helper()
	if err := p.pull(to, from, baseDN); err != nil {
		t.Fatal(err)
	}
}

// pause stops the replication to a controller, until the function that it returns is called or
// the test ends. The controller has all changes that the other one has at that time.
func (p *pair) pause(t *testing.T, d *controller) (resume func()) {
	t.Helper()
	p.replicate(t, d.peer, d)
	set := func(sign string) error {
		_, err := p.adminTool("drs", "options", d.hostName(), "--dsa-option="+sign+"DISABLE_INBOUND_REPL")
		return err
	}
	if err := set("+"); err != nil {
		t.Fatal(err)
	}
	paused := true
	resume = func() {
		t.Helper()
		if !paused {
			return
		}
		paused = false
		if err := set("-"); err != nil {
			t.Fatal(err)
		}
		p.replicate(t, d.peer, d)
	}
	t.Cleanup(resume)
	return resume
}

// stop stops a controller until the function that it returns is called or the test
// ends. The controller then has all changes of the other one.
func (p *pair) stop(t *testing.T, d *controller) (restart func()) {
	t.Helper()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	restart = func() {
		t.Helper()
		if d.process != nil {
			return
		}
		if err := d.start(); err != nil {
			t.Fatal(err)
		}
		p.replicate(t, d.peer, d)
	}
	t.Cleanup(restart)
	return restart
}

// addDeltaOU adds deltaOU with some users, and outsideOU, to both controllers until the test
// ends.
func (p *pair) addDeltaOU(t *testing.T, users int) {
	t.Helper()
	p.first.addDeltaOU(t, users)
	t.Cleanup(func() { p.replicate(t, p.second, p.first) }) // before the deletion
	p.replicate(t, p.first, p.second)
}

// TestPair checks what other tests depend on: changes replicate, but not to a controller that
// is paused, and each controller counts its changes.
func TestPair(t *testing.T) {
	p := sharedPair(t)
	p.addDeltaOU(t, 1)
	usn := func(d *controller) string { return d.value(t, "delta0", "uSNChanged") }
	if usn(p.first) == usn(p.second) {
		t.Errorf("uSNChanged is %s on both controllers", usn(p.first))
	}
	if a, b := p.first.value(t, "delta0", "objectGUID"), p.second.value(t, "delta0", "objectGUID"); a != b {
		t.Errorf("objectGUID differs: %q, %q", a, b)
	}
	resume := p.pause(t, p.second)
	p.first.addUser(t, "On First", deltaOU, "onfirst")
	p.second.addUser(t, "On Second", deltaOU, "onsecond")
	p.replicate(t, p.second, p.first)
	if !p.first.exists(t, "onsecond") || p.second.exists(t, "onfirst") {
		t.Errorf("first controller has the other's user: %t, want true; paused second one has it: %t, want false",
			p.first.exists(t, "onsecond"), p.second.exists(t, "onfirst"))
	}
	resume()
	if !p.second.exists(t, "onfirst") {
		t.Error("user does not replicate after a pause")
	}
	restart := p.stop(t, p.first)
	p.second.addUser(t, "While Stopped", deltaOU, "whilestopped")
	restart()
	if !p.first.exists(t, "whilestopped") {
		t.Error("user does not replicate after a restart")
	}
}
