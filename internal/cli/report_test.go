package cli

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// TestRunExit checks the exit code of a run.
func TestRunExit(t *testing.T) {
	t.Parallel()
	failure := func(class fault.Class) error {
		return fault.Operation{Op: "read", Object: "base"}.Failed(class, errors.New("cause"), "")
	}
	for name, c := range map[string]struct {
		run  state.Run
		err  error
		want error
	}{
		"everything delivered":   {state.Run{}, nil, nil},
		"skipped entries":        {state.Run{Skipped: 1}, nil, nil},
		"unreadable":             {state.Run{Unreadable: 1}, nil, nil},
		"unreadable, rejected":   {state.Run{Unreadable: 1, Rejected: 1}, nil, exit(exitRejected)},
		"unreadable, held":       {state.Run{Unreadable: 1, Held: 1}, nil, exit(exitHeld)},
		"rejected":               {state.Run{Rejected: 1}, nil, exit(exitRejected)},
		"held":                   {state.Run{Held: 1}, nil, exit(exitHeld)},
		"undecided":              {state.Run{Undecided: 1}, nil, exit(exitHeld)},
		"held and rejected":      {state.Run{Held: 1, Rejected: 1}, nil, exit(exitHeld)},
		"undecided and rejected": {state.Run{Undecided: 1, Rejected: 1}, nil, exit(exitHeld)},
		"failed":                 {state.Run{Undecided: 1}, failure(fault.Transient), exit(exitFailed)},
		"refused":                {state.Run{Held: 1, Rejected: 1}, failure(fault.Refused), exit(exitRefused)},
		"interrupted":            {state.Run{Undecided: 1}, failure(fault.Canceled), exit(exitInterrupted)},
	} {
		if got := runExit(c.run, c.err); !errors.Is(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestReportIsPrintable tests that no character in a name or an error, which others write, reaches the
// terminal as it is.
func TestReportIsPrintable(t *testing.T) {
	t.Parallel()
	const odd = "a\u009b2J\u202eb\x1b[2J"
	for _, asJSON := range []bool{false, true} {
		var out strings.Builder
		r := newReport(&out, asJSON)
		r.addAsset(identity.Asset{Kind: identity.User, SID: ad.Everyone, Name: []byte(odd)}, false)
		if err := r.finish(state.Run{Result: "failed", Error: odd, Remedy: odd}, true); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(&out, errorDocument{Error: odd}); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("JSON %t: %q", asJSON, out.String()[i:])
		}
	}
}

// TestReportOfUndecidedDeletions checks the result of a run with undecided deletions, and the
// list of a dry run.
func TestReportOfUndecidedDeletions(t *testing.T) {
	t.Parallel()
	run := state.Run{Mode: "full", Result: "held", Users: 7, Groups: 2, Changed: 1, Uploaded: 1, Held: 3, Undecided: 2, Rejected: 1, DurationMS: 1000}
	object := identity.Object{GUID: ad.GUID{15: 1}, Kind: identity.User, SID: ad.SID{1, 1, 0, 0, 0, 0, 0, 5, 0, 4, 0, 0}, Name: "user7"}
	const guid = "00000000-0000-0000-0000-000000000001"
	const remedies = "remedy: " + state.HeldRemedy + "\nremedy: see adconnector status for the reasons why deletions are undecided, and what resolves them\n" +
		"remedy: see adconnector status for the gateway's reasons, and correct the rejected objects in the directory\n"
	for name, c := range map[string]struct {
		dryRun bool
		want   string
	}{
		"run": {false, "held (full): 7 users and 2 groups read, 1 changed, 1 uploaded, 0 deleted, 3 deletions held, 2 deletions undecided, 1 rejected, in 1s\n" + remedies},
		"dry run": {true, "undecided user  " + guid + ` S-1-5-1024 "user7": sync scope changed` +
			"\nheld (full): 7 users and 2 groups read, 1 changed, 3 deletions would be held, 2 deletions undecided, nothing sent (dry run), in 1s\n" + remedies},
	} {
		for _, asJSON := range []bool{false, true} {
			var out strings.Builder
			r := newReport(&out, asJSON)
			if c.dryRun {
				r.addUndecided(object, "sync scope changed")
			}
			if err := r.finish(run, c.dryRun); err != nil {
				t.Fatal(err)
			}
			if !asJSON {
				if got := out.String(); got != c.want {
					t.Errorf("%s: %q, want %q", name, got, c.want)
				}
				continue
			}
			var got struct {
				Undecided int
				Planned   []plannedAsset
			}
			if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
				t.Fatal(err)
			}
			var planned []plannedAsset
			if c.dryRun {
				planned = []plannedAsset{{"undecided", "user", guid, "S-1-5-1024", "user7", "sync scope changed"}}
			}
			if got.Undecided != 2 || !reflect.DeepEqual(got.Planned, planned) {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
}

// TestReportOfFailedRun checks that a failed run prints its error, its remedy, and what was done before.
func TestReportOfFailedRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run  state.Run
		want string
	}{
		"failed":         {state.Run{Error: "bind: wrong\npassword", Remedy: "set ldap.password", Class: "refused"}, "failed: bind: wrong password\nremedy: set ldap.password\n"},
		"without remedy": {state.Run{Error: "search: reset", Class: "transient"}, "failed: search: reset\n"},
		"interrupted":    {state.Run{Error: "search: context canceled", Class: "canceled"}, "interrupted: search: context canceled\n"},
		"partly done": {state.Run{Error: "search: reset", Class: "transient", Uploaded: 500, Deleted: 2, Rejected: 1},
			"failed: search: reset\ndone before: 500 uploaded, 2 deleted, 1 rejected; the next run continues\n"},
	} {
		c.run.Result = "failed"
		for _, dryRun := range []bool{false, true} {
			var out strings.Builder
			if err := newReport(&out, false).finish(c.run, dryRun); err != nil || out.String() != c.want {
				t.Errorf("%s: %q, want %q, error %v", name, out.String(), c.want, err)
			}
		}
	}
}
