package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key           string
		file, environ string // the most similar key; "": not reported; "?": reported with any key
	}{
		{"ldap.hots", "ldap.host", "ldap.host"},
		{"qualys.customeruuid", "qualys.customerUuid", "qualys.customerUuid"},
		{"qualys_customerUuid", "qualys.customerUuid", "qualys.customerUuid"},
		{"QUALYS_CUSTOMER_UUID", "QUALYS_CUSTOMERUUID", "QUALYS_CUSTOMERUUID"},
		{"QUALYS_USERNAME", "QUALYS_USER_USERNAME", "QUALYS_USER_USERNAME"},
		{"Service.Cron-Expression", "service.cron-expression", "service.cron-expression"},
		{"service.cron.expression", "service.cron-expression", "service.cron-expression"},
		{"service.cronExpression", "service.cron-expression", "service.cron-expression"},
		{"SERVICE_CRONEXPRESSION", "SERVICE_CRON_EXPRESSION", "SERVICE_CRON_EXPRESSION"},
		{"sync.max-delete", "sync.max-deletes", "sync.max-deletes"},
		{"sync.max-deltes", "sync.max-deletes", "sync.max-deletes"},
		{"threadpool.size", "thread-pool.size", "thread-pool.size"},
		{"THREAD_POOL_MAX", "THREAD_POOL_SIZE", ""},
		{"ldap.host.file", "ldap.host", "ldap.host"},
		{"oauth.client.secrets.file", "oauth.client.secret.file", "oauth.client.secret.file"},
		{"LDAP_PASSWD", "LDAP_PASSWORD", "LDAP_PASSWORD"},
		{"connector.url", "connector.api.url", "connector.api.url"},
		{"proxy.pass", "proxy.password", "proxy.password"}, {"proxy.user", "proxy.username", "proxy.username"},
		{"service.quite.another.matter", "?", "?"},

		// Variables of other programs.
		{"HTTP_PROXY", "", ""}, {"https_proxy", "", ""}, {"NO_PROXY", "", ""}, {"PATH", "", ""}, {"HOSTNAME", "", ""}, {"JAVA_OPTS", "", ""},
		{"SSL_CERT_FILE", "", ""}, {"spring.profiles.active", "", ""}, {"npm_config_registry", "", ""}, {"_", "", ""}, {"LS_COLORS", "", ""},
		{"LOG_DIR", "?", ""}, {"LOG_FILE", "?", ""}, {"PROXY_USER", "?", ""}, {"SERVICE_NAME", "?", ""}, {"CONNECTOR_HOME", "?", ""},
		{"LDAP_SERVICE_HOST", "?", ""}, {"LDAP_PORT_389_TCP", "?", ""}, {"GATEWAY_SERVICE_PORT", "?", ""}, {"SYNC_HOME", "?", ""},
	} {
		for place, want := range map[string]string{"file": c.file, "environment": c.environ} {
			var reported []Unknown
			src := Source{Unknown: func(u Unknown) { reported = append(reported, u) }}
			if place == "file" {
				src.EnvFiles = []string{writeFile(t, "a.env", c.key+"=hush\n"+c.key+"=hush\n")}
				place = src.EnvFiles[0] + " line 1"
			} else {
				src.Environ = []string{c.key + "=hush", c.key + "=hush"}
			}
			if _, err := Load(src); err == nil {
				t.Fatal("no fault, although all keys are missing")
			}
			switch {
			case want == "" && len(reported) > 0, want != "" && len(reported) != 1:
				t.Errorf("%s in %s: reported %+v, want %q", c.key, place, reported, want)
			case want != "" && want != "?" && reported[0] != Unknown{c.key, place, want}:
				t.Errorf("%s in %s: reported %+v, want %q", c.key, place, reported, want)
			}
			if strings.Contains(fmt.Sprint(reported), "hush") {
				t.Errorf("value in %+v", reported)
			}
		}
	}
}

// TestNothingUnknown tests that known keys and empty unknown keys are not reported.
func TestNothingUnknown(t *testing.T) {
	t.Parallel()
	for spelling := range spellings() {
		src := Source{Environ: []string{spelling + "=x", "ldap.hots="}, Unknown: func(u Unknown) { t.Errorf("reported %+v", u) }}
		_, _ = Load(src)
	}
	src := Source{EnvFiles: []string{"../../testdata/documented-sample.env", "../../testdata/documented-table.env", "../../sample.env"}, Unknown: func(u Unknown) { t.Errorf("reported %+v", u) }}
	_, _ = Load(src)
}

// An environment can have hundreds of variables of other programs, each of which is compared with
// every spelling.
func TestComparingUnknownKeysAllocatesLittle(t *testing.T) {
	mostSimilar("JAVA_OPTS") // normalizes the spellings
	if n := testing.AllocsPerRun(10, func() { mostSimilar("JAVA_OPTS") }); n >= float64(len(normalizedSpellings())) {
		t.Errorf("%v allocations for %d spellings", n, len(normalizedSpellings()))
	}
}
