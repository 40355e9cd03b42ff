//go:build ad

package samba

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/secret"
	"adconnector/internal/status"
	"adconnector/test/oracle"
	"adconnector/test/testenv"
)

// newPairConnector returns a connector that reads deltaOU from the first controller.
func newPairConnector(t *testing.T, p *pair) *deltaConnector {
	t.Helper()
	g := newGateway(t, nil, nil)
	settings := p.first.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{
		"profile.baseContext": deltaOU, "sync.max-deletes-percent": "100",
	})
	return &deltaConnector{d: p.first, g: g, settings: settings, base: deltaOU, prefix: p.prefix}
}

// at returns the connector with other hosts in its settings. The first one that answers must be
// the controller. Without hosts, it is the only one.
func (c *deltaConnector) at(d *controller, hosts ...string) *deltaConnector {
	if len(hosts) == 0 {
		hosts = []string{d.host}
	}
	other := *c
	other.d, other.settings = d, c.settings.With(testenv.Settings{"ldap.host": strings.Join(hosts, ",")})
	return &other
}

// ignored returns the paths of the fields that a run in this mode may leave as they are. Each
// controller of a pair has different values for these fields. A delta sync does not send an
// object because of them.
func (c *deltaConnector) ignored(mode string) []string {
	if c.d.peer == nil || mode == "full" {
		return nil
	}
	return []string{
		oracle.UserClass + "failedPasswordAttemptCount", oracle.UserClass + "lastFailedPasswordAttemptAt", oracle.UserClass + "lastSuccessfulLoginAt",
	}
}

// outdated returns the number of objects that a run must send: those in the directory whose last
// asset at the gateway differs, except for ignored fields.
func (c *deltaConnector) outdated(t *testing.T, mode string) int {
	t.Helper()
	received := map[string]oracle.FlatAsset{}
	for _, identity := range slices.Concat(c.g.Users(), c.g.Groups()) {
		received[identity.ExternalAssetID] = flatten(t, identity.Asset)
	}
	directory := c.d.snapshot(t, searchScope{base: c.base})
	n := 0
	for sid, asset := range union(directory.users, directory.groups) {
		differs := func(path string) bool {
			return received[sid][path] != asset[path] && !slices.Contains(c.ignored(mode), path)
		}
		if slices.ContainsFunc(slices.Collect(maps.Keys(union(received[sid], asset))), differs) {
			n++
		}
	}
	return n
}

// deliver runs one sync, which must send the outdated objects and no others, and the deletions.
func (c *deltaConnector) deliver(t *testing.T, step string, want syncCounts, args ...string) {
	t.Helper()
	want.uploaded = c.outdated(t, want.mode)
	t.Logf("%s: %+v", step, want)
	c.sync(t, step, want, args...)
}

// mustHaveStatus fails the test unless the user has the status at the gateway.
func (c *deltaConnector) mustHaveStatus(t *testing.T, name, status string) {
	t.Helper()
	for _, user := range c.g.Users() {
		if asset := flatten(t, user.Asset); asset.Text(oracle.Name) == name {
			if got := asset.Text(oracle.UserClass + "status"); got != status {
				t.Errorf("%s: status is %s, want %s", name, got, status)
			}
			return
		}
	}
	t.Errorf("%s is not at the gateway", name)
}

// mustBeUndecided fails the test unless the status lists undecided deletions for a reason, with
// a remedy.
func (c *deltaConnector) mustBeUndecided(t *testing.T, reason string, objects int) {
	t.Helper()
	o := run(t, c.settings, "status", "--output", "json")
	o.MustExit(t, 0)
	var report status.Report
	if err := json.Unmarshal([]byte(o.Stdout), &report); err != nil {
		t.Fatalf("%v in %s", err, o.Stdout)
	}
	if report.Undecided != objects {
		t.Errorf("status: %d deletions undecided, want %d", report.Undecided, objects)
	}
	if objects == 0 {
		return
	}
	if len(report.UndecidedReasons) != 1 || report.UndecidedReasons[0].Reason != reason ||
		report.UndecidedReasons[0].Objects != objects || report.UndecidedReasons[0].Remedy == "" {
		t.Errorf("status: reasons %+v, want %q with a remedy", report.UndecidedReasons, reason)
	}
}

