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
)

// report writes the result of a run: lines of text, or one JSON document. What a
// dry run would send is written as it comes, since it may be the whole directory.
type report struct {
	mu     sync.Mutex // users and groups are read at the same time
	out    *bufio.Writer
	json   bool
	listed int
	err    error
}

// outputFlag lets a command print its result for programs.
func (p *program) outputFlag(command *cobra.Command) {
	command.Flags().StringVar(&p.output, "output", "text", "`FORMAT` of the result on stdout: text or json")
	complete(command, "output", "text", "json")
	command.PreRunE = func(*cobra.Command, []string) error {
		if p.output != "text" && p.output != "json" {
			return misused(fmt.Errorf("--output %q is not allowed", p.output), "use text or json")
		}
		return nil
	}
}

// refusal is the document of a command that cannot answer. Several errors, of a
// configuration, have one line each in both texts.
type refusal struct {
	Error    string `json:"error"`
	Remedy   string `json:"remedy,omitempty"`
	ExitCode int    `json:"exit_code"`
}

// told gives programs, too, the error of a command that ended before it answered. The
// log tells it to people.
func (p *program) told(err error) error {
	if err == nil || p.answers || p.output != "json" {
		return err
	}
	encoder := json.NewEncoder(p.stdout)
	encoder.SetIndent("", "  ")
	return errors.Join(err, encoder.Encode(refusal{err.Error(), fault.Remedies(err), codeOf(err)}))
}

func newReport(out io.Writer, asJSON bool) *report {
	return &report{out: bufio.NewWriterSize(out, 64<<10), json: asJSON}
}

// planned is an object that a dry run would send.
type planned struct {
	Action string `json:"action"` // send, delete, hold
	Kind   string `json:"kind"`
	GUID   string `json:"guid"`
	SID    string `json:"sid"`
	Name   string `json:"name,omitempty"`
}

func (r *report) show(asset identity.Asset, held bool) {
	o := planned{"send", asset.Kind.String(), asset.GUID.String(), asset.SID.String(), string(asset.Name)}
	switch {
	case held:
		o.Action = "hold"
	case asset.Deleted:
		o.Action = "delete"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	if !r.json {
		_, r.err = fmt.Fprintf(r.out, "%-6s %-5s %s %s %q\n", o.Action, o.Kind, o.GUID, o.SID, o.Name)
		return
	}
	encoded, err := json.Marshal(o)
	if err != nil {
		r.err = err
		return
	}
	before := ",\n    "
	if r.listed == 0 {
		before = "{\n  \"planned\": [\n    "
	}
	r.listed++
	_, r.err = r.out.WriteString(before + string(encoded))
}

// result is a run as programs read it.
type result struct {
	state.Run
	DurationMS int64 `json:"duration_ms"`
	DryRun     bool  `json:"dry_run"`
}

// end writes the account of the run.
func (r *report) end(run state.Run, dryRun bool) error {
	if r.err != nil {
		return r.err
	}
	if r.json {
		encoded, err := json.MarshalIndent(result{run, run.Duration.Milliseconds(), dryRun}, "", "  ")
		if err != nil {
			return err
		}
		switch {
		case r.listed > 0:
			r.out.WriteString("\n  ],")
			encoded = encoded[1:] // the object is open already
		case dryRun:
			r.out.WriteString("{\n  \"planned\": [],")
			encoded = encoded[1:]
		}
		r.out.Write(append(encoded, '\n'))
		return r.out.Flush() // reports what the writes before it did not
	}
	sent := fmt.Sprintf("%d uploaded, %d deleted, %d deletions held, %d rejected", run.Uploaded, run.Deleted, run.Held, run.Rejected)
	if dryRun {
		sent = fmt.Sprintf("%d deletions would be held, nothing sent (dry run)", run.Held)
	}
	if run.Skipped > 0 {
		sent += fmt.Sprintf(", %d skipped", run.Skipped)
	}
	fmt.Fprintf(r.out, "%s (%s): %d users and %d groups read, %d changed, %s, in %s\n",
		run.Result, run.Mode, run.Users, run.Groups, run.Changed, sent, run.Duration.Round(time.Millisecond))
	return r.out.Flush()
}
