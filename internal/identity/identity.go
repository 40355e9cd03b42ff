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

// Fingerprint identifies what is sent for an object: the first half of the
// SHA-256 of its JSON.
type Fingerprint [16]byte

// Asset is one mapped entry.
type Asset struct {
	Kind        Kind
	GUID        ad.GUID
	SID         ad.SID
	Name        []byte
	JSON        []byte // {"asset":{…}}
	Fingerprint Fingerprint
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
	guid, sid, name int    // slots
	source          source // of the entry at hand, kept here so that mapping allocates nothing
}

// NewMapper returns the map for a kind of object.
func NewMapper(kind Kind) *Mapper {
	m := &Mapper{kind: kind}
	for _, row := range transformation[kind] {
		m.add(row)
	}
	m.guid, m.sid, m.name = m.slot("objectGUID"), m.slot("objectSid"), m.slot("name")
	return m
}

// Map maps one entry, as of now. The asset's JSON is written over buf and, like
// its SID and name, is valid only as long as buf and the entry are.
func (m *Mapper) Map(buf []byte, entry *ad.Entry, now time.Time) (Asset, error) {
	guid, ok := ad.ParseGUID(entry.First(m.guid))
	sid, ok2 := ad.ParseSID(entry.First(m.sid))
	if !ok || !ok2 {
		return Asset{}, ErrNoIdentity
	}
	m.source = source{entry: entry, now: now}
	json, _ := m.root.append(append(buf[:0], `{"asset":`...), &m.source)
	json = append(json, '}')
	sum := sha256.Sum256(json)
	return Asset{
		Kind: m.kind, GUID: guid, SID: sid, Name: entry.First(m.name), JSON: json,
		Fingerprint: Fingerprint(sum[:16]), Unparsed: m.source.unparsed,
	}, nil
}
