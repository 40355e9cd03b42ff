package domaincontroller

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// draft is an object's record in the making, for the many that are generated.
type draft [attributes]string

func (f *draft) record(scratch []byte) record {
	scratch = scratch[:0]
	for id, value := range f {
		if value != "" {
			scratch = appendValue(scratch, attributeID(id), value)
		}
	}
	return record(scratch)
}

// populace is the state of generating.
type populace struct {
	d       *Server
	now     time.Time
	offices []office // of each culture
	names   map[string]int
	scratch []byte
	staff   []*object
}

type office struct{ users, computers *object }

// populate fills the directory with what the options ask for. It goes by the
// directory's own random numbers, so that a seed decides about everything.
func (d *Server) populate() {
	p := &populace{d: d, now: d.options.Now(), names: map[string]int{}}
	born := p.now.Add(-domainAge)
	unit := func(parent *object, name string) *object {
		if there := parent.children[(rdn{"OU", name}).key()]; there != nil {
			return there // the account that binds may be in it
		}
		o := &object{class: classes["organizationalunit"], parent: parent, rdn: rdn{"OU", name}}
		d.insert(o, born)
		return o
	}
	for _, c := range cultures {
		city := unit(d.root, c.ou)
		p.offices = append(p.offices, office{unit(city, "Users"), unit(city, "Computers")})
	}
	groups, contacts := unit(d.root, "Groups"), unit(d.root, "Contacts")
	for n := range d.options.Users {
		p.user(n)
	}
	var made []*object
	for n := range d.options.Groups {
		made = append(made, p.group(groups, n, made))
	}
	for n := range min(200, d.options.Users/10) + 3 {
		p.computer(n)
	}
	for n := range min(50, d.options.Users/20) + 3 {
		p.contact(contacts, n)
	}
	for _, name := range []string{"gmsa-sql", "gmsa-web"} {
		p.managedAccount(name)
	}
}

// standing is what is the matter with an account.
type standing int

const (
	standingGood standing = iota
	standingDisabled
	standingExpired
	standingEnding // expires some day
	standingLocked
	standingWasLocked // long enough ago
	standingPasswordNeverExpires
	standingPasswordExpired
	standingMustChange
	standingSmartcard
	standingNew // never logged on
	standings
)

// permille of accounts in each standing but the good one.
var permille = [standings]int{standingDisabled: 60, standingExpired: 15, standingEnding: 30, standingLocked: 10, standingWasLocked: 10,
	standingPasswordNeverExpires: 90, standingPasswordExpired: 35, standingMustChange: 20, standingSmartcard: 15, standingNew: 20}

// user makes the n-th user. The first ones show every culture and every standing,
// so that a small directory has them too.
func (p *populace) user(n int) {
	r := p.d.random
	which, state := n%len(cultures), standing(n%int(standings))
	if n >= len(cultures) {
		which, state = r.IntN(len(cultures)), p.standing()
	}
	c := &cultures[which]
	given, family := c.given[r.IntN(len(c.given))], c.family[r.IntN(len(c.family))]
	display := given.written + " " + family.written
	name := display
	if c.familyFirst {
		display = family.written + given.written
		name = display
	} else if c.listed && p.chance(30) {
		name = family.written + ", " + given.written
	}
	parent := p.offices[which].users
	name = p.unique(name, func(text string, n int) string { return fmt.Sprintf("%s %d", text, n) }, c.ou)
	account := p.unique(given.latin[:1]+family.latin, numbered, "")
	address := p.unique(given.latin+"."+family.latin, numbered, "@") + "@" + domainName

	var f draft
	f[attributeSAMAccountType] = samUser
	f[attributeSAMAccountName] = account
	f[attributeUserPrincipalName] = account + "@" + domainName
	f[attributePrimaryGroupID] = "513"
	f[attributeCodePage] = "0"
	f[attributeLastLogoff] = "0"
	f[attributeCountryCode] = strings.TrimLeft(c.numeric, "0")
	f[attributeSN] = family.written
	p.some(&f, 97, attributeGivenName, given.written)
	p.some(&f, 96, attributeDisplayName, display)
	p.some(&f, 92, attributeMail, address)
	p.some(&f, 60, attributeMobile, p.phone(c.phone))
	p.some(&f, 90, attributeTitle, titles[r.IntN(len(titles))])
	p.some(&f, 95, attributeDepartment, departments[r.IntN(len(departments))])
	f[attributeCompany] = "Example Corporation"
	p.some(&f, 80, attributeEmployeeID, strconv.Itoa(100_000+n))
	if p.chance(88) {
		f[attributeL], f[attributeC], f[attributeST] = c.city, c.code, c.state
		street := fmt.Sprintf("%s %d", c.streets[r.IntN(len(c.streets))], 1+r.IntN(200))
		if p.chance(8) {
			street += fmt.Sprintf("\r\nFloor %d", 1+r.IntN(30))
		}
		f[attributeStreetAddress] = street
		p.some(&f, 95, attributeCO, c.country)
	}
	created := p.history(&f, state)
	o := &object{class: classes["user"], parent: parent, rdn: rdn{"CN", name}, attributes: f.record(p.scratch)}
	p.join(o, created)
	p.staff = append(p.staff, o)
}

