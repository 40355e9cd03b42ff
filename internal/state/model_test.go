package state

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// TestCampaignModel does random things to a store and to a simple picture of it, with
// new processes in between, and holds the one against the other.
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
		m.forget()
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

	index    map[ad.GUID]identity.Object // with the zero fingerprint where nobody knows
	doubtful map[ad.GUID]bool            // announced, and not settled
	rejected map[ad.GUID]Rejection
	held     map[ad.GUID]bool
	marks    map[ad.InvocationID]Watermark
	pass     FullSync
	target   string
}

// modelGUIDs are few, so that histories meet.
const modelGUIDs = 12

func (m *model) open() {
	store, err := unsynced.Open(m.dir)
	must(m.t, err)
	m.store = store
}

func (m *model) forget() {
	m.index, m.doubtful, m.rejected = map[ad.GUID]identity.Object{}, map[ad.GUID]bool{}, map[ad.GUID]Rejection{}
	m.held, m.marks, m.pass = map[ad.GUID]bool{}, map[ad.InvocationID]Watermark{}, FullSync{}
}

func (m *model) step() {
	switch m.random.IntN(10) {
	case 0:
		must(m.t, m.store.Close())
		m.open()
	case 1:
		due := map[ad.GUID]time.Time{}
		for _, guid := range m.some() {
			due[guid] = m.when()
			if o, there := m.index[guid]; there {
				o.RecheckAt = due[guid]
				m.index[guid] = o
			}
		}
		must(m.t, m.store.SetRecheckTimes(due))
	case 2:
		guids := m.some()
		must(m.t, m.store.SetHeldDeletions(guids, time.Unix(1, 0)))
		m.held = map[ad.GUID]bool{}
		for _, guid := range guids {
			m.held[guid] = true
		}
	case 3:
		p := Progress{InvocationID: ad.InvocationID{byte(m.random.IntN(2))}}
		if m.random.IntN(2) == 0 {
			m.pass = FullSync{Scope: fmt.Sprint(m.random.IntN(3)), At: m.when().UTC()}
			p.FullSync = &m.pass
		}
		if m.random.IntN(3) > 0 {
			w := Watermark{USN: ad.USN(m.random.IntN(1000)), Scope: "s", At: m.when().UTC()}
			m.marks[p.InvocationID], p.Watermark = w, &w
		}
		must(m.t, m.store.Advance(p))
	case 4:
		if m.random.IntN(4) == 0 {
			m.target = fmt.Sprint(m.random.IntN(100))
			must(m.t, m.store.ChangeTarget(m.target))
			m.forget()
		}
	default:
		m.run()
	}
}

// run is one run: its batches are announced a few at a time, and settled in the
// end, or in part, or never.
func (m *model) run() {
	at := m.when().UTC()
	d, err := m.store.OpenJournal(reader, at)
	must(m.t, err)
	guids := m.some()
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
		must(m.t, d.MarkInFlight(some))
		for _, batch := range some {
			for _, o := range batch.Objects {
				m.index[o.GUID], m.doubtful[o.GUID] = o, true
			}
		}
		m.compare()
		var receipts []BatchResult
		for _, batch := range some {
			if m.random.IntN(4) > 0 {
				receipts = append(receipts, m.settle(batch, at))
			}
		}
		must(m.t, d.Commit(receipts))
	}
}

// settle decides what becomes of a batch.
func (m *model) settle(batch Batch, at time.Time) BatchResult {
	receipt := BatchResult{Batch: batch.Number, Complete: m.random.IntN(3) > 0}
	for _, o := range batch.Objects {
		fate := m.random.IntN(5)
		switch {
		case fate == 0 && !receipt.Complete:
			continue
		case fate == 1:
			receipt.Acknowledged = append(receipt.Acknowledged, deleted(o))
			delete(m.index, o.GUID)
			delete(m.rejected, o.GUID)
			delete(m.held, o.GUID)
		case fate == 2:
			r := RejectedObject{Object: o, Reason: fmt.Sprint(m.random.IntN(100))}
			receipt.Rejected = append(receipt.Rejected, r)
			m.rejected[o.GUID] = Rejection{
				GUID: o.GUID, SID: o.SID.String(), Kind: o.Kind, Value: slices.Clone(o.Fingerprint[:]),
				Reason: r.Reason, Attempts: m.rejected[o.GUID].Attempts + 1, At: at,
			}
			o.Fingerprint = identity.Fingerprint{}
			m.index[o.GUID] = o
		default:
			receipt.Acknowledged = append(receipt.Acknowledged, o)
			m.index[o.GUID] = o
			delete(m.rejected, o.GUID)
			delete(m.held, o.GUID)
		}
		delete(m.doubtful, o.GUID)
	}
	return receipt
}

