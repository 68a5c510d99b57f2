package serve

import (
	"cmp"
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

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
	"github.com/carousel-ml/carousel/task"
)

// openAPIPath is where the description of the server's HTTP interface is.
const openAPIPath = "/openapi.json"

// node is an object of an OpenAPI document.
type node = map[string]any

// apiRoute is a path of the server's own for the document: of the Open Inference Protocol, or
// of sessions.
type apiRoute struct {
	method, path string   // parameters of the path in braces
	query        []string // parameters of the URL, as in queryParams
	summary      string
	body, answer string // schemas, or octets; "": none
	optional     bool   // the body may be left out
	status       int    // of the answer; 0: 200
	errors       []inference.Code
}

// octets stands for a body that is bytes and no JSON.
const octets = "octets"

// apiRoutes are the paths that a client uses, but those of tasks.
var apiRoutes = []apiRoute{
	{method: "GET", path: "/v2", summary: "The server and its extensions", answer: "Server"},
	{method: "GET", path: "/v2/health/live", summary: "Whether the server runs", answer: "Live"},
	{method: "GET", path: "/v2/health/ready", summary: "Whether all models can be asked", answer: "Ready", errors: []inference.Code{inference.Unavailable}},
	{method: "GET", path: "/v2/models", summary: "The names of the models", answer: "Models"},
	{method: "GET", path: "/v2/models/stats", summary: "The statistics of all models", answer: "ModelStatisticsResponse"},
	{method: "GET", path: "/v2/models/{model}", summary: "The inputs and outputs of a model", answer: "Model", errors: modelErrors},
	{method: "GET", path: "/v2/models/{model}/ready", summary: "Whether a model can be asked", answer: "ModelReady", errors: modelErrors},
	{method: "GET", path: "/v2/models/{model}/config", summary: "The configuration of a model, in Triton's terms", answer: "ModelConfig", errors: modelErrors},
	{method: "GET", path: "/v2/models/{model}/stats", summary: "The statistics of a model", answer: "ModelStatisticsResponse", errors: append(modelErrors[:2:2], inference.Unsupported)},
	{method: "POST", path: "/v2/models/{model}/infer", summary: "An inference", body: "InferRequest", answer: "InferResponse", errors: inferErrors},
	{method: "GET", path: "/v2/models/{model}/versions/{version}", summary: "The inputs and outputs of a version", answer: "Model", errors: modelErrors},
	{method: "GET", path: "/v2/models/{model}/versions/{version}/ready", summary: "Whether a version can be asked", answer: "ModelReady", errors: modelErrors},
	{method: "GET", path: "/v2/models/{model}/versions/{version}/config", summary: "The configuration of a version", answer: "ModelConfig", errors: modelErrors},
	{method: "GET", path: "/v2/models/{model}/versions/{version}/stats", summary: "The statistics of a version", answer: "ModelStatisticsResponse", errors: append(modelErrors[:2:2], inference.Unsupported)},
	{method: "POST", path: "/v2/models/{model}/versions/{version}/infer", summary: "An inference by a version", body: "InferRequest", answer: "InferResponse", errors: inferErrors},

	{method: "POST", path: "/v2/repository/index", summary: "The models that there are, with the reasons of what is not served", body: "IndexRequest", optional: true, answer: "Index", errors: []inference.Code{inference.Invalid, inference.TooLarge}},
	{method: "POST", path: "/v2/repository/models/{model}/load", summary: "Loads a model, or loads it anew", body: "LoadRequest", optional: true, answer: "Empty",
		errors: []inference.Code{inference.Invalid, inference.NotFound, inference.TooLarge, inference.Unsupported, inference.Unavailable}},
	{method: "POST", path: "/v2/repository/models/{model}/unload", summary: "Takes a model from service", body: "UnloadRequest", optional: true, answer: "Empty",
		errors: []inference.Code{inference.Invalid, inference.NotFound, inference.TooLarge}},

	{method: "GET", path: "/v1/sessions", query: []string{"model", "limit"}, summary: "The sessions that the client opened", answer: "Sessions", errors: sessionErrors},
	{method: "POST", path: "/v1/sessions", summary: "Opens a session", body: "OpenSession", answer: "Session", status: http.StatusCreated, errors: openErrors},
	{method: "GET", path: "/v1/sessions/{session}", query: []string{"model"}, summary: "A session, with its inputs and outputs", answer: "Session", errors: sessionErrors},
	{method: "DELETE", path: "/v1/sessions/{session}", query: []string{"model"}, summary: "Ends a session", status: http.StatusNoContent, errors: sessionErrors},
	{method: "POST", path: "/v1/sessions/{session}/infer", query: []string{"model", "end"}, summary: "A step of a session", body: "InferRequest", answer: "InferResponse", errors: inferErrors},
	{method: "GET", path: "/v1/sessions/{session}/state", query: []string{"model"}, summary: "A session as bytes", answer: octets, errors: append(sessionErrors[:2:2], inference.Unsupported)},
	{method: "PUT", path: "/v1/sessions/{session}/state", query: []string{"model", "version", "ttl_seconds"}, summary: "Opens a session of bytes that were saved", body: octets, answer: "Session", status: http.StatusCreated, errors: openErrors},
}

