package serve

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
)

// openAPIPath is where the description of the server's HTTP interface is.
const openAPIPath = "/openapi.json"

// node is an object of an OpenAPI document.
type node = map[string]any

// apiRoute is a path of the Open Inference Protocol for the document.
type apiRoute struct {
	method, path string // parameters of the path in braces
	summary      string
	body, answer string // schemas; "": none
	errors       []inference.Code
}

// apiRoutes are the protocol's paths that a client of models uses.
var apiRoutes = []apiRoute{
	{"GET", "/v2", "The server and its extensions", "", "Server", nil},
	{"GET", "/v2/health/live", "Whether the server runs", "", "Live", nil},
	{"GET", "/v2/health/ready", "Whether all models can be asked", "", "Ready", []inference.Code{inference.Unavailable}},
	{"GET", "/v2/models", "The names of the models", "", "Models", nil},
	{"GET", "/v2/models/{model}", "The inputs and outputs of a model", "", "Model", []inference.Code{inference.NotFound}},
	{"GET", "/v2/models/{model}/ready", "Whether a model can be asked", "", "ModelReady", []inference.Code{inference.NotFound, inference.Unavailable}},
	{"POST", "/v2/models/{model}/infer", "An inference", "InferRequest", "InferResponse", inferErrors},
	{"GET", "/v2/models/{model}/versions/{version}", "The inputs and outputs of a version", "", "Model", []inference.Code{inference.NotFound}},
	{"POST", "/v2/models/{model}/versions/{version}/infer", "An inference by a version", "InferRequest", "InferResponse", inferErrors},
}

// inferErrors are the errors of a request that computes.
var inferErrors = []inference.Code{inference.Invalid, inference.NotFound, inference.TooLarge, inference.Exhausted, inference.Internal, inference.Unavailable, inference.Deadline}

// openAPI returns the description of the server's HTTP interface as an OpenAPI 3.0
// document, which says of each task what its table says: what a request holds, its options,
// and the object that answers it. version is the program's.
func openAPI(kinds []*task.Kind, version string) ([]byte, error) {
	d := &document{paths: node{}, schemas: protocolSchemas(), types: map[reflect.Type]string{}}
	for _, r := range apiRoutes {
		d.route(r)
	}
	for _, k := range kinds {
		if k.Input() != "" {
			d.task(k)
		}
	}
	return json.Marshal(node{
		"openapi": "3.0.3",
		"info": node{"title": "Carousel", "version": version,
			"description": "Recurrent sequence models by the Open Inference Protocol, and in the form of each task."},
		"paths":      d.paths,
		"components": node{"schemas": d.schemas},
	})
}

// openAPIHandler answers GET requests with the document.
func openAPIHandler(kinds []*task.Kind, version string) (http.Handler, error) {
	text, err := openAPI(kinds, version)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // of a client that has gone
	}), err
}

// document is an OpenAPI document that is made.
type document struct {
	paths, schemas node
	types          map[reflect.Type]string // structs that have a schema, by its name
}

func ref(schema string) node { return node{"$ref": "#/components/schemas/" + schema} }

func jsonContent(schema node) node {
	return node{"application/json": node{"schema": schema}}
}