func numbered(text string, n int) string { return text + strconv.Itoa(n) }

func (p *populace) standing() standing {
	at := p.d.random.IntN(1000)
	for state, share := range permille {
		if at -= share; at < 0 {
			return standing(state)
		}
	}
	return standingGood
}

const (
	day       = 24 * time.Hour
	passwords = 42 * day // how long they last in this domain
)

// history writes what time has done to an account, and returns when it was made.
func (p *populace) history(f *draft, state standing) (created time.Time) {
	r := p.d.random
	age := 50*day + p.span(domainAge-50*day)
	logon := p.span(14 * day)
	password := p.span(passwords - 2*day)
	control, expires, lockout, wrong := 512, never, "", 0
	if p.chance(5) {
		expires = "0" // never, too
	}
	switch state {
	case standingDisabled:
		control = 514
		logon = 30*day + p.span(age-30*day)
	case standingExpired:
		expires = p.ago(day + p.span(300*day))
	case standingEnding:
		expires = p.ago(-day - p.span(300*day))
	case standingLocked:
		lockout, wrong = p.ago(p.span(20*time.Minute)), 10
	case standingWasLocked:
		lockout = p.ago(2*time.Hour + p.span(20*day))
	case standingPasswordNeverExpires:
		control = 66048
		password = p.span(age)
	case standingPasswordExpired:
		password = passwords + day + p.span(age-passwords-day)
	case standingSmartcard:
		control = 262656
		password = p.span(age)
	case standingNew:
		age = p.span(5 * day)
		password, logon = age, 0
	}
	f[attributeUserAccountControl] = strconv.Itoa(control)
	f[attributeAccountExpires] = expires
	f[attributeLockoutTime] = lockout
	f[attributePwdLastSet] = p.ago(password)
	if state == standingMustChange {
		f[attributePwdLastSet] = "0"
	}
	f[attributeLastLogon], f[attributeLogonCount], f[attributeBadPasswordTime] = "0", "0", "0"
	if logon > 0 {
		f[attributeLastLogon] = p.ago(logon)
		f[attributeLastLogonTimestamp] = p.ago(logon + p.span(9*day))
		f[attributeLogonCount] = strconv.Itoa(1 + r.IntN(9000))
		if p.chance(40) {
			f[attributeBadPasswordTime] = p.ago(logon + p.span(day))
		}
	}
	if state == standingLocked {
		f[attributeBadPasswordTime] = lockout
	} else if p.chance(6) {
		wrong = 1 + r.IntN(4)
	}
	f[attributeBadPwdCount] = strconv.Itoa(wrong)
	return p.now.Add(-age)
}

// groupTypes are all that an administrator can make.
var groupTypes = []string{"-2147483646", "-2147483644", "-2147483640", "2", "4", "8"}

// group makes the n-th group. The first one has everybody in it.
func (p *populace) group(parent *object, n int, others []*object) *object {
	r := p.d.random
	purpose := purposes[r.IntN(len(purposes))]
	city := cultures[r.IntN(len(cultures))].ou
	kind := groupTypes[n%len(groupTypes)]
	name := p.unique(city+" "+purpose.name, func(text string, n int) string { return fmt.Sprintf("%s %d", text, n) }, "group")
	if n == 0 {
		name, purpose.description = p.unique("All employees", numbered, "group"), "Everybody"
	}
	number, _ := strconv.ParseInt(kind, 10, 64)
	var f draft
	f[attributeSAMAccountType] = samAccountTypeOf(number)
	f[attributeSAMAccountName] = name
	f[attributeGroupType] = kind
	f[attributeDescription] = purpose.description
	p.some(&f, 60, attributeDisplayName, name)
	if f[attributeSAMAccountType] == samNonSecurity || p.chance(15) {
		f[attributeMail] = fmt.Sprintf("list-%d@%s", n, domainName)
	}
	o := &object{class: classes["group"], parent: parent, rdn: rdn{"CN", name}, attributes: f.record(p.scratch)}
	p.join(o, p.now.Add(-p.span(domainAge)))

	var members []*object
	switch {
	case n == 0:
		members = p.staff
	case len(p.staff) > 0:
		for range r.IntN(25) {
			members = append(members, p.staff[r.IntN(len(p.staff))])
		}
		if len(others) > 1 && p.chance(20) {
			members = append(members, others[1+r.IntN(len(others)-1)])
		}
	}
	setMembers(o, members)
	return o
}

