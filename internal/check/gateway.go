package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/loopback"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

const dialTimeout = 10 * time.Second

// proxy checks that the proxy accepts connections. The login check includes its credentials.
func (p *preflight) proxy(ctx context.Context) Check {
	if p.ProxyAddress == "" {
		return ok("none: direct connection to the gateway")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := loopback.Dial(dialer.DialContext)(ctx, "tcp", p.ProxyAddress)
	if err != nil {
		p.proxyFailed = true
		host, port, _ := net.SplitHostPort(p.ProxyAddress)
		remedy := fmt.Sprintf("open TCP port %s to %s from this host, and check proxy.host and proxy.port", port, host)
		return failed(fault.Operation{Op: "connect to", Object: "proxy " + p.ProxyAddress}.Failed(fault.Transient, err, remedy), "")
	}
	conn.Close()
	return ok("%s reachable", p.ProxyAddress)
}

func (p *preflight) login(ctx context.Context) Check {
	if p.proxyFailed {
		p.loginFailed = true
		return skipped("proxy not reachable")
	}
	err := asTransient(ctx, p.Gateway.Login(ctx))
	if err == nil {
		return p.loggedIn()
	}
	p.loginFailed = true
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" && p.ProxyAddress == "" {
		host, port, _ := net.SplitHostPort(p.GatewayAddress)
		return failedWithRemedy(err, fmt.Sprintf("open TCP port %s to %s from this host, or set proxy.enabled, proxy.host and proxy.port, and check connector.api.url", port, host))
	}
	return failed(err, "check connector.api.url, and try again")
}

// loggedIn returns the result of a login that the gateway accepted, with the certificate that the
// gateway, or a proxy in its place, has presented.
func (p *preflight) loggedIn() Check {
	found := p.GatewayAddress + " accepted the credentials"
	leaf := p.Gateway.ServerHints().Certificate
	if leaf == nil { // http on loopback
		return ok("%s", found)
	}
	found += fmt.Sprintf("; its certificate (%s), issued by %s, ", directory.CertificateNames(leaf), syncrun.IssuerName(leaf))
	if state.UrgencyOf(leaf.NotAfter, p.now()) == state.NotUrgent {
		return ok("%sis valid until %s", found, day(leaf.NotAfter))
	}
	return warn(fmt.Sprintf("%sexpires in %s, on %s", found, distance(leaf.NotAfter.Sub(p.now())), day(leaf.NotAfter)), syncrun.GatewayCertificateRemedy(leaf))
}

// connectionAndProfile reads the connection and the profile, the profile also after an error of
// the connection.
func (p *preflight) connectionAndProfile(ctx context.Context) Check {
	if p.Source != nil {
		options := p.Search.ApplyTo(p.Source.Directory)
		p.directory, p.profile = &options, p.Source
		return ok("from the settings: %s", p.describe())
	}
	if p.loginFailed {
		return skipped("not logged in to the gateway")
	}
	const retryLater = "try again when the gateway accepts requests"
	connectionErr := p.readConnection(ctx)
	profileErr := p.readProfile(ctx)
	if connectionErr != nil && profileErr != nil {
		first, second := failed(connectionErr, retryLater), failed(profileErr, retryLater)
		first.Found += "; " + second.Found
		if second.Remedy != first.Remedy {
			first.Remedy += "; " + second.Remedy
		}
		return first
	}
	if err := errors.Join(connectionErr, profileErr); err != nil {
		return failed(err, retryLater)
	}
	source := *p.profile
	source.Directory = *p.directory
	if found, remedies := describeFindings(syncrun.ConsoleMistakes(source)); len(found) > 0 {
		return warn("from the gateway: "+p.describe()+"\n"+strings.Join(found, "\n"), strings.Join(remedies, "\n"))
	}
	return ok("from the gateway: %s", p.describe())
}

func (p *preflight) readConnection(ctx context.Context) error {
	connection, err := p.Gateway.Connection(ctx)
	if err != nil {
		return asTransient(ctx, err)
	}
	options, err := syncrun.DirectoryOptions(connection)
	if err != nil {
		return err
	}
	options = p.Search.ApplyTo(options)
	p.directory = &options
	return nil
}

func (p *preflight) readProfile(ctx context.Context) error {
	profile, err := p.Gateway.Profile(ctx)
	if err != nil {
		return asTransient(ctx, err)
	}
	source, err := syncrun.SourceFromProfile(profile)
	if err != nil {
		return err
	}
	p.profile = &source
	return nil
}

// describe returns a description of the source.
func (p *preflight) describe() string {
	protocol := cmp.Or(p.directory.Protocol, directory.LDAP)
	assets := "identities only"
	if p.profile.Posture {
		assets = "identities with security posture"
	}
	return fmt.Sprintf("%s to %s, %s of %s, %s", protocol, strings.Join(p.directory.Hosts, ", "), p.profile.Scope, p.profile.Base, assets)
}
