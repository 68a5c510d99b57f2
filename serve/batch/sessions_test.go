package batch

import (
	"context"
	"fmt"
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

// newTable returns a queue of a spy with sessions.
func newTable(t testing.TB, p *spy, o SessionOptions) (*Sessions, *Queue) {
	s := New(Options{})
	table := NewSessions(s, o)
	t.Cleanup(func() { table.Stop(Stopped) })
	return table, s.Add(p, QueueOptions{})
}

func TestSessionLimits(t *testing.T) {
	t.Run("ids", func(t *testing.T) {
		table, q := newTable(t, &spy{}, SessionOptions{})
		a := open(t, table, q, Opening{ID: "a"})
		_, err := table.Open(q, "m", Opening{ID: "a"})
		wantCode(t, err, inference.Exists)
		other, err := table.Open(q, "other", Opening{ID: "a"}) // of another model
		if err != nil || other == a {
			t.Errorf("the same id in another model: %v", err)
		}
		_, err = table.Open(q, "m", Opening{ID: "a", Replace: other}) // which is another
		wantCode(t, err, inference.Exists)
		b := open(t, table, q, Opening{ID: "a", Replace: a})
		wantCode(t, q.Do(context.Background(), job(a, 1, 1)), inference.NotFound)
		do(t, q, job(b, 1, 1))
		_, err = table.Open(q, "m", Opening{ID: strings.Repeat("x", maxID+1)})
		wantCode(t, err, inference.Invalid)
		seen := map[string]bool{}
		for range 1000 {
			id := open(t, table, q, Opening{}).ID()
			if len(id) < 26 || seen[id] { // 5 bits each
				t.Fatalf("random id %q", id)
			}
			seen[id] = true
		}
		_, err = table.Find("m", "b")
		wantCode(t, err, inference.NotFound)
	})
	t.Run("of a client", func(t *testing.T) {
		table, q := newTable(t, &spy{}, SessionOptions{Client: 2})
		a := open(t, table, q, Opening{Client: "c"})
		open(t, table, q, Opening{Client: "c"})
		_, err := table.Open(q, "m", Opening{Client: "c"})
		wantCode(t, err, inference.Exhausted)
		open(t, table, q, Opening{Client: "d"})
		if list, more := table.Of("c", "", 1); len(list) != 1 || !more {
			t.Errorf("%d sessions, more %v", len(list), more)
		}
		if list, more := table.Of("c", "m", 2); len(list) != 2 || more || !slices.Contains(list, a) {
			t.Errorf("%d sessions, more %v", len(list), more)
		}
		if list, _ := table.Of("c", "other", 2); len(list) != 0 {
			t.Errorf("%d sessions of another model", len(list))
		}
		a.End(Ended)
		open(t, table, q, Opening{Client: "c"})
	})
	t.Run("none is idle", func(t *testing.T) {
		table, q := newTable(t, &spy{}, SessionOptions{Most: 3})
		for range 3 {
			open(t, table, q, Opening{})
		}
		_, err := table.Open(q, "m", Opening{})
		wantCode(t, err, inference.Exhausted)
		if err.(*inference.Error).RetryAfter < 1 {
			t.Error("it does not say when to try again")
		}
	})
	t.Run("the longest idle", func(t *testing.T) {
		var over []string
		table, q := newTable(t, &spy{}, SessionOptions{Most: 3, Spare: time.Nanosecond, OnEnd: func(n *Session, why Reason) {
			if why == Evicted {
				over = append(over, n.ID())
			}
		}})
		var told Reason
		a := open(t, table, q, Opening{ID: "a"})
		open(t, table, q, Opening{ID: "b", OnEnd: func(_ *Session, why Reason) { told = why }})
		open(t, table, q, Opening{ID: "c"})
		do(t, q, job(a, 1, 1)) // b is the longest idle now
		open(t, table, q, Opening{ID: "d"})
		do(t, q, job(a, 1, 1))
		open(t, table, q, Opening{ID: "e"})
		if want := []string{"b", "c"}; !slices.Equal(over, want) || told != Evicted {
			t.Errorf("evicted %v, want %v; the owner was told %q", over, want, told)
		}
		_, err := table.Find("m", "b")
		wantCode(t, err, inference.NotFound)
		if !strings.Contains(err.Error(), string(Evicted)) {
			t.Errorf("a client is told %q", err)
		}
	})
	t.Run("not one that is busy", func(t *testing.T) {
		p := &spy{}
		table, q := newTable(t, p, SessionOptions{Most: 1, Spare: time.Nanosecond})
		n := open(t, table, q, Opening{})
		letGo, _ := busy(t, q, p, n)
		_, err := table.Open(q, "m", Opening{})
		wantCode(t, err, inference.Exhausted)
		letGo()
		empty(t, q)
		open(t, table, q, Opening{})
	})
	t.Run("bytes", func(t *testing.T) {
		s := New(Options{})
		table := NewSessions(s, SessionOptions{Bytes: 10_000, Spare: time.Nanosecond})
		defer table.Stop(Stopped)
		small, large, huge := s.Add(&spy{size: 976}, QueueOptions{}), s.Add(&spy{size: 3976}, QueueOptions{}), s.Add(&spy{size: 20_000}, QueueOptions{})
		for range 10 {
			open(t, table, small, Opening{})
		}
		_, err := table.Open(huge, "m", Opening{})
		wantCode(t, err, inference.Exhausted)
		if n, bytes := table.Count(nil); n != 10 || bytes != 10_000 {
			t.Errorf("a state that can never fit evicted sessions: %d with %d bytes are left", n, bytes)
		}
		open(t, table, large, Opening{})
		if n, bytes := table.Count(small); n != 6 || bytes != 6000 {
			t.Errorf("%d sessions with %d bytes are left, want 6 with 6000", n, bytes)
		}
		if n, bytes := table.Count(large); n != 1 || bytes != 4000 {
			t.Errorf("%d sessions with %d bytes, want 1 with 4000", n, bytes)
		}
	})
	t.Run("states that grow", func(t *testing.T) {
		table, q := newTable(t, &spy{}, SessionOptions{Bytes: 5000})
		n, other := open(t, table, q, Opening{}), open(t, table, q, Opening{})
		for range 4 {
			do(t, q, job(n, 1, grow))
		}
		if _, bytes := table.Count(nil); bytes != 4048 {
			t.Errorf("%d bytes, want 4048", bytes)
		}
		do(t, q, job(n, 1, grow)) // is answered, and then too large
		err := q.Do(context.Background(), job(n, 1, 1))
		wantCode(t, err, inference.NotFound)
		if !strings.Contains(err.Error(), string(Grown)) {
			t.Errorf("got %v", err)
		}
		do(t, q, job(other, 1, 1))
		if n, bytes := table.Count(nil); n != 1 || bytes != 24 {
			t.Errorf("%d sessions with %d bytes are left", n, bytes)
		}
	})
	t.Run("without state", func(t *testing.T) {
		table, _ := newTable(t, &spy{}, SessionOptions{})
		_, err := table.Open(table.s.Add(stateless{&spy{}}, QueueOptions{}), "m", Opening{})
		wantCode(t, err, inference.Unsupported)
	})
}

type stateless struct{ *spy }

func (stateless) NewState() State { return nil }

// TestSessionExpiry lets sessions expire: those that are used do not, and nothing ticks
// when there are none.
func TestSessionExpiry(t *testing.T) {
	var idle atomic.Int64
	table, q := newTable(t, &spy{}, SessionOptions{OnEnd: func(_ *Session, why Reason) {
		if why == Idle {
			idle.Add(1)
		}
	}})
	kept := open(t, table, q, Opening{Life: 300 * time.Millisecond})
	for i := range 50 {
		open(t, table, q, Opening{Life: time.Duration(1+i) * time.Millisecond})
	}
	for range 20 {
		time.Sleep(20 * time.Millisecond)
		do(t, q, job(kept, 1, 1))
	}
	if n, _ := table.Count(nil); n != 1 || idle.Load() != 50 {
		t.Fatalf("%d sessions are left, %d were idle", n, idle.Load())
	}
	eventually(t, "the last expires", func() bool { return idle.Load() == 51 })
	if why := table.Why("m", kept.ID()); why != Idle {
		t.Errorf("over because %q", why)
	}
	resting(t, table)
	open(t, table, q, Opening{Life: time.Millisecond}) // the timer is set again
	eventually(t, "one more expires", func() bool { return idle.Load() == 52 })
	resting(t, table)
}

// resting checks that no timer is set: a table without sessions does nothing.
func resting(t *testing.T, table *Sessions) {
	t.Helper()
	eventually(t, "the timer rests", func() bool {
		table.s.mu.Lock()
		defer table.s.mu.Unlock()
		return table.due.IsZero() && len(table.expiry) == 0
	})
	if table.timer.Stop() {
		t.Error("a timer runs without a session")
	}
}

// TestExpiryIsNoLoop counts how often the timer fires for sessions that are used all the time.
func TestExpiryIsNoLoop(t *testing.T) {
	p := &spy{}
	table, q := newTable(t, p, SessionOptions{})
	n := open(t, table, q, Opening{Life: 200 * time.Millisecond})
	for i := range 100 {
		open(t, table, q, Opening{ID: strconv.Itoa(i), Life: time.Hour})
	}
	fired, last := 0, time.Time{}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		do(t, q, job(n, 1, 1))
		table.s.mu.Lock()
		if table.due != last {
			fired++
			last = table.due
		}
		table.s.mu.Unlock()
	}
	// One firing for each time to live, 5, and not one for each millisecond.
	if fired > 15 {
		t.Errorf("the timer was set %d times in 5 times to live", fired)
	}
	_, err := table.Find("m", n.ID())
	if err != nil {
		t.Error(err)
	}
}

