package syncrun

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/input"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/secret"
	"adconnector/test/faulttest"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// consoleDocuments returns a valid connection and profile.
func consoleDocuments() (gateway.Connection, gateway.Profile) {
	return gateway.Connection{Authentication: gateway.Authentication{Type: "LDAPS", Host: "dc1", BindDN: "CN=svc,DC=corp", Password: secret.New("hush")}},
		gateway.Profile{BaseContext: "DC=corp,DC=example,DC=com", SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"}
}

func TestConsoleHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string][]string{
		"dc1": {"dc1"}, "[::1]": {"::1"}, "[fd00::1], 10.0.0.5": {"fd00::1", "10.0.0.5"}, "dc1 dc2,\ndc3\n": {"dc1", "dc2", "dc3"}, "": nil,
	} {
		connection, _ := consoleDocuments()
		connection.Authentication.Host = host
		o, err := DirectoryOptions(connection)
		if err != nil || !slices.Equal(o.Hosts, want) {
			t.Errorf("%q: %q, %v", host, o.Hosts, err)
		}
	}
}

// TestConsoleValues tests the values that cannot work.
func TestConsoleValues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		change   func(*gateway.Authentication, *gateway.Profile)
		document string
		cause    error
		remedy   string
	}{
		{"host with a scheme", func(a *gateway.Authentication, _ *gateway.Profile) { a.Host = "ldap://dc1" }, "connection", input.ErrHostScheme, "without a scheme"},
		{"host with a port", func(a *gateway.Authentication, _ *gateway.Profile) { a.Host = "dc1:636" }, "connection", input.ErrHostPort, "its own field"},
		{"IPv6 with a port", func(a *gateway.Authentication, _ *gateway.Profile) { a.Host = "[::1]:389" }, "connection", input.ErrHostPort, "its own field"},
		{"hosts with a semicolon", func(a *gateway.Authentication, _ *gateway.Profile) { a.Host = "a;b" }, "connection", input.ErrSemicolon, "separated by commas"},
		{"host in quotes", func(a *gateway.Authentication, _ *gateway.Profile) { a.Host = `"dc1"` }, "connection", input.InQuotes, "a host name"},
		{"type", func(a *gateway.Authentication, _ *gateway.Profile) { a.Type = "TLS" }, "connection", input.ErrNotAllowed, "LDAP, LDAPS or STARTTLS"},
		{"scope", func(_ *gateway.Authentication, p *gateway.Profile) { p.SearchScope = "children" }, "profile", input.ErrNotAllowed, "SUBTREE, ONE_LEVEL or BASE"},
		{"assets", func(_ *gateway.Authentication, p *gateway.Profile) { p.Assets = "all" }, "profile", input.ErrNotAllowed, "IDENTITIES_ONLY or IDENTITIES_WITH_SECURITY_POSTURE"},
		{"base with a line feed", func(_ *gateway.Authentication, p *gateway.Profile) { p.BaseContext += "\n" }, "profile", input.EndsWithFeed, "a DN like"},
		{"base in quotes", func(_ *gateway.Authentication, p *gateway.Profile) { p.BaseContext = "“" + p.BaseContext + "”" }, "profile", input.InQuotes, "a DN like"},
		{"too many hosts", func(a *gateway.Authentication, _ *gateway.Profile) { a.Host = strings.Repeat("a,", maxHosts) + "b" }, "connection", errTooLong, "DNS domain"},
		{"long bind DN", func(a *gateway.Authentication, _ *gateway.Profile) { a.BindDN += strings.Repeat("a", maxNameSize) }, "connection", errTooLong, "bind DN"},
		{"long base", func(_ *gateway.Authentication, p *gateway.Profile) { p.BaseContext += strings.Repeat("a", maxNameSize) }, "profile", errTooLong, "base context"},
		{"base is a domain", func(_ *gateway.Authentication, p *gateway.Profile) { p.BaseContext = "ad.example.org" }, "profile", directory.ErrNotDN, "DC=ad,DC=example,DC=org"},
	} {
		t.Run(test.name, func(t *testing.T) {
			connection, profile := consoleDocuments()
			test.change(&connection.Authentication, &profile)
			_, err := sourceFromGateway(connection, profile)
			faulttest.Check(t, err, fault.Error{Class: fault.Refused, Object: test.document + " in the console"}, test.cause, "correct the ", test.remedy)
		})
	}
	for name, change := range map[string]func(*gateway.Authentication, *gateway.Profile){
		"bind DN":      func(a *gateway.Authentication, _ *gateway.Profile) { a.BindDN = "" },
		"password":     func(a *gateway.Authentication, _ *gateway.Profile) { a.Password = secret.Text{} },
		"base context": func(_ *gateway.Authentication, p *gateway.Profile) { p.BaseContext = "" },
	} {
		connection, profile := consoleDocuments()
		change(&connection.Authentication, &profile)
		if _, err := sourceFromGateway(connection, profile); !errors.Is(err, errEmpty) || fault.ClassOf(err) != fault.Refused || !strings.Contains(err.Error(), name) {
			t.Errorf("empty %s: %v", name, err)
		}
	}
}