// notShown is the reason for the deletions of objects that a controller may not have yet.
const notShown = "not shown by this domain controller"

// TestFailover stops the first of two controllers in a list of hosts. A failover costs one full
// sync, and the return to the first controller a delta sync.
func TestFailover(t *testing.T) {
	p := sharedPair(t)
	p.addDeltaOU(t, 20)
	c := newPairConnector(t, p)
	first := c.at(p.first, p.first.host, p.second.host)
	second := c.at(p.second, p.first.host, p.second.host)
	first.deliver(t, "first controller", syncCounts{mode: "full"})
	first.deliver(t, "no changes", syncCounts{mode: "delta"})

	restart := p.stop(t, p.first)
	second.deliver(t, "failover", syncCounts{mode: "full"})
	second.deliver(t, "no changes after the failover", syncCounts{mode: "delta"})
	p.second.setAttribute(t, deltaDN(1), "title", "Changed on second")
	p.second.setAttribute(t, deltaDN(2), "userAccountControl", strconv.Itoa(uacPlainDisabled))
	p.second.addUser(t, "Made On Second", deltaOU, "madeonsecond")
	second.deliver(t, "changes on second", syncCounts{mode: "delta"})

	restart()
	p.first.setAttribute(t, deltaDN(3), "title", "Changed on first")
	p.first.delete(t, deltaDN(5)) // the controller has shown it before
	first.deliver(t, "return", syncCounts{mode: "delta"})
	first.mustHaveStatus(t, deltaName(2), "DISABLED")
	first.mustHaveStatus(t, "Made On Second", "ACTIVE")
	first.deliver(t, "no changes after the return", syncCounts{mode: "delta"})

	p.first.delete(t, deltaDN(4))
	first.deliver(t, "deletions", syncCounts{mode: "full", deleted: 2}, "--full")
	first.mustBeDeleted(t, deltaName(4), true)
	first.mustBeDeleted(t, deltaName(5), true)
}

// TestNameOfTwoControllers connects to a name with the addresses of both controllers. The name
// leads to the controller of the last run while that one answers.
func TestNameOfTwoControllers(t *testing.T) {
	p := sharedPair(t)
	p.addDeltaOU(t, 10)
	c := newPairConnector(t, p)
	c.at(p.second).deliver(t, "second controller", syncCounts{mode: "full"})
	first, second := c.at(p.first, pairName), c.at(p.second, pairName)
	for n := range 3 {
		p.first.setAttribute(t, deltaDN(n), "title", "Changed")
		p.replicate(t, p.first, p.second)
		second.deliver(t, "name, second controller", syncCounts{mode: "delta"})
	}
	restart := p.stop(t, p.second)
	first.deliver(t, "failover", syncCounts{mode: "full"})
	restart()
	for range 3 {
		first.deliver(t, "name, first controller", syncCounts{mode: "delta"})
	}
	p.stop(t, p.first)
	second.deliver(t, "return", syncCounts{mode: "delta"})
}

// exceedOverlap makes so many changes that a delta sync does not read again what changed before.
func (d *controller) exceedOverlap(t *testing.T) {
	t.Helper()
	const overlap = 200 // of deltas, in USNs
	var l ldif
	for n := range overlap + 1 {
		l.replace(outsideOU, "description", strconv.Itoa(n))
	}
	d.ldapmodify(t, l.String())
}

// TestLaggingController makes a run on a controller that lags, which delivers old values and may
// fail midway. The next delta sync on the previous controller restores the current ones.
func TestLaggingController(t *testing.T) {
	p := sharedPair(t)
	for _, fails := range []bool{false, true} {
		t.Run("run fails "+strconv.FormatBool(fails), func(t *testing.T) { testLaggingController(t, p, fails) })
	}
}

