package syncrun

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
	"adconnector/internal/sandbox"
	"adconnector/internal/state"
)

// exposed is a domain whose profile asks for security posture.
func exposed(t *testing.T, o sandbox.DirectoryOptions, users int) *domain {
	t.Helper()
	d := newDomain(t, o, users)
	d.ask(true)
	return d
}

func (d *domain) ask(posture bool) {
	assets := "Identities Only"
	if posture {
		assets = "Identity with security posture"
	}
	d.gateway.SetProfile(d.profile(func(p *gateway.Profile) { p.Assets = assets }))
}

// anew is what a connector that has never run before sends to a gateway that has
// nothing: deltas must come to the same.
func (d *domain) anew() map[string]string {
	d.t.Helper()
	w := newWorldOf(d.t, d.t.TempDir(), d.auth.Port, d.BindDN(), "pw", d.base)
	w.gateway.SetProfile(d.profile(func(p *gateway.Profile) { p.Assets = "IDENTITIES_WITH_SECURITY_POSTURE" }))
	runner := w.process()
	runner.now = d.clock.now
	if run, err := runner.Run(d.t.Context(), Mode{}); err != nil || run.Result != Processed {
		d.t.Errorf("anew: %+v, %v", run, err)
	}
	return held(w.gateway)
}

// likeAnew wants the gateway to hold what it would if everything began now.
func (d *domain) likeAnew() {
	d.t.Helper()
	for _, difference := range differences(held(d.gateway), d.anew(), true) {
		d.t.Error(difference)
	}
}

// want changes the option.
func (h *history) want(posture bool) {
	h.note("posture: %t", posture)
	h.posture = posture
	h.ask(posture)
}

const stranger = "S-1-5-21-9-9-9-1000"

// prepare makes what memberships need besides users and groups.
func (h *history) prepare() {
	h.want(h.random.IntN(4) > 0)
	if h.random.IntN(3) == 0 {
		h.affectedAtMost = 3
	}
	h.start()
	for _, controller := range h.controllers {
		h.must(controller.Add(sandbox.Object{DN: "CN=" + stranger + ",CN=ForeignSecurityPrincipals," + controller.Base(),
			Attributes: map[string][]string{"objectClass": {"foreignSecurityPrincipal"}}}))
	}
}

// passBy lets more sequence numbers pass than a delta overlaps the one before: else
// it would read everything in so small a directory, whatever it knows.
func (h *history) passBy() {
	if !h.both {
		return
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	for _, controller := range h.controllers {
		for n := range overlap + 20 {
			h.must(controller.Modify("OU=Outside,"+controller.Base(), "description", fmt.Sprint(n)))
		}
	}
}

// pickPosture changes who is in what, and what else only the posture shows.
func (h *history) pickPosture(living []sandbox.Object) (what string, apply func(*sandbox.Directory) error) {
	var groups, users, all []string
	for _, o := range living {
		if all = append(all, o.DN); o.First("groupType") != "" {
			groups = append(groups, o.DN)
		} else {
			users = append(users, o.DN)
		}
	}
	known := []string{"CN=Domain Admins,CN=Users,", "CN=Administrators,CN=Builtin,", "CN=DnsAdmins,CN=Users,", "CN=Backup Operators,CN=Builtin,", "CN=Protected Users,CN=Users,"}
	any := func(list []string) string { return list[h.random.IntN(len(list))] }
	for i := range known {
		known[i] += h.Base()
	}
	modify := func(dn, attribute string, values ...string) (string, func(*sandbox.Directory) error) {
		return fmt.Sprintf("set %s of %s to %q", attribute, dn, values), func(d *sandbox.Directory) error { return d.Modify(dn, attribute, values...) }
	}
	switch n := h.random.IntN(20); {
	case n < 11:
		group := any(known)
		if len(groups) > 0 && h.random.IntN(3) > 0 {
			group = any(groups)
		}
		from := slices.Concat(all, known, []string{"CN=" + stranger + ",CN=ForeignSecurityPrincipals," + h.Base()})
		var members []string
		for range h.random.IntN(6) {
			if member := any(from); member != group && !slices.Contains(members, member) {
				members = append(members, member)
			}
		}
		return modify(group, "member", members...)
	case n < 13 && len(users) > 0:
		primary := "513"
		if h.random.IntN(2) == 0 {
			of := any(slices.Concat(groups, known[:1]))
			for _, o := range h.Objects() {
				if sid := o.First("objectSid"); o.DN == of && sid != "" {
					primary = fmt.Sprint(binary.LittleEndian.Uint32([]byte(sid[len(sid)-4:])))
				}
			}
		}
		return modify(any(users), "primaryGroupID", primary)
	case n < 15 && len(groups) > 0:
		return modify(any(groups), "groupType", []string{"-2147483646", "2"}[h.random.IntN(2)])
	case n < 16:
		h.names++
		dn := fmt.Sprintf("CN=n%d,%s", h.names, h.base)
		return "add service account " + dn, func(d *sandbox.Directory) error {
			return d.Add(sandbox.Object{DN: dn, Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}})
		}
	case n < 17:
		return modify(h.Base(), "lockoutThreshold", fmt.Sprint(h.random.IntN(20)))
	case n < 18:
		return modify(any(all), "servicePrincipalName", fmt.Sprintf("http/%d", h.random.IntN(9)))
	case n < 19 && len(groups) > 0:
		return modify(any(groups), "managedBy", any(all))
	default:
		return modify(any(all), "adminCount", fmt.Sprint(h.random.IntN(2)))
	}
}

