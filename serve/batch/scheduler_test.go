package batch

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
)

// stranger is a stream as its client knows it.
type stranger struct {
	number, count int64
	hash          uint64
	n             *Session
}

// TestStrangers runs many streams against each other, with everything that may happen to a
// session, and compares each answer with what the stream sent.
func TestStrangers(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run("alone="+strconv.FormatBool(alone), func(t *testing.T) { strangers(t, alone) })
	}
}

func strangers(t *testing.T, alone bool) {
	const clients, each, steps = 24, 10, 150
	newSpy := func() *spy { return &spy{alone: alone, fingerprint: "f"} }
	here, there := New(Options{Executors: 4}), New(Options{})
	o := SessionOptions{Most: clients * each * 4 / 5, Spare: time.Nanosecond, Life: 50 * time.Millisecond}
	tables := []*Sessions{NewSessions(here, o), NewSessions(there, o)}
	var queues [2]atomic.Pointer[Queue]
	for i, s := range []*Scheduler{here, there} {
		queues[i].Store(s.Add(newSpy(), QueueOptions{Rows: 16}))
	}
	stop := make(chan struct{})
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(7 * time.Millisecond):
			}
			which := i % 2
			old := queues[which].Load()
			queues[which].Store(old.s.Add(newSpy(), QueueOptions{Rows: 16}))
			tables[which].EndAll(old, Unloaded)
			if err := old.Close(context.Background()); err != nil {
				t.Error(err)
			}
			tables[which].EndAll(old, Unloaded) // opened meanwhile
		}
	})
	var answered, lost, late, moved atomic.Int64
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 7))
			streams := make([]stranger, each)
			for i := range streams {
				streams[i].number = int64(c*each + i + 1)
			}
			for range steps * each {
				st := &streams[r.IntN(each)]
				at := int(st.number) % 2
				if st.n == nil {
					q := queues[at].Load()
					o := Opening{ID: strconv.FormatInt(st.number, 10), Client: strconv.Itoa(c)}
					o.Replace, _ = tables[at].Find("m", o.ID) // nil if there is none
					if r.IntN(4) == 0 {
						o.Life = time.Duration(1+r.IntN(3)) * time.Millisecond
					}
					n, err := tables[at].Open(q, "m", o)
					if err != nil {
						continue // no room, or the queue has just been closed
					}
					st.n, st.count, st.hash = n, 0, 0
				}
				j := job(st.n, st.number, r.Int64N(1000), r.Int64N(2))
				j.Client, j.Priority = strconv.Itoa(c%5), r.IntN(3)-1
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				switch r.IntN(12) {
				case 0:
					ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(200))*time.Microsecond)
				case 1:
					ctx, cancel = context.WithCancel(ctx)
					go func() {
						runtime.Gosched()
						cancel()
					}()
				case 2:
					j.Begin = true
				case 3:
					j.End = true
				case 4:
					j.Inputs[0].Ints[1] = refuse
				case 5:
					if r.IntN(20) == 0 {
						j.Inputs[0].Ints[1] = poison
					}
				case 6: // to the other server
					b, err := st.n.Save(context.Background())
					if err != nil {
						st.n = nil
						continue
					}
					saved, err := ReadSaved(b)
					if err != nil {
						t.Error(err)
						return
					}
					st.n.End(Ended)
					st.n, err = tables[at].Restore(queues[at].Load(), "m", saved, Opening{Client: strconv.Itoa(c)})
					if err != nil {
						st.n = nil
						continue
					}
					moved.Add(1)
					j.Session = st.n
				}
				err := st.n.q.Do(ctx, j)
				cancel()
				switch code(err) {
				case -1:
					answered.Add(1)
					if j.Begin {
						st.count, st.hash = 0, 0
					}
					st.count++
					st.hash = mixed(st.hash, j.Inputs[0].Ints[1])
					if got, want := j.Outputs[0].Ints, []int64{st.number, st.count, int64(st.hash)}; !slices.Equal(got, want) {
						t.Errorf("stream %d: its state says %v, want %v (begin %v)", st.number, got, want, j.Begin)
						return
					}
					if j.End {
						st.n = nil
					}
				case int(inference.Canceled), int(inference.Deadline):
					late.Add(1) // and the state must be as it was
					if j.Begin {
						t.Error("a job that restarts was not to be cancelled")
					}
				case int(inference.Invalid):
					// Refused by the program, which leaves the state as it was.
				case int(inference.NotFound), int(inference.Unavailable), int(inference.Internal):
					lost.Add(1)
					st.n = nil
				default:
					t.Errorf("stream %d: %v", st.number, err)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	reloads.Wait()
	if answered.Load() < 1000 || lost.Load() == 0 || late.Load() == 0 || moved.Load() == 0 {
		t.Errorf("the test is too tame: %d answers, %d sessions lost, %d jobs late, %d moved", answered.Load(), lost.Load(), late.Load(), moved.Load())
	}
	for i := range tables {
		tables[i].Stop(Stopped)
		if n, bytes := tables[i].Count(nil); n != 0 || bytes != 0 {
			t.Errorf("%d sessions with %d bytes are left", n, bytes)
		}
		q := queues[i].Load()
		if q.kept != 0 || q.bytes != 0 || tables[i].idle.next != &tables[i].idle || len(tables[i].clients) != 0 {
			t.Error("something is left of sessions")
		}
		empty(t, q)
	}
}

