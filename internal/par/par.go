// Package par runs loops over a process-wide team of workers.
//
// Work is split into contiguous ranges; nothing a range computes may depend on
// where the cuts fall, so results are the same for any number of workers.
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
	idle     atomic.Int64 // workers waiting for a token, less the tokens sent: negative where these wait for workers
	tokens   = make(chan *job, 1024)
	jobs     Pool[job] // no more than loops under way and workers
)

// job is one call of For or Gang. Every token sent and the caller hold a reference;
// who drops the last one returns the job to the pool, so a late worker never
// meets a job that has become another one.
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
	wake    chan struct{} // and this wakes it; holds one
	arrived atomic.Int64  // members waiting at the barrier
	round   atomic.Int64  // barriers passed
	slow    atomic.Bool   // a member kept another waiting for long
	ended   atomic.Bool   // slow, as it was when the last barrier was passed
}

// SetWorkers caps how many goroutines a loop may use; 0 lifts the cap.
func SetWorkers(n int) { limit.Store(int64(max(n, 0))) }

// Workers is how many goroutines a loop may use: GOMAXPROCS, or less after SetWorkers.
// More than GOMAXPROCS may be set, which tests use to try other splits.
func Workers() int {
	if n := int(limit.Load()); n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// For calls body over disjoint ranges that cover [0,n), each at least grain
// long (but the last of all), and returns when all are done. The caller takes
// part, so a loop finishes even when every worker is busy elsewhere, and a body
// may call For itself. A panic in a body is raised again in the caller.
//
// Nothing is allocated: pass a body without captured variables and an arg that
// is reused.
func For[T any](n, grain int, arg *T, body func(arg *T, lo, hi int)) {
	if parts := cut(n, grain); parts > 1 {
		j := jobs.Get()
		j.body = *(*func(unsafe.Pointer, int, int))(unsafe.Pointer(&body)) // *T and unsafe.Pointer pass alike
		j.loop(unsafe.Pointer(arg), n, parts)
	} else if parts == 1 {
		body(arg, 0, n)
	}
}

// Each is For with a method as its body, such as (*Backend).softmaxRows, and
// what the method takes beside its range.
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

// cut is how many parts n things are shared out in; 0 for none.
func cut(n, grain int) int {
	if n <= 0 {
		return 0
	}
	return max(1, min(Workers(), n/max(grain, 1)))
}

// loop shares a job out to workers and takes part.
func (j *job) loop(arg unsafe.Pointer, n, parts int) {
	ensure(parts - 1)
	j.start(arg, n, parts)
	for i := 1; i < parts; i++ {
		if idle.Add(-1) >= -started.Load() { // a busy worker may come later: often it is just about to finish
			tokens <- j
		} else {
			idle.Add(1)
			j.release()
		}
	}
	j.finish()
}

// Member is one of the goroutines that run a body of [Gang] at the same time.
type Member struct {
	j     *job
	index int
}

// Share is the member's own part [lo,hi) of n things; the zero Member's is all of them.
func (m Member) Share(n int) (lo, hi int) {
	if m.j == nil {
		return 0, n
	}
	size := int(m.j.parts)
	return m.index * n / size, (m.index + 1) * n / size
}

// First says whether this is the one member that speaks for all.
func (m Member) First() bool { return m.index == 0 }

// Members is how many they are.
func (m Member) Members() int {
	if m.j == nil {
		return 1
	}
	return int(m.j.parts)
}

// Barrier waits until every member has come here. It spins: the members must
// arrive within microseconds of each other. Once they did not, it says false, to
// all members the same: the gang had better end, since whoever else wants the
// cores would make each of its steps as long as a turn of the system.
func (m Member) Barrier() bool {
	j := m.j
	if j == nil {
		return true // alone
	}
	round := j.round.Load()
	if j.arrived.Add(1) == j.parts {
		j.arrived.Store(0)
		if j.slow.Load() {
			j.ended.Store(true) // the next barrier needs all members, so that each reads what holds at this one
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
			panic(*f) // a member will never come
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

// A gang is only good while the system runs all members at once. When one was
// kept waiting for longer than patience, other programs want the cores, and
// gangs rest for a while: each time for longer, up to longestRest.
const (
	patience     = 200 * time.Microsecond
	shortestRest = 20 * time.Millisecond
	longestRest  = 2 * time.Second
)

var (
	restEnds atomic.Int64 // when gangs may meet again, in Unix nanoseconds
	restNext atomic.Int64 // how long the next rest is, in nanoseconds
)

// CanGang says whether a gang of more than the caller is possible and worth it now.
func CanGang() bool {
	return Workers() > 1 && (restEnds.Load() == 0 || time.Now().UnixNano() > restEnds.Load())
}

// rest learns from how a gang went.
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
// time, so that they may meet at barriers. It takes only workers that are idle,
// so there may be fewer members, or the caller alone.
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
	j.refs.Add(1) // to be read after it is done
	j.finish()
	rest(j.slow.Load())
	j.release()
}

// start readies a job of so many parts, to be held by the caller and one worker for each further part.
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

// patient is how long a caller looks whether the others are done before it
// sleeps: parts end within microseconds of each other unless somebody else has
// the core. Then that one gets this core too; and who sleeps is run next when it
// is woken, while who yields stands behind all others, each of which may have
// the core for ten milliseconds.
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
			if j.left.Load() > 0 || !j.waiting.Swap(false) { // or somebody has seen it, and sends
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

func (j *job) release() {
	if j.refs.Add(-1) == 0 {
		j.body, j.method, j.member, j.arg, j.spec = nil, nil, nil, nil, nil
		jobs.Put(j)
	}
}

// soon is how many looks, of about a nanosecond, a gang takes for workers that
// have just finished a loop.
const soon = 1000

// reserve takes an idle worker, which then must be sent a token.
func reserve() bool {
	for n := idle.Load(); n > 0; n = idle.Load() {
		if idle.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

// ensure starts workers until n run.
func ensure(n int) {
	if int(started.Load()) >= n {
		return
	}
	starting.Lock()
	defer starting.Unlock()
	for int(started.Load()) < n {
		started.Add(1)
		idle.Add(1)   // a token sent before it runs waits for it
		for range 3 { // two that wait for it at most, and one under way: steady loops never allocate
			jobs.Put(&job{wake: make(chan struct{}, 1)})
		}
		go worker()
	}
}

// awake is how long a worker looks for the next loop before it sleeps. To be
// woken takes a few microseconds of the caller and far more until it runs; the
// gaps between the loops of one pass are shorter.
const awake = 100 * time.Microsecond

// worker serves tokens for ever.
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
