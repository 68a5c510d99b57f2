package loadtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// calls sends requests over gRPC. Clients share some connections, as gRPC's users do.
type calls struct {
	o       *Options
	headers metadata.MD
	conns   []*grpc.ClientConn
	streams []stream // by client
}

// clientsPerConn is the number of clients that share a connection: less than the streams
// that common servers allow, 100.
const clientsPerConn = 64

// stream is a client's ModelStreamInfer.
type stream struct {
	ctx    context.Context // of the load; another has another stream
	cancel context.CancelCauseFunc
	s      grpc.BidiStreamingClient[pb.ModelInferRequest, pb.ModelStreamInferResponse]
	timer  *time.Timer // ends it, for a request's timeout
}

// codeNames are the codes as gRPC writes them.
var codeNames = map[codes.Code]string{
	codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT", codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS", codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE", codes.Unimplemented: "UNIMPLEMENTED",
	codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE", codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}

func newCalls(ctx context.Context, u *url.URL, o *Options) (*calls, error) {
	if u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("address %s: gRPC has no path, got %q", u, u.Path)
	}
	if o.JSON {
		return nil, errors.New("JSON is a form of REST; want an address that begins with http://")
	}
	c := &calls{o: o, headers: metadata.MD{}, streams: make([]stream, o.Clients)}
	for _, line := range o.Headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("header %q: want Name: value", line)
		}
		c.headers.Append(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	security := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		security = credentials.NewTLS(&tls.Config{})
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), map[string]string{"grpc": "80", "grpcs": "443"}[u.Scheme])
	}
	for range (o.Clients + clientsPerConn - 1) / clientsPerConn {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(security),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(maxAnswer)))
		if err != nil {
			c.close()
			return nil, err
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

// failure is an error of gRPC as one of a load.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil && context.Cause(ctx) != errTimeout {
		return ctx.Err()
	}
	s, _ := status.FromError(err)
	switch {
	case s.Code() == codes.DeadlineExceeded:
		return &Failure{"timeout", errors.New(s.Message())}
	case s.Code() == codes.Unavailable && strings.Contains(s.Message(), "connection error"):
		return &Failure{"connection", errors.New(s.Message())}
	}
	return &Failure{"gRPC " + codeNames[s.Code()], errors.New(s.Message())}
}

func (c *calls) metadata(ctx context.Context, model string) ([]inference.Info, error) {
	m, err := pb.NewGRPCInferenceServiceClient(c.conns[0]).ModelMetadata(c.outgoing(ctx), &pb.ModelMetadataRequest{Name: model, Version: c.o.Version})
	if err != nil {
		return nil, failure(ctx, err)
	}
	var list []inference.Info
	for _, in := range m.Inputs {
		one := inference.Info{Name: in.Name, Datatype: inference.Datatype(in.Datatype)}
		for _, d := range in.Shape {
			one.Dims = append(one.Dims, int(d))
		}
		list = append(list, one)
	}
	return list, nil
}

func (c *calls) outgoing(ctx context.Context) context.Context {
	if len(c.headers) == 0 {
		return ctx
	}
	return metadata.NewOutgoingContext(ctx, c.headers)
}

func (c *calls) statistics(ctx context.Context, model string) (s Statistics, ok bool, err error) {
	m, err := pb.NewGRPCInferenceServiceClient(c.conns[0]).ModelStatistics(c.outgoing(ctx), &pb.ModelStatisticsRequest{Name: model, Version: c.o.Version})
	if status.Code(err) == codes.Unimplemented {
		return s, false, nil
	}
	if err != nil {
		return s, false, failure(ctx, err)
	}
	for _, one := range m.ModelStats {
		s.Rows += one.InferenceCount
		s.Executions += one.ExecutionCount
	}
	return s, len(m.ModelStats) > 0, nil
}

func (c *calls) prepare(m *Model) (any, error) {
	var all []*pb.ModelInferRequest
	for v := range m.inputs {
		one, err := m.request(c.o.Version, v, nil).ToProto(true)
		if err != nil {
			return nil, fmt.Errorf("model %q: %w", m.Name, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// in returns a request as one of a sequence. It shares the tensors.
func (q sequence) in(r *pb.ModelInferRequest) *pb.ModelInferRequest {
	if q.id == 0 {
		return r
	}
	one := &pb.ModelInferRequest{ModelName: r.ModelName, ModelVersion: r.ModelVersion, Inputs: r.Inputs, Outputs: r.Outputs, RawInputContents: r.RawInputContents,
		Parameters: map[string]*pb.InferParameter{
			"sequence_id": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: int64(q.id)}},
		}}
	maps.Copy(one.Parameters, r.Parameters)
	if q.start {
		one.Parameters["sequence_start"] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}
	}
	if q.end {
		one.Parameters["sequence_end"] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}
	}
	return one
}

func (c *calls) send(ctx context.Context, client int, ready any, variant int, q sequence) (func() (*inference.Response, error), error) {
	request := q.in(ready.([]*pb.ModelInferRequest)[variant])
	conn := c.conns[client%len(c.conns)]
	var response *pb.ModelInferResponse
	var err error
	if c.o.Stream {
		response, err = c.exchange(ctx, conn, &c.streams[client], request)
	} else {
		limited, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, errTimeout)
		response, err = pb.NewGRPCInferenceServiceClient(conn).ModelInfer(c.outgoing(limited), request)
		cancel()
		if err != nil {
			err = failure(ctx, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return func() (*inference.Response, error) { return inference.ResponseFromProto(response) }, nil
}

var errTimeout = errors.New("no answer in time")

// exchange sends a request over the client's stream, which it opens if need be, and waits
// for the answer.
func (c *calls) exchange(ctx context.Context, conn *grpc.ClientConn, s *stream, request *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	if s.s == nil || s.ctx != ctx {
		s.close()
		inner, cancel := context.WithCancelCause(c.outgoing(ctx))
		opened, err := pb.NewGRPCInferenceServiceClient(conn).ModelStreamInfer(inner)
		if err != nil {
			cancel(nil)
			return nil, failure(ctx, err)
		}
		*s = stream{ctx, cancel, opened, time.AfterFunc(c.o.Timeout, func() { cancel(errTimeout) })}
	}
	s.timer.Reset(c.o.Timeout)
	err := s.s.Send(request)
	var answer *pb.ModelStreamInferResponse
	if err == nil || err == io.EOF { // EOF: Recv says why
		answer, err = s.s.Recv()
	}
	s.timer.Stop()
	switch {
	case err == io.EOF:
		err = &Failure{"connection", errors.New("the server closed the stream without an answer")}
	case err != nil && context.Cause(s.s.Context()) == errTimeout:
		err = &Failure{"timeout", fmt.Errorf("no answer within %v", c.o.Timeout)}
	case err != nil:
		err = failure(ctx, err)
	case answer.ErrorMessage != "":
		return nil, &Failure{"gRPC error_message", errors.New(answer.ErrorMessage)} // the stream lives on
	case answer.InferResponse == nil:
		return nil, &Failure{"answer", errors.New("want a response or an error message in the stream, got neither")}
	default:
		return answer.InferResponse, nil
	}
	s.close()
	return nil, err
}

func (s *stream) close() {
	if s.s != nil {
		s.s.CloseSend()
		s.timer.Stop()
		s.cancel(nil)
		s.s = nil
	}
}

func (c *calls) close() {
	for i := range c.streams {
		c.streams[i].close()
	}
	for _, conn := range c.conns {
		conn.Close()
	}
}
