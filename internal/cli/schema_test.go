package cli

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"adconnector/internal/check"
	"adconnector/internal/state"
	"adconnector/internal/status"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// schemaDir has the schemas of the JSON documents, which docs/commands.md names.
const schemaDir = "../../docs/schema"

// readSchema returns a schema as a JSON value.
func readSchema(t *testing.T, name string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(schemaDir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return schema
}

// restrict makes a schema refuse undocumented keys. The published schema allows them, because later
// versions add keys.
func restrict(schema map[string]any, isPart bool) {
	_, refers := schema["$ref"]
	parts, isWhole := schema["allOf"].([]any)
	properties, _ := schema["properties"].(map[string]any)
	switch {
	case isPart: // the whole schema refuses them
	case refers || isWhole:
		schema["unevaluatedProperties"] = false
	case properties != nil:
		schema["additionalProperties"] = false
	}
	for _, part := range parts {
		restrict(part.(map[string]any), true)
	}
	alternatives, _ := schema["anyOf"].([]any)
	for _, alternative := range alternatives {
		restrict(alternative.(map[string]any), false)
	}
	for _, property := range properties {
		restrict(property.(map[string]any), false)
	}
	if items, is := schema["items"].(map[string]any); is {
		restrict(items, false)
	}
}

// strictSchema returns the restricted schema with a name.
func strictSchema(t *testing.T, name string) *jsonschema.Resolved {
	t.Helper()
	load := func(uri *url.URL) (*jsonschema.Schema, error) {
		name := strings.TrimSuffix(path.Base(uri.Path), ".json")
		schema := readSchema(t, name)
		restrict(schema, name == "run") // others refer to it
		encoded, err := json.Marshal(schema)
		if err != nil {
			return nil, err
		}
		var parsed jsonschema.Schema
		return &parsed, json.Unmarshal(encoded, &parsed)
	}
	root, err := load(&url.URL{Path: name + ".json"})
	if err != nil {
		t.Fatal(err)
	}
	resolved, err := root.Resolve(&jsonschema.ResolveOptions{Loader: load})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return resolved
}

// TestDocumentsMatchSchemas tests the documents of commands that succeed, that find something, and
// that fail.
func TestDocumentsMatchSchemas(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	schemas := map[string]*jsonschema.Resolved{}
	for _, name := range []string{"sync", "status", "check"} {
		schemas[name] = strictSchema(t, name)
	}
	validate := func(s *fixture, code int, args ...string) {
		t.Helper()
		o := s.invoke(t, append(args, "--output", "json")...)
		if o.Code != code {
			t.Errorf("%v: exit code %d, want %d", args, o.Code, code)
		}
		if err := schemas[args[0]].Validate(decode[any](t, o)); err != nil {
			t.Errorf("%v: %v in %s", args, err, o.Stdout)
		}
	}
	validate(s, exitDone, "status")
	validate(s, exitDone, "sync", "--dry-run")
	validate(s, exitDone, "sync")
	validate(s, exitDone, "check")
	s.env["sync.max-deletes"] = "2"
	s.remove(t, 3)
	s.AddUser(userDN(77))
	s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool { return x.Status(http.StatusUnprocessableEntity, `{"message":"no"}`) }))
	validate(s, exitHeld, "sync", "--dry-run")
	validate(s, exitHeld, "sync")
	s.Must(s.Hide(userDN(5), "userAccountControl"))
	validate(s, exitHeld, "sync", "--full")
	validate(s, exitDone, "status")
	wrong := &fixture{Environment: s.Environment, env: s.env.With(testenv.Settings{"ldap.password": wrongPassword})}
	validate(wrong, exitRefused, "sync")
	validate(wrong, exitRefused, "check")
	validate(wrong, exitDone, "status")
	if r := decode[status.Report](t, s.invoke(t, "status", "--output", "json")); r.Error == "" || r.Class != "refused" {
		t.Errorf("class %q of %q", r.Class, r.Error)
	}
	invalid := &fixture{Environment: s.Environment, env: s.env.With(testenv.Settings{"qualys.profileUuid": "no UUID"})}
	for _, command := range []string{"sync", "status", "check"} {
		validate(invalid, exitUsage, command)
	}
	wrong.env["service.cron-expression"], wrong.env["service.admin.address"] = yearly, "127.0.0.1:0"
	d := wrong.serve(t, nil)
	address := d.await(t, func(l testlog.Line) bool { return l.Text("component") == "status" && l.Text("address") != "" }).Text("address")
	d.await(t, testlog.Message(runFinished))
	wrong.env["service.admin.address"] = address
	validate(wrong, exitDone, "status")
	_, body := get(t, address, "/status")
	var document any
	if err := json.Unmarshal([]byte(body), &document); err != nil {
		t.Fatal(err)
	}
	if err := schemas["status"].Validate(document); err != nil {
		t.Errorf("/status: %v", err)
	}
}

// TestSchemasAreComplete tests that the schemas have the keys of the types that are encoded, and no
// others.
func TestSchemasAreComplete(t *testing.T) {
	t.Parallel()
	sync := readSchema(t, "sync")["anyOf"].([]any)[0].(map[string]any)["allOf"].([]any)[1].(map[string]any)
	own := sync["properties"].(map[string]any)
	if keys := slices.Sorted(maps.Keys(own)); !slices.Equal(keys, []string{"dry_run", "planned"}) {
		t.Errorf("keys of sync: %v", keys)
	}
	compareKeys(t, "planned", reflect.TypeFor[[]plannedAsset](), own["planned"].(map[string]any))
	compareKeys(t, "run", reflect.TypeFor[state.Run](), readSchema(t, "run"))
	compareKeys(t, "error", reflect.TypeFor[errorDocument](), readSchema(t, "error"))
	compareKeys(t, "check", reflect.TypeFor[check.Report](), readSchema(t, "check"))
	compareKeys(t, "status", reflect.TypeFor[status.Report](), readSchema(t, "status")["anyOf"].([]any)[0].(map[string]any))
}

// compareKeys compares the keys of a type and of a schema, and those of their parts.
func compareKeys(t *testing.T, name string, encoded reflect.Type, schema map[string]any) {
	t.Helper()
	for encoded.Kind() == reflect.Pointer {
		encoded = encoded.Elem()
	}
	switch {
	case encoded.Kind() == reflect.Slice && encoded.Elem().Kind() != reflect.Uint8:
		items, _ := schema["items"].(map[string]any)
		if items["$ref"] == nil {
			compareKeys(t, name, encoded.Elem(), items)
		}
		return
	case encoded.Kind() != reflect.Struct || encoded == reflect.TypeFor[time.Time]():
		return
	}
	properties, _ := schema["properties"].(map[string]any)
	fields := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(encoded) {
		if key, _, _ := strings.Cut(field.Tag.Get("json"), ","); key != "" && key != "-" {
			fields[key] = field.Type
		}
	}
	if got, want := slices.Sorted(maps.Keys(properties)), slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
		t.Errorf("%s: the schema has %v, the type %v", name, got, want)
	}
	for key, field := range fields {
		if property, is := properties[key].(map[string]any); is {
			compareKeys(t, name+"."+key, field, property)
		}
	}
}
