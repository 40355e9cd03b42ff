package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/input"
)

// Scope is the scope of a search below its base.
type Scope int

// The scopes of RFC 4511 4.5.1.2.
const (
	Base     Scope = ldap.ScopeBaseObject
	OneLevel Scope = ldap.ScopeSingleLevel
	Subtree  Scope = ldap.ScopeWholeSubtree
)

// Scopes are the names of the scopes: of the contract, of RFC 4516 and of JNDI.
var Scopes = []input.Choice[Scope]{
	{Value: Subtree, Names: []string{"SUBTREE", "SUB", "WHOLE_SUBTREE", "SUBTREE_SCOPE"}},
	{Value: OneLevel, Names: []string{"ONE_LEVEL", "ONE", "SINGLE_LEVEL", "ONELEVEL_SCOPE"}},
	{Value: Base, Names: []string{"BASE", "BASE_OBJECT", "OBJECT", "OBJECT_SCOPE"}},
}

func (s Scope) String() string {
	switch s {
	case Base:
		return "BASE"
	case OneLevel:
		return "ONE_LEVEL"
	default:
		return "SUBTREE"
	}
}

// Search is a search request.
type Search struct {
	Base        string
	Scope       Scope
	Filter      string
	Attributes  []string // the slots of an Entry are in this order
	ShowDeleted bool     // include tombstones, and recycled objects if the server offers that
	// ExtendedDN requests DN values with the GUID and SID of their object (ad.ExtendedDN).
	// Servers without the control return plain DNs. Entry.DN is always plain.
	ExtendedDN bool
	// Descriptors requests the security descriptors of objects: the owner and the DACL in
	// ad.AttributeDescriptor, if that is among Attributes. Otherwise, the attribute is not requested,
	// and its slot stays empty. It requires RootDSE.Descriptors.
	Descriptors bool
}

const (
	// controlDomainScope suppresses referrals (MS-ADTS 3.1.1.3.4.1.2).
	controlDomainScope = "1.2.840.113556.1.4.1339"
	// controlShowDeleted includes tombstones (MS-ADTS 3.1.1.3.4.1.14).
	controlShowDeleted = "1.2.840.113556.1.4.417"
	// controlShowRecycled includes recycled objects, which the Recycle Bin hides from
	// controlShowDeleted (MS-ADTS 3.1.1.3.4.1.26).
	controlShowRecycled = "1.2.840.113556.1.4.2064"
	// controlExtendedDN requests extended DNs (MS-ADTS 3.1.1.3.4.1.5). Its value
	// SEQUENCE { INTEGER 0 } selects hexadecimal identifiers.
	controlExtendedDN   = "1.2.840.113556.1.4.529"
	hexExtendedDNOption = "\x30\x03\x02\x01\x00"
	// controlSDFlags selects parts of security descriptors (MS-ADTS 3.1.1.3.4.1.11). Its value
	// SEQUENCE { INTEGER 5 } selects the owner and the DACL. Without it, the server also returns the
	// SACL, which requires the right to manage the audit log: an account without it gets nothing.
	controlSDFlags     = "1.2.840.113556.1.4.801"
	ownerAndDACLOption = "\x30\x03\x02\x01\x05"
)

// Search reads all entries page by page and passes each to the callback in the calling
// goroutine, while further entries are received. It returns the number of complete pages.
//
// The error is nil only if the server marked the last page as the last. After an error the
// session is unusable, unless the server refused the search.
func (s *Session) Search(ctx context.Context, q Search, each func(*ad.Entry) error) (pages int, err error) {
	if err := CheckFilter(q.Filter); err != nil {
		return 0, fault.Operation{Object: "search filter " + q.Filter}.Failed(fault.Refused, err, filterSettings)
	}
	progress := func() {}
	if s.options.OnProgress != nil {
		progress = s.options.OnProgress
	}
	stream := newEntryStream(s.options.chunkSize)
	stream.onNew, stream.onPage = progress, progress
	s.transport.setStream(stream)
	defer s.transport.setStream(nil)

	paging := make(chan error, 1)
	go func() {
		var err error
		pages, err = s.requestPages(ctx, q, stream)
		close(stream.producerDone)
		paging <- err
	}()
	decoder := newDecoder(q.Attributes)
	decoder.extendedDN = q.ExtendedDN
	entries := 0
	err = stream.consume(func(message []byte) error {
		if entries++; entries > s.options.maxEntries {
			return s.operation("search", q.Base).Failed(fault.Incomplete, fmt.Errorf("%w: more than %d", errTooManyEntries, s.options.maxEntries), tooManyRemedy)
		}
		if err := ctx.Err(); err != nil { // buffered entries are dropped
			return s.operation("search", q.Base).Failed(fault.Canceled, err, "")
		}
		entry, err := decoder.decode(message)
		if err != nil {
			return s.operation("search", q.Base).Failed(fault.Incomplete, err, entryRemedy(err))
		}
		if len(message) > largeMessage {
			defer decoder.release()
		}
		return each(entry)
	})
	close(stream.consumerDone) // unblocks the reading goroutine if more entries arrive
	if err != nil {
		s.transport.Close() // the server may still be sending entries
	}
	if pagingErr := <-paging; err == nil {
		err = pagingErr
	}
	if err == nil {
		progress()
	}
	return pages, err
}

