package testenv_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/test/ports"
	"adconnector/test/testenv"
)

func TestClientsReachTheEnvironment(t *testing.T) {
	e := testenv.New(t, testenv.Options{Directory: domaincontroller.Options{Users: 3}})
	for _, protocol := range []directory.Protocol{directory.LDAP, directory.LDAPS, directory.StartTLS} {
		session, err := directory.Connect(t.Context(), e.Directory.Options(protocol))
		if err != nil {
			t.Fatalf("%v: %v", protocol, err)
		}
		session.Close()
	}
	e.Console("LDAPS", e.Base())
	client := gateway.New(e.Gateway.ClientOptions(zerolog.Nop()))
	connection, err := client.Connection(t.Context())
	if err != nil || connection.Authentication.Port != e.TLSPort {
		t.Errorf("connection %+v, error %v", connection, err)
	}
	e.Gateway.SetFront(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "{}") })
	if _, err := client.Connection(t.Context()); err == nil {
		t.Error("no answer of the front")
	}
}

func TestRefusingPort(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", ports.Refusing(t))
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	if _, err := net.Listen("tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v", err)
	}
}

func TestReservedPort(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", ports.Reserved(t))
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial before a server listens: %v", err)
	}
	server, err := net.Listen("tcp", address) // which sets SO_REUSEADDR
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if conn, err := net.Dial("tcp", address); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}

func TestMiddleware(t *testing.T) {
	g := testenv.NewGateway(t, testenv.GatewayOptions{})
	var wrapped, code int
	g.SetMiddleware(func(_ *testenv.Exchange, deliver func() *httptest.ResponseRecorder) *httptest.ResponseRecorder {
		wrapped++
		answer := deliver()
		code = answer.Code
		return answer
	})
	frontAnswered := false
	g.SetFront(func(x *testenv.Exchange) bool {
		if frontAnswered { // the second request is for the gateway
			return false
		}
		frontAnswered = true
		x.Answer(x.Deliver())
		return true
	})
	client := gateway.New(g.ClientOptions(zerolog.Nop()))
	if err := client.Login(t.Context()); err != nil || wrapped != 1 || code/100 != 2 {
		t.Errorf("error %v, %d deliveries, last status %d", err, wrapped, code)
	}
	g.SetConnection(nil)
	if _, err := client.Connection(t.Context()); err == nil || wrapped != 2 || code != http.StatusNotFound {
		t.Errorf("error %v, %d deliveries, last status %d", err, wrapped, code)
	}
}
