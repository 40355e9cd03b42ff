package fault

import "github.com/rs/zerolog"

// Fields returns the log fields of err: error and, if not empty, remedy.
func Fields(err error) zerolog.LogObjectMarshaler { return fields{err} }

type fields struct{ err error }

// MarshalZerologObject adds the fields.
func (f fields) MarshalZerologObject(event *zerolog.Event) {
	event.Str("error", f.err.Error())
	if remedy := Remedy(f.err); remedy != "" {
		event.Str("remedy", remedy)
	}
}

// MarshalZerologObject adds the fields repeated and failing_since if the error occurred
// more than once in a row.
func (r Repetition) MarshalZerologObject(event *zerolog.Event) {
	if r.Times > 1 {
		event.Int("repeated", r.Times).Time("failing_since", r.Since)
	}
}
