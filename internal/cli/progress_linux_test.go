package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// openTerminal opens the two ends of a pseudo-terminal.
func openTerminal(t *testing.T) (inside, outside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	var number, unlocked uint32
	for _, call := range []struct {
		request uintptr
		value   *uint32
	}{{syscall.TIOCSPTLCK, &unlocked}, {syscall.TIOCGPTN, &number}} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, outside.Fd(), call.request, uintptr(unsafe.Pointer(call.value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	inside, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	return inside, outside
}

// TestEnableProgressBar tests that only a terminal with the console log format has a bar.
func TestEnableProgressBar(t *testing.T) {
	t.Parallel()
	inside, _ := openTerminal(t)
	file, err := os.Create(emptyFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, test := range map[string]struct {
		stderr       *os.File
		format, term string
		want         bool
	}{
		"terminal": {inside, "", "xterm", true}, "console format": {inside, "console", "xterm", true},
		"JSON": {inside, "json", "xterm", false}, "dumb terminal": {inside, "", "dumb", false}, "file": {file, "", "xterm", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &program{stderr: test.stderr, logFormat: test.format, environ: []string{"TERM=" + test.term}}
			p.enableProgressBar()
			progress, stop := p.showProgress(0)
			stop()
			if got := progress != nil; got != test.want {
				t.Errorf("bar %t, want %t", got, test.want)
			}
		})
	}
}

// runOnTerminal runs sync with a terminal as its stderr and returns the output of the terminal.
// After each read it calls observe with all output so far.
func (s *fixture) runOnTerminal(t *testing.T, term string, args []string, observe func(text string)) string {
	t.Helper()
	inside, outside := openTerminal(t)
	command := exec.CommandContext(t.Context(), os.Args[0], append([]string{"sync"}, args...)...)
	command.Env = slices.Concat(child.Environ(t), s.env.Environ(), []string{childKey + "=1", "TERM=" + term})
	var stdout, written bytes.Buffer
	command.Stdout, command.Stderr = &stdout, inside
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	idle := time.AfterFunc(testlog.IdleLimit, func() { _ = command.Process.Kill() })
	defer idle.Stop()
	for chunk := make([]byte, 4096); ; {
		n, err := outside.Read(chunk)
		if err != nil { // the process has ended
			break
		}
		idle.Reset(testlog.IdleLimit)
		written.Write(chunk[:n])
		observe(written.String())
	}
	if err := command.Wait(); err != nil || !strings.Contains(stdout.String(), "23 uploaded") {
		t.Errorf("%v, stdout %q, stderr %q", err, stdout.String(), written.String())
	}
	return strings.ReplaceAll(written.String(), "\r\n", "\n") // the terminal adds the carriage returns
}

// TestBarOnTerminal tests that a bar is drawn repeatedly below the log, and removed at the end.
func TestBarOnTerminal(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"--log-format", "console"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			release, released := make(chan struct{}), false
			s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
				select {
				case <-release:
				case <-x.R.Context().Done():
				}
				return false
			}))
			text := s.runOnTerminal(t, "xterm", args, func(text string) {
				if !released && strings.Count(text, "23 read, 0 of 23 sent") > 1 {
					released = true
					close(release)
				}
			})
			if !strings.Contains(text, "\x1b[") {
				t.Errorf("no colors: %q", text)
			}
			if left := renderTerminal(text); !released || strings.Contains(left, " read, ") || !strings.Contains(left, runFinished) {
				t.Errorf("bar %t; the terminal shows %q", released, left)
			}
		})
	}
}

func TestNoColorsOnTerminal(t *testing.T) {
	t.Parallel()
	t.Run("JSON", func(t *testing.T) {
		t.Parallel()
		text := newFixture(t).runOnTerminal(t, "xterm", []string{"--log-format", "json"}, func(string) {})
		for line := range strings.Lines(text) {
			if !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %q", line)
			}
		}
	})
	t.Run("dumb terminal", func(t *testing.T) {
		t.Parallel()
		if text := newFixture(t).runOnTerminal(t, "dumb", nil, func(string) {}); strings.Contains(text, "\x1b[") || !strings.Contains(text, runFinished) {
			t.Errorf("the terminal shows %q", text)
		}
	})
}
