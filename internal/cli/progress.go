package cli

import (
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"adconnector/internal/syncrun"
)

// screen is a terminal that shows lines and, below the last of them, a bar.
type screen struct {
	out io.Writer

	mu  sync.Mutex
	bar *progressbar.ProgressBar // nil: there is none
}

// Write puts whole lines above the bar.
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

// onScreen makes stderr a screen where somebody watches: a terminal on which the log
// is written for people, and which can take a bar away again. A bar never gets into a
// file, nor between lines of JSON.
func (p *program) onScreen() {
	if (p.logFormat == "" || p.logFormat == "console") && isTerminal(p.stderr) && !p.isDumb() {
		p.stderr = &screen{out: p.stderr}
	}
}

// barEvery is how often the bar is brought up to date.
const barEvery = 100 * time.Millisecond

// showProgress shows how far a run is until stop is called, which takes the bar away. As
// many objects are expected, unless the run knows better; 0: nobody knows. Where
// there is no screen nobody counts: the progress is nil.
func (p *program) showProgress(expected int) (progress *syncrun.Progress, stop func()) {
	s, ok := p.stderr.(*screen)
	if !ok {
		return nil, func() {}
	}
	progress = &syncrun.Progress{}
	progress.Expected.Store(int64(expected))
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(barEvery)
		defer ticker.Stop()
		var began time.Time
		for {
			select {
			case <-done:
				s.remove()
				return
			case now := <-ticker.C:
				if progress.Read.Load() == 0 {
					continue // still on its way to the directory
				}
				if began.IsZero() {
					began = now
				}
				s.show(howFar(progress), now.Sub(began))
			}
		}
	})
	return progress, func() {
		close(done)
		watching.Wait()
	}
}

// distance is how far a run has come at one moment.
type distance struct {
	expected, read, sent int64
	done                 int64 // objects that need nothing more: unchanged ones, and those that were answered
}

func howFar(p *syncrun.Progress) distance {
	// In this order: what is done is rather too little than too much.
	d := distance{expected: p.Expected.Load(), sent: p.Acknowledged.Load()}
	changed := p.Changed.Load()
	d.read = p.Read.Load()
	d.done = max(0, d.read-max(0, changed-d.sent))
	return d
}

// text says it in words: the rate is of all the time so far.
func (d distance) text(elapsed time.Duration) string {
	text := fmt.Sprintf("%d read, %d sent", d.read, d.sent)
	rate := float64(d.done) / elapsed.Seconds()
	if elapsed < time.Second/2 || rate == 0 {
		return text
	}
	text += fmt.Sprintf(", %.0f/s", rate)
	if d.expected > d.done {
		left := time.Duration(math.Ceil(float64(d.expected-d.done)/rate)) * time.Second
		text += ", " + left.String() + " left"
	}
	return text
}

func (s *screen) show(d distance, elapsed time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar == nil {
		s.bar = s.newBar(d.expected)
	}
	// What is written here is seen or not; the run does not depend on it.
	if d.expected > 0 {
		_ = s.bar.Set64(min(d.done, d.expected-1)) // a full bar is never drawn again
	} else {
		_ = s.bar.Set64(d.done)
	}
	s.bar.Describe(d.text(elapsed))
}

// newBar makes a bar for so many objects; without a number, something that turns.
func (s *screen) newBar(expected int64) *progressbar.ProgressBar {
	if expected == 0 {
		expected = -1
	}
	return progressbar.NewOptions64(expected,
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
