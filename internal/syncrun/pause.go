package syncrun

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
)

// A refused bind counts toward the lockout of the account. Active Directory counts the failed
// logons of an observation window, which is usually 10 to 30 minutes. So the binds of the daemon
// pause after each refused one, so long that at most two of them are in such a window.
//
// A run during a pause does not connect to the directory. It fails with the error of the last
// bind, like any failed run: it is recorded, logged and sent to the gateway. It reads the
// connection from the gateway before, because another connection, like another password, ends
// the pause. The pause is in memory only, so that a restart ends it too.

// bindPauses are the pauses after the first, the second and each further refused bind in a row.
// They are a minute shorter than the usual intervals of a schedule, so that the run at their end
// binds.
var bindPauses = []time.Duration{14 * time.Minute, 29 * time.Minute, 59 * time.Minute}

// pauseAfter returns the pause after a number of refused binds in a row.
func pauseAfter(refusals int) time.Duration { return bindPauses[min(refusals, len(bindPauses))-1] }

// accountHash identifies an account and the servers that it binds to. It is only kept in memory.
type accountHash [sha256.Size]byte

// hashAccount returns the hash of what decides whether a bind is refused.
func hashAccount(o directory.Options) accountHash {
	var text strings.Builder
	fmt.Fprintf(&text, "%q %q %d %q %q %q", o.Protocol, o.Hosts, o.Port, o.ServerName, o.BindDN, o.Password.Reveal())
	for _, certificate := range o.Certificates {
		fmt.Fprintf(&text, " %x", certificate.Raw)
	}
	return sha256.Sum256([]byte(text.String()))
}

// BindPause has the refused binds of a process in a row. It is safe for concurrent use. Its zero
// value has none.
type BindPause struct {
	mu       sync.Mutex
	account  accountHash // of the last bind
	refusals int
	from     time.Time // of the pause
	until    time.Time
	refusal  error // the last one
}

// The reasons for the end of a pause.
const (
	ResumedAccount = "account or connection changed"
	ResumedTime    = "pause over"
)

// check returns an error if a bind with the account is paused. Otherwise a bind follows, and
// resumed is the reason if it is the first one after a pause.
func (b *BindPause) check(account accountHash, now time.Time) (resumed string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.account
	b.account = account
	switch {
	case b.refusals == 0:
		return "", nil
	case before != account:
		b.refusals = 0
		return ResumedAccount, nil
	case b.isActive(now):
		return "", b.pausedError()
	}
	return ResumedTime, nil
}

// isActive reports whether the pause has not ended. A clock that was put back ends it.
func (b *BindPause) isActive(now time.Time) bool {
	return b.refusals > 0 && now.Before(b.until) && !now.Before(b.from)
}

// accept records an accepted bind.
func (b *BindPause) accept() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals = 0
}

// refuse records the error of a refused bind, and returns the end of the pause that it begins.
func (b *BindPause) refuse(err error, now time.Time) (until time.Time, refusals int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals++
	b.from, b.until, b.refusal = now, now.Add(pauseAfter(b.refusals)), err
	return b.until, b.refusals
}

// Active returns the end of the pause, and the number of refused binds in a row. The time is zero
// if binds are not paused.
func (b *BindPause) Active(now time.Time) (until time.Time, refusals int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isActive(now) {
		return time.Time{}, 0
	}
	return b.until, b.refusals
}

// pausedError returns the error of a run during the pause. Its operation and object are those of
// the refused bind, so that it counts as a repetition.
func (b *BindPause) pausedError() error {
	var o fault.Operation
	cause := b.refusal
	if failed, is := errors.AsType[*fault.Error](b.refusal); is {
		o, cause = fault.Operation{Op: failed.Op, Object: failed.Object}, failed.Err
	}
	return o.Failed(fault.Refused, &pausedError{b.until, b.refusals, cause}, fault.Remedy(b.refusal)+"; "+ResumeRemedy)
}

// ResumeRemedy is how to end a pause.
const ResumeRemedy = "another password or connection ends the pause at the next run, and so does a restart"

// pausedError is the cause of a run that failed without a bind.
type pausedError struct {
	until    time.Time
	refusals int
	cause    error // of the last refused bind
}

// Error returns the end of the pause and the cause.
func (e *pausedError) Error() string {
	after := "a refused bind"
	if e.refusals > 1 {
		after = fmt.Sprintf("%d refused binds in a row", e.refusals)
	}
	return fmt.Sprintf("no bind until %s, after %s: %v", e.until.UTC().Format(time.RFC3339), after, e.cause)
}

// Unwrap returns the cause.
func (e *pausedError) Unwrap() error { return e.cause }

// checkBindPause returns an error if binds to a source are paused, unless a person requested the run: an
// account can have been unlocked. One more refused bind extends the pause.
func (r *Runner) checkBindPause(info runInfo, source Source) error {
	resumed, err := r.BindPause.check(hashAccount(source.Directory), r.now())
	if resumed != "" {
		info.log.Info().Str("reason", resumed).Msg(MsgBindResumed)
	}
	if info.options.Requested {
		return nil
	}
	return err
}

// pauseBinds begins a pause if the error of a run is a refused bind. Only a daemon, which has a
// next run, logs it.
func (r *Runner) pauseBinds(info runInfo, runErr error) {
	if _, paused := errors.AsType[*pausedError](runErr); paused || !errors.Is(runErr, directory.ErrBindRefused) {
		return
	}
	until, refusals := r.BindPause.refuse(runErr, r.now())
	if r.NextRun != nil {
		info.log.Warn().Time("until", until.UTC()).Int("attempt", refusals).Str("remedy", ResumeRemedy).Msg(MsgBindPaused)
	}
}
