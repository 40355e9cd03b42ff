package input

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mistake is a property of a value that is probably a mistake. A value with it can be correct.
type Mistake struct{ text, remedy string }

// Error returns a description that begins with a verb.
func (m *Mistake) Error() string { return m.text }

// Remedy returns what to do, as an imperative clause.
func (m *Mistake) Remedy() string { return m.remedy }

// NewMistake returns a mistake with a description, which begins with a verb, and a remedy.
func NewMistake(text, remedy string) *Mistake { return &Mistake{text, remedy} }

const (
	removeMarks = "remove the quotation marks, unless they belong to the value"
	removeSpace = "remove the space, unless it belongs to the value"
	removeTab   = "remove the tab, unless it belongs to the value"
	typeAgain   = "type the value instead of copying it, unless it is correct"
)

// The mistakes.
var (
	InQuotes         = NewMistake("is in quotation marks", removeMarks)
	BeginsWithQuote  = NewMistake("begins with a quotation mark", removeMarks)
	EndsWithQuote    = NewMistake("ends with a quotation mark", removeMarks)
	BeginsWithSpace  = NewMistake("begins with a space", removeSpace)
	EndsWithSpace    = NewMistake("ends with a space", removeSpace)
	BeginsWithTab    = NewMistake("begins with a tab", removeTab)
	EndsWithTab      = NewMistake("ends with a tab", removeTab)
	BeginsWithReturn = NewMistake("begins with a carriage return", "remove the carriage return, unless it belongs to the value")
	EndsWithReturn   = NewMistake("ends with a carriage return", "save the value with LF line ends, or remove the carriage return")
	BeginsWithFeed   = NewMistake("begins with a line feed", "remove the line feed, unless it belongs to the value")
	EndsWithFeed     = NewMistake("ends with a line feed", "remove the line feed (echo adds one, printf does not)")
	BeginsWithMark   = NewMistake("begins with a byte order mark", "save the value as UTF-8 without a byte order mark")
	BeginsInvisibly  = NewMistake("begins with an invisible character", typeAgain)
	EndsInvisibly    = NewMistake("ends with an invisible character", typeAgain)
	HasControl       = NewMistake("contains a control character or a line break", typeAgain)
	HasInvisible     = NewMistake("contains an invisible character", typeAgain)
	HasFullWidth     = NewMistake("contains a full-width character", typeAgain)
	HasReplacement   = NewMistake("contains a replacement character for text in another encoding", "enter the value as UTF-8")
	OnlyBlank        = NewMistake("consists of white space or invisible characters", "enter the value")
	NotUTF8          = NewMistake("is not valid UTF-8", "enter the value as UTF-8")
	HasComment       = NewMistake("contains a # after a space, which does not begin a comment", "put comments on lines of their own, unless the # belongs to the value")
	PercentEncoded   = NewMistake("contains percent-encoded characters", "enter the characters themselves, unless the value is correct")
	Variable         = NewMistake("is a variable, which is not expanded", "enter the value of the variable")
)

// blanks are the mistakes of blank characters: at the beginning, and at the end of a value.
var blanks = map[rune][2]*Mistake{
	' ':  {BeginsWithSpace, EndsWithSpace},
	'\t': {BeginsWithTab, EndsWithTab},
	'\r': {BeginsWithReturn, EndsWithReturn},
	'\n': {BeginsWithFeed, EndsWithFeed},

	'\ufeff': {BeginsWithMark, EndsInvisibly},
}

// invisible are the mistakes of all other blank characters, such as no-break spaces.
var invisible = [2]*Mistake{BeginsInvisibly, EndsInvisibly}

// quotes are quotation marks, also typographic and full-width ones.
const quotes = "\"'`´“”„‟‘’‚‛«»‹›″′＂＇"

var (
	variable = regexp.MustCompile(`^(\$\{[^{}]*\}|\$\([^()]*\)|\{\{.*\}\}|%[A-Z][A-Z0-9_]*%|\$[A-Z][A-Z0-9]*_[A-Z0-9_]+)$`)
	encoded  = regexp.MustCompile(`%(2[0-9A-Fa-f]|3[A-Fa-f]|40|5[B-Eb-e]|60|7[B-Eb-e])`) // ASCII punctuation
	comment  = regexp.MustCompile(`\s#(\s|\pL)`)
)

// Mistakes returns the probable mistakes in a value of which every character counts.
func Mistakes(text string) []error {
	if !utf8.ValidString(text) {
		return []error{NotUTF8}
	}
	var found []error
	add := func(is bool, m *Mistake) {
		if is && !slices.Contains(found, error(m)) {
			found = append(found, m)
		}
	}
	inner := strings.TrimFunc(text, isBlank)
	if inner == "" && text != "" {
		return []error{OnlyBlank}
	}
	begin, end, _ := strings.Cut(text, inner)
	for side, cut := range []string{begin, end} {
		for _, r := range cut {
			mistakes, known := blanks[r]
			if !known {
				mistakes = invisible
			}
			add(true, mistakes[side])
		}
	}
	first, _ := utf8.DecodeRuneInString(inner)
	last, size := utf8.DecodeLastRuneInString(inner)
	begins, ends := inner != "" && strings.ContainsRune(quotes, first), len(inner) > size && strings.ContainsRune(quotes, last)
	add(begins && ends, InQuotes)
	add(begins && !ends, BeginsWithQuote)
	add(ends && !begins, EndsWithQuote)
	for _, r := range inner {
		add(unicode.IsControl(r), HasControl)
		add(isBlank(r) && r != ' ' && !unicode.IsControl(r), HasInvisible)
		add(r >= '\uff01' && r <= '\uff5e', HasFullWidth)
		add(r == unicode.ReplacementChar, HasReplacement)
	}
	add(comment.MatchString(inner), HasComment)
	add(encoded.MatchString(inner), PercentEncoded)
	add(variable.MatchString(inner), Variable)
	return found
}

// isBlank reports whether a character is white space or has no visible form.
func isBlank(r rune) bool { return unicode.IsSpace(r) || unicode.In(r, unicode.Cf, unicode.Zs) }

// Join returns one error with the descriptions of mistakes; nil without mistakes.
func Join(mistakes []error) error {
	if len(mistakes) == 0 {
		return nil
	}
	return joined(mistakes)
}

// joined are mistakes as one error.
type joined []error

func (j joined) Error() string {
	texts := make([]string, len(j))
	for n, mistake := range j {
		texts[n] = mistake.Error()
	}
	return strings.Join(texts, ", ")
}

// Unwrap returns the mistakes.
func (j joined) Unwrap() []error { return j }

// Finding is a value or a file with its probable mistakes.
type Finding struct {
	Name     string // of the setting with its place, of the file, or of the field in the console
	Mistakes []error
}

// Reason returns the descriptions of the mistakes.
func (f Finding) Reason() string { return Join(f.Mistakes).Error() }

// Remedy returns the distinct remedies of the mistakes.
func (f Finding) Remedy() string { return Remedy(f.Mistakes) }

// Remedy returns the distinct remedies of mistakes.
func Remedy(mistakes []error) string {
	var remedies []string
	for _, mistake := range mistakes {
		if m, is := mistake.(*Mistake); is && !slices.Contains(remedies, m.remedy) { //nolint:errorlint // mistakes are not wrapped
			remedies = append(remedies, m.remedy)
		}
	}
	return strings.Join(remedies, "; ")
}
