package train

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Fit trains until a limit of o is reached, the metric stops improving, or ctx
// is cancelled, which leaves a checkpoint to resume from and is no error. The
// result is there with an error too, once training has begun.
//
// Two runs with the same job, options and device give the same bits, however
// often they were cut off and resumed, unless MaxTime ended one or TimedSchedule
// is set. (On a device that runs ahead the loss is read at every 16th step and the
// last of an epoch only, so as not to wait for it, and means over an epoch are
// means over those.)
func Fit[B any](ctx context.Context, job *Job[B], o *Options) (*Result, error) {
	t, err := newTrainer(job, *o)
	if err != nil {
		return nil, err
	}
	var result *Result
	shape := tensor.Catch(func() { result, err = t.run(ctx) })
	if shape != nil {
		return nil, shape
	}
	return result, err
}

type trainer[B any] struct {
	state
	job      *Job[B]
	o        Options
	opt      *optim.Optimizer
	slab     *tensor.Slab
	metric   string
	maximize bool
	batches  int // of an epoch
	perEpoch int // optimizer steps of an epoch
	total    int // optimizer steps of the run, as Options.TotalSteps
	readGap  int // steps between readings of the loss
	tape     *tensor.Tape
	infer    *tensor.Tape
	ema      *optim.EMA
	loader   *loader[B]
	group    []*batch[B] // the batches of one step
	weights  []float64   // theirs

	best      device.Buffer
	bestDirty bool // best has not been written yet
	metrics   *os.File
	events    *events
	begun     time.Time
	before    time.Duration // spent in earlier sessions
	saved     time.Time
	savedStep int
	resumedAt int
}

func newTrainer[B any](job *Job[B], o Options) (*trainer[B], error) {
	if err := o.check(job.Samples, job.Batches != nil, job.Validate != nil, job.Metric, job.Optimizer.Slab(), job.Slab); err != nil {
		return nil, err
	}
	t := &trainer[B]{job: job, o: o, opt: job.Optimizer, slab: job.Slab, readGap: 16}
	if job.Batches != nil {
		t.batches = len(job.Batches(0))
		t.perEpoch = o.stepsPerEpoch(t.batches)
		t.total = o.TotalSteps(t.batches)
	} else {
		t.batches = ceil(job.Samples, o.Batch)
		t.perEpoch = o.stepsPerEpoch(job.Samples)
		t.total = o.TotalSteps(job.Samples)
	}
	if t.batches == 0 {
		return nil, errors.New("train: there are no training batches")
	}
	t.metric, t.maximize = strings.CutPrefix(job.Metric, "-")
	if !t.slab.Device().RunsAhead() {
		t.readGap = 1
	}
	t.tape = tensor.NewTape(t.slab.Device(), tensor.Train)
	t.infer = tensor.NewTape(t.slab.Device(), tensor.Infer)
	if o.EMA > 0 {
		t.ema = optim.NewEMA(t.slab, o.EMA)
	}
	if job.Metric != "" {
		t.best = t.slab.Device().Backend().Alloc(t.slab.Values().N)
	}
	t.Settings = settings{
		Samples: job.Samples, Batch: o.Batch, Batches: t.batches, Accumulate: o.Accumulate, Seed: o.Seed, Clip: o.Clip, ClipValue: o.ClipValue, EMA: o.EMA,
		Optimizer: t.opt.String(), Metric: job.Metric, Plateau: o.Plateau != nil, Fingerprint: o.Fingerprint,
	}
	return t, nil
}

// run is the whole session: files, loop, final weights.
func (t *trainer[B]) run(ctx context.Context) (r *Result, err error) {
	t.begun = time.Now()
	t.slab.ZeroGrad()
	if err := t.open(); err != nil {
		return nil, err
	}
	t.loader = startLoader(t.job, &t.o, t.Epoch, t.Batch)
	p := t.o.Progress
	defer func() {
		t.loader.stop()
		p.clear()
		if cerr := t.close(); err == nil {
			err = cerr
		}
	}()
	left := time.Duration(0)
	if t.o.MaxTime > 0 {
		left = max(t.o.MaxTime-t.before, 1)
	}
	perStep := float64(t.job.Samples) / float64(t.perEpoch)
	p.start(plan{t.o.Epochs, t.total, perStep, t.metric, left}, t.Step)

	stopped, err := t.loop(ctx)
	if err == nil {
		err = t.save()
	}
	t.settle()
	r = t.result(stopped)
	if err == nil {
		p.finish(r, t.metric)
	}
	return r, err
}

