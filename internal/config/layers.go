package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"adconnector/internal/fault"
	"adconnector/internal/input"
)

// loader collects settings and faults.
type loader struct {
	spellings map[string]keyReference
	onUnknown func(Unknown) // can be nil
	unknown   []Unknown     // reported keys
	onMistake func(Mistake) // can be nil
	secrets   []*SecretFile
	values    map[entry]fileValue // those that were read
	// withSecrets are the paths of the env files that contain a secret.
	withSecrets []string
	mistakes    []Mistake
	warned      map[string]bool // keys whose mistakes are reported
	misread     map[string]bool // keys in lines with a fault; "": a whole file has one
	layers      []layer         // in order of precedence
	faults      []error
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
		if key, known := l.spellings[spelling]; known && isServiceLink(spelling, text) {
			l.mistakes = append(l.mistakes, Mistake{key.name, input.Finding{Name: spelling + " (environment)", Mistakes: []error{linkMistake}}})
			continue
		}
		l.add(settings, spelling, text, "environment", false)
	}
	return settings
}

// linkMistake is the mistake of a variable for which isServiceLink returns true.
var linkMistake = input.NewMistake("is the link to another service that Kubernetes or Docker adds, and has no effect",
	"set enableServiceLinks: false in the pod, or rename the service")

// serviceLink matches the address of a service in the form of Docker's links.
var serviceLink = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// isServiceLink reports whether a variable is a link to a service: NAME_PORT=tcp://ADDRESS:PORT. A pod
// has one for each service of its namespace: a service with the name ldap results in LDAP_PORT. The port
// in a setting is a number.
func isServiceLink(spelling, text string) bool {
	return strings.HasSuffix(spelling, "_PORT") && serviceLink.MatchString(text)
}

// envFile reads an env file like Docker in a process with that environment.
func (l *loader) envFile(path string, environ []string) layer {
	settings := layer{}
	content, err := readFile(path, pipeTimeout)
	if err != nil {
		l.fault(strings.TrimSpace("env file "+path), unreadable("", path, err, listMistakes(path)...))
	} else if err = l.checkEncoding(content); err != nil {
		l.fault("env file "+path, err)
	}
	if err != nil {
		l.misread[""] = true
		return settings
	}
	lines, bad, odd := parseEnvFile(content, environ)
	for _, o := range odd {
		if _, known := l.spellings[o.meant]; known {
			bad = append(bad, o)
			lines = slices.DeleteFunc(lines, func(line envLine) bool { return line.number == o.number })
		}
	}
	slices.SortFunc(bad, func(a, b badLine) int { return cmp.Compare(a.number, b.number) })
	l.addBadLines(path, bad)
	for _, line := range lines {
		place := fmt.Sprintf("%s line %d", path, line.number)
		if l.addSeveral(line, place) {
			continue
		}
		l.add(settings, line.key, line.value, place, true)
		if key, known := l.spellings[line.key]; known && line.value != "" && !key.file && keyByName(key.name).Secret {
			l.withSecrets = append(l.withSecrets, path)
		}
	}
	return settings
}

// listMistakes returns a mistake if a path could be the paths of several files.
func listMistakes(path string) []error {
	if strings.Contains(path, ",") {
		return []error{isList}
	}
	return nil
}

// addBadLines records one fault for all lines of a file with the same fault. The keys of these
// lines are not missing.
func (l *loader) addBadLines(path string, bad []badLine) {
	var texts []string // in the order of the first lines
	numbers, errs := map[string][]int{}, map[string]error{}
	for _, b := range bad {
		text := b.err.Error()
		if errs[text] == nil {
			texts, errs[text] = append(texts, text), b.err
		}
		numbers[text] = append(numbers[text], b.number)
		if key, known := l.spellings[b.meant]; known {
			l.misread[key.name] = true
		}
	}
	for _, text := range texts {
		l.fault(path+" "+lineNumbers(numbers[text]), errs[text])
	}
}

// settingInValue matches a setting after white space.
var settingInValue = regexp.MustCompile(`\s([A-Za-z0-9._-]+)=`)

// addSeveral records a fault if the value of a line contains other settings, and reports whether
// it does. Their keys are not missing.
func (l *loader) addSeveral(line envLine, place string) bool {
	key, isKey := l.spellings[line.key]
	found := false
	for _, m := range settingInValue.FindAllStringSubmatch(line.value, -1) {
		if other, known := l.spellings[m[1]]; known && isKey {
			found = true
			l.misread[key.name], l.misread[other.name] = true, true
		}
	}
	if found {
		l.fault(line.key+" ("+place+")", invalid(errTwoSettings, "one setting on each line"))
	}
	return found
}

// isMisread reports whether one of the keys may be in a line or a file that has a fault.
func (l *loader) isMisread(names ...string) bool {
	return l.misread[""] || slices.ContainsFunc(names, func(name string) bool { return l.misread[name] })
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
				text, err := l.value(e)
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
	content, err := readFile(e.text, pipeTimeout)
	if err != nil {
		return "", withPlace(e.place, unreadable("the file", e.text, err))
	}
	if input.IsUTF16(content) {
		return "", withPlace(e.place, invalid(fmt.Errorf("the file %w", errUTF16), "UTF-8, in PowerShell: Set-Content -Encoding utf8"))
	}
	if line, cut := strings.CutSuffix(string(content), "\n"); cut {
		return strings.TrimSuffix(line, "\r"), nil
	}
	return string(content), nil
}

