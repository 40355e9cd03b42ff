package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// terminal opens a pseudo-terminal: what is written to the one comes out of the other.
func terminal(t *testing.T) (inside, outside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	var number, unlocked uint32
	for _, ask := range []struct {
		request uintptr
		value   *uint32
	}{{syscall.TIOCSPTLCK, &unlocked}, {syscall.TIOCGPTN, &number}} {
		if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, outside.Fd(), ask.request, uintptr(unsafe.Pointer(ask.value))); failed != 0 {
			t.Fatal(failed)
		}
	}
	inside, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	return inside, outside
}

// TestProgressOnATerminal: where the log is for people there is a bar, and where it
// is JSON there is not.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, terminal string }{{"", "xterm"}, {"console", "xterm"}, {"json", "xterm"}, {"", "dumb"}} {
		format, plain := c.format, c.format == "json" || c.terminal == "dumb"
		t.Run("format "+format+" on "+c.terminal, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			release := make(chan struct{})
			s.intercepting(onAssets(func(http.ResponseWriter, []byte) bool {
				<-release // the bar has time to come up
				return false
			}))
			inside, outside := terminal(t)
			args := []string{"sync"}
			if format != "" {
				args = append(args, "--log-format", format)
			}
			command := exec.CommandContext(t.Context(), os.Args[0], args...)
			command.Env = append(append(os.Environ(), "CLI_TEST_CHILD=1", "NO_COLOR=", "TERM="+c.terminal), s.environ()...)
			var stdout bytes.Buffer
			command.Stdout, command.Stderr = &stdout, inside
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			inside.Close()
			if err := outside.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Log("no deadline:", err)
			}
			var written bytes.Buffer
			released := false
			for chunk := make([]byte, 4096); ; {
				n, err := outside.Read(chunk)
				written.Write(chunk[:n])
				text := written.String()
				if drawn := strings.Count(text, "23 read, 0 sent") > 1; !released && (drawn || plain && (strings.Contains(text, `"kind":"group"`) || strings.Contains(text, "kind=") && strings.Contains(text, "group"))) {
					released = true
					if plain {
						time.AfterFunc(3*barEvery, func() { close(release) }) // a bar would come up meanwhile
					} else {
						close(release)
					}
				}
				if err != nil { // the other side is closed
					break
				}
			}
			if !released {
				close(release)
			}
			if err := command.Wait(); err != nil || !strings.Contains(stdout.String(), "23 uploaded") {
				t.Errorf("%v, stdout %q", err, stdout.String())
			}
			text := strings.ReplaceAll(written.String(), "\r\n", "\n") // the terminal's doing
			if colours := strings.Contains(text, "\x1b["); colours == plain {
				t.Errorf("colours or a bar %t: %q", colours, text)
			}
			if c.terminal == "dumb" {
				return
			}
			if format == "json" {
				for line := range strings.Lines(text) {
					if !json.Valid([]byte(line)) {
						t.Errorf("not JSON: %q", line)
					}
				}
				return
			}
			left := shown(text)
			if !released || strings.Contains(left, " read, ") || !strings.Contains(left, "run finished") {
				t.Errorf("bar %t; the terminal shows %q", released, left)
			}
		})
	}
}
