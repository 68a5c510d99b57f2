package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/serve/inference"
)

// rest sends requests over REST: those of a load over one connection for each client, the
// few others with net/http.
type rest struct {
	u       *url.URL
	o       *Options
	headers http.Header
	clients []restClient
}

type restClient struct {
	conn    wireConn
	request []byte // with the id of the sequence
}

func newREST(u *url.URL, o *Options) (*rest, error) {
	r := &rest{u: u, o: o, headers: http.Header{}, clients: make([]restClient, o.Clients)}
	for _, line := range o.Headers {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" || strings.ContainsAny(line, "\r\n") {
			return nil, fmt.Errorf("header %q: want Name: value", line)
		}
		r.headers.Add(name, strings.TrimSpace(value))
	}
	for i := range r.clients {
		r.clients[i].conn = wireConn{url: u, timeout: o.Timeout}
	}
	return r, nil
}

// path is that of a model.
func (r *rest) path(model string) string {
	p := strings.TrimSuffix(r.u.EscapedPath(), "/") + "/v2/models/" + url.PathEscape(model)
	if r.o.Version != "" {
		p += "/versions/" + url.PathEscape(r.o.Version)
	}
	return p
}

// get reads JSON; status is that of an error.
func (r *rest) get(ctx context.Context, path string, v any) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, "GET", r.u.Scheme+"://"+r.u.Host+path, nil)
	if err != nil {
		return 0, err
	}
	request.Header = r.headers
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the address, which the message has
		}
		return 0, &Failure{"connection", err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	switch {
	case err != nil:
		return 0, err
	case response.StatusCode != 200:
		return response.StatusCode, refusal(response.StatusCode, body)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return 0, fmt.Errorf("%s: want JSON of the Open Inference Protocol, got %.60q", path, body)
	}
	return 200, nil
}

// refusal is the failure that an answer says.
func refusal(status int, body []byte) error {
	return &Failure{fmt.Sprintf("HTTP %d", status), inference.ReadError(status, body)}
}

func (r *rest) metadata(ctx context.Context, model string) ([]inference.Info, error) {
	var m struct {
		Inputs []struct {
			Name     string
			Datatype inference.Datatype
			Shape    []int
		}
	}
	if _, err := r.get(ctx, r.path(model), &m); err != nil {
		return nil, err
	}
	var list []inference.Info
	for _, in := range m.Inputs {
		list = append(list, inference.Info{Name: in.Name, Datatype: in.Datatype, Dims: in.Shape})
	}
	return list, nil
}

func (r *rest) statistics(ctx context.Context, model string) (s Statistics, ok bool, err error) {
	var m struct {
		Stats []struct {
			Inferences uint64 `json:"inference_count"`
			Executions uint64 `json:"execution_count"`
		} `json:"model_stats"`
	}
	if status, err := r.get(ctx, r.path(model)+"/stats", &m); err != nil {
		if status == 404 || status == 405 || status == 501 {
			err = nil
		}
		return s, false, err
	}
	for _, one := range m.Stats { // versions
		s.Rows += one.Inferences
		s.Executions += one.Executions
	}
	return s, len(m.Stats) > 0, nil
}

// placeholder is the id of a sequence for which another is put in.
const placeholder = leastID + 31415926535897

// written is a request in bytes: header and body.
type written struct {
	bytes []byte
	id    int // where the id of the sequence is; 0: there is none
}

// Forms of a request in a sequence.
const (
	inside = iota // or in none
	first
	last
	only
	forms
)

func (q sequence) form() int {
	switch {
	case q.start && q.end:
		return only
	case q.start:
		return first
	case q.end:
		return last
	}
	return inside
}

func (r *rest) prepare(m *Model) (any, error) {
	var all [][forms]written
	for v := range m.inputs {
		var one [forms]written
		for f := range one {
			var q sequence
			if r.o.Sessions > 0 {
				q = sequence{placeholder, f == first || f == only, f == last || f == only}
			} else if f > inside {
				break
			}
			w, err := r.write(m, v, q)
			if err != nil {
				return nil, fmt.Errorf("model %q: %w", m.Name, err)
			}
			one[f] = w
		}
		all = append(all, one)
	}
	return all, nil
}

func (r *rest) write(m *Model, variant int, q sequence) (w written, err error) {
	header, body, err := inference.WriteRequest(m.request(r.o.Version, variant, q.params()), !r.o.JSON)
	if err != nil {
		return w, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s/infer HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n", r.path(m.Name), r.u.Host, inference.ContentType(header), len(body))
	if header != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", inference.HeaderLength, header)
	}
	r.headers.Write(&b)
	b.WriteString("\r\n")
	begin := b.Len()
	b.Write(body)
	w.bytes = b.Bytes()
	if q.id != 0 {
		at := bytes.Index(body, []byte(`"sequence_id":`+strconv.Itoa(placeholder)))
		if at < 0 {
			return w, errors.New("the request has no place for the id of a sequence")
		}
		w.id = begin + at + len(`"sequence_id":`)
	}
	return w, nil
}

func (r *rest) send(ctx context.Context, client int, ready any, variant int, q sequence) (func() (*inference.Response, error), error) {
	w := &ready.([][forms]written)[variant][q.form()]
	c := &r.clients[client]
	request := w.bytes
	if w.id > 0 {
		c.request = append(c.request[:0], w.bytes...)
		strconv.AppendUint(c.request[w.id:w.id], q.id, 10) // of as many digits
		request = c.request
	}
	a, err := c.conn.do(ctx, request)
	if err != nil {
		return nil, err
	}
	if a.status != 200 {
		return nil, refusal(a.status, a.body)
	}
	return func() (*inference.Response, error) { return inference.ReadResponse(a.length, a.body) }, nil
}

func (r *rest) close() {
	for i := range r.clients {
		r.clients[i].conn.close()
	}
}