// requestPages requests pages until the server returns an empty cookie.
func (s *Session) requestPages(ctx context.Context, q Search, stream *entryStream) (pages int, err error) {
	operation := s.operation("search", q.Base)
	var cookie []byte
	pagesWithoutNew := 0
	for {
		request := ldap.NewSearchRequest(q.Base, int(q.Scope), ldap.NeverDerefAliases, 0, 0, false, q.Filter, q.requested(), s.pageControls(q, s.PageSize, cookie))
		var result *ldap.SearchResult
		err := s.call(ctx, "search", operation, func() (err error) {
			result, err = s.conn.Search(request)
			return err
		})
		if err != nil {
			if pages > 0 && cookieRejected(err) {
				return pages, operation.Failed(fault.Transient, fmt.Errorf("%w after page %d, because of idle time or other searches", errSearchDropped, pages),
					"check MaxConnIdleTime and MaxResultSetsPerConn in the server's LDAP policy")
			}
			return pages, searchError(operation, err)
		}
		if len(result.Entries) > 0 { // go-ldap decoded an entry that demuxConn did not recognize
			return pages, operation.Failed(fault.Incomplete, fmt.Errorf("%d entries: %w", len(result.Entries), errMalformed), serverRemedy)
		}
		response, ok := ldap.FindControl(result.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok {
			return pages, operation.Failed(fault.Incomplete, errNoPagingControl, "use a server that offers paged results (RFC 2696)")
		}
		pages++
		if len(response.Cookie) == 0 {
			return pages, nil
		}
		cookie = response.Cookie
		if pagesWithoutNew++; stream.takeNew() {
			pagesWithoutNew = 0
		}
		if pagesWithoutNew <= maxProgressPages {
			stream.onPage()
		}
		if pagesWithoutNew == maxPagesWithoutNew {
			return pages, operation.Failed(fault.Incomplete, fmt.Errorf("%w in %d consecutive pages", errNoNewEntries, pagesWithoutNew), serverRemedy)
		}
	}
}

// pageControls returns the controls of the request of one page. They are new for every page:
// go-ldap would reuse a stale cookie.
func (s *Session) pageControls(q Search, size int, cookie []byte) []ldap.Control {
	paging := ldap.NewControlPaging(uint32(size))
	paging.SetCookie(cookie)
	return append([]ldap.Control{paging}, s.controls(q)...)
}

// requested returns the attributes to request.
func (q Search) requested() []string {
	if q.Descriptors || !slices.Contains(q.Attributes, ad.AttributeDescriptor) {
		return q.Attributes
	}
	return slices.DeleteFunc(slices.Clone(q.Attributes), func(name string) bool { return name == ad.AttributeDescriptor })
}

// controls returns the controls of a search, except for paging.
func (s *Session) controls(q Search) []ldap.Control {
	controls := []ldap.Control{ldap.NewControlString(controlDomainScope, false, "")}
	if q.ShowDeleted {
		controls = append(controls, ldap.NewControlString(controlShowDeleted, true, ""))
		if s.RootDSE.ShowRecycled {
			controls = append(controls, ldap.NewControlString(controlShowRecycled, true, ""))
		}
	}
	if q.ExtendedDN {
		controls = append(controls, ldap.NewControlString(controlExtendedDN, false, hexExtendedDNOption))
	}
	if q.Descriptors {
		controls = append(controls, ldap.NewControlString(controlSDFlags, false, ownerAndDACLOption))
	}
	return controls
}

// maxPagesWithoutNew is the number of consecutive pages without a new entry after which a
// search fails. Some empty pages are legitimate: a domain controller returns them while it
// evaluates a filter without an index. An equal cookie proves nothing: Samba and
// 389 Directory Server repeat theirs.
const maxPagesWithoutNew = 1000

// maxProgressPages is the number of consecutive pages without a new entry that are progress.
// A domain controller can evaluate a filter for up to 120 s before it returns an empty page,
// so a search without entries makes progress for up to two hours.
const maxProgressPages = 60

// defaultMaxEntries is the number of entries after which a search fails: a server could invent
// entries without end. The sample takes about 20 MB then. The largest known domains have a few
// million objects.
const defaultMaxEntries = 10_000_000

// maxEntriesWithoutNew is the number of consecutive entries without a new one after which a
// search fails: a page has no end that a server must respect.
const maxEntriesWithoutNew = maxPagesWithoutNew * defaultPageSize

// cookieRejected reports whether the server rejected the cookie of a page after the first
// one. A server without paged results fails on the first page already.
func cookieRejected(err error) bool {
	var result *ldap.Error
	return errors.As(err, &result) &&
		(result.ResultCode == ldap.LDAPResultUnavailableCriticalExtension || result.ResultCode == ldap.LDAPResultUnwillingToPerform)
}

// entryStream passes the entry messages of one search from the reading goroutine to the
// consumer, in chunks. A slow consumer blocks the reading goroutine when all chunks are full.
type entryStream struct {
	message int64  // ID of the page's request; guarded by demuxConn.mu
	size    int    // minimum size of a full chunk
	chunk   []byte // being filled by the reading goroutine
	sample  sample // of the entries; used by the reading goroutine
	hasNew  atomic.Bool
	onNew   func() // called for each new entry
	onPage  func() // called for each complete page that is progress; used by requestPages
	repeats int    // consecutive entries without a new one; used by the reading goroutine

	full         chan []byte
	free         chan []byte
	producerDone chan struct{} // closed when no more entries will arrive
	consumerDone chan struct{} // closed when the consumer has stopped
}

const (
	chunks = 4
	// A chunk is passed on when it is full or when the page ends. Passing it on before
	// every network wait, with a few entries each, made reading 1.4 to 1.7 times as slow.
	defaultChunkSize = 64 << 10
)

// noMessage is not a valid message ID.
const noMessage = -1

var errConsumerDone = errors.New("search stopped")

func newEntryStream(size int) *entryStream {
	s := &entryStream{
		size:    size,
		message: noMessage,
		sample:  newSample(),
		onNew:   func() {},
		onPage:  func() {},
		full:    make(chan []byte, chunks), free: make(chan []byte, chunks),
		producerDone: make(chan struct{}), consumerDone: make(chan struct{}),
	}
	for range chunks {
		s.free <- nil
	}
	return s
}

// observe records an entry, and returns an error if the search makes no progress.
func (s *entryStream) observe(message []byte) error {
	if s.sample.add(entryDN(message)) {
		s.hasNew.Store(true)
		s.onNew()
		s.repeats = 0
		return nil
	}
	if s.repeats++; s.repeats >= maxEntriesWithoutNew {
		return fmt.Errorf("%w in %d consecutive entries", errNoNewEntries, s.repeats)
	}
	return nil
}

// takeNew reports whether new entries arrived since the last call.
func (s *entryStream) takeNew() bool { return s.hasNew.Swap(false) }

// write appends one message to the current chunk.
func (s *entryStream) write(message []byte) error {
	if err := s.observe(message); err != nil {
		return err
	}
	if len(s.chunk) == 0 {
		select {
		case s.chunk = <-s.free:
		case <-s.consumerDone:
			return errConsumerDone
		}
	}
	if s.chunk = append(s.chunk, message...); len(s.chunk) >= s.size {
		s.flush()
	}
	return nil
}

// pass passes one large message to the consumer in a separate chunk, without a copy.
func (s *entryStream) pass(message []byte) error {
	if err := s.observe(message); err != nil {
		return err
	}
	s.flush()
	select {
	case <-s.free:
	case <-s.consumerDone:
		return errConsumerDone
	}
	s.full <- message
	return nil
}

// awaitConsumed waits until the consumer has handled all chunks.
func (s *entryStream) awaitConsumed() error {
	s.flush()
	for range chunks {
		select {
		case <-s.free:
		case <-s.consumerDone:
			return errConsumerDone
		}
	}
	for range chunks {
		s.free <- nil
	}
	return nil
}

// flush passes the current chunk to the consumer. It never blocks: full has capacity for
// all chunks.
func (s *entryStream) flush() {
	if len(s.chunk) > 0 {
		s.full <- s.chunk
		s.chunk = nil
	}
}

// consume passes every message to the callback until the producer is done and all chunks
// are empty.
func (s *entryStream) consume(each func(message []byte) error) error {
	for {
		select {
		case chunk := <-s.full:
			if err := s.handleChunk(chunk, each); err != nil {
				return err
			}
		case <-s.producerDone:
			for len(s.full) > 0 { // the last flush happened before producerDone was closed
				if err := s.handleChunk(<-s.full, each); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

func (s *entryStream) handleChunk(chunk []byte, each func(message []byte) error) error {
	for rest := chunk; len(rest) > 0; {
		size, _, err := messageSize(rest)
		if err != nil {
			return err
		}
		if err := each(rest[:size]); err != nil {
			return err
		}
		rest = rest[size:]
	}
	if cap(chunk) > 2*max(s.size, defaultChunkSize) {
		chunk = nil // release the memory of a huge entry
	}
	s.free <- chunk[:0]
	return nil
}
