package status

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"adconnector/internal/fault"
)

// The lengths of the lists in the text. The JSON document has more.
const (
	textRuns    = 10
	textObjects = 20
)

// WriteText writes the report as text, with times in a time zone.
func (r Report) WriteText(out io.Writer, now time.Time, zone *time.Location) error {
	var b strings.Builder
	r.writeState(&b, now, zone)
	r.writeHeld(&b, zone)
	r.writeUndecided(&b, zone)
	r.writeRejections(&b, zone)
	r.writeUnreadable(&b, zone)
	r.writeLogons(&b, zone)
	r.writeRuns(&b, zone)
	_, err := io.WriteString(out, b.String())
	return err
}

func (r Report) writeState(b *strings.Builder, now time.Time, zone *time.Location) {
	line := newLine(b)
	switch {
	case r.State != "":
		line("state", "%s since %s", r.State, absoluteAndRelative(r.Since, now, zone))
	case len(r.Runs) > 0:
		line("state", "not registered: no successful login to the gateway yet")
	default:
		line("state", "none: no run with %s yet", r.StateDir)
	}
	switch {
	case r.From == FromFile:
		line("daemon", "%s; status from the state file in %s", OneLine(r.Daemon), r.StateDir)
		if r.DaemonRemedy != "" {
			line("remedy", "%s", OneLine(r.DaemonRemedy))
		}
		if r.NextRun.After(now) {
			line("next run", "%s, if a daemon runs", absoluteAndRelative(r.NextRun, now, zone))
		}
	case !r.NextRun.IsZero():
		line("next run", "%s", absoluteAndRelative(r.NextRun, now, zone))
	}
	if r.WaitsFor != "" {
		line("waiting for", "the gateway's %s, until %s", r.WaitsFor, absoluteAndRelative(r.WaitsUntil, now, zone))
	}
	if r.WorkersAllowed > 0 {
		line("workers", "%d, the gateway's concurrency limit, since %s", r.WorkersAllowed, absoluteAndRelative(r.WorkersNotedAt, now, zone))
	}
	if !r.BindsPausedUntil.IsZero() {
		line("binds paused", "until %s, after %s", absoluteAndRelative(r.BindsPausedUntil, now, zone), r.refusedBinds())
	}
	r.writeLastRun(b)
	r.writeServers(b)
	if !r.LastSuccess.IsZero() {
		line("last success", "%s", absoluteAndRelative(r.LastSuccess, now, zone))
	}
	if !r.LastFullSync.IsZero() {
		line("last full sync", "%s", absoluteAndRelative(r.LastFullSync, now, zone))
	}
	undecided := ""
	if r.Undecided > 0 {
		undecided = ", " + Quantity(r.Undecided, "deletion", "deletions") + " undecided"
	}
	if r.Logons != nil && r.Logons.Error == "" {
		line("last logons", "%d of %s answered, %s", r.Logons.Answered, Quantity(len(r.Logons.Controllers), "other domain controller", "other domain controllers"), absoluteAndRelative(r.Logons.At, now, zone))
	}
	for _, e := range r.urgent(now) {
		line("expires soon", "%s", e.describe(formatTime(e.Expires, zone), now))
		line("remedy", "%s", OneLine(e.Remedy))
	}
	line("objects", "%s in the index, %s held%s, %s rejected", FormatNumber(r.Objects), Quantity(r.Held, "deletion", "deletions"), undecided, FormatNumber(r.Rejected))
}

// newLine returns a function that writes a line with a name.
func newLine(b *strings.Builder) func(name, format string, values ...any) {
	return func(name, format string, values ...any) {
		fmt.Fprintf(b, "%-15s %s\n", name, fmt.Sprintf(format, values...))
	}
}

// writeLastRun writes how the last run ended, if it was killed, interrupted, or failed. The state
// does not have the error of the last run any more while the next one is active.
func (r Report) writeLastRun(b *strings.Builder) {
	line := newLine(b)
	err, remedy := r.Error, r.Remedy
	if err == "" && len(r.Runs) > 0 {
		err, remedy = r.Runs[0].Error, r.Runs[0].Remedy
	}
	switch {
	case r.From == FromFile && r.State == "PROCESSING": // no other process has the file open
		line("last run", killed)
	case r.interrupted():
		line("last run", interrupted)
	case err != "":
		line("last error", "%s", OneLine(err))
		if remedy != "" {
			line("remedy", "%s", OneLine(remedy))
		}
	}
}

