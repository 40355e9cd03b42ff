package state

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// The number of records of bucketIndex is stored, because counting them reads the whole index. Each
// transaction that changes the index updates it. An older program that supports the same format
// changes the index and not the count. Therefore, the count is stored together with the checksum of
// the index to which it belongs. With another checksum, it counts as missing, and the records are
// counted again.

// keyIndexCount is the key of the count in bucketChecksums: number, checksum of the index.
// In change.deltas, it is the key of the change of the number.
const keyIndexCount = "index count"

// storedIndexCount returns the stored number of records of the index. ok is false if it is missing.
func storedIndexCount(tx *bbolt.Tx) (count uint64, ok bool) {
	checksums := tx.Bucket(bucketChecksums)
	if checksums == nil {
		return 0, false
	}
	stored := checksums.Get([]byte(keyIndexCount))
	if len(stored) != 16 || binary.BigEndian.Uint64(stored[8:]) != storedChecksum(checksums, bucketIndex) {
		return 0, false
	}
	return binary.BigEndian.Uint64(stored), true
}

// indexCount returns the number of records of bucketIndex.
func indexCount(tx *bbolt.Tx) int {
	if count, ok := storedIndexCount(tx); ok {
		return int(count)
	}
	return tx.Bucket(bucketIndex).Stats().KeyN // of what is written, without the changes of tx
}

// ensureIndexCount stores the count of a file that an older program wrote.
func ensureIndexCount(c change) error {
	if _, ok := storedIndexCount(c.Tx); ok || c.Bucket(bucketChecksums) == nil {
		return nil
	}
	count := uint64(0)
	err := c.Bucket(bucketIndex).ForEach(func([]byte, []byte) error {
		count++
		return nil
	})
	if err != nil {
		return err
	}
	return putIndexCount(c, count)
}

// putIndexCount stores the count together with the stored checksum of the index.
func putIndexCount(c change, count uint64) error {
	checksums := c.Bucket(bucketChecksums)
	value := binary.BigEndian.AppendUint64(nil, count)
	return checksums.Put([]byte(keyIndexCount), binary.BigEndian.AppendUint64(value, storedChecksum(checksums, bucketIndex)))
}

// countRecord changes the number of records by one or minus one.
func (c change) countRecord(bucket []byte, by int) {
	if string(bucket) == string(bucketIndex) {
		c.deltas[keyIndexCount] += uint64(by)
	}
}

// compareIndexCount compares the stored count with the one that the page walk computed.
func compareIndexCount(tx *bbolt.Tx, computed uint64) error {
	if stored, ok := storedIndexCount(tx); ok && stored != computed {
		return fmt.Errorf("%s: %w", keyIndexCount, errChecksum)
	}
	return nil
}
