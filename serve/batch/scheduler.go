package batch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
)

// Scheduler divides the machine among the queues of several programs.
//
// A caller whose job can start at once runs the batch itself, so that a single stream
// never waits for another goroutine; what is left behind it is handed to a new one. A
// free executor goes to the queue that has used the least time.
type Scheduler struct {
	mu        sync.Mutex
	executors int // that may run at the same time
	busy      int
	long      int // batches that run and are expected to take long; see crowded
	lanes     []*lane
	clock     time.Duration // time used of the lane that was served last
}

// Options are the options of [New].
type Options struct {
	// Executors is the number of batches that run at the same time; 0: the number of
	// cores, at least 2, so that one long batch does not hold up short ones.
	Executors int
}

// New returns a scheduler without queues.
func New(o Options) *Scheduler {
	if o.Executors <= 0 {
		o.Executors = max(2, runtime.GOMAXPROCS(0))
	}
	return &Scheduler{executors: o.Executors}
}

// QueueOptions are the options of a program's queue; zeros are the defaults.
type QueueOptions struct {
	// Rows is the largest number of rows of a batch. 0: 256.
	Rows int
	// Latency is the objective for the time from the arrival of a job to its answer: a
	// batch, for whose end a job may wait, is made smaller until it takes at most half
	// of this. 0: 50 ms.
	Latency time.Duration
	// Jobs is the number of jobs that may wait, Client that of one client; further ones
	// are refused. 0: 4096, and a quarter of Jobs.
	Jobs, Client int
	// Share is the queue's part of the machine beside other queues. 0: 1.
	Share float64
	// OnBatch, if not nil, is called after each batch.
	OnBatch func(rows int, took time.Duration)
	// Log, if not nil, is told of programs that panic.
	Log *slog.Logger
	// Owner is the caller's, such as the model that the program is a version of.
	Owner any
}

// longRun is the time from which a batch counts as long: one executor is kept free of these,
// if there are several.
const longRun = 5 * time.Millisecond

// Queue is the jobs of one program.
type Queue struct {
	Program Program
	Owner   any // that of the options

	s       *Scheduler
	o       QueueOptions
	lanes   [2]lane // of sessions' steps, of other jobs
	waiting int     // jobs, also those behind others of their session
	clients map[string]int
	closed  chan struct{} // nil: open; closed when the program is
	idle    *sync.Cond    // signalled when a job ends
	active  int           // jobs that have not ended
	kept    int           // sessions, and the memory of their states
	bytes   int
	stats   Stats
	sizes   map[int]SizeStats
}

// Stats are sums since a queue was made. Rows divided by Batches is the mean batch.
type Stats struct {
	Succeeded, Failed, Refused, Canceled uint64 // jobs
	Rows, Batches                        uint64
	Queued                               time.Duration // of jobs that succeeded, from their arrival to their batch
	Computed                             time.Duration // of these, the time of their batches
	FailedFor                            time.Duration // of jobs that failed, from arrival to end
	Last                                 time.Time     // when the last batch ended
	Waiting                              int           // now
}

// SizeStats are the batches of one number of rows, and the time that they took.
type SizeStats struct {
	Batches uint64
	Took    time.Duration
}

// mostSizes is the number of batch sizes that are counted: clients choose the rows of a request.
const mostSizes = 1024

// lane is jobs of a queue that run one batch at a time: a session's steps do not wait
// for whole sequences.
type lane struct {
	q       *Queue
	levels  []*level // by rising priority
	jobs    int
	running int
	most    int           // batches at a time
	used    time.Duration // divided by the queue's share
	limit   float64       // cost of a batch, as the objective for latency allows; 0: not known
	pace    float64       // seconds for a unit of cost, of the last batches
	single  float64       // likewise, of those of one job
	singles int           // of which there were
	spare   *set          // of the last batch, to be used again

	came     uint64  // jobs in all
	tries    int     // of comeBack
	returned float64 // the part of callers that came back, of the last tries
}

// set is the jobs of a batch.
type set struct {
	l    *lane
	jobs []*Job
	rows int
	cost float64
	long bool
	kept bool // small by the lane's limit
}

// level is jobs of one priority: those of each client in their order, clients in turn.
type level struct {
	priority int
	tenants  map[string]*tenant
	turn     *tenant // whose turn it is, in a ring
}

