package directory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// demuxConn is the connection that go-ldap uses. It splits the input into LDAP messages.
// Entries of the active search go to an entryStream; go-ldap gets everything else.
//
// It limits the memory that a server's messages can take, and the time to wait for them.
type demuxConn struct {
	net.Conn
	timeout time.Duration // guarded by mu

	// Only the reading goroutine uses these.
	buf     []byte // received bytes
	start   int    // offset of the first unused byte in buf
	forward int    // number of bytes at start that go-ldap reads next

	mu           sync.Mutex
	awaiting     bool          // a response is expected: silence is an error
	awaitedSince time.Time     // start of the wait for the response
	waitTime     time.Duration // time spent in reads, less the allowance for received bytes
	others       int           // bytes of the messages of this response that are not entries
	stream       *entryStream  // receives the entries of the active search; nil: no search
	lastDone     int64         // ID of the last request of a search that ended
	err          error         // why reading ended
}

const (
	maxEntryMessage = 16 << 20
	// largeMessage is the size above which a message waits until the consumer has handled
	// all earlier entries of the search. So a search holds one large message at most.
	largeMessage = 1 << 20
	// maxForwarded limits the bytes that go-ldap gets for one request: a result, its
	// controls, the rootDSE. go-ldap allocates up to 400 bytes for each of them.
	maxForwarded = 128 << 10
	readSize     = 64 << 10
)

// maxWaits is the number of timeouts that one response may take in all. Each readSize
// bytes received allow one more. Without a limit, a server that sends single bytes could
// block a run forever.
const maxWaits = 10

var (
	errTooSlow      = errors.New("response too slow")
	errTooLarge     = errors.New("LDAP message too large")
	errDisconnected = errors.New("session ended by the server")
)

// noticeOfDisconnection is the name of the only unsolicited notification that is
// evaluated (RFC 4511 4.4.1).
var noticeOfDisconnection = []byte("1.3.6.1.4.1.1466.20036")

func newDemuxConn(conn net.Conn, timeout time.Duration) *demuxConn {
	return &demuxConn{Conn: conn, timeout: timeout, buf: make([]byte, 0, readSize), lastDone: noMessage}
}

// awaitResponse sets whether a response is expected. While none is, the connection may be
// silent for as long as the consumer of entries needs.
func (w *demuxConn) awaitResponse(awaiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.awaiting, w.awaitedSince, w.waitTime = awaiting, time.Now(), 0
	w.setDeadline()
}

// setTimeout sets the maximum silence while a response is expected. It must not be called while
// one is expected.
func (w *demuxConn) setTimeout(timeout time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timeout = timeout
}

// setDeadline sets the deadline of reads and writes: TLS writes while it reads.
func (w *demuxConn) setDeadline() {
	var deadline time.Time
	if w.awaiting {
		deadline = time.Now().Add(min(w.timeout, maxWaits*w.timeout-w.waitTime))
	}
	_ = w.Conn.SetDeadline(deadline) // fails only on a closed connection, as the read will
}

// setStream sets the stream that receives the entries of the next search; nil: none.
func (w *demuxConn) setStream(s *entryStream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream = s
}

// readError returns why reading or writing ended, or nil.
func (w *demuxConn) readError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// fail records the first error and returns err.
func (w *demuxConn) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	return err
}

// Write sends one request. It records the message ID of a search, so that entries of an
// abandoned search are not mixed into the next one.
func (w *demuxConn) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.others = 0
	if id, tag, ok := parseMessageHead(p); ok && tag == tagSearchRequest && w.stream != nil {
		w.stream.message = id
	}
	w.mu.Unlock()
	n, err := w.Conn.Write(p)
	if err != nil {
		return n, w.fail(err)
	}
	return n, nil
}

// Read returns the bytes of messages for go-ldap.
func (w *demuxConn) Read(p []byte) (int, error) {
	for w.forward == 0 {
		if err := w.nextMessage(); err != nil {
			return 0, w.fail(err)
		}
	}
	n := copy(p, w.buf[w.start:w.start+w.forward])
	w.start += n
	w.forward -= n
	return n, nil
}

