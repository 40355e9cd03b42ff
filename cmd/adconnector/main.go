// Command adconnector brings users and groups from Active Directory to the
// Qualys gateway. See README.md.
package main

import (
	"os"

	"adconnector/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
