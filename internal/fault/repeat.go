package fault

import (
	"errors"
	"time"

	"github.com/rs/zerolog"
)

// RepeatCounter counts consecutive occurrences of the same error. Errors are the same if
// their class, operation and object are equal. Causes may differ. It is not safe for
// concurrent use.
type RepeatCounter struct {
	last  errorKey
	count Repetition
}

// errorKey identifies an error.
type errorKey struct {
	class Class
	Operation
}

// Repetition describes one occurrence of an error.
type Repetition struct {
	Times int       // consecutive occurrences, including this one
	Since time.Time // time of the first one
}

// Count counts an error that occurs now.
func (r *RepeatCounter) Count(err error, now time.Time) Repetition {
	if key := keyOf(err); key != r.last || r.count.Times == 0 {
		*r = RepeatCounter{last: key, count: Repetition{Since: now}}
	}
	r.count.Times++
	return r.count
}

// Reset resets the counter after a success.
func (r *RepeatCounter) Reset() { *r = RepeatCounter{} }

// keyOf returns the key of an error. The key of an error without an Error in its tree
// contains its text.
func keyOf(err error) errorKey {
	var e *Error
	if !errors.As(err, &e) {
		return errorKey{ClassOf(err), Operation{Object: err.Error()}}
	}
	return errorKey{e.Class, Operation{e.Op, e.Object}}
}

// MarshalZerologObject adds the fields repeated and failing_since if the error occurred
// more than once in a row.
func (r Repetition) MarshalZerologObject(event *zerolog.Event) {
	if r.Times > 1 {
		event.Int("repeated", r.Times).Time("failing_since", r.Since)
	}
}
