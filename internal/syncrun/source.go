package syncrun

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/input"
)

// source returns the configured source, or else the gateway's.
func (r *Runner) source(ctx context.Context, log zerolog.Logger) (Source, error) {
	source, err := r.readSource(ctx)
	if err != nil {
		return source, err
	}
	if r.Source == nil {
		r.warnMistakes(log, source)
	}
	source.Directory = r.Search.ApplyTo(source.Directory)
	source.Directory.OnRequest = func(request string, class fault.Class, duration time.Duration) {
		log.Trace().Str("call", request).Str("class", string(class)).Int64("duration_ms", duration.Milliseconds()).Msg(MsgDirectoryRequest)
		if r.Search.Observe != nil {
			r.Search.Observe(request, class, duration)
		}
	}
	return source, nil
}

// readSource returns the configured source, or that of the gateway.
func (r *Runner) readSource(ctx context.Context) (Source, error) {
	if r.Source != nil {
		return *r.Source, nil
	}
	connection, err := r.Gateway.Connection(ctx)
	if err != nil {
		return Source{}, err
	}
	profile, err := r.Gateway.Profile(ctx)
	if err != nil {
		return Source{}, err
	}
	return sourceFromGateway(connection, profile)
}

// CheckSource reads the connection and the profile, as each run does, and returns the error of a run.
// It may be called during runs.
func (r *Runner) CheckSource(ctx context.Context) error {
	_, err := r.readSource(ctx)
	return err
}

// ApplyTo returns the directory options of a source with the search options applied.
func (s SearchOptions) ApplyTo(o directory.Options) directory.Options {
	o.PageSize, o.OnRequest, o.OnProgress = s.PageSize, s.Observe, s.OnProgress
	if s.ServerName != "" {
		o.ServerName = s.ServerName
	}
	if len(s.Certificates) > 0 {
		o.Certificates, o.CertificateMistakes = s.Certificates, nil
	}
	return o
}

// sourceFromGateway returns the source that the gateway's connection and profile define.
// Errors are to be corrected in the console. The next run reads the corrected values.
func sourceFromGateway(connection gateway.Connection, profile gateway.Profile) (Source, error) {
	source, err := SourceFromProfile(profile)
	if err != nil {
		return Source{}, err
	}
	source.Directory, err = DirectoryOptions(connection)
	return source, err
}

// DirectoryOptions returns the directory options that a connection of the gateway defines.
func DirectoryOptions(connection gateway.Connection) (directory.Options, error) {
	auth := connection.Authentication
	protocol, err := input.Choose(directory.Protocols, auth.Type)
	if err != nil {
		return directory.Options{}, fieldError("connection", "type", err)
	}
	if auth.BindDN == "" {
		return directory.Options{}, consoleError("connection", fmt.Errorf("the bind DN %w", errEmpty), "enter the account to bind as")
	}
	if auth.Password.IsZero() {
		return directory.Options{}, consoleError("connection", fmt.Errorf("the password %w", errEmpty), "enter the password of the account")
	}
	if len(auth.BindDN) > maxNameSize {
		return directory.Options{}, consoleError("connection", fmt.Errorf("the bind DN %w: more than %d bytes", errTooLong, maxNameSize), "correct the bind DN")
	}
	hosts, err := parseHosts(auth.Host)
	if err != nil {
		return directory.Options{}, fieldError("connection", "host", err)
	}
	if len(hosts) > maxHosts {
		return directory.Options{}, consoleError("connection", fmt.Errorf("the host %w: more than %d hosts", errTooLong, maxHosts), "correct the host: a DNS domain stands for all of its domain controllers")
	}
	o := directory.Options{Protocol: protocol, Hosts: hosts, Port: auth.Port, BindDN: auth.BindDN, Password: auth.Password}
	if auth.Certificate != "" {
		if o.Certificates, o.CertificateMistakes, err = directory.ParseCertificates([]byte(auth.Certificate)); err != nil {
			return directory.Options{}, consoleError("connection", fmt.Errorf("certificate: %w", err), "correct the certificate: "+fault.Remedy(err))
		}
	}
	return o, nil
}

// SourceFromProfile returns the source that a profile of the gateway defines, without its
// directory.
func SourceFromProfile(profile gateway.Profile) (Source, error) {
	scope, err := input.Choose(directory.Scopes, profile.SearchScope)
	if err != nil {
		return Source{}, fieldError("profile", "search scope", err)
	}
	posture, err := input.Choose(Assets, profile.Assets)
	if err != nil {
		return Source{}, fieldError("profile", "assets", err)
	}
	if profile.BaseContext == "" {
		return Source{}, consoleError("profile", fmt.Errorf("the base context %w", errEmpty), "enter the DN of the base context")
	}
	if len(profile.BaseContext) > maxNameSize {
		return Source{}, consoleError("profile", fmt.Errorf("the base context %w: more than %d bytes", errTooLong, maxNameSize), "correct the base context")
	}
	if err := directory.CheckBase(profile.BaseContext); err != nil {
		return Source{}, fieldError("profile", "base context", err)
	}
	return Source{Base: profile.BaseContext, Scope: scope, Posture: posture}, nil
}

