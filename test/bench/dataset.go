package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// dataset is a generated directory. Equal counts result in equal entries.
type dataset struct{ users, groups int }

const (
	suffix         = "DC=bench,DC=example,DC=com"
	peopleOU       = "OU=People," + suffix
	groupsOU       = "OU=Groups," + suffix
	categoryParent = ",CN=Schema,CN=Configuration," + suffix
	seed           = 1
	firstRID       = 1000 // of the users; the groups follow
	never          = "9223372036854775807"
	auxiliaryClass = "benchAccount" // an object class of benchSchema
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

// userName returns the name of the n-th user. Repeated names get a number.
func userName(n int) (given, surname, name string) {
	given = givenNames[n%len(givenNames)]
	surname = surnames[n/len(givenNames)%len(surnames)]
	name = given + " " + surname
	if repeated := n / len(givenNames) / len(surnames); repeated > 0 {
		name += " " + strconv.Itoa(repeated)
	}
	return given, surname, name
}

func userDN(n int) string {
	_, _, name := userName(n)
	return "CN=" + name + ",OU=" + sites[n%len(sites)].ou + "," + peopleOU
}

func groupName(n int) string { return fmt.Sprintf("GRP-%06d %s", n, purposes[n%len(purposes)]) }

func groupDN(n int) string { return "CN=" + groupName(n) + "," + groupsOU }

// writeLDIF writes all entries, parents first.
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
	w.optional(98, "givenName", given)
	w.optional(98, "displayName", surname+", "+given)
	w.optional(90, "mail", account+"@example.com")
	w.optional(60, "mobile", fmt.Sprintf("+49 170 %07d", n))
	w.optional(85, "title", titles[w.random.IntN(len(titles))])
	if w.chance(85) {
		w.text("l", s.city)
		w.text("c", s.code)
		w.text("streetAddress", fmt.Sprintf("%s %d", s.street, 1+w.random.IntN(200)))
		w.optional(95, "co", s.country)
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
	w.text("accountExpires", w.fileTime(8, never))
	w.text("pwdLastSet", w.fileTime(96, "0"))
	w.text("lastLogon", w.fileTime(88, "0"))
	w.text("lastLogonTimestamp", w.fileTime(90, "0"))
	w.text("badPasswordTime", w.fileTime(40, "0"))
	w.text("badPwdCount", strconv.Itoa(max(0, w.random.IntN(40)-36)))
	w.text("logonCount", strconv.Itoa(w.random.IntN(5000)))
	w.text("primaryGroupID", "513")
	for i := range memberships {
		w.text("memberOf", groupDN(d.groupOf(n, i)))
	}
}

// memberships is the number of groups of each user.
const memberships = 10

// groupOf returns the i-th group of a user. All groups have the same size.
func (d dataset) groupOf(user, i int) int { return (user + i*d.groups/memberships) % d.groups }

// membersOf returns the members of a group.
func (d dataset) membersOf(group int) (users []int) {
	for i := range memberships {
		first := (group - i*d.groups/memberships + d.groups) % d.groups
		for user := first; user < d.users; user += d.groups {
			users = append(users, user)
		}
	}
	return users
}

// extendedDN returns a user as a value of member in the form of the extended DN control
// (MS-ADTS 3.1.1.3.4.1.5). slapd does not support the control and stores the value as text.
func extendedDN(user int) string {
	rid := uint32(firstRID + user)
	return "<GUID=" + hex.EncodeToString(guidOf(rid)) + ">;<SID=" + hex.EncodeToString(sidOf(rid)) + ">;" + userDN(user)
}

func guidOf(rid uint32) []byte {
	random := rand.New(rand.NewPCG(seed, uint64(rid)))
	guid := binary.LittleEndian.AppendUint32(nil, rid) // makes the GUID unique
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
	w.optional(60, "displayName", groupName(n))
	w.optional(80, "description", "Members of "+purposes[n%len(purposes)]+", managed by the service desk")
	for _, user := range d.membersOf(n) {
		w.text("member", extendedDN(user))
	}
}

// account writes the attributes that users and groups have in common.
func (w *ldif) account(class, category, dn, name, account, accountType string, rid uint32) {
	w.entry(dn)
	w.text("objectClass", class, auxiliaryClass)
	w.text("name", name)
	w.text("sAMAccountName", account)
	w.text("sAMAccountType", accountType)
	w.text("objectCategory", category+categoryParent)
	w.text("instanceType", "4")
	w.text("uSNCreated", strconv.Itoa(10_000+int(rid)))
	w.text("uSNChanged", strconv.Itoa(20_000+int(rid)))
	w.text("whenCreated", w.randomTime().Format("20060102150405.0Z"))
	w.text("whenChanged", w.randomTime().Format("20060102150405.0Z"))
	w.binary("nTSecurityDescriptor", w.randomBytes(make([]byte, 64)))

	w.binary("objectGUID", guidOf(rid))
	w.binary("objectSid", sidOf(rid))
}
