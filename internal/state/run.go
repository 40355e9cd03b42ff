package state

import (
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"
)

// Run is the summary of one run.
type Run struct {
	ID         string    `json:"run_id"`
	Mode       string    `json:"mode"`   // full, delta
	Result     string    `json:"result"` // processed, partial, held, failed
	Start      time.Time `json:"start"`
	DurationMS int64     `json:"duration_ms"`
	Error      string    `json:"error,omitempty"`
	Remedy     string    `json:"remedy,omitempty"` // of the error
	Class      string    `json:"class,omitempty"`  // of the error
	// Controller is the directory server that was read: its DNS name, or the address that was dialed.
	Controller string `json:"dc,omitempty"`
	// Unreached are the servers that were tried before it, at most MaxUnreached.
	Unreached []UnreachedServer `json:"unreached,omitempty"`
	Stages    []Stage           `json:"stages,omitempty"` // in order

	// The objects that were read and mapped. A version before 1.1.0 counted service accounts as users,
	// and neither roles nor the domain.
	Users           int `json:"users"`
	Groups          int `json:"groups"`
	ServiceAccounts int `json:"service_accounts"`
	Roles           int `json:"roles"`
	Domains         int `json:"domains"`
	// Reread objects were read again only because a delta sync begins below the watermark, and had
	// not changed. They are not among the objects read.
	Reread int `json:"reread"`

	Changed   int `json:"changed"`   // differ from the acknowledged value
	Uploaded  int `json:"uploaded"`  // acknowledged, without deletions
	Deleted   int `json:"deleted"`   // acknowledged deletions
	Held      int `json:"held"`      // held deletions
	Undecided int `json:"undecided"` // undecided deletions
	Rejected  int `json:"rejected"`
	Skipped   int `json:"skipped"` // entries without an SID or a GUID
	// Unreadable objects lack an attribute that every such object has, because the account may not
	// read it. Objects that lack only the security descriptor were sent without controlledBy. The others
	// were not sent. An entry without an identifier counts here too, if a right is missing.
	Unreadable int `json:"unreadable"`
	// MissingRights are the attributes that the unreadable objects lack, and RightsRemedy how to
	// grant them.
	MissingRights []string `json:"missing_rights,omitempty"`
	RightsRemedy  string   `json:"rights_remedy,omitempty"`
	Requests      int      `json:"requests"` // to the gateway, including retries
	Retries       int      `json:"retries"`
}

// Duration returns how long the run took.
func (r Run) Duration() time.Duration { return time.Duration(r.DurationMS) * time.Millisecond }

// Read returns the number of objects that were read and mapped, without Reread.
func (r Run) Read() int { return r.Users + r.Groups + r.ServiceAccounts + r.Roles + r.Domains }

// storedRun is a run as the state file has it. Version 1.0.0 reads the same field.
type storedRun struct {
	Run
	DurationNS time.Duration `json:"duration_ns"`
}

// Stage is a part of a run.
type Stage struct {
	Name       string `json:"stage"` // connect, memberships, logons, read, settle, drain, record
	DurationMS int64  `json:"duration_ms"`
}

// UnreachedServer is a directory server with which a run could not open a session.
type UnreachedServer struct {
	Server string `json:"server"` // address
	Error  string `json:"error"`
	Remedy string `json:"remedy,omitempty"`
}

// MaxUnreached is the maximum number of servers in Run.Unreached.
const MaxUnreached = 10

// Unreadable are the objects that the account cannot read: those of the last full sync, or those of
// a later delta sync if it found more. A delta sync without them proves nothing, because it reads
// changed objects only. The zero value means none.
type Unreadable struct {
	Objects    int       `json:"objects"`
	Attributes []string  `json:"attributes"` // that they lack
	Remedy     string    `json:"remedy"`
	At         time.Time `json:"at"` // start of that run
}

// RecordRun records a run and the connector's state after it in one transaction. It
// deletes the oldest run if there are more than 200.
//
// It merges the journal of a failed run, which would take memory until the next one. Without space on the
// disk, the journal stays.
func (s *Store) RecordRun(run Run, connector Connector) error {
	if err := s.recordRun(run, connector); err != nil {
		return err
	}
	if err := s.merge(); !isNoSpace(err) {
		return err
	}
	return nil
}

func (s *Store) recordRun(run Run, connector Connector) error {
	return s.update("record run", func(c change) error {
		if err := c.putJSON(bucketMeta, keyConnector, connector); err != nil {
			return err
		}
		number, err := c.Bucket(bucketRuns).NextSequence()
		if err != nil {
			return err
		}
		if number > maxRuns {
			if err := c.delete(bucketRuns, binary.BigEndian.AppendUint64(nil, number-maxRuns)); err != nil {
				return err
			}
		}
		if run.Error == "" {
			if err := c.putJSON(bucketMeta, keySuccess, run.Start); err != nil {
				return err
			}
			if err := c.putUnreadable(run); err != nil {
				return err
			}
		}
		return c.putJSON(bucketRuns, binary.BigEndian.AppendUint64(nil, number), storedRun{run, run.Duration()})
	})
}

// modeFull is the mode of a run that read all objects.
const modeFull = "full"

// putUnreadable records the unreadable objects of a run that did not fail.
func (c change) putUnreadable(run Run) error {
	var recorded Unreadable
	if err := getJSON(c.Bucket(bucketMeta), keyUnreadable, &recorded); err != nil {
		return err
	}
	if run.Mode != modeFull && run.Unreadable <= recorded.Objects {
		return nil
	}
	if run.Unreadable == 0 {
		return c.delete(bucketMeta, keyUnreadable)
	}
	return c.putJSON(bucketMeta, keyUnreadable, Unreadable{run.Unreadable, run.MissingRights, run.RightsRemedy, run.Start})
}

// Unreadable returns the objects that the account cannot read, or the zero value.
func (s *Store) Unreadable() (Unreadable, error) {
	return readMeta[Unreadable](s, "read unreadable objects", keyUnreadable)
}

// LastSuccess returns the start of the last run without an error, or the zero time.
func (s *Store) LastSuccess() (time.Time, error) {
	return readMeta[time.Time](s, "read last success", keySuccess)
}

// Runs returns the recorded runs, the latest first.
func (s *Store) Runs() ([]Run, error) {
	var runs []Run
	err := s.view("read runs", func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketRuns).Cursor()
		for key, value := cursor.Last(); key != nil; key, value = cursor.Prev() {
			var run storedRun
			if err := decodeJSON(value, &run); err != nil {
				return err
			}
			run.DurationMS = run.DurationNS.Milliseconds()
			runs = append(runs, run.Run)
		}
		return nil
	})
	return runs, err
}

// Connector is the connector's state and its cause.
type Connector struct {
	State   string    `json:"state"`
	RunID   string    `json:"run_id,omitempty"`
	At      time.Time `json:"at"`
	NextRun time.Time `json:"next_run,omitzero"`
	Error   string    `json:"error,omitempty"`
	Remedy  string    `json:"remedy,omitempty"` // of the error
}

// Connector returns the last recorded state, or the zero value.
func (s *Store) Connector() (Connector, error) {
	return readMeta[Connector](s, "read connector state", keyConnector)
}

// SetConnector records the connector's state.
func (s *Store) SetConnector(connector Connector) error {
	return s.update("record connector state", func(c change) error {
		return c.putJSON(bucketMeta, keyConnector, connector)
	})
}
