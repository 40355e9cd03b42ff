// Package identity maps a directory entry to the asset that is sent to the gateway, by the
// connector's fixed transformation map.
//
// Equal entries give equal bytes, so the fingerprint of an asset changes only if its sent
// content changes. Values that cannot be parsed are counted and left out. The package does
// no I/O and reads no clock. It does not decide which objects are in scope or sent.
package identity

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"time"
	"unicode/utf8"

	"adconnector/internal/access"
	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// Kind is the kind of an asset.
type Kind byte

// The kinds. Their numbers are stored in the state file.
const (
	User Kind = iota + 1
	Group
	Role           // the effective members of a well-known group
	ServiceAccount // a managed service account
	Domain
)

// assetClass maps kinds to the gateway's asset classes.
var assetClass = map[Kind]string{
	User: "userAssetClass", Group: "groupAssetClass", Role: "roleAssetClass",
	ServiceAccount: "userAssetClass", Domain: "domainAssetClass",
}

func (k Kind) String() string {
	switch k {
	case User:
		return "user"
	case Group:
		return "group"
	case Role:
		return "role"
	case ServiceAccount:
		return "service account"
	case Domain:
		return "domain"
	default:
		return "unknown"
	}
}

// IsPosture reports whether the kind exists only with security posture.
func (k Kind) IsPosture() bool { return k > Group }

// roleSuffix distinguishes a role from its group, which has the same SID.
const roleSuffix = ":role"

// ExternalID returns the externalAssetId of an object.
func ExternalID(kind Kind, id ad.SID) string {
	if kind == Role {
		return id.String() + roleSuffix
	}
	return id.String()
}

// Key is the key of an asset at the gateway. Two objects have the same Key if they have the same
// ExternalID.
type Key struct {
	Role bool
	SID  string // binary
}

// Key returns the key of the object's asset.
func (o Object) Key() Key { return Key{o.Kind == Role, string(o.SID)} }

// builtinDomain is the beginning of the SIDs of the groups that every domain has, S-1-5-32.
var builtinDomain = ad.SID{1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0}

// IsBuiltin reports whether every domain has an object with this key: a group such as
// Administrators (S-1-5-32-544), or its role.
func (o Object) IsBuiltin() bool {
	return (o.Kind == Group || o.Kind == Role) && bytes.HasPrefix(o.SID, builtinDomain)
}

// roleNamespace is the connector's namespace for UUIDs of version 5 (RFC 9562 5.5).
var roleNamespace = [16]byte{0x6f, 0x1c, 0x2d, 0x5e, 0x0b, 0x7a, 0x4c, 0x3d, 0x9a, 0x44, 0x8e, 0x52, 0x17, 0xc3, 0xd0, 0x96}

// RoleGUID returns the GUID of a group's role: a UUID of version 5 of the group's GUID.
func RoleGUID(group ad.GUID) ad.GUID {
	sum := sha1.Sum(append(roleNamespace[:], group[:]...))
	sum[6] = sum[6]&0x0f | 0x50
	sum[8] = sum[8]&0x3f | 0x80
	// ad.GUID has its first three fields in little-endian order.
	slices.Reverse(sum[:4])
	slices.Reverse(sum[4:6])
	slices.Reverse(sum[6:8])
	return ad.GUID(sum[:16])
}

// Fingerprint is a hash of an asset's JSON: 8 bytes of the SHA-256 without activity values,
// then 8 bytes of the SHA-256 of these. The zero value is no fingerprint of any asset.
type Fingerprint [16]byte

// SameButActivity reports whether the fingerprints are equal except for activity.
func (f Fingerprint) SameButActivity(other Fingerprint) bool {
	return [8]byte(f[:8]) == [8]byte(other[:8])
}

// MaxAssetBytes is the maximum size of an asset's JSON. A larger asset is not sent. The largest
// legitimate asset, a group with 100,000 members, has 5 MB.
const MaxAssetBytes = 16 << 20

// Asset is one mapped entry.
type Asset struct {
	Kind        Kind
	GUID        ad.GUID
	SID         ad.SID
	Name        []byte
	JSON        []byte // {"asset":{…}}
	Fingerprint Fingerprint
	RecheckAt   time.Time // next time, by the server's clock, when the status may change without a directory change; zero: never
	Created     []byte    // whenCreated as in the entry; nil: unreadable, or not a user, group or service account
	Deleted     bool
	FormerSID   bool   // of a deletion: the object exists, but has another SID now
	MovedIn     bool   // set by the caller: the object existed before it came into the scope
	Logons      Logons // in the JSON; of users and service accounts
	// ReplicatedLogon is lastLogonTimestamp, which every domain controller has; 0: none.
	ReplicatedLogon ad.FileTime
	Unparsed        int // malformed values, which are left out
	// TooLarge means that the JSON would exceed MaxAssetBytes. JSON is empty then. Fingerprint
	// changes if the entry does, and is not zero.
	TooLarge bool
	// Pending means that the asset mentions an account that a full read of the memberships may
	// still set. The entry is to be mapped again afterwards.
	Pending bool
}

