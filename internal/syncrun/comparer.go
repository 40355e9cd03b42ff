package syncrun

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// comparer compares the assets of one search with the index. It is not safe for concurrent
// use.
type comparer struct {
	runInfo
	kind     identity.Kind
	snapshot Snapshot
	plan     Plan
	store    *state.Store
	budget   *objectBudget
	result   searchResult
	logons   logonSources

	// sentLogons are those that were sent and are not stored yet.
	sentLogons map[ad.GUID]identity.Logons
	// sentAgain are the objects that moved into the scope and were sent again. A restart keeps
	// them.
	sentAgain map[ad.GUID]struct{}
	// rejected are the fingerprints that the gateway rejected in this run. It is set after a
	// restart only.
	rejected map[ad.GUID][]byte
	// settled are the objects that are read again, to be sent whether or not they differ. If it is
	// not nil, others are ignored.
	settled map[ad.GUID]struct{}

	// postponed are the objects that the search has found and counted, and that are read once more
	// with their security descriptors.
	postponed []ad.GUID
	// counted is whether the objects were counted when they were postponed.
	counted bool
	// isOverlap is whether the current entry was found only because of the overlap, and overlapped are
	// the postponed objects of which this is so.
	isOverlap  bool
	overlapped map[ad.GUID]struct{}
	// kept is the result to which a restart of the search returns.
	kept searchResult
}

// postpone counts an object that is read once more. It counts as existing, even if it is gone then.
func (c *comparer) postpone(q query, entry *ad.Entry) error {
	guid, _ := q.mapper.GUID(entry)
	if q.accounts != nil { // the descriptor mentions accounts that may not have been read yet
		c.result.pending = append(c.result.pending, guid)
		q.mapper.CountReadable(entry)
		return nil
	}
	ignored, err := c.count(guid)
	if !ignored {
		c.postponed = append(c.postponed, guid)
		if c.isOverlap {
			c.overlapped[guid] = struct{}{}
		}
	}
	return err
}

// count counts an object that was read. It reports whether the object is not among those to read
// again.
func (c *comparer) count(guid ad.GUID) (ignored bool, err error) {
	if c.settled != nil {
		_, found := c.settled[guid]
		if found {
			c.result.read++
		}
		return !found, nil
	}
	c.result.read++
	c.options.Progress.addRead(c.kind, 1)
	c.trackSeen(guid)
	return false, c.budget.take()
}

// skipEntry counts an entry that cannot be mapped: as skipped without an identity, and as
// unreadable if the account lacks a right. If its GUID is known, the object counts as existing.
func (c *comparer) skipEntry(log zerolog.Logger, q query, entry *ad.Entry, err error) error {
	c.result.unmapped++
	if c.counted {
		c.result.read--
		if c.settled == nil {
			c.options.Progress.addRead(c.kind, -1)
		}
	}
	guid, hasGUID := q.guidOf(entry)
	if errors.Is(err, identity.ErrNoIdentity) {
		q.warnOnce.Do(func() {
			log.Warn().Stringer("kind", q.kind).Str("dn_hash", hashDN(entry.DN)).EmbedObject(fault.Fields(err)).Msg(MsgEntrySkipped)
		})
		c.result.skipped++
	}
	if errors.Is(err, identity.ErrUnreadable) {
		c.result.unreadable++
		if hasGUID && c.plan.Mode == delta {
			c.result.unreadableGUIDs = append(c.result.unreadableGUIDs, guid)
		}
	}
	if hasGUID {
		if !c.counted {
			c.trackSeen(guid)
		}
		if sid, ok := q.mapper.SID(entry); ok {
			c.addKey(sid, true)
		}
	} else {
		c.result.withoutGUID++
	}
	if c.counted {
		return nil
	}
	return c.budget.take()
}

// indexRecord is the stored state of an object; found is false if it was never sent.
type indexRecord struct {
	state.IndexRecord
	found bool
}

