package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// sequenceParams are those of Triton's sequences.
func sequenceParams(id any, start, end bool) inference.Params {
	return inference.Params{"sequence_id": id, "sequence_start": start, "sequence_end": end}
}

// steps returns the outputs y of a sequence of its own that is fed with inputs x, x+1, ...
func steps(tb testing.TB, s *Server, model string, n int, x float32) (list [][]float32) {
	tb.Helper()
	id := fmt.Sprintf("alone %v", x)
	for i := range n {
		r := expected(tb, s, model, sequenceParams(id, i == 0, i == n-1), stepInput(x+float32(i)))
		list = append(list, output(tb, r, "y").Floats)
	}
	return list
}

// opened opens a session over HTTP.
func opened(tb testing.TB, url, body string) *sessionInfo {
	tb.Helper()
	r, text := ask(tb, "POST", url+"/v1/sessions", body)
	var i sessionInfo
	if err := json.Unmarshal([]byte(text), &i); err != nil || r.StatusCode != http.StatusCreated {
		tb.Fatalf("status %d: %s", r.StatusCode, text)
	}
	return &i
}

// answered reads the output y of an answer.
func answered(tb testing.TB, r *http.Response, body string) []float32 {
	tb.Helper()
	if r.StatusCode != http.StatusOK {
		tb.Fatalf("status %d: %s", r.StatusCode, body)
	}
	out, err := inference.ReadResponse(r.Header.Get(inference.HeaderLength), []byte(body))
	if err != nil {
		tb.Fatal(err)
	}
	return output(tb, out, "y").Floats
}

func TestSessionsOverHTTP(t *testing.T) {
	for _, model := range []string{"step", "both"} {
		t.Run(model, func(t *testing.T) {
			s := newTestServer(t, Options{})
			url := listen(t, s)
			want := steps(t, s, model, 6, 3)
			i := opened(t, url, `{"model":"`+model+`","ttl_seconds":90.5}`)
			if i.Model != model || i.Version != "1" || i.Life != 90.5 || len(i.ID) < 26 || i.Bytes != 2*testHidden*4 || len(i.Inputs) != 1 || i.Inputs[0].Name != "x" || len(i.Outputs) != 1 {
				t.Errorf("opened %+v", i)
			}
			one := url + "/v1/sessions/" + i.ID
			for k := range want {
				var got []float32
				header, body := stepBody(t, 3+float32(k), k%2 == 1, nil)
				switch k {
				case 3: // the protocol's sequences are the same sessions
					r := expected(t, s, model, inference.Params{"sequence_id": i.ID}, stepInput(6))
					got = output(t, r, "y").Floats
				case 4: // a raw request
					q := &inference.Request{Raw: true, Inputs: []inference.Tensor{{Value: inference.Value{Texts: []string{body[len(body)-4*testWidth:]}}}}}
					_, x, err := inference.WriteRequest(q, true)
					if err != nil {
						t.Fatal(err)
					}
					if header == "" { // JSON: take the bytes of a binary one
						_, binary := stepBody(t, 7, true, nil)
						x = []byte(binary[len(binary)-4*testWidth:])
					}
					r, text := ask(t, "POST", one+"/infer", string(x), inference.HeaderLength, "0")
					got = answered(t, r, text)
				default:
					path := one + "/infer?model=" + model
					if k == len(want)-1 {
						path += "&end=true"
					}
					var headers []string
					if header != "" {
						headers = []string{inference.HeaderLength, header}
					}
					r, text := ask(t, "POST", path, body, headers...)
					got = answered(t, r, text)
				}
				if !slices.Equal(got, want[k]) {
					t.Errorf("step %d: %v, want %v", k, got, want[k])
				}
			}
			if r, text := ask(t, "GET", one, ""); r.StatusCode != 404 || !strings.Contains(text, "there is no session") {
				t.Errorf("after its end: status %d, %s", r.StatusCode, text)
			}
		})
	}
}

