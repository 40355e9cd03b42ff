package check

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/sandbox/domaincontroller"
)

const (
	closedOU = "OU=Closed," + domain
	innerOU  = "OU=Inner," + closedOU
	otherOU  = "OU=Other," + domain

	system = "\x01\x01\x00\x00\x00\x00\x00\x05\x12\x00\x00\x00" // S-1-5-18
)

// hide adds users in two units, one inside of the other, and hides attributes of all of them.
func hide(t *testing.T, e *environment, attributes ...string) {
	t.Helper()
	add := func(dn string, pairs map[string][]string) {
		t.Helper()
		must(t, e.Directory.Add(domaincontroller.Object{DN: dn, Attributes: pairs}))
	}
	for n, unit := range []string{closedOU, innerOU} {
		add(unit, map[string][]string{"objectClass": {"organizationalUnit"}})
		for i := range 2 {
			name := fmt.Sprintf("closed%d%d", n, i)
			add("CN="+name+","+unit, map[string][]string{"objectClass": {"user"}, "sAMAccountName": {name}})
			must(t, e.Directory.Hide("CN="+name+","+unit, attributes...))
		}
	}
}

// denyInnerAndOther takes from the account the right to list two units. otherOU is empty.
func denyInnerAndOther(t *testing.T, e *environment) {
	t.Helper()
	must(t, e.Directory.Add(domaincontroller.Object{DN: otherOU, Attributes: map[string][]string{"objectClass": {"organizationalUnit"}}}))
	must(t, e.Directory.DenyListing(innerOU))
	must(t, e.Directory.DenyListing(otherOU))
}

func command(dn string) string {
	return `dsacls "` + dn + `" /I:T /G "svc-qualys@corp.example.com:LCRP"`
}

// TestUnreadable checks that missing rights are named with the commands that grant them.
func TestUnreadable(t *testing.T) {
	all := []string{"objectClass", "objectGUID", "objectSid", "name", "whenCreated", "sAMAccountType", "userAccountControl"}
	below := func(base string, attributes ...string) func(t *testing.T, e *environment) {
		return func(t *testing.T, e *environment) {
			e.options.Source.Base = base
			hide(t, e, attributes...)
		}
	}
	testChecks(t, map[string]checkCase{
		"attributes of some users unreadable": {
			change: func(t *testing.T, e *environment) { hide(t, e, "userAccountControl", "whenCreated") },
			want:   map[string]Result{readUsers: Warn}, check: readUsers,
			found:  []string{"userAccountControl of 4 of 3", " users, whenCreated of 4 of 3", "neither sends nor deletes 4 of 3"},
			remedy: []string{command(closedOU)},
		},
		"optional attributes of some users unreadable": {
			change: func(t *testing.T, e *environment) { hide(t, e, "pwdLastSet") },
			want:   map[string]Result{readUsers: Warn}, check: readUsers, found: []string{"pwdLastSet of 4 of 3"}, remedy: []string{command(closedOU)},
		},
		"optional attribute of all users unreadable": {
			change: func(t *testing.T, e *environment) { must(t, e.Directory.Hide(domain, "mail")) },
			want:   map[string]Result{readUsers: Warn}, check: readUsers, found: []string{"shows mail: no values, or not readable"}, remedy: []string{command(domain)},
		},
		"unreadable identifiers": {
			change: func(t *testing.T, e *environment) { hide(t, e, "objectGUID") },
			want:   map[string]Result{readUsers: Warn}, check: readUsers,
			found: []string{"objectGUID of 4 of 3", "4 of 3", "no readable objectSid or objectGUID: their extended DNs identify them"}, remedy: []string{command(closedOU)},
		},
		"required attribute of all users unreadable": {
			change: below(closedOU, "userAccountControl"), want: map[string]Result{readUsers: Fail, readGroups: Warn}, check: readUsers,
			found: []string{"userAccountControl of all users"}, remedy: []string{command(closedOU)}, class: fault.Refused, cause: errNotShown,
		},
		"attribute of the filter unreadable": {
			change: below(closedOU, "sAMAccountType"), want: map[string]Result{readUsers: Fail, readGroups: Warn, counts: Warn}, check: readUsers,
			found: []string{"sAMAccountType of all users"}, remedy: []string{command(closedOU)}, class: fault.Refused, cause: errNotShown,
		},
		"subtree that lists but does not read": {
			change: func(t *testing.T, e *environment) { hide(t, e, all...) },
			want:   map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"4 objects"}, remedy: []string{command(closedOU)},
		},
		"unit that does not inherit": {
			change: func(t *testing.T, e *environment) {
				hide(t, e)
				must(t, e.Directory.Hide(closedOU, all...))
			},
			want: map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"6 objects"}, remedy: []string{command(closedOU)},
		},
		"one unreadable object": {
			change: func(t *testing.T, e *environment) {
				hide(t, e)
				must(t, e.Directory.Hide("CN=closed00,"+closedOU, all...))
			},
			want: map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"1 object can be listed but not read: a run does not find it"},
			remedy: []string{command(closedOU)},
		},
		"readable unit that cannot be listed": {
			change: func(t *testing.T, e *environment) {
				hide(t, e)
				must(t, e.Directory.DenyListing(innerOU))
			},
			want: map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"the contents of 1 container cannot be listed: a run does not find the users and groups in it"},
			remedy: []string{command(innerOU)},
		},
		"units that cannot be listed, and unreadable objects": {
			change: func(t *testing.T, e *environment) {
				hide(t, e)
				must(t, e.Directory.Hide("CN=closed00,"+closedOU, all...))
				denyInnerAndOther(t, e)
			},
			want: map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"1 object can be listed but not read", "; the contents of 2 containers cannot be listed"},
			remedy: []string{command(closedOU), command(otherOU)},
		},
		"more objects than the limit": {
			change: func(t *testing.T, e *environment) {
				hide(t, e, all...)
				e.options.maxUnreadable = 2
			},
			want: map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"at least 3 objects can be listed but not read"},
			remedy: []string{command(closedOU)},
		},
		"more units that cannot be listed than the limit": {
			change: func(t *testing.T, e *environment) {
				hide(t, e)
				denyInnerAndOther(t, e)
				e.options.maxUnreadable = 1
			},
			want: map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"the contents of at least 1 container cannot be listed"},
			remedy: []string{command(innerOU)},
		},
		"more units with objects that cannot be listed than the limit": {
			change: func(t *testing.T, e *environment) {
				hide(t, e)
				for _, unit := range []string{closedOU, innerOU} { // their descriptors do not allow it, but each object does
					must(t, e.Directory.Modify(unit, ad.AttributeDescriptor, domaincontroller.Descriptor(system)))
				}
				e.options.maxUnreadable = 1
			},
			want: map[string]Result{unreadableObjects: Warn}, check: unreadableObjects, found: []string{"has no List Contents on more than 1 container; the first 1 were tested"},
			remedy: []string{command(domain)},
		},
		"unit that cannot be listed, outside of a search of one level": {
			change: func(t *testing.T, e *environment) {
				hide(t, e)
				e.options.Source.Base, e.options.Source.Scope = closedOU, directory.OneLevel
				must(t, e.Directory.DenyListing(innerOU))
			},
			want: map[string]Result{readGroups: Warn}, check: unreadableObjects, found: []string{"no objects"},
		},
		"only unreadable objects": {
			change: below(closedOU, all...), want: map[string]Result{readUsers: Warn, readGroups: Warn, unreadableObjects: Warn, counts: Warn}, check: unreadableObjects,
			found: []string{"4 objects"}, remedy: []string{command(closedOU)},
		},
		"system objects": {
			change: func(t *testing.T, e *environment) { must(t, e.Directory.Hide("CN=System,"+domain, all...)) },
			check:  unreadableObjects, found: []string{"no objects"},
		},
	})
}

