//go:build ad

package samba

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// The organizational units of the fixture.
const (
	peopleOU = "OU=People," + baseDN
	puneOU   = "OU=Pune," + peopleOU
	kolnOU   = `OU=Köln\, \"Dom\" \+ Söhne,` + peopleOU
	tokyoOU  = "OU=東京," + peopleOU
	groupsOU = "OU=Groups," + baseDN
	bulkOU   = "OU=Bulk," + baseDN
	otherOU  = "OU=Other," + baseDN

	// bulkUsers exceeds two ranges of 1,500 members of a group. A third of it exceeds a page of
	// 1,000.
	bulkUsers  = 3200
	bulkGroups = 1100

	lockoutThreshold = 5
)

// Bits of userAccountControl (MS-ADTS 2.2.16).
const (
	uacDisabled      = 0x2
	uacNoPassword    = 0x20 // PASSWD_NOTREQD
	uacNormal        = 0x200
	uacNeverExpires  = 0x10000 // DONT_EXPIRE_PASSWORD
	uacSmartcard     = 0x40000
	uacPlain         = uacNormal | uacNoPassword | uacNeverExpires
	uacPlainDisabled = uacPlain | uacDisabled
)

// Values of groupType (MS-ADTS 2.2.12).
const (
	groupGlobal      = 0x2
	groupDomainLocal = 0x4
	groupUniversal   = 0x8
	groupSecurity    = -0x80000000
)

// fixture collects the entries of the fixture.
type fixture struct {
	ldif
	accounts int // sAMAccountNames used
	users    int
	groups   int
}

func (f *fixture) ou(dn string) { f.add(dn, "objectClass", "organizationalUnit") }

// account returns a new sAMAccountName.
func (f *fixture) account() string {
	f.accounts++
	return fmt.Sprintf("acct%05d", f.accounts)
}

func (f *fixture) user(rdn, parent string, uac int, pairs ...string) string {
	dn := rdn + "," + parent
	f.users++
	f.add(dn, append([]string{"objectClass", "user", "sAMAccountName", f.account(), "userAccountControl", strconv.Itoa(uac)}, pairs...)...)
	return dn
}

func (f *fixture) group(rdn, parent string, kind int, pairs ...string) string {
	dn := rdn + "," + parent
	f.groups++
	f.add(dn, append([]string{"objectClass", "group", "sAMAccountName", f.account(), "groupType", strconv.Itoa(kind)}, pairs...)...)
	return dn
}

