package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/task"
)

// apiRouter returns a router by the document, which must be a valid one.
func apiRouter(t *testing.T) routers.Router {
	t.Helper()
	h, err := openAPIHandler(append(slices.Clone(carousel.Tasks), letterTask), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, openAPIPath, nil))
	doc, err := openapi3.NewLoader().LoadFromData(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checked posts a body, or without one gets what is there, and returns what of the request
// and of the answer is not as the document says.
func checked(t *testing.T, router routers.Router, h http.Handler, path, body string) (status int, request, answer error) {
	t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	status, _, request, answer = checkedBy(t, router, h, method, path, "application/json", body)
	return status, request, answer
}

// checkedBy is checked with any method and kind of body; it returns the answer's text, too.
func checkedBy(t *testing.T, router routers.Router, h http.Handler, method, path, kind, body string) (status int, text string, request, answer error) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, path, nil)
	} else {
		r.Header.Set("Content-Type", kind)
	}
	route, params, err := router.FindRoute(r)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route}
	request = openapi3filter.ValidateRequest(t.Context(), in)
	r.Body = io.NopCloser(strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: w.Code, Header: w.Header(), Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	out.SetBodyBytes(w.Body.Bytes())
	return w.Code, w.Body.String(), request, openapi3filter.ValidateResponse(t.Context(), out)
}

// The document is valid, and the requests that are answered, their answers and errors are
// as it says. What it refuses, the server refuses.
func TestOpenAPI(t *testing.T) {
	router, h := apiRouter(t), tasksServed(t)
	forms := map[task.Form]string{task.TextForm: `"text":"a"`, task.TableForm: `"csv":"a\n1\n"`, task.SoundForm: `"sound":""`}
	stores(t, func(t *testing.T, m *task.Trained, input string) {
		path := taskPath(m.Kind)
		for _, body := range bodies(t, m, input) {
			if status, request, answer := checked(t, router, h, path, body); request != nil || answer != nil || status != http.StatusOK {
				t.Errorf("%.60s: %d, the request: %v, the answer: %v", body, status, request, answer)
			}
		}
		one := forms[m.Kind.Input()]
		for _, body := range []string{`{}`, `{"no_such":1,` + one + `}`, `{"options":{"no_such":1},` + one + `}`, `{"options":1,` + one + `}`, `{"model":1,` + one + `}`} {
			if status, request, answer := checked(t, router, h, path, body); request == nil || answer != nil || status != http.StatusBadRequest {
				t.Errorf("%s: %d, the request: %v, the error: %v", body, status, request, answer)
			}
		}
	})
	if status, request, answer := checked(t, router, h, taskPath(letterTask), `{"texts":["a","bc"],"options":{"most":1}}`); request != nil || answer != nil || status != http.StatusOK {
		t.Errorf("the made-up task: %d %v %v", status, request, answer)
	}
	if status, request, _ := checked(t, router, h, taskPath(letterTask), `{"texts":["a","bc"],"options":{"most":10}}`); request == nil || status != http.StatusBadRequest {
		t.Errorf("an option out of its range: %d %v", status, request)
	}
}