type tenant struct {
	list
	name       string
	conns      map[string]int // jobs that wait, by connection
	round      uint64         // of the job taken last
	prev, next *tenant
}

// Add returns a queue for a program.
func (s *Scheduler) Add(p Program, o QueueOptions) *Queue {
	o.Rows = either(o.Rows, 256)
	o.Latency = either(o.Latency, 50*time.Millisecond)
	o.Jobs = either(o.Jobs, 4096)
	o.Client = either(o.Client, max(1, o.Jobs/4))
	o.Share = either(o.Share, 1)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	q := &Queue{Program: p, Owner: o.Owner, s: s, o: o, clients: map[string]int{}, sizes: map[int]SizeStats{}, idle: sync.NewCond(&s.mu)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range q.lanes {
		q.lanes[i].q = q
		q.lanes[i].most, q.lanes[i].returned = 1, 1
		if !p.Batched() {
			q.lanes[i].most = s.executors
		}
		s.lanes = append(s.lanes, &q.lanes[i])
	}
	return q
}

// Queues returns the queues whose programs are not closed yet.
func (s *Scheduler) Queues() (list []*Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		if l == &l.q.lanes[0] {
			list = append(list, l.q)
		}
	}
	return list
}

func either[T int | float64 | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Do runs a job and returns when it has ended, or with an error when it is refused or
// ctx ends before; then a job that runs already goes on, unless it is of a session, whose
// state must be known: its end is waited for. Errors are those of the program's Check and
// Run; inference.Exhausted if too many wait; Unavailable from a closed queue; NotFound if
// the session ended before.
func (q *Queue) Do(ctx context.Context, j *Job) error {
	if err := q.check(j); err != nil {
		return err
	}
	return q.do(ctx, j)
}

// check checks a job.
func (q *Queue) check(j *Job) error {
	if err := q.Program.Check(j); err != nil {
		q.s.mu.Lock()
		q.stats.Failed++
		q.s.mu.Unlock()
		return err
	}
	j.Rows = max(1, j.Rows)
	if !(j.Cost > 0) {
		j.Cost = 1 // times are divided by it
	}
	return nil
}

func (q *Queue) do(ctx context.Context, j *Job) error {
	s := q.s
	s.mu.Lock()
	if err := q.enter(ctx, j); err != nil {
		s.mu.Unlock()
		return err
	}
	var own *set
	for b := s.start(); b != nil; b = s.start() {
		if slices.Contains(b.jobs, j) {
			own = b
		} else { // of a job that was submitted just now, perhaps to a model that takes long
			go s.lead(b, false)
		}
	}
	switch {
	case own == nil:
	case own.long && j.Session == nil && ctx.Done() != nil:
		go s.lead(own, false) // the caller may have to leave before it ends
	default:
		s.mu.Unlock()
		s.lead(own, true)
		s.mu.Lock()
	}
	return s.wait(j)
}

// Submit gives a job its place, among those of its session the last, and does not wait for
// it: that is Wait, which must follow. Jobs that are submitted in turn run in this order if
// they are of one session. Errors are those of Do for a job that is refused.
func (q *Queue) Submit(ctx context.Context, j *Job) error {
	if err := q.check(j); err != nil {
		return err
	}
	q.s.mu.Lock()
	err := q.enter(ctx, j)
	q.s.mu.Unlock()
	if err == nil {
		q.s.proceed()
	}
	return err
}

// Wait returns when a job that was submitted has ended, with the errors of Do.
func (q *Queue) Wait(j *Job) error {
	q.s.mu.Lock()
	return q.s.wait(j)
}

// enter admits a job and lets it run when its turn comes.
func (q *Queue) enter(ctx context.Context, j *Job) error {
	j.ctx, j.Queued = ctx, time.Now()
	j.lane = &q.lanes[1]
	if j.Session != nil {
		j.lane = &q.lanes[0]
	}
	if err := q.admit(j); err != nil {
		q.stats.Refused++
		return err
	}
	if j.Session == nil || j.Session.take(j) {
		q.s.begin(j)
	}
	return nil
}

// wait waits for a job. It is called with the lock held and returns without it.
func (s *Scheduler) wait(j *Job) error {
	ctx := j.ctx
	if j.settled() {
		s.mu.Unlock()
		return j.end(s)
	}
	j.ready = make(chan struct{}, 1)
	s.mu.Unlock()
	select {
	case <-j.ready:
	case <-ctx.Done():
		s.mu.Lock()
		switch {
		case j.at == waits || j.at == queued:
			s.giveUp(j)
			s.mu.Unlock()
			s.proceed()
			return late(ctx)
		case j.at == running && j.Session == nil && j.alone == nil:
			s.mu.Unlock()
			return late(ctx)
		}
		s.mu.Unlock()
		<-j.ready
	}
	return j.end(s)
}

// settled reports whether nothing of a job is left to do but what its caller does itself.
func (j *Job) settled() bool { return j.at == finished || j.at == running && j.alone != nil }

// end returns the error of a job that ended, or runs one that needs no executor.
func (j *Job) end(s *Scheduler) error {
	if j.alone != nil && j.at == running {
		defer func() { // also if it panics, since the session's other jobs wait
			s.mu.Lock()
			s.finish(j)
			s.mu.Unlock()
			s.proceed()
		}()
		j.alone()
	}
	return j.Err
}

// proceed runs what an event has made possible, on goroutines of its own.
func (s *Scheduler) proceed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for batch := s.start(); batch != nil; batch = s.start() {
		go s.lead(batch, false)
	}
}

