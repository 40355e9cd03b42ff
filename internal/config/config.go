// Package config turns the environment, env files and flags into the options of the other
// packages. It is the only reader of the environment. Everything about a key is in one row
// of keys.
//
// A Config that Load returns is complete and has no contradictions that can be found
// without the network. Otherwise Load returns every fault: joined errors, each with the key
// as its object and what is allowed as its remedy. No secret appears in an error or in a
// printed Config. Load does not check values against the directory or the gateway. It
// ignores unknown keys, since other programs have variables in the environment, too, but
// reports those that resemble its own.
package config

import (
	"crypto/x509"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/schedule"
	"adconnector/internal/secret"
	"adconnector/internal/syncrun"
	"adconnector/internal/upload"
)

// Config is everything that an operator can set, as the options of the packages that use it.
type Config struct {
	Gateway gateway.Options // UUIDs are lower case
	Run     syncrun.Options // without a Source, connection and profile come from the gateway
	Service Service
	Log     Log
}

// Service is the process itself.
type Service struct {
	Schedule      *schedule.Schedule // nil: none, which only the daemon needs
	StateDir      string
	RunOnStart    bool
	ShutdownGrace time.Duration
	AdminAddress  string // host:port; empty: no admin endpoint
}

// Log says what is logged, and how.
type Log struct {
	Level  string // trace, debug, info, warn or error
	Format string // json or console; empty: the caller decides
}

// Source is where the settings come from. Flags win over the environment,
// which wins over the files, of which a later one wins over an earlier one.
type Source struct {
	EnvFiles  []string
	Environ   []string          // KEY=value, as os.Environ gives it
	Scheduled bool              // whether the command needs the cron expression
	Flags     map[string]string // by a key's Name
	Unknown   func(Unknown)     // is called with each unknown key that resembles one of ours; nil: nothing
}

// Load reads everything and reports every fault it finds.
func Load(src Source) (*Config, error) {
	l := &loader{keys: bySpelling(), tell: src.Unknown}
	l.layers = []layer{l.flags(src.Flags), l.environment(src.Environ)}
	for _, path := range src.EnvFiles { // a later file goes before the earlier ones
		l.layers = slices.Insert(l.layers, 2, l.envFile(path, src.Environ))
	}
	l.contradictions()
	c := &Config{
		Gateway: l.gateway(),
		Run:     l.run(),
		Service: Service{
			Schedule:      l.schedule(src.Scheduled),
			StateDir:      optional[string](l, "service.state-dir"),
			RunOnStart:    optional[bool](l, "service.run-on-start"),
			ShutdownGrace: optional[time.Duration](l, "service.shutdown-grace"),
			AdminAddress:  optional[string](l, "service.admin.address"),
		},
		Log: Log{
			Level:  optional[string](l, "log.level"),
			Format: optional[string](l, "log.format"),
		},
	}
	if len(l.faults) > 0 {
		return nil, errors.Join(l.faults...)
	}
	// Both must end within the grace: calls under way first, then the record of the run.
	c.Gateway.Grace = c.Service.ShutdownGrace * 3 / 4
	c.Run.EndTimeout = min(5*time.Second, c.Service.ShutdownGrace/6)
	c.Run.Target = strings.Join([]string{c.Gateway.URL.String(), c.Gateway.CustomerUUID, c.Gateway.ConnectionUUID}, " ")
	return c, nil
}

func (l *loader) gateway() gateway.Options {
	return gateway.Options{
		URL:            required[*url.URL](l, "connector.api.url", ""),
		CustomerUUID:   required[string](l, "qualys.customerUuid", ""),
		ConnectionUUID: required[string](l, "qualys.connectionUuid", ""),
		ProfileUUID:    required[string](l, "qualys.profileUuid", ""),
		Login:          l.login(),
		Proxy:          l.proxy(),
		RootCAs:        rootsWith(optional[[]*x509.Certificate](l, "gateway.ca-file")),
		Connections:    optional[int](l, "thread-pool.size"),
		Source:         optional[string](l, "gateway.source"),
		Paths: gateway.Paths{
			Connection: optional[string](l, "gateway.path.connection"),
			Profile:    optional[string](l, "gateway.path.profile"),
			Assets:     optional[string](l, "gateway.path.assets"),
			State:      optional[string](l, "gateway.path.state"),
		},
	}
}

