package syncrun

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"

	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
)

// proxy is a proxy between the connector and domain controllers. Connections are numbered
// from 1. The zero value forwards everything to the directory in use when it starts.
type proxy struct {
	// controller returns the port to which a connection leads; nil: always that of the directory.
	// The proxy closes a connection that leads to port 0.
	controller func(connection int) int
	// request returns what the proxy does with a request; nil: it forwards all.
	request func(connection int, request string) action
}

// action is what a proxy does with a request. The zero value closes the connection.
type action struct {
	forward string // sent to the controller
	result  int    // of a search that the proxy answers itself; 0: none
}

// start starts the proxy and returns its port.
func (p proxy) start(e *env) int {
	e.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	e.must(err)
	if p.controller == nil {
		port := e.auth.Port
		p.controller = func(int) int { return port }
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for n := 1; ; n++ {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.serve(e.t, &serving, client, n)
		}
	})
	e.t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return testenv.PortOf(listener)
}

// serve starts to forward a connection.
func (p proxy) serve(t *testing.T, serving *sync.WaitGroup, client net.Conn, n int) {
	controller, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.controller(n))))
	if err != nil {
		client.Close()
		return
	}
	stop := func() { client.Close(); controller.Close() }
	context.AfterFunc(t.Context(), stop)
	serving.Go(func() {
		defer stop()
		_, _ = io.Copy(client, controller)
	})
	serving.Go(func() {
		defer stop()
		for {
			packet, err := ber.ReadPacket(client)
			if err != nil {
				return
			}
			do := action{forward: string(packet.Bytes())}
			if p.request != nil {
				do = p.request(n, do.forward)
			}
			switch {
			case do.result != 0:
				id, _ := packet.Children[0].Value.(int64)
				_, err = client.Write(fakeldap.Done(id, do.result))
			case do.forward != "":
				_, err = io.WriteString(controller, do.forward)
			default:
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// connectThrough makes later runs connect through a proxy.
func (e *env) connectThrough(p proxy) {
	e.t.Helper()
	e.connectTo(p.start(e))
	e.start()
}

// replaceInRequests makes later runs connect through a proxy that replaces a word in each
// request with another one of the same length.
func (e *env) replaceInRequests(word, with string) {
	e.t.Helper()
	e.connectThrough(proxy{request: replaceWord(e.t, word, with)})
}

// replaceWord returns a function for a proxy that replaces a word in each request with another
// one of the same length.
func replaceWord(t *testing.T, word, with string) func(int, string) action {
	t.Helper()
	if len(word) != len(with) {
		t.Fatal("the words differ in length")
	}
	return func(_ int, request string) action { return action{forward: strings.ReplaceAll(request, word, with)} }
}
