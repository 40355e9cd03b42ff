package directory

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
	"adconnector/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const testPassword = "correct horse battery"

// options returns options for the server. Their timeouts are too long to end a test.
func options(server *fakeldap.Listener) Options {
	return Options{
		Hosts: []string{server.Host}, Port: server.Port, BindDN: "CN=reader,DC=corp", Password: secret.New(testPassword),
		ConnectTimeout: time.Hour, ResponseTimeout: time.Hour,
		chunkSize: 1, // every entry is passed on before the next one is read
	}
}

// inMemory starts a server for a synctest bubble. The options have the default timeouts.
func inMemory(t testing.TB, script func(p *fakeldap.Peer)) (*fakeldap.Listener, Options) {
	server := fakeldap.Pipe(t, nil, script)
	o := options(server)
	o.ConnectTimeout, o.ResponseTimeout, o.dialContext = defaultConnectTimeout, defaultResponseTimeout, server.Dial
	return server, o
}

// connect opens a session and closes it at the end of the test.
func connect(t testing.TB, o Options) *Session {
	t.Helper()
	session, err := Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

// wantFailure checks an error's fields with faulttest.Check, and that its text contains
// neither the password nor a zero byte.
func wantFailure(t testing.TB, err error, want fault.Error, cause error, remedyNames ...string) {
	t.Helper()
	faulttest.Check(t, err, want, cause, remedyNames...)
	if strings.Contains(err.Error(), testPassword) {
		t.Errorf("error contains the password: %v", err)
	}
	if strings.ContainsRune(err.Error(), 0) {
		t.Errorf("error contains a zero byte: %q", err)
	}
}

// wantResult checks that an error wraps an LDAP result with this code, and returns it.
func wantResult(t testing.TB, err error, code int) *resultError {
	t.Helper()
	result, is := errors.AsType[*resultError](err)
	if !is || int(result.code) != code {
		t.Fatalf("error %v, want LDAP result %d", err, code)
	}
	return result
}

// address returns the host and port of a server.
func address(server *fakeldap.Listener) string {
	return net.JoinHostPort(server.Host, strconv.Itoa(server.Port))
}

// bindFault returns the fields of a failed bind with the account of options.
func bindFault(server *fakeldap.Listener, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "bind", Object: "CN=reader,DC=corp to " + address(server)}
}

// connectFault returns the fields of a failed connection.
func connectFault(server *fakeldap.Listener, protocol Protocol, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "connect", Object: fmt.Sprintf("%s (%s)", address(server), protocol)}
}

// searchFault returns the fields of a failed userSearch.
func searchFault(server *fakeldap.Listener, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "search", Object: userSearch.Base + " on " + address(server)}
}
