package serve

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// Infer answers a request of the protocol. Its errors are *inference.Error.
//
// The parameters sequence_id (a number or a text; 0 and "" are none), sequence_start and
// sequence_end are those of Triton's sequences: the state of a model that keeps one is
// carried from request to request of one id. timeout is in microseconds; of priorities 1
// is the highest.
func (s *Server) Infer(ctx context.Context, r *inference.Request, c Caller) (*inference.Response, error) {
	began := time.Now()
	seq, err := sequenceOf(r.Params)
	if err != nil {
		return nil, err
	}
	ctx, stop, err := s.timed(ctx, r.Params)
	if err != nil {
		return nil, err
	}
	defer stop()
	e, v, err := s.find(r.Model, r.Version)
	if err != nil {
		return nil, err
	}
	if e.pipeline != nil {
		return e.pipeline.infer(ctx, s, r, seq, c)
	}
	return s.inferNewest(ctx, v, e.name, r, seq, c, began)
}

// inferNewest is inferOn for a version that may be replaced meanwhile: then the request goes
// to the one that has its place.
func (s *Server) inferNewest(ctx context.Context, v *version, name string, r *inference.Request, seq sequence, c Caller, began time.Time) (*inference.Response, error) {
	out, err := s.inferOn(ctx, v, name, r, seq, c, began)
	if gone, ok := err.(*inference.Error); ok && gone.Code == inference.Unavailable && v.retired.Load() {
		_, next, wrong := s.find(v.name, r.Version)
		switch {
		case wrong != nil:
			return nil, wrong
		case next == nil: // a pipeline has the name by now
			return nil, err
		}
		return s.inferOn(ctx, next, name, r, seq, c, began)
	}
	return out, err
}

// again calls f, which finds a version and uses it, and once more if the version was
// replaced between the two.
func again(f func() error) error {
	err := f()
	if gone, ok := err.(*inference.Error); ok && gone.Code == inference.Unavailable {
		return f()
	}
	return err
}

// timed returns a context with the time that a request has: its own, or the server's.
func (s *Server) timed(ctx context.Context, p inference.Params) (context.Context, context.CancelFunc, error) {
	t, _, err := wholeParam(p, "timeout")
	if err != nil {
		return nil, nil, err
	}
	d := s.limits().Timeout
	if t > 0 && t < math.MaxInt64/1000 {
		d = time.Duration(t) * time.Microsecond
	}
	if d <= 0 {
		return ctx, func() {}, nil
	}
	ctx, stop := context.WithTimeout(ctx, d)
	return ctx, stop, nil
}

// sequence is the parameters of a sequence.
type sequence struct {
	id         string // "": none
	start, end bool
}

func sequenceOf(p inference.Params) (q sequence, err error) {
	switch id := p["sequence_id"].(type) {
	case nil:
	case string:
		q.id = id
	case int64:
		if id != 0 {
			q.id = strconv.FormatInt(id, 10)
		}
	case uint64:
		if id != 0 {
			q.id = strconv.FormatUint(id, 10)
		}
	default:
		return q, inference.Errorf(inference.Invalid, "parameter sequence_id: expected a whole number or a text, got %s", inference.Shown(id))
	}
	for name, to := range map[string]*bool{"sequence_start": &q.start, "sequence_end": &q.end} {
		v, given := p[name]
		yes, ok := v.(bool)
		if given && !ok {
			return q, inference.Errorf(inference.Invalid, "parameter %s: expected true or false, got %s", name, inference.Shown(v))
		}
		*to = yes
	}
	if q.id == "" && (q.start || q.end) {
		return q, inference.Errorf(inference.Invalid, "sequence_start and sequence_end need a sequence_id that is not 0 or empty")
	}
	return q, nil
}

// wholeParam returns a parameter that is a whole number from 0.
func wholeParam(p inference.Params, name string) (n uint64, given bool, err error) {
	switch v := p[name].(type) {
	case nil:
		return 0, false, nil
	case int64:
		if v >= 0 {
			return uint64(v), true, nil
		}
	case uint64:
		return v, true, nil
	}
	return 0, true, inference.Errorf(inference.Invalid, "parameter %s: expected a whole number from 0, got %s", name, inference.Shown(p[name]))
}

