package check

import (
	"errors"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/syncrun"
)

func TestReadPermissions(t *testing.T) {
	const (
		grant         = "grant the account Read Permissions, and remove what denies it: "
		onProtected   = `dsacls "CN=AdminSDHolder,CN=System,` + domain + `" /G "svc-qualys@corp.example.com:RC" (effective within an hour on accounts and groups that it protects)`
		onDomain      = `dsacls "` + domain + `" /I:T /G "svc-qualys@corp.example.com:RC"`
		operators     = "CN=Backup Operators,CN=Builtin," + domain
		administrator = "CN=Administrators,CN=Builtin," + domain
	)
	// hiding returns a change that enables security posture and hides the descriptors of single objects.
	hiding := func(dns ...string) func(*testing.T, *environment) {
		return func(t *testing.T, e *environment) {
			t.Helper()
			e.options.Source.Posture = true
			must(t, e.Directory.Modify(operators, "adminCount")) // Administrators have it
			for _, dn := range dns {
				must(t, e.Directory.HideOne(dn, ad.AttributeDescriptor))
			}
		}
	}
	warns := map[string]Result{readPermissions: Warn}
	testChecks(t, map[string]checkCase{
		"not needed": {
			change: func(t *testing.T, e *environment) { must(t, e.Directory.Hide(domain, ad.AttributeDescriptor)) },
			check:  readPermissions, found: []string{"not needed: security posture is not configured"},
		},
		"readable": {change: hiding(), check: readPermissions, found: []string{"descriptors of 16 objects are readable"}},
		"domain": {
			change: hiding(domain), want: warns, check: readPermissions,
			found: []string{"nTSecurityDescriptor of 1 of 16 objects", ": " + domain}, remedy: []string{grant + onDomain},
		},
		"AdminSDHolder": {
			change: hiding("CN=AdminSDHolder,CN=System," + domain), want: warns, check: readPermissions,
			found: []string{"nTSecurityDescriptor of 1 of 16 objects", ": CN=AdminSDHolder,"}, remedy: []string{grant + onProtected},
		},
		"protected group": {
			change: hiding(administrator), want: warns, check: readPermissions, found: []string{"of 1 of 16 objects", administrator}, remedy: []string{grant + onProtected},
		},
		"group that inherits": {
			change: hiding(operators), want: warns, check: readPermissions, found: []string{"of 1 of 16 objects", operators}, remedy: []string{grant + onDomain},
		},
		"all": {
			change: func(t *testing.T, e *environment) {
				hiding()(t, e)
				must(t, e.Directory.Hide(domain, ad.AttributeDescriptor))
			},
			want: warns, check: readPermissions, found: []string{"of 16 of 16 objects", "; and 11 more"}, remedy: []string{grant + onProtected + "; " + onDomain},
		},
		"unreadable SID of the domain": {
			change: func(t *testing.T, e *environment) {
				hiding(operators)(t, e)
				must(t, e.Directory.HideOne(domain, "objectSid"))
			},
			want: warns, check: readPermissions, found: []string{operators}, remedy: []string{grant + onDomain},
		},
	})
}

// TestRefusedDescriptors checks that a refused search is not taken for a missing right.
func TestRefusedDescriptors(t *testing.T) {
	t.Parallel()
	refused := fault.Operation{Op: "search", Object: domain}.Failed(fault.Refused, errors.New("unavailable critical extension"), "grant")
	got := (&descriptorSample{}).judge(domain, "svc-qualys", refused)
	if got.Result != Warn || got.Remedy != syncrun.RefusedDescriptorsRemedy {
		t.Errorf("%+v", got)
	}
	requireContains(t, got.Found, "unavailable critical extension", "controlledBy will be missing")
}
