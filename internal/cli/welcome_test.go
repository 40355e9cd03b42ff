package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestWelcome tests what somebody reads who starts the program on a terminal without settings: the
// first steps, and no errors. In the other cases the log has the hint first, and then the errors.
func TestWelcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args, environ []string
		isFile        bool // stderr is no terminal
		welcomes      bool
	}{
		"no command":       {welcomes: true},
		"run":              {args: []string{"run"}, welcomes: true},
		"sync":             {args: []string{"sync"}, welcomes: true},
		"other variables":  {environ: []string{"HTTP_PROXY=http://127.0.0.1:1"}, welcomes: true},
		"container":        {isFile: true},
		"JSON log":         {args: []string{"--log-format", "json"}},
		"JSON result":      {args: []string{"sync", "--output", "json"}},
		"a setting":        {environ: []string{"LDAP_HOST=dc1.corp.example.com"}},
		"missing env file": {args: []string{"--env-file", "no/such.env"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			p := &program{environ: c.environ, stdout: io.Discard, stderr: &screen{out: &log}, levelHook: newLevelHook()}
			defer p.levelHook.close()
			if c.isFile {
				p.stderr = &log
			}
			code := p.execute(t.Context(), c.args)
			text := log.String()
			if code != exitUsage || (text == welcome) != c.welcomes || strings.Contains(text, MsgBadConfiguration) == c.welcomes {
				t.Errorf("exit code %d: %s", code, text)
			}
			first, _, _ := strings.Cut(text, "\n")
			if !c.welcomes && len(c.environ) == 0 && name != "missing env file" && !containsAll(first, MsgNoSettings, "adconnector demo") {
				t.Errorf("first line %s", first)
			}
		})
	}
}
