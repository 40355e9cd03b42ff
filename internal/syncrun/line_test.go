package syncrun

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/sandbox"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

const beginsAnew = "the directory has given up a search that the gateway held up: it begins anew"

// heldUp is a world whose gateway takes a while for each batch, and whose directory
// cuts the searches for users, one after the other, before the given entries.
func heldUp(t *testing.T, users int, cuts ...int) (*world, *Runner) {
	w := newWorld(t)
	w.ldap.Users, w.ldap.Groups = fakeldap.Users(users), fakeldap.Groups(5)
	w.options.Upload.Workers, w.options.Upload.BatchSize = 1, 10
	w.intercepting(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			<-time.After(time.Millisecond)
		}
		return false
	})
	var mu sync.Mutex
	w.ldap.Sent = func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		if len(cuts) > 0 && n == cuts[0] {
			cuts = cuts[1:]
			return false
		}
		return true
	}
	r := w.process()
	r.patience = time.Millisecond
	return w, r
}

// TestHeldUp: a search that the directory gives up while the gateway holds it up is
// begun anew, in the same run, and nothing is sent twice.
func TestHeldUp(t *testing.T) {
	w, r := heldUp(t, 900, 400, 600, 850)
	bad := fakeldap.User(220).Attributes["name"]
	w.intercepting(func(writer http.ResponseWriter, request *http.Request, body []byte) bool {
		if request.URL.Path != assetsPath {
			return false
		}
		<-time.After(time.Millisecond)
		if strings.Contains(string(body), `"`+bad+`"`) {
			writer.WriteHeader(http.StatusBadRequest)
			return true
		}
		return false
	})
	run, err := r.Run(t.Context(), Mode{})
	if err != nil || run.Result != Partial || run.Uploaded != 904 || run.Rejected != 1 || run.Users != 900 || run.Groups != 5 || run.Changed != 905 {
		t.Errorf("%+v, %v", run, err)
	}
	if n := len(w.log.with(beginsAnew)); n != 3 {
		t.Errorf("began anew %d times", n)
	}
	for _, identity := range w.gateway.Users() {
		if identity.Times != 1 {
			t.Errorf("%s was sent %d times", identity.ExternalAssetID, identity.Times)
		}
	}
	// 905 objects in batches of 10, a batch cut short at each settling, and halving
	// for the one that is bad, once.
	calls := 0
	for call, n := range w.gateway.Counts() {
		if strings.Contains(call, assetsPath) {
			calls += n
		}
	}
	if calls > 91+2*3+8 {
		t.Errorf("%d calls", calls)
	}
	r.patience = time.Hour
	w.run(r, Partial, 0)

	// What an earlier run has rejected is tried again, in a search begun anew too.
	w.ldap.Users[5].Attributes["title"] = "Chief"
	var cut atomic.Bool
	w.ldap.Sent = func(n int) bool { return n != 150 || cut.Swap(true) }
	r.patience = time.Nanosecond
	if run, _ := w.run(r, Partial, 1); run.Rejected != 1 || len(w.log.with(beginsAnew)) != 4 {
		t.Errorf("%+v", run)
	}
}

// TestHeldUpWithoutProgress: a search that comes no further than the one before is
// not begun once more, and what was acknowledged stays so.
func TestHeldUpWithoutProgress(t *testing.T) {
	w, r := heldUp(t, 900, 400, 400)
	run, err := r.Run(t.Context(), Mode{})
	if fault.Of(err) != fault.Transient || run.Result != Failed || run.Uploaded < 300 {
		t.Errorf("%+v, %v", run, err)
	}
	if last, err := w.store.LastFullPass(); err != nil || last != (state.FullPass{}) {
		t.Errorf("%+v, %v", last, err)
	}
	w.run(r, Processed, 905-run.Uploaded)
}

// TestLostAndNotHeldUp: what the gateway is not to blame for fails the run.
func TestLostAndNotHeldUp(t *testing.T) {
	_, r := heldUp(t, 900, 400)
	r.patience = time.Hour
	if run, err := r.Run(t.Context(), Mode{}); fault.Of(err) != fault.Transient || run.Result != Failed {
		t.Errorf("%+v, %v", run, err)
	}
}

// TestIdleSession: a session that was idle while the gateway held up another is opened
// anew before it is used.
func TestIdleSession(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{ReadsDeleted: true}, 0)
	d.runner.patience = time.Nanosecond // every session has been idle for longer
	d.addUser("a")
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	before := d.Searches().Binds
	d.must(d.Delete(d.dn("a")))
	d.sync(Mode{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	// The first session, the second, each of them anew before its search, and the
	// first once more before it looks for tombstones.
	if binds := d.Searches().Binds - before; binds != 5 {
		t.Errorf("%d binds", binds)
	}
}
