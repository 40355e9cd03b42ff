package inventory

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"adconnector/internal/sandbox/gatewayserver"
)

// The fields of the contract, by section of the page. A field that is not here is shown as another field.

var personFields = []field{
	{path: "displayName", title: "Display name", show: showText},
	{path: "firstName", title: "First name", show: showText},
	{path: "lastName", title: "Last name", show: showText},
	{path: "jobTitle", title: "Job title", show: showText},
	{path: "email", title: "E-mail", show: showText},
	{path: "phone", title: "Phone", show: showText},
	{path: "currentAddress.streetAddress", title: "Street", show: showText},
	{path: "currentAddress.city", title: "City", show: showText},
	{path: "currentAddress.state", title: "State", show: showText},
	{path: "currentAddress.country", title: "Country", show: showText},
}

var accountFields = []field{
	{path: "status", title: "Status", show: showChip},
	{path: "accountType", title: "Account type", show: showChip},
	{path: "posture.samAccountName", title: "Account name", show: showText},
	{path: "posture.userPrincipalName", title: "User principal name", show: showText},
	{path: "posture.accountControl", title: "Account flags", show: showChips},
	{path: "posture.adminCount", title: "adminCount", show: showNumber(adminCount)},
	{path: "posture.passwordAttributes", title: "Attributes that can contain a password", show: showCodes},
	{path: "posture.alternateIdentities.count", title: "Alternate identities", show: showNumber(number)},
	{path: "posture.alternateIdentities.forms", title: "Forms of alternate identities", show: showLabels},
	{path: "posture.alternateIdentities.weakForms", title: "Weak forms of alternate identities", show: showLabels},
	{path: "posture.keyCredentials", title: "Key credentials", show: showNumber(number)},
	{path: "posture.pathsOutsideDomain", title: "Paths on a host outside of the domain", show: showCodes},
	{path: "posture.logonWorkstations", title: "Logon workstations", show: showTexts},
	{path: "posture.hasDescription", title: "Has a description", show: showYesNo},
	{path: "posture.supersededBy", title: "Superseded by", show: showReference},
	{path: "posture.supersedes", title: "Supersedes", show: showReference},
	{path: "posture.delegatedState", title: "Migration state", show: showLabel},
	{path: "posture.passwordReaders", title: "Can read the managed password", show: showReferences},
	{path: "posture.managedPasswordIntervalDays", title: "Managed password changes every", show: showNumber(days)},
}

var signInFields = []field{
	{path: lastSignIn, title: "Last sign-in", show: showMoment},
	{path: "posture.lastLogonTimestamp", title: "Last sign-in, as replicated", show: showMoment},
	{path: "passwordLastChangedAt", title: "Password set", show: showMoment},
	{path: "posture.passwordExpiresAt", title: "Password expires", show: showMoment},
	{path: "posture.passwordExpiry", title: "Password expires", show: showExpiry},
	{path: "posture.passwordPolicy", title: "Fine-grained password policy", show: showPolicy, absent: "None: the policy of the domain applies"},
	{path: "accountExpirationAt", title: "Account expires", show: showMoment},
	{path: "failedPasswordAttemptCount", title: "Failed password attempts", show: showNumber(number)},
	{path: "lastFailedPasswordAttemptAt", title: "Last failed attempt", show: showMoment},
	{path: "activationDate", title: "Created", show: showMoment},
}

var kerberosFields = []field{
	{path: "posture.servicePrincipalNames", title: "Service principal names", show: showCodes},
	{path: "posture.allowedToDelegateTo", title: "May delegate to", show: showCodes},
	{path: "posture.allowedToActOnBehalf", title: "May act on behalf of others here", show: showReferences},
	{path: "posture.supportedEncryptionTypes", title: "Encryption types", show: showLabels, absent: "Default of the domain"},
	{path: "posture.sidHistory", title: "SID history", show: showReferences},
}