func (p *populace) computer(n int) {
	c := p.d.random.IntN(len(cultures))
	name := fmt.Sprintf("%s-%04d", cultures[c].code, n+1)
	var f draft
	f[attributeSAMAccountType] = samMachine
	f[attributeSAMAccountName] = name + "$"
	f[attributeUserAccountControl] = "4096"
	f[attributePrimaryGroupID] = "515"
	f[attributeDNSHostName] = strings.ToLower(name) + "." + domainName
	f[attributeOperatingSystem] = "Windows 11 Enterprise"
	f[attributePwdLastSet] = p.ago(p.span(30 * day))
	f[attributeAccountExpires] = never
	p.join(&object{class: classes["computer"], parent: p.offices[c].computers, rdn: rdn{"CN", name}, attributes: f.record(p.scratch)},
		p.now.Add(-p.span(domainAge)))
}

// contact makes somebody outside, who has an address here but no account.
func (p *populace) contact(parent *object, n int) {
	c := &cultures[n%len(cultures)]
	given, family := c.given[n%len(c.given)], c.family[n%len(c.family)]
	name := p.unique(given.written+" "+family.written+" (external)", numbered, "contact")
	var f draft
	f[attributeSN], f[attributeGivenName], f[attributeDisplayName] = family.written, given.written, name
	f[attributeMail] = fmt.Sprintf("%s.%s@partner%d.example.net", given.latin, family.latin, n+1)
	p.d.insert(&object{class: classes["contact"], parent: parent, rdn: rdn{"CN", name}, attributes: f.record(p.scratch)}, p.now.Add(-p.span(domainAge)))
}

func (p *populace) managedAccount(name string) {
	var f draft
	f[attributeSAMAccountType] = samMachine
	f[attributeSAMAccountName] = name + "$"
	f[attributeUserAccountControl] = "4096"
	f[attributePrimaryGroupID] = "515"
	f[attributePwdLastSet] = p.ago(p.span(30 * day))
	f[attributeAccountExpires] = never
	f[attributeManagedPasswordInterval] = "30"
	parent := p.d.root.children[(rdn{"CN", "Managed Service Accounts"}).key()]
	p.join(&object{class: classes["msds-groupmanagedserviceaccount"], parent: parent, rdn: rdn{"CN", name}, attributes: f.record(p.scratch)},
		p.now.Add(-p.span(domainAge)))
}

// join makes a security principal.
func (p *populace) join(o *object, created time.Time) {
	o.sid = p.d.account(p.d.nextRID)
	p.d.nextRID++
	p.d.insert(o, created)
}

// unique numbers namesakes, from the second on.
func (p *populace) unique(text string, number func(string, int) string, among string) string {
	key := among + "\x00" + strings.ToLower(text)
	p.names[key]++
	if n := p.names[key]; n > 1 {
		return number(text, n)
	}
	return text
}

func (p *populace) chance(percent int) bool { return p.d.random.IntN(100) < percent }

// some sets an attribute that so many percent have.
func (p *populace) some(f *draft, percent int, id attributeID, value string) {
	if p.chance(percent) {
		f[id] = value
	}
}

// span is some time up to most.
func (p *populace) span(most time.Duration) time.Duration {
	return time.Duration(p.d.random.Int64N(int64(most)) + 1)
}

func (p *populace) ago(span time.Duration) string { return fileTimeOf(p.now.Add(-span)) }

func (p *populace) phone(pattern string) string {
	digits := []byte(pattern)
	var random [8]byte
	binary.LittleEndian.PutUint64(random[:], p.d.random.Uint64())
	for i, n := 0, 0; i < len(digits); i++ {
		if digits[i] == '#' {
			digits[i] = '0' + random[n%8]%10
			n++
		}
	}
	return string(digits)
}