// TestOrderOfASession submits jobs of a session at once; they must run in their order.
func TestOrderOfASession(t *testing.T) {
	s := New(Options{})
	q := s.Add(&spy{}, QueueOptions{})
	table := NewSessions(s, SessionOptions{})
	defer table.Stop(Stopped)
	var all sync.WaitGroup
	for k := range 20 {
		n := open(t, table, q, Opening{})
		var jobs []*Job
		for i := range 40 {
			j := job(n, int64(k+1), int64(i))
			j.Priority = -i // which must not matter
			if err := q.Submit(context.Background(), j); err != nil {
				t.Fatal(err)
			}
			jobs = append(jobs, j)
		}
		all.Go(func() {
			for i, j := range jobs {
				if err := q.Wait(j); err != nil || j.Outputs[0].Ints[1] != int64(i+1) {
					t.Errorf("job %d: error %v, outputs %v", i, err, j.Outputs)
				}
			}
		})
	}
	all.Wait()
	empty(t, q)
}

// submitted submits jobs of a client.
func submitted(t *testing.T, q *Queue, client string, jobs ...*Job) []*Job {
	t.Helper()
	for _, j := range jobs {
		j.Client = client
		if err := q.Submit(context.Background(), j); err != nil {
			t.Fatal(err)
		}
	}
	return jobs
}

func many(n int, make func(i int) *Job) (list []*Job) {
	for i := range n {
		list = append(list, make(i))
	}
	return list
}

func await(t *testing.T, q *Queue, list []*Job) {
	t.Helper()
	for _, j := range list {
		if err := q.Wait(j); err != nil {
			t.Fatal(err)
		}
	}
}

// batchOf returns the number of the batch that a job was in.
func batchOf(batches [][]*Job, j *Job) int {
	return slices.IndexFunc(batches, func(b []*Job) bool { return slices.Contains(b, j) })
}

// TestFlood lets one client send 500 jobs before the others come.
func TestFlood(t *testing.T) {
	p := &spy{}
	q := New(Options{Executors: 2}).Add(p, QueueOptions{Rows: 8, Latency: time.Hour})
	letGo, batches := busy(t, q, p, nil)
	flood := submitted(t, q, "flood", many(500, func(i int) *Job { return job(nil, 1, int64(i), 0) })...)
	var others []*Job
	for c := range 14 {
		others = append(others, submitted(t, q, strconv.Itoa(c), many(2, func(int) *Job { return job(nil, 2, 0, 0) })...)...)
	}
	letGo()
	await(t, q, append(flood, others...))
	for i, j := range others { // 15 clients with 2 jobs each are 30 jobs, 4 batches
		if b := batchOf(batches(), j); b > 3 {
			t.Errorf("job %d of the others is in batch %d", i, b)
		}
	}
	empty(t, q)
}

