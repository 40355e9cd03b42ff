package syncrun

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// sid returns the SID of an object.
func (e *env) sid(dn string) ad.SID {
	e.t.Helper()
	o, err := e.Server.Object(dn, "objectSid")
	e.must(err)
	return ad.SID(o.First("objectSid"))
}

// setRID gives an object another SID and returns the former one.
func (e *env) setRID(dn string, rid uint32) (former ad.SID) {
	e.t.Helper()
	former = e.sid(dn)
	e.must(e.SetRID(dn, rid))
	return former
}

// setSID gives an object the SID of another one, or one that another one had.
func (e *env) setSID(dn string, sid ad.SID) {
	e.t.Helper()
	e.setRID(dn, uint32(sid[24])|uint32(sid[25])<<8|uint32(sid[26])<<16)
}

// expectAsset expects the asset with a key at the gateway to have a status and a name; "": a user
// or group that was not reported as deleted.
func (e *env) expectAsset(sid ad.SID, status, name string) {
	e.t.Helper()
	asset := e.gateway.HeldByKey()[sid.String()]
	if !strings.Contains(asset, fmt.Sprintf(`"name":%q`, name)) || !strings.Contains(asset, fmt.Sprintf(`"status":%q`, status)) {
		e.t.Errorf("asset of %s: %s, want %s with status %s", sid, asset, name, status)
	}
}

// expectDropped expects one run to have dropped deletions for one reason.
func (e *env) expectDropped(reason string, objects int) {
	e.t.Helper()
	lines := e.log.With(MsgDeletionsDropped)
	if len(lines) != 1 || lines[0].Text("reason") != reason || lines[0].Number("objects") != objects {
		e.t.Errorf("log %v, want %d dropped: %s", lines, objects, reason)
	}
}

// expectQuiet expects a delta sync and a full sync to send nothing.
func (e *env) expectQuiet() {
	e.t.Helper()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
}

// header returns the key and the status of the only asset of a request.
func header(body []byte) (key, status string) {
	var request struct {
		AssetData []struct {
			Asset struct {
				AssetHeader struct{ ExternalAssetID string }
				AssetDetail struct{ UserAssetClass, GroupAssetClass struct{ Status string } }
			}
		}
	}
	if err := json.Unmarshal(body, &request); err != nil || len(request.AssetData) != 1 {
		return "", fmt.Sprintf("%d assets, error %v", len(request.AssetData), err)
	}
	asset := request.AssetData[0].Asset
	return asset.AssetHeader.ExternalAssetID, asset.AssetDetail.UserAssetClass.Status + asset.AssetDetail.GroupAssetClass.Status
}

// sequence records the requests of the following runs, each with one asset: when it arrives, and
// when it is answered.
func (e *env) sequence() func() []string {
	e.options.Upload.Workers, e.options.Upload.BatchSize = 8, 1
	e.start()
	var mu sync.Mutex
	var events []string
	add := func(body []byte, what string) {
		mu.Lock()
		defer mu.Unlock()
		key, status := header(body)
		events = append(events, fmt.Sprint(key, " ", status, " ", what))
	}
	e.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		add(x.Body, "arrived")
		response := x.Deliver()
		add(x.Body, "answered")
		x.Answer(response)
		return true
	}))
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(events)
	}
}

// TestReusedRID checks that a SID that was given out again, after the domain controller was put
// back to a snapshot, ends with the value of the object that has it now.
func TestReusedRID(t *testing.T) {
	t.Parallel()
	for name, sameInvocation := range map[string]bool{"new invocation ID": false, "same invocation ID": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 3)
			snapshot := e.Snapshot()
			e.AddUser(e.dn("Before 1"))
			before, sid := e.GUID(e.dn("Before 1")), e.sid(e.dn("Before 1"))
			e.exceedOverlap()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
			e.Restore(domaincontroller.Restoration{Snapshot: snapshot, SameInvocation: sameInvocation})
			e.AddUser(e.dn("After 1"))
			if !bytes.Equal(e.sid(e.dn("After 1")), sid) || e.GUID(e.dn("After 1")) == before {
				t.Fatal("the SID was not given out again")
			}
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
			e.expectAsset(sid, "ACTIVE", "After 1")
			e.expectDropped(DroppedShared, 1)
			e.expectUndecided("", 0)
			if _, found, err := e.store.Lookup(before, nil); found || err != nil {
				t.Errorf("in the index: %t, error %v", found, err)
			}
			e.exceedOverlap()
			e.expectQuiet()
			e.expectAsset(sid, "ACTIVE", "After 1")
		})
	}
}

