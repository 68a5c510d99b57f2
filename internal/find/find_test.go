package find

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// well is a quadratic: the loss of a sample x of d numbers is curvature/2·|w-x|², where
// the samples are 1 and noise around it. Gradient descent with a fixed rate diverges
// above 2/curvature and not below.
type well struct {
	d, samples       int
	curvature, noise float64
	batch            int

	x []float32
	w *nn.Linear
}

func (q *well) fit(ctx context.Context, run *train.Run) error {
	r := rand.New(rand.NewPCG(1, 2))
	q.x = make([]float32, q.samples*q.d)
	for i := range q.x {
		q.x[i] = float32(1 + q.noise*r.NormFloat64())
	}
	scale := float32(math.Sqrt(q.curvature * float64(q.d) / 2)) // the loss is a mean over d numbers
	q.w = nn.NewLinear(1, q.d, &nn.LinearOptions{NoBias: true, Init: func(_ *rand.Rand, w []float32, _ []int) { clear(w) }})
	slab := tensor.Pack(nil, q.w, 1)
	var o train.Options
	o.Run, o.Epochs, o.Batch, o.Schedule = *run, 3, q.batch, optim.Constant(0.01/q.curvature)
	type batch struct{ in, out []float32 }
	_, err := train.Fit(ctx, &train.Job[batch]{
		Slab: slab, Optimizer: optim.NewSGD(slab, nil), Samples: q.samples,
		NewBatch: func() *batch { return &batch{} },
		Load: func(b *batch, samples []int) {
			b.in, b.out = b.in[:0], b.out[:0]
			for _, i := range samples {
				b.in = append(b.in, scale)
				for _, x := range q.x[i*q.d:][:q.d] {
					b.out = append(b.out, scale*x)
				}
			}
		},
		Loss: func(t *tensor.Tape, b *batch) *tensor.Tensor {
			n := len(b.in)
			return tensor.MSE(q.w.Forward(t.Input(b.in, n, 1)), t.Input(b.out, n, q.d), nil)
		},
		Validate: func(context.Context, *tensor.Tape) (map[string]float64, error) {
			return nil, errors.New("a trial validates nothing")
		},
	}, &o)
	return err
}

// The range test of a quadratic: the loss is least below 2/curvature, and the test ends
// above it, soon: by then a step multiplies the distance by more each time.
func TestRateOfAQuadratic(t *testing.T) {
	for _, curvature := range []float64{20, 500, 2e4} {
		q := &well{d: 8, samples: 4096, curvature: curvature, noise: 0.3, batch: 8}
		r, err := FindRate(t.Context(), q.fit, &RateOptions{From: 1e-6, To: 1, Steps: 400})
		if err != nil {
			t.Fatal(err)
		}
		edge := 2 / curvature
		last := r.Points[len(r.Points)-1]
		if r.Stopped != EndedRose || !(last.LR > edge && last.LR < 2*edge) {
			t.Errorf("curvature %v: %s at %v, want that between %v and twice as much", curvature, r.Stopped, last.LR, edge)
		}
		if r.Suggestion == nil || !(*r.Least < edge && *r.Least > edge/30 && *r.Suggestion == *r.Least/10 && *r.Steepest < *r.Least) || len(r.Notes) > 0 {
			t.Errorf("curvature %v: %+v", curvature, *r)
			continue
		}
		for i, p := range r.Points {
			want := 1e-6 * math.Pow(1e6, float64(i)/399)
			if math.Abs(p.LR/want-1) > 1e-6 {
				t.Fatalf("step %d has the rate %v, want %v", i+1, p.LR, want)
			}
		}
	}
}

// The average is that of all losses with weights beta^age, which add up to 1.
func TestSmoothing(t *testing.T) {
	s := &smoothing{beta: 0.75, window: 2}
	losses := []float64{4, 1, 3, -2, 5, 5}
	for i := range losses {
		got := s.add(losses[i])
		sum, weight := 0., 0.
		for k := range i + 1 {
			w := math.Pow(0.75, float64(i-k))
			sum, weight = sum+w*losses[k], weight+w
		}
		if math.Abs(got-sum/weight) > 1e-12 {
			t.Errorf("after %v: got %v, want %v", losses[:i+1], got, sum/weight)
		}
	}
	if s.start() != 2.5 {
		t.Errorf("the start is %v, want the mean of the first two losses, 2.5", s.start())
	}
}