func (t *trainer[B]) result(stopped Stop) *Result {
	return &Result{
		History: t.History, Best: t.Best, Epochs: t.Epoch, Steps: t.Step, ResumedAt: t.resumedAt,
		Stopped: stopped, Interrupted: stopped == StopInterrupted, Elapsed: t.elapsed(),
	}
}

// open resumes or begins afresh, and opens the files of the run.
func (t *trainer[B]) open() error {
	t.saved = t.begun
	dir := t.o.Dir
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "checkpoints"), 0o777); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if t.o.Resume {
		if err := t.load(); err != nil {
			return err
		}
	} else {
		// The first write finds a full or read-only disk before any work is lost.
		if err := t.save(); err != nil {
			return err
		}
		if err := removeOld(dir); err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	var err error
	if t.metrics, err = openMetrics(dir, t.History); err != nil {
		return err
	}
	if t.o.TensorBoard {
		if t.events, err = openEvents(tensorBoardDir(dir), t.Step); err != nil {
			return errors.Join(fmt.Errorf("train: event files: %w", err), t.close())
		}
	}
	return nil
}

func (t *trainer[B]) close() error {
	var errs [2]error
	if t.metrics != nil {
		errs[0] = t.metrics.Close()
	}
	if t.events != nil {
		errs[1] = t.events.close()
	}
	return errors.Join(errs[:]...)
}

// load continues from the last checkpoint.
func (t *trainer[B]) load() error {
	f, s, err := readCheckpoint(lastPath(t.o.Dir), t.Settings)
	if err != nil {
		return err
	}
	t.bestDirty, err = restore(f, s, t.opt, t.ema, t.best)
	if err != nil {
		return err
	}
	if t.job.Carry != nil {
		if err := t.job.Carry.UnmarshalBinary(s.Carry); err != nil {
			return &model.FileError{File: lastPath(t.o.Dir), Problem: "the state carried between steps cannot be restored: " + err.Error(), Fix: "resume with the settings it began with, or start the run afresh"}
		}
	}
	t.state = *s
	if t.o.Plateau != nil && s.Plateau != nil {
		t.o.Plateau.SetState(*s.Plateau)
	}
	t.before = time.Duration(s.Seconds * float64(time.Second))
	t.resumedAt, t.savedStep = t.Step, t.Step
	return nil
}

// save writes the last checkpoint, and the best weights if they are new.
func (t *trainer[B]) save() error {
	if t.o.Dir == "" {
		return nil
	}
	t.Seconds = t.elapsed().Seconds()
	if t.o.Plateau != nil {
		s := t.o.Plateau.State()
		t.Plateau = &s
	}
	if t.job.Carry != nil {
		var err error
		if t.Carry, err = t.job.Carry.MarshalBinary(); err != nil {
			return fmt.Errorf("train: checkpoint at step %d: %w", t.Step, err)
		}
	}
	var best device.Buffer
	if t.Best != nil {
		best = t.best
	}
	if t.bestDirty {
		if err := writeBest(&t.o, t.slab, t.best, t.Best); err != nil {
			return fmt.Errorf("train: checkpoint at step %d: %w", t.Step, err)
		}
		t.bestDirty = false
	}
	if err := writeCheckpoint(&t.o, lastPath(t.o.Dir), &t.state, t.opt, t.ema, best); err != nil {
		return fmt.Errorf("train: checkpoint at step %d: %w", t.Step, err)
	}
	t.saved, t.savedStep = time.Now(), t.Step
	return nil
}

// saveIfDue goes by CheckpointEvery, or by the clock.
func (t *trainer[B]) saveIfDue(epochEnd bool) error {
	if t.o.Dir == "" {
		return nil
	}
	since := time.Since(t.saved)
	due := since >= 5*time.Minute || epochEnd && since >= 2*time.Second
	if t.o.CheckpointEvery > 0 {
		due = t.Step-t.savedStep >= t.o.CheckpointEvery
	}
	if !due {
		return nil
	}
	return t.save()
}

// settle leaves the weights that the run stands for in the slab.
func (t *trainer[B]) settle() {
	switch {
	case t.Best != nil:
		t.slab.Device().Backend().Copy(t.slab.Edit(), t.best, false)
	case t.ema != nil:
		t.ema.Swap()
	}
}

func (t *trainer[B]) elapsed() time.Duration { return t.before + time.Since(t.begun) }

