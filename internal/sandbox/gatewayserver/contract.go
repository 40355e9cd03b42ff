package gatewayserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"

	"adconnector/internal/gateway"
)

const (
	mediaForm = "application/x-www-form-urlencoded"
	mediaJSON = "application/json"
)

// contract is the OpenAPI document, resolved. It supports as much of OpenAPI as the
// document uses: one media type for each body, parameters and bodies by reference.
type contract struct{ operations []*operation }

// operation is one method of one path.
type operation struct {
	id         string
	method     string
	path       *regexp.Regexp // with a group for each parameter
	bearer     bool           // requires a token
	parameters []parameter
	mediaType  string // empty: no body
	body       *jsonschema.Resolved
	item       *jsonschema.Resolved // of syncAssets: one item of assetData
}

type parameter struct {
	Name, In string
	Required bool
	Schema   *jsonschema.Schema

	schema *jsonschema.Resolved
}

// openAPI is the part of the OpenAPI document that a contract is built from.
type openAPI struct {
	Security   []map[string][]string
	Paths      map[string]map[string]definition // by path and method
	Components struct {
		Parameters map[string]parameter
		Schemas    map[string]*jsonschema.Schema
	}
}

// definition is an operation of the document.
type definition struct {
	OperationID string
	Security    *[]map[string][]string // nil: that of the document
	Parameters  []struct {
		Ref string `json:"$ref"`
	}
	RequestBody *struct {
		Content map[string]struct{ Schema *jsonschema.Schema }
	}
}

// defaultContract returns the contract of package gateway. All servers share it.
var defaultContract = sync.OnceValues(func() (*contract, error) { return loadContract(gateway.OpenAPI) })

func loadContract(document []byte) (*contract, error) {
	api, err := parseOpenAPI(document)
	if err != nil {
		return nil, fmt.Errorf("parse contract: %w", err)
	}
	c := &contract{}
	for path, methods := range api.Paths {
		for method, definition := range methods {
			op := &operation{
				id: definition.OperationID, method: strings.ToUpper(method), path: pathPattern(path), bearer: len(api.Security) > 0,
			}
			if definition.Security != nil {
				op.bearer = len(*definition.Security) > 0
			}
			if err := api.resolveOperation(op, definition); err != nil {
				return nil, fmt.Errorf("resolve %s: %w", op.id, err)
			}
			c.operations = append(c.operations, op)
		}
	}
	return c, nil
}

// resolveOperation sets the parameters and the body of an operation.
func (api *openAPI) resolveOperation(op *operation, definition definition) (err error) {
	for _, ref := range definition.Parameters {
		p := api.Components.Parameters[strings.TrimPrefix(ref.Ref, "#/components/parameters/")]
		if p.schema, err = api.resolve(p.Schema); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		op.parameters = append(op.parameters, p)
	}
	if definition.RequestBody != nil {
		for mediaType, content := range definition.RequestBody.Content {
			op.mediaType = mediaType
			if op.body, err = api.resolve(content.Schema); err != nil {
				return err
			}
		}
	}
	if op.id == "syncAssets" {
		op.item, err = api.resolve(&jsonschema.Schema{Ref: "#/$defs/AssetItem"})
	}
	return err
}

// parseOpenAPI parses the document. Its references to schemas become references to
// $defs, because the validator resolves references within a JSON schema only.
func parseOpenAPI(document []byte) (openAPI, error) {
	var api openAPI
	err := json.Unmarshal(bytes.ReplaceAll(document, []byte("#/components/schemas/"), []byte("#/$defs/")), &api)
	return api, err
}

// resolve returns a schema of the document in the form that validates.
func (api *openAPI) resolve(schema *jsonschema.Schema) (*jsonschema.Resolved, error) {
	root := *schema
	root.Defs = api.Components.Schemas
	return root.Resolve(nil)
}

