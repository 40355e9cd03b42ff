package config

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/input"
)

// loadMistakes returns the reported mistakes and the error of a configuration.
func loadMistakes(environ []string, files ...string) (mistakes []Mistake, err error) {
	_, err = Load(Source{Scheduled: true, Environ: environ, EnvFiles: files, Mistake: func(m Mistake) { mistakes = append(mistakes, m) }})
	return mistakes, err
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	source := with(complete, directorySettings...)
	proxy := append(with(complete, proxySettings...), "proxy.username=u", "proxy.password=hush")
	other := writeFile(t, "other", "hush")
	for _, c := range []struct {
		name    string
		environ []string
		key     string
		want    []error
	}{
		{"password in quotes", with(complete, `qualys.user.password="hush"`), "qualys.user.password", []error{input.InQuotes}},
		{"password in typographic quotes", with(source, "ldap.password=“hush”"), "ldap.password", []error{input.InQuotes}},
		{"password with a space", with(source, "ldap.password=hush "), "ldap.password", []error{input.EndsWithSpace}},
		{"password with CR", with(source, "ldap.password=hush\r"), "ldap.password", []error{input.EndsWithReturn}},
		{"password with a line feed", with(complete, "qualys.user.password=hush\n"), "qualys.user.password", []error{input.EndsWithFeed}},
		{"password with a comment", with(source, "ldap.password=hush # of svc"), "ldap.password", []error{input.HasComment}},
		{"percent-encoded password", with(source, "ldap.password=hush%40"), "ldap.password", []error{input.PercentEncoded}},
		{"variable", with(source, "ldap.password=${HUSH}"), "ldap.password", []error{input.Variable}},
		{"path instead of a secret", with(source, "ldap.password="+other), "ldap.password", []error{isFilePath}},
		{"proxy password", with(proxy, "proxy.password= hush"), "proxy.password", []error{input.BeginsWithSpace}},
		{"client secret", with(complete, append(oauth, "oauth.client.secret=hush ")...), "oauth.client.secret", []error{input.EndsWithSpace}},
		{"client ID", with(complete, append(oauth, "oauth.client.id='x'")...), "oauth.client.id", []error{input.InQuotes}},
		{"user name", with(complete, "qualys.user.username=quays_rb\u00a0"), "qualys.user.username", []error{input.EndsInvisibly}},
		{"bind DN in quotes", with(source, `ldap.bindDn="CN=svc,DC=corp"`), "ldap.bindDn", []error{input.InQuotes}},
		{"bind DN with CR", with(source, "ldap.bindDn=CN=svc,DC=corp\r"), "ldap.bindDn", []error{input.EndsWithReturn}},
		{"bind DN with a comma in the name", with(source, "ldap.bindDn=CN=Kov, Zoë,DC=corp"), "ldap.bindDn", []error{directory.CommaNotEscaped}},
		{"account with two backslashes", with(source, `ldap.bindDn=CORP\\svc`), "ldap.bindDn", []error{directory.DoubleBackslash}},
		{"account", with(source, `ldap.bindDn=CORP\svc`), "ldap.bindDn", nil},
		{"user principal name", with(source, "ldap.bindDn=svc@corp.example.com"), "ldap.bindDn", nil},
		{"base with a space", with(source, "profile.baseContext=DC=corp "), "profile.baseContext", []error{input.EndsWithSpace}},
		{"base of one component", with(source, "profile.baseContext=DC=corp.example.com"), "profile.baseContext", []error{directory.DomainInComponent}},
		{"URL with a path", with(complete, "connector.api.url=https://gateway.example.com/am"), "connector.api.url", []error{hasPath}},
		{"URL of the console", with(complete, "connector.api.url=https://qualysguard.qg1.apps.qualys.com"), "connector.api.url", []error{namesConsole}},
		{"connection UUID in the wrong key", with(complete, "qualys.profileUuid=6ec6ac85-0001-4002-8003-558f378caa2b"), "qualys.profileUuid", []error{sameUUID}},
		{"proxy neither on nor off", with(complete, "proxy.host=proxy", "proxy.port=3128"), "proxy.host", []error{noEffect}},
		{"proxy off", with(complete, "proxy.host=proxy", "proxy.enabled=false"), "proxy.host", nil},
		{"home directory", with(complete, "service.state-dir=~/adconnector"), "service.state-dir", []error{hasTilde}},
		{"variable in the path of a directory", with(complete, "service.state-dir=$HOME/adconnector"), "service.state-dir", []error{hasVariable}},
		{"variable of Windows", with(complete, "service.state-dir=%ProgramData%/adconnector"), "service.state-dir", []error{hasVariable}},
		{"relative path", with(complete, "service.state-dir=state"), "service.state-dir", []error{isRelative}},
		{"directory with a dollar sign", with(complete, "service.state-dir=/srv/a$b"), "service.state-dir", nil},
		{"URL with a slash", with(complete, "connector.api.url=https://gateway.example.com/"), "connector.api.url", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := loadMistakes(c.environ)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case len(c.want) == 0 && len(got) == 0:
			case len(got) != 1 || got[0].Key != c.key || got[0].Name != c.key+" (environment)" || !slices.Equal(got[0].Mistakes, c.want):
				t.Errorf("got %+v, want %v", got, c.want)
			}
		})
	}
}

