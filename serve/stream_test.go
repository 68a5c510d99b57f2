package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
)

func heapInUse() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// dialStream opens a stream that ends with the test.
func dialStream(tb testing.TB, url, query string) *websocket.Conn {
	tb.Helper()
	c := connect(tb, url, query)
	tb.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// connect opens a stream.
func connect(tb testing.TB, url, query string) *websocket.Conn {
	tb.Helper()
	c, r, err := websocket.Dial(context.Background(), url+"/v1/stream?"+query, nil)
	if err != nil {
		text := ""
		if r != nil {
			b, _ := io.ReadAll(r.Body)
			text = string(b)
		}
		tb.Fatal(err, text)
	}
	c.SetReadLimit(1 << 24)
	return c
}

func send(tb testing.TB, c *websocket.Conn, t websocket.MessageType, b []byte) {
	tb.Helper()
	if err := c.Write(context.Background(), t, b); err != nil {
		tb.Fatal(err)
	}
}

func receive(tb testing.TB, c *websocket.Conn) (websocket.MessageType, []byte) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	t, b, err := c.Read(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return t, b
}

// closing reads until the connection ends and returns why.
func closing(tb testing.TB, c *websocket.Conn) (websocket.CloseError, int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for n := 0; ; n++ {
		_, _, err := c.Read(ctx)
		if err == nil {
			continue
		}
		var e websocket.CloseError
		if !errorsAs(err, &e) {
			tb.Fatalf("the connection ended without a reason: %v", err)
		}
		return e, n
	}
}

func errorsAs(err error, e *websocket.CloseError) bool {
	e.Code = websocket.CloseStatus(err)
	if e.Code < 0 {
		return false
	}
	_, reason, _ := strings.Cut(err.Error(), "reason = ")
	e.Reason = strings.Trim(reason, `"`)
	return true
}

// rawStep is the bytes of stepInput.
func rawStep(x float32) (b []byte) {
	for _, f := range stepInput(x).Floats {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

func floats(b []byte) (list []float32) {
	for ; len(b) >= 4; b = b[4:] {
		list = append(list, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return list
}

// TestSocketForms sends each step of a stream in another form; the answers are those of a
// sequence, each in the form of its request.
func TestSocketForms(t *testing.T) {
	for _, model := range []string{"step", "both"} {
		t.Run(model, func(t *testing.T) {
			s := newTestServer(t, Options{})
			url := listen(t, s)
			want := steps(t, s, model, 8, 5)
			c := dialStream(t, url, "model="+model+"&binary=request&ttl_seconds=30")
			framed := func(header, body string) []byte {
				n := 0
				fmt.Sscan(header, &n)
				return append(binary.LittleEndian.AppendUint32(nil, uint32(n)), body...)
			}
			sent := []func(x float32){
				func(x float32) { _, b := stepBody(t, x, false, nil); send(t, c, websocket.MessageText, []byte(b)) },
				func(x float32) {
					b, _ := json.Marshal(stepInput(x).Floats)
					send(t, c, websocket.MessageText, append([]byte(" \n"), b...))
				},
				func(x float32) { send(t, c, websocket.MessageBinary, framed("0", string(rawStep(x)))) },
				func(x float32) { send(t, c, websocket.MessageBinary, framed(stepBody(t, x, true, nil))) },
			}
			// All are sent before the first answer is read.
			for k := range want {
				sent[k%4](5 + float32(k))
			}
			for k := range want {
				typ, b := receive(t, c)
				var got []float32
				switch k % 4 {
				case 0:
					out, err := inference.ReadResponse("", b)
					if err != nil || typ != websocket.MessageText || out.ID != "7" || out.Model != model {
						t.Fatalf("step %d: %v, %s", k, err, b)
					}
					got = output(t, out, "y").Floats
				case 1:
					if err := json.Unmarshal(b, &got); err != nil || typ != websocket.MessageText {
						t.Fatalf("step %d: %v, %s", k, err, b)
					}
				case 2:
					if got = floats(b); typ != websocket.MessageBinary {
						t.Fatalf("step %d: %s", k, b)
					}
				case 3:
					n := binary.LittleEndian.Uint32(b)
					out, err := inference.ReadResponse(fmt.Sprint(n), b[4:])
					if err != nil || typ != websocket.MessageBinary {
						t.Fatalf("step %d: %v", k, err)
					}
					got = output(t, out, "y").Floats
				}
				if !slices.Equal(got, want[k]) {
					t.Errorf("step %d: %v, want %v", k, got, want[k])
				}
			}
			if n, _ := s.sessions.Count(nil); n != 1 {
				t.Errorf("%d sessions", n)
			}
			_ = c.Close(websocket.StatusNormalClosure, "")
			until(t, "the session ends with its connection", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
		})
	}
}

func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

// TestSocketErrors sends what is wrong among what is right: the stream lives on and its
// state is as if the wrong had not come.
func TestSocketErrors(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	want := steps(t, s, "step", 12, 1)
	c := dialStream(t, url, "model=step&timeout=10000000")
	bad := []struct {
		binary     bool
		text, want string
	}{
		{false, `{"id":"q","inputs":[]}`, `{"error":"input \"x\" is missing`},
		{false, `{`, `{"error":"JSON, byte 1`},
		{false, ``, `{"error":"the request has no body`},
		{false, `[1,2,"three",4]`, `{"error":"expected a list of numbers`},
		{false, `[1,2,1e99,4]`, `{"error":"number 3 of the list is \"1e99\"`},
		{false, `[1,2,3]`, `{"error":"input \"x\": got 12 bytes, expected a multiple of 16 (4 elements of FP32) for shape [1,-1,4]`},
		{false, `[1,2,[3,4]]`, `{"error":"expected a list of numbers`},
		{true, "123", `{"error":"a binary message has 3 bytes`},
		{true, "12345678", `{"error":"input \"x\"`},
		{false, `{"inputs":[],"parameters":{"sequence_id":"other"}}`, `{"error":"parameter sequence_id is other`},
		{false, `{"inputs":[],"parameters":{"priority":-1},"id":"7"}`, `"id":"7"}`},
	}
	for k, w := range want {
		send(t, c, websocket.MessageBinary, rawStep(1+float32(k)))
		if k < len(bad) {
			typ := websocket.MessageText
			if bad[k].binary {
				typ = websocket.MessageBinary
			}
			send(t, c, typ, []byte(bad[k].text))
		}
		if _, b := receive(t, c); !slices.Equal(floats(b), w) {
			t.Errorf("step %d: %v, want %v", k, floats(b), w)
		}
		if k < len(bad) {
			if typ, b := receive(t, c); typ != websocket.MessageText || !strings.Contains(string(b), bad[k].want) || !json.Valid(b) {
				t.Errorf("%q: %s, want %s", bad[k].text, b, bad[k].want)
			}
		}
	}
}

// TestStreamRefusals asks for streams that cannot be.
func TestStreamRefusals(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	opened(t, url, `{"model":"step","id":"a"}`)
	for _, c := range []struct {
		query  string
		status int
		want   string
	}{
		{"", 400, "expected ?model="},
		{"model=other", 404, "unknown model"},
		{"model=plain", 501, "keeps no state"},
		{"model=step&version=3", 404, "no version"},
		{"model=step&session=b", 404, "there is no session"},
		{"session=b", 404, "there is no session"},
		{"session=a&ttl_seconds=4", 400, "leave it out"},
		{"model=step&ttl_seconds=x", 400, "ttl_seconds"},
		{"model=step&binary=what", 400, "binary: expected raw"},
		{"model=step&output=z", 400, `no output \"z\"`},
		{"model=step&sesion=a", 400, `unknown parameter \"sesion\"`},
		{"model=both&rate=1", 400, `unknown parameter \"rate\"`},
		{"model=step&sequence_start=true", 400, `unknown parameter`},
	} {
		_, r, err := websocket.Dial(context.Background(), url+"/v1/stream?"+c.query, nil)
		if err == nil || r == nil {
			t.Errorf("%s: no error", c.query)
			continue
		}
		b, _ := io.ReadAll(r.Body)
		if r.StatusCode != c.status || !strings.Contains(string(b), c.want) || !strings.HasPrefix(string(b), `{"error":"`) {
			t.Errorf("%s: status %d, %s; want %d, %s", c.query, r.StatusCode, b, c.status, c.want)
		}
		if r, text := ask(t, "POST", url+"/v1/stream?"+c.query, "", "Content-Type", "application/x-ndjson"); r.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("lines, %s: status %d, %s; want %d, %s", c.query, r.StatusCode, text, c.status, c.want)
		}
	}
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	for name, c := range map[string]struct {
		method  string
		headers []string
		status  int
		want    string
	}{
		"no socket":       {"GET", nil, 400, "Upgrade: websocket"},
		"another origin":  {"GET", append(slices.Clone(upgrade), "Origin", "http://elsewhere.example"), 403, "elsewhere.example"},
		"another version": {"GET", append(slices.Clone(upgrade), "Sec-WebSocket-Version", "12"), 400, "ersion"},
		"other lines":     {"POST", []string{"Content-Type", "application/json"}, 400, "expected application/x-ndjson"},
		"another method":  {"PUT", nil, 405, "GET"},
	} {
		r, text := ask(t, c.method, url+"/v1/stream?model=step", "", c.headers...)
		if r.StatusCode != c.status || !strings.Contains(text, c.want) || !strings.HasPrefix(text, `{"error":"`) || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: status %d, %s, %q; want %d, %s", name, r.StatusCode, r.Header.Get("Content-Type"), text, c.status, c.want)
		}
	}
	if n, _ := s.sessions.Count(nil); n != 1 {
		t.Errorf("%d sessions are left of refused streams", n-1)
	}
	same := dialStream(t, url, "model=step") // and the same origin is none of these
	_ = same.CloseNow()
}

// TestSocketEnds ends sessions below their streams.
func TestSocketEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(s *Server, c *websocket.Conn, n *batch.Session)
		code websocket.StatusCode
		want batch.Reason
	}{
		{"a request", func(_ *Server, c *websocket.Conn, _ *batch.Session) {
			_, b := stepBody(t, 1, false, inference.Params{"sequence_end": true})
			send(t, c, websocket.MessageText, []byte(b))
		}, websocket.StatusNormalClosure, batch.Ended},
		{"its client", func(_ *Server, _ *websocket.Conn, n *batch.Session) { n.End(batch.Ended) }, websocket.StatusNormalClosure, batch.Ended},
		{"eviction", func(_ *Server, _ *websocket.Conn, n *batch.Session) { n.End(batch.Evicted) }, websocket.StatusGoingAway, batch.Evicted},
		{"unloading", func(s *Server, _ *websocket.Conn, _ *batch.Session) {
			_ = s.Unload(context.Background(), "step", false)
		}, websocket.StatusGoingAway, batch.Unloaded},
		{"the server's end", func(s *Server, _ *websocket.Conn, _ *batch.Session) { _ = s.Close(context.Background()) }, websocket.StatusGoingAway, batch.Stopped},
		{"its time", func(_ *Server, _ *websocket.Conn, _ *batch.Session) {}, websocket.StatusGoingAway, batch.Idle},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTestServer(t, Options{})
			query := "model=step"
			if c.want == batch.Idle {
				query += "&ttl_seconds=0.05"
			}
			conn := dialStream(t, listen(t, s), query)
			var n *batch.Session
			until(t, "the session is there", func() bool {
				s.sessions.Each(nil, func(one *batch.Session) bool { n = one; return false })
				return n != nil
			})
			send(t, conn, websocket.MessageBinary, rawStep(1))
			if _, b := receive(t, conn); len(b) != 4*testHidden {
				t.Fatalf("%d bytes", len(b))
			}
			c.end(s, conn, n)
			why, answers := closing(t, conn)
			if why.Code != c.code || !strings.Contains(why.Reason, string(c.want)) {
				t.Errorf("closed with %d, %q; want %d, %q", why.Code, why.Reason, c.code, c.want)
			}
			if want := map[bool]int{true: 1}[c.name == "a request"]; answers != want {
				t.Errorf("%d answers before the end, want %d", answers, want)
			}
			until(t, "the session is gone", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
		})
	}
}

// TestAttach attaches a stream to a session that is there before and after.
func TestAttach(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	want := steps(t, s, "step", 6, 2)
	opened(t, url, `{"model":"step","id":"a"}`)
	for k := 0; k < 6; k += 2 {
		c := dialStream(t, url, "session=a")
		for i := k; i < k+2; i++ {
			send(t, c, websocket.MessageBinary, rawStep(2+float32(i)))
			if _, b := receive(t, c); !slices.Equal(floats(b), want[i]) {
				t.Errorf("step %d: %v, want %v", i, floats(b), want[i])
			}
		}
		_ = c.CloseNow()
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := s.sessions.Find("step", "a"); err != nil {
		t.Error(err)
	}
}

// FuzzMessage reads messages of all kinds.
func FuzzMessage(f *testing.F) {
	s := newTestServer(f, Options{})
	owner := s.NewOwner()
	f.Cleanup(owner.End)
	var streams []*stream
	for _, query := range []string{"model=step", "model=step&binary=request", "model=both"} {
		st, err := s.newStream(httptest.NewRequest("GET", "/v1/stream?"+query, nil), owner, streamLimits{messages: 1})
		if err != nil {
			f.Fatal(err)
		}
		streams = append(streams, st)
	}
	_, body := stepBody(f, 1, false, nil)
	f.Add(0, false, []byte(body))
	f.Add(0, false, []byte("[1,2,3,4]"))
	f.Add(0, true, rawStep(1))
	f.Add(1, true, append([]byte{0, 0, 0, 0}, rawStep(1)...))
	f.Add(1, true, append([]byte{255, 255, 255, 255}, body...))
	f.Add(1, true, []byte{1})
	f.Fuzz(func(t *testing.T, which int, binary bool, b []byte) {
		st := streams[uint(which)%uint(len(streams))]
		q, _, err := st.read(message{binary: binary, b: b})
		if err != nil {
			if known := inference.AsError(err); known.Code == inference.Internal {
				t.Errorf("%v", err)
			}
			return
		}
		if err := st.h.adopt(q); err == nil && st.h.e.pipeline == nil {
			_, _, _ = st.version().job(q, st.c) // must not panic
		}
	})
}

// TestUnreadStream sends requests and reads no answer: what the server holds is bounded,
// and the connection is cut with a reason.
func TestUnreadStream(t *testing.T) {
	s := newTestServer(t, Options{})
	mux := http.NewServeMux()
	s.streamRoutes(mux, streamLimits{messages: 8, unread: 300 * time.Millisecond})
	h := httptest.NewUnstartedServer(mux)
	h.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { // the system's buffers are small
		if err := c.(*net.TCPConn).SetWriteBuffer(1 << 14); err != nil {
			t.Error(err)
		}
		return ctx
	}
	h.Start()
	defer h.Close()
	c := dialStream(t, h.URL, "model=step")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	long := bytes.Repeat(rawStep(1), 1000) // as many steps, whose answer has 32,000 bytes
	go func() {
		for c.Write(ctx, websocket.MessageBinary, long) == nil { // what comes after the cut is read and forgotten
		}
	}()
	v := s.models.get("step").versions[0]
	most, taken := 0, uint64(0)
	quiet := time.Now()
	for time.Since(quiet) < 1500*time.Millisecond { // until the server has stopped to take requests
		if ctx.Err() != nil {
			t.Fatal("the server takes requests without end")
		}
		st := v.q.Stats()
		most = max(most, st.Waiting)
		if st.Succeeded != taken || st.Succeeded == 0 {
			taken, quiet = st.Succeeded, time.Now()
		}
		time.Sleep(time.Millisecond)
	}
	if taken > 1000 { // more than the buffers of a connection hold as answers
		t.Errorf("%d requests were computed", taken)
	}
	why, answers := closing(t, c)
	if why.Code != websocket.StatusPolicyViolation || !strings.Contains(why.Reason, "has not read its answers") {
		t.Errorf("closed with %d, %q", why.Code, why.Reason)
	}
	if most > 8 || answers > 1000 {
		t.Errorf("%d requests waited, %d answers were held", most, answers)
	}
	until(t, "the session ends", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
}

// TestSocketPings keeps a silent client that answers pings, and cuts one that does not.
func TestSocketPings(t *testing.T) {
	s := newTestServer(t, Options{})
	mux := http.NewServeMux()
	s.streamRoutes(mux, streamLimits{ping: 50 * time.Millisecond})
	h := httptest.NewServer(mux)
	defer h.Close()
	alive := dialStream(t, h.URL, "model=step")
	got := make(chan []byte, 1)
	go func() { // who reads answers pings
		_, b, _ := alive.Read(context.Background())
		got <- b
	}()
	dead := dialStream(t, h.URL, "model=step") // nobody reads
	until(t, "the dead one's session ends", func() bool { n, _ := s.sessions.Count(nil); return n == 1 })
	time.Sleep(300 * time.Millisecond)
	send(t, alive, websocket.MessageBinary, rawStep(1))
	if b := <-got; len(b) != 4*testHidden {
		t.Errorf("the one that answers pings got %d bytes", len(b))
	}
	_ = dead.CloseNow()
}

// TestSocketTooLarge sends a message that is larger than requests may be.
func TestSocketTooLarge(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Body: 1000}})
	c := dialStream(t, listen(t, s), "model=step")
	send(t, c, websocket.MessageBinary, make([]byte, 2000))
	if why, _ := closing(t, c); why.Code != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", why)
	}
	until(t, "the session ends", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
}

