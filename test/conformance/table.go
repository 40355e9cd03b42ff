package conformance

import "github.com/go-ldap/ldap/v3"

const (
	base    = ldap.ScopeBaseObject
	one     = ldap.ScopeSingleLevel
	subtree = ldap.ScopeWholeSubtree

	oidShowDeleted = "1.2.840.113556.1.4.417"
	oidDomainScope = "1.2.840.113556.1.4.1339"
	bitAnd         = ":1.2.840.113556.1.4.803:"
	bitOr          = ":1.2.840.113556.1.4.804:"
	inChain        = ":1.2.840.113556.1.4.1941:"
)

var (
	showDeleted = ldap.NewControlString(oidShowDeleted, true, "")
	domainScope = ldap.NewControlString(oidDomainScope, false, "")
)

func names(all ...string) answer { return answer{names: all} }

func instead(a answer) *answer { return &a }

// users, and everything directly below the unit.
var (
	people     = []string{"Ann", "Bob"}
	below      = []string{"Inner", "Ann", "Bob", "Cyd", "Out", "Team", "Teams", "Local", "Binders"}
	everything = append([]string{"Table", `Smith, "Joe" + 1`, "Zoë Ångström", "Good", "Off", "Over", "Locked"}, below...)
)

const (
	threeValued = "Samba knows no third value: what MS-ADTS 3.1.1.3.1.3.1 leaves undefined is false there, and its negation true"
	ownWords    = "Samba has words of its own"
)

