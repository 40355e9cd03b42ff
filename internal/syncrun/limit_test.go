package syncrun

import (
	"errors"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

func TestObjectLimit(t *testing.T) {
	for _, test := range []struct {
		name    string
		tracked bool
		index   int
		want    int
	}{
		{"first sync", false, 0, 10_000_000},
		{"small index", true, 1000, 2_004_000},
		{"large index", true, 1_000_000, 6_000_000},
		{"huge index", true, 5_000_000, 10_000_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := defaultMaxObjects.limit(Plan{TrackSeen: test.tracked}, test.index); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

// wantTooMany runs a sync that must fail with a cause that names a limit.
func (e *env) wantTooMany(options RunOptions, cause error, limit string) {
	e.t.Helper()
	run, err := e.failedRun(options)
	if !errors.Is(err, cause) || fault.ClassOf(err) != fault.Incomplete || !strings.Contains(err.Error(), limit) || run.Deleted+run.Held > 0 {
		e.t.Errorf("run: %s, error %v", brief(run), err)
	}
}

// TestTooManyObjects checks that a run ends at the limit, without deletions, and that the
// next run below the limit succeeds.
func TestTooManyObjects(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(300)
	for n := range 150 { // entries that are skipped count, too
		delete(e.ldap.Users[n].Attributes, "objectSid")
	}
	e.runner.maxObjects.total = 299
	e.wantTooMany(RunOptions{}, errTooManyObjects, "299")
	e.runner.maxObjects.total = 300
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil {
		t.Errorf("run: %s, error %v", brief(run), err)
	}
}

// TestObjectsAfterRestart checks that a restart of a search gives back what the search has taken from
// the budget, and not more: a server could restart searches without end.
func TestObjectsAfterRestart(t *testing.T) {
	t.Parallel()
	store, err := state.Options{}.OpenReadOnly(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kept, result searchResult
		want         int64
	}{
		"first search":       {searchResult{}, searchResult{counters: counters{read: 5}, unmapped: 3}, 0},
		"postponed objects":  {searchResult{counters: counters{read: 5}, unmapped: 3}, searchResult{counters: counters{read: 7}, unmapped: 4}, 8},
		"within the overlap": {searchResult{counters: counters{read: 5, reread: 2}, unmapped: 3}, searchResult{counters: counters{read: 5, reread: 6}, unmapped: 3}, 10},
	} {
		budget := &objectBudget{limit: 100}
		budget.count.Store(int64(c.result.read + c.result.reread + c.result.unmapped))
		comparer := &comparer{runInfo: runInfo{options: RunOptions{Progress: &Progress{}}}, store: store, budget: budget, kept: c.kept, result: c.result}
		if err := comparer.reset(); err != nil {
			t.Fatal(err)
		}
		if n := budget.count.Load(); n != c.want {
			t.Errorf("%s: %d objects, want %d", name, n, c.want)
		}
	}
}

// TestKeptAfterRestart checks what a restart of a search keeps: the new due times of objects that were
// read, and the postponed objects once they are counted.
func TestKeptAfterRestart(t *testing.T) {
	t.Parallel()
	store, err := state.Options{}.OpenReadOnly(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, counted := range []bool{false, true} {
		c := &comparer{runInfo: runInfo{options: RunOptions{Progress: &Progress{}}}, store: store, budget: &objectBudget{limit: 1}, counted: counted,
			postponed: []ad.GUID{{1}}, result: searchResult{recheckTimes: map[ad.GUID]time.Time{{2}: {}}}}
		if err := c.reset(); err != nil {
			t.Fatal(err)
		}
		if len(c.result.recheckTimes) != 1 || (len(c.postponed) == 1) != counted {
			t.Errorf("counted %t: due times %v, postponed %v", counted, c.result.recheckTimes, c.postponed)
		}
	}
}

// TestLogonsInMemory checks that the logons to store are written before they are too many.
func TestLogonsInMemory(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	c := &comparer{store: e.store}
	for n := range maxSentLogons {
		asset := identity.Asset{GUID: ad.GUID{byte(n), byte(n >> 8)}, Logons: identity.Logons{Last: 1}}
		e.must(c.updateRecord(asset, indexRecord{found: true}))
	}
	if n := len(c.sentLogons); n != 0 {
		t.Errorf("%d in memory", n)
	}
}

// TestTooManyTrackedObjects checks the limit of a run that tracks the objects seen, and that
// of tombstones.
func TestTooManyTrackedObjects(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 100)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 100})
	e.runner.maxObjects.tracked, e.runner.maxObjects.trackedPerIndexed = 0, 1
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.exceedOverlap()
	for n := range 101 {
		e.AddUser(e.user(100 + n))
	}
	e.wantTooMany(RunOptions{Full: true}, errTooManyObjects, "100")

	succeed := func() {
		t.Helper()
		e.runner.maxObjects = defaultMaxObjects
		if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != delta {
			t.Errorf("run: %s, error %v", brief(run), err)
		}
	}
	succeed()
	e.exceedOverlap()
	succeed() // so that the next delta sync reads no users again
	e.deleteUsers(10)
	e.runner.maxObjects = objectLimits{total: 1000, tracked: 9}
	e.wantTooMany(RunOptions{}, errTooManyObjects, "9")
	succeed()
}

func TestMaxGraphSize(t *testing.T) {
	t.Parallel()
	m := maxGraphSize{first: 200, growth: 100, total: 400}
	for stored, want := range map[int]int{0: 200, 1: 102, 100: 300, 150: 400, 300: 400, 500: 500} {
		if got := m.limit(stored); got != want {
			t.Errorf("%d stored bytes: limit %d, want %d", stored, got, want)
		}
	}
}

// TestMembershipsOfLargerDomain checks that the limit allows the stored memberships to be read
// again, although most of their objects are outside the base.
func TestMembershipsOfLargerDomain(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 0)
	var outside []string
	for n := range 1000 {
		e.AddUser(e.outside(n))
		outside = append(outside, e.outside(n))
	}
	e.addGroup("team", outside...)
	e.runner.maxGraphSize.growth = 1 << 10
	for _, options := range []RunOptions{{}, {}, {Full: true}, {Full: true}} {
		if run, err := e.runner.Run(t.Context(), options); err != nil {
			t.Fatalf("run: %s, error %v", brief(run), err)
		}
	}
}

// TestTooManyMemberships checks that a run ends when the memberships take too much memory,
// through members in one entry, in ranges, and through groups.
func TestTooManyMemberships(t *testing.T) {
	t.Parallel()
	for name, members := range map[string]int{"in an entry": 1000, "in ranges": 3000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newPostureEnv(t, domaincontroller.Options{}, 0)
			var outside []string
			for n := range members {
				e.AddUser(e.outside(n))
				outside = append(outside, e.outside(n))
			}
			e.addGroup("team", outside...)
			e.runner.maxGraphSize = maxGraphSize{first: 80 * members}
			e.wantTooMany(RunOptions{}, errTooManyMemberships, "MiB")
			e.runner.maxGraphSize = defaultMaxGraphSize
			if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil {
				t.Errorf("run: %s, error %v", brief(run), err)
			}
		})
	}
}
