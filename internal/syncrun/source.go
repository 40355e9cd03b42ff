package syncrun

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
)

// source returns the configured source, or else the gateway's.
func (r *Runner) source(ctx context.Context, log zerolog.Logger) (Source, error) {
	var source Source
	if r.Source != nil {
		source = *r.Source
	} else {
		connection, err := r.Gateway.Connection(ctx)
		if err != nil {
			return source, err
		}
		profile, err := r.Gateway.Profile(ctx)
		if err != nil {
			return source, err
		}
		if source, err = sourceFromGateway(connection, profile); err != nil {
			return source, err
		}
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

// ApplyTo returns the directory options of a source with the search options applied.
func (s SearchOptions) ApplyTo(o directory.Options) directory.Options {
	o.PageSize, o.OnRequest, o.OnProgress = s.PageSize, s.Observe, s.OnProgress
	if s.ServerName != "" {
		o.ServerName = s.ServerName
	}
	if len(s.Certificates) > 0 {
		o.Certificates = s.Certificates
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
	protocol, err := directory.ParseProtocol(auth.Type)
	if err != nil {
		return directory.Options{}, consoleError("connection", err, "")
	}
	o := directory.Options{
		Protocol: protocol, Hosts: splitHosts(auth.Host), Port: auth.Port, BindDN: auth.BindDN, Password: auth.Password,
	}
	if auth.Certificate != "" {
		if o.Certificates, err = directory.ParseCertificates([]byte(auth.Certificate)); err != nil {
			return directory.Options{}, consoleError("connection", fmt.Errorf("certificate: %w", err), "provide PEM, DER or base64-encoded DER")
		}
	}
	return o, nil
}

// SourceFromProfile returns the source that a profile of the gateway defines, without its
// directory.
func SourceFromProfile(profile gateway.Profile) (Source, error) {
	scope, err := directory.ParseScope(profile.SearchScope)
	if err != nil {
		return Source{}, consoleError("profile", err, "")
	}
	posture, err := parsePosture(profile.Assets)
	if err != nil {
		return Source{}, consoleError("profile", err, "")
	}
	if profile.BaseContext == "" {
		return Source{}, consoleError("profile", errors.New("the base context is empty"), "enter the DN of the base context")
	}
	return Source{Base: profile.BaseContext, Scope: scope, Posture: posture}, nil
}

// consoleError returns the error of a document that was entered in the console.
func consoleError(document string, cause error, remedy string) error {
	return fault.Operation{Object: document + " in the console"}.Failed(fault.Refused, cause, remedy)
}

// baseContextError adds a remedy if the base context does not exist.
func baseContextError(err error) error {
	if !errors.Is(err, directory.ErrNoSuchObject) {
		return err
	}
	return fault.Operation{Object: "base context"}.Failed(fault.Refused, err, "correct profile.baseContext, or the profile in the console")
}

// splitHosts splits a list of hosts by the rules of the setting ldap.host.
func splitHosts(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// parsePosture reports whether a profile's assets include the security posture. It ignores
// case, spaces, hyphens and underscores.
func parsePosture(assets string) (bool, error) {
	switch strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(assets)) {
	case "IDENTITIESONLY":
		return false, nil
	case "IDENTITIESWITHSECURITYPOSTURE", "IDENTITYWITHSECURITYPOSTURE":
		return true, nil
	}
	return false, fault.Operation{Object: "assets"}.Failed(fault.Refused, fmt.Errorf("unknown value %q", assets), "use IDENTITIES_ONLY or IDENTITIES_WITH_SECURITY_POSTURE")
}
