// Package config reads the environment, env files and flags, and returns the options of the
// other packages. It is the only reader of the environment. Each key has one row in keys.
//
// Load returns a complete and consistent Config, or joined errors for all faults. The object
// of an error is the key, its remedy the allowed values. Errors and a printed Config contain
// no secrets. Load does not query the directory or the gateway. It ignores unknown keys,
// because the environment has variables of other programs. It reports those that resemble a
// key.
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
	"adconnector/internal/input"
	"adconnector/internal/schedule"
	"adconnector/internal/syncrun"
	"adconnector/internal/upload"
)

// Config is the configuration, as the options of the packages that use it.
type Config struct {
	Gateway gateway.Options // UUIDs are lower case
	Run     syncrun.Options // without a Source, connection and profile come from the gateway
	Service Service
	Log     Log
	Secrets []*SecretFile // those that come from files
}

// Service is the configuration of the process.
type Service struct {
	Schedule      *schedule.Schedule // nil: none; required by the daemon only
	StateDir      string
	RunOnStart    bool
	ShutdownGrace time.Duration
	AdminAddress  string   // host:port; empty: no admin endpoint
	AdminHosts    []string // additional host names that requests to the endpoint may use
}

// Log is the configuration of the log.
type Log struct {
	Level  string // trace, debug, info, warn or error
	Format string // json or console; empty: the caller decides
}

// Source is the source of the settings. Flags override the environment, the environment
// overrides files, and later files override earlier ones.
type Source struct {
	EnvFiles  []string
	Environ   []string          // KEY=value, as from os.Environ
	Scheduled bool              // the command requires the cron expression
	Flags     map[string]string // by Key.Name
	Unknown   func(Unknown)     // called for each unknown key that resembles a key; can be nil
	Mistake   func(Mistake)     // called for each value with probable mistakes; can be nil
	Override  func(Override)    // called for each setting that replaces a different one; can be nil
	// Exposed is called for each env file with secrets, and for each file of a secret, that other
	// users can read; can be nil.
	Exposed func(input.Finding)
	Empty   func() // called if neither the environment nor a file has a setting; can be nil
}

// Mistake is a valid value that probably contains mistakes. It has an effect as it is, unless the
// mistake is that the variable is no setting.
type Mistake struct {
	Key           string // Key.Name
	input.Finding        // its name is the spelling, and the environment or the file and the line
}

// Override is a setting that replaces a different one, of a file that has a lower precedence.
type Override struct {
	Place    string // spelling, and environment or file and line
	Replaced string // the same of the other setting
}

// Load reads all settings.
func Load(src Source) (*Config, error) {
	l := &loader{spellings: spellings(), onUnknown: src.Unknown, onMistake: src.Mistake, misread: map[string]bool{}, warned: map[string]bool{}}
	l.layers = []layer{l.flags(src.Flags), l.environment(src.Environ)}
	for _, path := range src.EnvFiles { // later files come first
		l.layers = slices.Insert(l.layers, 2, l.envFile(path, src.Environ))
	}
	if src.Empty != nil && l.isEmpty() {
		src.Empty()
	}
	l.checkDuplicates()
	if src.Override != nil {
		l.reportOverrides(src.Override)
	}
	if src.Exposed != nil {
		l.reportExposed(src.EnvFiles, src.Exposed)
	}
	c := &Config{
		Gateway: l.gateway(),
		Run:     l.run(),
		Service: Service{
			Schedule:      l.schedule(src.Scheduled),
			StateDir:      optional[string](l, "service.state-dir"),
			RunOnStart:    optional[bool](l, "service.run-on-start"),
			ShutdownGrace: optional[time.Duration](l, "service.shutdown-grace"),
			AdminAddress:  optional[string](l, "service.admin.address"),
			AdminHosts:    optional[[]string](l, "service.admin.allowed-hosts"),
		},
		Log: Log{
			Level:  optional[string](l, "log.level"),
			Format: optional[string](l, "log.format"),
		},
	}
	l.checkUUIDs(c.Gateway)
	l.reportAll()
	if len(l.faults) > 0 {
		return nil, errors.Join(l.faults...)
	}
	// The grace includes the requests in flight, and then the end of the run.
	c.Gateway.Grace = c.Service.ShutdownGrace * 3 / 4
	c.Run.EndTimeout = min(5*time.Second, c.Service.ShutdownGrace/6)
	c.Run.Target = strings.Join([]string{c.Gateway.URL.String(), c.Gateway.CustomerUUID, c.Gateway.ConnectionUUID}, " ")
	c.Run.Profile, c.Secrets = c.Gateway.ProfileUUID, l.secrets
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

// checkUUIDs adds a mistake if two of the UUIDs are the same.
func (l *loader) checkUUIDs(o gateway.Options) {
	seen := map[string]bool{}
	for _, u := range []struct{ key, value string }{
		{"qualys.customerUuid", o.CustomerUUID}, {"qualys.connectionUuid", o.ConnectionUUID}, {"qualys.profileUuid", o.ProfileUUID},
	} {
		if u.value == "" { // it has a fault
			continue
		}
		if seen[u.value] {
			l.addMistakes(u.key, l.find(u.key), sameUUID)
		}
		seen[u.value] = true
	}
}

// rootsWith returns the system's roots and the certificates, or nil for the system's roots only.
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
		LastLogon:    optional[syncrun.LastLogon](l, "sync.last-logon"),
	}
}

