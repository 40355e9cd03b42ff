package state

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// bbolt has checksums of its two heads and of nothing else: a bit that flips in a
// record, in a key, or in the number of records of a page goes unseen. A GUID that
// has changed by a bit would pass for an object that is gone, and a sequence number
// for changes that were followed. So each bucket has a sum of its records, kept in
// step with every change, and a file in which one does not agree is damaged.

// bucketSums holds the sum of each other bucket.
var bucketSums = []byte("sums") // name → sum

// change is a transaction that writes. Whatever it writes goes through its own
// methods, so that the sums stay right.
type change struct {
	*bbolt.Tx
	added map[string]uint64 // to the sum of a bucket, modulo 2^64
}

func (c change) put(bucket, key, value []byte) error {
	b := c.Bucket(bucket)
	if before := b.Get(key); before != nil {
		c.added[string(bucket)] -= sumOf(key, before)
	}
	if value == nil {
		value = []byte{} // by nil, Get says that there is none
	}
	c.added[string(bucket)] += sumOf(key, value)
	return b.Put(key, value)
}

func (c change) delete(bucket, key []byte) error {
	b := c.Bucket(bucket)
	if before := b.Get(key); before != nil {
		c.added[string(bucket)] -= sumOf(key, before)
	}
	return b.Delete(key)
}

// empty takes everything out of a bucket.
func (c change) empty(bucket []byte) error {
	if err := c.DeleteBucket(bucket); err != nil {
		return err
	}
	if err := c.Bucket(bucketSums).Delete(bucket); err != nil {
		return err
	}
	delete(c.added, string(bucket))
	_, err := c.CreateBucket(bucket)
	return err
}

// settle writes the sums down.
func (c change) settle() error {
	sums := c.Bucket(bucketSums)
	for bucket, added := range c.added {
		sum := added
		if stored := sums.Get([]byte(bucket)); len(stored) == 8 {
			sum += binary.BigEndian.Uint64(stored)
		}
		if err := sums.Put([]byte(bucket), binary.BigEndian.AppendUint64(nil, sum)); err != nil {
			return err
		}
	}
	return nil
}

// checkSums holds the sum of each bucket against the one that was kept. What another
// format has beyond its meta is not judged.
func checkSums(tx *bbolt.Tx, found map[string]uint64) error {
	if len(found) == 0 {
		return nil // nothing was ever written
	}
	meta, sums := tx.Bucket(bucketMeta), tx.Bucket(bucketSums)
	switch {
	case meta == nil:
		return fmt.Errorf("%s: %w", bucketMeta, errNoBucket)
	case sums == nil && string(meta.Get(keyVersion)) != string(currentVersion):
		return nil
	case sums == nil:
		return fmt.Errorf("%s: %w", bucketSums, errNoBucket)
	}
	for _, name := range append(buckets, graphBuckets...) { // meta is the first
		sum, there := found[string(name)]
		if !there && !isGraph(name) {
			return fmt.Errorf("%s: %w", name, errNoBucket)
		}
		var kept uint64
		if stored := sums.Get(name); len(stored) == 8 {
			kept = binary.BigEndian.Uint64(stored)
		}
		if sum != kept {
			return fmt.Errorf("%s: %w", name, errSum)
		}
		if string(meta.Get(keyVersion)) != string(currentVersion) {
			return nil
		}
	}
	return nil
}

// sumOf is FNV-1a of a record: it is to find accidents, not malice.
func sumOf(key, value []byte) uint64 {
	const prime = 1099511628211
	sum := uint64(14695981039346656037)
	for _, b := range key {
		sum = (sum ^ uint64(b)) * prime
	}
	sum = (sum ^ uint64(len(key))) * prime // where the key ends
	for _, b := range value {
		sum = (sum ^ uint64(b)) * prime
	}
	return sum
}
