package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// Limits of HTTP connections. The time of a request has none, since a stream is a request:
// those are limited by the sizes of bodies and of buffers.
const (
	headerTime  = 10 * time.Second // for the header of a request, or the beginning of gRPC's protocol, to come
	idleTime    = 2 * time.Minute  // of a connection between requests
	headerBytes = 64 << 10
)

// Run answers on the listeners, of which one may be nil, until ctx ends, and then stops: it
// is not ready at once and begins no sessions. For at most half of drain it goes on taking
// requests, until no session is open and no request has come for a quarter of a second, so
// that clients of a load balancer find other servers, and streams come to their ends. Then
// it refuses connections, ends the sessions that are left, and answers what it has
// accepted. Run closes the listeners and the models.
//
// The error is nil if every request that was accepted was answered within drain, and says
// otherwise how many were not.
func (s *Server) Run(ctx context.Context, httpListener, grpcListener net.Listener, drain time.Duration) error {
	s.guarded.Store(s.o.Access == nil)
	r := &running{s: s, failed: make(chan error, 2)}
	if httpListener != nil {
		r.serveHTTP(httpListener)
	}
	if grpcListener != nil {
		r.serveGRPC(grpcListener)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-r.failed:
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(drain, time.Millisecond))
	defer cancel()
	return errors.Join(err, r.stop(limit, drain))
}

// running are the doors of a server.
type running struct {
	s      *Server
	http   *http.Server
	grpc   *grpc.Server
	failed chan error

	web      net.Listener  // of http
	closing  atomic.Bool   // web was closed so that the server stops
	busy     busyConns     // of http
	active   atomic.Int64  // requests that are being answered, without those in streams of gRPC
	accepted atomic.Uint64 // requests so far, likewise
}

func (r *running) serveHTTP(l net.Listener) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true) // with TLS
	protocols.SetUnencryptedHTTP2(true)
	handler := r.s.Handler()
	r.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r.accepted.Add(1)
			r.active.Add(1)
			defer r.active.Add(-1)
			if r.s.draining.Load() {
				w.Header().Set("Connection", "close") // so that a client does not write to a connection that is about to close
			}
			handler.ServeHTTP(w, q)
		}),
		Protocols:         protocols,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerBytes,
		ConnContext:       r.s.ConnContext,
		ConnState:         r.busy.note,
		ErrorLog:          log.New(connLog{r.s.log}, "", 0),
	}
	if c := r.s.o.TLS; c != nil {
		l = tls.NewListener(&limitedListener{l, r.s, hangUp}, c.Config())
	} else {
		l = &limitedListener{l, r.s, r.s.decline}
	}
	r.web = l
	go func() {
		if err := r.http.Serve(l); !errors.Is(err, http.ErrServerClosed) && !r.closing.Load() {
			r.failed <- fmt.Errorf("the HTTP server on %v failed: %w", l.Addr(), err)
		}
	}()
}

// busyConns are the connections that are new or have a request, without those that were
// made WebSockets.
type busyConns struct {
	mu  sync.Mutex
	all map[net.Conn]struct{}
}

// note is for http.Server.ConnState.
func (b *busyConns) note(c net.Conn, is http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch is {
	case http.StateNew, http.StateActive:
		if b.all == nil {
			b.all = map[net.Conn]struct{}{}
		}
		b.all[c] = struct{}{}
	default:
		delete(b.all, c)
	}
}

func (b *busyConns) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}

// connLog logs what net/http says of connections, without what it quotes of their clients.
type connLog struct{ log *slog.Logger }

func (l connLog) Write(b []byte) (int, error) {
	text, _, _ := strings.Cut(string(b), `"`)
	l.log.Debug("a connection", "problem", strings.TrimSpace(text))
	return len(b), nil
}

func (r *running) serveGRPC(l net.Listener) {
	r.grpc = r.s.GRPC(grpc.ConnectionTimeout(headerTime), grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		r.accepted.Add(1)
		r.active.Add(1)
		defer r.active.Add(-1)
		return handle(ctx, q)
	}))
	l = &limitedListener{l, r.s, hangUp}
	go func() {
		if err := r.grpc.Serve(l); err != nil {
			r.failed <- fmt.Errorf("the gRPC server on %v failed: %w", l.Addr(), err)
		}
	}()
}

