package syncrun

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// clock is a clock that is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// domain is a world whose directory is a domain controller. What the connector
// reads is OU=Staff, OU=Inner within it; OU=Outside is beside it.
type domain struct {
	*world
	*sandbox.Directory
	clock  *clock
	runner *Runner

	affectedAtMost int // 0: as ever
}

const never = "9223372036854775807"

func newDomain(t *testing.T, o sandbox.DirectoryOptions, users int) *domain {
	t.Helper()
	d := &domain{clock: &clock{at: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)}}
	port := 0
	d.Directory, port = d.controller(t, o)
	d.world = newWorldOf(t, t.TempDir(), port, d.BindDN(), "pw", "OU=Staff,"+d.Base())
	d.options.Guard.MaxDeletesPercent = 100
	d.must(furnish(d.Directory))
	for n := range users {
		d.addUser(fmt.Sprintf("user%d", n))
	}
	d.start()
	return d
}

// controller serves a directory under the domain's clock.
func (d *domain) controller(t *testing.T, o sandbox.DirectoryOptions) (*sandbox.Directory, int) {
	t.Helper()
	o.Password, o.Now = "pw", d.clock.now
	made := sandbox.NewDirectory(o)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- made.Serve(t.Context(), listener, nil) }()
	t.Cleanup(func() {
		made.Close()
		<-served
	})
	return made, listener.Addr().(*net.TCPAddr).Port
}

// furnish makes the units of a domain.
func furnish(d *sandbox.Directory) error {
	for _, unit := range []string{"OU=Staff,", "OU=Inner,OU=Staff,", "OU=Outside,"} {
		if err := d.Add(sandbox.Object{DN: unit + d.Base(), Attributes: map[string][]string{"objectClass": {"organizationalUnit"}}}); err != nil {
			return err
		}
	}
	return nil
}

func (d *domain) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// start makes a new process.
func (d *domain) start() {
	d.runner = d.process()
	d.runner.now = d.clock.now
	if d.affectedAtMost > 0 {
		d.runner.affectedAtMost = d.affectedAtMost
	}
}

// restart opens the state file anew, in a new process.
func (d *domain) restart() {
	d.t.Helper()
	d.must(d.store.Close())
	store, err := state.Open(d.dir)
	d.must(err)
	d.t.Cleanup(func() { store.Close() })
	d.store = store
	d.start()
}

func (d *domain) dn(name string) string { return "CN=" + name + "," + d.base }

func userNamed(dn, name string) sandbox.Object {
	return sandbox.Object{DN: dn, Attributes: map[string][]string{
		"objectClass": {"user"}, "userAccountControl": {"66048"}, "mail": {name + "@corp.example.com"},
	}}
}

func (d *domain) addUser(name string) string {
	d.t.Helper()
	d.must(d.Add(userNamed(d.dn(name), name)))
	return d.dn(name)
}

func (d *domain) guid(dn string) ad.GUID {
	d.t.Helper()
	for _, o := range d.Objects() {
		if o.DN == dn {
			return ad.GUID([]byte(o.First("objectGUID")))
		}
	}
	d.t.Fatalf("there is no %s", dn)
	return ad.GUID{}
}

// sync does one run and compares what matters of its account: the fields of want
// but those of time and identity, and the objects read.
func (d *domain) sync(mode Mode, want state.Run) {
	d.t.Helper()
	got, err := d.runner.Run(d.t.Context(), mode)
	brief := func(r state.Run) string {
		return fmt.Sprintf("%s %s: %d uploaded, %d deleted, %d held, %d rejected", r.Mode, r.Result, r.Uploaded, r.Deleted, r.Held, r.Rejected)
	}
	if err != nil || brief(got) != brief(want) {
		d.t.Errorf("%s (error %v), want %s", brief(got), err, brief(want))
	}
	for _, violation := range d.gateway.Violations() {
		d.t.Errorf("contract: %s", violation)
	}
}

