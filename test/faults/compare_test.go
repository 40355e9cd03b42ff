package faults

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/test/oracle"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// entryOf is an object as an oracle takes it.
func entryOf(o domaincontroller.Object) oracle.Entry {
	e := oracle.Entry{}
	for name, values := range o.Attributes {
		e[strings.ToLower(name)] = values
	}
	return e
}

// wanted is what the gateway must hold of a directory, by vendorAssetId.
func wanted(d *domaincontroller.Server, now time.Time) map[string]oracle.Flat {
	all := map[string]oracle.Flat{}
	for _, o := range d.Objects() {
		if e := entryOf(o); e.Kind() != oracle.Other {
			asset := e.Asset(now)
			all[asset.Text(oracle.VendorID)] = asset
		}
	}
	return all
}

// differences has one line for each field in which the gateway does not hold what
// the directory does. What has gone must be there as deleted, if it was ever there.
func (s *environment) differences() (found []string) {
	want := wanted(s.Directory.Server, time.Now())
	have := map[string]oracle.Flat{}
	sids := map[string]string{}
	for _, identity := range slices.Concat(s.Gateway.Users(), s.Gateway.Groups()) {
		asset, err := oracle.Flatten(identity.Asset)
		if err != nil {
			found = append(found, fmt.Sprintf("%s: %v", identity.VendorAssetID, err))
		}
		have[identity.VendorAssetID] = asset
		if other, twice := sids[identity.ExternalAssetID]; twice {
			found = append(found, fmt.Sprintf("%s is held as %s and as %s", identity.ExternalAssetID, other, identity.VendorAssetID))
		}
		sids[identity.ExternalAssetID] = identity.VendorAssetID
	}
	for guid, asset := range want {
		held, there := have[guid]
		if !there {
			found = append(found, fmt.Sprintf("%s %s: missing at the gateway", guid, asset[oracle.Name]))
			continue
		}
		all := maps.Clone(asset)
		maps.Copy(all, held)
		for path := range all {
			if held[path] != asset[path] {
				found = append(found, fmt.Sprintf("%s %s: the gateway has %q, the directory %q", guid, path, held[path], asset[path]))
			}
		}
	}
	for guid, asset := range have {
		if want[guid] == nil && asset.Text(oracle.OfUser+"status") != "DELETED" && asset.Text(oracle.OfGroup+"status") != "DELETED" {
			found = append(found, guid+hasGone)
		}
	}
	return found
}

const hasGone = ": has gone and is not reported as deleted"

// mustBeEqual ends the test unless the gateway holds what the directory does.
func (s *environment) mustBeEqual(t *testing.T, after string) {
	t.Helper()
	found := s.differences()
	for _, difference := range found[:min(len(found), 10)] {
		t.Errorf("%s: %s", after, difference)
	}
	if len(found) > 0 {
		t.Fatalf("%s: %d differences", after, len(found))
	}
}

// witness sees what the gateway takes, at the moment at which it does.
type witness struct {
	t *testing.T

	mu        sync.Mutex
	gone      map[string]bool // objects that may be reported as deleted
	latest    map[string]int  // the highest version taken, by object
	requests  map[string]bool
	taken     int // objects, each time
	deletions int
}

func newWitness(t *testing.T) *witness {
	return &witness{t: t, gone: map[string]bool{}, latest: map[string]int{}, requests: map[string]bool{}}
}

// mayGo notes an object that is about to be deleted.
func (w *witness) mayGo(d *testenv.Directory, dn string) {
	guid := oracle.GUID(d.Object(dn).First("objectGUID"))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone[guid] = true
}

// observe delivers calls that carry assets one at a time, so that the order in which the
// gateway takes them is known.
func (w *witness) observe(x *testenv.Exchange, deliver func() *httptest.ResponseRecorder) *httptest.ResponseRecorder {
	if !x.HasAssets() {
		answer := deliver()
		if x.R.URL.Path == testenv.LoginPath && answer.Code/100 == 2 {
			testlog.AddSecret(strings.TrimSpace(answer.Body.String())) // a token
		}
		return answer
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	answer := deliver()
	id := x.R.Header.Get("Idempotency-Key")
	if answer.Code != http.StatusAccepted || w.requests[id] {
		return answer // not taken, or taken before
	}
	w.requests[id] = true
	for _, i := range itemsOf(x.Body) {
		w.taken++
		switch v := i.version(); {
		case i.isDeleted() && !w.gone[i.guid()]:
			w.t.Errorf("false deletion: %s (%s) is in the directory", i.guid(), i.Asset.AssetHeader.ExternalAssetID)
		case i.isDeleted():
			w.deletions++
		case v < w.latest[i.guid()]:
			w.t.Errorf("%s: version %d was taken after version %d", i.guid(), v, w.latest[i.guid()])
		default:
			w.latest[i.guid()] = v
		}
	}
	return answer
}

// knows reports whether a request was taken before.
func (w *witness) knows(r *http.Request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests[r.Header.Get("Idempotency-Key")]
}

// counts are the objects taken so far, and how many of them as deleted.
func (w *witness) counts() (taken, deletions int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken, w.deletions
}