// stop drains the server until limit ends, drain from now, and closes it.
func (r *running) stop(limit context.Context, drain time.Duration) error {
	r.s.draining.Store(true)
	r.s.log.Info("the server is being stopped", "drain", drain)
	r.linger(limit, drain/2)

	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if r.http != nil {
			// Once Shutdown is called, net/http drops requests that it has read but not passed on,
			// so first the connections that may be about to bring one come to rest.
			r.closing.Store(true)
			_ = r.web.Close()
			rest, cancel := context.WithTimeout(limit, drain/4)
			defer cancel()
			poll(rest, func() bool { return r.busy.count() == 0 })
			_ = r.http.Shutdown(limit) // its error is that of limit
		}
	}()
	calls := make(chan struct{})
	go func() {
		defer close(calls)
		if r.grpc != nil {
			r.grpc.GracefulStop() // until Stop is called
		}
	}()
	answered, cancel := context.WithTimeout(limit, drain/4)
	_ = r.s.Drain(answered) // streams may go on asking; what is asked after them is refused
	cancel()
	r.s.sessions.Stop(batch.Stopped)
	r.s.endStreams()
	err := r.s.Drain(limit)
	poll(limit, func() bool { return r.active.Load() == 0 })
	left := r.active.Load()
	<-closed // the last answers are written, or limit has ended
	if r.http != nil {
		_ = r.http.Close()
	}
	if r.grpc != nil {
		select { // what is open now are streams whose clients do not read their ends
		case <-calls:
		case <-limit.Done():
		case <-time.After(500 * time.Millisecond):
		}
		go r.grpc.Stop() // which waits for connections whose beginning has not come
	}
	brief, cancel := context.WithTimeout(context.WithoutCancel(limit), time.Second)
	defer cancel()
	if other := r.s.Close(brief); err == nil && left == 0 {
		return other
	}
	return fmt.Errorf("the server was stopped after %v with requests unanswered: %d; give it more time to drain, or requests a timeout", drain, max(left, 1))
}

// linger goes on taking requests while a session is open or requests come, for at most
// that time.
func (r *running) linger(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var seen uint64
	last := time.Now()
	poll(ctx, func() bool {
		n, _ := r.s.sessions.Count(nil)
		if now := r.accepted.Load() + r.s.jobs(); now != seen || n > 0 || r.active.Load() > 0 {
			seen, last = now, time.Now()
		}
		return time.Since(last) >= 250*time.Millisecond
	})
}

// jobs returns the number of jobs so far of the versions that are served, those in streams
// as well.
func (s *Server) jobs() (n uint64) {
	for _, e := range s.models.list() {
		for _, v := range e.versions {
			st := v.q.Stats()
			n += st.Succeeded + st.Failed + st.Refused + st.Canceled
		}
	}
	return n
}

// poll waits until done returns true or ctx ends.
func poll(ctx context.Context, done func() bool) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ModelStatus says what a server has of a model.
type ModelStatus struct {
	Name, Version   string
	Platform        string
	Inputs, Outputs []inference.Info
	Batched         bool // its requests are computed together
	Stateful        bool // it keeps states of sessions
	// Task is the name of the model's task, whose own form answers at /v1/ and it; "" if
	// it has none.
	Task string
	// Problem is why the model is not ready; "" if it is.
	Problem string
}

// Models returns the models by name, each with its newest version, and the pipelines.
func (s *Server) Models() []ModelStatus {
	var list []ModelStatus
	for _, e := range s.models.list() {
		m := ModelStatus{Name: e.name, Problem: e.reason}
		switch {
		case e.pipeline != nil:
			m.Version, m.Platform, m.Problem = "1", "ensemble", ""
			var err error
			if m.Inputs, m.Outputs, err = e.pipeline.infos(s); err != nil {
				m.Problem = err.Error()
			}
		case len(e.versions) > 0:
			v := e.versions[0]
			m.Version, m.Platform, m.Inputs, m.Outputs = v.number, v.program().Platform(), v.ins, v.outs
			m.Batched, m.Stateful, m.Problem = v.program().Batched(), v.program().NewState() != nil, ""
			if p, ok := v.program().(*taskProgram); ok {
				m.Task = p.m.Kind.Name
			}
		}
		list = append(list, m)
	}
	return list
}
