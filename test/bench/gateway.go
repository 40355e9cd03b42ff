package main

import (
	"bufio"
	"bytes"
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
	"sync"
	"time"

	"github.com/google/uuid"

	"adconnector/internal/sandbox/gatewayserver"
)

// gatewayStats is one line of a gateway process's output. The process writes one at its start
// and one for each line of input.
type gatewayStats struct {
	Address                 string
	Requests, Users, Groups int
}

// gatewayAccount is the identity of the connector at a gateway process.
type gatewayAccount struct{ CustomerUUID, ConnectionUUID, ProfileUUID, Username, Password string }

// serveGateway runs in the gateway process. It serves until its input ends. It checks few
// rules of the contract, so that checks do not slow the connector down.
func serveGateway(accountFile string) error {
	var a gatewayAccount
	if err := readJSON(accountFile, &a); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	sink := assetSink{users: map[string]bool{}, groups: map[string]bool{}}
	gateway := gatewayserver.New(gatewayserver.Options{
		CustomerUUID: a.CustomerUUID, ConnectionUUID: a.ConnectionUUID, ProfileUUID: a.ProfileUUID,
		Username: a.Username, Password: a.Password, Intercept: sink.intercept,
	})
	server := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	output := json.NewEncoder(os.Stdout)
	if err := output.Encode(gatewayStats{Address: listener.Addr().String()}); err != nil {
		return err
	}
	for requests := bufio.NewScanner(os.Stdin); requests.Scan(); {
		stats := sink.stats()
		for _, n := range gateway.Counts() {
			stats.Requests += n
		}
		if err := output.Encode(stats); err != nil {
			return err
		}
	}
	closeErr := server.Close()
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return closeErr
}

// assetSink answers asset requests without a check of the contract, because checks would
// slow the connector down. It records which objects it received.
type assetSink struct {
	mu            sync.Mutex
	users, groups map[string]bool // by vendorAssetId
}

func (s *assetSink) intercept(w http.ResponseWriter, _ *http.Request, body []byte) bool {
	const key = `"vendorAssetId":"` // quotation marks within a JSON string are escaped
	_, rest, ok := bytes.Cut(body, []byte(key))
	if !ok {
		return false // a login, or the connector's state
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ok {
		var item []byte
		item, rest, ok = bytes.Cut(rest, []byte(key))
		id, _, _ := bytes.Cut(item, []byte{'"'})
		if bytes.Contains(item, []byte(`"groupAssetClass":{`)) {
			s.groups[string(id)] = true
		} else {
			s.users[string(id)] = true
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"message":"published","responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{}}`)
	return true
}

func (s *assetSink) stats() gatewayStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return gatewayStats{Users: len(s.users), Groups: len(s.groups)}
}

// gateway controls a gateway process.
type gateway struct {
	account gatewayAccount
	address string
	process *exec.Cmd
	input   io.WriteCloser
	output  *json.Decoder
}

// startGateway starts an empty gateway.
func startGateway(ctx context.Context, dir string) (*gateway, error) {
	g := &gateway{account: gatewayAccount{
		CustomerUUID: uuid.NewString(), ConnectionUUID: uuid.NewString(), ProfileUUID: uuid.NewString(),
		Username: "bench", Password: rand.Text(),
	}}
	accountFile := filepath.Join(dir, "account.json")
	if err := writeJSON(accountFile, g.account); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g.process = exec.CommandContext(ctx, self, gatewayProcess, accountFile)
	g.process.Stderr = os.Stderr
	if g.input, err = g.process.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := g.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	g.output = json.NewDecoder(stdout)
	if err := g.process.Start(); err != nil {
		return nil, err
	}
	var first gatewayStats
	if err := g.output.Decode(&first); err != nil {
		return nil, errors.Join(fmt.Errorf("start gateway: %w", err), g.stop())
	}
	g.address = first.Address
	return g, nil
}

// stats returns the current counts of the gateway.
func (g *gateway) stats() (gatewayStats, error) {
	var stats gatewayStats
	if _, err := io.WriteString(g.input, "\n"); err != nil {
		return stats, fmt.Errorf("request gateway stats: %w", err)
	}
	if err := g.output.Decode(&stats); err != nil {
		return stats, fmt.Errorf("read gateway stats: %w", err)
	}
	return stats, nil
}

func (g *gateway) stop() error {
	return errors.Join(g.input.Close(), g.process.Wait())
}

func readJSON(path string, value any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, value)
}

// writeJSON writes a file that only this user can read, because it may contain a password.
func writeJSON(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}