// lookup returns the stored state of an entry's object.
func (c *comparer) lookup(q query, entry *ad.Entry) (indexed indexRecord, err error) {
	guid, ok := q.mapper.GUID(entry)
	sid, ok2 := q.mapper.SID(entry)
	if !ok || !ok2 || c.options.DryRun && !c.snapshot.SameTarget {
		return indexed, nil
	}
	indexed.IndexRecord, indexed.found, err = c.store.Lookup(guid, sid)
	return indexed, err
}

// processAsset counts an asset, and adds it to the sink if it changed. It returns how long
// the sink blocked. A pending asset is only recorded.
func (c *comparer) processAsset(asset identity.Asset, indexed indexRecord, to sink) (waited time.Duration, err error) {
	if asset.Pending {
		c.result.pending = append(c.result.pending, asset.GUID)
		return 0, nil
	}
	c.result.unparsed += asset.Unparsed
	if !c.counted {
		if ignored, err := c.count(asset.GUID); ignored || err != nil {
			return 0, err
		}
	}
	asset.Logons = c.logons.toStore(asset.Logons)
	send := c.isToSend(&asset, indexed)
	if send || indexed.found && !indexed.SIDChanged {
		c.logons.table.settle(asset.GUID)
	}
	if !send {
		c.countOverlap(asset.GUID)
		return 0, c.updateRecord(asset, indexed)
	}
	c.result.changed++
	c.options.Progress.addChanged(1)
	start := time.Now()
	err = to.add(asset)
	return time.Since(start), err
}

// countOverlap counts an unchanged object as read again if it was found only because of the overlap.
func (c *comparer) countOverlap(guid ad.GUID) {
	_, postponed := c.overlapped[guid]
	if !c.isOverlap && !postponed {
		return
	}
	c.result.read--
	c.result.reread++
	c.options.Progress.addRead(c.kind, -1)
}

// trackSeen records that an object exists, if the plan needs this to find deletions.
func (c *comparer) trackSeen(guid ad.GUID) {
	if c.plan.TrackSeen {
		c.result.seen = append(c.result.seen, guid)
	}
}

// expectIndexed makes room for the objects of the index in what trackSeen records. A list that grows by
// appending takes up to twice its memory.
func (c *comparer) expectIndexed() {
	if c.plan.TrackSeen {
		c.kept.seen = make([]ad.GUID, 0, c.snapshot.IndexSize)
		c.result.seen = c.kept.seen
	}
}

// addKey adds the key of an object that exists, if the plan needs this for deletions.
func (c *comparer) addKey(sid ad.SID, maybeIndexed bool) {
	if c.plan.TrackSeen {
		c.result.keys = append(c.result.keys, liveKey{identity.Object{Kind: c.kind, SID: sid}.Key(), maybeIndexed})
	}
}

// reset prepares for a restart of the search, after everything added so far was flushed.
// Changed objects stay counted. Objects that the gateway rejected are not sent again.
func (c *comparer) reset() error {
	rejections, _, err := c.store.Rejections(-1)
	if err != nil {
		return err
	}
	c.rejected = map[ad.GUID][]byte{}
	for _, r := range rejections {
		if r.At.Equal(c.start) {
			c.rejected[r.GUID] = r.Value
		}
	}
	if c.settled == nil {
		c.options.Progress.addRead(c.kind, c.result.reread-c.kept.reread) // which countOverlap took off
		again := c.result.read + c.result.reread - c.kept.read - c.kept.reread
		c.options.Progress.addRead(c.kind, -again)
		c.budget.giveBack(again + c.result.unmapped - c.kept.unmapped)
	}
	result := c.kept
	result.changed, result.recheckTimes = c.result.changed, c.result.recheckTimes
	c.result = result
	if !c.counted {
		c.postponed = c.postponed[:0]
	}
	return nil
}

