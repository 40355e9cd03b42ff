package ad

import (
	"bytes"
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
	secondsPerDay   = 24 * 60 * 60
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

// After reports whether t is later than other by at least the precision of Time.
func (t FileTime) After(other FileTime) bool { return t/fileTimePerMS > other/fileTimePerMS }

// NewFileTime returns the file time of t.
func NewFileTime(t time.Time) FileTime {
	return FileTime((t.UnixMilli() - fileTimeEpochMS) * fileTimePerMS)
}

// Time returns the time in UTC, truncated to milliseconds. The result is invalid if IsNone.
func (t FileTime) Time() time.Time {
	return time.UnixMilli(int64(t)/fileTimePerMS + fileTimeEpochMS).UTC()
}

// ParseGeneralizedTime parses a GeneralizedTime (RFC 4517 3.3.13), such as 20261122072306.0Z.
// Minutes, seconds and the fraction are optional. The zone can be an offset.
func ParseGeneralizedTime(value []byte) (time.Time, bool) {
	layout, unit := "20060102150405", time.Second
	zoneLayout := "Z0700"
	digits := len(value) - len(bytes.TrimLeft(value, "0123456789"))
	switch digits {
	case 12:
		layout, unit = layout[:12], time.Minute
	case 10:
		layout, unit = layout[:10], time.Hour
	}
	fraction, zone, ok := parseFraction(value[digits:], unit)
	if len(zone) == len("+hh") {
		zoneLayout = "Z07"
	}
	local, err := time.Parse(layout, string(value[:digits]))
	inZone, zoneErr := time.Parse(zoneLayout, string(zone))
	if !ok || err != nil || zoneErr != nil {
		return time.Time{}, false
	}
	_, offset := inZone.Zone()
	t := local.Add(fraction - time.Duration(offset)*time.Second)
	if offset <= -secondsPerDay || offset >= secondsPerDay || t.Year() < 0 || t.Year() > maxYear {
		return time.Time{}, false
	}
	return t, true
}

// parseFraction parses an optional fraction of unit, after a point or comma. It returns the
// rest of text.
func parseFraction(text []byte, unit time.Duration) (time.Duration, []byte, bool) {
	if len(text) == 0 || text[0] != '.' && text[0] != ',' {
		return 0, text, true
	}
	var sum time.Duration
	rest := text[1:]
	for len(rest) > 0 && '0' <= rest[0] && rest[0] <= '9' {
		unit /= 10
		sum += time.Duration(rest[0]-'0') * unit
		rest = rest[1:]
	}
	return sum, rest, len(rest) < len(text)-1
}