func (m *model) some() (guids []ad.GUID) {
	share := m.random.IntN(101)
	for n := range modelGUIDs {
		if m.random.IntN(100) < share {
			guids = append(guids, m.guid(n))
		}
	}
	return guids
}

func (m *model) guid(n int) ad.GUID { return ad.GUID{0: byte(n * 20), 15: 1} }

func (m *model) when() time.Time {
	if m.random.IntN(3) == 0 {
		return time.Time{}
	}
	return time.Unix(1+m.random.Int64N(10), m.random.Int64N(1e9))
}

func (m *model) object(guid ad.GUID) identity.Object {
	o := identity.Object{GUID: guid, Kind: identity.Kind(m.random.IntN(3)), RecheckAt: m.when(), Name: "name"[:m.random.IntN(5)]}
	o.SID = bytes.Repeat([]byte{byte(m.random.Uint32())}, m.random.IntN(4)*4+8)
	o.SID[0], o.SID[1] = 1, byte(len(o.SID)/4-2)
	o.Fingerprint[m.random.IntN(16)] = byte(1 + m.random.IntN(255))
	return o
}

func byGUID(a, b ad.GUID) int { return bytes.Compare(a[:], b[:]) }

func sortedKeys[V any](of map[ad.GUID]V) []ad.GUID { return slices.SortedFunc(maps.Keys(of), byGUID) }

// value is an object as Objects gives it: doubt does not show there.
func (m *model) value(o identity.Object) identity.Object {
	o.RecheckAt = RoundRecheck(o.RecheckAt)
	return o
}

func (m *model) compare() {
	m.t.Helper()
	t, s := m.t, m.store
	fatal := func(what string, got, want any) {
		t.Helper()
		t.Fatalf("history %d: %s: %+v, want %+v", m.seed, what, got, want)
	}
	for n := range modelGUIDs {
		guid := m.guid(n)
		o, wantThere := m.index[guid]
		want := IndexRecord{o.Fingerprint, RoundRecheck(o.RecheckAt)}
		if m.doubtful[guid] {
			want.Fingerprint = identity.Fingerprint{}
		}
		if known, there, err := s.Lookup(guid); err != nil || there != wantThere || known != want {
			fatal(fmt.Sprint("lookup ", n), known, want)
		}
	}
	if doubtful := result(s.InFlightObjects())(t); !slices.Equal(doubtful, sortedKeys(m.doubtful)) {
		fatal("unsettled", doubtful, m.doubtful)
	}
	if size := result(s.IndexSize())(t); size != len(m.index) {
		fatal("size", size, len(m.index))
	}
	untried := true
	for guid, o := range m.index {
		untried = untried && (m.doubtful[guid] || o.Fingerprint == identity.Fingerprint{})
	}
	if got := result(s.NeverAcknowledged())(t); got != untried {
		fatal("untried", got, untried)
	}
	seen := m.some()
	var missing, found []identity.Object
	for _, guid := range sortedKeys(m.index) {
		if o := m.value(m.index[guid]); slices.Contains(seen, guid) {
			found = append(found, o)
		} else {
			missing = append(missing, o)
		}
	}
	if got := result(s.Missing(seen))(t); !slices.EqualFunc(got, missing, same) {
		fatal("missing", got, missing)
	}
	if got := result(s.Objects(seen))(t); !slices.EqualFunc(got, found, same) {
		fatal("objects", got, found)
	}
	now := time.Unix(m.random.Int64N(12), 0)
	var due []ad.GUID
	for guid, o := range m.index {
		if !o.RecheckAt.IsZero() && !RoundRecheck(o.RecheckAt).After(now) {
			due = append(due, guid)
		}
	}
	slices.SortFunc(due, func(a, b ad.GUID) int {
		return cmp.Or(RoundRecheck(m.index[a].RecheckAt).Compare(RoundRecheck(m.index[b].RecheckAt)), byGUID(a, b))
	})
	if got := result(s.DueForRecheck(now))(t); !slices.Equal(got, due) {
		fatal("due", got, due)
	}
	if got := result(s.HeldDeletions())(t); !slices.Equal(got, sortedKeys(m.held)) {
		fatal("held", got, m.held)
	}
	rejections := result(s.Rejections())(t)
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
		if got, want := result(s.Watermark(ad.InvocationID{n}))(t), m.marks[ad.InvocationID{n}]; got != want {
			fatal("watermark", got, want)
		}
	}
	if got := result(s.LastFullSync())(t); got != m.pass {
		fatal("full pass", got, m.pass)
	}
	if got := result(s.Target())(t); got != m.target {
		fatal("target", got, m.target)
	}
}
