package cli

import (
	"io"
	"os"
	"slices"
	"strings"
)

func isTerminal(w io.Writer) bool {
	if _, ok := w.(*screen); ok {
		return true
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && file.Name() != os.DevNull
}

// allowsColors reports whether the environment allows colors on a terminal. NO_COLOR and
// TERM=dumb turn them off.
func (p *program) allowsColors() bool {
	return !p.isDumbTerminal() && !slices.ContainsFunc(p.environ, func(pair string) bool {
		value, found := strings.CutPrefix(pair, "NO_COLOR=")
		return found && value != ""
	})
}

// isDumbTerminal reports whether the terminal supports no control sequences.
func (p *program) isDumbTerminal() bool { return slices.Contains(p.environ, "TERM=dumb") }
