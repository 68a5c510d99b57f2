// Package serve answers requests for models over HTTP and gRPC: the Open Inference
// Protocol v2 with Triton's extensions, sessions that keep a stream's state between
// requests, and the tasks' own JSON. Package serve/batch computes what it is asked for.
package serve

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Options are the options of [New].
type Options struct {
	// Tasks are the tasks whose models can be served, usually carousel.Tasks.
	Tasks []*task.Kind
	// Version is that of the server in its metadata.
	Version string
	// Log is told what happens, but never what requests contain. nil: nothing is logged.
	Log *slog.Logger
	// Access says who may use the server. nil: everyone who reaches it.
	Access *Access
	// Hosts are the names of hosts that requests may be for (the header Host, :authority of gRPC),
	// beside localhost, names below it, and all IP addresses; [AnyHost] is all. nil: in [Server.Run] none if
	// Access is nil, since a page of another site could use the server by a name of its own; otherwise all.
	Hosts []string
	// Device is what models of tasks compute on. nil: the CPU.
	Device *tensor.Device
	// TLS has the certificates of both listeners. nil: they are not encrypted.
	TLS *Certificates
	// LogRequests logs requests that succeed as well as those that do not.
	LogRequests bool
	// Traces is told of requests as spans, those of OpenTelemetry. nil: there are none.
	Traces trace.TracerProvider
	// Profiles serves those of the process below /debug/pprof/.
	Profiles bool
	// Limits are the limits on requests and sessions.
	Limits Limits
	// Executors is as for batch.Options.
	Executors int
}

// Limits are the limits of a server; zeros are the defaults.
type Limits struct {
	Body     int64                // bytes of a request, also after decompression. 0: 64 MiB
	Sessions batch.SessionOptions // OnEnd is not used
	Timeout  time.Duration        // of a request that gives none. 0: none
	Unread   time.Duration        // for which a stream's answers may lie unread before it is cut. 0: 10 s
	// Connections is the number of connections to [Server.Run]'s listeners, together. ConnectionsPerClient
	// is that of one address, for IPv6 of its first 64 bits; addresses of this machine, where
	// a proxy of many clients may be, have none of their own. Further ones are refused.
	// 0: 10,000, and a quarter of Connections.
	Connections, ConnectionsPerClient int
}

// filled returns the limits with the defaults.
func (l Limits) filled() *Limits {
	if l.Body <= 0 {
		l.Body = 64 << 20
	}
	if l.Unread <= 0 {
		l.Unread = 10 * time.Second
	}
	if l.Connections <= 0 {
		l.Connections = 10_000
	}
	if l.ConnectionsPerClient <= 0 {
		l.ConnectionsPerClient = max(1, l.Connections/4)
	}
	return &l
}

// Server serves models. Its methods are safe for concurrent use.
type Server struct {
	o        Options
	log      *slog.Logger
	sched    *batch.Scheduler
	sessions *batch.Sessions
	store    *store // nil: none
	models   repository
	draining atomic.Bool
	guarded  atomic.Bool   // names of hosts are checked, also without Options.Hosts
	stopping chan struct{} // closed when streams of gRPC are to end
	conns    atomic.Uint64 // connections so far, for their names
	newID    func() string // of requests
	bodyTime time.Duration // the constant, but in tests
	failures rate          // of log lines
	tracer   trace.Tracer  // nil: none
	slowed   atomic.Int32  // refusals that are held back now

	limited   atomic.Pointer[Limits] // with the defaults filled in; a configuration may replace them
	connected connections
	config    following

	streamsEnd sync.Once
	lossTold   sync.Once
}

// New returns a server without models.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, log: o.Log, sched: batch.New(batch.Options{Executors: o.Executors}), newID: newIDs(), bodyTime: bodyTime, stopping: make(chan struct{})}
	if o.Traces != nil {
		s.tracer = o.Traces.Tracer("github.com/carousel-ml/carousel/serve", trace.WithInstrumentationVersion(o.Version))
	}
	o.Limits.Sessions.OnEnd = s.sessionEnded
	s.sessions = batch.NewSessions(s.sched, o.Limits.Sessions)
	s.limited.Store(o.Limits.filled())
	s.models.entries = map[string]*entry{}
	return s
}

