package directory

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// network is a network in memory, for tests in a testing/synctest bubble. Addresses without a
// server refuse connections.
type network struct {
	servers map[string][]*fakeldap.Listener // by IP address; several take turns
	delays  map[string]time.Duration        // of the connections to an IP address; -1: never connected

	mu         sync.Mutex
	dials      []string // IP addresses
	concurrent int      // current dials
	most       int      // maximum of concurrent
	open       map[net.Conn]bool
}

// remoteConn is a connection with an address.
type remoteConn struct {
	net.Conn
	remote  net.Addr
	network *network
}

// Close implements net.Conn.
func (c remoteConn) Close() error {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	delete(c.network.open, c.Conn)
	return c.Conn.Close()
}

func (c remoteConn) RemoteAddr() net.Addr { return c.remote }

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	remote, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	ip := remote.IP.String()
	n.mu.Lock()
	servers, turn := n.servers[ip], len(n.dialsTo(ip))
	n.dials = append(n.dials, ip)
	n.concurrent++
	n.most = max(n.most, n.concurrent)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.concurrent--
		n.mu.Unlock()
	}()
	var connected <-chan time.Time
	if n.delays[ip] >= 0 {
		connected = time.After(n.delays[ip])
	}
	select {
	case <-connected:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if len(servers) == 0 {
		return nil, errors.New("connection refused")
	}
	conn, err := servers[turn%len(servers)].Dial(ctx, "tcp", address)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open[conn] = true
	return remoteConn{conn, remote, n}, err
}

func (n *network) dialsTo(ip string) []string {
	return slices.DeleteFunc(slices.Clone(n.dials), func(dialed string) bool { return dialed != ip })
}

// forget forgets the dials so far.
func (n *network) forget() { n.dials, n.most = nil, 0 }

// controllerIP returns the address of the n-th controller of a domain.
func controllerIP(n int) string { return fmt.Sprintf("10.0.0.%d", n) }

// domain starts controllers, which are numbered from 1, and returns options for the host name
// dc.corp.test with their addresses.
func domain(t testing.TB, scripts ...func(p *fakeldap.Peer)) (*network, []*fakeldap.Listener, Options) {
	n := &network{servers: map[string][]*fakeldap.Listener{}, delays: map[string]time.Duration{}, open: map[net.Conn]bool{}}
	var listeners []*fakeldap.Listener
	var addresses []string
	for i, script := range scripts {
		listener := fakeldap.Pipe(t, nil, script)
		listeners = append(listeners, listener)
		addresses = append(addresses, controllerIP(i+1))
		n.servers[controllerIP(i+1)] = []*fakeldap.Listener{listener}
	}
	o := options(listeners[0])
	o.Hosts, o.Port = []string{"dc.corp.test"}, 389
	o.ConnectTimeout, o.ResponseTimeout, o.dialContext = defaultConnectTimeout, defaultResponseTimeout, n.dial
	o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
		return "", nil, &net.DNSError{IsNotFound: true}
	}
	o.lookupHost = func(context.Context, string) ([]string, error) { return slices.Clone(addresses), nil }
	return n, listeners, o
}

// healthy returns the scripts of n healthy controllers.
func healthy(n int) []func(p *fakeldap.Peer) {
	var scripts []func(p *fakeldap.Peer)
	for i := range n {
		scripts = append(scripts, controller(i+1).Script(nil))
	}
	return scripts
}

// persisted returns the n-th controller as a previous run connected to it.
func persisted(n int) Controller {
	c := controller(n)
	return Controller{Host: "dc.corp.test", Address: controllerIP(n) + ":389", DNSHostName: c.DNSHostName, ServiceName: c.ServiceName, InvocationID: invocationID(byte(n))}
}

// binds returns the number of binds at each server.
func binds(listeners []*fakeldap.Listener) []int {
	var list []int
	for _, listener := range listeners {
		list = append(list, listener.Binds())
	}
	return list
}