var groupFields = []field{
	{path: "displayName", title: "Display name", show: showText},
	{path: "description", title: "Description", show: showText},
	{path: "type", title: "Type", show: showChip},
	{path: "visibility", title: "Visibility", show: showChip},
	{path: "status", title: "Status", show: showChip},
	{path: "posture.samAccountName", title: "Account name", show: showText},
	{path: "posture.managedBy", title: "Managed by", show: showReference},
	{path: "posture.adminCount", title: "adminCount", show: showNumber(adminCount)},
	{path: "posture.nestingDepth", title: "Nesting depth", show: showNumber(number)},
	{path: "posture.inCycle", title: "Member of itself", show: showRisk},
	{path: "posture.empty", title: "Empty", show: showYesNo},
	{path: "posture.membersWithoutSid", title: "Members without a SID", show: showNumber(withoutSID)},
}

var roleFields = []field{
	{path: "role", title: "Role", show: showLabel},
	{path: "description", title: "Description", show: showText},
	{path: "group", title: "Group", show: showGroup},
	{path: "privileged", title: "Privileged", show: showFlag(chip("", valuePrivileged), chip("", valueNotPrivileged))},
	{path: "status", title: "Status", show: showChip},
	{path: "membersWithoutSid", title: "Members without a SID", show: showNumber(withoutSID)},
}

var domainFields = []field{
	{path: "names.dns", title: "DNS name", show: showText},
	{path: "names.netbios", title: "NetBIOS name", show: showText},
	{path: "functionalLevel", title: "Domain functional level", show: showNumber(functionalLevel)},
	{path: "forestFunctionalLevel", title: "Forest functional level", show: showNumber(functionalLevel)},
	{path: "recycleBin", title: "Recycle Bin", show: showChip},
	{path: "machineAccountQuota", title: "Machine account quota", show: showNumber(number)},
	{path: "krbtgtPasswordLastChangedAt", title: "krbtgt password set", show: showMoment},
	{path: "entraSsoPasswordLastChangedAt", title: "AZUREADSSOACC password set", show: showMoment},
	{path: "smartCardPasswordsExpire", title: "Passwords of smart card accounts expire", show: showYesNo},
	{path: "lapsSchema.legacy", title: "Schema of Microsoft LAPS", show: showYesNo},
	{path: "lapsSchema.windows", title: "Schema of Windows LAPS", show: showYesNo},
	{path: "createdAt", title: "Created", show: showMoment},
	{path: "status", title: "Status", show: showChip},
}

var privilegedUserFields = []field{
	{path: "privilegedUsers.count", title: "Users with a privileged role", show: showNumber(number)},
	{path: "privilegedUsers.inProtectedUsers", title: "Of these in Protected Users", show: showNumber(number)},
}

var passwordPolicyFields = []field{
	{path: "passwordPolicy.minimumLength", title: "Minimum length", show: showNumber(characters)},
	{path: "passwordPolicy.historyLength", title: "History", show: showNumber(passwords)},
	{path: "passwordPolicy.complexity", title: "Complexity required", show: showYesNo},
	{path: "passwordPolicy.reversibleEncryption", title: "Reversible encryption", show: showRisk},
	{path: "passwordPolicy.minimumAgeSeconds", title: "Minimum age", show: showNumber(interval)},
	{path: "passwordPolicy.maximumAgeSeconds", title: "Maximum age", show: showNumber(interval), absent: "Passwords never expire"},
}

var lockoutPolicyFields = []field{
	{path: "lockoutPolicy.threshold", title: "Lockout threshold", show: showNumber(threshold)},
	{path: "lockoutPolicy.durationSeconds", title: "Lockout duration", show: showNumber(interval), absent: "Until an administrator unlocks the account"},
	{path: "lockoutPolicy.observationWindowSeconds", title: "Counter reset after", show: showNumber(interval)},
}

var fineGrainedFields = []field{
	{path: "precedence", title: "Precedence", show: showNumber(number)},
	{path: "appliesTo", title: "Applies to", show: showReferences},
	{path: "minimumLength", title: "Minimum length", show: showNumber(characters)},
	{path: "historyLength", title: "History", show: showNumber(passwords)},
	{path: "complexity", title: "Complexity required", show: showYesNo},
	{path: "reversibleEncryption", title: "Reversible encryption", show: showRisk},
	{path: "minimumAgeSeconds", title: "Minimum age", show: showNumber(interval)},
	{path: "maximumAgeSeconds", title: "Maximum age", show: showNumber(interval), absent: "Passwords never expire"},
	{path: "lockoutThreshold", title: "Lockout threshold", show: showNumber(threshold)},
	{path: "lockoutDurationSeconds", title: "Lockout duration", show: showNumber(interval), absent: "Until an administrator unlocks the account"},
	{path: "lockoutObservationWindowSeconds", title: "Counter reset after", show: showNumber(interval)},
	{path: "dn", title: "Distinguished name", show: showCode},
}

