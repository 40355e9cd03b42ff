package syncrun

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/internal/upload"
	"adconnector/test/fakeldap"
)

const (
	customer   = "00000000-0000-0000-0000-000000000001"
	connection = "00000000-0000-0000-0000-000000000002"
	profile    = "00000000-0000-0000-0000-000000000003"

	assetsPath = "/rest/2.0/am/connector/asset/data/sync"
	statePath  = "/rest/2.0/am/connector/connection/" + connection + "/state"
)

// world is everything around a run: a directory, a gateway, a state file, a log.
type world struct {
	t       *testing.T
	ldap    *fakeldap.Server // nil: a sandbox.Directory
	auth    sandbox.Authentication
	base    string
	dir     string // of the state file
	gateway *sandbox.Gateway
	url     *url.URL
	store   *state.Store
	log     *logs

	password string // at the gateway
	options  Options

	mu        sync.Mutex
	intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool
	taken     func() (cut bool) // called when assets were answered, before the answer is sent
}

func newWorld(t *testing.T) *world { return newWorldIn(t, t.TempDir()) }

func newWorldIn(t *testing.T, dir string) *world {
	server := fakeldap.Start(t)
	w := newWorldOf(t, dir, server.Port, fakeldap.BindDN, fakeldap.Password, fakeldap.Base)
	w.ldap = server
	return w
}

// newWorldOf is the world around a directory that listens.
func newWorldOf(t *testing.T, dir string, port int, bindDN, password, base string) *world {
	w := &world{
		t: t, log: &logs{}, dir: dir, base: base, password: "right",
		auth: sandbox.Authentication{Type: "LDAP", Host: "127.0.0.1", Port: port, BindDN: bindDN, Password: password},
	}
	w.gateway = sandbox.NewGateway(sandbox.GatewayOptions{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile, Username: "u", Password: "right",
		Connection: w.connection(nil), Profile: w.profile(nil),
		Intercept: func(writer http.ResponseWriter, r *http.Request, body []byte) bool {
			w.mu.Lock()
			intercept := w.intercept
			w.mu.Unlock()
			return intercept != nil && intercept(writer, r, body)
		},
	})
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		taken := w.taken
		w.mu.Unlock()
		if taken == nil || r.URL.Path != assetsPath {
			w.gateway.ServeHTTP(writer, r)
			return
		}
		answer := httptest.NewRecorder()
		w.gateway.ServeHTTP(answer, r)
		if taken() {
			panic(http.ErrAbortHandler)
		}
		writer.WriteHeader(answer.Code)
		_, _ = writer.Write(answer.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	w.url, _ = url.Parse(server.URL)
	var err error
	if w.store, err = state.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	t.Cleanup(w.log.withoutNames(t))
	w.options = Options{
		Target: "here", Search: Search{PageSize: 100}, Upload: upload.Options{Workers: 4, BatchSize: 50, BatchBytes: 1 << 20},
		Guard: Guard{MaxDeletes: 500, MaxDeletesPercent: 10}, FullInterval: 24 * time.Hour, Conclude: 5 * time.Second,
	}
	return w
}

func (w *world) connection(change func(*sandbox.Authentication)) *sandbox.Connection {
	c := &sandbox.Connection{ConnectionUUID: connection, Name: "test", Authentication: w.auth}
	if change != nil {
		change(&c.Authentication)
	}
	return c
}

func (w *world) profile(change func(*gateway.Profile)) *gateway.Profile {
	p := &gateway.Profile{ProfileUUID: profile, Name: "test", BaseContext: w.base, SearchScope: "Subtree", Assets: "Identities Only"}
	if change != nil {
		change(p)
	}
	return p
}

func (w *world) intercepting(f func(w http.ResponseWriter, r *http.Request, body []byte) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.intercept = f
}

// process is a new process on the same state file.
func (w *world) process() *Runner {
	o := w.options
	o.Store = w.store
	o.Log = zerolog.New(w.log)
	o.Gateway = gateway.New(gateway.Options{
		URL: w.url, CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile,
		Login: gateway.Login{Username: "u", Password: secret.New(w.password)}, Version: "test", Connections: 4, Grace: time.Second,
		Log: zerolog.New(w.log),
	})
	return New(o)
}

// run does one run and wants this result and this many uploads.
func (w *world) run(r *Runner, result string, uploaded int) (state.Run, error) {
	w.t.Helper()
	run, err := r.Run(w.t.Context(), Mode{})
	if run.Result != result || run.Uploaded != uploaded || (err != nil) != (result == Failed) {
		w.t.Errorf("run %+v, error %v; want %s with %d uploaded", run, err, result, uploaded)
	}
	for _, violation := range w.gateway.Violations() {
		w.t.Errorf("contract: %s", violation)
	}
	return run, err
}

func (w *world) calls(method, path string) int {
	n := 0
	for _, request := range w.gateway.Requests() {
		if request.Method == method && request.Path == path {
			n++
		}
	}
	return n
}

// indexed are the users that the state file says are delivered.
func (w *world) indexed() (vendorIDs []string) {
	for _, entry := range w.ldap.Users {
		guid, _ := ad.ParseGUID([]byte(entry.Attributes["objectGUID"]))
		if known, _, err := w.store.Lookup(guid); err != nil {
			w.t.Error(err)
		} else if known.Fingerprint != (identity.Fingerprint{}) {
			vendorIDs = append(vendorIDs, guid.String())
		}
	}
	slices.Sort(vendorIDs)
	return vendorIDs
}

func (w *world) held() (vendorIDs []string) {
	for _, user := range w.gateway.Users() {
		vendorIDs = append(vendorIDs, user.VendorAssetID)
	}
	return vendorIDs
}

// logs are the lines of a log.
type logs struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *logs) Write(p []byte) (int, error) {
	line := map[string]any{}
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return len(p), nil
}