var searches = []row{
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
		samba: instead(answer{code: 32, text: `^acl_read: `}), because: ownWords + ", and does not say what it found"},
	{name: "base/unknown GUID", base: "<GUID=00000000-0000-0000-0000-000000000000>", scope: base,
		want: answer{code: 32, text: `^0000208D: NameErr: `}, samba: instead(answer{code: 32, text: "not found$"}), because: ownWords},
	{name: "base/GUID that is none", base: "<GUID=9090>", scope: base,
		want: answer{code: 34, text: `^0000208F: NameErr: .* problem 2006 \(BAD_NAME\)`}, samba: instead(answer{code: 34, text: "^00002032: "}), because: ownWords},
	{name: "base/not a name", base: "somewhere", scope: base,
		want: answer{code: 34, text: `^0000208F: NameErr: DSID-[0-9A-F]{8}, problem 2006 \(BAD_NAME\), data 8350, best match of:\n\t'somewhere'`}, samba: instead(answer{code: 34, text: "^00002032: "}), because: ownWords},
	{name: "base/none, one level", base: rootBase, scope: one,
		want: answer{code: 32, text: `^0000208D: NameErr: `}, samba: instead(answer{code: 32, text: "^empty base DN"}), because: ownWords},
	{name: "base/another domain", base: "OU=A,DC=other,DC=net", scope: base,
		want:  answer{code: 10, text: `^0000202B: RefErr: DSID-[0-9A-F]{8}, data 0, 1 access points\n\tref 1: 'other\.net'`},
		samba: instead(answer{code: 32, text: "^acl_read: "}), because: "Samba refers nobody to domains that it does not know of"},
	{name: "base/configuration", base: "CN=Sites,CN=Configuration,{base}", scope: base, want: names("Sites")},
	{name: "before a bind", unbound: true, scope: base,
		want:  answer{code: 1, text: `^000004DC: LdapErr: DSID-[0-9A-F]{8}, comment: In order to perform this operation a successful bind must be completed on the connection\., data 0, v[0-9a-f]+`},
		samba: instead(answer{code: 1, text: "^00002020: Operation unavailable without authentication"}), because: ownWords},

	{name: "referral/domain", base: "{base}", scope: subtree, filter: "(cn=Ann)", want: answer{names: []string{"Ann"}, refers: true}},
	{name: "referral/domain scope", base: "{base}", scope: subtree, filter: "(cn=Ann)", controls: []ldap.Control{domainScope}, want: names("Ann")},
	{name: "referral/configuration is no part", base: "{base}", scope: subtree, filter: "(objectClass=nTDSDSA)", controls: []ldap.Control{domainScope}, want: names()},

	{name: "filter/presence", scope: one, filter: "(mail=*)", want: names("Ann", "Bob", "Out")},
	{name: "filter/no presence", scope: one, filter: "(!(mail=*))", want: names("Inner", "Cyd", "Team", "Teams", "Local", "Binders")},
	{name: "filter/equality, whatever the case", scope: one, filter: "(MAIL=ANN@Example.com)", want: names("Ann")},
	{name: "filter/equality of letters outside of ASCII", scope: one, filter: "(sn=ördög)", want: names("Bob")},
	{name: "filter/equality of any value", scope: one, filter: "(proxyAddresses=SMTP:a@example.com)", want: names("Ann")},
	{name: "filter/approximate", scope: one, filter: "(mail~=ann@example.com)", want: names("Ann"),
		samba: instead(answer{code: 1}), because: "Samba knows no approximate match (MS-ADTS 3.1.1.3.1.3.1: it is equality)"},
	{name: "filter/not equal, absent too", scope: one, filter: "(&(objectClass=person)(!(mail=ann@example.com)))", want: names("Bob", "Cyd", "Out")},
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
	{name: "filter/time to come", scope: one, filter: "(&(cn=Ann)(whenCreated>=21200101000000.0Z))", want: names()},
	{name: "filter/substring, initial", scope: one, filter: "(cn=TEAM*)", want: names("Team", "Teams")},
	{name: "filter/substring, any", scope: one, filter: "(cn=*n*)", want: names("Ann")},
	{name: "filter/substring, final", scope: one, filter: "(cn=*NN)", want: names("Ann")},
	{name: "filter/substring, all three", scope: one, filter: "(cn=t*a*s)", want: names("Teams")},
	{name: "filter/substring, none twice", scope: one, filter: "(cn=ann*n)", want: names()},
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
	{name: "filter/bits, the sign", scope: one, filter: "(groupType" + bitAnd + "=2147483648)", want: names("Team", "Local")},
	{name: "filter/bits, none", scope: one, filter: "(&(objectClass=group)(!(groupType" + bitAnd + "=2147483648)))", want: names("Teams")},
	{name: "filter/signed number", scope: one, filter: "(groupType=-2147483646)", want: names("Team")},
	{name: "filter/member", scope: one, filter: "(member=CN=Ann,{unit})", want: names("Team")},
	{name: "filter/memberOf", scope: one, filter: "(memberOf=cn=TEAM,{unit})", want: names(people...)},
	{name: "filter/memberOf, nested", scope: one, filter: "(memberOf" + inChain + "=CN=Teams,{unit})", want: names("Ann", "Bob", "Team")},
	{name: "filter/member, nested", scope: one, filter: "(member" + inChain + "=CN=Ann,{unit})", want: names("Team", "Teams")},
	{name: "filter/member of nobody", scope: one, filter: "(memberOf=CN=Nobody,{unit})", want: names()},
	{name: "filter/distinguishedName", scope: one, filter: "(distinguishedName=CN=Ann,{unit})", want: names("Ann")},
	{name: "filter/unknown attribute", scope: one, filter: "(shoeSize=43)", want: names()},
	{name: "filter/unknown attribute, or", scope: one, filter: "(|(shoeSize=43)(cn=Ann))", want: names("Ann")},
	{name: "filter/unknown attribute, not", scope: one, filter: "(!(shoeSize=43))", want: names(), samba: instead(names(below...)), because: threeValued},
	{name: "filter/unknown attribute, not and", scope: one, filter: "(&(!(shoeSize=43))(cn=Ann))", want: names(), samba: instead(names("Ann")), because: threeValued},
	{name: "filter/unknown rule, not", scope: one, filter: "(!(cn:1.2.3.4:=Ann))", want: names(), samba: instead(names(below...)), because: threeValued},
	{name: "filter/constructed attribute", scope: one, filter: "(msDS-User-Account-Control-Computed=0)",
		want: answer{code: 18, text: "^0000202E: "}, samba: instead(names()), because: "Samba takes a constructed attribute for one that nobody has (MS-ADTS 3.1.1.3.1.3.1: inappropriateMatching)"},

	{name: "attributes/none", base: "CN=Ann,{unit}", scope: base, attributes: []string{"1.1"}, want: answer{names: []string{}, values: map[string][]string{}}},
	{name: "attributes/some", base: "CN=Ann,{unit}", scope: base, attributes: []string{"mail", "countryCode", "noSuchAttribute", "sn"},
		want: answer{names: []string{"mail", "countryCode"}, values: map[string][]string{"mail": {"ann@example.com"}, "countryCode": {"9"}}}},
	{name: "attributes/types only", base: "CN=Ann,{unit}", scope: base, attributes: []string{"mail"}, typesOnly: true,
		want:  answer{names: []string{"mail"}, values: map[string][]string{"mail": {}}},
		samba: instead(answer{names: []string{"mail"}, values: map[string][]string{"mail": {"ann@example.com"}}}), because: "Samba gives the values all the same"},
	{name: "attributes/those of a user", base: "CN=Ann,{unit}", scope: base, want: answer{values: map[string][]string{
		"objectClass": {"top", "person", "organizationalPerson", "user"}, "name": {"Ann"}, "cn": {"Ann"}, "distinguishedName": {"CN=Ann,{unit}"},
		"instanceType": {"4"}, "sAMAccountType": {"805306368"}, "primaryGroupID": {"513"}, "codePage": {"0"}, "badPwdCount": {"0"}, "lastLogon": {"0"}, "logonCount": {"0"},
		"badPasswordTime": {"0"}, "lastLogoff": {"0"}, "pwdLastSet": {"0"}, "proxyAddresses": {"SMTP:ann@example.com", "smtp:a@example.com"},
		"objectCategory": {"CN=Person,CN=Schema,CN=Configuration,{base}"}, "memberOf": {"CN=Team,{unit}"}, "whenCreated": {`/\d{14}\.0Z/`}, "whenChanged": {`/\d{14}\.0Z/`},
		"msDS-User-Account-Control-Computed": nil, "msDS-UserPasswordExpiryTimeComputed": nil, "canonicalName": nil, "isDeleted": nil, "lockoutTime": nil,
	}}},
	{name: "attributes/those of a group", base: "CN=Team,{unit}", scope: base, want: answer{values: map[string][]string{
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
	{name: "attributes/none of the computed on a group", base: "CN=Team,{unit}", scope: base, attributes: []string{"cn", "msDS-UserPasswordExpiryTimeComputed", "msDS-User-Account-Control-Computed"},
		want:  answer{names: []string{"cn"}, values: map[string][]string{"cn": {"Team"}}},
		samba: instead(answer{values: map[string][]string{"msDS-User-Account-Control-Computed": {`/\d+/`}}}), because: "Samba computes for every object what only accounts can have by the schema"},
	{name: "attributes/canonicalName", base: "CN=Ann,{unit}", scope: base, attributes: []string{"canonicalName"}, want: answer{values: map[string][]string{"canonicalName": {"/[a-z.]+/Table/Ann/"}}}},
	{name: "attributes/a range of values", base: "CN=Team,{unit}", scope: base, attributes: []string{"member;range=0-0"},
		want: answer{names: []string{"member;range=0-0"}, values: map[string][]string{"member;range=0-0": {`/CN=(Ann|Bob),.*/`}}}},
	{name: "attributes/the rest of the values", base: "CN=Team,{unit}", scope: base, attributes: []string{"member;range=1-*"},
		want: answer{names: []string{"member;range=1-*"}, values: map[string][]string{"member;range=1-*": {`/CN=(Ann|Bob),.*/`}}}},
	{name: "attributes/the domain's policy", base: "{base}", scope: base, attributes: []string{"maxPwdAge", "lockoutDuration", "lockoutThreshold"},
		want: answer{values: map[string][]string{"maxPwdAge": {"-36288000000000"}, "lockoutDuration": {"-18000000000"}, "lockoutThreshold": {`/[1-9]\d*/`}}}},

	{name: "limit/size", scope: one, sizeLimit: 3, want: answer{code: 4, some: 3}, samba: instead(names(below...)), because: "Samba gives everything, whatever the size limit"},
	{name: "limit/size that is enough", scope: one, sizeLimit: len(below), want: names(below...)},
	{name: "control/unknown and critical", scope: base, controls: []ldap.Control{ldap.NewControlString("1.2.3.4", true, "")},
		want: answer{code: 12, text: `^00002040: SvcErr: DSID-[0-9A-F]{8}, problem 5010 \(UNAVAIL_EXTENSION\), data 0`}, unfit: "Samba's answer is no search result, and clients wait for one"},
	{name: "control/unknown", scope: base, controls: []ldap.Control{ldap.NewControlString("1.2.3.4", false, "")}, want: names("Table")},

	{name: "deleted/hidden", base: "{base}", scope: subtree, filter: "(sAMAccountName=tablegone)", controls: []ldap.Control{domainScope}, want: names()},
	{name: "deleted/container is hidden", base: "{deleted}", scope: base,
		want: answer{code: 32, text: "^0000208D: NameErr: ", matched: "{base}"}, samba: instead(names()), because: "Samba finds nothing there, where Active Directory finds not even the place"},
	{name: "deleted/container", base: "{deleted}", scope: base, controls: []ldap.Control{showDeleted}, want: names("Deleted Objects")},
	{name: "deleted/tombstone", base: "{deleted}", scope: subtree, filter: "(&(isDeleted=TRUE)(sAMAccountName=tablegone))", controls: []ldap.Control{showDeleted}, blind: instead(names()),
		attributes: []string{"sAMAccountName", "isDeleted", "lastKnownParent", "objectCategory", "title", "sAMAccountType", "primaryGroupID", "name", "objectClass", "userAccountControl"},
		want: answer{values: map[string][]string{
			"sAMAccountName": {"tablegone"}, "isDeleted": {"TRUE"}, "lastKnownParent": {"{unit}"}, "name": {"/(?s)Gone\nDEL:[0-9a-f-]{36}/"},
			"objectClass": {"top", "person", "organizationalPerson", "user"}, "userAccountControl": {plain},
			"objectCategory": nil, "title": nil, "sAMAccountType": nil, "primaryGroupID": nil,
		}}},
	{name: "deleted/changes", base: "{deleted}", scope: subtree, filter: "(&(isDeleted=TRUE)(uSNChanged>={Team.usn})(sAMAccountName=tablegone))", attributes: []string{"isDeleted"}, controls: []ldap.Control{showDeleted, domainScope},
		blind: instead(names()), want: answer{values: map[string][]string{"isDeleted": {"TRUE"}}}},
	{name: "deleted/not among the living", scope: subtree, filter: "(sAMAccountName=tablegone)", controls: []ldap.Control{showDeleted}, want: names()},
}

// bind is one simple bind. Without a password it is anonymous.
type bind struct {
	name, as, password string
	want               answer
	samba              *answer
	because            string
}

// refusedBind is a refusal for the reason with this number.
func refusedBind(data string) answer {
	return answer{code: 49, text: `^80090308: LdapErr: DSID-[0-9A-F]{8}, comment: AcceptSecurityContext error, data ` + data + `, v[0-9a-f]+$`}
}

var binds = []bind{
	{name: "distinguished name", as: "CN=Good,OU=Binders,{unit}", password: UserPassword},
	{name: "distinguished name, other case and spaces", as: "cn=good, ou=binders, {unit}", password: UserPassword},
	{name: "principal name, set", as: "Table.Good@example.net", password: UserPassword},
	{name: "principal name, of every account", as: "tablegood@corp.example.com", password: UserPassword},
	{name: "domain and account", as: `CORP\tablegood`, password: UserPassword},
	{name: "anonymous", as: ""},
	{name: "name without a password", as: "CN=Good,OU=Binders,{unit}", samba: instead(refusedBind("52e")), because: "Samba takes it for a wrong password (RFC 4513 5.1.2: it is anonymous)"},
	{name: "wrong password", as: "CN=Good,OU=Binders,{unit}", password: "wrong", want: refusedBind("52e")},
	{name: "no such name", as: "CN=Nobody,OU=Binders,{unit}", password: UserPassword, want: refusedBind("52e")},
	{name: "no such account", as: `CORP\tablenobody`, password: UserPassword, want: refusedBind("52e")},
	{name: "bare account name", as: "tablegood", password: UserPassword, want: refusedBind("52e")},
	{name: "group", as: "CN=Team,{unit}", password: UserPassword, want: refusedBind("52e")},
	{name: "disabled", as: "CN=Off,OU=Binders,{unit}", password: UserPassword, want: refusedBind("533")},
	{name: "disabled, wrong password", as: "CN=Off,OU=Binders,{unit}", password: "wrong", want: refusedBind("52e")},
	{name: "expired", as: "CN=Over,OU=Binders,{unit}", password: UserPassword, want: refusedBind("701")},
	{name: "locked", as: "CN=Locked,OU=Binders,{unit}", password: UserPassword, want: refusedBind("775")},
	{name: "locked, wrong password", as: "CN=Locked,OU=Binders,{unit}", password: "wrong", want: refusedBind("775")},
}
