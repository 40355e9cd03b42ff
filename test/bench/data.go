package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// dataset is a generated directory. The same counts give the same entries.
type dataset struct{ users, groups int }

const (
	suffix    = "DC=bench,DC=example,DC=com"
	peopleOU  = "OU=People," + suffix
	groupsOU  = "OU=Groups," + suffix
	category  = ",CN=Schema,CN=Configuration," + suffix
	seed      = 1
	firstRID  = 1000 // of users; groups follow
	never     = "9223372036854775807"
	auxiliary = "benchAccount" // the class of slapd.go's own schema
)

var (
	givenNames = []string{"Anna", "Björn", "Chloé", "Deepak", "Elif", "Fatima", "Grace", "Håkan", "Ines", "José", "Kateřina", "Liam",
		"Mei", "Nguyễn", "Olga", "Priya", "Quentin", "Rania", "Søren", "Tomás", "Ulrike", "Victor", "Wei", "Yuki", "Zoë", "美咲"}
	surnames = []string{"Müller", "Smith", "Patel", "García", "Kowalski", "O'Brien", "Nakamura", "Silva", "Novák", "Andersson", "Rossi",
		"Dubois", "Khan", "Johnson", "Øverland", "Wang", "Schmidt", "Fernández", "de Vries", "Iyer", "Łukasik", "Brown", "Kim", "佐藤"}
	titles = []string{"Accountant", "Software Engineer", "Account Manager", "Head of Procurement", "Ingénieur d'études", "Sachbearbeiterin",
		"System Administrator", "Analyst", "Vice President, Sales & Marketing"}
	purposes = []string{"Finance", "Engineering", "VPN users", "Printers 3rd floor", "Vertrieb", "Administrators of build servers", "All hands", "経理"}
	sites    = []site{
		{"Köln", "Köln", "Germany", "DE", "Nordrhein-Westfalen", "Aachener Straße"},
		{"Pune", "Pune", "India", "IN", "Maharashtra", "Senapati Bapat Road"},
		{"London", "London", "United Kingdom", "GB", "", "Old Street"},
		{"Foster City", "Foster City", "United States", "US", "California", "E Hillsdale Blvd"},
		{"São Paulo", "São Paulo", "Brazil", "BR", "SP", "Avenida Paulista"},
		{"Tokyo", "東京", "Japan", "JP", "東京都", "丸の内"},
		{"Kraków", "Kraków", "Poland", "PL", "Małopolskie", "ulica Pawia"},
	}
	groupTypes = []string{"-2147483646", "-2147483646", "-2147483640", "-2147483644", "2", "8"}
)

type site struct{ ou, city, country, code, state, street string }

// userName is the name of the n-th user. Like in a real directory, the namesakes
// get numbers.
func userName(n int) (given, surname, name string) {
	given = givenNames[n%len(givenNames)]
	surname = surnames[n/len(givenNames)%len(surnames)]
	name = given + " " + surname
	if same := n / len(givenNames) / len(surnames); same > 0 {
		name += " " + strconv.Itoa(same)
	}
	return given, surname, name
}

func userDN(n int) string {
	_, _, name := userName(n)
	return "CN=" + name + ",OU=" + sites[n%len(sites)].ou + "," + peopleOU
}

func groupName(n int) string { return fmt.Sprintf("GRP-%06d %s", n, purposes[n%len(purposes)]) }

func groupDN(n int) string { return "CN=" + groupName(n) + "," + groupsOU }

// writeLDIF writes the directory, parents first.
func (d dataset) writeLDIF(out *bufio.Writer) error {
	w := &ldif{out: out, random: rand.New(rand.NewPCG(seed, uint64(d.users)))}
	w.entry(suffix)
	w.text("objectClass", "organization", "dcObject")
	w.text("dc", "bench")
	w.text("o", "Bench")
	ous := []string{peopleOU, groupsOU}
	for _, s := range sites {
		ous = append(ous, "OU="+s.ou+","+peopleOU)
	}
	for _, ou := range ous {
		w.entry(ou)
		w.text("objectClass", "organizationalUnit")
	}
	for n := range d.users {
		w.user(d, n)
	}
	for n := range d.groups {
		w.group(d, n)
	}
	w.end()
	return out.Flush()
}

func (w *ldif) user(d dataset, n int) {
	given, surname, name := userName(n)
	account := fmt.Sprintf("u%07d", n)
	s := sites[n%len(sites)]
	w.account("user", "CN=Person", userDN(n), name, account, "805306368", uint32(firstRID+n))
	w.text("sn", surname)
	w.text("userPrincipalName", account+"@bench.example.com")
	w.some(98, "givenName", given)
	w.some(98, "displayName", surname+", "+given)
	w.some(90, "mail", account+"@example.com")
	w.some(60, "mobile", fmt.Sprintf("+49 170 %07d", n))
	w.some(85, "title", titles[w.random.IntN(len(titles))])
	if w.chance(85) {
		w.text("l", s.city)
		w.text("c", s.code)
		w.text("streetAddress", fmt.Sprintf("%s %d", s.street, 1+w.random.IntN(200)))
		w.some(95, "co", s.country)
		if s.state != "" {
			w.text("st", s.state)
		}
	}
	control, computed := "512", "0"
	switch p := w.random.IntN(100); {
	case p < 8:
		control = "514"
	case p < 20:
		control = "66048"
	case p < 21:
		computed = "16"
	case p < 24:
		computed = "8388608"
	}
	w.text("userAccountControl", control)
	w.text("msDS-User-Account-Control-Computed", computed)
	w.text("accountExpires", w.sometimes(8, never))
	w.text("pwdLastSet", w.sometimes(96, "0"))
	w.text("lastLogon", w.sometimes(88, "0"))
	w.text("badPasswordTime", w.sometimes(40, "0"))
	w.text("badPwdCount", strconv.Itoa(max(0, w.random.IntN(40)-36)))
	w.text("logonCount", strconv.Itoa(w.random.IntN(5000)))
	w.text("primaryGroupID", "513")
	for i := range memberships {
		w.text("memberOf", groupDN(d.groupOf(n, i)))
	}
}