// withoutNames wants no name of a user in what is not for debugging.
func (l *logs) withoutNames(t *testing.T) func() {
	name := regexp.MustCompile(`user\d`)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, line := range l.lines {
			if line["level"] != "debug" && name.MatchString(fmt.Sprint(line)) {
				t.Errorf("the log tells of what the directory holds: %v", line)
			}
		}
	}
}

func (l *logs) with(message string) (lines []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line["message"] == message {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestRunsConverge(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users, w.ldap.Groups = fakeldap.Users(1234), fakeldap.Groups(30)
	r := w.process()
	run, _ := w.run(r, Processed, 1264)
	if run.Users != 1234 || run.Groups != 30 || run.Changed != 1264 || run.Mode != "full" || run.Requests == 0 {
		t.Errorf("run %+v", run)
	}
	if len(w.gateway.Users()) != 1234 || len(w.gateway.Groups()) != 30 {
		t.Errorf("the gateway holds %d users and %d groups", len(w.gateway.Users()), len(w.gateway.Groups()))
	}
	sent := w.calls("POST", assetsPath)
	w.run(r, Processed, 0)
	w.run(w.process(), Processed, 0) // a restart forgets nothing
	if again := w.calls("POST", assetsPath); again != sent {
		t.Errorf("%d calls for unchanged objects", again-sent)
	}
	w.ldap.Users[77].Attributes["title"] = "Chief"
	w.run(r, Processed, 1)
	w.run(r, Processed, 0)
	for _, user := range w.gateway.Users() {
		if chief := bytes.Contains(user.Asset, []byte(`"Chief"`)); chief != (user.Times == 2) {
			t.Errorf("%s was taken %d times", user.Asset, user.Times)
		}
	}
	runs, err := w.store.Runs()
	if err != nil || len(runs) != 5 || runs[4].ID != run.ID {
		t.Errorf("%d runs are recorded, error %v", len(runs), err)
	}
	if finished := w.log.with("run finished"); len(finished) != 5 || finished[0]["run_id"] != run.ID || finished[0]["result"] != Processed ||
		finished[0]["uploaded"] != 1264.0 || finished[0]["mode"] != "full" {
		t.Errorf("summaries %v", finished)
	}
}

func TestRejectedIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users, w.ldap.Groups = fakeldap.Users(120), fakeldap.Groups(3)
	w.intercepting(func(writer http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.URL.Path != assetsPath || !bytes.Contains(body, []byte(`"user77"`)) {
			return false
		}
		writer.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(writer, `{"message":"no such country"}`)
		return true
	})
	r := w.process()
	if run, _ := w.run(r, Partial, 122); run.Rejected != 1 {
		t.Errorf("run %+v", run)
	}
	if run, _ := w.run(r, Partial, 0); run.Rejected != 1 || run.Changed != 1 {
		t.Errorf("run %+v", run)
	}
	if lines := w.log.with("object rejected by the gateway, adconnector status has its words"); len(lines) != 2 || lines[0]["kind"] != "user" {
		t.Errorf("log %v", lines)
	}
	why := w.log.with("why it was rejected") // the words may be the directory's
	if len(why) != 2 {
		t.Errorf("%d lines say why", len(why))
	}
	for _, line := range why {
		if line["level"] != "debug" || line["reason"] != "400: no such country" {
			t.Errorf("log %v", line)
		}
	}
	w.intercepting(nil)
	w.run(r, Processed, 1)
	w.run(r, Processed, 0)
}

// TestCutMidPass: what was acknowledged stays so, and nothing else is recorded.
func TestCutMidPass(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(1000)
	w.ldap.Sent = func(n int) bool { return n < 730 }
	run, err := w.process().Run(t.Context(), Mode{})
	if run.Result != Failed || fault.Of(err) != fault.Transient || !strings.Contains(err.Error(), "connection was lost") {
		t.Errorf("run %+v, error %v", run, err)
	}
	held := w.held()
	if indexed := w.indexed(); !slices.Equal(indexed, held) || len(held) != run.Uploaded || len(held) == 0 || len(held) >= 730 {
		t.Errorf("%d are in the index, %d at the gateway, %d counted", len(indexed), len(held), run.Uploaded)
	}
	w.ldap.Sent = nil
	w.run(w.process(), Processed, 1000-len(held))
}

func TestGatewayRefusesMidPass(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(3000)
	batches := 0
	w.intercepting(func(writer http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			w.mu.Lock()
			defer w.mu.Unlock()
			if batches++; batches > 5 {
				writer.WriteHeader(http.StatusForbidden)
				return true
			}
		}
		return false
	})
	_, err := w.process().Run(t.Context(), Mode{})
	if fault.Of(err) != fault.Refused || !strings.Contains(err.Error(), "403") {
		t.Errorf("error %v", err)
	}
	if indexed, held := w.indexed(), w.held(); !slices.Equal(indexed, held) || len(held) == 0 {
		t.Errorf("%d are in the index, %d at the gateway", len(indexed), len(held))
	}
}