// TestStreamsFillBatches runs streams with requests in flight: their steps share batches, and
// each has the answers of its own.
func TestStreamsFillBatches(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	const streams, length = 16, 60
	want := make([][][]float32, streams)
	for i := range want {
		want[i] = steps(t, s, "step", length, float32(100*i))
	}
	v := s.models.get("step").versions[0]
	before := v.q.Stats()
	var all sync.WaitGroup
	for i := range streams {
		all.Go(func() {
			c := dialStream(t, url, "model=step")
			go func() {
				for k := range length {
					if c.Write(context.Background(), websocket.MessageBinary, rawStep(float32(100*i)+float32(k))) != nil {
						return
					}
				}
			}()
			for k := range length {
				_, b, err := c.Read(context.Background())
				if err != nil || !slices.Equal(floats(b), want[i][k]) {
					t.Errorf("stream %d, step %d: %v, %v; want %v", i, k, err, floats(b), want[i][k])
					return
				}
			}
		})
	}
	all.Wait()
	after := v.q.Stats()
	if rows, batches := after.Rows-before.Rows, after.Batches-before.Batches; rows != streams*length || float64(rows)/float64(batches) < 1.2 {
		t.Errorf("%d rows in %d batches", rows, batches)
	} else {
		t.Logf("%.1f rows a batch", float64(rows)/float64(batches))
	}
}

