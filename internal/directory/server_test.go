package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// records returns a lookup whose SRV records are ports of this machine, in order of priority.
func records(t *testing.T, ports ...int) func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	return func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
		if service != "ldap" || proto != "tcp" || name != "dc._msdcs.corp.test" {
			t.Errorf("lookup of _%s._%s.%s", service, proto, name)
		}
		var list []*net.SRV
		for i, port := range ports {
			list = append(list, &net.SRV{Target: "127.0.0.1.", Port: uint16(port), Priority: uint16(i)})
		}
		return "", list, nil
	}
}

// noLookup is a lookup of addresses that finds none.
func noLookup(_ context.Context, host string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	srv := []*net.SRV{{Target: "dc1.corp.test.", Port: 389}, {Target: "dc2.corp.test", Port: 1389, Priority: 10}, {Target: ".", Port: 389}}
	dns := errors.New("no such host")
	dc1 := server{host: "dc1.corp.test", port: 389, domain: "corp.test"}
	domain := func(second int) [][]server {
		return [][]server{{dc1, {host: "dc2.corp.test", port: second, domain: "corp.test", priority: 10}}}
	}
	secure := domain(636)
	secure[0][0].port = 636
	single := func(host string, port int) [][]server { return [][]server{{{host: host, port: port}}} }
	addresses := []string{"10.0.0.1", "fd00::1", "10.0.0.1"}
	expanded := []server{{host: "dc1.corp.test", port: 389, ip: "10.0.0.1"}, {host: "dc1.corp.test", port: 389, ip: "fd00::1"}}
	for _, test := range []struct {
		name      string
		protocol  Protocol
		hosts     []string
		port      int
		records   []*net.SRV
		err       error
		addresses []string // of every host
		want      [][]server
	}{
		{"domain", LDAP, []string{"corp.test"}, 0, srv, nil, addresses, domain(1389)},
		{"domain over StartTLS", StartTLS, []string{"corp.test"}, 0, srv, nil, addresses, domain(1389)},
		{"domain over LDAPS", LDAPS, []string{"corp.test"}, 0, srv, nil, addresses, secure},
		{"domain and port", LDAP, []string{"corp.test"}, 389, srv, nil, addresses, domain(389)},
		{"records and an error", LDAP, []string{"corp.test"}, 0, srv[:1], dns, addresses, [][]server{{dc1}}},
		{"repeated record", LDAP, []string{"corp.test"}, 0, slices.Repeat(srv[:1], 2), nil, addresses, [][]server{{dc1}}},
		{"host", LDAP, []string{"dc1.corp.test"}, 0, nil, dns, addresses[:1], [][]server{expanded[:1]}},
		{"host with several addresses", LDAP, []string{"dc1.corp.test"}, 0, nil, dns, addresses, [][]server{expanded}},
		{"host without an address", LDAP, []string{"dc1.corp.test"}, 0, nil, dns, nil, single("dc1.corp.test", 389)},
		{"host over LDAPS", LDAPS, []string{"dc1.corp.test"}, 0, nil, dns, nil, single("dc1.corp.test", 636)},
		{"service not offered", LDAP, []string{"corp.test"}, 0, srv[2:], nil, nil, single("corp.test", 389)},
		{"hosts", LDAP, []string{"dc1.corp.test", "10.1.2.3", "dc1.corp.test"}, 0, srv, nil, addresses, [][]server{expanded, {{host: "10.1.2.3", port: 389}}, expanded}},
		{"name without a domain", LDAP, []string{"dc1"}, 0, srv, nil, nil, single("dc1", 389)},
		{"IPv4 address", LDAP, []string{"10.1.2.3"}, 0, srv, nil, addresses, single("10.1.2.3", 389)},
		{"IPv6 address", LDAPS, []string{"::1"}, 0, srv, nil, addresses, single("::1", 636)},
		{"IPv6 address with a zone", LDAPS, []string{"fe80::1%eth0.100"}, 0, srv, nil, addresses, single("fe80::1%eth0.100", 636)},
	} {
		o := Options{Protocol: test.protocol, Hosts: test.hosts, Port: test.port}
		o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
			return "", test.records, test.err
		}
		o.lookupHost = func(context.Context, string) ([]string, error) { return test.addresses, nil }
		o = o.withDefaults()
		got, err := o.resolve(t.Context())
		for i, servers := range got {
			got[i] = o.addresses(t.Context(), servers)
		}
		if err != nil || !slices.EqualFunc(got, test.want, slices.Equal[[]server]) {
			t.Errorf("%s: %v, %v, want %v", test.name, got, err, test.want)
		}
	}
	s := server{host: "dc1", port: 636, ip: "::1"}
	if s.address() != "dc1:636" || s.dialAddress() != "[::1]:636" {
		t.Errorf("address %s, dialed %s", s.address(), s.dialAddress())
	}
}

