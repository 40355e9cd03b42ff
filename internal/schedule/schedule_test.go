package schedule

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

func parseTime(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.UTC()
}

// TestNext checks the ticks of expressions. 2026-11-22 is a Sunday.
func TestNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, expr, after string
		want              []string
	}{
		{"five fields", "*/10 * * * *", "2026-11-22T10:00:00Z", []string{"2026-11-22T10:10:00Z", "2026-11-22T10:20:00Z"}},
		{"six fields", "0 0/10 * * * *", "2026-11-22T10:55:01Z", []string{"2026-11-22T11:00:00Z", "2026-11-22T11:10:00Z"}},
		{"seconds", "*/20 * * * * *", "2026-11-22T10:00:00Z", []string{"2026-11-22T10:00:20Z", "2026-11-22T10:00:40Z"}},
		{"question mark", "0 0 12 ? * ?", "2026-11-22T13:00:00Z", []string{"2026-11-23T12:00:00Z"}},
		{"names in any case", "0 6 * Jan mon-FRI", "2026-11-22T13:00:00Z", []string{"2027-01-01T06:00:00Z", "2027-01-04T06:00:00Z"}},
		{"7 is Sunday", "0 6 * * 7", "2026-11-22T13:00:00Z", []string{"2026-11-29T06:00:00Z", "2026-12-06T06:00:00Z"}},
		{"07 is Sunday", "0 6 * * 07", "2026-11-22T13:00:00Z", []string{"2026-11-29T06:00:00Z"}},
		{"7 in a list", "0 6 * * 1,7", "2026-11-22T13:00:00Z", []string{"2026-11-23T06:00:00Z", "2026-11-29T06:00:00Z"}},
		{"7 ends a range", "0 6 * * 5-7", "2026-11-22T13:00:00Z", []string{"2026-11-27T06:00:00Z", "2026-11-28T06:00:00Z", "2026-11-29T06:00:00Z", "2026-12-04T06:00:00Z"}},
		{"7 begins a range", "0 6 * * 7-1", "2026-11-22T13:00:00Z", []string{"2026-11-23T06:00:00Z", "2026-11-29T06:00:00Z"}},
		{"7 to 7", "0 6 * * 7-7", "2026-11-22T13:00:00Z", []string{"2026-11-29T06:00:00Z", "2026-12-06T06:00:00Z"}},
		{"0 to 7 is every day", "0 6 * * 0-7", "2026-11-22T13:00:00Z", []string{"2026-11-23T06:00:00Z", "2026-11-24T06:00:00Z"}},
		{"7 in a stepped range", "0 6 * * 1-7/3", "2026-11-22T13:00:00Z", []string{"2026-11-23T06:00:00Z", "2026-11-26T06:00:00Z", "2026-11-29T06:00:00Z", "2026-11-30T06:00:00Z"}},
		{"7 with a step", "0 6 * * 7/3", "2026-11-22T13:00:00Z", []string{"2026-11-25T06:00:00Z", "2026-11-28T06:00:00Z", "2026-11-29T06:00:00Z"}},
		{"SUN ends a range", "0 6 * * FRI-SUN", "2026-11-22T13:00:00Z", []string{"2026-11-27T06:00:00Z", "2026-11-28T06:00:00Z", "2026-11-29T06:00:00Z"}},
		{"day of month or of week", "0 6 24 * SUN", "2026-11-22T13:00:00Z", []string{"2026-11-24T06:00:00Z", "2026-11-29T06:00:00Z"}},
		{"leap day", "0 0 29 2 *", "2026-11-22T13:00:00Z", []string{"2028-02-29T00:00:00Z"}},
		{"hourly", "@hourly", "2026-11-22T13:00:00Z", []string{"2026-11-22T14:00:00Z"}},
		{"descriptor in mixed case with a zone", "CRON_TZ=Asia/Tokyo @Daily", "2026-11-22T13:00:00Z", []string{"2026-11-22T15:00:00Z"}},
		{"every", "@every  10m", "2026-11-22T13:00:07Z", []string{"2026-11-22T13:10:07Z"}},
		{"CRON_TZ", "CRON_TZ=America/New_York 0 6 * * *", "2026-11-22T00:00:00Z", []string{"2026-11-22T11:00:00Z"}},
		{"TZ", "TZ=Europe/Berlin 0 6 * * *", "2026-11-22T00:00:00Z", []string{"2026-11-22T05:00:00Z"}},
		{"surrounding white space", "  */10  *\t* * *  ", "2026-11-22T10:00:00Z", []string{"2026-11-22T10:10:00Z"}},

		// Clocks in New York change on 2026-03-08 from 02:00 to 03:00 and on 2026-11-01
		// from 02:00 to 01:00.
		{"tick in the skipped hour fires at its end", "CRON_TZ=America/New_York 30 2 * * *", "2026-03-07T00:00:00Z", []string{"2026-03-07T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"}},
		{"weekly tick in the skipped hour", "CRON_TZ=America/New_York 30 2 * * SUN", "2026-02-28T00:00:00Z", []string{"2026-03-01T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-15T06:30:00Z"}},
		{"several ticks in the skipped hour", "CRON_TZ=America/New_York */20 1-3 * * *", "2026-03-08T06:30:00Z", []string{"2026-03-08T06:40:00Z", "2026-03-08T07:00:00Z", "2026-03-08T07:20:00Z"}},
		{"tick in the repeated hour fires once", "CRON_TZ=America/New_York 30 1 * * *", "2026-10-31T12:00:00Z", []string{"2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"}},
		{"several ticks in the repeated hour", "CRON_TZ=America/New_York */30 0-2 * * *", "2026-11-01T05:00:00Z", []string{"2026-11-01T05:30:00Z", "2026-11-01T07:00:00Z", "2026-11-01T07:30:00Z"}},
		{"after the first pass of the repeated hour", "CRON_TZ=America/New_York 30 1 * * *", "2026-11-01T06:10:00Z", []string{"2026-11-02T06:30:00Z"}},
		{"every ten minutes across the skipped hour", "CRON_TZ=America/New_York */10 * * * *", "2026-03-08T06:50:00Z", []string{"2026-03-08T07:00:00Z", "2026-03-08T07:10:00Z"}},
		{"every ten minutes across the repeated hour", "CRON_TZ=America/New_York */10 * * * *", "2026-11-01T05:40:00Z", []string{"2026-11-01T05:50:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:10:00Z"}},
		{"hourly across the skipped hour", "CRON_TZ=America/New_York 30 * * * *", "2026-03-08T06:00:00Z", []string{"2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z"}},
		{"midnight is skipped", "CRON_TZ=Africa/Cairo @daily", "2026-04-22T12:00:00Z", []string{"2026-04-22T22:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"}},
		{"a change of half an hour, skipped", "CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03T00:00:00Z", []string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"a change of half an hour, repeated", "CRON_TZ=Australia/Lord_Howe 45 1 * * *", "2026-04-04T12:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		{"every 20 minutes across a change of half an hour", "CRON_TZ=Australia/Lord_Howe */20 * * * *", "2026-04-04T14:35:00Z", []string{"2026-04-04T14:40:00Z", "2026-04-04T15:10:00Z", "2026-04-04T15:30:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Parse(c.expr)
			if err != nil {
				t.Fatal(err)
			}
			if s.Expression != strings.TrimSpace(c.expr) {
				t.Errorf("expression %q", s.Expression)
			}
			next := parseTime(t, c.after)
			for _, want := range c.want {
				next = s.Next(next)
				if !next.Equal(parseTime(t, want)) || next.Location() != time.UTC {
					t.Fatalf("got %v, want %v", next, want)
				}
			}
		})
	}
}