func testLaggingController(t *testing.T, p *pair, fails bool) {
	p.first.grantReadDeleted(t)
	p.addDeltaOU(t, 30)
	c := newPairConnector(t, p)
	const batchSize = 5
	c.settings = c.settings.With(testenv.Settings{"upload.batch-size": strconv.Itoa(batchSize), "thread-pool.size": "1"})
	c.deliver(t, "first controller", syncCounts{mode: "full"})

	p.pause(t, p.second)
	var disable ldif
	for n := range 8 {
		disable.replace(deltaDN(n), "userAccountControl", strconv.Itoa(uacPlainDisabled))
	}
	p.first.ldapmodify(t, disable.String())
	p.first.delete(t, deltaDN(8))
	p.first.delete(t, deltaDN(9))
	p.first.addUser(t, "Made On First", deltaOU, "madeonfirst")
	p.first.exceedOverlap(t)
	c.deliver(t, "changes on first", syncCounts{mode: "delta", deleted: 2})

	refused := 0 // objects of the last batch, whose delivery is uncertain
	if fails {
		refused = batchSize
		batches := 0
		c.g.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
			batches++
			return batches == 6 && x.Status(http.StatusForbidden, "{}")
		}))
		run(t, c.at(p.second).settings, "sync").MustExit(t, 3)
		c.g.SetFront(nil)
	} else {
		run(t, c.at(p.second).settings, "sync")
	}
	old := c.outdated(t, "delta")
	t.Logf("%d objects have old values, %v", old, c.statuses(t))
	if old == 0 {
		t.Fatal("no old values delivered")
	}
	refused -= 2 - c.alive(t, deltaName(8), deltaName(9))
	c.sync(t, "return", syncCounts{mode: "delta", uploaded: old + refused, deleted: 2})
	c.mustBeDeleted(t, deltaName(8), true)
	c.mustBeDeleted(t, deltaName(9), true)
	if statuses := c.statuses(t); statuses["DISABLED"] != 8 || statuses["DELETED"] != 2 || statuses["ACTIVE"] != 21 {
		t.Errorf("statuses %v", statuses)
	}
	c.deliver(t, "no changes after the return", syncCounts{mode: "delta"})
}

// statuses returns the number of users at the gateway by status.
func (c *deltaConnector) statuses(t *testing.T) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, user := range c.g.Users() {
		n[flatten(t, user.Asset).Text(oracle.UserClass+"status")]++
	}
	return n
}

// alive returns how many of the users are not deleted at the gateway.
func (c *deltaConnector) alive(t *testing.T, names ...string) int {
	t.Helper()
	n := 0
	for _, user := range c.g.Users() {
		asset := flatten(t, user.Asset)
		if slices.Contains(names, asset.Text(oracle.Name)) && asset.Text(oracle.UserClass+"status") != "DELETED" {
			n++
		}
	}
	return n
}

// TestDeletedOnOneController deletes and adds users on the first controller, while the second
// one lags. Full syncs on the second one conclude no deletion from what it does not have, for
// any time, and replication resolves it.
func TestDeletedOnOneController(t *testing.T) {
	p := sharedPair(t)
	p.addDeltaOU(t, 10)
	c := newPairConnector(t, p)
	lagging := c.at(p.second)
	c.deliver(t, "first controller", syncCounts{mode: "full"})
	lagging.deliver(t, "second controller", syncCounts{mode: "full"})

	resume := p.pause(t, p.second)
	p.first.delete(t, deltaDN(0))
	p.first.addUser(t, "Made On First", deltaOU, "madeonfirst")
	lagging.deliver(t, "second controller lags", syncCounts{mode: "full"}, "--full")
	lagging.mustBeDeleted(t, deltaName(0), false)

	c.deliver(t, "first controller, changed", syncCounts{mode: "delta"})
	c.mustHaveStatus(t, "Made On First", "ACTIVE")
	for n := range 3 {
		lagging.deliver(t, "second controller lags, full sync "+strconv.Itoa(n), syncCounts{mode: "full", undecided: 1}, "--full")
		lagging.mustHaveStatus(t, "Made On First", "ACTIVE")
		lagging.mustBeDeleted(t, deltaName(0), false)
		lagging.mustBeUndecided(t, notShown, 1)
	}
	lagging.deliver(t, "second controller lags, delta sync", syncCounts{mode: "delta", undecided: 1})

	resume()
	lagging.deliver(t, "replicated", syncCounts{mode: "delta"})
	lagging.mustBeUndecided(t, notShown, 0)
	lagging.deliver(t, "replicated, full sync", syncCounts{mode: "full", deleted: 1}, "--full")
	lagging.mustBeDeleted(t, deltaName(0), true)
	lagging.mustHaveStatus(t, "Made On First", "ACTIVE")
	c.deliver(t, "return", syncCounts{mode: "delta"})
	c.mustBeDeleted(t, deltaName(0), true)
}