// TestGlobalCatalog checks that the ports of the global catalog are refused before any
// connection, wherever they come from.
func TestGlobalCatalog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		protocol Protocol
		hosts    []string
		port     int
		srvPort  uint16
		object   string
	}{
		{"address", LDAP, []string{"127.0.0.1"}, 3268, 0, "127.0.0.1:3268 (LDAP)"},
		{"LDAPS", LDAPS, []string{"127.0.0.1"}, 3269, 0, "127.0.0.1:3269 (LDAPS)"},
		{"second host", LDAP, []string{"dc1", "dc2"}, 3268, 0, "dc1:3268 (LDAP)"},
		{"SRV record", LDAP, []string{"corp.test"}, 0, 3268, "dc2.corp.test:3268 (LDAP)"},
	} {
		o := Options{Protocol: test.protocol, Hosts: test.hosts, Port: test.port}
		o.lookupHost = noLookup
		o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
			return "", []*net.SRV{{Target: "dc1.corp.test.", Port: 389}, {Target: "dc2.corp.test.", Port: test.srvPort}}, nil
		}
		o.dialContext = func(context.Context, string, string) (net.Conn, error) {
			t.Errorf("%s: dialed", test.name)
			return nil, net.ErrClosed
		}
		_, err := Connect(t.Context(), o)
		wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "connect", Object: test.object}, errGlobalCatalog, "ldap.port", "389", "636")
		if results, err := Probe(t.Context(), o); results != nil || !errors.Is(err, errGlobalCatalog) {
			t.Errorf("%s: probe %v, %v", test.name, results, err)
		}
	}
}

// TestNamesAreResolvedInTurn checks that the addresses of a host are not looked up while another
// one is available.
func TestNamesAreResolvedInTurn(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	o := options(server)
	o.Hosts = []string{"dc1", "dc2"}
	o.lookupHost = func(_ context.Context, host string) ([]string, error) {
		if host != "dc1" {
			t.Errorf("lookup of %s", host)
		}
		return []string{server.Host}, nil
	}
	connect(t, o)
}

func TestLookupCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := Options{Hosts: []string{"corp.test"}}
	o.lookupSRV = func(ctx context.Context, _, _, _ string) (string, []*net.SRV, error) {
		cancel()
		<-ctx.Done()
		return "", nil, ctx.Err()
	}
	_, err := Connect(ctx, o)
	wantFailure(t, err, fault.Error{Class: fault.Canceled, Op: "connect", Object: "corp.test:389 (LDAP)"}, context.Canceled)
}

// silentPort returns the port of a listener whose queue is full, so that connections are
// never completed. Linux behaves so with a backlog of 0.
func silentPort(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs the listen queue of Linux")
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	// The queue holds one connection. The second dial fills it even if the first one was
	// already removed.
	for _, timeout := range []time.Duration{time.Hour, 200 * time.Millisecond} {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), timeout)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
	}
	return port
}

func TestDialOfSilentHost(t *testing.T) {
	t.Parallel()
	o := Options{Hosts: []string{"127.0.0.1"}, Port: silentPort(t)}
	object := fmt.Sprintf("127.0.0.1:%d (LDAP)", o.Port)
	t.Run("timeout", func(t *testing.T) {
		o := o
		o.ConnectTimeout = 100 * time.Millisecond
		_, err := Connect(t.Context(), o)
		wantFailure(t, err, fault.Error{Class: fault.Transient, Op: "connect", Object: object}, nil, "ldap.host", "firewalls")
		if timeout, is := errors.AsType[net.Error](err); !is || !timeout.Timeout() {
			t.Errorf("%v is not a timeout", err)
		}
	})
	t.Run("cancellation", func(t *testing.T) {
		o := o
		o.ConnectTimeout = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		dial := o.withDefaults().dialFunc()
		o.dialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.AfterFunc(50*time.Millisecond, cancel) // most likely during the dial
			return dial(ctx, network, address)
		}
		_, err := Connect(ctx, o)
		wantFailure(t, err, fault.Error{Class: fault.Canceled, Op: "connect", Object: object}, context.Canceled)
	})
}