// scripted is a training whose losses are given.
func scripted(losses ...float64) Fit {
	return func(_ context.Context, run *train.Run) error {
		o := &train.Options{Run: *run, Schedule: optim.Constant(1)}
		run.Adjust(o)
		for i, l := range losses {
			if l-l != 0 {
				return fmt.Errorf("in a task: %w", &train.DivergedError{Step: i + 1, Loss: l})
			}
			if err := run.OnStep(train.Step{Step: i + 1, Loss: l, LR: o.Schedule(i)}); err != nil {
				return fmt.Errorf("in a task: %w", err)
			}
		}
		return nil
	}
}

func curve(n int, loss func(i int) float64) (all []float64) {
	for i := range n {
		all = append(all, loss(i))
	}
	return all
}

func TestRateOfCurves(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	inf := math.Inf(1)
	for _, c := range []struct {
		name    string
		losses  []float64
		stopped Ended
		least   int // step; -1: nothing is suggested
		note    string
	}{
		{"falls, then rises", curve(100, func(i int) float64 { return 1 + math.Abs(float64(i-60))/100 }), EndedSteps, 62, ""},
		{"falls to the end", curve(100, func(i int) float64 { return 2 - float64(i)/100 }), EndedSteps, 99, "still fell at the last rate, 1"},
		{"never falls", curve(100, func(i int) float64 { return 1 + float64(i)/100 }), EndedSteps, -1, "never fell below its start"},
		{"is the same", curve(100, func(int) float64 { return 0.7 }), EndedSteps, -1, "never fell below its start"},
		{"is noise", curve(100, func(int) float64 { return 1 + 0.3*r.NormFloat64() }), EndedSteps, -1, "never fell below its start"},
		{"falls within noise", curve(100, func(i int) float64 {
			return 3 - 2*min(float64(i), 50)/50 + 0.2*r.NormFloat64() + max(0, float64(i-70))/20
		}), EndedSteps, 64, ""},
		{"rises at once", curve(100, func(i int) float64 { return math.Exp(float64(i)) }), EndedRose, -1, "without having fallen"},
		{"a negative loss", curve(100, func(i int) float64 {
			if i > 80 {
				return 40
			}
			return 1 - float64(i)/20
		}), EndedRose, 80, ""},
		{"diverges", append(curve(60, func(i int) float64 { return 2 - float64(i)/100 }), inf), EndedDiverged, 59, ""},
		{"is infinite", []float64{inf}, EndedDiverged, -1, "the first loss was not finite"},
		{"early", curve(100, func(i int) float64 { return math.Abs(float64(i - 5)) }), EndedRose, 6, "below the first rate"},
	} {
		got, err := FindRate(t.Context(), scripted(c.losses...), &RateOptions{From: 1e-4, To: 1, Steps: 100})
		if err != nil {
			t.Fatal(err)
		}
		if got.Stopped != c.stopped || strings.Join(got.Notes, "; ") == "" != (c.note == "") || !strings.Contains(strings.Join(got.Notes, "; "), c.note) {
			t.Errorf("%s: ended by %s, notes %q, want %s and %q", c.name, got.Stopped, got.Notes, c.stopped, c.note)
		}
		if c.least < 0 {
			if got.Suggestion != nil || got.Least != nil || got.Steepest != nil {
				t.Errorf("%s: suggests %v", c.name, *got.Suggestion)
			}
			continue
		}
		want, slack := 1e-4*math.Pow(1e4, float64(c.least)/99), 3.5 // steps
		if c.name == "falls within noise" {
			slack = 12 // its bottom is flat for 20
		}
		if got.Suggestion == nil || math.Abs(math.Log(*got.Least/want)) > math.Log(1e4)/99*slack || *got.Suggestion != *got.Least/10 || *got.Steepest > *got.Least {
			t.Errorf("%s: %+v, want the least loss at %v", c.name, got.Least, want)
		}
	}
}

