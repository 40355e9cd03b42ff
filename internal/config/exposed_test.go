package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adconnector/internal/input"
)

func TestExposure(t *testing.T) {
	for name, c := range map[string]struct {
		mode        fs.FileMode
		owner, user uint32
		reason      string // contained in it; "": none
		remedy      string
	}{
		"only the owner":               {0o600, 1, 1, "", ""},
		"read only":                    {0o400, 1, 1, "", ""},
		"world":                        {0o644, 1, 1, "mode 0644, so that every user", "chmod 600 f"},
		"world, without the group":     {0o604, 1, 1, "every user", "chmod 600 f"},
		"world, of root":               {0o444, 0, 65532, "every user", "let only the user of this process read it: mode 0600, or 0440 with a group of its own: f"},
		"world, seen by root":          {0o644, 1, 0, "every user", "chmod 600 f"},
		"group":                        {0o640, 1, 1, "its group", "chmod 600 f"},
		"access through the group":     {0o440, 0, 65532, "", ""},
		"group can write only":         {0o620, 1, 1, "", ""},
		"a pipe, readable by everyone": {fs.ModeNamedPipe | 0o644, 1, 1, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			found := exposure("f", c.mode, c.owner, c.user)
			switch {
			case c.reason == "":
				if found != nil {
					t.Errorf("%v", found)
				}
			case found == nil || !strings.Contains(found.Error(), c.reason) || found.Remedy() != c.remedy:
				t.Errorf("%v", found)
			}
		})
	}
}

// TestReportExposed tests which files are examined: env files with secrets, and files of secrets,
// each once.
func TestReportExposed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // regardless of the umask
			t.Fatal(err)
		}
		return path
	}
	password := write("password", "hush", 0o644)
	files := []string{
		write("plain.env", "ldap.host=dc1.corp.example.com\nldap.password.file="+password+"\n", 0o644),
		write("secret.env", "qualys.user.password=hush\n", 0o644),
		write("private.env", "oauth.client.secret=hush\n", 0o600),
		write("empty.env", "proxy.password=\n", 0o644),
	}
	var places []string
	_, err := Load(Source{EnvFiles: append(files, files[1]), Exposed: func(f input.Finding) { places = append(places, f.Name) }})
	want := []string{"env file " + files[1], "ldap.password.file (" + files[0] + " line 2)"}
	if err == nil || strings.Join(places, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", places, want)
	}
}
