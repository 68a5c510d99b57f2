package serve

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// heldConnection opens a connection to HTTP and sends a request over it, so that it is one of the
// server's.
func (d *doors) heldConnection(tb testing.TB) net.Conn {
	tb.Helper()
	c := connectTo(tb, d.http)
	if _, err := io.WriteString(c, "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		tb.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// Connections beyond the limit are refused at once, with an answer where one can be read;
// those that there are go on, and a place that becomes free is taken.
func TestConnectionsAreLimited(t *testing.T) {
	d := run(t, func(s *Server) { s.limits().Connections = 3 })
	var open []net.Conn
	for range 3 {
		open = append(open, d.heldConnection(t))
	}
	for range 3 {
		began := time.Now()
		status, answer := d.rawRequest(t, "POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100000))
		if status != 503 || !strings.Contains(answer, "the server has 3 connections, as many as it may") || time.Since(began) > 5*time.Second {
			t.Errorf("one too many: %d %s after %v", status, answer, time.Since(began))
		}
		wrong(t, "one too many", answer)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	rpc := d.dial(t)
	if _, err := pb.NewGRPCInferenceServiceClient(rpc).ServerLive(ctx, &pb.ServerLiveRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("gRPC beyond the limit of both: %v", err)
	}
	rpc.Close() // otherwise it comes again, and takes a place that becomes free
	if got := d.s.connected.count(); got != 3 {
		t.Errorf("%d connections", got)
	}
	if _, err := io.WriteString(open[0], "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(open[0]); err != nil || !strings.Contains(string(b), "200 OK") { // it has the first answer but a byte, too
		t.Errorf("a connection that there was: %v %s", err, b)
	}
	until(t, "a place becomes free", func() bool { return d.s.connected.count() == 2 })
	status, text, header := d.send(t, "GET", "/metrics", "", "")
	http.DefaultClient.CloseIdleConnections()
	for _, want := range []string{"carousel_connections 3\n", `carousel_connections_refused_total{reason="server"} `, `carousel_connections_refused_total{reason="client"} 0` + "\n"} {
		if status != 200 || !strings.Contains(text, want) {
			t.Errorf("%d %v: the metrics have no %q", status, header, want)
		}
	}
	if strings.Contains(text, `{reason="server"} 0`) || !strings.Contains(d.log.String(), `"msg":"a connection is refused"`) {
		t.Error("the refusals are not counted, or not in the log")
	}
	for _, c := range open {
		c.Close()
	}
	until(t, "all are closed", func() bool { return d.s.connected.count() == 0 })
	for range 20 { // each is a place
		d.heldConnection(t).Close()
		until(t, "it is closed", func() bool { return d.s.connected.count() == 0 })
	}
}

// A connection with TLS that is refused is closed.
func TestConnectionsOfTLSAreLimited(t *testing.T) {
	au := newAuthority(t)
	cert, key := au.server()
	dir := t.TempDir()
	put(t, dir+"/cert", cert)
	put(t, dir+"/key", key)
	d := run(t, func(s *Server) {
		var err error
		if s.o.TLS, err = OpenCertificates(dir+"/cert", dir+"/key", "", nil); err != nil {
			t.Fatal(err)
		}
		s.limits().Connections = 1
	})
	first := connectTo(t, d.http) // which has not begun its handshake
	until(t, "it is counted", func() bool { return d.s.connected.count() == 1 })
	if _, err := tls.Dial("tcp", d.http, &tls.Config{RootCAs: au.pool(), ServerName: "127.0.0.1"}); err == nil {
		t.Error("a connection beyond the limit was taken")
	}
	first.Close()
	until(t, "it is closed", func() bool { return d.s.connected.count() == 0 })
	c, err := tls.Dial("tcp", d.http, &tls.Config{RootCAs: au.pool(), ServerName: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// addressed is a listener whose connections come from the addresses that it is told.
type addressed struct {
	net.Listener
	from chan string
}

func (l *addressed) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &fromAddress{c, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(<-l.from))}, nil
}

type fromAddress struct {
	net.Conn
	addr net.Addr
}

func (c *fromAddress) RemoteAddr() net.Addr { return c.addr }

// A client has a part of the connections, so that another finds one; who is on this machine
// may stand for many.
func TestConnectionsOfAClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := New(Options{Limits: Limits{Connections: 10}, Log: slog.New(slog.DiscardHandler)})
	defer s.Close(t.Context())
	from := &addressed{l, make(chan string, 1)}
	refused := make(chan full, 1)
	limited := &limitedListener{from, s, func(c net.Conn, why full) { c.Close(); refused <- why }}
	taken := make(chan net.Conn)
	go func() {
		for {
			c, err := limited.Accept()
			if err != nil {
				return
			}
			taken <- c
		}
	}()
	var open []net.Conn
	for i, c := range []struct {
		from string
		want full
	}{
		{"192.0.2.1:1", notFull}, {"192.0.2.1:2", notFull}, {"192.0.2.1:3", fullClient}, {"[::ffff:192.0.2.1]:3", fullClient}, {"192.0.2.2:3", notFull},
		{"[2001:db8::1]:1", notFull}, {"[2001:db8::ffff:2]:1", notFull}, {"[2001:db8::3]:1", fullClient}, {"[2001:db8:0:1::3]:1", notFull}, {"[fe80::1%eth0]:1", notFull},
		{"127.0.0.1:1", notFull}, {"127.0.0.1:2", notFull}, {"[::1]:3", notFull}, {"192.0.2.9:3", fullServer}, {"127.0.0.1:2", fullServer},
	} {
		from.from <- c.from
		connectTo(t, l.Addr().String())
		got := notFull
		select {
		case conn := <-taken:
			open = append(open, conn)
		case got = <-refused:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing happens")
		}
		if got != c.want {
			t.Errorf("connection %d, from %s: %d, want %d", i, c.from, got, c.want)
		}
	}
	for _, c := range open {
		c.Close()
		c.Close() // which counts once
	}
	if len(s.connected.clients) != 0 || s.connected.count() != 0 {
		t.Errorf("after all are closed: %d, %v", s.connected.count(), s.connected.clients)
	}
}

// More clients than are answered at a time are refused, and leave nothing.
func TestFloodOfConnections(t *testing.T) {
	d := run(t, func(s *Server) { s.limits().Connections = 1 })
	one := d.heldConnection(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				c, err := net.Dial("tcp", d.http)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				if b, err := io.ReadAll(c); err == nil && len(b) > 0 && !strings.HasPrefix(string(b), "HTTP/1.1 503 ") {
					t.Errorf("%s", b)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	if got := d.s.connected.refused[fullServer].Load(); got != 400 {
		t.Errorf("%d were refused", got)
	}
	if n := strings.Count(d.log.String(), "a connection is refused"); n > 400 || n == 0 {
		t.Errorf("%d lines of log", n)
	}
	until(t, "all are answered", func() bool { return d.s.connected.told.Load() == 0 })
	if _, err := fmt.Fprint(one, "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}
