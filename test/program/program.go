// Package program runs the connector as a child process in tests.
package program

import (
	"bufio"
	"bytes"
	"errors"
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

	"adconnector/test/testlog"
)

// Build builds the connector with the release settings, once per test process, and
// returns its path. Remove deletes it.
var Build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "adconnector-test")
	if err != nil {
		return "", err
	}
	buildDir = dir
	path := filepath.Join(dir, "adconnector")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "adconnector/cmd/adconnector")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the connector: %w\n%s", err, output)
	}
	return path, nil
})

var buildDir string

// Remove deletes the output of Build. TestMain calls it at the end.
func Remove() error { return os.RemoveAll(buildDir) }

// Command describes a process to start.
type Command struct {
	Path    string                       // "": the output of Build
	Args    []string                     // of the program
	Env     []string                     // the environment, in addition to Environ
	Wrapper []string                     // command line prefix, such as a shell that sets limits
	OnLine  func(*Process, testlog.Line) // called for each log line; nil: none
}

// NotJSON is the message of the recorded line for stderr output that is not JSON.
const NotJSON = "not JSON"

// Process is a running program. Its output is recorded.
type Process struct {
	Log   testlog.Log
	Ended chan struct{} // closed when the process has ended and its output is recorded

	cmd    *exec.Cmd
	stdout *os.File // the read end of the pipe

	mu      sync.Mutex
	printed bytes.Buffer // stdout
	logged  bytes.Buffer // stderr
	changed chan struct{}
}

// EnvFile writes settings to an env file in a temporary directory and returns its path.
func EnvFile(t testing.TB, settings map[string]string) string {
	t.Helper()
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s=%s\n", key, settings[key])
	}
	file := filepath.Join(t.TempDir(), "connector.env")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Start starts a process in a new process group, which is killed when the test ends.
func Start(t testing.TB, c Command) *Process {
	t.Helper()
	if c.Path == "" {
		path, err := Build()
		if err != nil {
			t.Fatal(err)
		}
		c.Path = path
	}
	words := slices.Concat(c.Wrapper, []string{c.Path}, c.Args)
	p := &Process{Ended: make(chan struct{}), changed: make(chan struct{}), cmd: exec.Command(words[0], words[1:]...)}
	p.cmd.Env = append(Environ(t), c.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, stdoutEnd := pipe(t)
	stderr, stderrEnd := pipe(t)
	p.stdout, p.cmd.Stdout, p.cmd.Stderr = stdout, stdoutEnd, stderrEnd
	err := p.cmd.Start()
	stdoutEnd.Close()
	stderrEnd.Close()
	if err != nil {
		t.Fatal(err)
	}
	var recording sync.WaitGroup
	recording.Go(func() { p.recordStdout() })
	recording.Go(func() { p.recordLog(t, stderr, c.OnLine) })
	go func() {
		defer close(p.Ended)
		recording.Wait()
		_ = p.cmd.Wait() // ProcessState contains the result
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.Ended
		stdout.Close()
		stderr.Close()
	})
	return p
}

// Environ returns the environment variables that every process needs.
func Environ(t testing.TB) []string {
	t.Helper()
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(),
		"GORACE=atexit_sleep_ms=0", // otherwise the race detector sleeps for a second at exit
		"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
}

func pipe(t testing.TB) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return reader, writer
}

