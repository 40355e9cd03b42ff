package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// countingSession returns a session whose tokens have a lifetime, and a counter of its logins.
func countingSession(lifetime time.Duration) (*session, *int) {
	logins := new(int)
	return &session{login: func(context.Context) (*issuedToken, error) {
		*logins++
		return &issuedToken{text: strconv.Itoa(*logins), expiry: time.Now().Add(lifetime)}, nil
	}}, logins
}

// sharedToken acquires a shared token.
func sharedToken(t *testing.T, s *session) string {
	t.Helper()
	token, exclusive, err := s.acquire(t.Context(), nil, false)
	if err != nil || exclusive {
		t.Fatal(exclusive, err)
	}
	return token.text.Reveal()
}

func TestTokenIsRefreshedBeforeExpiry(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ lifetime, valid time.Duration }{
		{4 * time.Hour, 4*time.Hour - time.Minute},
		{5 * time.Minute, 4*time.Minute + 30*time.Second},
		{time.Second, 900 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := countingSession(test.lifetime)
			for _, step := range []struct {
				pause time.Duration
				want  string
			}{{0, "1"}, {test.valid - 1, "1"}, {1, "2"}, {test.valid - 1, "2"}, {1, "3"}} {
				time.Sleep(step.pause) // in synctest's fake time
				if got := sharedToken(t, s); got != step.want {
					t.Errorf("%s: token %s, want %s", test.lifetime, got, step.want)
				}
			}
		})
	}
}

// A state whose deadline ends during its login does not fail a concurrent batch.
func TestDeadlineDuringLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := countingSession(time.Hour)
		login := s.login
		s.login = func(ctx context.Context) (*issuedToken, error) {
			s.login = login
			<-ctx.Done()
			return nil, contextError(fault.Operation{Op: "log in"}, ctx.Err())
		}
		shortCtx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var group sync.WaitGroup
		group.Go(func() {
			if _, _, err := s.acquire(shortCtx, nil, false); fault.ClassOf(err) != fault.Transient {
				t.Error(err)
			}
		})
		synctest.Wait()
		sharedToken(t, s)
		group.Wait()
	})
}

func TestRejectedToken(t *testing.T) {
	t.Parallel()
	s, _ := countingSession(time.Hour)
	sharedToken(t, s)
	first := s.token
	for _, step := range []struct {
		name            string
		rejected        *token
		mustBeExclusive bool
		want            string
		exclusive       bool
	}{
		{"refreshed", first, false, "2", true},
		{"already refreshed", first, false, "2", false},
		{"exclusive", first, true, "3", true},
		{"shared", nil, false, "3", false},
	} {
		token, exclusive, err := s.acquire(t.Context(), step.rejected, step.mustBeExclusive)
		if err != nil || token.text.Reveal() != step.want || exclusive != step.exclusive {
			t.Errorf("%s: token %s, exclusive %v, %v", step.name, token.text.Reveal(), exclusive, err)
		}
		if exclusive {
			s.release(token)
		}
	}
}

// No other caller gets an exclusive token before its release. Then all get it without a login.
func TestExclusiveToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, logins := countingSession(time.Hour)
		sharedToken(t, s)
		exclusiveToken, exclusive, err := s.acquire(t.Context(), s.token, false)
		if err != nil || !exclusive {
			t.Fatal(exclusive, err)
		}
		var others atomic.Int64
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				if got := sharedToken(t, s); got != exclusiveToken.text.Reveal() {
					t.Errorf("token %s", got)
				}
				others.Add(1)
			})
		}
		synctest.Wait()
		if n := others.Load(); n > 0 {
			t.Errorf("%d callers have a token", n)
		}
		s.release(exclusiveToken)
		group.Wait()
		if *logins != 2 {
			t.Errorf("%d logins, want 2", *logins)
		}
	})
}

