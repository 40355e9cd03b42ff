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

	"golang.org/x/oauth2"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// logIns makes a session whose logins give tokens that live so long, and counts them.
func logIns(lifetime time.Duration) (*session, *int) {
	logins := new(int)
	return &session{login: func(context.Context) (*oauth2.Token, error) {
		*logins++
		return &oauth2.Token{AccessToken: strconv.Itoa(*logins), Expiry: time.Now().Add(lifetime)}, nil
	}}, logins
}

func use(t *testing.T, s *session) string {
	t.Helper()
	token, own, err := s.use(t.Context(), nil, false)
	if err != nil || own {
		t.Fatal(own, err)
	}
	return token.text.Reveal()
}

func TestTokenIsRenewedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ lifetime, good time.Duration }{
		{4 * time.Hour, 4*time.Hour - time.Minute},
		{5 * time.Minute, 4*time.Minute + 30*time.Second},
		{time.Second, 900 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := logIns(test.lifetime)
			for _, step := range []struct {
				pause time.Duration
				want  string
			}{{0, "1"}, {test.good - 1, "1"}, {1, "2"}, {test.good - 1, "2"}, {1, "3"}} {
				time.Sleep(step.pause) // in the bubble's time
				if got := use(t, s); got != step.want {
					t.Errorf("%s: token %s, want %s", test.lifetime, got, step.want)
				}
			}
		})
	}
}

// A report of state that runs out of time while logging in does not fail a batch.
func TestDeadlineDuringLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := logIns(time.Hour)
		good := s.login
		s.login = func(ctx context.Context) (*oauth2.Token, error) {
			s.login = good
			<-ctx.Done()
			return nil, stopped(fault.Operation{Op: "log in"}, ctx.Err())
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var group sync.WaitGroup
		group.Go(func() {
			if _, _, err := s.use(short, nil, false); fault.ClassOf(err) != fault.Transient {
				t.Error(err)
			}
		})
		synctest.Wait()
		use(t, s)
		group.Wait()
	})
}

func TestRefusedToken(t *testing.T) {
	t.Parallel()
	s, _ := logIns(time.Hour)
	use(t, s)
	first := s.token
	for _, step := range []struct {
		name    string
		refused *token
		mustOwn bool
		want    string
		own     bool
	}{
		{"renewed", first, false, "2", true},
		{"by a worker that comes late", first, false, "2", false},
		{"for a call that must own it", first, true, "3", true},
		{"for the others", nil, false, "3", false},
	} {
		token, own, err := s.use(t.Context(), step.refused, step.mustOwn)
		if err != nil || token.text.Reveal() != step.want || own != step.own {
			t.Errorf("%s: token %s, own %v, %v", step.name, token.text.Reveal(), own, err)
		}
		if own {
			s.share(token)
		}
	}
}

// Nobody else uses a token while its owner has not shared it, or learns of it when
// it was refused.
func TestOwnedToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := logIns(time.Hour)
		use(t, s)
		owned, own, err := s.use(t.Context(), s.token, false)
		if err != nil || !own {
			t.Fatal(own, err)
		}
		var others atomic.Int64
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				if got := use(t, s); got == owned.text.Reveal() {
					t.Errorf("token %s", got)
				}
				others.Add(1)
			})
		}
		synctest.Wait()
		if n := others.Load(); n > 0 {
			t.Errorf("%d have a token", n)
		}
		s.share(nil)
		group.Wait()
	})
}

// Twenty workers with a wrong password are one login with a wrong password, and twenty
// at a gateway that is down one that is tried again.
func TestFailedLoginIsShared(t *testing.T) {
	t.Parallel()
	for _, class := range []fault.Class{fault.Refused, fault.Transient} {
		synctest.Test(t, func(t *testing.T) {
			logins, release := 0, make(chan struct{})
			s := &session{login: func(context.Context) (*oauth2.Token, error) {
				logins++
				<-release
				return nil, fault.Operation{Op: "log in"}.Failed(class, errors.New("wrong"), "")
			}}
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					if _, _, err := s.use(t.Context(), nil, false); fault.ClassOf(err) != class {
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

// What a token URL says of a token's life counts, else the token's own word, else what
// the gateway's tokens live for.
func TestLifeOfATokenURLsToken(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]time.Duration{
		`{"access_token":"a","expires_in":100}`: 100 * time.Second,
		`{"access_token":"a"}`:                  tokenLifetime,
		`{"access_token":"a","expires_in":-5}`:  tokenLifetime,
		// A bubble's clock begins with the year 2000: {"exp":946685000}.
		`{"access_token":"a.eyJleHAiOjk0NjY4NTAwMH0.a"}`: 200 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			c := New(Options{URL: &url.URL{}, Login: Login{ClientID: "x", TokenURL: &url.URL{Scheme: "http", Host: "gateway", Path: "/token"}}})
			c.http.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answer))}, nil
			})
			token, err := c.login(t.Context())
			if err != nil || time.Until(token.Expiry) != want {
				t.Errorf("%s: until %+v, %v, want %s", answer, token, err, want)
			}
		})
	}
}