func (p *Process) recordStdout() {
	buffer := make([]byte, 4096)
	for {
		n, err := p.stdout.Read(buffer)
		p.mu.Lock()
		p.printed.Write(buffer[:n])
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// recordLog records the log and fails the test for each line that does not have the
// documented format. A line that is not JSON was truncated by a kill or is part of a panic.
func (p *Process) recordLog(t testing.TB, stderr io.Reader, onLine func(*Process, testlog.Line)) {
	scanner := bufio.NewScanner(stderr)
	scanner.Buffer(nil, 16<<20)
	var form testlog.Form
	for scanner.Scan() {
		line, err := form.Check(scanner.Bytes())
		if line == nil {
			line = testlog.Line{"message": NotJSON, "text": scanner.Text()}
		} else if err != nil {
			t.Error(err)
		}
		if onLine != nil {
			onLine(p, line)
		}
		p.mu.Lock()
		p.logged.Write(scanner.Bytes())
		p.logged.WriteByte('\n')
		p.mu.Unlock()
		p.Log.Append(line)
	}
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stdout returns the current content of stdout.
func (p *Process) Stdout() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.printed.String()
}

// Stderr returns the current text of the log.
func (p *Process) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logged.String()
}

// Signal sends signals in order.
func (p *Process) Signal(t testing.TB, signals ...os.Signal) {
	t.Helper()
	for _, s := range signals {
		if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
}

// Kill kills the process and waits until it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.Ended
}

// Await returns the first log line at or after index from that matches, and the next index.
// It fails the test if the process ends without such a line, or logs nothing for
// testlog.IdleLimit.
func (p *Process) Await(t testing.TB, from int, match func(testlog.Line) bool) (testlog.Line, int) {
	t.Helper()
	line, next, ok := p.Log.Await(from, match, p.Ended)
	if !ok {
		t.Fatalf("no matching log line (%s):\n%s", p.state(), p.Stderr())
	}
	return line, next
}

// AwaitMessage waits for a log line with this message and returns it.
func (p *Process) AwaitMessage(t testing.TB, message string) testlog.Line {
	t.Helper()
	line, _ := p.Await(t, 0, testlog.Message(message))
	return line
}

// AwaitStdout waits until stdout contains text, and returns the content of stdout.
func (p *Process) AwaitStdout(t testing.TB, text string) string {
	t.Helper()
	for {
		p.mu.Lock()
		printed, changed := p.printed.String(), p.changed
		p.mu.Unlock()
		if strings.Contains(printed, text) {
			return printed
		}
		idle := time.NewTimer(testlog.IdleLimit)
		select {
		case <-changed:
			idle.Stop()
		case <-p.Ended:
			idle.Stop()
			if printed = p.Stdout(); strings.Contains(printed, text) {
				return printed
			}
			t.Fatalf("%q missing on stdout (%s): %q\n%s", text, p.state(), printed, p.Stderr())
		case <-idle.C:
			t.Fatalf("%q missing on stdout (%s): %q\n%s", text, p.state(), printed, p.Stderr())
		}
	}
}

func (p *Process) state() string {
	select {
	case <-p.Ended:
		return p.cmd.ProcessState.String()
	default:
		return "running"
	}
}

// Outcome is the result of a process.
type Outcome struct {
	Code   int // exit code; -1: killed by a signal
	Log    []testlog.Line
	Stdout string
	Stderr string
}

// Summary returns the line "run finished" of the last run, or nil.
func (o Outcome) Summary() testlog.Line {
	for _, line := range slices.Backward(o.Log) {
		if line.Text("message") == "run finished" {
			return line
		}
	}
	return nil
}

// With returns the log lines with this message.
func (o Outcome) With(message string) []testlog.Line {
	var found []testlog.Line
	for _, line := range o.Log {
		if line.Text("message") == message {
			found = append(found, line)
		}
	}
	return found
}

// Errors returns the field error of each log line of level error.
func (o Outcome) Errors() []string {
	var found []string
	for _, line := range o.Log {
		if line.Text("level") == "error" {
			found = append(found, line.Text("error"))
		}
	}
	return found
}

// Wait waits until the process has ended and returns its result. If the process writes no
// output for testlog.IdleLimit, Wait fails the test with a dump of its goroutines.
func (p *Process) Wait(t testing.TB) Outcome {
	t.Helper()
	o := p.WaitForDump(t)
	if strings.Contains(o.Stderr, "goroutine ") || strings.Contains(o.Stderr, "panic:") {
		t.Errorf("the connector panicked:\n%s", o.Stderr)
	}
	return o
}

// WaitForDump is like Wait, for a process that can end with a dump of its goroutines.
func (p *Process) WaitForDump(t testing.TB) Outcome {
	t.Helper()
	for size := -1; ; {
		idle := time.NewTimer(testlog.IdleLimit)
		select {
		case <-p.Ended:
			idle.Stop()
			return Outcome{Code: p.cmd.ProcessState.ExitCode(), Log: p.Log.Lines(), Stdout: p.Stdout(), Stderr: p.Stderr()}
		case <-idle.C:
		}
		if newSize := len(p.Stdout()) + len(p.Stderr()); newSize != size {
			size = newSize
			continue
		}
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.Ended
		t.Fatalf("the connector does not exit:\n%s", p.Stderr())
	}
}

// MustExit calls Wait and fails the test unless the exit code is one of codes.
func (p *Process) MustExit(t testing.TB, codes ...int) Outcome {
	t.Helper()
	o := p.Wait(t)
	o.MustExit(t, codes...)
	return o
}

// MustExit fails the test unless the exit code is one of codes.
func (o Outcome) MustExit(t testing.TB, codes ...int) {
	t.Helper()
	if !slices.Contains(codes, o.Code) {
		t.Fatalf("exit code %d, want %v:\n%s", o.Code, codes, o.Stderr)
	}
}
