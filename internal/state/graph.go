package state

import (
	"encoding/binary"
	"slices"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// The graph of memberships is kept for deltas: what a group's change changes
// elsewhere is found by comparing it with what was known before. Its records are in
// the form of their own room.
//
// It moves before the objects that a change affects are delivered, and those are
// written down with it, whole or not at all: they are read again until a run has
// delivered everything. So whatever the gateway was sent in a run that failed, an
// object whose memberships have changed since the last good run is among them, even
// when they have changed back.
var (
	bucketGraphObjects = []byte("graph objects") // number → object
	bucketGraphGroups  = []byte("graph groups")  // number → group with its members
	bucketAgain        = []byte("again")         // GUID of an object that is to be read again

	// A file that has seen no security posture may be without these.
	graphBuckets = [][]byte{bucketGraphObjects, bucketGraphGroups, bucketAgain}

	keyGraph = []byte("graph")
)

func isGraph(bucket []byte) bool {
	return slices.ContainsFunc(graphBuckets, func(name []byte) bool { return string(name) == string(bucket) })
}

// GraphSource is what the graph was read from.
type GraphSource struct {
	Base         string          `json:"base"`
	InvocationID ad.InvocationID `json:"invocation_id"`
}

// graphState is what is kept about the graph.
type graphState struct {
	GraphSource
	AgainAll bool `json:"again_all,omitempty"`
}

// GraphChange makes the kept graph another one.
type GraphChange struct {
	Source          GraphSource
	Replace         bool // nothing of the kept one holds good
	Objects, Groups []membership.Record
	Stale           []ad.GUID // to be read again, besides those that were before
	AllStale        bool      // everything is to be read again
}

// ReadGraph gives the kept graph to the callbacks, objects before groups. Values are
// valid during the call. It reports false when there is none.
func (s *Store) ReadGraph(object, group func(node uint32, value []byte) error) (source GraphSource, there bool, err error) {
	err = s.view("read memberships", func(tx *bbolt.Tx) error {
		var kept graphState
		if err := get(tx.Bucket(bucketMeta), keyGraph, &kept); err != nil {
			return err
		}
		source, there = kept.GraphSource, tx.Bucket(bucketMeta).Get(keyGraph) != nil
		for _, part := range []struct {
			bucket []byte
			each   func(uint32, []byte) error
		}{{bucketGraphObjects, object}, {bucketGraphGroups, group}} {
			bucket := tx.Bucket(part.bucket)
			if bucket == nil { // a file of an earlier program, opened to look at it
				continue
			}
			err := bucket.ForEach(func(key, value []byte) error {
				return part.each(binary.BigEndian.Uint32(key), value)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return source, there, err
}

// UpdateGraph records a change of the graph and what follows from it.
func (s *Store) UpdateGraph(g GraphChange) error {
	return s.update("record memberships", func(c change) error {
		for _, part := range []struct {
			bucket  []byte
			records []membership.Record
		}{{bucketGraphObjects, g.Objects}, {bucketGraphGroups, g.Groups}} {
			if g.Replace {
				if err := c.empty(part.bucket); err != nil {
					return err
				}
			}
			c.Bucket(part.bucket).FillPercent = 0.9 // numbers grow
			for _, record := range part.records {
				key := binary.BigEndian.AppendUint32(nil, record.Node)
				write := func() error { return c.put(part.bucket, key, record.Value) }
				if record.Value == nil {
					write = func() error { return c.delete(part.bucket, key) }
				}
				if err := write(); err != nil {
					return err
				}
			}
		}
		for _, guid := range g.Stale {
			if err := c.put(bucketAgain, guid[:], nil); err != nil {
				return err
			}
		}
		var kept graphState
		if err := get(c.Bucket(bucketMeta), keyGraph, &kept); err != nil {
			return err
		}
		return c.putJSON(bucketMeta, keyGraph, graphState{g.Source, kept.AgainAll || g.AllStale})
	})
}

// StaleObjects returns the objects that are to be read again, and whether that is all of them.
func (s *Store) StaleObjects() (guids []ad.GUID, all bool, err error) {
	err = s.view("read what is affected", func(tx *bbolt.Tx) error {
		var kept graphState
		if err := get(tx.Bucket(bucketMeta), keyGraph, &kept); err != nil {
			return err
		}
		all = kept.AgainAll
		again := tx.Bucket(bucketAgain)
		if again == nil {
			return nil
		}
		return again.ForEach(func(key, _ []byte) error {
			guids = append(guids, ad.GUID(key))
			return nil
		})
	})
	return guids, all, err
}

// readAgain forgets what was to be read again: it was, and delivered.
func readAgain(c change) error {
	if err := c.empty(bucketAgain); err != nil {
		return err
	}
	var kept graphState
	if err := get(c.Bucket(bucketMeta), keyGraph, &kept); err != nil || !kept.AgainAll {
		return err
	}
	kept.AgainAll = false
	return c.putJSON(bucketMeta, keyGraph, kept)
}
