package fault

import (
	"regexp"
	"strings"
	"time"
)

// Repeats tells news from what has been said before, for a log that is written at
// every tick: an error is said in full when it is new, when it has changed, when it
// is back after it had gone, and once a day. It serves one goroutine.
type Repeats struct {
	last        string // in the form that is compared
	times       int
	first, full time.Time
}

// Repetition is how to say an error.
type Repetition struct {
	Text  string // in full, or as briefly as it can be told from others
	Times int    // that it has come in a row, this one included
	Since time.Time
}

// fullAgain is after how long a reader of the log's end must be told again.
const fullAgain = 24 * time.Hour

// Note takes an error as it occurs.
func (r *Repeats) Note(err error, now time.Time) Repetition {
	text := err.Error()
	if form := passing.ReplaceAllString(text, "#"); form != r.last {
		*r = Repeats{last: form, first: now}
	}
	r.times++
	if r.times == 1 || now.Sub(r.full) >= fullAgain {
		r.full = now
	} else {
		text = brief(text)
	}
	return Repetition{text, r.times, r.first}
}

// Gone forgets the error: all is well.
func (r *Repeats) Gone() { *r = Repeats{} }

// passing is what differs from time to time in errors that are the same: moments,
// spans, identifiers, the port that a connection happened to have, the number and the
// size of a batch.
var passing = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z?|\b\d+(\.\d+)?(ms|s|m|h)\b|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|:\d+->|\bbatch \d+|\b\d+ assets\b`)

// part names where in the program something was tried, in one word or as a batch: what
// was tried stands behind it.
var part = regexp.MustCompile(`^(?:\w+|batch \d+): `)

// brief is what was tried, without what came of it and what to do.
func brief(text string) string {
	tried := text
	for part.MatchString(tried) {
		_, tried, _ = strings.Cut(tried, ": ")
	}
	parts := strings.TrimSuffix(text, tried)
	tried, _, _ = strings.Cut(tried, ": ")
	return parts + tried + " (as before)"
}
