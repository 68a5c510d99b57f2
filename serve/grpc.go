package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress messages
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/klauspost/compress/zlib"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

func init() { encoding.RegisterCompressor(deflate{}) }

// deflate is the other compression that Triton's clients offer.
type deflate struct{}

func (deflate) Name() string { return "deflate" }
func (deflate) Compress(w io.Writer) (io.WriteCloser, error) {
	return zlib.NewWriterLevel(w, zlib.BestSpeed)
}
func (deflate) Decompress(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }

// GRPC returns the server's gRPC services: the Open Inference Protocol with Triton's
// extensions, grpc.health.v1, whose services are "" and the names of models, and
// reflection. opts come after the server's own options, and have no InTapHandle. A stream of requests
// (ModelStreamInfer) answers those of different sequences, and those without one, as they
// are computed, and those of one sequence in their order; sequences that begin in it end
// with it, and the client is told when the server ends one before. [Server.Close] ends streams.
func (s *Server) GRPC(opts ...grpc.ServerOption) *grpc.Server {
	own := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(min(s.limits().Body, 1<<31-1))),
		grpc.MaxConcurrentStreams(4096),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}), // so that sessions of clients that are lost end
		grpc.InTapHandle(s.admitCall),
		grpc.ChainUnaryInterceptor(s.recordUnary, func(ctx context.Context, m any, i *grpc.UnaryServerInfo, h grpc.UnaryHandler) (out any, err error) {
			defer s.endRPC(ctx, i.FullMethod, &err)
			return h(ctx, m)
		}),
		grpc.ChainStreamInterceptor(s.recordStream, func(srv any, stream grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			defer s.endRPC(stream.Context(), i.FullMethod, &err)
			return h(srv, stream)
		}),
	}
	if s.o.TLS != nil {
		own = append(own, grpc.Creds(credentials.NewTLS(s.o.TLS.Config())))
	}
	g := grpc.NewServer(append(own, opts...)...)
	pb.RegisterGRPCInferenceServiceServer(g, &rpc{s: s})
	health.RegisterHealthServer(g, &healthRPC{s: s})
	reflection.Register(g)
	return g
}

// endRPC is deferred in each call: it turns a panic into an error, and all errors into
// statuses.
func (s *Server) endRPC(ctx context.Context, method string, err *error) {
	if p := recover(); p != nil {
		id := ""
		if q := requestIn(ctx); q != nil {
			id = q.id
		}
		s.panicked(method, id, p)
		*err = errPanicked
	}
	if *err != nil {
		if _, ok := status.FromError(*err); !ok {
			e := inference.AsError(*err)
			s.slow(ctx, e)
			*err = e.GRPC().Err()
		}
	}
}

// errPanicked is what a client is told when the server failed on its request.
var errPanicked = inference.Errorf(inference.Internal, "the server failed on this request; its log tells how")

func (s *Server) panicked(where, id string, problem any) {
	s.log.Error("a request failed", "path", where, "request_id", id, "problem", fmt.Sprint(problem), "stack", string(debug.Stack()))
}

// rpc is the service of the protocol.
type rpc struct {
	pb.UnsafeGRPCInferenceServiceServer // so that the compiler asks for each method
	s                                   *Server
}

// callerOf returns who makes a call.
func callerOf(ctx context.Context) Caller {
	if c := callerIn(ctx); c.Proven {
		return c
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}
	}
	name := p.Addr.String()
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		host = name
	}
	return Caller{Client: host, Conn: name}
}

func (g *rpc) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: g.s.lost() == nil}, nil
}

func (g *rpc) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: g.s.Ready()}, nil
}

func (g *rpc) ModelReady(_ context.Context, m *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	return &pb.ModelReadyResponse{Ready: g.s.modelReady(m.GetName(), m.GetVersion()) == nil}, nil
}

func (g *rpc) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return g.s.metadata(), nil
}

func (g *rpc) ModelMetadata(_ context.Context, m *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	return g.s.modelMetadata(m.GetName(), m.GetVersion())
}

func (g *rpc) ModelConfig(_ context.Context, m *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	c, err := g.s.modelConfig(m.GetName(), m.GetVersion())
	return &pb.ModelConfigResponse{Config: c}, err
}

func (g *rpc) ModelStatistics(_ context.Context, m *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	return g.s.statistics(m.GetName(), m.GetVersion())
}

