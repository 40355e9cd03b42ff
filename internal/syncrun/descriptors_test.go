package syncrun

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/state"
)

const rightFullControl = 0xf01ff

// localSystem is the SID S-1-5-18.
const localSystem = "\x01\x01\x00\x00\x00\x00\x00\x05\x12\x00\x00\x00"

// controlledBy returns a descriptor that grants an account full control. Administrators own the
// object.
func (e *env) controlledBy(dn string) string {
	e.t.Helper()
	administrators := e.Object("CN=Administrators,CN=Builtin," + e.Base()).Attributes["objectSid"][0]
	return domaincontroller.Descriptor(administrators, domaincontroller.AccessEntry{Trustee: e.Object(dn).Attributes["objectSid"][0], Mask: rightFullControl})
}

// setControl makes an account control an object.
func (e *env) setControl(dn, account string) {
	e.t.Helper()
	e.must(e.Modify(dn, ad.AttributeDescriptor, e.controlledBy(account)))
}

// controls returns who has full control over an object by its asset.
func (e *env) controls(dn string) string { return e.fullControl(e.posturePart(dn)) }

func (e *env) fullControl(posture map[string]any) string {
	controlled, _ := posture["controlledBy"].(map[string]any)
	return fmt.Sprint(controlled["fullControl"])
}

func (e *env) posturePart(dn string) map[string]any {
	posture, _ := e.asset(e.GUID(dn))["posture"].(map[string]any)
	return posture
}

func (e *env) expectControl(dn, account string) {
	e.t.Helper()
	want := fmt.Sprint(any(nil))
	if account != "" {
		want = "[" + e.SID(account) + "]"
	}
	if got := e.controls(dn); got != want {
		e.t.Errorf("%s is controlled by %s, want %s", dn, got, want)
	}
}

// domain returns the fields of the domain's asset.
func (e *env) domain() map[string]any {
	e.t.Helper()
	var document struct {
		Asset struct {
			AssetDetail struct{ DomainAssetClass map[string]any }
		}
	}
	e.must(json.Unmarshal(e.gateway.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset, &document))
	return document.Asset.AssetDetail.DomainAssetClass
}

// containers returns the DNs of the containers in the domain's asset.
func (e *env) containers() (dns []string) {
	e.t.Helper()
	list, _ := e.domain()["containers"].([]any)
	for _, item := range list {
		dns = append(dns, item.(map[string]any)["distinguishedName"].(string))
	}
	return dns
}

// newControlEnv returns an environment in which user5 controls everything. user0 is privileged by a
// group, user1 by adminCount, user2 is not.
func newControlEnv(t *testing.T) *env {
	t.Helper()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 6)
	team := e.addGroup("team", e.user(0))
	e.must(e.Modify("CN=Backup Operators,CN=Builtin,"+e.Base(), "member", team))
	e.must(e.Modify(e.user(1), "adminCount", "1"))
	for _, dn := range []string{e.user(0), e.user(1), e.user(2), team, e.base, e.Base(), "CN=AdminSDHolder,CN=System," + e.Base(), "CN=krbtgt,CN=Users," + e.Base(),
		"CN=Backup Operators,CN=Builtin," + e.Base(), "OU=Domain Controllers," + e.Base(), "CN=DC1,OU=Domain Controllers," + e.Base(), "OU=Outside," + e.Base()} {
		e.setControl(dn, e.user(5))
	}
	return e
}

func TestControlOfPrivilegedObjects(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	run := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	if run.Users != 6 || run.Groups != 1 || run.Changed != 7+postureObjects {
		t.Errorf("run %+v", run)
	}
	e.expectControl(e.user(0), e.user(5))
	e.expectControl(e.user(1), e.user(5))
	e.expectControl(e.user(2), "")
	e.expectControl(e.dn("team"), e.user(5))
	domain, want := e.domain(), "["+e.SID(e.user(5))+"]"
	for _, part := range []any{domain, domain["adminSdHolder"], domain["krbtgt"], domain["domainControllers"].([]any)[0], domain["containers"].([]any)[0], e.asset(identity.RoleGUID(e.GUID("CN=Backup Operators,CN=Builtin," + e.Base())))} {
		if got := e.fullControl(part.(map[string]any)); got != want {
			t.Errorf("controlled by %s: %v", got, part)
		}
	}
	if got, want := e.containers(), []string{"OU=Domain Controllers," + e.Base(), e.base}; !slices.Equal(got, want) {
		t.Errorf("containers %v, want %v", got, want)
	}
	if principals := fmt.Sprint(e.posturePart(e.user(0))["principals"]); !strings.Contains(principals, "name:user5") {
		t.Errorf("the principal has no name: %s", principals)
	}
	if strings.Contains(fmt.Sprint(e.gateway.Held()), "unreadable") {
		t.Error("an asset lists unreadable parts")
	}
	for _, fullSync := range []bool{false, true} {
		e.restart()
		mode := map[bool]string{false: delta, true: full}[fullSync]
		e.run(RunOptions{Full: fullSync}, state.Run{Mode: mode, Result: Processed})
	}
	e.expectConverged()
}

