package identity

import (
	"bytes"
	"time"

	"adconnector/internal/ad"
)

// Facts combine attributes of an account with its memberships. Each has a name and the attributes from
// which it is derived. A fact that depends on an unreadable value is left out, and "facts" is in the
// list of unreadable values. An account without the fact for another reason is not: the fact does not
// hold, whatever the unreadable value is.

const (
	maxLogonAge    = 90 * 24 * time.Hour
	maxPasswordAge = 365 * 24 * time.Hour
)

// truth is whether a fact holds. The order makes min the conjunction of truths.
type truth byte

const (
	no truth = iota
	unknown
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// certainly returns b, or unknown if it is not certain.
func certainly(b, certain bool) truth {
	if !certain {
		return unknown
	}
	return truthOf(b)
}

func (t truth) not() truth { return yes - t }

// factSources are the sources of the row of facts. The constants are the positions in its slots.
const factSources = "userAccountControl, msDS-User-Account-Control-Computed, adminCount, servicePrincipalName, msDS-AllowedToDelegateTo, " +
	"pwdLastSet, lastLogon, lastLogonTimestamp, whenCreated, primaryGroupID, " + memberships

const (
	factControl = iota
	factComputed
	factAdminCount
	factServices
	factDelegation
	factPassword
	factLogon
	factReplicatedLogon
	factCreated
)

// factRows are the facts, sorted by name.
var factRows = []struct {
	json  string
	holds func(accountFacts) truth
}{
	{`{"fact":"ADMIN_COUNT_WITHOUT_ROLE","attributes":["adminCount","memberships"]}`, accountFacts.adminCountWithoutRole},
	{`{"fact":"ASREP_ROASTABLE_AND_PRIVILEGED","attributes":["memberships","userAccountControl"]}`, accountFacts.asrepRoastable},
	{`{"fact":"DELEGATION_TO_DOMAIN_CONTROLLER","attributes":["dNSHostName","msDS-AllowedToDelegateTo","userAccountControl"]}`, accountFacts.delegation},
	{`{"fact":"KERBEROASTABLE_AND_PRIVILEGED","attributes":["memberships","servicePrincipalName","userAccountControl"]}`, accountFacts.kerberoastable},
	{`{"fact":"PRIVILEGED_AND_INACTIVE","attributes":["lastLogon","lastLogonTimestamp","memberships","userAccountControl","whenCreated"]}`, accountFacts.inactive},
	{`{"fact":"PRIVILEGED_NOT_IN_PROTECTED_USERS","attributes":["memberships","userAccountControl"]}`, accountFacts.notInProtectedUsers},
	{`{"fact":"PRIVILEGED_WITH_OLD_PASSWORD","attributes":["memberships","pwdLastSet","userAccountControl"]}`, accountFacts.oldPassword},
}

// accountFacts is an account whose facts are derived.
type accountFacts struct {
	*source
	slots   []int
	control ad.AccountControl
	enabled truth
	// privileged is whether the account is enabled, and has a privileged role through its groups. A
	// disabled account can neither log on nor be asked a ticket for.
	privileged truth
}

// facts appends the facts that hold. Its row must follow that of the last logon, and precede that of the
// unreadable values.
func facts(dst []byte, src *source, slots []int) []byte {
	f := accountFacts{source: src, slots: slots}
	f.control, _ = ad.ParseAccountControl(src.entry.First(slots[factControl])) // userStatus counts malformed values
	computed, _ := ad.ParseAccountControl(src.entry.First(slots[factComputed]))
	f.enabled = truthOf((f.control|computed)&ad.AccountDisabled == 0)
	if f.enabled == yes {
		f.privileged = f.isPrivileged()
	}
	l := list{dst: dst}
	for _, row := range factRows {
		switch row.holds(f) {
		case unknown:
			src.factsUnknown = true
		case yes:
			if l.next() {
				l.dst = append(l.dst, row.json...)
			}
		}
	}
	return l.end()
}

// membershipsUncertain reports whether the account may be a member of other groups, also nested.
func (f accountFacts) membershipsUncertain() bool {
	return f.partial || f.inGraph && f.graph.Uncertain(f.node).Privileges
}

func (f accountFacts) isPrivileged() truth {
	if f.membershipsUncertain() {
		return unknown
	}
	return truthOf(!f.graph.Privileges(f.groups()).IsEmpty())
}

// hasRID reports whether the RID of the account is one of these.
func (f accountFacts) hasRID(rids ...ad.RID) bool {
	_, rid, ok := f.sid.Split()
	for _, other := range rids {
		if ok && rid == other {
			return true
		}
	}
	return false
}

const (
	ridAdministrator ad.RID = 500
	ridKrbtgt        ad.RID = 502
)

// adminCountWithoutRole: AdminSDHolder has protected the account, and does not do so any more. It
// protects Administrator and krbtgt whatever their groups are.
func (f accountFacts) adminCountWithoutRole() truth {
	if string(f.entry.First(f.slots[factAdminCount])) != "1" || f.hasRID(ridAdministrator, ridKrbtgt) {
		return no
	}
	if f.partial {
		return unknown
	}
	return certainly(f.graph.IsProtected(f.groups())).not()
}

func (f accountFacts) asrepRoastable() truth {
	return min(f.privileged, truthOf(f.control&ad.AccountNoPreauthentication != 0))
}

// kerberoastable leaves out managed service accounts, whose passwords are long and random, and krbtgt.
func (f accountFacts) kerberoastable() truth {
	return min(f.privileged, truthOf(f.kind == User && !f.hasRID(ridKrbtgt) && len(f.entry.First(f.slots[factServices])) > 0))
}

// notInProtectedUsers leaves out managed service accounts: the group must not contain them.
func (f accountFacts) notInProtectedUsers() truth {
	if f.kind != User || f.privileged == no {
		return no
	}
	if f.partial {
		return unknown
	}
	return min(f.privileged, certainly(f.graph.InProtectedUsers(f.groups())).not())
}

// inactive: the last logon is old. An account that has never logged on counts from its creation. It
// shows 0 as the time of a logon: a missing time may be unreadable, or that of another domain controller.
func (f accountFacts) inactive() truth {
	if f.privileged == no {
		return no
	}
	last := f.logons.Last
	if !last.IsNone() {
		return min(f.privileged, f.isOlder(last.Time(), maxLogonAge))
	}
	created, ok := ad.ParseGeneralizedTime(f.entry.First(f.slots[factCreated]))
	if !ok {
		return unknown
	}
	age := f.isOlder(created, maxLogonAge)
	if !f.isZero(factLogon) && !f.isZero(factReplicatedLogon) {
		age = min(age, unknown)
	}
	return min(f.privileged, age)
}

func (f accountFacts) isZero(position int) bool {
	return string(f.entry.First(f.slots[position])) == "0"
}

// oldPassword: every account has pwdLastSet. 0 means that the password must be changed.
func (f accountFacts) oldPassword() truth {
	if f.privileged == no {
		return no
	}
	set, ok := ad.ParseFileTime(f.entry.First(f.slots[factPassword])) // passwordLastChangedAt counts malformed values
	switch {
	case !ok:
		return unknown
	case set.IsNone():
		return no
	}
	return min(f.privileged, f.isOlder(set.Time(), maxPasswordAge))
}

// isOlder reports whether a time is as long ago, and sets the time when it will be.
func (f accountFacts) isOlder(t time.Time, age time.Duration) truth {
	due := t.Add(age)
	f.recheckBy(due)
	return truthOf(!due.After(f.now))
}

// delegation: the account may use the identity of others for a service on a domain controller.
func (f accountFacts) delegation() truth {
	slot := f.slots[factDelegation]
	found := no
	for i := range f.entry.Partial {
		if f.entry.Partial[i] == slot {
			found = unknown // there are other services
		}
	}
	for _, service := range f.entry.Values[slot] {
		found = max(found, f.controllers.has(service))
	}
	return min(f.enabled, found)
}

// ControllerHosts are the host names of the domain controllers. A nil pointer means that they are
// unknown.
type ControllerHosts struct {
	names    map[string]struct{} // in lower case
	complete bool
}

// add adds the names of one domain controller. Each has both.
func (h *ControllerHosts) add(name, hostName []byte) {
	hostName = bytes.TrimSuffix(hostName, []byte("."))
	h.complete = h.complete && len(name) > 0 && len(hostName) > 0
	short, _, _ := bytes.Cut(hostName, []byte("."))
	for _, host := range [][]byte{name, hostName, short} {
		if len(host) > 0 {
			h.names[string(bytes.ToLower(host))] = struct{}{}
		}
	}
}

// has reports whether a service principal name is of a service on a domain controller.
func (h *ControllerHosts) has(service []byte) truth {
	host := serviceHost(service)
	switch {
	case len(host) == 0:
		return no
	case h == nil:
		return unknown
	}
	if _, found := h.names[string(bytes.ToLower(host))]; found {
		return yes
	}
	return certainly(false, h.complete)
}

// serviceHost returns the host of a service principal name: service/host, which :port, /name and @realm
// may follow (MS-ADTS 5.1.1.4).
func serviceHost(service []byte) []byte {
	_, host, _ := bytes.Cut(service, []byte("/"))
	if end := bytes.IndexAny(host, ":/@"); end >= 0 {
		host = host[:end]
	}
	return bytes.TrimSuffix(host, []byte("."))
}