func TestPosture(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 5)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 19})
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed})
	d.likeAnew()
	if strings.Contains(fmt.Sprint(held(d.gateway)), "unreadable") {
		t.Error("something is unreadable")
	}
}

// asset is the part of what the gateway holds of an object that comes after its
// identifiers.
func (d *domain) asset(dn string) map[string]any {
	d.t.Helper()
	return d.assetOf(d.guid(dn))
}

func (d *domain) assetOf(guid ad.GUID) map[string]any {
	d.t.Helper()
	var item struct {
		Asset struct{ AssetDetail map[string]any }
	}
	text := held(d.gateway)[guid.String()]
	if text == "" {
		return nil
	}
	d.must(json.Unmarshal([]byte(text), &item))
	for class, content := range item.Asset.AssetDetail {
		if strings.HasSuffix(class, "AssetClass") {
			return content.(map[string]any)
		}
	}
	return nil
}

// says is what is said of an object under a key, as text.
func (d *domain) says(dn, key string) string {
	d.t.Helper()
	posture, _ := d.asset(dn)["posture"].(map[string]any)
	if posture[key] == nil {
		return ""
	}
	return fmt.Sprint(posture[key])
}

func (d *domain) sid(dn string) string {
	d.t.Helper()
	for _, o := range d.Objects() {
		if o.DN == dn {
			return ad.SID(o.First("objectSid")).String()
		}
	}
	d.t.Fatalf("there is no %s", dn)
	return ""
}

// passBy is a history's, for a domain alone.
func (d *domain) passBy() {
	d.t.Helper()
	for n := range overlap + 20 {
		d.must(d.Modify("OU=Outside,"+d.Base(), "description", fmt.Sprint(n)))
	}
}

func (d *domain) addGroup(name string, members ...string) string {
	d.t.Helper()
	o := sandbox.Object{DN: d.dn(name), Attributes: map[string][]string{"objectClass": {"group"}}}
	if len(members) > 0 {
		o.Attributes["member"] = members
	}
	d.must(d.Add(o))
	return d.dn(name)
}

// expect wants words in what is said, and no others.
func (d *domain) expect(dn, key string, want ...string) {
	d.t.Helper()
	got := strings.FieldsFunc(d.says(dn, key), func(r rune) bool { return strings.ContainsRune(" []", r) })
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		d.t.Errorf("%s of %s: %v, want %v", key, dn, got, want)
	}
}

