package fault

import "github.com/rs/zerolog"

// Fields returns the fields of a log line about err: error and, where there is one, remedy.
func Fields(err error) zerolog.LogObjectMarshaler { return fields{err} }

type fields struct{ err error }

// MarshalZerologObject adds the fields.
func (f fields) MarshalZerologObject(event *zerolog.Event) {
	event.Str("error", f.err.Error())
	if remedy := Remedy(f.err); remedy != "" {
		event.Str("remedy", remedy)
	}
}

// MarshalZerologObject adds how often the error occurred in a row and since when, from the
// second time on.
func (r Repetition) MarshalZerologObject(event *zerolog.Event) {
	if r.Times > 1 {
		event.Int("repeated", r.Times).Time("failing_since", r.Since)
	}
}
