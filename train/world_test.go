package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device/forwardtest"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

// ragged is a batch of sequences of unequal length.
type ragged struct {
	x, y    []float32
	lengths []int32
	weight  float64
	slot    int // of remembering
}

// sentences are what the ranks learn: sequences of numbers and their last sum, each with a weight.
const sentences, features, longest = 41, 3, 9

type listener struct {
	RNN  *nn.RNN
	Head *nn.Linear
}

// newRagged is a small LSTM with dropout on ragged batches of like length, whose
// samples count unequally.
func newRagged() *train.Job[ragged] {
	m := &listener{nn.NewLSTM(features, 6, &nn.RNNOptions{Layers: 2, Dropout: 0.3, RecurrentDropout: 0.2}), nn.NewLinear(6, 1, nil)}
	slab := tensor.Pack(tensor.CPU(), m, 1)
	lengths := make([]int, sentences)
	for i := range lengths {
		lengths[i] = 1 + i*7%longest
	}
	load := func(b *ragged, samples []int) {
		b.x, b.y, b.lengths, b.weight = nil, nil, nil, 0
		for _, s := range samples {
			r := rand.New(rand.NewPCG(1, uint64(s)))
			row, sum := make([]float32, longest*features), float32(0)
			for i := range lengths[s] * features {
				row[i] = float32(r.NormFloat64())
				sum += row[i]
			}
			b.x, b.y, b.lengths = append(b.x, row...), append(b.y, sum), append(b.lengths, int32(lengths[s]))
			b.weight += 0.5 + float64(s%3)
		}
	}
	loss := func(tape *tensor.Tape, b *ragged) *tensor.Tensor {
		n := len(b.lengths)
		y, _ := m.RNN.Forward(tape.Sequences(b.x, b.lengths, n, longest, features), nil)
		return tensor.MSE(m.Head.Forward(tensor.Dropout(tensor.LastStep(y), 0.2)), tape.Input(b.y, n, 1), nil)
	}
	var held ragged
	load(&held, []int{3, 1, 4, 15, 9, 26})
	return &train.Job[ragged]{
		Slab: slab, Optimizer: optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: 1e-3}), Samples: sentences,
		Batches:  train.NewBuckets(lengths, 4*longest, 4, 5).Batches,
		NewBatch: func() *ragged { return &ragged{} }, Load: load, Loss: loss,
		Weight: func(b *ragged) float64 { return b.weight },
		Validate: func(_ context.Context, tape *tensor.Tape) (map[string]float64, error) {
			tape.Reset()
			return map[string]float64{"mse": float64(loss(tape, &held).Item())}, nil
		},
		Metric: "mse",
	}
}

func raggedOptions() *train.Options {
	return &train.Options{Epochs: 4, Schedule: optim.Cosine(1e-2, 1e-4, 20), Clip: 0.5, Seed: 7, EMA: 0.9}
}

// outcome is what must be the same bits.
type outcome struct {
	bits    []uint32
	history string
	stopped train.Stop
	steps   int
	devices string
	exposed time.Duration
}

func outcomeOf(job *train.Job[ragged], r *train.Result) outcome {
	var o outcome
	for _, p := range job.Slab.Params {
		for _, v := range p.Read() {
			o.bits = append(o.bits, math.Float32bits(v))
		}
	}
	h := slices.Clone(r.History)
	for i := range h {
		h[i].Seconds = 0
	}
	text, _ := json.Marshal(h)
	o.history, o.stopped, o.steps, o.devices, o.exposed = string(text), r.Stopped, r.Steps, strings.Join(r.Devices, ", "), r.Exposed
	return o
}

// member is a rank that is about to train; cancel ends its context alone.
type member struct {
	t      *testing.T
	rank   int
	job    *train.Job[ragged]
	o      *train.Options
	cancel func()
}