func TestChooseReply(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	ok := func(took time.Duration) reply { return reply{took: took} }
	preferred := func(took time.Duration) reply { return reply{took: took, preferred: true} }
	failed, gone := reply{failed: true}, reply{failed: true, preferred: true}
	for _, test := range []struct {
		name    string
		replies []reply
		wanted  bool
		fastest bool
		chosen  int
		wait    time.Duration
	}{
		{"no reply", nil, false, false, none, 0},
		{"no reply, preferred wanted", nil, true, true, none, 0},
		{"only failures", []reply{failed, gone}, true, false, none, 0},
		{"first", []reply{ok(80 * ms)}, false, false, 0, 0},
		{"fastest", []reply{ok(80 * ms), ok(70 * ms)}, false, false, 1, 0},
		{"after a failure", []reply{failed, ok(80 * ms)}, false, false, 1, 0},
		{"preferred", []reply{preferred(80 * ms)}, true, false, 0, 0},
		{"preferred is slower", []reply{ok(ms), preferred(1000 * ms)}, true, false, 1, 0},
		{"preferred is pending", []reply{ok(10 * ms)}, true, false, 0, 10*ms + preferredPatience},
		{"preferred failed", []reply{ok(10 * ms), gone}, true, false, 0, 0},
		{"another failed", []reply{ok(10 * ms), failed}, true, false, 0, 10*ms + preferredPatience},
		{"fastest: preferred first", []reply{preferred(80 * ms)}, true, true, 0, 0},
		{"fastest: preferred is slightly slower", []reply{ok(80 * ms), preferred(100 * ms)}, true, true, 1, 0},
		{"fastest: preferred takes twice as long", []reply{ok(80 * ms), preferred(160 * ms)}, true, true, 1, 0},
		{"fastest: preferred takes longer", []reply{ok(80 * ms), preferred(161 * ms)}, true, true, 0, 0},
		{"fastest: no real gain", []reply{ok(2 * ms), preferred(22 * ms)}, true, true, 1, 0},
		{"fastest: real gain", []reply{ok(2 * ms), preferred(23 * ms)}, true, true, 0, 0},
		{"fastest: preferred is pending", []reply{ok(80 * ms)}, true, true, 0, 160 * ms},
		{"fastest: preferred is pending, no real gain yet", []reply{ok(2 * ms)}, true, true, 0, 22 * ms},
		{"fastest: preferred failed", []reply{gone, ok(80 * ms)}, true, true, 1, 0},
		{"fastest: none preferred", []reply{ok(80 * ms)}, false, true, 0, 0},
	} {
		if chosen, wait := chooseReply(test.replies, test.wanted, test.fastest); chosen != test.chosen || wait != test.wait {
			t.Errorf("%s: %d after %s, want %d after %s", test.name, chosen, wait, test.chosen, test.wait)
		}
	}
}

func TestSameController(t *testing.T) {
	t.Parallel()
	one := persisted(1)
	change := func(f func(c *Controller)) Controller { c := one; f(&c); return c }
	for _, test := range []struct {
		name string
		a, b Controller
		want bool
	}{
		{"equal", one, one, true},
		{"other address and host", one, change(func(c *Controller) { c.Address, c.Host = "x", "y" }), true},
		{"renamed", one, change(func(c *Controller) { c.ServiceName = "CN=x" }), true},
		{"restored", one, change(func(c *Controller) { c.InvocationID = invocationID(9) }), false},
		{"invocation ID unknown", one, change(func(c *Controller) { c.InvocationID = ad.InvocationID{} }), true},
		{"name in another case", one, change(func(c *Controller) { c.InvocationID, c.ServiceName = ad.InvocationID{}, strings.ToLower(c.ServiceName) }), true},
		{"other name, invocation ID unknown", one, change(func(c *Controller) { c.InvocationID, c.ServiceName = ad.InvocationID{}, "CN=x" }), false},
		{"controller and plain server", one, Controller{Address: one.Address}, false},
		{"plain servers", Controller{Address: "a"}, Controller{Address: "b"}, false},
		{"one plain server", Controller{Address: "a"}, Controller{Address: "a", Host: "x"}, true},
		{"none", one, Controller{}, false},
	} {
		if test.a.same(test.b) != test.want || test.b.same(test.a) != test.want {
			t.Errorf("%s: want %t", test.name, test.want)
		}
	}
}

