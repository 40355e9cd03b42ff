package directory

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
)

// TestMain fails when the tests leave goroutines behind. Find waits for up to a second
// or two; a goroutine that is about to end gets many times as long.
func TestMain(m *testing.M) {
	code := m.Run()
	for attempt := 1; code == 0; attempt++ {
		err := goleak.Find()
		if err == nil {
			break
		}
		if attempt == 50 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const testPassword = "correct horse battery"

// options reach the server as a plain account. No timeout of theirs ends a test.
func options(server *fakeldap.Listener) Options {
	return Options{
		Hosts: []string{server.Host}, Port: server.Port, BindDN: "CN=reader,DC=corp", Password: secret.New(testPassword),
		ConnectTimeout: time.Hour, ResponseTimeout: time.Hour,
		chunkSize: 1, // so that an entry is handed over before the next one is read
	}
}

// inMemory starts a server for a synctest bubble, and returns options with the
// production's timeouts.
func inMemory(t testing.TB, script func(p *fakeldap.Peer)) (*fakeldap.Listener, Options) {
	server := fakeldap.Pipe(t, nil, script)
	o := options(server)
	o.ConnectTimeout, o.ResponseTimeout, o.dialContext = defaultConnectTimeout, defaultResponseTimeout, server.Dial
	return server, o
}

// connect makes a session that ends with the test.
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
		t.Errorf("the password is in: %v", err)
	}
	if strings.ContainsRune(err.Error(), 0) {
		t.Errorf("a zero byte is in: %q", err)
	}
}

// wantAnswer checks that an error's cause is a server's answer, and returns it.
func wantAnswer(t testing.TB, err error, code int) *answerError {
	t.Helper()
	answer, is := errors.AsType[*answerError](err)
	if !is || int(answer.code) != code {
		t.Fatalf("error %v, want one with LDAP result %d", err, code)
	}
	return answer
}

// addressOf returns a server's address.
func addressOf(server *fakeldap.Listener) string {
	return net.JoinHostPort(server.Host, strconv.Itoa(server.Port))
}

// bindTo is the operation of a bind to a server with options.
func bindTo(server *fakeldap.Listener, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "bind", Object: "CN=reader,DC=corp to " + addressOf(server)}
}

// connectTo is the operation of a connection to a server.
func connectTo(server *fakeldap.Listener, protocol Protocol, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "connect", Object: fmt.Sprintf("%s (%s)", addressOf(server), protocol)}
}

// searchOf is the operation of the search for people on a server.
func searchOf(server *fakeldap.Listener, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "search", Object: people.Base + " on " + addressOf(server)}
}
