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

// content returns a text of all records of a store.
func content(t testing.TB, s *Store) string {
	t.Helper()
	var text bytes.Buffer
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range append(buckets, bucketUndecided) {
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

// stateFile returns a state file with records in each bucket, and its content. Its last two
// transactions have the same content, so that either meta page is valid.
func stateFile(t *testing.T) (file []byte, records string) {
	t.Helper()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 300, 1)
	for i := range all {
		all[i].RecheckAt = time.Unix(int64(2_000_000_000+i), 0)
	}
	must(t, send(s, all))
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:10]}, {1, all[10:20]}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Rejected: []RejectedObject{{Object: all[3], Reason: "bad"}}, Acknowledged: all[4:10]}}))
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(7)}, time.Unix(1, 0)))
	must(t, s.SetUndecidedDeletions([]Undecided{{GUID: guidOf(9), Reason: "lag", Remedy: "wait"}, {GUID: guidOf(8), Reason: "rights", Remedy: "grant"}}, time.Unix(1, 0)))
	must(t, s.RecordRun(Run{ID: "x"}, Connector{State: "SCHEDULED"}))
	must(t, s.Advance(Progress{View: View{InvocationID: ad.InvocationID{1}, Scope: "s"}, FullSync: true, USN: 5, Unseen: guidsOf(all[:2])}))
	for range 2 {
		must(t, s.SetConnector(Connector{State: "SCHEDULED"}))
	}
	records = content(t, s)
	must(t, s.Close())
	return result(os.ReadFile(filepath.Join(dir, fileName)))(t), records
}

// TestCampaignFlippedBits flips one bit of a file. It checks that the file is set aside, or has
// its original content and can be written.
func TestCampaignFlippedBits(t *testing.T) {
	t.Parallel()
	flips := 1500
	if testing.Short() {
		flips = 120
	}
	pristine, records := stateFile(t)
	random := rand.New(rand.NewPCG(1, 2))
	setAside := 0
	for n := range flips {
		offset := random.IntN(len(pristine))
		if n%2 == 0 { // in a page header or the first elements
			offset = offset/4096*4096 + random.IntN(128)
		}
		damaged := bytes.Clone(pristine)
		damaged[offset] ^= 1 << random.IntN(8)
		s := openStore(t, file(t, damaged))
		if s.DamagedFile != nil {
			setAside++
		} else if content(t, s) != records {
			t.Errorf("byte %d: opened with other content", offset)
		} else {
			checkWritable(t, s)
		}
		must(t, s.Close())
	}
	if setAside < flips/6 {
		t.Errorf("only %d of %d files were set aside", setAside, flips)
	}
}

// TestCampaignFlippedStructure flips each bit of the branch page of the index and of the
// freelist. Bucket checksums do not cover these pages. It makes the same checks as
// TestCampaignFlippedBits.
func TestCampaignFlippedStructure(t *testing.T) {
	t.Parallel()
	pristine, records := stateFile(t)
	f := newBrokenFile(t, pristine)
	step := 1
	if testing.Short() {
		step = 37
	}
	const bits = 8 * 200 // the header and all elements
	for _, page := range []uint64{f.index(), f.freelist} {
		for bit := 0; bit < bits; bit += step {
			damaged := bytes.Clone(pristine)
			damaged[int(page)*4096+bit/8] ^= 1 << (bit % 8)
			s := openStore(t, file(t, damaged))
			if s.DamagedFile == nil {
				if content(t, s) != records {
					t.Errorf("page %d, bit %d: opened with other content", page, bit)
				}
				checkWritable(t, s)
			}
			must(t, s.Close())
		}
	}
}

// checkWritable replaces all objects twice, so that free pages are used, and checks that the
// file stays valid.
func checkWritable(t *testing.T, s *Store) {
	t.Helper()
	for mark := range byte(2) {
		must(t, send(s, objects(0, 300, mark+2)))
	}
	for _, o := range objects(0, 300, 3) {
		expect(t, s, o)
	}
	must(t, s.verify(time.Time{}))
}

