package cli

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// waste allocates memory and keeps none of it.
func waste() {
	for range 64 {
		garbage = make([]byte, 1<<20)
		for i := 0; i < len(garbage); i += 4096 {
			garbage[i] = 1
		}
	}
	garbage = nil
}

var garbage []byte

// growAnd calls a function while the heap is larger by far more than what the tests before this one
// have left and the runtime frees in the meantime.
func growAnd(do func()) {
	keep := make([]byte, 256<<20)
	do()
	runtime.KeepAlive(keep)
}

// This test is not parallel to others, whose garbage would be collected, too.
func TestIdleMemory(t *testing.T) {
	collections := func(do func()) uint32 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		return after.NumForcedGC - before.NumForcedGC
	}
	var m idleMemory
	for _, step := range []struct {
		name string
		do   func()
		want bool // gives memory back
	}{
		{"beat before the first run", m.beat, false},
		{"short wait", func() { m.wait(minIdle - time.Nanosecond) }, false},
		{"growth in a short wait", func() { waste(); m.beat() }, false},
		{"wait", func() { m.wait(minIdle) }, true},
		{"growth in a wait", func() { growAnd(m.beat) }, true},
		{"nothing new in a wait", func() { m.heap = heapMemory(); m.beat() }, false},
		{"growth in a run", func() { m.run(); growAnd(m.beat) }, false},
	} {
		if n := collections(step.do); n > 0 != step.want {
			t.Errorf("%s: %d collections", step.name, n)
		}
	}
	waste()
	before := heapMemory()
	m.wait(time.Hour)
	if after := heapMemory(); after >= before {
		t.Errorf("%d bytes of the heap after %d", after, before)
	}
}

// This test is not parallel to others, which change the same setting of the process.
func TestLimitGarbage(t *testing.T) {
	const before = 123
	original := debug.SetGCPercent(before)
	defer debug.SetGCPercent(original)
	for name, c := range map[string]struct {
		environ []string
		want    int
	}{
		"not set":            {[]string{"PATH=/bin", "XGOGC=200"}, gcPercent},
		"empty":              {[]string{"GOGC="}, gcPercent},
		"set":                {[]string{"GOGC=200"}, before},
		"set to the default": {[]string{"GOGC=100"}, before},
		"off":                {[]string{"GOGC=off"}, before},
	} {
		debug.SetGCPercent(before)
		limitGarbage(c.environ)
		if got := debug.SetGCPercent(before); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
