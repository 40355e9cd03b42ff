package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestConcurrencyRefusal(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	const limit, alternative, toWait, remaining = "X-Concurrency-Limit-Limit", "X-ConcurrencyLimit-Limit", "X-RateLimit-ToWait-Sec", "X-RateLimit-Remaining"
	for _, test := range []struct {
		name      string
		headers   []string
		body      string
		isRefusal bool
		number    int
	}{
		{"no header", nil, "", false, 0},
		{"limit", []string{limit, "2"}, "", true, 2},
		{"other spelling", []string{alternative, " 2 "}, "", true, 2},
		{"both spellings", []string{limit, "5", alternative, "3"}, "", true, 3},
		{"twice", []string{limit, "4", limit, "2"}, "", true, 2},
		{"no number", []string{limit, ""}, "", true, 0},
		{"text", []string{limit, "two"}, "", true, 0},
		{"0", []string{limit, "0"}, "", true, 0},
		{"negative", []string{limit, "-1"}, "", true, 0},
		{"fraction", []string{limit, "2.5"}, "", true, 0},
		{"huge", []string{limit, "99999999999999999999"}, "", true, 1_000_000},
		{"body", nil, `{"errorMessage":"Concurrency limit exceeded"}`, true, 0},
		{"body, other word", nil, "too many CONCURRENT API calls", true, 0},
		{"other body", nil, "rate limit exceeded", false, 0},
		{"wait", []string{limit, "2", toWait, "5"}, "concurrency", false, 0},
		{"wait of 0", []string{limit, "2", toWait, "0", remaining, "299"}, "", true, 2},
		{"Retry-After", []string{limit, "2", "Retry-After", "1"}, "", false, 0},
		{"Retry-After of 0", []string{limit, "2", "Retry-After", "0"}, "", false, 0},
		{"Retry-After as a date", []string{limit, "2", "Retry-After", "Sun, 22 Nov 2026 10:05:00 GMT"}, "", false, 0},
		{"invalid Retry-After", []string{limit, "2", "Retry-After", "soon"}, "", true, 2},
		{"none remaining", []string{limit, "2", remaining, "0"}, "", false, 0},
		{"some remaining, and none", []string{limit, "2", remaining, "7", remaining, "0"}, "", false, 0},
	} {
		header := http.Header{}
		for i := 0; i < len(test.headers); i += 2 {
			header.Add(test.headers[i], test.headers[i+1])
		}
		number, isRefusal := concurrencyRefusal(response{status: 409, header: header, body: []byte(test.body)}, now)
		if number != test.number || isRefusal != test.isRefusal {
			t.Errorf("%s: %v, %d", test.name, isRefusal, number)
		}
	}
}

func TestReducedCalls(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                            string
		current, whenSent, number, want int
	}{
		{"lower number", 10, 10, 2, 2},
		{"same number", 2, 2, 2, 2},
		{"larger number", 10, 10, 25, 10},
		{"already reduced", 2, 10, 5, 2},
		{"no number", 25, 25, 0, 12},
		{"no number, sent before a reduction", 12, 25, 0, 12},
		{"no number, sent after a reduction", 12, 12, 0, 6},
		{"no number, one call", 1, 1, 0, 1},
	} {
		if got := reducedCalls(test.current, test.whenSent, test.number); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestRaisedConcurrencyLimit(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	before := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, test := range []struct {
		name  string
		limit ConcurrencyLimit
		want  ConcurrencyLimit
	}{
		{"none", ConcurrencyLimit{}, ConcurrencyLimit{}},
		{"under an hour", ConcurrencyLimit{before(59 * time.Minute), 2}, ConcurrencyLimit{before(59 * time.Minute), 2}},
		{"an hour", ConcurrencyLimit{before(time.Hour), 2}, ConcurrencyLimit{now, 3}},
		{"two hours and a half", ConcurrencyLimit{before(150 * time.Minute), 2}, ConcurrencyLimit{before(30 * time.Minute), 4}},
		{"up to the number of workers", ConcurrencyLimit{before(8 * time.Hour), 2}, ConcurrencyLimit{}},
		{"many years", ConcurrencyLimit{time.Unix(0, 0), 2}, ConcurrencyLimit{}},
		{"fewer workers configured since", ConcurrencyLimit{now, 12}, ConcurrencyLimit{}},
		{"noted in the future", ConcurrencyLimit{now.Add(time.Second), 2}, ConcurrencyLimit{}},
		{"invalid", ConcurrencyLimit{now, -1}, ConcurrencyLimit{}},
	} {
		if got := test.limit.raised(10, now); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestWithoutByteOrderMark(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, text, want string }{
		{"none", "{}", "{}"},
		{"UTF-8", "\xef\xbb\xbf{}", "{}"},
		{"UTF-16, little-endian", "\xff\xfe{\x00}\x00", "{}"},
		{"UTF-16, big-endian", "\xfe\xff\x00{\x00}", "{}"},
		{"UTF-16, surrogates", "\xfe\xff\xd8\x3d\xde\x00", "😀"},
		{"UTF-16, truncated", "\xfe\xff\x00{\x00", "{"},
		{"only the mark", "\xff\xfe", ""},
		{"empty", "", ""},
		{"in the text", "{}\xef\xbb\xbf", "{}\xef\xbb\xbf"},
	} {
		if got := string(withoutByteOrderMark([]byte(test.text))); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestIsPublished(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"SUCCESSFULLY_PUBLISHED", "Successfully Published", " successfully-published\n"} {
		if !isPublished(code) {
			t.Errorf("%q is not published", code)
		}
	}
	for _, code := range []string{"", "FAILED", "NOT_SUCCESSFULLY_PUBLISHED", strings.Repeat("_", 5)} {
		if isPublished(code) {
			t.Errorf("%q is published", code)
		}
	}
}
