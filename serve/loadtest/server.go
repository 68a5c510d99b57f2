package loadtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/serve/inference"
)

// Options say how [Connect] speaks with a server, and what its requests are.
type Options struct {
	Models  []string      // by name, of which requests are in turn
	Version string        // of the models; "": the server's choice
	JSON    bool          // over REST: tensors in JSON rather than in binary form
	Stream  bool          // over gRPC: each client keeps a ModelStreamInfer open
	Headers []string      // "Name: value", sent with each request, such as an authorization
	Timeout time.Duration // of a request; 0 is DefaultTimeout
	Omit    []string      // inputs that requests leave out, such as states that the server keeps

	Clients       int // of the load
	Sessions      int // of the load: each has a sequence_id
	SessionLength int // steps of a sequence, after which another begins; 0: it ends with the load
	Check         bool
}

// DefaultTimeout is the timeout of a request.
const DefaultTimeout = 30 * time.Second

// A Server is a [Target]: a server of the Open Inference Protocol.
type Server struct {
	o        Options
	link     link
	models   []*Model
	sessions []session
	base     uint64   // below the ids of this load's sequences
	unlisted []string // of Options.Omit, what the metadata have not

	answers sync.Map // with Check: by question, the hash of its first answer
	seed    maphash.Seed
}

// Model is a model that a server serves.
type Model struct {
	Name   string
	Inputs []inference.Info // without those that are left out

	inputs [][]inference.Value // of a request, by variant; set by Prepare
	ready  any                 // as the link sends them
}

// session is a sequence of requests whose state the server keeps.
type session struct {
	id   uint64 // 0: none has begun
	step int    // steps that were answered
	next uint64 // number of the next sequence of this session
}

// link sends requests in one of the protocol's forms.
type link interface {
	// metadata describes a model's inputs.
	metadata(ctx context.Context, model string) ([]inference.Info, error)
	// statistics counts a model's rows and executions; ok is false if the server does not.
	statistics(ctx context.Context, model string) (s Statistics, ok bool, err error)
	// prepare makes what is sent of a model's inputs.
	prepare(m *Model) (any, error)
	// send sends a request of a prepared model and returns what reads the answer's outputs.
	send(ctx context.Context, client int, ready any, variant int, q sequence) (func() (*inference.Response, error), error)
	close()
}

// sequence is the place of a request in a sequence; id 0: in none.
type sequence struct {
	id         uint64
	start, end bool
}

// params are the protocol's parameters.
func (q sequence) params() inference.Params {
	if q.id == 0 {
		return nil
	}
	return inference.Params{"sequence_id": int64(q.id), "sequence_start": q.start, "sequence_end": q.end}
}

// Ids of sequences have as many digits, so that a request prepared as text takes any, and
// are small enough for servers that read numbers as float64.
const (
	leastID = 100_000_000_000_000
	ids     = 8 * leastID
)

// Statistics are counts of a server since it began.
type Statistics struct {
	Rows       uint64 // rows that were inferred
	Executions uint64 // of the model, each on a batch of rows
}

// Connect connects to a server and asks it for the inputs of the models. The address is
// http://HOST:PORT or https:// for REST, grpc://HOST:PORT or grpcs:// for gRPC. Its errors
// name what was wrong with the address, or what the server answered.
func Connect(ctx context.Context, address string, o Options) (*Server, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "grpc", "grpcs"}, u.Scheme) {
		return nil, fmt.Errorf("address %q: want http://HOST:PORT or https:// for REST, grpc://HOST:PORT or grpcs:// for gRPC", address)
	}
	if len(o.Models) == 0 {
		return nil, errors.New("want the name of a model")
	}
	if o.Stream && !strings.HasPrefix(u.Scheme, "grpc") {
		return nil, fmt.Errorf("address %q: streams of requests are of gRPC; want grpc://HOST:PORT or grpcs://, or no stream", address)
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	o.Clients = max(o.Clients, 1)
	s := &Server{o: o, sessions: make([]session, o.Sessions), seed: maphash.MakeSeed()}
	s.base = leastID + rand.Uint64N(ids/2)
	if strings.HasPrefix(u.Scheme, "grpc") {
		s.link, err = newCalls(ctx, u, &s.o)
	} else {
		s.link, err = newREST(u, &s.o)
	}
	if err != nil {
		return nil, err
	}
	var known []string // inputs
	for _, name := range o.Models {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		inputs, err := s.link.metadata(ctx, name)
		cancel()
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("%s: model %q: %w", address, name, err)
		}
		m := &Model{Name: name}
		for _, in := range inputs {
			known = append(known, in.Name)
			if !slices.Contains(o.Omit, in.Name) {
				m.Inputs = append(m.Inputs, in)
			}
		}
		s.models = append(s.models, m)
	}
	s.unlisted = slices.DeleteFunc(slices.Clone(o.Omit), func(name string) bool { return slices.Contains(known, name) })
	return s, nil
}