// TestTombstoneOfSharedSID checks the same with a tombstone in a delta sync, also if the gateway
// rejects the object that has the SID, or if the account may not read it completely.
func TestTombstoneOfSharedSID(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(e *env)
		want    state.Run
	}{
		"delivered":  {func(*env) {}, state.Run{Result: Processed, Uploaded: 1}},
		"rejected":   {func(e *env) { e.gateway.SetFront(rejectAssetsWith("heir")) }, state.Run{Result: Partial, Rejected: 1}},
		"unreadable": {func(e *env) { e.hide(e.dn("heir"), "userAccountControl") }, state.Run{Result: Partial}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
			sid := e.sid(e.user(1))
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.must(e.Delete(e.user(1)))
			e.AddUser(e.dn("heir"))
			e.setSID(e.dn("heir"), sid)
			c.prepare(e)
			c.want.Mode = delta
			e.run(RunOptions{}, c.want)
			if asset := e.gateway.HeldByKey()[sid.String()]; testenv.IsDeleted(asset) {
				t.Errorf("asset %s", asset)
			}
			e.expectDropped(DroppedShared, 1)
		})
	}
}

// TestHeldOfSharedSID checks that a held deletion is dropped once another object has its SID.
func TestHeldOfSharedSID(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 6)
	e.options.Guard.MaxDeletes = 1
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6})
	first, second := e.sid(e.user(0)), e.sid(e.user(1))
	e.deleteUsers(2)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Held: 2})
	for n, sid := range []ad.SID{first, second} {
		e.AddUser(e.dn(fmt.Sprint("heir ", n)))
		e.setSID(e.dn(fmt.Sprint("heir ", n)), sid)
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
	e.expectAsset(first, "ACTIVE", "heir 0")
	e.expectAsset(second, "ACTIVE", "heir 1")
	if n := e.heldDeletions(); n > 0 {
		t.Errorf("%d held", n)
	}
	e.expectQuiet()
}

// TestRebuiltDomain checks that the release of the objects of a former domain does not report
// groups that every domain has as deleted, with their roles.
func TestRebuiltDomain(t *testing.T) {
	t.Parallel()
	for name, posture := range map[string]bool{"identities": false, "posture": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 3)
			rebuilt := testenv.NewDirectory(t, domaincontroller.Options{Now: e.clock.Now, Seed: 2, Name: "dc2"})
			e.base = e.Base()
			e.setPosture(posture)
			former := e.sid("CN=user1,OU=Staff," + e.base)
			if _, err := e.runner.Run(t.Context(), RunOptions{}); err != nil {
				t.Fatal(err)
			}
			builtin := e.builtin()
			e.Directory = rebuilt
			e.connectTo(rebuilt.Port)
			for range 3 { // two full syncs send objects again that were created before the last one
				if run, err := e.runner.Run(t.Context(), RunOptions{AllowDeletes: true}); err != nil || run.Rejected > 0 {
					t.Fatalf("run: %s, error %v", brief(run), err)
				}
				for key, asset := range e.builtin() {
					if testenv.IsDeleted(asset) || asset == builtin[key] {
						t.Errorf("asset %s", asset)
					}
				}
			}
			e.expectAsset(former, "DELETED", "user1")
			if len(builtin) < 9 || len(e.builtin()) != len(builtin) {
				t.Errorf("%d groups and roles before, %d now", len(builtin), len(e.builtin()))
			}
			e.expectUndecided("", 0)
			e.expectQuiet()
		})
	}
}

// builtin returns the assets of the groups that every domain has, and their roles.
func (e *env) builtin() map[string]string {
	assets := e.gateway.HeldByKey()
	maps.DeleteFunc(assets, func(key, _ string) bool { return !strings.HasPrefix(key, "S-1-5-32-") })
	return assets
}