// Who is told to stop while logging in leaves it to the next; who is told to stop
// while waiting does not wait on.
func TestStopDuringLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		s := &session{login: func(ctx context.Context) (*oauth2.Token, error) {
			logins++
			if logins > 1 {
				return &oauth2.Token{AccessToken: "good", Expiry: time.Now().Add(time.Hour)}, nil
			}
			<-ctx.Done()
			return nil, stopped(fault.Operation{Op: "log in"}, ctx.Err())
		}}
		ctx, cancel := context.WithCancel(t.Context())
		impatient, giveUp := context.WithTimeout(t.Context(), time.Minute)
		defer giveUp()
		var group sync.WaitGroup
		group.Go(func() {
			if _, _, err := s.use(ctx, nil, false); fault.ClassOf(err) != fault.Canceled {
				t.Error(err)
			}
		})
		synctest.Wait()
		group.Go(func() {
			if _, _, err := s.use(impatient, nil, false); !errors.Is(err, context.DeadlineExceeded) || fault.ClassOf(err) != fault.Transient {
				t.Error(err)
			}
		})
		group.Go(func() {
			if got := use(t, s); got != "good" {
				t.Errorf("token %s", got)
			}
		})
		time.Sleep(2 * time.Minute) // in the bubble's time
		cancel()
		group.Wait()
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Other calls renew the token and use it up before this call's turn, twice: the
// third one is its own, and is the last.
func TestThirdTokenIsTheCallsOwn(t *testing.T) {
	t.Parallel()
	c := New(Options{URL: &url.URL{Scheme: "http", Host: "gateway"}})
	s, logins := logIns(time.Hour)
	c.session.login = s.login
	var seen []string
	c.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.Header.Get("Authorization"))
		if len(seen) <= 2 {
			renewed, _, err := c.session.use(r.Context(), c.session.token, false)
			if err != nil {
				t.Error(err)
			}
			c.session.share(renewed)
		}
		return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
	})
	_, err := c.Profile(t.Context())
	if fault.ClassOf(err) != fault.Refused || !slices.Equal(seen, []string{"Bearer 1", "Bearer 2", "Bearer 4"}) || *logins != 4 {
		t.Errorf("%v after %s, %d logins", err, seen, *logins)
	}
	if c.session.token != nil {
		t.Error("the refused token is left to others")
	}
}

// A gateway that does not answer costs a report of state a few seconds, whichever
// call it hangs in.
func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	for _, hangs := range []string{"/auth", "/state"} {
		synctest.Test(t, func(t *testing.T) {
			c := New(Options{URL: &url.URL{Scheme: "http", Host: "gateway"}, Login: Login{Username: "x"}, Grace: time.Hour})
			c.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, hangs) {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("a.b.c"))}, nil
			})
			begun := time.Now()
			err := c.SetState(t.Context(), ConnectorState{State: "PROCESSED"})
			if fault.ClassOf(err) != fault.Transient || time.Since(begun) != stateTimeout {
				t.Errorf("%s: %v after %s", hangs, err, time.Since(begun))
			}
		})
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var limit rateLimit
		begun := time.Now()
		wait := func(ctx context.Context) time.Duration {
			if err := limit.wait(ctx); err != nil {
				t.Error(err)
			}
			return time.Since(begun)
		}
		if got := wait(t.Context()); got != 0 {
			t.Errorf("waited %s", got)
		}
		hold := func(wait time.Duration) time.Time { return limit.hold(time.Now().Add(wait)) }
		hold(time.Hour)
		if until := hold(time.Minute); until.Sub(begun) != time.Hour {
			t.Errorf("until %s", until.Sub(begun))
		}
		// An answer that comes in the meantime may make it longer.
		time.AfterFunc(30*time.Minute, func() { hold(time.Hour) })
		if got := wait(t.Context()); got != 90*time.Minute {
			t.Errorf("waited %s", got)
		}
		hold(time.Hour)
		patient, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if got := wait(patient); got != 150*time.Minute {
			t.Errorf("waited %s", got)
		}
		hold(time.Hour)
		impatient, cancel2 := context.WithTimeout(t.Context(), time.Minute)
		defer cancel2()
		if err := limit.wait(impatient); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 150*time.Minute {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
	})
}

// TestGateAndClocks: within a process the clock counts that no one can set, and for a
// wait that an earlier process has recorded the clock on the wall.
func TestGateAndClocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	until := now.Add(time.Hour)
	for _, test := range []struct {
		name string
		now  time.Time // a reading of both clocks
		want time.Duration
	}{
		{"at once", now, time.Hour},
		{"later", now.Add(20 * time.Minute), 40 * time.Minute},
		{"over", now.Add(time.Hour), 0},
	} {
		if got := rest(until, test.now); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	if got := rest(until.Round(0), now.Add(-time.Hour)); got != 2*time.Hour {
		t.Errorf("of a process before this one: %s", got)
	}
}

// TestBudget: a run in which hardly any call is answered does not repeat each of them
// to the end, and the next run has a budget of its own.
func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		x, broken := fault.Operation{Op: "test"}, errors.New("broken")
		spent := new(*notRetried)
		want := fault.Error{Class: fault.Transient, Op: "test"}
		c := New(Options{URL: &url.URL{}, Connections: 2})
		fail := func() error {
			calls++
			return x.Failed(fault.Transient, broken, "repair it")
		}
		var err error
		for range 10 { // of which three have their five repeats, and the fourth one its two
			err = c.retry(t.Context(), x, 6, func() error { return fail() })
		}
		faulttest.Check(t, err, want, broken, "repair")
		if !errors.As(err, spent) || calls != 10+repeatsEach*2 {
			t.Errorf("%v after %d calls", err, calls)
		}
		for range 3 {
			if err := c.retry(t.Context(), x, 6, func() error { return nil }); err != nil {
				t.Error(err)
			}
		}
		calls = 0
		err = c.retry(t.Context(), x, 6, func() error { return fail() })
		if calls != 4 {
			t.Errorf("%v after %d calls with three earned", err, calls)
		}
		c.BeginRun()
		calls = 0
		err = c.retry(t.Context(), x, 6, func() error { return fail() })
		faulttest.Check(t, err, want, broken, "repair")
		if calls != 6 || errors.As(err, spent) {
			t.Errorf("%v after %d calls in a new run", err, calls)
		}
	})
}