// What ends a training before it is measured is returned.
func TestErrorsOfTrainings(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		fit  Fit
		want string
	}{
		{func(context.Context, *train.Run) error { return broken }, "broken"},
		{func(context.Context, *train.Run) error { return context.Canceled }, "canceled"},
		{scripted(1, 2), "ended by itself"},
	} {
		_, err := FindRate(t.Context(), c.fit, &RateOptions{From: 1e-4, To: 1, Steps: 100})
		_, err2 := MeasureNoise(t.Context(), func(ctx context.Context, run *train.Run) error {
			inner := run.OnStep
			run.OnStep = func(s train.Step) error { s.PerEpoch = 100; return inner(s) }
			return c.fit(ctx, run)
		})
		_, err3 := FindBatch(t.Context(), func(ctx context.Context, _ int, run *train.Run) error { return c.fit(ctx, run) }, &BatchOptions{Setting: "batch"})
		for _, err := range []error{err, err2, err3} {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	q := &well{d: 2, samples: 64, curvature: 1, batch: 4}
	_, err := FindRate(ctx, func(ctx context.Context, run *train.Run) error {
		inner := run.OnStep
		run.OnStep = func(s train.Step) error { cancel(); return inner(s) }
		if err := q.fit(ctx, run); err != nil {
			return err
		}
		return ctx.Err()
	}, &RateOptions{From: 1e-4, To: 1, Steps: 100})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled test: %v", err)
	}
}

