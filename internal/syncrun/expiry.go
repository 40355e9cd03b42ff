package syncrun

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// certificates are those that directory servers have presented in a run: of each address the one that
// expires first. Connections are opened concurrently.
type certificates struct {
	mu     sync.Mutex
	leaves map[string]presented
}

type presented struct {
	leaf   *x509.Certificate
	pinned bool
}

func (c *certificates) add(address string, leaf *x509.Certificate, pinned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, found := c.leaves[address]; found && !leaf.NotAfter.Before(before.leaf.NotAfter) {
		return
	}
	if c.leaves == nil {
		c.leaves = map[string]presented{}
	}
	c.leaves[address] = presented{leaf, pinned}
}

// expiries returns the expiries of the certificates.
func (c *certificates) expiries(now time.Time) (list []state.Expiry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for address, p := range c.leaves {
		list = append(list, state.Expiry{
			Subject: state.DirectoryCertificate, Name: address, Issuer: IssuerName(p.leaf), At: p.leaf.NotAfter.UTC(), NotedAt: now, Remedy: CertificateRemedy(p.pinned),
		})
	}
	return list
}

// IssuerName returns the name of the issuer of a certificate, as one line.
func IssuerName(c *x509.Certificate) string {
	const maxLength = 100
	return fault.OneLine(cmp.Or(c.Issuer.CommonName, c.Issuer.String()), maxLength)
}

// CertificateRemedy is what to do before the certificate of a directory server expires.
func CertificateRemedy(pinned bool) string {
	remedy := "renew the domain controller's certificate"
	if pinned {
		remedy += ", and give the new one, or better its issuer's, as ldap.certificate, or as the certificate of the connection in the console"
	}
	return remedy
}

// GatewayCertificateRemedy is what to do before the certificate that the gateway, or a proxy in its
// place, has presented expires.
func GatewayCertificateRemedy(leaf *x509.Certificate) string {
	return fmt.Sprintf("if the issuer, %s, is a proxy that inspects TLS, renew its certificates, and set gateway.ca-file to the new issuer; otherwise the platform renews the certificate", IssuerName(leaf))
}

// noteExpiries records and logs what expires soon: certificates and the password of the account. An
// error does not fail the run, because nothing depends on it yet.
func (r *Runner) noteExpiries(ctx context.Context, info runInfo, session *session) error {
	recorded, err := r.Store.Expiries()
	if err != nil {
		return err
	}
	read := info.certificates.expiries(info.start)
	if leaf := r.Gateway.ServerHints().Certificate; leaf != nil {
		read = append(read, state.Expiry{
			Subject: state.GatewayCertificate, Name: r.Gateway.Host(), Issuer: IssuerName(leaf), At: leaf.NotAfter.UTC(), NotedAt: info.start, Remedy: GatewayCertificateRemedy(leaf),
		})
	}
	if password := r.readPasswordExpiry(ctx, info, session, recorded); password != nil {
		read = append(read, *password)
	}
	merged, changed := state.MergeExpiries(recorded, read, info.start)
	for n := range merged {
		changed = logExpiry(info, &merged[n]) || changed
	}
	if !changed {
		return nil
	}
	return r.Store.SetExpiries(merged)
}

// readPasswordExpiry reads when the password of the account expires: once a day, and in each run as
// long as it expires soon. It returns nil if it is not read.
func (r *Runner) readPasswordExpiry(ctx context.Context, info runInfo, session *session, recorded []state.Expiry) *state.Expiry {
	account := hashDN([]byte(session.BindName()))
	for _, e := range recorded {
		if e.Subject == state.BindPassword && e.Name == account && info.start.Sub(e.NotedAt).Abs() < state.ExpiryInterval && state.UrgencyOf(e.At, info.start) == state.NotUrgent {
			return nil
		}
	}
	if !session.RootDSE.IsDomainController() {
		return nil
	}
	err := session.reconnectIfIdle(ctx)
	var expires time.Time
	if err == nil {
		expires, err = session.PasswordExpiry(ctx)
		session.lastUsed = time.Now()
	}
	if err != nil {
		info.log.Debug().EmbedObject(fault.Fields(err)).Msg(MsgExpiryUnknown)
		if fault.ClassOf(err) != fault.Refused { // the next run tries again
			return nil
		}
	}
	return &state.Expiry{Subject: state.BindPassword, Name: account, At: expires, NotedAt: info.start, Remedy: r.passwordRemedy()}
}

func (r *Runner) passwordRemedy() string {
	place := "the connection in the console"
	if r.Source != nil {
		place = "ldap.password"
	}
	return "set a new password in the directory and in " + place + ", or let it never expire"
}

// logExpiry logs an urgent expiry once a day. It reports whether it did.
func logExpiry(info runInfo, e *state.Expiry) bool {
	urgency := state.UrgencyOf(e.At, info.start)
	if urgency == state.NotUrgent || info.start.Sub(e.LoggedAt).Abs() < state.ExpiryInterval {
		return false
	}
	e.LoggedAt = info.start
	event, message := info.log.Info(), MsgCertificateExpires
	if urgency == state.ExpiryWarning {
		event = info.log.Warn()
	}
	switch e.Subject {
	case state.BindPassword:
		message = MsgPasswordExpires
	default:
		event.Str("address", e.Name).Str("issuer", e.Issuer)
	}
	event.Str("peer", PeerOf(e.Subject)).Time("expires", e.At).Str("remedy", e.Remedy).Msg(message)
	return true
}

// PeerOf returns the side of the connector that a subject belongs to: directory or gateway.
func PeerOf(subject string) string {
	if subject == state.GatewayCertificate {
		return "gateway"
	}
	return "directory"
}

// watchCertificates makes the connections of a source report the certificates of the servers.
func (info runInfo) watchCertificates(o *directory.Options) { o.OnCertificate = info.certificates.add }
