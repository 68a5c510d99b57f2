package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/tune"
)

// A handle is one worker's connection to a store. Each test begins with an empty one.
type handle func() tune.Store

// stores are the kinds of stores, all of which keep the same laws.
func stores() map[string]func(t *testing.T) handle {
	opened := func(t *testing.T, address string) handle {
		return func() tune.Store {
			s, err := Open(t.Context(), address, true)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			return s
		}
	}
	return map[string]func(t *testing.T) handle{
		"memory": func(*testing.T) handle {
			s := tune.NewMemory()
			return func() tune.Store { return s }
		},
		"sqlite":   func(t *testing.T) handle { return opened(t, filepath.Join(t.TempDir(), "study.db")) },
		"postgres": func(t *testing.T) handle { return opened(t, newPostgresStudy(t)) },
	}
}

// everywhere runs a test on each kind of store.
func everywhere(t *testing.T, test func(t *testing.T, open handle)) {
	for name, begin := range stores() {
		t.Run(name, func(t *testing.T) { test(t, begin(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got the error %v, expected %v", got, want)
	}
}

// same compares, NaN being the same as itself.
func same(t *testing.T, got, want any) {
	t.Helper()
	if a, b := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); a != b {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

func running(n int) *tune.Piece {
	return &tune.Piece{N: n, Trial: n, Worker: "w", State: tune.Running, Values: tune.Values{"x": 0.5}}
}

// all returns all pieces as values.
func all(t *testing.T, s tune.Store, since int64) (list []tune.Piece, revision int64) {
	t.Helper()
	pieces, revision, err := s.Read(t.Context(), since)
	must(t, err)
	for _, p := range pieces {
		list = append(list, *p)
	}
	return list, revision
}

func TestHeader(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a, b := open(), open()
		h, err := b.Header(t.Context())
		if h != nil || err != nil {
			t.Fatal(h, err)
		}
		first := &tune.Header{Version: 3, Options: tune.Options{Seed: math.MaxUint64, Trials: 5, Objectives: []tune.Objective{{Name: "loss"}}}, Space: "x: {low: 0, high: 1}\n", Subject: "<ä>", Data: "d"}
		must(t, a.Create(t.Context(), first))
		wantErr(t, b.Create(t.Context(), &tune.Header{Version: 4}), tune.ErrTaken)
		h, err = b.Header(t.Context())
		must(t, err)
		if !reflect.DeepEqual(h, first) {
			t.Errorf("got %+v", h)
		}
	})
}

// What is written comes back with every bit and type.
func TestRoundTrip(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a, b := open(), open()
		ctx := t.Context()
		first := tune.Piece{N: 0, Trial: 0, From: 2, Until: 9, Origin: "default", Worker: "host/1", State: tune.Running,
			Values: tune.Values{"lr": 3.0, "tiny": 5e-324, "huge": math.MaxFloat64, "third": 1.0 / 3, "n": -7, "big": 1 << 53, "cell": "3.0", "odd": "a\"b<ü\x01"}}
		must(t, a.Add(ctx, &first, time.Hour))
		points := []tune.Point{
			{At: 1, Steps: 1 << 40, Values: []float64{math.NaN(), math.Inf(1), math.Inf(-1)}},
			{At: 3, Values: []float64{math.Copysign(0, -1), 0, 1e21}},
		}
		for _, p := range points {
			must(t, a.Report(ctx, 0, 1, p))
		}
		end := first
		end.Epoch, end.State, end.Result, end.Seconds = 1, tune.Complete, []float64{0.1, 2}, 1.25
		end.Measures = map[string]float64{"latency": math.NaN(), "size": 1e6, "x y": -3}
		end.Values, end.Worker, end.Points, end.Origin = nil, "", nil, "" // those are not Finish's
		must(t, a.Finish(ctx, &end, true))
		must(t, b.Add(ctx, &tune.Piece{N: 1, Trial: -1, State: tune.Idle}, time.Hour))
		must(t, b.Add(ctx, &tune.Piece{N: 2, Trial: 1, State: tune.Running, Values: tune.Values{}}, time.Hour))
		must(t, b.Finish(ctx, &tune.Piece{N: 2, Epoch: 1, State: tune.Failed, Error: "it said: \xff\x00 no"}, true))

		want := first
		want.Epoch, want.State, want.Result, want.Measures, want.Seconds, want.Points = 1, tune.Complete, end.Result, end.Measures, 1.25, points
		list, _ := all(t, b, 0)
		if len(list) != 3 {
			t.Fatal(list)
		}
		same(t, list[0], want)
		same(t, list[1], tune.Piece{N: 1, Trial: -1, Epoch: 1, State: tune.Idle})
		if list[2].State != tune.Failed || list[2].Values == nil || list[2].Error == "" {
			t.Errorf("%+v", list[2])
		}
		if _, isInt := list[0].Values["n"].(int); !isInt {
			t.Errorf("%T", list[0].Values["n"])
		}
	})
}

func TestAdd(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a, b := open(), open()
		must(t, a.Add(t.Context(), running(0), time.Hour))
		wantErr(t, b.Add(t.Context(), running(0), time.Hour), tune.ErrTaken)
		if err := b.Add(t.Context(), running(2), time.Hour); err == nil || errors.Is(err, tune.ErrTaken) {
			t.Error("a gap was left:", err)
		}
		must(t, b.Add(t.Context(), running(1), time.Hour))
		if list, _ := all(t, a, 0); len(list) != 2 || list[1].Epoch != 1 {
			t.Error(list)
		}
	})
}

