// Package config turns the environment, env files and flags into a Config. It
// is the only reader of the environment.
//
// It guarantees that a Config it returns is complete and free of contradictions
// as far as that can be told without the network, that otherwise every fault is
// reported, one line each, and that no secret appears in a fault or when a
// Config is printed. It does not ask the directory or the gateway whether they
// like the values, and it ignores keys it does not know, since the environment is
// full of other programs' names; of those that look like its own it tells.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

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
	Login          Login
	Proxy          *Proxy // nil: none
	CA             []byte // certificates to trust besides the system's, PEM; nil: none
	Source         string
	Paths          Paths
}

// Login holds the credentials of one of the two types; the other's are empty.
type Login struct {
	Type         string // BASIC or OAUTH
	Username     string
	Password     secret.Text
	ClientID     string
	ClientSecret secret.Text
	TokenURL     *url.URL // nil: the gateway's own token endpoint
	Level        string   // USER or SUBSCRIPTION: which of the gateway's own
}

// Proxy stands between us and the gateway, never before the directory.
type Proxy struct {
	Scheme   string // http or https
	Host     string
	Port     int
	Username string // empty: no credentials
	Password secret.Text
}

// Paths replace the gateway client's own; an empty one does not.
type Paths struct{ Connection, Profile, Assets, State string }

// Directory is the connection and the profile, when they do not come from the gateway.
type Directory struct {
	Protocol    string   // LDAP, LDAPS or STARTTLS
	Hosts       []string // at least one; IPv6 addresses without brackets
	Port        int      // 0: the protocol's own
	BindDN      string
	Password    secret.Text
	BaseContext string
	SearchScope string // SUBTREE, ONE_LEVEL or BASE
	Assets      string // IDENTITIES_ONLY or IDENTITIES_WITH_SECURITY_POSTURE
}

// Search applies wherever connection and profile come from.
type Search struct {
	UserFilter  string // empty: the directory reader's own
	GroupFilter string
	PageSize    int
	ServerName  string // expected in the server's certificate; empty: the host
	Certificate []byte // of the server or its CA, PEM; nil: none
}

// Service is the process itself.
type Service struct {
	Cron          string
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
	EnvFiles    []string
	Environ     []string           // KEY=value, as os.Environ gives it
	Scheduled   bool               // whether the command needs the cron expression
	ParseCron   func(string) error // judges the cron expression; nil: nobody does
	ParseFilter func(string) error // judges LDAP filters; nil: nobody does
	Flags       map[string]string  // by a key's Name
	Unknown     func(Unknown)      // is told of each key that looks like ours and is none; nil: nobody
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
		Search:    l.search(src.ParseFilter),
		Service: Service{
			Cron:          l.cron(src),
			StateDir:      optional(l, "service.state-dir", verbatim),
			RunOnStart:    optional(l, "service.run-on-start", boolean),
			ShutdownGrace: optional(l, "service.shutdown-grace", durationBetween(time.Second, time.Hour)),
			AdminAddress:  optional(l, "service.admin.address", listenAddress),
		},
		Sync: Sync{
			FullInterval:      optional(l, "sync.full-interval", durationBetween(time.Second, 720*time.Hour)),
			MaxDeletes:        optional(l, "sync.max-deletes", between(0, 1_000_000_000)),
			MaxDeletesPercent: optional(l, "sync.max-deletes-percent", between(0, 100)),
		},
		Upload: Upload{
			Workers:    optional(l, "thread-pool.size", between(1, 64)),
			BatchSize:  optional(l, "upload.batch-size", between(1, 5000)),
			BatchBytes: optional(l, "upload.batch-bytes", between(1024, 8388608)),
		},
		Log: Log{
			Level:  optional(l, "log.level", oneOf("trace", "debug", "info", "warn", "error")),
			Format: optional(l, "log.format", oneOf("json", "console")),
		},
	}
	if len(l.faults) > 0 {
		return nil, errors.Join(l.faults...)
	}
	return c, nil
}

