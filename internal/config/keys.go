package config

import (
	"slices"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/input"
	"adconnector/internal/schedule"
	"adconnector/internal/syncrun"
)

// Key is a setting.
type Key struct {
	Name    string
	Aliases []string // other spellings, without the shell-safe forms
	Secret  bool     // the value can also come from the file in <key>.file
	Default string   // empty: none
	Doc     string   // meaning and allowed values

	requiresHost bool   // has an effect only with ldap.host
	allowsAngles bool   // values can contain < and >
	empty        string // meaning of an empty value; "": it counts as absent
	parse        any    // a parser of the type in Config

	mistakes func(string) []error // finds probable mistakes in a valid value; nil: none
}

// keys lists all keys. Tests compare docs/configuration.md and sample.env with it.
var keys = []Key{
	{Name: "connector.api.url", Doc: "required; base URL of the gateway, https, or http on loopback only", parse: gatewayURL, mistakes: urlMistakes},
	{Name: "qualys.customerUuid", Doc: "required; a UUID", parse: uuid},
	{Name: "qualys.connectionUuid", Doc: "required; a UUID", parse: uuid},
	{Name: "qualys.profileUuid", Doc: "required; a UUID", parse: uuid},

	{Name: "authentication.type", Doc: "BASIC or OAUTH; when absent BASIC if a user name is set, else OAUTH", parse: choiceOf(authenticationTypes)},
	{Name: "qualys.user.username", Doc: "required for BASIC; user name at the gateway", allowsAngles: true, parse: verbatim, mistakes: input.Mistakes},
	{Name: "qualys.user.password", Secret: true, Doc: "required for BASIC; password at the gateway", parse: parseSecret, mistakes: secretMistakes},
	{Name: "oauth.client.id", Aliases: []string{"qualys.clientId"}, Doc: "required for OAUTH; client ID", allowsAngles: true, parse: verbatim, mistakes: input.Mistakes},
	{Name: "oauth.client.secret", Aliases: []string{"qualys.clientSecret"}, Secret: true, Doc: "required for OAUTH; client secret", parse: parseSecret, mistakes: secretMistakes},
	{Name: "oauth.token.url", Doc: "a client-credentials endpoint, https, or http on loopback only; when absent the gateway's own", parse: httpsURL},
	{Name: "qualys.OAuthClientLevel", Default: "USER", Doc: "USER or SUBSCRIPTION: which of the gateway's own token endpoints", parse: choiceOf(clientLevels)},

	{Name: "service.cron-expression", Doc: "required by `run`; 5 fields, or 6 with seconds first, or @hourly and the like; UTC unless it begins with CRON_TZ=", parse: schedule.Parse},
	{Name: "service.run-on-start", Default: "true", Doc: "true or false: also run once at start", parse: boolean},
	{Name: "service.shutdown-grace", Default: "30s", Doc: "time for a run to end after a stop, 1s to 1h", parse: durationBetween(time.Second, time.Hour)},
	{Name: "service.state-dir", Default: "/var/lib/adconnector", Doc: "directory of the state file", parse: verbatim, mistakes: dirMistakes},
	{Name: "service.admin.address", Default: "127.0.0.1:8080", Doc: "host:port of the admin endpoint; empty or off: none", empty: "off", parse: listenAddress},
	{Name: "service.admin.allowed-hosts", Doc: "additional host names that requests to the admin endpoint may use, separated by commas, such as the name of a Kubernetes Service in a scrape", parse: hostNames},

	{Name: "proxy.enabled", Aliases: []string{"service.http.proxy.enabled"}, Default: "false", Doc: "true or false: reach the gateway through a proxy; never used for LDAP", parse: boolean},
	{Name: "proxy.host", Aliases: []string{"service.http.proxy.host"}, Doc: "required with a proxy; a host name or an IP address", parse: hostOf("proxy")},
	{Name: "proxy.port", Aliases: []string{"service.http.proxy.port"}, Doc: "required with a proxy; 1 to 65535", parse: between(1, 65535)},
	{Name: "service.http.proxy.scheme", Default: "http", Doc: "http or https: protocol between connector and proxy", parse: oneOf("http", "https")},
	{Name: "proxy.username", Doc: "required with proxy.password; user name at the proxy", allowsAngles: true, parse: proxyUser, mistakes: input.Mistakes},
	{Name: "proxy.password", Secret: true, Doc: "required with proxy.username; password at the proxy", parse: parseSecret, mistakes: secretMistakes},

	{Name: "thread-pool.size", Aliases: []string{"service.child-thread-pool"}, Default: "10", Doc: "upload workers, 1 to 64; fewer while the gateway allows fewer concurrent calls", parse: between(1, 64)},
	{Name: "upload.batch-size", Default: "500", Doc: "objects in a batch, 1 to 5000", parse: between(1, 5000)},
	{Name: "upload.batch-bytes", Default: "1048576", Doc: "bytes in a batch, 1024 to 8388608", parse: between(1024, 8388608)},

	{Name: "sync.full-interval", Default: "24h", Doc: "maximum age of the last full sync, 1s to 720h", parse: durationBetween(time.Second, 720*time.Hour)},
	{Name: "sync.max-deletes", Default: "500", Doc: "number of deletions above which a run holds all of them, 0 to 1000000000", parse: between(0, 1_000_000_000)},
	{Name: "sync.max-deletes-percent", Default: "10", Doc: "the same as a percentage of the objects in the index, 0 to 100; up to five deletions never exceed it, unless it is 0", parse: between(0, 100)},
	{Name: "sync.last-logon", Default: "REPLICATED", Doc: "REPLICATED, or ALL_CONTROLLERS: full syncs also ask the other domain controllers for the last logons", parse: oneOf(syncrun.LastLogonReplicated, syncrun.LastLogonAllControllers)},

	{Name: "ldap.host", Doc: "domain controller, several separated by commas, or a name of several: a DNS domain, or a host with several addresses; when set, connection and profile come from these keys instead of the gateway", parse: hosts},
	{Name: "ldap.protocol", Default: "LDAP", Doc: "LDAP, LDAPS or STARTTLS", requiresHost: true, parse: choiceOf(directory.Protocols)},
	{Name: "ldap.port", Doc: "1 to 65535; when absent 389, for LDAPS 636", requiresHost: true, parse: between(1, 65535)},
	{Name: "ldap.bindDn", Doc: "required with ldap.host; the account to bind as", requiresHost: true, allowsAngles: true, parse: verbatim, mistakes: directory.AccountMistakes},
	{Name: "ldap.password", Secret: true, Doc: "required with ldap.host; password of the account", requiresHost: true, parse: parseSecret, mistakes: secretMistakes},
	{Name: "profile.baseContext", Doc: "required with ldap.host; DN of the search base, like DC=corp,DC=example,DC=com", requiresHost: true, allowsAngles: true, parse: distinguishedName, mistakes: directory.BaseMistakes},
	{Name: "profile.searchScope", Default: "SUBTREE", Doc: "SUBTREE, ONE_LEVEL or BASE", requiresHost: true, parse: choiceOf(directory.Scopes)},
	{Name: "profile.assets", Default: "IDENTITIES_ONLY", Doc: "IDENTITIES_ONLY or IDENTITIES_WITH_SECURITY_POSTURE", requiresHost: true, parse: choiceOf(syncrun.Assets)},

	{Name: "ldap.certificate", Doc: "path of the server's or its CA's certificate, a .cer file in DER or PEM", parse: certificateFile, mistakes: certificateMistakes},
	{Name: "ldap.server-name", Doc: "name expected in the server's certificate; when absent the host", parse: hostOf("ldap")},
	{Name: "ldap.user-filter", Doc: "additional LDAP filter for users, in parentheses", allowsAngles: true, parse: filter},
	{Name: "ldap.group-filter", Doc: "additional LDAP filter for groups, in parentheses", allowsAngles: true, parse: filter},
	{Name: "ldap.page-size", Default: "1000", Doc: "objects in a page of search results, 1 to 10000; domain controllers return 1000 at most", parse: between(1, 10000)},

	{Name: "gateway.source", Default: "Microsoft Active Directory", Doc: "name of the source that the gateway shows", allowsAngles: true, parse: verbatim, mistakes: input.Mistakes},
	{Name: "gateway.ca-file", Doc: "path of additional trusted certificates, DER or PEM", parse: certificateFile, mistakes: certificateMistakes},
	{Name: "gateway.path.connection", Doc: "path of the connection endpoint, starting with /; when absent the gateway's default", parse: urlPath},
	{Name: "gateway.path.profile", Doc: "path of the profile endpoint, starting with /; when absent the gateway's default", parse: urlPath},
	{Name: "gateway.path.assets", Doc: "path of the assets endpoint, starting with /; when absent the gateway's default", parse: urlPath},
	{Name: "gateway.path.state", Doc: "path of the state endpoint, starting with /; when absent the gateway's default", parse: urlPath},

	{Name: "log.level", Default: "info", Doc: "trace, debug, info, warn or error", parse: oneOf(LogLevels...)},
	{Name: "log.format", Doc: "json or console; when absent json, unless stderr is a terminal", parse: oneOf(LogFormats...)},
}

