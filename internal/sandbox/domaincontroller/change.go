package domaincontroller

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// Object is an entry as LDAP shows it. Values of objectGUID, objectSid and
// invocationId are binary.
type Object struct {
	DN         string
	Attributes map[string][]string
}

// First returns the first value of an attribute, named as the schema names it.
func (o Object) First(attribute string) string {
	if values := o.Attributes[attribute]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Objects returns all objects as of now, in the order in which they were created. They
// include tombstones, the configuration and computed values. With names of attributes,
// the objects have these attributes only.
func (d *Server) Objects(names ...string) []Object {
	wanted := describing(names)
	d.mu.RLock()
	defer d.mu.RUnlock()
	now := d.options.Now()
	all := make([]Object, len(d.objects))
	for i, o := range d.objects {
		all[i] = d.describe(o, now, wanted)
	}
	return all
}

// Object returns one living object, with all attributes or with those named.
func (d *Server) Object(dn string, names ...string) (Object, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	o, err := d.living(dn)
	if err != nil {
		return Object{}, fmt.Errorf("read %s: %w", dn, err)
	}
	return d.describe(o, d.options.Now(), describing(names)), nil
}

// describing returns the attributes with these names, without names all but canonicalName.
func describing(names []string) (wanted []*attributeType) {
	for _, name := range names {
		if a := attributesByName[strings.ToLower(name)]; a != nil {
			wanted = append(wanted, a)
		}
	}
	if len(names) > 0 {
		return wanted
	}
	for id := range schema {
		if a := &schema[id]; a.id != attributeCanonicalName {
			wanted = append(wanted, a)
		}
	}
	return wanted
}

func (d *Server) describe(o *object, now time.Time, wanted []*attributeType) Object {
	described := Object{DN: o.dn(), Attributes: map[string][]string{}}
	for _, a := range wanted {
		if values := slices.Collect(d.values(o, a.id, now)); len(values) > 0 {
			described.Attributes[a.name] = values
		}
	}
	return described
}

// Add makes an object. Its container must exist; objectClass is needed, and what
// else an account or a group cannot be without is filled in.
func (d *Server) Add(o Object) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if names := o.Attributes["sAMAccountName"]; len(names) > 0 && d.accountNamed(names[0]) != nil {
		return fmt.Errorf("add %s: the account name %s is taken", o.DN, names[0])
	}
	return d.add(o)
}

func (d *Server) add(o Object) error {
	parent, name, err := d.place(o.DN)
	if err != nil {
		return fmt.Errorf("add %s: %w", o.DN, err)
	}
	declared := o.Attributes["objectClass"]
	if len(declared) == 0 || classes[strings.ToLower(declared[len(declared)-1])] == nil {
		return fmt.Errorf("add %s: objectClass %q is unknown here", o.DN, declared)
	}
	kind := classes[strings.ToLower(declared[len(declared)-1])]
	if name.attribute != kind.naming {
		return fmt.Errorf("add %s: the name of %s begins with %s", o.DN, kind.name, kind.naming)
	}
	made := &object{class: kind, parent: parent, rdn: name}
	fillIn(made)
	for _, attribute := range slices.Sorted(maps.Keys(o.Attributes)) {
		if attribute == "objectClass" {
			continue
		}
		if err := d.assign(made, attribute, o.Attributes[attribute], anyAttribute); err != nil {
			return fmt.Errorf("add %s: %w", o.DN, err)
		}
	}
	switch {
	case kind.samAccount != "":
		made.sid = d.account(d.nextRID)
		d.nextRID++
	case kind.name == "foreignSecurityPrincipal":
		var ok bool
		if made.sid, ok = parseSID(name.value); !ok {
			return fmt.Errorf("add %s: the name of a foreign principal is its SID", o.DN)
		}
	}
	members := made.members
	made.members = nil
	d.insert(made, d.options.Now())
	setMembers(made, members)
	return nil
}

// place finds the container of a new name.
func (d *Server) place(text string) (parent *object, name rdn, err error) {
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return nil, rdn{}, err
	}
	found, above := d.locate(dn)
	switch {
	case above == nil:
		return nil, rdn{}, errors.New("it is not in this domain")
	case found != nil:
		return nil, rdn{}, errors.New("it exists")
	}
	parent, _ = d.locate(&ldap.DN{RDNs: dn.RDNs[1:]})
	if parent == nil || parent.deleted {
		return nil, rdn{}, errors.New("there is no such container")
	}
	return parent, rdnOf(dn.RDNs[0]), nil
}

// fillIn gives an object what one of its class cannot be without.
func fillIn(o *object) {
	set := func(id attributeID, value string) { o.attributes = o.attributes.with(id, value) }
	if o.class.samAccount != "" {
		set(attributeSAMAccountName, o.rdn.value)
		set(attributeSAMAccountType, o.class.samAccount)
	}
	switch {
	case o.class.name == "group":
		set(attributeGroupType, "-2147483646") // global, security
	case o.is("user"):
		control, primary := "512", "513"
		if o.is("computer") {
			control, primary = "4096", "515"
		}
		set(attributeUserAccountControl, control)
		set(attributePrimaryGroupID, primary)
		set(attributeAccountExpires, never)
		for _, id := range []attributeID{attributePwdLastSet, attributeCodePage, attributeCountryCode, attributeBadPwdCount,
			attributeBadPasswordTime, attributeLastLogon, attributeLastLogoff, attributeLogonCount} {
			set(id, "0")
		}
	}
}

