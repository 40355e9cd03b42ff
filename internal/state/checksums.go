package state

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// The state file has a checksum of the records of each bucket, which every transaction
// updates. bbolt itself has checksums of its two meta pages only. Most flipped bits in a
// key or value leave a valid page structure, which the page walk accepts: of 1,500
// random flips, only the bucket checksums detected 211. A changed GUID would look like a
// deleted object, and a changed USN would skip changes.

// bucketChecksums contains the checksum of each other bucket.
var bucketChecksums = []byte("sums") // bucket name → checksum

// change is a write transaction. All writes must use its methods, which keep the
// checksums correct.
type change struct {
	*bbolt.Tx
	deltas map[string]uint64 // bucket → change of its checksum, modulo 2^64
	index  *indexWriter
}

func (c change) put(bucket, key, value []byte) error {
	return c.replace(bucket, key, c.Bucket(bucket).Get(key), value)
}

// replace is put for a key whose value is known; nil: the key does not exist.
func (c change) replace(bucket, key, before, value []byte) error {
	if value == nil {
		value = []byte{} // Get returns nil only for a missing key
	}
	w := bucketWriter{change: c, name: bucket, Bucket: c.Bucket(bucket)}
	defer w.close()
	return w.write(key, before, value)
}

func (c change) delete(bucket, key []byte) error {
	w := bucketWriter{change: c, name: bucket, Bucket: c.Bucket(bucket)}
	defer w.close()
	return w.write(key, w.Get(key), nil)
}

// bucketWriter writes records of one bucket. close must be called before the end of the transaction.
type bucketWriter struct {
	*bbolt.Bucket
	change change
	name   []byte
	sum    uint64 // change of the checksum
	count  int    // change of the number of records
}

// write replaces the value of a key. nil means that the key does not exist.
func (w *bucketWriter) write(key, before, value []byte) error {
	if before != nil {
		w.sum -= recordChecksum(key, before)
		w.count--
	}
	if value != nil {
		w.sum += recordChecksum(key, value)
		w.count++
		return w.Put(key, value)
	}
	if before != nil {
		return w.Delete(key)
	}
	return nil
}

// close records the changes of the checksum and of the number of records.
func (w *bucketWriter) close() {
	if w.sum != 0 {
		w.change.deltas[string(w.name)] += w.sum
	}
	if w.count != 0 {
		w.change.countRecord(w.name, w.count)
	}
}

// write puts a value, or deletes the key if the value is nil.
func (c change) write(bucket, key, value []byte) error {
	if value == nil {
		return c.delete(bucket, key)
	}
	return c.put(bucket, key, value)
}

// empty deletes all records of a bucket.
func (c change) empty(bucket []byte) error {
	if err := c.drop(bucket); err != nil {
		return err
	}
	_, err := c.CreateBucket(bucket)
	return err
}

// drop deletes a bucket.
func (c change) drop(bucket []byte) error {
	if err := c.DeleteBucket(bucket); err != nil {
		return err
	}
	delete(c.deltas, string(bucket))
	if err := c.Bucket(bucketChecksums).Delete(bucket); err != nil || string(bucket) != string(bucketIndex) {
		return err
	}
	delete(c.deltas, keyIndexCount)
	return putIndexCount(c, 0)
}

// writeChecksums updates the stored checksums and the count of the index. It must be the last
// write.
func (c change) writeChecksums() error {
	checksums := c.Bucket(bucketChecksums)
	count, counted := storedIndexCount(c.Tx)
	countDelta := c.deltas[keyIndexCount]
	delete(c.deltas, keyIndexCount)
	for bucket, delta := range c.deltas {
		sum := storedChecksum(checksums, []byte(bucket)) + delta
		if err := checksums.Put([]byte(bucket), binary.BigEndian.AppendUint64(nil, sum)); err != nil {
			return err
		}
	}
	if _, changed := c.deltas[string(bucketIndex)]; changed && counted {
		return putIndexCount(c, count+countDelta)
	}
	return ensureIndexCount(c)
}

// storedChecksum returns the checksum of a bucket; 0 if there is none.
func storedChecksum(checksums *bbolt.Bucket, name []byte) uint64 {
	if stored := checksums.Get(name); len(stored) == 8 {
		return binary.BigEndian.Uint64(stored)
	}
	return 0
}

