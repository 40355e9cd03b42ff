package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Stamped by the linker; see Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Long:  "Prints version, commit and Go version on one line.",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "adconnector %s, commit %s, %s\n", version, commit, runtime.Version())
			return err
		},
	}
}