// inScope are the assets of a directory's objects below the base, by GUID.
func inScope(d *sandbox.Directory, base string, now time.Time) map[string]string {
	assets := map[string]string{}
	mappers := map[identity.Kind]*identity.Mapper{identity.User: identity.NewMapper(identity.User), identity.Group: identity.NewMapper(identity.Group)}
	for _, o := range d.Objects() {
		kind := identity.Kind(0)
		switch {
		case !strings.HasSuffix(o.DN, ","+base):
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
		if asset, err := mapper.Map(nil, entry, now); err == nil {
			assets[asset.GUID.String()] = string(asset.JSON)
		}
	}
	return assets
}

// held are the assets of a gateway, by GUID.
func held(g *sandbox.Gateway) map[string]string {
	assets := map[string]string{}
	for _, identity := range slices.Concat(g.Users(), g.Groups(), g.Roles(), g.Domains()) {
		assets[identity.VendorAssetID] = string(identity.Asset)
	}
	return assets
}

func isDeleted(asset string) bool { return strings.Contains(asset, `"status":"DELETED"`) }

// differences compares what the gateway holds with the directory, value by value.
// What has gone must be reported as deleted only when that is settled.
func differences(have, want map[string]string, settled bool) (found []string) {
	for guid, asset := range want {
		if have[guid] != asset {
			found = append(found, fmt.Sprintf("the gateway holds %s, the directory %s", have[guid], asset))
		}
	}
	for guid, asset := range have {
		if want[guid] == "" && settled && !isDeleted(asset) {
			found = append(found, "not reported as deleted: "+asset)
		}
	}
	return found
}

// equal wants the gateway to hold what the directory does, what has gone as deleted.
func (d *domain) equal() {
	d.t.Helper()
	for _, difference := range differences(held(d.gateway), inScope(d.Directory, d.base, d.clock.now()), true) {
		d.t.Error(difference)
	}
}

// status is what the gateway says of an object.
func (d *domain) status(guid ad.GUID) string {
	var asset struct {
		Asset struct {
			AssetDetail struct {
				UserAssetClass, GroupAssetClass struct{ Status string }
			}
		}
	}
	text := held(d.gateway)[guid.String()]
	if text == "" {
		return ""
	}
	d.must(json.Unmarshal([]byte(text), &asset))
	return asset.Asset.AssetDetail.UserAssetClass.Status + asset.Asset.AssetDetail.GroupAssetClass.Status
}

func TestDelta(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 20)
	d.must(d.Add(sandbox.Object{DN: d.dn("team"), Attributes: map[string][]string{"objectClass": {"group"}, "description": {"a team"}}}))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 21})
	calls := d.calls("POST", assetsPath)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed})
	if n := d.calls("POST", assetsPath); n != calls {
		t.Errorf("%d calls when nothing changed", n-calls)
	}

	d.must(d.Modify(d.dn("user1"), "title", "Engineer"))
	d.must(d.Modify(d.dn("user2"), "mail"))
	d.must(d.Rename(d.dn("user3"), "renamed"))
	d.must(d.Move(d.dn("user4"), "OU=Inner,"+d.base)) // nothing of it is sent
	d.must(d.Disable(d.dn("user5")))
	d.must(d.Modify(d.dn("team"), "groupType", "8"))
	d.must(d.Modify(d.dn("team"), "member", d.dn("user6"))) // nor of this
	d.must(d.SetPassword(d.dn("user7"), "other"))
	d.addUser("new")
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 7})
	d.equal()

	gone := d.guid(d.dn("user8"))
	d.must(d.Delete(d.dn("user8")))
	d.must(d.Delete(d.dn("team")))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Deleted: 2})
	d.equal()
	d.must(d.Undelete(gone))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.equal()

	d.must(d.Move(d.dn("user9"), "OU=Outside,"+d.Base()))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	d.equal()
	d.must(d.Move("CN=user9,OU=Outside,"+d.Base(), d.base))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.equal()

	// Activity is no change, but goes along with one and with a full pass.
	for _, name := range []string{"user1", "user2"} {
		d.must(d.Touch(d.dn(name), "badPwdCount", "3"))
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed}) // in which they are read
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	d.equal()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
}

// TestDeletionsUnseen: without the right, a full pass finds what has gone.
func TestDeletionsUnseen(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 20)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	d.must(d.Delete(d.dn("user8")))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	lines := d.log.with("deletions are seen at full passes only: the account may not see deleted objects")
	if len(lines) != 1 || lines[0]["level"] != "warn" ||
		!strings.Contains(fmt.Sprint(lines[0]["remedy"]), `dsacls "CN=Deleted Objects,`+d.Base()+`" /g ACCOUNT:LCRP`) {
		t.Errorf("log %v", lines)
	}
	d.clock.advance(24 * time.Hour) // the full pass is due by itself
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	d.equal()
}

func TestStatusByTheClock(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 300)
	d.must(d.Modify("CN=user7,"+d.base, "accountExpires", fileTimeOf(d.clock.now().Add(time.Hour))))
	for n := 20; n < 300; n++ { // so that it is not within the overlap
		d.must(d.Modify(d.dn("user"+strconv.Itoa(n)), "title", "x"))
	}
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 300})
	d.clock.advance(59 * time.Minute)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.clock.advance(time.Minute)
	d.restart()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if status := d.status(d.guid(d.dn("user7"))); status != "EXPIRED" {
		t.Errorf("status %s", status)
	}
	d.equal()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
}

// TestStatusByTheClockSurvivesACrash: that the object was due is known although it
// was announced with the time when it is due next, and never sent.
func TestStatusByTheClockSurvivesACrash(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 300)
	d.must(d.Modify("CN=user7,"+d.base, "accountExpires", fileTimeOf(d.clock.now().Add(time.Hour))))
	for n := 20; n < 300; n++ {
		d.must(d.Modify(d.dn("user"+strconv.Itoa(n)), "title", "x"))
	}
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 300})
	d.clock.advance(time.Hour)
	d.intercepting(func(writer http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			writer.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	if run, err := d.runner.Run(t.Context(), Mode{}); err == nil || run.Mode != delta {
		t.Fatalf("run %+v, error %v", run, err)
	}
	d.intercepting(nil)
	d.restart()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.equal()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
}

// TestRescheduled: when an object is due may change without anything that is sent.
func TestRescheduled(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(3)
	r := w.process()
	w.run(r, Processed, 3)
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	user := w.ldap.Users[1].Attributes
	user["msDS-UserPasswordExpiryTimeComputed"] = fileTimeOf(expires)
	w.run(r, Processed, 0)
	for at, want := range map[time.Time][]ad.GUID{expires.Add(-time.Second): nil, expires: {ad.GUID([]byte(user["objectGUID"]))}} {
		if due, err := w.store.Due(at); err != nil || !slices.Equal(due, want) {
			t.Errorf("due at %s: %v, error %v", at, due, err)
		}
	}
}

// fileTimeOf counts 100 ns since 1601.
func fileTimeOf(t time.Time) string {
	return strconv.FormatInt((t.Unix()+11_644_473_600)*10_000_000, 10)
}

func TestRejectedInDeltas(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 300)
	d.intercepting(func(writer http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.URL.Path != assetsPath || !bytes.Contains(body, []byte(`"user7"`)) {
			return false
		}
		writer.WriteHeader(http.StatusBadRequest)
		return true
	})
	d.sync(Mode{}, state.Run{Mode: full, Result: Partial, Uploaded: 299, Rejected: 1})
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed}) // not yet
	d.clock.advance(61 * time.Minute)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	d.clock.advance(61 * time.Minute)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed}) // later the second time
	d.must(d.Modify(d.dn("user7"), "title", "x"))
	d.clock.advance(24 * time.Hour / 2)
	before := d.calls("POST", assetsPath)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Partial, Rejected: 1}) // at once, and once
	if n := d.calls("POST", assetsPath) - before; n != 1 {
		t.Errorf("%d calls", n)
	}
	d.intercepting(nil)
	d.clock.advance(9 * time.Hour)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.equal()
	if left, err := d.store.Rejections(); err != nil || len(left) != 0 {
		t.Errorf("%v, error %v", left, err)
	}
}