func (g *rpc) RepositoryIndex(_ context.Context, m *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	if err := oneRepository(m.GetRepositoryName()); err != nil {
		return nil, err
	}
	return g.s.index(m.GetReady()), nil
}

func (g *rpc) RepositoryModelLoad(_ context.Context, m *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	return &pb.RepositoryModelLoadResponse{}, g.s.load(m.GetRepositoryName(), m.GetModelName(), repositoryParams(m.GetParameters()))
}

func (g *rpc) RepositoryModelUnload(ctx context.Context, m *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	return &pb.RepositoryModelUnloadResponse{}, g.s.unload(ctx, m.GetRepositoryName(), m.GetModelName(), repositoryParams(m.GetParameters()))
}

func repositoryParams(m map[string]*pb.ModelRepositoryParameter) func(yield func(string, any) bool) {
	return func(yield func(string, any) bool) {
		for name, p := range m {
			var v any = "bytes"
			switch p := p.GetParameterChoice().(type) {
			case *pb.ModelRepositoryParameter_BoolParam:
				v = p.BoolParam
			case *pb.ModelRepositoryParameter_Int64Param:
				v = p.Int64Param
			case *pb.ModelRepositoryParameter_StringParam:
				v = p.StringParam
			}
			if !yield(name, v) {
				return
			}
		}
	}
}

var (
	errNoSharedMemory = inference.Errorf(inference.Unsupported, "this server has no shared memory; send tensors in the message")
	errNoTraces       = inference.Errorf(inference.Unsupported, "this server has no traces of requests")
	errNoLogSettings  = inference.Errorf(inference.Unsupported, "this server has no settings of its log")
)

func (g *rpc) SystemSharedMemoryStatus(context.Context, *pb.SystemSharedMemoryStatusRequest) (*pb.SystemSharedMemoryStatusResponse, error) {
	return nil, errNoSharedMemory
}

func (g *rpc) SystemSharedMemoryRegister(context.Context, *pb.SystemSharedMemoryRegisterRequest) (*pb.SystemSharedMemoryRegisterResponse, error) {
	return nil, errNoSharedMemory
}

func (g *rpc) SystemSharedMemoryUnregister(context.Context, *pb.SystemSharedMemoryUnregisterRequest) (*pb.SystemSharedMemoryUnregisterResponse, error) {
	return nil, errNoSharedMemory
}

func (g *rpc) CudaSharedMemoryStatus(context.Context, *pb.CudaSharedMemoryStatusRequest) (*pb.CudaSharedMemoryStatusResponse, error) {
	return nil, errNoSharedMemory
}

func (g *rpc) CudaSharedMemoryRegister(context.Context, *pb.CudaSharedMemoryRegisterRequest) (*pb.CudaSharedMemoryRegisterResponse, error) {
	return nil, errNoSharedMemory
}

func (g *rpc) CudaSharedMemoryUnregister(context.Context, *pb.CudaSharedMemoryUnregisterRequest) (*pb.CudaSharedMemoryUnregisterResponse, error) {
	return nil, errNoSharedMemory
}

func (g *rpc) TraceSetting(context.Context, *pb.TraceSettingRequest) (*pb.TraceSettingResponse, error) {
	return nil, errNoTraces
}

func (g *rpc) LogSettings(context.Context, *pb.LogSettingsRequest) (*pb.LogSettingsResponse, error) {
	return nil, errNoLogSettings
}

func (g *rpc) ModelInfer(ctx context.Context, m *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	r, err := inference.RequestFromProto(m)
	if err != nil {
		return nil, err
	}
	return g.infer(ctx, m, r, callerOf(ctx))
}

func (g *rpc) infer(ctx context.Context, m *pb.ModelInferRequest, r *inference.Request, c Caller) (*pb.ModelInferResponse, error) {
	out, err := g.s.Infer(ctx, r, c)
	if err != nil {
		return nil, err
	}
	return out.ToProto(inference.WantsRaw(m))
}

// mostInFlight is the number of requests of a stream that wait, run, or are answered at the
// same time; further ones are not read meanwhile.
const mostInFlight = 64

