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

// contender is one way to read the directory.
type contender struct {
	name string
	run  func(context.Context, *stage) (measurement, error)
}

// The contenders' names in the table, in the order in which they run: the
// unchanged pass needs the first sync's state.
const (
	nameLDAPSearch = "ldapsearch"
	nameFetch      = "fetch alone (sync --dry-run)"
	nameFirst      = "first full sync"
	nameUnchanged  = "unchanged full pass"
	nameCollector  = "go-ldap, map, json"

	namePosture          = "first full sync, posture"
	namePostureUnchanged = "unchanged full pass, posture"
)

// collectorUsers is where the collector stops to take part: it keeps everything
// in memory, some 20 KB an entry.
const collectorUsers = 200_000

func contenders(d dataset) []contender {
	list := []contender{
		{nameLDAPSearch, runLDAPSearch},
		{nameFetch, runFetch},
		{nameFirst, runFirst},
		{nameUnchanged, runUnchanged},
		{namePosture, runPosture},
		{namePostureUnchanged, runPostureUnchanged},
	}
	if d.users <= collectorUsers {
		list = append(list, contender{nameCollector, runCollector})
	}
	return list
}

// stage is what the contenders of one size run on.
type stage struct {
	dir, binary string
	dataset     dataset
	server      *slapd
	gateway     *gateway
}

func newStage(dir, binary string, d dataset, server *slapd) (*stage, error) {
	return &stage{dir: dir, binary: binary, dataset: d, server: server}, os.MkdirAll(dir, 0o700)
}

// reset makes everything new for a round: an empty gateway and an empty state.
func (s *stage) reset(ctx context.Context) (err error) {
	for _, name := range []string{"state", "state-of-fetch", stateOfPosture} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	if s.gateway, err = startGateway(ctx, s.dir); err != nil {
		return err
	}
	if err := s.writeSettings(); err != nil {
		return errors.Join(err, s.gateway.stop())
	}
	return nil
}

func (s *stage) settingsFile() string { return filepath.Join(s.dir, "settings.env") }

