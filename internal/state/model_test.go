package state

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// TestCampaignModel applies random operations, including restarts and merges of the journal, to a
// store and to a model of it, and compares the two. It also compares the store with a copy of its
// files, as a kill leaves them.
func TestCampaignModel(t *testing.T) {
	t.Parallel()
	histories := uint64(500)
	if testing.Short() {
		histories = 60
	}
	dir := t.TempDir()
	for seed := range histories {
		m := &model{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), dir: fmt.Sprint(dir, "/", seed)}
		m.open()
		m.reset()
		for range 8 {
			m.step()
			m.compare()
		}
		must(t, m.store.Close())
	}
}

type model struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	dir    string
	store  *Store

	index       map[ad.GUID]identity.Object // with a zero fingerprint after a rejection
	inFlight    map[ad.GUID]bool
	rejected    map[ad.GUID]Rejection
	held        map[ad.GUID]bool
	undecided   map[ad.GUID]string
	sentBy      map[ad.GUID]uint64 // run
	movedIn     map[ad.GUID]movedIn
	lastRun     uint64
	controllers map[ad.InvocationID]Controller
	unseen      map[ad.InvocationID][]ad.GUID
	fullSync    FullSync
	target      string
}

// movedIn is an object that moved into the scope.
type movedIn struct {
	run       uint64 // that sent it last
	remaining int    // full syncs that send it again
}

// modelGUIDs is the number of objects. It is small, so that operations often use the same one.
const modelGUIDs = 12

func (m *model) open() {
	options := unsynced
	options.mergeAbove = int64(1 + m.random.IntN(3000)) // a record has about 70 bytes
	options.mergeRecords = 1 + m.random.IntN(5)
	store, err := options.Open(m.dir)
	must(m.t, err)
	m.store = store
}

// reset empties the model, as ChangeTarget does with the store.
func (m *model) reset() {
	m.index, m.inFlight, m.rejected = map[ad.GUID]identity.Object{}, map[ad.GUID]bool{}, map[ad.GUID]Rejection{}
	m.held, m.controllers, m.fullSync = map[ad.GUID]bool{}, map[ad.InvocationID]Controller{}, FullSync{}
	m.unseen = map[ad.InvocationID][]ad.GUID{}
	m.undecided = map[ad.GUID]string{}
	m.sentBy, m.movedIn, m.lastRun = map[ad.GUID]uint64{}, map[ad.GUID]movedIn{}, 0
}

// step applies one random operation.
func (m *model) step() {
	switch m.random.IntN(13) {
	case 0:
		must(m.t, m.store.Close())
		m.open()
	case 12:
		must(m.t, m.store.merge())
	case 11:
		logons := map[ad.GUID]identity.Logons{}
		for _, guid := range m.randomGUIDs() {
			logons[guid] = m.randomLogons()
			if o, found := m.index[guid]; found {
				o.Logons = o.Logons.Merge(logons[guid])
				m.index[guid] = o
			}
		}
		must(m.t, m.store.SetLogons(logons))
	case 1:
		times := map[ad.GUID]time.Time{}
		for _, guid := range m.randomGUIDs() {
			times[guid] = m.randomTime()
			if o, found := m.index[guid]; found {
				o.RecheckAt = times[guid]
				m.index[guid] = o
			}
		}
		must(m.t, m.store.SetRecheckTimes(times))
	case 2:
		guids := m.randomGUIDs()
		must(m.t, m.store.SetHeldDeletions(guids, time.Unix(1, 0)))
		m.held = map[ad.GUID]bool{}
		for _, guid := range guids {
			m.held[guid] = true
		}
	case 3:
		m.setUndecided()
	case 4:
		id := ad.InvocationID{byte(m.random.IntN(2))}
		p := Progress{
			View: View{InvocationID: id, Scope: fmt.Sprint(m.random.IntN(3))}, Run: uint64(m.random.IntN(50)), At: testStart.Add(time.Duration(m.random.IntN(100)) * time.Hour),
			USN: ad.USN(m.random.IntN(1000)), FullSync: m.random.IntN(2) == 0, Unseen: m.randomGUIDs(),
		}
		if m.random.IntN(2) == 0 {
			p.Run = m.lastRun
		}
		controller := m.controllers[id]
		controller.Watermark = Watermark{USN: p.USN, Scope: p.View.Scope, At: p.At, Run: p.Run}
		if p.FullSync {
			m.fullSync = FullSync{Scope: p.View.Scope, At: p.At}
			controller.LastFull = m.fullSync
			m.countResends(p.Run)
		}
		m.controllers[id], m.unseen[id] = controller, p.Unseen
		must(m.t, m.store.Advance(p))
	case 5:
		if m.random.IntN(4) == 0 {
			m.target = fmt.Sprint(m.random.IntN(100))
			must(m.t, m.store.ChangeTarget(m.target))
			m.reset()
		}
	default:
		m.run()
	}
}