// TestMembershipDelta: a change of one group reaches whoever it changes, in the run
// that sees it, and nobody else is read or sent.
func TestMembershipDelta(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 6)
	inner := d.addGroup("inner", d.dn("user0"), d.dn("user1"))
	outer := d.addGroup("outer", inner)
	admins, all := "CN=Domain Admins,CN=Users,"+d.Base(), "CN=Administrators,CN=Builtin,"+d.Base()
	users := d.sid("CN=Domain Users,CN=Users," + d.Base())
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 22})
	d.passBy()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.expect(d.dn("user0"), "groups", users, d.sid(inner))
	d.expect(outer, "nestingDepth", "1")

	// Nested in a privileged group that is not even in the profile's base: its role
	// and that of the one above it, both nested groups, and the two below them.
	administrator := "CN=Administrator,CN=Users," + d.Base()
	d.must(d.Modify(admins, "member", administrator, outer))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 6})
	d.expect(d.dn("user0"), "privilegedGroups", "map", "nested:", d.sid(all), d.sid(admins))
	d.likeAnew()
	role := fmt.Sprint(d.assetOf(identity.RoleGUID(d.guid(admins)))["members"])
	if !strings.Contains(role, d.sid(d.dn("user1"))) || strings.Contains(role, d.sid(d.dn("user2"))) {
		t.Errorf("members %s", role)
	}

	d.passBy()
	d.must(d.Modify(inner, "member", d.dn("user1"), d.dn("user2"))) // 0 leaves, 2 comes
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 5})
	d.expect(d.dn("user0"), "groups", users)
	d.expect(d.dn("user0"), "privilegedGroups")
	d.expect(d.dn("user2"), "privilegedGroups", "map", "nested:", d.sid(all), d.sid(admins))
	d.likeAnew()

	d.passBy()
	d.must(d.Modify(outer, "groupType", "2")) // is in nobody's token
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 6})
	d.expect(d.dn("user2"), "privilegedGroups")
	d.likeAnew()

	d.passBy()
	rid := d.sid(admins)[strings.LastIndex(d.sid(admins), "-")+1:]
	d.must(d.Modify(d.dn("user5"), "primaryGroupID", rid)) // which no group shows
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3})
	d.expect(d.dn("user5"), "privilegedGroups", "map", "direct:", d.sid(admins), "nested:", d.sid(all))
	d.likeAnew()

	d.passBy()
	d.must(d.Modify(inner, "member", outer)) // and outer has inner
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 4})
	d.expect(inner, "inCycle", "true")
	d.expect(outer, "inCycle", "true")
	d.likeAnew()

	d.passBy()
	d.must(d.Delete(outer))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3, Deleted: 1})
	d.expect(inner, "empty", "true")
	d.likeAnew()
	if lines := d.log.with("memberships read"); lines[len(lines)-1]["whole"] != false {
		t.Errorf("%v", lines[len(lines)-1])
	}
}

// TestMembershipLag: what a controller that lags behind has said of memberships does
// not stay, although nothing changes any more at the one that knew better.
func TestMembershipLag(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 0)
	first := d.auth.Port
	behind, second := d.twin(t, sandbox.DirectoryOptions{ReadsDeleted: true})
	for n := range 3 {
		name := fmt.Sprint("user", n)
		d.must(d.Add(userNamed(d.dn(name), name)))
		d.must(behind.Add(userNamed(d.dn(name), name)))
	}
	team := sandbox.Object{DN: d.dn("team"), Attributes: map[string][]string{"objectClass": {"group"}}}
	d.must(d.Add(team))
	d.must(behind.Add(team))
	d.must(d.Modify(team.DN, "member", d.dn("user0")))
	d.passBy()
	run := func(kind string) {
		t.Helper()
		if run, err := d.runner.Run(t.Context(), Mode{}); err != nil || run.Mode != kind {
			t.Fatalf("%+v, %v", run, err)
		}
	}
	run(full)
	d.connectTo(second)
	run(full)
	d.expect(team.DN, "members")
	d.connectTo(first)
	run(delta)
	d.expect(team.DN, "members", d.sid(d.dn("user0")))
	d.likeAnew()
}

// TestMembershipPassedBy: an account that the reading of memberships has not shown is
// asked for once more.
func TestMembershipPassedBy(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{}, 3)
	d.must(d.Modify(d.dn("user0"), "primaryGroupID", "512"))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 17})
	d.must(d.Modify(d.dn("user0"), "primaryGroupID"))
	var searches atomic.Int32
	d.options.Search.PageSize = 1000
	d.options.Search.Observe = func(request string, _ fault.Class, _ time.Duration) {
		if request == "search" && searches.Add(1) == 2 { // of groups and accounts
			if err := d.Modify(d.dn("user0"), "primaryGroupID", "512"); err != nil {
				t.Error(err)
			}
		}
	}
	d.start()
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed})
	d.likeAnew()
}

