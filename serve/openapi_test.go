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
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(http.MethodGet, path, nil)
	}
	r.Header.Set("Content-Type", "application/json")
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
	return w.Code, request, openapi3filter.ValidateResponse(t.Context(), out)
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
