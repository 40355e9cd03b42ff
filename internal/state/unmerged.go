package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// No transaction of a run changes the index itself. In the order of their GUIDs, which are random,
// the objects of a batch would change almost as many pages of the file as there are objects, and
// each commit writes whole pages. Instead, a transaction appends the new records of the index to
// bucketJournal: what it writes is in proportion to its objects. Together, the index and the
// journal are what this package calls the index. A record of the journal replaces that of the same
// object in bucketIndex, and a later record replaces an earlier one.
//
// A merge moves all records of the journal to bucketIndex, in the order of the GUIDs: before a run
// advances the watermark, when the journal exceeds maxJournalBytes, when a file is opened for
// writing, and when a run starts. It uses several transactions, because the memory and the
// duration of each must be bounded. Only the last one deletes the records from the journal, so
// that an interrupted merge has no effect but that the next one writes the same records again.
//
// Recheck times are in bucketRecheck only for records of bucketIndex. What moved into the scope,
// rejections, and held, undecided and reported deletions are written without the journal: they
// are few.

// bucketJournal contains the records that are not merged: sequence number → entries.
var bucketJournal = []byte("journal")

const (
	// maxJournalBytes is the maximum size of the journal. With half of it, a first sync of a million
	// objects merges twice as often, and each merge writes most of the index. With twice of it, the
	// merges take 40 MB more memory at their peak, because unmerged has an entry for each object.
	maxJournalBytes = 24 << 20
	// maxChunk is the maximum size of the entries under one key, in bytes, unless a single entry
	// is larger. bbolt puts at least two keys into a page, so that half a page leaves least unused.
	maxChunk = 2000
	// maxMergeNodes limits the pages that a transaction of a merge changes.
	maxMergeNodes = 256
	// maxMergeRecords limits its records. The first merge changes no existing pages.
	maxMergeRecords = 16384
)

var errJournalEntry = damage("invalid journal entry")

// appendEntry appends an entry to a chunk: a GUID, the size of the record, and the record. The
// size 0 means that the object is no longer in the index.
func appendEntry(chunk []byte, guid ad.GUID, record []byte) []byte {
	chunk = append(chunk, guid[:]...)
	chunk = binary.AppendUvarint(chunk, uint64(len(record)))
	return append(chunk, record...)
}

// maxEntrySize returns the maximum size of an entry with a record.
func maxEntrySize(record []byte) int { return len(ad.GUID{}) + binary.MaxVarintLen64 + len(record) }

// entryAt returns the entry of a chunk at an offset, and the offset of the next one. A record of
// size 0 is nil.
func entryAt(chunk []byte, offset int) (guid, record []byte, next int, err error) {
	sizeOffset := offset + len(ad.GUID{})
	if sizeOffset >= len(chunk) {
		return nil, nil, 0, errJournalEntry
	}
	size, n := binary.Uvarint(chunk[sizeOffset:])
	start := sizeOffset + n
	switch guid = chunk[offset:sizeOffset]; {
	case n <= 0 || size > uint64(len(chunk)-start):
		return nil, nil, 0, errJournalEntry
	case size == 0:
		return guid, nil, start, nil
	}
	next = start + int(size)
	return guid, chunk[start:next:next], next, nil
}

// findEntry returns the last record of an object in a chunk. found is false if it has none.
func findEntry(chunk []byte, guid ad.GUID) (record []byte, found bool) {
	for offset := 0; offset < len(chunk); {
		key, value, next, err := entryAt(chunk, offset)
		if err != nil {
			return nil, false
		}
		if bytes.Equal(key, guid[:]) {
			record, found = value, true
		}
		offset = next
	}
	return record, found
}

// seek returns the value of a key, or nil if it does not exist. Unlike Bucket.Get, it does not
// allocate if the cursor was used before.
func seek(cursor *bbolt.Cursor, key []byte) []byte {
	if found, value := cursor.Seek(key); bytes.Equal(found, key) {
		return value
	}
	return nil
}

func chunkKey(sequence uint64) []byte { return binary.BigEndian.AppendUint64(nil, sequence) }

