package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// A run is given up at an epoch whose validation promises nothing, in good order:
// the epoch is recorded, and OnEpoch sees it.
func TestPruning(t *testing.T) {
	job, o := newJob(16), newOptions()
	scripted(job, 5, 4, 9, 1, 1)
	o.Dir, o.ValidateEvery = t.TempDir(), 1
	var seen, closed []int
	o.OnValidate = func(r Record) error {
		seen = append(seen, r.Epoch)
		if r.Val["mse"] > 8 {
			return ErrStop
		}
		return nil
	}
	o.OnEpoch = func(r Record) error {
		closed = append(closed, r.Epoch)
		return nil
	}
	r := fit(t, job, o)
	if r.Stopped != StopAsked || r.Epochs != 3 || r.Best.Epoch != 2 {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(seen, []int{1, 2, 3}) || !slices.Equal(closed, seen) {
		t.Errorf("validations %v, epochs %v, want 1 to 3 of both", seen, closed)
	}
	if h, err := ReadHistory(o.Dir); err != nil || len(h) != 3 {
		t.Errorf("%d records, %v", len(h), err)
	}

	// Only validations count, and an error ends the run with it.
	job, o = newJob(16), newOptions()
	scripted(job, 5, 4, 3, 2, 1)
	broken := errors.New("broken")
	o.ValidateEvery, seen = 2, nil
	o.OnValidate = func(r Record) error {
		if seen = append(seen, r.Epoch); len(seen) == 2 {
			return broken
		}
		return nil
	}
	if _, err := Fit(t.Context(), job, o); !errors.Is(err, broken) || !slices.Equal(seen, []int{2, 4}) {
		t.Errorf("validations %v, %v", seen, err)
	}
}

// A run that is paused, by a hook or by the context's cause, goes on as if it had not been,
// and knows what is behind it.
func TestPause(t *testing.T) {
	for name, setup := range setups() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job, o := setup()
			o.Dir = t.TempDir()
			whole := fit(t, job, o)
			dir := t.TempDir()
			var steps []int
			for try := 0; ; try++ {
				again, o := setup()
				o.Dir, o.Resume = dir, true
				var plan Plan
				o.OnStart = func(p Plan) error {
					plan = p
					steps = append(steps, len(p.History))
					return nil
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				switch try {
				case 0:
					o.OnEpoch = func(Record) error { return ErrPause }
				case 1:
					interrupt(again, 3, func() { cancel(ErrPause) })
				}
				r, err := Fit(ctx, again, o)
				if try < 2 {
					if !errors.Is(err, ErrPause) || plan.Metric != job.Metric || plan.Epochs != o.Epochs {
						t.Fatalf("try %d: %v, %+v", try, err, plan)
					}
					continue
				}
				if err != nil || timeless(r.History) != timeless(whole.History) || !sameBits(weights(again), weights(job)) {
					t.Errorf("%v: the history or the weights differ from those of a run that was not paused", err)
				}
				break
			}
			if !slices.Equal(steps, []int{0, 1, 1}) {
				t.Errorf("epochs behind each part: %v", steps)
			}
		})
	}
	job, o := newJob(16), newOptions()
	broken := errors.New("broken")
	o.OnStart = func(Plan) error { return broken }
	before := weights(job)
	if _, err := Fit(t.Context(), job, o); !errors.Is(err, broken) || !sameBits(before, weights(job)) {
		t.Error(err)
	}
}

// A task that watches its own training leaves the caller's hook in place.
func TestAfterEpoch(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct{ task, caller, want error }{
		{nil, nil, nil}, {ErrStop, nil, ErrStop}, {nil, ErrStop, ErrStop}, {broken, nil, broken}, {ErrStop, broken, broken}, {broken, ErrStop, broken},
	} {
		var h Hooks
		calls := 0
		h.OnEpoch = func(Record) error { calls++; return c.caller }
		h.AfterEpoch(func(Record) error { return c.task })
		if err := h.OnEpoch(Record{}); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%+v: got %v", c, err)
		}
		if calls == 0 && !errors.Is(c.task, broken) {
			t.Errorf("%+v: the caller's hook was not called", c)
		}
	}
}

