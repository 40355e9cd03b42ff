package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"adconnector/internal/check"
	"adconnector/internal/gateway"
	"adconnector/internal/status"
)

func (p *program) checkCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "check",
		Short: "Look at everything that a run needs, and say what to do where something is wrong",
		Long: `Looks at everything that a run needs and prints a line each: configuration, state
directory, proxy, gateway login, connection and profile, schedule, the network to
each server, TLS, bind, the account, base context, the right to read users, groups
and deletions, page size, counts, and clocks. A line is ok, warn or fail; under one
that is not ok stands what to do.

It goes on after a failure where it can. What hangs on a line that failed is a
warning that begins with "skipped". It changes nothing: it binds once, sends no
assets and no state, and makes no state file, so it can run beside the daemon. With
a failure it ends with the code that the run would end with.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.check(cmd.Context()) },
	}
	p.outputFlag(command)
	return command
}

// check prints its lines and returns the code that a run would end with.
func (p *program) check(ctx context.Context) error {
	o := p.preflight()
	list := newChecklist(p.stdout, p.output == "json", isTerminal(p.stdout), p.wantsColour())
	report := check.Run(ctx, o, list.show)
	if err := list.end(report); err != nil {
		return err
	}
	switch err := report.Err(); {
	case ctx.Err() != nil:
		return exit(exitInterrupted)
	case err != nil:
		return exit(codeOf(err))
	}
	return nil
}

// preflight wires a check up. What is wrong with the configuration is its first line.
func (p *program) preflight() check.Options {
	c, unknown, err := p.read(false)
	o := check.Options{Fault: err}
	for _, u := range unknown {
		text := fmt.Sprintf("%s (%s) is unknown", u.Key, u.Place)
		if u.Nearest != "" {
			text += ": is " + u.Nearest + " meant?"
		}
		o.Advice = append(o.Advice, text)
	}
	if err != nil {
		return o
	}
	o.Gateway, o.GatewayAddress = gateway.New(p.gatewayOptions(c, p.logger())), addressOf(c.Gateway.URL)
	o.Source, o.Search, o.StateDir = c.Run.Source, c.Run.Search, c.Service.StateDir
	if proxy := c.Gateway.Proxy; proxy != nil {
		o.ProxyAddress = net.JoinHostPort(proxy.Host, strconv.Itoa(proxy.Port))
	}
	if c.Service.Schedule != nil {
		o.Next = c.Service.Schedule.Next
	}
	return o
}

func addressOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// wantsColour is asked where there is a terminal: NO_COLOR and TERM=dumb say no.
func (p *program) wantsColour() bool {
	return !p.isDumb() && !slices.ContainsFunc(p.environ, func(pair string) bool {
		value, is := strings.CutPrefix(pair, "NO_COLOR=")
		return is && value != ""
	})
}

// isDumb reports whether the terminal can do nothing but print.
func (p *program) isDumb() bool { return slices.Contains(p.environ, "TERM=dumb") }

// checklist writes the lines of a check as they come: for people in columns, and on a
// terminal in colours and wrapped; for programs in one document at the end.
type checklist struct {
	out    *bufio.Writer
	json   bool
	width  int // 0: lines are as long as they are, so that they can be searched
	colour bool
}

const (
	terminalWidth = 100
	nameColumn    = 6  // after the result
	textColumn    = 30 // after the name
)

func newChecklist(out io.Writer, asJSON, terminal, colour bool) *checklist {
	l := &checklist{out: bufio.NewWriter(out), json: asJSON, colour: terminal && colour}
	if terminal {
		l.width = terminalWidth
	}
	return l
}

var colours = map[check.Result]string{check.OK: "\x1b[32m", check.Warn: "\x1b[33m", check.Fail: "\x1b[1;31m"}

func (l *checklist) show(c check.Check) {
	if l.json {
		return
	}
	result := fmt.Sprintf("%-*s", nameColumn, c.Result)
	if l.colour {
		result = colours[c.Result] + result + "\x1b[0m"
	}
	found := l.wrapped(c.Found)
	fmt.Fprintf(l.out, "%s%-*s%s\n", result, textColumn-nameColumn, c.Name, found)
	if c.Remedy != "" {
		fmt.Fprintf(l.out, "%*s-> %s\n", textColumn, "", l.wrapped(c.Remedy))
	}
	_ = l.out.Flush() // a person waits; end reports what went wrong
}

// wrapped breaks a text at spaces, and indents all but the first line. Of what comes
// from outside nothing is left that a terminal would obey.
func (l *checklist) wrapped(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") { // the faults of a configuration stand one to a line
		lines = append(lines, wrap(status.OneLine(line), l.width-textColumn-len("-> "))...)
	}
	return strings.Join(lines, "\n"+strings.Repeat(" ", textColumn))
}

// wrap breaks a text into lines of a width, or less where a word is longer; below 1 it
// does not.
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

// end writes the document, or how many there were of each result.
func (l *checklist) end(report check.Report) error {
	if l.json {
		encoded, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		l.out.Write(append(encoded, '\n'))
		return l.out.Flush()
	}
	number := map[check.Result]int{}
	for _, c := range report.Checks {
		number[c.Result]++
	}
	fmt.Fprintf(l.out, "\n%d ok, %d warn, %d fail\n", number[check.OK], number[check.Warn], number[check.Fail])
	return l.out.Flush()
}
