package domaincontroller

import (
	"math"
	"slices"
	"strconv"
	"time"

	"adconnector/internal/ad"
)

// controlMachines has the flags of userAccountControl that only accounts of machines have.
const controlMachines = 0x800 | 0x1000 | 0x2000

// computedAccountControl returns msDS-User-Account-Control-Computed (MS-ADTS
// 3.1.1.4.5.17), or "".
func (d *Server) computedAccountControl(o *object, now time.Time) string {
	control, ok := ad.ParseAccountControl([]byte(o.attributes.first("userAccountControl")))
	if !ok || o.deleted {
		return ""
	}
	var computed ad.AccountControl
	if d.isLocked(o, now) {
		computed |= ad.AccountLocked
	}
	if d.passwordExpiresAt(o, control) < fileTime(now) {
		computed |= ad.AccountPasswordExpired
	}
	return strconv.FormatUint(uint64(computed), 10)
}

// passwordExpiry returns msDS-UserPasswordExpiryTimeComputed (MS-ADTS 3.1.1.4.5.33), or "".
func (d *Server) passwordExpiry(o *object) string {
	control, ok := ad.ParseAccountControl([]byte(o.attributes.first("userAccountControl")))
	if !ok || o.deleted {
		return ""
	}
	return strconv.FormatInt(d.passwordExpiresAt(o, control), 10)
}

// passwordExpiresAt returns the file time at which a password expires: 0 if the user must
// change it, and the maximum if it never expires.
func (d *Server) passwordExpiresAt(o *object, control ad.AccountControl) int64 {
	lastSet := o.attributes.integer("pwdLastSet")
	maxAge := -d.root.attributes.integer("maxPwdAge")
	if pso := d.resultantPSO(o); pso != nil {
		maxAge = -pso.attributes.integer("msDS-MaximumPasswordAge")
	}
	switch {
	case control&(ad.AccountPasswordNeverExpires|ad.AccountSmartCardRequired|controlMachines) != 0:
		return math.MaxInt64
	case lastSet == 0:
		return 0
	case maxAge <= 0: // no maximum age is stored as the minimum of int64, which has no negative
		return math.MaxInt64
	}
	return lastSet + maxAge
}

// resultantPSO returns the fine-grained password policy in force for a user, or nil. A
// policy that applies to the user directly has priority over one that applies to a global
// group of the user. Among equal ones, the lowest precedence wins (MS-ADTS 3.1.1.4.5.33).
func (d *Server) resultantPSO(o *object) *object {
	if len(d.policies.children) == 0 || !o.is("user") || o.is("computer") || o.deleted {
		return nil
	}
	groups := d.globalGroups(o)
	var best *object
	direct := false
	for _, pso := range d.policies.children {
		for dn := range pso.attributes.values("msDS-PSOAppliesTo") {
			target := d.lookup(dn)
			if target != o && (direct || !groups[target]) {
				continue
			}
			better := best == nil || target == o && !direct ||
				pso.attributes.integer("msDS-PasswordSettingsPrecedence") < best.attributes.integer("msDS-PasswordSettingsPrecedence")
			if better {
				best, direct = pso, target == o
			}
		}
	}
	return best
}

// globalGroups returns the global security groups that an account is a direct or nested
// member of, with its primary group.
func (d *Server) globalGroups(o *object) map[*object]bool {
	all := map[*object]bool{}
	queue := slices.Clone(o.memberOf)
	if rid := o.attributes.integer("primaryGroupID"); rid != 0 {
		if group := d.groupsBySID[d.accountSID(uint32(rid))]; group != nil {
			queue = append(queue, group)
		}
	}
	for len(queue) > 0 {
		group := queue[0]
		queue = queue[1:]
		groupType := ad.GroupType(group.attributes.integer("groupType"))
		if all[group] || groupType&ad.GroupSecurity == 0 || groupType&ad.GroupGlobal == 0 {
			continue
		}
		all[group] = true
		queue = append(queue, group.memberOf...)
	}
	return all
}

func (d *Server) isLocked(o *object, now time.Time) bool {
	locked := o.attributes.integer("lockoutTime")
	if locked == 0 {
		return false
	}
	duration := -d.root.attributes.integer("lockoutDuration")
	return duration == 0 || fileTime(now) < locked+duration
}
