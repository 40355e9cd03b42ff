package syncrun

import (
	"math/rand/v2"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
)

// controllersNamed returns controllers. The first one has an invocation ID.
func controllersNamed(hosts ...string) (list []directory.DomainController) {
	for _, host := range hosts {
		list = append(list, directory.DomainController{Host: host})
	}
	list[0].InvocationID = ad.InvocationID{1}
	return list
}

// TestLogonTable compares the table with a map.
func TestLogonTable(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	guid := func(n int) ad.GUID { return ad.GUID{byte(n), byte(n >> 8), 15: byte(n >> 16)} }
	const limit = 5 * logonRows
	table, want := newLogonTable(limit), map[ad.GUID]identity.Logons{}
	for range 4 * limit {
		id := guid(random.IntN(limit))
		logons := identity.Logons{Last: ad.FileTime(random.Uint32()), LastFailed: ad.FileTime(random.Uint32()), Failed: random.Uint32(), HasFailed: random.IntN(2) == 0}
		if !logons.HasFailed {
			logons.Failed = 0
		}
		if err := table.add(id, logons); err != nil {
			t.Fatal(err)
		}
		want[id] = want[id].Merge(logons)
	}
	if table.len() != len(want) {
		t.Errorf("%d objects, want %d", table.len(), len(want))
	}
	compare := func(c failedCounts) {
		table.setCounts(c)
		for n := range limit + 1 {
			for _, sent := range []identity.Logons{{}, {Last: 1 << 31, Failed: 7, HasFailed: true}} {
				logons := sent.Merge(want[guid(n)])
				if c == countsAll && !want[guid(n)].HasFailed {
					logons.Failed = 0
				}
				logons.HasFailed = logons.HasFailed || c != countsUnknown
				if got := table.merge(guid(n), sent); got != logons {
					t.Fatalf("%d: %+v, want %+v", n, got, logons)
				}
			}
		}
	}
	if guids, more := table.unsettled(2); len(guids) != 2 || !more {
		t.Errorf("%d objects not settled, more: %t", len(guids), more)
	}
	if guids, more := table.unsettled(limit); len(guids) != len(want) || more {
		t.Errorf("%d objects not settled, more: %t", len(guids), more)
	}
	for _, c := range []failedCounts{countsUnknown, countsChanged, countsAll} {
		compare(c)
	}
	for id := range want {
		table.settle(id)
	}
	table.settle(guid(1 << 17)) // no row
	(*logonTable)(nil).settle(guid(1))
	if guids, more := table.unsettled(limit); len(guids) != 0 || more {
		t.Errorf("%d objects not settled, more: %t", len(guids), more)
	}
	for n := 0; table.len() < limit; n++ {
		if err := table.add(guid(1<<16+n), identity.Logons{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.add(guid(1<<17), identity.Logons{}); fault.ClassOf(err) != fault.Incomplete {
		t.Errorf("error %v", err)
	}
	if err := table.add(guid(1<<16), identity.Logons{}); err != nil {
		t.Error(err)
	}
}
