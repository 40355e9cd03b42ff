package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/syncrun"
)

// certificateWarning is the remaining validity below which a certificate has a warning.
const certificateWarning = 30 * 24 * time.Hour

// connect connects to every server, not only to the first.
func (p *preflight) connect(ctx context.Context) Check {
	if p.directory == nil {
		return skipped("no connection settings")
	}
	var err error
	if p.probes, err = directory.Probe(ctx, *p.directory); err != nil {
		return failed(err, "")
	}
	for n := range p.probes {
		p.probes[n].Err = asTransient(ctx, p.probes[n].Err)
	}
	var reachable, unreachable []string
	var firstFailed directory.ProbeResult
	for _, c := range p.probes {
		if c.Connected {
			reachable = append(reachable, c.Address)
			continue
		}
		unreachable = append(unreachable, c.Err.Error())
		if firstFailed.Err == nil {
			firstFailed = c
		}
	}
	switch {
	case len(reachable) == 0:
		return Check{Result: Fail, Found: strings.Join(unreachable, "; "), Remedy: p.connectRemedy(firstFailed), err: firstFailed.Err}
	case len(unreachable) > 0:
		return warn(fmt.Sprintf("%s reachable, but not: %s", strings.Join(reachable, ", "), strings.Join(unreachable, "; ")), p.connectRemedy(firstFailed))
	}
	return ok("%s reachable", strings.Join(reachable, ", "))
}

// connectRemedy returns the remedy for an unreachable server.
func (p *preflight) connectRemedy(c directory.ProbeResult) string {
	if _, ok := errors.AsType[*net.DNSError](c.Err); ok {
		return fmt.Sprintf("correct %s or the DNS of this host", p.setting("ldap.host", "the connection's host"))
	}
	return fmt.Sprintf("open TCP port %d to %s from this host, and check %s", c.Port, c.Host, p.setting("ldap.host and ldap.port", "the connection's host and port"))
}

// tls checks the encryption and the certificates of the servers.
func (p *preflight) tls(context.Context) Check {
	if p.directory == nil {
		return skipped("no connection settings")
	}
	if p.directory.Protocol == directory.LDAP || p.directory.Protocol == "" {
		return warn("none: the password and all data are sent in plain text, which new domain controllers refuse", fmt.Sprintf(
			"use LDAPS (port 636) or STARTTLS: set %s, and set %s to the certificate of the server or its issuer",
			p.setting("ldap.protocol", "the connection's type"), p.setting("ldap.certificate", "the connection's certificate")))
	}
	var trusted []directory.ProbeResult
	var untrusted []string
	var first error
	for _, c := range p.probes {
		switch {
		case c.Connected && c.Err == nil:
			trusted = append(trusted, c)
		case c.Connected:
			untrusted = append(untrusted, c.Err.Error())
			if first == nil {
				first = c.Err
			}
		}
	}
	switch {
	case len(trusted) == 0 && first == nil:
		return skipped("no reachable server")
	case len(trusted) == 0:
		return failed(first, "check the server's certificate")
	case len(untrusted) > 0:
		return warn(fmt.Sprintf("%s is trusted, but not: %s", trusted[0].Address, strings.Join(untrusted, "; ")), fault.Remedy(first))
	}
	var found []string
	for _, c := range trusted {
		text, remedy := p.checkExpiry(c)
		if remedy != "" {
			return warn(text, remedy)
		}
		found = append(found, text)
	}
	return ok("%s", strings.Join(found, "; "))
}