// TestRotatingName checks that a name of three controllers keeps leading to one of them, with
// its addresses or SRV records in any order.
func TestRotatingName(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]func(o *Options){
		"addresses": func(*Options) {},
		"SRV records": func(o *Options) {
			addresses, _ := o.lookupHost(t.Context(), "")
			o.Hosts = []string{"corp.test"}
			o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
				var list []*net.SRV
				for _, ip := range addresses {
					list = append(list, &net.SRV{Target: ip + ".", Port: 389})
				}
				addresses = append(addresses[1:], addresses[0])
				return "", list, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, listeners, o := domain(t, healthy(3)...)
				n.delays[controllerIP(1)] = time.Second
				n.delays[controllerIP(2)] = time.Millisecond
				n.delays[controllerIP(3)] = time.Second
				addresses, _ := o.lookupHost(t.Context(), "")
				o.lookupHost = func(context.Context, string) ([]string, error) {
					addresses = append(addresses[1:], addresses[0])
					return slices.Clone(addresses), nil
				}
				configure(&o)
				const connects = 100
				for connect := range connects {
					session, err := Connect(t.Context(), o)
					if err != nil {
						t.Fatal(err)
					}
					session.Close()
					if session.Controller.InvocationID != invocationID(2) {
						t.Fatalf("connect %d leads to %+v", connect, session.Controller)
					}
					o.Preferred = session.Controller
					n.delays[controllerIP(1)], n.delays[controllerIP(2)] = 0, time.Second // no longer the fastest
				}
				if got := binds(listeners); !slices.Equal(got, []int{0, connects, 0}) {
					t.Errorf("binds %v", got)
				}
				if len(n.dials) != 3+connects-1 {
					t.Errorf("%d dials, want those of one choice and one for each other connect", len(n.dials))
				}
			})
		})
	}
}

