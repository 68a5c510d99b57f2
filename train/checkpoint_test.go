package train

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// setup makes a fresh job and its options; a resumed run gets its own pair, as a new process would.
type setup func() (*Job[testBatch], *Options)

func setups() map[string]setup {
	base := func() (*Job[testBatch], *Options) {
		o := newOptions()
		o.Batch, o.CheckpointEvery = 4, 1000
		return newJob(38), o // 10 batches an epoch, the last of 2
	}
	return map[string]setup{
		"cosine": base,
		"accumulate, clip by value": func() (*Job[testBatch], *Options) {
			job, o := base()
			o.Accumulate, o.ClipValue = 3, 0.5 // 4 steps an epoch, the last of 1 batch
			return job, o
		},
		"plateau, early stopping": func() (*Job[testBatch], *Options) {
			job, o := base()
			o.Schedule, o.Plateau = nil, optim.NewPlateau(3e-2, &optim.PlateauOptions{Patience: -1, Factor: 0.3, Threshold: 0.9})
			o.Patience, o.MinDelta, o.Epochs = 2, 0.02, 12
			return job, o
		},
		"average, largest is best": func() (*Job[testBatch], *Options) {
			job, o := base()
			o.EMA, job.Metric = 0.8, "-mse"
			return job, o
		},
		"fp16, an overflow in each epoch": func() (*Job[testBatch], *Options) {
			job, o := base()
			half(job, o)
			return job, o
		},
		"fp16, accumulate, clip by value": func() (*Job[testBatch], *Options) {
			job, o := base()
			half(job, o)
			o.Accumulate, o.ClipValue = 3, 0.5
			return job, o
		},
		"momentum, no validation": func() (*Job[testBatch], *Options) {
			job, o := base()
			job.Validate, job.Metric = nil, ""
			job.Optimizer = optim.NewSGD(job.Slab, &optim.SGDOptions{Momentum: 0.9})
			return job, o
		},
		"buckets, carried state": func() (*Job[testBatch], *Options) {
			job, o := base()
			lengths := make([]int, job.Samples)
			for i := range lengths {
				lengths[i] = i % 5
			}
			o.Batch = 0
			job.Batches = NewBuckets(lengths, 12, 6, o.Seed).Batches
			steps := new(tally)
			job.Carry = func(int) Carry { return steps }
			inner := job.Loss
			job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
				if tape.Mode() == tensor.Train {
					steps.n++
				}
				return tensor.MulScalar(inner(tape, b), 1+float32(steps.n%7)/4)
			}
			return job, o
		},
	}
}

// tally is a Carry that counts batches.
type tally struct{ n byte }

func (c *tally) MarshalBinary() ([]byte, error) { return []byte{c.n}, nil }

func (c *tally) UnmarshalBinary(b []byte) error {
	if len(b) != 1 {
		return errors.New("want one byte")
	}
	c.n = b[0]
	return nil
}