// inferOn runs a request on a version. name is that of the session's model: of a stage of a
// pipeline it is not the version's.
func (s *Server) inferOn(ctx context.Context, v *version, name string, r *inference.Request, seq sequence, c Caller, began time.Time) (*inference.Response, error) {
	for tries := 1; ; tries++ {
		out, ended, err := s.inferOnce(ctx, v, name, r, seq, c, began)
		if !ended || tries == mostTries || ctx.Err() != nil {
			return out, err
		}
	}
}

// mostTries is how often a sequence is begun that is over before its first request is computed.
const mostTries = 8

// inferOnce is one try of inferOn. ended says that the sequence that it was to begin, or to follow,
// was over before.
func (s *Server) inferOnce(ctx context.Context, v *version, name string, r *inference.Request, seq sequence, c Caller, began time.Time) (out *inference.Response, ended bool, err error) {
	var n *batch.Session
	fresh := false
	if seq.id != "" {
		if n, fresh, err = s.sequence(v, name, seq, c); err != nil {
			return nil, false, err
		}
		v = n.Queue().Owner.(*version) // a session goes on in the version that it began in
		if r.Version != "" && r.Version != v.number {
			return nil, false, inference.Errorf(inference.Invalid, "sequence %s began in version %s of model %q, and goes on there; got version %s", seq.id, v.number, v.name, r.Version)
		}
	}
	j, classes, err := v.job(r, c)
	if err == nil {
		j.Session, j.Begin, j.End = n, seq.start && n != nil, seq.end
		err = v.writable(r, j, classes)
	}
	if err == nil {
		v.decoded.Add(int64(time.Since(began)))
		err = v.do(ctx, j)
	}
	if err != nil {
		if seq.start && inference.AsError(err).Code == inference.NotFound {
			// The sequence that it was to follow may have ended meanwhile, and a new one by an
			// idle limit that is very short.
			why := n.Over()
			ended = why != "" && (!fresh || why == batch.Idle || why == batch.Evicted)
		}
		if fresh {
			n.End(batch.Ended) // it never began
		}
		return nil, ended, inference.AsError(err)
	}
	s.traceJob(ctx, v, j)
	answered := time.Now()
	defer func() { v.encoded.Add(int64(time.Since(answered))) }()
	out, err = v.response(r, j, classes)
	return out, false, err
}

// sequence finds or opens the session of a sequence.
func (s *Server) sequence(v *version, name string, seq sequence, c Caller) (n *batch.Session, fresh bool, err error) {
	n, err = s.sessions.Find(name, seq.id)
	switch {
	case err == nil && !allowed(c, n):
		return nil, false, inference.Errorf(inference.Denied, "sequence %s of model %q is another client's; use another id", seq.id, name)
	case err == nil && (!seq.start || n.Queue() == v.q && c.owns(n)):
		return n, false, nil // one that starts anew does so in its turn, behind requests before it
	case seq.start:
		n, err = s.openSession(v, name, batch.Opening{ID: seq.id, Client: c.Client, Life: v.c.Life, Replace: n}, c.Owner)
		if err != nil && inference.AsError(err).Code == inference.Exists {
			return s.sequence(v, name, seq, c) // it was begun just now, perhaps by another client
		}
		return n, true, err
	case v.program().NewState() == nil:
		return nil, false, inference.Errorf(inference.Unsupported, "model %q keeps no state: send requests without a sequence", v.name)
	}
	why := ""
	if reason := s.sessions.Why(name, seq.id); reason != "" {
		why = fmt.Sprintf(" (the sequence of that id is over: %s)", reason)
	}
	return nil, false, inference.Errorf(inference.Invalid, "inference request for sequence %s to model '%s' must specify the START flag on the first request of the sequence%s", seq.id, v.name, why)
}

// owns reports whether a session is one that the caller has begun and that ends with what it
// ends with. Who starts another's anew has it from then on.
func (c Caller) owns(n *batch.Session) bool {
	if n.Client() != c.Client {
		return false
	}
	if c.Owner == nil {
		return !n.Transient
	}
	return c.Owner.has(n)
}

