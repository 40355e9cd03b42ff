package identity

import "adconnector/internal/ad"

// Logons are the logons of one account, as other sources than its entry show them: what was sent
// before, and other domain controllers. Each domain controller counts lastLogon, badPasswordTime
// and badPwdCount for itself. The zero value is of an account without a known logon.
type Logons struct {
	Last       ad.FileTime // latest successful logon; 0: none
	LastFailed ad.FileTime // latest failed logon; 0: none
	// Failed is the number of failed attempts that the PDC emulator counts, to which the other
	// domain controllers forward them. It is valid only if HasFailed is true.
	Failed    uint32
	HasFailed bool
}

// Merge returns the latest times of both, and the number of failed attempts of newer if it has one.
func (l Logons) Merge(newer Logons) Logons {
	l.Last, l.LastFailed = max(l.Last, newer.Last), max(l.LastFailed, newer.LastFailed)
	if newer.HasFailed {
		l.Failed, l.HasFailed = newer.Failed, true
	}
	return l
}