// lineStream is a stream of lines.
type lineStream struct {
	t    testing.TB
	w    *io.PipeWriter
	r    *bufio.Reader
	resp *http.Response
}

func newLineStream(t testing.TB, url, query string) *lineStream {
	t.Helper()
	return newLineStreamOver(t, http.DefaultTransport, url, query)
}

func newLineStreamOver(t testing.TB, over http.RoundTripper, url, query string) *lineStream {
	t.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequest("POST", url+"/v1/stream?"+query, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson; charset=utf-8")
	resp, err := over.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("status %d", resp.StatusCode)
	}
	t.Cleanup(func() { _ = resp.Body.Close(); _ = w.Close() })
	return &lineStream{t, w, bufio.NewReader(resp.Body), resp}
}

func (l *lineStream) send(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l.w, text); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lineStream) receive() string {
	l.t.Helper()
	line, err := l.r.ReadString('\n')
	if err != nil {
		l.t.Fatal(err)
	}
	return line
}

func TestLines(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Body: 5000}})
	url := listen(t, s)
	want := steps(t, s, "step", 6, 5)
	l := newLineStream(t, url, "model=step")
	for k := range want {
		var got []float32
		if k%2 == 0 {
			b, _ := json.Marshal(stepInput(5 + float32(k)).Floats)
			l.send("\n" + string(b) + "\r\n")
			if err := json.Unmarshal([]byte(l.receive()), &got); err != nil {
				t.Fatal(err)
			}
		} else {
			_, b := stepBody(t, 5+float32(k), false, nil)
			l.send("what\n" + b + "\n")
			if text := l.receive(); !strings.HasPrefix(text, `{"error":"JSON`) {
				t.Errorf("a line that is no JSON: %s", text)
			}
			out, err := inference.ReadResponse("", []byte(l.receive()))
			if err != nil {
				t.Fatal(err)
			}
			got = output(t, out, "y").Floats
		}
		if !slices.Equal(got, want[k]) { // before the next is sent
			t.Errorf("step %d: %v, want %v", k, got, want[k])
		}
	}
	_, b := stepBody(t, 1, false, inference.Params{"binary_data_output": true})
	l.send(b + "\n")
	if text := l.receive(); !strings.Contains(text, "lines of JSON have no binary data") {
		t.Errorf("got %s", text)
	}
	l.send("[1,2,3,4]") // without the end of its line
	_ = l.w.Close()
	if text := l.receive(); text[0] != '[' {
		t.Errorf("the last line: %s", text)
	}
	if _, err := l.r.ReadByte(); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
	until(t, "the session ends", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })

	l = newLineStream(t, url, "model=step")
	go func() { _, _ = io.WriteString(l.w, strings.Repeat("1,", 6000)) }()
	if text := l.receive(); !strings.Contains(text, "a line has more than 5000 bytes") {
		t.Errorf("a line that is too long: %s", text)
	}
	if _, err := l.r.ReadByte(); err == nil {
		t.Error("the stream goes on after a line that is too long")
	}
	until(t, "the session ends", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
}