// TestChoice checks which controller of a name is bound, and how often each one is dialed and
// bound. The last connect counts.
func TestChoice(t *testing.T) {
	t.Parallel()
	frozen := (*fakeldap.Peer).Hang
	denying := func(n int) func(p *fakeldap.Peer) {
		c := controller(n)
		c.DenyAnonymous = true
		return c.Script(nil)
	}
	closing := func(n int) func(p *fakeldap.Peer) { // closes the connection on a search before the bind
		script := controller(n).Script(nil)
		return func(p *fakeldap.Peer) {
			if p.NextIsBind() {
				script(p)
			}
		}
	}
	restored := func(n int) func(p *fakeldap.Peer) {
		c, id := controller(n), invocationID(77)
		c.InvocationID = string(id[:])
		return c.Script(nil)
	}
	unsynchronized := func(n int) func(p *fakeldap.Peer) {
		c := controller(n)
		c.RootDSE = [][]string{{"isSynchronized", "FALSE"}}
		return c.Script(nil)
	}
	busy := fakeldap.RefuseBind(ldap.LDAPResultBusy, "")
	for _, test := range []struct {
		name      string
		scripts   []func(p *fakeldap.Peer)
		delays    map[int]time.Duration // of controllers; -1: unreachable
		configure func(o *Options)
		want      int // controller
		binds     []int
		took      time.Duration
	}{
		{"fastest", healthy(3), map[int]time.Duration{1: 300, 2: 100, 3: 200}, nil, 2, []int{0, 1, 0}, 100},
		{"fastest refuses the question", []func(*fakeldap.Peer){healthy(1)[0], denying(2)}, map[int]time.Duration{1: 300, 2: 100}, nil, 2, []int{0, 1}, 100},
		{"all refuse the question", []func(*fakeldap.Peer){denying(1), denying(2)}, map[int]time.Duration{1: 300}, nil, 2, []int{0, 1}, 0},
		{"all close the connection on the question", []func(*fakeldap.Peer){closing(1), closing(2)}, nil, nil, 0, nil, 0},
		{"fastest is busy", []func(*fakeldap.Peer){busy, healthy(2)[1]}, map[int]time.Duration{2: 100}, nil, 2, []int{1, 1}, 100},
		{"fastest is not synchronized", []func(*fakeldap.Peer){unsynchronized(1), healthy(2)[1]}, map[int]time.Duration{2: 100}, nil, 2, []int{0, 1}, 100},
		{"one is frozen", []func(*fakeldap.Peer){frozen, healthy(2)[1]}, map[int]time.Duration{2: 100}, nil, 2, []int{0, 1}, 100},
		{"IPv6 unreachable", healthy(2), map[int]time.Duration{1: -1}, nil, 2, []int{0, 1}, 0},

		{"preferred is slow", healthy(3), map[int]time.Duration{3: 900}, func(o *Options) { o.Preferred = persisted(3) }, 3, []int{0, 0, 1}, 900},
		{"preferred refuses the question", []func(*fakeldap.Peer){healthy(1)[0], denying(2)}, nil, func(o *Options) { o.Preferred = persisted(2) }, 2, []int{0, 1}, 0},
		{"preferred closes the connection on the question", []func(*fakeldap.Peer){healthy(1)[0], closing(2)}, nil, func(o *Options) { o.Preferred = persisted(2) }, 2, []int{0, 1}, 0},
		{"preferred is frozen", []func(*fakeldap.Peer){frozen, healthy(2)[1]}, nil, func(o *Options) { o.Preferred = persisted(1) }, 2, []int{0, 1}, defaultConnectTimeout},
		{"preferred is busy", []func(*fakeldap.Peer){busy, healthy(2)[1]}, nil, func(o *Options) {
			o.Preferred = persisted(1)
			o.Preferred.ServiceName = fakeldap.DC1.ServiceName
		}, 2, []int{1, 1}, 0},
		{"preferred has another address", healthy(3), map[int]time.Duration{3: 900}, func(o *Options) {
			o.Preferred = persisted(3)
			o.Preferred.Address = "10.9.9.9:389"
		}, 3, []int{0, 0, 1}, 900},
		{"preferred is gone", healthy(2), map[int]time.Duration{2: 100}, func(o *Options) {
			o.Preferred = persisted(3)
		}, 1, []int{1, 0}, 100}, // both have answered
		{"another controller at the preferred address", healthy(2), map[int]time.Duration{1: 100}, func(o *Options) {
			o.Preferred = persisted(3)
			o.Preferred.Address = controllerIP(1) + ":389"
		}, 2, []int{0, 1}, maxDials * 100},
		{"preferred was restored", []func(*fakeldap.Peer){restored(1), healthy(2)[1]}, map[int]time.Duration{2: 100}, func(o *Options) {
			o.Preferred = persisted(1)
		}, 1, []int{2, 0}, 0},

		{"fastest wanted, preferred is not much slower", healthy(2), map[int]time.Duration{1: 100, 2: 190}, func(o *Options) {
			o.Preferred, o.PreferFastest = persisted(2), true
		}, 2, []int{0, 1}, 190},
		{"fastest wanted, preferred refuses the question", []func(*fakeldap.Peer){healthy(1)[0], denying(2)}, map[int]time.Duration{1: 100, 2: 190}, func(o *Options) {
			o.Preferred, o.PreferFastest = persisted(2), true
		}, 2, []int{0, 1}, 190},
		{"all at once", healthy(9), nil, nil, 0, nil, 0},
		{"fastest wanted, preferred is much slower", healthy(2), map[int]time.Duration{1: 100, 2: 900}, func(o *Options) {
			o.Preferred, o.PreferFastest = persisted(2), true
		}, 1, []int{1, 0}, 200},
		{"fastest wanted, preferred is frozen", []func(*fakeldap.Peer){healthy(1)[0], frozen}, map[int]time.Duration{1: 100}, func(o *Options) {
			o.Preferred, o.PreferFastest = persisted(2), true
		}, 1, []int{1, 0}, 200},
		{"fastest wanted, none preferred", healthy(2), map[int]time.Duration{1: 100, 2: 900}, func(o *Options) {
			o.PreferFastest = true
		}, 1, []int{1, 0}, 100},

		{"avoided is the fastest", healthy(2), map[int]time.Duration{2: 100}, func(o *Options) { o.Avoided = persisted(1) }, 2, []int{0, 1}, 100},
		{"avoided is preferred too", healthy(2), map[int]time.Duration{2: 100}, func(o *Options) { o.Avoided, o.Preferred = persisted(1), persisted(1) }, 2, []int{0, 1}, 100},
		{"avoided is preferred too, another one is unreachable", healthy(3), map[int]time.Duration{2: 100, 3: -1}, func(o *Options) { o.Avoided, o.Preferred = persisted(1), persisted(1) }, 2, []int{0, 1, 0}, 100},
		{"avoided refuses the question", []func(*fakeldap.Peer){denying(1), healthy(2)[1]}, map[int]time.Duration{2: 100}, func(o *Options) { o.Avoided = persisted(1) }, 2, []int{0, 1}, 100},
		{"avoided has another address", healthy(2), map[int]time.Duration{2: 100}, func(o *Options) {
			o.Avoided = persisted(1)
			o.Avoided.Address = "10.9.9.9:389"
		}, 2, []int{0, 1}, 100},
		{"avoided refuses the question at another address", []func(*fakeldap.Peer){denying(1), healthy(2)[1]}, map[int]time.Duration{2: 100}, func(o *Options) {
			o.Avoided = persisted(1)
			o.Avoided.Address = "10.9.9.9:389"
		}, 2, []int{1, 1}, 100},
		{"only the avoided one answers", healthy(2), map[int]time.Duration{2: -1}, func(o *Options) {
			o.Avoided, o.ConnectTimeout = persisted(1), time.Second
		}, 1, []int{1, 0}, time.Second},

		{"list of hosts", healthy(3), nil, func(o *Options) {
			o.Hosts, o.Preferred, o.Avoided = []string{controllerIP(2), controllerIP(1)}, persisted(1), persisted(2)
		}, 2, []int{0, 1, 0}, 0},
		{"list of hosts, first has several addresses", healthy(3), nil, func(o *Options) {
			o.Hosts, o.Preferred = []string{"dc.corp.test", controllerIP(1)}, persisted(3)
		}, 3, []int{0, 0, 1}, 0},
		{"list of hosts, preferred belongs to the second", healthy(3), map[int]time.Duration{1: -1}, func(o *Options) {
			o.Hosts, o.Preferred = []string{"dc.corp.test", "other.corp.test"}, persisted(4)
			o.Preferred.Host = "other.corp.test"
		}, 0, nil, 0},
		{"list of hosts, preferred is the second", healthy(3), map[int]time.Duration{3: 50}, func(o *Options) {
			o.Hosts, o.Preferred = []string{controllerIP(1), controllerIP(2)}, persisted(2)
		}, 1, []int{1, 0, 0}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, listeners, o := domain(t, test.scripts...)
				o.dialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout) // as net.Dialer
					defer cancel()
					return n.dial(ctx, network, address)
				}
				for number, delay := range test.delays {
					if n.delays[controllerIP(number)] = delay * time.Millisecond; delay < 0 {
						n.delays[controllerIP(number)] = delay
					}
				}
				if test.configure != nil {
					test.configure(&o)
				}
				start := time.Now()
				session, err := Connect(t.Context(), o)
				took := time.Since(start)
				if err != nil {
					t.Fatal(err)
				}
				session.Close()
				if len(n.open) != 0 {
					t.Errorf("%d open connections", len(n.open))
				}
				if want := controller(test.want); test.want != 0 && session.Controller.ServiceName != want.ServiceName {
					t.Errorf("connected to %+v, want %+v", session.Controller, want)
				}
				if got := binds(listeners); test.binds != nil && !slices.Equal(got, test.binds) {
					t.Errorf("binds %v, want %v", got, test.binds)
				}
				if test.took < time.Millisecond { // a number of milliseconds
					test.took *= time.Millisecond
				}
				if took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
			})
		})
	}
}

