package syncrun

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
)

// change is a change of the domain. It is made at the origin and replicated to each
// controller later.
type change struct {
	description string
	object      string // that it changes; a controller receives the changes of an object in order
	apply       func(*domaincontroller.Server) error
	after       objectState // at the origin
}

// objectState is the part of an object that decides whether it is in scope.
type objectState struct {
	dn      string
	user    bool // the user filter applies
	service bool // a managed service account
	titled  bool // has a title
	deleted bool
}

// pickedChange is a change that was not made yet. Without apply, there is none to replicate.
type pickedChange struct {
	description string
	dn          string // of the object
	object      string // its GUID; "": look dn up
	apply       func(*domaincontroller.Server) error
	added       *domaincontroller.Object
}

// change makes a random change at the origin. Each controller receives it and earlier ones
// with its own probability.
func (h *history) change() {
	h.changeMu.Lock()
	picked := h.pickChange()
	h.changeMu.Unlock()
	h.makeChange(picked)
}

// makeChange makes a change at the origin.
func (h *history) makeChange(picked pickedChange) {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	h.logEvent("%s", picked.description)
	if picked.apply == nil {
		return
	}
	made := change{description: picked.description, object: picked.object, apply: picked.apply}
	if picked.added == nil && made.object == "" {
		made.object = guidOf(h.object(func(o domaincontroller.Object) bool { return o.DN == picked.dn }))
	}
	if err := picked.apply(h.origin.Server); err != nil {
		h.logEvent("  failed: %v", err)
		return
	}
	h.objects = h.origin.Objects("objectClass", "isDeleted", "objectGUID", "objectSid", "userAccountControl", "groupType", "title", "whenCreated")
	if picked.added != nil {
		o := h.object(func(o domaincontroller.Object) bool { return o.DN == picked.dn })
		made.object = guidOf(o)
		replica := domaincontroller.Object{DN: picked.dn, Attributes: maps.Clone(picked.added.Attributes)}
		for _, name := range []string{"objectGUID", "objectSid", "whenCreated"} {
			replica.Attributes[name] = o.Attributes[name]
		}
		made.apply = func(d *domaincontroller.Server) error { return d.Add(replica) }
	}
	made.after = stateOf(h.object(func(o domaincontroller.Object) bool { return guidOf(o) == made.object }))
	h.changes = append(h.changes, made)
	for _, c := range h.controllers {
		h.replicate(c, c.promptness)
	}
}

func guidOf(o domaincontroller.Object) string { return ad.GUID([]byte(o.First("objectGUID"))).String() }

// object returns the first object at the origin with a property.
func (h *history) object(is func(domaincontroller.Object) bool) domaincontroller.Object {
	return h.objects[slices.IndexFunc(h.objects, is)]
}

func stateOf(o domaincontroller.Object) objectState {
	classes := o.Attributes["objectClass"]
	return objectState{
		dn: o.DN, deleted: o.First("isDeleted") == "TRUE", titled: o.First("title") != "",
		service: slices.Contains(classes, "msDS-GroupManagedServiceAccount"), user: slices.Contains(classes, "user"),
	}
}

// listOrigin lists the accounts and groups at the origin, in the order of their DNs.
func (h *history) listOrigin() (live, deleted []domaincontroller.Object) {
	for _, o := range h.objects {
		switch {
		case !slices.Contains(o.Attributes["objectClass"], "user") && !slices.Contains(o.Attributes["objectClass"], "group"):
		case strings.HasSuffix(o.DN, ",OU=Staff,"+h.Base()) || strings.HasSuffix(o.DN, ",OU=Outside,"+h.Base()):
			live = append(live, o)
		case o.First("isDeleted") == "TRUE":
			deleted = append(deleted, o)
		}
	}
	slices.SortFunc(live, func(a, b domaincontroller.Object) int { return strings.Compare(a.DN, b.DN) })
	return live, deleted
}

// deleteForShort deletes an object on all controllers and restores it.
func (h *history) deleteForShort() {
	live, _ := h.listOrigin()
	if len(live) == 0 {
		return
	}
	o := live[h.random.IntN(len(live))]
	h.makeChange(deletion(o.DN))
	h.changeMu.Lock()
	h.logEvent("replicated to all")
	for _, c := range h.controllers {
		h.replicate(c, 100)
	}
	h.changeMu.Unlock()
	h.makeChange(restoration(o))
}

