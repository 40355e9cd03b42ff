package cli

import (
	"encoding/json"
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

// identities are the users and the groups among a directory's objects.
func identities(objects []domaincontroller.Object) (users, groups []domaincontroller.Object) {
	for _, o := range objects {
		switch {
		case o.First("isDeleted") != "":
		case o.First("sAMAccountType") == "805306368":
			users = append(users, o)
		case slices.Contains(o.Attributes["objectClass"], "group"):
			groups = append(groups, o)
		}
	}
	return users, groups
}

func guidOf(o domaincontroller.Object) string {
	guid, _ := ad.ParseGUID([]byte(o.First("objectGUID")))
	return guid.String()
}

// heldIdentity is what the demo looks at of an identity at the gateway.
type heldIdentity struct {
	gatewayserver.Identity
	name   string
	fields map[string]any // of its class
}

// held is what the gateway holds, by GUID.
func (e *embedded) held() (map[string]heldIdentity, error) {
	all := map[string]heldIdentity{}
	for _, identity := range append(e.gateway.Users(), e.gateway.Groups()...) {
		var item struct {
			Asset struct {
				AssetDetail struct {
					Name            string         `json:"name"`
					UserAssetClass  map[string]any `json:"userAssetClass"`
					GroupAssetClass map[string]any `json:"groupAssetClass"`
				} `json:"assetDetail"`
			} `json:"asset"`
		}
		if err := json.Unmarshal(identity.Asset, &item); err != nil {
			return nil, fmt.Errorf("inventory: %w", err)
		}
		detail := item.Asset.AssetDetail
		fields := detail.UserAssetClass
		if identity.Kind == gatewayserver.KindGroup {
			fields = detail.GroupAssetClass
		}
		all[identity.VendorAssetID] = heldIdentity{identity, detail.Name, fields}
	}
	return all, nil
}

// sentFields are the fields at the gateway that the demo compares, and the
// attributes that they are made of.
var sentFields = map[string]map[string]string{
	gatewayserver.KindUser: {
		"name": "name", "email": "mail", "firstName": "givenName", "lastName": "sn", "displayName": "displayName", "phone": "mobile", "jobTitle": "title",
	},
	gatewayserver.KindGroup: {"name": "name", "displayName": "displayName", "description": "description"},
}

// verify holds the gateway's whole inventory against the directory.
func (s *play) verify() error {
	held, err := s.held()
	if err != nil {
		return err
	}
	var differences []string
	differ := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	compare := func(kind string, o domaincontroller.Object) {
		guid := guidOf(o)
		identity, there := held[guid]
		delete(held, guid)
		if !there || identity.Kind != kind {
			differ("%s is not there as a %s", o.DN, kind)
			return
		}
		for field, attribute := range sentFields[kind] {
			if got, _ := identity.fields[field].(string); got != o.First(attribute) {
				differ("%s has the %s %q and not %q", o.DN, field, got, o.First(attribute))
			}
		}
		status := identity.fields["status"]
		control, _ := ad.ParseAccountControl([]byte(o.First("userAccountControl")))
		if disabled := control&ad.AccountDisabled != 0; status == "DELETED" || kind == gatewayserver.KindUser && disabled != (status == "DISABLED") {
			differ("%s has the status %v", o.DN, status)
		}
	}
	users, groups := identities(s.directory.Objects())
	for _, o := range users {
		compare(gatewayserver.KindUser, o)
	}
	for _, o := range groups {
		compare(gatewayserver.KindGroup, o)
	}
	for _, identity := range held { // has gone from the directory
		if identity.fields["status"] != "DELETED" {
			differ("%s is there and not deleted", identity.name)
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("%w: %d differences, the first: %s", errDiffers, len(differences), slices.Min(differences))
	}
	return nil
}

// change is one change in the directory, and what is to come of it.
type change struct {
	what string
	guid string // "": of an object that is made, and has it from the directory
	dn   string // of that one
	at   time.Time
	// What the gateway is to show: a field and its value; no field: nothing new.
	field, want string
	times       int // that the gateway had taken the object before
}

// change makes one change of each kind.
func (s *play) change() ([]change, error) {
	users, groups := identities(s.directory.Objects())
	users = slices.DeleteFunc(users, func(o domaincontroller.Object) bool { return !castable(o) })
	const parts = 5
	if len(users) < parts {
		return nil, misused(fmt.Errorf("only %d users fit in a table, and the demo changes %d", len(users), parts), "use another --seed or more --users")
	}
	group := groups[len(groups)-1]
	held, err := s.held()
	if err != nil {
		return nil, err
	}

	var changes []change
	// make makes a change, unless one before it has failed.
	make := func(c change, apply func() error) {
		if err == nil {
			c.at, c.times = time.Now(), held[c.guid].Times
			err = apply()
			changes = append(changes, c)
		}
	}
	d := s.directory
	_, container, _ := strings.Cut(users[0].DN, ",")
	newcomer, club := "CN=Ada Example,"+container, "CN=Newcomers,CN=Users,"+d.Base()
	make(change{what: "added user Ada Example", dn: newcomer, field: "status", want: "ACTIVE"}, func() error {
		return d.Add(domaincontroller.Object{DN: newcomer, Attributes: map[string][]string{
			"objectClass": {"user"}, "sAMAccountName": {"demo.ada"}, "userAccountControl": {"66048"}, "givenName": {"Ada"}, "sn": {"Example"},
			"displayName": {"Ada Example"}, "mail": {"ada.example@corp.example.com"}, "title": {"Analyst"},
		}})
	})
	make(change{what: "added group Newcomers, with Ada", dn: club, field: "visibility", want: "PUBLIC"}, func() error {
		return d.Add(domaincontroller.Object{DN: club, Attributes: map[string][]string{
			"objectClass": {"group"}, "sAMAccountName": {"demo.newcomers"}, "description": {"Who is new here"}, "member": {newcomer},
		}})
	})
	const title = "Head of Demos"
	promoted := users[0]
	make(change{what: "modified title of " + promoted.First("name"), guid: guidOf(promoted), field: "jobTitle", want: title}, func() error {
		return d.Modify(promoted.DN, "title", title)
	})
	renamed, name := users[1], users[1].First("name")+"-Example"
	make(change{what: "renamed " + renamed.First("name"), guid: guidOf(renamed), field: "name", want: name}, func() error {
		return d.Rename(renamed.DN, name)
	})
	disabled := users[2]
	make(change{what: "disabled " + disabled.First("name"), guid: guidOf(disabled), field: "status", want: "DISABLED"}, func() error {
		return d.Disable(disabled.DN)
	})
	moved := users[3]
	make(change{what: "moved " + moved.First("name") + " to CN=Users", guid: guidOf(moved)}, func() error {
		return d.Move(moved.DN, "CN=Users,"+d.Base())
	})
	const purpose = "Described anew"
	make(change{what: "described " + group.First("name"), guid: guidOf(group), field: "description", want: purpose}, func() error {
		return d.Modify(group.DN, "description", purpose)
	})
	deleted := users[4]
	make(change{what: "deleted " + deleted.First("name"), guid: guidOf(deleted), field: "status", want: "DELETED"}, func() error {
		return d.Delete(deleted.DN)
	})
	if err != nil {
		return nil, err
	}
	for _, o := range d.Objects() {
		if i := slices.IndexFunc(changes, func(c change) bool { return c.dn == o.DN }); i >= 0 {
			changes[i].guid = guidOf(o)
		}
	}
	return changes, nil
}

// castable is an account in good standing, with a name that fits in a table: the
// width of other scripts is every terminal's own affair.
func castable(o domaincontroller.Object) bool {
	return o.First("userAccountControl") == "512" && o.First("title") != "" &&
		!strings.ContainsFunc(o.First("name"), func(r rune) bool { return !unicode.In(r, unicode.Latin) && r != ' ' })
}

// report prints what became of each change, as the gateway holds it now. Its error
// names those of which something else did.
func (s *play) report(changes []change) error {
	held, err := s.held()
	if err != nil {
		return err
	}
	var wrong []string
	table := tabwriter.NewWriter(s.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprint(table, "\nIN THE DIRECTORY\tAT THE GATEWAY\tREQUESTS\tTIME\n")
	for _, c := range changes {
		identity, there := held[c.guid]
		requests := identity.Times - c.times
		arrived, took := "not there", "-"
		switch got := fmt.Sprint(identity.fields[c.field]); {
		case !there:
		case requests == 0 && c.field == "":
			arrived = "as before: nothing to send"
		case requests == 0:
			arrived = "as before"
		case c.field == "name", c.field == "status", c.field == "visibility":
			arrived = c.field + " " + got
		default:
			arrived = fmt.Sprintf("%s %q", c.field, got)
		}
		if requests > 0 {
			took = identity.ReceivedAt.Sub(c.at).Round(10 * time.Millisecond).String()
		}
		if !there || c.field != "" && fmt.Sprint(identity.fields[c.field]) != c.want || (requests == 0) != (c.field == "") {
			wrong = append(wrong, c.what)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", c.what, arrived, requests, took)
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %s", errChangesMissing, strings.Join(wrong, ", "))
	}
	return nil
}