// compareChecksums compares the checksums that the page walk computed with the stored
// ones. In a file of a newer format, it checks the meta bucket only.
func compareChecksums(tx *bbolt.Tx, w *pageWalk) error {
	computed := w.checksums
	if len(computed) == 0 {
		return nil // new file
	}
	meta, checksums := tx.Bucket(bucketMeta), tx.Bucket(bucketChecksums)
	switch {
	case meta == nil:
		return fmt.Errorf("%s: %w", bucketMeta, errNoBucket)
	case checksums == nil && !isCurrent(meta.Get(keyVersion)):
		return nil
	case checksums == nil:
		return fmt.Errorf("%s: %w", bucketChecksums, errNoBucket)
	}
	required := requiredBuckets(meta.Get(keyVersion))
	for i, name := range slices.Concat(required, optionalBuckets) {
		sum, found := computed[string(name)]
		if !found && i < len(required) {
			return fmt.Errorf("%s: %w", name, errNoBucket)
		}
		if sum != storedChecksum(checksums, name) {
			return fmt.Errorf("%s: %w", name, errChecksum)
		}
	}
	return compareIndexCount(tx, w.records[string(bucketIndex)])
}

// requiredBuckets returns the buckets that a file of a format must have.
func requiredBuckets(stored []byte) [][]byte {
	switch {
	case isCurrent(stored):
		return buckets
	case isSupported(stored):
		return bucketsV2
	}
	return [][]byte{bucketMeta}
}

// recordChecksum returns the FNV-1a hash of a record. It detects accidental changes, not
// manipulation.
func recordChecksum(key, value []byte) uint64 {
	sum := hashBytes(fnvOffset, key)
	sum = (sum ^ uint64(byte(len(key)))) * fnvPrime // separates key and value; no key is longer than 255 bytes
	return hashBytes(sum, value)
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// hashBytes adds data to an FNV-1a hash.
func hashBytes(sum uint64, data []byte) uint64 {
	for _, b := range data {
		sum = (sum ^ uint64(b)) * fnvPrime
	}
	return sum
}

// hashLanes is the number of hashes that are computed at the same time. Each byte of a hash
// depends on the multiplication for the byte before, so that one hash uses a fraction of the
// processor.
const hashLanes = 4

// recordSum adds up the checksums of records.
type recordSum struct {
	sum, records uint64
	keys, values [hashLanes][]byte // of the last records, which are not in sum
	pending      int
}

// add adds a record. Its key and value must not change until flush is called.
func (s *recordSum) add(key, value []byte) {
	s.keys[s.pending], s.values[s.pending] = key, value
	s.records++
	if s.pending++; s.pending == hashLanes {
		sums := [hashLanes]uint64{fnvOffset, fnvOffset, fnvOffset, fnvOffset}
		hashInLanes(&sums, &s.keys)
		for lane, key := range s.keys {
			sums[lane] = (sums[lane] ^ uint64(byte(len(key)))) * fnvPrime // as in recordChecksum
		}
		hashInLanes(&sums, &s.values)
		s.sum += sums[0] + sums[1] + sums[2] + sums[3]
		s.pending = 0
	}
}

// flush completes sum.
func (s *recordSum) flush() {
	for i := range s.pending {
		s.sum += recordChecksum(s.keys[i], s.values[i])
	}
	s.pending = 0
}

// hashInLanes is hashBytes for several hashes.
func hashInLanes(sums *[hashLanes]uint64, data *[hashLanes][]byte) {
	n := min(len(data[0]), len(data[1]), len(data[2]), len(data[3]))
	d0, d1, d2, d3 := data[0][:n], data[1][:n], data[2][:n], data[3][:n]
	s0, s1, s2, s3 := sums[0], sums[1], sums[2], sums[3]
	for i := range d0 {
		s0 = (s0 ^ uint64(d0[i])) * fnvPrime
		s1 = (s1 ^ uint64(d1[i])) * fnvPrime
		s2 = (s2 ^ uint64(d2[i])) * fnvPrime
		s3 = (s3 ^ uint64(d3[i])) * fnvPrime
	}
	*sums = [hashLanes]uint64{s0, s1, s2, s3}
	for lane := range data {
		sums[lane] = hashBytes(sums[lane], data[lane][n:])
	}
}