func (s *stage) writeSettings() error {
	c := s.gateway.customer
	lines := []string{
		"connector.api.url=http://" + s.gateway.address,
		"qualys.customerUuid=" + c.Customer,
		"qualys.connectionUuid=" + c.Connection,
		"qualys.profileUuid=" + c.Profile,
		"qualys.user.username=" + c.Username,
		"qualys.user.password=" + c.Password,
		"ldap.host=" + s.server.host,
		"ldap.port=" + s.server.port,
		"ldap.bindDn=" + rootDN,
		"ldap.password.file=" + s.server.passwordFile(),
		"profile.baseContext=" + suffix,
	}
	return os.WriteFile(s.settingsFile(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// ldapsearch asks for what the connector asks for.
func (s *stage) ldapsearch(ctx context.Context, kind identity.Kind) *exec.Cmd {
	args := []string{"-H", s.server.url(), "-x", "-D", rootDN, "-y", s.server.passwordFile(), "-LLL",
		"-E", fmt.Sprintf("pr=%d/noprompt", pageSize), "-b", suffix, "-s", "sub", identity.Filter[kind]}
	cmd := exec.CommandContext(ctx, "ldapsearch", append(args, identity.NewMapper(kind).Attributes...)...)
	cmd.Env = append(os.Environ(), "LDAPNOINIT=1") // no defaults of this machine's
	return cmd
}

// countEntries proves that the server answers ldapsearch with all that was loaded:
// when it is measured nobody reads its output.
func (s *stage) countEntries(ctx context.Context) error {
	var seen counts
	for kind, count := range map[identity.Kind]*int{identity.User: &seen.Users, identity.Group: &seen.Groups} {
		cmd := s.ldapsearch(ctx, kind)
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
	return seen.check(s.dataset)
}

func (c counts) check(d dataset) error {
	if c.Users != d.users || c.Groups != d.groups {
		return fmt.Errorf("saw %d users and %d groups, there are %d and %d", c.Users, c.Groups, d.users, d.groups)
	}
	return nil
}

func runLDAPSearch(ctx context.Context, s *stage) (measurement, error) {
	return measure(s.ldapsearch(ctx, identity.User), s.ldapsearch(ctx, identity.Group))
}

func runFetch(ctx context.Context, s *stage) (measurement, error) {
	return s.sync(ctx, "state-of-fetch", account{counts: s.dataset.counts(), Changed: s.dataset.objects()}, "--dry-run")
}

func runFirst(ctx context.Context, s *stage) (measurement, error) {
	all := s.dataset.objects()
	return s.sync(ctx, "state", account{counts: s.dataset.counts(), Changed: all, Uploaded: all})
}

func runUnchanged(ctx context.Context, s *stage) (measurement, error) {
	m, err := s.sync(ctx, "state", account{counts: s.dataset.counts()}, "--full")
	if err != nil {
		return m, err
	}
	t, err := s.gateway.tally()
	if err != nil {
		return m, err
	}
	if err := (counts{t.Users, t.Groups}).check(s.dataset); err != nil {
		return m, fmt.Errorf("the gateway: %w", err)
	}
	return m, nil
}

// stateOfPosture is the state of the runs that are asked for security posture.
const stateOfPosture = "state-of-posture"

func runPosture(ctx context.Context, s *stage) (measurement, error) {
	all := s.dataset.objects()
	return s.sync(ctx, stateOfPosture, account{counts: s.dataset.counts(), Changed: all, Uploaded: all})
}

func runPostureUnchanged(ctx context.Context, s *stage) (measurement, error) {
	return s.sync(ctx, stateOfPosture, account{counts: s.dataset.counts()}, "--full")
}

func (d dataset) objects() int { return d.users + d.groups }

func (d dataset) counts() counts { return counts{d.users, d.groups} }

// account is what a sync says it did.
type account struct {
	counts
	Changed  int `json:"changed"`
	Uploaded int `json:"uploaded"`
	Rejected int `json:"rejected"`
}

// sync measures one run of the connector, and holds it to what it must have done.
func (s *stage) sync(ctx context.Context, state string, want account, flags ...string) (measurement, error) {
	before, err := s.gateway.tally()
	if err != nil {
		return measurement{}, err
	}
	args := append([]string{"sync", "--env-file", s.settingsFile(), "--output", "json"}, flags...)
	cmd := exec.CommandContext(ctx, s.binary, args...)
	// Nothing else of the environment: its settings would win over the file's.
	cmd.Env = []string{"SERVICE_STATE_DIR=" + filepath.Join(s.dir, state)}
	if state == stateOfPosture {
		cmd.Env = append(cmd.Env, "PROFILE_ASSETS=IDENTITIES_WITH_SECURITY_POSTURE")
	}
	var output bytes.Buffer
	cmd.Stdout = &output
	m, err := measure(cmd)
	if err != nil {
		return m, err
	}
	var got account
	if err := json.Unmarshal(output.Bytes(), &got); err != nil {
		return m, fmt.Errorf("its result: %w: %s", err, tail(output.Bytes()))
	}
	if got != want {
		return m, fmt.Errorf("its result is %+v, it must be %+v", got, want)
	}
	after, err := s.gateway.tally()
	m.requests = after.Requests - before.Requests
	return m, err
}

func runCollector(ctx context.Context, s *stage) (measurement, error) {
	file := filepath.Join(s.dir, "collector.json")
	if err := writeJSON(file, collection{URL: s.server.url(), BindDN: rootDN, Password: s.server.password, Base: suffix}); err != nil {
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
	var seen counts
	if err := json.NewDecoder(&output).Decode(&seen); err != nil {
		return m, fmt.Errorf("its counts: %w", err)
	}
	return m, seen.check(s.dataset)
}
