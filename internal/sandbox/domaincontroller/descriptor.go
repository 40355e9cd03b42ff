package domaincontroller

import (
	"encoding/binary"

	"adconnector/internal/ad"
)

// readsDescriptors reports whether the value of the control LDAP_SERVER_SD_FLAGS_OID (MS-ADTS
// 3.1.1.3.4.1.11) excludes the SACL. A descriptor with its SACL is returned only to accounts with a
// right that the service account does not have, and without the control it includes the SACL.
func readsDescriptors(value []byte) bool {
	const sacl = 0x8
	sequence, err := decode(value)
	return err == nil && len(sequence.children) == 1 && sequence.children[0].number()&sacl == 0
}

// descriptor returns the security descriptor of an object: the one that was set, or the default
// one. There is no inheritance. The server checks no rights, so the descriptor of an object does
// not change what is readable: see Hide. But DenyListing changes the descriptor.
func (d *Server) descriptor(o *object) string {
	if d.unlisted[o] {
		return Descriptor(d.accountSID(ridDomainAdmins), d.entriesWith(readOnly&^listContents)...)
	}
	for value := range o.attributes.values(ad.AttributeDescriptor) {
		return value
	}
	return d.defaultDescriptor
}

// newDefaultDescriptor returns a descriptor like that of most objects of a domain: Domain Admins own
// the object and control it, as do the built-in Administrators and the system, and authenticated
// users read it.
func (d *Server) newDefaultDescriptor() string {
	return Descriptor(d.accountSID(ridDomainAdmins), d.defaultEntries()...)
}

const (
	ridDomainAdmins = 512

	readOnly     = 0x20094 // of authenticated users
	listContents = 0x4
)

func (d *Server) defaultEntries() []AccessEntry { return d.entriesWith(readOnly) }

// entriesWith returns the entries of a descriptor with these rights of authenticated users.
func (d *Server) entriesWith(authenticated uint32) []AccessEntry {
	const ridAdministrators = 544
	return []AccessEntry{
		{Trustee: d.accountSID(ridDomainAdmins), Mask: fullControl},
		{Trustee: newSID(32, ridAdministrators), Mask: fullControl},
		{Trustee: newSID(18), Mask: fullControl},
		{Trustee: newSID(11), Mask: authenticated},
	}
}

// AccessEntry is an entry of a security descriptor that allows rights (MS-DTYP 2.4.4.2).
type AccessEntry struct {
	Trustee    string // a binary SID
	Mask       uint32
	ObjectType string // a binary GUID that limits the rights; "": no limit
}

// Descriptor returns a self-relative security descriptor (MS-DTYP 2.4.6).
func Descriptor(owner string, entries ...AccessEntry) string {
	const header, daclPresent, selfRelative, allow, allowObject, typePresent = 20, 0x4, 0x8000, 0, 5, 1
	var list []byte
	for _, entry := range entries {
		body := binary.LittleEndian.AppendUint32(nil, entry.Mask)
		kind := byte(allow)
		if entry.ObjectType != "" {
			kind = allowObject
			body = append(binary.LittleEndian.AppendUint32(body, typePresent), entry.ObjectType...)
		}
		body = append(body, entry.Trustee...)
		list = append(binary.LittleEndian.AppendUint16(append(list, kind, 0), uint16(4+len(body))), body...)
	}
	acl := binary.LittleEndian.AppendUint16([]byte{4, 0}, uint16(8+len(list))) // revision ACL_REVISION_DS
	acl = append(binary.LittleEndian.AppendUint16(acl, uint16(len(entries))), 0, 0)
	acl = append(acl, list...)
	b := binary.LittleEndian.AppendUint16([]byte{1, 0}, daclPresent|selfRelative)
	for _, offset := range []int{header, header, 0, header + len(owner)} { // the owner is the group, too
		b = binary.LittleEndian.AppendUint32(b, uint32(offset))
	}
	return string(append(append(b, owner...), acl...))
}

// SetDescriptor sets the security descriptor of an object as inheritance does: without a change of
// its update sequence number. Modify changes it as an administrator does.
func (d *Server) SetDescriptor(dn, descriptor string) error {
	return d.changeLocally("inherit descriptor of", dn, func(o *object) error { return d.setAttribute(o, ad.AttributeDescriptor, []string{descriptor}) })
}