// checkExpiry describes the certificate of a server. The remedy is empty if the certificate is
// valid for long enough.
func (p *preflight) checkExpiry(c directory.ProbeResult) (found, remedy string) {
	trust := "issuer trusted"
	if c.Pinned {
		trust = "as configured"
	}
	remaining := c.Certificate.NotAfter.Sub(p.now())
	validity := fmt.Sprintf("valid until %s", day(c.Certificate.NotAfter))
	const renew = "renew the domain controller's certificate"
	switch {
	case remaining <= 0:
		validity = fmt.Sprintf("expired on %s", day(c.Certificate.NotAfter))
		remedy = renew
	case remaining < certificateWarning:
		validity = fmt.Sprintf("expires in %s, on %s", distance(remaining), day(c.Certificate.NotAfter))
		remedy = renew
	}
	if remedy != "" && c.Pinned {
		remedy += ", and give the new one, or better its issuer's, as " + p.setting("ldap.certificate", "the connection's certificate")
	}
	found = fmt.Sprintf("%s at %s: certificate (%s), %s, %s", tls.VersionName(c.TLSVersion), c.Address, directory.CertificateNames(c.Certificate), trust, validity)
	if remedy != "" {
		return found, remedy
	}
	for _, issuer := range p.directory.Certificates {
		remaining := issuer.NotAfter.Sub(p.now())
		if remaining < certificateWarning && !c.Pinned && c.Certificate.CheckSignatureFrom(issuer) == nil {
			return fmt.Sprintf("%s; its issuer's certificate expires in %s", found, distance(remaining)), "renew the issuer's certificate, and configure the new one"
		}
	}
	return found, ""
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// bind binds once, at one server: each refused bind counts toward the account lockout.
func (p *preflight) bind(ctx context.Context) Check {
	usable := false
	for _, c := range p.probes {
		usable = usable || c.Err == nil
	}
	if !usable {
		return skipped("no usable server")
	}
	session, err := directory.Connect(ctx, *p.directory)
	if err != nil {
		return failed(asTransient(ctx, err), "check ldap.bindDn and ldap.password, or the connection in the console")
	}
	p.session = session
	return ok("%s as %s", session.Address, p.directory.BindDN)
}

// controller describes the domain controller that the session uses.
func (p *preflight) controller(ctx context.Context) Check {
	if p.session == nil {
		return skipped("not bound")
	}
	root := p.session.RootDSE
	found := cmp.Or(root.DNSHostName, "server without a name") + " at " + p.session.Controller.Address
	if n := len(p.probes); n > 1 {
		found += fmt.Sprintf(", one of %d servers", n)
	}
	switch err := p.session.InvocationErr; {
	case root.LDS:
		return warn(found+" is AD LDS: it has no domain accounts, and attributes of a domain are missing", "connect to a domain controller")
	case !root.IsDomainController():
		return ok("%s, not a domain controller", found)
	case root.ReadOnly:
		if _, err := syncrun.ReadFiltered(ctx, p.session, p.profile != nil && p.profile.Posture); err != nil {
			return failed(asTransient(ctx, err), "try again")
		}
		return warn(found+" is read-only: the attributes of the filtered attribute set are missing; none of them is sent", syncrun.WritableRemedy)
	case err != nil:
		return warn(found+": "+err.Error()+": each run is a full sync, and absent objects are not deleted", fault.Remedy(err))
	}
	return ok("%s", found)
}

// baseContext checks that the base context exists.
func (p *preflight) baseContext(ctx context.Context) Check {
	switch {
	case p.session == nil:
		return skipped("not bound")
	case p.profile == nil:
		return skipped("no profile")
	}
	found, err := p.session.Read(ctx, p.profile.Base, "objectClass")
	if err != nil {
		remedy := "correct " + p.setting("profile.baseContext", "the profile's base context")
		if errors.Is(err, directory.ErrOtherDomain) {
			remedy += fmt.Sprintf(" (the domain of this server is %s), or connect to a domain controller of its domain", p.session.RootDSE.DefaultNamingContext)
			err = fault.Operation{Object: "base context"}.Failed(fault.Refused, err, remedy)
		}
		return failed(asTransient(ctx, err), remedy)
	}
	p.baseFound = true
	kind := "object of a class that the account cannot read"
	if classes := found["objectClass"]; len(classes) > 0 {
		kind = string(classes[len(classes)-1]) // the most specific class is the last (MS-ADTS 3.1.1.4.5.1)
	}
	root := p.session.RootDSE.DefaultNamingContext
	if in, ok := directory.InScope(p.profile.Base, root, directory.Subtree); ok && !in {
		return warn(fmt.Sprintf("%s (%s) is not in the server's domain %s: only full syncs find deletions", p.profile.Base, kind, root),
			"connect to a domain controller of that domain")
	}
	return ok("%s (%s)", p.profile.Base, kind)
}