// queryParams are the parameters of URLs, with their types and what they mean.
var queryParams = map[string]struct{ kind, means string }{
	"model":       {"string", "the model, where sessions of several have the id"},
	"version":     {"string", "its version; without it the one that the session was saved by, or the newest"},
	"limit":       {"integer", "the largest number of sessions in the answer"},
	"end":         {"boolean", "whether the session ends with this step"},
	"ttl_seconds": {"number", "the time that the session may be idle"},
}

// Errors of requests about models, of those for a session, and of those that open one.
var (
	modelErrors   = []inference.Code{inference.NotFound, inference.Unavailable}
	sessionErrors = []inference.Code{inference.Invalid, inference.NotFound}
	openErrors    = []inference.Code{inference.Invalid, inference.NotFound, inference.Exists, inference.TooLarge, inference.Exhausted, inference.Internal, inference.Unsupported, inference.Unavailable}
)

// inferErrors are the errors of a request that computes.
var inferErrors = []inference.Code{inference.Invalid, inference.NotFound, inference.TooLarge, inference.Exhausted, inference.Internal, inference.Unsupported, inference.Unavailable, inference.Deadline}

// openAPI returns the description of the server's HTTP interface as an OpenAPI 3.0
// document, which says of each task what its table says: what a request holds, its options,
// and the object that answers it. version is the program's.
func openAPI(kinds []*task.Kind, version string) ([]byte, error) {
	d := &document{paths: node{}, schemas: protocolSchemas(), types: map[reflect.Type]string{}}
	for _, m := range []proto.Message{&pb.ModelConfig{}, &pb.ModelStatisticsResponse{}, &pb.RepositoryIndexResponse_ModelIndex{}} {
		d.message(m.ProtoReflect().Descriptor())
	}
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
	for _, name := range r.query {
		q := queryParams[name]
		params = append(params, node{"name": name, "in": "query", "description": q.means, "schema": node{"type": q.kind}})
	}
	o := d.operation(r)
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

func (d *document) operation(r apiRoute) node {
	content := func(schema string) node {
		if schema == octets {
			return node{"application/octet-stream": node{"schema": node{"type": "string", "format": "binary"}}}
		}
		return jsonContent(ref(schema))
	}
	answer := node{"description": "The answer"}
	if r.answer != "" {
		answer["content"] = content(r.answer)
	}
	responses := node{fmt.Sprint(cmp.Or(r.status, http.StatusOK)): answer}
	for _, code := range r.errors {
		status := (&inference.Error{Code: code}).HTTPStatus()
		responses[fmt.Sprint(status)] = node{"description": http.StatusText(status), "content": jsonContent(ref("Error"))}
	}
	o := node{"summary": r.summary, "responses": responses}
	if r.body != "" {
		o["requestBody"] = node{"required": !r.optional, "content": content(r.body)}
	}
	return o
}

// message adds the schema of a message of gRPC as [jsonMessage] writes it, and of those in
// it, and returns a reference to it.
func (d *document) message(m protoreflect.MessageDescriptor) node {
	name := strings.ReplaceAll(strings.TrimPrefix(string(m.FullName()), string(m.ParentFile().Package())+"."), ".", "_")
	if d.schemas[name] != nil {
		return ref(name)
	}
	properties, required := node{}, []string{}
	d.schemas[name] = node{"type": "object", "properties": properties} // a message may hold others of its own kind
	fields := m.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			properties[string(f.Name())] = node{"type": "object", "additionalProperties": d.field(f.MapValue())}
		case f.IsList():
			properties[string(f.Name())] = node{"type": "array", "items": d.field(f)}
		default:
			properties[string(f.Name())] = d.field(f)
		}
		if f.IsMap() || f.IsList() || !f.HasPresence() {
			required = append(required, string(f.Name()))
		}
	}
	d.schemas[name].(node)["additionalProperties"] = false
	if len(required) > 0 {
		d.schemas[name].(node)["required"] = required
	}
	return ref(name)
}

