package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
)

// Open walks all pages and checks every bound before bbolt reads more than the meta pages.
// Bucket checksums cannot replace the walk. With one flipped bit in a branch page, bbolt
// reads that page in an endless loop. Wrong branch keys and freelist entries destroy
// records at later writes, and the checksums cover neither. bbolt's own check, Tx.Check,
// does not end if pages form a cycle, and it does not read values.

// The page format of bbolt, in the byte order of the machine.
const (
	pageHeaderSize   = 16 // id, flags, count, overflow
	elementSize      = 16
	bucketHeaderSize = 16 // root, sequence
	metaSize         = 64

	flagBranch, flagLeaf, flagFreelist = 0x01, 0x02, 0x10
	flagBucket                         = 0x01 // of a leaf element
	freelistCountInData                = 0xFFFF
	noFreelist                         = ^uint64(0)
	metaMagic, metaVersion             = 0xED0CDAED, 2
)

var byteOrder = binary.NativeEndian

// The kinds of damage.
var (
	errTruncated    = damage("truncated file")
	errMetaPages    = damage("both meta pages are invalid")
	errPageID       = damage("page does not exist")
	errPageHeader   = damage("invalid page header")
	errUsedTwice    = damage("page is referenced twice")
	errPageType     = damage("unknown page type")
	errBounds       = damage("element outside of the page")
	errKeyOrder     = damage("keys are not in order")
	errEmptyLeaf    = damage("leaf page without elements")
	errEmptyBranch  = damage("branch page without elements")
	errElementCount = damage("too many elements")
	errNotBucket    = damage("record among buckets")
	errNotRecord    = damage("bucket among records")
	errNoRoot       = damage("bucket without a root page")
	errFreelist     = damage("invalid freelist")
	errNotFree      = damage("page in use is in the freelist")
	errLostPage     = damage("page is neither in use nor free")
	errNoBucket     = damage("bucket is missing")
	errChecksum     = damage("bucket checksum mismatch")
)

// damage returns an error that wraps ErrDamaged.
func damage(text string) error { return fmt.Errorf("%w: %s", ErrDamaged, text) }

// pageWalk reads all pages of a file.
type pageWalk struct {
	file      io.ReaderAt
	pageSize  uint64
	pages     uint64            // number of pages in use or free
	visited   []bool            // by page ID
	checksums map[string]uint64 // of the records, by bucket
	records   map[string]uint64 // their number, by bucket
	buffers   [][]byte          // for pages; unused
}

// metaPage is the content of a meta page.
type metaPage struct{ root, freelist, pages, transaction uint64 }

// verifyPages checks a file of size bytes. The result has the checksums and the numbers of
// records of its buckets. Its errors wrap ErrDamaged or are errors of reading the file.
func verifyPages(file io.ReaderAt, pageSize int, size int64) (*pageWalk, error) {
	w := &pageWalk{file: file, pageSize: uint64(pageSize), checksums: map[string]uint64{}, records: map[string]uint64{}}
	meta, err := w.meta()
	if err != nil {
		return nil, err
	}
	if w.pages = meta.pages; meta.pages > uint64(size)/w.pageSize {
		return nil, fmt.Errorf("%w: %d bytes are missing", errTruncated, meta.pages*w.pageSize-uint64(size))
	}
	w.visited = make([]bool, w.pages)
	if err := w.tree(meta.root, nil, nil, leafElements{element: w.bucket}); err != nil {
		return nil, err
	}
	return w, w.freelist(meta.freelist)
}