// memberships is in how many groups everybody is.
const memberships = 10

// groupOf is the i-th group of a user. The groups are as large as each other.
func (d dataset) groupOf(user, i int) int { return (user + i*d.groups/memberships) % d.groups }

// membersOf lists the users of a group.
func (d dataset) membersOf(group int) (users []int) {
	for i := range memberships {
		first := (group - i*d.groups/memberships + d.groups) % d.groups
		for user := first; user < d.users; user += d.groups {
			users = append(users, user)
		}
	}
	return users
}

// extendedDN is a user as member has him, with the identifiers that a domain
// controller adds when it is asked to. slapd does not know how: to it they are text.
func extendedDN(user int) string {
	rid := uint32(firstRID + user)
	return "<GUID=" + hex.EncodeToString(guidOf(rid)) + ">;<SID=" + hex.EncodeToString(sidOf(rid)) + ">;" + userDN(user)
}

func guidOf(rid uint32) []byte {
	random := rand.New(rand.NewPCG(seed, uint64(rid)))
	guid := binary.LittleEndian.AppendUint32(nil, rid) // distinct whatever the rest is
	guid = binary.LittleEndian.AppendUint32(guid, random.Uint32())
	return binary.LittleEndian.AppendUint64(guid, random.Uint64())
}

func sidOf(rid uint32) []byte {
	sid := append([]byte{1, 5, 0, 0, 0, 0, 0, 5}, 21, 0, 0, 0) // S-1-5-21-…
	for _, authority := range []uint32{1004336348, 1177238915, 682003330, rid} {
		sid = binary.LittleEndian.AppendUint32(sid, authority)
	}
	return sid
}

func (w *ldif) group(d dataset, n int) {
	account := fmt.Sprintf("g%06d", n)
	w.account("group", "CN=Group", groupDN(n), groupName(n), account, "268435456", uint32(firstRID+d.users+n))
	w.text("groupType", groupTypes[w.random.IntN(len(groupTypes))])
	w.some(60, "displayName", groupName(n))
	w.some(80, "description", "Members of "+purposes[n%len(purposes)]+", managed by the service desk")
	for _, user := range d.membersOf(n) {
		w.text("member", extendedDN(user))
	}
}

// account writes what users and groups have in common.
func (w *ldif) account(class, kind, dn, name, account, accountType string, rid uint32) {
	w.entry(dn)
	w.text("objectClass", class, auxiliary)
	w.text("name", name)
	w.text("sAMAccountName", account)
	w.text("sAMAccountType", accountType)
	w.text("objectCategory", kind+category)
	w.text("instanceType", "4")
	w.text("uSNCreated", strconv.Itoa(10_000+int(rid)))
	w.text("uSNChanged", strconv.Itoa(20_000+int(rid)))
	w.text("whenCreated", w.moment().Format("20060102150405.0Z"))
	w.text("whenChanged", w.moment().Format("20060102150405.0Z"))
	w.binary("nTSecurityDescriptor", w.bytes(make([]byte, 64)))

	w.binary("objectGUID", guidOf(rid))
	w.binary("objectSid", sidOf(rid))
}

// ldif writes entries (RFC 2849). Its writer keeps the first error.
type ldif struct {
	out    *bufio.Writer
	random *rand.Rand
	begun  bool
}

func (w *ldif) entry(dn string) {
	w.end()
	w.begun = true
	w.text("dn", dn)
}

func (w *ldif) end() {
	if w.begun {
		w.out.WriteByte('\n')
	}
}

func (w *ldif) text(name string, values ...string) {
	for _, value := range values {
		if !plain(value) {
			w.binary(name, []byte(value))
			continue
		}
		w.out.WriteString(name)
		w.out.WriteString(": ")
		w.out.WriteString(value)
		w.out.WriteByte('\n')
	}
}

func (w *ldif) binary(name string, value []byte) {
	w.out.WriteString(name)
	w.out.WriteString(":: ")
	w.out.WriteString(base64.StdEncoding.EncodeToString(value))
	w.out.WriteByte('\n')
}

// plain reports whether a value that is generated here can stand as it is.
func plain(value string) bool {
	for i := range len(value) {
		if value[i] >= 0x80 {
			return false
		}
	}
	return true
}

func (w *ldif) chance(percent int) bool { return w.random.IntN(100) < percent }

// some writes an attribute that so many percent of the entries have.
func (w *ldif) some(percent int, name, value string) {
	if w.chance(percent) {
		w.text(name, value)
	}
}

// sometimes is a file time (100 ns since 1601) in so many percent, else the given value.
func (w *ldif) sometimes(percent int, otherwise string) string {
	const epoch = 11644473600 // seconds from 1601 to 1970
	if !w.chance(percent) {
		return otherwise
	}
	return strconv.FormatInt((w.moment().Unix()+epoch)*10_000_000+w.random.Int64N(10_000_000), 10)
}

// moment is some time in the ten years from 2017.
func (w *ldif) moment() time.Time {
	return time.Unix(1483228800+w.random.Int64N(10*365*24*3600), 0).UTC()
}

func (w *ldif) bytes(b []byte) []byte {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], w.random.Uint64())
	}
	return b
}