// The protocol's own paths of a server answer as the document says.
func TestOpenAPIOfServer(t *testing.T) {
	s := New(Options{Tasks: append(slices.Clone(carousel.Tasks), letterTask), Version: "1.2.3"})
	defer s.Close(t.Context())
	h, router := s.Handler(), apiRouter(t)
	stores(t, func(t *testing.T, m *task.Trained, input string) {
		if err := s.Add(t.Context(), ModelConfig{Name: m.Kind.Name, Path: filepath.Join(filepath.Dir(input), "model")}); err != nil {
			t.Fatal(err)
		}
		for _, body := range bodies(t, m, input) {
			body = strings.Replace(body, `"model":"m"`, `"model":"`+m.Kind.Name+`"`, 1)
			if status, request, answer := checked(t, router, h, taskPath(m.Kind), body); request != nil || answer != nil || status != http.StatusOK {
				t.Errorf("%.60s: %d, the request: %v, the answer: %v", body, status, request, answer)
			}
		}
		model := "/v2/models/" + m.Kind.Name
		for _, path := range []string{"/v2", "/v2/models", "/v2/health/live", "/v2/health/ready", model, model + "/ready", model + "/versions/1"} {
			if status, request, answer := checked(t, router, h, path, ""); request != nil || answer != nil || status != http.StatusOK {
				t.Errorf("%s: %d, the request: %v, the answer: %v", path, status, request, answer)
			}
		}
		if m.Kind.Input() != task.TextForm {
			return
		}
		body := `{"id":"a","inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":["a b","c"]}],"outputs":[{"name":"json"}]}`
		if status, request, answer := checked(t, router, h, model+"/infer", body); request != nil || answer != nil || status != http.StatusOK {
			t.Errorf("infer: %d, the request: %v, the answer: %v", status, request, answer)
		}
		if status, request, answer := checked(t, router, h, model+"/infer", `{"inputs":[]}`); request != nil || answer != nil || status != http.StatusBadRequest {
			t.Errorf("infer without input: %d, the request: %v, the error: %v", status, request, answer)
		}
	})
	if status, _, answer := checked(t, router, h, "/v2/models/none", ""); answer != nil || status != http.StatusNotFound {
		t.Errorf("no model: %d %v", status, answer)
	}
}

// Sessions, the repository, configurations and statistics answer as the document says, and so
// do their errors. What is undocumented is found.
func TestOpenAPIOfOperations(t *testing.T) {
	s := newTestServer(t, Options{})
	if err := s.Add(t.Context(), ModelConfig{Name: "broken", Path: filepath.Join(t.TempDir(), "gone")}); err == nil {
		t.Fatal("a missing file was opened")
	}
	h, router := s.Handler(), apiRouter(t)
	_, step := stepBody(t, 1, false, nil)
	const kind, bytesKind = "application/json", "application/octet-stream"
	saved := ""
	for _, c := range []struct {
		method, path, kind, body string
		status                   int
		wrong                    bool // the document does not allow the request
	}{
		{"POST", "/v2/repository/index", "", "", 200, false},
		{"POST", "/v2/repository/index", kind, `{"ready":true}`, 200, false},
		{"POST", "/v2/repository/index", kind, `{"redy":true}`, 400, true},
		{"POST", "/v2/repository/models/step/load", "", "", 200, false},
		{"POST", "/v2/repository/models/step/load", kind, `{"parameters":{}}`, 200, false},
		{"POST", "/v2/repository/models/step/load", kind, `{"parameters":{"config":"{}"}}`, 501, true},
		{"POST", "/v2/repository/models/none/load", "", "", 404, false},
		{"POST", "/v2/repository/models/broken/load", "", "", 400, false},
		{"POST", "/v2/repository/models/broken/unload", kind, `{"parameters":{"unload_dependents":false}}`, 200, false},
		{"POST", "/v2/repository/models/broken/unload", kind, `{"parameters":{"all":false}}`, 400, true},
		{"POST", "/v2/repository/models/none/unload", "", "", 404, false},
		{"GET", "/v2/models/stats", "", "", 200, false},
		{"GET", "/v2/models/step/stats", "", "", 200, false},
		{"GET", "/v2/models/step/versions/1/stats", "", "", 200, false},
		{"GET", "/v2/models/both/stats", "", "", 501, false},
		{"GET", "/v2/models/none/stats", "", "", 404, false},
		{"GET", "/v2/models/step/config", "", "", 200, false},
		{"GET", "/v2/models/plain/config", "", "", 200, false},
		{"GET", "/v2/models/words/versions/1/config", "", "", 200, false},
		{"GET", "/v2/models/both/config", "", "", 200, false},
		{"GET", "/v2/models/both", "", "", 200, false},
		{"GET", "/v2/models/broken/config", "", "", 503, false},
		{"GET", "/v2/models/step/versions/2/ready", "", "", 404, false},
		{"POST", "/v1/sessions", kind, `{"model":"step","id":"a","ttl_seconds":60.5}`, 201, false},
		{"POST", "/v1/sessions", kind, `{"model":"step","id":"a"}`, 409, false},
		{"POST", "/v1/sessions", kind, `{"model":"both","version":"1"}`, 201, false},
		{"POST", "/v1/sessions", kind, `{"model":"plain"}`, 501, false},
		{"POST", "/v1/sessions", kind, `{"model":"broken"}`, 503, false},
		{"POST", "/v1/sessions", kind, `{"model":"none"}`, 404, false},
		{"POST", "/v1/sessions", kind, `{"model":"step","ttl_seconds":0}`, 400, true},
		{"POST", "/v1/sessions", kind, `{"model":"step","ttl":1}`, 400, true},
		{"POST", "/v1/sessions", kind, `{}`, 400, true},
		{"POST", "/v1/sessions/a/infer", kind, step, 200, false},
		{"POST", "/v1/sessions/a/infer?model=step&end=false", kind, step, 200, false},
		{"POST", "/v1/sessions/a/infer?end=perhaps", kind, step, 400, true},
		{"POST", "/v1/sessions/b/infer", kind, step, 404, false},
		{"GET", "/v1/sessions", "", "", 200, false},
		{"GET", "/v1/sessions?model=step&limit=1", "", "", 200, false},
		{"GET", "/v1/sessions?limit=many", "", "", 400, true},
		{"GET", "/v1/sessions/a", "", "", 200, false},
		{"GET", "/v1/sessions/b?model=step", "", "", 404, false},
		{"GET", "/v1/sessions/a/state", "", "", 200, false},
		{"GET", "/v1/sessions/b/state", "", "", 404, false},
		{"PUT", "/v1/sessions/b/state?model=step&ttl_seconds=9", bytesKind, "saved", 201, false},
		{"PUT", "/v1/sessions/b/state?model=step", bytesKind, "saved", 409, false},
		{"PUT", "/v1/sessions/c/state", bytesKind, "other bytes", 400, false},
		{"DELETE", "/v1/sessions/a?model=step", "", "", 204, false},
		{"DELETE", "/v1/sessions/a", "", "", 404, false},
	} {
		if c.body == "saved" {
			c.body = saved
		}
		status, text, request, answer := checkedBy(t, router, h, c.method, c.path, c.kind, c.body)
		if status != c.status || (request != nil) != c.wrong || answer != nil {
			t.Errorf("%s %s %.60q: %d %.200s, want %d, the request: %v, the answer: %v", c.method, c.path, c.body, status, text, c.status, request, answer)
		}
		if strings.HasSuffix(c.path, "/state") && status == 200 {
			saved = text
		}
	}

	// A field that an answer has beyond the document would be found.
	for _, path := range []string{"/v1/sessions/b", "/v2/models/step/config", "/v2/models/step/stats"} {
		more := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			own := httptest.NewRecorder()
			h.ServeHTTP(own, r)
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, `{"more":1,`+own.Body.String()[1:])
		})
		if _, _, answer := checked(t, router, more, path, ""); answer == nil {
			t.Errorf("%s: an answer with more than the document says passes", path)
		}
	}
}