// TestOddKeys lets clients whose jobs fit each other's keep a queue full; the one whose job fits
// none must have its turn, whatever the number of rows.
func TestOddKeys(t *testing.T) {
	for rows := 1; rows <= 6; rows++ {
		p := &spy{}
		q := New(Options{Executors: 2}).Add(p, QueueOptions{Rows: rows, Latency: time.Hour})
		letGo, batches := busy(t, q, p, nil)
		even := func(int) *Job { return job(nil, 1, 0, 0) }
		all := submitted(t, q, "a", many(60, even)...)
		odd := submitted(t, q, "b", job(nil, 1, 0, 1))
		all = append(all, submitted(t, q, "c", many(60, even)...)...)
		letGo()
		await(t, q, append(all, odd...))
		if b := batchOf(batches(), odd[0]); b > 2 {
			t.Errorf("with %d rows: the odd job is in batch %d of %d", rows, b, len(batches()))
		}
	}
}

func TestPriorities(t *testing.T) {
	p := &spy{}
	q := New(Options{Executors: 2}).Add(p, QueueOptions{Rows: 1, Latency: time.Hour})
	letGo, batches := busy(t, q, p, nil)
	var all []*Job
	for _, priority := range []int{0, 5, -3, 0, -1000000, 5, 7} {
		j := job(nil, 1, 0, 0)
		j.Priority = priority
		all = append(all, submitted(t, q, "c", j)...)
	}
	letGo()
	await(t, q, all)
	var order []int
	for _, b := range batches() {
		order = append(order, b[0].Priority)
	}
	if want := []int{-1000000, -3, 0, 0, 5, 5, 7}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	empty(t, q) // also that no level is kept for a priority that nobody uses
}

func TestQueueLimits(t *testing.T) {
	p := &spy{}
	q := New(Options{}).Add(p, QueueOptions{Jobs: 10, Client: 4})
	letGo, _ := busy(t, q, p, nil)
	all := submitted(t, q, "a", many(4, func(int) *Job { return job(nil, 1, 0, 0) })...)
	refused := func(client string) *inference.Error {
		j := job(nil, 1, 0, 0)
		j.Client = client
		err := q.Submit(context.Background(), j)
		wantCode(t, err, inference.Exhausted)
		known := err.(*inference.Error)
		if known.RetryAfter < 1 {
			t.Error("a refusal does not say when to try again")
		}
		return known
	}
	if e := refused("a"); !strings.Contains(e.Msg, "this client") {
		t.Errorf("got %q", e.Msg)
	}
	all = append(all, submitted(t, q, "b", many(4, func(int) *Job { return job(nil, 1, 0, 0) })...)...)
	all = append(all, submitted(t, q, "c", many(2, func(int) *Job { return job(nil, 1, 0, 0) })...)...)
	refused("d")
	letGo()
	await(t, q, all)
	if st := q.Stats(); st.Refused != 2 || st.Succeeded != 11 {
		t.Errorf("statistics %+v", st)
	}
	empty(t, q)
}

// TestLongBatches fills one model's queue with long batches, of long jobs and of many short
// ones; another's job must not wait for their end.
func TestLongBatches(t *testing.T) {
	for name, cost := range map[string]int64{"long jobs": 100, "short jobs": 1} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{Executors: 2})
			var running, most atomic.Int64
			slow := func() *spy {
				return &spy{run: func(jobs []*Job) {
					units := int64(0)
					for _, j := range jobs {
						units += j.Inputs[0].Ints[4]
					}
					took := time.Duration(units) * 200 * time.Microsecond
					if took >= 10*time.Millisecond { // long by far
						n := running.Add(1)
						for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
						}
						defer running.Add(-1)
					}
					time.Sleep(took)
				}}
			}
			a := s.Add(slow(), QueueOptions{Latency: time.Hour})
			b := s.Add(slow(), QueueOptions{Latency: time.Hour})
			for _, q := range []*Queue{a, b} { // which teaches the pace
				do(t, q, job(nil, 1, 0, 0, 0, 1))
			}
			var all sync.WaitGroup
			for range 60 {
				for _, q := range []*Queue{a, b} {
					all.Go(func() { do(t, q, job(nil, 1, 0, 0, 0, cost)) })
				}
			}
			all.Wait()
			if most.Load() > 1 {
				t.Errorf("%d of 2 executors ran long batches at the same time", most.Load())
			}
			empty(t, a)
			empty(t, b)
		})
	}
}

