// Package fault is the closed set of ways in which work with the outside can
// fail. Each adapter (directory, gateway, state) sorts its own errors into it;
// the class decides whether to try again and with which code to exit.
//
// It guarantees that every error has exactly one class. It does not decide what
// an error says: the message, remedy included, is the adapter's.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Class says what an error means for the run.
type Class string

const (
	// Done is the class of no error: the name of success where outcomes are counted.
	Done Class = "done"
	// Transient may pass by itself: network, timeout, 5xx, rate limit, full disk.
	Transient Class = "transient"
	// Refused will not pass until a person changes something: credentials,
	// rights, certificates, names. It is never retried within a run.
	Refused Class = "refused"
	// Rejected concerns single objects, which the other side does not take.
	Rejected Class = "rejected"
	// Incomplete means that an answer ended before its proven end.
	Incomplete Class = "incomplete"
	// Canceled means that we were told to stop.
	Canceled Class = "canceled"
)

type classified struct {
	class Class
	err   error
}

func (e *classified) Error() string { return e.err.Error() }
func (e *classified) Unwrap() error { return e.err }

// New puts err into a class.
func New(class Class, err error) error { return &classified{class, err} }

// Errorf formats an error as fmt.Errorf does and puts it into a class.
func Errorf(class Class, format string, args ...any) error {
	return New(class, fmt.Errorf(format, args...))
}

// Of returns the class of the outermost classified error in err's tree. What no
// adapter has classified is canceled when a context was, and transient otherwise;
// no error is Done.
func Of(err error) Class {
	var c *classified
	switch {
	case err == nil:
		return Done
	case errors.As(err, &c):
		return c.class
	case errors.Is(err, context.Canceled):
		return Canceled
	default:
		return Transient
	}
}
