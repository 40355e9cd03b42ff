package faults

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"adconnector/test/program"
)

var seedFlag = flag.Uint64("seed", 0, "seed of all random choices; 0: a new seed for each run")

func TestMain(m *testing.M) {
	flag.Parse()
	if *seedFlag == 0 {
		*seedFlag = uint64(time.Now().UnixNano()) % 1_000_000
	}
	parallelSet := false
	flag.Visit(func(f *flag.Flag) { parallelSet = parallelSet || f.Name == "test.parallel" })
	if !parallelSet { // the tests wait more than they compute
		if err := flag.Set("test.parallel", "6"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	secretScan.report()
	if err := program.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// newRandom returns a random number generator for the test. Its numbers depend on the seed
// and the test's name, so they do not depend on which other tests run.
func newRandom(t *testing.T) *rand.Rand {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -seed %d", *seedFlag)
		}
	})
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(t.Name()))
	return rand.New(&lockedSource{pcg: rand.NewPCG(*seedFlag, hash.Sum64())})
}

// lockedSource is a rand.Source that is safe for concurrent use.
type lockedSource struct {
	mu  sync.Mutex
	pcg *rand.PCG
}

func (s *lockedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pcg.Uint64()
}

// scaled returns short in the short form of the suite, else long.
func scaled[T any](short, long T) T {
	if testing.Short() {
		return short
	}
	return long
}

// logResult logs the measured figures of a test in one line.
func logResult(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("seed %d: %s", *seedFlag, fmt.Sprintf(format, args...))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