// late is the error of a job whose context has ended.
func late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return inference.Errorf(inference.Deadline, "the request's time ran out before it was computed")
	}
	return inference.Errorf(inference.Canceled, "the client went away before its request was computed")
}

func (q *Queue) admit(j *Job) error {
	switch {
	case q.closed != nil:
		return inference.Errorf(inference.Unavailable, "the model is being unloaded; ask again or use another version")
	case j.Session != nil && j.Session.over != "":
		return j.Session.gone()
	case j.alone != nil:
	case q.waiting >= q.o.Jobs:
		return &inference.Error{Code: inference.Exhausted, RetryAfter: 1, Msg: fmt.Sprintf("%d requests wait for the model already; try again later", q.waiting)}
	case q.clients[j.Client] >= q.o.Client:
		return &inference.Error{Code: inference.Exhausted, RetryAfter: 1, Msg: fmt.Sprintf("%d requests of this client wait for the model already; wait for answers before sending more", q.clients[j.Client])}
	}
	j.lane.came++
	q.active++
	q.waiting++
	q.clients[j.Client]++
	return nil
}

// leaves notes that a job no longer waits.
func (q *Queue) leaves(j *Job) {
	q.waiting--
	if q.clients[j.Client]--; q.clients[j.Client] == 0 {
		delete(q.clients, j.Client)
	}
}

// begin lets a job run that nothing of its session is before.
func (s *Scheduler) begin(j *Job) {
	if j.alone != nil {
		j.at = running
		j.lane.q.leaves(j)
		if j.ready != nil {
			j.ready <- struct{}{}
		}
		return
	}
	j.at = queued
	j.lane.push(j)
}

func (l *lane) push(j *Job) {
	if l.jobs == 0 && l.running == 0 {
		l.used = max(l.used, l.q.s.clock) // time that it did not use is not saved up
	}
	l.jobs++
	i := 0
	for i < len(l.levels) && l.levels[i].priority < j.Priority {
		i++
	}
	if i == len(l.levels) || l.levels[i].priority != j.Priority {
		l.levels = append(l.levels, nil)
		copy(l.levels[i+1:], l.levels[i:])
		l.levels[i] = &level{priority: j.Priority, tenants: map[string]*tenant{}}
	}
	lv := l.levels[i]
	t := lv.tenants[j.Client]
	if t == nil {
		t = &tenant{name: j.Client, conns: map[string]int{}}
		lv.tenants[j.Client] = t
		if lv.turn == nil {
			t.prev, t.next, lv.turn = t, t, t
		} else { // the last in the ring
			t.prev, t.next = lv.turn.prev, lv.turn
			t.prev.next, t.next.prev = t, t
		}
	}
	t.push(j)
}