// TestOneExecutor runs long jobs with a single executor.
func TestOneExecutor(t *testing.T) {
	p := &spy{run: func([]*Job) { time.Sleep(2 * longRun) }}
	q := New(Options{Executors: 1}).Add(p, QueueOptions{})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for range 4 {
		if err := q.Do(ctx, job(nil, 1, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	empty(t, q)
}

// TestDeadlines ends the time of jobs that wait, of callers that wait with them and of one
// that leads the batches of others.
func TestDeadlines(t *testing.T) {
	t.Run("runs", func(t *testing.T) {
		release := make(chan struct{})
		p := &spy{run: func([]*Job) { time.Sleep(2 * longRun) }}
		s := New(Options{})
		q := s.Add(p, QueueOptions{})
		if err := q.Do(context.Background(), job(nil, 1, 0)); err != nil { // tells how long one takes
			t.Fatal(err)
		}
		p.run = func([]*Job) { <-release }
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		defer cancel()
		wantCode(t, q.Do(ctx, job(nil, 1, 0)), inference.Deadline) // before its end, which is not in sight
		close(release)
		if err := q.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Run("waits", func(t *testing.T) {
		s, p := New(Options{}), &spy{}
		q := s.Add(p, QueueOptions{})
		table := NewSessions(s, SessionOptions{})
		defer table.Stop(Stopped)
		n := open(t, table, q, Opening{})
		letGo, batches := busy(t, q, p, n)
		var all sync.WaitGroup
		for _, session := range []*Session{n, open(t, table, q, Opening{})} {
			for _, of := range []struct {
				code inference.Code
				ctx  func() (context.Context, context.CancelFunc)
			}{
				{inference.Deadline, func() (context.Context, context.CancelFunc) {
					return context.WithTimeout(context.Background(), 5*time.Millisecond)
				}},
				{inference.Canceled, func() (context.Context, context.CancelFunc) {
					ctx, cancel := context.WithCancel(context.Background())
					time.AfterFunc(5*time.Millisecond, cancel)
					return ctx, cancel
				}},
			} {
				all.Go(func() {
					ctx, cancel := of.ctx()
					defer cancel()
					wantCode(t, q.Do(ctx, job(session, 1, 0)), of.code)
				})
			}
		}
		all.Wait() // while the lane is busy
		letGo()
		empty(t, q)
		if len(batches()) != 0 {
			t.Errorf("jobs that nobody waits for were computed: %v", batches())
		}
		if st := q.Stats(); st.Canceled != 4 || st.Succeeded != 1 {
			t.Errorf("statistics %+v", st)
		}
	})
	t.Run("leads", func(t *testing.T) {
		// A caller finds the lane free, its own job behind better ones, which never end.
		p := &spy{run: func([]*Job) { time.Sleep(time.Millisecond) }}
		q := New(Options{Executors: 2}).Add(p, QueueOptions{Rows: 1})
		stop := make(chan struct{})
		var all sync.WaitGroup
		for c := range 4 {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					j := job(nil, 1, 0, 0)
					j.Client, j.Priority = strconv.Itoa(c), -1
					_ = q.Do(context.Background(), j)
				}
			})
		}
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			j := job(nil, 1, 0, 0)
			began := time.Now()
			err := q.Do(ctx, j)
			cancel()
			if took := time.Since(began); took > 10*time.Second {
				t.Fatalf("a job with 10 ms came back after %v: %v", took, err)
			}
		}
		close(stop)
		all.Wait()
		empty(t, q)
	})
}

// TestCallersLeadTheirOwnJobs puts a job of another model into its queue without running it,
// as it is for a moment when one is submitted. A caller that comes then, and finds both
// ready, must not be held up by the other.
func TestCallersLeadTheirOwnJobs(t *testing.T) {
	s, h := New(Options{Executors: 2}), newHeld()
	slow := s.Add(&spy{run: h.run}, QueueOptions{}) // the first of two that have used as much
	quick := s.Add(&spy{}, QueueOptions{})
	other := job(nil, 1, 0, 0)
	if err := slow.check(other); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	err := slow.enter(context.Background(), other)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- quick.Do(context.Background(), job(nil, 2, 0, 0)) }()
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the caller waits for the batch of another model")
	}
	close(h.letGo)
	if err := slow.Wait(other); err != nil {
		t.Error(err)
	}
	empty(t, slow)
	empty(t, quick)
}

