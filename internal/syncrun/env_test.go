package syncrun

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/internal/upload"
	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// env is a connector with a directory, a gateway, a state file, a log and a clock. The
// directory is a domain controller, or a simple LDAP server with fixed entries.
type env struct {
	*testenv.Directory                  // nil: the directory is ldap
	ldap               *fakeldap.Server // nil: the directory is the domain controller
	gateway            *testenv.Gateway
	store              *state.Store
	stateDir           string
	log                *testlog.Log
	clock              *testenv.Clock
	options            Options
	runner             *Runner

	auth        gatewayserver.Authentication // of the connection in the console
	base        string                       // of the profile in the console
	posture     bool                         // the profile in the console includes security posture
	password    string                       // of the connector at the gateway
	idleLimit   time.Duration                // 0: the default
	maxAffected int                          // 0: the default

	t *testing.T
}

// newLDAPEnv returns an environment with an empty LDAP server. It does not support delta
// syncs.
func newLDAPEnv(t *testing.T) *env {
	t.Helper()
	return newLDAPEnvIn(t, t.TempDir(), state.Options{NoSync: true})
}

func newLDAPEnvIn(t *testing.T, stateDir string, o state.Options) *env {
	t.Helper()
	server := fakeldap.Start(t)
	auth := gatewayserver.Authentication{Type: "LDAP", Host: "127.0.0.1", Port: server.Port, BindDN: fakeldap.BindDN, Password: fakeldap.Password}
	e := newEnv(t, newClock(), auth, fakeldap.Base, stateDir, o)
	e.ldap = server
	return e
}

// newDomainEnv returns an environment with a domain controller. The profile's base is
// OU=Staff, which contains the users user0, user1, and so on, and OU=Inner. OU=Outside is a
// sibling of OU=Staff.
func newDomainEnv(t *testing.T, o domaincontroller.Options, users int) *env {
	t.Helper()
	clock := newClock()
	o.Now = clock.Now
	d := testenv.NewDirectory(t, o)
	e := newEnv(t, clock, d.Authentication("LDAP"), "OU=Staff,"+d.Base(), t.TempDir(), state.Options{NoSync: true})
	e.Directory = d
	e.options.Guard.MaxDeletesPercent = 100
	addUnits(d)
	for n := range users {
		d.AddUser(e.user(n))
	}
	e.start()
	return e
}

func newClock() *testenv.Clock {
	return testenv.NewClock(time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC))
}

func addUnits(d *testenv.Directory) {
	for _, unit := range []string{"OU=Staff,", "OU=Inner,OU=Staff,", "OU=Outside,"} {
		d.AddUnit(unit + d.Base())
	}
}

// newEnv returns an environment that connects to an existing directory.
func newEnv(t *testing.T, clock *testenv.Clock, auth gatewayserver.Authentication, base, stateDir string, o state.Options) *env {
	t.Helper()
	e := &env{
		t: t, log: &testlog.Log{}, clock: clock, gateway: testenv.NewGateway(t, testenv.GatewayOptions{}),
		stateDir: stateDir, auth: auth, base: base,
		options: Options{
			Target: "target", Search: SearchOptions{PageSize: 100}, Upload: upload.Options{Workers: 4, BatchSize: 50, BatchBytes: 1 << 20},
			Guard: Guard{MaxDeletes: 500, MaxDeletesPercent: 10}, FullInterval: 24 * time.Hour, EndTimeout: time.Minute,
		},
	}
	e.password = e.gateway.Options.Password
	e.setConsole()
	var err error
	e.store, err = o.Open(stateDir)
	e.must(err)
	t.Cleanup(func() { e.store.Close() })
	t.Cleanup(e.checkLog)
	e.start()
	return e
}

// checkLog fails the test for each line that does not have the documented format, and for each
// line above the debug level that contains a user name.
func (e *env) checkLog() {
	name := regexp.MustCompile(`user\d`)
	for _, line := range e.log.Lines() {
		if err := testlog.CheckContent(line); err != nil {
			e.t.Errorf("log line %v: %v", line, err)
		}
		if line.Text("level") != "debug" && name.MatchString(fmt.Sprint(line)) {
			e.t.Errorf("log line with a user name: %v", line)
		}
	}
}

func (e *env) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// connection returns the connection in the console with a change applied.
func (e *env) connection(change func(*gatewayserver.Authentication)) *gatewayserver.Connection {
	c := &gatewayserver.Connection{ConnectionUUID: testenv.ConnectionUUID, Name: "test", Authentication: e.auth}
	if change != nil {
		change(&c.Authentication)
	}
	return c
}

