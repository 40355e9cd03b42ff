// Package directory reads entries from Active Directory, or from another LDAP v3 server
// with the same attributes. It is the only importer of go-ldap.
//
// Guarantees:
//   - Search returns nil only if the server confirmed that it sent all entries.
//   - Memory is bounded, whatever the server sends.
//   - Every call returns soon after its context ends, even if the server hangs.
//   - A refused bind is not repeated.
//
// The package does not retry.
package directory

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/internal/input"
	"adconnector/internal/secret"
)

// Protocol is the transport of the connection.
type Protocol string

// The protocols.
const (
	LDAP     Protocol = "LDAP"     // plaintext
	LDAPS    Protocol = "LDAPS"    // TLS from the first byte
	StartTLS Protocol = "STARTTLS" // TLS before the bind
)

// Protocols are the names of the protocols.
var Protocols = []input.Choice[Protocol]{
	{Value: LDAP, Names: []string{"LDAP"}},
	{Value: LDAPS, Names: []string{"LDAPS", "LDAP over SSL", "LDAP over TLS"}},
	{Value: StartTLS, Names: []string{"STARTTLS", "LDAP with StartTLS"}},
}

// Options configure a session.
type Options struct {
	Protocol Protocol // "": LDAP
	// Hosts are tried in order. A single DNS domain is resolved to its domain controllers
	// by SRV records. For a domain, or a host with several addresses, Preferred and then the
	// fastest server is tried first.
	Hosts        []string
	Port         int // 0: the default port of the protocol
	BindDN       string
	Password     secret.Text
	Certificates []*x509.Certificate // trusted issuers, or pinned server certificates; none: the system roots
	ServerName   string              // expected in the certificate; "": the host
	PageSize     int                 // 0: 1000, the default limit of Active Directory
	// CertificateMistakes are those in the text of Certificates, as ParseCertificates returns them.
	CertificateMistakes []error

	// Preferred is the controller that was read last. A name that stands for several controllers
	// leads to it as long as it answers. Zero: none.
	Preferred Controller
	// Avoided is the controller of a failed run. It is tried last. Zero: none.
	Avoided Controller
	// PreferFastest makes another controller replace Preferred if it answers in less than half
	// of its time. It is for runs that read everything anyway.
	PreferFastest bool

	ConnectTimeout  time.Duration // for the dial, and again for the TLS handshake; 0: 10 s
	ResponseTimeout time.Duration // maximum silence while a response is expected; 0: 130 s

	// OnRequest is called after every request: "connect", "bind", "read" (one object) or
	// "search" (one page). It may be nil.
	OnRequest func(request string, class fault.Class, duration time.Duration)

	// OnProgress is called for each entry that a search has not returned before, while a
	// response is received too, for complete pages, and at the end of each complete search.
	// After 60 consecutive pages without a new entry, further ones are no progress, and
	// neither are received bytes: a server can send them without end. OnProgress is called
	// from several goroutines. It may be nil.
	OnProgress func()

	// OnCertificate is called with the certificate of a server that was verified, for each connection
	// with TLS. It is called from several goroutines. It may be nil.
	OnCertificate func(address string, leaf *x509.Certificate, pinned bool)

	onHandshake func(tls.ConnectionState) // for Probe: called before the certificate is verified

	// For tests.
	chunkSize   int
	maxValues   int
	maxEntries  int
	dialContext func(ctx context.Context, network, address string) (net.Conn, error) // nil: a dialer with ConnectTimeout
	lookupSRV   func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	lookupHost  func(ctx context.Context, host string) ([]string, error)
}

const (
	defaultPageSize       = 1000
	defaultConnectTimeout = 10 * time.Second
	// Active Directory ends a query after 120 s (MaxQueryDuration). A longer timeout
	// receives its result code.
	defaultResponseTimeout = 130 * time.Second
)

