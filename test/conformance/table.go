package conformance

import "github.com/go-ldap/ldap/v3"

const (
	base    = ldap.ScopeBaseObject
	one     = ldap.ScopeSingleLevel
	subtree = ldap.ScopeWholeSubtree

	oidShowDeleted  = "1.2.840.113556.1.4.417"
	oidShowRecycled = "1.2.840.113556.1.4.2064"
	oidDomainScope  = "1.2.840.113556.1.4.1339"
	bitAnd          = ":1.2.840.113556.1.4.803:"
	bitOr           = ":1.2.840.113556.1.4.804:"
	inChain         = ":1.2.840.113556.1.4.1941:"
)

var (
	showDeleted  = ldap.NewControlString(oidShowDeleted, true, "")
	showRecycled = ldap.NewControlString(oidShowRecycled, true, "")
	domainScope  = ldap.NewControlString(oidDomainScope, false, "")
)

func names(all ...string) answer { return answer{names: all} }

// another returns an answer for a case with more than one.
func another(a answer) *answer { return &a }

// Names of objects: users, children of the unit, and all descendants.
var (
	people     = []string{"Ann", "Bob"}
	below      = []string{"Inner", "Ann", "Bob", "Cyd", "Out", "Team", "Teams", "Local", "Binders"}
	everything = append([]string{"Table", `Smith, "Joe" + 1`, "Zoë Ångström", "Good", "Off", "Over", "Locked"}, below...)
)

const (
	threeValued = "Samba has no three-valued logic: it evaluates as false what is undefined (MS-ADTS 3.1.1.3.1.3.1)"
	ownWords    = "Samba has other error texts"
)

