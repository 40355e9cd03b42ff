package gateway

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"adconnector/internal/fault"
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
	token, err := s.use(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token.users.Done()
	return token.text.Reveal()
}

func TestTokenIsRenewedBeforeItsEnd(t *testing.T) {
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

func TestDrop(t *testing.T) {
	s, logins := logIns(time.Hour)
	first, err := s.use(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.drop(first)
	if got := use(t, s); got != "2" {
		t.Errorf("token %s", got)
	}
	s.drop(first) // by a worker that comes late
	if got := use(t, s); got != "2" || *logins != 2 {
		t.Errorf("token %s after %d logins", got, *logins)
	}
}

// Twenty workers with a wrong password are one login with a wrong password.
func TestFailedLoginIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins, release := 0, make(chan struct{})
		s := &session{login: func(context.Context) (*oauth2.Token, error) {
			logins++
			<-release
			return nil, fault.Errorf(fault.Refused, "wrong")
		}}
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if _, err := s.use(t.Context()); fault.Of(err) != fault.Refused {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(release)
		group.Wait()
		if logins != 1 {
			t.Errorf("%d logins", logins)
		}
	})
}

// Who is told to stop while logging in leaves it to the next; who is told to stop
// while waiting does not wait on.
func TestStopDuringLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		s := &session{login: func(ctx context.Context) (*oauth2.Token, error) {
			logins++
			if logins > 1 {
				return &oauth2.Token{AccessToken: "good", Expiry: time.Now().Add(time.Hour)}, nil
			}
			<-ctx.Done()
			return nil, stopped("log in", ctx.Err())
		}}
		ctx, cancel := context.WithCancel(t.Context())
		impatient, giveUp := context.WithTimeout(t.Context(), time.Minute)
		defer giveUp()
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := s.use(ctx); fault.Of(err) != fault.Canceled {
				t.Error(err)
			}
		})
		synctest.Wait()
		group.Go(func() {
			if _, err := s.use(impatient); !errors.Is(err, context.DeadlineExceeded) || fault.Of(err) != fault.Transient {
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

func TestGate(t *testing.T) {
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
		limit.hold(time.Hour)
		if until := limit.hold(time.Minute); until.Sub(begun) != time.Hour {
			t.Errorf("until %s", until.Sub(begun))
		}
		// An answer that comes in the meantime may make it longer.
		time.AfterFunc(30*time.Minute, func() { limit.hold(time.Hour) })
		if got := wait(t.Context()); got != 90*time.Minute {
			t.Errorf("waited %s", got)
		}
		limit.hold(time.Hour)
		patient, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if got := wait(patient); got != 150*time.Minute {
			t.Errorf("waited %s", got)
		}
		limit.hold(time.Hour)
		impatient, cancel2 := context.WithTimeout(t.Context(), time.Minute)
		defer cancel2()
		if err := limit.wait(impatient); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 150*time.Minute {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
	})
}