// A worker whose lease has ended keeps its piece until another takes it; then it can write no more.
func TestFencing(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a, b := open(), open()
		ctx := t.Context()
		must(t, a.Add(ctx, running(0), time.Hour))
		if list, err := b.Expired(ctx); len(list) > 0 || err != nil {
			t.Fatal(list, err)
		}
		wantErr(t, b.Steal(ctx, 0, 1, "thief", time.Hour), tune.ErrTaken)
		must(t, a.Checkpoint(ctx, 0, 1, []byte("first")))

		must(t, a.Renew(ctx, 0, 1, 0)) // it ends now
		must(t, a.Report(ctx, 0, 1, tune.Point{At: 1, Values: []float64{1}}))
		must(t, a.Add(ctx, running(1), 0))
		must(t, a.Add(ctx, &tune.Piece{N: 2, Trial: -1, State: tune.Idle}, 0))
		list, err := b.Expired(ctx)
		if err != nil || !slices.Equal(list, []int{0, 1}) {
			t.Fatal(list, err)
		}
		must(t, a.Renew(ctx, 0, 1, time.Hour)) // not too late
		wantErr(t, b.Steal(ctx, 0, 1, "thief", time.Hour), tune.ErrTaken)
		must(t, a.Renew(ctx, 0, 1, 0))
		wantErr(t, b.Steal(ctx, 0, 2, "thief", time.Hour), tune.ErrTaken)
		wantErr(t, b.Steal(ctx, 7, 1, "thief", time.Hour), tune.ErrTaken)
		must(t, b.Steal(ctx, 0, 1, "thief", time.Hour))
		wantErr(t, a.Steal(ctx, 0, 1, "again", time.Hour), tune.ErrTaken)

		wantErr(t, a.Renew(ctx, 0, 1, time.Hour), tune.ErrFenced)
		wantErr(t, a.Report(ctx, 0, 1, tune.Point{At: 2, Values: []float64{9}}), tune.ErrFenced)
		wantErr(t, a.Checkpoint(ctx, 0, 1, []byte("late")), tune.ErrFenced)
		wantErr(t, a.Checkpoint(ctx, 0, 1, nil), tune.ErrFenced)
		late := running(0)
		late.Epoch, late.State, late.Result = 1, tune.Complete, []float64{9}
		_, before := all(t, a, 0)
		wantErr(t, a.Finish(ctx, late, true), tune.ErrFenced)
		if list, after := all(t, a, before); len(list) > 0 || after != before {
			t.Error("what was refused has changed something", list, after, before)
		}
		blob, err := b.Restore(ctx, 0, 0)
		if string(blob) != "first" || err != nil {
			t.Fatal(string(blob), err)
		}
		late.Epoch, late.Result = 2, []float64{3}
		must(t, b.Finish(ctx, late, true))
		wantErr(t, b.Finish(ctx, late, true), tune.ErrFenced)
		wantErr(t, b.Renew(ctx, 0, 2, time.Hour), tune.ErrFenced)
		wantErr(t, b.Renew(ctx, 9, 1, time.Hour), tune.ErrFenced)
		wantErr(t, b.Steal(ctx, 0, 2, "thief", time.Hour), tune.ErrTaken)
		pieces, _ := all(t, a, 0)
		if p := pieces[0]; p.Epoch != 2 || p.Worker != "thief" || p.Result[0] != 3 || len(p.Points) != 1 {
			t.Errorf("%+v", p)
		}
		if list, err := b.Expired(ctx); !slices.Equal(list, []int{1}) || err != nil {
			t.Fatal(list, err)
		}
	})
}

