package syncrun

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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

	// rejected are the fingerprints that the gateway rejected in this run. It is set after a
	// restart only.
	rejected map[ad.GUID][]byte
}

// skipEntry counts an entry that cannot be mapped. If its GUID is readable, the object counts
// as existing.
func (c *comparer) skipEntry(log zerolog.Logger, q query, entry *ad.Entry, err error) error {
	q.warnOnce.Do(func() {
		log.Warn().Stringer("kind", q.kind).Str("dn_hash", hashDN(entry.DN)).EmbedObject(fault.Fields(err)).Msg(MsgEntrySkipped)
	})
	c.result.skipped++
	if guid, ok := q.mapper.GUID(entry); ok {
		c.trackSeen(guid)
	} else {
		c.result.withoutGUID++
	}
	return c.budget.take()
}

// processAsset counts an asset, and adds it to the sink if it changed. It returns how long
// the sink blocked.
func (c *comparer) processAsset(asset identity.Asset, to sink) (waited time.Duration, err error) {
	c.result.read++
	c.options.Progress.addRead(c.kind, 1)
	c.result.unparsed += asset.Unparsed
	c.trackSeen(asset.GUID)
	if err := c.budget.take(); err != nil {
		return 0, err
	}
	changed, err := c.hasChanged(asset)
	if err != nil || !changed {
		return 0, err
	}
	c.result.changed++
	c.options.Progress.addChanged(1)
	start := time.Now()
	err = to.add(asset)
	return time.Since(start), err
}

// trackSeen records that an object exists, if the plan needs this to find deletions.
func (c *comparer) trackSeen(guid ad.GUID) {
	if c.plan.TrackSeen {
		c.result.seen = append(c.result.seen, guid)
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
	c.options.Progress.addRead(c.kind, -c.result.read)
	c.budget.giveBack(c.result.read + c.result.skipped)
	c.result = searchResult{counters: counters{changed: c.result.changed}, recheckTimes: c.result.recheckTimes}
	return nil
}

// hasChanged reports whether an asset differs from the index.
func (c *comparer) hasChanged(asset identity.Asset) (bool, error) {
	// Of another target, or the requested resend is not recorded.
	if c.options.DryRun && (!c.snapshot.SameTarget || c.options.Resend) {
		return true, nil
	}
	if r, ok := c.snapshot.Rejected[asset.GUID]; ok && c.plan.Mode == delta && c.start.Sub(r.At) < retryDelay(r.Attempts) &&
		bytes.HasPrefix(r.Value, asset.Fingerprint[:len(asset.Fingerprint)/2]) {
		return false, nil
	}
	if bytes.Equal(c.rejected[asset.GUID], asset.Fingerprint[:]) {
		return false, nil
	}
	indexed, found, err := c.store.Lookup(asset.GUID)
	if err != nil || !found || !c.sameFingerprint(indexed.Fingerprint, asset.Fingerprint) {
		return true, err
	}
	if due := state.RoundRecheck(asset.RecheckAt); !c.options.DryRun && !due.Equal(indexed.RecheckAt) {
		if c.result.recheckTimes == nil {
			c.result.recheckTimes = map[ad.GUID]time.Time{}
		}
		c.result.recheckTimes[asset.GUID] = due
	}
	return false, nil
}

// sameFingerprint compares fingerprints. A delta sync ignores changes of activity alone.
func (c *comparer) sameFingerprint(indexed, current identity.Fingerprint) bool {
	if c.plan.Mode == delta {
		return indexed.SameButActivity(current)
	}
	return indexed == current
}

// hashDN returns a hash that identifies an entry in the log without disclosing its name.
func hashDN(dn []byte) string {
	sum := sha256.Sum256(dn)
	return hex.EncodeToString(sum[:8])
}
