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
)

// records returns a lookup whose SRV records are ports of this machine.
func records(t *testing.T, ports ...int) func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	return func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
		if service != "ldap" || proto != "tcp" || name != "dc._msdcs.corp.test" {
			t.Errorf("lookup of _%s._%s.%s", service, proto, name)
		}
		var list []*net.SRV
		for _, port := range ports {
			list = append(list, &net.SRV{Target: "127.0.0.1.", Port: uint16(port)})
		}
		return "", list, nil
	}
}

func TestServers(t *testing.T) {
	t.Parallel()
	srv := []*net.SRV{{Target: "dc1.corp.test.", Port: 389}, {Target: "dc2.corp.test", Port: 1389}, {Target: ".", Port: 389}}
	dns := errors.New("no such host")
	for _, test := range []struct {
		name     string
		protocol Protocol
		hosts    []string
		port     int
		records  []*net.SRV
		err      error
		want     []server
	}{
		{"domain", LDAP, []string{"corp.test"}, 0, srv, nil, []server{{"dc1.corp.test", 389, "corp.test"}, {"dc2.corp.test", 1389, "corp.test"}}},
		{"domain over StartTLS", StartTLS, []string{"corp.test"}, 0, srv, nil, []server{{"dc1.corp.test", 389, "corp.test"}, {"dc2.corp.test", 1389, "corp.test"}}},
		{"domain over LDAPS", LDAPS, []string{"corp.test"}, 0, srv, nil, []server{{"dc1.corp.test", 636, "corp.test"}, {"dc2.corp.test", 636, "corp.test"}}},
		{"domain and port", LDAP, []string{"corp.test"}, 3268, srv, nil, []server{{"dc1.corp.test", 3268, "corp.test"}, {"dc2.corp.test", 3268, "corp.test"}}},
		{"records and an error", LDAP, []string{"corp.test"}, 0, srv[:1], dns, []server{{"dc1.corp.test", 389, "corp.test"}}},
		{"host", LDAP, []string{"dc1.corp.test"}, 0, nil, dns, []server{{"dc1.corp.test", 389, ""}}},
		{"host over LDAPS", LDAPS, []string{"dc1.corp.test"}, 0, nil, dns, []server{{"dc1.corp.test", 636, ""}}},
		{"service not offered", LDAP, []string{"corp.test"}, 0, srv[2:], nil, []server{{"corp.test", 389, ""}}},
		{"hosts", LDAP, []string{"corp.test", "b.test"}, 0, srv, nil, []server{{"corp.test", 389, ""}, {"b.test", 389, ""}}},
		{"name without a domain", LDAP, []string{"dc1"}, 0, srv, nil, []server{{"dc1", 389, ""}}},
		{"IPv4 address", LDAP, []string{"10.1.2.3"}, 0, srv, nil, []server{{"10.1.2.3", 389, ""}}},
		{"IPv6 address", LDAPS, []string{"::1"}, 0, srv, nil, []server{{"::1", 636, ""}}},
	} {
		o := Options{Protocol: test.protocol, Hosts: test.hosts, Port: test.port}
		o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
			return "", test.records, test.err
		}
		if got := o.withDefaults().servers(t.Context()); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if got := (server{host: "::1", port: 636}).address(); got != "[::1]:636" {
		t.Errorf("address %s", got)
	}
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
		dial := o.withDefaults().dialContext
		o.dialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.AfterFunc(50*time.Millisecond, cancel) // most likely during the dial
			return dial(ctx, network, address)
		}
		_, err := Connect(ctx, o)
		wantFailure(t, err, fault.Error{Class: fault.Canceled, Op: "connect", Object: object}, context.Canceled)
	})
}
