package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt's own check is made for files that are nearly whole: led astray by a number
// in the head of a page it runs for hours, or panics in a goroutine of its own, and
// the process could never start again. So a file is walked here, every bound checked,
// before bbolt reads more of it than its heads.

// The format of bbolt's pages, in the byte order of the machine.
const (
	pageHead    = 16 // id, flags, count, overflow
	elementSize = 16
	bucketHead  = 16 // root, sequence
	metaSize    = 64

	flagBranch, flagLeaf, flagFreelist = 0x01, 0x02, 0x10
	flagBucket                         = 0x01 // of a leaf's element
	countElsewhere                     = 0xFFFF
	noFreelist                         = ^uint64(0)
	metaMagic, metaVersion             = 0xED0CDAED, 2
)

var order = binary.NativeEndian

// What a walk finds.
var (
	errCutOff      = damage("bytes are missing at its end")
	errBothHeads   = damage("both heads are damaged")
	errNoSuchPage  = damage("there is no such page")
	errPageHead    = damage("wrong head")
	errUsedTwice   = damage("used twice")
	errPageKind    = damage("unknown kind")
	errOutside     = damage("an element is outside of the page")
	errKeyOrder    = damage("the keys are not in order")
	errEmptyLeaf   = damage("a leaf without elements")
	errEmptyBranch = damage("a branch without elements")
	errTooMany     = damage("too many elements")
	errNotBucket   = damage("a record among buckets")
	errNotRecord   = damage("a bucket among records")
	errNoPage      = damage("a bucket without a page")
	errNoFreelist  = damage("no list of free pages")
	errNotFree     = damage("a page in use is in the list of free pages")
	errLost        = damage("a page is neither in use nor free")
	errNoBucket    = damage("a bucket is missing")
	errSum         = damage("the records are not those that were written")
)

// damage returns a kind of ErrDamaged.
func damage(what string) error { return fmt.Errorf("%w: %s", ErrDamaged, what) }

// walk is a reading of a whole file, page by page.
type walk struct {
	file     io.ReaderAt
	pageSize uint64
	pages    uint64            // in use or free
	reached  []bool            // by page
	sums     map[string]uint64 // of the buckets' records
}

// meta is what a head says.
type meta struct{ root, freelist, pages, transaction uint64 }

// verify walks a file of so many bytes and returns the sums of its buckets. Its errors
// are damages of the file, or are those of reading it.
func verify(file io.ReaderAt, pageSize int, size int64) (map[string]uint64, error) {
	w := &walk{file: file, pageSize: uint64(pageSize), sums: map[string]uint64{}}
	m, err := w.head()
	if err != nil {
		return nil, err
	}
	if w.pages = m.pages; m.pages > uint64(size)/w.pageSize {
		return nil, fmt.Errorf("%w: %d", errCutOff, m.pages*w.pageSize-uint64(size))
	}
	w.reached = make([]bool, w.pages)
	if err := w.tree(m.root, nil, nil, w.bucket); err != nil {
		return nil, err
	}
	return w.sums, w.free(m.freelist)
}

// head returns the newer one of the two heads that are whole, as bbolt does.
func (w *walk) head() (newest meta, err error) {
	found := false
	for n := range uint64(2) {
		page := make([]byte, pageHead+metaSize)
		if _, err := w.file.ReadAt(page, int64(n*w.pageSize)); err != nil && !errors.Is(err, io.EOF) {
			return meta{}, err
		}
		b := page[pageHead:]
		sum := fnv.New64a()
		sum.Write(b[:metaSize-8])
		if order.Uint32(b) != metaMagic || order.Uint32(b[4:]) != metaVersion || order.Uint64(b[metaSize-8:]) != sum.Sum64() {
			continue
		}
		m := meta{root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]), pages: order.Uint64(b[40:]), transaction: order.Uint64(b[48:])}
		if !found || m.transaction > newest.transaction {
			found, newest = true, m
		}
	}
	if !found {
		return meta{}, errBothHeads
	}
	return newest, nil
}

// page reads a page that nothing else has led to.
func (w *walk) page(id uint64) (page []byte, flags, count uint16, err error) {
	if id < 2 || id >= w.pages {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, errNoSuchPage)
	}
	page = make([]byte, w.pageSize)
	if _, err := w.file.ReadAt(page, int64(id*w.pageSize)); err != nil {
		return nil, 0, 0, err
	}
	named, overflow := order.Uint64(page), uint64(order.Uint32(page[12:]))
	if named != id || overflow >= w.pages-id {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, errPageHead)
	}
	for n := id; n <= id+overflow; n++ {
		if w.reached[n] {
			return nil, 0, 0, fmt.Errorf("page %d: %w", n, errUsedTwice)
		}
		w.reached[n] = true
	}
	if overflow > 0 {
		page = append(page, make([]byte, overflow*w.pageSize)...)
		if _, err := w.file.ReadAt(page[w.pageSize:], int64((id+1)*w.pageSize)); err != nil {
			return nil, 0, 0, err
		}
	}
	return page, order.Uint16(page[8:]), order.Uint16(page[10:]), nil
}

