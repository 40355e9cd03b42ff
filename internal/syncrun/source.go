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

// source returns where to read: the configured source, else the gateway's.
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
		if source, err = sourceOf(connection, profile); err != nil {
			return source, err
		}
	}
	source.Directory = r.Search.Over(source.Directory)
	source.Directory.Observe = func(request string, class fault.Class, took time.Duration) {
		log.Trace().Str("call", request).Str("class", string(class)).Int64("duration_ms", took.Milliseconds()).Msg(MsgDirectoryAnswered)
		if r.Search.Observe != nil {
			r.Search.Observe(request, class, took)
		}
	}
	return source, nil
}

// Over puts what holds whatever the source over the source's own.
func (s Search) Over(o directory.Options) directory.Options {
	o.PageSize, o.Observe, o.Received = s.PageSize, s.Observe, s.Received
	if s.ServerName != "" {
		o.ServerName = s.ServerName
	}
	if len(s.Certificates) > 0 {
		o.Certificates = s.Certificates
	}
	return o
}

// sourceOf reads the gateway's documents. What is wrong with them is corrected in
// the console, and the next run sees it.
func sourceOf(connection gateway.Connection, profile gateway.Profile) (Source, error) {
	source, err := PartOf(profile)
	if err != nil {
		return Source{}, err
	}
	source.Directory, err = DirectoryOf(connection)
	return source, err
}

// DirectoryOf reads the connection as the console has it.
func DirectoryOf(connection gateway.Connection) (directory.Options, error) {
	auth := connection.Authentication
	protocol, err := directory.ParseProtocol(auth.Type)
	if err != nil {
		return directory.Options{}, console("connection", err, "")
	}
	o := directory.Options{
		Protocol: protocol, Hosts: hostsOf(auth.Host), Port: auth.Port, BindDN: auth.BindDN, Password: auth.Password,
	}
	if auth.Certificate != "" {
		if o.Certificates, err = directory.ParseCertificates([]byte(auth.Certificate)); err != nil {
			return directory.Options{}, console("connection", fmt.Errorf("certificate: %w", err), "give PEM, DER or base64 of DER")
		}
	}
	return o, nil
}

// PartOf reads the profile as the console has it, into a source without a directory.
func PartOf(profile gateway.Profile) (Source, error) {
	scope, err := directory.ParseScope(profile.SearchScope)
	if err != nil {
		return Source{}, console("profile", err, "")
	}
	posture, err := parsePosture(profile.Assets)
	if err != nil {
		return Source{}, console("profile", err, "")
	}
	if profile.BaseContext == "" {
		return Source{}, console("profile", errors.New("the base context is empty"), "enter the DN from which to read")
	}
	return Source{Base: profile.BaseContext, Scope: scope, Posture: posture}, nil
}

// console returns the error of a document that the console has.
func console(document string, cause error, remedy string) error {
	return fault.Operation{Object: document + " in the console"}.Failed(fault.Refused, cause, remedy)
}

// baseContextError adds the remedy for a base context that does not exist.
func baseContextError(err error) error {
	if !errors.Is(err, directory.ErrNoObject) {
		return err
	}
	return fault.Operation{Object: "base context"}.Failed(fault.Refused, err, "correct profile.baseContext, or the profile in the console")
}

// hostsOf splits a list of hosts as ldap.host is split.
func hostsOf(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// parsePosture reads a profile's choice of assets, without regard to case and
// separators: identities, with or without their security posture.
func parsePosture(assets string) (bool, error) {
	switch strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(assets)) {
	case "IDENTITIESONLY":
		return false, nil
	case "IDENTITIESWITHSECURITYPOSTURE", "IDENTITYWITHSECURITYPOSTURE":
		return true, nil
	}
	return false, fault.Operation{Object: "assets"}.Failed(fault.Refused, fmt.Errorf("%q is unknown", assets), "use IDENTITIES_ONLY or IDENTITIES_WITH_SECURITY_POSTURE")
}
