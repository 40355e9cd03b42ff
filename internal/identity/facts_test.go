package identity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// controllerHosts returns the host names of a domain controller.
func controllerHosts(name, hostName string) *ControllerHosts {
	c := NewCollector()
	addToPart(c.Controllers, attributes{"name": {name}, "dNSHostName": {hostName}})
	return c.ControllerHosts(true)
}

// addToPart adds an entry to a part.
func addToPart(p *Part, attrs attributes) {
	e := &ad.Entry{Values: make([][][]byte, len(p.Attributes))}
	for name, values := range attrs {
		for _, v := range values {
			e.Values[slices.Index(p.Attributes, name)] = append(e.Values[slices.Index(p.Attributes, name)], []byte(v))
		}
	}
	p.Add(e, now)
	for _, values := range e.Values { // the memory of an entry is reused
		for _, v := range values {
			clear(v)
		}
	}
}

func ago(age time.Duration) string {
	return strconv.FormatInt(int64(ad.NewFileTime(now.Add(-age))), 10)
}

const day = 24 * time.Hour

// active are the attributes of an account that has logged on and changed its password lately.
var active = attributes{
	"userAccountControl": {"512"}, "lastLogon": {ago(day)}, "pwdLastSet": {ago(day)}, "whenCreated": {now.Add(-999 * day).Format("20060102150405.0Z")},
	"primaryGroupID": {"513"},
}

// factsOf maps an account. It returns its facts by their names without PRIVILEGED_NOT_IN_PROTECTED_USERS,
// "unreadable" if they are in that list, and the asset.
func factsOf(t *testing.T, m *Mapper, attrs attributes, known Logons) (facts string, asset Asset) {
	t.Helper()
	asset, err := m.Map(nil, entry(t, m, with(active, attrs)), now, known)
	if err != nil {
		t.Fatal(err)
	}
	var sent struct {
		Asset struct {
			AssetDetail struct {
				UserAssetClass struct {
					Posture struct {
						Facts      []struct{ Fact string }
						Unreadable []string
					}
				}
			}
		}
	}
	if err := json.Unmarshal(asset.JSON, &sent); err != nil {
		t.Fatal(err)
	}
	posture := sent.Asset.AssetDetail.UserAssetClass.Posture
	var names []string
	for _, fact := range posture.Facts {
		names = append(names, fact.Fact)
	}
	if !slices.IsSorted(names) {
		t.Errorf("not sorted: %v", names)
	}
	if slices.Contains(posture.Unreadable, "facts") {
		names = append(names, "unreadable")
	}
	return strings.Join(names, " "), asset
}

