package main

import (
	"fmt"
	"io"
)

// goal is a figure that is to stay at or below a limit, or at or above it.
type goal struct {
	what    string
	figure  float64
	limit   float64
	atLeast bool
}

func (g goal) reached() bool {
	if g.atLeast {
		return g.figure >= g.limit
	}
	return g.figure <= g.limit
}

// goals are what reading at the speed of the server means, as far as it was measured.
func goals(results []result) []goal {
	var list []goal
	add := func(what string, limit float64, atLeast bool, figure float64, measured bool) {
		if measured {
			list = append(list, goal{what, figure, limit, atLeast})
		}
	}
	for _, g := range []struct {
		contender string
		limit     float64
	}{{nameFetch, 1.2}, {nameUnchanged, 1.3}, {nameFirst, 2.0}} {
		ratio, ok := wallRatio(results, usualUsers, g.contender, nameLDAPSearch)
		add(g.contender+", × ldapsearch", g.limit, false, ratio, ok)
	}
	ratio, ok := wallRatio(results, usualUsers, nameCollector, nameFetch)
	add(nameCollector+", × fetch alone", 5, true, ratio, ok)

	for _, g := range []struct{ contender, beside string }{{namePosture, nameFirst}, {namePostureUnchanged, nameUnchanged}} {
		ratio, ok := wallRatio(results, usualUsers, g.contender, g.beside)
		add(g.contender+", × the same without", 2, false, ratio, ok)
	}
	for _, size := range []struct {
		users int
		limit float64
	}{{usualUsers, 64}, {largeUsers, 128}} {
		for _, name := range []string{nameFetch, nameFirst, nameUnchanged} {
			r, ok := find(results, size.users, name)
			if ok {
				add(fmt.Sprintf("%s, peak anonymous MiB at %s users", name, grouped(size.users)), size.limit, false, float64(r.anon())/(1<<20), true)
			}
		}
	}
	for _, name := range []string{nameFetch, nameFirst, nameUnchanged} {
		ratio, ok := wallRatio(results, largeUsers, name, name)
		add(name+", time per object at 1,000,000 users, × at 100,000", 1.3, false, ratio*usualUsers/largeUsers, ok)
	}
	return list
}

// wallRatio is how long a contender took beside another one on the usual directory.
func wallRatio(results []result, users int, contender, beside string) (float64, bool) {
	a, ok := find(results, users, contender)
	b, ok2 := find(results, usualUsers, beside)
	if !ok || !ok2 {
		return 0, false
	}
	return float64(a.wall()) / float64(b.wall()), true
}

func printGoals(out io.Writer, results []result) {
	rows := [][]string{{"goal", "figure", "limit", ""}}
	for _, g := range goals(results) {
		bound, verdict := "at most", "reached"
		if g.atLeast {
			bound = "at least"
		}
		if !g.reached() {
			verdict = "NOT reached"
		}
		rows = append(rows, []string{g.what, fmt.Sprintf("%.2f", g.figure), fmt.Sprintf("%s %g", bound, g.limit), verdict})
	}
	fmt.Fprintln(out)
	align(out, rows, 0)
}
