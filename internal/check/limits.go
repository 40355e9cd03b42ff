package check

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
)

// usualPageSize is MaxPageSize where no policy says otherwise (MS-ADTS 3.1.1.3.4.6).
const usualPageSize = 1000

func (i *inspection) pageSize(ctx context.Context) Check {
	if i.session == nil {
		return skipped("there is no bind")
	}
	asked := i.session.PageSize
	limit, known := i.limitOfPages(ctx)
	switch {
	case !i.session.RootDSE.IsDomainController() && !known:
		return ok("%d; the server does not say what it allows", asked)
	case !known:
		limit = usualPageSize
	}
	says := "the server gives"
	if !known {
		says = "the account may not read the server's limit, which is usually"
	}
	if asked > limit {
		return warn(fmt.Sprintf("ldap.page-size is %d, but %s %d at most", asked, says, limit), fmt.Sprintf("set ldap.page-size to %d", limit))
	}
	return ok("%d, %s %d", asked, says, limit)
}

// limitOfPages reads the policy that holds for the domain controller: its own, its
// site's, or the forest's (MS-ADTS 3.1.1.3.4.6).
func (i *inspection) limitOfPages(ctx context.Context) (int, bool) {
	settings, forest := i.session.RootDSE.DSServiceName, i.session.RootDSE.ConfigurationContext
	if settings == "" || forest == "" {
		return 0, false
	}
	// CN=NTDS Settings,CN=<server>,CN=Servers,CN=<site>,…
	_, site, _ := strings.Cut(settings, ",CN=Servers,")
	policies := []string{
		i.policyOf(ctx, settings), i.policyOf(ctx, "CN=NTDS Site Settings,"+site),
		"CN=Default Query Policy,CN=Query-Policies,CN=Directory Service,CN=Windows NT,CN=Services," + forest,
	}
	for _, policy := range policies {
		if policy == "" {
			continue
		}
		found, err := i.session.Read(ctx, policy, "lDAPAdminLimits")
		if err != nil {
			continue // it is another one's, or may not be read
		}
		if n, says := maxPageSize(found["lDAPAdminLimits"]); says {
			return n, true
		}
	}
	return 0, false
}

// maxPageSize reads it from a policy, whose values are like MaxPageSize=1000.
func maxPageSize(limits [][]byte) (int, bool) {
	for _, limit := range limits {
		name, text, _ := strings.Cut(string(limit), "=")
		if n, err := strconv.Atoi(text); err == nil && strings.EqualFold(name, "MaxPageSize") {
			return n, true
		}
	}
	return 0, false
}

func (i *inspection) policyOf(ctx context.Context, dn string) string {
	found, err := i.session.Read(ctx, dn, "queryPolicyObject")
	if err != nil {
		return ""
	}
	return string(found.First("queryPolicyObject"))
}

// skewBearable is how far clocks may differ before it is worth a word.
const skewBearable = time.Minute

// timeSkew compares this machine's clock with the others'. Which of them is wrong
// shows when two agree.
func (i *inspection) timeSkew(ctx context.Context) Check {
	var found, off []string
	note := func(whose string, ahead time.Duration) {
		found = append(found, whose+" "+aheadOf(ahead))
		if ahead.Abs() > skewBearable {
			off = append(off, whose)
		}
	}
	if ahead, told := i.directoryAhead(ctx); told {
		note("the directory's clock", ahead)
	}
	if hints := i.Gateway.ServerHints(); hints.HasDate {
		note("the gateway's clock", hints.ClockAhead)
	}
	switch {
	case len(found) == 0:
		return skipped("neither the directory nor the gateway has told its time")
	case len(off) == 0:
		return ok("%s", strings.Join(found, ", "))
	case len(off) == len(found):
		return warn(strings.Join(found, ", "), "set this machine's clock, best by NTP")
	}
	return warn(strings.Join(found, ", "), fmt.Sprintf("set %s, best by NTP: the other one agrees with this machine's", off[0]))
}

func (i *inspection) directoryAhead(ctx context.Context) (time.Duration, bool) {
	if i.session == nil {
		return 0, false
	}
	asked := i.now()
	root, err := i.session.Read(ctx, "", "currentTime")
	if err != nil {
		return 0, false
	}
	theirs, ok := ad.ParseGeneralizedTime(root.First("currentTime"))
	return theirs.Sub(asked.Add(i.now().Sub(asked) / 2)), ok
}

// aheadOf says how a clock goes. The others count in seconds, so less is no difference.
func aheadOf(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d.Abs() <= 2*time.Second:
		return "agrees"
	case d > 0:
		return "is " + d.String() + " ahead"
	default:
		return "is " + (-d).String() + " behind"
	}
}