// together fits on ranks at once; prepare may change what each trains.
func together(t *testing.T, ranks, accumulate int, prepare func(m member)) ([]outcome, []error) {
	t.Helper()
	list, errs := make([]outcome, ranks), make([]error, ranks)
	var all sync.WaitGroup
	for rank, w := range traintest.Worlds(ranks) {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			job, o := newRagged(), raggedOptions()
			o.World, o.Accumulate = w, accumulate
			if ranks == 1 {
				o.World = nil
			}
			if prepare != nil {
				prepare(member{t, rank, job, o, cancel})
			}
			r, err := train.Fit(ctx, job, o)
			if errs[rank] = err; r != nil {
				list[rank] = outcomeOf(job, r)
			}
		})
	}
	all.Wait()
	return list, errs
}

// lastCheckpoint is the tensors and the state of a run's checkpoint, without the time that it took.
func lastCheckpoint(t *testing.T, dir string) string {
	t.Helper()
	f, err := model.ReadTensors(filepath.Join(dir, "checkpoints", "last.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	var state map[string]any
	if err := json.Unmarshal([]byte(f.Meta["state"]), &state); err != nil {
		t.Fatal(err)
	}
	for _, r := range append(state["History"].([]any), state["Best"]) {
		if r != nil {
			delete(r.(map[string]any), "seconds")
		}
	}
	delete(state, "Seconds")
	text, _ := json.Marshal(state)
	s := string(text)
	for _, x := range f.Tensors {
		s += fmt.Sprint(x.Name, x.Dims)
		for _, v := range x.Data {
			s += fmt.Sprintf(" %x", math.Float32bits(v))
		}
	}
	return s
}

// R ranks that accumulate A batches are one process that accumulates R·A, bit for
// bit, also where an epoch's last step is short: 11 batches make steps of 4, 4 and 3.
func TestRanksAreOne(t *testing.T) {
	if n := len(newRagged().Batches(0)); n != 11 {
		t.Fatalf("%d batches, want 11", n)
	}
	for _, product := range []int{4, 8} {
		dir := t.TempDir()
		want, errs := together(t, 1, product, func(m member) { m.o.Dir = dir })
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		checkpoint := lastCheckpoint(t, dir)
		for _, ranks := range []int{2, 4, product} {
			dir := t.TempDir()
			got, errs := together(t, ranks, product/ranks, func(m member) { m.o.Dir = dir })
			for rank, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got[rank].bits, want[0].bits) {
					t.Errorf("%d ranks: the weights of rank %d differ from those of one process", ranks, rank)
				}
				if got[rank].history != want[0].history {
					t.Errorf("%d ranks: history of rank %d\n%s\nof one process\n%s", ranks, rank, got[rank].history, want[0].history)
				}
			}
			if lastCheckpoint(t, dir) != checkpoint {
				t.Errorf("%d ranks: the checkpoint differs from that of one process", ranks)
			}
			if h, err := train.ReadHistory(dir); err != nil || len(h) != 4 {
				t.Errorf("%d ranks wrote %d records, %v", ranks, len(h), err)
			}
		}
		// The law says something only if what it compares depends on the batches.
		other, _ := together(t, 1, product/2, nil)
		if slices.Equal(other[0].bits, want[0].bits) {
			t.Error("half the batches to a step give the same weights")
		}
	}
}

// Whether a step in fp16 is skipped is decided for the whole step: all ranks skip it
// though only one of them met the overflow, and remain one process.
func TestRanksSkipTogether(t *testing.T) {
	half := func(m member) {
		m.o.Precision, m.o.Scaler = tensor.Float16, &optim.GradScalerOptions{Init: 1024, Interval: 2}
		inner := m.job.Loss
		m.job.Loss = func(tape *tensor.Tape, b *ragged) *tensor.Tensor {
			l := inner(tape, b)
			for _, n := range b.lengths {
				if n == 7 { // one batch of an epoch
					return tensor.MulScalar(l, 1e38)
				}
			}
			return l
		}
	}
	dir := t.TempDir()
	want, errs := together(t, 1, 4, func(m member) { half(m); m.o.Dir = dir })
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	h, err := train.ReadHistory(dir)
	if err != nil || len(h) != 4 || h[3].Skipped < 4 || h[3].Skipped > 8 {
		t.Fatalf("%+v, %v", h, err)
	}
	checkpoint := lastCheckpoint(t, dir)
	for _, ranks := range []int{2, 4} {
		dir := t.TempDir()
		got, errs := together(t, ranks, 4/ranks, func(m member) { half(m); m.o.Dir = dir })
		for rank, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[rank].bits, want[0].bits) || got[rank].history != want[0].history {
				t.Errorf("%d ranks: rank %d has other weights than one process, or the history\n%s\nnot\n%s", ranks, rank, got[rank].history, want[0].history)
			}
		}
		if lastCheckpoint(t, dir) != checkpoint {
			t.Errorf("%d ranks: the checkpoint differs from that of one process", ranks)
		}
	}
}