// An answer that is not as the document says would be found.
func TestOpenAPIFindsFaults(t *testing.T) {
	router := apiRouter(t)
	for _, k := range carousel.Tasks {
		wrong := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"schema":"carousel.predict.other.v1","task":1}`)
		})
		if _, _, answer := checked(t, router, wrong, taskPath(k), `{}`); answer == nil {
			t.Errorf("%s: a wrong answer passes", k.Name)
		}
	}
}

// Options are described with the words of the command's help, and files of the server are
// none.
func TestOpenAPIOptions(t *testing.T) {
	text, err := openAPI(carousel.Tasks, "1")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					Properties map[string]struct{ Description string }
				}
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for _, k := range carousel.Tasks {
		got := doc.Components.Schemas[strings.ToUpper(k.Name[:1])+k.Name[1:]+"Request"].Properties["options"].Properties
		for _, s := range clientSettings(k.Predicting()) {
			if got[s.Name].Description != s.Describe() {
				t.Errorf("%s: %s is described as %q, want %q", k.Name, s.Name, got[s.Name].Description, s.Describe())
			}
			delete(got, s.Name)
		}
		if len(got) > 0 {
			t.Errorf("%s: there are more options: %v", k.Name, got)
		}
	}
	if bytes.Contains(text, []byte("picture")) {
		t.Error("the document offers clients to name a file of the server")
	}
}
