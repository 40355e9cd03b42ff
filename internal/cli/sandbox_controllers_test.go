package cli

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"encoding/json"
)

// requireAddresses skips a test on a machine whose loopback interface has one address.
func requireAddresses(t *testing.T) {
	t.Helper()
	listener, err := openPort("127.0.0.2:0")
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Skip("127.0.0.2 is not available:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
}

// TestListenEach tests that a free port is free on all addresses.
func TestListenEach(t *testing.T) {
	t.Parallel()
	requireAddresses(t)
	busy := 3 // attempts
	open := func(address string) (net.Listener, error) {
		if strings.HasPrefix(address, "127.0.0.2:") && busy > 0 {
			busy--
			return nil, syscall.EADDRINUSE
		}
		return openPort(address)
	}
	listeners, err := listenEach(open, "--ldap", "127.0.0.1:0", 2)
	if err != nil {
		t.Fatal(err)
	}
	var hosts, ports []string
	for _, listener := range listeners {
		defer listener.Close()
		host, port, _ := net.SplitHostPort(listener.Addr().String())
		hosts, ports = append(hosts, host), append(ports, port)
	}
	if !slices.Equal(hosts, []string{"127.0.0.1", "127.0.0.2"}) || ports[0] != ports[1] || busy != 0 {
		t.Errorf("hosts %q, ports %q", hosts, ports)
	}
	busy = 2 * portAttempts
	if _, err := listenEach(open, "--ldap", "127.0.0.1:0", 2); err == nil || busy != portAttempts {
		t.Errorf("error %v, %d attempts", err, 2*portAttempts-busy)
	}
}

// TestSandboxControllers tests that a connector with the env file of a sandbox of two controllers
// sends logons at the second one, and that it does not without the setting.
func TestSandboxControllers(t *testing.T) {
	t.Parallel()
	requireAddresses(t)
	dir := t.TempDir()
	file, replicated := filepath.Join(dir, "sandbox.env"), filepath.Join(dir, "replicated.env")
	settings := "sync.last-logon=REPLICATED\nservice.state-dir=" + filepath.Join(dir, "replicated") + "\n"
	if err := os.WriteFile(replicated, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, nil, "sandbox", "--controllers", "2", "--users", "60", "--groups", "5", "--gateway", "127.0.0.1:0", "--ldap", "127.0.0.1:0", "--ldaps", "127.0.0.1:0", "--env-out", file)
	text := c.AwaitStdout(t, "directory  ldaps://127.0.0.2:")
	if n := strings.Count(text, "directory  "); n != 4 {
		t.Errorf("%d directories: %s", n, text)
	}
	inventory := regexp.MustCompile(`(?m)^inventory  (\S+)$`).FindStringSubmatch(text)
	if inventory == nil {
		t.Fatalf("no inventory: %s", text)
	}
	without := invoke(t, nil, "sync", "--env-file", file, "--env-file", replicated)
	before := lastLogons(t, inventory[1])
	with := invoke(t, nil, "sync", "--env-file", file)
	after := lastLogons(t, inventory[1])
	if without.Code != exitDone || with.Code != exitDone || len(with.Errors()) > 0 {
		t.Errorf("%+v, %+v", without, with)
	}
	later := 0 // with the connector's own account, whose binds are logons
	for guid, last := range after {
		switch {
		case last < before[guid]:
			t.Errorf("%s: last logon %s, before %s", guid, last, before[guid])
		case last > before[guid]:
			later++
		}
	}
	if later < 10 || later > len(after)-10 {
		t.Errorf("%d of %d users have a later logon", later, len(after))
	}
	c.Signal(t, syscall.SIGTERM)
	requireExit(t, c, exitDone)
}

// lastLogons returns the last logon of each user in an inventory.
func lastLogons(t *testing.T, url string) map[string]string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var users struct {
		Items []struct {
			Asset struct {
				AssetHeader struct{ VendorAssetID string }
				AssetDetail struct {
					UserAssetClass struct{ LastSuccessfulLoginAt string }
				}
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&users); err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	for _, user := range users.Items {
		last[user.Asset.AssetHeader.VendorAssetID] = user.Asset.AssetDetail.UserAssetClass.LastSuccessfulLoginAt
	}
	return last
}
