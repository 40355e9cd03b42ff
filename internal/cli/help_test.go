package cli

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"adconnector/internal/check"
	"adconnector/internal/config"
	"adconnector/internal/input"
	"adconnector/internal/syncrun"
	child "adconnector/test/program"
	"adconnector/test/testenv"
)

// commands returns all commands and subcommands, with the root command first.
func commands() []*cobra.Command {
	root := (&program{}).root()
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		all = append(all, c)
		all = append(all, c.Commands()...)
	}
	return all
}

// TestHelpOfEachCommand tests that each command has a description, examples, and exit codes,
// that each flag has a description, and that lines are not too wide. The texts of cobra's own
// commands have their examples in the description.
func TestHelpOfEachCommand(t *testing.T) {
	t.Parallel()
	flag, described := regexp.MustCompile(`^ {2,6}-`), regexp.MustCompile(`^ +(-\w, )?--[\w-]+( \w+)?   +\S`)
	for _, c := range commands() {
		path := strings.Fields(c.CommandPath())[1:]
		isCobras := len(path) > 0 && (path[0] == "completion" || path[0] == "help")
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || c.Long == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("Short %q, Long %q", c.Short, c.Long)
			}
			if !isCobras && !strings.Contains(c.Example, "adconnector") {
				t.Errorf("examples %q", c.Example)
			}
			o := invoke(t, nil, append(path, "--help")...)
			if o.Code != exitDone || len(o.Log) != 0 || !strings.HasPrefix(o.Stdout, strings.TrimSpace(c.Long)) {
				t.Fatalf("%+v", o)
			}
			section := ""
			for line := range strings.SplitSeq(o.Stdout, "\n") {
				if strings.HasSuffix(line, ":") && !strings.HasPrefix(line, " ") {
					section = line
					continue
				}
				if len([]rune(line)) > helpWidth+5 && section != "Examples:" && !isCobras {
					t.Errorf("%d columns: %s", len(line), line)
				}
				if strings.HasSuffix(section, "Flags:") && flag.MatchString(line) && !described.MatchString(line) {
					t.Errorf("flag without a description: %q", line)
				}
			}
			_, codes, found := strings.Cut(o.Stdout, "\nExit codes:\n")
			if !found || !containsAll(codes, "  0    done\n", "  2    bad ") {
				t.Errorf("exit codes %q", codes)
			}
			if o.Stdout != invoke(t, nil, append([]string{"help"}, path...)...).Stdout {
				t.Error("the command help prints another text")
			}
		})
	}
}

// TestHelpOfGlobalFlags tests that only the help of the program describes the global flags, and that
// the help of a command names those that it accepts.
func TestHelpOfGlobalFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--help":      "      --env-file FILE       read settings",
		"sync --help": "\nGlobal flags: --env-file, --log-format, --log-level (see adconnector --help)\n",
		"demo --help": "\nGlobal flags: --log-format, --log-level (see adconnector --help)\n",
	} {
		o := invoke(t, nil, strings.Fields(args)...)
		if !strings.Contains(o.Stdout, want) || strings.Contains(o.Stdout, "read settings") != (args == "--help") {
			t.Errorf("%s: %s", args, o.Stdout)
		}
	}
}

// TestHelpOfExitCodes tests that only the commands that read settings end with a bad configuration.
func TestHelpOfExitCodes(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]bool{"run": true, "check": true, "status": true, "sandbox": false, "demo": false, "keys": false, "help": false} {
		if got := strings.Contains(invoke(t, nil, command, "--help").Stdout, "  2    bad configuration"); got != want {
			t.Errorf("%s: %v, want %v", command, got, want)
		}
	}
}