// TestContainers checks which containers a remedy names.
func TestContainers(t *testing.T) {
	t.Parallel()
	var c containers
	for _, dn := range []string{"CN=a,OU=Inner,OU=A", "CN=b,OU=A", "CN=c,OU=a", `CN=d\,x,OU=B`, "CN=e,OU=Below A,OU=A", "CN=f,OU=A"} {
		c.add(dn)
	}
	c.add("OU=C") // also if its container inherits to others
	c.add("ou=Inner,OU=C")
	if got := c.highest(); !slices.Equal(got, []string{"OU=A", "OU=B", "OU=C"}) {
		t.Errorf("highest %q", got)
	}
	p := &preflight{}
	for n := range maxContainers {
		c.add(fmt.Sprintf("CN=x,OU=%d", n))
	}
	if remedy := p.grantBelow(c); strings.Count(remedy, "dsacls ") != namedContainers || !strings.Contains(remedy, "at least ") || len(c.dns) != maxContainers {
		t.Errorf("%d containers, remedy %q", len(c.dns), remedy)
	}
}

func TestDescribeUnreadable(t *testing.T) {
	t.Parallel()
	const notTested = "not all containers without List Contents were tested"
	for _, test := range []struct {
		found unreadable
		want  []string
	}{
		{unreadable{objects: 2}, []string{"2 objects can be listed but not read: a run does not find the users and groups among and below them"}},
		{unreadable{objects: 2, stopped: true}, []string{"at least 2 objects can be"}},
		{unreadable{objects: 1, more: true}, []string{"1 object can be", notTested}},
		{unreadable{unlisted: 1}, []string{"the contents of 1 container cannot be listed"}},
		{unreadable{unlisted: 3, more: true}, []string{"the contents of at least 3 containers cannot be listed"}},
	} {
		got := strings.Split(test.found.describe(), "; ")
		if !slices.EqualFunc(got, test.want, strings.HasPrefix) {
			t.Errorf("%+v: %q, want %q", test.found, got, test.want)
		}
	}
}
