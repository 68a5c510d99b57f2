package batch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
)

// spy is a program that betrays a state which is not the session's own. The state holds
// the stream that used it first and a hash of all inputs, and each answer tells both. A
// job's input is the number of its stream, a value, and its key; a value of poison panics,
// one of refuse fails its job.
type spy struct {
	alone       bool // jobs are not computed together
	rows        int  // of a job
	cost        float64
	size        int // bytes of a state besides its numbers
	fingerprint string
	run         func(jobs []*Job) // called by Run before it computes, if not nil

	batches atomic.Int64
	closed  atomic.Int64
	running atomic.Int64
}

const (
	poison = -1
	refuse = -2
	grow   = -3 // the state becomes larger
)

type spyState struct {
	stream, count int64
	hash          uint64
	pad           []byte
	inUse         atomic.Bool
}

func (p *spy) Inputs() []inference.Info {
	return []inference.Info{{Name: "x", Datatype: inference.INT64}}
}
func (p *spy) Outputs() []inference.Info {
	return []inference.Info{{Name: "y", Datatype: inference.INT64}}
}
func (p *spy) Platform() string    { return "spy" }
func (p *spy) Batched() bool       { return !p.alone }
func (p *spy) Fingerprint() string { return p.fingerprint }
func (p *spy) NewState() State     { return &spyState{pad: make([]byte, p.size)} }

func (p *spy) Close() {
	if p.running.Load() != 0 {
		panic("closed while it runs")
	}
	p.closed.Add(1)
}

func (p *spy) Check(j *Job) error {
	x := j.Inputs[0].Ints
	j.Key, j.Rows, j.Cost = x[2], max(1, p.rows), p.cost
	if len(x) > 3 {
		j.Alike = int(x[3])
	}
	if len(x) > 4 {
		j.Cost = float64(x[4])
	}
	return nil
}

func (p *spy) Run(_ context.Context, jobs []*Job) {
	p.batches.Add(1)
	p.running.Add(1)
	defer p.running.Add(-1)
	if p.closed.Load() != 0 {
		panic("runs after it was closed")
	}
	if p.run != nil {
		p.run(jobs)
	}
	shared := make([]spyState, len(jobs)) // as the rows of a batch
	for i, j := range jobs {
		if j.Key != jobs[0].Key {
			panic("jobs of different keys")
		}
		if st, _ := j.State().(*spyState); st != nil {
			if !st.inUse.CompareAndSwap(false, true) {
				panic("a state is used by two jobs")
			}
			defer st.inUse.Store(false)
			shared[i].stream, shared[i].count, shared[i].hash = st.stream, st.count, st.hash
		}
	}
	runtime.Gosched()
	for i, j := range jobs {
		row, x := &shared[i], j.Inputs[0].Ints
		switch x[1] {
		case poison:
			panic("poisoned")
		case refuse:
			j.Err = inference.Errorf(inference.Invalid, "refused")
			continue
		}
		if row.stream == 0 {
			row.stream = x[0]
		}
		row.count++
		row.hash = mixed(row.hash, x[1])
		j.Outputs = []inference.Value{{Dims: []int{3}, Ints: []int64{row.stream, row.count, int64(row.hash)}}}
	}
	for i, j := range jobs {
		if st, _ := j.State().(*spyState); st != nil && j.Err == nil {
			st.stream, st.count, st.hash = shared[i].stream, shared[i].count, shared[i].hash
			if j.Inputs[0].Ints[1] == grow {
				st.pad = append(st.pad, make([]byte, 1000)...)
			}
		}
	}
}

func mixed(h uint64, x int64) uint64 {
	h ^= uint64(x)
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (s *spyState) Bytes() int { return 24 + len(s.pad) }

func (s *spyState) MarshalBinary() ([]byte, error) {
	b := binary.LittleEndian.AppendUint64(nil, uint64(s.stream))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.count))
	return binary.LittleEndian.AppendUint64(b, s.hash), nil
}

func (s *spyState) UnmarshalBinary(b []byte) error {
	if len(b) != 24 {
		return fmt.Errorf("%d bytes, expected 24", len(b))
	}
	s.stream = int64(binary.LittleEndian.Uint64(b))
	s.count = int64(binary.LittleEndian.Uint64(b[8:]))
	s.hash = binary.LittleEndian.Uint64(b[16:])
	return nil
}

// job returns a job; x is the stream, the value, the key, and the length.
func job(n *Session, x ...int64) *Job {
	for len(x) < 3 {
		x = append(x, 0)
	}
	return &Job{Session: n, Inputs: []inference.Value{{Dims: []int{len(x)}, Ints: x}}}
}

// code returns the class of an error; -1 for none.
func code(err error) int {
	if err == nil {
		return -1
	}
	var known *inference.Error
	if !errors.As(err, &known) {
		panic(err)
	}
	return int(known.Code)
}

func wantCode(tb testing.TB, err error, want inference.Code) {
	tb.Helper()
	if code(err) != int(want) {
		tb.Fatalf("got error %v, want one of code %d", err, want)
	}
}

func open(tb testing.TB, t *Sessions, q *Queue, o Opening) *Session {
	tb.Helper()
	n, err := t.Open(q, "m", o)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func do(tb testing.TB, q *Queue, j *Job) {
	tb.Helper()
	if err := q.Do(context.Background(), j); err != nil {
		tb.Fatal(err)
	}
}

// held is a program's run that waits until it is let go.
type held struct {
	began, letGo chan struct{}
}

func newHeld() *held { return &held{make(chan struct{}, 1000), make(chan struct{})} }

func (h *held) run([]*Job) {
	h.began <- struct{}{}
	<-h.letGo
}

// busy makes a queue's lane busy with a job that runs until it is let go; the batches
// after it are noted by their jobs.
func busy(tb testing.TB, q *Queue, p *spy, session *Session) (letGo func(), batches func() [][]*Job) {
	tb.Helper()
	h := newHeld()
	var mu sync.Mutex
	var all [][]*Job
	first := true
	p.run = func(jobs []*Job) {
		mu.Lock()
		f := first
		if first = false; !f {
			all = append(all, append([]*Job(nil), jobs...))
		}
		mu.Unlock()
		if f {
			h.run(jobs)
		}
	}
	if err := q.Submit(context.Background(), job(session, 99, 0, 99)); err != nil {
		tb.Fatal(err)
	}
	<-h.began
	return func() { close(h.letGo) }, func() [][]*Job {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

// empty checks that nothing is left of jobs.
func empty(tb testing.TB, q *Queue) {
	tb.Helper()
	if err := q.Quiet(context.Background()); err != nil {
		tb.Fatal(err)
	}
	eventually(tb, "all executors are free", func() bool {
		q.s.mu.Lock()
		defer q.s.mu.Unlock()
		return q.s.busy == 0
	})
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	if q.active != 0 || q.waiting != 0 || len(q.clients) != 0 || q.s.long != 0 {
		tb.Errorf("left: active %d, waiting %d, clients %v, long batches %d", q.active, q.waiting, q.clients, q.s.long)
	}
	for i := range q.lanes {
		l := &q.lanes[i]
		if l.jobs != 0 || l.running != 0 || len(l.levels) > 1 {
			tb.Errorf("left in lane %d: jobs %d, running %d, levels %d", i, l.jobs, l.running, len(l.levels))
		}
		for _, lv := range l.levels {
			if lv.turn != nil || len(lv.tenants) != 0 {
				tb.Errorf("left in lane %d: tenants %v", i, lv.tenants)
			}
		}
	}
}