var trustFields = []field{
	{path: "partner", title: "Partner", show: showText},
	{path: "flatName", title: "NetBIOS name", show: showText},
	{path: "direction", title: "Direction", show: showLabel},
	{path: "type", title: "Type", show: showLabel},
	{path: "sidFiltering", title: "Accepted SIDs", show: showSIDFiltering},
	{path: "attributes", title: "Attributes", show: showLabels},
	{path: "sid", title: "SID", show: showCode},
}

var controllerFields = []field{
	{path: "name", title: "Name", show: showText},
	{path: "hostName", title: "Host name", show: showText},
	{path: "operatingSystem", title: "Operating system", show: showText},
	{path: "operatingSystemVersion", title: "Version", show: showText},
	{path: "readOnly", title: "Read-only", show: showYesNo},
	{path: "passwordLastChangedAt", title: "Password set", show: showMoment},
	{path: "sid", title: "SID", show: showCode},
}

var heuristicsFields = []field{
	{path: "dsHeuristics.anonymousAccess", title: "Anonymous LDAP operations", show: showRisk},
	{path: "dsHeuristics.anonymousNameService", title: "Anonymous name service (NSPI)", show: showRisk},
	{path: "dsHeuristics.listObjectMode", title: "List object mode", show: showYesNo},
	{path: "dsHeuristics.userPasswordIsPassword", title: "userPassword is the password of the account", show: showYesNo},
	{path: "dsHeuristics.adminSdHolderExclusions", title: "Not protected by AdminSDHolder", show: showLabels, absent: "No exclusions"},
	{path: "dsHeuristics.uniquenessExclusions", title: "Uniqueness not verified of", show: showLabels, absent: "No exclusions"},
	{path: "dsHeuristics.addAuthorization", title: "Authorization of attributes on add", show: showLabel},
	{path: "dsHeuristics.ownerRightsBlocked", title: "Implicit rights of owners blocked", show: showLabel},
}

// identifierFields follow the SID and the GUID.
var identifierFields = []field{
	{path: "distinguishedName", title: "Distinguished name", show: showCode},
	{path: "posture.distinguishedName", title: "Distinguished name", show: showCode},
}

// Titles of the fields that tables show.
const (
	factsTitle        = "Security facts"
	privilegesTitle   = "Privileged groups"
	controlledByTitle = "Who else controls it"
	groupsTitle       = "Groups"
	membersTitle      = "Members"
	nestedTitle       = "Nested groups"
	policiesTitle     = "Fine-grained password policies"
	trustsTitle       = "Trusts"
	controllersTitle  = "Domain controllers"
)

// tableFields are the titles of the fields that tables show, by kind.
var tableFields = map[string][]field{
	gatewayserver.KindUser: {
		{path: "posture.facts", title: factsTitle}, {path: "posture.privilegedGroups", title: privilegesTitle}, {path: "posture.privilegedPaths", title: "Paths to privileged groups"},
		{path: "posture.controlledBy", title: controlledByTitle}, {path: "posture.groups", title: groupsTitle},
	},
	gatewayserver.KindGroup: {
		{path: "posture.privilegedGroups", title: privilegesTitle}, {path: "posture.privilegedPaths", title: "Paths to privileged groups"}, {path: "posture.controlledBy", title: controlledByTitle},
		{path: "posture.members", title: membersTitle}, {path: "posture.memberOf", title: "Member of"},
	},
	gatewayserver.KindRole: {
		{path: "members", title: membersTitle}, {path: "nestedGroups", title: nestedTitle}, {path: "foreignMembers", title: "Members from other domains"},
		{path: "controlledBy", title: controlledByTitle},
	},
	gatewayserver.KindDomain: {
		{path: "fineGrainedPasswordPolicies", title: policiesTitle}, {path: "trusts", title: trustsTitle}, {path: "domainControllers", title: controllersTitle},
		{path: "controlledBy", title: "Who else controls the domain"}, {path: "adminSdHolder.controlledBy", title: "Who else controls AdminSDHolder"},
		{path: "krbtgt.controlledBy", title: "Who else controls krbtgt"}, {path: "containers", title: "Who else controls containers"},
		{path: "privilegedUsers", title: "Privileged users"},
	},
}