// TestRefusalEndsReading: the directory is slow, and nobody waits for it in vain.
func TestRefusalEndsReading(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(200)
	gone := make(chan struct{})
	w.ldap.Sent = func(n int) bool {
		if n == 150 {
			<-gone // as long as the test
		}
		return true
	}
	defer close(gone)
	w.intercepting(func(writer http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			writer.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	start := time.Now()
	if _, err := w.process().Run(t.Context(), Mode{}); fault.Of(err) != fault.Refused {
		t.Errorf("error %v", err)
	}
	if waited := time.Since(start); waited > 20*time.Second {
		t.Errorf("waited %s", waited)
	}
}

func TestCancellation(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(3000)
	ctx, cancel := context.WithCancel(t.Context())
	w.intercepting(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			cancel()
		}
		return false
	})
	run, err := w.process().Run(ctx, Mode{})
	if fault.Of(err) != fault.Canceled || run.Result != Failed {
		t.Errorf("run %+v, error %v", run, err)
	}
	if indexed, held := w.indexed(), w.held(); !slices.Equal(indexed, held) || len(held) == 0 {
		t.Errorf("%d are in the index, %d at the gateway", len(indexed), len(held))
	}
	if now, _ := w.store.Connector(); now.State != stateScheduled || now.Error == "" {
		t.Errorf("state %+v", now)
	}
	if lines := w.log.with("run finished"); len(lines) != 1 || lines[0]["level"] != "warn" {
		t.Errorf("summaries %v", lines)
	}
}