// TestUnreadableDescriptor checks that an unreadable descriptor is not taken for one that grants nothing.
func TestUnreadableDescriptor(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.must(e.Hide(e.Base(), ad.AttributeDescriptor))
	e.exceedOverlap() // so that the delta sync does not read the objects
	// The groups of roles. The domain, AdminSDHolder, krbtgt, and the domain controller. Its unit, and the
	// units and containers of users, of built-in groups, of AdminSDHolder, and of the scope.
	const ofDomain = rolesInSandbox + 4 + 5
	e.runWithoutDescriptors(RunOptions{}, state.Run{Mode: full, Uploaded: 7 + postureObjects}, 3+ofDomain, ":RC")
	for _, test := range []struct {
		part map[string]any
		want string
	}{
		{e.posturePart(e.user(0)), "[controlledBy]"},
		{e.posturePart(e.user(1)), "[controlledBy]"},
		{e.posturePart(e.user(2)), "<nil>"},
		{e.posturePart(e.dn("team")), "[controlledBy]"},
		{e.asset(identity.RoleGUID(e.GUID("CN=Backup Operators,CN=Builtin," + e.Base()))), "[controlledBy]"},
		{e.domain(), "[adminSdHolder.controlledBy containers controlledBy domainControllers.controlledBy krbtgt.controlledBy]"},
	} {
		if got := fmt.Sprint(test.part["unreadable"]); got != test.want {
			t.Errorf("unreadable %s, want %s", got, test.want)
		}
	}
	e.runWithoutDescriptors(RunOptions{}, state.Run{Mode: delta}, ofDomain, ":RC")
	e.expectStatusUnreadable(3 + ofDomain) // of the full sync
	e.must(e.Hide(e.Base()))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3 + 1 + rolesInSandbox}) // the containers have changed
	e.expectStatusUnreadable(3 + ofDomain)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.expectStatusUnreadable(0)
	e.expectConverged()
}

// rolesInSandbox are the roles of the domain.
const rolesInSandbox = postureObjects - 1

func TestChangedDescriptorInDeltaSync(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	for _, test := range []struct {
		name     string
		change   func()
		uploaded int
	}{
		{"of a privileged user", func() { e.setControl(e.user(0), e.user(4)) }, 1},
		{"of another user", func() { e.setControl(e.user(2), e.user(4)) }, 0},
		{"of AdminSDHolder", func() { e.setControl("CN=AdminSDHolder,CN=System,"+e.Base(), e.user(4)) }, 1},
		{"inherited", func() {
			e.setControl(e.base, e.user(4))
			e.must(e.SetDescriptor(e.user(1), e.controlledBy(e.user(4))))
			e.must(e.SetDescriptor(e.dn("team"), e.controlledBy(e.user(4))))
		}, 2 + 1}, // the domain has the container
		{"inherited later", func() {
			e.clock.Advance(propagationTime / 2)
			e.must(e.SetDescriptor(e.user(1), e.controlledBy(e.user(3))))
		}, 1},
		{"inherited before a rare run", func() {
			e.clock.Advance(3 * propagationTime)
			e.must(e.SetDescriptor(e.user(1), e.controlledBy(e.user(2))))
		}, 1},
		{"inherited too late", func() { e.must(e.SetDescriptor(e.user(1), e.controlledBy(e.user(4)))) }, 0},
	} {
		test.change()
		e.restart()
		e.exceedOverlap()
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: test.uploaded})
		e.exceedOverlap()
		if t.Failed() {
			t.Fatal(test.name)
		}
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.expectControl(e.user(1), e.user(4))
	e.expectConverged()
}