// openSession opens a session that, with an owner, ends with its connection.
func (s *Server) openSession(v *version, name string, o batch.Opening, owner *Owner) (*batch.Session, error) {
	if s.draining.Load() {
		return nil, errDraining
	}
	if owner == nil {
		return s.sessions.Open(v.q, name, o)
	}
	o.Transient = true
	told := o.OnEnd
	o.OnEnd = func(n *batch.Session, why batch.Reason) {
		go owner.drop(n) // the scheduler's lock is held
		if told != nil {
			told(n, why)
		}
	}
	n, err := s.sessions.Open(v.q, name, o)
	if err == nil {
		owner.add(n)
	}
	return n, err
}

// optioned is a program with options of its own among the parameters of requests.
type optioned interface {
	Options(inference.Params) (any, error)
}

// accepting is a program whose inputs may have other datatypes than they are described
// with.
type accepting interface {
	Accepts(input int, t inference.Datatype) bool
}

// job makes the program's job of a request; classes are the numbers of classes wanted of each output,
// 0 for the output itself.
func (v *version) job(r *inference.Request, c Caller) (j *batch.Job, classes []int, err error) {
	if r.Raw && r.Inputs[0].Name == "" { // not yet, when it is tried again
		if err := r.Resolve(v.ins, v.program().Batched()); err != nil {
			return nil, nil, err
		}
	}
	j = &batch.Job{Client: c.Client, Conn: c.Conn, Inputs: make([]inference.Value, len(v.ins))}
	for i := range r.Inputs {
		t := &r.Inputs[i]
		at, ok := v.inAt[t.Name]
		if !ok {
			return nil, nil, inference.Errorf(inference.Invalid, "model %q has no input %q: it has %s", v.name, t.Name, listed(v.ins))
		}
		in := &v.ins[at]
		if j.Inputs[at].Dims != nil {
			return nil, nil, inference.Errorf(inference.Invalid, "input %q is given twice", t.Name)
		}
		if t.Datatype != in.Datatype {
			if p, ok := v.program().(accepting); !ok || !p.Accepts(at, t.Datatype) {
				return nil, nil, inference.Errorf(inference.Invalid, "input %q: expected datatype %s, got %s", t.Name, in.Datatype, t.Datatype)
			}
		}
		if t.Dims == nil {
			t.Dims = []int{}
		}
		if t.Datatype == inference.UINT64 && in.Datatype != inference.UINT64 && slices.ContainsFunc(t.Ints, func(x int64) bool { return x < 0 }) {
			return nil, nil, inference.Errorf(inference.Invalid, "input %q: numbers of UINT64 from 2^63 on are not taken as %s; send them as BYTES", t.Name, in.Datatype)
		}
		j.Inputs[at] = t.Value
	}
	p, _, err := wholeParam(r.Params, "priority")
	if err != nil {
		return nil, nil, err
	}
	if p > 0 { // Triton's 1 is the highest, and 0 the model's own, which is below all of them here
		j.Priority = int(min(p, math.MaxInt32)) - math.MaxInt32
	}
	if o, ok := v.program().(optioned); ok {
		if j.Options, err = o.Options(r.Params); err != nil {
			return nil, nil, err
		}
	}
	if r.Outputs == nil {
		return j, nil, nil
	}
	j.Want = make([]bool, len(v.outs))
	for i := range r.Outputs {
		o := &r.Outputs[i]
		at, ok := v.outAt[o.Name]
		if !ok {
			return nil, nil, inference.Errorf(inference.Invalid, "model %q has no output %q: it has %s", v.name, o.Name, listed(v.outs))
		}
		j.Want[at] = true
		n, err := classesOf(o, &v.outs[at])
		if err != nil {
			return nil, nil, err
		}
		if n > 0 && classes == nil {
			classes = make([]int, len(v.outs))
		}
		if classes != nil {
			classes[at] = n
		}
	}
	return j, classes, nil
}

