package fault

import (
	"errors"
	"time"
)

// Repeats counts how often the same error occurs in a row. Errors are the same when class,
// operation and object are; causes may differ. It serves one goroutine.
type Repeats struct {
	last  identity
	count Repetition
}

type identity struct {
	class Class
	Operation
}

// Repetition describes one occurrence of an error.
type Repetition struct {
	Times int       // in a row, this one included
	Since time.Time // the first of them
}

// Note counts an error that occurs now.
func (r *Repeats) Note(err error, now time.Time) Repetition {
	if this := identify(err); this != r.last || r.count.Times == 0 {
		*r = Repeats{last: this, count: Repetition{Since: now}}
	}
	r.count.Times++
	return r.count
}

// Clear starts over after a success.
func (r *Repeats) Clear() { *r = Repeats{} }

// identify returns what an error is compared by. An error without an operation stands for
// itself by its text.
func identify(err error) identity {
	var e *Error
	if !errors.As(err, &e) {
		return identity{Of(err), Operation{Object: err.Error()}}
	}
	return identity{e.Class, Operation{e.Op, e.Object}}
}