// Object is the stored part of a sent asset. It suffices to detect changes and to build the
// deletion.
type Object struct {
	Kind        Kind
	GUID        ad.GUID
	SID         ad.SID
	Name        string
	Fingerprint Fingerprint // zero: unknown, so the next asset is always sent
	RecheckAt   time.Time
	Deleted     bool
	// FormerSID means that the object has another SID now. A deletion then concerns only the asset
	// under the former one. In the index, it means that the gateway has acknowledged that deletion.
	FormerSID bool
	MovedIn   bool // as in Asset; not set in objects that are read from the state file
	Logons    Logons
}

// maxStoredName is the size in bytes above which names are cut off in the state file, which is
// mapped into memory. Names in Active Directory have at most 255 characters (MS-ADA3, rangeUpper of
// name).
const maxStoredName = 4 * 255

// storedName returns the beginning of a name that is stored.
func storedName(name []byte) []byte {
	if len(name) <= maxStoredName {
		return name
	}
	end := maxStoredName
	for end > maxStoredName-utf8.UTFMax && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end]
}

// Object returns a copy that does not share memory with the asset. A long name is cut off.
func (a Asset) Object() Object {
	return Object{
		Kind: a.Kind, GUID: a.GUID, SID: slices.Clone(a.SID), Name: string(storedName(a.Name)),
		Fingerprint: a.Fingerprint, RecheckAt: a.RecheckAt, Deleted: a.Deleted, FormerSID: a.FormerSID, MovedIn: a.MovedIn, Logons: a.Logons,
	}
}

// Mapper maps entries of one kind. The search must request Attributes, in that order, and
// extended DNs if ExtendedDN is true. A Mapper is for use by one goroutine.
type Mapper struct {
	Attributes []string // the source attributes, without duplicates
	ExtendedDN bool     // true with security posture
	// DomainController is whether the entries come from a domain controller. There, an attribute
	// that every object of the kind has is unreadable if it is missing. The caller sets it.
	DomainController bool
	// LatestLogon is the time after which logons of entries are in the future and count as none; 0:
	// no limit. The caller sets it. A clock that was ahead would otherwise leave a logon that stays.
	LatestLogon ad.FileTime

	kind            Kind
	root            node
	guid, sid, name int // slots
	counts          attributeCounts
	recheck         recheckSlots
	created         int            // slot, for users and groups; -1: none
	adminCount      int            // slot, for users and groups with posture; -1: none
	primaryGroup    int            // slot, for users with posture; -1: none
	descriptors     bool           // see UseDescriptors
	domains         access.Domains // see UseDescriptors
	hash            hash.Hash
	sum             [sha256.Size]byte
	source          source // of the current entry; a field, so that Map does not allocate

	graph       *membership.Graph
	partial     bool
	controllers *ControllerHosts
	roleMembers map[membership.Node]membership.RoleMembers
	collected   map[string]collection
	// collectedMentions are the principals that the collected parts mention.
	collectedMentions []mention
	overflow          bool // the collected parts exceed MaxAssetBytes
}

// NewMapper returns a mapper of identities.
func NewMapper(kind Kind) *Mapper { return newMapper(kind, transformation[kind], false) }

// NewPostureMapper returns a mapper of identities with security posture. UseGraph or
// UsePartialGraph must be called before Map, except for the domain.
func NewPostureMapper(kind Kind) *Mapper {
	rows := slices.Concat(transformation[kind], posture[kind], lastRows[kind])
	if kind == ServiceAccount {
		rows = slices.Concat(transformation[User], posture[User], posture[ServiceAccount], lastRows[User])
	}
	m := newMapper(kind, rows, true)
	m.ExtendedDN = true
	return m
}

