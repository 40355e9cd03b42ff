package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
)

// globalCatalog holds whether a port is one of the global catalog's (MS-ADTS 6.1.1.3).
var globalCatalog = map[int]bool{3268: true, 3269: true}

var errNoHost = errors.New("no directory host is given")

// expiresSoon is how long before its end a certificate is worth a word.
const expiresSoon = 30 * 24 * time.Hour

// reach looks whether the network lets through to every server, not only to the first.
func (i *inspection) reach(ctx context.Context) Check {
	if i.directory == nil {
		return skipped("there is no connection")
	}
	i.contacts = directory.Probe(ctx, *i.directory)
	for n := range i.contacts {
		i.contacts[n].Err = deadline(ctx, i.contacts[n].Err)
	}
	if len(i.contacts) == 0 {
		return failed(fault.Operation{}.Failed(fault.Refused, errNoHost, "set "+i.setting("ldap.host", "the connection's host")), "")
	}
	var there, away []string
	var lost directory.ProbeResult // the first one
	var first error                // of it
	for _, c := range i.contacts {
		if c.Connected {
			there = append(there, c.Address)
			continue
		}
		away = append(away, c.Err.Error())
		if first == nil {
			lost, first = c, c.Err
		}
	}
	switch {
	case len(there) == 0:
		return Check{Result: Fail, Found: strings.Join(away, "; "), Remedy: i.wayTo(lost, first), err: first}
	case len(away) > 0:
		return warn(fmt.Sprintf("%s can be reached, but not: %s", strings.Join(there, ", "), strings.Join(away, "; ")), i.wayTo(lost, first))
	case globalCatalog[i.contacts[0].Port]:
		return warn(there[0]+" is a port of the global catalog, which holds only some of the attributes",
			"set "+i.setting("ldap.port", "the connection's port")+" to 389, or to 636 for LDAPS")
	}
	return ok("%s can be reached", strings.Join(there, ", "))
}

// wayTo says how to make a server reachable.
func (i *inspection) wayTo(c directory.ProbeResult, err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Sprintf("correct %s, or this machine's DNS", i.setting("ldap.host", "the connection's host"))
	}
	return fmt.Sprintf("open TCP port %d to %s from this machine, and check %s", c.Port, c.Host, i.setting("ldap.host and ldap.port", "the connection's host and port"))
}

// tls judges how the way to the servers is protected.
func (i *inspection) tls(context.Context) Check {
	if i.directory == nil {
		return skipped("there is no connection")
	}
	if i.directory.Protocol == directory.LDAP || i.directory.Protocol == "" {
		return warn("none: the password and all data cross the network in the clear, and new domain controllers refuse that", fmt.Sprintf(
			"use LDAPS (port 636) or STARTTLS: set %s, and give the server's or its issuer's certificate as %s",
			i.setting("ldap.protocol", "the connection's type"), i.setting("ldap.certificate", "the connection's certificate")))
	}
	var good []directory.ProbeResult
	var bad []string
	var first error
	for _, c := range i.contacts {
		switch {
		case c.Connected && c.Err == nil:
			good = append(good, c)
		case c.Connected:
			bad = append(bad, c.Err.Error())
			if first == nil {
				first = c.Err
			}
		}
	}
	switch {
	case len(good) == 0 && first == nil:
		return skipped("no server can be reached")
	case len(good) == 0:
		return failed(first, "check the server's certificate")
	case len(bad) > 0:
		return warn(fmt.Sprintf("%s is trusted, but not: %s", good[0].Address, strings.Join(bad, "; ")), fault.Remedy(first))
	}
	var found []string
	for _, c := range good {
		text, remedy := i.expiry(c)
		if remedy != "" {
			return warn(text, remedy)
		}
		found = append(found, text)
	}
	return ok("%s", strings.Join(found, "; "))
}

// expiry says what a server presents and until when; the remedy is "" when that is
// long enough.
func (i *inspection) expiry(c directory.ProbeResult) (found, remedy string) {
	trusted := "whose issuer is trusted"
	if c.Pinned {
		trusted = "which is the given one"
	}
	left := c.Certificate.NotAfter.Sub(i.now())
	until := fmt.Sprintf("is good until %s", day(c.Certificate.NotAfter))
	const renew = "renew the domain controller's certificate"
	switch {
	case left <= 0:
		until = fmt.Sprintf("has expired on %s", day(c.Certificate.NotAfter))
		remedy = renew
	case left < expiresSoon:
		until = fmt.Sprintf("expires in %s, on %s", days(left), day(c.Certificate.NotAfter))
		remedy = renew
	}
	if remedy != "" && c.Pinned {
		remedy += ", and give the new one, or better its issuer's, as " + i.setting("ldap.certificate", "the connection's certificate")
	}
	found = fmt.Sprintf("%s at %s: the certificate (%s), %s, %s", tls.VersionName(c.TLSVersion), c.Address, directory.CertificateNames(c.Certificate), trusted, until)
	if remedy != "" {
		return found, remedy
	}
	for _, given := range i.directory.Certificates {
		if left := given.NotAfter.Sub(i.now()); left < expiresSoon && !c.Pinned && isIssuer(given, c.Certificate) {
			return fmt.Sprintf("%s; its issuer's certificate expires in %s", found, days(left)), "have the issuer's certificate renewed, and give the new one"
		}
	}
	return found, ""
}

func isIssuer(given, of *x509.Certificate) bool { return of.CheckSignatureFrom(given) == nil }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// days counts them in words.
func days(d time.Duration) string {
	n := int(d.Hours() / 24)
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}

// bind is tried once, at one server: each refused bind brings a lockout nearer.
func (i *inspection) bind(ctx context.Context) Check {
	usable := false
	for _, c := range i.contacts {
		usable = usable || c.Err == nil
	}
	if !usable {
		return skipped("no server can be used")
	}
	session, err := directory.Connect(ctx, *i.directory)
	if err != nil {
		return failed(deadline(ctx, err), "check ldap.bindDn and ldap.password, or the connection in the console")
	}
	i.session = session
	return ok("%s as %s", session.Address, i.directory.BindDN)
}

// baseContext looks whether there is what would be searched.
func (i *inspection) baseContext(ctx context.Context) Check {
	switch {
	case i.session == nil:
		return skipped("there is no bind")
	case i.part == nil:
		return skipped("there is no profile")
	}
	found, err := i.session.Read(ctx, i.part.Base, "objectClass")
	if err != nil {
		return failed(deadline(ctx, err), "correct "+i.setting("profile.baseContext", "the profile's base context"))
	}
	i.baseSeen = true
	kind := "an object of a class that the account may not read"
	if classes := found["objectClass"]; len(classes) > 0 {
		kind = string(classes[len(classes)-1]) // the most special one stands last (MS-ADTS 3.1.1.4.5.1)
	}
	root := i.session.RootDSE.DefaultNamingContext
	if root != "" && !isBelow(i.part.Base, root) {
		return warn(fmt.Sprintf("%s (%s) is not in the server's domain %s: deletions show at full passes only", i.part.Base, kind, root),
			"connect to a domain controller of that domain")
	}
	return ok("%s (%s)", i.part.Base, kind)
}

// isBelow reports whether a name ends in another one, as they are mostly written.
func isBelow(dn, root string) bool {
	plain := func(dn string) string {
		parts := strings.Split(strings.ToLower(dn), ",")
		for n := range parts {
			parts[n] = strings.TrimSpace(parts[n])
		}
		return "," + strings.Join(parts, ",")
	}
	return strings.HasSuffix(plain(dn), plain(root))
}
