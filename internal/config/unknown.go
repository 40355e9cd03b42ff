package config

import (
	"maps"
	"slices"
	"strings"
)

// Unknown is a setting that has no effect and looks as if it should have one.
type Unknown struct {
	Key     string
	Place   string // where it stands; never what its value is
	Nearest string // the spelling that is likely meant; "": there is none
}

// unknown notes a setting that is not one of ours, where it looks like one. An env
// file is ours, and so are names with dots, which no shell makes: what begins as our
// keys do counts there. Other names of the environment are mostly other programs',
// HTTP_PROXY or LOG_DIR for example: they must all but be one of ours.
func (l *loader) unknown(spelling, text, place string, ours bool) {
	if text == "" || l.tell == nil {
		return
	}
	ours = ours || strings.Contains(spelling, ".")
	nearest, distance := l.nearest(spelling)
	size := len(plain(nearest))
	slip := distance <= 2 && distance*6 <= size
	if !slip && !(ours && l.beginsAsOurs(spelling)) && !strings.HasPrefix(spelling, "QUALYS_") {
		return
	}
	if distance*2 > size { // it may mean anything
		nearest = ""
	}
	u := Unknown{Key: spelling, Place: place, Nearest: nearest}
	if !slices.ContainsFunc(l.told, func(before Unknown) bool { return before.Key == u.Key }) {
		l.told = append(l.told, u)
		l.tell(u)
	}
}

// nearest finds the spelling of ours that takes the fewest changes of a letter, and
// how many. Case, points and dashes count for nothing, and to leave out the end of a
// key counts as little. Among equals a longer form of the same wins, then the style.
func (l *loader) nearest(spelling string) (nearest string, distance int) {
	form := plain(spelling)
	rank := func(known string) (distance, unlike int) {
		distance = changes(form, plain(known))
		if (strings.ToUpper(known) == known) != (strings.ToUpper(spelling) == spelling) {
			unlike = 1
		}
		if !strings.HasPrefix(plain(known), form) {
			return distance, unlike + 2
		}
		if len(form) >= shortest {
			distance = min(distance, shortened)
		}
		return distance, unlike
	}
	unlike := 0
	for _, known := range slices.Sorted(maps.Keys(l.keys)) {
		d, u := rank(known)
		if nearest == "" || d < distance || d == distance && u < unlike {
			nearest, distance, unlike = known, d, u
		}
	}
	return nearest, distance
}

const (
	// shortened is what leaving out the end of a key counts as: more than a slip, less
	// than another word.
	shortened = 3
	shortest  = 6 // letters that must be left
)

// plain is a spelling without what people get wrong most.
func plain(spelling string) string {
	return strings.ToLower(strings.NewReplacer(".", "", "-", "", "_", "").Replace(spelling))
}

// beginsAsOurs reports whether the first word is one of our keys' first words.
func (l *loader) beginsAsOurs(spelling string) bool {
	first := func(s string) string {
		word, _, more := strings.Cut(s, ".")
		if !more {
			word, _, more = strings.Cut(s, "_")
		}
		if !more {
			return ""
		}
		return strings.ToLower(word)
	}
	word := first(spelling)
	for known := range l.keys {
		if word != "" && word == first(known) {
			return true
		}
	}
	return false
}

// changes is how many letters must be put in, left out or replaced, or swapped with
// their neighbours, to make b of a.
func changes(a, b string) int {
	row := func(n int) []int { return make([]int, n+1) }
	before, last, now := row(len(b)), row(len(b)), row(len(b))
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}
