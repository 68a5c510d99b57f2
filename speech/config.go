// Package speech trains recurrent networks to recognise speech: from sound
// files to words by log-mel features, an LSTM and connectionist temporal
// classification (Graves et al. 2006).
//
// A [Config] says how; [Train] makes a [Model] of the utterances that
// [ReadManifest] lists; a Model transcribes ([Model.Transcribe]), listens to a
// stream ([Model.NewStream]), is scored ([Model.Evaluate]) and lives in a
// directory ([Model.Save], [Open]). A [Lexicon] and an n-gram [LM] may help it
// choose among words.
package speech

import (
	"cmp"
	"math"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/speech/audio"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a recogniser is made from. Command-line flags,
// recipe files and Go programs fill this one struct; start from [Defaults].
// [Model.Config] tells what the data settled.
type Config struct {
	Setup
	Text       string `json:"text" default:"text" group:"Data" help:"column of what is said"`
	Units      string `json:"units" default:"characters" group:"Data" help:"what the network spells: characters, bpe (pieces of words) or symbols (words or phones with spaces between them)"`
	Vocabulary int    `json:"vocabulary" default:"500" group:"Data" help:"pieces that units bpe learns at most, 256 bytes and 4 special ones included"`
	Alphabet   string `json:"alphabet" group:"Data" help:"file of the units, one a line (empty: those of the training texts)"`
	Case       string `json:"case" default:"keep" group:"Data" help:"letters of the texts: keep, lower or upper"`

	LM      string `json:"lm" group:"Decoding" help:"n-gram language model in ARPA format, kept with the model; its weight is tuned on the validation utterances"`
	LMUnits bool   `json:"lm_units" group:"Decoding" help:"the language model is of units (characters, <space>), not of words"`
	Lexicon string `json:"lexicon" group:"Decoding" help:"file of the words that texts may consist of, the first of each line, kept with the model"`
	Beam    int    `json:"beam" group:"Decoding" help:"beginnings of texts that the search keeps (0: greedy, or 64 with a language model or lexicon)"`
}

// Setup is the settings that all models that listen have in common. A zero
// where the help says so is settled by the data when training begins.
type Setup struct {
	Audio      string  `json:"audio" default:"audio" group:"Data" help:"column of the sound files (WAV or FLAC), or of their features (.npy or Sphinx .mfc); paths count from the manifest"`
	Part       string  `json:"part" group:"Data" help:"column that says train, validation or test (empty: all rows but the validation share are for training)"`
	Speaker    string  `json:"speaker" group:"Data" help:"column of the speaker: training and validation then have none in common"`
	Validation float64 `json:"validation" default:"0.1" group:"Data" help:"share of the utterances, or of the speakers, kept for validation where part says nothing"`

	Features     string  `json:"features" default:"logmel" group:"Features" help:"logmel or mfcc"`
	Rate         int     `json:"rate" group:"Features" help:"sample rate that sounds are brought to, in Hz (0: that of the first file, 16000 at most)"`
	Window       float64 `json:"window" default:"25" group:"Features" help:"length of a frame in ms"`
	Hop          float64 `json:"hop" default:"10" group:"Features" help:"ms from one frame to the next"`
	Bands        int     `json:"bands" default:"80" group:"Features" help:"mel bands"`
	Coefficients int     `json:"coefficients" default:"13" group:"Features" help:"coefficients of mfcc, and numbers a frame of .mfc files"`
	Preemphasis  float64 `json:"preemphasis" group:"Features" help:"high-pass x[n]-p·x[n-1] before all else, such as 0.97 (0: none)"`
	Deltas       int     `json:"deltas" group:"Features" help:"slopes beside the features: 0, 1 (their slope) or 2 (and its slope)"`
	Normalize    string  `json:"normalize" group:"Features" help:"to mean 0 and deviation 1: utterance, running (what was heard so far), global (over the training part) or none (empty: utterance, or running where the network reads forward only)"`
	Stack        int     `json:"stack" default:"3" group:"Features" help:"frames that make one step of the network"`
	Skip         int     `json:"skip" group:"Features" help:"frames from one step to the next (0: as many as are stacked)"`

	nn.RNNConfig
	Dropout float64 `json:"dropout" default:"0.3" group:"Model" help:"dropout after the recurrent layers"`

	Speed     float64 `json:"speed" default:"0.1" group:"Augmentation" help:"play training sounds slower or faster by up to this share; of files of features the tempo alone changes"`
	Gain      float64 `json:"gain" group:"Augmentation" help:"change their loudness by up to so many dB"`
	Noise     float64 `json:"noise" group:"Augmentation" help:"add white noise to half of them, at this signal-to-noise ratio in dB or better (0: none)"`
	TimeMasks int     `json:"time_masks" default:"2" group:"Augmentation" help:"stretches of time to mask (SpecAugment)"`
	TimeMask  float64 `json:"time_mask" default:"0.05" group:"Augmentation" help:"longest mask in time, as a share of the utterance"`
	BandMasks int     `json:"band_masks" default:"2" group:"Augmentation" help:"stretches of bands to mask (SpecAugment)"`
	BandMask  float64 `json:"band_mask" default:"0.15" group:"Augmentation" help:"widest mask of bands, as a share of them"`

	Batch     int     `json:"batch" default:"16" group:"Training" help:"utterances a step, at most"`
	BatchTime float64 `json:"batch_time" default:"240" group:"Training" help:"seconds of sound a step, padding included, at most"`
	Warmup    float64 `json:"warmup" default:"0.05" group:"Training" help:"share of the steps in which the learning rate rises"`
	train.Settings
}

// Defaults is the configuration that a user starts from: three layers of 256
// LSTM units in both directions on log-mel bands.
func Defaults() Config {
	s := defaultSetup()
	s.Layers, s.Hidden, s.Bidirectional, s.RNNDropout = 3, 256, true, 0.3
	return Config{Setup: s, Text: "text", Units: "characters", Vocabulary: 500, Case: "keep"}
}

func defaultSetup() Setup {
	s := Setup{
		Audio: "audio", Validation: 0.1,
		Features: "logmel", Window: 25, Hop: 10, Bands: 80, Coefficients: 13, Stack: 3,
		RNNConfig: nn.DefaultRNN(), Dropout: 0.3,
		Speed: 0.1, TimeMasks: 2, TimeMask: 0.05, BandMasks: 2, BandMask: 0.15,
		Batch: 16, BatchTime: 240, Warmup: 0.05, Settings: train.DefaultSettings(),
	}
	s.WeightDecay = 1e-4
	return s
}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	if err := cmp.Or(
		data.OneOf("units", c.Units, []string{"characters", "bpe", "symbols"}), data.OneOf("case", c.Case, []string{"keep", "lower", "upper"}),
		data.Between("beam", c.Beam, 0, 10_000), data.Between("vocabulary", c.Vocabulary, 300, 100_000),
	); err != nil {
		return err
	}
	if c.LMUnits && c.LM == "" {
		return data.Errorf("lm_units: says what the language model is of; name its file with lm")
	}
	if c.Lexicon != "" && c.Units == "symbols" {
		return data.Errorf("lexicon: words are spelled in characters; it has no use with units symbols")
	}
	if c.Alphabet != "" && c.Units == "bpe" {
		return data.Errorf("alphabet: units bpe are learned from the training texts; leave it out")
	}
	return c.Setup.Validate()
}

