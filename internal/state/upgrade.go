package state

import (
	"encoding/binary"
	"fmt"
)

// oldestVersion is the oldest supported format. It has no checksums.
const oldestVersion = 1

// isSupported reports whether this program can read a file of the stored format.
func isSupported(stored []byte) bool {
	return len(stored) == 4 && binary.BigEndian.Uint32(stored) >= oldestVersion && binary.BigEndian.Uint32(stored) <= version
}

// versionText returns a stored format version for an error text.
func versionText(stored []byte) string {
	if len(stored) != 4 {
		return fmt.Sprintf("%#x", stored)
	}
	return fmt.Sprint(binary.BigEndian.Uint32(stored))
}

// upgrade converts a file of an older format to the current one. Older programs refuse
// the converted file.
func upgrade(c change) error {
	if string(c.Bucket(bucketMeta).Get(keyVersion)) == string(currentVersion) {
		return nil
	}
	if _, err := c.CreateBucket(bucketChecksums); err != nil {
		return err
	}
	for _, name := range buckets {
		bucket, err := c.CreateBucketIfNotExists(name)
		if err != nil {
			return err
		}
		err = bucket.ForEach(func(key, value []byte) error {
			c.deltas[string(name)] += recordChecksum(key, value)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.put(bucketMeta, keyVersion, currentVersion)
}
