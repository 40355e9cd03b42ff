package config

import (
	"cmp"
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

	Required string // when the key is required, as a text; empty: never
	Default  string // empty: none
	Absent   string // what applies without a value, if that is not a fixed default
	Meaning  string
	Allowed  string // the allowed values, with their unit; empty: any text
	Since    string // the first version with the key; empty: 1.0.0

	requiresHost bool   // has an effect only with ldap.host
	allowsAngles bool   // values can contain < and >
	empty        string // meaning of an empty value; "": it counts as absent
	parse        any    // a parser of the type in Config

	mistakes func(string) []error // finds probable mistakes in a valid value; nil: none
}

// Section is the keys of one subject.
type Section struct {
	Title string
	Note  string // applies to all keys; can be empty
	Keys  []Key
}

const (
	alwaysRequired   = "required"
	requiredForBasic = "required for BASIC"
	requiredForOAuth = "required for OAUTH"
	requiredByHost   = "required with ldap.host"

	requiredWithProxy = "required with a proxy"

	absentPath      = "the gateway's default"
	secureURL       = "https, or http on loopback"
	pathForm        = "a path that starts with /"
	certificatePath = "path of a file in DER or PEM"
	hostForm        = "a host name or an IP address"
	filterForm      = "an LDAP filter in parentheses"
	bindForms       = `a DN, user@domain, or DOMAIN\user`
)