// unmerged is where the journal has the records of objects. It exists because objects are looked
// up one by one while the journal is large.
type unmerged struct {
	chunks map[ad.GUID]uint32 // object → sequence number of its last entry
	bytes  int64              // of all entries
	added  int                // objects of the index that are not in bucketIndex, minus those only there
	// noIndex means that bucketIndex is empty.
	noIndex bool
	// filter has a bit for each hash of the objects in chunks; nil: there are none. Most objects that
	// are looked up are not in the journal, and a map of this size is not in the processor's cache.
	filter []uint64
}

const filterBits = 20 // of a hash

// filterBit returns the place of an object in the filter. Most of the bits of a GUID are random.
func filterBit(guid ad.GUID) (word, bit uint64) {
	const golden = 0x9e3779b97f4a7c15 // spreads similar GUIDs
	hash := (binary.NativeEndian.Uint64(guid[:]) ^ binary.NativeEndian.Uint64(guid[8:])) * golden >> (64 - filterBits)
	return hash / 64, 1 << (hash % 64)
}

// find returns the sequence number of the last entry of an object; 0: none.
func (u *unmerged) find(guid ad.GUID) (sequence uint32) {
	if u.filter == nil {
		return 0
	}
	if word, bit := filterBit(guid); u.filter[word]&bit == 0 {
		return 0
	}
	return u.chunks[guid]
}

// add adds the last entry of an object.
func (u *unmerged) add(guid ad.GUID, sequence uint32) {
	if u.filter == nil {
		u.filter = make([]uint64, 1<<filterBits/64)
	}
	word, bit := filterBit(guid)
	u.filter[word] |= bit
	u.chunks[guid] = sequence
}

// newUnmerged returns the value for a file without an index.
func newUnmerged() unmerged { return unmerged{chunks: map[ad.GUID]uint32{}, noIndex: true} }

// load reads the journal of a file.
func (u *unmerged) load(tx *bbolt.Tx) error {
	*u = newUnmerged()
	u.noIndex = isEmpty(tx.Bucket(bucketIndex))
	err := forEach(tx, bucketJournal, func(key, chunk []byte) error {
		u.bytes += int64(len(chunk))
		for offset := 0; offset < len(chunk); {
			guid, _, next, err := entryAt(chunk, offset)
			if err != nil {
				return err
			}
			u.add(ad.GUID(guid), uint32(binary.BigEndian.Uint64(key)))
			offset = next
		}
		return nil
	})
	if err != nil || len(u.chunks) == 0 {
		return err
	}
	index, err := newIndexView(tx)
	u.added = index.added()
	return err
}

// indexWriter appends the changes of the index that one transaction makes to the journal.
type indexWriter struct {
	store    *Store
	chunk    []byte // entries that are not in the bucket yet
	sequence uint64 // of chunk; 0: none
	record   []byte // buffer of putObject
	added    unmerged
	// committed is called after the commit, with the lock mu of the store; nil: no call.
	committed func(*unmerged)
}

// record returns the record of an object in the index, including changes of this transaction;
// nil: none. It is valid until the next change.
func (c change) record(guid ad.GUID) []byte {
	w := c.index
	sequence, found := w.added.chunks[guid]
	if found && uint64(sequence) == w.sequence {
		record, _ := findEntry(w.chunk, guid)
		return record
	}
	u := &w.store.unmerged // changes in update only, whose lock is held
	if !found {
		sequence = u.find(guid)
	}
	if sequence != 0 {
		record, _ := findEntry(c.Bucket(bucketJournal).Get(chunkKey(uint64(sequence))), guid)
		return record
	}
	if u.noIndex {
		return nil
	}
	return c.Bucket(bucketIndex).Get(guid[:])
}

