package train

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// net is small, but has what a resume must get right: recurrent state, dropout and a bias.
type net struct {
	RNN  *nn.RNN
	Head *nn.Linear
}

// testBatch is windows of a noisy sine and the value after each.
type testBatch struct {
	x, y []float32
	n    int
}

const window = 6

func series(n int) []float32 {
	r := rand.New(rand.NewPCG(3, 4))
	s := make([]float32, n+window+1)
	for i := range s {
		s[i] = float32(math.Sin(float64(i)/3) + 0.1*r.NormFloat64())
	}
	return s
}

func newNet() *net {
	return &net{nn.NewLSTM(1, 8, nil), nn.NewLinear(8, 1, nil)}
}

func (m *net) forward(x *tensor.Tensor, dropout float32) *tensor.Tensor {
	y, _ := m.RNN.Forward(x, nil)
	return m.Head.Forward(tensor.Dropout(tensor.LastStep(y), dropout))
}

// newJob trains a fresh net on n samples and validates on 20 others.
func newJob(n int) *Job[testBatch] { return newJobOn(tensor.CPU(), n) }

func newJobOn(dev *tensor.Device, n int) *Job[testBatch] {
	m := newNet()
	s := series(n + 20)
	slab := tensor.Pack(dev, m, 1)
	load := func(b *testBatch, samples []int) {
		b.x, b.y, b.n = b.x[:0], b.y[:0], len(samples)
		for _, i := range samples {
			b.x = append(b.x, s[i:i+window]...)
			b.y = append(b.y, s[i+window])
		}
	}
	var held testBatch
	load(&held, func() (v []int) {
		for i := range 20 {
			v = append(v, n+i)
		}
		return v
	}())
	loss := func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		return tensor.MSE(m.forward(tape.Input(b.x, b.n, window, 1), 0.2), tape.Input(b.y, b.n, 1), nil)
	}
	return &Job[testBatch]{
		Slab:      slab,
		Optimizer: optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: 1e-3}),
		Samples:   n,
		NewBatch:  func() *testBatch { return new(testBatch) },
		Load:      load,
		Loss:      loss,
		Validate: func(_ context.Context, tape *tensor.Tape) (map[string]float64, error) {
			tape.Reset()
			return map[string]float64{"mse": float64(loss(tape, &held).Item()), "rows": 20}, nil
		},
		Metric: "mse",
	}
}

func newOptions() *Options {
	return &Options{Epochs: 5, Batch: 8, Schedule: optim.Cosine(1e-2, 1e-4, 50), Clip: 1, Seed: 7}
}