// meta returns the valid meta page with the higher transaction ID, which bbolt uses.
func (w *pageWalk) meta() (newest metaPage, err error) {
	found := false
	for id := range uint64(2) {
		page := make([]byte, pageHeaderSize+metaSize)
		if _, err := w.file.ReadAt(page, int64(id*w.pageSize)); err != nil && !errors.Is(err, io.EOF) {
			return metaPage{}, err
		}
		b := page[pageHeaderSize:]
		sum := fnv.New64a()
		sum.Write(b[:metaSize-8])
		if byteOrder.Uint32(b) != metaMagic || byteOrder.Uint32(b[4:]) != metaVersion || byteOrder.Uint64(b[metaSize-8:]) != sum.Sum64() {
			continue
		}
		m := metaPage{root: byteOrder.Uint64(b[16:]), freelist: byteOrder.Uint64(b[32:]), pages: byteOrder.Uint64(b[40:]), transaction: byteOrder.Uint64(b[48:])}
		if !found || m.transaction > newest.transaction {
			found, newest = true, m
		}
	}
	if !found {
		return metaPage{}, errMetaPages
	}
	return newest, nil
}

// page reads a page, including its overflow pages, and marks them as visited. The caller can
// release it.
func (w *pageWalk) page(id uint64) (page []byte, flags, count uint16, err error) {
	if id < 2 || id >= w.pages {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, errPageID)
	}
	page = w.buffer()
	if _, err := w.file.ReadAt(page, int64(id*w.pageSize)); err != nil {
		return nil, 0, 0, err
	}
	storedID, overflow := byteOrder.Uint64(page), uint64(byteOrder.Uint32(page[12:]))
	if storedID != id || overflow >= w.pages-id {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, errPageHeader)
	}
	for n := id; n <= id+overflow; n++ {
		if w.visited[n] {
			return nil, 0, 0, fmt.Errorf("page %d: %w", n, errUsedTwice)
		}
		w.visited[n] = true
	}
	if overflow > 0 {
		page = slices.Grow(page, int(overflow*w.pageSize))[:(overflow+1)*w.pageSize]
		if _, err := w.file.ReadAt(page[w.pageSize:], int64((id+1)*w.pageSize)); err != nil {
			return nil, 0, 0, err
		}
	}
	return page, byteOrder.Uint16(page[8:]), byteOrder.Uint16(page[10:]), nil
}

// buffer returns a buffer for a page. A walk that allocated each page would produce as much
// garbage as the file is large.
func (w *pageWalk) buffer() []byte {
	if n := len(w.buffers); n > 0 {
		buffer := w.buffers[n-1]
		w.buffers = w.buffers[:n-1]
		return buffer[:w.pageSize]
	}
	return make([]byte, w.pageSize)
}

// release allows the next call of page to overwrite a page.
func (w *pageWalk) release(page []byte) { w.buffers = append(w.buffers, page) }

// leafElements receives the elements of leaf pages.
type leafElements struct {
	element func(flags uint32, key, value []byte) error
	endPage func() // called before the memory of a page is used again; nil: no call
}

// tree walks a page and the pages below it. Unless they are nil, first is the first key
// of the page and end is greater than its last key. The recursion ends because no page
// is visited twice.
func (w *pageWalk) tree(id uint64, first, end []byte, leaf leafElements) error {
	page, flags, count, err := w.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case flagLeaf:
		err = walkLeaf(page, count, first, end, leaf)
	case flagBranch:
		err = w.branch(page, count, first, end, leaf)
	default:
		err = errPageType
	}
	w.release(page)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elementData returns size bytes of a page at an offset relative to an element.
func elementData(page []byte, element, offset, size uint64) ([]byte, error) {
	// No sum overflows, because each term is less than 2^33.
	if end := element + offset + size; offset < elementSize || end > uint64(len(page)) {
		return nil, errBounds
	}
	return page[element+offset : element+offset+size], nil
}

// checkKeyOrder checks a key of a page against the previous one, which is nil for the first
// key. The first key must be equal to the key of the parent element: otherwise, bbolt does
// not find the parent when it writes, and references the page twice.
func checkKeyOrder(key, previous, first, end []byte) error {
	if previous == nil && first != nil && !bytes.Equal(key, first) ||
		previous != nil && bytes.Compare(key, previous) <= 0 ||
		end != nil && bytes.Compare(key, end) >= 0 {
		return errKeyOrder
	}
	return nil
}

