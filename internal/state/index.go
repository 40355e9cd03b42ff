package state

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// A record contains kind, fingerprint, batch, recheck time, first run, SID length, SID, name and,
// as far as they are known, logons. The fingerprint is that of the last acknowledged value. If it is zero, or the batch is
// in flight, the gateway may have any value or none. The first run is the one since which the
// object has been in the index. A record of format 2 has the beginning of an invocation ID in its
// place, and lacks kindHasFirstRun. It counts as one from before the first run.
//
// The SID is that of the value that was sent last, whether or not it was acknowledged. It is the
// only one under which the gateway can have a live asset of the object: a value with another SID
// is sent only after the gateway has acknowledged the deletion under this one, or if another
// object of the index has this one. If the gateway has acknowledged the deletion under this SID
// while the object exists under another one, the record has kindFormerSID.
//
// A record has kindDeletion if the batch contains a deletion that is not acknowledged. The run of
// such a batch has not shown the object.
//
// The logons are those of the value that was sent last. With kindHasLogon, the record ends with
// the latest successful logon. With kindHasFailed, the latest failed logon and the number of
// failed attempts follow, or noFailed.
const (
	kindHasFirstRun = 0x80 // flags of the kind
	kindFormerSID   = 0x40
	kindDeletion    = 0x20
	kindHasLogon    = 0x10
	kindHasFailed   = 0x08
	kindFlags       = kindHasFirstRun | kindFormerSID | kindDeletion | kindHasLogon | kindHasFailed

	logonSize  = 8
	failedSize = 12
	noFailed   = math.MaxUint32 // the number of failed attempts is not known

	fingerprintOffset = 1
	batchOffset       = fingerprintOffset + len(identity.Fingerprint{})
	recheckOffset     = batchOffset + 8
	firstRunOffset    = recheckOffset + 8
	sidOffset         = firstRunOffset + 4 // of the length byte
)

