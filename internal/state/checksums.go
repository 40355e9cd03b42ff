package state

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
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
}

func (c change) put(bucket, key, value []byte) error {
	b := c.Bucket(bucket)
	if before := b.Get(key); before != nil {
		c.deltas[string(bucket)] -= recordChecksum(key, before)
	}
	if value == nil {
		value = []byte{} // Get returns nil only for a missing key
	}
	c.deltas[string(bucket)] += recordChecksum(key, value)
	return b.Put(key, value)
}

func (c change) delete(bucket, key []byte) error {
	b := c.Bucket(bucket)
	before := b.Get(key)
	if before == nil {
		return nil
	}
	c.deltas[string(bucket)] -= recordChecksum(key, before)
	return b.Delete(key)
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
	return c.Bucket(bucketChecksums).Delete(bucket)
}

// writeChecksums updates the stored checksums. It must be the last write.
func (c change) writeChecksums() error {
	checksums := c.Bucket(bucketChecksums)
	for bucket, delta := range c.deltas {
		sum := storedChecksum(checksums, []byte(bucket)) + delta
		if err := checksums.Put([]byte(bucket), binary.BigEndian.AppendUint64(nil, sum)); err != nil {
			return err
		}
	}
	return nil
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
func compareChecksums(tx *bbolt.Tx, computed map[string]uint64) error {
	if len(computed) == 0 {
		return nil // new file
	}
	meta, checksums := tx.Bucket(bucketMeta), tx.Bucket(bucketChecksums)
	switch {
	case meta == nil:
		return fmt.Errorf("%s: %w", bucketMeta, errNoBucket)
	case checksums == nil && string(meta.Get(keyVersion)) != string(currentVersion):
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
	return nil
}

// requiredBuckets returns the buckets that a file of a format must have.
func requiredBuckets(stored []byte) [][]byte {
	switch {
	case string(stored) == string(currentVersion):
		return buckets
	case isSupported(stored):
		return bucketsV2
	}
	return [][]byte{bucketMeta}
}

// recordChecksum returns the FNV-1a hash of a record. It detects accidental changes, not
// manipulation.
func recordChecksum(key, value []byte) uint64 {
	sum := fnv.New64a()
	sum.Write(key)
	sum.Write([]byte{byte(len(key))}) // separates key and value; no key is longer than 255 bytes
	sum.Write(value)
	return sum.Sum64()
}