// TestPriority checks that SRV records of a lower priority are used only if all others fail.
func TestPriority(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		dead  []int
		want  int
		binds []int
	}{
		{"all reachable", nil, 2, []int{0, 1, 0}},
		{"best priority fails", []int{1, 2}, 3, []int{0, 0, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, listeners, o := domain(t, healthy(3)...)
				n.delays[controllerIP(1)], n.delays[controllerIP(2)] = time.Second, 500*time.Millisecond
				for _, dead := range test.dead {
					delete(n.servers, controllerIP(dead))
				}
				o.Hosts = []string{"corp.test"}
				o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
					return "", []*net.SRV{{Target: controllerIP(1), Port: 389}, {Target: controllerIP(2), Port: 389}, {Target: controllerIP(3), Port: 389, Priority: 5}}, nil
				}
				if got := connect(t, o).Controller.InvocationID; got != invocationID(byte(test.want)) {
					t.Errorf("controller %s", got)
				}
				if got := binds(listeners); !slices.Equal(got, test.binds) {
					t.Errorf("binds %v, want %v", got, test.binds)
				}
			})
		})
	}
}

// TestRefusedBindOfSeveral checks that a refused bind is not repeated at another controller.
func TestRefusedBindOfSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refusing := fakeldap.RefuseBind(ldap.LDAPResultInvalidCredentials, "data 52e")
		_, listeners, o := domain(t, refusing, refusing, refusing)
		_, err := Connect(t.Context(), o)
		wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "bind", Object: "CN=reader,DC=corp to dc.corp.test:389"}, ErrBindRefused, "ldap.password")
		if got := binds(listeners); got[0]+got[1]+got[2] != 1 {
			t.Errorf("binds %v", got)
		}
	})
}

