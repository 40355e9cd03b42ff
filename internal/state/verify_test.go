package state

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// content is everything that a store holds, but its sums.
func content(t testing.TB, s *Store) string {
	t.Helper()
	var text bytes.Buffer
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			fmt.Fprintf(&text, "%s:\n", name)
			err := tx.Bucket(name).ForEach(func(key, value []byte) error {
				fmt.Fprintf(&text, "%x=%x\n", key, value)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return text.String()
}

// settled is the content of a state file with something in each bucket, whose last
// two transactions have left the same.
func settled(t *testing.T) (file []byte, holds string) {
	t.Helper()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 300, 1)
	for i := range all {
		all[i].RecheckAt = time.Unix(int64(2_000_000_000+i), 0)
	}
	must(t, send(s, all))
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[:10]}, {1, all[10:20]}}))
	must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Rejected: []RejectedObject{{Object: all[3], Reason: "bad"}}, Acknowledged: all[4:10]}}))
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(7)}, time.Unix(1, 0)))
	must(t, s.RecordRun(Run{ID: "x"}, Connector{State: "SCHEDULED"}))
	must(t, s.Advance(Progress{FullSync: &FullSync{Scope: "s"}, InvocationID: ad.InvocationID{1}, Watermark: &Watermark{USN: 5, Scope: "s"}}))
	for range 2 {
		must(t, s.SetConnector(Connector{State: "SCHEDULED"}))
	}
	holds = content(t, s)
	must(t, s.Close())
	return result(os.ReadFile(filepath.Join(dir, fileName)))(t), holds
}

// TestCampaignFlippedBits: whatever bit of a file has changed, either it is set aside,
// or it holds exactly what was written.
func TestCampaignFlippedBits(t *testing.T) {
	t.Parallel()
	flips := 1500
	if testing.Short() {
		flips = 120
	}
	pristine, holds := settled(t)
	random := rand.New(rand.NewPCG(1, 2))
	aside := 0
	for n := range flips {
		at := random.IntN(len(pristine))
		if n%2 == 0 { // the heads of pages and of their elements
			at = at/4096*4096 + random.IntN(128)
		}
		damaged := bytes.Clone(pristine)
		damaged[at] ^= 1 << random.IntN(8)
		s := openStore(t, file(t, damaged))
		if s.DamagedFile != nil {
			aside++
		} else if content(t, s) != holds {
			t.Errorf("byte %d: opens with another content", at)
		}
		must(t, s.Close())
	}
	if aside < flips/6 {
		t.Errorf("%d of %d were set aside: the flips miss what matters", aside, flips)
	}
}