// countResends counts the objects that a complete full sync has sent again.
func (m *model) countResends(run uint64) {
	for guid, object := range m.movedIn {
		if object.run == run || m.sentBy[guid] != run || m.inFlight[guid] || m.index[guid].Fingerprint == (identity.Fingerprint{}) {
			continue
		}
		if m.movedIn[guid] = (movedIn{run, object.remaining - 1}); object.remaining == 1 {
			delete(m.movedIn, guid)
		}
	}
}

// setUndecided replaces the undecided deletions. Those that were undecided keep their time.
func (m *model) setUndecided() {
	before, now := m.undecided, m.random.Int64N(10)
	m.undecided = map[ad.GUID]string{}
	var set []Undecided
	for _, guid := range m.randomGUIDs() {
		d := Undecided{guid, UndecidedReason(fmt.Sprint(m.random.IntN(3))), "remedy", NewControllerSet(ad.InvocationID{byte(m.random.IntN(2))})}
		since := fmt.Sprint(now)
		if text, found := before[guid]; found {
			_, since, _ = strings.Cut(text, " ")
		}
		set, m.undecided[guid] = append(set, d), fmt.Sprint(d.Reason, " ", since)
	}
	must(m.t, m.store.SetUndecidedDeletions(set, time.Unix(now, 0)))
}

// compareUndecided fails the test unless the undecided deletions agree.
func (m *model) compareUndecided() {
	m.t.Helper()
	deletions, _, err := m.store.UndecidedDeletions(-1)
	got := map[ad.GUID]string{}
	for _, d := range deletions {
		got[d.GUID] = fmt.Sprint(d.Reason, " ", d.Since.Unix())
	}
	if err != nil || !maps.Equal(got, m.undecided) {
		m.t.Fatalf("history %d: undecided: %v, error %v, want %v", m.seed, got, err, m.undecided)
	}
}

// run executes one run. Its batches are marked in flight a few at a time. Their results are
// complete, incomplete, or missing.
func (m *model) run() {
	now := m.randomTime().UTC()
	j, err := m.store.OpenJournal(testView, now)
	must(m.t, err)
	m.lastRun = j.Run()
	guids := m.randomGUIDs()
	m.random.Shuffle(len(guids), func(i, j int) { guids[i], guids[j] = guids[j], guids[i] })
	var batches []Batch
	for some := range slices.Chunk(guids, 1+m.random.IntN(4)) {
		batch := Batch{Number: len(batches)}
		for _, guid := range some {
			batch.Objects = append(batch.Objects, m.object(guid))
		}
		batches = append(batches, batch)
	}
	for some := range slices.Chunk(batches, 1+m.random.IntN(3)) {
		must(m.t, j.MarkInFlight(some))
		for _, batch := range some {
			for _, o := range batch.Objects {
				m.index[o.GUID], m.inFlight[o.GUID], m.sentBy[o.GUID] = o, true, j.Run()
				if o.MovedIn {
					m.movedIn[o.GUID] = movedIn{j.Run(), 2}
				}
			}
		}
		m.compare()
		var results []BatchResult
		for _, batch := range some {
			if m.random.IntN(4) > 0 {
				results = append(results, m.result(batch, now))
			}
		}
		must(m.t, j.Commit(results))
	}
}