// Unlisted returns the names of Options.Omit that the metadata have not, such as those of states
// that a server does not list, or misspelt ones.
func (s *Server) Unlisted() []string { return s.unlisted }

// Models returns the models, in the order of the options.
func (s *Server) Models() []*Model { return s.models }

// Prepare sets what requests of a model send: of each input some values, of which requests
// take one after the other. It is to be called for each model before the load.
func (s *Server) Prepare(m *Model, values [][]inference.Value) (err error) {
	if len(values) != len(m.Inputs) {
		return fmt.Errorf("model %q has %d inputs, got values of %d", m.Name, len(m.Inputs), len(values))
	}
	n := 1
	for i, list := range values {
		if len(list) == 0 {
			return fmt.Errorf("model %q: no value of input %s", m.Name, m.Inputs[i].Name)
		}
		n = max(n, len(list))
	}
	m.inputs = nil
	for v := range n {
		var one []inference.Value
		for _, list := range values {
			one = append(one, list[v%len(list)])
		}
		m.inputs = append(m.inputs, one)
	}
	m.ready, err = s.link.prepare(m)
	return err
}

// request is a variant as a value.
func (m *Model) request(version string, variant int, params inference.Params) *inference.Request {
	r := &inference.Request{Model: m.Name, Version: version, Params: params}
	for i, v := range m.inputs[variant] {
		r.Inputs = append(r.Inputs, inference.Tensor{Name: m.Inputs[i].Name, Datatype: m.Inputs[i].Datatype, Value: v})
	}
	return r
}

// question is what an answer depends on: a variant, or in a session all variants since its
// beginning.
type question struct{ model, variant, step int }

// maxChecked is the number of steps of a sequence whose answers are compared, so that
// endless sequences do not fill the memory with hashes.
const maxChecked = 10_000

// Do sends a request and waits for its answer.
func (s *Server) Do(ctx context.Context, t Turn) error {
	m := s.models[t.Kind]
	// Variants in turn within a model; its requests are each Kinds-th.
	q := question{model: t.Kind, variant: t.Number / len(s.models) % len(m.inputs)}
	variant := q.variant
	var one sequence
	var own *session
	if t.Session >= 0 {
		own = &s.sessions[t.Session]
		q.variant, q.step = t.Session%len(m.inputs), own.step
		variant = (t.Session + own.step) % len(m.inputs)
		if one.start = own.id == 0; one.start {
			own.id = s.base + uint64(t.Session) + own.next*uint64(len(s.sessions))
			own.next++
			own.step, q.step, variant = 0, 0, q.variant
		}
		one.id, one.end = own.id, s.o.SessionLength > 0 && own.step+1 == s.o.SessionLength
	}
	read, err := s.link.send(ctx, t.Client, m.ready, variant, one)
	if own != nil {
		own.step++
		if err != nil || one.end {
			own.id = 0 // after an error the state is not known; another sequence begins
		}
	}
	if err != nil || !s.o.Check || q.step >= maxChecked {
		return err
	}
	a, err := read()
	if err != nil {
		return &Failure{"answer", err}
	}
	hash := s.hash(a)
	if first, seen := s.answers.LoadOrStore(q, hash); seen && first != hash {
		where := fmt.Sprintf("model %q: input %d", m.Name, q.variant)
		if own != nil {
			where = fmt.Sprintf("model %q: step %d of a session that began with input %d", m.Name, q.step, q.variant)
		}
		return &Failure{"differs", fmt.Errorf("%s has another answer than at first; want the same bits", where)}
	}
	return nil
}

// hash is that of the outputs' names, types, shapes and bits.
func (s *Server) hash(r *inference.Response) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	var b [8]byte
	word := func(x uint64) {
		binary.LittleEndian.PutUint64(b[:], x)
		h.Write(b[:])
	}
	for _, o := range r.Outputs {
		maphash.WriteComparable(&h, o.Name)
		maphash.WriteComparable(&h, o.Datatype)
		word(uint64(len(o.Dims)))
		for _, d := range o.Dims {
			word(uint64(d))
		}
		for _, x := range o.Floats {
			word(uint64(math.Float32bits(x)))
		}
		for _, x := range o.Doubles {
			word(math.Float64bits(x))
		}
		for _, x := range o.Ints {
			word(uint64(x))
		}
		for _, x := range o.Texts {
			maphash.WriteComparable(&h, x)
		}
	}
	return h.Sum64()
}