// Twenty concurrent callers share the error of one login, refused or failed.
func TestFailedLoginIsShared(t *testing.T) {
	t.Parallel()
	for _, class := range []fault.Class{fault.Refused, fault.Transient} {
		synctest.Test(t, func(t *testing.T) {
			logins, release := 0, make(chan struct{})
			s := &session{login: func(context.Context) (*issuedToken, error) {
				logins++
				<-release
				return nil, fault.Operation{Op: "log in"}.Failed(class, errors.New("failed"), "")
			}}
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					if _, _, err := s.acquire(t.Context(), nil, false); fault.ClassOf(err) != class {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			close(release)
			group.Wait()
			if logins != 1 {
				t.Errorf("%s: %d logins", class, logins)
			}
		})
	}
}

// The lifetime of an OAuth token is expires_in, else the token's exp, else the default.
func TestOAuthTokenLifetime(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]time.Duration{
		`{"access_token":"a","expires_in":100}`:                  100 * time.Second,
		`{"access_token":"a"}`:                                   defaultTokenLifetime,
		`{"access_token":"a","expires_in":-5}`:                   defaultTokenLifetime,
		`{"access_token":"a","expires_in":3599.0}`:               3599 * time.Second,
		`{"access_token":"a","expires_in":3.6e3}`:                time.Hour,
		`{"access_token":"a","expires_in":"3599"}`:               3599 * time.Second,
		`{"access_token":"a","expires_in":" 0.5 "}`:              time.Second / 2,
		`{"access_token":"a","expires_in":""}`:                   defaultTokenLifetime,
		`{"access_token":"a","expires_in":"soon"}`:               defaultTokenLifetime,
		`{"access_token":"a","expires_in":"NaN"}`:                defaultTokenLifetime,
		`{"access_token":"a","expires_in":null}`:                 defaultTokenLifetime,
		`{"access_token":"a","expires_in":0}`:                    defaultTokenLifetime,
		`{"access_token":"a","expires_in":{"seconds":1}}`:        defaultTokenLifetime,
		`{"access_token":"a","expires_in":1e18}`:                 maxTokenLifetime,
		`{"access_token":"a","expires_in":1e999}`:                maxTokenLifetime,
		`{"access_token":"a","expires_in":99999999999999999999}`: maxTokenLifetime,
		`access_token=a&expires_in=100`:                          100 * time.Second,
		// A synctest bubble starts with the year 2000: {"exp":946685000}.
		`{"access_token":"a.eyJleHAiOjk0NjY4NTAwMH0.a"}`: 200 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			c := New(Options{URL: &url.URL{}, Login: Login{ClientID: "x", TokenURL: &url.URL{Scheme: "http", Host: "gateway", Path: "/token"}}})
			c.http.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
			})
			token, err := c.login(t.Context())
			if err != nil || time.Until(token.expiry) != want {
				t.Errorf("%s: until %+v, %v, want %s", body, token, err, want)
			}
		})
	}
}

// If the context of the caller that logs in ends, another caller logs in. A caller whose context
// ends while it waits returns.
func TestStopDuringLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		s := &session{login: func(ctx context.Context) (*issuedToken, error) {
			logins++
			if logins > 1 {
				return &issuedToken{text: "valid", expiry: time.Now().Add(time.Hour)}, nil
			}
			<-ctx.Done()
			return nil, contextError(fault.Operation{Op: "log in"}, ctx.Err())
		}}
		ctx, cancel := context.WithCancel(t.Context())
		shortCtx, cancelShort := context.WithTimeout(t.Context(), time.Minute)
		defer cancelShort()
		var group sync.WaitGroup
		group.Go(func() {
			if _, _, err := s.acquire(ctx, nil, false); fault.ClassOf(err) != fault.Canceled {
				t.Error(err)
			}
		})
		synctest.Wait()
		group.Go(func() {
			if _, _, err := s.acquire(shortCtx, nil, false); !errors.Is(err, context.DeadlineExceeded) || fault.ClassOf(err) != fault.Transient {
				t.Error(err)
			}
		})
		group.Go(func() {
			if got := sharedToken(t, s); got != "valid" {
				t.Errorf("token %s", got)
			}
		})
		time.Sleep(2 * time.Minute) // in synctest's fake time
		cancel()
		group.Wait()
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Twice, other calls refresh the token and use it up before this call. The third token is
// exclusive, and its rejection is final.
func TestThirdTokenIsExclusive(t *testing.T) {
	t.Parallel()
	c := New(Options{URL: &url.URL{Scheme: "http", Host: "gateway"}})
	s, logins := countingSession(time.Hour)
	c.session.login = s.login
	var seen []string
	c.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.Header.Get("Authorization"))
		if len(seen) <= 2 {
			refreshed, _, err := c.session.acquire(r.Context(), c.session.token, false)
			if err != nil {
				t.Error(err)
			}
			c.session.release(refreshed)
		}
		return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
	})
	_, err := c.Profile(t.Context())
	if fault.ClassOf(err) != fault.Refused || !slices.Equal(seen, []string{"Bearer 1", "Bearer 2", "Bearer 4"}) || *logins != 4 {
		t.Errorf("%v after %s, %d logins", err, seen, *logins)
	}
	if shared := c.session.token; shared == nil || shared.text.Reveal() != "4" {
		t.Error("the latest token is not shared")
	}
}

// SetState returns within stateTimeout, whichever request gets no response.
func TestStateTimeout(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/auth", "/state"} {
		synctest.Test(t, func(t *testing.T) {
			c := New(Options{URL: &url.URL{Scheme: "http", Host: "gateway"}, Login: Login{Username: "x"}, Grace: time.Hour})
			c.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, path) {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("a.b.c"))}, nil
			})
			start := time.Now()
			err := c.SetState(t.Context(), ConnectorState{State: "PROCESSED"})
			if fault.ClassOf(err) != fault.Transient || time.Since(start) != stateTimeout {
				t.Errorf("%s: %v after %s", path, err, time.Since(start))
			}
		})
	}
}

func TestRateLimitWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var limit rateLimit
		start := time.Now()
		wait := func(ctx context.Context) time.Duration {
			if err := limit.wait(ctx); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if got := wait(t.Context()); got != 0 {
			t.Errorf("waited %s", got)
		}
		extend := func(wait time.Duration) time.Time { return limit.extend(Limit{time.Now(), time.Now().Add(wait)}) }
		extend(time.Hour)
		if until := extend(time.Minute); until.Sub(start) != time.Hour {
			t.Errorf("until %s", until.Sub(start))
		}
		// A response during the wait may extend the limit.
		time.AfterFunc(30*time.Minute, func() { extend(time.Hour) })
		if got := wait(t.Context()); !IsWait(got, 30*time.Minute+time.Hour) {
			t.Errorf("waited %s", got)
		}
		start = time.Now()
		extend(time.Hour)
		longCtx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if got := wait(longCtx); !IsWait(got, time.Hour) {
			t.Errorf("waited %s", got)
		}
		start = time.Now()
		extend(time.Hour)
		shortCtx, cancel2 := context.WithTimeout(t.Context(), time.Minute)
		defer cancel2()
		if err := limit.wait(shortCtx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// Calls of different connectors resume at different times after the same limit.
func TestRateLimitSpread(t *testing.T) {
	t.Parallel()
	noted := time.Now()
	for _, test := range []struct{ wait, spread time.Duration }{
		{time.Second, time.Second / spreadShare},
		{time.Hour, maxSpread},
		{24 * time.Hour, maxSpread},
	} {
		first, last := test.spread, time.Duration(0)
		for range 1000 { // connectors
			var limit rateLimit
			until := limit.extend(Limit{noted, noted.Add(test.wait)})
			after := limit.resume().Sub(until)
			if after < 0 || after > test.spread {
				t.Fatalf("%s: resumes %s after the limit", test.wait, after)
			}
			first, last = min(first, after), max(last, after)
		}
		if last-first < test.spread/2 {
			t.Errorf("%s: 1,000 connectors resume within %s", test.wait, last-first)
		}
	}
}

// The limit ends by the monotonic clock, or by the wall clock if an earlier process recorded it.
func TestRateLimitClocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	until := now.Add(time.Hour)
	for _, test := range []struct {
		name string
		now  time.Time // of both clocks
		want time.Duration
	}{
		{"start", now, time.Hour},
		{"later", now.Add(20 * time.Minute), 40 * time.Minute},
		{"end", now.Add(time.Hour), 0},
	} {
		if got := remaining(until, test.now); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	if got := remaining(until.Round(0), now.Add(-time.Hour)); got != 2*time.Hour {
		t.Errorf("recorded by an earlier process: %s", got)
	}
}

// The delays before the retries of a batch are from 1 s to 60 s, and grow.
func TestRetryDelays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{URL: &url.URL{}, Connections: 2})
		for range 100 {
			c.BeginRun()
			var delays []time.Duration
			last := time.Now()
			_ = c.retry(t.Context(), fault.Operation{Op: "test"}, maxAssetsAttempts, func() error {
				delays = append(delays, time.Since(last))
				last = time.Now()
				return fault.Operation{Op: "test"}.Failed(fault.Transient, errors.New("cause"), "")
			})
			if delays = delays[1:]; len(delays) != maxAssetsAttempts-1 || !slices.IsSorted(delays) || delays[0] < firstRetryDelay || delays[len(delays)-1] > maxRetryDelay {
				t.Fatalf("delays %v", delays)
			}
		}
	})
}

// A run in which hardly any call succeeds exhausts its retry budget. The next run has a new one.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		operation, cause := fault.Operation{Op: "test"}, errors.New("cause")
		want := fault.Error{Class: fault.Transient, Op: "test"}
		c := New(Options{URL: &url.URL{}, Connections: 2})
		fail := func() error {
			calls++
			return operation.Failed(fault.Transient, cause, "repair it")
		}
		var err error
		for range 10 { // the first ones use all retries of the budget
			err = c.retry(t.Context(), operation, 6, func() error { return fail() })
		}
		faulttest.Check(t, err, want, cause, "repair")
		if !errors.Is(err, errBudgetExhausted) || calls != 10+retriesPerConnection*2 {
			t.Errorf("%v after %d calls", err, calls)
		}
		for range 3 {
			if err := c.retry(t.Context(), operation, 6, func() error { return nil }); err != nil {
				t.Error(err)
			}
		}
		calls = 0
		err = c.retry(t.Context(), operation, 6, func() error { return fail() })
		if calls != 4 {
			t.Errorf("%v after %d calls with a budget of 3", err, calls)
		}
		c.BeginRun()
		calls = 0
		err = c.retry(t.Context(), operation, 6, func() error { return fail() })
		faulttest.Check(t, err, want, cause, "repair")
		if calls != 6 || errors.Is(err, errBudgetExhausted) {
			t.Errorf("%v after %d calls in a new run", err, calls)
		}
	})
}
