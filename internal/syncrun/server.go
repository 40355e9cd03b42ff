package syncrun

import (
	"context"
	"errors"
	"slices"
	"strings"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
)

// Some kinds of servers lack attributes that a writable domain controller has:
//   - A global catalog. Package directory refuses its ports.
//   - A read-only domain controller has neither passwords nor the attributes that the schema
//     excludes (see ReadFiltered). By default, these are keys and passwords of BitLocker, TPM
//     and credential roaming, of which the maps have none. Constructed attributes, such as
//     msDS-User-Account-Control-Computed, are computed there from replicated attributes, and
//     lastLogonTimestamp is replicated. Neither critical attributes can be excluded, nor those
//     that are constructed or not replicated (MS-ADTS 3.1.1.2.3). Of the maps, that leaves few:
//     mail, mobile, title, co.
//   - AD LDS has no domain. It counts as a server that is no domain controller: each run is a
//     full sync, configured filters replace the default ones, and absent objects of a domain
//     (roles, policies, trusts) are left out. userAccountControl does not exist there. Its flags
//     are in msDS-User-Account-Control-Computed.

var errFiltered = errors.New("not replicated to this read-only domain controller")

// checkServer logs, once per process, that the server is of a kind that lacks attributes. It
// returns an error if a value that is missing there would replace the one at the gateway.
func (r *Runner) checkServer(ctx context.Context, info runInfo, source Source, s *session) (err error) {
	message, remedy := "", ""
	switch root := s.RootDSE; {
	case root.LDS:
		message, remedy = MsgLDS, "connect to a domain controller; for AD LDS itself, set ldap.user-filter and ldap.group-filter to filters of its objects"
	case root.ReadOnly:
		message, remedy = MsgReadOnlyController, WritableRemedy
	default:
		return nil
	}
	if !r.warnedServer {
		r.warnedServer = true
		info.log.Warn().Str("dc", s.Address).Str("remedy", remedy).Msg(message)
	}
	s.filtered, err = ReadFiltered(ctx, s.Session, source.Posture)
	return err
}

// WritableRemedy is what to do about a read-only domain controller.
const WritableRemedy = "connect to a writable domain controller: set ldap.host, or the host of the connection in the console"

// ReadFiltered returns the attributes that are not replicated to the server: none, unless it is
// a read-only domain controller. It returns an error of class fault.Refused if some of them are
// source attributes of users, groups, service accounts or roles. These assets cannot say that
// an attribute is unreadable. The domain's asset can.
func ReadFiltered(ctx context.Context, s *directory.Session, posture bool) ([]string, error) {
	if !s.RootDSE.ReadOnly {
		return nil, nil
	}
	filtered, err := s.FilteredAttributes(ctx)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, attribute := range identity.SourceAttributes(posture) {
		if containsName(filtered, attribute) {
			missing = append(missing, attribute)
		}
	}
	if len(missing) > 0 {
		return nil, fault.Operation{Op: "read", Object: strings.Join(missing, ", ") + " on " + s.Address}.Failed(fault.Refused, errFiltered,
			WritableRemedy+"; or remove the attributes from the filtered attribute set in the schema")
	}
	return filtered, nil
}

// containsName reports whether names contain a name, without regard to case.
func containsName(names []string, name string) bool {
	return slices.ContainsFunc(names, func(other string) bool { return strings.EqualFold(other, name) })
}

// lacksAny reports whether the server lacks any of the attributes.
func (s *session) lacksAny(attributes []string) bool {
	return slices.ContainsFunc(attributes, func(name string) bool { return containsName(s.filtered, name) })
}
