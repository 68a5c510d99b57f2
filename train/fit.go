package train

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/lock"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Fit trains until a limit of o is reached, the metric stops improving, a hook
// returns [ErrStop], or ctx is cancelled. Cancellation is not an error: it
// leaves a checkpoint from which the run can resume. ([ErrPause] is one, and leaves
// a checkpoint too.)
//
// Errors: options or a job that contradict each other, and ranks that differ, with the
// same text on each (before anything is written); [ErrRunning] while another run uses the same Dir; a [*DivergedError] when the loss or the gradient norm is not
// finite, and an [*OverflowError] when too many steps were skipped; an
// [*UnknownParameterError]; a [*model.FileError] when a checkpoint or history cannot be read or
// belongs to another run; a [*tensor.ShapeError] when an operation of the job
// gets wrong shapes; and whatever writing files, a hook, Validate or the World
// returns. Once training has begun, the result is returned with the error,
// except with a ShapeError.
//
// Two runs with the same job, options and device give the same bits, however
// often they were interrupted and resumed, unless MaxTime ended one or
// TimedSchedule is set. (On a device that runs ahead, the loss is read only at
// every 16th step and at the last of an epoch, so as not to wait for it, and
// means over an epoch are means over those readings.)
func Fit[B any](ctx context.Context, job *Job[B], o *Options) (result *Result, err error) {
	var reduce *reducer
	ended := false
	defer func() {
		switch {
		case !ended:
			o.world().Abort(errors.New("it panicked"))
		case err != nil:
			o.world().Abort(err)
		}
		reduce.stop()
	}()
	if o.Adjust != nil {
		own := *o
		own.Adjust(&own)
		o = &own
	}
	caught := tensor.Catch(func() {
		var t *trainer[B]
		if t, err = newTrainer(job, *o); err == nil {
			reduce = t.reduce
			result, err = t.run(WithWorld(ctx, t.world))
		}
	})
	ended = true
	if caught != nil {
		return nil, caught
	}
	return result, err
}

type trainer[B any] struct {
	state
	job      *Job[B]
	o        Options
	opt      *optim.Optimizer
	scaler   *optim.GradScaler // nil unless the precision is Float16
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
	group    []*batch[B] // this rank's batches of one step
	weights  []float64   // of all ranks' batches, by number
	losses   []float64   // likewise
	sum      sum
	ready    func(lo, hi int) // what the tape calls in the last batch of a step
	last     int              // that batch's number within the rank
	taken    Step             // the last one, for OnStep
	asked    bool             // OnStep wants the run to stop

	world      World
	rank, size int
	perStep    int       // batches of a step, of all ranks
	own        []float64 // what this rank reports of its batches
	meeting    []float64
	tells      bool          // some rank has an OnStep, after which all meet
	told       time.Duration // elapsed time on rank 0's clock
	reduce     *reducer      // nil with one rank
	running    *running      // nil with one rank, or where nothing runs
	exposed    time.Duration // as Result.Exposed

	best        device.Buffer
	bestDirty   bool   // best has not been written
	device      string // its name
	metrics     *os.File
	events      *events
	begun       time.Time
	before      time.Duration // spent in earlier sessions
	saved       time.Duration // on the clock
	savedStep   int
	resumedAt   int
	resumedFrom string // the checkpoint's checksum; "" at step 0
}