// A point takes the place of those that are not before it.
func TestReport(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a := open()
		must(t, a.Add(t.Context(), running(0), time.Hour))
		for i, at := range []int{1, 2, 5, 9, 5, 7} {
			must(t, a.Report(t.Context(), 0, 1, tune.Point{At: at, Steps: 10 * at, Values: []float64{float64(i)}}))
		}
		list, _ := all(t, a, 0)
		same(t, list[0].Points, []tune.Point{{At: 1, Steps: 10, Values: []float64{0}}, {At: 2, Steps: 20, Values: []float64{1}}, {At: 5, Steps: 50, Values: []float64{4}}, {At: 7, Steps: 70, Values: []float64{5}}})
	})
}

func TestCheckpoint(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a, b := open(), open()
		ctx := t.Context()
		if blob, err := a.Restore(ctx, 0, 0); blob != nil || err != nil {
			t.Fatal(blob, err)
		}
		big := make([]byte, 9<<20)
		r := rand.NewChaCha8([32]byte{1})
		r.Read(big)
		finish := func(n int, state tune.State, discard bool) {
			must(t, a.Finish(ctx, &tune.Piece{N: n, Epoch: 1, State: state}, discard))
		}
		for n := range 3 {
			must(t, a.Add(ctx, running(n), time.Hour))
			must(t, a.Checkpoint(ctx, n, 1, []byte{1}))
			must(t, a.Checkpoint(ctx, n, 1, append(big, byte(n))))
		}
		must(t, a.Checkpoint(ctx, 1, 1, nil))
		finish(2, tune.Paused, false)
		again := running(3)
		again.Trial = 2
		must(t, a.Add(ctx, again, time.Hour)) // trial 2 goes on
		for trial, want := range [][]byte{append(big, 0), nil, append(big, 2)} {
			if blob, err := b.Restore(ctx, trial, 0); err != nil || !slices.Equal(blob, want) || (blob == nil) != (want == nil) {
				t.Errorf("trial %d: %d bytes, %v", trial, len(blob), err)
			}
		}
		finish(0, tune.Complete, true)
		must(t, b.Checkpoint(ctx, 3, 1, []byte{}))
		for trial, want := range [][]byte{nil, nil, {}} {
			if blob, err := b.Restore(ctx, trial, 0); err != nil || len(blob) > 0 || (blob == nil) != (want == nil) {
				t.Errorf("trial %d: %v, %v", trial, blob, err)
			}
		}
	})
}

