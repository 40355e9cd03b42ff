package domaincontroller

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// newTwins returns two controllers of one domain that list each other.
func newTwins(t *testing.T) (first, second testServer) {
	t.Helper()
	now := func() time.Time { return testNow }
	first = newTestServer(t, Options{Users: 20, Groups: 3, Now: now})
	second = newTestServer(t, Options{Name: "dc2", Users: 20, Groups: 3, Now: now})
	must(t, first.AddPeer(second.Server))
	must(t, second.AddPeer(first.Server))
	return first, second
}

// TestTwins: two controllers of one domain differ in their names and invocation IDs, list
// each other, and generate the same objects otherwise.
func TestTwins(t *testing.T) {
	t.Parallel()
	first, second := newTwins(t)
	var invocationIDs []string
	want := []string{"dc1.corp.example.com", "dc2.corp.example.com"}
	for i, d := range []testServer{first, second} {
		conn := d.bound(t)
		root := d.find(t, conn, "", ldap.ScopeBaseObject, "(objectClass=*)").Entries[0]
		name := "DC" + string(rune('1'+i))
		if host, service := root.GetAttributeValue("dnsHostName"), root.GetAttributeValue("dsServiceName"); host != want[i] ||
			!strings.HasPrefix(service, "CN=NTDS Settings,CN="+name+",") {
			t.Errorf("%s: dnsHostName %s, dsServiceName %s", name, host, service)
		}
		own := d.find(t, conn, root.GetAttributeValue("dsServiceName"), ldap.ScopeBaseObject, "(objectClass=*)", "invocationId").Entries[0]
		invocationIDs = append(invocationIDs, own.GetAttributeValue("invocationId"))
	}
	if invocationIDs[0] == invocationIDs[1] {
		t.Error("equal invocation IDs")
	}
	for _, d := range []testServer{first, second} {
		if got := controllersOf(t, d); !maps.Equal(got, map[string]string{want[0]: invocationIDs[0], want[1]: invocationIDs[1]}) {
			t.Errorf("controllers %q", got)
		}
	}
	if got, want := identities(second), identities(first); !maps.Equal(got, want) {
		t.Errorf("objects %v, want %v", got, want)
	}
}

// controllersOf returns the invocation IDs of the listed controllers of the domain by host.
func controllersOf(t *testing.T, d testServer) map[string]string {
	t.Helper()
	conn := d.bound(t)
	controllers := map[string]string{}
	filter := "(&(objectClass=nTDSDSA)(msDS-hasMasterNCs=" + d.Base() + "))"
	for _, settings := range d.find(t, conn, "CN=Sites,CN=Configuration,"+d.Base(), ldap.ScopeWholeSubtree, filter, "invocationId").Entries {
		_, server, _ := strings.Cut(settings.DN, ",")
		host := d.find(t, conn, server, ldap.ScopeBaseObject, "(objectClass=*)", "dNSHostName").Entries[0].GetAttributeValue("dNSHostName")
		controllers[host] = settings.GetAttributeValue("invocationId")
	}
	return controllers
}

// identities returns GUID and SID of each object by DN.
func identities(d testServer) map[string]string {
	all := map[string]string{}
	for _, o := range d.Objects("objectGUID", "objectSid", "sAMAccountName", "member") {
		members := slices.Sorted(slices.Values(o.Attributes["member"]))
		all[o.DN] = o.First("objectGUID") + o.First("objectSid") + strings.Join(members, " ")
	}
	return all
}

