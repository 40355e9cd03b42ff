package status

import (
	"fmt"
	"math"
	"slices"

	"adconnector/internal/state"
)

// chart shows the last runs as bars, the oldest first. Heights are logarithmic, because runs
// differ by a factor of a million.
type chart struct {
	Bars []bar
	Grid []gridLine
}

// bar is one run. The units are those of chartWidth and chartHeight.
type bar struct {
	X, Width          float64
	Changed, Uploaded float64 // heights
	Failed            bool
	Title             string
}

// gridLine is a horizontal line with a label.
type gridLine struct {
	Y     float64
	Label string
}

const (
	chartWidth  = 800.0
	chartHeight = 120.0
	chartRuns   = 200
)

func newChart(runs []state.Run) chart {
	shown := slices.Clone(runs[:min(len(runs), chartRuns)])
	slices.Reverse(shown)
	maximum := 9
	for _, run := range shown {
		maximum = max(maximum, run.Changed, run.Uploaded)
	}
	top := math.Ceil(math.Log10(float64(maximum + 1)))
	height := func(n int) float64 { return math.Round(10*chartHeight*math.Log10(float64(n+1))/top) / 10 }
	var c chart
	step := chartWidth / float64(max(len(shown), 40)) // a few runs must not result in wide bars
	for i, run := range shown {
		c.Bars = append(c.Bars, bar{
			X: math.Round(10*float64(i)*step) / 10, Width: math.Round(10*max(step-1, 1)) / 10,
			Changed: height(run.Changed), Uploaded: height(run.Uploaded), Failed: outcome(run) == "failed",
			Title: fmt.Sprintf("%s %s: %d changed, %d uploaded, %s", run.Start.UTC().Format("2006-01-02 15:04 UTC"), run.Mode, run.Changed, run.Uploaded, outcome(run)),
		})
	}
	for power := 1.0; power <= top; power++ {
		c.Grid = append(c.Grid, gridLine{height(int(math.Pow(10, power)) - 1), groupDigits(int(math.Pow(10, power)))})
	}
	return c
}

// FromTop converts a height to the distance from the top, which SVG requires.
func (chart) FromTop(height float64) float64 { return math.Round(10*(chartHeight-height)) / 10 }
