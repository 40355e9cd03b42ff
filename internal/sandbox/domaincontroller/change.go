package domaincontroller

import (
	"encoding/binary"
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

// Object is an entry as LDAP returns it. Values of objectGUID, objectSid and invocationId
// are binary.
type Object struct {
	DN         string
	Attributes map[string][]string
}

// First returns the first value of an attribute, named as in the schema, or "".
func (o Object) First(attribute string) string {
	if values := o.Attributes[attribute]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Objects returns all objects, in the order of their creation. They include tombstones,
// the configuration and constructed attributes. With names of attributes, the objects have
// these attributes only.
func (d *Server) Objects(names ...string) []Object {
	attributes := exportedAttributes(names)
	d.endMemberships()
	d.mu.RLock()
	defer d.mu.RUnlock()
	now := d.options.Now()
	all := make([]Object, len(d.objects))
	for i, o := range d.objects {
		all[i] = d.export(o, now, attributes)
	}
	return all
}

// Object returns an object that is not deleted, with all attributes or with those named.
func (d *Server) Object(dn string, names ...string) (Object, error) {
	d.endMemberships()
	d.mu.RLock()
	defer d.mu.RUnlock()
	o, err := d.liveObject(dn)
	if err != nil {
		return Object{}, fmt.Errorf("read %s: %w", dn, err)
	}
	return d.export(o, d.options.Now(), exportedAttributes(names)), nil
}

// exportedAttributes returns the attributes with these names. Without names, it returns
// all attributes except canonicalName and nTSecurityDescriptor.
func exportedAttributes(names []string) (attributes []*attributeType) {
	for _, name := range names {
		if a := attributeByName(name); a != nil {
			attributes = append(attributes, a)
		}
	}
	if len(names) > 0 {
		return attributes
	}
	all := loadSchema().Attributes
	for i := range all {
		if a := &all[i]; a.Name != "canonicalName" && a.Name != ad.AttributeDescriptor {
			attributes = append(attributes, a)
		}
	}
	return attributes
}

func (d *Server) export(o *object, now time.Time, attributes []*attributeType) Object {
	exported := Object{DN: o.dn(), Attributes: map[string][]string{}}
	for _, a := range attributes {
		if values := slices.Collect(d.values(o, a.Name, now)); len(values) > 0 {
			exported.Attributes[a.Name] = values
		}
	}
	return exported
}

// Add creates an object in an existing container. It requires objectClass. Other
// attributes that accounts and groups require have defaults. A replica of an object of
// another controller has that one's objectGUID, objectSid and whenCreated.
func (d *Server) Add(o Object) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if names := o.Attributes["sAMAccountName"]; len(names) > 0 && d.findBySAMAccountName(names[0]) != nil {
		return fmt.Errorf("add %s: sAMAccountName %s exists", o.DN, names[0])
	}
	added, err := d.newObject(o)
	if err != nil {
		return fmt.Errorf("add %s: %w", o.DN, err)
	}
	members := added.members
	added.members = nil
	created := d.options.Now()
	if added.created != 0 {
		created = time.Unix(added.created, 0)
	}
	d.insert(added, created)
	setMembers(added, members)
	return nil
}

// newObject returns an object that is not in the directory yet.
func (d *Server) newObject(o Object) (*object, error) {
	parent, name, err := d.locateNew(o.DN)
	if err != nil {
		return nil, err
	}
	names := o.Attributes["objectClass"]
	if len(names) == 0 || classByName(names[len(names)-1]) == nil {
		return nil, fmt.Errorf("objectClass %q is not supported", names)
	}
	added := &object{class: classByName(names[len(names)-1]), parent: parent, rdn: name}
	if name.attribute != added.class.RDNAttribute {
		return nil, fmt.Errorf("the RDN of %s must begin with %s", added.class.Name, added.class.RDNAttribute)
	}
	setDefaults(added)
	for _, attribute := range slices.Sorted(maps.Keys(o.Attributes)) {
		if attribute == "objectClass" || slices.Contains(replicatedIdentity, attribute) {
			continue
		}
		if err := d.setAttribute(added, attribute, o.Attributes[attribute]); err != nil {
			return nil, err
		}
	}
	if err := d.setIdentity(added, o); err != nil {
		return nil, err
	}
	switch {
	case added.sid != "":
	case added.class.SAMAccountType != "":
		d.assignSID(added)
	case added.class.Name == "foreignSecurityPrincipal":
		var ok bool
		if added.sid, ok = parseSID(name.value); !ok {
			return nil, errors.New("the name of a foreign security principal must be a SID")
		}
	}
	return added, nil
}

// replicatedIdentity are the attributes that only a replica of an object is added with.
var replicatedIdentity = []string{"objectGUID", "objectSid", "whenCreated"}

// setIdentity sets the replicated identity of a new object, as far as it is given.
func (d *Server) setIdentity(added *object, o Object) error {
	if raw := o.First("objectGUID"); raw != "" {
		guid, ok := ad.ParseGUID([]byte(raw))
		if !ok || d.byGUID[guid] != nil {
			return fmt.Errorf("objectGUID %x is invalid or exists", raw)
		}
		added.guid = guid
	}
	if sid := o.First("objectSid"); sid != "" {
		if err := d.setSID(added, sid); err != nil {
			return err
		}
	}
	if created := o.First("whenCreated"); created != "" {
		at, err := time.Parse(generalizedTime, created)
		if err != nil {
			return fmt.Errorf("whenCreated: %w", err)
		}
		added.created = at.Unix()
	}
	return nil
}

// setSID gives an account or a group a SID of the domain. Later RIDs are higher.
func (d *Server) setSID(o *object, sid string) error {
	template := d.accountSID(0)
	domain := len(template) - 4
	if len(sid) != len(template) || sid[:domain] != template[:domain] {
		return fmt.Errorf("objectSid %x is not of this domain", sid)
	}
	o.sid = sid
	d.nextRID = max(d.nextRID, binary.LittleEndian.Uint32([]byte(sid[domain:]))+1)
	return nil
}

// SetRID gives an account or a group another SID of the domain, as a move to another domain and
// back does. Other objects may have the same one.
func (d *Server) SetRID(dn string, rid uint32) error {
	return d.change("set RID of", dn, func(o *object) error {
		if d.isRequired(o) || o.class.SAMAccountType == "" {
			return errors.New("not an account or group, or required")
		}
		if d.groupsBySID[o.sid] == o {
			delete(d.groupsBySID, o.sid)
			d.groupsBySID[d.accountSID(rid)] = o
		}
		return d.setSID(o, d.accountSID(rid))
	})
}

// locateNew returns the container and the RDN of a new DN.
func (d *Server) locateNew(text string) (parent *object, name rdn, err error) {
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return nil, rdn{}, err
	}
	existing, nearest := d.locate(dn)
	switch {
	case nearest == nil:
		return nil, rdn{}, errors.New("not in this domain")
	case existing != nil:
		return nil, rdn{}, errors.New("object exists")
	}
	parent, _ = d.locate(&ldap.DN{RDNs: dn.RDNs[1:]})
	if parent == nil || parent.deleted {
		return nil, rdn{}, errors.New("container does not exist")
	}
	return parent, newRDN(dn.RDNs[0]), nil
}