// never is the file time that means none.
const never = "9223372036854775807"

// insert puts a finished object in its place.
func (d *Server) insert(o *object, created time.Time) {
	o.guid = d.newGUID()
	o.created = created.Unix()
	o.attach(o.parent)
	d.objects = append(d.objects, o)
	d.byGUID[o.guid] = o
	if o.class.name == "group" {
		d.bySID[o.sid] = o
	}
	d.raise(o)
	o.changed, o.usnCreated = o.created, o.usnChanged
}

// raise counts one change of o.
func (d *Server) raise(o *object) {
	d.highest++
	o.usnChanged = d.highest
	o.changed = d.options.Now().Unix()
}

// Modify sets an attribute to the values given; none clears it. An attribute that
// is not replicated is for Touch.
func (d *Server) Modify(dn, attribute string, values ...string) error {
	return d.change("modify", dn, func(o *object) error {
		return d.assign(o, attribute, values, replicatedAttribute)
	})
}

// Touch sets an attribute that is not replicated, as a logon does: no update
// sequence number is raised, and whenChanged stands.
func (d *Server) Touch(dn, attribute string, values ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.living(dn)
	if err == nil {
		err = d.assign(o, attribute, values, localAttribute)
	}
	if err != nil {
		return fmt.Errorf("touch %s: %w", dn, err)
	}
	return nil
}

// change makes one change to an object and counts it.
func (d *Server) change(what, dn string, apply func(*object) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.living(dn)
	if err == nil {
		err = apply(o)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, dn, err)
	}
	d.raise(o)
	return nil
}

func (d *Server) living(dn string) (*object, error) {
	o := d.lookup(dn)
	if o == nil || o.deleted {
		return nil, errors.New("there is no such object")
	}
	return o, nil
}

// What assign may set.
type assignable byte

const (
	anyAttribute assignable = iota
	replicatedAttribute
	localAttribute
)

func (d *Server) assign(o *object, name string, values []string, which assignable) error {
	attribute := attributesByName[strings.ToLower(name)]
	switch {
	case attribute == nil:
		return fmt.Errorf("attribute %s is unknown here", name)
	case attribute.system:
		return fmt.Errorf("attribute %s is the server's own", name)
	case attribute.local && which == replicatedAttribute:
		return fmt.Errorf("attribute %s is not replicated: touch it", name)
	case !attribute.local && which == localAttribute:
		return fmt.Errorf("attribute %s is replicated: modify it", name)
	case len(values) > 1 && !attribute.many:
		return fmt.Errorf("attribute %s takes one value", name)
	}
	for _, value := range values {
		if value == "" {
			return fmt.Errorf("attribute %s takes no empty value", name)
		}
		if _, err := strconv.ParseInt(value, 10, 64); attribute.syntax == syntaxInteger && err != nil {
			return fmt.Errorf("attribute %s takes a number", name)
		}
	}
	if attribute.id == attributeMember {
		members := make([]*object, len(values))
		for i, dn := range values {
			if members[i] = d.lookup(dn); members[i] == nil || members[i].deleted {
				return fmt.Errorf("member %s does not exist", dn)
			}
		}
		if o.children == nil && o.usnCreated == 0 { // not inserted yet: add links it
			o.members = members
			return nil
		}
		setMembers(o, members)
		return nil
	}
	o.attributes = o.attributes.with(attribute.id, values...)
	if attribute.id == attributeGroupType {
		o.attributes = o.attributes.with(attributeSAMAccountType, samAccountTypeOf(o.attributes.integer(attributeGroupType)))
	}
	return nil
}

func samAccountTypeOf(groupType int64) string {
	t := ad.GroupType(groupType)
	switch local, security := t&ad.GroupDomainLocal != 0, t&ad.GroupSecurity != 0; {
	case local && security:
		return samAlias
	case local:
		return samNonSecAlias
	case security:
		return samGroup
	default:
		return samNonSecurity
	}
}

// setMembers keeps both ends of the links.
func setMembers(group *object, members []*object) {
	for _, member := range group.members {
		member.memberOf = without(member.memberOf, group)
	}
	group.members = nil
	for _, member := range members {
		if !slices.Contains(member.memberOf, group) {
			group.members = append(group.members, member)
			member.memberOf = append(member.memberOf, group)
		}
	}
}

func without(list []*object, o *object) []*object {
	return slices.DeleteFunc(list, func(other *object) bool { return other == o })
}

// Rename gives an object another name in its container: just the value, not escaped.
func (d *Server) Rename(dn, name string) error {
	return d.change("rename", dn, func(o *object) error {
		return d.relocate(o, o.parent, rdn{o.rdn.attribute, name})
	})
}