// Validate is [Config.Validate] of the settings in common.
func (c *Setup) Validate() error {
	rnn := c.RNNConfig
	if rnn.Layers == 1 {
		rnn.RNNDropout = 0 // as settle has it
	}
	if err := cmp.Or(
		data.OneOf("features", c.Features, []string{"logmel", "mfcc"}),
		data.OneOf("normalize", c.Normalize, []string{"", "utterance", "running", "global", "none"}),
		data.Between("validation", c.Validation, 0, 0.9), data.Between("rate", c.Rate, 0, 1e6),
		data.Between("window", c.Window, 1, 1000), data.Between("hop", c.Hop, 1, 1000), data.Between("bands", c.Bands, 1, 1024),
		data.Between("coefficients", c.Coefficients, 1, 1024), data.Between("deltas", c.Deltas, 0, 2),
		data.Between("stack", c.Stack, 1, 32), data.Between("skip", c.Skip, 0, 32), data.Between("dropout", c.Dropout, 0, 0.99),
		data.Between("speed", c.Speed, 0, 0.5), data.Between("gain", c.Gain, 0, 60), data.Between("noise", c.Noise, 0, 100),
		data.Between("time_masks", c.TimeMasks, 0, 100), data.Between("time_mask", c.TimeMask, 0, 1),
		data.Between("band_masks", c.BandMasks, 0, 100), data.Between("band_mask", c.BandMask, 0, 1),
		data.Between("batch", c.Batch, 1, 1e5), data.Between("batch_time", c.BatchTime, 1, 1e6), data.Between("warmup", c.Warmup, 0, 1),
		data.Setting(rnn.Validate()), data.Setting(c.Settings.Validate()),
	); err != nil {
		return err
	}
	if c.MinLR > c.LR {
		return data.Errorf("min_lr: want at most lr (%v), got %v", c.LR, c.MinLR)
	}
	if c.Skip > c.Stack {
		return data.Errorf("skip: want at most stack (%d), or frames would be lost; got %d", c.Stack, c.Skip)
	}
	if c.Hop > c.Window {
		return data.Errorf("hop: want at most window (%v ms), or sound between frames would be lost; got %v", c.Window, c.Hop)
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

// specAt is the features of sounds of so many samples a second.
func (c *Setup) specAt(rate int) audio.Spec {
	samples := func(ms float64) int { return int(math.Round(ms * float64(rate) / 1000)) }
	s := audio.Spec{Rate: rate, Window: samples(c.Window), Hop: samples(c.Hop), Bands: c.Bands, Preemphasis: c.Preemphasis}
	if c.Features == "mfcc" {
		s.MFCC = c.Coefficients
	}
	return s
}

// skip is the frames from one step of the network to the next.
func (c *Setup) skip() int {
	if c.Skip == 0 {
		return c.Stack
	}
	return c.Skip
}

// stepSeconds is the time from one step of the network to the next.
func (c *Setup) stepSeconds() float64 { return c.Hop / 1000 * float64(c.skip()) }

// settle fills in what the empty settings leave to the others.
func (c *Setup) settle() {
	if c.Normalize == "" {
		c.Normalize = "utterance"
		if !c.Bidirectional {
			c.Normalize = "running"
		}
	}
	if c.Skip == 0 {
		c.Skip = c.Stack
	}
	if c.Layers == 1 {
		c.RNNDropout = 0 // the default is more, which is no mistake of someone who asks for one layer
	}
}
