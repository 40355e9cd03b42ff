package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measurement is the result of one workload in one round.
type measurement struct {
	wall, cpu time.Duration // cpu is the user and system time of the workload's processes
	rss, anon int64         // peak memory in bytes
	requests  int           // at the gateway
	// written are the bytes that the workload's processes caused to be written to disks, and
	// stateFile is the size of the connector's state file after it.
	written, stateFile int64
}

// blockSize is the unit of ru_oublock (getrusage(2)) on Linux, in bytes.
const blockSize = 512

// sampleInterval is the interval of memory samples. It finds the peak of a process that runs
// for 100 ms and has no measurable cost.
const sampleInterval = 10 * time.Millisecond

// measure runs commands one after the other and returns their total.
func measure(commands ...*exec.Cmd) (measurement, error) {
	var m measurement
	begin := time.Now()
	for _, cmd := range commands {
		if err := m.run(cmd); err != nil {
			return m, err
		}
	}
	m.wall = time.Since(begin)
	return m, nil
}

func (m *measurement) run(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	ended, sampled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		m.sampleMemory(cmd.Process.Pid, ended)
	}()
	err := cmd.Wait()
	close(ended)
	<-sampled
	if err != nil {
		return fmt.Errorf("%w: %s", err, tail(stderr.Bytes()))
	}
	m.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, is := cmd.ProcessState.SysUsage().(*syscall.Rusage); is {
		m.written += usage.Oublock * blockSize
	}
	return nil
}

// sampleMemory records the peak memory of a process until ended is closed. The peak RSS is
// VmHWM, because ru_maxrss includes the memory of this process at the time of the fork.
func (m *measurement) sampleMemory(pid int, ended <-chan struct{}) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		if status, err := os.ReadFile(path); err == nil { // fails after the end of the process
			m.rss = max(m.rss, memoryField(status, "VmHWM:"))
			m.anon = max(m.anon, memoryField(status, "RssAnon:"))
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// memoryField returns the bytes of a line like "VmHWM:	    1234 kB", 0 without one.
func memoryField(status []byte, name string) int64 {
	_, rest, found := bytes.Cut(status, []byte(name))
	if !found {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	number, _, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	kilobytes, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

// tail returns the end of a process's output.
func tail(text []byte) string {
	const limit = 2000
	text = bytes.TrimSpace(text)
	if len(text) > limit {
		text = text[len(text)-limit:]
	}
	return string(text)
}
