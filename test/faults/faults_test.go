package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"adconnector/test/program"
)

var seedFlag = flag.Uint64("seed", 0, "repeat the run with this seed; 0: another one each time")

func TestMain(m *testing.M) {
	flag.Parse()
	if *seedFlag == 0 {
		*seedFlag = uint64(time.Now().UnixNano()) % 1_000_000
	}
	parallelSet := false
	flag.Visit(func(f *flag.Flag) { parallelSet = parallelSet || f.Name == "test.parallel" })
	if !parallelSet { // these tests wait more than they compute
		if err := flag.Set("test.parallel", "6"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	searched.report()
	if err := program.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// seeded returns random numbers of the test's own.
func seeded(t *testing.T) *rand.Rand {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -seed %d", *seedFlag)
		}
	})
	sum := uint64(14695981039346656037) // FNV-1a: they do not depend on which other tests run
	for _, b := range []byte(t.Name()) {
		sum = (sum ^ uint64(b)) * 1099511628211
	}
	return rand.New(&shared{pcg: rand.NewPCG(*seedFlag, sum)})
}

// shared is a source of random numbers for several goroutines.
type shared struct {
	mu  sync.Mutex
	pcg *rand.PCG
}

func (s *shared) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pcg.Uint64()
}

// scaled returns the value for the form of the test that runs.
func scaled[T any](inShort, inLong T) T {
	if testing.Short() {
		return inShort
	}
	return inLong
}

// figures logs what a test has measured, in one line.
func figures(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("seed %d: %s", *seedFlag, fmt.Sprintf(format, args...))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
