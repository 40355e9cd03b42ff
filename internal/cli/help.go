package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"adconnector/internal/config"
)

// manual is what a page says of a command that cobra has no place for.
type manual struct {
	examples []example
	exits    []int
	fails    string // what code 1 means here; "": that a run failed
	files    []string
	see      []string // other pages
}

// example is a command line, or a few, and what it is for.
type example struct{ for_, lines string }

// exitCodes is what each code means, whichever command ends with it.
var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitDone, "done"},
	{exitFailed, "the run failed and is worth trying again: network, timeout, full disk, 5xx"},
	{exitUsage, "bad configuration or bad usage, an unusable state directory"},
	{exitRefused, "refused: wrong credentials, missing rights, an untrusted certificate, a base context that does not exist"},
	{exitLocked, "another instance holds the state directory"},
	{exitHeld, "the run delivered everything but deletions, which the guard holds"},
	{exitRejected, "the run finished, but the gateway rejected some objects"},
	{exitInterrupted, "interrupted"},
}

// pageWidth is what fits a terminal, and reads well.
const pageWidth = 80

// help is the same page for --help, for help COMMAND, and for no arguments where some
// are needed.
func help(cmd *cobra.Command, _ []string) {
	var page bytes.Buffer
	writePage(&page, cmd)
	_, _ = page.WriteTo(cmd.OutOrStdout()) // who does not read it needs no error
}

func writePage(out io.Writer, cmd *cobra.Command) {
	m := manuals[cmd.Name()]
	cmd.InitDefaultHelpFlag()
	cmd.Flags().Lookup("help").Usage = "show this page"
	section := func(heading string) { fmt.Fprintf(out, "\n%s\n", heading) }
	fmt.Fprintf(out, "NAME\n")
	indented(out, 4, cmd.CommandPath()+" - "+lowered(cmd.Short))
	section("SYNOPSIS")
	indented(out, 4, synopsis(cmd))
	section("DESCRIPTION")
	indented(out, 4, cmd.Long)
	if !cmd.HasParent() {
		section("COMMANDS")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				hanging(out, 18, c.Name(), lowered(c.Short))
			}
		}
	}
	if cmd.LocalNonPersistentFlags().HasAvailableFlags() {
		section("OPTIONS")
		fmt.Fprint(out, cmd.LocalNonPersistentFlags().FlagUsagesWrapped(pageWidth))
	}
	section("GLOBAL OPTIONS")
	fmt.Fprint(out, cmd.Root().PersistentFlags().FlagUsagesWrapped(pageWidth))
	section("EXAMPLES")
	for n, e := range m.examples {
		if n > 0 {
			fmt.Fprintln(out)
		}
		indented(out, 4, e.for_+":")
		for line := range strings.SplitSeq(e.lines, "\n") {
			fmt.Fprintf(out, "        %s\n", line)
		}
	}
	section("EXIT CODES")
	for _, code := range m.exits {
		for _, e := range exitCodes {
			switch {
			case e.code == code && code == exitFailed && m.fails != "":
				hanging(out, 10, fmt.Sprint(code), m.fails)
			case e.code == code:
				hanging(out, 10, fmt.Sprint(code), e.meaning)
			}
		}
	}
	section("ENVIRONMENT")
	indented(out, 4, environment)
	if len(m.files) > 0 {
		section("FILES")
		for _, file := range m.files {
			name, what, _ := strings.Cut(file, ": ")
			hanging(out, 8, name, "")
			indented(out, 8, what)
		}
	}
	section("SEE ALSO")
	see := make([]string, len(m.see))
	for n, name := range m.see {
		see[n] = "adconnector help " + name
	}
	indented(out, 4, strings.Join(see, ", "))
}

// synopsis is how the command is typed.
func synopsis(cmd *cobra.Command) string {
	line := cmd.UseLine()
	if !cmd.HasParent() {
		return "adconnector [OPTIONS]\n\nadconnector COMMAND [OPTIONS]"
	}
	return strings.Replace(line, "[flags]", "[OPTIONS]", 1)
}

// lowered makes a Short the end of a line.
func lowered(short string) string { return strings.ToLower(short[:1]) + short[1:] }