// TestUnreached checks that a session and an error name the servers that were tried and not reached.
func TestUnreached(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		gone []int
		want int
	}{"all reached": {nil, 0}, "one not reached": {[]int{2}, 1}, "one reached": {[]int{1, 3}, 2}, "none reached": {[]int{1, 2, 3}, 3}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, _, o := domain(t, healthy(3)...)
				for i := range 3 { // healthy controllers answer after the others have refused the connection
					n.delays[controllerIP(i+1)] = time.Second
				}
				for _, i := range c.gone {
					n.servers[controllerIP(i)], n.delays[controllerIP(i)] = nil, 0
				}
				session, err := Connect(t.Context(), o)
				var unreached []error
				if err == nil {
					unreached = session.Unreached
					session.Close()
				} else {
					unreached = ServerErrors(err)
				}
				if len(unreached) != c.want {
					t.Errorf("unreached %q, want %d", unreached, c.want)
				}
				for _, err := range unreached {
					wantFailure(t, err, fault.Error{Class: fault.Transient, Op: "connect", Object: "dc.corp.test:389 (LDAP)"}, nil, "")
				}
			})
		})
	}
}

// TestManyControllers checks that the number of concurrent questions is bounded, that all
// servers are tried, and that a cancellation ends them.
func TestManyControllers(t *testing.T) {
	t.Parallel()
	const count = 3*maxQuestions + 1
	t.Run("last one answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, listeners, o := domain(t, healthy(count)...)
			for i := range count - 1 {
				n.delays[controllerIP(i+1)] = time.Minute
				delete(n.servers, controllerIP(i+1))
			}
			connect(t, o)
			if n.most != maxQuestions || listeners[count-1].Binds() != 1 {
				t.Errorf("%d concurrent questions, binds %v", n.most, binds(listeners))
			}
		})
	})
	t.Run("none answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, _, o := domain(t, healthy(count)...)
			clear(n.servers)
			_, err := Connect(t.Context(), o)
			wantFailure(t, err, fault.Error{Class: fault.Transient, Op: "open directory session"}, nil, "ldap.host")
			var joined serverErrors
			if errors.As(err, &joined); len(joined) != count || len(n.dials) != count {
				t.Errorf("%d errors, %d dials, want %d", len(joined), len(n.dials), count)
			}
		})
	})
	t.Run("first one answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, _, o := domain(t, healthy(count)...)
			for i := range count {
				n.delays[controllerIP(i+1)] = time.Minute
			}
			n.delays[controllerIP(1)] = time.Second
			connect(t, o)
			if len(n.dials) > maxQuestions+1 { // one may begin before the choice
				t.Errorf("%d dials, want at most %d", len(n.dials), maxQuestions+1)
			}
		})
	})
	t.Run("canceled before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, _, o := domain(t, healthy(2)...)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := Connect(ctx, o)
			wantFailure(t, err, fault.Error{Class: fault.Canceled, Op: "connect", Object: "dc.corp.test:389 (LDAP)"}, context.Canceled)
			if len(n.dials) != 0 {
				t.Errorf("%d dials", len(n.dials))
			}
		})
	})
	t.Run("cancellation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, _, o := domain(t, healthy(count)...)
			for i := range count {
				n.delays[controllerIP(i+1)] = -1
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				synctest.Wait() // until all questions wait
				cancel()
			}()
			start := time.Now()
			_, err := Connect(ctx, o)
			if fault.ClassOf(err) != fault.Canceled || time.Since(start) != 0 {
				t.Errorf("error %v after %s", err, time.Since(start))
			}
		})
	})
}

