package cli

import (
	"net/http"
	"strings"
	"testing"

	"adconnector/internal/status"
	"adconnector/test/testenv"
)

func TestStatusWithoutStateFile(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	o := s.invoke(t, "status")
	if o.Code != exitDone || !strings.HasPrefix(o.Stdout, "state           none: no run with "+s.StateDir+" yet\n") {
		t.Errorf("%+v", o)
	}
	r := decode[status.Report](t, s.invoke(t, "status", "--output", "json"))
	if r.From != status.FromFile || r.State != "" || r.Runs == nil || r.Rejections == nil || r.HeldDeletions == nil || r.UndecidedDeletions == nil || r.UndecidedReasons == nil {
		t.Errorf("%+v", r)
	}
	if o := s.invoke(t, "status", "--output", "xml"); o.Code != exitUsage {
		t.Errorf("%+v", o)
	}
}

// TestStatusFromFile tests held deletions and rejections, with the gateway's reason, while no
// daemon runs.
func TestStatusFromFile(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	if o := s.invoke(t, "sync"); o.Code != exitDone {
		t.Fatalf("%+v", o)
	}
	s.env["sync.max-deletes"] = "2"
	s.remove(t, 3)
	s.AddUser(userDN(77))
	s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		return x.Status(http.StatusUnprocessableEntity, `{"message":"no\ttoday\u001b[31m"}`)
	}))
	if o := s.invoke(t, "sync"); o.Code != exitHeld {
		t.Fatalf("%+v", o)
	}
	o := s.invoke(t, "status")
	for _, want := range []string{
		"state           PROCESSED since ", "\ndaemon          ", s.StateDir, "service.admin.address",
		"3 deletions held, 1 rejected\n", "run adconnector sync --allow-deletes", "1 object is rejected", "422: no today", "\nLAST RUNS ", "  delta  held  ", "  full   processed  ",
	} {
		if !strings.Contains(o.Stdout, want) {
			t.Errorf("%q missing in:\n%s", want, o.Stdout)
		}
	}
	if strings.ContainsAny(o.Stdout, "\x1b\t") {
		t.Errorf("control characters: %q", o.Stdout)
	}
	r := decode[status.Report](t, s.invoke(t, "status", "--output", "json"))
	if r.Daemon == "" || !strings.Contains(r.DaemonRemedy, "service.admin.address") || !strings.Contains(o.Stdout, r.Daemon) || !strings.Contains(o.Stdout, r.DaemonRemedy) {
		t.Errorf("daemon %q, remedy %q", r.Daemon, r.DaemonRemedy)
	}
	if r.State != "PROCESSED" || r.Held != 3 || len(r.HeldDeletions) != 3 || r.HeldDeletions[0].Kind != "user" || !strings.HasPrefix(r.HeldDeletions[0].SID, "S-1-5-21-") ||
		r.Rejected != 1 || len(r.Rejections) != 1 || r.Rejections[0].Attempts != 1 || len(r.Runs) != 2 || r.Runs[0].Result != "held" ||
		r.LastSuccess.IsZero() || r.LastFullSync.IsZero() || r.Objects != 24 || r.StateBytes == 0 || r.ConnectionUUID != testenv.ConnectionUUID || r.StateDir != s.StateDir {
		t.Errorf("%+v", r)
	}
}

// TestStatusWithLockedState tests the error and the remedy if the state file is locked and the
// daemon has no endpoint.
func TestStatusWithLockedState(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.lockState(t)
	o := s.invoke(t, "status")
	l := singleError(t, o)
	if o.Code != exitLocked || l.Text("message") != MsgCommandFailed || !strings.Contains(l.Text("remedy"), "docker exec CONTAINER adconnector status; set service.admin.address") {
		t.Errorf("%+v", o)
	}
	requireMentions(t, l, s.StateDir, "service.admin.address")
}

func TestStatusBeforeFirstLogin(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["qualys.user.password"] = wrongPassword
	if o := s.invoke(t, "sync"); o.Code != exitRefused {
		t.Fatalf("%+v", o)
	}
	o := s.invoke(t, "status")
	if !strings.HasPrefix(o.Stdout, "state           not registered: no successful login to the gateway yet\n") ||
		!strings.Contains(o.Stdout, "\nlast error      ") || !strings.Contains(o.Stdout, "\nremedy          ") || !strings.Contains(o.Stdout, "qualys.user.username") {
		t.Errorf("%s", o.Stdout)
	}
	s.env["qualys.user.password"] = s.Gateway.Options.Password
	if o := s.invoke(t, "sync"); o.Code != exitDone {
		t.Fatalf("%+v", o)
	}
	if r := decode[status.Report](t, s.invoke(t, "status", "--output", "json")); r.State != "PROCESSED" || r.Error != "" || r.Remedy != "" {
		t.Errorf("%+v", r)
	}
}

func TestStatusAfterRefusedLogin(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	if o := s.invoke(t, "sync"); o.Code != exitDone {
		t.Fatalf("%+v", o)
	}
	s.env["qualys.user.password"] = wrongPassword
	requests := len(s.Gateway.Requests())
	o := s.invoke(t, "sync")
	if changes := o.With(connectorState); len(changes) != 1 || changes[0].Text("from") != "PROCESSED" || changes[0].Text("to") != "SCHEDULED" {
		t.Errorf("%+v", changes)
	}
	if n := len(s.Gateway.Requests()) - requests; n != 1 {
		t.Errorf("%d requests with a wrong password", n)
	}
	if r := decode[status.Report](t, s.invoke(t, "status", "--output", "json")); r.State != "SCHEDULED" || r.Error != singleError(t, o).Text("error") || r.Remedy != singleError(t, o).Text("remedy") || !strings.Contains(r.Remedy, "qualys.user.password") {
		t.Errorf("%+v", r)
	}
}
