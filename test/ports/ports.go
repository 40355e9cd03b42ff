// Package ports reserves TCP ports for tests.
package ports

import (
	"net"
	"syscall"
	"testing"
)

// Refusing returns a port of 127.0.0.1 that refuses connections until the test ends. The
// port is bound, so that no other process gets it, but no socket listens on it.
func Refusing(t testing.TB) int {
	t.Helper()
	return bind(t, false)
}

// Reserved returns a port of 127.0.0.1 for a server that sets SO_REUSEADDR. Until the
// test ends, no other process gets the port. Until the server listens on it, the port
// refuses connections.
func Reserved(t testing.TB) int {
	t.Helper()
	return bind(t, true)
}

// bind returns the port of a bound socket, which is closed when the test ends.
func bind(t testing.TB, reusable bool) int {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}); err != nil {
		t.Fatal(err)
	}
	if reusable { // after bind, which would otherwise accept a port that is already reserved
		if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
			t.Fatal(err)
		}
	}
	address, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return address.(*syscall.SockaddrInet4).Port
}
