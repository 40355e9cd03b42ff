package access

import (
	"bytes"
	"encoding/binary"

	"adconnector/internal/ad"
)

// all is the set of all rights.
const all rightSet = 1<<numRights - 1

// administrators has the principals that are left out of the lists, by the SID or, for principals
// of the domain, by the RID. A principal that is left out of some rights only is listed for the
// others: that it holds them is not the default.
//
// Schema Admins, Account Operators, Server Operators and Print Operators are not left out, although
// some have rights by default: BloodHound and PingCastle report them. Nor are the administrators of
// other domains, except for the groups that exist in the root of the forest only: Enterprise Admins
// of another forest must be found.
var administrators = []struct {
	sid    ad.SID // nil: rid of the domain
	rid    ad.RID
	forest bool // a group of the forest: rid of the root, too
	rights rightSet
	reason string
}{
	{sid: newSID(5, 18), rights: all, reason: "SYSTEM: the domain controller itself"},
	{sid: newSID(5, 32, 544), rights: all, reason: "Administrators: controls the domain by definition"},
	{rid: 512, rights: all, reason: "Domain Admins: controls the domain by definition"},
	{rid: 519, forest: true, rights: all, reason: "Enterprise Admins: controls the forest by definition"},
	{sid: newSID(3, 0), rights: all, reason: "CREATOR OWNER: a child object inherits the entry with its creator instead, so it grants nothing here"},
	{sid: newSID(3, 1), rights: all, reason: "CREATOR GROUP: likewise"},
	{sid: newSID(5, 10), rights: all, reason: "SELF: the object itself, which gains no control over another one"},
	{sid: newSID(5, 9), rights: setOf(ReplicationRights), reason: "Enterprise Domain Controllers: replicates the domain"},
	{rid: 516, rights: setOf(ReplicationRights), reason: "Domain Controllers: replicates the domain"},
	{rid: 526, rights: setOf(WriteKeyCredential), reason: "Key Admins: exists to write msDS-KeyCredentialLink"},
	{rid: 527, forest: true, rights: setOf(WriteKeyCredential), reason: "Enterprise Key Admins: exists to write msDS-KeyCredentialLink"},
}

// leftOut returns the rights that a principal is left out of.
func leftOut(sid ad.SID, domains Domains) rightSet {
	_, rid, _ := sid.Split()
	inDomain, inRoot := isOf(sid, domains.Own), isOf(sid, domains.ForestRoot)
	for i := range administrators {
		if administrator := &administrators[i]; administrator.sid != nil {
			if bytes.Equal(administrator.sid, sid) {
				return administrator.rights
			}
		} else if administrator.rid == rid && (inDomain || inRoot && administrator.forest) {
			return administrator.rights
		}
	}
	return 0
}

// isOf reports whether sid is the SID of the domain and one more sub-authority.
func isOf(sid, domain ad.SID) bool {
	const authority = 2 // its offset, after the revision and the number of sub-authorities
	return domain != nil && len(sid) == len(domain)+4 && bytes.Equal(sid[authority:len(domain)], domain[authority:])
}

// ownerRights stands for the owner of the object (MS-DTYP 2.4.2.4).
var ownerRights = newSID(3, 4)

// newSID returns a SID with an authority below 256.
func newSID(authority byte, sub ...uint32) ad.SID {
	sid := ad.SID{1, byte(len(sub)), 0, 0, 0, 0, 0, authority}
	for _, s := range sub {
		sid = binary.LittleEndian.AppendUint32(sid, s)
	}
	return sid
}
