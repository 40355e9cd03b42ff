package ad

import (
	"math"
	"strconv"
	"time"
)

// FileTime counts intervals of 100 ns since 1601-01-01 UTC (MS-DTYP 2.3.3).
type FileTime int64

const (
	fileTimeNever   = math.MaxInt64
	fileTimePerMS   = 10_000
	fileTimeEpochMS = -11_644_473_600_000 // 1601-01-01 in Unix milliseconds
	maxYear         = 9999                // the last that RFC 3339 can write
)

// ParseFileTime reads a decimal file time.
func ParseFileTime(value []byte) (FileTime, bool) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	t := FileTime(n)
	if err != nil || n < 0 || !t.IsNone() && t.Time().Year() > maxYear {
		return 0, false
	}
	return t, true
}

// IsNone reports whether t stands for no moment at all: 0 and the largest value
// both mean none or never.
func (t FileTime) IsNone() bool { return t == 0 || t == fileTimeNever }

// Time returns the moment, cut to milliseconds. It means nothing when IsNone.
func (t FileTime) Time() time.Time {
	return time.UnixMilli(int64(t)/fileTimePerMS + fileTimeEpochMS).UTC()
}

// ParseGeneralizedTime reads RFC 4517 3.3.13, the form of whenCreated:
// 20261122072306.0Z. Minutes, seconds and the fraction may be missing; the zone
// may be an offset.
func ParseGeneralizedTime(value []byte) (time.Time, bool) {
	fields := [...]int{4: 0, 5: 0} // hour is required, minute and second are not
	widths := [...]int{4, 2, 2, 2, 2, 2}
	rest := value
	read := 0
	for ; read < len(widths) && len(rest) > 0 && isDigit(rest[0]); read++ {
		n, ok := digits(rest, widths[read])
		if !ok {
			return time.Time{}, false
		}
		fields[read], rest = n, rest[widths[read]:]
	}
	if read < 4 {
		return time.Time{}, false
	}
	unit := [...]time.Duration{4: time.Hour, 5: time.Minute, 6: time.Second}[read]
	fraction, rest, ok := generalizedFraction(rest, unit)
	if !ok {
		return time.Time{}, false
	}
	offset, ok := generalizedZone(rest)
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

// generalizedFraction reads what follows a point or comma as a part of unit.
func generalizedFraction(text []byte, unit time.Duration) (time.Duration, []byte, bool) {
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

// generalizedZone reads Z, +hh, -hh, +hhmm or -hhmm.
func generalizedZone(text []byte) (time.Duration, bool) {
	if len(text) == 1 && text[0] == 'Z' {
		return 0, true
	}
	if len(text) != 3 && len(text) != 5 || text[0] != '+' && text[0] != '-' {
		return 0, false
	}
	hours, ok := digits(text[1:], 2)
	minutes, ok2 := 0, true
	if len(text) == 5 {
		minutes, ok2 = digits(text[3:], 2)
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

func digits(text []byte, width int) (int, bool) {
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
