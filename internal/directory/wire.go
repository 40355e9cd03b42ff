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

// wire is the connection under go-ldap. It frames the LDAP messages that come in,
// keeps the entries of the search under way for our own decoder, and passes
// everything else on, so that results, controls and small searches stay
// go-ldap's business.
//
// It bounds what a server can make us hold, and how long it can make us wait.
type wire struct {
	net.Conn
	timeout  time.Duration
	received func(bytes int) // nil: nothing

	in    []byte // what was read; belongs, like the next two, to the reading goroutine
	start int    // so much of in has been used
	pass  int    // so many bytes from there are a message, or its rest, for go-ldap

	mu       sync.Mutex
	awaiting bool          // an answer is due: silence is an error
	due      time.Time     // since when it is
	waited   time.Duration // for its bytes, less what they were worth
	passed   int           // so many bytes of the answer went to go-ldap
	stream   *stream       // takes the entries of the search under way; nil: none is
	err      error         // why reading ended
}

const (
	maxEntryMessage = 16 << 20
	// maxPassed bounds what go-ldap gets in answer to one request: a result, its
	// controls, the rootDSE. It makes up to 400 bytes of each one.
	maxPassed = 128 << 10
	readSize  = 64 << 10
)

// maxWaits is how many timeouts an answer may be waited for in all, and one more for
// each readSize bytes of it: a server that lets a byte through now and then would hold
// a run up forever.
const maxWaits = 10

var (
	errTooSlow      = errors.New("answer too slow")
	errTooLarge     = errors.New("LDAP message too large")
	errDisconnected = errors.New("the server announced the end of the session")
)

// noticeOfDisconnection is the name of the one unsolicited notification that
// means something to us (RFC 4511 4.4.1).
var noticeOfDisconnection = []byte("1.3.6.1.4.1.1466.20036")

func newWire(conn net.Conn, timeout time.Duration, received func(bytes int)) *wire {
	return &wire{Conn: conn, timeout: timeout, received: received, in: make([]byte, 0, readSize)}
}

// expect says whether an answer is due. While none is, the connection may be
// silent for as long as the consumer of entries takes.
func (w *wire) expect(answer bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.awaiting, w.due, w.waited = answer, time.Now(), 0
	w.setDeadline()
}

// setDeadline holds for writes too: the request's own, and those that TLS makes
// while it reads.
func (w *wire) setDeadline() {
	var deadline time.Time
	if w.awaiting {
		deadline = time.Now().Add(min(w.timeout, maxWaits*w.timeout-w.waited))
	}
	_ = w.Conn.SetDeadline(deadline) // fails only on a closed connection, as the read will
}

// carry sets the stream that takes the entries of the next search; nil ends it.
func (w *wire) carry(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream = s
}

// failure returns why reading from the server ended, if it did.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *wire) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	return err
}

// Write sends one request. The message ID of a search is noted, so that only its
// entries are taken, not those of one that was abandoned.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.passed = 0
	if id, tag, ok := messageHead(p); ok && tag == tagSearchRequest && w.stream != nil {
		w.stream.message = id
	}
	w.mu.Unlock()
	n, err := w.Conn.Write(p)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

// Read gives go-ldap the messages that are its own.
func (w *wire) Read(p []byte) (int, error) {
	for w.pass == 0 {
		if err := w.next(); err != nil {
			return 0, w.fail(err)
		}
	}
	n := copy(p, w.in[w.start:w.start+w.pass])
	w.start += n
	w.pass -= n
	return n, nil
}

// next reads one message: its entry goes to the stream, or all of it to go-ldap.
func (w *wire) next() error {
	size, err := w.frame()
	if err != nil {
		return err
	}
	message := w.in[w.start : w.start+size]
	id, tag, ok := messageHead(message)
	if !ok {
		return errMalformed
	}
	if tag == tagSearchReference {
		w.start += size // asked not to send any; one that comes leads out of the scope
		return nil
	}
	if id == 0 && tag == tagExtendedResponse && bytes.Contains(message, noticeOfDisconnection) {
		code, _ := resultCode(message, tagExtendedResponse)
		return fmt.Errorf("%w (LDAP result %d)", errDisconnected, code)
	}
	s := w.streamOf(id)
	if s != nil && tag == tagSearchEntry {
		w.start += size
		return s.put(message)
	}
	if s != nil {
		s.flush() // before go-ldap learns that the page has ended
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.passed += size; w.passed > maxPassed {
		return fmt.Errorf("%w: %d bytes besides entries", errTooLarge, w.passed)
	}
	w.pass = size
	return nil
}

// streamOf returns the stream that takes the answer to the request with this ID.
func (w *wire) streamOf(id int64) *stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stream == nil || w.stream.message != id {
		return nil
	}
	return w.stream
}

// frame reads until in holds a whole message, and returns its size.
func (w *wire) frame() (int, error) {
	for {
		unused := w.in[w.start:]
		size, known, err := messageSize(unused)
		if err != nil {
			return 0, err
		}
		if known && size <= len(unused) {
			return size, nil
		}
		if err := w.fill(); err != nil {
			if errors.Is(err, io.EOF) && len(unused) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
}

// fill reads once. The buffer doubles when it is full: it grows with what has
// come, never with what a length promises.
func (w *wire) fill() error {
	w.mu.Lock()
	w.setDeadline()
	w.mu.Unlock()
	if w.start > 0 {
		w.in = w.in[:copy(w.in, w.in[w.start:])]
		w.start = 0
	}
	if len(w.in) == cap(w.in) {
		grown := make([]byte, len(w.in), max(readSize, 2*cap(w.in)))
		copy(grown, w.in)
		w.in = grown
	}
	start := time.Now()
	n, err := w.Conn.Read(w.in[len(w.in):cap(w.in)])
	w.in = w.in[:len(w.in)+n]
	if w.received != nil && n > 0 {
		w.received(n)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if start.Before(w.due) {
		start = w.due // until then there was nothing to wait for
	}
	w.waited = max(0, w.waited+time.Since(start)-w.timeout*time.Duration(n)/readSize)
	switch {
	case w.awaiting && w.waited >= maxWaits*w.timeout:
		return errTooSlow
	case n > 0:
		return nil
	}
	return err
}