// classesOf returns the number of classes that a request wants of an output, 0 for the output
// itself.
func classesOf(o *inference.Output, info *inference.Info) (int, error) {
	n, _, err := wholeParam(o.Params, "classification")
	if err == nil && n > 0 && info.Datatype.Kind() == inference.Texts {
		err = inference.Errorf(inference.Invalid, "output %q: classification is for numbers, the output is %s", info.Name, info.Datatype)
	}
	return int(min(n, math.MaxInt32)), err
}

// listed names inputs or outputs for messages.
func listed(list []inference.Info) string {
	names := make([]string, 0, len(list))
	for i := range list {
		if i == 20 {
			names = append(names, "...")
			break
		}
		names = append(names, strconv.Quote(list[i].Name))
	}
	return strings.Join(names, ", ")
}

// writable reports an output that is wanted and has no form in the answer, before it is computed.
func (v *version) writable(r *inference.Request, j *batch.Job, classes []int) error {
	for i := range v.outs {
		if o := &v.outs[i]; j.Wanted(i, o) && (classes == nil || classes[i] == 0) {
			if err := r.Writable(o.Name, o.Datatype); err != nil {
				return err
			}
		}
	}
	return nil
}

// response makes the answer of a job: the outputs in the order in which they were asked
// for, or else the model's.
func (v *version) response(r *inference.Request, j *batch.Job, classes []int) (*inference.Response, error) {
	out := &inference.Response{Model: v.name, Version: v.number, ID: r.ID, Outputs: make([]inference.Tensor, 0, len(v.outs))}
	add := func(i int) {
		if i >= len(j.Outputs) || j.Outputs[i].Dims == nil {
			return
		}
		t := inference.Tensor{Name: v.outs[i].Name, Datatype: v.outs[i].Datatype, Value: j.Outputs[i]}
		if classes != nil && classes[i] > 0 {
			t.Datatype, t.Value = inference.BYTES, classify(&t, classes[i], v.outs[i].Labels)
		}
		out.Outputs = append(out.Outputs, t)
	}
	if r.Outputs == nil {
		for i := range v.outs {
			add(i)
		}
		return out, nil
	}
	for i := range r.Outputs {
		add(v.outAt[r.Outputs[i].Name])
	}
	return out, nil
}

// classify returns the n largest of each row of an output as "value:index:label", the
// largest first. A row is all that is behind the first dimension.
func classify(v *inference.Tensor, n int, labels []string) inference.Value {
	rows, width := 1, v.Len()
	if len(v.Dims) > 1 {
		rows = v.Dims[0]
		if rows > 0 {
			width /= rows
		}
	}
	n = min(n, width)
	out := inference.Value{Dims: []int{rows, n}, Texts: make([]string, 0, rows*n)}
	if len(v.Dims) <= 1 {
		out.Dims = []int{n}
	}
	number := func(i int) float64 {
		if v.Floats != nil {
			return float64(v.Floats[i])
		}
		return v.Doubles[i]
	}
	unsigned := v.Datatype == inference.UINT64
	order := make([]int, width)
	for row := range rows {
		for i := range order {
			order[i] = row*width + i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch {
			case unsigned:
				return cmp.Compare(uint64(v.Ints[b]), uint64(v.Ints[a]))
			case v.Ints != nil:
				return cmp.Compare(v.Ints[b], v.Ints[a])
			}
			x, y := number(a), number(b)
			switch {
			case x > y || y != y && x == x: // what is not a number comes last
				return -1
			case x < y || x != x && y == y:
				return 1
			}
			return 0
		})
		for _, i := range order[:n] {
			var text string
			switch {
			case unsigned:
				text = strconv.FormatUint(uint64(v.Ints[i]), 10)
			case v.Ints != nil:
				text = strconv.FormatInt(v.Ints[i], 10)
			default:
				text = strconv.FormatFloat(number(i), 'f', 6, 64)
			}
			k := i - row*width
			text += ":" + strconv.Itoa(k)
			if k < len(labels) {
				text += ":" + labels[k]
			}
			out.Texts = append(out.Texts, text)
		}
	}
	return out
}
