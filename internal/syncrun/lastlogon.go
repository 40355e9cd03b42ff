package syncrun

import (
	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// LastLogon is the source of the logons of accounts. Each domain controller counts them for itself.
type LastLogon string

// The sources of logons. The zero value is LastLogonReplicated.
const (
	// LastLogonReplicated uses what the domain controller that is read shows: its own lastLogon, and
	// lastLogonTimestamp, which is replicated and up to 14 days behind.
	LastLogonReplicated LastLogon = "REPLICATED"
	// LastLogonAllControllers also asks the other domain controllers, in full syncs.
	LastLogonAllControllers LastLogon = "ALL_CONTROLLERS"
)

// logonSources are the sources of an account's logons other than its entry.
type logonSources struct {
	mode  LastLogon
	table *logonTable // of the other domain controllers; nil: none were asked
	// isPDC is whether the domain controller that is read is the PDC emulator. Its entries have the
	// numbers of failed attempts then.
	isPDC bool
}

// known returns the logons of an entry's account from other sources: what was sent before, and what
// other domain controllers show.
func (l logonSources) known(entry *ad.Entry, mapper *identity.Mapper, indexed indexRecord) identity.Logons {
	logons := l.relevant(indexed.Logons)
	if l.isPDC {
		logons.Failed, logons.HasFailed = 0, false
	}
	if l.table == nil {
		return logons
	}
	if guid, ok := mapper.GUID(entry); ok {
		return l.table.merge(guid, logons)
	}
	return logons
}

// toStore returns the logons that the index stores with an asset.
func (l logonSources) toStore(logons identity.Logons) identity.Logons {
	logons.HasFailed = logons.HasFailed || l.isPDC
	if !logons.HasFailed {
		logons.Failed = 0
	}
	return l.relevant(logons)
}

// relevant returns the logons that the next runs use: with LastLogonReplicated, only the latest
// successful one, which never goes back. The others are then those of the domain controller that is
// read.
func (l logonSources) relevant(logons identity.Logons) identity.Logons {
	if l.mode != LastLogonAllControllers {
		return identity.Logons{Last: logons.Last}
	}
	return logons
}