// TestCancelledJobs cancels jobs at random moments.
func TestCancelledJobs(t *testing.T) {
	s := New(Options{})
	q := s.Add(&spy{run: func([]*Job) { time.Sleep(50 * time.Microsecond) }}, QueueOptions{Rows: 4})
	table := NewSessions(s, SessionOptions{})
	defer table.Stop(Stopped)
	var all sync.WaitGroup
	for c := range 50 {
		n := open(t, table, q, Opening{})
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 3))
			for range 40 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(500))*time.Microsecond)
				j := job(n, 1, 0, 0)
				if r.IntN(2) == 0 {
					j.Session = nil
				}
				j.Client, j.Priority = strconv.Itoa(r.IntN(3)), r.IntN(5)
				_ = q.Do(ctx, j)
				cancel()
			}
		})
	}
	all.Wait()
	empty(t, q)
	if st := q.Stats(); st.Canceled == 0 || st.Succeeded == 0 {
		t.Errorf("the test is too tame: %+v", st)
	}
}

// TestWhoSharesABatch fills a queue with jobs of several kinds.
func TestWhoSharesABatch(t *testing.T) {
	p := &spy{}
	q := New(Options{Executors: 2}).Add(p, QueueOptions{Rows: 6, Latency: time.Hour})
	letGo, batches := busy(t, q, p, nil)
	r := rand.New(rand.NewPCG(1, 2))
	var all []*Job
	for range 200 {
		p.rows = 1 + r.IntN(8) // more than a batch has, too
		all = append(all, submitted(t, q, strconv.Itoa(r.IntN(4)), job(nil, 1, 0, r.Int64N(3), 1+r.Int64N(40)))...)
	}
	letGo()
	await(t, q, all)
	shared := 0
	for _, b := range batches() {
		rows := 0
		for _, j := range b {
			rows += j.Rows
			if j.Key != b[0].Key || j.Alike > 2*b[0].Alike || b[0].Alike > 2*j.Alike {
				t.Errorf("jobs of keys %v, %v and lengths %d, %d share a batch", b[0].Key, j.Key, b[0].Alike, j.Alike)
			}
		}
		if rows > 6 && len(b) > 1 {
			t.Errorf("a batch of %d jobs has %d rows", len(b), rows)
		}
		if len(b) > 1 {
			shared++
		}
	}
	if shared < 10 {
		t.Errorf("only %d batches have several jobs", shared)
	}
	empty(t, q)
}

// TestBatchesKeepTheObjective makes jobs slow: batches must become small enough, and large
// again when jobs are fast.
func TestBatchesKeepTheObjective(t *testing.T) {
	var each atomic.Int64
	each.Store(int64(time.Millisecond))
	ready := make(chan struct{}) // closed when fast jobs are there, for batches to be full
	p := &spy{cost: 10}
	q := New(Options{Executors: 2}).Add(p, QueueOptions{Rows: 64, Latency: 20 * time.Millisecond, Jobs: 100000})
	var sizes []int
	var mu sync.Mutex
	p.run = func(jobs []*Job) {
		mu.Lock()
		sizes = append(sizes, len(jobs))
		mu.Unlock()
		if each.Load() == 0 {
			<-ready
		}
		time.Sleep(time.Duration(each.Load()) * time.Duration(len(jobs)))
	}
	mean := func(list []int) (m float64) {
		for _, n := range list {
			m += float64(n) / float64(len(list))
		}
		return m
	}
	await(t, q, submitted(t, q, "c", many(600, func(int) *Job { return job(nil, 1, 0, 0) })...))
	slow := mean(sizes[len(sizes)/2:])
	each.Store(0)
	all := submitted(t, q, "c", many(6000, func(int) *Job { return job(nil, 1, 0, 0) })...)
	close(ready)
	await(t, q, all)
	fast := mean(sizes[len(sizes)*3/4:])
	// At most 10 ms at 1 ms and more for each; sleeps are long on a busy machine.
	if slow > 12 || fast < 48 {
		t.Errorf("batches of slow jobs have %.1f rows, of fast ones %.1f; want at most 10, and up to 64", slow, fast)
	}
}

