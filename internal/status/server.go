package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/loopback"
	"adconnector/internal/webserver"
)

// Endpoint is the content of the admin endpoint.
type Endpoint struct {
	Report    func() (Report, error)
	Health    func() error // an error if the process is stuck
	Readiness func() error // an error before the registration, or if the last run was refused
	Metrics   http.Handler
	Hosts     []string // additional host names that requests may use
}

// Handler returns the handler of GET and HEAD requests. host is the name or address that the
// endpoint listens on. Requests for names that are neither its own nor in Hosts are refused,
// because they can be DNS rebinding: web pages that access the loopback of their visitors.
func (e Endpoint) Handler(host string, log zerolog.Logger) http.Handler {
	mux := http.NewServeMux()
	renderer := webserver.NewRenderer()
	handle := func(path string, h http.Handler) { mux.Handle("GET "+path, renderer.Handler(h)) }
	handle("/status", http.HandlerFunc(e.showStatus))
	handle("/{$}", http.HandlerFunc(e.showPage))
	handle("/runs/{id}", http.HandlerFunc(e.showRun))
	handle("/style.css", staticFile("text/css; charset=utf-8", pageCSS))
	handle("/icon.svg", staticFile("image/svg+xml", iconSVG))
	handle("/metrics", e.Metrics)
	// Without a limit: many other requests must not make the process unhealthy.
	mux.HandleFunc("GET /healthz", probe(e.Health))
	mux.HandleFunc("GET /readyz", probe(e.Readiness))
	refuser := &hostRefuser{log: log, logged: map[string]bool{}}
	return withSecurityHeaders(webserver.CheckHost(e.allowsHost(host), refuser.refuse, mux))
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

// unavailable responds with 503 and the error.
func unavailable(w http.ResponseWriter, err error) {
	http.Error(w, withRemedy(err), http.StatusServiceUnavailable)
}

// withRemedy returns the text of an error and, on a separate line, its remedy.
func withRemedy(err error) string {
	text := err.Error()
	if remedy := fault.Remedy(err); remedy != "" {
		text += "\nremedy: " + remedy
	}
	return text
}

func (e Endpoint) showStatus(w http.ResponseWriter, _ *http.Request) {
	report, err := e.Report()
	if err != nil {
		unavailable(w, err)
		return
	}
	document, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		unavailable(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(fault.EscapeJSON(append(document, '\n'))) // an error means that the client disconnected
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

// allowsHost returns a function that reports whether a host is an IP address, a name of this
// host, or an allowed name. listenHost is the name or address that the endpoint listens on.
func (e Endpoint) allowsHost(listenHost string) func(host string) bool {
	hostname, _ := os.Hostname() // empty after an error
	names := append([]string{listenHost, hostname}, e.Hosts...)
	return func(host string) bool {
		return webserver.IsAddress(host) || host != "" && slices.ContainsFunc(names, func(name string) bool {
			return strings.EqualFold(strings.TrimSuffix(name, "."), host)
		})
	}
}

var errUnknownHost = errors.New("unknown host name")

const remedyUnknownHost = "use an IP address of the endpoint, or add the name to service.admin.allowed-hosts"

// maxLoggedHosts is the number of refused names that a process logs. Clients choose the names.
const maxLoggedHosts = 10

// hostRefuser refuses requests for unknown names. It logs each name once, because a scraper
// shows only the status.
type hostRefuser struct {
	log zerolog.Logger

	mu     sync.Mutex
	logged map[string]bool
}

// refuse responds with 421.
func (h *hostRefuser) refuse(w http.ResponseWriter, host string) {
	name := fmt.Sprintf("%.100q", host)
	err := fault.Operation{Op: "serve request for", Object: name}.Failed(fault.Refused, errUnknownHost, remedyUnknownHost)
	if h.isNew(name) {
		h.log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgHostRefused)
	}
	webserver.Misdirected(w, withRemedy(err))
}

// isNew reports whether the refusal of a name is to be logged.
func (h *hostRefuser) isNew(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.logged[name] || len(h.logged) >= maxLoggedHosts {
		return false
	}
	h.logged[name] = true
	return true
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
	if err := webserver.Serve(ctx, listener, e.Handler(host, log)); err != nil {
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
		listener, err := config.Listen(ctx, "tcp", loopback.Listen(address))
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
