package loadtest

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// target answers each request after a time, and records what it was asked.
type target struct {
	mu    sync.Mutex
	turns []Turn
	serve func(ctx context.Context, t Turn) error
}

func (f *target) Do(ctx context.Context, t Turn) error {
	f.mu.Lock()
	f.turns = append(f.turns, t)
	f.mu.Unlock()
	if f.serve == nil {
		return nil
	}
	return f.serve(ctx, t)
}

// run puts a load on a target, in a bubble by its clock.
func run(t *testing.T, target Target, l Load) *Report {
	t.Helper()
	r, err := Run(t.Context(), target, l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func between(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s is %v, want %v to %v", what, got, low, high)
	}
}

// TestStall wants a pause of the server in the latencies of an open loop: the requests
// that were due meanwhile waited, though none of them was sent. A closed loop cannot
// show it, since it asks nothing meanwhile.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalls := func() *target {
			lock := make(chan bool, 1) // a server that does one thing at a time
			var n atomic.Int64
			return &target{serve: func(ctx context.Context, _ Turn) error {
				lock <- true
				defer func() { <-lock }()
				if n.Add(1) == 50 {
					sleep(ctx, time.Second)
				}
				return nil
			}}
		}
		for _, clients := range []int{1, 200} {
			r := run(t, stalls(), Load{Clients: clients, Rate: 100, Uniform: true, Count: 300, timers: true})
			if r.Answered() != 300 {
				t.Fatalf("%d clients: %d answers, want 300", clients, r.Answered())
			}
			// A hundred of the 300 requests were due during the second, and waited for the
			// rest of it: a third, uniformly over it.
			between(t, "p99", r.Total.Quantile(0.99), 960*time.Millisecond, 1000*time.Millisecond)
			between(t, "p90", r.Total.Quantile(0.90), 680*time.Millisecond, 720*time.Millisecond)
			between(t, "p50", r.Total.Quantile(0.50), 0, time.Millisecond)
			if r.Queued < 90 && clients == 1 {
				t.Errorf("%d requests waited for the only client, want about 100", r.Queued)
			}
			if clients == 1 {
				between(t, "p90 from sending", r.Service.Quantile(0.90), 0, time.Millisecond)
			}
		}
		r := run(t, stalls(), Load{Clients: 1, Count: 300})
		between(t, "p99 of a closed loop", r.Total.Quantile(0.99), 0, time.Millisecond)
		between(t, "longest of a closed loop", r.Total.Max(), time.Second, time.Second+time.Millisecond)
	})
}

// TestRate wants as many requests as the rate says, at the times that it says.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, uniform := range []bool{true, false} {
			var times []time.Time
			f := &target{}
			f.serve = func(context.Context, Turn) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				times = append(times, time.Now())
				return nil
			}
			r := run(t, f, Load{Clients: 50, Rate: 500, Uniform: uniform, Seconds: 2, Seed: 3, timers: true})
			// Poisson: the deviation of 1,000 is 32.
			low, high := 1000, 1000
			if !uniform {
				low, high = 870, 1130
			}
			if n := r.Answered(); n < low || n > high {
				t.Errorf("uniform %v: %d requests, want %d to %d", uniform, n, low, high)
			}
			between(t, "elapsed", r.Elapsed, 2*time.Second, 2001*time.Millisecond)
			// The share of distances below half the mean one: none, or 1-exp(-1/2).
			short := 0
			for i := 1; i < len(times); i++ {
				if times[i].Sub(times[i-1]) < time.Millisecond {
					short++
				}
			}
			share, want := float64(short)/float64(len(times)), 0.0
			if !uniform {
				want = 1 - math.Exp(-0.5)
			}
			if math.Abs(share-want) > 0.05 {
				t.Errorf("uniform %v: a share of %.2f of the distances is below half the mean one, want %.2f", uniform, share, want)
			}
		}
	})
}