// TestLimitRises lets batches that are small by the limit become large again, also if one job
// costs so much that no batch comes near the limit.
func TestLimitRises(t *testing.T) {
	for _, cost := range []float64{1, 10, 27, 40} {
		p := &spy{cost: cost}
		q := New(Options{Executors: 2}).Add(p, QueueOptions{Rows: 64, Latency: time.Minute})
		letGo, batches := busy(t, q, p, nil)
		q.lanes[1].limit = 28.4
		all := submitted(t, q, "c", many(800, func(int) *Job { return job(nil, 1, 0, 0) })...)
		letGo()
		await(t, q, all)
		if b := batches(); len(b[0]) > int(28.4/min(cost, 28.4)) || len(b[len(b)-2]) != 64 {
			t.Errorf("with a cost of %v the first batch has %d jobs, the last but one %d", cost, len(b[0]), len(b[len(b)-2]))
		}
	}
}

// TestSlowBeginning has a first run that takes long, as that in which a graph is planned: the
// objective must hold for the batches after it.
func TestSlowBeginning(t *testing.T) {
	l := &lane{q: &Queue{o: QueueOptions{Latency: 20 * time.Millisecond}}}
	l.learn(10, 10, time.Second, false)
	jobs := 64.0
	run := func(each time.Duration, fixed time.Duration) {
		l.learn(10*jobs, 10, fixed+time.Duration(jobs*float64(each)), l.limit > 0)
		if jobs = 64; l.limit > 0 {
			jobs = min(64, max(1, math.Floor(l.limit/10)))
		}
	}
	for range 40 {
		run(time.Millisecond, 0)
	}
	if jobs > 12 {
		t.Errorf("batches have %v jobs of a millisecond each, want at most 10 and sometimes a little more", jobs)
	}
	// Of jobs that alone take longer than the objective allows, as many as take twice as long.
	for range 100 {
		run(time.Millisecond, 30*time.Millisecond)
	}
	if jobs < 20 || jobs > 40 {
		t.Errorf("batches have %v jobs that take 31 milliseconds alone and one more for each other, want about 32", jobs)
	}
}

// TestNothingCosts has jobs without a cost, by which times are divided.
func TestNothingCosts(t *testing.T) {
	s := New(Options{Executors: 2})
	q := s.Add(&spy{cost: 0, run: func([]*Job) { time.Sleep(100 * time.Microsecond) }}, QueueOptions{})
	for range 10 {
		do(t, q, job(nil, 1, 0, 0))
	}
	if l := &q.lanes[1]; !(l.pace > 0 && l.pace < 1) {
		t.Errorf("the pace is %v", l.pace)
	}
}

// TestPanicOfOneRow has a job that makes the program panic among others of its batch, with and
// without sessions: only this one fails, with its session, and the states of the others are
// those after one step.
func TestPanicOfOneRow(t *testing.T) {
	for _, withSessions := range []bool{false, true} {
		p := &spy{}
		s := New(Options{Executors: 2})
		q := s.Add(p, QueueOptions{Latency: time.Hour})
		table := NewSessions(s, SessionOptions{})
		defer table.Stop(Stopped)
		var held *Session
		sessions := make([]*Session, 5)
		if withSessions {
			held = open(t, table, q, Opening{})
			for i := range sessions {
				sessions[i] = open(t, table, q, Opening{})
				do(t, q, job(sessions[i], int64(i+1), 5))
			}
		}
		letGo, batches := busy(t, q, p, held)
		var jobs []*Job
		for i, n := range sessions {
			x := int64(6)
			if i == 2 {
				x = poison
			}
			j := job(n, int64(i+1), x)
			j.Begin = withSessions && i == 4
			jobs = append(jobs, submitted(t, q, "a", j)...)
		}
		letGo()
		for i, j := range jobs {
			if i == 2 {
				wantCode(t, q.Wait(j), inference.Internal)
				continue
			}
			if err := q.Wait(j); err != nil {
				t.Fatalf("job %d: %v", i, err)
			}
			want := int64(1)
			if withSessions && i != 4 {
				want = 2
			}
			if j.Outputs[0].Ints[0] != int64(i+1) || j.Outputs[0].Ints[1] != want {
				t.Errorf("job %d: %v, want step %d", i, j.Outputs[0].Ints, want)
			}
		}
		if b := batches(); len(b) != 6 || len(b[0]) != 5 {
			t.Errorf("%d runs, the first of %d jobs; want one of 5 and 5 of one", len(b), len(b[0]))
		}
		if withSessions {
			for i, n := range sessions {
				if over := n.Over(); (over == Failed) != (i == 2) {
					t.Errorf("session %d: over %q", i, over)
				}
				if i != 2 {
					if _, steps, _ := n.Used(); steps != uint64(2-i/4) {
						t.Errorf("session %d has %d steps", i, steps)
					}
				}
			}
		}
		empty(t, q)
		if st := q.Stats(); st.Failed != 1 {
			t.Errorf("%d jobs failed", st.Failed)
		}
	}
}

