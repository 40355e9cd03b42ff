package status

import (
	"net/http"
	"slices"
	"time"

	"adconnector/internal/state"
)

// runPage is the data of the page of one run.
type runPage struct {
	layout
	state.Run
	Newer, Older string // paths of the pages of the neighbors; "": none
	Problems     []problem
	Stages       []shownStage
}

// shownStage is a stage of a run with the bar of its share of the run.
type shownStage struct {
	state.Stage
	Meaning  string
	Width    float64 // of 100
	EndedRun bool    // by an error
}

// stageMeanings describe the stages.
var stageMeanings = map[string]string{
	"connect":     "log in to the gateway, connect and bind to the directory, check rights",
	"memberships": "read the members of groups",
	"logons":      "ask the other domain controllers for logons",
	"read":        "read the objects, and send those that changed",
	"settle":      "find deleted and due objects, decide deletions",
	"drain":       "wait until the gateway has accepted everything",
	"record":      "record the progress in the state file",
}

// newRunPage returns the page of the run with an ID, or false.
func newRunPage(report Report, id string, now time.Time) (runPage, bool) {
	i := slices.IndexFunc(report.Runs, func(run state.Run) bool { return run.ID == id })
	if i < 0 {
		return runPage{}, false
	}
	p := runPage{layout: layout{report.Version, now}, Run: report.Runs[i], Problems: runProblems(report.Runs[i])}
	if i > 0 {
		p.Newer = runPath(report.Runs[i-1])
	}
	if i+1 < len(report.Runs) {
		p.Older = runPath(report.Runs[i+1])
	}
	total := max(p.DurationMS, 1)
	for n, stage := range p.Run.Stages {
		p.Stages = append(p.Stages, shownStage{
			stage, stageMeanings[stage.Name], round(min(100*float64(stage.DurationMS)/float64(total), 100)), p.Error != "" && n == len(p.Run.Stages)-1,
		})
	}
	return p, true
}

// runProblems returns what is to be known about one run.
func runProblems(run state.Run) (list []problem) {
	if run.Error != "" {
		p := problem{Severity: severityBad, Title: "The run failed.", Details: []string{run.Error}, Remedy: run.Remedy}
		if outcome(run) == "interrupted" {
			p.Severity, p.Title = severityWarn, "The run was interrupted."
		}
		list = append(list, p)
	}
	if run.Held > 0 {
		list = append(list, problem{severityWarn, "Deletions were held.", []string{Quantity(run.Held, "deletion", "deletions") + "."}, state.HeldRemedy, ""})
	}
	if run.Undecided > 0 {
		list = append(list, problem{severityWarn, "Deletions were undecided.", []string{Quantity(run.Undecided, "deletion", "deletions") + "."}, "", ""})
	}
	if run.Rejected > 0 {
		list = append(list, problem{severityWarn, "The gateway rejected objects.", []string{Quantity(run.Rejected, "object", "objects") + "."}, state.RejectedRemedy, ""})
	}
	if run.Unreadable > 0 {
		list = append(list, unreadableProblem(run.Unreadable, run.MissingRights, run.RightsRemedy))
	}
	if run.Controller != "" {
		for _, server := range run.Unreached {
			list = append(list, unreachedProblem(server))
		}
	}
	return list
}

// Counts returns the numbers of the run, in the order of the page.
func (p runPage) Counts() []count {
	return []count{
		{"Users read", p.Users}, {"Groups read", p.Groups}, {"Service accounts read", p.ServiceAccounts}, {"Roles read", p.Roles},
		{"Domains read", p.Domains}, {"Unchanged, read again", p.Reread}, {"Changed", p.Changed}, {"Uploaded", p.Uploaded}, {"Deleted", p.Deleted},
		{"Deletions held", p.Held}, {"Deletions undecided", p.Undecided}, {"Rejected", p.Rejected}, {"Unreadable", p.Unreadable}, {"Skipped, without identifier", p.Skipped},
		{"Requests to the gateway", p.Requests}, {"Retries", p.Retries},
	}
}

type count struct {
	Name   string
	Number int
}

func (e Endpoint) showRun(w http.ResponseWriter, r *http.Request) {
	report, err := e.Report()
	if err != nil {
		unavailable(w, err)
		return
	}
	now := time.Now()
	p, found := newRunPage(report, r.PathValue("id"), now)
	if !found {
		writePage(w, http.StatusNotFound, "missing", layout{report.Version, now})
		return
	}
	writePage(w, http.StatusOK, "run", p)
}