// TestLinesHTTP2 streams lines over HTTP/2 without TLS.
func TestLinesHTTP2(t *testing.T) {
	s := newTestServer(t, Options{})
	h := httptest.NewUnstartedServer(s.Handler())
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	h.Config.Protocols = &p
	h.Start()
	defer h.Close()
	over := &http.Transport{Protocols: &p}
	defer over.CloseIdleConnections()
	l := newLineStreamOver(t, over, h.URL, "model=step")
	if l.resp.ProtoMajor != 2 {
		t.Fatalf("the protocol is %s", l.resp.Proto)
	}
	for range 3 {
		l.send("[1,2,3,4]\n")
		if text := l.receive(); text[0] != '[' {
			t.Errorf("got %s", text)
		}
	}
	s.sessions.EndAll(nil, batch.Unloaded)
	if text := l.receive(); !strings.Contains(text, string(batch.Unloaded)) {
		t.Errorf("got %s", text)
	}
	if _, err := l.r.ReadByte(); err == nil {
		t.Error("the stream goes on")
	}
	l = newLineStreamOver(t, over, h.URL, "model=step")
	l.send("[1,2,3,4]\n")
	l.receive()
	_ = l.w.Close()
	if _, err := l.r.ReadByte(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	until(t, "the session ends", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
}

// TestLinesEnd ends the session, and the client, of streams of lines.
func TestLinesEnd(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	l := newLineStream(t, url, "model=step")
	l.send("[1,2,3,4]\n")
	l.receive()
	s.sessions.EndAll(nil, batch.Evicted)
	if text := l.receive(); !strings.Contains(text, `{"error":"the session is over: `+string(batch.Evicted)) {
		t.Errorf("got %s", text)
	}
	if _, err := l.r.ReadByte(); err == nil {
		t.Error("the stream goes on")
	}
	l = newLineStream(t, url, "model=step")
	_, b := stepBody(t, 1, false, inference.Params{"sequence_end": true})
	l.send(b + "\n")
	if text := l.receive(); !strings.Contains(text, `"outputs"`) {
		t.Errorf("got %s", text)
	}
	if text, err := l.r.ReadString('\n'); err == nil {
		t.Errorf("the stream goes on with %s", text)
	}
	l = newLineStream(t, url, "model=step")
	l.send("[1,2,3,4]\n")
	l.receive()
	_ = l.w.CloseWithError(context.Canceled) // the client goes
	until(t, "the session ends", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
}

// told is a connection that notes what is written to it.
type told struct{ list []string }

func (c *told) read() (message, error) { return message{}, io.EOF }
func (c *told) carries() bool          { return false }
func (c *told) close(batch.Reason)     { c.list = append(c.list, "closed") }
func (c *told) write(m message) error {
	c.list = append(c.list, string(m.b))
	return nil
}

// TestLastAnswerBeforeTheEnd has a step that ends its session before it stands among those
// whose answers are waited for: its answer comes before the connection is closed.
func TestLastAnswerBeforeTheEnd(t *testing.T) {
	c := &told{}
	st := &stream{conn: c, cancel: func() {}, pending: make(chan *pending, 1), over: make(chan batch.Reason, 1), stopped: make(chan struct{}), room: make(chan struct{}, 1)}
	st.taken.Add(1)
	st.over <- batch.Ended
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		st.answer()
	}()
	time.Sleep(20 * time.Millisecond) // in which it hears of the end
	st.enqueue(&pending{err: fmt.Errorf("the last")})
	close(st.pending)
	<-answered
	if want := []string{`{"error":"the last"}`, "closed"}; !slices.Equal(c.list, want) {
		t.Errorf("got %q, want %q", c.list, want)
	}
}

// TestStreamsLeaveNothing opens and drops streams in every way.
func TestStreamsLeaveNothing(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	round := func(n int) {
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				c := connect(t, url, "model=step")
				for range 1 + i%4 {
					send(t, c, websocket.MessageBinary, rawStep(1))
				}
				if i%3 == 0 {
					receive(t, c)
				}
				if i%2 == 0 {
					_ = c.CloseNow()
				} else {
					_ = c.Close(websocket.StatusNormalClosure, "")
				}
			})
			if i%10 == 9 {
				all.Wait()
			}
		}
		all.Wait()
		until(t, "all sessions end", func() bool { n, _ := s.sessions.Count(nil); return n == 0 })
	}
	round(1100) // after as many ends the oldest are forgotten
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	before, bytes := runtime.NumGoroutine(), heapInUse()
	round(400)
	round(400)
	until(t, "their goroutines end", func() bool { return runtime.NumGoroutine() <= before+2 })
	if after := heapInUse(); float64(after) > 1.05*float64(bytes) {
		t.Errorf("heap %d before, %d after", bytes, after)
	}
}

