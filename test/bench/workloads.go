package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"adconnector/internal/identity"
)

const pageSize = 1000

// workload is one way to read the directory, as a process of its own.
type workload struct {
	name string
	run  func(context.Context, *fixture) (measurement, error)
}

// The names of the workloads in the table, in the order of their runs: an unchanged sync
// needs the state of a first sync.
const (
	nameLDAPSearch = "ldapsearch"
	nameDryRun     = "read only (sync --dry-run)"
	nameFirst      = "first full sync"
	nameUnchanged  = "unchanged full sync"
	nameCollector  = "go-ldap, map, JSON"

	namePostureSearch    = "ldapsearch, posture"
	namePostureDryRun    = "read only, posture"
	namePosture          = "first full sync, posture"
	namePostureUnchanged = "unchanged full sync, posture"
)

// maxCollectorUsers is the largest directory for the collector. It keeps all entries in
// memory, about 20 KB each.
const maxCollectorUsers = 200_000

func workloads(d dataset) []workload {
	list := []workload{
		{nameLDAPSearch, runLDAPSearch},
		{nameDryRun, runDryRun},
		{nameFirst, runFirst},
		{nameUnchanged, runUnchanged},
		{namePostureSearch, runPostureSearch},
		{namePostureDryRun, runPostureDryRun},
		{namePosture, runPosture},
		{namePostureUnchanged, runPostureUnchanged},
	}
	if d.users <= maxCollectorUsers {
		list = append(list, workload{nameCollector, runCollector})
	}
	return list
}

// fixture is the environment of the workloads for one dataset.
type fixture struct {
	dir, binary string
	dataset     dataset
	server      *slapd
	gateway     *gateway
}

func newFixture(dir, binary string, d dataset, server *slapd) (*fixture, error) {
	return &fixture{dir: dir, binary: binary, dataset: d, server: server}, os.MkdirAll(dir, 0o700)
}

// reset prepares a round: it starts an empty gateway and removes all state files.
func (f *fixture) reset(ctx context.Context) (err error) {
	for _, name := range []string{"state", "state-dry-run", postureState, postureState + "-dry-run"} {
		if err := os.RemoveAll(filepath.Join(f.dir, name)); err != nil {
			return err
		}
	}
	if f.gateway, err = startGateway(ctx, f.dir); err != nil {
		return err
	}
	if err := f.writeSettings(); err != nil {
		return errors.Join(err, f.gateway.stop())
	}
	return nil
}

func (f *fixture) settingsFile() string { return filepath.Join(f.dir, "settings.env") }

