package webserver

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	maxRendering = 16              // concurrent calls of a handler
	maxResponse  = 8 << 20         // bytes of a response
	maxPending   = 16 << 20        // bytes of all responses that are being sent
	slotTimeout  = 2 * time.Second // until a request without a slot is refused
)

var errTooLarge = errors.New("response too large")

// Renderer runs handlers with a buffer for their responses, and sends the responses
// afterward. A slow client therefore occupies its connection, but no slot. If the responses
// that are being sent exceed a limit, the client that has been reading for the longest time
// is disconnected.
type Renderer struct {
	slots chan struct{}

	mu      sync.Mutex
	pending []*transfer // the oldest first
	bytes   int
}

// transfer is a response that is being sent.
type transfer struct {
	size  int
	abort func()
}

// NewRenderer returns a renderer.
func NewRenderer() *Renderer { return &Renderer{slots: make(chan struct{}, maxRendering)} }

// Handler returns a handler that runs next in a slot. It responds with 503 if no slot becomes
// free in two seconds.
func (b *Renderer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rendered := &response{header: w.Header(), status: http.StatusOK}
		if !b.render(rendered, next, r) {
			http.Error(w, "too many concurrent requests", http.StatusServiceUnavailable)
			return
		}
		if rendered.failed {
			http.Error(w, errTooLarge.Error(), http.StatusInternalServerError)
			return
		}
		b.send(w, rendered)
	})
}

// render runs a handler in a slot. It returns false if there was none.
func (b *Renderer) render(w *response, next http.Handler, r *http.Request) bool {
	timeout := time.NewTimer(slotTimeout)
	defer timeout.Stop()
	select {
	case b.slots <- struct{}{}:
	case <-timeout.C:
		return false
	case <-r.Context().Done():
		return false
	}
	defer func() { <-b.slots }()
	next.ServeHTTP(w, r)
	return true
}

// send sends a response. It disconnects other clients if too many bytes wait to be sent.
func (b *Renderer) send(w http.ResponseWriter, rendered *response) {
	controller := http.NewResponseController(w)
	t := &transfer{rendered.body.Len(), func() { _ = controller.SetWriteDeadline(time.Unix(1, 0)) }} // the write fails
	b.add(t)
	defer b.remove(t)
	w.Header().Set("Content-Length", strconv.Itoa(rendered.body.Len()))
	w.WriteHeader(rendered.status)
	_, _ = w.Write(rendered.body.Bytes()) // an error means that the client disconnected
}

func (b *Renderer) add(t *transfer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) > 0 && b.bytes+t.size > maxPending {
		oldest := b.pending[0]
		b.pending, b.bytes = b.pending[1:], b.bytes-oldest.size
		oldest.abort()
	}
	b.pending, b.bytes = append(b.pending, t), b.bytes+t.size
}

func (b *Renderer) remove(t *transfer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.pending {
		if other == t {
			b.pending, b.bytes = append(b.pending[:i:i], b.pending[i+1:]...), b.bytes-t.size
			return
		}
	}
}

// response is a buffered response.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
	failed bool // too large
}

// Header returns the header of the connection's response.
func (r *response) Header() http.Header { return r.header }

// WriteHeader records the status.
func (r *response) WriteHeader(status int) { r.status = status }

// Write appends to the body. It returns an error if the response becomes too large.
func (r *response) Write(p []byte) (int, error) {
	if r.body.Len()+len(p) > maxResponse {
		r.failed = true
		r.body = bytes.Buffer{}
	}
	if r.failed {
		return 0, errTooLarge
	}
	return r.body.Write(p)
}