// TestBuiltinOutOfScope checks that such groups leave the index without a delivery.
func TestBuiltinOutOfScope(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	staff := e.base
	e.base = "CN=Builtin," + e.Base()
	e.setConsole()
	run, err := e.runner.Run(t.Context(), RunOptions{})
	if err != nil || run.Uploaded < 9 {
		t.Fatalf("run: %s, error %v", brief(run), err)
	}
	builtin := e.builtin()
	e.base = staff
	e.setConsole()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	if !maps.Equal(e.builtin(), builtin) {
		t.Errorf("assets %v, before %v", e.builtin(), builtin)
	}
	e.expectDropped(DroppedBuiltin, run.Uploaded)
	e.expectQuiet()
}

// TestSIDChanged checks that objects with another SID are deleted under the former one before
// they are sent under the new one, whatever batches and workers there are, and only once.
func TestSIDChanged(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]RunOptions{delta: {}, full: {Full: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const users = 30
			e := newDomainEnv(t, domaincontroller.Options{}, users)
			team := e.addGroup("team")
			e.clock.Advance(time.Hour)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: users + 1})
			e.clock.Advance(time.Hour)
			formerTeam := e.setRID(team, 8000)
			former := make([]ad.SID, users)
			for n := range users {
				former[n] = e.setRID(e.user(n), 5000+uint32(n))
			}
			events := e.sequence()
			run := e.run(options, state.Run{Mode: name, Result: Processed, Uploaded: users + 1, Deleted: users + 1})
			if run.Changed != users+1 || options.Full && (run.Users != users || run.Groups != 1) {
				t.Errorf("%d changed, %d users, %d groups", run.Changed, run.Users, run.Groups)
			}
			order := events()
			for n, sid := range former {
				deleted := slices.Index(order, sid.String()+" DELETED answered")
				sent := slices.Index(order, e.sid(e.user(n)).String()+" ACTIVE arrived")
				if deleted < 0 || sent < deleted {
					t.Errorf("deleted at %d, sent at %d: %q", deleted, sent, order)
				}
				e.expectAsset(sid, "DELETED", fmt.Sprint("user", n))
				e.expectAsset(e.sid(e.user(n)), "ACTIVE", fmt.Sprint("user", n))
			}
			e.expectAsset(formerTeam, "DELETED", "team")
			e.expectConverged()
			e.expectNotMovedIn()
			e.expectQuiet()
		})
	}
}

// expectNotMovedIn expects that no object counts as moved into the scope.
func (e *env) expectNotMovedIn() {
	e.t.Helper()
	if movedIn, err := e.store.MovedIn(); err != nil || len(movedIn) > 0 {
		e.t.Errorf("%d moved in, error %v", len(movedIn), err)
	}
}

// TestSIDChangedWithFailures checks that a run repeats what an earlier one did not complete.
func TestSIDChangedWithFailures(t *testing.T) {
	t.Parallel()
	refuse := func(status string, code int) testenv.Front {
		return testenv.OnAssets(func(x *testenv.Exchange) bool {
			_, got := header(x.Body)
			return got == status && x.Status(code, `{"message":"no"}`)
		})
	}
	for name, c := range map[string]struct {
		front testenv.Front
		want  state.Run // the next one
	}{
		"before the deletion":           {refuse("DELETED", http.StatusForbidden), state.Run{Uploaded: 1, Deleted: 1}},
		"between deletion and delivery": {refuse("ACTIVE", http.StatusForbidden), state.Run{Uploaded: 1}},
		"deletion delivered, answer lost": {testenv.OnAssets(func(x *testenv.Exchange) bool {
			x.Deliver()
			return x.Status(http.StatusForbidden, "")
		}), state.Run{Uploaded: 1, Deleted: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 3)
			e.clock.Advance(time.Hour)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.clock.Advance(time.Hour)
			former := e.setRID(e.user(1), 5000)
			e.gateway.SetFront(c.front)
			e.failedRun(RunOptions{})
			e.gateway.SetFront(nil)
			e.restart()
			e.exceedOverlap()
			c.want.Mode, c.want.Result = delta, Processed
			e.run(RunOptions{}, c.want)
			e.expectAsset(former, "DELETED", "user1")
			e.expectAsset(e.sid(e.user(1)), "ACTIVE", "user1")
			e.expectNotMovedIn()
			e.expectQuiet()
		})
	}
}

