package main

import (
	"fmt"
	"io"
)

// goal is a limit for a measured figure.
type goal struct {
	name    string
	figure  float64
	limit   float64
	atLeast bool // the limit is a lower bound
}

func (g goal) met() bool {
	if g.atLeast {
		return g.figure >= g.limit
	}
	return g.figure <= g.limit
}

// goals returns the goals for the workloads that were measured.
func goals(results []result) []goal {
	var list []goal
	add := func(name string, limit float64, atLeast bool, figure float64, measured bool) {
		if measured {
			list = append(list, goal{name, figure, limit, atLeast})
		}
	}
	for _, g := range []struct {
		workload string
		limit    float64
	}{{nameDryRun, 1.2}, {nameUnchanged, 1.3}, {nameFirst, 2.0}} {
		ratio, ok := wallRatio(results, mediumUsers, g.workload, nameLDAPSearch)
		add(g.workload+", × ldapsearch", g.limit, false, ratio, ok)
	}
	ratio, ok := wallRatio(results, mediumUsers, nameCollector, nameDryRun)
	add(nameCollector+", × read only", 5, true, ratio, ok)

	for _, g := range []struct{ workload, baseline string }{{namePosture, nameFirst}, {namePostureUnchanged, nameUnchanged}} {
		ratio, ok := wallRatio(results, mediumUsers, g.workload, g.baseline)
		add(g.workload+", × without posture", 2, false, ratio, ok)
	}
	for _, size := range []struct {
		users int
		limit float64
	}{{mediumUsers, 64}, {largeUsers, 128}} {
		for _, name := range []string{nameDryRun, nameFirst, nameUnchanged} {
			r, ok := find(results, size.users, name)
			if ok {
				add(fmt.Sprintf("%s, peak anonymous MiB at %s users", name, withCommas(size.users)), size.limit, false, float64(r.anon())/(1<<20), true)
			}
		}
	}
	for _, name := range []string{nameDryRun, nameFirst, nameUnchanged} {
		ratio, ok := wallRatio(results, largeUsers, name, name)
		add(name+", time per object at 1,000,000 users, × time at 100,000", 1.3, false, ratio*mediumUsers/largeUsers, ok)
	}
	return list
}

// wallRatio returns the wall time of a workload divided by that of a baseline with mediumUsers.
// It returns false if one of them was not measured.
func wallRatio(results []result, users int, workload, baseline string) (float64, bool) {
	a, found := find(results, users, workload)
	b, baselineFound := find(results, mediumUsers, baseline)
	if !found || !baselineFound {
		return 0, false
	}
	return float64(a.wall()) / float64(b.wall()), true
}

func printGoals(out io.Writer, results []result) {
	rows := [][]string{{"goal", "figure", "limit", ""}}
	for _, g := range goals(results) {
		bound, verdict := "at most", "met"
		if g.atLeast {
			bound = "at least"
		}
		if !g.met() {
			verdict = "MISSED"
		}
		rows = append(rows, []string{g.name, fmt.Sprintf("%.2f", g.figure), fmt.Sprintf("%s %g", bound, g.limit), verdict})
	}
	fmt.Fprintln(out)
	printColumns(out, rows, 0)
}
