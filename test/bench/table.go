package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// result has all rounds of one workload with one dataset.
type result struct {
	dataset  dataset
	workload string
	rounds   []measurement
}

func (r result) wall() time.Duration {
	return median(r, func(m measurement) time.Duration { return m.wall })
}

func (r result) cpu() time.Duration {
	return median(r, func(m measurement) time.Duration { return m.cpu })
}

func (r result) requests() int { return median(r, func(m measurement) int { return m.requests }) }

// writeRatio returns the bytes written divided by the size of the state file.
func (r result) writeRatio() float64 {
	return float64(r.written()) / float64(median(r, func(m measurement) int64 { return m.stateFile }))
}

func (r result) written() int64 { return median(r, func(m measurement) int64 { return m.written }) }

// rss and anon return the maximum of all rounds.
func (r result) rss() int64  { return slices.Max(r.each(func(m measurement) int64 { return m.rss })) }
func (r result) anon() int64 { return slices.Max(r.each(func(m measurement) int64 { return m.anon })) }

func (r result) each(figure func(measurement) int64) []int64 {
	list := make([]int64, len(r.rounds))
	for i, m := range r.rounds {
		list[i] = figure(m)
	}
	return list
}

func median[T ~int | ~int64](r result, figure func(measurement) T) T {
	list := r.each(func(m measurement) int64 { return int64(figure(m)) })
	slices.Sort(list)
	half := len(list) / 2
	if len(list)%2 == 0 {
		return T((list[half-1] + list[half]) / 2)
	}
	return T(list[half])
}

// lastWalls formats the wall times of the last round, in the order of the workloads.
func lastWalls(results []result) string {
	walls := make([]string, len(results))
	for i, r := range results {
		walls[i] = seconds(r.rounds[len(r.rounds)-1].wall)
	}
	return strings.Join(walls, ", ")
}

// find returns the result of a workload for a number of users, if it was measured.
func find(results []result, users int, workload string) (result, bool) {
	i := slices.IndexFunc(results, func(r result) bool { return r.dataset.users == users && r.workload == workload })
	if i < 0 {
		return result{}, false
	}
	return results[i], true
}

func printTable(out io.Writer, results []result, rounds int) {
	rows := [][]string{{"users", "groups", "workload", "wall", "min–max", "CPU", "peak RSS", "peak anon", "written", "requests", "× ldapsearch"}}
	for i, r := range results {
		if i > 0 && r.dataset != results[i-1].dataset {
			rows = append(rows, nil)
		}
		walls := r.each(func(m measurement) int64 { return int64(m.wall) })
		requests := "–"
		if r.requests() > 0 {
			requests = withCommas(r.requests())
		}
		base, _ := find(results, r.dataset.users, nameLDAPSearch)
		rows = append(rows, []string{
			withCommas(r.dataset.users), withCommas(r.dataset.groups), r.workload, seconds(r.wall()),
			seconds(time.Duration(slices.Min(walls))) + "–" + seconds(time.Duration(slices.Max(walls))),
			seconds(r.cpu()), mebibytes(r.rss()), mebibytes(r.anon()), mebibytes(r.written()), requests, ratio(r.wall(), base.wall()),
		})
	}
	fmt.Fprintf(out, "\nMedian of %d rounds, maximum for memory. %d CPUs, shared with slapd and the gateway.\nSeconds and MiB of a whole process, from start to end.\n\n", rounds, runtime.NumCPU())
	printColumns(out, rows, 2)
}

// printColumns prints rows in columns. Column left is left-aligned, all others right-aligned.
func printColumns(out io.Writer, rows [][]string, left int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == left {
				line.WriteString(cell + padding + "  ")
			} else {
				line.WriteString(padding + cell + "  ")
			}
		}
		fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
	}
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) }

func mebibytes(n int64) string { return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) }

func ratio(a, b time.Duration) string {
	return strconv.FormatFloat(float64(a)/float64(b), 'f', 2, 64)
}

// withCommas formats a number with thousands separators.
func withCommas(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
