package cli

import (
	"github.com/rs/zerolog"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/input"
)

// secretFiles reads the files of secrets again, and logs each change and each new error. A file
// that stays unusable is not logged at each run.
type secretFiles struct {
	files  []*config.SecretFile
	errors map[string]string // the logged one by key
	log    zerolog.Logger
}

func newSecretFiles(c *config.Config, log zerolog.Logger) *secretFiles {
	return &secretFiles{c.Secrets, map[string]string{}, log}
}

// reread reads all files.
func (s *secretFiles) reread() {
	for _, f := range s.files {
		changed, mistakes, err := f.Reread()
		if err != nil {
			if text := err.Error(); s.errors[f.Key] != text {
				s.errors[f.Key] = text
				s.log.Warn().Str("key", f.Key).EmbedObject(fault.Fields(err)).Msg(MsgSecretKept)
			}
			continue
		}
		delete(s.errors, f.Key)
		if changed {
			s.log.Info().Str("key", f.Key).Str("place", f.Place).Msg(MsgSecretChanged)
		}
		if len(mistakes) > 0 {
			s.log.Warn().Str("key", f.Key).Str("place", f.Place).Str("reason", input.Join(mistakes).Error()).Str("remedy", input.Remedy(mistakes)).Msg(MsgMistake)
		}
	}
}
