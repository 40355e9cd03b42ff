package gateway

import (
	"crypto/x509"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// ServerHints are values that the gateway sends in the headers of any response.
type ServerHints struct {
	HasDate    bool          // a response had a Date header
	ClockAhead time.Duration // of the gateway's clock relative to the local one; to the second

	RateLimit  int // requests per RateWindow; 0: unknown
	RateWindow time.Duration

	// Certificate is that of the server, or of a proxy in its place that inspects TLS; nil: there was
	// no TLS.
	Certificate *x509.Certificate
}

// Host returns the host of the gateway, with the port if it is not the default one.
func (c *Client) Host() string { return c.options.URL.Host }

// ServerHints returns the hints of the latest responses.
func (c *Client) ServerHints() ServerHints {
	c.hints.mu.Lock()
	defer c.hints.mu.Unlock()
	return c.hints.latest
}

// hintRecorder is a transport that records the hints of each response.
type hintRecorder struct {
	http.RoundTripper
	host   string // of the gateway; the certificates of other servers are no hint
	mu     sync.Mutex
	latest ServerHints
}

// RoundTrip sends a request and records the hints of its response.
func (r *hintRecorder) RoundTrip(request *http.Request) (*http.Response, error) {
	sent := time.Now()
	response, err := r.RoundTripper.RoundTrip(request)
	if err == nil {
		r.record(response, sent, time.Now())
	}
	return response, err
}

func (r *hintRecorder) record(response *http.Response, sent, received time.Time) {
	header := response.Header
	r.mu.Lock()
	defer r.mu.Unlock()
	if response.TLS != nil && len(response.TLS.PeerCertificates) > 0 && response.Request.URL.Host == r.host {
		r.latest.Certificate = response.TLS.PeerCertificates[0]
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		r.latest.HasDate = true
		r.latest.ClockAhead = date.Sub(sent.Add(received.Sub(sent) / 2))
	}
	limit, err := strconv.Atoi(header.Get("X-RateLimit-Limit"))
	seconds, err2 := strconv.ParseUint(header.Get("X-RateLimit-Window-Sec"), 10, 31)
	if err == nil && err2 == nil && limit > 0 && seconds > 0 {
		r.latest.RateLimit, r.latest.RateWindow = limit, time.Duration(seconds)*time.Second
	}
}