func fit(t *testing.T, job *Job[testBatch], o *Options) *Result {
	t.Helper()
	r, err := Fit(t.Context(), job, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func weights(job *Job[testBatch]) []float32 {
	var all []float32
	for _, p := range job.Slab.Params {
		all = append(all, p.Read()...)
	}
	return all
}

func TestFitLearns(t *testing.T) {
	job, o := newJob(75), newOptions()
	o.Epochs = 12
	if n := o.TotalSteps(75); n != 120 {
		t.Errorf("%d steps planned, want 120", n)
	}
	o.Schedule = optim.Constant(2e-2)
	r := fit(t, job, o)
	if r.Epochs != 12 || r.Steps != 120 || r.Stopped != StopEpochs || r.Interrupted || len(r.History) != 12 {
		t.Fatalf("%+v", r)
	}
	first, last := r.History[0], r.History[11]
	if !(last.TrainLoss < first.TrainLoss/3) || !(r.Best.Val["mse"] < 0.1) {
		t.Errorf("loss went from %v to %v, validation to %v", first.TrainLoss, last.TrainLoss, r.Best.Val["mse"])
	}
	if last.Epoch != 12 || last.Step != 120 || last.LR != 2e-2 || !(last.GradNorm > 0) || last.Val["rows"] != 20 {
		t.Errorf("last record %+v", last)
	}
	val, _ := job.Validate(t.Context(), tensor.NewTape(tensor.CPU(), tensor.Infer))
	if val["mse"] != r.Best.Val["mse"] {
		t.Errorf("the weights left score %v, the best %v", val["mse"], r.Best.Val["mse"])
	}
}

// TestLeftoverGradient wants a run to be the same after one that broke off between Backward and Step.
func TestLeftoverGradient(t *testing.T) {
	clean, dirty := newJob(16), newJob(16)
	g := dirty.Slab.Grads()
	dirty.Slab.Device().Backend().Fill(g, 1)
	fit(t, clean, newOptions())
	fit(t, dirty, newOptions())
	if !slices.Equal(weights(clean), weights(dirty)) {
		t.Error("an old gradient takes part in the first step")
	}
}

// TestBatches wants every sample once an epoch, in another order each time, and the same order for the same seed.
func TestBatches(t *testing.T) {
	orders := func(seed uint64) (all []int) {
		job, o := newJob(21), newOptions()
		o.Seed, o.Epochs = seed, 2
		inner := job.Load
		job.Load = func(b *testBatch, samples []int) {
			all = append(all, samples...)
			inner(b, samples)
		}
		fit(t, job, o)
		return all[:42] // the loader may have begun a third epoch
	}
	a := orders(1)
	for _, epoch := range [][]int{a[:21], a[21:]} {
		s := slices.Sorted(slices.Values(epoch))
		for i, v := range s {
			if i != v {
				t.Fatalf("epoch covers %v", s)
			}
		}
	}
	if slices.Equal(a[:21], a[21:]) || slices.IsSorted(a[:21]) {
		t.Error("the order is not shuffled anew")
	}
	if !slices.Equal(a, orders(1)) || slices.Equal(a, orders(2)) {
		t.Error("the order does not follow the seed")
	}
}

// TestAccumulate wants batches of unequal item counts, accumulated, to equal one large batch.
func TestAccumulate(t *testing.T) {
	run := func(batch, accumulate int) ([]float32, *Result) {
		job, o := newJob(36), newOptions()
		o.Batch, o.Accumulate = batch, accumulate
		m := newNet()
		job.Slab = tensor.Pack(tensor.CPU(), m, 1)
		job.Optimizer = optim.NewSGD(job.Slab, nil)
		job.Validate, job.Metric = nil, ""
		// Items of weight 0 do not count: rows whose target is negative.
		mask := func(b *testBatch) (w []float32, n float64) {
			for _, y := range b.y {
				if y < 0 {
					w = append(w, 0)
				} else {
					w = append(w, 1)
					n++
				}
			}
			return w, n
		}
		job.Weight = func(b *testBatch) float64 { _, n := mask(b); return n }
		job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
			w, _ := mask(b)
			return tensor.MSE(m.forward(tape.Input(b.x, b.n, window, 1), 0), tape.Input(b.y, b.n, 1), &tensor.LossOptions{Weight: tape.Input(w, b.n, 1)})
		}
		r := fit(t, job, o)
		return weights(job), r
	}
	large, lr := run(12, 1)
	for _, split := range [][2]int{{4, 3}, {3, 4}, {1, 12}} {
		small, sr := run(split[0], split[1])
		if sr.Steps != lr.Steps {
			t.Errorf("%v: %d steps, want %d", split, sr.Steps, lr.Steps)
		}
		for i := range large {
			if math.Abs(float64(large[i]-small[i])) > 1e-5 {
				t.Fatalf("%v: weight %d is %v, with one batch %v", split, i, small[i], large[i])
			}
		}
		for i, r := range sr.History {
			if w := lr.History[i]; math.Abs(r.TrainLoss-w.TrainLoss) > 1e-5 || math.Abs(r.GradNorm-w.GradNorm) > 1e-5 {
				t.Errorf("%v: epoch %+v, with one batch %+v", split, r, w)
			}
		}
	}
}

// TestBatchesDrawTheirOwnMasks wants no two batches of a run to share a dropout mask, in one step or in several.
func TestBatchesDrawTheirOwnMasks(t *testing.T) {
	job, o := newJob(48), newOptions()
	o.Batch, o.Accumulate, o.Epochs = 4, 3, 2
	var masks [][]float32
	inner := job.Loss
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		ones := slices.Repeat([]float32{1}, 256)
		masks = append(masks, slices.Clone(tensor.Dropout(tape.Input(ones, 256), 0.5).Data()))
		return inner(tape, b)
	}
	job.Validate, job.Metric = nil, ""
	fit(t, job, o)
	if len(masks) != 24 {
		t.Fatalf("%d batches, want 24", len(masks))
	}
	for i, a := range masks {
		for j, b := range masks[:i] {
			same := 0
			for k := range a {
				if a[k] == b[k] {
					same++
				}
			}
			// Half of 256 fair coins, within six standard deviations.
			if same < 80 || same > 176 {
				t.Errorf("the masks of batches %d and %d agree in %d of 256 places", j, i, same)
			}
		}
	}
}