// TestLoadBalancer checks connections to one address that leads to several controllers in turn.
func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	// balanced returns options for an address behind which controllers take turns.
	balanced := func(t *testing.T, controllers int) (*network, []*fakeldap.Listener, Options) {
		n, listeners, o := domain(t, healthy(controllers)...)
		n.servers[controllerIP(1)] = listeners
		o.Hosts = []string{controllerIP(1)}
		return n, listeners, o
	}
	preferred := func(number int) Controller {
		c := persisted(number)
		c.Address = controllerIP(1) + ":389"
		return c
	}
	t.Run("preferred", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, listeners, o := balanced(t, 3)
			o.Preferred = preferred(3)
			if session := connect(t, o); session.Controller != o.Preferred && session.Controller.InvocationID != o.Preferred.InvocationID {
				t.Errorf("controller %+v", session.Controller)
			}
			if got := binds(listeners); !slices.Equal(got, []int{1, 0, 1}) || len(n.dials) != 3 {
				t.Errorf("binds %v, %d dials", got, len(n.dials))
			}
		})
	})
	t.Run("preferred is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, listeners, o := balanced(t, 3)
			o.Preferred = preferred(4)
			session := connect(t, o)
			if got := binds(listeners); session.Controller.InvocationID != invocationID(1) || !slices.Equal(got, []int{1, 0, 0}) || len(n.dials) != maxDials {
				t.Errorf("controller %+v, binds %v, %d dials", session.Controller, got, len(n.dials))
			}
			if _, err := session.Read(t.Context(), "", "dnsHostName"); err != nil {
				t.Errorf("session unusable: %v", err)
			}
		})
	})
	t.Run("no load balancer", func(t *testing.T) {
		for name, configure := range map[string]func(o *Options){
			"preferred had another address": func(o *Options) { o.Preferred = persisted(3) },
			"preferred is avoided":          func(o *Options) { o.Preferred, o.Avoided = preferred(3), preferred(3) },
			"none preferred":                func(*Options) {},
		} {
			synctest.Test(t, func(t *testing.T) {
				n, listeners, o := balanced(t, 3)
				configure(&o)
				connect(t, o)
				if got := binds(listeners); !slices.Equal(got, []int{1, 0, 0}) || len(n.dials) != 1 {
					t.Errorf("%s: binds %v, %d dials", name, got, len(n.dials))
				}
			})
		}
	})
	t.Run("reconnect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, listeners, o := balanced(t, 3)
			session := connect(t, o)
			for range 20 {
				second, err := session.Reconnect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if second.Close(); second.Controller != session.Controller {
					t.Errorf("controller %+v", second.Controller)
				}
			}
			if listeners[2].Binds() != 0 {
				t.Errorf("binds %v", binds(listeners))
			}
		})
	})
	t.Run("reconnect to no other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, listeners, o := balanced(t, 2*maxDials)
			session := connect(t, o)
			n.forget()
			n.servers[controllerIP(1)] = listeners[1:]
			second, err := session.Reconnect(t.Context())
			if second != nil || fault.ClassOf(err) != fault.Transient || !errors.Is(err, ErrDifferentController) || len(n.dials) != maxDials {
				t.Errorf("session %v, error %v, %d dials", second, err, len(n.dials))
			}
			if got := binds(listeners); got[0] != 1 || len(got) != 10 || got[2]+got[3]+got[4] != 0 {
				t.Errorf("binds %v", got)
			}
		})
	})
}

// TestReconnectToFirstAddress checks that later sessions use the address of the first one,
// whatever the name leads to by then.
func TestReconnectToFirstAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, listeners, o := domain(t, healthy(3)...)
		n.delays[controllerIP(1)], n.delays[controllerIP(3)] = time.Second, time.Second
		session := connect(t, o)
		o.lookupHost = nil
		n.delays[controllerIP(2)] = 2 * time.Second
		n.forget()
		second, err := session.Reconnect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		second.Close()
		if second.Controller != session.Controller || !slices.Equal(n.dials, []string{controllerIP(2)}) || second.Address != "dc.corp.test:389" {
			t.Errorf("%s at %+v, dials %v, binds %v", second.Address, second.Controller, n.dials, binds(listeners))
		}
	})
}

