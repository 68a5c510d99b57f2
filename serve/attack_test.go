package serve

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// fortress runs a server with small limits and tokens: user for infer, boss for admin. Its
// log has all requests.
func fortress(tb testing.TB) *doors {
	tb.Helper()
	with, _ := withTokens(tb, "user infer", "boss admin")
	return run(tb, func(s *Server) {
		with(s)
		s.limits().Body = 1 << 20
		s.o.LogRequests = true
		s.o.Profiles = false
		s.bodyTime = 200 * time.Millisecond
	})
}

// connect opens a connection to an address.
func connectTo(tb testing.TB, addr string) net.Conn {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// rawRequest sends bytes to the HTTP door and returns the answer; its status is 0 if the
// connection was closed without one.
func (d *doors) rawRequest(tb testing.TB, text string) (status int, answer string) {
	tb.Helper()
	c := connectTo(tb, d.http)
	go func() { _, _ = io.WriteString(c, text) }() // the server may close before all is written
	out, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, ""
	}
	defer out.Body.Close()
	b, _ := io.ReadAll(out.Body)
	return out.StatusCode, string(b)
}

const as = "Host: x\r\nAuthorization: Bearer user-secret\r\n"

// still checks that a server answers as before.
func (d *doors) still(tb testing.TB) {
	tb.Helper()
	if status, answer, _ := d.send(tb, "POST", "/v2/models/m/infer", "user-secret", oneStep); status != 200 {
		tb.Errorf("after the attack the server answers %d %s", status, answer)
	}
	if _, err := pb.NewGRPCInferenceServiceClient(d.dial(tb)).ModelInfer(withToken("user-secret"), stepProto("", false)); err != nil {
		tb.Errorf("after the attack gRPC answers %v", err)
	}
}

// allocated returns the bytes that f allocated, with all goroutines of the process.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// A path is what it is after its percent signs are undone, whatever way it is written: no
// trick leads to what the token is not for, out of a name, or to a page of HTML.
func TestPathTricks(t *testing.T) {
	d := fortress(t)
	var all sync.WaitGroup // since refusals are slow
	for _, path := range []string{
		"/v2/models/../repository/index", "/v2/models/%2e%2e/repository/index", "/v2/models/%2E%2E/%2e%2e/v2/repository/index",
		"/v2/health/live/../../repository/index", "/v2/health/live/%2e%2e/%2e%2e/repository/index", "//v2/repository/index", "/v2//repository/index",
		"/v2/repository/index/", "/./v2/repository/index", "/v2/%72epository/index", "/v2/repository%2findex", "/v2%2frepository%2findex",
		"/v2/repository/index?x=/v2/health/live", "/v2/repository/index;/v2/health/live", "/v2/repository/index%00", "/v2/repository%00/index",
		"/v2/repository/..%2findex", "/V2/REPOSITORY/INDEX", `/v2\repository\index`, "/v2/repository/models/m/unload", "/v2/repository/models/%6d/load",
		"/v2/models/m%2f..%2f..%2frepository/infer", "/v2/models/m%00/infer", "/v2/models/..%2f..%2fetc%2fpasswd/infer", "/v2/models/%c0%af/infer",
		"/v2/models/" + strings.Repeat("a", 5000) + "/infer", "/v2/models/m/versions/%2e%2e/infer", "/v2/models/m/versions/1%00/infer",
		"/v2/models/m/versions/99999999999999999999/infer", "/v1/sessions/%2e%2e/infer", "/debug/pprof/heap", "/debug/vars", "/.git/config", "http://evil.example/v2/repository/index",
		"*",
	} {
		for _, c := range []struct{ method, who string }{{"POST", as}, {"GET", as}, {"POST", "Host: x\r\n"}} {
			all.Go(func() {
				status, answer := d.rawRequest(t, c.method+" "+path+" HTTP/1.1\r\n"+c.who+"Connection: close\r\nContent-Length: "+fmt.Sprint(len(oneStep))+"\r\n\r\n"+oneStep)
				if status < 400 || status >= 500 {
					t.Errorf("%s %q: got %d %.200s", c.method, path, status, answer)
				}
				if status != 400 || strings.HasPrefix(answer, "{") { // what is no request at all net/http refuses with a text
					wrong(t, path, answer)
				}
				if strings.Contains(answer, "READY") || strings.Contains(answer, "<a href") {
					t.Errorf("%s %q was answered with %.200s", c.method, path, answer)
				}
			})
		}
	}
	all.Wait()
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/vars"} {
		if status, answer, _ := d.send(t, "GET", path, "boss-secret", ""); status != 404 {
			t.Errorf("%s, which was not asked for: %d %.100s", path, status, answer)
		}
	}
	if e := d.s.models.get("m"); len(e.versions) != 1 {
		t.Error("a trick unloaded the model")
	}
	d.still(t)
}