// TestTurns wants the requests of a session one at a time, and of clients too, in both loops.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []Load{
			{Clients: 3, Sessions: 7, Count: 400, Kinds: 2},
			{Clients: 3, Sessions: 7, Count: 400, Kinds: 2, Rate: 20000, timers: true},
			{Clients: 9, Sessions: 2, Count: 400, Kinds: 2, Rate: 20000, Uniform: true, timers: true},
			{Clients: 4, Count: 400, Kinds: 2},
			{Clients: 4, Count: 400, Kinds: 2, Rate: 20000, timers: true},
		} {
			clients, sessions := make([]atomic.Int32, 9), make([]atomic.Int32, 7)
			var most, now atomic.Int32
			f := &target{serve: func(_ context.Context, turn Turn) error {
				most.Store(max(most.Load(), now.Add(1)))
				defer now.Add(-1)
				if clients[turn.Client].Add(1) != 1 {
					t.Errorf("%+v: two requests of client %d at a time", l, turn.Client)
				}
				defer clients[turn.Client].Add(-1)
				if turn.Session >= 0 {
					if sessions[turn.Session].Add(1) != 1 {
						t.Errorf("%+v: two requests of session %d at a time", l, turn.Session)
					}
					defer sessions[turn.Session].Add(-1)
				}
				time.Sleep(50 * time.Microsecond)
				return nil
			}}
			r := run(t, f, l)
			if r.Answered() != 400 || len(f.turns) != 400 || r.Kinds[0].Count()+r.Kinds[1].Count() != 400 {
				t.Errorf("%+v: %d answers to %d requests, want 400", l, r.Answered(), len(f.turns))
			}
			if want := int32(atMost(l)); most.Load() > want || most.Load() < 2 {
				t.Errorf("%+v: %d requests at a time, want 2 to %d", l, most.Load(), want)
			}
			seen, last := map[int]int{}, map[int]int{}
			for _, turn := range f.turns {
				seen[turn.Session]++
				want := turn.Number % 2
				if turn.Session >= 0 {
					want = turn.Session % 2
					if n, ok := last[turn.Session]; ok && turn.Number <= n {
						t.Errorf("%+v: request %d of session %d after %d", l, turn.Number, turn.Session, n)
					}
					last[turn.Session] = turn.Number
				} else if l.Sessions > 0 {
					t.Errorf("%+v: a request of no session", l)
				}
				if turn.Kind != want {
					t.Errorf("%+v: %+v, want kind %d", l, turn, want)
				}
			}
			if l.Sessions > 0 && len(seen) != l.Sessions {
				t.Errorf("%+v: requests of %d sessions, want %d", l, len(seen), l.Sessions)
			}
		}
	})
}

// atMost is the number of requests that a load has under way.
func atMost(l Load) int {
	if l.Sessions > 0 {
		return min(l.Clients, l.Sessions)
	}
	return l.Clients
}

// TestErrors wants errors counted by kind and kept out of the latencies.
func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &target{serve: func(_ context.Context, turn Turn) error {
			switch {
			case turn.Number%10 == 0:
				return &Failure{"HTTP 503", errors.New("busy")}
			case turn.Number%25 == 1:
				return errors.New("odd")
			}
			return nil
		}}
		r := run(t, f, Load{Clients: 2, Count: 100})
		if r.Answered() != 86 || r.Failed() != 14 || r.Total.Count() != 86 {
			t.Errorf("%d answers and %d errors, want 86 and 14", r.Answered(), r.Failed())
		}
		if len(r.Errors) != 2 || r.Errors[0] != (Errors{"HTTP 503", 10, "busy"}) || r.Errors[1] != (Errors{"other", 4, "odd"}) {
			t.Errorf("errors are %+v", r.Errors)
		}
	})
}

// TestLost wants requests that are never answered, or never sent, in the latencies.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []Load{
			{Clients: 2, Rate: 100, Uniform: true, Seconds: 0.5, Grace: 200 * time.Millisecond, timers: true},
			{Clients: 2, Seconds: 0.5, Grace: 200 * time.Millisecond},
			{Clients: 2, Sessions: 2, Rate: 100, Uniform: true, Seconds: 0.5, Grace: 200 * time.Millisecond, timers: true},
		} {
			f := &target{serve: func(ctx context.Context, _ Turn) error {
				<-ctx.Done()
				return ctx.Err()
			}}
			r := run(t, f, l)
			want := 2
			if l.Rate > 0 {
				want = 50
			}
			if r.Answered() != 0 || r.Lost != want || r.Total.Count() != want || r.Failed() != 0 {
				t.Errorf("%+v: %d answers, %d lost of %d, %d errors, want 0, %d, %d, 0", l, r.Answered(), r.Lost, r.Total.Count(), r.Failed(), want, want)
			}
			if l.Rate > 0 && r.Waiting != 48 {
				t.Errorf("%+v: %d never sent, want 48", l, r.Waiting)
			}
			between(t, "longest", r.Total.Max(), 699*time.Millisecond, 701*time.Millisecond)
			between(t, "elapsed", r.Elapsed, 699*time.Millisecond, 701*time.Millisecond)
		}
	})
}

