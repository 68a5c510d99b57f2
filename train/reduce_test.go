package train_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device/forwardtest"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

// counted is a world that counts the numbers that it sums, and tells of each Sum.
type counted struct {
	train.World
	numbers atomic.Int64
	sums    atomic.Int64
	coming  func() // may be nil
}

func (c *counted) Sum(v, residual []float32) error {
	c.numbers.Add(int64(len(v)))
	c.sums.Add(1)
	if c.coming != nil {
		c.coming()
	}
	return c.World.Sum(v, residual)
}

// No backward pass ends here before a bucket is with the World: the hook of the last
// parameter waits for it.
func TestSumsBeginDuringTheBackwardPass(t *testing.T) {
	want, errs := together(t, 1, 4, nil)
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	got, errs := together(t, 2, 2, func(m member) {
		began := make(chan struct{}, 100)
		m.o.World = &counted{World: m.o.World, coming: func() {
			select {
			case began <- struct{}{}:
			default:
			}
		}}
		train.SetBucket(m.o, 100)
		left := 0
		m.o.OnReady = func(lo, hi int) {
			if left == 0 {
				left = len(m.job.Slab.Params)
			}
			if left--; left > 0 {
				return
			}
			select {
			case <-began:
				for len(began) > 0 { // of this step
					<-began
				}
			case <-time.After(time.Minute): // so that a failure does not hang
				t.Error("no sum began before the end of the pass")
			}
		}
	})
	for rank, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got[rank].bits, want[0].bits) {
			t.Errorf("rank %d has other weights than one process", rank)
		}
	}
}

// slow is a world whose sums take their time.
type slow struct{ train.World }

func (s slow) Sum(v, residual []float32) error {
	time.Sleep(200 * time.Microsecond)
	return s.World.Sum(v, residual)
}

// What a rank waits for after its backward passes is told by the step, adds up in the
// result and is a span of its timeline, whose track of sums has every bucket.
func TestExposedTime(t *testing.T) {
	dir := t.TempDir()
	var told [2]time.Duration
	var lines [2]*train.Timeline
	got, errs := together(t, 2, 2, func(m member) {
		m.o.World = slow{m.o.World}
		train.SetBucket(m.o, 200)
		line, err := train.NewTimeline(filepath.Join(dir, fmt.Sprint(m.rank)), m.rank)
		if err != nil {
			t.Error(err)
		}
		lines[m.rank], m.o.Timeline = line, line
		m.o.OnStep = func(s train.Step) error {
			told[m.rank] += s.Exposed
			return nil
		}
	})
	for rank, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
		if got[rank].exposed != told[rank] || told[rank] < 200*time.Microsecond {
			t.Errorf("rank %d: the steps waited for %v, the run for %v", rank, told[rank], got[rank].exposed)
		}
	}
	if err := errors.Join(lines[0].Close(), lines[1].Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "1"))
	if err != nil {
		t.Fatal(err)
	}
	var events []struct {
		Name     string
		Pid, Tid int
	}
	if err := json.Unmarshal(text, &events); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range events {
		if e.Pid != 1 {
			t.Errorf("%+v is of another rank", e)
		}
		if strings.HasPrefix(e.Name, "sum ") && e.Tid == 1 {
			e.Name = "sum"
		}
		count[e.Name]++
	}
	if n := got[1].steps; count["wait for sums"] != n || count["sum"] < 2*n {
		t.Errorf("events of %d steps: %v", n, count)
	}
}

// Any division into buckets, also one for each parameter, gives the bits of one process.
func TestBucketsKeepTheBits(t *testing.T) {
	want, errs := together(t, 1, 4, nil)
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	before := int64(math.MaxInt64)
	for _, size := range []int{1, 150, 400, 1 << 18} {
		worlds := make([]counted, 2)
		got, errs := together(t, 2, 2, func(m member) {
			worlds[m.rank].World = m.o.World
			m.o.World = &worlds[m.rank]
			train.SetBucket(m.o, size)
		})
		for rank, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[rank].bits, want[0].bits) || got[rank].history != want[0].history {
				t.Errorf("buckets of %d: rank %d has other weights or history than one process", size, rank)
			}
		}
		if n := worlds[0].sums.Load(); n >= before {
			t.Errorf("buckets of %d make %d sums, smaller ones %d", size, n, before)
		} else {
			before = n
		}
	}
}