func TestMalformedRequests(t *testing.T) {
	d := fortress(t)
	var all sync.WaitGroup
	const to = "POST /v2/models/m/infer HTTP/1.1\r\n" + as
	for _, text := range []string{
		"\x00\x01\x02\x03\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /v2 HTTP/1.1\r\n\r\n", // no host
		to + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", to + "Content-Length: -5\r\n\r\n", to + "Content-Length: 99999999999999999999\r\n\r\n",
		to + "Transfer-Encoding: chunked, chunked\r\n\r\n", to + "Transfer-Encoding: gzip\r\n\r\n", to + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
		to + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("f", 40) + "\r\n",
		to + "Bad Header: x\r\n\r\n", to + "X: a\x00b\r\n\r\n", to + "Content-Encoding: gzip, gzip\r\nContent-Length: 2\r\n\r\n{}", to + "Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
		to + "Inference-Header-Content-Length: 99999999\r\nContent-Length: 2\r\n\r\n{}", to + "Inference-Header-Content-Length: -1\r\nContent-Length: 2\r\n\r\n{}",
		"GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user-secret\r\nAuthorization: Bearer boss-secret\r\n\r\n",
		"GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dXNlcjp1c2VyLXNlY3JldA==\r\n\r\n",
		"GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n\r\n", "GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization: user-secret\r\n\r\n",
		"GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("a", mostSecret+1) + "\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 60) + "\r\n\r\n", // TLS where there is none
	} {
		all.Go(func() {
			status, answer := d.rawRequest(t, strings.Replace(text, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
			if status != 0 && (status < 400 || status >= 600 || status == 500) {
				t.Errorf("%.120q: got %d %.200s", text, status, answer)
			}
		})
	}
	all.Wait()
	d.still(t)
	if strings.Contains(d.log.String(), "-secret") || strings.Contains(d.log.String(), "dXNlcjp1") {
		t.Error("a secret stands in the log")
	}
}

func TestHeaderFloods(t *testing.T) {
	d := fortress(t)
	for name, header := range map[string]string{
		"many": strings.Repeat("X-Flood: 1234567890\r\n", 20_000),
		"long": "X-Flood: " + strings.Repeat("a", 1<<20) + "\r\n",
		"path": "",
	} {
		text := "GET /v2 HTTP/1.1\r\n" + as + header + "\r\n"
		if name == "path" {
			text = "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n" + as + "\r\n"
		}
		if status, answer := d.rawRequest(t, text); status != 431 && status != 0 {
			t.Errorf("%s: got %d %.100s, want 431", name, status, answer)
		}
	}
	ctx := metadata.AppendToOutgoingContext(withToken("user-secret"), "x-flood", strings.Repeat("a", 1<<20))
	if _, err := pb.NewGRPCInferenceServiceClient(d.dial(t)).ModelInfer(ctx, stepProto("", false)); err == nil {
		t.Error("a call with a header of 1 MiB was answered")
	}
	d.still(t)
}

// Bodies that are announced with 10 GB, and those that come without end, are refused, and cost
// no more memory than the limit.
func TestHugeBodies(t *testing.T) {
	d := fortress(t)
	const to = "POST /v2/models/m/infer HTTP/1.1\r\n" + as
	used := allocated(func() {
		for range 50 {
			if status, answer := d.rawRequest(t, to+"Content-Length: 10000000000\r\n\r\n{"); status != 413 {
				t.Fatalf("10 GB announced: got %d %s", status, answer)
			} else {
				wrong(t, "10 GB announced", answer)
			}
		}
	})
	if used > 20<<20 {
		t.Errorf("50 announcements cost %d bytes", used)
	}
	// A body within the limit that is announced and does not come costs no memory either.
	used = allocated(func() {
		for range 50 {
			c := connectTo(t, d.http)
			_, _ = io.WriteString(c, to+"Content-Length: 1000000\r\n\r\n{")
		}
		time.Sleep(100 * time.Millisecond)
	})
	if used > 20<<20 {
		t.Errorf("50 announcements within the limit cost %d bytes", used)
	}
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat(" ", 64<<10))
	sent := 0
	used = allocated(func() {
		c := connectTo(t, d.http)
		if _, err := io.WriteString(c, to+"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answered := make(chan int, 1)
		go func() {
			out, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				answered <- 0
				return
			}
			answered <- out.StatusCode
		}()
		for range 16 << 10 { // a GiB, if it is let
			n, err := io.WriteString(c, chunk)
			sent += n
			if err != nil {
				break
			}
		}
		if status := <-answered; status != 413 && status != 0 {
			t.Errorf("an endless body: got %d", status)
		}
	})
	if sent > 64<<20 || used > 32<<20 {
		t.Errorf("of an endless body %d bytes were taken, and cost %d bytes of memory; the limit is 1 MiB", sent, used)
	}
	for _, path := range []string{"/v1/sessions", "/v1/classify", "/v1/sessions/a/infer?model=m"} {
		status, answer := d.rawRequest(t, "POST "+path+" HTTP/1.1\r\n"+as+"Content-Length: 2000000\r\n\r\n"+strings.Repeat(" ", 2_000_000))
		if status != 413 && status != 404 && status != 0 {
			t.Errorf("%s: got %d %s", path, status, answer)
		}
	}
	d.still(t)
}

