package check

import (
	"context"
	"fmt"
	"strings"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

// replicatedDelay is why logons can be missing without ALL_CONTROLLERS (MS-ADA1 2.352).
const replicatedDelay = "a logon on another one is sent with its replicated copy, up to 14 days late"

// maxNamed is the number of domain controllers that a check names.
const maxNamed = 5

// lastLogon checks which of the other domain controllers can be asked for the logons that only they
// count. It binds at each of them, as a run with ALL_CONTROLLERS does.
func (p *preflight) lastLogon(ctx context.Context) Check {
	if p.session == nil {
		return skipped("not bound")
	}
	all := p.LastLogon == syncrun.LastLogonAllControllers
	others, _, err := syncrun.OtherControllers(ctx, p.session)
	switch {
	case err != nil && all:
		return warnOf(asTransient(ctx, err))
	case err != nil:
		return ok("the other domain controllers are unknown: %s", asTransient(ctx, err))
	case len(others) == 0:
		return ok("the domain has no other domain controller")
	}
	errs := syncrun.AskControllers(ctx, p.session, others, nil, func(context.Context, int, *directory.Session) error { return nil })
	r := reachOf(others, errs)
	found := fmt.Sprintf("the domain has %d domain controllers", len(others)+1)
	switch {
	case len(r.failed) == 0 && all:
		return ok("%s; %s can be asked", found, partOfOthers(len(others), len(others)))
	case len(r.failed) == 0:
		return ok("%s; %s can be asked: to send all logons, set sync.last-logon to ALL_CONTROLLERS; with REPLICATED, %s", found, partOfOthers(len(others), len(others)), replicatedDelay)
	}
	found += fmt.Sprintf("; %s cannot be asked: %s", partOfOthers(len(r.failed), len(others)), r.names())
	if pinned := p.pinnedTo(); r.certificate && pinned != "" {
		found += "; " + pinned
	}
	if !all {
		return ok("%s; %s", found, replicatedDelay)
	}
	return warn(found+"; logons there are missing, or "+replicatedDelay, fault.Remedy(r.first))
}

// partOfOthers describes n of the other domain controllers.
func partOfOthers(n, others int) string {
	switch {
	case others == 1:
		return "the other domain controller"
	case n == others:
		return fmt.Sprintf("the other %d", others)
	}
	return fmt.Sprintf("%d of the other %d", n, others)
}

// reach is which domain controllers cannot be asked.
type reach struct {
	failed      []string // with the result and the error
	first       error    // the first one that is not a consequence of another one
	certificate bool     // the certificate of any of them is not accepted
}

func reachOf(others []directory.DomainController, errs []error) (r reach) {
	for i, err := range errs {
		if err == nil {
			continue
		}
		result := syncrun.LogonResultOf(err)
		r.failed = append(r.failed, fmt.Sprintf("%s (%s: %s)", others[i].Name(), result, err))
		r.certificate = r.certificate || result == state.LogonsCertificate
		if r.first == nil || syncrun.LogonResultOf(r.first) == state.LogonsNotAsked {
			r.first = err
		}
	}
	return r
}

func (r reach) names() string {
	text := strings.Join(r.failed[:min(len(r.failed), maxNamed)], ", ")
	if more := len(r.failed) - maxNamed; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}

// pinnedTo returns why the configuration allows only one domain controller; "": it does not.
func (p *preflight) pinnedTo() string {
	if p.directory.ServerName != "" {
		return "ldap.server-name names the only certificate that is accepted"
	}
	for _, probe := range p.probes {
		if probe.Pinned {
			return fmt.Sprintf("%s is the certificate of one server, and only that one is accepted", p.setting("ldap.certificate", "the connection's certificate"))
		}
	}
	return ""
}
