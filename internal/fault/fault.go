// Package fault defines the error type of the connector. An Error has an operation, its
// object, a cause, a remedy and a class. The class determines retries and the exit code,
// and is a label of metrics.
package fault

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/rs/zerolog"
)

// Class is the category of an error.
type Class string

// The classes.
const (
	// Done is the class of a nil error. Counters of outcomes use it.
	Done Class = "done"
	// Transient errors may end without intervention: network, timeout, 5xx, rate limit, full disk.
	Transient Class = "transient"
	// Refused errors need intervention: credentials, rights, certificates, names. They are
	// not retried within a run.
	Refused Class = "refused"
	// Rejected errors apply to single objects that the server does not accept.
	Rejected Class = "rejected"
	// Incomplete means that a response was truncated.
	Incomplete Class = "incomplete"
	// Canceled means that the process is shutting down.
	Canceled Class = "canceled"
	// Invalid means bad configuration or usage, including an unusable state directory.
	Invalid Class = "invalid"
	// Locked means that another instance has locked the state directory.
	Locked Class = "locked"
)

// Error is a failed operation.
type Error struct {
	Class  Class
	Op     string // such as "search"; "" if Object is an invalid value
	Object string // a DN, address, path or key; equal for repeated failures of the same operation
	Err    error  // the cause, without the remedy
	Remedy string // an imperative clause; "": none
}

// Error returns "operation object: cause".
func (e *Error) Error() string {
	subject := strings.TrimSpace(e.Op + " " + e.Object)
	if subject == "" {
		return shorten(e.Err.Error())
	}
	return shorten(subject + ": " + e.Err.Error())
}

// maxTextSize limits the text of an error, and its remedy, in bytes. Logs and the state file keep
// them, and servers and certificates can have names of any size.
const maxTextSize = 8 << 10

// shorten returns the beginning of a text that is larger than maxTextSize.
func shorten(text string) string {
	if len(text) <= maxTextSize {
		return text
	}
	return strings.ToValidUTF8(text[:maxTextSize-len("…")], "") + "…"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Operation is an operation on an object.
type Operation struct{ Op, Object string }

// Failed returns the error of the operation. If remedy is empty, Remedy returns the remedy
// of the cause.
func (o Operation) Failed(class Class, cause error, remedy string) error {
	return &Error{Class: class, Op: o.Op, Object: o.Object, Err: cause, Remedy: remedy}
}

// ClassOf returns the class of the outermost Error in the tree of err. Without an Error, it
// returns Canceled for a canceled context and Transient otherwise. For nil, it returns Done.
func ClassOf(err error) Class {
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

// Remedy returns the outermost remedy in the tree of err. For joined errors, it returns
// their distinct remedies, separated by "; ".
func Remedy(err error) string {
	switch e := err.(type) { //nolint:errorlint // errors.As would return one of several joined errors
	case nil:
		return ""
	case *Error:
		if e.Remedy != "" {
			return shorten(e.Remedy)
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

// Remedies returns the remedies of joined errors, one per line, each with its object. For a
// single error, it returns the remedy only.
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

// All returns the errors that are joined in err, or err itself. It does not split an Error,
// because the causes lack its operation and remedy.
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

// Fields returns the log fields of err: error and, if not empty, remedy.
func Fields(err error) zerolog.LogObjectMarshaler { return fields{err} }

type fields struct{ err error }

// MarshalZerologObject adds the fields.
func (f fields) MarshalZerologObject(event *zerolog.Event) {
	event.Str("error", f.err.Error())
	if remedy := Remedy(f.err); remedy != "" {
		event.Str("remedy", remedy)
	}
}
