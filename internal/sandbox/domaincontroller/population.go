package domaincontroller

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sampleData is the names and texts that objects are generated from.
type sampleData struct {
	Locales             []locale
	Titles, Departments []string
	Groups              []struct{ Name, Description string }
}

// locale is an office with the names of its employees.
type locale struct {
	GivenNames, FamilyNames nameList
	FamilyFirst             bool   // the family name is first, without a space
	CommaForm               bool   // common names can be "Family, Given"
	City, State, Country    string // of the address
	OU                      string // of the city
	Code, NumericCode       string // ISO 3166-1
	Streets                 []string
	Phone                   string // each # is a digit
}

// nameList is names in their script and in Latin script. Its text form is
// "Jörg/joerg Anna/anna". An underscore is a space.
type nameList []struct{ native, latin string }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *nameList) UnmarshalText(text []byte) error {
	for field := range strings.FieldsSeq(string(text)) {
		native, latin, _ := strings.Cut(strings.ReplaceAll(field, "_", " "), "/")
		*n = append(*n, struct{ native, latin string }{native, latin})
	}
	return nil
}

//go:embed sampledata.json
var sampleDataJSON []byte

var loadSampleData = sync.OnceValue(func() sampleData { return parseEmbedded[sampleData](sampleDataJSON) })

// record is the attributes of a generated object, by name.
type record map[string]string

func (r record) attributes() attributeSet {
	set := make(attributeSet, 0, len(r))
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if r[name] != "" {
			set = append(set, attributeValue{name, r[name]})
		}
	}
	return set
}

// generator generates the objects of the options.
type generator struct {
	d       *Server
	now     time.Time
	data    sampleData
	offices []office // by locale
	names   map[string]int
	users   []*object
}

type office struct{ users, computers *object } // containers

// generate adds the objects of the options. It uses only the random numbers of the
// directory, so that the seed determines the result.
func (d *Server) generate() {
	g := &generator{d: d, now: d.options.Now(), data: loadSampleData(), names: map[string]int{}}
	for _, l := range g.data.Locales {
		city := g.unit(d.root, l.OU)
		g.offices = append(g.offices, office{g.unit(city, "Users"), g.unit(city, "Computers")})
	}
	groups, contacts := g.unit(d.root, "Groups"), g.unit(d.root, "Contacts")
	for n := range d.options.Users {
		g.user(n)
	}
	var created []*object
	count := d.options.Groups
	if d.options.hasShowcase() {
		count -= showcaseGroupCount
	}
	for n := range count {
		created = append(created, g.group(groups, n, created))
	}
	for n := range min(200, d.options.Users/10) + 3 {
		g.computer(n)
	}
	for n := range min(50, d.options.Users/20) + 3 {
		g.contact(contacts, n)
	}
	for _, name := range []string{"gmsa-sql", "gmsa-web"} {
		g.managedAccount(name)
	}
	g.expose()
	g.showcase()
}

// unit returns an organizational unit. It can exist as a container of Options.BindDN.
func (g *generator) unit(parent *object, name string) *object {
	if existing := parent.children[(rdn{"OU", name}).key()]; existing != nil {
		return existing
	}
	return g.d.create(parent, "organizationalUnit", name, g.now.Add(-domainAge))
}

// accountState is the state of a generated account.
type accountState int

const (
	stateActive accountState = iota
	stateDisabled
	stateExpired
	stateExpiresLater
	stateLocked
	stateLockoutEnded
	statePasswordNeverExpires
	statePasswordExpired
	stateMustChangePassword
	stateSmartcard
	stateNeverLoggedOn
	stateCount
)

// permille is the share of accounts in each state. The others are active.
var permille = [stateCount]int{stateDisabled: 60, stateExpired: 15, stateExpiresLater: 30, stateLocked: 10, stateLockoutEnded: 10,
	statePasswordNeverExpires: 90, statePasswordExpired: 35, stateMustChangePassword: 20, stateSmartcard: 15, stateNeverLoggedOn: 20}