// TestAffectedAreOwed: whoever is affected by a change that a run has seen is read
// again until a run has delivered everything, although the group does not change again.
func TestAffectedAreOwed(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{}, 3)
	d.options.Upload.BatchSize = 1
	d.start()
	team := d.addGroup("team")
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 18})
	d.passBy()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.must(d.Modify(team, "member", d.dn("user0")))
	d.must(d.Modify(d.dn("user2"), "title", "x")) // is sent before, and refused
	d.refused()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3})
	d.expect(d.dn("user0"), "groups", d.sid(team), d.sid("CN=Domain Users,CN=Users,"+d.Base()))
	d.likeAnew()
	if again, all, err := d.store.Again(); err != nil || len(again) > 0 || all {
		t.Errorf("still owed: %v %v %v", again, all, err)
	}
}

// refused does a run that the gateway refuses, and starts a new process.
func (d *domain) refused() {
	d.t.Helper()
	d.intercepting(func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	if _, err := d.runner.Run(d.t.Context(), Mode{}); err == nil {
		d.t.Fatal("not refused")
	}
	d.intercepting(nil)
	d.restart()
}

// TestBackWithoutGroups: who is deleted and brought back has lost his groups, which
// do not change by that.
func TestBackWithoutGroups(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 3)
	team := d.addGroup("team", d.dn("user0"), d.dn("user1"))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 18})
	d.passBy()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	guid := d.guid(d.dn("user0"))
	d.must(d.Delete(d.dn("user0")))
	d.must(d.Undelete(guid))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
	d.expect(team, "members", d.sid(d.dn("user1")))
	d.likeAnew()

	d.passBy() // and nobody else is in the group
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	guid = d.guid(d.dn("user1"))
	d.must(d.Delete(d.dn("user1")))
	d.must(d.Undelete(guid))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
	d.expect(team, "members")
	d.expect(team, "empty", "true")
	d.likeAnew()
}

// deaf puts a server between, that does not know a word of the requests.
func (d *domain) deaf(word, instead string) {
	d.t.Helper()
	if len(word) != len(instead) {
		d.t.Fatal("the words must be of one length")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	d.t.Cleanup(func() { listener.Close() })
	server := net.JoinHostPort("127.0.0.1", strconv.Itoa(d.auth.Port))
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			go func() {
				defer client.Close()
				_, _ = io.Copy(client, behind)
			}()
			go func() {
				defer behind.Close()
				buffer := make([]byte, 1<<16)
				for {
					n, err := client.Read(buffer)
					if err != nil {
						return
					}
					if _, err := behind.Write(bytes.ReplaceAll(buffer[:n], []byte(word), []byte(instead))); err != nil {
						return
					}
				}
			}()
		}
	}()
	d.connectTo(listener.Addr().(*net.TCPAddr).Port)
	d.start()
}

// TestUnreadableMemberOf: where memberOf may not be read, a change of a user is none
// of his groups.
func TestUnreadableMemberOf(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 20)
	d.deaf("memberOf", "memberXX")
	var users []string
	for n := range 20 {
		users = append(users, d.dn(fmt.Sprint("user", n)))
	}
	for n := range 150 {
		d.addGroup(fmt.Sprint("group", n), users...)
	}
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 184})
	d.passBy()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.must(d.Modify(users[0], "title", "x"))
	entries := d.Searches().Entries
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if read := d.Searches().Entries - entries; read > 100 {
		t.Errorf("%d entries read", read)
	}
	d.likeAnew()
}

// TestMembersWithoutIdentifiers: of a server that does not know extended DNs nothing
// is sent that depends on who is in what.
func TestMembersWithoutIdentifiers(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{}, 3)
	d.deaf("1.2.840.113556.1.4.529", "1.2.840.113556.1.4.999")
	team := d.addGroup("team", d.dn("user0"))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 18})
	for _, dn := range []string{team, d.dn("user0")} {
		for _, key := range []string{"members", "empty", "nestingDepth", "inCycle", "memberOf", "groups"} {
			d.expect(dn, key)
		}
	}
	d.expect(d.dn("user0"), "primaryGroup", d.sid("CN=Domain Users,CN=Users,"+d.Base()))
	if lines := d.log.with("the directory shows members without identifiers, so that nothing is said of memberships: it must offer extended DNs (1.2.840.113556.1.4.529)"); len(lines) != 1 {
		t.Errorf("log %v", lines)
	}
}