// result returns a random result of a batch and applies it to the model.
func (m *model) result(batch Batch, now time.Time) BatchResult {
	result := BatchResult{Batch: batch.Number, Complete: m.random.IntN(3) > 0}
	for _, o := range batch.Objects {
		outcome := m.random.IntN(6)
		switch {
		case outcome == 0 && !result.Complete:
			continue
		case outcome == 1:
			result.Acknowledged = append(result.Acknowledged, deleted(o))
			delete(m.index, o.GUID)
			delete(m.movedIn, o.GUID)
			delete(m.rejected, o.GUID)
			delete(m.held, o.GUID)
			delete(m.undecided, o.GUID)
		case outcome == 2:
			r := RejectedObject{Object: o, Reason: fmt.Sprint(m.random.IntN(100))}
			result.Rejected = append(result.Rejected, r)
			m.rejected[o.GUID] = Rejection{
				GUID: o.GUID, SID: o.SID.String(), Kind: o.Kind, Value: slices.Clone(o.Fingerprint[:]),
				Reason: r.Reason, Attempts: m.rejected[o.GUID].Attempts + 1, At: now,
			}
			o.Fingerprint = identity.Fingerprint{}
			m.index[o.GUID] = o
		case outcome == 3:
			former := deleted(o)
			former.FormerSID = true
			result.Acknowledged = append(result.Acknowledged, former)
			former.Deleted = false
			m.index[o.GUID] = former
			delete(m.rejected, o.GUID)
			delete(m.held, o.GUID)
			delete(m.undecided, o.GUID)
		default:
			result.Acknowledged = append(result.Acknowledged, o)
			m.index[o.GUID] = o
			delete(m.rejected, o.GUID)
			delete(m.held, o.GUID)
			delete(m.undecided, o.GUID)
		}
		delete(m.inFlight, o.GUID)
	}
	return result
}

// randomGUIDs returns a random subset of the GUIDs, in order.
func (m *model) randomGUIDs() (guids []ad.GUID) {
	share := m.random.IntN(101)
	for n := range modelGUIDs {
		if m.random.IntN(100) < share {
			guids = append(guids, m.guid(n))
		}
	}
	return guids
}

func (m *model) guid(n int) ad.GUID { return ad.GUID{0: byte(n * 20), 15: 1} }

func (m *model) randomTime() time.Time {
	if m.random.IntN(3) == 0 {
		return time.Time{}
	}
	return time.Unix(1+m.random.Int64N(10), m.random.Int64N(1e9))
}

func (m *model) randomLogons() (logons identity.Logons) {
	logons.Last, logons.LastFailed = ad.FileTime(m.random.IntN(3)), ad.FileTime(m.random.IntN(3))
	if m.random.IntN(2) == 0 {
		logons.Failed, logons.HasFailed = m.random.Uint32N(3), true
	}
	return logons
}

func (m *model) object(guid ad.GUID) identity.Object {
	o := identity.Object{GUID: guid, Kind: identity.Kind(m.random.IntN(3)), RecheckAt: m.randomTime(), Name: "name"[:m.random.IntN(5)]}
	o.SID = bytes.Repeat([]byte{byte(m.random.Uint32())}, m.random.IntN(4)*4+8)
	o.SID[0], o.SID[1] = 1, byte(len(o.SID)/4-2)
	o.Fingerprint[m.random.IntN(16)] = byte(1 + m.random.IntN(255))
	o.MovedIn, o.Logons = m.random.IntN(3) == 0, m.randomLogons()
	return o
}

func byGUID(a, b ad.GUID) int { return bytes.Compare(a[:], b[:]) }

func sortedKeys[V any](of map[ad.GUID]V) []ad.GUID { return slices.SortedFunc(maps.Keys(of), byGUID) }

// value returns an object as Objects returns it, whether or not it is in flight.
func (m *model) value(o identity.Object) identity.Object {
	o.RecheckAt, o.MovedIn = RoundRecheck(o.RecheckAt), false
	return o
}

