package faults

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/oracle"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// environmentOptions describe an environment. Zero values are the defaults.
type environmentOptions struct {
	users, groups int
	tls           bool // the gateway listens for HTTPS
}

// environment is a domain controller behind a relay, a gateway behind a monitor, and the
// connector's settings for them.
type environment struct {
	*testenv.Environment
	t        *testing.T
	random   *mathrand.Rand
	clock    *testenv.Clock // of the directory; stands still unless the test advances it
	relay    *relay         // to the directory
	monitor  *monitor
	settings testenv.Settings
	posture  bool // the profile includes security posture, which package oracle does not cover

	mu     sync.Mutex
	second *testenv.Directory // another controller of the domain, which receives each change; nil: none
	people []string           // distinguished names of the users that the test may change
	groups []string
	serial int // number of the last new object or value
}

func newEnvironment(t *testing.T, o environmentOptions) *environment {
	t.Helper()
	e := &environment{t: t, random: newRandom(t), clock: testenv.NewClock(time.Now()), monitor: newMonitor(t)}
	password := testlog.AddSecret("Bind-" + rand.Text())
	gateway := gatewayserver.Options{
		Username: "qualys_ad1", Password: "Pw-" + rand.Text() + `"#$ %`, ClientID: "client-7", ClientSecret: "Cs-" + rand.Text(),
	}
	testlog.AddCredentials(gateway.Username, gateway.Password)
	testlog.AddCredentials(gateway.ClientID, gateway.ClientSecret)
	e.Environment = testenv.New(t, testenv.Options{Directory: e.directoryOptions(o, password), Gateway: gateway, TLS: o.tls})
	e.relay = newRelay(t, fmt.Sprintf("127.0.0.1:%d", e.Port))
	e.Gateway.SetMiddleware(e.monitor.observe)
	for _, o := range e.Objects() {
		if !strings.Contains(o.DN, ",OU=") || o.DN == e.BindDN() {
			continue
		}
		switch oracleEntry(o).Kind() {
		case oracle.User:
			e.people = append(e.people, o.DN)
		case oracle.Group:
			e.groups = append(e.groups, o.DN)
		}
	}
	e.Console("LDAP", e.Base())
	connection := *e.Gateway.Options.Connection
	connection.Authentication.Port = e.relay.port
	e.Gateway.SetConnection(&connection)
	e.settings = e.Gateway.Settings().With(testenv.Settings{
		"authentication.type": "BASIC", "service.cron-expression": "0 0 3 * * *",
		"service.state-dir": e.StateDir, "service.admin.address": "off",
	})
	return e
}

// directoryOptions returns options for a directory. All directories with the same options
// hold the same objects.
func (e *environment) directoryOptions(o environmentOptions, password string) domaincontroller.Options {
	return domaincontroller.Options{
		Users: o.users, Groups: o.groups, Seed: *seedFlag, Password: password, ReadsDeleted: true,
		Now: e.clock.Now,
	}
}

// reinstall removes the state file and empties the gateway. No connector may run.
func (e *environment) reinstall() {
	e.t.Helper()
	must(e.t, os.RemoveAll(e.settings["service.state-dir"]))
	e.Gateway.Reset()
}

// newStateDir returns a state directory that does not exist yet.
func (e *environment) newStateDir() string { return filepath.Join(e.t.TempDir(), "state") }

// mutate makes n random changes to the directory.
func (e *environment) mutate(n int) {
	e.t.Helper()
	for range n {
		must(e.t, e.mutateOnce())
	}
}

// modify changes n attribute values. It adds, renames and deletes no objects.
func (e *environment) modify(n int) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for range n {
		e.serial++
		must(e.t, e.Modify(e.people[e.random.IntN(len(e.people))], "title", version(e.serial)))
	}
}

func (e *environment) mutateOnce() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mutateLocked()
}

func (e *environment) mutateLocked() error {
	e.serial++
	switch e.random.IntN(12) {
	case 0:
		return e.deletePerson()
	case 1:
		return e.addPerson()
	case 2:
		i, dn := e.pick(e.people)
		_, container, _ := strings.Cut(dn, ",OU=")
		name := fmt.Sprintf("Renamed %d", e.serial)
		e.people[i] = "CN=" + name + ",OU=" + container
		return e.change(func(d *domaincontroller.Server) error { return d.Rename(dn, name) })
	case 3:
		_, dn := e.pick(e.people)
		return e.change(func(d *domaincontroller.Server) error { return d.Disable(dn) })
	case 4:
		_, dn := e.pick(e.groups)
		return e.set(dn, "description", version(e.serial))
	default:
		_, dn := e.pick(e.people)
		return e.set(dn, "title", version(e.serial))
	}
}

// pick returns a random element and its index.
func (e *environment) pick(from []string) (int, string) {
	i := e.random.IntN(len(from))
	return i, from[i]
}

func (e *environment) deletePerson() error {
	i, dn := e.pick(e.people)
	e.monitor.expectDeletion(e.Directory, dn)
	e.people = append(e.people[:i], e.people[i+1:]...)
	return e.change(func(d *domaincontroller.Server) error { return d.Delete(dn) })
}

func (e *environment) addPerson() error {
	_, sibling := e.pick(e.people)
	_, container, _ := strings.Cut(sibling, ",OU=")
	dn := fmt.Sprintf("CN=Ä new person %d,OU=%s", e.serial, container)
	e.people = append(e.people, dn)
	return e.change(func(d *domaincontroller.Server) error { // the controllers assign equal GUIDs and SIDs
		return d.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{
			"objectClass": {"user"}, "userAccountControl": {"66048"}, "sAMAccountName": {fmt.Sprintf("new%d", e.serial)},
		}})
	})
}

func (e *environment) set(dn, attribute string, values ...string) error {
	return e.change(func(d *domaincontroller.Server) error { return d.Modify(dn, attribute, values...) })
}

// change applies a change to each controller.
func (e *environment) change(apply func(*domaincontroller.Server) error) error {
	err := apply(e.Server)
	if err == nil && e.second != nil {
		err = apply(e.second.Server)
	}
	return err
}

// version returns an attribute value from which the monitor reads a version number.
func version(n int) string { return fmt.Sprintf("version %d", n) }

// item is an element of a request's assetData, with the fields that the tests read.
type item struct {
	Asset struct {
		AssetHeader struct {
			ExternalAssetID string `json:"externalAssetId"`
			VendorAssetID   string `json:"vendorAssetId"`
		} `json:"assetHeader"`
		AssetDetail struct {
			UserAssetClass struct {
				Status   string `json:"status"`
				JobTitle string `json:"jobTitle"`
			} `json:"userAssetClass"`
			GroupAssetClass struct {
				Status      string `json:"status"`
				Description string `json:"description"`
			} `json:"groupAssetClass"`
		} `json:"assetDetail"`
	} `json:"asset"`
}

func (i item) guid() string { return i.Asset.AssetHeader.VendorAssetID }

func (i item) isDeleted() bool {
	return i.Asset.AssetDetail.UserAssetClass.Status == "DELETED" || i.Asset.AssetDetail.GroupAssetClass.Status == "DELETED"
}

func (i item) version() int {
	n := 0
	_, _ = fmt.Sscanf(i.Asset.AssetDetail.UserAssetClass.JobTitle+i.Asset.AssetDetail.GroupAssetClass.Description, "version %d", &n)
	return n
}

// parseItems returns the assets of a request body, none for a malformed one.
func parseItems(body []byte) []item {
	var request struct {
		AssetData []item `json:"assetData"`
	}
	_ = json.Unmarshal(body, &request) // the gateway reports malformed requests
	return request.AssetData
}