func (o Options) withDefaults() Options {
	o.Protocol = cmp.Or(o.Protocol, LDAP)
	if o.Port == 0 && o.Protocol == LDAPS {
		o.Port = 636
	}
	o.PageSize = cmp.Or(o.PageSize, defaultPageSize)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, defaultConnectTimeout)
	o.ResponseTimeout = cmp.Or(o.ResponseTimeout, defaultResponseTimeout)
	o.chunkSize = cmp.Or(o.chunkSize, defaultChunkSize)
	o.maxEntries = cmp.Or(o.maxEntries, defaultMaxEntries)
	o.maxValues = cmp.Or(o.maxValues, defaultMaxValues)
	if o.lookupSRV == nil {
		o.lookupSRV = net.DefaultResolver.LookupSRV
	}
	if o.lookupHost == nil {
		o.lookupHost = net.DefaultResolver.LookupHost
	}
	return o
}

// Session is a bound connection to one server, for use by one goroutine.
type Session struct {
	Address    string // host:port
	Controller Controller
	// InvocationErr is why the account may not read the invocation ID of a domain controller,
	// of class fault.Refused. Otherwise it is nil.
	InvocationErr error
	RootDSE       RootDSE
	// Unreached are the errors of the servers that Connect tried before this one.
	Unreached []error
	PageSize  int

	transport *demuxConn
	conn      *ldap.Conn
	options   Options
	server    server
}

// init sets the limits of go-ldap's decoder. They are package variables, so a later change
// would be a data race.
func init() {
	ber.MaxPacketLengthBytes = maxForwarded
	ber.MaxNestingDepth = 16
}

