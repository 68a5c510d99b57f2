package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// speak serves connections, each with the next of the answers to each request on it; ""
// closes it.
func speak(t *testing.T, connections ...[]string) *wireConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for _, answers := range connections {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			for _, a := range answers {
				if a == "" {
					break
				}
				r, err := http.ReadRequest(in)
				if err != nil {
					break
				}
				io.Copy(io.Discard, r.Body)
				io.WriteString(c, a)
			}
			c.Close()
		}
	}()
	w := &wireConn{url: &url.URL{Scheme: "http", Host: l.Addr().String()}, timeout: time.Second}
	t.Cleanup(w.close)
	return w
}

var request = []byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")

func TestAnswers(t *testing.T) {
	const end = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend"
	for _, c := range []struct {
		name, text string
		want       answer
	}{
		{"length", "HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nInference-Header-Content-Length: 4\r\n\r\nhello", answer{200, "4", []byte("hello")}},
		{"chunks", "HTTP/1.1 503 no\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", answer{503, "", []byte("hello")}},
		{"trailer", "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n0\r\nA: b\r\n\r\n", answer{200, "", []byte("h")}},
		{"continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", answer{400, "", nil}},
		{"nothing", "HTTP/1.1 204 No Content\r\n\r\n", answer{204, "", nil}},
	} {
		w := speak(t, []string{c.text, end})
		for _, want := range []answer{c.want, {200, "", []byte("end")}} { // the second on the same connection
			got, err := w.do(t.Context(), request)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if got.status != want.status || got.length != want.length || !bytes.Equal(got.body, want.body) {
				t.Errorf("%s: got %d %q %q, want %d %q %q", c.name, got.status, got.length, got.body, want.status, want.length, want.body)
			}
		}
	}
}

// TestClosed wants another connection after an answer that ends one, and where the server
// has closed it between requests, but no second try of a request that was not answered.
func TestClosed(t *testing.T) {
	const last, open = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"
	w := speak(t, []string{last}, []string{"HTTP/1.0 200 OK\r\n\r\nuntil the end", ""}, []string{open, ""}, []string{open})
	for i, want := range []string{"a", "until the end", "b", "b"} {
		got, err := w.do(t.Context(), request)
		if err != nil || string(got.body) != want {
			t.Fatalf("request %d: got %v, %v, want %q", i, got, err, want)
		}
	}
	for _, text := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "HTTP/1.1 2 OK\r\n\r\n", "SSH-2.0-OpenSSH\r\n", strings.Repeat("x", 100_000)} {
		w := speak(t, []string{text, ""}, nil)
		_, err := w.do(t.Context(), request)
		var f *Failure
		if !errors.As(err, &f) || f.Kind != "connection" {
			t.Errorf("%.40q gives %v, want a failure of the connection", text, err)
		}
	}
}

func TestTimeout(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // or the server would not see that the client leaves
		<-r.Context().Done()
	}))
	defer s.Close()
	u, _ := url.Parse(s.URL)
	w := &wireConn{url: u, timeout: 50 * time.Millisecond}
	_, err := w.do(t.Context(), request)
	var f *Failure
	if !errors.As(err, &f) || f.Kind != "timeout" {
		t.Errorf("got %v, want a timeout", err)
	}
	w.close()
	w.timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := w.do(ctx, request); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	w.close()
}

// The benchmarks compare the client with net/http's on a request of one step: they time
// the processor, of this process, in which a server answers by constant bytes.

func benchmarkClient(b *testing.B, send func(u *url.URL) func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: 150\r\nContent-Length: 1174\r\n\r\n%1174s", "")
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 64<<10)
		for {
			for n := 0; n < 1200; {
				m, err := c.Read(buf)
				if err != nil {
					return
				}
				n += m
			}
			c.Write(response)
		}
	}()
	u := &url.URL{Scheme: "http", Host: l.Addr().String()}
	one := send(u)
	one()
	cpu := processorTime()
	b.ResetTimer()
	for range b.N {
		one()
	}
	b.ReportMetric(float64((processorTime()-cpu).Microseconds())/float64(b.N), "cpu-us/op")
}

func BenchmarkClient(b *testing.B) {
	body := make([]byte, 1200)
	b.Run("wire", func(b *testing.B) {
		benchmarkClient(b, func(u *url.URL) func() {
			w := &wireConn{url: u, timeout: time.Minute}
			full := append(fmt.Appendf(nil, "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
			return func() {
				if _, err := w.do(b.Context(), full); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("net_http", func(b *testing.B) {
		benchmarkClient(b, func(u *url.URL) func() {
			return func() {
				r, err := http.Post(u.String()+"/v2/models/m/infer", "application/octet-stream", bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		})
	})
	// What both include: the server's part, and a client that does nothing but the system calls.
	b.Run("bare", func(b *testing.B) {
		benchmarkClient(b, func(u *url.URL) func() {
			c, err := net.Dial("tcp", u.Host)
			if err != nil {
				b.Fatal(err)
			}
			full, buf := make([]byte, 1300), make([]byte, 64<<10)
			return func() {
				c.Write(full)
				for n := 0; n < 1250; {
					m, err := c.Read(buf)
					if err != nil {
						b.Fatal(err)
					}
					n += m
				}
			}
		})
	})
}
