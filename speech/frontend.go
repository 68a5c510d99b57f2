package speech

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
)

// Frontend turns files and sounds into the input steps of a network. Its exported
// fields are saved with the model.
type Frontend struct {
	Width      int         `json:"width"` // features per frame, without deltas
	Statistics *Statistics `json:"statistics,omitempty"`

	setup *Setup
}

// With returns the frontend with the settings of its model.
func (f *Frontend) With(c *Setup) *Frontend { return &Frontend{f.Width, f.Statistics, c} }

// Inputs returns the size of one input step.
func (f *Frontend) Inputs() int { return f.Width * (f.setup.Deltas + 1) * f.setup.Stack }

// Seconds returns the length of a number of frames in seconds.
func (f *Frontend) Seconds(frames int) float64 { return float64(frames) * f.setup.Hop / 1000 }

// Check returns an error if the fields do not fit the settings, as in a damaged
// config.json.
func (f *Frontend) Check() error {
	if f.Width < 1 || f.Width > 1<<16 {
		return fmt.Errorf("width: want 1 to %d, got %d", 1<<16, f.Width)
	}
	n := f.Width * (f.setup.Deltas + 1)
	if kind := f.setup.Normalize; kind == "running" || kind == "global" {
		s := f.Statistics
		if s == nil || len(s.Mean) != n || len(s.Deviation) != n {
			return fmt.Errorf("statistics: want those of %d features", n)
		}
		for i, d := range s.Deviation {
			if mean := s.Mean[i]; !(d > 0 && d < math.MaxFloat32 && math.Abs(mean) < math.MaxFloat32) {
				return fmt.Errorf("statistics: feature %d has mean %v and deviation %v", i+1, mean, d)
			}
		}
	}
	return nil
}

// TakesSound returns a *data.InputError if the model was trained on feature files
// and cannot use sound.
func (f *Frontend) TakesSound() error {
	spec := f.setup.Spec()
	if f.setup.Rate == 0 || spec.Width() != f.Width {
		return data.Errorf("the model was trained on feature files, not on sound; give .npy or .mfc files")
	}
	return nil
}

// Frames returns the features of a file [frames,Width]. A file that cannot be
// used is a *data.InputError.
func (f *Frontend) Frames(path string) ([]float32, error) {
	return (*features)(nil).of(f.setup, path, f.Width)
}

// Extract computes the features of a sound [frames,Width]. The errors are those
// of [Frontend.TakesSound].
func (f *Frontend) Extract(s *audio.Sound) ([]float32, error) {
	if err := f.TakesSound(); err != nil {
		return nil, err
	}
	return audio.Extract(s, f.setup.Spec()), nil
}

// Steps returns all input steps of an utterance [steps,Inputs] for its frames
// [frames,Width].
func (f *Frontend) Steps(frames []float32) []float32 { return f.Pipeline().run(nil, frames, true) }

// Pipeline returns a pipeline for frames that arrive in pieces.
func (f *Frontend) Pipeline() *Pipeline {
	c, all := f.setup, f.Width*(f.setup.Deltas+1)
	return &Pipeline{
		deltas: deltas{width: f.Width, order: c.Deltas},
		norm:   normalizer{kind: c.Normalize, width: all, prior: f.Statistics},
		stack:  stacker{width: all, size: c.Stack, skip: c.skip()},
	}
}

// Dataset reads utterances for evaluation or prediction. d, which may be nil,
// keeps their features. Files that cannot be used are one *data.InputError that
// names them; a cancelled ctx returns its error.
func (f *Frontend) Dataset(ctx context.Context, list []Utterance, d *Data) (*Dataset, error) {
	s := f.dataset(list, d)
	faults, err := s.open(ctx)
	return s, cmp.Or(err, gather(faults))
}

func (f *Frontend) dataset(list []Utterance, d *Data) *Dataset {
	s := &Dataset{Frontend: f, List: slices.Clone(list)}
	if d != nil {
		s.store = d.features
	}
	return s
}
