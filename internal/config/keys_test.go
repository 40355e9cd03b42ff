package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/fault"
)

func TestSpellings(t *testing.T) {
	t.Parallel()
	for spelling, want := range map[string]keyReference{
		"service.cron-expression":    {name: "service.cron-expression"},
		"SERVICE_CRON_EXPRESSION":    {name: "service.cron-expression"},
		"QUALYS_CUSTOMERUUID":        {name: "qualys.customerUuid"},
		"service.child-thread-pool":  {name: "thread-pool.size"},
		"SERVICE_CHILD_THREAD_POOL":  {name: "thread-pool.size"},
		"QUALYS_OAUTHCLIENTLEVEL":    {name: "qualys.OAuthClientLevel"},
		"SERVICE_HTTP_PROXY_PORT":    {name: "proxy.port"},
		"qualys.user.password.file":  {name: "qualys.user.password", file: true},
		"QUALYS_USER_PASSWORD_FILE":  {name: "qualys.user.password", file: true},
		"QUALYS_CLIENTSECRET_FILE":   {name: "oauth.client.secret", file: true},
		"ldap.host.file":             {},
		"qualys.customeruuid":        {},
		"SERVICE.CRON-EXPRESSION":    {},
		"qualys_customerUuid":        {},
		"QUALYS_CUSTOMER_UUID":       {},
		"sync.max-deletes":           {name: "sync.max-deletes"},
		"SYNC_MAX_DELETES_PERCENT":   {name: "sync.max-deletes-percent"},
		"sync.max-delete":            {},
		"service.http.proxy.enabled": {name: "proxy.enabled"},
	} {
		if got := spellings()[spelling]; got != want {
			t.Errorf("%s: got %+v, want %+v", spelling, got, want)
		}
	}
}

func TestSpellingsDoNotCollide(t *testing.T) {
	t.Parallel()
	want := 0
	for _, k := range keys {
		spellings := 2 * (1 + len(k.Aliases))
		if k.Secret {
			spellings *= 2
		}
		want += spellings
	}
	if got := len(spellings()); got != want {
		t.Errorf("%d spellings, want %d", got, want)
	}
}

// TestKeysAreDescribed tests that each key has a meaning and exactly one of: when it is required, a
// default, what applies without it.
func TestKeysAreDescribed(t *testing.T) {
	t.Parallel()
	for _, k := range keys {
		given := slices.DeleteFunc([]string{k.Required, k.Default, k.Absent}, func(text string) bool { return text == "" })
		if len(given) != 1 || k.Meaning == "" {
			t.Errorf("%s: %q, meaning %q", k.Name, given, k.Meaning)
		}
	}
}

// TestAllowedValues tests that the allowed values of a key are those of its parser.
func TestAllowedValues(t *testing.T) {
	t.Parallel()
	limits := regexp.MustCompile(`^a (?:number|duration like .*,) from (\w+ to \w+)$`)
	checked := 0
	base := with(with(with(complete, directorySettings...), proxySettings...), oauth...)
	base = with(base, "proxy.username=u", "proxy.password=hush")
	for _, k := range keys {
		_, err := load(with(base, k.Name+"=?!"))
		if err == nil {
			continue // any text will do
		}
		allowed, found := strings.CutPrefix(fault.Remedy(err), "allowed: ")
		if !found {
			t.Errorf("%s: remedy without the allowed values: %v", k.Name, err)
		}
		words := []string{}
		if m := limits.FindStringSubmatch(allowed); m != nil {
			words = m[1:]
		} else if regexp.MustCompile(`^\w+(, \w+)+$`).MatchString(allowed) {
			words = strings.Split(allowed, ", ")
		}
		for _, word := range words {
			checked++
			if !strings.Contains(k.Allowed, word) {
				t.Errorf("%s: %q does not name %q", k.Name, k.Allowed, word)
			}
		}
	}
	if checked < 25 {
		t.Errorf("only %d words checked", checked)
	}
}

func TestSampleEnv(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../sample.env")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	placeholders := 0
	var replaced strings.Builder
	for line := range strings.SplitSeq(string(content), "\n") {
		m := regexp.MustCompile(`^(#?)([A-Za-z][A-Za-z0-9.-]*)=(.*)$`).FindStringSubmatch(line)
		if m == nil {
			if line != "" && !strings.HasPrefix(line, "# ") && line != "#" {
				t.Errorf("neither setting nor comment: %q", line)
			}
			continue
		}
		reference, known := spellings()[m[2]]
		if !known || reference.name != m[2] {
			t.Errorf("%q is not the name of a key", m[2])
			continue
		}
		shown[m[2]] = true
		key, isDefault := keyByName(m[2]), m[1] == "#" && !strings.Contains(m[3], "<") && m[2] != "authentication.type"
		if isDefault && m[3] != key.Default {
			t.Errorf("%s: default %q, want %q", m[2], m[3], key.Default)
		}
		if m[1] == "#" {
			continue
		}
		if strings.Contains(m[3], "<") {
			placeholders++
		}
		value := regexp.MustCompile(`<.*>`).ReplaceAllString(m[3], "gateway.example.com")
		if strings.HasSuffix(m[2], "Uuid") {
			value = "35664649-0001-4002-8003-0e54079e1ee9"
		}
		fmt.Fprintf(&replaced, "%s=%s\n", m[2], value)
	}
	for _, k := range keys {
		if !shown[k.Name] {
			t.Errorf("%s missing", k.Name)
		}
	}
	requireLoad(t, nil, writeFile(t, "sample.env", replaced.String()))

	_, err = load(nil, "../../sample.env")
	all := fault.All(err)
	if len(all) != placeholders || slices.ContainsFunc(all, func(err error) bool { return !errors.Is(err, errPlaceholder) }) {
		t.Errorf("want faults for %d placeholders only: %v", placeholders, err)
	}
}

// TestEveryKeyIsRead tests that Load reads every key.
func TestEveryKeyIsRead(t *testing.T) {
	t.Parallel()
	basic := with(with(with(complete, directorySettings...), proxySettings...), "proxy.username=u", "proxy.password=hush")
	for _, k := range keys {
		isRead := func(environ []string) bool {
			_, err := load(with(environ, k.Name+"=<REPLACE_ME>"))
			return slices.ContainsFunc(fault.All(err), func(err error) bool {
				failed, ok := errors.AsType[*fault.Error](err)
				return ok && failed.Object == k.Name+" (environment)" && errors.Is(err, errPlaceholder)
			})
		}
		if !isRead(basic) && !isRead(with(basic, oauth...)) {
			t.Errorf("%s is not read", k.Name)
		}
	}
}
