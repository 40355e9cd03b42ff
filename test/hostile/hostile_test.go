package hostile

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/fakeldap"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

var seedFlag = flag.Uint64("seed", 1, "seed of the random attacks")

func TestMain(m *testing.M) {
	flag.Parse()
	parallelSet := false
	flag.Visit(func(f *flag.Flag) { parallelSet = parallelSet || f.Name == "test.parallel" })
	if !parallelSet { // the connector waits more than it computes
		if err := flag.Set("test.parallel", "6"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if err := program.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// The bounds of resident memory in bytes.
const (
	memoryBound = 256 << 20
	// largeMemoryBound applies to the first run with a directory that shows millions of members.
	largeMemoryBound = 512 << 20
)

// attack is one behavior of the peers. The zero value is a directory of 1,000 objects and a
// gateway, both without faults.
type attack struct {
	name      string
	directory func(p *fakeldap.Peer, r fakeldap.Request) bool // answers searches; nil: 1,000 objects
	gateway   func(x *testenv.Exchange) bool                  // answers calls, unless it returns false
	rootDSE   [][]string                                      // further attributes of the rootDSE
	random    bool                                            // the answers are random, so that a run may end at any of them
	posture   bool
	bound     int // 0: memoryBound
	// before answers searches in a run before the attack; nil: the attack is in the first run
	before func(p *fakeldap.Peer, r fakeldap.Request) bool
}

// result is what a run did.
type result struct {
	program.Outcome
	peak     int // VmHWM in bytes
	duration time.Duration
}

// run runs the connector once against the peers of an attack and checks the result.
func (a attack) run(t *testing.T) result {
	t.Helper()
	g := testenv.NewGateway(t, testenv.GatewayOptions{Options: gatewayserver.Options{
		Username: "qualys_ad1", Password: testlog.AddSecret("Gw-s3cret!" + strconv.FormatUint(*seedFlag, 36) + `"#`),
	}})
	testlog.AddCredentials(g.Options.Username, g.Options.Password)
	authentication := gatewayserver.Authentication{Type: "LDAP", Host: "127.0.0.1", BindDN: fakeldap.BindDN, Password: testlog.AddSecret(fakeldap.Password)}
	var reached reachedReading
	connectTo := func(port int) {
		authentication.Port = port
		g.SetConnection(&gatewayserver.Connection{ConnectionUUID: testenv.ConnectionUUID, Name: "test", Authentication: authentication})
	}
	if a.before != nil {
		connectTo(fakeldap.Serve(t, nil, fakeldap.Directory(a.before)).Port)
	} else if a.directory == nil {
		server := fakeldap.Start(t)
		server.Users, server.Groups = fakeldap.Users(900), fakeldap.Groups(100)
		connectTo(server.Port)
	} else {
		controller := fakeldap.DC1
		controller.RootDSE = a.rootDSE
		connectTo(fakeldap.Serve(t, nil, controller.Script(reached.observe(a.directory))).Port)
	}
	assets := "IDENTITIES_ONLY"
	if a.posture {
		assets = "IDENTITIES_WITH_SECURITY_POSTURE"
	}
	g.SetProfile(&gateway.Profile{ProfileUUID: testenv.ProfileUUID, Name: "test", BaseContext: fakeldap.Base, SearchScope: "SUBTREE", Assets: assets})
	if a.gateway != nil {
		g.SetFront(a.gateway)
	}
	settings := g.Settings().With(testenv.Settings{
		"authentication.type": "BASIC", "service.state-dir": filepath.Join(t.TempDir(), "state"), "service.admin.address": "off",
	})
	command := program.Command{Args: []string{"sync", "--env-file", program.EnvFile(t, settings)}}
	if a.before != nil {
		program.Start(t, command).MustExit(t, 0)
		connectTo(fakeldap.Serve(t, nil, fakeldap.Directory(reached.observe(a.directory))).Port)
	}
	started := time.Now()
	p := program.Start(t, command)
	peak := watchMemory(p)
	r := result{Outcome: p.Wait(t)}
	r.peak, r.duration = peak(), time.Since(started)
	a.check(t, r)
	if a.directory != nil && !a.random && !reached.Load() {
		t.Error("the attack has not reached the reading of objects")
	}
	return r
}

// reachedReading is whether a directory has received a search that reads objects. Without one, an attack
// has tested nothing but what comes before.
type reachedReading struct{ atomic.Bool }

// observe returns answer with an observer.
func (reached *reachedReading) observe(answer searchAnswer) searchAnswer {
	return func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if reads(r) {
			reached.Store(true)
		}
		return answer(p, r)
	}
}

// check checks what every run must do.
func (a attack) check(t *testing.T, r result) {
	t.Helper()
	if before, found := testlog.FindSecret(r.Stderr + r.Stdout); found {
		t.Errorf("secret after %q", before)
	}
	for _, line := range r.Log { // program checks the form of all others
		if line.Text("message") == program.NotJSON {
			t.Errorf("not JSON on stderr: %.200q", line.Text("text"))
		}
	}
	bound := a.bound
	if bound == 0 {
		bound = memoryBound
	}
	summary := r.Summary()
	if r.Code < 0 || summary == nil {
		t.Errorf("exit code %d, summary %v:\n%.2000s", r.Code, summary, r.Stderr)
	}
	t.Logf("%-48s peak %4d MiB, %5.1f s, exit code %d, %s %.160s", a.name, r.peak>>20, r.duration.Seconds(), r.Code, summary.Text("result"), summary.Text("error"))
	if r.peak == 0 || r.peak > bound {
		t.Errorf("peak of %d MiB, bound %d MiB", r.peak>>20, bound>>20)
	}
}

// memoryInterval is the interval at which watchMemory reads the peak that the kernel keeps: it
// misses only a growth in the last moment of a process.
const memoryInterval = 2 * time.Millisecond

// watchMemory watches a process until it ends. The function that it returns then returns the
// peak of its resident memory in bytes. The kernel's rusage of a child process is no
// alternative: it includes the memory of the test process before exec.
func watchMemory(p *program.Process) (peak func() int) {
	var watching sync.WaitGroup
	highest := 0
	watching.Go(func() {
		ticker := time.NewTicker(memoryInterval)
		defer ticker.Stop()
		for {
			highest = max(highest, residentPeak(p.PID()))
			select {
			case <-p.Ended:
				return
			case <-ticker.C:
			}
		}
	})
	return func() int {
		watching.Wait()
		return highest
	}
}

// residentPeak returns VmHWM of a process in bytes, or 0 if it has ended.
func residentPeak(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(text, []byte("VmHWM:"))
	kilobytes := 0
	_, _ = fmt.Sscanf(string(after), "%d kB", &kilobytes)
	return kilobytes << 10
}

// TestNoAttack measures the connector without an attack.
func TestNoAttack(t *testing.T) {
	t.Parallel()
	r := attack{name: "none"}.run(t)
	if r.Code != 0 || r.Summary().Number("uploaded") != 1000 {
		t.Errorf("exit code %d, summary %v", r.Code, r.Summary())
	}
}

// everyDay returns the attacks that the short form includes, or all.
func everyDay(attacks []attack) []attack {
	if !testing.Short() {
		return attacks
	}
	return slices.DeleteFunc(attacks, func(a attack) bool { return !slices.Contains(shortForm, a.name) })
}

// shortForm lists the attacks that were seen to break the connector, and one of each kind.
var shortForm = []string{
	"users with 15 MB of control characters", "DN of many levels", "the same page without end", "ranges that repeat",
	"assetsError of objects", "error of objects", "answer sent twice", "body without end",
}

func TestDirectoryAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range everyDay(directoryAttacks(1)) {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.run(t)
		})
	}
}

func TestGatewayAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range everyDay(gatewayAttacks(once)) {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.run(t)
		})
	}
}

// TestCampaignAttacks runs all attacks with the whole directory and every call of the gateway,
// and then random combinations. Its short form runs two random combinations.
func TestCampaignAttacks(t *testing.T) {
	t.Parallel()
	combinations := 10
	if testing.Short() {
		combinations = 1
	} else {
		for _, a := range append(directoryAttacks(10), gatewayAttacks(always)...) {
			t.Run("more "+a.name, func(t *testing.T) {
				t.Parallel()
				a.run(t)
			})
		}
		for _, a := range slowAttacks() {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				a.run(t)
			})
		}
	}
	random := rand.New(rand.NewPCG(*seedFlag, 0))
	for n := range combinations {
		a := randomAttack(random)
		t.Run(fmt.Sprintf("random %d", n), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("repeat with -seed %d", *seedFlag)
				}
			})
			a.run(t)
		})
	}
}
