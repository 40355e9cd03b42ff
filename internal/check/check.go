// Package check is the preflight: it checks everything that a run needs, one line each,
// with the remedy where something is wrong.
//
// It changes nothing: it sends the gateway no assets and no state, creates no state file,
// and binds no refused account a second time. It continues after a failure. A line that
// depends on one that failed is a warning that begins with "skipped".
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

// Result is how a check went.
type Result string

// The results.
const (
	OK   Result = "ok"
	Warn Result = "warn" // a run does without, or could not be told
	Fail Result = "fail" // a run would fail
)

// Check is one line.
type Check struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	Found  string `json:"found"`
	Remedy string `json:"remedy"` // "" when there is nothing to do

	err error // of a failure
}

// Report is all lines, in order.
type Report struct {
	OK     bool    `json:"ok"` // nothing failed
	Checks []Check `json:"checks"`
}

// Err is the first failure, as a run would meet it; nil when there is none.
func (r Report) Err() error {
	for _, c := range r.Checks {
		if c.Result == Fail {
			return c.err
		}
	}
	return nil
}

// Options say what a run would work with.
type Options struct {
	Fault   error    // of the configuration; the other lines are then skipped
	Advice  []string // about settings without effect
	Gateway *gateway.Client
	// GatewayAddress is host:port, and ProxyAddress too; "": there is no proxy.
	GatewayAddress, ProxyAddress string
	Source                       *syncrun.Source // nil: the gateway says where to read
	Search                       syncrun.SearchOptions
	StateDir                     string
	Next                         func(after time.Time) time.Time // of the schedule; nil: there is none

	countFor     time.Duration    // of each kind at most; 0: 15 s
	now          func() time.Time // nil: time.Now
	stateOptions state.Options
}

const (
	defaultCountFor = 15 * time.Second
	// patience bounds each line. A rate limit of an hour is not waited for.
	patience = time.Minute
)

// The lines, in order.
const (
	configuration  = "configuration"
	stateDirectory = "state directory"
	proxy          = "proxy"
	gatewayLogin   = "gateway login"
	documents      = "connection and profile"
	scheduled      = "schedule"
	reach          = "directory"
	tlsLine        = "TLS"
	bind           = "bind"
	account        = "bind account"
	baseContext    = "base context"
	readUsers      = "read users"
	readGroups     = "read groups"
	seeDeleted     = "see deletions"
	pageSize       = "page size"
	counts         = "counts"
	timeSkew       = "time skew"
)

// lines is what each line looks at.
var lines = []struct {
	name string
	look func(*inspection, context.Context) Check
}{
	{configuration, (*inspection).configuration},
	{stateDirectory, (*inspection).stateDirectory},
	{proxy, (*inspection).proxy},
	{gatewayLogin, (*inspection).login},
	{documents, (*inspection).documents},
	{scheduled, (*inspection).schedule},
	{reach, (*inspection).reach},
	{tlsLine, (*inspection).tls},
	{bind, (*inspection).bind},
	{account, (*inspection).account},
	{baseContext, (*inspection).baseContext},
	{readUsers, (*inspection).readUsers},
	{readGroups, (*inspection).readGroups},
	{seeDeleted, (*inspection).seeDeleted},
	{pageSize, (*inspection).pageSize},
	{counts, (*inspection).counts},
	{timeSkew, (*inspection).timeSkew},
}

// inspection is one preflight. What a line has found is there for the next ones;
// what is nil could not be had.
type inspection struct {
	Options
	misconfigured, noProxy, noLogin bool

	directory *directory.Options
	part      *syncrun.Source // less its directory
	contacts  []directory.ProbeResult
	session   *directory.Session
	self      self // the account that binds
	baseSeen  bool
	tallies   map[identity.Kind]*tally
}

// Run looks at everything and tells of each line as soon as it is known. It ends
// with ctx; what it has not come to by then is skipped.
func Run(ctx context.Context, o Options, each func(Check)) Report {
	if o.countFor == 0 {
		o.countFor = defaultCountFor
	}
	if o.now == nil {
		o.now = time.Now
	}
	i := &inspection{Options: o, tallies: map[identity.Kind]*tally{}}
	defer func() {
		if i.session != nil {
			i.session.Close()
		}
	}()
	report := Report{OK: true}
	for _, line := range lines {
		c := i.one(ctx, line.look)
		c.Name = line.name
		report.OK = report.OK && c.Result != Fail
		report.Checks = append(report.Checks, c)
		each(c)
	}
	return report
}

func (i *inspection) one(ctx context.Context, look func(*inspection, context.Context) Check) Check {
	switch {
	case ctx.Err() != nil:
		return skipped("interrupted")
	case i.misconfigured:
		return skipped("the configuration is not complete")
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := look(i, bounded)
	if c.Result != OK && ctx.Err() != nil { // that is why
		return skipped("interrupted")
	}
	return c
}

func ok(format string, args ...any) Check {
	return Check{Result: OK, Found: fmt.Sprintf(format, args...)}
}

func warn(found, remedy string) Check { return Check{Result: Warn, Found: found, Remedy: remedy} }

// warnOf returns the line of an error that a run recovers from.
func warnOf(err error) Check { return warn(err.Error(), fault.Remedy(err)) }

// skipped returns a line that depends on one that failed.
func skipped(why string) Check { return Check{Result: Warn, Found: "skipped: " + why} }

// failed returns the line of an error, with the error's own remedy where it has one.
func failed(err error, otherwise string) Check {
	return failedFor(err, cmp.Or(fault.Remedy(err), otherwise))
}

// failedFor returns the line of an error with a better remedy than its own.
func failedFor(err error, remedy string) Check {
	return Check{Result: Fail, Found: err.Error(), Remedy: remedy, err: err}
}

func (i *inspection) configuration(context.Context) Check {
	if i.Fault != nil {
		i.misconfigured = true
		return Check{Result: Fail, Found: strings.Join(append([]string{i.Fault.Error()}, i.Advice...), "\n"), err: i.Fault,
			Remedy: fault.Remedies(i.Fault) + "\nadconnector help keys lists all keys"}
	}
	from := "connection and profile come from the gateway"
	if i.Source != nil {
		from = "connection and profile come from the environment (ldap.host)"
	}
	if len(i.Advice) > 0 {
		return warn("complete, but there are keys without effect:\n"+strings.Join(i.Advice, "\n"), "correct their names, or remove them; adconnector help keys lists all that there are")
	}
	return ok("complete; %s", from)
}

// setting returns what an operator has to change: a key, or its equivalent in the console.
func (i *inspection) setting(key, inConsole string) string {
	if i.Source != nil {
		return key
	}
	return inConsole + " in the console"
}

// lateError is the cause of a line that took too long.
type lateError struct{ error }

// Error returns how long the line may take.
func (lateError) Error() string { return fmt.Sprintf("no answer within %s", patience) }

// Unwrap returns the cause.
func (e lateError) Unwrap() error { return e.error }

// deadline returns the error of a line's context as one that is temporary, since no one
// interrupted the line. It keeps the operation and the remedy.
func deadline(ctx context.Context, err error) error {
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var operation fault.Operation
	cause := err
	if failed, is := errors.AsType[*fault.Error](err); is {
		operation, cause = fault.Operation{Op: failed.Op, Object: failed.Object}, failed.Err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		cause = lateError{cause}
	}
	return operation.Failed(fault.Transient, cause, fault.Remedy(err))
}