// profile returns the profile in the console with a change applied.
func (e *env) profile(change func(*gateway.Profile)) *gateway.Profile {
	p := &gateway.Profile{ProfileUUID: testenv.ProfileUUID, Name: "test", BaseContext: e.base, SearchScope: "Subtree", Assets: "Identities Only"}
	if e.posture {
		p.Assets = "Identity with security posture"
	}
	if change != nil {
		change(p)
	}
	return p
}

// setConsole sets connection and profile at the gateway.
func (e *env) setConsole() {
	e.gateway.SetConnection(e.connection(nil))
	e.gateway.SetProfile(e.profile(nil))
}

// setPosture sets whether the profile includes security posture.
func (e *env) setPosture(posture bool) {
	e.posture = posture
	e.setConsole()
}

// connectTo makes later runs read from the controller at a port.
func (e *env) connectTo(port int) {
	e.auth.Port = port
	e.setConsole()
}

// start replaces the runner, as in a new process. The state file stays open.
func (e *env) start() {
	o := e.options
	o.Store, o.Log = e.store, zerolog.New(e.log)
	client := e.gateway.ClientOptions(o.Log)
	client.Login.Password, client.Grace = secret.New(e.password), time.Minute
	o.Gateway = gateway.New(client)
	e.runner = New(o)
	e.runner.now = e.clock.Now
	if e.idleLimit > 0 {
		e.runner.idleLimit = e.idleLimit
	}
	if e.maxAffected > 0 {
		e.runner.maxAffected = e.maxAffected
	}
}

// restart replaces the runner and opens the state file again, as in a new process.
func (e *env) restart() {
	e.t.Helper()
	e.must(e.store.Close())
	store, err := state.Options{NoSync: true}.Open(e.stateDir)
	e.must(err)
	e.store = store
	e.start()
}

// run performs one run and compares its mode, result and counts with want.
func (e *env) run(options RunOptions, want state.Run) state.Run {
	e.t.Helper()
	got, err := e.runner.Run(e.t.Context(), options)
	if err != nil || brief(got) != brief(want) {
		e.t.Errorf("run: %s (error %v), want %s", brief(got), err, brief(want))
	}
	return got
}

func brief(r state.Run) string {
	return fmt.Sprintf("%s %s: %d uploaded, %d deleted, %d held, %d undecided, %d rejected", r.Mode, r.Result, r.Uploaded, r.Deleted, r.Held, r.Undecided, r.Rejected)
}

// expectUndecided expects that as many deletions are undecided for one reason, and that each
// way to read them says so. Without a reason, it expects none.
func (e *env) expectUndecided(reason state.UndecidedReason, objects int) {
	e.t.Helper()
	counts, err := e.store.UndecidedCounts()
	e.must(err)
	if reason == "" {
		if len(counts) != 0 {
			e.t.Errorf("undecided %+v", counts)
		}
		return
	}
	if len(counts) != 1 || counts[0].Reason != reason || counts[0].Objects != objects || counts[0].Remedy == "" {
		e.t.Errorf("undecided %+v, want %d with reason %q", counts, objects, reason)
	}
}

// controller returns the recorded progress with the domain controller in use.
func (e *env) controller() state.Controller {
	e.t.Helper()
	controller, err := e.store.Controller(e.InvocationID())
	e.must(err)
	return controller
}

// failedRun performs one run that must fail.
func (e *env) failedRun(options RunOptions) (state.Run, error) {
	e.t.Helper()
	run, err := e.runner.Run(e.t.Context(), options)
	if err == nil || run.Result != Failed {
		e.t.Fatalf("run: %s, error %v, want a failed run", brief(run), err)
	}
	return run, err
}

// refusedRun performs one run in which the gateway refuses all assets, and restarts.
func (e *env) refusedRun(options RunOptions) {
	e.t.Helper()
	e.gateway.SetFront(refuseAssets)
	e.failedRun(options)
	e.gateway.SetFront(nil)
	e.restart()
}

var refuseAssets = testenv.OnAssets(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "") })

// rejectAssetsWith returns a front that rejects assets requests whose body contains a text.
func rejectAssetsWith(text string) testenv.Front {
	return testenv.OnAssets(func(x *testenv.Exchange) bool {
		return strings.Contains(string(x.Body), text) && x.Status(http.StatusBadRequest, `{"message":"no such country"}`)
	})
}

// assetRequests returns the number of requests with assets.
func (e *env) assetRequests() int { return e.gateway.Arrived(testenv.AssetsPath) }

func (e *env) dn(name string) string { return "CN=" + name + "," + e.base }
func (e *env) user(n int) string     { return e.dn("user" + strconv.Itoa(n)) }

// outside returns the DN of a user after moveOut.
func (e *env) outside(n int) string { return fmt.Sprintf("CN=user%d,OU=Outside,%s", n, e.Base()) }

