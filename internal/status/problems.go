package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// problem is something that a person should know, and what to do about it.
type problem struct {
	Severity string // a class of the style sheet: bad, warn or note
	Title    string
	Details  []string
	Remedy   string
	List     string // ID of the section of the page that lists the objects; "": none
}

// The severities. A note requires no action now.
const (
	severityBad  = "bad"
	severityWarn = "warn"
	severityNote = "note"
)

const (
	remedyInterrupted = "none required: the next run continues"
	remedyWait        = "none required: the upload continues then"
	remedyWorkers     = "none required: the connector tries more calls from time to time; to avoid refused calls, set thread-pool.size to this number"
	remedyLogons      = "see the remedy of each domain controller; the next full sync asks them again"
)

// problems returns what a person should know, the most severe first. The remedies are those of the
// log. clock formats a time, and now decides what expires soon.
func (r *Report) problems(clock func(time.Time) string, now time.Time) []problem {
	var list []problem
	add := func(found bool, p problem) {
		if found {
			list = append(list, p)
		}
	}
	if len(r.Runs) > 0 {
		add(outcome(r.Runs[0]) == "failed", r.failure(clock))
		add(r.interrupted(), problem{severityWarn, interrupted, nil, remedyInterrupted, ""})
	}
	add(!r.BindsPausedUntil.IsZero(), problem{severityBad, "Binds are paused.", []string{"Until " + clock(r.BindsPausedUntil) + ", after " + r.refusedBinds() + "."}, r.BindRemedy, ""})
	add(r.Held > 0, problem{severityWarn, "Held deletions require a decision.", []string{
		Quantity(r.Held, "deletion is", "deletions are") + " not sent, because there are more than the guard allows at once. If the objects are restored, their held deletions are removed.",
	}, state.HeldRemedy, "held"})
	for _, u := range r.UndecidedReasons {
		list = append(list, problem{severityWarn, "Some deletions are undecided.", []string{
			Quantity(u.Objects, "object is missing", "objects are missing") + ", but nothing proves the deletion: " + u.Reason + ", since " + clock(u.Since) + ".",
		}, u.Remedy, "undecided"})
	}
	add(r.Undecided > 0 && len(r.UndecidedReasons) == 0, problem{severityWarn, "Some deletions are undecided.", nil, "", "undecided"})
	add(r.Rejected > 0, problem{severityWarn, "The gateway rejects some objects.", []string{
		Quantity(r.Rejected, "object is", "objects are") + " rejected. Other objects are not affected.",
	}, state.RejectedRemedy, "rejected"})
	add(r.Unreadable.Objects > 0, unreadableProblem(r.Unreadable.Objects, r.Unreadable.Attributes, r.Unreadable.Remedy))
	for _, server := range r.unreachedBesides() {
		list = append(list, unreachedProblem(server))
	}
	add(r.LogonsMissing(), r.logonsProblem())
	urgent := r.urgent(now)
	for _, e := range urgent {
		add(state.UrgencyOf(e.Expires, now) == state.ExpiryWarning, expiryProblem(severityWarn, e, clock, now))
	}
	add(r.WaitsFor != "", problem{severityWarn, "Waiting for the gateway's " + r.WaitsFor + ".", []string{"It ends at " + clock(r.WaitsUntil) + "."}, remedyWait, ""})
	add(r.WorkersAllowed > 0, problem{severityNote, "The gateway limits concurrent calls.", []string{
		"It accepts " + Quantity(r.WorkersAllowed, "call", "calls") + " at a time, as of " + clock(r.WorkersNotedAt) + ".",
	}, remedyWorkers, ""})
	for _, e := range urgent {
		add(state.UrgencyOf(e.Expires, now) == state.ExpiryNotice, expiryProblem(severityNote, e, clock, now))
	}
	return list
}

// failure describes the failed last run.
func (r *Report) failure(clock func(time.Time) string) problem {
	last := r.Runs[0]
	p := problem{severityBad, "The last run failed.", []string{last.Error}, last.Remedy, ""}
	if last.Class == string(fault.Refused) {
		p.Title = "The last run was refused."
	}
	failed := 0
	for failed < len(r.Runs) && outcome(r.Runs[failed]) == "failed" {
		failed++
	}
	if failed > 1 {
		p.Title = fmt.Sprintf("The last %s runs failed.", FormatNumber(failed))
		p.Details = append(p.Details, "The first of them started at "+clock(r.Runs[failed-1].Start)+".")
	}
	return p
}

// unreachedBesides returns the servers that the last run did not reach, if it reached another one.
// Otherwise its error names them.
func (r *Report) unreachedBesides() []state.UnreachedServer {
	if len(r.Runs) > 0 && r.Runs[0].Controller == "" {
		return nil
	}
	return r.Unreached
}

func unreachedProblem(server state.UnreachedServer) problem {
	return problem{severityWarn, "A directory server was not reached.", []string{server.Error + ". Another server was read."}, server.Remedy, ""}
}

func unreadableProblem(objects int, attributes []string, remedy string) problem {
	effect := Quantity(objects, "object is", "objects are")
	switch lacksOf(attributes) {
	case lacksDescriptor:
		effect += " sent without controlledBy."
	case lacksBoth:
		effect += " not completely readable. Those that lack only " + ad.AttributeDescriptor + " are sent without controlledBy. The others are not sent, and their values at the gateway stay."
	case lacksOthers:
		effect += " not sent, and the values at the gateway stay."
	}
	return problem{severityWarn, "The account cannot read some objects.", []string{effect + " Unreadable attributes: " + strings.Join(attributes, ", ") + "."}, remedy, ""}
}

// lacks is which attributes unreadable objects lack.
type lacks int

const (
	lacksOthers     lacks = iota // the objects are not sent
	lacksDescriptor              // the objects are sent
	lacksBoth
)

func lacksOf(attributes []string) lacks {
	switch {
	case !slices.Contains(attributes, ad.AttributeDescriptor):
		return lacksOthers
	case len(attributes) == 1:
		return lacksDescriptor
	}
	return lacksBoth
}

func expiryProblem(severity string, e Expiry, clock func(time.Time) string, now time.Time) problem {
	title := map[string]string{
		state.BindPassword: "The password of the bind account expires soon.", state.DirectoryCertificate: "The certificate of a directory server expires soon.",
		state.GatewayCertificate: "The certificate of the gateway expires soon.",
	}[e.Subject]
	if e.Expires.Before(now) {
		title = strings.Replace(title, "expires soon", "has expired", 1)
	}
	return problem{severity, title, []string{"It is the " + e.describe(clock(e.Expires), now) + "."}, e.Remedy, ""}
}

func (r *Report) logonsProblem() problem {
	p := problem{severityWarn, "Logons of some domain controllers are missing.", nil, remedyLogons, "logons"}
	if r.Logons == nil {
		return p
	}
	if r.Logons.Error != "" {
		p.Details, p.Remedy = []string{"The domain controllers are not known: " + r.Logons.Error + "."}, r.Logons.Remedy
		return p
	}
	p.Details = []string{fmt.Sprintf("%s of %s answered.", FormatNumber(r.Logons.Answered), Quantity(len(r.Logons.Controllers), "domain controller", "domain controllers"))}
	return p
}

// verdict returns the severity and the headline of a page.
func (r *Report) verdict(problems []problem) (severity, headline string) {
	switch {
	case len(problems) > 0 && problems[0].Severity != severityNote:
		return problems[0].Severity, problems[0].Title
	case len(r.Runs) == 0:
		return "good", "No run has ended yet."
	}
	return "good", "No problems."
}
