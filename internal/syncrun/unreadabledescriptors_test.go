package syncrun

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// runWithoutDescriptors performs one run that finds as many unreadable security descriptors, and nothing
// else that is unreadable. It checks each way in which an operator notices this.
func (e *env) runWithoutDescriptors(options RunOptions, want state.Run, unreadable int, remedy string) state.Run {
	e.t.Helper()
	before, others := len(e.log.With(MsgDescriptorsUnreadable)), len(e.log.With(MsgObjectsUnreadable))
	want.Result = Partial
	run := e.run(options, want)
	if run.Unreadable != unreadable || !slices.Equal(run.MissingRights, []string{ad.AttributeDescriptor}) || !strings.Contains(run.RightsRemedy, remedy) {
		e.t.Errorf("%d unreadable, want %d: %v, remedy %q", run.Unreadable, unreadable, run.MissingRights, run.RightsRemedy)
	}
	lines := e.log.With(MsgDescriptorsUnreadable)[before:]
	if len(lines) != 1 || len(e.log.With(MsgObjectsUnreadable)) != others {
		e.t.Fatalf("log %v", lines)
	}
	if l := lines[0]; l.Text("level") != "warn" || l.Number("unreadable") != unreadable || l.Text("attributes") != ad.AttributeDescriptor || l.Text("base_dn") != e.Base() || l.Text("remedy") != run.RightsRemedy {
		e.t.Errorf("log %v", l)
	}
	finished := e.log.With(MsgRunFinished)
	if l := finished[len(finished)-1]; l.Text("level") != "warn" || l.Number("unreadable") != unreadable {
		e.t.Errorf("log %v", l)
	}
	return run
}

// hideDescriptor hides the security descriptor of one object, and not of those below it.
func (e *env) hideDescriptor(dn string) {
	e.t.Helper()
	e.must(e.HideOne(dn, ad.AttributeDescriptor))
}

// expectStatusUnreadable checks the recorded number of unreadable objects, which the status shows.
func (e *env) expectStatusUnreadable(objects int) {
	e.t.Helper()
	if recorded, err := e.store.Unreadable(); err != nil || recorded.Objects != objects {
		e.t.Errorf("%+v unreadable, error %v, want %d", recorded, err, objects)
	}
}

// TestUnreadableDescriptorIsReported checks that each kind of object whose security descriptor a run reads
// is reported, once, and at the level debug with its container.
func TestUnreadableDescriptorIsReported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		object func(e *env) string
		kind   identity.Kind
	}{
		"user with adminCount":     {func(e *env) string { return e.user(1) }, identity.User},
		"member of a role":         {func(e *env) string { return e.user(0) }, identity.User},
		"group in a role":          {func(e *env) string { return e.dn("team") }, identity.Group},
		"group of a role":          {func(e *env) string { return "CN=Backup Operators,CN=Builtin," + e.Base() }, identity.Group},
		"domain":                   {func(e *env) string { return e.Base() }, identity.Domain},
		"AdminSDHolder":            {func(e *env) string { return directory.AdminSDHolder(e.Base()) }, identity.Domain},
		"krbtgt":                   {func(e *env) string { return "CN=krbtgt,CN=Users," + e.Base() }, identity.Domain},
		"domain controller":        {func(e *env) string { return "CN=DC1,OU=Domain Controllers," + e.Base() }, identity.Domain},
		"container of the scope":   {func(e *env) string { return e.base }, identity.Domain},
		"container outside of it":  {func(e *env) string { return "CN=Users," + e.Base() }, identity.Domain},
		"object without privilege": {func(e *env) string { return e.user(2) }, identity.Kind(0)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newControlEnv(t)
			e.hideDescriptor(c.object(e))
			want := state.Run{Mode: full, Uploaded: 7 + postureObjects}
			if name == "object without privilege" {
				want.Result = Processed
				e.run(RunOptions{}, want)
				return
			}
			e.runWithoutDescriptors(RunOptions{}, want, 1, `dsacls "`+directory.AdminSDHolder(e.Base())+`" /G "`)
			lines := e.log.With(MsgDescriptorUnreadable)
			if len(lines) != 1 || lines[0].Text("level") != "debug" || lines[0].Text("kind") != c.kind.String() || lines[0].Text("dn_hash") != hashDN([]byte(c.object(e))) {
				t.Errorf("log %v", lines)
			}
		})
	}
}

// TestUnreadableDescriptorInWholeDomain checks that objects that several searches of a run find count once:
// krbtgt and the groups of roles are in the scope.
func TestUnreadableDescriptorInWholeDomain(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.base = e.Base()
	e.setConsole()
	e.hideDescriptor("CN=krbtgt,CN=Users," + e.Base())
	e.hideDescriptor("CN=Backup Operators,CN=Builtin," + e.Base())
	run, err := e.runner.Run(t.Context(), RunOptions{})
	if err != nil || run.Result != Partial || run.Unreadable != 2 {
		t.Errorf("run %+v, error %v", run, err)
	}
}

