package par

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

type sums struct{ hits []int32 }

func TestForCoversEveryIndexOnce(t *testing.T) {
	defer SetWorkers(0)
	for _, workers := range []int{1, 2, 3, 7} {
		SetWorkers(workers)
		for _, n := range []int{0, 1, 2, 5, 64, 1000} {
			for _, grain := range []int{0, 1, 3, 100} {
				s := &sums{make([]int32, n)}
				For(n, grain, s, func(s *sums, lo, hi int) {
					if lo >= hi {
						t.Errorf("empty range [%d,%d)", lo, hi)
					}
					for i := lo; i < hi; i++ {
						s.hits[i]++
					}
				})
				for i, h := range s.hits {
					if h != 1 {
						t.Fatalf("workers %d n %d grain %d: index %d ran %d times", workers, n, grain, i, h)
					}
				}
			}
		}
	}
}

func TestForFromManyGoroutinesAndNested(t *testing.T) {
	defer SetWorkers(0)
	SetWorkers(4)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				s := &sums{make([]int32, 40)}
				For(4, 1, s, func(s *sums, lo, hi int) {
					for i := lo; i < hi; i++ {
						inner := &sums{s.hits[i*10 : i*10+10]}
						For(10, 1, inner, func(s *sums, lo, hi int) {
							for i := lo; i < hi; i++ {
								s.hits[i]++
							}
						})
					}
				})
				for i, h := range s.hits {
					if h != 1 {
						t.Errorf("index %d ran %d times", i, h)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestForRaisesPanicsInTheCaller(t *testing.T) {
	defer SetWorkers(0)
	SetWorkers(4)
	defer func() {
		if r := recover(); r != "part 3" {
			t.Fatalf("recovered %v, want the body's own panic", r)
		}
	}()
	For(4, 1, &sums{}, func(_ *sums, lo, hi int) {
		if lo == 3 {
			panic("part 3")
		}
	})
}

// A worker that is busy when a loop begins comes as soon as it is done: loops
// follow each other so closely that it has often not yet left the last one.
func TestBusyWorkersComeLater(t *testing.T) {
	defer SetWorkers(0)
	SetWorkers(2)
	For(2, 1, &sums{}, func(*sums, int, int) {}) // a worker at least
	all := int(started.Load()) + 1
	SetWorkers(all)
	for idle.Load() < started.Load() { // a worker may still be on its way
		runtime.Gosched()
	}
	var held sync.WaitGroup
	held.Add(all)
	release, came := make(chan struct{}), make(chan struct{})
	go For(all, 1, &sums{}, func(*sums, int, int) {
		held.Done()
		<-release
	})
	held.Wait()
	For(2, 1, &sums{}, func(_ *sums, lo, _ int) {
		if lo == 1 {
			close(came)
			return
		}
		close(release)
		select {
		case <-came:
		case <-time.After(10 * time.Second):
			t.Error("no worker came")
		}
	})
}

func TestForAllocatesNothing(t *testing.T) {
	SetWorkers(2) // AllocsPerRun runs on one processor, where a loop would not be split
	defer SetWorkers(0)
	s := &sums{make([]int32, 1000)}
	loop := func() {
		For(1000, 1, s, func(s *sums, lo, hi int) {
			for i := lo; i < hi; i++ {
				s.hits[i]++
			}
		})
	}
	loop()
	if n := testing.AllocsPerRun(100, loop); n != 0 {
		t.Fatalf("%v allocations a loop, want 0", n)
	}
}

func TestGangMeetsAtBarriers(t *testing.T) {
	defer SetWorkers(0)
	for _, workers := range []int{1, 2, 5} {
		SetWorkers(workers)
		for range 50 {
			s := &sums{make([]int32, 64)}
			Gang(s, func(s *sums, m Member) {
				for round := range int32(20) {
					lo, hi := m.Share(len(s.hits))
					for i := lo; i < hi; i++ {
						if s.hits[i] != round {
							t.Errorf("round %d found %d", round, s.hits[i])
						}
						s.hits[i]++
					}
					m.Barrier()
					if s.hits[0] != round+1 || s.hits[len(s.hits)-1] != round+1 {
						t.Errorf("passed barrier %d before all had come", round)
					}
					m.Barrier()
				}
			})
		}
	}
}

func TestGangRaisesPanics(t *testing.T) {
	defer SetWorkers(0)
	SetWorkers(3)
	defer func() {
		if r := recover(); r != "gone" {
			t.Fatalf("recovered %v, want the member's own panic", r)
		}
	}()
	Gang(&sums{}, func(_ *sums, m Member) {
		if lo, _ := m.Share(3); lo == 0 {
			panic("gone")
		}
		m.Barrier()
	})
}

// A member that keeps the others waiting ends the gang: all learn it at the same
// barrier. It keeps on doing so, since a wait only counts if a waiting member has a
// core meanwhile.
func TestGangEndsTogether(t *testing.T) {
	defer SetWorkers(0)
	SetWorkers(3)
	type gang struct {
		passed [3]int
		met    bool
	}
	for range 20 {
		g := &gang{}
		Gang(g, func(g *gang, m Member) {
			lo, hi := m.Share(3)
			if m.First() {
				g.met = m.Members() > 1
			}
			for together := true; together && g.passed[lo] < 1000; {
				if m.First() && g.passed[lo] >= 5 {
					time.Sleep(5 * patience)
				}
				together = m.Barrier()
				for i := lo; i < hi; i++ {
					g.passed[i]++
				}
			}
		})
		if g.passed[0] != g.passed[1] || g.passed[0] != g.passed[2] {
			t.Fatalf("the members passed %v barriers", g.passed)
		}
		if g.met && g.passed[0] == 1000 {
			t.Fatal("the gang never ended")
		}
	}
}

// A caller that waits for long sleeps, and is woken whoever finishes the last part.
func TestCallersSleep(t *testing.T) {
	defer SetWorkers(0)
	SetWorkers(4)
	var all sync.WaitGroup
	for caller := range 6 {
		all.Go(func() {
			for i := range 30 {
				s := &sums{make([]int32, 4)}
				For(4, 1, s, func(s *sums, lo, hi int) {
					for k := lo; k < hi; k++ {
						if k == (caller+i)%4 {
							time.Sleep(3 * patient)
						}
						s.hits[k]++
					}
				})
				if !slices.Equal(s.hits, []int32{1, 1, 1, 1}) {
					t.Errorf("returned with %v", s.hits)
				}
			}
		})
	}
	all.Wait()
}
