package syncrun

import (
	"errors"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/upload"
)

// TestReportResult checks the result of a run by what it held, could not decide, and what was
// rejected.
func TestReportResult(t *testing.T) {
	t.Parallel()
	some := []identity.Object{{Kind: identity.User}, {Kind: identity.User}, {Kind: identity.Group}}
	failed := fault.Operation{Op: "read", Object: "base"}.Failed(fault.Refused, errors.New("no access"), "grant access")
	for name, c := range map[string]struct {
		held, undecided []identity.Object
		rejected        int
		unreadable      int
		err             error
		want            string
	}{
		"everything delivered":             {nil, nil, 0, 0, nil, Processed},
		"rejected":                         {nil, nil, 1, 0, nil, Partial},
		"unreadable":                       {nil, nil, 0, 1, nil, Partial},
		"unreadable and rejected":          {nil, nil, 1, 1, nil, Partial},
		"held":                             {some, nil, 0, 0, nil, Held},
		"held and unreadable":              {some, nil, 0, 1, nil, Held},
		"undecided":                        {nil, some, 0, 0, nil, Held},
		"undecided and unreadable":         {nil, some, 0, 1, nil, Held},
		"held and undecided":               {some[:1], some[1:], 0, 0, nil, Held},
		"held and rejected":                {some, nil, 1, 0, nil, Held},
		"undecided and rejected":           {nil, some, 1, 0, nil, Held},
		"failed":                           {nil, nil, 0, 0, failed, Failed},
		"failed, undecided and rejected":   {nil, some, 1, 1, failed, Failed},
		"failed, held and nothing decided": {some, some, 0, 0, failed, Failed},
	} {
		t.Run(name, func(t *testing.T) {
			read := readResult{counters: map[identity.Kind]counters{identity.User: {unreadable: c.unreadable}}}
			result := runResult{mode: full, read: read, totals: upload.Totals{Rejected: c.rejected}, held: c.held, undecided: c.undecided}
			report := newReport(runInfo{stopwatch: &stopwatch{}, contact: &contact{}}, result, gateway.Counts{}, time.Second, c.err)
			if report.Result != c.want || report.Held != len(c.held) || report.Undecided != len(c.undecided) || report.Rejected != c.rejected ||
				report.Unreadable != c.unreadable || report.Objects[Outcome{identity.User, "unreadable"}] != c.unreadable {
				t.Errorf("result %s, want %s: %+v", report.Result, c.want, report.Run)
			}
			if isFailed := c.err != nil; isFailed != (report.Class == string(fault.Refused)) || isFailed != (report.Remedy == "grant access") {
				t.Errorf("class %q, remedy %q", report.Class, report.Remedy)
			}
			for outcome, objects := range map[string][]identity.Object{"held": c.held, "undecided": c.undecided} {
				counted := map[identity.Kind]int{}
				for _, object := range objects {
					counted[object.Kind]++
				}
				for _, kind := range []identity.Kind{identity.User, identity.Group} {
					if n := report.Objects[Outcome{kind, outcome}]; n != counted[kind] {
						t.Errorf("%d objects of kind %s are %s, want %d", n, kind, outcome, counted[kind])
					}
				}
			}
		})
	}
}
