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

	"adconnector/internal/loopback"
)

// CheckHost passes requests on whose Host header is allowed, and the others to refuse. It
// prevents DNS rebinding: a web page under a name that resolves to an address of this host
// can otherwise read the responses. allowed and refuse get the host without its port and
// without a dot at its end. It can be empty.
func CheckHost(allowed func(host string) bool, refuse func(w http.ResponseWriter, host string), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
		if !allowed(host) {
			refuse(w, host)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Misdirected responds with the status 421 and a text.
func Misdirected(w http.ResponseWriter, text string) {
	http.Error(w, text, http.StatusMisdirectedRequest)
}

// IsAddress reports whether a host is an IP address or localhost. DNS rebinding requires a
// name.
func IsAddress(host string) bool { return loopback.IsName(host) || net.ParseIP(host) != nil }