// sums is a stream of sound whose prediction is the number of samples and their sum.
type sums struct {
	n   int
	sum float64
}

func (s *sums) Feed(_ context.Context, in *task.Portion) (task.Prediction, error) {
	for _, x := range in.Samples {
		s.n++
		s.sum += float64(x)
	}
	p := &sumsSoFar{s.n, s.sum, in.Rate}
	if in.Last {
		*s = sums{}
	}
	return p, nil
}

func (s *sums) Bytes() int                     { return 16 }
func (s *sums) MarshalBinary() ([]byte, error) { return nil, fmt.Errorf("it cannot be saved") }
func (s *sums) UnmarshalBinary([]byte) error   { return fmt.Errorf("it cannot be restored") }

type sumsSoFar struct {
	N    int     `json:"n"`
	Sum  float64 `json:"sum"`
	Rate int     `json:"rate"`
}

func (p *sumsSoFar) Write(io.Writer) error { return nil }
func (p *sumsSoFar) Print(io.Writer)       {}

// summing is a model of a task that streams.
type summing struct{ task.Model }

func (summing) Serves() (*task.Service, error) {
	return &task.Service{Samples: true, NewStream: func() task.Stream { return &sums{} }, Outputs: []task.Output{
		{Name: "sum", Numbers: func(p task.Prediction) []float64 { return []float64{p.(*sumsSoFar).Sum} }},
		{Name: "rate", Numbers: func(p task.Prediction) []float64 { return []float64{float64(p.(*sumsSoFar).Rate)} }},
	}}, nil
}

