// Package check implements the preflight: checks of everything that a run requires, with a
// remedy for each warning and failure.
//
// It changes nothing: it sends neither assets nor states to the gateway, creates no state
// file, and does not repeat a refused bind. It writes a temporary file to the state directory and
// removes it. It continues after a failure. A check that depends on a failed check is a warning that
// begins with "skipped".
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/input"
	"adconnector/internal/schedule"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

// Result is the result of a check.
type Result string

// The results.
const (
	OK   Result = "ok"
	Warn Result = "warn" // a run would succeed, or the check is not possible
	Fail Result = "fail" // a run would fail
)

// Check is one check and its result.
type Check struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	Found  string `json:"found"`
	Remedy string `json:"remedy"` // empty if none is necessary
	// Class is the class of the error of a failure.
	Class fault.Class `json:"class,omitempty"`
	// Skipped is whether the check depends on a failed one and was not done. Its result is Warn.
	Skipped bool `json:"skipped,omitempty"`

	err error // of a failure
}

// Report is the results of all checks in order.
type Report struct {
	OK     bool    `json:"ok"` // nothing failed
	Checks []Check `json:"checks"`
}

// Err returns the error of the first failure, which a run would return, or nil.
func (r Report) Err() error {
	for _, c := range r.Checks {
		if c.Result == Fail {
			return c.err
		}
	}
	return nil
}

// Options are the options of a run.
type Options struct {
	Fault    error           // of the configuration; skips all other checks
	Advice   []string        // one line for each setting without effect
	Mistakes []input.Finding // in valid settings
	Exposed  []input.Finding // files with secrets that other users can read
	Replaced []string        // one line for each setting that replaces a different one of a file
	Gateway  *gateway.Client
	// GatewayAddress and ProxyAddress are host:port. Without a proxy, ProxyAddress is empty.
	GatewayAddress, ProxyAddress string
	Source                       *syncrun.Source // nil: connection and profile come from the gateway
	Search                       syncrun.SearchOptions
	LastLogon                    syncrun.LastLogon
	StateDir                     string
	Schedule                     *schedule.Schedule // nil: none

	countTimeout  time.Duration    // for each kind; 0: 15 s
	maxUnreadable int              // 0: 10,000
	now           func() time.Time // nil: time.Now
	stateOptions  state.Options
}

const (
	defaultCountTimeout = 15 * time.Second
	// checkTimeout limits each check, for example during a rate limit of an hour.
	checkTimeout = time.Minute
)

// checks lists all checks in order.
var checks = []struct {
	name string
	run  func(*preflight, context.Context) Check
}{
	{"configuration", (*preflight).configuration},
	{"state directory", (*preflight).stateDirectory},
	{"proxy", (*preflight).proxy},
	{"gateway login", (*preflight).login},
	{"connection and profile", (*preflight).connectionAndProfile},
	{"schedule", (*preflight).schedule},
	{"directory", (*preflight).connect},
	{"TLS", (*preflight).tls},
	{"bind", (*preflight).bind},
	{"domain controller", (*preflight).controller},
	{"bind account", (*preflight).account},
	{"filters", (*preflight).filters},
	{"base context", (*preflight).baseContext},
	{"read users", (*preflight).readUsers},
	{"read groups", (*preflight).readGroups},
	{"unreadable objects", (*preflight).unreadableObjects},
	{"read permissions", (*preflight).readPermissions},
	{"see deletions", (*preflight).readDeleted},
	{"page size", (*preflight).pageSize},
	{"last logon", (*preflight).lastLogon},
	{"counts", (*preflight).counts},
	{"time skew", (*preflight).timeSkew},
}

// preflight has the results of checks that later checks require. They are nil after a failure.
type preflight struct {
	Options
	misconfigured, proxyFailed, loginFailed bool

	directory    *directory.Options
	profile      *syncrun.Source // without its directory
	probes       []directory.ProbeResult
	session      *directory.Session
	bound        bindAccount
	baseFound    bool
	objectCounts map[identity.Kind]*objectCount
}

// Run runs all checks and calls onCheck after each. After the end of ctx, it skips the
// remaining checks.
func Run(ctx context.Context, o Options, onCheck func(Check)) Report {
	o.countTimeout, o.maxUnreadable = cmp.Or(o.countTimeout, defaultCountTimeout), cmp.Or(o.maxUnreadable, defaultMaxUnreadable)
	if o.now == nil {
		o.now = time.Now
	}
	p := &preflight{Options: o, objectCounts: map[identity.Kind]*objectCount{}}
	defer func() {
		if p.session != nil {
			p.session.Close()
		}
	}()
	report := Report{OK: true}
	for _, check := range checks {
		c := p.runCheck(ctx, check.run)
		c.Name = check.name
		if c.Result == Fail {
			c.Class = fault.ClassOf(c.err)
		}
		report.OK = report.OK && c.Result != Fail
		report.Checks = append(report.Checks, c)
		onCheck(c)
	}
	return report
}