// putRecord replaces the record of an object in the index by another one. nil means that the object
// is not in it.
func (c change) putRecord(guid ad.GUID, before, record []byte) error {
	w := c.index
	w.added.added += countOf(record) - countOf(before)
	size := maxEntrySize(record)
	if len(w.chunk)+size > maxChunk {
		if err := c.writeChunk(); err != nil {
			return err
		}
	}
	if w.sequence == 0 {
		sequence, err := c.Bucket(bucketJournal).NextSequence()
		if err != nil {
			return err
		}
		w.sequence, w.chunk = sequence, make([]byte, 0, max(maxChunk, size))
	}
	if w.added.chunks == nil {
		w.added.chunks = map[ad.GUID]uint32{}
	}
	w.chunk = appendEntry(w.chunk, guid, record)
	w.added.chunks[guid] = uint32(w.sequence)
	return nil
}

// writeChunk writes the entries that are not in the bucket yet.
func (c change) writeChunk() error {
	w := c.index
	if w.sequence == 0 {
		return nil
	}
	w.added.bytes += int64(len(w.chunk))
	if err := c.setVersion(unmergedVersion); err != nil {
		return err
	}
	c.Bucket(bucketJournal).FillPercent = 1 // keys are appended
	err := c.replace(bucketJournal, chunkKey(w.sequence), nil, w.chunk)
	w.chunk, w.sequence = nil, 0 // bbolt uses the memory until the commit
	return err
}

// setVersion records the format of the file.
func (c change) setVersion(format []byte) error {
	if bytes.Equal(c.Bucket(bucketMeta).Get(keyVersion), format) {
		return nil
	}
	return c.put(bucketMeta, keyVersion, format)
}

// apply makes the changes visible to lookups, after the commit.
func (w *indexWriter) apply() {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	u := &w.store.unmerged
	if w.committed != nil {
		w.committed(u)
	}
	u.bytes += w.added.bytes
	u.added += w.added.added
	for guid, sequence := range w.added.chunks {
		u.add(guid, sequence)
	}
}

// unmergedEntry is the last entry of an object in the journal.
type unmergedEntry struct {
	guid     ad.GUID
	sequence uint32
	offset   uint16
}

// readEntries returns the last entry of each object in the journal, in the order of the GUIDs, and
// the sequence number of the last chunk.
func readEntries(tx *bbolt.Tx) (entries []unmergedEntry, last uint64, err error) {
	each := func(f func(guid []byte, sequence uint64, offset int)) error {
		return forEach(tx, bucketJournal, func(key, chunk []byte) error {
			last = binary.BigEndian.Uint64(key)
			for offset := 0; offset < len(chunk); {
				guid, _, next, err := entryAt(chunk, offset)
				if err != nil {
					return err
				}
				f(guid, last, offset)
				offset = next
			}
			return nil
		})
	}
	count := 0
	if err := each(func([]byte, uint64, int) { count++ }); err != nil || count == 0 {
		return nil, last, err
	}
	entries = make([]unmergedEntry, 0, count)
	err = each(func(guid []byte, sequence uint64, offset int) {
		entries = append(entries, unmergedEntry{ad.GUID(guid), uint32(sequence), uint16(offset)})
	})
	slices.SortFunc(entries, compareEntries)
	return slices.CompactFunc(entries, func(a, b unmergedEntry) bool { return a.guid == b.guid }), last, err
}

// compareEntries compares by GUID. The latest entry of an object is the first.
func compareEntries(a, b unmergedEntry) int {
	x, y := binary.BigEndian.Uint64(a.guid[:]), binary.BigEndian.Uint64(b.guid[:])
	if x != y { // faster than the comparison of bytes
		return cmp.Compare(x, y)
	}
	return cmp.Or(bytes.Compare(a.guid[:], b.guid[:]), cmp.Compare(b.sequence, a.sequence), cmp.Compare(b.offset, a.offset))
}

// record returns the record of an entry; nil: the object is no longer in the index.
func (e unmergedEntry) record(journal *bbolt.Cursor) ([]byte, error) {
	chunk := seek(journal, chunkKey(uint64(e.sequence)))
	if int(e.offset) >= len(chunk) {
		return nil, errJournalEntry
	}
	_, record, _, err := entryAt(chunk, int(e.offset))
	return record, err
}

// indexView is the index in one transaction, with the records of the journal.
type indexView struct {
	*bbolt.Tx
	index   *bbolt.Bucket
	journal *bbolt.Cursor // nil without entries
	entries []unmergedEntry
}

