package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"
)

// A daemon waits most of the time, and a host can run hundreds of them. The Go runtime keeps the
// memory of a run for the next one: it collects garbage only when the heap grows, and gives free
// memory back slowly.

const (
	// minIdle is the shortest wait for which a daemon gives memory back. It costs a few milliseconds of
	// CPU, tens after a run with security posture of 100,000 users, and the next run takes it again.
	minIdle = 30 * time.Second
	// maxIdleGrowth is the number of bytes by which the heap of a waiting daemon can grow, because of
	// requests to the admin endpoint, before it gives memory back again.
	maxIdleGrowth = 256 << 10
)

// gcPercent is the growth of the heap, in percent of what is in use, after which garbage is collected.
// With the default of 100, a run has as much garbage as memory in use. Half of it costs a few percent of
// the CPU of a first sync with security posture, and a limit of the memory (GOMEMLIMIT) many times that.
const gcPercent = 50

// limitGarbage sets gcPercent, unless the environment has GOGC, which the Go runtime has read. The
// runtime ignores an empty GOGC.
func limitGarbage(environ []string) {
	isSet := func(pair string) bool { return strings.HasPrefix(pair, "GOGC=") && pair != "GOGC=" }
	if !slices.ContainsFunc(environ, isSet) {
		debug.SetGCPercent(gcPercent)
	}
}

// idleMemory gives the memory of a daemon back while it waits for its next run.
type idleMemory struct {
	waiting bool
	heap    uint64 // after memory was given back
}

// wait is called after a run.
func (m *idleMemory) wait(duration time.Duration) {
	if m.waiting = duration >= minIdle; m.waiting {
		m.giveBack()
	}
}

// beat is called from time to time while the daemon waits.
func (m *idleMemory) beat() {
	if m.waiting && heapMemory() > m.heap+maxIdleGrowth {
		m.giveBack()
	}
}

// run is called before a run.
func (m *idleMemory) run() { m.waiting = false }

func (m *idleMemory) giveBack() {
	runtime.GC() // what a sync.Pool holds survives one collection
	debug.FreeOSMemory()
	m.heap = heapMemory()
}

// heapMemory returns the size of the heap in memory, in bytes.
func heapMemory() (size uint64) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	for _, s := range samples {
		size += s.Value.Uint64()
	}
	return size
}
