package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"adconnector/internal/fault"
)

// loader gathers what was given where, and the faults found on the way.
type loader struct {
	keys   map[string]meant
	tell   func(Unknown) // nil: nobody wants to know
	told   []Unknown
	layers []layer // the strongest first
	faults []error
}

// layer is one place that settings come from, by the Name of the key.
type layer map[string][]entry

// entry is one spelling of a key, given once.
type entry struct {
	place string // spelling and where it stands, for operators
	text  string
	file  bool
}

// fault records an error at a place, once.
func (l *loader) fault(place string, err error) {
	err = at(place, err)
	if !slices.ContainsFunc(l.faults, func(f error) bool { return f.Error() == err.Error() }) {
		l.faults = append(l.faults, err)
	}
}

// at returns an error with its place: a key, and where it stands. "" keeps the place it has.
func at(place string, err error) error {
	if place == "" {
		return err
	}
	return fault.Operation{Object: place}.Failed(fault.Invalid, err, "")
}

// add takes a setting into a layer. An empty value counts as absent, unless the key
// has another meaning for it. ours says that the place is for nothing but our keys.
func (l *loader) add(to layer, spelling, text, where string, ours bool) {
	m, known := l.keys[spelling]
	if !known {
		l.unknown(spelling, text, where, ours)
		return
	}
	if text = cmp.Or(text, lookUp(m.name).empty); text != "" {
		to[m.name] = append(to[m.name], entry{place: spelling + " (" + where + ")", text: text, file: m.file})
	}
}

func (l *loader) flags(flags map[string]string) layer {
	found := layer{}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		l.add(found, name, flags[name], "command line", true)
	}
	return found
}

func (l *loader) environment(environ []string) layer {
	found := layer{}
	for _, pair := range environ {
		spelling, text, _ := strings.Cut(pair, "=")
		l.add(found, spelling, text, "environment", false)
	}
	return found
}

// envFile reads the file as Docker would in a process with that environment.
func (l *loader) envFile(path string, environ []string) layer {
	found := layer{}
	content, err := os.ReadFile(path)
	if err != nil {
		l.fault("env file "+path, invalid(fmt.Errorf("%w: %w", errUnreadable, withoutPath(err)), readableFile))
		return found
	}
	lines, faults := parseEnvFile(content, environ)
	for _, f := range faults {
		l.fault(fmt.Sprintf("%s line %d", path, f.number), f.err)
	}
	for _, line := range lines {
		l.add(found, line.key, line.value, fmt.Sprintf("%s line %d", path, line.number), true)
	}
	return found
}

// contradictions reports keys that one layer gives twice with different values,
// in every layer: an operator need not know which of them would win.
func (l *loader) contradictions() {
	for _, found := range l.layers {
		for _, k := range keys {
			if len(found[k.Name]) < 2 {
				continue // nothing to compare, and no need to open a file
			}
			var first entry
			var value string
			for _, e := range found[k.Name] {
				text, err := e.value()
				switch {
				case err != nil:
					l.fault("", err)
				case text == "":
				case value == "":
					first, value = e, text
				case text != value:
					l.fault(first.place+" and "+e.place, invalid(errTwice, "one of them"))
				}
			}
		}
	}
}

// value is the text itself, or for a secret's .file the content of that file,
// less one trailing newline. Its error names neither content nor path: what
// stands where a path should may well be the secret.
func (e entry) value() (string, error) {
	if !e.file {
		return e.text, nil
	}
	content, err := os.ReadFile(e.text)
	if err != nil {
		return "", at(e.place, invalid(fmt.Errorf("the file %w: %w", errUnreadable, withoutPath(err)), readableFile))
	}
	if line, cut := strings.CutSuffix(string(content), "\n"); cut {
		return strings.TrimSuffix(line, "\r"), nil
	}
	return string(content), nil
}

func withoutPath(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return failed.Err
	}
	return err
}

// setting is the value of a key that counts, and where it stands.
type setting struct {
	place string
	text  string // empty: absent everywhere, and without a default
	given bool   // false: text is the default
	note  string // why it is absent, when that is not plain to see
}

// find looks from the strongest layer down.
func (l *loader) find(name string) setting {
	note := ""
	for _, found := range l.layers {
		for _, e := range found[name] {
			text, err := e.value()
			if err != nil {
				l.fault("", err)
				return setting{place: e.place, given: true}
			}
			if text != "" {
				return setting{place: e.place, text: text, given: true}
			}
			note = fmt.Sprintf(" (the file that %s names is empty)", e.place)
		}
	}
	return setting{place: name, text: lookUp(name).Default, note: note}
}

func (l *loader) given(name string) bool { return l.find(name).given }

// placeOf says where a key is mentioned first, without opening a secret's file.
func (l *loader) placeOf(name string) string {
	for _, found := range l.layers {
		for _, e := range found[name] {
			return e.place
		}
	}
	return ""
}

// parser makes a value of a text that is not empty. The remedy of its error is what is
// allowed. The error must not quote what might be a credential.
type parser[T any] = func(text string) (T, error)

// required is optional, and a fault when the key is absent.
func required[T any](l *loader, name, why string) T {
	if s := l.find(name); !s.given {
		need, allowed := lookUp(name).need()
		l.fault(name, invalid(fmt.Errorf("%w%s, %s", errMissing, s.note, cmp.Or(why, need)), allowed))
	}
	return optional[T](l, name)
}

// optional gives the zero value for a key that is absent or wrong. T is what the
// key's parser makes.
func optional[T any](l *loader, name string) T {
	var zero T
	k, s := lookUp(name), l.find(name)
	parse := k.parse.(parser[T])
	if s.text == "" {
		return zero
	}
	if k.isPlaceholder(s.text) {
		_, allowed := k.need()
		l.fault(s.place, invalid(errPlaceholder, allowed))
		return zero
	}
	value, err := parse(s.text)
	if err != nil {
		if quoted(s.text) {
			err = fault.Operation{}.Failed(fault.Invalid, fmt.Errorf("%w (%w)", err, errQuotes), fault.Remedy(err)+", without quotes")
		}
		l.fault(s.place, err)
		return zero
	}
	return value
}

var (
	anyPlaceholder   = regexp.MustCompile(`<[^<>]*>`)
	wholePlaceholder = regexp.MustCompile(`^<[A-Z][A-Z0-9_]*>$`)
)

// isPlaceholder finds what was left over from a sample. In keys whose values may
// well hold < and >, it must be the whole value and look like <THIS_ONE>.
func (k Key) isPlaceholder(text string) bool {
	if k.Secret || k.anyText {
		return wholePlaceholder.MatchString(text)
	}
	return anyPlaceholder.MatchString(text)
}

func quoted(text string) bool {
	return len(text) > 1 && strings.ContainsRune(`"'`, rune(text[0])) && text[0] == text[len(text)-1]
}