// TestStoppedRun has a program that ends early when its batch is not wanted any more, which is
// when the last of its jobs is not.
func TestStoppedRun(t *testing.T) {
	began, parts := make(chan struct{}), make(chan struct{})
	stopped := make(chan int, 1)
	p := &stopping{run: func(ctx context.Context, jobs []*Job) {
		if len(jobs) == 1 {
			return
		}
		close(began)
		n := 0
		for range parts {
			if ctx.Err() != nil {
				break
			}
			n++
		}
		stopped <- n
		for _, j := range jobs {
			j.Err = inference.AsError(ctx.Err())
		}
	}}
	s := New(Options{Executors: 1})
	q := s.Add(p, QueueOptions{Latency: time.Hour})
	letGo, _ := busy(t, q, &p.spy, nil)
	var cancels []context.CancelFunc
	var jobs []*Job
	for i := range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		j := job(nil, int64(i+1), 0)
		if err := q.Submit(ctx, j); err != nil {
			t.Fatal(err)
		}
		cancels, jobs = append(cancels, cancel), append(jobs, j)
	}
	letGo()
	<-began
	next := submitted(t, q, "b", job(nil, 9, 1))
	for i, cancel := range cancels {
		parts <- struct{}{}
		cancel()
		wantCode(t, q.Wait(jobs[i]), inference.Canceled)
	}
	for n := 0; n == 0; { // the last cancellation may take a moment to arrive
		select {
		case parts <- struct{}{}:
		case n = <-stopped:
			if n < 2 {
				t.Errorf("it ended after %d parts, before the last cancellation", n)
			}
		}
	}
	await(t, q, next)
	empty(t, q)
	if st := q.Stats(); st.Canceled != 3 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// stopping is a spy whose runs see their context.
type stopping struct {
	spy
	run func(context.Context, []*Job)
}

func (p *stopping) Run(ctx context.Context, jobs []*Job) {
	p.spy.Run(ctx, jobs)
	p.run(ctx, jobs)
}

