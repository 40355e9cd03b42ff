package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError returns the error of a flag of a command. Its remedy is the flag or the value that is
// probably meant.
func flagError(command *cobra.Command, err error) error {
	if unknown, is := errors.AsType[*pflag.NotExistError](err); is {
		return unknownFlag(command, unknown)
	}
	if required, is := errors.AsType[*pflag.ValueRequiredError](err); is {
		kind, _ := pflag.UnquoteUsage(required.GetFlag())
		return newUsageError(err, fmt.Sprintf("use --%s %s, or %s", required.GetSpecifiedName(), cmp.Or(kind, "VALUE"), seeHelp(command)))
	}
	refused, is := errors.AsType[*pflag.InvalidValueError](err)
	if !is {
		return newUsageError(err, seeHelp(command))
	}
	name, remedy := refused.GetFlag().Name, "use a whole number"
	switch refused.GetFlag().Value.Type() {
	case "bool":
		remedy = fmt.Sprintf("use --%s or --%s=false", name, name)
	case "uint64":
		remedy += ", not below 0"
	}
	return newUsageError(fmt.Errorf("--%s %q is not allowed", name, refused.GetValue()), remedy)
}

func seeHelp(command *cobra.Command) string { return "see " + command.CommandPath() + " --help" }

// unknownFlag returns the error of a flag that the command does not have.
func unknownFlag(command *cobra.Command, unknown *pflag.NotExistError) error {
	name, err := unknown.GetSpecifiedName(), error(unknown)
	if short := unknown.GetSpecifiedShortnames(); short != "" { // a long flag with one hyphen
		name, _, _ = strings.Cut(short, "=")
		err = fmt.Errorf("unknown flag: -%s", name)
	}
	if similar := similarFlag(command, name); similar != "" {
		return newUsageError(err, fmt.Sprintf("use --%s, or %s", similar, seeHelp(command)))
	}
	for _, other := range command.Root().Commands() {
		if other.LocalFlags().Lookup(name) != nil {
			return newUsageError(err, fmt.Sprintf("use it with %s, or %s", other.CommandPath(), seeHelp(command)))
		}
	}
	return newUsageError(err, seeHelp(command))
}

// minFlagPrefix is the length from which the beginning of a flag counts as its abbreviation.
const minFlagPrefix = 3

// similarFlag returns the flag of a command that a name most resembles, or "". Case and hyphens do
// not count. A flag that the name begins, or that begins the name, is similar.
func similarFlag(command *cobra.Command, name string) (similar string) {
	normalize := func(name string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	}
	unknown, smallest := normalize(name), 3
	visit := func(f *pflag.Flag) {
		known := normalize(f.Name)
		distance := levenshtein.ComputeDistance(unknown, known)
		if min(len(unknown), len(known)) >= minFlagPrefix && (strings.HasPrefix(known, unknown) || strings.HasPrefix(unknown, known)) {
			distance = min(distance, 2)
		}
		if distance < smallest && distance < len(known) {
			similar, smallest = f.Name, distance
		}
	}
	command.Flags().VisitAll(visit)
	return similar
}

// dashes are characters that text processors put in the place of hyphens.
var dashes = []rune("‐‑‒–—―−")

// typographicFlag returns the flag that an argument means if it begins with a typographic dash,
// such as one that was copied from a document, or "".
func typographicFlag(argument string) string {
	first, _ := utf8.DecodeRuneInString(argument)
	if !slices.Contains(dashes, first) {
		return ""
	}
	return "--" + strings.TrimLeftFunc(argument, func(r rune) bool { return r == '-' || slices.Contains(dashes, r) })
}