func TestGuard(t *testing.T) {
	cases := map[string]struct {
		guard  Guard
		reason string
	}{
		"number":  {Guard{MaxDeletes: 4, MaxDeletesPercent: 100}, "5 deletions are more than sync.max-deletes (4)"},
		"percent": {Guard{MaxDeletes: 500, MaxDeletesPercent: 12}, "5 deletions are more than sync.max-deletes-percent (12) of the 40 objects known"},
	}
	for name, c := range cases {
		for _, sees := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, tombstones %v", name, sees), func(t *testing.T) {
				d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: sees}, 40)
				d.options.Guard = c.guard
				d.start()
				mode := Mode{Full: !sees}
				kind := map[bool]string{true: delta, false: full}[sees]
				d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
				var gone []ad.GUID
				for n := range 5 {
					dn := d.dn("user" + strconv.Itoa(n))
					gone = append(gone, d.guid(dn))
					d.must(d.Delete(dn))
				}
				d.sync(mode, state.Run{Mode: kind, Result: Held, Held: 5})
				d.restart()
				d.sync(Mode{}, state.Run{Mode: delta, Result: Held, Held: 5})
				d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
				d.clock.advance(60 * 24 * time.Hour) // when the tombstones may be gone
				d.sync(Mode{}, state.Run{Mode: full, Result: Held, Held: 5})
				if lines := d.log.with("deletions held: look for what has gone from the directory; to release them, stop the daemon and run sync --allow-deletes"); len(lines) != 4 ||
					lines[0]["reason"] != c.reason || lines[0]["held"] != 5.0 {
					t.Errorf("log %v", lines)
				}
				if guids, err := d.store.Held(); err != nil || len(guids) != 5 || d.status(gone[0]) != "ACTIVE" {
					t.Errorf("%v are held, error %v", guids, err)
				}
				d.sync(Mode{DryRun: true, AllowDeletes: true}, state.Run{Mode: full, Result: Processed})
				d.must(d.Undelete(gone[4])) // tells nobody but those who ask
				d.must(d.Undelete(gone[3]))
				d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 3, Uploaded: 2})
				d.equal()
				if guids, err := d.store.Held(); err != nil || len(guids) != 0 {
					t.Errorf("%v are held, error %v", guids, err)
				}
			})
		}
	}
}

// TestGuardBounds: as many as are allowed go, and not one more.
func TestGuardBounds(t *testing.T) {
	cases := map[string]struct {
		guard           Guard
		size, deletions int
		empty, held     bool
	}{
		"as many as allowed":         {guard: Guard{4, 100}, size: 40, deletions: 4},
		"one more":                   {guard: Guard{4, 100}, size: 40, deletions: 5, held: true},
		"the very percentage":        {guard: Guard{500, 10}, size: 40, deletions: 4},
		"a little more":              {guard: Guard{500, 10}, size: 405, deletions: 41, held: true},
		"all":                        {guard: Guard{500, 100}, size: 40, deletions: 40},
		"none allowed":               {guard: Guard{0, 100}, size: 40, deletions: 1, held: true},
		"no percentage":              {guard: Guard{500, 0}, size: 40, deletions: 1, held: true},
		"nothing to delete":          {guard: Guard{0, 0}},
		"of a pass without anything": {guard: Guard{500, 100}, size: 40, deletions: 1, empty: true, held: true},
	}
	for name, c := range cases {
		p := pass{Runner: New(Options{Guard: c.guard}), plan: plan{kind: full, size: c.size}}
		if !c.empty {
			p.groups.mapped = 1
		}
		if reason := p.guard(c.deletions); (reason != "") != c.held {
			t.Errorf("%s: %q", name, reason)
		}
		// A delta shows what has changed: that is often nothing.
		if p.kind = delta; c.empty && p.guard(c.deletions) != "" {
			t.Errorf("%s: a delta is held", name)
		}
	}
}