// TestPanics runs a program that panics: its job fails, the session in it ends, and
// everything else goes on.
func TestPanics(t *testing.T) {
	s := New(Options{})
	q := s.Add(&spy{}, QueueOptions{})
	table := NewSessions(s, SessionOptions{})
	defer table.Stop(Stopped)
	for range 20 {
		a, b := open(t, table, q, Opening{}), open(t, table, q, Opening{})
		do(t, q, job(a, 1, 5))
		do(t, q, job(b, 2, 6))
		bad := job(a, 1, poison)
		wantCode(t, q.Do(context.Background(), bad), inference.Internal)
		err := q.Do(context.Background(), job(a, 1, 5))
		wantCode(t, err, inference.NotFound)
		if !strings.Contains(err.Error(), string(Failed)) {
			t.Errorf("got %v", err)
		}
		j := job(b, 2, 7)
		do(t, q, j)
		if j.Outputs[0].Ints[1] != 2 {
			t.Errorf("the other session counts %v", j.Outputs)
		}
		b.End(Ended)
	}
	wantCode(t, q.Do(context.Background(), job(nil, 1, poison)), inference.Internal)
	do(t, q, job(nil, 1, 1))
	empty(t, q)
	if n, _ := table.Count(nil); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestFailingJob has a job that fails among others of its batch.
func TestFailingJob(t *testing.T) {
	p := &spy{}
	q := New(Options{Executors: 2}).Add(p, QueueOptions{Latency: time.Hour})
	letGo, batches := busy(t, q, p, nil)
	good := submitted(t, q, "a", job(nil, 1, 1), job(nil, 1, 2))
	bad := submitted(t, q, "a", job(nil, 1, refuse))
	good = append(good, submitted(t, q, "a", job(nil, 1, 3))...)
	letGo()
	await(t, q, good)
	wantCode(t, q.Wait(bad[0]), inference.Invalid)
	if b := batches(); len(b) != 1 || len(b[0]) != 4 {
		t.Errorf("the jobs were in %d batches", len(b))
	}
}

func TestClose(t *testing.T) {
	p := &spy{}
	s := New(Options{})
	q := s.Add(p, QueueOptions{})
	letGo, _ := busy(t, q, p, nil)
	accepted := submitted(t, q, "a", job(nil, 1, 1))
	short, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
	defer cancel()
	if err := q.Quiet(short); err != context.DeadlineExceeded {
		t.Errorf("Quiet of a busy queue: %v", err)
	}
	if err := q.Close(short); err != context.DeadlineExceeded {
		t.Errorf("Close of a busy queue: %v", err)
	}
	wantCode(t, q.Do(context.Background(), job(nil, 1, 1)), inference.Unavailable)
	again := make(chan error, 2)
	for range 2 {
		go func() { again <- q.Close(context.Background()) }()
	}
	select {
	case <-again:
		t.Error("a second Close does not wait")
	case <-time.After(20 * time.Millisecond):
	}
	if p.closed.Load() != 0 {
		t.Error("the program is closed while it runs")
	}
	letGo()
	await(t, q, accepted) // which was accepted before
	for range 2 {
		if err := <-again; err != nil {
			t.Error(err)
		}
	}
	if p.closed.Load() != 1 {
		t.Errorf("the program was closed %d times", p.closed.Load())
	}
	if len(s.lanes) != 0 {
		t.Errorf("%d lanes are left", len(s.lanes))
	}
}

// TestModelsShareTheMachine floods one model and asks another now and then.
func TestModelsShareTheMachine(t *testing.T) {
	s := New(Options{Executors: 1})
	var mu sync.Mutex
	var order []byte
	note := func(name byte) func([]*Job) {
		return func([]*Job) {
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			time.Sleep(200 * time.Microsecond)
		}
	}
	a, b := &spy{}, &spy{run: note('b')}
	qa, qb := s.Add(a, QueueOptions{Rows: 1}), s.Add(b, QueueOptions{Rows: 1, Share: 3})
	letGo, _ := busy(t, qa, a, nil)
	held := a.run
	a.run = func(jobs []*Job) { held(jobs); note('a')(jobs) }
	all := submitted(t, qa, "c", many(200, func(int) *Job { return job(nil, 1, 0) })...)
	others := submitted(t, qb, "c", many(60, func(int) *Job { return job(nil, 1, 0) })...)
	letGo()
	await(t, qa, all)
	await(t, qb, others)
	// b has three quarters of the time while it has jobs: 60 of about the first 80 batches.
	if n := strings.Count(string(order[:100]), "b"); n < 50 {
		t.Errorf("%d of the first 100 batches are of the model with three quarters: %s", n, order[:100])
	}
}

// TestConnections: a connection with many jobs does not hold up another of the same client.
func TestConnections(t *testing.T) {
	s, p := New(Options{}), &spy{}
	q := s.Add(p, QueueOptions{Rows: 2})
	table := NewSessions(s, SessionOptions{})
	defer table.Stop(Stopped)
	letGo, batches := busy(t, q, p, open(t, table, q, Opening{}))
	submit := func(conn string) *Job {
		j := job(open(t, table, q, Opening{}), 1, 0)
		j.Client, j.Conn = "client", conn
		if err := q.Submit(context.Background(), j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	var jobs []*Job
	for range 6 {
		jobs = append(jobs, submit("many"))
	}
	jobs = append(jobs, submit("one"), submit("other"), submit("one"))
	letGo()
	for _, j := range jobs {
		if err := q.Wait(j); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, batch := range batches() {
		for _, j := range batch {
			got = append(got, j.Conn)
		}
	}
	if want := []string{"many", "one", "other", "many", "one", "many", "many", "many", "many"}; !slices.Equal(got, want) {
		t.Errorf("connections in the order %v, want %v", got, want)
	}
}