// TestReconnectToTarget checks that later sessions use the address of the first one if a host of
// an SRV record has another address by then.
func TestReconnectToTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, _, o := domain(t, healthy(2)...)
		o.Hosts = []string{"corp.test"}
		o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
			return "", []*net.SRV{{Target: "dc.corp.test.", Port: 389}}, nil
		}
		target := controllerIP(1)
		o.dialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return n.dial(ctx, network, strings.Replace(address, "dc.corp.test", target, 1))
		}
		session := connect(t, o)
		target = controllerIP(2)
		second, err := session.Reconnect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		second.Close()
		if second.Controller != session.Controller {
			t.Errorf("controller %+v", second.Controller)
		}
	})
}

// TestTimeoutsOfChosenServer checks that the short timeout of the question does not apply to
// later requests.
func TestTimeoutsOfChosenServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := controller(1).Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			<-time.After(defaultResponseTimeout - time.Second)
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		})
		_, _, o := domain(t, slow, slow)
		if _, err := connect(t, o).Search(t.Context(), userSearch, collect(new(string))); err != nil {
			t.Error(err)
		}
	})
}

// TestRealAddresses checks the choice over TCP: the servers have one name, and the first one
// answers nothing.
func TestRealAddresses(t *testing.T) {
	t.Parallel()
	port := 0
	serve := func(host string, script func(p *fakeldap.Peer)) *fakeldap.Listener {
		listener := fakeldap.ServeAt(t, net.JoinHostPort(host, strconv.Itoa(port)), script)
		port = listener.Port
		return listener
	}
	frozen := serve("127.0.0.1", (*fakeldap.Peer).Hang)
	second, third := serve("127.0.0.2", controller(2).Script(nil)), serve("127.0.0.3", controller(3).Script(nil))
	o := options(frozen)
	o.Hosts = []string{"dc.corp.test"}
	o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) { return "", nil, nil }
	o.lookupHost = func(context.Context, string) ([]string, error) {
		return []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, nil
	}
	first := connect(t, o)
	if want := net.JoinHostPort("127.0.0."+string(first.Controller.DNSHostName[2]), strconv.Itoa(port)); first.Controller.Address != want {
		t.Errorf("address %s, want %s", first.Controller.Address, want)
	}
	o.Preferred = first.Controller
	const connects = 20
	for range connects {
		if got := connect(t, o).Controller; got != first.Controller {
			t.Errorf("controller %+v, want %+v", got, first.Controller)
		}
	}
	if frozen.Binds() != 0 || second.Binds()+third.Binds() != connects+1 || second.Binds() != 0 && third.Binds() != 0 {
		t.Errorf("binds %v", binds([]*fakeldap.Listener{frozen, second, third}))
	}
}

// TestNameOfSeveralAddresses checks that the certificate is verified for the name, and not for
// the address that was dialed.
func TestNameOfSeveralAddresses(t *testing.T) {
	t.Parallel()
	ca := issueCA(t, "Example CA")
	valid := issue(t, ca, x509.Certificate{DNSNames: []string{"dc.corp.test"}})
	byAddress := issue(t, ca, x509.Certificate{IPAddresses: []net.IP{net.ParseIP(controllerIP(1))}})
	n, _, o := domain(t, healthy(2)...)
	o.Protocol, o.Certificates = LDAPS, []*x509.Certificate{ca.Certificate}
	wrong := fakeldap.Pipe(t, byAddress.config(), controller(1).Script(nil))
	n.servers[controllerIP(1)] = []*fakeldap.Listener{wrong}
	n.servers[controllerIP(2)] = []*fakeldap.Listener{fakeldap.Pipe(t, valid.config(), controller(2).Script(nil))}
	session := connect(t, o)
	if session.Controller.InvocationID != invocationID(2) {
		t.Errorf("controller %+v", session.Controller)
	}
	second, err := session.Reconnect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	delete(n.servers, controllerIP(2))
	if _, err := Connect(t.Context(), o); !errors.Is(err, errNameMismatch) || wrong.Binds() != 0 {
		t.Errorf("error %v, %d binds", err, wrong.Binds())
	}
}
