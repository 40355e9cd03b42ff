package testenv_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
	"adconnector/test/testenv"
)

func TestClientsReachTheEnvironment(t *testing.T) {
	e := testenv.New(t, testenv.Options{Directory: sandbox.DirectoryOptions{Users: 3}})
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
		t.Error("the front did not answer")
	}
}

func TestRefusingPort(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", testenv.RefusingPort(t))
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	if _, err := net.Listen("tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v", err)
	}
}