// TestTaskStream streams sound to a model of a task.
func TestTaskStream(t *testing.T) {
	s := New(Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	defer func() { _ = s.Close(context.Background()) }()
	kind := carousel.Tasks[slices.IndexFunc(carousel.Tasks, func(k *task.Kind) bool {
		_, inherits := k.Predicting().(task.Inheritor) // from a model of its own
		return !inherits
	})]
	ofSound := *kind
	ofSound.Form = task.SoundForm
	p, err := newTaskProgram(&task.Trained{Model: summing{}, Kind: &ofSound}, "test")
	if err != nil {
		t.Fatal(err)
	}
	addProgram(s, "sums", p)
	url := listen(t, s)
	sound := func(n int) (b []byte) {
		for range n {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(0.5))
		}
		return b
	}
	c := dialStream(t, url, "model=sums&rate=8000&output=sum")
	for k := 1; k <= 3; k++ {
		send(t, c, websocket.MessageBinary, sound(100))
		if typ, b := receive(t, c); typ != websocket.MessageBinary || len(b) != 8 || math.Float64frombits(binary.LittleEndian.Uint64(b)) != float64(50*k) {
			t.Errorf("part %d: %q", k, b)
		}
	}
	send(t, c, websocket.MessageText, []byte("[0.25,0.25]"))
	if _, b := receive(t, c); string(b) != "[150.5]" {
		t.Errorf("a list of samples: %s", b)
	}
	send(t, c, websocket.MessageText, []byte(`{"inputs":[{"name":"samples","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"rate":16000,"finish":true}}`))
	if _, b := receive(t, c); !strings.Contains(string(b), `"data":[151.5]`) || !strings.Contains(string(b), `"data":[16000]`) {
		t.Errorf("a request: %s", b)
	}
	send(t, c, websocket.MessageBinary, sound(2))
	if _, b := receive(t, c); len(b) != 8 || math.Float64frombits(binary.LittleEndian.Uint64(b)) != 1 {
		t.Errorf("after the end of a sound: %q", b)
	}
	send(t, c, websocket.MessageBinary, []byte("123"))
	if _, b := receive(t, c); !strings.Contains(string(b), "elements of 4 bytes") {
		t.Errorf("got %s", b)
	}
	all := dialStream(t, url, "model=sums&rate=8000") // several outputs: JSON
	send(t, all, websocket.MessageBinary, sound(2))
	if typ, b := receive(t, all); typ != websocket.MessageText || !strings.Contains(string(b), `"data":[1]`) || !strings.Contains(string(b), `"data":[8000]`) {
		t.Errorf("all outputs: %s", b)
	}
	if _, r, err := websocket.Dial(context.Background(), url+"/v1/stream?model=sums&rates=8000", nil); err == nil || r.StatusCode != 400 {
		t.Errorf("an unknown option: %v", err)
	}
	l := newLineStream(t, url, "model=sums&rate=8000&output=sum")
	l.send("[1,2,3]\n")
	if text := l.receive(); text != "[6]\n" {
		t.Errorf("lines: %s", text)
	}
	i := opened(t, url, `{"model":"sums"}`)
	if r, text := ask(t, "GET", url+"/v1/sessions/"+i.ID+"/state", ""); r.StatusCode != 501 || !strings.Contains(text, "cannot be saved") {
		t.Errorf("status %d, %s", r.StatusCode, text)
	}
}

// addProgram adds a model that no file holds.
func addProgram(s *Server, name string, p batch.Program) *version {
	v := s.newVersion(ModelConfig{Name: name}, "1", p)
	s.models.put(&entry{name: name, versions: []*version{v}, wanted: true})
	return v
}
