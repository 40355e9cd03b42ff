package directory

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
	"adconnector/test/fakeldap"
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

// wantError checks an error's class and that its text names everything wanted,
// and no secret.
func wantError(t testing.TB, err error, class fault.Class, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if got := fault.Of(err); got != class {
		t.Errorf("%s, want %s: %v", got, class, err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), testPassword) {
		t.Errorf("the password is in: %v", err)
	}
	if strings.ContainsRune(err.Error(), 0) {
		t.Errorf("a zero byte is in: %q", err)
	}
}
