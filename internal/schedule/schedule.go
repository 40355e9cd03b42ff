// Package schedule parses cron expressions and starts one run at each tick.
//
// A Schedule always has a future tick. Only one run is active at a time, and ticks during
// a run are not queued. A resume from suspend or a clock step is detected within 30
// seconds. The package stores nothing: ticks before the start of the process are ignored.
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

// allowed is the remedy for every invalid expression.
const allowed = `allowed: 5 fields (minute hour day-of-month month day-of-week) or 6 with seconds first, ` +
	`each of * ? numbers, names, lists, ranges and /steps; or @hourly, @daily, @weekly, @monthly, @yearly, @every 10m; ` +
	`in UTC unless CRON_TZ=Area/City comes first`

// The causes of an invalid expression.
var (
	errEmpty       = errors.New("empty expression")
	errZone        = errors.New("not a time zone name such as Europe/Berlin")
	errUnknownZone = errors.New("unknown time zone on this machine")
	errInterval    = errors.New("invalid interval, want whole seconds, at least 1s, such as 10m or 1h30m")
	errDescriptor  = errors.New("unknown descriptor")
	errFieldCount  = errors.New("wrong number of fields")
	errYear        = errors.New("a field for the year, as in Quartz, is not supported")
	errNever       = errors.New("the date does not exist")
	errStep        = errors.New("invalid step, want a number above 0 after /")
	errBackward    = errors.New("the range end is before its start")
	errForm        = errors.New("unsupported L, W or #")
	errValue       = errors.New("invalid value")
)

// Schedule is a cron expression that has future ticks.
type Schedule struct {
	Expression string
	Ticks      cron.Schedule
	Zone       *time.Location // of the expression; nil: UTC
	Warnings   []Warning
}

// Parse parses a cron expression: 5 fields, 6 fields with seconds first, or a
// descriptor. The time zone is UTC unless CRON_TZ= or TZ= names another one. 7 is
// Sunday in every position of a day of the week. As in every cron, an expression that
// restricts both the day of the month and the day of the week fires on either.
//
// With daylight saving time, a tick in the skipped hour fires at the end of that hour, and a
// tick in the repeated hour fires once. An expression for every hour of the day follows the
// elapsed time.
func Parse(expr string) (*Schedule, error) {
	expr = strings.TrimSpace(expr)
	e, err := parse(expr)
	if err != nil {
		return nil, fault.Operation{}.Failed(fault.Invalid, fmt.Errorf("%.100q is not a cron expression: %w", expr, err), allowed)
	}
	return &Schedule{Expression: expr, Ticks: e.ticks, Zone: e.zone, Warnings: e.warnings()}, nil
}

// expression is a parsed cron expression.
type expression struct {
	prefix string   // the word with the time zone; "": none
	words  []string // without the prefix
	zone   *time.Location
	ticks  cron.Schedule
}

// Next returns the first tick after the given time, in UTC.
func (s *Schedule) Next(after time.Time) time.Time {
	return s.Ticks.Next(after.Round(0).UTC())
}

func parse(expr string) (e expression, err error) {
	e = expression{words: strings.Fields(expr), zone: time.UTC}
	if len(e.words) > 0 {
		name, ok := strings.CutPrefix(strings.TrimPrefix(e.words[0], "CRON_"), "TZ=")
		if ok {
			if e.zone, err = loadZone(name); err != nil {
				return e, err
			}
			e.prefix, e.words = e.words[0], e.words[1:]
		}
	}
	switch {
	case len(e.words) == 0:
		return e, errEmpty
	case strings.HasPrefix(e.words[0], "@"):
		e.ticks, err = parseDescriptor(strings.ToLower(strings.Join(e.words, " ")), e.zone)
	default:
		e.ticks, err = parseFields(e.words, e.zone)
	}
	return e, err
}