// fileValue is the result of [entry.value].
type fileValue struct {
	text string
	err  error
}

// value returns the value of an entry. It reads a file once: the content of a pipe is gone then.
func (l *loader) value(e entry) (string, error) {
	read, isRead := l.values[e]
	if !isRead {
		read.text, read.err = e.value()
		if l.values == nil {
			l.values = map[entry]fileValue{}
		}
		l.values[e] = read
	}
	return read.text, read.err
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
	from  entry  // the occurrence; zero for the default
}

// find returns the setting from the first layer that has the key.
func (l *loader) find(name string) setting {
	note := ""
	for _, settings := range l.layers {
		for _, e := range settings[name] {
			text, err := l.value(e)
			if err != nil {
				l.fault("", err)
				return setting{place: e.place, isSet: true}
			}
			if text != "" {
				return setting{place: e.place, text: text, isSet: true, from: e}
			}
			note = fmt.Sprintf(" (the file of %s is empty)", e.place)
		}
	}
	return setting{place: name, text: keyByName(name).Default, note: note}
}

func (l *loader) isSet(name string) bool { return l.find(name).isSet }

// isEmpty reports whether neither the environment nor a file has a setting, not even one with a
// fault or an unknown one.
func (l *loader) isEmpty() bool {
	return len(l.faults) == 0 && len(l.unknown) == 0 && !slices.ContainsFunc(l.layers[1:], func(settings layer) bool { return len(settings) > 0 })
}

// reportOverrides reports, for each key, the setting in effect if it replaces a different one. Flags
// replace settings on purpose. It opens no files of secrets.
func (l *loader) reportOverrides(report func(Override)) {
	for _, k := range keys {
		var all []entry // the first one of each layer: others in it are equal
		for _, settings := range l.layers[1:] {
			if entries := settings[k.Name]; len(entries) > 0 {
				all = append(all, entries[0])
			}
		}
		for i, e := range all {
			if i > 0 && (e.text != all[0].text || e.file != all[0].file) {
				report(Override{Place: all[0].place, Replaced: e.place})
			}
		}
	}
}

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
	if s := l.find(name); !s.isSet && !l.isMisread(name) {
		k := keyByName(name)
		l.fault(name, invalid(fmt.Errorf("%w%s, %s", errMissing, s.note, cmp.Or(reason, k.Required)), k.description()))
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
		l.fault(s.place, invalid(errPlaceholder, k.description()))
		return zero
	}
	value, err := parse(s.text)
	if err != nil {
		remedy := fault.Remedy(err)
		if err = withMistakes(err, s.text); errors.Is(err, input.InQuotes) {
			remedy += ", without quotes"
		}
		l.fault(s.place, fault.Operation{}.Failed(fault.Invalid, err, remedy))
		return zero
	}
	l.reportMistakes(k, s)
	return value
}

// validate records the fault of a value that has no effect, before another setting gives it one. A
// placeholder of a sample is no fault: the other settings of its group are absent too.
func validate[T any](l *loader, name string) {
	if s := l.find(name); s.isSet && !keyByName(name).isPlaceholder(s.text) {
		optional[T](l, name)
	}
}

// withMistakes returns the fault of a value with the probable mistakes in the value that are not
// in the fault.
func withMistakes(err error, text string) error {
	mistakes := slices.DeleteFunc(input.Mistakes(text), func(m error) bool { return errors.Is(err, m) })
	if len(mistakes) == 0 {
		return err
	}
	return fmt.Errorf("%w (%w)", err, input.Join(mistakes))
}

// reportMistakes reports the probable mistakes in a valid value, once.
func (l *loader) reportMistakes(k Key, s setting) {
	if k.mistakes == nil || !s.isSet || l.warned[k.Name] {
		return
	}
	l.warned[k.Name] = true
	l.addMistakes(k.Name, s, k.mistakes(s.text)...)
}

// addMistakes adds probable mistakes in the value of a key to those of the key.
func (l *loader) addMistakes(name string, s setting, found ...error) {
	i := slices.IndexFunc(l.mistakes, func(m Mistake) bool { return m.Key == name })
	switch {
	case len(found) == 0:
	case i >= 0:
		l.mistakes[i].Mistakes = append(l.mistakes[i].Mistakes, found...)
	default:
		l.mistakes = append(l.mistakes, Mistake{name, input.Finding{Name: s.place, Mistakes: found}})
	}
}

// reportAll reports the probable mistakes in values without a fault.
func (l *loader) reportAll() {
	for _, m := range l.mistakes {
		hasFault := slices.ContainsFunc(l.faults, func(err error) bool {
			failed, is := errors.AsType[*fault.Error](err)
			return is && failed.Object == m.Name
		})
		if l.onMistake != nil && !hasFault {
			l.onMistake(m)
		}
	}
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