// TestRefusedRelease: what an operator has released stays held until the gateway has
// taken it.
func TestRefusedRelease(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 40)
	d.options.Guard = Guard{MaxDeletes: 4, MaxDeletesPercent: 100}
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	for n := range 5 {
		d.must(d.Delete(d.dn("user" + strconv.Itoa(n))))
	}
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	d.intercepting(func(writer http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			writer.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	if _, err := d.runner.Run(t.Context(), Mode{AllowDeletes: true}); err == nil {
		t.Fatal("not refused")
	}
	d.intercepting(nil)
	d.restart()
	if guids, err := d.store.Held(); err != nil || len(guids) != 5 {
		t.Errorf("%d are held, error %v", len(guids), err)
	}
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 5})
	d.equal()
}

// TestPassedBy: what a pass has not shown is asked for once more before it counts as
// gone: it may have been moved from where was read later to where was read before.
// That holds for what an operator releases, too, however many that are.
func TestPassedBy(t *testing.T) {
	for _, c := range []struct {
		away int
		held bool // before
	}{{1, false}, {guidsAtOnce + 5, true}} {
		d := newDomain(t, sandbox.DirectoryOptions{}, guidsAtOnce+10)
		if c.held {
			d.options.Guard.MaxDeletes = 3
			d.start()
		}
		d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: guidsAtOnce + 10})
		for n := range c.away {
			d.must(d.Move(d.dn(fmt.Sprintf("user%d", n)), "OU=Outside,"+d.Base()))
		}
		if c.held {
			d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: c.away})
		}
		d.runner.Log = zerolog.New(&doing{logs: d.log, at: "directory read", kind: "user", do: func() {
			for n := range c.away {
				d.must(d.Move(fmt.Sprintf("CN=user%d,OU=Outside,%s", n, d.Base()), d.base))
			}
		}})
		d.sync(Mode{Full: true, AllowDeletes: c.held}, state.Run{Mode: full, Result: Processed})
		d.equal()
	}
}

// TestHeldThroughAPassThatProvesNothing: what is held stays so when another controller
// is read, or something else than before: a part of it that is back later must not
// carry the rest below the guard's bound.
func TestHeldThroughAPassThatProvesNothing(t *testing.T) {
	hold := func(t *testing.T) *domain {
		d := newDomain(t, sandbox.DirectoryOptions{}, 20)
		d.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 100}
		d.start()
		d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
		for n := range 5 {
			d.must(d.Move(d.dn(fmt.Sprintf("user%d", n)), "OU=Outside,"+d.Base()))
		}
		d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
		return d
	}
	// back brings three of the five back and reads everything twice: once until the
	// scope is comparable again, and once more.
	back := func(d *domain) {
		d.t.Helper()
		for n := range 3 {
			d.must(d.Move(fmt.Sprintf("CN=user%d,OU=Outside,%s", n, d.Base()), d.base))
		}
		for range 2 {
			run, err := d.runner.Run(d.t.Context(), Mode{Full: true})
			if err != nil || run.Held != 2 || run.Deleted != 0 || run.Result != Held {
				d.t.Fatalf("%+v, %v", run, err)
			}
		}
		d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 2})
		d.equal()
	}
	t.Run("another controller", func(t *testing.T) {
		d := hold(t)
		id := d.InvocationID()
		d.Restore(sandbox.Restoration{})
		if d.InvocationID() == id {
			t.Fatal("it is the same one")
		}
		d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Held, Held: 5}) // nothing is proven, so nothing is released
		back(d)
	})
	t.Run("another scope, where one is back", func(t *testing.T) {
		d := hold(t)
		d.must(d.Move("CN=user4,OU=Outside,"+d.Base(), d.base))
		d.options.Search.UserFilter = "(objectClass=user)"
		d.start()
		d.sync(Mode{}, state.Run{Mode: full, Result: Held, Held: 4})
	})
	t.Run("another scope", func(t *testing.T) {
		d := hold(t)
		d.options.Search.UserFilter = "(objectClass=user)"
		d.start()
		d.sync(Mode{}, state.Run{Mode: full, Result: Held, Held: 5})
		back(d)
	})
}

// TestHeldVanish: what could not be seen for a while is there again, without any
// change of its own.
func TestHeldVanish(t *testing.T) {
	for _, mode := range []Mode{{}, {AllowDeletes: true}, {Full: true}, {Full: true, AllowDeletes: true}} {
		d := newDomain(t, sandbox.DirectoryOptions{}, 700)
		d.options.Guard = Guard{MaxDeletes: 120, MaxDeletesPercent: 100}
		d.start()
		d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 700})
		hold := func(n int) { // as if a pass had not seen them
			t.Helper()
			var guids []ad.GUID
			for _, o := range d.Objects() {
				if strings.HasPrefix(o.DN, "CN=user") && len(guids) < n {
					guids = append(guids, ad.GUID([]byte(o.First("objectGUID"))))
				}
			}
			d.must(d.store.Hold(guids, d.clock.now()))
		}
		hold(100)
		kind := map[bool]string{true: full, false: delta}[mode.Full || mode.AllowDeletes]
		d.sync(mode, state.Run{Mode: kind, Result: Processed})
		if left, err := d.store.Held(); err != nil || len(left) > 0 {
			t.Errorf("%d are held, error %v", len(left), err)
		}
		hold(600) // more than the guard would ever let pass
		if !mode.Full && !mode.AllowDeletes {
			d.sync(mode, state.Run{Mode: delta, Result: Held, Held: 500}) // those within the overlap are seen
		} else {
			d.sync(mode, state.Run{Mode: kind, Result: Processed})
		}
		d.equal()
	}
}

