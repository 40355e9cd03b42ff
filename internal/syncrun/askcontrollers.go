package syncrun

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/state"
)

const (
	// maxAsked is the number of domain controllers that are asked concurrently.
	maxAsked = 4
	// peerConnectTimeout and peerResponseTimeout are shorter than those for the domain controller
	// that is read. Without the logons of one domain controller, a run is still complete.
	peerConnectTimeout  = 10 * time.Second
	peerResponseTimeout = 30 * time.Second
)

var (
	// errNotAsked is the error of a domain controller that was not asked.
	errNotAsked = errors.New("not asked")
	// errOutOfTime is the error of one that was asked, but not completely.
	errOutOfTime = errors.New("no complete response in time")
)

// readError is the error of reading from a domain controller, after the bind.
type readError struct{ error }

// Unwrap returns the cause.
func (e readError) Unwrap() error { return e.error }

// OtherControllers returns the domain controllers of the domain, without that of the session.
// isPDC is whether that one is the PDC emulator.
func OtherControllers(ctx context.Context, s *directory.Session) (others []directory.DomainController, isPDC bool, err error) {
	list, err := s.DomainControllers(ctx)
	if err == nil {
		err = s.FindPDCEmulator(ctx, list)
	}
	if err != nil {
		return nil, false, err
	}
	for _, c := range list {
		if strings.EqualFold(c.ServiceName, s.RootDSE.DSServiceName) {
			isPDC = isPDC || c.PDCEmulator
			continue
		}
		others = append(others, c)
	}
	return others, isPDC, nil
}

// peerTimeouts are the timeouts of sessions with other domain controllers.
type peerTimeouts struct{ connect, response time.Duration }

var defaultPeerTimeouts = peerTimeouts{peerConnectTimeout, peerResponseTimeout}

// AskControllers opens a session with each of the domain controllers, several at a time, and passes
// it to ask with the controller's index, from several goroutines. It returns the error of each; nil:
// it answered. After a refused bind, or the end of ctx, further ones are not asked.
func AskControllers(ctx context.Context, s *directory.Session, list []directory.DomainController, onRequest func(string, fault.Class, time.Duration),
	ask func(ctx context.Context, i int, s *directory.Session) error) []error {
	a := &controllerQuestions{session: s, options: directory.PeerOptions{ConnectTimeout: peerConnectTimeout, ResponseTimeout: peerResponseTimeout, OnRequest: onRequest}}
	return a.askAll(ctx, list, ask)
}

// controllerQuestions asks domain controllers concurrently.
type controllerQuestions struct {
	session *directory.Session // with the credentials
	options directory.PeerOptions

	// binding makes binds sequential: a wrong password counts only once toward the account's lockout.
	binding sync.Mutex

	mu      sync.Mutex
	refused error // of a bind
}

func (q *controllerQuestions) askAll(ctx context.Context, list []directory.DomainController, ask func(context.Context, int, *directory.Session) error) []error {
	errs := make([]error, len(list))
	queue := make(chan int, len(list))
	for i := range list {
		queue <- i
	}
	close(queue)
	var workers sync.WaitGroup
	for range min(maxAsked, len(list)) {
		workers.Go(func() {
			for i := range queue {
				err := q.ask(ctx, list[i], func(s *directory.Session) error { return ask(ctx, i, s) })
				errs[i] = inTime(ctx, list[i], err)
			}
		})
	}
	workers.Wait()
	return errs
}

// ask opens a session with one domain controller and passes it to ask.
func (q *controllerQuestions) ask(ctx context.Context, c directory.DomainController, ask func(*directory.Session) error) error {
	if err := q.stopped(ctx, c); err != nil {
		return err
	}
	peer, err := q.session.OpenPeer(ctx, c, q.options)
	if err != nil {
		return err
	}
	session, err := q.bind(ctx, c, peer)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := ask(session); err != nil {
		return readError{err}
	}
	return nil
}

func (q *controllerQuestions) bind(ctx context.Context, c directory.DomainController, peer *directory.Peer) (*directory.Session, error) {
	q.binding.Lock()
	defer q.binding.Unlock()
	if err := q.stopped(ctx, c); err != nil {
		peer.Close()
		return nil, err
	}
	session, err := peer.Bind(ctx)
	if directory.BindRefused(err) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.refused = err
	}
	return session, err
}

// stopped returns errNotAsked if a domain controller must not be asked any more.
func (q *controllerQuestions) stopped(ctx context.Context, c directory.DomainController) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	operation := fault.Operation{Op: "connect", Object: c.Host}
	switch {
	case q.refused != nil:
		return operation.Failed(fault.Refused, fmt.Errorf("%w, because another one refused the bind", errNotAsked), fault.Remedy(q.refused))
	case ctx.Err() != nil:
		return operation.Failed(fault.Transient, fmt.Errorf("%w in time", errNotAsked), slowRemedy)
	}
	return nil
}

const slowRemedy = "check the load of the domain controllers and the network"

// inTime returns the error of a domain controller that did not answer before the end of ctx as
// errOutOfTime, and others unchanged.
func inTime(ctx context.Context, c directory.DomainController, err error) error {
	if fault.ClassOf(err) != fault.Canceled || ctx.Err() == nil {
		return err
	}
	return fault.Operation{Op: "ask", Object: c.Host}.Failed(fault.Transient, errOutOfTime, slowRemedy)
}

// LogonResultOf returns the result of asking a domain controller.
func LogonResultOf(err error) state.LogonResult {
	_, connected := errors.AsType[readError](err)
	refused := fault.ClassOf(err) == fault.Refused
	switch {
	case err == nil:
		return state.LogonsAnswered
	case errors.Is(err, errNotAsked):
		return state.LogonsNotAsked
	case directory.CertificateRefused(err):
		return state.LogonsCertificate
	case directory.Unresponsive(err) || errors.Is(err, errOutOfTime):
		return state.LogonsSlow
	case connected && (!refused || errors.Is(err, directory.ErrNoSuchObject)):
		return state.LogonsIncomplete
	case directory.BindRefused(err) || connected:
		return state.LogonsRefused
	default:
		return state.LogonsUnreachable
	}
}