func walkLeaf(page []byte, count uint16, first, end []byte, leaf leafElements) error {
	if count == 0 && first != nil {
		return errEmptyLeaf
	}
	var previous []byte
	for n := range uint64(count) {
		position := pageHeaderSize + n*elementSize
		if position+elementSize > uint64(len(page)) {
			return errElementCount
		}
		e := page[position:]
		offset, keySize, valueSize := uint64(byteOrder.Uint32(e[4:])), uint64(byteOrder.Uint32(e[8:])), uint64(byteOrder.Uint32(e[12:]))
		data, err := elementData(page, position, offset, keySize+valueSize)
		if err != nil {
			return err
		}
		key := data[:keySize:keySize]
		if err := checkKeyOrder(key, previous, first, end); err != nil {
			return err
		}
		previous = key
		if err := leaf.element(byteOrder.Uint32(e), key, data[keySize:]); err != nil {
			return err
		}
	}
	if leaf.endPage != nil {
		leaf.endPage()
	}
	return nil
}

func (w *pageWalk) branch(page []byte, count uint16, first, end []byte, leaf leafElements) error {
	keys, children := make([][]byte, count), make([]uint64, count)
	for n := range uint64(count) {
		position := pageHeaderSize + n*elementSize
		if position+elementSize > uint64(len(page)) {
			return errElementCount
		}
		e := page[position:]
		key, err := elementData(page, position, uint64(byteOrder.Uint32(e)), uint64(byteOrder.Uint32(e[4:])))
		if err != nil {
			return err
		}
		var previous []byte
		if n > 0 {
			previous = keys[n-1]
		}
		if err := checkKeyOrder(key, previous, first, end); err != nil {
			return err
		}
		keys[n], children[n] = key, byteOrder.Uint64(e[8:])
	}
	if count == 0 {
		return errEmptyBranch
	}
	for n, child := range children {
		childEnd := end
		if n+1 < len(keys) {
			childEnd = keys[n+1]
		}
		if err := w.tree(child, keys[n], childEnd, leaf); err != nil {
			return err
		}
	}
	return nil
}

// bucket receives the elements of the root tree. It walks one bucket and computes its
// checksum. A small bucket is inline: its only page is part of its value.
func (w *pageWalk) bucket(flags uint32, name, value []byte) error {
	if flags != flagBucket || len(value) < bucketHeaderSize {
		return errNotBucket
	}
	var sum recordSum
	record := func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return errNotRecord
		}
		sum.add(key, value)
		return nil
	}
	root := byteOrder.Uint64(value)
	var err error
	switch inline := value[bucketHeaderSize:]; {
	case root != 0:
		err = w.tree(root, nil, nil, leafElements{record, sum.flush})
	case len(inline) < pageHeaderSize || byteOrder.Uint64(inline) != 0 || byteOrder.Uint16(inline[8:]) != flagLeaf:
		err = errNoRoot
	default:
		err = walkLeaf(inline, byteOrder.Uint16(inline[10:]), nil, nil, leafElements{record, sum.flush})
	}
	w.checksums[string(name)], w.records[string(name)] = sum.sum, sum.records
	if err != nil {
		return fmt.Errorf("%.20q: %w", name, err)
	}
	return nil
}

// freelist checks that each page is either in use or in the freelist.
func (w *pageWalk) freelist(id uint64) error {
	if id == noFreelist {
		return errFreelist
	}
	page, flags, headerCount, err := w.page(id)
	if err != nil {
		return err
	}
	list, count := page[pageHeaderSize:], uint64(headerCount)
	if count == freelistCountInData {
		count, list = byteOrder.Uint64(list), list[8:]
	}
	if flags != flagFreelist || count > uint64(len(list))/8 {
		return errFreelist
	}
	for n := range count {
		free := byteOrder.Uint64(list[8*n:])
		if free < 2 || free >= w.pages || w.visited[free] {
			return fmt.Errorf("page %d: %w", free, errNotFree)
		}
		w.visited[free] = true
	}
	for id := uint64(2); id < w.pages; id++ {
		if !w.visited[id] {
			return fmt.Errorf("page %d: %w", id, errLostPage)
		}
	}
	return nil
}
