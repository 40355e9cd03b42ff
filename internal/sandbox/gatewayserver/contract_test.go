package gatewayserver

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"adconnector/internal/gateway"
)

// contractDocument returns the parsed OpenAPI document.
func contractDocument(t *testing.T) map[string]any {
	t.Helper()
	document, err := parseJSON(gateway.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return document.(map[string]any)
}

// lookUp returns the value at a path of names, or nil.
func lookUp(node any, names ...string) any {
	for _, name := range names {
		object, _ := node.(map[string]any)
		node = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)]
	}
	return node
}

func resolve(document map[string]any, node any) any {
	if ref, ok := lookUp(node, "$ref").(string); ok {
		return lookUp(document, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return node
}

func TestContractIsWellFormed(t *testing.T) {
	t.Parallel()
	document := contractDocument(t)
	if version := document["openapi"]; version != "3.1.0" {
		t.Errorf("openapi %v", version)
	}
	referred := map[string]bool{}
	var walk func(place string, node any)
	walk = func(place string, node any) {
		switch node := node.(type) {
		case map[string]any:
			if ref, ok := node["$ref"].(string); ok {
				referred[ref] = true
				if !strings.HasPrefix(ref, "#/") || resolve(document, node) == nil {
					t.Errorf("%s: unresolved reference %s", place, ref)
				}
			}
			if status, ok := node["x-status"]; ok && status != "public" && status != "ours" {
				t.Errorf("%s: x-status %v", place, status)
			}
			for name, child := range node {
				walk(place+"/"+strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(name), child)
				if name == "schema" {
					resolveSchema(t, child)
				}
			}
		case []any:
			for i, child := range node {
				walk(place+"/"+strconv.Itoa(i), child)
			}
		}
	}
	walk("#", document)

	for section, components := range document["components"].(map[string]any) {
		for name, component := range components.(map[string]any) {
			place := "#/components/" + section + "/" + name
			if section != "securitySchemes" && !referred[place] {
				t.Errorf("%s is not used", place)
			}
			if section != "responses" && lookUp(component, "x-status") == nil {
				t.Errorf("%s has no x-status", place)
			}
		}
	}
	ids := map[string]bool{}
	for path, methods := range document["paths"].(map[string]any) {
		for method, operation := range methods.(map[string]any) {
			id, _ := lookUp(operation, "operationId").(string)
			if id == "" || ids[id] {
				t.Errorf("%s %s: operationId %q", method, path, id)
			}
			ids[id] = true
			if lookUp(operation, "x-status") == nil || lookUp(operation, "summary") == nil {
				t.Errorf("%s: no x-status or no summary", id)
			}
			for _, segment := range strings.Split(path, "/") {
				if name, ok := strings.CutPrefix(segment, "{"); ok && !hasParameter(document, operation, strings.TrimSuffix(name, "}")) {
					t.Errorf("%s: no path parameter %s", id, segment)
				}
			}
		}
	}
	for _, id := range []string{"loginBasic", "loginClientOfUser", "loginClientOfSubscription", "loginClientCredentials", "getConnection", "getProfile", "syncAssets", "putState"} {
		if !ids[id] {
			t.Errorf("no operation %s", id)
		}
		delete(ids, id)
	}
	if len(ids) > 0 {
		t.Errorf("operations without an implementation: %v", ids)
	}
}

// resolveSchema returns a schema of the document in the form that validates.
func resolveSchema(t *testing.T, node any) *jsonschema.Resolved {
	t.Helper()
	api, err := parseOpenAPI(gateway.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("#/components/schemas/"), []byte("#/$defs/")), &schema); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	resolved, err := api.resolve(&schema)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return resolved
}

func hasParameter(document map[string]any, operation any, name string) bool {
	parameters, _ := lookUp(operation, "parameters").([]any)
	for _, p := range parameters {
		if p = resolve(document, p); lookUp(p, "name") == name && lookUp(p, "in") == "path" {
			return true
		}
	}
	return false
}

// checkResponse validates a response against the contract. It ignores a call that is not in
// the contract.
func checkResponse(t *testing.T, c *contract, call call, w *httptest.ResponseRecorder) {
	t.Helper()
	path, _, _ := strings.Cut(call.path, "?")
	op, _, err := c.find(call.method, path)
	if err != nil {
		return
	}
	document := contractDocument(t)
	var responses any
	for path, methods := range lookUp(document, "paths").(map[string]any) {
		if pathPattern(path).String() == op.path.String() {
			responses = lookUp(methods, strings.ToLower(op.method), "responses")
		}
	}
	var response any
	for _, name := range []string{strconv.Itoa(w.Code), strconv.Itoa(w.Code/100) + "XX", "default"} {
		if response == nil {
			response = resolve(document, lookUp(responses, name))
		}
	}
	mediaType, _, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	ref, ok := lookUp(response, "content", mediaType, "schema", "$ref").(string)
	if !ok {
		t.Fatalf("response %d with %s is not in the contract of %s", w.Code, mediaType, op.id)
	}
	var body any = w.Body.String()
	if mediaType == mediaJSON {
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
	}
	if err := resolveSchema(t, map[string]any{"$ref": ref}).Validate(body); err != nil {
		t.Errorf("response: %v", err)
	}
}
