package find

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/train"
)

// BatchOptions are the settings of a search for a batch size.
type BatchOptions struct {
	Setting string            // name of the setting that is tried
	Memory  int64             // bytes that the process may hold; 0: no limit
	Tried   func(b BatchSize) // called after each size; nil: nothing
}

// BatchSize is a batch size that was tried.
type BatchSize struct {
	Size    int     `json:"size"`               // value of the setting
	Samples float64 `json:"samples"`            // training samples of a step, the mean over an epoch
	Steps   int     `json:"steps"`              // optimizer steps that were timed
	Seconds float64 `json:"step_seconds"`       // wall time of a step, the median
	Rate    float64 `json:"samples_per_second"` // training samples per second of the median step
	Tape    int64   `json:"tape_bytes"`         // memory of the training pass, which grows with the batch
	Memory  int64   `json:"memory_bytes"`       // most memory that the process held in these steps, data included

	perEpoch int // steps of an epoch
}

// Batches is the result of a search for a batch size.
type Batches struct {
	Setting    string      `json:"setting"`    // the setting that was tried: batch, batch_tokens or, where a task has neither, accumulate
	Suggestion int         `json:"suggestion"` // value of the setting: the smallest within 10 % of the most samples per second
	Sizes      []BatchSize `json:"sizes"`      // those timed, from the smallest; one whose steps are no larger than those of the size before, as where tokens are fewer than a sentence has, is left out
	Noise      []Noise     `json:"noise"`      // noise of the gradient, before and after some steps of training; empty if an epoch has too few steps
	Notes      []string    `json:"notes"`      // why no larger size was tried, and other remarks, a sentence each
}

// What a size is timed with. The medians of few steps of unequal batches would differ by
// chance, so quick steps are timed for some time, slow ones a few times.
const (
	warmUp     = 2 // steps that are not timed
	fewest     = 5
	most       = 100
	timedFor   = time.Second
	longEnough = 20 * time.Second // for the fewest steps
	leastTimed = 2
)

const (
	within = 0.9  // of the best rate
	gain   = 1.02 // a rate is better than the best from this factor on
	larger = 1.05 // a step is larger than that of another size from this factor on
	sames  = 3    // doublings without a gain, or without larger steps, that end the search
)

// FindBatch trains for some steps with each of the sizes 1, 2, 4 and so on, up to the
// size whose step has all samples, or the memory that is allowed, or three sizes in a
// row that gain less than 2 % of the best samples per second, or whose steps no longer
// grow, because another setting bounds them. fit trains with a size. What a step is timed
// by is what a training takes: the wait for the batch, both passes and the optimizer.
//
// Errors are those of fit; one of the settings or data at a size after the first,
// which is a *data.InputError, ends the search. A size of 1 that takes too much memory
// is a *data.InputError.
func FindBatch(ctx context.Context, fit func(ctx context.Context, size int, run *train.Run) error, o *BatchOptions) (*Batches, error) {
	r := &Batches{Setting: o.Setting, Noise: []Noise{}, Notes: []string{}}
	best, without, equal := 0., 0, 0
	for size := 1; ; size *= 2 {
		if held := r.expected(); o.Memory > 0 && held > o.Memory {
			r.note("size %d would take about %s of memory, more than %s, and was not tried", size, mebibytes(held), mebibytes(o.Memory))
			break
		}
		least := 0. // samples of a step that is worth timing
		if n := len(r.Sizes); n > 0 {
			least = larger * r.Sizes[n-1].Samples
		}
		b, err := measure(ctx, fit, size, least)
		var input *data.InputError
		if errors.As(err, &input) && len(r.Sizes) > 0 {
			r.note("size %d cannot be trained with: %v", size, err)
			break
		}
		if err != nil {
			return nil, err
		}
		if b.Samples < least {
			if equal++; equal >= sames && len(r.Sizes) > 1 {
				r.note("larger sizes were not tried: the last %d doublings did not make larger steps, which another setting bounds", sames)
				break
			}
			continue
		}
		equal = 0
		if o.Tried != nil {
			o.Tried(*b)
		}
		if o.Memory > 0 && b.Memory > o.Memory {
			if len(r.Sizes) == 0 {
				return nil, &data.InputError{Problem: fmt.Sprintf("memory: a batch of 1 takes %s already, more than %s", mebibytes(b.Memory), mebibytes(o.Memory)), Fix: "allow more, or give less data or a smaller network"}
			}
			r.note("size %d took %s of memory, more than %s", size, mebibytes(b.Memory), mebibytes(o.Memory))
			break
		}
		r.Sizes = append(r.Sizes, *b)
		if without++; b.Rate > best*gain {
			without = 0
		}
		best = max(best, b.Rate)
		if b.perEpoch == 1 {
			r.note("a step of size %d has all samples of an epoch", size)
			break
		}
		if without >= sames {
			r.note("larger sizes were not tried: the last %d gained nothing", sames)
			break
		}
	}
	for _, b := range r.Sizes {
		if b.Rate >= within*best {
			r.Suggestion = b.Size
			break
		}
	}
	return r, nil
}

// expected is the memory of the next size: a pass grows with its batch, so the step from
// one size to the next doubles.
func (r *Batches) expected() int64 {
	n := len(r.Sizes)
	if n < 2 {
		return 0
	}
	last, before := r.Sizes[n-1], r.Sizes[n-2]
	return last.Memory + 2*max(last.Tape-before.Tape, 0)
}

func (r *Batches) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// measure times the steps of one size, unless they have fewer samples than least.
func measure(ctx context.Context, fit func(ctx context.Context, size int, run *train.Run) error, size int, least float64) (*BatchSize, error) {
	b := &BatchSize{Size: size}
	var times []float64
	var total time.Duration
	var begun time.Time
	err := fit(ctx, size, training(nil, func(*train.Options) {}, func(s train.Step) error {
		now := time.Now()
		b.Samples, b.perEpoch, b.Tape = s.Samples, s.PerEpoch, max(b.Tape, s.TapeBytes)
		if b.Samples < least {
			return errDone
		}
		if s.Step > warmUp {
			took := now.Sub(begun)
			times, total = append(times, took.Seconds()), total+took
		}
		if s.Step == warmUp { // what was needed before training is not counted
			debug.FreeOSMemory()
		}
		if s.Step >= warmUp {
			b.Memory = max(b.Memory, held())
		}
		n := len(times)
		if n >= fewest && total >= timedFor || n >= most || n >= leastTimed && total >= longEnough {
			return errDone
		}
		begun = time.Now()
		return nil
	}))
	if err := ended(err); err != nil {
		return nil, err
	}
	if len(times) == 0 {
		return b, nil
	}
	b.Steps, b.Seconds = len(times), median(times)
	b.Rate = b.Samples / b.Seconds
	return b, nil
}

// held is the memory that the process has of the system.
func held() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}

// median sorts values and returns the middle one, or the mean of the two.
func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func mebibytes(n int64) string { return report.Count(int(math.Round(float64(n)/(1<<20)))) + " MiB" }

// ForNoise is the size to measure the noise of the gradient with: the largest of those
// tried up to the suggestion of which an epoch has steps enough, or else the smallest.
func (r *Batches) ForNoise() int {
	size := r.Sizes[0].Size
	for _, b := range r.Sizes {
		if b.Size <= r.Suggestion && b.perEpoch > noiseBatches {
			size = b.Size
		}
	}
	return size
}