// push puts a job behind the client's jobs of its round: the first that waits of each
// connection is of this round, the second of the next, so that a connection with many
// does not hold up another of the same client.
func (t *tenant) push(j *Job) {
	j.round = t.round + uint64(t.conns[j.Conn])
	t.conns[j.Conn]++
	if t.first == nil || t.last.round <= j.round {
		t.insert(t.last, j)
		return
	}
	var before *Job
	for k := t.first; k.round <= j.round; k = k.next {
		before = k
	}
	t.insert(before, j)
}

// start returns a batch of the lane that may run and has used the least time; nil if
// there is none or no executor is free.
func (s *Scheduler) start() *set {
	for s.busy < s.executors {
		var best *lane
		for _, l := range s.lanes {
			if l.ready() && (best == nil || l.used < best.used) {
				best = l
			}
		}
		if best == nil {
			return nil
		}
		if b := best.pick(); b != nil {
			b.long = !best.short(b.cost)
			if b.long {
				s.long++
			}
			s.busy++
			best.running++
			s.clock = max(s.clock, best.used)
			return b
		}
	}
	return nil
}

// ready reports whether a batch of the lane may start while an executor is free.
func (l *lane) ready() bool {
	return l.jobs > 0 && l.running < l.most && (!l.q.s.crowded() || l.short(l.first().Cost))
}

// crowded reports whether as many long batches run as may: all executors but one, or one.
func (s *Scheduler) crowded() bool { return s.long >= max(1, s.executors-1) }

// short reports whether a batch of a cost is not expected to take long.
func (l *lane) short(cost float64) bool { return cost*l.pace < longRun.Seconds() }

// first returns a job of the next batch.
func (l *lane) first() *Job {
	for _, lv := range l.levels {
		if lv.turn != nil {
			return lv.turn.first
		}
	}
	return nil
}

// pick takes the jobs of the next batch from the lane; nil if none of them is wanted any
// more.
func (l *lane) pick() *set {
	b, now := l.spare, time.Now()
	if l.spare = nil; b == nil {
		b = &set{l: l}
	}
	b.jobs, b.rows, b.cost, b.kept = b.jobs[:0], 0, 0, false
	var head *Job
	for _, lv := range l.levels {
		t, led := lv.turn, head == nil
		for missed := 0; t != nil && missed < len(lv.tenants) && (head == nil || l.fits(b)); {
			j, next := t.find(head, b, l), t.next
			if j == nil {
				missed++
				t = next
				continue
			}
			missed = 0
			l.jobs--
			if t.first == nil {
				if lv.remove(t); lv.turn == nil {
					next = nil
				}
			}
			l.q.leaves(j)
			if j.ctx.Err() != nil {
				j.Err = late(j.ctx)
				l.q.stats.Canceled++
				l.q.s.over(j)
				t = next
				if t == nil {
					t = lv.turn // the session's next job came in its place
				}
				continue
			}
			j.at, j.Started = running, now
			b.jobs, b.rows, b.cost = append(b.jobs, j), b.rows+j.Rows, b.cost+j.Cost
			if head == nil {
				// The client behind the one whose job decides what fits is the next to do so:
				// jobs that fit no other's would wait for ever if it were left to chance.
				head, lv.turn = j, next
			}
			t = next
			if !l.q.Program.Batched() {
				break
			}
		}
		if head != nil && !l.q.Program.Batched() {
			break
		}
		if !led && t != nil {
			lv.turn = t
		}
	}
	l.levels = slices.DeleteFunc(l.levels, func(lv *level) bool { return lv.turn == nil && lv.priority != 0 })
	b.kept = b.kept || l.jobs > 0 && l.limit > 0 && b.cost >= l.limit
	if head == nil {
		l.spare = b
		return nil
	}
	return b
}

// fits reports whether a batch has room for any job.
func (l *lane) fits(b *set) bool {
	return b.rows < l.q.o.Rows && (l.limit <= 0 || b.cost < l.limit)
}

// find takes a client's first job that fits a batch.
func (t *tenant) find(head *Job, b *set, l *lane) *Job {
	crowded := l.q.s.crowded()
	var before *Job
	for j, n := t.first, 0; j != nil && n < 64; before, j, n = j, j.next, n+1 {
		if head != nil && (j.Key != head.Key || b.rows+j.Rows > l.q.o.Rows || j.Alike > 2*head.Alike || head.Alike > 2*j.Alike) ||
			crowded && !l.short(b.cost+j.Cost) {
			continue
		}
		if head != nil && l.limit > 0 && b.cost+j.Cost > l.limit {
			b.kept = true
			continue
		}
		t.cut(before)
		t.took(j)
		t.round = max(t.round, j.round)
		return j
	}
	return nil
}

