package identity

import (
	"time"

	"adconnector/internal/ad"
)

const (
	// recheckDelay makes an object due in the next run.
	recheckDelay = time.Second
	// maxFlagDelay is how long after its due time a computed flag is expected. A flag that is
	// still missing then does not depend on that time alone: another password policy applies, for
	// example. The object is found by its next change, or by the next full sync.
	maxFlagDelay = time.Hour
	// lockShare limits how late the end of a long lock is found: by this share of its duration.
	lockShare = 8
)

// nextRecheck returns the next time when the computed flags of an account may change without a
// change in the directory, or zero if they cannot. flags is
// msDS-User-Account-Control-Computed. passwordExpires and lockedAt are zero if there is no such
// time. now is the clock of the server that computed the flags.
func nextRecheck(flags ad.AccountControl, passwordExpires, lockedAt, now time.Time) time.Time {
	password := passwordRecheck(flags&ad.AccountPasswordExpired != 0, passwordExpires, now)
	lock := lockRecheck(flags&ad.AccountLocked != 0, lockedAt, now)
	if password.IsZero() || !lock.IsZero() && lock.Before(password) {
		return lock
	}
	return password
}

// passwordRecheck returns the time when a password expires. After that time, the flag may be
// missing for a moment.
func passwordRecheck(expired bool, expires, now time.Time) time.Time {
	switch {
	case expires.After(now):
		return expires
	case !expired && !expires.IsZero() && now.Before(expires.Add(maxFlagDelay)):
		return now.Add(recheckDelay)
	}
	return time.Time{}
}

// lockRecheck returns when to read a locked account again. The end of a lock is not readable.
// In its first hour, every run reads the account. Afterwards the interval grows, because a lock
// may last until an administrator ends it, which is a change in the directory.
func lockRecheck(locked bool, lockedAt, now time.Time) time.Time {
	if !locked {
		return time.Time{}
	}
	if lockedAt.IsZero() {
		lockedAt = now
	}
	return now.Add(max(recheckDelay, (now.Sub(lockedAt)-maxFlagDelay)/lockShare))
}

// recheckSlots are the slots of the attributes on which the recheck time of an account depends.
type recheckSlots struct{ flags, passwordExpires, lockedAt int }

// addRecheck adds the recheck time of an account's computed flags.
func (m *Mapper) addRecheck() {
	src := &m.source
	flags, _ := ad.ParseAccountControl(src.entry.First(m.recheck.flags)) // a malformed value is counted by userStatus
	src.recheckBy(nextRecheck(flags, timeIn(src, m.recheck.passwordExpires), timeIn(src, m.recheck.lockedAt), src.now))
}

// timeIn returns the file time in a slot, or zero. It counts a malformed value.
func timeIn(src *source, slot int) time.Time {
	if t, ok := parseFirst(src, slot, ad.ParseFileTime); ok && !t.IsNone() {
		return t.Time()
	}
	return time.Time{}
}
