// Package loadtest puts a load on a server and measures what its clients would see:
// requests per second, latencies, errors, and the highest rate at which the latencies
// stay below an objective.
//
// [Run] puts a load on any [Target]; [Connect] makes one of a server of the Open
// Inference Protocol v2, over REST or gRPC.
package loadtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Target is what a load is put on.
type Target interface {
	// Do sends a request and waits for its answer. Calls of one client follow each
	// other, and so do those of one session; others come at the same time. It ends early
	// when ctx does. The kind of an error is that of the [*Failure] in it.
	Do(ctx context.Context, t Turn) error
}

// Turn is the place of a request in a load.
type Turn struct {
	Client  int // from 0: whose connection sends it
	Session int // from 0: whose step it is; -1: nobody's
	Kind    int // from 0, below Load.Kinds
	Number  int // from 0, of the load
}

// Failure is an error of a request, with what errors are counted by.
type Failure struct {
	Kind string // such as "HTTP 503", "connection" or "timeout"
	Err  error
}

// Error returns the message.
func (f *Failure) Error() string { return f.Kind + ": " + f.Err.Error() }

// Unwrap returns the error without its kind.
func (f *Failure) Unwrap() error { return f.Err }

// Load is what [Run] does. In a closed loop each client sends its next request when the
// last is answered, so a slow server is asked less. In an open loop requests are due at
// times that do not depend on the answers, as those of many independent users are, and a
// latency counts from the moment a request was due: one that had to wait for a client or
// for its session's last answer has waited for the server.
type Load struct {
	Clients int           // requests under way at most, at least 1; in a closed loop without sessions always so many
	Rate    float64       // requests per second of an open loop; 0: a closed loop
	Uniform bool          // requests of an open loop are due at equal distances, and not as a Poisson process's
	Kinds   int           // requests are of these kinds in turn, or sessions are; 0 is 1
	Seconds float64       // how long requests are sent; 0: until there were so many
	Count   int           // requests at most; 0: as many as the time allows
	Grace   time.Duration // how long after the end answers are waited for; 0 is DefaultGrace
	Seed    uint64        // of the arrivals

	// Sessions are streams whose requests follow each other; 0: requests are independent.
	// A closed loop goes round the sessions; in an open one a request is of a session by
	// chance, or in turn if they come at equal distances.
	Sessions int

	timers bool // wait by timers, which tests with a clock of their own need
}

// DefaultGrace is how long answers are waited for after the end of a load.
const DefaultGrace = 10 * time.Second

func (l *Load) check() error {
	switch {
	case l.Clients < 1:
		return fmt.Errorf("clients: want at least 1, got %d", l.Clients)
	case l.Rate < 0 || math.IsNaN(l.Rate) || l.Rate > maxRate:
		return fmt.Errorf("rate: want requests per second up to %d, or 0 for a closed loop, got %g", maxRate, l.Rate)
	case l.Sessions < 0 || l.Kinds < 0 || l.Count < 0:
		return errors.New("sessions, kinds and requests: want 0 or more")
	case !(l.Seconds >= 0 && l.Seconds <= maxSeconds):
		return fmt.Errorf("seconds: want up to %d, got %g", maxSeconds, l.Seconds)
	case l.Seconds == 0 && l.Count == 0:
		return errors.New("want a time or a number of requests; with neither a load would not end")
	}
	return nil
}

// Limits of a load; a time.Duration holds all that is computed from them.
const (
	maxRate    = 1_000_000
	maxSeconds = 7 * 24 * 3600
)

// runner is a run of a load.
type runner struct {
	target Target
	load   Load
	begin  time.Time
	end    time.Time // of sending; zero: none
	report *Report
	mu     sync.Mutex
}