func TestConsoleWording(t *testing.T) {
	t.Parallel()
	for assets, want := range map[string]bool{
		"Identity with security posture": true, "Identities with security posture": true, "IDENTITIES_WITH_SECURITY_POSTURE": true, "Identities\u00a0Only": false, "Identity only": false,
	} {
		connection, profile := consoleDocuments()
		profile.Assets, profile.SearchScope, connection.Authentication.Type = assets, "One Level\n", "Start TLS"
		source, err := sourceFromGateway(connection, profile)
		if err != nil || source.Posture != want || source.Scope != directory.OneLevel || source.Directory.Protocol != directory.StartTLS {
			t.Errorf("%q: %+v, %v", assets, source, err)
		}
	}
}

// TestWarnMistakes tests that mistakes are logged once until they change, without the values.
func TestWarnMistakes(t *testing.T) {
	t.Parallel()
	lines := &testlog.Log{}
	log := zerolog.New(lines)
	r := New(Options{})
	warn := func(bindDN, password, base string) []testlog.Line {
		before := len(lines.Lines())
		connection, profile := consoleDocuments()
		connection.Authentication.BindDN, connection.Authentication.Password, profile.BaseContext = bindDN, secret.New(password), base
		source, err := sourceFromGateway(connection, profile)
		if err != nil {
			t.Fatal(err)
		}
		r.warnMistakes(log, source)
		return lines.Lines()[before:]
	}
	const account, base = "CN=svc,DC=corp", "DC=corp"
	for n, step := range []struct {
		account, password, base string
		want                    []string // parts of the key fields
	}{
		{account, "hush", base, nil},
		{account, "hush ", base, []string{"password"}},
		{account, "hush ", base, nil},
		{account + "\r", `"hush"`, "DC=corp.example.com", []string{"bind DN", "password", "base context"}},
		{account, "hush", base, nil},
		{account, "hush ", base, []string{"password"}},
	} {
		got := warn(step.account, step.password, step.base)
		if len(got) != len(step.want) {
			t.Errorf("step %d: %v", n, got)
			continue
		}
		for i, line := range got {
			if err := testlog.CheckContent(line); err != nil {
				t.Errorf("step %d: %v", n, err)
			}
			if line.Text("message") != MsgMistake || !strings.HasPrefix(line.Text("key"), step.want[i]) || line.Text("reason") == "" || line.Text("remedy") == "" ||
				strings.Contains(line.Text("reason")+line.Text("remedy"), "hush") {
				t.Errorf("step %d: %v", n, line)
			}
		}
	}
}

// TestConsoleCertificate tests the certificate of the connection in the console.
func TestConsoleCertificate(t *testing.T) {
	t.Parallel()
	readable := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: testenv.NewDirectory(t, domaincontroller.Options{}).Certificate().Raw})
	unreadable, err := os.ReadFile("../directory/testdata/certificates/brainpool.pem")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text, mistake, cause string
	}{
		"readable":               {text: string(readable)},
		"readable and a root":    {text: string(readable) + string(unreadable), mistake: "CN=Brainpool Root"},
		"unreadable root only":   {text: string(unreadable), cause: "CN=Brainpool Root"},
		"path instead of a text": {text: "/etc/ssl/ca.pem", cause: directory.ErrCertificatePath.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			connection, profile := consoleDocuments()
			connection.Authentication.Certificate = c.text
			source, err := sourceFromGateway(connection, profile)
			if c.cause != "" {
				if fault.ClassOf(err) != fault.Refused || !strings.Contains(err.Error(), c.cause) || !strings.Contains(fault.Remedy(err), "certificate") {
					t.Errorf("error %v, remedy %s", err, fault.Remedy(err))
				}
				return
			}
			if err != nil || len(source.Directory.Certificates) != 1 {
				t.Fatalf("%d certificates, error %v", len(source.Directory.Certificates), err)
			}
			if found := fmt.Sprint(ConsoleMistakes(source)); strings.Contains(found, "certificate of the connection") != (c.mistake != "") || !strings.Contains(found, c.mistake) {
				t.Errorf("mistakes %s", found)
			}
		})
	}
}
