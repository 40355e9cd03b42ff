package faults

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"adconnector/test/oracle"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// monitor checks every batch that the gateway accepts, at the time of acceptance: for false
// deletions and for values that are older than those accepted before.
type monitor struct {
	t *testing.T

	mu        sync.Mutex
	deleted   map[string]bool // objects that the test deleted, by GUID
	latest    map[string]int  // highest accepted version, by GUID
	requests  map[string]bool // accepted, by Idempotency-Key
	accepted  int             // objects; repeated deliveries count
	deletions int
}

func newMonitor(t *testing.T) *monitor {
	return &monitor{t: t, deleted: map[string]bool{}, latest: map[string]int{}, requests: map[string]bool{}}
}

// expectDeletion allows the deletion of an object. Call it before the object is deleted.
func (m *monitor) expectDeletion(d *testenv.Directory, dn string) {
	guid := oracle.GUID(d.Object(dn).First("objectGUID"))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleted[guid] = true
}

// observe is a middleware. It delivers calls with assets one at a time, so that the order
// of their acceptance is known.
func (m *monitor) observe(x *testenv.Exchange, deliver func() *httptest.ResponseRecorder) *httptest.ResponseRecorder {
	if !x.HasAssets() {
		answer := deliver()
		if x.R.URL.Path == testenv.LoginPath && answer.Code/100 == 2 {
			testlog.AddSecret(strings.TrimSpace(answer.Body.String())) // a token
		}
		return answer
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	answer := deliver()
	key := x.R.Header.Get("Idempotency-Key")
	if answer.Code != http.StatusAccepted || m.requests[key] {
		return answer // rejected, or a duplicate
	}
	m.requests[key] = true
	for _, i := range parseItems(x.Body) {
		m.accepted++
		switch version := i.version(); {
		case i.isDeleted() && !m.deleted[i.guid()]:
			m.t.Errorf("false deletion: %s (%s) is in the directory", i.guid(), i.Asset.AssetHeader.ExternalAssetID)
		case i.isDeleted():
			m.deletions++
		case version < m.latest[i.guid()]:
			m.t.Errorf("%s: version %d accepted after version %d", i.guid(), version, m.latest[i.guid()])
		default:
			m.latest[i.guid()] = version
		}
	}
	return answer
}

// hasAccepted reports whether the gateway accepted the request before.
func (m *monitor) hasAccepted(r *http.Request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests[r.Header.Get("Idempotency-Key")]
}

// counts returns the number of objects accepted so far, and how many of them were deletions.
func (m *monitor) counts() (accepted, deletions int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted, m.deletions
}