// allFields returns the fields of a kind that have titles.
func allFields(kind string) []field {
	switch kind {
	case gatewayserver.KindUser:
		return slices.Concat(tableFields[kind], personFields, accountFields, signInFields, kerberosFields, identifierFields)
	case gatewayserver.KindGroup:
		return slices.Concat(tableFields[kind], groupFields, identifierFields)
	case gatewayserver.KindRole:
		return slices.Concat(tableFields[kind], roleFields)
	}
	return slices.Concat(tableFields[kind], domainFields, privilegedUserFields, passwordPolicyFields, lockoutPolicyFields, heuristicsFields, identifierFields)
}

func days(n int64) string       { return count(n, "day") }
func characters(n int64) string { return count(n, "character") }
func passwords(n int64) string  { return count(n, "password") }

func adminCount(n int64) string {
	if n == 0 {
		return "0"
	}
	return number(n) + " (protected by AdminSDHolder, now or before)"
}

func withoutSID(n int64) string { return number(n) + " (such as contacts)" }

func threshold(n int64) string {
	if n == 0 {
		return "No lockout"
	}
	return count(n, "failed attempt")
}

func showExpiry(o *object, raw json.RawMessage) cells {
	switch text(raw) {
	case "NEVER":
		if o.has("accountType") { // the domain controller changes it
			return one(cell{Text: "Never"})
		}
		return one(cell{Text: "Never", Tone: "warn"})
	case "MUST_CHANGE":
		return one(cell{Text: "Must be changed at the next sign-in", Tone: "info"})
	}
	return one(cell{Text: label(text(raw))})
}

func showGroup(o *object, raw json.RawMessage) cells { return one(withoutNote(o.reference(text(raw)))) }

// showPolicy shows the DN of a fine-grained policy, with a link to the policies of the domain.
func showPolicy(o *object, raw json.RawMessage) cells {
	c := cell{Text: text(raw), Code: true}
	if domains := o.inventory.listing(kindOf(gatewayserver.KindDomain)).rows; len(domains) == 1 {
		c.URL = domains[0].url + "#policies"
	}
	return one(c)
}

func showSIDFiltering(_ *object, raw json.RawMessage) cells {
	value := text(raw)
	c := cell{Text: map[string]string{
		"DOMAIN": "Those of the domain", "FOREST": "Those of the forest", "RELAXED": "Those of the forest, with SID history", "NONE": "Those of any domain",
	}[value]}
	if c.Text == "" {
		c.Text = label(value)
	}
	if value == "NONE" || value == "RELAXED" {
		c.Tone = "bad"
	}
	return one(c)
}

// sectionsOf returns the sections of an object in their order: privileges first.
func sectionsOf(o *object) []section {
	switch o.identity.Kind {
	case gatewayserver.KindUser:
		return []section{
			o.facts(), o.privileges("posture."), o.control("posture."),
			o.list("person", "Person", personFields), o.list("account", "Account", accountFields),
			o.signIn(), o.list("kerberos", "Kerberos and delegation", kerberosFields),
			o.groups(), o.identifiers(),
		}
	case gatewayserver.KindGroup:
		return []section{
			o.privileges("posture."), o.control("posture."), o.groupDetails(), o.groupMembers(), o.memberOf(), o.identifiers(),
		}
	case gatewayserver.KindRole:
		return []section{o.list("role", "Role", roleFields), o.roleMembers(), o.nestedGroups(), o.control(""), o.identifiers()}
	}
	controllers, control := o.controllers()
	return []section{
		o.list("domain", "Domain", domainFields), o.list("privileged-users", "Privileged users", privilegedUserFields), o.domainControl(control),
		o.list("password-policy", "Password policy", passwordPolicyFields), o.list("lockout-policy", "Account lockout", lockoutPolicyFields),
		o.policies(), o.trusts(), controllers, o.list("heuristics", "Settings of the forest (dSHeuristics)", heuristicsFields), o.identifiers(),
	}
}

