package schedule

import (
	"time"

	"github.com/robfig/cron/v3"
)

// zonedTicks are the ticks of an expression on the wall clock of a time zone.
//
// When the clock is put forward or back, a wall clock time is missing or occurs twice. An
// expression for certain hours must fire once for each of its wall clock times: a tick in the
// skipped period fires at its end, and a tick in the repeated period fires the first time only.
// Otherwise a weekly run could be missing for two weeks. An expression for every hour follows
// the elapsed time instead: it needs no replacement, and a pause of an hour in autumn would be
// wrong.
type zonedTicks struct {
	wall      cron.Schedule // of wall clock times, written as times in UTC
	zone      *time.Location
	everyHour bool
}

// newZonedTicks returns the ticks of a parsed expression.
func newZonedTicks(spec *cron.SpecSchedule, zone *time.Location) zonedTicks {
	const allHours = 1<<24 - 1
	spec.Location = time.UTC
	return zonedTicks{spec, zone, spec.Hour&allHours == allHours}
}

// Next returns the first tick after a time, or the zero time if there is none within five years.
func (z zonedTicks) Next(after time.Time) time.Time {
	if z.everyHour {
		return z.nextElapsed(after)
	}
	// A later wall clock time is never an earlier tick, so the first match is the next tick. Ticks
	// that are not later belong to the first pass of a repeated hour, which has passed.
	for wall := wallClock(after, z.zone); ; {
		wall = z.wall.Next(wall)
		if wall.IsZero() {
			return wall
		}
		if tick := firstOccurrence(wall, z.zone); tick.After(after) {
			return tick
		}
	}
}

// nextElapsed returns the first tick after a time. It looks at one period with the same offset
// from UTC after the other, so that a repeated wall clock time fires twice.
func (z zonedTicks) nextElapsed(after time.Time) time.Time {
	for {
		local := after.In(z.zone)
		_, offset := local.Zone()
		wall := z.wall.Next(wallClock(after, z.zone))
		if wall.IsZero() {
			return wall
		}
		tick := wall.Add(-time.Duration(offset) * time.Second)
		_, end := local.ZoneBounds()
		if end.IsZero() || tick.Before(end) {
			return tick
		}
		// Continue with the wall clock of the next period. Its first instant can be a tick.
		after = end
		if first := wallClock(end, z.zone); z.wall.Next(first.Add(-time.Second)).Equal(first) {
			return end.UTC()
		}
	}
}

// wallClock returns what a clock in the zone shows at a time, written as a time in UTC.
func wallClock(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// firstOccurrence returns the time at which a clock in the zone first shows a wall clock time. If
// it skips that time, firstOccurrence returns the end of the skipped period.
func firstOccurrence(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, zone)
	start, end := t.ZoneBounds()
	switch shown := wallClock(t, zone); {
	case shown.After(wall): // skipped, and t is after the change of the clock
		return start.UTC()
	case shown.Before(wall): // skipped, and t is before the change
		return end.UTC()
	case start.IsZero():
		return t.UTC()
	}
	_, offset := t.Zone()
	_, before := start.Add(-time.Second).Zone()
	if earlier := t.Add(time.Duration(offset-before) * time.Second); earlier.Before(start) {
		return earlier.UTC()
	}
	return t.UTC()
}