// timeless is a history without its wall times.
func timeless(h []Record) string {
	h = slices.Clone(h)
	for i := range h {
		h[i].Seconds = 0
	}
	b, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// same compares two finished runs bit for bit: the weights left, every vector and count of the last checkpoint,
// the best weights on disk and the history.
func same(t *testing.T, want, got *Job[testBatch], wr, gr *Result, wantDir, gotDir string) {
	t.Helper()
	for i, p := range want.Slab.Params {
		if !sameBits(p.Read(), got.Slab.Params[i].Read()) {
			t.Errorf("%s differs", p.Name)
		}
	}
	if wr.Steps != gr.Steps || wr.Epochs != gr.Epochs || wr.Stopped != gr.Stopped {
		t.Errorf("ended at step %d, epoch %d by %s; uninterrupted: %d, %d, %s", gr.Steps, gr.Epochs, gr.Stopped, wr.Steps, wr.Epochs, wr.Stopped)
	}
	if a, b := timeless(wr.History), timeless(gr.History); a != b {
		t.Errorf("history\n%s\nuninterrupted\n%s", b, a)
	}
	h, err := ReadHistory(gotDir)
	if a, b := timeless(wr.History), timeless(h); err != nil || a != b {
		t.Errorf("metrics.jsonl (%v)\n%s\nuninterrupted\n%s", err, b, a)
	}
	for _, path := range []func(string) string{lastPath, bestPath} {
		a, aerr := model.ReadTensors(path(wantDir))
		b, berr := model.ReadTensors(path(gotDir))
		if aerr != nil || berr != nil {
			if !errors.Is(aerr, fs.ErrNotExist) || !errors.Is(berr, fs.ErrNotExist) {
				t.Errorf("%v, %v", aerr, berr)
			}
			continue
		}
		for i, x := range a.Tensors {
			if y := b.Tensors[i]; x.Name != y.Name || !sameBits(x.Data, y.Data) {
				t.Errorf("%s: tensor %s differs", path(""), x.Name)
			}
		}
		if path("") == lastPath("") {
			sa, sb := timelessState(t, a), timelessState(t, b)
			if !reflect.DeepEqual(sa, sb) {
				t.Errorf("state %+v, uninterrupted %+v", sb, sa)
			}
		}
	}
}

func timelessState(t *testing.T, f *model.File) *state {
	s := new(state)
	if err := json.Unmarshal([]byte(f.Meta["state"]), s); err != nil {
		t.Fatal(err)
	}
	s.Seconds = 0
	for i := range s.History {
		s.History[i].Seconds = 0
	}
	if s.Best != nil {
		s.Best.Seconds = 0
	}
	return s
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestResumeBitForBit interrupts a run before each of several batches, by context, and once by copying the
// directory as a kill would leave it, and wants the continued run to end with the uninterrupted run's bytes.
func TestResumeBitForBit(t *testing.T) {
	for name, make := range setups() {
		t.Run(name, func(t *testing.T) {
			whole, o := make()
			o.Dir = t.TempDir()
			wholeDir := o.Dir
			wr := fit(t, whole, o)

			for _, at := range []int{1, 4, 10, 11, 23} { // batches: within epochs and at their ends
				job, o := make()
				o.Dir = t.TempDir()
				ctx, cancel := context.WithCancel(t.Context())
				interrupt(job, at, cancel)
				r, err := Fit(ctx, job, o)
				if err != nil || !r.Interrupted || r.Stopped != StopInterrupted || r.Steps >= wr.Steps {
					t.Fatalf("batch %d: %+v, %v", at, r, err)
				}
				steps := r.Steps
				job, ro := make()
				ro.Dir, ro.Resume = o.Dir, true
				r = fit(t, job, ro)
				if r.ResumedAt != steps {
					t.Errorf("resumed at step %d, interrupted at %d", r.ResumedAt, steps)
				}
				same(t, whole, job, wr, r, wholeDir, o.Dir)
			}

			killed := t.TempDir()
			job, o := make()
			o.Dir = t.TempDir()
			o.CheckpointEvery = 3 // so that steps are lost, and taken again
			interrupt(job, 25, func() {
				if err := os.CopyFS(killed, os.DirFS(o.Dir)); err != nil {
					t.Error(err)
				}
			})
			fit(t, job, o)
			job, o = make()
			o.Dir, o.Resume = killed, true
			r := fit(t, job, o)
			if r.ResumedAt == 0 || r.ResumedAt >= wr.Steps {
				t.Errorf("resumed at step %d", r.ResumedAt)
			}
			same(t, whole, job, wr, r, wholeDir, killed)
		})
	}
}

// interrupt calls f while the n-th batch is trained on.
func interrupt(job *Job[testBatch], n int, f func()) {
	inner, calls := job.Loss, 0
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		if tape.Mode() == tensor.Train {
			if calls++; calls == n {
				f()
			}
		}
		return inner(tape, b)
	}
}

// TestInterruptedValidation wants the resumed run to validate again and go on.
func TestInterruptedValidation(t *testing.T) {
	make := setups()["average, largest is best"]
	whole, o := make()
	o.Dir = t.TempDir()
	wholeDir := o.Dir
	wr := fit(t, whole, o)

	job, o := make()
	o.Dir = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	inner, calls := job.Validate, 0
	job.Validate = func(ctx context.Context, tape *tensor.Tape) (map[string]float64, error) {
		if calls++; calls == 3 {
			cancel()
			return nil, ctx.Err()
		}
		return inner(ctx, tape)
	}
	r, err := Fit(ctx, job, o)
	if err != nil || !r.Interrupted || r.Epochs != 2 || r.Steps != 30 {
		t.Fatalf("%+v, %v", r, err)
	}
	job, ro := make()
	ro.Dir, ro.Resume = o.Dir, true
	same(t, whole, job, wr, fit(t, job, ro), wholeDir, o.Dir)
}

// TestTrainLonger resumes a finished run with more epochs.
func TestTrainLonger(t *testing.T) {
	make := setups()["cosine"]
	whole, o := make()
	o.Dir = t.TempDir()
	wholeDir := o.Dir
	wr := fit(t, whole, o)
	job, o := make()
	o.Dir, o.Epochs = t.TempDir(), 2
	fit(t, job, o)
	job, ro := make()
	ro.Dir, ro.Resume = o.Dir, true
	r := fit(t, job, ro)
	same(t, whole, job, wr, r, wholeDir, o.Dir)
	// And again with nothing left to do.
	job, ro = make()
	ro.Dir, ro.Resume = o.Dir, true
	if again := fit(t, job, ro); again.Steps != r.Steps || !slices.Equal(weights(job), weights(whole)) {
		t.Errorf("resumed after the end: %+v", again)
	}
}

// TestInterruptedKeepsBest wants a usable model after Ctrl-C: the best so far.
func TestInterruptedKeepsBest(t *testing.T) {
	job, o := setups()["cosine"]()
	seen := scripted(job, 5, 1, 2, 3, 4)
	ctx, cancel := context.WithCancel(t.Context())
	interrupt(job, 36, cancel)
	r, err := Fit(ctx, job, o)
	if err != nil || r.Best.Epoch != 2 || !slices.Equal(weights(job), (*seen)[1]) {
		t.Errorf("%+v, %v", r, err)
	}
}

// fullDisk writes part of the file and then fails as a full disk does.
func fullDisk(path string, ts []model.Tensor, meta map[string]string) error {
	return model.WriteFileAtomic(path, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<17)); err != nil {
			return err
		}
		return syscall.ENOSPC
	})
}