// reader has tables: one that is only read, and one that its output shares if it is tied.
type reader struct {
	Words *nn.Embedding
	Kinds *nn.Embedding
	RNN   *nn.RNN
	Head  *nn.Linear
}

const words, wordWidth = 150, 5

// read makes a job read words in place of numbers.
func read(m member, tied bool, dev *tensor.Device) {
	net := &reader{nn.NewEmbedding(words, wordWidth, &nn.EmbeddingOptions{HasPadding: true}), nn.NewEmbedding(70, wordWidth, nil), nn.NewGRU(wordWidth, wordWidth, nil), nn.NewLinear(wordWidth, words, nil)}
	if tied {
		net.Head.Weight = net.Words.Weight
	}
	slab := tensor.Pack(dev, net, 1)
	m.job.Slab, m.job.Optimizer = slab, optim.NewAdamW(slab, nil)
	loss := func(tape *tensor.Tape, b *ragged) *tensor.Tensor {
		n := len(b.lengths)
		ids, kinds, next := make([]int32, n*longest), make([]int32, n*longest), make([]int32, n)
		for i := range ids {
			ids[i], kinds[i] = int32(math.Abs(float64(b.x[i]))*20)%words, int32(math.Abs(float64(b.x[i]))*9)%70
		}
		for i := range next {
			next[i] = ids[i*longest]
		}
		x := tensor.Add(net.Words.Forward(tape.IDs(ids, b.lengths, n, longest)), net.Kinds.Forward(tape.IDs(kinds, b.lengths, n, longest)))
		y, _ := net.RNN.Forward(x, nil)
		return tensor.CrossEntropy(net.Head.Forward(tensor.LastStep(y)), tape.IDs(next, nil, n), nil)
	}
	m.job.Loss, m.job.Validate, m.job.Metric = loss, nil, ""
}

// Of a table only the rows that some rank touched travel, and the bits are those of one
// process, with short steps, tied tables and on a device whose memory the host cannot see.
func TestTablesTravelByRow(t *testing.T) {
	for _, tied := range []bool{false, true} {
		want, errs := together(t, 1, 4, func(m member) { read(m, tied, nil) })
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		for _, ranks := range []int{2, 4} {
			for _, elsewhere := range []bool{false, true} {
				worlds := make([]counted, ranks)
				var numbers, steps int64
				got, errs := together(t, ranks, 4/ranks, func(m member) {
					var dev *tensor.Device
					if elsewhere {
						dev = tensor.NewDevice(forwardtest.New(cpu.New(simd.Best())))
						m.o.OnStep = func(train.Step) error { return nil } // so that every step's loss is read, as there
					}
					read(m, tied, dev)
					worlds[m.rank].World = m.o.World
					m.o.World = &worlds[m.rank]
					train.SetBucket(m.o, 64)
					if m.rank == 0 {
						numbers = int64(m.job.Slab.NumElements())
					}
				})
				for rank, err := range errs {
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(got[rank].bits, want[0].bits) || got[rank].history != want[0].history {
						t.Errorf("%d ranks, tied %v, elsewhere %v: rank %d has other weights or history than one process", ranks, tied, elsewhere, rank)
					}
					steps = int64(got[rank].steps)
				}
				most := numbers * steps
				if !tied {
					most -= words * wordWidth * steps / 2
				}
				if n := worlds[0].numbers.Load(); n > most {
					t.Errorf("%d ranks, tied %v: %d numbers travelled, want at most %d", ranks, tied, n, most)
				}
			}
		}
	}
}

// normed has running statistics, of which one layer sees the other's output.
type normed struct {
	In, Out *nn.BatchNorm
	RNN     *nn.RNN
	Head    *nn.Linear
}

