package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// measurement is what one contender took in one round.
type measurement struct {
	wall, cpu time.Duration // cpu is user and system time of its own processes
	rss, anon int64         // peaks, in bytes
	requests  int           // that the gateway saw
}

// sampleEvery is how often memory is looked at: often enough for the peak of a
// process that lives for a tenth of a second, seldom enough not to be noticed.
const sampleEvery = 10 * time.Millisecond

// measure runs commands one after the other as if they were one.
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
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		m.watch(cmd.Process.Pid, ended)
	}()
	err := cmd.Wait()
	close(ended)
	<-watched
	if err != nil {
		return fmt.Errorf("%w: %s", err, tail(stderr.Bytes()))
	}
	m.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return nil
}

// watch keeps the peaks of a process's memory. The resident peak is the kernel's
// own (VmHWM), because rusage's counts what this process had when it forked.
func (m *measurement) watch(pid int, ended <-chan struct{}) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if status, err := os.ReadFile(path); err == nil { // none: it has ended
			m.rss = max(m.rss, memoryLine(status, "VmHWM:"))
			m.anon = max(m.anon, memoryLine(status, "RssAnon:"))
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// memoryLine reads a line like "VmHWM:	    1234 kB", in bytes; 0: there is none.
func memoryLine(status []byte, name string) int64 {
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

// tail is the end of what a process said.
func tail(text []byte) string {
	const enough = 2000
	text = bytes.TrimSpace(text)
	if len(text) > enough {
		text = text[len(text)-enough:]
	}
	return string(text)
}