// TestDeletedBetween checks that an object that is deleted after its asset under the former SID
// leaves the index without another delivery.
func TestDeletedBetween(t *testing.T) {
	t.Parallel()
	forEachProof(t, func(t *testing.T, o domaincontroller.Options, options RunOptions, mode string) {
		e := newDomainEnv(t, o, 3)
		e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
		former := e.setRID(e.user(1), 5000)
		ctx, cancel := context.WithCancel(t.Context())
		e.runner.Log = zerolog.New(&logHook{Log: e.log, message: MsgBatchesAcknowledged, do: cancel})
		if run, err := e.runner.Run(ctx, RunOptions{}); err == nil {
			t.Errorf("run: %s", brief(run))
		}
		e.restart()
		e.must(e.Delete(e.user(1)))
		e.run(options, state.Run{Mode: mode, Result: Processed})
		e.expectDropped(DroppedFormer, 1)
		e.expectAsset(former, "DELETED", "user1")
		if size, err := e.store.IndexSize(); err != nil || size != 2 {
			t.Errorf("index size %d, error %v", size, err)
		}
		e.expectQuiet()
	})
}

// TestSIDChangedAndRejected checks that an object waits for the deletion under its former SID, and
// that the deletion is retried like other rejected objects.
func TestSIDChangedAndRejected(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	former := e.setRID(e.user(1), 5000)
	e.gateway.SetFront(rejectAssetsWith("DELETED"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed}) // no retry is due
	e.clock.Advance(2 * time.Hour)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	e.expectAsset(former, "ACTIVE", "user1")
	if asset := e.gateway.HeldByKey()[e.sid(e.user(1)).String()]; asset != "" {
		t.Errorf("asset %s", asset)
	}
	e.gateway.SetFront(nil)
	e.clock.Advance(3 * time.Hour)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	e.expectAsset(former, "DELETED", "user1")
	e.expectAsset(e.sid(e.user(1)), "ACTIVE", "user1")
	e.expectQuiet()
}

// TestSwappedSIDs checks that no asset is reported as deleted if two objects exchange their SIDs,
// or a new one has the former SID of another.
func TestSwappedSIDs(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 4)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
	first, second, third := e.sid(e.user(0)), e.sid(e.user(1)), e.sid(e.user(2))
	e.setSID(e.user(0), second)
	e.setSID(e.user(1), first)
	e.setRID(e.user(2), 5000)
	e.AddUser(e.dn("heir"))
	e.setSID(e.dn("heir"), third)
	events := e.sequence()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 4})
	e.expectAsset(first, "ACTIVE", "user1")
	e.expectAsset(second, "ACTIVE", "user0")
	e.expectAsset(third, "ACTIVE", "heir")
	e.expectAsset(e.sid(e.user(2)), "ACTIVE", "user2")
	for _, event := range events() {
		if strings.Contains(event, "DELETED") {
			t.Error(event)
		}
	}
	e.expectQuiet()
}

// TestSharedSID checks that living objects with the same SID are all sent, that a scan of the index
// warns of them, and that the asset has the value of one that is left if another one is deleted.
func TestSharedSID(t *testing.T) {
	t.Parallel()
	e := newSharedEnv(t)
	sid := e.sid(e.user(0))
	e.must(e.Delete(e.user(2)))
	e.run(RunOptions{DryRun: true}, state.Run{Mode: delta, Result: Processed})
	e.refusedRun(RunOptions{})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
	lines := e.log.With(MsgSIDsShared)
	if len(lines) != 3 || lines[0].Number("objects") != 2 || lines[0].Text("level") != "warn" || lines[0].Text("remedy") == "" {
		t.Errorf("log %v", lines)
	}
	e.expectQuiet()
	e.must(e.Delete(e.user(0)))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.expectAsset(sid, "ACTIVE", "user1")
	e.expectQuiet()
	e.must(e.Delete(e.user(1)))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.expectAsset(sid, "DELETED", "user1")
	e.expectQuiet()
}

// newSharedEnv returns an environment after a full sync of four users, three of which have the
// same SID.
func newSharedEnv(t *testing.T) *env {
	t.Helper()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 4)
	e.setSID(e.user(1), e.sid(e.user(0)))
	e.setSID(e.user(2), e.sid(e.user(0)))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
	return e
}

