package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"sync"
	"unicode/utf16"
)

// Limits of responses. A gateway decides how much it sends, so a larger response fails its call.
const (
	maxErrorBytes    = 64 << 10 // of any response with a status of 400 or more; the rest is not read
	maxTokenBytes    = 64 << 10
	maxDocumentBytes = 1 << 20
	maxStateBytes    = 64 << 10
	maxAssetsBytes   = 4 << 20 // more than 800 bytes for each of 5,000 objects
)

var errResponseTooLarge = errors.New("response too large")

// readBody reads the body of a response. A success of more than limit bytes is an error. Of
// other responses, it reads the first maxErrorBytes at most.
func readBody(r *http.Response, limit int64) ([]byte, error) {
	isSuccess := r.StatusCode < 300
	if !isSuccess {
		limit = maxErrorBytes
	} else if r.ContentLength > limit {
		return nil, errResponseTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if int64(len(body)) <= limit {
		return body, err
	}
	if isSuccess {
		return nil, errResponseTooLarge
	}
	return body[:limit], nil
}

// withoutByteOrderMark returns a text in UTF-8 without a byte order mark. Text in UTF-16, which
// the mark identifies, is converted.
func withoutByteOrderMark(text []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return text[3:]
	case bytes.HasPrefix(text, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return text
	}
	units := make([]uint16, len(text)/2-1)
	for i := range units {
		units[i] = order.Uint16(text[2+2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// requestBody is the body of a request in parts, which are sent without joining them. The
// transport may send the body several times, and may still read it after it has returned the
// response. After detach it reads no more, so that the caller can reuse the parts.
type requestBody struct {
	parts [][]byte

	mu       sync.Mutex
	isBegun  bool // a part was read
	detached bool
}

func newRequestBody(parts ...[]byte) *requestBody { return &requestBody{parts: parts} }

func (b *requestBody) size() (n int64) {
	for _, part := range b.parts {
		n += int64(len(part))
	}
	return n
}

// setTo sets the body of a request.
func (b *requestBody) setTo(request *http.Request) {
	if request.ContentLength = b.size(); request.ContentLength == 0 {
		request.Body = http.NoBody
		return
	}
	request.GetBody = func() (io.ReadCloser, error) { return b.reader(), nil }
	request.Body = b.reader()
}

func (b *requestBody) reader() io.ReadCloser {
	readers := make([]io.Reader, len(b.parts))
	for i, part := range b.parts {
		readers[i] = bytes.NewReader(part)
	}
	return &bodyReader{body: b, parts: io.MultiReader(readers...), left: b.size()}
}

// begun reports whether a part of the body was read, and so whether there was a connection.
func (b *requestBody) begun() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isBegun
}

// minRefusedSize is the smallest size in bytes of a request for which a lost connection can mean that
// the request is too large. Whether the server has read all of it is unknown: buffers hold the rest.
const minRefusedSize = 64 << 10

// isLarge reports whether a body of minRefusedSize or more was sent at least in part.
func (b *requestBody) isLarge() bool { return b.begun() && b.size() >= minRefusedSize }

// detach ends all reading.
func (b *requestBody) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
}

// bodyReader reads the parts of a body. It has no WriteTo, which would pass the parts to the
// connection beyond the control of detach.
type bodyReader struct {
	body  *requestBody
	parts io.Reader
	left  int64
}

// Read reads the body. After detach it returns an error, unless the whole body was read.
func (r *bodyReader) Read(p []byte) (n int, err error) {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.body.detached {
		return 0, io.ErrClosedPipe
	}
	r.body.isBegun = true
	n, err = r.parts.Read(p)
	r.left -= int64(n)
	return n, err
}

// Close does nothing.
func (r *bodyReader) Close() error { return nil }
