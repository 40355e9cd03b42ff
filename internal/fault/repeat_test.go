package fault

import (
	"errors"
	"testing"
	"time"
)

func TestRepeats(t *testing.T) {
	t.Parallel()
	const refused = "bind as CN=x to [::1]:389: refused: wrong password: correct ldap.password"
	const brief = "bind as CN=x to [::1]:389 (as before)"
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var r Repeats
	for n, step := range []struct {
		after time.Duration
		error string // "": all is well
		text  string
		times int
		since time.Duration
	}{
		{0, refused, refused, 1, 0},
		{10 * time.Minute, refused, brief, 2, 0},
		{20 * time.Minute, refused, brief, 3, 0},
		{30 * time.Minute, "bind as CN=x to [::1]:389: refused: the account is locked: unlock it", "bind as CN=x to [::1]:389: refused: the account is locked: unlock it", 1, 30 * time.Minute},
		{40 * time.Minute, refused, refused, 1, 40 * time.Minute},
		{50 * time.Minute, "", "", 0, 0},
		{60 * time.Minute, refused, refused, 1, 60 * time.Minute},
		{24*time.Hour + 50*time.Minute, refused, brief, 2, 60 * time.Minute},
		{25 * time.Hour, refused, refused, 3, 60 * time.Minute}, // a day after it was said in full
		{25*time.Hour + 10*time.Minute, refused, brief, 4, 60 * time.Minute},

		{30 * time.Hour, "read tcp 10.0.0.1:40001->10.0.0.2:389: reset", "read tcp 10.0.0.1:40001->10.0.0.2:389: reset", 1, 30 * time.Hour},
		{31 * time.Hour, "read tcp 10.0.0.1:51234->10.0.0.2:389: reset", "read tcp 10.0.0.1:51234->10.0.0.2:389 (as before)", 2, 30 * time.Hour},
		{32 * time.Hour, "send 500 assets: no answer within 1.5s, until 2026-11-22T10:00:00Z", "send 500 assets: no answer within 1.5s, until 2026-11-22T10:00:00Z", 1, 32 * time.Hour},
		{33 * time.Hour, "send 7 assets: no answer within 2s, until 2026-11-22T11:00:00Z", "send 7 assets (as before)", 2, 32 * time.Hour},
		{34 * time.Hour, "send 7 assets: the gateway answers 503", "send 7 assets: the gateway answers 503", 1, 34 * time.Hour},
		{35 * time.Hour, "send 7 assets: the gateway answers 500", "send 7 assets: the gateway answers 500", 1, 35 * time.Hour},

		// What was being done is told, whatever the batch.
		{36 * time.Hour, "upload: batch 0: send 355 assets: the gateway answers 503: try later", "upload: batch 0: send 355 assets: the gateway answers 503: try later", 1, 36 * time.Hour},
		{37 * time.Hour, "upload: batch 17: send 2 assets: the gateway answers 503: try later", "upload: batch 17: send 2 assets (as before)", 2, 36 * time.Hour},
		{38 * time.Hour, "upload: EOF", "upload: EOF", 1, 38 * time.Hour},
		{39 * time.Hour, "upload: EOF", "upload: EOF (as before)", 2, 38 * time.Hour},
	} {
		if step.error == "" {
			r.Gone()
			continue
		}
		got := r.Note(errors.New(step.error), start.Add(step.after))
		if got != (Repetition{step.text, step.times, start.Add(step.since)}) {
			t.Errorf("step %d: %+v", n, got)
		}
	}
}