// moveOut moves a user out of the profile's base.
func (e *env) moveOut(n int) {
	e.t.Helper()
	e.must(e.Move(e.user(n), "OU=Outside,"+e.Base()))
}

func (e *env) moveBack(n int) {
	e.t.Helper()
	e.must(e.Move(e.outside(n), e.base))
}

// deleteUsers deletes the first users and returns their GUIDs.
func (e *env) deleteUsers(count int) []ad.GUID {
	e.t.Helper()
	guids := make([]ad.GUID, count)
	for n := range guids {
		guids[n] = e.GUID(e.user(n))
		e.must(e.Delete(e.user(n)))
	}
	return guids
}

func (e *env) addGroup(name string, members ...string) string {
	e.t.Helper()
	e.AddGroup(e.dn(name), members...)
	return e.dn(name)
}

// exceedOverlap makes more changes than the overlap covers, so that the next delta sync does
// not read earlier changes again.
func (e *env) exceedOverlap() {
	e.t.Helper()
	exceedOverlap(e.Directory)
}

func exceedOverlap(d *testenv.Directory) {
	d.SkipUSNs(overlap + 20)
}

// heldDeletions returns the number of held deletions in the state file.
func (e *env) heldDeletions() int {
	e.t.Helper()
	_, total, err := e.store.HeldDeletions(-1)
	e.must(err)
	return total
}

// fullSyncReason returns the reason of the last full sync.
func (e *env) fullSyncReason() string {
	e.t.Helper()
	lines := e.log.With(MsgSyncPlanned)
	if len(lines) == 0 {
		e.t.Fatal("no sync planned")
	}
	return lines[len(lines)-1].Text("reason")
}

// indexed returns the users of the LDAP server that are recorded as delivered.
func (e *env) indexed() []string {
	e.t.Helper()
	var ids []string
	for _, entry := range e.ldap.Users {
		guid, _ := ad.ParseGUID([]byte(entry.Attributes["objectGUID"]))
		record, _, err := e.store.Lookup(guid, nil)
		if err != nil {
			e.t.Error(err)
		} else if record.Fingerprint != (identity.Fingerprint{}) {
			ids = append(ids, guid.String())
		}
	}
	slices.Sort(ids)
	return ids
}

// usersAtGateway returns the vendorAssetIds of the users at the gateway.
func (e *env) usersAtGateway() []string {
	var ids []string
	for _, user := range e.gateway.Users() {
		ids = append(ids, user.VendorAssetID)
	}
	slices.Sort(ids)
	return ids
}

// expectRecorded expects the users recorded as delivered to be those at the gateway, and at
// least one. It returns their number.
func (e *env) expectRecorded() int {
	e.t.Helper()
	indexed, delivered := e.indexed(), e.usersAtGateway()
	if len(delivered) == 0 || !slices.Equal(indexed, delivered) {
		e.t.Errorf("%d users recorded, %d at the gateway", len(indexed), len(delivered))
	}
	return len(delivered)
}

// lister is a directory whose objects can be listed.
type lister interface {
	Objects(names ...string) []domaincontroller.Object
}

// inScope returns the expected assets of a directory's objects below a base, by GUID.
func inScope(d lister, base string, now time.Time) map[string]string {
	assets := map[string]string{}
	mappers := map[identity.Kind]*identity.Mapper{identity.User: identity.NewMapper(identity.User), identity.Group: identity.NewMapper(identity.Group)}
	read := slices.Concat(mappers[identity.User].Attributes, mappers[identity.Group].Attributes, []string{"sAMAccountType", "objectClass", "isDeleted"})
	for _, o := range d.Objects(read...) {
		kind := identity.Kind(0)
		switch {
		case !strings.HasSuffix(o.DN, ","+base), o.First("isDeleted") == "TRUE":
		case o.First("sAMAccountType") == "805306368":
			kind = identity.User
		case slices.Contains(o.Attributes["objectClass"], "group"):
			kind = identity.Group
		}
		if kind == 0 {
			continue
		}
		mapper := mappers[kind]
		entry := &ad.Entry{DN: []byte(o.DN), Values: make([][][]byte, len(mapper.Attributes))}
		for slot, attribute := range mapper.Attributes {
			for _, value := range o.Attributes[attribute] {
				entry.Values[slot] = append(entry.Values[slot], []byte(value))
			}
		}
		if asset, err := mapper.Map(nil, entry, now, identity.Logons{}); err == nil {
			assets[asset.GUID.String()] = string(asset.JSON)
		}
	}
	return assets
}

// differences compares assets by GUID. If deletions is set, assets that are not wanted must
// be marked as deleted.
func differences(got, want map[string]string, deletions bool) (diffs []string) {
	for guid, asset := range want {
		if got[guid] != asset {
			diffs = append(diffs, fmt.Sprintf("gateway: %s, directory: %s", got[guid], asset))
		}
	}
	for guid, asset := range got {
		if want[guid] == "" && deletions && !testenv.IsDeleted(asset) {
			diffs = append(diffs, "not deleted: "+asset)
		}
	}
	return diffs
}

