package state

import (
	"encoding/binary"
	"fmt"
)

// firstVersion is the oldest format that is still taken over. It differs from today's
// in that it has no sums.
const firstVersion = 1

// readable reports whether a file of that format can be looked at as it is.
func readable(stored []byte) bool {
	format := binary.BigEndian.AppendUint32(nil, firstVersion)
	return string(stored) == string(currentVersion) || string(stored) == string(format)
}

// formatName is a format as people say it.
func formatName(stored []byte) string {
	if len(stored) != 4 {
		return fmt.Sprintf("%#x", stored)
	}
	return fmt.Sprint(binary.BigEndian.Uint32(stored))
}

// upgrade makes a file of an older format one of today's, whole or not at all. The
// older program does not take it any more.
func upgrade(c change) error {
	if string(c.Bucket(bucketMeta).Get(keyVersion)) == string(currentVersion) {
		return nil
	}
	if _, err := c.CreateBucket(bucketSums); err != nil {
		return err
	}
	for _, name := range buckets {
		bucket, err := c.CreateBucketIfNotExists(name)
		if err != nil {
			return err
		}
		err = bucket.ForEach(func(key, value []byte) error {
			c.added[string(name)] += sumOf(key, value)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.put(bucketMeta, keyVersion, currentVersion)
}