// viewIndex runs a read transaction that uses the index.
func (s *Store) viewIndex(op string, read func(indexView) error) error {
	return s.view(op, func(tx *bbolt.Tx) error {
		v, err := newIndexView(tx)
		if err != nil {
			return err
		}
		return read(v)
	})
}

func newIndexView(tx *bbolt.Tx) (v indexView, err error) {
	v = indexView{Tx: tx, index: tx.Bucket(bucketIndex)}
	if v.entries, _, err = readEntries(tx); len(v.entries) > 0 {
		v.journal = tx.Bucket(bucketJournal).Cursor()
	}
	return v, err
}

// entry returns the entry of an object in the journal.
func (v indexView) entry(guid []byte) (e unmergedEntry, found bool) {
	if len(v.entries) == 0 {
		return e, false
	}
	at, found := slices.BinarySearchFunc(v.entries, guid, func(e unmergedEntry, guid []byte) int { return bytes.Compare(e.guid[:], guid) })
	if found {
		e = v.entries[at]
	}
	return e, found
}

// get returns the record of an object; nil: none.
func (v indexView) get(guid []byte) []byte {
	e, found := v.entry(guid)
	if !found {
		return v.index.Get(guid)
	}
	record, _ := e.record(v.journal) // readEntries has checked it
	return record
}

// forEach calls f for each record, in the order of the GUIDs.
func (v indexView) forEach(f func(guid, record []byte) error) error {
	rest := v.entries
	before := func(end []byte) error { // the records of the journal before a key; nil: all
		for len(rest) > 0 && (end == nil || bytes.Compare(rest[0].guid[:], end) < 0) {
			record, err := rest[0].record(v.journal)
			if err == nil && record != nil {
				err = f(rest[0].guid[:], record)
			}
			if err != nil {
				return err
			}
			rest = rest[1:]
		}
		return nil
	}
	err := v.index.ForEach(func(guid, record []byte) error {
		if err := before(guid); err != nil {
			return err
		}
		if len(rest) > 0 && bytes.Equal(rest[0].guid[:], guid) {
			return nil // the next call of before returns it, as the first one
		}
		return f(guid, record)
	})
	if err != nil {
		return err
	}
	return before(nil)
}

