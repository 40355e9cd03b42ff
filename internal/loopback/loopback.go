// Package loopback connects the name localhost without a resolver (RFC 6761, section 6.3). An
// image without a hosts file cannot resolve it, and an answer of a DNS server can be an address
// of another machine.
package loopback

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// name is the name that always means this machine.
const name = "localhost"

// addresses are the addresses of the name, in the order in which Dial tries them.
var addresses = []string{"127.0.0.1", "::1"}

// IsName reports whether a host is localhost.
func IsName(host string) bool { return strings.EqualFold(host, name) }

// Contains reports whether a host is localhost or a loopback address.
func Contains(host string) bool {
	address, err := netip.ParseAddr(host)
	return IsName(host) || err == nil && address.Unmap().IsLoopback()
}

// DialFunc connects to an address, which is host:port.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dial returns a function that replaces localhost by its addresses, and calls next until one of
// them accepts the connection. Its error is that of the first address. It passes other hosts on.
func Dial(next DialFunc) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || !IsName(host) {
			return next(ctx, network, address)
		}
		var first error
		for _, host := range addresses {
			conn, err := next(ctx, network, net.JoinHostPort(host, port))
			if err == nil {
				return conn, nil
			}
			if first == nil {
				first = err
			}
			if ctx.Err() != nil {
				break
			}
		}
		return nil, first
	}
}

// Listen returns the address to listen on: host:port in which 127.0.0.1 replaces localhost.
func Listen(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !IsName(host) {
		return address
	}
	return net.JoinHostPort(addresses[0], port)
}
