package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"adconnector/internal/status"
	"adconnector/internal/syncrun"
)

func isTerminal(w io.Writer) bool {
	if _, ok := w.(*screen); ok {
		return true
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && file.Name() != os.DevNull
}

// allowsColors reports whether the environment allows colors on a terminal. NO_COLOR and
// TERM=dumb turn them off.
func (p *program) allowsColors() bool {
	return !p.isDumbTerminal() && !slices.ContainsFunc(p.environ, func(pair string) bool {
		value, found := strings.CutPrefix(pair, "NO_COLOR=")
		return found && value != ""
	})
}

// isDumbTerminal reports whether the terminal supports no control sequences.
func (p *program) isDumbTerminal() bool { return slices.Contains(p.environ, "TERM=dumb") }

// screen is a terminal that shows lines and, below the last line, a progress bar.
type screen struct {
	out io.Writer

	mu       sync.Mutex
	bar      *progressbar.ProgressBar // nil: no bar is shown
	expected int64                    // number of objects of the bar
}

// Write writes whole lines above the bar.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar == nil {
		return s.out.Write(lines)
	}
	if err := s.bar.Clear(); err != nil {
		return 0, err
	}
	n, err := s.out.Write(lines)
	if err != nil {
		return n, err
	}
	return n, s.bar.RenderBlank()
}

// enableProgressBar makes stderr a screen if it is a terminal that supports control sequences
// and the log has the console format. Files and JSON logs never contain a bar.
func (p *program) enableProgressBar() {
	if (p.logFormat == "" || p.logFormat == "console") && isTerminal(p.stderr) && !p.isDumbTerminal() {
		p.stderr = &screen{out: p.stderr}
	}
}

// barInterval is the time between two updates of the bar.
const barInterval = 100 * time.Millisecond

// showProgress shows the progress of a run until stop is called, which removes the bar.
// expected is the number of objects until the run sets it; 0 means unknown. Without a screen,
// the returned progress is nil.
func (p *program) showProgress(expected int) (progress *syncrun.Progress, stop func()) {
	s, ok := p.stderr.(*screen)
	if !ok {
		return nil, func() {}
	}
	progress = &syncrun.Progress{}
	progress.Expected.Store(int64(expected))
	return progress, startWorker(context.Background(), func(ctx context.Context) {
		ticker := time.NewTicker(barInterval)
		defer ticker.Stop()
		var started time.Time
		for {
			select {
			case <-ctx.Done():
				s.remove()
				return
			case now := <-ticker.C:
				if started.IsZero() && progress.Read.Load() > 0 {
					started = now // the rate is that of objects
				}
				s.show(measureProgress(progress), now.Sub(started))
			}
		}
	})
}

// progressSnapshot is the progress of a run at one moment.
type progressSnapshot struct {
	phase                         string
	expected, read, changed, sent int64
	done                          int64 // unchanged objects, and objects with a batch result
}

// phaseTexts describe the phases in which no objects are read.
var phaseTexts = map[string]string{
	"": "starting", phaseWaiting: "waiting for the current run of the daemon", "connect": "connecting", "memberships": "reading memberships",
	"logons": "asking other domain controllers for logons",
}

func measureProgress(p *syncrun.Progress) progressSnapshot {
	// The order of the loads matters: done must not be too high.
	s := progressSnapshot{phase: p.Phase(), expected: p.Expected.Load(), sent: p.Acknowledged.Load()}
	s.changed = p.Changed.Load()
	s.read = p.Read.Load()
	s.done = max(0, s.read-max(0, s.changed-s.sent))
	return s
}

// text returns a description of the phase or, once objects are read, of what was done, with the average
// rate and the remaining time.
func (s progressSnapshot) text(elapsed time.Duration) string {
	if phase, found := phaseTexts[s.phase]; found && s.read == 0 {
		return phase
	}
	text := status.FormatNumber(int(s.read)) + " read, "
	switch toSend := max(s.changed, s.sent); {
	case toSend > 0: // deletions are only among those sent
		text += status.FormatNumber(int(s.sent)) + " of " + status.FormatNumber(int(toSend)) + " sent"
	default:
		text += "no changes yet"
	}
	rate := float64(s.done) / elapsed.Seconds()
	if elapsed < time.Second/2 || rate == 0 {
		return text
	}
	text += fmt.Sprintf(", %.0f/s", rate)
	if s.expected > s.done {
		left := time.Duration(math.Ceil(float64(s.expected-s.done)/rate)) * time.Second
		text += ", " + left.String() + " left"
	}
	return text
}

func (s *screen) show(progress progressSnapshot, elapsed time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil && s.expected != progress.expected {
		_ = s.bar.Clear()
		s.bar = nil
	}
	if s.bar == nil {
		s.bar, s.expected = s.newBar(progress.expected), progress.expected
	}
	// The run does not depend on the bar: errors are ignored.
	if progress.expected > 0 {
		_ = s.bar.Set64(min(progress.done, progress.expected-1)) // a full bar is not drawn again
	} else {
		_ = s.bar.Set64(progress.done)
	}
	s.bar.Describe(progress.text(elapsed))
}

// newBar returns a bar for a number of objects, or a spinner if the number is 0.
func (s *screen) newBar(expected int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(cmp.Or(expected, -1),
		progressbar.OptionSetWriter(s.out),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionSetWidth(24),
	)
}

func (s *screen) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		_ = s.bar.Clear()
		s.bar = nil
	}
}
