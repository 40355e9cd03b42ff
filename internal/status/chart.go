package status

import (
	"fmt"
	"math"
	"slices"

	"adconnector/internal/state"
)

// chart is the last runs as bars, the oldest first. Runs differ by a factor of a
// million, so the heights are logarithmic.
type chart struct {
	Bars []bar
	Grid []gridLine
}

// bar is one run. Lengths are in the chart's own units: chartWidth by chartHeight.
type bar struct {
	X, Width          float64
	Changed, Uploaded float64 // heights
	Failed            bool
	Title             string
}

// gridLine is a height with a name.
type gridLine struct {
	Y     float64
	Label string
}

const (
	chartWidth  = 800.0
	chartHeight = 120.0
	chartRuns   = 200
)

func chartOf(runs []state.Run) chart {
	shown := slices.Clone(runs[:min(len(runs), chartRuns)])
	slices.Reverse(shown)
	most := 9
	for _, run := range shown {
		most = max(most, run.Changed, run.Uploaded)
	}
	top := math.Ceil(math.Log10(float64(most + 1)))
	height := func(n int) float64 { return math.Round(10*chartHeight*math.Log10(float64(n+1))/top) / 10 }
	var c chart
	step := chartWidth / float64(max(len(shown), 40)) // a few runs are no reason for walls
	for i, run := range shown {
		c.Bars = append(c.Bars, bar{
			X: math.Round(10*float64(i)*step) / 10, Width: math.Round(10*max(step-1, 1)) / 10,
			Changed: height(run.Changed), Uploaded: height(run.Uploaded), Failed: outcome(run) == "failed",
			Title: fmt.Sprintf("%s %s: %d changed, %d uploaded, %s", run.Start.UTC().Format("2006-01-02 15:04 UTC"), run.Mode, run.Changed, run.Uploaded, outcome(run)),
		})
	}
	for power := 1.0; power <= top; power++ {
		c.Grid = append(c.Grid, gridLine{height(int(math.Pow(10, power)) - 1), number(int(math.Pow(10, power)))})
	}
	return c
}

// Down turns a height into the distance from the top, as SVG wants it.
func (chart) Down(height float64) float64 { return math.Round(10*(chartHeight-height)) / 10 }