// Try sends one request of each model outside of any session's count, reads the answer and
// returns the first that is wrong, so that a load does not begin with a mistake.
func (s *Server) Try(ctx context.Context) error {
	for _, m := range s.models {
		var q sequence
		if s.o.Sessions > 0 {
			q = sequence{id: s.base - 1, start: true, end: true}
		}
		read, err := s.link.send(ctx, 0, m.ready, 0, q)
		if err == nil {
			_, err = read()
		}
		if err != nil {
			return fmt.Errorf("model %q: a first request: %w", m.Name, err)
		}
	}
	return nil
}

// Statistics returns the counts of each model; ok is false if the server has none.
func (s *Server) Statistics(ctx context.Context) (list []Statistics, ok bool, err error) {
	for _, m := range s.models {
		one, ok, err := s.link.statistics(ctx, m.Name)
		if err != nil || !ok {
			return nil, false, err
		}
		list = append(list, one)
	}
	return list, true, nil
}

// End ends the sequences that have begun, each with a last step.
func (s *Server) End(ctx context.Context) {
	for i := range s.sessions {
		if ctx.Err() != nil {
			return
		}
		if one := &s.sessions[i]; one.id != 0 {
			m := s.models[i%len(s.models)]
			s.link.send(ctx, 0, m.ready, (i+one.step)%len(m.inputs), sequence{id: one.id, end: true}) // the server forgets a session of which this fails in time
			one.id = 0
		}
	}
}

// Close closes the connections.
func (s *Server) Close() { s.link.close() }

// Shape returns the shape of an input as a request has it: given, if it is not nil, or the
// declared one, of which the first dimension may vary as that of a batch, which is 1.
func Shape(in *inference.Info, given []int) ([]int, error) {
	if given == nil {
		given = slices.Clone(in.Dims)
		if len(given) > 0 && given[0] < 0 {
			given[0] = 1
		}
		if slices.Contains(given, -1) {
			return nil, fmt.Errorf("input %s has the shape %s; say what its free dimensions are", in.Name, npy.Shape(in.Dims))
		}
		return given, nil
	}
	ok := len(given) == len(in.Dims)
	for i := 0; ok && i < len(given); i++ {
		ok = given[i] == in.Dims[i] || in.Dims[i] < 0
	}
	if !ok {
		return nil, fmt.Errorf("input %s has the shape %s, and %s does not fit it", in.Name, npy.Shape(in.Dims), npy.Shape(given))
	}
	return given, nil
}

// maxElements is the largest number of elements of an input that is made.
const maxElements = 1 << 26

// Random returns n values of an input: floats of the standard normal distribution,
// integers from 0 to below-1, which are 0 and 1 of BOOL. BYTES are an error.
func Random(in *inference.Info, dims []int, n, below int, seed uint64) ([]inference.Value, error) {
	count := 1
	for _, d := range dims {
		if d < 0 || d > 0 && count > maxElements/d {
			return nil, fmt.Errorf("input %s: shape %s has more than %d elements", in.Name, npy.Shape(dims), maxElements)
		}
		count *= d
	}
	name := fnv.New64a()
	name.Write([]byte(in.Name))
	random := rand.New(rand.NewPCG(seed, name.Sum64()))
	var list []inference.Value
	for range n {
		v := inference.Value{Dims: dims}
		switch in.Datatype.Kind() {
		case inference.Floats:
			v.Floats = make([]float32, count)
			for i := range v.Floats {
				v.Floats[i] = float32(random.NormFloat64())
			}
		case inference.Doubles:
			v.Doubles = make([]float64, count)
			for i := range v.Doubles {
				v.Doubles[i] = random.NormFloat64()
			}
		case inference.Ints:
			most := below
			if in.Datatype == inference.BOOL {
				most = 2
			}
			v.Ints = make([]int64, count)
			for i := range v.Ints {
				v.Ints[i] = random.Int64N(int64(max(most, 1)))
			}
		default:
			return nil, fmt.Errorf("input %s is text; say which", in.Name)
		}
		list = append(list, v)
	}
	return list, nil
}