// The sum over batches is the tree of World, here added by hand from gradients
// that are computed for each batch separately.
func TestSumIsATree(t *testing.T) {
	const accumulate = 7 // ((0 1)(2 3))((4 5) 6)
	job, o := newRagged(), raggedOptions()
	o.Accumulate, o.Steps, o.Epochs, o.EMA = accumulate, 1, 0, 0
	var got []float32
	o.OnGradients = func(s *tensor.Slab) { got = gradients(s) }
	if _, err := train.Fit(t.Context(), job, o); err != nil {
		t.Fatal(err)
	}
	again := newRagged()
	tape, b := tensor.NewTape(tensor.CPU(), tensor.Train), again.NewBatch()
	total := 0.0
	batches := again.Batches(0)[:accumulate]
	for _, samples := range batches {
		again.Load(b, samples)
		total += b.weight
	}
	var each [][]float32
	for i, samples := range batches {
		again.Load(b, samples)
		again.Slab.ZeroGrad()
		tape.Reset()
		tape.Seed(7, uint64(i))
		tensor.MulScalar(again.Loss(tape, b), float32(b.weight/total)).Backward()
		each = append(each, gradients(again.Slab))
	}
	add := func(a, b []float32) []float32 {
		sum := slices.Clone(a)
		for i := range sum {
			sum[i] += b[i]
		}
		return sum
	}
	want := add(add(add(each[0], each[1]), add(each[2], each[3])), add(add(each[4], each[5]), each[6]))
	if !slices.Equal(got, want) {
		t.Error("the sum of 7 batches is not that of the tree")
	}
	inOrder := each[0]
	for _, g := range each[1:] {
		inOrder = add(inOrder, g)
	}
	if slices.Equal(inOrder, want) {
		t.Error("adding one after the other gives the same bits: the gradients are no test of the order")
	}
}

func gradients(s *tensor.Slab) []float32 {
	var all []float32
	for _, p := range s.Params {
		all = append(all, p.Grad()...)
	}
	return all
}

// A run that was cut off goes on bit for bit, also on another number of ranks.
func TestRanksResume(t *testing.T) {
	whole := t.TempDir()
	want, errs := together(t, 1, 4, func(m member) { m.o.Dir = whole })
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	for _, ranks := range []int{1, 2, 4} {
		dir := t.TempDir()
		cut, errs := together(t, 2, 2, func(m member) {
			m.o.Dir = dir
			n := 0
			m.o.OnGradients = func(*tensor.Slab) {
				if n++; n == 5 && m.rank == 1 { // in the middle of the second epoch
					m.cancel()
				}
			}
		})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		for rank, c := range cut {
			if c.stopped != train.StopInterrupted || c.steps != 5 {
				t.Fatalf("rank %d: ended at step %d by %q, want 5 by its neighbour's interruption", rank, c.steps, c.stopped)
			}
		}
		got, errs := together(t, ranks, 4/ranks, func(m member) { m.o.Dir, m.o.Resume = dir, true })
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		for rank, g := range got {
			if !slices.Equal(g.bits, want[0].bits) || g.history != want[0].history {
				t.Errorf("%d ranks: rank %d goes on otherwise than the run that was not cut off:\n%s\n%s", ranks, rank, g.history, want[0].history)
			}
		}
		if lastCheckpoint(t, dir) != lastCheckpoint(t, whole) {
			t.Errorf("%d ranks: another last checkpoint than the run that was not cut off", ranks)
		}
	}
}