// setDefaults sets the attributes that an object of its class requires.
func setDefaults(o *object) {
	if o.class.SAMAccountType != "" {
		o.set("sAMAccountName", o.rdn.value)
		o.set("sAMAccountType", o.class.SAMAccountType)
	}
	switch {
	case o.class.Name == "group":
		o.set("groupType", "-2147483646") // global, security
	case o.is("user"):
		control := "512"
		if o.is("computer") {
			control = "4096"
		}
		o.set("userAccountControl", control)
		o.set("primaryGroupID", defaultPrimaryGroup(o))
		o.set("accountExpires", neverExpires)
		for _, name := range []string{"pwdLastSet", "codePage", "countryCode", "badPwdCount",
			"badPasswordTime", "lastLogon", "lastLogoff", "logonCount"} {
			o.set(name, "0")
		}
	}
}

// defaultPrimaryGroup returns the primary group of a new account, and of a restored one (MS-SAMR
// 3.1.1.8.1).
func defaultPrimaryGroup(o *object) string {
	if o.is("computer") {
		return "515"
	}
	return "513"
}

const neverExpires = "9223372036854775807" // as a file time

// assignSID gives a security principal the next SID of the domain.
func (d *Server) assignSID(o *object) {
	o.sid = d.accountSID(d.nextRID)
	d.nextRID++
}