// user generates user number n. The first users cover every locale and every state, so
// that small directories have them all.
func (g *generator) user(n int) {
	r := g.d.random
	place, state := n%len(g.data.Locales), accountState(n%int(stateCount))
	if n >= len(g.data.Locales) {
		place, state = r.IntN(len(g.data.Locales)), g.state()
	}
	l := &g.data.Locales[place]
	given, family := l.GivenNames[r.IntN(len(l.GivenNames))], l.FamilyNames[r.IntN(len(l.FamilyNames))]
	display := given.native + " " + family.native
	name := display
	if l.FamilyFirst {
		display = family.native + given.native
		name = display
	} else if l.CommaForm && g.chance(30) {
		name = family.native + ", " + given.native
	}
	name = g.unique(l.OU, name, " ")
	account := g.unique("", given.latin[:1]+family.latin, "")
	address := g.unique("@", given.latin+"."+family.latin, "") + "@" + domainName

	b := record{}
	b["sAMAccountType"] = samUser
	b["sAMAccountName"] = account
	b["userPrincipalName"] = account + "@" + domainName
	b["primaryGroupID"] = "513"
	b["codePage"] = "0"
	b["lastLogoff"] = "0"
	b["countryCode"] = strings.TrimLeft(l.NumericCode, "0")
	b["sn"] = family.native
	b["company"] = "Example Corporation"
	g.setSome(b, 97, "givenName", given.native)
	g.setSome(b, 96, "displayName", display)
	g.setSome(b, 92, "mail", address)
	g.setSome(b, 60, "mobile", g.phone(l.Phone))
	g.setSome(b, 90, "title", g.data.Titles[r.IntN(len(g.data.Titles))])
	g.setSome(b, 95, "department", g.data.Departments[r.IntN(len(g.data.Departments))])
	g.setSome(b, 80, "employeeID", strconv.Itoa(100_000+n))
	if g.chance(88) {
		b["l"], b["c"], b["st"] = l.City, l.Code, l.State
		street := fmt.Sprintf("%s %d", l.Streets[r.IntN(len(l.Streets))], 1+r.IntN(200))
		if g.chance(8) {
			street += fmt.Sprintf("\r\nFloor %d", 1+r.IntN(30))
		}
		b["streetAddress"] = street
		g.setSome(b, 95, "co", l.Country)
	}
	created := g.history(b, state)
	g.users = append(g.users, g.addPrincipal("user", g.offices[place].users, name, b, created))
}

// state returns a random state.
func (g *generator) state() accountState {
	n := g.d.random.IntN(1000)
	for state, share := range permille {
		if n -= share; n < 0 {
			return accountState(state)
		}
	}
	return stateActive
}

const (
	day            = 24 * time.Hour
	maxPasswordAge = 42 * day // as maxPwdAge
)

// history sets the times and counters of an account in a state. It returns the time of
// its creation.
func (g *generator) history(b record, state accountState) (created time.Time) {
	age := 50*day + g.duration(domainAge-50*day)
	logon := g.duration(14 * day)
	password := g.duration(maxPasswordAge - 2*day)
	control, failures := 512, 0
	b["accountExpires"] = neverExpires
	if g.chance(5) {
		b["accountExpires"] = "0" // never, too
	}
	switch state {
	case stateDisabled:
		control = 514
		logon = 30*day + g.duration(age-30*day)
	case stateExpired:
		b["accountExpires"] = g.ago(day + g.duration(300*day))
	case stateExpiresLater:
		b["accountExpires"] = g.ago(-day - g.duration(300*day))
	case stateLocked:
		b["lockoutTime"], failures = g.ago(g.duration(20*time.Minute)), 10
	case stateLockoutEnded:
		b["lockoutTime"] = g.ago(2*time.Hour + g.duration(20*day))
	case statePasswordNeverExpires:
		control = 66048
		password = g.duration(age)
	case statePasswordExpired:
		password = maxPasswordAge + day + g.duration(age-maxPasswordAge-day)
	case stateSmartcard:
		control = 262656
		password = g.duration(age)
	case stateNeverLoggedOn:
		age = g.duration(5 * day)
		password, logon = age, 0
	}
	b["userAccountControl"] = strconv.Itoa(control)
	b["pwdLastSet"] = g.ago(password)
	if state == stateMustChangePassword {
		b["pwdLastSet"] = "0"
	}
	g.logons(b, logon)
	if state == stateLocked {
		b["badPasswordTime"] = b["lockoutTime"]
	} else if g.chance(6) {
		failures = 1 + g.d.random.IntN(4)
	}
	b["badPwdCount"] = strconv.Itoa(failures)
	return g.now.Add(-age)
}

// logons sets the logon attributes for a last logon some time ago. 0: no logon.
func (g *generator) logons(b record, ago time.Duration) {
	b["lastLogon"], b["logonCount"], b["badPasswordTime"] = "0", "0", "0"
	if ago == 0 {
		return
	}
	b["lastLogon"] = g.ago(ago)
	b["lastLogonTimestamp"] = g.ago(ago + g.duration(9*day))
	b["logonCount"] = strconv.Itoa(1 + g.d.random.IntN(9000))
	if g.chance(40) {
		b["badPasswordTime"] = g.ago(ago + g.duration(day))
	}
}

// groupTypes are the types of groups that an administrator can create.
var groupTypes = []string{"-2147483646", "-2147483644", "-2147483640", "2", "4", "8"}