// A hook that doubles the gradient makes the steps of a doubled loss, whose bound
// on the norm meets the same gradient.
func TestOnGradients(t *testing.T) {
	run := func(accumulate int, hook bool, factor float32) []float32 {
		job, o := newJob(38), newOptions()
		o.Batch, o.Accumulate, o.Clip = 4, accumulate, 0.3
		inner := job.Loss
		job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
			l := inner(tape, b)
			if tape.Mode() == tensor.Train {
				l = tensor.MulScalar(l, factor)
			}
			return l
		}
		if hook {
			o.OnGradients = func(s *tensor.Slab) { s.Device().Backend().Copy(s.Grads(), s.Grads(), true) }
		}
		fit(t, job, o)
		return weights(job)
	}
	for _, accumulate := range []int{1, 3} {
		want := run(accumulate, false, 2)
		if !slices.Equal(run(accumulate, true, 1), want) {
			t.Errorf("accumulate %d: a doubled gradient does not step as a doubled loss", accumulate)
		}
		if slices.Equal(run(accumulate, false, 1), want) {
			t.Errorf("accumulate %d: doubling the loss changes nothing", accumulate)
		}
	}
}

// In each step every parameter is handed over once, holding the sum of all its
// batches, and the weights are those of a run without the hook.
func TestOnReady(t *testing.T) {
	for _, accumulate := range []int{1, 2, 3, 5} {
		plain, o := newJob(38), newOptions()
		o.Batch, o.Accumulate, o.Epochs = 4, accumulate, 2
		fit(t, plain, o)

		job, steps := newJob(38), 0
		bits := map[string][]float32{}
		var names []string
		o.OnReady = func(lo, hi int) {
			for i, p := range job.Slab.Params {
				if a, b := job.Slab.Range(i); a == lo && b == hi {
					names, bits[p.Name] = append(names, p.Name), p.Grad()
				}
			}
		}
		o.OnGradients = func(s *tensor.Slab) {
			steps++
			if len(names) != len(s.Params) || len(bits) != len(s.Params) {
				t.Fatalf("step %d hands over %v", steps, names)
			}
			for _, p := range s.Params {
				if !slices.Equal(bits[p.Name], p.Grad()) {
					t.Errorf("accumulate %d, step %d: %s was handed over before its gradient was complete", accumulate, steps, p.Name)
				}
			}
			if slices.Index(names, "rnn.weight_ih_l0") < slices.Index(names, "head.weight") {
				t.Errorf("the first layer comes before the last: %v", names)
			}
			names = names[:0]
			clear(bits)
		}
		r := fit(t, job, o)
		if steps != r.Steps || steps == 0 {
			t.Errorf("%d steps were seen of %d", steps, r.Steps)
		}
		if !slices.Equal(weights(job), weights(plain)) {
			t.Errorf("accumulate %d: the hook changes the weights", accumulate)
		}
	}
}

