package syncrun

import (
	"hash/maphash"
	"strings"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// An account without Read Permissions gets an entry without its security descriptor. The object is
// sent without what follows from the descriptor, and counts as unreadable: once, although a run may read
// it several times, as a group and as that of a role, or after a restart of a search. krbtgt,
// AdminSDHolder, the domain controllers, and the containers count as objects of the domain, because they
// are parts of its asset.

// unreadableDescriptors are the objects whose security descriptor is unreadable.
type unreadableDescriptors struct {
	seed    maphash.Seed
	objects map[uint64]unreadableDescriptor // by a hash of the DN in lower case
	// invisible is whether there are objects that the account cannot even list.
	invisible bool
}

// unreadableDescriptor is an object whose security descriptor is unreadable.
type unreadableDescriptor struct {
	kind identity.Kind
	guid ad.GUID // zero: unknown
}

func newUnreadableDescriptors() unreadableDescriptors {
	return unreadableDescriptors{seed: maphash.MakeSeed(), objects: map[uint64]unreadableDescriptor{}}
}

// add adds an object. It reports whether the object is new.
func (u *unreadableDescriptors) add(dn string, object unreadableDescriptor) bool {
	key := maphash.String(u.seed, strings.ToLower(dn))
	if _, found := u.objects[key]; found {
		return false
	}
	u.objects[key] = object
	return true
}

// noteDescriptor takes note of an entry of a search for security descriptors that has none.
func (r *reader) noteDescriptor(q query, entry *ad.Entry) {
	if r.descriptors == nil || !q.mapper.LacksDescriptor(entry) {
		return
	}
	kind := q.kind
	if kind == identity.Role { // the descriptor is that of its group
		kind = identity.Group
	}
	guid, _ := q.guidOf(entry)
	r.descriptors.note(r.log, kind, guid, entry.DN, nil)
}

// note takes note of an object without a security descriptor.
func (d *descriptorReading) note(log zerolog.Logger, kind identity.Kind, guid ad.GUID, dn, descriptor []byte) {
	if len(descriptor) > 0 {
		return
	}
	d.mu.Lock()
	isNew := d.unreadable.add(string(dn), unreadableDescriptor{kind, guid})
	d.mu.Unlock()
	if isNew {
		log.Debug().Stringer("kind", kind).Str("dn_hash", hashDN(dn)).Str("base_dn", directory.ParentDN(string(dn))).Msg(MsgDescriptorUnreadable)
	}
}

// noteInvisible takes note of a part of the domain that exists, but that the account cannot list.
func (d *descriptorReading) noteInvisible(log zerolog.Logger, dn string) {
	d.unreadable.invisible = true
	d.note(log, identity.Domain, ad.GUID{}, []byte(dn), nil)
}

// unreadableResult returns the result for the objects whose security descriptor is unreadable. counted are
// groups that count as unreadable already.
func (d *descriptorReading) unreadableResult(counted map[ad.GUID]bool) readResult {
	if d == nil || len(d.unreadable.objects) == 0 {
		return readResult{}
	}
	result := readResult{counters: map[identity.Kind]counters{}, missing: map[string]int{ad.AttributeDescriptor: len(d.unreadable.objects)}}
	roles := map[ad.GUID]bool{} // a group that was read for its role only
	for guid := range counted {
		roles[identity.RoleGUID(guid)] = true
	}
	for _, object := range d.unreadable.objects {
		if object.kind == identity.Group && (counted[object.guid] || roles[object.guid]) {
			continue
		}
		result.withoutDescriptor++
		result.counters[object.kind] = result.counters[object.kind].add(counters{unreadable: 1})
	}
	return result
}

// remedy returns what makes the security descriptors readable.
func (d *descriptorReading) remedy(account string) string {
	rights := directory.ReadPermissions
	switch {
	case d.refused:
		return RefusedDescriptorsRemedy
	case d.unreadable.invisible:
		rights = directory.ReadAll
	}
	return ReadPermissionsRemedy(directory.GrantProtectedCommand(d.base, account, rights), directory.GrantCommand(d.base, account, rights))
}

// RefusedDescriptorsRemedy is the remedy for a server that refuses to return security descriptors, although
// it offers LDAP_SERVER_SD_FLAGS_OID (MS-ADTS 3.1.1.3.4.1.11).
const RefusedDescriptorsRemedy = "connect to a domain controller without a proxy that refuses the LDAP control 1.2.840.113556.1.4.801"

// ReadPermissionsRemedy returns the remedy for unreadable security descriptors, with commands that grant
// the right.
func ReadPermissionsRemedy(commands ...string) string {
	return "grant the account Read Permissions, and remove what denies it: " + strings.Join(commands, "; ")
}