// recordFunc is told of a leaf's elements.
type recordFunc func(flags uint32, key, value []byte) error

// tree walks what is below a page, whose keys begin with from, unless that is nil, and
// are below below.
func (w *walk) tree(id uint64, from, below []byte, record recordFunc) error {
	page, flags, count, err := w.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case flagLeaf:
		err = leaf(page, count, from, below, record)
	case flagBranch:
		err = w.branch(page, count, from, below, record)
	default:
		err = errPageKind
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// part is so many bytes of a page from an element's own offset on.
func part(page []byte, at, offset, size uint64) ([]byte, error) {
	if end := at + offset + size; offset < elementSize || end > uint64(len(page)) { // each is below 2^33
		return nil, errOutside
	}
	return page[at+offset : at+offset+size], nil
}

// ascending holds the keys of a page to their order. The first one must be the very
// key that led there: bbolt would not find its way back otherwise, when it writes, and
// leave the page there twice.
func ascending(key, before, from, below []byte) error {
	first := before == nil
	if first && from != nil && !bytes.Equal(key, from) || !first && bytes.Compare(key, before) <= 0 || below != nil && bytes.Compare(key, below) >= 0 {
		return errKeyOrder
	}
	return nil
}

func leaf(page []byte, count uint16, from, below []byte, record recordFunc) error {
	if count == 0 && from != nil {
		return errEmptyLeaf
	}
	var before []byte
	for n := range uint64(count) {
		at := pageHead + n*elementSize
		if at+elementSize > uint64(len(page)) {
			return errTooMany
		}
		e := page[at:]
		offset, keySize, valueSize := uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:]))
		both, err := part(page, at, offset, keySize+valueSize)
		if err != nil {
			return err
		}
		key := both[:keySize:keySize]
		if err := ascending(key, before, from, below); err != nil {
			return err
		}
		before = key
		if err := record(order.Uint32(e), key, both[keySize:]); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) branch(page []byte, count uint16, from, below []byte, record recordFunc) error {
	keys, children := make([][]byte, count), make([]uint64, count)
	for n := range uint64(count) {
		at := pageHead + n*elementSize
		if at+elementSize > uint64(len(page)) {
			return errTooMany
		}
		e := page[at:]
		key, err := part(page, at, uint64(order.Uint32(e)), uint64(order.Uint32(e[4:])))
		if err != nil {
			return err
		}
		var before []byte
		if n > 0 {
			before = keys[n-1]
		}
		if err := ascending(key, before, from, below); err != nil {
			return err
		}
		keys[n], children[n] = key, order.Uint64(e[8:])
	}
	if count == 0 {
		return errEmptyBranch
	}
	for n, child := range children {
		end := below
		if n+1 < len(keys) {
			end = keys[n+1]
		}
		if err := w.tree(child, keys[n], end, record); err != nil { // not without end: no page is read twice
			return err
		}
	}
	return nil
}

// bucket is told of the buckets. One that is small has its only page within itself.
func (w *walk) bucket(flags uint32, name, value []byte) error {
	if flags != flagBucket || len(value) < bucketHead {
		return errNotBucket
	}
	sum := uint64(0)
	record := func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return errNotRecord
		}
		sum += sumOf(key, value)
		return nil
	}
	root := order.Uint64(value)
	var err error
	switch within := value[bucketHead:]; {
	case root != 0:
		err = w.tree(root, nil, nil, record)
	case len(within) < pageHead || order.Uint64(within) != 0 || order.Uint16(within[8:]) != flagLeaf:
		err = errNoPage
	default:
		err = leaf(within, order.Uint16(within[10:]), nil, nil, record)
	}
	w.sums[string(name)] = sum
	if err != nil {
		return fmt.Errorf("%s: %w", printable(name), err)
	}
	return nil
}

// printable is a name as a log line bears it.
func printable(name []byte) string { return fmt.Sprintf("%.20q", name) }

// free walks the list of free pages: each page is in use or in the list.
func (w *walk) free(id uint64) error {
	if id == noFreelist {
		return errNoFreelist
	}
	page, flags, small, err := w.page(id)
	if err != nil {
		return err
	}
	list, count := page[pageHead:], uint64(small)
	if count == countElsewhere {
		count, list = order.Uint64(list), list[8:]
	}
	if flags != flagFreelist || count > uint64(len(list))/8 {
		return errNoFreelist
	}
	for n := range count {
		free := order.Uint64(list[8*n:])
		if free < 2 || free >= w.pages || w.reached[free] {
			return fmt.Errorf("page %d: %w", free, errNotFree)
		}
		w.reached[free] = true
	}
	for id := uint64(2); id < w.pages; id++ {
		if !w.reached[id] {
			return fmt.Errorf("page %d: %w", id, errLost)
		}
	}
	return nil
}