// The sum of a step of A batches holds log2(A) vectors beside the gradient itself,
// and none if there is one batch.
func TestSumHoldsFewVectors(t *testing.T) {
	for accumulate, want := range map[int]int{1: 0, 2: 1, 4: 2, 5: 3, 8: 3, 9: 4} {
		job, o := newJob(38), newOptions()
		o.Batch, o.Accumulate, o.Epochs = 1, accumulate, 1
		tr, err := newTrainer(job, *o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(tr.sum.levels); n != want {
			t.Errorf("accumulate %d holds %d vectors, want %d", accumulate, n, want)
		}
	}
}

// OnStep sees every step, of which the epoch's record holds the mean, and changes nothing.
func TestOnStep(t *testing.T) {
	plain, o := newJob(38), newOptions()
	o.Batch, o.Accumulate, o.Epochs = 4, 3, 3
	fit(t, plain, o)

	job := newJob(38)
	var steps []Step
	o.OnStep = func(s Step) error {
		steps = append(steps, s)
		return nil
	}
	r := fit(t, job, o)
	if !slices.Equal(weights(job), weights(plain)) {
		t.Error("the hook changes the weights")
	}
	if len(steps) != r.Steps || r.Steps != 12 {
		t.Fatalf("%d steps were seen of %d, want 12", len(steps), r.Steps)
	}
	for i, s := range steps {
		if s.Step != i+1 || s.Epoch != i/4+1 || s.PerEpoch != 4 || s.Samples != 38./4 || s.LR != o.Schedule(i) || s.Skipped || !(s.TapeBytes > 0) {
			t.Errorf("step %d: %+v", i+1, s)
		}
	}
	first := r.History[0]
	loss := (12*(steps[0].Loss+steps[1].Loss+steps[2].Loss) + 2*steps[3].Loss) / 38 // ten batches, the last of 2
	norm := float64(steps[0].GradNorm+steps[1].GradNorm+steps[2].GradNorm+steps[3].GradNorm) / 4
	if math.Abs(loss-first.TrainLoss) > 1e-12 || math.Abs(norm-first.GradNorm) > 1e-6 {
		t.Errorf("the steps' loss and norm are %v, %v, and the epoch's %v, %v", loss, norm, first.TrainLoss, first.GradNorm)
	}
}

// ErrStop ends the run at that step and closes its epoch, which is validated; another
// error ends it with that error.
func TestOnStepStops(t *testing.T) {
	for _, at := range []int{1, 2, 4, 6} { // four steps an epoch
		job, o := newJob(32), newOptions()
		o.Dir, o.ValidateEvery, o.Epochs = t.TempDir(), 100, 5
		o.OnStep = func(s Step) error {
			if s.Step == at {
				return ErrStop
			}
			return nil
		}
		r := fit(t, job, o)
		epochs := (at + 3) / 4
		if r.Stopped != StopAsked || r.Steps != at || r.Epochs != epochs || r.Interrupted || r.Best == nil || r.Best.Epoch != epochs {
			t.Errorf("stopped at step %d: %+v", at, r)
		}
		if h, err := ReadHistory(o.Dir); err != nil || len(h) != epochs {
			t.Errorf("stopped at step %d: %d records, %v", at, len(h), err)
		}
	}
	job, o := newJob(32), newOptions()
	broken := errors.New("broken")
	o.OnStep = func(s Step) error { return broken }
	if r, err := Fit(t.Context(), job, o); !errors.Is(err, broken) || r == nil || r.Steps != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Steps that a scaler skips are told as such.
func TestOnStepOfSkippedSteps(t *testing.T) {
	job, o := newJob(32), newOptions()
	o.Precision, o.Scaler = tensor.Float16, &optim.GradScalerOptions{Init: 1e36}
	skipped := 0
	o.OnStep = func(s Step) error {
		if s.Skipped {
			skipped++
		}
		return nil
	}
	if r := fit(t, job, o); skipped != r.Skipped || skipped == 0 {
		t.Errorf("%d skipped steps were seen of %d", skipped, r.Skipped)
	}
}

// Adjust changes the options of the run, not the caller's, before they are checked.
func TestAdjust(t *testing.T) {
	job, o := newJob(32), newOptions()
	o.Schedule = nil // which alone would be refused
	o.Adjust = func(o *Options) { o.Schedule, o.Epochs, o.Steps = optim.Constant(3e-3), 0, 7 }
	r := fit(t, job, o)
	if r.Steps != 7 || r.Stopped != StopSteps || r.History[0].LR != 3e-3 {
		t.Errorf("%+v", r)
	}
	if o.Schedule != nil || o.Steps != 0 {
		t.Error("the caller's options were changed")
	}
}
