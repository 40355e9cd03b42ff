package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"adconnector/internal/sandbox/gatewayserver"
)

// tally is what a gateway process says of itself, one line of JSON each time it
// gets a line.
type tally struct {
	Address                 string
	Requests, Users, Groups int
}

// customer is whom a gateway process serves.
type customer struct{ Customer, Connection, Profile, Username, Password string }

// serveGateway is the gateway's process: it serves until its input ends. It checks
// little, so that the connector's time is not that of the checking.
func serveGateway(customerFile string) error {
	var c customer
	if err := readJSON(customerFile, &c); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	gateway := gatewayserver.New(gatewayserver.Options{
		CustomerUUID: c.Customer, ConnectionUUID: c.Connection, ProfileUUID: c.Profile,
		Username: c.Username, Password: c.Password, Trust: true,
	})
	server := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(tally{Address: listener.Addr().String()}); err != nil {
		return err
	}
	for questions := bufio.NewScanner(os.Stdin); questions.Scan(); {
		t := tally{Users: len(gateway.Users()), Groups: len(gateway.Groups())}
		for _, n := range gateway.Counts() {
			t.Requests += n
		}
		if err := answers.Encode(t); err != nil {
			return err
		}
	}
	closing := server.Close()
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return closing
}

// gateway is a gateway process, as the bench sees it.
type gateway struct {
	customer customer
	address  string
	process  *exec.Cmd
	ask      io.WriteCloser
	answers  *json.Decoder
}

// startGateway starts an empty one.
func startGateway(ctx context.Context, dir string) (*gateway, error) {
	g := &gateway{customer: customer{
		Customer: uuid.NewString(), Connection: uuid.NewString(), Profile: uuid.NewString(),
		Username: "bench", Password: rand.Text(),
	}}
	customerFile := filepath.Join(dir, "customer.json")
	if err := writeJSON(customerFile, g.customer); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g.process = exec.CommandContext(ctx, self, gatewayProcess, customerFile)
	g.process.Stderr = os.Stderr
	if g.ask, err = g.process.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := g.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	g.answers = json.NewDecoder(output)
	if err := g.process.Start(); err != nil {
		return nil, err
	}
	var first tally
	if err := g.answers.Decode(&first); err != nil {
		return nil, errors.Join(fmt.Errorf("the gateway did not start: %w", err), g.stop())
	}
	g.address = first.Address
	return g, nil
}

func (g *gateway) tally() (tally, error) {
	var t tally
	if _, err := io.WriteString(g.ask, "\n"); err != nil {
		return t, fmt.Errorf("ask the gateway: %w", err)
	}
	if err := g.answers.Decode(&t); err != nil {
		return t, fmt.Errorf("the gateway's answer: %w", err)
	}
	return t, nil
}

func (g *gateway) stop() error {
	return errors.Join(g.ask.Close(), g.process.Wait())
}

func readJSON(path string, to any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, to)
}

// writeJSON writes a file that only this user can read: it may hold a password.
func writeJSON(path string, from any) error {
	content, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}
