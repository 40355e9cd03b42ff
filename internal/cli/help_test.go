package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"adconnector/internal/config"
)

// commands are all that an operator can type.
func commands() (all []*cobra.Command) {
	root := (&program{}).root()
	all = append(all, root)
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			all = append(all, c)
		}
	}
	return all
}

// TestPages: every command has a page from which it can be learnt. A command without
// one needs an entry in manuals, and a Long.
func TestPages(t *testing.T) {
	names := []string{}
	for _, c := range commands() {
		names = append(names, c.Name())
	}
	option, explained := regexp.MustCompile(`^ {2,6}-`), regexp.MustCompile(`^ +(-\w, )?--[\w-]+( \w+)?   +\S`)
	for _, c := range commands() {
		t.Run(c.Name(), func(t *testing.T) {
			if c.Short == "" || c.Long == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("Short %q, Long %q", c.Short, c.Long)
			}
			m, there := manuals[c.Name()]
			if !there || len(m.examples) == 0 || !slices.Contains(m.exits, exitDone) || !slices.Contains(m.exits, exitUsage) || len(m.see) == 0 {
				t.Errorf("the manual says too little: %+v", m)
			}
			for _, name := range m.see {
				if !slices.Contains(names, name) || name == c.Name() {
					t.Errorf("see %s: there is no such page, or it is this one", name)
				}
			}
			for _, e := range m.examples {
				if e.for_ == "" || !strings.Contains(e.lines, "adconnector") {
					t.Errorf("example %+v", e)
				}
			}
			args := []string{c.Name(), "--help"}
			if !c.HasParent() {
				args = args[1:]
			}
			o := invoke(t, nil, args...)
			if o.code != exitDone || len(o.log) != 0 {
				t.Fatalf("%+v", o)
			}
			inExamples, inFlags := false, false
			for line := range strings.SplitSeq(o.stdout, "\n") {
				if line != "" && line[0] != ' ' {
					inExamples, inFlags = line == "EXAMPLES", strings.HasSuffix(line, "OPTIONS")
					continue
				}
				if len([]rune(line)) > pageWidth && !inExamples {
					t.Errorf("%d wide: %s", len(line), line)
				}
				if inFlags && option.MatchString(line) && !explained.MatchString(line) {
					t.Errorf("an option without a help text: %q", line)
				}
			}
			for _, heading := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "GLOBAL OPTIONS", "EXAMPLES", "EXIT CODES", "ENVIRONMENT", "SEE ALSO"} {
				if strings.Count("\n"+o.stdout, "\n"+heading+"\n") != 1 {
					t.Errorf("%s is not there once", heading)
				}
			}
			if c.HasParent() {
				if again := invoke(t, nil, "help", c.Name()); again.stdout != o.stdout || again.code != exitDone {
					t.Errorf("help %s shows another page:\n%s", c.Name(), again.stdout)
				}
			}
		})
	}
}

func TestHelp(t *testing.T) {
	root := invoke(t, nil, "--help")
	for _, args := range [][]string{{"help"}, {"help", "adconnector"}, {"-h"}} {
		if o := invoke(t, nil, args...); o.code != exitDone || o.stdout != root.stdout {
			t.Errorf("%q: exit code %d, %s", args, o.code, o.stdout)
		}
	}
	for _, args := range [][]string{{"help", "chek"}, {"chek"}} {
		if o := invoke(t, nil, args...); o.code != exitUsage || len(o.errors()) != 1 || !strings.Contains(o.errors()[0], `there is no command "chek", perhaps check is meant`) {
			t.Errorf("%q: %+v", args, o)
		}
	}
	if o := invoke(t, nil, "help", "quite", "another"); o.code != exitUsage || !strings.Contains(o.errors()[0], `there is no command "quite another": see`) {
		t.Errorf("%+v", o)
	}
}

func TestKeys(t *testing.T) {
	o := invoke(t, nil, "keys")
	for _, k := range config.Keys() {
		for _, want := range append([]string{"\n    " + k.Name + "\n", k.ShellSafe()}, k.Aliases...) {
			if !strings.Contains("\n"+o.stdout, want) {
				t.Errorf("%s: %q is not there", k.Name, want)
			}
		}
		if k.Secret && !strings.Contains(o.stdout, k.Name+".file") {
			t.Errorf("%s.file is not there", k.Name)
		}
	}
	if page := invoke(t, nil, "help", "keys"); o.code != exitDone || !strings.HasSuffix(page.stdout, "\nKEYS\n"+o.stdout) {
		t.Errorf("help keys: %s", page.stdout)
	}
}

