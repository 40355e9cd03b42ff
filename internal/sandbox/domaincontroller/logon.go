package domaincontroller

import (
	"errors"
	"strconv"
	"time"

	"adconnector/internal/ad"
)

// LogonSyncInterval is msDS-LogonTimeSyncInterval: the age of lastLogonTimestamp after which each
// logon changes it. It can change up to logonSyncRandom earlier (MS-ADA1, lastLogonTimestamp).
const (
	LogonSyncInterval = 14 * day
	logonSyncRandom   = 5 * day
)

// Logon logs an account on at this controller, as a bind with its password does. lastLogon,
// logonCount, and badPwdCount change on this controller only, and without an update sequence
// number. lastLogonTimestamp, which replicates, changes if it is missing, or older than 9 to 14
// days.
func (d *Server) Logon(dn string) error { return d.logon("log on", dn, d.recordLogon) }

// FailLogon fails a logon of an account at this controller, as a bind with a wrong password
// does. badPwdCount and badPasswordTime change on this controller only, and without an update
// sequence number. Too many failures lock the account.
func (d *Server) FailLogon(dn string) error { return d.logon("fail logon of", dn, d.recordFailure) }

func (d *Server) logon(operation, dn string, record func(*object, time.Time)) error {
	defer d.sendUpdates()
	return d.changeLocally(operation, dn, func(o *object) error {
		if !o.is("user") {
			return errors.New("not an account")
		}
		record(o, d.options.Now())
		return nil
	})
}

// recordLogon records a successful logon of an account.
func (d *Server) recordLogon(account *object, now time.Time) {
	if account.attributes.integer("badPwdCount") != 0 {
		d.sendToPDCEmulator(account, func(_ *Server, account *object) { account.set("badPwdCount", "0") })
	}
	account.set("badPwdCount", "0")
	account.set("lastLogon", formatFileTime(now))
	account.set("logonCount", strconv.FormatInt(account.attributes.integer("logonCount")+1, 10))
	due := now.Add(time.Duration(d.ownRandom.Int64N(int64(logonSyncRandom))) - LogonSyncInterval)
	if account.attributes.integer("lastLogonTimestamp") <= fileTime(due) {
		d.setReplicated(account, "lastLogonTimestamp", fileTime(now))
	}
}

// recordFailure records a logon of an account with a wrong password.
func (d *Server) recordFailure(account *object, now time.Time) {
	failures := account.attributes.integer("badPwdCount") + 1
	account.set("badPwdCount", strconv.FormatInt(failures, 10))
	account.set("badPasswordTime", formatFileTime(now))
	d.sendToPDCEmulator(account, func(d *Server, account *object) { d.recordFailure(account, now) })
	if threshold := d.root.attributes.integer("lockoutThreshold"); threshold > 0 && failures >= threshold {
		d.setReplicated(account, "lockoutTime", fileTime(now))
	}
}

// update is a change that another controller of a Domain receives.
type update struct {
	account       ad.GUID
	toPDCEmulator bool // the other controllers ignore it
	apply         func(*Server, *object)
}

// setReplicated sets an attribute to a later time on this controller and on the others.
func (d *Server) setReplicated(account *object, attribute string, at int64) {
	apply := func(d *Server, account *object) {
		if account.attributes.integer(attribute) < at {
			account.set(attribute, strconv.FormatInt(at, 10))
			d.recordChange(account)
		}
	}
	apply(d, account)
	d.queue(update{account.guid, false, apply})
}

// sendToPDCEmulator changes an account on the PDC emulator, unless this controller is it.
func (d *Server) sendToPDCEmulator(account *object, apply func(*Server, *object)) {
	if !d.isPDCEmulator() {
		d.queue(update{account.guid, true, apply})
	}
}

func (d *Server) queue(u update) {
	if len(d.peers) > 0 {
		d.outgoing = append(d.outgoing, u)
	}
}

// IsPDCEmulator reports whether this controller is the PDC emulator of the domain.
func (d *Server) IsPDCEmulator() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.isPDCEmulator()
}

func (d *Server) isPDCEmulator() bool {
	return d.lookup(d.root.attributes.first("fSMORoleOwner")) == d.settings
}

// sendUpdates sends the queued updates to the other controllers. The caller does not hold d.mu,
// so that two controllers cannot wait for each other.
func (d *Server) sendUpdates() {
	d.mu.Lock()
	updates, peers := d.outgoing, d.peers
	d.outgoing = nil
	d.mu.Unlock()
	for _, u := range updates {
		for _, peer := range peers {
			peer.receive(u)
		}
	}
}

// receive applies an update, and sends those that follow from it.
func (d *Server) receive(u update) {
	defer d.sendUpdates()
	d.mu.Lock()
	defer d.mu.Unlock()
	account := d.byGUID[u.account]
	if account != nil && !account.deleted && (!u.toPDCEmulator || d.isPDCEmulator()) {
		u.apply(d, account)
	}
}