func TestEmptyPassIsHeld(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 5)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	for n := range 5 {
		d.must(d.Move(d.dn("user"+strconv.Itoa(n)), "OU=Outside,"+d.Base()))
	}
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	for n := range 5 {
		d.must(d.Move("CN=user"+strconv.Itoa(n)+",OU=Outside,"+d.Base(), d.base))
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.equal()
}

// TestScopeChanges: another scope is read whole, and proves nothing of what the
// one before held; its second full pass does.
func TestScopeChanges(t *testing.T) {
	cases := map[string]func(d *domain){
		"base":   func(d *domain) { d.base = "OU=Inner," + d.base },
		"filter": func(d *domain) { d.options.Search.UserFilter = "(title=Engineer)" },
		"scope": func(d *domain) {
			d.gateway.SetProfile(d.profile(func(p *gateway.Profile) { p.SearchScope = "ONE_LEVEL"; p.BaseContext = "OU=Inner," + d.base }))
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 20)
			for n := range 5 {
				d.must(d.Modify(d.dn("user"+strconv.Itoa(n)), "title", "Engineer"))
				d.must(d.Move(d.dn("user"+strconv.Itoa(n)), "OU=Inner,"+d.base))
			}
			d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
			base := d.base
			change(d)
			if name == "base" {
				d.gateway.SetProfile(d.profile(nil))
			}
			d.start()
			d.sync(Mode{}, state.Run{Mode: full, Result: Processed})
			d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
			d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 15})
			d.base, d.options.Search.UserFilter = base, ""
			d.gateway.SetProfile(d.profile(nil))
			d.start()
			d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 15})
			d.equal()
		})
	}
}

// TestScopeName: whatever decides on what is read, or on what is sent of it, makes it
// another scope. The names stay those of the programs before, or they all read
// everything after an upgrade.
func TestScopeName(t *testing.T) {
	name := func(change func(*Source, *Search, *directory.RootDSE)) string {
		source, search := Source{Base: "DC=a", Scope: directory.Subtree}, Search{}
		root := directory.RootDSE{DefaultNamingContext: "DC=a", DSServiceName: "x", HighestCommittedUSN: 1}
		change(&source, &search, &root)
		p := pass{Runner: New(Options{Search: search}), source: source, session: &directory.Session{RootDSE: root}}
		return p.scopeName()
	}
	seen := map[string]string{}
	for what, change := range map[string]func(*Source, *Search, *directory.RootDSE){
		"nothing":      func(*Source, *Search, *directory.RootDSE) {},
		"base":         func(source *Source, _ *Search, _ *directory.RootDSE) { source.Base = "OU=b,DC=a" },
		"scope":        func(source *Source, _ *Search, _ *directory.RootDSE) { source.Scope = directory.OneLevel },
		"posture":      func(source *Source, _ *Search, _ *directory.RootDSE) { source.Posture = true },
		"user filter":  func(_ *Source, search *Search, _ *directory.RootDSE) { search.UserFilter = "(a=b)" },
		"group filter": func(_ *Source, search *Search, _ *directory.RootDSE) { search.GroupFilter = "(a=b)" },
		"domain":       func(_ *Source, _ *Search, root *directory.RootDSE) { root.DefaultNamingContext = "DC=b" },
	} {
		scope := name(change)
		if other, there := seen[scope]; there {
			t.Errorf("%s and %s: one scope", what, other)
		}
		seen[scope] = what
	}
	for scope, what := range map[string]string{"1f04549e01830dd2affa1b6873c9a83c": "nothing", "a8f13a46f65cc1ffc164cbf70ec5552f": "posture"} {
		if seen[scope] != what {
			t.Errorf("%s: another scope than before: right where the map's version has gone up (see identity's TestVersions), and then the names here are to be %v", what, seen)
		}
	}
}

func TestTargetChanges(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 20)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	d.must(d.Delete(d.dn("user3")))
	d.options.Target = "elsewhere"
	d.start()
	show := func(asset identity.Asset, _ bool) {
		if asset.Deleted {
			t.Errorf("%s is not there to be deleted", asset.Name)
		}
	}
	if run, err := d.runner.Run(t.Context(), Mode{DryRun: true, Full: true, Show: show}); err != nil || run.Changed != 19 {
		t.Errorf("run %+v, error %v", run, err)
	}
	if run, err := d.runner.Run(t.Context(), Mode{DryRun: true}); err != nil || run.Changed != 19 || run.Mode != full {
		t.Errorf("run %+v, error %v", run, err)
	}
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 19})
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
}

func TestRestored(t *testing.T) {
	for name, c := range map[string]struct {
		restoration sandbox.Restoration
		reason      string
	}{
		"a restore":                        {sandbox.Restoration{Back: 500}, "this domain controller was not read before, or was restored"},
		"a snapshot":                       {sandbox.Restoration{Back: 500, SameInvocation: true}, "this domain controller's sequence numbers went back"},
		"a new invocation ID, no way back": {sandbox.Restoration{}, "this domain controller was not read before, or was restored"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 30)
			d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
			d.Restore(c.restoration)
			d.must(d.Modify(d.dn("user1"), "title", "x"))
			d.must(d.Delete(d.dn("user2")))
			// A controller of another name may lag: what it does not show has not gone for
			// that. Its tombstones tell.
			first, then := 1, 0
			if !c.restoration.SameInvocation {
				first, then = 0, 1
			}
			d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 1, Deleted: first})
			if reason := d.planned(); reason != c.reason {
				t.Errorf("because %s, want %s", reason, c.reason)
			}
			d.must(d.Modify(d.dn("user3"), "title", "x"))
			d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: then})
			d.equal()
		})
	}
}