// TestTombstoneOnOneController deletes users that only the second controller has shown on the
// first one. A tombstone proves the deletion, in delta and in full syncs. Without read access to
// tombstones, only absence on the second controller does.
func TestTombstoneOnOneController(t *testing.T) {
	p := sharedPair(t)
	for _, readsDeleted := range []bool{true, false} {
		t.Run("read access to Deleted Objects "+strconv.FormatBool(readsDeleted), func(t *testing.T) {
			p.addDeltaOU(t, 6)
			if readsDeleted {
				p.first.grantReadDeleted(t)
			}
			c := newPairConnector(t, p)
			second := c.at(p.second)
			c.deliver(t, "first controller", syncCounts{mode: "full"})
			p.second.addUser(t, "Made On Second", deltaOU, "madeonsecond")
			p.second.addUser(t, "Also Made On Second", deltaOU, "alsomadeonsecond")
			second.deliver(t, "second controller", syncCounts{mode: "full"})
			p.replicate(t, p.second, p.first)

			resume := p.pause(t, p.second)
			p.first.delete(t, "CN=Made On Second,"+deltaOU)
			if readsDeleted {
				c.deliver(t, "tombstone, full sync", syncCounts{mode: "full", deleted: 1}, "--full")
				c.mustBeDeleted(t, "Made On Second", true)
				p.first.delete(t, "CN=Also Made On Second,"+deltaOU)
				c.deliver(t, "tombstone, delta sync", syncCounts{mode: "delta", deleted: 1})
				c.mustBeDeleted(t, "Also Made On Second", true)
				return
			}
			p.first.delete(t, "CN=Also Made On Second,"+deltaOU)
			c.deliver(t, "absent", syncCounts{mode: "full", undecided: 2}, "--full")
			c.mustBeUndecided(t, notShown, 2)
			second.deliver(t, "alive on second", syncCounts{mode: "full"}, "--full")
			c.mustBeUndecided(t, notShown, 0)
			resume()
			second.deliver(t, "replicated", syncCounts{mode: "full", deleted: 2}, "--full")
			c.mustBeDeleted(t, "Made On Second", true)
			c.mustBeDeleted(t, "Also Made On Second", true)
			c.deliver(t, "return", syncCounts{mode: "delta"})
		})
	}
}

// TestUnreadableTombstone gives the account read access to the container of tombstones alone. Samba
// replaces the inherited part of a replicated tombstone's descriptor by that of the container,
// so the second controller hides uSNChanged. The delta sync must find the deletion.
func TestUnreadableTombstone(t *testing.T) {
	p := sharedPair(t)
	p.first.setReadDeleted(t, readDeletedContainer)
	t.Cleanup(func() { p.first.setReadDeleted(t, noReadDeleted) })
	p.addDeltaOU(t, 6)
	c := newPairConnector(t, p).at(p.second)
	c.deliver(t, "second controller", syncCounts{mode: "full"})
	p.first.delete(t, deltaDN(0))
	p.replicate(t, p.first, p.second)
	c.deliver(t, "deleted", syncCounts{mode: "delta", deleted: 1})
	c.mustBeDeleted(t, deltaName(0), true)
}

// TestRestoredOnOneController deletes a user on both controllers and restores it on the first
// one only. The tombstone of the second one deletes the user at the gateway, until the next run
// on the first one.
func TestRestoredOnOneController(t *testing.T) {
	p := sharedPair(t)
	p.first.grantReadDeleted(t)
	p.addDeltaOU(t, 6)
	c := newPairConnector(t, p)
	lagging := c.at(p.second)
	c.deliver(t, "first controller", syncCounts{mode: "full"})
	lagging.deliver(t, "second controller", syncCounts{mode: "full"})
	c.deliver(t, "return", syncCounts{mode: "delta"})

	guid := oracle.GUID(p.first.ldapsearch(t, deltaDN(0), "base", "(objectClass=*)", "objectGUID")[0].values.First("objectGUID"))
	p.first.delete(t, deltaDN(0))
	resume := p.pause(t, p.second) // has the tombstone
	p.first.undelete(t, guid, deltaName(0), deltaDN(0))
	p.first.exceedOverlap(t)
	c.deliver(t, "restored on first", syncCounts{mode: "delta"})
	c.mustBeDeleted(t, deltaName(0), false)
	lagging.deliver(t, "tombstone on second", syncCounts{mode: "delta", deleted: 1})
	lagging.mustBeDeleted(t, deltaName(0), true)
	c.deliver(t, "return after the tombstone", syncCounts{mode: "delta"})
	c.mustHaveStatus(t, deltaName(0), "ACTIVE")
	c.deliver(t, "no changes after the return", syncCounts{mode: "delta"})
	resume()
	lagging.deliver(t, "replicated", syncCounts{mode: "delta"})
	lagging.mustHaveStatus(t, deltaName(0), "ACTIVE")
}

