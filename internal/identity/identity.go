// Package identity turns a directory entry into the asset that the gateway takes:
// the fixed transformation map of the connector, and nothing else.
//
// It guarantees that equal entries give equal bytes, so that the fingerprint of
// an asset changes exactly when something that is sent changes. It is pure: no
// I/O and no clock but the one it is given.
package identity

import (
	"crypto/sha256"
	"errors"
	"hash"
	"time"

	"adconnector/internal/ad"
)

// Kind is what an object is to the inventory.
type Kind byte

const (
	User Kind = iota + 1
	Group
)

func (k Kind) String() string {
	switch k {
	case User:
		return "user"
	case Group:
		return "group"
	default:
		return "unknown"
	}
}

// Fingerprint identifies what is sent for an object: 8 bytes of the SHA-256 of its
// JSON without activity, then 8 of that of the activity.
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
	Due         time.Time // when the status changes by the clock alone; zero: it does not
	Deleted     bool
	Unparsed    int // values that were there and could not be read; their targets are left out
}

// ErrNoIdentity is returned for an entry without a readable objectSid or objectGUID.
var ErrNoIdentity = errors.New("no identity: objectSid or objectGUID is missing or malformed")

// Mapper maps entries of one kind. Its search must ask for Attributes, in that
// order. It serves one goroutine.
type Mapper struct {
	Attributes      []string // the source attributes, each once
	kind            Kind
	root            node
	guid, sid, name int // slots
	passwordExpires int // slot; of users
	hash            hash.Hash
	sum             [sha256.Size]byte
	source          source // of the entry at hand, kept here so that mapping allocates nothing
}

// NewMapper returns the map for a kind of object.
func NewMapper(kind Kind) *Mapper {
	m := &Mapper{kind: kind, hash: sha256.New()}
	for _, row := range transformation[kind] {
		m.add(row)
	}
	m.guid, m.sid, m.name = m.slot("objectGUID"), m.slot("objectSid"), m.slot("name")
	if kind == User {
		m.passwordExpires = m.slot("msDS-UserPasswordExpiryTimeComputed")
	}
	return m
}

// GUID reads an entry's objectGUID, which may be there where the rest is not.
func (m *Mapper) GUID(entry *ad.Entry) (ad.GUID, bool) { return ad.ParseGUID(entry.First(m.guid)) }

// Map maps one entry, as of now. The asset's JSON is written over buf and, like
// its SID and name, is valid only as long as buf and the entry are.
func (m *Mapper) Map(buf []byte, entry *ad.Entry, now time.Time) (Asset, error) {
	guid, ok := m.GUID(entry)
	sid, ok2 := ad.ParseSID(entry.First(m.sid))
	if !ok || !ok2 {
		return Asset{}, ErrNoIdentity
	}
	m.source = source{entry: entry, now: now, activity: m.source.activity[:0]}
	if m.kind == User {
		if expires, ok := readFileTime(&m.source, m.passwordExpires); ok && !expires.IsNone() {
			m.source.changesAt(expires.Time())
		}
	}
	json, _ := m.root.append(append(buf[:0], `{"asset":`...), &m.source)
	json = append(json, '}')
	return Asset{
		Kind: m.kind, GUID: guid, SID: sid, Name: entry.First(m.name), JSON: json,
		Fingerprint: m.fingerprint(json), Due: m.source.due, Unparsed: m.source.unparsed,
	}, nil
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

// Deleted is the asset of an object that has gone, made of what is still known of
// it. Its JSON is written over buf.
func Deleted(buf []byte, kind Kind, guid ad.GUID, sid ad.SID, name string) Asset {
	class := map[Kind]string{User: "userAssetClass", Group: "groupAssetClass"}[kind]
	json := append(buf[:0], `{"asset":{"assetHeader":{"externalAssetId":"`...)
	json = append(sid.AppendText(json), `","vendorAssetId":"`...)
	json = append(guid.AppendText(json), `"},"assetDetail":{`...)
	if name != "" {
		json = append(appendString(append(json, `"name":`...), []byte(name)), ',')
	}
	json = append(append(append(json, '"'), class...), `":{"id":"`...)
	json = append(sid.AppendText(json), `",`...)
	if name != "" {
		json = append(appendString(append(json, `"name":`...), []byte(name)), ',')
	}
	json = append(json, `"status":"`+statusDeleted+`"}}}}`...)
	return Asset{Kind: kind, GUID: guid, SID: sid, Name: []byte(name), JSON: json, Deleted: true}
}