func (o *object) list(id, title string, fields []field) section {
	return section{ID: id, Title: title, Entries: o.entries(o.record, fields)}
}

// signIn returns the section of sign-ins and the password. No policy applies to the managed passwords of
// service accounts.
func (o *object) signIn() section {
	fields := signInFields
	if o.has("accountType") && !o.has("posture.passwordPolicy") {
		fields = slices.DeleteFunc(slices.Clone(fields), func(f field) bool { return f.path == "posture.passwordPolicy" })
	}
	return o.list("sign-in", "Sign-in and password", fields)
}

// identifiers returns the section of the object's identifiers.
func (o *object) identifiers() section {
	s := section{ID: "identifiers", Title: "Identifiers", Entries: []entry{
		{"SID", one(cell{Text: o.identity.ExternalAssetID, Code: true})},
		{"GUID", one(cell{Text: o.identity.VendorAssetID, Code: true})},
	}}
	if o.identity.Kind == gatewayserver.KindRole {
		s.Entries[0].Title = "ID"
	}
	s.Entries = append(s.Entries, o.entries(o.record, identifierFields)...)
	return s
}

// factTexts are the meanings of facts.
var factTexts = map[string]string{
	"ADMIN_COUNT_WITHOUT_ROLE":          "adminCount is 1, but AdminSDHolder does not protect the account any more. Its permissions do not inherit.",
	"ASREP_ROASTABLE_AND_PRIVILEGED":    "No preauthentication is required, so that anybody can get data to guess the password offline.",
	"DELEGATION_TO_DOMAIN_CONTROLLER":   "The account may delegate to a service on the host of a domain controller.",
	"KERBEROASTABLE_AND_PRIVILEGED":     "The user has a service principal name, so that any account can get a ticket to guess the password offline.",
	"PRIVILEGED_AND_INACTIVE":           "The last logon, or the creation without a logon, is at least 90 days ago.",
	"PRIVILEGED_NOT_IN_PROTECTED_USERS": "The user is not a member of Protected Users.",
	"PRIVILEGED_WITH_OLD_PASSWORD":      "The password was set at least 365 days ago.",
}

func (o *object) facts() section {
	const path = "posture.facts"
	s := section{ID: "facts", Title: factsTitle}
	t := table{Columns: []string{"Fact", "Meaning", "Derived from"}}
	for _, item := range o.items(path) {
		name := text(item.take("fact"))
		row := []cells{one(cell{Text: label(name), Tone: "bad"}), one(cell{Text: factTexts[name]}), showCodes(o, item.take("attributes"))}
		t.Rows = append(t.Rows, titled(t.Columns, row))
	}
	return s.with(o, t, path)
}

// titled sets the titles of the columns in a row.
func titled(columns []string, row []cells) []cells {
	for n := range row {
		row[n].Title = columns[n]
	}
	return row
}

// with returns the section with a table, or with a note instead of it. The note says that one of the
// fields of the table may not be read.
func (s section) with(o *object, t table, paths ...string) section {
	missing := slices.ContainsFunc(paths, o.isUnreadable)
	switch {
	case len(t.Rows) > 0:
		if missing {
			t.Note = "May be incomplete, because the connector's account may not read all of it."
		}
		s.Tables = append(s.Tables, t)
	case missing:
		s.Entries = append(s.Entries, entry{cmp.Or(t.Title, s.Title), one(notReadable())})
	}
	return s
}