// login reads the credentials of the authentication type. It ignores those of the other type,
// because the documented sample contains both.
func (l *loader) login() gateway.Login {
	kind, reason := optional[string](l, "authentication.type"), ""
	switch {
	case kind != "":
		reason = "required because authentication.type is " + kind
	case l.isSet("authentication.type"):
		return gateway.Login{} // its fault is reported; the required credentials are unknown
	case l.isSet("qualys.user.username"):
		kind, reason = "BASIC", "required because a user name is set"
	case l.isSet("oauth.client.id"):
		kind, reason = "OAUTH", "required because a client ID is set"
	case l.isMisread("qualys.user.username", "qualys.user.password", "oauth.client.id", "oauth.client.secret"):
		return gateway.Login{}
	default:
		l.fault("authentication.type", invalid(errNoLogin, "qualys.user.username with qualys.user.password (BASIC), or oauth.client.id with oauth.client.secret (OAUTH)"))
		return gateway.Login{}
	}
	if kind == "BASIC" {
		validate[*url.URL](l, "oauth.token.url")
		validate[string](l, "qualys.OAuthClientLevel")
		return gateway.Login{
			Username: required[string](l, "qualys.user.username", reason),
			Password: l.secret("qualys.user.password", reason),
		}
	}
	login := gateway.Login{
		ClientID:     required[string](l, "oauth.client.id", reason),
		ClientSecret: l.secret("oauth.client.secret", reason),
		TokenURL:     optional[*url.URL](l, "oauth.token.url"),
		Subscription: optional[string](l, "qualys.OAuthClientLevel") == "SUBSCRIPTION",
	}
	for _, key := range login.UnsendableKeys() {
		s := l.find(key)
		l.fault(s.place, invalid(withMistakes(errNotInHeader, s.text), "a value of one line"))
	}
	return login
}

// schedule returns nil without a cron expression.
func (l *loader) schedule(isRequired bool) *schedule.Schedule {
	if isRequired {
		return required[*schedule.Schedule](l, "service.cron-expression", "")
	}
	return optional[*schedule.Schedule](l, "service.cron-expression")
}

func (l *loader) proxy() *gateway.Proxy {
	if !optional[bool](l, "proxy.enabled") {
		if l.isSet("proxy.enabled") { // off on purpose
			return nil
		}
		if host := l.find("proxy.host"); host.isSet {
			l.addMistakes("proxy.host", host, noEffect)
		}
		validate[string](l, "service.http.proxy.scheme")
		validate[string](l, "proxy.host")
		validate[int](l, "proxy.port")
		return nil
	}
	const reason = "required because proxy.enabled is true"
	p := &gateway.Proxy{
		Scheme: optional[string](l, "service.http.proxy.scheme"),
		Host:   required[string](l, "proxy.host", reason),
		Port:   required[int](l, "proxy.port", reason),
	}
	if l.isSet("proxy.username") || l.isSet("proxy.password") {
		p.Username = required[string](l, "proxy.username", "required because proxy.password is set")
		p.Password = l.secret("proxy.password", "required because proxy.username is set")
	}
	return p
}

// source returns the connection and the profile, or nil if they come from the gateway.
func (l *loader) source() *syncrun.Source {
	if !l.isSet("ldap.host") {
		if l.isMisread("ldap.host") {
			return nil
		}
		for _, k := range keys {
			if place := l.firstPlace(k.Name); k.requiresHost && place != "" {
				l.fault(place, invalid(errRequiresHost, "both or neither"))
			}
		}
		return nil
	}
	const reason = "required because ldap.host is set"
	return &syncrun.Source{
		Directory: directory.Options{
			Protocol: optional[directory.Protocol](l, "ldap.protocol"),
			Hosts:    optional[[]string](l, "ldap.host"),
			Port:     optional[int](l, "ldap.port"),
			BindDN:   required[string](l, "ldap.bindDn", reason),
			Password: l.secret("ldap.password", reason),
		},
		Base:    required[string](l, "profile.baseContext", reason),
		Scope:   optional[directory.Scope](l, "profile.searchScope"),
		Posture: optional[bool](l, "profile.assets"),
	}
}
