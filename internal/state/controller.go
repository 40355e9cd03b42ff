package state

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// Watermark means that every change of a domain controller up to a USN is acknowledged,
// or recorded as rejected or held. It is valid only for the invocation ID under which it
// is stored, and for its scope.
type Watermark struct {
	USN   ad.USN    `json:"usn"` // 0: the server does not support delta syncs
	Scope string    `json:"scope"`
	At    time.Time `json:"at"`
	Run   uint64    `json:"run"` // the run that recorded it
}

// FullSync is a complete full sync of a scope.
type FullSync struct {
	Scope string    `json:"scope"`
	At    time.Time `json:"at"`
}

// Controller is the progress of the syncs with one domain controller.
type Controller struct {
	Watermark Watermark `json:"watermark"`
	LastFull  FullSync  `json:"full_sync"`
	Rollbacks int       `json:"rollbacks,omitempty"` // see View
}

// Controller returns the progress with a domain controller, or the zero value.
func (s *Store) Controller(id ad.InvocationID) (c Controller, err error) {
	err = s.view("read watermark", func(tx *bbolt.Tx) error {
		if stored := get(tx, bucketControllers, id[:]); stored != nil {
			return decodeJSON(stored, &c)
		}
		return nil
	})
	return c, err
}

// RecordRollback records that a domain controller was put back to an earlier state. Nothing
// that it showed before counts any more.
func (s *Store) RecordRollback(id ad.InvocationID) error {
	return s.update("record rollback", func(c change) error {
		var controller Controller
		if err := getJSON(c.Bucket(bucketControllers), id[:], &controller); err != nil {
			return err
		}
		if err := c.delete(bucketUnseen, id[:]); err != nil {
			return err
		}
		return c.putJSON(bucketControllers, id[:], Controller{Rollbacks: controller.Rollbacks + 1})
	})
}

// LastFullSync returns the last full sync with any server, or the zero value.
func (s *Store) LastFullSync() (FullSync, error) {
	return readMeta[FullSync](s, "read last full sync", keyFullSync)
}

// Progress is the result of a run whose objects are all acknowledged, rejected, held or
// undecided.
type Progress struct {
	View     View
	Run      uint64 // from Journal.Run
	At       time.Time
	USN      ad.USN // up to which all changes are read; 0: the server does not support delta syncs
	FullSync bool
	// Unseen are the indexed objects that the domain controller has never shown, sorted.
	Unseen []ad.GUID
	// RecheckTimes are the new recheck times of objects that were not sent.
	RecheckTimes map[ad.GUID]time.Time
	Server       Server // the server that was read
	ClearStale   bool   // the run has read and sent all stale objects
	DropGraph    bool   // the stored memberships are not needed any more
	// Readable are the counts of a full sync; nil: the recorded ones stay.
	Readable *ReadableAttributes
	// Logons is the sweep of a full sync; nil: there was none.
	Logons *LogonSweep
	// Containers are those of privileged objects; nil: the recorded ones stay.
	Containers *Containers
}

// ReadableAttributes are how many objects showed each optional attribute in the last complete full
// sync.
type ReadableAttributes struct {
	Scope   string                    `json:"scope"`
	Objects map[string]map[string]int `json:"objects"` // by kind and attribute
}

// ReadableAttributes returns the recorded counts, or the zero value.
func (s *Store) ReadableAttributes() (ReadableAttributes, error) {
	return readMeta[ReadableAttributes](s, "read readable attributes", keyReadable)
}

// Advance records the progress of a run. The watermark moves last, in one transaction: after the
// recheck times are recorded and the journal is merged. If one of these fails, it does not move.
func (s *Store) Advance(p Progress) error {
	if err := s.SetRecheckTimes(p.RecheckTimes); err != nil {
		return err
	}
	if err := s.merge(); err != nil {
		return err
	}
	return s.update("advance watermark", func(c change) error {
		if p.FullSync {
			if err := errors.Join(putFullSync(c, p), s.countResends(c, p.Run)); err != nil {
				return err
			}
		}
		if err := errors.Join(putMemberships(c, p), putContainers(c, p.Containers), c.putJSON(bucketMeta, keyLastServer, p.Server)); err != nil {
			return err
		}
		if err := c.delete(bucketMeta, keyFailedServer); err != nil || p.View.Unknown {
			return err
		}
		return putController(c, p)
	})
}

func putMemberships(c change, p Progress) error {
	switch {
	case p.DropGraph:
		return dropGraph(c)
	case p.ClearStale:
		return clearStale(c)
	}
	return nil
}