// TestEndWithJobsWaiting ends a session while one job runs and others wait.
func TestEndWithJobsWaiting(t *testing.T) {
	p := &spy{}
	table, q := newTable(t, p, SessionOptions{})
	n := open(t, table, q, Opening{})
	letGo, _ := busy(t, q, p, n)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { wantCode(t, q.Do(context.Background(), job(n, 1, 1)), inference.NotFound) })
	}
	all.Go(func() {
		_, err := n.Save(context.Background())
		wantCode(t, err, inference.NotFound)
	})
	eventually(t, "all wait", func() bool { return q.Stats().Waiting == 6 })
	n.End(Unloaded)
	all.Wait() // before the one that runs ends
	letGo()
	empty(t, q)
	if n, bytes := table.Count(nil); n != 0 || bytes != 0 {
		t.Errorf("%d sessions with %d bytes are left", n, bytes)
	}
}

func TestWatch(t *testing.T) {
	table, q := newTable(t, &spy{}, SessionOptions{})
	n := open(t, table, q, Opening{})
	told := map[string]Reason{}
	watch := func(name string) func() { return n.Watch(func(_ *Session, why Reason) { told[name] = why }) }
	watch("a")
	stop := watch("b")
	watch("c")
	stop()
	stop()
	n.End(Gone)
	watch("late")
	if fmt.Sprint(told) != fmt.Sprint(map[string]Reason{"a": Gone, "c": Gone, "late": Gone}) {
		t.Errorf("told %v", told)
	}
}

