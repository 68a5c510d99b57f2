// Package speech has what tasks on speech share: manifests of utterances, the
// features of their sounds, and the training of a network on these.
//
// [Read] reads a manifest into [Data] with the settings of a [Setup]. A
// [Frontend] turns sound into the input steps of a [Network], whole or in pieces;
// a [Dataset] loads batches of them, and [Job.Fit] trains.
package speech

import (
	"cmp"
	"math"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// Setup is the settings that the tasks have in common; their Config embeds it. A
// zero is replaced when training begins, where the help says so, by a value that
// depends on the data.
type Setup struct {
	Audio       string  `json:"audio" group:"Data" help:"column of the sound files (WAV or FLAC) or feature files (.npy or Sphinx .mfc); paths are relative to the manifest"`
	SplitColumn string  `json:"split_column" was:"part" group:"Data" help:"column with the part of each row: train, validation or test (empty: validation is drawn, see holdout, and the rest is for training)"`
	Speaker     string  `json:"speaker" group:"Data" help:"column of the speakers; if given, no speaker is in both training and validation"`
	Holdout     float64 `json:"holdout" was:"validation" range:"0..0.9" group:"Data" help:"share of the training utterances drawn for validation if there is no validation file and no split_column"`

	Features     string  `json:"features" oneof:"logmel,mfcc" group:"Features" help:"kind of features"`
	Rate         int     `json:"rate" range:"0..1e6" group:"Features" help:"sample rate in Hz to which sounds are resampled (0: that of the first file, at most 16000)"`
	Frame        float64 `json:"frame" was:"window" range:"1..1000" group:"Features" help:"length of a frame in ms"`
	Hop          float64 `json:"hop" range:"1..1000" group:"Features" help:"distance between frames in ms"`
	Bands        int     `json:"bands" range:"1..1024" group:"Features" help:"number of mel bands"`
	Coefficients int     `json:"coefficients" range:"1..1024" group:"Features" help:"number of mfcc coefficients; also the features per frame in .mfc files"`
	Preemphasis  float64 `json:"preemphasis" range:"[0..1)" group:"Features" help:"p of the high-pass filter x[n]-p·x[n-1], such as 0.97 (0: none)"`
	Deltas       int     `json:"deltas" range:"0..2" group:"Features" help:"time derivatives added to the features (1: first; 2: first and second)"`
	Normalize    string  `json:"normalize" oneof:"(utterance, or running if the network is not bidirectional),utterance,running (the utterance up to each frame),global (the training part),none" group:"Features" help:"statistics with which features are normalised to mean 0 and standard deviation 1"`
	Stack        int     `json:"stack" range:"1..32" group:"Features" help:"frames joined into one step of the network"`
	StackStride  int     `json:"stack_stride" was:"skip" range:"0..32" group:"Features" help:"distance between steps in frames (0: the value of stack)"`

	task.RNNConfig
	Dropout float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the outputs of the recurrent layers"`

	Speed     float64 `json:"speed" range:"0..0.5" group:"Augmentation" help:"largest relative change of the speed of training sounds; for feature files only the tempo changes"`
	Gain      float64 `json:"gain" range:"0..60" group:"Augmentation" help:"largest change of the loudness of training sounds in dB"`
	Noise     float64 `json:"noise" range:"0..100" group:"Augmentation" help:"add white noise to half of the training sounds, with a signal-to-noise ratio of at least this many dB (0: none)"`
	TimeMasks int     `json:"time_masks" range:"0..100" group:"Augmentation" help:"masked intervals of time per utterance (SpecAugment)"`
	TimeMask  float64 `json:"time_mask" range:"0..1" group:"Augmentation" help:"longest masked interval, as a share of the utterance"`
	BandMasks int     `json:"band_masks" range:"0..100" group:"Augmentation" help:"masked ranges of bands per utterance (SpecAugment)"`
	BandMask  float64 `json:"band_mask" range:"0..1" group:"Augmentation" help:"widest masked range, as a share of the bands"`

	Batch     int     `json:"batch" range:"1..1e5" group:"Training" help:"number of utterances per step, unless batch_time allows fewer"`
	BatchTime float64 `json:"batch_time" range:"1..1e6" group:"Training" help:"most seconds of sound per step, with padding"`
	train.Settings
}

// DefaultSetup returns the settings to start from.
func DefaultSetup() Setup {
	s := Setup{
		Audio: "audio", Holdout: 0.1,
		Features: "logmel", Frame: 25, Hop: 10, Bands: 80, Coefficients: 13, Stack: 3,
		RNNConfig: task.DefaultRNN(), Dropout: 0.3,
		Speed: 0.1, TimeMasks: 2, TimeMask: 0.05, BandMasks: 2, BandMask: 0.15,
		Batch: 16, BatchTime: 240, Settings: train.DefaultSettings(),
	}
	s.Warmup, s.WeightDecay = 0.05, 1e-4
	return s
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Setup) Validate() error {
	rnn := c.RNNConfig
	if rnn.Layers == 1 {
		rnn.RNNDropout = 0 // as in FillDefaults
	}
	if err := cmp.Or(settings.Check(c), rnn.Validate(), c.Settings.Validate()); err != nil {
		return data.Setting(err)
	}
	if c.MinLR > c.LR {
		return data.Errorf("min_lr: want at most lr (%v), got %v", c.LR, c.MinLR)
	}
	if c.StackStride > c.Stack {
		return data.Errorf("stack_stride: want at most stack (%d), or frames would be lost; got %d", c.Stack, c.StackStride)
	}
	if c.Hop > c.Frame {
		return data.Errorf("hop: want at most frame (%v ms), or sound between frames would be lost; got %v", c.Frame, c.Hop)
	}
	rate := c.Rate
	if rate == 0 {
		rate = 16000
	}
	spec := c.specAt(rate)
	if err := spec.Check(); err != nil {
		return data.Errorf("%w", err)
	}
	return nil
}

// specAt returns the description of the features at a sample rate.
func (c *Setup) specAt(rate int) audio.Spec {
	samples := func(ms float64) int { return int(math.Round(ms * float64(rate) / 1000)) }
	s := audio.Spec{Rate: rate, Window: samples(c.Frame), Hop: samples(c.Hop), Bands: c.Bands, Preemphasis: c.Preemphasis}
	if c.Features == "mfcc" {
		s.MFCC = c.Coefficients
	}
	return s
}

// skip returns the distance between steps of the network in frames.
func (c *Setup) skip() int {
	if c.StackStride == 0 {
		return c.Stack
	}
	return c.StackStride
}

// StepSeconds returns the distance between steps of the network in seconds.
func (c *Setup) StepSeconds() float64 { return c.Hop / 1000 * float64(c.skip()) }

// FillDefaults sets the settings whose defaults depend on other settings.
func (c *Setup) FillDefaults() {
	if c.Normalize == "" {
		c.Normalize = "utterance"
		if !c.Bidirectional {
			c.Normalize = "running"
		}
	}
	if c.StackStride == 0 {
		c.StackStride = c.Stack
	}
	if c.Layers == 1 {
		c.RNNDropout = 0 // the default is above 0, which one layer would refuse
	}
}

// Spec returns the description of the features at the settings' Rate.
func (c *Setup) Spec() audio.Spec { return c.specAt(c.Rate) }

// Lag returns how many seconds of sound after a moment are needed to compute the
// step of that moment: the look-ahead of features, deltas and stacking.
func (c *Setup) Lag() float64 {
	spec := c.Spec()
	return spec.Lag() + c.Hop/1000*float64(deltaReach*c.Deltas+c.Stack-1)
}

// ForPart changes the settings for reading a manifest of which only the given
// part is scored: for [task.All], as for a model that recognises the parts, no columns
// of parts and speakers are needed.
// [task.Test] without a SplitColumn is a *data.InputError.
func (c *Setup) ForPart(part task.Part) error {
	switch {
	case part == task.All:
		c.SplitColumn, c.Speaker, c.Holdout = "", "", 0
	case c.SplitColumn != "":
		c.Speaker = ""
	case part == task.Test:
		return data.Errorf("the model was trained on a manifest without a column of parts (split_column), so no row is of the part %q", part)
	}
	return nil
}