// scripted makes validation return the given values, one after another, and keeps the weights it saw.
func scripted(job *Job[testBatch], values ...float64) *[][]float32 {
	var seen [][]float32
	job.Validate = func(context.Context, *tensor.Tape) (map[string]float64, error) {
		seen = append(seen, weights(job))
		return map[string]float64{"mse": values[len(seen)-1]}, nil
	}
	return &seen
}

// Validations during the warm-up do not count against patience: an epoch has 2 steps.
func TestPatienceInWarmup(t *testing.T) {
	for warmup, epochs := range map[int]int{0: 3, 2: 3, 3: 3, 4: 4, 5: 4, 6: 5} {
		job, o := newJob(16), newOptions()
		job.Metric, o.Patience, o.Warmup = "mse", 2, warmup
		scripted(job, 1, 2, 3, 4, 5)
		if r := fit(t, job, o); r.Epochs != epochs || r.Best.Epoch != 1 {
			t.Errorf("warm-up of %d steps: stopped after epoch %d with the best %d, want %d, 1", warmup, r.Epochs, r.Best.Epoch, epochs)
		}
	}
}

// Of equal scores the one with the smaller validation loss is the best.
func TestEqualScores(t *testing.T) {
	job, o := newJob(16), newOptions()
	job.Metric, o.Patience = "-bleu", 1
	losses := []float64{5, 4, 3, 6, 7}
	epoch := 0
	job.Validate = func(context.Context, *tensor.Tape) (map[string]float64, error) {
		epoch++
		return map[string]float64{"bleu": 0, "loss": losses[epoch-1]}, nil
	}
	if r := fit(t, job, o); r.Best.Epoch != 3 || r.Stopped != StopEpochs {
		t.Errorf("best epoch %d, stopped by %s, want 3, %s", r.Best.Epoch, r.Stopped, StopEpochs)
	}
}

