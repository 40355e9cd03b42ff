package faults

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/oracle"
	"adconnector/internal/sandbox"
)

const (
	customerUUID   = "3e8c2a51-0d0e-4bb7-9f0a-5f1f4e8d2a01"
	connectionUUID = "3e8c2a51-0d0e-4bb7-9f0a-5f1f4e8d2a02"
	profileUUID    = "3e8c2a51-0d0e-4bb7-9f0a-5f1f4e8d2a03"

	assetsPath = "/rest/2.0/am/connector/asset/data/sync"
	statePath  = "/rest/2.0/am/connector/connection/" + connectionUUID + "/state"
)

// plan says what a site is made of.
type plan struct {
	users, groups int
	options       sandbox.GatewayOptions // what is not said here is filled in
	tls           bool                   // the gateway speaks HTTPS
}

// site is a directory, a relay in front of it, a gateway with a front of its own,
// and the settings that lead to them.
type site struct {
	t         *testing.T
	random    *mathrand.Rand
	started   time.Time // at which the directory's clock stands
	password  string    // of the directory's account
	directory *sandbox.Directory
	relay     *relay
	gateway   *sandbox.Gateway
	server    *httptest.Server
	witness   *witness
	settings  settings
	options   sandbox.GatewayOptions

	mu     sync.Mutex
	front  front
	calls  map[string]int // by path
	people []string       // distinguished names of the users that may be changed, and of the groups
	groups []string
	made   int // objects and values that the test has made
}

// exchange is a call that has come to the gateway.
type exchange struct {
	w      http.ResponseWriter
	r      *http.Request
	body   []byte
	number int // of the calls with its path, from 1
	// deliver lets the gateway have the call, and returns its answer, which is not
	// sent yet.
	deliver func() *httptest.ResponseRecorder
}

// front stands before the gateway. True: it has dealt with the exchange.
type front func(*exchange) bool

func newSite(t *testing.T, p plan) *site {
	t.Helper()
	s := &site{t: t, calls: map[string]int{}, random: seeded(t), started: time.Now(), password: searched.keep("Bind-" + rand.Text())}
	s.directory = s.replica(p)
	s.relay = newRelay(t, s.serve(s.directory, "127.0.0.1:0"))
	s.witness = newWitness(t)
	for _, o := range s.directory.Objects() {
		if !strings.Contains(o.DN, ",OU=") || o.DN == s.directory.BindDN() {
			continue
		}
		switch entryOf(o).Kind() {
		case oracle.User:
			s.people = append(s.people, o.DN)
		case oracle.Group:
			s.groups = append(s.groups, o.DN)
		}
	}
	o := p.options
	o.CustomerUUID, o.ConnectionUUID, o.ProfileUUID = customerUUID, connectionUUID, profileUUID
	o.Username, o.Password = "qualys_ad1", "Pw-"+rand.Text()+`"#$ %`
	o.ClientID, o.ClientSecret = "client-7", "Cs-"+rand.Text()
	searched.keepPair(o.Username, o.Password)
	searched.keepPair(o.ClientID, o.ClientSecret)
	o.Connection = &sandbox.Connection{ConnectionUUID: connectionUUID, Name: "faults", Authentication: sandbox.Authentication{
		Type: "LDAP", Host: "127.0.0.1", Port: s.relay.port, BindDN: s.directory.BindDN(), Password: s.password,
		Certificate: string(s.directory.CertificatePEM()),
	}}
	o.Profile = &gateway.Profile{ProfileUUID: profileUUID, Name: "all", BaseContext: s.directory.Base(), SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"}
	s.options, s.gateway = o, sandbox.NewGateway(o)
	s.settings = settings{
		"qualys.customerUuid": customerUUID, "qualys.connectionUuid": connectionUUID, "qualys.profileUuid": profileUUID,
		"authentication.type": "BASIC", "qualys.user.username": o.Username, "qualys.user.password": o.Password,
		"service.cron-expression": "0 0 3 * * *", "service.state-dir": s.newStateDir(),
		"service.admin.address": "127.0.0.1:" + strconv.Itoa(closedPort(t)),
	}
	s.listen(p.tls)
	t.Cleanup(s.contractKept)
	return s
}

func (s *site) contractKept() {
	for _, violation := range s.gateway.Violations() {
		s.t.Errorf("the gateway's contract was broken: %s", violation)
	}
}

// reinstall forgets everything that was sent, on both sides. No connector may run.
func (s *site) reinstall() {
	s.t.Helper()
	s.contractKept()
	must(s.t, os.RemoveAll(s.settings["service.state-dir"]))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway, s.calls = sandbox.NewGateway(s.options), map[string]int{}
}

// replica makes a directory of the site's domain: each one holds the same objects.
func (s *site) replica(p plan) *sandbox.Directory {
	return sandbox.NewDirectory(sandbox.DirectoryOptions{
		Users: p.users, Groups: p.groups, Seed: *seedFlag, Password: s.password, ReadsDeleted: true,
		Now: func() time.Time { return s.started },
	})
}

// serve lets a directory listen, and returns where.
func (s *site) serve(d *sandbox.Directory, address string) string {
	s.t.Helper()
	listener, err := net.Listen("tcp", address)
	must(s.t, err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = d.Serve(s.t.Context(), listener, nil) })
	s.t.Cleanup(func() {
		d.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

func (s *site) newStateDir() string { return filepath.Join(s.t.TempDir(), "state") }

// listen opens the gateway's port.
func (s *site) listen(secure bool) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the connector has gone
		}
		s.mu.Lock()
		s.calls[r.URL.Path]++
		x := &exchange{w: w, r: r, body: body, number: s.calls[r.URL.Path]}
		front, gateway := s.front, s.gateway
		s.mu.Unlock()
		x.deliver = func() *httptest.ResponseRecorder {
			again := r.Clone(r.Context())
			again.Body = io.NopCloser(bytes.NewReader(x.body))
			again.ContentLength = int64(len(x.body))
			answer := httptest.NewRecorder()
			s.witness.deliver(again, x.body, answer, gateway)
			return answer
		}
		if front == nil || !front(x) {
			x.answer(x.deliver())
		}
	})
	s.server = httptest.NewUnstartedServer(handler)
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that were cut
	if secure {
		s.server.EnableHTTP2 = true
		s.server.StartTLS()
		file := filepath.Join(s.t.TempDir(), "gateway.pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
		must(s.t, os.WriteFile(file, text, 0o600))
		s.settings["gateway.ca-file"] = file
	} else {
		s.server.Start()
	}
	s.settings["connector.api.url"] = s.server.URL
	s.t.Cleanup(s.server.Close)
}

