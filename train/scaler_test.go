package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// overflowing multiplies the loss of the batches that hold a sample so that its scaled
// gradient is infinite. It does not touch the loss of validation.
func overflowing(job *Job[testBatch], sample int) {
	y := series(sample)[sample+window]
	inner := job.Loss
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		l := inner(tape, b)
		if slices.Contains(b.y, y) {
			l = tensor.MulScalar(l, 1e38)
		}
		return l
	}
}

// half is a run in fp16 whose scale grows after 3 clean steps, with an overflow in each epoch.
func half(job *Job[testBatch], o *Options) {
	o.Precision, o.Scaler, o.EMA = tensor.Float16, &optim.GradScalerOptions{Init: 1024, Interval: 3}, 0.8
	overflowing(job, 5)
}

// An overflow leaves out its step and nothing else: the same steps without the
// overflowing ones, at the same rates, give the same weights and average.
func TestSkippedStep(t *testing.T) {
	job, o := newJob(40), newOptions() // 5 batches an epoch
	half(job, o)
	o.Seed, o.Clip = 1, 0.05 // so that most steps are clipped
	o.Scaler.Interval = 1000
	taken, overflow := 0, job.Loss
	var order []testBatch // of the steps that are taken
	var steps []uint64    // their numbers in the run
	var scales []float32
	var rates []int
	calls := uint64(0)
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		l := overflow(tape, b)
		if v := float64(l.Item()); v < 1e30 {
			order, steps = append(order, testBatch{slices.Clone(b.x), slices.Clone(b.y), b.n}), append(steps, calls)
			scales = append(scales, float32(math.Ldexp(1024, -int(calls)+taken)))
			taken++
		}
		calls++
		return l
	}
	schedule := o.Schedule
	o.Schedule = func(step int) float32 {
		if n := len(rates); n == 0 || step != rates[n-1] {
			rates = append(rates, step)
		}
		return schedule(step)
	}
	r := fit(t, job, o)
	if r.Steps != 25 || r.Skipped != 5 || taken != 20 || job.Optimizer.Steps() != 20 || r.Stopped != StopEpochs {
		t.Fatalf("%d steps, %d skipped, %d of the optimizer, %s", r.Steps, r.Skipped, job.Optimizer.Steps(), r.Stopped)
	}
	for i, rate := range rates {
		if rate != i {
			t.Fatalf("the schedule was asked for steps %v", rates)
		}
	}
	if len(rates) < 20 || len(rates) > 21 {
		t.Fatalf("the schedule was asked for %d steps", len(rates))
	}

	// By hand, with what the scale was then.
	again := newJob(40)
	ema, tape := optim.NewEMA(again.Slab, 0.8), tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.SetPrecision(tensor.Float16)
	best, at := math.Inf(1), []float32(nil)
	for i, b := range order {
		scaler := optim.NewGradScaler(&optim.GradScalerOptions{Init: scales[i]})
		tape.Reset()
		tape.Seed(1, steps[i])
		scaler.Scale(again.Loss(tape, &b)).Backward()
		scaler.Unscale(again.Optimizer)
		again.Optimizer.ClipNorm(0.05)
		scaler.Step(again.Optimizer, schedule(i))
		ema.Update()
		if i+1 < len(order) && steps[i+1]/5 == steps[i]/5 {
			continue
		}
		ema.Swap() // the end of an epoch
		v, err := again.Validate(t.Context(), tensor.NewTape(tensor.CPU(), tensor.Infer))
		if err != nil {
			t.Fatal(err)
		}
		if v["mse"] < best {
			best, at = v["mse"], weights(again)
		}
		ema.Swap()
	}
	if !slices.Equal(at, weights(job)) || best != r.Best.Val["mse"] {
		t.Errorf("other weights than without the skipped steps: best %v, want %v", r.Best.Val["mse"], best)
	}
}

