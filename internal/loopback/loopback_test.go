package loopback

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
)

func TestContains(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "10.0.0.7": false, "0.0.0.0": false, "::": false, "localhost.example.com": false, "127.0.0.1.example.com": false,
	} {
		if got := Contains(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
}

// TestDial tests the addresses that are dialed, and that the first one that accepts wins.
func TestDial(t *testing.T) {
	t.Parallel()
	errRefused, errNoIPv6 := errors.New("refused"), errors.New("no IPv6")
	for _, test := range []struct {
		name, address string
		errs          []error // of the attempts
		dialed        []string
		err           error
	}{
		{"first address", "localhost:8080", []error{nil}, []string{"127.0.0.1:8080"}, nil},
		{"second address", "LocalHost:8080", []error{errRefused, nil}, []string{"127.0.0.1:8080", "[::1]:8080"}, nil},
		{"error of the first address", "localhost:8080", []error{errRefused, errNoIPv6}, []string{"127.0.0.1:8080", "[::1]:8080"}, errRefused},
		{"address", "10.0.0.7:8080", []error{errRefused}, []string{"10.0.0.7:8080"}, errRefused},
		{"other name", "localhost.example.com:8080", []error{nil}, []string{"localhost.example.com:8080"}, nil},
		{"without a port", "localhost", []error{errRefused}, []string{"localhost"}, errRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var dialed []string
			dial := Dial(func(_ context.Context, _, address string) (net.Conn, error) {
				dialed = append(dialed, address)
				return nil, test.errs[len(dialed)-1]
			})
			if _, err := dial(t.Context(), "tcp", test.address); !errors.Is(err, test.err) || !slices.Equal(dialed, test.dialed) {
				t.Errorf("dialed %v, error %v", dialed, err)
			}
		})
	}
}

// TestDialCanceled tests that a canceled dial is not repeated.
func TestDialCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	attempts := 0
	_, err := Dial(func(ctx context.Context, _, _ string) (net.Conn, error) {
		attempts++
		cancel()
		return nil, ctx.Err()
	})(ctx, "tcp", "localhost:8080")
	if attempts != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d attempts, error %v", attempts, err)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"localhost:8080": "127.0.0.1:8080", "LOCALHOST:0": "127.0.0.1:0",
		":8080": ":8080", "0.0.0.0:8080": "0.0.0.0:8080", "[::1]:8080": "[::1]:8080", "connector.example.com:8080": "connector.example.com:8080", "8080": "8080",
	} {
		if got := Listen(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