// TestDiskFull wants the run to stop with the reason and the older checkpoint to survive and be resumed from.
func TestDiskFull(t *testing.T) {
	make := setups()["cosine"]
	whole, o := make()
	o.Dir = t.TempDir()
	wholeDir := o.Dir
	wr := fit(t, whole, o)

	job, o := make()
	o.Dir, o.CheckpointEvery = t.TempDir(), 2
	writes := 0
	o.write = func(path string, ts []model.Tensor, meta map[string]string) error {
		if writes++; writes > 12 {
			return fullDisk(path, ts, meta)
		}
		return model.WriteTensors(path, ts, meta)
	}
	r, err := Fit(t.Context(), job, o)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "checkpoint at step") || !strings.Contains(err.Error(), "no space left") || r.Steps == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	es, _ := os.ReadDir(filepath.Join(o.Dir, "checkpoints"))
	if len(es) != 2 {
		t.Errorf("left over: %v", es)
	}
	job, ro := make()
	ro.Dir, ro.Resume = o.Dir, true
	got := fit(t, job, ro)
	if got.ResumedAt == 0 || got.ResumedAt >= r.Steps {
		t.Errorf("resumed at %d of %d", got.ResumedAt, r.Steps)
	}
	same(t, whole, job, wr, got, wholeDir, o.Dir)

	// A disk that is full from the start is found before any training, and an older run's files stay.
	before, _ := os.ReadFile(lastPath(o.Dir))
	job, o = make()
	o.Dir, o.write = ro.Dir, fullDisk
	interrupt(job, 1, func() { t.Error("trained") })
	if _, err := Fit(t.Context(), job, o); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if after, _ := os.ReadFile(lastPath(o.Dir)); !slices.Equal(before, after) {
		t.Error("the older checkpoint changed")
	}
	if h, _ := ReadHistory(o.Dir); len(h) != 5 {
		t.Errorf("the older history has %d records", len(h))
	}
}

func TestResumeRefuses(t *testing.T) {
	print := func(hidden int, rows float64) Fingerprint {
		f := NewFingerprint(struct {
			Hidden int `json:"hidden"`
		}{hidden})
		f.AddData("training rows", []float64{rows})
		return f
	}
	dir := t.TempDir()
	first, o := setups()["cosine"]()
	o.Dir, o.Fingerprint = dir, print(2, 1)
	fit(t, first, o)
	good, err := os.ReadFile(lastPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	altered := slices.Clone(good)
	altered[len(altered)-9] ^= 1
	for _, c := range []struct {
		want  string
		file  []byte // nil: the good one
		spoil func(*Job[testBatch], *Options)
	}{
		{"made with batch 4, this run has 8", nil, func(_ *Job[testBatch], o *Options) { o.Batch = 8 }},
		{"made with accumulate x ranks 1, this run has 2; resume with 1 rank with accumulate 1, or", nil, func(_ *Job[testBatch], o *Options) { o.Accumulate = 2 }},
		{"made with seed 7, this run has 8", nil, func(_ *Job[testBatch], o *Options) { o.Seed = 8 }},
		{"made with samples 38, this run has 37", nil, func(j *Job[testBatch], _ *Options) { j.Samples = 37 }},
		{"made with ema 0, this run has 0.9", nil, func(_ *Job[testBatch], o *Options) { o.EMA = 0.9 }},
		{"made with hidden 2, this run has 3", nil, func(_ *Job[testBatch], o *Options) { o.Fingerprint = print(3, 2) }},
		{"made with hidden 2, this run has none", nil, func(_ *Job[testBatch], o *Options) { o.Fingerprint = Fingerprint{} }},
		{"made with other training rows than this run has", nil, func(_ *Job[testBatch], o *Options) { o.Fingerprint = print(2, 2) }},
		{"made with optimizer adamw beta1=0.9 beta2=0.999 eps=1e-08 decay=0.001, this run has sgd", nil, func(j *Job[testBatch], _ *Options) { j.Optimizer = optim.NewSGD(j.Slab, nil) }},
		{"another model: it has no parameter other.weight_ih_l0", nil, func(j *Job[testBatch], _ *Options) {
			m := newNet()
			j.Slab = tensor.Pack(tensor.CPU(), &struct{ Other any }{m.RNN}, 1)
			j.Optimizer = optim.NewAdamW(j.Slab, &optim.AdamWOptions{WeightDecay: 1e-3})
		}},
		{"another model: it has 6 parameters, expected 4", nil, func(j *Job[testBatch], _ *Options) {
			j.Slab = tensor.Pack(tensor.CPU(), &struct{ RNN any }{newNet().RNN}, 1)
			j.Optimizer = optim.NewAdamW(j.Slab, &optim.AdamWOptions{WeightDecay: 1e-3})
		}},
		{"damaged: its checksum", altered, nil},
		{"truncated", good[:len(good)-5], nil},
		{"not a safetensors file", []byte("x"), nil},
	} {
		if c.file == nil {
			c.file = good
		}
		if err := os.WriteFile(lastPath(dir), c.file, 0o666); err != nil {
			t.Fatal(err)
		}
		job, o := setups()["cosine"]()
		o.Dir, o.Resume, o.Fingerprint = dir, true, print(2, 1)
		if c.spoil != nil {
			c.spoil(job, o)
		}
		_, err := Fit(t.Context(), job, o)
		var fe *model.FileError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line with %q", err, c.want)
		}
	}
	// Something else of the right container.
	if err := model.WriteTensors(lastPath(dir), nil, map[string]string{"format": "x"}); err != nil {
		t.Fatal(err)
	}
	job, o := setups()["cosine"]()
	o.Dir, o.Resume = dir, true
	if _, err := Fit(t.Context(), job, o); err == nil || !strings.Contains(err.Error(), `expected a checkpoint of format carousel.checkpoint/2, got "x"`) {
		t.Errorf("got %v", err)
	}
}