func newMapper(kind Kind, rows []row, withPosture bool) *Mapper {
	m := &Mapper{kind: kind, created: -1, adminCount: -1, primaryGroup: -1, hash: sha256.New()}
	for _, row := range rows {
		m.add(row)
	}
	m.guid, m.sid, m.name = m.slot("objectGUID"), m.slot("objectSid"), m.slot("name")
	m.counts = m.newCounts(withPosture)
	if kind == User || kind == ServiceAccount {
		m.recheck = recheckSlots{m.slot("msDS-User-Account-Control-Computed"), m.slot("msDS-UserPasswordExpiryTimeComputed"), m.slot("lockoutTime")}
	}
	if kind == User || kind == ServiceAccount || kind == Group {
		m.created = m.slot("whenCreated")
	}
	if withPosture && (kind == User || kind == ServiceAccount || kind == Group) {
		m.adminCount = m.slot("adminCount")
	}
	if withPosture && (kind == User || kind == ServiceAccount) {
		m.primaryGroup = m.slot("primaryGroupID")
	}
	return m
}

// UseGraph sets the graph of memberships.
func (m *Mapper) UseGraph(graph *membership.Graph) {
	m.graph, m.partial = graph, false
	if m.kind != Role {
		return
	}
	m.roleMembers = map[membership.Node]membership.RoleMembers{}
	for _, role := range graph.RoleMembers() {
		m.roleMembers[role.Group] = role
	}
}

// UsePartialGraph sets a graph that lacks memberships. Targets that depend on memberships
// are left out, because an incomplete list would be taken for a complete one.
func (m *Mapper) UsePartialGraph(graph *membership.Graph) {
	m.UseGraph(graph)
	m.partial = true
}

// UseControllers sets the host names of the domain controllers; nil: unknown. They are those of users
// and service accounts to whose services these may delegate.
func (m *Mapper) UseControllers(hosts *ControllerHosts) { m.controllers = hosts }

// GUID returns the GUID of an entry's asset. It works for entries that Map rejects, too.
func (m *Mapper) GUID(entry *ad.Entry) (ad.GUID, bool) {
	guid, ok := ad.ParseGUID(entry.First(m.guid))
	if ok && m.kind == Role {
		guid = RoleGUID(guid)
	}
	return guid, ok
}

// SID returns an entry's objectSid, which shares memory with the entry. It works for entries that
// Map rejects, too.
func (m *Mapper) SID(entry *ad.Entry) (ad.SID, bool) { return ad.ParseSID(entry.First(m.sid)) }

// Map maps one entry. It returns ErrNoIdentity or ErrUnreadable, or an error that is both, if it
// cannot. now is the clock of the server that returned it, and determines the
// status and RecheckAt. known are the account's logons from other sources. The JSON is written to buf. The JSON, SID, name and time of creation
// share memory with buf and the entry. The encoder stops when the JSON exceeds MaxAssetBytes.
func (m *Mapper) Map(buf []byte, entry *ad.Entry, now time.Time, known Logons) (Asset, error) {
	complete := m.counts.count(entry) || !m.DomainController
	guid, ok := ad.ParseGUID(entry.First(m.guid))
	sid, ok2 := ad.ParseSID(entry.First(m.sid))
	switch {
	case (!ok || !ok2) && !complete:
		return Asset{}, errUnreadableIdentity
	case !ok || !ok2:
		return Asset{}, ErrNoIdentity
	case !complete:
		return Asset{}, ErrUnreadable
	}
	m.source = source{
		entry: entry, attributes: m.Attributes, now: now, logons: known, latestLogon: m.LatestLogon, activity: m.source.activity[:0], values: m.source.values,
		descriptor: m.source.descriptor, mentions: m.source.mentions[:0], mentionedSIDs: m.source.mentionedSIDs[:0],
		descriptors: m.descriptors, domains: m.domains,
	}
	if m.ExtendedDN {
		m.prepare(guid, sid)
	}
	if m.kind == User || m.kind == ServiceAccount {
		m.addRecheck()
	}
	if m.kind == Role {
		guid = RoleGUID(guid)
	}
	asset := Asset{Kind: m.kind, GUID: guid, SID: sid, Name: entry.First(m.name)}
	if m.created >= 0 {
		asset.Created = entry.First(m.created) // parsed only for the few objects that are new
	}
	json, _ := m.root.append(append(buf[:0], `{"asset":`...), &m.source)
	if json = append(json, '}'); len(json) > MaxAssetBytes || m.overflow {
		asset.TooLarge = true
		asset.Name = storedName(asset.Name) // the name may be the cause
		asset.Fingerprint = m.entryFingerprint(entry)
	} else {
		asset.JSON, asset.Fingerprint = json, m.fingerprint(json)
	}
	asset.RecheckAt, asset.Unparsed, asset.Pending = m.source.recheckAt, m.source.unparsed, m.source.pending
	asset.Logons, asset.ReplicatedLogon = m.source.logons, m.source.replicatedLogon
	m.source.releaseValues()
	return asset, nil
}

