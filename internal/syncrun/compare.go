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

// comparer compares the assets of one search with the index. It serves one goroutine.
type comparer struct {
	task
	snapshot Snapshot
	plan     Plan
	store    *state.Store
	tally    tally

	rejected map[ad.GUID][]byte // values that the gateway rejected in this run, known after a restart
}

// skip counts an entry that cannot be mapped. An entry with a readable GUID still exists.
func (c *comparer) skip(log zerolog.Logger, q query, entry *ad.Entry, err error) {
	q.firstSkipped.Do(func() {
		log.Warn().Stringer("kind", q.kind).Str("dn_hash", hash(entry.DN)).EmbedObject(fault.Fields(err)).Msg(MsgEntrySkipped)
	})
	c.tally.skipped++
	if guid, ok := q.mapper.GUID(entry); ok {
		c.see(guid)
	} else {
		c.tally.nameless++
	}
}

// process counts an asset, and adds it if it changed. It returns how long adding waited.
func (c *comparer) process(asset identity.Asset, to sink) (waited time.Duration, err error) {
	c.tally.read++
	c.mode.Progress.read()
	c.tally.unparsed += asset.Unparsed
	c.see(asset.GUID)
	changed, err := c.hasChanged(asset)
	if err != nil || !changed {
		return 0, err
	}
	c.tally.changed++
	c.mode.Progress.changed()
	began := time.Now()
	err = to.add(asset)
	return time.Since(began), err
}

// see remembers an object where that can tell what is deleted.
func (c *comparer) see(guid ad.GUID) {
	if c.plan.NoteSeen {
		c.tally.seen = append(c.tally.seen, guid)
	}
}

// restart prepares for reading everything once more, when all that was added is settled.
// What was sent stays counted, and what was rejected is not sent once more.
func (c *comparer) restart() error {
	rejections, err := c.store.Rejections()
	if err != nil {
		return err
	}
	c.rejected = map[ad.GUID][]byte{}
	for _, r := range rejections {
		if r.At.Equal(c.start) {
			c.rejected[r.GUID] = r.Value
		}
	}
	c.mode.Progress.unread(c.tally.read)
	c.tally = tally{changed: c.tally.changed, reschedule: c.tally.reschedule}
	return nil
}

// hasChanged compares an asset with the index.
func (c *comparer) hasChanged(asset identity.Asset) (bool, error) {
	if !c.snapshot.SameTarget && c.mode.DryRun { // the index is another target's
		return true, nil
	}
	if r, is := c.snapshot.Rejected[asset.GUID]; is && c.plan.Mode == delta && c.start.Sub(r.At) < retryAfter(r.Attempts) &&
		bytes.HasPrefix(r.Value, asset.Fingerprint[:len(asset.Fingerprint)/2]) {
		return false, nil
	}
	if bytes.Equal(c.rejected[asset.GUID], asset.Fingerprint[:]) {
		return false, nil
	}
	known, there, err := c.store.Lookup(asset.GUID)
	if err != nil || !there || !c.same(known.Fingerprint, asset.Fingerprint) {
		return true, err
	}
	if due := state.RoundRecheck(asset.RecheckAt); !c.mode.DryRun && !due.Equal(known.RecheckAt) {
		if c.tally.reschedule == nil {
			c.tally.reschedule = map[ad.GUID]time.Time{}
		}
		c.tally.reschedule[asset.GUID] = due
	}
	return false, nil
}

// same compares fingerprints. Activity alone is no reason to send an object in a delta.
func (c *comparer) same(known, now identity.Fingerprint) bool {
	if c.plan.Mode == delta {
		return known.SameButActivity(now)
	}
	return known == now
}

// hash names an entry in the log without showing what it is.
func hash(dn []byte) string {
	sum := sha256.Sum256(dn)
	return hex.EncodeToString(sum[:8])
}
