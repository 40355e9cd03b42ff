package syncrun

import (
	"sync"
	"sync/atomic"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/identity"
)

// Progress is the progress of a run. Other goroutines may read it during the run. Its methods
// accept a nil receiver and then do nothing.
type Progress struct {
	// Expected is the number of objects that the sync will read, estimated from the index;
	// 0: unknown.
	Expected     atomic.Int64
	Read         atomic.Int64 // objects read and mapped
	Changed      atomic.Int64 // objects read that are to be sent
	Acknowledged atomic.Int64 // objects that the gateway accepted or rejected, including deletions

	users, groups atomic.Int64 // objects read
	pages         atomic.Int64 // pages of directory searches
	uploaded      atomic.Int64 // objects that the gateway accepted, without deletions
	mode, phase   atomic.Value // string
}

// Phase returns the phase of the run: connect, memberships, logons, read, settle, drain, or record; ""
// before it.
func (p *Progress) Phase() string {
	phase, _ := p.phase.Load().(string)
	return phase
}

// SetPhase shows the phase of a run in another process.
func (p *Progress) SetPhase(phase string) {
	if p != nil {
		p.enter(phase)
	}
}

// enter records the phase of the run.
func (p *Progress) enter(phase string) { p.phase.Store(phase) }

func (p *Progress) setExpected(objects int) {
	if p != nil {
		p.Expected.Store(int64(objects))
	}
}

// addRead adds objects that were read. A negative number subtracts objects that are read
// again.
func (p *Progress) addRead(kind identity.Kind, objects int) {
	if p == nil {
		return
	}
	p.Read.Add(int64(objects))
	switch kind {
	case identity.User:
		p.users.Add(int64(objects))
	case identity.Group:
		p.groups.Add(int64(objects))
	}
}

func (p *Progress) addChanged(objects int) {
	if p != nil {
		p.Changed.Add(int64(objects))
	}
}

func (p *Progress) addAcknowledged(objects int) {
	if p != nil {
		p.Acknowledged.Add(int64(objects))
	}
}

// countPages returns an observer of directory requests that also counts pages.
func countPages(observe func(string, fault.Class, time.Duration), p *Progress) func(string, fault.Class, time.Duration) {
	return func(request string, class fault.Class, duration time.Duration) {
		if request == "search" && class == fault.Done {
			p.pages.Add(1)
		}
		if observe != nil {
			observe(request, class, duration)
		}
	}
}

func (p *Progress) addUploaded() {
	if p != nil {
		p.uploaded.Add(1)
	}
}

// defaultLogInterval is the time between two log lines about a run in progress.
const defaultLogInterval = 5 * time.Minute

// logProgress logs the progress of a run periodically until stop is called.
func (r *Runner) logProgress(info runInfo, started time.Time) (stop func()) {
	done := make(chan struct{})
	var logger sync.WaitGroup
	logger.Go(func() {
		ticker := time.NewTicker(r.logInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			p := info.options.Progress
			info.log.Info().Any("mode", p.mode.Load()).Any("phase", p.phase.Load()).Int64("users", p.users.Load()).Int64("groups", p.groups.Load()).Int64("objects", p.Read.Load()).
				Int64("page", p.pages.Load()).Int64("uploaded", p.uploaded.Load()).Int64("requests", r.Gateway.Counts().Requests-info.countsBefore.Requests).
				Int64("duration_ms", time.Since(started).Milliseconds()).Msg(MsgRunInProgress)
		}
	})
	return func() {
		close(done)
		logger.Wait()
	}
}
