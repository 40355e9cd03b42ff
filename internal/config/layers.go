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

// loader collects settings and faults.
type loader struct {
	spellings map[string]keyReference
	onUnknown func(Unknown) // can be nil
	unknown   []Unknown     // reported keys
	layers    []layer       // in order of precedence
	faults    []error
}

// layer is the settings of one source by Key.Name.
type layer map[string][]entry

// entry is one occurrence of a key.
type entry struct {
	place string // spelling and location, for errors
	text  string
	file  bool // text is the path of a file with the value
}

// fault records an error with its place, once.
func (l *loader) fault(place string, err error) {
	err = withPlace(place, err)
	if !slices.ContainsFunc(l.faults, func(f error) bool { return f.Error() == err.Error() }) {
		l.faults = append(l.faults, err)
	}
}

// withPlace returns an error with its place: a key and its location. An empty place does not
// change the error.
func withPlace(place string, err error) error {
	if place == "" {
		return err
	}
	return fault.Operation{Object: place}.Failed(fault.Invalid, err, "")
}

// add adds a setting to a layer. An empty value counts as absent, unless the key has another
// meaning for it. onlyOurs means that the place has no variables of other programs.
func (l *loader) add(settings layer, spelling, text, place string, onlyOurs bool) {
	key, known := l.spellings[spelling]
	if !known {
		l.reportUnknown(spelling, text, place, onlyOurs)
		return
	}
	if text = cmp.Or(text, keyByName(key.name).empty); text != "" {
		settings[key.name] = append(settings[key.name], entry{place: spelling + " (" + place + ")", text: text, file: key.file})
	}
}

func (l *loader) flags(flags map[string]string) layer {
	settings := layer{}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		l.add(settings, name, flags[name], "command line", true)
	}
	return settings
}

func (l *loader) environment(environ []string) layer {
	settings := layer{}
	for _, pair := range environ {
		spelling, text, _ := strings.Cut(pair, "=")
		l.add(settings, spelling, text, "environment", false)
	}
	return settings
}

// envFile reads an env file like Docker in a process with that environment.
func (l *loader) envFile(path string, environ []string) layer {
	settings := layer{}
	content, err := os.ReadFile(path)
	if err != nil {
		l.fault("env file "+path, invalid(fmt.Errorf("%w: %w", errUnreadable, unwrapPathError(err)), readableFile))
		return settings
	}
	lines, faults := parseEnvFile(content, environ)
	for _, f := range faults {
		l.fault(fmt.Sprintf("%s line %d", path, f.number), f.err)
	}
	for _, line := range lines {
		l.add(settings, line.key, line.value, fmt.Sprintf("%s line %d", path, line.number), true)
	}
	return settings
}

// checkDuplicates reports keys that occur in one layer with different values, in every layer:
// their order must not matter.
func (l *loader) checkDuplicates() {
	for _, settings := range l.layers {
		for _, k := range keys {
			if len(settings[k.Name]) < 2 {
				continue // do not open the file of a secret
			}
			var first entry
			var value string
			for _, e := range settings[k.Name] {
				text, err := e.value()
				switch {
				case err != nil:
					l.fault("", err)
				case text == "":
				case value == "":
					first, value = e, text
				case text != value:
					l.fault(first.place+" and "+e.place, invalid(errDuplicate, "one of them"))
				}
			}
		}
	}
}

// value returns the text, or the content of a secret's file without one trailing newline. Its
// error contains neither content nor path: the path could be the secret by mistake.
func (e entry) value() (string, error) {
	if !e.file {
		return e.text, nil
	}
	content, err := os.ReadFile(e.text)
	if err != nil {
		return "", withPlace(e.place, invalid(fmt.Errorf("the file %w: %w", errUnreadable, unwrapPathError(err)), readableFile))
	}
	if line, cut := strings.CutSuffix(string(content), "\n"); cut {
		return strings.TrimSuffix(line, "\r"), nil
	}
	return string(content), nil
}

func unwrapPathError(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return failed.Err
	}
	return err
}

// setting is the effective value of a key.
type setting struct {
	place string
	text  string // empty: absent, and without a default
	isSet bool   // false: text is the default
	note  string // reason for the absence, if it is not obvious
}

// find returns the setting from the first layer that has the key.
func (l *loader) find(name string) setting {
	note := ""
	for _, settings := range l.layers {
		for _, e := range settings[name] {
			text, err := e.value()
			if err != nil {
				l.fault("", err)
				return setting{place: e.place, isSet: true}
			}
			if text != "" {
				return setting{place: e.place, text: text, isSet: true}
			}
			note = fmt.Sprintf(" (the file of %s is empty)", e.place)
		}
	}
	return setting{place: name, text: keyByName(name).Default, note: note}
}

func (l *loader) isSet(name string) bool { return l.find(name).isSet }

// firstPlace returns the first place of a key, without opening a secret's file.
func (l *loader) firstPlace(name string) string {
	for _, settings := range l.layers {
		for _, e := range settings[name] {
			return e.place
		}
	}
	return ""
}

// parser parses a text that is not empty. The remedy of its error is the allowed values. The
// error must not quote a text that could be a credential.
type parser[T any] = func(text string) (T, error)

// required returns the value of a key like optional. It records a fault if the key is absent.
func required[T any](l *loader, name, reason string) T {
	if s := l.find(name); !s.isSet {
		documented, allowed := keyByName(name).requirement()
		l.fault(name, invalid(fmt.Errorf("%w%s, %s", errMissing, s.note, cmp.Or(reason, documented)), allowed))
	}
	return optional[T](l, name)
}

// optional returns the value of a key, or the zero value if the key is absent or has a fault.
// T is the type of the key's parser.
func optional[T any](l *loader, name string) T {
	var zero T
	k, s := keyByName(name), l.find(name)
	parse := k.parse.(parser[T])
	if s.text == "" {
		return zero
	}
	if k.isPlaceholder(s.text) {
		_, allowed := k.requirement()
		l.fault(s.place, invalid(errPlaceholder, allowed))
		return zero
	}
	value, err := parse(s.text)
	if err != nil {
		if isQuoted(s.text) {
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

// isPlaceholder reports whether a value is a placeholder of a sample. If values of the key can
// contain < and >, a placeholder is the whole value, like <THIS_ONE>.
func (k Key) isPlaceholder(text string) bool {
	if k.Secret || k.allowsAngles {
		return wholePlaceholder.MatchString(text)
	}
	return anyPlaceholder.MatchString(text)
}

func isQuoted(text string) bool {
	return len(text) > 1 && strings.ContainsRune(`"'`, rune(text[0])) && text[0] == text[len(text)-1]
}