// TestOneTickADay checks that a daily expression fires once for each day on the wall clock, and an
// hourly one once for each hour that passes, in zones that change the clock in different ways.
func TestOneTickADay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, from string }{
		{"Europe/Berlin", "2026-01-01T00:00:00Z"}, {"America/Sao_Paulo", "2018-01-01T00:00:00Z"}, {"Africa/Cairo", "2026-01-01T00:00:00Z"},
		{"Australia/Lord_Howe", "2026-01-01T00:00:00Z"}, {"Africa/Casablanca", "2026-01-01T00:00:00Z"}, {"Asia/Kolkata", "2026-01-01T00:00:00Z"},
	} {
		t.Run(c.zone, func(t *testing.T) {
			t.Parallel()
			zone, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			start := parseTime(t, c.from)
			for minute := 0; minute < 24*60; minute += 15 {
				daily, err := Parse(fmt.Sprintf("CRON_TZ=%s %d %d * * *", c.zone, minute%60, minute/60))
				if err != nil {
					t.Fatal(err)
				}
				tick := daily.Next(start)
				for range 365 {
					next := daily.Next(tick)
					if got, want := next.In(zone).Format(time.DateOnly), wallClock(tick, zone).AddDate(0, 0, 1).Format(time.DateOnly); got != want {
						t.Fatalf("%s: %v follows %v", daily.Expression, next.In(zone), tick.In(zone))
					}
					tick = next
				}
			}
			hourly, err := Parse("CRON_TZ=" + c.zone + " 30 * * * *")
			if err != nil {
				t.Fatal(err)
			}
			tick := hourly.Next(start)
			for range 365 * 24 {
				next := hourly.Next(tick)
				if distance := next.Sub(tick); distance != time.Hour && (c.zone != "Australia/Lord_Howe" || distance%(30*time.Minute) != 0) {
					t.Fatalf("%s after %s", distance, tick)
				}
				tick = next
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expr           string
		reason, remedy string // parts; "": no warning
	}{
		{"* 0/10 * * * *", "every second of the minutes 0/10", "write 0 0/10 * * * *"},
		{"* * * * * *", "fires every second: the first of six fields is the second", "0 * * * * *"},
		{"*/2 * * * * *", "fires every 2s: the first", "0 * * * * *"},
		{"CRON_TZ=Europe/Berlin ? 30 6 * * *", "every second of the minutes 30", "CRON_TZ=Europe/Berlin 0 30 6 * * *"},
		{"0,1 0 6 * * *", "fires every second of the minutes 0", "0 0 6 * * *"},
		{"@every 1s", "fires every 1s", "@every 10m"},
		{"*/5 * * * * *", "", ""},
		{"4/5 * * * * *", "", ""},
		{"0 0/10 * * * *", "", ""},
		{"*/10 * * * *", "", ""},
		{"@every 10m", "", ""},
		{"0 0 29 2 *", "", ""},
		{"0 0 6 ? * 2", "2 means TUE, but MON in Quartz", "0 0 6 ? * TUE, or 0 0 6 ? * MON if"},
		{"0 0 6 ? * 2-6", "2-6 means TUE-SAT, but MON-FRI in Quartz", "0 0 6 ? * MON-FRI if"},
		{"0 0 6 ? * 1,7", "1,7 means MON,SUN, but SUN,SAT in Quartz", "0 0 6 ? * SUN,SAT if"},
		{"0 0 6 ? * 1/2", "1/2 means MON/2, but SUN/2 in Quartz", "SUN/2 if"},
		{"0 6 ? * 7", "7 means SUN, but SAT in Quartz", "0 6 ? * SAT if"},
		{"CRON_TZ=Asia/Tokyo 0 0 6 ? * 2", "TUE, but MON", "CRON_TZ=Asia/Tokyo 0 0 6 ? * MON if"},
		{"0 0 6 ? * 1-7", "", ""},
		{"0 0 6 ? * MON-FRI", "", ""},
		{"0 0 6 ? * 0", "", ""},
		{"0 0 12 1 * ?", "", ""},
		{"0 0 6 * * 2", "", ""},
		{"0 6 * * 1-5", "", ""},
		{"*/45 * * * *", "fires at minute 0, 45 of each hour, not every 45 minutes", "write @every 45m"},
		{"*/90 * * * *", "fires at minute 0 of each hour, not every 90 minutes", "write @every 90m"},
		{"0/59 * * * *", "fires at minute 0, 59 of each hour", "write @every 59m"},
		{"0 0 */36 * * *", "fires at hour 0 of each day, not every 36 hours", "write @every 36h"},
		{"0 */9 * * ?", "fires at hour 0, 9, 18 of each day", "write @every 9h"},
		{"*/25 * * * * *", "fires at second 0, 25, 50 of each minute", "write @every 25s"},
		{"*/45 3 * * *", "", ""},
		{"10-50/15 * * * *", "", ""},
		{"5/45 * * * *", "", ""},
		{"0 */12 * * *", "", ""},
		{"0 0 */2 * *", "", ""},
	} {
		t.Run(c.expr, func(t *testing.T) {
			s, err := Parse(c.expr)
			if err != nil {
				t.Fatal(err)
			}
			if c.reason == "" {
				if len(s.Warnings) != 0 {
					t.Errorf("warnings %q", s.Warnings)
				}
				return
			}
			if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0].Reason, c.reason) || !strings.Contains(s.Warnings[0].Remedy, c.remedy) {
				t.Fatalf("warnings %q", s.Warnings)
			}
		})
	}
}

