// Package par runs loops on a process-wide team of workers.
//
// Work is divided into contiguous ranges. What is computed for an index must not
// depend on the range it is in, so that results are the same for any number of
// workers.
package par

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

var (
	limit    atomic.Int64 // SetWorkers; 0 means GOMAXPROCS
	started  atomic.Int64 // workers running
	starting sync.Mutex
	idle     atomic.Int64 // workers waiting for a token, minus tokens sent: negative if tokens wait for workers
	tokens   = make(chan *job, 1024)
	jobs     Pool[job] // at most as many as running loops and workers
)

// job is one call of For, Each or Gang. The caller and every token sent hold a
// reference, and the release of the last one returns the job to the pool, so a late
// worker never finds a job that is reused for another loop.
type job struct {
	body    func(unsafe.Pointer, int, int)                 // of For
	method  func(unsafe.Pointer, unsafe.Pointer, int, int) // of Each
	member  func(unsafe.Pointer, Member)                   // of Gang
	arg     unsafe.Pointer
	spec    unsafe.Pointer // of Each
	n       int
	parts   int64
	next    atomic.Int64 // the next part to claim
	left    atomic.Int64 // parts not finished
	refs    atomic.Int64
	failure atomic.Pointer[any]
	waiting atomic.Bool   // the caller sleeps until the last part is finished
	wake    chan struct{} // wakes the caller; capacity 1
	arrived atomic.Int64  // members waiting at the barrier
	round   atomic.Int64  // barriers passed
	slow    atomic.Bool   // a member waited for another for longer than patience
	ended   atomic.Bool   // the value of slow when the last barrier was passed
}

// SetWorkers limits the number of goroutines of a loop to n; 0 removes the limit.
// n may exceed GOMAXPROCS, which tests use to try other splits.
func SetWorkers(n int) { limit.Store(int64(max(n, 0))) }

// Workers returns the number of goroutines that a loop may use: GOMAXPROCS, or the
// limit of SetWorkers.
func Workers() int {
	if n := int(limit.Load()); n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// For calls body for disjoint ranges that cover [0,n) and returns when all calls
// have. Each range has at least grain indices, unless n has fewer. The caller takes
// part, so a loop finishes even if all workers are busy, and a body may call For. A
// panic in a body is raised again in the caller.
//
// For allocates nothing if body captures no variables and arg is reused.
func For[T any](n, grain int, arg *T, body func(arg *T, lo, hi int)) {
	if parts := cut(n, grain); parts > 1 {
		j := jobs.Get()
		j.body = *(*func(unsafe.Pointer, int, int))(unsafe.Pointer(&body)) // *T and unsafe.Pointer are passed alike
		j.loop(unsafe.Pointer(arg), n, parts)
	} else if parts == 1 {
		body(arg, 0, n)
	}
}

// Each is For with a method as its body, such as (*Backend).softmaxRows, and an
// argument of the method before its range.
func Each[T, S any](n, grain int, on *T, spec *S, body func(on *T, spec *S, lo, hi int)) {
	if parts := cut(n, grain); parts > 1 {
		j := jobs.Get()
		j.method = *(*func(unsafe.Pointer, unsafe.Pointer, int, int))(unsafe.Pointer(&body))
		j.spec = unsafe.Pointer(spec)
		j.loop(unsafe.Pointer(on), n, parts)
	} else if parts == 1 {
		body(on, spec, 0, n)
	}
}

// cut returns the number of parts that [0,n) is divided into.
func cut(n, grain int) int {
	if n <= 0 {
		return 0
	}
	return max(1, min(Workers(), n/max(grain, 1)))
}

// loop sends a job to workers and takes part in it.
func (j *job) loop(arg unsafe.Pointer, n, parts int) {
	ensure(parts - 1)
	j.start(arg, n, parts)
	for i := 1; i < parts; i++ {
		if idle.Add(-1) >= -started.Load() { // a busy worker may come later: often it is about to finish
			tokens <- j
		} else {
			idle.Add(1)
			j.release()
		}
	}
	j.finish()
}

// Member is one of the goroutines that run a body of [Gang] at the same time. The
// zero Member is the only one of its gang.
type Member struct {
	j     *job
	index int
}

// Share returns the member's part [lo,hi) of [0,n).
func (m Member) Share(n int) (lo, hi int) {
	if m.j == nil {
		return 0, n
	}
	size := int(m.j.parts)
	return m.index * n / size, (m.index + 1) * n / size
}

// First reports whether this is member 0.
func (m Member) First() bool { return m.index == 0 }

// Members returns the number of members.
func (m Member) Members() int {
	if m.j == nil {
		return 1
	}
	return int(m.j.parts)
}

// Barrier waits, spinning, until every member has called it. Once a member has been
// waited for longer than patience, it returns false, to all members at the same
// barrier: the gang should end, because other programs use the cores and each
// barrier could take as long as a time slice of the system.
func (m Member) Barrier() bool {
	j := m.j
	if j == nil {
		return true
	}
	round := j.round.Load()
	if j.arrived.Add(1) == j.parts {
		j.arrived.Store(0)
		if j.slow.Load() {
			j.ended.Store(true) // no member passes the next barrier before all have read this
		}
		j.round.Add(1)
		return !j.ended.Load()
	}
	var since time.Time
	for spins := 1; j.round.Load() == round; spins++ {
		if spins%1024 != 0 {
			continue
		}
		if f := j.failure.Load(); f != nil {
			panic(*f) // a member will never arrive
		}
		if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) > patience {
			j.slow.Store(true)
		}
		runtime.Gosched()
	}
	return !j.ended.Load()
}