// TestUnreadableDomainAndDescriptor checks that the domain counts once if it is not sent.
func TestUnreadableDomainAndDescriptor(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.must(e.HideOne(e.Base(), "name", ad.AttributeDescriptor))
	e.runPartial(RunOptions{}, state.Run{Mode: full, Uploaded: 6 + postureObjects}, 1, "name")
	if lines := e.log.With(MsgDescriptorsUnreadable); len(lines) != 0 {
		t.Errorf("log %v", lines)
	}
}

// TestRecordedContainerIsUnreadable checks that a delta sync reports a container that it finds only by its GUID.
func TestRecordedContainerIsUnreadable(t *testing.T) {
	t.Parallel()
	e := newControlEnv(t)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	e.must(e.HideOne(e.base, "objectGUID", ad.AttributeDescriptor))
	e.runWithoutDescriptors(RunOptions{}, state.Run{Mode: delta, Uploaded: 1}, 1, ":LCRPRC")
	e.expectStatusUnreadable(1)
}

// TestUnreadableDescriptorAndMembers checks that an object counts once, and that both messages have what
// resolves them.
func TestUnreadableDescriptorAndMembers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		object                        string
		members, descriptors, objects int
	}{
		"group of a role": {"CN=Domain Admins,CN=Users,", 1, 1, 1},
		"unit":            {"OU=Staff,", 2, 7, 7}, // two groups, their members and a member of Domain Admins, and the unit
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newNestedDomain(t, domaincontroller.Options{ReadsDeleted: true})
			m.hide(c.object+m.Base(), "member", ad.AttributeDescriptor)
			run, err := m.runner.Run(t.Context(), RunOptions{})
			if err != nil {
				t.Fatal(err)
			}
			members, descriptors := m.log.With(MsgObjectsUnreadable), m.log.With(MsgDescriptorsUnreadable)
			if len(members) != 1 || len(descriptors) != 1 {
				t.Fatalf("log %v, %v", members, descriptors)
			}
			if members[0].Number("unreadable") != c.members || members[0].Text("attributes") != "member" || descriptors[0].Number("unreadable") != c.descriptors || run.Unreadable != c.objects {
				t.Errorf("%d unreadable, log %v, %v", run.Unreadable, members, descriptors)
			}
			if run.RightsRemedy != members[0].Text("remedy")+"; "+descriptors[0].Text("remedy") || !slices.Equal(run.MissingRights, []string{"member", ad.AttributeDescriptor}) {
				t.Errorf("run %+v", run)
			}
		})
	}
}

// TestUnreadableDescriptorsCount checks how unreadable security descriptors count.
func TestUnreadableDescriptorsCount(t *testing.T) {
	t.Parallel()
	group, other := ad.GUID{1}, ad.GUID{2}
	type object struct {
		dn         string
		unreadable unreadableDescriptor
	}
	for name, c := range map[string]struct {
		objects []object
		counted map[ad.GUID]bool
		missing int
		want    map[identity.Kind]int
	}{
		"none":                          {nil, map[ad.GUID]bool{group: true}, 0, nil},
		"once, in any case":             {[]object{{"CN=A", unreadableDescriptor{kind: identity.User}}, {"cn=a", unreadableDescriptor{kind: identity.Domain}}}, nil, 1, map[identity.Kind]int{identity.User: 1}},
		"by kind":                       {[]object{{"CN=A", unreadableDescriptor{identity.Group, other}}, {"CN=B", unreadableDescriptor{identity.User, ad.GUID{3}}}}, nil, 2, map[identity.Kind]int{identity.Group: 1, identity.User: 1}},
		"group with unreadable members": {[]object{{"CN=A", unreadableDescriptor{identity.Group, group}}, {"CN=B", unreadableDescriptor{identity.Group, other}}}, map[ad.GUID]bool{group: true}, 2, map[identity.Kind]int{identity.Group: 1}},
		"read for its role only":        {[]object{{"CN=A", unreadableDescriptor{identity.Group, identity.RoleGUID(group)}}}, map[ad.GUID]bool{group: true}, 1, nil},
		"containers without identity":   {[]object{{"CN=A", unreadableDescriptor{kind: identity.Domain}}, {"CN=B", unreadableDescriptor{kind: identity.Domain}}}, nil, 2, map[identity.Kind]int{identity.Domain: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &descriptorReading{unreadable: newUnreadableDescriptors()}
			for _, o := range c.objects {
				d.unreadable.add(o.dn, o.unreadable)
			}
			result, got, total := d.unreadableResult(c.counted), map[identity.Kind]int{}, 0
			for kind, n := range result.counters {
				got[kind] = n.unreadable
				total += n.unreadable
			}
			if !maps.Equal(got, c.want) || result.missing[ad.AttributeDescriptor] != c.missing || result.withoutDescriptor != total {
				t.Errorf("%+v, want %v", result, c.want)
			}
		})
	}
}