// rootsWith adds certificates to the system's roots. nil stands for the system's roots.
func rootsWith(certificates []*x509.Certificate) *x509.CertPool {
	if len(certificates) == 0 {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, certificate := range certificates {
		pool.AddCert(certificate)
	}
	return pool
}

// run returns the options of a run.
func (l *loader) run() syncrun.Options {
	return syncrun.Options{
		Source: l.source(),
		Search: syncrun.SearchOptions{
			UserFilter:   optional[string](l, "ldap.user-filter"),
			GroupFilter:  optional[string](l, "ldap.group-filter"),
			PageSize:     optional[int](l, "ldap.page-size"),
			ServerName:   optional[string](l, "ldap.server-name"),
			Certificates: optional[[]*x509.Certificate](l, "ldap.certificate"),
		},
		Upload: upload.Options{
			Workers:    optional[int](l, "thread-pool.size"),
			BatchSize:  optional[int](l, "upload.batch-size"),
			BatchBytes: optional[int](l, "upload.batch-bytes"),
		},
		Guard: syncrun.Guard{
			MaxDeletes:        optional[int](l, "sync.max-deletes"),
			MaxDeletesPercent: optional[int](l, "sync.max-deletes-percent"),
		},
		FullInterval: optional[time.Duration](l, "sync.full-interval"),
	}
}

// login reads the credentials of the type in use only: the documented sample
// carries both, and what is not used cannot be wrong.
func (l *loader) login() gateway.Login {
	kind, why := optional[string](l, "authentication.type"), ""
	switch {
	case kind != "":
		why = "needed because authentication.type is " + kind
	case l.given("authentication.type"):
		return gateway.Login{} // its fault is reported; which credentials it needs is unknown
	case l.given("qualys.user.username"):
		kind, why = "BASIC", "needed because a user name is given"
	case l.given("oauth.client.id"):
		kind, why = "OAUTH", "needed because a client ID is given"
	default:
		l.fault("authentication.type", invalid(errNoLogin, "qualys.user.username with qualys.user.password (BASIC), or oauth.client.id with oauth.client.secret (OAUTH)"))
		return gateway.Login{}
	}
	if kind == "BASIC" {
		return gateway.Login{
			Username: required[string](l, "qualys.user.username", why),
			Password: required[secret.Text](l, "qualys.user.password", why),
		}
	}
	return gateway.Login{
		ClientID:     required[string](l, "oauth.client.id", why),
		ClientSecret: required[secret.Text](l, "oauth.client.secret", why),
		TokenURL:     optional[*url.URL](l, "oauth.token.url"),
		Subscription: optional[string](l, "qualys.OAuthClientLevel") == "SUBSCRIPTION",
	}
}

// schedule is nil without a cron expression.
func (l *loader) schedule(needed bool) *schedule.Schedule {
	if needed {
		return required[*schedule.Schedule](l, "service.cron-expression", "")
	}
	return optional[*schedule.Schedule](l, "service.cron-expression")
}

func (l *loader) proxy() *gateway.Proxy {
	if !optional[bool](l, "proxy.enabled") {
		return nil
	}
	const why = "needed because proxy.enabled is true"
	p := &gateway.Proxy{
		Scheme: optional[string](l, "service.http.proxy.scheme"),
		Host:   required[string](l, "proxy.host", why),
		Port:   required[int](l, "proxy.port", why),
	}
	if l.given("proxy.username") || l.given("proxy.password") {
		p.Username = required[string](l, "proxy.username", "needed because proxy.password is given")
		p.Password = required[secret.Text](l, "proxy.password", "needed because proxy.username is given")
	}
	return p
}

// source returns the connection and the profile, nil where they come from the gateway.
func (l *loader) source() *syncrun.Source {
	if !l.given("ldap.host") {
		for _, k := range keys {
			if place := l.placeOf(k.Name); k.withHost && place != "" {
				l.fault(place, invalid(errNeedsHost, "both or neither"))
			}
		}
		return nil
	}
	const why = "needed because ldap.host is given"
	return &syncrun.Source{
		Directory: directory.Options{
			Protocol: optional[directory.Protocol](l, "ldap.protocol"),
			Hosts:    optional[[]string](l, "ldap.host"),
			Port:     optional[int](l, "ldap.port"),
			BindDN:   required[string](l, "ldap.bindDn", why),
			Password: required[secret.Text](l, "ldap.password", why),
		},
		Base:    required[string](l, "profile.baseContext", why),
		Scope:   optional[directory.Scope](l, "profile.searchScope"),
		Posture: optional[string](l, "profile.assets") == "IDENTITIES_WITH_SECURITY_POSTURE",
	}
}
