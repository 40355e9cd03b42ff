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
)

// Endpoint is what the admin endpoint shows.
type Endpoint struct {
	Report  func() (Report, error)
	Stuck   func() error // nil while the process can work
	Unready func() error // nil once registered, unless the last run was refused
	Metrics http.Handler
}

// Handler answers GET and HEAD. host is the name or address that it listens on:
// requests for another name are somebody's web page talking to its visitor's
// loopback, and are refused.
func (e Endpoint) Handler(host string) http.Handler {
	mux := http.NewServeMux()
	places := make(chan struct{}, atOnce)
	show := func(what string, h http.Handler) { mux.Handle("GET "+what, bounded(places, h)) }
	show("/status", http.HandlerFunc(e.showStatus))
	show("/{$}", http.HandlerFunc(e.showPage))
	show("/style.css", asset("text/css; charset=utf-8", pageCSS))
	show("/icon.svg", asset("image/svg+xml", iconSVG))
	show("/metrics", e.Metrics)
	// A crowd elsewhere is no reason to have the process restarted.
	mux.HandleFunc("GET /healthz", verdict(e.Stuck))
	mux.HandleFunc("GET /readyz", verdict(e.Unready))
	return guarded(onlyFor(host, mux))
}

// verdict answers 200, or 503 with the error.
func verdict(trouble func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := trouble(); err != nil {
			unavailable(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	}
}

// unavailable answers 503 with the error and, on a line of its own, the remedy.
func unavailable(w http.ResponseWriter, err error) {
	lines := err.Error()
	if remedy := fault.Remedy(err); remedy != "" {
		lines += "\nremedy: " + remedy
	}
	http.Error(w, lines, http.StatusServiceUnavailable)
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
	_ = encoder.Encode(report) // the client has gone
}

// atOnce is how many requests are answered at a time.
const atOnce = 16

// bounded turns away a crowd: who finds no place.
func bounded(places chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		}
	})
}

// guarded sets the headers that every answer carries.
func guarded(next http.Handler) http.Handler {
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

// onlyFor refuses requests for names that nobody gave this endpoint. An address is
// no name: who knows it has come here and nowhere else.
func onlyFor(host string, next http.Handler) http.Handler {
	own, _ := os.Hostname() // unknown: one name less
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.Host
		if name, _, err := net.SplitHostPort(asked); err == nil {
			asked = name
		}
		asked = strings.Trim(asked, "[]")
		switch {
		case net.ParseIP(asked) != nil, strings.EqualFold(asked, "localhost"),
			asked != "" && strings.EqualFold(asked, host), asked != "" && strings.EqualFold(asked, own):
			next.ServeHTTP(w, r)
		default:
			http.Error(w, "this endpoint does not go by that name: use its address", http.StatusMisdirectedRequest)
		}
	})
}

// Serve serves at address until ctx ends. While it cannot listen there, it logs that
// once and tries again every 30 seconds: runs do not depend on the admin endpoint.
func (e Endpoint) Serve(ctx context.Context, address string, log zerolog.Logger) {
	listener := listen(ctx, address, log)
	if listener == nil {
		return
	}
	log.Info().Str("address", listener.Addr().String()).Msg(MsgAdminListening)
	host, _, _ := net.SplitHostPort(address) // it was listened on
	server := &http.Server{
		Handler: e.Handler(host), MaxHeaderBytes: 8 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // who is still looking is cut off
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Error().EmbedObject(fault.Fields(err)).Str("address", address).Msg(MsgAdminFailed)
	}
}

// The remedies of an address on which the endpoint cannot listen.
const (
	remedyAddress = "set service.admin.address to an address of this host, like 127.0.0.1:8080"
	remedyPort    = "set service.admin.address to a port above 1023"
	remedyTaken   = "give each connector on this host its own service.admin.address"
)

// remedyFor returns the remedy of an address on which the endpoint cannot listen.
func remedyFor(err error) string {
	var unknown *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, &unknown):
		return remedyAddress
	case errors.Is(err, syscall.EACCES):
		return remedyPort
	}
	return remedyTaken
}

const listenAgain = 30 * time.Second

// listen returns nil when ctx ended first.
func listen(ctx context.Context, address string, log zerolog.Logger) net.Listener {
	for said := false; ; said = true {
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "tcp", address)
		if err == nil {
			return listener
		}
		if !said && ctx.Err() == nil {
			err = fault.Operation{Op: "serve", Object: "admin endpoint " + address}.Failed(fault.Transient, err, remedyFor(err))
			log.Error().EmbedObject(fault.Fields(err)).Msg(MsgAdminUnavailable)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenAgain):
		}
	}
}