// isToSend reports whether an asset is to be sent: if it differs from the index, or if it moved
// into the scope and is to be sent again. It sets whether the asset moved in. An object whose SID
// changed is recorded, and not sent yet.
func (c *comparer) isToSend(asset *identity.Asset, indexed indexRecord) bool {
	switch {
	case c.options.DryRun && !c.snapshot.SameTarget:
		return true
	case bytes.Equal(c.rejected[asset.GUID], asset.Fingerprint[:]):
		return false
	case indexed.found && c.settled != nil:
		return true
	case indexed.SIDChanged:
		c.addChangedSID(asset)
		return false
	case c.isRejected(asset.GUID, asset.Fingerprint):
		return false
	case !indexed.found:
		asset.MovedIn = c.snapshot.movedIn(asset.Created)
		if c.options.DryRun { // the index will not contain it
			c.addKey(asset.SID, false)
		}
		return true
	case c.options.DryRun && c.options.Resend: // the requested resend is not recorded
		return true
	}
	return c.isDueAgain(asset.GUID) || c.hasChanged(asset, indexed)
}

// hasChanged compares an asset with what was sent. A delta sync ignores changes of activity alone,
// except for a later lastLogonTimestamp.
func (c *comparer) hasChanged(asset *identity.Asset, indexed indexRecord) bool {
	if c.plan.Mode == delta && indexed.Fingerprint.SameButActivity(asset.Fingerprint) {
		return asset.ReplicatedLogon.After(indexed.Logons.Last)
	}
	return indexed.Fingerprint != asset.Fingerprint
}

// updateRecord updates the stored state of an object that is not sent.
func (c *comparer) updateRecord(asset identity.Asset, indexed indexRecord) error {
	if c.options.DryRun || !indexed.found || indexed.SIDChanged {
		return nil
	}
	if due := state.RoundRecheck(asset.RecheckAt); !due.Equal(indexed.RecheckAt) {
		if c.result.recheckTimes == nil {
			c.result.recheckTimes = map[ad.GUID]time.Time{}
		}
		c.result.recheckTimes[asset.GUID] = due
	}
	// The index keeps what an earlier run with LastLogonAllControllers stored.
	if indexed.Fingerprint != asset.Fingerprint || indexed.Logons.Merge(asset.Logons) == indexed.Logons {
		return nil
	}
	if c.sentLogons == nil {
		c.sentLogons = map[ad.GUID]identity.Logons{}
	}
	if c.sentLogons[asset.GUID] = asset.Logons; len(c.sentLogons) < maxSentLogons {
		return nil
	}
	return c.storeLogons()
}

// maxSentLogons limits the logons that are kept in memory.
const maxSentLogons = 4096

// storeLogons stores the logons that were sent before they were stored: by an older version, or
// before the option sync.last-logon was changed.
func (c *comparer) storeLogons() error {
	logons := c.sentLogons
	c.sentLogons = nil
	return c.store.SetLogons(logons)
}

// isDueAgain reports whether an object moved into the scope and is to be sent again by this full
// sync. It returns true only once for each object.
func (c *comparer) isDueAgain(guid ad.GUID) bool {
	if c.plan.Mode != full || len(c.snapshot.MovedIn) == 0 {
		return false
	}
	if _, found := slices.BinarySearchFunc(c.snapshot.MovedIn, guid, compareGUIDs); !found {
		return false
	}
	if _, found := c.sentAgain[guid]; found {
		return false
	}
	if c.sentAgain == nil {
		c.sentAgain = map[ad.GUID]struct{}{}
	}
	c.sentAgain[guid] = struct{}{}
	return true
}

// addChangedSID records an object whose SID differs from that in the index, unless the gateway has
// rejected the deletion under the former SID and a retry is not due.
func (c *comparer) addChangedSID(asset *identity.Asset) {
	c.addKey(asset.SID, false)
	if !c.isRejected(asset.GUID, identity.Fingerprint{}) { // that of deletions
		c.result.changedSIDs = append(c.result.changedSIDs, asset.GUID)
	}
}

// isRejected reports whether the gateway has rejected a value of an object and a retry is not due.
func (c *comparer) isRejected(guid ad.GUID, value identity.Fingerprint) bool {
	r, found := c.snapshot.Rejected[guid]
	return found && c.plan.Mode == delta && c.start.Sub(r.At) < retryDelay(r.Attempts) && bytes.HasPrefix(r.Value, value[:len(value)/2])
}

// hashDN returns a hash that identifies an entry without disclosing its name.
func hashDN(dn []byte) string {
	sum := sha256.Sum256(dn)
	return hex.EncodeToString(sum[:8])
}