// any reports whether a record matches.
func (v indexView) any(match func(record []byte) bool) (found bool, err error) {
	errFound := errors.New("found")
	err = v.forEach(func(_, record []byte) error {
		if match(record) {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// added returns the number of objects of the index that are not in bucketIndex, minus that of those
// that are only there.
func (v indexView) added() (added int) {
	for _, e := range v.entries {
		record, _ := e.record(v.journal) // readEntries has checked it
		added += countOf(record) - countOf(v.index.Get(e.guid[:]))
	}
	return added
}

// countOf returns 1 for a record, and 0 for nil.
func countOf(record []byte) int {
	if record == nil {
		return 0
	}
	return 1
}

// mergeIfLarge merges a journal that exceeds its maximum size.
func (s *Store) mergeIfLarge() error {
	s.mu.RLock()
	size := s.unmerged.bytes
	s.mu.RUnlock()
	if size < cmp.Or(s.options.mergeAbove, maxJournalBytes) {
		return nil
	}
	return s.merge()
}

// merge moves the records of the journal to bucketIndex. Entries that are appended meanwhile stay.
func (s *Store) merge() error {
	s.mergeMu.Lock()
	defer s.mergeMu.Unlock()
	s.mu.RLock()
	isEmpty, noIndex := len(s.unmerged.chunks) == 0, s.unmerged.noIndex
	s.mu.RUnlock()
	if isEmpty {
		return nil
	}
	const op = "merge journal"
	m := merge{noIndex: noIndex, maxRecords: cmp.Or(s.options.mergeRecords, maxMergeRecords)}
	err := s.view(op, func(tx *bbolt.Tx) (err error) {
		m.entries, m.last, err = readEntries(tx)
		return err
	})
	for err == nil && !m.done {
		if hook := s.options.merging; hook != nil {
			if err := hook(); err != nil {
				return err
			}
		}
		err = s.update(op, m.step)
	}
	return err
}

// apply makes the entries that a step has removed invisible. Until the last step, all entries of
// the journal stay, and replace the records that are merged.
func (m *merge) apply(u *unmerged) {
	u.noIndex = false
	u.added -= m.added
	if m.done {
		u.removeUntil(m.last, m.remaining)
	}
}

// removeUntil removes merged entries. remaining is the size of the others.
func (u *unmerged) removeUntil(last uint64, remaining int64) {
	if u.bytes = remaining; remaining == 0 {
		u.chunks, u.filter = map[ad.GUID]uint32{}, nil // releases the memory
		return
	}
	for guid, sequence := range u.chunks {
		if uint64(sequence) <= last {
			delete(u.chunks, guid)
		}
	}
}

// merge is the state of a merge between its transactions.
type merge struct {
	entries   []unmergedEntry // to be merged
	last      uint64          // sequence number of the last chunk
	noIndex   bool            // bucketIndex was empty before the merge
	done      bool
	remaining int64 // size of the entries that were appended during the merge
	added     int   // objects that the last step added to bucketIndex, minus those that it deleted

	maxRecords int
}

// step merges as many entries as one transaction may. The last step deletes all from the journal.
func (m *merge) step(c change) error {
	c.index.committed = m.apply
	m.added = 0
	writer := &bucketWriter{change: c, name: bucketIndex, Bucket: c.Bucket(bucketIndex)}
	defer writer.close()
	index, journal := writer.Cursor(), c.Bucket(bucketJournal).Cursor()
	if m.noIndex {
		writer.FillPercent = 0.9 // keys are appended
	}
	stats := c.Stats()
	nodes := stats.GetNodeCount()
	for n, e := range m.entries {
		if stats = c.Stats(); n >= m.maxRecords || stats.GetNodeCount()-nodes >= maxMergeNodes {
			m.entries = m.entries[n:]
			return nil
		}
		record, err := e.record(journal)
		if err != nil {
			return err
		}
		var before []byte
		if !m.noIndex {
			before = seek(index, e.guid[:])
		}
		if err := mergeRecord(c, writer, e.guid, before, record); err != nil {
			return err
		}
		m.added += countOf(record) - countOf(before)
	}
	m.entries, m.done = nil, true
	return m.deleteEntries(c)
}

// mergeRecord replaces a record of bucketIndex and its recheck time.
func mergeRecord(c change, index *bucketWriter, guid ad.GUID, before, record []byte) error {
	if bytes.Equal(before, record) {
		return nil
	}
	if old, recheck := recheckKeyOf(guid, before), recheckKeyOf(guid, record); !bytes.Equal(old, recheck) {
		if old != nil {
			if err := c.delete(bucketRecheck, old); err != nil {
				return err
			}
		}
		if recheck != nil {
			if err := c.put(bucketRecheck, recheck, nil); err != nil {
				return err
			}
		}
	}
	return index.write(guid[:], before, record)
}

// deleteEntries deletes the merged entries from the journal. Deleting the bucket is much faster
// than deleting its keys.
func (m *merge) deleteEntries(c change) error {
	journal := c.Bucket(bucketJournal)
	sequence := journal.Sequence()
	var remaining []recordWrite
	cursor := journal.Cursor()
	for key, chunk := cursor.Seek(chunkKey(m.last + 1)); key != nil; key, chunk = cursor.Next() {
		remaining = append(remaining, recordWrite{bucketJournal, bytes.Clone(key), bytes.Clone(chunk)})
		m.remaining += int64(len(chunk))
	}
	if err := c.empty(bucketJournal); err != nil {
		return err
	}
	if len(remaining) == 0 {
		return c.setVersion(currentVersion)
	}
	if err := c.Bucket(bucketJournal).SetSequence(sequence); err != nil {
		return err
	}
	for _, w := range remaining {
		if err := c.write(w.bucket, w.key, w.value); err != nil {
			return err
		}
	}
	return nil
}