// A gang is fast only while the system runs all members at once. After a member has
// waited for longer than patience, gangs are suspended, each time for twice as long,
// up to longestRest.
const (
	patience     = 200 * time.Microsecond
	shortestRest = 20 * time.Millisecond
	longestRest  = 2 * time.Second
)

var (
	restEnds atomic.Int64 // the end of the suspension, in Unix nanoseconds
	restNext atomic.Int64 // the length of the next one, in nanoseconds
)

// CanGang reports whether there may be more than one worker and gangs are not suspended.
func CanGang() bool {
	return Workers() > 1 && (restEnds.Load() == 0 || time.Now().UnixNano() > restEnds.Load())
}

// rest suspends gangs if the last one was slow; otherwise it halves the length of the next suspension.
func rest(slow bool) {
	d := max(restNext.Load(), int64(shortestRest))
	if slow {
		restEnds.Store(time.Now().UnixNano() + d)
		restNext.Store(min(2*d, int64(longestRest)))
	} else {
		restNext.Store(d / 2)
	}
}

// Gang calls body once for each of up to Workers() members that run at the same
// time, so that they can wait for each other at barriers. It takes only workers that
// are idle, so there may be fewer members, or the caller alone. A panic in a body is
// raised again in the caller.
func Gang[T any](arg *T, body func(arg *T, m Member)) {
	want := Workers()
	ensure(want - 1)
	size := 1
	for tries := 0; size < want && tries < soon; tries++ {
		if reserve() {
			size++
		}
	}
	j := jobs.Get()
	j.member = *(*func(unsafe.Pointer, Member))(unsafe.Pointer(&body))
	j.start(unsafe.Pointer(arg), size, size)
	j.slow.Store(false)
	j.ended.Store(false)
	for range size - 1 {
		tokens <- j
	}
	j.refs.Add(1) // for the use of slow after finish
	j.finish()
	rest(j.slow.Load())
	j.release()
}

// start initialises a job of parts parts, with a reference for the caller and for a worker per further part.
func (j *job) start(arg unsafe.Pointer, n, parts int) {
	if j.wake == nil {
		j.wake = make(chan struct{}, 1)
	}
	j.arg, j.n, j.parts = arg, n, int64(parts)
	j.next.Store(0)
	j.left.Store(int64(parts))
	j.failure.Store(nil)
	j.arrived.Store(0)
	j.round.Store(0)
	j.refs.Store(int64(parts))
}

// patient is how long a caller polls for the end of the other parts before it
// sleeps. Parts end within microseconds of each other unless another goroutine has a
// core, and then it can use this one too. A sleeping goroutine runs next when it is
// woken; one that yields is queued behind all others, each of which may run for ten
// milliseconds.
const patient = 30 * time.Microsecond

// finish takes part in a job and waits for the others.
func (j *job) finish() {
	j.work()
	var since time.Time
	for spins := 1; j.left.Load() > 0; spins++ {
		if spins%512 != 0 {
			continue
		}
		if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) > patient {
			j.waiting.Store(true)
			if j.left.Load() > 0 || !j.waiting.Swap(false) { // if Swap is false, a worker has seen waiting and sends
				<-j.wake
			}
		}
	}
	failure := j.failure.Load()
	j.release()
	if failure != nil {
		panic(*failure)
	}
}

// work claims parts until none is left.
func (j *job) work() {
	for {
		i := j.next.Add(1) - 1
		if i >= j.parts {
			return
		}
		j.run(int(i))
	}
}

// run runs part i.
func (j *job) run(i int) {
	defer func() {
		if r := recover(); r != nil {
			v := r // r itself must not escape: it would be allocated in every part
			j.failure.CompareAndSwap(nil, &v)
		}
		if j.left.Add(-1) == 0 && j.waiting.Swap(false) {
			j.wake <- struct{}{}
		}
	}()
	if j.member != nil {
		j.member(j.arg, Member{j, i})
		return
	}
	p := int(j.parts)
	lo, hi := i*j.n/p, (i+1)*j.n/p
	if j.method != nil {
		j.method(j.arg, j.spec, lo, hi)
	} else {
		j.body(j.arg, lo, hi)
	}
}

// release drops a reference.
func (j *job) release() {
	if j.refs.Add(-1) == 0 {
		j.body, j.method, j.member, j.arg, j.spec = nil, nil, nil, nil, nil
		jobs.Put(j)
	}
}

// soon is the number of times, of about a nanosecond each, that a gang polls for
// workers that are about to finish a loop.
const soon = 1000

// reserve takes an idle worker, if there is one; the caller must then send it a token.
func reserve() bool {
	for n := idle.Load(); n > 0; n = idle.Load() {
		if idle.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

// ensure starts workers until there are n.
func ensure(n int) {
	if int(started.Load()) >= n {
		return
	}
	starting.Lock()
	defer starting.Unlock()
	for int(started.Load()) < n {
		started.Add(1)
		idle.Add(1)   // a token sent before it runs waits for it
		for range 3 { // at most two waiting and one running per worker, so steady loops never allocate
			jobs.Put(&job{wake: make(chan struct{}, 1)})
		}
		go worker()
	}
}

// awake is how long a worker polls for the next loop before it sleeps. To wake it
// takes the caller some microseconds, and the worker runs much later; the gaps
// between the loops of a pass are shorter.
const awake = 100 * time.Microsecond

// worker takes part in the jobs of tokens, forever.
func worker() {
	for {
		var since time.Time
		for spins := 1; len(tokens) == 0; spins++ {
			if spins%256 != 0 {
				continue
			}
			if since.IsZero() {
				since = time.Now()
			} else if time.Since(since) > awake {
				break
			}
			runtime.Gosched()
		}
		j := <-tokens
		j.work()
		j.release()
		idle.Add(1)
	}
}