// TestContainersInDeltaSync checks that a delta sync keeps the containers of privileged objects that it
// does not read, and adds that of an object that becomes privileged.
func TestContainersInDeltaSync(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.setControl("OU=Inner,"+e.base, e.user(5))
	inner := "CN=inner,OU=Inner," + e.base
	e.AddUser(inner)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	before := e.containers()
	e.must(e.Modify(inner, "adminCount", "1"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2}) // and the domain
	want := append([]string{"OU=Inner," + e.base}, before...)
	slices.Sort(want)
	if got := e.containers(); !slices.Equal(got, want) {
		t.Errorf("containers %v, want %v", got, want)
	}
	stored, err := e.store.Containers()
	e.must(err)
	e.must(e.Modify(inner, "adminCount"))
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1}) // the domain keeps the container
	if again, err := e.store.Containers(); err != nil || !slices.Equal(stored.List, again.List) {
		t.Errorf("containers %v, want %v, error %v", again, stored, err)
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1}) // the domain
	e.expectConverged()
}

// TestPrivilegedUserDeletedBetweenSearches checks that an object that the first search has found and
// the second one has not counts as existing.
func TestPrivilegedUserDeletedBetweenSearches(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	var searches atomic.Int32
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if readsUserDescriptors(request) && searches.Add(1) == 1 {
			if err := e.Delete(e.user(1)); err != nil {
				t.Error(err)
			}
		}
		return action{forward: request}
	}})
	run := e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	if run.Users != 6 || searches.Load() == 0 {
		t.Errorf("run %+v, %d searches", run, searches.Load())
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.expectConverged()
}

// readsUserDescriptors reports whether a request is a search for users with their descriptors.
func readsUserDescriptors(request string) bool {
	return strings.Contains(request, "1.2.840.113556.1.4.801") && strings.Contains(request, "sAMAccountType")
}

// TestDescriptorSearchRestarts checks the counts after the search for descriptors was lost during
// backpressure.
func TestDescriptorSearchRestarts(t *testing.T) {
	t.Parallel()
	const users = 30
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, users)
	for n := range users {
		e.must(e.Modify(e.user(n), "adminCount", "1"))
	}
	e.options.Search.PageSize, e.options.Upload.Workers, e.options.Upload.BatchSize = 10, 1, 1
	e.idleLimit = time.Nanosecond
	var searches atomic.Int32
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if readsUserDescriptors(request) && searches.Add(1) == 2 { // its second page
			return action{}
		}
		return action{forward: request}
	}})
	e.gateway.SetFront(rejectAssetsWith(`"user3"`))
	var p Progress
	run := e.run(RunOptions{Progress: &p}, state.Run{Mode: full, Result: Partial, Uploaded: users - 1 + postureObjects, Rejected: 1})
	if run.Users != users || run.Changed != users+postureObjects || p.Read.Load() != users+postureObjects {
		t.Errorf("run %+v, %d read", run, p.Read.Load())
	}
	if n := len(e.log.With(MsgSearchRestarted)); n != 1 {
		t.Errorf("%d restarts", n)
	}
	for _, user := range e.gateway.Users() {
		if user.Times != 1 {
			t.Errorf("%s was sent %d times", user.ExternalAssetID, user.Times)
		}
	}
}

// TestServerWithoutDescriptors checks that nothing is asked for, and nothing is listed as
// unreadable, on a server that does not offer the control.
func TestServerWithoutDescriptors(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if strings.Contains(request, ad.AttributeDescriptor) || strings.Contains(request, "1.2.840.113556.1.4.801") {
			t.Errorf("request for descriptors: %q", request)
		}
		// The rootDSE then has no supported controls but those of the capabilities.
		return action{forward: strings.ReplaceAll(request, "supportedControl", "supportedControX")}
	}})
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Uploaded == 0 {
		t.Errorf("run %+v, error %v", run, err)
	}
	if held := fmt.Sprint(e.gateway.Held()); strings.Contains(held, "controlledBy") {
		t.Errorf("%s", held)
	}
}