// In the quadratic a sample's gradient is curvature·(w-x): its variance is known, and
// that of the mean gradient at the weights that both measurements are made at.
func TestNoise(t *testing.T) {
	q := &well{d: 64, samples: 2048, curvature: 3, noise: 2, batch: 16}
	var at [][]float32 // the weights of each gradient
	list, err := MeasureNoise(t.Context(), func(ctx context.Context, run *train.Run) error {
		inner := run.OnGradients
		run.OnGradients = func(s *tensor.Slab) {
			at = append(at, slices.Clone(q.w.Weight.Read()))
			inner(s)
		}
		return q.fit(ctx, run)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Trained != 0 || list[1].Trained < trainedSteps || list[0].Batches != noiseBatches || list[1].Batches != noiseBatches || list[0].Samples != 16 {
		t.Fatalf("%+v", list)
	}
	for i, n := range list {
		first := 0
		if i == 1 {
			first = len(at) - noiseBatches
		}
		for _, w := range at[first:][:noiseBatches] {
			if !slices.Equal(w, at[first]) {
				t.Fatalf("measurement %d: the weights moved", i)
			}
		}
		distance := 0.
		for _, w := range at[first] {
			distance += (1 - float64(w)) * (1 - float64(w))
		}
		gradient, variance := 9*distance, 9*64*4. // curvature², noise²
		if math.Abs(n.Gradient/gradient-1) > 0.15 || math.Abs(n.Variance/variance-1) > 0.15 || math.Abs(n.Scale/(variance/gradient)-1) > 0.2 {
			t.Errorf("measurement %d: %+v, want |G|² %v, tr(Σ) %v, scale %v", i, n, gradient, variance, variance/gradient)
		}
	}
	if !(list[1].Scale > 3*list[0].Scale) {
		t.Errorf("near the least loss the noise scale is %v, and at the start %v", list[1].Scale, list[0].Scale)
	}

	// An epoch with two steps has no batches to compare.
	q = &well{d: 2, samples: 32, curvature: 1, noise: 1, batch: 16}
	if list, err = MeasureNoise(t.Context(), q.fit); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A gradient that the noise hides has no scale.
func TestHiddenGradient(t *testing.T) {
	g := &gradients{}
	g.n, g.sum, g.squares = 4, []float64{0.1, 0}, 4 // four gradients of norm 1 that nearly cancel
	if n := g.noise(7, 10); !math.IsNaN(n.Scale) || !(n.Gradient < 0) || math.Abs(n.Variance-10*4./3*(1-0.025*0.025)) > 1e-12 || n.Trained != 7 {
		t.Errorf("%+v", n)
	}
}

func TestBatches(t *testing.T) {
	fit := func(ctx context.Context, size int, run *train.Run) error {
		return (&well{d: 4, samples: 20, curvature: 1, batch: size}).fit(ctx, run)
	}
	var told []int
	r, err := FindBatch(t.Context(), fit, &BatchOptions{Setting: "batch", Tried: func(b BatchSize) { told = append(told, b.Size) }})
	if err != nil {
		t.Fatal(err)
	}
	best, tape := 0., int64(0)
	var sizes []int
	for i, b := range r.Sizes {
		sizes = append(sizes, b.Size)
		best = max(best, b.Rate)
		perEpoch := (20 + b.Size - 1) / b.Size
		if b.Size != 1<<i || b.Samples != 20/float64(perEpoch) || b.Steps < fewest || !(b.Seconds > 0) || b.Rate != b.Samples/b.Seconds || b.Tape < tape || !(b.Memory > b.Tape) {
			t.Errorf("%+v", b)
		}
		tape = b.Tape
	}
	if !slices.Equal(sizes, told) || len(sizes) < 4 || len(r.Notes) != 1 {
		t.Errorf("sizes %v, told %v, notes %q", sizes, told, r.Notes)
	}
	if last := sizes[len(sizes)-1]; last > 32 || last == 32 && !strings.Contains(r.Notes[0], "all samples of an epoch") {
		t.Errorf("sizes %v, notes %q", sizes, r.Notes)
	}
	for _, b := range r.Sizes {
		if b.Size < r.Suggestion && b.Rate >= within*best || b.Size == r.Suggestion && b.Rate < within*best {
			t.Errorf("the suggestion is %d, the rate of %d is %v of the best", r.Suggestion, b.Size, b.Rate/best)
		}
	}

	var input *data.InputError
	if _, err := FindBatch(t.Context(), fit, &BatchOptions{Setting: "batch", Memory: 1 << 10}); !errors.As(err, &input) || !strings.Contains(err.Error(), "a batch of 1 takes") {
		t.Errorf("%v", err)
	}
	refusal := data.Errorf("batch: want at most 2")
	r, err = FindBatch(t.Context(), func(ctx context.Context, size int, run *train.Run) error {
		if size > 2 {
			return refusal
		}
		return fit(ctx, size, run)
	}, &BatchOptions{Setting: "batch"})
	if err != nil || len(r.Sizes) != 2 || !strings.Contains(r.Notes[0], "size 4 cannot be trained with: batch: want at most 2") {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err = FindBatch(t.Context(), func(context.Context, int, *train.Run) error { return refusal }, &BatchOptions{}); !errors.Is(err, refusal) {
		t.Errorf("%v", err)
	}
}

// The next size is not tried if the passes' growth says that it would not fit.
func TestExpectedMemory(t *testing.T) {
	r := &Batches{Sizes: []BatchSize{{Tape: 100, Memory: 1000}}}
	if n := r.expected(); n != 0 {
		t.Errorf("after one size %d is expected, want nothing", n)
	}
	r.Sizes = append(r.Sizes, BatchSize{Tape: 160, Memory: 1070})
	if n := r.expected(); n != 1070+120 {
		t.Errorf("%d is expected, want 1190", n)
	}
	r.Sizes = append(r.Sizes, BatchSize{Tape: 90, Memory: 900}) // of shorter sequences
	if n := r.expected(); n != 900 {
		t.Errorf("%d is expected, want 900", n)
	}
}

// A size whose steps are no larger than those of the last one is not timed, and some in
// a row end the search once steps have grown.
func TestEqualSteps(t *testing.T) {
	for _, c := range []struct {
		name  string
		batch func(size int) int
		want  []int // sizes, as far as the times let the search come
		note  string
	}{
		{"bounded", func(size int) int { return min(size, 2) }, []int{1, 2}, "did not make larger steps"},
		{"tokens", func(size int) int { return max(1, size/16) }, []int{1, 32, 64, 128, 256, 512}, ""},
	} {
		r, err := FindBatch(t.Context(), func(ctx context.Context, size int, run *train.Run) error {
			return (&well{d: 4, samples: 30, curvature: 1, batch: c.batch(size)}).fit(ctx, run)
		}, &BatchOptions{Setting: "batch"})
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range r.Sizes {
			if i >= len(c.want) || b.Size != c.want[i] {
				t.Errorf("%s: %+v, want sizes %v", c.name, r.Sizes, c.want)
			}
		}
		if len(r.Sizes) < 2 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], c.note) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

// The noise is measured with a size of which an epoch has many steps.
func TestForNoise(t *testing.T) {
	r := &Batches{Suggestion: 8, Sizes: []BatchSize{{Size: 1, perEpoch: 300}, {Size: 2, perEpoch: 150}, {Size: 4, perEpoch: 75}, {Size: 8, perEpoch: 38}, {Size: 16, perEpoch: 19}}}
	if n := r.ForNoise(); n != 8 {
		t.Errorf("%d, want the suggestion", n)
	}
	r.Suggestion = 16
	if n := r.ForNoise(); n != 8 {
		t.Errorf("%d, want 8, the largest with enough steps", n)
	}
	r = &Batches{Suggestion: 2, Sizes: []BatchSize{{Size: 1, perEpoch: 10}, {Size: 2, perEpoch: 5}}}
	if n := r.ForNoise(); n != 1 {
		t.Errorf("%d, want the smallest", n)
	}
}