func bomb(tb testing.TB, as string) []byte {
	tb.Helper()
	var b bytes.Buffer
	var z io.WriteCloser = gzip.NewWriter(&b)
	if as == "deflate" {
		z = zlib.NewWriter(&b)
	}
	block := bytes.Repeat([]byte(" "), 1<<20)
	for range 64 {
		if _, err := z.Write(block); err != nil {
			tb.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestCompressedBombs(t *testing.T) {
	d := fortress(t)
	for _, as := range []string{"gzip", "deflate"} {
		b := bomb(t, as)
		if len(b) > 1<<20 {
			t.Fatalf("the bomb itself has %d bytes", len(b))
		}
		for _, path := range []string{"/v2/models/m/infer", "/v1/sessions", "/v1/forecast", "/v1/stream?model=m"} {
			var status int
			var answer string
			used := allocated(func() {
				q, err := http.NewRequest("POST", "http://"+d.http+path, bytes.NewReader(b))
				if err != nil {
					t.Fatal(err)
				}
				q.Header.Set("Content-Encoding", as)
				q.Header.Set("Authorization", "Bearer user-secret")
				if strings.HasPrefix(path, "/v1/stream") {
					q.Header.Set("Content-Type", "application/x-ndjson")
				}
				out, err := http.DefaultClient.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				defer out.Body.Close()
				text, _ := io.ReadAll(out.Body)
				status, answer = out.StatusCode, string(text)
			})
			stream := strings.HasPrefix(path, "/v1/stream") // whose status is told before its lines come
			if status != 413 && !stream || stream && !strings.Contains(answer, "bytes, which the server takes") {
				t.Errorf("%s with %s: got %d %.200s", path, as, status, answer)
			}
			if used > 16<<20 {
				t.Errorf("%s with %s: %d bytes of memory for a body of 64 MiB whose limit is 1 MiB", path, as, used)
			}
		}
	}
	c := pb.NewGRPCInferenceServiceClient(d.dial(t))
	m := stepProto("", false)
	m.Inputs[0].Contents.Fp32Contents = make([]float32, 16<<20)
	if _, err := c.ModelInfer(withToken("user-secret"), m, grpc.UseCompressor(grpcgzip.Name)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a compressed message of 64 MiB: %v", err)
	}
	if _, err := c.ModelInfer(withToken("user-secret"), m); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of 64 MiB: %v", err)
	}
	s, err := c.ModelStreamInfer(withToken("user-secret"))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(m) // Recv tells
	if _, err := s.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of 64 MiB in a stream: %v", err)
	}
	socket, err := d.socketOf(t, "user-secret")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	_ = socket.Write(context.Background(), websocket.MessageBinary, make([]byte, 4<<20)) // Read tells
	if _, _, err := socket.Read(context.Background()); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("a message of 4 MiB in a WebSocket: %v", err)
	}
	d.still(t)
}