// Ranks that do not belong together say so, and none waits for one that has failed.
func TestRanksThatFail(t *testing.T) {
	broken := errors.New("broken")
	for want, prepare := range map[string]func(m member){
		"rank 1 has seed 1, rank 0 has 0": func(m member) { m.o.Seed = uint64(m.rank) },
		"rank 1 begins with other weights": func(m member) {
			if m.rank == 1 {
				m.job.Slab.Lookup("head.bias").Write([]float32{3})
			}
		},
		"power of two": func(m member) { m.o.Accumulate = 3 },
		"validation after epoch 1: broken": func(m member) {
			if m.rank == 1 {
				m.job.Validate = func(context.Context, *tensor.Tape) (map[string]float64, error) { return nil, broken }
			}
		},
		"broken": func(m member) {
			m.o.OnEpoch = func(r train.Record) error {
				if m.rank == 1 && r.Epoch == 2 {
					return broken
				}
				return nil
			}
		},
		"not a directory": func(m member) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o666); err != nil {
				t.Error(err)
			}
			m.o.Dir = file // no directory: only rank 0, which writes, can notice
		},
		"bad": func(m member) {
			inner := m.job.Loss
			m.job.Loss = func(tape *tensor.Tape, b *ragged) *tensor.Tensor {
				if m.rank == 1 {
					tensor.NewParam("bad", nil, -1)
				}
				return inner(tape, b)
			}
		},
	} {
		_, errs := together(t, 2, 2, prepare)
		for rank, err := range errs {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("rank %d: got %v, want %q", rank, err, want)
			}
		}
	}
}

// A rank that differs from rank 0 is named on every rank, with what differs, before
// anything is written.
func TestRanksDiffer(t *testing.T) {
	print := func(text, lr string) train.Fingerprint {
		return train.Fingerprint{Settings: map[string]string{"lr": lr}, Data: map[string]string{"training text": text}}
	}
	elsewhere := tensor.NewDevice(forwardtest.New(cpu.New(simd.Best())))
	for want, spoil := range map[string]func(m member){
		"rank 1 has lr 0.2, rank 0 has 0.1; give all ranks the same settings":        func(m member) { m.o.Fingerprint = print("a", "0.2") },
		"rank 1 has other data than rank 0: training text; give all ranks":           func(m member) { m.o.Fingerprint = print("b", "0.1") },
		"rank 1 computes with forward:cpu/":                                          func(m member) { read(m, false, elsewhere) },
		"rank 1 has epochs: 5, rank 0 has 4":                                         func(m member) { m.o.Epochs = 5 },
		"rank 1 has steps: 9, rank 0 has 0":                                          func(m member) { m.o.Steps = 9 },
		"rank 1 has accumulate: 1, rank 0 has 2":                                     func(m member) { m.o.Accumulate = 1 },
		"rank 1 has learning rate at step 1: 0.01, rank 0 has 0.0099390":             func(m member) { m.o.Schedule = optim.Constant(1e-2) },
		"rank 1 has sums in bf16: yes, rank 0 has no":                                func(m member) { m.o.Compress = true },
		"rank 1 has resuming: yes, rank 0 has no":                                    func(m member) { m.o.Resume = true },
		"rank 1 has samples 7, rank 0 has 41":                                        func(m member) { m.job.Samples = 7 },
		"rank 1 begins with other weights than rank 0; start all ranks with the":     func(m member) { m.job.Slab.Lookup("head.bias").Write([]float32{3}) },
		"rank 1 has carried state: yes, rank 0 has no; give all ranks the same":      func(m member) { remembering(m, 4) },
		"rank 1 has an output directory: no, rank 0 has yes; give all ranks the sam": func(m member) { m.o.Dir = "" },
	} {
		dir := t.TempDir()
		_, errs := together(t, 3, 2, func(m member) {
			m.o.Dir, m.o.Fingerprint = dir, print("a", "0.1")
			if m.rank == 1 {
				spoil(m)
			}
		})
		for rank, err := range errs {
			if err == nil || !strings.Contains(err.Error(), want) || err.Error() != errs[0].Error() || strings.Contains(err.Error(), "\n") {
				t.Errorf("rank %d: got %v, want %q", rank, err, want)
			}
		}
		if train.HasCheckpoint(dir) {
			t.Errorf("%s: a checkpoint was written", want)
		}
	}
}

