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
	child "adconnector/test/program"
	"adconnector/test/testenv"
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
	t.Parallel()
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
			if o.Code != exitDone || len(o.Log) != 0 {
				t.Fatalf("%+v", o)
			}
			inExamples, inFlags := false, false
			for line := range strings.SplitSeq(o.Stdout, "\n") {
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
				if strings.Count("\n"+o.Stdout, "\n"+heading+"\n") != 1 {
					t.Errorf("%s is not there once", heading)
				}
			}
			if c.HasParent() {
				if again := invoke(t, nil, "help", c.Name()); again.Stdout != o.Stdout || again.Code != exitDone {
					t.Errorf("help %s shows another page:\n%s", c.Name(), again.Stdout)
				}
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	root := invoke(t, nil, "--help")
	for _, args := range [][]string{{"help"}, {"help", "adconnector"}, {"-h"}} {
		if o := invoke(t, nil, args...); o.Code != exitDone || o.Stdout != root.Stdout {
			t.Errorf("%q: exit code %d, %s", args, o.Code, o.Stdout)
		}
	}
	for _, args := range [][]string{{"help", "chek"}, {"chek"}} {
		if o := invoke(t, nil, args...); o.Code != exitUsage || len(o.With(MsgBadUsage)) != 1 || !names(theError(t, o), "chek", "use check, ") {
			t.Errorf("%q: %+v", args, o)
		}
	}
	if o := invoke(t, nil, "help", "quite", "another"); o.Code != exitUsage || !names(theError(t, o), "quite another", "--help") {
		t.Errorf("%+v", o)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	o := invoke(t, nil, "keys")
	for _, k := range config.Keys() {
		for _, want := range append([]string{"\n    " + k.Name + "\n", k.ShellSafe()}, k.Aliases...) {
			if !strings.Contains("\n"+o.Stdout, want) {
				t.Errorf("%s: %q is not there", k.Name, want)
			}
		}
		if k.Secret && !strings.Contains(o.Stdout, k.Name+".file") {
			t.Errorf("%s.file is not there", k.Name)
		}
	}
	if page := invoke(t, nil, "help", "keys"); o.Code != exitDone || !strings.HasSuffix(page.Stdout, "\nKEYS\n"+o.Stdout) {
		t.Errorf("help keys: %s", page.Stdout)
	}
}

// TestREADMEExitCodes holds its table against what the pages say.
func TestREADMEExitCodes(t *testing.T) {
	t.Parallel()
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

func TestCompletionPrintsScripts(t *testing.T) {
	t.Parallel()
	for shell := range completionShells {
		if o := invoke(t, nil, "completion", shell); o.Code != exitDone || !strings.Contains(o.Stdout, "adconnector") {
			t.Errorf("%s: %+v", shell, o)
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		if o := invoke(t, nil, args...); o.Code != exitUsage || !names(theError(t, o), "bash", "zsh", "fish", "powershell") {
			t.Errorf("%q: %+v", args, o)
		}
	}
}

// TestCompletionInBash: bash sources its script and completes with it.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("this test needs bash")
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
		shell.Env = append(child.Environ(t), "PATH="+dir+":"+os.Getenv("PATH"), childKey+"=1")
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

// TestUnknownKeys: each is reported once, with the one that is likely meant and without
// its value, whether the configuration is good or bad.
func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	const value = "s3cret!"
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "more.env")
	if err := os.WriteFile(file, []byte("upload.batchsize="+value+"\nservice.quite-another="+value+"\nJAVA_OPTS=-Xmx1g\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  testenv.Settings
		code int
		want map[string]string // the nearest key by the unknown one
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
				!contains(configuration.Found, "ldap.hots", "ldap.host ", "service.quite-another", file) {
				t.Errorf("exit code %d, %+v", o.Code, configuration)
			}
		})
	}
}