func putFullSync(c change, p Progress) error {
	if err := c.putJSON(bucketMeta, keyFullSync, FullSync{Scope: p.View.Scope, At: p.At}); err != nil {
		return err
	}
	if err := c.delete(bucketMeta, keyResend); err != nil {
		return err
	}
	if err := putLogonSweep(c, p.Logons); err != nil {
		return err
	}
	if p.Readable != nil {
		if err := c.putJSON(bucketMeta, keyReadable, p.Readable); err != nil {
			return err
		}
	}
	return pruneDeletions(c, p.At)
}

func putController(c change, p Progress) error {
	id := p.View.InvocationID
	var controller Controller
	if err := getJSON(c.Bucket(bucketControllers), id[:], &controller); err != nil {
		return err
	}
	controller.Watermark = Watermark{USN: p.USN, Scope: p.View.Scope, At: p.At, Run: p.Run}
	if p.FullSync {
		controller.LastFull = FullSync{Scope: p.View.Scope, At: p.At}
	}
	if err := c.putJSON(bucketControllers, id[:], controller); err != nil {
		return err
	}
	if err := putUnseen(c, id, p.Unseen); err != nil {
		return err
	}
	return forgetControllers(c, p.At)
}

// controllerLife is how long the progress with a domain controller is kept that is not read
// any more.
const controllerLife = 180 * 24 * time.Hour

// forgetControllers deletes the progress with domain controllers that have not been read for
// a long time, and the views that only they require.
func forgetControllers(c change, now time.Time) error {
	oldest := ^uint64(0)
	var forgotten [][]byte
	err := c.Bucket(bucketControllers).ForEach(func(id, value []byte) error {
		var controller Controller
		if err := decodeJSON(value, &controller); err != nil {
			return err
		}
		switch at := controller.Watermark.At; {
		case at.IsZero(): // put back, and not completely read since
		case now.Sub(at) > controllerLife:
			forgotten = append(forgotten, slices.Clone(id))
		case now.Sub(at) > deletionLife: // its watermark is too old for a delta sync
		default:
			oldest = min(oldest, controller.Watermark.Run)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range forgotten {
		if err := c.delete(bucketControllers, id); err != nil {
			return err
		}
		if err := c.delete(bucketUnseen, id); err != nil {
			return err
		}
	}
	return pruneViews(c, oldest)
}

// Unseen returns the objects that a domain controller had not shown at its last complete
// run, sorted. They may be in the index because another one has shown them.
func (s *Store) Unseen(id ad.InvocationID) (guids []ad.GUID, err error) {
	err = s.view("read unseen objects", func(tx *bbolt.Tx) error {
		guids = decodeUnseen(get(tx, bucketUnseen, id[:]))
		return nil
	})
	return guids, err
}

func decodeUnseen(value []byte) []ad.GUID {
	guids := make([]ad.GUID, 0, len(value)/len(ad.GUID{}))
	for guid := range slices.Chunk(value, len(ad.GUID{})) {
		guids = append(guids, ad.GUID(guid))
	}
	return guids
}

// putUnseen replaces the objects that a domain controller has not shown.
func putUnseen(c change, id ad.InvocationID, guids []ad.GUID) error {
	value := make([]byte, 0, len(guids)*len(ad.GUID{}))
	for _, guid := range guids {
		value = append(value, guid[:]...)
	}
	if before := c.Bucket(bucketUnseen).Get(id[:]); bytes.Equal(before, value) {
		return nil
	}
	return c.put(bucketUnseen, id[:], value)
}

// Sighting is which domain controllers have shown an object.
type Sighting struct {
	Here           bool // the domain controller of the view has
	HereInScope    bool // and it did so in the scope of the view
	BeforeRollback bool // the domain controller of the view had, before it was put back to an earlier state
	Elsewhere      []ad.InvocationID
	Unknown        bool // so has a domain controller whose invocation ID was unreadable
}

func (s *Sighting) add(shownBy, view View) {
	switch {
	case shownBy.Unknown:
		s.Unknown = true
	case shownBy.InvocationID != view.InvocationID:
		if !slices.Contains(s.Elsewhere, shownBy.InvocationID) {
			s.Elsewhere = append(s.Elsewhere, shownBy.InvocationID)
		}
	case shownBy.Rollbacks != view.Rollbacks:
		s.BeforeRollback = true
	default:
		s.Here = true
		s.HereInScope = s.HereInScope || shownBy.Scope == view.Scope
	}
}

// ControllerSet is a set of domain controllers. The zero value is empty. Equal sets are equal
// values.
type ControllerSet string // the bytes of the invocation IDs, sorted

// NewControllerSet returns a set. It ignores duplicates.
func NewControllerSet(ids ...ad.InvocationID) ControllerSet {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b ad.InvocationID) int { return bytes.Compare(a[:], b[:]) })
	var set []byte
	for _, id := range slices.Compact(ids) {
		set = append(set, id[:]...)
	}
	return ControllerSet(set)
}

// IDs returns the invocation IDs, sorted.
func (s ControllerSet) IDs() (ids []ad.InvocationID) {
	for id := range slices.Chunk([]byte(s), len(ad.InvocationID{})) {
		ids = append(ids, ad.InvocationID(id))
	}
	return ids
}

// MarshalText implements encoding.TextMarshaler.
func (s ControllerSet) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, []byte(s)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *ControllerSet) UnmarshalText(text []byte) error {
	set, err := hex.AppendDecode(nil, text)
	if err == nil && len(set)%len(ad.InvocationID{}) != 0 {
		err = fmt.Errorf("%d bytes are no invocation IDs", len(set))
	}
	*s = ControllerSet(set)
	return err
}

