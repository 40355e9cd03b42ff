package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/status"
)

// report writes the result of a run as text or as one JSON document. A dry run writes each
// asset immediately: all assets of a directory can need much memory.
type report struct {
	mu     sync.Mutex // users and groups are read concurrently
	out    *bufio.Writer
	json   bool
	assets int // in the document
	err    error
}

// outputFlag adds the flag --output.
func (p *program) outputFlag(command *cobra.Command) {
	command.Flags().StringVar(&p.output, "output", "text", "`FORMAT` of the result on stdout: text or json")
	completeFlag(command, "output", "text", "json")
	command.PreRunE = func(*cobra.Command, []string) error {
		if p.output != "text" && p.output != "json" {
			return newUsageError(fmt.Errorf("--output %q is not allowed", p.output), "use text or json")
		}
		return nil
	}
}

// errorDocument is the JSON document of a command that failed before it had a result. Joined
// errors have one line each in both texts.
type errorDocument struct {
	Error    string      `json:"error"`
	Remedy   string      `json:"remedy,omitempty"`
	Class    fault.Class `json:"class"`
	ExitCode int         `json:"exit_code"`
}

// withErrorDocument prints the error of a command that failed before it had a result, if the
// output is JSON. The error is also logged.
func (p *program) withErrorDocument(err error) error {
	if err == nil || p.resultStarted || p.output != "json" {
		return err
	}
	return errors.Join(err, writeJSON(p.stdout, errorDocument{err.Error(), fault.Remedies(err), fault.ClassOf(err), exitCodeOf(err)}))
}

// writeJSON writes an indented JSON document.
func writeJSON(out io.Writer, document any) error {
	encoded, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	_, err = out.Write(fault.EscapeJSON(append(encoded, '\n')))
	return err
}

func newReport(out io.Writer, asJSON bool) *report {
	return &report{out: bufio.NewWriterSize(out, 64<<10), json: asJSON}
}

// plannedAsset is an asset that a dry run would send.
type plannedAsset struct {
	Action string                `json:"action"` // send, delete, hold, undecided
	Kind   string                `json:"kind"`
	GUID   string                `json:"guid"`
	SID    string                `json:"sid"`
	Name   string                `json:"name,omitempty"`
	Reason state.UndecidedReason `json:"reason,omitempty"` // of an undecided deletion
}

func (r *report) addAsset(asset identity.Asset, held bool) {
	o := plannedAsset{Action: "send", Kind: asset.Kind.String(), GUID: asset.GUID.String(), SID: asset.SID.String(), Name: string(asset.Name)}
	switch {
	case held:
		o.Action = "hold"
	case asset.Deleted:
		o.Action = "delete"
	}
	r.add(o)
}

func (r *report) addUndecided(object identity.Object, reason state.UndecidedReason) {
	r.add(plannedAsset{"undecided", object.Kind.String(), object.GUID.String(), object.SID.String(), object.Name, reason})
}

// add writes an asset.
func (r *report) add(o plannedAsset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	if !r.json {
		line := fmt.Sprintf("%-6s %-5s %s %s %q", o.Action, o.Kind, o.GUID, o.SID, o.Name)
		if o.Reason != "" {
			line += ": " + string(o.Reason)
		}
		_, r.err = fmt.Fprintln(r.out, line)
		return
	}
	encoded, err := json.Marshal(o)
	if err != nil {
		r.err = err
		return
	}
	before := ",\n    "
	if r.assets == 0 {
		before = "{\n  \"planned\": [\n    "
	}
	r.assets++
	_, r.err = r.out.WriteString(before + string(fault.EscapeJSON(encoded)))
}

// runDocument is the JSON document of a run.
type runDocument struct {
	state.Run
	DryRun bool `json:"dry_run"`
}

// finish writes the result of the run.
func (r *report) finish(run state.Run, dryRun bool) error {
	if r.err != nil {
		return r.err
	}
	if r.json {
		encoded, err := json.MarshalIndent(runDocument{run, dryRun}, "", "  ")
		if err != nil {
			return err
		}
		encoded = fault.EscapeJSON(encoded)
		switch {
		case r.assets > 0:
			_, _ = r.out.WriteString("\n  ],")
			encoded = encoded[1:] // without the brace, which is already written
		case dryRun:
			_, _ = r.out.WriteString("{\n  \"planned\": [],")
			encoded = encoded[1:]
		}
		_, _ = r.out.Write(append(encoded, '\n'))
		return r.out.Flush() // also returns the error of an earlier write
	}
	writeRunText(r.out, run, dryRun)
	return r.out.Flush()
}

// writeRunText writes what a run has done, or why it failed and what to do.
func writeRunText(out io.Writer, run state.Run, dryRun bool) {
	if run.Error != "" {
		writeFailure(out, run)
		return
	}
	n := status.FormatNumber
	undecided := ""
	if run.Undecided > 0 {
		undecided = ", " + count(run.Undecided, "deletion") + " undecided"
	}
	sent := fmt.Sprintf("%s uploaded, %s deleted, %s held%s, %s rejected", n(run.Uploaded), n(run.Deleted), count(run.Held, "deletion"), undecided, n(run.Rejected))
	if dryRun {
		sent = fmt.Sprintf("%s would be held%s, nothing sent (dry run)", count(run.Held, "deletion"), undecided)
	}
	if run.Skipped > 0 {
		sent += fmt.Sprintf(", %s skipped", n(run.Skipped))
	}
	if run.Unreadable > 0 {
		sent += fmt.Sprintf(", %s unreadable", n(run.Unreadable))
	}
	fmt.Fprintf(out, "%s (%s): %s, %s changed, %s, in %s\n",
		run.Result, run.Mode, describeRead(run), n(run.Changed), sent, run.Duration().Round(time.Millisecond))
	for _, remedy := range runRemedies(run) {
		fmt.Fprintf(out, "remedy: %s\n", status.OneLine(remedy))
	}
}

// runRemedies returns what to do after a run that did not fail. The log of a run that a daemon
// executed, which has them too, is not on the terminal.
func runRemedies(run state.Run) (remedies []string) {
	if run.Held > 0 {
		remedies = append(remedies, state.HeldRemedy)
	}
	if run.Undecided > 0 {
		remedies = append(remedies, "see adconnector status for the reasons why deletions are undecided, and what resolves them")
	}
	if run.Rejected > 0 {
		remedies = append(remedies, "see adconnector status for the gateway's reasons, and correct the rejected objects in the directory")
	}
	if run.RightsRemedy != "" {
		remedies = append(remedies, run.RightsRemedy)
	}
	return remedies
}

// writeFailure writes the error of a run, its remedy, and what was done before.
func writeFailure(out io.Writer, run state.Run) {
	result := run.Result
	if run.Class == string(fault.Canceled) {
		result = "interrupted"
	}
	fmt.Fprintf(out, "%s: %s\n", result, status.OneLine(run.Error))
	if run.Remedy != "" {
		fmt.Fprintf(out, "remedy: %s\n", status.OneLine(run.Remedy))
	}
	if run.Uploaded+run.Deleted+run.Rejected > 0 {
		n := status.FormatNumber
		fmt.Fprintf(out, "done before: %s uploaded, %s deleted, %s rejected; the next run continues\n", n(run.Uploaded), n(run.Deleted), n(run.Rejected))
	}
}
