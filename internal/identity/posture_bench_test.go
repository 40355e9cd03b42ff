package identity

import (
	"encoding/binary"
	"fmt"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// benchGUID returns the GUID of the n-th object of a benchmark.
func benchGUID(n int) (guid ad.GUID) {
	binary.BigEndian.PutUint64(guid[:8], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(guid[8:], uint64(n)+1)
	return guid
}

// BenchmarkMillionMemberships maps 100,000 users with 10 groups each, and 10,000 groups. One of a
// hundred groups is in Domain Admins, two steps below.
func BenchmarkMillionMemberships(b *testing.B) {
	const users, groups, each = 100_000, 10_000, 10
	g := membership.New()
	userSID := func(n int) ad.SID { return ofDomainSID(ad.RID(100_000 + n)) }
	groupSID := func(n int) ad.SID { return ofDomainSID(ad.RID(5_000_000 + n)) }
	for n := range users {
		node := g.SetAccount(benchGUID(n), userSID(n), 513)
		g.SetName(node, fmt.Appendf(nil, "Firstname Lastname %06d", n))
		g.SetKind(node, membership.KindUser)
	}
	for i := range groups {
		node := g.SetGroup(benchGUID(users+i), groupSID(i), true, 0)
		g.SetName(node, fmt.Appendf(nil, "Department of topic %05d", i))
		for step := range each { // each user is in ten different groups
			for n := (i + 997*step) % groups; n < users; n += groups {
				g.AddMember(node, benchGUID(n), nil)
			}
		}
	}
	middle := g.SetGroup(benchGUID(users+groups), groupSID(groups), true, 0)
	for i := 0; i < groups; i += 100 {
		g.AddMember(middle, benchGUID(users+i), nil)
	}
	admins := g.SetGroup(benchGUID(users+groups+1), ofDomainSID(512), true, membership.RoleOf(ofDomainSID(512), nil))
	g.SetName(admins, []byte("Domain Admins"))
	g.AddMember(admins, benchGUID(users+groups), nil)
	g.Compute()

	const maxObjects, maxBytes = 500, 1 << 20 // the defaults of upload.batch-size and upload.batch-bytes
	var size, calls, objectsInBatch, bytesInBatch int
	for b.Loop() {
		size, calls, objectsInBatch, bytesInBatch = 0, 0, maxObjects, 0
		for kind, objects := range map[Kind][2]int{User: {0, users}, Group: {users, users + groups}} {
			m := NewPostureMapper(kind)
			m.UseGraph(g)
			e := entry(b, m, attributes{"name": {"x"}})
			if kind == User {
				e = entry(b, m, with(alice, attributes{"primaryGroupID": {"513"}}))
			}
			buf := make([]byte, 0, 1<<20)
			for n := objects[0]; n < objects[1]; n++ {
				guid, sid := benchGUID(n), userSID(n)
				if kind == Group {
					sid = groupSID(n - users)
				}
				e.Values[m.guid], e.Values[m.sid] = [][]byte{guid[:]}, [][]byte{sid}
				asset, err := m.Map(buf, e, now, Logons{})
				if err != nil {
					b.Fatal(err)
				}
				size += len(asset.JSON)
				if objectsInBatch == maxObjects || bytesInBatch+len(asset.JSON)+1 > maxBytes {
					calls, objectsInBatch, bytesInBatch = calls+1, 0, 0
				}
				objectsInBatch, bytesInBatch = objectsInBatch+1, bytesInBatch+len(asset.JSON)+1
			}
		}
	}
	b.ReportMetric(float64(size)/(1<<20), "MiB")
	b.ReportMetric(float64(calls), "calls")
}
