package syncrun

import (
	"context"
	"strings"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
)

// source says where to read: the environment's word, else the gateway's of now.
func (r *Runner) source(ctx context.Context) (Source, error) {
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
	return source, nil
}

// Over puts what holds whatever the source over the source's own.
func (s Search) Over(o directory.Options) directory.Options {
	o.PageSize, o.Observe = s.PageSize, s.Observe
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
		return directory.Options{}, fault.Errorf(fault.Refused, "connection in the console: %w", err)
	}
	o := directory.Options{
		Protocol: protocol, Hosts: hostsOf(auth.Host), Port: auth.Port, BindDN: auth.BindDN, Password: auth.Password,
	}
	if auth.Certificate != "" {
		if o.Certificates, err = directory.ParseCertificates([]byte(auth.Certificate)); err != nil {
			return directory.Options{}, fault.Errorf(fault.Refused, "connection in the console: certificate: %w: give PEM, DER or base64 of DER", err)
		}
	}
	return o, nil
}

// PartOf reads the profile as the console has it, into a source without a directory.
func PartOf(profile gateway.Profile) (Source, error) {
	scope, err := directory.ParseScope(profile.SearchScope)
	if err != nil {
		return Source{}, fault.Errorf(fault.Refused, "profile in the console: %w", err)
	}
	posture, err := parsePosture(profile.Assets)
	if err != nil {
		return Source{}, fault.Errorf(fault.Refused, "profile in the console: %w", err)
	}
	if profile.BaseContext == "" {
		return Source{}, fault.Errorf(fault.Refused, "profile in the console: the base context is empty: give the DN from which to read")
	}
	return Source{Base: profile.BaseContext, Scope: scope, Posture: posture}, nil
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
	return false, fault.Errorf(fault.Refused, "assets %q is unknown: use IDENTITIES_ONLY or IDENTITIES_WITH_SECURITY_POSTURE", assets)
}