// planned is why the last pass was a full one.
func (d *domain) planned() any {
	lines := d.log.with("pass planned")
	return lines[len(lines)-1]["reason"]
}

// TestTimes: a watermark, or a full pass, that is too old is not built on, nor is one
// of a time to come: the clock was wrong then, and would be right for long.
func TestTimes(t *testing.T) {
	begin := func(t *testing.T) *domain {
		d := newDomain(t, sandbox.DirectoryOptions{}, 3)
		d.options.FullInterval = 365 * 24 * time.Hour
		d.start()
		d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
		return d
	}
	want := func(d *domain, reason string) {
		d.t.Helper()
		d.sync(Mode{}, state.Run{Mode: full, Result: Processed})
		if got := d.planned(); got != reason {
			d.t.Errorf("because %v, want %s", got, reason)
		}
	}
	t.Run("an old watermark", func(t *testing.T) {
		d := begin(t)
		d.clock.advance(watermarkLife)
		d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
		d.clock.advance(watermarkLife + time.Second)
		want(d, "the watermark is too old")
	})
	t.Run("an old full pass", func(t *testing.T) {
		d := begin(t)
		for range 13 {
			d.clock.advance(28 * 24 * time.Hour)
			d.sync(Mode{}, state.Run{Mode: delta, Result: Processed}) // which is none
		}
		d.clock.advance(24 * time.Hour)
		want(d, "the last full pass is too old")
	})
	t.Run("a watermark to come", func(t *testing.T) {
		d := begin(t)
		d.clock.advance(2 * time.Hour)
		d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
		d.clock.advance(-time.Hour) // behind the full pass
		want(d, "the watermark is too old")
	})
	t.Run("a full pass to come", func(t *testing.T) {
		d := begin(t)
		last, err := d.store.LastFullPass()
		d.must(err)
		last.At = last.At.Add(time.Hour)
		d.must(d.store.Advance(state.Progress{FullPass: &last, InvocationID: ad.InvocationID(d.InvocationID())}))
		want(d, "the last full pass is too old")
	})
}

// TestWatermarkIsOfTheBeginning: a session that is opened anew within a pass shows a
// higher sequence number, below which are changes that the pass has gone by.
func TestWatermarkIsOfTheBeginning(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 5)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	d.must(d.Move(d.dn("user4"), "OU=Outside,"+d.Base())) // is asked for once more, in a new session
	d.runner.patience = time.Nanosecond
	d.runner.Log = zerolog.New(&doing{logs: d.log, at: "directory read", kind: "user", do: func() {
		d.must(d.Modify(d.dn("user0"), "title", "late"))
		d.passBy()
	}})
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.equal()
}

// doing is a log that does something at a line of a kind, once.
type doing struct {
	*logs
	at, kind string
	do       func()
	once     sync.Once
}

func (d *doing) Write(p []byte) (int, error) {
	var line struct{ Message, Kind string }
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	if line.Message == d.at && line.Kind == d.kind {
		d.once.Do(d.do)
	}
	return d.logs.Write(p)
}

// TestScopeChangesElsewhere: what one controller's watermark was taken under, and what
// was read whole last, are two things. Both must be of the scope.
func TestScopeChangesElsewhere(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 0)
	first := d.auth.Port
	behind, second := d.twin(t, sandbox.DirectoryOptions{ReadsDeleted: true})
	staff := d.base
	read := func(port int, base string, uploaded int) {
		t.Helper()
		d.base = base
		d.connectTo(port)
		d.gateway.SetProfile(d.profile(nil))
		d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: uploaded})
	}
	for _, dn := range []string{"CN=a," + staff, "CN=b,OU=Inner," + staff} {
		d.must(d.Add(userNamed(dn, dn)))
		d.must(behind.Add(userNamed(dn, dn)))
	}
	d.must(d.Add(userNamed("CN=c,"+staff, "c"))) // is not known behind
	d.passBy()
	read(first, "OU=Inner,"+staff, 1)
	read(second, staff, 1)
	read(first, staff, 1) // c: its number is below the watermark
	d.equal()
	read(second, "OU=Inner,"+staff, 0)
	read(first, staff, 0)
}

// TestCommittedLate: a lower number than the watermark becomes visible afterwards.
func TestCommittedLate(t *testing.T) {
	for back, found := range map[ad.USN]int{150: 1, 300: 0} {
		d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 400)
		d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 400})
		d.Restore(sandbox.Restoration{Back: back, SameInvocation: true}) // makes room for lower numbers
		d.must(d.Modify(d.dn("user399"), "title", "late"))
		d.must(d.Delete(d.dn("user398")))
		for range back {
			d.must(d.Modify("OU=Outside,"+d.Base(), "description", "x"))
		}
		d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: found, Deleted: found})
		d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1 - found, Deleted: 1 - found})
		d.equal()
	}
}

// connectTo has the runs from here on read from the controller at a port.
func (d *domain) connectTo(port int) {
	d.auth.Port = port
	d.gateway.SetConnection(d.connection(nil))
}

