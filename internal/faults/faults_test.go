package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("seed", 0, "repeat the run with this seed; 0: another one each time")

var workDir string

func TestMain(m *testing.M) {
	flag.Parse()
	if *seedFlag == 0 {
		*seedFlag = uint64(time.Now().UnixNano()) % 1_000_000
	}
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workDir = dir
	code := m.Run()
	searched.report()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// seeded returns the test's own random numbers.
func seeded(t *testing.T) *rand.Rand {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -seed %d", *seedFlag)
		}
	})
	sum := uint64(14695981039346656037) // FNV-1a: each test its own numbers, whichever others run
	for _, b := range []byte(t.Name()) {
		sum = (sum ^ uint64(b)) * 1099511628211
	}
	return rand.New(&shared{pcg: rand.NewPCG(*seedFlag, sum)})
}

// shared are random numbers that several goroutines take from.
type shared struct {
	mu  sync.Mutex
	pcg *rand.PCG
}

func (s *shared) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pcg.Uint64()
}

// scaled chooses between the two forms of a test.
func scaled[T any](inShort, inLong T) T {
	if long {
		return inLong
	}
	return inShort
}

// figures prints what a test has measured, in one line.
func figures(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("seed %d: %s", *seedFlag, fmt.Sprintf(format, args...))
}

// program is the path of the connector as it is shipped, built once.
var program = sync.OnceValues(func() (string, error) {
	out := filepath.Join(workDir, "adconnector")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", out, "adconnector/cmd/adconnector")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the connector: %w\n%s", err, text)
	}
	return out, nil
})

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