// pickChange returns a random change.
func (h *history) pickChange() pickedChange {
	live, deleted := h.listOrigin()
	if h.withPosture && len(live) > 3 && h.random.IntN(5) < 2 {
		return h.pickPosture(live)
	}
	units := []string{h.staff, h.staff, "OU=Inner," + h.staff, "OU=Outside," + h.Base()}
	unit := units[h.random.IntN(len(units))]
	n := h.random.IntN(31)
	if len(live) < 3 || n < 6 {
		return h.pickAddition(unit)
	}
	o := live[h.random.IntN(len(live))]
	if h.random.IntN(2) == 0 { // some objects change often
		o = live[h.random.IntN(3)]
	}
	isAccount := o.First("userAccountControl") != ""
	switch {
	case n < 10:
		attribute := []string{"displayName", "description", "title", "mail", "l", "co"}[h.random.IntN(6)]
		var values []string
		if h.random.IntN(4) > 0 {
			values = []string{fmt.Sprintf("value %d", h.random.IntN(1000))}
		}
		return modification(o.DN, attribute, values...)
	case n < 12:
		h.lastName++
		name := fmt.Sprintf("n%d", h.lastName)
		return changeOf("rename "+o.DN+" to "+name, o.DN, func(d *domaincontroller.Server) error { return d.Rename(o.DN, name) })
	case n < 15:
		return changeOf("move "+o.DN+" to "+unit, o.DN, func(d *domaincontroller.Server) error { return d.Move(o.DN, unit) })
	case n < 16 && isAccount:
		return changeOf("disable "+o.DN, o.DN, func(d *domaincontroller.Server) error { return d.Disable(o.DN) })
	case n < 17 && isAccount:
		control, _ := ad.ParseAccountControl([]byte(o.First("userAccountControl")))
		return modification(o.DN, "userAccountControl", strconv.Itoa(int(control&^ad.AccountDisabled)))
	case n < 19 && isAccount:
		value := fileTime(h.clock.Now().Add(time.Duration(h.random.IntN(400)-50) * time.Minute))
		if h.random.IntN(4) == 0 {
			value = never
		}
		return modification(o.DN, "accountExpires", value)
	case n < 20 && isAccount:
		return h.pickActivity(o.DN)
	case n >= 28 && isAccount:
		return h.pickLogOn(o.DN, guidOf(o))
	case n < 22:
		return deletion(o.DN)
	case n < 24 && isAccount:
		return h.pickRID(o)
	case len(deleted) > 0:
		return restoration(deleted[h.random.IntN(len(deleted))])
	}
	return pickedChange{description: "nothing"}
}

// pickRID returns the change of an account's SID, to one that no object had before.
func (h *history) pickRID(o domaincontroller.Object) pickedChange {
	h.lastRID++
	rid := 700 + h.lastRID // below those that the controller assigns
	former := ad.SID(o.First("objectSid"))
	changed := slices.Clone(former)
	binary.LittleEndian.PutUint32(changed[len(changed)-4:], rid)
	h.changedSIDs[former.String()], h.changedSIDs[changed.String()] = true, true
	return changeOf(fmt.Sprintf("set RID of %s to %d", o.DN, rid), o.DN, func(d *domaincontroller.Server) error { return d.SetRID(o.DN, rid) })
}

func deletion(dn string) pickedChange {
	return changeOf("delete "+dn, dn, func(d *domaincontroller.Server) error { return d.Delete(dn) })
}

// restoration returns the restoration of an object, whatever its DN was.
func restoration(o domaincontroller.Object) pickedChange {
	guid := ad.GUID([]byte(o.First("objectGUID")))
	picked := changeOf("undelete "+o.DN, "", func(d *domaincontroller.Server) error { return d.Undelete(guid) })
	picked.object = guid.String()
	return picked
}

// modification returns a change of one attribute.
func modification(dn, attribute string, values ...string) pickedChange {
	return changeOf(fmt.Sprintf("set %s of %s to %q", attribute, dn, values), dn, func(d *domaincontroller.Server) error { return d.Modify(dn, attribute, values...) })
}

func changeOf(description, dn string, apply func(*domaincontroller.Server) error) pickedChange {
	return pickedChange{description: description, dn: dn, apply: apply}
}