func TestEarlyStopping(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name     string
		metric   string
		patience int
		delta    float64
		values   []float64
		stopped  Stop
		best     int // epoch; 0: none
	}{
		{"patience", "mse", 2, 0, []float64{5, 3, 4, 3.5, 1}, StopPatience, 2},
		{"larger is better", "-mse", 2, 0, []float64{1, 3, 2, 2.5, 9}, StopPatience, 2},
		{"equal values do not count", "-mse", 2, 0, []float64{0, 0, 0, 0, 9}, StopEpochs, 5},
		{"nor do they make others not count", "-mse", 2, 0, []float64{3, 2, 3, 2, 9}, StopPatience, 1},
		{"improvement too small", "mse", 2, 0.5, []float64{5, 4.6, 4.51, 1, 1}, StopPatience, 1},
		{"small steps add up", "mse", 2, 0.5, []float64{5, 4.6, 4.4, 4, 3}, StopEpochs, 5},
		{"improvement too small where larger is better", "-mse", 2, 0.5, []float64{5, 5.4, 5.49, 9, 9}, StopPatience, 1},
		{"small steps up add up", "-mse", 2, 0.5, []float64{5, 5.4, 5.6, 6, 7}, StopEpochs, 5},
		{"NaN is no improvement", "mse", 3, 0, []float64{nan, 2, nan, nan, nan}, StopPatience, 2},
		{"never a number", "mse", 9, 0, []float64{nan, nan, nan, nan, nan}, StopEpochs, 0},
		{"no patience", "mse", 0, 0, []float64{1, 2, 3, 4, 5}, StopEpochs, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			job, o := newJob(16), newOptions()
			job.Metric = c.metric
			o.Patience, o.MinDelta = c.patience, c.delta
			seen := scripted(job, c.values...)
			r := fit(t, job, o)
			if r.Stopped != c.stopped {
				t.Errorf("stopped by %s, want %s", r.Stopped, c.stopped)
			}
			kept := len(*seen)
			if c.best > 0 {
				kept = c.best
			}
			if (r.Best == nil) != (c.best == 0) || r.Best != nil && r.Best.Epoch != c.best {
				t.Errorf("best %+v, want epoch %d", r.Best, c.best)
			}
			if !slices.Equal(weights(job), (*seen)[kept-1]) {
				t.Errorf("the weights left are not those of epoch %d", kept)
			}
		})
	}
}

// What a job says of its validation is known before the first step, and is held to what the validation gives.
func TestMetrics(t *testing.T) {
	for _, c := range []struct{ given, plan []string }{
		{nil, []string{"mse"}},
		{[]string{"mse", "-rows"}, []string{"mse", "-rows"}},
		{[]string{"mse"}, nil},
		{[]string{"mse", "rows", "columns"}, nil},
	} {
		job, o := newJob(16), newOptions()
		job.Metrics = c.given
		var plan Plan
		o.OnStart = func(p Plan) error { plan = p; return nil }
		_, err := Fit(t.Context(), job, o)
		if c.plan == nil {
			if err == nil || !strings.Contains(err.Error(), `validation gives ["mse" "rows"], and Job.Metrics names `) {
				t.Errorf("%q: %v", c.given, err)
			}
		} else if err != nil || !slices.Equal(plan.Metrics, c.plan) {
			t.Errorf("%q: %q, %v", c.given, plan.Metrics, err)
		}
	}
}

func TestPlateauLowersRate(t *testing.T) {
	job, o := newJob(16), newOptions()
	scripted(job, 5, 6, 6, 6, 6)
	o.Schedule, o.Plateau = nil, optim.NewPlateau(1e-2, &optim.PlateauOptions{Patience: 1, Factor: 0.5})
	var rates []float32
	for _, r := range fit(t, job, o).History {
		rates = append(rates, r.LR)
	}
	if want := []float32{1e-2, 1e-2, 1e-2, 5e-3, 5e-3}; !slices.Equal(rates, want) {
		t.Errorf("rates %v, want %v", rates, want)
	}
}

func TestEMAIsWhatIsValidatedAndKept(t *testing.T) {
	job, o := newJob(24), newOptions()
	seen := scripted(job, 5, 4, 3, 2, 6)
	o.EMA = 0.9
	fit(t, job, o)
	if !slices.Equal(weights(job), (*seen)[3]) {
		t.Error("the weights left are not the best average")
	}

	// The same by hand, without a metric: average after each step.
	job, o = newJob(24), newOptions()
	job.Validate, job.Metric = nil, ""
	var avg []float64
	update := func() {
		for i, w := range weights(job) {
			if len(avg) <= i {
				avg = append(avg, float64(w))
			} else {
				avg[i] = 0.9*avg[i] + 0.1*float64(w)
			}
		}
	}
	inner, calls := job.Loss, 0
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		if calls > 0 {
			update() // the weights after the step before
		}
		calls++
		return inner(tape, b)
	}
	fit(t, job, o)
	update()
	again, o := newJob(24), newOptions()
	again.Validate, again.Metric = nil, ""
	o.EMA = 0.9
	fit(t, again, o)
	for i, w := range weights(again) {
		if math.Abs(float64(w)-avg[i]) > 1e-5 {
			t.Fatalf("average %d is %v, want %v", i, w, avg[i])
		}
	}
}

