package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/webserver"
)

// Endpoint is the content of the admin endpoint.
type Endpoint struct {
	Report    func() (Report, error)
	Health    func() error // an error if the process is stuck
	Readiness func() error // an error before the registration, or if the last run was refused
	Metrics   http.Handler
}

// Handler returns the handler of GET and HEAD requests. host is the name or address that the
// endpoint listens on. Requests for other names are refused, because they are DNS rebinding:
// web pages that access the loopback of their visitors.
func (e Endpoint) Handler(host string) http.Handler {
	mux := http.NewServeMux()
	renderer := webserver.NewRenderer()
	handle := func(path string, h http.Handler) { mux.Handle("GET "+path, renderer.Handler(h)) }
	handle("/status", http.HandlerFunc(e.showStatus))
	handle("/{$}", http.HandlerFunc(e.showPage))
	handle("/style.css", staticFile("text/css; charset=utf-8", pageCSS))
	handle("/icon.svg", staticFile("image/svg+xml", iconSVG))
	handle("/metrics", e.Metrics)
	// Without a limit: many other requests must not make the process unhealthy.
	mux.HandleFunc("GET /healthz", probe(e.Health))
	mux.HandleFunc("GET /readyz", probe(e.Readiness))
	return withSecurityHeaders(webserver.CheckHost(isOwnHost(host), mux))
}

// probe returns a handler that responds with 200, or with 503 and the error.
func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			unavailable(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	}
}

// unavailable responds with 503, the error and, on a separate line, the remedy.
func unavailable(w http.ResponseWriter, err error) {
	text := err.Error()
	if remedy := fault.Remedy(err); remedy != "" {
		text += "\nremedy: " + remedy
	}
	http.Error(w, text, http.StatusServiceUnavailable)
}

func (e Endpoint) showStatus(w http.ResponseWriter, _ *http.Request) {
	report, err := e.Report()
	if err != nil {
		unavailable(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(report) // an error means that the client disconnected
}

// withSecurityHeaders sets the headers of all responses.
func withSecurityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		next.ServeHTTP(w, r)
	})
}

// isOwnHost returns a function that reports whether a host is an IP address or a name of this
// host. listenHost is the name or address that the endpoint listens on.
func isOwnHost(listenHost string) func(host string) bool {
	hostname, _ := os.Hostname() // empty after an error
	return func(host string) bool {
		return webserver.IsAddress(host) || host != "" && (strings.EqualFold(host, listenHost) || strings.EqualFold(host, hostname))
	}
}

// Serve serves at address until ctx ends. If it cannot listen, it logs the error once and
// retries every 30 s: runs do not depend on the admin endpoint.
func (e Endpoint) Serve(ctx context.Context, address string, log zerolog.Logger) {
	listener := listen(ctx, address, log)
	if listener == nil {
		return
	}
	log.Info().Str("address", listener.Addr().String()).Msg(MsgAdminListening)
	host, _, _ := net.SplitHostPort(address) // valid, because listen succeeded
	if err := webserver.Serve(ctx, listener, e.Handler(host)); err != nil {
		log.Error().EmbedObject(fault.Fields(err)).Str("address", address).Msg(MsgAdminFailed)
	}
}

// The remedies for an address on which the endpoint cannot listen.
const (
	remedyAddress = "set service.admin.address to an address of this host, like 127.0.0.1:8080"
	remedyPort    = "set service.admin.address to a port above 1023"
	remedyInUse   = "give each connector on this host its own service.admin.address"
)

// listenRemedy returns the remedy for the error of an address.
func listenRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, new(*net.DNSError)):
		return remedyAddress
	case errors.Is(err, syscall.EACCES):
		return remedyPort
	}
	return remedyInUse
}

const listenRetry = 30 * time.Second

// listen listens on an address. It returns nil if ctx ends before.
func listen(ctx context.Context, address string, log zerolog.Logger) net.Listener {
	for logged := false; ; logged = true {
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "tcp", address)
		if err == nil {
			return listener
		}
		if !logged && ctx.Err() == nil {
			err = fault.Operation{Op: "serve", Object: "admin endpoint " + address}.Failed(fault.Transient, err, listenRemedy(err))
			log.Error().EmbedObject(fault.Fields(err)).Msg(MsgAdminUnavailable)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenRetry):
		}
	}
}
