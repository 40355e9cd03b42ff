package faults

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// settings are the lines of an env file.
type settings map[string]string

// with returns a copy with some settings replaced; an empty value takes one out.
func (s settings) with(more settings) settings {
	all := maps.Clone(s)
	maps.Copy(all, more)
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// line is a line of the log.
type line map[string]any

func (l line) text(key string) string {
	text, _ := l[key].(string)
	return text
}

// process is a connector that runs.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	stdout   bytes.Buffer
	finished chan struct{} // closed once it has ended and its output is read

	mu     sync.Mutex
	stderr bytes.Buffer
	log    []line
	heard  chan struct{} // closed, and made anew, with every line
}

// command is how a connector is started.
type command struct {
	settings settings
	args     []string
	wrapped  []string             // the words before the program: a shell that sets limits
	onLine   func(*process, line) // is told each line of the log, before it is kept
}

// start starts a connector with nothing but an env file for its configuration.
func start(t *testing.T, c command) *process {
	t.Helper()
	path, err := program()
	must(t, err)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(c.settings)) {
		fmt.Fprintf(&text, "%s=%s\n", key, c.settings[key])
	}
	dir, err := os.MkdirTemp(workDir, "process")
	must(t, err)
	file := filepath.Join(dir, "connector.env")
	must(t, os.WriteFile(file, []byte(text.String()), 0o600))
	words := slices.Concat(c.wrapped, []string{path}, c.args, []string{"--env-file", file})
	p := &process{t: t, cmd: exec.Command(words[0], words[1:]...), finished: make(chan struct{}), heard: make(chan struct{})}
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	p.cmd.Stdout = &p.stdout
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output, err := p.cmd.StderrPipe()
	must(t, err)
	must(t, p.cmd.Start())
	go func() {
		defer close(p.finished)
		p.listen(output, c.onLine)
		_ = p.cmd.Wait() // ProcessState tells
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.finished
		searched.in(t, "a process", p.stdout.String()+p.stderr.String())
		os.RemoveAll(dir)
	})
	return p
}

func (p *process) listen(output io.Reader, onLine func(*process, line)) {
	scanner := bufio.NewScanner(output)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var l line
		if json.Unmarshal(scanner.Bytes(), &l) != nil {
			l = line{"message": "not JSON", "text": scanner.Text()} // of a process that was killed while it wrote, or a panic
		}
		if onLine != nil {
			onLine(p, l)
		}
		p.mu.Lock()
		p.stderr.Write(scanner.Bytes())
		p.stderr.WriteByte('\n')
		p.log = append(p.log, l)
		close(p.heard)
		p.heard = make(chan struct{})
		p.mu.Unlock()
	}
}

// kill ends the process as a power switch would, and returns when it is dead.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.finished
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// waitFor returns the first line, from the n-th on, that is wanted, and its number.
func (p *process) waitFor(t *testing.T, from int, within time.Duration, wanted func(line) bool) (line, int) {
	t.Helper()
	timeout := time.After(within)
	for {
		p.mu.Lock()
		for n := from; n < len(p.log); n++ {
			if wanted(p.log[n]) {
				defer p.mu.Unlock()
				return p.log[n], n
			}
		}
		from = len(p.log)
		heard := p.heard
		p.mu.Unlock()
		select {
		case <-heard:
		case <-p.finished:
			t.Fatalf("the connector ended (%v):\n%s", p.cmd.ProcessState, p.text())
		case <-timeout:
			t.Fatalf("not within %s:\n%s", within, p.text())
		}
	}
}

func saying(message string) func(line) bool {
	return func(l line) bool { return l.text("message") == message }
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// outcome is what a process left.
type outcome struct {
	code   int
	killed bool
	log    []line
	text   string
}

// wait returns how the process ended. One that does not end within the time fails
// the test and shows where it hangs.
func (p *process) wait(t *testing.T, within time.Duration) outcome {
	t.Helper()
	select {
	case <-p.finished:
	case <-time.After(within):
		p.signal(syscall.SIGQUIT)
		select {
		case <-p.finished:
		case <-time.After(5 * time.Second):
			p.kill()
		}
		t.Fatalf("the connector did not end within %s:\n%s", within, p.text())
	}
	o := outcome{code: p.cmd.ProcessState.ExitCode(), log: p.log, text: p.stderr.String()}
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	o.killed = status.Signaled()
	if strings.Contains(o.text, "goroutine ") || strings.Contains(o.text, "panic:") {
		t.Errorf("the connector panicked:\n%s", o.text)
	}
	return o
}

// summary is the line that ends a run; nil when no run ended.
func (o outcome) summary() line {
	var last line
	for _, l := range o.log {
		if l.text("message") == "run finished" {
			last = l
		}
	}
	return last
}

// number is a count of the summary.
func (l line) number(key string) int {
	n, _ := l[key].(float64)
	return int(n)
}

// syncWithin bounds one run.
const syncWithin = 2 * time.Minute

// run starts a connector that ends by itself.
func run(t *testing.T, s settings, args ...string) outcome {
	t.Helper()
	return start(t, command{settings: s, args: args}).wait(t, syncWithin)
}

// mustExit ends the test unless the process ended with one of the codes.
func (o outcome) mustExit(t *testing.T, codes ...int) {
	t.Helper()
	if !slices.Contains(codes, o.code) {
		t.Fatalf("exit code %d, want %d:\n%s", o.code, codes, o.text)
	}
}

// mustSay fails the test unless one error of the log contains all the words.
func (o outcome) mustSay(t *testing.T, words ...string) {
	t.Helper()
	for _, l := range o.log {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l.text("error"), w) }) {
			return
		}
	}
	t.Errorf("no error says %q:\n%s", words, o.text)
}
