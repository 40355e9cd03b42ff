package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// exitCodes lists the meaning of each exit code.
var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitDone, "done"},
	{exitFailed, "the run failed and is worth trying again: network, timeout, full disk, 5xx"},
	{exitUsage, "bad configuration or bad usage, an unusable state directory"},
	{exitRefused, "refused: wrong credentials, missing rights, an untrusted certificate, a base context that does not exist"},
	{exitLocked, "another instance holds the state directory"},
	{exitHeld, "the gateway accepted everything but deletions, which the guard holds, or which cannot be decided"},
	{exitRejected, "the run finished, but the gateway rejected some objects"},
	{exitInterrupted, "interrupted"},
}

// helpWidth is the number of columns of a help text. Examples can be wider.
const helpWidth = 80

// exits returns the annotation that documents the exit codes of a command in its help.
// failure is the meaning of exit code 1; empty means a failed run.
func exits(failure string, codes ...int) map[string]string {
	var text strings.Builder
	for _, e := range exitCodes {
		if !slices.Contains(codes, e.code) {
			continue
		}
		meaning := e.meaning
		if e.code == exitFailed && failure != "" {
			meaning = failure
		}
		fmt.Fprintf(&text, "  %-5d%s\n", e.code, strings.Join(wrap(meaning, helpWidth-7), "\n       "))
	}
	return map[string]string{"exit codes": text.String()}
}

// setUsageTemplate extends cobra's usage text by the exit codes, and wraps long flag texts.
func setUsageTemplate(root *cobra.Command) {
	wrapped := fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", wrapped) + `{{with index .Annotations "exit codes"}}
Exit codes:
{{.}}{{end}}`)
}

// addBuiltInCommands adds cobra's help and completion commands. Cobra's own argument checks
// end with exit code 0 or 1, so they are replaced: bad usage has exit code 2 and a remedy.
func addBuiltInCommands(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Annotations = exits("", exitDone, exitUsage)
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
		command.Annotations = exits("", exitDone, exitUsage)
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