// TestPageWalk checks that the page walk detects each kind of damage on its own.
func TestPageWalk(t *testing.T) {
	t.Parallel()
	pristine, _ := stateFile(t)
	const size = 4096
	for name, c := range map[string]struct {
		damage func(f *brokenFile)
		cause  error
	}{
		"wrong page ID":             {func(f *brokenFile) { byteOrder.PutUint64(f.page(f.index()), 1<<20) }, errPageHeader},
		"wrong overflow count":      {func(f *brokenFile) { byteOrder.PutUint32(f.page(f.index())[12:], 1<<20) }, errPageHeader},
		"page referenced twice":     {func(f *brokenFile) { copy(f.bucket(bucketRecheck), f.bucket(bucketIndex)[:8]) }, errUsedTwice},
		"used page in the freelist": {func(f *brokenFile) { byteOrder.PutUint64(f.page(f.freelist)[pageHeaderSize:], f.root) }, errNotFree},
		"lost page": {func(f *brokenFile) {
			free := f.page(f.freelist)
			byteOrder.PutUint16(free[10:], byteOrder.Uint16(free[10:])-1)
		}, errLostPage},
		"freelist longer than its page":   {func(f *brokenFile) { byteOrder.PutUint16(f.page(f.freelist)[10:], 1000) }, errFreelist},
		"wrong type of the freelist page": {func(f *brokenFile) { byteOrder.PutUint16(f.page(f.freelist)[8:], flagLeaf) }, errFreelist},
		"branch keys out of order": {func(f *brokenFile) {
			e := f.element(f.index(), 1)
			clear(e[byteOrder.Uint32(e):][:byteOrder.Uint32(e[4:])])
		}, errKeyOrder},
		"leaf keys out of order": {func(f *brokenFile) {
			e := f.element(f.leaf(), 1)
			clear(e[byteOrder.Uint32(e[4:]):][:byteOrder.Uint32(e[8:])])
		}, errKeyOrder},
		"leaf without elements":      {func(f *brokenFile) { clear(f.page(f.leaf())[10:12]) }, errEmptyLeaf},
		"branch without elements":    {func(f *brokenFile) { clear(f.page(f.index())[10:12]) }, errEmptyBranch},
		"element count too large":    {func(f *brokenFile) { byteOrder.PutUint16(f.page(f.leaf())[10:], 300) }, ErrDamaged},
		"unknown page type":          {func(f *brokenFile) { clear(f.page(f.leaf())[8:10]) }, errPageType},
		"element in the page header": {func(f *brokenFile) { byteOrder.PutUint32(f.element(f.leaf(), 0)[4:], 8) }, errBounds},
		"element after the end of the page": {func(f *brokenFile) {
			offset := len(f.element(f.leaf(), 0)) - int(byteOrder.Uint32(f.element(f.leaf(), 0)[8:])) - int(byteOrder.Uint32(f.element(f.leaf(), 0)[12:]))
			byteOrder.PutUint32(f.element(f.leaf(), 0)[4:], uint32(offset)+1)
		}, errBounds},
		"bucket among records":  {func(f *brokenFile) { byteOrder.PutUint32(f.element(f.leaf(), 0), flagBucket) }, errNotRecord},
		"bucket without a page": {func(f *brokenFile) { byteOrder.PutUint16(f.bucket(bucketHeld)[bucketHeaderSize+8:], flagBranch) }, errNoRoot},
		"record among buckets":  {func(f *brokenFile) { byteOrder.PutUint32(f.element(f.root, 0), 0) }, errNotBucket},
	} {
		f := newBrokenFile(t, pristine)
		c.damage(f)
		_, err := verifyPages(bytes.NewReader(f.content), size, int64(len(f.content)))
		if !errors.Is(err, ErrDamaged) || !errors.Is(err, c.cause) {
			t.Errorf("%s: %v, want %v", name, err, c.cause)
		}
	}
}

