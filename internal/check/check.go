// Package check is the preflight: it looks at everything that a run needs, one line
// each, and says what to do where something is wrong.
//
// It guarantees that it changes nothing: it sends the gateway no assets and no state,
// makes no state file, and binds no refused account a second time. It goes on after a
// failure wherever the next line does not hang on the one that failed; a line that
// does is a warning that begins with "skipped". It promises nothing about the next
// run: what was right may be wrong by then.
package check

import (
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
	Fault   error    // what is wrong with the configuration: nothing else can be looked at then
	Advice  []string // what is not wrong with it, but hardly meant
	Gateway *gateway.Client
	// GatewayAddress is host:port, and ProxyAddress too; "": there is no proxy.
	GatewayAddress, ProxyAddress string
	Source                       *syncrun.Source // nil: the gateway says where to read
	Search                       syncrun.Search
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
	contacts  []directory.Contact
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
	switch {
	case c.Result == OK:
	case ctx.Err() != nil: // what it found then followed from that
		return skipped("interrupted")
	case bounded.Err() != nil:
		c.Found = strings.ReplaceAll(c.Found, context.DeadlineExceeded.Error(), fmt.Sprintf("no answer within %s", patience))
	}
	return c
}

func ok(format string, args ...any) Check {
	return Check{Result: OK, Found: fmt.Sprintf(format, args...)}
}

func warn(found, remedy string) Check { return Check{Result: Warn, Found: found, Remedy: remedy} }

// skipped is a line that hangs on one that failed.
func skipped(why string) Check { return Check{Result: Warn, Found: "skipped: " + why} }

// failed takes an error apart into what was found and what to do. The adapters end
// their errors with the remedy; otherwise is for those that do not.
func failed(err error, otherwise string) Check {
	found, remedy := split(err)
	if remedy == "" {
		remedy = otherwise
	}
	return Check{Result: Fail, Found: found, Remedy: remedy, err: err}
}

// failedFor is failed with a better remedy than the adapter's.
func failedFor(err error, remedy string) Check {
	found, _ := split(err)
	return Check{Result: Fail, Found: found, Remedy: remedy, err: err}
}

func (i *inspection) configuration(context.Context) Check {
	if i.Fault != nil {
		i.misconfigured = true
		return Check{Result: Fail, Found: strings.Join(append([]string{i.Fault.Error()}, i.Advice...), "\n"), err: i.Fault,
			Remedy: "correct the keys that are named; adconnector help keys lists them all"}
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

// setting names what an operator has to change: a key, or its like in the console.
func (i *inspection) setting(key, inConsole string) string {
	if i.Source != nil {
		return key
	}
	return inConsole + " in the console"
}

// deadline makes an error of a line that took too long, rather than one of an order to stop.
func deadline(err error) error {
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Transient, err)
	}
	return err
}
