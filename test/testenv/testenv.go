// Package testenv is the environment of integration tests: a domain controller, a gateway
// and the settings for them. Both listen on loopback until the test ends.
package testenv

import (
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
)

// The identifiers of every environment.
const (
	CustomerUUID   = "3e8c2a51-0d0e-4bb7-9f0a-5f1f4e8d2a01"
	ConnectionUUID = "3e8c2a51-0d0e-4bb7-9f0a-5f1f4e8d2a02"
	ProfileUUID    = "3e8c2a51-0d0e-4bb7-9f0a-5f1f4e8d2a03"
)

// Paths of requests to the gateway.
const (
	AssetsPath     = "/rest/2.0/am/connector/asset/data/sync"
	ConnectionPath = "/rest/2.0/am/connector/connection/" + ConnectionUUID
	ProfilePath    = "/rest/2.0/am/connector/profile/" + ProfileUUID
	StatePath      = ConnectionPath + "/state"
	LoginPath      = "/auth"
)

// Settings are the lines of an env file, by key.
type Settings map[string]string

// With returns a copy with other settings added or replaced. An empty value removes a key.
func (s Settings) With(others Settings) Settings {
	all := maps.Clone(s)
	maps.Copy(all, others)
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// Environ returns the settings as the lines of a process environment, sorted.
func (s Settings) Environ() []string {
	lines := make([]string, 0, len(s))
	for key, value := range s {
		lines = append(lines, key+"="+value)
	}
	slices.Sort(lines)
	return lines
}

// Environment is a domain controller, a gateway and a state directory.
type Environment struct {
	*Directory
	Gateway  *Gateway
	StateDir string // does not exist yet
}

// Options describe an environment. Zero values are the defaults.
type Options struct {
	Directory domaincontroller.Options
	Gateway   gatewayserver.Options
	TLS       bool // the gateway listens for HTTPS
}

// New starts an environment.
func New(t testing.TB, o Options) *Environment {
	t.Helper()
	e := &Environment{Directory: NewDirectory(t, o.Directory), StateDir: filepath.Join(t.TempDir(), "state")}
	e.Gateway = NewGateway(t, GatewayOptions{Options: o.Gateway, TLS: o.TLS})
	return e
}

// Settings returns the settings for the whole domain over LDAP, without a schedule and with
// the admin endpoint off.
func (e *Environment) Settings() Settings {
	return e.Gateway.Settings().With(e.Directory.Settings()).With(Settings{
		"service.state-dir": e.StateDir, "service.admin.address": "off",
	})
}

// Console sets the connection and the profile in the console: a protocol, and the base DN.
func (e *Environment) Console(protocol, base string) {
	connection := gatewayserver.Connection{ConnectionUUID: ConnectionUUID, Name: "test", Authentication: e.Authentication(protocol)}
	e.Gateway.SetConnection(&connection)
	e.Gateway.SetProfile(&gateway.Profile{
		ProfileUUID: ProfileUUID, Name: "test", BaseContext: base, SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY",
	})
}

// Clock is a clock that only Advance changes.
type Clock struct {
	mu sync.Mutex
	at time.Time
}

// NewClock returns a clock with a start time.
func NewClock(at time.Time) *Clock { return &Clock{at: at} }

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}
