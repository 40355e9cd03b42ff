package state

import (
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// RejectedRemedy is what to do about rejected objects.
const RejectedRemedy = "correct in the directory what the reason of each object names (adconnector status lists them); a changed object is sent again in the next run"

// Rejection is an object whose current value the gateway rejected.
type Rejection struct {
	GUID     ad.GUID       `json:"-"`
	SID      string        `json:"sid"`
	Kind     identity.Kind `json:"kind"`
	Value    []byte        `json:"value"` // fingerprint of the rejected value
	Reason   string        `json:"reason"`
	Attempts int           `json:"attempts"` // consecutive rejections
	At       time.Time     `json:"at"`
}

// reject records a rejection. The gateway may still have a previous value of the object,
// which therefore stays in the index, without a fingerprint.
func (j *Journal) reject(c change, r RejectedObject) error {
	object := r.Object
	object.Fingerprint = identity.Fingerprint{}
	if err := putObject(c, object, j.batchID(noBatch)); err != nil {
		return err
	}
	var before Rejection
	if err := getJSON(c.Bucket(bucketRejections), object.GUID[:], &before); err != nil {
		return err
	}
	return c.putJSON(bucketRejections, object.GUID[:], Rejection{
		SID: object.SID.String(), Kind: object.Kind, Value: r.Object.Fingerprint[:],
		Reason: r.Reason, Attempts: before.Attempts + 1, At: j.now,
	})
}

// Rejections returns up to limit rejections and their total number. A negative limit
// means no limit.
func (s *Store) Rejections(limit int) (rejections []Rejection, total int, err error) {
	err = s.view("read rejections", func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRejections).ForEach(func(key, value []byte) error {
			if total++; limit >= 0 && total > limit {
				return nil
			}
			r := Rejection{GUID: ad.GUID(key)}
			err := decodeJSON(value, &r)
			rejections = append(rejections, r)
			return err
		})
	})
	return rejections, total, err
}