func TestLimits(t *testing.T) {
	t.Run("steps within an epoch", func(t *testing.T) {
		job, o := newJob(40), newOptions() // 5 steps an epoch
		o.Steps = 7
		r := fit(t, job, o)
		if r.Steps != 7 || r.Epochs != 2 || r.Stopped != StopSteps || r.History[1].Val == nil {
			t.Errorf("%+v", r)
		}
	})
	t.Run("steps within the last epoch", func(t *testing.T) {
		job, o := newJob(40), newOptions()
		o.Epochs, o.Steps = 2, 7
		if r := fit(t, job, o); r.Steps != 7 || r.Epochs != 2 || r.Stopped != StopSteps {
			t.Errorf("%+v", r)
		}
	})
	t.Run("time", func(t *testing.T) {
		job, o := newJob(40), newOptions()
		o.Epochs, o.MaxTime = 0, 50*time.Millisecond
		r := fit(t, job, o)
		if r.Stopped != StopTime || r.Steps == 0 || r.Elapsed < o.MaxTime || r.History[len(r.History)-1].Step != r.Steps {
			t.Errorf("%+v", r)
		}
	})
	t.Run("schedule by the clock", func(t *testing.T) {
		job, o := newJob(40), newOptions()
		o.Epochs, o.MaxTime, o.TimedSchedule = 0, 100*time.Millisecond, 1000
		at := func(d time.Duration) int { return int(1000 * float64(d) / float64(o.MaxTime)) }
		outer, inner := time.Now(), time.Time{} // before and after the run's own clock begins
		o.OnStart = func(Plan) error { inner = time.Now(); return nil }
		least, read := 0, 0 // what the clock has passed since the last reading
		o.Schedule = func(step int) float32 {
			if most := at(time.Since(outer)); step < least || step > most {
				t.Errorf("the schedule is read at step %d, want %d to %d", step, least, most)
			}
			least, read = at(time.Since(inner)), read+1
			return 1e-3
		}
		if fit(t, job, o); read < 2 {
			t.Errorf("the schedule was read %d times", read)
		}
	})
	t.Run("asked", func(t *testing.T) {
		job, o := newJob(40), newOptions()
		o.OnEpoch = func(r Record) error {
			if r.Epoch == 3 {
				return ErrStop
			}
			return nil
		}
		if r := fit(t, job, o); r.Epochs != 3 || r.Stopped != StopAsked {
			t.Errorf("%+v", r)
		}
		broken := errors.New("broken")
		o.OnEpoch = func(Record) error { return broken }
		if r, err := Fit(t.Context(), job, o); !errors.Is(err, broken) || len(r.History) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("validation now and then", func(t *testing.T) {
		job, o := newJob(16), newOptions()
		o.ValidateEvery = 2
		var validated []int
		for _, r := range fit(t, job, o).History {
			if r.Val != nil {
				validated = append(validated, r.Epoch)
			}
		}
		if !slices.Equal(validated, []int{2, 4, 5}) {
			t.Errorf("validated after %v", validated)
		}
	})
}

func TestDiverged(t *testing.T) {
	t.Run("loss", func(t *testing.T) {
		job, o := newJob(40), newOptions()
		o.Dir = t.TempDir()
		inner, calls := job.Loss, 0
		job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
			if calls++; calls == 8 {
				b.y[0] = float32(math.NaN())
			}
			return inner(tape, b)
		}
		r, err := Fit(t.Context(), job, o)
		var d *DivergedError
		if !errors.As(err, &d) || d.Step != 8 || !math.IsNaN(d.Loss) || d.LR == 0 || d.Param != "" || d.Gradient != "rnn.weight_ih_l0" {
			t.Fatalf("got %v (%+v)", err, d)
		}
		for _, want := range []string{"step 8", "loss NaN", "learning rate 0.00", "gradient norm NaN", "all parameters are finite", "rnn.weight_ih_l0"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		if r == nil || len(r.History) != 1 || !allFinite(weights(job)) {
			t.Errorf("result %+v", r)
		}
		if _, s, err := readCheckpoint(lastPath(o.Dir), newState(job, o)); err != nil || s.Step >= 8 {
			t.Errorf("checkpoint of step %d, %v", s.Step, err)
		}
	})
	t.Run("parameter", func(t *testing.T) {
		job, o := newJob(40), newOptions()
		inner, calls := job.Loss, 0
		job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
			if calls++; calls == 3 {
				job.Slab.Lookup("head.weight").Write([]float32{1, 2, float32(math.Inf(1)), 4, 5, 6, 7, 8})
			}
			return inner(tape, b)
		}
		_, err := Fit(t.Context(), job, o)
		var d *DivergedError
		if !errors.As(err, &d) || d.Param != "head.weight" || d.Step != 3 {
			t.Fatalf("got %v", err)
		}
	})
}

// newState is what Fit would compare a checkpoint with.
func newState(job *Job[testBatch], o *Options) *state {
	t, err := newTrainer(job, *o)
	if err != nil {
		panic(err)
	}
	return &t.state
}

// A run that is resumed elsewhere says so, and keeps saying it.
func TestResumeElsewhere(t *testing.T) {
	o := newOptions()
	o.Dir, o.Epochs = t.TempDir(), 1
	job := newJob(40)
	if r, err := Fit(t.Context(), job, o); err != nil || len(r.Devices) != 1 {
		t.Fatal(r, err)
	}
	o.Resume = true
	old, err := newTrainer(newJob(40), *o)
	if err == nil {
		err = old.load()
	}
	if err != nil {
		t.Fatal(err)
	}
	old.Devices = []string{"cpu/other"}
	if err := old.save(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r, err := Fit(t.Context(), newJob(40), o)
		if o.Epochs++; o.Epochs == 2 { // no step was left to take
			if err != nil || len(r.Devices) != 1 {
				t.Errorf("devices %v, %v, want those of before", r.Devices, err)
			}
			continue
		}
		if want := []string{"cpu/other", tensor.CPU().Name()}; err != nil || !slices.Equal(r.Devices, want) {
			t.Errorf("devices %v, %v, want %v", r.Devices, err, want)
		}
	}
}

func TestRefusesOptions(t *testing.T) {
	for want, spoil := range map[string]func(*Job[testBatch], *Options){
		"no training samples": func(j *Job[testBatch], _ *Options) { j.Samples = 0 },
		"another slab": func(j *Job[testBatch], _ *Options) {
			j.Optimizer = optim.NewSGD(tensor.Pack(tensor.CPU(), newNet(), 1), nil)
		},
		"Batch must be":       func(_ *Job[testBatch], o *Options) { o.Batch = 0 },
		"must end the run":    func(_ *Job[testBatch], o *Options) { o.Epochs = 0 },
		"cannot be negative":  func(_ *Job[testBatch], o *Options) { o.Steps = -1 },
		"exactly one of":      func(_ *Job[testBatch], o *Options) { o.Schedule = nil },
		"TimedSchedule needs": func(_ *Job[testBatch], o *Options) { o.TimedSchedule = 10 },
		"Clip and ClipValue":  func(_ *Job[testBatch], o *Options) { o.Clip = float32(math.NaN()) },
		"EMA must be":         func(_ *Job[testBatch], o *Options) { o.EMA = 1 },
		"MinDelta":            func(_ *Job[testBatch], o *Options) { o.MinDelta = -1 },
		"Metric needs":        func(j *Job[testBatch], _ *Options) { j.Validate = nil },
		"need Metric":         func(j *Job[testBatch], o *Options) { j.Metric = ""; o.Patience = 1 },
		"larger is better": func(j *Job[testBatch], o *Options) {
			j.Metric, o.Schedule, o.Plateau = "-mse", nil, optim.NewPlateau(1, nil)
		},
		"need Dir":             func(_ *Job[testBatch], o *Options) { o.Resume = true },
		`gives no "mae", only`: func(j *Job[testBatch], _ *Options) { j.Metric = "mae" },
	} {
		job, o := newJob(16), newOptions()
		spoil(job, o)
		if _, err := Fit(t.Context(), job, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestLoaderEnds wants no goroutine left behind, and a panic of Load as the error it means.
func TestLoaderEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	job, o := newJob(40), newOptions()
	fit(t, job, o)
	inner, calls := job.Load, 0
	job.Load = func(b *testBatch, samples []int) {
		if calls++; calls == 4 {
			tensor.NewParam("bad", nil, -1)
		}
		inner(b, samples)
	}
	_, err := Fit(t.Context(), job, o)
	var shape *tensor.ShapeError
	if !errors.As(err, &shape) || shape.Op != "NewParam" {
		t.Errorf("got %v", err)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

// TestStepAllocatesNothing counts over steps in the middle of an epoch, on one core so that only this loop and the ops count.
func TestStepAllocatesNothing(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, hook := range map[string]func(lo, hi int){"plain": nil, "OnReady": func(lo, hi int) {}} {
		job, o := newJob(400), newOptions()
		job.Validate, job.Metric = nil, ""
		o.Batch, o.Accumulate, o.EMA, o.Epochs = 4, 2, 0.9, 1
		o.OnReady = hook
		inner, calls := job.Loss, 0
		var first, last runtime.MemStats
		job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
			switch calls++; calls {
			case 20:
				runtime.ReadMemStats(&first)
			case 90:
				runtime.ReadMemStats(&last)
			}
			return inner(tape, b)
		}
		fit(t, job, o)
		// The loop itself is free of allocations; a few of the runtime's own may fall into the span.
		if n := last.Mallocs - first.Mallocs; n > 15 {
			t.Errorf("%s: %d allocations in 35 steps", name, n)
		}
	}
}

func TestFilesOfARun(t *testing.T) {
	job, o := newJob(16), newOptions()
	o.Dir, o.TensorBoard = t.TempDir(), true
	r := fit(t, job, o)
	h, err := ReadHistory(o.Dir)
	if err != nil || len(h) != 5 {
		t.Fatal(h, err)
	}
	for i := range h {
		if h[i].TrainLoss != r.History[i].TrainLoss || h[i].LR != r.History[i].LR || h[i].Val["mse"] != r.History[i].Val["mse"] {
			t.Errorf("metrics.jsonl has %+v, the result %+v", h[i], r.History[i])
		}
	}
	// A shorter fresh run replaces what is there.
	job, o.Epochs, o.TensorBoard = newJob(16), 2, false
	job.Validate, job.Metric = nil, ""
	fit(t, job, o)
	if h, err := ReadHistory(o.Dir); err != nil || len(h) != 2 {
		t.Errorf("%d records, %v", len(h), err)
	}
	for _, p := range []string{bestPath(o.Dir), tensorBoardDir(o.Dir)} {
		if _, err := os.Stat(p); err == nil {
			t.Errorf("%s of the older run is still there", p)
		}
	}
	if es, _ := os.ReadDir(filepath.Join(o.Dir, "checkpoints")); len(es) != 1 {
		t.Errorf("checkpoints: %v", es)
	}
}

// Each epoch records the share of its steps whose gradient met the bound.
func TestClippedShare(t *testing.T) {
	for _, c := range []struct {
		clip float32
		want float64
	}{{0, 0}, {1e-6, 1}, {1e6, 0}} {
		o := newOptions()
		o.Epochs, o.Clip = 2, c.clip
		r, err := Fit(context.Background(), newJob(40), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range r.History {
			if rec.Clipped != c.want {
				t.Errorf("Clip %v, epoch %d: %v of the steps, want %v", c.clip, rec.Epoch, rec.Clipped, c.want)
			}
		}
	}
}