// sections lists all keys. Tests compare docs/configuration.md and sample.env with it.
var sections = []Section{
	{Title: "Gateway and login", Keys: []Key{
		{Name: "connector.api.url", Required: alwaysRequired, Meaning: "base URL of the gateway", Allowed: secureURL, parse: gatewayURL, mistakes: urlMistakes},
		{Name: "qualys.customerUuid", Required: alwaysRequired, Meaning: "the customer in the console", Allowed: "a UUID", parse: uuid},
		{Name: "qualys.connectionUuid", Required: alwaysRequired, Meaning: "the connection in the console", Allowed: "a UUID", parse: uuid},
		{Name: "qualys.profileUuid", Required: alwaysRequired, Meaning: "the profile in the console", Allowed: "a UUID", parse: uuid},
		{Name: "authentication.type", Absent: "BASIC if a user name is set, else OAUTH", Meaning: "how to log in at the gateway", Allowed: "BASIC or OAUTH", parse: choiceOf(authenticationTypes)},
		{Name: "qualys.user.username", Required: requiredForBasic, Meaning: "user name at the gateway", allowsAngles: true, parse: verbatim, mistakes: input.Mistakes},
		{Name: "qualys.user.password", Secret: true, Required: requiredForBasic, Meaning: "password at the gateway", parse: parseSecret, mistakes: secretMistakes},
		{Name: "oauth.client.id", Aliases: []string{"qualys.clientId"}, Required: requiredForOAuth, Meaning: "client ID", allowsAngles: true, parse: verbatim, mistakes: input.Mistakes},
		{Name: "oauth.client.secret", Aliases: []string{"qualys.clientSecret"}, Secret: true, Required: requiredForOAuth, Meaning: "client secret", parse: parseSecret, mistakes: secretMistakes},
		{Name: "oauth.token.url", Absent: "the gateway's own endpoint", Meaning: "endpoint for client credentials", Allowed: secureURL, parse: httpsURL},
		{Name: "qualys.OAuthClientLevel", Default: "USER", Meaning: "which of the gateway's own token endpoints", Allowed: "USER or SUBSCRIPTION", parse: choiceOf(clientLevels)},
		{Name: "gateway.source", Default: "Microsoft Active Directory", Meaning: "name of the source that the gateway shows", allowsAngles: true, parse: verbatim, mistakes: input.Mistakes},
		{Name: "gateway.ca-file", Absent: "the system's", Meaning: "certificates to trust for HTTPS, in addition to the system's", Allowed: certificatePath, parse: certificateFile, mistakes: certificateMistakes},
		{Name: "gateway.path.connection", Absent: absentPath, Meaning: "the connection endpoint", Allowed: pathForm, parse: urlPath},
		{Name: "gateway.path.profile", Absent: absentPath, Meaning: "the profile endpoint", Allowed: pathForm, parse: urlPath},
		{Name: "gateway.path.assets", Absent: absentPath, Meaning: "the assets endpoint", Allowed: pathForm, parse: urlPath},
		{Name: "gateway.path.state", Absent: absentPath, Meaning: "the state endpoint", Allowed: pathForm, parse: urlPath},
	}},
	{Title: "Proxy", Note: "The proxy is used for the gateway, never for LDAP.", Keys: []Key{
		{Name: "proxy.enabled", Aliases: []string{"service.http.proxy.enabled"}, Default: "false", Meaning: "use a proxy", Allowed: "true or false", parse: boolean},
		{Name: "proxy.host", Aliases: []string{"service.http.proxy.host"}, Required: requiredWithProxy, Meaning: "the proxy", Allowed: hostForm, parse: hostOf("proxy")},
		{Name: "proxy.port", Aliases: []string{"service.http.proxy.port"}, Required: requiredWithProxy, Meaning: "port of the proxy", Allowed: "1 to 65535", parse: between(1, 65535)},
		{Name: "service.http.proxy.scheme", Default: "http", Meaning: "protocol between the connector and the proxy", Allowed: "http or https", parse: oneOf("http", "https")},
		{Name: "proxy.username", Required: "required with proxy.password", Meaning: "user name at the proxy", Allowed: "text without a colon", allowsAngles: true, parse: proxyUser, mistakes: input.Mistakes},
		{Name: "proxy.password", Secret: true, Required: "required with proxy.username", Meaning: "password at the proxy", parse: parseSecret, mistakes: secretMistakes},
	}},
	{Title: "Schedule and service", Keys: []Key{
		{Name: "service.cron-expression", Required: "required by the command run", Meaning: "when runs start", Allowed: "5 fields, or 6 with seconds first, or @hourly and the like; UTC unless it begins with CRON_TZ=", parse: schedule.Parse},
		{Name: "service.run-on-start", Default: "true", Meaning: "also run once at start", Allowed: "true or false", parse: boolean},
		{Name: "service.shutdown-grace", Default: "30s", Meaning: "time for a run to end after a stop", Allowed: "a duration, 1s to 1h", parse: durationBetween(time.Second, time.Hour)},
		{Name: "service.state-dir", Default: "/var/lib/adconnector", Meaning: "directory of the state file", Allowed: "a path", parse: verbatim, mistakes: dirMistakes},
		{Name: "service.admin.address", Default: "127.0.0.1:8080", Meaning: "address of the admin endpoint", Allowed: "host:port; empty or off: none", empty: "off", parse: listenAddress},
		{Name: "service.admin.allowed-hosts", Absent: "none", Meaning: "additional host names that requests to the admin endpoint may use, such as the name of a Kubernetes Service in a scrape", Allowed: "names, separated by commas", Since: "1.1.0", parse: hostNames},
	}},
	{Title: "Connection and profile", Note: "Without `ldap.host`, the connection and the profile come from the console, and the other keys of this table are errors.", Keys: []Key{
		{Name: "ldap.host", Absent: "connection and profile from the console", Meaning: "the domain controllers", Allowed: "hosts, separated by commas, or a name of several: a DNS domain, or a host with several addresses", parse: hosts},
		{Name: "ldap.protocol", Default: "LDAP", Meaning: "protocol of the directory", Allowed: "LDAP, LDAPS or STARTTLS", requiresHost: true, parse: choiceOf(directory.Protocols)},
		{Name: "ldap.port", Absent: "389, for LDAPS 636", Meaning: "port of the domain controllers", Allowed: "1 to 65535", requiresHost: true, parse: between(1, 65535)},
		{Name: "ldap.bindDn", Required: requiredByHost, Meaning: "the account to bind as", Allowed: bindForms, requiresHost: true, allowsAngles: true, parse: verbatim, mistakes: directory.AccountMistakes},
		{Name: "ldap.password", Secret: true, Required: requiredByHost, Meaning: "password of the account", requiresHost: true, parse: parseSecret, mistakes: secretMistakes},
		{Name: "profile.baseContext", Required: requiredByHost, Meaning: "search base", Allowed: "a DN, like DC=corp,DC=example,DC=com", requiresHost: true, allowsAngles: true, parse: distinguishedName, mistakes: directory.BaseMistakes},
		{Name: "profile.searchScope", Default: "SUBTREE", Meaning: "scope of the search", Allowed: "SUBTREE, ONE_LEVEL or BASE", requiresHost: true, parse: choiceOf(directory.Scopes)},
		{Name: "profile.assets", Default: "IDENTITIES_ONLY", Meaning: "what is sent", Allowed: "IDENTITIES_ONLY or IDENTITIES_WITH_SECURITY_POSTURE", requiresHost: true, parse: choiceOf(syncrun.Assets)},
	}},
	{Title: "Directory", Note: "These keys apply with and without `ldap.host`.", Keys: []Key{
		{Name: "ldap.certificate", Absent: "the console's, else the system's", Meaning: "certificate of the server, whose name then does not matter, or of its CA", Allowed: certificatePath, parse: certificateFile, mistakes: certificateMistakes},
		{Name: "ldap.server-name", Absent: "the host", Meaning: "name expected in the server's certificate", Allowed: hostForm, parse: hostOf("ldap")},
		{Name: "ldap.user-filter", Absent: "all users", Meaning: "additional filter for users", Allowed: filterForm, allowsAngles: true, parse: filter},
		{Name: "ldap.group-filter", Absent: "all groups", Meaning: "additional filter for groups", Allowed: filterForm, allowsAngles: true, parse: filter},
		{Name: "ldap.page-size", Default: "1000", Meaning: "objects in a page of search results; domain controllers return 1000 at most", Allowed: "1 to 10000", parse: between(1, 10000)},
	}},
	{Title: "Synchronization", Keys: []Key{
		{Name: "sync.full-interval", Default: "24h", Meaning: "maximum age of the last full sync", Allowed: "a duration, 1s to 720h", parse: durationBetween(time.Second, 720*time.Hour)},
		{Name: "sync.max-deletes", Default: "500", Meaning: "number of deletions above which a run holds all of them", Allowed: "0 to 1000000000", parse: between(0, 1_000_000_000)},
		{Name: "sync.max-deletes-percent", Default: "10", Meaning: "the same as a percentage of the objects in the index; up to five deletions never exceed it, unless it is 0", Allowed: "0 to 100", parse: between(0, 100)},
		{Name: "sync.last-logon", Default: "REPLICATED", Meaning: "ALL_CONTROLLERS: full syncs also ask the other domain controllers for the last logons", Allowed: "REPLICATED or ALL_CONTROLLERS", Since: "1.1.0", parse: oneOf(syncrun.LastLogonReplicated, syncrun.LastLogonAllControllers)},
	}},
	{Title: "Upload", Keys: []Key{
		{Name: "thread-pool.size", Aliases: []string{"service.child-thread-pool"}, Default: "10", Meaning: "upload workers; fewer while the gateway allows fewer concurrent calls", Allowed: "1 to 64", parse: between(1, 64)},
		{Name: "upload.batch-size", Default: "500", Meaning: "objects in a batch", Allowed: "1 to 5000", parse: between(1, 5000)},
		{Name: "upload.batch-bytes", Default: "1048576", Meaning: "bytes in a batch", Allowed: "1024 to 8388608", parse: between(1024, 8388608)},
	}},
	{Title: "Log", Keys: []Key{
		{Name: "log.level", Default: "info", Meaning: "least severe level that is logged", Allowed: "trace, debug, info, warn or error", parse: oneOf(LogLevels...)},
		{Name: "log.format", Absent: "json, unless stderr is a terminal", Meaning: "format of the log", Allowed: "json or console", parse: oneOf(LogFormats...)},
	}},
}

// keys are the keys of all sections.
var keys = allKeys()

func allKeys() (all []Key) {
	for _, s := range sections {
		all = append(all, s.Keys...)
	}
	return all
}

// description returns the allowed values and the meaning, for remedies.
func (k Key) description() string { return cmp.Or(k.Allowed, "any text") + " (" + k.Meaning + ")" }

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

// Sections returns all keys by subject, in the order of the documentation.
func Sections() []Section { return slices.Clone(sections) }

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