// compare fails the test unless the store and the model agree.
func (m *model) compare() {
	m.t.Helper()
	t, s := m.t, m.store
	fatal := func(name string, got, want any) {
		t.Helper()
		t.Fatalf("history %d: %s: %+v, want %+v", m.seed, name, got, want)
	}
	for n := range modelGUIDs {
		guid := m.guid(n)
		o, wantFound := m.index[guid]
		sid := o.SID
		if n%2 == 0 {
			sid = ad.SID("other")
		}
		want := IndexRecord{Fingerprint: o.Fingerprint, RecheckAt: RoundRecheck(o.RecheckAt), SIDChanged: wantFound && n%2 == 0 && !o.FormerSID}
		if n%2 == 1 && !o.FormerSID {
			want.Logons = o.Logons
		}
		if m.inFlight[guid] {
			want.Fingerprint = identity.Fingerprint{}
		}
		if got, found, err := s.Lookup(guid, sid); err != nil || found != wantFound || got != want {
			fatal(fmt.Sprint("lookup ", n), got, want)
		}
	}
	m.compareUndecided()
	if inFlight := result(s.InFlightObjects())(t); !slices.Equal(inFlight, sortedKeys(m.inFlight)) {
		fatal("in flight", inFlight, m.inFlight)
	}
	if movedIn := result(s.MovedIn())(t); !slices.Equal(movedIn, sortedKeys(m.movedIn)) {
		fatal("moved in", movedIn, m.movedIn)
	}
	if size := result(s.IndexSize())(t); size != len(m.index) {
		fatal("size", size, len(m.index))
	}
	never := true
	for guid, o := range m.index {
		never = never && (m.inFlight[guid] || o.Fingerprint == identity.Fingerprint{})
	}
	if got := result(s.NeverAcknowledged())(t); got != never {
		fatal("never acknowledged", got, never)
	}
	seen := m.randomGUIDs()
	var missing, found []identity.Object
	for _, guid := range sortedKeys(m.index) {
		if o := m.value(m.index[guid]); slices.Contains(seen, guid) {
			found = append(found, o)
		} else {
			missing = append(missing, o)
		}
	}
	if got := result(s.missing(seen))(t); !slices.EqualFunc(got, missing, same) {
		fatal("missing", got, missing)
	}
	if got := result(s.Objects(seen))(t); !slices.EqualFunc(got, found, same) {
		fatal("objects", got, found)
	}
	now := time.Unix(m.random.Int64N(12), 0)
	var recheck []ad.GUID
	for guid, o := range m.index {
		if !o.RecheckAt.IsZero() && !RoundRecheck(o.RecheckAt).After(now) {
			recheck = append(recheck, guid)
		}
	}
	slices.SortFunc(recheck, func(a, b ad.GUID) int {
		return cmp.Or(RoundRecheck(m.index[a].RecheckAt).Compare(RoundRecheck(m.index[b].RecheckAt)), byGUID(a, b))
	})
	if got := result(s.DueForRecheck(now))(t); !slices.Equal(got, recheck) {
		fatal("due for recheck", got, recheck)
	}
	if got := heldGUIDs(t, s); !slices.Equal(got, sortedKeys(m.held)) {
		fatal("held", got, m.held)
	}
	rejections := rejectionsOf(t, s)
	if len(rejections) != len(m.rejected) {
		fatal("rejections", rejections, m.rejected)
	}
	for _, got := range rejections {
		want := m.rejected[got.GUID]
		if !reflect.DeepEqual(got, want) {
			fatal("rejection", got, want)
		}
	}
	for n := range byte(2) {
		id := ad.InvocationID{n}
		if got, want := result(s.Controller(id))(t), m.controllers[id]; got != want {
			fatal("controller", got, want)
		}
		if got, want := result(s.Unseen(id))(t), m.unseen[id]; !slices.Equal(got, want) {
			fatal("unseen", got, want)
		}
	}
	if got := result(s.LastFullSync())(t); got != m.fullSync {
		fatal("full sync", got, m.fullSync)
	}
	if got := result(s.Target())(t); got != m.target {
		fatal("target", got, m.target)
	}
	expectLoaded(t, s)
	if m.random.IntN(3) == 0 {
		expectSameAfterKill(t, s)
	}
}