func (l *loader) gateway() Gateway {
	return Gateway{
		URL:            required(l, "connector.api.url", "", gatewayURL),
		CustomerUUID:   required(l, "qualys.customerUuid", "", uuid),
		ConnectionUUID: required(l, "qualys.connectionUuid", "", uuid),
		ProfileUUID:    required(l, "qualys.profileUuid", "", uuid),
		Login:          l.login(),
		Proxy:          l.proxy(),
		CA:             optional(l, "gateway.ca-file", certificateFile),
		Source:         optional(l, "gateway.source", verbatim),
		Paths: Paths{
			Connection: optional(l, "gateway.path.connection", urlPath),
			Profile:    optional(l, "gateway.path.profile", urlPath),
			Assets:     optional(l, "gateway.path.assets", urlPath),
			State:      optional(l, "gateway.path.state", urlPath),
		},
	}
}

// login reads the credentials of the type in use only: the documented sample
// carries both, and what is not used cannot be wrong.
func (l *loader) login() Login {
	login := Login{Type: optional(l, "authentication.type", oneOf("BASIC", "OAUTH"))}
	why := ""
	switch {
	case login.Type != "":
		why = "needed because authentication.type is " + login.Type
	case l.given("authentication.type"):
		return login // its fault is reported; which credentials it needs is unknown
	case l.given("qualys.user.username"):
		login.Type, why = "BASIC", "needed because a user name is given"
	case l.given("oauth.client.id"):
		login.Type, why = "OAUTH", "needed because a client ID is given"
	default:
		l.fault(errors.New("authentication.type: there is no login; allowed: qualys.user.username with qualys.user.password (BASIC), or oauth.client.id with oauth.client.secret (OAUTH)"))
		return login
	}
	if login.Type == "BASIC" {
		login.Username = required(l, "qualys.user.username", why, verbatim)
		login.Password = required(l, "qualys.user.password", why, secretText)
		return login
	}
	login.ClientID = required(l, "oauth.client.id", why, verbatim)
	login.ClientSecret = required(l, "oauth.client.secret", why, secretText)
	login.TokenURL = optional(l, "oauth.token.url", httpsURL)
	login.Level = optional(l, "qualys.OAuthClientLevel", oneOf("USER", "SUBSCRIPTION"))
	return login
}

func (l *loader) proxy() *Proxy {
	if !optional(l, "proxy.enabled", boolean) {
		return nil
	}
	const why = "needed because proxy.enabled is true"
	p := &Proxy{
		Scheme: optional(l, "service.http.proxy.scheme", oneOf("http", "https")),
		Host:   required(l, "proxy.host", why, hostOf("proxy")),
		Port:   required(l, "proxy.port", why, between(1, 65535)),
	}
	if l.given("proxy.username") || l.given("proxy.password") {
		p.Username = required(l, "proxy.username", "needed because proxy.password is given", verbatim)
		p.Password = required(l, "proxy.password", "needed because proxy.username is given", secretText)
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
		Protocol:    optional(l, "ldap.protocol", oneOf("LDAP", "LDAPS", "STARTTLS")),
		Hosts:       optional(l, "ldap.host", hosts),
		Port:        optional(l, "ldap.port", between(1, 65535)),
		BindDN:      required(l, "ldap.bindDn", why, verbatim),
		Password:    required(l, "ldap.password", why, secretText),
		BaseContext: required(l, "profile.baseContext", why, distinguishedName),
		SearchScope: optional(l, "profile.searchScope", oneOf("SUBTREE", "ONE_LEVEL", "BASE")),
		Assets:      optional(l, "profile.assets", oneOf("IDENTITIES_ONLY", "IDENTITIES_WITH_SECURITY_POSTURE")),
	}
}

func (l *loader) search(parseFilter func(string) error) Search {
	return Search{
		UserFilter:  optional(l, "ldap.user-filter", filter(parseFilter)),
		GroupFilter: optional(l, "ldap.group-filter", filter(parseFilter)),
		PageSize:    optional(l, "ldap.page-size", between(1, 10000)),
		ServerName:  optional(l, "ldap.server-name", hostOf("ldap")),
		Certificate: optional(l, "ldap.certificate", certificateFile),
	}
}

// cron leaves the judgement to the scheduler. Its words name the expression.
func (l *loader) cron(src Source) string {
	parse := func(text string) (string, error) {
		text = strings.TrimSpace(text)
		if src.ParseCron == nil {
			return text, nil
		}
		return text, src.ParseCron(text)
	}
	if src.Scheduled {
		return required(l, "service.cron-expression", "", parse)
	}
	return optional(l, "service.cron-expression", parse)
}
