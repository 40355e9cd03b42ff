package cli

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// TestHandleSignals tests that the first signal stops, and that a second one aborts unless it
// is a duplicate. A daemon ignores hangups.
func TestHandleSignals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		daemon       bool
		first        os.Signal
		second       os.Signal
		after        time.Duration
		stop, aborts int
	}{
		{"one signal", false, syscall.SIGTERM, nil, 0, 1, 0},
		{"duplicate", false, syscall.SIGTERM, syscall.SIGTERM, 0, 1, 0},
		{"duplicate within a second", false, syscall.SIGTERM, syscall.SIGTERM, duplicateSignal - 1, 1, 0},
		{"same signal later", false, syscall.SIGTERM, syscall.SIGTERM, duplicateSignal, 1, 1},
		{"other signal at once", false, syscall.SIGTERM, syscall.SIGINT, 0, 1, 1},
		{"hangup", false, syscall.SIGHUP, syscall.SIGHUP, 0, 1, 0},
		{"hangup of a daemon", true, syscall.SIGHUP, syscall.SIGHUP, duplicateSignal, 0, 0},
		{"hangup of a daemon, then a stop", true, syscall.SIGHUP, syscall.SIGTERM, 0, 1, 0},
		{"stop of a daemon, then a hangup", true, syscall.SIGTERM, syscall.SIGHUP, 0, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				signals, done := make(chan os.Signal, 2), make(chan struct{})
				stops, aborts := 0, 0
				handler := signalHandler{func() bool { return test.daemon }, func() { stops++ }, func() { aborts++ }}
				go handler.handle(signals, done)
				signals <- test.first
				synctest.Wait()
				time.Sleep(test.after)
				if test.second != nil {
					signals <- test.second
				}
				synctest.Wait()
				close(done)
				synctest.Wait()
				if stops != test.stop || aborts != test.aborts {
					t.Errorf("%d stops, %d aborts", stops, aborts)
				}
			})
		})
	}
}

// TestHangupOfDaemon tests that a daemon ignores SIGHUP, and logs each time that it reloads
// nothing.
func TestHangupOfDaemon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = yearly
	c := s.start(t, "run")
	_, position := c.Await(t, 0, testlog.Message(runFinished))
	for range 2 {
		c.Signal(t, syscall.SIGHUP)
		var line testlog.Line
		line, position = c.Await(t, position, testlog.Message(MsgHangupIgnored))
		if line.Text("level") != "warn" || !strings.Contains(line.Text("remedy"), "restart") {
			t.Errorf("%v", line)
		}
	}
	c.Signal(t, syscall.SIGTERM)
	requireExit(t, c, exitDone)
}

// TestHangupOfSync tests that SIGHUP stops a command that is not a daemon in order, unless the
// command inherited that the signal is ignored.
func TestHangupOfSync(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		wrapper []string
		code    int
	}{
		"terminal": {nil, exitInterrupted},
		"nohup":    {[]string{"nohup"}, exitDone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			loginReceived, released := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(released) })
			t.Cleanup(release) // the gateway waits for its requests
			s.Gateway.SetFront(func(x *testenv.Exchange) bool {
				if x.R.URL.Path == testenv.LoginPath {
					close(loginReceived)
					<-released
				}
				return false
			})
			c := child.Start(t, child.Command{Path: os.Args[0], Args: []string{"sync"}, Env: append([]string{childKey + "=1"}, s.env.Environ()...), Wrapper: test.wrapper})
			awaitEvent(t, loginReceived, c.Ended)
			c.Signal(t, syscall.SIGHUP)
			if test.code == exitInterrupted {
				c.AwaitMessage(t, MsgStopping)
			}
			release()
			if o := requireExit(t, c, test.code); len(o.With(MsgStopping)) != map[int]int{exitInterrupted: 1}[test.code] || len(o.With(runFinished)) != 1 {
				t.Errorf("log %v", o.Log)
			}
		})
	}
}

// TestStackDump tests that SIGQUIT and SIGABRT log a line before the stacks of the runtime.
func TestStackDump(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.env["service.cron-expression"] = yearly
			c := s.start(t, "run")
			c.AwaitMessage(t, runFinished)
			c.Signal(t, signal)
			o := c.WaitForDump(t)
			lines := o.With(MsgStackDump)
			if o.Code != 2 || len(lines) != 1 || lines[0].Text("signal") != signal.String() || !strings.Contains(o.Stderr, "goroutine ") || strings.Index(o.Stderr, MsgStackDump) > strings.Index(o.Stderr, "goroutine ") {
				t.Errorf("%s", o.Stderr)
			}
		})
	}
}