// Sightings returns which domain controllers have shown each of the objects of the index: those
// from which it came into the index, was delivered last or reported as deleted, and those that
// found it in a complete run.
func (s *Store) Sightings(view View, guids []ad.GUID) (sightings []Sighting, err error) {
	if len(guids) == 0 {
		return nil, nil
	}
	err = s.viewIndex("read index", func(index indexView) error {
		evidence, err := readShown(index)
		if err != nil {
			return err
		}
		sightings = make([]Sighting, len(guids))
		for i, guid := range guids {
			sightings[i] = evidence.sighting(view, guid)
		}
		return nil
	})
	return sightings, err
}

// shown is the part of the state file with the domain controllers that have shown an object.
type shown struct {
	index       indexView
	views       views
	controllers map[ad.InvocationID]shownController
}

type shownController struct {
	Controller
	unseen []byte // sorted GUIDs
}

func readShown(index indexView) (s shown, err error) {
	s = shown{index: index, controllers: map[ad.InvocationID]shownController{}}
	if s.views, err = readViews(index.Tx); err != nil {
		return s, err
	}
	err = forEach(index.Tx, bucketControllers, func(id, value []byte) error {
		controller := shownController{unseen: get(index.Tx, bucketUnseen, id)}
		err := decodeJSON(value, &controller.Controller)
		s.controllers[ad.InvocationID(id)] = controller
		return err
	})
	return s, err
}

func (s shown) sighting(view View, guid ad.GUID) (sighting Sighting) {
	record := s.index.get(guid[:])
	if !isRecord(record) {
		return sighting
	}
	// The runs that brought the object into the index and delivered it last are evidence, unless
	// a complete run followed, which is better evidence.
	firstRun := firstRunOf(record)
	runs := []uint64{firstRun}
	if record[0]&kindDeletion == 0 {
		runs = append(runs, batchOf(record).run())
	}
	for _, run := range runs {
		source, known := s.views.of(run)
		controller := s.controllers[source.InvocationID]
		if known && (run > controller.Watermark.Run || source.Rollbacks != controller.Rollbacks) {
			sighting.add(source, view)
		}
	}
	if value := get(s.index.Tx, bucketDeleted, guid[:]); value != nil {
		if source, known := s.views.of(binary.BigEndian.Uint64(value)); known {
			sighting.add(source, view)
		}
	}
	for id, controller := range s.controllers {
		if !controller.Watermark.At.IsZero() && firstRun <= controller.Watermark.Run && !containsGUID(controller.unseen, guid) {
			sighting.add(View{InvocationID: id, Rollbacks: controller.Rollbacks, Scope: controller.LastFull.Scope}, view)
		}
	}
	return sighting
}

// containsGUID reports whether sorted GUIDs contain one.
func containsGUID(sorted []byte, guid ad.GUID) bool {
	const size = len(ad.GUID{})
	i := sort.Search(len(sorted)/size, func(i int) bool { return bytes.Compare(sorted[i*size:(i+1)*size], guid[:]) >= 0 })
	return i < len(sorted)/size && ad.GUID(sorted[i*size:(i+1)*size]) == guid
}

// Server is a directory server that a run has read. The fields are those of
// directory.Controller.
type Server struct {
	Host         string          `json:"host"`    // name or address that was dialed
	Address      string          `json:"address"` // IP address and port
	DNSHostName  string          `json:"dns_host_name,omitempty"`
	ServiceName  string          `json:"service_name,omitempty"`
	InvocationID ad.InvocationID `json:"invocation_id"`
}

// LastServers returns the server of the last complete run, and that of the last run if the
// directory made it fail. Without one, it returns the zero value.
func (s *Store) LastServers() (last, failed Server, err error) {
	if last, err = readMeta[Server](s, "read last server", keyLastServer); err != nil {
		return last, failed, err
	}
	failed, err = readMeta[Server](s, "read last server", keyFailedServer)
	return last, failed, err
}

// SetFailedServer records the server of a run that the directory made fail.
func (s *Store) SetFailedServer(server Server) error {
	return s.update("record failed server", func(c change) error { return c.putJSON(bucketMeta, keyFailedServer, server) })
}
