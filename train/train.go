// Package train runs the training loop around a model: batches loaded ahead,
// gradient accumulation, data-parallel ranks, clipping, learning-rate
// schedules, validation, early stopping, checkpoints from which a killed run
// resumes bit for bit, hooks and progress output.
//
// A [Job] describes what is trained, [Options] how; [Fit] trains it.
package train

import (
	"cmp"
	"context"
	"encoding"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Job is a model, its batches and its loss. B is the caller's batch type:
// buffers that are filled repeatedly.
type Job[B any] struct {
	Slab      *tensor.Slab
	Optimizer *optim.Optimizer // of that slab
	Samples   int              // number of training samples

	// NewBatch makes an empty batch. Load fills it with the samples of the
	// given indices; it must not keep the index slice. Load runs ahead in a
	// separate goroutine, concurrently with Loss and Validate, and must depend
	// on nothing but the indices.
	NewBatch func() *B
	Load     func(b *B, samples []int)

	// Batches lists the sample indices of each batch of an epoch (counted from
	// 0), in training order, such as [Buckets.Batches]. It must depend on
	// nothing but the epoch, and every epoch must have the same number of
	// batches. nil: all samples in an order drawn from the seed, Options.Batch
	// at a time.
	Batches func(epoch int) [][]int

	// Carry returns what passes from step to step besides the weights, such as
	// the recurrent state of truncated backpropagation (an nn.Carry). There is one
	// state for each batch of a step, called a slot: Options.Accumulate times
	// Run.Ranks of them, numbered from 0 across all ranks. Batch i of an epoch, in
	// the order of Batches, is number i modulo this product in its step, and
	// continues the state of that slot, which the same number of the step before
	// left; in a short step the later slots stay as they are. So the samples of a
	// slot must follow one another from step to step, and Loss finds its slot from
	// the samples that Load was given.
	//
	// Fit calls Carry, on the goroutine of Loss, for the slots of this rank only:
	// Accumulate of them, from Rank·Accumulate. Each has its own state, and every
	// call for a slot returns the same one. Checkpoints hold all slots, so that a
	// run goes on with other numbers of ranks and batches of the same product.
	// nil: no state is carried.
	Carry func(slot int) Carry

	// Loss records the mean loss of a batch, of shape [1]. The tape is in Train
	// mode and has been reset; its dropout masks depend on Options.Seed and the
	// number of the batch.
	Loss func(tape *tensor.Tape, b *B) *tensor.Tensor

	// Weight is the number of items over which Loss is the mean, such as
	// unpadded tokens; nil: the number of samples. It weights accumulated
	// batches, so that they equal one large batch, and the mean loss of an
	// epoch.
	Weight func(b *B) float64

	// Validate scores the model; nil: no validation. It must reset the tape,
	// which is in Infer mode, before each of its batches. An error ends the
	// run. Every rank calls it, and its context is one of [WithWorld]: [Share]
	// divides the batches among the ranks.
	Validate func(ctx context.Context, tape *tensor.Tape) (map[string]float64, error)

	// Metric names the entry of Validate's result that selects the best
	// weights: the smallest value wins, or with a "-" before the name the
	// largest. "" compares nothing: the last weights are kept.
	Metric string

	// Metrics names all entries of Validate's result, as Metric does: with a "-" before
	// those of which more is better. Whoever compares runs by another one of them reads
	// it in [Plan]. nil: only Metric is known beforehand.
	Metrics []string
}

// Carry is the state of a slot of a job, which a checkpoint must hold.
type Carry interface {
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// Run sets where a run writes and how it reports. The zero Run trains in memory
// and prints nothing.
type Run struct {
	// Dir receives checkpoints/last.safetensors, checkpoints/best.safetensors
	// and metrics.jsonl, and, when a task trains, its model; "" writes nothing.
	// A run that does not resume replaces the files of an older one. Rank 0
	// locks it during the run with the file training.lock.
	Dir string
	// Resume continues from Dir's last checkpoint, or starts if there is none.
	// Weights, moments, data order, dropout, schedule and early stopping
	// continue as if the run had not been interrupted. Settings that change
	// the arithmetic must be the same; the limits may be raised.
	Resume      bool
	Progress    *Progress // nil: quiet
	About       string    // what is trained on what, in a line that Progress shows first; a task writes it
	TensorBoard bool      // write event files to Dir/tensorboard

	// World connects the processes that train together; nil: this process
	// alone. Every rank calls Fit with the same job and options. Rank 0 writes
	// and shows progress; to resume, every rank reads Dir.
	World World
	// Compress lets gradients travel between ranks as bfloat16, half the bytes; what
	// rounding loses is added in the next step. The law of World that ranks give the
	// bits of one process does not hold then: the weights depend on the number of
	// ranks. Checkpoints do not hold what is still to be added, and that of the first
	// step of a session is dropped, so a resumed run does not give the bits of one
	// that was not interrupted either. One rank ignores it.
	Compress bool

	// Timeline records what this rank does and when; nil: nothing.
	Timeline *Timeline

	// Device is where a task creates its network and trains it; nil: the CPU.
	// [Fit] does not read it: it uses the device of the job's parameters.
	Device *tensor.Device
	Hooks
}

// Hooks are functions that a run calls. Each may be nil. With several ranks,
// every rank calls its own hooks.
type Hooks struct {
	// OnStart is called before the first step of a run, also of one that goes on, when its
	// checkpoint has been read. An error ends the run with it, with nothing changed.
	OnStart func(p Plan) error

	// OnEpoch is called after each epoch, when it has been recorded. Return ErrStop
	// to stop training early without an error; another error ends the run with it.
	OnEpoch func(r Record) error

	// OnValidate is called after each validation, with its values in r.Val,
	// before the epoch is recorded: to show them, or to stop an unpromising
	// run. Return ErrStop to stop training early without an error, once the
	// epoch has been recorded; another error ends the run with it.
	OnValidate func(r Record) error

	// OnGradients is called in each step between the backward pass and
	// clipping. The slab's gradients are those of the whole step, over all its
	// batches and ranks, of the loss without a scale, and may be changed. They are not
	// finite in a step that a scaler will skip.
	OnGradients func(s *tensor.Slab)

	// OnStep is called after each optimizer step, also one that a scaler skipped.
	// Return ErrStop to end the run as a limit does: the epoch is closed early,
	// without an error; another error ends the run with it at once. What one rank
	// asks for, all do.
	OnStep func(s Step) error

	// Adjust is called once, before anything else, and may change the options that
	// a task has chosen, such as its schedule: for measurements by short trainings,
	// which no setting describes.
	Adjust func(o *Options)

	// OnReady is called once per parameter in each step, as soon as its
	// gradient is complete and while the backward pass continues. [lo,hi) is
	// its range in the slab's gradients, which then holds the sum over all
	// batches of this rank, multiplied by the scale of the loss if there is one; when
	// it returns, the gradient is summed with those of the other ranks. The order of
	// parameters is that of [tensor.Tape.OnReady].
	OnReady func(lo, hi int)
}

// Plan is what is known of a run before its first step.
type Plan struct {
	Epochs, Steps int         // to be done in all; 0: without that limit
	Metric        string      // Job.Metric
	Metrics       []string    // Job.Metrics, Metric at least
	Weights       int         // numbers that are trained
	History       []Record    // by epoch, those before a resume
	Fingerprint   Fingerprint // Options.Fingerprint
}

// Step is an optimizer step that was taken.
type Step struct {
	Step     int     // steps so far, this one included
	Epoch    int     // that it belongs to, from 1
	Loss     float64 // mean over the items of its batches, of the weights before it
	GradNorm float32 // before clipping
	LR       float32
	Skipped  bool // by the scaler of Float16, which left the weights as they are

	Samples   float64 // training samples of a step, the mean over an epoch
	PerEpoch  int     // steps of an epoch
	TapeBytes int64   // device memory that this rank's training tape holds

	Exposed time.Duration // that this rank waited after its backward pass for the sums of all ranks' gradients
}

// AfterEpoch appends f to OnEpoch, for a task that monitors its own training.
// Either function may stop the run.
func (h *Hooks) AfterEpoch(f func(r Record) error) {
	caller := h.OnEpoch
	h.OnEpoch = func(r Record) error {
		err := f(r)
		if caller == nil || err != nil && !errors.Is(err, ErrStop) {
			return err
		}
		if theirs := caller(r); theirs != nil {
			return theirs
		}
		return err
	}
}

// Options sets how a Job is trained. At least one of Epochs, Steps and MaxTime
// must be set; the first limit reached ends the run.
type Options struct {
	Epochs  int           // passes over the samples; 0: no limit
	Steps   int           // optimizer steps; 0: no limit
	MaxTime time.Duration // wall time, earlier parts of a resumed run included; 0: no limit

	Batch      int // samples in a batch; the last of an epoch may be smaller; 0 with Job.Batches
	Accumulate int // batches to a step, of each rank; 0 means 1

	// Exactly one of Schedule and Plateau is set and gives the learning rate. A
	// Plateau observes the metric after each validation.
	Schedule optim.Schedule
	Plateau  *optim.Plateau

	// TimedSchedule, above 0, evaluates the schedule by the clock: at step
	// TimedSchedule·elapsed/MaxTime. It fits a run to its time budget, but
	// makes it depend on the machine's speed: such a run is not reproducible.
	TimedSchedule int

	Clip      float32 // bound on the norm of the gradient; 0: none
	ClipValue float32 // bound on each element of the gradient, applied first; 0: none
	EMA       float64 // decay of the moving average of the weights, such as 0.999, which is then validated and kept; 0: none

	ValidateEvery int     // epochs between validations; 0 means 1; the last epoch is always validated
	MinDelta      float64 // the least change of the metric that counts as an improvement
	// Patience stops the run after this number of validations without
	// improvement; 0: never. Validations within the first Warmup steps do not
	// count, nor do those that equal the best exactly, such as a BLEU of 0
	// before the first translation succeeds.
	Patience int
	Warmup   int // steps in which the schedule's rate rises

	Seed uint64 // of the data order and dropout

	// Precision is what the products of training passes compute with; the zero value
	// is float32. Validation computes in float32 with the weights that are saved, or with
	// tensor.Int8 likewise in 8 bits.
	// Under tensor.Float16 an optim.GradScaler scales the loss: a step whose gradient,
	// over all its batches and ranks, is not finite is skipped. It counts as a step
	// everywhere (Steps, CheckpointEvery, data order, dropout) but for the weights,
	// their average, the optimizer and the schedule. [MostSkipped] of them in a row
	// end the run.
	Precision tensor.Precision
	Keep32    []string                 // names of parameters, or their beginnings, whose products stay float32 (Param.Keep32)
	From      string                   // model directory whose weights a run begins from, unless it is resumed; "": the weights as they are
	Scaler    *optim.GradScalerOptions // for tensor.Float16; nil: PyTorch's

	Run
	// CheckpointEvery is the number of steps between checkpoints. 0 goes by the
	// clock: at the end of an epoch, but not within two seconds of the last
	// one, and in long epochs every five minutes. One is always written at the
	// end.
	CheckpointEvery int
	// Fingerprint identifies the data and the model's settings. A checkpoint
	// with a different one is refused with a *model.FileError, which names the
	// part that differs.
	Fingerprint Fingerprint

	write  func(path string, ts []model.Tensor, meta map[string]string) error // model.WriteTensors
	bucket int                                                                // gradients that travel between ranks together; 0: bucketSize
}

// ErrStop ends a run as a limit does, without an error, if a hook returns it.
var ErrStop = errors.New("train: stop")

// ErrPause ends a run with a checkpoint, as an error: if a hook returns it, or if it is the
// cause of the context's cancellation. So whoever makes a model of a run that has ended, as
// tasks do, makes none; the run can be resumed.
var ErrPause = errors.New("train: paused")

// ErrRunning is returned for a run whose Dir another run is writing to.
var ErrRunning = errors.New("another training is writing to this directory; wait for it to end, or choose another directory")

// TotalSteps is the number of optimizer steps of a run over the given number of
// samples (with Job.Batches: batches per epoch), as far as Epochs and Steps
// determine it; 0 if they do not. Schedules are made for this length.
func (o *Options) TotalSteps(samples int) int {
	total := o.Epochs * o.stepsPerEpoch(samples)
	if o.Steps > 0 && (total == 0 || o.Steps < total) {
		total = o.Steps
	}
	return total
}

func (o *Options) stepsPerEpoch(samples int) int {
	return ceil(ceil(samples, max(o.Batch, 1)), max(o.Accumulate, 1)*o.world().Size())
}

func ceil(a, b int) int { return (a + b - 1) / b }

// Stop is the reason why a run ended.
type Stop string

const (
	StopEpochs      Stop = "epochs"      // all epochs done
	StopSteps       Stop = "steps"       // all steps done
	StopTime        Stop = "time"        // MaxTime is over
	StopPatience    Stop = "patience"    // no improvement for Patience validations
	StopAsked       Stop = "asked"       // a hook returned ErrStop
	StopInterrupted Stop = "interrupted" // the context was cancelled
)

// Result is the outcome of a run. The slab then holds the best weights if a
// metric selects them, else the average if there is one, else the last.
type Result struct {
	History     []Record // by epoch, those before a resume included
	Best        *Record  // the best epoch; nil without Metric
	Epochs      int      // epochs done, including a partial last one
	Steps       int      // optimizer steps done
	Skipped     int      // of these, steps that an overflow of Float16 left out
	ResumedAt   int      // the step this run was resumed at; 0 for a fresh one
	Devices     []string // where the steps ran, in order, such as "cpu/avx512", "cpu/avx512 bf16" with a precision other than float32, "... with sums in bf16" with Compress: several for a run that was resumed elsewhere
	Stopped     Stop
	Interrupted bool          // by the context; the checkpoint, if any, continues from here
	Elapsed     time.Duration // wall time, earlier parts of a resumed run included
	Exposed     time.Duration // Σ Step.Exposed since the run was resumed
}

// Trained reports whether the slab holds weights that are worth keeping as a
// model: always after a run that ended, and after an interrupted one if it has
// taken a step.
func (r *Result) Trained() bool { return !r.Interrupted || r.Steps > 0 }

// DivergedError stops a run whose loss or gradient norm is not finite. The
// weights on disk are those of the last checkpoint before it.
type DivergedError struct {
	Step     int // counted from 1
	LR       float32
	Loss     float64
	GradNorm float32
	Param    string // the first parameter that is not finite; "" if all are
	Gradient string // the first parameter whose gradient is not finite; "" if all are
}

func (e *DivergedError) Error() string {
	where := "all parameters are finite"
	switch {
	case e.Param != "":
		where = "first parameter that is not finite: " + e.Param
	case e.Gradient != "":
		where += ", first gradient that is not: " + e.Gradient
	}
	return fmt.Sprintf("training diverged at step %d: loss %v, learning rate %v, gradient norm %v, %s; lower the learning rate, clip the gradient or look for extreme values in the data",
		e.Step, float32(e.Loss), e.LR, e.GradNorm, where)
}

// MostSkipped is the number of skipped steps in a row that ends a run.
const MostSkipped = 50

// OverflowError stops a run in [tensor.Float16] whose gradients overflowed in
// [MostSkipped] steps in a row, although each lowered the scale of the loss. The
// weights before them, and the last checkpoint, are sound.
type OverflowError struct {
	Step     int     // counted from 1
	Scale    float32 // of the loss in that step
	Gradient string  // the first parameter whose gradient was not finite; "" if only the norm of all was
}

func (e *OverflowError) Error() string {
	return fmt.Sprintf("training stopped at step %d: the gradient of %s was not finite, the last of %d steps in a row, although the scale of the loss fell to %g; the weights of before are kept; begin anew in bf16, keep layers in float32 (precision_keep), lower the learning rate or look for extreme values in the data",
		e.Step, cmp.Or(e.Gradient, "all parameters"), MostSkipped, e.Scale)
}

// UnknownParameterError is returned for a name of Options.Keep32 with which no
// parameter begins.
type UnknownParameterError struct {
	Name   string
	Params []string // the names of all parameters
}

func (e *UnknownParameterError) Error() string {
	return fmt.Sprintf("precision_keep: want names of parameters or their beginnings, got %q; there are %s", e.Name, strings.Join(e.Params, ", "))
}

// check fills in defaults and returns an error for options that contradict each
// other.
func (o *Options) check(samples int, lists, validates bool, metric string, opt, slab *tensor.Slab) error {
	if o.Accumulate == 0 {
		o.Accumulate = 1
	}
	if o.ValidateEvery == 0 {
		o.ValidateEvery = 1
	}
	if o.write == nil {
		o.write = model.WriteTensors
	}
	for _, c := range []struct {
		bad bool
		msg string
	}{
		{opt != slab, "the optimizer is of another slab"},
		{samples <= 0, "there are no training samples"},
		{lists && o.Batch != 0, "Batch must be 0 where the job lists its batches"},
		{!lists && o.Batch <= 0, fmt.Sprintf("Batch must be positive, got %d", o.Batch)},
		{o.Accumulate < 0, fmt.Sprintf("Accumulate must be positive, got %d", o.Accumulate)},
		{o.Epochs < 0 || o.Steps < 0 || o.MaxTime < 0, "Epochs, Steps and MaxTime cannot be negative"},
		{o.Epochs == 0 && o.Steps == 0 && o.MaxTime == 0, "one of Epochs, Steps and MaxTime must end the run"},
		{(o.Schedule == nil) == (o.Plateau == nil), "exactly one of Schedule and Plateau must be set"},
		{o.TimedSchedule != 0 && (o.TimedSchedule < 0 || o.MaxTime == 0 || o.Schedule == nil), "TimedSchedule needs a positive length, MaxTime and Schedule"},
		{!(o.Clip >= 0) || !(o.ClipValue >= 0), "Clip and ClipValue cannot be negative"},
		{!(o.EMA >= 0 && o.EMA < 1), fmt.Sprintf("EMA must be in [0,1), got %v", o.EMA)},
		{o.ValidateEvery < 0 || o.CheckpointEvery < 0 || o.Patience < 0, "ValidateEvery, CheckpointEvery and Patience cannot be negative"},
		{!(o.MinDelta >= 0), fmt.Sprintf("MinDelta cannot be negative, got %v", o.MinDelta)},
		{metric != "" && !validates, "Metric needs Validate"},
		{metric == "" && (o.Patience > 0 || o.Plateau != nil), "Patience and Plateau need Metric"},
		{o.Plateau != nil && o.Plateau.Maximizes() != strings.HasPrefix(metric, "-"), "Plateau and Metric disagree on whether larger is better"},
		{o.Dir == "" && (o.Resume || o.TensorBoard), "Resume and TensorBoard need Dir"},
	} {
		if c.bad {
			return errors.New("train: " + c.msg)
		}
	}
	if err := CheckRanks(o.world().Size(), o.Accumulate); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}