func (p *preflight) runCheck(ctx context.Context, run func(*preflight, context.Context) Check) Check {
	switch {
	case ctx.Err() != nil:
		return skipped("interrupted")
	case p.misconfigured:
		return skipped("the configuration is invalid")
	}
	bounded, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c := run(p, bounded)
	if c.Result != OK && ctx.Err() != nil { // the interrupt is the cause
		return skipped("interrupted")
	}
	return c
}

func ok(format string, args ...any) Check {
	return Check{Result: OK, Found: fmt.Sprintf(format, args...)}
}

func warn(found, remedy string) Check { return Check{Result: Warn, Found: found, Remedy: remedy} }

// warnOf returns the warning for an error that does not fail a run.
func warnOf(err error) Check { return warn(err.Error(), fault.Remedy(err)) }

// skipped returns the result of a check that depends on a failed check.
func skipped(reason string) Check {
	return Check{Result: Warn, Found: "skipped: " + reason, Skipped: true}
}

// failed returns a failure. defaultRemedy is used if the error has no remedy.
func failed(err error, defaultRemedy string) Check {
	return failedWithRemedy(err, cmp.Or(fault.Remedy(err), defaultRemedy))
}

// failedWithRemedy returns a failure with a remedy that replaces that of the error.
func failedWithRemedy(err error, remedy string) Check {
	return Check{Result: Fail, Found: err.Error(), Remedy: remedy, err: err}
}

func (p *preflight) configuration(context.Context) Check {
	mistakes, mistakeRemedies := describeFindings(p.Mistakes)
	exposed, exposedRemedies := describeFindings(p.Exposed)
	if p.Fault != nil {
		p.misconfigured = true
		return Check{Result: Fail, Found: strings.Join(slices.Concat([]string{p.Fault.Error()}, p.Advice, mistakes, exposed), "\n"), err: p.Fault,
			Remedy: strings.Join(slices.Concat([]string{fault.Remedies(p.Fault), "see adconnector keys for all keys"}, mistakeRemedies, exposedRemedies), "\n")}
	}
	origin := "connection and profile come from the gateway"
	if p.Source != nil {
		origin = "connection and profile come from the settings (ldap.host)"
	}
	var found, remedies []string
	if len(p.Advice) > 0 {
		found = append([]string{"complete, but these keys have no effect:"}, p.Advice...)
		remedies = []string{"correct or remove them; see adconnector keys for all keys"}
	}
	if len(mistakes) > 0 {
		found = append(append(found, "complete, but these values probably contain mistakes:"), mistakes...)
		remedies = append(remedies, mistakeRemedies...)
	}
	if len(exposed) > 0 {
		found = append(append(found, "complete, but other users can read these files:"), exposed...)
		remedies = append(remedies, exposedRemedies...)
	}
	if len(found) > 0 {
		return warn(strings.Join(append(found, p.Replaced...), "\n"), strings.Join(remedies, "\n"))
	}
	return ok("%s", strings.Join(append([]string{"complete; " + origin}, p.Replaced...), "\n"))
}

// describeFindings returns a line for each value, and a line for its remedies.
func describeFindings(values []input.Finding) (found, remedies []string) {
	for _, value := range values {
		found = append(found, value.Name+": "+value.Reason())
		remedies = append(remedies, value.Name+": "+value.Remedy())
	}
	return found, remedies
}

// setting returns the setting that an operator must change: a key, or its equivalent in the
// console.
func (p *preflight) setting(key, inConsole string) string {
	if p.Source != nil {
		return key
	}
	return inConsole + " in the console"
}

// timeoutError is the cause of an error after checkTimeout.
type timeoutError struct{ error }

// Error returns the duration of the timeout.
func (timeoutError) Error() string { return fmt.Sprintf("no response within %s", checkTimeout) }

// Unwrap returns the cause.
func (e timeoutError) Unwrap() error { return e.error }

// asTransient returns an error that exceeded a deadline as a transient one: the check was not
// interrupted. It keeps the operation and the remedy.
func asTransient(ctx context.Context, err error) error {
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var operation fault.Operation
	cause := err
	if failed, ok := errors.AsType[*fault.Error](err); ok {
		operation, cause = fault.Operation{Op: failed.Op, Object: failed.Object}, failed.Err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		cause = timeoutError{cause}
	}
	return operation.Failed(fault.Transient, cause, fault.Remedy(err))
}