// loadZone returns a time zone. It rejects the names "" and "Local", which
// time.LoadLocation accepts as UTC and as the zone of the machine.
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
		// The cron library silently rounds other intervals to seconds.
		d, err := time.ParseDuration(every)
		if err != nil || d < time.Second || d%time.Second != 0 {
			return nil, errInterval
		}
		return cron.Every(d), nil
	}
	switch text {
	case "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly":
		return parseWithLibrary(text, zone)
	}
	return nil, errDescriptor
}

// field describes the values of one position of an expression.
type field struct {
	name      string
	min, last int
	names     string // in ascending order of their numbers, starting at min
}

const dayOfWeek = "day of week"

var fields = []field{
	{name: "second", last: 59},
	{name: "minute", last: 59},
	{name: "hour", last: 23},
	{name: "day of month", min: 1, last: 31},
	{name: "month", min: 1, last: 12, names: "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"},
	{name: dayOfWeek, last: 6, names: "SUN MON TUE WED THU FRI SAT"}, // 7 is Sunday, too
}

// max returns the largest number that an expression can contain.
func (f field) max() int {
	if f.name == dayOfWeek {
		return 7
	}
	return f.last
}

func parseFields(words []string, zone *time.Location) (cron.Schedule, error) {
	if len(words) == 7 {
		return nil, fmt.Errorf("%w: %d: %w", errFieldCount, len(words), errYear)
	}
	if len(words) != 5 && len(words) != 6 {
		return nil, fmt.Errorf("%w: %d", errFieldCount, len(words))
	}
	if len(words) == 5 {
		words = append([]string{"0"}, words...)
	}
	normalized := make([]string, len(words))
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
		normalized[i] = strings.Join(items, ",")
	}
	schedule, err := parseWithLibrary(strings.Join(normalized, " "), zone)
	if err != nil {
		return nil, err
	}
	// The cron library searches five years ahead, which contain every existing date.
	// With a fixed start, the result does not depend on the current date.
	if schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errNever
	}
	return schedule, nil
}

// parseWithLibrary parses text that was checked before: robfig/cron panics on some input.
func parseWithLibrary(text string, zone *time.Location) (cron.Schedule, error) {
	parser := cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	schedule, err := parser.Parse(text)
	if err != nil {
		return nil, err
	}
	if spec, ok := schedule.(*cron.SpecSchedule); ok {
		return newZonedTicks(spec, zone), nil
	}
	return schedule, nil
}

// normalize returns one item of a list in a form that robfig/cron accepts: * and ? with a
// step, or the listed numbers. It checks the bounds and replaces names, and 7 for Sunday.
func (f field) normalize(item string) (string, error) {
	span, stepText, hasStep := strings.Cut(item, "/")
	step := 1
	if hasStep {
		n, err := strconv.ParseUint(stepText, 10, 16)
		if err != nil || n == 0 {
			return "", errStep
		}
		step = int(n)
	}
	if span == "*" || span == "?" {
		return fmt.Sprintf("%s/%d", span, step), nil
	}
	lowText, highText, isRange := strings.Cut(span, "-")
	low, err := f.number(lowText)
	if err != nil {
		return "", err
	}
	high := low
	switch {
	case isRange:
		if high, err = f.number(highText); err != nil {
			return "", err
		}
	case hasStep:
		high = f.last
	}
	if f.name == dayOfWeek {
		// SUN as the end of a range is 7, as in FRI-SUN. 7 as the start is 0, as in 7-3.
		if low > 0 && isRange && strings.EqualFold(highText, "SUN") {
			high = 7
		}
		if low == 7 {
			low, high = 0, high%7
		}
	}
	if low > high {
		return "", errBackward
	}
	var numbers []string
	for n := low; n <= high; n += step {
		numbers = append(numbers, strconv.Itoa(n%(f.last+1))) // the week of robfig/cron ends on Saturday
	}
	return strings.Join(numbers, ","), nil
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
	if int(n) < f.min || int(n) > f.max() {
		return 0, fmt.Errorf("%w, want %s", errValue, f.choices())
	}
	return int(n), nil
}

func (f field) choices() string {
	bounds := fmt.Sprintf("%d to %d", f.min, f.max())
	if f.names == "" {
		return bounds
	}
	return bounds + " or one of " + f.names
}