// A rank that does not see rank 0's checkpoint, or sees another, is named; so are the
// numbers of ranks that can go on from it.
func TestRanksSeeOneCheckpoint(t *testing.T) {
	run := func(ranks, accumulate, steps int, prepare func(m member)) []error {
		_, errs := together(t, ranks, accumulate, func(m member) {
			m.o.Steps, m.o.Resume = steps, true
			prepare(m)
		})
		return errs
	}
	dir, other, empty := t.TempDir(), t.TempDir(), t.TempDir()
	run(2, 2, 3, func(m member) { m.o.Dir = dir })
	run(2, 2, 2, func(m member) { m.o.Dir = other })
	for _, c := range []struct {
		zero, two string
		want      string
	}{
		{dir, empty, "rank 2 goes on from step 0, rank 0 from step 3; let all ranks see the directory"},
		{empty, dir, "rank 1 goes on from step 3, rank 0 from step 0; let all ranks see the directory"},
		{dir, other, "rank 2 goes on from step 2, rank 0 from step 3; let all ranks see the directory"},
	} {
		for rank, err := range run(4, 1, 4, func(m member) {
			m.o.Dir = c.zero
			if m.rank == 2 || m.rank == 1 && c.zero == empty {
				m.o.Dir = c.two
			}
		}) {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("rank %d: got %v, want %q", rank, err, c.want)
			}
		}
	}
	const want = "made with accumulate x ranks 4, this run has 6; resume with 1 rank with accumulate 4, 2 with 2 or 4 with 1, or start"
	for rank, err := range run(3, 2, 4, func(m member) { m.o.Dir = dir }) {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("rank %d: got %v, want %q", rank, err, want)
		}
	}
	if errs := run(4, 1, 4, func(m member) { m.o.Dir = dir }); errors.Join(errs...) != nil {
		t.Error(errs)
	}
}

// mortal is a world in which this rank dies at a call.
type mortal struct {
	train.World
	left atomic.Int64
}

var errKilled = errors.New("killed")

func (m *mortal) die() error {
	if m.left.Add(-1) == 0 {
		m.Abort(errKilled)
		return errKilled
	}
	return nil
}

func (m *mortal) Sum(v, residual []float32) error {
	return errors.Join(m.die(), m.World.Sum(v, residual))
}

func (m *mortal) Gather(own, all []float64) error {
	return errors.Join(m.die(), m.World.Gather(own, all))
}

func (m *mortal) Share(own []byte) ([][]byte, error) {
	err := m.die()
	all, also := m.World.Share(own)
	return all, errors.Join(err, also)
}