// Run puts the load on the target and returns what it measured. Its error is that of the
// load's settings, or of ctx; errors of requests are counted in the report.
func Run(ctx context.Context, t Target, l Load) (*Report, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	l.Kinds = max(l.Kinds, 1)
	if l.Grace == 0 {
		l.Grace = DefaultGrace
	}
	if l.Sessions > 0 {
		l.Clients = min(l.Clients, l.Sessions)
	}
	r := &runner{target: t, load: l, report: newReport(l.Kinds)}
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	cpu := processorTime()
	r.begin = time.Now()
	if l.Seconds > 0 {
		r.end = r.begin.Add(time.Duration(l.Seconds * float64(time.Second)))
	}
	if l.Rate > 0 {
		r.open(calls, cancel)
	} else {
		r.closed(calls, cancel)
	}
	r.report.Elapsed = time.Since(r.begin)
	r.report.CPU = processorTime() - cpu
	return r.report, ctx.Err()
}

// over reports whether the time of sending has passed.
func (r *runner) over(now time.Time) bool { return !r.end.IsZero() && !now.Before(r.end) }

// kind is the kind of a request, or of all requests of its session.
func (r *runner) kind(session, number int) int {
	if session >= 0 {
		return session % r.load.Kinds
	}
	return number % r.load.Kinds
}

// pauseAfterFailure keeps a client of a closed loop from asking a server that refuses
// at once as fast as it can.
const pauseAfterFailure = 5 * time.Millisecond

func (r *runner) closed(ctx context.Context, cancel func()) {
	var clients sync.WaitGroup
	var sent atomic.Int64
	if !r.end.IsZero() {
		defer time.AfterFunc(time.Until(r.end)+r.load.Grace, cancel).Stop()
	}
	for c := range r.load.Clients {
		clients.Go(func() {
			own := (r.load.Sessions - c + r.load.Clients - 1) / r.load.Clients // sessions: c, c + Clients, ...
			for i := 0; ctx.Err() == nil; i++ {
				number := int(sent.Add(1)) - 1
				begin := time.Now()
				if r.load.Count > 0 && number >= r.load.Count || r.over(begin) {
					return
				}
				session := -1
				if r.load.Sessions > 0 {
					session = c + i%own*r.load.Clients
				}
				t := Turn{Client: c, Session: session, Kind: r.kind(session, number), Number: number}
				err := r.target.Do(ctx, t)
				r.record(ctx, t, begin, begin, err)
				if err != nil {
					sleep(ctx, pauseAfterFailure)
				}
			}
		})
	}
	clients.Wait()
}

// record adds what became of a request.
func (r *runner) record(ctx context.Context, t Turn, due, sent time.Time, err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		r.report.unanswered(t.Kind, now.Sub(due))
		return
	}
	r.report.add(t.Kind, now.Sub(due), now.Sub(sent), err)
}

func (r *runner) open(ctx context.Context, cancel func()) {
	q := newLineup(r.load.Sessions)
	defer context.AfterFunc(ctx, q.wakeUp)()
	var clients sync.WaitGroup
	for c := range r.load.Clients {
		clients.Go(func() {
			for {
				w, ok := q.take(ctx)
				if !ok {
					return
				}
				w.turn.Client = c
				sent := time.Now()
				err := r.target.Do(ctx, w.turn)
				r.record(ctx, w.turn, w.due, sent, err)
				if w.prompt {
					r.mu.Lock()
					r.report.late(sent.Sub(w.due))
					r.mu.Unlock()
				}
				q.done(w.turn.Session)
			}
		})
	}
	r.arrive(ctx, q)
	// What was due by now is owed an answer, even if it waits for a client still.
	defer time.AfterFunc(r.load.Grace, cancel).Stop()
	q.close()
	clients.Wait()
	now := time.Now()
	for _, w := range q.rest() {
		r.report.Waiting++
		r.report.unanswered(w.turn.Kind, now.Sub(w.due))
	}
	r.report.Queued = q.queued
}

