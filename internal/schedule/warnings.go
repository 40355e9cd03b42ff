package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Warning is why a valid expression probably does not mean what its author expects.
type Warning struct {
	Reason, Remedy string
}

// minDistance is the distance of ticks below which there is a warning. A run rarely takes less
// time, and the next tick is then skipped.
const minDistance = 5 * time.Second

func (e expression) warnings() (all []Warning) {
	if w, found := e.warnDense(); found {
		all = append(all, w)
	}
	if w, found := e.warnQuartzWeekday(); found {
		all = append(all, w)
	}
	if w, found := e.warnUnevenStep(); found {
		all = append(all, w)
	}
	return all
}

// warnDense warns of an expression that fires every few seconds, most often because six fields
// were taken for five with the year, or because the seconds were left at *.
func (e expression) warnDense() (w Warning, found bool) {
	distance := shortestDistance(e.ticks)
	if distance >= minDistance {
		return w, false
	}
	if len(e.words) != len(fields) {
		return Warning{fmt.Sprintf("fires every %s", distance), "choose a longer interval, for example @every 10m"}, true
	}
	w.Reason = fmt.Sprintf("fires every %s", distance)
	if distance == time.Second {
		w.Reason = "fires every second"
	}
	if minute := e.words[1]; minute != "*" {
		w.Reason += " of the minutes " + minute
	}
	w.Reason += ": the first of six fields is the second"
	return Warning{w.Reason, "for one run in each of these minutes, write " + e.with(0, "0")}, true
}

// shortestDistance returns the shortest distance of the next ticks, as many as an hour can have
// minutes. It does not depend on the current date.
func shortestDistance(ticks cron.Schedule) time.Duration {
	last := ticks.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
	shortest := time.Duration(1<<63 - 1)
	for range 60 {
		next := ticks.Next(last)
		if next.IsZero() {
			break
		}
		shortest, last = min(shortest, next.Sub(last)), next
	}
	return shortest
}

// warnQuartzWeekday warns of numeric weekdays in an expression with a question mark. Such
// expressions are most often copied from a program that uses Quartz, where 1 is Sunday.
func (e expression) warnQuartzWeekday() (w Warning, found bool) {
	if len(e.words) < len(fields)-1 || !slices.ContainsFunc(e.words, func(word string) bool { return strings.HasPrefix(word, "?") }) {
		return w, false
	}
	last := len(e.words) - 1
	here, isNumeric := renameDays(e.words[last], func(n int) int { return n % 7 })
	quartz, ok := renameDays(e.words[last], func(n int) int { return n - 1 })
	if !isNumeric || !ok || sameDays(here, quartz) {
		return w, false
	}
	return Warning{
		fmt.Sprintf("the day of week %s means %s, but %s in Quartz, where 1 is Sunday", e.words[last], here, quartz),
		fmt.Sprintf("write the names of the days: %s, or %s if the expression was made for Quartz", e.with(last, here), e.with(last, quartz)),
	}, true
}

// largerUnits are the units in which a field begins again, by its name.
var largerUnits = map[string]string{"second": "minute", "minute": "hour", "hour": "day"}

// warnUnevenStep warns of a step that does not divide the range of its field. The steps begin again
// with each hour or day, so that */45 is 0 and 45, and */90 is 0.
func (e expression) warnUnevenStep() (w Warning, found bool) {
	if len(e.words) < len(fields)-1 {
		return w, false
	}
	for i, f := range fields[len(fields)-len(e.words):] {
		larger, beginsAgain := largerUnits[f.name]
		if !beginsAgain {
			break // neither does any field after it
		}
		span, stepText, _ := strings.Cut(e.words[i], "/")
		step, err := strconv.Atoi(stepText)
		fromFirst := slices.Contains([]string{"*", "?", "0"}, span)
		inEach := slices.Contains([]string{"*", "?"}, e.words[i+1]) // of the larger unit
		if err != nil || !fromFirst || !inEach || (f.last+1)%step == 0 {
			continue
		}
		values, err := f.normalize("0/" + stepText)
		if err != nil {
			continue
		}
		return Warning{
			fmt.Sprintf("fires at %s %s of each %s, not every %d %ss", f.name, strings.ReplaceAll(values, ",", ", "), larger, step, f.name),
			fmt.Sprintf("for equal intervals, write @every %d%c", step, f.name[0]),
		}, true
	}
	return w, false
}

// with returns the expression with another word.
func (e expression) with(i int, word string) string {
	words := slices.Clone(e.words)
	words[i] = word
	return strings.TrimSpace(e.prefix + " " + strings.Join(words, " "))
}

// renameDays replaces the numbers of days of the week by names. number returns the number of a
// day here. ok is false without a number, and with 0, which Quartz does not have.
func renameDays(word string, number func(int) int) (renamed string, ok bool) {
	names := strings.Fields(fields[len(fields)-1].names)
	items := strings.Split(word, ",")
	for i, item := range items {
		span, step, hasStep := strings.Cut(item, "/")
		days := strings.Split(span, "-")
		for j, day := range days {
			n, err := strconv.Atoi(day)
			switch {
			case err != nil:
				continue
			case n == 0:
				return "", false
			}
			days[j], ok = names[number(n)], true
		}
		items[i] = strings.Join(days, "-")
		if hasStep {
			items[i] += "/" + step
		}
	}
	return strings.Join(items, ","), ok
}

// sameDays reports whether two texts with names of days mean the same days.
func sameDays(a, b string) bool { return slices.Equal(daysOf(a), daysOf(b)) }

// daysOf returns the numbers of the days of a text, in order.
func daysOf(word string) (days []string) {
	for item := range strings.SplitSeq(word, ",") {
		if numbers, err := fields[len(fields)-1].normalize(item); err == nil {
			days = append(days, strings.Split(numbers, ",")...)
		}
	}
	slices.Sort(days)
	return slices.Compact(days)
}
