package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/input"
)

func TestRereadSecretFiles(t *testing.T) {
	t.Parallel()
	names := map[string]string{"qualys.user.password": "QUALYS_USER_PASSWORD_FILE", "proxy.password": "proxy.password.file", "ldap.password": "ldap.password.file"}
	paths := map[string]string{}
	environ := with(complete, "qualys.user.password=", "proxy.enabled=true", "proxy.host=proxy", "proxy.port=3128", "proxy.username=me",
		"ldap.host=dc1", "ldap.bindDn=CN=svc", "profile.baseContext=DC=corp")
	for key, spelling := range names {
		paths[key] = writeFile(t, key, "old\n")
		environ = append(environ, spelling+"="+paths[key])
	}
	c := requireLoad(t, environ)
	secrets := map[string]func() string{
		"qualys.user.password": c.Gateway.Login.Password.Reveal, "proxy.password": c.Gateway.Proxy.Password.Reveal, "ldap.password": c.Run.Source.Directory.Password.Reveal,
	}
	if len(c.Secrets) != len(names) {
		t.Fatalf("%d files", len(c.Secrets))
	}
	for _, f := range c.Secrets {
		t.Run(f.Key, func(t *testing.T) {
			if !strings.HasPrefix(f.Place, names[f.Key]) {
				t.Errorf("place %s", f.Place)
			}
			for _, step := range []struct {
				name, content string // content "-": no file
				changed       bool
				want          string
				mistakes      []error
				cause         error
			}{
				{"unchanged", "old\n", false, "old", nil, nil},
				{"another line end", "old\r\n", false, "old", nil, nil},
				{"changed", "hush\n", true, "hush", nil, nil},
				{"empty", "", false, "hush", nil, errEmptySecret},
				{"only a line end", "\n", false, "hush", nil, errEmptySecret},
				{"UTF-16", "\xff\xfeh\x00u\x00", false, "hush", nil, errUTF16},
				{"placeholder", "<PASSWORD>", false, "hush", nil, errPlaceholder},
				{"missing", "-", false, "hush", nil, fs.ErrNotExist},
				{"back", "hush", false, "hush", nil, nil},
				{"with a mistake", "hush2 \n", true, "hush2 ", []error{input.EndsWithSpace}, nil},
				{"the same mistake again", "hush2 \n", false, "hush2 ", nil, nil},
			} {
				err := os.Remove(paths[f.Key])
				if step.content != "-" {
					err = os.WriteFile(paths[f.Key], []byte(step.content), 0o600)
				}
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				changed, mistakes, err := f.Reread()
				if changed != step.changed || secrets[f.Key]() != step.want || !slices.Equal(mistakes, step.mistakes) {
					t.Errorf("%s: changed %t, value %q, mistakes %v", step.name, changed, secrets[f.Key](), mistakes)
				}
				if step.cause == nil {
					if err != nil {
						t.Errorf("%s: %v", step.name, err)
					}
					continue
				}
				checkFaults(t, err, wantFault{f.Place, step.cause, ""})
				if text := err.Error(); strings.Contains(text, "hush") || strings.Contains(text, filepath.Dir(paths[f.Key])) {
					t.Errorf("%s: %s", step.name, text)
				}
			}
		})
	}
}

// TestSecretsWithoutFiles tests that only secrets from files are read again.
func TestSecretsWithoutFiles(t *testing.T) {
	t.Parallel()
	if c := requireLoad(t, complete); len(c.Secrets) != 0 {
		t.Errorf("%d files", len(c.Secrets))
	}
	path := writeFile(t, "secret", "hush")
	if c := requireLoad(t, with(complete, "oauth.client.secret.file="+path)); len(c.Secrets) != 0 {
		t.Error("a secret of the other authentication type is read again")
	}
}
