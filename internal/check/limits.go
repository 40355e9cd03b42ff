package check

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
)

// defaultMaxPageSize is MaxPageSize without a policy (MS-ADTS 3.1.1.3.4.6).
const defaultMaxPageSize = 1000

func (p *preflight) pageSize(ctx context.Context) Check {
	if p.session == nil {
		return skipped("not bound")
	}
	size := p.session.PageSize
	limit, known := p.readPageLimit(ctx)
	switch {
	case !p.session.RootDSE.IsDomainController() && !known:
		return ok("%d; the limit of the server is unknown", size)
	case !known:
		limit = defaultMaxPageSize
	}
	source := "limit of the server"
	if !known {
		source = "the limit of the server is not readable, its default is"
	}
	if size > limit {
		return warn(fmt.Sprintf("ldap.page-size is %d; %s %d", size, source, limit), fmt.Sprintf("set ldap.page-size to %d", limit))
	}
	return ok("%d; %s %d", size, source, limit)
}

// readPageLimit returns MaxPageSize from the policy of the domain controller: its own, that of
// its site, or that of the forest (MS-ADTS 3.1.1.3.4.6).
func (p *preflight) readPageLimit(ctx context.Context) (int, bool) {
	settings, forest := p.session.RootDSE.DSServiceName, p.session.RootDSE.ConfigurationContext
	if settings == "" || forest == "" {
		return 0, false
	}
	// CN=NTDS Settings,CN=<server>,CN=Servers,CN=<site>,…
	_, site, _ := strings.Cut(settings, ",CN=Servers,")
	policies := []string{
		p.readPolicyName(ctx, settings), p.readPolicyName(ctx, "CN=NTDS Site Settings,"+site),
		"CN=Default Query Policy,CN=Query-Policies,CN=Directory Service,CN=Windows NT,CN=Services," + forest,
	}
	for _, policy := range policies {
		if policy == "" {
			continue
		}
		found, err := p.session.Read(ctx, policy, "lDAPAdminLimits")
		if err != nil {
			continue // not readable
		}
		if n, ok := maxPageSize(found["lDAPAdminLimits"]); ok {
			return n, true
		}
	}
	return 0, false
}

// maxPageSize returns MaxPageSize from the values of a policy, like MaxPageSize=1000.
func maxPageSize(limits [][]byte) (int, bool) {
	for _, limit := range limits {
		name, text, _ := strings.Cut(string(limit), "=")
		if n, err := strconv.Atoi(text); err == nil && strings.EqualFold(name, "MaxPageSize") {
			return n, true
		}
	}
	return 0, false
}

func (p *preflight) readPolicyName(ctx context.Context, dn string) string {
	found, err := p.session.Read(ctx, dn, "queryPolicyObject")
	if err != nil {
		return ""
	}
	return string(found.First("queryPolicyObject"))
}

// maxSkew is the difference between clocks above which there is a warning.
const maxSkew = time.Minute

// timeSkew compares the clock of this host with those of the directory and the gateway. If only
// one of them differs, that one is wrong.
func (p *preflight) timeSkew(ctx context.Context) Check {
	var found, wrong []string
	add := func(clock string, ahead time.Duration) {
		found = append(found, clock+" "+describeSkew(ahead))
		if ahead.Abs() > maxSkew {
			wrong = append(wrong, clock)
		}
	}
	if ahead, ok := p.directorySkew(ctx); ok {
		add("the directory's clock", ahead)
	}
	if hints := p.Gateway.ServerHints(); hints.HasDate {
		add("the gateway's clock", hints.ClockAhead)
	}
	switch {
	case len(found) == 0:
		return skipped("neither the directory nor the gateway sent its time")
	case len(wrong) == 0:
		return ok("%s", strings.Join(found, ", "))
	case len(wrong) == len(found):
		return warn(strings.Join(found, ", "), "set the clock of this host, preferably by NTP")
	}
	return warn(strings.Join(found, ", "), fmt.Sprintf("set %s, preferably by NTP", wrong[0]))
}

// directorySkew returns how far the directory's clock is ahead of this host's.
func (p *preflight) directorySkew(ctx context.Context) (time.Duration, bool) {
	if p.session == nil {
		return 0, false
	}
	requested := p.now()
	root, err := p.session.Read(ctx, "", "currentTime")
	if err != nil {
		return 0, false
	}
	serverTime, ok := ad.ParseGeneralizedTime(root.First("currentTime"))
	return serverTime.Sub(requested.Add(p.now().Sub(requested) / 2)), ok
}

// describeSkew describes a difference between clocks. Below 2 s it is none, because servers
// send whole seconds.
func describeSkew(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d.Abs() <= 2*time.Second:
		return "agrees"
	case d > 0:
		return "is " + d.String() + " ahead"
	default:
		return "is " + (-d).String() + " behind"
	}
}
