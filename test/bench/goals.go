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
	}{{nameDryRun, 1.2}, {nameUnchanged, 1.05}, {nameFirst, 1.2}} {
		ratio, ok := wallRatio(results, mediumUsers, g.workload, nameLDAPSearch)
		add(g.workload+", × ldapsearch", g.limit, false, ratio, ok)
	}
	first, ok := find(results, mediumUsers, nameFirst)
	dryRun, found := find(results, mediumUsers, nameDryRun)
	if ok && found {
		add(nameFirst+", CPU, × read only", 1.35, false, float64(first.cpu())/float64(dryRun.cpu()), true)
	}
	for _, size := range []struct {
		users int
		limit float64
	}{{mediumUsers, 2}, {largeUsers, 4}} {
		if first, ok := find(results, size.users, nameFirst); ok {
			add(fmt.Sprintf("%s, bytes written, × state file at %s users", nameFirst, withCommas(size.users)), size.limit, false, first.writeRatio(), true)
		}
	}
	ratio, ok := wallRatio(results, mediumUsers, nameCollector, nameDryRun)
	add(nameCollector+", × read only", 5, true, ratio, ok)

	ratio, ok = wallRatio(results, mediumUsers, namePostureDryRun, namePostureSearch)
	add(namePostureDryRun+", × ldapsearch", 1.1, false, ratio, ok)
	if posture, found := find(results, mediumUsers, namePosture); ok && found {
		add(namePosture+", CPU, × without posture", 1.5, false, float64(posture.cpu())/float64(first.cpu()), true)
		add(namePosture+", calls for 100,000 objects", 220, false, float64(posture.requests())*100_000/float64(posture.dataset.objects()), true)
	}
	for _, g := range []struct {
		users    int
		workload string
		limit    float64
	}{
		{mediumUsers, nameDryRun, 64}, {mediumUsers, nameFirst, 64}, {mediumUsers, nameUnchanged, 64},
		{mediumUsers, namePosture, 64}, {mediumUsers, namePostureUnchanged, 64},
		{largeUsers, nameDryRun, 64}, {largeUsers, nameFirst, 96}, {largeUsers, nameUnchanged, 64},
	} {
		if r, ok := find(results, g.users, g.workload); ok {
			add(fmt.Sprintf("%s, peak anonymous MiB at %s users", g.workload, withCommas(g.users)), g.limit, false, float64(r.anon())/(1<<20), true)
		}
	}
	if r, ok := find(results, largeUsers, nameFirst); ok {
		add(fmt.Sprintf("%s, peak resident MiB at %s users", nameFirst, withCommas(largeUsers)), 400, false, float64(r.rss())/(1<<20), true)
	}
	for _, name := range []string{nameDryRun, nameFirst, nameUnchanged} {
		ratio, ok := wallRatio(results, largeUsers, name, name)
		add(name+", time per object at 1,000,000 users, × time at 100,000", 1.2, false, ratio*mediumUsers/largeUsers, ok)
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