// Move puts an object, and what is below it, into another container. The objects
// below it do not count as changed.
func (d *Server) Move(dn, container string) error {
	return d.change("move", dn, func(o *object) error {
		parent, err := d.living(container)
		if err != nil {
			return fmt.Errorf("%s: %w", container, err)
		}
		return d.relocate(o, parent, o.rdn)
	})
}

func (d *Server) relocate(o, parent *object, name rdn) error {
	switch taken := parent.children[name.key()]; {
	case o.parent == nil || o.partition || o == d.settings:
		return errors.New("it stays where it is")
	case name.value == "":
		return errors.New("a name is needed")
	case parent.isBelow(o):
		return errors.New("it cannot be below itself")
	case taken != nil && taken != o:
		return errors.New("the name is taken")
	}
	o.detach()
	o.rdn = name
	o.attach(parent)
	return nil
}

// Disable disables an account.
func (d *Server) Disable(dn string) error { return d.disabled("disable", dn, true) }

// Enable enables an account.
func (d *Server) Enable(dn string) error { return d.disabled("enable", dn, false) }

func (d *Server) disabled(what, dn string, disabled bool) error {
	return d.change(what, dn, func(o *object) error {
		control, ok := ad.ParseAccountControl([]byte(o.attributes.first(attributeUserAccountControl)))
		if !ok {
			return errors.New("it is no account")
		}
		control &^= ad.AccountDisabled
		if disabled {
			control |= ad.AccountDisabled
		}
		o.attributes = o.attributes.with(attributeUserAccountControl, strconv.Itoa(int(control)))
		return nil
	})
}

// SetPassword gives an account a password, with which it may bind from now on.
func (d *Server) SetPassword(dn, password string) error {
	return d.change("set password of", dn, func(o *object) error {
		if !o.is("user") || password == "" {
			return errors.New("an account and a password are needed")
		}
		d.passwords[o] = password
		o.attributes = o.attributes.with(attributePwdLastSet, fileTimeOf(d.options.Now()))
		return nil
	})
}

// Delete turns an object without anything below it into a tombstone.
func (d *Server) Delete(dn string) error {
	return d.change("delete", dn, func(o *object) error {
		if o.parent == nil || o.partition || o == d.settings {
			return errors.New("the domain needs it")
		}
		if len(o.children) > 0 {
			return errors.New("there are objects below it")
		}
		for _, group := range o.memberOf {
			group.members = without(group.members, o)
		}
		o.memberOf = nil
		setMembers(o, nil)
		delete(d.passwords, o)

		var kept record
		for _, id := range []attributeID{attributeSAMAccountName, attributeUserAccountControl, attributeGroupType, attributeDNSHostName} {
			kept = kept.with(id, slices.Collect(o.attributes.values(id))...)
		}
		o.attributes = kept.with(attributeLastKnownParent, o.parent.dn())
		o.detach()
		o.deleted = true
		o.rdn.value += deletedMark + o.guid.String()
		o.attach(d.deleted)
		return nil
	})
}

// deletedMark stands between a tombstone's former name and its GUID (MS-ADTS 3.1.1.5.5.1.1).
const deletedMark = "\nDEL:"

// Undelete brings a tombstone back to where it was. What it lost is lost.
func (d *Server) Undelete(guid ad.GUID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.undelete(guid); err != nil {
		return fmt.Errorf("undelete %s: %w", guid, err)
	}
	return nil
}

func (d *Server) undelete(guid ad.GUID) error {
	o := d.byGUID[guid]
	if o == nil || !o.deleted || o == d.deleted {
		return errors.New("there is no such tombstone")
	}
	parent, err := d.living(o.attributes.first(attributeLastKnownParent))
	if err != nil {
		return fmt.Errorf("where it was: %w", err)
	}
	name := o.rdn
	name.value, _, _ = strings.Cut(name.value, deletedMark)
	if parent.children[name.key()] != nil {
		return errors.New("the name is taken")
	}
	o.detach()
	o.deleted = false
	o.rdn = name
	o.attach(parent)
	o.attributes = o.attributes.with(attributeLastKnownParent)
	switch {
	case o.class.name == "group":
		o.attributes = o.attributes.with(attributeSAMAccountType, samAccountTypeOf(o.attributes.integer(attributeGroupType)))
	case o.class.samAccount != "":
		o.attributes = o.attributes.with(attributeSAMAccountType, o.class.samAccount)
	}
	d.raise(o)
	return nil
}

// Restoration is what a restored domain controller shows of it.
type Restoration struct {
	// Back is by how much the update sequence numbers go back. Objects that were
	// above keep their content and stand at the new highest.
	Back ad.USN
	// SameInvocation keeps the invocation ID, as a snapshot of the machine does and
	// a proper restore never.
	SameInvocation bool
}

// Restore makes the domain controller one that was restored from a backup.
func (d *Server) Restore(r Restoration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !r.SameInvocation {
		d.invocationID = d.newGUID()
	}
	d.highest = max(1, d.highest-r.Back)
	for _, o := range d.objects {
		o.usnChanged = min(o.usnChanged, d.highest)
		o.usnCreated = min(o.usnCreated, d.highest)
	}
	d.raise(d.settings)
}