// Checkpoints are removed of the trials whose last pieces are named, and repeats have their own.
func TestDiscard(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a, b := open(), open()
		ctx := t.Context()
		for n := range 4 {
			must(t, a.Add(ctx, running(n), time.Hour))
			must(t, a.Checkpoint(ctx, n, 1, []byte{byte(n)}))
			must(t, a.Finish(ctx, &tune.Piece{N: n, Epoch: 1, State: tune.Paused}, false))
		}
		again := running(4)
		again.Trial = 2 // goes on
		must(t, b.Add(ctx, again, time.Hour))
		repeat := running(5)
		repeat.Trial, repeat.Seed = 1, 3
		must(t, b.Add(ctx, repeat, time.Hour))
		must(t, b.Checkpoint(ctx, 5, 1, []byte{5}))
		_, before := all(t, b, 0)
		must(t, a.Discard(ctx, []int{1, 2, 3}))
		must(t, a.Discard(ctx, []int{1}))
		must(t, a.Discard(ctx, nil))
		for run, want := range map[[2]int][]byte{{0, 0}: {0}, {1, 0}: nil, {1, 3}: {5}, {2, 0}: {2}, {3, 0}: nil} {
			if blob, err := b.Restore(ctx, run[0], run[1]); err != nil || !slices.Equal(blob, want) {
				t.Errorf("trial %d, seed %d: %v instead of %v, %v", run[0], run[1], blob, want, err)
			}
		}
		if list, _ := all(t, b, before); len(list) > 0 {
			t.Error("pieces have changed", list)
		}
		pieces, _ := all(t, b, 0)
		if p := pieces[5]; p.Trial != 1 || p.Seed != 3 || pieces[1].Seed != 0 {
			t.Errorf("%+v", p)
		}
		end := *repeat
		end.Epoch, end.State = 1, tune.Complete
		must(t, b.Finish(ctx, &end, true))
		for run, want := range map[[2]int][]byte{{0, 0}: {0}, {1, 3}: nil} {
			if blob, err := a.Restore(ctx, run[0], run[1]); err != nil || !slices.Equal(blob, want) {
				t.Errorf("trial %d, seed %d: %v instead of %v, %v", run[0], run[1], blob, want, err)
			}
		}
	})
}

