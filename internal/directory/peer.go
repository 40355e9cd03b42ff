package directory

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
)

var errNoHostName = errors.New("host name not readable by the account")

// FindPDCEmulator marks the controller of a list that is the domain's PDC emulator: the one that the
// head of the domain names in fSMORoleOwner (MS-ADTS 3.1.1.1.11). If the account may not read that,
// none is marked.
func (s *Session) FindPDCEmulator(ctx context.Context, list []DomainController) error {
	values, err := s.Read(ctx, s.RootDSE.DefaultNamingContext, "fSMORoleOwner")
	if err != nil && fault.ClassOf(err) != fault.Refused {
		return err
	}
	owner := string(values.First("fSMORoleOwner"))
	for i := range list {
		list[i].PDCEmulator = owner != "" && strings.EqualFold(list[i].ServiceName, owner)
	}
	return nil
}

// PeerOptions are the options of a session with another controller.
type PeerOptions struct {
	ConnectTimeout  time.Duration // as in Options
	ResponseTimeout time.Duration // as in Options
	// OnRequest replaces that of the session.
	OnRequest func(request string, class fault.Class, duration time.Duration)
}

// Peer is a connection to another controller of a session's domain, without a bind.
type Peer struct {
	session *Session
	want    Controller
}

// OpenPeer connects to another controller of the session's domain, with the protocol, the port and
// the certificates of the session. It fails with ErrDifferentController if the address leads to
// another server. So no password is sent to a wrong one.
func (s *Session) OpenPeer(ctx context.Context, controller DomainController, o PeerOptions) (*Peer, error) {
	options := s.options
	options.ConnectTimeout, options.ResponseTimeout, options.OnRequest = o.ConnectTimeout, o.ResponseTimeout, o.OnRequest
	options = options.withDefaults()
	address := server{host: controller.Host, port: s.server.port, domain: dnsName(s.RootDSE.DefaultNamingContext)}
	operation := options.connectOperation(address)
	if controller.Host == "" {
		operation.Object = printable(controller.ServiceName)
		return nil, operation.Failed(fault.Refused, errNoHostName, "grant the account read access to the parent object")
	}
	a := options.ask(ctx, address)
	if a.lost { // perhaps it refuses searches before a bind
		a.session, a.err = options.open(ctx, address, options.ResponseTimeout)
	}
	if failed, ok := errors.AsType[*fault.Error](a.err); ok && CertificateRefused(a.err) {
		return nil, operation.Failed(failed.Class, failed.Err, options.peerCertificateRemedy(a.err))
	}
	if a.err != nil {
		return nil, a.err
	}
	peer := &Peer{a.session, Controller{ServiceName: controller.ServiceName, InvocationID: controller.InvocationID}}
	if a.controller.ServiceName != "" && !a.controller.same(peer.want) {
		defer peer.Close()
		return nil, peer.differentController()
	}
	return peer, nil
}

// peerCertificateRemedy returns the remedy for the certificate of another controller. The settings are
// correct for the first one.
func (o Options) peerCertificateRemedy(err error) string {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case unknown && len(o.Certificates) > 0:
		return "set ldap.certificate, or the certificate of the connection in the console, to that of the issuer of all domain controllers"
	case errors.Is(err, errNameMismatch) && o.ServerName != "":
		return "remove ldap.server-name, and connect by a name in the certificate"
	case errors.Is(err, errNameMismatch):
		return "give the domain controller a certificate for its DNS name"
	}
	return fault.Remedy(err)
}

// Close closes the connection.
func (p *Peer) Close() { p.session.Close() }

// Bind binds with the credentials of the session, and returns a session with the controller. On an
// error it closes the connection. It fails with ErrDifferentController if the invocation ID is not
// that of the controller.
func (p *Peer) Bind(ctx context.Context) (*Session, error) {
	if err := p.session.authenticate(ctx); err != nil {
		return nil, err
	}
	if !p.session.Controller.same(p.want) {
		defer p.Close()
		return nil, p.differentController()
	}
	return p.session, nil
}

func (p *Peer) differentController() error {
	found := p.session.RootDSE.DNSHostName
	if strings.EqualFold(p.session.Controller.ServiceName, p.want.ServiceName) {
		found += " with another invocation ID"
	}
	return p.session.options.connectOperation(p.session.server).Failed(fault.Transient, fmt.Errorf("%w: %s", ErrDifferentController, printable(found)),
		"check the DNS records of "+p.session.server.host+"; if it was restored, wait until that is replicated")
}

// BindRefused reports whether a server refused a bind, which counts toward the account's lockout.
// Other servers would refuse it too.
func BindRefused(err error) bool { return bindRefused(err) }

// CertificateRefused reports whether a server's certificate was not accepted.
func CertificateRefused(err error) bool {
	_, refused := errors.AsType[certificateCause](err)
	return refused
}

// Unresponsive reports whether a server was connected and did not respond in time.
func Unresponsive(err error) bool { return errors.Is(err, errNoResponse) || errors.Is(err, errTooSlow) }

// dnsName returns the DNS name of a domain with a DN: that of its components DC (RFC 2247). It is
// empty if the DN has none.
func dnsName(dn string) string {
	parsed, err := ldap.ParseDN(dn)
	if err != nil {
		return ""
	}
	var labels []string
	for _, rdn := range parsed.RDNs {
		for _, attribute := range rdn.Attributes {
			if strings.EqualFold(attribute.Type, "DC") {
				labels = append(labels, attribute.Value)
			}
		}
	}
	return strings.Join(labels, ".")
}
