package faults

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/sandbox"
)

// The transformation once more, from its description alone, so that one misreading
// is not shared by the code and its test.

// flat is an asset with one value for each leaf of its JSON, keyed by the path to it.
type flat map[string]string

// inScope tells users and groups from what lives beside them, by class.
func inScope(o sandbox.Object) (ours, isUser bool) {
	classes := o.Attributes["objectClass"]
	if o.First("isDeleted") != "" {
		return false, false
	}
	if slices.Contains(classes, "group") {
		return true, false
	}
	others := []string{"computer", "msDS-ManagedServiceAccount", "msDS-GroupManagedServiceAccount"}
	isUser = slices.Contains(classes, "user") && !slices.ContainsFunc(others, func(c string) bool { return slices.Contains(classes, c) })
	return isUser, isUser
}

// wanted is what the gateway must hold of a directory, by vendorAssetId.
func wanted(d *sandbox.Directory, now time.Time) map[string]flat {
	all := map[string]flat{}
	for _, o := range d.Objects() {
		ours, isUser := inScope(o)
		if !ours {
			continue
		}
		asset := flat{}
		const header, detail = "asset.assetHeader.", "asset.assetDetail."
		class := detail + "groupAssetClass."
		if isUser {
			class = detail + "userAssetClass."
		}
		set := func(path, value string) {
			if value != "" {
				text, _ := json.Marshal(value) // of a text it cannot fail
				asset[path] = string(text)
			}
		}
		sid, guid := sidText(o.First("objectSid")), guidText(o.First("objectGUID"))
		set(header+"externalAssetId", sid)
		set(header+"vendorAssetId", guid)
		set(detail+"name", o.First("name"))
		set(class+"id", sid)
		set(class+"name", o.First("name"))
		set(class+"displayName", o.First("displayName"))
		if isUser {
			userFields(o, now, set, class)
			if count := o.First("badPwdCount"); count != "" {
				asset[class+"failedPasswordAttemptCount"] = count
			}
		} else {
			groupFields(o, set, class)
		}
		all[guid] = asset
	}
	return all
}

func userFields(o sandbox.Object, now time.Time, set func(path, value string), class string) {
	for source, target := range map[string]string{
		"mail": "email", "givenName": "firstName", "sn": "lastName", "mobile": "phone", "title": "jobTitle",
		"l": "currentAddress.city", "streetAddress": "currentAddress.streetAddress", "st": "currentAddress.state",
	} {
		set(class+target, o.First(source))
	}
	country := o.First("co")
	if country == "" {
		country = o.First("c")
	}
	set(class+"currentAddress.country", country)
	const stamp = "2006-01-02T15:04:05.000Z"
	if at, err := time.Parse("20060102150405.0Z", o.First("whenCreated")); err == nil {
		set(class+"activationDate", at.Format(stamp))
	}
	for source, target := range map[string]string{
		"lastLogon": "lastSuccessfulLoginAt", "pwdLastSet": "passwordLastChangedAt", "accountExpires": "accountExpirationAt",
		"badPasswordTime": "lastFailedPasswordAttemptAt",
	} {
		if at, is := moment(o, source); is {
			set(class+target, at.Format(stamp))
		}
	}
	status := "ACTIVE"
	computed := number(o, "msDS-User-Account-Control-Computed")
	expires, does := moment(o, "accountExpires")
	switch {
	case number(o, "userAccountControl")&0x2 != 0:
		status = "DISABLED"
	case does && !expires.After(now):
		status = "EXPIRED"
	case computed&0x10 != 0:
		status = "LOCKED"
	case computed&0x800000 != 0:
		status = "PASSWORD_EXPIRED"
	}
	set(class+"status", status)
}

func groupFields(o sandbox.Object, set func(path, value string), class string) {
	set(class+"description", o.First("description"))
	bits := number(o, "groupType")
	kind, visibility := "DISTRIBUTION", "PUBLIC"
	if bits&0x80000000 != 0 {
		kind = "SECURITY"
	}
	if bits&(0x1|0x4) != 0 { // builtin, domain local
		visibility = "PRIVATE"
	}
	set(class+"type", kind)
	set(class+"visibility", visibility)
}

func number(o sandbox.Object, name string) uint32 {
	n, _ := strconv.ParseInt(o.First(name), 10, 64)
	return uint32(n)
}

// moment reads a count of 100 ns since 1601, of which 0 and the largest mean none.
func moment(o sandbox.Object, name string) (time.Time, bool) {
	n, err := strconv.ParseInt(o.First(name), 10, 64)
	if err != nil || n == 0 || n == math.MaxInt64 {
		return time.Time{}, false
	}
	first := time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC)
	return time.UnixMilli(first.UnixMilli() + n/10_000).UTC(), true
}

func sidText(raw string) string {
	text := fmt.Sprintf("S-%d-%d", raw[0], raw[7]) // no authority is above 255
	for i := 8; i+4 <= len(raw); i += 4 {
		text += fmt.Sprintf("-%d", binary.LittleEndian.Uint32([]byte(raw[i:])))
	}
	return text
}

func guidText(raw string) string {
	b := []byte(raw)
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

func flatten(text []byte) (flat, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	leaves := flat{}
	var walk func(path string, node any)
	walk = func(path string, node any) {
		if object, is := node.(map[string]any); is && len(object) > 0 {
			for key, child := range object {
				walk(strings.TrimPrefix(path+"."+key, "."), child)
			}
			return
		}
		leaf, _ := json.Marshal(node) // it was JSON before
		leaves[path] = string(leaf)
	}
	walk("", tree)
	return leaves, nil
}

// differences has one line for each field in which the gateway does not hold what
// the directory does. What has gone must be there as deleted, if it was ever there.
func (s *site) differences() (found []string) {
	want := wanted(s.directory, time.Now())
	have := map[string]flat{}
	sids := map[string]string{}
	for _, identity := range slices.Concat(s.gateway.Users(), s.gateway.Groups()) {
		asset, err := flatten(identity.Asset)
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
			found = append(found, fmt.Sprintf("%s %s: missing at the gateway", guid, asset["asset.assetDetail.name"]))
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
		if want[guid] == nil && asset["asset.assetDetail.userAssetClass.status"] != `"DELETED"` && asset["asset.assetDetail.groupAssetClass.status"] != `"DELETED"` {
			found = append(found, guid+hasGone)
		}
	}
	return found
}

const hasGone = ": has gone and is not reported as deleted"

// mustBeEqual ends the test unless the gateway holds what the directory does.
func (s *site) mustBeEqual(t *testing.T, after string) {
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
func (w *witness) mayGo(d *sandbox.Directory, dn string) {
	for _, o := range d.Objects() {
		if o.DN == dn {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.gone[guidText(o.First("objectGUID"))] = true
			return
		}
	}
}

// deliver lets the gateway have a call, one at a time where it carries assets, so
// that the order in which they are taken is known.
func (w *witness) deliver(r *http.Request, body []byte, answer *httptest.ResponseRecorder, g *sandbox.Gateway) {
	if r.URL.Path != assetsPath {
		g.ServeHTTP(answer, r)
		if strings.HasPrefix(r.URL.Path, "/auth") && answer.Code/100 == 2 {
			searched.keep(strings.TrimSpace(answer.Body.String())) // a token
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	g.ServeHTTP(answer, r)
	if id := r.Header.Get("Idempotency-Key"); answer.Code != http.StatusAccepted || w.requests[id] {
		return // not taken, or not anew
	} else {
		w.requests[id] = true
	}
	for _, i := range itemsOf(body) {
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