// twin serves a second controller of the same domain: the same objects, other
// sequence numbers, another invocation ID.
func (d *domain) twin(t *testing.T, o sandbox.DirectoryOptions) (*sandbox.Directory, int) {
	t.Helper()
	other, port := d.controller(t, o)
	d.must(furnish(other))
	// Both draw as many identifiers, so what is added to both later is the same.
	outside := userNamed("CN=dummy,CN=Users,"+d.Base(), "dummy")
	d.must(d.Add(outside))
	d.Restore(sandbox.Restoration{})
	other.Restore(sandbox.Restoration{})
	d.must(other.Add(outside))
	for range 1000 {
		d.must(other.Modify(outside.DN, "title", "x"))
	}
	return other, port
}

func TestFailover(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 0)
	first := d.auth.Port
	other, second := d.twin(t, sandbox.DirectoryOptions{ReadsDeleted: true})
	both := func(change func(*sandbox.Directory) error) {
		t.Helper()
		d.must(change(d.Directory))
		d.must(change(other))
	}
	for n := range 30 {
		name := "user" + strconv.Itoa(n)
		both(func(c *sandbox.Directory) error { return c.Add(userNamed(d.dn(name), name)) })
	}
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
	both(func(c *sandbox.Directory) error { return c.Modify(d.dn("user1"), "title", "x") })
	d.connectTo(second)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	both(func(c *sandbox.Directory) error { return c.Modify(d.dn("user2"), "title", "x") })
	both(func(c *sandbox.Directory) error { return c.Delete(d.dn("user3")) })
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	both(func(c *sandbox.Directory) error { return c.Modify(d.dn("user4"), "title", "x") })
	d.connectTo(first)
	d.restart()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.equal()
	d.connectTo(second)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.equal()
}

// TestUnreadable: an entry that shows its GUID and no more has not gone; where one
// shows not even that, nothing has.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	w.options.Guard.MaxDeletesPercent = 100
	w.ldap.Users = fakeldap.Users(20)
	r := w.process()
	w.run(r, Processed, 20)
	users := w.ldap.Users
	sid, guid := users[7].Attributes["objectSid"], users[8].Attributes["objectGUID"]
	delete(users[7].Attributes, "objectSid")
	if run, _ := w.run(r, Processed, 0); run.Deleted+run.Held != 0 {
		t.Errorf("run %+v", run)
	}
	delete(users[8].Attributes, "objectGUID")
	w.ldap.Users = users[:19]
	if run, _ := w.run(r, Processed, 0); run.Deleted+run.Held != 0 {
		t.Errorf("run %+v", run)
	}
	if lines := w.log.with("nothing counts as gone: entries without a readable objectGUID may be what is missing; grant the account Read Property on them"); len(lines) != 1 || lines[0]["missing"] != 2.0 {
		t.Errorf("log %v", lines)
	}
	users[7].Attributes["objectSid"], users[8].Attributes["objectGUID"] = sid, guid
	if run, _ := w.run(r, Processed, 0); run.Deleted != 1 {
		t.Errorf("run %+v", run)
	}
}

func TestDryRunOfADelta(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 20)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	d.must(d.Modify(d.dn("user1"), "title", "x"))
	d.must(d.Delete(d.dn("user2")))
	before := len(d.gateway.Requests())
	var mu sync.Mutex
	var shown []string
	show := func(asset identity.Asset, held bool) {
		mu.Lock()
		defer mu.Unlock()
		shown = append(shown, fmt.Sprintf("%s %t", asset.Name, asset.Deleted))
		if held {
			t.Errorf("%s would be held", asset.Name)
		}
	}
	d.sync(Mode{DryRun: true, Show: show}, state.Run{Mode: delta, Result: Processed})
	d.sync(Mode{DryRun: true, Full: true, Show: show}, state.Run{Mode: full, Result: Processed})
	if want := []string{"user1 false", "user2 true", "user1 false", "user2 true"}; !slices.Equal(shown, want) {
		t.Errorf("shown %q, want %q", shown, want)
	}
	for _, request := range d.gateway.Requests()[before:] {
		if request.Method == "PUT" || request.Path == assetsPath {
			t.Errorf("sent %+v", request)
		}
	}
	if held, err := d.store.Held(); err != nil || len(held) != 0 {
		t.Errorf("%d held, error %v", len(held), err)
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	d.equal()
}

// TestDeltaAsksForLittle: what a delta costs the server is what has changed.
func TestDeltaAsksForLittle(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 2000)
	d.options.Search.PageSize = 1000
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 2000})
	for n := range 10 {
		d.must(d.Modify(d.dn("user"+strconv.Itoa(n)), "title", "x"))
	}
	before, calls := d.Searches(), d.calls("POST", assetsPath)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 10})
	after := d.Searches()
	const own = 6 // rootDSE of both sessions, the settings, Deleted Objects
	if n := after.Entries - before.Entries; n > 10+overlap+own {
		t.Errorf("%d entries were read", n)
	}
	if n := after.Searches - before.Searches; n > 10 {
		t.Errorf("%d searches", n)
	}
	if n := d.calls("POST", assetsPath) - calls; n != 1 {
		t.Errorf("%d calls", n)
	}
	d.equal()
}