// limit is the limit that has been reached, or "".
func (t *trainer[B]) limit() Stop {
	switch {
	case t.o.Steps > 0 && t.Step >= t.o.Steps:
		return StopSteps
	case t.o.MaxTime > 0 && t.elapsed() >= t.o.MaxTime:
		return StopTime
	}
	return ""
}

// loop takes steps and closes epochs until something ends the run. It may begin
// in the middle of an epoch, or at the end of one that is not closed yet.
func (t *trainer[B]) loop(ctx context.Context) (Stop, error) {
	for {
		if t.o.Patience > 0 && t.Bad >= t.o.Patience {
			return StopPatience, nil
		}
		if t.o.Epochs > 0 && t.Epoch >= t.o.Epochs {
			return StopEpochs, nil
		}
		if stop := t.limit(); stop != "" && t.Batch == 0 {
			return stop, nil
		}
		for t.Batch < t.batches && (t.Batch == 0 || t.limit() == "") {
			if ctx.Err() != nil {
				return StopInterrupted, nil
			}
			if err := t.step(); err != nil {
				return "", err
			}
			if t.Batch < t.batches {
				if err := t.saveIfDue(false); err != nil {
					return "", err
				}
			}
		}
		switch err := t.closeEpoch(ctx); {
		case errors.Is(err, errInterrupted):
			return StopInterrupted, nil
		case errors.Is(err, ErrStop):
			return StopAsked, nil
		case err != nil:
			return "", err
		}
	}
}

// step trains on the batches of one optimizer step.
func (t *trainer[B]) step() error {
	n := min(t.o.Accumulate, t.batches-t.Batch)
	total := t.gather(n)
	read := t.Step%t.readGap == 0 || t.Batch+n == t.batches
	lr := t.rate()
	loss := 0.0
	for i, b := range t.group {
		share := 0.0
		if total > 0 {
			share = t.weights[i] / total
		}
		t.tape.Reset()
		t.tape.Seed(t.o.Seed, uint64(t.Step)*uint64(t.o.Accumulate)+uint64(i))
		l := t.job.Loss(t.tape, b.data)
		if read {
			loss += share * float64(l.Item())
		}
		if n > 1 {
			l = tensor.Scale(l, float32(share))
		}
		l.Backward()
		t.loader.release(b)
	}
	norm, err := t.clip(read, lr, loss)
	if err != nil {
		return err
	}
	t.opt.Step(lr)
	if t.ema != nil {
		t.ema.Update()
	}
	t.Step++
	t.Batch += n
	t.LR = lr
	if !read {
		t.o.Progress.step(t.Epoch+1, t.Step, math.NaN())
		return nil
	}
	t.Loss += total * loss
	t.Weight += total
	t.Norm += float64(norm)
	if t.o.Clip > 0 && norm > t.o.Clip {
		t.Clips++
	}
	t.Reads++
	t.o.Progress.step(t.Epoch+1, t.Step, loss)
	t.logStep(loss, norm)
	return nil
}

// gather collects n loaded batches and returns the sum of their weights.
func (t *trainer[B]) gather(n int) (total float64) {
	t.group, t.weights = t.group[:0], t.weights[:0]
	for range n {
		b := t.loader.next()
		w := float64(b.samples)
		if t.job.Weight != nil {
			w = t.job.Weight(b.data)
		}
		t.group, t.weights = append(t.group, b), append(t.weights, w)
		total += w
	}
	return total
}

// clip bounds the gradient. It always measures the norm, because a step whose
// norm is not finite then leaves the weights alone.
func (t *trainer[B]) clip(read bool, lr float32, loss float64) (norm float32, err error) {
	if t.o.ClipValue > 0 {
		t.opt.ClipValue(t.o.ClipValue)
	}
	bound := t.o.Clip
	if bound == 0 {
		bound = float32(math.Inf(1))
	}
	t.opt.ClipNorm(bound)
	if !read {
		return 0, nil
	}
	norm = t.opt.GradNorm()
	if finite(loss) && finite(float64(norm)) {
		return norm, nil
	}
	e := &DivergedError{Step: t.Step + 1, LR: lr, Loss: loss, GradNorm: norm}
	for _, p := range t.slab.Params {
		if e.Param == "" && !allFinite(p.Read()) {
			e.Param = p.Name
		}
		if e.Gradient == "" && !allFinite(p.Grad()) {
			e.Gradient = p.Name
		}
	}
	return norm, e
}

func finite(v float64) bool { return v-v == 0 }