// TestSharedSIDChanged checks the same if objects get other SIDs, and if the run fails before or
// after the other objects were sent again.
func TestSharedSIDChanged(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string]string{"no failure": "none", "owner refused": `"user0"`, "changed object refused": `"user2"`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newSharedEnv(t)
			sid := e.sid(e.user(0))
			e.setRID(e.user(1), 5001)
			e.setRID(e.user(2), 5002)
			if refused != "none" {
				e.sequence()
				front := refuseAssetsWith(refused)
				e.gateway.SetFront(front)
				e.failedRun(RunOptions{})
				e.gateway.SetFront(nil)
				e.restart()
			}
			if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Result != Processed || run.Deleted > 0 {
				t.Errorf("run: %s, error %v", brief(run), err)
			}
			e.expectAsset(sid, "ACTIVE", "user0")
			e.expectAsset(e.sid(e.user(1)), "ACTIVE", "user1")
			e.expectAsset(e.sid(e.user(2)), "ACTIVE", "user2")
			e.expectQuiet()
		})
	}
}

// refuseAssetsWith returns a front that refuses assets requests whose body contains a text.
func refuseAssetsWith(text string) testenv.Front {
	return testenv.OnAssets(func(x *testenv.Exchange) bool {
		return strings.Contains(string(x.Body), text) && x.Status(http.StatusForbidden, "")
	})
}

// TestUnreadableOwner checks that an unreadable object of the index counts once, and that the other
// object stays in the index until the asset has the value of the one that is left.
func TestUnreadableOwner(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 4)
	sid := e.sid(e.user(0))
	e.setSID(e.user(1), sid)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
	e.must(e.Delete(e.user(0)))
	e.hide(e.user(1), "userAccountControl")
	e.must(e.Modify(e.user(1), "title", "Chief"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Partial})
	if lines := e.log.With(MsgSIDsShared); len(lines) > 0 {
		t.Errorf("log %v", lines)
	}
	e.must(e.Modify(e.user(1), "title"))
	e.hide(e.user(1))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.expectAsset(sid, "ACTIVE", "user1")
	e.expectDropped(DroppedShared, 1)
	e.expectQuiet()
}

// TestSIDOfRoleChanged checks the roles, which are read in another way than the groups in scope.
func TestSIDOfRoleChanged(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	e.setPosture(true)
	group := "CN=DnsAdmins,CN=Users," + e.Base()
	e.must(e.Modify(group, "member", e.user(1)))
	if _, err := e.runner.Run(t.Context(), RunOptions{}); err != nil {
		t.Fatal(err)
	}
	former := e.setRID(group, 5000).String() + ":role"
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2, Deleted: 1}) // with the member
	assets := e.gateway.HeldByKey()
	if asset := assets[former]; !testenv.IsDeleted(asset) {
		t.Errorf("asset %s", asset)
	}
	if asset := assets[e.sid(group).String()+":role"]; asset == "" || testenv.IsDeleted(asset) {
		t.Errorf("asset %s", asset)
	}
	e.expectQuiet()
}

// TestDryRunOfKeys checks that a dry run shows what a real run then sends.
func TestDryRunOfKeys(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]RunOptions{delta: {}, full: {Full: true}, "resend": {Resend: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 6)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6})
			sid := e.sid(e.user(0))
			e.must(e.Delete(e.user(0)))
			e.AddUser(e.dn("heir"))
			e.setSID(e.dn("heir"), sid)
			e.setRID(e.user(1), 5000)
			second, third := e.sid(e.user(2)), e.sid(e.user(3))
			e.setSID(e.user(2), third)
			e.setSID(e.user(3), second)

			var shown []string
			dryRun := options
			dryRun.DryRun = true
			dryRun.Show = func(asset identity.Asset, _ bool) {
				key, status := header(fmt.Appendf(nil, `{"assetData":[%s]}`, asset.JSON))
				shown = append(shown, key+" "+status)
			}
			e.start()
			if run, err := e.runner.Run(t.Context(), dryRun); err != nil || run.Result != Processed {
				t.Errorf("run: %s, error %v", brief(run), err)
			}
			events := e.sequence()
			if run, err := e.runner.Run(t.Context(), options); err != nil || run.Result != Processed || run.Deleted != 1 {
				t.Errorf("run: %s, error %v", brief(run), err)
			}
			var sent []string
			for _, event := range events() {
				if event, answered := strings.CutSuffix(event, " answered"); answered {
					sent = append(sent, event)
				}
			}
			slices.Sort(shown)
			slices.Sort(sent)
			if !slices.Equal(shown, sent) || len(sent) == 0 {
				t.Errorf("shown %q, sent %q", shown, sent)
			}
		})
	}
}