func TestSessionEnds(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	_, body := stepBody(t, 1, false, nil)
	ids := map[string]string{"step": opened(t, url, `{"model":"step"}`).ID, "both": opened(t, url, `{"model":"both"}`).ID}
	r, text := ask(t, "GET", url+"/v1/sessions", "")
	var list struct {
		Sessions []sessionInfo
		More     bool
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil || r.StatusCode != 200 || list.More {
		t.Fatalf("status %d: %s", r.StatusCode, text)
	}
	if l := list.Sessions; len(l) != 2 || l[0].Model != "both" || l[0].ID != ids["both"] || l[1].Model != "step" || l[1].ID != ids["step"] || l[1].Inputs != nil {
		t.Errorf("listed %s", text)
	}
	if _, text = ask(t, "GET", url+"/v1/sessions?limit=1", ""); !strings.Contains(text, `"more":true`) {
		t.Errorf("a part of the list: %s", text)
	}
	if _, text = ask(t, "GET", url+"/v1/sessions?model=step", ""); strings.Contains(text, "both") || !strings.Contains(text, ids["step"]) {
		t.Errorf("the list of a model: %s", text)
	}
	for model, id := range ids {
		one := url + "/v1/sessions/" + id
		if r, text := ask(t, "DELETE", one, ""); r.StatusCode != 204 || text != "" {
			t.Errorf("%s: status %d, %s", model, r.StatusCode, text)
		}
		for _, c := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/infer"}, {"GET", "/state"}} {
			if r, text := ask(t, c[0], one+c[1], body); r.StatusCode != 404 || !strings.Contains(text, `{"error":"there is no session`) {
				t.Errorf("%s: %s %s: status %d, %s", model, c[0], c[1], r.StatusCode, text)
			}
		}
	}
	if n, _ := s.sessions.Count(nil); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	// A session whose time is over says so.
	i := opened(t, url, `{"model":"step","id":"short","ttl_seconds":0.01}`)
	for end := time.Now().Add(10 * time.Second); s.sessions.Why("step", i.ID) == "" && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if r, text := ask(t, "POST", url+"/v1/sessions/short/infer", body); r.StatusCode != 404 || !strings.Contains(text, string(batch.Idle)) {
		t.Errorf("status %d, %s", r.StatusCode, text)
	}
}

func TestSessionErrors(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Body: 1 << 16}})
	url := listen(t, s)
	opened(t, url, `{"model":"step","id":"a b/ü"}`)
	opened(t, url, `{"model":"step","id":"two"}`)
	opened(t, url, `{"model":"both","id":"two"}`)
	_, body := stepBody(t, 1, false, nil)
	_, other := stepBody(t, 1, false, inference.Params{"sequence_id": "other"})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/sessions", `{"model":"other"}`, 404, `unknown model \"other\"`},
		{"POST", "/v1/sessions", `{}`, 400, `no \"model\"`},
		{"POST", "/v1/sessions", `{"model":"step","version":"7"}`, 404, `has no version \"7\"`},
		{"POST", "/v1/sessions", `{"model":"plain"}`, 501, `keeps no state: send requests to /v2/models/plain/infer`},
		{"POST", "/v1/sessions", `{"model":"words"}`, 501, `keeps no state`},
		{"POST", "/v1/sessions", `{"model":"step","ttl_seconds":0}`, 400, `ttl_seconds: expected more than 0`},
		{"POST", "/v1/sessions", `{"model":"step","ttl_seconds":-1}`, 400, `ttl_seconds`},
		{"POST", "/v1/sessions", `{"model":"step","ttl_seconds":1e300}`, 400, `ttl_seconds`},
		{"POST", "/v1/sessions", `{"model":"step","ttl":1}`, 400, `unknown key \"ttl\"; did you mean ttl_seconds?`},
		{"POST", "/v1/sessions", `{"model":"step","what":1}`, 400, `unknown key \"what\"; the keys are model, version, id, ttl_seconds`},
		{"POST", "/v1/sessions", `{"model":"step","id":5}`, 400, `the body: id: want a text, got a number; expected an object or nothing`},
		{"POST", "/v1/sessions", `[5]`, 400, `the body: want an object, got a list; expected an object or nothing`},
		{"POST", "/v1/sessions", `{"model":"step","id":"a b/ü"}`, 409, `exists already`},
		{"POST", "/v1/sessions", `{"model":"both","id":"two"}`, 409, `exists already`},
		{"POST", "/v1/sessions", `{"model":"step","id":"` + strings.Repeat("x", 257) + `"}`, 400, `257 bytes`},
		{"GET", "/v1/sessions/a%20b%2F%C3%BC", "", 200, `"id":"a b/ü"`},
		{"GET", "/v1/sessions/two", "", 400, `say which with ?model=`},
		{"GET", "/v1/sessions/two?model=both", "", 200, `"model":"both"`},
		{"GET", "/v1/sessions/two?model=other", "", 404, `unknown model`},
		{"GET", "/v1/sessions?limit=0", "", 400, `limit: expected 1 to 1000`},
		{"GET", "/v1/sessions?limit=x", "", 400, `limit`},
		{"GET", "/v1/sessions?model=other", "", 404, `unknown model`},
		{"POST", "/v1/sessions/none/infer", body, 404, `there is no session \"none\"`},
		{"POST", "/v1/sessions/two/infer?model=step", `{"inputs":`, 400, `JSON`},
		{"POST", "/v1/sessions/two/infer?model=step", `{"inputs":[]}`, 400, `input \"x\" is missing`},
		{"POST", "/v1/sessions/two/infer?model=step", other, 400, `goes to session \"two\"; leave it out`},
		{"POST", "/v1/sessions/two/infer?model=step&end=maybe", body, 400, `end: expected true or false`},
		{"POST", "/v1/sessions/two/infer?model=step", strings.Repeat(" ", 1<<16) + body, 413, `more than 65536 bytes`},
		{"POST", "/v1/sessions/two/infer?model=step", body, 200, `"outputs"`}, // the errors left it as it was
		{"GET", "/v1/sessions/two/state?model=both", "", 501, `session of a pipeline`},
		{"PUT", "/v1/sessions/x/state?model=step", "what", 400, `does not begin as one`},
		{"PUT", "/v1/sessions/x/state?model=step&ttl_seconds=x", "what", 400, `ttl_seconds`},
		{"PUT", "/v1/sessions/two", "", 405, `DELETE`},
		{"GET", "/v1/sessions/two/infer", "", 405, `POST`},
	} {
		r, text := ask(t, c.method, url+c.path, c.body)
		if r.StatusCode != c.status || !strings.Contains(text, c.want) || c.status >= 400 && !strings.HasPrefix(text, `{"error":"`) {
			t.Errorf("%s %s %.60s: status %d, %s; want %d, %s", c.method, c.path, c.body, r.StatusCode, text, c.status, c.want)
		}
	}
	s.draining.Store(true)
	if r, text := ask(t, "POST", url+"/v1/sessions", `{"model":"step"}`); r.StatusCode != 503 || !strings.Contains(text, "being stopped") {
		t.Errorf("while the server is stopped: status %d, %s", r.StatusCode, text)
	}
	if r, text := ask(t, "POST", url+"/v1/sessions/two/infer?model=step", body); r.StatusCode != 200 {
		t.Errorf("an open session while the server is stopped: status %d, %s", r.StatusCode, text)
	}
}

