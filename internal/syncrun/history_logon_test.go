package syncrun

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/state"
)

// logonHistory has the logons of a history, by the vendorAssetId of the account.
type logonHistory struct {
	latest map[string]ad.FileTime // at any controller
	// delivered has the last value that the gateway took under an externalAssetId.
	delivered map[string]string
}

var (
	logonPattern    = regexp.MustCompile(`"lastSuccessfulLoginAt":"([^"]*)",?`)
	vendorIDPattern = regexp.MustCompile(`"vendorAssetId":"([^"]+)"`)
)

// pickLogOn makes an account log on at one controller. Sometimes lastLogonTimestamp is due, which
// is replicated.
func (h *history) pickLogOn(dn, guid string) pickedChange {
	at := h.clock.Now().Add(-time.Duration(h.random.IntN(3600)) * time.Second).Truncate(time.Millisecond)
	if latest := h.logons.latest[guid]; latest != 0 && !at.After(latest.Time()) {
		at = latest.Time().Add(time.Second)
	}
	c := h.controllers[h.random.IntN(len(h.controllers))]
	if err := c.Modify(dn, "lastLogon", fileTime(at)); err != nil {
		return pickedChange{description: fmt.Sprintf("no logon of %s at %s: %v", dn, c.name, err)}
	}
	h.logons.latest[guid], _ = ad.ParseFileTime([]byte(fileTime(at)))
	if h.random.IntN(3) == 0 {
		return modification(dn, "lastLogonTimestamp", fileTime(at))
	}
	return pickedChange{description: fmt.Sprintf("logon of %s at %s, %s", dn, c.name, at.Format(time.RFC3339))}
}

// expectLogons expects that no asset of a request has a logon that never happened, or one that is
// earlier than the gateway has under the same key.
func (h *history) expectLogons(body []byte) {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	for _, asset := range strings.SplitAfter(string(body), "}}}}") {
		vendorID := vendorIDPattern.FindStringSubmatch(asset)
		if vendorID == nil || strings.Contains(asset, `"name":"svc-qualys"`) { // the connector logs on by itself
			continue
		}
		key, logon := keyOf(asset), ""
		if match := logonPattern.FindStringSubmatch(asset); match != nil {
			logon = match[1]
		}
		if strings.Contains(asset, `"status":"DELETED"`) {
			delete(h.logons.delivered, key)
			continue
		}
		if latest := h.latestLogon(vendorID[1]); logon > latest || logon < h.logons.delivered[key] {
			h.t.Errorf("logon %q, delivered before %q, latest %q: %s", logon, h.logons.delivered[key], latest, asset)
			h.logEvent("  WRONG: logon %q of %s", logon, vendorID[1])
		}
		h.logons.delivered[key] = logon
	}
}

// latestLogon returns the latest logon of an account as the gateway shows it; "": none.
func (h *history) latestLogon(guid string) string {
	if latest := h.logons.latest[guid]; latest != 0 {
		return latest.Time().Format(timeFormat)
	}
	return ""
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// expectReadLogons expects that the gateway has no logon that is earlier than those that a full
// sync could read.
func (h *history) expectReadLogons(when string) {
	held := h.gateway.Held()
	for guid, latest := range h.readableLogons() {
		got := logonPattern.FindStringSubmatch(held[guid])
		if latest != 0 && (got == nil || got[1] < latest.Time().Format(timeFormat)) {
			h.t.Errorf("%s: logon %v at the gateway, readable was %s: %s", when, got, latest.Time().Format(timeFormat), h.read.objects[guid].dn)
		}
	}
}

// readableLogons returns the latest logons that the last run could read, of accounts in scope, by
// vendorAssetId.
func (h *history) readableLogons() map[string]ad.FileTime {
	sources := []*controller{h.read}
	sweep, err := h.store.LogonSweep()
	h.must(err)
	for _, asked := range sweep.Controllers {
		for _, c := range h.controllers {
			if c.InvocationID() == asked.InvocationID && asked.Result == state.LogonsAnswered {
				sources = append(sources, c)
			}
		}
	}
	readable := map[string]ad.FileTime{}
	for _, c := range sources {
		for _, o := range c.Objects("objectGUID", "lastLogon", "lastLogonTimestamp") {
			guid := guidOf(o)
			if !h.scope.has(h.read.objects[guid]) {
				continue
			}
			for _, attribute := range []string{"lastLogon", "lastLogonTimestamp"} {
				t, _ := ad.ParseFileTime([]byte(o.First(attribute)))
				if c == h.read || attribute == "lastLogon" {
					readable[guid] = max(readable[guid], t)
				}
			}
		}
	}
	return readable
}