// Whichever rank dies at whichever call, all ranks end with an error that names it, and
// what is left in the directory goes on to the bits of a run in which nobody died.
func TestAnyRankMayDie(t *testing.T) {
	run := func(dir string, at, victim int) ([]outcome, []error) {
		return together(t, 2, 2, func(m member) {
			remembering(m, 4)
			m.o.Dir, m.o.Resume, m.o.Epochs, m.o.CheckpointEvery = dir, true, 2, 2
			train.SetBucket(m.o, 300)
			if m.rank == victim {
				w := &mortal{World: m.o.World}
				w.left.Store(int64(at))
				m.o.World = w
			}
		})
	}
	whole := t.TempDir()
	want, errs := run(whole, 0, 0)
	if errors.Join(errs...) != nil {
		t.Fatal(errs)
	}
	checkpoint := lastCheckpoint(t, whole)
	died, resumed := 0, 0
	for at := 1; ; at += 3 { // odd, so that the victims take turns
		dir, victim := t.TempDir(), at%2
		_, errs := run(dir, at, victim)
		if errors.Join(errs...) == nil {
			break
		}
		died++
		for rank, err := range errs {
			name := fmt.Sprintf("rank %d ended the run", victim)
			if !errors.Is(err, errKilled) || rank != victim && !strings.Contains(err.Error(), name) {
				t.Errorf("call %d of rank %d: rank %d ends with %v", at, victim, rank, err)
			}
		}
		if train.HasCheckpoint(dir) {
			resumed++
		}
		got, errs := run(dir, 0, 0)
		if errors.Join(errs...) != nil {
			t.Fatalf("after call %d of rank %d: %v", at, victim, errs)
		}
		if !slices.Equal(got[0].bits, want[0].bits) || lastCheckpoint(t, dir) != checkpoint {
			t.Errorf("after call %d of rank %d the run goes on otherwise", at, victim)
		}
	}
	if died < 15 || resumed < died-2 {
		t.Errorf("%d deaths, %d of them with a checkpoint", died, resumed)
	}
}

// A rank that panics leaves none waiting.
func TestRankPanics(t *testing.T) {
	for name, spoil := range map[string]func(m member){
		"validation": func(m member) {
			m.job.Validate = func(context.Context, *tensor.Tape) (map[string]float64, error) { panic("boom") }
		},
		"loss": func(m member) {
			inner, calls := m.job.Loss, 0
			m.job.Loss = func(tape *tensor.Tape, b *ragged) *tensor.Tensor {
				if calls++; calls == 4 {
					panic("boom")
				}
				return inner(tape, b)
			}
		},
		"the pass": func(m member) {
			calls := 0
			m.o.OnReady = func(lo, hi int) {
				if calls++; calls == len(m.job.Slab.Params)+3 { // while sums are under way
					panic("boom")
				}
			}
		},
		"loading": func(m member) {
			inner, calls := m.job.Load, 0
			m.job.Load = func(b *ragged, samples []int) {
				if calls++; calls == 4 {
					panic("boom")
				}
				inner(b, samples)
			}
		},
	} {
		worlds := traintest.Worlds(2)
		var all sync.WaitGroup
		all.Go(func() {
			job, o := newRagged(), raggedOptions()
			o.World = worlds[0]
			if _, err := train.Fit(t.Context(), job, o); err == nil || !strings.Contains(err.Error(), "rank 1 ended the run: it panicked") {
				t.Errorf("%s: rank 0 ends with %v", name, err)
			}
		})
		all.Go(func() {
			defer func() {
				if p := recover(); p != "boom" {
					t.Errorf("%s: rank 1 panics with %v", name, p)
				}
			}()
			job, o := newRagged(), raggedOptions()
			o.World = worlds[1]
			spoil(member{t, 1, job, o, nil})
			_, err := train.Fit(t.Context(), job, o)
			t.Errorf("%s: rank 1 ends with %v", name, err)
		})
		all.Wait()
	}
}

// memory is a state that depends on every batch of its slot, in their order.
type memory float32

func (m *memory) MarshalBinary() ([]byte, error) { return json.Marshal(m) }
func (m *memory) UnmarshalBinary(b []byte) error { return json.Unmarshal(b, m) }

