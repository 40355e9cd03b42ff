// Package identity turns a directory entry into the asset that the gateway takes:
// the fixed transformation map of the connector, and nothing else.
//
// It guarantees that equal entries give equal bytes, so that the fingerprint of
// an asset changes exactly when something that is sent changes, and that a value
// which cannot be read is counted and left out. It is pure: no I/O and no clock but
// the one it is given. It does not decide who is in scope, nor whether an asset is sent.
package identity

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"hash"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// Kind is what an object is to the inventory.
type Kind byte

// The kinds. Their numbers are written down with what was sent.
const (
	User Kind = iota + 1
	Group
	Role           // a well-known group, for what its members may do
	ServiceAccount // a user whose password the domain manages
	Domain
)

// The classes of the inventory.
var classOf = map[Kind]string{
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

// IsPosture reports whether there are such objects only with security posture.
func (k Kind) IsPosture() bool { return k > Group }

// roleSuffix tells a role from the group that it is, which has its SID.
const roleSuffix = ":role"

// ExternalID is the externalAssetId of an object.
func ExternalID(kind Kind, id ad.SID) string {
	if kind == Role {
		return id.String() + roleSuffix
	}
	return id.String()
}

// roleNamespace makes UUIDs of version 5 ours (RFC 9562 5.5).
var roleNamespace = [16]byte{0x6f, 0x1c, 0x2d, 0x5e, 0x0b, 0x7a, 0x4c, 0x3d, 0x9a, 0x44, 0x8e, 0x52, 0x17, 0xc3, 0xd0, 0x96}

// RoleGUID identifies the role that a group is, for as long as the group lives.
func RoleGUID(group ad.GUID) ad.GUID {
	sum := sha1.Sum(append(roleNamespace[:], group[:]...))
	sum[6] = sum[6]&0x0f | 0x50
	sum[8] = sum[8]&0x3f | 0x80
	// A GUID travels with its first three fields little-endian.
	slices.Reverse(sum[:4])
	slices.Reverse(sum[4:6])
	slices.Reverse(sum[6:8])
	return ad.GUID(sum[:16])
}

// Fingerprint identifies what is sent for an object: 8 bytes of the SHA-256 of its
// JSON without activity, then 8 of that of the activity. The zero value is nobody's.
type Fingerprint [16]byte

// SameButActivity reports whether two fingerprints differ in activity at most.
func (f Fingerprint) SameButActivity(other Fingerprint) bool {
	return [8]byte(f[:8]) == [8]byte(other[:8])
}

// Asset is one mapped entry.
type Asset struct {
	Kind        Kind
	GUID        ad.GUID
	SID         ad.SID
	Name        []byte
	JSON        []byte // {"asset":{…}}
	Fingerprint Fingerprint
	RecheckAt   time.Time // when the status changes by the clock alone; zero: it does not
	Deleted     bool
	Unparsed    int // values that were there and could not be read; their targets are left out
}

// Object is what is kept of an asset once its bytes have been sent: enough to tell a
// change, and to say who it was when it is gone.
type Object struct {
	Kind        Kind
	GUID        ad.GUID
	SID         ad.SID
	Name        string
	Fingerprint Fingerprint // zero: none, whatever was sent
	RecheckAt   time.Time
	Deleted     bool
}

// Object is a copy that outlives the asset's bytes.
func (a Asset) Object() Object {
	return Object{
		Kind: a.Kind, GUID: a.GUID, SID: slices.Clone(a.SID), Name: string(a.Name),
		Fingerprint: a.Fingerprint, RecheckAt: a.RecheckAt, Deleted: a.Deleted,
	}
}

// errNoIdentity is returned for an entry without a readable objectSid or objectGUID.
var errNoIdentity = errors.New("no identity: objectSid or objectGUID is missing or malformed")

// Mapper maps entries of one kind. Its search must ask for Attributes, in that
// order, and for extended DNs where ExtendedDN says so. It serves one goroutine.
type Mapper struct {
	Attributes      []string // the source attributes, each once
	ExtendedDN      bool     // with security posture
	kind            Kind
	root            node
	guid, sid, name int // slots
	passwordExpires int // slot; of users
	hash            hash.Hash
	sum             [sha256.Size]byte
	source          source // of the entry at hand, kept here so that mapping allocates nothing

	graph     *membership.Graph
	partial   bool
	held      map[membership.Node]membership.Holders
	collected map[string]collection
}

// NewMapper returns the map for a kind of object.
func NewMapper(kind Kind) *Mapper { return newMapper(kind, transformation[kind]) }

// NewPostureMapper returns the map for a kind of object with its security posture.
// It needs to be told of a graph before it maps.
func NewPostureMapper(kind Kind) *Mapper {
	rows := slices.Concat(transformation[kind], posture[kind])
	if kind == ServiceAccount {
		rows = slices.Concat(transformation[User], posture[User], posture[ServiceAccount])
	}
	m := newMapper(kind, rows)
	m.ExtendedDN = true
	return m
}

func newMapper(kind Kind, rows []row) *Mapper {
	m := &Mapper{kind: kind, hash: sha256.New()}
	for _, row := range rows {
		m.add(row)
	}
	m.guid, m.sid, m.name = m.slot("objectGUID"), m.slot("objectSid"), m.slot("name")
	if kind == User || kind == ServiceAccount {
		m.passwordExpires = m.slot("msDS-UserPasswordExpiryTimeComputed")
	}
	return m
}

// Use tells of the graph from which memberships are taken.
func (m *Mapper) Use(graph *membership.Graph) {
	m.graph, m.partial = graph, false
	if m.kind != Role {
		return
	}
	m.held = map[membership.Node]membership.Holders{}
	for _, h := range graph.Holders() {
		m.held[h.Group] = h
	}
}

// UsePart is Use of a graph that does not know all memberships: nothing is said of
// them, since what is known of them would pass for all.
func (m *Mapper) UsePart(graph *membership.Graph) {
	m.Use(graph)
	m.partial = true
}

// GUID reads an entry's objectGUID, which may be there where the rest is not.
func (m *Mapper) GUID(entry *ad.Entry) (ad.GUID, bool) { return ad.ParseGUID(entry.First(m.guid)) }

// Map maps one entry, as of now. The asset's JSON is written over buf and, like
// its SID and name, is valid only as long as buf and the entry are.
func (m *Mapper) Map(buf []byte, entry *ad.Entry, now time.Time) (Asset, error) {
	guid, ok := m.GUID(entry)
	sid, ok2 := ad.ParseSID(entry.First(m.sid))
	if !ok || !ok2 {
		return Asset{}, errNoIdentity
	}
	m.source = source{entry: entry, now: now, activity: m.source.activity[:0], values: m.source.values}
	if m.ExtendedDN {
		m.prepare(guid, sid)
	}
	if m.kind == User || m.kind == ServiceAccount {
		if expires, ok := read(&m.source, m.passwordExpires, ad.ParseFileTime); ok && !expires.IsNone() {
			m.source.changesAt(expires.Time())
		}
	}
	if m.kind == Role {
		guid = RoleGUID(guid)
	}
	json, _ := m.root.append(append(buf[:0], `{"asset":`...), &m.source)
	json = append(json, '}')
	return Asset{
		Kind: m.kind, GUID: guid, SID: sid, Name: entry.First(m.name), JSON: json,
		Fingerprint: m.fingerprint(json), RecheckAt: m.source.due, Unparsed: m.source.unparsed,
	}, nil
}

// prepare adds what the posture is made from.
func (m *Mapper) prepare(guid ad.GUID, sid ad.SID) {
	src := &m.source
	src.guid, src.sid, src.collected = guid, sid, m.collected
	if src.graph = m.graph; src.graph != nil {
		src.node, src.inGraph = src.graph.Find(guid)
		src.held = m.held[src.node]
		src.partial = m.partial
	}
}

// fingerprint hashes the JSON around the activity, then the activity.
func (m *Mapper) fingerprint(json []byte) (f Fingerprint) {
	m.hash.Reset()
	from := 0
	for _, s := range m.source.activity {
		m.hash.Write(json[from:s.from])
		from = s.to
	}
	m.hash.Write(json[from:])
	copy(f[:8], m.hash.Sum(m.sum[:0]))
	m.hash.Reset()
	for _, s := range m.source.activity {
		m.hash.Write(json[s.from:s.to])
	}
	copy(f[8:], m.hash.Sum(m.sum[:0]))
	return f
}

// AsDeleted is the asset of an object that has gone, made of what is still known of
// it. Its JSON is written over buf.
func (o Object) AsDeleted(buf []byte) Asset {
	class, id := classOf[o.Kind], ExternalID(o.Kind, o.SID)
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
	return Asset{Kind: o.Kind, GUID: o.GUID, SID: o.SID, Name: []byte(o.Name), JSON: json, Deleted: true}
}