// The limits of values from the gateway. Names are in errors and in the state file. The connector
// connects to each host in each run: without a limit, a gateway could use it to scan a network.
const (
	maxNameSize = 4 << 10
	maxHosts    = 100
)

var (
	// errEmpty is the fault of a required field of the console without a value.
	errEmpty = errors.New("is empty")
	// errTooLong is the fault of a field of the console with a value above a limit.
	errTooLong = errors.New("is too long")
)

// consoleError returns the error of a document that was entered in the console.
func consoleError(document string, cause error, remedy string) error {
	return fault.Operation{Object: document + " in the console"}.Failed(fault.Refused, cause, remedy)
}

// fieldError returns the error of a field with a value that is not allowed.
func fieldError(document, field string, err error) error {
	remedy, separator := "correct the "+field, " "
	if refused, is := errors.AsType[*input.ValueError](err); is {
		allowed := refused.Allowed
		if last := strings.LastIndex(allowed, ", "); last >= 0 && (errors.Is(err, input.ErrNotAllowed) || errors.Is(err, input.ErrMissing)) {
			allowed = allowed[:last] + " or " + allowed[last+2:]
		}
		remedy += ": " + allowed
		if input.HidesValue(refused.Text) {
			separator = ": " // the value is not shown
		}
	}
	if errors.Is(err, input.ErrHostPort) {
		remedy += "; enter the port in its own field"
	}
	return consoleError(document, fmt.Errorf("%s%s%w", field, separator, err), remedy)
}

// ConsoleMistakes returns the probable mistakes in the account and the certificate of a source from
// the gateway, and in its base. The values have an effect as they are.
func ConsoleMistakes(s Source) (all []input.Finding) {
	for _, field := range []input.Finding{
		{Name: "bind DN of the connection in the console", Mistakes: directory.AccountMistakes(s.Directory.BindDN)},
		{Name: "password of the connection in the console", Mistakes: input.Mistakes(s.Directory.Password.Reveal())},
		{Name: "certificate of the connection in the console", Mistakes: s.Directory.CertificateMistakes},
		{Name: "base context of the profile in the console", Mistakes: directory.BaseMistakes(s.Base)},
	} {
		if len(field.Mistakes) > 0 {
			all = append(all, field)
		}
	}
	return all
}

// warnMistakes logs the probable mistakes in a source from the gateway, once until they change.
func (r *Runner) warnMistakes(log zerolog.Logger, source Source) {
	mistakes := ConsoleMistakes(source)
	if text := fmt.Sprint(mistakes); text != r.warnedMistakes {
		r.warnedMistakes = text
		for _, m := range mistakes {
			log.Warn().Str("key", m.Name).Str("reason", m.Reason()).Str("remedy", m.Remedy()).Msg(MsgMistake)
		}
	}
}

// baseContextError adds a remedy if the base context does not exist, or is in another domain.
func baseContextError(err error) error {
	base := fault.Operation{Object: "base context"}
	const remedy = "correct profile.baseContext, or the profile in the console"
	switch {
	case errors.Is(err, directory.ErrNoSuchObject):
		return base.Failed(fault.Refused, err, remedy)
	case errors.Is(err, directory.ErrOtherDomain):
		return base.Failed(fault.Refused, err, remedy+", or connect to a domain controller of its domain")
	}
	return err
}

// parseHosts parses a list of hosts. Unlike in the setting ldap.host, white space can separate
// them too.
func parseHosts(list string) (hosts []string, err error) {
	for text := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		host, err := input.ParseHost(text)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// Assets are the names of the assets to read: whether they include the security posture. They
// are those of the contract and of the console.
var Assets = []input.Choice[bool]{
	{Value: false, Names: []string{"IDENTITIES_ONLY", "IDENTITY_ONLY"}},
	{Value: true, Names: []string{"IDENTITIES_WITH_SECURITY_POSTURE", "IDENTITY_WITH_SECURITY_POSTURE",
		"IDENTITIES_WITH_SECURITY_POSTURES", "IDENTITIES_AND_SECURITY_POSTURE", "IDENTITY_AND_SECURITY_POSTURE"}},
}
