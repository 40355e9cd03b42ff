package cli

import (
	"context"
	"errors"
	"math"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
)

const (
	// maxControllers is the maximum number of domain controllers in a sandbox.
	maxControllers = 5
	// portAttempts is the maximum number of attempts to find a port that is free on the addresses
	// of all controllers.
	portAttempts = 20
)

var errNoNextAddress = errors.New("several controllers require IPv4 addresses that follow each other")

// controllerPorts are the open ports of a domain controller. Both can be nil.
type controllerPorts struct{ plain, secure net.Listener }

func (p controllerPorts) listeners() (open []net.Listener) {
	for _, listener := range []net.Listener{p.plain, p.secure} {
		if listener != nil {
			open = append(open, listener)
		}
	}
	return open
}

// host returns the address of the controller without a port, or "" if it is not served.
func (p controllerPorts) host() string {
	for _, listener := range p.listeners() {
		return listener.Addr().(*net.TCPAddr).IP.String()
	}
	return ""
}

// listenControllers opens the ports of all controllers. The first one has the addresses of the
// flags. The others have the same ports on the following addresses, because the connector uses one
// port for all controllers of a domain.
func listenControllers(o sandboxOptions) ([]controllerPorts, error) {
	controllers := make([]controllerPorts, o.controllers)
	for _, flag := range []struct {
		name, address string
		port          func(*controllerPorts) *net.Listener
	}{
		{"--ldap", o.ldap, func(p *controllerPorts) *net.Listener { return &p.plain }},
		{"--ldaps", o.ldaps, func(p *controllerPorts) *net.Listener { return &p.secure }},
	} {
		if flag.address == "" {
			continue
		}
		listeners, err := listenEach(openPort, flag.name, flag.address, o.controllers)
		if err != nil {
			closePorts(controllers)
			return nil, err
		}
		for n, listener := range listeners {
			*flag.port(&controllers[n]) = listener
		}
	}
	if first := controllers[0].listeners(); o.controllers > 1 && len(first) == 2 && !first[0].Addr().(*net.TCPAddr).IP.Equal(first[1].Addr().(*net.TCPAddr).IP) {
		closePorts(controllers)
		return nil, newUsageError(errors.New("--ldap and --ldaps have different addresses, and each of several controllers has one"), "use the same address with different ports")
	}
	return controllers, nil
}

func closePorts(controllers []controllerPorts) {
	for _, ports := range controllers {
		for _, listener := range ports.listeners() {
			listener.Close()
		}
	}
}

// opener opens a port on an address.
type opener func(address string) (net.Listener, error)

// listenEach opens one port on the address of a flag, and on the addresses that follow it, until
// there are n listeners.
func listenEach(open opener, flag, address string, n int) ([]net.Listener, error) {
	if err := checkLoopback(flag, address); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		listeners, failed, err := listenFollowing(open, address, n)
		if err == nil {
			return listeners, nil
		}
		for _, listener := range listeners {
			listener.Close()
		}
		// Another port can be free on all addresses.
		_, port, _ := net.SplitHostPort(address)
		if port != "0" || !errors.Is(err, syscall.EADDRINUSE) || attempt == portAttempts {
			return nil, listenError(flag, failed, err)
		}
	}
}

// listenFollowing opens the ports of listenEach. With an error it returns those that are open, and
// the address that is not.
func listenFollowing(open opener, address string, n int) (listeners []net.Listener, failed string, err error) {
	for {
		listener, err := open(address)
		if err != nil {
			return listeners, address, err
		}
		listeners = append(listeners, listener)
		if len(listeners) >= n {
			return listeners, "", nil
		}
		last := listener.Addr().(*net.TCPAddr)
		ip := last.IP.To4()
		if ip == nil || ip[3] == math.MaxUint8 {
			return listeners, address, errNoNextAddress
		}
		address = net.JoinHostPort(net.IPv4(ip[0], ip[1], ip[2], ip[3]+1).String(), strconv.Itoa(last.Port))
	}
}

// serveControllers serves all controllers until ctx ends.
func (s *sandboxServers) serveControllers(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	for n, d := range s.domain.Controllers() {
		if ports := s.ports[n]; len(ports.listeners()) > 0 {
			all.Go(func() error { return d.Serve(ctx, ports.plain, ports.secure) })
		}
	}
	return all.Wait()
}

// connectionTo returns the connection as an administrator would enter it in the console. It
// prefers LDAPS. Without a directory it returns nil.
func connectionTo(directory *domaincontroller.Server, ports controllerPorts, id, password string) *gatewayserver.Connection {
	listener, protocol := ports.secure, "LDAPS"
	if listener == nil {
		listener, protocol = ports.plain, "STARTTLS"
	}
	if listener == nil {
		return nil
	}
	address := listener.Addr().(*net.TCPAddr)
	return &gatewayserver.Connection{ConnectionUUID: id, Name: "Sandbox", Authentication: gatewayserver.Authentication{
		Type: protocol, Host: address.IP.String(), Port: address.Port, BindDN: directory.BindDN(), Password: password,
		Certificate: string(directory.CertificatePEM()),
	}}
}