// TestBodiesThatDoNotCome: requests that are answered without their body, which is announced
// and does not come, are answered all the same, and their connections end. One that is too
// large by its announcement is not waited for.
func TestBodiesThatDoNotCome(t *testing.T) {
	d := fortress(t)
	const auth = "Authorization: Bearer user-secret\r\n"
	for _, c := range []struct {
		name, path, header string
		length             int
		status             int
	}{
		{"no token", "/v2/models/m/infer", "", 1000, 401},
		{"no token, large", "/v2/models/m/infer", "", 1 << 40, 401},
		{"unknown path", "/nope", auth, 1000, 404},
		{"wrong method", "/v2/models/m/ready", auth, 1000, 405},
		{"too large", "/v2/models/m/infer", auth, 1 << 40, 413},
		{"unknown encoding", "/v2/models/m/infer", auth + "Content-Encoding: br\r\n", 1000, 400},
		{"stream of another type", "/v1/stream?model=m", auth, 1000, 400},
		{"nothing of the body", "/v2/models/m/infer", auth, 1000, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := connectTo(t, d.http)
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n", c.path, c.header, c.length)
			r := bufio.NewReader(conn)
			a, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if text, _ := io.ReadAll(a.Body); a.StatusCode != c.status || !strings.HasPrefix(string(text), `{"error":`) {
				t.Errorf("got %d %s, want %d", a.StatusCode, text, c.status)
			}
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("the connection goes on: %v", err)
			}
		})
	}
}

