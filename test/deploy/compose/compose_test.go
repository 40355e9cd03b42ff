package compose

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/pkg/kvfile"
)

// TestMain teaches the library what docker compose teaches it: the format raw.
func TestMain(m *testing.M) {
	dotenv.RegisterFormat("raw", func(r io.Reader, _ string, vars map[string]string, lookUp func(string) (string, bool)) error {
		lines, err := kvfile.ParseFromReader(r, lookUp)
		for _, line := range lines {
			key, value, _ := strings.Cut(line, "=")
			vars[key] = value
		}
		return err
	})
	os.Exit(m.Run())
}

// load is `docker compose config` in a directory with an env file.
func load(t *testing.T, envFile string, profiles ...string) *types.Project {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ad.env"), []byte(envFile), 0o600); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("../../../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{path}, cli.WithProfiles(profiles), cli.WithInterpolation(true), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// TestConnector: the connector is locked in, keeps its state, and takes its
// settings as they stand.
func TestConnector(t *testing.T) {
	const odd = `service.cron-expression=0 0/10 * * * *
ldap.bindDn=CN="a b",DC=x # $HOME ${HOME} 'c'
`
	project := load(t, odd)
	if names := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(names, []string{"connector"}) {
		t.Errorf("services %v", names)
	}
	c := project.Services["connector"]
	for key, want := range map[string]string{
		"service.cron-expression":   "0 0/10 * * * *",
		"ldap.bindDn":               `CN="a b",DC=x # $HOME ${HOME} 'c'`,
		"qualys.user.password.file": "/run/secrets/qualys-password",
	} {
		if got := c.Environment[key]; got == nil || *got != want {
			t.Errorf("%s: %v, want %q", key, got, want)
		}
	}
	if c.Restart != "unless-stopped" {
		t.Errorf("restart %q", c.Restart)
	}
	if len(c.Volumes) != 1 || c.Volumes[0].Type != "volume" || c.Volumes[0].Source != "state" || c.Volumes[0].Target != "/var/lib/adconnector" {
		t.Errorf("volumes %+v", c.Volumes)
	}
	if len(c.Secrets) != 1 || project.Secrets[c.Secrets[0].Source].File == "" || "/run/secrets/"+c.Secrets[0].Source != *c.Environment["qualys.user.password.file"] {
		t.Errorf("secrets %+v", c.Secrets)
	}
	if c.HealthCheck == nil || !slices.Equal(c.HealthCheck.Test, []string{"CMD", "adconnector", "healthcheck"}) {
		t.Errorf("healthcheck %+v", c.HealthCheck)
	}
	expectLockedIn(t, c)
}

// TestDemo: a sandbox, and a connector that starts once the sandbox answers, on
// loopback and with the same files.
func TestDemo(t *testing.T) {
	project := load(t, "", "demo")
	sandbox, demo := project.Services["sandbox"], project.Services["demo"]
	const env = "/var/lib/adconnector/sandbox.env"
	if !slices.Equal(sandbox.Command, []string{"sandbox", "--env-out", env}) || !slices.Equal(demo.Command, []string{"run", "--env-file", env}) {
		t.Errorf("commands %q, %q", sandbox.Command, demo.Command)
	}
	if d := demo.DependsOn["sandbox"]; d.Condition != types.ServiceConditionHealthy || !slices.Contains(sandbox.HealthCheck.Test, env) || !slices.Contains(demo.HealthCheck.Test, env) {
		t.Errorf("depends on %+v, %v, %v", d, sandbox.HealthCheck.Test, demo.HealthCheck.Test)
	}
	for _, s := range []types.ServiceConfig{sandbox, demo} {
		if s.NetworkMode != "host" || len(s.Volumes) != 1 || s.Volumes[0].Source != "demo" || s.Volumes[0].Target != "/var/lib/adconnector" {
			t.Errorf("%s: network %q, volumes %+v", s.Name, s.NetworkMode, s.Volumes)
		}
		expectLockedIn(t, s)
	}
}

func expectLockedIn(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	if !s.ReadOnly || s.Privileged || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 ||
		!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || len(s.Tmpfs) != 1 || s.MemLimit == 0 || s.PidsLimit == 0 || s.User != "" || len(s.Ports) > 0 {
		t.Errorf("%s is not locked in: %+v", s.Name, s)
	}
	if grace := s.StopGracePeriod; grace == nil || time.Duration(*grace) <= 30*time.Second {
		t.Errorf("%s is killed after %v", s.Name, grace)
	}
}