// TestSessionMoves saves a session and restores it on another server, as a copy, and where it
// must not be.
func TestSessionMoves(t *testing.T) {
	a := newTestServer(t, Options{})
	urlA := listen(t, a)
	want := steps(t, a, "step", 4, 1)
	opened(t, urlA, `{"model":"step","id":"s","ttl_seconds":77}`)
	step := func(url, id string, k int) []float32 {
		t.Helper()
		_, body := stepBody(t, 1+float32(k), false, nil)
		r, text := ask(t, "POST", url+"/v1/sessions/"+id+"/infer", body)
		return answered(t, r, text)
	}
	step(urlA, "s", 0)
	step(urlA, "s", 1)
	r, state := ask(t, "GET", urlA+"/v1/sessions/s/state", "")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/octet-stream" || len(state) < 2*testHidden*4 {
		t.Fatalf("status %d, %d bytes", r.StatusCode, len(state))
	}
	// The other server has the same file, which the helper writes with the same weights.
	b := newTestServer(t, Options{})
	urlB := listen(t, b)
	r, text := ask(t, "PUT", urlB+"/v1/sessions/s/state?model=step", state)
	if r.StatusCode != 201 || !strings.Contains(text, `"ttl_seconds":77`) {
		t.Fatalf("status %d, %s", r.StatusCode, text)
	}
	if r, text = ask(t, "PUT", urlA+"/v1/sessions/copy/state?ttl_seconds=5", state); r.StatusCode != 201 || !strings.Contains(text, `"ttl_seconds":5`) {
		t.Fatalf("status %d, %s", r.StatusCode, text)
	}
	for k := 2; k < 4; k++ {
		for _, at := range [][2]string{{urlA, "s"}, {urlB, "s"}, {urlA, "copy"}} {
			if got := step(at[0], at[1], k); !slices.Equal(got, want[k]) {
				t.Errorf("step %d of %v: %v, want %v", k, at, got, want[k])
			}
		}
	}
	other := filepath.Join(t.TempDir(), "other.onnx")
	exported(t, other, testWidth, testHidden+1, true)
	if err := a.Add(context.Background(), ModelConfig{Path: other}); err != nil {
		t.Fatal(err)
	}
	damaged := []byte(state)
	damaged[len(damaged)/2] ^= 1
	for _, c := range []struct {
		path, state string
		status      int
		want        string
	}{
		{"s/state", state, 409, "exists already"},
		{"t/state?model=other", state, 400, "other weights"},
		{"t/state?model=plain", state, 501, "keeps no state"},
		{"t/state?model=both", state, 501, "session of a pipeline"},
		{"t/state?version=4", state, 404, "no version"},
		{"t/state", string(damaged), 400, "checksum"},
		{"t/state", state[:len(state)-1], 400, "saved session"},
		{"t/state", "", 400, "saved session"},
	} {
		r, text := ask(t, "PUT", urlA+"/v1/sessions/"+c.path, c.state)
		if r.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: status %d, %s; want %d, %s", c.path, r.StatusCode, text, c.status, c.want)
		}
	}
}