func TestQueue(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a := open()
		var wg sync.WaitGroup
		for w := range 4 {
			s := open()
			wg.Go(func() {
				for i := range 6 {
					if err := s.Enqueue(t.Context(), tune.Values{"w": w, "i": float64(i)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		var seen []tune.Values // a prefix of the whole queue at any time
		for len(seen) < 24 && !t.Failed() {
			now, err := a.Queue(t.Context())
			must(t, err)
			if len(now) < len(seen) || !reflect.DeepEqual(now[:len(seen)], seen) && len(seen) > 0 {
				t.Fatalf("the queue was %v and is %v", seen, now)
			}
			seen = now
		}
		wg.Wait()
		next := map[any]float64{}
		for _, v := range seen {
			if v["i"] != next[v["w"]] {
				t.Fatal("what one worker added is not in its order", seen)
			}
			next[v["w"]]++
		}
	})
}

func TestTexts(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		a, b := open(), open()
		ctx := t.Context()
		set := func(s tune.Store, name, old, text string, want error) {
			t.Helper()
			wantErr(t, s.Set(ctx, name, old, text), want)
		}
		if text, err := a.Get(ctx, "x"); text != "" || err != nil {
			t.Fatal(text, err)
		}
		odd := "a\x00b\xff\n'ü"
		set(a, "x", "", odd, nil)
		set(b, "x", "", "2", tune.ErrTaken)
		set(b, "x", "1", "2", tune.ErrTaken)
		set(b, "y", "1", "2", tune.ErrTaken)
		set(b, "x", odd, "2", nil)
		for _, name := range []string{"r/10", "r/9", "R/1", "r", "r/ü", "r0"} {
			set(a, name, "", "1", nil)
		}
		set(a, "r/9", "1", "", nil) // as if it had never been there
		if text, err := a.Get(ctx, "x"); text != "2" || err != nil {
			t.Error(text, err)
		}
		set(b, "r/9", "", "1", nil)

		// Of several that set the same at once, one succeeds.
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := map[string]int{}
		for w := range 4 {
			s := open()
			wg.Go(func() {
				for i := range 8 {
					name := fmt.Sprint("claim/", i)
					switch err := s.Set(ctx, name, "", fmt.Sprint(w)); {
					case err == nil:
						mu.Lock()
						won[name]++
						mu.Unlock()
					case !errors.Is(err, tune.ErrTaken):
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for name, n := range won {
			if n != 1 {
				t.Errorf("%s was won %d times", name, n)
			}
		}
		if len(won) != 8 {
			t.Error(won)
		}
	})
}

// Who reads on from revision to revision ends with what is there, however many write at once.
func TestRevisions(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		const writers, rounds = 4, 12
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range writers {
			s := open()
			wg.Go(func() {
				for n := 0; n < writers*rounds; {
					switch err := s.Add(ctx, running(n), time.Hour); {
					case errors.Is(err, tune.ErrTaken):
					case err != nil:
						t.Error(err)
						return
					default:
						for at := range 3 {
							if err := s.Report(ctx, n, 1, tune.Point{At: at, Values: []float64{float64(at)}}); err != nil {
								t.Error(err)
							}
						}
						end := running(n)
						end.Epoch, end.State, end.Result = 1, tune.Complete, []float64{float64(n)}
						if err := s.Finish(ctx, end, true); err != nil {
							t.Error(err)
						}
					}
					n++
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		var readers sync.WaitGroup
		for range 2 {
			s := open()
			readers.Go(func() {
				var known []*tune.Piece
				var since int64
				for last := false; ; {
					changed, revision, err := s.Read(ctx, since)
					if err != nil {
						t.Error(err)
						return
					}
					if revision < since || (revision == since) != (len(changed) == 0) {
						t.Errorf("revision %d after %d with %d changes", revision, since, len(changed))
					}
					for _, p := range changed {
						if p.N == len(known) {
							known = append(known, p)
						} else if p.N < len(known) {
							known[p.N] = p
						} else {
							t.Errorf("piece %d came before piece %d", p.N, len(known))
							return
						}
					}
					since = revision
					if last {
						break
					}
					select {
					case <-done:
						last = true
					default:
					}
				}
				if len(known) != writers*rounds {
					t.Errorf("%d pieces of %d", len(known), writers*rounds)
				}
				for _, p := range known {
					if p.State != tune.Complete || len(p.Points) != 3 {
						t.Errorf("a change of piece %d was missed: %+v", p.N, p)
					}
				}
			})
		}
		readers.Wait()
		<-done
		cancel()
	})
}

// Of several that take an expired piece, one gets it.
func TestStealRace(t *testing.T) {
	everywhere(t, func(t *testing.T, open handle) {
		first := open()
		ctx := t.Context()
		must(t, first.Add(ctx, running(0), 0))
		var wg sync.WaitGroup
		var mu sync.Mutex
		wins := map[int]int{}
		for w := range 4 {
			s := open()
			wg.Go(func() {
				for epoch := 1; epoch <= 10; epoch++ {
					switch err := s.Steal(ctx, 0, epoch, fmt.Sprint(w), 0); {
					case err == nil:
						mu.Lock()
						wins[epoch]++
						mu.Unlock()
					case !errors.Is(err, tune.ErrTaken):
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for epoch, n := range wins {
			if n != 1 {
				t.Errorf("epoch %d was taken %d times", epoch, n)
			}
		}
		list, _ := all(t, first, 0)
		if list[0].Epoch != len(wins)+1 {
			t.Error(list[0].Epoch, wins)
		}
	})
}