func TestNextIsUTC(t *testing.T) {
	t.Parallel()
	s, err := Parse("0 6 * * *")
	if err != nil {
		t.Fatal(err)
	}
	after := time.Date(2026, 11, 22, 2, 0, 0, 0, time.FixedZone("local", 5*3600)) // 21:00 UTC the day before
	if got, want := s.Next(after), parseTime(t, "2026-11-22T06:00:00Z"); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, expr string
		cause      error
		field      string // the invalid field; "": none
	}{
		{"empty", "", errEmpty, ""},
		{"zone only", "TZ=UTC", errEmpty, ""},
		{"zone without a name", "CRON_TZ= * * * * *", errZone, ""},
		{"local zone", "TZ=Local * * * * *", errZone, ""},
		{"unknown zone", "CRON_TZ=Mars/Olympus * * * * *", errUnknownZone, ""},
		{"two zones", "TZ=UTC TZ=UTC", errFieldCount, ""},
		{"four fields", "* * * *", errFieldCount, ""},
		{"seven fields", "0 0 12 * * ? 2026", errFieldCount, ""},
		{"field for the year", "0 0 12 * * ? 2026", errYear, ""},
		{"eight fields", "0 0 12 * * ? 2026 *", errFieldCount, ""},
		{"quoted", `"*/10 * * * *"`, errValue, `minute "\"*/10"`},
		{"minute 60", "60 * * * *", errValue, `minute "60"`},
		{"hour 24", "0 24 * * *", errValue, `hour "24"`},
		{"day 0", "0 0 0 * *", errValue, `day of month "0"`},
		{"month 13", "0 0 1 13 *", errValue, `month "13"`},
		{"weekday 8", "0 0 * * 8", errValue, `day of week "8"`},
		{"name in the wrong field", "0 0 MON * *", errValue, `day of month "MON"`},
		{"last day", "0 0 L * *", errForm, `day of month "L"`},
		{"nearest weekday", "0 0 15W * *", errForm, `day of month "15W"`},
		{"second Friday", "0 0 * * 5#2", errForm, `day of week "5#2"`},
		{"last Friday", "0 0 * * 5L", errForm, `day of week "5L"`},
		{"backward range", "30-10 * * * *", errBackward, `minute "30-10"`},
		{"star with a range", "*-5 * * * *", errValue, `minute "*-5"`},
		{"range of three values", "1-2-3 * * * *", errValue, `minute "1-2-3"`},
		{"empty item", "1,,2 * * * *", errValue, `minute "1,,2"`},
		{"step 0", "*/0 * * * *", errStep, `minute "*/0"`},
		{"two steps", "*/2/2 * * * *", errStep, `minute "*/2/2"`},
		{"negative", "-5 * * * *", errValue, `minute "-5"`},
		{"30 February", "0 0 30 2 *", errNever, ""},
		{"day 31 of short months", "0 0 31 4,6,9,11 *", errNever, ""},
		{"unknown descriptor", "@reboot", errDescriptor, ""},
		{"descriptor with fields", "@hourly * *", errDescriptor, ""},
		{"every without an interval", "@every", errDescriptor, ""},
		{"every without a unit", "@every 10", errInterval, ""},
		{"negative interval", "@every -10m", errInterval, ""},
		{"every half second", "@every 500ms", errInterval, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Parse(c.expr)
			if err == nil {
				t.Fatalf("no error, next tick %v", s.Next(parseTime(t, "2026-11-22T10:00:00Z")))
			}
			faulttest.Check(t, err, fault.Error{Class: fault.Invalid}, c.cause, allowed)
			var inField *fault.Error
			field := ""
			if errors.As(errors.Unwrap(err), &inField) {
				field = inField.Object
			}
			if field != c.field {
				t.Errorf("field %q, want %q", field, c.field)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, expr := range []string{
		"*/10 * * * *", "0 0/10 * * * *", "TZ=UTC", "CRON_TZ=Europe/Berlin 0 6 * * 5-7", "@every 10m", "@hourly",
		"0 0 30 2 *", "0 0 L * *", "? ? ? ? ?", "0 6 * JAN-MAR,dec mon-sun/2", "TZ= @daily", "*/99999999999999999999 * * * *",
	} {
		f.Add(expr)
	}
	from := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := Parse(expr)
		if err != nil {
			return
		}
		last := from
		for range 3 {
			next := s.Next(last)
			if !next.After(last) {
				t.Fatalf("%q: tick %v is not after %v", expr, next, last)
			}
			last = next
		}
	})
}
