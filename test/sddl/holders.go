package sddl

import (
	"slices"
	"strings"
)

// need is an elementary right: bits of the mask, and the object types for which it can be granted
// in addition to the whole object. own permits the class of the object as well.
type need struct {
	mask  uint32
	types string
	own   bool
}

// Elementary rights.
var (
	getChanges     = need{mask: bits["CR"], types: "1131f6aa-9c07-11d1-f79f-00c04fc2dcd2", own: true}
	getChangesAll  = need{mask: bits["CR"], types: "1131f6ad-9c07-11d1-f79f-00c04fc2dcd2", own: true}
	getFilteredSet = need{mask: bits["CR"], types: "89e95b76-444d-4c62-991a-0facbeda640c", own: true}
	resetPassword  = need{mask: bits["CR"], types: "00299570-246d-11d0-a768-00aa006e0529", own: true}
	member         = need{mask: bits["WP"], types: memberTypes, own: true}
	selfMembership = need{mask: bits["SW"], types: memberTypes, own: true}
	keyCredential  = need{mask: bits["WP"], types: "5b47d60f-6090-40b2-9f37-2a4de88f3063", own: true}
	allowedToAct   = need{mask: bits["WP"], types: "3f78c3e5-f79a-46bd-a0b8-9d18116ddc79 4c164200-20c0-11d0-a768-00aa006e0529", own: true}
	writeDACL      = need{mask: bits["WD"], own: true}
	writeOwner     = need{mask: bits["WO"], own: true}
)

const memberTypes = "bf9679c0-0de6-11d0-a285-00aa003049e2 bc0ac240-79a9-11d0-9020-00c04fc2d4cf"

// accounts has the classes of accounts, by their names in the schema.
var accounts = map[string]string{
	"user":                                "bf967aba-0de6-11d0-a285-00aa003049e2",
	"inetOrgPerson":                       "4828cc14-1437-45bc-9b07-ad6f015e5f28",
	"computer":                            "bf967a86-0de6-11d0-a285-00aa003049e2",
	"msDS-ManagedServiceAccount":          "ce206244-5827-4a86-ba1c-1c0c386c1b64",
	"msDS-GroupManagedServiceAccount":     "7b8b558a-93a5-4af7-adca-c017e67f1057",
	"msDS-DelegatedManagedServiceAccount": "0feb936f-47b3-49f2-9386-1dedc2c23765",
}

const (
	groupClass     = "bf967a9c-0de6-11d0-a285-00aa003049e2"
	containerClass = "bf967a8b-0de6-11d0-a285-00aa003049e2"
	unitClass      = "bf967aa5-0de6-11d0-a285-00aa003049e2"
	domainClass    = "19195a5b-6da0-11d0-afd3-00c04fd930c9"
)

// classes has the rights that exist for each class, and the GUIDs of the class itself.
var classes = map[string]struct{ rights, own string }{
	"domain":    {"createChild fullControl owner replicationRights writeDacl writeOwner", domainClass},
	"container": {"createChild fullControl owner writeDacl writeOwner", containerClass + " " + unitClass},
	"group":     {"fullControl owner writeDacl writeMembers writeOwner", groupClass},
	"user": {
		"fullControl owner resetPassword writeAllowedToAct writeDacl writeKeyCredential writeOwner",
		accounts["user"] + " " + accounts["inetOrgPerson"],
	},
	"serviceAccount": {
		"fullControl owner resetPassword writeAllowedToAct writeDacl writeKeyCredential writeOwner",
		accounts["computer"] + " " + accounts["msDS-ManagedServiceAccount"] + " " + accounts["msDS-GroupManagedServiceAccount"] + " " + accounts["msDS-DelegatedManagedServiceAccount"],
	},
	"adminSDHolder": {
		"fullControl owner resetPassword writeAllowedToAct writeDacl writeKeyCredential writeMembers writeOwner",
		accounts["user"] + " " + accounts["inetOrgPerson"] + " " + accounts["computer"] + " " + accounts["msDS-ManagedServiceAccount"] + " " +
			accounts["msDS-GroupManagedServiceAccount"] + " " + accounts["msDS-DelegatedManagedServiceAccount"] + " " + containerClass + " " + groupClass,
	},
}

// leftOut has the rights for which a principal is not listed. Names that begin with a hyphen are
// of the domain.
var leftOut = map[string]string{
	"S-1-5-18": "all", "S-1-5-32-544": "all", "-512": "all", "-519": "all", "S-1-3-0": "all", "S-1-3-1": "all", "S-1-5-10": "all",
	"S-1-5-9": "replicationRights", "-516": "replicationRights",
	"-526": "writeKeyCredential", "-527": "writeKeyCredential",
}