// TestResumeStarts resumes where there is nothing to resume: the run is a fresh one.
func TestResumeStarts(t *testing.T) {
	whole, _ := setups()["cosine"]()
	_, o := setups()["cosine"]()
	fit(t, whole, o)
	job, o := setups()["cosine"]()
	o.Dir, o.Resume = filepath.Join(t.TempDir(), "new"), true
	if r := fit(t, job, o); r.ResumedAt != 0 || r.Steps == 0 {
		t.Errorf("resumed at step %d of %d", r.ResumedAt, r.Steps)
	}
	if !slices.Equal(weights(job), weights(whole)) {
		t.Error("the weights differ from those of a run without Resume")
	}
}

// TestBestFile reads what a user may load elsewhere: the parameters' own names.
func TestBestFile(t *testing.T) {
	job, o := setups()["cosine"]()
	o.Dir = t.TempDir()
	r := fit(t, job, o)
	f, err := model.ReadTensors(bestPath(o.Dir))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range job.Slab.Params {
		if x := f.Tensors[i]; x.Name != p.Name || !sameBits(x.Data, p.Read()) {
			t.Errorf("%s is not the best weights", x.Name)
		}
	}
	var rec Record
	if err := json.Unmarshal([]byte(f.Meta["record"]), &rec); err != nil || rec.Epoch != r.Best.Epoch {
		t.Errorf("record %+v, %v", rec, err)
	}
}

func TestRecordJSON(t *testing.T) {
	r := Record{Epoch: 2, Step: 80, LR: 1e-3, TrainLoss: 0.25, GradNorm: math.Inf(1), Clipped: 0.25, Val: map[string]float64{"mse": 0.5, "mae": math.NaN()}, Seconds: 1.5}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"epoch":2,"step":80,"lr":0.001,"train_loss":0.25,"grad_norm":null,"clipped":0.25,"val_mae":null,"val_mse":0.5,"seconds":1.5}`
	if string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	var got Record
	if err := json.Unmarshal(b, &got); err != nil || got.LR != 1e-3 || got.Clipped != 0.25 || !math.IsNaN(got.GradNorm) || !math.IsNaN(got.Val["mae"]) || got.Val["mse"] != 0.5 || len(got.Val) != 2 {
		t.Errorf("came back as %+v, %v", got, err)
	}
}

func TestReadHistory(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadHistory(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(dir, "metrics.jsonl")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("{\"epoch\":1}\n{\"epoch\":2}\n{\"epo")
	if h, err := ReadHistory(dir); err != nil || len(h) != 2 || h[1].Epoch != 2 {
		t.Errorf("%v, %v", h, err)
	}
	write("{\"epoch\":1}\nhello\n")
	if _, err := ReadHistory(dir); err == nil || !strings.HasPrefix(err.Error(), path+": line 2: ") {
		t.Errorf("got %v", err)
	}
}