func TestDecideKeys(t *testing.T) {
	t.Parallel()
	at := func(n int, with Candidate) Candidate { return candidates(n, n+1, with)[0] }
	kind := func(c Candidate, kind identity.Kind, sid ad.SID) Candidate {
		c.Kind = kind
		if sid != nil {
			c.SID = sid
		}
		return c
	}
	sameSID := func(c, other Candidate) Candidate {
		c.SID = other.SID
		return c
	}
	former := func(c Candidate) Candidate {
		c.FormerSID = true
		return c
	}
	changed := func(list ...Candidate) (objects []identity.Object) {
		for _, c := range list {
			objects = append(objects, c.Object)
		}
		return objects
	}
	owned := func(list ...Candidate) map[identity.Key]int {
		counts := map[identity.Key]int{}
		for _, c := range list {
			counts[c.Key()]++
		}
		return counts
	}
	undecided := Candidate{}
	administrators := ad.SID{1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 32, 2, 0, 0}
	for name, c := range map[string]struct {
		evidence Evidence
		guard    Guard
		want     string // what happens to the objects by number
	}{
		"no owner":        {Evidence{Candidates: candidates(0, 2, tombstone)}, Guard{9, 100}, "send 0 1"},
		"owned, proven":   {Evidence{Candidates: candidates(0, 2, tombstone), Owners: owned(at(1, absent))}, Guard{9, 100}, "send 0, drop 1"},
		"owned, held":     {Evidence{Candidates: candidates(0, 2, heldBefore), Owners: owned(at(1, absent))}, Guard{9, 100}, "held 0, drop 1"},
		"owned, all held": {Evidence{Candidates: candidates(0, 1, heldBefore), Owners: owned(at(0, absent))}, Guard{9, 100}, "drop 0"},
		"owned, undecided": {
			Evidence{Candidates: candidates(0, 2, undecided), FullSync: true, Owners: owned(at(1, absent))}, Guard{9, 100}, "undecided 0, drop 1",
		},
		"dropped do not count for the guard": {
			Evidence{Candidates: candidates(0, 6, tombstone), Owners: owned(candidates(0, 5, absent)...)}, Guard{1, 100}, "send 5, drop 0 1 2 3 4",
		},
		"role of a living group": {Evidence{Candidates: []Candidate{kind(at(0, tombstone), identity.Role, nil)}, Owners: owned(kind(at(0, absent), identity.Group, nil))}, Guard{9, 100}, "send 0"},
		"living role of a group": {Evidence{Candidates: []Candidate{kind(at(0, tombstone), identity.Group, nil)}, Owners: owned(kind(at(0, absent), identity.Role, nil))}, Guard{9, 100}, "send 0"},
		"role of a living role":  {Evidence{Candidates: []Candidate{kind(at(0, tombstone), identity.Role, nil)}, Owners: owned(kind(at(0, absent), identity.Role, nil))}, Guard{9, 100}, "drop 0"},
		"user, living service account": {
			Evidence{Candidates: []Candidate{kind(at(0, tombstone), identity.User, nil)}, Owners: owned(kind(at(0, absent), identity.ServiceAccount, nil))}, Guard{9, 100}, "drop 0",
		},
		"builtin group": {Evidence{Candidates: []Candidate{kind(at(0, tombstone), identity.Group, administrators)}}, Guard{9, 100}, "drop 0"},
		"builtin role":  {Evidence{Candidates: []Candidate{kind(at(0, heldBefore), identity.Role, administrators)}}, Guard{9, 100}, "drop 0"},
		"builtin role, posture disabled": {
			Evidence{DisabledPosture: changed(kind(at(0, absent), identity.Role, administrators), at(1, absent)), Owners: owned(at(1, absent))}, Guard{0, 0}, "send 0, drop 1",
		},
		"deleted under the former SID": {Evidence{Candidates: []Candidate{former(at(0, tombstone)), former(at(1, undecided))}}, Guard{9, 100}, "drop 0 1"},

		"SID changed":            {Evidence{ChangedSIDs: changed(at(0, absent))}, Guard{0, 0}, "former 0"},
		"SID changed, owned":     {Evidence{ChangedSIDs: changed(at(0, absent)), Owners: owned(at(0, absent))}, Guard{0, 0}, ""},
		"SID changed, builtin":   {Evidence{ChangedSIDs: changed(kind(at(0, absent), identity.Group, administrators))}, Guard{0, 0}, ""},
		"SID changed, undecided": {Evidence{ChangedSIDs: changed(at(0, absent)), FullSync: true, Candidates: []Candidate{sameSID(at(1, undecided), at(0, absent))}}, Guard{9, 100}, "undecided 1"},
		"two with one SID":       {Evidence{Candidates: []Candidate{at(0, tombstone), sameSID(at(1, tombstone), at(0, absent))}}, Guard{9, 100}, "send 0 1"},
		"proven and undecided with one SID": {
			Evidence{FullSync: true, Candidates: []Candidate{at(0, tombstone), sameSID(at(1, undecided), at(0, absent))}}, Guard{9, 100}, "undecided 1",
		},
		"proven and unreadable with one SID": {
			Evidence{FullSync: true, Candidates: []Candidate{at(0, tombstone), sameSID(at(1, Candidate{Unreadable: true}), at(0, absent))}}, Guard{9, 100}, "",
		},
		"released and held with one SID": {
			Evidence{FullSync: true, Release: true, Candidates: append(candidates(2, 5, absent), at(0, heldBefore), sameSID(at(1, absent), at(0, absent)))}, Guard{1, 100}, "held 2 3 4 1",
		},
		"two held with one SID": {Evidence{Candidates: []Candidate{at(0, heldBefore), sameSID(at(1, heldBefore), at(0, absent))}}, Guard{9, 100}, "held 0 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.evidence.IndexSize = 40
			d := DecideDeletions(c.evidence, c.guard)
			if got := describe(d); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// describe returns what happens to the objects of a decision, by the first byte of the GUID.
func describe(d Decision) string {
	var parts []string
	add := func(what string, objects []identity.Object) {
		if len(objects) == 0 {
			return
		}
		for _, o := range objects {
			what += fmt.Sprint(" ", o.GUID[0])
		}
		parts = append(parts, what)
	}
	var formerSIDs, sent, dropped []identity.Object
	for _, o := range d.Send {
		if o.FormerSID {
			formerSIDs = append(formerSIDs, o)
		} else {
			sent = append(sent, o)
		}
	}
	for _, o := range d.Drop {
		dropped = append(dropped, o.Object)
	}
	add("send", sent)
	add("former", formerSIDs)
	add("held", d.Held)
	add("undecided", objectsOf(d.Undecided))
	add("drop", dropped)
	return strings.Join(parts, ", ")
}

// TestAddOwners checks how many objects that exist have the SID of a candidate: those of the index, and
// those that a dry run would send. An object whose SID changed is listed once, however often it was read.
func TestAddOwners(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 2)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	indexed, gone := e.sid(e.user(0)), ad.SID{1, 1, 0, 0, 0, 0, 0, 5, 9, 0, 0, 0}
	for name, c := range map[string]struct {
		sid  ad.SID
		keys []bool // of the objects that were read with this SID: whether the index may have them
		want int
	}{
		"nobody":                  {gone, nil, 0},
		"read":                    {gone, []bool{true}, 1},
		"indexed":                 {indexed, nil, 1},
		"indexed, read":           {indexed, []bool{true}, 1},
		"indexed, and a new one":  {indexed, []bool{false}, 2},
		"two new ones":            {gone, []bool{false, false}, 2},
		"perhaps the same object": {gone, []bool{true, true}, 1},
	} {
		object := identity.Object{GUID: ad.GUID{1}, Kind: identity.User, SID: c.sid}
		evidence := Evidence{Candidates: []Candidate{{Object: object}}}
		changed := e.GUID(e.user(1))
		result := readResult{changedSIDs: []ad.GUID{changed, changed}}
		for _, maybeIndexed := range c.keys {
			result.keys = append(result.keys, liveKey{object.Key(), maybeIndexed})
		}
		r := &reader{store: e.store}
		e.must(r.addOwners(&evidence, result, sink{flush: func() error { return nil }}))
		if got := evidence.Owners[object.Key()]; got != c.want {
			t.Errorf("%s: %d owners, want %d", name, got, c.want)
		}
		if len(evidence.ChangedSIDs) != 1 || evidence.ChangedSIDs[0].GUID != changed {
			t.Errorf("%s: changed SIDs of %v", name, evidence.ChangedSIDs)
		}
	}
}
