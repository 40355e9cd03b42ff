package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
)

// change is a change in the directory and its expected effect at the gateway.
type change struct {
	text        string
	guid        string // empty for a new object until the directory has it
	dn          string // of a new object
	time        time.Time
	field, want string // expected value of a field; without a field: nothing to send
	unsent      string // why there is nothing to send
	sentBefore  int    // how often the gateway had received the object before
	apply       func() error
	wantNow     func() string // returns want after apply; nil: want is known before
}

// changeDirectory makes one change of each kind.
func (s *scenario) changeDirectory() ([]change, error) {
	const changedUsers = 5
	users, groups := s.identities()
	users = slices.DeleteFunc(users, func(o domaincontroller.Object) bool { return !isPlainAccount(o) })
	if len(users) < changedUsers {
		return nil, newUsageError(fmt.Errorf("only %d users have names for the table, and the demo changes %d", len(users), changedUsers), "use another --seed or more --users")
	}
	inventory := s.readInventory()
	var changes []change
	plan := s.planChanges(users[:changedUsers], groups[len(groups)-1])
	if len(s.ports) > 1 {
		logons, err := s.planLogons(users[changedUsers:])
		if err != nil {
			return nil, err
		}
		plan = append(plan, logons...)
	}
	for _, planned := range plan {
		planned.time, planned.sentBefore = time.Now(), inventory[planned.guid].Times
		if err := planned.apply(); err != nil {
			return nil, err
		}
		if planned.wantNow != nil {
			planned.want = planned.wantNow()
		}
		changes = append(changes, planned)
	}
	for _, o := range s.directory().Objects("objectGUID") {
		if i := slices.IndexFunc(changes, func(c change) bool { return c.dn == o.DN }); i >= 0 {
			changes[i].guid = guidOf(o)
		}
	}
	return changes, nil
}

// planChanges returns the changes of users[0] to users[4], of a group, and of new objects.
func (s *scenario) planChanges(users []domaincontroller.Object, group domaincontroller.Object) []change {
	const (
		title       = "Head of Demos"
		description = "New description"
	)
	type controller = *domaincontroller.Server
	everywhere := func(apply func(controller) error) func() error {
		return func() error { return s.domain.Change(apply) }
	}
	base := s.directory().Base()
	promoted, renamed, disabled, moved, deleted := users[0], users[1], users[2], users[3], users[4]
	newName := renamed.First("name") + "-Example"
	_, container, _ := strings.Cut(users[0].DN, ",")
	newUser, newGroup := "CN=Ada Example,"+container, "CN=Newcomers,CN=Users,"+base
	return []change{
		{text: "added user Ada Example", dn: newUser, field: "status", want: "ACTIVE", apply: func() error {
			return s.domain.Add(domaincontroller.Object{DN: newUser, Attributes: map[string][]string{
				"objectClass": {"user"}, "sAMAccountName": {"demo.ada"}, "userAccountControl": {"66048"}, "givenName": {"Ada"}, "sn": {"Example"},
				"displayName": {"Ada Example"}, "mail": {"ada.example@corp.example.com"}, "title": {"Analyst"},
			}})
		}},
		{text: "added group Newcomers, with Ada", dn: newGroup, field: "visibility", want: "PUBLIC", apply: func() error {
			return s.domain.Add(domaincontroller.Object{DN: newGroup, Attributes: map[string][]string{
				"objectClass": {"group"}, "sAMAccountName": {"demo.newcomers"}, "description": {"New employees"}, "member": {newUser},
			}})
		}},
		{text: "modified title of " + promoted.First("name"), guid: guidOf(promoted), field: "jobTitle", want: title,
			apply: everywhere(func(d controller) error { return d.Modify(promoted.DN, "title", title) })},
		{text: "renamed " + renamed.First("name"), guid: guidOf(renamed), field: "name", want: newName,
			apply: everywhere(func(d controller) error { return d.Rename(renamed.DN, newName) })},
		{text: "disabled " + disabled.First("name"), guid: guidOf(disabled), field: "status", want: "DISABLED",
			apply: everywhere(func(d controller) error { return d.Disable(disabled.DN) })},
		{text: "moved " + moved.First("name") + " to CN=Users", guid: guidOf(moved), unsent: "nothing to send",
			apply: everywhere(func(d controller) error { return d.Move(moved.DN, "CN=Users,"+base) })},
		{text: "described " + group.First("name"), guid: guidOf(group), field: "description", want: description,
			apply: everywhere(func(d controller) error { return d.Modify(group.DN, "description", description) })},
		{text: "deleted " + deleted.First("name"), guid: guidOf(deleted), field: "status", want: "DELETED",
			apply: everywhere(func(d controller) error { return d.Delete(deleted.DN) })},
	}
}