func (f *fixture) writeSettings() error {
	a := f.gateway.account
	lines := []string{
		"connector.api.url=http://" + f.gateway.address,
		"qualys.customerUuid=" + a.CustomerUUID,
		"qualys.connectionUuid=" + a.ConnectionUUID,
		"qualys.profileUuid=" + a.ProfileUUID,
		"qualys.user.username=" + a.Username,
		"qualys.user.password=" + a.Password,
		"ldap.host=" + f.server.host,
		"ldap.port=" + f.server.port,
		"ldap.bindDn=" + rootDN,
		"ldap.password.file=" + f.server.passwordFile(),
		"profile.baseContext=" + suffix,
	}
	return os.WriteFile(f.settingsFile(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// extendedDNControl is the control that the connector sends with security posture, with its value.
const extendedDNControl = "1.2.840.113556.1.4.529=::MAMCAQA="

// ldapsearch returns a command with the connector's search request.
func (f *fixture) ldapsearch(ctx context.Context, kind identity.Kind) *exec.Cmd {
	return f.ldapsearchFor(ctx, kind, identity.NewMapper(kind).Attributes)
}

// postureSearch returns a command that reads each object of a kind once, with all that the connector
// reads of it with security posture, for the memberships too.
func (f *fixture) postureSearch(ctx context.Context, kind identity.Kind) *exec.Cmd {
	attributes := append(identity.NewPostureMapper(kind).Attributes, map[identity.Kind][]string{
		identity.User: {"objectClass"}, identity.Group: {"member", "uSNChanged"},
	}[kind]...)
	return f.ldapsearchFor(ctx, kind, attributes, "-E", extendedDNControl)
}

func (f *fixture) ldapsearchFor(ctx context.Context, kind identity.Kind, attributes []string, controls ...string) *exec.Cmd {
	args := []string{"-H", f.server.url(), "-x", "-D", rootDN, "-y", f.server.passwordFile(), "-LLL",
		"-E", fmt.Sprintf("pr=%d/noprompt", pageSize)}
	args = append(append(args, controls...), "-b", suffix, "-s", "sub", identity.Filter[kind])
	cmd := exec.CommandContext(ctx, "ldapsearch", append(args, attributes...)...)
	cmd.Env = append(os.Environ(), "LDAPNOINIT=1") // ignore the machine's ldap.conf
	return cmd
}

// countEntries checks that ldapsearch returns all entries of the dataset. The measured runs
// discard the output of ldapsearch.
func (f *fixture) countEntries(ctx context.Context) error {
	var read counts
	for kind, count := range map[identity.Kind]*int{identity.User: &read.Users, identity.Group: &read.Groups} {
		cmd := f.ldapsearch(ctx, kind)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		output, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if bytes.HasPrefix(lines.Bytes(), []byte("dn:")) {
				*count++
			}
		}
		if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
			return fmt.Errorf("%s: %w: %s", nameLDAPSearch, err, tail(stderr.Bytes()))
		}
	}
	return read.check(f.dataset)
}

func (c counts) check(d dataset) error {
	if c.Users != d.users || c.Groups != d.groups {
		return fmt.Errorf("read %d users and %d groups, want %d and %d", c.Users, c.Groups, d.users, d.groups)
	}
	return nil
}

func runLDAPSearch(ctx context.Context, f *fixture) (measurement, error) {
	return measure(f.ldapsearch(ctx, identity.User), f.ldapsearch(ctx, identity.Group))
}

func runDryRun(ctx context.Context, f *fixture) (measurement, error) {
	return f.sync(ctx, "state-dry-run", syncResult{counts: f.dataset.counts(), Changed: f.dataset.objects()}, "--dry-run")
}

func runFirst(ctx context.Context, f *fixture) (measurement, error) {
	all := f.dataset.objects()
	return f.sync(ctx, "state", syncResult{counts: f.dataset.counts(), Changed: all, Uploaded: all})
}

func runUnchanged(ctx context.Context, f *fixture) (measurement, error) {
	m, err := f.sync(ctx, "state", syncResult{counts: f.dataset.counts()}, "--full")
	if err != nil {
		return m, err
	}
	stats, err := f.gateway.stats()
	if err != nil {
		return m, err
	}
	if err := (counts{stats.Users, stats.Groups}).check(f.dataset); err != nil {
		return m, fmt.Errorf("gateway: %w", err)
	}
	return m, nil
}

// stateFileName is the name of the connector's state file.
const stateFileName = "adconnector.db"

// postureState is the state directory of the syncs with security posture, and the beginning of that of
// the dry runs.
const postureState = "state-posture"

func runPostureSearch(ctx context.Context, f *fixture) (measurement, error) {
	return measure(f.postureSearch(ctx, identity.User), f.postureSearch(ctx, identity.Group))
}

func runPostureDryRun(ctx context.Context, f *fixture) (measurement, error) {
	return f.sync(ctx, postureState+"-dry-run", syncResult{counts: f.dataset.counts(), Changed: f.dataset.objects()}, "--dry-run")
}

func runPosture(ctx context.Context, f *fixture) (measurement, error) {
	all := f.dataset.objects()
	return f.sync(ctx, postureState, syncResult{counts: f.dataset.counts(), Changed: all, Uploaded: all})
}

func runPostureUnchanged(ctx context.Context, f *fixture) (measurement, error) {
	return f.sync(ctx, postureState, syncResult{counts: f.dataset.counts()}, "--full")
}

func (d dataset) objects() int { return d.users + d.groups }

func (d dataset) counts() counts { return counts{d.users, d.groups} }

// syncResult is the part of a sync's JSON result that the benchmark checks.
type syncResult struct {
	counts
	Changed  int `json:"changed"`
	Uploaded int `json:"uploaded"`
	Rejected int `json:"rejected"`
}

// sync measures one run of the connector and checks its result.
func (f *fixture) sync(ctx context.Context, stateDir string, want syncResult, flags ...string) (measurement, error) {
	before, err := f.gateway.stats()
	if err != nil {
		return measurement{}, err
	}
	args := append([]string{"sync", "--env-file", f.settingsFile(), "--output", "json"}, flags...)
	cmd := exec.CommandContext(ctx, f.binary, args...)
	// The environment overrides the env file, so it has no other settings.
	cmd.Env = []string{"SERVICE_STATE_DIR=" + filepath.Join(f.dir, stateDir)}
	if strings.HasPrefix(stateDir, postureState) {
		cmd.Env = append(cmd.Env, "PROFILE_ASSETS=IDENTITIES_WITH_SECURITY_POSTURE")
	}
	var output bytes.Buffer
	cmd.Stdout = &output
	m, err := measure(cmd)
	if err != nil {
		return m, err
	}
	var got syncResult
	if err := json.Unmarshal(output.Bytes(), &got); err != nil {
		return m, fmt.Errorf("parse result: %w: %s", err, tail(output.Bytes()))
	}
	if got != want {
		return m, fmt.Errorf("result %+v, want %+v", got, want)
	}
	if info, err := os.Stat(filepath.Join(f.dir, stateDir, stateFileName)); err == nil { // else a dry run
		m.stateFile = info.Size()
	}
	after, err := f.gateway.stats()
	m.requests = after.Requests - before.Requests
	return m, err
}

func runCollector(ctx context.Context, f *fixture) (measurement, error) {
	file := filepath.Join(f.dir, "collector.json")
	if err := writeJSON(file, collectorConfig{URL: f.server.url(), BindDN: rootDN, Password: f.server.password, Base: suffix}); err != nil {
		return measurement{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return measurement{}, err
	}
	cmd := exec.CommandContext(ctx, self, collectorProcess, file)
	var output bytes.Buffer
	cmd.Stdout = &output
	m, err := measure(cmd)
	if err != nil {
		return m, err
	}
	var read counts
	if err := json.NewDecoder(&output).Decode(&read); err != nil {
		return m, fmt.Errorf("parse counts: %w", err)
	}
	return m, read.check(f.dataset)
}
