package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"adconnector/internal/fault"
)

// A name can stand for several controllers: a DNS domain with SRV records, or a host with
// several addresses. Update sequence numbers are valid on one controller only, and others may
// lag behind it. So a name leads to the controller that was read last, as long as it answers.
// Otherwise all servers are asked concurrently, and the fastest one is bound.
//
// The question is the rootDSE, which a domain controller returns before a bind (MS-ADTS
// 3.1.1.3.2). So no bind is wasted on a wrong controller, and a refused bind is not repeated
// on others. A single address is not asked: that would only cost a round trip.

const (
	// maxQuestions is the number of servers that are asked concurrently.
	maxQuestions = 8
	// maxDials is the number of connections to one address that may be necessary to reach a
	// certain controller behind a load balancer.
	maxDials = 5
	// preferredPatience is how much later than the fastest server the preferred controller may
	// answer, if its address is not known in advance.
	preferredPatience = 2 * time.Second
	// minGain is the smallest gain in response time for which PreferFastest replaces the
	// preferred controller. Smaller ones are noise.
	minGain = 20 * time.Millisecond
)

// connectAny returns a session with one of the servers that a name stands for, or the errors
// of all of them.
func (o Options) connectAny(ctx context.Context, servers []server) (*Session, []error) {
	if len(servers) == 1 {
		session, err := o.connectOnly(ctx, servers[0])
		if err != nil {
			return nil, []error{err}
		}
		return session, nil
	}
	c := newChoice(o, servers)
	session := c.connectPreferred(ctx)
	for session == nil && len(c.rest) > 0 && !c.ended(ctx) {
		session = c.connectFastest(ctx)
	}
	for session == nil && len(c.last) > 0 && !c.ended(ctx) {
		session = c.connectLast(ctx)
	}
	if session == nil && len(c.errs) == 0 { // canceled before an attempt
		c.errs = []error{o.connectOperation(servers[0]).Failed(fault.Canceled, ctx.Err(), "")}
	}
	return session, c.errs
}

// connectOnly connects to the only server of a name. If its address belonged to the preferred
// controller and now leads to another one, there is a load balancer. It is dialed again; if
// that fails, any controller will do.
func (o Options) connectOnly(ctx context.Context, server server) (*Session, error) {
	session, err := o.connect(ctx, server)
	if err != nil {
		return nil, err
	}
	found, want := session.Controller, o.Preferred
	if want.Address != found.Address || want.ServiceName == "" || strings.EqualFold(want.ServiceName, found.ServiceName) || want.same(o.Avoided) {
		return session, nil
	}
	if preferred, err := o.redial(ctx, session.pinnedServer(), want, maxDials-1); err == nil {
		session.Close()
		return preferred, nil
	}
	return session, nil
}

// redial connects to one address until it leads to the wanted controller.
func (o Options) redial(ctx context.Context, server server, want Controller, dials int) (*Session, error) {
	found := ""
	for range dials {
		a := o.ask(ctx, server)
		if a.lost {
			a.session, a.err = o.open(ctx, server, o.ResponseTimeout)
		}
		if a.err != nil {
			return nil, a.err
		}
		if a.controller.ServiceName == "" || a.controller.same(want) {
			if err := a.session.authenticate(ctx); err != nil {
				return nil, err
			}
			if a.session.Controller.same(want) {
				return a.session, nil
			}
		}
		found = a.session.RootDSE.DNSHostName
		a.session.Close()
		if strings.EqualFold(a.session.Controller.ServiceName, want.ServiceName) {
			break // the same server with another database
		}
	}
	return nil, o.connectOperation(server).Failed(fault.Transient, fmt.Errorf("%w: %s", ErrDifferentController, printable(found)),
		"set ldap.host, or the host of the connection in the console, to names that each belong to one domain controller")
}

// choice is the choice among the servers of one name.
type choice struct {
	options   Options
	preferred Controller // zero: none, or no longer
	rest      []server   // not tried yet, in order
	last      []server   // connected to without a question, when none of rest is left
	errs      []error
}

func newChoice(o Options, servers []server) *choice {
	c := &choice{options: o}
	if !o.Preferred.same(o.Avoided) && slices.ContainsFunc(servers, func(s server) bool { return s.mayLeadTo(o.Preferred) }) {
		c.preferred = o.Preferred
	}
	var others []server
	for _, server := range servers {
		switch {
		case server.leadsTo(o.Avoided):
			c.last = append(c.last, server)
		case server.leadsTo(c.preferred):
			c.rest = append(c.rest, server)
		default:
			others = append(others, server)
		}
	}
	c.rest = append(c.rest, others...)
	return c
}

