package cli

import (
	"fmt"
	"slices"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
)

// identities returns the users and the groups among a directory's objects.
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

// readInventory returns the users and the groups at the gateway by GUID.
func (s *sandboxServers) readInventory() map[string]gatewayserver.Identity {
	inventory := map[string]gatewayserver.Identity{}
	for _, identity := range append(s.gateway.Users(), s.gateway.Groups()...) {
		inventory[identity.VendorAssetID] = identity
	}
	return inventory
}

// comparedFields maps the fields of an asset that the demo compares to their source
// attributes, by kind.
var comparedFields = map[string]map[string]string{
	gatewayserver.KindUser: {
		"name": "name", "email": "mail", "firstName": "givenName", "lastName": "sn", "displayName": "displayName", "phone": "mobile", "jobTitle": "title",
	},
	gatewayserver.KindGroup: {"name": "name", "displayName": "displayName", "description": "description"},
}

// verify compares all users and groups at the gateway with the directory.
func (s *sandboxServers) verify() error {
	inventory := s.readInventory()
	users, groups := identities(s.directory.Objects())
	var differences []string
	for kind, objects := range map[string][]domaincontroller.Object{gatewayserver.KindUser: users, gatewayserver.KindGroup: groups} {
		for _, o := range objects {
			differences = append(differences, compareIdentity(kind, o, inventory[guidOf(o)])...)
			delete(inventory, guidOf(o))
		}
	}
	for _, identity := range inventory { // no longer in the directory
		if fields := identity.Fields(); gatewayserver.Text(fields["status"]) != "DELETED" {
			differences = append(differences, fmt.Sprintf("%s is not deleted", gatewayserver.Text(fields["name"])))
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("%w: %d differences, the first: %s", errDiffers, len(differences), slices.Min(differences))
	}
	return nil
}

// compareIdentity returns the differences between an object and its identity at the
// gateway, which is the zero value if the gateway has none.
func compareIdentity(kind string, o domaincontroller.Object, identity gatewayserver.Identity) (differences []string) {
	if identity.Kind != kind {
		return []string{fmt.Sprintf("%s is missing as a %s", o.DN, kind)}
	}
	fields := identity.Fields()
	for field, attribute := range comparedFields[kind] {
		if got := gatewayserver.Text(fields[field]); got != o.First(attribute) {
			differences = append(differences, fmt.Sprintf("%s has the %s %q, not %q", o.DN, field, got, o.First(attribute)))
		}
	}
	status := gatewayserver.Text(fields["status"])
	control, _ := ad.ParseAccountControl([]byte(o.First("userAccountControl")))
	disabled := control&ad.AccountDisabled != 0
	if status == "DELETED" || kind == gatewayserver.KindUser && disabled != (status == "DISABLED") {
		differences = append(differences, fmt.Sprintf("%s has the status %s", o.DN, status))
	}
	return differences
}