func (r Report) writeServers(b *strings.Builder) {
	line := newLine(b)
	if r.Controller != "" {
		line("directory", "%s", OneLine(r.Controller))
	}
	for _, server := range r.Unreached {
		line("not reached", "%s", OneLine(server.Error))
		line("remedy", "%s", OneLine(server.Remedy))
	}
}

// refusedBinds describes the refused binds before a pause.
func (r Report) refusedBinds() string {
	if r.RefusedBinds == 1 {
		return "a refused bind"
	}
	return fmt.Sprintf("%d refused binds in a row", r.RefusedBinds)
}

func (r Report) writeHeld(b *strings.Builder, zone *time.Location) {
	if r.Held == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s. Check whether the objects were deleted from the directory on purpose.\n"+
		"If so, run adconnector sync --allow-deletes. If not, restore the objects.\n", Quantity(r.Held, "deletion is held", "deletions are held"))
	table := newTable(b, "KIND", "SID", "GUID", "HELD SINCE")
	for _, h := range r.HeldDeletions[:min(len(r.HeldDeletions), textObjects)] {
		table.row(h.Kind, h.SID, h.GUID, formatTime(h.Since, zone))
	}
	table.finish(r.Held - textObjects)
}

func (r Report) writeUndecided(b *strings.Builder, zone *time.Location) {
	if r.Undecided == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s: nothing proves that the objects were deleted. They are not sent as\n"+
		"deleted, and each run examines them again.\n", Quantity(r.Undecided, "deletion is undecided", "deletions are undecided"))
	for _, u := range r.UndecidedReasons {
		fmt.Fprintf(b, "\n%s: %s, since %s\n", OneLine(u.Reason), Quantity(u.Objects, "object", "objects"), formatTime(u.Since, zone))
		if u.Remedy != "" {
			fmt.Fprintf(b, "remedy: %s\n", OneLine(u.Remedy))
		}
	}
	b.WriteString("\n")
	table := newTable(b, "KIND", "SID", "GUID", "UNDECIDED SINCE", "REASON")
	for _, u := range r.UndecidedDeletions[:min(len(r.UndecidedDeletions), textObjects)] {
		table.row(u.Kind, u.SID, u.GUID, formatTime(u.Since, zone), u.Reason)
	}
	table.finish(r.Undecided - textObjects)
}

func (r Report) writeRejections(b *strings.Builder, zone *time.Location) {
	if r.Rejected == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s rejected by the gateway. Each is sent again when it changes,\n"+
		"after 1, 2, 4, … hours, and in full syncs. It does not delay other objects.\n", Quantity(r.Rejected, "object is", "objects are"))
	table := newTable(b, "KIND", "SID", "GUID", "ATTEMPTS", "LAST ATTEMPT", "REASON")
	for _, j := range r.Rejections[:min(len(r.Rejections), textObjects)] {
		table.row(j.Kind, j.SID, j.GUID, fmt.Sprint(j.Attempts), formatTime(j.At, zone), j.Reason)
	}
	table.finish(r.Rejected - textObjects)
}

// writeLogons writes the domain controllers whose logons are missing.
func (r Report) writeLogons(b *strings.Builder, zone *time.Location) {
	if !r.LogonsMissing() {
		return
	}
	l := r.Logons
	if l.Error != "" {
		fmt.Fprintf(b, "\nThe logons of the other domain controllers are missing: %s\n", OneLine(l.Error))
		if l.Remedy != "" {
			fmt.Fprintf(b, "remedy: %s\n", OneLine(l.Remedy))
		}
		return
	}
	missing := len(l.Controllers) - l.Answered
	part := fmt.Sprintf("%d of %d other domain controllers", missing, len(l.Controllers))
	if len(l.Controllers) == 1 {
		part = "the other domain controller"
	}
	fmt.Fprintf(b, "\nThe logons of %s are missing. The next full sync asks for them again.\n", part)
	table := newTable(b, "DOMAIN CONTROLLER", "RESULT", "KNOWN UNTIL", "ERROR", "REMEDY")
	for _, c := range l.Controllers[:min(missing, textObjects)] {
		until := "never asked"
		if !c.AskedUntil.IsZero() {
			until = formatTime(c.AskedUntil, zone)
		}
		table.row(c.Host, c.Result, until, c.Error, c.Remedy)
	}
	table.finish(missing - textObjects)
}