// leadsTo reports whether a server is most likely a controller that was connected before.
func (s server) leadsTo(controller Controller) bool {
	if s.ip != "" || isAddress(s.host) {
		return s.dialAddress() == controller.Address
	}
	return s.host != "" && (strings.EqualFold(s.host, controller.Host) || strings.EqualFold(s.host, controller.DNSHostName))
}

// mayLeadTo reports whether the name of a server may stand for a controller that was connected
// before. The addresses of the name may have changed since.
func (s server) mayLeadTo(controller Controller) bool {
	return s.leadsTo(controller) || s.domain != "" || strings.EqualFold(s.host, controller.Host)
}

// ended reports whether no further server may be tried.
func (c *choice) ended(ctx context.Context) bool {
	return ctx.Err() != nil || len(c.errs) > 0 && bindRefused(c.errs[len(c.errs)-1])
}

// remove removes a server from those that are not tried yet.
func (c *choice) remove(s server) {
	c.rest = slices.DeleteFunc(c.rest, func(other server) bool { return other == s })
}

// connectPreferred returns a session with the preferred controller, or nil. With PreferFastest,
// the others are asked too, by connectFastest.
func (c *choice) connectPreferred(ctx context.Context) *Session {
	if c.options.PreferFastest {
		return nil
	}
	wanted := c.preferred
	for _, server := range slices.Clone(c.rest) {
		if !server.leadsTo(wanted) || c.ended(ctx) {
			break // those that do are the first ones
		}
		c.preferred = Controller{} // do not wait for it again
		session, err := c.options.redial(ctx, server, wanted, maxDials)
		if err == nil {
			return session
		}
		if !errors.Is(err, ErrDifferentController) {
			c.remove(server)
			c.errs = append(c.errs, err)
		}
	}
	return nil
}

// connectFastest asks the servers of the best priority, and returns a session with the one that
// chooseReply chooses, or nil. Servers that failed are removed from rest.
func (c *choice) connectFastest(ctx context.Context) *Session {
	chosen, others := c.askAll(ctx, c.bestPriority())
	for _, a := range others {
		switch {
		case a.err == nil:
			a.session.Close()
		case a.lost || a.avoided:
			c.remove(a.server)
			c.last = append(c.last, a.server)
		default:
			c.remove(a.server)
			c.errs = append(c.errs, a.err)
		}
	}
	if chosen.session == nil {
		return nil
	}
	c.remove(chosen.server)
	if err := chosen.session.authenticate(ctx); err != nil {
		c.errs = append(c.errs, err)
		return nil
	}
	if chosen.session.Controller.same(c.options.Avoided) && len(c.rest) > 0 { // it refused the question
		chosen.session.Close()
		c.last = append(c.last, chosen.server)
		return nil
	}
	return chosen.session
}

// bestPriority returns the servers of the best priority among those that are not tried yet, and
// the preferred one.
func (c *choice) bestPriority() []server {
	best := slices.MinFunc(c.rest, func(a, b server) int { return int(a.priority) - int(b.priority) }).priority
	var list []server
	for _, server := range c.rest {
		if server.priority == best || server.leadsTo(c.preferred) {
			list = append(list, server)
		}
	}
	return list
}

// connectLast connects to the first server of last, without a question.
func (c *choice) connectLast(ctx context.Context) *Session {
	server := c.last[0]
	c.last = c.last[1:]
	session, err := c.options.connect(ctx, server)
	if err != nil {
		c.errs = append(c.errs, err)
		return nil
	}
	return session
}

// answer is the answer of one server, before a bind.
type answer struct {
	server     server
	session    *Session // open and not bound; nil after an error
	controller Controller
	took       time.Duration // from the dial on
	err        error
	lost       bool // err: the server closed the connection, perhaps because it refuses searches before a bind
	avoided    bool // err: it is the avoided controller
}

// withoutAvoided closes the session of the avoided controller.
func (c *choice) withoutAvoided(a answer) answer {
	if a.err == nil && a.controller.same(c.options.Avoided) {
		a.session.Close()
		a.session, a.err, a.avoided = nil, errAvoided, true
	}
	return a
}