// TestControlInWholeDomain checks a full sync that reads users once: descriptors mention accounts that
// it has not read yet.
func TestControlInWholeDomain(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.base = e.Base()
	e.setConsole()
	staff := func(n int) string { return fmt.Sprintf("CN=user%d,OU=Staff,%s", n, e.Base()) }
	for range 2 {
		run, err := e.runner.Run(t.Context(), RunOptions{Full: true})
		if err != nil || run.Result != Processed {
			t.Fatalf("run %+v, error %v", run, err)
		}
		e.expectControl(staff(0), staff(5))
		e.expectControl(staff(1), staff(5))
		e.expectControl(staff(2), "")
		if principals := fmt.Sprint(e.posturePart(staff(0))["principals"]); !strings.Contains(principals, "name:user5") {
			t.Errorf("the principal has no name: %s", principals)
		}
		if last, err := e.store.ReadableAttributes(); err != nil || last.Objects["user"]["adminCount"] != 3 { // Administrator, krbtgt
			t.Errorf("readable %v, error %v", last.Objects["user"], err)
		}
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
}

// TestUnreadableContainerInDeltaSync checks that delta syncs, which do not read the containers of objects
// that did not change, keep the list of containers incomplete.
func TestUnreadableContainerInDeltaSync(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	inner := "OU=Inner," + e.base
	e.AddUser("CN=inner," + inner)
	e.must(e.Modify("CN=inner,"+inner, "adminCount", "1"))
	var visible atomic.Bool
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if strings.Contains(request, inner) && !visible.Load() { // as the base of a search
			return action{result: ldap.LDAPResultNoSuchObject}
		}
		return action{forward: request}
	}})
	expect := func(want string) {
		t.Helper()
		if got := fmt.Sprint(e.domain()["unreadable"]); got != want {
			t.Errorf("unreadable %s, want %s", got, want)
		}
	}
	e.exceedOverlap() // so that the delta sync does not read the user
	e.runWithoutDescriptors(RunOptions{}, state.Run{Mode: full, Uploaded: 8 + postureObjects}, 1, ":LCRPRC")
	expect("[containers]")
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	expect("[containers]")
	e.expectStatusUnreadable(1)
	visible.Store(true)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	expect("<nil>")
	e.expectConverged()
}

// TestContainersOutsideOfScope checks that a full sync finds the containers of computers and of accounts
// outside of the scope by their memberships.
func TestContainersOutsideOfScope(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	admin := "CN=admin,OU=Outside," + e.Base()
	e.AddUser(admin)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	before := e.containers()
	e.must(e.Modify("CN=Server Operators,CN=Builtin,"+e.Base(), "member", admin))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 2}) // the role, the domain
	want := append([]string{"OU=Outside," + e.Base()}, before...)
	slices.Sort(want)
	if got := e.containers(); !slices.Equal(got, want) {
		t.Errorf("containers %v, want %v", got, want)
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
}

// TestAdministratorsOfForestRoot checks that Enterprise Admins of the root domain are left out in
// another domain of the forest, if the SID of the root is readable.
func TestAdministratorsOfForestRoot(t *testing.T) {
	t.Parallel()
	const (
		root    = "DC=example,DC=com"
		domain  = "\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00\x07\x00\x00\x00\x07\x00\x00\x00\x07\x00\x00\x00"
		sid     = "\x01\x04" + domain
		admins  = "\x01\x05" + domain + "\x07\x02\x00\x00" // 519
		another = "\x01\x05" + domain + "\x00\x02\x00\x00" // 512
	)
	trust := func(attributes string) domaincontroller.Object {
		return domaincontroller.Object{DN: "CN=example.com,CN=System,DC=corp,DC=example,DC=com", Attributes: map[string][]string{"objectClass": {"trustedDomain"},
			"trustPartner": {"example.com"}, "trustAttributes": {attributes}, "securityIdentifier": {sid}, "trustDirection": {"3"}, "trustType": {"2"}}}
	}
	for _, test := range []struct {
		name   string
		object domaincontroller.Object
		want   string
	}{
		// The sandbox returns the reference in the stored form. The proxy makes the filter match.
		{"cross-reference object", domaincontroller.Object{DN: "CN=EXAMPLE,CN=Partitions,CN=Configuration,DC=corp,DC=example,DC=com", Attributes: map[string][]string{
			"objectClass": {"crossRef"}, "nCName": {fmt.Sprintf("<GUID=%032x>;<SID=%x>;%s", 1, sid, root)}, "dnsRoot": {root[1:]}}}, "[S-1-5-21-7-7-7-512]"},
		{"trust within the forest", trust("32"), "[S-1-5-21-7-7-7-512]"},
		{"trust with another forest", trust("8"), "[S-1-5-21-7-7-7-512 S-1-5-21-7-7-7-519]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newPostureEnv(t, domaincontroller.Options{ForestRoot: root}, 1)
			e.must(e.Add(test.object))
			e.connectThrough(proxy{request: func(_ int, request string) action {
				return action{forward: strings.Replace(request, "\x06nCName\x04\x11"+root, "\x07dnsRoot\x04\x10"+root[1:], 1)}
			}})
			e.must(e.Modify(e.user(0), "adminCount", "1"))
			e.must(e.Modify(e.user(0), ad.AttributeDescriptor, domaincontroller.Descriptor(admins,
				domaincontroller.AccessEntry{Trustee: admins, Mask: rightFullControl}, domaincontroller.AccessEntry{Trustee: another, Mask: rightFullControl})))
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1 + postureObjects})
			if got := e.controls(e.user(0)); got != test.want {
				t.Errorf("full control %s, want %s", got, test.want)
			}
		})
	}
}

