package status

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// What a terminal shows of the lists; the document has more.
const (
	textRuns    = 10
	textObjects = 20
)

// WriteText writes the report for people, times in that of their place.
func (r Report) WriteText(out io.Writer, now time.Time, place *time.Location) error {
	var b strings.Builder
	r.writeState(&b, now, place)
	r.writeHeld(&b, place)
	r.writeRejections(&b, place)
	r.writeRuns(&b, place)
	_, err := io.WriteString(out, b.String())
	return err
}

func (r Report) writeState(b *strings.Builder, now time.Time, place *time.Location) {
	line := func(name, format string, values ...any) {
		fmt.Fprintf(b, "%-15s %s\n", name, fmt.Sprintf(format, values...))
	}
	switch {
	case r.State != "":
		line("state", "%s since %s", r.State, moment(r.Since, now, place))
	case len(r.Runs) > 0:
		line("state", "not registered: the gateway has never accepted the login")
	default:
		line("state", "none: nothing has run with %s", r.StateDir)
	}
	switch {
	case r.From == FromFile:
		line("daemon", "%s; this is the state in %s", OneLine(r.Daemon), r.StateDir)
		if r.DaemonRemedy != "" {
			line("remedy", "%s", OneLine(r.DaemonRemedy))
		}
		if r.NextRun.After(now) {
			line("next run", "%s, if a daemon runs", moment(r.NextRun, now, place))
		}
	case !r.NextRun.IsZero():
		line("next run", "%s", moment(r.NextRun, now, place))
	}
	if r.WaitsFor != "" {
		line("waits for", "the gateway's %s, until %s", r.WaitsFor, moment(r.WaitsUntil, now, place))
	}
	switch {
	case r.interrupted():
		line("last run", interrupted)
	case r.Error != "":
		line("last error", "%s", OneLine(r.Error))
		if r.Remedy != "" {
			line("remedy", "%s", OneLine(r.Remedy))
		}
	}
	if !r.LastSuccess.IsZero() {
		line("last success", "%s", moment(r.LastSuccess, now, place))
	}
	if !r.LastFullPass.IsZero() {
		line("last full pass", "%s", moment(r.LastFullPass, now, place))
	}
	line("objects", "%d in the index, %d deletions held, %d rejected", r.Objects, r.Held, r.Rejected)
}

func (r Report) writeHeld(b *strings.Builder, place *time.Location) {
	if r.Held == 0 {
		return
	}
	fmt.Fprintf(b, "\n%d deletions are held. Look for what has gone from the directory: if it is right, stop\n"+
		"the daemon and run adconnector sync --allow-deletes; if not, they vanish when the objects are back.\n", r.Held)
	table := newTable(b, "KIND", "SID", "GUID", "HELD SINCE")
	for _, h := range r.HeldDeletions[:min(len(r.HeldDeletions), textObjects)] {
		table.row(h.Kind, h.SID, h.GUID, clock(h.Since, place))
	}
	table.end(r.Held - textObjects)
}

func (r Report) writeRejections(b *strings.Builder, place *time.Location) {
	if r.Rejected == 0 {
		return
	}
	fmt.Fprintf(b, "\n%d objects are rejected by the gateway. They are tried again when they\n"+
		"change, after an hour, two, four, …, and at full passes. Nothing else waits for them.\n", r.Rejected)
	table := newTable(b, "KIND", "SID", "GUID", "TRIES", "LAST", "THE GATEWAY SAYS")
	for _, j := range r.Rejections[:min(len(r.Rejections), textObjects)] {
		table.row(j.Kind, j.SID, j.GUID, fmt.Sprint(j.Attempts), clock(j.At, place), j.Reason)
	}
	table.end(r.Rejected - textObjects)
}

func (r Report) writeRuns(b *strings.Builder, place *time.Location) {
	if len(r.Runs) == 0 {
		return
	}
	b.WriteString("\n")
	table := newTable(b, "LAST RUNS", "MODE", "RESULT", "READ", "CHANGED", "UPLOADED", "DELETED", "HELD", "REJECTED", "REQUESTS", "TIME")
	for _, run := range r.Runs[:min(len(r.Runs), textRuns)] {
		table.row(clock(run.Start, place), run.Mode, outcome(run), fmt.Sprint(run.Users+run.Groups), fmt.Sprint(run.Changed), fmt.Sprint(run.Uploaded),
			fmt.Sprint(run.Deleted), fmt.Sprint(run.Held), fmt.Sprint(run.Rejected), fmt.Sprint(run.Requests), run.Duration.Round(time.Millisecond).String())
	}
	table.end(0)
}

// table aligns columns.
type table struct {
	out     *strings.Builder
	columns *tabwriter.Writer
}

func newTable(out *strings.Builder, heads ...string) table {
	t := table{out, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(heads...)
	return t
}

// row writes one line.
func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = OneLine(cell)
	}
	fmt.Fprintln(t.columns, strings.Join(cells, "\t"))
}

func (t table) end(more int) {
	_ = t.columns.Flush() // into memory
	if more > 0 {
		fmt.Fprintf(t.out, "… and %d more (--output json lists the first %d)\n", more, most)
	}
}

// OneLine makes what comes from outside one line that is fit for a terminal, which obeys some
// characters.
func OneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

func clock(at time.Time, place *time.Location) string {
	return at.In(place).Format("2006-01-02 15:04:05 MST")
}

// moment is a time as one says it: by the clock, and from now.
func moment(at, now time.Time, place *time.Location) string {
	return clock(at, place) + " (" + distance(at.Sub(now)) + ")"
}

// distance says how far off something is, in words.
func distance(d time.Duration) string {
	words, past := "", d < 0
	switch d = d.Abs(); {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		words = count(d, time.Second, "second")
	case d < 2*time.Hour:
		words = count(d, time.Minute, "minute")
	case d < 48*time.Hour:
		words = count(d, time.Hour, "hour")
	default:
		words = count(d, 24*time.Hour, "day")
	}
	if past {
		return words + " ago"
	}
	return "in " + words
}

func count(d, unit time.Duration, name string) string {
	n := int(d.Round(unit) / unit)
	if n == 1 {
		return "1 " + name
	}
	return fmt.Sprintf("%d %ss", n, name)
}