// Running statistics are those of one process, also where a short step leaves ranks
// without a batch, whose statistics move all the same.
func TestRunningStatistics(t *testing.T) {
	var nets []*normed
	prepare := func(m member) *normed {
		net := &normed{nn.NewBatchNorm(features), nn.NewBatchNorm(4), nn.NewGRU(features, 4, nil), nn.NewLinear(4, 1, nil)}
		slab := tensor.Pack(nil, net, 1)
		m.job.Slab, m.job.Optimizer = slab, optim.NewAdamW(slab, nil)
		loss := func(tape *tensor.Tape, b *ragged) *tensor.Tensor {
			n := len(b.lengths)
			y, _ := net.RNN.Forward(net.In.Forward(tape.Sequences(b.x, b.lengths, n, longest, features)), nil)
			return tensor.MSE(net.Head.Forward(tensor.LastStep(net.Out.Forward(y))), tape.Input(b.y, n, 1), nil)
		}
		m.job.Loss, m.job.Validate, m.job.Metric = loss, nil, ""
		return net
	}
	want, errs := together(t, 1, 4, func(m member) { nets = append(nets, prepare(m)) })
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	if v := nets[0].Out.RunningVar.Read(); v[0] == 1 || v[0] <= 0 {
		t.Fatalf("the running variance is %v", v)
	}
	for _, ranks := range []int{2, 4} {
		got, errs := together(t, ranks, 4/ranks, func(m member) { prepare(m) })
		for rank, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[rank].bits, want[0].bits) || got[rank].history != want[0].history {
				t.Errorf("%d ranks: rank %d has other statistics, weights or history than one process", ranks, rank)
			}
		}
	}
	_, errs = together(t, 2, 2, func(m member) {
		net := prepare(m)
		net.In.RunningMean.Running = false
	})
	for rank, err := range errs {
		if err == nil || !strings.Contains(err.Error(), `statistic "in.running_mean" is not marked`) {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}

// tables are three parameters of any bits.
type tables struct{ A, B, C *tensor.Param }

// The way by rows gives the bits of the dense one for numbers of every kind, where a rank
// has no batch and where most rows are touched.
func TestRowsOfEveryKind(t *testing.T) {
	const ranks, rows, width, steps = 3, 70, 3, 6
	odd := []float32{float32(math.Copysign(0, -1)), float32(math.NaN()), math.Float32frombits(0xffc00001), float32(math.Inf(1)), 1e-38, -3}
	run := func(byRow bool) [][]uint32 {
		sums := make([][]uint32, ranks)
		var all sync.WaitGroup
		for rank, w := range traintest.Worlds(ranks) {
			all.Go(func() {
				m := &tables{tensor.NewParam("a", nil, rows, width), tensor.NewParam("b", nil, 5), tensor.NewParam("c", nil, rows, width)}
				m.A.Rows, m.C.Rows = byRow, byRow
				slab := tensor.Pack(nil, m, 1)
				o := &train.Options{Run: train.Run{World: w}}
				train.SetBucket(o, 16)
				read := func() {
					for _, p := range slab.Params { // what is between them does not count
						for _, v := range p.Grad() {
							sums[rank] = append(sums[rank], math.Float32bits(v))
						}
					}
				}
				err := train.Reduce(slab, o, steps, func(step int) (idle bool) {
					if step > 0 {
						read()
					}
					g := slab.Grads().View()
					if step%2 == 1 && rank > 0 {
						for i := range g {
							g[i] = odd[0]
						}
						return true
					}
					clear(g)
					r := rand.New(rand.NewPCG(uint64(step), uint64(rank)))
					for _, p := range []int{0, 2} {
						lo, _ := slab.Range(p)
						for range []int{0, 3, 10, 30, 200, 2}[step] {
							g[lo+r.IntN(rows*width)] = odd[r.IntN(len(odd))]
						}
					}
					return false
				})
				if err != nil {
					t.Error(err)
				}
				read()
			})
		}
		all.Wait()
		return sums
	}
	dense, sparse := run(false), run(true)
	for rank := range dense {
		if len(dense[rank]) == 0 || !slices.Equal(sparse[rank], dense[rank]) {
			t.Errorf("rank %d: the sums by row differ from the dense ones", rank)
		}
	}
}

// Compressed sums are the same on all ranks and near the exact ones; what rounding loses
// is not lost, but comes with the next sums.
func TestCompressedSums(t *testing.T) {
	const ranks, n, steps = 2, 40, 64
	worlds := traintest.Worlds(ranks)
	var all sync.WaitGroup
	totals := make([][]float64, ranks)
	for rank, w := range worlds {
		all.Go(func() {
			m := &tables{tensor.NewParam("a", nil, n, 1), tensor.NewParam("b", nil, 5), tensor.NewParam("c", nil, n, 1)}
			m.A.Rows = true
			slab := tensor.Pack(nil, m, 1)
			o := &train.Options{Run: train.Run{World: w, Compress: true}}
			train.SetBucket(o, 16)
			g := slab.Grads().View()
			totals[rank] = make([]float64, len(g))
			read := func() {
				for i, v := range g {
					totals[rank][i] += float64(v)
				}
			}
			err := train.Reduce(slab, o, steps+1, func(step int) bool {
				if step > 1 { // the order of the buckets changes after the first step, which forgets
					read()
				}
				clear(g)
				for p := range slab.Params {
					lo, hi := slab.Range(p)
					for i := lo; i < hi; i++ {
						if p > 0 || (i+step)%4 == 0 {
							g[i] = 1 + 0.001*float32(i) // no bfloat16
						}
					}
				}
				return false
			})
			read()
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if !slices.Equal(totals[0], totals[1]) {
		t.Fatal("ranks have other sums")
	}
	exact := 0
	for i, total := range totals[0] {
		if total == 0 {
			continue
		}
		times := math.Round(total / (ranks * (1 + 0.001*float64(i))))
		want := times * ranks * float64(1+0.001*float32(i))
		// A sum alone is wrong by up to 2^-8 of it; without feedback so would be all of them.
		if math.Abs(total-want) > want/times/64 || times != steps && times != steps/4 {
			t.Errorf("sum %d is %v over %v steps, want %v", i, total, times, want)
		}
		if total == want {
			exact++
		}
	}
	if exact > n {
		t.Error("most sums are exact: nothing was rounded")
	}

	whole, _ := together(t, 2, 2, nil)
	small, errs := together(t, 2, 2, func(m member) { m.o.Compress = true })
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(small[0].bits, small[1].bits) || small[0].history != small[1].history {
		t.Error("with compressed sums ranks have other weights")
	}
	if slices.Equal(small[0].bits, whole[0].bits) {
		t.Error("compressed sums change nothing")
	}
	if small[0].devices != whole[0].devices+" with sums in bf16" {
		t.Errorf("trained on %q", small[0].devices)
	}
}

// ghost is rank 0 of two, of which the other adds nothing and costs nothing.
type ghost struct{}

func (ghost) Rank() int                       { return 0 }
func (ghost) Size() int                       { return 2 }
func (ghost) Sum(v, residual []float32) error { return nil }
func (ghost) Gather(own, all []float64) error {
	clear(all[copy(all, own):])
	return nil
}
func (ghost) Share(own []byte) ([][]byte, error) { return [][]byte{own, own}, nil }
func (ghost) Abort(error)                        {}

// A step with ranks allocates nothing once the order of the buckets is known.
func TestStepWithRanksAllocatesNothing(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const from, to = 30, 80
	for _, compress := range []bool{false, true} {
		var first, last runtime.MemStats
		net := &reader{nn.NewEmbedding(words, wordWidth, nil), nn.NewEmbedding(70, wordWidth, nil), nn.NewGRU(wordWidth, wordWidth, nil), nn.NewLinear(wordWidth, words, nil)}
		slab := tensor.Pack(nil, net, 1)
		ids, lengths, next := []int32{3, 5, 8, 1, 2, 9}, []int32{3, 2}, []int32{4, 7}
		job := &train.Job[int]{
			Slab: slab, Optimizer: optim.NewAdamW(slab, nil), Samples: 1000,
			NewBatch: func() *int { return new(int) }, Load: func(*int, []int) {},
			Loss: func(tape *tensor.Tape, _ *int) *tensor.Tensor {
				in := tape.IDs(ids, lengths, 2, 3)
				y, _ := net.RNN.Forward(tensor.Add(net.Words.Forward(in), net.Kinds.Forward(in)), nil)
				return tensor.CrossEntropy(net.Head.Forward(tensor.LastStep(y)), tape.IDs(next, nil, 2), nil)
			},
		}
		o := &train.Options{Batch: 2, Accumulate: 2, Epochs: 1, Schedule: optim.Constant(1e-3), Run: train.Run{World: ghost{}, Compress: compress}}
		train.SetBucket(o, 64)
		o.OnStep = func(s train.Step) error {
			switch s.Step {
			case from:
				runtime.ReadMemStats(&first)
			case to:
				runtime.ReadMemStats(&last)
			}
			return nil
		}
		if _, err := train.Fit(t.Context(), job, o); err != nil {
			t.Fatal(err)
		}
		// A few of the runtime's own may fall into the span.
		if n := last.Mallocs - first.Mallocs; n > 15 || last.Mallocs == 0 {
			t.Errorf("compress %v: %d allocations in %d steps", compress, n, to-from)
		}
	}
}
