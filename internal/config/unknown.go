package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
)

// Unknown is a setting without effect that resembles a key.
type Unknown struct {
	Key     string
	Place   string // environment, or file and line
	Nearest string // the most similar spelling of a key; empty: none is similar
}

// reportUnknown reports a setting that is not a key but resembles one, once. In env files
// and in names with dots, which shells do not allow, the first word of a key is enough. The
// environment also has variables of other programs, such as HTTP_PROXY or LOG_DIR: there, a
// name must be almost equal to a key.
func (l *loader) reportUnknown(spelling, text, place string, onlyOurs bool) {
	if text == "" || l.onUnknown == nil {
		return
	}
	// After any other character, a part of the value can follow.
	if i := strings.IndexFunc(spelling, isNotInKey); i >= 0 {
		spelling = spelling[:i]
	}
	nearest, distance := mostSimilar(spelling)
	length := len(normalize(nearest))
	isTypo := distance <= 2 && distance*6 <= length
	hasOurPrefix := strings.HasPrefix(spelling, "QUALYS_") || (onlyOurs || strings.Contains(spelling, ".")) && l.beginsLikeKey(spelling)
	if !isTypo && !hasOurPrefix {
		return
	}
	if distance*2 > length {
		nearest = ""
	}
	key := strings.Trim(strconv.QuoteToASCII(spelling), `"`)
	if slices.ContainsFunc(l.unknown, func(u Unknown) bool { return u.Key == key }) {
		return
	}
	u := Unknown{Key: key, Place: place, Nearest: nearest}
	l.unknown = append(l.unknown, u)
	l.onUnknown(u)
}

// isNotInKey reports whether a character cannot be in a key or in a misspelled one. White space
// and invisible characters other than ASCII ones can be there by mistake.
func isNotInKey(r rune) bool {
	return r < utf8.RuneSelf && !strings.ContainsRune(keyCharacters, r)
}

const keyCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// minAbbreviation is the length from which the beginning of a key counts as its abbreviation.
const minAbbreviation = 6

// mostSimilar returns the most similar spelling of a key, and the Levenshtein distance to it.
// Case, dots, dashes and underscores do not count. Keys that begin with the unknown spelling
// take precedence: proxy.pass is an abbreviation of proxy.password, although proxy.host has a
// smaller distance. The result has the same form: shell-safe or not.
func mostSimilar(spelling string) (nearest string, distance int) {
	unknown, upperCase := normalize(spelling), isUpperCase(spelling)
	isAbbreviated := false
	for _, known := range normalizedSpellings() {
		if known.upperCase != upperCase {
			continue
		}
		abbreviated := len(unknown) >= minAbbreviation && strings.HasPrefix(known.normalized, unknown)
		if isAbbreviated && !abbreviated {
			continue
		}
		d := levenshtein.ComputeDistance(unknown, known.normalized)
		if nearest == "" || d < distance || abbreviated && !isAbbreviated {
			nearest, distance, isAbbreviated = known.spelling, d, abbreviated
		}
	}
	return nearest, distance
}

// normalizedSpelling is a spelling of a key in the forms in which it is compared.
type normalizedSpelling struct {
	spelling, normalized string
	upperCase            bool
}

// normalizedSpellings returns all spellings of all keys in order. It is computed only if an
// unknown setting is compared with them, and once: an environment can have many variables.
var normalizedSpellings = sync.OnceValue(func() (all []normalizedSpelling) {
	for _, spelling := range slices.Sorted(maps.Keys(spellings())) {
		all = append(all, normalizedSpelling{spelling, normalize(spelling), isUpperCase(spelling)})
	}
	return all
})

func isUpperCase(spelling string) bool { return spelling == strings.ToUpper(spelling) }

var separators = strings.NewReplacer(".", "", "-", "", "_", "")

// normalize returns a spelling without case and separators.
func normalize(spelling string) string {
	return strings.ToLower(separators.Replace(spelling))
}

// beginsLikeKey reports whether a spelling has the first word of a key, in any case.
func (l *loader) beginsLikeKey(spelling string) bool {
	word := firstWord(spelling)
	for known := range l.spellings {
		if word != "" && word == firstWord(known) {
			return true
		}
	}
	return false
}

// firstWord returns the lower-case text before the first dot or underscore, or "" without one.
func firstWord(spelling string) string {
	return strings.ToLower(spelling[:max(0, strings.IndexAny(spelling, "._"))])
}
