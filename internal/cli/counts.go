package cli

import (
	"strings"

	"adconnector/internal/state"
	"adconnector/internal/status"
)

// describeRead returns how many objects of each kind a run has read, and how many it read again. The
// kinds that only security posture has are left out if there are none.
func describeRead(run state.Run) string {
	parts := []string{count(run.Users, "user"), count(run.Groups, "group")}
	for _, kind := range []struct {
		objects int
		name    string
	}{{run.ServiceAccounts, "service account"}, {run.Roles, "role"}, {run.Domains, "domain"}} {
		if kind.objects > 0 {
			parts = append(parts, count(kind.objects, kind.name))
		}
	}
	last := len(parts) - 1
	text := strings.Join(parts[:last], ", ") + " and " + parts[last] + " read"
	if run.Reread > 0 {
		text += " (" + status.FormatNumber(run.Reread) + " more read again, unchanged)"
	}
	return text
}

// count returns a number with the name of what it counts.
func count(n int, name string) string {
	return status.Quantity(n, name, name+"s")
}