// The scale falls at each overflow and grows in between, and the records tell it.
func TestScaleIsRecorded(t *testing.T) {
	job, o := newJob(40), newOptions()
	half(job, o)
	o.Dir = t.TempDir()
	var out bytes.Buffer
	o.Progress = &Progress{W: &out, Every: 1}
	r := fit(t, job, o)
	for i, rec := range r.History {
		if rec.Skipped != i+1 || rec.Step != 5*(i+1) || !(rec.Scale >= 1<<8 && rec.Scale <= 1<<12) || math.IsNaN(rec.TrainLoss) || rec.TrainLoss > 10 {
			t.Errorf("epoch %d: %+v", i+1, rec)
		}
	}
	if r.Devices[0] != tensor.CPU().Name()+" fp16" {
		t.Errorf("the run was on %q", r.Devices)
	}
	h, err := ReadHistory(o.Dir)
	if err != nil || timeless(h) != timeless(r.History) {
		t.Errorf("%v: metrics.jsonl has %s, want %s", err, timeless(h), timeless(r.History))
	}
	text, err := os.ReadFile(filepath.Join(o.Dir, metricsFile))
	if err != nil || strings.Count(string(text), `"scale":`) != 5 || !strings.Contains(string(text), `"skipped":3`) {
		t.Errorf("%v: %s", err, text)
	}
	if !strings.Contains(out.String(), "scale 1024  skipped 0") || !strings.Contains(out.String(), "skipped 5") || !strings.Contains(out.String(), "25 steps, 5 of them skipped,") {
		t.Errorf("progress:\n%s", out.String())
	}

	out.Reset()
	job, o = newJob(40), newOptions()
	o.Precision, o.Progress = tensor.BFloat16, &Progress{W: &out, Every: 1}
	r = fit(t, job, o)
	line, err := json.Marshal(r.History[0])
	if err != nil || strings.Contains(string(line), "scale") || strings.Contains(out.String(), "scale") || strings.Contains(out.String(), "skipped") {
		t.Errorf("%v: bf16 has a scale: %s\n%s", err, line, out.String())
	}
}

// A scale that grows after two clean steps meets the end of its range a hundred times in a
// thousand steps, and the run learns all the same.
func TestThousandGrowths(t *testing.T) {
	job, o := newJob(40), newOptions()
	o.Precision, o.Scaler, o.Epochs, o.ValidateEvery = tensor.Float16, &optim.GradScalerOptions{Interval: 2}, 200, 200
	o.Schedule = optim.Constant(1e-3)
	inner := job.Loss
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor { return tensor.MulScalar(inner(tape, b), 64) }
	r := fit(t, job, o)
	last := r.History[len(r.History)-1]
	if r.Steps != 1000 || r.Skipped == 0 || r.Skipped > 500 || !(last.Scale >= 64) || !allFinite(weights(job)) || !(last.TrainLoss < 64*0.1) {
		t.Errorf("%d steps, %d skipped, %+v", r.Steps, r.Skipped, last)
	}
}

// Steps that overflow one after the other end the run with the weights of before, from
// which it resumes.
func TestOverflowError(t *testing.T) {
	job, o := newJob(40), newOptions()
	o.Dir, o.Epochs, o.Precision, o.Scaler = t.TempDir(), 100, tensor.Float16, &optim.GradScalerOptions{Init: 1024}
	inner, calls := job.Loss, 0
	var good []float32
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		if calls++; calls == 8 {
			good = weights(job)
		}
		l := inner(tape, b)
		if calls >= 8 {
			l = tensor.MulScalar(l, float32(math.Inf(1)))
		}
		return l
	}
	r, err := Fit(t.Context(), job, o)
	var e *OverflowError
	if !errors.As(err, &e) || e.Step != 57 || e.Scale != 0x1p-39 || e.Gradient != "rnn.weight_ih_l0" || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v (%+v)", err, e)
	}
	if r.Steps != 57 || r.Skipped != 50 {
		t.Errorf("%d steps, %d skipped", r.Steps, r.Skipped)
	}
	f, s, err := readCheckpoint(lastPath(o.Dir), newState(newJob(40), o))
	if err != nil || s.Step != 57 || s.Overflows != 50 || s.Updates != 7 || s.Scaler.Scale != 0x1p-40 {
		t.Fatalf("checkpoint %+v, %v", s, err)
	}
	var saved []float32
	for _, p := range job.Slab.Params {
		saved = append(saved, f.Lookup(weightsPrefix+p.Name).Data...)
	}
	if !slices.Equal(saved, good) {
		t.Error("the checkpoint has other weights than before the overflows")
	}
	job = newJob(40)
	ro := newOptions()
	ro.Dir, ro.Resume, ro.Epochs, ro.Precision, ro.Scaler = o.Dir, true, 14, tensor.Float16, o.Scaler
	if r := fit(t, job, ro); r.ResumedAt != 57 || r.Steps != 70 || r.Skipped != 50 || job.Optimizer.Steps() != 20 {
		t.Errorf("resumed: %+v", r)
	}
}