// brokenFile is a copy of a state file that a test damages.
type brokenFile struct {
	content        []byte
	root, freelist uint64 // page IDs
}

func newBrokenFile(t *testing.T, pristine []byte) *brokenFile {
	t.Helper()
	meta := result((&pageWalk{file: bytes.NewReader(pristine), pageSize: 4096}).meta())(t)
	return &brokenFile{bytes.Clone(pristine), meta.root, meta.freelist}
}

func (f *brokenFile) page(id uint64) []byte { return f.content[id*4096:][:4096] }

// element returns the bytes of a page from its n-th element.
func (f *brokenFile) element(page uint64, n int) []byte {
	return f.page(page)[pageHeaderSize+n*elementSize:]
}

// bucket returns the bytes of the root page from the value of a bucket, which begins with its
// root page ID.
func (f *brokenFile) bucket(name []byte) []byte {
	for n := 0; ; n++ {
		e := f.element(f.root, n)
		key := e[byteOrder.Uint32(e[4:]):]
		if size := byteOrder.Uint32(e[8:]); bytes.Equal(key[:size], name) {
			return key[size:]
		}
	}
}

// index returns the root page of the index, which is a branch page.
func (f *brokenFile) index() uint64 { return byteOrder.Uint64(f.bucket(bucketIndex)) }

// leaf returns the first leaf page of the index.
func (f *brokenFile) leaf() uint64 { return byteOrder.Uint64(f.element(f.index(), 0)[8:]) }

// TestDamagedMetaPage checks that a file with one damaged meta page opens.
func TestDamagedMetaPage(t *testing.T) {
	t.Parallel()
	pristine, records := stateFile(t)
	for page := range 2 {
		damaged := bytes.Clone(pristine)
		damaged[page*4096+pageHeaderSize+16] ^= 0x40 // the root page ID
		if s := openStore(t, file(t, damaged)); s.DamagedFile != nil || content(t, s) != records {
			t.Errorf("meta page %d: %v", page, s.DamagedFile)
		}
	}
}

// TestChecksumsOfOneChange checks the checksums after several writes in one transaction.
func TestChecksumsOfOneChange(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	must(t, s.update("change", func(c change) error {
		return errors.Join(
			c.put(bucketHeld, []byte("a"), []byte("1")), c.put(bucketHeld, []byte("a"), []byte("2")),
			c.delete(bucketHeld, []byte("a")), c.delete(bucketHeld, []byte("a")),
			c.put(bucketHeld, []byte("b"), nil), c.empty(bucketHeld), c.put(bucketHeld, []byte("c"), nil))
	}))
	must(t, s.verify(time.Time{}))
}

// TestCampaignPowerCut simulates power failures during a transaction. A disk may then have
// written any subset of the pages since the last sync, and part of a meta page. It checks
// that the file opens with the complete transaction or without it.
func TestCampaignPowerCut(t *testing.T) {
	t.Parallel()
	rounds := 60
	if testing.Short() {
		rounds = 6
	}
	dir := t.TempDir()
	s := result(Options{}.Open(dir))(t)
	defer s.Close()
	if s.db.NoSync || s.db.NoGrowSync {
		t.Fatal("syncs are disabled")
	}
	random := rand.New(rand.NewPCG(3, 4))
	read := func() []byte { return result(os.ReadFile(filepath.Join(dir, fileName)))(t) }
	merged := func(state []byte) string { // as after Open
		s := openStore(t, file(t, state))
		defer s.Close()
		return content(t, s)
	}
	cuts := 0
	for n := range rounds {
		all := objects(0, 40*(1+n%3), byte(n))
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		steps := []func() error{ // one transaction each
			func() error { return s.RecordRun(Run{ID: fmt.Sprint(n)}, Connector{RunID: fmt.Sprint(n)}) },
			func() error { return s.SetConnector(Connector{State: fmt.Sprint(n)}) },
		}
		j := result(s.OpenJournal(testView, testStart))(t)
		must(t, j.MarkInFlight(nil)) // the first call uses two transactions
		steps = append(steps, func() error { return j.MarkInFlight([]Batch{{0, all}}) },
			func() error { return j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all}}) }, s.merge)
		before := read()
		recordsBefore := merged(before)
		for _, step := range steps {
			must(t, step())
			after := read()
			recordsAfter := merged(after)
			for range 3 {
				cuts++
				cut := openStore(t, file(t, cutPower(before, after, random)))
				if got := content(t, cut); cut.DamagedFile != nil || got != recordsBefore && got != recordsAfter {
					t.Fatalf("round %d: opened with other content, damaged file %v", n, cut.DamagedFile)
				}
				must(t, cut.Close())
			}
			before, recordsBefore = after, recordsAfter
		}
	}
	t.Logf("%d power failures", cuts)
}

