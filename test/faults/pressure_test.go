package faults

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/syncrun"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// resident returns the resident memory of a process in bytes, 0 after its end.
func resident(p *program.Process) (size int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(text)) {
		if kilobytes, is := strings.CutPrefix(l, "VmRSS:"); is {
			size, _ = strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kilobytes), "kB")), 10, 64)
		}
	}
	return size << 10
}

// TestSlowGateway sends to a gateway that takes its time for each call. It passes
// when the directory is read no faster than the gateway takes, but for what is under
// way; when memory stays flat from the first tenth on; and when all is delivered.
func TestSlowGateway(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: scaled(1600, 20_000), groups: 20})
	const batch, workers, pageSize = 20, 4, 100
	s.settings = s.settings.With(testenv.Settings{
		"upload.batch-size": strconv.Itoa(batch), "thread-pool.size": strconv.Itoa(workers), "ldap.page-size": strconv.Itoa(pageSize),
	})
	all := len(wanted(s.Directory.Server, time.Now()))
	// Batches sent and not recorded, those on their way there, and what the reading is
	// ahead: four chunks of 64 KiB, of entries of 400 bytes at least, and a page.
	const ahead = batch*(4*workers+workers+2) + 4*(64<<10)/400 + 2*pageSize
	var mu sync.Mutex
	p := make(chan *program.Process, 1)
	furthest, least, most, batches := 0, int64(0), int64(0), 0
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if !x.HasAssets() {
			return false
		}
		<-time.After(scaled(10*time.Millisecond, 50*time.Millisecond))
		taken, _ := s.witness.counts()
		mu.Lock()
		defer mu.Unlock()
		read := s.Directory.Searches().Entries
		furthest = max(furthest, read-taken)
		if batches++; batches*batch < all/10 {
			return false
		}
		running := <-p
		p <- running
		now := resident(running)
		if least == 0 {
			least = now
		}
		most = max(most, now)
		return false
	})
	p <- start(t, command{settings: s.settings, args: []string{"sync"}})
	running := <-p
	p <- running
	running.MustExit(t, 0)
	s.mustBeEqual(t, "with a slow gateway")
	if furthest > ahead {
		t.Errorf("the reading was %d objects ahead, at most %d", furthest, ahead)
	}
	if grown := most - least; grown > 16<<20 {
		t.Errorf("memory has grown from %d to %d MiB", least>>20, most>>20)
	}
	figures(t, "%d objects: read at most %d ahead of what was taken, memory from %d to %d MiB", all, furthest, least>>20, most>>20)
}

// TestForgottenSearch has the gateway tell to wait, for longer than the directory
// bears to be left alone. It passes when one run delivers everything all the same,
// with searches that begin anew, and nothing is sent twice.
func TestForgottenSearch(t *testing.T) {
	if testing.Short() {
		t.Skip("syncrun tests the short form: here a wait takes 12 s")
	}
	t.Parallel()
	s := newEnvironment(t, plan{users: 3000, groups: 20})
	s.settings = s.settings.With(testenv.Settings{"upload.batch-size": "10", "thread-pool.size": "2", "ldap.page-size": "100"})
	s.relay.set(rule{connection: -1, idle: 6 * time.Second})
	var mu sync.Mutex
	var until time.Time
	batches, waits := 0, 0
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if !x.HasAssets() {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if time.Now().After(until) {
			if batches++; batches%100 != 0 {
				return false
			}
			until = time.Now().Add(12 * time.Second)
			waits++
		}
		x.W.Header().Set("Retry-After", "12")
		return x.Status(http.StatusTooManyRequests, "")
	})
	o := run(t, s.settings, "sync")
	o.MustExit(t, 0)
	s.mustBeEqual(t, "in spite of the waits")
	anew := len(slices.DeleteFunc(o.Log, func(l testlog.Line) bool { return l.Text("message") != syncrun.MsgSearchRestarted }))
	if anew == 0 {
		t.Errorf("no search began anew:\n%s", o.Stderr)
	}
	for _, identity := range s.Gateway.Users() {
		if identity.Times != 1 {
			t.Errorf("%s was sent %d times", identity.VendorAssetID, identity.Times)
		}
	}
	figures(t, "%d waits of 12 s, a directory that ends what is idle for 6 s: %d searches began anew, all equal in one run", waits, anew)
}
