package state

import (
	"encoding/binary"
	"errors"
	"iter"
	"slices"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// Delta syncs use the stored membership graph: comparing it with the new one yields the
// objects that a change of a group affects. Package membership defines the format of
// the records.
//
// A delta sync updates the graph before the affected objects are sent, in one transaction that
// records them as stale. They stay stale, and are read again, until a run has sent
// everything. If a run fails, the gateway may have received values of either graph. The
// next run then also sends objects whose memberships have changed back.
//
// A full sync records all objects as stale before it sends the first one, and may update the graph
// later: if it fails, the next run is a full sync again, which compares every object with what was
// sent, whatever the graph was.
var (
	bucketGraphObjects = []byte("graph objects") // node → object
	bucketGraphGroups  = []byte("graph groups")  // node → group with its members
	bucketStale        = []byte("again")         // GUID of a stale object

	keyGraph = []byte("graph")
)

// GraphSource is the base DN and the domain controller from which the graph was read.
type GraphSource struct {
	Base         string          `json:"base"`
	InvocationID ad.InvocationID `json:"invocation_id"`
}

// graphState is the stored state of the graph.
type graphState struct {
	GraphSource
	AllStale   bool `json:"again_all,omitempty"`
	Incomplete bool `json:"incomplete,omitempty"` // the graph is missing, or was not written completely
}

// GraphChange is an update of the stored graph.
type GraphChange struct {
	Source          GraphSource
	Replace         bool                        // delete the stored graph first
	Objects, Groups iter.Seq[membership.Record] // a nil value deletes the record; nil: none
	Stale           []ad.GUID                   // objects that become stale
	AllStale        bool                        // all objects become stale
}

// ReadGraph passes the stored graph to the callbacks, objects before groups. A value is
// valid only during the call. found is false if there is no graph.
func (s *Store) ReadGraph(object, group func(node uint32, value []byte) error) (source GraphSource, found bool, err error) {
	err = s.view("read memberships", func(tx *bbolt.Tx) error {
		var graph graphState
		if err := getJSON(tx.Bucket(bucketMeta), keyGraph, &graph); err != nil {
			return err
		}
		source, found = graph.GraphSource, tx.Bucket(bucketMeta).Get(keyGraph) != nil && !graph.Incomplete
		if !found {
			return nil
		}
		for _, part := range []struct {
			bucket   []byte
			callback func(uint32, []byte) error
		}{{bucketGraphObjects, object}, {bucketGraphGroups, group}} {
			bucket := tx.Bucket(part.bucket)
			if bucket == nil { // file of an earlier program, opened read-only
				continue
			}
			err := bucket.ForEach(func(key, value []byte) error {
				return part.callback(binary.BigEndian.Uint32(key), value)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return source, found, err
}

// MarkAllStale records that all objects are stale.
func (s *Store) MarkAllStale() error {
	return s.update("record stale objects", func(c change) error {
		var graph graphState
		if err := getJSON(c.Bucket(bucketMeta), keyGraph, &graph); err != nil || graph.AllStale {
			return err
		}
		graph.AllStale, graph.Incomplete = true, graph.Incomplete || c.Bucket(bucketMeta).Get(keyGraph) == nil
		return c.putJSON(bucketMeta, keyGraph, graph)
	})
}

// UpdateGraph records a change of the graph and the stale objects in one transaction. It replaces a
// graph in several, because one would take the memory of the graph once more. Until the last one,
// the graph counts as missing.
func (s *Store) UpdateGraph(g GraphChange) error {
	if g.Replace {
		if err := s.replaceGraph(g); err != nil {
			return err
		}
		g.Objects, g.Groups = nil, nil
	}
	return s.update("record memberships", func(c change) error {
		err := errors.Join(writeGraphRecords(c, bucketGraphObjects, g.Objects, false), writeGraphRecords(c, bucketGraphGroups, g.Groups, false))
		if err != nil {
			return err
		}
		for _, guid := range g.Stale {
			if err := c.put(bucketStale, guid[:], nil); err != nil {
				return err
			}
		}
		var stored graphState
		if err := getJSON(c.Bucket(bucketMeta), keyGraph, &stored); err != nil {
			return err
		}
		return c.putJSON(bucketMeta, keyGraph, graphState{GraphSource: g.Source, AllStale: stored.AllStale || g.AllStale})
	})
}

// dropGraph deletes the stored graph, which has the names of all accounts and groups of the domain.
func dropGraph(c change) error {
	if c.Bucket(bucketMeta).Get(keyGraph) == nil {
		return nil
	}
	return errors.Join(c.empty(bucketGraphObjects), c.empty(bucketGraphGroups), c.empty(bucketStale), c.delete(bucketMeta, keyGraph))
}

// graphChunk is the size in bytes of the records that replaceGraph writes in one transaction.
const graphChunk = 512 << 10

// replaceGraph deletes the stored graph and writes the records of a new one, which is incomplete.
func (s *Store) replaceGraph(g GraphChange) error {
	const operation = "record memberships"
	err := s.update(operation, func(c change) error {
		var stored graphState
		if err := getJSON(c.Bucket(bucketMeta), keyGraph, &stored); err != nil {
			return err
		}
		return errors.Join(c.empty(bucketGraphObjects), c.empty(bucketGraphGroups),
			c.putJSON(bucketMeta, keyGraph, graphState{AllStale: stored.AllStale || g.AllStale, Incomplete: true}))
	})
	if err != nil {
		return err
	}
	for _, part := range []struct {
		bucket  []byte
		records iter.Seq[membership.Record]
	}{{bucketGraphObjects, g.Objects}, {bucketGraphGroups, g.Groups}} {
		for chunk := range chunks(part.records, graphChunk) {
			write := func(c change) error { return writeGraphRecords(c, part.bucket, slices.Values(chunk), true) }
			if err := s.update(operation, write); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunks returns the records in chunks of a size in bytes. A chunk is valid until the next one.
func chunks(records iter.Seq[membership.Record], size int) iter.Seq[[]membership.Record] {
	return func(yield func([]membership.Record) bool) {
		if records == nil {
			return
		}
		var chunk []membership.Record
		bytes := 0
		for record := range records {
			chunk = append(chunk, record)
			if bytes += len(record.Value); bytes < size {
				continue
			}
			if !yield(chunk) {
				return
			}
			clear(chunk)
			chunk, bytes = chunk[:0], 0
		}
		if len(chunk) > 0 {
			yield(chunk)
		}
	}
}

// writeGraphRecords writes records to a bucket. allNew means that the bucket has none of them.
func writeGraphRecords(c change, bucket []byte, records iter.Seq[membership.Record], allNew bool) error {
	if records == nil {
		return nil
	}
	writer := &bucketWriter{change: c, name: bucket, Bucket: c.Bucket(bucket)}
	defer writer.close()
	writer.FillPercent = 0.9 // node numbers are mostly appended
	for record := range records {
		key := binary.BigEndian.AppendUint32(nil, record.Node)
		var before []byte
		if !allNew {
			before = writer.Get(key)
		}
		if err := writer.write(key, before, record.Value); err != nil {
			return err
		}
	}
	return nil
}

// StaleObjects returns the stale objects. If all is true, all objects are stale.
func (s *Store) StaleObjects() (guids []ad.GUID, all bool, err error) {
	err = s.view("read stale objects", func(tx *bbolt.Tx) error {
		var graph graphState
		if err := getJSON(tx.Bucket(bucketMeta), keyGraph, &graph); err != nil {
			return err
		}
		all = graph.AllStale
		stale := tx.Bucket(bucketStale)
		if stale == nil {
			return nil
		}
		return stale.ForEach(func(key, _ []byte) error {
			guids = append(guids, ad.GUID(key))
			return nil
		})
	})
	return guids, all, err
}

// clearStale marks all objects as not stale.
func clearStale(c change) error {
	if err := c.empty(bucketStale); err != nil {
		return err
	}
	var graph graphState
	if err := getJSON(c.Bucket(bucketMeta), keyGraph, &graph); err != nil || !graph.AllStale {
		return err
	}
	graph.AllStale = false
	return c.putJSON(bucketMeta, keyGraph, graph)
}
