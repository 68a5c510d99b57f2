package inference

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/device"
)

// statuses are the HTTP status and gRPC code of each Code.
var statuses = [...]struct {
	http int
	grpc codes.Code
}{
	Invalid:     {400, codes.InvalidArgument},
	NotFound:    {404, codes.NotFound},
	Unavailable: {503, codes.Unavailable},
	Unsupported: {501, codes.Unimplemented},
	Exists:      {409, codes.AlreadyExists},
	Canceled:    {499, codes.Canceled},
	Deadline:    {504, codes.DeadlineExceeded},
	Exhausted:   {429, codes.ResourceExhausted},
	TooLarge:    {413, codes.ResourceExhausted},
	Internal:    {500, codes.Internal},
	Method:      {405, codes.Unimplemented},
	Denied:      {403, codes.PermissionDenied},
	Unknown:     {401, codes.Unauthenticated},
}

// HTTPStatus returns the HTTP status that stands for the error. 499 has no name in
// net/http: the client that it would be sent to has gone.
func (e *Error) HTTPStatus() int { return statuses[e.Code].http }

// GRPC returns the error as gRPC's status, with RetryAfter as a RetryInfo.
func (e *Error) GRPC() *status.Status {
	s := status.New(statuses[e.Code].grpc, fitting(e.Msg))
	if e.RetryAfter > 0 {
		delay := durationpb.New(time.Duration(e.RetryAfter) * time.Second)
		if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: delay}); err == nil {
			s = detailed
		}
	}
	return s
}

// mostTrailer is the number of bytes of a message among gRPC's trailers, of which common
// clients take 8 KiB in all.
const mostTrailer = 3 << 10

// fitting cuts a message to what trailers have room for. Bytes that are not printable ASCII
// take three there.
func fitting(msg string) string {
	size := 0
	for i, r := range msg {
		if r < ' ' || r == '%' || r > '~' {
			size += 3 * utf8.RuneLen(r)
		} else {
			size++
		}
		if size > mostTrailer {
			return msg[:i] + "…"
		}
	}
	return msg
}

// flags are those of the command, which messages about data name as remedies; in requests they
// are options.
var flags = regexp.MustCompile(`\b(with|use|or|in) --[a-z][a-z-]*[a-z]`)

// AsError returns what a client is told of err: the *Error in it if there is one,
// faulty input ([data.InputError]) as Invalid, a device without the memory as TooLarge, the
// end of a context as Canceled or Deadline, and anything else as Internal. It returns nil for nil.
func AsError(err error) *Error {
	var known *Error
	var input *data.InputError
	var failed *device.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &input):
		return &Error{Code: Invalid, Msg: flags.ReplaceAllStringFunc(err.Error(), func(found string) string {
			word, name, _ := strings.Cut(found, " --")
			return word + " the option " + strings.ReplaceAll(name, "-", "_")
		})}
	case errors.As(err, &failed) && failed.Memory:
		return &Error{Code: TooLarge, Msg: failed.Error()}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Msg: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Deadline, Msg: err.Error()}
	}
	return &Error{Code: Internal, Msg: err.Error()}
}