// TestSearch looks for the limit of a server that takes 2 ms for a request and does one
// at a time. Requests at equal distances wait for nothing below 500 a second, and for
// ever longer above it.
func TestSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lock sync.Mutex
		free := time.Now()
		f := &target{serve: func(ctx context.Context, _ Turn) error {
			lock.Lock()
			now := time.Now()
			free = latest(free, now).Add(2 * time.Millisecond)
			until := free
			lock.Unlock()
			sleepUntil(ctx, until)
			return ctx.Err()
		}}
		var told []Trial
		r, trials, err := Search(t.Context(), f, Load{Clients: 100, Rate: 100, Uniform: true, Seconds: 0.5, timers: true}, 30*time.Millisecond, func(one Trial) { told = append(told, one) })
		if err != nil || r == nil {
			t.Fatalf("no rate found: %v, %+v", err, trials)
		}
		last := trials[len(trials)-1]
		if len(told) != len(trials) || !last.Met || last.Rate < 490 || last.Rate > 530 {
			t.Errorf("found %+v after %+v, want about 500 requests per second", last, trials)
		}
		if got := r.Total.Quantile(0.99); got > 30*time.Millisecond {
			t.Errorf("p99 is %v at the rate found", got)
		}
		if trials[0].Rate != 100 || trials[1].Rate != 200 || trials[2].Rate != 400 {
			t.Errorf("the rates do not begin with 100, 200, 400: %+v", trials)
		}
		never := &target{serve: func(context.Context, Turn) error { return errors.New("no") }}
		if r, trials, err := Search(t.Context(), never, Load{Clients: 100, Rate: 400, Seconds: 0.01, timers: true}, time.Millisecond, nil); r != nil || err != nil || len(trials) != 1 {
			t.Errorf("a server that refuses everything gives %+v, %v", trials, err)
		}
		slow := &target{serve: func(ctx context.Context, _ Turn) error { sleep(ctx, 50*time.Millisecond); return nil }}
		if r, trials, err := Search(t.Context(), slow, Load{Clients: 100, Rate: 400, Seconds: 1, timers: true}, 49*time.Millisecond, nil); r != nil || err != nil || len(trials) != 2 {
			t.Errorf("a server that is too slow for any rate gives %+v, %v", trials, err)
		}
	})
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestClock wants the waiting of the clock to be more exact than a timer's.
func TestClock(t *testing.T) {
	c := newClock(t.Context())
	defer c.stop()
	l := newLatency()
	for range 50 {
		due := time.Now().Add(1300 * time.Microsecond)
		c.until(t.Context(), due)
		if time.Now().Before(due) {
			t.Fatal("a wait ended early")
		}
		l.add(time.Since(due))
	}
	t.Logf("late by %v, p90 %v", l.Quantile(0.5), l.Quantile(0.9))
	if l.Quantile(0) > 100*time.Microsecond { // other programs may delay most
		t.Errorf("late by at least %v, want some microseconds", l.Quantile(0))
	}
}

func TestBuckets(t *testing.T) {
	l := newLatency()
	for _, d := range []time.Duration{1 * time.Millisecond, 1100 * time.Microsecond, 5 * time.Millisecond, 40 * time.Microsecond} {
		l.add(d)
	}
	total := 0
	for _, b := range l.Buckets() {
		total += b.Count
		if b.From >= b.To {
			t.Errorf("bucket %+v", b)
		}
	}
	if total != 4 {
		t.Errorf("the buckets hold %d durations, want 4", total)
	}
	if (newLatency()).Buckets() != nil {
		t.Error("an empty distribution has buckets")
	}
	if n := l.Above(1050 * time.Microsecond); n != 2 {
		t.Errorf("%d durations above 1.05 ms, want 2", n)
	}
}

func TestLoadChecks(t *testing.T) {
	for _, l := range []Load{{}, {Clients: 1}, {Clients: 1, Count: 1, Rate: -1}, {Clients: 1, Seconds: math.NaN()}, {Clients: 1, Seconds: 1, Sessions: -1}} {
		if _, err := Run(t.Context(), &target{}, l); err == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, rate := range []float64{0, 100} {
		if _, err := Run(ctx, &target{}, Load{Clients: 1, Seconds: 60, Rate: rate, timers: true}); !errors.Is(err, context.Canceled) {
			t.Errorf("a load of an ended context gives %v", err)
		}
	}
}