var searches = []searchCase{
	{name: "scope/base", scope: base, want: names("Table")},
	{name: "scope/one level", scope: one, want: names(below...)},
	{name: "scope/subtree", scope: subtree, want: names(everything...)},
	{name: "base/other case and spaces", base: "ou=inner, OU=table,{base}", scope: one, want: names(`Smith, "Joe" + 1`, "Zoë Ångström")},
	{name: "base/escaped in hexadecimal", base: `cn=smith\2c \22joe\22 \2b 1,OU=Inner,{unit}`, scope: base, want: names(`Smith, "Joe" + 1`)},
	{name: "base/other script", base: "CN=ZOË ÅNGSTRÖM,OU=Inner,{unit}", scope: subtree, want: names("Zoë Ångström")},
	{name: "base/GUID", base: "<GUID={Ann.guidtext}>", scope: base, want: names("Ann")},
	{name: "base/GUID in hexadecimal", base: "<GUID={Ann.guidhex}>", scope: base, want: names("Ann")},
	{name: "base/SID", base: "<SID={Ann.sidtext}>", scope: base, want: names("Ann")},
	{name: "base/unknown", base: "CN=x,OU=y,{unit}", scope: subtree,
		want:  answer{code: 32, text: `^0000208D: NameErr: DSID-[0-9A-F]{8}, problem 2001 \(NO_OBJECT\), data 0, best match of:\n\t'{unit}'`, matched: "{unit}"},
		samba: another(answer{code: 32, text: `^acl_read: `}), sambaReason: ownWords + ", and no matchedDN"},
	{name: "base/unknown GUID", base: "<GUID=00000000-0000-0000-0000-000000000000>", scope: base,
		want: answer{code: 32, text: `^0000208D: NameErr: `}, samba: another(answer{code: 32, text: "not found$"}), sambaReason: ownWords},
	{name: "base/invalid GUID", base: "<GUID=9090>", scope: base,
		want: answer{code: 34, text: `^0000208F: NameErr: .* problem 2006 \(BAD_NAME\)`}, samba: another(answer{code: 34, text: "^00002032: "}), sambaReason: ownWords},
	{name: "base/invalid DN", base: "somewhere", scope: base,
		want: answer{code: 34, text: `^0000208F: NameErr: DSID-[0-9A-F]{8}, problem 2006 \(BAD_NAME\), data 8350, best match of:\n\t'somewhere'`}, samba: another(answer{code: 34, text: "^00002032: "}), sambaReason: ownWords},
	{name: "base/empty, one level", base: rootBase, scope: one,
		want: answer{code: 32, text: `^0000208D: NameErr: `}, samba: another(answer{code: 32, text: "^empty base DN"}), sambaReason: ownWords},
	{name: "base/another domain", base: "OU=A,DC=other,DC=net", scope: base,
		want:  answer{code: 10, text: `^0000202B: RefErr: DSID-[0-9A-F]{8}, data 0, 1 access points\n\tref 1: 'other\.net'`},
		samba: another(answer{code: 32, text: "^acl_read: "}), sambaReason: "Samba sends no referral for unknown domains"},
	{name: "base/configuration", base: "CN=Sites,CN=Configuration,{base}", scope: base, want: names("Sites")},
	{name: "before a bind", unbound: true, scope: base,
		want:  answer{code: 1, text: `^000004DC: LdapErr: DSID-[0-9A-F]{8}, comment: In order to perform this operation a successful bind must be completed on the connection\., data 0, v[0-9a-f]+`},
		samba: another(answer{code: 1, text: "^00002020: Operation unavailable without authentication"}), sambaReason: ownWords},

	{name: "referral/domain", base: "{base}", scope: subtree, filter: "(cn=Ann)", want: answer{names: []string{"Ann"}, referral: true}},
	{name: "referral/domain scope", base: "{base}", scope: subtree, filter: "(cn=Ann)", controls: []ldap.Control{domainScope}, want: names("Ann")},
	{name: "referral/configuration is excluded", base: "{base}", scope: subtree, filter: "(objectClass=nTDSDSA)", controls: []ldap.Control{domainScope}, want: names()},

	{name: "filter/presence", scope: one, filter: "(mail=*)", want: names("Ann", "Bob", "Out")},
	{name: "filter/no presence", scope: one, filter: "(!(mail=*))", want: names("Inner", "Cyd", "Team", "Teams", "Local", "Binders")},
	{name: "filter/equality is case-insensitive", scope: one, filter: "(MAIL=ANN@Example.com)", want: names("Ann")},
	{name: "filter/equality beyond ASCII", scope: one, filter: "(sn=ördög)", want: names("Bob")},
	{name: "filter/equality of any value", scope: one, filter: "(proxyAddresses=SMTP:a@example.com)", want: names("Ann")},
	{name: "filter/approximate", scope: one, filter: "(mail~=ann@example.com)", want: names("Ann"),
		samba: another(answer{code: 1}), sambaReason: "Samba does not support approxMatch (MS-ADTS 3.1.1.3.1.3.1: equality)"},
	{name: "filter/not equal, with absent values", scope: one, filter: "(&(objectClass=person)(!(mail=ann@example.com)))", want: names("Bob", "Cyd", "Out")},
	{name: "filter/and", scope: one, filter: "(&(objectClass=user)(!(objectClass=computer)))", want: names(people...)},
	{name: "filter/or", scope: one, filter: "(|(cn=ann)(cn=bob))", want: names(people...)},
	{name: "filter/empty and", scope: one, filter: "(&)", want: names(below...)},
	{name: "filter/empty or", scope: one, filter: "(|)", want: names()},
	{name: "filter/at least", scope: one, filter: "(countryCode>=10)", want: names("Bob")},
	{name: "filter/at least, by number", scope: one, filter: "(countryCode>=9)", want: names(people...)},
	{name: "filter/at most", scope: one, filter: "(&(objectCategory=person)(countryCode<=9))", want: names("Ann")},
	{name: "filter/large numbers", scope: one, filter: "(&(accountExpires>=134398063938451234)(accountExpires<=134398063938451234))", want: names("Ann")},
	{name: "filter/sequence numbers", scope: one, filter: "(&(uSNChanged>={Ann.usn})(uSNChanged<={Ann.usn}))", want: names("Ann")},
	{name: "filter/time", scope: one, filter: "(&(cn=Ann)(whenCreated>=20200101000000.0Z))", want: names("Ann")},
	{name: "filter/future time", scope: one, filter: "(&(cn=Ann)(whenCreated>=21200101000000.0Z))", want: names()},
	{name: "filter/substring, initial", scope: one, filter: "(cn=TEAM*)", want: names("Team", "Teams")},
	{name: "filter/substring, any", scope: one, filter: "(cn=*n*)", want: names("Ann")},
	{name: "filter/substring, final", scope: one, filter: "(cn=*NN)", want: names("Ann")},
	{name: "filter/substring, all three", scope: one, filter: "(cn=t*a*s)", want: names("Teams")},
	{name: "filter/substring, no overlap", scope: one, filter: "(cn=ann*n)", want: names()},
	{name: "filter/escapes", scope: one, filter: `(title=Müller*\28temp\29\2a)`, want: names("Ann")},
	{name: "filter/objectGUID", base: "{base}", scope: subtree, controls: []ldap.Control{domainScope}, filter: "(objectGUID={Ann.guid})", want: names("Ann")},
	{name: "filter/objectGUIDs", scope: one, filter: "(|(objectGUID={Ann.guid})(objectGUID={Team.guid}))", want: names("Ann", "Team")},
	{name: "filter/objectSid", scope: one, filter: "(objectSid={Ann.sid})", want: names("Ann")},
	{name: "filter/objectSid as text", scope: one, filter: "(objectSid={Ann.sidtext})", want: names("Ann")},
	{name: "filter/objectCategory by class", scope: one, filter: "(objectCategory=person)", want: names("Ann", "Bob", "Out")},
	{name: "filter/objectCategory by name", scope: one, filter: "(objectCategory=CN=Group,CN=Schema,CN=Configuration,{base})", want: names("Team", "Teams", "Local")},
	{name: "filter/users", scope: one, filter: "(sAMAccountType=805306368)", want: names(people...)},
	{name: "filter/groups", scope: one, filter: "(objectClass=group)", want: names("Team", "Teams", "Local")},
	{name: "filter/bits, all", scope: one, filter: "(userAccountControl" + bitAnd + "=2)", want: names("Bob")},
	{name: "filter/bits, all of several", scope: one, filter: "(userAccountControl" + bitAnd + "=514)", want: names("Bob")},
	{name: "filter/bits, any", scope: one, filter: "(userAccountControl" + bitOr + "=4098)", want: names("Bob", "Cyd")},
	{name: "filter/bits, sign", scope: one, filter: "(groupType" + bitAnd + "=2147483648)", want: names("Team", "Local")},
	{name: "filter/bits, none", scope: one, filter: "(&(objectClass=group)(!(groupType" + bitAnd + "=2147483648)))", want: names("Teams")},
	{name: "filter/signed number", scope: one, filter: "(groupType=-2147483646)", want: names("Team")},
	{name: "filter/member", scope: one, filter: "(member=CN=Ann,{unit})", want: names("Team")},
	{name: "filter/memberOf", scope: one, filter: "(memberOf=cn=TEAM,{unit})", want: names(people...)},
	{name: "filter/memberOf, nested", scope: one, filter: "(memberOf" + inChain + "=CN=Teams,{unit})", want: names("Ann", "Bob", "Team")},
	{name: "filter/member, nested", scope: one, filter: "(member" + inChain + "=CN=Ann,{unit})", want: names("Team", "Teams")},
	{name: "filter/memberOf an unknown group", scope: one, filter: "(memberOf=CN=Nobody,{unit})", want: names()},
	{name: "filter/distinguishedName", scope: one, filter: "(distinguishedName=CN=Ann,{unit})", want: names("Ann")},
	{name: "filter/unknown attribute", scope: one, filter: "(shoeSize=43)", want: names()},
	{name: "filter/unknown attribute, or", scope: one, filter: "(|(shoeSize=43)(cn=Ann))", want: names("Ann")},
	{name: "filter/unknown attribute, not", scope: one, filter: "(!(shoeSize=43))", want: names(), samba: another(names(below...)), sambaReason: threeValued},
	{name: "filter/unknown attribute, not and", scope: one, filter: "(&(!(shoeSize=43))(cn=Ann))", want: names(), samba: another(names("Ann")), sambaReason: threeValued},
	{name: "filter/unknown rule, not", scope: one, filter: "(!(cn:1.2.3.4:=Ann))", want: names(), samba: another(names(below...)), sambaReason: threeValued},
	{name: "filter/constructed attribute", scope: one, filter: "(msDS-User-Account-Control-Computed=0)",
		want: answer{code: 18, text: "^0000202E: "}, samba: another(names()), sambaReason: "Samba evaluates a constructed attribute as absent (MS-ADTS 3.1.1.3.1.3.1: inappropriateMatching)"},

	{name: "attributes/none", base: "CN=Ann,{unit}", scope: base, attributes: []string{"1.1"}, want: answer{names: []string{}, values: map[string][]string{}}},
	{name: "attributes/some", base: "CN=Ann,{unit}", scope: base, attributes: []string{"mail", "countryCode", "noSuchAttribute", "sn"},
		want: answer{names: []string{"mail", "countryCode"}, values: map[string][]string{"mail": {"ann@example.com"}, "countryCode": {"9"}}}},
	{name: "attributes/types only", base: "CN=Ann,{unit}", scope: base, attributes: []string{"mail"}, typesOnly: true,
		want:  answer{names: []string{"mail"}, values: map[string][]string{"mail": {}}},
		samba: another(answer{names: []string{"mail"}, values: map[string][]string{"mail": {"ann@example.com"}}}), sambaReason: "Samba ignores typesOnly"},
	{name: "attributes/user", base: "CN=Ann,{unit}", scope: base, want: answer{values: map[string][]string{
		"objectClass": {"top", "person", "organizationalPerson", "user"}, "name": {"Ann"}, "cn": {"Ann"}, "distinguishedName": {"CN=Ann,{unit}"},
		"instanceType": {"4"}, "sAMAccountType": {"805306368"}, "primaryGroupID": {"513"}, "codePage": {"0"}, "badPwdCount": {"0"}, "lastLogon": {"0"}, "logonCount": {"0"},
		"badPasswordTime": {"0"}, "lastLogoff": {"0"}, "pwdLastSet": {"0"}, "proxyAddresses": {"SMTP:ann@example.com", "smtp:a@example.com"},
		"objectCategory": {"CN=Person,CN=Schema,CN=Configuration,{base}"}, "memberOf": {"CN=Team,{unit}"}, "whenCreated": {`/\d{14}\.0Z/`}, "whenChanged": {`/\d{14}\.0Z/`},
		"msDS-User-Account-Control-Computed": nil, "msDS-UserPasswordExpiryTimeComputed": nil, "canonicalName": nil, "isDeleted": nil, "lockoutTime": nil,
	}}},
	{name: "attributes/group", base: "CN=Team,{unit}", scope: base, want: answer{values: map[string][]string{
		"objectClass": {"top", "group"}, "groupType": {"-2147483646"}, "sAMAccountType": {"268435456"}, "member": {"CN=Ann,{unit}", "CN=Bob,{unit}"}, "memberOf": {"CN=Teams,{unit}"},
		"userAccountControl": nil,
	}}},
	{name: "attributes/type of a domain local group", base: "CN=Local,{unit}", scope: base, attributes: []string{"sAMAccountType"}, want: answer{values: map[string][]string{"sAMAccountType": {"536870912"}}}},
	{name: "attributes/type of a distribution group", base: "CN=Teams,{unit}", scope: base, attributes: []string{"sAMAccountType"}, want: answer{values: map[string][]string{"sAMAccountType": {"268435457"}}}},
	{name: "attributes/type of a computer", base: "CN=Cyd,{unit}", scope: base, attributes: []string{"sAMAccountType", "primaryGroupID"}, want: answer{values: map[string][]string{"sAMAccountType": {"805306369"}, "primaryGroupID": {"515"}}}},
	{name: "attributes/all and a constructed one", base: "CN=Ann,{unit}", scope: base, attributes: []string{"*", "msDS-User-Account-Control-Computed"}, want: answer{values: map[string][]string{
		"msDS-User-Account-Control-Computed": {"0"}, "mail": {"ann@example.com"}, "canonicalName": nil,
	}}},
	{name: "attributes/a password that never expires", base: "CN=Ann,{unit}", scope: base, attributes: []string{"msDS-UserPasswordExpiryTimeComputed", "msDS-User-Account-Control-Computed"},
		want: answer{values: map[string][]string{"msDS-UserPasswordExpiryTimeComputed": {"9223372036854775807"}, "msDS-User-Account-Control-Computed": {"0"}}}},
	{name: "attributes/a locked account", base: "CN=Locked,OU=Binders,{unit}", scope: base, attributes: []string{"lockoutTime", "msDS-User-Account-Control-Computed", "badPwdCount"},
		want: answer{values: map[string][]string{"msDS-User-Account-Control-Computed": {"16"}, "lockoutTime": {`/1\d{17}/`}, "badPwdCount": {`/[1-9]\d*/`}}}},
	{name: "attributes/no computed account control of a group", base: "CN=Team,{unit}", scope: base, attributes: []string{"cn", "msDS-UserPasswordExpiryTimeComputed", "msDS-User-Account-Control-Computed"},
		want:  answer{names: []string{"cn"}, values: map[string][]string{"cn": {"Team"}}},
		samba: another(answer{values: map[string][]string{"msDS-User-Account-Control-Computed": {`/\d+/`}}}), sambaReason: "Samba computes account attributes for every object"},
	{name: "attributes/canonicalName", base: "CN=Ann,{unit}", scope: base, attributes: []string{"canonicalName"}, want: answer{values: map[string][]string{"canonicalName": {"/[a-z.]+/Table/Ann/"}}}},
	{name: "attributes/a range of values", base: "CN=Team,{unit}", scope: base, attributes: []string{"member;range=0-0"},
		want: answer{names: []string{"member;range=0-0"}, values: map[string][]string{"member;range=0-0": {`/CN=(Ann|Bob),.*/`}}}},
	{name: "attributes/remaining values", base: "CN=Team,{unit}", scope: base, attributes: []string{"member;range=1-*"},
		want: answer{names: []string{"member;range=1-*"}, values: map[string][]string{"member;range=1-*": {`/CN=(Ann|Bob),.*/`}}}},
	{name: "attributes/domain policy", base: "{base}", scope: base, attributes: []string{"maxPwdAge", "lockoutDuration", "lockoutThreshold"},
		want: answer{values: map[string][]string{"maxPwdAge": {"-36288000000000"}, "lockoutDuration": {"-18000000000"}, "lockoutThreshold": {`/[1-9]\d*/`}}}},

	{name: "limit/size", scope: one, sizeLimit: 3, want: answer{code: 4, count: 3}, samba: another(names(below...)), sambaReason: "Samba ignores the size limit"},
	{name: "limit/sufficient size", scope: one, sizeLimit: len(below), want: names(below...)},
	{name: "control/unknown and critical", scope: base, controls: []ldap.Control{ldap.NewControlString("1.2.3.4", true, "")},
		want: answer{code: 12, text: `^00002040: SvcErr: DSID-[0-9A-F]{8}, problem 5010 \(UNAVAIL_EXTENSION\), data 0`}, sambaSkip: "Samba does not answer with a search result, which clients wait for"},
	{name: "control/unknown", scope: base, controls: []ldap.Control{ldap.NewControlString("1.2.3.4", false, "")}, want: names("Table")},

	{name: "deleted/hidden", base: "{base}", scope: subtree, filter: "(sAMAccountName=tablegone)", controls: []ldap.Control{domainScope}, want: names()},
	{name: "deleted/container is hidden", base: "{deleted}", scope: base,
		want: answer{code: 32, text: "^0000208D: NameErr: ", matched: "{base}"}, samba: another(names()), sambaReason: "Samba returns no entry, and Active Directory noSuchObject"},
	{name: "deleted/container", base: "{deleted}", scope: base, controls: []ldap.Control{showDeleted}, want: names("Deleted Objects")},
	{name: "deleted/tombstone", base: "{deleted}", scope: subtree, filter: "(&(isDeleted=TRUE)(sAMAccountName=tablegone))", controls: []ldap.Control{showDeleted}, withoutRight: another(names()),
		attributes: []string{"sAMAccountName", "isDeleted", "lastKnownParent", "objectCategory", "title", "sAMAccountType", "primaryGroupID", "name", "objectClass", "userAccountControl"},
		want: answer{values: map[string][]string{
			"sAMAccountName": {"tablegone"}, "isDeleted": {"TRUE"}, "lastKnownParent": {"{unit}"}, "name": {"/(?s)Gone\nDEL:[0-9a-f-]{36}/"},
			"objectClass": {"top", "person", "organizationalPerson", "user"}, "userAccountControl": {plain},
			"objectCategory": nil, "title": nil, "sAMAccountType": nil, "primaryGroupID": nil,
		}}},
	{name: "deleted/changes", base: "{deleted}", scope: subtree, filter: "(&(isDeleted=TRUE)(uSNChanged>={Team.usn})(sAMAccountName=tablegone))", attributes: []string{"isDeleted"}, controls: []ldap.Control{showDeleted, domainScope},
		withoutRight: another(names()), want: answer{values: map[string][]string{"isDeleted": {"TRUE"}}}},
	{name: "deleted/with recycled objects", base: "{deleted}", scope: one, filter: "(&(isDeleted=TRUE)(sAMAccountName=tablegone))", attributes: []string{"isDeleted"},
		controls: []ldap.Control{showDeleted, showRecycled, domainScope}, withoutRight: another(names()), want: answer{values: map[string][]string{"isDeleted": {"TRUE"}}}},
	{name: "deleted/not at the former place", scope: subtree, filter: "(sAMAccountName=tablegone)", controls: []ldap.Control{showDeleted}, want: names()},
}