// find returns the operation of a request and the parameters in its path.
func (c *contract) find(method, path string) (*operation, map[string]string, error) {
	for _, op := range c.operations {
		match := op.path.FindStringSubmatch(path)
		if match == nil || op.method != method {
			continue
		}
		values := map[string]string{}
		for i, name := range op.path.SubexpNames() {
			values[name] = match[i]
		}
		return op, values, nil
	}
	return nil, nil, fmt.Errorf("%s %s is not in the contract", method, path)
}

// pathPattern returns the pattern of a path of the document, in which {name} matches any segment.
func pathPattern(path string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.NewReplacer(`\{`, "(?P<", `\}`, ">[^/]*)").Replace(regexp.QuoteMeta(path)) + "$")
}

// check validates a request. It returns the parsed body and the problems, without values
// that can be secret.
func (o *operation) check(r *http.Request, path map[string]string, body []byte) (document any, problems []string) {
	problems = o.checkParameters(r, path)
	if o.body == nil {
		if len(body) > 0 {
			problems = append(problems, "body: not allowed")
		}
		return nil, problems
	}
	mediaType, attributes, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != o.mediaType {
		return nil, append(problems, "header Content-Type: want "+o.mediaType)
	}
	if charset, ok := attributes["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return nil, append(problems, "header Content-Type: want charset utf-8")
	}
	switch o.mediaType {
	case mediaForm:
		document, err = parseForm(body)
	case mediaJSON:
		document, err = parseJSON(body)
	default:
		err = fmt.Errorf("media type %s is not supported", o.mediaType)
	}
	if err != nil {
		return nil, append(problems, "body: "+err.Error())
	}
	if err := o.body.Validate(document); err != nil {
		problems = append(problems, o.bodyViolations(document, err)...)
	}
	return document, problems
}

func (o *operation) checkParameters(r *http.Request, path map[string]string) (problems []string) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		problems = append(problems, "query: malformed")
	}
	for _, p := range o.parameters {
		var values []string
		switch p.In {
		case "header":
			values = r.Header.Values(p.Name)
		case "query":
			values = query[p.Name]
			delete(query, p.Name)
		case "path":
			values = []string{path[p.Name]}
		}
		place := p.In + " " + p.Name
		switch {
		case len(values) > 1:
			problems = append(problems, place+": repeated")
		case len(values) == 1:
			if err := p.schema.Validate(values[0]); err != nil {
				problems = append(problems, violation(place, err))
			}
		case p.Required:
			problems = append(problems, place+": missing")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		problems = append(problems, "query "+name+": not in the contract")
	}
	return problems
}

// parseForm parses a form. Its errors contain no value, because it can be a password.
func parseForm(body []byte) (any, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !utf8.Valid(body) {
		return nil, fmt.Errorf("malformed form")
	}
	fields := map[string]any{}
	for name, values := range form {
		if len(values) > 1 {
			return nil, fmt.Errorf("field %s is repeated", name)
		}
		fields[name] = values[0]
	}
	return fields, nil
}

func parseJSON(body []byte) (any, error) {
	// encoding/json replaces invalid UTF-8 with U+FFFD.
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("not UTF-8")
	}
	var document any
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return document, nil
}

// bodyViolations returns the violations of a document with the validation error err.
// The validator stops at the first error, and its error has no index of an array item.
// For items of assetData, the result therefore has one line for each invalid item.
func (o *operation) bodyViolations(document any, err error) (lines []string) {
	request, _ := document.(map[string]any)
	items, _ := request["assetData"].([]any)
	if o.item != nil {
		for i, item := range items {
			if err := o.item.Validate(item); err != nil {
				lines = append(lines, violation(fmt.Sprintf("body /assetData/%d", i), err))
			}
		}
	}
	if len(lines) == 0 {
		lines = []string{violation("body", err)}
	}
	return lines
}

// violation returns the text for a validation error. Each level of a schema wraps the
// error of the next level. The last three name the property, the schema that it refers
// to and the rule.
func violation(place string, err error) string {
	levels := [3]error{err, err, err}
	for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(cause) {
		levels = [3]error{levels[1], levels[2], cause}
	}
	return place + ": " + levels[0].Error()
}
