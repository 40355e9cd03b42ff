package cli

import "io"

// welcome is the text for a person who starts the program on a terminal without any setting.
const welcome = `adconnector synchronizes users and groups from Active Directory to the Qualys
gateway. It found no settings, neither in the environment nor in an env file.

Watch it work, without a directory and without a gateway:

  adconnector demo

Set it up:

  1. Copy sample.env to ad.env (mode 0600), and replace the placeholders in <...>.
     All settings:                        adconnector keys
  2. Find mistakes and missing rights:    adconnector check --env-file ad.env
  3. Synchronize once:                    adconnector sync --env-file ad.env
  4. Run as a daemon:                     adconnector run --env-file ad.env

All commands:                             adconnector --help
`

// showsWelcome reports whether the text welcome replaces errors in the log: stderr is a terminal, and
// neither the log nor the result is JSON.
func (p *program) showsWelcome() bool {
	return isTerminal(p.stderr) && p.logFormat != "json" && p.output != "json"
}

// welcome prints the text welcome. It returns the exit code of a configuration without settings.
func (p *program) welcome() error {
	_, _ = io.WriteString(p.stderr, welcome) // the exit code is the result
	return exit(exitUsage)
}