// remembering makes a job carry a memory in each of slots, which scales the loss.
func remembering(m member, slots int) {
	const batches = 11
	m.job.Batches = func(epoch int) (list [][]int) {
		for i := range batches {
			list = append(list, []int{epoch*batches + i})
		}
		return list
	}
	load, loss := m.job.Load, m.job.Loss
	m.job.Load = func(b *ragged, samples []int) {
		load(b, []int{samples[0] % sentences})
		b.slot = samples[0] % batches % slots
	}
	own := map[int]*memory{}
	m.job.Carry = func(slot int) train.Carry {
		if slot/m.o.Accumulate != m.rank {
			m.t.Errorf("rank %d is asked for slot %d", m.rank, slot)
		}
		if own[slot] == nil {
			own[slot] = new(memory)
		}
		return own[slot]
	}
	m.job.Loss = func(tape *tensor.Tape, b *ragged) *tensor.Tensor {
		if tape.Mode() == tensor.Infer {
			return loss(tape, b)
		}
		state := m.job.Carry(b.slot).(*memory)
		*state = 0.75*(*state) + memory(b.lengths[0])/4
		return tensor.MulScalar(loss(tape, b), 1+float32(*state))
	}
}

// Each batch of a step continues the state that its number left, on one process as on
// ranks, also after a resume on another number of them.
func TestRanksCarry(t *testing.T) {
	dir := t.TempDir()
	want, errs := together(t, 1, 4, func(m member) { remembering(m, 4); m.o.Dir = dir })
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	checkpoint := lastCheckpoint(t, dir)
	if plain, _ := together(t, 1, 4, func(m member) {
		remembering(m, 4)
		m.job.Carry = func(int) train.Carry { return new(memory) }
	}); slices.Equal(plain[0].bits, want[0].bits) {
		t.Error("a state that forgets gives the same weights")
	}
	for _, ranks := range []int{1, 2, 4} {
		dir := t.TempDir()
		cut, errs := together(t, 6-ranks-ranks%2, 0, func(m member) { // on 4, 4 and 2 ranks
			m.o.Accumulate = 4 / m.o.Ranks()
			remembering(m, 4)
			m.o.Dir, m.o.CheckpointEvery = dir, 2
			m.o.OnStep = func(s train.Step) error {
				if s.Step == 5 && m.rank == 1 {
					return train.ErrPause
				}
				return nil
			}
		})
		for rank, err := range errs {
			if !errors.Is(err, train.ErrPause) || cut[rank].steps != 5 {
				t.Fatalf("rank %d: %v at step %d, want a pause at 5", rank, err, cut[rank].steps)
			}
		}
		got, errs := together(t, ranks, 4/ranks, func(m member) { remembering(m, 4); m.o.Dir, m.o.Resume = dir, true })
		for rank, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[rank].bits, want[0].bits) || got[rank].history != want[0].history {
				t.Errorf("%d ranks: rank %d goes on otherwise than one process", ranks, rank)
			}
		}
		if lastCheckpoint(t, dir) != checkpoint {
			t.Errorf("%d ranks: the checkpoint differs from that of one process", ranks)
		}
	}
}

// A checkpoint of before there were slots has one state, as a string.
func TestOldCarry(t *testing.T) {
	dir := t.TempDir()
	run := func(steps int) outcome {
		got, errs := together(t, 1, 1, func(m member) {
			remembering(m, 1)
			m.o.Dir, m.o.Resume, m.o.Steps = dir, true, steps
		})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		return got[0]
	}
	run(4)
	path := train.Checkpoint(dir)
	f, err := model.ReadTensors(path)
	if err != nil {
		t.Fatal(err)
	}
	text := f.Meta["state"]
	var state struct{ Carry [][]byte }
	if err := json.Unmarshal([]byte(text), &state); err != nil || len(state.Carry) != 1 {
		t.Fatalf("%v, %d states", err, len(state.Carry))
	}
	all, _ := json.Marshal(state.Carry)
	one, _ := json.Marshal(state.Carry[0])
	old := strings.Replace(text, string(all), string(one), 1)
	if old == text {
		t.Fatal("the checkpoint has no list of states")
	}
	want := run(9)
	f.Meta["state"], f.Meta["crc32c"] = old, train.Checksum(old, f.Tensors)
	if err := model.WriteTensors(path, f.Tensors, f.Meta); err != nil {
		t.Fatal(err)
	}
	if got := run(9); !slices.Equal(got.bits, want.bits) {
		t.Error("an old checkpoint goes on otherwise")
	}
}