// insert adds a complete object to the directory.
func (d *Server) insert(o *object, created time.Time) {
	if o.guid == (ad.GUID{}) {
		o.guid = newGUID(d.random)
	}
	o.created = created.Unix()
	o.attach(o.parent)
	d.objects = append(d.objects, o)
	d.byGUID[o.guid] = o
	if o.class.Name == "group" {
		d.groupsBySID[o.sid] = o
	}
	d.recordChange(o)
	o.changed, o.usnCreated = o.created, o.usnChanged
}

// recordChange assigns the next update sequence number to an object.
func (d *Server) recordChange(o *object) {
	d.highest++
	o.usnChanged = d.highest
	o.changed = d.options.Now().Unix()
}

// SkipUSNs assigns a number of update sequence numbers to changes that clients do not see, such
// as those of other naming contexts.
func (d *Server) SkipUSNs(number ad.USN) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.highest += number
}

// Modify sets an attribute. No value removes it. A change of an attribute that is not
// replicated assigns no update sequence number and keeps whenChanged, like a logon.
func (d *Server) Modify(dn, attribute string, values ...string) error {
	change := d.change
	if a := attributeByName(attribute); a != nil && a.Local {
		change = d.changeLocally
	}
	return change("modify", dn, func(o *object) error { return d.setAttribute(o, attribute, values) })
}

// change applies a change to an object and records it.
func (d *Server) change(operation, dn string, apply func(*object) error) error {
	return d.changeLocally(operation, dn, func(o *object) error {
		if err := apply(o); err != nil {
			return err
		}
		d.recordChange(o)
		return nil
	})
}

// changeLocally applies a change to an object, without an update sequence number.
func (d *Server) changeLocally(operation, dn string, apply func(*object) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.liveObject(dn)
	if err == nil {
		err = apply(o)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", operation, dn, err)
	}
	return nil
}

// liveObject returns an object that is not deleted.
func (d *Server) liveObject(dn string) (*object, error) {
	o := d.lookup(dn)
	if o == nil || o.deleted {
		return nil, errors.New("object does not exist")
	}
	return o, nil
}

func (d *Server) setAttribute(o *object, name string, values []string) error {
	attribute := attributeByName(name)
	if err := checkAttribute(attribute, values); err != nil {
		return fmt.Errorf("attribute %s: %w", name, err)
	}
	if attribute.Name == "member" {
		return d.setMembersByDN(o, values)
	}
	o.set(attribute.Name, values...)
	if attribute.Name == "groupType" {
		o.set("sAMAccountType", samAccountTypeOf(o.attributes.integer("groupType")))
	}
	return nil
}

func checkAttribute(attribute *attributeType, values []string) error {
	switch {
	case attribute == nil:
		return errors.New("not in the schema")
	case attribute.System:
		return errors.New("owned by the system")
	case len(values) > 1 && !attribute.Many:
		return errors.New("single-valued")
	}
	for _, value := range values {
		if value == "" {
			return errors.New("empty value")
		}
		if _, err := strconv.ParseInt(value, 10, 64); attribute.Syntax == syntaxInteger && err != nil {
			return errors.New("not an integer")
		}
	}
	return nil
}