// privileges returns the section of the groups of the object's privileged roles, with the paths to them.
func (o *object) privileges(prefix string) section {
	s := section{ID: "privileges", Title: privilegesTitle}
	groups, paths := prefix+"privilegedGroups", prefix+"privilegedPaths"
	steps := map[string]cells{}
	for _, item := range o.items(paths) {
		sid := text(item.take("sid"))
		o.name(sid, text(item.take("name")))
		var path []cell
		for _, step := range o.itemsOf(item, "path") {
			group := text(step.take("sid"))
			o.name(group, text(step.take("name")))
			path = append(path, withoutNote(o.reference(group)))
		}
		if omitted := decode[int](item.take("pathOmits")); omitted > 0 {
			path = append(path, cell{Text: count(int64(omitted), "more group"), Tone: "none"})
		}
		steps[sid] = one(cell{Steps: path})
	}
	t := table{Columns: []string{"Group", "Membership", "Through"}}
	add := func(sid, membership string, through cells) {
		t.Rows = append(t.Rows, titled(t.Columns, []cells{one(withoutNote(o.reference(sid))), one(cell{Text: membership}), through}))
	}
	for _, sid := range o.byPrivilege(decode[[]string](o.take(groups + ".direct"))) {
		add(sid, "Direct", cells{}) // also if it is nested
	}
	for _, sid := range o.byPrivilege(decode[[]string](o.take(groups + ".nested"))) {
		add(sid, "Nested", steps[sid])
		delete(steps, sid)
	}
	for _, sid := range slices.Sorted(maps.Keys(steps)) { // which privilegedGroups does not have
		add(sid, "Nested", steps[sid])
	}
	return s.with(o, t, groups, paths)
}

// name adds the name of a principal.
func (o *object) name(sid, name string) {
	p := o.principals[sid]
	p.name = cmp.Or(p.name, name)
	o.principals[sid] = p
}

func withoutNote(c cell) cell {
	c.Note = ""
	return c
}

// rights are the rights of controlledBy, those that include others first.
var rights = []struct{ name, title, meaning string }{
	{"fullControl", "Full control", "do everything"},
	{"owner", "Owner", "change the permissions"},
	{"writeDacl", "Write DACL", "change the permissions"},
	{"writeOwner", "Write owner", "become the owner"},
	{"replicationRights", "Replication", "read the secrets of the domain"},
	{"resetPassword", "Reset password", "set a new password without the old one"},
	{"writeMembers", "Write members", "add members"},
	{"writeKeyCredential", "Write key credentials", "sign in as the account with an own key"},
	{"writeAllowedToAct", "Write allowed to act", "let other accounts act on behalf of users here"},
	{"createChild", "Create accounts", "create accounts below the object"},
}

// control returns the section of the principals that control the object.
func (o *object) control(prefix string) section {
	path := prefix + "controlledBy"
	s := section{ID: "control", Title: controlledByTitle, Note: "Apart from the principals that control every domain, such as Domain Admins."}
	s = s.with(o, o.controlTable("", o.take(path)), path)
	if len(s.Tables) == 0 && len(s.Entries) == 0 {
		s.Note = ""
	}
	return s
}

// controlTable returns the table of a controlledBy.
func (o *object) controlTable(title string, raw json.RawMessage) table {
	t := table{Title: title, Columns: []string{"Right", "Allows to", "Principals"}}
	holders := decode[map[string]json.RawMessage](raw)
	add := func(name, title, meaning string) {
		if holders[name] != nil {
			t.Rows = append(t.Rows, titled(t.Columns, []cells{one(cell{Text: title}), one(cell{Text: meaning}), showReferences(o, holders[name])}))
			delete(holders, name)
		}
	}
	for _, right := range rights {
		add(right.name, right.title, right.meaning)
	}
	for _, name := range slices.Sorted(maps.Keys(holders)) {
		add(name, titleOf(name), "")
	}
	return t
}

// domainControl returns the section of the principals that control the domain and its privileged objects.
func (o *object) domainControl(controllers []table) section {
	s := section{ID: "control", Title: controlledByTitle, Note: "Apart from the principals that control every domain, such as Domain Admins."}
	for _, part := range []struct{ path, title string }{{"controlledBy", "The domain"}, {"adminSdHolder.controlledBy", "AdminSDHolder"}, {"krbtgt.controlledBy", "krbtgt"}} {
		s = s.with(o, o.controlTable(part.title, o.take(part.path)), part.path)
	}
	s.Tables = append(s.Tables, controllers...)
	if o.isUnreadable("domainControllers.controlledBy") {
		s.Entries = append(s.Entries, entry{"Domain controllers", one(notReadable())})
	}
	containers := o.items("containers")
	for _, item := range containers[:min(len(containers), maxItems)] {
		s.Tables = append(s.Tables, o.controlTable(text(item.take("distinguishedName")), item.take("controlledBy")))
	}
	for _, item := range containers[min(len(containers), maxItems):] {
		item.taken["distinguishedName"], item.taken["controlledBy"] = true, true
	}
	if more := len(containers) - maxItems; more > 0 {
		s.Entries = append(s.Entries, entry{"Containers", one(cell{Text: number(more) + " more"})})
	}
	if o.isUnreadable("containers") {
		s.Entries = append(s.Entries, entry{"Containers", one(uncertain())})
	}
	if len(s.Tables) == 0 && len(s.Entries) == 0 {
		s.Note = ""
	}
	return s
}