// A body that comes a byte at a time is given up, and so are headers.
func TestSlowClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 seconds")
	}
	t.Parallel()
	d := fortress(t)
	var all sync.WaitGroup
	slowly := func(addr, before string, rest byte, most time.Duration, want string) {
		began := time.Now()
		c := connectTo(t, addr)
		if _, err := io.WriteString(c, before); err != nil {
			t.Error(err)
			return
		}
		all.Go(func() {
			for {
				if _, err := c.Write([]byte{rest}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
		b, _ := io.ReadAll(c) // until the server closes, with whatever error
		c.Close()
		if took := time.Since(began); took > most || !strings.Contains(string(b), want) {
			t.Errorf("%.60q: the server closed after %v with %.300q, want at most %v and %q", before, took, b, most, want)
		}
	}
	for range 20 {
		all.Go(func() {
			slowly(d.http, "POST /v2/models/m/infer HTTP/1.1\r\n"+as+"Connection: close\r\nContent-Length: 100000\r\n\r\n", ' ', 5*time.Second, "the body came too slowly")
		})
		all.Go(func() {
			slowly(d.http, "POST /v1/classify HTTP/1.1\r\n"+as+"Connection: close\r\nContent-Length: 100000\r\n\r\n", ' ', 5*time.Second, "")
		})
		all.Go(func() { slowly(d.http, "GET /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: ", 'a', headerTime+5*time.Second, "") })
		all.Go(func() { slowly(d.grpc, "PRI * HTTP/2.0\r\n\r\nSM\r\n", 0, headerTime+5*time.Second, "") })
	}
	all.Wait()
	// One that is slow but keeps the pace is answered.
	c := connectTo(t, d.http)
	body := oneStep + strings.Repeat(" ", 4000-len(oneStep))
	fmt.Fprintf(c, "POST /v2/models/m/infer HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", as, len(body))
	for at := 0; at < len(body); at += 400 {
		_, _ = io.WriteString(c, body[at:at+400])
		time.Sleep(60 * time.Millisecond)
	}
	if out, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || out.StatusCode != 200 {
		t.Errorf("a body of 600 ms: %v %v", out, err)
	}
	d.still(t)
}

// Who is refused is told so at once, also before the body has come, and a body that does not
// come holds the connection for a moment only.
func TestRefusalsDoNotWaitForBodies(t *testing.T) {
	d := fortress(t)
	for head, want := range map[string]int{
		"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n":                                             401,
		"POST /v2/nothing HTTP/1.1\r\n" + as + "Transfer-Encoding: chunked\r\n\r\n":                                                 404,
		"POST /v1/stream?model=none HTTP/1.1\r\n" + as + "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n": 404,
	} {
		began := time.Now()
		c := connectTo(t, d.http)
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		out, err := http.ReadResponse(in, nil)
		if err != nil || out.StatusCode != want {
			t.Errorf("%.40q: got %v %v, want %d", head, out, err, want)
			continue
		}
		if took := time.Since(began); took > restTime {
			t.Errorf("%.40q was answered after %v", head, took)
		}
		if _, err := io.Copy(io.Discard, in); err != nil || time.Since(began) > restTime+5*time.Second {
			t.Errorf("%.40q: the connection ended after %v with %v", head, time.Since(began), err)
		}
	}
	d.still(t)
}

// What is no HTTP/2 is closed by the gRPC door, and what is gRPC by the HTTP door.
func TestWrongProtocols(t *testing.T) {
	d := fortress(t)
	random := make([]byte, 4096)
	_, _ = rand.Read(random)
	frame := func(kind byte, n uint32, flags byte, stream uint32) string {
		b := binary.BigEndian.AppendUint32(nil, n<<8|uint32(kind))
		b = append(b, flags)
		return string(binary.BigEndian.AppendUint32(b, stream))
	}
	var all sync.WaitGroup
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", string(random),
		preface + frame(4, 0xffffff, 0, 0),                                                            // settings of 16 MiB
		preface + frame(4, 5, 0, 0) + "12345",                                                         // of a size that they cannot have
		preface + frame(4, 0, 0, 0) + frame(1, 4, 4, 0) + "head",                                      // headers of stream 0
		preface + frame(4, 0, 0, 0) + frame(1, 4, 4, 1) + "\xff\xff\xff\xff",                          // that cannot be read
		preface + frame(4, 0, 0, 0) + frame(8, 4, 0, 0) + "\x00\x00\x00\x00",                          // a window of no size
		preface + frame(4, 0, 0, 0) + strings.Repeat(frame(9, 1000, 0, 1)+string(random[:1000]), 100), // headers that go on for ever
	} {
		for _, addr := range []string{d.grpc, d.http} {
			all.Go(func() {
				c := connectTo(t, addr)
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				go func() { _, _ = io.WriteString(c, text) }() // the server may close before all is written
				b := make([]byte, 1<<10)
				for {
					n, err := c.Read(b)
					if strings.Contains(string(b[:n]), "HTTP/1.1 200") {
						t.Errorf("%.60q was answered with %.100q", text, b[:n])
					}
					if err != nil {
						if e, ok := err.(net.Error); ok && e.Timeout() && addr == d.grpc {
							t.Errorf("%.60q: the connection stays open", text)
						}
						break
					}
					if addr == d.http && strings.HasPrefix(text, "GET") {
						break // which is a request there
					}
				}
				c.Close()
			})
		}
	}
	all.Wait()
	d.still(t)
}

// A page of another site cannot use a WebSocket with a browser.
func TestOtherOrigins(t *testing.T) {
	d := fortress(t)
	h := http.Header{"Authorization": {"Bearer user-secret"}, "Origin": {"https://evil.example"}}
	c, out, err := websocket.Dial(context.Background(), "ws://"+d.http+"/v1/stream?model=m", &websocket.DialOptions{HTTPHeader: h})
	if err == nil {
		c.CloseNow()
	}
	if err == nil || out == nil || out.StatusCode != 403 {
		t.Errorf("got %v %v, want 403", out, err)
	}
	if status, _, h := d.send(t, "GET", "/v2", "user-secret", ""); status != 200 || h.Get("Access-Control-Allow-Origin") != "" {
		t.Error("pages of other sites may read answers")
	}
	for _, h := range []http.Header{{"Origin": {"https://evil.example"}}, {"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-origin"}, "Origin": {"http://" + d.http}}} {
		q, err := http.NewRequest("POST", "http://"+d.http+"/v2/models/m/infer", strings.NewReader(oneStep)) // which a page may send without asking
		if err != nil {
			t.Fatal(err)
		}
		h["Authorization"] = []string{"Bearer user-secret"}
		q.Header = h
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(a.Body)
		a.Body.Close()
		want := 403
		if slices.Contains(h["Sec-Fetch-Site"], "same-origin") {
			want = 200
		}
		if a.StatusCode != want || want == 403 && !strings.Contains(string(b), `{"error":`) {
			t.Errorf("%v: %d %s, want %d", h, a.StatusCode, b, want)
		}
	}
	c, out, err = websocket.Dial(context.Background(), "ws://"+d.http+"/v1/stream?model=m&token=user-secret", nil)
	if err == nil {
		c.CloseNow()
	}
	if err == nil || out == nil || out.StatusCode != 401 {
		t.Errorf("a token in the address: got %v %v, want 401", out, err)
	}
}

// A storm of wrong requests leaves goroutines and memory as they were, and others are
// answered meanwhile.
func TestStormLeavesNothing(t *testing.T) {
	d := fortress(t)
	d.still(t)
	http.DefaultClient.CloseIdleConnections()
	count := func() (goroutines int, heap uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	_, heap := count()
	goroutines := runtime.NumGoroutine()
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c, err := net.Dial("tcp", []string{d.http, d.grpc}[i%2])
				if err != nil {
					return
				}
				switch n % 4 {
				case 0:
					_, _ = io.WriteString(c, "POST /v2/models/m/infer HTTP/1.1\r\n"+as+"Content-Length: 500\r\n\r\nhalf")
				case 1:
					_, _ = io.WriteString(c, "GET /v2/models/"+fmt.Sprint(n)+"/ready HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n\r\n")
				case 2:
					_, _ = io.WriteString(c, "POST /v1/stream?model=m HTTP/1.1\r\n"+as+"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2,\r\n")
				case 3:
					_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
				}
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = c.Read(make([]byte, 100))
				c.Close()
			}
		})
	}
	for range 100 {
		if status, answer, _ := d.send(t, "POST", "/v2/models/m/infer", "user-secret", oneStep); status != 200 {
			t.Fatalf("during the storm: %d %s", status, answer)
		}
	}
	stop()
	all.Wait()
	http.DefaultClient.CloseIdleConnections()
	waitFor(t, "goroutines are left behind", func() bool { return runtime.NumGoroutine() <= goroutines+4 })
	waitFor(t, "sessions are left behind", func() bool { n, _ := d.s.sessions.Count(nil); return n == 0 })
	log := int64(len(d.log.String()))
	if _, after := count(); int64(after)-int64(heap) > 8<<20+4*log {
		t.Errorf("the heap grew from %d to %d bytes, with a log of %d", heap, after, log)
	}
	if strings.Contains(d.log.String(), "goroutine ") {
		t.Error("the server panicked")
	}
	for _, secret := range []string{"user-secret", "guess", "[1,2,"} {
		if strings.Contains(d.log.String(), secret) {
			t.Errorf("%q stands in the log", secret)
		}
	}
}