// A stop request to one rank ends the run on all ranks at the same step.
func TestRanksStopTogether(t *testing.T) {
	for name, c := range map[string]struct {
		stop    train.Stop
		prepare func(m member)
	}{
		"hook": {train.StopAsked, func(m member) {
			m.o.OnValidate = func(r train.Record) error {
				if m.rank == 1 && r.Epoch == 2 {
					return train.ErrStop
				}
				return nil
			}
		}},
		"step": {train.StopAsked, func(m member) {
			if m.rank == 1 {
				m.o.OnStep = func(s train.Step) error {
					if s.Step == 5 {
						return train.ErrStop
					}
					return nil
				}
			}
		}},
		"last step of an epoch": {train.StopAsked, func(m member) {
			m.o.ValidateEvery = 3
			if m.rank == 1 {
				m.o.OnStep = func(s train.Step) error {
					if s.Step == 6 {
						return train.ErrStop
					}
					return nil
				}
			}
		}},
		"time of rank 0": {train.StopTime, func(m member) {
			m.o.Epochs, m.o.MaxTime = 1e6, 30e6
		}},
	} {
		got, errs := together(t, 2, 2, c.prepare)
		if err := errors.Join(errs...); err != nil {
			t.Fatal(name, err)
		}
		for rank := range got {
			if got[rank].stopped != c.stop || got[rank].history != got[0].history || !slices.Equal(got[rank].bits, got[0].bits) {
				t.Errorf("%s: rank %d stopped by %q with history %s, rank 0 with %s", name, rank, got[rank].stopped, got[rank].history, got[0].history)
			}
		}
	}
}

// watched keeps what a rank brings to the sum.
type watched struct {
	train.World
	brought []float32
}

func (w *watched) Sum(v, residual []float32) error {
	w.brought = slices.Clone(v)
	return w.World.Sum(v, residual)
}

// A rank without any batch adds -0, which changes nothing, where 0 would change a
// gradient of -0; and its run ends with the others'.
func TestIdleRankAddsNothing(t *testing.T) {
	run := func(ranks, accumulate int) outcome {
		var worlds [3]watched
		got, errs := together(t, ranks, accumulate, func(m member) {
			m.job.Batches = func(int) [][]int { return [][]int{{0, 1}} }
			if ranks > 1 {
				worlds[m.rank].World = m.o.World
				m.o.World = &worlds[m.rank]
			}
		})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		for rank := 1; rank < ranks; rank++ {
			if v := worlds[rank].brought; len(v) == 0 || slices.ContainsFunc(v, func(v float32) bool { return math.Float32bits(v) != 1<<31 }) {
				t.Errorf("idle rank %d brings other numbers than -0", rank)
			}
			if !slices.Equal(got[rank].bits, got[0].bits) {
				t.Errorf("idle rank %d has other weights than rank 0", rank)
			}
		}
		return got[0]
	}
	if one, three := run(1, 3), run(3, 1); !slices.Equal(one.bits, three.bits) || one.history != three.history {
		t.Error("two idle ranks change the run")
	}
}

// TestRanksShareDir wants ranks with one Dir to train together, and all of them
// refused while another run has it.
func TestRanksShareDir(t *testing.T) {
	dir := t.TempDir()
	job, o := newRagged(), raggedOptions()
	o.Dir = dir
	tried := false
	o.OnEpoch = func(train.Record) error {
		if tried {
			return nil
		}
		tried = true
		_, errs := together(t, 2, 1, func(m member) { m.o.Dir = dir })
		if !errors.Is(errs[0], train.ErrRunning) || errs[1] == nil {
			t.Errorf("two ranks beside another run: %v", errs)
		}
		return nil
	}
	if _, err := train.Fit(t.Context(), job, o); err != nil || !tried {
		t.Fatal(err)
	}
	if _, errs := together(t, 2, 1, func(m member) { m.o.Dir = dir }); errs[0] != nil || errs[1] != nil {
		t.Errorf("two ranks alone: %v", errs)
	}
}
