package compose

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/pkg/kvfile"

	"adconnector/internal/config"
)

// TestMain registers the env file format raw, as docker compose does.
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

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// load returns what `docker compose config` shows in a directory with this ad.env.
func load(t *testing.T, envFile string, profiles ...string) *types.Project {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ad.env"), []byte(envFile), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(path, []byte(read(t, "../../../deploy/compose.yaml")), 0o600); err != nil {
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

// TestConnector checks that the connector is hardened, has a volume for its state, and gets its
// settings unchanged.
func TestConnector(t *testing.T) {
	const envFile = `service.cron-expression=0 0/10 * * * *
ldap.bindDn=CN="a b",DC=x # $HOME ${HOME} 'c'
`
	project := load(t, envFile)
	if names := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(names, []string{"connector"}) {
		t.Errorf("services %v, want connector only", names)
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
	if c.Hostname != c.Name {
		t.Errorf("hostname %q: the admin endpoint does not answer as %s", c.Hostname, c.Name)
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
	checkHardened(t, c)
}

// instructionsEnv returns the env file that results from the instructions at the top of
// deploy/compose.yaml. It runs their commands on sample.env, up to the command that creates
// the password file, and replaces the placeholders in <...>.
func instructionsEnv(t *testing.T) string {
	t.Helper()
	instructions, _, found := strings.Cut(read(t, "../../../deploy/compose.yaml"), "#   install ")
	if !found {
		t.Fatal("the instructions do not create a password file")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "deploy"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sample.env"), []byte(read(t, "../../../sample.env")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range regexp.MustCompile(`(?m)^#   ((?:cp|sed) .*)$`).FindAllStringSubmatch(instructions, -1) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command[1])
		cmd.Dir = dir
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command[1], err, output)
		}
	}
	return regexp.MustCompile(`<\w+>`).ReplaceAllStringFunc(read(t, filepath.Join(dir, "deploy", "ad.env")), func(placeholder string) string {
		if strings.HasSuffix(placeholder, "_UUID>") {
			return "35664649-0000-4000-8000-000000000000"
		}
		return "example.com"
	})
}

// TestInstructions checks that the connector accepts the settings of the instructions and reads
// the password from the file.
func TestInstructions(t *testing.T) {
	const password = "Inv3nted-password"
	c := load(t, instructionsEnv(t)).Services["connector"]
	secrets := t.TempDir()
	if err := os.WriteFile(filepath.Join(secrets, "qualys-password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var environ []string
	for key, value := range c.Environment {
		if value == nil {
			t.Fatalf("%s has no value", key)
		}
		text := *value
		if name, ok := strings.CutPrefix(text, "/run/secrets/"); ok {
			text = filepath.Join(secrets, name)
		}
		environ = append(environ, key+"="+text)
	}
	settings, err := config.Load(config.Source{Environ: environ, Scheduled: true, Unknown: func(u config.Unknown) { t.Errorf("%+v", u) }})
	if err != nil {
		t.Fatal(err)
	}
	if login := settings.Gateway.Login; login.Username != "example.com" || login.Password.Reveal() != password {
		t.Errorf("login %+v", login)
	}
}

// TestDemo checks the profile demo: a sandbox, and a connector that starts when the sandbox is
// healthy. Both share the host's network and a volume.
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
		checkHardened(t, s)
	}
}

// checkHardened checks the restrictions of a service and its stop timeout.
func checkHardened(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	if !s.ReadOnly || s.Privileged || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 ||
		!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || len(s.Tmpfs) != 1 || s.MemLimit == 0 || s.PidsLimit == 0 || s.User != "" || len(s.Ports) > 0 {
		t.Errorf("%s is not hardened: %+v", s.Name, s)
	}
	if grace := s.StopGracePeriod; grace == nil || time.Duration(*grace) <= 30*time.Second {
		t.Errorf("%s: stop_grace_period %v, want more than 30 s", s.Name, grace)
	}
}
