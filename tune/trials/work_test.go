package trials

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tune"
	"github.com/carousel-ml/carousel/tune/store"
)

// made is a subject of tests: x² plus noise of the seed, with a checkpoint after each of nine units.
type made struct {
	tries  atomic.Int64
	during func(ctx context.Context, r *Run, at int) error
}

func (m *made) Name() string                  { return "made" }
func (m *made) Data() string                  { return "" }
func (m *made) Objectives() []tune.Objective  { return []tune.Objective{{Name: "value"}} }
func (m *made) Units() int                    { return 9 }
func (m *made) Resumable() bool               { return true }
func (m *made) Measured(*tune.Space) []string { return nil }
func (m *made) Check(*tune.Space) error       { return nil }

func (m *made) Try(ctx context.Context, r *Run) (*Score, error) {
	m.tries.Add(1)
	at := 0
	if r.Checkpoint != nil {
		at = int(r.Checkpoint[0])
		if r.Resume(at) {
			return m.score(r, at), nil
		}
	}
	for at++; at <= 9; at++ {
		if m.during != nil {
			if err := m.during(ctx, r, at); err != nil {
				return nil, err
			}
		}
		stop, err := r.Report(at, at, m.score(r, at).Values)
		if err != nil {
			return nil, err
		}
		if err := r.Save([]byte{byte(at)}); err != nil {
			return nil, err
		}
		if stop {
			return m.score(r, at), nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return m.score(r, 9), nil
}

func (m *made) score(r *Run, at int) *Score {
	x := r.Values["x"].(float64)
	return &Score{Values: []float64{x*x + 1/float64(at) + 0.01*math.Sin(float64(100*r.Trial)+float64(r.Seed))}}
}

func trialsOf(t testing.TB, s *tune.Study) (list []*tune.Record, text string) {
	list, err := s.Trials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		text += fmt.Sprintln(r.Number, r.Values, r.State, r.Results, r.Curve, r.Error)
	}
	return list, text
}

// Work that is cancelled again and again has the trials of work that was not, and does no unit twice.
func TestGivenBack(t *testing.T) {
	for _, pruner := range []string{"asha", "median", "patient", "none"} {
		t.Run(pruner, func(t *testing.T) { givenBack(t, pruner) })
	}
}

func givenBack(t *testing.T, pruner string) {
	o := tune.Options{Trials: 12, Sampler: "random", Pruner: pruner, Lag: 2, Seed: 4}
	m := &made{}
	whole := study(t, m, space(t, line), tune.NewMemory(), o)
	if err := Work(t.Context(), whole, m, &Options{}); err != nil {
		t.Fatal(err)
	}
	list, want := trialsOf(t, whole)
	if !slices.ContainsFunc(list, func(r *tune.Record) bool { return r.State == tune.Complete }) {
		t.Fatal(want)
	}
	memory := tune.NewMemory()
	units := map[string]int{}
	for try := 0; ; try++ {
		ctx, cancel := context.WithCancel(t.Context())
		m := &made{during: func(_ context.Context, r *Run, at int) error {
			units[fmt.Sprint(r.Trial, " ", at)]++
			if len(units)%4 == 3 {
				cancel()
			}
			return nil
		}}
		s := study(t, m, space(t, line), memory, o)
		err := Work(ctx, s, m, &Options{})
		cancel()
		if err == nil {
			if _, got := trialsOf(t, s); got != want || try < 3 {
				t.Errorf("after %d tries:\n%s\ninstead of\n%s", try, got, want)
			}
			break
		}
		if !errors.Is(err, context.Canceled) || try > 50 {
			t.Fatal(err)
		}
	}
	for unit, n := range units {
		if n > 1 {
			t.Errorf("unit %s was done %d times", unit, n)
		}
	}
}

// When the time is up runs are paused, the study says so, and a longer time goes on.
func TestTime(t *testing.T) {
	m := &made{}
	o := tune.Options{Trials: 4, Sampler: "random", Lag: 1}
	memory := tune.NewMemory()
	s := study(t, m, space(t, line), memory, o)
	m.during = func(ctx context.Context, r *Run, at int) error {
		if r.Trial == 1 && at == 5 {
			<-ctx.Done()
		}
		return nil
	}
	if err := Work(t.Context(), s, m, &Options{Workers: 2, Time: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if text, err := memory.Get(t.Context(), Ended); err != nil || text != "by its time of 300ms" {
		t.Error(text, err)
	}
	m.during = nil
	before := m.tries.Load()
	if err := Work(t.Context(), s, m, &Options{Time: time.Hour}); err != nil {
		t.Fatal(err)
	}
	list, text := trialsOf(t, s)
	if ended, _ := memory.Get(t.Context(), Ended); ended != "" || len(list) != 4 || list[1].State != tune.Complete || before < 2 {
		t.Error(ended, text)
	}
}

// A trial that takes its worker with it again and again is a failure, and so are panics.
func TestLost(t *testing.T) {
	m := &made{}
	memory := tune.NewMemory()
	s := study(t, m, space(t, line), memory, tune.Options{Trials: 2, Sampler: "random"})
	s.SetLease(0)
	for range mostLost {
		if _, err := s.Ask(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s = study(t, m, space(t, line), memory, tune.Options{Trials: 2, Sampler: "random"})
	m.during = func(_ context.Context, r *Run, at int) error {
		if r.Trial == 1 && at == 2 {
			panic("out of luck")
		}
		return nil
	}
	var notes []string
	if err := Work(t.Context(), s, m, &Options{Note: func(text string) { notes = append(notes, text) }}); err != nil {
		t.Fatal(err)
	}
	list, text := trialsOf(t, s)
	if list[0].Error != fmt.Sprintf("its worker was lost %d times in a row; it may need more memory than there is", mostLost) || list[1].Error != "it panicked: out of luck" || len(notes) != 2 {
		t.Error(text, notes)
	}
}

// A run that asks for more memory than there is fails, and others go on.
func TestMemory(t *testing.T) {
	m := &made{}
	m.during = func(_ context.Context, r *Run, at int) error {
		if r.Trial == 1 && at == 2 {
			device.Admit(1 << 40)
		}
		if r.Trial == 2 && at == 2 {
			device.Admit(1 << 20)
		}
		return nil
	}
	s := study(t, m, space(t, line), tune.NewMemory(), tune.Options{Trials: 3, Sampler: "random"})
	if err := Work(t.Context(), s, m, &Options{Memory: 1 << 31}); err != nil {
		t.Fatal(err)
	}
	list, text := trialsOf(t, s)
	if list[1].Error != "out of memory: it needs 1048576 MiB, and its share is 2048 MiB; a smaller batch or network needs less" || list[0].State != tune.Complete || list[2].State != tune.Complete {
		t.Error(text)
	}
	device.Admit(1 << 40) // as it was before
}

// What the runs of a process hold together is within its memory however they ask at once, and they stay within what other processes
// leave of the machine: a run waits for others, and fails if nothing comes.
func TestMemoryTogether(t *testing.T) {
	defer func(c, a time.Duration) { crowded, allocated = c, a }(crowded, allocated)
	crowded, allocated = 100*time.Millisecond, 5*time.Millisecond
	const block, blocks = 4 << 20, 12
	var mu sync.Mutex
	var held, most atomic.Int64
	others := int64(0) // what other processes have
	runtime.GC()
	before := heap()
	m := &made{}
	m.during = func(_ context.Context, r *Run, at int) error {
		if at > 1 {
			return nil
		}
		var own [][]byte
		defer func() {
			held.Add(-int64(len(own)) * block)
			runtime.KeepAlive(own)
		}()
		for range 8 {
			device.Admit(block)
			own = append(own, make([]byte, block))
			now := held.Add(block)
			mu.Lock()
			most.Store(max(most.Load(), now))
			mu.Unlock()
		}
		return nil
	}
	work := func(o *Options) (complete int, errs string) {
		most.Store(0)
		s := study(t, m, space(t, line), tune.NewMemory(), tune.Options{Trials: 8, Sampler: "random", Lag: 3})
		if err := Work(t.Context(), s, m, o); err != nil {
			t.Fatal(err)
		}
		list, text := trialsOf(t, s)
		for _, r := range list {
			if r.State == tune.Complete {
				complete++
			} else {
				errs = r.Error
			}
		}
		if most.Load() > blocks*block {
			t.Errorf("%d MiB were held of %d:\n%s", most.Load()>>20, blocks*block>>20, text)
		}
		return complete, errs
	}
	slack := int64(3 << 20) // what the test itself takes
	if complete, errs := work(&Options{Workers: 3, Memory: before + blocks*block + slack}); complete == 0 {
		t.Error(errs)
	}
	if complete, errs := work(&Options{Workers: 1, Memory: 1 << 40, Room: func() int64 { return 8*block - held.Load() - others }}); complete != 8 {
		t.Error(complete, errs)
	}
	others = block
	if complete, errs := work(&Options{Workers: 1, Memory: 1 << 40, Room: func() int64 { return 8*block - held.Load() - others }}); complete != 0 || errs != "out of memory: it needs 4 MiB, and the others leave 0 MiB; a smaller batch or network needs less" {
		t.Error(complete, errs)
	}
}

// Workers share the cores evenly, and get them back.
func TestCores(t *testing.T) {
	par.SetWorkers(6)
	defer par.SetWorkers(0)
	m := &made{during: func(context.Context, *Run, int) error {
		if par.Workers() != 2 {
			t.Errorf("%d cores of 6 for one of 3 workers", par.Workers())
		}
		return nil
	}}
	s := study(t, m, space(t, line), tune.NewMemory(), tune.Options{Trials: 3, Sampler: "random", Lag: 2})
	if err := Work(t.Context(), s, m, &Options{Workers: 3}); err != nil {
		t.Fatal(err)
	}
	if par.Workers() != 6 || runtime.GOMAXPROCS(0) == 0 {
		t.Error(par.Workers())
	}
}

// The best trials are repeated with other seeds, by any number of processes, each run once; a run that was
// interrupted goes on. Whether the winner beats the defaults is told by those seeds alone.
func TestVerdict(t *testing.T) {
	m := &made{}
	memory := tune.NewMemory()
	o := tune.Options{Trials: 12, Sampler: "random", Pruner: "asha", Lag: 2, Seed: 4}
	s := study(t, m, space(t, line), memory, o)
	if err := Work(t.Context(), s, m, &Options{}); err != nil {
		t.Fatal(err)
	}
	if v, err := Judge(t.Context(), s); err != nil || !strings.Contains(v.Text, "noise is not known") {
		t.Error(v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	units := map[string]int{}
	count := func(_ context.Context, r *Run, at int) error {
		units[fmt.Sprint(r.Trial, " ", r.Seed, " ", at)]++
		if len(units) == 13 {
			cancel()
		}
		return nil
	}
	if err := Repeat(ctx, s, &made{during: count}, &Options{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := Repeat(t.Context(), s, &made{during: func(ctx context.Context, r *Run, at int) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}}, &Options{Time: time.Millisecond}); err != nil {
		t.Fatal("the time is up: ", err)
	}
	if err := Repeat(t.Context(), s, &made{during: count}, &Options{}); err != nil {
		t.Fatal(err)
	}
	if len(units) != 4*Seeds*9 {
		t.Errorf("%d units of repeats", len(units))
	}
	for unit, n := range units {
		if n > 1 {
			t.Errorf("unit %s was done %d times", unit, n)
		}
	}
	v, err := Judge(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Finalists {
		for seed, got := range f.Values {
			want := m.score(&Run{Trial: f.Trial, Seed: uint64(seed) + 1, Values: f.Params}, 9).Values[0]
			if got != want {
				t.Errorf("trial %d with seed %d: %v instead of %v", f.Trial, seed+1, got, want)
			}
		}
	}
	if !v.Beats || v.Defaults != 0 || v.Winner != v.Finalists[0].Trial || v.Within <= 0 || !slices.IsSortedFunc(v.Finalists, func(a, b Finalist) int { return int(1e6 * (a.Mean - b.Mean)) }) {
		t.Errorf("%+v", v)
	}
	t.Log(v.Text)
}

// How long repeats take is told by the trials: as long as whole ones, and shorter by what is done.
func TestExpect(t *testing.T) {
	m := &made{}
	s := study(t, m, space(t, "x: {low: 0, high: 1, step: 0.125, default: 0}"), tune.NewMemory(), tune.Options{Trials: 9, Sampler: "grid", Pruner: "patient"})
	for {
		tr, err := s.Ask(t.Context())
		if errors.Is(err, tune.ErrDone) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		x := tr.Float("x")
		until, slope := 9, -1.
		if x > 0.25 {
			until, slope = 3, 1
		}
		for at := range until {
			stop, err := tr.Report(t.Context(), at+1, at+1, x+slope*float64(at)) // patient ends those that rise
			if err != nil || stop != (until == 3 && at == 2) {
				t.Fatal(stop, err)
			}
		}
		tr.Piece.Seconds = 10 * float64(until) // 90 whole
		if x == 0 {
			tr.Piece.Seconds = 180
		}
		if err := tr.Tell(t.Context(), nil, x); err != nil {
			t.Fatal(err)
		}
	}
	for workers, want := range map[int]time.Duration{1: (180 + 90 + 90) * 3 * time.Second, 4: (180 + 90 + 90) * 3 * time.Second / 4, 100: 180 * time.Second} {
		if e, err := Expect(t.Context(), s, workers); err != nil || e.Runs != 9 || e.One != 180*time.Second || e.All != want {
			t.Errorf("%d workers: %+v instead of %v, %v", workers, e, want, err)
		}
	}
	for seed := range 2 {
		tr, err := s.Repeat(t.Context(), 0, seed+1)
		if err != nil {
			t.Fatal(err)
		}
		if seed == 0 {
			if err := tr.Fail(t.Context(), errors.New("out of luck")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if e, err := Expect(t.Context(), s, 1); err != nil || e.Runs != 8 || e.All != (180*2+90*6)*time.Second {
		t.Errorf("%+v, %v", e, err)
	}
}

// heavy has checkpoints of a megabyte.
type heavy struct{ *made }

func (h heavy) Try(ctx context.Context, r *Run) (*Score, error) {
	save := r.Save
	r.Save = func(checkpoint []byte) error { return save(append(checkpoint, make([]byte, 1<<20)...)) }
	return h.made.Try(ctx, r)
}

// A study's file is small when all is done.
func TestSmallInTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "study.db")
	at, err := store.Open(t.Context(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	h := heavy{&made{}}
	s := study(t, h, space(t, line), at, tune.Options{Trials: 6, Sampler: "random", Pruner: "asha", Lag: 2, Seed: 4})
	if err := Work(t.Context(), s, h, &Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Repeat(t.Context(), s, h, &Options{}); err != nil {
		t.Fatal(err)
	}
	if err := at.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 1<<18 {
		t.Error(info.Size(), err)
	}
}

// Half of the interval of a difference, with quantiles of tables of Student's t.
func TestWelch(t *testing.T) {
	one, none := Finalist{Values: make([]float64, 3), SD: 1}, Finalist{Values: make([]float64, 3)}
	for _, c := range []struct {
		a, b Finalist
		want float64
	}{
		{one, one, 2.776445 * math.Sqrt(2./3)}, // 4 degrees of freedom
		{one, none, 4.302653 / math.Sqrt(3)},   // 2
		{none, none, 0},
	} {
		if got := welch(c.a, c.b); math.Abs(got-c.want) > 1e-5 {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// The best trials of an older study are tried first, as far as they are in the space.
func TestFrom(t *testing.T) {
	m := &made{}
	older := study(t, m, space(t, "x: {low: -1, high: 1, default: 0.5}\ny: {low: 0, high: 1, default: 1}"), tune.NewMemory(), tune.Options{Trials: 30, Sampler: "random"})
	if err := Work(t.Context(), older, m, &Options{}); err != nil {
		t.Fatal(err)
	}
	s := study(t, m, space(t, "x: {low: 0, high: 1, default: 0.5}\nz: {low: 0, high: 1, default: 0.25}"), tune.NewMemory(), tune.Options{Trials: 8, Sampler: "random"})
	if n, err := From(t.Context(), older, s, 3); n != 3 || err != nil { // by a process that was lost then
		t.Fatal(n, err)
	}
	if n, err := From(t.Context(), older, s, 5); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if err := Work(t.Context(), s, m, &Options{}); err != nil {
		t.Fatal(err)
	}
	list, text := trialsOf(t, s)
	for i := range 5 {
		if list[i].Origin != "enqueued" || list[i].Values["z"] != 0.25 || i > 0 && *list[i].Value < *list[i-1].Value-0.03 {
			t.Error(text)
			break
		}
	}
	if list[5].Origin == "enqueued" {
		t.Error("some were queued twice")
	}
}

// killable is a trial of a worker process: its unit takes a while, so that it is killed in the midst of it.
func killable() *made {
	return &made{during: func(context.Context, *Run, int) error { time.Sleep(4 * time.Millisecond); return nil }}
}

func killedStudy(ctx context.Context, path string, text string) (*tune.Study, error) {
	s, err := tune.ParseSpace("space.yaml", text)
	if err != nil {
		return nil, err
	}
	at, err := store.Open(ctx, path, true)
	if err != nil {
		return nil, err
	}
	h, _, err := Begin(killable(), s, tune.Options{Trials: 16, Sampler: "random", Pruner: "asha", Lag: 3, Seed: 4})
	if err != nil {
		return nil, err
	}
	one, err := tune.Open(ctx, at, h, s)
	if err == nil {
		one.SetLease(300 * time.Millisecond)
	}
	return one, err
}

// workUntilKilled is what a worker process does.
func workUntilKilled(path string) error {
	ctx := context.Background()
	s, err := killedStudy(ctx, path, line)
	if err != nil {
		return err
	}
	if err := Work(ctx, s, killable(), &Options{Every: time.Millisecond}); err != nil {
		return err
	}
	return Repeat(ctx, s, killable(), &Options{Every: time.Millisecond})
}

// Workers that are killed at any moment lose no trial and no repeat, and change none; nothing that one would go on from is left.
func TestKilled(t *testing.T) {
	undisturbed, err := killedStudy(t.Context(), filepath.Join(t.TempDir(), "study.db"), line)
	if err != nil {
		t.Fatal(err)
	}
	if err := Work(t.Context(), undisturbed, killable(), &Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Repeat(t.Context(), undisturbed, killable(), &Options{}); err != nil {
		t.Fatal(err)
	}
	_, want := trialsOf(t, undisturbed)
	verdict, err := Judge(t.Context(), undisturbed)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "study.db")
	var all sync.WaitGroup
	var kills atomic.Int64
	for w := range 3 {
		r := rand.New(rand.NewPCG(uint64(w), 7))
		all.Go(func() {
			for range 200 {
				p := exec.Command(os.Args[0], "work", path)
				p.Env = append(os.Environ(), "CAROUSEL_TEST_PROGRAM=1")
				var out strings.Builder
				p.Stdout, p.Stderr = &out, &out
				if err := p.Start(); err != nil {
					t.Error(err)
					return
				}
				var end *time.Timer
				if kills.Load() < 30 {
					end = time.AfterFunc(time.Duration(50+r.IntN(400))*time.Millisecond, func() { kills.Add(1); _ = p.Process.Kill() })
				}
				err := p.Wait()
				if end == nil || end.Stop() {
					if err != nil {
						t.Errorf("%v: %s", err, out.String())
					}
					return
				}
			}
		})
	}
	all.Wait()
	s, err := killedStudy(t.Context(), path, line)
	if err != nil {
		t.Fatal(err)
	}
	if _, got := trialsOf(t, s); got != want {
		t.Errorf("after %d kills:\n%s\ninstead of\n%s", kills.Load(), got, want)
	}
	if v, err := Judge(t.Context(), s); err != nil || fmt.Sprintf("%+v", v) != fmt.Sprintf("%+v", verdict) {
		t.Errorf("after %d kills the verdict is %+v instead of %+v: %v", kills.Load(), v, verdict, err)
	}
	for trial := range 16 {
		for seed := range Seeds + 1 {
			if blob, err := s.Store().Restore(t.Context(), trial, seed); err != nil || blob != nil {
				t.Errorf("trial %d, seed %d: %d bytes are left, %v", trial, seed, len(blob), err)
			}
		}
	}
	again, err := s.Repeats(t.Context())
	if err != nil || len(again) != 4*Seeds {
		t.Errorf("%d repeats: %v", len(again), err)
	}
	t.Log(kills.Load(), "kills")
}

// sized tells its size only where it is trained to the end, which in these tests are the repeats.
type sized struct {
	*made
	fails float64 // x of which one repeat fails
}

func (s sized) Try(ctx context.Context, r *Run) (*Score, error) {
	if r.Seed == 2 && r.Values["x"] == s.fails {
		return nil, errors.New("diverged")
	}
	score, err := s.made.Try(ctx, r)
	if err == nil && r.Seed > 0 {
		score.Measures = map[string]float64{"size": r.Values["x"].(float64)}
	}
	return score, err
}

// A trial that breaks a constraint when it is trained to the end does not win, and one that has fewer results with other
// seeds is not beaten by a worse one.
func TestWinner(t *testing.T) {
	for bound, want := range map[string]struct {
		x        float64
		defaults int
	}{"0": {0, 0}, "0.15": {0.2, 0}, "0.4": {0.5, 0}, "0.6": {-1, 0}} {
		s := sized{&made{}, -1}
		st := study(t, s, space(t, "x: {low: 0, high: 1, step: 0.1, default: 0.5}\nconstraints: [\"size >= "+bound+"\"]"), tune.NewMemory(), tune.Options{Trials: 11, Sampler: "grid"})
		if err := Work(t.Context(), st, s, &Options{}); err != nil {
			t.Fatal(err)
		}
		if err := Repeat(t.Context(), st, s, &Options{}); err != nil {
			t.Fatal(err)
		}
		v, err := Judge(t.Context(), st)
		if none := NoWinnerError(""); want.x < 0 {
			if !errors.As(err, &none) || !strings.Contains(err.Error(), "breaks size >= 0.6") {
				t.Error(bound, v, err)
			}
			continue
		}
		if err != nil || v.Finalists[0].Params["x"] != want.x || v.Defaults != want.defaults {
			t.Errorf("%s: %+v, %v", bound, v, err)
		}
	}
	// The defaults have two results, the others three.
	s := sized{&made{}, 0.2}
	st := study(t, s, space(t, "x: {low: 0.2, high: 1, step: 0.1, default: 0.2}"), tune.NewMemory(), tune.Options{Trials: 9, Sampler: "grid"})
	if err := Work(t.Context(), st, s, &Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Repeat(t.Context(), st, s, &Options{}); err != nil {
		t.Fatal(err)
	}
	if v, err := Judge(t.Context(), st); err != nil || v.Winner != 0 || v.Beats || !strings.HasPrefix(v.Text, "no trial beats the defaults") {
		t.Errorf("%+v, %v", v, err)
	}
}