// limits returns the limits that hold now.
func (s *Server) limits() *Limits { return s.limited.Load() }

// Drain makes the server not ready and waits until ctx ends or the requests that it has
// accepted are answered; new sessions are refused meanwhile.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	for _, q := range s.sched.Queues() { // also of versions that others have replaced
		if err := q.Quiet(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Close ends all sessions and closes the models. Requests that are accepted are answered
// if ctx leaves the time.
func (s *Server) Close(ctx context.Context) error {
	s.draining.Store(true)
	s.sessions.Stop(batch.Stopped)
	s.endStreams()
	var first error
	for _, e := range s.models.list() {
		first = cmp.Or(first, s.Unload(ctx, e.name, false))
	}
	for _, q := range s.sched.Queues() { // of what was replaced or removed, and still computes
		first = cmp.Or(first, q.Close(ctx))
	}
	if s.store != nil {
		s.store.release()
	}
	return first
}

// endStreams lets streams of gRPC end when what they have accepted is answered.
func (s *Server) endStreams() { s.streamsEnd.Do(func() { close(s.stopping) }) }

// lost is why the device can be used no more, for clients; nil if it can. Only another process
// can use it again, so that it ends both health checks.
func (s *Server) lost() error {
	if s.o.Device == nil || s.o.Device.Lost() == nil {
		return nil
	}
	err := s.o.Device.Lost()
	s.lossTold.Do(func() { s.log.Error("the device failed; the server must be started again", "problem", err.Error()) })
	return inference.Errorf(inference.Unavailable, "the server must be started again: its device failed: %v", err)
}

// Ready reports whether the server takes requests: it is not being stopped, its device has not
// failed, and all models that it was given are loaded.
func (s *Server) Ready() bool {
	if s.draining.Load() || s.lost() != nil {
		return false
	}
	for _, e := range s.models.list() {
		if e.wanted && e.pipeline == nil && len(e.versions) == 0 {
			return false
		}
	}
	return true
}

// Caller is who sends a request.
type Caller struct {
	// Client is whom limits count for, Conn what shares the queue fairly with others: a
	// connection, or again the client.
	Client, Conn string
	// Proven says that Client is a name that was proven, such as by a token, and not an
	// address, so that its sessions are for it alone.
	Proven bool
	token  *token // with which streams end; nil: none
	// Owner, if not nil, holds sessions that begin with the request and end with the
	// connection.
	Owner *Owner
}

// Owner ends sessions when a connection is closed.
type Owner struct {
	s    *Server
	told func(*batch.Session, batch.Reason) // of the end of each, with the scheduler's lock held; nil: nobody is
	mu   sync.Mutex
	all  map[*batch.Session]struct{}
	done bool
}

// NewOwner returns an Owner; End must be called.
func (s *Server) NewOwner() *Owner {
	return &Owner{s: s, all: map[*batch.Session]struct{}{}}
}

func (o *Owner) add(n *batch.Session) {
	o.mu.Lock()
	ended := o.done
	if !ended {
		o.all[n] = struct{}{}
	}
	o.mu.Unlock()
	switch {
	case ended:
		n.End(batch.Gone)
	case n.Over() != "": // meanwhile, and nobody drops it any more
		o.drop(n)
	}
	if o.told != nil {
		n.Watch(o.told)
	}
}

// has reports whether a session ends with the owner.
func (o *Owner) has(n *batch.Session) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, has := o.all[n]
	return has
}

func (o *Owner) drop(n *batch.Session) {
	o.mu.Lock()
	delete(o.all, n)
	o.mu.Unlock()
}

// End ends the sessions.
func (o *Owner) End() {
	o.mu.Lock()
	o.done = true
	list := o.all
	o.all = nil
	o.mu.Unlock()
	for n := range list {
		n.End(batch.Gone)
	}
}

var errDraining = inference.Errorf(inference.Unavailable, "the server is being stopped and begins no more sessions; use another")

// taskOf returns the task of a model directory, nil if it is of none.
func (s *Server) taskOf(d *model.Dir) *task.Kind {
	for _, k := range s.o.Tasks {
		if k.Is(d) {
			return k
		}
	}
	return nil
}
