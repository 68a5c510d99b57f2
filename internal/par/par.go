// Package par runs loops over a process-wide team of workers.
//
// Work is split into contiguous ranges; nothing a range computes may depend on
// where the cuts fall, so results are the same for any number of workers.
package par

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

var (
	limit    atomic.Int64 // SetWorkers; 0 means GOMAXPROCS
	started  atomic.Int64 // workers running
	starting sync.Mutex
	idle     atomic.Int64 // workers waiting for a token and not yet promised one
	tokens   = make(chan *job, 1024)
	jobs     freeJobs
)

// freeJobs is a plain list, not a sync.Pool, which the garbage collector
// empties: a loop must allocate nothing. There are never more jobs than
// loops under way and workers.
type freeJobs struct {
	mu   sync.Mutex
	list []*job
}

func (f *freeJobs) get() *job {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.list); n > 0 {
		j := f.list[n-1]
		f.list = f.list[:n-1]
		return j
	}
	return new(job)
}

func (f *freeJobs) put(j *job) {
	f.mu.Lock()
	f.list = append(f.list, j)
	f.mu.Unlock()
}

// job is one call of For. Every token sent and the caller hold a reference;
// who drops the last one returns the job to the pool, so a late worker never
// meets a job that has become another one.
type job struct {
	body    func(unsafe.Pointer, int, int)
	arg     unsafe.Pointer
	n       int
	parts   int64
	next    atomic.Int64 // the next part to claim
	left    atomic.Int64 // parts not finished
	refs    atomic.Int64
	failure atomic.Pointer[any]
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
	if n <= 0 {
		return
	}
	parts := min(Workers(), n/max(grain, 1))
	if parts <= 1 {
		body(arg, 0, n)
		return
	}
	ensure(parts - 1)
	j := jobs.get()
	j.body = *(*func(unsafe.Pointer, int, int))(unsafe.Pointer(&body)) // *T and unsafe.Pointer pass alike
	j.arg, j.n, j.parts = unsafe.Pointer(arg), n, int64(parts)
	j.next.Store(0)
	j.left.Store(int64(parts))
	j.failure.Store(nil)
	j.refs.Store(int64(parts))
	for i := 1; i < parts; i++ {
		if reserve() {
			tokens <- j
		} else {
			j.release() // everyone is busy: the caller does this part
		}
	}
	j.work()
	for spins := 0; j.left.Load() > 0; spins++ {
		if spins > 64 {
			runtime.Gosched()
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
		j.left.Add(-1)
	}()
	p := int(j.parts)
	j.body(j.arg, i*j.n/p, (i+1)*j.n/p)
}

func (j *job) release() {
	if j.refs.Add(-1) == 0 {
		j.body, j.arg = nil, nil
		jobs.put(j)
	}
}

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
		idle.Add(1) // a token sent before it runs waits for it
		go worker()
	}
}

// worker serves tokens for ever. Between loops it looks for work for some
// microseconds before it sleeps: waking costs more than the gap between two ops.
func worker() {
	for {
		for spins := 0; spins < 2000 && len(tokens) == 0; spins++ {
			if spins%64 == 63 {
				runtime.Gosched()
			}
		}
		j := <-tokens
		j.work()
		j.release()
		idle.Add(1)
	}
}