// TestFacts: Alice is privileged, and in Protected Users, so that this fact alone does not hold for her.
func TestFacts(t *testing.T) {
	t.Parallel()
	alice, _ := ad.ParseGUID([]byte(guidBytes))
	graph := func(privileged bool, change func(g *membership.Graph)) *membership.Graph {
		g := people()
		if !privileged {
			g.SetGroup(guidNamed('T'), ofDomainSID(1200), true, 0)
		}
		g.AddMember(g.SetGroup(guidNamed('R'), ofDomainSID(525), true, membership.RoleOf(ofDomainSID(525), nil)), alice, ad.SID(sidBytes))
		if change != nil {
			change(g)
		}
		g.Compute()
		return g
	}
	withoutProtectedUsers := func(g *membership.Graph) {
		g.SetGroup(guidNamed('R'), ofDomainSID(525), true, membership.RoleOf(ofDomainSID(525), nil))
	}
	privileged, plain := graph(true, nil), graph(false, nil)
	group := func(rid ad.RID, security bool, members ...ad.GUID) func(g *membership.Graph) {
		return func(g *membership.Graph) {
			n := g.SetGroup(guidNamed('Z'), ofDomainSID(rid), security, membership.RoleOf(ofDomainSID(rid), []byte("DnsAdmins")))
			for _, member := range members {
				g.AddMember(n, member, nil)
			}
		}
	}
	spn, noPreauth, never := attributes{"servicePrincipalName": {"http/web"}}, attributes{"userAccountControl": {"4194816"}}, attributes{"lastLogon": {"0"}}
	delegated := func(services ...string) attributes { return attributes{"msDS-AllowedToDelegateTo": services} }
	sid := func(rid ad.RID, attrs attributes) attributes {
		return with(attrs, attributes{"objectSid": {string(ofDomainSID(rid))}})
	}
	disabled := func(attrs attributes) attributes { return with(attrs, attributes{"userAccountControl": {"4194818"}}) }
	for _, test := range []struct {
		name  string
		kind  Kind
		graph *membership.Graph
		attrs attributes
		known Logons
		want  string
	}{
		{"none", User, privileged, nil, Logons{}, ""},

		{"SPN", User, privileged, spn, Logons{}, "KERBEROASTABLE_AND_PRIVILEGED"},
		{"SPN, not privileged", User, plain, spn, Logons{}, ""},
		{"SPN, disabled", User, privileged, disabled(spn), Logons{}, ""},
		{"SPN of krbtgt", User, privileged, sid(502, spn), Logons{}, ""},
		{"SPN of a service account", ServiceAccount, privileged, spn, Logons{}, ""},
		{"SPN, by the primary group", User, plain, with(spn, attributes{"primaryGroupID": {"512"}}), Logons{}, "KERBEROASTABLE_AND_PRIVILEGED"},
		{"SPN, in a distribution group", User, graph(false, group(512, false, alice)), spn, Logons{}, ""},

		{"no preauthentication", User, privileged, noPreauth, Logons{}, "ASREP_ROASTABLE_AND_PRIVILEGED"},
		{"no preauthentication, service account", ServiceAccount, privileged, noPreauth, Logons{}, "ASREP_ROASTABLE_AND_PRIVILEGED"},
		{"no preauthentication, not privileged", User, plain, noPreauth, Logons{}, ""},
		{"no preauthentication, disabled", User, privileged, disabled(nil), Logons{}, ""},

		{"logon 90 days ago", User, privileged, attributes{"lastLogon": {ago(90 * day)}}, Logons{}, "PRIVILEGED_AND_INACTIVE"},
		{"logon almost 90 days ago", User, privileged, attributes{"lastLogon": {ago(90*day - time.Second)}}, Logons{}, ""},
		{"logon 90 days ago, not privileged", User, plain, attributes{"lastLogon": {ago(90 * day)}}, Logons{}, ""},
		{"logon 90 days ago, disabled", User, privileged, disabled(attributes{"lastLogon": {ago(90 * day)}}), Logons{}, ""},
		{"later replicated logon", User, privileged, attributes{"lastLogon": {ago(95 * day)}, "lastLogonTimestamp": {ago(80 * day)}}, Logons{}, ""},
		{"only an old replicated logon", ServiceAccount, privileged, attributes{"lastLogon": nil, "lastLogonTimestamp": {ago(91 * day)}}, Logons{}, "PRIVILEGED_AND_INACTIVE"},
		{"later logon elsewhere", User, privileged, attributes{"lastLogon": {ago(95 * day)}}, Logons{Last: ad.NewFileTime(now.Add(-89 * day))}, ""},
		{"never logged on", User, privileged, never, Logons{}, "PRIVILEGED_AND_INACTIVE"},
		{"never logged on, but elsewhere", User, privileged, never, Logons{Last: ad.NewFileTime(now.Add(-day))}, ""},
		{"never logged on, created lately", User, privileged, with(never, attributes{"whenCreated": {now.Add(-89 * day).Format("20060102150405.0Z")}}), Logons{}, ""},
		{"logons unreadable", User, privileged, attributes{"lastLogon": nil}, Logons{}, "unreadable"},
		{"logons unreadable, created lately", User, privileged, attributes{"lastLogon": nil, "whenCreated": {now.Add(-89 * day).Format("20060102150405.0Z")}}, Logons{}, ""},
		{"logons unreadable, not privileged", User, plain, attributes{"lastLogon": nil}, Logons{}, ""},

		{"password of a year ago", User, privileged, attributes{"pwdLastSet": {ago(365 * day)}}, Logons{}, "PRIVILEGED_WITH_OLD_PASSWORD"},
		{"password of almost a year ago", ServiceAccount, privileged, attributes{"pwdLastSet": {ago(365*day - time.Second)}}, Logons{}, ""},
		{"password of a year ago, not privileged", User, plain, attributes{"pwdLastSet": {ago(365 * day)}}, Logons{}, ""},
		{"password of a year ago, disabled", User, privileged, disabled(attributes{"pwdLastSet": {ago(365 * day)}}), Logons{}, ""},
		{"must change", User, privileged, attributes{"pwdLastSet": {"0"}}, Logons{}, ""},
		{"password time unreadable", User, privileged, attributes{"pwdLastSet": nil}, Logons{}, "unreadable"},

		{"adminCount with a role", User, privileged, attributes{"adminCount": {"1"}}, Logons{}, ""},
		{"adminCount without a role", User, plain, attributes{"adminCount": {"1"}}, Logons{}, "ADMIN_COUNT_WITHOUT_ROLE"},
		{"adminCount without a role, disabled", ServiceAccount, plain, disabled(attributes{"adminCount": {"1"}}), Logons{}, "ADMIN_COUNT_WITHOUT_ROLE"},
		{"adminCount 0", User, plain, attributes{"adminCount": {"0"}}, Logons{}, ""},
		{"adminCount of krbtgt", User, plain, sid(502, attributes{"adminCount": {"1"}}), Logons{}, ""},
		{"adminCount of Administrator", User, plain, sid(500, attributes{"adminCount": {"1"}}), Logons{}, ""},
		{"adminCount through a distribution group", User, graph(false, group(512, false, alice)), attributes{"adminCount": {"1"}}, Logons{}, ""},
		{"adminCount by the primary group", User, plain, attributes{"adminCount": {"1"}, "primaryGroupID": {"512"}}, Logons{}, ""},
		{"adminCount with a role that is not protected", User, graph(false, group(1300, true, alice)), attributes{"adminCount": {"1"}}, Logons{}, "ADMIN_COUNT_WITHOUT_ROLE"},

		{"in Protected Users by the primary group", User, graph(true, withoutProtectedUsers), attributes{"primaryGroupID": {"525"}}, Logons{}, ""},
		{"not in Protected Users", User, graph(true, withoutProtectedUsers), nil, Logons{}, "PRIVILEGED_NOT_IN_PROTECTED_USERS"},
		{"not in Protected Users, disabled", User, graph(true, withoutProtectedUsers), disabled(nil), Logons{}, ""},
		{"not in Protected Users, not privileged", User, graph(false, withoutProtectedUsers), nil, Logons{}, ""},
		{"service account not in Protected Users", ServiceAccount, graph(true, withoutProtectedUsers), nil, Logons{}, ""},
		{"no Protected Users", User, graph(true, func(g *membership.Graph) { g.Remove(guidNamed('R')) }), nil, Logons{}, "unreadable"},
		{"members of Protected Users unreadable", User, graph(true, func(g *membership.Graph) {
			withoutProtectedUsers(g)
			g.SetMembersUnreadable(nodeOf(g, guidNamed('R')))
		}), nil, Logons{}, "unreadable"},

		{"delegation", User, plain, delegated("cifs/file", "ldap/dc1"), Logons{}, "DELEGATION_TO_DOMAIN_CONTROLLER"},
		{"delegation of a service account", ServiceAccount, plain, delegated("ldap/DC1.corp.example.com"), Logons{}, "DELEGATION_TO_DOMAIN_CONTROLLER"},
		{"delegation, disabled", User, plain, disabled(delegated("ldap/dc1")), Logons{}, ""},
		{"delegation to other hosts", User, plain, delegated("cifs/file", "ldap/dc1.other.example.com", "ldap/dc", "dc1"), Logons{}, ""},

		{"memberships uncertain", User, graph(true, func(g *membership.Graph) {
			g.AddMember(g.SetGroup(guidNamed('T'), ofDomainSID(1200), true, 0), alice, ad.SID(sidBytes))
			g.SetMembersUnreadable(nodeOf(g, guidNamed('T')))
		}), with(spn, delegated("ldap/dc1")), Logons{}, "DELEGATION_TO_DOMAIN_CONTROLLER unreadable"},
		{"members of Domain Admins unreadable", User, graph(false, func(g *membership.Graph) {
			g.SetMembersUnreadable(g.SetGroup(guidNamed('D'), ofDomainSID(512), true, membership.RoleOf(ofDomainSID(512), nil)))
		}), attributes{"adminCount": {"1"}}, Logons{}, "unreadable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := NewPostureMapper(test.kind)
			m.UseGraph(test.graph)
			m.UseControllers(controllerHosts("DC1", "dc1.corp.example.com"))
			if got, _ := factsOf(t, m, test.attrs, test.known); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func nodeOf(g *membership.Graph, guid ad.GUID) membership.Node {
	n, _ := g.Find(guid)
	return n
}

// TestFactsOfPartialGraph: without the memberships, the facts that depend on them are unknown.
func TestFactsOfPartialGraph(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(User)
	m.UsePartialGraph(people())
	m.UseControllers(controllerHosts("DC1", "dc1.corp.example.com"))
	for name, test := range map[string]struct {
		attrs attributes
		want  string
	}{
		"privileged":               {nil, "unreadable"},
		"delegation, known":        {attributes{"msDS-AllowedToDelegateTo": {"ldap/dc1"}}, "DELEGATION_TO_DOMAIN_CONTROLLER unreadable"},
		"disabled":                 {attributes{"userAccountControl": {"514"}}, ""},
		"disabled with adminCount": {attributes{"userAccountControl": {"514"}, "adminCount": {"1"}}, "unreadable"},
	} {
		if got, _ := factsOf(t, m, test.attrs, Logons{}); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestFactsRecheck: a fact that changes with the clock alone sets the time of the next change.
func TestFactsRecheck(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		attrs attributes
		graph bool
		want  time.Duration // from now; 0: none
	}{
		"logon":               {attributes{"lastLogon": {ago(60 * day)}, "pwdLastSet": {ago(60 * day)}}, true, 30 * day},
		"password":            {attributes{"lastLogon": {ago(10 * day)}, "pwdLastSet": {ago(360 * day)}}, true, 5 * day},
		"never logged on":     {attributes{"lastLogon": {"0"}, "whenCreated": {now.Add(-88 * day).Format("20060102150405.0Z")}}, true, 2 * day},
		"both past":           {attributes{"lastLogon": {ago(91 * day)}, "pwdLastSet": {ago(366 * day)}}, true, 0},
		"not privileged":      {attributes{"lastLogon": {ago(60 * day)}, "pwdLastSet": {ago(60 * day)}}, false, 0},
		"disabled":            {attributes{"lastLogon": {ago(60 * day)}, "userAccountControl": {"514"}}, true, 0},
		"the account expires": {attributes{"lastLogon": {ago(60 * day)}, "accountExpires": {ago(-day)}}, true, day},
	} {
		m := NewPostureMapper(User)
		m.UseGraph(people())
		if !test.graph {
			g := membership.New()
			g.Compute()
			m.UseGraph(g)
		}
		_, asset := factsOf(t, m, test.attrs, Logons{})
		want := time.Time{}
		if test.want != 0 {
			want = now.Add(test.want)
		}
		if !asset.RecheckAt.Truncate(time.Second).Equal(want.Truncate(time.Second)) {
			t.Errorf("%s: recheck at %v, want %v", name, asset.RecheckAt, want)
		}
	}
}

// TestFactIsNoActivity: a delta sync sends a changed fact, although it comes from activity.
func TestFactIsNoActivity(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(User)
	m.UseGraph(people())
	_, before := factsOf(t, m, attributes{"lastLogon": {ago(89 * day)}}, Logons{})
	_, later := factsOf(t, m, attributes{"lastLogon": {ago(88 * day)}}, Logons{})
	_, inactive := factsOf(t, m, attributes{"lastLogon": {ago(91 * day)}}, Logons{})
	if !before.Fingerprint.SameButActivity(later.Fingerprint) || before.Fingerprint.SameButActivity(inactive.Fingerprint) {
		t.Errorf("fingerprints %x, %x, %x", before.Fingerprint, later.Fingerprint, inactive.Fingerprint)
	}
}

func TestControllerHosts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ service, host string }{
		{"ldap/dc1", "dc1"}, {"ldap/dc1:389", "dc1"}, {"ldap/dc1/CORP", "dc1"}, {"ldap/dc1:3268/corp.example.com", "dc1"},
		{"MSSQLSvc/db.corp:INSTANCE", "db.corp"}, {"cifs/dc1@CORP.EXAMPLE.COM", "dc1"}, {"cifs/dc1.", "dc1"}, {"cifs/", ""}, {"cifs", ""}, {"", ""}, {"/x", "x"},
	} {
		if got := string(serviceHost([]byte(test.service))); got != test.host {
			t.Errorf("%q: host %q, want %q", test.service, got, test.host)
		}
	}
	for _, test := range []struct {
		name       string
		hosts      *ControllerHosts
		yes, other truth
	}{
		{"unknown", nil, unknown, unknown},
		{"known", controllerHosts("DC1", "DC1.corp.example.com."), yes, no},
		{"without a host name", controllerHosts("DC1", ""), yes, unknown},
		{"without a name", controllerHosts("", "dc1.corp.example.com"), yes, unknown},
		{"none", NewCollector().ControllerHosts(false), unknown, unknown},
	} {
		if got := fmt.Sprint(test.hosts.has([]byte("ldap/dc1:389/x")), test.hosts.has([]byte("ldap/file"))); got != fmt.Sprint(test.yes, test.other) {
			t.Errorf("%s: %s", test.name, got)
		}
	}
	if c := NewCollector(); c.ControllerHosts(false).has([]byte("ldap/file")) != unknown {
		t.Error("an incomplete list proves nothing")
	}
}

// TestIncompleteDelegation: the services that are missing in an entry may be on a domain controller.
func TestIncompleteDelegation(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(User)
	m.UseGraph(people())
	m.UseControllers(controllerHosts("DC1", "dc1.corp.example.com"))
	e := entry(t, m, with(alice, active))
	e.Partial = []int{slices.Index(m.Attributes, "msDS-AllowedToDelegateTo")}
	asset, err := m.Map(nil, e, now, Logons{})
	if err != nil || !strings.Contains(string(asset.JSON), `"unreadable":["allowedToDelegateTo","facts"]`) {
		t.Errorf("%s, %v", asset.JSON, err)
	}
}