// field returns the schema of a field's value, of a list that of its elements.
func (d *document) field(f protoreflect.FieldDescriptor) node {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return d.message(f.Message())
	case protoreflect.BoolKind:
		return node{"type": "boolean"}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return node{"type": "number"}
	case protoreflect.StringKind, protoreflect.BytesKind:
		return node{"type": "string"}
	case protoreflect.EnumKind:
		words := []string{}
		for i := range f.Enum().Values().Len() {
			words = append(words, string(f.Enum().Values().Get(i).Name()))
		}
		return node{"type": "string", "enum": words}
	}
	return node{"type": "integer"}
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
	d.paths[taskPath(k)] = node{"post": d.operation(apiRoute{summary: "A prediction by " + k.Noun, body: name + "Request", answer: name + "Answer", errors: append([]inference.Code{inference.Method}, inferErrors...)})}
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
	number := node{"type": "number"}
	info := structure(node{"name": text, "datatype": datatype, "shape": shape})
	session := structure(node{"id": text, "model": text, "version": text, "ttl_seconds": number,
		"idle_seconds": node{"type": "number", "description": "since its last request"},
		"bytes":        node{"type": "integer", "description": "of its state"},
		"steps":        node{"type": "integer", "description": "requests that succeeded since it began"},
		"inputs":       list(info), "outputs": list(info)}, "inputs", "outputs")
	session["additionalProperties"] = false
	tensor := structure(node{"name": text, "shape": shape, "datatype": datatype, "parameters": parameters, "data": data}, "parameters", "data")
	return node{
		"Empty":        node{"type": "object", "additionalProperties": false},
		"IndexRequest": node{"type": "object", "properties": node{"ready": node{"type": "boolean", "description": "only models that are ready"}}, "additionalProperties": false},
		"Index":        list(ref("RepositoryIndexResponse_ModelIndex")),
		"LoadRequest":  node{"type": "object", "properties": node{"parameters": node{"type": "object", "maxProperties": 0}}, "additionalProperties": false},
		"UnloadRequest": node{"type": "object", "properties": node{"parameters": node{"type": "object", "properties": node{
			"unload_dependents": node{"type": "boolean", "description": "with a pipeline also its models"}}, "additionalProperties": false}}, "additionalProperties": false},
		"OpenSession": node{"type": "object", "required": []string{"model"}, "additionalProperties": false, "properties": node{"model": text, "version": text,
			"id":          node{"type": "string", "maxLength": 256, "description": "empty: a random one"},
			"ttl_seconds": node{"type": "number", "minimum": 0, "exclusiveMinimum": true, "maximum": longestLife.Seconds()}}},
		"Session":    session,
		"Sessions":   structure(node{"sessions": list(ref("Session")), "more": node{"type": "boolean", "description": "there are more than the limit"}}),
		"Error":      structure(node{"error": text}),
		"Live":       structure(node{"live": boolean}),
		"Ready":      structure(node{"ready": boolean}),
		"ModelReady": structure(node{"name": text, "ready": boolean}, "name"),
		"Server":     structure(node{"name": text, "version": text, "extensions": list(text)}),
		"Models":     structure(node{"models": list(text)}),
		"Model":      structure(node{"name": text, "versions": list(text), "platform": text, "inputs": list(info), "outputs": list(info), "parameters": structure(node{"batched": node{"type": "boolean"}, "stateful": node{"type": "boolean"}})}, "parameters"), // which a pipeline has not
		"InferRequest": structure(node{"id": text, "parameters": parameters, "inputs": list(tensor),
			"outputs": list(structure(node{"name": text, "parameters": parameters}, "parameters"))}, "id", "parameters", "outputs"),
		"InferResponse": structure(node{"model_name": text, "model_version": text, "id": text, "parameters": parameters, "outputs": list(tensor)}, "model_version", "id", "parameters"),
	}
}