// groups returns the section of a user's groups.
func (o *object) groups() section {
	primary := text(o.take("posture.primaryGroup"))
	sids := decode[[]string](o.take("posture.groups"))
	if primary != "" && !slices.Contains(sids, primary) {
		sids = append(sids, primary)
	}
	t := o.members("", sids, []string{"Type", "Membership"}, func(sid string, r *row) []cells {
		membership := cell{Text: "Member"}
		if sid == primary {
			membership.Text = "Primary group"
		}
		return []cells{o.groupType(r), one(membership)}
	})
	s := section{ID: "groups", Title: titleWithCount(groupsTitle, len(sids))}
	return s.with(o, t, "posture.groups")
}

func titleWithCount(title string, n int) string {
	if n == 0 {
		return title
	}
	return title + " (" + number(n) + ")"
}

func (o *object) groupType(r *row) cells {
	if r == nil || r.cells["type"] == "" {
		return cells{}
	}
	return one(chip("", r.cells["type"]))
}

func (o *object) groupDetails() section {
	s := o.list("group", "Group", groupFields)
	if role := o.row(o.identity.ExternalAssetID + roleSuffix); role != nil {
		c := cell{Text: role.name(), URL: role.url, Gone: role.isDeleted()}
		s.Entries = append([]entry{{"Role", one(c)}}, s.Entries...)
	}
	return s
}

// memberColumns are the columns of accounts after their names.
func memberColumns(r *row) []cells {
	columns := make([]cells, 2)
	if r == nil {
		return columns
	}
	if status := r.cells["status"]; status != "" {
		columns[0] = one(chip("", status))
	}
	if r.isPrivileged() {
		columns[1] = one(chip("", valuePrivileged))
	}
	return columns
}

func (o *object) groupMembers() section {
	const path = "posture.members"
	sids := decode[[]string](o.take(path))
	t := o.members("", sids, []string{"Status", "Privileged"}, func(_ string, r *row) []cells { return memberColumns(r) })
	s := section{ID: "members", Title: titleWithCount(membersTitle, len(sids)), Note: "Direct members. Accounts with this primary group are not among them."}
	if s = s.with(o, t, path); len(s.Tables) == 0 && len(s.Entries) == 0 {
		s.Note = ""
	}
	return s
}

func (o *object) memberOf() section {
	const path = "posture.memberOf"
	sids := decode[[]string](o.take(path))
	shown := o.byPrivilege(sids)[:min(len(sids), maxItems)]
	t := o.principalTable("", shown, []string{"Type", "Privileged"}, func(_ string, r *row) []cells {
		return []cells{o.groupType(r), memberColumns(r)[1]}
	})
	t.More = len(sids) - len(shown)
	return section{ID: "member-of", Title: titleWithCount("Member of", len(sids))}.with(o, t, path)
}

// roleMembers returns the section of the effective members of a role.
func (o *object) roleMembers() section {
	sids, foreign := decode[[]string](o.take("members")), map[string]bool{}
	for _, sid := range decode[[]string](o.take("foreignMembers")) { // which are members, too
		foreign[sid] = true
	}
	groups := o.nestingBelow(text(o.fields["group"]), decode[[]string](o.fields["nestedGroups"]))
	t := o.members("", sids, []string{"Status", "Last sign-in", "Membership"}, func(sid string, r *row) []cells {
		status, signIn := cells{}, cells{}
		if r != nil {
			if value := r.cells["status"]; value != "" {
				status = one(chip("", value))
			}
			if at := r.cells[lastSignIn]; at != "" {
				signIn = one(newCell(column{}, at))
			}
		}
		if foreign[sid] {
			status = one(cell{Text: "From another domain", Tone: "warn"})
		}
		return []cells{status, signIn, groups.through(sid)}
	})
	s := section{ID: "members", Title: titleWithCount(membersTitle, len(sids))}
	if s = s.with(o, t, "members", "foreignMembers"); len(sids) == 0 && !o.isUnreadable("members") && !o.has("status") {
		s.Note = "Nobody has this role."
	}
	return s
}

