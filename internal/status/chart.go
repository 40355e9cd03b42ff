package status

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"

	"adconnector/internal/state"
)

// chart shows the last runs as bars, the oldest first. Heights are logarithmic, because runs
// differ by a factor of a million. A failed run has a mark below the axis, because its result is no
// amount.
type chart struct {
	size
	Bars   []bar
	Values []tick // of the value axis
	Times  []tick // of the time axis
}

// size is the size of a chart. The text of a narrow screen is as large as that of a wide one, so
// there are two sizes, of which the style sheet shows one.
type size struct {
	Name  string  // a class of the style sheet
	Width float64 // of the plot
	runs  int
	slots int // minimum number, because a few runs must not result in wide bars
}

var (
	wide   = size{"wide", 780, 100, 40}
	narrow = size{"narrow", 254, 28, 14}
)

// bar is one run. Plot coordinates have their origin at the top left of the plot.
type bar struct {
	X, Width, Center float64
	Changed, Sent    float64 // heights
	Mark             string  // class of the mark: failed, interrupted, held or partial; "": none
	Link             string  // "": none
	Title            string
}

// tick is a label of an axis.
type tick struct {
	At    float64
	Label string
	Date  string // second line; "": none
}

const (
	// plotHeight is the height of the plot.
	plotHeight = 120.0
	// gutter is the space for the labels of the values.
	gutter = 68
	// labelWidth is the minimum distance between labels of the time axis.
	labelWidth = 62.0
)

func newChart(runs []state.Run, s size, zone *time.Location) chart {
	shown := slices.Clone(runs[:min(len(runs), s.runs)])
	slices.Reverse(shown)
	maximum := 9
	for _, run := range shown {
		maximum = max(maximum, run.Changed, run.Uploaded+run.Deleted)
	}
	powers := math.Ceil(math.Log10(float64(maximum)))
	top := math.Log10(math.Pow(10, powers) + 1)
	height := func(n float64) float64 { return round(plotHeight * math.Log10(n+1) / top) }
	c := chart{size: s, Values: []tick{{plotHeight, "0", ""}}}
	for power := 1.0; power <= powers; power++ {
		c.Values = append(c.Values, tick{round(plotHeight - height(math.Pow(10, power))), FormatNumber(int(math.Pow(10, power))), ""})
	}
	slot := s.Width / float64(max(len(shown), s.slots))
	for i, run := range shown {
		x := float64(i) * slot
		b := bar{
			X: round(x), Width: round(max(slot-1.5, 1)), Center: round(x + max(slot-1.5, 1)/2), Changed: height(float64(run.Changed)), Sent: height(float64(run.Uploaded + run.Deleted)),
			Title: fmt.Sprintf("%s %s, %s: %s changed, %s sent", run.Start.In(zone).Format("2006-01-02 15:04"), run.Mode, outcome(run), FormatNumber(run.Changed), FormatNumber(run.Uploaded+run.Deleted)),
			Link:  runPath(run),
		}
		if o := outcome(run); o != "processed" {
			b.Mark = o
		}
		c.Bars = append(c.Bars, b)
	}
	c.addTimes(shown, slot, zone)
	return c
}

// addTimes adds the labels of the time axis. The latest run always has one.
func (c *chart) addTimes(shown []state.Run, slot float64, zone *time.Location) {
	step := int(math.Ceil(labelWidth / slot))
	var labeled []int
	for i := len(shown) - 1; i >= 0; i -= step {
		labeled = append(labeled, i)
	}
	slices.Reverse(labeled)
	date := ""
	for _, i := range labeled {
		start := shown[i].Start.In(zone)
		t := tick{At: c.Bars[i].Center, Label: start.Format("15:04")}
		if day := start.Format("Jan 2"); day != date {
			date, t.Date = day, day
		}
		c.Times = append(c.Times, t)
	}
}

// Top converts a height to the distance from the top, which SVG requires.
func (chart) Top(height float64) float64 { return round(plotHeight - height) }

// Left is the left end of the view box.
func (chart) Left() int { return -gutter }

// ViewBox is the view box of the SVG: the plot with the gutter, a line for
// the description of a run above it, and the marks and the labels of the times below it.
func (c chart) ViewBox() string { return fmt.Sprintf("-%v -26 %v 192", gutter, c.Width+gutter+28) }

func round(n float64) float64 { return math.Round(10*n) / 10 }

// runPath returns the path of a run's page.
func runPath(run state.Run) string {
	if run.ID == "" {
		return ""
	}
	return "/runs/" + url.PathEscape(run.ID)
}
