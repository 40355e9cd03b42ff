package state

import (
	"encoding/binary"
	"sort"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// View is what a run reads: the values of one domain controller, in one scope and mapping.
type View struct {
	// InvocationID identifies the domain controller. It is zero for a server that is not one.
	InvocationID ad.InvocationID `json:"invocation_id"`
	// Rollbacks is how often the domain controller was put back to an earlier state under the
	// same invocation ID. After each, it counts as another domain controller.
	Rollbacks int    `json:"rollbacks,omitempty"`
	Unknown   bool   `json:"unknown,omitempty"` // a domain controller whose invocation ID is unreadable
	Scope     string `json:"scope"`             // identifies what is read and how it is mapped
}

// views are the views of the runs: views[i] applies from run views[i].first to the run before
// views[i+1].first.
type views []struct {
	first uint64
	View
}

// of returns the view of a run. known is false for a run whose view is not recorded any more.
func (v views) of(run uint64) (view View, known bool) {
	after := sort.Search(len(v), func(i int) bool { return v[i].first > run })
	if after == 0 {
		return View{}, false
	}
	return v[after-1].View, true
}

// isOther reports whether a run had another view than the given one, as far as it is known.
func (v views) isOther(run uint64, view View) bool {
	recorded, known := v.of(run)
	return !known || recorded != view
}

// changedSince reports whether any run after the given one had another view.
func (v views) changedSince(run uint64, view View) bool {
	for i := range v {
		if v[i].View != view && (i+1 == len(v) || v[i+1].first > run+1) {
			return true
		}
	}
	return false
}

func readViews(tx *bbolt.Tx) (v views, err error) {
	err = forEach(tx, bucketViews, func(key, value []byte) error {
		v = append(v, struct {
			first uint64
			View
		}{first: binary.BigEndian.Uint64(key)})
		return decodeJSON(value, &v[len(v)-1].View)
	})
	return v, err
}

// putView records the view of a run, unless it is the view of the run before.
func putView(c change, run uint64, view View) error {
	recorded, err := readViews(c.Tx)
	if err != nil || len(recorded) > 0 && recorded[len(recorded)-1].View == view {
		return err
	}
	return c.putJSON(bucketViews, binary.BigEndian.AppendUint64(nil, run), view)
}

// pruneViews deletes the views that apply only to runs before the given one.
func pruneViews(c change, run uint64) error {
	recorded, err := readViews(c.Tx)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(recorded) && recorded[i+1].first <= run; i++ {
		if err := c.delete(bucketViews, binary.BigEndian.AppendUint64(nil, recorded[i].first)); err != nil {
			return err
		}
	}
	return nil
}

// DeliveredSince returns the objects that runs after the given one delivered, or reported as
// deleted, under another view. These values may differ from those of the view, although
// nothing changed there.
func (s *Store) DeliveredSince(run uint64, view View) (guids []ad.GUID, err error) {
	err = s.viewIndex("read index", func(index indexView) error {
		recorded, err := readViews(index.Tx)
		if err != nil || !recorded.changedSince(run, view) {
			return err
		}
		isOther := func(deliveredBy uint64) bool { return deliveredBy > run && recorded.isOther(deliveredBy, view) }
		err = forEach(index.Tx, bucketDeleted, func(key, value []byte) error {
			if isOther(binary.BigEndian.Uint64(value)) {
				guids = append(guids, ad.GUID(key))
			}
			return nil
		})
		if err != nil {
			return err
		}
		return index.forEach(func(key, record []byte) error {
			if isRecord(record) && isOther(batchOf(record).run()) {
				guids = append(guids, ad.GUID(key))
			}
			return nil
		})
	})
	return guids, err
}

// deletionLife is how long reported deletions are remembered: as long as a watermark is valid
// that may be older than the deletion.
const deletionLife = 30 * 24 * time.Hour

// putDeletion records that a run reported an object as deleted: the run and the time.
func putDeletion(c change, guid ad.GUID, run uint64, now time.Time) error {
	value := binary.BigEndian.AppendUint64(nil, run)
	return c.put(bucketDeleted, guid[:], binary.BigEndian.AppendUint64(value, uint64(now.Unix())))
}

// pruneDeletions forgets deletions that no watermark can precede.
func pruneDeletions(c change, now time.Time) error {
	var old [][]byte
	err := c.Bucket(bucketDeleted).ForEach(func(key, value []byte) error {
		if now.Sub(time.Unix(int64(binary.BigEndian.Uint64(value[8:])), 0)) > deletionLife {
			old = append(old, append([]byte{}, key...))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range old {
		if err := c.delete(bucketDeleted, key); err != nil {
			return err
		}
	}
	return nil
}
