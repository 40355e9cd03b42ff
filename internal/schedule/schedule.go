// Package schedule knows when the next run is due and calls it, one at a time.
//
// It guarantees that a Schedule fires at some time in the future, that two runs
// never overlap, that no tick is queued up behind a run, and that a suspended
// machine or a changed clock is noticed within 30 seconds. It does not persist
// anything: ticks of the time before the process started are nobody's.
package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"adconnector/internal/fault"
)

// allowed is the remedy of every refused expression.
const allowed = `allowed: 5 fields (minute hour day-of-month month day-of-week) or 6 with seconds first, ` +
	`each of * ? numbers, names, lists, ranges and /steps; or @hourly, @daily, @weekly, @monthly, @yearly, @every 10m; ` +
	`in UTC unless CRON_TZ=Area/City stands in front`

// Why an expression is refused.
var (
	errEmpty       = errors.New("there is no expression")
	errZone        = errors.New("not a time zone like Europe/Berlin")
	errUnknownZone = errors.New("the time zone is unknown on this machine")
	errInterval    = errors.New("the interval must be whole seconds, at least 1s, like 10m or 1h30m")
	errDescriptor  = errors.New("unknown descriptor")
	errFieldCount  = errors.New("wrong number of fields")
	errNever       = errors.New("it never fires, since no such date exists")
	errStep        = errors.New("the step after / must be a number above 0")
	errBackward    = errors.New("the range runs backward")
	errForm        = errors.New("the forms L, W and # are not supported")
	errValue       = errors.New("invalid value")
)

// Schedule is a cron expression that is known to fire.
type Schedule struct {
	expr string
	next cron.Schedule
}

// Parse reads a cron expression: 5 fields, 6 with seconds first, or a
// descriptor, in UTC unless CRON_TZ= or TZ= names another zone. 7 is Sunday
// wherever a day of the week may stand. As in every cron, an expression that
// restricts both the day of the month and the day of the week fires on either.
//
// In a zone with daylight saving time, a tick in the hour that is skipped does
// not happen on that day, and one in the hour that comes twice happens twice.
func Parse(expr string) (*Schedule, error) {
	expr = strings.TrimSpace(expr)
	next, err := parse(expr)
	if err != nil {
		return nil, fault.Operation{}.Failed(fault.Invalid, fmt.Errorf("%.100q is not a cron expression: %w", expr, err), allowed)
	}
	return &Schedule{expr: expr, next: next}, nil
}

// Every returns a schedule that fires at each multiple of an interval, which may be shorter
// than a second. It is for tests.
func Every(interval time.Duration) *Schedule {
	return &Schedule{expr: "every " + interval.String(), next: every(interval)}
}

type every time.Duration

func (e every) Next(after time.Time) time.Time {
	return after.Truncate(time.Duration(e)).Add(time.Duration(e))
}

// Next returns the first tick after the given time, in UTC.
func (s *Schedule) Next(after time.Time) time.Time {
	return s.next.Next(after.Round(0).UTC())
}

// String returns the expression as it was given.
func (s *Schedule) String() string { return s.expr }

func parse(expr string) (cron.Schedule, error) {
	words := strings.Fields(expr)
	zone := time.UTC
	if len(words) > 0 {
		if name, ok := zoneName(words[0]); ok {
			var err error
			if zone, err = loadZone(name); err != nil {
				return nil, err
			}
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return nil, errEmpty
	}
	if strings.HasPrefix(words[0], "@") {
		return parseDescriptor(strings.ToLower(strings.Join(words, " ")), zone)
	}
	return parseFields(words, zone)
}

func zoneName(word string) (string, bool) {
	if name, ok := strings.CutPrefix(word, "CRON_TZ="); ok {
		return name, true
	}
	return strings.CutPrefix(word, "TZ=")
}

// loadZone refuses the two names that time.LoadLocation takes for something
// else than a zone: none at all, and Local, which depends on the machine.
func loadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("%q: %w", name, errZone)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%.60q: %w", name, errUnknownZone)
	}
	return zone, nil
}

func parseDescriptor(text string, zone *time.Location) (cron.Schedule, error) {
	if every, ok := strings.CutPrefix(text, "@every "); ok {
		// robfig would round these to a second without a word.
		d, err := time.ParseDuration(every)
		if err != nil || d < time.Second || d%time.Second != 0 {
			return nil, errInterval
		}
		return cron.Every(d), nil
	}
	switch text {
	case "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly":
		return withRobfig(text, zone)
	}
	return nil, errDescriptor
}