// TestProvenClients has clients whose names are proven: none may use another's sessions.
func TestProvenClients(t *testing.T) {
	s := newTestServer(t, Options{})
	ctx := context.Background()
	ask := func(c Caller, start bool) error {
		_, err := s.Infer(ctx, &inference.Request{Model: "step", Params: sequenceParams("1", start, false), Inputs: []inference.Tensor{stepInput(1)}}, c)
		return err
	}
	a, b := Caller{Client: "a", Proven: true}, Caller{Client: "b", Proven: true}
	if err := ask(a, true); err != nil {
		t.Fatal(err)
	}
	for _, start := range []bool{false, true} {
		if err := ask(b, start); err == nil || inference.AsError(err).Code != inference.Denied {
			t.Errorf("another client's sequence: %v", err)
		}
	}
	if _, err := s.held("step", "1", b); err == nil || inference.AsError(err).Code != inference.NotFound {
		t.Errorf("another client's session: %v", err)
	}
	if err := ask(a, false); err != nil {
		t.Errorf("the own sequence: %v", err)
	}
	if _, err := s.held("", "1", a); err != nil {
		t.Errorf("the own session: %v", err)
	}
	if err := ask(Caller{Client: "address"}, false); err != nil {
		t.Errorf("a client without a proven name, who knows the id: %v", err)
	}
}

// TestSequenceBegunByTwo lets clients begin sequences of one id at the same moment: one has
// it, and the others are told so and do not end it.
func TestSequenceBegunByTwo(t *testing.T) {
	s := newTestServer(t, Options{})
	for round := range 200 {
		id := strconv.Itoa(round)
		var all sync.WaitGroup
		errs := make([]error, 4)
		ask := func(i int, start bool) error {
			_, err := s.Infer(context.Background(), &inference.Request{Model: "step", Params: sequenceParams(id, start, false), Inputs: []inference.Tensor{stepInput(1)}},
				Caller{Client: strconv.Itoa(i), Proven: true})
			return err
		}
		for i := range errs {
			all.Go(func() { errs[i] = ask(i, true) })
		}
		all.Wait()
		began := 0
		for i, err := range errs {
			switch {
			case err == nil:
				began++
				if err := ask(i, false); err != nil {
					t.Errorf("the sequence of client %d does not go on: %v", i, err)
				}
			case inference.AsError(err).Code != inference.Denied:
				t.Errorf("client %d: %v", i, err)
			}
		}
		if began != 1 {
			t.Fatalf("round %d: %d clients began the sequence, want one", round, began)
		}
	}
}

// TestIdleSessionsOfAModel measures 10,000 sessions of an LSTM of 256 units.
func TestIdleSessionsOfAModel(t *testing.T) {
	p := stepProgram(t, 8, 256, 1)
	sched := batch.New(batch.Options{})
	q := sched.Add(p, batch.QueueOptions{})
	table := batch.NewSessions(sched, batch.SessionOptions{})
	defer table.Stop(batch.Stopped)
	const sessions = 10_000
	state := p.NewState().Bytes()
	if state != 2*256*4 {
		t.Fatalf("a state has %d bytes", state)
	}
	before := heapInUse()
	for range sessions {
		if _, err := table.Open(q, "m", batch.Opening{Client: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	each := float64(heapInUse()-before) / sessions
	t.Logf("a session takes %.0f bytes, its state %d", each, state)
	if each > 1.5*float64(state) {
		t.Errorf("a session takes %.0f bytes, more than 1.5 of %d", each, state)
	}
	if n, bytes := table.Count(q); n != sessions || bytes != sessions*state {
		t.Errorf("%d sessions, %d bytes", n, bytes)
	}
}