// TestMistakeInFile tests that a secret's file is examined too, and that a fault elsewhere does
// not hide a mistake.
func TestMistakeInFile(t *testing.T) {
	t.Parallel()
	for content, want := range map[string][]error{
		"hush\r\n":     nil,
		"hush\n\n":     {input.EndsWithFeed},
		"\ufeffhush\n": {input.BeginsWithMark},
		"h\xfcsh":      {input.NotUTF8},
	} {
		got, err := loadMistakes(with(complete, "qualys.user.password=", "qualys.user.password.file="+writeFile(t, "secret", content), "log.level=loud"))
		checkFaults(t, err, wantFault{"log.level (environment)", errNotAllowed, "trace"})
		if len(got) != min(len(want), 1) || len(got) == 1 && (got[0].Name != "qualys.user.password.file (environment)" || !slices.Equal(got[0].Mistakes, want)) {
			t.Errorf("%q: %+v, want %v", content, got, want)
		}
	}
}

// TestNoMistakes tests that the documented files contain no probable mistakes.
func TestNoMistakes(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"../../testdata/documented-sample.env", "../../testdata/documented-table.env"} {
		if got, err := loadMistakes(nil, path); len(got) > 0 || err != nil {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
}

// TestServiceLinks checks that the variables that Kubernetes adds for services with the names ldap and
// service-http-proxy are no settings.
func TestServiceLinks(t *testing.T) {
	t.Parallel()
	links := []string{"LDAP_PORT=tcp://10.96.0.10:389", "LDAP_SERVICE_PORT=389", "LDAP_PORT_389_TCP=tcp://10.96.0.10:389", "SERVICE_HTTP_PROXY_PORT=udp://[fd00::1]:3128"}
	got, err := loadMistakes(with(complete, links...))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Key != "ldap.port" || got[0].Name != "LDAP_PORT (environment)" || got[1].Key != "proxy.port" || !slices.Equal(got[0].Mistakes, []error{linkMistake}) {
		t.Errorf("%+v", got)
	}
	if c := requireLoad(t, with(with(complete, directorySettings...), links...)); c.Run.Source.Directory.Port != 0 {
		t.Errorf("port %d", c.Run.Source.Directory.Port)
	}
	path := writeFile(t, "a.env", "LDAP_PORT=tcp://10.96.0.10:389\n") // written by somebody
	_, err = loadMistakes(with(complete, directorySettings...), path)
	checkFaults(t, err, wantFault{"LDAP_PORT (" + path + " line 1)", errNotAllowed, "a number from 1 to 65535"})
}

func TestRefusedMistakes(t *testing.T) {
	t.Parallel()
	source := with(complete, directorySettings...)
	const url = "connector.api.url (environment)"
	utf16Secret := writeFile(t, "secret", inUTF16("hush\n", true))
	for _, c := range []struct {
		name    string
		environ []string
		want    []wantFault
	}{
		{"two schemes", with(complete, "connector.api.url=https://https://gateway.example.com"), []wantFault{{url, errTwoSchemes, "https://HOST"}}},
		{"two different schemes", with(complete, "connector.api.url=https:http://gateway.example.com"), []wantFault{{url, errTwoSchemes, "https://HOST"}}},
		{"scheme twice in a token URL", with(complete, append(oauth, "oauth.token.url=https://https://login.example.com/token")...), []wantFault{{"oauth.token.url (environment)", errTwoSchemes, "https://HOST"}}},
		{"endpoint", with(complete, "connector.api.url=https://gateway.example.com/rest/2.0/am"), []wantFault{{url, errEndpoint, "https://HOST"}}},
		{"login endpoint", with(complete, "connector.api.url=https://gateway.example.com/auth"), []wantFault{{url, errEndpoint, "https://HOST"}}},
		{"URL with a line feed inside", with(complete, "connector.api.url=https://gateway\n.example.com"), []wantFault{{url, input.HasControl, "https://HOST"}}},
		{"URL with a comment", with(complete, "connector.api.url=https://gateway.example.com # of POD 1"), []wantFault{{url, input.HasComment, "scheme"}}},
		{"two hosts in a URL", with(complete, "connector.api.url=https://a.example.com,b.example.com"), []wantFault{{url, errNotURL, "https://HOST"}}},
		{"full-width colon", with(complete, "connector.api.url=https：//gateway.example.com"), []wantFault{{url, input.HasFullWidth, "https://HOST"}}},
		{"hosts with a semicolon", with(source, "ldap.host=dc1;dc2"), []wantFault{{"ldap.host (environment)", input.ErrSemicolon, "separated by commas"}}},
		{"IP address with a number above 255", with(source, "ldap.host=dc1,10.0.0.300"), []wantFault{{"ldap.host (environment)", input.ErrNotAddress, "IP address"}}},
		{"two dots in a URL", with(complete, "connector.api.url=https://gateway..example.com"), []wantFault{{url, errNotURL, "https://HOST"}}},
		{"base with a line feed", with(source, "profile.baseContext=DC=corp\n"), []wantFault{{"profile.baseContext (environment)", input.EndsWithFeed, "DC=corp"}}},
		{"base in quotes", with(source, `profile.baseContext="DC=corp"`), []wantFault{{"profile.baseContext (environment)", input.InQuotes, "without quotes"}}},
		{"base is a domain", with(source, "profile.baseContext=ad.example.org"), []wantFault{{"profile.baseContext (environment)", directory.ErrNotDN, "DC=ad,DC=example,DC=org"}}},
		{"UUID with dashes", with(complete, "qualys.profileUuid=a4ab0242–0001-4002-8003-f62c67a56093"), []wantFault{{"qualys.profileUuid (environment)", errNotUUID, "00000000-"}}},
		{"UUID in braces", with(complete, "qualys.profileUuid={A4AB0242-0001-4002-8003-f62c67a56093}"), []wantFault{{"qualys.profileUuid (environment)", errNotUUID, "here a4ab0242-0001-4002-8003-f62c67a56093"}}},
		{"UUID without hyphens", with(complete, "qualys.profileUuid=a4ab0242000140028003f62c67a56093"), []wantFault{{"qualys.profileUuid (environment)", errNotUUID, "here a4ab0242-0001-4002-8003-f62c67a56093"}}},
		{"UUID of the form", with(complete, "qualys.profileUuid=00000000-0000-0000-0000-000000000000"), []wantFault{{"qualys.profileUuid (environment)", errNilUUID, "in the console"}}},
		{"certificate in the home directory", with(complete, "ldap.certificate=~/dc.cer"), []wantFault{{"ldap.certificate (environment)", hasTilde, "absolute path"}}},
		{"certificate below a variable", with(complete, "gateway.ca-file=${CERTS}/ca.pem"), []wantFault{{"gateway.ca-file (environment)", hasVariable, "value of the variable"}}},
		{"secret's file below a variable", with(complete, "qualys.user.password=", "qualys.user.password.file=$CREDENTIALS_DIRECTORY/hush"), []wantFault{{"qualys.user.password.file (environment)", hasVariable, "value of the variable"}}},
		{"URL without a scheme", with(complete, "connector.api.url=gateway.example.com"), []wantFault{{url, errNoScheme, "https://HOST"}}},
		{"number with a comment", with(complete, "thread-pool.size=10 # workers"), []wantFault{{"thread-pool.size (environment)", input.HasComment, "1 to 64"}}},
		{"client secret with a line feed", with(complete, append(oauth, "oauth.client.secret=hush\n")...), []wantFault{{"oauth.client.secret (environment)", input.EndsWithFeed, "one line"}}},
		{"client ID with CR", with(complete, append(oauth, "oauth.client.id=x\r")...), []wantFault{{"oauth.client.id (environment)", errNotInHeader, "one line"}}},
		{"colon in the proxy's user name", with(with(complete, proxySettings...), "proxy.username=u:hush", "proxy.password=hush"), []wantFault{{"proxy.username (environment)", errColonInName, "proxy.password"}}},
		{"secret's file in UTF-16", with(complete, "qualys.user.password=", "QUALYS_USER_PASSWORD_FILE="+utf16Secret), []wantFault{{"QUALYS_USER_PASSWORD_FILE (environment)", errUTF16, "UTF-8"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(c.environ)
			checkFaults(t, err, c.want...)
		})
	}
	_, err := load(with(complete, "qualys.profileUuid=a4ab0242–0001-4002-8003-f62c67a56093"))
	if !strings.Contains(err.Error(), `\u2013`) {
		t.Errorf("dash not visible: %v", err)
	}
	_, err = load(with(complete, append(oauth, "oauth.client.secret=hush\nhush")...))
	if n := strings.Count(err.Error(), "line break"); n != 1 || !errors.Is(err, input.HasControl) {
		t.Errorf("the line break is named %d times: %v", n, err)
	}
	// A token server takes the credentials in the body.
	if _, err := load(with(complete, append(oauth, "oauth.client.secret=hush\n", "oauth.token.url=https://login.example.com/token")...)); err != nil {
		t.Error(err)
	}
}

func TestDocumentWording(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"Identity with security posture": true, "Identities with security posture": true, "IDENTITY_WITH_SECURITY_POSTURE": true, "identities with security postures": true,
		"Identities Only": false, "Identity only": false,
	} {
		c := requireLoad(t, with(with(complete, directorySettings...), "profile.assets="+text))
		if c.Run.Source.Posture != want {
			t.Errorf("%s: %v", text, c.Run.Source.Posture)
		}
	}
	l := requireLoad(t, with(complete, append(oauth, "authentication.type=OAuth 2.0", "qualys.OAuthClientLevel=Subscription level")...)).Gateway.Login
	if l.ClientID == "" || !l.Subscription {
		t.Errorf("got %+v", l)
	}
}

// inUTF16 returns text in little-endian UTF-16.
func inUTF16(text string, mark bool) string {
	var encoded []byte
	if mark {
		encoded = []byte("\xff\xfe")
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		encoded = append(encoded, byte(unit), byte(unit>>8))
	}
	return string(encoded)
}

// TestWholeFile tests that a mistake in all lines of a file is one fault, without faults for the
// keys of these lines.
func TestWholeFile(t *testing.T) {
	t.Parallel()
	all := with(with(complete, directorySettings...), proxySettings...)
	lines := func(replace, by string) string {
		var text strings.Builder
		for _, pair := range all {
			text.WriteString(strings.Replace("\n"+pair, "\n"+replace, by, 1) + "\n")
		}
		return text.String()
	}
	each := func(separator string) string {
		var text strings.Builder
		for _, pair := range all {
			key, value, _ := strings.Cut(pair, "=")
			text.WriteString(key + separator + value + "\n")
		}
		return text.String()
	}
	plain := each("=")
	bigEndian := []byte(inUTF16(plain, true))
	for i := 0; i < len(bigEndian); i += 2 {
		bigEndian[i], bigEndian[i+1] = bigEndian[i+1], bigEndian[i]
	}
	for _, c := range []struct {
		name, content string
		whole         bool // the fault is of the file, not of its lines
		cause         error
	}{
		{"UTF-16 with a mark", inUTF16(plain, true), true, errUTF16},
		{"UTF-16 without a mark", inUTF16(plain, false), true, errUTF16},
		{"big-endian UTF-16", string(bigEndian), true, errUTF16},
		{"big-endian UTF-16 without a mark", string(bigEndian[2:]), true, errUTF16},
		{"binary file", "\x7fELF\x02\x01\x01\x00\x03" + plain, true, errBinary},
		{"CR as line end", strings.ReplaceAll(plain, "\n", "\r"), true, errLineEnds},
		{"export", lines("", "export "), false, errExport},
		{"set", lines("", "SET "), false, errExport},
		{"colon and space", each(": "), false, errColon},
		{"JSON", strings.ReplaceAll(each(`": "`), "\n", "\",\n"), false, errColon},
		{"colon", each(":"), false, errColon},
		{"spaces around =", each(" = "), false, errSpace},
		{"tab before =", each("\t="), false, errSpace},
		{"list of YAML", lines("", "- "), false, errKeySpace},
		{"quotes around the key", strings.ReplaceAll(each("\"=\""), "\n", "\"\n\""), false, errQuotedKey},
		{"quotes around the line", strings.ReplaceAll(each("="), "\n", "'\n'"), false, errQuotedKey},
		{"no-break space after the key", each("\u00a0="), false, errInvisible},
		{"byte order mark before the key", "#\n" + lines("", "\ufeff"), false, errInvisible},
		{"full-width equals sign", each("＝"), false, errFullWidth},
		{"full-width colon", each("："), false, errColon},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, "a.env", c.content)
			_, err := load(nil, path)
			object := path + " lines 1 to 14"
			switch {
			case c.name == "quotes around the line": // except around the first one
				object = path + " lines 2 to 14"
			case strings.HasPrefix(c.content, "#"):
				object = path + " lines 2 to 15"
			}
			if c.whole {
				object = "env file " + path
			}
			if !c.whole && len(fault.All(err)) != 1 { // a value can be such a key itself
				t.Fatal(err)
			}
			checkFaults(t, err, wantFault{object, c.cause, ""})
		})
	}
	// The settings that require ldap.host are no faults.
	path := writeFile(t, "host.env", strings.Replace(plain, "ldap.host=", "ldap.host = ", 1))
	_, err := load(nil, path)
	checkFaults(t, err, wantFault{path + " line 8", errSpace, "KEY=VALUE"})

	missing := filepath.Join(t.TempDir(), "missing.env")
	_, err = load(nil, missing)
	if all := fault.All(err); len(all) != 1 {
		t.Errorf("missing file: %v", err)
	}
	_, err = load(complete, "a.env,b.env")
	checkFaults(t, err, wantFault{"env file a.env,b.env", isList, "repeat --env-file"})
	_, err = load(complete, "")
	checkFaults(t, err, wantFault{"env file", errNoPath, "readable file"})
	_, err = load(nil, writeFile(t, "one.env", "connector.api.url = https://gateway.example.com\nqualys.profileUuid:hush\n"))
	if err == nil || len(fault.All(err)) != 6 || strings.Contains(err.Error(), "hush") {
		t.Errorf("keys of other lines must be missing: %v", err)
	}
}