// pickAddition returns the addition of a user or a group.
func (h *history) pickAddition(unit string) pickedChange {
	h.lastName++
	o := domaincontroller.Object{DN: fmt.Sprintf("CN=n%d,%s", h.lastName, unit), Attributes: map[string][]string{
		"objectClass": {"user"}, "userAccountControl": {"66048"}, "mail": {fmt.Sprintf("n%d@corp.example.com", h.lastName)},
	}}
	if h.random.IntN(4) == 0 {
		o.Attributes = map[string][]string{"objectClass": {"group"}, "description": {"x"}}
	}
	return addition(o)
}

func addition(o domaincontroller.Object) pickedChange {
	return pickedChange{description: "add " + o.DN, dn: o.DN, apply: func(d *domaincontroller.Server) error { return d.Add(o) }, added: &o}
}

// pickActivity changes the activity of an account on one controller. It is not replicated.
func (h *history) pickActivity(dn string) pickedChange {
	count := strconv.Itoa(h.random.IntN(9))
	c := h.controllers[h.random.IntN(len(h.controllers))]
	if err := c.Modify(dn, "badPwdCount", count); err != nil {
		return pickedChange{description: fmt.Sprintf("no bad passwords for %s on %s: %v", dn, c.name, err)}
	}
	return pickedChange{description: fmt.Sprintf("%s bad passwords for %s on %s", count, dn, c.name)}
}

// pickPosture returns a random change that only posture reads, mostly of memberships.
func (h *history) pickPosture(live []domaincontroller.Object) pickedChange {
	var groups, users, all []string
	for _, o := range live {
		if all = append(all, o.DN); o.First("groupType") != "" {
			groups = append(groups, o.DN)
		} else {
			users = append(users, o.DN)
		}
	}
	privileged := []string{"CN=Domain Admins,CN=Users,", "CN=Administrators,CN=Builtin,", "CN=DnsAdmins,CN=Users,", "CN=Backup Operators,CN=Builtin,", "CN=Protected Users,CN=Users,"}
	pick := func(list []string) string { return list[h.random.IntN(len(list))] }
	for i := range privileged {
		privileged[i] += h.Base()
	}
	switch n := h.random.IntN(24); {
	case n < 11:
		group := pick(privileged)
		if len(groups) > 0 && h.random.IntN(3) > 0 {
			group = pick(groups)
		}
		candidates := slices.Concat(all, privileged, []string{foreignDN(h.Base())})
		var members []string
		for range h.random.IntN(6) {
			if member := pick(candidates); member != group && !slices.Contains(members, member) {
				members = append(members, member)
			}
		}
		return modification(group, "member", members...)
	case n < 13 && len(users) > 0:
		primary := "513"
		if h.random.IntN(2) == 0 {
			dn := pick(slices.Concat(groups, privileged[:1]))
			for _, o := range h.objects {
				if sid := o.First("objectSid"); o.DN == dn && sid != "" {
					primary = fmt.Sprint(binary.LittleEndian.Uint32([]byte(sid[len(sid)-4:])))
				}
			}
		}
		return modification(pick(users), "primaryGroupID", primary)
	case n < 15 && len(groups) > 0:
		return modification(pick(groups), "groupType", []string{"-2147483646", "2"}[h.random.IntN(2)])
	case n < 16:
		h.lastName++
		return addition(domaincontroller.Object{DN: fmt.Sprintf("CN=n%d,%s", h.lastName, h.staff), Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}})
	case n < 17:
		return modification(h.Base(), "lockoutThreshold", fmt.Sprint(h.random.IntN(20)))
	case n < 18:
		return modification(pick(all), "servicePrincipalName", fmt.Sprintf("http/%d", h.random.IntN(9)))
	case n < 19 && len(groups) > 0:
		return modification(pick(groups), "managedBy", pick(all))
	case n < 23:
		// Containers that always hold privileged objects: a delta sync keeps others.
		others := []string{h.Base(), "CN=AdminSDHolder,CN=System," + h.Base(), "CN=krbtgt,CN=Users," + h.Base(), "CN=Users," + h.Base()}
		return modification(pick(slices.Concat(all, privileged, others)), ad.AttributeDescriptor,
			domaincontroller.Descriptor(string(ad.Everyone), domaincontroller.AccessEntry{Trustee: string(ad.AuthenticatedUsers), Mask: 1 << h.random.IntN(20)}))
	default:
		return modification(pick(all), "adminCount", fmt.Sprint(h.random.IntN(2)))
	}
}
