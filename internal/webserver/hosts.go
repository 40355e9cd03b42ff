// Package webserver protects the HTTP servers of the program against web pages and against
// clients that hold connections or responses: the admin endpoint and the gateway of the
// sandbox.
//
// It guarantees that a server has a bounded number of connections and a bounded number of
// bytes that wait for slow clients, and that a new client is served while others hold
// theirs.
package webserver

import (
	"net"
	"net/http"
	"strings"
)

// CheckHost refuses requests whose Host header is not allowed, with the status 421. It
// prevents DNS rebinding: a web page under a name that resolves to an address of this host
// can otherwise read the responses. allowed gets the host without its port, which can be
// empty.
func CheckHost(allowed func(host string) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if !allowed(strings.Trim(host, "[]")) {
			http.Error(w, "unknown host name, use the address of the endpoint", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// IsLoopback reports whether a host is a loopback address or localhost.
func IsLoopback(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

// IsAddress reports whether a host is an IP address or localhost. DNS rebinding requires a
// name.
func IsAddress(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host) != nil
}