// Connect opens a session with the first available server. A refused bind ends the
// attempts: it counts toward the account's lockout, and other servers would refuse it too.
func Connect(ctx context.Context, options Options) (*Session, error) {
	o := options.withDefaults()
	names, err := o.resolve(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, servers := range names {
		session, nameErrs := o.connectAny(ctx, o.addresses(ctx, servers))
		errs = append(errs, nameErrs...)
		if session != nil {
			session.Unreached = errs
			return session, nil
		}
		if bindRefused(errs[len(errs)-1]) || ctx.Err() != nil {
			break
		}
	}
	return nil, joinServerErrors(errs)
}

// joinServerErrors joins the errors of several servers. The result is transient if one of
// them is, unless the last one is a refused bind.
func joinServerErrors(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	class := fault.ClassOf(errs[len(errs)-1])
	for _, err := range errs {
		if fault.ClassOf(err) == fault.Transient && class != fault.Canceled && !bindRefused(errs[len(errs)-1]) {
			class = fault.Transient
		}
	}
	return fault.Operation{Op: "open directory session"}.Failed(class, serverErrors(errs), "")
}

// serverErrors are the errors of several servers. The text is one line.
type serverErrors []error

// maxServerTexts limits the servers in the text of an error. SRV records can name thousands.
const maxServerTexts = 20

func (e serverErrors) Error() string {
	var texts []string
	for _, err := range e[:min(len(e), maxServerTexts)] {
		texts = append(texts, err.Error())
	}
	if more := len(e) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

func (e serverErrors) Unwrap() []error { return e }

// ServerErrors returns the errors of the servers that Connect tried, for the error of Connect. Only the
// error of several servers has a list of its own.
func ServerErrors(err error) []error {
	if list, is := errors.AsType[serverErrors](err); is {
		return list
	}
	return []error{err}
}

// connect opens a session with one server.
func (o Options) connect(ctx context.Context, server server) (*Session, error) {
	s, err := o.open(ctx, server, o.ResponseTimeout)
	if err != nil {
		return nil, err
	}
	if err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// open connects to a server without a bind. timeout is the maximum silence while a response is
// expected.
func (o Options) open(ctx context.Context, server server, timeout time.Duration) (*Session, error) {
	start := time.Now()
	conn, err := o.dial(ctx, server)
	o.observe("connect", start, &err)
	if err != nil {
		return nil, err
	}
	transport := newDemuxConn(conn, timeout)
	s := &Session{
		Address: server.address(), PageSize: o.PageSize,
		transport: transport, conn: ldap.NewConn(transport, o.Protocol != LDAP), options: o, server: server,
	}
	s.conn.Start()
	return s, nil
}

// authenticate binds and identifies the controller. It closes the session on failure.
func (s *Session) authenticate(ctx context.Context) error {
	err := s.bind(ctx)
	if err == nil {
		err = s.identify(ctx)
	}
	if err != nil {
		s.Close()
	}
	return err
}

// Reconnect opens another session with the same controller, at the address of the first one.
// The current session stays open, so both can be used concurrently. Behind a load balancer,
// Reconnect dials several times. It fails with ErrDifferentController if the address leads to
// a different controller.
func (s *Session) Reconnect(ctx context.Context) (*Session, error) {
	server := s.pinnedServer()
	second, err := s.options.connect(ctx, server)
	if err != nil || second.Controller.same(s.Controller) {
		return second, err
	}
	second.Close()
	return s.options.redial(ctx, server, s.Controller, maxDials-1)
}

// pinnedServer returns the server with the address of the session's connection.
func (s *Session) pinnedServer() server {
	pinned := s.server
	if ip, _, err := net.SplitHostPort(s.Controller.Address); err == nil {
		pinned.ip = ip
	}
	return pinned
}

// Close closes the session. It closes the transport first: go-ldap's Close waits for a
// write, which a hanging server can block.
func (s *Session) Close() {
	s.transport.Close()
	_ = s.conn.Close()
}

// call runs one operation of go-ldap under ctx and the response timeout. It returns an
// unsuccessful result as *ldap.Error, and a lost connection as *fault.Error.
func (s *Session) call(ctx context.Context, request string, o fault.Operation, operation func() error) (err error) {
	defer s.options.observe(request, time.Now(), &err)
	if err := ctx.Err(); err != nil {
		return o.Failed(fault.Canceled, err, "")
	}
	stop := context.AfterFunc(ctx, func() { s.transport.Close() })
	s.transport.awaitResponse(true)
	err = operation()
	s.transport.awaitResponse(false)
	stop()
	switch {
	case err == nil:
		return nil
	case isResult(err):
		return s.options.withoutPassword(err)
	case ctx.Err() != nil:
		return o.Failed(fault.Canceled, ctx.Err(), "")
	default:
		return s.connectionError(o, err)
	}
}

// withoutPassword returns a result without the password, which a server can repeat in its texts.
func (o Options) withoutPassword(err error) error {
	var result *ldap.Error
	if !errors.As(err, &result) {
		return err
	}
	clean := *result
	clean.MatchedDN = secret.Redact(result.MatchedDN, o.Password)
	if result.Err != nil {
		clean.Err = errors.New(secret.Redact(result.Err.Error(), o.Password))
	}
	return &clean
}

// observe calls OnRequest with the class that *err has after its conversion to *fault.Error.
func (o Options) observe(request string, start time.Time, err *error) {
	if o.OnRequest == nil {
		return
	}
	convert := searchError
	if request == "bind" {
		convert = bindError
	}
	o.OnRequest(request, fault.ClassOf(convert(fault.Operation{}, *err)), time.Since(start))
}

func (s *Session) bind(ctx context.Context) error {
	o := s.options
	bind := fault.Operation{Op: "bind", Object: strings.TrimSpace(printable(o.BindDN) + " to " + s.Address)}
	if o.BindDN == "" || o.Password.IsZero() {
		return bind.Failed(fault.Refused, errNoAccount, "set "+bindSettings)
	}
	err := s.call(ctx, "bind", bind, func() error { return s.conn.Bind(o.BindDN, o.Password.Reveal()) })
	return bindError(bind, err)
}

// operation returns an operation on an object of the session's server, for errors. The server
// may have named the object.
func (s *Session) operation(op, object string) fault.Operation {
	return fault.Operation{Op: op, Object: printable(object) + " on " + s.Address}
}