// field is what may stand in one place of an expression.
type field struct {
	name     string
	min, max int
	names    string // in the order of their numbers, from min on
}

var fields = []field{
	{name: "second", max: 59},
	{name: "minute", max: 59},
	{name: "hour", max: 23},
	{name: "day of month", min: 1, max: 31},
	{name: "month", min: 1, max: 12, names: "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"},
	{name: "day of week", max: 7, names: "SUN MON TUE WED THU FRI SAT"},
}

func parseFields(words []string, zone *time.Location) (cron.Schedule, error) {
	if len(words) != 5 && len(words) != 6 {
		return nil, fmt.Errorf("%w: %d", errFieldCount, len(words))
	}
	if len(words) == 5 {
		words = append([]string{"0"}, words...)
	}
	plain := make([]string, len(words))
	for i, word := range words {
		items := strings.Split(word, ",")
		for j, item := range items {
			text, err := fields[i].normalize(item)
			if err != nil {
				field := fault.Operation{Object: fmt.Sprintf("%s %.60q", fields[i].name, word)}
				return nil, field.Failed(fault.Invalid, err, "")
			}
			items[j] = text
		}
		plain[i] = strings.Join(items, ",")
	}
	schedule, err := withRobfig(strings.Join(plain, " "), zone)
	if err != nil {
		return nil, err
	}
	// Any date that exists comes up within the five years robfig looks ahead;
	// a fixed start keeps the verdict from depending on today.
	if schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errNever
	}
	return schedule, nil
}

// withRobfig takes only text that was checked before: robfig panics on some.
func withRobfig(text string, zone *time.Location) (cron.Schedule, error) {
	parser := cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	schedule, err := parser.Parse(text)
	if err != nil {
		return nil, err
	}
	if spec, ok := schedule.(*cron.SpecSchedule); ok {
		spec.Location = zone
	}
	return schedule, nil
}

// normalize turns one item of a list into numbers that robfig reads as meant:
// names and 7 for Sunday resolved, bounds checked.
func (f field) normalize(item string) (string, error) {
	span, step, hasStep := strings.Cut(item, "/")
	if hasStep {
		n, err := strconv.ParseUint(step, 10, 16)
		if err != nil || n == 0 {
			return "", errStep
		}
		step = "/" + strconv.FormatUint(n, 10)
	}
	if span == "*" || span == "?" {
		return span + step, nil
	}
	lowText, highText, isRange := strings.Cut(span, "-")
	low, err := f.number(lowText)
	if err != nil {
		return "", err
	}
	if !isRange {
		return strconv.Itoa(f.fold(low)) + step, nil
	}
	high, err := f.number(highText)
	if err != nil {
		return "", err
	}
	if f.isWeekday() {
		// FRI-SUN ends with the week, 7-3 begins with it.
		if high == 0 && low > 0 && strings.EqualFold(highText, "SUN") {
			high = 7
		}
		if low == 7 {
			low, high = 0, high%7
		}
	}
	if low > high {
		return "", errBackward
	}
	if f.isWeekday() && high == 7 {
		return weekdays(low, strings.TrimPrefix(step, "/")), nil
	}
	return fmt.Sprintf("%d-%d%s", low, high, step), nil
}

// weekdays lists the days from low up to a Sunday at the end of the week, which
// robfig, whose week ends on Saturday, cannot say as a range.
func weekdays(low int, stepText string) string {
	step := 1
	if stepText != "" {
		step, _ = strconv.Atoi(stepText)
	}
	var days []string
	for day := low; day <= 7; day += step {
		days = append(days, strconv.Itoa(day%7))
	}
	return strings.Join(days, ",")
}

func (f field) isWeekday() bool { return f.max == 7 }

func (f field) fold(n int) int {
	if f.isWeekday() {
		return n % 7
	}
	return n
}

func (f field) number(text string) (int, error) {
	for i, name := range strings.Fields(f.names) {
		if strings.EqualFold(text, name) {
			return f.min + i, nil
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		if text != "" && strings.Trim(text, "0123456789LlWw#") == "" {
			return 0, errForm
		}
		return 0, fmt.Errorf("%w, want %s", errValue, f.choices())
	}
	if int(n) < f.min || int(n) > f.max {
		return 0, fmt.Errorf("%w, want %s", errValue, f.choices())
	}
	return int(n), nil
}

func (f field) choices() string {
	bounds := fmt.Sprintf("%d to %d", f.min, f.max)
	if f.names == "" {
		return bounds
	}
	return bounds + " or one of " + f.names
}