// answer sends what the gateway has answered.
func (x *exchange) answer(a *httptest.ResponseRecorder) {
	for key, values := range a.Header() {
		x.w.Header()[key] = values
	}
	x.w.WriteHeader(a.Code)
	_, _ = x.w.Write(a.Body.Bytes())
}

// status answers in the gateway's place.
func (x *exchange) status(code int, text string) bool {
	x.w.Header().Set("Content-Type", "application/json")
	x.w.WriteHeader(code)
	_, _ = io.WriteString(x.w, text)
	return true
}

// reset cuts the connection as hard as TCP can.
func (x *exchange) reset() bool {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: resets the stream
	}
	if secure, is := conn.(*tls.Conn); is {
		conn = secure.NetConn()
	}
	if plain, is := conn.(*net.TCPConn); is {
		_ = plain.SetLinger(0)
	}
	_ = conn.Close()
	return true
}

func (x *exchange) isBatch() bool { return x.r.URL.Path == assetsPath }

// assets are the items of a batch.
func (x *exchange) assets() []item { return itemsOf(x.body) }

// facing sets what stands before the gateway; nil: nothing.
func (s *site) facing(f front) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.front = f
}

// closedPort is a port of 127.0.0.1 on which nothing listens.
func closedPort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// mutate makes n random changes in the directory.
func (s *site) mutate(n int) {
	s.t.Helper()
	for range n {
		must(s.t, s.mutateOnce())
	}
}

// modify changes n values, and no more.
func (s *site) modify(n int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.made++
		must(s.t, s.directory.Modify(s.people[s.random.IntN(len(s.people))], "title", version(s.made)))
	}
}

func (s *site) mutateOnce() error {
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
		s.witness.mayGo(s.directory, dn)
		s.people = append(s.people[:i], s.people[i+1:]...)
		return s.directory.Delete(dn)
	case 1:
		_, near := pick(s.people)
		_, container, _ := strings.Cut(near, ",OU=")
		dn := fmt.Sprintf("CN=Ä new person %d,OU=%s", s.made, container)
		s.people = append(s.people, dn)
		return s.directory.Add(sandbox.Object{DN: dn, Attributes: map[string][]string{
			"objectClass": {"user"}, "userAccountControl": {"66048"}, "sAMAccountName": {fmt.Sprintf("new%d", s.made)},
		}})
	case 2:
		i, dn := pick(s.people)
		_, container, _ := strings.Cut(dn, ",OU=")
		name := fmt.Sprintf("Renamed %d", s.made)
		s.people[i] = "CN=" + name + ",OU=" + container
		return s.directory.Rename(dn, name)
	case 3:
		_, dn := pick(s.people)
		return s.directory.Disable(dn)
	case 4:
		_, dn := pick(s.groups)
		return s.directory.Modify(dn, "description", version(s.made))
	default:
		_, dn := pick(s.people)
		return s.directory.Modify(dn, "title", version(s.made))
	}
}

// version is a value that the witness can tell from older ones.
func version(n int) string { return fmt.Sprintf("version %d", n) }

// item is what the tests look at in an asset.
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
	_ = json.Unmarshal(body, &request) // the gateway complains
	return request.AssetData
}

// batches is how many calls with assets have come since the last installation.
func (s *site) batches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[assetsPath]
}
