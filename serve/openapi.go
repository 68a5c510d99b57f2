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

// fields are an object of an OpenAPI document.
type fields = map[string]any

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
	d := &document{paths: fields{}, schemas: protocolSchemas(), types: map[reflect.Type]string{}}
	for _, r := range apiRoutes {
		d.route(r)
	}
	for _, k := range kinds {
		if k.Input() != "" {
			d.task(k)
		}
	}
	return json.Marshal(fields{
		"openapi": "3.0.3",
		"info": fields{"title": "Carousel", "version": version,
			"description": "Recurrent sequence models by the Open Inference Protocol, and in the form of each task."},
		"paths":      d.paths,
		"components": fields{"schemas": d.schemas},
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
	paths, schemas fields
	types          map[reflect.Type]string // structs that have a schema, by its name
}

func ref(schema string) fields { return fields{"$ref": "#/components/schemas/" + schema} }

func contentOf(schema fields) fields {
	return fields{"application/json": fields{"schema": schema}}
}

func (d *document) route(r apiRoute) {
	var params []any
	for _, step := range strings.Split(r.path, "/") {
		if name, is := strings.CutPrefix(step, "{"); is {
			params = append(params, fields{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": fields{"type": "string"}})
		}
	}
	o := d.operation(r.summary, r.body, r.answer, r.errors)
	if params != nil {
		o["parameters"] = params
	}
	path, _ := d.paths[r.path].(fields)
	if path == nil {
		path = fields{}
		d.paths[r.path] = path
	}
	path[strings.ToLower(r.method)] = o
}

func (d *document) operation(summary, body, answer string, errors []inference.Code) fields {
	responses := fields{"200": fields{"description": "The answer", "content": contentOf(ref(answer))}}
	for _, code := range errors {
		status := (&inference.Error{Code: code}).HTTPStatus()
		responses[fmt.Sprint(status)] = fields{"description": http.StatusText(status), "content": contentOf(ref("Error"))}
	}
	o := fields{"summary": summary, "responses": responses}
	if body != "" {
		o["requestBody"] = fields{"required": true, "content": contentOf(ref(body))}
	}
	return o
}

// task adds the path of a task.
func (d *document) task(k *task.Kind) {
	name := strings.ToUpper(k.Name[:1]) + k.Name[1:]
	inputs, others := fieldsFor(k)
	var choices []any // one of the inputs
	properties := fields{}
	for _, f := range slices.Concat(inputs, others) {
		var schema fields
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
		choices = append(choices, fields{"required": []string{f.Name}})
	}
	d.schemas[name+"Request"] = fields{"type": "object", "properties": properties, "additionalProperties": false, "oneOf": choices}
	answer := d.structure(reflect.Indirect(reflect.New(elem(reflect.TypeOf(k.Prediction)))).Type())
	schema, version := k.PredictSchema()
	answer["properties"].(fields)["schema"] = fields{"type": "string", "enum": []string{result.Schema(schema, version)}}
	answer["required"] = append([]string{"schema"}, answer["required"].([]string)...)
	d.schemas[name+"Answer"] = answer
	d.paths[taskPath(k)] = fields{"post": d.operation("A prediction by "+k.Noun, name+"Request", name+"Answer", append([]inference.Code{inference.Method}, inferErrors...))}
}

// elem is what a pointer points to.
func elem(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// options returns the schema of a task's options.
func (d *document) options(k *task.Kind) fields {
	o := k.Predicting()
	properties := fields{}
	types := map[string]reflect.Type{}
	for _, f := range result.Fields(reflect.TypeOf(o).Elem()) {
		types[f.Name] = f.Go.Type
	}
	for _, s := range clientSettings(o) {
		schema := d.of(types[s.Name], false)
		one := schema
		if items, list := schema["items"].(fields); list {
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
	return fields{"type": "object", "properties": properties, "additionalProperties": false}
}

// bound adds the bounds of an interval to the schema of a number.
func bound(schema fields, i settings.Interval) {
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
func (d *document) of(t reflect.Type, nullable bool) fields {
	switch {
	case t.Kind() == reflect.Pointer:
		return d.of(t.Elem(), nullable)
	case t == reflect.TypeFor[json.RawMessage]():
		return fields{}
	case t == reflect.TypeFor[time.Time]():
		return fields{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()), reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return fields{"type": "string"}
	}
	switch k := t.Kind(); {
	case k == reflect.Bool:
		return fields{"type": "boolean"}
	case k == reflect.String:
		return fields{"type": "string"}
	case k == reflect.Float32 || k == reflect.Float64:
		if nullable {
			return fields{"type": "number", "nullable": true}
		}
		return fields{"type": "number"}
	case reflect.Int <= k && k <= reflect.Uint64:
		return fields{"type": "integer"}
	case k == reflect.Slice || k == reflect.Array:
		return fields{"type": "array", "items": d.of(t.Elem(), nullable)}
	case k == reflect.Map:
		return fields{"type": "object", "additionalProperties": d.of(t.Elem(), nullable)}
	case k == reflect.Struct:
		return d.named(t)
	}
	panic(fmt.Sprintf("serve: no schema for %v", t)) // a field that package result cannot write either
}

// named returns a reference to the schema of a struct.
func (d *document) named(t reflect.Type) fields {
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
func (d *document) structure(t reflect.Type) fields {
	properties, required := fields{}, []string{}
	for _, f := range result.Fields(t) {
		properties[f.Name] = d.of(f.Go.Type, true)
		if !f.Optional {
			required = append(required, f.Name)
		}
	}
	return fields{"type": "object", "properties": properties, "required": required}
}

// protocolSchemas are the objects of the protocol.
func protocolSchemas() fields {
	text, boolean := fields{"type": "string"}, fields{"type": "boolean"}
	list := func(of fields) fields { return fields{"type": "array", "items": of} }
	structure := func(properties fields, optional ...string) fields {
		required := slices.DeleteFunc(slices.Sorted(maps.Keys(properties)), func(name string) bool { return slices.Contains(optional, name) })
		return fields{"type": "object", "properties": properties, "required": required}
	}
	parameters := fields{"type": "object", "additionalProperties": fields{"oneOf": []any{boolean, text, fields{"type": "number"}}}}
	datatype := fields{"type": "string", "enum": []string{
		"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"}}
	shape := list(fields{"type": "integer"})
	// Data are nested lists as the shape says, or one list of all elements.
	data := fields{"type": "array", "items": fields{}, "description": "elements in row-major order, in one list or nested"}
	info := structure(fields{"name": text, "datatype": datatype, "shape": shape})
	tensor := structure(fields{"name": text, "shape": shape, "datatype": datatype, "parameters": parameters, "data": data}, "parameters", "data")
	return fields{
		"Error":      structure(fields{"error": text}),
		"Live":       structure(fields{"live": boolean}),
		"Ready":      structure(fields{"ready": boolean}),
		"ModelReady": structure(fields{"name": text, "ready": boolean}, "name"),
		"Server":     structure(fields{"name": text, "version": text, "extensions": list(text)}),
		"Model":      structure(fields{"name": text, "versions": list(text), "platform": text, "inputs": list(info), "outputs": list(info)}),
		"InferRequest": structure(fields{"id": text, "parameters": parameters, "inputs": list(tensor),
			"outputs": list(structure(fields{"name": text, "parameters": parameters}, "parameters"))}, "id", "parameters", "outputs"),
		"InferResponse": structure(fields{"model_name": text, "model_version": text, "id": text, "parameters": parameters, "outputs": list(tensor)}, "model_version", "id", "parameters"),
	}
}