// Holders returns the principals that hold each right over the object, in no order. class is
// domain, adminSDHolder, container, user, serviceAccount or group.
func (d Descriptor) Holders(class, domain string) map[string][]string {
	holders := map[string][]string{}
	candidates := []string{"S-1-1-0"}
	add := func(sid string) {
		if sid == names["OW"] {
			sid = d.Owner
		}
		if sid != "" && !slices.Contains(candidates, sid) {
			candidates = append(candidates, sid)
		}
	}
	add(d.Owner)
	for _, e := range d.DACL {
		add(e.Trustee)
	}
	for _, sid := range candidates {
		for _, right := range strings.Fields(classes[class].rights) {
			out := leftOut[sid]
			if rid, found := strings.CutPrefix(sid, domain); found && strings.LastIndex(rid, "-") == 0 {
				out = leftOut[rid]
			}
			if out != "all" && out != right && d.holds(sid, right, classes[class].own) {
				holders[right] = append(holders[right], sid)
			}
		}
	}
	return holders
}

// holds reports whether a principal holds a right by entries of its own.
func (d Descriptor) holds(sid, right, own string) bool {
	check := func(n need) bool { return d.check(sid, n, own) }
	switch right {
	case "owner":
		return sid == d.Owner
	case "createChild":
		for _, class := range accounts {
			if check(need{mask: bits["CC"], types: class}) {
				return true
			}
		}
		return false
	case "fullControl":
		for name, bit := range bits {
			creates := name == "CC" || name == "DC"
			if name[0] != 'G' && !check(need{mask: bit, own: !creates}) {
				return false
			}
		}
		return true
	case "replicationRights":
		// Some parts can come from an entry for everybody.
		member := func(n need) bool { return check(n) || d.checkWorld(sid, n, own) }
		return (check(getChanges) || check(getChangesAll) || check(getFilteredSet)) && member(getChanges) && (member(getChangesAll) || member(getFilteredSet))
	case "resetPassword":
		return check(resetPassword)
	case "writeMembers":
		return check(member) || check(selfMembership)
	case "writeKeyCredential":
		return check(keyCredential)
	case "writeAllowedToAct":
		return check(allowedToAct)
	case "writeDacl":
		return check(writeDACL)
	case "writeOwner":
		return check(writeOwner)
	}
	panic("unknown right " + right)
}

// checkWorld reports whether a principal is granted an elementary right by Everyone or
// Authenticated Users, and no entry of its own is about it.
func (d Descriptor) checkWorld(sid string, n need, own string) bool {
	for i := range d.DACL {
		if e := &d.DACL[i]; d.isFor(e, sid) && e.covers(n, own) {
			return false
		}
	}
	return d.check("S-1-1-0", n, own) || sid != "S-1-1-0" && sid != "S-1-5-7" && d.check("S-1-5-11", n, own)
}

// check reports whether a principal is granted an elementary right by its own entries: the first
// entry that is about it, or that denies it to all, decides.
func (d Descriptor) check(sid string, n need, own string) bool {
	if !d.HasDACL {
		return sid == "S-1-1-0"
	}
	if sid == d.Owner && n.mask&(bits["WD"]|bits["RC"]) != 0 && !d.limitsOwner() {
		return true
	}
	for i := range d.DACL {
		e := &d.DACL[i]
		if !e.covers(n, own) {
			continue
		}
		denies := strings.HasSuffix(e.Type, "D")
		switch {
		case d.isFor(e, sid):
			return !denies
		case !denies || d.allowedBefore(i, n, own):
		case e.Trustee == "S-1-1-0", e.Trustee == "S-1-5-11" && sid != "S-1-1-0" && sid != "S-1-5-7":
			return false
		}
	}
	return false
}

// allowedBefore reports whether an earlier entry for the trustee of an entry decides: the entry is
// without effect then.
func (d Descriptor) allowedBefore(i int, n need, own string) bool {
	for j := range d.DACL[:i] {
		if e := &d.DACL[j]; e.Trustee == d.DACL[i].Trustee && e.covers(n, own) {
			return true
		}
	}
	return false
}

func (d Descriptor) isFor(e *Entry, sid string) bool {
	return e.Trustee == sid || e.Trustee == names["OW"] && sid == d.Owner
}

// limitsOwner reports whether an entry for OWNER RIGHTS replaces the implicit rights of the owner.
func (d Descriptor) limitsOwner() bool {
	return slices.ContainsFunc(d.DACL, func(e Entry) bool { return e.Trustee == names["OW"] && e.weighs() })
}

// weighs reports whether the entry can be about the object.
func (e *Entry) weighs() bool {
	return slices.Contains([]string{"A", "D", "OA", "OD", "XA", "ZA"}, e.Type) && !slices.Contains(e.Flags, "IO")
}

// covers reports whether the entry is about an elementary right.
func (e *Entry) covers(n need, own string) bool {
	if !e.weighs() {
		return false
	}
	mask := e.Mask
	for generic, text := range map[string]string{"GA": "CCDCLCSWRPWPDTLOCRSDRCWDWO", "GX": "RCLC", "GW": "RCWPSW", "GR": "RCLCRPLO"} {
		for ; mask&bits[generic] != 0 && text != ""; text = text[2:] {
			mask |= bits[text[:2]]
		}
	}
	denies := strings.HasSuffix(e.Type, "D")
	if denies {
		mask &^= bits["SD"] | bits["DT"] | bits["DC"]
	}
	if mask&n.mask == 0 {
		return false
	}
	return e.Object == "" || strings.Contains(n.types, e.Object) || n.own && !denies && strings.Contains(own, e.Object)
}