func TestStates(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users, w.ldap.Groups = fakeldap.Users(7), fakeldap.Groups(2)
	tick := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w.options.Next = func(time.Time) time.Time { return tick.Add(time.Hour) }
	r := w.process()
	if err := r.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Schedule(t.Context(), tick); err != nil {
		t.Fatal(err)
	}
	first, _ := w.run(r, Processed, 9)
	_ = r.Schedule(t.Context(), tick)
	_ = r.Schedule(t.Context(), tick) // says it once
	w.ldap.Sent = func(int) bool { return false }
	second, err := w.run(r, Failed, 0)
	_ = r.Schedule(t.Context(), tick.Add(time.Hour))   // known from the failed run
	_ = r.Schedule(t.Context(), tick.Add(2*time.Hour)) // a correction keeps why it failed

	type step struct {
		state, run, next, failure string
		summary                   bool
	}
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	want := []step{
		{state: stateRegistered},
		{state: stateScheduled, next: at(tick)},
		{state: stateProcessing, run: first.ID},
		{state: stateProcessed, run: first.ID, summary: true},
		{state: stateScheduled, run: first.ID, next: at(tick), summary: true},
		{state: stateProcessing, run: second.ID},
		{state: stateScheduled, run: second.ID, next: at(tick.Add(time.Hour)), failure: err.Error(), summary: true},
		{state: stateScheduled, run: second.ID, next: at(tick.Add(2 * time.Hour)), failure: err.Error(), summary: true},
	}
	var got []step
	for _, sent := range w.gateway.States() {
		s := step{state: sent.State, run: sent.RunID, summary: sent.Summary != nil}
		if sent.NextRunAt != nil {
			s.next = at(time.Time(*sent.NextRunAt))
		}
		if sent.Error != nil {
			s.failure = *sent.Error
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		t.Errorf("sent\n%+v\nwant\n%+v", got, want)
	}
	if summary := w.gateway.States()[3].Summary; *summary != (gateway.Summary{Mode: "full", Users: 7, Groups: 2, Uploaded: 9}) {
		t.Errorf("summary %+v", summary)
	}
	from := ""
	lines := w.log.with("connector state")
	for i, line := range lines {
		if line["from"] != from || line["to"] != want[i].state || line["run_id"] != want[i].run {
			t.Errorf("line %d: %v", i, line)
		}
		from = want[i].state
	}
	if now, _ := w.store.Connector(); len(lines) != len(want) || now.State != stateScheduled || now.RunID != second.ID || now.Error != err.Error() {
		t.Errorf("%d lines, stored %+v", len(lines), now)
	}
}

// TestStateSentLate: a gateway that could not be told of the end of a run hears of it
// as soon as it can, and of the latest state only.
func TestStateSentLate(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(3)
	var down atomic.Bool
	refused, heard := make(chan string, 1000), make(chan string, 1000)
	w.intercepting(func(writer http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.URL.Path != statePath {
			return false
		}
		var report gateway.ConnectorState
		if err := json.Unmarshal(body, &report); err != nil {
			t.Error(err)
		}
		if down.Load() {
			refused <- report.State
			writer.WriteHeader(http.StatusInternalServerError)
			return true
		}
		heard <- report.State
		return false
	})
	r := w.process()
	r.informEvery = time.Millisecond
	if err := r.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	var informing sync.WaitGroup
	informing.Go(func() { r.KeepInformed(ctx) })
	run, _ := w.run(r, Processed, 3) // in spite of it
	for state := ""; state != stateProcessed; {
		state = <-refused
	}
	<-heard // that it is registered
	down.Store(false)
	if state := <-heard; state != stateProcessed {
		t.Errorf("heard of %s", state)
	}
	r.connector.sending.Lock() // once its answer was read
	unheard := r.connector.unheard
	r.connector.sending.Unlock()
	if unheard != nil {
		t.Errorf("not heard of %+v", unheard)
	}
	cancel()
	informing.Wait()
	states := w.gateway.States()
	if last := states[len(states)-1]; last.RunID != run.ID || last.Summary == nil || last.Summary.Uploaded != 3 || len(states) != 2 {
		t.Errorf("%d states, the last %+v", len(states), last)
	}
	if lines := w.log.with("connector state sent late"); len(lines) != 1 {
		t.Errorf("said so %d times", len(lines))
	}
}

// TestStatesOfASingleRun: nobody has scheduled it, so it is due now.
func TestStatesOfASingleRun(t *testing.T) {
	w := newWorld(t)
	w.run(w.process(), Processed, 0)
	var states []string
	for _, s := range w.gateway.States() {
		states = append(states, s.State)
	}
	if want := []string{stateRegistered, stateScheduled, stateProcessing, stateProcessed}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
}

func TestGatewayWithoutStates(t *testing.T) {
	for _, status := range []int{404, 405, 501} {
		w := newWorld(t)
		w.ldap.Users = fakeldap.Users(3)
		w.intercepting(func(writer http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.URL.Path != statePath {
				return false
			}
			writer.WriteHeader(status)
			return true
		})
		r := w.process()
		w.run(r, Processed, 3)
		w.run(r, Processed, 0)
		if lines := w.log.with("connector states are not sent"); len(lines) != 1 || w.calls("PUT", statePath) != 1 {
			t.Errorf("%d: said %d times after %d calls", status, len(lines), w.calls("PUT", statePath))
		}
	}
}

func TestProgress(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users, w.ldap.Groups = fakeldap.Users(20), fakeldap.Groups(3)
	r := w.process()
	for i, want := range [][4]int64{{0, 23, 23, 23}, {23, 23, 0, 0}} { // the first pass does not know what comes
		var p Progress
		if _, err := r.Run(t.Context(), Mode{Progress: &p}); err != nil {
			t.Fatal(err)
		}
		if got := [4]int64{p.Expected.Load(), p.Read.Load(), p.Changed.Load(), p.Settled.Load()}; got != want {
			t.Errorf("run %d: expected, read, changed, settled %v, want %v", i, got, want)
		}
	}
}

// TestProgressOfADelta: how much has changed nobody knows before.
func TestProgressOfADelta(t *testing.T) {
	d := newDomain(t, sandbox.DirectoryOptions{}, 5)
	d.sync(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	d.must(d.Modify(d.dn("user1"), "title", "Chief"))
	var p Progress
	d.sync(Mode{Progress: &p}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if p.Expected.Load() != 0 || p.Read.Load() == 0 || p.Changed.Load() != 1 || p.Settled.Load() != 1 {
		t.Errorf("expected %d, read %d, changed %d, settled %d", p.Expected.Load(), p.Read.Load(), p.Changed.Load(), p.Settled.Load())
	}
}

func TestDryRun(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users, w.ldap.Groups = fakeldap.Users(120), fakeldap.Groups(3)
	run, err := w.process().Run(t.Context(), Mode{DryRun: true})
	if err != nil || run.Result != Processed || run.Changed != 123 || run.Uploaded != 0 {
		t.Errorf("run %+v, error %v", run, err)
	}
	if w.calls("POST", assetsPath)+w.calls("PUT", statePath) != 0 {
		t.Error("a dry run sends")
	}
	runs, _ := w.store.Runs()
	if now, _ := w.store.Connector(); len(runs) != 0 || now != (state.Connector{}) || len(w.indexed()) != 0 {
		t.Error("a dry run records")
	}
	if lines := w.log.with("run finished"); len(lines) != 1 || lines[0]["dry_run"] != true {
		t.Errorf("log %v", lines)
	}
	// With the source in the environment it needs no gateway at all.
	w.options.Source = &Source{Base: fakeldap.Base, Scope: directory.Subtree, Directory: directory.Options{
		Hosts: []string{"127.0.0.1"}, Port: w.ldap.Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password),
	}}
	before := len(w.gateway.Requests())
	if run, err := w.process().Run(t.Context(), Mode{DryRun: true}); err != nil || run.Changed != 123 || len(w.gateway.Requests()) != before {
		t.Errorf("run %+v, error %v", run, err)
	}
}

func TestEntriesWithoutIdentityAreSkipped(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(50)
	delete(w.ldap.Users[7].Attributes, "objectSid")
	delete(w.ldap.Users[8].Attributes, "objectGUID")
	if run, _ := w.run(w.process(), Processed, 48); run.Users != 48 {
		t.Errorf("run %+v", run)
	}
	skipped, read := w.log.with("entry skipped"), w.log.with("directory read")
	read = slices.DeleteFunc(read, func(line map[string]any) bool { return line["kind"] != "user" })
	if len(skipped) != 1 || strings.Contains(fmt.Sprint(skipped), "user7") || len(read) != 1 || read[0]["skipped"] != 2.0 || read[0]["objects"] != 48.0 {
		t.Errorf("log %v %v", skipped, read)
	}
}

func TestFilters(t *testing.T) {
	cases := map[string]struct {
		plain       bool
		user, group string // the operator's
		want        []string
	}{
		"a domain controller":           {want: []string{"(sAMAccountType=805306368)", "(objectClass=group)"}},
		"narrowed":                      {user: "(department=Sales)", want: []string{"(&(sAMAccountType=805306368)(department=Sales))", "(objectClass=group)"}},
		"another server":                {plain: true, want: []string{"(sAMAccountType=805306368)", "(objectClass=group)"}},
		"another server, filters given": {plain: true, user: "(objectClass=person)", group: "(objectClass=groupOfNames)", want: []string{"(objectClass=person)", "(objectClass=groupOfNames)"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ldap.Plain = c.plain
			w.options.Search.UserFilter, w.options.Search.GroupFilter = c.user, c.group
			w.run(w.process(), Processed, 0)
			got := w.ldap.Filters() // of users and groups at the same time
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("filters %q, want %q", got, c.want)
			}
			if lines := w.log.with("directory connected"); len(lines) != 1 || lines[0]["domain_controller"] != !c.plain {
				t.Errorf("log %v", lines)
			}
		})
	}
}

func TestWrongConsoleValues(t *testing.T) {
	cases := map[string]struct {
		connection func(*sandbox.Authentication)
		profile    func(*gateway.Profile)
		words      []string
	}{
		"type":        {connection: func(a *sandbox.Authentication) { a.Type = "LDAPX" }, words: []string{"connection in the console", `"LDAPX"`, "LDAPS or STARTTLS"}},
		"scope":       {profile: func(p *gateway.Profile) { p.SearchScope = "TREE" }, words: []string{"profile in the console", `"TREE"`, "SUBTREE, ONE_LEVEL or BASE"}},
		"assets":      {profile: func(p *gateway.Profile) { p.Assets = "ALL" }, words: []string{"profile in the console", `"ALL"`, "IDENTITIES_ONLY"}},
		"no base":     {profile: func(p *gateway.Profile) { p.BaseContext = "" }, words: []string{"profile in the console", "base context is empty"}},
		"certificate": {connection: func(a *sandbox.Authentication) { a.Certificate = "rubbish" }, words: []string{"connection in the console", "certificate"}},
		"no host":     {connection: func(a *sandbox.Authentication) { a.Host = " , " }, words: []string{"no directory host is given"}},
		"password":    {connection: func(a *sandbox.Authentication) { a.Password = "wrong" }, words: []string{"wrong password"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.gateway.SetConnection(w.connection(c.connection))
			w.gateway.SetProfile(w.profile(c.profile))
			r := w.process()
			_, err := w.run(r, Failed, 0)
			if fault.Of(err) != fault.Refused {
				t.Errorf("class %s of %v", fault.Of(err), err)
			}
			for _, words := range c.words {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("error %q does not say %q", err, words)
				}
			}
			if n := w.ldap.Binds(); n > 1 {
				t.Errorf("%d binds", n)
			}
			// Corrected in the console, it works without a restart.
			w.gateway.SetConnection(w.connection(nil))
			w.gateway.SetProfile(w.profile(nil))
			w.run(r, Processed, 0)
		})
	}
}

func TestRefusedLoginIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	w.password = "wrong"
	_, err := w.run(w.process(), Failed, 0)
	if fault.Of(err) != fault.Refused || w.calls("POST", "/auth") != 1 {
		t.Errorf("%d logins, error %v", w.calls("POST", "/auth"), err)
	}
	if lines := w.log.with("run finished"); len(lines) != 1 || lines[0]["class"] != "refused" || lines[0]["level"] != "error" {
		t.Errorf("log %v", lines)
	}
	if runs, _ := w.store.Runs(); len(runs) != 1 || runs[0].Error == "" {
		t.Errorf("runs %+v", runs)
	}
}

// TestStateFileFails: a run that cannot be recorded is not called processed.
func TestStateFileFails(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(3)
	w.intercepting(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == assetsPath {
			w.store.Close()
		}
		return false
	})
	run, err := w.process().Run(t.Context(), Mode{})
	if run.Result != Failed || err == nil || !strings.Contains(run.Error, "state file") {
		t.Errorf("run %+v, error %v", run, err)
	}
	if lines := w.log.with("run finished"); len(lines) != 1 || lines[0]["result"] != Failed {
		t.Errorf("log %v", lines)
	}
}

// TestJournalFails: what could not be recorded is not counted as settled.
func TestJournalFails(t *testing.T) {
	w := newWorld(t)
	delivery, err := w.store.Begin(ad.InvocationID{1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	object := identity.Object{Kind: identity.User, GUID: ad.GUID{1}}
	if err := delivery.Announce([]state.Batch{{Objects: []identity.Object{object}}}); err != nil {
		t.Fatal(err)
	}
	w.store.Close()
	j := &journal{Delivery: delivery, outcomes: map[Outcome]int{}, progress: &Progress{}}
	err = j.Settle([]state.Receipt{{Complete: true, Delivered: []identity.Object{object}}})
	if err == nil || len(j.outcomes) != 0 || j.progress.Settled.Load() != 0 {
		t.Errorf("error %v, outcomes %v", err, j.outcomes)
	}
}

// TestManyBatchesWhileTheFileGrows would not end if a read of the index were open
// while the pass waits for room to upload.
func TestManyBatchesWhileTheFileGrows(t *testing.T) {
	w := newWorld(t)
	w.ldap.Users = fakeldap.Users(6000)
	w.options.Search.PageSize = 1000
	w.options.Upload = upload.Options{Workers: 1, BatchSize: 100, BatchBytes: 1 << 20}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if run, err := w.process().Run(ctx, Mode{}); err != nil || run.Uploaded != 6000 {
		t.Errorf("run %+v, error %v", run, err)
	}
}

// TestRefusedLoginIsTriedOnceARun: each try counts towards the lockout of the account,
// and neither a run's other calls nor the telling of states in between are worth one.
func TestRefusedLoginIsTriedOnceARun(t *testing.T) {
	w := newWorld(t)
	r := w.process()
	w.run(r, Processed, 0)
	var logins atomic.Int32
	w.intercepting(func(writer http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != "/auth" {
			return false
		}
		logins.Add(1)
		writer.WriteHeader(http.StatusUnauthorized)
		return true
	})
	w.gateway.RevokeTokens()
	for n := range int32(3) {
		if _, err := w.run(r, Failed, 0); fault.Of(err) != fault.Refused {
			t.Errorf("error %v", err)
		}
		for range 5 {
			r.connector.tellAgain(t.Context())
		}
		if got := logins.Load(); got != n+1 {
			t.Errorf("%d logins after %d runs", got, n+1)
		}
	}
	if lines := w.log.with("connector state sent late"); len(lines) != 0 {
		t.Errorf("log %v", lines)
	}
}
