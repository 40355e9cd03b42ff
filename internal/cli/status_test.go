package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"adconnector/internal/status"
)

// report is the document that status prints.
func (o outcome) report(t *testing.T) (r status.Report) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v: %+v", err, o)
	}
	return r
}

func TestStatusOfNothing(t *testing.T) {
	s := newSite(t)
	o := invoke(t, s.environ(), "status")
	if o.code != exitDone || !strings.HasPrefix(o.stdout, "state           none: nothing has run with "+s.env["service.state-dir"]+"\n") {
		t.Errorf("%+v", o)
	}
	r := invoke(t, s.environ(), "status", "--output", "json").report(t)
	if r.From != status.FromFile || r.State != "" || r.Runs == nil || r.Rejections == nil || r.HeldDeletions == nil {
		t.Errorf("%+v", r)
	}
	if o := invoke(t, s.environ(), "status", "--output", "xml"); o.code != exitUsage {
		t.Errorf("%+v", o)
	}
}

// TestStatusFromTheFile: what the guard holds and what the gateway rejects is told,
// with the gateway's words, while no daemon runs.
func TestStatusFromTheFile(t *testing.T) {
	s := newSite(t)
	if o := invoke(t, s.environ(), "sync"); o.code != exitDone {
		t.Fatalf("%+v", o)
	}
	s.remove(t, 3)
	s.add(t, userDN(77), "user")
	s.intercepting(onAssets(func(w http.ResponseWriter, _ []byte) bool {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = w.Write([]byte(`{"message":"no\ttoday\u001b[31m"}`))
		return true
	}))
	if o := invoke(t, s.environ(), "sync"); o.code != exitHeld {
		t.Fatalf("%+v", o)
	}
	o := invoke(t, s.environ(), "status")
	for _, want := range []string{
		"state           PROCESSED since ", "daemon          service.admin.address is empty: the daemon shows nothing; this is what " + s.env["service.state-dir"],
		"3 deletions held, 1 rejected\n", "run adconnector sync --allow-deletes", "1 objects are rejected", "422: no today", "\nLAST RUNS ", "  delta  held  ", "  full   processed  ",
	} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("%q is not in:\n%s", want, o.stdout)
		}
	}
	if strings.ContainsAny(o.stdout, "\x1b\t") {
		t.Errorf("control characters: %q", o.stdout)
	}
	r := invoke(t, s.environ(), "status", "--output", "json").report(t)
	if r.State != "PROCESSED" || r.Held != 3 || len(r.HeldDeletions) != 3 || r.HeldDeletions[0].Kind != "user" || !strings.HasPrefix(r.HeldDeletions[0].SID, "S-1-5-21-") ||
		r.Rejected != 1 || len(r.Rejections) != 1 || r.Rejections[0].Attempts != 1 || len(r.Runs) != 2 || r.Runs[0].Result != "held" ||
		r.LastSuccess.IsZero() || r.LastFullPass.IsZero() || r.Objects != 24 || r.StateBytes == 0 || r.ConnectionUUID != connection || r.StateDir != s.env["service.state-dir"] {
		t.Errorf("%+v", r)
	}
}

// TestStatusBesideASilentDaemon: it says who holds the file, and what to do.
func TestStatusBesideASilentDaemon(t *testing.T) {
	s := newSite(t)
	hold(t, s)
	o := invoke(t, s.environ(), "status")
	if o.code != exitLocked || len(o.errors()) != 1 || !strings.Contains(o.errors()[0], "docker exec CONTAINER adconnector status") ||
		!strings.Contains(o.errors()[0], "service.admin.address is empty") {
		t.Errorf("%+v", o)
	}
}

// TestStatusAfterARefusedLogin: who was never let in is told why, and when the next
// run is; who was let in before is not left with the state of that day.
func TestStatusAfterARefusedLogin(t *testing.T) {
	s := newSite(t)
	right := s.env["qualys.user.password"]
	s.env["qualys.user.password"] = "wrong"
	if o := invoke(t, s.environ(), "sync"); o.code != exitRefused {
		t.Fatalf("%+v", o)
	}
	o := invoke(t, s.environ(), "status")
	if !strings.HasPrefix(o.stdout, "state           not registered: the gateway has never accepted the login\n") ||
		!strings.Contains(o.stdout, "\nlast error      ") || !strings.Contains(o.stdout, "wrong credentials (401): correct qualys.user.username") {
		t.Errorf("%s", o.stdout)
	}
	s.env["qualys.user.password"] = right
	if o := invoke(t, s.environ(), "sync"); o.code != exitDone {
		t.Fatalf("%+v", o)
	}
	if r := invoke(t, s.environ(), "status", "--output", "json").report(t); r.State != "PROCESSED" || r.Error != "" {
		t.Errorf("%+v", r)
	}
	s.env["qualys.user.password"] = "wrong"
	logins := len(s.gateway.Requests())
	o = invoke(t, s.environ(), "sync")
	if changes := o.with("connector state"); len(changes) != 1 || changes[0]["from"] != "PROCESSED" || changes[0]["to"] != "SCHEDULED" {
		t.Errorf("%+v", changes)
	}
	if n := len(s.gateway.Requests()) - logins; n != 1 {
		t.Errorf("%d calls with a wrong password", n)
	}
	if r := invoke(t, s.environ(), "status", "--output", "json").report(t); r.State != "SCHEDULED" || !strings.Contains(r.Error, "wrong credentials") {
		t.Errorf("%+v", r)
	}
}