// TestVerifyKnowsDamage: each thing that a walk looks at is one that tells of damage,
// whatever the others would say of it.
func TestVerifyKnowsDamage(t *testing.T) {
	t.Parallel()
	pristine, _ := settled(t)
	const size = 4096
	for name, c := range map[string]struct {
		damage func(f *brokenFile)
		cause  error
	}{
		"a page of another number":   {func(f *brokenFile) { order.PutUint64(f.page(f.index()), 1<<20) }, errPageHead},
		"a page that overflows":      {func(f *brokenFile) { order.PutUint32(f.page(f.index())[12:], 1<<20) }, errPageHead},
		"a page used twice":          {func(f *brokenFile) { copy(f.bucket(bucketDue), f.bucket(bucketIndex)[:8]) }, errUsedTwice},
		"a page in use that is free": {func(f *brokenFile) { order.PutUint64(f.page(f.free)[pageHead:], f.root) }, errNotFree},
		"a page that is lost": {func(f *brokenFile) {
			free := f.page(f.free)
			order.PutUint16(free[10:], order.Uint16(free[10:])-1)
		}, errLost},
		"a list that is longer than its page": {func(f *brokenFile) { order.PutUint16(f.page(f.free)[10:], 1000) }, errNoFreelist},
		"no list":                             {func(f *brokenFile) { order.PutUint16(f.page(f.free)[8:], flagLeaf) }, errNoFreelist},
		"keys of a branch out of order": {func(f *brokenFile) {
			e := f.element(f.index(), 1)
			clear(e[order.Uint32(e):][:order.Uint32(e[4:])])
		}, errKeyOrder},
		"keys of a leaf out of order": {func(f *brokenFile) {
			e := f.element(f.leaf(), 1)
			clear(e[order.Uint32(e[4:]):][:order.Uint32(e[8:])])
		}, errKeyOrder},
		"a leaf without elements":       {func(f *brokenFile) { clear(f.page(f.leaf())[10:12]) }, errEmptyLeaf},
		"a branch without elements":     {func(f *brokenFile) { clear(f.page(f.index())[10:12]) }, errEmptyBranch},
		"more elements than a page has": {func(f *brokenFile) { order.PutUint16(f.page(f.leaf())[10:], 300) }, ErrDamaged},
		"a page of no kind":             {func(f *brokenFile) { clear(f.page(f.leaf())[8:10]) }, errPageKind},
		"an element within its head":    {func(f *brokenFile) { order.PutUint32(f.element(f.leaf(), 0)[4:], 8) }, errOutside},
		"an element behind the page": {func(f *brokenFile) {
			at := len(f.element(f.leaf(), 0)) - int(order.Uint32(f.element(f.leaf(), 0)[8:])) - int(order.Uint32(f.element(f.leaf(), 0)[12:]))
			order.PutUint32(f.element(f.leaf(), 0)[4:], uint32(at)+1)
		}, errOutside},
		"a bucket among records":  {func(f *brokenFile) { order.PutUint32(f.element(f.leaf(), 0), flagBucket) }, errNotRecord},
		"a bucket without a page": {func(f *brokenFile) { order.PutUint16(f.bucket(bucketHeld)[bucketHead+8:], flagBranch) }, errNoPage},
		"a record among buckets":  {func(f *brokenFile) { order.PutUint32(f.element(f.root, 0), 0) }, errNotBucket},
	} {
		f := &brokenFile{content: bytes.Clone(pristine)}
		m := result((&walk{file: bytes.NewReader(pristine), pageSize: size}).head())(t)
		f.root, f.free = m.root, m.freelist
		c.damage(f)
		_, err := verify(bytes.NewReader(f.content), size, int64(len(f.content)))
		if !errors.Is(err, ErrDamaged) || !errors.Is(err, c.cause) {
			t.Errorf("%s: %v, want %v", name, err, c.cause)
		}
	}
}

// brokenFile is a state file that is about to be damaged.
type brokenFile struct {
	content    []byte
	root, free uint64 // pages
}

func (f *brokenFile) page(id uint64) []byte { return f.content[id*4096:][:4096] }

// element is a page from the head of its n-th element on.
func (f *brokenFile) element(page uint64, n int) []byte { return f.page(page)[pageHead+n*elementSize:] }

// bucket is what leads to a bucket's page.
func (f *brokenFile) bucket(name []byte) []byte {
	for n := 0; ; n++ {
		e := f.element(f.root, n)
		key := e[order.Uint32(e[4:]):]
		if size := order.Uint32(e[8:]); bytes.Equal(key[:size], name) {
			return key[size:]
		}
	}
}

// index is the first page of the index, a branch; leaf is the one that it leads to first.
func (f *brokenFile) index() uint64 { return order.Uint64(f.bucket(bucketIndex)) }
func (f *brokenFile) leaf() uint64  { return order.Uint64(f.element(f.index(), 0)[8:]) }

// TestOneHead: of two heads one may be damaged, whichever it is.
func TestOneHead(t *testing.T) {
	t.Parallel()
	pristine, holds := settled(t)
	for head := range 2 {
		damaged := bytes.Clone(pristine)
		damaged[head*4096+pageHead+16] ^= 0x40 // where the tree begins
		if s := openStore(t, file(t, damaged)); s.DamagedFile != nil || content(t, s) != holds {
			t.Errorf("head %d: %v", head, s.DamagedFile)
		}
	}
}

// TestSumsOfOneChange: whatever a transaction does to a bucket, one after the other.
func TestSumsOfOneChange(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	must(t, s.update("change", func(c change) error {
		return errors.Join(
			c.put(bucketHeld, []byte("a"), []byte("1")), c.put(bucketHeld, []byte("a"), []byte("2")),
			c.delete(bucketHeld, []byte("a")), c.delete(bucketHeld, []byte("a")),
			c.put(bucketHeld, []byte("b"), nil), c.empty(bucketHeld), c.put(bucketHeld, []byte("c"), nil))
	}))
	must(t, s.check())
}