// A loss that is not finite though its gradient is ends a run in fp16 as any other.
func TestDivergedInHalf(t *testing.T) {
	job, o := newJob(40), newOptions()
	o.Precision = tensor.Float16
	inner, calls := job.Loss, 0
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		l := inner(tape, b)
		if calls++; calls == 3 {
			l = tensor.AddScalar(l, float32(math.Inf(1)))
		}
		return l
	}
	var d *DivergedError
	if _, err := Fit(t.Context(), job, o); !errors.As(err, &d) || d.Step != 3 || d.Gradient != "" {
		t.Errorf("got %v", err)
	}
}

// Hooks see the gradient of the loss without its scale, and may change it.
func TestHooksInHalf(t *testing.T) {
	run := func(p tensor.Precision, scale float32) (first, w []float32) {
		job, o := newJob(40), newOptions()
		job.Optimizer = optim.NewSGD(job.Slab, nil)
		o.Precision = p
		if p == tensor.Float16 {
			o.Scaler = &optim.GradScalerOptions{Init: scale}
		}
		o.OnGradients = func(s *tensor.Slab) {
			if first == nil {
				first = make([]float32, s.Grads().N)
				s.Device().Backend().Download(first, s.Grads())
			}
			s.Device().Backend().Fill(s.Grads(), 0)
		}
		fit(t, job, o)
		return first, weights(job)
	}
	want, _ := run(tensor.Float32, 1)
	for _, scale := range []float32{16, 1024} {
		got, w := run(tensor.Float16, scale)
		norm, far := 0.0, 0.0
		for i, g := range want {
			norm, far = norm+float64(g)*float64(g), far+math.Pow(float64(got[i]-g), 2)
		}
		if !(far < 1e-4*norm) {
			t.Errorf("scale %v: the hook sees a gradient that is %g of its length away from float32's", scale, math.Sqrt(far/norm))
		}
		if !slices.Equal(w, weights(newJob(40))) {
			t.Errorf("scale %v: a gradient that a hook cleared moves weights", scale)
		}
	}
}

func TestKeep32(t *testing.T) {
	kept := func(job *Job[testBatch]) (names []string) {
		for _, p := range job.Slab.Params {
			if p.Keep32 {
				names = append(names, p.Name)
			}
		}
		return names
	}
	job, o := newJob(8), newOptions()
	o.Precision, o.Keep32, o.Epochs = tensor.BFloat16, []string{"head", "rnn.weight_hh"}, 1
	fit(t, job, o)
	if got := kept(job); !slices.Equal(got, []string{"rnn.weight_hh_l0", "head.weight", "head.bias"}) {
		t.Errorf("kept %v", got)
	}
	for _, name := range []string{"hed", "", "head.weight.x"} {
		job, o := newJob(8), newOptions()
		o.Dir, o.Keep32 = filepath.Join(t.TempDir(), "run"), []string{"rnn", name}
		_, err := Fit(t.Context(), job, o)
		var u *UnknownParameterError
		if !errors.As(err, &u) || u.Name != name || !strings.HasSuffix(err.Error(), "there are rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0, head.weight, head.bias") {
			t.Errorf("%q: got %v", name, err)
		}
		if _, err := os.Stat(o.Dir); err == nil {
			t.Error("a directory was made")
		}
	}
	if err := func() error { _, err := Fit(t.Context(), newJob(8), badScaler()); return err }(); err == nil || !strings.Contains(err.Error(), "Backoff in (0,1)") {
		t.Errorf("got %v", err)
	}
}

func badScaler() *Options {
	o := newOptions()
	o.Precision, o.Scaler = tensor.Float16, &optim.GradScalerOptions{Backoff: 2}
	return o
}

// Only training computes in another precision: what a run validates is what its saved
// weights give.
func TestValidatesInFloat32(t *testing.T) {
	for _, p := range []tensor.Precision{tensor.BFloat16, tensor.Float16} {
		job, o := newJob(40), newOptions()
		o.Precision = p
		r := fit(t, job, o)
		v, err := job.Validate(t.Context(), tensor.NewTape(tensor.CPU(), tensor.Infer))
		if err != nil || v["mse"] != r.Best.Val["mse"] {
			t.Errorf("%v: %v, %v in the run: %v", p, v["mse"], r.Best.Val["mse"], err)
		}
	}
}