// planLogons returns a logon and a failed one of two users at the second controller. The logon is
// old enough for lastLogonTimestamp to change, which replicates.
func (s *scenario) planLogons(users []domaincontroller.Object) ([]change, error) {
	second, host := s.domain.Controllers()[1], s.ports[1].host()
	due := time.Now().Add(-domaincontroller.LogonSyncInterval)
	i := slices.IndexFunc(users, func(o domaincontroller.Object) bool {
		last, known := ad.ParseFileTime([]byte(o.First("lastLogonTimestamp")))
		return !known || last.Time().Before(due)
	})
	if i < 0 || len(users) < 2 {
		return nil, newUsageError(errors.New("no user has an old logon, and the demo logs one on"), "use another --seed or more --users")
	}
	known, failing := users[i], users[(i+1)%len(users)]
	return []change{
		{text: "logged on " + known.First("name") + " at " + host, guid: guidOf(known), field: "lastSuccessfulLoginAt",
			apply: func() error { return second.Logon(known.DN) },
			wantNow: func() string {
				o, _ := second.Object(known.DN, "lastLogon") // the logon has succeeded
				return logonsOf(o).last.text()
			}},
		{text: "wrong password of " + failing.First("name") + " at " + host, guid: guidOf(failing), unsent: "only full syncs send it",
			apply: func() error { return second.FailLogon(failing.DN) }},
	}, nil
}

// isPlainAccount reports whether a user is enabled, has a title, and has a name in Latin
// letters: the width of other scripts differs between terminals.
func isPlainAccount(o domaincontroller.Object) bool {
	return o.First("userAccountControl") == "512" && o.First("title") != "" &&
		!strings.ContainsFunc(o.First("name"), func(r rune) bool { return !unicode.In(r, unicode.Latin) && r != ' ' })
}

// printTable prints the effect of each change at the gateway. It returns an error that lists
// the changes with another effect than expected.
func (s *scenario) printTable(changes []change) error {
	inventory := s.readInventory()
	var missing []string
	table := tabwriter.NewWriter(s.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprint(table, "\nIN THE DIRECTORY\tAT THE GATEWAY\tREQUESTS\tTIME\n")
	for _, c := range changes {
		identity, found := inventory[c.guid]
		got := gatewayserver.Text(identity.Fields()[c.field])
		requests := identity.Times - c.sentBefore
		duration := "-"
		if requests > 0 {
			duration = identity.ReceivedAt.Sub(c.time).Round(10 * time.Millisecond).String()
		}
		if !found || c.field != "" && got != c.want || (requests == 0) != (c.field == "") {
			missing = append(missing, c.text)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", c.text, c.effect(got, found, requests), requests, duration)
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", errChangesMissing, strings.Join(missing, ", "))
	}
	return nil
}

// effect describes the effect of a change at the gateway, where its field has a value.
func (c change) effect(value string, found bool, requests int) string {
	switch {
	case !found:
		return "not found"
	case requests == 0 && c.field == "":
		return "unchanged: " + c.unsent
	case requests == 0:
		return "unchanged"
	case c.field == "name", c.field == "status", c.field == "visibility":
		return c.field + " " + value
	}
	return fmt.Sprintf("%s %q", c.field, value)
}