// prepare adds the sources of the posture.
func (m *Mapper) prepare(guid ad.GUID, sid ad.SID) {
	src := &m.source
	src.kind, src.collected, src.controllers = m.kind, m.collected, m.controllers
	if m.findMemberships(guid, sid); src.graph != nil {
		src.roleMembers = m.roleMembers[src.node]
		src.partial = m.partial
	}
	for _, named := range m.collectedMentions {
		src.mention(named.sid, named.name, named.kind)
	}
}

// findMemberships sets the object of the current entry in the graph, and its primary group.
func (m *Mapper) findMemberships(guid ad.GUID, sid ad.SID) {
	src := &m.source
	src.guid, src.sid, src.hasPrimary = guid, sid, false
	if src.graph = m.graph; src.graph == nil {
		return
	}
	src.node, src.inGraph = src.graph.Find(guid)
	if m.primaryGroup < 0 {
		return
	}
	if rid, ok := primaryRID(src, m.primaryGroup); ok {
		src.primary[0], src.hasPrimary = src.graph.PrimaryGroup(sid, rid)
	}
}

// fingerprint hashes the JSON without the activity values, then these.
func (m *Mapper) fingerprint(json []byte) (f Fingerprint) {
	m.hash.Reset()
	offset := 0
	for _, s := range m.source.activity {
		m.hash.Write(json[offset:s.start])
		offset = s.end
	}
	m.hash.Write(json[offset:])
	copy(f[:8], m.hash.Sum(m.sum[:0]))
	m.hash.Reset()
	for _, s := range m.source.activity {
		m.hash.Write(json[s.start:s.end])
	}
	copy(f[8:], m.hash.Sum(m.sum[:0]))
	return f
}

// entryFingerprint hashes the values of an entry whose asset is too large to encode, with the
// activity values in the second half as in fingerprint. The order of an attribute's values
// does not matter. Of secrets, it hashes only the number of values.
func (m *Mapper) entryFingerprint(entry *ad.Entry) (f Fingerprint) {
	for part, ofActivity := range []bool{false, true} {
		m.hash.Reset()
		for slot, attribute := range m.Attributes {
			if slices.Contains(activity, attribute) != ofActivity {
				continue
			}
			m.writeNumbers(uint64(slot), uint64(len(entry.Values[slot])))
			if slices.Contains(secrets, attribute) {
				continue
			}
			values := append(m.source.values[:0], entry.Values[slot]...)
			slices.SortFunc(values, bytes.Compare)
			for _, v := range values {
				m.writeNumbers(uint64(len(v)))
				m.hash.Write(v)
			}
		}
		copy(f[8*part:8*part+8], m.hash.Sum(m.sum[:0]))
	}
	return f
}

// writeNumbers adds numbers to the hash.
func (m *Mapper) writeNumbers(numbers ...uint64) {
	for _, n := range numbers {
		m.hash.Write(binary.BigEndian.AppendUint64(m.sum[:0], n))
	}
}

// DeletedAsset returns the asset that reports an object's deletion. Its JSON is written to
// buf.
func (o Object) DeletedAsset(buf []byte) Asset {
	class, id := assetClass[o.Kind], ExternalID(o.Kind, o.SID)
	json := append(buf[:0], `{"asset":{"assetHeader":{"externalAssetId":"`...)
	json = append(append(json, id...), `","vendorAssetId":"`...)
	json = append(o.GUID.AppendText(json), `"},"assetDetail":{`...)
	if o.Name != "" {
		json = append(appendString(append(json, `"name":`...), []byte(o.Name)), ',')
	}
	json = append(append(append(json, '"'), class...), `":{"id":"`...)
	json = append(append(json, id...), `",`...)
	if o.Name != "" {
		json = append(appendString(append(json, `"name":`...), []byte(o.Name)), ',')
	}
	json = append(json, `"status":"`+statusDeleted+`"}}}}`...)
	return Asset{Kind: o.Kind, GUID: o.GUID, SID: o.SID, Name: []byte(o.Name), JSON: json, Deleted: true, FormerSID: o.FormerSID, Logons: o.Logons}
}

// SourceAttributes returns the attributes of the maps of users, groups, service accounts and
// roles, sorted and without duplicates: those of identities, or with posture also those of
// security posture.
func SourceAttributes(withPosture bool) (attributes []string) {
	newMapper, kinds := NewMapper, []Kind{User, Group}
	if withPosture {
		newMapper, kinds = NewPostureMapper, []Kind{User, Group, ServiceAccount, Role}
	}
	for _, kind := range kinds {
		attributes = append(attributes, newMapper(kind).Attributes...)
	}
	slices.Sort(attributes)
	return slices.Compact(attributes)
}