func (r Report) writeRuns(b *strings.Builder, zone *time.Location) {
	if len(r.Runs) == 0 {
		return
	}
	b.WriteString("\n")
	table := newTable(b, "LAST RUNS", "MODE", "RESULT", "READ", "CHANGED", "UPLOADED", "DELETED", "HELD", "UNDECIDED", "REJECTED", "UNREADABLE", "REQUESTS", "TIME")
	for _, run := range r.Runs[:min(len(r.Runs), textRuns)] {
		row := []string{formatTime(run.Start, zone), run.Mode, outcome(run)}
		for _, n := range []int{run.Read(), run.Changed, run.Uploaded, run.Deleted, run.Held, run.Undecided, run.Rejected, run.Unreadable, run.Requests} {
			row = append(row, FormatNumber(n))
		}
		table.row(append(row, run.Duration().Round(time.Millisecond).String())...)
	}
	table.finish(0)
}

func (r Report) writeUnreadable(b *strings.Builder, zone *time.Location) {
	u := r.Unreadable
	if u.Objects == 0 {
		return
	}
	effect := map[lacks]string{
		lacksOthers:     "Their values at the gateway stay, and the next full\nsync reads them.",
		lacksDescriptor: "They are sent without controlledBy, and the next\nfull sync reads it.",
		lacksBoth:       "They are sent without controlledBy, or their values\nat the gateway stay. The next full sync reads them.",
	}[lacksOf(u.Attributes)]
	fmt.Fprintf(b, "\n%s unreadable since %s: %s. %s\nremedy: %s\n", Quantity(u.Objects, "object is", "objects are"), formatTime(u.At, zone), OneLine(strings.Join(u.Attributes, ", ")), effect, OneLine(u.Remedy))
}

// table writes aligned columns.
type table struct {
	out     *strings.Builder
	columns *tabwriter.Writer
}

func newTable(out *strings.Builder, headings ...string) table {
	t := table{out, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(headings...)
	return t
}

// row writes one line.
func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = OneLine(cell)
	}
	fmt.Fprintln(t.columns, strings.Join(cells, "\t"))
}

// finish writes the table, and the number of further rows.
func (t table) finish(more int) {
	_ = t.columns.Flush() // cannot fail: writes to memory
	if more > 0 {
		fmt.Fprintf(t.out, "… and %s more (--output json lists the first %s)\n", FormatNumber(more), FormatNumber(maxListed))
	}
}

// OneLine returns text as one line without unprintable characters, which terminals may interpret.
func OneLine(text string) string { return fault.OneLine(text, 0) }

func formatTime(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("2006-01-02 15:04:05 MST")
}

// absoluteAndRelative formats a time in a time zone and relative to now.
func absoluteAndRelative(t, now time.Time, zone *time.Location) string {
	return formatTime(t, zone) + " (" + relativeTime(t.Sub(now)) + ")"
}

// relativeTime formats a duration relative to now, like "in 2 minutes" or "2 days ago".
func relativeTime(d time.Duration) string {
	text, isPast := "", d < 0
	switch d = d.Abs(); {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		text = pluralize(d, time.Second, "second")
	case d < 2*time.Hour:
		text = pluralize(d, time.Minute, "minute")
	case d < 48*time.Hour:
		text = pluralize(d, time.Hour, "hour")
	default:
		text = pluralize(d, 24*time.Hour, "day")
	}
	if isPast {
		return text + " ago"
	}
	return "in " + text
}

func pluralize(d, unit time.Duration, name string) string {
	return Quantity(int(d.Round(unit)/unit), name, name+"s")
}