// group generates group number n. All users are members of the first one.
func (g *generator) group(parent *object, n int, others []*object) *object {
	r := g.d.random
	sample := g.data.Groups[r.IntN(len(g.data.Groups))]
	city := g.data.Locales[r.IntN(len(g.data.Locales))].OU
	name := g.unique("group", city+" "+sample.Name, " ")
	if n == 0 {
		name, sample.Description = g.unique("group", "All employees", ""), "Everybody"
	}
	b := record{}
	b["groupType"] = groupTypes[n%len(groupTypes)]
	groupType, _ := strconv.ParseInt(b["groupType"], 10, 64)
	b["sAMAccountType"] = samAccountTypeOf(groupType)
	b["sAMAccountName"] = name
	b["description"] = sample.Description
	g.setSome(b, 60, "displayName", name)
	if b["sAMAccountType"] == samNonSecurity || g.chance(15) {
		b["mail"] = fmt.Sprintf("list-%d@%s", n, domainName)
	}
	o := g.addPrincipal("group", parent, name, b, g.now.Add(-g.duration(domainAge)))

	var members []*object
	switch {
	case n == 0:
		members = g.users
	case len(g.users) > 0:
		for range r.IntN(25) {
			members = append(members, g.users[r.IntN(len(g.users))])
		}
		if len(others) > 1 && g.chance(20) {
			members = append(members, others[1+r.IntN(len(others)-1)])
		}
	}
	setMembers(o, members)
	return o
}

func (g *generator) computer(n int) {
	place := g.d.random.IntN(len(g.data.Locales))
	name := fmt.Sprintf("%s-%04d", g.data.Locales[place].Code, n+1)
	b := g.machine(name)
	b["dNSHostName"] = strings.ToLower(name) + "." + domainName
	b["operatingSystem"] = "Windows 11 Enterprise"
	g.addPrincipal("computer", g.offices[place].computers, name, b, g.now.Add(-g.duration(domainAge)))
}

func (g *generator) managedAccount(name string) {
	b := g.machine(name)
	b["msDS-ManagedPasswordInterval"] = "30"
	parent := g.d.root.children[(rdn{"CN", "Managed Service Accounts"}).key()]
	g.addPrincipal("msDS-GroupManagedServiceAccount", parent, name, b, g.now.Add(-g.duration(domainAge)))
}

// machine returns the attributes of a machine account.
func (g *generator) machine(name string) record {
	b := record{}
	b["sAMAccountType"] = samMachine
	b["sAMAccountName"] = name + "$"
	b["userAccountControl"] = "4096"
	b["primaryGroupID"] = "515"
	b["pwdLastSet"] = g.ago(g.duration(30 * day))
	b["accountExpires"] = neverExpires
	return b
}

// contact generates a contact, which has an address but no account.
func (g *generator) contact(parent *object, n int) {
	l := &g.data.Locales[n%len(g.data.Locales)]
	given, family := l.GivenNames[n%len(l.GivenNames)], l.FamilyNames[n%len(l.FamilyNames)]
	name := g.unique("contact", given.native+" "+family.native+" (external)", "")
	b := record{}
	b["sn"], b["givenName"], b["displayName"] = family.native, given.native, name
	b["mail"] = fmt.Sprintf("%s.%s@partner%d.example.net", given.latin, family.latin, n+1)
	o := &object{class: classByName("contact"), parent: parent, rdn: rdn{"CN", name}, attributes: b.attributes()}
	g.d.insert(o, g.now.Add(-g.duration(domainAge)))
}

// addPrincipal adds a security principal.
func (g *generator) addPrincipal(className string, parent *object, name string, b record, created time.Time) *object {
	o := &object{class: classByName(className), parent: parent, rdn: rdn{"CN", name}, attributes: b.attributes()}
	g.d.assignSID(o)
	g.d.insert(o, created)
	return o
}

// unique appends a number to a name that exists in its namespace.
func (g *generator) unique(namespace, name, separator string) string {
	key := namespace + "\x00" + strings.ToLower(name)
	g.names[key]++
	if n := g.names[key]; n > 1 {
		return name + separator + strconv.Itoa(n)
	}
	return name
}

func (g *generator) chance(percent int) bool { return g.d.random.IntN(100) < percent }

// setSome sets an attribute with a probability in percent.
func (g *generator) setSome(b record, percent int, name string, value string) {
	if g.chance(percent) {
		b[name] = value
	}
}

// duration returns a random duration above 0, up to a maximum.
func (g *generator) duration(maximum time.Duration) time.Duration {
	return time.Duration(g.d.random.Int64N(int64(maximum)) + 1)
}

// ago returns the file time before now.
func (g *generator) ago(d time.Duration) string { return formatFileTime(g.now.Add(-d)) }

// phone replaces each # of a pattern by a random digit.
func (g *generator) phone(pattern string) string {
	digits := []byte(pattern)
	var random [8]byte
	binary.LittleEndian.PutUint64(random[:], g.d.random.Uint64())
	for i, n := 0, 0; i < len(digits); i++ {
		if digits[i] == '#' {
			digits[i] = '0' + random[n%8]%10
			n++
		}
	}
	return string(digits)
}
