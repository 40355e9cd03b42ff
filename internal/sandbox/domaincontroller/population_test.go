package domaincontroller

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"adconnector/internal/ad"
)

// TestPopulation: a small directory contains all kinds of objects and account states.
func TestPopulation(t *testing.T) {
	t.Parallel()
	d := New(Options{Users: 40, Groups: 12, Now: func() time.Time { return testNow }})
	seen := map[string]bool{}
	accounts, names := map[string]bool{}, map[string]bool{}
	users, groups := 0, 0
	for _, o := range d.Objects() {
		if names[strings.ToLower(o.DN)] {
			t.Errorf("duplicate DN %s", o.DN)
		}
		names[strings.ToLower(o.DN)] = true
		for name, values := range o.Attributes {
			for _, value := range values {
				if attribute := attributeByName(name); attribute.Syntax == syntaxText && !utf8.ValidString(value) || value == "" {
					t.Errorf("%s: invalid %s %q", o.DN, name, value)
				}
			}
		}
		if account := strings.ToLower(o.First("sAMAccountName")); account != "" {
			if accounts[account] {
				t.Errorf("duplicate account %s", account)
			}
			accounts[account] = true
		}
		classes := o.Attributes["objectClass"]
		seen["class "+classes[len(classes)-1]] = true
		switch o.First("sAMAccountType") {
		case samUser:
			users++
			control, _ := ad.ParseAccountControl([]byte(o.First("userAccountControl")))
			computed, _ := ad.ParseAccountControl([]byte(o.First("msDS-User-Account-Control-Computed")))
			expires, _ := ad.ParseFileTime([]byte(o.First("accountExpires")))
			seen["disabled"] = seen["disabled"] || control&ad.AccountDisabled != 0
			seen["locked"] = seen["locked"] || computed&ad.AccountLocked != 0
			seen["password expired"] = seen["password expired"] || computed&ad.AccountPasswordExpired != 0
			seen["password never expires"] = seen["password never expires"] || control&ad.AccountPasswordNeverExpires != 0
			seen["was locked"] = seen["was locked"] || o.First("lockoutTime") != "" && computed&ad.AccountLocked == 0
			seen["must change"] = seen["must change"] || o.First("pwdLastSet") == "0"
			seen["expired"] = seen["expired"] || !expires.IsNone() && expires.Time().Before(testNow)
			seen["expires"] = seen["expires"] || !expires.IsNone() && expires.Time().After(testNow)
			for script, table := range unicode.Scripts {
				if strings.ContainsFunc(o.First("sn")+o.First("givenName"), func(r rune) bool { return unicode.Is(table, r) }) {
					seen["script "+script] = true
				}
			}
			if mail := o.First("mail"); strings.ContainsFunc(mail, func(r rune) bool { return r > unicode.MaxASCII || r == ' ' }) {
				t.Errorf("invalid address %q", mail)
			}
		case "", samMachine:
		default:
			groups++
			seen["group type "+o.First("groupType")] = true
			seen["members"] = seen["members"] || len(o.Attributes["member"]) > 0
		}
	}
	for _, want := range []string{
		"disabled", "locked", "was locked", "password expired", "password never expires", "must change", "expired", "expires", "members",
		"class contact", "class computer", "class msDS-GroupManagedServiceAccount", "class user", "class group", "class organizationalUnit",
		"group type -2147483646", "group type -2147483644", "group type -2147483640", "group type 2", "group type 4", "group type 8", "group type -2147483643",
		"script Latin", "script Greek", "script Cyrillic", "script Arabic", "script Hebrew", "script Han", "script Hangul", "script Devanagari",
	} {
		if !seen[want] {
			t.Errorf("no object with: %s", want)
		}
	}
	if users != 44 || groups != 12+len(loadSchema().BuiltinGroups)+len(loadSchema().DomainGroups) {
		t.Errorf("%d users, %d groups", users, groups)
	}
}

// BenchmarkNew generates 100,000 users.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New(Options{Users: 100_000, Groups: 2_000})
	}
}
