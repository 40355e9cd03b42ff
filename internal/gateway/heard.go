package gateway

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Heard is what answers have said besides what they were asked.
type Heard struct {
	Told  bool          // some answer had a date
	Ahead time.Duration // of the other side's clock before ours; it counts in seconds

	Calls  int // that the gateway allows within the window; 0: it has not said
	Window time.Duration
}

// Heard returns what the latest answers have said.
func (c *Client) Heard() Heard {
	c.heard.mu.Lock()
	defer c.heard.mu.Unlock()
	return c.heard.latest
}

// listener notes what each answer says on its way by.
type listener struct {
	http.RoundTripper
	mu     sync.Mutex
	latest Heard
}

func (l *listener) RoundTrip(request *http.Request) (*http.Response, error) {
	asked := time.Now()
	response, err := l.RoundTripper.RoundTrip(request)
	if err == nil {
		l.listen(response.Header, asked, time.Now())
	}
	return response, err
}

func (l *listener) listen(header http.Header, asked, answered time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		l.latest.Told = true
		l.latest.Ahead = date.Sub(asked.Add(answered.Sub(asked) / 2))
	}
	calls, err := strconv.Atoi(header.Get("X-RateLimit-Limit"))
	seconds, err2 := strconv.ParseUint(header.Get("X-RateLimit-Window-Sec"), 10, 31)
	if err == nil && err2 == nil && calls > 0 && seconds > 0 {
		l.latest.Calls, l.latest.Window = calls, time.Duration(seconds)*time.Second
	}
}
