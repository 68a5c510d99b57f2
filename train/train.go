// Package train runs the loop around a model: batches loaded ahead, gradient
// accumulation, ranks that train together, clipping, learning-rate schedules,
// validation, early stopping, checkpoints that a killed run continues from bit for
// bit, hooks, and what a person watching wants to see.
//
// A [Job] says what is trained, [Options] how, and [Fit] does it.
package train

import (
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

// Job is a model, its batches and its loss. B is the caller's type of batch,
// buffers that are filled again and again.
type Job[B any] struct {
	Slab      *tensor.Slab
	Optimizer *optim.Optimizer // of that slab
	Samples   int              // number of training samples

	// NewBatch makes an empty batch. Load fills it with the samples of these
	// numbers, which it must not keep. Load runs ahead in a goroutine of its own,
	// beside Loss and Validate; it must depend on nothing but the numbers.
	NewBatch func() *B
	Load     func(b *B, samples []int)

	// Batches lists the samples of each batch of an epoch, counted from 0, in the
	// order of training, such as [Buckets.Batches]. It depends on nothing but the
	// epoch, and every epoch has the same number of batches. nil: all samples in an
	// order drawn from the seed, Options.Batch at a time.
	Batches func(epoch int) [][]int

	// Carry is what passes from batch to batch beside the weights, such as the
	// recurrent state of truncated backpropagation (an nn.Carry): checkpoints keep
	// it, and ranks cannot share it. nil: nothing does.
	Carry Carry

	// Loss records the mean loss of a batch, of shape [1]. The tape is in Train
	// mode and reset; its dropout masks depend on Options.Seed and the number of the batch.
	Loss func(tape *tensor.Tape, b *B) *tensor.Tensor

	// Weight is the number of items that Loss is the mean of, such as unpadded
	// tokens; nil: the number of samples. Accumulated batches count by it, so
	// that they equal one large batch, and so does the mean over an epoch.
	Weight func(b *B) float64

	// Validate scores the model; nil: no validation. It resets the tape, which is
	// in Infer mode, before each batch of its own.
	Validate func(ctx context.Context, tape *tensor.Tape) (map[string]float64, error)

	// Metric is the entry of Validate's result that decides which weights are
	// best: the smallest value, or with a "-" before the name the largest. ""
	// compares nothing: the last weights stay.
	Metric string
}

// Carry is state of a job that a checkpoint must hold.
type Carry interface {
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// Run says where a run writes and how it shows itself. The zero Run trains in
// memory and in silence.
type Run struct {
	// Dir receives checkpoints/last.safetensors, checkpoints/best.safetensors and
	// metrics.jsonl, and of a task's training the model; "" writes nothing. A run
	// that does not resume replaces what an older one left there.
	Dir string
	// Resume continues from Dir's last checkpoint. Weights, moments, data order,
	// dropout, schedule and early stopping go on as if nothing had happened.
	// Settings that change the arithmetic must be the same; the limits may be raised.
	Resume      bool
	Progress    *Progress // nil: quiet
	TensorBoard bool      // write event files to Dir/tensorboard

	// World is the processes that train together; nil: this one alone. Every rank
	// calls Fit with the same job and options. Rank 0 writes and shows progress;
	// to resume, every rank reads Dir.
	World World

	// Device is where a task makes its network, and so where it trains; nil: the
	// CPU. [Fit] goes by the parameters of its job.
	Device *tensor.Device
	Hooks
}

// Hooks are functions that a run calls. Each may be nil. In a world of several
// ranks every rank calls its own.
type Hooks struct {
	// OnEpoch is called after each epoch, when it has been recorded. Return ErrStop
	// to stop training early without an error; another error ends the run with it.
	OnEpoch func(r Record) error

	// OnValidate is called after each validation, whose values are r.Val, before
	// its epoch is recorded: to show it, or to give up a run that promises nothing.
	// Return ErrStop to stop training early without an error, once the epoch has
	// been recorded; another error ends the run with it.
	OnValidate func(r Record) error

	// OnGradients is called in each step between the backward pass and clipping.
	// The slab's gradients are those of the whole step, of all its batches and
	// ranks, and may be changed.
	OnGradients func(s *tensor.Slab)

	// OnReady is called in each step once for every parameter, as soon as its
	// gradient is complete, while the backward pass goes on: [lo,hi) is its place
	// in the slab's gradients, which then hold the sum of all batches of this rank.
	// Parameters come as in [tensor.Tape.OnReady].
	OnReady func(lo, hi int)
}

// AfterEpoch adds f to what is called after each epoch: for a task that watches
// its own training. Either may stop it.
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

// Options says how a Job is trained. At least one of Epochs, Steps and MaxTime
// ends the run; with several, the first to be reached.
type Options struct {
	Epochs  int           // passes over the samples; 0: no limit
	Steps   int           // optimizer steps; 0: no limit
	MaxTime time.Duration // wall time, earlier parts of a resumed run included; 0: no limit

	Batch      int // samples in a batch; the last of an epoch may be smaller; 0 with Job.Batches
	Accumulate int // batches to a step, of each rank; 0 means 1

	// Schedule or Plateau gives the learning rate: exactly one is set. A Plateau
	// observes the metric after each validation.
	Schedule optim.Schedule
	Plateau  *optim.Plateau

	// TimedSchedule, above 0, reads the schedule by the clock: at step
	// TimedSchedule·elapsed/MaxTime. It fits a run to its time budget, and makes
	// it depend on the machine's speed: such a run cannot be repeated exactly.
	TimedSchedule int

	Clip      float32 // bound on the norm of the gradient; 0: none
	ClipValue float32 // bound on each element of the gradient, applied first; 0: none
	EMA       float64 // decay of the moving average of the weights, such as 0.999, which is then validated and kept; 0: none

	ValidateEvery int     // epochs between validations; 0 means 1; the last epoch is always validated
	Patience      int     // stop after so many validations without improvement; 0: never
	MinDelta      float64 // what the metric must improve by to count

	Seed uint64 // of the data order and dropout

	Run
	// CheckpointEvery is the number of steps between checkpoints. 0 goes by the
	// clock: at the end of an epoch, but not within two seconds of the last one,
	// and in long epochs every five minutes. One is always written at the end.
	CheckpointEvery int
	// Fingerprint names the data and the model's settings. A checkpoint with
	// another one is refused.
	Fingerprint string

	write func(path string, ts []model.Tensor, meta map[string]string) error // model.WriteTensors
}

// ErrStop ends a run as a limit does, without an error, when a hook returns it.
var ErrStop = errors.New("train: stop")

// TotalSteps is the number of optimizer steps of a run over so many samples (with
// Job.Batches: so many batches an epoch), as far as Epochs and Steps tell; 0: they
// do not. Schedules are made to this length.
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

// Stop says why a run ended.
type Stop string

const (
	StopEpochs      Stop = "epochs"      // all epochs done
	StopSteps       Stop = "steps"       // all steps done
	StopTime        Stop = "time"        // MaxTime is over
	StopPatience    Stop = "patience"    // no improvement for Patience validations
	StopAsked       Stop = "asked"       // a hook returned ErrStop
	StopInterrupted Stop = "interrupted" // the context was cancelled
)

// Result is what came of a run. The slab then holds the best weights, where
// there was a metric to tell; else the average, if there is one; else the last.
type Result struct {
	History     []Record // by epoch, those before a resume included
	Best        *Record  // the best epoch; nil without Metric
	Epochs      int      // epochs done, the last perhaps in part
	Steps       int      // optimizer steps done
	ResumedAt   int      // the step this run was resumed at; 0 for a fresh one
	Stopped     Stop
	Interrupted bool          // by the context; the checkpoint, if any, continues from here
	Elapsed     time.Duration // wall time, earlier parts of a resumed run included
}

// DivergedError stops a run whose loss or gradient norm is not a finite number.
// The weights on disk are those of the last checkpoint before it.
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

// check fills in defaults and reports settings that cannot be.
func (o *Options) check(samples int, lists, carries, validates bool, metric string, opt, slab *tensor.Slab) error {
	if o.Accumulate == 0 {
		o.Accumulate = 1
	}
	if o.ValidateEvery == 0 {
		o.ValidateEvery = 1
	}
	if o.write == nil {
		o.write = model.WriteTensors
	}
	ranks := o.world().Size()
	for _, c := range []struct {
		bad bool
		msg string
	}{
		{opt != slab, "the optimizer is of another slab"},
		{samples <= 0, "there are no training samples"},
		{lists && o.Batch != 0, "Batch must be 0 where the job lists its batches"},
		{!lists && o.Batch <= 0, fmt.Sprintf("Batch must be positive, got %d", o.Batch)},
		{o.Accumulate < 0, fmt.Sprintf("Accumulate must be positive, got %d", o.Accumulate)},
		{ranks > 1 && carries, "a job that carries state from batch to batch cannot be shared out to ranks: its batches follow one another; train it in one process"},
		{ranks > 1 && o.Accumulate&(o.Accumulate-1) != 0, fmt.Sprintf("Accumulate must be a power of two with several ranks, got %d", o.Accumulate)},
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
	return nil
}