// TestCampaignPowerCut: a disk that loses power between two syncs has written any of
// the pages that were on their way, in any order, and perhaps half of one. Whatever it
// has, the file opens with all of the transaction or with nothing of it.
func TestCampaignPowerCut(t *testing.T) {
	t.Parallel()
	rounds := 60
	if testing.Short() {
		rounds = 6
	}
	dir := t.TempDir()
	s := result(Open(dir))(t)
	defer s.Close()
	if s.db.NoSync || s.db.NoGrowSync {
		t.Fatal("nothing is synced")
	}
	random := rand.New(rand.NewPCG(3, 4))
	read := func() []byte { return result(os.ReadFile(filepath.Join(dir, fileName)))(t) }
	cuts := 0
	for n := range rounds {
		all := objects(0, 40*(1+n%3), byte(n))
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		steps := []func() error{ // a transaction each
			func() error { return s.RecordRun(Run{ID: fmt.Sprint(n)}, Connector{RunID: fmt.Sprint(n)}) },
			func() error { return s.SetConnector(Connector{State: fmt.Sprint(n)}) },
		}
		d := result(s.OpenJournal(reader, began))(t)
		steps = append(steps, func() error { return d.MarkInFlight([]Batch{{0, all}}) },
			func() error { return d.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all}}) })
		before, held := read(), content(t, s)
		for _, step := range steps {
			must(t, step())
			after, holds := read(), content(t, s)
			for range 3 {
				cuts++
				cut := openStore(t, file(t, cutPower(before, after, random)))
				if got := content(t, cut); cut.DamagedFile != nil || got != held && got != holds {
					t.Fatalf("step %d: %v; opens with neither content", n, cut.DamagedFile)
				}
				must(t, cut.Close())
			}
			before, held = after, holds
		}
	}
	t.Logf("%d power cuts, each opens with all of a transaction or with nothing of it", cuts)
}

// cutPower mixes the pages of a file before and after one transaction, as a disk has
// them that was cut off: before the first sync some of its pages, but not the head;
// before the second one all of them, and the head perhaps in part.
func cutPower(before, after []byte, random *rand.Rand) []byte {
	const page, heads, sector = 4096, 2, 512
	if random.IntN(3) == 0 {
		mixed := bytes.Clone(after)
		torn := random.IntN(page/sector) * sector
		for head := range heads {
			copy(mixed[head*page+torn:(head+1)*page], before[head*page+torn:(head+1)*page])
		}
		return mixed
	}
	mixed := make([]byte, len(after)) // what was never written is zero
	copy(mixed, before)
	for at := heads * page; at < len(after); at += page {
		if random.IntN(2) == 0 {
			copy(mixed[at:at+page], after[at:])
		}
	}
	if random.IntN(2) == 0 && len(before) < len(after) && bytes.Equal(mixed[len(before):], make([]byte, len(after)-len(before))) {
		mixed = mixed[:len(before)] // nor was the file made longer
	}
	return mixed
}

// TestCampaignSoundFiles: whatever bbolt makes of puts and deletes, in trees of several
// levels, is found to be sound.
func TestCampaignSoundFiles(t *testing.T) {
	t.Parallel()
	rounds, sizes := 60, []int{50, 1000, 8000}
	if testing.Short() {
		rounds, sizes = 22, []int{50, 500, 2000}
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(5, 6))
	s := openStore(t, dir)
	deepest := 0
	for round := range rounds {
		most := sizes[random.IntN(len(sizes))]
		must(t, s.update("change", func(c change) error {
			for range random.IntN(most) {
				var guid ad.GUID
				guid[0], guid[15], guid[7] = byte(random.IntN(256)), byte(random.IntN(4)), byte(random.IntN(20))
				if random.IntN(20) < round%21 { // from growing to shrinking, and again
					if err := drop(c, guid); err != nil {
						return err
					}
					continue
				}
				o := identity.Object{GUID: guid, Name: strings.Repeat("x", random.IntN(300)), RecheckAt: time.Unix(int64(1+random.IntN(1000)), 0)}
				if random.IntN(100) == 0 {
					o.Name = strings.Repeat("y", 20_000) // pages that overflow
				}
				if err := putObject(c, o, 0, controller{}); err != nil {
					return err
				}
			}
			return nil
		}))
		must(t, s.check())
		must(t, s.db.View(func(tx *bbolt.Tx) error {
			deepest = max(deepest, tx.Bucket(bucketIndex).Stats().Depth)
			return nil
		}))
	}
	must(t, s.Close())
	if deepest < 3 {
		t.Errorf("the trees have at most %d levels", deepest)
	}
	if s = openStore(t, dir); s.DamagedFile != nil {
		t.Error(s.DamagedFile)
	}
}