// TestREADMEExitCodes holds its table against what the pages say.
func TestREADMEExitCodes(t *testing.T) {
	content, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "| exit code | meaning |\n| --- | --- |\n"
	for _, e := range exitCodes {
		table += fmt.Sprintf("| %d | %s |\n", e.code, e.meaning)
	}
	if !strings.Contains(string(content), table+"\n") {
		t.Errorf("README.md needs this table:\n%s", table)
	}
}

// TestCompletion: the scripts are there, and bash takes its own and completes with it.
func TestCompletion(t *testing.T) {
	for shell := range completionShells {
		if o := invoke(t, nil, "completion", shell); o.code != exitDone || !strings.Contains(o.stdout, "adconnector") {
			t.Errorf("%s: %+v", shell, o)
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		if o := invoke(t, nil, args...); o.code != exitUsage || !strings.Contains(o.errors()[0], "the name of one shell: bash, zsh, fish or powershell") {
			t.Errorf("%q: %+v", args, o)
		}
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("this test needs bash")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "completion.bash")
	if err := os.WriteFile(script, []byte(invoke(t, nil, "completion", "bash").stdout), 0o600); err != nil {
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
		words []string // the last one is being typed
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
		// What bash does when somebody presses the tab key, without a terminal.
		line := "adconnector " + strings.Join(c.words, " ")
		// _init_completion is from the package bash-completion, which the script needs.
		run := `_init_completion() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }`
		run += fmt.Sprintf("\nsource %s\nCOMP_WORDS=(adconnector", script)
		for _, word := range c.words {
			run += fmt.Sprintf(" %q", word)
		}
		run += fmt.Sprintf(")\nCOMP_CWORD=%d COMP_LINE=%q COMP_POINT=%d COMP_TYPE=9\n__start_adconnector\nprintf '%%s\\n' \"${COMPREPLY[@]}\"", len(c.words), line, len(line))
		shell := exec.CommandContext(t.Context(), bash, "--norc", "--noprofile", "-c", run)
		shell.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "CLI_TEST_CHILD=1"}
		output, err := shell.Output() // on stderr it says that nobody has pressed a key
		if err != nil {
			t.Fatalf("%q: %v", c.words, err)
		}
		var got []string
		for reply := range strings.SplitSeq(strings.TrimSpace(string(output)), "\n") {
			word, _, _ := strings.Cut(strings.TrimSpace(reply), " ") // what is beside it explains it
			got = append(got, word)
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: completed to %q, want %q", c.words, got, c.want)
		}
	}
}

// TestUnknownKeys: each is told of once, with the one that is likely meant and without
// its value, be the configuration good or bad.
func TestUnknownKeys(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "more.env")
	if err := os.WriteFile(file, []byte("upload.batchsize=s3cret!\nservice.quite-another=s3cret!\nJAVA_OPTS=-Xmx1g\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env["ldap.hots"], s.env["HTTP_PROXY"] = "s3cret!", "http://127.0.0.1:1"
	const message = "unknown key, it has no effect"
	for name, c := range map[string]struct {
		change func()
		code   int
	}{
		"good": {func() {}, exitDone}, "bad": {func() { delete(s.env, "qualys.profileUuid"); s.env["qualys.profileUid"] = "s3cret!" }, exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			c.change()
			o := invoke(t, s.environ(), "sync", "--env-file", file, "--env-file", file)
			nearest := map[any]any{}
			for _, l := range o.with(message) {
				if _, twice := nearest[l["key"]]; twice || l["level"] != "warn" || l["place"] == "" {
					t.Errorf("%v", l)
				}
				nearest[l["key"]] = l["nearest"]
			}
			want := map[any]any{"ldap.hots": "ldap.host", "upload.batchsize": "upload.batch-size", "service.quite-another": nil}
			if name == "bad" {
				want["qualys.profileUid"] = "qualys.profileUuid"
			}
			if o.code != c.code || fmt.Sprint(nearest) != fmt.Sprint(want) {
				t.Errorf("exit code %d, told of %v, want %v", o.code, nearest, want)
			}
			o = invoke(t, s.environ(), "check", "--env-file", file, "--output", "json")
			configuration := o.checked(t).Checks[0]
			if o.code != c.code || len(o.with(message)) != 0 || strings.Contains(o.stdout, "s3cret!") || configuration.Remedy == "" ||
				!strings.Contains(configuration.Found, "\nldap.hots (environment) is unknown: is ldap.host meant?") || !strings.Contains(configuration.Found, "service.quite-another ("+file+" line 2) is unknown") {
				t.Errorf("exit code %d, %+v", o.code, configuration)
			}
		})
		if name == "bad" {
			s.env["qualys.profileUuid"] = profile
			delete(s.env, "qualys.profileUid")
		}
	}
}
