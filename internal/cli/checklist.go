package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"adconnector/internal/check"
	"adconnector/internal/status"
)

// checklist prints checks as they are done: in columns, on a terminal also in colors and
// wrapped. As JSON it prints one document at the end.
type checklist struct {
	out    *bufio.Writer
	json   bool
	width  int // of the terminal; 0: do not wrap, so that lines can be searched
	colors bool
	// skipped are the last checks if they were skipped: one line has all that follow each other.
	skipped []check.Check
}

const (
	terminalWidth = 100
	nameColumn    = 6  // begin of the name
	textColumn    = 30 // begin of the result's text
)

func newChecklist(out io.Writer, asJSON, terminal, colors bool) *checklist {
	l := &checklist{out: bufio.NewWriter(out), json: asJSON, colors: terminal && colors}
	if terminal {
		l.width = terminalWidth
	}
	return l
}

var resultColors = map[check.Result]string{check.OK: "\x1b[32m", check.Warn: "\x1b[33m", check.Fail: "\x1b[1;31m"}

func (l *checklist) print(c check.Check) {
	switch {
	case l.json:
		return
	case c.Skipped:
		l.skipped = append(l.skipped, c)
		return
	}
	l.printSkipped()
	l.printLine(c)
}

// printSkipped prints the skipped checks: a single one as a line of its own, several as one line
// with the reason of the first one, on which the others depend.
func (l *checklist) printSkipped() {
	all := l.skipped
	l.skipped = nil
	switch len(all) {
	case 0:
		return
	case 1:
		l.printLine(all[0])
		return
	}
	names := make([]string, len(all))
	for n, c := range all {
		names[n] = c.Name
	}
	l.printLine(check.Check{Name: fmt.Sprintf("%d checks", len(all)), Result: check.Warn, Skipped: true, Found: all[0].Found + " (" + strings.Join(names, ", ") + ")"})
}

func (l *checklist) printLine(c check.Check) {
	label := string(c.Result)
	if c.Skipped { // as in the numbers of the last line: not a warning
		label = "skip"
	}
	result := fmt.Sprintf("%-*s", nameColumn, label)
	if l.colors && !c.Skipped {
		result = resultColors[c.Result] + result + "\x1b[0m"
	}
	fmt.Fprintf(l.out, "%s%-*s%s\n", result, textColumn-nameColumn, c.Name, l.format(c.Found))
	if c.Remedy != "" {
		fmt.Fprintf(l.out, "%*s-> %s\n", textColumn, "", l.format(c.Remedy))
	}
	_ = l.out.Flush() // finish returns the error
}

// format wraps a text and indents all lines except the first one. It removes control
// characters, which a server can send.
func (l *checklist) format(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") { // each fault of a configuration is a line
		lines = append(lines, wrap(status.OneLine(line), l.width-textColumn-len("-> "))...)
	}
	return strings.Join(lines, "\n"+strings.Repeat(" ", textColumn))
}

// wrap breaks a text into lines of at most width columns. Longer words stay whole. With a
// width below 1, it returns the text as it is.
func wrap(text string, width int) []string {
	if width < 1 {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// finish prints the JSON document, or the number of checks by result.
func (l *checklist) finish(report check.Report) error {
	if l.json {
		return errors.Join(writeJSON(l.out, report), l.out.Flush())
	}
	l.printSkipped()
	count := map[check.Result]int{}
	skipped := 0
	for _, c := range report.Checks {
		if c.Skipped {
			skipped++
		} else {
			count[c.Result]++
		}
	}
	summary := fmt.Sprintf("%d ok, %d warn, %d fail", count[check.OK], count[check.Warn], count[check.Fail])
	if skipped > 0 {
		summary += fmt.Sprintf(", %d skipped", skipped)
	}
	fmt.Fprintf(l.out, "\n%s\n", summary)
	return l.out.Flush()
}
