package syncrun

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

const (
	capabilityLDS      = "1.2.840.113556.1.4.1851"
	capabilityReadOnly = "1.2.840.113556.1.4.1920"
)

// newReadOnlyEnv returns an environment with a read-only domain controller and three users. The
// schema excludes some attributes from such controllers.
func newReadOnlyEnv(t *testing.T, filtered ...string) *env {
	t.Helper()
	e := newLDAPEnv(t)
	e.ldap.Users, e.ldap.Filtered = fakeldap.Users(3), filtered
	e.ldap.RootDSE = map[string]string{"supportedCapabilities": capabilityReadOnly, "configurationNamingContext": "CN=Configuration," + fakeldap.Base}
	return e
}

// TestReadOnlyController checks that a read-only domain controller is read, with one warning per
// process, if it has all attributes of the map.
func TestReadOnlyController(t *testing.T) {
	t.Parallel()
	for name, filtered := range map[string][]string{
		"default": {"msFVE-RecoveryPassword", "msPKIAccountCredentials", "msTPM-OwnerInformation"}, "schema unreadable": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newReadOnlyEnv(t, filtered...)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
			lines := e.log.With(MsgReadOnlyController)
			if len(lines) != 1 || lines[0].Text("level") != "warn" || !strings.Contains(lines[0].Text("remedy"), "ldap.host") || lines[0].Text("dc") == "" {
				t.Errorf("log %v", lines)
			}
		})
	}
}

// TestServerFailsBeforeRun checks that a controller whose first response after the bind is a failure is
// recorded, so that the next run tries it last.
func TestServerFailsBeforeRun(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadOnly: true}, 3)
	e.failBusy(e.busyOnce(51, "attributeSchema"), fault.Transient, full)
	if _, failed, err := e.store.LastServers(); err != nil || failed.InvocationID != e.InvocationID() {
		t.Errorf("failed server %+v, error %v", failed, err)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	if _, failed, err := e.store.LastServers(); err != nil || failed != (state.Server{}) {
		t.Errorf("failed server %+v after a complete run, error %v", failed, err)
	}
}

// TestMissingAttributeIsNotEmpty checks that the values of an attribute that a read-only domain
// controller does not have stay at the gateway.
func TestMissingAttributeIsNotEmpty(t *testing.T) {
	t.Parallel()
	e := newReadOnlyEnv(t)
	for _, user := range e.ldap.Users {
		user.Attributes["mobile"] = "+1 555 0100"
	}
	readOnly := e.ldap.RootDSE
	e.ldap.RootDSE = nil
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	before := e.gateway.Held()
	e.ldap.RootDSE, e.ldap.Filtered = readOnly, []string{"msFVE-RecoveryPassword", "MOBILE"}
	for _, user := range e.ldap.Users {
		delete(user.Attributes, "mobile")
	}
	run, err := e.failedRun(RunOptions{})
	if !errors.Is(err, errFiltered) || fault.ClassOf(err) != fault.Refused || !strings.Contains(err.Error(), "mobile") || !strings.Contains(fault.Remedy(err), "writable") {
		t.Errorf("run %+v, error %v", run, err)
	}
	if after := e.gateway.Held(); !maps.Equal(before, after) {
		t.Errorf("assets changed: %v, before %v", after, before)
	}
	if requests := len(e.ldap.Filters()); requests != 3 { // users and groups of the first run, the schema
		t.Errorf("%d searches", requests)
	}
}

// TestFilteredPartOfDomainIsUnreadable checks that a part of the domain's asset is listed as
// unreadable if the server lacks attributes of it.
func TestFilteredPartOfDomainIsUnreadable(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 1)
	opened, err := directory.Connect(t.Context(), e.Directory.Options(directory.LDAP))
	e.must(err)
	defer opened.Close()
	for _, filtered := range [][]string{nil, {"TrustAttributes"}} {
		s := &session{Session: opened, idleLimit: 1 << 40, filtered: filtered}
		input := reading{Source{Base: e.base, Scope: directory.Subtree, Posture: true}, s, Snapshot{SameTarget: true}, Plan{Mode: full}}
		reader := e.runner.newReader(e.runner.newRunInfo(RunOptions{}), input, memberships{graph: membership.New()}, logonSources{})
		var sent struct {
			Asset struct {
				AssetDetail struct {
					DomainAssetClass struct{ Unreadable []string }
				}
			}
		}
		_, err := reader.readDomain(t.Context(), identity.NewCollector(), sink{add: func(asset identity.Asset) error { return json.Unmarshal(asset.JSON, &sent) }})
		e.must(err)
		if unreadable := sent.Asset.AssetDetail.DomainAssetClass.Unreadable; slices.Contains(unreadable, "trusts") != (filtered != nil) {
			t.Errorf("unreadable: %v with filtered attributes %v", unreadable, filtered)
		}
	}
}

// TestLDS checks that AD LDS is read like other servers that are no domain controllers, with one
// warning per process, and that the status there comes from the computed flags.
func TestLDS(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(3)
	e.ldap.RootDSE = map[string]string{"supportedCapabilities": capabilityLDS, "defaultNamingContext": ""}
	for n, computed := range []string{"2", "16", "0"} {
		delete(e.ldap.Users[n].Attributes, "userAccountControl")
		e.ldap.Users[n].Attributes["msDS-User-Account-Control-Computed"] = computed
	}
	e.options.Search.UserFilter = "(objectClass=user)"
	e.start()
	for n, uploaded := range []int{3, 0} {
		run := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: uploaded})
		if got := e.ldap.Filters()[2*n:]; run.Users != 3 || !slices.Contains(got, "(objectClass=user)") {
			t.Errorf("%d users, filters %v", run.Users, got)
		}
	}
	statuses := map[string]int{}
	for _, asset := range e.gateway.Held() {
		_, after, _ := strings.Cut(asset, `"status":"`)
		status, _, _ := strings.Cut(after, `"`)
		statuses[status]++
	}
	if want := map[string]int{"DISABLED": 1, "LOCKED": 1, "ACTIVE": 1}; !maps.Equal(statuses, want) {
		t.Errorf("statuses %v", statuses)
	}
	if lines := e.log.With(MsgLDS); len(lines) != 1 || lines[0].Text("level") != "warn" || lines[0].Text("remedy") == "" {
		t.Errorf("log %v", lines)
	}
}

// TestMissingRootDSEAttributes checks that a server that is no domain controller is read without
// a warning, whichever attributes its rootDSE lacks.
func TestMissingRootDSEAttributes(t *testing.T) {
	t.Parallel()
	for name, root := range map[string]map[string]string{
		"all":                   {"defaultNamingContext": "", "dnsHostName": ""},
		"default naming":        {"defaultNamingContext": ""},
		"host name":             {"dnsHostName": ""},
		"service name":          {"highestCommittedUSN": "1", "isSynchronized": "TRUE"},
		"highestCommittedUSN":   {"dsServiceName": "CN=NTDS Settings,CN=DC1"},
		"isSynchronized":        {"supportedCapabilities": "1.2.840.113556.1.4.800"},
		"supportedCapabilities": {"isSynchronized": "TRUE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newLDAPEnv(t)
			e.ldap.PlainLDAP, e.ldap.RootDSE, e.ldap.Users = true, root, fakeldap.Users(3)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.ldap.Users = e.ldap.Users[:2]
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
			for _, line := range slices.Concat(e.log.With(MsgLDS), e.log.With(MsgReadOnlyController), e.log.With(MsgInvocationIDUnreadable)) {
				t.Errorf("log %v", line)
			}
		})
	}
}