// TestRefusedDescriptors checks that descriptors are unreadable if the server offers them, but refuses to
// return them, and that they are requested again by the next run.
func TestRefusedDescriptors(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	var accepted atomic.Bool
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if strings.Contains(request, "1.2.840.113556.1.4.801") && !accepted.Load() {
			return action{result: ldap.LDAPResultUnavailableCriticalExtension}
		}
		return action{forward: request}
	}})
	e.exceedOverlap() // so that the delta sync does not read the objects
	const remedy, ofDomain = "without a proxy that refuses the LDAP control 1.2.840.113556.1.4.801", rolesInSandbox + 4 + 5
	e.runWithoutDescriptors(RunOptions{}, state.Run{Mode: full, Uploaded: 7 + postureObjects}, 3+ofDomain, remedy)
	if got, want := fmt.Sprint(e.domain()["unreadable"]), "[adminSdHolder.controlledBy containers controlledBy domainControllers.controlledBy krbtgt.controlledBy]"; got != want {
		t.Errorf("unreadable %s, want %s", got, want)
	}
	for _, dn := range []string{e.user(0), e.user(1), e.dn("team")} {
		if got := fmt.Sprint(e.posturePart(dn)["unreadable"]); got != "[controlledBy]" {
			t.Errorf("%s: unreadable %s", dn, got)
		}
	}
	e.runWithoutDescriptors(RunOptions{}, state.Run{Mode: delta}, ofDomain, remedy)
	accepted.Store(true)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3 + postureObjects})
	e.expectControl(e.user(0), e.user(5))
	e.expectConverged()
}

// TestLargeContainers checks that containers with large descriptors do not make the domain too large to
// be sent, and that each run leaves out the same ones.
func TestLargeContainers(t *testing.T) {
	t.Parallel()
	const containers, entries = 30, 1800
	e := newControlEnv(t)
	var list []domaincontroller.AccessEntry
	for i := range entries {
		sid := fmt.Sprintf("\x01\x05\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00\x07\x00\x00\x00\x07\x00\x00\x00\x07\x00\x00\x00%04d", i)
		list = append(list, domaincontroller.AccessEntry{Trustee: sid, Mask: rightFullControl})
	}
	descriptor := domaincontroller.Descriptor(localSystem, list...)
	for n := range containers {
		unit := fmt.Sprintf("OU=unit%d,%s", n, e.base)
		e.must(e.Add(domaincontroller.Object{DN: unit, Attributes: map[string][]string{"objectClass": {"organizationalUnit"}}}))
		e.must(e.SetDescriptor(unit, descriptor))
		e.AddUser("CN=admin," + unit)
		e.must(e.Modify("CN=admin,"+unit, "adminCount", "1"))
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: containers + 7 + postureObjects})
	if listed := len(e.containers()); listed < 5 || listed > containers {
		t.Errorf("%d containers", listed)
	}
	if got := fmt.Sprint(e.domain()["unreadable"]); got != "[containers]" {
		t.Errorf("unreadable %s", got)
	}
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
}