// TestEmpty tests that only the absence of any setting is reported, not a file with faults.
func TestEmpty(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		environ []string
		file    string
		want    bool
	}{
		{"nothing", []string{"HOME=/root", "PATH=/bin"}, "", true},
		{"file without settings", nil, writeFile(t, "a.env", "# a comment\n"), true},
		{"setting in the environment", []string{"LOG_LEVEL=info"}, "", false},
		{"setting in a file", nil, writeFile(t, "a.env", "log.level=info\n"), false},
		{"unknown setting", nil, writeFile(t, "a.env", "ldap.hots=dc1\n"), false},
		{"line with a fault", nil, writeFile(t, "a.env", "export log.level=info\n"), false},
		{"missing file", nil, "/nowhere/at/all", false},
	} {
		var files []string
		if c.file != "" {
			files = []string{c.file}
		}
		got := false
		_, err := Load(Source{Environ: c.environ, EnvFiles: files, Flags: map[string]string{"log.level": "info"}, Unknown: func(Unknown) {}, Empty: func() { got = true }})
		if err == nil || got != c.want {
			t.Errorf("%s: %v, want %v (%v)", c.name, got, c.want, err)
		}
	}
}

// TestOverrides tests that a setting is reported if it replaces another one with a different value.
func TestOverrides(t *testing.T) {
	t.Parallel()
	one := writeFile(t, "one.env", "qualys.user.password=hush\nthread-pool.size=1\nldap.page-size=5\nlog.level=info\n")
	two := writeFile(t, "two.env", "\nQUALYS_USER_PASSWORD=hush hush\nthread-pool.size=2\nldap.page-size=5\nupload.batch-size=\n")
	var got []Override
	_, err := Load(Source{
		EnvFiles: []string{one, two}, Environ: with(complete, "qualys.user.password=", "THREAD_POOL_SIZE=3"), Flags: map[string]string{"log.level": "debug"},
		Override: func(o Override) { got = append(got, o) },
	})
	want := []Override{
		{"QUALYS_USER_PASSWORD (" + two + " line 2)", "qualys.user.password (" + one + " line 1)"},
		{"THREAD_POOL_SIZE (environment)", "thread-pool.size (" + two + " line 3)"},
		{"THREAD_POOL_SIZE (environment)", "thread-pool.size (" + one + " line 2)"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, want %q (%v)", got, want, err)
	}
}

// TestSeveralSettingsInLine tests that the keys of a line with several settings are not missing.
func TestSeveralSettingsInLine(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "a.env", strings.Join(complete, " ")+"\n")
	_, err := load(nil, path)
	checkFaults(t, err, wantFault{"connector.api.url (" + path + " line 1)", errTwoSettings, "each line"})
	requireLoad(t, complete, writeFile(t, "b.env", "gateway.source=a x=b\nother=a log.level=b\n"))
}