// TestRemovePeer: a controller is listed once, with its present invocation ID, until it is
// removed.
func TestRemovePeer(t *testing.T) {
	t.Parallel()
	first, second := newTwins(t)
	before, highest := controllersOf(t, first), first.highestUSN()
	second.Restore(Restoration{})
	must(t, first.AddPeer(second.Server))
	after := controllersOf(t, first)
	const host = "dc2.corp.example.com"
	if len(after) != 2 || after[host] == before[host] || after[host] != controllersOf(t, second)[host] || first.highestUSN() == highest {
		t.Errorf("controllers %q, before %q", after, before)
	}
	must(t, first.RemovePeer(second.Server))
	if after := controllersOf(t, first); len(after) != 1 || after[host] != "" {
		t.Errorf("controllers %q", after)
	}
	for name, err := range map[string]error{
		"removed twice": first.RemovePeer(second.Server), "itself": first.AddPeer(first.Server), "removed itself": first.RemovePeer(first.Server),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	must(t, first.AddPeer(second.Server))
	if after := controllersOf(t, first); len(after) != 2 {
		t.Errorf("controllers %q", after)
	}
}

// TestAddReplica: a replica has the identity of the original, whatever was added before.
func TestAddReplica(t *testing.T) {
	t.Parallel()
	first, second := newTwins(t)
	one, two := addUser(t, first, "One"), addUser(t, first, "Two")
	for _, dn := range []string{two, one} { // in another order
		o, err := first.Object(dn, "objectGUID", "objectSid", "objectClass", "whenCreated")
		must(t, err)
		must(t, second.Add(o))
	}
	third := addUser(t, second, "Three") // its SID is new
	for _, dn := range []string{one, two} {
		want, err := first.Object(dn, "objectGUID", "objectSid", "whenCreated")
		must(t, err)
		if got, err := second.Object(dn, "objectGUID", "objectSid", "whenCreated"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("replica %q, error %v, want %q", got, err, want)
		}
		if got, err := second.Object(third, "objectSid"); err != nil || got.First("objectSid") == want.First("objectSid") {
			t.Errorf("SID %q is assigned twice, error %v", got.First("objectSid"), err)
		}
	}
	existing, err := first.Object(one, "objectGUID")
	must(t, err)
	for name, attributes := range map[string]map[string][]string{
		"existing GUID": existing.Attributes, "short GUID": {"objectGUID": {"x"}}, "SID of another domain": {"objectSid": {newSID(32, 544)}}, "time": {"whenCreated": {"now"}},
	} {
		attributes["objectClass"] = []string{"user"}
		if err := second.Add(Object{"CN=New,OU=Service," + second.Base(), attributes}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSnapshot: everything since a snapshot is lost when it is put back, and USNs and SIDs
// are assigned again.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{Users: 3, ReadsDeleted: true, Now: func() time.Time { return testNow }})
	conn := d.bound(t)
	kept, deleted := addUser(t, d, "Kept"), addUser(t, d, "Deleted")
	team := "CN=Team,OU=Service," + d.Base()
	must(t, d.Add(Object{team, map[string][]string{"objectClass": {"group"}, "member": {kept, deleted}}}))
	before, highest := d.Objects(), d.highestUSN()
	snapshot := d.Snapshot()
	for range 2 {
		must(t, d.Modify(kept, "title", "new"))
		must(t, d.Move(kept, "CN=Users,"+d.Base()))
		must(t, d.Modify(team, "member"))
		must(t, d.Delete(deleted))
		added := addUser(t, d, "Added")
		guid := d.guid(t, conn, added)
		sid, err := d.Object(added, "objectSid")
		must(t, err)
		d.Restore(Restoration{Snapshot: snapshot, SameInvocation: true})
		after := d.Objects()
		for i := range after {
			if !slices.Contains(after[i].Attributes["objectClass"], "nTDSDSA") && !reflect.DeepEqual(after[i], before[i]) {
				t.Errorf("restored %v, want %v", after[i], before[i])
			}
		}
		if len(after) != len(before) || d.highestUSN() != highest+1 {
			t.Errorf("%d objects, want %d; highest USN %d, in the snapshot %d", len(after), len(before), d.highestUSN(), highest)
		}
		if found, _ := d.findByGUID(guid.String()); found != nil {
			t.Error("an object is found that the snapshot lacks")
		}
		again, err := d.Object(addUser(t, d, "Again"), "objectSid")
		must(t, err)
		if again.First("objectSid") != sid.First("objectSid") {
			t.Error("the SID is not assigned again")
		}
		d.Restore(Restoration{Snapshot: snapshot, SameInvocation: true})
	}
	id := d.invocationID
	d.Restore(Restoration{Snapshot: snapshot})
	if d.invocationID == id {
		t.Error("a supported restore keeps the invocation ID")
	}
	if n := len(d.find(t, conn, deleted, 0, "(objectClass=*)", "memberOf").Entries[0].GetAttributeValues("memberOf")); n != 1 {
		t.Errorf("member of %d groups", n)
	}
}

// TestSkipUSNs: skipped USNs are assigned to no object.
func TestSkipUSNs(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.bound(t)
	dn := addUser(t, d, "One")
	guid := d.guid(t, conn, dn)
	before := d.usn(t, conn, guid)
	d.SkipUSNs(100)
	if d.usn(t, conn, guid) != before || d.highestUSN() != before+100 {
		t.Errorf("USN %d, highest %d, before %d", d.usn(t, conn, guid), d.highestUSN(), before)
	}
	must(t, d.Modify(dn, "title", "x"))
	if after := d.usn(t, conn, guid); after != before+101 {
		t.Errorf("USN %d after %d", after, before)
	}
}

// TestReadOnlyController: a read-only controller has another class and other attributes, in its
// own directory and in that of the others.
func TestReadOnlyController(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return testNow }
	writable, readOnly := newTestServer(t, Options{Now: now}), newTestServer(t, Options{Name: "rodc1", ReadOnly: true, Now: now})
	must(t, writable.AddPeer(readOnly.Server))
	must(t, readOnly.AddPeer(writable.Server))
	for _, d := range []testServer{writable, readOnly} {
		conn := d.bound(t)
		found := d.find(t, conn, "CN=Sites,CN=Configuration,"+d.Base(), ldap.ScopeWholeSubtree,
			"(&(objectClass=nTDSDSARO)(msDS-hasFullReplicaNCs="+d.Base()+")(!(msDS-hasMasterNCs=*)))", "invocationId").Entries
		if len(found) != 1 || !strings.HasPrefix(found[0].DN, "CN=NTDS Settings,CN=RODC1,") || found[0].GetAttributeValue("invocationId") != string(readOnly.invocationID[:]) {
			t.Errorf("read-only controllers %v", found)
		}
		root := d.find(t, conn, "", ldap.ScopeBaseObject, "(objectClass=*)", "supportedCapabilities").Entries[0]
		if got, want := slices.Contains(root.GetAttributeValues("supportedCapabilities"), "1.2.840.113556.1.4.1920"), d.Server == readOnly.Server; got != want {
			t.Errorf("read-only %t, want %t", got, want)
		}
	}
}

// TestPDCEmulator: the head of the domain names the NTDS Settings of the PDC emulator.
func TestPDCEmulator(t *testing.T) {
	t.Parallel()
	first, second := newTwins(t)
	owner := func(d testServer) string {
		t.Helper()
		conn := d.bound(t)
		head := d.find(t, conn, d.Base(), ldap.ScopeBaseObject, "(objectClass=*)", "fSMORoleOwner").Entries[0]
		found := d.find(t, conn, head.GetAttributeValue("fSMORoleOwner"), ldap.ScopeBaseObject, "(objectClass=*)", "invocationId").Entries
		if len(found) != 1 {
			t.Fatalf("%s does not exist", head.GetAttributeValue("fSMORoleOwner"))
		}
		return found[0].GetAttributeValue("invocationId")
	}
	for _, d := range []testServer{first, second} {
		if owner(d) != string(first.invocationID[:]) {
			t.Error("the first controller is not the PDC emulator")
		}
		before := d.highestUSN()
		d.SetPDCEmulator("dc2")
		if owner(d) != string(second.invocationID[:]) || d.highestUSN() == before {
			t.Error("the role was not transferred")
		}
	}
}