// ask opens a connection and reads the rootDSE. A server that refuses the read has answered,
// but its controller is unknown.
func (o Options) ask(ctx context.Context, server server) answer {
	a := answer{server: server}
	start := time.Now()
	s, err := o.open(ctx, server, o.ConnectTimeout)
	if err != nil {
		a.err = err
		return a
	}
	s.RootDSE, err = s.readRootDSE(ctx)
	a.took = time.Since(start)
	if err == nil {
		err = s.checkSynchronized()
	} else if _, refused := errors.AsType[*resultError](err); refused {
		err = nil
	}
	if err != nil {
		a.lost = fault.ClassOf(err) == fault.Transient && s.transport.readError() != nil && !errors.Is(err, errNoResponse) && !errors.Is(err, errTooSlow)
		a.err = err
		s.Close()
		return a
	}
	s.setController()
	s.transport.setTimeout(o.ResponseTimeout)
	a.session, a.controller = s, s.Controller
	return a
}

// replies returns the input of chooseReply, with the same indices.
func (c *choice) replies(answers []answer) []reply {
	list := make([]reply, len(answers))
	for i, a := range answers {
		identified := a.err == nil && a.controller.ServiceName != ""
		list[i] = reply{took: a.took, failed: a.err != nil, preferred: identified && a.controller.same(c.preferred) || !identified && a.server.leadsTo(c.preferred)}
	}
	return list
}

// reply is how one server answered.
type reply struct {
	took      time.Duration
	failed    bool
	preferred bool // from the preferred controller
}

const none = -1

// chooseReply returns the index of the reply whose server is bound, or none. wait is the time
// after the start of the questions at which the choice is final. Until then, the preferred
// controller, if one is wanted, may still answer. If wait is 0, the choice is final.
//
// The preferred controller is chosen even if it is slower, because only the controller that
// showed an object can prove its absence. With fastest, it is replaced by a server that answers
// in less than half of its time.
func chooseReply(replies []reply, wanted, fastest bool) (chosen int, wait time.Duration) {
	preferred, other, gone := none, none, false
	for i, r := range replies {
		switch {
		case r.failed:
			gone = gone || r.preferred
		case r.preferred:
			preferred = i
		case other == none || r.took < replies[other].took:
			other = i
		}
	}
	var took, limit time.Duration
	if other != none {
		took = replies[other].took
		limit = max(2*took, took+minGain)
	}
	switch {
	case preferred != none && (other == none || !fastest || replies[preferred].took <= limit):
		return preferred, 0
	case other == none || preferred != none || gone || !wanted:
		return other, 0
	case fastest:
		return other, limit
	default:
		return other, took + preferredPatience
	}
}

// askAll asks servers concurrently until chooseReply chooses one. It returns the chosen answer,
// if any, and the other answers. Servers that did not answer by then are not among them.
func (c *choice) askAll(ctx context.Context, servers []server) (chosen answer, others []answer) {
	start := time.Now()
	answers, stop := c.options.startQuestions(ctx, servers)
	defer stop()
	var expired <-chan time.Time // the wait for the preferred controller
	best := none
	for final := false; !final; {
		select {
		case a := <-answers:
			others = append(others, c.withoutAvoided(a))
		case <-expired:
			final = true
		}
		var wait time.Duration
		best, wait = chooseReply(c.replies(others), c.preferred != Controller{}, c.options.PreferFastest)
		final = final || len(others) == len(servers) || best != none && wait == 0
		if wait > 0 {
			expired = time.After(wait - time.Since(start))
		}
	}
	if best == none {
		return answer{}, others
	}
	chosen = others[best]
	return chosen, slices.Delete(others, best, best+1)
}

// startQuestions asks servers concurrently. stop ends the questions, waits for their
// goroutines, and closes the sessions that were not received.
func (o Options) startQuestions(ctx context.Context, servers []server) (answers chan answer, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	queue := make(chan server, len(servers))
	for _, server := range servers {
		queue <- server
	}
	close(queue)
	answers = make(chan answer, len(servers))
	var workers sync.WaitGroup
	for range min(maxQuestions, len(servers)) {
		workers.Go(func() {
			for server := range queue {
				if errors.Is(context.Cause(ctx), errStopped) {
					return
				}
				answers <- o.ask(ctx, server)
			}
		})
	}
	return answers, func() {
		cancel(errStopped)
		workers.Wait()
		close(answers)
		for late := range answers {
			if late.session != nil {
				late.session.Close()
			}
		}
	}
}

// errStopped is the cause of the cancellation of questions that are no longer necessary.
var errStopped = errors.New("another server was chosen")