// bind is a simple bind. Without a password it is anonymous.
type bind struct {
	name, bindName, password string
	want                     answer
	samba                    *answer
	sambaReason              string
}

// refusedBind returns the answer to a bind that fails with a Windows error code.
func refusedBind(data string) answer {
	return answer{code: 49, text: `^80090308: LdapErr: DSID-[0-9A-F]{8}, comment: AcceptSecurityContext error, data ` + data + `, v[0-9a-f]+$`}
}

var binds = []bind{
	{name: "distinguished name", bindName: "CN=Good,OU=Binders,{unit}", password: UserPassword},
	{name: "distinguished name, other case and spaces", bindName: "cn=good, ou=binders, {unit}", password: UserPassword},
	{name: "principal name, set", bindName: "Table.Good@example.net", password: UserPassword},
	{name: "principal name, implicit", bindName: "tablegood@corp.example.com", password: UserPassword},
	{name: "domain and account", bindName: `CORP\tablegood`, password: UserPassword},
	{name: "anonymous", bindName: ""},
	{name: "name without a password", bindName: "CN=Good,OU=Binders,{unit}", samba: another(refusedBind("52e")), sambaReason: "Samba answers as for a wrong password (RFC 4513 5.1.2: anonymous)"},
	{name: "wrong password", bindName: "CN=Good,OU=Binders,{unit}", password: "wrong", want: refusedBind("52e")},
	{name: "unknown DN", bindName: "CN=Nobody,OU=Binders,{unit}", password: UserPassword, want: refusedBind("52e")},
	{name: "unknown account", bindName: `CORP\tablenobody`, password: UserPassword, want: refusedBind("52e")},
	{name: "bare account name", bindName: "tablegood", password: UserPassword, want: refusedBind("52e")},
	{name: "group", bindName: "CN=Team,{unit}", password: UserPassword, want: refusedBind("52e")},
	{name: "disabled", bindName: "CN=Off,OU=Binders,{unit}", password: UserPassword, want: refusedBind("533")},
	{name: "disabled, wrong password", bindName: "CN=Off,OU=Binders,{unit}", password: "wrong", want: refusedBind("52e")},
	{name: "expired", bindName: "CN=Over,OU=Binders,{unit}", password: UserPassword, want: refusedBind("701")},
	{name: "locked", bindName: "CN=Locked,OU=Binders,{unit}", password: UserPassword, want: refusedBind("775")},
	{name: "locked, wrong password", bindName: "CN=Locked,OU=Binders,{unit}", password: "wrong", want: refusedBind("775")},
}