func allFinite(vs []float32) bool {
	return !slices.ContainsFunc(vs, func(v float32) bool { return v-v != 0 })
}

// rate is the learning rate of the next step.
func (t *trainer[B]) rate() float32 {
	if t.o.Plateau != nil {
		return t.o.Plateau.LR()
	}
	if n := t.o.TimedSchedule; n > 0 {
		return t.o.Schedule(int(float64(n) * float64(t.elapsed()) / float64(t.o.MaxTime)))
	}
	return t.o.Schedule(t.Step)
}

// logStep writes about a hundred points an epoch to the event file.
func (t *trainer[B]) logStep(loss float64, norm float32) {
	if t.events == nil || t.Step-t.events.last < max(1, t.perEpoch/100) {
		return
	}
	t.events.last = t.Step
	t.events.scalar("train/loss", t.Step, loss)
	t.events.scalar("train/grad_norm", t.Step, float64(norm))
	t.events.scalar("train/lr", t.Step, float64(t.LR))
}

var errInterrupted = errors.New("train: interrupted")

// closeEpoch validates, records and saves. If it is interrupted before the
// validation has finished, the epoch stays open, and a resumed run validates again.
func (t *trainer[B]) closeEpoch(ctx context.Context) error {
	r := Record{Epoch: t.Epoch + 1, Step: t.Step, LR: t.LR}
	r.TrainLoss, r.GradNorm, r.Clipped = t.Loss/t.Weight, t.Norm/float64(t.Reads), float64(t.Clips)/float64(t.Reads)
	better := false
	last := t.limit() != "" || r.Epoch == t.o.Epochs
	if t.job.Validate != nil && (last || r.Epoch%t.o.ValidateEvery == 0) {
		var err error
		if better, err = t.validate(ctx, &r); err != nil {
			return err
		}
	}
	r.Seconds = t.elapsed().Seconds()
	if better {
		best := r
		t.Best = &best
	}
	t.History = append(t.History, r)
	t.Epoch, t.Batch = t.Epoch+1, 0
	t.Loss, t.Weight, t.Norm, t.Reads, t.Clips = 0, 0, 0, 0, 0
	t.o.Progress.epoch(&r)
	if err := t.logEpoch(r); err != nil {
		return err
	}
	if err := t.saveIfDue(true); err != nil {
		return err
	}
	if t.o.OnEpoch != nil {
		return t.o.OnEpoch(r)
	}
	return nil
}

func (t *trainer[B]) logEpoch(r Record) error {
	if t.metrics != nil {
		if err := writeRecord(t.metrics, r); err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	if t.events == nil {
		return nil
	}
	t.events.scalar("epoch/loss", r.Step, r.TrainLoss)
	for _, k := range slices.Sorted(maps.Keys(r.Val)) {
		t.events.scalar("val/"+k, r.Step, r.Val[k])
	}
	if err := t.events.flush(); err != nil {
		return fmt.Errorf("train: event file: %w", err)
	}
	return nil
}

// validate scores the weights, or their average, and keeps them if they are the best.
func (t *trainer[B]) validate(ctx context.Context, r *Record) (better bool, err error) {
	if ctx.Err() != nil {
		return false, errInterrupted
	}
	if t.ema != nil {
		t.ema.Swap()
		defer t.ema.Swap()
	}
	val, err := t.job.Validate(ctx, t.infer)
	if err != nil {
		if ctx.Err() != nil {
			return false, errInterrupted
		}
		return false, fmt.Errorf("train: validation after epoch %d: %w", r.Epoch, err)
	}
	r.Val = maps.Clone(val)
	if t.metric == "" {
		return false, nil
	}
	v, ok := val[t.metric]
	if !ok {
		return false, fmt.Errorf("train: validation gives no %q, only %q", t.metric, slices.Sorted(maps.Keys(val)))
	}
	if t.o.Plateau != nil {
		t.o.Plateau.Observe(v)
	}
	if !t.better(v) {
		t.Bad++
		return false, nil
	}
	t.Bad = 0
	t.bestDirty = true
	t.slab.Device().Backend().Copy(t.best, t.slab.Values(), false)
	return true, nil
}

// better compares with the best so far. NaN is never better.
func (t *trainer[B]) better(v float64) bool {
	if t.Best == nil {
		return !math.IsNaN(v)
	}
	best := t.Best.Val[t.metric]
	if t.maximize {
		return v > best+t.o.MinDelta
	}
	return v < best-t.o.MinDelta
}