// TestRestoredSnapshot puts a controller back to a copy of its files: its USNs decrease, and it
// lacks a user that lives on at the other controller.
func TestRestoredSnapshot(t *testing.T) {
	p := sharedPair(t)
	p.addDeltaOU(t, 6)
	c := newPairConnector(t, p).at(p.second)
	c.deliver(t, "before the snapshot", syncCounts{mode: "full"})

	files := func(name string) string { return filepath.Join(p.dir, name) }
	current := p.second.dir
	swap := func(aside, back string) {
		t.Helper()
		if err := errors.Join(p.second.stop(), os.Rename(current, aside), os.Rename(back, current), p.second.start()); err != nil {
			t.Fatal(err)
		}
	}
	restart := p.stop(t, p.second)
	if _, err := runTool("", "cp", "-a", current, files("snapshot")); err != nil {
		t.Fatal(err)
	}
	restart()
	p.second.addUser(t, "Made After Snapshot", deltaOU, "madeafter")
	p.second.exceedOverlap(t)
	c.deliver(t, "after the snapshot", syncCounts{mode: "delta"})
	p.replicate(t, p.second, p.first)

	restart = p.stop(t, p.first) // no replication in the meantime
	swap(files("current"), files("snapshot"))
	t.Cleanup(func() {
		swap(files("snapshot"), files("current"))
		restart()
	})
	for _, step := range []string{"snapshot restored", "next full sync"} {
		c.deliver(t, step, syncCounts{mode: "full", undecided: 1}, "--full")
		c.mustBeUndecided(t, "highestCommittedUSN decreased", 1)
	}
	c.mustHaveStatus(t, "Made After Snapshot", "ACTIVE")
}

// TestControllers checks which controller the command check shows, and that each controller
// lists both with their invocation IDs.
func TestControllers(t *testing.T) {
	p := sharedPair(t)
	p.addDeltaOU(t, 1)
	c := newPairConnector(t, p).at(p.first, p.first.host, p.second.host)
	mustShow := func(d *controller) {
		t.Helper()
		report, o := check(t, c.settings)
		o.MustExit(t, 0)
		for _, r := range report.Checks {
			if r.Name == "domain controller" {
				if r.Result != "ok" || !strings.HasPrefix(r.Found, d.hostName()+" at "+d.host+":389") {
					t.Errorf("check: %+v, want %s", r, d.hostName())
				}
				return
			}
		}
		t.Error("check shows no domain controller")
	}
	mustShow(p.first)

	controllers := func(d *controller) (own ad.InvocationID, all map[string]ad.InvocationID) {
		t.Helper()
		session, err := directory.Connect(t.Context(), directory.Options{
			Protocol: directory.LDAP, Hosts: []string{d.host}, BindDN: d.service.dn, Password: secret.New(d.service.password),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		found, err := session.DomainControllers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = map[string]ad.InvocationID{}
		for _, c := range found {
			all[c.Host] = c.InvocationID
		}
		return session.Controller.InvocationID, all
	}
	firstID, fromFirst := controllers(p.first)
	secondID, fromSecond := controllers(p.second)
	want := map[string]ad.InvocationID{p.first.hostName(): firstID, p.second.hostName(): secondID}
	if firstID == secondID || !maps.Equal(fromFirst, want) || !maps.Equal(fromSecond, want) {
		t.Errorf("controllers %v and %v, want %v", fromFirst, fromSecond, want)
	}

	p.stop(t, p.first)
	mustShow(p.second)
}