// TestTooManyAffected: then everything is read, in the same run.
func TestTooManyAffected(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{}, 8)
	var everybody []string
	for n := range 8 {
		everybody = append(everybody, d.dn(fmt.Sprint("user", n)))
	}
	team := d.addGroup("team", everybody...)
	d.affectedAtMost = 8
	d.start()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 23})
	d.passBy()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.must(d.Modify("CN=Backup Operators,CN=Builtin,"+d.Base(), "member", team))
	d.refused() // and is owed as much afterwards
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	d.likeAnew()
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
}

// TestLongGroup: members beyond what the server gives at once, strangers and
// contacts among them.
func TestLongGroup(t *testing.T) {
	const many = 3100
	d := exposed(t, sandbox.DirectoryOptions{}, many)
	d.must(d.Add(sandbox.Object{DN: "CN=" + stranger + ",CN=ForeignSecurityPrincipals," + d.Base(), Attributes: map[string][]string{"objectClass": {"foreignSecurityPrincipal"}}}))
	d.must(d.Add(sandbox.Object{DN: d.dn("contact"), Attributes: map[string][]string{"objectClass": {"contact"}}}))
	members := []string{"CN=" + stranger + ",CN=ForeignSecurityPrincipals," + d.Base(), d.dn("contact")}
	for n := range many {
		members = append(members, d.dn(fmt.Sprint("user", n)))
	}
	team := d.addGroup("team", members...)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: many + 15})
	posture := d.asset(team)["posture"].(map[string]any)
	if got := posture["members"].([]any); len(got) != many+1 || !slices.Contains(got, any(stranger)) || posture["membersWithoutSid"] != 1.0 {
		t.Errorf("%d members, %v without a SID", len(got), posture["membersWithoutSid"])
	}
	d.passBy()
	d.must(d.Modify(team, "member", members[:2000]...))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: many - 2000 + 3})
	d.likeAnew()
}

// TestGroupThatChangesAllTheTime: a part of its members is not taken for all of them.
func TestGroupThatChangesAllTheTime(t *testing.T) {
	const many = 1600
	d := exposed(t, sandbox.DirectoryOptions{}, many)
	var members []string
	for n := range many {
		members = append(members, d.dn(fmt.Sprint("user", n)))
	}
	team := d.addGroup("team", members...)
	var changes atomic.Int32
	d.options.Search.Observe = func(request string, _ fault.Class, _ time.Duration) {
		if request == "search" {
			if err := d.Modify(team, "description", fmt.Sprint(changes.Add(1))); err != nil {
				t.Error(err)
			}
		}
	}
	d.start()
	run, err := d.runner.Run(t.Context(), Mode{})
	if !errors.Is(err, directory.ErrChanged) || fault.Of(err) != fault.Incomplete || run.Result != Failed || d.calls("POST", assetsPath) != 0 {
		t.Errorf("%+v, %v", run, err)
	}
}

// TestHugeGroup: one of 100,000 members is sent whole, and a delta that takes them
// away reads no more than that.
func TestHugeGroup(t *testing.T) {
	const many = 100_000
	d := newDomain(t, sandbox.DirectoryOptions{Users: many, Groups: 1}, 0) // the first group has everybody in it
	d.gateway.SetProfile(d.profile(func(p *gateway.Profile) {
		p.BaseContext, p.Assets = "OU=Groups,"+d.Base(), "IDENTITIES_WITH_SECURITY_POSTURE"
	}))
	count := func() int {
		t.Helper()
		groups := d.gateway.Groups()
		if len(groups) != 1 {
			t.Fatalf("%d groups", len(groups))
		}
		var item struct {
			Asset struct {
				AssetDetail struct {
					GroupAssetClass struct{ Posture struct{ Members []string } }
				}
			}
		}
		d.must(json.Unmarshal(groups[0].Asset, &item))
		return len(item.Asset.AssetDetail.GroupAssetClass.Posture.Members)
	}
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 15})
	if got := count(); got != many {
		t.Errorf("%d members", got)
	}
	d.passBy()
	d.must(d.Modify("CN=All employees,OU=Groups,"+d.Base(), "member", d.BindDN()))
	entries := d.Searches().Entries
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if got, read := count(), d.Searches().Entries-entries; got != 1 || read > 1000 {
		t.Errorf("%d members, %d entries read", got, read)
	}
}

