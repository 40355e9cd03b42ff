package syncrun

import (
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// TestLogProgress checks the interval and the values of the log lines about a run in progress,
// and that none follows the end of the run.
func TestLogProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &testlog.Log{}
		r := New(Options{Gateway: gateway.New(gateway.Options{URL: &url.URL{Scheme: "http", Host: "127.0.0.1"}}), Log: zerolog.New(log)})
		info := r.newRunInfo(RunOptions{})
		stop := r.logProgress(info, time.Now())
		observe := countPages(nil, info.options.Progress)
		time.Sleep(defaultLogInterval - time.Nanosecond)
		synctest.Wait()
		if lines := log.Lines(); len(lines) > 0 {
			t.Errorf("logged %v", lines)
		}
		info.options.Progress.addRead(identity.User, 5)
		info.options.Progress.addRead(identity.ServiceAccount, 1)
		info.options.Progress.addRead(identity.Group, 3)
		info.options.Progress.addRead(identity.Group, -1) // a search restarts
		info.options.Progress.addUploaded()
		info.options.Progress.enter("read")
		info.options.Progress.mode.Store(delta)
		observe("search", fault.Done, 0)
		observe("search", fault.Transient, 0)
		observe("read", fault.Done, 0)
		time.Sleep(defaultLogInterval + time.Nanosecond)
		synctest.Wait()
		stop()
		time.Sleep(time.Hour)
		lines := log.With(MsgRunInProgress)
		if len(lines) != 2 || len(log.Lines()) != 2 {
			t.Fatalf("logged %v", log.Lines())
		}
		for _, l := range lines {
			if l.Text("level") != "info" || l.Text("run_id") != info.id || l.Text("mode") != delta || l.Text("phase") != "read" ||
				l.Number("users") != 5 || l.Number("objects") != 8 || l.Number("groups") != 2 || l.Number("page") != 1 || l.Number("uploaded") != 1 || l["requests"] == nil {
				t.Errorf("logged %v", l)
			}
		}
		if first, second := lines[0].Number("duration_ms"), lines[1].Number("duration_ms"); first != 300_000 || second != 600_000 {
			t.Errorf("after %d and %d ms", first, second)
		}
	})
}

// TestProgressOfRun checks the log lines of a run whose upload blocks: it has read everything.
func TestProgressOfRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	const users = 5
	e.ldap.Users = fakeldap.Users(users)
	e.runner.logInterval = time.Millisecond
	e.gateway.SetFront(testenv.OnAssets(func(*testenv.Exchange) bool {
		_, _, ok := e.log.Await(0, func(l testlog.Line) bool {
			return l.Text("message") == MsgRunInProgress && l.Text("mode") == full && l.Text("phase") == "drain" && l.Number("users") == users &&
				l.Number("page") > 0 && l.Number("requests") > 0 && l.Number("uploaded") == 0
		}, t.Context().Done())
		if !ok {
			t.Errorf("no progress in %v", e.log.Lines())
		}
		return false
	}))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Users: users, Changed: users, Uploaded: users})
}