// arrive lets requests of an open loop arrive until its end.
func (r *runner) arrive(ctx context.Context, q *lineup) {
	random := rand.New(rand.NewPCG(r.load.Seed, 1))
	wait := sleepUntil
	if !r.load.timers {
		clock := newClock(ctx)
		defer clock.stop()
		wait = clock.until
	}
	every := float64(time.Second) / r.load.Rate
	at := 0.0 // nanoseconds from the beginning; a sum of rounded distances would drift
	for n := 0; r.load.Count == 0 || n < r.load.Count; n++ {
		if r.load.Uniform {
			at = float64(n) * every
		} else {
			at += random.ExpFloat64() * every
		}
		due := r.begin.Add(time.Duration(at))
		if r.over(due) {
			break
		}
		wait(ctx, due)
		if ctx.Err() != nil {
			return
		}
		session := -1
		if s := r.load.Sessions; s > 0 && r.load.Uniform {
			session = n % s
		} else if s > 0 {
			session = random.IntN(s)
		}
		q.add(waiter{turn: Turn{Session: session, Kind: r.kind(session, n), Number: n}, due: due})
	}
	// The time of sending is what was asked for, also where nothing is due at its end.
	if !r.end.IsZero() && r.load.Count == 0 {
		wait(ctx, r.end)
	}
}

// waiter is a request of an open loop that is due.
type waiter struct {
	turn   Turn
	due    time.Time
	prompt bool // a client was free and the session's last request answered
}

// lineup holds the requests that are due and not sent.
type lineup struct {
	mu      sync.Mutex
	changed sync.Cond
	ready   []waiter // from first on
	first   int
	idle    int        // clients that wait for a request
	busy    []bool     // sessions with a request in ready or under way
	behind  [][]waiter // by session, those that wait for its last answer
	held    int        // of them all
	queued  int        // requests that waited for a client or their session
	closed  bool
}

func newLineup(sessions int) *lineup {
	q := &lineup{busy: make([]bool, sessions), behind: make([][]waiter, sessions)}
	q.changed.L = &q.mu
	return q
}

func (q *lineup) add(w waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := w.turn.Session
	w.prompt = q.idle > len(q.ready)-q.first && (s < 0 || !q.busy[s])
	if !w.prompt {
		q.queued++
	}
	if s >= 0 && q.busy[s] {
		q.behind[s] = append(q.behind[s], w)
		q.held++
		return
	}
	q.push(w)
}

// push makes a request the next that a client takes after those before it.
func (q *lineup) push(w waiter) {
	if s := w.turn.Session; s >= 0 {
		q.busy[s] = true
	}
	if q.first > 1024 && q.first > len(q.ready)/2 {
		q.ready = append(q.ready[:0], q.ready[q.first:]...)
		q.first = 0
	}
	q.ready = append(q.ready, w)
	q.changed.Signal()
}

// take waits for a request; false: there will be none, or ctx has ended.
func (q *lineup) take(ctx context.Context) (waiter, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.idle++
	defer func() { q.idle-- }()
	for ctx.Err() == nil {
		if q.first < len(q.ready) {
			w := q.ready[q.first]
			q.first++
			return w, true
		}
		if q.closed && q.held == 0 {
			break
		}
		q.changed.Wait()
	}
	return waiter{}, false
}

// done says that a request of the session was answered.
func (q *lineup) done(session int) {
	if session < 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy[session] = false
	if list := q.behind[session]; len(list) > 0 {
		q.behind[session] = list[1:]
		q.held--
		q.push(list[0])
	}
	if q.closed {
		q.changed.Broadcast()
	}
}

// close says that no request will arrive.
func (q *lineup) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// wakeUp makes clients that wait look whether ctx has ended.
func (q *lineup) wakeUp() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.changed.Broadcast()
}

// rest are the requests that were not taken.
func (q *lineup) rest() []waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := q.ready[q.first:]
	for _, list := range q.behind {
		rest = append(rest, list...)
	}
	return rest
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// sleepUntil waits for a moment, or until ctx ends.
func sleepUntil(ctx context.Context, t time.Time) { sleep(ctx, time.Until(t)) }
