package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/syncrun"
)

const dialTimeout = 10 * time.Second

// proxy only checks that the proxy accepts connections. Whether it accepts the account, the
// login shows.
func (i *inspection) proxy(ctx context.Context) Check {
	if i.ProxyAddress == "" {
		return ok("none: the gateway is reached directly")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", i.ProxyAddress)
	if err != nil {
		i.noProxy = true
		remedy := fmt.Sprintf("open TCP port %s to %s from this machine, and check proxy.host and proxy.port", portOf(i.ProxyAddress), hostOf(i.ProxyAddress))
		return failed(fault.Operation{Op: "connect to", Object: "proxy " + i.ProxyAddress}.Failed(fault.Transient, err, remedy), "")
	}
	conn.Close()
	return ok("%s takes connections", i.ProxyAddress)
}

func (i *inspection) login(ctx context.Context) Check {
	if i.noProxy {
		i.noLogin = true
		return skipped("the proxy cannot be reached")
	}
	err := deadline(ctx, i.Gateway.Login(ctx))
	if err == nil {
		return ok("%s takes the account", i.GatewayAddress)
	}
	i.noLogin = true
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" && i.ProxyAddress == "" {
		return failedFor(err, fmt.Sprintf("open TCP port %s to %s from this machine, or set proxy.enabled, proxy.host and proxy.port, and check connector.api.url",
			portOf(i.GatewayAddress), hostOf(i.GatewayAddress)))
	}
	return failed(err, "check connector.api.url, and try again")
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// documents reads the connection and the profile, the second even when the first
// cannot be had.
func (i *inspection) documents(ctx context.Context) Check {
	if i.Source != nil {
		options := i.Search.ApplyTo(i.Source.Directory)
		i.directory, i.part = &options, i.Source
		return ok("from the environment: %s", i.describe())
	}
	if i.noLogin {
		return skipped("they come from the gateway, to which there is no login")
	}
	const again = "try again when the gateway takes calls"
	unconnected := i.readConnection(ctx)
	unprofiled := i.readProfile(ctx)
	if unconnected != nil && unprofiled != nil {
		first, second := failed(unconnected, again), failed(unprofiled, again)
		first.Found += "; " + second.Found
		if second.Remedy != first.Remedy {
			first.Remedy += "; " + second.Remedy
		}
		return first
	}
	if err := errors.Join(unconnected, unprofiled); err != nil {
		return failed(err, again)
	}
	return ok("from the gateway: %s", i.describe())
}

func (i *inspection) readConnection(ctx context.Context) error {
	connection, err := i.Gateway.Connection(ctx)
	if err != nil {
		return deadline(ctx, err)
	}
	options, err := syncrun.DirectoryOptions(connection)
	if err != nil {
		return err
	}
	options = i.Search.ApplyTo(options)
	i.directory = &options
	return nil
}

func (i *inspection) readProfile(ctx context.Context) error {
	profile, err := i.Gateway.Profile(ctx)
	if err != nil {
		return deadline(ctx, err)
	}
	part, err := syncrun.SourceFromProfile(profile)
	if err != nil {
		return err
	}
	i.part = &part
	return nil
}

// describe says where would be read, and what.
func (i *inspection) describe() string {
	protocol := i.directory.Protocol
	if protocol == "" {
		protocol = directory.LDAP
	}
	assets := "identities only"
	if i.part.Posture {
		assets = "identities with security posture"
	}
	return fmt.Sprintf("%s to %s, %s of %s, %s", protocol, strings.Join(i.directory.Hosts, ", "), i.part.Scope, i.part.Base, assets)
}