// TestFaultHidesMistake tests that one mistake in a value is not reported twice.
func TestFaultHidesMistake(t *testing.T) {
	t.Parallel()
	got, err := loadMistakes(with(complete, append(oauth, "oauth.client.secret=hush\n", "oauth.client.id= x")...))
	checkFaults(t, err, wantFault{"oauth.client.secret (environment)", errNotInHeader, "one line"})
	if len(got) != 1 || got[0].Key != "oauth.client.id" {
		t.Errorf("got %+v", got)
	}
}

// TestColonInEnvironment tests that a key that the environment has is no mistake.
func TestColonInEnvironment(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "a.env", "log.level:debug\n")
	if _, err := load(with(complete, "log.level:debug=x"), path); err != nil {
		t.Error(err)
	}
	_, err := load(complete, path)
	checkFaults(t, err, wantFault{path + " line 1", errColon, "KEY=VALUE"})
}

// TestUnknownKeyHidesValue tests that an unknown key is reported without what can be its value,
// and with its invisible characters.
func TestUnknownKeyHidesValue(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"qualys.user.pasword:hush=x":  "qualys.user.pasword",
		"qualys.user.pasword\"hush=x": "qualys.user.pasword",
		"qualys.customer\u00a0Uuid=x": `qualys.customer\u00a0Uuid`,
		"qualys.customer\u200bUuid=":  "",
	} {
		var got []Unknown
		_, err := Load(Source{Environ: complete, EnvFiles: []string{writeFile(t, "a.env", line)}, Unknown: func(u Unknown) { got = append(got, u) }})
		if err != nil {
			t.Fatal(err)
		}
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || got[0].Key != want || got[0].Nearest == "") {
			t.Errorf("%q: %+v, want %s", line, got, want)
		}
	}
}

func TestLineNumbers(t *testing.T) {
	t.Parallel()
	for want, numbers := range map[string][]int{
		"line 3": {3}, "lines 1 to 3": {1, 2, 3}, "lines 1, 3 to 4, 9": {1, 3, 4, 9}, "lines 1, 3, 5, 7, 9, 11, 13, 15, and more": {1, 3, 5, 7, 9, 11, 13, 15, 17},
	} {
		if got := lineNumbers(numbers); got != want {
			t.Errorf("%v: %s, want %s", numbers, got, want)
		}
	}
}