func TestHelpOfUnknownCommand(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"help", "chek"}, {"chek"}} {
		if o := invoke(t, nil, args...); o.Code != exitUsage || len(o.With(MsgBadUsage)) != 1 || !mentions(singleError(t, o), "chek", "use check, ") {
			t.Errorf("%q: %+v", args, o)
		}
	}
	if o := invoke(t, nil, "help", "quite", "another"); o.Code != exitUsage || !mentions(singleError(t, o), "quite another", "--help") {
		t.Errorf("%+v", o)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	o := invoke(t, nil, "keys")
	if o.Code != exitDone {
		t.Errorf("exit code %d", o.Code)
	}
	for _, section := range config.Sections() {
		for _, k := range section.Keys {
			for _, want := range append([]string{"\n" + k.Name + "\n", k.ShellSafe()}, k.Aliases...) {
				if !strings.Contains("\n"+o.Stdout, want) {
					t.Errorf("%s: %q is missing", k.Name, want)
				}
			}
			if k.Secret && !strings.Contains(o.Stdout, k.Name+".file") {
				t.Errorf("%s.file is missing", k.Name)
			}
		}
	}
	for line := range strings.Lines(o.Stdout) {
		if len([]rune(line)) > helpWidth+1 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

func TestCompletionPrintsScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if o := invoke(t, nil, "completion", shell); o.Code != exitDone || !strings.Contains(o.Stdout, "adconnector") {
			t.Errorf("%s: %+v", shell, o)
		}
	}
	for name, test := range map[string]struct {
		args, mentions []string
	}{
		"no shell":      {[]string{"completion"}, []string{"bash", "zsh", "fish", "powershell"}},
		"unknown shell": {[]string{"completion", "tcsh"}, []string{"tcsh", "completion --help"}},
		"two shells":    {[]string{"completion", "bash", "zsh"}, []string{"zsh", "--help"}},
	} {
		t.Run(name, func(t *testing.T) {
			if o := invoke(t, nil, test.args...); o.Code != exitUsage || o.Stdout != "" || !mentions(singleError(t, o), test.mentions...) {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestCompletionInBash tests the script in bash.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("this test requires bash")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "completion.bash")
	if err := os.WriteFile(script, []byte(invoke(t, nil, "completion", "bash").Stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.CommandContext(t.Context(), bash, "-n", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "adconnector")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words []string // the last one is incomplete
		want  []string
	}{
		{[]string{"sync", "--log-format", ""}, []string{"json", "console"}},
		{[]string{"sync", "--log-format", "c"}, []string{"console"}},
		{[]string{"--log-level", "w"}, []string{"warn"}},
		{[]string{"check", "--output", ""}, []string{"text", "json"}},
		{[]string{"completion", "b"}, []string{"bash"}},
		{[]string{"help", "ke"}, []string{"keys"}},
		{[]string{"sync", "--dry"}, []string{"--dry-run"}},
	} {
		// The steps of bash after the tab key, without a terminal.
		line := "adconnector " + strings.Join(c.words, " ")
		// The script requires _init_completion from the package bash-completion.
		run := `_init_completion() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }`
		run += fmt.Sprintf("\nsource %s\nCOMP_WORDS=(adconnector", script)
		for _, word := range c.words {
			run += fmt.Sprintf(" %q", word)
		}
		run += fmt.Sprintf(")\nCOMP_CWORD=%d COMP_LINE=%q COMP_POINT=%d COMP_TYPE=9\n__start_adconnector\nprintf '%%s\\n' \"${COMPREPLY[@]}\"", len(c.words), line, len(line))
		shell := exec.CommandContext(t.Context(), bash, "--norc", "--noprofile", "-c", run)
		shell.Env = append(child.Environ(t), "PATH="+dir+":"+os.Getenv("PATH"), childKey+"=1")
		output, err := shell.Output() // stderr has a warning, because no key was pressed
		if err != nil {
			t.Fatalf("%q: %v", c.words, err)
		}
		var got []string
		for reply := range strings.SplitSeq(strings.TrimSpace(string(output)), "\n") {
			word, _, _ := strings.Cut(strings.TrimSpace(reply), " ") // a description follows
			got = append(got, word)
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: completed to %q, want %q", c.words, got, c.want)
		}
	}
}

// TestUnknownKeys tests that an unknown key is reported once, with the most similar key and
// without its value, whether the configuration is good or bad.
func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	const value = "s3cret!"
	s := newFixture(t)
	file := filepath.Join(t.TempDir(), "more.env")
	if err := os.WriteFile(file, []byte("upload.batchsize="+value+"\nservice.quite-another="+value+"\nJAVA_OPTS=-Xmx1g\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  testenv.Settings
		code int
		want map[string]string // the most similar key by unknown key
	}{
		"good": {nil, exitDone, nil},
		"bad": {testenv.Settings{"qualys.profileUuid": "", "qualys.profileUid": value}, exitUsage,
			map[string]string{"qualys.profileUid": "qualys.profileUuid"}},
	} {
		want := map[string]string{"ldap.hots": "ldap.host", "upload.batchsize": "upload.batch-size", "service.quite-another": ""}
		maps.Copy(want, c.want)
		environ := s.env.With(c.env).With(testenv.Settings{"ldap.hots": value, "HTTP_PROXY": "http://127.0.0.1:1"}).Environ()
		t.Run(name+", log", func(t *testing.T) {
			o := invoke(t, environ, "sync", "--env-file", file, "--env-file", file)
			nearest := map[string]string{}
			for _, l := range o.With(MsgUnknownKey) {
				if _, twice := nearest[l.Text("key")]; twice || l.Text("level") != "warn" || l.Text("place") == "" {
					t.Errorf("%v", l)
				}
				nearest[l.Text("key")] = l.Text("nearest")
			}
			if o.Code != c.code || !maps.Equal(nearest, want) || strings.Contains(o.Stderr, value) {
				t.Errorf("exit code %d, reported %v, want %v", o.Code, nearest, want)
			}
		})
		t.Run(name+", check", func(t *testing.T) {
			o := invoke(t, environ, "check", "--env-file", file, "--output", "json")
			configuration := decode[check.Report](t, o).Checks[0]
			if o.Code != c.code || len(o.With(MsgUnknownKey)) != 0 || strings.Contains(o.Stdout, value) || configuration.Remedy == "" ||
				!containsAll(configuration.Found, "ldap.hots", "similar to ldap.host\n", "service.quite-another", file) {
				t.Errorf("exit code %d, %+v", o.Code, configuration)
			}
		})
	}
}

// TestMistakes tests that probable mistakes are reported with their key and without the value, in
// the log and by check, and that one mistake in a file is one line.
func TestMistakes(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	environ := s.env.With(testenv.Settings{"gateway.source": "“hush-source”", "proxy.password": "hush-unused\r"}).Environ()
	o := invoke(t, environ, "sync")
	if lines := o.With(MsgMistake); o.Code != exitDone || len(lines) != 1 || lines[0].Text("key") != "gateway.source" || lines[0].Text("level") != "warn" ||
		lines[0].Text("place") != "gateway.source (environment)" || lines[0].Text("reason") != input.InQuotes.Error() || lines[0].Text("remedy") != input.InQuotes.Remedy() ||
		strings.Contains(o.Stderr, "hush") {
		t.Errorf("exit code %d, %v", o.Code, lines)
	}
	o = invoke(t, environ, "check", "--output", "json")
	configuration := decode[check.Report](t, o).Checks[0]
	if configuration.Result != check.Warn || len(o.With(MsgMistake)) != 0 || !containsAll(configuration.Found, "gateway.source", input.InQuotes.Error()) || strings.Contains(o.Stdout, "hush") {
		t.Errorf("%+v", configuration)
	}

	file := filepath.Join(t.TempDir(), "a.env")
	if err := os.WriteFile(file, []byte("\xff\xfel\x00o\x00g\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	o = invoke(t, nil, "run", "--env-file", file)
	if lines := o.With(MsgBadConfiguration); o.Code != exitUsage || len(lines) != 1 || !containsAll(lines[0].Text("error"), file, "UTF-16") || lines[0].Text("remedy") == "" {
		t.Errorf("exit code %d, %v", o.Code, lines)
	}
}

// TestConsoleMistakes tests that a run logs mistakes in the console, and refuses what cannot work.
func TestConsoleMistakes(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	environ := s.env.With(testenv.Settings{"ldap.host": "", "ldap.port": "", "ldap.protocol": "", "ldap.bindDn": "", "ldap.password": "", "profile.baseContext": ""}).Environ()
	s.Console("LDAPS", baseDN+" ")
	o := invoke(t, environ, "sync")
	if lines := o.With(syncrun.MsgMistake); o.Code != exitDone || len(lines) != 1 || !strings.HasPrefix(lines[0].Text("key"), "base context") {
		t.Errorf("exit code %d, %v, %s", o.Code, lines, o.Stderr)
	}
	s.Console("LDAPS", baseDN+"\n")
	o = invoke(t, environ, "sync")
	if lines := o.With(syncrun.MsgRunFinished); o.Code != exitRefused || len(lines) != 1 || !containsAll(lines[0].Text("error"), "base context", input.EndsWithFeed.Error()) {
		t.Errorf("exit code %d, %v", o.Code, lines)
	}
}
