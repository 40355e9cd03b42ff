package gateway_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"adconnector/internal/gateway"
)

// TestDocumentedCalls compares the table of calls in docs/gateway.md with the contract.
func TestDocumentedCalls(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../docs/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(content), "| call | when | origin | setting |\n| --- | --- | --- | --- |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	lines := strings.Split(table, "\n")
	var contract struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Status      string `json:"x-status"`
			Description string `json:"description"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(gateway.OpenAPI, &contract); err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`^gateway\.path\.\w+`)
	operations := 0
	for path, methods := range contract.Paths {
		for method, operation := range methods {
			operations++
			call := "| `" + strings.ToUpper(method) + " " + path
			if operation.OperationID == "loginClientCredentials" { // its path is an example
				call = "| `POST` to `oauth.token.url` "
			}
			found := false
			for _, line := range lines {
				rest, is := strings.CutPrefix(line, call)
				if !is || !strings.ContainsAny(rest[:1], "`?|") {
					continue
				}
				found = true
				if key := setting.FindString(operation.Description); !strings.Contains(rest, operation.Status) || !strings.Contains(rest, key) {
					t.Errorf("%s is %s, setting %q: %s", operation.OperationID, operation.Status, key, line)
				}
			}
			if !found {
				t.Errorf("%s is missing: %s`", operation.OperationID, call)
			}
		}
	}
	if len(lines) != operations {
		t.Errorf("%d rows, %d operations", len(lines), operations)
	}
}