// TestAlone saves a session between its jobs, while others use all executors.
func TestAlone(t *testing.T) {
	p := &spy{}
	s := New(Options{Executors: 1})
	table := NewSessions(s, SessionOptions{})
	defer table.Stop(Stopped)
	q := s.Add(p, QueueOptions{})
	n := open(t, table, q, Opening{})
	var all sync.WaitGroup
	stop := make(chan struct{})
	for c := range 3 {
		other := open(t, table, q, Opening{})
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = q.Do(context.Background(), job(other, int64(c+10), 1))
				}
			}
		})
	}
	for i := range 200 {
		if err := q.Submit(context.Background(), job(n, 5, int64(i))); err != nil {
			t.Fatal(err)
		}
		err := n.Alone(context.Background(), func(st State) error {
			if count := st.(*spyState).count; count != int64(i+1) {
				t.Errorf("alone behind %d jobs: the state has seen %d", i+1, count)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		_ = n.Alone(context.Background(), func(State) error { panic("oh") })
	}()
	do(t, q, job(n, 5, 1)) // the session is not stuck
	close(stop)
	all.Wait()
	empty(t, q)
}

func TestSaved(t *testing.T) {
	table, q := newTable(t, &spy{fingerprint: "weights"}, SessionOptions{})
	n := open(t, table, q, Opening{ID: "a", Life: time.Hour})
	for i := range 5 {
		do(t, q, job(n, 7, int64(i)))
	}
	b, err := n.Save(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	table2, q2 := newTable(t, &spy{fingerprint: "weights"}, SessionOptions{})
	saved, err := ReadSaved(b)
	if err != nil || saved.ID != "a" || saved.Model != "m" || saved.Life != time.Hour {
		t.Fatalf("read %+v: %v", saved, err)
	}
	m, err := table2.Restore(q2, "m", saved, Opening{Client: "c"})
	if err != nil || m.ID() != "a" || m.Life() != time.Hour || m.Client() != "c" {
		t.Fatalf("restored %+v: %v", m, err)
	}
	x, y := job(n, 7, 9), job(m, 7, 9)
	do(t, q, x)
	do(t, q2, y)
	if !slices.Equal(x.Outputs[0].Ints, y.Outputs[0].Ints) {
		t.Errorf("the original says %v, the restored one %v", x.Outputs[0].Ints, y.Outputs[0].Ints)
	}
	_, err = table2.Restore(q2, "m", saved, Opening{})
	wantCode(t, err, inference.Exists)
	other, err := table2.Restore(q2, "m", saved, Opening{ID: "copy", Life: time.Minute})
	if err != nil || other.ID() != "copy" || other.Life() != time.Minute {
		t.Errorf("restored %+v: %v", other, err)
	}
	_, err = table2.Restore(table2.s.Add(&spy{fingerprint: "others"}, QueueOptions{}), "m", saved, Opening{ID: "b"})
	wantCode(t, err, inference.Invalid)
	if !strings.Contains(err.Error(), "other weights") {
		t.Errorf("got %v", err)
	}
	for i := range b { // each byte is covered
		bad := slices.Clone(b)
		bad[i] ^= 0x40
		_, err := ReadSaved(bad)
		wantCode(t, err, inference.Invalid)
		_, err = ReadSaved(b[:i])
		wantCode(t, err, inference.Invalid)
	}
	_, err = ReadSaved(append(slices.Clone(b), 0))
	wantCode(t, err, inference.Invalid)
	saved.state = saved.state[:20]
	_, err = table2.Restore(q2, "m", saved, Opening{ID: "d"})
	wantCode(t, err, inference.Invalid)
}

func FuzzReadSaved(f *testing.F) {
	table, q := newTable(f, &spy{fingerprint: "weights"}, SessionOptions{})
	b, err := open(f, table, q, Opening{ID: "a"}).Save(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ReadSaved(b)
		if err != nil {
			wantCode(t, err, inference.Invalid)
			return
		}
		if n := len(s.ID) + len(s.Model) + len(s.Fingerprint) + len(s.state); n > len(b) || s.Life <= 0 {
			t.Errorf("%d bytes from %d, a life of %v", n, len(b), s.Life)
		}
	})
}

// inUse returns the bytes in use and the number of goroutines.
func inUse() (bytes int64, goroutines int) {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine()
}

// TestDroppedSessionsLeaveNothing opens and ends 50,000 sessions, all at once and one after
// the other, of as many clients.
func TestDroppedSessionsLeaveNothing(t *testing.T) {
	table, q := newTable(t, &spy{size: 2048}, SessionOptions{})
	ballast := make([]byte, 8<<20) // of a server with a small model
	round := func(n int, why Reason) {
		list := make([]*Session, n)
		for i := range list {
			list[i] = open(t, table, q, Opening{Client: fmt.Sprintf("client %d", i)})
		}
		do(t, q, job(list[0], 1, 1))
		for i, one := range list {
			if i%2 == 0 {
				one.End(why)
			}
		}
		for i := len(list) - 1; i >= 0; i-- {
			list[i].End(why)
		}
	}
	round(2000, Idle) // the keys that are remembered
	before, goroutines := inUse()
	round(50_000, Ended)
	for range 50_000 {
		open(t, table, q, Opening{Client: "one"}).End(Gone)
	}
	after, more := inUse()
	runtime.KeepAlive(ballast)
	if grown := float64(after-before) / float64(before); grown > 0.05 || more > goroutines {
		t.Errorf("heap %d before and %d after, %.1f %%; goroutines %d and %d", before, after, 100*grown, goroutines, more)
	}
	if n, bytes := table.Count(nil); n != 0 || bytes != 0 || len(table.ended) > rememberedEnds {
		t.Errorf("left: %d sessions, %d bytes, %d reasons", n, bytes, len(table.ended))
	}
}

// TestIdleSessionsAreSmall measures 10,000 sessions with states of 2 KiB.
func TestIdleSessionsAreSmall(t *testing.T) {
	table, q := newTable(t, &spy{size: 2048}, SessionOptions{})
	before, goroutines := inUse()
	for i := range 10_000 {
		do(t, q, job(open(t, table, q, Opening{Client: strconv.Itoa(i % 100)}), 1, 1))
	}
	after, more := inUse()
	if each := float64(after-before) / 10_000; each > 1.5*2048 || more > goroutines {
		t.Errorf("a session takes %.0f bytes, want at most 1.5 of 2048; goroutines %d and %d", each, goroutines, more)
	}
	if _, bytes := table.Count(q); bytes != 10_000*(2048+24) {
		t.Errorf("the table counts %d bytes", bytes)
	}
}