func newTrainer[B any](job *Job[B], o Options) (*trainer[B], error) {
	if err := o.check(job.Samples, job.Batches != nil, job.Validate != nil, job.Metric, job.Optimizer.Slab(), job.Slab); err != nil {
		return nil, err
	}
	t := &trainer[B]{job: job, o: o, opt: job.Optimizer, slab: job.Slab, readGap: 16, sum: sum{slab: job.Slab}, world: o.world()}
	t.rank, t.size = t.world.Rank(), t.world.Size()
	t.perStep = o.Accumulate * t.size
	t.weights, t.losses = make([]float64, t.perStep), make([]float64, t.perStep)
	t.own, t.meeting = make([]float64, o.Accumulate), make([]float64, 2+2*t.size)
	if t.size > 1 {
		t.reduce = newReducer(t.slab, &o)
	}
	if t.rank > 0 {
		t.o.Progress, t.o.TensorBoard = nil, false
	}
	if t.o.OnReady != nil || t.size > 1 {
		t.ready = t.complete
	}
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
	t.tells = o.OnStep != nil
	if t.tells || !t.slab.Device().RunsAhead() {
		t.readGap = 1
	}
	t.tape = tensor.NewTape(t.slab.Device(), tensor.Train)
	t.tape.SetPrecision(o.Precision)
	if t.size > 1 {
		t.running = newRunning(t.slab)
		t.tape.OnRunning(t.running.note)
	}
	if err := keep32(t.slab, o.Keep32); err != nil {
		return nil, err
	}
	t.infer = tensor.NewTape(t.slab.Device(), tensor.Infer)
	if o.Precision == tensor.Int8 {
		t.infer.SetPrecision(o.Precision)
	}
	if o.From != "" && !(o.Resume && HasCheckpoint(o.Dir)) {
		from, err := model.Open(o.From)
		if err == nil {
			err = from.Load(t.slab)
		}
		if err != nil {
			return nil, err
		}
		for _, p := range t.slab.Params {
			p.SetRest(tensor.Float32) // of a quantized model
		}
	}
	if o.EMA > 0 {
		t.ema = optim.NewEMA(t.slab, o.EMA)
	}
	if job.Metric != "" {
		t.best = t.slab.Device().Backend().Alloc(t.slab.Values().N)
	}
	t.Settings = settings{
		Samples: job.Samples, Batch: o.Batch, Batches: t.batches, Accumulate: t.perStep, Seed: o.Seed, Clip: o.Clip, ClipValue: o.ClipValue, EMA: o.EMA,
		Optimizer: t.opt.String(), Metric: job.Metric, Plateau: o.Plateau != nil,
		Precision: o.Precision, Keep: strings.Join(inOrder(o.Keep32), " "),
	}
	t.Fingerprint, t.device = o.Fingerprint, t.slab.Device().Name()
	if o.Precision != tensor.Float32 {
		t.device += " " + o.Precision.String()
	}
	if o.Compress && t.size > 1 {
		t.device += " with sums in bf16"
	}
	if o.Precision == tensor.Float16 {
		if err := tensor.Catch(func() { t.scaler = optim.NewGradScaler(o.Scaler) }); err != nil {
			return nil, err
		}
		t.Settings.Scaler = cmp.Or(o.Scaler, &optim.GradScalerOptions{}).Filled()
	}
	return t, nil
}

// keep32 marks the parameters whose names begin with one of the given ones.
func keep32(slab *tensor.Slab, names []string) error {
	for _, name := range names {
		found := false
		for _, p := range slab.Params {
			if strings.HasPrefix(p.Name, name) {
				p.Keep32, found = true, true
			}
		}
		if !found || name == "" {
			e := &UnknownParameterError{Name: name}
			for _, p := range slab.Params {
				e.Params = append(e.Params, p.Name)
			}
			return e
		}
	}
	return nil
}

