package cli

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// exitCodes lists the meaning of each exit code. The help of the program has it in full, and that
// of a command in short, if there is a short form.
var exitCodes = []struct {
	code           int
	meaning, short string
}{
	{exitDone, "done", ""},
	{exitFailed, "the run failed and is worth trying again: network, timeout, full disk, 5xx", "the run failed and is worth trying again"},
	{exitUsage, "bad configuration or bad usage, an unusable state directory", ""},
	{exitRefused, "refused: wrong credentials, missing rights, an untrusted certificate, a base context that does not exist", "refused: credentials, rights, certificate, or base context"},
	{exitLocked, "another instance holds the state directory", ""},
	{exitHeld, "the gateway accepted everything but deletions, which the guard holds, or which cannot be decided", "deletions are held or undecided; everything else was accepted"},
	{exitRejected, "the run finished, but the gateway rejected some objects", "the gateway rejected some objects"},
	{exitInterrupted, "interrupted", ""},
}

// helpWidth is the number of columns of a help text. Examples can be wider.
const helpWidth = 80

// allExits returns the annotation with all exit codes in full, for the help of the program.
func allExits() map[string]string {
	var text strings.Builder
	for _, e := range exitCodes {
		writeExit(&text, e.code, e.meaning)
	}
	return map[string]string{"exit codes": text.String()}
}

// meanings are the meanings of exit codes for one command.
type meanings map[int]string

// onlyBadUsage is the meaning of exitUsage for a command that reads no settings.
const onlyBadUsage = "bad usage"

// exits returns the annotation that documents the exit codes of a command in its help. own are the
// meanings that differ from those of a run.
func exits(own meanings, codes ...int) map[string]string {
	var text strings.Builder
	for _, e := range exitCodes {
		if !slices.Contains(codes, e.code) {
			continue
		}
		writeExit(&text, e.code, cmp.Or(own[e.code], e.short, e.meaning))
	}
	return map[string]string{"exit codes": text.String()}
}

func writeExit(text *strings.Builder, code int, meaning string) {
	fmt.Fprintf(text, "  %-5d%s\n", code, strings.Join(wrap(meaning, helpWidth-7), "\n       "))
}

// refusedFlags is the annotation with the global flags that a command refuses, which its help does
// not list.
const refusedFlags = "refused flags"

// refusing adds the annotation refusedFlags, with names separated by spaces.
func refusing(flags string, annotations map[string]string) map[string]string {
	annotations[refusedFlags] = flags
	return annotations
}

// addTemplateFuncs adds the functions of templates to cobra, which has one set for all programs of a
// process.
var addTemplateFuncs = sync.OnceFunc(func() { cobra.AddTemplateFunc("globalFlags", globalFlags) })

// setUsageTemplate extends cobra's usage text by the exit codes, and wraps long flag texts. The help
// of a command names the global flags in one line; that of the program describes them.
func setUsageTemplate(root *cobra.Command) {
	addTemplateFuncs()
	wrapped := fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth)
	template := strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", wrapped)
	described := regexp.MustCompile(`(?s)Global Flags:\n\{\{.*?\}\}`)
	root.SetUsageTemplate(described.ReplaceAllLiteralString(template, `{{globalFlags .}}`) + `{{with index .Annotations "exit codes"}}
Exit codes:
{{.}}{{end}}`)
}

// globalFlags returns the line of a command's help that names the global flags.
func globalFlags(command *cobra.Command) string {
	var names []string
	command.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(strings.Fields(command.Annotations[refusedFlags]), f.Name) {
			names = append(names, "--"+f.Name)
		}
	})
	return fmt.Sprintf("Global flags: %s (see %s --help)", strings.Join(names, ", "), command.Root().Name())
}

// addBuiltInCommands adds cobra's help and completion commands. Cobra's own argument checks
// end with exit code 0 or 1, so they are replaced: bad usage has exit code 2 and a remedy.
func addBuiltInCommands(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Annotations = exits(meanings{exitUsage: onlyBadUsage}, exitDone, exitUsage)
	help.Args = func(_ *cobra.Command, args []string) error {
		if _, unknown, err := root.Find(args); err != nil || len(unknown) > 0 {
			return unknownCommand(root, strings.Join(args, " "))
		}
		return nil
	}
	root.InitDefaultCompletionCmd()
	completion, _, _ := root.Find([]string{"completion"})
	completion.RunE = func(*cobra.Command, []string) error {
		return newUsageError(errors.New("the name of a shell is missing"), "use completion bash, zsh, fish or powershell")
	}
	for _, command := range append(completion.Commands(), completion) {
		command.Annotations = exits(meanings{exitUsage: onlyBadUsage}, exitDone, exitUsage)
		command.Args = noArgs
	}
}

// unknownCommand returns the error of an unknown command. Its remedy has the similar names.
func unknownCommand(parent *cobra.Command, name string) error {
	remedy := fmt.Sprintf("see %s --help", parent.CommandPath())
	if similar := parent.SuggestionsFor(name); len(similar) > 0 {
		remedy = fmt.Sprintf("use %s, or %s", strings.Join(similar, " or "), remedy)
	}
	return newUsageError(fmt.Errorf("unknown command %q", name), remedy)
}

// noArgs refuses arguments. Those of a command with subcommands are unknown commands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	switch flag := typographicFlag(args[0]); {
	case flag != "":
		return newUsageError(fmt.Errorf("%q begins with a typographic dash", args[0]), "use two hyphens: "+flag)
	case cmd.HasSubCommands():
		return unknownCommand(cmd, args[0])
	}
	return newUsageError(fmt.Errorf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0]), "")
}

// completeFlag sets the values that shells offer for a flag.
func completeFlag(command *cobra.Command, flag string, values ...cobra.Completion) {
	err := command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag does not exist: a programming error
	}
}
