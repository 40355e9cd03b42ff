// Package config turns the environment, env files and flags into a Config, whose
// values are of the types that the rooms take. It is the only reader of the
// environment. What there is to know of a key is in one row of keys.
//
// It guarantees that a Config it returns is complete and free of contradictions
// as far as that can be told without the network, that otherwise every fault is
// reported, one line each, and that no secret appears in a fault or when a
// Config is printed. It does not ask the directory or the gateway whether they
// like the values, and it ignores keys it does not know, since the environment is
// full of other programs' names; of those that look like its own it tells.
package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/schedule"
	"adconnector/internal/secret"
)

// Config is everything an operator can set.
type Config struct {
	Gateway   Gateway
	Directory *Directory // nil: connection and profile come from the gateway
	Search    Search
	Service   Service
	Sync      Sync
	Upload    Upload
	Log       Log
}

// Gateway is how to reach the gateway, and as whom.
type Gateway struct {
	URL            *url.URL // https, or http on loopback; without a trailing slash
	CustomerUUID   string   // UUIDs are lower case
	ConnectionUUID string
	ProfileUUID    string
	Login          gateway.Login
	Proxy          *gateway.Proxy      // nil: none
	CA             []*x509.Certificate // to trust besides the system's
	Source         string
	Paths          gateway.Paths
}

// Directory is the connection and the profile, when they do not come from the gateway.
type Directory struct {
	Protocol    directory.Protocol
	Hosts       []string // at least one; IPv6 addresses without brackets
	Port        int      // 0: the protocol's own
	BindDN      string
	Password    secret.Text
	BaseContext string
	Scope       directory.Scope
	Posture     bool // the security posture is asked for, too
}

// Search applies wherever connection and profile come from.
type Search struct {
	UserFilter   string // empty: none but the reader's own
	GroupFilter  string
	PageSize     int
	ServerName   string              // expected in the server's certificate; empty: the host
	Certificates []*x509.Certificate // of the server or its CA
}

// Service is the process itself.
type Service struct {
	Schedule      *schedule.Schedule // nil: none, which only the daemon needs
	StateDir      string
	RunOnStart    bool
	ShutdownGrace time.Duration
	AdminAddress  string // host:port; empty: no admin endpoint
}

// Sync is when everything is read, and what may be reported as deleted.
type Sync struct {
	FullInterval                  time.Duration
	MaxDeletes, MaxDeletesPercent int
}

// Upload bounds what is sent at once.
type Upload struct{ Workers, BatchSize, BatchBytes int }

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
	Unknown   func(Unknown)     // is told of each key that looks like ours and is none; nil: nobody
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
		Gateway:   l.gateway(),
		Directory: l.directory(),
		Search:    l.search(),
		Service: Service{
			Schedule:      l.schedule(src.Scheduled),
			StateDir:      optional[string](l, "service.state-dir"),
			RunOnStart:    optional[bool](l, "service.run-on-start"),
			ShutdownGrace: optional[time.Duration](l, "service.shutdown-grace"),
			AdminAddress:  optional[string](l, "service.admin.address"),
		},
		Sync: Sync{
			FullInterval:      optional[time.Duration](l, "sync.full-interval"),
			MaxDeletes:        optional[int](l, "sync.max-deletes"),
			MaxDeletesPercent: optional[int](l, "sync.max-deletes-percent"),
		},
		Upload: Upload{
			Workers:    optional[int](l, "thread-pool.size"),
			BatchSize:  optional[int](l, "upload.batch-size"),
			BatchBytes: optional[int](l, "upload.batch-bytes"),
		},
		Log: Log{
			Level:  optional[string](l, "log.level"),
			Format: optional[string](l, "log.format"),
		},
	}
	if len(l.faults) > 0 {
		return nil, errors.Join(l.faults...)
	}
	return c, nil
}

func (l *loader) gateway() Gateway {
	return Gateway{
		URL:            required[*url.URL](l, "connector.api.url", ""),
		CustomerUUID:   required[string](l, "qualys.customerUuid", ""),
		ConnectionUUID: required[string](l, "qualys.connectionUuid", ""),
		ProfileUUID:    required[string](l, "qualys.profileUuid", ""),
		Login:          l.login(),
		Proxy:          l.proxy(),
		CA:             optional[[]*x509.Certificate](l, "gateway.ca-file"),
		Source:         optional[string](l, "gateway.source"),
		Paths: gateway.Paths{
			Connection: optional[string](l, "gateway.path.connection"),
			Profile:    optional[string](l, "gateway.path.profile"),
			Assets:     optional[string](l, "gateway.path.assets"),
			State:      optional[string](l, "gateway.path.state"),
		},
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
		l.fault(errors.New("authentication.type: there is no login; allowed: qualys.user.username with qualys.user.password (BASIC), or oauth.client.id with oauth.client.secret (OAUTH)"))
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

func (l *loader) directory() *Directory {
	if !l.given("ldap.host") {
		for _, k := range keys {
			if place := l.placeOf(k.Name); k.withHost && place != "" {
				l.fault(fmt.Errorf("%s: needs ldap.host, without which connection and profile come from the gateway; allowed: both or neither", place))
			}
		}
		return nil
	}
	const why = "needed because ldap.host is given"
	return &Directory{
		Protocol:    optional[directory.Protocol](l, "ldap.protocol"),
		Hosts:       optional[[]string](l, "ldap.host"),
		Port:        optional[int](l, "ldap.port"),
		BindDN:      required[string](l, "ldap.bindDn", why),
		Password:    required[secret.Text](l, "ldap.password", why),
		BaseContext: required[string](l, "profile.baseContext", why),
		Scope:       optional[directory.Scope](l, "profile.searchScope"),
		Posture:     optional[string](l, "profile.assets") == "IDENTITIES_WITH_SECURITY_POSTURE",
	}
}

func (l *loader) search() Search {
	return Search{
		UserFilter:   optional[string](l, "ldap.user-filter"),
		GroupFilter:  optional[string](l, "ldap.group-filter"),
		PageSize:     optional[int](l, "ldap.page-size"),
		ServerName:   optional[string](l, "ldap.server-name"),
		Certificates: optional[[]*x509.Certificate](l, "ldap.certificate"),
	}
}
