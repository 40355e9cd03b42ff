package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"adconnector/internal/config"
)

func (p *program) keysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keys",
		Short: "List every configuration key, its default, and its allowed values",
		Long: `List every configuration key with its other spellings, its meaning, its allowed
values, and its default.

Each key is an environment variable or a line of an env file. Write it as listed or
in the form that shells accept: service.cron-expression is SERVICE_CRON_EXPRESSION.
The value of a secret can also come from a file: set KEY.file to its path. A daemon
reads the file again before each run.

An empty value counts as absent. The same key with different values, in the
environment or in one file, is an error. An unknown key that is similar to a listed
key has no effect and is logged as a warning.`,
		Example: `  # List all keys
  adconnector keys

  # List the keys of the directory
  adconnector keys | grep -A4 '^ldap'`,
		Annotations: exits("the output could not be written", exitDone, exitFailed, exitUsage),
		Args:        noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(p.stdout, keyTable())
			return err
		},
	}
}

// keyTable returns the keys as text, a paragraph for each.
func keyTable() string {
	var paragraphs []string
	for _, k := range config.Keys() {
		spellings := append([]string{k.ShellSafe()}, k.Aliases...)
		if k.Secret {
			spellings = append(spellings, k.Name+".file")
		}
		lines := append([]string{k.Name}, wrap("also "+strings.Join(spellings, ", "), helpWidth-4)...)
		lines = append(lines, wrap(k.Doc, helpWidth-4)...)
		if k.Default != "" {
			lines = append(lines, "default "+k.Default)
		}
		paragraphs = append(paragraphs, strings.Join(lines, "\n    ")+"\n")
	}
	return strings.Join(paragraphs, "\n")
}
