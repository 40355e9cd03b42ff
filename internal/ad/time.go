package ad

import (
	"math"
	"strconv"
	"time"
)

// FileTime is a number of 100 ns intervals since 1601-01-01 UTC (MS-DTYP 2.3.3).
type FileTime int64

const (
	fileTimeNever   = math.MaxInt64
	fileTimePerMS   = 10_000
	fileTimeEpochMS = -11_644_473_600_000 // 1601-01-01 in Unix milliseconds
	maxYear         = 9999                // of RFC 3339
)

// ParseFileTime parses a decimal file time.
func ParseFileTime(value []byte) (FileTime, bool) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	t := FileTime(n)
	if err != nil || n < 0 || !t.IsNone() && t.Time().Year() > maxYear {
		return 0, false
	}
	return t, true
}

// IsNone reports whether t is no time: 0 and the maximum both mean none or never.
func (t FileTime) IsNone() bool { return t == 0 || t == fileTimeNever }

// Time returns the time in UTC, truncated to milliseconds. The result is invalid if IsNone.
func (t FileTime) Time() time.Time {
	return time.UnixMilli(int64(t)/fileTimePerMS + fileTimeEpochMS).UTC()
}

// ParseGeneralizedTime parses a GeneralizedTime (RFC 4517 3.3.13), such as 20261122072306.0Z.
// Minutes, seconds and the fraction are optional. The zone can be an offset.
func ParseGeneralizedTime(value []byte) (time.Time, bool) {
	var fields [6]int
	widths := [...]int{4, 2, 2, 2, 2, 2}
	rest := value
	count := 0
	for ; count < len(widths) && len(rest) > 0 && isDigit(rest[0]); count++ {
		n, ok := parseDigits(rest, widths[count])
		if !ok {
			return time.Time{}, false
		}
		fields[count], rest = n, rest[widths[count]:]
	}
	if count < 4 { // minute and second are optional
		return time.Time{}, false
	}
	unit := [...]time.Duration{4: time.Hour, 5: time.Minute, 6: time.Second}[count]
	fraction, rest, ok := parseFraction(rest, unit)
	if !ok {
		return time.Time{}, false
	}
	offset, ok := parseZone(rest)
	if !ok {
		return time.Time{}, false
	}
	year, month, day, hour, minute, second := fields[0], fields[1], fields[2], fields[3], fields[4], fields[5]
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Month() != time.Month(month) || t.Day() != day || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t = t.Add(fraction - offset)
	if t.Year() < 0 || t.Year() > maxYear {
		return time.Time{}, false
	}
	return t, true
}

// parseFraction parses an optional fraction of unit, after a point or comma.
func parseFraction(text []byte, unit time.Duration) (time.Duration, []byte, bool) {
	if len(text) == 0 || text[0] != '.' && text[0] != ',' {
		return 0, text, true
	}
	text = text[1:]
	var sum time.Duration
	n := 0
	for ; n < len(text) && isDigit(text[n]); n++ {
		unit /= 10
		sum += time.Duration(text[n]-'0') * unit
	}
	return sum, text[n:], n > 0
}

// parseZone parses Z, +hh, -hh, +hhmm or -hhmm.
func parseZone(text []byte) (time.Duration, bool) {
	if len(text) == 1 && text[0] == 'Z' {
		return 0, true
	}
	if len(text) != 3 && len(text) != 5 || text[0] != '+' && text[0] != '-' {
		return 0, false
	}
	hours, ok := parseDigits(text[1:], 2)
	minutes, ok2 := 0, true
	if len(text) == 5 {
		minutes, ok2 = parseDigits(text[3:], 2)
	}
	if !ok || !ok2 || hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if text[0] == '-' {
		offset = -offset
	}
	return offset, true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func parseDigits(text []byte, width int) (int, bool) {
	if len(text) < width {
		return 0, false
	}
	n := 0
	for _, c := range text[:width] {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
