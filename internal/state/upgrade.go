package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"adconnector/internal/ad"
)

// oldestVersion is the oldest supported format. It has no checksums.
const oldestVersion = 1

// isSupported reports whether this program can read a file of the stored format.
func isSupported(stored []byte) bool {
	return len(stored) == 4 && binary.BigEndian.Uint32(stored) >= oldestVersion && binary.BigEndian.Uint32(stored) <= journalVersion
}

// isCurrent reports whether a file of the stored format needs no upgrade.
func isCurrent(stored []byte) bool {
	return string(stored) == string(currentVersion) || string(stored) == string(unmergedVersion)
}

// versionText returns a stored format version for an error text.
func versionText(stored []byte) string {
	if len(stored) != 4 {
		return fmt.Sprintf("%#x", stored)
	}
	return fmt.Sprint(binary.BigEndian.Uint32(stored))
}

// Names of format 2.
var (
	bucketWatermarksV2  = []byte("watermarks") // invocation ID → watermark
	keyLastControllerV2 = []byte("last read")  // invocation ID

	bucketsV2 = [][]byte{bucketMeta, bucketRuns, bucketIndex, bucketInFlight, bucketRecheck, bucketRejections, bucketHeld, bucketWatermarksV2}
)

// upgrade converts a file of an older format to the current one. Older programs refuse
// the converted file.
func upgrade(c change) error {
	stored := binary.BigEndian.Uint32(c.Bucket(bucketMeta).Get(keyVersion))
	if stored == 1 {
		if err := addChecksums(c); err != nil {
			return err
		}
	}
	if stored <= 2 {
		if err := addControllers(c); err != nil {
			return err
		}
	}
	if isCurrent(c.Bucket(bucketMeta).Get(keyVersion)) {
		return nil
	}
	return c.put(bucketMeta, keyVersion, currentVersion)
}

// addChecksums converts format 1, which has no checksums, to format 2.
func addChecksums(c change) error {
	if _, err := c.CreateBucket(bucketChecksums); err != nil {
		return err
	}
	for _, name := range bucketsV2 {
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
	return nil
}

// addControllers converts format 2 to format 3. Format 2 had the last full sync of any domain
// controller, and in each record the beginning of the invocation ID of the domain controller
// that showed the object last. The last domain controller keeps its watermark if all records
// are from it. Others lose theirs: their next sync is a full one.
func addControllers(c change) error {
	for _, name := range [][]byte{bucketViews, bucketDeleted, bucketControllers, bucketUnseen} {
		if _, err := c.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	var id ad.InvocationID
	copy(id[:], c.Bucket(bucketMeta).Get(keyLastControllerV2))
	run := c.Bucket(bucketInFlight).Sequence()
	var last struct {
		USN   ad.USN    `json:"usn"`
		Scope string    `json:"scope"`
		At    time.Time `json:"at"`
	}
	if err := getJSON(c.Bucket(bucketWatermarksV2), id[:], &last); err != nil {
		return err
	}
	var full FullSync
	if err := getJSON(c.Bucket(bucketMeta), keyFullSync, &full); err != nil {
		return err
	}
	if full.Scope != "" {
		unseen := recordsOfOthersV2(c, id)
		controller := Controller{Watermark: Watermark{Scope: full.Scope, At: full.At, Run: run}, LastFull: full}
		if len(unseen) == 0 && last.Scope == full.Scope {
			controller.Watermark.USN, controller.Watermark.At = last.USN, last.At
		}
		view := View{InvocationID: id, Scope: full.Scope}
		err := errors.Join(putView(c, 0, view), c.putJSON(bucketControllers, id[:], controller), putUnseen(c, id, unseen))
		if err != nil {
			return err
		}
	}
	if err := c.drop(bucketWatermarksV2); err != nil {
		return err
	}
	return c.delete(bucketMeta, keyLastControllerV2)
}

// recordsOfOthersV2 returns the objects that another domain controller has shown last.
func recordsOfOthersV2(c change, id ad.InvocationID) (guids []ad.GUID) {
	cursor := c.Bucket(bucketIndex).Cursor()
	for key, record := cursor.First(); key != nil; key, record = cursor.Next() {
		if isRecord(record) && string(record[firstRunOffset:sidOffset]) != string(id[:sidOffset-firstRunOffset]) {
			guids = append(guids, ad.GUID(key))
		}
	}
	return guids
}
