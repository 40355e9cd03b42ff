// Command adconnector synchronizes users and groups from Active Directory to the
// Qualys gateway. See README.md.
package main

import (
	"os"
	_ "time/tzdata" // for CRON_TZ= on systems without time zone data, like the image

	"adconnector/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