// nextMessage reads one message and routes it to the stream or to go-ldap.
func (w *demuxConn) nextMessage() error {
	size, err := w.readMessage()
	if err != nil {
		return err
	}
	message := w.buf[w.start : w.start+size]
	id, tag, ok := parseMessageHead(message)
	if !ok {
		return errMalformed
	}
	if tag == tagSearchReference {
		w.start += size // the request asks for none, and a referral leaves the scope
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.countOther(size)
	}
	if id == 0 && tag == tagExtendedResponse && bytes.Contains(message, noticeOfDisconnection) {
		code, _ := resultCode(message, tagExtendedResponse)
		return fmt.Errorf("%w (LDAP result %d)", errDisconnected, code)
	}
	s := w.streamFor(id)
	if s != nil && tag == tagSearchEntry {
		if size > largeMessage {
			w.detach(size)
			return s.pass(message)
		}
		w.start += size
		return s.write(message)
	}
	if s != nil {
		s.flush() // before go-ldap receives the end of the page
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case tag == tagSearchEntry && id == w.lastDone:
		return fmt.Errorf("%w: entry after the end of the search", errMalformed)
	case tag == tagSearchDone && s != nil:
		s.message, w.lastDone = noMessage, id
	}
	w.forward = size
	return w.countOther(size)
}

// countOther counts the bytes of a message that is not an entry, and returns an error if a
// response has too many. The caller holds mu.
func (w *demuxConn) countOther(size int) error {
	if w.others += size; w.others > maxForwarded {
		return fmt.Errorf("%w: %d bytes of other messages than entries", errTooLarge, w.others)
	}
	return nil
}

// streamFor returns the stream of the search with this message ID, or nil.
func (w *demuxConn) streamFor(id int64) *entryStream {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stream == nil || w.stream.message != id {
		return nil
	}
	return w.stream
}

// readMessage reads until buf holds a whole message, and returns its size.
func (w *demuxConn) readMessage() (int, error) {
	for checked := false; ; {
		unused := w.buf[w.start:]
		size, known, err := messageSize(unused)
		if err != nil {
			return 0, err
		}
		if known && size <= len(unused) {
			return size, nil
		}
		if known && size > maxForwarded && !checked {
			if checked, err = w.checkLarge(unused, size); err != nil {
				return 0, err
			}
		}
		if err := w.fill(size); err != nil {
			if errors.Is(err, io.EOF) && len(unused) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
}

// checkLarge checks the beginning of a message that is too large for go-ldap: only an entry
// of the active search may be as large. If it is large for an entry too, checkLarge waits
// until the consumer has handled the earlier ones. checked is false if bytes are missing.
func (w *demuxConn) checkLarge(unused []byte, size int) (checked bool, err error) {
	id, tag, known, ok := parsePartialHead(unused)
	switch {
	case !ok:
		return false, errMalformed
	case !known:
		return false, nil
	}
	s := w.streamFor(id)
	if s == nil || tag != tagSearchEntry {
		return false, fmt.Errorf("%w: %d bytes announced besides entries", errTooLarge, size)
	}
	if size > largeMessage {
		return true, s.awaitConsumed()
	}
	return true, nil
}

// fill reads once. need is the size of the message at start; 0: unknown.
func (w *demuxConn) fill(need int) error {
	w.mu.Lock()
	w.setDeadline()
	w.mu.Unlock()
	if w.start > 0 {
		w.buf = w.buf[:copy(w.buf, w.buf[w.start:])]
		w.start = 0
	}
	if len(w.buf) == cap(w.buf) {
		w.buf = append(make([]byte, 0, grownSize(cap(w.buf), need)), w.buf...)
	}
	start := time.Now()
	n, err := w.Conn.Read(w.buf[len(w.buf):cap(w.buf)])
	w.buf = w.buf[:len(w.buf)+n]
	w.mu.Lock()
	defer w.mu.Unlock()
	if start.Before(w.awaitedSince) {
		start = w.awaitedSince // no response was expected before
	}
	w.waitTime = max(0, w.waitTime+time.Since(start)-w.timeout*time.Duration(min(n, maxWaits*readSize))/readSize)
	switch {
	case w.awaiting && w.waitTime >= maxWaits*w.timeout:
		return errTooSlow
	case n > 0:
		return nil
	}
	return err
}

// grownSize returns the size of a buffer that replaces a full one of the given size. It grows
// to the announced size of the message when a quarter of that has arrived, and doubles before:
// its size never depends on an announced length alone.
func grownSize(full, need int) int {
	if full < need && need <= 4*full {
		return need
	}
	return max(readSize, 2*full)
}

// detach hands the memory of the message at start to the caller. The bytes after it stay.
func (w *demuxConn) detach(size int) {
	rest := w.buf[w.start+size:]
	w.buf, w.start = append(make([]byte, 0, max(readSize, len(rest))), rest...), 0
}