// TestServiceAccountsAndDomain: what there is besides users and groups.
func TestServiceAccountsAndDomain(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 2)
	allowed := "\x01\x00\x04\x80" + strings.Repeat("\x00", 12) + "\x14\x00\x00\x00" +
		"\x02\x00\x20\x00\x01\x00\x00\x00" + "\x00\x00\x18\x00\xff\x01\x0f\x00" + "\x01\x02\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x20\x02\x00\x00"
	d.must(d.Add(sandbox.Object{DN: d.dn("gmsa"), Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"},
		"msDS-GroupMSAMembership": {allowed}, "msDS-ManagedPasswordInterval": {"30"}}}))
	d.must(d.Add(sandbox.Object{DN: "CN=Strict,CN=Password Settings Container,CN=System," + d.Base(), Attributes: map[string][]string{"objectClass": {"msDS-PasswordSettings"},
		"msDS-PasswordSettingsPrecedence": {"1"}, "msDS-PSOAppliesTo": {d.dn("user0")}, "msDS-MaximumPasswordAge": {"-864000000000"}}}))
	d.must(d.Add(sandbox.Object{DN: "CN=partner.example,CN=System," + d.Base(), Attributes: map[string][]string{"objectClass": {"trustedDomain"},
		"trustPartner": {"partner.example"}, "trustDirection": {"3"}, "trustType": {"2"}, "trustAttributes": {"8"}}}))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 17})
	account := d.asset(d.dn("gmsa"))
	if account["accountType"] != "SERVICE" || d.says(d.dn("gmsa"), "passwordReaders") != "[S-1-5-32-544]" {
		t.Errorf("%v", account)
	}
	if policy := d.says(d.dn("user0"), "passwordPolicy"); policy != "CN=Strict,CN=Password Settings Container,CN=System,"+d.Base() {
		t.Errorf("policy %q", policy)
	}
	domain := string(d.gateway.Domains()[0].Asset)
	for _, want := range []string{`"appliesTo":["` + d.sid(d.dn("user0")) + `"]`, `"partner":"partner.example","direction":"BIDIRECTIONAL","type":"UPLEVEL","attributes":["FOREST_TRANSITIVE"],"sidFiltering":"FOREST"`} {
		if !strings.Contains(domain, want) {
			t.Errorf("%s has no %s", domain, want)
		}
	}
	d.passBy()
	d.must(d.Modify(d.Base(), "ms-DS-MachineAccountQuota", "0"))
	d.must(d.Delete("CN=DnsAdmins,CN=Users," + d.Base())) // a role, outside the base
	d.must(d.Delete(d.dn("gmsa")))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 2})
	d.likeAnew()
}

// TestOptionChanges: what only the posture has goes when it is no longer asked for,
// whatever the guard says of deletions, and nothing else does.
func TestOptionChanges(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 5)
	d.options.Guard = Guard{MaxDeletes: 1, MaxDeletesPercent: 1}
	d.start()
	d.addGroup("team", d.dn("user0"))
	d.must(d.Add(sandbox.Object{DN: d.dn("gmsa"), Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}}))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 6})
	identities := held(d.gateway)
	d.ask(true)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 21})
	d.ask(false)
	d.sync(Mode{DryRun: true}, state.Run{Mode: full, Result: Processed})
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 6, Deleted: 15})
	for guid, asset := range held(d.gateway) {
		if identities[guid] != asset && !isDeleted(asset) {
			t.Errorf("%s was %s", asset, identities[guid])
		}
	}
	if lines := d.log.with("security posture is no longer asked for: its roles, service accounts and domain are reported as deleted"); len(lines) != 2 || lines[1]["objects"] != 15.0 {
		t.Errorf("log %v", lines)
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.sync(Mode{Full: true}, state.Run{Mode: full, Result: Processed})
	d.ask(true)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 21})
	d.likeAnew()
}

// TestUnreadableMemberships: memberships that were kept and make no sense are read anew.
func TestUnreadableMemberships(t *testing.T) {
	d := exposed(t, sandbox.DirectoryOptions{}, 2)
	d.addGroup("team", d.dn("user0"))
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 17})
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
	d.must(d.store.ChangeGraph(state.GraphChange{Groups: []membership.Record{{Node: 0, Value: []byte("?")}}}))
	d.restart()
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed})
	if lines := d.log.with("the kept memberships cannot be read: they are read from the directory anew"); len(lines) != 1 {
		t.Errorf("log %v", lines)
	}
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed})
}
