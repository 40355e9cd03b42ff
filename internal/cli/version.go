package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Set by the linker; see Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "Print the version, the commit, and the Go version",
		Long:        "Print the version, the commit, and the Go version on one line.",
		Example:     "  adconnector version",
		Annotations: exits(meanings{exitFailed: "the output could not be written", exitUsage: onlyBadUsage}, exitDone, exitFailed, exitUsage),
		Args:        noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "adconnector %s, commit %s, %s\n", version, commit, runtime.Version())
			return err
		},
	}
}
