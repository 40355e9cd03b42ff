package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"adconnector/internal/config"
)

func (p *program) keysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keys",
		Short: "List every configuration key, its default, and its allowed values",
		Long: `List every configuration key by subject, with its other spellings, its meaning, its
allowed values, and its default.

A key is an environment variable or a line of an env file. Write it as listed, or in
the form that shells accept: service.cron-expression is SERVICE_CRON_EXPRESSION. The
value of a secret can also come from a file: set KEY.file to its path. A daemon reads
the file again before each run.

An empty value counts as absent. The same key with different values, in the
environment or in one file, is an error. A key that is not listed, but similar to a
listed one, has no effect and is logged as a warning.`,
		Example: `  # List all keys
  adconnector keys

  # List the keys of the directory
  adconnector keys | grep -A6 '^ldap'`,
		Annotations: exits(meanings{exitFailed: "the output could not be written", exitUsage: onlyBadUsage}, exitDone, exitFailed, exitUsage),
		Args:        noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(p.stdout, keyTable())
			return err
		},
	}
}

// keyTable returns the keys as text: a paragraph for each, below the title of its section.
func keyTable() string {
	var paragraphs []string
	for _, section := range config.Sections() {
		paragraphs = append(paragraphs, "# "+section.Title+"\n")
		for _, k := range section.Keys {
			paragraphs = append(paragraphs, keyParagraph(k))
		}
	}
	return strings.Join(paragraphs, "\n")
}

// keyParagraph returns the description of a key as text.
func keyParagraph(k config.Key) string {
	spellings := append([]string{k.ShellSafe()}, k.Aliases...)
	if k.Secret {
		spellings = append(spellings, k.Name+".file")
	}
	texts := []string{"also " + strings.Join(spellings, ", "), k.Meaning}
	if k.Allowed != "" {
		texts = append(texts, "allowed: "+k.Allowed)
	}
	texts = append(texts, keyDefault(k))
	if k.Since != "" {
		texts = append(texts, "since "+k.Since)
	}
	lines := []string{k.Name}
	for _, text := range texts {
		lines = append(lines, wrap(text, helpWidth-4)...)
	}
	return strings.Join(lines, "\n    ") + "\n"
}

// keyDefault returns what applies if the key is absent.
func keyDefault(k config.Key) string {
	if k.Required != "" {
		return k.Required
	}
	return "default: " + cmp.Or(k.Default, k.Absent)
}
