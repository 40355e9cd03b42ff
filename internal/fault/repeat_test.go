package fault

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestRepeats(t *testing.T) {
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	send := func(object, cause string) error {
		return Operation{"send assets", object}.Failed(Transient, errors.New(cause), "")
	}
	var r RepeatCounter
	for n, step := range []struct {
		err   error // nil: success
		times int
		since int // the step of the first occurrence
	}{
		0:  {send("gw", "503"), 1, 0},
		1:  {send("gw", "503"), 2, 0},
		2:  {send("gw", "no answer within 1.5s"), 3, 0}, // different cause
		3:  {fmt.Errorf("upload: %w", send("gw", "503")), 4, 0},
		4:  {send("other", "503"), 1, 4},
		5:  {send("gw", "503"), 1, 5},
		6:  {nil, 0, 0},
		7:  {send("gw", "503"), 1, 7},
		8:  {Operation{"send assets", "gw"}.Failed(Refused, errors.New("403"), ""), 1, 8},
		9:  {errors.New("x"), 1, 9},
		10: {errors.New("x"), 2, 9},
		11: {errors.New("y"), 1, 11},
	} {
		at := start.Add(time.Duration(n) * time.Minute)
		if step.err == nil {
			r.Reset()
			continue
		}
		want := Repetition{step.times, start.Add(time.Duration(step.since) * time.Minute)}
		if got := r.Count(step.err, at); got != want {
			t.Errorf("step %d: %+v, want %+v", n, got, want)
		}
	}
}

func TestFields(t *testing.T) {
	var text bytes.Buffer
	log := zerolog.New(&text)
	err := Operation{"bind", "dc1"}.Failed(Refused, errors.New("wrong password"), "correct ldap.password")
	log.Error().EmbedObject(Fields(err)).EmbedObject(Repetition{Times: 1}).Msg("m")
	log.Error().EmbedObject(Fields(errors.New("x"))).EmbedObject(Repetition{2, time.Unix(0, 0).UTC()}).Msg("m")
	want := `{"level":"error","error":"bind dc1: wrong password","remedy":"correct ldap.password","message":"m"}
{"level":"error","error":"x","repeated":2,"failing_since":"1970-01-01T00:00:00Z","message":"m"}`
	if got := strings.TrimSpace(text.String()); got != want {
		t.Errorf("lines %s", got)
	}
}