// indented writes paragraphs.
func indented(out io.Writer, by int, text string) {
	for n, paragraph := range strings.Split(text, "\n\n") {
		if n > 0 {
			fmt.Fprintln(out)
		}
		for _, line := range wrap(paragraph, pageWidth-by) {
			fmt.Fprintf(out, "%*s%s\n", by, "", line)
		}
	}
}

// hanging writes a term and, beside it, what it is.
func hanging(out io.Writer, column int, term, text string) {
	lines := wrap(text, pageWidth-column)
	fmt.Fprintf(out, "%-*s%s\n", column, "    "+term, lines[0])
	for _, line := range lines[1:] {
		fmt.Fprintf(out, "%*s%s\n", column, "", line)
	}
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the page of a command, or of the keys",
		Long:  "Shows the page of a command, as its --help does. Without one it shows this program's.",
		Args:  cobra.ArbitraryArgs,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) == 1 && args[0] == cmd.Root().Name() {
				return cmd.Root().Help()
			}
			for _, c := range cmd.Root().Commands() {
				if len(args) == 1 && c.Name() == args[0] {
					return c.Help()
				}
			}
			return unknownCommand(cmd.Root(), strings.Join(args, " "))
		},
	}
}

// unknownCommand returns the error of an unknown command. Its remedy has the similar names.
func unknownCommand(root *cobra.Command, name string) error {
	remedy := ""
	if near := root.SuggestionsFor(name); len(near) > 0 {
		remedy = "use " + strings.Join(near, " or ") + ", or see adconnector --help"
	}
	return misused(fmt.Errorf("unknown command %q", name), remedy)
}

func (p *program) keysCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "keys",
		Short: "List every key of the configuration, its default and what it allows",
		Long: `Lists every key of the configuration with its other spellings, what it means and
allows, and its default. The same key twice with different values in one place, the
environment or one file, is an error; an empty value counts as absent. A key that
looks like one of these and is none has no effect, and is warned about.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := p.stdout.Write([]byte(keysPage()))
			return err
		},
	}
	command.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		help(cmd, args)
		fmt.Fprintf(cmd.OutOrStdout(), "\nKEYS\n%s", keysPage())
	})
	return command
}

// keysPage is the table of keys, in a form that fits a page.
func keysPage() string {
	var page bytes.Buffer
	for n, k := range config.Keys() {
		if n > 0 {
			fmt.Fprintln(&page)
		}
		also := append([]string{k.ShellSafe()}, k.Aliases...)
		if k.Secret {
			also = append(also, k.Name+".file")
		}
		fmt.Fprintf(&page, "    %s\n", k.Name)
		indented(&page, 8, "also "+strings.Join(also, ", "))
		indented(&page, 8, k.Doc)
		if k.Default != "" {
			indented(&page, 8, "default "+k.Default)
		}
	}
	return page.String()
}

// completionShells are those that cobra writes scripts for.
var completionShells = map[string]func(root *cobra.Command, out io.Writer) error{
	"bash":       func(root *cobra.Command, out io.Writer) error { return root.GenBashCompletionV2(out, true) },
	"zsh":        func(root *cobra.Command, out io.Writer) error { return root.GenZshCompletion(out) },
	"fish":       func(root *cobra.Command, out io.Writer) error { return root.GenFishCompletion(out, true) },
	"powershell": func(root *cobra.Command, out io.Writer) error { return root.GenPowerShellCompletionWithDesc(out) },
}

func (p *program) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     "Print a script that lets the shell complete commands, options and their values",
		Long:      "Prints a script that lets the shell complete commands, options and the values of options.",
		ValidArgs: []cobra.Completion{"bash", "zsh", "fish", "powershell"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || completionShells[args[0]] == nil {
				return misused(errors.New("completion needs the name of one shell"), "use bash, zsh, fish or powershell")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return completionShells[args[0]](cmd.Root(), p.stdout) },
	}
}

// complete says what the values of an option can be, to shells that ask.
func complete(command *cobra.Command, flag string, values ...cobra.Completion) {
	err := command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // there is no such option, which is the program's own mistake
	}
}
