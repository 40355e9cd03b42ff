package cli

import (
	"testing"

	"adconnector/internal/state"
)

func TestDescribeRead(t *testing.T) {
	for want, run := range map[string]state.Run{
		"0 users and 0 groups read":    {},
		"1,141 users and 1 group read": {Users: 1141, Groups: 1},
		"0 users, 0 groups, 14 roles and 1 domain read (1,042 more read again, unchanged)": {Roles: 14, Domains: 1, Reread: 1042},
		"1 user, 2 groups, 1 service account, 3 roles and 1 domain read":                   {Users: 1, Groups: 2, ServiceAccounts: 1, Roles: 3, Domains: 1},
		"2 users, 2 groups and 2 service accounts read (1 more read again, unchanged)":     {Users: 2, Groups: 2, ServiceAccounts: 2, Reread: 1},
	} {
		if got := describeRead(run); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