func (d *document) route(r apiRoute) {
	var params []any
	for _, part := range strings.Split(r.path, "/") {
		if name, is := strings.CutPrefix(part, "{"); is {
			params = append(params, node{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": node{"type": "string"}})
		}
	}
	o := d.operation(r.summary, r.body, r.answer, r.errors)
	if params != nil {
		o["parameters"] = params
	}
	path, _ := d.paths[r.path].(node)
	if path == nil {
		path = node{}
		d.paths[r.path] = path
	}
	path[strings.ToLower(r.method)] = o
}

func (d *document) operation(summary, body, answer string, errors []inference.Code) node {
	responses := node{"200": node{"description": "The answer", "content": jsonContent(ref(answer))}}
	for _, code := range errors {
		status := (&inference.Error{Code: code}).HTTPStatus()
		responses[fmt.Sprint(status)] = node{"description": http.StatusText(status), "content": jsonContent(ref("Error"))}
	}
	o := node{"summary": summary, "responses": responses}
	if body != "" {
		o["requestBody"] = node{"required": true, "content": jsonContent(ref(body))}
	}
	return o
}

// task adds the path of a task.
func (d *document) task(k *task.Kind) {
	name := strings.ToUpper(k.Name[:1]) + k.Name[1:]
	inputs, others := fieldsFor(k)
	var choices []any // one of the inputs
	properties := node{}
	for _, f := range slices.Concat(inputs, others) {
		var schema node
		switch f.Go.Type {
		case reflect.TypeFor[map[string]json.RawMessage]():
			schema = d.options(k)
		default:
			schema = d.of(f.Go.Type, false)
		}
		schema["description"] = f.Go.Tag.Get("help")
		properties[f.Name] = schema
	}
	for _, f := range inputs {
		choices = append(choices, node{"required": []string{f.Name}})
	}
	d.schemas[name+"Request"] = node{"type": "object", "properties": properties, "additionalProperties": false, "oneOf": choices}
	answer := d.structure(reflect.Indirect(reflect.New(elem(reflect.TypeOf(k.Prediction)))).Type())
	schema, version := k.PredictSchema()
	answer["properties"].(node)["schema"] = node{"type": "string", "enum": []string{result.Schema(schema, version)}}
	answer["required"] = append([]string{"schema"}, answer["required"].([]string)...)
	d.schemas[name+"Answer"] = answer
	d.paths[taskPath(k)] = node{"post": d.operation("A prediction by "+k.Noun, name+"Request", name+"Answer", append([]inference.Code{inference.Method}, inferErrors...))}
}

// elem is what a pointer points to.
func elem(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// options returns the schema of a task's options.
func (d *document) options(k *task.Kind) node {
	o := k.Predicting()
	properties := node{}
	types := map[string]reflect.Type{}
	for _, f := range result.Fields(reflect.TypeOf(o).Elem()) {
		types[f.Name] = f.Go.Type
	}
	for _, s := range clientSettings(o) {
		schema := d.of(types[s.Name], false)
		one := schema
		if items, list := schema["items"].(node); list {
			one = items
		}
		if words := s.Words(); words != nil {
			one["enum"] = append(words, "")
		}
		if len(s.Range) == 1 && one["type"] != "string" {
			bound(one, s.Range[0])
		}
		schema["description"] = s.Describe()
		properties[s.Name] = schema
	}
	return node{"type": "object", "properties": properties, "additionalProperties": false}
}

// bound adds the bounds of an interval to the schema of a number.
func bound(schema node, i settings.Interval) {
	if !math.IsInf(i.Least, 0) {
		schema["minimum"] = i.Least
		if i.Above {
			schema["exclusiveMinimum"] = true
		}
	}
	if !math.IsInf(i.Most, 0) {
		schema["maximum"] = i.Most
		if i.Below {
			schema["exclusiveMaximum"] = true
		}
	}
}

// of returns the schema of the JSON that package result writes for a type. nullable says
// that numbers may be null, as those are that are not finite.
func (d *document) of(t reflect.Type, nullable bool) node {
	switch {
	case t.Kind() == reflect.Pointer:
		return d.of(t.Elem(), nullable)
	case t == reflect.TypeFor[json.RawMessage]():
		return node{}
	case t == reflect.TypeFor[time.Time]():
		return node{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()), reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return node{"type": "string"}
	}
	switch k := t.Kind(); {
	case k == reflect.Bool:
		return node{"type": "boolean"}
	case k == reflect.String:
		return node{"type": "string"}
	case k == reflect.Float32 || k == reflect.Float64:
		if nullable {
			return node{"type": "number", "nullable": true}
		}
		return node{"type": "number"}
	case reflect.Int <= k && k <= reflect.Uint64:
		return node{"type": "integer"}
	case k == reflect.Slice || k == reflect.Array:
		return node{"type": "array", "items": d.of(t.Elem(), nullable)}
	case k == reflect.Map:
		return node{"type": "object", "additionalProperties": d.of(t.Elem(), nullable)}
	case k == reflect.Struct:
		return d.named(t)
	}
	panic(fmt.Sprintf("serve: no schema for %v", t)) // a field that package result cannot write either
}

// named returns a reference to the schema of a struct.
func (d *document) named(t reflect.Type) node {
	name, known := d.types[t]
	if !known {
		pkg := t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:]
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + t.Name()
		d.types[t] = name
		d.schemas[name] = d.structure(t)
	}
	return ref(name)
}

// structure returns the schema of a struct's object.
func (d *document) structure(t reflect.Type) node {
	properties, required := node{}, []string{}
	for _, f := range result.Fields(t) {
		properties[f.Name] = d.of(f.Go.Type, true)
		if !f.Optional {
			required = append(required, f.Name)
		}
	}
	return node{"type": "object", "properties": properties, "required": required}
}

// protocolSchemas are the objects of the protocol.
func protocolSchemas() node {
	text, boolean := node{"type": "string"}, node{"type": "boolean"}
	list := func(of node) node { return node{"type": "array", "items": of} }
	structure := func(properties node, optional ...string) node {
		required := slices.DeleteFunc(slices.Sorted(maps.Keys(properties)), func(name string) bool { return slices.Contains(optional, name) })
		return node{"type": "object", "properties": properties, "required": required}
	}
	parameters := node{"type": "object", "additionalProperties": node{"oneOf": []any{boolean, text, node{"type": "number"}}}}
	datatype := node{"type": "string", "enum": []string{
		"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"}}
	shape := list(node{"type": "integer"})
	// Data are nested lists as the shape says, or one list of all elements.
	data := node{"type": "array", "items": node{}, "description": "elements in row-major order, in one list or nested"}
	info := structure(node{"name": text, "datatype": datatype, "shape": shape})
	tensor := structure(node{"name": text, "shape": shape, "datatype": datatype, "parameters": parameters, "data": data}, "parameters", "data")
	return node{
		"Error":      structure(node{"error": text}),
		"Live":       structure(node{"live": boolean}),
		"Ready":      structure(node{"ready": boolean}),
		"ModelReady": structure(node{"name": text, "ready": boolean}, "name"),
		"Server":     structure(node{"name": text, "version": text, "extensions": list(text)}),
		"Models":     structure(node{"models": list(text)}),
		"Model":      structure(node{"name": text, "versions": list(text), "platform": text, "inputs": list(info), "outputs": list(info), "parameters": structure(node{"batched": node{"type": "boolean"}, "stateful": node{"type": "boolean"}})}),
		"InferRequest": structure(node{"id": text, "parameters": parameters, "inputs": list(tensor),
			"outputs": list(structure(node{"name": text, "parameters": parameters}, "parameters"))}, "id", "parameters", "outputs"),
		"InferResponse": structure(node{"model_name": text, "model_version": text, "id": text, "parameters": parameters, "outputs": list(tensor)}, "model_version", "id", "parameters"),
	}
}