// took notes that a job was removed.
func (t *tenant) took(j *Job) {
	if t.conns[j.Conn]--; t.conns[j.Conn] == 0 {
		delete(t.conns, j.Conn)
	}
}

func (lv *level) remove(t *tenant) {
	delete(lv.tenants, t.name)
	if t.next == t {
		lv.turn = nil
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	if lv.turn == t {
		lv.turn = t.next
	}
}

// giveUp removes a job that does not run yet.
func (s *Scheduler) giveUp(j *Job) {
	l := j.lane
	if j.at == waits {
		j.Session.waiting.remove(j)
		l.q.leaves(j)
		l.q.stats.Canceled++
		l.q.left()
		j.at = finished
		return
	}
	for _, lv := range l.levels {
		t := lv.tenants[j.Client]
		if lv.priority != j.Priority || t == nil {
			continue
		}
		if t.remove(j) {
			if t.took(j); t.first == nil {
				lv.remove(t)
			}
			break
		}
	}
	l.levels = slices.DeleteFunc(l.levels, func(lv *level) bool { return lv.turn == nil && lv.priority != 0 })
	l.jobs--
	l.q.leaves(j)
	l.q.stats.Canceled++
	j.Err, j.ready = late(j.ctx), nil
	s.over(j)
}

// lead runs a batch and those that follow it; once says that the caller has a job in it, so
// that those that follow are left to another goroutine.
func (s *Scheduler) lead(b *set, once bool) {
	for b != nil {
		l := b.l
		l.q.run(b.jobs)
		ended := time.Now()
		took := ended.Sub(b.jobs[0].Started)
		if l.q.o.OnBatch != nil {
			l.q.o.OnBatch(b.rows, took)
		}

		s.mu.Lock()
		if b.long {
			s.long--
		}
		l.used += time.Duration(float64(took) / l.q.o.Share)
		heaviest := 0.0
		for _, j := range b.jobs {
			heaviest = max(heaviest, j.Cost)
		}
		l.learn(b.cost, heaviest, took, b.kept)
		l.q.stats.Rows += uint64(b.rows)
		l.q.stats.Batches++
		if sum, ok := l.q.sizes[b.rows]; ok || len(l.q.sizes) < mostSizes {
			l.q.sizes[b.rows] = SizeStats{sum.Batches + 1, sum.Took + took}
		}
		l.q.stats.Last = ended
		answered := len(b.jobs)
		for i, j := range b.jobs {
			j.Finished, j.Batch = ended, b.rows
			if j.broken && j.Session != nil {
				j.Session.close(Failed)
			}
			s.finish(j)
			b.jobs[i] = nil
		}
		l.spare = b
		before := l.came
		expect := l.expects(answered)
		if !expect && !s.waits() {
			s.busy--
			l.running--
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if once {
			go func() { s.lead(s.again(l, expect, before, answered, took), false) }()
			return
		}
		b = s.again(l, expect, before, answered, took)
	}
}

// waits reports whether some lane has jobs.
func (s *Scheduler) waits() bool {
	for _, l := range s.lanes {
		if l.jobs > 0 {
			return true
		}
	}
	return false
}

// again returns the batch that follows one of the lane; nil if there is none.
func (s *Scheduler) again(l *lane, expect bool, before uint64, answered int, took time.Duration) *set {
	if expect {
		s.comeBack(l, before, answered, took)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	l.running--
	b := s.start()
	if b != nil {
		// Others may be able to run beside it, such as a batch that waited for a long one.
		for more := s.start(); more != nil; more = s.start() {
			go s.lead(more, false)
		}
	}
	return b
}

// expects reports whether callers that were just answered are likely to come back at once.
func (l *lane) expects(answered int) bool {
	if answered == 1 && l.jobs == 0 || l.jobs >= answered {
		return false // a single stream, or a batch as large as the last
	}
	l.tries++
	return l.returned >= 0.25 || l.tries%16 == 0
}

// comeBack lets the callers whose answers have just been given run first, while they come back
// one after the other: those of a stream in this process do so at once, and without this
// they would be in the batch after the next for ever. It is left out while they do not
// come, as over a network.
func (s *Scheduler) comeBack(l *lane, before uint64, answered int, took time.Duration) {
	began := time.Now()
	patience := min(max(took/32, 5*time.Microsecond), 100*time.Microsecond)
	until, last := began.Add(patience), began.Add(took/2)
	came := 0
	for now := began; came < answered && now.Before(until) && now.Before(last); now = time.Now() {
		runtime.Gosched()
		s.mu.Lock()
		n := int(l.came - before)
		s.mu.Unlock()
		if n > came {
			came, until = n, now.Add(patience)
		}
	}
	s.mu.Lock()
	l.returned += (min(1, float64(came)/float64(answered)) - l.returned) / 4
	s.mu.Unlock()
}

// learn adapts the size of batches to the time that one took; kept says that the limit left
// out jobs. Where a job alone takes longer than the objective allows, a batch may take twice
// as long: it then serves many in the time of two.
func (l *lane) learn(cost, heaviest float64, took time.Duration, kept bool) {
	seconds := took.Seconds()
	if l.pace == 0 {
		l.pace = seconds / cost
	}
	l.pace += (seconds/cost - l.pace) / 8
	if cost == heaviest {
		l.singles++
		if x := seconds / cost; l.singles == 1 || x < l.single {
			l.single = x
		} else {
			l.single += (x - l.single) / 8
		}
	}
	most := l.q.o.Latency.Seconds() / 2
	if l.singles > 1 { // the first run of a model may take long, since it is planned
		most = max(most, 2*l.single*heaviest)
	}
	switch {
	case seconds > most:
		l.limit = max(1, 0.75*cost)
	case kept:
		l.limit *= 1.125
	}
}

// run computes a batch. If the program panics, its jobs are computed one by one, so that only
// the one at fault fails.
func (q *Queue) run(batch []*Job) {
	for _, j := range batch {
		if j.Session != nil && j.Begin {
			j.Session.renew()
		}
	}
	compute := func(jobs []*Job) {
		ctx, stop := together(jobs)
		defer stop()
		q.Program.Run(ctx, jobs)
	}
	if len(batch) == 1 || guarded(q.o.Log, func() { compute(batch) }) != nil {
		for i, j := range batch {
			j.Err, j.Outputs = nil, nil
			j.Compute(func() error { compute(batch[i : i+1]); return j.Err })
		}
	}
	for _, j := range batch {
		if j.Err != nil && j.ctx.Err() != nil {
			if code := inference.AsError(j.Err).Code; code == inference.Canceled || code == inference.Deadline {
				j.Err, j.late = late(j.ctx), true
			}
		}
	}
	q.keep(batch)
}

// Compute sets Err to what f returns, which computes this job alone and may change the state of
// its session. If f panics, only this job fails, and the state, which is not known then, is
// lost.
func (j *Job) Compute(f func() error) {
	log := slog.New(slog.DiscardHandler)
	if j.lane != nil {
		log = j.lane.q.o.Log
	}
	var err error
	if problem := guarded(log, func() { err = f() }); problem != nil {
		err, j.broken = problem, true
	}
	j.Err = err
}

// guarded calls f, which runs a program, and returns what it panics with as an error.
func guarded(log *slog.Logger, f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *inference.Error: // such as that memory was refused
			err = r
		default:
			log.Error("a model failed", "problem", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = inference.Errorf(inference.Internal, "the model failed on this request: %v", r)
		}
	}()
	return tensor.Catch(f)
}

// keep counts the steps of sessions and stores their states, before they are answered.
func (q *Queue) keep(batch []*Job) {
	if batch[0].Session == nil {
		return // as in all of a lane
	}
	q.s.mu.Lock()
	for _, j := range batch {
		if j.Err == nil {
			j.Session.steps++
		}
	}
	q.s.mu.Unlock()
	for _, j := range batch {
		if j.Err != nil || j.End {
			continue
		}
		if err := j.Session.keep(); err != nil {
			q.o.Log.Error("the state of a session cannot be stored", "model", j.Session.key.model, "problem", err.Error())
			j.Session.End(Unstored)
			j.Err = j.Session.gone()
		}
	}
}

// together returns a context that is cancelled when the contexts of all jobs are.
func together(batch []*Job) (context.Context, func()) {
	if len(batch) == 1 {
		if batch[0].Session != nil {
			return context.WithoutCancel(batch[0].ctx), func() {} // a step is short, and its state must be known
		}
		return batch[0].ctx, func() {}
	}
	for _, j := range batch {
		if j.Session != nil || j.ctx.Done() == nil {
			return context.Background(), func() {}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	left := len(batch)
	stops := make([]func() bool, len(batch))
	for i, j := range batch {
		stops[i] = context.AfterFunc(j.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// finish notes the end of a job that ran.
func (s *Scheduler) finish(j *Job) {
	q := j.lane.q
	if j.alone == nil {
		switch {
		case j.late:
			q.stats.Canceled++
		case j.Err == nil:
			q.stats.Succeeded++
			q.stats.Queued += j.Started.Sub(j.Queued)
			q.stats.Computed += j.Finished.Sub(j.Started)
		default:
			q.stats.Failed++
			q.stats.FailedFor += j.Finished.Sub(j.Queued)
		}
	}
	if j.Session != nil {
		j.Session.resized()
		if j.End && j.Err == nil {
			j.Session.close(Ended)
		}
	}
	s.over(j)
}

// over tells a job's caller that it has ended and lets the next job of its session run.
func (s *Scheduler) over(j *Job) {
	j.at = finished
	j.follow(s)
	if j.ready != nil && j.alone == nil {
		j.ready <- struct{}{}
	}
	j.lane.q.left()
}

// follow lets the next job of a session run.
func (j *Job) follow(s *Scheduler) {
	if j.Session == nil {
		return
	}
	for next := j.Session.give(); next != nil; next = j.Session.give() {
		if next.alone == nil && j.Session.over != "" {
			next.at, next.Err = finished, j.Session.gone()
			q := next.lane.q
			q.leaves(next)
			q.stats.Failed++
			if next.ready != nil {
				next.ready <- struct{}{}
			}
			q.left()
			continue
		}
		s.begin(next)
		return
	}
}

// left notes that a job has ended.
func (q *Queue) left() {
	q.active--
	q.idle.Broadcast()
}

// Options returns the queue's options, with the defaults filled in.
func (q *Queue) Options() QueueOptions { return q.o }

// Stats returns the queue's statistics.
func (q *Queue) Stats() Stats {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	st := q.stats
	st.Waiting = q.waiting
	return st
}

// Sizes returns the statistics of batches by their rows, of the first 1024 numbers of rows that
// came.
func (q *Queue) Sizes() map[int]SizeStats {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	return maps.Clone(q.sizes)
}

// Quiet waits until no job waits or runs, or returns the error of ctx.
func (q *Queue) Quiet(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		q.s.mu.Lock()
		defer q.s.mu.Unlock()
		q.idle.Broadcast()
	})
	defer stop()
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	for q.active > 0 && ctx.Err() == nil {
		q.idle.Wait()
	}
	return ctx.Err()
}

// Close refuses further jobs, waits until those accepted have ended, and closes the
// program. Sessions of the queue must have been ended before. If ctx ends first, Close
// returns its error and the program is closed when the last job has ended. A second call
// waits as well.
func (q *Queue) Close(ctx context.Context) error {
	q.s.mu.Lock()
	q.refuse()
	closed := q.closed
	q.s.mu.Unlock()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CloseUnused begins what Close does, unless the queue has sessions, and does not wait for
// its end.
func (q *Queue) CloseUnused() {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	if q.kept == 0 {
		q.refuse()
	}
}

// refuse begins to close the queue. The lock is held.
func (q *Queue) refuse() {
	if q.closed == nil {
		q.closed = make(chan struct{})
		go q.shut()
	}
}

// shut closes the program when no job is left.
func (q *Queue) shut() {
	s := q.s
	s.mu.Lock()
	for q.active > 0 {
		q.idle.Wait()
	}
	s.mu.Unlock()
	q.Program.Close()
	s.mu.Lock()
	s.lanes = slices.DeleteFunc(s.lanes, func(l *lane) bool { return l.q == q })
	s.mu.Unlock()
	close(q.closed)
}