func (o *object) nestedGroups() section {
	const path = "nestedGroups"
	sids := decode[[]string](o.take(path))
	groups := o.nestingBelow(text(o.fields["group"]), sids)
	shown := o.byPrivilege(sids)[:min(len(sids), maxItems)]
	t := table{Columns: []string{"Group", "Membership"}, More: len(sids) - len(shown)}
	for _, sid := range shown {
		t.Rows = append(t.Rows, titled(t.Columns, []cells{one(withoutNote(o.reference(sid))), groups.through(sid)}))
	}
	s := section{ID: "nested-groups", Title: titleWithCount(nestedTitle, len(sids)), Note: "Their members have the role, too."}
	if s = s.with(o, t, path); len(s.Tables) == 0 && len(s.Entries) == 0 {
		s.Note = ""
	}
	return s
}

// nesting is the groups below a group, by the memberships that the inventory has.
type nesting struct {
	o       *object
	group   string
	allowed map[string]bool   // the group and those nested in it
	above   map[string]string // the group through which a member has the shortest path to the group
}

func (o *object) nestingBelow(group string, nested []string) nesting {
	n := nesting{o, group, map[string]bool{group: true}, map[string]string{}}
	for _, sid := range nested {
		n.allowed[sid] = true
	}
	for queue := []string{group}; len(queue) > 0; queue = queue[1:] {
		for _, member := range postureOf(o.row(queue[0])).Members {
			if n.above[member] != "" || member == group {
				continue
			}
			n.above[member] = queue[0]
			if n.allowed[member] {
				queue = append(queue, member)
			}
		}
	}
	return n
}

// memberships are the fields of security posture that nesting uses.
type memberships struct {
	Members      []string
	PrimaryGroup string
}

func postureOf(r *row) memberships {
	if r == nil {
		return memberships{}
	}
	return decode[memberships](r.identity.Fields()["posture"])
}

// through returns how a principal is a member of the group: directly, or through others.
func (n nesting) through(sid string) cells {
	parent := n.above[sid]
	if primary := postureOf(n.o.row(sid)).PrimaryGroup; parent == "" && n.allowed[primary] {
		parent = primary
	}
	switch parent {
	case "":
		return cells{}
	case n.group:
		return one(cell{Text: "Direct"})
	}
	var steps []cell
	for ; parent != n.group && parent != ""; parent = n.above[parent] {
		steps = append(steps, withoutNote(n.o.reference(parent)))
	}
	return one(cell{Steps: steps})
}

func (o *object) policies() section {
	const path = "fineGrainedPasswordPolicies"
	items := o.items(path)
	s := section{ID: "policies", Title: titleWithCount(policiesTitle, len(items))}
	for n, item := range items {
		if l := (list{text(item.take("name")), o.entries(item, fineGrainedFields)}); n < maxItems {
			s.Lists = append(s.Lists, l)
		}
	}
	if more := len(items) - maxItems; more > 0 {
		s.Lists = append(s.Lists, list{Title: number(more) + " more"})
	}
	if o.isUnreadable(path) {
		s.Entries = []entry{{"Policies", one(notReadable())}}
	}
	return s
}

func (o *object) trusts() section {
	const path = "trusts"
	t, items := o.rows(path, trustFields)
	return section{ID: "trusts", Title: titleWithCount(trustsTitle, len(items))}.with(o, t, path)
}

// controllers returns the section of the domain controllers, and the tables of the principals that control
// them.
func (o *object) controllers() (section, []table) {
	const path = "domainControllers"
	t, items := o.rows(path, controllerFields)
	var control []table
	for _, item := range items {
		if t := o.controlTable("Domain controller "+text(item.fields["name"]), item.take("controlledBy")); len(t.Rows) > 0 {
			control = append(control, t)
		}
	}
	return section{ID: "controllers", Title: titleWithCount(controllersTitle, len(items))}.with(o, t, path), control
}
