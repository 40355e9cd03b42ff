package state

import (
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"
)

// Run is the account of one run.
type Run struct {
	ID       string        `json:"run_id"`
	Mode     string        `json:"mode"`   // full, delta
	Result   string        `json:"result"` // processed, partial, held, failed
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration_ns"`
	Error    string        `json:"error,omitempty"`
	Remedy   string        `json:"remedy,omitempty"` // of the error
	Class    string        `json:"class,omitempty"`  // of the error

	Users    int `json:"users"`    // read and mapped
	Groups   int `json:"groups"`   // read and mapped
	Changed  int `json:"changed"`  // differ from what was acknowledged
	Uploaded int `json:"uploaded"` // acknowledged in this run
	Deleted  int `json:"deleted"`  // of those, as deleted
	Held     int `json:"held"`     // deletions that the guard holds
	Rejected int `json:"rejected"`
	Skipped  int `json:"skipped"`  // entries that are no objects to us: no SID or no GUID
	Requests int `json:"requests"` // to the gateway
	Retries  int `json:"retries"`  // of those
}

// RecordRun records a run, dropping the oldest above 200, and the state in which the connector
// is after it.
func (s *Store) RecordRun(run Run, to Connector) error {
	return s.update("record run", func(c change) error {
		if err := c.putJSON(bucketMeta, keyConnector, to); err != nil {
			return err
		}
		number, err := c.Bucket(bucketRuns).NextSequence()
		if err != nil {
			return err
		}
		if number > keptRuns {
			if err := c.delete(bucketRuns, binary.BigEndian.AppendUint64(nil, number-keptRuns)); err != nil {
				return err
			}
		}
		if run.Error == "" {
			if err := c.putJSON(bucketMeta, keySuccess, run.Start); err != nil {
				return err
			}
		}
		return c.putJSON(bucketRuns, binary.BigEndian.AppendUint64(nil, number), run)
	})
}

// LastSuccess returns the start of the last run that did not fail; zero when there
// was none.
func (s *Store) LastSuccess() (at time.Time, err error) {
	err = s.view("read last success", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketMeta), keySuccess, &at)
	})
	return at, err
}

// Runs returns the recorded runs, the latest first.
func (s *Store) Runs() ([]Run, error) {
	var list []Run
	err := s.view("read runs", func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketRuns).Cursor()
		for key, value := cursor.Last(); key != nil; key, value = cursor.Prev() {
			var run Run
			if err := decodeJSON(value, &run); err != nil {
				return err
			}
			list = append(list, run)
		}
		return nil
	})
	return list, err
}
