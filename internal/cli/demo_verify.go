package cli

import (
	"cmp"
	"fmt"
	"slices"

	"adconnector/internal/ad"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
)

// identities returns the users and the groups of the directory, with the attributes that the demo
// uses. All attributes of a large directory need much memory.
func (s *sandboxServers) identities() (users, groups []domaincontroller.Object) {
	for _, o := range s.directory().Objects("objectGUID", "objectClass", "sAMAccountType", "isDeleted", "userAccountControl", "lastLogonTimestamp",
		"name", "displayName", "description", "mail", "givenName", "sn", "mobile", "title") {
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

// fileTime is a time as Active Directory stores it. 0: none.
type fileTime ad.FileTime

// text returns the time as an asset has it.
func (t fileTime) text() string {
	if t == 0 {
		return ""
	}
	text, _ := gateway.Timestamp(ad.FileTime(t).Time()).MarshalText() // never fails
	return string(text)
}

// logons are the logons of an account over all controllers.
type logons struct {
	last, lastFailed fileTime
	failed           string // number, on the PDC emulator
	controller       int    // that has the last one
}

// logonsOf returns the logons of an account on one controller.
func logonsOf(o domaincontroller.Object) logons {
	last, _ := ad.ParseFileTime([]byte(o.First("lastLogon")))
	failed, _ := ad.ParseFileTime([]byte(o.First("badPasswordTime")))
	return logons{last: fileTime(last), lastFailed: fileTime(failed), failed: cmp.Or(o.First("badPwdCount"), "0")}
}

// readLogons returns the logons of all accounts by GUID.
func (s *sandboxServers) readLogons() map[string]logons {
	all := map[string]logons{}
	for n, d := range s.domain.Controllers() {
		isPDCEmulator := d.IsPDCEmulator()
		for _, o := range d.Objects("objectGUID", "lastLogon", "badPasswordTime", "badPwdCount") {
			known, found := all[guidOf(o)], logonsOf(o)
			if found.last > known.last {
				known.last, known.controller = found.last, n
			}
			known.lastFailed = max(known.lastFailed, found.lastFailed)
			if isPDCEmulator {
				known.failed = found.failed
			}
			all[guidOf(o)] = known
		}
	}
	return all
}

// compareLogons returns the differences between the logons of a user on all controllers and its
// identity at the gateway. Delta syncs do not send failed logons.
func compareLogons(o domaincontroller.Object, want logons, identity gatewayserver.Identity, mode string) (differences []string) {
	compared := map[string]string{"lastSuccessfulLoginAt": want.last.text()}
	if mode == "full" {
		compared["lastFailedPasswordAttemptAt"], compared["failedPasswordAttemptCount"] = want.lastFailed.text(), want.failed
	}
	fields := identity.Fields()
	for field, value := range compared {
		if got := gatewayserver.Text(fields[field]); got != value {
			differences = append(differences, fmt.Sprintf("%s has the %s %q, not %q", o.DN, field, got, value))
		}
	}
	return differences
}

// verify compares all users and groups at the gateway with the directory after a run of a mode.
func (s *sandboxServers) verify(mode string) error {
	inventory, all := s.readInventory(), s.readLogons()
	users, groups := s.identities()
	var differences []string
	for kind, objects := range map[string][]domaincontroller.Object{gatewayserver.KindUser: users, gatewayserver.KindGroup: groups} {
		for _, o := range objects {
			identity := inventory[guidOf(o)]
			differences = append(differences, compareIdentity(kind, o, identity)...)
			if kind == gatewayserver.KindUser && o.DN != s.directory().BindDN() { // whose binds are logons
				differences = append(differences, compareLogons(o, all[guidOf(o)], identity, mode)...)
			}
			delete(inventory, guidOf(o))
		}
	}
	for _, identity := range inventory { // no longer in the directory
		if fields := identity.Fields(); gatewayserver.Text(fields["status"]) != "DELETED" {
			differences = append(differences, fmt.Sprintf("%s is not deleted", gatewayserver.Text(fields["name"])))
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("%w: %s, the first: %s", errDiffers, count(len(differences), "difference"), slices.Min(differences))
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