// cutPower mixes the pages of a file before and after one transaction, as a power failure
// leaves them. bbolt syncs twice: before the first sync, the disk has some of the pages,
// but not the meta page. Before the second sync, it has all pages and perhaps part of the
// meta page.
func cutPower(before, after []byte, random *rand.Rand) []byte {
	const page, metaPages, sector = 4096, 2, 512
	if random.IntN(3) == 0 {
		mixed := bytes.Clone(after)
		torn := random.IntN(page/sector) * sector
		for meta := range metaPages {
			copy(mixed[meta*page+torn:(meta+1)*page], before[meta*page+torn:(meta+1)*page])
		}
		return mixed
	}
	mixed := make([]byte, len(after)) // unwritten pages are zero
	copy(mixed, before)
	for offset := metaPages * page; offset < len(after); offset += page {
		if random.IntN(2) == 0 {
			copy(mixed[offset:offset+page], after[offset:])
		}
	}
	if random.IntN(2) == 0 && len(before) < len(after) && bytes.Equal(mixed[len(before):], make([]byte, len(after)-len(before))) {
		mixed = mixed[:len(before)] // the new file size was not written either
	}
	return mixed
}

// TestCampaignSoundFiles checks that verify accepts the files that bbolt writes after random
// puts and deletes, with trees of several levels.
func TestCampaignSoundFiles(t *testing.T) {
	t.Parallel()
	rounds, sizes := 60, []int{50, 1000, 8000}
	if testing.Short() {
		rounds, sizes = 22, []int{50, 500, 2000}
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(5, 6))
	s := openStore(t, dir)
	depth := 0
	for round := range rounds {
		maxChanges := sizes[random.IntN(len(sizes))]
		must(t, s.update("change", func(c change) error {
			for range random.IntN(maxChanges) {
				var guid ad.GUID
				guid[0], guid[15], guid[7] = byte(random.IntN(256)), byte(random.IntN(4)), byte(random.IntN(20))
				if random.IntN(20) < round%21 { // alternates between growing and shrinking
					if err := deleteObject(c, guid); err != nil {
						return err
					}
					continue
				}
				o := identity.Object{GUID: guid, Name: strings.Repeat("x", random.IntN(300)), RecheckAt: time.Unix(int64(1+random.IntN(1000)), 0)}
				if random.IntN(100) == 0 {
					o.Name = strings.Repeat("y", 20_000) // needs overflow pages
				}
				if err := putObject(c, o, 0); err != nil {
					return err
				}
			}
			return nil
		}))
		must(t, s.verify(time.Time{}))
		must(t, s.merge())
		must(t, s.verify(time.Time{}))
		must(t, s.db.View(func(tx *bbolt.Tx) error {
			depth = max(depth, tx.Bucket(bucketIndex).Stats().Depth)
			return nil
		}))
	}
	must(t, s.Close())
	if depth < 3 {
		t.Errorf("the trees have only %d levels", depth)
	}
	if s = openStore(t, dir); s.DamagedFile != nil {
		t.Error(s.DamagedFile)
	}
}