// A dry run names what the guard would hold, and holds nothing itself.
func TestDryRunShowsHeld(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 20)
	d.options.Guard = Guard{MaxDeletes: 4, MaxDeletesPercent: 100}
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	for n := range 5 {
		d.must(d.Delete(d.dn(fmt.Sprintf("user%d", n))))
	}
	var held []string
	show := func(asset identity.Asset, isHeld bool) {
		if !isHeld {
			t.Errorf("%s would be sent", asset.Name)
		}
		held = append(held, string(asset.Name))
	}
	d.sync(Mode{DryRun: true, Show: show}, state.Run{Mode: delta, Result: Held, Held: 5})
	slices.Sort(held)
	if want := []string{"user0", "user1", "user2", "user3", "user4"}; !slices.Equal(held, want) {
		t.Errorf("held %q, want %q", held, want)
	}
	if recorded, err := d.store.Held(); err != nil || len(recorded) != 0 {
		t.Errorf("%d recorded as held, error %v", len(recorded), err)
	}
}

// TestLag: a controller that does not know yet what another one has shown neither
// proves that anything has gone, nor leaves its older values at the gateway.
func TestLag(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 0)
	first := d.auth.Port
	behind, second := d.twin(t, sandbox.DirectoryOptions{ReadsDeleted: true})
	for n := range 30 {
		name := "user" + strconv.Itoa(n)
		d.must(d.Add(userNamed(d.dn(name), name)))
		if n < 29 { // the last is not known behind
			d.must(behind.Add(userNamed(d.dn(name), name)))
		}
	}
	for n := range 5 { // neither are these changes
		d.must(d.Modify(d.dn("user"+strconv.Itoa(n)), "title", "new"))
	}
	d.passBy()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
	d.connectTo(second)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	d.connectTo(first)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 5})
	d.equal()
}

// TestHeldStay: fewer than the guard allows are still those that it held.
func TestHeldStay(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 40)
	d.options.Guard = Guard{MaxDeletes: 4, MaxDeletesPercent: 100}
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	var gone []ad.GUID
	for n := range 5 {
		dn := d.dn("user" + strconv.Itoa(n))
		gone = append(gone, d.guid(dn))
		d.must(d.Delete(dn))
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Held, Held: 5})
	d.must(d.Undelete(gone[0]))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Held, Held: 4, Uploaded: 1})
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 4})
	d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 4})
	d.equal()
}

// TestReleaseIsOfWhatWasHeld: what has gone since nobody has decided on.
func TestReleaseIsOfWhatWasHeld(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 40)
	d.options.Guard = Guard{MaxDeletes: 1, MaxDeletesPercent: 100}
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	for n := range 2 {
		d.must(d.Delete(d.dn("user" + strconv.Itoa(n))))
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Held, Held: 2})
	for n := 2; n < 40; n++ {
		d.must(d.Delete(d.dn("user" + strconv.Itoa(n))))
	}
	d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Held, Deleted: 2, Held: 38})
	d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 38})
	d.equal()
}

// TestReleaseWithFew: what has gone since, and would go by itself, goes along.
func TestReleaseWithFew(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 40)
	d.options.Guard = Guard{MaxDeletes: 2, MaxDeletesPercent: 100}
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	for n := range 3 {
		d.must(d.Delete(d.dn("user" + strconv.Itoa(n))))
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Held, Held: 3})
	d.must(d.Delete(d.dn("user3")))
	d.sync(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 4})
	d.equal()
}

// TestGuardCountsWhatWasKnown: objects that come with the same run do not make room.
func TestGuardCountsWhatWasKnown(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 40)
	d.options.Guard = Guard{MaxDeletes: 500, MaxDeletesPercent: 10}
	d.options.Upload.BatchSize = 10
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	for n := range 8 {
		d.must(d.Delete(d.dn("user" + strconv.Itoa(n))))
	}
	for n := range 400 {
		d.addUser(fmt.Sprintf("new%d", n))
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Held, Uploaded: 400, Held: 8})
}

// TestRejectedWithinOverlap: being read again is no reason to be sent again.
func TestRejectedWithinOverlap(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 20)
	d.must(d.Modify(d.dn("user7"), "title", "poison"))
	d.intercepting(func(writer http.ResponseWriter, r *http.Request, body []byte) bool {
		poisoned := r.URL.Path == assetsPath && bytes.Contains(body, []byte(`"poison"`))
		if poisoned {
			writer.WriteHeader(http.StatusBadRequest)
		}
		return poisoned
	})
	d.sync(Mode{}, state.Run{Mode: full, Result: Partial, Uploaded: 19, Rejected: 1})
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.must(d.Touch(d.dn("user7"), "badPwdCount", "3"))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed}) // nor is activity
	d.clock.advance(2 * time.Hour)
	d.sync(Mode{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Partial, Rejected: 1}) // tries everything
	d.must(d.Modify(d.dn("user7"), "title", "cured"))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.equal()
}

// TestRetryAfter: later each time, and within a day.
func TestRetryAfter(t *testing.T) {
	for attempts, want := range map[int]time.Duration{1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 24, 7: 24, 100: 24} {
		if got := retryAfter(attempts); got != want*time.Hour {
			t.Errorf("after %d: %s", attempts, got)
		}
	}
}

// TestNoInvocationID: sequence numbers that belong to nobody are not followed.
func TestNoInvocationID(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 3)
	d.deaf("invocationId", "invocationXX")
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	d.must(d.Delete(d.dn("user1")))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	if lines := d.log.with("changes cannot be followed, every run reads everything"); len(lines) != 2 {
		t.Errorf("log %v", lines)
	}
	if mark, err := d.store.Watermark(ad.InvocationID{}); err != nil || mark != (state.Watermark{}) {
		t.Errorf("watermark %+v, error %v", mark, err)
	}
}
