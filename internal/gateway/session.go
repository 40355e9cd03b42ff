package gateway

import (
	"context"
	"sync"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// session manages the token that all calls share.
type session struct {
	login func(context.Context) (*issuedToken, error)

	mu      sync.Mutex
	token   *token   // nil: none
	refresh *refresh // in progress; nil: none
	refusal error    // of a login, which is not repeated until clearRefusal
}

type token struct {
	text      secret.Text
	expiresAt time.Time // with a safety margin
}

// refresh is a token refresh in progress, for which other calls wait.
type refresh struct {
	done chan struct{}
	err  error
}

const refreshMargin = time.Minute // before the expiry; at most a tenth of the lifetime

// acquire returns a valid token other than the rejected one. If there is none, one caller
// logs in while the others wait for the result. They also share an error, so that wrong
// credentials are not sent by each of them.
//
// A caller that logs in because of a rejected token gets the new token exclusively, until it
// calls release. With mustBeExclusive, acquire returns an exclusive token even if there is a
// valid shared one.
func (s *session) acquire(ctx context.Context, rejected *token, mustBeExclusive bool) (t *token, exclusive bool, err error) {
	for {
		s.mu.Lock()
		if s.token == rejected {
			s.token = nil
		}
		if t := s.token; t != nil && time.Now().Before(t.expiresAt) && !mustBeExclusive {
			s.mu.Unlock()
			return t, false, nil
		}
		if refusal := s.refusal; refusal != nil {
			s.mu.Unlock()
			return nil, false, refusal
		}
		r, isOwner := s.refresh, s.refresh == nil
		if isOwner {
			r = &refresh{done: make(chan struct{})}
			s.refresh = r
		}
		s.mu.Unlock()
		if isOwner {
			t, err := s.refreshToken(ctx, rejected != nil)
			return t, err == nil && rejected != nil, err
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, false, contextError(fault.Operation{Op: "log in"}, ctx.Err())
		}
		if r.err != nil {
			return nil, false, r.err
		}
	}
}

// refreshToken logs in. It finishes the refresh, unless it returns an exclusive token.
func (s *session) refreshToken(ctx context.Context, exclusive bool) (*token, error) {
	issued, err := s.login(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		// This context does not affect the waiting callers. One of them logs in.
		s.finishRefresh(nil, nil)
		return nil, err
	case err != nil:
		s.finishRefresh(nil, err)
		return nil, err
	}
	margin := min(refreshMargin, time.Until(issued.expiry)/10)
	t := &token{text: secret.New(issued.text), expiresAt: issued.expiry.Add(-margin)}
	if !exclusive {
		s.finishRefresh(t, nil)
	}
	return t, nil
}

// release shares an exclusive token with the other callers. A token that an endpoint rejected is shared
// too, because other endpoints may accept it. The state after a failed run then needs no further login.
func (s *session) release(t *token) { s.finishRefresh(t, nil) }

func (s *session) finishRefresh(t *token, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.refresh.err = t, err
	if fault.ClassOf(err) == fault.Refused {
		s.refusal = err
	}
	close(s.refresh.done)
	s.refresh = nil
}

// clearRefusal allows another login after a refused one. Each refused login counts toward
// the account lockout.
func (s *session) clearRefusal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = nil
}
