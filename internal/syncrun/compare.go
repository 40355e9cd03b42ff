package syncrun

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// tally counts the objects of one kind.
type tally struct {
	mapped, changed, skipped, unparsed int
	nameless                           int // of the skipped: those whose GUID cannot be read either
	seen                               []ad.GUID
	reschedule                         map[ad.GUID]time.Time
	rejected                           map[ad.GUID][]byte // values, by this very pass; known once a search has begun anew
}

// skip counts an entry that cannot be mapped.
func (p *pass) skip(r reading, entry *ad.Entry, err error) {
	if r.tally.skipped == 0 {
		p.log.Warn().Str("kind", r.kind.String()).Str("dn_hash", hash(entry.DN)).Err(err).Msg(MsgEntrySkipped)
	}
	r.tally.skipped++
	if guid, ok := r.mapper.GUID(entry); ok {
		p.saw(r.tally, guid) // it has not gone, whatever it is
	} else {
		r.tally.nameless++
	}
}

// take counts an asset, and adds it if it has changed. It says for how long adding
// has held it up.
func (p *pass) take(asset identity.Asset, t *tally, add addFunc) (held time.Duration, err error) {
	t.mapped++
	p.mode.Progress.read()
	t.unparsed += asset.Unparsed
	p.saw(t, asset.GUID)
	changed, err := p.changed(asset, t)
	if err != nil || !changed {
		return 0, err
	}
	t.changed++
	p.mode.Progress.changed()
	began := time.Now()
	err = add(asset)
	return time.Since(began), err
}

// readAnew makes a tally what it was before a search that begins anew. What that one
// has sent stays counted, and what was rejected of it is not sent once more.
func (p *pass) readAnew(t *tally, before tally) error {
	rejections, err := p.Store.Rejections()
	if err != nil {
		return err
	}
	p.mode.Progress.unread(t.mapped - before.mapped)
	before.changed, before.reschedule = t.changed, t.reschedule
	before.rejected = map[ad.GUID][]byte{}
	for _, r := range rejections {
		if r.At.Equal(p.now) {
			before.rejected[r.GUID] = r.Value
		}
	}
	*t = before
	return nil
}

// changed compares an asset with the index.
func (p *pass) changed(asset identity.Asset, t *tally) (bool, error) {
	if p.otherTarget && p.mode.DryRun {
		return true, nil
	}
	if r, is := p.rejected[asset.GUID]; is && p.kind == delta && p.now.Sub(r.At) < retryAfter(r.Attempts) &&
		bytes.HasPrefix(r.Value, asset.Fingerprint[:len(asset.Fingerprint)/2]) {
		return false, nil
	}
	if bytes.Equal(t.rejected[asset.GUID], asset.Fingerprint[:]) {
		return false, nil
	}
	known, there, err := p.Store.Lookup(asset.GUID)
	if err != nil || !there || !p.same(known.Fingerprint, asset.Fingerprint) {
		return true, err
	}
	if due := state.DueSecond(asset.Due); !p.mode.DryRun && !due.Equal(known.Due) {
		if t.reschedule == nil {
			t.reschedule = map[ad.GUID]time.Time{}
		}
		t.reschedule[asset.GUID] = due
	}
	return false, nil
}

// same compares as the pass does: a delta sends no activity for its own sake.
func (p *pass) same(known, now identity.Fingerprint) bool {
	if p.kind == delta {
		return known.SameButActivity(now)
	}
	return known == now
}

// saw notes an object where that can tell what has gone.
func (p *pass) saw(t *tally, guid ad.GUID) {
	if p.kind == delta || p.comparable || len(p.wasHeld) > 0 {
		t.seen = append(t.seen, guid)
	}
}

// seen returns what the pass has read, sorted.
func (p *pass) seen() []ad.GUID {
	var all []ad.GUID
	for _, r := range p.tallies() {
		all = append(all, r.tally.seen...)
	}
	slices.SortFunc(all, byBytes)
	return all
}

// unseen sorts, and leaves out what the pass has seen.
func (p *pass) unseen(guids []ad.GUID) []ad.GUID {
	seen := p.seen()
	slices.SortFunc(guids, byBytes)
	return slices.DeleteFunc(slices.Compact(guids), func(guid ad.GUID) bool {
		_, there := slices.BinarySearchFunc(seen, guid, byBytes)
		return there
	})
}

func byBytes(a, b ad.GUID) int { return bytes.Compare(a[:], b[:]) }

// hash names an entry in the log without telling who it is.
func hash(dn []byte) string {
	sum := sha256.Sum256(dn)
	return hex.EncodeToString(sum[:8])
}