// expectConverged expects the gateway to have all objects of the directory, and all others
// marked as deleted.
func (e *env) expectConverged() {
	e.t.Helper()
	want := inScope(e.Directory, e.base, e.clock.Now())
	if e.posture {
		want = e.firstSync()
	}
	for _, diff := range differences(e.gateway.Held(), want, true) {
		e.t.Error(diff)
	}
}

// firstSync returns the assets that a new connector sends to a new gateway, by vendorAssetId.
func (e *env) firstSync() map[string]string {
	e.t.Helper()
	other := newEnv(e.t, e.clock, e.auth, e.base, e.t.TempDir(), state.Options{NoSync: true})
	other.options.Search.UserFilter = cmp.Or(e.options.Search.UserFilter, "(objectClass=*)") // does not read users once
	other.start()
	other.setPosture(e.posture)
	if run, err := other.runner.Run(e.t.Context(), RunOptions{}); err != nil || run.Result != Processed {
		e.t.Errorf("first sync: %s, error %v", brief(run), err)
	}
	return other.gateway.Held()
}

// asset returns the class-specific fields of an object's asset at the gateway; nil: none.
func (e *env) asset(guid ad.GUID) map[string]any {
	e.t.Helper()
	text := e.gateway.Held()[guid.String()]
	if text == "" {
		return nil
	}
	var item struct {
		Asset struct{ AssetDetail map[string]any }
	}
	e.must(json.Unmarshal([]byte(text), &item))
	for class, content := range item.Asset.AssetDetail {
		if strings.HasSuffix(class, "AssetClass") {
			return content.(map[string]any)
		}
	}
	return nil
}

// status returns the status of an object at the gateway.
func (e *env) status(guid ad.GUID) any {
	e.t.Helper()
	return e.asset(guid)["status"]
}

// postureOf returns a posture value of an object at the gateway, as text.
func (e *env) postureOf(dn, key string) string {
	e.t.Helper()
	posture, _ := e.asset(e.GUID(dn))["posture"].(map[string]any)
	if posture[key] == nil {
		return ""
	}
	return fmt.Sprint(posture[key])
}

// expectPosture expects a posture value of an object to consist of the given words.
func (e *env) expectPosture(dn, key string, want ...string) {
	e.t.Helper()
	got := strings.FieldsFunc(e.postureOf(dn, key), func(r rune) bool { return strings.ContainsRune(" []", r) })
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		e.t.Errorf("%s of %s: %v, want %v", key, dn, got, want)
	}
}

// newReplica starts another controller of the same domain, by default dc2. It has other USNs
// and another invocation ID. Objects that are added to both in the same order have the same
// GUIDs and SIDs. The test replicates changes itself.
func (e *env) newReplica(o domaincontroller.Options) *testenv.Directory {
	e.t.Helper()
	o.Now, o.Name = e.clock.Now, cmp.Or(o.Name, "dc2")
	other := testenv.NewDirectory(e.t, o)
	e.must(e.AddPeer(other.Server))
	e.must(other.AddPeer(e.Server))
	fillReplica(other)
	return other
}

// newPeer is newReplica at another address of loopback, with the same port.
func (e *env) newPeer(address string, o domaincontroller.Options) *testenv.Directory {
	e.t.Helper()
	other := e.NewPeer(address, o)
	fillReplica(other)
	return other
}

// fillReplica adds the units, and makes the USNs differ from those of other controllers.
func fillReplica(d *testenv.Directory) {
	addUnits(d)
	for range 5 {
		exceedOverlap(d)
	}
}

// logHook is a log that calls do on the first line with a message and a kind.
type logHook struct {
	*testlog.Log
	message, kind string
	do            func()
	once          sync.Once
}

func (h *logHook) Write(p []byte) (int, error) {
	line, err := testlog.Parse(p)
	if err != nil {
		return 0, err
	}
	if line.Text("message") == h.message && line.Text("kind") == h.kind {
		h.once.Do(h.do)
	}
	h.Append(line)
	return len(p), nil
}

// afterUsersRead calls do when the next run has read the users for the first time.
func (e *env) afterUsersRead(do func()) {
	e.runner.Log = zerolog.New(&logHook{Log: e.log, message: MsgDirectoryRead, kind: "user", do: do})
}

// fileTime returns a time in the format of AD: in units of 100 ns since 1601.
func fileTime(t time.Time) string {
	return strconv.FormatInt((t.Unix()+11_644_473_600)*10_000_000, 10)
}

const never = "9223372036854775807" // as a file time
