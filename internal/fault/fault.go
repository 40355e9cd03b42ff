// Package fault has the error that every adapter (directory, gateway, state) returns: what
// was tried on what, why it failed, what to do, and a class. The class decides on retries
// and on the exit code, and is the label of metrics.
package fault

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// Class is the meaning of an error for the run.
type Class string

// The classes.
const (
	// Done is the class of no error, where outcomes are counted.
	Done Class = "done"
	// Transient may pass without anyone's help: network, timeout, 5xx, rate limit, full disk.
	Transient Class = "transient"
	// Refused lasts until a person changes something: credentials, rights, certificates,
	// names. It is not retried within a run.
	Refused Class = "refused"
	// Rejected concerns single objects that the other side does not accept.
	Rejected Class = "rejected"
	// Incomplete means that an answer ended before its proven end.
	Incomplete Class = "incomplete"
	// Canceled means that the process was told to stop.
	Canceled Class = "canceled"
	// Invalid is bad configuration or bad usage, an unusable state directory included.
	Invalid Class = "invalid"
	// Locked means that another instance holds the state directory.
	Locked Class = "locked"
)

// Error is a failed operation.
type Error struct {
	Class  Class
	Op     string // such as "search"; "" for a value, which Object names
	Object string // a DN, an address, a path, a key; the same whenever the same operation fails
	Err    error  // the cause, without the remedy
	Remedy string // an instruction; "" without one
}

// Error returns "operation object: cause".
func (e *Error) Error() string {
	subject := strings.TrimSpace(e.Op + " " + e.Object)
	if subject == "" {
		return e.Err.Error()
	}
	return subject + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Operation is an operation on an object.
type Operation struct{ Op, Object string }

// Failed returns the operation's error. Without a remedy of its own, the error has that of
// its cause.
func (o Operation) Failed(class Class, cause error, remedy string) error {
	return &Error{Class: class, Op: o.Op, Object: o.Object, Err: cause, Remedy: remedy}
}

// Of returns the class of the outermost Error in err's tree. Without one it is Canceled
// when a context was canceled, and Transient otherwise. Of no error it is Done.
func Of(err error) Class {
	var e *Error
	switch {
	case err == nil:
		return Done
	case errors.As(err, &e):
		return e.Class
	case errors.Is(err, context.Canceled):
		return Canceled
	default:
		return Transient
	}
}

// Remedy returns the outermost remedy in err's tree. Where errors are joined, it returns
// the different remedies of all, separated by "; ".
func Remedy(err error) string {
	switch e := err.(type) { // the chain is walked here
	case nil:
		return ""
	case *Error:
		if e.Remedy != "" {
			return e.Remedy
		}
		return Remedy(e.Err)
	case interface{ Unwrap() error }:
		return Remedy(e.Unwrap())
	case interface{ Unwrap() []error }:
		var remedies []string
		for _, one := range e.Unwrap() {
			if remedy := Remedy(one); remedy != "" && !slices.Contains(remedies, remedy) {
				remedies = append(remedies, remedy)
			}
		}
		return strings.Join(remedies, "; ")
	}
	return ""
}

// Remedies returns the remedies of joined errors, one a line, each with the object that it is
// about. Of a single error it returns the remedy.
func Remedies(err error) string {
	all := All(err)
	if len(all) == 1 {
		return Remedy(err)
	}
	var lines []string
	for _, one := range all {
		remedy := Remedy(one)
		var failed *Error
		if errors.As(one, &failed) && failed.Object != "" && remedy != "" {
			remedy = failed.Object + ": " + remedy
		}
		if remedy != "" {
			lines = append(lines, remedy)
		}
	}
	return strings.Join(lines, "\n")
}

// All returns the errors that err joins, or err itself. An Error is never taken apart,
// since its causes alone lack its operation and its remedy.
func All(err error) []error {
	joined, is := err.(interface{ Unwrap() []error })
	if !is {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, All(one)...)
	}
	return all
}