func (g *rpc) ModelStreamInfer(stream pb.GRPCInferenceService_ModelStreamInferServer) error {
	ctx, stop := context.WithCancel(stream.Context())
	defer stop()
	c := callerOf(ctx)
	c.Owner = g.s.NewOwner()
	defer c.Owner.End()
	unread := g.s.limits().Unread
	stalled := make(chan struct{}, 1)
	t := &inferStream{g: g, stream: stream, ctx: ctx, stop: stop, c: c, slots: make(chan struct{}, mostInFlight), news: make(chan struct{}, 1), behind: map[sequenceKey][]*streamed{},
		unread: unread, watch: time.AfterFunc(unread, func() {
			select {
			case stalled <- struct{}{}:
			default: // it was cut already
			}
		})}
	defer t.watch.Stop()
	t.watch.Stop()
	c.Owner.told = t.ended
	go t.tell()
	over := make(chan batch.Reason, 1)
	defer g.s.holdToken(c, func(why batch.Reason) {
		select {
		case over <- why:
		default: // it ends already
		}
	})()
	ended := make(chan error, 1)
	go func() { ended <- t.receive() }()
	stopping := g.s.stopping
	var slots chan struct{} // that are taken, so that nothing more is accepted
	for taken := 0; ; {
		select {
		case err := <-ended:
			return err
		case why := <-over:
			return status.Error(codes.Unauthenticated, string(why))
		case <-stalled: // a blocked Send ends with the call
			return status.Errorf(codes.ResourceExhausted, "the stream was cut: its answers were not read for %v; read them while you send", unread)
		case <-stopping:
			stopping, slots = nil, t.slots
		case slots <- struct{}{}:
			if taken++; taken == mostInFlight { // all is answered
				return errStopping
			}
		}
	}
}

var errStopping = inference.Errorf(inference.Unavailable, "the server is stopping and takes no more requests of this stream; use another")

// inferStream is a stream of requests and their answers.
type inferStream struct {
	g      *rpc
	stream pb.GRPCInferenceService_ModelStreamInferServer
	ctx    context.Context
	stop   func()
	c      Caller
	slots  chan struct{}
	done   sync.WaitGroup

	mu     sync.Mutex
	behind map[sequenceKey][]*streamed    // of sequences with a request that runs, those that wait
	over   []*pb.ModelStreamInferResponse // of sequences that are over, what the client is not told yet
	news   chan struct{}                  // told when there is more of it

	sending sync.Mutex
	unread  time.Duration
	watch   *time.Timer // runs while an answer is sent
}

type sequenceKey struct{ model, id string }

// streamed is a request of a stream.
type streamed struct {
	m   *pb.ModelInferRequest
	r   *inference.Request
	err error // that it cannot be read
}

// receive reads requests until the client sends no more, and returns when all are answered.
func (t *inferStream) receive() error {
	defer t.done.Wait()
	for {
		m, err := t.stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			t.stop()
			return err
		}
		select {
		case t.slots <- struct{}{}:
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
		one := &streamed{m: m}
		var seq sequence
		if one.r, one.err = inference.RequestFromProto(m); one.err == nil {
			seq, one.err = sequenceOf(one.r.Params)
		}
		if one.err != nil || seq.id == "" {
			t.done.Go(func() { t.answer(one) })
			continue
		}
		k := sequenceKey{m.GetModelName(), seq.id}
		t.mu.Lock()
		list, busy := t.behind[k]
		if busy {
			list = append(list, one)
		}
		t.behind[k] = list
		t.mu.Unlock()
		if !busy {
			t.done.Go(func() { t.inOrder(k, one) })
		}
	}
}

// inOrder answers the requests of a sequence until there are no more.
func (t *inferStream) inOrder(k sequenceKey, one *streamed) {
	for one != nil {
		t.answer(one)
		t.mu.Lock()
		if list := t.behind[k]; len(list) > 0 {
			one, t.behind[k] = list[0], list[1:]
		} else {
			one = nil
			delete(t.behind, k)
		}
		t.mu.Unlock()
	}
}

// answer computes a request and sends its answer, or what is wrong with it.
func (t *inferStream) answer(one *streamed) {
	out, err := t.compute(one)
	if err != nil {
		e := inference.AsError(err)
		t.g.s.slow(t.ctx, e)
		out = &pb.ModelStreamInferResponse{ErrorMessage: e.Msg, InferResponse: &pb.ModelInferResponse{
			ModelName: one.m.GetModelName(), ModelVersion: one.m.GetModelVersion(), Id: one.m.GetId()}}
	}
	if out.InferResponse.Parameters == nil {
		out.InferResponse.Parameters = map[string]*pb.InferParameter{}
	}
	// Each request has one answer, which is its last.
	out.InferResponse.Parameters["triton_final_response"] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}
	t.send(out)
	<-t.slots
}

