// Package speech is what tasks on speech share: manifests of utterances, the
// features of their sounds, and the training of a network on these.
//
// A manifest becomes [Data], as a [Setup] says. A [Frontend] turns sound into the
// steps of a [Network], whole or piece by piece; a [Dataset] gives batches of
// them, and [Job.Fit] trains.
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

// Setup is the settings that the tasks have in common; their Config embeds it. A zero
// where the help says so is settled by the data when training begins.
type Setup struct {
	Audio       string  `json:"audio" group:"Data" help:"column of the sound files (WAV or FLAC), or of their features (.npy or Sphinx .mfc); paths count from the manifest"`
	SplitColumn string  `json:"split_column" was:"part" group:"Data" help:"column that says train, validation or test (empty: all rows but the held-out share are for training)"`
	Speaker     string  `json:"speaker" group:"Data" help:"column of the speaker: training and validation then have none in common"`
	Holdout     float64 `json:"holdout" was:"validation" range:"0..0.9" group:"Data" help:"share of the utterances, or of the speakers, to validate on where split_column says nothing"`

	Features     string  `json:"features" oneof:"logmel,mfcc" group:"Features" help:"features of a frame"`
	Rate         int     `json:"rate" range:"0..1e6" group:"Features" help:"sample rate that sounds are brought to, in Hz (0: that of the first file, 16000 at most)"`
	Frame        float64 `json:"frame" was:"window" range:"1..1000" group:"Features" help:"length of a frame in ms"`
	Hop          float64 `json:"hop" range:"1..1000" group:"Features" help:"ms from one frame to the next"`
	Bands        int     `json:"bands" range:"1..1024" group:"Features" help:"mel bands"`
	Coefficients int     `json:"coefficients" range:"1..1024" group:"Features" help:"coefficients of mfcc, and numbers a frame of .mfc files"`
	Preemphasis  float64 `json:"preemphasis" range:"[0..1)" group:"Features" help:"high-pass x[n]-p·x[n-1] before all else, such as 0.97 (0: none)"`
	Deltas       int     `json:"deltas" range:"0..2" group:"Features" help:"slopes beside the features (1: their slope; 2: and its slope)"`
	Normalize    string  `json:"normalize" oneof:"(utterance, or running where the network reads forward only),utterance,running (the utterance up to now),global (over the training part),none" group:"Features" help:"to mean 0 and deviation 1, by which statistics"`
	Stack        int     `json:"stack" range:"1..32" group:"Features" help:"frames that make one step of the network"`
	StackStride  int     `json:"stack_stride" was:"skip" range:"0..32" group:"Features" help:"frames from one step to the next (0: as many as are stacked)"`

	task.RNNConfig
	Dropout float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout after the recurrent layers"`

	Speed     float64 `json:"speed" range:"0..0.5" group:"Augmentation" help:"play training sounds slower or faster by up to this share; of files of features the tempo alone changes"`
	Gain      float64 `json:"gain" range:"0..60" group:"Augmentation" help:"change their loudness by up to this many dB"`
	Noise     float64 `json:"noise" range:"0..100" group:"Augmentation" help:"add white noise to half of them, at this signal-to-noise ratio in dB or better (0: none)"`
	TimeMasks int     `json:"time_masks" range:"0..100" group:"Augmentation" help:"stretches of time to mask (SpecAugment)"`
	TimeMask  float64 `json:"time_mask" range:"0..1" group:"Augmentation" help:"longest mask in time, as a share of the utterance"`
	BandMasks int     `json:"band_masks" range:"0..100" group:"Augmentation" help:"stretches of bands to mask (SpecAugment)"`
	BandMask  float64 `json:"band_mask" range:"0..1" group:"Augmentation" help:"widest mask of bands, as a share of them"`

	Batch       int     `json:"batch" range:"1..1e5" group:"Training" help:"utterances a step, at most"`
	BatchTime   float64 `json:"batch_time" range:"1..1e6" group:"Training" help:"seconds of sound a step, padding included, at most"`
	WarmupShare float64 `json:"warmup_share" was:"warmup" range:"0..1" group:"Training" help:"share of the steps in which the learning rate rises"`
	train.Settings
}

// DefaultSetup is the settings to begin with.
func DefaultSetup() Setup {
	s := Setup{
		Audio: "audio", Holdout: 0.1,
		Features: "logmel", Frame: 25, Hop: 10, Bands: 80, Coefficients: 13, Stack: 3,
		RNNConfig: task.DefaultRNN(), Dropout: 0.3,
		Speed: 0.1, TimeMasks: 2, TimeMask: 0.05, BandMasks: 2, BandMask: 0.15,
		Batch: 16, BatchTime: 240, WarmupShare: 0.05, Settings: train.DefaultSettings(),
	}
	s.WeightDecay = 1e-4
	return s
}

// Validate reports the first thing wrong with the settings, in one line; it is a
// *data.InputError.
func (c *Setup) Validate() error {
	rnn := c.RNNConfig
	if rnn.Layers == 1 {
		rnn.RNNDropout = 0 // as FillDefaults has it
	}
	if err := cmp.Or(settings.Check(c), rnn.Validate()); err != nil {
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

// specAt is the features of sounds at a sample rate.
func (c *Setup) specAt(rate int) audio.Spec {
	samples := func(ms float64) int { return int(math.Round(ms * float64(rate) / 1000)) }
	s := audio.Spec{Rate: rate, Window: samples(c.Frame), Hop: samples(c.Hop), Bands: c.Bands, Preemphasis: c.Preemphasis}
	if c.Features == "mfcc" {
		s.MFCC = c.Coefficients
	}
	return s
}

// skip is the frames from one step of the network to the next.
func (c *Setup) skip() int {
	if c.StackStride == 0 {
		return c.Stack
	}
	return c.StackStride
}

// StepSeconds is the time from one step of the network to the next.
func (c *Setup) StepSeconds() float64 { return c.Hop / 1000 * float64(c.skip()) }

// FillDefaults fills in the settings whose default depends on others.
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
		c.RNNDropout = 0 // the default is more, which is no mistake of someone who asks for one layer
	}
}

// Spec is the features of a sound that is at the settings' Rate.
func (c *Setup) Spec() audio.Spec { return c.specAt(c.Rate) }

// Lag is how many seconds of sound after a moment the network waits for before
// it computes that moment: what features, slopes and stacking look ahead.
func (c *Setup) Lag() float64 {
	spec := c.Spec()
	return spec.Lag() + c.Hop/1000*float64(deltaReach*c.Deltas+c.Stack-1)
}

// ForPart prepares the settings for reading a manifest of which one part is
// scored: all of it needs no column of parts, nor of speakers. A test part that
// the settings do not know is a *data.InputError.
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
