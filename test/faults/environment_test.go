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

// plan describes an environment. Zero values are the defaults.
type plan struct {
	users, groups int
	tls           bool // the gateway listens for HTTPS
}

// environment is a domain controller behind a relay, a gateway behind a witness, and the
// settings that lead to them.
type environment struct {
	*testenv.Environment
	t        *testing.T
	random   *mathrand.Rand
	started  time.Time // at which the directory's clock stands
	relay    *relay    // to the directory
	witness  *witness
	settings testenv.Settings

	mu     sync.Mutex
	people []string // distinguished names of the users that may be changed
	groups []string
	made   int // objects and values that the test has made
}

func newEnvironment(t *testing.T, p plan) *environment {
	t.Helper()
	s := &environment{t: t, random: seeded(t), started: time.Now(), witness: newWitness(t)}
	password := testlog.AddSecret("Bind-" + rand.Text())
	gateway := gatewayserver.Options{
		Username: "qualys_ad1", Password: "Pw-" + rand.Text() + `"#$ %`, ClientID: "client-7", ClientSecret: "Cs-" + rand.Text(),
	}
	testlog.AddCredentials(gateway.Username, gateway.Password)
	testlog.AddCredentials(gateway.ClientID, gateway.ClientSecret)
	s.Environment = testenv.New(t, testenv.Options{Directory: s.directoryOptions(p, password), Gateway: gateway, TLS: p.tls})
	s.relay = newRelay(t, fmt.Sprintf("127.0.0.1:%d", s.Port))
	s.Gateway.SetMiddleware(s.witness.observe)
	for _, o := range s.Objects() {
		if !strings.Contains(o.DN, ",OU=") || o.DN == s.BindDN() {
			continue
		}
		switch entryOf(o).Kind() {
		case oracle.User:
			s.people = append(s.people, o.DN)
		case oracle.Group:
			s.groups = append(s.groups, o.DN)
		}
	}
	s.Console("LDAP", s.Base())
	connection := *s.Gateway.Options.Connection
	connection.Authentication.Port = s.relay.port
	s.Gateway.SetConnection(&connection)
	s.settings = s.Gateway.Settings().With(testenv.Settings{
		"authentication.type": "BASIC", "service.cron-expression": "0 0 3 * * *",
		"service.state-dir": s.StateDir, "service.admin.address": "off",
	})
	return s
}

// directoryOptions describe the domain. Each directory made of them holds the same objects.
func (s *environment) directoryOptions(p plan, password string) domaincontroller.Options {
	return domaincontroller.Options{
		Users: p.users, Groups: p.groups, Seed: *seedFlag, Password: password, ReadsDeleted: true,
		Now: func() time.Time { return s.started },
	}
}

// reinstall removes what was sent, on both sides. No connector may run.
func (s *environment) reinstall() {
	s.t.Helper()
	must(s.t, os.RemoveAll(s.settings["service.state-dir"]))
	s.Gateway.Reset()
}

// newStateDir returns a state directory that does not exist yet.
func (s *environment) newStateDir() string { return filepath.Join(s.t.TempDir(), "state") }

// mutate makes n random changes in the directory.
func (s *environment) mutate(n int) {
	s.t.Helper()
	for range n {
		must(s.t, s.mutateOnce())
	}
}

// modify changes n values and nothing else.
func (s *environment) modify(n int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.made++
		must(s.t, s.Modify(s.people[s.random.IntN(len(s.people))], "title", version(s.made)))
	}
}

func (s *environment) mutateOnce() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	pick := func(from []string) (int, string) {
		i := s.random.IntN(len(from))
		return i, from[i]
	}
	switch s.random.IntN(12) {
	case 0:
		i, dn := pick(s.people)
		s.witness.mayGo(s.Directory, dn)
		s.people = append(s.people[:i], s.people[i+1:]...)
		return s.Delete(dn)
	case 1:
		_, near := pick(s.people)
		_, container, _ := strings.Cut(near, ",OU=")
		dn := fmt.Sprintf("CN=Ä new person %d,OU=%s", s.made, container)
		s.people = append(s.people, dn)
		return s.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{
			"objectClass": {"user"}, "userAccountControl": {"66048"}, "sAMAccountName": {fmt.Sprintf("new%d", s.made)},
		}})
	case 2:
		i, dn := pick(s.people)
		_, container, _ := strings.Cut(dn, ",OU=")
		name := fmt.Sprintf("Renamed %d", s.made)
		s.people[i] = "CN=" + name + ",OU=" + container
		return s.Rename(dn, name)
	case 3:
		_, dn := pick(s.people)
		return s.Disable(dn)
	case 4:
		_, dn := pick(s.groups)
		return s.Modify(dn, "description", version(s.made))
	default:
		_, dn := pick(s.people)
		return s.Modify(dn, "title", version(s.made))
	}
}

// version returns a value whose age the witness knows.
func version(n int) string { return fmt.Sprintf("version %d", n) }

// item is the part of an asset that the tests read.
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

func itemsOf(body []byte) []item {
	var request struct {
		AssetData []item `json:"assetData"`
	}
	_ = json.Unmarshal(body, &request) // the gateway reports what is malformed
	return request.AssetData
}
