package find

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/train"
)

// RateOptions are the settings of a range test.
type RateOptions struct {
	From, To float64         // the first and the last learning rate, 0 < From < To
	Steps    int             // optimizer steps from one to the other, LeastSteps or more
	Progress *train.Progress // nil: quiet
}

// LeastSteps is the least number of steps of a range test: one in each window of its
// smoothing.
const LeastSteps = windows

// Rate is the result of a learning-rate range test.
type Rate struct {
	// Suggestion is a tenth of the rate at which the smoothed loss was least; null
	// where the loss never fell.
	Suggestion *float64 `json:"suggestion"`
	Steepest   *float64 `json:"steepest"`   // the rate at which the smoothed loss fell fastest, by the logarithm of the rate; null where it never fell
	Least      *float64 `json:"least"`      // the rate at which the smoothed loss was least; null where it never fell
	Start      float64  `json:"start_loss"` // mean loss of the first steps, a twentieth of the test
	LeastLoss  float64  `json:"least_loss"` // the least smoothed loss
	Stopped    Ended    `json:"stopped"`    // why the test ended: steps (all done), rose (the smoothed loss rose above four times its least) or diverged (loss or gradient were not finite)
	Points     []Point  `json:"points"`     // of each step
	Notes      []string `json:"notes"`      // what to know about the suggestion, a sentence each
}

// Point is a step of a range test.
type Point struct {
	LR       float64 `json:"lr"`       // learning rate of the step
	Loss     float64 `json:"loss"`     // of its batch, before the step
	Smoothed float64 `json:"smoothed"` // the exponential average of the losses until then, corrected for its start
}

// Ended is the reason why a range test ended.
type Ended string

// The reasons of a test's end.
const (
	EndedSteps    Ended = "steps"
	EndedRose     Ended = "rose"
	EndedDiverged Ended = "diverged"
)

const (
	windows    = 20 // the smoothing spans about one of so many parts of the test
	riseFactor = 4  // the test ends when the loss is above its least times this
)

// FindRate trains with a learning rate that rises geometrically from one step to the
// next, and suggests one for a whole training (Smith, arXiv:1506.01186, section 3.3;
// the smoothing and the end above four times the least loss are those of fastai's
// learner). The losses are smoothed by an exponential average with the weight
// 1 - 20/Steps of what came before, so it spans a twentieth of the test whatever its
// length. Errors are those of fit; the test ends without one where the training
// diverges.
func FindRate(ctx context.Context, fit Fit, o *RateOptions) (*Rate, error) {
	s := &smoothing{beta: max(0, 1-windows/float64(o.Steps)), window: max(1, o.Steps/windows)}
	r := &Rate{Stopped: EndedSteps, Notes: []string{}, Points: []Point{}}
	run := training(o.Progress, func(t *train.Options) {
		t.Steps, t.EMA, t.Plateau, t.Warmup = o.Steps, 0, nil, 0
		t.Schedule = func(step int) float32 {
			return float32(o.From * math.Pow(o.To/o.From, float64(step)/float64(o.Steps-1)))
		}
	}, func(step train.Step) error {
		if step.Loss-step.Loss != 0 {
			r.Stopped = EndedDiverged
			return errDone
		}
		r.Points = append(r.Points, Point{float64(step.LR), step.Loss, s.add(step.Loss)})
		if s.rose() {
			r.Stopped = EndedRose
			return errDone
		}
		if step.Step == o.Steps {
			return errDone
		}
		return nil
	})
	err := fit(ctx, run)
	var diverged *train.DivergedError
	var overflow *train.OverflowError
	if errors.As(err, &diverged) || errors.As(err, &overflow) {
		r.Stopped, err = EndedDiverged, errDone
	}
	if err := ended(err); err != nil {
		return nil, err
	}
	r.suggest(s)
	return r, nil
}

// smoothing is the exponential average of a loss, and its least value.
type smoothing struct {
	beta   float64 // weight of what came before
	window int     // steps that it spans

	losses, means []float64
	sum, weight   float64
	least         int // step of the least mean
}

// add adds a loss and returns the average, in which the weights of all losses add up to 1.
func (s *smoothing) add(loss float64) float64 {
	s.sum, s.weight = s.beta*s.sum+(1-s.beta)*loss, s.beta*s.weight+(1-s.beta)
	s.losses, s.means = append(s.losses, loss), append(s.means, s.sum/s.weight)
	last := len(s.means) - 1
	if s.means[last] < s.means[s.least] {
		s.least = last
	}
	return s.means[last]
}

// start is the mean loss of the first window, in which the rate is too small to matter.
func (s *smoothing) start() float64 {
	sum, n := 0., min(s.window, len(s.losses))
	for _, l := range s.losses[:n] {
		sum += l
	}
	return sum / float64(n)
}

// rose reports whether the average is above four times its least. A loss that is a
// logarithm of densities may be negative: then it has risen by three times what it fell.
func (s *smoothing) rose() bool {
	last := len(s.means) - 1
	if last < s.window {
		return false
	}
	least := s.means[s.least]
	size := least
	if least <= 0 {
		size = max(-least, s.start()-least)
	}
	return s.means[last] > least+(riseFactor-1)*size
}

// fell reports whether the average fell below the start by more than chance: by three
// standard errors of the difference, from the variance of the losses about their course,
// which is half of that of the differences of neighbours. Less than a hundred-thousandth
// is rounding.
func (s *smoothing) fell() bool {
	if s.least < 2 {
		return false
	}
	sum := 0.
	for i := range s.least {
		d := s.losses[i+1] - s.losses[i]
		sum += d * d
	}
	variance := sum / float64(2*s.least)
	chance := math.Sqrt(variance * (1/float64(min(s.window, len(s.losses))) + (1-s.beta)/(1+s.beta)))
	return s.start()-s.means[s.least] > max(3*chance, 1e-5*math.Abs(s.start()))
}

// steepest returns the step about which the average fell fastest, before its least.
func (s *smoothing) steepest() int {
	best, at := 0., s.least
	for i := range s.least {
		lo, hi := max(0, i-s.window), min(len(s.means)-1, i+s.window)
		if slope := (s.means[hi] - s.means[lo]) / float64(hi-lo); slope < best {
			best, at = slope, i
		}
	}
	return at
}

// suggest chooses the rates.
func (r *Rate) suggest(s *smoothing) {
	if len(r.Points) == 0 {
		r.Start, r.LeastLoss = math.NaN(), math.NaN()
		r.note("the first loss was not finite: look for extreme values in the data")
		return
	}
	r.Start, r.LeastLoss = s.start(), s.means[s.least]
	first, last := r.Points[0].LR, r.Points[len(r.Points)-1].LR
	if !s.fell() {
		if r.Stopped == EndedSteps {
			r.note("the loss never fell below its start by more than chance: take more steps, larger batches or a higher last rate, or look at the data")
		} else {
			r.note("the loss rose without having fallen by more than chance: take more steps, larger batches or a smaller first rate, or look at the data")
		}
		return
	}
	least, steepest := r.Points[s.least].LR, r.Points[s.steepest()].LR
	tenth := least / 10
	r.Suggestion, r.Steepest, r.Least = &tenth, &steepest, &least
	if r.Stopped == EndedSteps && s.least >= len(s.means)-s.window {
		r.note("the loss still fell at the last rate, %s, so a better one may be larger: raise it", report.Number(last))
	}
	if tenth < first {
		r.note("the suggestion is below the first rate, %s, so it was not tried: begin at a smaller one", report.Number(first))
	}
}

func (r *Rate) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}
