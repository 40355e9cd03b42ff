package gatewayserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"adconnector/internal/gateway"
)

const (
	mediaForm = "application/x-www-form-urlencoded"
	mediaJSON = "application/json"
)

// contract is the OpenAPI document, compiled. It knows as much of OpenAPI as the
// document uses: one media type a body, parameters and bodies by reference.
type contract struct{ operations []*operation }

// operation is one method of one path.
type operation struct {
	id         string
	method     string
	segments   []string // of the path; {name} stands for any one segment
	bearer     bool     // wants a token
	parameters []parameter
	mediaType  string // empty: no body
	body       *jsonschema.Schema
}

type parameter struct {
	Name, In string
	Required bool
	schema   *jsonschema.Schema
}

// openAPI is what of an OpenAPI document makes a contract.
type openAPI struct {
	Security []map[string][]string
	Paths    map[string]map[string]struct {
		OperationID string
		Security    *[]map[string][]string
		Parameters  []reference
		RequestBody *struct {
			Content map[string]struct{ Schema reference }
		}
	}
	Components struct{ Parameters map[string]parameter }
}

type reference struct {
	Ref string `json:"$ref"`
}

// schemaBase names the document to the schema compiler; nothing is fetched.
const schemaBase = "https://adconnector.invalid/openapi.json"

// ownContract returns the gateway's contract, which all gateways share.
var ownContract = sync.OnceValues(func() (*contract, error) { return loadContract(gateway.OpenAPI) })

func loadContract(document []byte) (*contract, error) {
	var api openAPI
	if err := json.Unmarshal(document, &api); err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	compiler, err := schemaCompiler(document)
	if err != nil {
		return nil, err
	}
	c := &contract{}
	for path, methods := range api.Paths {
		for method, def := range methods {
			op := &operation{
				id:       def.OperationID,
				method:   strings.ToUpper(method),
				segments: strings.Split(path, "/"),
				bearer:   len(api.Security) > 0,
			}
			if def.Security != nil {
				op.bearer = len(*def.Security) > 0
			}
			for _, ref := range def.Parameters {
				p := api.Components.Parameters[strings.TrimPrefix(ref.Ref, "#/components/parameters/")]
				if p.schema, err = compiler.Compile(schemaBase + ref.Ref + "/schema"); err != nil {
					return nil, fmt.Errorf("contract: %s: %w", op.id, err)
				}
				op.parameters = append(op.parameters, p)
			}
			if def.RequestBody != nil {
				for mediaType, content := range def.RequestBody.Content {
					op.mediaType = mediaType
					if op.body, err = compiler.Compile(schemaBase + content.Schema.Ref); err != nil {
						return nil, fmt.Errorf("contract: %s: %w", op.id, err)
					}
				}
			}
			c.operations = append(c.operations, op)
		}
	}
	return c, nil
}

func schemaCompiler(document []byte) (*jsonschema.Compiler, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(schemaBase, doc); err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	return compiler, nil
}

// find returns the operation of a request and the values in its path.
func (c *contract) find(method, path string) (*operation, map[string]string, error) {
	segments := strings.Split(path, "/")
	var allowed []string
	for _, op := range c.operations {
		values, ok := op.match(segments)
		if !ok {
			continue
		}
		if op.method == method {
			return op, values, nil
		}
		allowed = append(allowed, op.method)
	}
	if allowed == nil {
		return nil, nil, fmt.Errorf("path %s is not in the contract", path)
	}
	slices.Sort(allowed)
	return nil, nil, fmt.Errorf("method %s is not in the contract of %s: want %s", method, path, strings.Join(allowed, " or "))
}

func (o *operation) match(segments []string) (map[string]string, bool) {
	if len(segments) != len(o.segments) {
		return nil, false
	}
	values := map[string]string{}
	for i, want := range o.segments {
		if name, ok := strings.CutPrefix(want, "{"); ok {
			values[strings.TrimSuffix(name, "}")] = segments[i]
		} else if want != segments[i] {
			return nil, false
		}
	}
	return values, true
}

// check holds a request against the contract. It returns the body as the schemas
// see it, and what is wrong, without the values of anything that may be secret.
func (o *operation) check(r *http.Request, path map[string]string, body []byte) (document any, problems []string) {
	problems = o.checkParameters(r, path)
	if o.body == nil {
		if len(body) > 0 {
			problems = append(problems, "body: want none")
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
		err = fmt.Errorf("no way to read %s", o.mediaType)
	}
	if err != nil {
		return nil, append(problems, "body: "+err.Error())
	}
	return document, append(problems, violations("body", o.body.Validate(document))...)
}

func (o *operation) checkParameters(r *http.Request, path map[string]string) (problems []string) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		problems = append(problems, "query: not well formed")
	}
	for _, p := range o.parameters {
		var given []string
		switch p.In {
		case "header":
			given = r.Header.Values(p.Name)
		case "query":
			given = query[p.Name]
			delete(query, p.Name)
		case "path":
			given = []string{path[p.Name]}
		}
		where := p.In + " " + p.Name
		switch {
		case len(given) > 1:
			problems = append(problems, where+": given more than once")
		case len(given) == 1:
			problems = append(problems, violations(where, p.schema.Validate(given[0]))...)
		case p.Required:
			problems = append(problems, where+": missing")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		problems = append(problems, "query "+name+": not in the contract")
	}
	return problems
}

// parseForm does not say what is wrong with a form: it may hold a password.
func parseForm(body []byte) (any, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !utf8.Valid(body) {
		return nil, fmt.Errorf("not a well-formed form")
	}
	fields := map[string]any{}
	for name, values := range form {
		if len(values) > 1 {
			return nil, fmt.Errorf("field %s is given more than once", name)
		}
		fields[name] = values[0]
	}
	return fields, nil
}

func parseJSON(body []byte) (any, error) {
	// encoding/json would put U+FFFD in place of what is no UTF-8.
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("not UTF-8")
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return document, nil
}

// violations lists what a schema found, one line a place.
func violations(where string, err error) []string {
	if err == nil {
		return nil
	}
	invalid, ok := err.(*jsonschema.ValidationError)
	if !ok {
		return []string{where + ": " + err.Error()}
	}
	var lines []string
	var walk func(*jsonschema.OutputUnit)
	walk = func(unit *jsonschema.OutputUnit) {
		if len(unit.Errors) == 0 {
			place := where
			if unit.InstanceLocation != "" {
				place += " " + unit.InstanceLocation
			}
			lines = append(lines, place+": "+unit.Error.String())
		}
		for i := range unit.Errors {
			walk(&unit.Errors[i])
		}
	}
	walk(invalid.DetailedOutput())
	slices.Sort(lines) // the validator walks maps
	return lines
}