// A run resumes only as it began.
func TestResumeInAnotherPrecision(t *testing.T) {
	begin := func(o *Options) { o.Precision, o.Keep32, o.Epochs = tensor.Float16, []string{"head"}, 1 }
	first := newOptions()
	begin(first)
	first.Dir = t.TempDir()
	fit(t, newJob(40), first)
	for want, change := range map[string]func(o *Options){
		"precision fp16, this run has bf16":   func(o *Options) { o.Precision = tensor.BFloat16 },
		"precision fp16, this run has f32":    func(o *Options) { o.Precision = tensor.Float32 },
		"keep head, this run has head rnn":    func(o *Options) { o.Keep32 = []string{"head", "rnn"} },
		"scaler {65536 2 0.5 2000}, this run": func(o *Options) { o.Scaler = &optim.GradScalerOptions{Interval: 7} },
	} {
		o := newOptions()
		begin(o)
		o.Dir, o.Resume = first.Dir, true
		change(o)
		_, err := Fit(t.Context(), newJob(40), o)
		var fe *model.FileError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), "made with "+want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// A checkpoint of before there were precisions is one in float32.
	old := newOptions()
	old.Dir, old.Epochs = t.TempDir(), 1
	fit(t, newJob(40), old)
	edit(t, old.Dir, func(state map[string]any) {
		for _, k := range []string{"Precision", "Keep", "Scaler"} {
			delete(state["Settings"].(map[string]any), k)
		}
	})
	old.Resume, old.Epochs = true, 2
	if r := fit(t, newJob(40), old); r.ResumedAt != 5 {
		t.Errorf("resumed at %d", r.ResumedAt)
	}
	for name, scaler := range map[string]any{"no scale": nil, "expected a scale in": map[string]any{"Scale": -1, "Tracker": 0}} {
		edit(t, first.Dir, func(state map[string]any) { state["Scaler"] = scaler })
		o := newOptions()
		begin(o)
		o.Dir, o.Resume = first.Dir, true
		if _, err := Fit(t.Context(), newJob(40), o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// The order of the layers that stay in float32, and one named twice, change nothing.
func TestResumeWithLayersInAnotherOrder(t *testing.T) {
	run := func(dir string, epochs int, keep ...string) *Result {
		s := DefaultSettings()
		s.Precision, s.PrecisionKeep = tensor.BFloat16.String(), keep
		o := newOptions()
		o.Dir, o.Resume, o.Epochs = dir, true, epochs
		o.Precision, o.Keep32, o.Fingerprint = tensor.BFloat16, keep, NewFingerprint(s.Fixed())
		return fit(t, newJob(40), o)
	}
	dir := t.TempDir()
	run(dir, 1, "rnn", "head")
	if r := run(dir, 2, "head", "rnn", "head"); r.ResumedAt != 5 {
		t.Errorf("resumed at %d", r.ResumedAt)
	}
}

// An epoch without a step that was taken has the rate that the next one will have.
func TestRateOfSkippedEpoch(t *testing.T) {
	job, o := newJob(40), newOptions()
	o.Precision, o.Epochs = tensor.Float16, 1
	inner := job.Loss
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		return tensor.MulScalar(inner(tape, b), float32(math.Inf(1)))
	}
	r := fit(t, job, o)
	if got, want := r.History[0].LR, o.Schedule(0); r.Skipped != 5 || got != want || got == 0 {
		t.Errorf("%d steps skipped, a rate of %v, want %v", r.Skipped, got, want)
	}
}

// edit changes the state of a checkpoint.
func edit(t *testing.T, dir string, f func(state map[string]any)) {
	t.Helper()
	file, err := model.ReadTensors(lastPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	var state map[string]any
	if err := json.Unmarshal([]byte(file.Meta["state"]), &state); err != nil {
		t.Fatal(err)
	}
	f(state)
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	meta := map[string]string{"format": checkpointFormat, "state": string(text), "crc32c": checksum(string(text), file.Tensors)}
	if err := model.WriteTensors(lastPath(dir), file.Tensors, meta); err != nil {
		t.Fatal(err)
	}
}