func (d *Server) setMembersByDN(group *object, dns []string) error {
	members := make([]*object, len(dns))
	for i, dn := range dns {
		if members[i] = d.lookup(dn); members[i] == nil || members[i].deleted {
			return fmt.Errorf("member %s does not exist", dn)
		}
	}
	if group.usnCreated == 0 { // not inserted yet: add sets both ends of the links
		group.members = members
		return nil
	}
	setMembers(group, members)
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

// setMembers sets both ends of the links. None is time-bound.
func setMembers(group *object, members []*object) {
	for _, member := range group.members {
		member.memberOf = removeObject(member.memberOf, group)
	}
	group.members, group.memberEnds = nil, nil
	for _, member := range members {
		if !slices.Contains(member.memberOf, group) {
			group.members = append(group.members, member)
			member.memberOf = append(member.memberOf, group)
		}
	}
}

func removeObject(list []*object, o *object) []*object {
	return slices.DeleteFunc(list, func(other *object) bool { return other == o })
}

// Rename changes the name of an object in its container. The name is unescaped.
func (d *Server) Rename(dn, name string) error {
	return d.change("rename", dn, func(o *object) error {
		return d.relocate(o, o.parent, rdn{o.rdn.attribute, name})
	})
}

// Move moves an object and its descendants to another container. The descendants do not
// count as changed.
func (d *Server) Move(dn, container string) error {
	return d.change("move", dn, func(o *object) error {
		parent, err := d.liveObject(container)
		if err != nil {
			return fmt.Errorf("container %s: %w", container, err)
		}
		return d.relocate(o, parent, o.rdn)
	})
}

func (d *Server) relocate(o, parent *object, name rdn) error {
	if d.isRequired(o) { // its parent can be nil
		return errRequired
	}
	switch existing := parent.children[name.key()]; {
	case name.value == "":
		return errors.New("empty name")
	case parent.isBelow(o):
		return errors.New("container is below the object")
	case existing != nil && existing != o:
		return errNameExists
	}
	o.detach()
	o.rdn = name
	o.attach(parent)
	return nil
}

var (
	errRequired   = errors.New("the domain requires the object")
	errNameExists = errors.New("name exists")
)

// isRequired reports whether an object can be neither moved nor deleted.
func (d *Server) isRequired(o *object) bool { return o.parent == nil || o.partition || o == d.settings }

// Disable disables an account.
func (d *Server) Disable(dn string) error {
	return d.change("disable", dn, func(o *object) error {
		control, ok := ad.ParseAccountControl([]byte(o.attributes.first("userAccountControl")))
		if !ok {
			return errors.New("not an account")
		}
		o.set("userAccountControl", strconv.Itoa(int(control|ad.AccountDisabled)))
		return nil
	})
}

// SetPassword sets the password of an account, which can bind with it.
func (d *Server) SetPassword(dn, password string) error {
	return d.change("set password of", dn, func(o *object) error {
		if !o.is("user") || password == "" {
			return errors.New("not an account, or empty password")
		}
		d.passwords[o] = password
		o.set("pwdLastSet", formatFileTime(d.options.Now()))
		return nil
	})
}

// Delete turns an object without children into a tombstone.
func (d *Server) Delete(dn string) error {
	return d.change("delete", dn, func(o *object) error {
		if d.isRequired(o) {
			return errRequired
		}
		if len(o.children) > 0 {
			return errors.New("object has children")
		}
		for _, group := range o.memberOf {
			group.members = removeObject(group.members, o)
		}
		o.memberOf = nil
		setMembers(o, nil)
		delete(d.passwords, o)

		var kept attributeSet
		for _, name := range []string{"sAMAccountName", "userAccountControl", "groupType", "dNSHostName"} {
			kept = kept.with(name, slices.Collect(o.attributes.values(name))...)
		}
		o.attributes = kept.with("lastKnownParent", o.parent.dn())
		o.detach()
		o.deleted = true
		o.rdn.value += tombstoneMark + o.guid.String()
		o.attach(d.deleted)
		return nil
	})
}

// tombstoneMark separates the former name of a tombstone from its GUID (MS-ADTS
// 3.1.1.5.5.1.1).
const tombstoneMark = "\nDEL:"

// Undelete restores a tombstone to its former container. It does not restore the
// attributes that Delete removed, except for sAMAccountType and the default primary group.
func (d *Server) Undelete(guid ad.GUID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.byGUID[guid]
	if o == nil || !o.deleted || o == d.deleted {
		return fmt.Errorf("undelete %s: tombstone does not exist", guid)
	}
	parent, err := d.liveObject(o.attributes.first("lastKnownParent"))
	if err != nil {
		return fmt.Errorf("undelete %s: former container: %w", guid, err)
	}
	name := o.rdn
	name.value, _, _ = strings.Cut(name.value, tombstoneMark)
	if parent.children[name.key()] != nil {
		return fmt.Errorf("undelete %s: %w", guid, errNameExists)
	}
	o.detach()
	o.deleted = false
	o.rdn = name
	o.attach(parent)
	o.set("lastKnownParent")
	switch {
	case o.class.Name == "group":
		o.set("sAMAccountType", samAccountTypeOf(o.attributes.integer("groupType")))
	case o.class.SAMAccountType != "":
		o.set("sAMAccountType", o.class.SAMAccountType)
	}
	if o.is("user") {
		o.set("primaryGroupID", defaultPrimaryGroup(o))
	}
	d.recordChange(o)
	return nil
}