// run is the whole session: files, loop, final weights.
func (t *trainer[B]) run(ctx context.Context) (r *Result, err error) {
	t.begun = time.Now()
	t.slab.ZeroGrad()
	if t.o.Writes() {
		unlock, err := lockDir(t.o.Dir)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	resumed, err := t.resume()
	if err != nil {
		return nil, err
	}
	if err := t.agree(); err != nil {
		return nil, err
	}
	if err := t.open(resumed); err != nil {
		return nil, err
	}
	if t.o.OnStart != nil {
		plan := Plan{Epochs: t.o.Epochs, Steps: t.total, Metric: t.job.Metric, Metrics: slices.Clone(t.job.Metrics), Weights: t.slab.NumElements(), History: slices.Clone(t.History), Fingerprint: t.Fingerprint}
		if plan.Metrics == nil && plan.Metric != "" {
			plan.Metrics = []string{plan.Metric}
		}
		if err := t.o.OnStart(plan); err != nil {
			return nil, errors.Join(err, t.close())
		}
	}
	if t.reduce != nil {
		t.reduce.start()
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
	p.about(t.o.About, t.slab.NumElements())
	p.start(plan{t.o.Epochs, t.total, t.samplesOfStep(), t.metric, left}, t.Step)
	t.showScale()

	stopped, err := t.loop(ctx)
	if stopped == StopInterrupted {
		end(ctx)
	}
	if err == nil || errors.Is(err, ErrPause) {
		serr := t.save()
		if serr == nil {
			serr = t.meet(goOn) // no rank returns before the files are written
		}
		err = errors.Join(err, serr)
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
		History: t.History, Best: t.Best, Epochs: t.Epoch, Steps: t.Step, Skipped: t.Skipped, ResumedAt: t.resumedAt, Devices: t.Devices,
		Stopped: stopped, Interrupted: stopped == StopInterrupted, Elapsed: t.elapsed(), Exposed: t.exposed,
	}
}

const lockFile = "training.lock"

// lockDir creates the run's directory and locks it against other runs, until
// unlock is called or the process ends. The error is [ErrRunning] while another
// run holds it.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(dir, "checkpoints"), 0o777); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	unlock, err = lock.Acquire(filepath.Join(dir, lockFile))
	if errors.Is(err, lock.ErrHeld) {
		return nil, fmt.Errorf("train: %s: %w", dir, ErrRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	for _, path := range []string{lastPath(dir), bestPath(dir), filepath.Join(dir, metricsFile)} {
		model.SweepTemporaries(path)
	}
	return unlock, nil
}

// resume continues from the last checkpoint, if the run resumes and there is one.
func (t *trainer[B]) resume() (resumed bool, err error) {
	if t.o.Resume {
		switch err := t.load(); {
		case err == nil:
			resumed = true
		case !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	t.told = t.before
	t.saved = t.clock()
	return resumed, nil
}

// open opens the files of a run.
func (t *trainer[B]) open(resumed bool) error {
	if !resumed {
		// The first write finds a full or read-only disk before any work is lost.
		if err := t.save(); err != nil {
			return err
		}
	}
	if !t.o.Writes() {
		return nil
	}
	dir := t.o.Dir
	if !resumed {
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
	f, s, err := readCheckpoint(lastPath(t.o.Dir), &t.state)
	if err != nil {
		return err
	}
	t.bestDirty, err = restore(f, s, t.opt, t.ema, t.best)
	if err != nil {
		return err
	}
	if t.job.Carry != nil {
		if err := t.setCarried(s.Carry); err != nil {
			return &model.FileError{File: lastPath(t.o.Dir), Problem: "the state carried between steps cannot be restored: " + err.Error(), Fix: "resume with the settings it began with, or start the run afresh"}
		}
	}
	if t.scaler != nil {
		if s.Scaler == nil {
			err = errors.New("it has no scale of the loss")
		} else {
			err = t.scaler.LoadState(*s.Scaler)
		}
		if err != nil {
			return &model.FileError{File: lastPath(t.o.Dir), Problem: "the scale of the loss cannot be restored: " + err.Error(), Fix: "start the run afresh"}
		}
	}
	t.state = *s
	if t.o.Plateau != nil && s.Plateau != nil {
		t.o.Plateau.SetState(*s.Plateau)
	}
	t.Carry = nil
	t.before = time.Duration(s.Seconds * float64(time.Second))
	t.resumedAt, t.savedStep = t.Step, t.Step
	if t.Step > 0 {
		t.resumedFrom = f.Meta["crc32c"]
	}
	return nil
}

// save writes the last checkpoint, and the best weights if they are new. All ranks
// call it at the same place if the job carries state.
func (t *trainer[B]) save() error {
	t.saved, t.savedStep = t.clock(), t.Step
	if t.o.Dir == "" {
		return nil
	}
	from := t.o.Timeline.now()
	defer func() { t.o.Timeline.span(trackTraining, "checkpoint", from) }()
	if t.job.Carry != nil {
		carry, err := t.carried()
		if err != nil {
			return fmt.Errorf("train: checkpoint at step %d: %w", t.Step, err)
		}
		t.Carry = carry
		defer func() { t.Carry = nil }()
	}
	if !t.o.Writes() {
		return nil
	}
	t.Seconds = t.elapsed().Seconds()
	if t.o.Plateau != nil {
		s := t.o.Plateau.State()
		t.Plateau = &s
	}
	if t.scaler != nil {
		s := t.scaler.State()
		t.Scaler = &s
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
	return nil
}

// carried returns the states of all slots, of all ranks.
func (t *trainer[B]) carried() (carried, error) {
	own := make(carried, t.o.Accumulate)
	for i := range own {
		var err error
		if own[i], err = t.job.Carry(t.rank*t.o.Accumulate + i).MarshalBinary(); err != nil {
			return nil, err
		}
	}
	if t.size == 1 {
		return own, nil
	}
	text, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	shared, err := t.world.Share(text)
	if err != nil {
		return nil, err
	}
	all := make(carried, 0, t.perStep)
	for rank, text := range shared {
		var theirs carried
		if err := json.Unmarshal(text, &theirs); err != nil {
			return nil, fmt.Errorf("the state carried by rank %d: %w", rank, err)
		}
		all = append(all, theirs...)
	}
	return all, nil
}

// setCarried restores the states of this rank's slots.
func (t *trainer[B]) setCarried(all carried) error {
	if len(all) != t.perStep {
		return fmt.Errorf("it has the states of %d batches, expected %d", len(all), t.perStep)
	}
	for i := range t.o.Accumulate {
		slot := t.rank*t.o.Accumulate + i
		if err := t.job.Carry(slot).UnmarshalBinary(all[slot]); err != nil {
			return err
		}
	}
	return nil
}

// saveIfDue saves by CheckpointEvery, or by the clock, at the same place on all ranks.
func (t *trainer[B]) saveIfDue(epochEnd bool) error {
	since := t.clock() - t.saved
	due := since >= 5*time.Minute || epochEnd && since >= 2*time.Second
	if t.o.CheckpointEvery > 0 {
		due = t.Step-t.savedStep >= t.o.CheckpointEvery
	}
	if !due {
		return nil
	}
	return t.save()
}

// settle leaves the run's final weights in the slab: the best, the average or
// the last.
func (t *trainer[B]) settle() {
	switch {
	case t.Best != nil:
		t.slab.Device().Backend().Copy(t.slab.MutableValues(), t.best, false)
	case t.ema != nil:
		t.ema.Swap()
	}
}

func (t *trainer[B]) elapsed() time.Duration { return t.before + time.Since(t.begun) }

// limit returns the limit that has been reached, or "".
func (t *trainer[B]) limit() Stop {
	switch {
	case t.o.Steps > 0 && t.Step >= t.o.Steps:
		return StopSteps
	case t.o.MaxTime > 0 && t.clock() >= t.o.MaxTime:
		return StopTime
	case t.asked:
		return StopAsked
	}
	return ""
}

// loop takes steps and closes epochs until something ends the run, of which the error
// tells if it is none of a run's ends.
func (t *trainer[B]) loop(ctx context.Context) (Stop, error) {
	stopped, err := t.epochs(ctx)
	switch {
	case errors.Is(err, ErrPause):
		return StopInterrupted, err
	case errors.Is(err, errInterrupted):
		return StopInterrupted, nil
	case errors.Is(err, ErrStop):
		return StopAsked, nil
	}
	return stopped, err
}

// epochs is loop. It may begin in the middle of an epoch, or at the end of one that is not
// closed yet.
func (t *trainer[B]) epochs(ctx context.Context) (Stop, error) {
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
			if err := t.meet(wishOf(ctx)); err != nil {
				return "", err
			}
			if err := t.step(); err != nil {
				return "", err
			}
			if err := t.tell(); err != nil {
				return "", err
			}
			if t.Batch < t.batches {
				if err := t.saveIfDue(false); err != nil {
					return "", err
				}
			}
		}
		cut := t.Batch < t.batches
		if err := t.closeEpoch(ctx); err != nil {
			return "", err
		}
		if cut { // by a limit, also in the last epoch
			return t.limit(), nil
		}
	}
}

// step trains on the batches of one optimizer step.
func (t *trainer[B]) step() error {
	if n := len(t.Devices); n == 0 || t.Devices[n-1] != t.device {
		t.Devices = append(t.Devices, t.device)
	}
	n := min(t.perStep, t.batches-t.Batch) // of all ranks
	total, err := t.gather(n)
	if err != nil {
		return err
	}
	read := t.Step%t.readGap == 0 || t.Batch+n == t.batches
	lr := t.rate()
	first := t.rank * t.o.Accumulate
	t.last = len(t.group) - 1
	if t.reduce != nil {
		t.reduce.begin()
	}
	for i, b := range t.group {
		from := t.o.Timeline.now()
		t.tape.Reset()
		t.tape.Seed(t.o.Seed, uint64(t.Step)*uint64(t.perStep)+uint64(first+i))
		l := t.job.Loss(t.tape, b.data)
		if read {
			t.own[i] = float64(l.Item())
		}
		if n > 1 {
			l = tensor.MulScalar(l, float32(share(t.weights[first+i], total)))
		}
		l = t.scaler.Scale(l)
		t.o.Timeline.span(trackTraining, "forward", from)
		from = t.o.Timeline.now()
		if i < t.last {
			l.Backward()
			t.sum.put(i)
		} else {
			t.tape.OnReady(t.slab, t.ready)
			l.Backward()
			t.tape.OnReady(nil, nil)
			if t.ready == nil {
				t.sum.finish(i, 0, t.slab.Grads().N)
			}
		}
		t.o.Timeline.span(trackTraining, "backward", from)
		t.loader.release(b)
	}
	if t.last < 0 { // no batch of a short step is left for this rank
		t.slab.Device().Backend().Fill(t.slab.Grads(), nothing)
		t.reduce.idle = true
		for i := len(t.slab.Params) - 1; i >= 0; i-- {
			t.hand(t.slab.Range(i))
		}
	}
	if t.reduce != nil {
		if err := t.reduce.finish(); err != nil {
			return err
		}
		t.exposed += t.reduce.exposed
		if err := t.running.apply(t.world); err != nil {
			return err
		}
	}
	from := t.o.Timeline.now()
	defer func() { t.o.Timeline.span(trackTraining, "optimizer", from) }()
	loss := 0.0
	if read {
		if err := t.world.Gather(t.own, t.losses); err != nil {
			return err
		}
		for i, l := range t.losses[:n] {
			loss += share(t.weights[i], total) * l
		}
	}
	t.scaler.Unscale(t.opt)
	if t.o.OnGradients != nil {
		t.opt.Settle()
		t.o.OnGradients(t.slab)
	}
	norm, err := t.clip(read, lr, loss)
	if err != nil {
		return err
	}
	gradient := ""
	if t.scaler != nil && t.Overflows >= MostSkipped-1 {
		_, gradient = t.notFinite()
	}
	scale := t.scaler.Factor()
	taken := t.scaler.Step(t.opt, lr)
	t.scaler.Update()
	t.Step++
	t.Batch += n
	t.LR = lr
	t.taken = Step{
		Step: t.Step, Epoch: t.Epoch + 1, Loss: loss, GradNorm: norm, LR: lr, Skipped: !taken,
		Samples: t.samplesOfStep(), PerEpoch: t.perEpoch, TapeBytes: t.tape.Bytes(),
	}
	if t.reduce != nil {
		t.taken.Exposed = t.reduce.exposed
	}
	if !taken {
		t.Skipped++
		t.Overflows++
		t.reduce.forget()
		t.showScale()
		t.o.Progress.step(t.Epoch+1, t.Step, math.NaN())
		if t.Overflows < MostSkipped {
			return nil
		}
		return errors.Join(&OverflowError{t.Step, scale, gradient}, t.save())
	}
	t.Overflows = 0
	if t.ema != nil {
		t.ema.Update()
	}
	t.showScale()
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

// tell calls OnStep, and does on all ranks what it asks for on one.
func (t *trainer[B]) tell() error {
	if !t.tells {
		return nil
	}
	w := goOn
	if t.o.OnStep != nil {
		switch err := t.o.OnStep(t.taken); {
		case errors.Is(err, ErrStop):
			w = finish
		case errors.Is(err, ErrPause):
			w = pause
		case err != nil:
			return err
		}
	}
	err := t.meet(w)
	if errors.Is(err, ErrStop) {
		t.asked, err = true, nil
	}
	return err
}

// samplesOfStep is the mean number of samples of a step.
func (t *trainer[B]) samplesOfStep() float64 { return float64(t.job.Samples) / float64(t.perEpoch) }

// share returns the fraction of the step's loss that comes from one batch.
func share(weight, total float64) float64 {
	if total > 0 {
		return weight / total
	}
	return 0
}

// complete finishes a parameter's gradient and hands it over.
func (t *trainer[B]) complete(lo, hi int) {
	t.sum.finish(t.last, lo, hi)
	t.hand(lo, hi)
}

// hand gives a gradient that is complete on this rank to OnReady and then to the other
// ranks.
func (t *trainer[B]) hand(lo, hi int) {
	if t.o.OnReady != nil {
		t.o.OnReady(lo, hi)
	}
	if t.reduce != nil {
		t.reduce.ready(lo)
	}
}

// gather collects this rank's batches of a step of n, and returns the sum of the
// weights of all.
func (t *trainer[B]) gather(n int) (total float64, err error) {
	t.group = t.group[:0]
	for i := range max(0, min(t.o.Accumulate, n-t.rank*t.o.Accumulate)) {
		b := t.loader.next()
		w := float64(b.samples)
		if t.job.Weight != nil {
			w = t.job.Weight(b.data)
		}
		t.group, t.own[i] = append(t.group, b), w
	}
	if err := t.world.Gather(t.own, t.weights); err != nil {
		return 0, err
	}
	for _, w := range t.weights[:n] {
		total += w
	}
	return total, nil
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
	switch {
	case finite(float64(norm)) && finite(loss):
		return norm, nil
	case !finite(float64(norm)) && t.scaler != nil:
		return norm, nil // the step will be skipped
	}
	e := &DivergedError{Step: t.Step + 1, LR: lr, Loss: loss, GradNorm: norm}
	e.Param, e.Gradient = t.notFinite()
	return norm, e
}

// notFinite returns the names of the first parameter that is not finite, and of the
// first whose gradient is not; "" if all are.
func (t *trainer[B]) notFinite() (param, gradient string) {
	for _, p := range t.slab.Params {
		if param == "" && !allFinite(p.Read()) {
			param = p.Name
		}
		if gradient == "" && !allFinite(p.Grad()) {
			gradient = p.Name
		}
	}
	return param, gradient
}

// showScale tells the progress line the scale of the loss.
func (t *trainer[B]) showScale() {
	if t.scaler != nil {
		t.o.Progress.scaling(t.scaler.Factor(), t.Skipped)
	}
}

func finite(v float64) bool { return v-v == 0 }

func allFinite(vs []float32) bool {
	return !slices.ContainsFunc(vs, func(v float32) bool { return v-v != 0 })
}

// rate returns the learning rate of the next step.
func (t *trainer[B]) rate() float32 {
	if t.o.Plateau != nil {
		return t.o.Plateau.LR()
	}
	if n := t.o.TimedSchedule; n > 0 {
		return t.o.Schedule(int(float64(n) * float64(t.clock()) / float64(t.o.MaxTime)))
	}
	return t.o.Schedule(t.Step - t.Skipped)
}

// logStep writes about a hundred points per epoch to the event file.
func (t *trainer[B]) logStep(loss float64, norm float32) {
	if t.events == nil || t.Step-t.events.last < max(1, t.perEpoch/100) {
		return
	}
	t.events.last = t.Step
	t.events.scalar("train/loss", t.Step, loss)
	t.events.scalar("train/grad_norm", t.Step, float64(norm))
	t.events.scalar("train/lr", t.Step, float64(t.LR))
	if t.scaler != nil {
		t.events.scalar("train/scale", t.Step, float64(t.scaler.Factor()))
	}
}

var errInterrupted = errors.New("train: interrupted")

// closeEpoch validates, records and saves. If it is interrupted before
// validation has finished, the epoch stays open, and a resumed run validates
// again.
func (t *trainer[B]) closeEpoch(ctx context.Context) error {
	r := Record{Epoch: t.Epoch + 1, Step: t.Step, LR: t.LR}
	r.TrainLoss, r.GradNorm, r.Clipped = t.Loss/t.Weight, t.Norm/float64(t.Reads), float64(t.Clips)/float64(t.Reads)
	if t.scaler != nil {
		r.Scale, r.Skipped = t.scaler.Factor(), t.Skipped
	}
	better, asked := false, goOn
	// ask calls a hook, and notes whether it wants the run to stop or to pause.
	ask := func(hook func(Record) error) error {
		if hook == nil {
			return nil
		}
		err := hook(r)
		switch {
		case errors.Is(err, ErrStop):
			asked = max(asked, finish)
		case errors.Is(err, ErrPause):
			asked = pause
		default:
			return err
		}
		return nil
	}
	last := t.limit() != "" || r.Epoch == t.o.Epochs
	validates := t.job.Validate != nil && (last || r.Epoch%t.o.ValidateEvery == 0)
	if validates {
		var err error
		if better, err = t.validate(ctx, &r); err != nil {
			return err
		}
	}
	r.Seconds = t.elapsed().Seconds()
	if validates {
		if err := ask(t.o.OnValidate); err != nil {
			return err
		}
	}
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
	if err := ask(t.o.OnEpoch); err != nil {
		return err
	}
	return t.meet(asked)
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

// validate scores the weights, or their average, and keeps a copy if they are
// the best so far.
func (t *trainer[B]) validate(ctx context.Context, r *Record) (better bool, err error) {
	if t.ema != nil {
		t.ema.Swap()
		defer t.ema.Swap()
	}
	var val map[string]float64
	err = ctx.Err()
	if err == nil {
		from := t.o.Timeline.now()
		val, err = t.job.Validate(ctx, t.infer)
		t.o.Timeline.span(trackTraining, "validation", from)
	}
	if err != nil && ctx.Err() == nil {
		return false, fmt.Errorf("train: validation after epoch %d: %w", r.Epoch, err)
	}
	w := goOn
	if err != nil {
		w = wishOf(ctx)
	}
	if err := t.meet(w); err != nil {
		return false, err
	}
	r.Val = maps.Clone(val)
	names := slices.Sorted(maps.Keys(r.Val))
	if t.job.Metrics != nil {
		var declared []string
		for _, name := range t.job.Metrics {
			declared = append(declared, strings.TrimPrefix(name, "-"))
		}
		if slices.Sort(declared); !slices.Equal(names, declared) {
			return false, fmt.Errorf("train: validation gives %q, and Job.Metrics names %q", names, declared)
		}
	}
	if err := t.takeFirst(r.Val, names); err != nil {
		return false, err
	}
	if t.metric == "" {
		return false, nil
	}
	v, ok := r.Val[t.metric]
	if !ok {
		return false, fmt.Errorf("train: validation gives no %q, only %q", t.metric, names)
	}
	if t.o.Plateau != nil {
		t.o.Plateau.Observe(v)
	}
	if !t.better(v, r.Val) {
		if t.Step-t.Skipped > t.o.Warmup && (t.Best == nil || v != t.Best.Val[t.metric]) {
			t.Bad++
		}
		return false, nil
	}
	t.Bad = 0
	t.bestDirty = true
	t.slab.Device().Backend().Copy(t.best, t.slab.Values(), false)
	return true, nil
}

// better compares v with the best value so far. NaN is never better. Of equal
// values, which a score of few samples often has, the one with the smaller
// validation loss is better, if that is reported.
func (t *trainer[B]) better(v float64, val map[string]float64) bool {
	if t.Best == nil {
		return !math.IsNaN(v)
	}
	best := t.Best.Val[t.metric]
	if v == best {
		return val["loss"] < t.Best.Val["loss"]
	}
	if t.maximize {
		return v > best+t.o.MinDelta
	}
	return v < best-t.o.MinDelta
}
