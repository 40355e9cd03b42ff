// Package directory reads entries from Active Directory, or from any LDAP v3
// server that has its attributes. It is the only importer of go-ldap.
//
// It guarantees that Search returns nil only when the server has proven that
// everything was sent; that memory stays bounded whatever the server sends; that
// no call outlives its context by more than a moment, even when the server hangs;
// and that a refused bind is not repeated. It does not retry: that is the next
// run's business.
package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// Protocol is how the connection is protected.
type Protocol string

const (
	LDAP     Protocol = "LDAP"     // not at all
	LDAPS    Protocol = "LDAPS"    // TLS from the first byte
	StartTLS Protocol = "STARTTLS" // TLS before the bind
)

// ParseProtocol reads a protocol's name without regard to case and separators.
func ParseProtocol(name string) (Protocol, error) {
	for _, p := range []Protocol{LDAP, LDAPS, StartTLS} {
		if canonical(name) == string(p) {
			return p, nil
		}
	}
	return "", fault.Operation{Object: fmt.Sprintf("connection type %q", name)}.Failed(fault.Refused, errUnknownValue, "use LDAP, LDAPS or STARTTLS")
}

// canonical drops what may differ between two spellings of one name.
func canonical(name string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(name))
}

// Options say which directory is read, as whom, and how patiently.
type Options struct {
	Protocol Protocol // "": LDAP
	// Hosts are tried in order. A single DNS domain stands for the domain
	// controllers that its SRV records name.
	Hosts        []string
	Port         int // 0: the protocol's own
	BindDN       string
	Password     secret.Text
	Certificates []*x509.Certificate // of the issuer or of the server itself; none: the system's roots
	ServerName   string              // "": the host's name
	PageSize     int                 // 0: 1000, Active Directory's limit

	ConnectTimeout  time.Duration // to dial, and again to shake hands; 0: 10 s
	ResponseTimeout time.Duration // without a byte while an answer is due; 0: 130 s

	// Observe is told of every request that was answered or given up: a connect, a
	// bind, a read of one object, or a page of a search. Nil: nobody.
	Observe func(request string, class fault.Class, took time.Duration)

	// Received is called with the number of bytes whenever some arrive. An answer may take
	// many minutes to arrive. Nil: not called.
	Received func(bytes int)

	presented func(tls.ConnectionState) // for Probe: told of what a server presents, before it is judged

	// For tests.
	chunkSize   int
	dialContext func(ctx context.Context, network, address string) (net.Conn, error)
	lookupSRV   func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

const (
	defaultPageSize       = 1000
	defaultConnectTimeout = 10 * time.Second
	// Active Directory gives up on a query after 120 s (MaxQueryDuration): its
	// own word on that is worth waiting for.
	defaultResponseTimeout = 130 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Protocol == "" {
		o.Protocol = LDAP
	}
	if o.Port == 0 && o.Protocol == LDAPS {
		o.Port = 636
	}
	if o.PageSize == 0 {
		o.PageSize = defaultPageSize
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = defaultConnectTimeout
	}
	if o.ResponseTimeout == 0 {
		o.ResponseTimeout = defaultResponseTimeout
	}
	if o.chunkSize == 0 {
		o.chunkSize = defaultChunkSize
	}
	if o.dialContext == nil {
		o.dialContext = (&net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	if o.lookupSRV == nil {
		o.lookupSRV = net.DefaultResolver.LookupSRV
	}
	return o
}

// Session is one bound connection to one server. It serves one goroutine.
type Session struct {
	Address  string // host:port
	RootDSE  RootDSE
	PageSize int

	wire    *wire
	conn    *ldap.Conn
	options Options
	server  server
}

// init limits go-ldap's decoder, which has package variables for that. Later they
// may have readers in other goroutines.
func init() {
	ber.MaxPacketLengthBytes = maxPassed
	ber.MaxNestingDepth = 16
}

// Connect binds to the first server that can be reached. Only network and
// certificate troubles lead on to the next one: a refused bind counts towards
// the account's lockout, and another server would refuse it too.
func Connect(ctx context.Context, options Options) (*Session, error) {
	o := options.withDefaults()
	var errs []error
	for _, server := range o.servers(ctx) {
		session, err := o.connect(ctx, server)
		if err == nil {
			return session, nil
		}
		errs = append(errs, err)
		if bindRefused(err) || ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return nil, fault.Operation{Op: "connect"}.Failed(fault.Refused, errNoHost, "set ldap.host, or the host of the connection in the console")
	}
	return nil, joinByServer(errs)
}

// joinByServer returns one error for those of several servers. It is transient if one of
// them is, unless the last one is a refused bind.
func joinByServer(errs []error) error {
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

// serverErrors joins the errors of several servers. Its text is one line.
type serverErrors []error

func (e serverErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e serverErrors) Unwrap() []error { return e }

func (o Options) connect(ctx context.Context, server server) (*Session, error) {
	start := time.Now()
	conn, err := o.dial(ctx, server)
	o.observe("connect", start, &err)
	if err != nil {
		return nil, err
	}
	w := newWire(conn, o.ResponseTimeout, o.Received)
	s := &Session{
		Address: server.address(), PageSize: o.PageSize,
		wire: w, conn: ldap.NewConn(w, o.Protocol != LDAP), options: o, server: server,
	}
	s.conn.Start()
	if err := s.bind(ctx); err != nil {
		s.Close()
		return nil, err
	}
	if s.RootDSE, err = s.readRootDSE(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Again opens another session with the same server, for a search beside this one's.
// Behind one name there may be several: another one is refused.
func (s *Session) Again(ctx context.Context) (*Session, error) {
	second, err := s.options.connect(ctx, s.server)
	if err == nil && second.RootDSE.DSServiceName != s.RootDSE.DSServiceName {
		second.Close()
		return nil, s.options.attempt(s.server).Failed(fault.Transient, fmt.Errorf("%w: %s", errOtherController, second.RootDSE.DNSHostName),
			"give each domain controller a name of its own in ldap.host, or in the connection in the console")
	}
	return second, err
}

// Close ends the session. The wire goes first: go-ldap's own Close waits for a
// write that a hanging server may never take.
func (s *Session) Close() {
	s.wire.Close()
	_ = s.conn.Close() // it has nothing left to say
}

// call runs one operation of go-ldap under ctx and the response timeout. A server's
// refusal comes back as it is, a *ldap.Error; a lost connection comes back explained.
func (s *Session) call(ctx context.Context, request string, o fault.Operation, operation func() error) (err error) {
	defer s.options.observe(request, time.Now(), &err)
	if err := ctx.Err(); err != nil {
		return o.Failed(fault.Canceled, err, "")
	}
	stop := context.AfterFunc(ctx, func() { s.wire.Close() })
	s.wire.expect(true)
	err = operation()
	s.wire.expect(false)
	stop()
	switch {
	case err == nil || isAnswer(err):
		return err
	case ctx.Err() != nil:
		return o.Failed(fault.Canceled, ctx.Err(), "")
	default:
		return s.explainLoss(o, err)
	}
}

// observe calls Observe with the class of a request's end. A server's refusal is not
// explained yet, but has the same class.
func (o Options) observe(request string, start time.Time, err *error) {
	if o.Observe == nil {
		return
	}
	explain := explainSearch
	if request == "bind" {
		explain = explainBind
	}
	o.Observe(request, fault.ClassOf(explain(fault.Operation{}, *err)), time.Since(start))
}

func (s *Session) bind(ctx context.Context) error {
	o := s.options
	bind := fault.Operation{Op: "bind", Object: strings.TrimSpace(o.BindDN + " to " + s.Address)}
	if o.BindDN == "" || o.Password.IsZero() {
		return bind.Failed(fault.Refused, errNoAccount, "set "+bindSettings)
	}
	err := s.call(ctx, "bind", bind, func() error { return s.conn.Bind(o.BindDN, o.Password.Reveal()) })
	return explainBind(bind, err)
}

// operation returns an operation on an object that this session's server holds.
func (s *Session) operation(op, object string) fault.Operation {
	return fault.Operation{Op: op, Object: object + " on " + s.Address}
}