// requirement splits Doc: when the key is required (empty: never), and the meaning and allowed
// values.
func (k Key) requirement() (required, allowed string) {
	if required, allowed, ok := strings.Cut(k.Doc, "; "); ok && strings.HasPrefix(required, "required") {
		return required, allowed
	}
	return "", k.Doc
}

// ShellSafe returns the form of the key that shells and systemd accept.
func (k Key) ShellSafe() string { return shellSafe(k.Name) }

// The names of the authentication types and of the client levels.
var (
	authenticationTypes = []input.Choice[string]{
		{Value: "BASIC", Names: []string{"BASIC", "BASIC_AUTH", "BASIC_AUTHENTICATION"}},
		{Value: "OAUTH", Names: []string{"OAUTH", "OAUTH2", "OAUTH_2.0"}},
	}
	clientLevels = []input.Choice[string]{
		{Value: "USER", Names: []string{"USER", "USER_LEVEL"}},
		{Value: "SUBSCRIPTION", Names: []string{"SUBSCRIPTION", "SUBSCRIPTION_LEVEL"}},
	}
)

// The allowed values of log.level and log.format.
var (
	LogLevels  = []string{"trace", "debug", "info", "warn", "error"}
	LogFormats = []string{"json", "console"}
)

// Keys returns all keys in the order of the documentation.
func Keys() []Key { return slices.Clone(keys) }

// keyReference is the meaning of a spelling.
type keyReference struct {
	name string // Key.Name
	file bool   // the value is the path of a file with the secret
}

// spellings returns all spellings of all keys.
func spellings() map[string]keyReference {
	all := map[string]keyReference{}
	for _, k := range keys {
		for _, spelling := range append([]string{k.Name}, k.Aliases...) {
			all[spelling] = keyReference{name: k.Name}
			all[shellSafe(spelling)] = keyReference{name: k.Name}
			if k.Secret {
				all[spelling+".file"] = keyReference{name: k.Name, file: true}
				all[shellSafe(spelling+".file")] = keyReference{name: k.Name, file: true}
			}
		}
	}
	return all
}

var underscores = strings.NewReplacer(".", "_", "-", "_")

// shellSafe returns the form that shells and systemd accept.
func shellSafe(spelling string) string {
	return strings.ToUpper(underscores.Replace(spelling))
}

func keyByName(name string) Key {
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
	return keys[i]
}
