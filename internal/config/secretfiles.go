package config

import (
	"errors"

	"adconnector/internal/secret"
)

var errEmptySecret = errors.New("the file is empty")

// SecretFile is a secret that comes from a regular file. It can be read again, so that a password that
// is rotated requires no restart.
type SecretFile struct {
	Key   string // Key.Name
	Place string // spelling, and environment or file and line

	from     entry
	variable *secret.Variable
}

// secret returns a required secret, which can change if it comes from a regular file.
func (l *loader) secret(name, reason string) secret.Text {
	text := required[secret.Text](l, name, reason)
	s := l.find(name)
	if !s.from.file || text.IsZero() || !isRegular(s.from.text) {
		return text
	}
	f := &SecretFile{Key: name, Place: s.place, from: s.from, variable: secret.NewVariable(text.Reveal())}
	l.secrets = append(l.secrets, f)
	return f.variable.Text()
}

// Reread reads the file, and reports whether the secret has changed. If the file is unreadable,
// empty, or has no valid value, the secret keeps its last value. mistakes are the probable
// mistakes in a changed value. Neither the error nor a mistake contains the value or the path.
//
// Only one goroutine at a time can call Reread. Others can use the secret.
func (f *SecretFile) Reread() (changed bool, mistakes []error, err error) {
	text, err := f.from.value()
	if err != nil {
		return false, nil, err
	}
	const allowed = "a file with the secret"
	k := keyByName(f.Key)
	switch {
	case text == "":
		return false, nil, withPlace(f.Place, invalid(errEmptySecret, allowed))
	case k.isPlaceholder(text):
		return false, nil, withPlace(f.Place, invalid(errPlaceholder, allowed))
	case text == f.variable.Text().Reveal():
		return false, nil, nil
	}
	f.variable.Set(text)
	return true, k.mistakes(text), nil
}