func (t *inferStream) send(out *pb.ModelStreamInferResponse) {
	t.sending.Lock()
	defer t.sending.Unlock()
	t.watch.Reset(t.unread)
	defer t.watch.Stop()
	if t.stream.Send(out) != nil {
		t.stop()
	}
}

// ended notes that a sequence of the stream is over, with the scheduler's lock held.
func (t *inferStream) ended(n *batch.Session, why batch.Reason) {
	switch why {
	case batch.Ended, batch.Gone, batch.Stopped: // the client knows, or the stream ends
		return
	}
	t.mu.Lock()
	t.over = append(t.over, &pb.ModelStreamInferResponse{
		ErrorMessage: fmt.Sprintf("sequence %s of model %q is over: %s", n.ID(), n.Model(), why),
		InferResponse: &pb.ModelInferResponse{ModelName: n.Model(), Parameters: map[string]*pb.InferParameter{
			"sequence_id": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: n.ID()}}}}})
	t.mu.Unlock()
	select {
	case t.news <- struct{}{}:
	default: // it is told already
	}
}

// tell tells the client of sequences that are over, until the stream ends.
func (t *inferStream) tell() {
	for {
		select {
		case <-t.news:
		case <-t.ctx.Done():
			return
		}
		t.mu.Lock()
		list := t.over
		t.over = nil
		t.mu.Unlock()
		for _, m := range list {
			t.send(m)
		}
	}
}

func (t *inferStream) compute(one *streamed) (out *pb.ModelStreamInferResponse, err error) {
	defer func() {
		if p := recover(); p != nil {
			t.g.s.panicked(pb.GRPCInferenceService_ModelStreamInfer_FullMethodName, "", p)
			err = errPanicked
		}
	}()
	if one.err != nil {
		return nil, one.err
	}
	m, err := t.g.infer(t.ctx, one.m, one.r, t.c)
	return &pb.ModelStreamInferResponse{InferResponse: m}, err
}

// healthRPC is the service that Kubernetes and load balancers ask. Its services are "", the
// whole server, the protocol's, and the models by name.
type healthRPC struct {
	health.UnimplementedHealthServer
	s *Server
}

// watchEvery is how often the state is looked at for those who watch it.
const watchEvery = 500 * time.Millisecond

func (h *healthRPC) state(service string) (health.HealthCheckResponse_ServingStatus, error) {
	ready := h.s.Ready()
	if service != "" && service != pb.GRPCInferenceService_ServiceDesc.ServiceName {
		err := h.s.modelReady(service, "")
		if known := (*inference.Error)(nil); errors.As(err, &known) && known.Code == inference.NotFound {
			return health.HealthCheckResponse_SERVICE_UNKNOWN, known
		}
		ready = err == nil && !h.s.draining.Load()
	}
	if ready {
		return health.HealthCheckResponse_SERVING, nil
	}
	return health.HealthCheckResponse_NOT_SERVING, nil
}

func (h *healthRPC) Check(_ context.Context, m *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	state, err := h.state(m.GetService())
	return &health.HealthCheckResponse{Status: state}, err
}

func (h *healthRPC) List(context.Context, *health.HealthListRequest) (*health.HealthListResponse, error) {
	all := &health.HealthListResponse{Statuses: map[string]*health.HealthCheckResponse{}}
	names := []string{"", pb.GRPCInferenceService_ServiceDesc.ServiceName}
	for _, e := range h.s.models.list() {
		names = append(names, e.name)
	}
	for _, name := range names {
		state, _ := h.state(name) // unknown if it was just forgotten
		all.Statuses[name] = &health.HealthCheckResponse{Status: state}
	}
	return all, nil
}

func (h *healthRPC) Watch(m *health.HealthCheckRequest, stream health.Health_WatchServer) error {
	last := health.HealthCheckResponse_UNKNOWN
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if state, _ := h.state(m.GetService()); state != last { // a service that is unknown is watched until it is known
			last = state
			if err := stream.Send(&health.HealthCheckResponse{Status: state}); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-h.s.stopping:
			if last != health.HealthCheckResponse_NOT_SERVING {
				_ = stream.Send(&health.HealthCheckResponse{Status: health.HealthCheckResponse_NOT_SERVING}) // of a client that has gone
			}
			return errStopping
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
