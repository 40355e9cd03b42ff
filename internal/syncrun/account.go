package syncrun

import (
	"time"

	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// Account is what a run did, with more than its record keeps.
type Account struct {
	state.Run
	Stages  []Stage
	Objects map[Outcome]int

	last time.Time // when the last of Stages ended
}

// Stage is a part of a run, and how long it took.
type Stage struct {
	Name string // connect, memberships (with security posture), read, settle, drain, record
	Took time.Duration
}

// Outcome is what became of an object of a kind.
type Outcome struct {
	Kind identity.Kind
	What string // read, skipped, changed, delivered, deleted, rejected, held
}

// end closes the stage that began where the one before it ended.
func (a *Account) end(stage string) {
	now := time.Now()
	a.Stages = append(a.Stages, Stage{stage, now.Sub(a.last)})
	a.last = now
}

// fillIn completes the account by what the pass has counted.
func (p *pass) fillIn() {
	a := p.account
	a.Uploaded, a.Deleted, a.Rejected, a.Held = p.totals.Delivered, p.totals.Deleted, p.totals.Rejected, len(p.held)
	for _, object := range p.held {
		a.Objects[Outcome{object.Kind, "held"}]++
	}
	for _, r := range p.tallies() {
		kind, t := r.kind, r.tally
		switch kind {
		case identity.User, identity.ServiceAccount:
			a.Users += t.mapped
		case identity.Group:
			a.Groups += t.mapped
		}
		a.Changed += t.changed
		a.Skipped += t.skipped
		a.Objects[Outcome{kind, "read"}] = t.mapped
		a.Objects[Outcome{kind, "skipped"}] = t.skipped
		a.Objects[Outcome{kind, "changed"}] = t.changed
	}
}
