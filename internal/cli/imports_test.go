package cli

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rooms says which packages of this module each one may import, from the top down.
// Imports point down only; fault and secret are leaves. What the program does not
// consist of, as what is for tests only, has no row.
var rooms = []struct{ room, mayImport string }{
	{"cmd/adconnector", "cli"},
	{"internal/cli", "ad check config directory fault gateway identity sandbox schedule state status syncrun upload"},
	{"internal/status", "fault state"},
	{"internal/config", "directory gateway schedule secret"},
	{"internal/check", "ad directory fault gateway identity state syncrun"},
	{"internal/syncrun", "ad directory fault gateway identity membership state upload"},
	{"internal/upload", "ad fault gateway identity state"},
	{"internal/sandbox", "ad gateway"},
	{"internal/gateway", "fault secret"},
	{"internal/directory", "ad fault secret"},
	{"internal/state", "ad fault identity membership"},
	{"internal/identity", "ad membership"},
	{"internal/membership", "ad"},
	{"internal/schedule", ""},
	{"internal/ad", ""},
	{"internal/fault", ""},
	{"internal/secret", ""},
}

// keepers says which rooms alone may import what comes from outside.
var keepers = map[string]string{
	"github.com/go-ldap/ldap/v3":                     "internal/directory internal/sandbox", // the sandbox is a server
	"github.com/go-asn1-ber/asn1-ber":                "internal/directory internal/sandbox",
	"go.etcd.io/bbolt":                               "internal/state",
	"net/http":                                       "internal/gateway internal/cli internal/sandbox internal/status",
	"golang.org/x/oauth2":                            "internal/gateway",
	"github.com/cenkalti/backoff/v5":                 "internal/gateway",
	"github.com/prometheus/client_golang/prometheus": "internal/status",
	"github.com/spf13/cobra":                         "internal/cli",
	"github.com/schollz/progressbar/v3":              "internal/cli",
	"github.com/santhosh-tekuri/jsonschema/v6":       "internal/sandbox",
	"github.com/robfig/cron/v3":                      "internal/schedule",
	"github.com/joho/godotenv":                       "internal/config",
	"os/signal":                                      "internal/cli",
	"github.com/rs/zerolog/log":                      "", // the logger is handed over
}

func TestImportsPointDown(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "-deps", "./cmd/adconnector")
	list.Dir = "../.."
	output, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, output)
	}
	const module = "adconnector/"
	allowed := map[string][]string{}
	for _, r := range rooms {
		allowed[module+r.room] = strings.Fields(r.mayImport)
	}
	for line := range strings.Lines(string(output)) {
		words := strings.Fields(line)
		if !strings.HasPrefix(words[0], module) {
			continue
		}
		room, known := allowed[words[0]]
		if !known {
			t.Errorf("%s has no row in the table", words[0])
		}
		for _, imported := range words[1:] {
			if below, ours := strings.CutPrefix(imported, module+"internal/"); ours && !slices.Contains(room, below) {
				t.Errorf("%s may not import %s", words[0], imported)
			}
			if keeper, kept := keepers[imported]; kept && !slices.Contains(strings.Fields(keeper), strings.TrimPrefix(words[0], module)) {
				t.Errorf("%s may not import %s, which is kept by %q", words[0], imported, keeper)
			}
		}
	}
}