// unicodePwd returns a password as a value of unicodePwd (MS-ADTS 3.1.1.3.1.5.1).
func unicodePwd(password string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(`"` + password + `"`)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// fileTime returns a time in units of 100 ns since 1601.
func fileTime(t time.Time) string {
	const epoch = 11644473600 // seconds from 1601 to 1970
	return strconv.FormatInt((t.Unix()+epoch)*10_000_000+int64(t.Nanosecond()/100), 10)
}

// lockedDN, badPasswordDN and activeDN log on after the start of the server. The others are
// changed after the load.
const (
	lockedDN      = "CN=Locked Out," + peopleOU
	badPasswordDN = "CN=Bad Passwords," + peopleOU
	activeDN      = "CN=Active," + peopleOU
	oldPasswordDN = "CN=Password Of 2022," + peopleOU
)

// loadFixture adds all entries to the database of the stopped server in one transaction.
func (d *controller) loadFixture() error {
	f := &fixture{}
	for _, dn := range []string{"OU=Service," + baseDN, peopleOU, puneOU, kolnOU, tokyoOU, groupsOU, bulkOU, "OU=A," + bulkOU, "OU=B,OU=A," + bulkOU, otherOU} {
		f.ou(dn)
	}
	f.users++
	f.add(serviceDN, "objectClass", "user", "sAMAccountName", serviceAccount,
		"userAccountControl", strconv.Itoa(uacNormal|uacNeverExpires), "unicodePwd", unicodePwd(d.service.password))
	f.user("CN=Directly Under The Base", baseDN, uacPlain, "description", "no organizational unit")
	f.addLogonUsers(d.service.password)
	f.addStatuses(d.service.password)
	f.addNames()
	f.addAttributes()
	f.addOtherObjects()
	f.addGroups()
	f.addBulk()
	d.users, d.groups = f.users, f.groups

	if err := d.ldb("ldbadd", f.String(), "-o", "batch_mode:1"); err != nil {
		return err
	}
	// Samba's password_hash module refuses to set pwdLastSet in the past.
	var l ldif
	l.replace(oldPasswordDN, "pwdLastSet", fileTime(time.Date(2022, 2, 3, 4, 5, 6, 789_000_000, time.UTC)))
	if err := d.ldb("ldbmodify", l.String(), "--controls="+bypassPasswordHash); err != nil {
		return err
	}
	_, err := d.sambaTool("domain", "passwordsettings", "set",
		"--account-lockout-threshold="+strconv.Itoa(lockoutThreshold),
		"--account-lockout-duration=30", "--reset-account-lockout-after=30")
	return err
}

// ldb runs one of ldb-tools on the database, with an LDIF file. It checks the number of records
// in the output, because the tools exit with 0 even if they stop early.
func (d *controller) ldb(tool, text string, options ...string) error {
	file := filepath.Join(filepath.Dir(d.dir), tool+".ldif")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	out, err := d.runChange("", tool, append(append(options, d.database()...), file)...)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("ed %d records successfully", strings.Count(text, "\ndn:")+1); !strings.Contains(out, want) {
		return fmt.Errorf("%s: %s", tool, strings.TrimSpace(out))
	}
	return nil
}

// addLogonUsers adds users with passwords, for logOn.
func (f *fixture) addLogonUsers(password string) {
	for _, dn := range []string{lockedDN, badPasswordDN, activeDN} {
		f.user(strings.TrimSuffix(dn, ","+peopleOU), peopleOU, uacNormal, "unicodePwd", unicodePwd(password))
	}
}

// logOn makes successful and failed logons, so that the server maintains the counters and times.
func (d *controller) logOn() error {
	wrong, err := newCredentials(filepath.Dir(d.dir), "", "wrong.password")
	if err != nil {
		return err
	}
	fail := func(dn string, times int) error {
		for range times {
			if d.bind(dn, wrong.file) == nil {
				return fmt.Errorf("%s: wrong password accepted", dn)
			}
		}
		return nil
	}
	return errors.Join(
		fail(lockedDN, lockoutThreshold),
		fail(badPasswordDN, 2),
		fail(activeDN, 1),
		d.bind(activeDN, d.service.file), // lastLogon only changes on a success after a failure
	)
}

// addStatuses adds users for every status, and for odd values of the attributes that it depends
// on.
func (f *fixture) addStatuses(password string) {
	const never = "9223372036854775807"
	var (
		pwd    = unicodePwd(password)
		past   = fileTime(time.Now().Add(-36 * time.Hour))
		future = fileTime(time.Now().AddDate(1, 0, 0))
	)
	f.user("CN=Disabled", peopleOU, uacPlainDisabled)
	f.user("CN=Disabled And Expired", peopleOU, uacPlainDisabled, "accountExpires", past)
	f.user("CN=Expired", peopleOU, uacPlain, "accountExpires", past)
	f.user("CN=Expired In 1601", peopleOU, uacPlain, "accountExpires", "1234")
	f.user("CN=Expires In Future", peopleOU, uacPlain, "accountExpires", future)
	f.user("CN=Never Expires 0", peopleOU, uacPlain, "accountExpires", "0")
	f.user("CN=Never Expires Max", peopleOU, uacPlain, "accountExpires", never)
	f.user("CN=Must Change Password", peopleOU, uacNormal, "unicodePwd", pwd, "pwdLastSet", "0")
	f.user("CN=Must Change Password And Expired", peopleOU, uacNormal, "unicodePwd", pwd, "pwdLastSet", "0", "accountExpires", past)
	f.user("CN=Password Set", peopleOU, uacNormal, "unicodePwd", pwd)
	f.user(strings.TrimSuffix(oldPasswordDN, ","+peopleOU), peopleOU, uacNormal, "unicodePwd", pwd)
	f.user("CN=No Password", peopleOU, uacNormal|uacNoPassword)
	f.user("CN=Smart Card", peopleOU, uacPlain|uacSmartcard)
	f.user("CN=Lock Long Ended", peopleOU, uacPlain, "lockoutTime", "131000000000000000", "badPwdCount", "7")
	f.user("CN=Locked And Expired", peopleOU, uacPlain, "lockoutTime", fileTime(time.Now()), "accountExpires", past)
	f.user("CN=Locked By Value", peopleOU, uacPlain, "lockoutTime", fileTime(time.Now()))
	f.user("CN=Last Logon", peopleOU, uacPlain, "lastLogon", "134398102111432009", "badPasswordTime", "134398102119999999", "badPwdCount", "3")
	f.user("CN=Last Logon Whole Second", peopleOU, uacPlain, "lastLogon", "134398102110000000")
	f.user("CN=Large Count", peopleOU, uacPlain, "badPwdCount", "2147483647")
}

// addNames adds users with names in many scripts and with characters that need escapes.
func (f *fixture) addNames() {
	for _, name := range []string{
		"Кириллица Ёжик", "Ελληνικά Ωμέγα", "العربية محمد", "עברית שלום", "हिन्दी अमृता", "தமிழ் கலை", "ไทย สมชาย",
		"中文 张伟", "日本語 さくら", "한국어 김민수", "ქართული ნინო", "አማርኛ ሰላም", "Tiếng Việt Nguyễn", "Türkçe Iıİi", "Straße Weiß",
		"Composed José", "Decomposed Jose\u0301", "Emoji 👩‍🚀🇮🇳", "Ligature ﬁ", "Kelvin \u212A", "Zero\u200d Width", "No\u00a0Break Space", "Plane 2 𠮷野家",
		"Flipped \u202eabc\u202c",
	} {
		given, sn, _ := strings.Cut(name, " ")
		f.user("CN="+name, tokyoOU, uacPlain, "givenName", given, "sn", sn, "displayName", name, "title", name+" – "+name)
	}
	for _, rdn := range []string{
		`CN=Comma\, Carla`, `CN=Plus \+ Paul`, `CN=Quote \"Q\" Quinn`, `CN=Back\\slash`, `CN=\<Angle\>`, `CN=Semi\; Colon`,
		`CN=\#Hash First`, `CN=Equals \= Sign`, `CN=Ampersand & Co`, `CN=Slash/Both\\Ways`, `CN=Apostrophe O'Brien`, `CN=Percent 100% {x} $HOME`,
		`CN=Star (*) Paren`, `CN=\ Leading Space`, `CN=Trailing Space\ `, `CN=Two  Inside`,
	} {
		f.user(rdn, kolnOU, uacPlain, "mail", "odd@corp.example.com")
	}
	f.user("CN="+strings.Repeat("n", 64), kolnOU, uacPlain) // the maximum length of a name
}

// addAttributes adds users with all, single and odd values of the mapped attributes.
func (f *fixture) addAttributes() {
	f.user("CN=Everything", puneOU, uacPlain,
		"mail", "everything@corp.example.com", "givenName", "Every", "sn", "Thing", "displayName", "Every Thing", "mobile", "+91 20 5550 100",
		"title", "Engineer", "l", "Pune", "co", "India", "c", "IN", "streetAddress", "1 Main Road\r\nBlock B\r\n411001", "st", "MH",
		"telephoneNumber", "+91 20 5550 999", "postalCode", "411001", "info", "not mapped", "department", "Sales", "manager", activeDN)
	f.user("CN=Only Country Code", puneOU, uacPlain, "c", "DE")
	f.user("CN=Only Country Name", puneOU, uacPlain, "co", "Côte d'Ivoire")
	f.user("CN=Country Name And Code", puneOU, uacPlain, "co", "Deutschland", "c", "DE")
	f.user("CN=Only City", puneOU, uacPlain, "l", "Zürich")
	f.user("CN=Only State", puneOU, uacPlain, "st", "MH")
	f.user("CN=Only Street", puneOU, uacPlain, "streetAddress", "first line\nsecond line\n\n\tfourth line \"quoted\" \\ <tag> &amp;")
	f.user("CN=Untrimmed", puneOU, uacPlain, "displayName", "  both sides  ", "title", " ", "mail", " x@corp.example.com ", "sn", "\ttabs\t")
	f.user("CN=Control Characters", puneOU, uacPlain, "title", "a\x01b\x1fc\x7fd", "displayName", "line\u2028paragraph\u2029end")
	f.user("CN=Looks Like JSON", puneOU, uacPlain, "title", `{"status":"DELETED"}`, "displayName", `\u0041\n`, "mobile", "null")
	f.user("CN=Long Values", puneOU, uacPlain, "streetAddress", strings.Repeat("長い道 ", 250), "displayName", strings.Repeat("é", 256))
	f.user("CN=Name Differs", puneOU, uacPlain, "displayName", "Another Name", "givenName", "First", "sn", "Last")
	f.users++
	f.add("CN=Internet Person,"+puneOU, "objectClass", "inetOrgPerson", "sAMAccountName", f.account(),
		"userAccountControl", strconv.Itoa(uacPlain), "mail", "inet@corp.example.com")
	f.users++
	f.add("CN=Unicode Account,"+puneOU, "objectClass", "user", "sAMAccountName", "kovács.ünïcode",
		"userAccountControl", strconv.Itoa(uacPlain), "userPrincipalName", "kovács@corp.example.com")
}

// addOtherObjects adds objects that are not sent, and one user among them.
func (f *fixture) addOtherObjects() {
	f.add("CN=Contact,"+otherOU, "objectClass", "contact", "mail", "contact@example.com", "displayName", "Contact", "l", "Pune")
	for _, name := range []string{"PC1", "PC2"} {
		f.add("CN="+name+","+otherOU, "objectClass", "computer", "sAMAccountName", name+"$", "userAccountControl", "4096")
	}
	f.add("CN=msa,"+otherOU, "objectClass", "msDS-ManagedServiceAccount", "sAMAccountName", "msa$", "userAccountControl", "4096")
	f.add("CN=gmsa,"+otherOU, "objectClass", "msDS-GroupManagedServiceAccount", "sAMAccountName", "gmsa$",
		"userAccountControl", "4096", "msDS-ManagedPasswordInterval", "30")
	f.add("CN=Printer,"+otherOU, "objectClass", "printQueue", "uNCName", `\\pc1\p`, "versionNumber", "1",
		"serverName", "pc1", "printerName", "p", "shortServerName", "pc1")
	f.user("CN=User Among Others", otherOU, uacPlain, "l", "Pune")
}

// addGroups adds groups of every type, and with odd attributes.
func (f *fixture) addGroups() {
	for _, scope := range []struct {
		name string
		bit  int
	}{{"Global", groupGlobal}, {"Domain Local", groupDomainLocal}, {"Universal", groupUniversal}} {
		f.group("CN="+scope.name+" Security", groupsOU, groupSecurity|scope.bit, "description", scope.name+" security", "displayName", scope.name)
		f.group("CN="+scope.name+" Distribution", groupsOU, scope.bit, "description", scope.name+" distribution", "mail", "list@corp.example.com")
	}
	members := []string{activeDN, "CN=Everything," + puneOU}
	inner := f.group("CN=With Members", groupsOU, groupSecurity|groupGlobal, "member", members[0], "member", members[1])
	f.group("CN=Nested", groupsOU, groupSecurity|groupGlobal, "member", inner)
	f.group("CN=No Description", groupsOU, groupSecurity|groupGlobal)
	f.group("CN=Long Description", groupsOU, groupSecurity|groupGlobal, "description", strings.Repeat("Beschreibung · ", 68))
	f.group("CN=Lines", groupsOU, groupSecurity|groupUniversal, "description", "one\r\ntwo\n\nfour\t")
	f.group("CN=Blank Description", groupsOU, groupSecurity|groupUniversal, "description", " ")
	f.group("CN=Группа 团队 👥", groupsOU, groupSecurity|groupDomainLocal, "description", "مجموعة", "displayName", "👥")
	f.group(`CN=R&D \"Core\"\, Pune \+ Köln`, groupsOU, groupUniversal)
	f.group(`CN=\ Spaces `+`\ `, groupsOU, groupGlobal)
	f.group("CN=Group Among People", puneOU, groupSecurity|groupGlobal)
}

// addBulk adds more users and groups than fit in a page. Their attributes differ by index.
func (f *fixture) addBulk() {
	parents := []string{bulkOU, "OU=A," + bulkOU, "OU=B,OU=A," + bulkOU}
	for i := range bulkUsers {
		name := fmt.Sprintf("Bulk %05d", i)
		uac, pairs := uacPlain, []string{"givenName", fmt.Sprintf("Given%d", i), "sn", fmt.Sprintf("Family%d", i), "displayName", name}
		switch i % 5 {
		case 1:
			uac = uacPlainDisabled
		case 2:
			pairs = append(pairs, "mail", fmt.Sprintf("bulk%d@corp.example.com", i), "title", "Engineer", "mobile", fmt.Sprintf("+1 555 %05d", i))
		case 3:
			pairs = append(pairs, "l", "Pune", "co", "India", "c", "IN", "st", "MH", "streetAddress", fmt.Sprintf("%d Main Road\r\nPune", i))
		case 4:
			pairs = append(pairs, "accountExpires", fileTime(time.Now().AddDate(0, 0, 1+i%700)))
		}
		f.user("CN="+name, parents[i%len(parents)], uac, pairs...)
	}
	for i := range bulkGroups {
		name := fmt.Sprintf("Bulk Group %04d", i)
		kinds := []int{groupSecurity | groupGlobal, groupSecurity | groupDomainLocal, groupSecurity | groupUniversal, groupGlobal, groupDomainLocal, groupUniversal}
		f.group("CN="+name, parents[i%len(parents)], kinds[i%len(kinds)], "description", name)
	}
}