// appendRecord appends the record of an object to b, which must be empty.
func appendRecord(b []byte, o identity.Object, batch batchID, firstRun uint64) []byte {
	kind := byte(o.Kind) | kindHasFirstRun
	if o.FormerSID && !o.Deleted { // a deletion is not acknowledged yet
		kind |= kindFormerSID
	}
	if o.Deleted {
		kind |= kindDeletion
	}
	b = append(b, kind)
	b = append(b, o.Fingerprint[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(batch))
	b = appendRecheck(b, o.RecheckAt)
	b = binary.BigEndian.AppendUint32(b, uint32(firstRun))
	b = append(b, byte(len(o.SID)))
	b = append(b, o.SID...)
	b = append(b, o.Name...)
	return appendLogons(b, o.Logons)
}

// appendLogons ends a record that has none with logons, and sets the flags.
func appendLogons(record []byte, logons identity.Logons) []byte {
	record[0] &^= kindHasLogon | kindHasFailed
	if logons.Last != 0 {
		record[0] |= kindHasLogon
		record = binary.BigEndian.AppendUint64(record, uint64(logons.Last))
	}
	if logons.LastFailed != 0 || logons.HasFailed {
		record[0] |= kindHasFailed
		record = binary.BigEndian.AppendUint64(record, uint64(logons.LastFailed))
		failed := uint32(noFailed)
		if logons.HasFailed {
			failed = min(logons.Failed, noFailed-1)
		}
		record = binary.BigEndian.AppendUint32(record, failed)
	}
	return record
}

// cutLogons returns a record without its logons, and the logons. The flags stay.
func cutLogons(record []byte) (rest []byte, logons identity.Logons) {
	sidEnd := sidOffset + 1 + int(record[sidOffset])
	if record[0]&kindHasFailed != 0 && len(record) >= sidEnd+failedSize {
		failed := record[len(record)-failedSize:]
		record = record[:len(record)-failedSize]
		logons.LastFailed = ad.FileTime(binary.BigEndian.Uint64(failed))
		if n := binary.BigEndian.Uint32(failed[8:]); n != noFailed {
			logons.Failed, logons.HasFailed = n, true
		}
	}
	if record[0]&kindHasLogon != 0 && len(record) >= sidEnd+logonSize {
		logons.Last = ad.FileTime(binary.BigEndian.Uint64(record[len(record)-logonSize:]))
		record = record[:len(record)-logonSize]
	}
	return record, logons
}

// decodeRecord returns a copy, because a record is valid only within its transaction.
func decodeRecord(guid, record []byte) (o identity.Object, ok bool) {
	if len(guid) != len(o.GUID) || !isRecord(record) || len(record) < sidOffset+1+int(record[sidOffset]) {
		return o, false
	}
	record, logons := cutLogons(record)
	sidEnd := sidOffset + 1 + int(record[sidOffset])
	return identity.Object{
		GUID: ad.GUID(guid), Logons: logons, Kind: kindOf(record), FormerSID: record[0]&kindFormerSID != 0, Fingerprint: identity.Fingerprint(record[fingerprintOffset:]),
		RecheckAt: recheckTime(record), SID: ad.SID(slices.Clone(record[sidOffset+1 : sidEnd])), Name: string(record[sidEnd:]),
	}, true
}

func kindOf(record []byte) identity.Kind { return identity.Kind(record[0] &^ kindFlags) }

// sidOf returns the SID of a record, which shares its memory. It is nil in a damaged record.
func sidOf(record []byte) ad.SID {
	if end := sidOffset + 1 + int(record[sidOffset]); end <= len(record) {
		return ad.SID(record[sidOffset+1 : end])
	}
	return nil
}

// isRecord reports whether a record has all fields of fixed size. A missing record is nil.
func isRecord(record []byte) bool { return len(record) > sidOffset }

func batchOf(record []byte) batchID {
	return batchID(binary.BigEndian.Uint64(record[batchOffset:]))
}

// firstRunOf returns the run since which an object has been in the index. 0: before any known run.
func firstRunOf(record []byte) uint64 {
	if record[0]&kindHasFirstRun == 0 {
		return 0
	}
	return uint64(binary.BigEndian.Uint32(record[firstRunOffset:]))
}

func recheckTime(record []byte) time.Time {
	seconds := binary.BigEndian.Uint64(record[recheckOffset:])
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// RoundRecheck rounds a recheck time up to the stored precision of one second, so that the
// status has changed at that time.
func RoundRecheck(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.Unix(t.Add(time.Second-1).Unix(), 0).UTC()
}

// recheckKey returns the encoded recheck time. The order of keys is the order of times.
func recheckKey(t time.Time) []byte { return appendRecheck(nil, t) }

func appendRecheck(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(RoundRecheck(t).Unix()))
}

// IndexRecord is the stored state of an object that was sent.
type IndexRecord struct {
	Fingerprint identity.Fingerprint // of the acknowledged value; zero: none or unknown
	RecheckAt   time.Time
	SIDChanged  bool // the gateway can have an asset of the object under another SID
	// Logons are those that were sent last under the object's SID, whether or not they were
	// acknowledged.
	Logons identity.Logons
}

// Lookup returns the stored state of an object, whose SID is sid; nil: unknown. found is false if
// it was never sent.
//
// Many calls share a transaction: see lookups.
func (s *Store) Lookup(guid ad.GUID, sid ad.SID) (stored IndexRecord, found bool, err error) {
	err = s.viewRecord("read index", guid, func(record []byte) {
		if found = isRecord(record); found {
			sameSID := bytes.Equal(sidOf(record), sid)
			stored = IndexRecord{
				Fingerprint: s.acknowledgedFingerprint(record), RecheckAt: recheckTime(record),
				SIDChanged: sid != nil && record[0]&kindFormerSID == 0 && !sameSID,
			}
			if sameSID && record[0]&kindFormerSID == 0 {
				_, stored.Logons = cutLogons(record)
			}
		}
	})
	return stored, found, err
}

// acknowledgedFingerprint returns the fingerprint of the acknowledged value. It is zero if
// there is none, if a batch with the object is in flight, or if it was sent by a run before
// knownFrom.
func (s *Store) acknowledgedFingerprint(record []byte) identity.Fingerprint {
	if batch := batchOf(record); s.isInFlight(batch) || batch.run() < s.knownFrom.Load() {
		return identity.Fingerprint{}
	}
	return identity.Fingerprint(record[fingerprintOffset:])
}

// IndexSize returns the number of objects in the index. While a transaction is committed, those that
// it adds may be missing.
func (s *Store) IndexSize() (size int, err error) {
	s.mu.RLock()
	added := s.unmerged.added
	s.mu.RUnlock()
	err = s.view("count index", func(tx *bbolt.Tx) error {
		size = indexCount(tx) + added
		return nil
	})
	return size, err
}

// Objects returns the given objects that are in the index.
func (s *Store) Objects(guids []ad.GUID) (found []identity.Object, err error) {
	if len(guids) == 0 {
		return nil, nil
	}
	err = s.viewIndex("read index", func(index indexView) error {
		for _, guid := range guids {
			if object, ok := decodeRecord(guid[:], index.get(guid[:])); ok {
				found = append(found, object)
			}
		}
		return nil
	})
	return found, err
}

// Indexed returns the GUIDs of the given objects that are in the index. Unlike Objects, it
// copies no records.
func (s *Store) Indexed(guids []ad.GUID) (indexed []ad.GUID, err error) {
	if len(guids) == 0 {
		return nil, nil
	}
	err = s.viewIndex("read index", func(index indexView) error {
		indexed = slices.DeleteFunc(slices.Clone(guids), func(guid ad.GUID) bool { return !isRecord(index.get(guid[:])) })
		return nil
	})
	return indexed, err
}

// indexedGUIDs returns the objects of the index whose record matches.
func (s *Store) indexedGUIDs(match func(record []byte) bool) (guids []ad.GUID, err error) {
	err = s.viewIndex("read index", func(index indexView) error {
		return index.forEach(func(key, record []byte) error {
			if isRecord(record) && match(record) {
				guids = append(guids, ad.GUID(key))
			}
			return nil
		})
	})
	return guids, err
}

// CountOwners increases the count of each key by the number of objects of the index whose asset
// has it. It ignores other keys, and the objects in except, which must be sorted.
func (s *Store) CountOwners(counts map[identity.Key]int, except []ad.GUID) error {
	return s.viewIndex("read index", func(index indexView) error {
		rest := except
		return index.forEach(func(key, record []byte) error {
			for len(rest) > 0 && string(rest[0][:]) < string(key) {
				rest = rest[1:]
			}
			if len(rest) > 0 && string(rest[0][:]) == string(key) || !isRecord(record) || record[0]&kindFormerSID != 0 {
				return nil
			}
			role, sid := kindOf(record) == identity.Role, sidOf(record)
			if n, found := counts[identity.Key{Role: role, SID: string(sid)}]; found { // does not allocate
				counts[identity.Key{Role: role, SID: string(sid)}] = n + 1
			}
			return nil
		})
	})
}

// Owner is an object of the index whose asset has a key.
type Owner struct {
	GUID ad.GUID
	Sent uint64 // increases with each batch; equal for objects of one batch
}

// Owners returns the objects of the index whose assets have one of the keys.
func (s *Store) Owners(keys map[identity.Key]struct{}) (owners map[identity.Key][]Owner, err error) {
	owners = map[identity.Key][]Owner{}
	err = s.viewIndex("read index", func(index indexView) error {
		return index.forEach(func(guid, record []byte) error {
			if !isRecord(record) || record[0]&kindFormerSID != 0 {
				return nil
			}
			role, sid := kindOf(record) == identity.Role, sidOf(record)
			if _, found := keys[identity.Key{Role: role, SID: string(sid)}]; found {
				key := identity.Key{Role: role, SID: string(sid)}
				owners[key] = append(owners[key], Owner{ad.GUID(guid), uint64(batchOf(record))})
			}
			return nil
		})
	})
	return owners, err
}

// Missing returns the objects of the index that are in none of the lists of seen, each of which must
// be sorted. It merges the journal first: this is not much slower than to sort the journal for each
// scan after a full sync.
func (s *Store) Missing(seen ...[]ad.GUID) (missing []identity.Object, err error) {
	if !s.IsReadOnly() {
		if err := s.merge(); err != nil {
			return nil, err
		}
	}
	return s.missing(seen...)
}

// missing is Missing without a merge.
func (s *Store) missing(seen ...[]ad.GUID) (missing []identity.Object, err error) {
	err = s.viewIndex("compare index", func(index indexView) error {
		rest := slices.Clone(seen)
		return index.forEach(func(key, record []byte) error {
			for i := range rest {
				var found bool
				if rest[i], found = skipBefore(rest[i], key); found {
					return nil
				}
			}
			if object, ok := decodeRecord(key, record); ok {
				missing = append(missing, object)
			}
			return nil
		})
	})
	return missing, err
}

// skipBefore returns the part of a sorted list that is not before a key, and whether the key is in it.
func skipBefore(list []ad.GUID, key []byte) (rest []ad.GUID, found bool) {
	for len(list) > 0 && string(list[0][:]) < string(key) {
		list = list[1:]
	}
	return list, len(list) > 0 && string(list[0][:]) == string(key)
}

// DueForRecheck returns the objects whose recheck time is not after now, the earliest first: their
// status has changed without a change in the directory.
func (s *Store) DueForRecheck(now time.Time) (guids []ad.GUID, err error) {
	var due [][]byte // keys of bucketRecheck
	isDue := func(key []byte) bool { return key != nil && int64(binary.BigEndian.Uint64(key)) <= now.Unix() }
	err = s.viewIndex("read recheck times", func(index indexView) error {
		cursor := index.Bucket(bucketRecheck).Cursor()
		for key, _ := cursor.First(); isDue(key); key, _ = cursor.Next() {
			if _, found := index.entry(key[8:]); !found {
				due = append(due, bytes.Clone(key))
			}
		}
		for _, e := range index.entries {
			record, err := e.record(index.journal)
			if err != nil {
				return err
			}
			if key := recheckKeyOf(e.guid, record); isDue(key) {
				due = append(due, key)
			}
		}
		return nil
	})
	slices.SortFunc(due, bytes.Compare)
	for _, key := range due {
		guids = append(guids, ad.GUID(key[8:]))
	}
	return guids, err
}

// recheckKeyOf returns the key of bucketRecheck for a record, or nil if there is none.
func recheckKeyOf(guid ad.GUID, record []byte) []byte {
	if !isRecord(record) || recheckTime(record).IsZero() {
		return nil
	}
	return append(slices.Clone(record[recheckOffset:firstRunOffset]), guid[:]...)
}

// putObject writes the record of an object, and that it moved into the scope.
func putObject(c change, o identity.Object, batch batchID) error {
	firstRun, before := batch.run(), c.record(o.GUID)
	if isRecord(before) {
		firstRun = firstRunOf(before)
	}
	if o.MovedIn {
		if err := putMovedIn(c, o.GUID, batch.run()); err != nil {
			return err
		}
	}
	c.index.record = appendRecord(c.index.record[:0], o, batch, firstRun)
	return c.putRecord(o.GUID, before, c.index.record)
}

// deleteObject deletes the record of an object, and that it moved into the scope.
func deleteObject(c change, guid ad.GUID) error {
	before := c.record(guid)
	if err := c.delete(bucketMovedIn, guid[:]); err != nil || before == nil {
		return err
	}
	return c.putRecord(guid, before, nil)
}

// SetRecheckTimes changes the recheck times of objects of the index. Other objects are
// ignored.
func (s *Store) SetRecheckTimes(times map[ad.GUID]time.Time) error {
	if len(times) == 0 {
		return nil
	}
	if err := s.mergeIfLarge(); err != nil {
		return err
	}
	return s.update("record recheck times", func(c change) error {
		for guid, recheckAt := range times {
			record := slices.Clone(c.record(guid))
			if !isRecord(record) {
				continue
			}
			copy(record[recheckOffset:], recheckKey(recheckAt))
			if err := c.putRecord(guid, record, record); err != nil {
				return err
			}
		}
		return nil
	})
}

// AccountsWithFailedLogons returns the objects of the index whose number of failed attempts at the
// PDC emulator is not 0.
func (s *Store) AccountsWithFailedLogons() ([]ad.GUID, error) {
	return s.indexedGUIDs(func(record []byte) bool {
		if record[0]&kindHasFailed == 0 {
			return false
		}
		_, logons := cutLogons(record)
		return logons.HasFailed && logons.Failed > 0
	})
}

// SetLogons changes the logons of objects of the index, if they were sent and not stored with the
// object. Other objects are ignored.
func (s *Store) SetLogons(logons map[ad.GUID]identity.Logons) error {
	if len(logons) == 0 {
		return nil
	}
	if err := s.mergeIfLarge(); err != nil {
		return err
	}
	return s.update("record logons", func(c change) error {
		for guid, sent := range logons {
			record := c.record(guid)
			if !isRecord(record) {
				continue
			}
			rest, before := cutLogons(record)
			if err := c.putRecord(guid, record, appendLogons(slices.Clone(rest), before.Merge(sent))); err != nil {
				return err
			}
		}
		return nil
	})
}
